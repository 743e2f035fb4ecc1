//! Congestion control: how many bytes may be in flight, and how fast they leave.
//!
//! [`Control`] is what a controller does; [`Controller`] is the one a connection has, an enum so
//! that nothing is boxed or dispatched through a table. To add one (BBR, say): implement
//! [`Control`] in a file of its own, add a variant here and one to
//! [`Congestion`]. A controller hears of whole ACK frames, never of
//! single packets: its cost does not depend on the packet rate.

mod cubic;
mod fixed;
mod hystart;

pub use cubic::Cubic;
pub use fixed::Fixed;

use super::rtt::Rtt;
use crate::config::Congestion;
use crate::time::{Duration, Instant};

/// Packets of the smallest window (RFC 9002 §7.2).
pub const MIN_WINDOW_PACKETS: u64 = 2;
/// No window grows beyond this.
pub const MAX_WINDOW: u64 = 1 << 32;

/// The initial window in bytes for packets of `packet` bytes (RFC 9002 §7.2, RFC 6928).
pub fn initial_window(packet: u64) -> u64 {
    (10 * packet).min((2 * packet).max(14_720))
}

/// What an ACK frame tells a controller.
#[derive(Clone, Copy, Debug)]
pub struct AckEvent<'a> {
    /// When it arrived.
    pub now: Instant,
    /// Bytes newly acknowledged on this path, all of them.
    pub acked: u64,
    /// Of these, bytes sent after the last congestion event: what the window may grow by.
    pub growth: u64,
    /// Bytes still in flight.
    pub in_flight: u64,
    /// Round trip measured by this frame, without the peer's delay.
    pub sample: Option<Duration>,
    /// The estimator, this sample included.
    pub rtt: &'a Rtt,
    /// The first frame of a new round: what was newest when the last one began is acknowledged.
    pub new_round: bool,
    /// Most bytes in flight in this round and the one before.
    pub peak: u64,
}

/// Why the window must shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Packets were lost.
    Loss,
    /// The path marked packets (CE).
    Ecn,
    /// Everything sent for several probe timeouts was lost (RFC 9002 §7.6).
    Persistent,
}

/// A congestion controller. Bytes are UDP payload.
pub trait Control {
    /// An ACK frame newly acknowledged something. Comes after the [`Self::on_congestion`] that
    /// the same frame caused.
    fn on_ack(&mut self, ack: &AckEvent<'_>);
    /// A congestion event: at most one per round trip, except [`Signal::Persistent`], which may
    /// follow a [`Signal::Loss`] at once.
    fn on_congestion(&mut self, signal: Signal);
    /// Every loss of the last event was spurious: the event never happened (RFC 9002 leaves the
    /// reaction open; RFC 4015).
    fn on_spurious(&mut self);
    /// The packet size changed.
    fn on_packet_size(&mut self, bytes: u64);
    /// Bytes that may be in flight; never less than two packets.
    fn window(&self) -> u64;
    /// The slow-start threshold in bytes, where the controller has one; `u64::MAX` before the
    /// first congestion event.
    fn ssthresh(&self) -> u64;
    /// Bytes a second at which packets leave; `None`: no reason to pace yet.
    fn pacing_rate(&self, rtt: &Rtt) -> Option<u64>;
    /// Whether the rate is only the window spread over a round trip, so that below the LAN
    /// threshold acknowledgements alone pace well enough.
    fn acks_pace(&self) -> bool;
}

/// The controller of a connection.
#[derive(Clone, Debug)]
pub enum Controller {
    /// RFC 9438.
    Cubic(Cubic),
    /// A rate given by the operator.
    Fixed(Fixed),
}

impl Controller {
    /// The one that `config` asks for, for packets of `packet` bytes.
    pub fn new(config: Congestion, packet: u64) -> Self {
        match config {
            Congestion::Cubic => Self::Cubic(Cubic::new(packet)),
            Congestion::Fixed { bytes_per_s } => Self::Fixed(Fixed::new(bytes_per_s, packet)),
        }
    }
}

macro_rules! dispatch {
    ($self:ident, $c:ident => $body:expr) => {
        match $self {
            Controller::Cubic($c) => $body,
            Controller::Fixed($c) => $body,
        }
    };
}

impl Control for Controller {
    fn on_ack(&mut self, ack: &AckEvent<'_>) {
        dispatch!(self, c => c.on_ack(ack));
    }
    fn on_congestion(&mut self, signal: Signal) {
        dispatch!(self, c => c.on_congestion(signal));
    }
    fn on_spurious(&mut self) {
        dispatch!(self, c => c.on_spurious());
    }
    fn on_packet_size(&mut self, bytes: u64) {
        dispatch!(self, c => c.on_packet_size(bytes));
    }
    fn window(&self) -> u64 {
        dispatch!(self, c => c.window())
    }
    fn ssthresh(&self) -> u64 {
        dispatch!(self, c => c.ssthresh())
    }
    fn pacing_rate(&self, rtt: &Rtt) -> Option<u64> {
        dispatch!(self, c => c.pacing_rate(rtt))
    }
    fn acks_pace(&self) -> bool {
        dispatch!(self, c => c.acks_pace())
    }
}
