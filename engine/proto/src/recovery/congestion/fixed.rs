//! A constant rate, for links whose rate the operator knows and owns.
//!
//! Losses do not slow it down; only when everything is lost for several probe timeouts does the
//! window fall to its minimum, until something is acknowledged again.

use super::{AckEvent, Control, MAX_WINDOW, MIN_WINDOW_PACKETS, Signal, initial_window};
use crate::recovery::rtt::Rtt;
use crate::time::Duration;

/// Delay of acknowledgements and timers that the window covers on top of two round trips.
const SLACK: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Clone, Debug)]
pub struct Fixed {
    rate: u64,
    window: u64,
    packet: u64,
}

impl Fixed {
    /// `rate` bytes a second in packets of `packet` bytes.
    pub fn new(rate: u64, packet: u64) -> Self {
        Self { rate, window: initial_window(packet), packet }
    }
}

impl Control for Fixed {
    /// Two round trips of data: the rate is held by pacing, the window only bounds what an
    /// outage can leave in flight.
    fn on_ack(&mut self, ack: &AckEvent<'_>) {
        let span = ack.rtt.smoothed().mul(2) + SLACK;
        let bytes = self.rate as f64 * span.as_secs_f64();
        self.window = (bytes as u64).clamp(initial_window(self.packet), MAX_WINDOW);
    }

    fn on_congestion(&mut self, signal: Signal) {
        if signal == Signal::Persistent {
            self.window = MIN_WINDOW_PACKETS * self.packet;
        }
    }

    fn on_spurious(&mut self) {}

    fn on_packet_size(&mut self, bytes: u64) {
        self.packet = bytes;
        self.window = self.window.max(MIN_WINDOW_PACKETS * bytes);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn ssthresh(&self) -> u64 {
        u64::MAX
    }

    fn pacing_rate(&self, _rtt: &Rtt) -> Option<u64> {
        Some(self.rate)
    }

    fn acks_pace(&self) -> bool {
        false
    }
}
