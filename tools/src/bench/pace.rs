//! When things are meant to happen: a fixed rate that does not wait for answers, so that a slow
//! answer makes the following ones late instead of fewer (no coordinated omission).

use std::time::{Duration, Instant};

/// Events at equal distances.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Instant,
    every: Duration,
    /// Events that took place.
    done: u64,
}

impl Schedule {
    /// One every `every` from `start` on.
    pub const fn new(start: Instant, every: Duration) -> Self {
        Self { start, every, done: 0 }
    }

    /// As many events a second.
    pub fn per_second(start: Instant, events: f64) -> Self {
        Self::new(start, Duration::from_secs_f64(1.0 / events.max(1e-3)))
    }

    /// The same, later by `part` of the distance, in whole slices where there are some in it.
    pub fn after(self, part: f64, slice: Duration) -> Self {
        let mut after = self.every.mul_f64(part);
        if self.every > slice {
            let slices = after.as_nanos() / slice.as_nanos().max(1);
            after = slice * u32::try_from(slices).unwrap_or(u32::MAX);
        }
        Self { start: self.start + after, ..self }
    }

    /// Whether an event should have taken place by `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.time_of(self.done) <= now
    }

    /// An event took place.
    pub const fn advance(&mut self) {
        self.done += 1;
    }

    /// When event `number`, counted from 0, is meant to take place.
    pub fn time_of(&self, number: u64) -> Instant {
        let ns = self.every.as_nanos().saturating_mul(u128::from(number));
        self.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// From `now` to the next event; zero when it is due.
    pub fn until_next(&self, now: Instant) -> Duration {
        self.time_of(self.done).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_events_keep_their_times() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut schedule = Schedule::new(start, ms(2));
        assert!(schedule.is_due(start));
        schedule.advance();
        assert!(!schedule.is_due(start + ms(1)));
        assert_eq!(schedule.until_next(start + ms(1)), ms(1));
        // Nobody looked for 5 ms: two are due, at the times they were meant for.
        let late = start + ms(5);
        let mut due = 0;
        while schedule.is_due(late) {
            schedule.advance();
            due += 1;
        }
        assert_eq!((due, schedule.time_of(2)), (2, start + ms(4)));
        assert_eq!(schedule.until_next(late), ms(1));
    }

    #[test]
    fn a_rate() {
        let start = Instant::now();
        let schedule = Schedule::per_second(start, 4.0);
        assert_eq!(schedule.time_of(8), start + Duration::from_secs(2));
        let ms = Duration::from_millis;
        let later = schedule.after(0.5, ms(300));
        assert_eq!((later.time_of(0), later.time_of(1)), (start + ms(125), start + ms(375)));
        assert_eq!(schedule.after(0.5, ms(10)).time_of(0), start + ms(120));
        assert_eq!(schedule.after(0.02, ms(10)).time_of(0), start);
    }
}
