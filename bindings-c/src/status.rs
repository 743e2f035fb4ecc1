//! What a connection is, and why it ended.

use engine::{HandshakeFailure, HandshakeState, Reason, Status};

/// What a connection is to its user.
pub type trunk_status = i32;

/// Unknown or already closed handle: every call with it gives TRUNK_ERR_INVALID_HANDLE.
pub const TRUNK_STATUS_NONE: trunk_status = 0;
/// The handshake is under way. Reliable sends wait, unreliable ones are dropped, nothing is
/// received; closing drops what waits.
pub const TRUNK_STATUS_CONNECTING: trunk_status = 1;
/// The peer has agreed and a route is not proven yet; otherwise as TRUNK_STATUS_CONNECTING.
pub const TRUNK_STATUS_FINDING_ROUTE: trunk_status = 2;
/// Everything works.
pub const TRUNK_STATUS_CONNECTED: trunk_status = 3;
/// The peer has closed. What was received can still be read, sends give TRUNK_ERR_NO_CONNECTION,
/// and the handle must be closed.
pub const TRUNK_STATUS_CLOSED_BY_PEER: trunk_status = 4;
/// A timeout, bad crypto, a protocol error or the like ended the connection; otherwise as
/// TRUNK_STATUS_CLOSED_BY_PEER.
pub const TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY: trunk_status = 5;
/// Closed by us: late packets are answered with the reason. The handle is stale.
pub const TRUNK_STATUS_FIN_WAIT: trunk_status = -1;
/// Closed by us: reliable data is still being delivered. The handle is stale.
pub const TRUNK_STATUS_LINGER: trunk_status = -2;
/// Gone. The handle is stale.
pub const TRUNK_STATUS_DEAD: trunk_status = -3;

const _: () = {
    assert!(TRUNK_STATUS_NONE == Status::None as i32);
    assert!(TRUNK_STATUS_CONNECTING == Status::Connecting as i32);
    assert!(TRUNK_STATUS_FINDING_ROUTE == Status::FindingRoute as i32);
    assert!(TRUNK_STATUS_CONNECTED == Status::Connected as i32);
    assert!(TRUNK_STATUS_CLOSED_BY_PEER == Status::ClosedByPeer as i32);
    assert!(TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY == Status::ProblemDetectedLocally as i32);
    assert!(TRUNK_STATUS_FIN_WAIT == Status::FinWait as i32);
    assert!(TRUNK_STATUS_LINGER == Status::Linger as i32);
    assert!(TRUNK_STATUS_DEAD == Status::Dead as i32);
};

/// What a role waits for while a connection is made, or how the attempt ended. It stays
/// TRUNK_HANDSHAKE_READY when a connection that was made ends.
pub type trunk_handshake = u32;

/// Not known: the library is older than this field.
pub const TRUNK_HANDSHAKE_NONE: trunk_handshake = 0;
/// Client: the ConnectionRequest is sent.
pub const TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_RESPONSE: trunk_handshake = 1;
/// Client: the host has proved itself and the AuthenticationRequest is sent.
pub const TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_RESPONSE: trunk_handshake = 2;
/// Host: it listens.
pub const TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_REQUEST: trunk_handshake = 3;
/// Host: the client's proof, or the answer of our application, has not come.
pub const TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_REQUEST: trunk_handshake = 4;
/// The connection was made.
pub const TRUNK_HANDSHAKE_READY: trunk_handshake = 5;
/// The attempt failed: no answer in time.
pub const TRUNK_HANDSHAKE_FAILED_TIMEOUT: trunk_handshake = 6;
/// The attempt failed: a proof was missing or wrong, or the host's application denied the client.
pub const TRUNK_HANDSHAKE_FAILED_AUTHENTICATION: trunk_handshake = 7;
/// The attempt failed for another reason.
pub const TRUNK_HANDSHAKE_FAILED_OTHER: trunk_handshake = 8;

pub(crate) const fn handshake(state: HandshakeState) -> trunk_handshake {
    match state {
        HandshakeState::WaitingForConnectionResponse => {
            TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_RESPONSE
        }
        HandshakeState::WaitingForAuthenticationResponse => {
            TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_RESPONSE
        }
        HandshakeState::WaitingForConnectionRequest => {
            TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_REQUEST
        }
        HandshakeState::WaitingForAuthenticationRequest => {
            TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_REQUEST
        }
        HandshakeState::Ready => TRUNK_HANDSHAKE_READY,
        HandshakeState::ConnectionFailed(HandshakeFailure::Timeout) => {
            TRUNK_HANDSHAKE_FAILED_TIMEOUT
        }
        HandshakeState::ConnectionFailed(HandshakeFailure::Authentication) => {
            TRUNK_HANDSHAKE_FAILED_AUTHENTICATION
        }
        HandshakeState::ConnectionFailed(HandshakeFailure::Other) => TRUNK_HANDSHAKE_FAILED_OTHER,
    }
}

