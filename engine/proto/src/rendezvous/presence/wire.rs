//! PresenceRequest and PresenceResponse on the wire.
//!
//! The parser looks at no byte twice, allocates nothing, and says why it refuses what it refuses.

use super::describe::{DeviceId, DeviceType, Links, Mode};
use crate::crypto::token::equal_secrets;
use crate::ids::PeerId;
use crate::limits::{
    MAX_PRESENCE_NAME, MAX_PRESENCE_REQUEST, MAX_PRESENCE_RESPONSE, MAX_PRESENCE_SERVICE,
    MIN_PRESENCE_REQUEST, PRESENCE_VERSION,
};
use crate::wire::codec::{Full, Reader, Truncated, Writer};

/// The first bytes of every presence message. The first byte is neither a packet of ours (bits 7
/// and 6 clear) nor STUN (0–3), DTLS or TURN (RFC 7983 leaves 4–15 to nobody); bytes 2 and 3 make
/// it, to a reader of DNS, a message of an opcode that mDNS must ignore (RFC 6762 §18.3).
pub(super) const MAGIC: [u8; 4] = [0x0B, b'T', b'K', b'P'];
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const FLAG_WANTED: u8 = 1;
const FLAG_LEAVING: u8 = 1;
/// Where the id hash of a response lies.
const ID_HASH_AT: usize = 31;

const _: () = assert!(MAGIC[0] & 0xC0 == 0 && MAGIC[0] > 3 && MAGIC[0] < 16);
const _: () = assert!(
    ID_HASH_AT + 16 + 32 + 4 + 4 + 2 + 3 + 1 + MAX_PRESENCE_SERVICE + 1 + MAX_PRESENCE_NAME
        <= MAX_PRESENCE_RESPONSE
);

/// Matches an answer to its question.
pub type Nonce = [u8; 16];
/// A keyed hash of a device id.
pub type IdHash = [u8; 16];

/// Why a datagram is no presence message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresenceDrop {
    /// It does not begin as one.
    #[error("not a presence message")]
    NotPresence,
    /// A version that this one does not speak.
    #[error("presence version {0}")]
    Version(u8),
    /// A type that this version has no name for.
    #[error("presence message type {0}")]
    Type(u8),
    /// It is larger than any message of its type.
    #[error("oversize")]
    Oversize,
    /// A question that is smaller than its answer may be.
    #[error("question without padding")]
    Undersize,
    /// It ends before its fields do.
    #[error("truncated")]
    Truncated,
    /// The named field makes no sense.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

impl From<Truncated> for PresenceDrop {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen at random for each question.
    pub nonce: Nonce,
    /// Hash of the id of the one device that shall answer.
    pub wanted: Option<IdHash>,
    /// Only this service shall answer; empty = any.
    pub service: &'a str,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// That of the question.
    pub nonce: Nonce,
    /// The host goes: it is to be forgotten.
    pub leaving: bool,
    /// Random, so that nobody can have computed hashes of likely ids in advance.
    pub salt: [u8; 8],
    /// Hash of the device's id and of all else that is said here; random when it has none.
    pub id_hash: IdHash,
    /// The hash of the device's public key.
    pub peer: PeerId,
    /// Version of the connection protocol.
    pub protocol: u32,
    /// How long the answer was held back, in microseconds.
    pub held_us: u32,
    /// The port that it listens on.
    pub port: u16,
    /// What kind of device it is.
    pub device_type: DeviceType,
    /// Whom it lets in.
    pub mode: Mode,
    /// Which links it listens on.
    pub links: Links,
    /// Which application it is.
    pub service: &'a str,
    /// For people.
    pub name: &'a str,
}

