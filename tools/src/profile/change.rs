//! Changing settings and taking the changes back: apply and restore.

use super::journal::{self, Entry, Journal, Owner};
use super::lock::Lock;
use super::{ApplyArgs, RestoreArgs, Target, comparison_json, comparison_line, exit, nic, unknown};
use crate::boot;
use crate::exit::{Exit, Failure};
use crate::print;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use trunkline::hw::nic::Key;
use trunkline::hw::tune::{Access, Comparison, Fault, Standing, Tuner};
use trunkline::hw::{Machine, Nic, Want};

/// What became of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub key: Key,
    /// `set`, `skipped`, `differs`, `restored`, `unchanged`, `gone` or `failed`.
    pub what: &'static str,
    pub text: String,
}

impl Done {
    fn new(key: &Key, what: &'static str, text: impl Into<String>) -> Self {
        Self { key: key.clone(), what, text: text.into() }
    }

    fn json(&self) -> Value {
        json!({"key": self.key.to_string(), "what": self.what, "text": self.text})
    }

    fn line(&self) -> String {
        format!("{:9} {:32} {}", self.what, self.key.to_string(), self.text)
    }
}

/// Settings to change, in order.
pub fn to_change(compared: &[Comparison], disruptive: bool) -> Vec<&Comparison> {
    let differs = compared.iter().filter(|c| c.standing == Standing::Differs);
    differs.filter(|c| disruptive || !c.key.disruptive()).collect()
}

/// Whether a device may move other settings when this one is changed.
fn may_move_others(key: &Key) -> bool {
    !matches!(key, Key::GroFlushTimeout | Key::NapiDeferHardIrqs | Key::Sysctl(_))
}

/// What is to be kept before the first change: the values of all settings that are to be changed,
/// and, where one of these may move others, of all others of the interface. Afterwards it is too
/// late: what is read then is what the device made of them.
fn to_keep(compared: &[Comparison], changes: &[&Comparison]) -> Vec<Entry> {
    let moving = changes.iter().any(|change| may_move_others(&change.key));
    let kept = compared.iter().filter_map(|one| {
        let current = one.current?;
        let change = changes.iter().find(|change| change.key == one.key);
        let is_fixed = matches!(one.standing, Standing::Skipped(_));
        let may_move = moving && !is_fixed && !matches!(one.key, Key::Sysctl(_));
        let new = change.map_or(current, |change| change.wanted);
        (change.is_some() || may_move).then(|| Entry::new(&one.key, current, new))
    });
    kept.collect()
}

/// One change.
fn change(tuner: &Tuner, change: &Comparison) -> Result<Done, String> {
    let (key, wanted) = (&change.key, change.wanted);
    let failed = |error: io::Error| error.to_string();
    // A change made before may have moved it.
    let reading = tuner.read(key).map_err(failed)?;
    let value = key.show(wanted);
    if let Err(error) = tuner.write(key, wanted) {
        return match Fault::of(&error, Access::Write) {
            Fault::Lacking => {
                let text = format!("the device has nothing to change it with: {error}");
                Ok(Done::new(key, "skipped", text))
            }
            Fault::Refused => {
                let most = reading.max.filter(|max| *max > 0);
                let most = most
                    .map_or(String::new(), |m| format!(", though it says that it takes up to {m}"));
                Err(format!("the device refuses {key} = {value}{most}: {error}"))
            }
            Fault::Failed => Err(format!("cannot set {key} = {value}: {error}")),
        };
    }
    let kept = tuner.read(key).map_err(failed)?.value;
    let mut text = format!("{} -> {}", key.show(reading.value), key.show(kept));
    if kept != wanted {
        let _ = write!(text, " (the device made this of {value})");
    }
    Ok(Done::new(key, "set", text))
}

/// Makes changes, after the journal has the old values of `compared`. When one fails, those made so
/// far are taken back, and what was done is given as the error.
pub fn make(
    tuner: &Tuner,
    compared: &[Comparison],
    changes: &[&Comparison],
    journal: &mut Journal,
) -> Result<Vec<Done>, Vec<Done>> {
    let kept = to_keep(compared, changes);
    if let Some(first) = changes.first()
        && let Err(error) = journal.keep(&kept)
    {
        let text = format!("the journal cannot be written: {error}");
        return Err(vec![Done::new(&first.key, "failed", text)]);
    }
    let mut done = Vec::new();
    for one in changes {
        match change(tuner, one) {
            Ok(well) => done.push(well),
            Err(text) => {
                done.push(Done::new(&one.key, "failed", text));
                let back = undo(tuner, &kept, true).into_iter();
                done.extend(back.filter(|done| done.what != "unchanged"));
                return Err(done);
            }
        }
    }
    Ok(done)
}

