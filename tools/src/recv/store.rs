//! The folder that files arrive in: partial files under names of our own, then the final name in
//! one step that never replaces anything.

use crate::home;
use crate::transfer::names::{self, PARTIAL_PREFIX};
use ring::digest;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Ends every partial name.
const PARTIAL_SUFFIX: &str = ".part";
/// Alternative names tried with `--rename`.
const MAX_ALTERNATIVES: u32 = 10_000;
/// A partial file of another machine (or of this one before it restarted) that nobody has written
/// to for this long is a leftover.
const FOREIGN_LEFTOVER: Duration = Duration::from_secs(600);
/// Blocks of at most this many bytes that are all zeros are not written: they become holes.
const HOLE: usize = 64 * 1024;

/// The target folder.
#[derive(Clone, Debug)]
pub struct Inbox {
    dir: Arc<Path>,
    process: Arc<str>,
    next: Arc<AtomicU64>,
    rename: bool,
    sync: bool,
}

/// A file that is arriving. Dropping it removes it.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    end: u64,
}

impl Inbox {
    /// Makes the folder where needed and removes what crashed receivers left in it. The second
    /// value counts the leftovers removed.
    pub fn open(dir: &Path, rename: bool, sync: bool) -> io::Result<(Self, usize)> {
        fs::create_dir_all(dir)?;
        // Fixed now: a later change of the working directory or of a link does not move it.
        let dir = fs::canonicalize(dir)?;
        if !fs::metadata(&dir)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let removed = remove_leftovers(&dir);
        let inbox = Self {
            dir: dir.into(),
            process: Process::current().tag().into(),
            next: Arc::new(AtomicU64::new(0)),
            rename,
            sync,
        };
        Ok((inbox, removed))
    }

    /// The folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether taken names get an alternative.
    pub const fn renames(&self) -> bool {
        self.rename
    }

    /// Whether something has this (checked) name already.
    pub fn is_taken(&self, name: &str) -> bool {
        fs::symlink_metadata(self.dir.join(name)).is_ok()
    }

    /// Starts a file; `mode` are its final permission bits, 0 = the system's default.
    pub fn start(&self, mode: u16) -> io::Result<Partial> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{PARTIAL_PREFIX}{}-{n}{PARTIAL_SUFFIX}", self.process));
        // The owner can always read what was received; the system takes the umask off.
        let mode = if mode == 0 { 0o666 } else { u32::from(mode & 0o777) | 0o600 };
        let file = home::create_new(&path, mode)?;
        Ok(Partial { file, path, end: 0 })
    }

    /// Gives a complete file its final name and returns the path. `AlreadyExists` when the name
    /// is taken (and [`Self::renames`] is off); the partial file is gone then too.
    pub fn finish(&self, partial: Partial, name: &str) -> io::Result<PathBuf> {
        names::check(name).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        partial.file.set_len(partial.end)?;
        if self.sync {
            partial.file.sync_all()?;
        }
        let mut target = self.dir.join(name);
        let mut attempt = 0;
        loop {
            match home::rename_new(&partial.path, &target) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.rename => {
                    attempt += 1;
                    if attempt > MAX_ALTERNATIVES {
                        return Err(e);
                    }
                    target = self.dir.join(names::alternative(name, attempt));
                }
                Err(e) => return Err(e),
                Ok(()) => break,
            }
        }
        if self.sync {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(target)
    }
}

impl Partial {
    /// Appends `data`; blocks of zeros are left out as holes.
    pub fn append(&mut self, data: &[u8]) -> io::Result<()> {
        for block in data.chunks(HOLE) {
            if !is_zero(block) {
                write_at(&self.file, block, self.end)?;
            }
            self.end += block.len() as u64;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it has its final name.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_zero(block: &[u8]) -> bool {
    let words = block.chunks_exact(64);
    // Most data differs from zero at once.
    block.first() == Some(&0)
        && words.remainder().iter().all(|b| *b == 0)
        && words.clone().all(|w| w.iter().fold(0, |a, b| a | b) == 0)
}

#[cfg(unix)]
fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

#[cfg(not(unix))]
fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    use std::io::{Seek as _, Write as _};
    let mut file = file;
    file.seek(io::SeekFrom::Start(offset))?;
    file.write_all(data)
}

/// Who made a partial file: the machine since its last start (and its pid namespace), the process
/// and when that started. Enough to know whether it still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    machine: String,
    pid: u32,
    started: u64,
}

impl Process {
    fn current() -> Self {
        let pid = std::process::id();
        Self { machine: machine(), pid, started: started(pid).unwrap_or(0) }
    }

    fn tag(&self) -> String {
        format!("{}-{}-{}", self.machine, self.pid, self.started)
    }

