//! Packet headers: the short header of data packets, the long header of handshake packets, and
//! the two packets that a host sends without keeping state, Retry and VersionList.
//!
//! Nothing here is authenticated: whatever is wrong is a [`DropReason`], never a peer's
//! misbehaviour.

use crate::ids::ConnectionId;
use crate::limits::{
    CONNECTION_ID_LEN, MAX_RETRY_TOKEN, RESET_TOKEN_LEN, SHORT_HEADER_LEN, TAG_LEN, VERSION,
};
use crate::wire::codec::{Full, Reader, Truncated, Writer};
use ring::hmac;

const LONG: u8 = 0x80;
const SHORT: u8 = 0x40;
const KEY_PHASE: u8 = 0x01;
/// Longest connection id of any version.
pub const MAX_ANY_ID_LEN: usize = 20;
/// Bytes of a Retry's integrity tag.
pub const RETRY_TAG_LEN: usize = 16;
/// Longest header of a long packet of this version.
pub const MAX_LONG_HEADER_LEN: usize =
    1 + 4 + 2 * (1 + CONNECTION_ID_LEN) + 2 + MAX_RETRY_TOKEN + 4 + 2;

/// Why a packet was dropped before anything of it was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// It ends before its header or its payload does.
    #[error("truncated")]
    Truncated,
    /// The named part of it makes no sense.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Another version than ours, and not 0; a host may answer with a VersionList.
    #[error("version {0:#010x}")]
    Version(u32),
}

impl From<Truncated> for DropReason {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// Whether a datagram or packet with this first byte is a short packet.
#[inline]
pub const fn is_short(first: u8) -> bool {
    first & (LONG | SHORT) == SHORT
}

/// Whether a datagram or packet with this first byte is a long packet.
#[inline]
pub const fn is_long(first: u8) -> bool {
    first & LONG != 0
}

/// Header of a data packet: 13 bytes, all of them the associated data of the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortHeader {
    /// Which of two successive keys sealed it (RFC 9001 §6).
    pub key_phase: bool,
    /// Destination connection id.
    pub dcid: ConnectionId,
    /// Low 32 bits of the packet number.
    pub pn: u32,
}

impl ShortHeader {
    /// Parses the first 13 bytes; `None` when there are fewer or the reserved bits are set.
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let [flags, a, b, c, d, e, f, g, h, p, q, r, s] =
            *packet.first_chunk::<SHORT_HEADER_LEN>()?;
        if flags & !KEY_PHASE != SHORT {
            return None;
        }
        Some(Self {
            key_phase: flags & KEY_PHASE != 0,
            dcid: ConnectionId([a, b, c, d, e, f, g, h]),
            pn: u32::from_be_bytes([p, q, r, s]),
        })
    }

    /// Writes the 13 bytes.
    ///
    /// # Panics
    /// If `packet` is shorter than that.
    #[inline]
    pub fn write(&self, packet: &mut [u8]) {
        let head = packet.first_chunk_mut::<SHORT_HEADER_LEN>().expect("room for a short header");
        let [a, b, c, d, e, f, g, h] = self.dcid.0;
        let [p, q, r, s] = self.pn.to_be_bytes();
        let flags = SHORT | u8::from(self.key_phase);
        *head = [flags, a, b, c, d, e, f, g, h, p, q, r, s];
    }
}

/// The packet number whose low 32 bits are `low` and that lies closest to the one after
/// `largest_seen` (RFC 9000 §A.3); never negative.
#[inline]
pub const fn expand_pn(largest_seen: u64, low: u32) -> u64 {
    let expected = largest_seen.wrapping_add(1);
    // The distance from `expected` in (−2^31, 2^31].
    let ahead = low.wrapping_sub(expected as u32);
    let distance = if ahead <= 1 << 31 { ahead as i64 } else { ahead as i64 - (1 << 32) };
    match expected.checked_add_signed(distance) {
        Some(pn) => pn,
        None => low as u64,
    }
}

/// What a long packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// Client, Initial level.
    ConnectionRequest = 0,
    /// Host, without state: the client must prove its address.
    Retry = 1,
    /// Host, both levels.
    ConnectionResponse = 2,
    /// Client, Handshake level.
    AuthenticationRequest = 3,
    /// Host, without state: the versions that it speaks.
    VersionList = 4,
}

