//! What can go wrong with a packet on its way, decided by a seeded generator: shared by the
//! fault-injecting wrapper and the simulated network.

use std::time::{Duration, Instant};

/// Faults of one direction of a path. Probabilities are per packet, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Lost.
    pub loss: f64,
    /// Delivered twice.
    pub duplicate: f64,
    /// Held back by `reorder_by` on top of its delay, so that later ones overtake it.
    pub reorder: f64,
    /// How long a reordered packet is held back.
    pub reorder_by: Duration,
    /// One to three bits are flipped.
    pub corrupt: f64,
    /// Time on the way.
    pub delay: Duration,
    /// Added to the delay, evenly spread from zero to this; packets overtake each other.
    pub jitter: Duration,
    /// Bits in a second; `None` = no limit.
    pub rate: Option<u64>,
    /// Bytes that wait for the rate; more are lost.
    pub queue: usize,
    /// Longer packets are lost without a word.
    pub max_packet: Option<usize>,
}

impl Faults {
    /// A perfect path.
    pub const NONE: Self = Self {
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        reorder_by: Duration::from_millis(3),
        corrupt: 0.0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        rate: None,
        queue: 256 * 1024,
        max_packet: None,
    };

    /// Whether every packet passes at once and as it is.
    pub fn is_none(&self) -> bool {
        self.loss <= 0.0
            && self.duplicate <= 0.0
            && self.reorder <= 0.0
            && self.corrupt <= 0.0
            && self.delay.is_zero()
            && self.jitter.is_zero()
            && self.rate.is_none()
            && self.max_packet.is_none()
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// Counters of what was done to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultStats {
    /// Packets looked at.
    pub packets: u64,
    /// Lost at random.
    pub lost: u64,
    /// Lost because too many waited for the rate.
    pub overflowed: u64,
    /// Lost because they were too long.
    pub too_long: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Changed.
    pub corrupted: u64,
}

/// A small generator (SplitMix64): reproducible, not secret.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < probability
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let most = most.as_nanos() as u64;
        if most == 0 { Duration::ZERO } else { Duration::from_nanos(self.next() % (most + 1)) }
    }
}

/// What happens to one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// When it arrives, and when its copy does.
    pub(super) arrivals: [Option<Instant>; 2],
    /// Seed of the damage.
    pub(super) damage: Option<u64>,
}

impl Fate {
    /// At once, once, unchanged.
    pub(super) fn is_untouched(&self, now: Instant) -> bool {
        self.arrivals == [Some(now), None] && self.damage.is_none()
    }
}

