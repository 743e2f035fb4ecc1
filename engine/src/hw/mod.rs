//! Processors and network interfaces: which there are, running a shard's thread on a processor, and
//! settings that suit an interface.

pub mod profile;

pub use profile::{Applied, Profile, ProfileError};

/// Processors that this process may use, as the system counts them; empty where it cannot tell.
pub fn cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect()
}

/// Runs the calling thread on `core` only. `false` when the system refuses.
pub(crate) fn pin_to(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}
