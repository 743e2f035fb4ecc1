//! The engine: made, asked, shut down, destroyed.
//!
//! What `trunk_engine *` points to is never freed: it is a few words that say whether the engine
//! is alive, so that a call after `trunk_engine_destroy` is an error and no undefined behaviour.
//! Everything that costs memory hangs below it and goes with the engine.

use crate::abi::{self, Struct};
use crate::callbacks::{self, outside_of_callbacks};
use crate::config::trunk_engine_config;
use crate::fork;
use crate::handle::{trunk_conn, trunk_listener};
use crate::log;
use crate::names::Names;
use crate::result::{Error, Result, TRUNK_ERR_FORKED, TRUNK_ERR_WRONG_THREAD, guard, trunk_result};
use crate::status::trunk_reason;
use engine::{PollGroup, QueuedEngine};
use std::ffi::c_char;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::Duration;
use tracing::Dispatch;

/// An engine. Made by trunk_engine_new, and named by this pointer until trunk_engine_destroy; a
/// call after that gives TRUNK_ERR_INVALID_HANDLE.
pub struct trunk_engine {
    live: AtomicPtr<Live>,
    fork: u32,
    /// Of the list that keeps all of them known to leak checkers.
    next: *const trunk_engine,
}

/// What hangs below a `trunk_engine` while it is alive.
pub(crate) struct Live {
    /// Goes first: what follows is there as long as callbacks run.
    pub queued: QueuedEngine,
    pub names: Arc<Names>,
    /// Further poll groups; the engine's own is not among them.
    pub groups: RwLock<Vec<PollGroup>>,
    pub listeners: Mutex<Vec<(trunk_listener, SocketAddr)>>,
    /// Limit of a linger that is not stated.
    pub linger: Duration,
    pub stopped: AtomicBool,
    /// Bytes of one send buffer.
    pub send_buffer_bytes: usize,
    driver: &'static str,
    owner: OnceLock<ThreadId>,
    log: Option<Dispatch>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine behind a pointer of the caller.
///
/// # Safety
/// `engine` is NULL or came from `trunk_engine_new`, and `trunk_engine_destroy` is not called for
/// it before the answer was last used.
#[inline]
pub(crate) unsafe fn live<'a>(engine: *const trunk_engine) -> Result<&'a Live> {
    // SAFETY: what a pointer from `trunk_engine_new` points to is never freed.
    let engine = unsafe { engine.as_ref() }.ok_or(Error::null("engine"))?;
    if !fork::is_same(engine.fork) {
        return Err(Error::new(
            TRUNK_ERR_FORKED,
            "the process has forked: this engine belongs to the parent, make a new one",
        ));
    }
    let live = engine.live.load(Ordering::Acquire);
    // SAFETY: set by `trunk_engine_new`, freed by `trunk_engine_destroy` after it was cleared.
    unsafe { live.as_ref() }.ok_or(Error::handle("the engine was destroyed"))
}

impl Live {
    /// Runs `f` with this engine's log.
    pub(crate) fn logged<R>(&self, f: impl FnOnce() -> R) -> R {
        log::with(self.log.as_ref(), f)
    }

    /// Whether the calling thread may wait for a shard: not inside a log callback, and without
    /// threads only the one that drives. The first that asks is.
    pub(crate) fn drive(&self) -> Result {
        log::outside_of_log()?;
        if !self.queued.is_threadless() {
            return Ok(());
        }
        let me = std::thread::current().id();
        if *self.owner.get_or_init(|| me) == me {
            return Ok(());
        }
        Err(Error::new(
            TRUNK_ERR_WRONG_THREAD,
            "this thread-less engine belongs to the thread that polled it first",
        ))
    }
}

/// All engines that were ever made: leak checkers find here what is kept on purpose.
static ENGINES: AtomicPtr<trunk_engine> = AtomicPtr::new(std::ptr::null_mut());

fn enlist(live: Live) -> *mut trunk_engine {
    let live = AtomicPtr::new(Box::into_raw(Box::new(live)));
    let engine = Box::new(trunk_engine { live, fork: fork::generation(), next: std::ptr::null() });
    let engine = Box::into_raw(engine);
    let mut head = ENGINES.load(Ordering::Relaxed);
    loop {
        // SAFETY: nobody else knows this engine yet.
        unsafe { (*engine).next = head };
        match ENGINES.compare_exchange_weak(head, engine, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return engine,
            Err(now) => head = now,
        }
    }
}

/// Makes an engine and stores it. config may be NULL: one shard with a thread of its own, and the
/// defaults of trunk_engine_config. Everything that config points to is copied. The caller owns the
/// engine and ends it with trunk_engine_destroy.
///
/// Any thread; several engines in one process are fine. Waits for the threads of the shards to
/// start and reads the files that config names, does not block otherwise. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_DRIVER, TRUNK_ERR_SYSTEM, TRUNK_ERR_FILE,
/// TRUNK_ERR_SECURITY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_new(
    config: *const trunk_engine_config,
    engine: *mut *mut trunk_engine,
) -> trunk_result {
    guard(|| {
        abi::expect(engine, "engine")?;
        // SAFETY: a config by contract.
        let config = unsafe { abi::read(config) }?;
        // SAFETY: as above.
        let settings = unsafe { config.convert() }?;
        let log = log::dispatch(config.log, config.log_user, config.log_level)?;
        let names = Arc::new(Names::next());
        // SAFETY: callbacks by contract.
        let callbacks = unsafe { callbacks::optional(config.callbacks, &names) }?;
        let linger = settings.connection.linger_timeout.into();
        let send_buffer_bytes = settings.send_buffer_bytes;
        // Forks are counted from before the engine has anything.
        let _ = fork::generation();
        let start = || match (config.threadless != 0, callbacks) {
            (true, None) => QueuedEngine::local(settings),
            (true, Some(callbacks)) => QueuedEngine::local_with(settings, callbacks),
            (false, None) => QueuedEngine::start(settings),
            (false, Some(callbacks)) => QueuedEngine::start_with(settings, callbacks),
        };
        let queued = log::with(log.as_ref(), start)?;
        let driver = if queued.is_threadless() { "" } else { queued.driver_name() };
        let live = Live {
            queued,
            names,
            groups: RwLock::new(Vec::new()),
            listeners: Mutex::new(Vec::new()),
            linger,
            stopped: AtomicBool::new(false),
            send_buffer_bytes,
            driver,
            owner: OnceLock::new(),
            log,
        };
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(engine, "engine", enlist(live)) }
    })
}

