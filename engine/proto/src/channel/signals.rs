//! CREDIT, RESET and STOP of the peer, and what waited for an acceptance.

use super::incoming::{Discard, ToSink};
use super::mux::Mux;
use super::recv::RecvContext;
use super::table::{State, flag};
use crate::config::ChannelKind;
use crate::error::{PeerMisbehaved, Reason};
use crate::event::{ChannelEnd, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::{CONTROL_CHANNEL, MAX_STREAM_OFFSET};
use crate::time::Instant;

impl Mux {
    /// The peer raised the limit of a channel or of CONTROL in packet `pn`.
    pub fn on_credit(&mut self, pn: u64, id: u16, limit: u64) -> Result<(), PeerMisbehaved> {
        if id == CONTROL_CHANNEL {
            self.control.raise_limit(limit);
            return Ok(());
        }
        let Some(slot) = self.table.slot_of(id) else { return Ok(()) };
        let channel = self.table.at(slot);
        match channel.state {
            State::Requested => {
                let held = self.early.known(id);
                held.credit = held.credit.max(Some((pn, limit)));
            }
            State::Open | State::Offered if pn >= channel.since => {
                let limit = limit.min(MAX_STREAM_OFFSET);
                if limit > channel.send_limit {
                    let next = channel.next_offset();
                    let refund =
                        next.saturating_sub(channel.send_limit) - next.saturating_sub(limit);
                    channel.send_limit = limit;
                    self.early_used = self.early_used.saturating_sub(refund);
                    self.activate(slot);
                    if refund > 0 {
                        self.wake_early();
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The peer raised the early-data credit.
    pub fn on_early_credit(&mut self, limit: u64) {
        if limit > self.peer.early_data {
            self.peer.early_data = limit;
            self.wake_early();
        }
    }

    /// The peer cancelled what it sends on a channel, in packet `pn`.
    #[allow(clippy::too_many_arguments)]
    pub fn on_reset<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        pn: u64,
        id: u16,
        code: u32,
        final_offset: u64,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        if let Some(former) = self.may_be_early(id) {
            let budget = self.config.early_data;
            return self
                .early
                .hold_unknown(now, id, pn, budget, former, |held| {
                    held.reset = held.reset.max(Some((pn, code, final_offset)));
                })
                .map_err(|_| PeerMisbehaved::Credit("early data before its request"));
        }
        if self.discarding {
            return self.channel_reset(conn, pn, id, code, final_offset, &mut Discard::default());
        }
        self.channel_reset(conn, pn, id, code, final_offset, sink)
    }

    /// Whether a signal for an id of the peer may have overtaken the request; if so, whether the id
    /// had a life before.
    fn may_be_early(&mut self, id: u16) -> Option<bool> {
        if self.table.is_own(id) || self.framing.is_stream() {
            return None;
        }
        match self.table.slot_of(id) {
            None => Some(false),
            Some(slot) => self.table.at(slot).awaits_next_life().then_some(true),
        }
    }

    /// A RESET for an id that is in use.
    pub(super) fn channel_reset<S: Sink>(
        &mut self,
        conn: ConnHandle,
        pn: u64,
        id: u16,
        code: u32,
        final_offset: u64,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(slot) = self.table.slot_of(id) else { return Ok(()) };
        let channel = self.table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        match channel.state {
            State::Requested => {
                let held = self.early.known(id);
                held.reset = held.reset.max(Some((pn, code, final_offset)));
                return Ok(());
            }
            State::Open | State::Offered | State::Closing if pn >= channel.since => {}
            _ => return Ok(()),
        }
        if channel.has(flag::RECV_DONE) || channel.has(flag::UNANSWERED) {
            return Ok(());
        }
        if channel.kind != ChannelKind::Datagrams && channel.state != State::Closing {
            channel.recv.set_end(final_offset)?;
        }
        let told = channel.state == State::Open && !channel.any(flag::STOP | flag::READY_PENDING);
        channel.ended(code, true);
        self.receive_done(slot);
        if told {
            sink.reset(conn, key, code);
        }
        self.withdrawn(conn, slot, sink);
        self.end(conn, slot, sink);
        Ok(())
    }

    /// The peer refuses what we send on a channel, in packet `pn`.
    pub fn on_stop<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        pn: u64,
        id: u16,
        code: u32,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        if let Some(former) = self.may_be_early(id) {
            let budget = self.config.early_data;
            return self
                .early
                .hold_unknown(now, id, pn, budget, former, |held| {
                    held.stop = held.stop.max(Some((pn, code)));
                })
                .map_err(|_| PeerMisbehaved::Credit("early data before its request"));
        }
        if self.discarding {
            self.channel_stop(conn, pn, id, code, &mut Discard::default());
        } else {
            self.channel_stop(conn, pn, id, code, sink);
        }
        Ok(())
    }

    /// A STOP for an id that is in use.
    pub(super) fn channel_stop<S: Sink>(
        &mut self,
        conn: ConnHandle,
        pn: u64,
        id: u16,
        code: u32,
        sink: &mut S,
    ) {
        let Some(slot) = self.table.slot_of(id) else { return };
        let channel = self.table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        match channel.state {
            State::Requested => {
                let held = self.early.known(id);
                held.stop = held.stop.max(Some((pn, code)));
                return;
            }
            State::Open | State::Offered if pn >= channel.since => {}
            _ => return,
        }
        if channel.any(flag::RESET | flag::SEND_DONE) {
            return;
        }
        let told = channel.state == State::Open && !channel.has(flag::READY_PENDING);
        channel.ended(code, true);
        self.cancel_send(slot, code);
        if told {
            sink.stopped(conn, key, code);
        }
        self.withdrawn(conn, slot, sink);
    }

    /// An offered channel that the opener both reset and stopped is pointless: it is declined, and
    /// the application is told that it is gone.
    fn withdrawn<S: Sink>(&mut self, conn: ConnHandle, slot: u32, sink: &mut S) {
        let channel = self.table.at(slot);
        if channel.state != State::Offered || !channel.has(flag::RECV_DONE | flag::RESET) {
            return;
        }
        let key = ChannelKey { slot, life: channel.life };
        let end = ChannelEnd::Reset { code: channel.end_code, by_peer: true };
        self.decline_slot(slot, Reason::APP.0, "withdrawn");
        if !self.discarding {
            sink.channel_closed(conn, key, &end);
        }
    }

    /// Tells the sink about accepted channels, delivers what was held for them, and ends those that
    /// were refused when all had come. Called by [`Mux::on_timeout`], whose timer is due at once.
    pub fn deliver<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        while let Some(key) = self.pending.pop_front() {
            let Some(channel) = self.table.get(key) else { continue };
            if channel.state != State::Open || !channel.has(flag::READY_PENDING) {
                self.end(conn, key.slot, sink);
                continue;
            }
            channel.clear(flag::READY_PENDING);
            sink.channel_ready(conn, key);
            self.deliver_held(now, conn, key, sink)?;
        }
        Ok(())
    }

    fn deliver_held<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        key: ChannelKey,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let slot = key.slot;
        let Self { table, pool, config, budget, .. } = self;
        let channel = table.at(slot);
        let id = channel.id;
        let code = channel.end_code;
        if channel.has(flag::RESET | flag::ENDED_BY_PEER) {
            sink.stopped(conn, key, code);
        }
        if channel.has(flag::RECV_DONE) {
            // Reset before it was accepted, or refused since; a clean end would wait in `recv`.
            self.early.take(id, true);
            if !channel.has(flag::STOP) && !self.framing.is_plain() {
                sink.reset(conn, key, code);
            }
            self.end(conn, slot, sink);
            return Ok(());
        }
        if channel.kind == ChannelKind::Datagrams {
            let held = self.early.take(id, true);
            self.replay(now, conn, key, held, sink)?;
            if self.framing.is_plain() {
                self.plain_finish(key);
            }
            return Ok(());
        }
        let mut cx = RecvContext {
            kind: channel.kind,
            max_message: config.max_message as u64,
            manual: config.manual_credit && !self.discarding,
            hold: false,
            pool,
            released: 0,
        };
        let mut out = ToSink { conn, key, sink, messages: 0 };
        channel.recv.release(&mut cx, &mut out)?;
        budget.release(cx.released);
        self.stats.messages_received += out.messages;
        if self.framing.is_plain() {
            self.recount(slot);
        }
        self.after_delivery(now, conn, slot, sink)?;
        if self.framing.is_plain() {
            self.plain_finish(key);
        }
        Ok(())
    }
}
