//! Trunkline: encrypted connections over UDP, each with up to 65,534 channels, on one shard for each
//! processor core.
//!
//! Two ways to use it: [`Engine`] runs a [`Handler`] of the application on the threads of the shards
//! (the fast path), [`QueuedEngine`] lets any thread send, and receive from poll groups. Either
//! runs on pinned threads of its own or, as [`LocalShard`] and [`QueuedEngine::local`], on none:
//! then the application polls.
//!
//! | module | what it has |
//! | --- | --- |
//! | [`engine`] | [`Engine`]: shards on threads |
//! | [`handler`] | the inline API |
//! | [`queue`] | the queued API, written as a handler |
//! | [`discovery`] | presence: finds devices of the local network, and announces this one |
//! | [`rendezvous`] | pairing over an event source, and the event source itself |
//! | [`config`], [`error`] | settings, and what can go wrong with a whole engine |
//! | `shard` | one core's state and its event loop: the only place that knows both the protocol's endpoint and a driver |
//! | [`io`] | drivers: io_uring, mio, a simulated network, faults |
//! | [`buf`] | pools and leases |
//! | [`stats`], [`hw`], [`sys`] | counters; processors and hardware profiles; system calls |
//! | `sync` | atomics and queues, which models replace |
//!
//! The protocol itself is the crate `trunkline-proto`, which opens no socket and reads no clock.
//!
//! No call of this crate panics on anything that a peer sends. Handles are numbers: a stale one is
//! an error ([`ApiError::InvalidHandle`]), never somebody else's connection.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod buf;
mod capture;
pub mod config;
pub mod discovery;
pub mod engine;
pub mod error;
mod handle;
pub mod handler;
pub mod hw;
pub mod io;
pub mod queue;
pub mod rendezvous;
mod retained;
mod security;
mod shard;
pub mod stats;
mod sync;
pub mod sys;

pub use capture::CaptureConfig;
pub use config::{
    ConnectConfig, EngineConfig, IpNet, Links, ListenConfig, Pinning, RetryPolicy, Reuse,
    StunConfig,
};
pub use engine::{Engine, Listener, ShutdownReport};
pub use error::{EngineError, Full};
pub use handle::{Association, Channel, Conn, ListenerId, OpenRequest, TimerId};
pub use handler::{Context, Discontent, Handler, Opened, StunPacket};
pub use io::{DriverChoice, DriverConfig, DriverError, FaultConfig, Faults};
pub use queue::{
    Callbacks, Event, Message, PairingSettings, PairingStatus, PollGroup, QueuedEngine, Received,
    SendSecurity, SentInside, WeakEngine,
};
pub use retained::Retained;
pub use security::{ClientAuth, Identity, Trust};
pub use shard::drive::AnyDriver;
pub use shard::local::{LocalHandle, LocalShard};

pub use buf::{SendBuf, SendPool};
pub use trunkline_proto::channel::{ChannelInfo, ChannelPhase};
pub use trunkline_proto::config::{ChannelKind, ChannelOptions, Congestion, ConnectionConfig};
pub use trunkline_proto::connection::{AuthMethod, Party, SecInfo, SecInfoError};
pub use trunkline_proto::crypto::credential::{
    Credential, CredentialError, CredentialIssuer, CredentialVerifier, Grant,
};
pub use trunkline_proto::endpoint::{ConnInfo, ConnStats, SendOptions};
pub use trunkline_proto::error::{ApiError, CloseReason, PeerMisbehaved, Reason};
pub use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming};
pub use trunkline_proto::handshake::{HandshakeFailure, HandshakeState};
pub use trunkline_proto::ids::{ConnectLink, Link, PeerId, Role};
pub use trunkline_proto::limits;
pub use trunkline_proto::manager::{
    AssociationConfig, AssociationEnd, AssociationEvent, AssociationState, DeliveryError,
    HoldState, Refused, RequestError, ReuseKey, SecHandle, Security, SecurityCallback,
    SecurityChoice, SecurityQuery, SecurityStage,
};
pub use trunkline_proto::payload::Payload;
pub use trunkline_proto::status::Status;
pub use trunkline_proto::time::{Duration, Instant};

/// The Rust example of the README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
