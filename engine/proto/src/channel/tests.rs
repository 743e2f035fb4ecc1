//! Two multiplexers joined by an in-memory exchange of packets, from a seed.

#![allow(clippy::large_stack_arrays, reason = "test data")]

mod behaviour;
mod bounds;
mod chaos;
mod datagrams;
mod hostile;
mod lives;
mod net;
mod random;
mod speed;
