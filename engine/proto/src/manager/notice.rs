//! What the manager tells.

use crate::connection::SecInfo;
use crate::error::{ApiError, CloseReason};
use crate::event::{ChannelEnd, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::manager::{AssociationState, ReuseKey};

/// A channel request. A stale one never names another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    /// Its place.
    pub slot: u32,
    /// Counts the lives of the place; never 0.
    pub generation: u32,
}

/// An association. A stale one never names another association.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssociationId {
    /// Its place.
    pub slot: u32,
    /// Counts the lives of the place; never 0.
    pub generation: u32,
}

/// A channel request that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The connection.
    pub conn: ConnHandle,
    /// The channel, open on both sides.
    pub channel: ChannelKey,
    /// It was there before, or was asked for by somebody else: a unique name joined it.
    pub joined: bool,
}

/// Why a channel request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The peer declined the channel.
    #[error("declined with {code}: {text}")]
    Declined {
        /// Its code.
        code: u32,
        /// Its words.
        text: String,
    },
    /// The peer did not answer in time. The connection is not affected.
    #[error("the channel was not answered in time")]
    TimedOut,
    /// The channel was cancelled by one of the two sides.
    #[error("the channel was cancelled with {code}")]
    Reset {
        /// The code given with it.
        code: u32,
    },
    /// The connection ended, and a second one did not help.
    #[error("the connection ended: {0}")]
    Connection(CloseReason),
    /// It could not be asked for.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// [`Manager::cancel_request`](crate::manager::Manager::cancel_request).
    #[error("cancelled")]
    Cancelled,
}

impl RequestError {
    pub(super) fn from_end(end: &ChannelEnd) -> Self {
        match end {
            ChannelEnd::Declined { code, text } => {
                Self::Declined { code: *code, text: text.clone() }
            }
            ChannelEnd::TimedOut => Self::TimedOut,
            ChannelEnd::Reset { code, .. } => Self::Reset { code: *code },
            ChannelEnd::Connection(reason) => Self::Connection(reason.clone()),
            ChannelEnd::Finished => Self::Reset { code: 0 },
        }
    }
}

/// How an association ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssociationEnd {
    /// No connection came within the time given (to_No_Conn).
    NoConnection,
    /// The connection, or the channel of the association, could not be made (er_Conn_Err).
    Failed(RequestError),
    /// Its connection broke.
    Broken(CloseReason),
    /// The peer ended the association's channel.
    ClosedByPeer,
    /// Both sides were idle for their hold times.
    Idle,
    /// The application closed it.
    Closed,
}

/// Why a message was not delivered, as far as is known: after [`AssociationEnd::Broken`] the peer
/// may have it, and the acknowledgement was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// It waited longer than the association lets a message wait.
    #[error("no connection came in time")]
    Expired,
    /// The connection is not of the security that the sender asked for. Nothing was sent.
    #[error("the connection does not have the security asked for")]
    Security,
    /// It cannot be sent at all.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The association ended first.
    #[error("the association has ended")]
    Ended(AssociationEnd),
}

/// What happened to an association.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssociationEvent {
    /// Its state changed. After [`AssociationState::Destroyed`] the id is stale; it is the last event.
    State {
        /// Before.
        old: AssociationState,
        /// Now.
        new: AssociationState,
        /// Set when `new` is Destroyed.
        end: Option<AssociationEnd>,
        /// The connection's security, once there is one.
        info: Option<Box<SecInfo>>,
    },
    /// The peer has acknowledged all of the message sent with this token.
    Delivered {
        /// The token.
        token: u64,
    },
    /// The message sent with this token was not delivered. Each message is told exactly one of the
    /// two.
    Undelivered {
        /// The token.
        token: u64,
        /// Why.
        error: DeliveryError,
    },
}

/// What the manager tells, besides what the endpoint tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The manager began a connection by itself: a channel request or an association needed one.
    Begun {
        /// The connection; it is closed by the manager when it ends.
        conn: ConnHandle,
        /// What it can be shared for.
        key: ReuseKey,
    },
    /// The answer to a channel request. Exactly one for each, whose id is stale afterwards.
    Request {
        /// The request.
        request: RequestId,
        /// What came of it.
        outcome: Result<Opened, RequestError>,
    },
    /// Something happened to an association.
    Association {
        /// The association.
        association: AssociationId,
        /// What.
        event: AssociationEvent,
    },
}

/// A sink that hears the manager too.
pub trait ManagerSink: Sink {
    /// Something of the manager's own happened.
    fn notice(&mut self, notice: Notice);
}
