//! Trunkline: the engine.

pub mod buf;
pub mod config;
pub mod engine;
pub mod error;
mod handle;
pub mod handler;
pub mod hw;
pub mod io;
pub mod queue;
mod retained;
mod security;
mod shard;
pub mod stats;
pub mod sys;

pub use config::{ConnectConfig, EngineConfig, IpNet, ListenConfig, Pinning, RetryPolicy, Reuse};
pub use engine::{Engine, Listener, ShutdownReport};
pub use error::{EngineError, Full};
pub use handle::{Channel, Conn, ListenerId, TimerId};
pub use handler::{Context, Handler};
pub use io::{DriverChoice, DriverConfig, DriverError, FaultConfig, Faults};
pub use queue::{Event, Message, PollGroup, QueuedEngine, Received};
pub use retained::Retained;
pub use security::{ClientAuth, Identity, Trust};
pub use shard::drive::AnyDriver;
pub use shard::local::{LocalHandle, LocalShard};

pub use buf::{SendBuf, SendPool};
pub use trunkline_proto::config::{ChannelKind, ChannelOptions, Congestion, ConnectionConfig};
pub use trunkline_proto::endpoint::{ConnInfo, ConnStats, SendOptions};
pub use trunkline_proto::error::{ApiError, CloseReason, PeerMisbehaved, Reason};
pub use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming};
pub use trunkline_proto::ids::{PeerId, Role};
pub use trunkline_proto::limits;
pub use trunkline_proto::payload::Payload;
pub use trunkline_proto::status::Status;
pub use trunkline_proto::time::{Duration, Instant};

/// The Rust example of the README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
