//! What any thread must know of a connection or channel to use it: cells that live at fixed
//! places, found by index and checked by generation.
//!
//! Tables only grow, in segments that double, so that a reader needs no lock; cells are used
//! again. A cell's life number is odd while it is in use, and part of every handle to it.

use crate::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use crate::sync::{OnceLock, SegQueue, bound};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::ApiError;
use trunkline_proto::limits;
use trunkline_proto::status::Status;

/// Cells of the first segment.
const FIRST: u32 = bound(64, 2) as u32;
/// Segments: 64 · (2^19 − 1) cells cover the 24 bits of an index.
const SEGMENTS: usize = bound(19, 1);
/// Most cells of one table.
const MAX_CELLS: u32 = bound(1 << 24, 2) as u32;

/// A cell that can be used again.
pub(super) trait Cell: Default {
    /// Counts the lives of the cell; odd while in use.
    fn life(&self) -> &AtomicU32;
}

/// A growing table of cells.
pub(super) struct Table<T> {
    segments: [OnceLock<Box<[T]>>; SEGMENTS],
    fresh: AtomicU32,
    free: SegQueue<u32>,
    limit: u32,
}

const fn place(index: u32) -> (usize, usize) {
    let segment = (index / FIRST + 1).ilog2();
    (segment as usize, (index - FIRST * ((1 << segment) - 1)) as usize)
}

impl<T: Cell> Table<T> {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            segments: std::array::from_fn(|_| OnceLock::new()),
            fresh: AtomicU32::new(0),
            free: SegQueue::new(),
            limit: limit.min(MAX_CELLS),
        }
    }

    /// Takes a cell into use; its index and life. `None` when all are in use.
    pub(super) fn take(&self) -> Option<(u32, u32)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self
                .fresh
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    (n < self.limit).then_some(n + 1)
                })
                .ok()?,
        };
        let (segment, offset) = place(index);
        let cells = self.segments[segment]
            .get_or_init(|| (0..FIRST << segment).map(|_| T::default()).collect());
        let life = cells[offset].life().fetch_add(1, Ordering::Release).wrapping_add(1);
        Some((index, life))
    }

    /// Ends the life of a cell; every handle to it is stale from now on.
    pub(super) fn give_back(&self, index: u32, life: u32) {
        let Some(cell) = self.get(index) else { return };
        let ended = cell.life().compare_exchange(
            life,
            life.wrapping_add(1),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if ended.is_ok() {
            self.free.push(index);
        }
    }

    /// A cell, whatever its life.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (segment, offset) = place(index);
        self.segments.get(segment)?.get()?.get(offset)
    }

    /// The cell that a handle names, unless the handle is stale.
    #[inline]
    pub(super) fn check(&self, index: u32, life: u32) -> Option<&T> {
        let cell = self.get(index)?;
        (life % 2 == 1 && cell.life().load(Ordering::Acquire) == life).then_some(cell)
    }
}

/// Bytes that the application has taken in one life of a cell, and that the shard has not fetched.
///
/// The number says whose bytes they are: a thread that has looked at a cell and goes on when another
/// life has begun there adds nothing to it.
#[derive(Debug, Default)]
pub(super) struct Released(AtomicU64);

impl Released {
    /// Bits of the number of bytes; above them is the life, as much as there is room for.
    const BITS: u32 = 40;
    const MAX: u64 = (1 << Self::BITS) - 1;

    /// Never 0 for a life: those are odd.
    const fn name(life: u32) -> u64 {
        (life as u64) << Self::BITS
    }

    fn begin(&self, life: u32) {
        // No store: to models, stores and updates have no one order.
        self.0.swap(Self::name(life), Ordering::Relaxed);
    }

