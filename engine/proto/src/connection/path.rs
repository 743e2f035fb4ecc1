//! The network path of a connection: where packets go, how much may go there before it is proven,
//! and its validation (RFC 9000 §8, §9).

use crate::limits::AMPLIFICATION_FACTOR;
use crate::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr};

/// One path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) socket: u16,
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) validated: bool,
    received: u64,
    sent: u64,
}

impl Path {
    pub(crate) const fn new(
        socket: u16,
        remote: SocketAddr,
        local: Option<IpAddr>,
        validated: bool,
    ) -> Self {
        Self { socket, remote, local, validated, received: 0, sent: 0 }
    }

    /// Whether it leads from this socket to this address.
    pub(crate) fn is(&self, socket: u16, remote: SocketAddr) -> bool {
        self.remote == remote && self.socket == socket
    }

    pub(crate) fn on_received(&mut self, bytes: usize) {
        if !self.validated {
            self.received = self.received.saturating_add(bytes as u64);
        }
    }

    pub(crate) fn on_sent(&mut self, bytes: usize) {
        if !self.validated {
            self.sent = self.sent.saturating_add(bytes as u64);
        }
    }

    /// Bytes that may be sent now: 3× what came from an unproven address.
    pub(crate) const fn allowance(&self) -> u64 {
        if self.validated {
            u64::MAX
        } else {
            self.received.saturating_mul(AMPLIFICATION_FACTOR).saturating_sub(self.sent)
        }
    }
}

/// A challenge under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Challenge {
    pub(crate) data: [u8; 8],
    /// The challenge goes to this path.
    pub(crate) path: Path,
    /// When it is sent (again).
    pub(crate) send_at: Instant,
    /// When it has failed.
    pub(crate) deadline: Instant,
    interval: Duration,
}

/// Validation of a new path, with the old one kept until it succeeds.
#[derive(Debug)]
pub(crate) struct Migration {
    /// The path we came from, when it was proven.
    pub(crate) previous: Option<Path>,
    pub(crate) challenge: Challenge,
    /// The old path is asked as well: a forged source address must not steal the connection.
    pub(crate) previous_challenge: Option<Challenge>,
}

impl Challenge {
    pub(crate) fn new(now: Instant, path: Path, data: [u8; 8], pto: Duration) -> Self {
        let interval = Duration::from_millis(20).max(pto);
        let life = interval.mul(6).max(Duration::from_secs(3));
        Self { data, path, send_at: now, deadline: now + life, interval }
    }

    /// The same, as if it began now.
    pub(crate) fn again(&self, now: Instant) -> Self {
        let life = self.deadline.since(self.send_at);
        Self { send_at: now, deadline: now + life, ..*self }
    }

    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.send_at = now + self.interval;
        self.interval = self.interval.mul(2);
    }
}

impl Migration {
    pub(crate) fn next_timeout(&self) -> Instant {
        let first = self.challenge.send_at.min(self.challenge.deadline);
        self.previous_challenge.map_or(first, |c| first.min(c.send_at))
    }
}
