//! One packet number space of the handshake: its keys, what was sent and what arrived.

use super::crypto_stream::{CryptoReceive, CryptoSend};
use crate::limits::{MAX_ACK_RANGES, TAG_LEN};
use crate::observe::Tap;
use crate::time::{Duration, Instant};
use crate::wire::ack::{AckFrame, write_ack};
use crate::wire::codec::{Full, Writer};
use crate::wire::packet::{Level, LongHeader, patch_payload_len};
use crate::wire::ranges::RangeSet;
use crate::wire::transport::TransportFrame;
use core::fmt;
use core::ops::Range;
use rustls::quic::{Keys, PacketKey};
use std::collections::VecDeque;

/// Packets that may overtake another one before that counts as lost (RFC 9002 §6.1.1).
const PACKET_THRESHOLD: u64 = 3;
/// Ack-eliciting packets of a level in flight at once (RFC 9002 §7.2, ten packets).
const WINDOW: usize = 10;
/// Not worth a CRYPTO frame: fewer bytes of it than this at the end of a packet.
const MIN_PIECE: usize = 16;
/// Header of a CRYPTO frame with an offset below 2^30: frame header, type, offset.
const CRYPTO_OVERHEAD: usize = 4 + 1 + 4;

/// An ack-eliciting packet under way, one entry for each CRYPTO frame in it (a PING has an empty
/// range).
#[derive(Debug)]
struct Sent {
    pn: u64,
    at: Instant,
    range: Range<u64>,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AckOutcome {
    pub(super) newly_acked: bool,
    pub(super) rtt: Option<Duration>,
}

/// One level's packet number space.
pub(super) struct Space {
    level: Level,
    local: Box<dyn PacketKey>,
    remote: Box<dyn PacketKey>,
    next_pn: u64,
    sent: VecDeque<Sent>,
    arrived: RangeSet,
    /// Packet numbers below were forgotten: they count as duplicates.
    forgotten: u64,
    newest_arrived_at: Instant,
    pub(super) ack_due: bool,
    pub(super) ping_due: bool,
    pub(super) tx: CryptoSend,
    pub(super) rx: CryptoReceive,
    tap: Option<Tap>,
}

impl Space {
    pub(super) fn new(level: Level, keys: Keys) -> Self {
        Self {
            level,
            local: keys.local.packet,
            remote: keys.remote.packet,
            next_pn: 0,
            sent: VecDeque::new(),
            arrived: RangeSet::new(),
            forgotten: 0,
            newest_arrived_at: Instant::ZERO,
            ack_due: false,
            ping_due: false,
            tx: CryptoSend::default(),
            rx: CryptoReceive::default(),
            tap: None,
        }
    }

    /// Shows every packet to an observer.
    pub(super) fn observe(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// New keys for the same stream: the client after a Retry. Packet numbers go on.
    pub(super) fn replace_keys(&mut self, keys: Keys) {
        self.local = keys.local.packet;
        self.remote = keys.remote.packet;
        self.arrived.clear();
        self.ack_due = false;
        self.resend_all();
    }

    // ---- receiving

    pub(super) fn is_duplicate(&self, pn: u64) -> bool {
        pn < self.forgotten || self.arrived.contains(pn)
    }

    /// Opens a packet in place and gives its payload.
    pub(super) fn open<'a>(
        &self,
        pn: u64,
        header_len: usize,
        packet: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let (header, sealed) = packet.split_at_mut_checked(header_len)?;
        let payload: &[u8] = self.remote.decrypt_in_place(pn, header, sealed).ok()?;
        if let Some(tap) = &self.tap {
            tap.opened(pn, header, payload);
        }
        Some(payload)
    }

    /// Notes a packet whose frames were taken.
    pub(super) fn on_received(&mut self, now: Instant, pn: u64, ack_eliciting: bool) {
        if self.arrived.last().is_none_or(|newest| pn >= newest.end) {
            self.newest_arrived_at = now;
        }
        self.arrived.insert(pn..pn.saturating_add(1));
        if self.arrived.len() > MAX_ACK_RANGES {
            self.arrived.keep_highest(MAX_ACK_RANGES);
            self.forgotten = self.arrived.first().map_or(0, |r| r.start);
        }
        self.ack_due |= ack_eliciting;
    }

    /// Whether it acknowledges packets that were never sent.
    pub(super) fn is_optimistic(&self, ack: &AckFrame<'_>) -> bool {
        ack.largest >= self.next_pn
    }

