//! Frames that came before the request or the answer they need, and what is remembered of former
//! lives of an id.
//!
//! A frame for an id that nobody has asked for yet is held raw: its packet is acknowledged, so it
//! must not be lost. When the request comes, its `since` tells which of the held frames belong to
//! it. For an id that had a life before, such frames are nearly always late copies of that life,
//! so those may be dropped when they are too many or too old; should a request come whose frames
//! were among the dropped, it is declined.

use super::table::{IdMap, IdSet};
use crate::limits::FRAME_EXTRA_LEN;
use crate::time::{Duration, Instant};
use crate::wire::frame::RawFrame;
use std::collections::VecDeque;

/// Packet number, extra bytes and length in front of each held body.
const HEADER: usize = 8 + FRAME_EXTRA_LEN + 2;
/// Held frames of a former life are kept for this long.
const KEEP: Duration = Duration::from_secs(10);
/// Room for copies of frames beyond what the credit allows.
const SLACK: u64 = 64 << 10;

/// What is held for one id. Each item knows the number of its packet.
#[derive(Debug, Default)]
pub(super) struct Held {
    frames: Vec<u8>,
    /// Code and final offset.
    pub reset: Option<(u64, u32, u64)>,
    /// Code.
    pub stop: Option<(u64, u32)>,
    /// Limit.
    pub credit: Option<(u64, u64)>,
    /// Newest packet whose frame did not fit.
    pub overflow: Option<u64>,
    /// The EOF of a datagram channel is among the frames.
    pub has_eof: bool,
    newest: u64,
    evictable: bool,
}

impl Held {
    /// What it counts for: what its frames cost of the early-data credit. The record of an id is
    /// not counted, for the sender does not either; there are at most as many as ids.
    const fn cost(&self) -> u64 {
        self.frames.len() as u64
    }

    fn push(&mut self, pn: u64, frame: &RawFrame<'_>) {
        self.newest = self.newest.max(pn);
        self.frames.extend_from_slice(&pn.to_le_bytes());
        self.frames.extend_from_slice(&frame.extra);
        self.frames.extend_from_slice(&(frame.body.len() as u16).to_le_bytes());
        self.frames.extend_from_slice(frame.body);
    }

    /// The held frames with their packet numbers, as they came.
    pub(super) fn frames(&self, channel: u16) -> impl Iterator<Item = (u64, RawFrame<'_>)> {
        let mut rest = self.frames.as_slice();
        core::iter::from_fn(move || {
            let (pn, after) = rest.split_first_chunk::<8>()?;
            let (extra, after) = after.split_first_chunk::<FRAME_EXTRA_LEN>()?;
            let (len, after) = after.split_first_chunk::<2>()?;
            let (body, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            rest = after;
            Some((u64::from_le_bytes(*pn), RawFrame { channel, extra: *extra, body }))
        })
    }
}

/// All held frames of a connection, and what is remembered of ids.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Most connections never hold any.
    waiting: Option<Box<Waiting>>,
    /// Ids of the peer's half that had a life.
    former: IdSet,
    /// Ids whose last life may still have frames of ours under way.
    dirty: IdSet,
}

/// Held frames, and what became of those that were.
#[derive(Debug, Default)]
struct Waiting {
    held: IdMap<Held>,
    /// Cost of what is held for ids that never had a life.
    unknown: u64,
    /// Cost of what is held for ids that had one.
    garbage: u64,
    /// Cost of what is held for channels that wait for something.
    known: u64,
    /// Those ids with the time of their first held frame.
    order: VecDeque<(Instant, u16)>,
    /// Ids for which something was dropped, and the newest packet of which it was.
    evicted: IdMap<u64>,
}

/// The peer sent more before its request than it was allowed to.
#[derive(Debug)]
pub(super) struct TooMuch;

impl Early {
    /// Holds a frame of an id of the peer that nobody has asked for, or that may belong to the next
    /// life (`former`).
    pub(super) fn hold_unknown(
        &mut self,
        now: Instant,
        id: u16,
        pn: u64,
        budget: u64,
        former: bool,
        add: impl FnOnce(&mut Held),
    ) -> Result<(), TooMuch> {
        let evictable = former || self.former.contains(id);
        let waiting = self.waiting.get_or_insert_default();
        let held = waiting.held.entry(id).or_insert_with(|| {
            if evictable {
                waiting.order.push_back((now, id));
            }
            Held { evictable, ..Held::default() }
        });
        let before = held.cost();
        held.newest = held.newest.max(pn);
        add(held);
        let added = held.cost() - before;
        if held.evictable {
            waiting.garbage += added;
            waiting.evict(now, 2 * budget + SLACK);
            return Ok(());
        }
        waiting.unknown += added;
        if waiting.unknown > 2 * budget + SLACK { Err(TooMuch) } else { Ok(()) }
    }