    /// Adds bytes; how many there are then. `None` when this life has ended.
    pub(super) fn add(&self, life: u32, bytes: u64) -> Option<u64> {
        if life.is_multiple_of(2) {
            return None;
        }
        let name = Self::name(life);
        let sum = |all: u64| {
            (all & !Self::MAX == name)
                .then(|| (all & Self::MAX).saturating_add(bytes).min(Self::MAX))
        };
        let before = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |all| sum(all).map(|sum| name | sum));
        before.ok().and_then(sum)
    }

    /// How many there are.
    pub(super) fn sum(&self) -> u64 {
        self.0.load(Ordering::SeqCst) & Self::MAX
    }

    /// Takes them out.
    pub(super) fn take(&self) -> u64 {
        self.0.fetch_and(!Self::MAX, Ordering::SeqCst) & Self::MAX
    }

    /// Takes them out, and ends the life.
    pub(super) fn end(&self, life: u32) -> u64 {
        let ended = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |all| {
            (all & !Self::MAX == Self::name(life)).then_some(0)
        });
        ended.map_or(0, |all| all & Self::MAX)
    }
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct ConnCell {
    life: AtomicU32,
    status: AtomicI32,
    /// The life in which the application has not closed it.
    open: AtomicU32,
    /// Index of the poll group in which it shows.
    pub group: AtomicU32,
    /// Of ended channels.
    pub released: Released,
    /// The longest reliable message, as far as is known.
    pub max_message: AtomicU32,
    /// The application's own number.
    pub user: AtomicU64,
}

impl Cell for ConnCell {
    fn life(&self) -> &AtomicU32 {
        &self.life
    }
}

impl ConnCell {
    /// Begins a life.
    pub(super) fn begin(&self, status: Status, group: u32) {
        self.set_status(status);
        self.group.store(group, Ordering::Relaxed);
        let life = self.life.load(Ordering::Relaxed);
        self.released.begin(life);
        self.max_message.store(limits::MAX_MESSAGE as u32, Ordering::Relaxed);
        self.user.store(0, Ordering::Relaxed);
        // No store, as in `Released::begin`.
        self.open.swap(life, Ordering::AcqRel);
    }

    pub(super) fn set_status(&self, status: Status) {
        self.status.store(status as i32, Ordering::Release);
    }

    /// The status; `None` once the application has closed it.
    pub(super) fn status(&self) -> Status {
        if self.open.load(Ordering::Acquire) == 0 {
            return Status::None;
        }
        let value = self.status.load(Ordering::Acquire);
        Status::ALL.into_iter().find(|s| *s as i32 == value).unwrap_or(Status::None)
    }

    pub(super) fn is_open(&self, life: u32) -> bool {
        self.open.load(Ordering::Acquire) == life
    }

    /// The application closes it, unless it did so before. It stays open if that cannot be handed
    /// over.
    pub(super) fn close(
        &self,
        life: u32,
        hand_over: impl FnOnce() -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let change =
            |from, to| self.open.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        change(life, 0).map_err(|_| ApiError::InvalidHandle)?;
        hand_over().inspect_err(|_| {
            let _ = change(0, life);
        })
    }
}

/// A send gave `WouldBlock`; a writable event is owed.
pub(super) const BLOCKED: u32 = 1;
/// The shard has been told that there is credit to return.
pub(super) const CREDIT_TOLD: u32 = 2;
/// A `datagrams` channel.
pub(super) const LOSSY: u32 = 4;
/// A `messages` channel.
pub(super) const MESSAGES: u32 = 8;
/// The channel is in the list of blocked ones.
pub(super) const LISTED: u32 = 16;

/// The flags of a channel's cell.
pub(super) const fn kind_flags(kind: ChannelKind) -> u32 {
    match kind {
        ChannelKind::Bytes => 0,
        ChannelKind::Messages => MESSAGES,
        ChannelKind::Datagrams => LOSSY,
    }
}

/// A channel. It has a cache line of its own: each message writes to it, and its neighbours may be
/// used by other threads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct ChannelCell {
    life: AtomicU32,
    pub flags: AtomicU32,
    /// Its connection, as bits.
    pub conn: AtomicU64,
    /// Bytes that were sent and have not reached the connection.
    pub queued: AtomicU64,
    pub released: Released,
    /// Bytes from which on the connection has to be told.
    pub credit_step: AtomicU64,
    /// The application's own number.
    pub user: AtomicU64,
}