    pub(super) fn on_ack(&mut self, now: Instant, ack: &AckFrame<'_>) -> AckOutcome {
        let mut outcome = AckOutcome::default();
        let acked = |pn: u64| ack.ranges().any(|r| r.contains(&pn));
        let largest = ack.largest;
        let tx = &mut self.tx;
        self.sent.retain(|sent| {
            if acked(sent.pn) {
                outcome.newly_acked = true;
                if sent.pn == largest {
                    outcome.rtt = Some(now.since(sent.at).saturating_sub(ack.delay));
                }
                tx.on_acked(sent.range.clone());
                return false;
            }
            let lost = sent.pn.saturating_add(PACKET_THRESHOLD) <= largest;
            if lost {
                tx.on_lost(sent.range.clone());
            }
            !lost
        });
        outcome
    }

    // ---- sending

    /// Whether something ack-eliciting is under way.
    pub(super) fn in_flight(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether the next packet of this level would ask for an acknowledgement.
    pub(super) fn has_eliciting(&self) -> bool {
        self.ping_due || self.may_send_crypto()
    }

    fn may_send_crypto(&self) -> bool {
        self.tx.has_pending() && self.packets_in_flight() < WINDOW
    }

    fn packets_in_flight(&self) -> usize {
        let mut count = 0;
        let mut last = None;
        for sent in &self.sent {
            if last != Some(sent.pn) {
                count += 1;
                last = Some(sent.pn);
            }
        }
        count
    }

    pub(super) fn has_something(&self) -> bool {
        self.ack_due || self.has_eliciting()
    }

    /// Everything under way counts as lost.
    pub(super) fn on_timeout(&mut self) {
        for sent in self.sent.drain(..) {
            self.tx.on_lost(sent.range);
        }
    }

    /// The same, and acknowledgements are not believed.
    pub(super) fn resend_all(&mut self) {
        self.sent.clear();
        self.tx.resend_all();
    }

    /// Writes one packet to the start of `buf` and gives its length and whether it is
    /// ack-eliciting; `None` when there is nothing to send or no room for it. `header` lacks
    /// number and lengths. A `close` takes the place of CRYPTO.
    pub(super) fn write_packet(
        &mut self,
        now: Instant,
        mut header: LongHeader<'_>,
        close: Option<&TransportFrame<'_>>,
        buf: &mut [u8],
    ) -> Option<(usize, bool)> {
        let pn = self.next_pn;
        header.pn = u32::try_from(pn).ok()?;
        let header_len = header.write(buf).ok()?;
        let room =
            buf.len().checked_sub(header_len + TAG_LEN)?.min(usize::from(u16::MAX) - TAG_LEN);
        let payload = buf.get_mut(header_len..header_len + room)?;
        let mut w = Writer::new(payload);
        let ack_written = self.ack_due && self.write_ack(now, &mut w).is_ok();
        let ack_eliciting = match close {
            Some(frame) => frame.write(&mut w).map(|()| false).ok()?,
            None => self.write_eliciting(now, pn, &mut w),
        };
        let payload_len = w.written();
        if payload_len == 0 {
            return None;
        }
        self.ack_due &= !ack_written;
        patch_payload_len(buf, header_len, payload_len + TAG_LEN);
        let (head, rest) = buf.split_at_mut(header_len);
        let (payload, tag_room) = rest.split_at_mut(payload_len);
        if let Some(tap) = &self.tap {
            tap.sealed(pn, head, payload);
        }
        let tag = self.local.encrypt_in_place(pn, head, payload).ok()?;
        tag_room.get_mut(..TAG_LEN)?.copy_from_slice(tag.as_ref());
        self.next_pn += 1;
        Some((header_len + payload_len + TAG_LEN, ack_eliciting))
    }

    fn write_ack(&self, now: Instant, w: &mut Writer<'_>) -> Result<(), Full> {
        let delay = now.since(self.newest_arrived_at);
        let newest_first = self.arrived.iter().rev().map(|r| r.start..=r.end - 1);
        write_ack(w, delay, newest_first, None).map(drop)
    }

    fn write_eliciting(&mut self, now: Instant, pn: u64, w: &mut Writer<'_>) -> bool {
        let mut any = false;
        if self.may_send_crypto() {
            while self.tx.has_pending() && w.remaining() >= CRYPTO_OVERHEAD + MIN_PIECE {
                let Some((offset, data)) = self.tx.take(w.remaining() - CRYPTO_OVERHEAD) else {
                    break;
                };
                let range = offset..offset + data.len() as u64;
                if (TransportFrame::Crypto { offset, data }).write(w).is_err() {
                    self.tx.on_lost(range);
                    break;
                }
                self.sent.push_back(Sent { pn, at: now, range });
                any = true;
            }
        }
        if self.ping_due && !any && TransportFrame::Ping.write(w).is_ok() {
            self.sent.push_back(Sent { pn, at: now, range: 0..0 });
            any = true;
        }
        self.ping_due &= !any;
        any
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("level", &self.level)
            .field("next_pn", &self.next_pn)
            .field("in_flight", &self.sent.len())
            .finish_non_exhaustive()
    }
}
