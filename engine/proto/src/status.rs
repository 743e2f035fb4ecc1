//! Connection status (design, behaviours §3) with its transition table.

/// What a connection is to its user. Values are part of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Status {
    /// Unknown or already closed handle.
    None = 0,
    /// Handshake and acceptance under way.
    Connecting = 1,
    /// The peer agreed; a route is being looked for.
    FindingRoute = 2,
    /// Everything works.
    Connected = 3,
    /// The peer closed; what was received can still be read, and the handle must be closed.
    ClosedByPeer = 4,
    /// A problem was detected locally; as `ClosedByPeer`.
    ProblemDetectedLocally = 5,
    /// Gone for the application; late packets are answered with the close reason.
    FinWait = -1,
    /// Gone for the application; reliable data is still being delivered.
    Linger = -2,
    /// The slot can be reused.
    Dead = -3,
}

/// What moves a connection from one status to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The peer agreed, no end-to-end route is proven yet.
    PeerAgreed,
    /// Handshake, acceptance and route are complete.
    Established,
    /// A CLOSE of the peer arrived.
    PeerClosed,
    /// Timeout, bad crypto, protocol error, denied authentication.
    Problem,
    /// The application closed, and nothing is left to deliver or linger was not asked for.
    Close,
    /// The application closed with linger while reliable data is unacknowledged.
    CloseLinger,
    /// The last lingering byte is acknowledged, or the linger limit ran out.
    Flushed,
    /// The peer acknowledged our CLOSE, or fin-wait ran out.
    FinWaitOver,
}

impl Status {
    /// All values, in the order of the C header.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Connecting,
        Self::FindingRoute,
        Self::Connected,
        Self::ClosedByPeer,
        Self::ProblemDetectedLocally,
        Self::FinWait,
        Self::Linger,
        Self::Dead,
    ];

    /// The transition table: the status after `trigger`, or `None` when the trigger does nothing
    /// in this status.
    pub const fn on(self, trigger: Trigger) -> Option<Self> {
        Some(match (self, trigger) {
            (Self::Connecting, Trigger::PeerAgreed) => Self::FindingRoute,
            (Self::Connecting | Self::FindingRoute, Trigger::Established) => Self::Connected,
            (Self::Connecting | Self::FindingRoute | Self::Connected, Trigger::PeerClosed) => {
                Self::ClosedByPeer
            }
            (Self::Connecting | Self::FindingRoute | Self::Connected, Trigger::Problem) => {
                Self::ProblemDetectedLocally
            }
            (Self::Connected, Trigger::CloseLinger) => Self::Linger,
            // Closing before Connected discards the queue at once: linger makes no difference.
            (Self::Connecting | Self::FindingRoute, Trigger::Close | Trigger::CloseLinger)
            | (Self::Connected, Trigger::Close)
            | (Self::Linger, Trigger::Flushed) => Self::FinWait,
            // The peer knows (or cannot be told): the handle is freed. A peer that closes or
            // vanishes while we linger ends it: nothing more can be delivered.
            (
                Self::ClosedByPeer | Self::ProblemDetectedLocally,
                Trigger::Close | Trigger::CloseLinger,
            )
            | (Self::Linger, Trigger::PeerClosed | Trigger::Problem)
            | (Self::FinWait, Trigger::FinWaitOver | Trigger::PeerClosed | Trigger::Problem) => {
                Self::Dead
            }
            _ => return None,
        })
    }

    /// Whether the application may still use the handle.
    pub const fn is_open_to_application(self) -> bool {
        matches!(
            self,
            Self::Connecting
                | Self::FindingRoute
                | Self::Connected
                | Self::ClosedByPeer
                | Self::ProblemDetectedLocally
        )
    }
}

impl Trigger {
    /// All triggers.
    pub const ALL: [Self; 8] = [
        Self::PeerAgreed,
        Self::Established,
        Self::PeerClosed,
        Self::Problem,
        Self::Close,
        Self::CloseLinger,
        Self::Flushed,
        Self::FinWaitOver,
    ];
}
