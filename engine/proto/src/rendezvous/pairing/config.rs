//! Settings of a pairing, and the pauses between its attempts to connect.

use crate::error::ApiError;
use crate::limits::MAX_EVENT_BODY;
use crate::time::{Duration, Instant};

/// Settings of a [`Pairing`](super::Pairing). [`Default`] has the values of behaviours §2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PairingConfig {
    /// Between two pings while searching. 5 s.
    pub searching_ping: Duration,
    /// Between two pings while interacting. 10 s.
    pub interacting_ping: Duration,
    /// Without any event from the partner for this long, it counts as silent. 25 s.
    pub partner_limit: Duration,
    /// Least time between two events of the application; zero = as many as wanted. 1 s.
    pub event_interval: Duration,
    /// Events that wait at once. 64.
    pub queue_events: usize,
    /// Bytes of bodies that wait at once. 64 KiB.
    pub queue_bytes: usize,
    /// Pause before the second attempt to connect; doubles with each that fails. 250 ms.
    pub backoff: Duration,
    /// Longest pause between attempts; a connection that lasted this long starts anew. 30 s.
    pub backoff_max: Duration,
    /// Seed of the part of each pause (up to half of it) that is random, so that the clients of a
    /// source that was restarted do not all come back at once; 0 = nothing is random.
    pub backoff_seed: u64,
}

impl Default for PairingConfig {
    fn default() -> Self {
        Self {
            searching_ping: Duration::from_secs(5),
            interacting_ping: Duration::from_secs(10),
            partner_limit: Duration::from_secs(25),
            event_interval: Duration::from_secs(1),
            queue_events: 64,
            queue_bytes: 64 << 10,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            backoff_seed: 0,
        }
    }
}

impl PairingConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        let check = |ok: bool, field, why| {
            if ok { Ok(()) } else { Err(ApiError::InvalidArgument { field, why }) }
        };
        let least = Duration::from_millis(100);
        check(self.searching_ping >= least, "searching_ping", "must be at least 100 ms")?;
        check(self.interacting_ping >= least, "interacting_ping", "must be at least 100 ms")?;
        let longest = self.searching_ping.max(self.interacting_ping);
        check(
            longest.mul(2) <= self.partner_limit,
            "partner_limit",
            "must be at least twice as long as both ping intervals",
        )?;
        check((1..=65_536).contains(&self.queue_events), "queue_events", "must lie in 1..=65536")?;
        check(
            (MAX_EVENT_BODY..=64 << 20).contains(&self.queue_bytes),
            "queue_bytes",
            "must lie in 8192..=67108864",
        )?;
        check(self.backoff >= Duration::from_millis(10), "backoff", "must be at least 10 ms")?;
        check(self.backoff_max >= self.backoff, "backoff_max", "must not be below backoff")
    }

    pub(super) fn ping_interval(&self, interacting: bool) -> Duration {
        if interacting { self.interacting_ping } else { self.searching_ping }
    }
}

/// Pauses between attempts to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Backoff {
    failures: u32,
    opened_at: Option<Instant>,
    retry_at: Option<Instant>,
    random: u64,
}

impl Backoff {
    pub(super) const fn new(seed: u64) -> Self {
        Self { failures: 0, opened_at: None, retry_at: None, random: seed }
    }

    /// The next attempt may be made at once.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    pub(super) fn opened(&mut self, now: Instant) {
        self.opened_at = Some(now);
    }

    /// A connection, or the attempt to make one, ended by itself.
    pub(super) fn ended(&mut self, now: Instant, config: &PairingConfig) {
        if self.opened_at.take().is_some_and(|at| now.since(at) >= config.backoff_max) {
            self.failures = 0;
        }
        let pause = config.backoff.mul(1 << self.failures.min(32)).min(config.backoff_max);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause.saturating_sub(self.jitter(pause.div(2))));
    }

    /// A number below `bound` that differs from client to client (SplitMix64).
    fn jitter(&mut self, bound: Duration) -> Duration {
        if self.random == 0 {
            return Duration::ZERO;
        }
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let part = u128::from(z) * u128::from(bound.as_nanos());
        Duration::from_nanos((part >> 64) as u64)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}
