//! What can be seen of [`Recovery`] from outside.

use super::congestion::Control;
use super::{EcnState, Recovery, RecoveryStats, Rtt};
use crate::time::Duration;

impl Recovery {
    /// The round-trip estimate of this path.
    pub const fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// The probe timeout without backoff, the peer's delay included.
    pub fn pto(&self) -> Duration {
        self.rtt.pto(self.max_ack_delay)
    }

    /// Probe timeouts in a row without an acknowledgement.
    pub const fn pto_count(&self) -> u32 {
        self.loss.pto_count
    }

    /// Bytes of UDP payload in flight on this path, packet-size probes not counted.
    pub const fn bytes_in_flight(&self) -> u64 {
        self.in_flight
    }

    /// No acknowledgement is awaited.
    pub const fn is_idle(&self) -> bool {
        self.awaited == 0
    }

    /// How long the peer may hold an acknowledgement back.
    pub const fn max_ack_delay(&self) -> Duration {
        self.max_ack_delay
    }

    /// Bytes a second that packets leave at, as far as they are paced.
    pub fn pacing_rate(&self) -> Option<u64> {
        self.controller.pacing_rate(&self.rtt)
    }

    /// The congestion window in bytes.
    pub fn window(&self) -> u64 {
        self.controller.window()
    }

    /// The slow-start threshold in bytes; `u64::MAX` before the first congestion event.
    pub fn ssthresh(&self) -> u64 {
        self.controller.ssthresh()
    }

    /// Newest packet that the peer has acknowledged.
    pub const fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// What is known about ECN on this path.
    pub const fn ecn_state(&self) -> EcnState {
        self.ecn.state()
    }

    /// Whether no packet-size search is under way.
    pub const fn mtu_settled(&self) -> bool {
        self.mtu.is_settled()
    }

    /// Bytes of heap in use.
    pub fn heap(&self) -> usize {
        self.sent.heap()
    }

    /// Counters since the connection began, and the present state.
    pub fn stats(&self) -> RecoveryStats {
        let c = &self.counters;
        RecoveryStats {
            packets_sent: c.packets_sent,
            bytes_sent: c.bytes_sent,
            packets_acked: c.packets_acked,
            packets_lost: c.packets_lost,
            bytes_lost: c.bytes_lost,
            spurious_losses: c.spurious_losses,
            loss_events: c.loss_events,
            ecn_events: c.ecn_events,
            undone_events: c.undone_events,
            persistent_congestions: c.persistent_congestions,
            ptos: c.ptos,
            mtu_probes: c.mtu_probes,
            black_holes: c.black_holes,
            window: self.controller.window(),
            ssthresh: self.controller.ssthresh(),
            in_flight: self.in_flight,
            packet_size: self.mtu.size(),
            rtt_latest: self.rtt.latest(),
            rtt_smoothed: self.rtt.smoothed(),
            rtt_min: self.rtt.min(),
            rtt_var: self.rtt.var(),
        }
    }
}
