//! Presence: devices of a local network find each other (behaviours §1, presence discovery).
//!
//! A [`Client`] asks with PresenceRequest, to the group or to single hosts, and keeps a table of
//! the devices that answered. A [`Host`] answers with PresenceResponse. Both are pure: time, a seed
//! and datagrams are arguments, and whoever owns the sockets sends what
//! [`poll_transmit`](Client::poll_transmit) gives. `docs/presence.md` is the normative text.
//!
//! Nothing here is authenticated, and nothing that a device says of itself is more than a hint: who
//! it is, the connection proves. The exception is a device id that both sides know: an answer with
//! the right hash was made by somebody who knows it.
//!
//! A *session* is what one side knows of the other: it begins with a valid message, every further
//! one resets its heartbeat, and it ends when the heartbeat expires ([`ClientState`],
//! [`HostState`]).

mod client;
mod describe;
mod host;
mod state;
mod table;
mod wire;

pub use client::{Client, ClientConfig, ClientCounts, ClientEvent, Destination, Question};
pub use describe::{Announcement, DeviceId, DeviceType, Links, Mode};
pub use host::{Answer, Answers, Arrival, Host, HostConfig, HostCounts, Reach};
pub use state::{ClientState, ClientTrigger, HostState, HostTrigger};
pub use table::{Device, Path};
pub use wire::{IdHash, Message, Nonce, PresenceDrop, Request, Response};

use crate::limits::{MAX_PRESENCE_REQUEST, MAX_PRESENCE_RESPONSE};
use std::net::{Ipv4Addr, Ipv6Addr};

/// UDP port of presence hosts.
pub const PORT: u16 = 7477;
/// IPv4 group: of the administratively scoped local scope (RFC 2365 §6.1), sent with TTL 1.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 84, 75);
/// IPv6 group: transient, link-local scope (RFC 4291 §2.7), with a group id of the range for
/// dynamic ones (RFC 3307 §4.3).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0xd452, 0x4b50);

/// Most bytes of a presence message: room for any.
pub const MAX_MESSAGE_LEN: usize = MAX_PRESENCE_REQUEST;

const _: () = assert!(MAX_PRESENCE_RESPONSE <= MAX_MESSAGE_LEN);

#[cfg(test)]
mod tests;