impl MessageType {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::ConnectionRequest),
            1 => Some(Self::Retry),
            2 => Some(Self::ConnectionResponse),
            3 => Some(Self::AuthenticationRequest),
            4 => Some(Self::VersionList),
            _ => None,
        }
    }

    /// Whether packets of this type may be sealed at `level`.
    const fn allows(self, level: Level) -> bool {
        match self {
            Self::ConnectionRequest => matches!(level, Level::Initial),
            Self::AuthenticationRequest => matches!(level, Level::Handshake),
            Self::ConnectionResponse => true,
            Self::Retry | Self::VersionList => false,
        }
    }
}

/// Which keys seal a long packet (RFC 9001 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Keys that anybody who saw the first packet can derive.
    Initial = 0,
    /// Keys of the TLS handshake.
    Handshake = 1,
}

/// The part of a long packet that is the same in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPrefix<'a> {
    /// First byte.
    pub flags: u8,
    /// Protocol version; 0 in a VersionList.
    pub version: u32,
    /// Destination connection id, at most [`MAX_ANY_ID_LEN`] bytes.
    pub dcid: &'a [u8],
    /// Source connection id, at most [`MAX_ANY_ID_LEN`] bytes.
    pub scid: &'a [u8],
}

impl<'a> LongPrefix<'a> {
    /// Parses the start of a long packet of any version.
    pub fn parse(packet: &'a [u8]) -> Result<Self, DropReason> {
        Self::read(&mut Reader::new(packet))
    }

    fn read(r: &mut Reader<'a>) -> Result<Self, DropReason> {
        let flags = r.u8()?;
        if !is_long(flags) {
            return Err(DropReason::Malformed("flags"));
        }
        let version = r.u32()?;
        let mut id = || {
            let len = usize::from(r.u8()?);
            if len > MAX_ANY_ID_LEN {
                return Err(DropReason::Malformed("connection id length"));
            }
            Ok(r.bytes(len)?)
        };
        let (dcid, scid) = (id()?, id()?);
        Ok(Self { flags, version, dcid, scid })
    }

    /// The message type and the level bits, once the version is known to be ours.
    fn message(&self) -> Result<(MessageType, u8), DropReason> {
        // The flags of other versions may mean anything: the version comes first.
        if self.version != VERSION && self.version != 0 {
            return Err(DropReason::Version(self.version));
        }
        if self.flags & 0x0C != 0 {
            return Err(DropReason::Malformed("reserved flags"));
        }
        let message = MessageType::from_bits(self.flags >> 4 & 7);
        let message = message.ok_or(DropReason::Malformed("message type"))?;
        if (self.version == 0) != (message == MessageType::VersionList) {
            return Err(DropReason::Malformed("version"));
        }
        if self.dcid.len() != CONNECTION_ID_LEN || self.scid.len() != CONNECTION_ID_LEN {
            return Err(DropReason::Malformed("connection id length"));
        }
        Ok((message, self.flags & 3))
    }

    fn write(&self, w: &mut Writer) -> Result<(), Full> {
        w.put_u8(self.flags)?;
        w.put_u32(self.version)?;
        w.put_u8(self.dcid.len() as u8)?;
        w.put_bytes(self.dcid)?;
        w.put_u8(self.scid.len() as u8)?;
        w.put_bytes(self.scid)
    }
}

fn flags(message: MessageType, level: Level) -> u8 {
    LONG | (message as u8) << 4 | level as u8
}

fn id_of(bytes: &[u8]) -> Option<ConnectionId> {
    bytes.try_into().ok().map(ConnectionId)
}

/// Header of a sealed long packet. All of it is the associated data of the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader<'a> {
    /// Which message: never Retry or VersionList.
    pub message: MessageType,
    /// Which keys.
    pub level: Level,
    /// Protocol version.
    pub version: u32,
    /// Destination connection id; 8 bytes when parsed.
    pub dcid: &'a [u8],
    /// Source connection id; 8 bytes when parsed.
    pub scid: &'a [u8],
    /// Token of a Retry, sent back; empty unless the message is a ConnectionRequest.
    pub token: &'a [u8],
    /// Low 32 bits of the packet number in the space of its level.
    pub pn: u32,
    /// Bytes of the header (set by [`LongHeader::parse`]; ignored by [`LongHeader::write`]).
    pub header_len: usize,
    /// Bytes of the sealed payload, its tag included.
    pub payload_len: usize,
}

