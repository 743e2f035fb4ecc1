//! The sending half of a reliable stream: a queue of bytes from the oldest unacknowledged one to
//! the newest one accepted, and what of it has to be sent again.

use super::pool::{MAX_BLOCK, Pool};
use crate::lean::reserve_front;
use crate::payload::Payload;
use crate::wire::ranges::RangeSet;
use std::collections::VecDeque;

/// Bytes of a stream that stand together in memory.
#[derive(Debug)]
struct Segment {
    /// Stream offset of the first byte.
    start: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    /// Copied into a block of the pool; more may be appended.
    Block(Vec<u8>),
    /// Owned by somebody else; read when it goes into a packet.
    Shared(Payload),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Block(block) => block,
            Bytes::Shared(payload) => payload.as_slice(),
        }
    }

    fn end(&self) -> u64 {
        let len = match &self.bytes {
            Bytes::Block(block) => block.len(),
            Bytes::Shared(payload) => payload.len(),
        };
        self.start + len as u64
    }
}

/// The queue of one stream. Exists only while something is queued or unacknowledged.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct SendBuf {
    // The first line of the processor's cache has what every send and every packet needs.
    segments: VecDeque<Segment>,
    /// Everything before was acknowledged.
    base: u64,
    /// Everything from here on was never sent.
    next: u64,
    /// The next byte that the application hands over gets this offset.
    end: u64,
    /// Index of the segment that holds `next`, or of one that ends there.
    cursor: usize,
    /// Acknowledged, beyond `base`.
    acked: RangeSet,
    /// To be sent again.
    lost: RangeSet,
    /// End offset and token of messages whose sender wants to know, in rising order.
    receipts: VecDeque<(u64, u64)>,
}

impl SendBuf {
    /// Empties the queue and puts the stream at `offset`.
    pub(super) fn start_at(&mut self, offset: u64) {
        debug_assert!(self.segments.is_empty());
        (self.base, self.next, self.end, self.cursor) = (offset, offset, offset, 0);
    }

