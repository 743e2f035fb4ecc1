//! The receiving half of a reliable stream: what is delivered, what waits, and until when it is
//! credited.
//!
//! Bytes that arrive in order go from the packet straight to their receiver, and so do messages
//! that lie whole inside one frame. Everything else is copied once, to its place in one linear
//! buffer, so that a message is always delivered as one slice.

use super::pool::Pool;
use crate::config::ChannelKind;
use crate::error::PeerMisbehaved;
use crate::limits::MAX_STREAM_RANGES;
use crate::time::Instant;
use crate::wire::codec::Reader;
use crate::wire::ranges::RangeSet;

/// No end of the stream is known.
pub(super) const NO_END: u64 = u64::MAX;
/// Delivered bytes at the front of a buffer are moved out when there are at least this many.
const COMPACT: usize = 64 << 10;
/// One further range of bytes beyond a gap is allowed for this many bytes in the buffer, so that
/// ranges never need more memory than the bytes.
const BYTES_PER_RANGE: usize = 64;

/// Where delivered bytes go.
pub(super) trait Deliver {
    /// The next bytes of a `bytes` channel.
    fn bytes(&mut self, bytes: &[u8]);
    /// A whole message.
    fn message(&mut self, message: &[u8]);
    /// A whole message: the bytes of a buffer that may be taken, from `from` on.
    fn message_buffer(&mut self, buffer: &mut Vec<u8>, from: usize) {
        self.message(buffer.get(from..).unwrap_or(&[]));
    }
}

/// What delivery depends on, and what comes of it.
pub(super) struct RecvContext<'a> {
    /// [`ChannelKind::Bytes`] or [`ChannelKind::Messages`].
    pub kind: ChannelKind,
    /// Longest message accepted.
    pub max_message: u64,
    /// The application returns credit itself.
    pub manual: bool,
    /// Nothing is delivered yet.
    pub hold: bool,
    pub pool: &'a mut Pool,
    /// Reassembly budget that is free again.
    pub released: u64,
}

/// State of one receiving half.
#[derive(Debug)]
pub(super) struct RecvState {
    /// Everything before arrived.
    pub next: u64,
    /// One behind the highest byte that arrived.
    pub highest: u64,
    /// Where the stream ends; [`NO_END`] while unknown.
    pub end: u64,
    /// The peer may send bytes below this offset.
    pub limit: u64,
    /// Credit that this channel was last charged for, beyond its minimum.
    pub charged: u64,
    /// Manual credit: bytes handed over and not consumed.
    pub unconsumed: u64,
    /// Manual credit: bytes handed over that the reassembly budget still pays for.
    pub debt: u64,
    /// Start of the window in which the speed of consumption is measured.
    pub epoch: Instant,
    /// Credit returned when it started.
    pub epoch_offset: u64,
    /// Credit that the channel is meant to have.
    pub window: u32,
    /// Bytes of the reassembly budget reserved for the message that is being put together.
    pub reserved: u32,
    pub buf: Option<Box<RecvBuf>>,
}

impl RecvState {
    /// A stream from which nothing has arrived.
    pub(super) const fn new() -> Self {
        Self {
            next: 0,
            highest: 0,
            end: NO_END,
            limit: 0,
            charged: 0,
            unconsumed: 0,
            debt: 0,
            epoch: Instant::ZERO,
            epoch_offset: 0,
            window: 0,
            reserved: 0,
            buf: None,
        }
    }

    /// One behind the last byte that was delivered or dropped.
    fn delivered(&self) -> u64 {
        self.buf.as_ref().map_or(self.next, |buf| buf.base)
    }

    /// Bytes whose credit can be granted again.
    #[inline]
    pub(super) fn freed(&self) -> u64 {
        let taken = if self.reserved > 0 { self.next } else { self.delivered() };
        taken - self.unconsumed
    }

