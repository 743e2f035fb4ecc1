//! Closing on the wire: CLOSE is sealed, repeated until acknowledged, and answers late packets
//! while fin-wait lasts (design, behaviours §3).

use crate::error::CloseReason;
use crate::time::{Duration, Instant};

/// CLOSE being sent.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Closing {
    pub(crate) reason: CloseReason,
    /// Data that arrived was thrown away because the application was gone.
    pub(crate) discarded: bool,
    /// A CLOSE goes out with the next packet.
    pub(crate) due: bool,
    pub(crate) acknowledged: bool,
    /// What the peer was denied with, when the host's application refused it.
    pub(crate) rejection: bool,
    /// The peer ended it.
    pub(crate) by_peer: bool,
    /// The peer's CLOSE said that it had thrown data of ours away.
    pub(crate) peer_discarded: bool,
    retransmit_at: Option<Instant>,
    interval: Duration,
    last_sent: Option<Instant>,
    /// What is due answers a late packet; the repetition has a rhythm of its own.
    answers: bool,
    /// The peer did not acknowledge in time: it is told nothing more.
    given_up: bool,
}

/// Longest pause between two repetitions.
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// Late packets are answered at most this often.
const ANSWER_INTERVAL: Duration = Duration::from_millis(5);

impl Closing {
    pub(crate) fn new(reason: CloseReason, discarded: bool, pto: Duration) -> Self {
        Self {
            reason,
            discarded,
            due: true,
            acknowledged: false,
            rejection: false,
            by_peer: false,
            peer_discarded: false,
            retransmit_at: None,
            interval: pto.max(Duration::from_millis(5)),
            last_sent: None,
            answers: false,
            given_up: false,
        }
    }

    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.due = false;
        self.last_sent = Some(now);
        if core::mem::take(&mut self.answers) {
            return;
        }
        self.retransmit_at = (!self.acknowledged).then(|| now + self.interval);
        self.interval = self.interval.mul(2).min(MAX_INTERVAL);
    }

    pub(crate) fn on_acknowledged(&mut self) {
        self.acknowledged = true;
        self.due = false;
        self.retransmit_at = None;
    }

    /// A packet arrived that shows that the peer does not know yet.
    pub(crate) fn on_late_packet(&mut self, now: Instant) {
        if !self.due
            && !self.given_up
            && self.last_sent.is_none_or(|t| now.since(t) >= ANSWER_INTERVAL)
        {
            self.due = true;
            self.answers = true;
        }
    }

    /// Fin-wait is over. A handle that the application keeps must not keep packets going.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
        self.due = false;
        self.retransmit_at = None;
    }

    /// Whether nothing is waited for any more.
    pub(crate) const fn is_settled(&self) -> bool {
        self.acknowledged || self.given_up
    }

    pub(crate) const fn timeout(&self) -> Option<Instant> {
        self.retransmit_at
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.retransmit_at.is_some_and(|t| t <= now) {
            self.retransmit_at = None;
            self.due = true;
            self.answers = false;
        }
    }
}

#[cfg(test)]
mod tests;
