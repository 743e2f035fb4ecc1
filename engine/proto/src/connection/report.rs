//! What a connection tells of itself.

use super::Connection;
use crate::endpoint::{ConnInfo, ConnStats, Losses};
use crate::error::{CloseReason, Reason};
use crate::event::CloseReport;
use crate::ids::Link;

impl Connection {
    /// The final event's content.
    pub(crate) fn report(&self) -> CloseReport {
        let delivery = self.mux.report();
        CloseReport {
            acknowledged_bytes: delivery.acknowledged_bytes,
            undelivered_bytes: delivery.undelivered_bytes,
            undelivered_channels: delivery.undelivered_channels,
            reason: self
                .closing
                .as_ref()
                .map_or_else(|| CloseReason::new(Reason::MISC, ""), |c| c.reason.clone()),
            peer_knows: self.closing.as_ref().is_some_and(|c| c.acknowledged),
            peer_discarded: self.closing.as_ref().is_some_and(|c| c.peer_discarded),
        }
    }

    /// What carries it.
    pub(crate) fn link(&self) -> Link {
        if self.is_stream() { Link::Stream } else { Link::Datagram }
    }

    pub(crate) fn info(&self) -> ConnInfo {
        ConnInfo {
            role: self.role,
            status: self.status,
            handshake: self.handshake_state(),
            remote: self.path.remote,
            local: self.path.local,
            peer: self.peer.as_ref().and_then(|p| p.id),
            reason: self.closing.as_ref().map(|c| c.reason.clone()),
            peer_discarded: self.closing.as_ref().is_some_and(|c| c.peer_discarded),
            suite: self.peer.as_ref().map(|p| p.suite),
            resumed: self.peer.as_ref().is_some_and(|p| p.resumed),
            link: self.link(),
            plain: self.is_plain(),
            relayed: self.is_relayed(),
        }
    }

    /// What was lost and sent again, over whatever carried it.
    pub(crate) fn losses(&self) -> Losses {
        let mux = self.mux.stats();
        Losses {
            packets_lost: self.recovery.stats().packets_lost,
            retransmits: self.counters.retransmits,
            datagrams_dropped: mux.datagrams_dropped + mux.datagrams_expired,
        }
    }

    pub(crate) fn stats(&self) -> ConnStats {
        let r = self.recovery.stats();
        let mux = self.mux.stats();
        if let Some(stats) = self.stream_stats() {
            return stats;
        }
        ConnStats {
            packets_sent: r.packets_sent,
            packets_received: self.counters.packets_received,
            packets_lost: r.packets_lost,
            retransmits: self.counters.retransmits,
            bytes_sent: r.bytes_sent,
            bytes_received: self.counters.bytes_received,
            rtt: self.recovery.rtt().smoothed(),
            rtt_min: self.recovery.rtt().min(),
            rtt_var: self.recovery.rtt().var(),
            pacing_rate: self.recovery.pacing_rate().unwrap_or(0),
            window: self.recovery.window(),
            in_flight: self.recovery.bytes_in_flight(),
            packet_size: self.recovery.packet_size() as u64,
            unacked_bytes: self.mux.unacked_reliable_bytes(),
            unsent_bytes: self.mux.unsent_reliable_bytes(),
            channels: self.mux.count(),
            packets_rejected: self.counters.packets_rejected,
            datagrams_dropped: mux.datagrams_dropped + mux.datagrams_expired,
            spurious_losses: r.spurious_losses,
        }
    }
}
