//! What the protocol tells its user: the [`Sink`] that every receiving call is generic over.
//!
//! Bytes reach the sink as slices of the very buffer that the caller handed to
//! [`Endpoint::receive`](crate::endpoint::Endpoint::receive) whenever they arrived in order; they
//! are valid for the call only. A sink records what it wants done (sends, opens, closes) and the
//! caller carries that out after the call: no re-entrancy.

use crate::config::{ChannelKind, ChannelOptions};
use crate::connection::SecInfo;
use crate::crypto::{Credential, CredentialError, CredentialVerifier};
use crate::error::CloseReason;
use crate::ids::{ChannelKey, ConnHandle, PeerId};
use crate::status::Status;
use crate::wire::control::Activity;
use std::net::SocketAddr;

/// A host-side connection whose peer has proved itself; accept it, reject it, or let it time out.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The peer's identity, when it presented a certificate.
    pub peer: Option<PeerId>,
    /// The credential it presented; empty when none.
    pub credential: &'a [u8],
    /// The TLS server name it asked for.
    pub server_name: Option<&'a str>,
}

impl<'a> Incoming<'a> {
    /// Checks the credential that the client presented, at `now_s`, seconds of Unix time.
    ///
    /// # Errors
    /// Why it is not accepted: reason enough to reject the connection, in words for its peer.
    pub fn verify(
        &self,
        verifier: &CredentialVerifier,
        now_s: u64,
    ) -> Result<Credential<'a>, CredentialError> {
        verifier.verify(self.credential, now_s, self.peer)
    }
}

/// The peer asks for a channel; accept or decline it, now or later.
#[derive(Debug)]
pub struct ChannelRequest<'a> {
    /// Channel id on the wire.
    pub id: u16,
    /// The name; not unique.
    pub name: &'a str,
    /// The peer's options; its priority and weight concern what the peer sends.
    pub options: ChannelOptions,
}

/// How a channel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelEnd {
    /// Both directions reached their EOF and everything was acknowledged.
    Finished,
    /// The peer declined it.
    Declined {
        /// The peer's code.
        code: u32,
        /// The peer's words.
        text: String,
    },
    /// The peer cancelled what it was sending (CHANNEL_RESET) or refused the rest of ours
    /// (CHANNEL_STOP), or we did.
    Reset {
        /// The code given with it.
        code: u32,
        /// `true` when the peer started it.
        by_peer: bool,
    },
    /// No answer came to the request in time.
    TimedOut,
    /// The connection ended.
    Connection(CloseReason),
}

/// What became of the reliable data of a connection that is now Dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReport {
    /// Bytes of reliable channels that the application had handed over and the peer acknowledged.
    pub acknowledged_bytes: u64,
    /// Bytes of reliable channels that were accepted for sending and never acknowledged.
    pub undelivered_bytes: u64,
    /// Channels that still had undelivered data.
    pub undelivered_channels: u32,
    /// The final reason.
    pub reason: CloseReason,
    /// Whether the peer acknowledged our CLOSE or sent its own.
    pub peer_knows: bool,
    /// The peer's CLOSE said that data it had received was thrown away: its application never saw
    /// all of `acknowledged_bytes`.
    pub peer_discarded: bool,
}

/// Receives everything that happens. Default bodies ignore the event.
#[allow(unused_variables)]
pub trait Sink {
    /// The status of a connection changed. `reason` is set when the new status is an end.
    fn status(&mut self, conn: ConnHandle, old: Status, new: Status, reason: Option<&CloseReason>) {
    }
    /// Host: a peer proved itself and waits for accept or reject.
    fn incoming(&mut self, conn: ConnHandle, incoming: &Incoming<'_>) {}
    /// The connection's slot is free; the handle is stale from now on. The last event of every
    /// connection.
    fn dead(&mut self, conn: ConnHandle, report: &CloseReport) {}
    /// The peer asks for a channel.
    fn channel_request(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        request: &ChannelRequest<'_>,
    ) {
    }
    /// The channel is usable: our request was accepted, or our acceptance went out.
    fn channel_ready(&mut self, conn: ConnHandle, channel: ChannelKey) {}
    /// The channel ended; its key is stale from now on. Exactly once per channel, not told for
    /// channels of a connection that we closed ourselves.
    fn channel_closed(&mut self, conn: ConnHandle, channel: ChannelKey, end: &ChannelEnd) {}
    /// The next bytes of a `bytes` channel.
    fn data(&mut self, conn: ConnHandle, channel: ChannelKey, bytes: &[u8]) {}
    /// A whole message of a `messages` or `datagrams` channel.
    fn message(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        kind: ChannelKind,
        message: &[u8],
    ) {
    }
    /// A whole message that was put together in a buffer of its own: the bytes of `buffer` from
    /// `from` on. A sink that wants to keep them without a copy takes the buffer and leaves
    /// another, the contents of which do not matter.
    fn message_buffer(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        kind: ChannelKind,
        buffer: &mut Vec<u8>,
        from: usize,
    ) {
        self.message(conn, channel, kind, buffer.get(from..).unwrap_or_default());
    }
    /// The peer will send no more on this channel; everything before was delivered.
    fn eof(&mut self, conn: ConnHandle, channel: ChannelKey) {}
    /// The peer cancelled what it was sending; what was not delivered never will be.
    fn reset(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {}
    /// The peer refuses the rest of what we send on this channel; unacknowledged data is dropped.
    fn stopped(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {}
    /// A send on this channel gave `WouldBlock` and there is room again.
    fn writable(&mut self, conn: ConnHandle, channel: ChannelKey) {}
    /// Manual credit: what the application has not consumed is missing for the message that the peer
    /// is sending on this channel. Can come again before that is enough.
    fn credit_short(&mut self, conn: ConnHandle, channel: ChannelKey) {}
    /// The peer has acknowledged all of the message sent with this receipt token.
    fn receipt(&mut self, conn: ConnHandle, channel: ChannelKey, token: u64) {}
    /// The peer says how much it still wants of the connection.
    fn activity(&mut self, conn: ConnHandle, activity: Activity) {}
    /// Client: the host has proved itself and waits for the AuthenticationRequest, which
    /// [`Endpoint::answer_security`](crate::endpoint::Endpoint::answer_security) lets go. Told only
    /// where [`Endpoint::ask_security`](crate::endpoint::Endpoint::ask_security) was called.
    fn security(&mut self, conn: ConnHandle, info: &SecInfo) {}
    /// The peer is reached over another path now, which is proven: `relayed` when that is the relay of
    /// an event source, and `remote` the address that stands for the peer there.
    fn path(&mut self, conn: ConnHandle, remote: SocketAddr, relayed: bool) {}
    /// A path that was to be tried did not answer in time.
    fn path_failed(&mut self, conn: ConnHandle, socket: u16, remote: SocketAddr) {}
    /// A connection gives way to another one of the same two peers, which connected to each other at
    /// the same time: ours to `by`, which was accepted here, or one that was offered to `by`, which
    /// is ours.
    fn superseded(&mut self, conn: ConnHandle, by: ConnHandle) {}
    /// A connectivity check was answered.
    fn check_answered(&mut self, conn: ConnHandle) {}
}

/// A sink that ignores everything.
#[derive(Debug, Default)]
pub struct NullSink;

impl Sink for NullSink {}
