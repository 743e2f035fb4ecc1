//! Round-trip time of one path (RFC 9002 §5).

use crate::time::Duration;

/// Assumed round trip before the first sample (RFC 9002 §6.2.2).
pub const INITIAL_RTT: Duration = Duration::from_millis(333);
/// Smallest span that loss and probe timers distinguish (RFC 9002 §6.1.2).
pub const GRANULARITY: Duration = Duration::from_millis(1);

/// Estimator of the round-trip time of one path. All values are nanosecond [`Duration`]s.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    latest: Duration,
    smoothed: Duration,
    var: Duration,
    min: Duration,
    sampled: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Self {
            latest: INITIAL_RTT,
            smoothed: INITIAL_RTT,
            var: INITIAL_RTT.div(2),
            min: INITIAL_RTT,
            sampled: false,
        }
    }
}

impl Rtt {
    /// No sample yet: [`INITIAL_RTT`] everywhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a sample. `ack_delay` is what the peer says it waited, already limited to its
    /// `max_ack_delay`. Gives back the sample without that delay, where the delay is credible.
    pub(super) fn update(&mut self, sample: Duration, ack_delay: Duration) -> Duration {
        self.latest = sample;
        if !self.sampled {
            self.sampled = true;
            self.min = sample;
            self.smoothed = sample;
            self.var = sample.div(2);
            return sample;
        }
        self.min = self.min.min(sample);
        let adjusted =
            if sample >= self.min + ack_delay { sample.saturating_sub(ack_delay) } else { sample };
        let smoothed = self.smoothed.as_nanos();
        let deviation = smoothed.abs_diff(adjusted.as_nanos());
        let var = self.var.as_nanos();
        self.var = Duration::from_nanos(var - var / 4 + deviation / 4);
        self.smoothed = Duration::from_nanos(smoothed - smoothed / 8 + adjusted.as_nanos() / 8);
        adjusted
    }

    /// After persistent congestion the minimum starts afresh (RFC 9002 §5.2).
    pub(super) fn reset_min(&mut self) {
        self.min = self.latest;
    }

    /// The newest sample.
    pub const fn latest(&self) -> Duration {
        self.latest
    }

    /// The exponentially weighted mean.
    pub const fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// The mean deviation.
    pub const fn var(&self) -> Duration {
        self.var
    }

    /// The smallest sample of this path.
    pub const fn min(&self) -> Duration {
        self.min
    }

    /// Whether there was a sample on this path.
    pub const fn has_sample(&self) -> bool {
        self.sampled
    }

    /// Probe timeout without backoff (RFC 9002 §6.2.1).
    pub fn pto(&self, max_ack_delay: Duration) -> Duration {
        self.smoothed + self.var.mul(4).max(GRANULARITY) + max_ack_delay
    }

    /// Time threshold of loss detection, in eighths of a round trip (RFC 9002 §6.1.2: nine).
    pub(super) fn loss_delay(&self, eighths: u64) -> Duration {
        self.smoothed.max(self.latest).mul(eighths).div(8).max(GRANULARITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn first_sample_sets_everything() {
        let mut rtt = Rtt::new();
        assert!(!rtt.has_sample());
        rtt.update(MS(80), MS(20));
        assert_eq!(
            (rtt.smoothed(), rtt.var(), rtt.min(), rtt.latest()),
            (MS(80), MS(40), MS(80), MS(80))
        );
    }

    #[test]
    fn delay_is_subtracted_only_down_to_the_minimum() {
        let mut rtt = Rtt::new();
        rtt.update(MS(80), MS(0));
        assert_eq!(rtt.update(MS(100), MS(20)), MS(80));
        assert_eq!(rtt.update(MS(90), MS(20)), MS(90));
        assert_eq!(rtt.min(), MS(80));
    }

    #[test]
    fn pto_and_loss_delay_respect_the_granularity() {
        let mut rtt = Rtt::new();
        for _ in 0..200 {
            rtt.update(Duration::from_micros(40), Duration::ZERO);
        }
        assert!(rtt.pto(MS(25)) >= MS(26));
        assert!(rtt.pto(MS(25)) < MS(27));
        assert_eq!(rtt.loss_delay(9), GRANULARITY);
    }

    #[test]
    fn extreme_samples_do_not_overflow() {
        let mut rtt = Rtt::new();
        rtt.update(Duration::MAX, Duration::ZERO);
        rtt.update(Duration::ZERO, Duration::MAX);
        rtt.update(Duration::MAX, Duration::MAX);
        let _ = (rtt.pto(Duration::MAX), rtt.loss_delay(16));
    }
}
