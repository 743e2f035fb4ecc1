//! Receive buffers and leases on parts of them.
//!
//! A buffer is *free* (in the pool), *out* (with the kernel, or being filled) or *held* (a received
//! item and any number of leases hold it). A lease is dropped on any thread; the last holder puts
//! the buffer into a lock-free queue that the pool empties.

use super::region::Region;
use super::watch::Watched;
use crate::sync::ArrayQueue;
use crate::sync::atomic::{AtomicU32, Ordering, fence};
use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// Who holds a buffer: 1 for the item and 1 for each lease.
#[derive(Default)]
struct Holders {
    count: AtomicU32,
    bytes: Watched,
}

/// What the pool and its leases share.
struct Shared {
    region: Region,
    stride: usize,
    /// Of each buffer.
    holders: Box<[Holders]>,
    /// Buffers whose last holder was a lease.
    returned: ArrayQueue<u32>,
}

impl Shared {
    fn buffer(&self, index: u32) -> NonNull<u8> {
        self.region.range(index as usize * self.stride, self.stride)
    }
}

/// Receive buffers of one driver.
pub struct RxPool {
    shared: Arc<Shared>,
    /// Last in, first out: the buffer used last is the one in the processor's caches.
    free: Vec<u32>,
    /// Whether a buffer was leased since it was received.
    leased: Box<[Cell<bool>]>,
    leased_count: Cell<usize>,
    leases: Cell<u64>,
    refused: Cell<u64>,
    reserve: usize,
}

/// Bytes between two buffers are a multiple of this.
const BUFFER_ALIGN: usize = 4096;

impl RxPool {
    /// `count` buffers of at least `bytes` bytes. Leases leave `reserve` of them alone.
    ///
    /// # Errors
    /// The system's, when it has no memory.
    pub fn new(count: usize, bytes: usize, reserve: usize) -> io::Result<Self> {
        let stride = bytes.next_multiple_of(BUFFER_ALIGN);
        let total = stride.checked_mul(count).ok_or(io::ErrorKind::OutOfMemory)?;
        let indices = u32::try_from(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let shared = Shared {
            region: Region::new(total)?,
            stride,
            holders: (0..count).map(|_| Holders::default()).collect(),
            returned: ArrayQueue::new(count.max(1)),
        };
        Ok(Self {
            shared: Arc::new(shared),
            free: (0..indices).rev().collect(),
            leased: vec![Cell::new(false); count].into_boxed_slice(),
            leased_count: Cell::new(0),
            leases: Cell::new(0),
            refused: Cell::new(0),
            reserve,
        })
    }

    /// Bytes of one buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.shared.stride
    }

    /// Number of buffers.
    pub fn count(&self) -> usize {
        self.leased.len()
    }

    /// Buffers that are neither out nor held.
    pub fn free(&self) -> usize {
        self.free.len() + self.shared.returned.len()
    }

    /// Leases given out and leases refused so far.
    pub fn lease_counts(&self) -> (u64, u64) {
        (self.leases.get(), self.refused.get())
    }

    /// Takes back what leases returned.
    pub fn reclaim(&mut self) {
        if self.shared.returned.is_empty() {
            return;
        }
        while let Some(index) = self.shared.returned.pop() {
            self.make_free(index);
        }
    }

    /// Takes a free buffer out, to be filled.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Puts back a buffer that was not filled.
    pub fn put(&mut self, index: u32) {
        self.free.push(index);
    }

    /// The address of a buffer that is out, for the kernel.
    #[cfg(target_os = "linux")]
    pub(crate) fn address(&self, index: u32) -> NonNull<u8> {
        self.shared.buffer(index)
    }

    /// Lends buffers that are out, from `offset` on, to `fill` as slices for one scattered
    /// receive. At most `N` of `indices` are used.
    pub fn with_slices<const N: usize, R>(
        &mut self,
        indices: &[u32],
        offset: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> R,
    ) -> R {
        let count = indices.len().min(N);
        let mut slices: [IoSliceMut<'_>; N] = std::array::from_fn(|i| {
            let Some(&index) = indices.get(i) else { return IoSliceMut::new(&mut []) };
            let holders = &self.shared.holders[index as usize];
            let held = holders.count.load(Ordering::Relaxed) != 0;
            let twice = indices[..i].contains(&index);
            assert!(!held && !twice, "a buffer is filled by one receive at a time");
            holders.bytes.write();
            let len = self.shared.stride - offset;
            let start = self.shared.region.range(index as usize * self.shared.stride + offset, len);
            // SAFETY: the range is inside the region; the buffer has no holder and is named once,
            // and `&mut self` keeps it so while the slice lives.
            IoSliceMut::new(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
        });
        fill(&mut slices[..count])
    }

    /// A buffer that was out is now held by a received item.
    pub fn hold(&mut self, index: u32) {
        self.shared.holders[index as usize].count.store(1, Ordering::Relaxed);
    }

