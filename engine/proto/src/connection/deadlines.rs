//! What a connection does when time passes: timeouts, keep-alives, the end of linger and fin-wait.

use super::handshaking::Authentication;
use super::timers::take_due;
use super::{Connection, lost};
use crate::endpoint::Shared;
use crate::error::{CloseReason, Reason};
use crate::event::{NullSink, Sink};
use crate::ids::Role;
use crate::status::{Status, Trigger};
use crate::time::{Duration, Instant};
use crate::wheel::coarse;

/// After a pause this long memory kept for the next burst is given back: longer than the pauses of
/// steady traffic.
const QUIET: Duration = Duration::from_secs(1);
/// The first time already after this one: many connections that come at once and then do nothing
/// hold the memory of their beginnings for a moment only.
const FIRST_QUIET: Duration = Duration::from_millis(100);
/// What a keep-alive needed is given back when the next packet comes, if that is so much later.
const PAUSE: Duration = Duration::from_secs(1);
/// Keep-alives at least this far apart are sent a little early, together with those of other
/// connections.
const COARSE: Duration = Duration::from_secs(1);

impl Connection {
    /// A packet of the peer proved that it lives.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.is_plain() {
            return;
        }
        if matches!(
            self.status,
            Status::Connecting | Status::FindingRoute | Status::Connected | Status::Linger
        ) {
            let connected = now + self.config.connected_timeout;
            if self.timers.connected.is_some_and(|last| connected.since(last) >= PAUSE) {
                self.shrink();
            }
            self.timers.connected = Some(connected);
            self.timers.keep_alive = Some(self.next_keep_alive(now));
            self.awaiting_answer = false;
        }
    }

    /// One side's keep-alive counts for both. It is the client's, which keeps the bindings of NATs
    /// open: the host waits a quarter longer, and has mostly heard of the client by then.
    fn next_keep_alive(&self, now: Instant) -> Instant {
        let peers = self.peer.as_ref().map_or(Duration::MAX, |p| p.connected_timeout.div(3));
        let mut wait = self.config.keep_alive.min(peers.max(Duration::from_millis(10)));
        if self.role == Role::Host {
            wait = wait + wait.div(4);
        }
        if wait >= COARSE { coarse(now + wait) } else { now + wait }
    }

    /// Data went to and fro.
    pub(super) fn busy(&mut self, now: Instant) {
        let quiet = if self.was_quiet { QUIET } else { FIRST_QUIET };
        self.timers.quiet = Some(coarse(now + quiet));
    }

    /// The next moment at which [`Self::handle_timeout`] has work.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.status == Status::Dead || (self.keys_used_up && self.is_transferring()) {
            return Some(Instant::ZERO);
        }
        let mut next = self.timers.next();
        let mut also = |t: Option<Instant>| {
            if let Some(t) = t {
                next = Some(next.map_or(t, |n| n.min(t)));
            }
        };
        also(self.closing.as_ref().and_then(|c| c.timeout()));
        also(self.handshake.as_ref().and_then(|h| h.machine.timeout()));
        also(self.stream_timeout());
        if self.is_transferring() {
            also(self.recovery.timeout());
            also(self.received.timeout());
            also(self.mux.timeout());
            also(self.migration.as_ref().map(|m| m.next_timeout()));
            also(self.route_timeout());
        }
        also(self.held_until());
        next
    }

    /// Whether data, acknowledgements and credit still flow.
    pub(super) fn is_transferring(&self) -> bool {
        self.has_keys()
            && matches!(
                self.status,
                Status::Connecting | Status::FindingRoute | Status::Connected | Status::Linger
            )
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout<S: Sink>(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        sink: &mut S,
    ) {
        if let Some(handshake) = &mut self.handshake {
            let receipt = handshake.machine.handle_timeout(now);
            self.handshake_over(now, receipt, sink);
        }
        self.after_handshake(now, shared);
        self.run_stream_timer(now);
        if let Some(closing) = &mut self.closing {
            closing.on_timeout(now);
        }
        take_due(&mut self.timers.pacing, now);
        if take_due(&mut self.timers.handshake_kept, now) && self.keys.is_some() {
            self.handshake = None;
        }
        self.run_liveness(now, sink);
        if self.keys_used_up && self.is_transferring() {
            let text = "no further packet may be sealed with the keys";
            self.fail(now, CloseReason::new(Reason::BAD_CRYPTO, text), sink);
        }
        if take_due(&mut self.timers.linger, now) && self.status == Status::Linger {
            let undelivered = self.mux.report().undelivered_bytes;
            let text = format!("{undelivered} bytes undelivered");
            self.flushed(now, Some(CloseReason::new(Reason::LINGER_EXPIRED, &text)), sink);
        }
        if take_due(&mut self.timers.fin_wait, now) {
            if let Some(closing) = &mut self.closing {
                closing.give_up();
            }
            if !self.told && self.status.is_open_to_application() {
                self.apply(Trigger::Close, None, sink);
            }
            self.apply(Trigger::FinWaitOver, None, sink);
        }
        if self.is_transferring() {
            self.run_transfer_timers(now, sink);
        }
    }

    fn run_liveness<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        if take_due(&mut self.timers.initial, now) {
            let text = match (self.role, self.authentication) {
                _ if self.status == Status::FindingRoute => "no route in time",
                (Role::Host, Authentication::AwaitingApplication) if self.is_accepting() => {
                    "our own connection to the peer was not decided in time"
                }
                (Role::Host, Authentication::AwaitingApplication) => {
                    "the application did not accept in time"
                }
                (_, Authentication::AwaitingResponse) => "no AuthenticationResponse in time",
                (Role::Client, _) => "no ConnectionResponse in time",
                (Role::Host, _) => "no AuthenticationRequest in time",
            };
            self.fail(now, CloseReason::new(Reason::TIMEOUT, text), sink);
        }
        if take_due(&mut self.timers.check, now) {
            self.fail(
                now,
                CloseReason::new(Reason::TIMEOUT, "connectivity check was not answered"),
                sink,
            );
        }
        if take_due(&mut self.timers.connected, now) {
            self.fail(now, CloseReason::new(Reason::TIMEOUT, "nothing heard from the peer"), sink);
        }
        if take_due(&mut self.timers.keep_alive, now) && self.is_transferring() {
            // A ping that is lost is repeated by the recovery's probe timer.
            let soon = self.on_silence(now, sink);
            if !self.awaiting_answer || self.recovery.is_idle() {
                self.pending.ping = true;
            }
            let mut next = self.next_keep_alive(now);
            if soon {
                next = next.min(now + self.config.connected_timeout.div(4));
            }
            self.timers.keep_alive = Some(next);
            self.shrink();
        }
        if take_due(&mut self.timers.quiet, now) && self.is_transferring() {
            if self.recovery.is_idle() && !self.mux.has_unacked_reliable() {
                self.was_quiet = true;
                self.shrink();
            } else {
                self.busy(now);
            }
        }
    }

    /// Nothing happened for a while: memory kept for the next burst is given back.
    fn shrink(&mut self) {
        self.recovery.shrink();
        self.shrink_stream();
        self.received.shrink();
        if !self.mux.has_unacked_reliable() {
            self.mux.shrink();
        }
        if self.recovery.is_idle() {
            self.pending.shrink();
        }
    }

    fn run_transfer_timers<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        if self.recovery.timeout().is_some_and(|t| t <= now) {
            let Self { recovery, mux, pending, ids, counters, .. } = self;
            recovery.on_timeout(now, |fate, record| {
                lost(fate, record, mux, pending, ids, &mut counters.retransmits);
            });
        }
        self.received.on_timeout(now);
        // Channels of a connection that the application closed tell it nothing more.
        let result = if self.status.is_open_to_application() {
            self.mux.on_timeout(now, self.handle, sink)
        } else {
            self.mux.on_timeout(now, self.handle, &mut NullSink)
        };
        if let Err(e) = result {
            self.misbehaved(now, e, sink);
            return;
        }
        self.run_migration(now);
        self.run_route(now, sink);
    }

    /// Gives up a path that did not answer.
    fn run_migration(&mut self, now: Instant) {
        let Some(migration) = &mut self.migration else { return };
        if migration.previous_challenge.is_some_and(|c| c.deadline <= now) {
            migration.previous_challenge = None;
        }
        if migration.challenge.deadline > now {
            return;
        }
        let previous = migration.previous;
        self.migration = None;
        if let (false, Some(previous)) = (self.path.validated, previous) {
            self.go_to(now, previous);
        }
    }

    /// Linger is over: everything acknowledged (`None`), or the limit ran out.
    pub(super) fn flushed<S: Sink>(
        &mut self,
        now: Instant,
        instead: Option<CloseReason>,
        sink: &mut S,
    ) {
        let own = self.closing.as_ref().map(|c| c.reason.clone());
        let Some(reason) = instead.or(own) else { return };
        self.start_closing(now, reason.clone(), false);
        self.apply(Trigger::Flushed, Some(&reason), sink);
    }

    /// Ends a lingering close once the last byte is acknowledged. Called at the end of every batch.
    pub(crate) fn settle<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        if self.has_stream() {
            self.settle_stream(now, sink);
        }
        if self.role == Role::Host
            && !self.told
            && self.status != Status::Connecting
            && !self.stream_owes()
        {
            // Nobody was told of it: one farewell, and the slot is free for the next attempt.
            self.status = Status::Dead;
        }
        self.ask_decision(sink);
        if self.control_waits
            && self.status == Status::Connected
            && let Err(e) = self.take_control(now, sink)
        {
            self.misbehaved(now, e, sink);
        }
        if self.status == Status::Linger && !self.mux.has_unacked_reliable() {
            self.flushed(now, None, sink);
        }
        if self.status == Status::FinWait && self.closing.as_ref().is_some_and(|c| c.acknowledged) {
            self.apply(Trigger::FinWaitOver, None, sink);
        }
    }
}