/// Flips one to three bits.
pub(super) fn damage(bytes: &mut [u8], seed: u64) {
    let mut rng = Rng::new(seed);
    if bytes.is_empty() {
        return;
    }
    for _ in 0..=rng.next() % 3 {
        let bit = rng.next() as usize % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// One direction of a path.
#[derive(Clone, Debug)]
pub(super) struct Impairment {
    pub(super) faults: Faults,
    pub(super) stats: FaultStats,
    rng: Rng,
    /// The rate is used up until then.
    busy_until: Option<Instant>,
}

impl Impairment {
    pub(super) const fn new(faults: Faults, seed: u64) -> Self {
        let stats = FaultStats {
            packets: 0,
            lost: 0,
            overflowed: 0,
            too_long: 0,
            duplicated: 0,
            reordered: 0,
            corrupted: 0,
        };
        Self { faults, stats, rng: Rng::new(seed), busy_until: None }
    }

    /// Decides about the next packet.
    pub(super) fn decide(&mut self, now: Instant, len: usize) -> Fate {
        let faults = self.faults;
        let mut fate = Fate { arrivals: [None, None], damage: None };
        self.stats.packets += 1;
        if faults.max_packet.is_some_and(|most| len > most) {
            self.stats.too_long += 1;
            return fate;
        }
        if self.rng.chance(faults.loss) {
            self.stats.lost += 1;
            return fate;
        }
        let mut leaves = now;
        if let Some(rate) = faults.rate {
            let nanos =
                |bytes: usize| (bytes as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1);
            let free = self.busy_until.unwrap_or(now).max(now);
            if free.duration_since(now) > Duration::from_nanos(nanos(faults.queue)) {
                self.stats.overflowed += 1;
                return fate;
            }
            leaves = free + Duration::from_nanos(nanos(len));
            self.busy_until = Some(leaves);
        }
        let mut arrives = leaves + faults.delay + self.rng.up_to(faults.jitter);
        if self.rng.chance(faults.duplicate) {
            self.stats.duplicated += 1;
            fate.arrivals[1] = Some(leaves + faults.delay + self.rng.up_to(faults.jitter));
        }
        if self.rng.chance(faults.reorder) {
            self.stats.reordered += 1;
            arrives += faults.reorder_by;
        }
        if self.rng.chance(faults.corrupt) {
            self.stats.corrupted += 1;
            fate.damage = Some(self.rng.next());
        }
        fate.arrivals[0] = Some(arrives);
        fate
    }
}

/// Something due at a time; earlier ones first, then those that came first.
#[derive(Debug)]
pub(super) struct Due<T> {
    pub(super) at: Instant,
    pub(super) order: u64,
    pub(super) what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Turned round: the heap gives its greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BinaryHeap;

    #[test]
    fn faults_come_as_often_as_asked_and_repeat_with_the_seed() {
        let faults =
            Faults { loss: 0.1, duplicate: 0.05, reorder: 0.2, corrupt: 0.01, ..Faults::NONE };
        let now = Instant::now();
        let run = |seed| {
            let mut path = Impairment::new(faults, seed);
            let fates: Vec<Fate> = (0..100_000).map(|_| path.decide(now, 1000)).collect();
            (fates, path.stats)
        };
        let (fates, stats) = run(1);
        assert_eq!(fates, run(1).0);
        assert_ne!(fates, run(2).0);
        for (count, expected) in [
            (stats.lost, 10_000.0),
            (stats.duplicated, 4_500.0),
            (stats.reordered, 18_000.0),
            (stats.corrupted, 900.0),
        ] {
            let off = (count as f64 - expected).abs() / expected;
            assert!(off < 0.15, "{count} instead of {expected}");
        }
        let perfect = Impairment::new(Faults::NONE, 3).decide(now, 10);
        assert!(perfect.is_untouched(now) && Faults::NONE.is_none() && !faults.is_none());
    }

    #[test]
    fn the_rate_spaces_packets_and_bounds_the_queue() {
        let faults = Faults { rate: Some(8_000_000), queue: 10_000, ..Faults::NONE };
        let mut path = Impairment::new(faults, 1);
        let now = Instant::now();
        // 1,000 bytes at a byte a microsecond.
        for i in 1..=11 {
            let at = path.decide(now, 1000).arrivals[0].unwrap();
            assert_eq!(at - now, Duration::from_millis(i));
        }
        assert_eq!(path.decide(now, 1000).arrivals, [None, None]);
        assert_eq!(path.stats.overflowed, 1);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            path.decide(later, 500).arrivals[0].unwrap() - later,
            Duration::from_micros(500)
        );
    }

    #[test]
    fn damage_changes_something_and_survives_empty_packets() {
        for seed in 0..1000 {
            let mut bytes = [0u8; 20];
            damage(&mut bytes, seed);
            let flipped: u32 = bytes.iter().map(|b| b.count_ones()).sum();
            assert!(flipped <= 3);
            damage(&mut [], seed);
        }
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let now = Instant::now();
        let mut heap = BinaryHeap::new();
        for (order, ms) in [(0, 5), (1, 1), (2, 5), (3, 0)] {
            heap.push(Due { at: now + Duration::from_millis(ms), order, what: () });
        }
        let order: Vec<u64> = std::iter::from_fn(|| heap.pop()).map(|d| d.order).collect();
        assert_eq!(order, [3, 1, 0, 2]);
    }
}
