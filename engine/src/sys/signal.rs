//! Being asked to stop: SIGINT, SIGTERM and SIGHUP as something that a thread can wait for.
//!
//! The engine installs nothing by itself; this is for programs that own their process, such as
//! the command-line tool, and want to close connections properly before they go.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// Write end of the pipe that the handler reports to; −1 before [`Interrupts::install`].
static REPORT_TO: AtomicI32 = AtomicI32::new(-1);

/// The process's requests to stop, one for each signal.
#[derive(Debug)]
pub struct Interrupts {
    reports: UnixStream,
}

impl Interrupts {
    /// Takes SIGINT and SIGTERM over, and SIGHUP unless it is ignored (`nohup`).
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the process has done so before; what the system says
    /// when it refuses.
    pub fn install() -> io::Result<Self> {
        let (reports, sender) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        let fd = sender.as_raw_fd();
        if REPORT_TO.compare_exchange(-1, fd, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // The handler may run at any time from now on: the descriptor stays open for good.
        let _ = sender.into_raw_fd();
        take_over(libc::SIGINT)?;
        take_over(libc::SIGTERM)?;
        if !is_ignored(libc::SIGHUP)? {
            take_over(libc::SIGHUP)?;
        }
        Ok(Self { reports })
    }

    /// Waits for the next signal, at most `timeout`; `false` when none came.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        self.reports.set_read_timeout(timeout)?;
        let mut byte = [0];
        loop {
            match (&self.reports).read(&mut byte) {
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Runs on any thread between any two instructions: nothing but async-signal-safe calls.
extern "C" fn report(_signal: libc::c_int) {
    let byte = 0u8;
    // SAFETY: `write` is async-signal-safe, the buffer is one byte long and the descriptor, which
    // was stored before the handler was installed, is never closed. A full pipe drops the report,
    // which is fine: others are waiting in it.
    unsafe {
        let errno = errno_location();
        let saved = *errno;
        libc::write(REPORT_TO.load(Ordering::SeqCst), (&raw const byte).cast(), 1);
        *errno = saved;
    }
}

/// Where this thread's `errno` lives.
fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing and gives a pointer that is valid for the thread's life.
    unsafe {
        #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "fuchsia"))]
        return libc::__errno_location();
        #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
        return libc::__error();
        #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
        return libc::__errno();
    }
}

fn take_over(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: a zeroed `sigaction` is a valid value of this plain C struct (empty mask, no flags).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = report as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised and outlives the call; the old action is not asked for.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: as in `take_over`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks; `action` is valid for writing.
    match unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } {
        0 => Ok(action.sa_sigaction == libc::SIG_IGN),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_reported_once_each() {
        let interrupts = Interrupts::install().unwrap();
        assert_eq!(Interrupts::install().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let soon = Some(Duration::from_millis(20));
        assert!(!interrupts.wait(soon).unwrap());
        // SAFETY: raises a signal whose handler is installed above.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        assert!(interrupts.wait(Some(Duration::from_secs(5))).unwrap());
        assert!(!interrupts.wait(soon).unwrap());
    }
}
