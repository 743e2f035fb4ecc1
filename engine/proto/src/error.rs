//! Errors that say who is to blame: the application ([`ApiError`]), the peer
//! ([`PeerMisbehaved`]), and the reasons with which connections end ([`Reason`]).

use core::fmt;

/// The application asked for something that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The handle names nothing, or something that is already closed.
    #[error("invalid or already closed handle")]
    InvalidHandle,
    /// The connection is not in a state that allows the call.
    #[error("no connection: {0}")]
    NoConnection(&'static str),
    /// A bounded queue is full; a writable event follows.
    #[error("would block: {0} is full")]
    WouldBlock(&'static str),
    /// The message is larger than what the channel carries.
    #[error("message of {len} bytes is larger than the limit of {limit}")]
    MessageTooLarge {
        /// Bytes of the message.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The channel's kind or state does not know this call.
    #[error("not possible on this channel: {0}")]
    WrongChannel(&'static str),
    /// An argument is out of range.
    #[error("{field} {why}")]
    InvalidArgument {
        /// The argument or configuration field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A bound of the configuration is reached.
    #[error("limit reached: {what} ({limit})")]
    LimitReached {
        /// What is exhausted.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// An unreliable message could not be sent now and was dropped, as its kind allows.
    #[error("unreliable message dropped: {0}")]
    Dropped(&'static str),
    /// Certificates, keys or TLS settings are unusable.
    #[error("security configuration: {0}")]
    Security(String),
}

/// The peer broke the protocol under authenticated keys; the connection ends with
/// [`Reason::PROTOCOL`] (or what [`PeerMisbehaved::reason`] says).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A frame or a field of one is malformed.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A control message breaks a rule; the field is named.
    #[error("control message: {0}")]
    Control(&'static str),
    /// More was sent than was granted.
    #[error("exceeded credit of {0}")]
    Credit(&'static str),
    /// A bound of the protocol was exceeded.
    #[error("exceeded limit of {0}")]
    Limit(&'static str),
    /// A message that the current state does not allow.
    #[error("unexpected {0}")]
    Unexpected(&'static str),
    /// A packet number was acknowledged that was never sent (optimistic acknowledgement).
    #[error("acknowledged a packet that was never sent")]
    OptimisticAck,
    /// The final length of a channel changed, or data lies beyond it.
    #[error("final length of a channel violated")]
    FinalSize,
    /// Keys were updated against the rules.
    #[error("key update out of order")]
    KeyUpdate,
    /// Too many packets failed to open (RFC 9001 §6.6).
    #[error("integrity limit of the cipher reached")]
    IntegrityLimit,
}

impl PeerMisbehaved {
    /// The close reason that goes with it.
    pub const fn reason(self) -> Reason {
        match self {
            Self::KeyUpdate | Self::IntegrityLimit => Reason::BAD_CRYPTO,
            _ => Reason::PROTOCOL,
        }
    }
}

/// Why a connection ended, in the ranges that GameNetworkingSockets users know:
/// 1xxx application, 2xxx application exception, 3xxx local, 4xxx remote, 5xxx misc.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason(pub u32);

impl Reason {
    /// No reason given: an ordinary close by the application.
    pub const APP: Self = Self(1000);
    /// The application declined the connection.
    pub const APP_REJECTED: Self = Self(1001);
    /// First code that the application may choose freely.
    pub const APP_MIN: u32 = 1000;
    /// Last code of the application's exceptional range.
    pub const APP_MAX: u32 = 2999;
    /// The application gave a code outside 1000–2999; it was replaced by this one, and the text says so.
    pub const APP_OUT_OF_RANGE: Self = Self(2999);
    /// The engine is shutting down.
    pub const SHUTDOWN: Self = Self(3001);
    /// A local limit (memory, connections) was reached.
    pub const LOCAL_LIMIT: Self = Self(3002);
    /// The peer cannot be reached: the local system refused to send.
    pub const LOCAL_NETWORK: Self = Self(3003);
    /// Another connection to the same peer took its place: both sides had connected at once.
    pub const SUPERSEDED: Self = Self(3004);
    /// Nothing was heard from the peer in time.
    pub const TIMEOUT: Self = Self(4001);
    /// Packets could not be authenticated, or key rules were broken.
    pub const BAD_CRYPTO: Self = Self(4002);
    /// The peer's certificate or key was not accepted.
    pub const BAD_CERTIFICATE: Self = Self(4003);
    /// The peer did not authenticate, or its credential was denied.
    pub const AUTHENTICATION: Self = Self(4004);
    /// The peer broke the protocol.
    pub const PROTOCOL: Self = Self(4005);
    /// The peer speaks no version that we know.
    pub const VERSION: Self = Self(4006);
    /// The peer lost its state (stateless reset).
    pub const RESET: Self = Self(4007);
    /// The peer refused because it is overloaded or limits this address.
    pub const REFUSED: Self = Self(4008);
    /// Unclassified.
    pub const MISC: Self = Self(5001);
    /// A bug on our side; please report it.
    pub const INTERNAL: Self = Self(5002);
    /// The linger limit ran out and undelivered data was discarded.
    pub const LINGER_EXPIRED: Self = Self(5003);

    /// A code chosen by an application: kept if it lies in 1000–2999, otherwise replaced by
    /// [`Reason::APP_OUT_OF_RANGE`].
    pub const fn from_app(code: u32) -> Self {
        if code >= Self::APP_MIN && code <= Self::APP_MAX {
            Self(code)
        } else {
            Self::APP_OUT_OF_RANGE
        }
    }

    /// A short name, or `application` for the application's own codes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SHUTDOWN => "engine shut down",
            Self::LOCAL_LIMIT => "local limit reached",
            Self::LOCAL_NETWORK => "network unreachable",
            Self::SUPERSEDED => "superseded",
            Self::TIMEOUT => "timeout",
            Self::BAD_CRYPTO => "bad crypto",
            Self::BAD_CERTIFICATE => "certificate not accepted",
            Self::AUTHENTICATION => "authentication failed",
            Self::PROTOCOL => "protocol error",
            Self::VERSION => "no common version",
            Self::RESET => "peer lost its state",
            Self::REFUSED => "refused",
            Self::MISC => "unclassified",
            Self::INTERNAL => "internal error",
            Self::LINGER_EXPIRED => "linger expired",
            Self(1000..=2999) => "application",
            _ => "unknown",
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.name())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A reason with its text: what a CLOSE carries and what a status event tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloseReason {
    /// The code.
    pub reason: Reason,
    /// Words for people, at most 127 bytes of UTF-8; longer texts are cut at a character.
    pub text: String,
}

impl CloseReason {
    /// A reason with `text`, cut to what fits.
    pub fn new(reason: Reason, text: &str) -> Self {
        Self { reason, text: cut(text, crate::limits::MAX_REASON_TEXT).to_owned() }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            write!(f, "{}", self.reason)
        } else {
            write!(f, "{}: {}", self.reason, self.text)
        }
    }
}

/// The longest prefix of `text` of at most `max` bytes that ends at a character.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
