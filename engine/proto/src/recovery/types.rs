//! What goes in and out of [`Recovery`].

use super::Ecn;
#[cfg(doc)]
use super::Recovery;
use crate::time::Instant;

/// What happened to a record's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrived. May follow `Lost` when a packet was late, not lost.
    Acked,
    /// It is taken for lost: what is still relevant must be sent again.
    Lost,
    /// A probe timeout: the contents may be lost. What is relevant should go into the probes,
    /// and the packet stays in flight.
    Probe,
}

/// The acknowledgement that the frames of a packet ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asks {
    /// None: it holds acknowledgements and the like, and does not count as in flight.
    #[default]
    Nothing,
    /// One that may be late: it holds nothing that would be repeated, only unreliable messages.
    Later,
    /// One within the peer's `max_ack_delay`.
    Soon,
}

/// Properties of a finished packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketFlags {
    /// What its frames ask for.
    pub asks: Asks,
    /// Is the packet-size probe that [`Recovery::mtu_probe`] asked for.
    pub probe_mtu: bool,
    /// The mark it leaves with: what [`Recovery::ecn`] gave for its train, or none.
    pub ecn: Ecn,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// One burst of at most this many bytes of UDP payload: a multiple of
    /// [`Recovery::packet_size`], at least once.
    Bytes(u64),
    /// Pacing: ask again at this time.
    Pacing(Instant),
    /// The window is full: ask again after an acknowledgement or timeout.
    Window,
}

/// What an ACK frame did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckSummary {
    /// Packets acknowledged for the first time.
    pub newly_acked_packets: u64,
    /// Their UDP payload in bytes.
    pub newly_acked_bytes: u64,
    /// The newest of them.
    pub largest_newly_acked: Option<u64>,
    /// The newest packet ever acknowledged, this frame included.
    pub largest_acked: Option<u64>,
    /// Packets that this frame proved lost.
    pub lost_packets: u32,
    /// Packets declared lost before that arrived after all.
    pub spurious: u32,
    /// A congestion event was undone because all its losses were spurious.
    pub undone: bool,
    /// The packet size changed to this.
    pub mtu_changed: Option<usize>,
}

/// What a timeout did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutOutcome {
    /// Packets now taken for lost.
    pub lost_packets: u32,
    /// A probe timeout expired: [`Recovery::probes_owed`] tells what to send.
    pub pto: bool,
    /// The packet size changed to this.
    pub mtu_changed: Option<usize>,
}