/// Ends an engine and frees what it has: connections that are still there end at once (see
/// trunk_shutdown for the patient way), and its threads are gone when the call returns. NULL is
/// allowed. Received items stay valid, and trunk_message_release still takes them; buffers of
/// trunk_buf_alloc too. A thread-less engine is to be destroyed by the thread that polled it;
/// destroyed by another one, its sockets stay open until that thread ends, which must not be just
/// then. Callbacks are not called any more when this has returned.
///
/// Any thread, but no other call with this engine may be going on or follow: one that follows gives
/// TRUNK_ERR_INVALID_HANDLE. Waits for the engine's threads, for milliseconds. Errors:
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed), TRUNK_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_destroy(engine: *mut trunk_engine) -> trunk_result {
    guard(|| {
        if engine.is_null() {
            return Ok(());
        }
        outside_of_callbacks()?;
        // SAFETY: from `trunk_engine_new` by contract.
        unsafe { live(engine) }?;
        // SAFETY: what it points to is never freed.
        let taken = unsafe { &*engine }.live.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if taken.is_null() {
            return Err(Error::handle("the engine was destroyed"));
        }
        // SAFETY: made by `Box::into_raw`, and the swap gives it to one caller only.
        let live = unsafe { Box::from_raw(taken) };
        let (log, names) = (live.log.clone(), live.names.clone());
        log::with(log.as_ref(), || drop(live));
        names.gone.store(true, Ordering::Release);
        Ok(())
    })
}

/// What became of one connection. Of fixed size: it does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_conn_report {
    /// The connection; its handle is stale.
    pub conn: trunk_conn,
    /// Its user data.
    pub conn_user: *mut std::ffi::c_void,
    /// Bytes of reliable channels that were handed over and that the peer acknowledged.
    pub acknowledged_bytes: u64,
    /// Bytes of reliable channels that were handed over and not acknowledged.
    pub undelivered_bytes: u64,
    /// Channels that still had undelivered data.
    pub undelivered_channels: u32,
    /// The final reason.
    pub reason: trunk_reason,
    /// Whether the peer knows that the connection has ended.
    pub peer_knows: u32,
    /// 0.
    pub reserved: [u32; 5],
}

/// How the connections of an engine ended. trunk_shutdown_report_init prepares it; the caller may
/// then set connections and connection_capacity.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_shutdown_report {
    /// Size of this struct; set by trunk_shutdown_report_init.
    pub struct_size: u32,
    /// Whether every reliable byte of every connection was acknowledged.
    pub all_delivered: u32,
    /// Connections that there were when the shutdown began.
    pub connection_count: u64,
    /// Sum over all of them.
    pub acknowledged_bytes: u64,
    /// Sum over all of them.
    pub undelivered_bytes: u64,
    /// Shards that had failed, or did not answer.
    pub failed_shards: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Caller's array for what became of each connection, or NULL.
    pub connections: *mut trunk_conn_report,
    /// Its places; connections beyond it are only counted.
    pub connection_capacity: usize,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_shutdown_report {
    const NAME: &'static str = "trunk_shutdown_report";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            all_delivered: 0,
            connection_count: 0,
            acknowledged_bytes: 0,
            undelivered_bytes: 0,
            failed_shards: 0,
            reserved: 0,
            connections: std::ptr::null_mut(),
            connection_capacity: 0,
        }
    }
}

