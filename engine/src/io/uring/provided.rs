//! The ring of receive buffers that the kernel picks from.

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only group.
pub(super) const GROUP: u16 = 0;

/// A provided-buffer ring. Entries are written here, and the kernel takes them in order.
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    /// A power of two.
    count: u16,
    tail: u16,
}

// SAFETY: the memory belongs to this value alone; the kernel reads it from any context anyway.
unsafe impl Send for BufferRing {}

impl BufferRing {
    /// Room for `count` buffers, a power of two up to 32,768, registered with the ring.
    pub(super) fn new(submitter: &Submitter<'_>, count: u16) -> io::Result<Self> {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(bytes.max(1), 4096)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the layout's size is not zero.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) })
            .ok_or(io::ErrorKind::OutOfMemory)?
            .cast::<BufRingEntry>();
        let ring = Self { entries, layout, count, tail: 0 };
        // SAFETY: `count` zeroed entries at a page boundary, which live until `ring` is dropped;
        // the owner drops it after the last request is over.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)?;
        }
        Ok(ring)
    }

    pub(super) const fn count(&self) -> usize {
        self.count as usize
    }

    /// Adds a buffer; the kernel sees it after [`publish`](Self::publish). The caller keeps count:
    /// no more than [`count`](Self::count) are in the ring at once.
    pub(super) fn push(&mut self, index: u16, address: NonNull<u8>, len: u32) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`. The entry is not in use: the kernel reads entries between
        // its head and the published tail only, and by the caller's count this is not one of them.
        // Only the fields are written, not the padding, which in the first entry is the tail.
        let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
        entry.set_addr(address.as_ptr() as u64);
        entry.set_len(len);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was added.
    pub(super) fn publish(&mut self) {
        // SAFETY: `entries` is the address of the first entry of the ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: two aligned bytes inside the first entry, which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries are written before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the owner sees to it that no request uses
        // the ring any more.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}

impl std::fmt::Debug for BufferRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BufferRing({} entries)", self.count)
    }
}
