//! Waking the thread that sleeps in the ring: a message sent straight into it (MSG_RING, which
//! kernels since 6.13 take from a thread without a ring), otherwise an eventfd that the ring polls.

use super::super::waker::Signal;
use crate::sys::linux::EventFd;
use io_uring::{opcode, types};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, RwLock};

/// IORING_REGISTER_SEND_MSG_RING.
const REGISTER_SEND_MSG_RING: libc::c_uint = 31;

/// Posts a completion with `user_data` into the ring `fd`.
pub(super) fn send_message(fd: RawFd, user_data: u64) -> io::Result<()> {
    let entry = opcode::MsgRingData::new(types::Fd(fd), 0, user_data, None).build();
    // SAFETY: one submission entry that lives through the call, which is synchronous; no ring (-1)
    // is needed to send from.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            -1 as libc::c_int,
            REGISTER_SEND_MSG_RING,
            &raw const entry,
            1 as libc::c_uint,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The waking side.
#[derive(Debug)]
pub(super) struct RingSignal {
    /// The ring, until its driver is gone; the lock keeps its number from being reused meanwhile.
    ring: RwLock<Option<RawFd>>,
    event: Option<EventFd>,
    user_data: u64,
}

impl RingSignal {
    /// By message.
    pub(super) fn message(ring: RawFd, user_data: u64) -> Arc<Self> {
        Arc::new(Self { ring: RwLock::new(Some(ring)), event: None, user_data })
    }

    /// By eventfd.
    pub(super) fn event(user_data: u64) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { ring: RwLock::new(None), event: Some(EventFd::new()?), user_data }))
    }

    /// The eventfd to poll, if it goes by one.
    pub(super) fn event_fd(&self) -> Option<RawFd> {
        use std::os::fd::AsFd;
        self.event.as_ref().map(|e| e.as_fd().as_raw_fd())
    }

    /// The driver goes.
    pub(super) fn close(&self) {
        *self.ring.write().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

/// What the parking place calls.
#[derive(Debug)]
pub(super) struct SharedSignal(pub(super) Arc<RingSignal>);

impl Signal for SharedSignal {
    fn signal(&self) {
        if let Some(event) = &self.0.event {
            event.signal();
            return;
        }
        let ring = self.0.ring.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(fd) = *ring else { return };
        // Short of memory for a moment: the sleeper must not be left alone.
        for _ in 0..1000 {
            if send_message(fd, self.0.user_data).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
        tracing::error!("a sleeping shard could not be woken");
    }
}
