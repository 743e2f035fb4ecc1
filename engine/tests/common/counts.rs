//! What a whole process does, counted on all of its threads: allocations, bytes that are copied,
//! readings of the clock. The test binary has functions of these names of its own, so that every
//! call in it comes here. Include this file in one module of a test binary.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);
static COPIED: AtomicU64 = AtomicU64::new(0);
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// Shorter copies are values that are moved, not payload.
const COPY: usize = 512;

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting is atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: `p` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(p, layout) }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE.fetch_add(new_size as u64, Relaxed);
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: as in `dealloc`, and `new_size` is the caller's promise too.
        unsafe { System.realloc(p, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

unsafe extern "C" {
    fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
}

/// # Safety
/// As of C's `memcpy`.
// SAFETY: it does what the function of this name has to do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
    if len >= COPY {
        COPIED.fetch_add(len as u64, Relaxed);
    }
    // SAFETY: the caller's promises are more than `memmove` asks for.
    unsafe { memmove(to, from, len) }
}

/// # Safety
/// As of C's `clock_gettime`.
// SAFETY: it does what the function of this name has to do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut libc::timespec) -> c_int {
    CLOCK.fetch_add(1, Relaxed);
    // SAFETY: the same call with the same arguments.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, to) as c_int }
}

/// What the process has done so far, or between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub allocations: u64,
    /// Bytes copied by `memcpy`, in pieces of payload.
    pub copied: u64,
    /// Readings of the clock.
    pub clock: u64,
}

impl Counts {
    pub fn now() -> Self {
        Self {
            allocations: ALLOCATIONS.load(Relaxed),
            copied: COPIED.load(Relaxed),
            clock: CLOCK.load(Relaxed),
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            allocations: self.allocations - before.allocations,
            copied: self.copied - before.copied,
            clock: self.clock - before.clock,
        }
    }
}

/// Bytes of heap in use.
pub fn live() -> u64 {
    LIVE.load(Relaxed)
}

/// Keeps the other tests of this binary waiting: the counts are those of one.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
