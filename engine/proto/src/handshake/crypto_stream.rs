//! The TLS byte stream of one encryption level: what we send until it is acknowledged, and what
//! arrives, put back into order (RFC 9000 §19.6, RFC 9001 §4.1.3).

use crate::limits::MAX_CRYPTO_BUFFER;
use crate::wire::ranges::RangeSet;
use core::ops::Range;

/// Our side: all bytes of the level, and which of them must (again) be sent.
#[derive(Debug, Default)]
pub(super) struct CryptoSend {
    bytes: Vec<u8>,
    acked: RangeSet,
    pending: RangeSet,
}

impl CryptoSend {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let start = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        self.pending.insert(start..self.bytes.len() as u64);
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether bytes exist that the peer has not acknowledged.
    pub(super) fn has_unacked(&self) -> bool {
        self.acked.covered() < self.bytes.len() as u64
    }

    /// The next piece to send, at most `max` bytes long; it is no longer pending.
    pub(super) fn take(&mut self, max: usize) -> Option<(u64, &[u8])> {
        let range = self.pending.pop_front_up_to(max as u64)?;
        Some((range.start, &self.bytes[range.start as usize..range.end as usize]))
    }

    pub(super) fn on_acked(&mut self, range: Range<u64>) {
        self.pending.remove(range.clone());
        self.acked.insert(range);
    }

    pub(super) fn on_lost(&mut self, range: Range<u64>) {
        for gap in self.acked.gaps(range) {
            self.pending.insert(gap);
        }
    }

    /// Sends everything again, acknowledged or not: for a level whose acknowledgements anybody on
    /// the path can forge.
    pub(super) fn resend_all(&mut self) {
        self.pending.insert(0..self.bytes.len() as u64);
    }
}

/// What became of a piece that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It brought bytes that were missing.
    New,
    /// All of it was there.
    Old,
    /// A byte differs from what was there at its place.
    Conflict,
    /// It lies further ahead than we keep; the packet must not be acknowledged.
    TooFar,
}

/// The peer's side: bytes in any order, kept until the level ends so that a second version of
/// them is noticed.
#[derive(Debug, Default)]
pub(super) struct CryptoReceive {
    bytes: Vec<u8>,
    arrived: RangeSet,
    consumed: usize,
}

impl CryptoReceive {
    /// Takes a piece. At most `ahead` bytes beyond the first missing one are kept.
    pub(super) fn insert(&mut self, offset: u64, data: &[u8], ahead: usize) -> Inserted {
        let limit = (self.contiguous() + ahead).min(MAX_CRYPTO_BUFFER) as u64;
        let end = offset.saturating_add(data.len() as u64);
        if end > limit {
            return Inserted::TooFar;
        }
        if self.conflicts(offset, data) {
            return Inserted::Conflict;
        }
        let (start, end) = (offset as usize, end as usize);
        if self.arrived.insert(offset..end as u64) == 0 {
            return Inserted::Old;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(data);
        Inserted::New
    }

    /// Whether `data` contradicts what arrived before.
    pub(super) fn conflicts(&self, offset: u64, data: &[u8]) -> bool {
        let end = offset.saturating_add(data.len() as u64);
        self.arrived.iter().any(|r| {
            let (from, to) = (r.start.max(offset), r.end.min(end));
            from < to
                && self.bytes[from as usize..to as usize]
                    != data[(from - offset) as usize..(to - offset) as usize]
        })
    }

    fn contiguous(&self) -> usize {
        match self.arrived.first() {
            Some(first) if first.start == 0 => first.end as usize,
            _ => 0,
        }
    }

    /// Takes what can be read now, in order.
    pub(super) fn read(&mut self) -> &[u8] {
        let from = self.consumed;
        self.consumed = self.contiguous();
        &self.bytes[from..self.consumed]
    }

    pub(super) fn can_read(&self) -> bool {
        self.contiguous() > self.consumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sends_until_acknowledged() {
        let mut s = CryptoSend::default();
        s.push(b"hello ");
        s.push(b"world");
        assert_eq!(s.take(4), Some((0, &b"hell"[..])));
        assert_eq!(s.take(100), Some((4, &b"o world"[..])));
        assert!(!s.has_pending() && s.has_unacked());
        s.on_acked(2..4);
        s.on_lost(0..6);
        assert_eq!(s.take(100), Some((0, &b"he"[..])));
        assert_eq!(s.take(100), Some((4, &b"o "[..])));
        s.on_acked(0..11);
        assert!(!s.has_unacked());
        s.on_lost(0..11);
        assert!(!s.has_pending());
        s.resend_all();
        assert_eq!(s.take(100), Some((0, &b"hello world"[..])));
    }

    #[test]
    fn receive_is_bounded_and_notices_conflicts() {
        let mut r = CryptoReceive::default();
        assert_eq!(r.insert(100, b"x", 100), Inserted::TooFar);
        assert_eq!(r.insert(99, b"x", 100), Inserted::New);
        assert_eq!(r.insert(u64::MAX, b"x", 100), Inserted::TooFar);
        assert_eq!(r.insert(98, b"ab", 100), Inserted::Conflict);
        assert_eq!(r.insert(98, b"ax", 100), Inserted::New);
        assert_eq!(r.insert(99, b"x", 100), Inserted::Old);
        assert_eq!(r.insert(5, b"", 100), Inserted::Old);
        assert!(!r.can_read());
        let far = MAX_CRYPTO_BUFFER as u64;
        assert_eq!(r.insert(far, b"x", usize::MAX / 2), Inserted::TooFar);
    }

    proptest! {
        #[test]
        fn any_order_comes_out_in_order(
            data in prop::collection::vec(any::<u8>(), 1..3000),
            pieces in prop::collection::vec((0usize..3000, 1usize..400), 0..80),
        ) {
            let mut r = CryptoReceive::default();
            let mut out = Vec::new();
            let all = (0..data.len()).step_by(97).map(|at| (at, 97));
            for (at, len) in pieces.into_iter().chain(all) {
                let at = at.min(data.len());
                let end = (at + len).min(data.len());
                prop_assert_ne!(r.insert(at as u64, &data[at..end], 1 << 20), Inserted::Conflict);
                out.extend_from_slice(r.read());
            }
            prop_assert_eq!(out, data);
        }
    }
}
