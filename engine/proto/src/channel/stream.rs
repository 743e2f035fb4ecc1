//! What is different when the link below is a stream: frames arrive in order and perhaps in pieces,
//! and on a plain link one EOF ends a channel both ways and only the stream itself limits the peer.

use super::control::ConnMessage;
use super::framing::Framing;
use super::incoming::Discard;
use super::mux::Mux;
use super::table::{State, flag};
use crate::config::ChannelKind;
use crate::error::{PeerMisbehaved, Reason};
use crate::event::{ChannelEnd, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::{CONTROL_CHANNEL, FRAME_EXTRA_LEN, STREAM_PAYLOAD};
use crate::time::Instant;
use crate::wire::frame::RawFrame;
use crate::wire::link_message::LinkMessage;

/// Bytes that all channels of a plain link have received and that take memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holding {
    /// The application has to do something: answer the request, or take them.
    pub app: u64,
    /// Parts of messages whose rest has not come.
    pub partial: u64,
}

/// The same of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChannelHolding {
    app: u32,
    partial: u32,
}

impl ChannelHolding {
    /// Nothing.
    pub(super) const NONE: Self = Self { app: 0, partial: 0 };
}

/// How the frames of a channel are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameShape {
    /// Only when it is there as a whole.
    Whole,
    /// Piece by piece, as it arrives.
    Pieces,
    /// Not at all: nobody knows the channel.
    Skip,
}

/// Passes `sink`, or one that ignores everything and notes that data came, to `$call`.
macro_rules! unless_discarding {
    ($self:ident, $sink:ident, $call:expr) => {
        if $self.discarding {
            let mut discard = Discard::default();
            let $sink = &mut discard;
            let result = $call;
            $self.discarded |= discard.data;
            result
        } else {
            $call
        }
    };
}

