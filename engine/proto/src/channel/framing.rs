//! How frames stand on the wire of the link below: in packets, which may be lost and overtake each
//! other, or in a stream, which keeps them in order.

use crate::limits::{FRAME_HEADER_LEN, FRAME_OVERHEAD, MAX_STREAM_OFFSET};

/// The form of frames and of what goes with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Datagram link: frames with offsets, TRANSPORT frames.
    #[default]
    Packets,
    /// Native stream link: bare frame headers; CREDIT, RESET and STOP are messages of CONTROL.
    Stream,
    /// Plain stream link: bare frame headers, ChannelRequest and EOF, and nothing else. One EOF ends
    /// a channel both ways, and nothing limits a sender but the stream itself.
    Plain,
}

impl Framing {
    /// Bytes in front of the body of a frame of a reliable channel.
    #[inline]
    pub(super) const fn overhead(self) -> usize {
        match self {
            Self::Packets => FRAME_OVERHEAD,
            Self::Stream | Self::Plain => FRAME_HEADER_LEN,
        }
    }

    /// Whether frames arrive in the order in which they were sent, each once.
    #[inline]
    pub const fn is_stream(self) -> bool {
        !matches!(self, Self::Packets)
    }

    /// Stream bytes that may be sent on a channel, as its request or answer says.
    pub(super) fn first_limit(self, window: Option<u64>) -> u64 {
        match self {
            Self::Plain => MAX_STREAM_OFFSET,
            Self::Packets | Self::Stream => window.unwrap_or(0).min(MAX_STREAM_OFFSET),
        }
    }

    /// From which packet on frames belong to a channel. In a stream none comes too early or too late.
    pub(super) fn since(self, told: Option<u64>) -> u64 {
        if self.is_stream() { 0 } else { told.unwrap_or(0) }
    }

    /// Whether the link has nothing but frames, requests and EOFs.
    #[inline]
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::Plain)
    }
}
