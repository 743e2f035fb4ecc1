//! The packets that were sent and are not settled yet: one ring of packets indexed by packet
//! number, one ring of records for all of them.
//!
//! A packet enters at the back and leaves at the front once it and everything before it is settled
//! (acknowledged, or lost and forgotten), together with its records. In the ordinary case, where
//! whole trains are acknowledged in order, settling is a pop. Packets acknowledged out of order
//! stay as stepping stones that point past the acknowledged run they belong to, so that an ACK
//! frame that repeats old ranges costs no walk over them. Called by [`super::Recovery`] only.

use super::{Asks, Fate};
use crate::lean::reserve_front;
use crate::place::Place;
use crate::time::{Duration, Instant};
use crate::wire::record::FrameRecord;
use std::collections::VecDeque;

/// Asks for an acknowledgement and counts as in flight.
const ELICITING: u8 = 1;
/// Packet-size probe.
const MTU_PROBE: u8 = 2;
/// Sent with ECT(0).
const ECT: u8 = 4;
/// Its acknowledgement may be late.
const LATER: u8 = 8;

const STATE: u8 = 0x30;
const PENDING: u8 = 0;
const ACKED: u8 = 0x10;
const LOST: u8 = 0x20;
const SKIPPED: u8 = 0x30;

/// What is remembered of a sent packet. 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentPacket {
    /// When it was sent, in nanoseconds; of an acknowledged packet, the first number behind the
    /// acknowledged run.
    time: u64,
    /// Running index of its first record.
    first_record: u32,
    records: u16,
    /// UDP payload in bytes.
    pub(super) size: u16,
    flags: u8,
}

const _: () = assert!(size_of::<SentPacket>() <= 32);
const _: () = assert!(size_of::<FrameRecord>() <= 24);
const _: () = assert!(crate::limits::MAX_PACKET <= u16::MAX as usize);

/// Marks of a packet as it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) asks: Asks,
    pub(super) mtu_probe: bool,
    pub(super) ect: bool,
}

impl SentPacket {
    pub(super) const fn time(&self) -> Instant {
        Instant::from_nanos(self.time)
    }
    pub(super) const fn eliciting(&self) -> bool {
        self.flags & ELICITING != 0
    }
    /// Asks for an acknowledgement that the probe timer waits for.
    pub(super) const fn asks_soon(&self) -> bool {
        self.flags & (ELICITING | LATER) == ELICITING
    }
    pub(super) const fn asks_later(&self) -> bool {
        self.flags & LATER != 0
    }
    pub(super) const fn mtu_probe(&self) -> bool {
        self.flags & MTU_PROBE != 0
    }
    pub(super) const fn ect(&self) -> bool {
        self.flags & ECT != 0
    }
    /// Was declared lost before.
    pub(super) const fn was_lost(&self) -> bool {
        self.state() == LOST
    }
    const fn state(&self) -> u8 {
        self.flags & STATE
    }
    fn set_state(&mut self, state: u8) {
        self.flags = (self.flags & !STATE) | state;
    }
}

/// Each time that the rings run empty, one part in so many of what was needed is forgotten.
const FORGET: usize = 4;
/// Capacity, in packets or records, that is never given back on the fly.
const SMALL: usize = 64;

/// The two rings.
#[derive(Debug, Default)]
pub(super) struct SentPackets {
    packets: VecDeque<SentPacket>,
    records: VecDeque<FrameRecord>,
    /// Number of the front packet, or of the next one when the ring is empty.
    base: u64,
    /// Running index of the front record.
    record_base: u32,
    /// Records of the packet being built.
    open: u16,
    /// No packet below this number is pending.
    first_pending: u64,
    /// Longest that the rings were in their last uses; see [`Self::give_back`].
    peak: usize,
    peak_records: usize,
}

impl SentPackets {
    /// Where the front of each ring lies.
    pub(super) fn places(&self) -> (Place, Place) {
        (Place::of_some(self.packets.front()), Place::of_some(self.records.front()))
    }

    /// The number that the next packet pushed will have.
    pub(super) fn end(&self) -> u64 {
        self.base + self.packets.len() as u64
    }

    /// Lowest number that is still remembered.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    /// Packets remembered.
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of heap in use.
    pub(super) fn heap(&self) -> usize {
        self.packets.capacity() * size_of::<SentPacket>()
            + self.records.capacity() * size_of::<FrameRecord>()
    }

