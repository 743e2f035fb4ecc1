//! What must hold at every moment, and sizes.

use crate::channel::Mux;
use crate::channel::table::{Channel, State, flag};
use crate::config::ChannelKind;
use crate::ids::ChannelKey;
use crate::limits::MIN_CHANNEL_WINDOW;

impl Mux {
    /// Recounts everything that is kept as a sum, and checks the bounds.
    pub(super) fn check(&self) {
        let (mut unacked, mut unsent, mut ends, mut own, mut peers) = (0, 0, 0, 0, 0);
        let (mut charged, mut granted, mut reserved) = (0, 0, 0);
        let (mut early_used, mut early_excess, mut partials) = (0, 0, 0);
        for (_, ch) in self.table.iter() {
            unacked += ch.unacked();
            unsent += ch.unsent();
            ends += u32::from(ch.any(flag::FIN | flag::RESET) && !ch.has(flag::SEND_DONE));
            own += u32::from(ch.has(flag::OURS));
            peers += u32::from(ch.has(flag::COUNTED));
            charged += ch.recv.charged;
            reserved += u64::from(ch.recv.reserved) + ch.recv.debt;
            if ch.has(flag::POOL_MINIMUM) {
                charged += MIN_CHANNEL_WINDOW;
            }
            early_used += u64::from(ch.early);
            if ch.kind == ChannelKind::Datagrams {
                partials += u64::from(ch.datagram_recv.is_some());
                continue;
            }
            if ch.state == State::Open {
                early_used += ch.next_offset().saturating_sub(ch.send_limit);
            }
            early_excess += ch.recv.highest.saturating_sub(ch.recv.limit);
            if !ch.any(flag::RECV_DONE | flag::STOP) {
                granted += ch.recv.limit.saturating_sub(ch.recv.freed());
            }
            assert!(ch.next_offset() <= ch.send_limit.max(self.peer.early_data));
            let fits = ch.recv.highest <= ch.recv.limit + self.config.early_data;
            assert!(fits, "more received than granted");
        }
        assert_eq!((self.unacked, self.unsent), (unacked, unsent), "queued bytes");
        assert_eq!(self.unacked_ends, ends, "ends");
        assert_eq!((self.own_count, self.peer_count), (own, peers), "channels");
        assert_eq!(self.budget.used(), charged, "budget");
        assert_eq!(self.budget.reassembling(), reserved, "reassembly");
        assert_eq!(self.early_used, early_used, "early data sent");
        assert_eq!(self.early_excess, early_excess, "early data received");
        assert!(granted <= self.config.receive_budget, "{granted} granted");
        assert!(reserved <= self.config.reassembly_budget + 8);
        assert!(self.early_excess <= self.config.early_data);
        assert!(self.early_used <= self.peer.early_data);
        assert!(self.early.held_bytes() <= 4 * self.config.early_data + (256 << 10));
        assert!(self.reassembly.used <= self.config.datagram_reassembly);
        if partials == 0 {
            assert_eq!(self.reassembly.used, 0, "datagram reassembly");
        }
    }
}

impl Mux {
    /// The next channel takes the lowest free id.
    pub(super) fn rewind_ids(&mut self) {
        self.table.rewind_ids();
    }

    /// Bytes of CONTROL received in order.
    pub(super) fn control_received(&self) -> u64 {
        self.control.received()
    }

    /// Credit that a channel is meant to have.
    pub(super) fn window(&self, key: ChannelKey) -> u32 {
        self.table.peek(key).unwrap().recv.window
    }
}

/// An idle channel has no buffers: its slot, its share of the tables and nothing else.
#[test]
fn idle_channel_is_small() {
    let slot = size_of::<Channel>() + size_of::<usize>() / 8;
    // At worst a table of ids is filled to 7/16.
    let id = (size_of::<(u16, u32)>() + 1) * 16 / 7;
    assert!(slot + id <= 256, "{slot} + {id}");
}

#[test]
fn empty_mux_is_small() {
    assert!(size_of::<Mux>() <= 2200, "{}", size_of::<Mux>());
}
