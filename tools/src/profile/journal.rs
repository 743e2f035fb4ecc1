//! The journal: old values of settings, on the disk before the first change. One JSON object a line,
//! the first of which says whose values they are. A line that is not whole was followed by no change.

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
    /// The network namespace that the number is of; 0 where that is not known.
    #[serde(default)]
    pub netns: u64,
}

/// The network namespace of this process, as the kernel numbers it; 0 where there are none.
pub fn netns() -> u64 {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata("/proc/self/ns/net").map_or(0, |file| file.ino())
    }
    #[cfg(not(target_os = "linux"))]
    {
        0
    }
}

impl Owner {
    pub fn new(boot: &str, nic: &str, index: u32, netns: u64) -> Self {
        Self { version: VERSION, boot: boot.to_owned(), nic: nic.to_owned(), index, netns }
    }

    /// Why a journal at `at` is of no use in the network namespace `netns`: names and numbers of
    /// interfaces mean others there.
    pub fn refuse(&self, at: &Path, netns: u64) -> Result<(), String> {
        if self.netns == netns || self.netns == 0 || netns == 0 {
            return Ok(());
        }
        Err(format!(
            "{} is of another network namespace (net:[{}], and this is net:[{netns}]): restore it \
             there, take another --state, or remove it when that namespace is gone",
            at.display(),
            self.netns
        ))
    }
}

/// A setting before changes were made: one that was about to be changed, or, with the same value
/// twice, one that others may move.
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
    /// system is still to be taken back, and goes into the new journal. That of another network
    /// namespace is an error: its interface may well be there.
    pub fn open(folder: &Path, owner: &Owner) -> io::Result<(Self, Option<PathBuf>)> {
        let at = path(folder, &owner.nic);
        let found = read(&at);
        if let Ok((found, _)) = &found
            && found.boot == owner.boot
        {
            found.refuse(&at, owner.netns).map_err(io::Error::other)?;
        }
        let (is_there, kept) = match found {
            Ok((found, _)) if found.boot == owner.boot && found.index == owner.index => {
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

    /// Keeps entries; they are on the disk afterwards.
    pub fn keep(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        self.0.write_all(&lines)?;
        self.0.sync_all()
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        let line = format!("{}\n", serde_json::to_string(object)?);
        self.0.write_all(line.as_bytes())?;
        self.0.sync_all()
    }
}

/// Puts the journal of an interface that is gone aside; its path then.
pub fn put_aside(folder: &Path, nic: &str) -> io::Result<PathBuf> {
    let at = path(folder, nic);
    let aside = at.with_extension("stale");
    fs::rename(&at, &aside)?;
    Ok(aside)
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
