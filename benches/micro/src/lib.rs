//! What the micro-benchmarks in `benches/` share: a client and a host in memory, with real keys and
//! no sockets, and the keys of a connection alone.
//!
//! `cargo bench -p trunkline-micro` runs them all. To compare a change, save a baseline before it
//! and name it after it:
//!
//! ```text
//! cargo bench -p trunkline-micro -- --save-baseline before
//! cargo bench -p trunkline-micro -- --baseline before
//! ```
//!
//! One of them: `cargo bench -p trunkline-micro --bench packet`.

pub mod keys;
pub mod pair;