/// Either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// From a client.
    Request(Request<'a>),
    /// From a host.
    Response(Response<'a>),
}

impl<'a> Message<'a> {
    /// Parses a datagram.
    ///
    /// # Errors
    /// Why it is to be dropped. Nothing in it is to be believed then.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, PresenceDrop> {
        let mut r = Reader::new(datagram);
        if r.array::<4>().map_err(|_| PresenceDrop::NotPresence)? != MAGIC {
            return Err(PresenceDrop::NotPresence);
        }
        match r.u8()? {
            PRESENCE_VERSION => {}
            other => return Err(PresenceDrop::Version(other)),
        }
        match r.u8()? {
            REQUEST if datagram.len() > MAX_PRESENCE_REQUEST => Err(PresenceDrop::Oversize),
            REQUEST if datagram.len() < MIN_PRESENCE_REQUEST => Err(PresenceDrop::Undersize),
            REQUEST => Request::parse(&mut r).map(Self::Request),
            RESPONSE if datagram.len() > MAX_PRESENCE_RESPONSE => Err(PresenceDrop::Oversize),
            RESPONSE => Response::parse(&mut r).map(Self::Response),
            other => Err(PresenceDrop::Type(other)),
        }
    }
}

impl<'a> Request<'a> {
    fn parse(r: &mut Reader<'a>) -> Result<Self, PresenceDrop> {
        let nonce = r.array()?;
        let flags = r.u8()?;
        let hash = r.array()?;
        let wanted = (flags & FLAG_WANTED != 0).then_some(hash);
        let service = service(r)?;
        extensions(r)?;
        Ok(Self { nonce, wanted, service })
    }

    /// Writes the message with its padding; the result is its length. `None` when the buffer has
    /// fewer than 256 bytes, or the service is longer than any may be.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..MIN_PRESENCE_REQUEST)?;
        self.emit(out).ok().map(|()| MIN_PRESENCE_REQUEST)
    }

    fn emit(&self, out: &mut [u8]) -> Result<(), Full> {
        let mut w = Writer::new(out);
        head(&mut w, REQUEST, &self.nonce)?;
        w.put_u8(if self.wanted.is_some() { FLAG_WANTED } else { 0 })?;
        w.put_bytes(&self.wanted.unwrap_or_default())?;
        put_text(&mut w, self.service, MAX_PRESENCE_SERVICE)?;
        w.put_zeros(w.remaining())
    }

    /// The hash with which a question asks for the device of this id.
    pub fn wanted_hash(id: &DeviceId, nonce: &Nonce) -> IdHash {
        id.hash(b"trunkline presence question", &[nonce])
    }

    /// Whether the question is for the device of this id.
    pub fn is_for(&self, id: &DeviceId) -> bool {
        let expected = Self::wanted_hash(id, &self.nonce);
        self.wanted.is_some_and(|wanted| equal_secrets(&wanted, &expected))
    }
}

impl<'a> Response<'a> {
    fn parse(r: &mut Reader<'a>) -> Result<Self, PresenceDrop> {
        let nonce = r.array()?;
        let leaving = r.u8()? & FLAG_LEAVING != 0;
        let (salt, id_hash) = (r.array()?, r.array()?);
        let peer = PeerId(r.array()?);
        let (protocol, held_us) = (r.u32()?, r.u32()?);
        let port = r.u16()?;
        if port == 0 {
            return Err(PresenceDrop::Malformed("port"));
        }
        let device_type = DeviceType::from_code(r.u8()?);
        let mode = Mode::from_code(r.u8()?);
        let links = Links(r.u8()?);
        if links.0 == 0 {
            return Err(PresenceDrop::Malformed("links"));
        }
        let service = service(r)?;
        if service.is_empty() {
            return Err(PresenceDrop::Malformed("service"));
        }
        let name = text(r, "name")?;
        if !check_name(name) {
            return Err(PresenceDrop::Malformed("name"));
        }
        extensions(r)?;
        Ok(Self {
            nonce,
            leaving,
            salt,
            id_hash,
            peer,
            protocol,
            held_us,
            port,
            device_type,
            mode,
            links,
            service,
            name,
        })
    }

