//! Receiving: poll groups and their items.

use crate::abi;
use crate::handle::trunk_group;
use crate::instance::{Live, live, trunk_engine};
use crate::item::{TRUNK_ITEM_NONE, trunk_item};
use crate::result::{Error, Result, TRUNK_ERR_FORKED, TRUNK_ERR_STOPPED, guard, trunk_result};
use engine::{PollGroup, Received};
use std::cell::RefCell;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// For trunk_recv_many, trunk_engine_poll, trunk_discovery_poll and trunk_announcer_poll: wait as
/// long as it takes.
pub const TRUNK_WAIT_FOREVER: i64 = -1;
/// For the same: do not wait.
pub const TRUNK_WAIT_NOT: i64 = 0;

/// Most items of one call.
const MOST: usize = 4096;

/// The group of a handle.
pub(crate) fn group_at(live: &Live, handle: trunk_group) -> Result<PollGroup> {
    match live.names.masks.group_of(handle)? {
        0 => Ok(live.queued.poll_group().clone()),
        index => {
            let groups = live.groups.read().unwrap_or_else(PoisonError::into_inner);
            groups.get(index - 1).cloned().ok_or(Error::handle("invalid poll group"))
        }
    }
}

/// Makes a further poll group and stores its handle, which is valid as long as the engine.
/// Connections come into it with trunk_connect_config.group or trunk_conn_set_group. At most 1023.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_LIMIT,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_group_new(
    engine: *mut trunk_engine,
    group: *mut trunk_group,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(group, "group")?;
        let mut groups = live.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.push(live.queued.new_poll_group()?);
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(group, "group", live.names.masks.group(groups.len())) }
    })
}

/// Ends the wait of every thread that is inside trunk_recv_many with this group (0 = the engine's
/// own), or the next such wait: the call returns with no items.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_group_wake(
    engine: *mut trunk_engine,
    group: trunk_group,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        group_at(live, group)?.wake();
        Ok(())
    })
}

thread_local! {
    /// What was received and is not an item yet; kept for its memory.
    static RECEIVED: RefCell<Vec<Received>> = const { RefCell::new(Vec::new()) };
}

/// Takes at most capacity messages and events, and at most 4096 in one call, from a poll group
/// (0 = the engine's own), in order for each connection, and stores them at items and their number
/// at count. If there are none, waits for some for at most timeout_ns (TRUNK_WAIT_NOT,
/// TRUNK_WAIT_FOREVER, or nanoseconds) and may then store none. A thread-less engine never waits
/// here: call trunk_engine_poll first.
///
/// The caller owns the items and gives their memory back with trunk_message_release. The places at
/// items are overwritten without being looked at.
///
/// Any thread, several at once: each gets whole stretches in order. BLOCKS for at most timeout_ns.
/// Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT (a capacity of 0,
/// too), TRUNK_ERR_FORKED; TRUNK_ERR_STOPPED when the engine was shut down
/// and nothing is left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_recv_many(
    engine: *mut trunk_engine,
    group: trunk_group,
    items: *mut trunk_item,
    capacity: usize,
    timeout_ns: i64,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: writable by contract.
        unsafe { abi::put(count, "count", 0) }?;
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        if items.is_null() {
            return Err(Error::null("items"));
        }
        if capacity == 0 {
            return Err(Error::invalid("capacity", "is 0"));
        }
        if timeout_ns < TRUNK_WAIT_FOREVER {
            return Err(Error::invalid("timeout_ns", "is negative"));
        }
        let further;
        let group = if group == 0 {
            live.queued.poll_group()
        } else {
            further = group_at(live, group)?;
            &further
        };
        if group.has_callbacks() {
            return Err(Error::invalid("group", "has callbacks: nothing is received from it"));
        }
        // Asked before: what a shutdown brings is there before it says that it is over.
        let stopped = live.stopped.load(Ordering::Acquire);
        let timeout = abi::limit(if stopped { TRUNK_WAIT_NOT } else { timeout_ns });
        let mut received = RECEIVED.try_with(RefCell::take).unwrap_or_default();
        group.recv_many(&mut received, capacity.min(MOST), timeout);
        let (mut stored, mut last) = (0, None);
        for one in received.drain(..) {
            // SAFETY: the caller's array has `capacity` places by contract, and no more than that
            // many were asked for.
            let item = unsafe {
                let place = items.add(stored);
                place.write(trunk_item::NONE);
                &mut *place
            };
            item.set(&live.names, one, &mut last);
            stored += usize::from(item.r#type != TRUNK_ITEM_NONE);
        }
        let _ = RECEIVED.try_with(|kept| kept.replace(received));
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(count, "count", stored) }?;
        if stored == 0 && live.stopped.load(Ordering::Acquire) && stopped {
            return Err(Error::new(
                TRUNK_ERR_STOPPED,
                "the engine is shut down, and nothing is left",
            ));
        }
        Ok(())
    })
}

/// Gives back the memory of count items and makes them TRUNK_ITEM_NONE. Items that already are
/// TRUNK_ITEM_NONE are left alone. Until then, the bytes of a reliable channel count against what
/// its peer may send. Items outlive their engine.
///
/// Any thread, also another one than received them; never blocks. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_FORKED (the items were received by the parent process and are left alone).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_message_release(
    items: *mut trunk_item,
    count: usize,
) -> trunk_result {
    guard(|| {
        if count == 0 {
            return Ok(());
        }
        if items.is_null() {
            return Err(Error::null("items"));
        }
        for i in 0..count {
            // SAFETY: that many items by contract.
            let item = unsafe { &mut *items.add(i) };
            if !item.is_ours() {
                return Err(Error::new(
                    TRUNK_ERR_FORKED,
                    "these items belong to the parent process",
                ));
            }
            item.release();
        }
        Ok(())
    })
}