    /// Whether everything up to a known end was delivered.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.end == self.next && self.buf.is_none()
    }

    /// Bytes that arrived in order and were not delivered.
    pub(super) fn buffered(&self) -> u64 {
        self.next - self.delivered()
    }

    /// Length with prefix of the message that is being put together, once known.
    pub(super) fn message_len(&self) -> Option<u64> {
        self.buf.as_ref().map(|buf| buf.need).filter(|need| *need > 0)
    }

    /// Whether the peer may not send all of the message that is being put together, and nothing but
    /// more credit can change that.
    #[inline]
    pub(super) fn lacks_credit(&self) -> bool {
        self.is_short() && self.unconsumed == 0
    }

    /// Whether the peer may not send all of the message that is being put together. What the
    /// application has not consumed may be the reason.
    #[inline]
    pub(super) fn is_short(&self) -> bool {
        match &self.buf {
            Some(buf) => buf.need > 0 && self.reserved == 0 && buf.base + buf.need > self.limit,
            None => false,
        }
    }

    /// Learns where the stream ends.
    pub(super) fn set_end(&mut self, end: u64) -> Result<(), PeerMisbehaved> {
        if end < self.highest || (self.end != NO_END && self.end != end) {
            return Err(PeerMisbehaved::FinalSize);
        }
        self.end = end;
        Ok(())
    }

    /// After [`Self::set_end`] and every delivery: a stream of messages must not end inside one.
    pub(super) fn check_end(&self) -> Result<(), PeerMisbehaved> {
        match &self.buf {
            Some(buf) if self.end == self.next && buf.base < self.next => {
                Err(PeerMisbehaved::Malformed("end of a channel inside a message"))
            }
            _ => Ok(()),
        }
    }

    /// Takes bytes at `offset`; the caller has checked them against credit and end.
    #[inline]
    pub(super) fn receive<D: Deliver>(
        &mut self,
        offset: u64,
        body: &[u8],
        cx: &mut RecvContext<'_>,
        out: &mut D,
    ) -> Result<(), PeerMisbehaved> {
        let end = offset + body.len() as u64;
        self.highest = self.highest.max(end);
        if end <= self.next {
            return Ok(());
        }
        if offset > self.next || cx.hold {
            return self.store(offset, body, cx, out);
        }
        let fresh = &body[(self.next - offset) as usize..];
        match &self.buf {
            None => self.in_order(fresh, cx, out),
            Some(buf) if cx.kind == ChannelKind::Messages => {
                if buf.beyond.is_empty() {
                    self.continue_message(fresh, cx, out)
                } else {
                    self.store(self.next, fresh, cx, out)
                }
            }
            Some(_) => {
                self.next = end;
                self.hand_bytes(fresh, cx, out);
                if let Some(buf) = &mut self.buf {
                    buf.advance_to(end);
                    self.next = buf.absorb(end);
                }
                self.drain(cx, out)
            }
        }
    }

    /// Delivers what was held back.
    pub(super) fn release<D: Deliver>(
        &mut self,
        cx: &mut RecvContext<'_>,
        out: &mut D,
    ) -> Result<(), PeerMisbehaved> {
        if self.buf.is_some() { self.drain(cx, out) } else { Ok(()) }
    }

    /// Drops what is buffered.
    pub(super) fn discard(&mut self, pool: &mut Pool) {
        if let Some(buf) = self.buf.take() {
            pool.give_recv_buf(buf);
        }
    }

    fn hand_bytes<D: Deliver>(&mut self, bytes: &[u8], cx: &RecvContext<'_>, out: &mut D) {
        if cx.manual {
            self.unconsumed += bytes.len() as u64;
        }
        out.bytes(bytes);
    }

    /// Delivers one message out of the buffer.
    fn hand_message<D: Deliver>(&mut self, message: &[u8], cx: &mut RecvContext<'_>, out: &mut D) {
        self.settle_message(message.len() as u64, cx);
        out.message(message);
    }

    /// Settles who pays from now on for a message of `len` bytes that was put together.
    fn settle_message(&mut self, len: u64, cx: &mut RecvContext<'_>) {
        let paid = u64::from(core::mem::take(&mut self.reserved));
        if !cx.manual {
            cx.released += paid;
        } else if paid > 0 {
            // The reassembly budget goes on paying until the application has consumed the message;
            // its credit was returned already.
            self.debt += len.min(paid);
            cx.released += paid.saturating_sub(len);
        } else {
            self.unconsumed += len;
        }
    }

    /// Bytes that follow on what was delivered, with nothing buffered.
    #[inline]
    fn in_order<D: Deliver>(
        &mut self,
        mut body: &[u8],
        cx: &mut RecvContext<'_>,
        out: &mut D,
    ) -> Result<(), PeerMisbehaved> {
        let start = self.next;
        let end = start + body.len() as u64;
        if cx.kind == ChannelKind::Bytes {
            self.next = end;
            self.hand_bytes(body, cx, out);
            return Ok(());
        }
        let mut need = 0;
        while let Some((prefix, len)) = message_prefix(body) {
            let total = check_message(prefix, len, cx.max_message)?;
            let Some((message, rest)) = body.split_at_checked(total as usize) else {
                need = total;
                break;
            };
            if cx.manual {
                self.unconsumed += len;
            }
            out.message(&message[prefix..]);
            body = rest;
        }
        self.next = end;
        if !body.is_empty() {
            let mut buf = cx.pool.recv_buf(end - body.len() as u64);
            buf.data.extend_from_slice(body);
            buf.need = need;
            self.buf = Some(buf);
        }
        Ok(())
    }

    /// Bytes that follow on a part of a message, with nothing buffered beyond.
    fn continue_message<D: Deliver>(
        &mut self,
        mut body: &[u8],
        cx: &mut RecvContext<'_>,
        out: &mut D,
    ) -> Result<(), PeerMisbehaved> {
        let Some(buf) = &mut self.buf else { return self.in_order(body, cx, out) };
        if buf.need == 0 {
            let have = (self.next - buf.base) as usize;
            let missing = buf.prefix_len().saturating_sub(have);
            let (head, rest) = body.split_at(missing.min(body.len()));
            buf.data.extend_from_slice(head);
            self.next += head.len() as u64;
            body = rest;
            match message_prefix(buf.unread()) {
                Some((prefix, len)) => buf.need = check_message(prefix, len, cx.max_message)?,
                None => return Ok(()),
            }
        }
        let missing = buf.need - (self.next - buf.base);
        if (body.len() as u64) < missing {
            buf.data.extend_from_slice(body);
            self.next += body.len() as u64;
            return Ok(());
        }
        let (tail, rest) = body.split_at(missing as usize);
        buf.data.extend_from_slice(tail);
        self.next += missing;
        let prefix = buf.prefix_len();
        if let Some(mut buf) = self.buf.take() {
            let from = buf.head + prefix;
            self.settle_message(buf.data.len().saturating_sub(from) as u64, cx);
            out.message_buffer(&mut buf.data, from);
            cx.pool.give_recv_buf(buf);
        }
        if rest.is_empty() { Ok(()) } else { self.in_order(rest, cx, out) }
    }

    /// Puts bytes to their place in the buffer, then delivers what is complete.
    fn store<D: Deliver>(
        &mut self,
        offset: u64,
        body: &[u8],
        cx: &mut RecvContext<'_>,
        out: &mut D,
    ) -> Result<(), PeerMisbehaved> {
        let skip = self.next.saturating_sub(offset);
        let (offset, body) = (offset + skip, body.get(skip as usize..).unwrap_or(&[]));
        let end = offset + body.len() as u64;
        let buf = self.buf.get_or_insert_with(|| cx.pool.recv_buf(self.next));
        buf.write(offset, body);
        if offset > self.next {
            let most = MAX_STREAM_RANGES + buf.data.len() / BYTES_PER_RANGE;
            return match buf.beyond.insert_bounded(offset..end, most) {
                Some(_) => Ok(()),
                None => Err(PeerMisbehaved::Limit("gaps in a channel")),
            };
        }
        self.next = buf.absorb(end);
        if cx.hold { Ok(()) } else { self.drain(cx, out) }
    }

    /// Delivers everything whole at the front of the buffer.
    fn drain<D: Deliver>(
        &mut self,
        cx: &mut RecvContext<'_>,
        out: &mut D,
    ) -> Result<(), PeerMisbehaved> {
        let Some(mut buf) = self.buf.take() else { return Ok(()) };
        if cx.kind == ChannelKind::Bytes {
            let ready = (self.next - buf.base) as usize;
            if ready > 0 {
                self.hand_bytes(buf.unread().get(..ready).unwrap_or(&[]), cx, out);
                buf.advance_to(self.next);
            }
        } else {
            while buf.base < self.next {
                let ready = (self.next - buf.base) as usize;
                let unread = buf.unread().get(..ready).unwrap_or(&[]);
                let Some((prefix, len)) = message_prefix(unread) else {
                    buf.need = 0;
                    break;
                };
                let total = check_message(prefix, len, cx.max_message)?;
                let Some(message) = unread.get(prefix..total as usize) else {
                    buf.need = total;
                    break;
                };
                self.hand_message(message, cx, out);
                buf.need = 0;
                buf.advance_to(buf.base + total);
            }
        }
        if buf.base == self.next && buf.beyond.is_empty() {
            cx.pool.give_recv_buf(buf);
        } else {
            buf.shrink();
            self.buf = Some(buf);
        }
        Ok(())
    }
}