/// What an apply did, and how everything stands afterwards.
pub struct Outcome {
    pub done: Vec<Done>,
    /// A change failed, and those before it were taken back.
    pub failed: bool,
    pub after: Vec<Comparison>,
}

impl Outcome {
    /// As `diff` ends afterwards, unless a change failed.
    pub fn exit(&self) -> Exit {
        if self.failed { Exit::Failed } else { exit(&self.after) }
    }
}

/// Sets what differs, and looks at everything again: a device may round a value, keep its own, or
/// move one setting when another is changed.
pub fn carry_out(
    tuner: &Tuner,
    wants: &[Want],
    cores: usize,
    disruptive: bool,
    journal: &mut Journal,
) -> Outcome {
    let before = tuner.compare(wants, cores);
    let changes = to_change(&before, disruptive);
    let made = make(tuner, &before, &changes, journal);
    let failed = made.is_err();
    let mut done = made.unwrap_or_else(|done| done);
    let after = tuner.compare(wants, cores);
    if !failed {
        // Not those that differed before and were left.
        let left = |c: &Comparison| {
            let differed = before.iter().any(|b| b.key == c.key && b.standing == Standing::Differs);
            differed && changes.iter().all(|change| change.key != c.key)
        };
        for one in to_change(&after, true).into_iter().filter(|c| !left(c)) {
            let current = one.current.map_or_else(|| "-".to_owned(), |v| one.key.show(v));
            let text = format!("is {current}, not {}", one.key.show(one.wanted));
            done.push(Done::new(&one.key, "differs", text));
        }
    }
    Outcome { done, failed, after }
}

/// The oldest value of each setting, in the order of the entries, and what cannot be read of them.
fn oldest(entries: &[Entry]) -> (Vec<(Key, u64)>, Vec<Done>) {
    let mut values: Vec<(Key, u64)> = Vec::new();
    let mut unread = Vec::new();
    for entry in entries {
        match entry.old() {
            Ok((key, _)) if values.iter().any(|(known, _)| *known == key) => {}
            Ok(value) => values.push(value),
            Err(why) => unread.push(Done::new(&Key::Feature(entry.key.clone()), "failed", why)),
        }
    }
    (values, unread)
}

/// Sets a setting where it has another value.
fn put(tuner: &Tuner, key: &Key, value: u64) -> io::Result<()> {
    if tuner.read(key)?.value == value { Ok(()) } else { tuner.write(key, value) }
}

/// Takes entries back to their oldest values, the last one first, and then once more in the order
/// in which settings are made: a device may have moved one while another was taken back, or refuse
/// one until another is. How they are in the end decides. Where the interface is not there any more,
/// only what concerns the whole system can be taken back.
pub fn undo(tuner: &Tuner, entries: &[Entry], is_there: bool) -> Vec<Done> {
    let (values, mut done) = oldest(entries);
    let (back, gone): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|(key, _)| is_there || matches!(key, Key::Sysctl(_)));
    for (key, old) in gone.iter().rev() {
        let text = format!("was {}, and went with the interface", key.show(*old));
        done.push(Done::new(key, "gone", text));
    }
    let before: Vec<Option<u64>> =
        back.iter().map(|(key, _)| tuner.read(key).ok().map(|reading| reading.value)).collect();
    let mut in_order: Vec<&(Key, u64)> = back.iter().collect();
    in_order.sort();
    let mut errors: Vec<(&Key, io::Error)> = Vec::new();
    for (key, old) in back.iter().rev().chain(in_order) {
        errors.retain(|(failed, _)| *failed != key);
        if let Err(error) = put(tuner, key, *old) {
            errors.push((key, error));
        }
    }
    for ((key, old), before) in back.iter().zip(before).rev() {
        let shown = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |v| key.show(v));
        let now = tuner.read(key).map(|reading| reading.value);
        done.push(match now {
            Ok(now) if now == *old && before == Some(now) => {
                Done::new(key, "unchanged", format!("is {}", key.show(now)))
            }
            Ok(now) if now == *old => {
                Done::new(key, "restored", format!("{} -> {}", shown(before), key.show(now)))
            }
            Ok(now) => {
                let mut text = format!("is {}, not {}", key.show(now), key.show(*old));
                if let Some((_, error)) = errors.iter().find(|(failed, _)| *failed == key) {
                    let _ = write!(text, ": {error}");
                }
                Done::new(key, "failed", text)
            }
            Err(error) => Done::new(key, "failed", error.to_string()),
        });
    }
    done
}

