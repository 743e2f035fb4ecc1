//! The transports, one file or two each. How a transport is set up, and why, is said in its file.

pub mod enet;
pub mod floor;
pub mod kcp;
pub mod queued;
pub mod quinn;
pub mod s2n;
pub mod tcp;
mod tcp_many;
pub mod trunkline;
mod udp;
pub mod yamux;
