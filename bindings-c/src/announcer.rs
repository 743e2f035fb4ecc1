//! Announcers: letting oneself be found on the local network.

use crate::abi::{self, Struct};
use crate::announcement::{
    trunk_announcement, trunk_announcer_config, trunk_announcer_counts, trunk_announcer_info,
    trunk_presence_address,
};
use crate::handle::trunk_listener;
use crate::instance::{live, lock, trunk_engine};
use crate::object::Object;
use crate::presence::{self, host_state, trunk_presence_problem, trunk_presence_state};
use crate::registry::{Kind, Registry};
use crate::result::{Error, Result, guard, trunk_result};
use engine::discovery::Announcer;
use std::net::SocketAddr;
use std::sync::Arc;

/// An announcer. 0 is none. Discoveries and announcers belong to no engine.
pub type trunk_announcer = u64;

struct Told {
    announcer: Announcer,
    local_only: bool,
}

static ANNOUNCERS: Registry<Object<Told>> =
    Registry::new(Kind::Announcer, "invalid or already closed announcer");

fn named(announcer: trunk_announcer) -> Result<Arc<Object<Told>>> {
    ANNOUNCERS.get(announcer)
}

impl Told {
    #[cfg(unix)]
    #[allow(clippy::unnecessary_wraps, reason = "other systems have none")]
    fn fd(&self) -> Option<i32> {
        Some(self.announcer.as_raw_fd())
    }

    #[cfg(not(unix))]
    fn fd(&self) -> Option<i32> {
        None
    }
}

/// Starts an announcer and gives its handle.
///
/// # Safety
/// `config` is NULL or as its type says.
unsafe fn start(
    config: *const trunk_announcer_config,
    listener: Option<SocketAddr>,
) -> Result<trunk_announcer> {
    if config.is_null() {
        return Err(Error::null("config"));
    }
    // SAFETY: a config whose pointers are NULL or point to what their fields say.
    let config = unsafe { abi::read(config)?.convert(listener) }?;
    let local_only = config.is_local_only();
    let announcer = Announcer::start(config)?;
    let waker = announcer.waker();
    Ok(ANNOUNCERS.insert(Object::new(Told { announcer, local_only }, waker)))
}

/// Lets this device be found from now on and stores the announcer, which is valid until
/// trunk_announcer_close. Everything that config points to is copied.
///
/// An announcer stands beside an engine, has no thread, and answers only inside
/// trunk_announcer_poll. One thread at a time is inside an announcer; while one polls, other calls
/// with it give TRUNK_ERR_WOULD_BLOCK, except for trunk_announcer_wake and trunk_announcer_close.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM
/// (no interface can be used; trunk_last_error has the reason for each).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_start(
    config: *const trunk_announcer_config,
    announcer: *mut trunk_announcer,
) -> trunk_result {
    guard(|| {
        abi::expect(announcer, "announcer")?;
        // SAFETY: a config by contract.
        let handle = unsafe { start(config, None) }?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(announcer, "announcer", handle) }
    })
}

/// The same for a listener of an engine: its address and port are taken where config->listen and
/// config->announcement->port state none. The announcer does not end with the listener.
///
/// Any thread, never blocks. Errors: as trunk_announcer_start, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_start_for_listener(
    engine: *mut trunk_engine,
    listener: trunk_listener,
    config: *const trunk_announcer_config,
    announcer: *mut trunk_announcer,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(announcer, "announcer")?;
        let known = lock(&live.listeners).iter().find(|l| l.0 == listener).map(|l| l.1);
        let found = known.ok_or(Error::handle("invalid or already closed listener"))?;
        // SAFETY: a config by contract.
        let handle = unsafe { start(config, Some(found)) }?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(announcer, "announcer", handle) }
    })
}

/// Ends an announcer and tells those who asked; the handle is stale afterwards. A
/// thread that is inside trunk_announcer_poll comes back at once, with TRUNK_ERR_INVALID_HANDLE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed).
#[unsafe(no_mangle)]
pub extern "C" fn trunk_announcer_close(announcer: trunk_announcer) -> trunk_result {
    guard(|| ANNOUNCERS.take(announcer)?.close())
}

/// Answers questions for timeout_ns (TRUNK_WAIT_FOREVER, or nanoseconds); with TRUNK_WAIT_NOT,
/// those that are waiting.
///
/// Any thread, one at a time. BLOCKS for timeout_ns; trunk_announcer_wake and trunk_announcer_close
/// end it. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK
/// (another thread is inside), TRUNK_ERR_SYSTEM (nothing that has to do with a single interface),
/// TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_announcer_poll(
    announcer: trunk_announcer,
    timeout_ns: i64,
) -> trunk_result {
    guard(|| {
        let object = named(announcer)?;
        let timeout = presence::timeout(timeout_ns)?;
        object.lend(|told| Ok(told.announcer.poll(timeout)?))
    })
}