    /// Drops everything; the memory goes to the pool.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        while let Some(segment) = self.segments.pop_front() {
            if let Bytes::Block(block) = segment.bytes {
                pool.give_block(block);
            }
        }
        self.acked.clear();
        self.lost.clear();
        self.receipts.clear();
        self.start_at(self.end);
    }

    /// Bytes of memory that an empty queue holds.
    pub(super) fn list_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>()
            + self.receipts.capacity() * size_of::<(u64, u64)>()
    }

    /// First byte never sent.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// One behind the last byte accepted.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// First unacknowledged byte.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    /// Bytes never sent.
    pub(super) const fn unsent(&self) -> u64 {
        self.end - self.next
    }

    /// Bytes from the first unacknowledged one to the last one accepted.
    pub(super) const fn unacked(&self) -> u64 {
        self.end - self.base
    }

    /// Bytes acknowledged beyond the first unacknowledged one.
    pub(super) fn acked_beyond(&self) -> u64 {
        self.acked.covered()
    }

    /// Whether something has to be sent again.
    pub(super) const fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Asks for a receipt when all bytes accepted so far are acknowledged.
    pub(super) fn add_receipt(&mut self, token: u64) {
        self.receipts.push_back((self.end, token));
    }

    /// The next receipt that is due.
    pub(super) fn take_receipt(&mut self) -> Option<u64> {
        let (end, _) = *self.receipts.front()?;
        if end > self.base { None } else { self.receipts.pop_front().map(|(_, token)| token) }
    }

    /// Appends a copy.
    #[inline]
    pub(super) fn push_copy(&mut self, data: &[u8], pool: &mut Pool) {
        if let Some(Segment { bytes: Bytes::Block(block), .. }) = self.segments.back_mut()
            && block.capacity() - block.len() >= data.len()
        {
            block.extend_from_slice(data);
            self.end += data.len() as u64;
            return;
        }
        self.push_blocks(data, pool);
    }

    /// Appends a copy that does not fit into the last block.
    fn push_blocks(&mut self, mut data: &[u8], pool: &mut Pool) {
        let mut want = 0;
        if let Some(Segment { bytes: Bytes::Block(block), .. }) = self.segments.back_mut() {
            let room = block.capacity() - block.len();
            let (head, tail) = data.split_at(room.min(data.len()));
            block.extend_from_slice(head);
            self.end += head.len() as u64;
            data = tail;
            want = block.capacity() * 4;
        }
        while !data.is_empty() {
            let mut block = pool.block(data.len().max(want).min(MAX_BLOCK));
            let room = block.capacity();
            let (head, tail) = data.split_at(room.min(data.len()));
            block.extend_from_slice(head);
            self.push_segment(Bytes::Block(block));
            self.end += head.len() as u64;
            data = tail;
        }
    }

    /// Appends bytes that somebody else owns.
    pub(super) fn push_payload(&mut self, payload: Payload) {
        if payload.is_empty() {
            return;
        }
        let len = payload.len() as u64;
        self.push_segment(Bytes::Shared(payload));
        self.end += len;
    }

    fn push_segment(&mut self, bytes: Bytes) {
        reserve_front(&mut self.segments);
        self.segments.push_back(Segment { start: self.end, bytes });
    }

    /// Fills `out` with the next bytes never sent; `out` is not longer than [`Self::unsent`].
    #[inline]
    pub(super) fn take_new(&mut self, out: &mut [u8]) {
        let mut rest = out;
        while let Some(segment) = self.segments.get(self.cursor) {
            let bytes = segment.bytes();
            let at = (self.next - segment.start) as usize;
            let n = rest.len().min(bytes.len() - at);
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&bytes[at..at + n]);
            self.next += n as u64;
            rest = tail;
            if at + n < bytes.len() || self.cursor + 1 == self.segments.len() {
                break;
            }
            self.cursor += 1;
        }
        debug_assert!(rest.is_empty());
    }

    /// Takes up to `max` bytes off the front of what has to be sent again: offset and length.
    pub(super) fn take_lost(&mut self, max: u64) -> Option<(u64, usize)> {
        let range = self.lost.pop_front_up_to(max)?;
        Some((range.start, (range.end - range.start) as usize))
    }

    /// Fills `out` with the bytes from `offset` on, which are neither acknowledged up to the front
    /// nor beyond the end.
    pub(super) fn copy_at(&self, mut offset: u64, out: &mut [u8]) {
        let mut rest = out;
        let first = self.segments.partition_point(|s| s.end() <= offset);
        for segment in self.segments.range(first..) {
            if rest.is_empty() {
                break;
            }
            let bytes = segment.bytes();
            let at = (offset - segment.start) as usize;
            let n = rest.len().min(bytes.len() - at);
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&bytes[at..at + n]);
            offset += n as u64;
            rest = tail;
        }
        debug_assert!(rest.is_empty());
    }

    /// A range was acknowledged; gives by how many bytes the front moved.
    pub(super) fn on_acked(&mut self, offset: u64, len: u64, pool: &mut Pool) -> u64 {
        let end = (offset + len).min(self.next);
        if end <= self.base {
            return 0;
        }
        if !self.lost.is_empty() {
            self.lost.remove(offset..end);
        }
        if offset > self.base {
            self.acked.insert(offset..end);
            return 0;
        }
        let before = self.base;
        self.base = end;
        while let Some(range) = self.acked.first() {
            if range.start > self.base {
                break;
            }
            self.base = self.base.max(range.end);
            self.acked.pop_front();
        }
        self.pop_segments(pool);
        self.base - before
    }

    fn pop_segments(&mut self, pool: &mut Pool) {
        while let Some(front) = self.segments.front() {
            if front.end() > self.base {
                break;
            }
            self.cursor = self.cursor.saturating_sub(1);
            if let Some(Segment { bytes: Bytes::Block(block), .. }) = self.segments.pop_front() {
                pool.give_block(block);
            }
        }
    }

    /// A range was lost; gives how many of its bytes have to be sent again and were not waiting
    /// for it yet.
    pub(super) fn on_lost(&mut self, offset: u64, len: u64) -> u64 {
        let start = offset.max(self.base);
        let end = (offset + len).min(self.next);
        if start >= end {
            return 0;
        }
        if self.acked.is_empty() {
            return self.lost.insert(start..end);
        }
        self.acked.gaps(start..end).map(|gap| self.lost.insert(gap)).sum()
    }
}
