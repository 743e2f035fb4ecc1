use super::*;
use std::collections::{HashSet, VecDeque};

#[test]
fn a_connection_in_use_is_not_looked_at_again_at_once() {
    for time in [Duration::ZERO, Duration::from_nanos(3), Duration::from_secs(180)] {
        let now = Instant::ZERO + Duration::from_secs(1000);
        let mut hold = Hold::new(Instant::ZERO, time);
        assert_eq!(hold.look(now, None, true).entered, None);
        assert!(hold.look_at >= Some(now + LEAST_PAUSE), "{time:?}: {:?}", hold.look_at);
        let _ = hold.look(now, None, false);
        assert!(hold.look_at.is_none_or(|at| at > now), "{time:?}: {:?}", hold.look_at);
    }
}

/// One side in the model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Side {
    machine: Machine,
    /// Something is open.
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

/// A number that is not the present one.
const STALE: u32 = 1 << 31;
/// Most messages on one wire.
const WIRE: usize = 3;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct World {
    sides: [Side; 2],
    wires: [VecDeque<Message>; 2],
}

impl World {
    /// Of numbers only this matters: whether they are a side's present one, which is called 0 here.
    /// A former one never comes back.
    fn normalised(mut self) -> Self {
        for side in &mut self.sides {
            if side.closed {
                *side = Side { closed: true, ..Side::default() };
            }
        }
        for at in 0..2 {
            let base = self.sides[at].machine.count;
            let of = |n: u32| if n == base { 0 } else { STALE };
            self.sides[at].machine.count = 0;
            let other = &mut self.sides[1 - at].machine;
            other.peer = other.peer.map(of);
            for message in &mut self.wires[at] {
                if let Message::Says(Activity::Idle { count } | Activity::Retiring { count, .. }) =
                    message
                {
                    *count = of(*count);
                }
            }
            for message in &mut self.wires[1 - at] {
                if let Message::Says(Activity::Retiring { answers, .. }) = message {
                    *answers = of(*answers);
                }
            }
        }
        self
    }

    fn after(&mut self, at: usize, step: Step) {
        if let Some(activity) = step.say {
            self.wires[at].push_back(Message::Says(activity));
        }
        if step.entered == Some(HoldState::Closing) {
            self.sides[at].closed = true;
            self.wires[at].push_back(Message::Close);
        }
    }

    fn deliver(&self, at: usize) -> Option<Self> {
        let mut w = self.clone();
        let message = w.wires[1 - at].pop_front()?;
        if w.sides[at].closed {
            assert!(message != Message::Starts, "what was started is lost: {self:?}");
            return Some(w);
        }
        let step = match message {
            Message::Says(activity) => w.sides[at].machine.heard(activity),
            Message::Starts => {
                w.sides[at].open = true;
                w.sides[at].machine.apply(HoldTrigger::Moved)
            }
            Message::Ends => {
                w.sides[at].open = false;
                w.sides[at].machine.apply(HoldTrigger::Moved)
            }
            Message::Close => {
                w.sides[at].closed = true;
                Step::default()
            }
        };
        w.after(at, step);
        Some(w)
    }

    fn quiet(&self, at: usize) -> Option<Self> {
        let side = self.sides[at];
        let mut w = self.clone();
        if side.closed || side.open {
            return None;
        }
        let step = w.sides[at].machine.quiet();
        w.after(at, step);
        Some(w)
    }

    /// A side that is retiring starts nothing.
    fn start(&self, at: usize) -> Option<Self> {
        let side = self.sides[at];
        if side.closed || side.open || side.machine.state == HoldState::Retiring {
            return None;
        }
        let mut w = self.clone();
        let step = w.sides[at].machine.apply(HoldTrigger::Moved);
        w.after(at, step);
        w.sides[at].open = true;
        w.wires[at].push_back(Message::Starts);
        Some(w)
    }

    fn end(&self, at: usize) -> Option<Self> {
        if self.sides[at].closed || !self.sides[at].open {
            return None;
        }
        let mut w = self.clone();
        w.sides[at].open = false;
        w.wires[at].push_back(Message::Ends);
        Some(w)
    }

    fn steps(&self) -> Vec<Self> {
        let each = |at| [self.deliver(at), self.quiet(at), self.start(at), self.end(at)];
        let fits = |w: &Self| w.wires.iter().all(|wire| wire.len() <= WIRE) && w != self;
        (0..2).flat_map(each).flatten().filter(fits).map(Self::normalised).collect()
    }
}

/// Every order of events of two sides: nothing that a side starts meets a closed connection, and
/// from everywhere two sides that stay quiet come to the close.
#[test]
fn two_idle_sides_close_without_losing_what_one_is_starting() {
    let mut seen = HashSet::from([World::default()]);
    let mut queue = VecDeque::from([World::default()]);
    let mut closes = 0;
    while let Some(world) = queue.pop_front() {
        closes += usize::from(world.sides.iter().all(|s| s.closed));
        for next in world.steps() {
            assert!(seen.len() < 400_000, "numbers that only grow: {next:?}");
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    assert!(seen.len() > 1_000, "{} states", seen.len());
    assert!(closes > 0, "nothing ever closes");
    for world in &seen {
        comes_to_an_end(world);
    }
}

/// From `start` on nobody starts anything, and quiet sides become idle.
fn comes_to_an_end(start: &World) {
    let mut w = start.clone();
    for _ in 0..100 {
        if w.sides.iter().all(|s| s.closed) {
            return;
        }
        let deliver = (0..2).find_map(|at| w.deliver(at));
        let end = || (0..2).find_map(|at| w.end(at));
        let quiet = || {
            let active = |at: &usize| w.sides[*at].machine.state == HoldState::Active;
            (0..2).filter(active).find_map(|at| w.quiet(at))
        };
        let next = deliver.or_else(end).or_else(quiet);
        w = next.unwrap_or_else(|| panic!("nothing happens any more: {w:?}\nfrom {start:?}"));
    }
    panic!("no end from {start:?}: {w:?}");
}