/// Length of the prefix and of the message behind it; `None` when the prefix is incomplete.
#[inline]
fn message_prefix(bytes: &[u8]) -> Option<(usize, u64)> {
    let first = *bytes.first()?;
    if first < 0x40 {
        return Some((1, u64::from(first)));
    }
    let mut reader = Reader::new(bytes);
    let len = reader.varint().ok()?;
    Some((bytes.len() - reader.remaining(), len))
}

/// Length of a message with its prefix, within bounds.
#[inline]
fn check_message(prefix: usize, len: u64, max: u64) -> Result<u64, PeerMisbehaved> {
    if len > max { Err(PeerMisbehaved::Limit("message size")) } else { Ok(prefix as u64 + len) }
}

/// Bytes that arrived and could not be delivered yet.
#[derive(Debug, Default)]
pub(super) struct RecvBuf {
    data: Vec<u8>,
    /// Index in `data` of the first byte not delivered.
    head: usize,
    /// Its stream offset.
    base: u64,
    /// What arrived beyond the first gap.
    beyond: RangeSet,
    /// Length with prefix of the message at `base`; 0 while unknown.
    need: u64,
}

impl RecvBuf {
    /// Bytes of memory behind it.
    pub(super) const fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Starts an empty buffer at stream offset `base`.
    pub(super) const fn start_at(&mut self, base: u64) {
        self.base = base;
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.beyond.clear();
        (self.head, self.base, self.need) = (0, 0, 0);
    }

