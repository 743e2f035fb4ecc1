//! The CONTROL stream: requests for channels and their answers go to `requests`, messages of the
//! connection are handed on.

use super::framing::Framing;
use super::mux::Mux;
use super::pool::Pool;
use super::recv::{Deliver, RecvContext, RecvState};
use super::send::SendBuf;
use super::table::flag;
use crate::config::ChannelKind;
use crate::error::{PeerMisbehaved, Reason};
use crate::event::Sink;
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::{MAX_CHANNELS, MAX_CONTROL_MESSAGE, MAX_STREAM_OFFSET};
use crate::time::Instant;
use crate::wire::control::{
    ChannelRequestMessage, ControlMessage, encode_channel_request, next_value, parse,
};
use crate::wire::frame::RawFrame;
use std::collections::VecDeque;

/// Receive credit of CONTROL: the connection announces it in its transport parameters.
pub const CONTROL_WINDOW: u64 = 64 * 1024;
/// Datagram link: while we could send and still have more refusals than this unacknowledged, in bytes,
/// the peer gets no new credit for CONTROL: it asks faster than it listens.
const MAX_REFUSALS: u64 = 256 * 1024;
/// More than this is no accident: there are only so many ids to ask for.
const FAR_TOO_MANY_REFUSALS: u64 = 16 * 1024 * 1024;
/// The same for a plain stream link, where a refusal is an id: each can be asked for once before it is
/// answered.
const FAR_TOO_MANY_DECLINED: usize = 4 * MAX_CHANNELS as usize;

/// A message of CONTROL that concerns the connection, not a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnMessage {
    /// The client's credential.
    Request {
        /// At most 8 KiB; empty when it has none.
        credential: Vec<u8>,
    },
    /// The host's answer.
    Response {
        /// Whether it lets the client in.
        accepted: bool,
        /// Why not.
        reason: Reason,
        /// Words for people.
        text: String,
    },
    /// Stream link: the peer's transport parameters, encoded.
    Parameters(Vec<u8>),
    /// Stream link: what we sent below this position has reached its channels.
    Consumed(u64),
    /// Stream link: the peer asks how far we are.
    Ping,
    /// Stream link: the peer closes.
    Close {
        /// Why.
        reason: Reason,
        /// Words for people.
        text: String,
        /// Received data was thrown away.
        discarded: bool,
    },
    /// Stream link: the peer knows that we close.
    CloseAck,
}

