//! One zeroed stretch of memory for a whole pool.

use std::io;
use std::ptr::NonNull;

/// Size and alignment of a huge page where there are any.
const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// Zeroed memory that stays where it is until dropped. It hands out raw pointers only: who may
/// touch which part is its pool's business.
pub(super) struct Region {
    base: NonNull<u8>,
    len: usize,
    #[cfg(unix)]
    mapping: (NonNull<u8>, usize),
    #[cfg(not(unix))]
    layout: std::alloc::Layout,
}

// SAFETY: a region is plain memory that belongs to whoever holds it; it has no thread affinity.
unsafe impl Send for Region {}
// SAFETY: through `&Region` only the address and the length can be had.
unsafe impl Sync for Region {}

impl Region {
    /// At least `len` bytes, aligned to pages; in huge pages where the system grants them.
    #[cfg(unix)]
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let len = len.max(1);
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { 1 };
        let mapped = len
            .checked_next_multiple_of(4096)
            .and_then(|l| l.checked_add(align))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // existing memory.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(map.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = start.as_ptr().align_offset(align);
        // SAFETY: `skip` < `align`, and the mapping is `align` bytes longer than `len`.
        let base = unsafe { start.add(skip) };
        #[cfg(target_os = "linux")]
        if len >= HUGE_PAGE {
            // SAFETY: the range lies inside the mapping just made; the advice changes no contents.
            // It may be refused, which costs speed only.
            let _ = unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { base, len, mapping: (start, mapped) })
    }

    /// At least `len` bytes, aligned to 64.
    #[cfg(not(unix))]
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let layout = std::alloc::Layout::from_size_align(len.max(1), 64)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len: layout.size(), layout })
    }

    /// The address `offset` bytes in, from which `len` bytes can be used.
    ///
    /// # Panics
    /// If the range is not inside the region (a mistake of the pool).
    pub(super) fn range(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "range outside region");
        // SAFETY: just checked to be inside the allocation.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        #[cfg(unix)]
        // SAFETY: this is the mapping made in `new`; the owner of the region is gone, so no
        // pointer into it is used any more.
        unsafe {
            libc::munmap(self.mapping.0.as_ptr().cast(), self.mapping.1);
        }
        #[cfg(not(unix))]
        // SAFETY: allocated in `new` with the same layout.
        unsafe {
            std::alloc::dealloc(self.base.as_ptr(), self.layout);
        }
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} bytes)", self.len)
    }
}
