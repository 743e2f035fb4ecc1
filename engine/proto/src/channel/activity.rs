//! When a channel may send: it enters a queue of the scheduler, waits for company, or for credit.

use super::mux::Mux;
use super::outgoing::EARLY_FRAME_COST;
use super::table::{State, flag};
use crate::config::ChannelKind;
use crate::time::{Duration, Instant};

impl Mux {
    /// Puts a channel into the queue of its class if it has something new that may be sent.
    pub(super) fn activate(&mut self, slot: u32) {
        let channel = self.table.at(slot);
        if channel.any(flag::IN_FRESH | flag::WAIT_ACK) {
            return;
        }
        let fin = channel.has(flag::FIN_PENDING);
        let sendable = match channel.state {
            State::Open if channel.kind == ChannelKind::Datagrams => {
                channel.datagram_send.is_some() || fin
            }
            State::Open => {
                let unsent = channel.unsent();
                if unsent > 0 { channel.next_offset() < channel.send_limit } else { fin }
            }
            State::Requested if !channel.has(flag::WAIT_ANSWER) => {
                channel.unsent() > 0 || channel.datagram_send.is_some() || fin
            }
            _ => false,
        };
        if !sendable {
            return;
        }
        if channel.state == State::Requested && self.peer.early_data <= self.early_used {
            if !channel.has(flag::IN_EARLY) {
                channel.set(flag::IN_EARLY);
                self.sched.early.push_back(slot);
            }
            return;
        }
        channel.set(flag::IN_FRESH);
        let class = channel.priority;
        self.sched.push_fresh(class, slot);
    }

    /// Puts a channel into the queue of transport frames if it has one to send.
    pub(super) fn activate_transport(&mut self, slot: u32) {
        let channel = self.table.at(slot);
        let pending = flag::CREDIT_PENDING | flag::RESET_PENDING | flag::STOP_PENDING;
        if channel.any(pending) && !channel.any(flag::IN_TRANSPORT | flag::WAIT_ACK) {
            channel.set(flag::IN_TRANSPORT);
            self.sched.transport.push_back(slot);
        }
    }

    /// New data was appended: sends it, or lets it wait a little for more.
    #[inline]
    pub(super) fn schedule(&mut self, now: Instant, slot: u32, added: u64) {
        let channel = self.table.at(slot);
        if channel.has(flag::IN_FRESH) {
            return;
        }
        let full = self.packet_payload as u64;
        if channel.has(flag::HELD) {
            self.sched.held_bytes += added;
            if self.sched.held_bytes >= full {
                self.release_held();
            }
            return;
        }
        // A stream has its own way of letting small writes find company: the last send.
        let in_flight = self.unacked > self.unsent && !self.framing.is_stream();
        let wait = self.config.coalesce;
        let small = channel.unsent() < full && !channel.has(flag::NO_DELAY);
        if in_flight && small && wait > Duration::ZERO {
            channel.set(flag::HELD);
            let bytes = channel.unsent();
            self.sched.held.push(slot);
            self.sched.held_bytes += bytes;
            if self.sched.held_bytes >= full {
                self.release_held();
            } else if self.sched.held_until.is_none() {
                self.sched.held_until = Some(now + wait);
            }
            return;
        }
        self.activate(slot);
    }

    /// Ends the waiting of small writes.
    pub(super) fn release_held(&mut self) {
        let mut held = core::mem::take(&mut self.sched.held);
        for slot in held.drain(..) {
            let channel = self.table.at(slot);
            if channel.has(flag::HELD) {
                channel.clear(flag::HELD);
                self.activate(slot);
            }
        }
        self.sched.held = held;
        self.sched.held_bytes = 0;
        self.sched.held_until = None;
    }

    /// Early-data credit became free: channels that wait for it go on, in turn, as far as it may
    /// reach.
    pub(super) fn wake_early(&mut self) {
        let mut free = self.peer.early_data.saturating_sub(self.early_used);
        while free > EARLY_FRAME_COST {
            let Some(slot) = self.sched.early.pop_front() else { return };
            let channel = self.table.at(slot);
            if !channel.has(flag::IN_EARLY) {
                continue;
            }
            channel.clear(flag::IN_EARLY);
            let queued = channel.datagram_send.as_ref().map_or(0, |queue| queue.bytes());
            free = free.saturating_sub(channel.unsent() + queued + EARLY_FRAME_COST);
            self.activate(slot);
        }
    }

    /// A channel is no longer unanswered: what it used of the early-data credit is free.
    pub(super) fn refund_early(&mut self, slot: u32) {
        let channel = self.table.at(slot);
        let used = u64::from(core::mem::take(&mut channel.early));
        channel.clear(flag::IN_EARLY);
        self.early_used = self.early_used.saturating_sub(used);
    }
}
