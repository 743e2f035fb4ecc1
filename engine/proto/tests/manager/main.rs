//! The connection manager and associations, between endpoints on a simulated network: one test for
//! each row of the behaviours.

#[path = "../sim/mod.rs"]
mod sim;

mod associations;
mod hostile;
mod idle;
mod net;
mod requests;
mod security;

use sim::seeds;

/// Runs a test for a few seeds.
fn seeded(test: &str, count: u64, run: impl FnMut(u64)) {
    seeds::run("manager", test, 1, count, run);
}