    /// `len` bytes from `start` of a held buffer, and the handle to lease parts of them. Nothing
    /// for a buffer that is not held or a range outside of it.
    pub fn open(&mut self, index: u32, start: usize, len: usize) -> (&mut [u8], Retainer<'_>) {
        let holders = self.shared.holders.get(index as usize);
        let held = holders.is_some_and(|h| h.count.load(Ordering::Relaxed) != 0);
        let inside = start.checked_add(len).is_some_and(|end| end <= self.shared.stride);
        if !held || !inside {
            return (&mut [], Retainer::none());
        }
        let base = self.shared.region.range(index as usize * self.shared.stride + start, len);
        // SAFETY: inside the region and initialised (zeroed at least). The buffer is held, so
        // the kernel does not write to it. `&mut self` rules out a second such slice; leases only
        // read, and only bytes whose writing is over by the contract of `Retainer::lease`.
        let bytes = unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), len) };
        (bytes, Retainer { pool: Some((self, index)) })
    }

    /// The item lets go of its buffer.
    pub fn release(&mut self, index: u32) {
        let holders = &self.shared.holders[index as usize].count;
        // New leases are only made while the item exists: with one holder it is alone.
        match holders.load(Ordering::Acquire) {
            0 => debug_assert!(false, "a received buffer was released twice"),
            1 => self.make_free(index),
            _ => {
                if holders.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.make_free(index);
                }
            }
        }
    }

    fn make_free(&mut self, index: u32) {
        self.shared.holders[index as usize].count.store(0, Ordering::Relaxed);
        if self.leased[index as usize].replace(false) {
            self.leased_count.set(self.leased_count.get() - 1);
        }
        self.free.push(index);
    }
}

impl fmt::Debug for RxPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxPool")
            .field("count", &self.count())
            .field("buffer_bytes", &self.buffer_bytes())
            .field("free", &self.free.len())
            .field("leased", &self.leased_count.get())
            .finish_non_exhaustive()
    }
}

/// Leases parts of one received item while its bytes are being looked at.
#[derive(Clone, Copy)]
pub struct Retainer<'a> {
    pool: Option<(&'a RxPool, u32)>,
}

impl Retainer<'_> {
    /// One that always refuses: the caller copies.
    pub const fn none() -> Self {
        Self { pool: None }
    }

    /// Bytes that the whole buffer takes up: what a lease of any part of it keeps from the pool.
    pub fn buffer_bytes(&self) -> usize {
        self.pool.map_or(0, |(pool, _)| pool.buffer_bytes())
    }

    /// Keeps `part` alive, in place, for as long as the lease lives. `None` when the pool is below
    /// its reserve or when `part` is not in this item's buffer.
    ///
    /// Whoever holds the item's bytes mutably must not write to `part` afterwards. (A packet is
    /// opened in place before anything of it is shown, and not touched again.)
    pub fn lease(&self, part: &[u8]) -> Option<Lease> {
        let (pool, index) = self.pool?;
        let shared = &pool.shared;
        let buffer = shared.buffer(index).as_ptr() as usize;
        let start = part.as_ptr() as usize;
        if start < buffer || start + part.len() > buffer + shared.stride {
            return None;
        }
        let len = u32::try_from(part.len()).ok()?;
        let leased = &pool.leased[index as usize];
        if !leased.get() {
            if pool.leased_count.get() + pool.reserve >= pool.count() {
                pool.refused.set(pool.refused.get() + 1);
                return None;
            }
            leased.set(true);
            pool.leased_count.set(pool.leased_count.get() + 1);
        }
        pool.leases.set(pool.leases.get() + 1);
        shared.holders[index as usize].count.fetch_add(1, Ordering::Relaxed);
        Some(Lease { shared: shared.clone(), index, start: NonNull::from(part).cast(), len })
    }
}

impl fmt::Debug for Retainer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retainer").finish_non_exhaustive()
    }
}

/// Received bytes kept alive in the buffer that the kernel filled. Dropping the last lease of a
/// buffer returns it to its driver, from any thread and without a lock.
pub struct Lease {
    shared: Arc<Shared>,
    start: NonNull<u8>,
    len: u32,
    index: u32,
}

// SAFETY: a lease only reads bytes that nobody writes while it lives, and its bookkeeping is
// atomic.
unsafe impl Send for Lease {}
// SAFETY: as above; `&Lease` gives `&[u8]` only.
unsafe impl Sync for Lease {}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if let Some(holders) = self.shared.holders.get(self.index as usize) {
            holders.bytes.read();
        }
        // SAFETY: `start` and `len` were taken from a live slice of a buffer that this lease
        // holds: it is neither freed nor refilled before the lease is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.shared.holders[self.index as usize].count.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone(), start: self.start, len: self.len, index: self.index }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let holders = &self.shared.holders[self.index as usize];
        if holders.count.fetch_sub(1, Ordering::Release) == 1 {
            // The reads through every other lease happen before the buffer is used again.
            fence(Ordering::Acquire);
            // As many places as buffers, and a buffer is in the queue at most once.
            let queued = self.shared.returned.push(self.index);
            debug_assert!(queued.is_ok(), "a buffer was returned twice");
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}
