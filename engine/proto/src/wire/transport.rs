//! Frames of the TRANSPORT channel: one type byte, then the fields.
//!
//! Parsing is exact: an unknown type, a missing field, a value that makes no sense or a byte too
//! many is [`PeerMisbehaved::Malformed`].

use crate::error::{PeerMisbehaved, Reason, cut};
use crate::ids::ConnectionId;
use crate::limits::{
    CONTROL_CHANNEL, FRAME_HEADER_LEN, MAX_FRAME_BODY, MAX_REASON_TEXT, MAX_STREAM_OFFSET,
    RESET_TOKEN_LEN, TRANSPORT_CHANNEL,
};
use crate::time::Duration;
use crate::wire::ack::{AckFrame, write_ack};
use crate::wire::codec::{Full, Reader, Truncated, VARINT_MAX, Writer, varint_len};
use crate::wire::params::MAX_ACK_DELAY_LIMIT_US;

/// Type bytes.
pub mod kind {
    /// Asks for an acknowledgement.
    pub const PING: u8 = 0x01;
    /// Acknowledges packets.
    pub const ACK: u8 = 0x02;
    /// Raises a channel's credit.
    pub const CREDIT: u8 = 0x03;
    /// Raises the connection's early-data credit.
    pub const EARLY_CREDIT: u8 = 0x04;
    /// The sender of a channel gives it up.
    pub const CHANNEL_RESET: u8 = 0x05;
    /// The receiver of a channel refuses the rest.
    pub const CHANNEL_STOP: u8 = 0x06;
    /// Ends the connection.
    pub const CLOSE: u8 = 0x07;
    /// Answers CLOSE.
    pub const CLOSE_ACK: u8 = 0x08;
    /// Asks a path to prove itself.
    pub const PATH_CHALLENGE: u8 = 0x09;
    /// Proves it.
    pub const PATH_RESPONSE: u8 = 0x0a;
    /// Issues a connection id.
    pub const NEW_CONNECTION_ID: u8 = 0x0b;
    /// Gives one back.
    pub const RETIRE_CONNECTION_ID: u8 = 0x0c;
    /// Asks for rarer or more frequent acknowledgements.
    pub const ACK_FREQUENCY: u8 = 0x0d;
    /// TLS handshake bytes.
    pub const CRYPTO: u8 = 0x0e;
}

/// A frame of the TRANSPORT channel, borrowed from the opened payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFrame<'a> {
    /// Asks for an acknowledgement, nothing else.
    Ping,
    /// Acknowledges packets of the space in which it arrives.
    Ack(AckFrame<'a>),
    /// The receiver of a channel grants credit.
    Credit {
        /// The channel; 0 is CONTROL.
        channel: u16,
        /// Stream bytes (for `datagrams`: message bytes) that may be sent in all.
        limit: u64,
    },
    /// Grants credit for channels that are not answered yet.
    EarlyCredit {
        /// Bytes that may be sent on such channels in all.
        limit: u64,
    },
    /// The sender gives up what it was sending; no clean EOF.
    ChannelReset {
        /// The channel; never CONTROL.
        channel: u16,
        /// The application's code.
        code: u32,
        /// Stream bytes sent on it in all.
        final_offset: u64,
    },
    /// The receiver refuses the rest; the sender answers with `ChannelReset`.
    ChannelStop {
        /// The channel; never CONTROL.
        channel: u16,
        /// The application's code.
        code: u32,
    },
    /// Ends the connection.
    Close {
        /// Why.
        reason: Reason,
        /// Received data was discarded unread.
        discarded: bool,
        /// Words for people, at most [`MAX_REASON_TEXT`] bytes; a longer text is cut when written.
        text: &'a str,
    },
    /// Answers `Close`; never answered itself.
    CloseAck,
    /// Asks for a [`TransportFrame::PathResponse`] with the same bytes.
    PathChallenge([u8; 8]),
    /// The answer, sent on the path of the challenge.
    PathResponse([u8; 8]),
    /// Issues an id that the peer may put into the packets it sends.
    NewConnectionId {
        /// Counts the issued ids; the id of the handshake is number 0.
        sequence: u64,
        /// Ids with lower numbers are to be retired.
        retire_prior_to: u64,
        /// The id.
        id: ConnectionId,
        /// Its stateless-reset token.
        token: [u8; RESET_TOKEN_LEN],
    },
    /// The id with this number is no longer used.
    RetireConnectionId {
        /// Its number.
        sequence: u64,
    },
    /// Asks the receiver to acknowledge differently.
    AckFrequency {
        /// Ack-eliciting packets after which an acknowledgement is due; at least 1.
        threshold: u64,
        /// Longest delay of an acknowledgement; at most a second.
        max_delay: Duration,
    },
    /// A piece of the TLS byte stream of the level at which it arrives.
    Crypto {
        /// First byte.
        offset: u64,
        /// The piece.
        data: &'a [u8],
    },
}

