//! How many receive buffers the kernel gets at a time.
//!
//! It takes them in the order in which it got them, whatever the order in which they come back. So
//! all that it has go round, and with many large ones each is out of the processor's caches when
//! its turn comes. As few as the traffic needs go round instead.

/// Fewest buffers that the kernel has.
const FEWEST: usize = 8;
/// After so many polls in a row that used a quarter at most, there are half as many.
const CALM: u32 = 256;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Demand {
    wanted: usize,
    most: usize,
    calm: u32,
}

impl Demand {
    /// At most `most` buffers.
    pub(super) fn new(most: usize) -> Self {
        Self { wanted: FEWEST.min(most), most, calm: 0 }
    }

    /// How many the kernel should have.
    pub(super) const fn wanted(&self) -> usize {
        self.wanted
    }

    /// The kernel had no buffer left; whether it had as many as it may.
    pub(super) fn ran_out(&mut self) -> bool {
        let at_most = self.wanted == self.most;
        self.wanted = (2 * self.wanted).min(self.most);
        self.calm = 0;
        at_most
    }

    /// A poll brought so many.
    pub(super) fn used(&mut self, buffers: usize) {
        if buffers == 0 || self.wanted <= FEWEST {
            return;
        }
        self.calm = if 4 * buffers <= self.wanted { self.calm + 1 } else { 0 };
        if self.calm == CALM {
            self.wanted = (self.wanted / 2).max(FEWEST);
            self.calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_traffic() {
        let mut demand = Demand::new(64);
        assert_eq!(demand.wanted(), 8);
        assert!(!demand.ran_out() && !demand.ran_out() && !demand.ran_out());
        assert_eq!(demand.wanted(), 64);
        assert!(demand.ran_out(), "it has all that there are");
        for _ in 0..1000 {
            demand.used(17);
            demand.used(0);
        }
        assert_eq!(demand.wanted(), 64);
        for _ in 0..2 * CALM {
            demand.used(1);
        }
        assert_eq!(demand.wanted(), 16);
        for _ in 0..9 * CALM {
            demand.used(1);
        }
        assert_eq!(demand.wanted(), 8);
        assert_eq!(Demand::new(4).wanted(), 4);
    }
}
