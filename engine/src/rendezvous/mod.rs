//! Pairing over an event source, on the engine (`docs/pairing.md`).
//!
//! | who | what |
//! | --- | --- |
//! | a client on a thread of its own | [`PairingClient`] |
//! | a client inside a [`Handler`](crate::Handler), beside other connections | [`Session`] |
//! | a connection of its own with the partner | [`PeerLink`], beside the session |
//! | a server | [`EventSourceServer`] |
//!
//! The machines themselves are in `trunkline_proto::rendezvous`, and know no engine.

mod client;
mod peer;
mod server;
mod session;
mod table;

pub use client::{PairingClient, PairingClientConfig};
pub use peer::{PeerConfig, PeerLink};
pub use server::{EventSourceServer, ServerStats};
pub use session::{Session, SessionConfig};

pub use trunkline_proto::rendezvous::event_source::{BUSY, Counter};
pub use trunkline_proto::rendezvous::pairing::Sent;
pub use trunkline_proto::rendezvous::route::RouteConfig;
pub use trunkline_proto::rendezvous::token::{
    AccessToken, ClientPattern, Grant, KeyRing, RoleSet, TokenError, dangerous_inspect,
};
pub use trunkline_proto::rendezvous::{
    Abort, AppId, ClientId, EVENTS_CHANNEL, EventType, NameError, Notice, Pairing, PairingConfig,
    PairingRole, PairingState, RELAY_CHANNEL, Reject, RelayStats, SourceConfig, SourceStats,
};

use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::limits::MAX_EVENT;
use trunkline_proto::time::Duration;

/// Settings of a connection between a client and an event source: little memory for each, few
/// keep-alives, and an end that is noticed before the partner counts as silent.
pub fn connection_config() -> ConnectionConfig {
    ConnectionConfig {
        connected_timeout: Duration::from_secs(20),
        keep_alive: Duration::from_secs(6),
        max_packet: 1452,
        max_channels: 256,
        channel_window: 64 << 10,
        channel_window_max: 256 << 10,
        receive_budget: 1 << 20,
        early_data: 32 << 10,
        max_message: MAX_EVENT,
        reassembly_budget: 64 << 10,
        channel_send_buffer: 64 << 10,
        send_buffer: 128 << 10,
        unsent_limit: 64 << 10,
        ..ConnectionConfig::default()
    }
}

/// How the channel of events is opened and accepted: what is said on it goes before packets.
pub(crate) fn channel_options() -> ChannelOptions {
    let kind = ChannelKind::Messages;
    ChannelOptions { kind, no_delay: true, priority: 2, ..ChannelOptions::default() }
}

/// How the channel of packets is opened and accepted. A packet that has waited for a quarter of a
/// second is only in the way of those that replace it.
pub(crate) fn relay_options() -> ChannelOptions {
    let kind = ChannelKind::Datagrams;
    ChannelOptions { kind, no_delay: true, expires_ms: 250, ..ChannelOptions::default() }
}
