//! A hierarchical timer wheel: one deadline per slot, moved and removed in constant time.
//!
//! Used by the endpoint (a deadline per connection) and by the shard (the application's timers).
//! It reads no clock. Ticks are 2^14 ns (about 16 µs); eight levels of 64 buckets reach beyond any
//! deadline that can be configured.

use crate::time::Instant;

const TICK_BITS: u32 = 14;
const LEVEL_BITS: u32 = 6;
const LEVELS: usize = 8;
const BUCKETS: usize = 1 << LEVEL_BITS;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    at: Instant,
    prev: u32,
    next: u32,
    bucket: u16,
}

const IDLE: Node = Node { at: Instant::ZERO, prev: NONE, next: NONE, bucket: u16::MAX };

/// Deadlines of numbered slots.
#[derive(Debug)]
pub struct TimerWheel {
    nodes: Vec<Node>,
    heads: Box<[u32; LEVELS * BUCKETS]>,
    occupied: [u64; LEVELS],
    /// The tick up to which everything has been handed out.
    tick: u64,
    len: usize,
}

/// Moves a deadline that does not matter to the millisecond forward, by at most 2^26 ns (67 ms), to
/// where deadlines of many slots meet: they are then due in one turn. It is the start of a bucket of
/// the third level, so that the wheel does not have to be turned on the way there either.
pub const fn coarse(at: Instant) -> Instant {
    const BITS: u32 = TICK_BITS + 2 * LEVEL_BITS;
    Instant::from_nanos(at.as_nanos() >> BITS << BITS)
}

fn tick_of(at: Instant) -> u64 {
    at.as_nanos() >> TICK_BITS
}

