//! Credit: who may send how much.
//!
//! Every grant is an absolute stream offset. What is granted and not consumed, summed over all
//! channels, stays within the connection's budget: each channel has [`MIN_CHANNEL_WINDOW`] for
//! sure, the rest of the budget is lent to those that use it. Messages larger than their channel's
//! window are put together on a budget of their own, or they could never arrive.

use super::recv::{NO_END, RecvState};
use crate::config::ConnectionConfig;
use crate::ids::ChannelKey;
use crate::limits::{MAX_CHANNELS, MAX_STREAM_OFFSET, MIN_CHANNEL_WINDOW};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Longest length in front of a message.
const MESSAGE_PREFIX: u64 = 8;
/// Most channels that one side can have opened.
const HALF: u32 = MAX_CHANNELS / 2;

/// What one connection can still promise.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes that may be granted beyond the minimum of each channel.
    pool: u64,
    /// How many of them are.
    used: u64,
    /// Channels of our own whose minimum is kept apart from `pool`.
    own_reserved: u32,
    /// Bytes handed over on channels that are gone, not consumed by the application yet.
    orphaned: u64,
    /// Orphans are no longer tolerated beyond this.
    total: u64,
    reassembly: u64,
    reassembly_used: u64,
    /// Channels that wait for reassembly budget, first come first served.
    waiters: VecDeque<ChannelKey>,
}

impl Budget {
    pub(super) fn new(config: &ConnectionConfig) -> Self {
        let reserve = u64::from(config.max_channels) * MIN_CHANNEL_WINDOW;
        Self {
            pool: config.receive_budget.saturating_sub(reserve),
            used: 0,
            own_reserved: config.max_channels.saturating_sub(HALF),
            orphaned: 0,
            total: config.receive_budget,
            // The largest message comes with the length in front of it.
            reassembly: config.reassembly_budget + MESSAGE_PREFIX,
            reassembly_used: 0,
            waiters: VecDeque::new(),
        }
    }

    /// Bytes that can be granted beyond minima.
    pub(super) const fn available(&self) -> u64 {
        self.pool.saturating_sub(self.used).saturating_sub(self.orphaned)
    }

    /// Bytes handed over on channels that are gone, and not consumed.
    pub(super) const fn orphaned(&self) -> u64 {
        self.orphaned
    }

    /// Whether the application has left so much unconsumed that no channel can be added.
    pub(super) const fn is_choked(&self) -> bool {
        self.orphaned >= self.total
    }

    /// The minimum of one more channel of our own, when `own` are open: whether it came out of the
    /// pool, or `None` when there is none left.
    pub(super) const fn take_own_minimum(&mut self, own: u32) -> Option<bool> {
        if own < self.own_reserved {
            return Some(false);
        }
        if self.available() < MIN_CHANNEL_WINDOW {
            return None;
        }
        self.used += MIN_CHANNEL_WINDOW;
        Some(true)
    }

    /// Gives back a minimum that came out of the pool.
    pub(super) const fn give_own_minimum(&mut self) {
        self.used = self.used.saturating_sub(MIN_CHANNEL_WINDOW);
    }

    /// First grant of a channel while `channels` others are open. A new channel gets a share that
    /// leaves something for those that come after it; busy ones grow out of the rest.
    pub(super) fn open(
        &mut self,
        recv: &mut RecvState,
        want: u64,
        explicit: bool,
        channels: u32,
        now: Instant,
    ) {
        let share = if explicit { self.available() } else { self.available() / share_of(channels) };
        let window = want.min(share + MIN_CHANNEL_WINDOW).min(u64::from(u32::MAX));
        let window = window.max(MIN_CHANNEL_WINDOW);
        recv.window = window as u32;
        recv.limit = recv.freed() + window;
        recv.charged = window - MIN_CHANNEL_WINDOW;
        self.used += recv.charged;
        (recv.epoch, recv.epoch_offset) = (now, recv.freed());
    }

    /// Raises the limit of a channel when enough of its window has been consumed; `true` when the
    /// peer should be told.
    #[inline]
    pub(super) fn renew(
        &mut self,
        recv: &mut RecvState,
        now: Instant,
        rtt: Duration,
        window_max: u64,
    ) -> bool {
        let freed = recv.freed();
        let open = recv.limit.saturating_sub(freed);
        if open * 4 > u64::from(recv.window) * 3 || recv.end != NO_END {
            return false;
        }
        self.tune(recv, freed, now, rtt, window_max);
        let most = MIN_CHANNEL_WINDOW + recv.charged + self.available();
        let grant = u64::from(recv.window).min(most);
        let before = recv.limit;
        let limit = (freed + grant).min(MAX_STREAM_OFFSET).max(before);
        if (limit - before) * 4 < grant {
            self.charge(recv, freed, before);
            return false;
        }
        self.charge(recv, freed, limit);
        limit > before
    }