    /// The maker of a partial file, from its name; `None` for a name that we do not give.
    fn of(file_name: &str) -> Option<Self> {
        let inner = file_name.strip_prefix(PARTIAL_PREFIX)?.strip_suffix(PARTIAL_SUFFIX)?;
        let mut parts = inner.split('-');
        let machine = parts.next()?.to_owned();
        let pid = parts.next()?.parse().ok()?;
        let started = parts.next()?.parse().ok()?;
        parts.next()?.parse::<u64>().ok()?;
        parts.next().is_none().then_some(Self { machine, pid, started })
    }
}

fn machine() -> String {
    let boot = crate::boot::id();
    let pids = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(boot.as_bytes());
    hash.update(pids.as_os_str().as_encoded_bytes());
    crate::hex::encode(&hash.finish().as_ref()[..4])
}

/// When a process started, in clock ticks since the machine did; `None` when there is no such
/// process, or no way to know.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may contain anything; the 20th field after it counts.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn remove_leftovers(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let here = machine();
    let mut removed = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(maker) = name.to_str().and_then(Process::of) else { continue };
        let leftover = if maker.machine == here && cfg!(target_os = "linux") {
            started(maker.pid) != Some(maker.started)
        } else {
            let age = entry.metadata().and_then(|m| m.modified()).map(|m| m.elapsed());
            age.is_ok_and(|age| age.is_ok_and(|age| age > FOREIGN_LEFTOVER))
        };
        if leftover && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn inbox(dir: &Path) -> Inbox {
        Inbox::open(dir, false, false).unwrap().0
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn final_name_only_at_the_end() {
        let dir = Scratch::new();
        let inbox = inbox(&dir.path().join("in/box"));
        let mut partial = inbox.start(0o640).unwrap();
        partial.append(b"hello ").unwrap();
        partial.append(b"world").unwrap();
        assert!(!inbox.is_taken("a"));
        let path = inbox.finish(partial, "a").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"hello world");
        assert_eq!(names_in(inbox.dir()), ["a"]);
    }

    #[test]
    fn dropped_files_vanish() {
        let dir = Scratch::new();
        let inbox = inbox(dir.path());
        let mut partial = inbox.start(0).unwrap();
        partial.append(b"x").unwrap();
        assert_eq!(names_in(dir.path()).len(), 1);
        drop(partial);
        assert!(names_in(dir.path()).is_empty());
    }

    #[test]
    fn nothing_is_replaced() {
        let dir = Scratch::new();
        let inbox = inbox(dir.path());
        fs::write(dir.path().join("a"), b"mine").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for name in ["a", "d"] {
            let partial = inbox.start(0).unwrap();
            let error = inbox.finish(partial, name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"mine");
        assert_eq!(names_in(dir.path()), ["a", "d"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let dir = Scratch::new();
        let outside = dir.path().join("outside");
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(&outside, b"mine").unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("in/a")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("no"), dir.path().join("in/b")).unwrap();
        let inbox = inbox(&dir.path().join("in"));
        for name in ["a", "b"] {
            assert!(inbox.is_taken(name));
            let mut partial = inbox.start(0).unwrap();
            partial.append(b"theirs").unwrap();
            assert!(inbox.finish(partial, name).is_err());
        }
        assert_eq!(fs::read(&outside).unwrap(), b"mine");
        assert!(!dir.path().join("no").exists());
    }

    #[test]
    fn unsafe_names_are_refused_even_here() {
        let dir = Scratch::new();
        let inbox = inbox(&dir.path().join("in"));
        for name in ["../a", "/tmp/a", "..", "x/y"] {
            let partial = inbox.start(0).unwrap();
            assert!(inbox.finish(partial, name).is_err());
        }
        assert_eq!(names_in(dir.path()), ["in"]);
    }

    #[test]
    fn renaming_finds_a_free_name() {
        let dir = Scratch::new();
        let inbox = Inbox::open(dir.path(), true, true).unwrap().0;
        for content in ["1", "2", "3"] {
            let mut partial = inbox.start(0).unwrap();
            partial.append(content.as_bytes()).unwrap();
            inbox.finish(partial, "a.txt").unwrap();
        }
        assert_eq!(names_in(dir.path()), ["a (1).txt", "a (2).txt", "a.txt"]);
        assert_eq!(fs::read(dir.path().join("a.txt")).unwrap(), b"1");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn zeros_become_holes() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = Scratch::new();
        let inbox = inbox(dir.path());
        let mut partial = inbox.start(0).unwrap();
        partial.append(b"start").unwrap();
        for _ in 0..64 {
            partial.append(&vec![0; 128 * 1024]).unwrap();
        }
        let path = inbox.finish(partial, "sparse").unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), 5 + 64 * 128 * 1024);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        let content = fs::read(path).unwrap();
        assert_eq!(&content[..5], b"start");
        assert!(content[5..].iter().all(|b| *b == 0));
    }

    #[test]
    fn zero_test_sees_every_byte() {
        for len in [1, 63, 64, 65, 4096, 65_536] {
            let mut block = vec![0; len];
            assert!(is_zero(&block));
            for at in [0, len / 2, len - 1] {
                block[at] = 1;
                assert!(!is_zero(&block), "{at} of {len}");
                block[at] = 0;
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn leftovers_of_dead_processes_go_and_live_ones_stay() {
        let dir = Scratch::new();
        let live = inbox(dir.path());
        let partial = live.start(0).unwrap();
        let mut dead = Process::current();
        dead.started += 1;
        let leftover = format!("{PARTIAL_PREFIX}{}-0{PARTIAL_SUFFIX}", dead.tag());
        fs::write(dir.path().join(&leftover), b"half").unwrap();
        fs::write(dir.path().join(".trunkline-notes.part"), b"not ours").unwrap();
        let (_, removed) = Inbox::open(dir.path(), false, false).unwrap();
        assert_eq!(removed, 1);
        assert_eq!(names_in(dir.path()).len(), 2);
        assert!(partial.path.exists());
    }
}
