//! CUBIC (RFC 9438) with HyStart++ (RFC 9406) in slow start.

use super::hystart::{CSS_DIVISOR, HyStart, Phase};
use super::{AckEvent, Control, MAX_WINDOW, MIN_WINDOW_PACKETS, Signal, initial_window};
use crate::recovery::rtt::Rtt;
use crate::time::Instant;

/// Aggressiveness, in packets per second cubed (§4.1).
const C: f64 = 0.4;
/// What a congestion event leaves of the window (§4.6).
const BETA: f64 = 0.7;
/// Growth of the Reno-friendly estimate in packets per window (§4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// What one congestion event changes, for undoing it.
#[derive(Clone, Copy, Debug)]
struct Curve {
    /// Congestion window in bytes.
    window: f64,
    /// Slow-start threshold in bytes.
    ssthresh: f64,
    /// Window at the last congestion event, after fast convergence.
    w_max: f64,
    /// Window just before the last congestion event.
    prior: f64,
    /// The window that Reno would have.
    w_est: f64,
    /// Seconds after the epoch's start at which the curve reaches `w_max`.
    k: f64,
    /// When the present growth began; `None` until the first ACK of it.
    epoch: Option<Instant>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Cubic {
    curve: Curve,
    /// The state before the last congestion event.
    before: Option<Box<Curve>>,
    hystart: HyStart,
    packet: f64,
    last_ack: Instant,
}

impl Cubic {
    /// An initial window of packets of `packet` bytes.
    pub fn new(packet: u64) -> Self {
        Self {
            curve: Curve {
                window: initial_window(packet) as f64,
                ssthresh: f64::INFINITY,
                w_max: 0.0,
                prior: 0.0,
                w_est: 0.0,
                k: 0.0,
                epoch: None,
            },
            before: None,
            hystart: HyStart::new(),
            packet: packet as f64,
            last_ack: Instant::ZERO,
        }
    }

    fn slow_start(&self) -> bool {
        self.curve.window < self.curve.ssthresh
    }

    fn min_window(&self) -> f64 {
        MIN_WINDOW_PACKETS as f64 * self.packet
    }

    /// RFC 9406. Growth only while the window is used (RFC 9002 §7.8): at least half of it.
    fn grow_slow_start(&mut self, ack: &AckEvent<'_>) {
        let phase = self.hystart.on_ack(ack.new_round, ack.sample);
        if phase == Phase::Exit {
            self.curve.ssthresh = self.curve.window;
            self.curve.w_max = self.curve.window;
            self.curve.prior = self.curve.window;
            self.curve.epoch = None;
            return;
        }
        if self.curve.window >= 2.0 * ack.peak as f64 {
            return;
        }
        let divisor = if phase == Phase::Conservative { CSS_DIVISOR } else { 1 };
        self.curve.window += (ack.growth / divisor) as f64;
        self.curve.window = self.curve.window.min(self.curve.ssthresh.max(self.min_window()));
    }

    /// RFC 9438 §4.2–4.5.
    fn grow_avoidance(&mut self, ack: &AckEvent<'_>) {
        let c = &mut self.curve;
        let slack = (3.0 * self.packet).max(c.window / 16.0);
        if (ack.peak as f64) + slack < c.window {
            // The application does not use the window: its clock stands still (§5.8).
            if let Some(epoch) = &mut c.epoch {
                *epoch += ack.now.since(self.last_ack);
            }
            return;
        }
        let scale = C * self.packet;
        let epoch = *c.epoch.get_or_insert_with(|| {
            if c.w_max < c.window {
                c.w_max = c.window;
            }
            c.k = ((c.w_max - c.window) / scale).cbrt();
            c.w_est = c.window;
            ack.now
        });
        let acked = ack.growth as f64;
        let t = ack.now.since(epoch).as_secs_f64();
        let curve = |t: f64| scale * (t - c.k).powi(3) + c.w_max;
        let alpha = if c.w_est < c.prior { ALPHA } else { 1.0 };
        let ahead = curve(t + ack.rtt.smoothed().as_secs_f64());
        let now = curve(t);
        c.w_est += alpha * self.packet * acked / c.window;
        if now < c.w_est {
            c.window = c.window.max(c.w_est);
        } else {
            let target = ahead.clamp(c.window, 1.5 * c.window);
            c.window += (target - c.window) * (acked / c.window).min(1.0);
        }
    }
}

impl Control for Cubic {
    fn on_ack(&mut self, ack: &AckEvent<'_>) {
        if self.slow_start() {
            self.grow_slow_start(ack);
        } else if ack.growth > 0 {
            self.grow_avoidance(ack);
        }
        self.curve.window = self.curve.window.min(MAX_WINDOW as f64);
        self.last_ack = ack.now;
    }