/// Why a connection ended: 1000 to 1999 ordinary and 2000 to 2999 exceptional codes of the
/// application, 3000 local, 4000 remote, 5000 other.
pub type trunk_reason = u32;

/// None: the connection has not ended.
pub const TRUNK_REASON_NONE: trunk_reason = 0;
/// An ordinary close by the application, without a code of its own.
pub const TRUNK_REASON_APP: trunk_reason = 1000;
/// The application did not want the connection or channel.
pub const TRUNK_REASON_APP_REJECTED: trunk_reason = 1001;
/// The last code that the application may choose; the first is TRUNK_REASON_APP.
pub const TRUNK_REASON_APP_MAX: trunk_reason = 2999;
/// The engine was shut down.
pub const TRUNK_REASON_SHUTDOWN: trunk_reason = 3001;
/// A local limit was reached.
pub const TRUNK_REASON_LOCAL_LIMIT: trunk_reason = 3002;
/// The local system refused to send.
pub const TRUNK_REASON_LOCAL_NETWORK: trunk_reason = 3003;
/// The peer and we connected to each other at once, and the other connection is kept.
pub const TRUNK_REASON_SUPERSEDED: trunk_reason = 3004;
/// Nothing was heard from the peer in time.
pub const TRUNK_REASON_TIMEOUT: trunk_reason = 4001;
/// Packets could not be authenticated, or key rules were broken.
pub const TRUNK_REASON_BAD_CRYPTO: trunk_reason = 4002;
/// The peer's certificate or key was not accepted.
pub const TRUNK_REASON_BAD_CERTIFICATE: trunk_reason = 4003;
/// The peer did not authenticate, or its credential was denied.
pub const TRUNK_REASON_AUTHENTICATION: trunk_reason = 4004;
/// The peer broke the protocol.
pub const TRUNK_REASON_PROTOCOL: trunk_reason = 4005;
/// The peer speaks no version that we know.
pub const TRUNK_REASON_VERSION: trunk_reason = 4006;
/// The peer has lost its state.
pub const TRUNK_REASON_RESET: trunk_reason = 4007;
/// The peer refuses because it is overloaded or limits our address.
pub const TRUNK_REASON_REFUSED: trunk_reason = 4008;
/// Unclassified.
pub const TRUNK_REASON_MISC: trunk_reason = 5001;
/// A mistake of this library; please report it.
pub const TRUNK_REASON_INTERNAL: trunk_reason = 5002;
/// The linger limit ran out and undelivered data was dropped.
pub const TRUNK_REASON_LINGER_EXPIRED: trunk_reason = 5003;

const _: () = {
    assert!(TRUNK_REASON_APP == Reason::APP.0);
    assert!(TRUNK_REASON_APP_REJECTED == Reason::APP_REJECTED.0);
    assert!(TRUNK_REASON_APP == Reason::APP_MIN && TRUNK_REASON_APP_MAX == Reason::APP_MAX);
    assert!(TRUNK_REASON_SHUTDOWN == Reason::SHUTDOWN.0);
    assert!(TRUNK_REASON_LOCAL_LIMIT == Reason::LOCAL_LIMIT.0);
    assert!(TRUNK_REASON_SUPERSEDED == Reason::SUPERSEDED.0);
    assert!(TRUNK_REASON_LOCAL_NETWORK == Reason::LOCAL_NETWORK.0);
    assert!(TRUNK_REASON_TIMEOUT == Reason::TIMEOUT.0);
    assert!(TRUNK_REASON_BAD_CRYPTO == Reason::BAD_CRYPTO.0);
    assert!(TRUNK_REASON_BAD_CERTIFICATE == Reason::BAD_CERTIFICATE.0);
    assert!(TRUNK_REASON_AUTHENTICATION == Reason::AUTHENTICATION.0);
    assert!(TRUNK_REASON_PROTOCOL == Reason::PROTOCOL.0);
    assert!(TRUNK_REASON_VERSION == Reason::VERSION.0);
    assert!(TRUNK_REASON_RESET == Reason::RESET.0);
    assert!(TRUNK_REASON_REFUSED == Reason::REFUSED.0);
    assert!(TRUNK_REASON_MISC == Reason::MISC.0);
    assert!(TRUNK_REASON_INTERNAL == Reason::INTERNAL.0);
    assert!(TRUNK_REASON_LINGER_EXPIRED == Reason::LINGER_EXPIRED.0);
};
