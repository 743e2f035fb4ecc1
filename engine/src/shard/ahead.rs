//! Fetching connections into the processor's caches before their turn.
//!
//! With many connections each is found in memory, not in a cache, when its packet comes: dozens of
//! lines, each waited for. A batch says beforehand which ones come; so while one is worked on, a
//! packet a few places on is read, its connection fetched, and a little later what that points to.
//! With 10,000 connections a message costs a fifth less.

use crate::io::{Driver, RxItem};
use crate::sys::prefetch;
use std::collections::VecDeque;
use trunkline_proto::endpoint::Endpoint;

/// With fewer connections all stay in the caches by themselves.
const MANY: usize = 32;
/// Items between a connection's own memory and what it points to, and between that and its turn.
const STEP: usize = 2;

/// What of a batch was looked at.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Connections of the next items, `None` for those that name none.
    slots: VecDeque<Option<u32>>,
    /// The next item to look at.
    next: usize,
    /// The connection that the application last sent on.
    called: u32,
}

impl Ahead {
    /// Before item `at` of `items` is worked on.
    pub(crate) fn before_item<D: Driver>(
        &mut self,
        at: usize,
        items: &[RxItem],
        driver: &mut D,
        endpoint: &Endpoint,
    ) {
        if endpoint.slots() < MANY {
            return;
        }
        if at == 0 {
            self.slots.clear();
            self.next = 0;
        }
        let until = (at + 2 * STEP + 1).min(items.len());
        while self.next < until {
            let (bytes, _) = driver.received(&items[self.next]);
            let slot = endpoint.slot_ahead(bytes);
            if let Some(slot) = slot {
                prefetch(endpoint.place(slot));
            }
            self.slots.push_back(slot);
            self.next += 1;
        }
        // The front is the item whose turn it is.
        let first = if at == 0 { 0 } else { STEP };
        for slot in self.slots.iter().take(STEP + 1).skip(first).copied().flatten() {
            fetch_parts(endpoint, slot);
        }
        self.slots.pop_front();
    }

    /// Before the application sends on a connection: all of its lines at once, instead of one after
    /// the other.
    #[inline]
    pub(crate) fn before_send(&mut self, endpoint: &Endpoint, slot: u32) {
        if self.called != slot && endpoint.slots() >= MANY {
            self.called = slot;
            prefetch(endpoint.place(slot));
            fetch_parts(endpoint, slot);
        }
    }
}

/// Before the next train is written.
pub(crate) fn before_transmit(endpoint: &Endpoint) {
    if endpoint.slots() < MANY {
        return;
    }
    if let Some(slot) = endpoint.ready_ahead(2 * STEP) {
        prefetch(endpoint.place(slot));
    }
    if let Some(slot) = endpoint.ready_ahead(STEP) {
        fetch_parts(endpoint, slot);
    }
}

fn fetch_parts(endpoint: &Endpoint, slot: u32) {
    endpoint.parts(slot).into_iter().for_each(prefetch);
}