/// Fills struct_size bytes at report with the defaults. Call it as
/// trunk_shutdown_report_init(&report).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_shutdown_report_init_sized(
    report: *mut trunk_shutdown_report,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(report, struct_size) })
}

/// Ends every connection of an engine: what was sent reliably is delivered first, for at most
/// linger_ns (0 = drop it, TRUNK_LINGER_DEFAULT = the configured limit), and the peers are told.
/// report, which may be NULL, says what was delivered and what was not. Nothing can be opened or
/// sent afterwards; what was received can still be read with trunk_recv_many, which gives
/// TRUNK_ERR_STOPPED after the last item. trunk_engine_destroy is still due.
///
/// Any thread; without threads the one that polls. BLOCKS until every connection is gone, at most
/// for the linger and the fin-wait limits together. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WRONG_THREAD,
/// TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED (a second shutdown), TRUNK_ERR_FORKED;
/// TRUNK_ERR_DRIVER and TRUNK_ERR_SYSTEM when a thread-less engine was never polled and its driver
/// cannot be set up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_shutdown(
    engine: *mut trunk_engine,
    linger_ns: i64,
    report: *mut trunk_shutdown_report,
) -> trunk_result {
    guard(|| {
        outside_of_callbacks()?;
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        live.drive()?;
        let linger = crate::conn::linger(live, linger_ns)?.unwrap_or_default();
        let asked = if report.is_null() {
            None
        } else {
            // SAFETY: a report by contract.
            Some(unsafe { abi::read(report) }?)
        };
        // With the last item of a connection, its pointer is forgotten.
        let users = asked.is_some().then(|| live.names.users.conns());
        let ended = live.logged(|| live.queued.shutdown(linger))?;
        live.stopped.store(true, Ordering::Release);
        let (Some(mut answer), Some(users)) = (asked, users) else { return Ok(()) };
        answer.all_delivered = ended.all_delivered().into();
        answer.connection_count = ended.connections.len() as u64;
        answer.failed_shards = (ended.failures.len() + ended.unanswered.len()) as u32;
        let room = if answer.connections.is_null() { 0 } else { answer.connection_capacity };
        for (i, (conn, end)) in ended.connections.iter().enumerate() {
            answer.acknowledged_bytes += end.acknowledged_bytes;
            answer.undelivered_bytes += end.undelivered_bytes;
            if i < room {
                let entry = trunk_conn_report {
                    conn: live.names.masks.conn(*conn),
                    conn_user: users.get(&conn.to_bits()).map_or(std::ptr::null_mut(), |at| *at),
                    acknowledged_bytes: end.acknowledged_bytes,
                    undelivered_bytes: end.undelivered_bytes,
                    undelivered_channels: end.undelivered_channels,
                    reason: end.reason.reason.0,
                    peer_knows: end.peer_knows.into(),
                    reserved: [0; 5],
                };
                // SAFETY: the caller's array has that many places.
                unsafe { answer.connections.add(i).write(entry) };
            }
        }
        // SAFETY: read from there before.
        unsafe { abi::write(report, &answer) }
    })
}

/// The name of the driver in use, a static string: "uring" or "mio". A thread-less engine knows it
/// once it was polled, and on the thread that polls; it is empty before.
///
/// Any thread; without threads the one that polls. Never blocks. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_driver(
    engine: *mut trunk_engine,
    name: *mut *const c_char,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        log::outside_of_log()?;
        let known = if live.queued.is_threadless() && live.owner.get().is_some() {
            live.drive()?;
            live.queued.driver_name()
        } else {
            live.driver
        };
        let text = match known {
            "uring" => c"uring",
            "mio" => c"mio",
            "" => c"",
            _ => c"other",
        };
        // SAFETY: writable by contract.
        unsafe { abi::put(name, "name", text.as_ptr()) }
    })
}

/// Replaces the list of addresses and networks whose connection requests are dropped.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_set_deny(
    engine: *mut trunk_engine,
    networks: *const *const c_char,
    count: usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: an array of strings by contract.
        let list = unsafe { abi::array(networks, count, "networks") }?;
        let mut nets = Vec::with_capacity(list.len());
        for net in list {
            // SAFETY: as above.
            nets.push(unsafe { abi::text(*net, "networks") }?.parse()?);
        }
        live.queued.set_deny(&nets);
        Ok(())
    })
}

/// Tells the engine that the local network has changed: connections are checked at once, and
/// clients move theirs.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_network_changed(engine: *mut trunk_engine) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        unsafe { live(engine) }?.queued.network_changed();
        Ok(())
    })
}

const _: () = assert!(size_of::<trunk_conn_report>() == 64 || size_of::<usize>() != 8);
