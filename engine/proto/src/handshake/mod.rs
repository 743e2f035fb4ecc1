//! The handshake: who the peer is and how a connection gets its keys.
//!
//! Called by `endpoint` and `connection` with whole long packets; knows nothing of channels.

pub mod identity;
pub mod tls;
pub mod trust;

#[cfg(test)]
pub(crate) mod test_support;

pub use identity::{Identity, peer_id_of};
pub use tls::{ClientTls, HostTls};
pub use trust::{ClientAuth, Trust};
