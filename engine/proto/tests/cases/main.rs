//! Named cases: one test for each promise that a random run would meet too rarely, or could not
//! tell from luck.

#[path = "../sim/mod.rs"]
mod sim;

mod calls;
mod channels;
mod close;
mod flow;
mod forgery;
mod handshake;
mod identity;
mod linger;
mod overtaking;
mod paths;
mod roles;
mod status;
mod timers;

use sim::seeds;

/// Runs a named case for a few seeds.
fn seeded(test: &str, count: u64, run: impl FnMut(u64)) {
    seeds::run("cases", test, 1, count, run);
}
