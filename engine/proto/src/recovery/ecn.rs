//! Explicit congestion notification: marks, and whether the path keeps them
//! (RFC 9000 §13.4.2 and appendix A.4).

use crate::wire::ack::EcnCounts;

/// ECN codepoint of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0,
    /// ECT(1).
    Ect1 = 1,
    /// ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

/// What is known about ECN on this path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcnState {
    /// Switched off by the configuration.
    Off,
    /// The first packets are marked.
    Testing,
    /// The test packets are out, no answer yet; nothing is marked.
    Waiting,
    /// The path keeps marks.
    Capable,
    /// The path or the peer loses, changes or hides marks; nothing is marked.
    Failed,
}

/// Packets marked before the answer is awaited.
const TEST_PACKETS: u32 = 10;

/// Validation of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct EcnValidation {
    state: EcnState,
    /// Marked packets sent on this path while untested.
    tested: u32,
    /// Of these, declared lost.
    lost: u32,
    /// Packets marked ECT(0) on the whole connection.
    marked: u64,
    /// Counts of the newest ACK frame.
    counts: EcnCounts,
}

impl EcnValidation {
    pub(super) const fn new(enabled: bool) -> Self {
        Self {
            state: if enabled { EcnState::Testing } else { EcnState::Off },
            tested: 0,
            lost: 0,
            marked: 0,
            counts: EcnCounts { ect0: 0, ect1: 0, ce: 0 },
        }
    }

    pub(super) const fn state(&self) -> EcnState {
        self.state
    }

    /// The mark for the next packets.
    pub(super) const fn mark(&self) -> Ecn {
        match self.state {
            EcnState::Testing | EcnState::Capable => Ecn::Ect0,
            _ => Ecn::NotEct,
        }
    }

    /// A packet was sent with ECT(0).
    pub(super) fn on_sent(&mut self) {
        self.marked += 1;
        if self.state == EcnState::Testing {
            self.tested += 1;
        }
    }

    /// A train begins: the mark may change now, and stays the same for all of the train.
    pub(super) fn on_train(&mut self) {
        if self.state == EcnState::Testing && self.tested >= TEST_PACKETS {
            self.state = EcnState::Waiting;
        }
    }

    /// An ACK frame raised the largest acknowledged number and newly acknowledged `acked`
    /// marked packets. Gives whether new CE marks are reported by a path that can be trusted.
    pub(super) fn on_ack(&mut self, acked: u64, counts: Option<EcnCounts>) -> bool {
        if matches!(self.state, EcnState::Off | EcnState::Failed) {
            if let Some(counts) = counts {
                self.counts = counts;
            }
            return false;
        }
        let Some(new) = counts else {
            if acked > 0 {
                self.state = EcnState::Failed;
            }
            return false;
        };
        let old = self.counts;
        self.counts = new;
        let shrank = new.ect0 < old.ect0 || new.ect1 < old.ect1 || new.ce < old.ce;
        if shrank {
            self.state = EcnState::Failed;
            return false;
        }
        let (ect0, ce) = (new.ect0 - old.ect0, new.ce - old.ce);
        let too_few = ect0.saturating_add(ce) < acked;
        let too_many = new.ect0.saturating_add(new.ce) > self.marked;
        if too_few || too_many || new.ect1 != old.ect1 {
            self.state = EcnState::Failed;
            return false;
        }
        if acked > 0 {
            self.state = EcnState::Capable;
        }
        ce > 0
    }

    /// A marked packet of this path was lost. When every test packet is, the path drops marks.
    pub(super) fn on_lost(&mut self) {
        if matches!(self.state, EcnState::Testing | EcnState::Waiting) {
            self.lost += 1;
            if self.tested >= TEST_PACKETS && self.lost >= self.tested {
                self.state = EcnState::Failed;
            }
        }
    }

    /// A new path is tested from the start; counts go on, they belong to the connection.
    pub(super) fn on_path_change(&mut self) {
        if self.state != EcnState::Off {
            self.state = EcnState::Testing;
            self.tested = 0;
            self.lost = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ect0: u64, ect1: u64, ce: u64) -> EcnCounts {
        EcnCounts { ect0, ect1, ce }
    }

    fn testing(sent: u32) -> EcnValidation {
        let mut ecn = EcnValidation::new(true);
        for _ in 0..sent {
            ecn.on_sent();
        }
        ecn
    }

    #[test]
    fn a_path_that_keeps_marks_is_used() {
        let mut ecn = testing(45);
        assert_eq!(ecn.mark(), Ecn::Ect0);
        ecn.on_train();
        assert_eq!(ecn.mark(), Ecn::NotEct);
        assert!(!ecn.on_ack(2, Some(counts(2, 0, 0))));
        assert_eq!(ecn.state(), EcnState::Capable);
        assert_eq!(ecn.mark(), Ecn::Ect0);
        assert!(ecn.on_ack(1, Some(counts(2, 0, 1))));
        assert!(!ecn.on_ack(1, Some(counts(3, 0, 1))));
    }

    #[test]
    fn every_way_to_fail() {
        for (acked, report) in [
            (2, None),
            (2, Some(counts(1, 0, 0))),
            (2, Some(counts(2, 1, 0))),
            (2, Some(counts(0, 2, 0))),
            (2, Some(counts(4, 0, 0))),
        ] {
            let mut ecn = testing(3);
            assert!(!ecn.on_ack(acked, report));
            assert_eq!(ecn.state(), EcnState::Failed, "{report:?}");
            assert_eq!(ecn.mark(), Ecn::NotEct);
        }
        let mut ecn = testing(3);
        ecn.on_ack(2, Some(counts(2, 0, 0)));
        ecn.on_ack(1, Some(counts(1, 0, 0)));
        assert_eq!(ecn.state(), EcnState::Failed);
    }

    #[test]
    fn marks_that_kill_packets_are_given_up() {
        let mut ecn = testing(10);
        for _ in 0..10 {
            ecn.on_lost();
        }
        assert_eq!(ecn.state(), EcnState::Failed);
        ecn.on_path_change();
        assert_eq!(ecn.mark(), Ecn::Ect0);
    }

    #[test]
    fn off_stays_off() {
        let mut ecn = EcnValidation::new(false);
        ecn.on_path_change();
        assert_eq!(ecn.mark(), Ecn::NotEct);
        assert!(!ecn.on_ack(5, Some(counts(5, 0, 5))));
    }
}
