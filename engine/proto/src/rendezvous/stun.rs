//! Answers to STUN Binding requests (RFC 8489): the address under which a client is seen, which
//! behind a NAT it cannot know by itself.
//!
//! No more than that: no authentication, no other method, no state but rates. A request is answered
//! if every byte of it is as it has to be; everything else is dropped and counted, since an answer
//! to a mistake helps nobody but those who send in other people's names. What is sent is never more
//! than three times what came, and sources have rates.

use super::rate::RateTable;
use crate::time::Instant;
use std::net::{IpAddr, SocketAddr};

/// Length of the longest answer: header, an IPv6 address, a fingerprint.
pub const MAX_ANSWER: usize = HEADER + 4 + 20 + FINGERPRINT_LEN;
/// An answer is at most so many times as long as its request.
pub const MAX_AMPLIFICATION: usize = 3;

pub(super) const HEADER: usize = 20;
pub(super) const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
pub(super) const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
pub(super) const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_LEN: usize = 8;
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// Attributes below this must be understood (§14), and we understand none of them in a request.
const FIRST_OPTIONAL: u16 = 0x8000;
/// Longest message that is looked at: an IPv4 packet that every path carries (§6.1).
pub(super) const MAX_MESSAGE: usize = 548;

const _: () = assert!(MAX_ANSWER <= MAX_AMPLIFICATION * HEADER);

/// Whether a datagram is STUN's, as far as its first byte says: no packet of ours begins like it.
pub const fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

/// Why a datagram gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// It is no STUN message, or a broken one.
    #[error("STUN: {0}")]
    Malformed(&'static str),
    /// It is one, but no plain Binding request: an answer, another method, or one that is meant for
    /// somebody who knows a password.
    #[error("STUN message is no plain Binding request")]
    NotForUs,
    /// Its source, or all of them, asked too often.
    #[error("too many STUN requests")]
    Limited,
}

/// How often requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StunConfig {
    /// Answers a second in all, twice that at once. 5000.
    pub per_s: u32,
    /// Answers a second to one source (an IPv4 address, an IPv6 /64), twice that at once. 50.
    pub per_source_per_s: u32,
}

impl Default for StunConfig {
    fn default() -> Self {
        Self { per_s: 5_000, per_source_per_s: 50 }
    }
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StunStats {
    /// Requests that were answered.
    pub answered: u64,
    /// Datagrams that were no STUN message.
    pub malformed: u64,
    /// STUN messages that were no plain Binding request.
    pub not_for_us: u64,
    /// Requests beyond the rates.
    pub limited: u64,
}

/// Answers Binding requests.
#[derive(Debug)]
pub struct StunServer {
    rates: RateTable,
    stats: StunStats,
}

impl StunServer {
    /// A server at `now`. Rates of 0 count as 1.
    pub fn new(config: StunConfig, now: Instant) -> Self {
        let rates = RateTable::new(config.per_s.max(1), config.per_source_per_s.max(1), now);
        Self { rates, stats: StunStats::default() }
    }

    /// What became of datagrams.
    pub const fn stats(&self) -> &StunStats {
        &self.stats
    }

    /// A datagram of `from`. The answer, if it gets one, is the first so many bytes of `out`, and
    /// goes to where the datagram came from.
    ///
    /// # Errors
    /// [`StunError`]: it is dropped.
    pub fn receive(
        &mut self,
        now: Instant,
        datagram: &[u8],
        from: SocketAddr,
        out: &mut [u8; MAX_ANSWER],
    ) -> Result<usize, StunError> {
        let result = self.answer(now, datagram, from, out);
        let counter = match result {
            Ok(_) => &mut self.stats.answered,
            Err(StunError::Malformed(_)) => &mut self.stats.malformed,
            Err(StunError::NotForUs) => &mut self.stats.not_for_us,
            Err(StunError::Limited) => &mut self.stats.limited,
        };
        *counter += 1;
        result
    }

    fn answer(
        &mut self,
        now: Instant,
        datagram: &[u8],
        from: SocketAddr,
        out: &mut [u8; MAX_ANSWER],
    ) -> Result<usize, StunError> {
        let request = parse(datagram)?;
        self.rates.forget(now - self.rates.memory());
        if !self.rates.allows(from.ip(), now) {
            return Err(StunError::Limited);
        }
        Ok(write_answer(&request, from, out))
    }
}

/// A plain Binding request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    transaction: [u8; 12],
    fingerprint: bool,
}

