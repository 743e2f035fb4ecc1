//! Transport parameters: what each side tells the other inside the TLS handshake.
//!
//! A sequence of (id varint, length varint, value) as in RFC 9000 §18. Unknown ids are ignored, an
//! id that comes twice is an error, an absent one has the default of [`TransportParams::default`].

use crate::error::PeerMisbehaved;
use crate::ids::{ConnectionId, Role};
use crate::limits::{
    MAX_CHANNELS, MAX_CONTROL_MESSAGE, MAX_DATAGRAM, MAX_MESSAGE, MAX_PACKET, MAX_TRANSPORT_PARAMS,
    MIN_PACKET, RESET_TOKEN_LEN,
};
use crate::wire::codec::{Full, Reader, Truncated, VARINT_MAX, Writer};

/// Parameter ids.
pub mod id {
    /// The destination id of the client's first packet.
    pub const ORIGINAL_DESTINATION_ID: u64 = 0x00;
    /// Silence after which the connection is given up.
    pub const CONNECTED_TIMEOUT_MS: u64 = 0x01;
    /// Stateless-reset token of `initial_source_id`.
    pub const RESET_TOKEN: u64 = 0x02;
    /// Largest UDP payload accepted.
    pub const MAX_PACKET: u64 = 0x03;
    /// Credit of CONTROL.
    pub const CONTROL_WINDOW: u64 = 0x04;
    /// Credit of unanswered channels.
    pub const EARLY_DATA: u64 = 0x05;
    /// Channels that the peer may have open.
    pub const MAX_CHANNELS: u64 = 0x06;
    /// Largest message accepted.
    pub const MAX_MESSAGE: u64 = 0x07;
    /// Largest datagram accepted.
    pub const MAX_DATAGRAM: u64 = 0x08;
    /// Packets per acknowledgement.
    pub const ACK_ELICITING_THRESHOLD: u64 = 0x09;
    /// Longest delay of an acknowledgement.
    pub const MAX_ACK_DELAY_US: u64 = 0x0b;
    /// The source id of the sender's first packet.
    pub const INITIAL_SOURCE_ID: u64 = 0x0f;
    /// The source id of the Retry.
    pub const RETRY_SOURCE_ID: u64 = 0x10;
}

/// Longest delay of an acknowledgement that a peer may announce, in microseconds.
pub const MAX_ACK_DELAY_LIMIT_US: u64 = 1_000_000;

/// What one side tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportParams {
    /// The source id of the sender's first long packet. Mandatory.
    pub initial_source_id: ConnectionId,
    /// Host only: the destination id of the client's first ConnectionRequest, before any Retry.
    pub original_destination_id: Option<ConnectionId>,
    /// Host only: the source id of its Retry, exactly when it sent one.
    pub retry_source_id: Option<ConnectionId>,
    /// Stateless-reset token of `initial_source_id`.
    pub reset_token: Option<[u8; RESET_TOKEN_LEN]>,
    /// Largest UDP payload accepted, in bytes; 1200–65,507.
    pub max_packet: u64,
    /// Silence after which the sender gives the connection up, in milliseconds; at least 1.
    pub connected_timeout_ms: u64,
    /// Longest delay of an acknowledgement, in microseconds; at most one second.
    pub max_ack_delay_us: u64,
    /// Bytes that the peer may send on channels that are not answered yet.
    pub early_data: u64,
    /// Bytes that the peer may send on CONTROL; at least one whole message.
    pub control_window: u64,
    /// Channels that the peer may have open at once.
    pub max_channels: u32,
    /// Largest message accepted on a `messages` channel, in bytes; at least 1.
    pub max_message: u64,
    /// Largest message accepted on a `datagrams` channel, in bytes.
    pub max_datagram: u64,
    /// Ack-eliciting packets after which the sender acknowledges; at least 1.
    pub ack_eliciting_threshold: u64,
}

