//! The table of connections of one shard: datagram to connection, connection to datagram.
//! (Signatures fixed first; bodies follow.)
#![allow(unused_variables, clippy::todo, clippy::unused_self, clippy::missing_const_for_fn)]

use crate::config::{ChannelOptions, ConnectionConfig};
use crate::error::ApiError;
use crate::event::Sink;
use crate::ids::{ChannelKey, ConnHandle};
use crate::payload::Payload;
use crate::status::Status;
use crate::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr};

/// ECN codepoint of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0,
    /// ECT(1).
    Ect1 = 1,
    /// ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

/// Where a datagram came from and to, as the driver saw it.
#[derive(Clone, Copy, Debug)]
pub struct RxMeta {
    /// Number of the socket within the shard.
    pub socket: u16,
    /// The sender.
    pub remote: SocketAddr,
    /// The local address it was sent to, where the system tells.
    pub local: Option<IpAddr>,
    /// Its ECN mark.
    pub ecn: Ecn,
}

/// One train of packets written by [`Endpoint::poll_transmit`].
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// Number of the socket within the shard.
    pub socket: u16,
    /// The receiver.
    pub remote: SocketAddr,
    /// The local address to send from; `None` = the system chooses.
    pub local: Option<IpAddr>,
    /// ECN mark for all packets.
    pub ecn: Ecn,
    /// Bytes written at the start of the buffer.
    pub len: usize,
    /// Size of every packet but the last, which may be shorter. Equal to `len` for one packet.
    pub segment: usize,
    /// The packet is a packet-size probe: it must not be fragmented or segmented, and losing it is harmless.
    pub probe: bool,
}

/// What became of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// Taken (or dropped and counted).
    Here,
    /// Its connection id names another shard: forward a copy there.
    Shard(u8),
}

/// See the crate documentation for the order of calls.
#[derive(Debug)]
pub struct Endpoint {}

/// How to send one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// Take the data even when the buffers are over their limit (a recorded send of a handler).
    pub over_limit: bool,
    /// Ask for a [`Sink::receipt`] with this token when the peer has acknowledged all of it.
    pub receipt: Option<u64>,
}

impl Endpoint {
    /// Takes one datagram (one segment of a GRO train). `data` is opened in place.
    pub fn receive<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        data: &mut [u8],
        sink: &mut S,
    ) -> Routed {
        todo!()
    }
    /// Ends a receive batch: acknowledgements that are due become sendable.
    pub fn end_batch<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        todo!()
    }
    /// Runs every timer that is due.
    pub fn handle_timeout<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        todo!()
    }
    /// The next moment at which [`Self::handle_timeout`] has work.
    pub fn next_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Writes the next train of one connection into `buf`; at most `max_segments` packets.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        max_segments: usize,
    ) -> Option<Transmit> {
        todo!()
    }
    /// The driver could not send a train with GSO, or a probe was too large for the interface.
    pub fn transmit_failed(&mut self, now: Instant, transmit: &Transmit, too_large: bool) {
        todo!()
    }
    /// Host: the application takes the connection.
    pub fn accept(&mut self, now: Instant, conn: ConnHandle) -> Result<(), ApiError> {
        todo!()
    }
    /// Host: the application refuses the connection; the peer learns code and text.
    pub fn reject(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        code: u32,
        text: &str,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Closes; `linger` delivers reliable data first. The handle is invalid afterwards.
    pub fn close(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        code: u32,
        text: &str,
        linger: Option<Duration>,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// The status; [`Status::None`] for a stale handle or one that was closed.
    pub fn status(&self, conn: ConnHandle) -> Status {
        todo!()
    }
    /// Pings the peer; no answer within `check_timeout` ends the connection.
    pub fn check(&mut self, now: Instant, conn: ConnHandle) -> Result<(), ApiError> {
        todo!()
    }
    /// Opens a channel.
    pub fn open_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<ChannelKey, ApiError> {
        todo!()
    }
    /// Accepts a requested channel with our own priority, weight and window.
    pub fn accept_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        options: &ChannelOptions,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Declines a requested channel.
    pub fn decline_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        code: u32,
        text: &str,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Sends a copy of `data`: the next bytes of a `bytes` channel, or one message.
    pub fn send(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        data: &[u8],
        options: SendOptions,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// The same without a copy before the packet.
    pub fn send_payload(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        data: Payload,
        options: SendOptions,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Ends our direction: EOF after everything sent so far.
    pub fn finish_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Cancels what we are sending.
    pub fn reset_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        code: u32,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Refuses the rest of what the peer sends.
    pub fn stop_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        code: u32,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Sends now what waits for coalescing.
    pub fn flush_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// Returns credit for `bytes` taken by the application (with `manual_credit`).
    pub fn consume(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        bytes: u64,
    ) -> Result<(), ApiError> {
        todo!()
    }
}

/// Keys shared by all shards of an engine; derived or random, never sent.
#[derive(Clone)]
pub struct EndpointKeys {
    /// Enciphers the slot inside connection ids.
    pub id: [u8; 16],
    /// Makes stateless-reset tokens; stable across restarts when it is derived from the identity.
    pub reset: [u8; 32],
    /// Makes retry tokens.
    pub retry: [u8; 32],
}

impl core::fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("EndpointKeys(..)")
    }
}

/// When a host answers a ConnectionRequest with a Retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Never.
    Never,
    /// While at least this many handshakes are under way.
    WhenLoaded(u32),
    /// Always.
    Always,
}