impl<'a> TransportFrame<'a> {
    /// Parses the body of a frame on [`TRANSPORT_CHANNEL`].
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, PeerMisbehaved> {
        let mut r = Reader::new(body);
        let Ok(kind) = r.u8() else { return Err(PeerMisbehaved::Malformed("TRANSPORT frame")) };
        if kind == kind::ACK {
            return AckFrame::parse(&mut r).map(Self::Ack);
        }
        let bad = PeerMisbehaved::Malformed(name(kind));
        match Self::fields(kind, &mut r) {
            Ok(Some(frame)) if r.remaining() == 0 => Ok(frame),
            _ => Err(bad),
        }
    }

    /// `None`: the type or a value is out of range.
    fn fields(kind: u8, r: &mut Reader<'a>) -> Result<Option<Self>, Truncated> {
        Ok(Some(match kind {
            kind::PING => Self::Ping,
            kind::CREDIT => {
                let frame = Self::Credit { channel: r.u16()?, limit: r.varint()? };
                return Ok(frame.has_valid_channel().then_some(frame));
            }
            kind::EARLY_CREDIT => Self::EarlyCredit { limit: r.varint()? },
            kind::CHANNEL_RESET => {
                let (channel, code, final_offset) = (r.u16()?, r.u32()?, r.varint()?);
                let frame = Self::ChannelReset { channel, code, final_offset };
                let valid = frame.has_valid_channel() && final_offset <= MAX_STREAM_OFFSET;
                return Ok(valid.then_some(frame));
            }
            kind::CHANNEL_STOP => {
                let frame = Self::ChannelStop { channel: r.u16()?, code: r.u32()? };
                return Ok(frame.has_valid_channel().then_some(frame));
            }
            kind::CLOSE => return Self::close(r),
            kind::CLOSE_ACK => Self::CloseAck,
            kind::PATH_CHALLENGE => Self::PathChallenge(r.array()?),
            kind::PATH_RESPONSE => Self::PathResponse(r.array()?),
            kind::NEW_CONNECTION_ID => {
                let (sequence, retire_prior_to) = (r.varint()?, r.varint()?);
                let (id, token) = (ConnectionId(r.array()?), r.array()?);
                if retire_prior_to > sequence {
                    return Ok(None);
                }
                Self::NewConnectionId { sequence, retire_prior_to, id, token }
            }
            kind::RETIRE_CONNECTION_ID => Self::RetireConnectionId { sequence: r.varint()? },
            kind::ACK_FREQUENCY => {
                let (threshold, max_delay_us) = (r.varint()?, r.varint()?);
                if threshold == 0 || max_delay_us > MAX_ACK_DELAY_LIMIT_US {
                    return Ok(None);
                }
                let max_delay = Duration::from_micros(max_delay_us);
                Self::AckFrequency { threshold, max_delay }
            }
            kind::CRYPTO => {
                let (offset, data) = (r.varint()?, r.rest());
                if offset + data.len() as u64 > VARINT_MAX {
                    return Ok(None);
                }
                Self::Crypto { offset, data }
            }
            _ => return Ok(None),
        }))
    }

    fn close(r: &mut Reader<'a>) -> Result<Option<Self>, Truncated> {
        let (reason, discarded, len) = (Reason(r.u32()?), r.u8()?, usize::from(r.u8()?));
        let text = r.bytes(len)?;
        let Ok(text) = core::str::from_utf8(text) else { return Ok(None) };
        if discarded > 1 || len > MAX_REASON_TEXT {
            return Ok(None);
        }
        Ok(Some(Self::Close { reason, discarded: discarded == 1, text }))
    }

    fn has_valid_channel(&self) -> bool {
        match *self {
            Self::Credit { channel, .. } => channel != TRANSPORT_CHANNEL,
            Self::ChannelReset { channel, .. } | Self::ChannelStop { channel, .. } => {
                channel != TRANSPORT_CHANNEL && channel != CONTROL_CHANNEL
            }
            _ => true,
        }
    }

