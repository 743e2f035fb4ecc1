//! The deadlines of a connection that belong to no part of it in particular.

use crate::time::Instant;

/// Deadlines; `None` = not armed.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// End of Connecting (or FindingRoute).
    pub(crate) initial: Option<Instant>,
    /// Nothing heard from the peer.
    pub(crate) connected: Option<Instant>,
    /// Next keep-alive ping.
    pub(crate) keep_alive: Option<Instant>,
    /// Memory kept for the next burst is given back.
    pub(crate) quiet: Option<Instant>,
    /// Answer to a connectivity check.
    pub(crate) check: Option<Instant>,
    /// End of a lingering close.
    pub(crate) linger: Option<Instant>,
    /// End of fin-wait.
    pub(crate) fin_wait: Option<Instant>,
    /// The handshake state is kept until then for session tickets and repeated flights.
    pub(crate) handshake_kept: Option<Instant>,
    /// Pacing lets the next burst go.
    pub(crate) pacing: Option<Instant>,
}

impl Timers {
    /// The earliest of them.
    pub(crate) fn next(&self) -> Option<Instant> {
        [
            self.initial,
            self.connected,
            self.keep_alive,
            self.quiet,
            self.check,
            self.linger,
            self.fin_wait,
            self.handshake_kept,
            self.pacing,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Whether a deadline has passed; it is disarmed when it has.
pub(crate) fn take_due(timer: &mut Option<Instant>, now: Instant) -> bool {
    let due = timer.is_some_and(|t| t <= now);
    if due {
        *timer = None;
    }
    due
}