impl Default for TransportParams {
    fn default() -> Self {
        Self {
            initial_source_id: ConnectionId::default(),
            original_destination_id: None,
            retry_source_id: None,
            reset_token: None,
            max_packet: MAX_PACKET as u64,
            connected_timeout_ms: 10_000,
            max_ack_delay_us: 25_000,
            early_data: 0,
            control_window: 64 * 1024,
            max_channels: MAX_CHANNELS,
            max_message: MAX_MESSAGE as u64,
            max_datagram: MAX_DATAGRAM as u64,
            ack_eliciting_threshold: 2,
        }
    }
}

impl TransportParams {
    /// The encoded parameters: every number, and the ids and tokens that are set.
    pub fn encode(&self) -> Vec<u8> {
        let mut buf = [0; MAX_TRANSPORT_PARAMS];
        let mut w = Writer::new(&mut buf);
        let written = self.write(&mut w);
        debug_assert!(written.is_ok(), "13 short parameters fit");
        w.as_written().to_vec()
    }

    fn write(&self, w: &mut Writer) -> Result<(), Full> {
        let mut bytes = |id, value: &[u8]| {
            w.put_varint(id)?;
            w.put_varint(value.len() as u64)?;
            w.put_bytes(value)
        };
        if let Some(id) = self.original_destination_id {
            bytes(id::ORIGINAL_DESTINATION_ID, &id.0)?;
        }
        if let Some(token) = self.reset_token {
            bytes(id::RESET_TOKEN, &token)?;
        }
        bytes(id::INITIAL_SOURCE_ID, &self.initial_source_id.0)?;
        if let Some(id) = self.retry_source_id {
            bytes(id::RETRY_SOURCE_ID, &id.0)?;
        }
        let mut number = |id, value: u64| {
            let mut buf = [0; 8];
            let mut v = Writer::new(&mut buf);
            v.put_varint(value)?;
            bytes(id, v.as_written())
        };
        number(id::CONNECTED_TIMEOUT_MS, self.connected_timeout_ms)?;
        number(id::MAX_PACKET, self.max_packet)?;
        number(id::CONTROL_WINDOW, self.control_window)?;
        number(id::EARLY_DATA, self.early_data)?;
        number(id::MAX_CHANNELS, u64::from(self.max_channels))?;
        number(id::MAX_MESSAGE, self.max_message)?;
        number(id::MAX_DATAGRAM, self.max_datagram)?;
        number(id::ACK_ELICITING_THRESHOLD, self.ack_eliciting_threshold)?;
        number(id::MAX_ACK_DELAY_US, self.max_ack_delay_us)
    }

    /// Parses and validates the peer's parameters. Values beyond what this implementation can use
    /// (`max_packet`, `max_message`, `max_datagram`) are lowered to its own limits.
    pub fn parse(encoded: &[u8]) -> Result<Self, PeerMisbehaved> {
        const TRUNCATED: PeerMisbehaved = PeerMisbehaved::Malformed("transport parameters");
        let cut = |_: Truncated| TRUNCATED;
        if encoded.len() > MAX_TRANSPORT_PARAMS {
            return Err(PeerMisbehaved::Limit("transport parameters"));
        }
        let mut params = Self::default();
        let mut seen = 0u32;
        let mut r = Reader::new(encoded);
        while r.remaining() != 0 {
            let id = r.varint().map_err(cut)?;
            let len = r.varint().map_err(cut)?;
            let value = r.bytes(usize::try_from(len).map_err(|_| TRUNCATED)?).map_err(cut)?;
            let Some(name) = name(id) else { continue };
            // Every known id is below 32.
            if seen & 1 << id != 0 {
                return Err(PeerMisbehaved::Malformed("transport parameters: one comes twice"));
            }
            seen |= 1 << id;
            params.set(id, value).ok_or(PeerMisbehaved::Malformed(name))?;
        }
        if seen & 1 << id::INITIAL_SOURCE_ID == 0 {
            return Err(PeerMisbehaved::Malformed(
                "transport parameters: initial_source_id is missing",
            ));
        }
        Ok(params)
    }

