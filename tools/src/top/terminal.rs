//! The terminal while the live screen is there: its other screen without a cursor, keys as they are
//! typed, and how large it is.

use std::io::{self, Write as _};
use std::sync::mpsc::Sender;
#[cfg(unix)]
use std::time::Duration;

#[cfg(unix)]
pub use keys::{leave, prepare, reads_keys, suspend};

/// Why the screen does not wait for the next sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Interrupted, or told to by a key.
    End,
    /// The terminal has another size.
    Resized,
    /// Ctrl-Z, or somebody else who wants the process to stop.
    Suspend,
}

/// How often the size is looked at.
#[cfg(unix)]
const LOOK: Duration = Duration::from_millis(100);
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// Height and width.
pub fn size() -> (usize, usize) {
    let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
    (height.into(), width.into())
}

/// How the live screen is ended, in a few words.
pub fn how_to_end() -> &'static str {
    if reads_keys() { "q: end" } else { "Ctrl-C: end" }
}

/// The terminal as the live screen needs it; as it was again when dropped. What ends the process
/// without dropping it calls [`leave`].
pub struct Alternate(());

impl Alternate {
    /// Keys are not shown and come at once; those that are signals stay so.
    pub fn enter() -> Self {
        #[cfg(unix)]
        keys::take();
        let mut out = io::stdout();
        let _ = out.write_all(ENTER).and_then(|()| out.flush());
        Self(())
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        leave();
    }
}

/// Tells of keys, of other sizes, and of being asked to stop, from threads of its own, until the
/// process ends.
#[cfg(unix)]
pub fn watch(wake: Sender<Wake>) -> io::Result<()> {
    let stops = wake.clone();
    std::thread::Builder::new().name("stops".into()).spawn(move || keys::watch_stops(&stops))?;
    std::thread::Builder::new().name("keys".into()).spawn(move || keys::watch(&wake))?;
    Ok(())
}

/// Elsewhere the screen only follows the samples, and Ctrl-C ends it.
#[cfg(not(unix))]
pub fn watch(_: Sender<Wake>) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
pub fn leave() {
    let mut out = io::stdout();
    let _ = out.write_all(LEAVE).and_then(|()| out.flush());
}

#[cfg(not(unix))]
pub const fn prepare() {}

#[cfg(not(unix))]
pub const fn suspend() {}

#[cfg(not(unix))]
const fn reads_keys() -> bool {
    false
}

#[cfg(unix)]
mod keys {
    use super::{LEAVE, LOOK, Wake, size};
    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{SigSet, Signal, raise};
    use nix::sys::termios::{
        FlushArg, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcflush, tcgetattr,
        tcsetattr,
    };
    use nix::unistd::{read, write};
    use std::io::{self, IsTerminal as _};
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::Sender;
    use std::sync::{Mutex, PoisonError};

    /// What the terminal was before, if there is one to type at.
    struct Before(Option<Termios>);

    /// While the live screen is there. Here, because whoever ends the process has to know it, on
    /// whichever thread.
    static BEFORE: Mutex<Option<Before>> = Mutex::new(None);
    /// Keys are read.
    static READS_KEYS: AtomicBool = AtomicBool::new(false);

    pub(super) fn take() {
        let before = Before(modes());
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    }

    /// Has the keys come at once, and gives what was before.
    fn modes() -> Option<Termios> {
        let before = io::stdin().is_terminal().then(|| tcgetattr(io::stdin()).ok()).flatten()?;
        let mut modes = before.clone();
        modes.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        modes.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        modes.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &modes).ok().map(|()| before)
    }

    /// The terminal as it was, unless it is so already. Waits neither for whoever is drawing at the
    /// moment nor, for longer than a moment, until the terminal takes something: the process is to
    /// end. Of two who call it, the second one waits for the first to be through.
    pub fn leave() {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Before(modes)) = before.take() else { return };
        if let Some(modes) = modes {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &modes);
            // Keys that nobody has read are not left to whoever reads next.
            let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
        }
        let out = io::stdout();
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        if poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLOUT)], timeout).is_ok_and(|n| n > 0) {
            let _ = write(out.as_fd(), LEAVE);
        }
    }

    /// Whether somebody can type, and be heard.
    pub fn reads_keys() -> bool {
        READS_KEYS.load(Ordering::Relaxed)
    }

    /// Signals whose usual effect is not to come before the terminal is put right.
    fn held() -> SigSet {
        [Signal::SIGTSTP, Signal::SIGQUIT].into_iter().collect()
    }

    /// From now on those signals wait for [`watch_stops`]. To be called before there are threads.
    pub fn prepare() {
        READS_KEYS.store(io::stdin().is_terminal(), Ordering::Relaxed);
        let _ = held().thread_block();
    }

    pub(super) fn watch_stops(wake: &Sender<Wake>) {
        loop {
            match held().wait() {
                Ok(Signal::SIGTSTP) if wake.send(Wake::Suspend).is_err() => return,
                Ok(Signal::SIGTSTP) | Err(Errno::EINTR) => {}
                Ok(signal) => {
                    leave();
                    usual(signal);
                }
                Err(_) => return,
            }
        }
    }

    /// What the signal does usually.
    fn usual(signal: Signal) {
        let signals: SigSet = [signal].into_iter().collect();
        if signals.thread_unblock().is_ok() {
            let _ = raise(signal);
            let _ = signals.thread_block();
        }
    }

    /// Stops the process, as Ctrl-Z does; returns when it goes on.
    pub fn suspend() {
        usual(Signal::SIGTSTP);
    }

    pub(super) fn watch(wake: &Sender<Wake>) {
        let mut known = size();
        loop {
            let size = size();
            if size != known && wake.send(Wake::Resized).is_err() {
                return;
            }
            known = size;
            if !reads_keys() {
                std::thread::sleep(LOOK);
                continue;
            }
            let mut keys = [0; 64];
            let pressed = pressed(&mut keys).unwrap_or_else(|_| {
                // There is nobody to type any more.
                READS_KEYS.store(false, Ordering::Relaxed);
                0
            });
            let ends = keys[..pressed].iter().any(|key| matches!(key, b'q' | b'Q'));
            if ends && wake.send(Wake::End).is_err() {
                return;
            }
        }
    }

    /// The keys of the next moment, and how many they are. Nothing keeps any back that the next call
    /// would not be woken for.
    fn pressed(keys: &mut [u8]) -> Result<usize, Errno> {
        let stdin = io::stdin();
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let done = match poll(&mut fds, timeout) {
            Ok(0) => return Ok(0),
            Ok(_) => read(stdin.as_fd(), keys),
            Err(e) => Err(e),
        };
        match done {
            Ok(0) => Err(Errno::EIO),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(0),
            done => done,
        }
    }
}
