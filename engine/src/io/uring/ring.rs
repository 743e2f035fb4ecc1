//! The ring itself: set up with as many of the wanted flags as the kernel takes, entered with as
//! few system calls as possible.

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Run deferred work and, with a minimum, wait.
const ENTER_GETEVENTS: u32 = 1;
/// The argument is a [`WaitArgument`].
const ENTER_EXT_ARG: u32 = 1 << 3;
/// The descriptor is an index registered by this thread.
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// `io_uring_getevents_arg`.
#[repr(C)]
struct WaitArgument {
    signals: u64,
    signals_bytes: u32,
    min_wait_us: u32,
    /// Address of a timespec.
    time: u64,
}

/// `io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    index: u32,
    reserved: u32,
    fd: u64,
}

/// Completions taken out of the ring at once.
pub(super) const HARVEST: usize = 64;

/// A set-up flag, named for logs and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    NoSqArray,
    DeferTaskrun,
    SingleIssuer,
    TellTaskrun,
    CoopTaskrun,
    SubmitAll,
}

impl Flag {
    /// The youngest first: the order in which they are given up.
    pub(super) const ALL: [Self; 6] = [
        Self::NoSqArray,
        Self::DeferTaskrun,
        Self::SingleIssuer,
        Self::TellTaskrun,
        Self::CoopTaskrun,
        Self::SubmitAll,
    ];

    /// All that suit a ring tied to its thread, or one that is not.
    pub(super) fn wanted(thread_bound: bool) -> Vec<Self> {
        let bound = |flag: &Self| matches!(flag, Self::DeferTaskrun | Self::SingleIssuer);
        Self::ALL.into_iter().filter(|flag| thread_bound || !bound(flag)).collect()
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NoSqArray => "NO_SQARRAY",
            Self::DeferTaskrun => "DEFER_TASKRUN",
            Self::SingleIssuer => "SINGLE_ISSUER",
            Self::TellTaskrun => "TASKRUN_FLAG",
            Self::CoopTaskrun => "COOP_TASKRUN",
            Self::SubmitAll => "SUBMIT_ALL",
        }
    }
}

/// One io_uring.
pub(super) struct Ring {
    inner: IoUring,
    flags: Vec<Flag>,
    /// The shared flags word says whether deferred work waits; otherwise only a call finds out.
    tells_work: bool,
    /// Index of the registered descriptor.
    registered: Option<i32>,
    /// Calls made.
    pub(super) enters: u64,
}

/// Why an enter returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// Done, or the time is over, or a signal came.
    Done,
    /// The kernel holds completions back until some are taken out.
    Overflow,
}

