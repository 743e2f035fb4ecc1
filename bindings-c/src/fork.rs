//! Whether the process has forked since something was made.
//!
//! A forked child has the memory of the engine and none of its threads; its sockets and rings are
//! shared with the parent. The child is therefore told that the engine is not its own. A handler
//! of `pthread_atfork` counts, so that asking costs one load.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Forks between the first process and this one, from the first [`generation`] on.
static FORKS: AtomicU32 = AtomicU32::new(0);

#[cfg(unix)]
extern "C" fn child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The number to compare with later; forks are counted from the first call on.
pub(crate) fn generation() -> u32 {
    static WATCH: Once = Once::new();
    #[cfg(unix)]
    WATCH.call_once(|| {
        // SAFETY: the handler touches nothing but an atomic, which is allowed in a forked child.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(child)) };
        // The only error is a lack of memory; forks are not noticed then.
        debug_assert_eq!(refused, 0);
    });
    #[cfg(not(unix))]
    let _ = &WATCH;
    FORKS.load(Ordering::Relaxed)
}

/// Whether the process is still the one of `generation`.
#[inline]
pub(crate) fn is_same(generation: u32) -> bool {
    FORKS.load(Ordering::Relaxed) == generation
}
