//! Frames in.

use super::datagram::is_newer;
use super::early::Early;
use super::mux::Mux;
use super::recv::{Deliver, NO_END, RecvContext};
use super::stream::ChannelHolding;
use super::table::{State, flag};
use crate::config::ChannelKind;
use crate::error::PeerMisbehaved;
use crate::event::Sink;
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::{CONTROL_CHANNEL, MAX_STREAM_OFFSET, TRANSPORT_CHANNEL};
use crate::time::Instant;
use crate::wire::frame::RawFrame;

/// Hands what arrives on one channel to the sink.
pub(super) struct ToSink<'a, S> {
    pub conn: ConnHandle,
    pub key: ChannelKey,
    pub sink: &'a mut S,
    pub messages: u64,
}

impl<S: Sink> Deliver for ToSink<'_, S> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.sink.data(self.conn, self.key, bytes);
    }

    #[inline]
    fn message(&mut self, message: &[u8]) {
        self.messages += 1;
        self.sink.message(self.conn, self.key, ChannelKind::Messages, message);
    }

    fn message_buffer(&mut self, buffer: &mut Vec<u8>, from: usize) {
        self.messages += 1;
        self.sink.message_buffer(self.conn, self.key, ChannelKind::Messages, buffer, from);
    }
}

/// Remembers only that something came.
#[derive(Default)]
pub(super) struct Discard {
    pub data: bool,
}

impl Sink for Discard {
    fn data(&mut self, _: ConnHandle, _: ChannelKey, _: &[u8]) {
        self.data = true;
    }

    fn message(&mut self, _: ConnHandle, _: ChannelKey, _: ChannelKind, _: &[u8]) {
        self.data = true;
    }
}

impl Mux {
    /// Whether a frame holds nothing that its sender would repeat: a part of an unreliable message
    /// on a channel that is known here.
    #[inline]
    pub fn is_unreliable(&mut self, frame: &RawFrame<'_>) -> bool {
        let Some(slot) = self.table.slot_of(frame.channel) else { return false };
        self.table.at(slot).kind == ChannelKind::Datagrams && !frame.datagram().is_eof()
    }

