//! How much one client may do.

use super::config::SourceConfig;
use crate::time::{Duration, Instant};

/// A rate with a burst, kept as the one moment at which the client would be back at nothing
/// (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
struct Rate {
    clear_at: Instant,
}

impl Rate {
    /// Takes `units` if that fits into `per_s` with a burst of `burst`.
    fn take(&mut self, now: Instant, units: u64, per_s: u64, burst: u64) -> bool {
        let price = |units: u64| Duration::from_nanos(units.saturating_mul(1_000_000_000) / per_s);
        let clear_at = self.clear_at.max(now) + price(units);
        let fits = clear_at.since(now) <= price(burst);
        if fits {
            self.clear_at = clear_at;
        }
        fits
    }
}

/// The rates of one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    events: Rate,
    bytes: Rate,
    faults: Rate,
    packets: Rate,
    packet_bytes: Rate,
}

impl Limits {
    pub(super) const fn new(now: Instant) -> Self {
        let rate = Rate { clear_at: now };
        Self { events: rate, bytes: rate, faults: rate, packets: rate, packet_bytes: rate }
    }

    /// Whether an event of so many bytes may pass.
    pub(super) fn event(&mut self, now: Instant, bytes: usize, config: &SourceConfig) -> bool {
        let (events, burst) = (config.events_per_s, config.events_burst);
        self.events.take(now, 1, events.into(), burst.into())
            && self.bytes.take(now, bytes as u64, config.bytes_per_s, config.bytes_burst)
    }

    /// Whether a message of so many bytes may be relayed.
    pub(super) fn packet(&mut self, now: Instant, bytes: usize, config: &SourceConfig) -> bool {
        let (packets, burst) = (config.relay_packets_per_s, config.relay_packets_burst);
        let bytes = bytes as u64;
        self.packets.take(now, 1, packets.into(), burst.into())
            && self.packet_bytes.take(
                now,
                bytes,
                config.relay_bytes_per_s,
                config.relay_bytes_burst,
            )
    }

    /// Counts an event that was dropped for what it is; `false` when there were too many.
    pub(super) fn fault(&mut self, now: Instant, config: &SourceConfig) -> bool {
        self.faults.take(now, 1, config.faults_per_s.into(), config.faults_burst.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::from_nanos(5_000_000_000);
        let mut rate = Rate { clear_at: start };
        let passed = (0..100).filter(|_| rate.take(start, 1, 10, 30)).count();
        assert_eq!(passed, 30);
        let mut now = start;
        let mut passed = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            passed += usize::from(rate.take(now, 1, 10, 30));
        }
        assert_eq!(passed, 100, "10 s at 10 a second");
        now += Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| rate.take(now, 1, 10, 30)).count(), 30, "no more is saved");
    }

    #[test]
    fn what_does_not_fit_costs_nothing() {
        let now = Instant::ZERO;
        let mut rate = Rate { clear_at: now };
        assert!(!rate.take(now, 101, 10, 100));
        assert!(rate.take(now, 100, 10, 100));
    }
}
