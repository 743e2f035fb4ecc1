//! An event source as a server: where clients that know each other's names find each other
//! (`docs/pairing.md`, `docs/event-source.md`).

use crate::abi::{self, Struct};
use crate::callbacks::outside_of_callbacks;
use crate::config::trunk_engine_config;
use crate::conn::{TRUNK_LINGER_DEFAULT, trunk_listen_config};
use crate::fork;
use crate::handle::{Masks, trunk_listener};
use crate::instance::{lock, trunk_shutdown_report};
use crate::log;
use crate::registry::{Kind, Registry};
use crate::result::{
    Error, Result, TRUNK_ERR_FAILED, TRUNK_ERR_STOPPED, TRUNK_ERR_WOULD_BLOCK, guard, trunk_result,
};
use crate::source::{trunk_source_config, trunk_source_stats};
use crate::stats::{trunk_engine_stats, trunk_shard_stats};
use crate::token::{key_ring, trunk_token_key};
use engine::rendezvous::{EventSourceServer, connection_config};
use std::ffi::c_char;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Dispatch;

/// A running event source. 0 is none.
pub type trunk_event_source = u64;

/// What a handle names.
struct Source {
    server: EventSourceServer,
    masks: Masks,
    listeners: Mutex<Vec<(trunk_listener, SocketAddr)>>,
    /// Limit of a linger that is not stated.
    linger: Duration,
    /// It is shut down, or that is under way.
    ended: AtomicBool,
    log: Option<Dispatch>,
}

static SOURCES: Registry<Source> =
    Registry::new(Kind::EventSource, "invalid or already closed event source");

impl Source {
    /// Runs `f` with the log of this event source.
    fn logged<R>(&self, f: impl FnOnce(&EventSourceServer) -> R) -> R {
        log::with(self.log.as_ref(), || f(&self.server))
    }
}

/// The event source behind a handle, unless it is shut down.
fn running(event_source: trunk_event_source) -> Result<Arc<Source>> {
    let source = SOURCES.get(event_source)?;
    if source.ended.load(Ordering::Acquire) {
        return Err(Error::new(TRUNK_ERR_STOPPED, "the event source is shut down"));
    }
    Ok(source)
}

/// The same, for calls that wait for its shards, which must not wait for themselves.
fn answering(event_source: trunk_event_source) -> Result<Arc<Source>> {
    let source = running(event_source)?;
    outside_of_callbacks()?;
    Ok(source)
}

/// Starts an event source and stores its handle, which is valid until trunk_event_source_close. It
/// has an engine of its own, with threads: engine says how it is set up, without callbacks, and
/// source what the event source does, either of which may be NULL. Without engine->connection,
/// connections have settings that suit many clients with little traffic, not those of
/// trunk_connection_config_init. With engine->identity, the clients of an event source that was
/// killed learn at once that it was started again. Clients are let in with tokens that are signed
/// with one of key_count keys; without any, nobody is before trunk_event_source_set_keys.
/// Everything is copied.
///
/// Any thread; several event sources in one process are fine. Waits for the threads of the shards
/// to start and reads the files that engine names, does not block otherwise. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_DRIVER, TRUNK_ERR_SYSTEM, TRUNK_ERR_FILE,
/// TRUNK_ERR_SECURITY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_start(
    engine: *const trunk_engine_config,
    source: *const trunk_source_config,
    keys: *const trunk_token_key,
    key_count: usize,
    event_source: *mut trunk_event_source,
) -> trunk_result {
    guard(|| {
        abi::expect(event_source, "event_source")?;
        // SAFETY: settings by contract.
        let (engine, source) = unsafe { (abi::read(engine)?, abi::read(source)?) };
        if engine.threadless != 0 {
            return Err(Error::invalid("threadless", "must be 0: an event source has threads"));
        }
        if !engine.callbacks.is_null() {
            return Err(Error::invalid("callbacks", "must be NULL: an event source tells nothing"));
        }
        // SAFETY: the pointers are NULL or point to what their fields say.
        let (mut settings, source, keys) =
            unsafe { (engine.convert()?, source.convert()?, key_ring(keys, key_count)?) };
        if engine.connection.is_null() {
            settings.connection = connection_config();
        }
        let log = log::dispatch(engine.log, engine.log_user, engine.log_level)?;
        let linger = settings.connection.linger_timeout.into();
        // Forks are counted from before the engine has anything.
        let _ = fork::generation();
        let start = || EventSourceServer::start(settings, &source, &keys);
        let server = log::with(log.as_ref(), start)?;
        let made = Source {
            server,
            masks: Masks::next(),
            listeners: Mutex::new(Vec::new()),
            linger,
            ended: AtomicBool::new(false),
            log,
        };
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(event_source, "event_source", SOURCES.insert(made)) }
    })
}

