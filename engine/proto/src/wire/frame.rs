//! Frames: what a packet's payload is made of.
//!
//! ```text
//! length u16 | channel u16 | 6 extra bytes unless the channel is TRANSPORT | body of `length` bytes
//! ```
//! The extra bytes hold a stream offset (reliable channels and CONTROL) or a [`DatagramHeader`];
//! only the channel's kind tells which. A header of four zero bytes starts the padding.

use crate::error::PeerMisbehaved;
use crate::limits::{
    FRAME_EXTRA_LEN, FRAME_HEADER_LEN, FRAME_OVERHEAD, MAX_FRAME_BODY, MAX_STREAM_OFFSET,
    TRANSPORT_CHANNEL,
};

/// One frame, borrowed from the opened payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// The channel it belongs to.
    pub channel: u16,
    /// The six bytes between header and body; zero for TRANSPORT, which has none.
    pub extra: [u8; FRAME_EXTRA_LEN],
    /// The body; empty means EOF on a reliable channel.
    pub body: &'a [u8],
}

impl RawFrame<'_> {
    /// The extra bytes as a stream offset (reliable channels and CONTROL).
    #[inline]
    pub const fn offset(&self) -> u64 {
        let [a, b, c, d, e, f] = self.extra;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The extra bytes as the header of a datagram fragment (`datagrams` channels).
    #[inline]
    pub const fn datagram(&self) -> DatagramHeader {
        let [a, b, c, d, index, count] = self.extra;
        DatagramHeader { id: u32::from_be_bytes([a, b, c, d]), index, count }
    }
}

/// Which fragment of which message a frame of a `datagrams` channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramHeader {
    /// Message id, counting up from 0 per channel and direction, wrapping.
    pub id: u32,
    /// Fragment index, below `count`.
    pub index: u8,
    /// Fragments of the message; 0 = EOF of the channel.
    pub count: u8,
}

impl DatagramHeader {
    /// Whether the frame is the channel's EOF.
    #[inline]
    pub const fn is_eof(self) -> bool {
        self.count == 0
    }

    /// Checks the header against the length of the frame's body: an EOF has no body, an index
    /// lies below the count, and only the single fragment of an empty message is empty.
    #[inline]
    pub const fn check(self, body_len: usize) -> Result<(), PeerMisbehaved> {
        let ok = match self.count {
            0 => body_len == 0,
            1 => self.index == 0,
            count => self.index < count && body_len != 0,
        };
        if ok { Ok(()) } else { Err(PeerMisbehaved::Malformed("datagram fragment")) }
    }
}

/// The frames of one payload, in order. Padding ends the iteration; after an error it is over.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Iterates over an opened payload.
    #[inline]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    #[cold]
    fn padding(&mut self) -> Option<Result<RawFrame<'a>, PeerMisbehaved>> {
        let rest = core::mem::take(&mut self.rest);
        // An OR over all bytes is a few vector instructions; leaving early would be slower.
        let or = rest.iter().fold(0u8, |acc, b| acc | b);
        if or == 0 { None } else { Some(Err(PeerMisbehaved::Malformed("padding"))) }
    }

    #[cold]
    fn truncated(&mut self) -> PeerMisbehaved {
        self.rest = &[];
        PeerMisbehaved::Malformed("frame length")
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<RawFrame<'a>, PeerMisbehaved>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Some((header, after)) = self.rest.split_first_chunk::<FRAME_HEADER_LEN>() else {
            // One to three bytes are no frame; as zeros they are padding.
            return if self.rest.is_empty() { None } else { self.padding() };
        };
        let word = u32::from_be_bytes(*header);
        if word == 0 {
            return self.padding();
        }
        let channel = word as u16;
        let len = (word >> 16) as usize;
        let (extra, after) = if channel == TRANSPORT_CHANNEL {
            ([0; FRAME_EXTRA_LEN], after)
        } else {
            match after.split_first_chunk::<FRAME_EXTRA_LEN>() {
                Some((extra, after)) => (*extra, after),
                None => return Some(Err(self.truncated())),
            }
        };
        let Some((body, rest)) = after.split_at_checked(len) else {
            return Some(Err(self.truncated()));
        };
        self.rest = rest;
        Some(Ok(RawFrame { channel, extra, body }))
    }
}

impl core::iter::FusedIterator for Frames<'_> {}

/// Stream link: writes the four bytes in front of a body of `len` bytes.
///
/// # Panics
/// If `buf` is shorter than [`FRAME_HEADER_LEN`].
#[inline]
pub fn write_bare_header(buf: &mut [u8], channel: u16, len: usize) {
    debug_assert!(len <= MAX_FRAME_BODY);
    let word = (len as u32) << 16 | u32::from(channel);
    let head = buf.first_chunk_mut::<FRAME_HEADER_LEN>().expect("room for a frame header");
    *head = word.to_be_bytes();
}

/// Writes a whole frame of a stream link to the start of `buf`; gives its length, `None` when it
/// does not fit.
pub fn write_bare_frame(buf: &mut [u8], channel: u16, body: &[u8]) -> Option<usize> {
    let frame = buf.get_mut(..FRAME_HEADER_LEN + body.len())?;
    write_bare_header(frame, channel, body.len());
    frame[FRAME_HEADER_LEN..].copy_from_slice(body);
    Some(frame.len())
}

/// Writes the ten bytes in front of a body of `len` stream bytes starting at `offset`.
///
/// # Panics
/// If `buf` is shorter than [`FRAME_OVERHEAD`].
#[inline]
pub fn write_stream_header(buf: &mut [u8], channel: u16, offset: u64, len: usize) {
    debug_assert!(offset <= MAX_STREAM_OFFSET);
    write_header(buf, channel, offset & MAX_STREAM_OFFSET, len);
}

/// Writes the ten bytes in front of a body of `len` bytes of a datagram fragment.
///
/// # Panics
/// If `buf` is shorter than [`FRAME_OVERHEAD`].
#[inline]
pub fn write_datagram_header(buf: &mut [u8], channel: u16, h: DatagramHeader, len: usize) {
    let extra = u64::from(h.id) << 16 | u64::from(h.index) << 8 | u64::from(h.count);
    write_header(buf, channel, extra, len);
}

/// `extra` holds the six extra bytes in its low 48 bits.
#[inline]
fn write_header(buf: &mut [u8], channel: u16, extra: u64, len: usize) {
    debug_assert!(len <= MAX_FRAME_BODY && channel != TRANSPORT_CHANNEL);
    let head = buf.first_chunk_mut::<FRAME_OVERHEAD>().expect("room for a frame header");
    let front = (len as u64) << 48 | u64::from(channel) << 32 | extra >> 16;
    let [a, b, c, d, e, f, g, h] = front.to_be_bytes();
    let [i, j] = (extra as u16).to_be_bytes();
    *head = [a, b, c, d, e, f, g, h, i, j];
}
