//! Packets made by hand, as somebody on the path or off it could make them.
//!
//! Written from the format, not with the crate's own writers.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic;
use rustls::{Side, Tls13CipherSuite};
use trunkline_proto::limits::VERSION;

/// Message types of long packets.
pub const CONNECTION_REQUEST: u8 = 0;
pub const RETRY: u8 = 1;
pub const CONNECTION_RESPONSE: u8 = 2;
pub const AUTHENTICATION_REQUEST: u8 = 3;
pub const VERSION_LIST: u8 = 4;

/// TRANSPORT frame types.
const CRYPTO: u8 = 0x0e;
const CLOSE: u8 = 0x07;
const ACK: u8 = 0x02;

/// The readable part of a long packet.
#[derive(Clone, Debug)]
pub struct Long {
    pub message: u8,
    pub level: u8,
    pub version: u32,
    pub dcid: Vec<u8>,
    pub scid: Vec<u8>,
    pub token: Vec<u8>,
    pub pn: u32,
    pub header_len: usize,
    pub sealed_len: usize,
}

impl Long {
    /// Reads the long packet at the start of `data`.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut take = |n: usize| {
            let part = data.get(at..at + n)?.to_vec();
            at += n;
            Some(part)
        };
        let flags = take(1)?[0];
        if flags & 0x80 == 0 {
            return None;
        }
        let version = u32::from_be_bytes(take(4)?.try_into().ok()?);
        let dcid_len = take(1)?[0];
        let dcid = take(usize::from(dcid_len))?;
        let scid_len = take(1)?[0];
        let scid = take(usize::from(scid_len))?;
        let message = (flags >> 4) & 7;
        let mut long = Self {
            message,
            level: flags & 3,
            version,
            dcid,
            scid,
            token: Vec::new(),
            pn: 0,
            header_len: 0,
            sealed_len: 0,
        };
        if message == CONNECTION_REQUEST {
            let len = u16::from_be_bytes(take(2)?.try_into().ok()?);
            long.token = take(usize::from(len))?;
        }
        if matches!(message, CONNECTION_REQUEST | CONNECTION_RESPONSE | AUTHENTICATION_REQUEST) {
            long.pn = u32::from_be_bytes(take(4)?.try_into().ok()?);
            long.sealed_len = usize::from(u16::from_be_bytes(take(2)?.try_into().ok()?));
        }
        long.header_len = at;
        Some(long)
    }

    fn header(&self, sealed_len: usize) -> Vec<u8> {
        let mut out = vec![0x80 | (self.message << 4) | self.level];
        out.extend(self.version.to_be_bytes());
        for id in [&self.dcid, &self.scid] {
            out.push(id.len() as u8);
            out.extend(id);
        }
        if self.message == CONNECTION_REQUEST {
            out.extend((self.token.len() as u16).to_be_bytes());
            out.extend(&self.token);
        }
        out.extend(self.pn.to_be_bytes());
        out.extend((sealed_len as u16).to_be_bytes());
        out
    }
}

/// The Initial keys of one attempt, which everybody can derive who saw its first packet.
pub struct InitialKeys(quic::Keys);

impl InitialKeys {
    /// Keys with which `side` seals, for the client's first destination id.
    pub fn of(first_dcid: &[u8], side: Side) -> Self {
        let suite = TLS13_AES_128_GCM_SHA256
            .tls13()
            .and_then(Tls13CipherSuite::quic_suite)
            .expect("a suite");
        Self(suite.keys(first_dcid, side, quic::Version::V1))
    }

    /// A sealed long packet with these frames, padded to `size` bytes when it is shorter.
    pub fn seal(&self, long: &Long, mut frames: Vec<u8>, size: usize) -> Vec<u8> {
        let tag_len = 16;
        let bare = long.header(0).len() + tag_len;
        frames.resize(frames.len().max(size.saturating_sub(bare)), 0);
        let header = long.header(frames.len() + tag_len);
        let sealed = self.0.local.packet.encrypt_in_place(u64::from(long.pn), &header, &mut frames);
        let tag = sealed.expect("sealed");
        [&header, frames.as_slice(), tag.as_ref()].concat()
    }

    /// The payload of a packet that the other side sealed.
    pub fn open(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let long = Long::parse(packet)?;
        let (header, rest) = packet.split_at(long.header_len);
        let mut sealed = rest.get(..long.sealed_len)?.to_vec();
        let opened =
            self.0.remote.packet.decrypt_in_place(u64::from(long.pn), header, &mut sealed).ok()?;
        Some(opened.to_vec())
    }
}

fn varint(n: u64) -> Vec<u8> {
    match n {
        0..=0x3f => vec![n as u8],
        0x40..=0x3fff => ((n as u16) | 0x4000).to_be_bytes().to_vec(),
        _ => ((n as u32) | 0x8000_0000).to_be_bytes().to_vec(),
    }
}

fn transport(body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u16).to_be_bytes().to_vec();
    out.extend([0xff, 0xff]);
    out.extend(body);
    out
}

/// A CRYPTO frame.
pub fn crypto(offset: u64, data: &[u8]) -> Vec<u8> {
    transport(&[&[CRYPTO], varint(offset).as_slice(), data].concat())
}

/// A CLOSE frame.
pub fn close(reason: u32, text: &str) -> Vec<u8> {
    let reason = reason.to_be_bytes();
    transport(&[&[CLOSE], reason.as_slice(), &[0, text.len() as u8], text.as_bytes()].concat())
}

/// An ACK frame of packets 0 to `largest`.
pub fn ack(largest: u64) -> Vec<u8> {
    let range = varint(largest);
    transport(&[&[ACK], range.as_slice(), &[0, 0, 0], range.as_slice()].concat())
}

/// A VersionList as an answer to the packet `to`.
pub fn version_list(to: &Long, versions: &[u32]) -> Vec<u8> {
    let mut out = vec![0x80 | (VERSION_LIST << 4)];
    out.extend(0u32.to_be_bytes());
    for id in [&to.scid, &to.dcid] {
        out.push(id.len() as u8);
        out.extend(id);
    }
    out.push(versions.len() as u8);
    for v in versions {
        out.extend(v.to_be_bytes());
    }
    out
}

/// A Retry with an invented token and a wrong integrity tag, as an answer to the packet `to`.
pub fn retry(to: &Long, scid: [u8; 8]) -> Vec<u8> {
    let mut out = vec![0x80 | (RETRY << 4)];
    out.extend(VERSION.to_be_bytes());
    for id in [to.scid.as_slice(), &scid] {
        out.push(id.len() as u8);
        out.extend(id);
    }
    out.extend(40u16.to_be_bytes());
    out.extend([0x55; 40]);
    out.extend([0xaa; 16]);
    out
}
