//! Routes between two peers: the relay they begin on, direct paths, and going from one to the other.

#[path = "../sim/mod.rs"]
mod sim;

mod crossing;
mod glare;
mod nats;
mod paths;
mod status;

use sim::seeds;

/// Runs a named case for a few seeds.
fn seeded(test: &str, count: u64, run: impl FnMut(u64)) {
    seeds::run("routes", test, 1, count, run);
}
