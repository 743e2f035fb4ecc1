//! Content that checks itself: who sent it, on which channel, which message it is, how long it is.
//!
//! Both sides derive the same key from the channel's name and the direction, so a receiver knows
//! every byte that may arrive without having been told.

use super::rng::mix;
use std::collections::BTreeSet;
use trunkline_proto::config::ChannelKind;

/// Length from which a message carries the header.
pub const HEADER_LEN: usize = 32;

/// The key of one direction of the channel called `name`.
pub fn key(name: &str, from_opener: bool) -> u64 {
    let mut h = mix(u64::from(from_opener) + 1);
    for b in name.bytes() {
        h = mix(h ^ u64::from(b));
    }
    h
}

/// Fills `out` with the stream of `key` from `offset` on.
pub fn fill(key: u64, offset: u64, out: &mut [u8]) {
    let mut position = offset;
    let mut rest = out;
    while !rest.is_empty() {
        let word = mix(key ^ (position >> 3)).to_le_bytes();
        let skip = (position & 7) as usize;
        let n = (8 - skip).min(rest.len());
        rest[..n].copy_from_slice(&word[skip..skip + n]);
        rest = &mut rest[n..];
        position += n as u64;
    }
}

/// The first position at which `bytes` is not the stream of `key` from `offset` on.
pub fn differs(key: u64, offset: u64, bytes: &[u8]) -> Option<usize> {
    let mut position = offset;
    let mut done = 0;
    while done < bytes.len() {
        let word = mix(key ^ (position >> 3)).to_le_bytes();
        let skip = (position & 7) as usize;
        let n = (8 - skip).min(bytes.len() - done);
        if bytes[done..done + n] != word[skip..skip + n] {
            return (0..n).find(|i| bytes[done + i] != word[skip + i]).map(|i| done + i);
        }
        done += n;
        position += n as u64;
    }
    None
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(sum ^ u64::from_le_bytes(word))
    })
}

/// Message number `seq` of `len` bytes: key, number, length and a checksum of the rest, then
/// content that depends on all of them. Shorter messages depend on key, number (reliable ones
/// only) and length.
pub fn message(key: u64, seq: u64, len: usize, reliable: bool) -> Vec<u8> {
    let mut out = vec![0; len];
    if len < HEADER_LEN {
        fill(short_key(key, seq, len, reliable), 0, &mut out);
        return out;
    }
    fill(key ^ mix(seq ^ mix(len as u64)), 0, &mut out[HEADER_LEN..]);
    let sum = checksum(&out[HEADER_LEN..]);
    for (at, value) in [key, seq, len as u64, sum].into_iter().enumerate() {
        out[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    out
}

fn short_key(key: u64, seq: u64, len: usize, reliable: bool) -> u64 {
    mix(key ^ mix(len as u64) ^ if reliable { mix(seq) } else { 0 })
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut w = [0; 8];
    w.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
    u64::from_le_bytes(w)
}

/// What one direction of a channel has received so far.
#[derive(Clone, Debug)]
pub struct Receiver {
    key: u64,
    kind: ChannelKind,
    latest: bool,
    /// Bytes of content.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    seen: BTreeSet<u64>,
    newest: Option<u64>,
}

impl Receiver {
    /// Nothing received yet.
    pub fn new(key: u64, kind: ChannelKind, latest: bool) -> Self {
        Self { key, kind, latest, bytes: 0, messages: 0, seen: BTreeSet::new(), newest: None }
    }

    /// The next bytes of a `bytes` channel.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.kind != ChannelKind::Bytes {
            return Err(format!("bytes on a {:?} channel", self.kind));
        }
        if bytes.is_empty() {
            return Err("an empty piece of data".into());
        }
        if let Some(at) = differs(self.key, self.bytes, bytes) {
            return Err(format!("wrong byte at offset {}", self.bytes + at as u64));
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The next whole message.
    pub fn message(&mut self, kind: ChannelKind, bytes: &[u8]) -> Result<(), String> {
        if kind != self.kind || kind == ChannelKind::Bytes {
            return Err(format!("{kind:?} message on a {:?} channel", self.kind));
        }
        let reliable = kind == ChannelKind::Messages;
        let seq = if reliable { self.messages } else { self.unreliable(bytes)? };
        if bytes.len() >= HEADER_LEN {
            let found = (word(bytes, 0), word(bytes, 1), word(bytes, 2), word(bytes, 3));
            let expected = (self.key, seq, bytes.len() as u64, checksum(&bytes[HEADER_LEN..]));
            if found != expected {
                return Err(format!(
                    "message of {} bytes says (sender and channel, number, length, checksum) = \
                     {found:x?} instead of {expected:x?}",
                    bytes.len()
                ));
            }
        }
        if bytes != message(self.key, seq, bytes.len(), reliable) {
            return Err(format!("content of message {seq} of {} bytes is damaged", bytes.len()));
        }
        self.bytes += bytes.len() as u64;
        self.messages += 1;
        Ok(())
    }

    /// The number of an unreliable message, which arrives once at most.
    fn unreliable(&mut self, bytes: &[u8]) -> Result<u64, String> {
        if bytes.len() < HEADER_LEN {
            return Ok(0);
        }
        let seq = word(bytes, 1);
        if !self.seen.insert(seq) {
            return Err(format!("datagram {seq} arrived twice"));
        }
        if self.latest && self.newest.is_some_and(|newest| seq < newest) {
            return Err(format!("datagram {seq} arrived after {:?}", self.newest));
        }
        self.newest = self.newest.max(Some(seq));
        Ok(seq)
    }
}
