//! Who may start a handshake, and how often: checked before the endpoint sees the packet.
//!
//! Memory is fixed. Sources hash, with a key that nobody outside knows, into a table of token
//! buckets; two sources in one place share it until one of them has been idle long enough for its
//! bucket to be full again.

use crate::config::{IpNet, address_bits};
use crate::stats::ShardCounters;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use trunkline_proto::limits::MIN_PACKET;
use trunkline_proto::time::{Duration, Instant};

/// Buckets of one shard: 16 bytes each.
const BUCKETS: usize = 4096;
/// What the form bit and the type bits of a long packet say when it is a ConnectionRequest.
const REQUEST_MASK: u8 = 0xF0;
const REQUEST_BITS: u8 = 0x80;

/// Whether a datagram starts with a ConnectionRequest that may be answered: the only packets that
/// can make a host spend memory and signatures on a stranger. Shorter ones are dropped anyway, and
/// must not use up what the source that they name is allowed.
pub(crate) fn is_connection_request(datagram: &[u8]) -> bool {
    datagram.len() >= MIN_PACKET && datagram[0] & REQUEST_MASK == REQUEST_BITS
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Part of the hash, to tell sources apart.
    tag: u32,
    /// Thousandths of a handshake.
    tokens: u32,
    /// When `tokens` was right.
    at: Instant,
}

/// Why a request is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its source is on the deny list.
    Denied,
    /// Its source asks too often.
    TooOften,
}

impl Refused {
    pub(crate) fn count(self, counters: &ShardCounters) {
        match self {
            Self::Denied => counters.requests_denied.add(1),
            Self::TooOften => counters.requests_limited.add(1),
        }
    }
}

/// Rate limit and deny list of one shard.
pub(crate) struct Admission {
    per_s: u32,
    buckets: Vec<Bucket>,
    hasher: RandomState,
    /// Sorted, disjoint.
    denied: Vec<(u128, u128)>,
}

impl Admission {
    /// `per_s` of 0 = no limit.
    pub(crate) fn new(per_s: u32, deny: &[IpNet]) -> Self {
        let mut admission = Self {
            per_s: per_s.min(1_000_000),
            buckets: Vec::new(),
            hasher: RandomState::new(),
            denied: Vec::new(),
        };
        admission.set_deny(deny);
        admission
    }

    /// Replaces the deny list.
    pub(crate) fn set_deny(&mut self, deny: &[IpNet]) {
        let mut ranges: Vec<_> = deny.iter().map(|net| net.range()).collect();
        ranges.sort_unstable();
        self.denied.clear();
        for (first, last) in ranges {
            match self.denied.last_mut() {
                Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
                _ => self.denied.push((first, last)),
            }
        }
    }

    /// Counts a request of `source`.
    pub(crate) fn check(&mut self, now: Instant, source: SocketAddr) -> Result<(), Refused> {
        if self.is_denied(source.ip()) {
            return Err(Refused::Denied);
        }
        if self.per_s == 0 {
            return Ok(());
        }
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); BUCKETS];
        }
        let hash = self.hasher.hash_one(source_key(source.ip()));
        let bucket = &mut self.buckets[hash as usize % BUCKETS];
        let tag = (hash >> 32) as u32 | 1;
        let full = self.per_s * 2_000;
        let refill = now.since(bucket.at).as_micros().saturating_mul(u64::from(self.per_s)) / 1_000;
        let tokens = u64::from(bucket.tokens).saturating_add(refill).min(u64::from(full)) as u32;
        if bucket.tag == 0 || (bucket.tag != tag && tokens == full) {
            *bucket = Bucket { tag, tokens: full, at: now };
        } else if refill > 0 {
            bucket.tokens = tokens;
            bucket.at = now;
        }
        if bucket.tokens < 1_000 {
            return Err(Refused::TooOften);
        }
        bucket.tokens -= 1_000;
        Ok(())
    }

    fn is_denied(&self, ip: IpAddr) -> bool {
        if self.denied.is_empty() {
            return false;
        }
        let bits = address_bits(ip);
        let after = self.denied.partition_point(|(first, _)| *first <= bits);
        after > 0 && self.denied[after - 1].1 >= bits
    }
}

/// An IPv4 address, or the /64 that one IPv6 site has.
fn source_key(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => v6.to_bits() >> 64 << 64,
        _ => address_bits(ip),
    }
}