impl<'a> LongHeader<'a> {
    /// Parses the long packet at the start of `datagram`, which may hold more packets behind it.
    /// On success `header_len + payload_len` bytes are there, and the payload has at least one
    /// byte besides its tag.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let mut r = Reader::new(datagram);
        let prefix = LongPrefix::read(&mut r)?;
        let (message, level) = prefix.message()?;
        let level = match level {
            0 => Level::Initial,
            1 => Level::Handshake,
            _ => return Err(DropReason::Malformed("level")),
        };
        if !message.allows(level) {
            return Err(DropReason::Malformed("message type"));
        }
        let token = if message == MessageType::ConnectionRequest { token(&mut r)? } else { &[] };
        let pn = r.u32()?;
        let payload_len = usize::from(r.u16()?);
        let header_len = datagram.len() - r.remaining();
        if payload_len <= TAG_LEN {
            return Err(DropReason::Malformed("payload length"));
        }
        r.bytes(payload_len)?;
        let LongPrefix { version, dcid, scid, .. } = prefix;
        Ok(Self { message, level, version, dcid, scid, token, pn, header_len, payload_len })
    }

    /// Writes the header to the start of `packet` and gives its length. `payload_len` stands in
    /// its last two bytes, where [`patch_payload_len`] can change it later.
    pub fn write(&self, packet: &mut [u8]) -> Result<usize, Full> {
        let (w, flags) = (&mut Writer::new(packet), flags(self.message, self.level));
        LongPrefix { flags, version: self.version, dcid: self.dcid, scid: self.scid }.write(w)?;
        if self.message == MessageType::ConnectionRequest {
            w.put_u16(self.token.len() as u16)?;
            w.put_bytes(self.token)?;
        }
        w.put_u32(self.pn)?;
        w.put_u16(self.payload_len as u16)?;
        Ok(w.written())
    }

    /// Bytes of the header that [`LongHeader::write`] writes.
    pub const fn encoded_len(&self) -> usize {
        let token = match self.message {
            MessageType::ConnectionRequest => 2 + self.token.len(),
            _ => 0,
        };
        1 + 4 + 1 + self.dcid.len() + 1 + self.scid.len() + token + 4 + 2
    }

    /// Bytes of the whole packet.
    pub const fn packet_len(&self) -> usize {
        self.header_len + self.payload_len
    }

    /// The destination connection id, when it has 8 bytes, as every parsed one does.
    pub fn destination(&self) -> Option<ConnectionId> {
        id_of(self.dcid)
    }

    /// The source connection id, when it has 8 bytes, as every parsed one does.
    pub fn source(&self) -> Option<ConnectionId> {
        id_of(self.scid)
    }
}

/// Sets the length of the sealed payload in a header of `header_len` bytes already written.
pub fn patch_payload_len(packet: &mut [u8], header_len: usize, sealed_len: usize) {
    if let Some([.., a, b]) = packet.get_mut(..header_len) {
        [*a, *b] = (sealed_len as u16).to_be_bytes();
    }
}

fn token<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DropReason> {
    let len = usize::from(r.u16()?);
    if len > MAX_RETRY_TOKEN {
        return Err(DropReason::Malformed("token length"));
    }
    Ok(r.bytes(len)?)
}

/// A Retry: the client must send its ConnectionRequest again, with the token and to the new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry<'a> {
    /// The source id of the ConnectionRequest.
    pub dcid: ConnectionId,
    /// The id to send the next ConnectionRequest to; the Initial keys follow from it.
    pub scid: ConnectionId,
    /// What proves the address when sent back; never empty.
    pub token: &'a [u8],
    /// Everything in front of the integrity tag.
    authenticated: &'a [u8],
    tag: [u8; RETRY_TAG_LEN],
}

