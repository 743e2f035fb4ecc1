//! Whether a connection is still wanted: the machine by which two idle sides close it together,
//! without losing what one of them is just starting (behaviours §5, "inactivity").
//!
//! A side is quiet when no channel is open and nothing has moved for its hold time; keep-alives do
//! not count. It says so with an Activity message. The side that becomes quiet second says that it
//! is *retiring*: from then on it starts nothing on the connection. A side that hears that while it
//! is quiet itself may close: nothing can be on its way.

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

    /// What the peer is told on entering the state; `None` for what CLOSE tells.
    pub const fn says(self) -> Option<Activity> {
        match self {
            Self::Active => Some(Activity::Active),
            Self::Idle => Some(Activity::Idle),
            Self::Retiring => Some(Activity::Retiring),
            Self::Closing => None,
        }
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

impl From<Activity> for HoldTrigger {
    fn from(activity: Activity) -> Self {
        match activity {
            Activity::Active => Self::PeerActive,
            Activity::Idle => Self::PeerIdle,
            Activity::Retiring => Self::PeerRetiring,
        }
    }
}

/// The machine of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) time: Duration,
    /// Somebody asked for this time; it is no default.
    pub(super) explicit: bool,
    pub(super) state: HoldState,
    /// What the peer said last.
    peer: Activity,
    /// The last movement that is known of.
    pub(super) since: Instant,
    /// When to look again.
    pub(super) look_at: Option<Instant>,
}

impl Hold {
    pub(super) fn new(now: Instant, time: Duration) -> Self {
        let look_at = Some(now + time);
        let (state, peer) = (HoldState::Active, Activity::Active);
        Self { time, explicit: false, state, peer, since: now, look_at }
    }

    /// Moves the state; gives the new one if it changed.
    pub(super) fn apply(&mut self, now: Instant, trigger: HoldTrigger) -> Option<HoldState> {
        let new = self.state.on(trigger)?;
        self.state = new;
        if new == HoldState::Active {
            self.moved(now);
        } else {
            self.look_at = None;
        }
        Some(new)
    }

    /// The peer has said how much it wants.
    pub(super) fn heard(&mut self, now: Instant, activity: Activity) -> Option<HoldState> {
        self.peer = activity;
        if activity == Activity::Active && self.state == HoldState::Active {
            self.moved(now);
        }
        self.apply(now, activity.into())
    }

    /// Something moves.
    pub(super) fn moved(&mut self, now: Instant) {
        self.since = self.since.max(now);
        self.look_at = Some(self.since + self.time);
    }

    /// The time to look has come: `moved_at` and `open` are what the connection says now.
    pub(super) fn look(
        &mut self,
        now: Instant,
        moved_at: Option<Instant>,
        open: bool,
    ) -> Option<HoldState> {
        self.since = self.since.max(moved_at.unwrap_or(self.since));
        let quiet_at = self.since + self.time;
        if open {
            // The end of the last channel is told; this is for ends that take their time.
            self.look_at = Some(quiet_at.max(now + self.time.div(4)));
            return None;
        }
        if quiet_at > now {
            self.look_at = Some(quiet_at);
            return None;
        }
        let peer_quiet = self.peer != Activity::Active;
        self.apply(now, if peer_quiet { HoldTrigger::QuietToo } else { HoldTrigger::Quiet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashSet, VecDeque};

    /// One side in the model: its state, what the peer said last, and whether it has started
    /// something on the connection that has not ended.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    struct Side {
        state: HoldState,
        peer: Activity,
        /// Something of ours is open.
        open: bool,
        closed: bool,
    }

    /// What is on its way, in order: CONTROL and the requests in it are one stream.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    enum Message {
        Says(Activity),
        Starts,
        Ends,
        Close,
    }

    #[derive(Clone, PartialEq, Eq, Hash, Debug)]
    struct World {
        sides: [Side; 2],
        wires: [VecDeque<Message>; 2],
    }

    fn enter(world: &mut World, at: usize, new: Option<HoldState>) {
        let Some(new) = new else { return };
        world.sides[at].state = new;
        match new.says() {
            Some(activity) => world.wires[at].push_back(Message::Says(activity)),
            None => {
                world.sides[at].closed = true;
                world.wires[at].push_back(Message::Close);
            }
        }
    }