fn lines(done: &[Done]) -> impl Iterator<Item = String> + '_ {
    done.iter().map(Done::line)
}

fn objects(done: &[Done]) -> Vec<Value> {
    done.iter().map(Done::json).collect()
}

fn any_failed(done: &[Done]) -> bool {
    done.iter().any(|d| d.what == "failed")
}

pub fn apply(args: &ApplyArgs) -> Result<Exit, Failure> {
    let target = Target::open(&args.choice)?;
    let changes = to_change(&target.compared, args.allow_disruptive);
    let left: Vec<&Comparison> = target.compared.iter().filter(|c| !changes.contains(c)).collect();
    let held_back = left.iter().any(|c| c.standing == Standing::Differs);
    let mut text = Vec::new();
    for other in left.iter().filter(|c| c.standing != Standing::Matches) {
        text.push(comparison_line(other));
    }
    if held_back {
        text.push("disruptive settings are left: --allow-disruptive sets them, too".to_owned());
    }
    let mut object = json!({
        "nic": target.nic.name, "profile": target.profile.name, "dry_run": args.dry_run,
        "left": left.iter().map(|c| comparison_json(c)).collect::<Vec<_>>(),
    });
    if args.dry_run {
        text.extend(changes.iter().map(|c| comparison_line(c)));
        text.push(format!("{} would be set", changes.len()));
        object["would_set"] = changes.iter().map(|c| comparison_json(c)).collect();
        print::result(args.json, &object, &text.join("\n"))?;
        return Ok(target.exit());
    }
    let mut ends = target.exit();
    object["failed"] = json!(false);
    if !changes.is_empty() {
        let outcome = apply_to(&target, args, &mut text)?;
        text.extend(lines(&outcome.done));
        text.push(end_of(&outcome, &args.state.state, &target.nic.name));
        let differing = to_change(&outcome.after, true);
        let keys: Vec<String> = differing.iter().map(|c| c.key.to_string()).collect();
        object["done"] = json!(objects(&outcome.done));
        object["differs"] = json!(keys);
        object["failed"] = json!(outcome.failed);
        ends = outcome.exit();
    } else if !held_back {
        text.push("nothing to set".to_owned());
    }
    print::result(args.json, &object, &text.join("\n"))?;
    Ok(ends)
}

/// Whether an interface is still the one that was looked at, in a folder like `/sys`.
///
/// # Errors
/// What became of it.
pub fn is_still(sys: &Path, nic: &Nic) -> Result<(), String> {
    let Nic { name, index, .. } = nic;
    let now = fs::read_to_string(sys.join("class/net").join(name).join("ifindex"));
    let now: Option<u32> = now.ok().and_then(|text| text.trim().parse().ok());
    match now {
        Some(now) if now == *index => Ok(()),
        Some(now) => Err(format!("{name} is another interface now (number {now}, not {index})")),
        None => Err(format!("{name} is gone")),
    }
}

/// With the lock and the journal.
fn apply_to(target: &Target, args: &ApplyArgs, text: &mut Vec<String>) -> Result<Outcome, Failure> {
    let folder = &args.state.state;
    let untouched = |e: io::Error| {
        unknown(format!("no journal in {}, and nothing was changed: {e}", folder.display()))
    };
    journal::folder(folder).map_err(untouched)?;
    let _lock = Lock::take(folder).map_err(untouched)?;
    // It may have taken its time to get here.
    is_still(Path::new("/sys"), &target.nic)
        .map_err(|why| unknown(format!("{why}: nothing was changed")))?;
    let owner = Owner::new(boot::id(), &target.nic.name, target.nic.index, journal::netns());
    let (mut journal, aside) = Journal::open(folder, &owner).map_err(untouched)?;
    if let Some(aside) = aside {
        let aside = aside.display();
        text.push(format!("a journal of another boot or interface is now {aside}"));
    }
    let Target { tuner, wants, cores, .. } = target;
    Ok(carry_out(tuner, wants, *cores, args.allow_disruptive, &mut journal))
}

