//! Engines without threads: the application drives.

use crate::abi;
use crate::callbacks::outside_of_callbacks;
use crate::instance::{Live, live, trunk_engine};
use crate::result::{
    Error, Result, TRUNK_ERR_NOT_THREADLESS, TRUNK_ERR_UNSUPPORTED, guard, trunk_result,
};
use std::sync::atomic::Ordering;

/// The engine, if the calling thread may drive it.
///
/// # Safety
/// As [`live`].
unsafe fn driven<'a>(engine: *mut trunk_engine) -> Result<&'a Live> {
    // SAFETY: handed on.
    let live = unsafe { live(engine) }?;
    if !live.queued.is_threadless() {
        return Err(Error::new(TRUNK_ERR_NOT_THREADLESS, "the engine runs on its own threads"));
    }
    live.drive()?;
    outside_of_callbacks()?;
    if live.stopped.load(Ordering::Acquire) {
        return Err(Error::new(crate::result::TRUNK_ERR_STOPPED, "the engine is shut down"));
    }
    Ok(live)
}

/// Drives a thread-less engine: receives, sends, and does what is due, then returns. If there is
/// nothing to do, and no item waits in a poll group, waits for something for at most budget_ns
/// (TRUNK_WAIT_NOT, TRUNK_WAIT_FOREVER, or nanoseconds). Stores at happened, which may be NULL, how
/// many things happened; what the application is told about is then taken with trunk_recv_many. To
/// be called again soon while trunk_engine_next_timeout_ns says 0.
///
/// The thread that polls first. BLOCKS for at most budget_ns. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_NOT_THREADLESS, TRUNK_ERR_WRONG_THREAD,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_STOPPED, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED;
/// TRUNK_ERR_DRIVER and TRUNK_ERR_SYSTEM when the first call cannot set the driver up, or the
/// driver fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_poll(
    engine: *mut trunk_engine,
    budget_ns: i64,
    happened: *mut u64,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { driven(engine) }?;
        if budget_ns < crate::receive::TRUNK_WAIT_FOREVER {
            return Err(Error::invalid("budget_ns", "is negative"));
        }
        let count = live.logged(|| live.queued.poll(abi::limit(budget_ns)))?;
        if happened.is_null() {
            return Ok(());
        }
        // SAFETY: writable by contract.
        unsafe { abi::put(happened, "happened", count) }
    })
}

/// Stores a file descriptor that is readable when trunk_engine_poll has work, for an event loop of
/// the application: wait until it is readable or trunk_engine_next_timeout_ns has passed, poll,
/// receive, and ask for the next timeout again. It belongs to the engine: do not read or close it.
///
/// The thread that polls first. Never blocks. Errors: as trunk_engine_poll; TRUNK_ERR_UNSUPPORTED
/// where the driver has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_fd(engine: *mut trunk_engine, fd: *mut i32) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { driven(engine) }?;
        let found = live.logged(|| live.queued.fd())?;
        let found = found.ok_or(Error::new(
            TRUNK_ERR_UNSUPPORTED,
            "this driver has no descriptor to wait for: poll with a budget",
        ))?;
        // SAFETY: writable by contract.
        unsafe { abi::put(fd, "fd", found) }
    })
}

/// Stores how many nanoseconds may pass until trunk_engine_poll has work even if nothing arrives:
/// 0 = now (also while an item waits in a poll group), TRUNK_WAIT_FOREVER = nothing is planned. Ask
/// again after every poll.
///
/// The thread that polls first. Never blocks. Errors: as trunk_engine_poll.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_next_timeout_ns(
    engine: *mut trunk_engine,
    timeout_ns: *mut i64,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { driven(engine) }?;
        let next = live.logged(|| live.queued.next_timeout())?;
        let ns = next.map_or(crate::receive::TRUNK_WAIT_FOREVER, |d| {
            i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)
        });
        // SAFETY: writable by contract.
        unsafe { abi::put(timeout_ns, "timeout_ns", ns) }
    })
}

/// Ends the wait of trunk_engine_poll, or makes the descriptor readable. Sends from other threads
/// do so by themselves.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_wake(engine: *mut trunk_engine) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        unsafe { live(engine) }?.queued.wake();
        Ok(())
    })
}