    /// Holds a frame of a channel that waits for something, up to `limit` bytes, and up to `total`
    /// bytes of all such channels; `false` when it did not fit.
    pub(super) fn hold_known(
        &mut self,
        id: u16,
        pn: u64,
        (limit, total): (u64, u64),
        frame: &RawFrame<'_>,
    ) -> bool {
        let waiting = self.waiting.get_or_insert_default();
        let held = waiting.held.entry(id).or_default();
        let cost = (HEADER + frame.body.len()) as u64;
        if held.cost() + cost > limit + SLACK || waiting.known + cost > total {
            held.overflow = Some(held.overflow.unwrap_or(0).max(pn));
            return false;
        }
        waiting.known += cost;
        held.push(pn, frame);
        true
    }

    /// What is held for a channel that waits for something; empty when nothing is.
    pub(super) fn known(&mut self, id: u16) -> &mut Held {
        self.waiting.get_or_insert_default().held.entry(id).or_default()
    }

    /// Takes what is held for an id.
    pub(super) fn take(&mut self, id: u16, was_known: bool) -> Option<Held> {
        let waiting = self.waiting.as_mut()?;
        let held = waiting.take(id, was_known);
        self.tidy();
        held
    }

    /// Gives memory back when nothing waits any more.
    fn tidy(&mut self) {
        if self.waiting.as_ref().is_some_and(|w| w.held.is_empty() && w.evicted.is_empty()) {
            self.waiting = None;
        }
    }

    /// Appends a frame to what is held.
    pub(super) fn add_frame(held: &mut Held, pn: u64, frame: &RawFrame<'_>) {
        held.push(pn, frame);
    }

    /// When [`Self::on_timeout`] has work.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let (since, _) = self.waiting.as_ref()?.order.front()?;
        Some(*since + KEEP)
    }

    /// Drops what is too old.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        if let Some(waiting) = &mut self.waiting {
            waiting.evict(now, u64::MAX);
            self.tidy();
        }
    }

    /// A request came for `id`: whether frames of its new life may have been dropped.
    pub(super) fn lost_frames(&mut self, id: u16, since: u64) -> bool {
        let newest = self.waiting.as_mut().and_then(|waiting| waiting.evicted.remove(&id));
        newest.is_some_and(|newest| since <= newest)
    }

    /// A life of an id is over.
    pub(super) fn end_of_life(&mut self, id: u16, of_peer: bool, dirty: bool) {
        if of_peer {
            self.former.insert(id);
        }
        if dirty {
            self.dirty.insert(id);
        } else {
            self.dirty.remove(id);
        }
    }

    /// Whether frames of ours of the last life of `id` may still be under way.
    pub(super) fn is_dirty(&self, id: u16) -> bool {
        self.dirty.contains(id)
    }

    /// Bytes held for ids that nobody asked for, for tests of the bound.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> u64 {
        self.waiting.as_ref().map_or(0, |waiting| waiting.unknown + waiting.garbage)
    }
}

impl Waiting {
    fn take(&mut self, id: u16, was_known: bool) -> Option<Held> {
        let held = self.held.remove(&id)?;
        let cost = held.cost();
        if was_known {
            self.known = self.known.saturating_sub(cost);
        } else if held.evictable {
            self.garbage = self.garbage.saturating_sub(cost);
        } else {
            self.unknown = self.unknown.saturating_sub(cost);
        }
        if self.held.is_empty() {
            self.held = IdMap::default();
            self.order = VecDeque::new();
        }
        Some(held)
    }

    /// Drops frames of former lives that are too old, or too many.
    fn evict(&mut self, now: Instant, budget: u64) {
        while let Some((since, id)) = self.order.front().copied() {
            if self.garbage <= budget && now < since + KEEP {
                break;
            }
            self.order.pop_front();
            if self.held.get(&id).is_some_and(|held| held.evictable)
                && let Some(held) = self.take(id, false)
            {
                let newest = self.evicted.entry(id).or_default();
                *newest = held.newest.max(*newest);
            }
        }
    }
}
