//! Packet numbers that are left out on purpose: a peer that acknowledges one acknowledges what it
//! has not received (optimistic acknowledgement, RFC 9000 §21.4).

use core::hash::Hasher;
use siphasher::sip::SipHasher24;

/// Skipped numbers that are remembered.
const REMEMBERED: usize = 8;
/// The first number is skipped among the first 64, then ever more rarely.
const FIRST_EXPONENT: u8 = 6;
/// Rarest: one in 32,768 to 65,536 numbers.
const LAST_EXPONENT: u8 = 15;

/// Chooses and remembers skipped packet numbers.
#[derive(Clone, Debug)]
pub(super) struct SkippedNumbers {
    seed: u64,
    next: u64,
    exponent: u8,
    slot: u8,
    numbers: [u64; REMEMBERED],
}

impl SkippedNumbers {
    /// `seed` must be unpredictable for the peer.
    pub(super) fn new(seed: u64) -> Self {
        let mut skipped = Self {
            seed,
            next: 0,
            exponent: FIRST_EXPONENT,
            slot: 0,
            numbers: [u64::MAX; REMEMBERED],
        };
        skipped.next = 1 + skipped.random() % (1 << FIRST_EXPONENT);
        skipped
    }

    /// Whether `pn` must be skipped.
    pub(super) const fn is_next(&self, pn: u64) -> bool {
        pn == self.next
    }

    /// The number of [`Self::is_next`] was skipped: remembers it and chooses another.
    pub(super) fn advance(&mut self) {
        self.numbers[usize::from(self.slot) % REMEMBERED] = self.next;
        self.slot = self.slot.wrapping_add(1);
        let span = 1u64 << self.exponent;
        self.exponent = (self.exponent + 1).min(LAST_EXPONENT);
        self.next += span + self.random() % span;
    }

    /// Whether `lo..=hi` holds a skipped number that is remembered.
    pub(super) fn any_in(&self, lo: u64, hi: u64) -> bool {
        self.numbers.iter().any(|&n| lo <= n && n <= hi)
    }

    /// The lowest number that is remembered.
    pub(super) fn lowest(&self) -> u64 {
        self.numbers.iter().copied().min().unwrap_or(u64::MAX)
    }

    /// A keyed function of the last choice, so that seeing old gaps does not tell the next one.
    fn random(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.seed, !self.seed.rotate_left(32));
        hasher.write_u64(self.next);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_grow_and_the_newest_are_remembered() {
        let mut skipped = SkippedNumbers::new(7);
        let mut all = Vec::new();
        for pn in 0..1_000_000 {
            if skipped.is_next(pn) {
                skipped.advance();
                all.push(pn);
            }
        }
        assert!(all[0] <= 64);
        assert!((20..50).contains(&all.len()), "{}", all.len());
        for &pn in &all[all.len() - REMEMBERED..] {
            assert!(
                skipped.any_in(pn, pn) && skipped.any_in(0, pn) && !skipped.any_in(pn + 1, pn + 9)
            );
        }
        assert_eq!(skipped.lowest(), all[all.len() - REMEMBERED]);
    }
}
