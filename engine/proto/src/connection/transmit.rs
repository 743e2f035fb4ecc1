//! Writing packets: which frames go into the next packet, and trains of packets.

use super::{Connection, Path};
use crate::crypto::SealError;
use crate::endpoint::{Ecn, Shared, Transmit};
use crate::limits::{MIN_PACKET, SHORT_HEADER_LEN, TAG_LEN};
use crate::recovery::{Asks, Budget, PacketFlags};
use crate::status::Status;
use crate::time::Instant;
use crate::wire::codec::Writer;
use crate::wire::packet::ShortHeader;
use crate::wire::record::FrameRecord;
use crate::wire::transport::TransportFrame;

/// A packet with one frame for a path that may not be sent a full one.
const SMALL_ALONE: usize = 64;
/// Packets that are smaller than this are not begun on a path that may be sent no more.
const MIN_UNPROVEN: usize = 100;
/// Packets after which an acknowledgement is wanted as a rule (RFC 9000 §13.2.2).
const ACK_THRESHOLD: u64 = 2;
/// Most bytes of CRYPTO in one frame.
const CRYPTO_CHUNK: usize = 1000;

/// A packet of a train is padded to full size by at most one of so many parts of it.
const MAX_PADDING: usize = 8;

/// What a packet may carry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// Acknowledgements and what the window does not count.
    ControlOnly,
    /// Everything.
    Data,
}

/// A packet that goes out alone and unmarked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    SizeProbe,
    Path,
    Close,
}

/// What was written into a packet.
#[derive(Default)]
struct Written {
    bytes: usize,
    asks: Asks,
    /// More is waiting than fitted.
    full: bool,
}