    /// Writes the message; the result is its length. With an `id`, the hash is computed and
    /// [`id_hash`](Self::id_hash) is not looked at. `None` when the buffer is too small, or a text
    /// longer than any may be.
    pub fn write(&self, id: Option<&DeviceId>, out: &mut [u8]) -> Option<usize> {
        let len = self.emit(out).ok()?;
        if let Some(id) = id {
            let written = out.get(..len)?;
            let hash = answer_hash(id, written)?;
            out.get_mut(ID_HASH_AT..)?.first_chunk_mut::<16>()?.copy_from_slice(&hash);
        }
        Some(len)
    }

    fn emit(&self, out: &mut [u8]) -> Result<usize, Full> {
        let mut w = Writer::new(out);
        head(&mut w, RESPONSE, &self.nonce)?;
        w.put_u8(if self.leaving { FLAG_LEAVING } else { 0 })?;
        w.put_bytes(&self.salt)?;
        w.put_bytes(&self.id_hash)?;
        w.put_bytes(&self.peer.0)?;
        w.put_u32(self.protocol)?;
        w.put_u32(self.held_us)?;
        w.put_u16(self.port)?;
        w.put_bytes(&[self.device_type.code(), self.mode.code(), self.links.0])?;
        put_text(&mut w, self.service, MAX_PRESENCE_SERVICE)?;
        put_text(&mut w, self.name, MAX_PRESENCE_NAME)?;
        Ok(w.written())
    }

    /// Whether whoever made `datagram`, a response that was parsed, knows the device id.
    pub fn proves(datagram: &[u8], id: &DeviceId) -> bool {
        let shown = datagram.get(ID_HASH_AT..).and_then(|rest| rest.first_chunk::<16>());
        match (shown, answer_hash(id, datagram)) {
            (Some(shown), Some(expected)) => equal_secrets(shown, &expected),
            _ => false,
        }
    }
}

/// The hash over all of a response but the hash itself.
fn answer_hash(id: &DeviceId, response: &[u8]) -> Option<IdHash> {
    let (before, rest) = response.split_at_checked(ID_HASH_AT)?;
    let after = rest.get(16..)?;
    Some(id.hash(b"trunkline presence answer", &[before, after]))
}

/// Names are shown to people: nothing in them may move a cursor or turn the direction of text.
pub(super) fn check_name(name: &str) -> bool {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !name.trim().is_empty()
        && name.len() <= MAX_PRESENCE_NAME
        && !name.chars().any(|c| c.is_control() || turns(c))
}

/// An empty one is a wildcard, which only questions may have.
pub(super) fn check_service(service: &str) -> bool {
    service.len() <= MAX_PRESENCE_SERVICE
        && service.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn head(w: &mut Writer<'_>, kind: u8, nonce: &Nonce) -> Result<(), Full> {
    w.put_bytes(&MAGIC)?;
    w.put_bytes(&[PRESENCE_VERSION, kind])?;
    w.put_bytes(nonce)
}

fn put_text(w: &mut Writer<'_>, text: &str, max: usize) -> Result<(), Full> {
    if text.len() > max {
        return Err(Full);
    }
    w.put_u8(text.len() as u8)?;
    w.put_bytes(text.as_bytes())
}

fn text<'a>(r: &mut Reader<'a>, field: &'static str) -> Result<&'a str, PresenceDrop> {
    let len = usize::from(r.u8()?);
    core::str::from_utf8(r.bytes(len)?).map_err(|_| PresenceDrop::Malformed(field))
}

fn service<'a>(r: &mut Reader<'a>) -> Result<&'a str, PresenceDrop> {
    let service = text(r, "service")?;
    if check_service(service) { Ok(service) } else { Err(PresenceDrop::Malformed("service")) }
}

/// Type, length, value; none is known to this version. Type 0 begins the padding.
fn extensions(r: &mut Reader<'_>) -> Result<(), PresenceDrop> {
    while r.remaining() > 0 {
        if r.u8()? == 0 {
            return if r.rest().iter().all(|b| *b == 0) {
                Ok(())
            } else {
                Err(PresenceDrop::Malformed("padding"))
            };
        }
        let len = usize::from(r.u8()?);
        r.bytes(len)?;
    }
    Ok(())
}
