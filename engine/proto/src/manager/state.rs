//! The state machine of an association (behaviours §5).

/// What an association is to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AssociationState {
    /// It listens for a connection or tries to make one; messages queue.
    AwaitingConnection,
    /// Messages go out at once, received ones straight up.
    Connected,
    /// Nothing has moved for the hold time; the peer knows. Traffic wakes it.
    Idle,
    /// The application closed it; what it was given before is being delivered.
    Closing,
    /// Over; its id is stale and it can never be used again.
    Destroyed,
}

/// What moves an association from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssociationTrigger {
    /// A connection stands and the peer has taken the association's channel.
    Connected,
    /// The connection or the channel could not be made (er_Conn_Err).
    ConnectionError,
    /// Listening: no connection came in time (to_No_Conn).
    NoConnection,
    /// No channel is open and nothing has moved for the hold time.
    Inactive,
    /// Something moves again.
    Traffic,
    /// Both sides are idle, and the connection is closed.
    BothIdle,
    /// The connection broke, or the peer ended the association's channel.
    Broken,
    /// The application closes it while something is still to be delivered.
    Close,
    /// The last message was acknowledged after the close, or nothing was left at the close.
    Drained,
}

impl AssociationState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::AwaitingConnection, Self::Connected, Self::Idle, Self::Closing, Self::Destroyed];

    /// The transition table: the state after `trigger`, or `None` when the trigger does nothing in
    /// this state.
    pub const fn on(self, trigger: AssociationTrigger) -> Option<Self> {
        use AssociationTrigger as T;
        Some(match (self, trigger) {
            (Self::AwaitingConnection, T::Connected) | (Self::Idle, T::Traffic) => Self::Connected,
            (Self::Connected, T::Inactive) => Self::Idle,
            (Self::Connected | Self::Idle, T::Close) => Self::Closing,
            (Self::AwaitingConnection, T::ConnectionError | T::NoConnection | T::Close)
            | (Self::Idle, T::BothIdle)
            | (Self::Connected | Self::Idle | Self::Closing, T::Broken | T::Drained) => {
                Self::Destroyed
            }
            _ => return None,
        })
    }

    /// Whether messages can be given to it.
    pub const fn takes_messages(self) -> bool {
        matches!(self, Self::AwaitingConnection | Self::Connected | Self::Idle)
    }
}

impl AssociationTrigger {
    /// All triggers.
    pub const ALL: [Self; 9] = [
        Self::Connected,
        Self::ConnectionError,
        Self::NoConnection,
        Self::Inactive,
        Self::Traffic,
        Self::BothIdle,
        Self::Broken,
        Self::Close,
        Self::Drained,
    ];
}
