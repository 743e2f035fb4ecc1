//! From what the system says about a received message to what the shard gets.

use super::{DriverStats, RxItem};
use crate::sys::{Received, SocketFacts};

/// A socket as far as receiving is concerned.
#[derive(Debug)]
pub(super) struct Arrivals {
    pub(super) number: u16,
    pub(super) facts: SocketFacts,
    /// Drops reported so far.
    dropped: u32,
}

impl Arrivals {
    pub(super) const fn new(number: u16, facts: SocketFacts) -> Self {
        Self { number, facts, dropped: 0 }
    }

    /// The item for a message in buffer `token`; `None` for one that is dropped, and counted.
    pub(super) fn item(
        &mut self,
        token: u32,
        received: Option<Received>,
        stats: &mut DriverStats,
    ) -> Option<RxItem> {
        if let Some(dropped) = received.and_then(|r| r.dropped) {
            stats.rx_dropped += u64::from(dropped.wrapping_sub(self.dropped));
            self.dropped = dropped;
        }
        if received.is_some_and(|r| r.truncated) {
            stats.rx_truncated += 1;
            return None;
        }
        let Some((received, remote)) = received.and_then(|r| Some((r, r.remote?))) else {
            stats.rx_malformed += 1;
            return None;
        };
        let local = if self.facts.wildcard { received.local } else { Some(self.facts.local.ip()) };
        let item = RxItem {
            socket: self.number,
            remote,
            local,
            len: received.len,
            stride: received.stride,
            ecn: received.ecn,
            token,
        };
        stats.rx_items += 1;
        stats.rx_packets += item.segments() as u64;
        stats.rx_bytes += item.len as u64;
        stats.rx_gro += u64::from(item.stride < item.len);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_once_and_nonsense_is_dropped() {
        let local = ([127, 0, 0, 1], 9).into();
        let facts = SocketFacts { local, wildcard: false, gro: true, gso: true };
        let (mut arrivals, mut stats) = (Arrivals::new(3, facts), DriverStats::default());
        let received = Received {
            remote: Some(local),
            local: None,
            len: 250,
            stride: 100,
            ecn: 1,
            truncated: false,
            dropped: Some(5),
        };
        let item = arrivals.item(7, Some(received), &mut stats).unwrap();
        assert_eq!((item.socket, item.token, item.segments()), (3, 7, 3));
        assert_eq!(item.local, Some(local.ip()));
        assert!(
            arrivals.item(7, Some(Received { dropped: Some(9), ..received }), &mut stats).is_some()
        );
        assert_eq!((stats.rx_dropped, stats.rx_packets, stats.rx_gro), (9, 6, 2));
        assert!(
            arrivals.item(7, Some(Received { truncated: true, ..received }), &mut stats).is_none()
        );
        assert!(
            arrivals.item(7, Some(Received { remote: None, ..received }), &mut stats).is_none()
        );
        assert!(arrivals.item(7, None, &mut stats).is_none());
        assert_eq!((stats.rx_truncated, stats.rx_malformed, stats.rx_items), (1, 2, 2));
    }
}
