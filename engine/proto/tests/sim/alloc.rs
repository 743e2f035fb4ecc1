//! A counting allocator: bytes of heap per owner and per thread, with what the system's allocator adds
//! to each request.
//!
//! Each test runs in a thread of its own, so the counts of parallel tests do not mix. A world sets
//! the owner before it calls an endpoint, and its sinks set it back while they run; what an
//! endpoint still holds is then what was allocated minus what was freed under its number.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Owner numbers that can be told apart; larger ones share the last.
pub const OWNERS: usize = 8;
/// Everything that is no endpoint: the test itself.
pub const TEST: usize = 0;

thread_local! {
    static OWNER: Cell<usize> = const { Cell::new(TEST) };
    static LIVE: [Cell<i64>; OWNERS] = const { [const { Cell::new(0) }; OWNERS] };
    static PEAK: [Cell<i64>; OWNERS] = const { [const { Cell::new(0) }; OWNERS] };
    static CALLS: [Cell<u64>; OWNERS] = const { [const { Cell::new(0) }; OWNERS] };
}

/// What glibc's allocator takes for a request: 8 bytes of its own, multiples of 16, at least 32.
const fn taken(size: usize) -> i64 {
    let rounded = (size + 8).next_multiple_of(16);
    if rounded < 32 { 32 } else { rounded as i64 }
}

fn count(bytes: i64) {
    // A thread that is ending has no counters any more; nobody reads them either.
    let _ = OWNER.try_with(|owner| {
        let owner = owner.get();
        let _ = LIVE.try_with(|live| {
            let now = live[owner].get() + bytes;
            live[owner].set(now);
            if bytes > 0 {
                let _ = PEAK.try_with(|peak| peak[owner].set(peak[owner].get().max(now)));
                let _ = CALLS.try_with(|calls| calls[owner].set(calls[owner].get() + 1));
            }
        });
    });
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches only
// thread-local cells that need neither heap nor destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        let p = unsafe { System.alloc(layout) };
        if !p.is_null() {
            count(taken(layout.size()));
        }
        p
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let p = unsafe { System.alloc_zeroed(layout) };
        if !p.is_null() {
            count(taken(layout.size()));
        }
        p
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: `p` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(p, layout) };
        count(-taken(layout.size()));
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`, and `new_size` is the caller's promise too.
        let q = unsafe { System.realloc(p, layout, new_size) };
        if !q.is_null() {
            count(taken(new_size) - taken(layout.size()));
        }
        q
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Counts what follows under another owner until it is dropped.
pub struct As(usize);

impl As {
    /// From now on `owner` pays.
    pub fn owner(owner: usize) -> Self {
        Self(OWNER.with(|o| o.replace(owner.min(OWNERS - 1))))
    }
}

impl Drop for As {
    fn drop(&mut self) {
        OWNER.with(|o| o.set(self.0));
    }
}

/// Bytes that `owner` holds now in this thread.
pub fn live(owner: usize) -> i64 {
    LIVE.with(|l| l[owner].get())
}

/// Bytes that all owners hold now in this thread.
pub fn live_total() -> i64 {
    LIVE.with(|l| l.iter().map(Cell::get).sum())
}

/// The most that `owner` held since [`reset_peaks`].
pub fn peak(owner: usize) -> i64 {
    PEAK.with(|p| p[owner].get())
}

/// Allocations that `owner` has made in this thread.
pub fn calls(owner: usize) -> u64 {
    CALLS.with(|c| c[owner].get())
}

/// Starts the peaks of all owners anew from what they hold now.
pub fn reset_peaks() {
    LIVE.with(|l| PEAK.with(|p| l.iter().zip(p).for_each(|(l, p)| p.set(l.get()))));
}

/// Starts all counts of this thread anew.
pub fn reset() {
    LIVE.with(|l| l.iter().for_each(|c| c.set(0)));
    PEAK.with(|p| p.iter().for_each(|c| c.set(0)));
    CALLS.with(|c| c.iter().for_each(|c| c.set(0)));
}
