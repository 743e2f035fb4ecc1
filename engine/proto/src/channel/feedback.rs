//! What became of sent records, and the end of channels.

use super::mux::Mux;
use super::outgoing::CONTROL_KEY;
use super::recv::NO_END;
use super::table::{State, flag};
use crate::config::ChannelKind;
use crate::event::{ChannelEnd, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::UNSENT_SHARE;
use crate::time::Instant;
use crate::wire::record::FrameRecord;

/// Ignores everything, for channels that the application no longer knows.
struct Nobody;

impl Sink for Nobody {}

impl Mux {
    /// A packet with this record was acknowledged.
    #[inline]
    pub fn on_acked<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        record: &FrameRecord,
        sink: &mut S,
    ) {
        if self.discarding {
            self.acked(now, conn, record, &mut Nobody);
        } else {
            self.acked(now, conn, record, sink);
        }
    }

    #[inline]
    fn acked<S: Sink>(
        &mut self,
        _now: Instant,
        conn: ConnHandle,
        record: &FrameRecord,
        sink: &mut S,
    ) {
        match *record {
            FrameRecord::Stream { channel: CONTROL_KEY, offset, len, .. } => {
                self.control_acked(offset, len.into());
            }
            FrameRecord::Stream { channel, offset, len, eof } => {
                self.stream_acked(conn, channel, offset, len.into(), eof, sink);
            }
            FrameRecord::DatagramEof { channel } => {
                if let Some(ch) = self.table.get(channel)
                    && !ch.has(flag::RESET)
                {
                    ch.set(flag::FIN_ACKED);
                    self.send_done(conn, channel.slot, sink);
                }
            }
            FrameRecord::Reset { channel } if self.table.get(channel).is_some() => {
                self.send_done(conn, channel.slot, sink);
            }
            _ => {}
        }
    }

    #[inline]
    fn stream_acked<S: Sink>(
        &mut self,
        conn: ConnHandle,
        key: ChannelKey,
        offset: u64,
        len: u64,
        eof: bool,
        sink: &mut S,
    ) {
        let Self { table, pool, .. } = self;
        let Some(channel) = table.get(key) else { return };
        if eof {
            channel.set(flag::FIN_ACKED);
        }
        let mut moved = 0;
        if let Some(send) = &mut channel.send {
            moved = send.on_acked(offset, len, pool);
        }
        if moved > 0 {
            self.unacked -= moved;
            self.stats.acked_bytes += moved;
            self.front_moved(conn, key, sink);
        }
        let channel = self.table.at(key.slot);
        if channel.life == key.life
            && channel.has(flag::FIN_ACKED)
            && !channel.has(flag::RESET)
            && channel.send.is_none()
        {
            self.send_done(conn, key.slot, sink);
        }
        if self.unacked == self.unsent && !self.sched.held.is_empty() {
            self.release_held();
        }
    }

    /// The first unacknowledged byte of a channel moved: receipts, room for more, a queue that is
    /// no longer needed.
    #[inline]
    pub(super) fn front_moved<S: Sink>(&mut self, conn: ConnHandle, key: ChannelKey, sink: &mut S) {
        let channel = self.table.at(key.slot);
        let known = channel.is_known();
        if let Some(send) = &mut channel.send {
            while let Some(token) = send.take_receipt() {
                if known {
                    sink.receipt(conn, key, token);
                }
            }
            if send.unacked() == 0 {
                channel.send_at = send.end();
                if let Some(send) = channel.send.take() {
                    self.pool.give_send_buf(send);
                }
            }
        }
        let blocked = self.table.at(key.slot).has(flag::BLOCKED);
        if blocked && self.may_go_on(key.slot) || self.all_blocked && self.has_room() {
            self.unblock(conn, sink);
        }
    }

    /// Whether half of what all channels share is free again.
    fn has_room(&self) -> bool {
        let (unacked, unsent) = (self.config.send_buffer / 2, self.config.unsent_limit / 2);
        self.unacked <= unacked && self.unsent <= unsent
    }

    /// Bytes unacknowledged and unsent with which a channel that gave `WouldBlock` may go on: half
    /// of its own buffer and, while what all share is full, half of an even share of that.
    fn resume_at(&self) -> (u64, u64) {
        let half = self.config.channel_send_buffer / 2;
        if self.has_room() {
            return (half, u64::MAX);
        }
        let channels = u64::from(self.table.count().max(1));
        let unsent = (self.config.unsent_limit / channels).max(UNSENT_SHARE) / 2;
        (half.min(self.config.send_buffer / channels / 2), unsent)
    }

    fn may_go_on(&mut self, slot: u32) -> bool {
        let (unacked, unsent) = self.resume_at();
        let channel = self.table.at(slot);
        channel.unacked() <= unacked && channel.unsent() <= unsent
    }

    /// Something of a channel was sent for the first time that gave `WouldBlock`: if it may go on,
    /// the next call with a sink tells it.
    #[inline]
    pub(super) fn note_sent(&mut self, slot: u32) {
        if !self.room_made && self.table.at(slot).has(flag::BLOCKED) {
            self.room_made = self.may_go_on(slot);
        }
    }

    /// Tells channels that gave `WouldBlock` and may go on that there is room again.
    pub(super) fn unblock<S: Sink>(&mut self, conn: ConnHandle, sink: &mut S) {
        self.all_blocked &= !self.has_room();
        let (unacked, unsent) = self.resume_at();
        let table = &mut self.table;
        self.blocked.retain(|key| {
            let Some(channel) = table.get(*key) else { return false };
            if !channel.has(flag::BLOCKED) {
                return false;
            }
            if channel.unacked() > unacked || channel.unsent() > unsent {
                return true;
            }
            channel.clear(flag::BLOCKED);
            if channel.is_known() {
                sink.writable(conn, *key);
            }
            false
        });
    }

    /// A packet with this record was lost, or a copy of its content is to be sent as a probe.
    pub fn on_lost(&mut self, record: &FrameRecord) {
        match *record {
            FrameRecord::Stream { channel: CONTROL_KEY, offset, len, .. } => {
                self.control.send.on_lost(offset, len.into());
            }
            FrameRecord::Stream { channel, offset, len, eof } => {
                self.stream_lost(channel, offset, len.into(), eof);
            }
            FrameRecord::DatagramEof { channel } => self.stream_lost(channel, 0, 0, true),
            FrameRecord::Credit { channel: CONTROL_KEY } => self.control.credit_pending = true,
            FrameRecord::Credit { channel } => {
                if let Some(ch) = self.table.get(channel)
                    && !ch.any(flag::RECV_DONE | flag::STOP)
                    && ch.recv.end == NO_END
                {
                    ch.set(flag::CREDIT_PENDING);
                    self.activate_transport(channel.slot);
                }
            }
            FrameRecord::Reset { channel } => {
                if let Some(ch) = self.table.get(channel) {
                    ch.set(flag::DIRTY);
                    if !ch.has(flag::SEND_DONE) {
                        ch.set(flag::RESET_PENDING);
                        self.activate_transport(channel.slot);
                    }
                }
            }
            FrameRecord::Stop { channel } => {
                if let Some(ch) = self.table.get(channel) {
                    ch.set(flag::DIRTY);
                    if !ch.has(flag::RECV_DONE) {
                        ch.set(flag::STOP_PENDING);
                        self.activate_transport(channel.slot);
                    }
                }
            }
            _ => {}
        }
    }

    fn stream_lost(&mut self, key: ChannelKey, offset: u64, len: u64, eof: bool) {
        let Some(channel) = self.table.get(key) else { return };
        channel.set(flag::DIRTY);
        if channel.has(flag::RESET) {
            return;
        }
        let mut again = false;
        if let Some(send) = &mut channel.send {
            again = send.on_lost(offset, len) > 0;
        }
        if eof && !channel.has(flag::FIN_ACKED) {
            channel.set(flag::FIN_PENDING);
            again = true;
        }
        if again && !channel.has(flag::IN_LOST) {
            channel.set(flag::IN_LOST);
            let class = channel.priority;
            self.sched.push_lost(class, key.slot);
        }
    }

    /// Our direction is over and the peer knows.
    pub(super) fn send_done<S: Sink>(&mut self, conn: ConnHandle, slot: u32, sink: &mut S) {
        let channel = self.table.at(slot);
        if channel.has(flag::SEND_DONE) {
            return;
        }
        channel.set(flag::SEND_DONE);
        let given_up = channel.state == State::Closing && channel.early > 0;
        self.unacked_ends -= 1;
        if given_up {
            self.refund_early(slot);
            self.wake_early();
        }
        self.end(conn, slot, sink);
    }

    /// Frees a channel both of whose directions are over, and tells the application.
    pub(super) fn end<S: Sink>(&mut self, conn: ConnHandle, slot: u32, sink: &mut S) {
        let channel = self.table.at(slot);
        if channel.state == State::Free || !channel.has(flag::RECV_DONE) {
            return;
        }
        if !channel.has(flag::SEND_DONE) {
            if channel.has(flag::END_SENT) {
                // The opener may already see it as free.
                self.uncount(slot);
            }
            return;
        }
        if channel.any(flag::UNANSWERED | flag::READY_PENDING) {
            // The answer, or the news that it is ready, comes first.
            return;
        }
        let key = ChannelKey { slot, life: channel.life };
        let known = channel.is_known();
        let end = if channel.has(flag::ENDED) {
            let by_peer = channel.has(flag::ENDED_BY_PEER);
            ChannelEnd::Reset { code: channel.end_code, by_peer }
        } else {
            ChannelEnd::Finished
        };
        self.free(slot);
        if known && !self.discarding {
            sink.channel_closed(conn, key, &end);
        }
    }

    /// The channel no longer counts against the peer's limit.
    pub(super) fn uncount(&mut self, slot: u32) {
        let channel = self.table.at(slot);
        if channel.has(flag::COUNTED) {
            channel.clear(flag::COUNTED);
            self.peer_count -= 1;
        }
    }

    /// Cancels our direction: what is queued or unacknowledged is dropped, a RESET will go out.
    pub(super) fn cancel_send(&mut self, slot: u32, code: u32) {
        self.drop_outgoing(slot);
        let channel = self.table.at(slot);
        if channel.any(flag::RESET | flag::SEND_DONE) {
            return;
        }
        if !channel.has(flag::FIN) {
            self.unacked_ends += 1;
        }
        channel.reset_code = code;
        channel.set(flag::RESET | flag::RESET_PENDING);
        channel.clear(flag::FIN_PENDING | flag::HELD | flag::BLOCKED);
        self.activate_transport(slot);
        self.wake_early();
    }

    /// Refuses the peer's direction.
    pub(super) fn refuse(&mut self, slot: u32, code: u32) {
        self.drop_incoming(slot);
        let channel = self.table.at(slot);
        channel.stop_code = code;
        channel.set(flag::STOP | flag::STOP_PENDING);
        self.activate_transport(slot);
    }

    /// Drops what is queued in our direction.
    pub(super) fn drop_outgoing(&mut self, slot: u32) {
        let Self { table, pool, .. } = self;
        let channel = table.at(slot);
        if let Some(send) = channel.send.take() {
            self.unacked -= send.unacked();
            self.unsent -= send.unsent();
            self.room_made |= self.all_blocked;
            channel.send_at = send.next();
            pool.give_send_buf(send);
        }
        if let Some(queue) = channel.datagram_send.take() {
            if channel.kind == ChannelKind::Datagrams && !queue.is_empty() {
                self.stats.datagrams_dropped += queue.len();
            }
            pool.give_datagram_send(queue);
        }
    }

    /// Forgets a channel altogether.
    pub(super) fn free(&mut self, slot: u32) {
        self.drop_outgoing(slot);
        self.drop_incoming(slot);
        self.refund_early(slot);
        self.uncount(slot);
        let channel = self.table.at(slot);
        if channel.state == State::Open && channel.kind != ChannelKind::Datagrams {
            // Bytes beyond the limit were early data.
            let over = channel.send_at.saturating_sub(channel.send_limit);
            self.early_used = self.early_used.saturating_sub(over);
        }
        if channel.any(flag::FIN | flag::RESET) && !channel.has(flag::SEND_DONE) {
            self.unacked_ends -= 1;
        }
        let (id, dirty, ours) = (channel.id, channel.has(flag::DIRTY), channel.has(flag::OURS));
        if matches!(channel.state, State::Requested | State::Offered) {
            self.early.take(id, true);
        }
        if ours {
            self.own_count -= 1;
        }
        self.early.end_of_life(id, !ours, dirty);
        self.table.remove(slot);
        if !self.sched.early.is_empty() {
            self.wake_early();
        }
    }
}
