//! Cutting trains into what one send call may carry, and remembering the paths on which the system
//! must not do the cutting.

use super::{DriverStats, TxBuf, TxMeta};
use crate::sys;
use std::io;
use std::net::IpAddr;

/// How a queued train is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// By the system.
    System,
    /// Here, packet by packet, because the path or the system does not do it.
    Here,
    /// Here, because the system has just refused; nothing got through yet.
    Refused,
}

/// A train on its way out.
#[derive(Debug)]
pub(super) struct Train {
    pub(super) buf: TxBuf,
    pub(super) meta: TxMeta,
    /// Bytes that were sent.
    pub(super) done: usize,
    pub(super) cut: Cut,
}

/// A part of a train: what one message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) segment: usize,
}

impl Part {
    pub(super) const fn segments(&self) -> usize {
        if self.segment == 0 { 1 } else { self.len.div_ceil(self.segment) }
    }
}

impl Train {
    /// Brings the description of a train into its normal form: a segment size between 1 and the
    /// length, or both 0 for an empty datagram.
    pub(super) fn new(buf: TxBuf, mut meta: TxMeta, cut: Cut) -> Self {
        if meta.segment == 0 || meta.segment > meta.len {
            meta.segment = meta.len;
        }
        Self { buf, meta, done: 0, cut }
    }

    /// The part that starts at `from`. Call with what `done` will be, beginning with `done`, while
    /// [`is_end`](Self::is_end) says no.
    pub(super) fn part(&self, from: usize, max_segments: usize) -> Part {
        let rest = self.meta.len - from;
        let segment = self.meta.segment;
        let most = if self.cut == Cut::System { segment * max_segments } else { segment };
        let len = rest.min(most);
        Part { start: from, len, segment: segment.min(len) }
    }

    /// The next part went out. Whether that was the last.
    pub(super) fn advance(
        &mut self,
        max_segments: usize,
        refused: &mut RefusedPaths,
        stats: &mut DriverStats,
    ) -> bool {
        let part = self.part(self.done, max_segments);
        stats.tx_trains += 1;
        stats.tx_packets += part.segments() as u64;
        stats.tx_bytes += part.len as u64;
        stats.tx_gso += u64::from(part.segments() > 1);
        if self.cut == Cut::Refused {
            // The same bytes pass uncut: it is the segmentation that this path does not take.
            refused.insert(self.meta.remote.ip());
            self.cut = Cut::Here;
        }
        self.done += part.len;
        self.is_end(self.done)
    }

    /// The next part was refused with `error`. Whether it is worth trying packet by packet.
    pub(super) fn retries_uncut(&mut self, error: &io::Error, stats: &mut DriverStats) -> bool {
        let in_segments = self.cut == Cut::System && self.meta.segment < self.meta.len;
        if in_segments && sys::is_gso_refusal(error) {
            stats.gso_refused += 1;
            self.cut = Cut::Refused;
            return true;
        }
        false
    }

    /// Whether nothing is left from `from` on. An empty datagram has one part of no bytes.
    pub(super) const fn is_end(&self, from: usize) -> bool {
        from >= self.meta.len
    }
}

/// Addresses for which the system refused to segment: their route leads through something that
/// cannot do it.
#[derive(Debug, Default)]
pub(super) struct RefusedPaths {
    /// Sorted.
    addresses: Vec<IpAddr>,
    /// Too many to remember: no segmentation by the system at all.
    all: bool,
}

/// Paths remembered one by one.
const MAX_PATHS: usize = 1024;

impl RefusedPaths {
    /// Whether trains to `address` must be cut here.
    #[inline]
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.all || (!self.addresses.is_empty() && self.addresses.binary_search(&address).is_ok())
    }

    /// Remembers a refusal.
    pub(super) fn insert(&mut self, address: IpAddr) {
        let Err(at) = self.addresses.binary_search(&address) else { return };
        if self.addresses.len() < MAX_PATHS {
            tracing::info!(%address, "no segmentation offload on this path: sending packet by packet");
            self.addresses.insert(at, address);
        } else if !self.all {
            tracing::warn!("too many paths without segmentation offload: switching it off");
            self.all = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(len: usize, segment: usize, cut: Cut) -> Train {
        let meta = TxMeta {
            socket: 0,
            remote: ([127, 0, 0, 1], 1).into(),
            local: None,
            len,
            segment,
            ecn: 0,
            probe: false,
        };
        Train::new(TxBuf { index: 0 }, meta, cut)
    }

    fn lengths(train: &Train, max: usize) -> Vec<(usize, usize)> {
        let (mut from, mut out) = (0, Vec::new());
        loop {
            let part = train.part(from, max);
            out.push((part.len, part.segments()));
            from += part.len;
            if train.is_end(from) {
                return out;
            }
        }
    }

    #[test]
    fn trains_are_cut_where_the_system_allows() {
        assert_eq!(lengths(&train(1000, 100, Cut::System), 64), [(1000, 10)]);
        assert_eq!(lengths(&train(1001, 100, Cut::System), 8), [(800, 8), (201, 3)]);
        assert_eq!(lengths(&train(250, 100, Cut::Here), 64), [(100, 1), (100, 1), (50, 1)]);
        assert_eq!(lengths(&train(250, 250, Cut::System), 64), [(250, 1)]);
        assert_eq!(lengths(&train(250, 0, Cut::System), 64), [(250, 1)]);
        assert_eq!(lengths(&train(250, 9000, Cut::Here), 64), [(250, 1)]);
        assert_eq!(lengths(&train(0, 0, Cut::System), 64), [(0, 1)]);
    }

    #[test]
    fn refused_paths_are_remembered_up_to_a_bound() {
        let mut paths = RefusedPaths::default();
        let address = |i: u32| IpAddr::from(i.to_be_bytes());
        for i in (0..MAX_PATHS as u32).rev() {
            paths.insert(address(i * 2));
            paths.insert(address(i * 2));
        }
        assert!(paths.contains(address(10)) && !paths.contains(address(11)));
        paths.insert(address(11));
        assert!(paths.contains(address(13)), "no room: all of them");
        assert_eq!(paths.addresses.len(), MAX_PATHS);
    }
}
