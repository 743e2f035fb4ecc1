//! What can go wrong with an engine as a whole. Errors of single calls are
//! [`ApiError`].

use crate::io::DriverError;
use std::fmt;
use std::io;
use trunkline_proto::error::ApiError;

/// An engine or shard cannot start, listen, or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A setting or an argument is unusable; the field is named.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No driver.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The system refused something.
    #[error("{context}: {source}")]
    System {
        /// What was being done.
        context: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The application's handler panicked; the shard has ended all its connections.
    #[error("the handler of shard {shard} panicked: {message}")]
    HandlerPanicked {
        /// The shard.
        shard: u8,
        /// The panic's message.
        message: String,
    },
    /// The engine was shut down.
    #[error("the engine is shut down")]
    Stopped,
    /// A thread-less engine belongs to the thread that polled it first.
    #[error("this engine is driven by another thread")]
    WrongThread,
    /// The call makes sense only without engine threads.
    #[error("this engine runs on its own threads")]
    NotThreadless,
}

impl EngineError {
    pub(crate) fn system(context: impl Into<String>, source: io::Error) -> Self {
        Self::System { context: context.into(), source }
    }
}

/// A bounded queue took nothing; what was to be queued comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<C>(pub C);

impl<C> fmt::Debug for Full<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<C> fmt::Display for Full<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard's mailbox is full")
    }
}

impl<C> std::error::Error for Full<C> {}
