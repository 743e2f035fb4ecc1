//! A simulated world for tests: endpoints on a virtual network under a virtual clock and one seed.
//!
//! Nothing here reads a clock or ambient randomness, so a seed repeats its run. Every node's
//! application checks what it is told (see [`app`]); [`world::World::drain`] checks that everything
//! comes to an end.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports, missing_docs, clippy::cast_possible_wrap)]

pub mod alloc;
pub mod app;
pub mod chaos;
pub mod flow;
pub mod forge;
pub mod link;
pub mod nat;
pub mod node;
pub mod pair;
pub mod pattern;
pub mod peers;
pub mod rng;
pub mod scenario;
pub mod seeds;
pub mod tcp;
pub mod tls;
pub mod world;

pub use flow::{End, Flow, Size};
pub use node::{NodeConfig, OnIncoming, OnRequest, Over};
pub use pair::Pair;
pub use world::{NodeId, Packet, Verdict, World};

use trunkline_proto::time::Duration;

/// Milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
