//! When tick messages leave: a fixed schedule that a late sender catches up with, so that its
//! lateness is part of the delays (no coordinated omission).

use crate::counters::unix_ns;
use crate::workload::TICKS_PER_S;
use std::time::{Duration, Instant};

/// Parts of a tick over which independent clients are spread.
pub const CLIENT_SLOTS: usize = 32;
/// A server sends to everybody at once.
pub const SERVER_SLOTS: usize = 1;

/// A schedule of ticks.
pub struct Pacer {
    begun: Instant,
    begun_unix_ns: u64,
    slots: usize,
    turn: u64,
}

impl Pacer {
    /// Each tick in `slots` parts, from now on.
    pub fn new(slots: usize) -> Self {
        Self { begun: Instant::now(), begun_unix_ns: unix_ns(), slots: slots.max(1), turn: 0 }
    }

    fn offset_ns(&self) -> u64 {
        self.turn * 1_000_000_000 / (u64::from(TICKS_PER_S) * self.slots as u64)
    }

    /// When the next part is due.
    pub fn next(&self) -> Instant {
        self.begun + Duration::from_nanos(self.offset_ns())
    }

    /// The part that is due, and the time that it was meant for in nanoseconds since 1970.
    pub fn due(&mut self, now: Instant) -> Option<(usize, u64)> {
        if now < self.next() {
            return None;
        }
        let due = ((self.turn % self.slots as u64) as usize, self.begun_unix_ns + self.offset_ns());
        self.turn += 1;
        Some(due)
    }

    /// Parts of a tick: members of a part are so many connections apart.
    pub const fn stride(&self) -> usize {
        self.slots
    }

    /// Which of `count` connections belong to a part.
    pub fn members(&self, slot: usize, count: usize) -> impl Iterator<Item = usize> + use<> {
        (slot..count).step_by(self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_its_part_and_every_part_its_time() {
        let mut pacer = Pacer::new(CLIENT_SLOTS);
        let end = pacer.begun + Duration::from_secs(1);
        let mut seen = vec![0; 1000];
        let mut last = 0;
        while let Some((slot, at)) = pacer.due(end) {
            assert!(at >= last);
            last = at;
            pacer.members(slot, seen.len()).for_each(|n| seen[n] += 1);
        }
        assert!(seen.iter().all(|n| (30..=31).contains(n)), "{seen:?}");
        assert!(pacer.next() > end);
    }
}