/// Settings of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Shard number, written into connection ids.
    pub shard: u8,
    /// Server number, written into connection ids for load balancers.
    pub server: u8,
    /// Seed of everything random here; must be unpredictable outside tests.
    pub seed: [u8; 32],
    /// Keys shared by all shards.
    pub keys: EndpointKeys,
    /// Defaults of its connections.
    pub connection: ConnectionConfig,
    /// Connections at once, at most 2^20.
    pub max_connections: u32,
    /// Host handshakes under way at once; beyond it requests are dropped and counted.
    pub max_handshakes: u32,
    /// When requests get a Retry.
    pub retry: RetryPolicy,
}

/// What a listening socket does with ConnectionRequests.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// TLS settings of the host: identity and what is asked of clients.
    pub tls: crate::handshake::HostTls,
    /// Settings of its connections; `None` = the endpoint's.
    pub connection: Option<ConnectionConfig>,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// TLS settings of the client: trust and identity.
    pub tls: crate::handshake::ClientTls,
    /// TLS server name.
    pub server_name: String,
    /// Credential sent under 1-RTT keys, at most 8 KiB.
    pub credential: Vec<u8>,
    /// Settings of this connection; `None` = the endpoint's.
    pub connection: Option<ConnectionConfig>,
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// Our side.
    pub role: crate::ids::Role,
    /// The status.
    pub status: Status,
    /// Where the peer is.
    pub remote: SocketAddr,
    /// The local address in use, where known.
    pub local: Option<IpAddr>,
    /// The peer's identity.
    pub peer: Option<crate::ids::PeerId>,
    /// Why the connection ended, if it has.
    pub reason: Option<crate::error::CloseReason>,
    /// TLS cipher suite.
    pub suite: Option<&'static str>,
    /// The TLS session was resumed.
    pub resumed: bool,
}

/// Counters and gauges of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnStats {
    /// Packets sent and received, lost, with frames sent again.
    pub packets_sent: u64,
    /// Packets opened.
    pub packets_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Reliable frames sent again.
    pub retransmits: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Smallest round trip.
    pub rtt_min: Duration,
    /// Congestion window in bytes.
    pub window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Current UDP payload size.
    pub packet_size: u64,
    /// Reliable bytes handed over and not acknowledged.
    pub unacked_bytes: u64,
    /// Channels open.
    pub channels: u32,
    /// Packets that failed to open or were replayed.
    pub packets_rejected: u64,
    /// Unreliable messages dropped before sending.
    pub datagrams_dropped: u64,
}

#[allow(missing_docs)]
impl Endpoint {
    pub fn new(now: Instant, config: EndpointConfig) -> Result<Self, ApiError> {
        todo!()
    }
    /// Answers ConnectionRequests that arrive on `socket`.
    pub fn listen(&mut self, socket: u16, listener: ListenerConfig) -> Result<(), ApiError> {
        todo!()
    }
    /// Stops answering; connections live on.
    pub fn unlisten(&mut self, socket: u16) {
        todo!()
    }
    /// Starts a connection; the same request goes to every address, the first valid answer decides.
    pub fn connect(
        &mut self,
        now: Instant,
        socket: u16,
        remotes: &[SocketAddr],
        config: &ClientConfig,
    ) -> Result<ConnHandle, ApiError> {
        todo!()
    }
    pub fn close_all(&mut self, now: Instant, reason: &crate::error::CloseReason, linger: Option<Duration>) {
        todo!()
    }
    pub fn reset_unknown(&mut self, now: Instant, meta: &RxMeta, packet: &[u8]) {
        todo!()
    }
    pub fn info(&self, conn: ConnHandle) -> Option<ConnInfo> {
        todo!()
    }
    pub fn stats(&self, conn: ConnHandle) -> Option<ConnStats> {
        todo!()
    }
    /// Live connections, whatever their status.
    pub fn connections(&self) -> impl Iterator<Item = ConnHandle> + '_ {
        core::iter::empty()
    }
    /// A hint that the local network changed: pings every connection and, as a client, asks for
    /// path validation from the new address.
    pub fn network_changed(&mut self, now: Instant) {
        todo!()
    }
}
