//! Packets out: one datagram after the other, within what the peer's address may be sent.

use super::client::ClientState;
use super::level::Space;
use super::machine::{Handshake, RoleState};
use crate::ids::ConnectionId;
use crate::limits::{AMPLIFICATION_FACTOR, MIN_PACKET, VERSION};
use crate::time::Instant;
use crate::wire::packet::{Level, LongHeader, MessageType};
use crate::wire::transport::TransportFrame;

/// A datagram shorter than this is not worth beginning.
const MIN_ROOM: usize = 256;

impl Handshake {
    /// Bytes that may be sent now: without bound once the address is proven.
    fn allowance(&self) -> u64 {
        if self.address_proven {
            return u64::MAX;
        }
        (self.counters.bytes_received * AMPLIFICATION_FACTOR)
            .saturating_sub(self.counters.bytes_sent)
    }

    /// Whether the limit for unproven addresses keeps the next datagram back.
    pub(super) fn is_blocked(&self) -> bool {
        let needed = match &self.initial {
            Some(space) if space.has_something() || space.in_flight() => MIN_PACKET,
            _ => MIN_ROOM,
        };
        self.allowance() < needed as u64
    }

    /// Writes the next datagram to the start of `buf` and gives its length; `None` when there is
    /// nothing to send, `buf` is too short (1200 bytes are enough), or a host has sent an unproven
    /// address all it may.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut [u8]) -> Option<usize> {
        let room = buf.len().min(self.config.max_packet);
        let room = room.min(usize::try_from(self.allowance()).unwrap_or(usize::MAX));
        let buf = buf.get_mut(..room)?;
        if room < MIN_ROOM {
            return None;
        }
        let len = if self.ending.is_some() {
            self.write_close(now, buf)?
        } else {
            self.write_flight(now, buf)?
        };
        self.counters.datagrams_sent += 1;
        self.counters.bytes_sent += len as u64;
        Some(len)
    }

    fn write_flight(&mut self, now: Instant, buf: &mut [u8]) -> Option<usize> {
        let is_client = matches!(self.role, RoleState::Client(_));
        let handshake_waits = self.handshake.as_ref().is_some_and(Space::has_something);
        let (remote, local) = (self.remote_id, self.local_id);
        let request = self.request_id().unwrap_or(remote);
        let (mut len, mut padded, mut eliciting) = (0, false, false);
        if let Some(space) = &mut self.initial {
            if is_client && handshake_waits && !space.has_eliciting() {
                // A Handshake packet acknowledges the whole Initial level.
                space.ack_due = false;
            }
            if space.has_something() {
                padded = is_client || space.has_eliciting();
                if padded && buf.len() < MIN_PACKET {
                    return None;
                }
                // A ConnectionRequest always goes to the same id: who answered it may be a forger.
                let to = if is_client { &request } else { &remote };
                let header = header(is_client, Level::Initial, to, &local, token_of(&self.role));
                if let Some((n, asks)) = space.write_packet(now, header, None, buf) {
                    len = n;
                    eliciting = asks;
                }
                padded &= len > 0;
            }
        }
        if let Some(space) = &mut self.handshake
            && handshake_waits
            && let Some(rest) = buf.get_mut(len..)
        {
            let header = header(is_client, Level::Handshake, &remote, &local, &[]);
            if let Some((n, asks)) = space.write_packet(now, header, None, rest) {
                len += n;
                eliciting |= asks;
            }
        }
        if len == 0 {
            return None;
        }
        if eliciting {
            self.deadline = Some(now + self.interval());
        }
        Some(if padded { pad(buf, len) } else { len })
    }

    /// CLOSE at every level that has keys.
    fn write_close(&mut self, now: Instant, buf: &mut [u8]) -> Option<usize> {
        let is_client = matches!(self.role, RoleState::Client(_));
        let request = self.request_id().unwrap_or(self.remote_id);
        let ending = self.ending.as_mut().filter(|e| e.due)?;
        ending.due = false;
        let reason = ending.reason.clone();
        let close =
            TransportFrame::Close { reason: reason.reason, discarded: false, text: &reason.text };
        let mut len = 0;
        let mut padded = false;
        let (remote, local) = (self.remote_id, self.local_id);
        if let Some(space) = &mut self.initial {
            if is_client && buf.len() < MIN_PACKET {
                return None;
            }
            let to = if is_client { &request } else { &remote };
            let header = header(is_client, Level::Initial, to, &local, token_of(&self.role));
            if let Some((n, _)) = space.write_packet(now, header, Some(&close), buf) {
                len = n;
                padded = is_client;
            }
        }
        if let Some(space) = &mut self.handshake
            && let Some(rest) = buf.get_mut(len..)
        {
            let header = header(is_client, Level::Handshake, &remote, &local, &[]);
            if let Some((n, _)) = space.write_packet(now, header, Some(&close), rest) {
                len += n;
            }
        }
        if len == 0 {
            return None;
        }
        Some(if padded { pad(buf, len) } else { len })
    }
}

/// Fills the datagram with zeros up to the size that every path must carry (RFC 9000 §14.1).
fn pad(buf: &mut [u8], len: usize) -> usize {
    match buf.get_mut(len..MIN_PACKET) {
        Some(rest) => {
            rest.fill(0);
            MIN_PACKET
        }
        None => len,
    }
}

fn token_of(role: &RoleState) -> &[u8] {
    match role {
        RoleState::Client(ClientState::AwaitConnectionResponse(state)) => state.token(),
        _ => &[],
    }
}

fn header<'a>(
    is_client: bool,
    level: Level,
    dcid: &'a ConnectionId,
    scid: &'a ConnectionId,
    token: &'a [u8],
) -> LongHeader<'a> {
    let message = match (is_client, level) {
        (true, Level::Initial) => MessageType::ConnectionRequest,
        (true, Level::Handshake) => MessageType::AuthenticationRequest,
        (false, _) => MessageType::ConnectionResponse,
    };
    LongHeader {
        message,
        level,
        version: VERSION,
        dcid: &dcid.0,
        scid: &scid.0,
        token: if is_client && matches!(level, Level::Initial) { token } else { &[] },
        pn: 0,
        header_len: 0,
        payload_len: 0,
    }
}