/// Has an event source accept clients at an address, and stores the listener, which is valid until
/// trunk_event_source_unlisten. Can be called for several addresses. client_trust is usually NULL:
/// clients are known by their tokens. Everything that config points to is copied.
///
/// Any thread, but not inside a callback. Waits for the shards to take their sockets, for
/// microseconds; reads the files that config names. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM (the address is taken or
/// not ours), TRUNK_ERR_FILE, TRUNK_ERR_SECURITY, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED,
/// TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_listen(
    event_source: trunk_event_source,
    config: *const trunk_listen_config,
    listener: *mut trunk_listener,
) -> trunk_result {
    guard(|| {
        let source = answering(event_source)?;
        abi::expect(listener, "listener")?;
        // SAFETY: a config by contract.
        let settings = unsafe { trunk_listen_config::required(config) }?;
        let made = source.logged(|server| server.listen(&settings))?;
        let handle = source.masks.listener(made.id);
        lock(&source.listeners).push((handle, made.local_addr));
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(listener, "listener", handle) }
    })
}

/// Stores the address of a listener of an event source, with the port that the system chose, as a
/// text with a final NUL in the capacity bytes at address. 64 bytes are always enough. size, which
/// may be NULL, gets the bytes needed.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_address(
    event_source: trunk_event_source,
    listener: trunk_listener,
    address: *mut c_char,
    capacity: usize,
    size: *mut usize,
) -> trunk_result {
    guard(|| {
        let source = SOURCES.get(event_source)?;
        let known = lock(&source.listeners).iter().find(|l| l.0 == listener).map(|l| l.1);
        let found = known.ok_or(Error::handle("invalid or already closed listener"))?;
        // SAFETY: the caller's buffer.
        unsafe { abi::put_text(&found.to_string(), address, capacity, size) }
    })
}

/// Has an event source accept no more clients there; those that are connected stay. The listener is
/// stale afterwards.
///
/// Any thread, but not inside a callback. Waits for the shards, for microseconds. Errors:
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_event_source_unlisten(
    event_source: trunk_event_source,
    listener: trunk_listener,
) -> trunk_result {
    guard(|| {
        let source = answering(event_source)?;
        let id = source.masks.listener_of(listener)?;
        let mut listeners = lock(&source.listeners);
        let at = listeners
            .iter()
            .position(|l| l.0 == listener)
            .ok_or(Error::handle("invalid or already closed listener"))?;
        listeners.swap_remove(at);
        drop(listeners);
        source.logged(|server| server.unlisten(id));
        Ok(())
    })
}

/// Gives an event source other keys for the tokens of clients to come, in place of all it had.
/// Clients that are connected stay. To change a key, add the new one beside the old one, mint with
/// the new one, and take the old one away when its tokens have expired.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK (not every shard has them: call it again),
/// TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_set_keys(
    event_source: trunk_event_source,
    keys: *const trunk_token_key,
    key_count: usize,
) -> trunk_result {
    guard(|| {
        let source = running(event_source)?;
        // SAFETY: an array of keys by contract.
        let keys = unsafe { key_ring(keys, key_count) }?;
        let all = source.logged(|server| server.set_keys(&keys));
        all.map_err(|_| Error::new(TRUNK_ERR_WOULD_BLOCK, "a shard takes no more calls now"))
    })
}

/// Stores gauges and counters of an event source.
///
/// Any thread, but not inside a callback. Waits for the shards, usually for microseconds. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_IN_CALLBACK,
/// TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_get_stats(
    event_source: trunk_event_source,
    stats: *mut trunk_source_stats,
) -> trunk_result {
    guard(|| {
        let source = answering(event_source)?;
        abi::expect(stats, trunk_source_stats::NAME)?;
        let (found, engine) = source.logged(|server| (server.stats(), server.engine_stats()));
        let failed = engine.shards.iter().filter(|shard| shard.failure.is_some()).count();
        let answer = trunk_source_stats {
            shards: source.server.shards() as u32,
            failed_shards: failed as u32,
            ..trunk_source_stats::from(&found)
        };
        // SAFETY: a struct by contract.
        unsafe { abi::write(stats, &answer) }
    })
}

