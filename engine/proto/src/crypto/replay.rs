//! Which packet numbers were taken already: a window behind the newest one.
//!
//! Asked before a packet is opened (cheap rejection of duplicates) and told only after its tag was
//! verified, so that a forged packet cannot move it (RFC 9000 §12.3, RFC 9001 §9.5).

use crate::limits::REPLAY_WINDOW;

/// One word more than the window, so that the newest word never overwrites a number still in it.
const WORDS: usize = (REPLAY_WINDOW / 64) as usize + 1;

/// Remembers the [`REPLAY_WINDOW`] packet numbers behind the newest one.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// Newest packet number plus one; 0 = none yet.
    next: u64,
    bits: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayWindow {
    /// Nothing received yet.
    pub const fn new() -> Self {
        Self { next: 0, bits: [0; WORDS] }
    }

    /// Whether `pn` is new. A number more than [`REPLAY_WINDOW`] behind the newest one is not: it
    /// can no longer be told from a duplicate. 2^64 − 1 is not a packet number.
    pub const fn check(&self, pn: u64) -> bool {
        if pn >= self.next {
            return pn < u64::MAX;
        }
        self.next - 1 - pn < REPLAY_WINDOW && self.bits[Self::word(pn)] >> (pn % 64) & 1 == 0
    }

    /// Marks `pn` as taken; `false` when it was not new (see [`Self::check`]), and nothing changes.
    pub fn insert(&mut self, pn: u64) -> bool {
        if !self.check(pn) {
            return false;
        }
        if pn >= self.next {
            // `next / 64` is the first word not begun, unless the newest number is inside it.
            let begun = self.next.div_ceil(64);
            let last = pn / 64;
            if last >= begun {
                for word in begun.max(last.saturating_sub(WORDS as u64 - 1))..=last {
                    self.bits[(word % WORDS as u64) as usize] = 0;
                }
            }
            self.next = pn + 1;
        }
        self.bits[Self::word(pn)] |= 1 << (pn % 64);
        true
    }

    /// The newest packet number.
    pub const fn newest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    const fn word(pn: u64) -> usize {
        (pn / 64 % WORDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn edges() {
        let mut w = ReplayWindow::new();
        assert_eq!(w.newest(), None);
        assert!(w.insert(0));
        assert!(!w.insert(0));
        assert!(w.insert(5000));
        assert!(!w.check(5000 - REPLAY_WINDOW));
        assert!(w.check(5000 - REPLAY_WINDOW + 1));
        assert!(w.insert(5000 - REPLAY_WINDOW + 1));
        assert!(!w.insert(5000 - REPLAY_WINDOW + 1));
        assert!(w.insert(u64::MAX - 1));
        assert!(!w.check(5000));
        assert_eq!(w.newest(), Some(u64::MAX - 1));
        assert!(!w.insert(u64::MAX));
    }

    #[test]
    fn small() {
        assert!(size_of::<ReplayWindow>() <= 144);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((0u64..2200, 0u8..8), 1..600)) {
            let mut window = ReplayWindow::new();
            let mut taken = HashSet::new();
            let mut newest: Option<u64> = None;
            let mut base = 0u64;
            for (step, jump) in steps {
                let pn = match jump {
                    0 => base.saturating_sub(step),
                    1 => { base += step; base }
                    2 => { base += 64; base }
                    _ => { base += 1; base - step.min(base).min(40) }
                };
                let in_window = newest.is_none_or(|n| pn > n || n - pn < REPLAY_WINDOW);
                let new = in_window && !taken.contains(&pn);
                prop_assert_eq!(window.check(pn), new, "{}", pn);
                prop_assert_eq!(window.insert(pn), new);
                taken.insert(pn);
                newest = Some(newest.map_or(pn, |n| n.max(pn)));
                prop_assert_eq!(window.newest(), newest);
            }
        }
    }
}