    /// Takes a frame of CONTROL or of a channel from packet `pn`; `next_pn` is the number of the
    /// next packet that we send.
    pub fn on_frame<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        pn: u64,
        frame: &RawFrame<'_>,
        _next_pn: u64,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        if self.discarding {
            let mut discard = Discard::default();
            let result = self.any_frame(now, conn, pn, frame, &mut discard);
            self.discarded |= discard.data;
            return result;
        }
        self.any_frame(now, conn, pn, frame, sink)
    }

    #[inline]
    fn any_frame<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        pn: u64,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        match frame.channel {
            CONTROL_CHANNEL => self.control_frame(now, conn, frame, sink),
            TRANSPORT_CHANNEL => Err(PeerMisbehaved::Unexpected("TRANSPORT frame")),
            _ => self.channel_frame(now, conn, pn, frame, sink),
        }
    }

    /// A frame of a channel.
    #[inline]
    pub(super) fn channel_frame<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        pn: u64,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(slot) = self.table.slot_of(frame.channel) else {
            return self.unknown_frame(now, pn, frame, false);
        };
        let channel = self.table.at(slot);
        match channel.state {
            State::Open if channel.awaits_next_life() => self.unknown_frame(now, pn, frame, true),
            State::Open if pn >= channel.since => {
                if channel.kind == ChannelKind::Datagrams {
                    self.datagram_frame(now, conn, slot, frame, sink)
                } else {
                    self.stream_frame(now, conn, slot, frame, sink)
                }
            }
            State::Offered if pn >= channel.since => {
                if channel.kind == ChannelKind::Datagrams {
                    self.hold_datagram(pn, frame);
                    Ok(())
                } else {
                    self.stream_frame(now, conn, slot, frame, sink)
                }
            }
            State::Requested => {
                let limit = 2 * u64::from(channel.recv.window) + self.config.early_data;
                if !self.early.hold_known(frame.channel, pn, (limit, u64::MAX), frame) {
                    self.stats.stale_frames += 1;
                }
                Ok(())
            }
            State::Closing
                if channel.has(flag::OURS)
                    && !channel.has(flag::UNANSWERED)
                    && pn >= channel.since =>
            {
                // Only the end of what the peer sends is of interest. What we declined ends with a
                // RESET.
                let eof = match channel.kind {
                    ChannelKind::Datagrams => frame.datagram().is_eof(),
                    _ => true,
                };
                if frame.body.is_empty() && eof {
                    channel.set(flag::RECV_DONE);
                    self.end(conn, slot, sink);
                }
                Ok(())
            }
            _ => {
                self.stats.stale_frames += 1;
                Ok(())
            }
        }
    }

    /// A frame of an id that is not in use, or whose life may be over for its opener: either it
    /// overtook its request, or it belongs to the former life.
    #[cold]
    fn unknown_frame(
        &mut self,
        now: Instant,
        pn: u64,
        frame: &RawFrame<'_>,
        former: bool,
    ) -> Result<(), PeerMisbehaved> {
        let id = frame.channel;
        if self.table.is_own(id) {
            self.stats.stale_frames += 1;
            return Ok(());
        }
        let budget = self.config.early_data;
        let add = |held: &mut _| Early::add_frame(held, pn, frame);
        self.early
            .hold_unknown(now, id, pn, budget, former, add)
            .map_err(|_| PeerMisbehaved::Credit("early data before its request"))
    }

    /// A datagram of a channel that the application has not answered yet.
    pub(super) fn hold_datagram(&mut self, pn: u64, frame: &RawFrame<'_>) {
        let eof = frame.datagram().is_eof();
        let limits = if eof {
            (u64::MAX / 2, u64::MAX)
        } else {
            (self.config.early_data, self.config.early_data + self.config.datagram_reassembly)
        };
        let held = self.early.known(frame.channel);
        if eof && core::mem::replace(&mut held.has_eof, true) {
            return;
        }
        let overflow = held.overflow;
        if !self.early.hold_known(frame.channel, pn, limits, frame) {
            self.stats.datagrams_not_delivered += 1;
            self.early.known(frame.channel).overflow = overflow;
        }
    }

    /// A frame of a reliable channel that is open or offered.
    #[inline]
    pub(super) fn stream_frame<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        slot: u32,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let (offset, body) = (frame.offset(), frame.body);
        let end = offset + body.len() as u64;
        let channel = self.table.at(slot);
        if channel.has(flag::RECV_DONE) {
            return Ok(());
        }
        if end > channel.recv.end {
            return Err(PeerMisbehaved::FinalSize);
        }
        if end > channel.recv.limit {
            self.beyond_limit(slot, end)?;
        }
        if body.is_empty() {
            return self.stream_end(now, conn, slot, end, sink);
        }
        let Self { table, pool, config, budget, .. } = self;
        let channel = table.at(slot);
        if channel.has(flag::STOP) {
            channel.recv.highest = channel.recv.highest.max(end);
            return Ok(());
        }
        let mut cx = RecvContext {
            kind: channel.kind,
            max_message: config.max_message as u64,
            manual: config.manual_credit && !self.discarding,
            hold: channel.state != State::Open || channel.has(flag::READY_PENDING),
            pool,
            released: 0,
        };
        let key = ChannelKey { slot, life: channel.life };
        let mut out = ToSink { conn, key, sink, messages: 0 };
        channel.recv.receive(offset, body, &mut cx, &mut out)?;
        let released = cx.released;
        self.stats.messages_received += out.messages;
        if channel.recv.buf.is_none() && channel.recv.end == NO_END && released == 0 {
            // Nearly always: all delivered, only credit may be due.
            self.renew(now, slot);
            return Ok(());
        }
        budget.release(released);
        self.after_delivery(now, conn, slot, sink)?;
        if released > 0 {
            self.serve_waiters(now);
        }
        Ok(())
    }

    /// The peer sent beyond the limit of a channel: allowed on early-data credit before it knew the
    /// limit, so never on a channel that we asked for.
    #[cold]
    fn beyond_limit(&mut self, slot: u32, end: u64) -> Result<(), PeerMisbehaved> {
        let channel = self.table.at(slot);
        if channel.has(flag::OURS) || end > MAX_STREAM_OFFSET {
            return Err(PeerMisbehaved::Credit("a channel"));
        }
        let limit = channel.recv.limit;
        let before = channel.recv.highest.saturating_sub(limit);
        self.early_excess += (end - limit).saturating_sub(before);
        channel.recv.highest = channel.recv.highest.max(end);
        if self.early_excess > self.config.early_data {
            return Err(PeerMisbehaved::Credit("early data"));
        }
        Ok(())
    }

    /// The EOF of a stream.
    fn stream_end<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        slot: u32,
        end: u64,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let channel = self.table.at(slot);
        channel.recv.set_end(end)?;
        if channel.has(flag::STOP) {
            self.receive_done(slot);
            self.end(conn, slot, sink);
            return Ok(());
        }
        self.after_delivery(now, conn, slot, sink)
    }

    /// Settles what follows from delivered bytes: the end of the stream, a message that needs
    /// reassembly budget, new credit.
    pub(super) fn after_delivery<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        slot: u32,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let channel = self.table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        if channel.state != State::Open || channel.has(flag::READY_PENDING) {
            return Ok(());
        }
        if channel.recv.is_complete() {
            self.receive_done(slot);
            sink.eof(conn, key);
            if self.framing.is_plain() {
                self.plain_peer_ended(slot);
            }
            self.end(conn, slot, sink);
            return Ok(());
        }
        channel.recv.check_end()?;
        self.renew(now, slot);
        let recv = &self.table.at(slot).recv;
        if recv.unconsumed > 0 && recv.is_short() {
            sink.credit_short(conn, key);
        }
        Ok(())
    }

    /// Raises the limit of a channel if it is time to.
    #[inline]
    pub(super) fn renew(&mut self, now: Instant, slot: u32) {
        if self.framing.is_plain() {
            return;
        }
        let Self { table, budget, config, .. } = self;
        let recv = &mut table.at(slot).recv;
        let over = recv.highest.saturating_sub(recv.limit);
        if budget.renew(recv, now, self.rtt, config.channel_window_max) {
            self.early_excess -= over - recv.highest.saturating_sub(recv.limit);
            self.announce_credit(slot);
        }
        if self.table.at(slot).recv.lacks_credit() {
            self.credit_message(slot);
        }
    }

    /// The credit of a channel does not reach to the end of the message that it is receiving:
    /// raises it if the window allows, or else reserves reassembly budget for the whole message.
    #[cold]
    fn credit_message(&mut self, slot: u32) {
        let Self { table, budget, .. } = self;
        let channel = table.at(slot);
        let Some(need) = channel.recv.message_len() else { return };
        if channel.has(flag::WAIT_RESERVE) {
            return;
        }
        let over = channel.recv.highest.saturating_sub(channel.recv.limit);
        if budget.extend(&mut channel.recv, need) {
            // It fits into the window after all.
        } else if budget.reserve(need) {
            channel.recv.reserved = need as u32;
            budget.advance(&mut channel.recv);
        } else {
            channel.set(flag::WAIT_RESERVE);
            budget.wait(ChannelKey { slot, life: channel.life });
            return;
        }
        let recv = &channel.recv;
        self.early_excess -= over - recv.highest.saturating_sub(recv.limit);
        self.announce_credit(slot);
    }

    fn announce_credit(&mut self, slot: u32) {
        self.table.at(slot).set(flag::CREDIT_PENDING);
        self.activate_transport(slot);
    }

    /// Reassembly budget became free: those that wait for it get it in turn.
    pub(super) fn serve_waiters(&mut self, now: Instant) {
        while let Some(key) = self.budget.first_waiter() {
            let Some(channel) = self.table.get(key) else {
                self.budget.pop_waiter();
                continue;
            };
            let need = channel.recv.message_len().unwrap_or(0);
            if channel.has(flag::RECV_DONE | flag::WAIT_RESERVE) || need == 0 {
                channel.clear(flag::WAIT_RESERVE);
                self.budget.pop_waiter();
                continue;
            }
            channel.clear(flag::WAIT_RESERVE);
            if channel.recv.lacks_credit() {
                if !self.budget.reserve_now(need) {
                    channel.set(flag::WAIT_RESERVE);
                    return;
                }
                channel.recv.reserved = need as u32;
            }
            self.budget.pop_waiter();
            self.renew(now, key.slot);
        }
    }

    /// The peer's direction is over: its buffer and its credit are free.
    pub(super) fn receive_done(&mut self, slot: u32) {
        self.drop_incoming(slot);
        self.table.at(slot).set(flag::RECV_DONE);
    }

    /// Drops what is buffered of the peer's direction and takes its credit back.
    pub(super) fn drop_incoming(&mut self, slot: u32) {
        if self.framing.is_plain() {
            self.holds(slot, ChannelHolding::NONE);
        }
        let Self { table, pool, budget, reassembly, .. } = self;
        let channel = table.at(slot);
        let recv = &mut channel.recv;
        self.early_excess =
            self.early_excess.saturating_sub(recv.highest.saturating_sub(recv.limit));
        recv.limit = recv.limit.max(recv.highest);
        recv.discard(pool);
        budget.close(recv);
        if channel.has(flag::POOL_MINIMUM) {
            channel.clear(flag::POOL_MINIMUM);
            budget.give_own_minimum();
        }
        channel.clear(flag::CREDIT_PENDING);
        if let Some(mut partials) = channel.datagram_recv.take() {
            partials.retain(|_| false, reassembly, pool);
            pool.give_datagram_recv(partials);
        }
    }

    /// A frame of an open `datagrams` channel.
    #[inline]
    pub(super) fn datagram_frame<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        slot: u32,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let header = frame.datagram();
        header.check(frame.body.len())?;
        let channel = self.table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        if channel.has(flag::READY_PENDING) {
            self.hold_datagram(u64::MAX, frame);
            return Ok(());
        }
        if channel.has(flag::RECV_DONE) {
            self.stats.datagrams_not_delivered += u64::from(!header.is_eof());
            return Ok(());
        }
        if header.is_eof() {
            let stopped = channel.has(flag::STOP);
            self.receive_done(slot);
            if !stopped {
                sink.eof(conn, key);
            }
            if self.framing.is_plain() {
                self.plain_peer_ended(slot);
            }
            self.end(conn, slot, sink);
            return Ok(());
        }
        let late = channel.has(flag::LATEST) && channel.recv.next != 0 && {
            let newest = channel.recv.next as u32;
            !is_newer(header.id, newest)
        };
        if late || channel.has(flag::STOP) {
            self.stats.datagrams_not_delivered += 1;
            return Ok(());
        }
        if header.count > 1 {
            return self.datagram_fragment(now, conn, slot, frame, sink);
        }
        self.deliver_datagram(conn, slot, header.id, frame.body, sink)
    }

    #[inline]
    fn deliver_datagram<S: Sink>(
        &mut self,
        conn: ConnHandle,
        slot: u32,
        id: u32,
        message: &[u8],
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let channel = self.table.at(slot);
        let len = message.len() as u64;
        if len > self.reassembly.max_message {
            return Err(PeerMisbehaved::Limit("datagram size"));
        }
        if channel.has(flag::LATEST) {
            channel.recv.next = 1 << 32 | u64::from(id);
        }
        if self.config.manual_credit && !self.discarding {
            // Nothing limits the peer, so what the application does not take is dropped.
            if channel.recv.unconsumed + len > self.config.datagram_reassembly {
                self.stats.datagrams_not_delivered += 1;
                return Ok(());
            }
            channel.recv.unconsumed += len;
        }
        self.stats.messages_received += 1;
        let key = ChannelKey { slot, life: channel.life };
        sink.message(conn, key, ChannelKind::Datagrams, message);
        Ok(())
    }

    fn datagram_fragment<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        slot: u32,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let header = frame.datagram();
        let Self { table, pool, reassembly, .. } = self;
        let channel = table.at(slot);
        let deadline = now + self.config.datagram_reassembly_timeout;
        let mut recv = channel.datagram_recv.take().unwrap_or_else(|| pool.datagram_recv());
        let result = recv.receive(header, frame.body, deadline, reassembly, pool);
        let message = match result {
            Ok(message) => message,
            Err(e) => {
                channel.datagram_recv = Some(recv);
                return Err(e);
            }
        };
        if message.is_some() && channel.has(flag::LATEST) {
            recv.retain(|id| is_newer(id, header.id), reassembly, pool);
        }
        if recv.is_empty() {
            pool.give_datagram_recv(recv);
        } else {
            channel.datagram_recv = Some(recv);
            if !channel.has(flag::REASSEMBLY_TIMER) {
                channel.set(flag::REASSEMBLY_TIMER);
                let key = ChannelKey { slot, life: channel.life };
                self.reassemblies.push_back((deadline, key));
            }
        }
        if let Some(message) = message {
            self.deliver_datagram(conn, slot, header.id, &message, sink)?;
            self.pool.give_block(message);
        }
        Ok(())
    }
}