/// Stores counters of the engine of an event source.
///
/// Threads as trunk_event_source_get_stats. Errors: as trunk_event_source_get_stats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_get_engine_stats(
    event_source: trunk_event_source,
    stats: *mut trunk_engine_stats,
) -> trunk_result {
    guard(|| {
        let source = answering(event_source)?;
        abi::expect(stats, trunk_engine_stats::NAME)?;
        let found = source.logged(EventSourceServer::engine_stats);
        // SAFETY: a struct by contract.
        unsafe { abi::write(stats, &trunk_engine_stats::from(&found)) }
    })
}

/// Stores counters and gauges of one shard of the engine of an event source, from 0 to one less
/// than the number of shards.
///
/// Threads as trunk_event_source_get_stats. Errors: as trunk_event_source_get_stats; and
/// TRUNK_ERR_FAILED when the shard does not answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_get_shard_stats(
    event_source: trunk_event_source,
    shard: u32,
    stats: *mut trunk_shard_stats,
) -> trunk_result {
    guard(|| {
        let source = answering(event_source)?;
        abi::expect(stats, trunk_shard_stats::NAME)?;
        if shard as usize >= source.server.shards() {
            return Err(Error::invalid("shard", "is not below the number of shards"));
        }
        let found = source.logged(EventSourceServer::engine_stats);
        let one = found.shards.iter().find(|one| u32::from(one.shard) == shard);
        let one = one.ok_or(Error::new(TRUNK_ERR_FAILED, "the shard does not answer"))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(stats, &trunk_shard_stats::from(one)) }
    })
}

/// Ends an event source: nobody is let in any more, and every client is told that it may come back
/// (to this event source when it is started again, or to another) and gets at most linger_ns to
/// take what it was sent (0 = nothing, TRUNK_LINGER_DEFAULT = the configured limit). report, which
/// may be NULL, says how that went; its connections must be NULL, as those of an event source have
/// no handles. trunk_event_source_close is still due.
///
/// Any thread. BLOCKS until every connection is gone, at most for the linger and the fin-wait
/// limits together. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED (a second shutdown), TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_event_source_shutdown(
    event_source: trunk_event_source,
    linger_ns: i64,
    report: *mut trunk_shutdown_report,
) -> trunk_result {
    guard(|| {
        outside_of_callbacks()?;
        let source = running(event_source)?;
        let linger = match linger_ns {
            TRUNK_LINGER_DEFAULT => source.linger,
            ns => abi::limit(ns).ok_or(Error::invalid("linger_ns", "is negative"))?,
        };
        let asked = if report.is_null() {
            None
        } else {
            // SAFETY: a report by contract.
            Some(unsafe { abi::read(report) }?)
        };
        if asked.is_some_and(|report| !report.connections.is_null()) {
            return Err(Error::invalid("connections", "must be NULL"));
        }
        if source.ended.swap(true, Ordering::AcqRel) {
            return Err(Error::new(TRUNK_ERR_STOPPED, "the event source is shut down"));
        }
        let ended = source.logged(|server| server.shutdown(linger));
        let Some(mut answer) = asked else { return Ok(()) };
        answer.all_delivered = ended.all_delivered().into();
        answer.connection_count = ended.connections.len() as u64;
        answer.failed_shards = (ended.failures.len() + ended.unanswered.len()) as u32;
        let ends = || ended.connections.iter().map(|(_, end)| end);
        answer.acknowledged_bytes = ends().map(|end| end.acknowledged_bytes).sum();
        answer.undelivered_bytes = ends().map(|end| end.undelivered_bytes).sum();
        // SAFETY: read from there before.
        unsafe { abi::write(report, &answer) }
    })
}

/// Ends an event source, if trunk_event_source_shutdown has not, and frees what it has: clients are
/// not told and come back by themselves. Its handle and those of its listeners are stale at once.
///
/// Any thread. Waits for the threads of the shards, for milliseconds; a call with this event source
/// that another thread is inside of ends first, and waits for them instead. Errors:
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_event_source_close(event_source: trunk_event_source) -> trunk_result {
    guard(|| {
        outside_of_callbacks()?;
        let source = SOURCES.take(event_source)?;
        let log = source.log.clone();
        log::with(log.as_ref(), || drop(source));
        Ok(())
    })
}
