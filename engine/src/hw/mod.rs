//! Processors and network interfaces: which there are, running a shard's thread on a processor, and
//! settings that suit an interface.
//!
//! | module | job |
//! | --- | --- |
//! | [`profile`] | the files of `hw-profiles/`: reading, checking, choosing |
//! | [`nic`] | what a profile says about the interface itself |
//! | [`machine`] | what this machine has |
//! | [`fit`] | a profile as settings of an engine |
//! | [`tune`] | reading and changing settings of an interface, and what differs from a profile |
//! | [`quirks`] | what is known to be wrong with which kernel |

pub mod fit;
pub mod machine;
pub mod nic;
pub mod profile;
pub mod quirks;
pub mod tune;

pub use fit::Applied;
pub use machine::{Machine, Nic};
pub use nic::{Key, Purpose, Want};
pub use profile::{Profile, ProfileError};

/// Processors that this process may use, as the system counts them; empty where it cannot tell.
pub fn cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect()
}

/// Runs the calling thread on `core` only. `false` when the system refuses.
pub(crate) fn pin_to(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}