impl Mux {
    /// Says what kind of link is below; before anything is opened, sent or received.
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
        if framing.is_stream() {
            self.control.raise_limit(u64::MAX);
            self.set_packet_payload(STREAM_PAYLOAD);
        }
    }

    /// What kind of link is below.
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// How the frame of a channel that begins now is to be handed over.
    pub fn frame_shape(&mut self, id: u16) -> FrameShape {
        if id == CONTROL_CHANNEL {
            return FrameShape::Whole;
        }
        match self.table.slot_of(id) {
            None => FrameShape::Skip,
            Some(slot) if self.table.at(slot).kind == ChannelKind::Datagrams => FrameShape::Whole,
            Some(_) => FrameShape::Pieces,
        }
    }

    /// Whether the peer must not be read from until the application, or the peer itself, has taken
    /// something.
    pub fn is_choked(&self) -> bool {
        let held = self.held.app + self.budget.orphaned();
        self.control_is_choked()
            || (self.framing.is_plain() && held >= self.config.channel_window_max)
    }

    /// A whole frame with a body: CONTROL, or a piece of a datagram.
    pub fn on_stream_frame<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        id: u16,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        if id == CONTROL_CHANNEL {
            return unless_discarding!(self, sink, self.control_bytes(now, conn, body, sink));
        }
        let Some((extra, body)) = body.split_first_chunk::<FRAME_EXTRA_LEN>() else {
            return Err(PeerMisbehaved::Malformed("datagram fragment"));
        };
        let frame = RawFrame { channel: id, extra: *extra, body };
        if frame.datagram().is_eof() {
            return Err(PeerMisbehaved::Malformed("datagram fragment"));
        }
        unless_discarding!(self, sink, self.stream_datagram(now, conn, &frame, sink))
    }

    fn stream_datagram<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(slot) = self.table.slot_of(frame.channel) else { return Ok(()) };
        match self.table.at(slot).state {
            State::Open => self.datagram_frame(now, conn, slot, frame, sink)?,
            State::Offered => self.hold_datagram(0, frame),
            _ => return self.stale_piece(slot),
        }
        if self.framing.is_plain() {
            self.recount(slot);
        }
        Ok(())
    }

    /// The next bytes of a reliable channel.
    pub fn on_stream_bytes<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        id: u16,
        bytes: &[u8],
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(slot) = self.table.slot_of(id) else { return Ok(()) };
        let channel = self.table.at(slot);
        if !matches!(channel.state, State::Open | State::Offered) {
            return self.stale_piece(slot);
        }
        let key = ChannelKey { slot, life: channel.life };
        let frame = in_order(id, channel.recv.next.max(channel.recv.highest), bytes);
        unless_discarding!(self, sink, self.stream_frame(now, conn, slot, &frame, sink))?;
        if self.framing.is_plain() && self.table.get(key).is_some() {
            self.recount(slot);
            if self.held.partial > self.config.receive_budget {
                return Err(PeerMisbehaved::Limit("messages being put together"));
            }
        }
        Ok(())
    }

    /// Bytes for a channel that takes none.
    fn stale_piece(&mut self, slot: u32) -> Result<(), PeerMisbehaved> {
        if self.framing == Framing::Stream && self.table.at(slot).state == State::Requested {
            return Err(PeerMisbehaved::Unexpected("data before the answer"));
        }
        self.stats.stale_frames += 1;
        Ok(())
    }

    /// An EOF.
    pub fn on_stream_eof<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        id: u16,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        unless_discarding!(self, sink, self.stream_eof(now, conn, id, sink))
    }

    fn stream_eof<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        id: u16,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(slot) = self.table.slot_of(id) else {
            self.stats.stale_frames += 1;
            return Ok(());
        };
        let channel = self.table.at(slot);
        let datagrams = channel.kind == ChannelKind::Datagrams;
        let end = in_order(id, channel.recv.next.max(channel.recv.highest), &[]);
        let datagram_end = RawFrame { channel: id, extra: [0; FRAME_EXTRA_LEN], body: &[] };
        match channel.state {
            State::Requested if self.framing.is_plain() => {
                self.plain_declined(conn, slot, sink);
                Ok(())
            }
            State::Requested => Err(PeerMisbehaved::Unexpected("EOF before the answer")),
            State::Open if datagrams => self.datagram_frame(now, conn, slot, &datagram_end, sink),
            State::Offered if datagrams => {
                self.hold_datagram(0, &datagram_end);
                Ok(())
            }
            State::Open | State::Offered => self.stream_frame(now, conn, slot, &end, sink),
            State::Closing if channel.has(flag::OURS) && !channel.has(flag::UNANSWERED) => {
                channel.set(flag::RECV_DONE);
                self.end(conn, slot, sink);
                Ok(())
            }
            State::Closing | State::Free => Ok(()),
        }
    }

    /// Native: what a TRANSPORT frame would say.
    pub(super) fn on_link_message<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        message: &LinkMessage<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        self.control.message = Some(match *message {
            LinkMessage::Credit { channel, limit } => return self.on_credit(0, channel, limit),
            LinkMessage::Reset { channel, code, final_offset } => {
                return self.on_reset(now, conn, 0, channel, code, final_offset, sink);
            }
            LinkMessage::Stop { channel, code } => {
                return self.on_stop(now, conn, 0, channel, code, sink);
            }
            LinkMessage::Parameters(bytes) => ConnMessage::Parameters(bytes.to_vec()),
            LinkMessage::Consumed { position } => ConnMessage::Consumed(position),
            LinkMessage::Ping => ConnMessage::Ping,
            LinkMessage::Close { reason, text, discarded } => {
                ConnMessage::Close { reason, text: text.to_owned(), discarded }
            }
            LinkMessage::CloseAck => ConnMessage::CloseAck,
        });
        Ok(())
    }

    // ---- plain

    /// What a channel holds has changed.
    pub(super) fn recount(&mut self, slot: u32) {
        let channel = self.table.at(slot);
        let recv = &channel.recv;
        let buffered = recv.buffered();
        let waits = channel.state == State::Offered || channel.has(flag::READY_PENDING);
        let (app, partial) = if waits { (buffered, 0) } else { (0, buffered) };
        let app = app + recv.unconsumed;
        let most = |n: u64| n.min(u32::MAX.into()) as u32;
        self.holds(slot, ChannelHolding { app: most(app), partial: most(partial) });
    }

    pub(super) fn holds(&mut self, slot: u32, now: ChannelHolding) {
        let before = core::mem::replace(&mut self.table.at(slot).held, now);
        self.held.app = self.held.app - u64::from(before.app) + u64::from(now.app);
        self.held.partial = self.held.partial - u64::from(before.partial) + u64::from(now.partial);
    }

    /// Ends a channel of ours with an EOF, whatever was still to come or to go.
    pub(super) fn plain_cancel(&mut self, slot: u32, code: u32) {
        self.cancel_send(slot, code);
        self.receive_done(slot);
        let key = ChannelKey { slot, life: self.table.at(slot).life };
        self.pending.push_back(key);
    }

    /// The peer has ended a channel: nothing that we have to send reaches anybody.
    pub(super) fn plain_peer_ended(&mut self, slot: u32) {
        let channel = self.table.at(slot);
        if channel.has(flag::SEND_DONE) {
            return;
        }
        if channel.unacked() > 0 || channel.datagram_send.is_some() {
            channel.ended(Reason::APP.0, true);
        }
        let owes_end = channel.any(flag::FIN | flag::RESET);
        channel.set(flag::SEND_DONE);
        channel.clear(flag::FIN_PENDING | flag::RESET_PENDING | flag::HELD | flag::BLOCKED);
        if owes_end {
            self.unacked_ends -= 1;
        }
        self.drop_outgoing(slot);
    }

    /// The peer answers a request of ours with an EOF: it declines.
    fn plain_declined<S: Sink>(&mut self, conn: ConnHandle, slot: u32, sink: &mut S) {
        let key = ChannelKey { slot, life: self.table.at(slot).life };
        self.free(slot);
        self.settle_requests();
        let end = ChannelEnd::Declined { code: Reason::APP_REJECTED.0, text: String::new() };
        sink.channel_closed(conn, key, &end);
    }

    /// The peer asks for an id that exists. If both sides have asked for it at once, both requests
    /// are declined, by one EOF from each side; otherwise the peer is confused, and an EOF would end
    /// the channel that exists.
    pub(super) fn plain_request_for_used<S: Sink>(
        &mut self,
        conn: ConnHandle,
        slot: u32,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let channel = self.table.at(slot);
        let id = channel.id;
        match channel.state {
            State::Requested => {
                self.plain_declined(conn, slot, sink);
                self.control.declined.push_back(id);
                Ok(())
            }
            // The EOF with which we give up our own request is still to be written: it declines the
            // other one, too.
            State::Closing => Ok(()),
            _ => Err(PeerMisbehaved::Control("channel is in use")),
        }
    }

    /// Whether a channel has ended for the peer although nobody has said yet that TCP has our EOF: a
    /// request for its id is one for a new channel.
    pub(super) fn plain_is_over(&mut self, slot: u32) -> bool {
        let channel = self.table.at(slot);
        matches!(channel.state, State::Open | State::Closing)
            && channel.has(flag::RECV_DONE | flag::END_SENT)
    }

    /// Our EOF waited until what was held for an accepted channel was delivered: it ends the peer's
    /// direction, too.
    pub(super) fn plain_finish(&mut self, key: ChannelKey) {
        let Some(channel) = self.table.get(key) else { return };
        if channel.has(flag::FIN) && !channel.any(flag::SEND_DONE | flag::RESET) {
            channel.set(flag::FIN_PENDING);
            self.activate(key.slot);
        }
    }
}

/// A frame with bytes at the place where they belong in the stream of their channel.
fn in_order(channel: u16, offset: u64, body: &[u8]) -> RawFrame<'_> {
    let [_, _, extra @ ..] = offset.to_be_bytes();
    RawFrame { channel, extra, body }
}
