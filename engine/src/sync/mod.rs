//! What threads decide things with: atomics, queues, locks and counted references.
//!
//! They are those of the standard library and of crossbeam, under one name. The models
//! (`queue/tests`) compile the same code with `--cfg loom`; then these are loom's, and every order
//! that the memory model allows is tried.

#[cfg(all(test, loom))]
mod modelled;

#[cfg(all(test, loom))]
pub(crate) use modelled::*;

#[cfg(not(all(test, loom)))]
pub(crate) use crossbeam::queue::{ArrayQueue, SegQueue};
#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, OnceLock};

/// As `std::sync::atomic`.
#[cfg(not(all(test, loom)))]
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// A bound, and the one that models have instead: one that few steps reach.
pub(crate) const fn bound(real: usize, modelled: usize) -> usize {
    if cfg!(all(test, loom)) { modelled } else { real }
}

/// Bytes that are shared with the protocol.
#[cfg(not(all(test, loom)))]
pub(crate) fn payload<T: AsRef<[u8]> + Send + Sync + 'static>(
    owner: Arc<T>,
) -> trunkline_proto::payload::Payload {
    trunkline_proto::payload::Payload::new(owner)
}
