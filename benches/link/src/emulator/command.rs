//! What ends the link: a command that ends, or a signal.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(2);

/// Signals, as something that can be waited for.
pub struct Signals {
    /// Has something to read after a signal.
    pub wake: UnixStream,
    last: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on they do not end this process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn catch() -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let last = Arc::new(AtomicUsize::new(0));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            flag::register_usize(signal, Arc::clone(&last), signal as usize)?;
        }
        for signal in [SIGHUP, SIGINT, SIGTERM, SIGCHLD] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { wake, last })
    }

    /// Whether one says that it is over.
    pub fn over(&mut self) -> bool {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|n| n > 0) {}
        self.last.load(Ordering::Relaxed) != 0
    }
}

/// A command that runs. It is ended when this is dropped.
pub struct Running {
    child: Child,
    ended: Option<ExitStatus>,
}

/// What a shell would say of a command that cannot be started.
pub fn cannot_start(error: &io::Error) -> u8 {
    if error.kind() == ErrorKind::NotFound { 127 } else { 126 }
}

impl Running {
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &[OsString], variables: &[(&str, &str)]) -> io::Result<Option<Self>> {
        let Some((program, args)) = command.split_first() else { return Ok(None) };
        let child = Command::new(program).args(args).envs(variables.iter().copied()).spawn()?;
        Ok(Some(Self { child, ended: None }))
    }

    /// Its exit status as a number, once it has ended.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> io::Result<Option<u8>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended.map(|status| {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            code.map_or(125, |code| code as u8)
        }))
    }

    /// Tells it to end, and makes it after a while.
    ///
    /// # Errors
    /// As [`ended`](Self::ended).
    pub fn end(&mut self) -> io::Result<u8> {
        let until = Instant::now() + GRACE;
        // A child that has not been waited for keeps its number.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        while Instant::now() < until {
            if let Some(code) = self.ended()? {
                return Ok(code);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.kill()?;
        self.ended = Some(self.child.wait()?);
        Ok(self.ended()?.unwrap_or(125))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.end();
        }
    }
}
