//! Whether a shard looks again for a while before it sleeps.
//!
//! A sleep and the wake-up out of it cost both sides: the sleeper its caches and two switches, the
//! waker a call into the scheduler, and on a virtual machine an interrupt to another processor. As
//! long as nearly every wait is shorter than that, it is cheaper to look again than to sleep.

use trunkline_proto::time::Duration;

/// Waits up to this long are spun through, if nearly all are.
const SHORT: Duration = Duration::from_micros(20);
/// A short wait counts one up to this, a long one [`LONG_COUNTS`] down.
const HIGHEST: u32 = 32;
/// The score from which on short waits are spun through.
const SPINS_FROM: u32 = 16;
/// With four, the score rises only while more than four of five waits are short.
const LONG_COUNTS: u32 = 4;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Spin {
    /// What the application wants: this long after the last work.
    fixed: Option<Duration>,
    score: u32,
}

impl Spin {
    /// `fixed`: so long after the last work; otherwise as it pays.
    pub(crate) const fn new(fixed: Option<Duration>) -> Self {
        Self { fixed, score: 0 }
    }

    /// How long to look again, `idle` after the last work.
    pub(crate) fn budget(&self, idle: Duration) -> Duration {
        match self.fixed {
            Some(fixed) => fixed.saturating_sub(idle),
            None if self.score >= SPINS_FROM => SHORT,
            None => Duration::ZERO,
        }
    }

    /// A wait took this long.
    pub(crate) fn learn(&mut self, waited: Duration) {
        self.score = if waited <= SHORT {
            (self.score + 1).min(HIGHEST)
        } else {
            self.score.saturating_sub(LONG_COUNTS)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_micros(21);

    #[test]
    fn a_shard_spins_only_while_waits_are_short() {
        let mut spin = Spin::new(None);
        for _ in 0..15 {
            spin.learn(SHORT);
        }
        assert_eq!(spin.budget(Duration::ZERO), Duration::ZERO);
        spin.learn(SHORT);
        assert_eq!(spin.budget(Duration::ZERO), SHORT);
        for _ in 0..100 {
            spin.learn(SHORT);
        }
        // Five long ones are enough to give it up.
        for _ in 0..5 {
            spin.learn(LONG);
        }
        assert_eq!(spin.budget(Duration::ZERO), Duration::ZERO);
        // With one long wait in five it never begins again.
        for turn in 0..1000 {
            spin.learn(if turn % 5 == 0 { LONG } else { SHORT });
            assert_eq!(spin.budget(Duration::ZERO), Duration::ZERO, "{turn}");
        }
    }

    #[test]
    fn a_fixed_time_counts_from_the_last_work() {
        let mut spin = Spin::new(Some(Duration::from_micros(50)));
        spin.learn(LONG);
        assert_eq!(spin.budget(Duration::from_micros(20)), Duration::from_micros(30));
        assert_eq!(spin.budget(Duration::from_micros(60)), Duration::ZERO);
        assert_eq!(Spin::new(Some(Duration::ZERO)).budget(Duration::ZERO), Duration::ZERO);
    }
}
