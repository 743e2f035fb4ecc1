//! The protocol of Trunkline without input or output: no sockets, no clock, no threads, no unsafe.
//!
//! Layers, arrows one way:
//! `rendezvous → wire`,
//! `endpoint → connection → {handshake, channel, recovery} → {crypto, wire} → {limits, time, error}`.
//! Beside them, over any connection's channels: `rendezvous → {limits, time, error}`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod channel;
pub mod config;
pub mod connection;
pub mod crypto;
mod deferred;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod handshake;
pub mod ids;
mod lean;
pub mod limits;
pub mod manager;
pub mod observe;
pub mod payload;
pub mod place;
pub mod recovery;
pub mod rendezvous;
pub mod status;
pub mod time;
pub mod wheel;
pub mod wire;
