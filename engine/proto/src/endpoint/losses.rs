//! What was lost and sent again, added up over all connections, those that are gone included.
//!
//! Nothing is added where it happens: whoever wants the sums looks at the connections now and then,
//! and what one has done since the last look is added when it is gone.

use super::Endpoint;

/// Sums over connections. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Reliable frames sent again.
    pub retransmits: u64,
    /// Unreliable messages dropped before sending.
    pub datagrams_dropped: u64,
}

impl Losses {
    pub(super) const fn add_since(&mut self, before: Self, now: Self) {
        self.packets_lost += now.packets_lost.saturating_sub(before.packets_lost);
        self.retransmits += now.retransmits.saturating_sub(before.retransmits);
        self.datagrams_dropped += now.datagrams_dropped.saturating_sub(before.datagrams_dropped);
    }
}

/// The sums, and what is in them of each live connection.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sum: Losses,
    /// By slot. Empty as long as nobody looks.
    counted: Vec<Losses>,
}

impl Tally {
    /// The connection in `slot` is gone, and this is all that it did.
    pub(super) fn close(&mut self, slot: u32, last: Losses) {
        let counted = self.counted.get_mut(slot as usize).map(core::mem::take);
        self.sum.add_since(counted.unwrap_or_default(), last);
    }

    fn look(&mut self, slot: usize, slots: usize, now: Losses) {
        if self.counted.len() < slots {
            self.counted.resize(slots.next_power_of_two(), Losses::default());
        }
        self.sum.add_since(core::mem::replace(&mut self.counted[slot], now), now);
    }
}

impl Endpoint {
    /// Adds what the connection in a slot, whatever its status, has done since the last look at it.
    pub fn count_losses(&mut self, slot: usize) {
        let Some(conn) = self.slots.get(slot).and_then(|s| s.conn.as_ref()) else { return };
        self.tally.look(slot, self.slots.len(), conn.losses());
    }

    /// The sums over all connections: those that are gone, and the others as of the last
    /// [`Self::count_losses`].
    pub const fn losses(&self) -> Losses {
        self.tally.sum
    }
}