    /// Sets the limit of a channel and charges it for that.
    fn charge(&mut self, recv: &mut RecvState, freed: u64, limit: u64) {
        let charge = limit.saturating_sub(freed).saturating_sub(MIN_CHANNEL_WINDOW);
        self.used = self.used - recv.charged + charge;
        recv.charged = charge;
        recv.limit = limit;
    }

    /// Raises the limit of a channel to `need` bytes beyond what it has freed, if its window and
    /// the budget allow that.
    pub(super) fn extend(&mut self, recv: &mut RecvState, need: u64) -> bool {
        let freed = recv.freed();
        let most = MIN_CHANNEL_WINDOW + recv.charged + self.available();
        if need > most.min(recv.window.into()) {
            return false;
        }
        let limit = (freed + need).min(MAX_STREAM_OFFSET).max(recv.limit);
        self.charge(recv, freed, limit);
        true
    }

    /// Raises the limit of a channel as far as it goes, although little has been consumed.
    pub(super) fn advance(&mut self, recv: &mut RecvState) {
        let freed = recv.freed();
        let most = MIN_CHANNEL_WINDOW + recv.charged + self.available();
        let grant = most.min(recv.window.into());
        let limit = (freed + grant).min(MAX_STREAM_OFFSET).max(recv.limit);
        self.charge(recv, freed, limit);
    }

    /// Doubles the window of a channel that consumes it within two round trips.
    fn tune(&self, recv: &mut RecvState, freed: u64, now: Instant, rtt: Duration, window_max: u64) {
        let window = u64::from(recv.window);
        let elapsed = now.since(recv.epoch);
        if freed - recv.epoch_offset < window {
            if elapsed > rtt.mul(2) {
                (recv.epoch, recv.epoch_offset) = (now, freed);
            }
            return;
        }
        if elapsed <= rtt.mul(2) && self.available() / 2 >= window {
            recv.window = (window * 2).min(window_max).max(window).min(u32::MAX.into()) as u32;
        }
        (recv.epoch, recv.epoch_offset) = (now, freed);
    }

    /// Takes back everything that was granted to a channel. What the application has not consumed
    /// yet stays charged.
    pub(super) fn close(&mut self, recv: &mut RecvState) {
        self.used = self.used.saturating_sub(core::mem::take(&mut recv.charged));
        self.orphaned += recv.unconsumed + recv.debt;
        self.release(u64::from(core::mem::take(&mut recv.reserved)) + recv.debt);
        (recv.unconsumed, recv.debt) = (0, 0);
    }

    /// The application consumed bytes of a channel that is gone.
    pub(super) const fn consume_orphans(&mut self, bytes: u64) {
        self.orphaned = self.orphaned.saturating_sub(bytes);
    }

    /// The application is gone: nothing will be consumed any more.
    pub(super) const fn forget_orphans(&mut self) {
        self.orphaned = 0;
    }

    /// Reserves the whole of a message for a channel, unless others wait before it.
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        if !self.waiters.is_empty() {
            return false;
        }
        self.reserve_now(bytes)
    }

    /// Reserves the whole of a message for the channel whose turn it is.
    pub(super) const fn reserve_now(&mut self, bytes: u64) -> bool {
        if bytes > self.reassembly.saturating_sub(self.reassembly_used) {
            return false;
        }
        self.reassembly_used += bytes;
        true
    }

    /// Gives reassembly budget back.
    pub(super) const fn release(&mut self, bytes: u64) {
        self.reassembly_used = self.reassembly_used.saturating_sub(bytes);
    }

    /// Puts a channel into the queue for reassembly budget.
    pub(super) fn wait(&mut self, key: ChannelKey) {
        self.waiters.push_back(key);
    }

    /// The channel whose turn it is.
    pub(super) fn first_waiter(&self) -> Option<ChannelKey> {
        self.waiters.front().copied()
    }

    /// Takes that channel out of the queue.
    pub(super) fn pop_waiter(&mut self) {
        self.waiters.pop_front();
    }

    /// Bytes granted beyond minima, for tests of the bound.
    #[cfg(test)]
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// Bytes of messages being put together, for tests of the bound.
    #[cfg(test)]
    pub(super) const fn reassembling(&self) -> u64 {
        self.reassembly_used
    }
}

/// The share of what is left that a new channel gets is one in this many.
const fn share_of(channels: u32) -> u64 {
    if channels == 0 { 1 } else { 2 * channels as u64 }
}
