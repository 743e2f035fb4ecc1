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
use trunkline::hw::{Machine, Want};

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

/// One change: the old value goes into the journal and among `made`, then the new one is set.
fn change(
    tuner: &Tuner,
    change: &Comparison,
    journal: &mut Journal,
    made: &mut Vec<Entry>,
) -> Result<Done, String> {
    let (key, wanted) = (&change.key, change.wanted);
    let failed = |error: io::Error| error.to_string();
    // A change made before may have moved it: the journal has the value of this moment.
    let reading = tuner.read(key).map_err(failed)?;
    let entry = Entry::new(key, reading.value, wanted);
    journal.keep(&entry).map_err(|e| format!("the journal cannot be written: {e}"))?;
    made.push(entry);
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

/// Makes the changes, each with its old value in the journal before. When one fails, those made
/// so far are taken back, and what was done is given as the error.
pub fn make(
    tuner: &Tuner,
    changes: &[&Comparison],
    journal: &mut Journal,
) -> Result<Vec<Done>, Vec<Done>> {
    let mut done = Vec::new();
    let mut made: Vec<Entry> = Vec::new();
    for one in changes {
        match change(tuner, one, journal, &mut made) {
            Ok(well) => done.push(well),
            Err(text) => {
                done.push(Done::new(&one.key, "failed", text));
                done.extend(undo(tuner, &made, true));
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
    let made = make(tuner, &changes, journal);
    let failed = made.is_err();
    let mut done = made.unwrap_or_else(|done| done);
    let after = tuner.compare(wants, cores);
    if !failed {
        let tried = |c: &&Comparison| changes.iter().any(|change| change.key == c.key);
        for one in to_change(&after, true).into_iter().filter(tried) {
            let current = one.current.map_or_else(|| "-".to_owned(), |v| one.key.show(v));
            let text = format!("is {current}, not {}", one.key.show(one.wanted));
            done.push(Done::new(&one.key, "differs", text));
        }
    }
    Outcome { done, failed, after }
}

/// Takes entries back, the last one first. Where the interface is not there any more, only what
/// concerns the whole system can be.
pub fn undo(tuner: &Tuner, entries: &[Entry], is_there: bool) -> Vec<Done> {
    let mut done = Vec::new();
    for entry in entries.iter().rev() {
        let (key, old) = match entry.old() {
            Ok(found) => found,
            Err(why) => {
                done.push(Done::new(&Key::Feature(entry.key.clone()), "failed", why));
                continue;
            }
        };
        if !is_there && !entry.is_of_system() {
            let text = format!("was {}, and went with the interface", key.show(old));
            done.push(Done::new(&key, "gone", text));
            continue;
        }
        let outcome = tuner.read(&key).and_then(|reading| {
            if reading.value == old {
                return Ok(Done::new(&key, "unchanged", format!("is {}", key.show(old))));
            }
            tuner.write(&key, old)?;
            let kept = tuner.read(&key)?.value;
            let text = format!("{} -> {}", key.show(reading.value), key.show(kept));
            Ok(Done::new(&key, if kept == old { "restored" } else { "failed" }, text))
        });
        done.push(outcome.unwrap_or_else(|error| Done::new(&key, "failed", error.to_string())));
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

/// With the lock and the journal.
fn apply_to(target: &Target, args: &ApplyArgs, text: &mut Vec<String>) -> Result<Outcome, Failure> {
    let folder = &args.state.state;
    let untouched = |e: io::Error| {
        unknown(format!("no journal in {}, and nothing was changed: {e}", folder.display()))
    };
    journal::folder(folder).map_err(untouched)?;
    let _lock = Lock::take(folder).map_err(untouched)?;
    let owner = Owner::new(&boot::id(), &target.nic.name, target.nic.index);
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

/// The journal of an interface, when it is of this boot.
pub struct Kept {
    pub entries: Vec<Entry>,
    /// Why nothing of the interface itself can be taken back.
    pub gone: Option<String>,
}

/// Reads the journal of an interface; `index` is that of the interface, if there is one.
pub fn kept(folder: &Path, name: &str, boot: &str, index: Option<u32>) -> Result<Kept, String> {
    let at = journal::path(folder, name);
    let (owner, entries) = journal::read(&at).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            format!("nothing to restore: there is no journal {}", at.display())
        } else {
            format!("{}: {error}", at.display())
        }
    })?;
    let at = at.display();
    if owner.boot != boot {
        return Err(format!(
            "{at} is of another boot: its settings ended with that, and nothing is to be restored"
        ));
    }
    let gone = match index {
        None => Some(format!("{name} is gone, and its settings with it")),
        Some(index) if index != owner.index => {
            Some(format!("{name} is another interface now, and is left as it is"))
        }
        Some(_) => None,
    };
    Ok(Kept { entries, gone })
}

pub fn restore(args: &RestoreArgs) -> Result<Exit, Failure> {
    let machine = Machine::this();
    let name = match &args.nic {
        Some(name) if name.contains('/') => return Err(unknown(format!("no interface {name}"))),
        Some(name) => name.clone(),
        None => nic(&machine, None)?.name,
    };
    let found = machine.nics.iter().find(|nic| nic.name == name);
    let folder = &args.state.state;
    let index = found.map(|nic| nic.index);
    // Whether there is anything at all is told without the lock, and without a folder for it.
    kept(folder, &name, &boot::id(), index).map_err(unknown)?;
    let _lock = Lock::take(folder)
        .map_err(|e| unknown(format!("{}, and nothing was restored: {e}", folder.display())))?;
    let Kept { entries, gone } = kept(folder, &name, &boot::id(), index).map_err(unknown)?;
    let tuner = Tuner::open(&name).map_err(|e| unknown(format!("{name}: {e}")))?;
    let done = undo(&tuner, &entries, gone.is_none());
    let failed = any_failed(&done);
    let mut text: Vec<String> = lines(&done).collect();
    let at = journal::path(folder, &name);
    text.extend(gone.clone());
    if failed {
        text.push(format!("not everything was restored: {} stays", at.display()));
    } else {
        fs::remove_file(&at)
            .map_err(|e| Failure::local(format!("restored, but {}: {e}", at.display())))?;
        text.push(match gone {
            None => format!("{name} is as it was"),
            Some(_) => "what concerns the whole system is as it was".to_owned(),
        });
    }
    let object = json!({"nic": name, "done": objects(&done), "failed": failed, "gone": gone});
    print::result(args.json, &object, &text.join("\n"))?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}