impl Connection {
    /// Writes the next train into `buf`; at most `max_segments` packets of one size.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        max_segments: usize,
        shared: &mut Shared,
    ) -> Option<Transmit> {
        let transmit = self.write_transmit(now, buf, max_segments, shared);
        if let (Some(observer), Some(transmit)) = (&shared.observer, &transmit) {
            observer.sent(transmit);
        }
        transmit
    }

    fn write_transmit(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        max_segments: usize,
        shared: &mut Shared,
    ) -> Option<Transmit> {
        if let Some(transmit) = self.transmit_handshake(now, buf) {
            return Some(transmit);
        }
        self.keys.as_ref()?;
        if self.is_transferring() {
            if let Some(transmit) = self.transmit_path(now, buf) {
                return Some(transmit);
            }
            if let Some(transmit) = self.transmit_probe(now, buf) {
                return Some(transmit);
            }
            // A relay takes packets one by one.
            let most = if self.is_relayed() { 1 } else { max_segments };
            self.transmit_train(now, buf, most, shared)
        } else {
            self.transmit_closing(now, buf, shared)
        }
    }

    fn transmit_on(path: &Path, len: usize, segment: usize, ecn: Ecn, probe: bool) -> Transmit {
        Transmit {
            socket: path.socket,
            remote: path.remote,
            local: path.local,
            ecn,
            len,
            segment,
            probe,
        }
    }

    fn transmit_train(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        max_segments: usize,
        shared: &mut Shared,
    ) -> Option<Transmit> {
        self.sync_packet_size();
        let allowance = usize::try_from(self.path.allowance()).unwrap_or(usize::MAX);
        let size = self.data_packet_size().min(buf.len()).min(allowance);
        if size < MIN_UNPROVEN {
            return None;
        }
        let mut budget = match self.recovery.send_budget(now) {
            Budget::Bytes(bytes) => bytes,
            Budget::Pacing(until) => {
                if self.mux.wants_to_send() {
                    self.timers.pacing = Some(until);
                }
                0
            }
            Budget::Window => 0,
        };
        budget = budget.min(self.path.allowance());
        let every = self.recovery.wants_every_ack(self.pending.ack_every_packet);
        self.pending.ack_frequency |= every != self.pending.ack_every_packet;
        self.pending.ack_every_packet = every;
        let mut len = 0;
        let mut packets = 0;
        while packets < max_segments.max(1) {
            let Some(packet) = buf.get_mut(len..len + size) else { break };
            if self.path.allowance() < size as u64 {
                break;
            }
            let owed = self.recovery.probes_owed() > 0;
            if self.recovery.is_full() && !owed {
                break;
            }
            let fill = if owed || budget >= size as u64 { Fill::Data } else { Fill::ControlOnly };
            // A probe asks for its answer, even if it carries unreliable messages only.
            self.pending.ping |= owed || self.wants_ping();
            let more = packets + 1 < max_segments;
            let mut written = self.write_packet(now, packet, fill, more, shared);
            if owed && written.bytes == 0 {
                // Nothing of what waits fits: a probe must go all the same.
                self.pending.ping = true;
                written = self.write_packet(now, packet, Fill::ControlOnly, more, shared);
            }
            if written.bytes == 0 {
                break;
            }
            self.path.on_sent(written.bytes);
            if written.asks != Asks::Nothing {
                budget = budget.saturating_sub(written.bytes as u64);
            }
            len += written.bytes;
            packets += 1;
            if written.bytes < size || !written.full {
                break;
            }
        }
        (len > 0)
            .then(|| Self::transmit_on(&self.path, len, size.min(len), self.recovery.ecn(), false))
    }

    /// Writes one packet of the data space into `packet` (whole size given), sealed. `pad`: when
    /// more is waiting, the packet is filled up so that a train of equal packets can go on.
    fn write_packet(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        fill: Fill,
        pad: bool,
        shared: &mut Shared,
    ) -> Written {
        if !self.has_something(now, fill) {
            return Written::default();
        }
        let room = packet.len() - TAG_LEN;
        let pn = self.recovery.begin_packet();
        let mut written = Written::default();
        let mut w = Writer::new(&mut packet[SHORT_HEADER_LEN..room]);
        if self.received.has_pending()
            && let Some(largest) = self.received.write(now, &mut w)
        {
            self.recovery.record(FrameRecord::Ack { largest });
        }
        if self.write_pending(&mut w, shared) {
            written.asks = Asks::Soon;
        }
        let mut payload = w.written();
        if fill == Fill::Data {
            let n = self.write_channels(
                now,
                &mut packet[SHORT_HEADER_LEN + payload..room],
                &mut written,
            );
            payload += n;
            if n > 0 {
                self.busy(now);
            }
            written.full = self.mux.wants_to_send();
        }
        if payload == 0 {
            self.recovery.abandon_packet(pn);
            return Written::default();
        }
        let mut end = SHORT_HEADER_LEN + payload;
        if written.full && pad && room - end <= packet.len() / MAX_PADDING {
            packet[end..room].fill(0);
            end = room;
        }
        written.bytes = self.seal(now, packet, pn, end, written.asks, None);
        written
    }

    /// Frames of channels, as far as they fit. Returns their length.
    fn write_channels(&mut self, now: Instant, room: &mut [u8], written: &mut Written) -> usize {
        let Self { recovery, mux, .. } = self;
        // Only what would be repeated is remembered.
        let mut remembered = false;
        let mut n = mux.fill(now, room, &mut |record| {
            remembered = true;
            recovery.record(record);
        });
        if n > 0 {
            written.asks = written.asks.max(if remembered { Asks::Soon } else { Asks::Later });
        }
        if written.asks == Asks::Later && self.recovery.wants_answer() {
            let mut w = Writer::new(&mut room[n..]);
            if TransportFrame::Ping.write(&mut w).is_ok() {
                n += w.written();
                written.asks = Asks::Soon;
            } else {
                self.pending.ping = true;
            }
        }
        n
    }

    /// After many packets that only acknowledge, the next one asks for an answer itself.
    fn wants_ping(&self) -> bool {
        self.recovery.ping_wanted() && self.received.has_pending()
    }

    /// Whether a packet would have any content.
    fn has_something(&self, now: Instant, fill: Fill) -> bool {
        self.received.ack_due(now)
            || self.pending.ping
            || self.pending.close_ack
            || self.pending.ack_frequency
            || !self.pending.path_responses.is_empty()
            || !self.pending.new_ids.is_empty()
            || !self.pending.retire_ids.is_empty()
            || self.pending.has_tickets()
            || (fill == Fill::Data && self.mux.wants_to_send())
    }

    /// Writes the header, seals, and books the packet as sent. Returns its length.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn seal(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        pn: u64,
        end: usize,
        asks: Asks,
        alone: Option<Alone>,
    ) -> usize {
        let probe_mtu = alone == Some(Alone::SizeProbe);
        let ecn = if alone.is_some() { Ecn::NotEct } else { self.recovery.ecn() };
        let Some(keys) = &mut self.keys else { return 0 };
        let total = end + TAG_LEN;
        ShortHeader { key_phase: keys.key_phase(), dcid: self.ids.peer(), pn: pn as u32 }
            .write(packet);
        if let Err(error) = keys.seal(pn, &mut packet[..total]) {
            self.keys_used_up |= error == SealError::Exhausted;
            self.recovery.abandon_packet(pn);
            return 0;
        }
        self.recovery.finish_packet(now, pn, total, PacketFlags { asks, probe_mtu, ecn });
        if asks == Asks::Soon {
            self.awaiting_answer = true;
        }
        total
    }

    /// Frames of the connection itself. Returns whether any asks for an acknowledgement.
    fn write_pending(&mut self, w: &mut Writer<'_>, shared: &mut Shared) -> bool {
        let mut eliciting = false;
        let pending = &mut self.pending;
        if pending.close_ack && TransportFrame::CloseAck.write(w).is_ok() {
            pending.close_ack = false;
        }
        if pending.ping && TransportFrame::Ping.write(w).is_ok() {
            pending.ping = false;
            eliciting = true;
        }
        if pending.ack_frequency {
            let threshold = if pending.ack_every_packet { 1 } else { ACK_THRESHOLD };
            let max_delay = self.recovery.max_ack_delay();
            if (TransportFrame::AckFrequency { threshold, max_delay }).write(w).is_ok() {
                pending.ack_frequency = false;
                self.recovery.record(FrameRecord::AckFrequency);
                eliciting = true;
            }
        }
        while let Some((data, _)) = pending.path_responses.last() {
            if TransportFrame::PathResponse(*data).write(w).is_err() {
                break;
            }
            pending.path_responses.pop();
            eliciting = true;
        }
        while let Some(&sequence) = pending.new_ids.last() {
            if self.ids.is_local(sequence) {
                let (id, token) = shared.issue_id(self.handle, sequence);
                let frame =
                    TransportFrame::NewConnectionId { sequence, retire_prior_to: 0, id, token };
                if frame.write(w).is_err() {
                    break;
                }
                self.recovery.record(FrameRecord::NewConnectionId { sequence });
                eliciting = true;
            }
            pending.new_ids.pop();
        }
        while let Some(&sequence) = pending.retire_ids.last() {
            if (TransportFrame::RetireConnectionId { sequence }).write(w).is_err() {
                break;
            }
            pending.retire_ids.pop();
            self.recovery.record(FrameRecord::RetireConnectionId { sequence });
            eliciting = true;
        }
        eliciting | self.write_tickets(w)
    }

    fn write_tickets(&mut self, w: &mut Writer<'_>) -> bool {
        let Some(tickets) = &mut self.pending.tickets else { return false };
        let mut eliciting = false;
        while let Some(range) = tickets.ranges.pop() {
            let take = range.len().min(CRYPTO_CHUNK).min(w.remaining().saturating_sub(24));
            let piece = range.start..range.start + take;
            let Some(data) = tickets.bytes.get(piece).filter(|d| !d.is_empty()) else {
                tickets.ranges.push(range);
                break;
            };
            let frame = TransportFrame::Crypto { offset: range.start as u64, data };
            if frame.write(w).is_err() {
                tickets.ranges.push(range);
                break;
            }
            self.recovery
                .record(FrameRecord::Crypto { offset: range.start as u64, len: take as u16 });
            eliciting = true;
            if take < range.len() {
                tickets.ranges.push(range.start + take..range.end);
            }
        }
        eliciting
    }

    /// A packet-size probe (RFC 8899): a PING padded to the size in question.
    fn transmit_probe(&mut self, now: Instant, buf: &mut [u8]) -> Option<Transmit> {
        if !self.path.validated || self.is_relayed() {
            return None;
        }
        let size = self.recovery.mtu_probe(now)?;
        let Some(packet) = buf.get_mut(..size) else {
            self.recovery.on_probe_too_large(now, size);
            return None;
        };
        let pn = self.recovery.begin_packet();
        let mut w = Writer::new(&mut packet[SHORT_HEADER_LEN..size - TAG_LEN]);
        TransportFrame::Ping.write(&mut w).ok()?;
        let end = SHORT_HEADER_LEN + w.written();
        packet[end..size - TAG_LEN].fill(0);
        let len = self.seal(now, packet, pn, size - TAG_LEN, Asks::Soon, Some(Alone::SizeProbe));
        (len > 0).then(|| Self::transmit_on(&self.path, len, len, Ecn::NotEct, true))
    }

    /// Packets that belong to one path: answers to challenges that came from elsewhere, and
    /// PATH_CHALLENGE packets that are due.
    fn transmit_path(&mut self, now: Instant, buf: &mut [u8]) -> Option<Transmit> {
        while let Some(at) = self.pending.path_responses.iter().position(|(_, on)| on.is_some()) {
            if let (data, Some(path)) = self.pending.path_responses.swap_remove(at)
                && let Some(t) =
                    self.write_alone(now, buf, path, &TransportFrame::PathResponse(data))
            {
                return Some(t);
            }
        }
        if let Some((data, path)) = self.due_probe(now) {
            return self.write_alone(now, buf, path, &TransportFrame::PathChallenge(data));
        }
        let migration = self.migration.as_mut()?;
        let challenge = if migration.challenge.send_at <= now {
            &mut migration.challenge
        } else {
            migration.previous_challenge.as_mut().filter(|c| c.send_at <= now)?
        };
        challenge.on_sent(now);
        let (data, path) = (challenge.data, challenge.path);
        self.write_alone(now, buf, path, &TransportFrame::PathChallenge(data))
    }

    /// Writes a packet with this frame only, for this path. It has full size, which proves the path
    /// for packets of that size (RFC 9000 §8.2.1), as far as the path may be sent that much.
    fn write_alone(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        mut path: Path,
        frame: &TransportFrame<'_>,
    ) -> Option<Transmit> {
        let on_current = path.remote == self.path.remote && path.socket == self.path.socket;
        if on_current {
            path = self.path;
        }
        let full = path.allowance() >= MIN_PACKET as u64;
        let size = if full { MIN_PACKET } else { SMALL_ALONE };
        if path.allowance() < size as u64 {
            return None;
        }
        let packet = buf.get_mut(..size)?;
        let pn = self.recovery.begin_packet();
        let mut w = Writer::new(&mut packet[SHORT_HEADER_LEN..size - TAG_LEN]);
        frame.write(&mut w).ok()?;
        let end = SHORT_HEADER_LEN + w.written();
        packet[end..size - TAG_LEN].fill(0);
        // Elsewhere its loss or its round trip says nothing about the path in use; whether the
        // other one works is what its answer says.
        let asks = if on_current { Asks::Soon } else { Asks::Nothing };
        let len = self.seal(now, packet, pn, size - TAG_LEN, asks, Some(Alone::Path));
        if on_current {
            self.path.on_sent(len);
        }
        (len > 0).then(|| Self::transmit_on(&path, len, len, Ecn::NotEct, false))
    }

    /// After the end: CLOSE when it is due, CLOSE_ACK when the peer closed.
    fn transmit_closing(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        shared: &mut Shared,
    ) -> Option<Transmit> {
        let due = self.closing.as_ref().is_some_and(|c| c.due && !c.acknowledged);
        let answers = self.pending.close_ack;
        if !due && !answers {
            return None;
        }
        // An address that is not proven yet may still be told that all is over.
        let room = buf.len().min(MIN_PACKET) as u64;
        let size = self.path.allowance().min(room) as usize;
        let packet = buf.get_mut(..size)?;
        let end = size.checked_sub(TAG_LEN).filter(|end| *end > SHORT_HEADER_LEN)?;
        let pn = self.recovery.begin_packet();
        let mut w = Writer::new(&mut packet[SHORT_HEADER_LEN..end]);
        self.pending.new_ids.clear();
        self.pending.tickets = None;
        self.pending.path_responses.clear();
        self.write_pending(&mut w, shared);
        let mut payload = w.written();
        if self.closing.as_ref().is_some_and(|c| c.rejection) {
            let recovery = &mut self.recovery;
            let room = packet.get_mut(SHORT_HEADER_LEN + payload..end.saturating_sub(160));
            if let Some(room) = room {
                payload += self.mux.fill(now, room, &mut |record| recovery.record(record));
            }
        }
        if due && let Some(closing) = &mut self.closing {
            let mut w = Writer::new(&mut packet[SHORT_HEADER_LEN + payload..end]);
            let frame = TransportFrame::Close {
                reason: closing.reason.reason,
                discarded: closing.discarded,
                text: &closing.reason.text,
            };
            if frame.write(&mut w).is_ok() {
                payload += w.written();
                self.recovery.record(FrameRecord::Close);
                closing.on_sent(now);
            }
        }
        if payload == 0 {
            self.recovery.abandon_packet(pn);
            return None;
        }
        if self.received.has_pending() {
            let mut w = Writer::new(&mut packet[SHORT_HEADER_LEN + payload..end]);
            self.received.write(now, &mut w);
            payload += w.written();
        }
        let asks = if due { Asks::Soon } else { Asks::Nothing };
        let len = self.seal(now, packet, pn, SHORT_HEADER_LEN + payload, asks, Some(Alone::Close));
        self.path.on_sent(len);
        (len > 0).then(|| Self::transmit_on(&self.path, len, len, Ecn::NotEct, false))
    }

    /// Whether [`Self::poll_transmit`] has a farewell to send although the connection is over.
    pub(crate) fn owes_farewell(&self) -> bool {
        if self.is_stream() {
            return self.stream_owes() || self.stream_owes_notify();
        }
        let due = self.pending.close_ack || self.closing.as_ref().is_some_and(|c| c.due);
        self.status == Status::Dead && (self.handshake.is_some() || (self.keys.is_some() && due))
    }
}
