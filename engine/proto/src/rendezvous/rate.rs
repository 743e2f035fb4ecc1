//! How often strangers are answered: token buckets, one for all and one for each source address.

use crate::limits::MAX_RATE_SOURCES;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Tokens that come back at a steady rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// In units of 1 / 10^9 of a token, so that a rate times nanoseconds needs no division.
    level: u64,
    filled: Instant,
}

const TOKEN: u64 = 1_000_000_000;

/// Tokens in a second, and at most at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { level: u64::from(rate.burst) * TOKEN, filled: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let earned = now.since(self.filled).as_nanos().saturating_mul(rate.per_second.into());
        self.level = self.level.saturating_add(earned).min(u64::from(rate.burst) * TOKEN);
        // A clock that goes back earns nothing twice.
        self.filled = self.filled.max(now);
    }

    /// Whether there is a token.
    pub(super) fn has(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.level >= TOKEN
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let has = self.has(rate, now);
        if has {
            self.level -= TOKEN;
        }
        has
    }
}

/// The rates of all sources, of which a bounded number is remembered.
///
/// Half of the common rate is kept for sources that are known already, so that a flood from
/// addresses that are made up does not silence the host for those who talk to it.
#[derive(Debug)]
pub(super) struct RateTable {
    all_rate: Rate,
    new_rate: Rate,
    source_rate: Rate,
    all: Bucket,
    new: Bucket,
    sources: BTreeMap<IpAddr, Bucket>,
    /// By the time of the last question, oldest first.
    by_age: BTreeSet<(Instant, IpAddr)>,
}

impl RateTable {
    /// `per_second` answers in all and `per_source` to each address, twice that at once.
    pub(super) fn new(per_second: u32, per_source: u32, now: Instant) -> Self {
        let rate = |per_second: u32| Rate { per_second, burst: per_second.saturating_mul(2) };
        let (all_rate, source_rate) = (rate(per_second), rate(per_source));
        let new_rate = rate(per_second.div_ceil(2));
        Self {
            all_rate,
            new_rate,
            source_rate,
            all: Bucket::new(all_rate, now),
            new: Bucket::new(new_rate, now),
            sources: BTreeMap::new(),
            by_age: BTreeSet::new(),
        }
    }

    /// Whether a question of `source` may be looked at any further. Takes the tokens if so.
    pub(super) fn allows(&mut self, source: IpAddr, now: Instant) -> bool {
        let source = key(source);
        if let Some(bucket) = self.sources.get_mut(&source) {
            self.by_age.remove(&(bucket.filled, source));
            let allowed = bucket.has(self.source_rate, now) && self.all.take(self.all_rate, now);
            if allowed {
                bucket.take(self.source_rate, now);
            }
            self.by_age.insert((bucket.filled, source));
            return allowed;
        }
        if !self.new.has(self.new_rate, now) || !self.all.take(self.all_rate, now) {
            return false;
        }
        self.new.take(self.new_rate, now);
        if self.sources.len() >= MAX_RATE_SOURCES
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.sources.remove(&oldest);
        }
        let mut bucket = Bucket::new(self.source_rate, now);
        bucket.take(self.source_rate, now);
        self.sources.insert(source, bucket);
        self.by_age.insert((bucket.filled, source));
        true
    }

    /// Forgets sources that have not asked since `before`; their buckets are full again.
    pub(super) fn forget(&mut self, before: Instant) {
        while let Some(&(heard, source)) = self.by_age.first()
            && heard < before
        {
            self.by_age.remove(&(heard, source));
            self.sources.remove(&source);
        }
    }

    /// Sources remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.sources.len(), self.by_age.len());
        self.sources.len()
    }

    /// After this time without a question a source's bucket is full again, whatever it was.
    pub(super) fn memory(&self) -> Duration {
        Duration::from_secs(2 + u64::from(self.source_rate.burst / self.source_rate.per_second))
    }
}

/// One subscriber of the Internet has a whole /64: it counts as one source. On the link, where
/// everybody shares one, each address counts.
fn key(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(source, IpAddr::V4),
        IpAddr::V4(_) => source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 | n).into())
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate { per_second: 5, burst: 10 };
        let mut bucket = Bucket::new(rate, at(0));
        assert_eq!((0..100).filter(|_| bucket.take(rate, at(0))).count(), 10);
        assert!(!bucket.take(rate, at(199)));
        assert!(bucket.take(rate, at(200)));
        // Time that goes back gives nothing, and what was given is not given again.
        assert!(!bucket.take(rate, at(0)));
        assert!(!bucket.take(rate, at(200)));
        assert_eq!((0..100).filter(|_| bucket.take(rate, at(3_600_000))).count(), 10);
    }

    #[test]
    fn one_source_cannot_use_up_what_is_there_for_all() {
        let mut table = RateTable::new(50, 5, at(0));
        assert_eq!((0..1000).filter(|_| table.allows(v4(1), at(0))).count(), 10);
        assert!(table.allows(v4(2), at(0)));
    }

    #[test]
    fn strangers_cannot_silence_the_host_for_those_it_knows() {
        let mut table = RateTable::new(50, 5, at(0));
        assert!(table.allows(v4(0), at(0)));
        let strangers = (1..100_000).filter(|n| table.allows(v4(*n), at(0))).count();
        assert_eq!(strangers, 49);
        assert!(table.allows(v4(0), at(0)));
        // Going on for ten seconds.
        let more: usize = (1..=10)
            .map(|s| {
                (0..10_000).filter(|n| table.allows(v4(s << 16 | n), at(1000 * s as u64))).count()
            })
            .sum();
        assert!(more <= 250 && table.allows(v4(0), at(10_000)), "{more}");
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let mut table = RateTable::new(u32::MAX, 1, at(0));
        for n in 0..5000 {
            assert!(table.allows(v4(n), at(u64::from(n))));
            assert!(table.len() <= MAX_RATE_SOURCES);
        }
        // The newest ones are those that are left.
        assert!(table.allows(v4(4999), at(5000)) && !table.allows(v4(4999), at(5000)));
        table.forget(at(4500));
        assert_eq!(table.len(), 500);
        table.forget(at(6000));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_subscriber_is_one_source_and_neighbours_are_many() {
        let key = |s: &str| super::key(s.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("fe80::1"), key("fe80::2"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
