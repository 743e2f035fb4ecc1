//! One direction of a path between two nodes: what it does to packets.

use super::rng::Rng;
use trunkline_proto::time::{Duration, Instant};

/// How a path behaves; may be changed at any moment.
#[derive(Clone, Debug)]
pub struct Link {
    /// Packets lost, in 10,000.
    pub loss: u32,
    /// Packets that are overtaken: they wait up to `reorder_by` longer. In 10,000.
    pub reorder: u32,
    /// How much longer.
    pub reorder_by: Duration,
    /// Packets that arrive twice, in 10,000.
    pub duplicate: u32,
    /// Packets that arrive with some of their bits flipped, cut or extended, in 10,000.
    pub corrupt: u32,
    /// One-way delay.
    pub delay: Duration,
    /// Random part of the delay; does not reorder by itself.
    pub jitter: Duration,
    /// Largest packet that passes, in bytes of UDP payload.
    pub mtu: usize,
    /// Bytes a second, and bytes that may wait; `None` = unlimited.
    pub rate: Option<Rate>,
    /// Packets marked "congestion experienced" when they are ECN-capable, in 10,000.
    pub ce: u32,
    /// Nothing passes.
    pub down: bool,
    /// The bottleneck is taken until then.
    pub busy_until: Instant,
    /// When the last packet that was not reordered arrives.
    pub last_arrival: Instant,
}

/// A bottleneck.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// Bytes that wait in front of it before packets are dropped.
    pub queue: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            loss: 0,
            reorder: 0,
            reorder_by: Duration::from_millis(30),
            duplicate: 0,
            corrupt: 0,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            mtu: 65_507,
            rate: None,
            ce: 0,
            down: false,
            busy_until: Instant::ZERO,
            last_arrival: Instant::ZERO,
        }
    }
}

impl Link {
    /// A path with this one-way delay and no fault.
    pub fn with_delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// When the packet sent at `now` arrives, or nothing when it is lost here. The packet itself is
    /// changed when the link corrupts it. Called once more for each duplicate.
    pub fn carry(&mut self, now: Instant, packet: &mut Vec<u8>, rng: &mut Rng) -> Option<Instant> {
        if self.down || packet.len() > self.mtu || rng.chance(self.loss) {
            return None;
        }
        let mut start = now;
        if let Some(rate) = self.rate {
            let free = self.busy_until.max(now);
            let waiting = free.since(now).as_nanos() as u128 * u128::from(rate.bytes_per_s);
            if waiting / 1_000_000_000 > u128::from(rate.queue) {
                return None;
            }
            let ns = (packet.len() as u64 + 28) * 1_000_000_000 / rate.bytes_per_s;
            start = free + Duration::from_nanos(ns);
            self.busy_until = start;
        }
        if rng.chance(self.corrupt) {
            corrupt(packet, rng);
        }
        // Never zero: time must pass when a packet does.
        let delay = Duration::from_nanos(
            self.delay.as_nanos().max(1_000) + rng.below(self.jitter.as_nanos() + 1),
        );
        if rng.chance(self.reorder) {
            let extra = Duration::from_nanos(1 + rng.below(self.reorder_by.as_nanos().max(1)));
            return Some(start + delay + extra);
        }
        self.last_arrival = self.last_arrival.max(start + delay);
        Some(self.last_arrival)
    }

    /// Whether this packet arrives twice.
    pub fn duplicates(&self, rng: &mut Rng) -> bool {
        rng.chance(self.duplicate)
    }
}

/// Damages a packet so that it differs: flips bits, cuts its end or adds to it.
pub fn corrupt(packet: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(8) {
        0 if packet.len() > 1 => packet.truncate(1 + rng.below(packet.len() as u64 - 1) as usize),
        1 => packet.extend((0..=rng.below(20)).map(|_| 1 + rng.below(255) as u8)),
        _ if packet.is_empty() => packet.push(0x40),
        _ => {
            for _ in 0..=rng.below(2) {
                let at = rng.below(packet.len() as u64) as usize;
                // Two additions of less than 128 never add up to the old value again.
                packet[at] = packet[at].wrapping_add(1 + rng.below(127) as u8);
            }
        }
    }
}