impl<'a> Retry<'a> {
    /// Parses a whole datagram. What it says may be believed only after [`Retry::verify`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let mut r = Reader::new(datagram);
        let prefix = LongPrefix::read(&mut r)?;
        if prefix.message()? != (MessageType::Retry, 0) {
            return Err(DropReason::Malformed("message type"));
        }
        let token = token(&mut r)?;
        let authenticated = &datagram[..datagram.len() - r.remaining()];
        let tag = r.array()?;
        if token.is_empty() || r.remaining() != 0 {
            return Err(DropReason::Malformed("token length"));
        }
        let bad_id = DropReason::Malformed("connection id length");
        let (dcid, scid) = (id_of(prefix.dcid).ok_or(bad_id)?, id_of(prefix.scid).ok_or(bad_id)?);
        Ok(Self { dcid, scid, token, authenticated, tag })
    }

    /// Whether it was made by somebody who saw the ConnectionRequest that went to
    /// `original_dcid`.
    pub fn verify(&self, original_dcid: &[u8]) -> bool {
        let expected = retry_tag(original_dcid, self.authenticated);
        expected.iter().zip(self.tag).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }

    /// Writes a Retry to the start of `packet` and gives its length.
    pub fn write(
        packet: &mut [u8],
        dcid: ConnectionId,
        scid: ConnectionId,
        token: &[u8],
        original_dcid: &[u8],
    ) -> Result<usize, Full> {
        let w = &mut Writer::new(packet);
        let flags = flags(MessageType::Retry, Level::Initial);
        LongPrefix { flags, version: VERSION, dcid: &dcid.0, scid: &scid.0 }.write(w)?;
        w.put_u16(token.len() as u16)?;
        w.put_bytes(token)?;
        let tag = retry_tag(original_dcid, w.as_written());
        w.put_bytes(&tag)?;
        Ok(w.written())
    }
}

fn retry_tag(original_dcid: &[u8], authenticated: &[u8]) -> [u8; RETRY_TAG_LEN] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, original_dcid), authenticated);
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

/// A VersionList: the versions that a host speaks, sent when it knows not the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionList<'a> {
    /// The source id of the packet that it answers.
    pub dcid: &'a [u8],
    /// The destination id of the packet that it answers.
    pub scid: &'a [u8],
    versions: &'a [u8],
}

impl<'a> VersionList<'a> {
    /// Parses a whole datagram.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let mut r = Reader::new(datagram);
        let prefix = LongPrefix::read(&mut r)?;
        if prefix.message()? != (MessageType::VersionList, 0) {
            return Err(DropReason::Malformed("message type"));
        }
        let count = usize::from(r.u8()?);
        let versions = r.bytes(4 * count)?;
        if count == 0 || r.remaining() != 0 {
            return Err(DropReason::Malformed("version count"));
        }
        Ok(Self { dcid: prefix.dcid, scid: prefix.scid, versions })
    }

    /// The versions, in the host's order of preference.
    pub fn versions(&self) -> impl Iterator<Item = u32> + Clone + 'a {
        let (versions, _) = self.versions.as_chunks::<4>();
        versions.iter().map(|v| u32::from_be_bytes(*v))
    }

    /// Writes the answer to a packet that started with `prefix` to the start of `packet` and gives
    /// its length; at most 255 of `versions` are written.
    pub fn write(
        packet: &mut [u8],
        prefix: &LongPrefix<'_>,
        versions: &[u32],
    ) -> Result<usize, Full> {
        let w = &mut Writer::new(packet);
        let flags = flags(MessageType::VersionList, Level::Initial);
        LongPrefix { flags, version: 0, dcid: prefix.scid, scid: prefix.dcid }.write(w)?;
        let versions = &versions[..versions.len().min(255)];
        w.put_u8(versions.len() as u8)?;
        for version in versions {
            w.put_u32(*version)?;
        }
        Ok(w.written())
    }
}

/// A long packet of any type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongPacket<'a> {
    /// A packet with a sealed payload.
    Sealed(LongHeader<'a>),
    /// A Retry; not verified yet.
    Retry(Retry<'a>),
    /// A VersionList.
    VersionList(VersionList<'a>),
}

impl<'a> LongPacket<'a> {
    /// Parses the long packet at the start of `datagram`.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        match LongPrefix::parse(datagram)?.message()?.0 {
            MessageType::Retry => Retry::parse(datagram).map(Self::Retry),
            MessageType::VersionList => VersionList::parse(datagram).map(Self::VersionList),
            _ => LongHeader::parse(datagram).map(Self::Sealed),
        }
    }
}

/// The stateless-reset token at the end of a datagram that looks like a short packet, if it is
/// long enough to have one.
#[inline]
pub fn reset_token(datagram: &[u8]) -> Option<&[u8; RESET_TOKEN_LEN]> {
    datagram.get(SHORT_HEADER_LEN..)?.last_chunk()
}
