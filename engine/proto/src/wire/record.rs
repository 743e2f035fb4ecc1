//! What a sent packet contained, kept until the packet is acknowledged or lost.
//!
//! Retransmission re-packs contents, never packets (RFC 9000 §13.3): a record names a range or an
//! item, and whoever owns it decides what loss means.

use crate::ids::ChannelKey;

/// One retransmittable item of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameRecord {
    /// A range of a reliable channel's stream; `eof` when it carried the end.
    Stream {
        /// The channel; [`ChannelKey`] of CONTROL is slot 0, life 0.
        channel: ChannelKey,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u16,
        /// Carried the EOF.
        eof: bool,
    },
    /// The EOF of a `datagrams` channel.
    DatagramEof {
        /// The channel.
        channel: ChannelKey,
    },
    /// A credit of a channel (CONTROL: slot 0, life 0).
    Credit {
        /// The channel.
        channel: ChannelKey,
    },
    /// The connection's early-data credit.
    EarlyCredit,
    /// CHANNEL_RESET.
    Reset {
        /// The channel.
        channel: ChannelKey,
    },
    /// CHANNEL_STOP.
    Stop {
        /// The channel.
        channel: ChannelKey,
    },
    /// An ACK frame whose newest packet was `largest`.
    Ack {
        /// Newest acknowledged packet number.
        largest: u64,
    },
    /// CLOSE.
    Close,
    /// ACK_FREQUENCY.
    AckFrequency,
    /// NEW_CONNECTION_ID with this sequence number.
    NewConnectionId {
        /// Sequence number.
        sequence: u64,
    },
    /// RETIRE_CONNECTION_ID with this sequence number.
    RetireConnectionId {
        /// Sequence number.
        sequence: u64,
    },
    /// A range of the post-handshake CRYPTO stream.
    Crypto {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u16,
    },
}