    /// Appends to the packet being built. Beyond 65,535 records a packet keeps the first ones;
    /// no packet holds that many frames.
    pub(super) fn record(&mut self, record: FrameRecord) {
        if self.open < u16::MAX {
            reserve_front(&mut self.records);
            self.records.push_back(record);
            self.open += 1;
        }
    }

    /// Drops the records of the packet being built.
    pub(super) fn abandon(&mut self) {
        let keep = self.records.len() - usize::from(self.open);
        self.records.truncate(keep);
        self.open = 0;
    }

    /// The packet being built becomes packet `base + len`.
    pub(super) fn push(&mut self, now: Instant, size: u16, marks: Marks) {
        let before = self.records.len() - usize::from(self.open);
        let mut flags = match marks.asks {
            Asks::Nothing => PENDING,
            Asks::Later => PENDING | ELICITING | LATER,
            Asks::Soon => PENDING | ELICITING,
        };
        for (set, bit) in [(marks.mtu_probe, MTU_PROBE), (marks.ect, ECT)] {
            if set {
                flags |= bit;
            }
        }
        reserve_front(&mut self.packets);
        self.packets.push_back(SentPacket {
            time: now.as_nanos(),
            first_record: self.record_base.wrapping_add(before as u32),
            records: self.open,
            size,
            flags,
        });
        self.open = 0;
        self.peak = self.peak.max(self.packets.len());
        self.peak_records = self.peak_records.max(self.records.len());
    }

    /// A number that no packet has. Only between packets.
    pub(super) fn push_skipped(&mut self) {
        if self.packets.is_empty() {
            self.base += 1;
            return;
        }
        self.packets.push_back(SentPacket {
            time: 0,
            first_record: self.record_base.wrapping_add(self.records.len() as u32),
            records: 0,
            size: 0,
            flags: SKIPPED,
        });
    }

    /// Acknowledges `lo..=hi` (`hi` must have been sent): `each` sees every packet that was not
    /// acknowledged before, `fate` its records.
    pub(super) fn ack_range(
        &mut self,
        lo: u64,
        hi: u64,
        each: &mut impl FnMut(u64, &SentPacket),
        fate: &mut impl FnMut(Fate, &FrameRecord),
    ) {
        let mut pn = lo.max(self.base);
        if pn == self.base {
            pn = self.ack_front(hi, each, fate);
        }
        while pn <= hi {
            let index = (pn - self.base) as usize;
            let Some(packet) = self.packets.get_mut(index) else { break };
            match packet.state() {
                ACKED => {
                    let next = packet.time;
                    packet.time = next.max(hi + 1);
                    pn = next.max(pn + 1);
                }
                SKIPPED => pn += 1,
                _ => {
                    let before = *packet;
                    packet.set_state(ACKED);
                    packet.time = hi + 1;
                    each(pn, &before);
                    self.tell(&before, Fate::Acked, fate);
                    pn += 1;
                }
            }
        }
    }

    /// The in-order case: pops from the front up to `hi`. Gives the first number left.
    fn ack_front(
        &mut self,
        hi: u64,
        each: &mut impl FnMut(u64, &SentPacket),
        fate: &mut impl FnMut(Fate, &FrameRecord),
    ) -> u64 {
        while self.base <= hi {
            let Some(packet) = self.packets.pop_front() else { break };
            if matches!(packet.state(), PENDING | LOST) {
                each(self.base, &packet);
                for _ in 0..packet.records {
                    if let Some(record) = self.records.pop_front() {
                        fate(Fate::Acked, &record);
                    }
                }
                self.record_base = self.record_base.wrapping_add(u32::from(packet.records));
            } else {
                self.drop_records(&packet);
            }
            self.base += 1;
        }
        self.base
    }

