//! The terminal while the live screen is there: its other screen without a cursor, keys as they are
//! typed, and how large it is.

use std::io::{self, Write as _};
use std::sync::mpsc::Sender;
#[cfg(unix)]
use std::time::Duration;

/// Why the screen does not wait for the next sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Interrupted, or told to by a key.
    End,
    /// The terminal has another size.
    Resized,
    /// Ctrl-Z.
    Suspend,
}

/// How often the size is looked at.
#[cfg(unix)]
const LOOK: Duration = Duration::from_millis(100);

/// Height and width.
pub fn size() -> (usize, usize) {
    let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
    (height.into(), width.into())
}

/// The terminal as the live screen needs it; as it was again when dropped.
pub struct Alternate {
    #[cfg(unix)]
    modes: Option<nix::sys::termios::Termios>,
}

impl Alternate {
    /// Keys are not shown and come at once. Ctrl-C stays a signal, and Ctrl-Z becomes a key, so that
    /// the terminal is put right before the process stops.
    pub fn enter() -> Self {
        #[cfg(unix)]
        let modes = keys::take();
        let _ = io::stdout().write_all(b"\x1b[?1049h\x1b[?25l");
        Self {
            #[cfg(unix)]
            modes,
        }
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        let mut out = io::stdout();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
        #[cfg(unix)]
        if let Some(modes) = &self.modes {
            keys::give_back(modes);
        }
    }
}

/// Tells of keys and of other sizes, from a thread of its own, until the process ends.
#[cfg(unix)]
pub fn watch(wake: Sender<Wake>) -> io::Result<()> {
    std::thread::Builder::new().name("keys".into()).spawn(move || keys::watch(&wake))?;
    Ok(())
}

/// Elsewhere the screen only follows the samples, and Ctrl-C ends it.
#[cfg(not(unix))]
pub fn watch(_: Sender<Wake>) -> io::Result<()> {
    Ok(())
}

/// Stops the process, as Ctrl-Z does; returns when it goes on.
#[cfg(unix)]
pub fn suspend() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP);
}

#[cfg(not(unix))]
pub const fn suspend() {}

#[cfg(unix)]
mod keys {
    use super::{LOOK, Wake, size};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::termios::{
        LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
    };
    use std::io::{self, IsTerminal as _, Read as _};
    use std::os::fd::AsFd as _;
    use std::sync::mpsc::Sender;

    /// What the terminal was before, if there is one to type at.
    pub(super) fn take() -> Option<Termios> {
        let before = io::stdin().is_terminal().then(|| tcgetattr(io::stdin()).ok()).flatten()?;
        let mut modes = before.clone();
        modes.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        modes.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        modes.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        modes.control_chars[SpecialCharacterIndices::VSUSP as usize] = libc::_POSIX_VDISABLE;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &modes).ok().map(|()| before)
    }

    /// Keys that nobody has read are not left to whoever reads next.
    pub(super) fn give_back(modes: &Termios) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, modes);
    }

    pub(super) fn watch(wake: &Sender<Wake>) {
        let mut typed = io::stdin().is_terminal();
        let mut known = size();
        loop {
            let size = size();
            if size != known && wake.send(Wake::Resized).is_err() {
                return;
            }
            known = size;
            if !typed {
                std::thread::sleep(LOOK);
                continue;
            }
            for key in pressed(&mut typed) {
                let woken = match key {
                    b'q' | b'Q' => wake.send(Wake::End),
                    0x1a => wake.send(Wake::Suspend),
                    _ => Ok(()),
                };
                if woken.is_err() {
                    return;
                }
            }
        }
    }

    /// The keys of the next moment; `typed` is false once there is nobody to type.
    fn pressed(typed: &mut bool) -> Vec<u8> {
        let stdin = io::stdin();
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let ready = match poll(&mut fds, timeout) {
            Ok(ready) => ready > 0,
            Err(nix::Error::EINTR) => false,
            Err(_) => {
                *typed = false;
                false
            }
        };
        if !ready {
            return Vec::new();
        }
        let mut keys = [0; 64];
        match io::stdin().lock().read(&mut keys) {
            Ok(n @ 1..) => keys[..n].to_vec(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Vec::new(),
            _ => {
                *typed = false;
                Vec::new()
            }
        }
    }
}
