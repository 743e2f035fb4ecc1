//! What client and host wait for while a connection is made: their states as data, the table of
//! transitions, and the state as a function of what a connection knows (behaviours §1).
//!
//! Nothing is stored: a connection of either link says what it knows ([`HandshakeFacts`]), and
//! [`HandshakeState::of`] names the state. [`HandshakeState::on`] is the table that every change
//! must be a row of; simulations check that it is.

use crate::error::Reason;
use crate::ids::Role;

/// What a side of a connection waits for, or how its attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeState {
    /// Client: the ConnectionRequest is published.
    WaitingForConnectionResponse,
    /// Client: the ConnectionResponse has proved the host, and the AuthenticationRequest is
    /// published.
    WaitingForAuthenticationResponse,
    /// Host: it listens.
    WaitingForConnectionRequest,
    /// Host: the ConnectionResponse with the challenge is published; the client's proof or the
    /// application's answer has not come.
    WaitingForAuthenticationRequest,
    /// The AuthenticationResponse was published (host) or received (client), and it accepts. Stays
    /// so when the connection ends later.
    Ready,
    /// The attempt is over.
    ConnectionFailed(HandshakeFailure),
}

/// Why an attempt failed; the reason of the connection says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The other side, or its application, did not answer in time.
    Timeout,
    /// One side did not prove what it had to, broke the order of the handshake under
    /// authenticated keys, or the host's application denied the client.
    Authentication,
    /// Neither: no common version, a host that is full, an attempt that was given up.
    Other,
}

/// What moves a side from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeEvent {
    /// Host: a valid ConnectionRequest was answered with a ConnectionResponse.
    ConnectionRequest,
    /// Client: a ConnectionResponse proved the host and was answered with an
    /// AuthenticationRequest.
    ConnectionResponse,
    /// Host: an AuthenticationRequest proved the client and the application accepted it.
    AuthenticationRequest,
    /// Client: an AuthenticationResponse accepted it.
    AuthenticationResponse,
    /// The initial timeout ran out, here or at the peer.
    TimedOut,
    /// A proof failed, the order was broken, or the application denied the client.
    Denied,
    /// The attempt ended for another reason.
    GivenUp,
}

/// What a connection knows of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeFacts {
    /// Our side.
    pub role: Role,
    /// A ConnectionRequest was sent (client) or answered (host).
    pub requested: bool,
    /// The peer's proof was verified: there are keys for data.
    pub proven: bool,
    /// The AuthenticationResponse was sent or received, and it accepts.
    pub accepted: bool,
    /// The connection has ended.
    pub failure: Option<HandshakeFailure>,
}

impl HandshakeState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::WaitingForConnectionResponse,
        Self::WaitingForAuthenticationResponse,
        Self::WaitingForConnectionRequest,
        Self::WaitingForAuthenticationRequest,
        Self::Ready,
        Self::ConnectionFailed(HandshakeFailure::Timeout),
        Self::ConnectionFailed(HandshakeFailure::Authentication),
        Self::ConnectionFailed(HandshakeFailure::Other),
    ];

    /// The state in which a side begins.
    pub const fn first(role: Role) -> Self {
        match role {
            Role::Client => Self::WaitingForConnectionResponse,
            Role::Host => Self::WaitingForConnectionRequest,
        }
    }

    /// The state that these facts mean.
    pub const fn of(facts: &HandshakeFacts) -> Self {
        if facts.accepted {
            return Self::Ready;
        }
        if let Some(failure) = facts.failure {
            return Self::ConnectionFailed(failure);
        }
        match facts.role {
            Role::Client if facts.proven => Self::WaitingForAuthenticationResponse,
            Role::Client => Self::WaitingForConnectionResponse,
            Role::Host if facts.requested => Self::WaitingForAuthenticationRequest,
            Role::Host => Self::WaitingForConnectionRequest,
        }
    }

    /// The transition table: the state after `event`, or `None` when the event does nothing in
    /// this state.
    pub const fn on(self, event: HandshakeEvent) -> Option<Self> {
        use HandshakeEvent as E;
        Some(match (self, event) {
            (Self::WaitingForConnectionResponse, E::ConnectionResponse) => {
                Self::WaitingForAuthenticationResponse
            }
            (Self::WaitingForConnectionRequest, E::ConnectionRequest) => {
                Self::WaitingForAuthenticationRequest
            }
            (Self::WaitingForAuthenticationResponse, E::AuthenticationResponse)
            | (Self::WaitingForAuthenticationRequest, E::AuthenticationRequest) => Self::Ready,
            (
                Self::WaitingForConnectionResponse
                | Self::WaitingForAuthenticationResponse
                | Self::WaitingForAuthenticationRequest,
                E::TimedOut | E::Denied | E::GivenUp,
            ) => Self::ConnectionFailed(match event {
                E::TimedOut => HandshakeFailure::Timeout,
                E::Denied => HandshakeFailure::Authentication,
                _ => HandshakeFailure::Other,
            }),
            _ => return None,
        })
    }

    /// Whether nothing leads out of this state.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::ConnectionFailed(_))
    }

    /// Whether a connection of this role can be in this state.
    pub const fn belongs_to(self, role: Role) -> bool {
        match self {
            Self::WaitingForConnectionResponse | Self::WaitingForAuthenticationResponse => {
                matches!(role, Role::Client)
            }
            Self::WaitingForConnectionRequest | Self::WaitingForAuthenticationRequest => {
                matches!(role, Role::Host)
            }
            Self::Ready | Self::ConnectionFailed(_) => true,
        }
    }
}

impl HandshakeEvent {
    /// All events.
    pub const ALL: [Self; 7] = [
        Self::ConnectionRequest,
        Self::ConnectionResponse,
        Self::AuthenticationRequest,
        Self::AuthenticationResponse,
        Self::TimedOut,
        Self::Denied,
        Self::GivenUp,
    ];
}

impl HandshakeFailure {
    /// What it means for the attempt of this role that it ended with `reason`, said by the peer or
    /// found here.
    ///
    /// A code of the application denies the client when it is the host's: what a client says with
    /// one is that it has changed its mind.
    pub const fn of(role: Role, reason: Reason, by_peer: bool) -> Self {
        match reason {
            Reason::TIMEOUT => Self::Timeout,
            Reason::AUTHENTICATION
            | Reason::BAD_CERTIFICATE
            | Reason::BAD_CRYPTO
            | Reason::PROTOCOL => Self::Authentication,
            Reason(Reason::APP_MIN..=Reason::APP_MAX)
                if matches!((role, by_peer), (Role::Client, true) | (Role::Host, false)) =>
            {
                Self::Authentication
            }
            _ => Self::Other,
        }
    }
}