    /// Declares lost every pending packet below `largest_acked` that is at least `threshold`
    /// numbers behind it or was sent `delay` before `now` (RFC 9002 §6.1). `each` sees them in
    /// ascending order; `None` stands for a run of acknowledged packets in between. Gives the
    /// moment at which the oldest eliciting packet that stays pending will be lost.
    pub(super) fn detect_lost(
        &mut self,
        largest_acked: u64,
        threshold: u64,
        now: Instant,
        delay: Duration,
        each: &mut impl FnMut(Option<(u64, &SentPacket)>),
        fate: &mut impl FnMut(Fate, &FrameRecord),
    ) -> Option<Instant> {
        let mut pn = self.first_pending.max(self.base);
        let mut first_left = None;
        let mut waiting = None;
        while pn < largest_acked {
            let index = (pn - self.base) as usize;
            let Some(packet) = self.packets.get_mut(index) else { break };
            match packet.state() {
                PENDING => {
                    if pn + threshold <= largest_acked || packet.time() + delay <= now {
                        packet.set_state(LOST);
                        let lost = *packet;
                        each(Some((pn, &lost)));
                        self.tell(&lost, Fate::Lost, fate);
                    } else {
                        first_left = first_left.or(Some(pn));
                        if packet.eliciting() {
                            waiting = Some(packet.time() + delay);
                            break;
                        }
                    }
                    pn += 1;
                }
                ACKED => {
                    each(None);
                    pn = packet.time.max(pn + 1);
                }
                _ => pn += 1,
            }
        }
        self.first_pending = first_left.unwrap_or(pn);
        waiting
    }

    /// Shows `fate` the records of the `count` oldest pending packets that the probe timer waited
    /// for.
    /// Gives how many there were.
    pub(super) fn probe(&mut self, count: u32, fate: &mut impl FnMut(Fate, &FrameRecord)) -> u32 {
        let mut pn = self.first_pending.max(self.base);
        let mut found = 0;
        while found < count {
            let Some(packet) = self.packets.get((pn - self.base) as usize) else { break };
            let packet = *packet;
            match packet.state() {
                PENDING if packet.asks_soon() && packet.records > 0 => {
                    self.tell(&packet, Fate::Probe, fate);
                    found += 1;
                    pn += 1;
                }
                ACKED => pn = packet.time.max(pn + 1),
                _ => pn += 1,
            }
        }
        found
    }

    /// Forgets what is settled at the front. A lost packet is kept for `keep` after it was sent, so
    /// that a late acknowledgement still finds it.
    pub(super) fn retire(&mut self, now: Instant, keep: Duration) {
        while let Some(packet) = self.packets.front() {
            let settled = match packet.state() {
                ACKED | SKIPPED => true,
                LOST => packet.time() + keep <= now,
                _ => false,
            };
            if !settled {
                return;
            }
            self.pop_settled();
        }
        self.give_back();
    }

    /// Forgets the oldest packets that ask for no acknowledgement while more than `max` packets
    /// are remembered: a peer that has nothing to acknowledge never mentions them.
    pub(super) fn trim(&mut self, max: usize) {
        while self.packets.len() > max
            && self.packets.front().is_some_and(|p| !p.eliciting() || p.state() != PENDING)
        {
            self.pop_settled();
        }
    }

    fn pop_settled(&mut self) {
        if let Some(packet) = self.packets.pop_front() {
            self.drop_records(&packet);
            self.base += 1;
        }
    }

    /// The rings ran empty: gives memory back where the last uses needed far less than there is. One
    /// short use says little: what was needed is forgotten little by little.
    fn give_back(&mut self) {
        let capacity = self.packets.capacity();
        if capacity > SMALL && self.peak < capacity / 4 {
            self.packets.shrink_to(capacity / 2);
        }
        let capacity = self.records.capacity();
        if capacity > SMALL && self.peak_records < capacity / 4 {
            self.records.shrink_to(capacity / 2);
        }
        self.peak -= self.peak.div_ceil(FORGET);
        self.peak_records -= self.peak_records.div_ceil(FORGET);
    }

    /// Forgets everything but pending eliciting packets at once, and gives all spare memory back.
    pub(super) fn shrink(&mut self) {
        self.trim(0);
        self.packets.shrink_to_fit();
        self.records.shrink_to_fit();
        self.peak = self.packets.len();
        self.peak_records = self.records.len();
    }

    fn drop_records(&mut self, packet: &SentPacket) {
        if packet.records > 0 {
            let count = usize::from(packet.records).min(self.records.len());
            self.records.drain(..count);
            self.record_base = self.record_base.wrapping_add(count as u32);
        }
    }

    fn tell(&self, packet: &SentPacket, what: Fate, fate: &mut impl FnMut(Fate, &FrameRecord)) {
        let start = packet.first_record.wrapping_sub(self.record_base) as usize;
        for index in start..start + usize::from(packet.records) {
            if let Some(record) = self.records.get(index) {
                fate(what, record);
            }
        }
    }
}
