//! Counters of loss recovery.

use crate::time::Duration;

/// Counters since the connection began, then gauges of the present path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Packets sent, ACK-only ones included.
    pub packets_sent: u64,
    /// Their UDP payload in bytes.
    pub bytes_sent: u64,
    /// Packets that the peer acknowledged.
    pub packets_acked: u64,
    /// Packets declared lost, packet-size probes not counted.
    pub packets_lost: u64,
    /// Their UDP payload in bytes: what had to be sent again is at most this.
    pub bytes_lost: u64,
    /// Packets declared lost that arrived after all.
    pub spurious_losses: u64,
    /// Congestion events by loss.
    pub loss_events: u64,
    /// Congestion events by ECN marks.
    pub ecn_events: u64,
    /// Congestion events undone because every loss was spurious.
    pub undone_events: u64,
    /// Times that persistent congestion was found.
    pub persistent_congestions: u64,
    /// Probe timeouts.
    pub ptos: u64,
    /// Packet-size probes sent.
    pub mtu_probes: u64,
    /// Times that the packet size fell back because large packets vanished.
    pub black_holes: u64,
    /// Congestion window in bytes.
    pub window: u64,
    /// Slow-start threshold in bytes; `u64::MAX`: none yet.
    pub ssthresh: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// UDP payload of full packets in bytes.
    pub packet_size: usize,
    /// Newest round-trip sample.
    pub rtt_latest: Duration,
    /// Smoothed round trip.
    pub rtt_smoothed: Duration,
    /// Smallest round trip.
    pub rtt_min: Duration,
    /// Mean deviation of the round trip.
    pub rtt_var: Duration,
}

/// The counters alone; everything else in [`RecoveryStats`] is known elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) packets_sent: u64,
    pub(super) bytes_sent: u64,
    pub(super) packets_acked: u64,
    pub(super) packets_lost: u64,
    pub(super) bytes_lost: u64,
    pub(super) spurious_losses: u64,
    pub(super) loss_events: u64,
    pub(super) ecn_events: u64,
    pub(super) undone_events: u64,
    pub(super) persistent_congestions: u64,
    pub(super) ptos: u64,
    pub(super) mtu_probes: u64,
    pub(super) black_holes: u64,
}
