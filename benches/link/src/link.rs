//! The model.

use crate::config::{ConfigError, LinkConfig};
use crate::random::Random;
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

const NS_PER_S: u128 = 1_000_000_000;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time.
    Sent(Duration),
    /// Lost on its own.
    Lost,
    /// Lost in a burst.
    LostInBurst,
    /// There was no room in the queue.
    Dropped,
}

/// What a link has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets that were sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that arrived.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Packets lost on their own.
    pub lost: u64,
    /// Packets lost in bursts.
    pub lost_in_bursts: u64,
    /// Packets without room in the queue.
    pub dropped: u64,
    /// Most bytes in the queue, the packet on the line included.
    pub queue_most: u64,
}

/// The line: what it has to do, and when it is done with that.
#[derive(Debug, Default)]
struct Line {
    /// When it last began after a pause, and bits since then: nothing is rounded twice.
    begun: u64,
    bits: u128,
    free_at: u64,
    /// End on the line and bytes of every packet in the queue.
    queue: VecDeque<(u64, u64)>,
    queued: u64,
}

impl Line {
    /// When `bytes` have left, or `None` if there is no room for them.
    fn take(&mut self, now: u64, bytes: u64, rate: u64, limit: Option<u64>) -> Option<u64> {
        while let Some(&(end, bytes)) = self.queue.front()
            && end <= now
        {
            self.queued -= bytes;
            self.queue.pop_front();
        }
        if self.queued > 0 && limit.is_some_and(|limit| self.queued + bytes > limit) {
            return None;
        }
        if self.free_at <= now {
            (self.begun, self.bits) = (now, 0);
        }
        self.bits += u128::from(bytes) * 8;
        self.free_at = self.begun + (self.bits * NS_PER_S / u128::from(rate)) as u64;
        self.queue.push_back((self.free_at, bytes));
        self.queued += bytes;
        Some(self.free_at)
    }
}

/// A packet under way.
#[derive(Debug)]
struct Flying<P> {
    at: u64,
    number: u64,
    bytes: u64,
    packet: P,
}

impl<P> Flying<P> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.number)
    }
}

impl<P> PartialEq for Flying<P> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<P> Eq for Flying<P> {}

impl<P> PartialOrd for Flying<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest: the heap has that on top.
impl<P> Ord for Flying<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// One direction of a link, with packets of any kind in it. Times are since any moment, the same
/// in all calls, and must not go backwards.
#[derive(Debug)]
pub struct Link<P> {
    config: LinkConfig,
    line: Line,
    flying: BinaryHeap<Flying<P>>,
    /// When the latest packet arrives.
    latest: u64,
    bad: bool,
    losses: Random,
    bursts: Random,
    jitters: Random,
    counters: Counters,
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<P> Link<P> {
    /// All that is random follows from the seed and the number of the packet, for every kind of
    /// loss on its own: a packet that is lost with one delay or rate is with another.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn new(config: &LinkConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config: config.clone(),
            line: Line::default(),
            flying: BinaryHeap::new(),
            latest: 0,
            bad: false,
            losses: Random::new(seed, 1),
            bursts: Random::new(seed, 2),
            jitters: Random::new(seed, 3),
            counters: Counters::default(),
        })
    }

    /// A packet of `bytes` enters at `now`.
    pub fn send(&mut self, now: Duration, bytes: usize, packet: P) -> Fate {
        let (now, bytes) = (ns(now), bytes as u64);
        let number = self.counters.packets;
        self.counters.packets += 1;
        self.counters.bytes += bytes;
        // Drawn for every packet, so that the series do not depend on each other.
        let lost = self.losses.chance(self.config.loss);
        let lost_in_burst = self.in_burst();
        let jitter = self.jitters.up_to(2 * ns(self.config.jitter));
        let left = match self.config.rate {
            None => Some(now),
            Some(rate) => self.line.take(now, bytes, rate, self.config.queue),
        };
        let Some(left) = left else {
            self.counters.dropped += 1;
            return Fate::Dropped;
        };
        self.counters.queue_most = self.counters.queue_most.max(self.line.queued);
        if lost_in_burst {
            self.counters.lost_in_bursts += 1;
            return Fate::LostInBurst;
        }
        if lost {
            self.counters.lost += 1;
            return Fate::Lost;
        }
        let mut at = left + ns(self.config.delay) - ns(self.config.jitter) + jitter;
        if !self.config.reorder {
            at = at.max(self.latest);
            self.latest = at;
        }
        self.flying.push(Flying { at, number, bytes, packet });
        Fate::Sent(Duration::from_nanos(at))
    }

    /// Whether this packet is lost in a burst; the state changes before the packet.
    fn in_burst(&mut self) -> bool {
        let Some(burst) = self.config.burst else { return false };
        let change = if self.bad { burst.end } else { burst.begin };
        self.bad ^= self.bursts.chance(change);
        self.bad
    }

    /// When the next packet arrives.
    pub fn next_at(&self) -> Option<Duration> {
        self.flying.peek().map(|flying| Duration::from_nanos(flying.at))
    }

    /// The next packet that has arrived by `now`.
    pub fn receive(&mut self, now: Duration) -> Option<P> {
        if self.flying.peek()?.at > ns(now) {
            return None;
        }
        let flying = self.flying.pop()?;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += flying.bytes;
        Some(flying.packet)
    }

    /// What it has done so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets on their way: sent, neither lost nor delivered.
    pub fn under_way(&self) -> usize {
        self.flying.len()
    }
}
