//! How peers find each other before there is a connection: pairing over an event source (design,
//! behaviours §2), and presence on the local network.
//!
//! Two clients that know nothing but each other's names each connect to an event source and open
//! a `messages` channel named [`EVENTS_CHANNEL`]. Every message on it is one [`Event`]. A client
//! runs a [`Pairing`], the event source an [`EventSource`]; both are pure state machines that take
//! the time and what arrived, and say what is to be sent. Who may connect is decided by access
//! tokens ([`token`]).
//!
//! | module | what it has |
//! | --- | --- |
//! | [`event`] | the event on the wire, and why pings are rejected and connections aborted |
//! | [`pairing`] | a client's machine and its timers |
//! | [`token`] | access tokens: minted with a key, checked without a database |
//! | [`event_source`] | the server's part: who is there, who may write to whom, limits, routing |
//! | [`relay`] | the message that carries a packet from client to client by way of the event source |
//! | [`route`] | finds direct paths between two clients that are connected over the relay |
//! | [`stun`] | tells clients the address under which they are seen |
//! | [`presence`] | devices of a local network announce themselves and are found |

pub mod event;
pub mod event_source;
mod names;
pub mod pairing;
pub mod presence;
mod rate;
pub mod relay;
pub mod route;
pub mod stun;
pub mod token;

pub use event::{Abort, Event, EventError, EventRef, EventType, Reject};
pub use event_source::{
    Counter, EventSource, LocalRouter, Outlet, Party, Refusal, RelayStats, Relayed, Route, Routed,
    Router, SourceConfig, SourceStats,
};
pub use names::{AppId, ClientId, NameError, PairingRole};
pub use pairing::{Notice, Output, Pairing, PairingConfig, PairingState};
pub use token::{AccessToken, Grant, KeyRing, TokenError};

/// Name of the channel that carries events.
pub const EVENTS_CHANNEL: &str = "events";
/// Name of the channel that carries packets of connections between clients.
pub const RELAY_CHANNEL: &str = "relay";
