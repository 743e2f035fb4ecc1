//! The journal: old values of settings, on the disk before each change. One JSON object a line, the
//! first of which says whose values they are. A line that is not whole was followed by no change.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use trunkline::hw::nic::Key;

/// The format of the file.
const VERSION: u32 = 1;

/// Whose values they are.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Owner {
    version: u32,
    /// The system's id of its start: settings do not outlive it.
    pub boot: String,
    /// The interface's name.
    pub nic: String,
    /// The kernel's number of it: another one is another interface.
    pub index: u32,
}

impl Owner {
    pub fn new(boot: &str, nic: &str, index: u32) -> Self {
        Self { version: VERSION, boot: boot.to_owned(), nic: nic.to_owned(), index }
    }
}

/// One change that was about to be made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub key: String,
    pub old: String,
    pub new: String,
}

impl Entry {
    pub fn new(key: &Key, old: u64, new: u64) -> Self {
        Self { key: key.to_string(), old: key.show(old), new: key.show(new) }
    }

    /// Whether it concerns the whole system, and outlives the interface.
    pub fn is_of_system(&self) -> bool {
        matches!(self.key.parse(), Ok(Key::Sysctl(_)))
    }

    /// The setting, and its old value.
    pub fn old(&self) -> Result<(Key, u64), String> {
        let key: Key = self.key.parse()?;
        let old = key.parse(&self.old);
        let old = old.ok_or_else(|| format!("{key}: no value \"{}\"", self.old))?;
        Ok((key, old))
    }
}

/// A journal that is being written.
pub struct Journal(File);

/// Makes the folder of the journals where there is none.
pub fn folder(at: &Path) -> io::Result<()> {
    if !at.is_dir() {
        fs::create_dir_all(at)?;
        if let Some(parent) = at.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// The file of an interface.
pub fn path(folder: &Path, nic: &str) -> PathBuf {
    folder.join(format!("profile-{nic}.jsonl"))
}

impl Journal {
    /// Goes on with the journal of `owner`, or begins one; that of another boot or interface is
    /// put aside. Gives the path of that one. What an interface that is gone had changed of the whole
    /// system is still to be taken back, and goes into the new journal.
    pub fn open(folder: &Path, owner: &Owner) -> io::Result<(Self, Option<PathBuf>)> {
        let at = path(folder, &owner.nic);
        let (is_there, kept) = match read(&at) {
            Ok((found, _)) if found == *owner => {
                let mut file = OpenOptions::new().append(true).open(&at)?;
                // Ends a line that is not whole.
                if fs::read(&at)?.last() != Some(&b'\n') {
                    file.write_all(b"\n")?;
                }
                return Ok((Self(file), None));
            }
            Ok((found, entries)) if found.boot == owner.boot => (true, entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (false, Vec::new()),
            _ => (true, Vec::new()),
        };
        // The new one is whole before it takes the place of the old one.
        let begun = at.with_extension("new");
        let mut journal = Self(File::create(&begun)?);
        journal.line(owner)?;
        for entry in kept.iter().filter(|entry| entry.is_of_system()) {
            journal.line(entry)?;
        }
        let aside = is_there.then(|| at.with_extension("stale"));
        if let Some(stale) = &aside {
            fs::copy(&at, stale)?;
        }
        fs::rename(&begun, &at)?;
        // The name of a new file is on the disk when its folder is.
        File::open(folder)?.sync_all()?;
        Ok((journal, aside))
    }

    /// Keeps an entry; it is on the disk afterwards.
    pub fn keep(&mut self, entry: &Entry) -> io::Result<()> {
        self.line(entry)
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        let line = format!("{}\n", serde_json::to_string(object)?);
        self.0.write_all(line.as_bytes())?;
        self.0.sync_all()
    }
}

/// Reads a journal.
///
/// # Errors
/// `NotFound` where there is none, `InvalidData` where it is none.
pub fn read(at: &Path) -> io::Result<(Owner, Vec<Entry>)> {
    let text = fs::read_to_string(at)?;
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut lines = text.lines();
    let owner: Owner = lines
        .next()
        .and_then(|line| serde_json::from_str(line).ok())
        .filter(|owner: &Owner| owner.version == VERSION)
        .ok_or_else(|| bad("is no journal of this version".to_owned()))?;
    // Whatever is not whole was being written when the process ended: nothing was changed for it.
    let entries = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok((owner, entries))
}
