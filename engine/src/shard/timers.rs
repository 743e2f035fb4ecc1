//! Timers of the application, on the same wheel that the protocol uses for its own.

use crate::handle::TimerId;
use trunkline_proto::time::Instant;
use trunkline_proto::wheel::TimerWheel;

struct Slot {
    generation: u32,
    token: u64,
}

/// Timers of one shard.
pub(crate) struct AppTimers {
    wheel: TimerWheel,
    slots: Vec<Slot>,
    free: Vec<u32>,
    due: Vec<u32>,
}

impl AppTimers {
    pub(crate) fn new(now: Instant) -> Self {
        Self { wheel: TimerWheel::new(now), slots: Vec::new(), free: Vec::new(), due: Vec::new() }
    }

    pub(crate) fn set(&mut self, at: Instant, token: u64) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, token: 0 });
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.token = token;
        self.wheel.set(slot, Some(at));
        TimerId { slot, generation: entry.generation }
    }

    /// `false` when it was stale: fired or cancelled before.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        let known = self.slots.get(id.slot as usize).is_some_and(|s| s.generation == id.generation);
        if !known || self.wheel.deadline(id.slot).is_none() {
            return false;
        }
        self.wheel.set(id.slot, None);
        self.free.push(id.slot);
        true
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// Moves the tokens of all timers that are due into `tokens`.
    pub(crate) fn expire(&mut self, now: Instant, tokens: &mut Vec<u64>) {
        if self.wheel.next().is_none_or(|next| next > now) {
            return;
        }
        self.wheel.expire(now, &mut self.due);
        for slot in self.due.drain(..) {
            tokens.push(self.slots[slot as usize].token);
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_proto::time::Duration;

    #[test]
    fn fires_once_and_can_be_cancelled() {
        let start = Instant::from_nanos(1_000_000_000);
        let ms = |n| start + Duration::from_millis(n);
        let mut timers = AppTimers::new(start);
        let a = timers.set(ms(5), 1);
        let b = timers.set(ms(10), 2);
        let mut tokens = Vec::new();
        timers.expire(ms(4), &mut tokens);
        assert!(tokens.is_empty());
        assert!(timers.next().unwrap() <= ms(5));
        timers.expire(ms(6), &mut tokens);
        assert_eq!(tokens, [1]);
        assert!(!timers.cancel(a), "it has fired");
        assert!(timers.cancel(b));
        assert!(!timers.cancel(b));
        assert_eq!(timers.next(), None);
        // The slot of `a` lives again; the old name stays stale.
        let c = timers.set(ms(20), 3);
        assert!(!timers.cancel(a));
        assert!(!timers.cancel(b));
        assert!(timers.cancel(c));
    }
}
