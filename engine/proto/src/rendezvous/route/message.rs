//! The body of a `route` event: the addresses at which its sender may be reached.
//!
//! A msgpack array `[version, host, generation, revision, seen, wanted, candidates, mac]`, as
//! `docs/routes.md` gives it. The MAC is made with a key that only the two sides of the connection
//! have, so that what others forge, send back or send again for another connection does nothing.

use crate::crypto::token::equal_secrets;
use crate::ids::Role;
use crate::limits::{MAX_EVENT_BODY, MAX_ROUTE_CANDIDATES};
use crate::rendezvous::event::take;
use ring::hmac;
use rmp::decode::{Bytes, read_array_len, read_bin_len, read_bool, read_int};
use rmp::encode::{write_array_len, write_bin, write_bool, write_uint};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Version of the body.
pub(super) const VERSION: u64 = 1;
/// Bytes of the MAC.
pub(super) const MAC_LEN: usize = 16;
const ELEMENTS: u32 = 8;
const CANDIDATE_ELEMENTS: u32 = 4;
/// Longest candidate: an array of a kind, 16 bytes, a port and a priority, each with its head.
const MAX_CANDIDATE: usize = 1 + 1 + 18 + 3 + 5;

const _: () = assert!(64 + MAX_ROUTE_CANDIDATES * MAX_CANDIDATE + MAC_LEN <= MAX_EVENT_BODY);

/// What is wrong with the body of a `route` event; it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A field is not what it has to be.
    #[error("route: {0}")]
    Malformed(&'static str),
    /// It was not made by the other side of this connection for us.
    #[error("route: the MAC is wrong")]
    Forged,
    /// It belongs to an earlier search.
    #[error("route: of an earlier search")]
    Stale,
}

/// An address of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Seen by the event source, rather than the peer's own.
    pub(super) reflexive: bool,
    pub(super) addr: SocketAddr,
    /// Which the peer likes better (RFC 8445 §5.1.2).
    pub(super) priority: u32,
}

/// The body of a `route` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Counts the searches of the connection; the higher one holds.
    pub(super) generation: u32,
    /// Counts the lists of candidates that its sender has told in this generation.
    pub(super) revision: u32,
    /// The last revision that its sender has of the recipient.
    pub(super) seen: u32,
    /// The sender waits for a message that has seen its own revision.
    pub(super) wanted: bool,
    /// All that there are.
    pub(super) candidates: Vec<Told>,
}

fn sign(key: &[u8; 32], bytes: &[u8]) -> [u8; MAC_LEN] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes);
    let mut mac = [0; MAC_LEN];
    mac.copy_from_slice(&tag.as_ref()[..MAC_LEN]);
    mac
}

const fn bad(why: &'static str) -> RouteError {
    RouteError::Malformed(why)
}

fn uint32(rd: &mut Bytes<'_>, why: &'static str) -> Result<u32, RouteError> {
    read_int::<u32, _>(rd).map_err(|_| bad(why))
}

impl Message {
    /// The bytes that `from` sends under `key`.
    pub(super) fn encode(&self, from: Role, key: &[u8; 32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.candidates.len() * MAX_CANDIDATE);
        // Writing to memory does not fail.
        let _ = write_array_len(&mut out, ELEMENTS);
        let _ = write_uint(&mut out, VERSION);
        let _ = write_bool(&mut out, from == Role::Host);
        let _ = write_uint(&mut out, u64::from(self.generation));
        let _ = write_uint(&mut out, u64::from(self.revision));
        let _ = write_uint(&mut out, u64::from(self.seen));
        let _ = write_bool(&mut out, self.wanted);
        let _ = write_array_len(&mut out, self.candidates.len() as u32);
        for told in &self.candidates {
            let _ = write_array_len(&mut out, CANDIDATE_ELEMENTS);
            let _ = write_uint(&mut out, u64::from(told.reflexive));
            let _ = match told.addr.ip() {
                IpAddr::V4(ip) => write_bin(&mut out, &ip.octets()),
                IpAddr::V6(ip) => write_bin(&mut out, &ip.octets()),
            };
            let _ = write_uint(&mut out, u64::from(told.addr.port()));
            let _ = write_uint(&mut out, u64::from(told.priority));
        }
        let mac = sign(key, &out);
        let _ = write_bin(&mut out, &mac);
        out
    }

    /// Takes what the other side, which is `from`, has sent under `key`. Nothing of it is looked at
    /// before the MAC fits.
    pub(super) fn decode(body: &[u8], from: Role, key: &[u8; 32]) -> Result<Self, RouteError> {
        // The MAC stands at the end, behind its head of two bytes.
        let (rest, mac) = body
            .len()
            .checked_sub(MAC_LEN + 2)
            .and_then(|at| body.split_at_checked(at))
            .ok_or(bad("it is too short"))?;
        if mac[..2] != [0xc4, MAC_LEN as u8] {
            return Err(bad("it ends without a MAC"));
        }
        if !equal_secrets(&sign(key, rest), &mac[2..]) {
            return Err(RouteError::Forged);
        }
        Self::parse(rest, from)
    }

    fn parse(rest: &[u8], from: Role) -> Result<Self, RouteError> {
        let mut rd = Bytes::new(rest);
        if read_array_len(&mut rd).map_err(|_| bad("it is no array"))? < ELEMENTS {
            return Err(bad("it has too few elements"));
        }
        if read_int::<u64, _>(&mut rd).map_err(|_| bad("version is no number"))? != VERSION {
            return Err(bad("version is not 1"));
        }
        if read_bool(&mut rd).map_err(|_| bad("host is no boolean"))? != (from == Role::Host) {
            return Err(RouteError::Forged);
        }
        let generation = uint32(&mut rd, "generation is out of range")?;
        let revision = uint32(&mut rd, "revision is out of range")?;
        let seen = uint32(&mut rd, "seen is out of range")?;
        let wanted = read_bool(&mut rd).map_err(|_| bad("wanted is no boolean"))?;
        let count = read_array_len(&mut rd).map_err(|_| bad("candidates is no array"))? as usize;
        if count > MAX_ROUTE_CANDIDATES {
            return Err(bad("too many candidates"));
        }
        let mut candidates = Vec::with_capacity(count);
        for _ in 0..count {
            candidates.push(candidate(&mut rd)?);
        }
        Ok(Self { generation, revision, seen, wanted, candidates })
    }
}

fn candidate(rd: &mut Bytes<'_>) -> Result<Told, RouteError> {
    if read_array_len(rd).map_err(|_| bad("candidate is no array"))? != CANDIDATE_ELEMENTS {
        return Err(bad("candidate has not four elements"));
    }
    let reflexive = match read_int::<u64, _>(rd) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(bad("candidate of unknown kind")),
    };
    let len = read_bin_len(rd).map_err(|_| bad("address is no bin"))? as usize;
    let octets = take(rd, len).ok_or(bad("address is cut off"))?;
    let ip: IpAddr = if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        Ipv4Addr::from(v4).into()
    } else if let Ok(v6) = <[u8; 16]>::try_from(octets) {
        Ipv6Addr::from(v6).into()
    } else {
        return Err(bad("address has neither 4 nor 16 bytes"));
    };
    let port = read_int::<u16, _>(rd).map_err(|_| bad("port is out of range"))?;
    let priority = uint32(rd, "priority is out of range")?;
    Ok(Told { reflexive, addr: SocketAddr::new(ip, port), priority })
}