/// Both directions of CONTROL.
#[derive(Debug)]
pub(super) struct Control {
    pub send: SendBuf,
    /// The peer takes stream bytes below this offset.
    limit: u64,
    /// Messages that wait for the connection to be ready.
    staged: Vec<u8>,
    recv: RecvState,
    /// Received in order and not parsed yet.
    input: Vec<u8>,
    pub credit_pending: bool,
    /// A message that the connection has to take before the next one is looked at.
    pub message: Option<ConnMessage>,
    /// Plain stream link: ids of declined requests, each to be answered with an EOF.
    pub declined: VecDeque<u16>,
    /// Channels whose frames wait until CONTROL is acknowledged up to an offset.
    awaiting: VecDeque<(u64, ChannelKey)>,
    /// Bytes of answers that decline and are not acknowledged, as far as can be told.
    pub(super) refusals: u64,
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            send: SendBuf::default(),
            limit: 0,
            staged: Vec::new(),
            recv: RecvState { limit: CONTROL_WINDOW, ..RecvState::new() },
            input: Vec::new(),
            credit_pending: false,
            message: None,
            declined: VecDeque::new(),
            awaiting: VecDeque::new(),
            refusals: 0,
        }
    }

    /// Raises what we may send.
    pub(super) fn raise_limit(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Bytes that may be sent now for the first time.
    pub(super) fn sendable(&self) -> u64 {
        self.send.unsent().min(self.limit.saturating_sub(self.send.next()))
    }

    pub(super) fn has_unacked(&self) -> bool {
        self.send.unacked() > 0 || !self.staged.is_empty()
    }

    pub(super) fn wants_to_send(&self) -> bool {
        self.credit_pending
            || self.send.has_lost()
            || self.sendable() > 0
            || !self.declined.is_empty()
    }

    /// Moves what waited for the connection into the stream.
    pub(super) fn unstage(&mut self, pool: &mut Pool) {
        self.send.push_copy(&self.staged, pool);
        self.staged = Vec::new();
    }

    /// Offset behind everything queued.
    pub(super) fn end(&self) -> u64 {
        self.send.end() + self.staged.len() as u64
    }

    /// The absolute limit to announce.
    pub(super) const fn announced(&self) -> u64 {
        self.recv.limit
    }

    /// Bytes received in order.
    #[cfg(test)]
    pub(super) const fn received(&self) -> u64 {
        self.recv.next
    }

    /// Grants more when a quarter of the window is used up.
    pub(super) fn renew(&mut self) {
        let freed = self.recv.next - self.input.len() as u64;
        let limit = (freed + CONTROL_WINDOW).min(MAX_STREAM_OFFSET);
        if limit < self.recv.limit + CONTROL_WINDOW / 4 {
            return;
        }
        // Credit is never withheld while we wait for the peer's: both sides would wait for ever.
        let waiting = self.send.unsent() > 0 && self.sendable() == 0;
        if self.refusals <= MAX_REFUSALS || waiting {
            self.recv.limit = limit;
            self.credit_pending = true;
        }
    }

    pub(super) fn clear(&mut self, pool: &mut Pool) {
        self.send.clear(pool);
        self.recv.discard(pool);
        self.staged = Vec::new();
        self.input = Vec::new();
        self.awaiting = VecDeque::new();
        self.declined = VecDeque::new();
        self.credit_pending = false;
    }

    pub(super) fn shrink(&mut self, pool: &mut Pool) {
        if self.send.unacked() == 0 {
            self.send.clear(pool);
            pool.release();
        }
        self.input.shrink_to_fit();
        self.awaiting.shrink_to_fit();
    }
}

/// Collects CONTROL bytes.
struct Input<'a>(&'a mut Vec<u8>);

impl Deliver for Input<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, _message: &[u8]) {}
}

impl Mux {
    /// Appends a message of the connection to CONTROL, before anything about channels.
    pub fn send_control(&mut self, message: &[u8]) {
        self.control.send.push_copy(message, &mut self.pool);
    }

    /// Takes a message of the connection. Until it is taken, nothing behind it on CONTROL is
    /// looked at; call [`Self::resume_control`] afterwards.
    pub fn poll_control(&mut self) -> Option<ConnMessage> {
        self.control.message.take()
    }

    /// Whether bytes of CONTROL stand behind the last message that was looked at.
    pub const fn has_more_control(&self) -> bool {
        !self.control.input.is_empty()
    }

    /// Whether a frame of CONTROL has bytes that did not come before.
    pub(crate) fn is_new_control(&self, frame: &RawFrame<'_>) -> bool {
        frame.offset() + frame.body.len() as u64 > self.control.recv.next
    }

