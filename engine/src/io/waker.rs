//! Waking a shard that sleeps in its driver, without a system call when it does not.

use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::fmt;
use std::sync::Arc;

const AWAKE: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;

/// What really ends a sleep; called at most once a sleep.
pub(crate) trait Signal: Send + Sync {
    /// Makes the sleeping `poll` return. Must not block.
    fn signal(&self);
}

/// Ends or prevents the sleep of one driver. Cheap to clone, usable from any thread, harmless
/// after the driver is gone.
#[derive(Clone)]
pub struct Waker {
    parking: Arc<Parking>,
}

impl Waker {
    /// Makes the current or the next `poll` return without sleeping on. What was done before this
    /// call is visible to the driver's thread when that `poll` returns.
    pub fn wake(&self) {
        if self.parking.state.swap(NOTIFIED, Ordering::SeqCst) == PARKED {
            self.parking.signal.signal();
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}

/// The driver's half: whether its thread sleeps, and whether it was notified.
pub(crate) struct Parking {
    state: AtomicU8,
    /// Set once a foreign event loop sleeps on the driver's descriptor: then the driver counts as
    /// asleep whenever it is not inside `poll`.
    embedded: AtomicBool,
    signal: Box<dyn Signal>,
}

impl Parking {
    pub(crate) fn new(signal: Box<dyn Signal>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(AWAKE), embedded: AtomicBool::new(false), signal })
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker { parking: self.clone() }
    }

    /// Announces a sleep. `false` when a notification is pending: do not sleep.
    pub(crate) fn park(&self) -> bool {
        loop {
            match self.state.compare_exchange(AWAKE, PARKED, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(NOTIFIED) => return false,
                Err(_) => {
                    // Parked for a foreign loop: it stays so.
                    if self.state.load(Ordering::SeqCst) == PARKED {
                        return true;
                    }
                }
            }
        }
    }

    /// Whether a notification is pending.
    pub(crate) fn is_notified(&self) -> bool {
        self.state.load(Ordering::SeqCst) == NOTIFIED
    }

    /// Ends every `poll`, and takes the notification. `true` when there was one.
    pub(crate) fn unpark(&self) -> bool {
        let next = if self.embedded.load(Ordering::Relaxed) { PARKED } else { AWAKE };
        self.state.swap(next, Ordering::SeqCst) == NOTIFIED
    }

    /// From now on wakes signal whenever the driver is outside `poll`.
    pub(crate) fn embed(&self) {
        self.embedded.store(true, Ordering::SeqCst);
        let _ = self.state.compare_exchange(AWAKE, PARKED, Ordering::SeqCst, Ordering::SeqCst);
    }
}

impl fmt::Debug for Parking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parking").field("state", &self.state).finish_non_exhaustive()
    }
}