    /// Writes the whole frame, its four-byte header included; on [`Full`] nothing is written.
    #[inline]
    pub fn write(&self, w: &mut Writer) -> Result<(), Full> {
        let len = self.encoded_len();
        if w.remaining() < len || len - FRAME_HEADER_LEN > MAX_FRAME_BODY {
            return Err(Full);
        }
        if let Self::Ack(ack) = self {
            return write_ack(w, ack.delay, ack.ranges(), ack.ecn).map(drop);
        }
        w.put_u16((len - FRAME_HEADER_LEN) as u16)?;
        w.put_u16(TRANSPORT_CHANNEL)?;
        w.put_u8(self.kind())?;
        match *self {
            Self::Ping | Self::CloseAck | Self::Ack(_) => Ok(()),
            Self::Credit { channel, limit } => {
                w.put_u16(channel)?;
                w.put_varint(limit)
            }
            Self::EarlyCredit { limit } => w.put_varint(limit),
            Self::ChannelReset { channel, code, final_offset } => {
                w.put_u16(channel)?;
                w.put_u32(code)?;
                w.put_varint(final_offset)
            }
            Self::ChannelStop { channel, code } => {
                w.put_u16(channel)?;
                w.put_u32(code)
            }
            Self::Close { reason, discarded, text } => {
                let text = cut(text, MAX_REASON_TEXT);
                w.put_u32(reason.0)?;
                w.put_u8(u8::from(discarded))?;
                w.put_u8(text.len() as u8)?;
                w.put_bytes(text.as_bytes())
            }
            Self::PathChallenge(data) | Self::PathResponse(data) => w.put_bytes(&data),
            Self::NewConnectionId { sequence, retire_prior_to, id, token } => {
                w.put_varint(sequence)?;
                w.put_varint(retire_prior_to)?;
                w.put_bytes(&id.0)?;
                w.put_bytes(&token)
            }
            Self::RetireConnectionId { sequence } => w.put_varint(sequence),
            Self::AckFrequency { threshold, max_delay } => {
                w.put_varint(threshold)?;
                w.put_varint(max_delay.as_micros())
            }
            Self::Crypto { offset, data } => {
                w.put_varint(offset)?;
                w.put_bytes(data)
            }
        }
    }

    /// Bytes that [`TransportFrame::write`] writes, the four-byte header included.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        let fields = match self {
            Self::Ack(ack) => return ack.encoded_len(),
            Self::Ping | Self::CloseAck => 0,
            Self::Credit { limit, .. } => 2 + varint_len(*limit),
            Self::EarlyCredit { limit } => varint_len(*limit),
            Self::ChannelReset { final_offset, .. } => 6 + varint_len(*final_offset),
            Self::ChannelStop { .. } => 6,
            Self::Close { text, .. } => 6 + cut(text, MAX_REASON_TEXT).len(),
            Self::PathChallenge(_) | Self::PathResponse(_) => 8,
            Self::NewConnectionId { sequence, retire_prior_to, id, token } => {
                varint_len(*sequence) + varint_len(*retire_prior_to) + id.0.len() + token.len()
            }
            Self::RetireConnectionId { sequence } => varint_len(*sequence),
            Self::AckFrequency { threshold, max_delay } => {
                varint_len(*threshold) + varint_len(max_delay.as_micros())
            }
            Self::Crypto { offset, data } => varint_len(*offset) + data.len(),
        };
        FRAME_HEADER_LEN + 1 + fields
    }

    /// Whether a packet with this frame asks for an acknowledgement: all but ACK, CLOSE and
    /// CLOSE_ACK.
    #[inline]
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Ack(_) | Self::Close { .. } | Self::CloseAck)
    }

    /// Whether a long packet may carry this frame: PING, ACK, CLOSE and CRYPTO only.
    #[inline]
    pub const fn is_allowed_in_handshake(&self) -> bool {
        matches!(self, Self::Ping | Self::Ack(_) | Self::Close { .. } | Self::Crypto { .. })
    }

    /// The type byte.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Ping => kind::PING,
            Self::Ack(_) => kind::ACK,
            Self::Credit { .. } => kind::CREDIT,
            Self::EarlyCredit { .. } => kind::EARLY_CREDIT,
            Self::ChannelReset { .. } => kind::CHANNEL_RESET,
            Self::ChannelStop { .. } => kind::CHANNEL_STOP,
            Self::Close { .. } => kind::CLOSE,
            Self::CloseAck => kind::CLOSE_ACK,
            Self::PathChallenge(_) => kind::PATH_CHALLENGE,
            Self::PathResponse(_) => kind::PATH_RESPONSE,
            Self::NewConnectionId { .. } => kind::NEW_CONNECTION_ID,
            Self::RetireConnectionId { .. } => kind::RETIRE_CONNECTION_ID,
            Self::AckFrequency { .. } => kind::ACK_FREQUENCY,
            Self::Crypto { .. } => kind::CRYPTO,
        }
    }
}

const fn name(kind: u8) -> &'static str {
    match kind {
        kind::PING => "PING",
        kind::ACK => "ACK",
        kind::CREDIT => "CREDIT",
        kind::EARLY_CREDIT => "EARLY_CREDIT",
        kind::CHANNEL_RESET => "CHANNEL_RESET",
        kind::CHANNEL_STOP => "CHANNEL_STOP",
        kind::CLOSE => "CLOSE",
        kind::CLOSE_ACK => "CLOSE_ACK",
        kind::PATH_CHALLENGE => "PATH_CHALLENGE",
        kind::PATH_RESPONSE => "PATH_RESPONSE",
        kind::NEW_CONNECTION_ID => "NEW_CONNECTION_ID",
        kind::RETIRE_CONNECTION_ID => "RETIRE_CONNECTION_ID",
        kind::ACK_FREQUENCY => "ACK_FREQUENCY",
        kind::CRYPTO => "CRYPTO",
        _ => "TRANSPORT frame type",
    }
}
