//! Spreads a window over a round trip (RFC 9002 §7.7), in bursts that keep GSO trains worthwhile.
//!
//! A bucket of bytes. It fills with the controller's rate and holds one burst; a sender that was
//! told to wait and whose timer came late is given what it missed, so that coarse timers cost no
//! throughput.

use crate::time::{Duration, Instant};

/// Packets of one burst on a LAN: a whole GSO train.
const LAN_BURST_PACKETS: u64 = 64;
/// Time of rate that one burst may hold.
const BURST_TIME: Duration = Duration::from_millis(1);
/// Lateness of a timer that is made good; who comes later had nothing to send.
const MAX_LATE: Duration = Duration::from_millis(5);

/// Bytes that `rate` bytes a second make in `time`.
fn bytes_in(rate: u64, time: Duration) -> u64 {
    rate.saturating_mul(time.as_nanos()) / 1_000_000_000
}

/// How long one burst may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Burst {
    /// On a LAN: a whole train, at any rate.
    Lan,
    /// What the rate makes in a millisecond, at most so many packets.
    Packets(u64),
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacer {
    tokens: u64,
    refilled: Instant,
    /// The sender was told to come back at this moment.
    wait: Option<Instant>,
}

impl Pacer {
    /// A path that nothing was sent on; the first `initial` bytes may leave at once.
    pub(super) const fn new(now: Instant, initial: u64) -> Self {
        Self { tokens: initial, refilled: now, wait: None }
    }

    /// Bytes that may leave now as one burst, at least `packet`, or when to come back. `rate` is
    /// in bytes a second, `packet` the current packet size, `longest` the longest burst.
    pub(super) fn budget(
        &mut self,
        now: Instant,
        rate: u64,
        packet: u64,
        longest: Burst,
    ) -> Result<u64, Instant> {
        let rate = rate.max(1);
        let slice = bytes_in(rate, BURST_TIME);
        let burst = match longest {
            Burst::Lan => packet * LAN_BURST_PACKETS,
            Burst::Packets(most) => slice.clamp(packet * 2, packet * most.max(2)),
        };
        let mut room = burst;
        if let Some(at) = self.wait {
            if now < at {
                return Err(at);
            }
            self.wait = None;
            let late = now.since(at);
            if late <= MAX_LATE {
                room = room.saturating_add(bytes_in(rate, late));
            }
        }
        let gained = bytes_in(rate, now.since(self.refilled));
        if gained > 0 {
            self.refilled = now;
            if self.tokens < room {
                self.tokens = self.tokens.saturating_add(gained).min(room);
            }
        }
        if self.tokens >= packet {
            return Ok(self.tokens.min(burst.max(packet)));
        }
        let wanted = slice.clamp(packet, burst) - self.tokens;
        let ns = wanted.saturating_mul(1_000_000_000) / rate + 1;
        let at = self.refilled + Duration::from_nanos(ns);
        let at = at.max(now + Duration::from_nanos(1));
        self.wait = Some(at);
        Err(at)
    }

    /// `bytes` have left.
    pub(super) fn on_sent(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 1200;
    const BURST_PACKETS: u64 = 16;
    const BURST: Burst = Burst::Packets(BURST_PACKETS);

    /// Bytes sent in `span` by a sender whose timer fires up to `late` after what was asked.
    fn send_for(span: Duration, rate: u64, late: Duration) -> (u64, u64) {
        let start = Instant::from_nanos(1);
        let mut now = start;
        let mut pacer = Pacer::new(now, 0);
        let (mut sent, mut longest) = (0, 0);
        while now.since(start) < span {
            match pacer.budget(now, rate, PACKET, BURST) {
                Ok(n) => {
                    let n = n / PACKET * PACKET;
                    pacer.on_sent(n);
                    sent += n;
                    longest = longest.max(n);
                }
                Err(at) => {
                    assert!(at > now);
                    now = at + late;
                }
            }
        }
        (sent, longest)
    }

    #[test]
    fn holds_the_rate_at_every_speed() {
        for rate in [10_000, 1_000_000, 12_500_000, 125_000_000, 1_250_000_000] {
            for late in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(2)] {
                let span = Duration::from_secs(if rate < 100_000 { 20 } else { 1 });
                let (sent, longest) = send_for(span, rate, late);
                let wanted = rate as f64 * span.as_secs_f64();
                let ratio = sent as f64 / wanted;
                assert!((0.9..=1.1).contains(&ratio), "{rate} B/s, late {late:?}: {ratio}");
                assert!(longest <= PACKET * BURST_PACKETS, "burst of {longest}");
            }
        }
    }

    #[test]
    fn idle_time_buys_one_burst_only() {
        let mut now = Instant::from_nanos(1);
        let mut pacer = Pacer::new(now, 0);
        now += Duration::from_secs(60);
        let rate = 100_000_000;
        let mut sent = 0;
        while let Ok(n) = pacer.budget(now, rate, PACKET, BURST) {
            pacer.on_sent(n);
            sent += n;
        }
        assert!(sent <= PACKET * BURST_PACKETS, "{sent}");
    }

    #[test]
    fn first_window_leaves_at_once() {
        let now = Instant::from_nanos(5);
        let mut pacer = Pacer::new(now, 10 * PACKET);
        let mut sent = 0;
        while let Ok(n) = pacer.budget(now, 24_000, PACKET, BURST) {
            pacer.on_sent(n);
            sent += n;
        }
        assert_eq!(sent, 10 * PACKET);
    }
}