/// The last line of an apply.
fn end_of(outcome: &Outcome, folder: &Path, nic: &str) -> String {
    let failures = outcome.done.iter().filter(|d| d.what == "failed").count();
    if failures > 1 {
        "a setting failed, and not everything could be taken back: see restore".to_owned()
    } else if outcome.failed {
        "a setting failed: everything changed before was taken back".to_owned()
    } else {
        let at = journal::path(folder, nic);
        format!("old values are in {}; restore takes them back", at.display())
    }
}

/// Where a journal is to be of use.
pub struct Here<'a> {
    pub boot: &'a str,
    pub netns: u64,
    pub nics: &'a [Nic],
}

/// The journal of an interface, when it is of this boot and network namespace.
#[derive(Debug)]
pub struct Kept {
    pub entries: Vec<Entry>,
    /// What the interface is called now.
    pub nic: String,
    /// Why nothing of the interface itself can be taken back.
    pub gone: Option<String>,
}

/// Reads the journal of an interface.
pub fn kept(folder: &Path, name: &str, here: &Here) -> Result<Kept, String> {
    let at = journal::path(folder, name);
    let (owner, entries) = journal::read(&at).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            format!("nothing to restore: there is no journal {}", at.display())
        } else {
            format!("{}: {error}", at.display())
        }
    })?;
    if owner.boot != here.boot {
        return Err(format!(
            "{} is of another boot: its settings ended with that, and nothing is to be restored",
            at.display()
        ));
    }
    owner.refuse(&at, here.netns)?;
    // Names can be changed; the number is the same as long as the interface is there. What another
    // namespace calls so is another one.
    let is_it = |nic: &&Nic| nic.index == owner.index && (owner.netns != 0 || nic.name == name);
    let (nic, gone) = if let Some(nic) = here.nics.iter().find(is_it) {
        (nic.name.clone(), None)
    } else if here.nics.iter().any(|nic| nic.name == name) {
        (name.to_owned(), Some(format!("{name} is another interface now, and is left as it is")))
    } else {
        (name.to_owned(), Some(format!("{name} is gone, and its settings with it")))
    };
    Ok(Kept { entries, nic, gone })
}

pub fn restore(args: &RestoreArgs) -> Result<Exit, Failure> {
    let machine = Machine::this();
    let name = match &args.nic {
        Some(name) if name.contains('/') => return Err(unknown(format!("no interface {name}"))),
        Some(name) => name.clone(),
        None => nic(&machine, None)?.name,
    };
    let folder = &args.state.state;
    let (boot, netns) = (boot::id(), journal::netns());
    let kept_among =
        |nics: &[Nic]| kept(folder, &name, &Here { boot, netns, nics }).map_err(unknown);
    // Whether there is anything at all is told without the lock, and without a folder for it.
    kept_among(&machine.nics)?;
    let _lock = Lock::take(folder)
        .map_err(|e| unknown(format!("{}, and nothing was restored: {e}", folder.display())))?;
    let Kept { entries, nic, gone } = kept_among(&Machine::this().nics)?;
    let tuner = Tuner::open(&nic).map_err(|e| unknown(format!("{nic}: {e}")))?;
    let done = undo(&tuner, &entries, gone.is_none());
    let failed = any_failed(&done);
    let mut text: Vec<String> = lines(&done).collect();
    if nic != name {
        text.push(format!("{name} is called {nic} now, and is set back under that name"));
    }
    let at = journal::path(folder, &name);
    text.extend(gone.clone());
    let left = |e: io::Error| Failure::local(format!("restored, but {}: {e}", at.display()));
    if failed {
        text.push(format!("not everything was restored: {} stays", at.display()));
    } else if gone.is_some() {
        let aside = journal::put_aside(folder, &name).map_err(left)?;
        text.push("what concerns the whole system is as it was".to_owned());
        text.push(format!("the journal is now {}", aside.display()));
    } else {
        fs::remove_file(&at).map_err(left)?;
        text.push(format!("{nic} is as it was"));
    }
    let object = json!({
        "nic": name, "called_now": nic, "done": objects(&done), "failed": failed, "gone": gone,
    });
    print::result(args.json, &object, &text.join("\n"))?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}
