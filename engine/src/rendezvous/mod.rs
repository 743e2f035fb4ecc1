//! Pairing over an event source, on the engine (`docs/pairing.md`).
//!
//! | who | what |
//! | --- | --- |
//! | a client on a thread of its own | [`PairingClient`] |
//! | a client inside a [`Handler`](crate::Handler), beside other connections | [`Session`] |
//! | a client on an engine with the queued API, beside other connections | [`QueuedEngine::pair`](crate::QueuedEngine::pair) |
//! | a connection of its own with the partner | [`PeerLink`], beside the session |
//! | a server | [`EventSourceServer`] |
//!
//! The machines themselves are in `trunkline_proto::rendezvous`, and know no engine.
//!
//! ```
//! use std::time::{Duration, SystemTime, UNIX_EPOCH};
//! use trunkline::rendezvous::*;
//! use trunkline::{ConnectConfig, EngineConfig, Identity, ListenConfig, Trust};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
//! let identity = Identity::from_pem(cert.as_bytes(), key.as_bytes())?;
//! let trust = Trust::Pins(vec![identity.peer_id()]);
//! let mut keys = KeyRing::new();
//! keys.add("k1", b"a secret that nobody else may know")?;
//!
//! let config = EngineConfig { connection: connection_config(), ..EngineConfig::default() };
//! let server = EventSourceServer::start(config, &SourceConfig::default(), &keys)?;
//! let addr = server.listen(&ListenConfig::new("127.0.0.1:0".parse()?, identity))?.local_addr;
//!
//! let client = |name: &str, role| -> Result<PairingClient, Box<dyn std::error::Error>> {
//!     let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
//!     let grant = Grant {
//!         app: AppId::new("chess")?,
//!         clients: ClientPattern::new(name)?,
//!         roles: RoleSet::only(role),
//!         expires_s: now + 3600,
//!     };
//!     let source = ConnectConfig::new(addr, trust.clone());
//!     let client = PairingClient::start(PairingClientConfig::new(source, role))?;
//!     client.assign_client_id(Some(ClientId::new(name)?))?;
//!     client.assign_access_token(Some(keys.mint("k1", &grant)?))?;
//!     client.set_active(true)?;
//!     Ok(client)
//! };
//! let bob = client("bob", PairingRole::Responder)?;
//! let alice = client("alice", PairingRole::Controller)?;
//! alice.assign_partner(Some(ClientId::new("bob")?))?;
//! // A buffered event waits until there is a partner; that `bob` is there is said by the state.
//! while alice.state()? != PairingState::Interacting {
//!     alice.recv(Duration::from_millis(100));
//! }
//! alice.send(1, b"e2e4", true)?;
//! loop {
//!     match bob.recv(Duration::from_secs(10)).expect("an event") {
//!         Notice::Event { body, .. } if *body == *b"e2e4" => break,
//!         _ => {}
//!     }
//! }
//! alice.shutdown();
//! # Ok(()) }
//! ```

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
    AccessToken, ClientPattern, Grant, KeyRing, MIN_SECRET, RoleSet, TokenError, dangerous_inspect,
};
pub use trunkline_proto::rendezvous::{
    Abort, AppId, ClientId, EVENTS_CHANNEL, EventType, NameError, Notice, Pairing, PairingConfig,
    PairingRole, PairingState, RELAY_CHANNEL, Reject, RelayStats, SourceConfig, SourceStats,
};

use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::error::ApiError;
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

/// A seed that no other client has.
pub(crate) fn random_seed() -> Result<u64, ApiError> {
    let mut seed = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
        .map_err(|_| ApiError::NoConnection("the system gives no random numbers"))?;
    Ok(u64::from_ne_bytes(seed).max(1))
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