    /// Checks that `sender` may have sent them: only a host tells the ids that it saw, and it must
    /// tell the first of them.
    pub const fn check_sender(&self, sender: Role) -> Result<(), PeerMisbehaved> {
        let (original, retry) =
            (self.original_destination_id.is_some(), self.retry_source_id.is_some());
        let why = match sender {
            Role::Client if original => "transport parameter original_destination_id of a client",
            Role::Client if retry => "transport parameter retry_source_id of a client",
            Role::Host if !original => "transport parameters: original_destination_id is missing",
            _ => return Ok(()),
        };
        Err(PeerMisbehaved::Malformed(why))
    }

    /// `None`: the value is out of range.
    fn set(&mut self, id: u64, value: &[u8]) -> Option<()> {
        let connection_id = || value.try_into().ok().map(ConnectionId);
        let number = |range: core::ops::RangeInclusive<u64>| {
            let mut r = Reader::new(value);
            let v = r.varint().ok()?;
            (r.remaining() == 0 && range.contains(&v)).then_some(v)
        };
        match id {
            id::ORIGINAL_DESTINATION_ID => self.original_destination_id = Some(connection_id()?),
            id::INITIAL_SOURCE_ID => self.initial_source_id = connection_id()?,
            id::RETRY_SOURCE_ID => self.retry_source_id = Some(connection_id()?),
            id::RESET_TOKEN => self.reset_token = Some(value.try_into().ok()?),
            id::CONNECTED_TIMEOUT_MS => self.connected_timeout_ms = number(1..=VARINT_MAX)?,
            id::MAX_PACKET => {
                self.max_packet = number(MIN_PACKET as u64..=VARINT_MAX)?.min(MAX_PACKET as u64);
            }
            id::CONTROL_WINDOW => {
                self.control_window = number(MAX_CONTROL_MESSAGE as u64..=VARINT_MAX)?;
            }
            id::EARLY_DATA => self.early_data = number(0..=VARINT_MAX)?,
            id::MAX_CHANNELS => self.max_channels = number(0..=u64::from(MAX_CHANNELS))? as u32,
            id::MAX_MESSAGE => {
                self.max_message = number(1..=VARINT_MAX)?.min(MAX_MESSAGE as u64);
            }
            id::MAX_DATAGRAM => {
                self.max_datagram = number(0..=VARINT_MAX)?.min(MAX_DATAGRAM as u64);
            }
            id::ACK_ELICITING_THRESHOLD => self.ack_eliciting_threshold = number(1..=VARINT_MAX)?,
            id::MAX_ACK_DELAY_US => self.max_ack_delay_us = number(0..=MAX_ACK_DELAY_LIMIT_US)?,
            _ => {}
        }
        Some(())
    }
}

/// How errors name a known parameter.
const fn name(id: u64) -> Option<&'static str> {
    Some(match id {
        id::ORIGINAL_DESTINATION_ID => "transport parameter original_destination_id",
        id::CONNECTED_TIMEOUT_MS => "transport parameter connected_timeout_ms",
        id::RESET_TOKEN => "transport parameter reset_token",
        id::MAX_PACKET => "transport parameter max_packet",
        id::CONTROL_WINDOW => "transport parameter control_window",
        id::EARLY_DATA => "transport parameter early_data",
        id::MAX_CHANNELS => "transport parameter max_channels",
        id::MAX_MESSAGE => "transport parameter max_message",
        id::MAX_DATAGRAM => "transport parameter max_datagram",
        id::ACK_ELICITING_THRESHOLD => "transport parameter ack_eliciting_threshold",
        id::MAX_ACK_DELAY_US => "transport parameter max_ack_delay_us",
        id::INITIAL_SOURCE_ID => "transport parameter initial_source_id",
        id::RETRY_SOURCE_ID => "transport parameter retry_source_id",
        _ => return None,
    })
}
