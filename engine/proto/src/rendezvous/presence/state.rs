//! The states of a presence session, declared as data and printed to `docs/states.md`.

/// What a session is to the client of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientState {
    /// PresenceRequest was published; no answer yet.
    WaitingForPresenceResponse,
    /// A valid PresenceResponse came, and the heartbeat has not expired since the last one.
    Ready,
    /// Over. Who asks on begins a new session.
    Ended,
}

/// What moves a client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTrigger {
    /// A valid PresenceResponse.
    Answered,
    /// A valid PresenceResponse that says that the host leaves.
    HostLeft,
    /// Nothing valid came for the heartbeat.
    HeartbeatExpired,
}

/// What a session is to the host of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostState {
    /// Announced; nobody has asked.
    WaitingForPresenceRequest,
    /// A valid PresenceRequest came and PresenceResponse is published; the host now also waits for
    /// a ConnectionRequest.
    Ready,
    /// Over.
    Ended,
}

/// What moves a host's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostTrigger {
    /// A valid PresenceRequest that is answered.
    Asked,
    /// Nothing valid came for the heartbeat.
    HeartbeatExpired,
    /// The application withdraws the announcement.
    Withdrawn,
}

impl ClientState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::WaitingForPresenceResponse, Self::Ready, Self::Ended];

    /// The transition table: the state after `trigger`, or `None` when the state stays.
    pub const fn on(self, trigger: ClientTrigger) -> Option<Self> {
        Some(match (self, trigger) {
            (Self::WaitingForPresenceResponse, ClientTrigger::Answered) => Self::Ready,
            (
                Self::WaitingForPresenceResponse | Self::Ready,
                ClientTrigger::HeartbeatExpired | ClientTrigger::HostLeft,
            ) => Self::Ended,
            _ => return None,
        })
    }

    /// The state after `trigger`.
    pub(super) fn after(self, trigger: ClientTrigger) -> Self {
        self.on(trigger).unwrap_or(self)
    }
}

impl ClientTrigger {
    /// All triggers.
    pub const ALL: [Self; 3] = [Self::Answered, Self::HostLeft, Self::HeartbeatExpired];
}

impl HostState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::WaitingForPresenceRequest, Self::Ready, Self::Ended];

    /// The transition table: the state after `trigger`, or `None` when the state stays.
    pub const fn on(self, trigger: HostTrigger) -> Option<Self> {
        Some(match (self, trigger) {
            (Self::WaitingForPresenceRequest, HostTrigger::Asked) => Self::Ready,
            (Self::Ready, HostTrigger::HeartbeatExpired)
            | (Self::WaitingForPresenceRequest | Self::Ready, HostTrigger::Withdrawn) => {
                Self::Ended
            }
            _ => return None,
        })
    }

    /// The state after `trigger`.
    pub(super) fn after(self, trigger: HostTrigger) -> Self {
        self.on(trigger).unwrap_or(self)
    }
}

impl HostTrigger {
    /// All triggers.
    pub const ALL: [Self; 3] = [Self::Asked, Self::HeartbeatExpired, Self::Withdrawn];
}
