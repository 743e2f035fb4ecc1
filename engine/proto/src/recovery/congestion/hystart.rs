//! HyStart++ (RFC 9406): leaves slow start when round trips grow, before packets are lost.

use crate::time::Duration;

/// §4.3: bounds of the growth of the round trip that counts.
const MIN_THRESHOLD: Duration = Duration::from_millis(4);
const MAX_THRESHOLD: Duration = Duration::from_millis(16);
const MIN_DIVISOR: u64 = 8;
/// Samples of a round before it is judged.
const SAMPLES: u8 = 8;
/// Rounds of conservative slow start before congestion avoidance.
const CSS_ROUNDS: u8 = 5;
/// How much slower conservative slow start grows.
pub(super) const CSS_DIVISOR: u64 = 4;

/// What slow start should do with an ACK frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Grow by what was acknowledged.
    SlowStart,
    /// Conservative slow start: grow by a quarter of it.
    Conservative,
    /// Slow start is over.
    Exit,
}

/// State of HyStart++ in slow start.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    last_min: Duration,
    round_min: Duration,
    samples: u8,
    /// The round trip at which conservative slow start began; `MAX` outside of it.
    baseline: Duration,
    rounds: u8,
}

impl HyStart {
    pub(super) const fn new() -> Self {
        Self {
            last_min: Duration::MAX,
            round_min: Duration::MAX,
            samples: 0,
            baseline: Duration::MAX,
            rounds: 0,
        }
    }

    pub(super) fn on_ack(&mut self, new_round: bool, sample: Option<Duration>) -> Phase {
        if new_round {
            if self.conservative() {
                self.rounds += 1;
                if self.rounds >= CSS_ROUNDS {
                    return Phase::Exit;
                }
            }
            self.last_min = self.round_min;
            self.round_min = Duration::MAX;
            self.samples = 0;
        }
        if let Some(sample) = sample {
            self.round_min = self.round_min.min(sample);
            self.samples = self.samples.saturating_add(1);
        }
        if self.samples >= SAMPLES {
            if self.conservative() {
                if self.round_min < self.baseline {
                    self.baseline = Duration::MAX;
                    self.rounds = 0;
                }
            } else if self.last_min != Duration::MAX {
                let grown = self.last_min.div(MIN_DIVISOR).clamp(MIN_THRESHOLD, MAX_THRESHOLD);
                if self.round_min >= self.last_min + grown {
                    self.baseline = self.round_min;
                    self.rounds = 0;
                }
            }
        }
        if self.conservative() { Phase::Conservative } else { Phase::SlowStart }
    }

    fn conservative(&self) -> bool {
        self.baseline != Duration::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(hystart: &mut HyStart, ms: u64, samples: u32) -> Phase {
        let sample = Some(Duration::from_millis(ms));
        let mut phase = hystart.on_ack(true, sample);
        for _ in 1..samples {
            phase = hystart.on_ack(false, sample);
        }
        phase
    }

    #[test]
    fn growth_of_an_eighth_starts_conservative_slow_start_and_five_rounds_end_it() {
        let mut h = HyStart::new();
        assert_eq!(round(&mut h, 80, 10), Phase::SlowStart);
        assert_eq!(round(&mut h, 89, 10), Phase::SlowStart);
        assert_eq!(round(&mut h, 101, 10), Phase::Conservative);
        for _ in 0..4 {
            assert_eq!(round(&mut h, 110, 10), Phase::Conservative);
        }
        assert_eq!(h.on_ack(true, None), Phase::Exit);
    }

    #[test]
    fn a_shorter_round_trip_resumes_slow_start() {
        let mut h = HyStart::new();
        round(&mut h, 40, 8);
        assert_eq!(round(&mut h, 60, 8), Phase::Conservative);
        assert_eq!(round(&mut h, 50, 8), Phase::SlowStart);
    }

    #[test]
    fn few_samples_decide_nothing() {
        let mut h = HyStart::new();
        round(&mut h, 40, 8);
        assert_eq!(round(&mut h, 80, 7), Phase::SlowStart);
    }
}
