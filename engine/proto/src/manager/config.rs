//! Settings of a manager and of its associations.

use super::SecurityCallback;
use crate::config::{ChannelKind, ChannelOptions};
use crate::error::ApiError;
use crate::limits::MAX_CHANNEL_NAME;
use crate::time::Duration;

/// Settings of a manager.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// How long a connection that the manager made stays when no channel is open and nothing moves;
    /// `None` = until the application closes it. The peer has to agree: see
    /// [`Manager::hold`](super::Manager::hold). 180 s.
    pub hold: Option<Duration>,
    /// Asked while connections are being made.
    pub security: Option<SecurityCallback>,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self { hold: Some(Duration::from_secs(180)), security: None }
    }
}

/// Settings of an association.
#[derive(Clone, Debug)]
pub struct AssociationConfig {
    /// Name of its channel; the two sides use the same.
    pub name: String,
    /// Nothing moving for so long makes it idle. 180 s.
    pub hold: Duration,
    /// Listening: a connection must come within this time (NoConn). 10 s.
    pub no_connection: Duration,
    /// Bytes of messages that wait at once. 1 MiB.
    pub queue_bytes: usize,
    /// Messages that wait at once. 1024.
    pub queue_messages: usize,
    /// How long a message may wait. 10 s.
    pub queue_age: Duration,
    /// Priority class of its channel.
    pub priority: u8,
    /// Weight of its channel in the class.
    pub weight: u8,
}

impl AssociationConfig {
    /// The defaults, with this channel name.
    pub fn new(name: &str) -> Self {
        let options = ChannelOptions::default();
        Self {
            name: name.to_owned(),
            hold: Duration::from_secs(180),
            no_connection: Duration::from_secs(10),
            queue_bytes: 1 << 20,
            queue_messages: 1024,
            queue_age: Duration::from_secs(10),
            priority: options.priority,
            weight: options.weight,
        }
    }

    pub(super) fn options(&self) -> ChannelOptions {
        ChannelOptions {
            kind: ChannelKind::Messages,
            priority: self.priority,
            weight: self.weight,
            ..ChannelOptions::default()
        }
    }

    /// Checks every field; the error names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        let bad = |field, why| Err(ApiError::InvalidArgument { field, why });
        if self.name.len() > MAX_CHANNEL_NAME {
            return bad("name", "must be at most 1024 bytes");
        }
        let times = [
            (self.hold, "hold"),
            (self.no_connection, "no_connection"),
            (self.queue_age, "queue_age"),
        ];
        for (time, field) in times {
            if time == Duration::ZERO {
                return bad(field, "must be longer than zero");
            }
        }
        if self.queue_messages == 0 {
            return bad("queue_messages", "must be at least 1");
        }
        self.options().validate()
    }
}
