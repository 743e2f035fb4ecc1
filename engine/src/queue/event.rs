//! What comes out of a poll group.

use crate::handle::{Channel, Conn};
use crate::handler::Opened;
use crate::retained::Retained;
use std::net::SocketAddr;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::error::{ApiError, CloseReason};
use trunkline_proto::event::{ChannelEnd, CloseReport};
use trunkline_proto::ids::PeerId;
use trunkline_proto::manager::{AssociationEvent, RequestError};
use trunkline_proto::rendezvous::Notice;
use trunkline_proto::status::Status;

/// One message or event; in order for each connection.
#[derive(Clone, Debug)]
pub enum Received {
    /// A message of a `messages` or `datagrams` channel.
    Message(Message),
    /// Anything else.
    Event(Event),
}

impl Received {
    /// The connection that it is about; `None` for [`Event::ShardFailed`].
    pub fn conn(&self) -> Option<Conn> {
        match self {
            Self::Message(message) => Some(message.channel.conn()),
            Self::Event(event) => event.conn(),
        }
    }
}

/// A message. Its memory belongs to the engine and goes back when it is dropped.
#[derive(Clone, Debug)]
pub struct Message {
    /// The channel that it came on.
    pub channel: Channel,
    /// The kind of that channel.
    pub kind: ChannelKind,
    /// The bytes.
    pub data: Retained,
}

/// What happened to a connection or channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The status of a connection changed.
    Status {
        /// The connection.
        conn: Conn,
        /// Before.
        old: Status,
        /// Now.
        new: Status,
        /// Why, when `new` is an end.
        reason: Option<CloseReason>,
    },
    /// A peer has proved itself and waits for accept or reject.
    Incoming {
        /// The connection.
        conn: Conn,
        /// Where it comes from.
        remote: SocketAddr,
        /// Its identity, when it presented a certificate.
        peer: Option<PeerId>,
        /// The credential it presented; empty when none.
        credential: Vec<u8>,
        /// The TLS server name it asked for.
        server_name: Option<String>,
    },
    /// The peer asks for a channel.
    ChannelRequest {
        /// The channel.
        channel: Channel,
        /// Its id on the wire.
        id: u16,
        /// Its name.
        name: String,
        /// The peer's options.
        options: ChannelOptions,
    },
    /// The channel is usable.
    ChannelReady {
        /// The channel.
        channel: Channel,
    },
    /// The channel ended; its handle is stale.
    ChannelClosed {
        /// The channel.
        channel: Channel,
        /// How.
        end: ChannelEnd,
    },
    /// The next bytes of a `bytes` channel.
    Data {
        /// The channel.
        channel: Channel,
        /// The bytes.
        data: Retained,
    },
    /// The peer will send no more on this channel.
    Eof {
        /// The channel.
        channel: Channel,
    },
    /// The peer cancelled what it was sending.
    Reset {
        /// The channel.
        channel: Channel,
        /// The peer's code.
        code: u32,
    },
    /// The peer refuses the rest of what we send.
    Stopped {
        /// The channel.
        channel: Channel,
        /// The peer's code.
        code: u32,
    },
    /// A send gave `WouldBlock`, and there is room again. (It may also come after a send that nearly
    /// did.)
    Writable {
        /// The channel.
        channel: Channel,
    },
    /// The peer has acknowledged all of a message.
    Receipt {
        /// The channel.
        channel: Channel,
        /// The token given with the message.
        token: u64,
    },
    /// A message that had been taken could not be handed to its connection.
    SendFailed {
        /// The channel.
        channel: Channel,
        /// Why.
        error: ApiError,
    },
    /// A connection was begun for a channel request or an association. It is freed by itself when it
    /// ends.
    ConnectionBegun {
        /// The connection.
        conn: Conn,
    },
    /// The answer to [`QueuedEngine::request_channel`](crate::QueuedEngine::request_channel). Exactly
    /// one for each.
    RequestDone {
        /// What the call gave.
        request: u64,
        /// The channel, or why there is none.
        outcome: Result<Opened, RequestError>,
    },
    /// Something happened to an association.
    Association {
        /// What the call gave.
        association: u64,
        /// Its channel, from Connected to Destroyed: messages that come on it are the association's.
        channel: Option<Channel>,
        /// What happened.
        event: AssociationEvent,
    },
    /// Something happened to a pairing over an event source.
    Pairing {
        /// What the call gave.
        pairing: u64,
        /// What happened.
        notice: Notice,
    },
    /// A packet of the partner that came by way of the event source.
    Relayed {
        /// The pairing.
        pairing: u64,
        /// The packet.
        data: Retained,
    },
    /// There is a connection with the partner of a pairing. It is freed by itself when it ends.
    Peer {
        /// The pairing.
        pairing: u64,
        /// The connection.
        conn: Conn,
    },
    /// A connection that was made over a relay goes another way now.
    Path {
        /// The connection.
        conn: Conn,
        /// The address in use.
        remote: SocketAddr,
        /// It goes over the relay again.
        relayed: bool,
    },
    /// A connectivity check was answered.
    CheckAnswered {
        /// The connection.
        conn: Conn,
    },
    /// The connection is gone for good; the last event about it.
    Dead {
        /// The connection.
        conn: Conn,
        /// What was delivered.
        report: CloseReport,
    },
    /// A shard has failed; nothing more is heard of its connections.
    ShardFailed {
        /// Its number.
        shard: u8,
        /// Why.
        message: String,
    },
}

impl Event {
    /// The connection that it is about.
    pub fn conn(&self) -> Option<Conn> {
        match self {
            Self::Status { conn, .. }
            | Self::ConnectionBegun { conn }
            | Self::Peer { conn, .. }
            | Self::Path { conn, .. }
            | Self::Incoming { conn, .. }
            | Self::CheckAnswered { conn }
            | Self::Dead { conn, .. } => Some(*conn),
            Self::ChannelRequest { channel, .. }
            | Self::ChannelReady { channel }
            | Self::ChannelClosed { channel, .. }
            | Self::Data { channel, .. }
            | Self::Eof { channel }
            | Self::Reset { channel, .. }
            | Self::Stopped { channel, .. }
            | Self::Writable { channel }
            | Self::Receipt { channel, .. }
            | Self::SendFailed { channel, .. } => Some(channel.conn()),
            Self::RequestDone { outcome, .. } => outcome.as_ref().ok().map(|o| o.channel.conn()),
            Self::Association { channel, .. } => channel.map(Channel::conn),
            Self::Pairing { .. } | Self::Relayed { .. } | Self::ShardFailed { .. } => None,
        }
    }
}
