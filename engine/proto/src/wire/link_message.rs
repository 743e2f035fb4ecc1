//! Stream link, native: what TRANSPORT frames say on the datagram link, as messages of CONTROL.
//!
//! Each is an array that starts with its type. Like all messages of CONTROL it stands whole in one
//! frame; `parse` of [`control`](super::control) hands those of the types below to this module.

use super::control::{Decoder, Encoder, bad};
use crate::error::{PeerMisbehaved, Reason, cut};
use crate::limits::{MAX_REASON_TEXT, MAX_TRANSPORT_PARAMS, TRANSPORT_CHANNEL};
use crate::wire::transport::TransportFrame;
use core::ops::RangeInclusive;

/// Types of messages.
mod kind {
    pub const PARAMETERS: u64 = 16;
    pub const CONSUMED: u64 = 17;
    pub const PING: u64 = 18;
    pub const CREDIT: u64 = 19;
    pub const RESET: u64 = 20;
    pub const STOP: u64 = 21;
    pub const CLOSE: u64 = 22;
    pub const CLOSE_ACK: u64 = 23;
}

/// One message between the two ends of a native stream link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMessage<'a> {
    /// Transport parameters, encoded as on the datagram link. The first message of each side, once.
    Parameters(&'a [u8]),
    /// All bytes of the stream below this position, headers included, have reached their channels.
    Consumed {
        /// Bytes since the beginning of the stream.
        position: u64,
    },
    /// Asks for [`Self::Consumed`] at once.
    Ping,
    /// The peer may send on a channel up to this offset.
    Credit {
        /// The channel.
        channel: u16,
        /// Absolute stream offset.
        limit: u64,
    },
    /// The sender cancels what it was sending on a channel.
    Reset {
        /// The channel.
        channel: u16,
        /// The application's code.
        code: u32,
        /// Bytes that were sent on it.
        final_offset: u64,
    },
    /// The sender refuses the rest of what the peer sends on a channel.
    Stop {
        /// The channel.
        channel: u16,
        /// The application's code.
        code: u32,
    },
    /// The connection is over.
    Close {
        /// Why.
        reason: Reason,
        /// Received data was thrown away.
        discarded: bool,
        /// Words for people, at most [`MAX_REASON_TEXT`] bytes.
        text: &'a str,
    },
    /// CLOSE was received. Never answered.
    CloseAck,
}

impl LinkMessage<'_> {
    /// What stands for a frame of a channel; `None` for frames that a stream link does not need.
    pub const fn of(frame: &TransportFrame<'_>) -> Option<Self> {
        Some(match *frame {
            TransportFrame::Credit { channel, limit } => Self::Credit { channel, limit },
            TransportFrame::ChannelReset { channel, code, final_offset } => {
                Self::Reset { channel, code, final_offset }
            }
            TransportFrame::ChannelStop { channel, code } => Self::Stop { channel, code },
            _ => return None,
        })
    }

    /// Appends the message; a text longer than [`MAX_REASON_TEXT`] is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder(out);
        let mut numbers = |kind: u64, values: &[u64]| {
            e.array(values.len() as u32 + 1);
            e.uint(kind);
            for value in values {
                e.uint(*value);
            }
        };
        match *self {
            Self::Parameters(bytes) => {
                e.array(2);
                e.uint(kind::PARAMETERS);
                e.bin(bytes);
            }
            Self::Consumed { position } => numbers(kind::CONSUMED, &[position]),
            Self::Ping => numbers(kind::PING, &[]),
            Self::Credit { channel, limit } => numbers(kind::CREDIT, &[channel.into(), limit]),
            Self::Reset { channel, code, final_offset } => {
                numbers(kind::RESET, &[channel.into(), code.into(), final_offset]);
            }
            Self::Stop { channel, code } => numbers(kind::STOP, &[channel.into(), code.into()]),
            Self::Close { reason, discarded, text } => {
                e.array(4);
                e.uint(kind::CLOSE);
                e.uint(reason.0.into());
                e.bool(discarded);
                e.str(cut(text, MAX_REASON_TEXT));
            }
            Self::CloseAck => numbers(kind::CLOSE_ACK, &[]),
        }
    }
}

/// Parses the rest of a message of type `kind` with `count` elements; `None` for a type that we do
/// not know.
pub(super) fn parse<'a>(
    d: &mut Decoder<'a>,
    kind: u64,
    count: u32,
) -> Result<Option<LinkMessage<'a>>, PeerMisbehaved> {
    const ANY: u64 = u64::MAX;
    const CODE: u64 = u32::MAX as u64;
    const IDS: RangeInclusive<u64> = 1..=TRANSPORT_CHANNEL as u64 - 1;
    const NO_ID: &str = "channel is not in 1..=65534";
    let least = |n: u32, why| if count < n { Err(bad(why)) } else { Ok(()) };
    Ok(Some(match kind {
        kind::PARAMETERS => {
            least(2, "Parameters has fewer than 2 elements")?;
            let why = ["parameters are not binary", "parameters are longer than 1024 bytes"];
            LinkMessage::Parameters(d.bin(MAX_TRANSPORT_PARAMS, why)?)
        }
        kind::CONSUMED => {
            least(2, "Consumed has fewer than 2 elements")?;
            let why = "position is not an unsigned 64-bit integer";
            LinkMessage::Consumed { position: d.uint(0..=ANY, why)? }
        }
        kind::PING => LinkMessage::Ping,
        kind::CREDIT => {
            least(3, "Credit has fewer than 3 elements")?;
            let channel = d.uint(IDS, NO_ID)? as u16;
            let limit = d.uint(0..=ANY, "limit is not an unsigned 64-bit integer")?;
            LinkMessage::Credit { channel, limit }
        }
        kind::RESET => {
            least(4, "ChannelReset has fewer than 4 elements")?;
            let channel = d.uint(IDS, NO_ID)? as u16;
            let code = d.uint(0..=CODE, "code is not an unsigned 32-bit integer")? as u32;
            let why = "final_offset is not an unsigned 64-bit integer";
            LinkMessage::Reset { channel, code, final_offset: d.uint(0..=ANY, why)? }
        }
        kind::STOP => {
            least(3, "ChannelStop has fewer than 3 elements")?;
            let channel = d.uint(IDS, NO_ID)? as u16;
            let code = d.uint(0..=CODE, "code is not an unsigned 32-bit integer")? as u32;
            LinkMessage::Stop { channel, code }
        }
        kind::CLOSE => {
            least(4, "Close has fewer than 4 elements")?;
            let reason = d.uint(0..=CODE, "reason is not an unsigned 32-bit integer")? as u32;
            let discarded = d.bool("discarded is not a boolean")?;
            let why =
                ["text is not a string", "text is longer than 127 bytes", "text is not UTF-8"];
            LinkMessage::Close {
                reason: Reason(reason),
                discarded,
                text: d.str(MAX_REASON_TEXT, why)?,
            }
        }
        kind::CLOSE_ACK => LinkMessage::CloseAck,
        _ => return Ok(None),
    }))
}
