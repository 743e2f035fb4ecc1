//! One process at a time changes settings: a lock on a file of the state folder. The system takes
//! it back when the process ends, however it ends. The file stays; it has the number of the process
//! that holds the lock. Nobody but its owner may open it: who can open a file can lock it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The lock, held until it is dropped.
pub struct Lock {
    #[cfg(unix)]
    file: nix::fcntl::Flock<File>,
    #[cfg(not(unix))]
    _file: File,
}

/// Its number is taken out before the lock is given up: it may soon be that of another process.
#[cfg(unix)]
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// Opens the file, for its owner alone, whoever could open it before.
#[cfg(unix)]
fn open(at: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    /// Reading and writing, for the owner.
    const MODE: u32 = 0o600;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(MODE);
    let file = options.custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(at)?;
    if file.metadata()?.permissions().mode() & 0o7777 != MODE {
        file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

#[cfg(not(unix))]
fn open(at: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(at)
}

/// The file that is locked. Settings of the whole system concern all interfaces: there is one.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("profile.lock")
}

impl Lock {
    /// Takes the lock of a folder that is there; does not wait.
    ///
    /// # Errors
    /// `WouldBlock` where another process has it, with a text that names the file and, where it is
    /// known, the process; the system's.
    pub fn take(folder: &Path) -> io::Result<Self> {
        let at = path(folder);
        let file =
            open(&at).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", at.display())))?;
        Self::of(file, &at)
    }

    #[cfg(unix)]
    fn of(file: File, at: &Path) -> io::Result<Self> {
        use nix::errno::Errno;
        use nix::fcntl::{Flock, FlockArg};
        use std::io::{Read as _, Write as _};

        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Self { file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                // It may not have written its number yet.
                let pid = read.ok().and_then(|_| text.trim().parse::<u32>().ok());
                let who = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
                let text = format!("{who} is changing settings: it holds {}", at.display());
                Err(io::Error::new(io::ErrorKind::WouldBlock, text))
            }
            Err((_, error)) => Err(error.into()),
        }
    }

    /// No settings can be changed here, and there is nothing to keep apart.
    #[cfg(not(unix))]
    fn of(file: File, _: &Path) -> io::Result<Self> {
        Ok(Self { _file: file })
    }
}
