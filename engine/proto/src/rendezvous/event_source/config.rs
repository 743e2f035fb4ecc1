//! Settings of an event source.

use crate::error::ApiError;
use crate::limits::{MAX_EVENT, MAX_RELAY_MESSAGE};
use crate::rendezvous::names::AppId;
use crate::time::Duration;

/// Settings of an [`EventSource`](super::EventSource). [`Default`] suits clients that ping and now
/// and then say something.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Applications that are served; `None` = every one that a token names.
    pub apps: Option<Vec<AppId>>,
    /// Clients at once; more are sent away as busy. 65,536.
    pub max_clients: usize,
    /// Events a second that a client may send; more are dropped. 50.
    pub events_per_s: u32,
    /// Events that it may send at once. 100.
    pub events_burst: u32,
    /// Bytes of events a second that a client may send. 128 KiB.
    pub bytes_per_s: u64,
    /// Bytes that it may send at once. 512 KiB.
    pub bytes_burst: u64,
    /// Events a second that are dropped for what they are (malformed, forged, too many) before the
    /// client is. 20.
    pub faults_per_s: u32,
    /// Such events that may come at once. 500.
    pub faults_burst: u32,
    /// Events that wait for one client to take them. 64.
    pub queue_events: usize,
    /// Bytes that wait for one client to take them. 128 KiB.
    pub queue_bytes: usize,
    /// Whether packets of connections between clients are relayed. They are.
    pub relay: bool,
    /// Packets a second that a client may have relayed; more are dropped. 1000.
    pub relay_packets_per_s: u32,
    /// Packets that it may have relayed at once. 1000.
    pub relay_packets_burst: u32,
    /// Bytes a second that a client may have relayed. 512 KiB.
    pub relay_bytes_per_s: u64,
    /// Bytes that it may have relayed at once. 512 KiB.
    pub relay_bytes_burst: u64,
    /// A client that takes nothing for this long while something waits is not alive. 10 s.
    pub stall_limit: Duration,
    /// A client that does not open its channel for this long is not alive. 10 s.
    pub open_limit: Duration,
    /// Whether a token that expires also ends the connection that was made with it. It does not.
    pub end_expired: bool,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            apps: None,
            max_clients: 65_536,
            events_per_s: 50,
            events_burst: 100,
            bytes_per_s: 128 << 10,
            bytes_burst: 512 << 10,
            faults_per_s: 20,
            faults_burst: 500,
            queue_events: 64,
            queue_bytes: 128 << 10,
            relay: true,
            relay_packets_per_s: 1000,
            relay_packets_burst: 1000,
            relay_bytes_per_s: 512 << 10,
            relay_bytes_burst: 512 << 10,
            stall_limit: Duration::from_secs(10),
            open_limit: Duration::from_secs(10),
            end_expired: false,
        }
    }
}

impl SourceConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        let check = |ok: bool, field, why| {
            if ok { Ok(()) } else { Err(ApiError::InvalidArgument { field, why }) }
        };
        check(self.max_clients >= 1, "max_clients", "must be at least 1")?;
        check(self.events_per_s >= 1, "events_per_s", "must be at least 1")?;
        check(self.events_burst >= 1, "events_burst", "must be at least 1")?;
        check(self.bytes_per_s >= 1, "bytes_per_s", "must be at least 1")?;
        let one = MAX_EVENT as u64;
        check(self.bytes_burst >= one, "bytes_burst", "must hold one event of 8704 bytes")?;
        check(self.faults_per_s >= 1, "faults_per_s", "must be at least 1")?;
        check(self.faults_burst >= 1, "faults_burst", "must be at least 1")?;
        check(self.queue_events >= 1, "queue_events", "must be at least 1")?;
        check(self.queue_bytes >= MAX_EVENT, "queue_bytes", "must hold one event of 8704 bytes")?;
        check(self.relay_packets_per_s >= 1, "relay_packets_per_s", "must be at least 1")?;
        check(self.relay_packets_burst >= 1, "relay_packets_burst", "must be at least 1")?;
        check(self.relay_bytes_per_s >= 1, "relay_bytes_per_s", "must be at least 1")?;
        let one = MAX_RELAY_MESSAGE as u64;
        let why = "must hold one message of 1265 bytes";
        check(self.relay_bytes_burst >= one, "relay_bytes_burst", why)?;
        let second = Duration::from_secs(1);
        check(self.stall_limit >= second, "stall_limit", "must be at least 1 s")?;
        check(self.open_limit >= second, "open_limit", "must be at least 1 s")
    }
}
