//! What we must acknowledge: packet numbers received, and when an ACK frame is due
//! (RFC 9000 §13.2).
//!
//! At most one ACK frame a receive batch: at its end, when enough packets wait; at once on
//! reordering, a gap or a CE mark; else after `max_ack_delay`. Packets of unreliable messages have
//! more patience: nothing is repeated when their acknowledgement stays away. Called by `connection`.

use super::ecn::Ecn;
use super::types::Asks;
use crate::limits::MAX_ACK_RANGES;
use crate::time::{Duration, Instant};
use crate::wire::ack::{EcnCounts, write_ack};
use crate::wire::codec::Writer;
use crate::wire::ranges::RangeSet;

/// Packets that wait before an ACK frame is due at the end of a batch (RFC 9000 §13.2.2).
const THRESHOLD: u32 = 2;
/// The same while all of them ask for it later only.
pub(super) const LATER_ACK_PACKETS: u32 = 10;
/// How long an ACK frame waits that was asked for later only: mostly another packet, on its way
/// anyhow, carries it.
pub(super) const LATER_ACK_DELAY: Duration = Duration::from_millis(250);

/// Packet numbers received and not yet known to be known by the peer.
#[derive(Clone, Debug)]
pub struct ReceivedPackets {
    ranges: RangeSet,
    /// The newest packet: number and arrival.
    newest: Option<(u64, Instant)>,
    /// Ack-eliciting packets since the last ACK frame, and when the first came.
    waiting: u32,
    waiting_since: Instant,
    /// Of these, the ones that ask for it soon, and when the first of them came.
    soon: u32,
    soon_since: Instant,
    due: bool,
    threshold: u32,
    max_ack_delay: Duration,
    /// One more than the number of the packet that asked for these; 0 = none did.
    asked: u64,
    ecn: EcnCounts,
}

impl ReceivedPackets {
    /// Nothing received; acknowledgements wait at most `max_ack_delay`.
    pub fn new(max_ack_delay: Duration) -> Self {
        Self {
            ranges: RangeSet::new(),
            newest: None,
            waiting: 0,
            waiting_since: Instant::ZERO,
            soon: 0,
            soon_since: Instant::ZERO,
            due: false,
            threshold: THRESHOLD,
            max_ack_delay,
            asked: 0,
            ecn: EcnCounts::default(),
        }
    }

    /// The peer asks for other values (ACK_FREQUENCY): an ACK frame at the end of a batch once
    /// `threshold` packets wait, or after `max_ack_delay`. What the newest packet `pn` asked for
    /// counts, in whatever order they arrive.
    pub fn set_frequency(&mut self, pn: u64, threshold: u64, max_ack_delay: Duration) {
        if pn < self.asked {
            return;
        }
        self.asked = pn.saturating_add(1);
        self.threshold = u32::try_from(threshold).unwrap_or(u32::MAX).max(1);
        self.max_ack_delay = max_ack_delay;
    }

    /// A packet was opened. It must not be a duplicate, or its ECN mark counts twice.
    #[inline]
    pub fn on_packet(&mut self, now: Instant, pn: u64, asks: Asks, ecn: Ecn) {
        match ecn {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ecn.ect0 += 1,
            Ecn::Ect1 => self.ecn.ect1 += 1,
            Ecn::Ce => self.ecn.ce += 1,
        }
        let expected = self.newest.map_or(0, |(newest, _)| newest.saturating_add(1));
        if pn >= expected {
            self.newest = Some((pn, now));
        }
        self.ranges.insert(pn..pn.saturating_add(1));
        if pn != expected {
            self.ranges.keep_highest(MAX_ACK_RANGES);
        }
        if asks != Asks::Nothing {
            if self.waiting == 0 {
                self.waiting_since = now;
            }
            self.waiting = self.waiting.saturating_add(1);
            if asks == Asks::Soon {
                if self.soon == 0 {
                    self.soon_since = now;
                }
                self.soon = self.soon.saturating_add(1);
            }
            self.due |= pn != expected || ecn == Ecn::Ce;
        }
    }

    /// What waits for its acknowledgement has waited long enough.
    pub const fn answer_now(&mut self) {
        self.due |= self.waiting > 0;
    }

    /// The receive batch is over.
    pub fn end_batch(&mut self, now: Instant) {
        self.due |= self.soon >= self.threshold
            || self.waiting >= self.threshold.max(LATER_ACK_PACKETS)
            || self.late(now);
    }