/// Stores a file descriptor that is readable when trunk_announcer_poll has something to hear, for
/// an event loop of the application: wait until it is readable or trunk_announcer_next_timeout_ns
/// has passed, poll with TRUNK_WAIT_NOT, and ask for the next timeout again. It belongs to the
/// announcer: do not read or close it.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_UNSUPPORTED (Windows), TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_fd(
    announcer: trunk_announcer,
    fd: *mut i32,
) -> trunk_result {
    guard(|| {
        let found = presence::descriptor(named(announcer)?.with(|told| Ok(told.fd()))?)?;
        // SAFETY: writable by contract.
        unsafe { abi::put(fd, "fd", found) }
    })
}

/// Stores how many nanoseconds may pass until trunk_announcer_poll has work even if nothing
/// arrives; 0 = now. Ask again after every poll.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_next_timeout_ns(
    announcer: trunk_announcer,
    timeout_ns: *mut i64,
) -> trunk_result {
    guard(|| {
        let next = named(announcer)?.with(|told| Ok(told.announcer.next_timeout()))?;
        // SAFETY: writable by contract.
        unsafe { abi::put(timeout_ns, "timeout_ns", presence::until(next)) }
    })
}

/// Ends the wait of the thread that is inside trunk_announcer_poll, or of the next one, or makes
/// the descriptor readable.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_SYSTEM, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_announcer_wake(announcer: trunk_announcer) -> trunk_result {
    guard(|| named(announcer)?.wake())
}

/// Tells something else from now on; those who ask learn of it with their next question. After
/// TRUNK_ERR_INVALID_ARGUMENT it is as before.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_announce(
    announcer: trunk_announcer,
    announcement: *const trunk_announcement,
) -> trunk_result {
    guard(|| {
        let object = named(announcer)?;
        // SAFETY: an announcement whose pointers are NULL or point to what their fields say.
        let announcement = unsafe { trunk_announcement::required(announcement, None) }?;
        object.with(|told| Ok(told.announcer.announce(announcement)?))
    })
}

/// Ends the announcement: those who asked are told, nothing is answered any more, and the state is
/// TRUNK_PRESENCE_ENDED for good. trunk_announcer_close is still due, and does the same by itself.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_announcer_withdraw(announcer: trunk_announcer) -> trunk_result {
    guard(|| {
        named(announcer)?.with(|told| {
            told.announcer.withdraw();
            Ok(())
        })
    })
}

/// Stores the state of an announcer: TRUNK_PRESENCE_READY while somebody has asked within the
/// heartbeat, TRUNK_PRESENCE_ENDED once withdrawn, otherwise TRUNK_PRESENCE_WAITING_FOR_REQUEST.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_state(
    announcer: trunk_announcer,
    state: *mut trunk_presence_state,
) -> trunk_result {
    guard(|| {
        let known = named(announcer)?.with(|told| Ok(host_state(told.announcer.state())))?;
        // SAFETY: writable by contract.
        unsafe { abi::put(state, "state", known) }
    })
}

/// Stores what an announcer tells those who ask, and how many have asked.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_get_info(
    announcer: trunk_announcer,
    info: *mut trunk_announcer_info,
) -> trunk_result {
    guard(|| {
        abi::expect(info, trunk_announcer_info::NAME)?;
        let known = named(announcer)?
            .with(|told| Ok(trunk_announcer_info::of(&told.announcer, told.local_only)))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(info, &known) }
    })
}

/// Stores what an announcer has done with what it received.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_get_counts(
    announcer: trunk_announcer,
    counts: *mut trunk_announcer_counts,
) -> trunk_result {
    guard(|| {
        abi::expect(counts, trunk_announcer_counts::NAME)?;
        let known = named(announcer)?.with(|told| Ok(told.announcer.counts()))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(counts, &known.into()) }
    })
}

/// Stores where questions are heard: at most capacity addresses at addresses (NULL with a capacity
/// of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_addresses(
    announcer: trunk_announcer,
    addresses: *mut trunk_presence_address,
    capacity: usize,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        abi::expect_list(addresses, capacity, "addresses", count)?;
        named(announcer)?.with(|told| {
            let list = told.announcer.addresses().map(trunk_presence_address::of);
            // SAFETY: checked, and the caller's memory by contract.
            unsafe { abi::put_list(list, addresses, capacity, count) }
        })
    })
}

/// Stores what goes wrong on single interfaces now: at most capacity problems at problems (NULL
/// with a capacity of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_announcer_problems(
    announcer: trunk_announcer,
    problems: *mut trunk_presence_problem,
    capacity: usize,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        abi::expect_list(problems, capacity, "problems", count)?;
        named(announcer)?.with(|told| {
            let list = told.announcer.problems().iter().map(Into::into);
            // SAFETY: checked, and the caller's memory by contract.
            unsafe { abi::put_list(list, problems, capacity, count) }
        })
    })
}

/// Tells an announcer that the network has changed: with the next poll it looks at the interfaces.
/// Not needed, but faster than waiting.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_announcer_network_changed(announcer: trunk_announcer) -> trunk_result {
    guard(|| {
        named(announcer)?.with(|told| {
            told.announcer.network_changed();
            Ok(())
        })
    })
}
