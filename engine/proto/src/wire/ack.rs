//! The ACK frame: ranges of received packet numbers, newest first (RFC 9000 §19.3).

use crate::error::PeerMisbehaved;
use crate::limits::{FRAME_HEADER_LEN, MAX_ACK_RANGES, TRANSPORT_CHANNEL};
use crate::time::Duration;
use crate::wire::codec::{Full, Reader, Truncated, Writer, varint_len};
use crate::wire::transport::kind;
use core::ops::RangeInclusive;

/// Flag: three ECN counters follow the ranges.
const FLAG_ECN: u8 = 1;

// The count of additional ranges is patched in after they are written: it must be one byte.
const _: () = assert!(varint_len(MAX_ACK_RANGES as u64 - 1) == 1);

/// Marks seen on received packets, counted since the connection began (RFC 9000 §19.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// Packets marked ECT(0).
    pub ect0: u64,
    /// Packets marked ECT(1).
    pub ect1: u64,
    /// Packets marked CE.
    pub ce: u64,
}

impl EcnCounts {
    const fn encoded_len(self) -> usize {
        varint_len(self.ect0) + varint_len(self.ect1) + varint_len(self.ce)
    }
}

/// A parsed ACK frame; its ranges are already validated and borrowed from the payload.
#[derive(Clone, Copy, Debug)]
pub struct AckFrame<'a> {
    /// Newest packet number acknowledged.
    pub largest: u64,
    /// How long the peer held the acknowledgement of `largest` back.
    pub delay: Duration,
    /// ECN counters, when present.
    pub ecn: Option<EcnCounts>,
    /// Packet numbers below `largest` that the newest range holds.
    first: u64,
    /// The encoded (gap, length) pairs of the other ranges.
    more: &'a [u8],
}

impl<'a> AckFrame<'a> {
    /// Parses the body after the type byte; all of `r` is consumed.
    #[inline]
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, PeerMisbehaved> {
        const BAD: PeerMisbehaved = PeerMisbehaved::Malformed("ACK");
        let cut = |_: Truncated| BAD;
        let largest = r.varint().map_err(cut)?;
        let delay = Duration::from_micros(r.varint().map_err(cut)?);
        let flags = r.u8().map_err(cut)?;
        if flags & !FLAG_ECN != 0 {
            return Err(PeerMisbehaved::Malformed("ACK flags"));
        }
        let count = r.varint().map_err(cut)?;
        if count >= MAX_ACK_RANGES as u64 {
            return Err(PeerMisbehaved::Limit("ACK ranges"));
        }
        let first = r.varint().map_err(cut)?;
        let mut smallest = largest.checked_sub(first).ok_or(BAD)?;
        let mut scan = *r;
        for _ in 0..count {
            let (gap, len) = (scan.varint().map_err(cut)?, scan.varint().map_err(cut)?);
            // Both are below 2^62: the sum cannot overflow.
            smallest = smallest.checked_sub(gap + 2 + len).ok_or(BAD)?;
        }
        let more = r.bytes(r.remaining() - scan.remaining()).map_err(cut)?;
        let ecn = if flags & FLAG_ECN == 0 {
            None
        } else {
            Some(EcnCounts {
                ect0: r.varint().map_err(cut)?,
                ect1: r.varint().map_err(cut)?,
                ce: r.varint().map_err(cut)?,
            })
        };
        if r.remaining() != 0 {
            return Err(BAD);
        }
        Ok(Self { largest, delay, ecn, first, more })
    }

    /// The acknowledged ranges, newest first, disjoint and never adjacent.
    #[inline]
    pub fn ranges(&self) -> AckRanges<'a> {
        AckRanges {
            next: Some((self.largest - self.first, self.largest)),
            more: Reader::new(self.more),
        }
    }

    /// Bytes of the whole frame as [`write_ack`] would write it, header included.
    pub(super) fn encoded_len(&self) -> usize {
        let mut count = 0;
        let mut len = 0;
        let mut previous: Option<u64> = None;
        for range in self.ranges() {
            if let Some(smallest) = previous {
                count += 1;
                len += varint_len(smallest - range.end() - 2);
            }
            len += varint_len(range.end() - range.start());
            previous = Some(*range.start());
        }
        FRAME_HEADER_LEN
            + 1
            + varint_len(self.largest)
            + varint_len(self.delay.as_micros())
            + 1
            + varint_len(count)
            + len
            + self.ecn.map_or(0, EcnCounts::encoded_len)
    }
}