    /// Goes on with CONTROL after [`Self::poll_control`] gave a message.
    pub fn resume_control<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        self.parse_control(now, conn, sink)
    }

    /// Writes a request or an answer; gives the CONTROL offset behind it.
    pub(super) fn write_request(&mut self, message: &ChannelRequestMessage<'_>) -> u64 {
        encode_channel_request(&mut self.control.staged, message);
        if self.ready {
            self.control.unstage(&mut self.pool);
        }
        self.control.end()
    }

    /// Holds the frames of a channel back until CONTROL is acknowledged up to `end`.
    pub(super) fn await_ack(&mut self, end: u64, key: ChannelKey) {
        self.table.at(key.slot).set(flag::WAIT_ACK);
        self.control.awaiting.push_back((end, key));
    }

    /// CONTROL was acknowledged a bit further.
    pub(super) fn control_acked(&mut self, offset: u64, len: u64) {
        let moved = self.control.send.on_acked(offset, len, &mut self.pool);
        self.control.refusals = self.control.refusals.saturating_sub(moved);
        while let Some((end, key)) = self.control.awaiting.front().copied() {
            if end > self.control.send.base() {
                break;
            }
            self.control.awaiting.pop_front();
            if let Some(channel) = self.table.get(key) {
                channel.clear(flag::WAIT_ACK);
                self.activate(key.slot);
                self.activate_transport(key.slot);
            }
        }
        if !self.framing.is_stream() {
            self.control.renew();
        }
    }

    /// A frame of CONTROL.
    pub(super) fn control_frame<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let control = &mut self.control;
        let offset = frame.offset();
        if offset + frame.body.len() as u64 > control.recv.limit {
            return Err(PeerMisbehaved::Credit("CONTROL"));
        }
        let mut cx = RecvContext {
            kind: ChannelKind::Bytes,
            max_message: 0,
            manual: false,
            hold: false,
            pool: &mut self.pool,
            released: 0,
        };
        control.recv.receive(offset, frame.body, &mut cx, &mut Input(&mut control.input))?;
        self.parse_control(now, conn, sink)
    }

    fn parse_control<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let mut input = core::mem::take(&mut self.control.input);
        let mut at = 0;
        let mut result = Ok(());
        while self.control.message.is_none() && at < input.len() {
            let rest = &input[at..];
            let message = match next_value(rest) {
                Ok(Some(len)) => {
                    at += len;
                    parse(&rest[..len])
                }
                Ok(None) => break,
                Err(e) => Err(e),
            };
            result = message.and_then(|message| self.control_message(now, conn, &message, sink));
            if result.is_err() {
                break;
            }
        }
        input.drain(..at);
        if input.is_empty() && input.capacity() > MAX_CONTROL_MESSAGE {
            input = Vec::new();
        }
        self.control.input = input;
        if !self.framing.is_stream() {
            self.control.renew();
        }
        result
    }

    /// Stream link: bytes of CONTROL, in order.
    pub(super) fn control_bytes<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        bytes: &[u8],
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        self.control.input.extend_from_slice(bytes);
        self.parse_control(now, conn, sink)
    }

    /// Stream link: the peer sends more than we may look at yet. It is not read from until that is
    /// better. Refusals that it does not read are no reason to: two sides that both decline much would
    /// wait for each other for ever.
    pub(super) fn control_is_choked(&self) -> bool {
        let held = self.control.message.is_some() || !self.ready;
        held && self.control.input.len() as u64 > CONTROL_WINDOW
    }

    /// Whether the peer has asked for more than it can have read the answers of, by far.
    fn is_flooded(&self) -> bool {
        self.control.refusals > FAR_TOO_MANY_REFUSALS
            || self.control.declined.len() > FAR_TOO_MANY_DECLINED
    }

    fn control_message<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        message: &ControlMessage<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        match *message {
            ControlMessage::ChannelRequest(_) if !self.ready => {
                Err(PeerMisbehaved::Unexpected("ChannelRequest before authentication"))
            }
            ControlMessage::ChannelRequest(request) if request.is_answer => {
                self.on_answer(now, conn, &request, sink)
            }
            ControlMessage::ChannelRequest(_) if self.is_flooded() => {
                Err(PeerMisbehaved::Limit("requests while answers are not read"))
            }
            ControlMessage::ChannelRequest(request) => self.on_request(now, conn, &request, sink),
            // Nothing else means anything there.
            _ if self.framing.is_plain() => Ok(()),
            ControlMessage::AuthenticationRequest { credential } => {
                let credential = credential.to_vec();
                self.control.message = Some(ConnMessage::Request { credential });
                Ok(())
            }
            ControlMessage::AuthenticationResponse { accepted, reason, text } => {
                let text = text.to_owned();
                self.control.message = Some(ConnMessage::Response { accepted, reason, text });
                Ok(())
            }
            ControlMessage::Activity(_) if !self.ready => {
                Err(PeerMisbehaved::Unexpected("Activity before authentication"))
            }
            ControlMessage::Activity(activity) => {
                sink.activity(conn, activity);
                Ok(())
            }
            ControlMessage::Link(message) if self.framing == Framing::Stream => {
                self.on_link_message(now, conn, &message, sink)
            }
            ControlMessage::Link(_) | ControlMessage::Unknown => Ok(()),
        }
    }
}
