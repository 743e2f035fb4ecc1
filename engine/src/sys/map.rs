//! A file in memory, as numbers that one thread writes and other processes read.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A shared mapping of the start of a file: what is stored is in the file at once, without a system
/// call, and stays there when the process dies.
pub struct SharedMap {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping has no thread affinity, and through it only atomics can be had.
unsafe impl Send for SharedMap {}
// SAFETY: as above: `&SharedMap` gives `&[AtomicU64]`, which any thread may use.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps the first `words` 64-bit words of `file`, which is open for reading and writing and has
    /// at least that length, with its blocks allocated: a store to a page that the file system has
    /// no room for, or that was cut off, ends the process (SIGBUS).
    ///
    /// # Errors
    /// The system's; `InvalidInput` for a length of zero or beyond the file's.
    pub fn new(file: &File, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(8).filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(map.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, words })
    }

    /// The words.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is `words` words long, aligned to a page, lives as long as `self`, and
        // every bit pattern is a valid `AtomicU64`. Whoever else changes it does so as the memory
        // model has it for atomics: this process only through such slices.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; slices of it borrow `self`, so none is left.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.words * 8);
        }
    }
}

impl std::fmt::Debug for SharedMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedMap({} words)", self.words)
    }
}

/// The system's monotonic clock in nanoseconds, which all processes of a machine share.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of ours. The clock exists everywhere.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    if failed != 0 {
        return 0;
    }
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
