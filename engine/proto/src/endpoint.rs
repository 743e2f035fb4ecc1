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

pub use crate::recovery::Ecn;

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
    pub fn end_batch(&mut self, now: Instant) {
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

/// Settings of an endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointConfig {
    /// Defaults of its connections.
    pub connection: ConnectionConfig,
}
