//! From a datagram to its connection.

use super::{Endpoint, Routed, RxMeta};
use crate::connection::{Connection, HostSide};
use crate::crypto::shard_of;
use crate::error::{CloseReason, Reason};
use crate::event::Sink;
use crate::handshake::write_refusal;
use crate::ids::ConnectionId;
use crate::limits::{MIN_PACKET, MIN_SHORT_PACKET, RESET_TOKEN_LEN};
use crate::time::Instant;
use crate::wire::packet::{
    DropReason, LongHeader, LongPacket, LongPrefix, MessageType, ShortHeader, is_long, is_short,
    reset_token,
};
use std::net::SocketAddr;

/// Who asked: repeated ConnectionRequests find their connection by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InitialKey {
    remote: SocketAddr,
    /// Source id; a restarted attempt keeps it.
    client: ConnectionId,
    /// Destination id; a restarted attempt takes a new one.
    request: ConnectionId,
}

/// Where a long packet goes.
enum Target {
    Slot(u32),
    NewHost,
    OtherShard(u8),
    Nowhere,
}

impl Endpoint {
    /// Takes one datagram (one segment of a GRO train). `data` is opened in place.
    pub fn receive<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        data: &mut [u8],
        sink: &mut S,
    ) -> Routed {
        if !self.deferred.is_empty() {
            self.deferred.replay(sink);
        }
        self.shared.counters.datagrams += 1;
        match data.first() {
            Some(&first) if is_short(first) => self.receive_short(now, meta, data, sink),
            Some(&first) if is_long(first) => self.receive_long(now, meta, data, sink),
            _ => {
                self.shared.counters.malformed += 1;
                Routed::Here
            }
        }
    }

    fn receive_short<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        packet: &mut [u8],
        sink: &mut S,
    ) -> Routed {
        let header = ShortHeader::parse(packet).filter(|_| packet.len() >= MIN_SHORT_PACKET);
        let Some(header) = header else {
            self.shared.counters.malformed += 1;
            return Routed::Here;
        };
        let Some(slot) = self.find(header.dcid) else {
            return self.unknown_short(now, meta, packet, header.dcid, sink);
        };
        let Some(token) = reset_token(packet).copied() else { return Routed::Here };
        let Some(conn) = &mut self.slots[slot as usize].conn else { return Routed::Here };
        if !conn.accepts_from(meta.remote) {
            self.shared.counters.rejected += 1;
            return Routed::Here;
        }
        if conn.receive_short(now, meta, header, packet, &mut self.shared, sink) {
            self.touch(slot);
        } else {
            self.shared.counters.rejected += 1;
            self.try_reset(now, &token, sink);
        }
        Routed::Here
    }

    /// The live connection that one of our ids names.
    fn find(&mut self, id: ConnectionId) -> Option<u32> {
        if let Some((cached, slot)) = self.cached
            && cached == id
        {
            return Some(slot);
        }
        let parts = self.shared.codec.decode(&id)?;
        let entry = self.slots.get(parts.slot as usize)?;
        if (entry.generation & 0xFFF) as u16 != parts.generation {
            return None;
        }
        entry.conn.as_ref().filter(|c| c.is_live_id(parts.sequence))?;
        self.cached = Some((id, parts.slot));
        Some(parts.slot)
    }

    fn unknown_short<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        packet: &[u8],
        id: ConnectionId,
        sink: &mut S,
    ) -> Routed {
        if reset_token(packet).copied().is_some_and(|token| self.try_reset(now, &token, sink)) {
            return Routed::Here;
        }
        let shard = shard_of(&id);
        if shard != self.config.shard {
            return Routed::Shard(shard);
        }
        self.shared.counters.unknown_id += 1;
        self.shared.stateless_reset(now, meta, packet, id);
        Routed::Here
    }

    /// Answers a short packet that another shard was asked for and that does not exist.
    pub fn reset_unknown(&mut self, now: Instant, meta: &RxMeta, packet: &[u8]) {
        if let Some(header) = ShortHeader::parse(packet) {
            self.shared.counters.unknown_id += 1;
            self.shared.stateless_reset(now, meta, packet, header.dcid);
        }
    }

    /// Ends the connection whose peer's token this is.
    fn try_reset<S: Sink>(
        &mut self,
        now: Instant,
        token: &[u8; RESET_TOKEN_LEN],
        sink: &mut S,
    ) -> bool {
        let Some(slot) = self.shared.token_owner(token) else { return false };
        let Some(conn) = &mut self.slots[slot as usize].conn else { return false };
        self.shared.counters.resets_received += 1;
        conn.on_stateless_reset(now, sink);
        self.touch(slot);
        true
    }

    // ---- long packets

    fn receive_long<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        data: &mut [u8],
        sink: &mut S,
    ) -> Routed {
        let total = data.len();
        let mut rest = data;
        let mut counted = false;
        while let Some(&first) = rest.first() {
            if is_short(first) {
                return self.receive_short(now, meta, rest, sink);
            }
            if !is_long(first) {
                break; // padding
            }
            let (target, len) = match LongPacket::parse(rest) {
                Ok(packet) => {
                    (self.target(meta, &packet, total), Self::packet_len(&packet, rest.len()))
                }
                Err(reason) => {
                    self.not_parsed(meta, rest, total, reason);
                    break;
                }
            };
            let (packet, after) = rest.split_at_mut(len);
            rest = after;
            let (slot, is_new) = match target {
                Target::Slot(slot) => (slot, false),
                Target::NewHost => match self.new_host(now, meta, packet) {
                    Some(slot) => (slot, true),
                    None => break,
                },
                Target::OtherShard(shard) => return Routed::Shard(shard),
                Target::Nowhere => {
                    self.shared.counters.dropped_handshake_packets += 1;
                    continue;
                }
            };
            let Some(conn) = &mut self.slots[slot as usize].conn else { continue };
            if !counted {
                counted = true;
                conn.on_handshake_datagram(total);
            }
            let valid = conn.receive_long(now, meta, packet, &mut self.shared, sink);
            if is_new && !valid {
                // Nothing is kept of a request that does not open.
                conn.discard();
            }
            self.touch(slot);
        }
        Routed::Here
    }

    fn packet_len(packet: &LongPacket<'_>, rest: usize) -> usize {
        match packet {
            LongPacket::Sealed(header) => header.packet_len(),
            _ => rest,
        }
    }

    fn target(&mut self, meta: &RxMeta, packet: &LongPacket<'_>, total: usize) -> Target {
        let header = match packet {
            LongPacket::Sealed(header) => header,
            LongPacket::Retry(retry) => return self.existing(meta, retry.dcid),
            LongPacket::VersionList(list) => {
                return list
                    .dcid
                    .try_into()
                    .map_or(Target::Nowhere, |id| self.existing(meta, ConnectionId(id)));
            }
        };
        let (Some(dcid), Some(scid)) = (header.destination(), header.source()) else {
            return Target::Nowhere;
        };
        if header.message == MessageType::ConnectionRequest {
            let key = InitialKey { remote: meta.remote, client: scid, request: dcid };
            if let Some(&slot) = self.initials.get(&key) {
                return Target::Slot(slot);
            }
            let listening = self.listeners.contains_key(&meta.socket);
            if listening && total >= MIN_PACKET && self.find(dcid).is_none() {
                return Target::NewHost;
            }
        }
        self.existing(meta, dcid)
    }

    fn existing(&mut self, meta: &RxMeta, id: ConnectionId) -> Target {
        let shard = shard_of(&id);
        match self.find(id) {
            Some(slot) => {
                let conn = self.slots[slot as usize].conn.as_ref();
                if conn.is_some_and(|c| c.accepts_from(meta.remote)) {
                    Target::Slot(slot)
                } else {
                    Target::Nowhere
                }
            }
            None if shard != self.config.shard => Target::OtherShard(shard),
            None => Target::Nowhere,
        }
    }

    fn not_parsed(&mut self, meta: &RxMeta, packet: &[u8], total: usize, reason: DropReason) {
        self.shared.counters.malformed += 1;
        if let DropReason::Version(_) = reason
            && total >= MIN_PACKET
            && self.listeners.contains_key(&meta.socket)
            && let Ok(prefix) = LongPrefix::parse(packet)
            && prefix.version != 0
        {
            self.shared.version_list(meta, &prefix);
        }
    }

    /// A first ConnectionRequest: bounds, Retry, and then a new connection.
    fn new_host(&mut self, now: Instant, meta: &RxMeta, packet: &[u8]) -> Option<u32> {
        let header = LongHeader::parse(packet).ok()?;
        let (dcid, scid) = (header.destination()?, header.source()?);
        if self.handshakes >= self.config.max_handshakes {
            // A client tries again until its own limit; a refusal would end its attempt.
            self.shared.counters.refused += 1;
            return None;
        }
        if self.live >= self.config.max_connections {
            self.shared.counters.refused += 1;
            let reason = CloseReason::new(Reason::REFUSED, "too many connections");
            self.shared.answer_with(meta, |buf| write_refusal(&header, &reason, buf));
            return None;
        }
        let origin = (!header.token.is_empty())
            .then(|| {
                self.shared.retry_tokens().check(now, meta.remote, &scid.0, &dcid.0, header.token)
            })
            .flatten();
        let asks = match self.config.retry {
            super::RetryPolicy::Never => false,
            super::RetryPolicy::WhenLoaded(n) => self.handshakes >= n,
            super::RetryPolicy::Always => true,
        };
        if origin.is_none() && !header.token.is_empty() && !asks {
            // Following a forged Retry would fail later, in the transport parameters.
            self.shared.counters.dropped_handshake_packets += 1;
            return None;
        }
        if origin.is_none() && asks {
            self.shared.send_retry(now, meta, &header);
            return None;
        }
        let handle = self.reserve().ok()?;
        let listener = self.listeners.get(&meta.socket)?;
        let side = HostSide { tls: &listener.tls, request: &header, retry: origin.as_ref(), meta };
        match Connection::host(now, handle, listener.connection.clone(), side, &mut self.shared) {
            Ok(conn) => {
                self.shared.counters.accepted += 1;
                self.insert(handle, conn);
                self.initials.insert(
                    InitialKey { remote: meta.remote, client: scid, request: dcid },
                    handle.slot,
                );
                Some(handle.slot)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot answer a connection request");
                self.free.push(handle.slot);
                None
            }
        }
    }
}