/// Equal when they acknowledge the same, however the numbers were encoded.
impl PartialEq for AckFrame<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.delay == other.delay && self.ecn == other.ecn && self.ranges().eq(other.ranges())
    }
}

impl Eq for AckFrame<'_> {}

/// Iterator over the ranges of an [`AckFrame`], newest first.
#[derive(Clone, Debug)]
pub struct AckRanges<'a> {
    next: Option<(u64, u64)>,
    more: Reader<'a>,
}

impl Iterator for AckRanges<'_> {
    type Item = RangeInclusive<u64>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (start, end) = self.next?;
        // The frame was validated as a whole; were it not, the iteration would end early.
        self.next = match (self.more.varint(), self.more.varint()) {
            (Ok(gap), Ok(len)) => {
                start.checked_sub(gap + 2).and_then(|end| Some((end.checked_sub(len)?, end)))
            }
            _ => None,
        };
        Some(start..=end)
    }
}

impl core::iter::FusedIterator for AckRanges<'_> {}

/// Writes a whole ACK frame, header included, with as many of `ranges` as fit, at most
/// [`MAX_ACK_RANGES`]. Gives the number of ranges written.
///
/// `ranges` are packet numbers received, newest first, disjoint and not adjacent. Without any
/// range nothing is written. [`Full`]: not even one range fits; nothing is written.
#[inline]
pub fn write_ack(
    w: &mut Writer,
    delay: Duration,
    ranges: impl Iterator<Item = RangeInclusive<u64>> + Clone,
    ecn: Option<EcnCounts>,
) -> Result<usize, Full> {
    let mut ranges = ranges;
    let Some(newest) = ranges.next() else { return Ok(0) };
    let (start, largest) = (*newest.start(), *newest.end());
    let (first, delay_us) = (largest.saturating_sub(start), delay.as_micros());
    let ecn_len = ecn.map_or(0, EcnCounts::encoded_len);
    let fixed = FRAME_HEADER_LEN
        + 3
        + varint_len(largest)
        + varint_len(delay_us)
        + varint_len(first)
        + ecn_len;
    if w.remaining() < fixed {
        return Err(Full);
    }
    let frame_at = w.written();
    w.put_u16(0)?;
    w.put_u16(TRANSPORT_CHANNEL)?;
    w.put_u8(kind::ACK)?;
    w.put_varint(largest)?;
    w.put_varint(delay_us)?;
    w.put_u8(if ecn.is_some() { FLAG_ECN } else { 0 })?;
    let count_at = w.written();
    w.put_u8(0)?;
    w.put_varint(first)?;
    let mut smallest = start;
    let mut more = 0;
    for range in ranges.take(MAX_ACK_RANGES - 1) {
        let (start, end) = (*range.start(), *range.end());
        let Some(gap) = smallest.checked_sub(end.saturating_add(2)) else {
            debug_assert!(false, "ranges must come newest first, disjoint and not adjacent");
            break;
        };
        let len = end.saturating_sub(start);
        if w.remaining() < varint_len(gap) + varint_len(len) + ecn_len {
            break;
        }
        w.put_varint(gap)?;
        w.put_varint(len)?;
        smallest = start;
        more += 1;
    }
    if let Some(ecn) = ecn {
        w.put_varint(ecn.ect0)?;
        w.put_varint(ecn.ect1)?;
        w.put_varint(ecn.ce)?;
    }
    w.patch_u8(count_at, more);
    w.patch_u16(frame_at, (w.written() - frame_at - FRAME_HEADER_LEN) as u16);
    Ok(usize::from(more) + 1)
}