/// Allows something at most `burst` times at once and `1 / interval` on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throttle {
    next: Instant,
    interval: Duration,
}

impl Throttle {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { next: Instant::ZERO, interval }
    }

    /// Whether it may happen now.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let allowed = now >= self.next;
        if allowed {
            self.next = now + self.interval;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(5_000_000_000) + Duration::from_millis(ms)
    }

    fn addr(s: &str) -> SocketAddr {
        SocketAddr::new(s.parse().unwrap(), 1234)
    }

    #[test]
    fn only_connection_requests_are_counted() {
        let starting = |byte| [vec![byte], vec![0; MIN_PACKET - 1]].concat();
        for request in [0x80, 0x8f] {
            assert!(is_connection_request(&starting(request)));
            assert!(!is_connection_request(&starting(request)[1..]), "too short");
        }
        for other in [0x40, 0x41, 0x00, 0x90, 0xa0, 0xb0, 0xc0, 0xff] {
            assert!(!is_connection_request(&starting(other)), "{other:x}");
        }
        assert!(!is_connection_request(&[]) && !is_connection_request(&[0x80]));
    }

    #[test]
    fn a_source_has_a_burst_and_a_rate_and_others_are_free() {
        let mut admission = Admission::new(10, &[]);
        let source = addr("192.0.2.1");
        let burst = (0..100).filter(|_| admission.check(at(0), source).is_ok()).count();
        assert_eq!(burst, 20);
        assert_eq!(admission.check(at(1), source), Err(Refused::TooOften));
        assert_eq!(admission.check(at(0), addr("192.0.2.2")), Ok(()));
        let in_a_second = (1..=1000).filter(|ms| admission.check(at(*ms), source).is_ok()).count();
        assert_eq!(in_a_second, 10);
        // Long idle: the burst is back, and no more.
        let burst = (0..100).filter(|_| admission.check(at(100_000), source).is_ok()).count();
        assert_eq!(burst, 20);
    }

    #[test]
    fn fast_polling_does_not_stop_the_refill() {
        let mut admission = Admission::new(1, &[]);
        let source = addr("192.0.2.1");
        let start = at(0);
        let allowed = (0..3_000_000u64)
            .step_by(50)
            .filter(|us| admission.check(start + Duration::from_micros(*us), source).is_ok())
            .count();
        assert!((4..=5).contains(&allowed), "2 at once, then 1 a second: {allowed}");
    }

    #[test]
    fn one_ipv6_site_is_one_source() {
        let mut admission = Admission::new(1, &[]);
        let passed = (0..64u32)
            .filter(|i| admission.check(at(0), addr(&format!("2001:db8::{i:x}"))).is_ok())
            .count();
        assert_eq!(passed, 2);
    }

    #[test]
    fn sources_beyond_the_table_share_but_memory_stays() {
        let mut admission = Admission::new(1, &[]);
        for i in 0..50_000u32 {
            let _ = admission.check(at(0), SocketAddr::new(IpAddr::V4(i.into()), 1));
        }
        assert_eq!(admission.buckets.len(), BUCKETS);
        assert_eq!(size_of::<Bucket>(), 16);
    }

    #[test]
    fn the_deny_list_covers_networks_and_can_change() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "192.0.2.7"];
        let nets: Vec<IpNet> = nets.iter().map(|n| n.parse().unwrap()).collect();
        let mut admission = Admission::new(0, &nets);
        for denied in ["10.0.0.1", "10.1.2.3", "10.255.255.255", "2001:db8:1::1", "192.0.2.7"] {
            assert_eq!(admission.check(at(0), addr(denied)), Err(Refused::Denied), "{denied}");
        }
        for fine in ["9.255.255.255", "11.0.0.0", "2001:db9::1", "192.0.2.8", "::1"] {
            assert_eq!(admission.check(at(0), addr(fine)), Ok(()), "{fine}");
        }
        admission.set_deny(&[]);
        assert_eq!(admission.check(at(0), addr("10.0.0.1")), Ok(()));
    }

    #[test]
    fn throttle() {
        let mut t = Throttle::new(Duration::from_secs(1));
        assert!(t.allow(at(0)));
        assert!(!t.allow(at(999)));
        assert!(t.allow(at(1000)));
    }
}
