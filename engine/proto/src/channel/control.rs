//! The CONTROL stream: requests for channels and their answers; messages of the connection are
//! handed on.

use super::early::Held;
use super::framing::Framing;
use super::mux::Mux;
use super::pool::Pool;
use super::recv::{Deliver, RecvContext, RecvState};
use super::send::SendBuf;
use super::table::{State, flag};
use crate::config::{ChannelKind, ChannelOptions};
use crate::error::{PeerMisbehaved, Reason};
use crate::event::{ChannelEnd, ChannelRequest, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::{CONTROL_CHANNEL, MAX_CONTROL_MESSAGE, MAX_STREAM_OFFSET, TRANSPORT_CHANNEL};
use crate::time::Instant;
use crate::wire::control::{
    ChannelRequestMessage, ControlMessage, RequestOptions, encode_channel_request, next_value,
    parse,
};
use crate::wire::frame::RawFrame;
use std::collections::VecDeque;

/// Receive credit of CONTROL: the connection announces it in its transport parameters.
pub const CONTROL_WINDOW: u64 = 64 * 1024;
/// While we could send and still have more refusals than this unacknowledged, in bytes, the peer gets
/// no new credit for CONTROL: it asks faster than it listens.
const MAX_REFUSALS: u64 = 256 * 1024;
/// More than this is no accident: there are only so many ids to ask for.
const FAR_TOO_MANY_REFUSALS: u64 = 16 * 1024 * 1024;

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
    refusals: u64,
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
    fn end(&self) -> u64 {
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
        self.control.renew();
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

    /// Stream link: the peer asks faster than it listens, or sends more than we may look at yet. It
    /// is not read from until that is better.
    pub(super) fn control_is_choked(&self) -> bool {
        let held = self.control.message.is_some() || !self.ready;
        (held && self.control.input.len() as u64 > CONTROL_WINDOW)
            || self.control.refusals > MAX_REFUSALS
            || self.control.declined.len() as u64 > MAX_REFUSALS / 16
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
            ControlMessage::ChannelRequest(_) if self.control.refusals > FAR_TOO_MANY_REFUSALS => {
                Err(PeerMisbehaved::Limit("requests while answers are not read"))
            }
            ControlMessage::ChannelRequest(request) => self.on_request(now, conn, &request, sink),
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
            ControlMessage::Link(message) if self.framing == Framing::Stream => {
                self.on_link_message(now, conn, &message, sink)
            }
            ControlMessage::Link(_) | ControlMessage::Unknown => Ok(()),
        }
    }

    /// The peer asks for a channel.
    fn on_request<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        request: &ChannelRequestMessage<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let id = request.channel;
        let plain = self.framing.is_plain();
        if plain && id == CONTROL_CHANNEL {
            return Err(PeerMisbehaved::Control("channel is 0"));
        }
        let wrong_half = self.table.is_own(id) && !plain;
        if id == CONTROL_CHANNEL || id == TRANSPORT_CHANNEL || wrong_half {
            self.write_refusal(id, Reason::PROTOCOL.0, "not an id of the opener");
            return Ok(());
        }
        if let Some(slot) = self.table.slot_of(id)
            && plain
        {
            return self.plain_request_for_used(slot);
        }
        if let Some(slot) = self.table.slot_of(id)
            && !self.finalise(conn, slot, sink)
        {
            self.write_refusal(id, Reason::PROTOCOL.0, "id in use");
            return Ok(());
        }
        let since = self.framing.since(request.options.since);
        let lost = self.early.lost_frames(id, since);
        let held = self.early.take(id, false);
        let key = self.offer(request, since);
        let refusal = if self.discarding {
            Some((Reason::APP.0, "closing"))
        } else if self.peer_count >= self.config.max_channels || self.budget.is_choked() {
            Some((Reason::LOCAL_LIMIT.0, "too many channels"))
        } else if lost {
            Some((Reason::LOCAL_LIMIT.0, "early data lost"))
        } else {
            None
        };
        if let Some((code, text)) = refusal {
            self.decline_slot(key.slot, code, text);
        } else {
            self.table.at(key.slot).set(flag::COUNTED);
            self.peer_count += 1;
            let o = &request.options;
            let options = ChannelOptions {
                unique: false,
                kind: o.kind,
                priority: o.priority,
                weight: o.weight,
                window: o.window,
                no_delay: false,
                wait_for_answer: false,
                latest: o.latest,
                expires_ms: o.expires_ms,
            };
            let event = ChannelRequest { id, name: request.name, options };
            sink.channel_request(conn, key, &event);
        }
        self.replay(now, conn, key, held, sink)
    }

    /// Makes the channel that the peer asks for.
    fn offer(&mut self, request: &ChannelRequestMessage<'_>, since: u64) -> ChannelKey {
        let o = &request.options;
        let key = self.table.insert(request.channel);
        let channel = self.table.at(key.slot);
        channel.state = State::Offered;
        channel.kind = o.kind;
        channel.since = since;
        channel.send_limit = self.framing.first_limit(o.window);
        channel.name = (!request.name.is_empty()).then(|| request.name.into());
        if o.latest {
            channel.set(flag::LATEST);
        }
        key
    }

    /// A request for the id of a channel that still exists: whether the old one is over from the
    /// opener's view, in which case it is gone now.
    fn finalise<S: Sink>(&mut self, conn: ConnHandle, slot: u32, sink: &mut S) -> bool {
        let channel = self.table.at(slot);
        let ended = channel.any(flag::END_SENT | flag::SEND_DONE);
        let over = match channel.state {
            // Declined: the opener may forget it before its RESET arrives.
            State::Closing => true,
            State::Open => channel.has(flag::RECV_DONE) && ended,
            _ => false,
        };
        if !over {
            return false;
        }
        // The request says that the opener has all that we sent.
        channel.set(flag::RECV_DONE);
        let key = ChannelKey { slot, life: channel.life };
        if let Some(send) = &mut channel.send {
            let moved = send.on_acked(send.base(), send.unacked(), &mut self.pool);
            self.unacked -= moved;
            self.stats.acked_bytes += moved;
            self.front_moved(conn, key, sink);
        }
        if self.table.get(key).is_some_and(|ch| !ch.has(flag::SEND_DONE)) {
            self.send_done(conn, slot, sink);
        } else {
            self.end(conn, slot, sink);
        }
        true
    }

    /// Answers that a request is declined. The name is left out: the id says it all.
    fn write_refusal(&mut self, channel: u16, code: u32, text: &str) {
        if self.framing.is_plain() {
            self.control.declined.push_back(channel);
            return;
        }
        let options = RequestOptions {
            has_map: true,
            declined: Some(code),
            reason: text,
            ..RequestOptions::default()
        };
        let before = self.control.end();
        let answer = ChannelRequestMessage { name: "", channel, is_answer: true, options };
        let after = self.write_request(&answer);
        self.control.refusals += after - before;
    }

    /// Declines a channel that was offered. Its slot stays until the opener's RESET.
    pub(super) fn decline_slot(&mut self, slot: u32, code: u32, text: &str) {
        let channel = self.table.at(slot);
        channel.name = None;
        let id = channel.id;
        let over = channel.has(flag::RECV_DONE);
        if channel.any(flag::RESET) && !channel.has(flag::SEND_DONE) {
            self.unacked_ends -= 1;
        }
        let channel = self.table.at(slot);
        channel.state = State::Closing;
        channel.set(flag::SEND_DONE);
        channel.clear(flag::RESET_PENDING);
        self.uncount(slot);
        self.drop_incoming(slot);
        self.write_refusal(id, code, text);
        if over || self.framing.is_plain() {
            self.free(slot);
        }
    }

    /// The peer answers a request of ours.
    fn on_answer<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        answer: &ChannelRequestMessage<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let slot = match self.table.slot_of(answer.channel) {
            Some(slot) if self.table.is_own(answer.channel) => slot,
            // It crossed our EOF.
            _ if self.framing.is_plain() => return Ok(()),
            _ => return Err(PeerMisbehaved::Control("answer without a request")),
        };
        let channel = self.table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        let declined = answer.options.declined;
        let since = self.framing.since(answer.options.since);
        match channel.state {
            State::Requested => {}
            State::Closing if channel.has(flag::UNANSWERED) => {
                channel.clear(flag::UNANSWERED);
                channel.since = since;
                if declined.is_some() {
                    channel.set(flag::RECV_DONE);
                }
                self.end(conn, slot, sink);
                return Ok(());
            }
            _ if self.framing.is_plain() => return Ok(()),
            _ => return Err(PeerMisbehaved::Control("answer without a request")),
        }
        self.settle_requests();
        self.refund_early(slot);
        if let Some(code) = declined {
            self.early.take(answer.channel, true);
            self.forget_channel(slot, code);
            self.table.at(slot).set(flag::RECV_DONE);
            let text = answer.options.reason.to_owned();
            sink.channel_closed(conn, key, &ChannelEnd::Declined { code, text });
            self.end(conn, slot, sink);
            return Ok(());
        }
        let channel = self.table.at(slot);
        channel.state = State::Open;
        channel.since = since;
        channel.clear(flag::WAIT_ANSWER | flag::WAIT_ACK);
        if answer.options.latest {
            channel.set(flag::LATEST);
        }
        let limit = self.framing.first_limit(answer.options.window);
        channel.send_limit = limit;
        if channel.kind != ChannelKind::Datagrams {
            // What was sent beyond the limit stays early data until the limit reaches it.
            self.early_used += channel.next_offset().saturating_sub(limit);
        }
        sink.channel_ready(conn, key);
        let held = self.early.take(answer.channel, true);
        self.activate(slot);
        self.activate_transport(slot);
        self.wake_early();
        self.replay(now, conn, key, held, sink)
    }

    /// Gives up a request that was not answered in time.
    pub(super) fn give_up_request<S: Sink>(
        &mut self,
        conn: ConnHandle,
        key: ChannelKey,
        sink: &mut S,
    ) {
        let id = self.table.at(key.slot).id;
        self.early.take(id, true);
        // Its early-data credit stays used until the peer has our RESET and drops what it holds.
        self.forget_channel(key.slot, Reason::TIMEOUT.0);
        if self.table.at(key.slot).has(flag::SEND_DONE) {
            self.refund_early(key.slot);
            self.wake_early();
        }
        let channel = self.table.at(key.slot);
        if self.framing.is_plain() {
            // Our EOF ends it; an answer that crosses it means nothing.
            channel.set(flag::RECV_DONE);
            if !self.discarding {
                sink.channel_closed(conn, key, &ChannelEnd::TimedOut);
            }
            return;
        }
        channel.set(flag::STOP | flag::STOP_PENDING | flag::UNANSWERED);
        channel.stop_code = Reason::TIMEOUT.0;
        self.activate_transport(key.slot);
        if !self.discarding {
            sink.channel_closed(conn, key, &ChannelEnd::TimedOut);
        }
    }

    /// Answered requests at the front of the queue of deadlines go.
    pub(super) fn settle_requests(&mut self) {
        while let Some((_, key)) = self.requests.front() {
            match self.table.peek(*key) {
                Some(ch) if ch.state == State::Requested => break,
                _ => self.requests.pop_front(),
            };
        }
    }

    /// Ends a channel for the application: what is queued is dropped and a RESET tells the peer,
    /// even when our EOF was acknowledged already: it is what frees the id on the other side.
    fn forget_channel(&mut self, slot: u32, code: u32) {
        let channel = self.table.at(slot);
        if channel.has(flag::SEND_DONE) && !channel.has(flag::RESET) {
            channel.clear(flag::SEND_DONE);
            self.unacked_ends += 1;
        }
        self.cancel_send(slot, code);
        self.drop_incoming(slot);
        self.table.at(slot).state = State::Closing;
    }

    /// Goes on with what was held for a channel that has now been announced or answered.
    pub(super) fn replay<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        key: ChannelKey,
        held: Option<Held>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(held) = held else { return Ok(()) };
        let Some(channel) = self.table.get(key) else { return Ok(()) };
        let (id, since) = (channel.id, channel.since);
        if held.overflow.is_some_and(|pn| pn >= since) && channel.state == State::Open {
            // Something of it was dropped for want of room: it cannot go on.
            let code = Reason::LOCAL_LIMIT.0;
            channel.ended(code, false);
            self.cancel_send(key.slot, code);
            self.refuse(key.slot, code);
            return Ok(());
        }
        let mut frames: Vec<_> = held.frames(id).collect();
        frames.sort_by_key(|(pn, _)| *pn);
        for (pn, frame) in frames {
            if self.table.get(key).is_none() {
                return Ok(());
            }
            self.channel_frame(now, conn, pn, &frame, sink)?;
        }
        if let Some((pn, limit)) = held.credit {
            self.on_credit(pn, id, limit)?;
        }
        if let Some((pn, code)) = held.stop {
            self.channel_stop(conn, pn, id, code, sink);
        }
        if let Some((pn, code, end)) = held.reset {
            self.channel_reset(conn, pn, id, code, end, sink)?;
        }
        Ok(())
    }
}
