//! Who sends next: strict priority between eight classes, lost data first inside a class, then
//! deficit round robin by weight.
//!
//! Queues hold the slots of channels that have something to send; an entry whose channel no longer
//! carries the flag of its queue is stale and dropped when it comes up.

use crate::lean::reserve_first;
use crate::limits::PRIORITIES;
use crate::time::Instant;
use std::collections::VecDeque;

/// Queues of one priority class.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// Channels with something to send again.
    pub lost: VecDeque<u32>,
    /// Channels with something new.
    pub fresh: VecDeque<u32>,
}

/// All queues of one connection.
#[derive(Debug, Default)]
pub(super) struct Sched {
    /// Those that were needed since the connection was last idle, in order.
    classes: Vec<Class>,
    /// Bit n: class n is among them.
    present: u8,
    /// Bit n: class n has an entry.
    ready: u8,
    /// Channels with a CREDIT, RESET or STOP to send.
    pub transport: VecDeque<u32>,
    /// Channels whose small writes wait for more.
    pub held: Vec<u32>,
    /// Bytes that they have together.
    pub held_bytes: u64,
    /// When they stop waiting.
    pub held_until: Option<Instant>,
    /// Channels that wait for early-data credit, first come first served.
    pub early: VecDeque<u32>,
}

impl Sched {
    /// Whether a class has an entry.
    #[inline]
    pub(super) const fn is_ready(&self) -> bool {
        self.ready != 0
    }

    /// Appends a channel with new data.
    #[inline]
    pub(super) fn push_fresh(&mut self, class: u8, slot: u32) {
        self.mark(class).fresh.push_back(slot);
    }

    /// The queues of a class that is about to have an entry.
    #[inline]
    fn mark(&mut self, class: u8) -> &mut Class {
        let class = class as usize % PRIORITIES;
        let at = self.place(class);
        if self.present & 1 << class == 0 {
            self.present |= 1 << class;
            reserve_first(&mut self.classes);
            self.classes.insert(at, Class::default());
        }
        self.ready |= 1 << class;
        &mut self.classes[at]
    }

    /// Where the queues of a class stand, or belong.
    #[inline]
    const fn place(&self, class: usize) -> usize {
        (self.present & ((1 << class) - 1)).count_ones() as usize
    }

    /// Appends a channel with lost data.
    pub(super) fn push_lost(&mut self, class: u8, slot: u32) {
        self.mark(class).lost.push_back(slot);
    }

    /// The first class at or behind `from` that has an entry.
    #[inline]
    pub(super) fn next_class(&self, from: usize) -> Option<usize> {
        let rest = (u32::from(self.ready) >> from) << from;
        (rest != 0).then(|| rest.trailing_zeros() as usize)
    }

    /// The queues of a class that has an entry.
    #[inline]
    pub(super) fn class(&mut self, class: usize) -> &mut Class {
        let at = self.place(class);
        &mut self.classes[at]
    }

    /// Call after entries of a class were taken.
    #[inline]
    pub(super) fn settle(&mut self, class: usize) {
        let queues = &self.classes[self.place(class)];
        if queues.lost.is_empty() && queues.fresh.is_empty() {
            self.ready &= !(1 << class);
        }
    }

    /// Memory that idle queues hold is given back.
    pub(super) fn shrink(&mut self) {
        if self.ready == 0 {
            self.classes = Vec::new();
            self.present = 0;
        }
        self.transport.shrink_to_fit();
        self.held.shrink_to_fit();
        self.early.shrink_to_fit();
    }
}
