//! Buffers: pools allocated when a shard starts, leases on received bytes, and engine-owned send
//! buffers.
//!
//! | part | owner | shared with |
//! | --- | --- | --- |
//! | `RxPool` | a driver | the kernel while a buffer is posted, [`Lease`] holders on any thread |
//! | `TxPool` | a driver | the kernel while a train is on its way |
//! | [`SendPool`] | the application | nobody: a buffer moves between writer, connection and pool |
//!
//! Nothing here is allocated, locked or hashed per packet.

mod region;
mod rx;
mod send;
mod tx;
mod watch;

pub(crate) use rx::RxPool;
pub use rx::{Lease, Retainer};
pub use send::{SendBuf, SendPool};
pub(crate) use tx::TxPool;

#[cfg(test)]
mod tests;