    fn on_congestion(&mut self, signal: Signal) {
        let min = self.min_window();
        if signal == Signal::Persistent {
            // Follows a loss event: what was before that one is what an undo restores.
            self.before.get_or_insert_with(|| Box::new(self.curve));
            self.curve.window = min;
            self.curve.epoch = None;
            self.hystart = HyStart::new();
            return;
        }
        self.before = (signal == Signal::Loss).then(|| Box::new(self.curve));
        let c = &mut self.curve;
        // Fast convergence (§4.7): a flow that lost ground makes room.
        c.w_max = if c.window < c.w_max { c.window * (1.0 + BETA) / 2.0 } else { c.window };
        c.prior = c.window;
        c.window = (c.window * BETA).max(min);
        c.ssthresh = c.window;
        c.epoch = None;
    }

    fn on_spurious(&mut self) {
        if let Some(mut before) = self.before.take() {
            before.window = before.window.max(self.curve.window);
            self.curve = *before;
        }
    }

    fn on_packet_size(&mut self, bytes: u64) {
        self.packet = bytes as f64;
        self.curve.window = self.curve.window.max(self.min_window());
    }

    fn window(&self) -> u64 {
        self.curve.window as u64
    }

    fn ssthresh(&self) -> u64 {
        self.curve.ssthresh as u64
    }

    fn pacing_rate(&self, rtt: &Rtt) -> Option<u64> {
        if !rtt.has_sample() {
            return None;
        }
        let gain = if self.slow_start() { 2.0 } else { 1.25 };
        let seconds = rtt.smoothed().as_secs_f64().max(1e-6);
        Some((gain * self.curve.window / seconds) as u64)
    }

    fn acks_pace(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const PACKET: u64 = 1_000;
    const RTT: Duration = Duration::from_millis(100);

    /// Rounds of acknowledgements that use the whole window, until `done`. Gives the seconds.
    fn rounds(cubic: &mut Cubic, now: &mut Instant, mut done: impl FnMut(&Cubic) -> bool) -> f64 {
        let start = *now;
        let mut rtt = Rtt::new();
        rtt.update(RTT, Duration::ZERO);
        while !done(cubic) {
            assert!(now.since(start) < Duration::from_secs(100));
            *now += RTT;
            let window = cubic.window();
            cubic.on_ack(&AckEvent {
                now: *now,
                acked: window,
                growth: window,
                in_flight: window,
                sample: Some(RTT),
                rtt: &rtt,
                new_round: true,
                peak: window,
            });
        }
        now.since(start).as_secs_f64()
    }

    fn grown(packets: u64) -> (Cubic, Instant) {
        let mut cubic = Cubic::new(PACKET);
        let mut now = Instant::ZERO;
        rounds(&mut cubic, &mut now, |c| c.window() >= packets * PACKET);
        (cubic, now)
    }

    #[test]
    fn the_window_is_back_after_k_seconds() {
        let (mut cubic, mut now) = grown(5_000);
        let before = cubic.window();
        cubic.on_congestion(Signal::Loss);
        assert_eq!(cubic.window(), (before as f64 * BETA) as u64);
        assert_eq!(cubic.ssthresh(), cubic.window());
        // RFC 9438 equation 2.
        let k = (before as f64 / PACKET as f64 * (1.0 - BETA) / C).cbrt();
        let took = rounds(&mut cubic, &mut now, |c| c.window() as f64 >= 0.999 * before as f64);
        assert!((took - k).abs() < 0.2 * k, "{took} s, K is {k} s");
    }

    #[test]
    fn small_windows_grow_no_slower_than_reno() {
        let (mut cubic, mut now) = grown(20);
        cubic.on_congestion(Signal::Loss);
        let low = cubic.window();
        let mut count = 0;
        rounds(&mut cubic, &mut now, |_| {
            count += 1;
            count > 10
        });
        let grown = (cubic.window() - low) as f64 / PACKET as f64;
        assert!((10.0 * ALPHA * 0.9..30.0).contains(&grown), "{grown} packets in ten rounds");
    }

    #[test]
    fn fast_convergence_gives_way_to_others() {
        let (mut cubic, _) = grown(100);
        let first = cubic.curve.window;
        cubic.on_congestion(Signal::Loss);
        let second = cubic.curve.window;
        cubic.on_congestion(Signal::Loss);
        assert!((cubic.curve.w_max - second * (1.0 + BETA) / 2.0).abs() < 1.0);
        assert!(cubic.curve.w_max < first);
    }

    #[test]
    fn an_undone_event_leaves_no_trace_and_a_mark_is_not_undone() {
        let (mut cubic, _) = grown(100);
        let before = (cubic.window(), cubic.ssthresh());
        cubic.on_congestion(Signal::Loss);
        cubic.on_congestion(Signal::Persistent);
        assert_eq!(cubic.window(), MIN_WINDOW_PACKETS * PACKET);
        cubic.on_spurious();
        assert_eq!((cubic.window(), cubic.ssthresh()), before);
        cubic.on_congestion(Signal::Ecn);
        let reduced = cubic.window();
        cubic.on_spurious();
        assert_eq!(cubic.window(), reduced);
    }
}