fn parse(datagram: &[u8]) -> Result<Request, StunError> {
    let malformed = |why| Err(StunError::Malformed(why));
    let Some((header, mut attributes)) = datagram.split_first_chunk::<HEADER>() else {
        return malformed("it is shorter than a header");
    };
    if datagram.len() > MAX_MESSAGE {
        return malformed("it is longer than 548 bytes");
    }
    if header[0] & 0xC0 != 0 {
        return malformed("its first two bits are not zero");
    }
    if header[4..8] != MAGIC_COOKIE {
        return malformed("it has no magic cookie");
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if length != attributes.len() || !length.is_multiple_of(4) {
        return malformed("its length is wrong");
    }
    if header[..2] != BINDING_REQUEST {
        return Err(StunError::NotForUs);
    }
    let mut fingerprint = false;
    while let Some(([k0, k1, l0, l1], rest)) = attributes.split_first_chunk() {
        let (kind, length) = (u16::from_be_bytes([*k0, *k1]), u16::from_be_bytes([*l0, *l1]));
        let padded = usize::from(length).next_multiple_of(4);
        let Some((value, rest)) = rest.split_at_checked(padded) else {
            return malformed("an attribute is cut off");
        };
        if kind == FINGERPRINT {
            let before = datagram.len() - attributes.len();
            let expected = (crc32(&datagram[..before]) ^ FINGERPRINT_XOR).to_be_bytes();
            if !rest.is_empty() || length != 4 || value != expected {
                return malformed("its fingerprint is wrong or not at its end");
            }
            fingerprint = true;
        } else if kind < FIRST_OPTIONAL {
            return Err(StunError::NotForUs);
        }
        attributes = rest;
    }
    let mut transaction = [0; 12];
    transaction.copy_from_slice(&header[8..]);
    Ok(Request { transaction, fingerprint })
}

/// Writes a Binding success response (§7.3.1); returns its length.
fn write_answer(request: &Request, from: SocketAddr, out: &mut [u8; MAX_ANSWER]) -> usize {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(&request.transaction);
    // A socket for both families sees IPv4 in its mapped form; the client has never heard of that.
    let mut address = [0; 16];
    let (family, length) = match from.ip().to_canonical() {
        IpAddr::V4(v4) => {
            address[..4].copy_from_slice(&v4.octets());
            (1, 4)
        }
        IpAddr::V6(v6) => {
            address = v6.octets();
            (2, 16)
        }
    };
    let address = &mut address[..length];
    for (byte, mask) in address.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    let attribute = 4 + address.len();
    let fingerprint = if request.fingerprint { FINGERPRINT_LEN } else { 0 };
    let length = 4 + attribute + fingerprint;
    out[..2].copy_from_slice(&BINDING_SUCCESS);
    out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    out[4..20].copy_from_slice(&mask);
    out[20..22].copy_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    out[22..24].copy_from_slice(&(attribute as u16).to_be_bytes());
    out[24] = 0;
    out[25] = family;
    let port = from.port() ^ u16::from_be_bytes([MAGIC_COOKIE[0], MAGIC_COOKIE[1]]);
    out[26..28].copy_from_slice(&port.to_be_bytes());
    let end = 28 + address.len();
    out[28..end].copy_from_slice(address);
    if request.fingerprint {
        let crc = crc32(&out[..end]) ^ FINGERPRINT_XOR;
        out[end..end + 2].copy_from_slice(&FINGERPRINT.to_be_bytes());
        out[end + 2..end + 4].copy_from_slice(&[0, 4]);
        out[end + 4..end + 8].copy_from_slice(&crc.to_be_bytes());
    }
    end + fingerprint
}

/// The CRC of ITU V.42 (§14.7), four bits at a time: messages are short, and a table of 64 bytes
/// stays in the caches.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut at = 0;
        while at < 16 {
            let (mut value, mut bit) = (at as u32, 0);
            while bit < 4 {
                value = if value & 1 == 1 { (value >> 1) ^ 0xEDB8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    let step = |crc: u32| (crc >> 4) ^ TABLE[(crc & 15) as usize];
    !bytes.iter().fold(!0, |crc, byte| step(step(crc ^ u32::from(*byte))))
}

#[cfg(test)]
mod tests;