impl Cell for ChannelCell {
    fn life(&self) -> &AtomicU32 {
        &self.life
    }
}

impl ChannelCell {
    /// Begins a life. Bytes of a former life that are still on their way stay in `queued`: whoever
    /// drops them takes them out.
    pub(super) fn begin(&self, conn: u64, flags: u32) {
        self.conn.store(conn, Ordering::Relaxed);
        self.released.begin(self.life.load(Ordering::Relaxed));
        self.credit_step.store(1, Ordering::Relaxed);
        self.user.store(0, Ordering::Relaxed);
        self.flags.store(flags, Ordering::Release);
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags.load(Ordering::SeqCst) & flag != 0
    }

    /// Sets a flag; whether it was clear.
    pub(super) fn raise(&self, flag: u32) -> bool {
        self.flags.fetch_or(flag, Ordering::SeqCst) & flag == 0
    }

    /// Bytes are no longer queued; whether the channel is blocked.
    #[inline]
    pub(super) fn unqueue(&self, bytes: u64) -> bool {
        self.queued.fetch_sub(bytes, Ordering::SeqCst);
        self.has(BLOCKED)
    }

    /// Clears a flag; whether it was set.
    pub(super) fn lower(&self, flag: u32) -> bool {
        self.flags.fetch_and(!flag, Ordering::SeqCst) & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn every_index_has_its_place() {
        let mut expected = (0usize, 0usize);
        for index in 0..100_000u32 {
            assert_eq!(place(index), expected, "{index}");
            expected.1 += 1;
            if expected.1 == (FIRST as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        let (segment, offset) = place(MAX_CELLS - 1);
        assert!(segment < SEGMENTS && offset < (FIRST as usize) << segment);
    }

    #[test]
    fn stale_handles_name_nothing() {
        let table: Table<ConnCell> = Table::new(10);
        let (index, life) = table.take().unwrap();
        assert!(table.check(index, life).is_some());
        assert!(table.check(index, life + 1).is_none());
        assert!(table.check(index + 1, life).is_none(), "never used");
        assert!(table.check(1 << 23, 1).is_none());
        assert!(table.check(u32::MAX, 1).is_none());
        table.give_back(index, life);
        assert!(table.check(index, life).is_none());
        assert!(table.check(index, life + 1).is_none(), "not in use");
        table.give_back(index, life);
        let (again, next) = table.take().unwrap();
        assert_eq!((again, next), (index, life + 2));
        assert!(table.check(index, life).is_none());
        // Given back once, it is there once.
        assert_ne!(table.take().unwrap().0, index);
    }

    #[test]
    fn the_limit_holds() {
        let table: Table<ChannelCell> = Table::new(3);
        let taken: Vec<_> = std::iter::from_fn(|| table.take()).collect();
        assert_eq!(taken.len(), 3);
        table.give_back(taken[1].0, taken[1].1);
        assert_eq!(table.take().unwrap().0, taken[1].0);
        assert!(table.take().is_none());
    }

    #[test]
    fn threads_never_share_a_cell() {
        let table: Arc<Table<ConnCell>> = Arc::new(Table::new(100_000));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let table = table.clone();
                std::thread::spawn(move || {
                    (0..2000)
                        .map(|i| {
                            let (index, life) = table.take().unwrap();
                            if i % 3 == 0 {
                                table.give_back(index, life);
                                None
                            } else {
                                Some(index)
                            }
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut seen = HashSet::new();
        for thread in threads {
            for index in thread.join().unwrap().into_iter().flatten() {
                assert!(seen.insert(index), "{index} taken twice");
            }
        }
    }

    #[test]
    fn a_cell_is_small() {
        assert!(size_of::<ChannelCell>() == 64);
        assert!(size_of::<ConnCell>() <= 40);
    }
}