    fn steps(world: &World) -> Vec<World> {
        let mut next = Vec::new();
        for at in 0..2 {
            let side = world.sides[at];
            let mut add = |f: &mut dyn FnMut(&mut World)| {
                let mut w = world.clone();
                f(&mut w);
                if w.wires.iter().all(|wire| wire.len() <= 4) {
                    next.push(w);
                }
            };
            if let Some(message) = world.wires[1 - at].front().copied() {
                add(&mut |w| {
                    w.wires[1 - at].pop_front();
                    if side.closed {
                        assert!(message != Message::Starts, "what was started is lost: {world:?}");
                        return;
                    }
                    let trigger = match message {
                        Message::Says(activity) => {
                            w.sides[at].peer = activity;
                            activity.into()
                        }
                        Message::Starts => {
                            w.sides[at].open = true;
                            HoldTrigger::Moved
                        }
                        Message::Ends => {
                            w.sides[at].open = false;
                            HoldTrigger::Moved
                        }
                        Message::Close => {
                            w.sides[at].closed = true;
                            return;
                        }
                    };
                    let new = side.state.on(trigger);
                    enter(w, at, new);
                });
            }
            if side.closed {
                continue;
            }
            if !side.open {
                add(&mut |w| {
                    let quiet = side.peer != Activity::Active;
                    let trigger = if quiet { HoldTrigger::QuietToo } else { HoldTrigger::Quiet };
                    let new = side.state.on(trigger);
                    enter(w, at, new);
                });
                // A side that is retiring starts nothing.
                if side.state != HoldState::Retiring {
                    add(&mut |w| {
                        let new = side.state.on(HoldTrigger::Moved);
                        enter(w, at, new);
                        w.sides[at].open = true;
                        w.wires[at].push_back(Message::Starts);
                    });
                }
            } else {
                add(&mut |w| {
                    w.sides[at].open = false;
                    w.wires[at].push_back(Message::Ends);
                });
            }
        }
        next.retain(|w| w != world);
        next
    }

    /// Every order of events of two sides: nothing that a side starts meets a closed connection,
    /// and from everywhere two sides that stay quiet come to the close.
    #[test]
    fn two_idle_sides_close_without_losing_what_one_is_starting() {
        let side =
            Side { state: HoldState::Active, peer: Activity::Active, open: false, closed: false };
        let start = World { sides: [side; 2], wires: [VecDeque::new(), VecDeque::new()] };
        let mut seen = HashSet::from([start.clone()]);
        let mut queue = VecDeque::from([start]);
        let mut closes = 0;
        while let Some(world) = queue.pop_front() {
            closes += usize::from(world.sides.iter().all(|s| s.closed));
            for next in steps(&world) {
                if seen.insert(next.clone()) {
                    queue.push_back(next);
                }
            }
        }
        assert!(seen.len() > 500, "{} states", seen.len());
        assert!(closes > 0, "nothing ever closes");
        for world in &seen {
            comes_to_an_end(world);
        }
    }

    /// From `world` on nobody starts anything, and quiet sides become idle.
    fn comes_to_an_end(world: &World) {
        let mut w = world.clone();
        for _ in 0..100 {
            if w.sides.iter().all(|s| s.closed) {
                return;
            }
            let deliverable = (0..2).find(|at| !w.wires[1 - at].is_empty());
            let quiet = (0..2).find(|at| {
                let s = w.sides[*at];
                !s.closed && !s.open && s.state == HoldState::Active
            });
            let ending = (0..2).find(|at| w.sides[*at].open && !w.sides[*at].closed);
            let next = if let Some(at) = deliverable {
                steps(&w).into_iter().find(|n| {
                    n.wires[1 - at].len() < w.wires[1 - at].len() || n.sides[at] != w.sides[at]
                })
            } else if let Some(at) = ending {
                let mut n = w.clone();
                n.sides[at].open = false;
                n.wires[at].push_back(Message::Ends);
                Some(n)
            } else if let Some(at) = quiet {
                let s = w.sides[at];
                let mut n = w.clone();
                let q = s.peer != Activity::Active;
                let new = s.state.on(if q { HoldTrigger::QuietToo } else { HoldTrigger::Quiet });
                enter(&mut n, at, new);
                Some(n)
            } else {
                None
            };
            w = next.unwrap_or_else(|| panic!("nothing happens any more: {w:?}\nfrom {world:?}"));
        }
        panic!("no end from {world:?}: {w:?}");
    }
}