    fn unread(&self) -> &[u8] {
        &self.data[self.head..]
    }

    /// Length of the length of the message at `base`; 0 when nothing of it is there.
    fn prefix_len(&self) -> usize {
        self.unread().first().map_or(0, |b| 1 << (b >> 6))
    }

    /// Takes out of `beyond` what touches `next`; gives the new `next`.
    fn absorb(&mut self, mut next: u64) -> u64 {
        while let Some(range) = self.beyond.first() {
            if range.start > next {
                break;
            }
            next = next.max(range.end);
            self.beyond.pop_front();
        }
        next
    }

    /// Copies bytes to their place; what lies between was not received and is filled with zeros.
    fn write(&mut self, offset: u64, body: &[u8]) {
        let at = self.head + (offset - self.base) as usize;
        if at > self.data.len() {
            self.data.resize(at, 0);
        }
        let overlap = (self.data.len() - at).min(body.len());
        let (inside, behind) = body.split_at(overlap);
        self.data[at..at + overlap].copy_from_slice(inside);
        self.data.extend_from_slice(behind);
    }

    /// Gives back memory that a large burst left behind.
    fn shrink(&mut self) {
        if self.data.capacity() > 2 * COMPACT && self.data.len() < self.data.capacity() / 4 {
            self.data.shrink_to(self.data.len() * 2);
        }
    }

    /// Forgets everything before `offset`.
    fn advance_to(&mut self, offset: u64) {
        let n = (offset - self.base) as usize;
        self.base = offset;
        self.head = (self.head + n).min(self.data.len());
        if self.head == self.data.len() {
            self.data.clear();
            self.head = 0;
        } else if self.head >= COMPACT && self.head * 2 >= self.data.len() {
            self.data.drain(..self.head);
            self.head = 0;
        }
    }
}
