//! From a datagram to its connection.

use super::routes::for_relay;
use super::{Endpoint, Routed, RxMeta};
use crate::connection::{Connection, HostSide, Taken};
use crate::crypto::shard_of;
use crate::error::{CloseReason, Reason};
use crate::event::Sink;
use crate::handshake::write_refusal;
use crate::ids::ConnectionId;
use crate::limits::{MIN_PACKET, MIN_SHORT_PACKET, RELAY_SOCKET, RESET_TOKEN_LEN};
use crate::time::Instant;
use crate::wire::packet::{
    DropReason, LongHeader, LongPacket, LongPrefix, MessageType, ShortHeader, is_long, is_short,
    reset_token,
};

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
        if let Some(observer) = &self.shared.observer {
            observer.receiving(meta);
        }
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
        self.open_short(now, meta, header, packet, slot, sink);
        Routed::Here
    }

    /// Gives a short packet to the connection that its id names.
    fn open_short<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        header: ShortHeader,
        packet: &mut [u8],
        slot: u32,
        sink: &mut S,
    ) {
        let Some(token) = reset_token(packet).copied() else { return };
        let Some(conn) = &mut self.slots[slot as usize].conn else { return };
        if !conn.accepts_from(meta) {
            self.shared.counters.rejected += 1;
            return;
        }
        match conn.receive_short(now, meta, header, packet, &mut self.shared, sink) {
            Taken::Opened => self.touch(slot),
            Taken::Early => self.shared.counters.early_packets += 1,
            Taken::Copy => self.shared.counters.copies += 1,
            Taken::Forged => {
                self.shared.counters.rejected += 1;
                self.try_reset(now, &token, sink);
            }
        }
    }

    /// The live connection that one of our ids names.
    fn find(&mut self, id: ConnectionId) -> Option<u32> {
        if let Some((cached, slot, sequence)) = self.cached
            && cached == id
        {
            // The peer may have retired it since.
            let conn = self.slots[slot as usize].conn.as_ref();
            return conn.filter(|c| c.is_live_id(sequence)).map(|_| slot);
        }
        let parts = self.shared.codec.decode(&id)?;
        let entry = self.slots.get(parts.slot as usize)?;
        if self.shared.id_generation(entry.generation) != parts.generation {
            return None;
        }
        entry.conn.as_ref().filter(|c| c.is_live_id(parts.sequence))?;
        self.cached = Some((id, parts.slot, parts.sequence));
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

    /// Ends the connections whose peers' token this is.
    fn try_reset<S: Sink>(
        &mut self,
        now: Instant,
        token: &[u8; RESET_TOKEN_LEN],
        sink: &mut S,
    ) -> bool {
        let mut from = 0;
        while let Some(slot) = self.shared.token_owner(token, from) {
            from = slot + 1;
            if let Some(conn) = &mut self.slots[slot as usize].conn {
                self.shared.counters.resets_received += 1;
                conn.on_stateless_reset(now, sink);
                self.touch(slot);
            }
        }
        from > 0
    }

    // ---- long packets

    /// All packets of a datagram are for one connection (RFC 9000 §12.2), the first that is for
    /// any decides for which. Only the first packet can ask for a new one: it is the one that was
    /// counted against the limits of its source.
    fn receive_long<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        data: &mut [u8],
        sink: &mut S,
    ) -> Routed {
        let total = data.len();
        let mut rest = data;
        let mut owner = None;
        let mut first = true;
        while let Some(&byte) = rest.first() {
            if is_short(byte) {
                self.receive_coalesced(now, meta, rest, owner, sink);
                break;
            }
            if !is_long(byte) {
                break; // padding
            }
            let (target, len) = match LongPacket::parse(rest) {
                Ok(packet) => {
                    (self.target(meta, &packet, total), Self::packet_len(&packet, rest.len()))
                }
                Err(reason) => {
                    self.not_parsed(meta, rest, first && total >= MIN_PACKET, reason);
                    break;
                }
            };
            let (packet, after) = rest.split_at_mut(len);
            rest = after;
            let is_first = core::mem::take(&mut first);
            let (slot, is_new) = match target {
                Target::Slot(slot) if owner.is_none_or(|o| o == slot) => (slot, false),
                Target::NewHost if is_first => match self.new_host(now, meta, packet) {
                    Some(slot) => (slot, true),
                    None => break,
                },
                Target::OtherShard(shard) if is_first => return Routed::Shard(shard),
                _ => {
                    self.shared.counters.dropped_handshake_packets += 1;
                    continue;
                }
            };
            let Some(conn) = &mut self.slots[slot as usize].conn else { continue };
            if owner.replace(slot).is_none() {
                conn.on_handshake_datagram(meta, total);
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

    /// A short packet behind long ones.
    fn receive_coalesced<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        packet: &mut [u8],
        owner: Option<u32>,
        sink: &mut S,
    ) {
        let header = ShortHeader::parse(packet).filter(|_| packet.len() >= MIN_SHORT_PACKET);
        let Some(header) = header else {
            self.shared.counters.malformed += 1;
            return;
        };
        match self.find(header.dcid) {
            Some(slot) if owner == Some(slot) => {
                self.open_short(now, meta, header, packet, slot, sink);
            }
            _ => self.shared.counters.unknown_id += 1,
        }
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
            if total < MIN_PACKET {
                // RFC 9000 §14.1
                return Target::Nowhere;
            }
            let key = self.shared.request_key(meta.remote, scid, dcid);
            if let Some(&slot) = self.requests.get(&key) {
                return Target::Slot(slot);
            }
            if self.listeners.at(meta).is_some() && self.find(dcid).is_none() {
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
                if conn.is_some_and(|c| c.accepts_from(meta)) {
                    Target::Slot(slot)
                } else {
                    Target::Nowhere
                }
            }
            None if shard != self.config.shard => Target::OtherShard(shard),
            None => Target::Nowhere,
        }
    }

    fn not_parsed(&mut self, meta: &RxMeta, packet: &[u8], may_answer: bool, reason: DropReason) {
        self.shared.counters.malformed += 1;
        if let DropReason::Version(_) = reason
            && may_answer
            && self.listeners.at(meta).is_some()
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
        let listener = self.listeners.at(meta)?;
        let side = HostSide { tls: &listener.tls, request: &header, retry: origin.as_ref(), meta };
        let mut config = listener.connection.clone();
        if meta.socket == RELAY_SOCKET {
            config = for_relay(config);
        }
        match Connection::host(now, handle, config, side, &mut self.shared) {
            Ok(conn) => {
                self.shared.counters.accepted += 1;
                self.insert(handle, conn);
                let request = self.shared.request_key(meta.remote, scid, dcid);
                self.slots[handle.slot as usize].request = request;
                self.requests.insert(request, handle.slot);
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