impl TimerWheel {
    /// An empty wheel whose time starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            nodes: Vec::new(),
            heads: Box::new([NONE; LEVELS * BUCKETS]),
            occupied: [0; LEVELS],
            tick: tick_of(now),
            len: 0,
        }
    }

    /// Number of slots with a deadline.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no slot has a deadline.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The deadline of `slot`.
    pub fn deadline(&self, slot: u32) -> Option<Instant> {
        self.nodes.get(slot as usize).filter(|n| n.bucket != u16::MAX).map(|n| n.at)
    }

    /// Sets, moves (`Some`) or removes (`None`) the deadline of `slot`.
    pub fn set(&mut self, slot: u32, at: Option<Instant>) {
        if self.deadline(slot) == at {
            return;
        }
        self.unlink(slot);
        if let Some(at) = at {
            if self.nodes.len() <= slot as usize {
                self.nodes.resize(slot as usize + 1, IDLE);
            }
            self.link(slot, at);
        }
    }

    /// Appends the slots whose deadline is at or before `now` to `due` and removes their deadlines.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        let target = tick_of(now);
        while self.len > 0 {
            self.drain(now, due);
            let Some(next) = self.next_tick().filter(|t| *t <= target) else { break };
            if next <= self.tick {
                break;
            }
            self.tick = next;
            self.cascade();
        }
        self.tick = self.tick.max(target);
        // Entering a new tick may have passed the start of upper buckets that hold later deadlines.
        self.cascade();
    }

    /// No deadline lies before this moment; `None` when there is none at all.
    pub fn next(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let next = self.next_tick()?;
        let bucket = (next & (BUCKETS as u64 - 1)) as usize;
        let mut slot = self.heads[bucket];
        if next >> LEVEL_BITS != self.tick >> LEVEL_BITS || slot == NONE {
            return Some(Instant::from_nanos(next << TICK_BITS));
        }
        let mut earliest = Instant::from_nanos(u64::MAX);
        while slot != NONE {
            let node = &self.nodes[slot as usize];
            earliest = earliest.min(node.at);
            slot = node.next;
        }
        Some(earliest)
    }

    /// The first tick, from the current one on, whose bucket (on some level) holds something.
    fn next_tick(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_on(level)).min()
    }

    fn next_on(&self, level: usize) -> Option<u64> {
        let bits = self.occupied[level];
        if bits == 0 {
            return None;
        }
        let shift = LEVEL_BITS * level as u32;
        let position = self.tick >> shift;
        let here = (position & (BUCKETS as u64 - 1)) as u32;
        // Buckets ahead of us in this turn come first, then those of the next turn.
        let ahead = bits.rotate_right(here).trailing_zeros();
        let start = (position + u64::from(ahead)) << shift;
        Some(start.max(self.tick))
    }

    fn drain(&mut self, now: Instant, due: &mut Vec<u32>) {
        let mut slot = self.heads[(self.tick & (BUCKETS as u64 - 1)) as usize];
        while slot != NONE {
            let node = self.nodes[slot as usize];
            if node.at <= now {
                self.unlink(slot);
                due.push(slot);
            }
            slot = node.next;
        }
    }

    /// Moves what lies in the current bucket of every upper level down.
    fn cascade(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = LEVEL_BITS * level as u32;
            let bucket = level * BUCKETS + ((self.tick >> shift) & (BUCKETS as u64 - 1)) as usize;
            if self.occupied[level] & (1 << (bucket % BUCKETS)) == 0 {
                continue;
            }
            let mut slot = self.heads[bucket];
            while slot != NONE {
                let node = self.nodes[slot as usize];
                if self.bucket_of(node.at) != bucket {
                    self.unlink(slot);
                    self.link(slot, node.at);
                }
                slot = node.next;
            }
        }
    }

    fn bucket_of(&self, at: Instant) -> usize {
        let tick = tick_of(at).max(self.tick);
        let distance = tick ^ self.tick;
        let level = if distance == 0 { 0 } else { (distance.ilog2() / LEVEL_BITS) as usize };
        let level = level.min(LEVELS - 1);
        let shift = LEVEL_BITS * level as u32;
        level * BUCKETS + ((tick >> shift) & (BUCKETS as u64 - 1)) as usize
    }

    fn link(&mut self, slot: u32, at: Instant) {
        let bucket = self.bucket_of(at);
        let head = self.heads[bucket];
        self.nodes[slot as usize] = Node { at, prev: NONE, next: head, bucket: bucket as u16 };
        if head != NONE {
            self.nodes[head as usize].prev = slot;
        }
        self.heads[bucket] = slot;
        self.occupied[bucket / BUCKETS] |= 1 << (bucket % BUCKETS);
        self.len += 1;
    }

    fn unlink(&mut self, slot: u32) {
        let Some(node) = self.nodes.get(slot as usize).copied().filter(|n| n.bucket != u16::MAX)
        else {
            return;
        };
        if node.prev == NONE {
            self.heads[node.bucket as usize] = node.next;
        } else {
            self.nodes[node.prev as usize].next = node.next;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        let bucket = node.bucket as usize;
        if self.heads[bucket] == NONE {
            self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        }
        self.nodes[slot as usize] = IDLE;
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn fires_in_order_and_not_early() {
        let start = Instant::from_nanos(5_000_000_000);
        let mut wheel = TimerWheel::new(start);
        for i in 0..1000u32 {
            wheel.set(i, Some(start + Duration::from_micros(u64::from(i) * 977)));
        }
        let mut due = Vec::new();
        let mut now = start;
        let mut fired = 0;
        while let Some(next) = wheel.next() {
            now = now.max(next);
            due.clear();
            wheel.expire(now, &mut due);
            for slot in &due {
                assert!(start + Duration::from_micros(u64::from(*slot) * 977) <= now);
            }
            fired += due.len();
        }
        assert_eq!(fired, 1000);
    }

    #[test]
    fn coarse_deadlines_meet_and_come_without_turns_on_the_way() {
        let start = Instant::from_nanos(5_000_000_000);
        let mut wheel = TimerWheel::new(start);
        for i in 0..1000u32 {
            let at = start + Duration::from_micros(2_000_000 + u64::from(i) * 100);
            let moved = coarse(at);
            assert!(moved <= at && at.since(moved) < Duration::from_millis(68));
            wheel.set(i, Some(moved));
        }
        let mut due = Vec::new();
        let mut turns = 0;
        while let Some(next) = wheel.next() {
            due.clear();
            wheel.expire(next, &mut due);
            assert!(!due.is_empty(), "a turn for nothing");
            turns += 1;
        }
        assert!(turns <= 3, "{turns} turns");
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(ops in proptest::collection::vec((0u32..40, 0u64..1 << 44, 0u64..1 << 36), 1..200)) {
            let mut now = Instant::from_nanos(123_456_789);
            let mut wheel = TimerWheel::new(now);
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            let mut due = Vec::new();
            for (slot, ahead, step) in ops {
                let at = now + Duration::from_nanos(ahead >> (slot % 30));
                if slot % 7 == 0 {
                    wheel.set(slot, None);
                    model.remove(&slot);
                } else {
                    wheel.set(slot, Some(at));
                    model.insert(slot, at);
                }
                prop_assert_eq!(wheel.len(), model.len());
                match (wheel.next(), model.values().min()) {
                    (None, None) => {}
                    (Some(next), Some(first)) => prop_assert!(next <= *first, "{:?} after {:?}", next, first),
                    other => prop_assert!(false, "{:?}", other),
                }
                now += Duration::from_nanos(step >> (slot % 24));
                due.clear();
                wheel.expire(now, &mut due);
                due.sort_unstable();
                let expected: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(s, _)| *s).collect();
                prop_assert_eq!(&due, &expected);
                model.retain(|_, at| *at > now);
            }
            // Following `next` alone ends with an empty wheel.
            let mut steps = 0;
            while let Some(next) = wheel.next() {
                now = now.max(next);
                due.clear();
                wheel.expire(now, &mut due);
                steps += 1;
                prop_assert!(steps < 10_000);
            }
        }
    }
}