    fn late(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    /// When what waits has waited for long enough.
    fn due_at(&self) -> Option<Instant> {
        let later = self.waiting_since + LATER_ACK_DELAY.max(self.max_ack_delay);
        match (self.waiting, self.soon) {
            (0, _) => None,
            (_, 0) => Some(later),
            _ => Some(later.min(self.soon_since + self.max_ack_delay)),
        }
    }

    /// An ACK frame should leave now, in a packet of its own if need be.
    pub fn ack_due(&self, now: Instant) -> bool {
        self.due || self.late(now)
    }

    /// Something waits for its acknowledgement, which may ride along in any packet.
    pub const fn has_pending(&self) -> bool {
        self.waiting > 0
    }

    /// When [`Self::on_timeout`] has work; `None` while an ACK frame is due already.
    pub fn timeout(&self) -> Option<Instant> {
        if self.due { None } else { self.due_at() }
    }

    /// Makes what has waited long enough due.
    pub fn on_timeout(&mut self, now: Instant) {
        self.due |= self.late(now);
    }

    /// Writes a whole ACK frame with as many ranges as fit. Gives the newest number in it; nothing
    /// is written and `None` given when nothing was received or not even one range fits.
    pub fn write(&mut self, now: Instant, w: &mut Writer) -> Option<u64> {
        let (newest, arrived) = self.newest?;
        let ranges = self.ranges.iter().rev().map(|r| r.start..=r.end - 1);
        let ecn = (self.ecn != EcnCounts::default()).then_some(self.ecn);
        write_ack(w, now.since(arrived), ranges, ecn).ok()?;
        self.waiting = 0;
        self.soon = 0;
        self.due = false;
        Some(newest)
    }

    /// The peer has received an ACK frame of ours whose newest number was `largest`: what it
    /// covered need not be repeated.
    pub fn on_ack_of_ack(&mut self, largest: u64) {
        if let Some((newest, _)) = self.newest {
            self.ranges.remove_below(largest.saturating_add(1).min(newest));
        }
    }

    /// The newest number received.
    pub fn largest(&self) -> Option<u64> {
        self.newest.map(|(pn, _)| pn)
    }

    /// Marks seen so far.
    pub const fn ecn_counts(&self) -> EcnCounts {
        self.ecn
    }

    /// Gives spare memory back; for a connection that falls idle.
    pub fn shrink(&mut self) {
        self.ranges.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Frames;
    use crate::wire::transport::TransportFrame;
    use core::ops::RangeInclusive;

    const DELAY: Duration = Duration::from_millis(25);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn written(
        received: &mut ReceivedPackets,
        now: Instant,
    ) -> (Vec<RangeInclusive<u64>>, Duration) {
        let mut buf = [0; 1200];
        let mut w = Writer::new(&mut buf);
        let largest = received.write(now, &mut w);
        let len = w.written();
        let frame = Frames::new(&buf[..len]).next().unwrap().unwrap();
        let TransportFrame::Ack(ack) = TransportFrame::parse(frame.body).unwrap() else { panic!() };
        assert_eq!(largest, Some(ack.largest));
        (ack.ranges().collect(), ack.delay)
    }

    #[test]
    fn one_acknowledgement_a_batch_from_the_second_packet() {
        let mut r = ReceivedPackets::new(DELAY);
        assert_eq!(r.timeout(), None);
        r.on_packet(at(1), 0, Asks::Soon, Ecn::NotEct);
        r.end_batch(at(1));
        assert!(!r.ack_due(at(1)) && r.has_pending());
        assert_eq!(r.timeout(), Some(at(26)));
        assert!(r.ack_due(at(26)));
        for pn in 1..45 {
            r.on_packet(at(2), pn, Asks::Soon, Ecn::NotEct);
            assert!(!r.ack_due(at(2)));
        }
        r.end_batch(at(2));
        assert!(r.ack_due(at(2)));
        assert_eq!(written(&mut r, at(4)), (vec![0..=44], Duration::from_millis(2)));
        assert!(!r.ack_due(at(99)) && r.timeout().is_none());
    }

    #[test]
    fn an_answer_can_be_wanted_at_once() {
        let mut r = ReceivedPackets::new(DELAY);
        r.on_packet(at(0), 0, Asks::Nothing, Ecn::NotEct);
        r.answer_now();
        assert!(!r.ack_due(at(0)), "nothing asked for it");
        r.on_packet(at(0), 1, Asks::Soon, Ecn::NotEct);
        r.answer_now();
        assert!(r.ack_due(at(0)) && r.timeout().is_none());
    }

    #[test]
    fn gaps_reordering_and_marks_are_answered_at_once() {
        let mut r = ReceivedPackets::new(DELAY);
        r.on_packet(at(0), 0, Asks::Soon, Ecn::NotEct);
        r.on_packet(at(0), 2, Asks::Soon, Ecn::NotEct);
        assert!(r.ack_due(at(0)));
        assert_eq!(written(&mut r, at(0)).0, [2..=2, 0..=0]);
        r.on_packet(at(0), 1, Asks::Soon, Ecn::NotEct);
        assert!(r.ack_due(at(0)));
        assert_eq!(written(&mut r, at(0)).0, [0..=2]);
        r.on_packet(at(0), 3, Asks::Soon, Ecn::Ce);
        assert!(r.ack_due(at(0)));
    }

    #[test]
    fn packets_that_ask_for_nothing_get_nothing() {
        let mut r = ReceivedPackets::new(DELAY);
        for pn in [0, 5, 3, 9] {
            r.on_packet(at(0), pn, Asks::Nothing, Ecn::Ect0);
            r.end_batch(at(0));
        }
        assert!(!r.ack_due(at(1000)) && r.timeout().is_none() && !r.has_pending());
        assert_eq!(written(&mut r, at(0)).0, [9..=9, 5..=5, 3..=3, 0..=0]);
        assert_eq!(r.ecn_counts().ect0, 4);
    }

    #[test]
    fn ranges_are_bounded_and_forgotten_once_known() {
        let mut r = ReceivedPackets::new(DELAY);
        for pn in 0..1000 {
            r.on_packet(at(0), pn * 2, Asks::Soon, Ecn::NotEct);
        }
        let (ranges, _) = written(&mut r, at(0));
        assert_eq!(ranges.len(), MAX_ACK_RANGES);
        assert_eq!(ranges[0], 1998..=1998);
        r.on_ack_of_ack(1990);
        assert_eq!(written(&mut r, at(0)).0, [1998..=1998, 1996..=1996, 1994..=1994, 1992..=1992]);
        r.on_ack_of_ack(u64::MAX);
        assert_eq!(written(&mut r, at(0)).0, [1998..=1998]);
        r.on_packet(at(0), 7, Asks::Soon, Ecn::NotEct);
        assert_eq!(written(&mut r, at(0)).0, [1998..=1998, 7..=7]);
    }

    #[test]
    fn a_frame_that_does_not_fit_stays_due() {
        let mut r = ReceivedPackets::new(DELAY);
        r.on_packet(at(0), 1, Asks::Soon, Ecn::NotEct);
        let mut buf = [0; 4];
        assert_eq!(r.write(at(0), &mut Writer::new(&mut buf)), None);
        assert!(r.ack_due(at(0)));
    }

    #[test]
    fn frequency_can_be_asked_for() {
        let mut r = ReceivedPackets::new(DELAY);
        r.set_frequency(7, 10, Duration::from_millis(100));
        // Overtaken on its way.
        r.set_frequency(6, 2, DELAY);
        for pn in 0..9 {
            r.on_packet(at(0), pn, Asks::Soon, Ecn::NotEct);
        }
        r.end_batch(at(0));
        assert!(!r.ack_due(at(99)) && r.ack_due(at(100)));
        r.on_packet(at(0), 9, Asks::Soon, Ecn::NotEct);
        r.end_batch(at(0));
        assert!(r.ack_due(at(0)));
        r.set_frequency(8, 0, DELAY);
        written(&mut r, at(0));
        r.on_packet(at(0), 10, Asks::Soon, Ecn::NotEct);
        r.end_batch(at(0));
        assert!(r.ack_due(at(0)));
    }

    #[test]
    fn unreliable_messages_have_patience() {
        let mut r = ReceivedPackets::new(DELAY);
        r.on_packet(at(0), 0, Asks::Later, Ecn::NotEct);
        r.on_packet(at(10), 1, Asks::Later, Ecn::NotEct);
        r.end_batch(at(10));
        assert!(!r.ack_due(at(249)) && r.has_pending());
        assert_eq!(r.timeout(), Some(at(250)));
        // What has to be repeated if it is lost has less, from its own arrival on.
        r.on_packet(at(100), 2, Asks::Soon, Ecn::NotEct);
        assert_eq!(r.timeout(), Some(at(125)));
        r.on_packet(at(101), 3, Asks::Soon, Ecn::NotEct);
        r.end_batch(at(101));
        assert!(r.ack_due(at(101)));
        let mut buf = [0; 100];
        r.write(at(101), &mut Writer::new(&mut buf)).unwrap();
        assert!(!r.has_pending() && r.timeout().is_none());
        // Many do not wait, nor do gaps.
        for pn in 4..4 + u64::from(LATER_ACK_PACKETS) {
            r.end_batch(at(102));
            assert!(!r.ack_due(at(102)));
            r.on_packet(at(102), pn, Asks::Later, Ecn::NotEct);
        }
        r.end_batch(at(102));
        assert!(r.ack_due(at(102)));
        r.write(at(102), &mut Writer::new(&mut buf)).unwrap();
        r.on_packet(at(103), 20, Asks::Later, Ecn::NotEct);
        assert!(r.ack_due(at(103)));
    }
}
