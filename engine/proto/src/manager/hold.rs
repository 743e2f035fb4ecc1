//! Whether a connection is still wanted: the machine by which two idle sides close it together,
//! without losing what one of them is just starting (behaviours §5, "inactivity").
//!
//! A side is quiet when no channel is open and nothing has moved for its hold time; keep-alives do
//! not count. It says so with an Activity message. The side that becomes quiet second says that it
//! is *retiring*: from then on it starts nothing on the connection. A side that hears that while it
//! is quiet itself may close: nothing can be on its way. Each time of being quiet has a number, so
//! that the answer to a former one is not taken for that to the present one.

use crate::time::{Duration, Instant};
use crate::wire::control::Activity;

/// How much we want of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// It is used, or was a moment ago.
    #[default]
    Active,
    /// Quiet, and the peer knows.
    Idle,
    /// Quiet, and so is the peer: nothing is started here until it says that it is active.
    Retiring,
    /// Both are quiet and the peer starts nothing: it is closed.
    Closing,
}

/// What moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldTrigger {
    /// No channel is open and nothing has moved for the hold time; the peer is active.
    Quiet,
    /// The same, and the peer has said that it is quiet.
    QuietToo,
    /// A channel was asked for, or a message came or is to go.
    Moved,
    /// The peer says that it is active.
    PeerActive,
    /// The peer says that it is idle.
    PeerIdle,
    /// The peer says that it is retiring.
    PeerRetiring,
}

impl HoldState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Active, Self::Idle, Self::Retiring, Self::Closing];

    /// The state after `trigger`, or `None` when it does nothing in this state.
    pub const fn on(self, trigger: HoldTrigger) -> Option<Self> {
        Some(match (self, trigger) {
            (Self::Active, HoldTrigger::Quiet) => Self::Idle,
            (Self::Active, HoldTrigger::QuietToo) | (Self::Idle, HoldTrigger::PeerIdle) => {
                Self::Retiring
            }
            (Self::Idle | Self::Retiring, HoldTrigger::PeerRetiring) => Self::Closing,
            (Self::Idle | Self::Retiring, HoldTrigger::Moved)
            | (Self::Retiring, HoldTrigger::PeerActive) => Self::Active,
            _ => return None,
        })
    }
}

impl HoldTrigger {
    /// All triggers.
    pub const ALL: [Self; 6] = [
        Self::Quiet,
        Self::QuietToo,
        Self::Moved,
        Self::PeerActive,
        Self::PeerIdle,
        Self::PeerRetiring,
    ];
}

/// The machine without its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Machine {
    state: HoldState,
    /// The number that the peer gave to its being quiet; `None` = it is active.
    peer: Option<u32>,
    /// Our own number.
    count: u32,
}

/// What a trigger came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// The new state, if it is another one.
    pub(super) entered: Option<HoldState>,
    /// What the peer is to be told.
    pub(super) say: Option<Activity>,
}

impl Machine {
    fn apply(&mut self, trigger: HoldTrigger) -> Step {
        let Some(new) = self.state.on(trigger) else { return Step::default() };
        if self.state == HoldState::Active {
            self.count = self.count.wrapping_add(1);
        }
        self.state = new;
        Step { entered: Some(new), say: self.statement() }
    }

    /// What the peer is told in this state; `None` for what CLOSE tells.
    fn statement(&self) -> Option<Activity> {
        let count = self.count;
        match self.state {
            HoldState::Active => Some(Activity::Active),
            HoldState::Idle => Some(Activity::Idle { count }),
            HoldState::Retiring => {
                Some(Activity::Retiring { count, answers: self.peer.unwrap_or_default() })
            }
            HoldState::Closing => None,
        }
    }

    fn quiet(&mut self) -> Step {
        self.apply(match self.peer {
            Some(_) => HoldTrigger::QuietToo,
            None => HoldTrigger::Quiet,
        })
    }

    fn heard(&mut self, activity: Activity) -> Step {
        match activity {
            Activity::Active => {
                self.peer = None;
                self.apply(HoldTrigger::PeerActive)
            }
            Activity::Retiring { count, answers } if answers == self.count => {
                self.peer = Some(count);
                self.apply(HoldTrigger::PeerRetiring)
            }
            // The answer to what we said another time says no more than that it is quiet.
            Activity::Idle { count } | Activity::Retiring { count, .. } => {
                self.peer = Some(count);
                self.apply(HoldTrigger::PeerIdle)
            }
        }
    }
}

/// Least time between two looks at a connection that is in use, however short its hold time.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// The machine of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) time: Duration,
    /// Somebody asked for this time; it is no default.
    pub(super) explicit: bool,
    machine: Machine,
    /// The last movement that is known of.
    since: Instant,
    /// When to look again.
    pub(super) look_at: Option<Instant>,
}

impl Hold {
    pub(super) fn new(now: Instant, time: Duration) -> Self {
        let look_at = Some(now + time);
        Self { time, explicit: false, machine: Machine::default(), since: now, look_at }
    }

    pub(super) const fn state(&self) -> HoldState {
        self.machine.state
    }

    fn after(&mut self, now: Instant, step: Step) -> Step {
        match step.entered {
            Some(HoldState::Active) => self.moved(now),
            Some(_) => self.look_at = None,
            None => {}
        }
        step
    }

    /// The peer has said how much it wants.
    pub(super) fn heard(&mut self, now: Instant, activity: Activity) -> Step {
        if activity == Activity::Active && self.state() == HoldState::Active {
            self.moved(now);
        }
        let step = self.machine.heard(activity);
        self.after(now, step)
    }

    /// Something of ours or of the peer's is started.
    pub(super) fn woken(&mut self, now: Instant) -> Step {
        if self.state() == HoldState::Active {
            self.moved(now);
        }
        let step = self.machine.apply(HoldTrigger::Moved);
        self.after(now, step)
    }

    /// It was closing, and something was started after all.
    pub(super) fn revive(&mut self, now: Instant) {
        self.machine.state = HoldState::Active;
        self.moved(now);
    }

    /// Something moves.
    pub(super) fn moved(&mut self, now: Instant) {
        self.since = self.since.max(now);
        self.look_at = Some(self.since + self.time);
    }

    /// The time to look has come: `moved_at` and `open` are what the connection says now.
    pub(super) fn look(&mut self, now: Instant, moved_at: Option<Instant>, open: bool) -> Step {
        self.since = self.since.max(moved_at.unwrap_or(self.since));
        let quiet_at = self.since + self.time;
        if open {
            // The end of the last channel is told; this is for ends that take their time.
            let pause = self.time.div(4).max(LEAST_PAUSE);
            self.look_at = Some(quiet_at.max(now + pause));
            return Step::default();
        }
        if quiet_at > now {
            self.look_at = Some(quiet_at);
            return Step::default();
        }
        let step = self.machine.quiet();
        self.after(now, step)
    }
}

#[cfg(test)]
mod tests;
