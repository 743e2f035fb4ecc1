//! Changing settings and taking the changes back: apply and restore.

use super::journal::{self, Entry, Journal, Owner};
use super::{ApplyArgs, RestoreArgs, Target, comparison_json, comparison_line, nic, unknown};
use crate::exit::{Exit, Failure};
use crate::print;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use trunkline::hw::Machine;
use trunkline::hw::nic::Key;
use trunkline::hw::tune::{Comparison, Standing, Tuner};

/// What became of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub key: Key,
    /// `set`, `skipped`, `restored`, `unchanged` or `failed`.
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

/// Id of this start of the system.
fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Whether the device refused a setting as such.
fn refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

/// Settings to change, in order.
pub fn to_change(compared: &[Comparison], disruptive: bool) -> Vec<&Comparison> {
    let differs = compared.iter().filter(|c| c.standing == Standing::Differs);
    differs.filter(|c| disruptive || !c.key.disruptive()).collect()
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
    for change in changes {
        let key = &change.key;
        // A change made before may have moved it: the journal has the value of this moment.
        let attempt = tuner.read(key).and_then(|reading| {
            let entry = Entry::new(key, reading.value, change.wanted);
            journal.keep(&entry)?;
            made.push(entry);
            Ok((reading.value, tuner.write(key, change.wanted)))
        });
        let failed = match attempt {
            Ok((old, Ok(kept))) => {
                let mut text = format!("{} -> {}", key.show(old), key.show(kept));
                if kept != change.wanted {
                    let _ = write!(text, " (the device made this of {})", key.show(change.wanted));
                }
                done.push(Done::new(key, "set", text));
                continue;
            }
            Ok((_, Err(error))) if refused(&error) => {
                done.push(Done::new(key, "skipped", format!("the device refuses it: {error}")));
                continue;
            }
            Ok((_, Err(error))) | Err(error) => error,
        };
        done.push(Done::new(key, "failed", failed.to_string()));
        done.extend(undo(tuner, &made));
        return Err(done);
    }
    Ok(done)
}

/// Takes entries back, the last one first.
pub fn undo(tuner: &Tuner, entries: &[Entry]) -> Vec<Done> {
    let mut done = Vec::new();
    for entry in entries.iter().rev() {
        let (key, old) = match entry.old() {
            Ok(found) => found,
            Err(why) => {
                done.push(Done::new(&Key::Feature(entry.key.clone()), "failed", why));
                continue;
            }
        };
        let outcome = tuner.read(&key).and_then(|reading| {
            if reading.value == old {
                return Ok(Done::new(&key, "unchanged", format!("is {}", key.show(old))));
            }
            let kept = tuner.write(&key, old)?;
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
    let mut failed = false;
    if !changes.is_empty() {
        let folder = &args.state.state;
        let owner = Owner::new(&boot(), &target.nic.name, target.nic.index);
        let (mut journal, aside) = Journal::open(folder, &owner).map_err(|e| {
            unknown(format!("no journal in {}, and nothing was changed: {e}", folder.display()))
        })?;
        if let Some(aside) = aside {
            let aside = aside.display();
            text.push(format!("a journal of another boot or interface is now {aside}"));
        }
        let outcome = make(&target.tuner, &changes, &mut journal);
        failed = outcome.is_err();
        let done = outcome.unwrap_or_else(|done| done);
        text.extend(lines(&done));
        object["done"] = json!(objects(&done));
        if failed {
            let whole = done.iter().filter(|d| d.what == "failed").count() == 1;
            text.push(
                if whole {
                    "a setting failed: everything changed before was taken back"
                } else {
                    "a setting failed, and not everything could be taken back: see restore"
                }
                .to_owned(),
            );
        } else {
            let at = journal::path(folder, &target.nic.name);
            text.push(format!("old values are in {}; restore takes them back", at.display()));
        }
    }
    if changes.is_empty() && !held_back {
        text.push("nothing to set".to_owned());
    }
    object["failed"] = json!(failed);
    print::result(args.json, &object, &text.join("\n"))?;
    let unreadable = left.iter().any(|c| matches!(c.standing, Standing::Unknown(_)));
    Ok(if failed || held_back {
        Exit::Failed
    } else if unreadable {
        Exit::Usage
    } else {
        Exit::Done
    })
}

/// The entries of an interface's journal, when they are of this boot and of this interface.
/// `index` is that of the interface, if there is one.
pub fn entries(
    folder: &Path,
    name: &str,
    boot: &str,
    index: Option<u32>,
) -> Result<Vec<Entry>, String> {
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
    match index {
        None => Err(format!("{at} is of {name}, which is gone, and its settings with it")),
        Some(index) if index != owner.index => {
            Err(format!("{at} is of another interface that was called {name}; that one is gone"))
        }
        Some(_) => Ok(entries),
    }
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
    let entries = entries(folder, &name, &boot(), found.map(|nic| nic.index)).map_err(unknown)?;
    let tuner = Tuner::open(&name).map_err(|e| unknown(format!("{name}: {e}")))?;
    let done = undo(&tuner, &entries);
    let failed = any_failed(&done);
    let mut text: Vec<String> = lines(&done).collect();
    let at = journal::path(folder, &name);
    if failed {
        text.push(format!("not everything was restored: {} stays", at.display()));
    } else {
        fs::remove_file(&at)
            .map_err(|e| Failure::local(format!("restored, but {}: {e}", at.display())))?;
        text.push(format!("{name} is as it was"));
    }
    let object = json!({"nic": name, "done": objects(&done), "failed": failed});
    print::result(args.json, &object, &text.join("\n"))?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}