impl Ring {
    /// With room for `submissions` and `completions`, and as many of `wanted` as the kernel takes.
    pub(super) fn new(submissions: u32, completions: u32, wanted: &[Flag]) -> io::Result<Self> {
        let mut flags = wanted.to_vec();
        loop {
            match Self::build(&flags, submissions, completions) {
                Ok(inner) => {
                    let tells_work = flags.contains(&Flag::TellTaskrun);
                    return Ok(Self { inner, flags, tells_work, registered: None, enters: 0 });
                }
                // A flag that this kernel does not know.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && !flags.is_empty() => {
                    flags.remove(0);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn build(flags: &[Flag], submissions: u32, completions: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(completions).setup_clamp();
        for flag in flags {
            match flag {
                Flag::NoSqArray => builder.setup_no_sqarray(),
                Flag::DeferTaskrun => builder.setup_defer_taskrun(),
                Flag::SingleIssuer => builder.setup_single_issuer(),
                Flag::TellTaskrun => builder.setup_taskrun_flag(),
                Flag::CoopTaskrun => builder.setup_coop_taskrun(),
                Flag::SubmitAll => builder.setup_submit_all(),
            };
        }
        builder.build(submissions)
    }

    /// The flags in use, and those that the kernel did not take.
    pub(super) fn flag_names(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let (used, not): (Vec<_>, Vec<_>) =
            Flag::ALL.into_iter().partition(|f| self.flags.contains(f));
        let names = |flags: Vec<Flag>| flags.into_iter().map(Flag::name).collect();
        (names(used), names(not))
    }

    /// What the driver cannot do without.
    pub(super) fn missing_features(&self) -> Vec<&'static str> {
        let params = self.inner.params();
        [
            (params.is_feature_ext_arg(), "EXT_ARG"),
            (params.is_feature_nodrop(), "NODROP"),
            (params.is_feature_submit_stable(), "SUBMIT_STABLE"),
            (params.is_feature_fast_poll(), "FAST_POLL"),
        ]
        .into_iter()
        .filter_map(|(there, name)| (!there).then_some(name))
        .collect()
    }

    pub(super) fn fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.inner.submitter()
    }

    /// Saves the look-up of the descriptor in every enter. Bound to the thread, like the ring.
    pub(super) fn register_descriptor(&mut self) -> io::Result<()> {
        let mut update = RingUpdate { index: u32::MAX, reserved: 0, fd: self.fd() as u64 };
        self.update_descriptor(REGISTER_RING_FDS, &mut update)?;
        self.registered = Some(i32::try_from(update.index).map_err(io::Error::other)?);
        Ok(())
    }

    fn update_descriptor(&self, opcode: u32, update: &mut RingUpdate) -> io::Result<()> {
        // SAFETY: one update structure, which the kernel reads and writes during the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.fd(),
                opcode,
                std::ptr::from_mut(update),
                1 as libc::c_uint,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Queues an entry, submitting what is queued when there is no room.
    ///
    /// # Safety
    /// Everything that the entry points to stays valid and unmoved until its completion.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        for _ in 0..1000 {
            // SAFETY: by this function's contract.
            if unsafe { self.inner.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
        Err(io::Error::other("the submission queue stays full"))
    }

    /// Submits what is queued and runs deferred work; does not wait.
    pub(super) fn submit(&mut self) -> io::Result<Entered> {
        self.enter(0, None)
    }

    /// Enters only if there is something to submit or to run.
    pub(super) fn submit_if_useful(&mut self) -> io::Result<Entered> {
        let useful = !self.tells_work || self.queued() > 0 || self.has_work();
        if useful { self.submit() } else { Ok(Entered::Done) }
    }

    /// Submits, runs deferred work, and waits for a completion or until `timeout` has passed.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Entered> {
        self.enter(1, timeout)
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<Entered> {
        let queued = self.queued();
        self.enters += 1;
        let (fd, mut flags) = match self.registered {
            Some(index) => (index, ENTER_GETEVENTS | ENTER_REGISTERED_RING),
            None => (self.fd(), ENTER_GETEVENTS),
        };
        let time = timeout.map(types::Timespec::from);
        let argument = WaitArgument {
            signals: 0,
            signals_bytes: 0,
            min_wait_us: 0,
            time: time.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64),
        };
        let (address, size) = if time.is_some() {
            flags |= ENTER_EXT_ARG;
            (&raw const argument, size_of::<WaitArgument>())
        } else {
            (std::ptr::null(), 0)
        };
        // SAFETY: the argument and the time it points to live through the call. The entries
        // submitted are those that `push` was given under its contract.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, queued, want, flags, address, size)
        };
        if result >= 0 {
            return Ok(Entered::Done);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR) => Ok(Entered::Done),
            Some(libc::EBUSY | libc::EAGAIN) => Ok(Entered::Overflow),
            _ => Err(error),
        }
    }

    /// Entries queued and not submitted.
    pub(super) fn queued(&mut self) -> u32 {
        self.inner.submission().len() as u32
    }

    /// Whether completions wait in the ring.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.inner.completion().is_empty()
    }

    /// Whether an enter would bring more: deferred work, or completions that found no room.
    pub(super) fn has_work(&mut self) -> bool {
        let submission = self.inner.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Takes out at most `entries.len()` completions.
    pub(super) fn harvest<'a>(
        &mut self,
        entries: &'a mut [MaybeUninit<cqueue::Entry>],
    ) -> &'a mut [cqueue::Entry] {
        self.inner.completion().fill(entries)
    }

    /// Asks for the end of every request.
    pub(super) fn cancel_all(&mut self, user_data: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: the entry points to nothing.
        unsafe { self.push(&entry.user_data(user_data)) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The registration keeps the ring alive until the thread ends.
        if let Some(index) = self.registered {
            let mut update = RingUpdate { index: index.unsigned_abs(), reserved: 0, fd: 0 };
            let _ = self.update_descriptor(UNREGISTER_RING_FDS, &mut update);
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// Why a ring could not be made or used, in words, with what may help.
pub(super) fn explain(what: &str, error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.as_deref().map_or("", str::trim);
    let why = match error.raw_os_error() {
        Some(libc::EPERM) if disabled == "2" => {
            "the administrator has switched io_uring off (sysctl kernel.io_uring_disabled=2)".into()
        }
        Some(libc::EPERM) if disabled == "1" => {
            "io_uring is kept for one group of users (sysctl kernel.io_uring_disabled=1; see \
             kernel.io_uring_group)"
                .into()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "not permitted, most likely by a seccomp filter: container runtimes such as Docker \
             forbid io_uring by default"
                .into()
        }
        Some(libc::ENOSYS) => {
            "this kernel, or the sandbox around this process, has no io_uring".into()
        }
        Some(libc::ENOMEM) => {
            "not enough lockable memory: raise the limit (ulimit -l, LimitMEMLOCK=) or make the \
             buffer pools smaller"
                .into()
        }
        Some(libc::EMFILE | libc::ENFILE) => "too many open files (ulimit -n)".into(),
        Some(libc::EINVAL) => "this kernel does not know the request: it is too old".into(),
        _ => String::new(),
    };
    if why.is_empty() { format!("{what}: {error}") } else { format!("{what}: {why} ({error})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_explained() {
        for (code, word) in [
            (libc::EPERM, "seccomp"),
            (libc::ENOSYS, "no io_uring"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EINVAL, "too old"),
            (libc::EIO, "os error 5"),
        ] {
            let text = explain("setting up", &io::Error::from_raw_os_error(code));
            assert!(text.starts_with("setting up: ") && text.contains(word), "{text}");
        }
    }
}
