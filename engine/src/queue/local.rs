//! A queued engine without threads: its one shard lives with the thread that polls it first.

use super::handler::QueueHandler;
use crate::error::EngineError;
use crate::handler::Handler;
use crate::shard::drive::AnyDriver;
use crate::shard::local::LocalShard;
use crate::shard::mailbox::Mailbox;
use crate::shard::shared::Shared;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use trunkline_proto::error::ApiError;

type Queue = LocalShard<QueueHandler>;

/// A shard that ends only in the process that made it: a forked child has its memory, but not its
/// ring, and must not end the connections of its parent when it exits.
struct Own {
    engine: u64,
    process: u32,
    shard: Option<Queue>,
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take()
            && std::process::id() != self.process
        {
            std::mem::forget(shard);
        }
    }
}

thread_local! {
    /// The shards that this thread drives.
    static SHARDS: RefCell<Vec<Own>> = const { RefCell::new(Vec::new()) };
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What the shard is made of when its thread is known.
pub(super) struct Parts {
    pub shared: Arc<Shared>,
    pub handler: QueueHandler,
    pub mailbox: Arc<Mailbox<<QueueHandler as Handler>::Command>>,
}

/// Finds the shard of one engine, on its thread only.
pub(super) struct LocalRunner {
    id: u64,
    owner: OnceLock<ThreadId>,
    parts: Mutex<Option<Parts>>,
}

impl LocalRunner {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            owner: OnceLock::new(),
            parts: Mutex::new(Some(parts)),
        }
    }

    /// Whether the calling thread drives the shard.
    pub(super) fn is_driven_here(&self) -> bool {
        self.owner.get() == Some(&std::thread::current().id())
    }

    /// Calls `f` with the shard, which is made by the first call.
    pub(super) fn with<R>(
        &self,
        f: impl FnOnce(&mut Queue) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        let me = std::thread::current().id();
        if *self.owner.get_or_init(|| me) != me {
            return Err(EngineError::WrongThread);
        }
        let run = |shards: &RefCell<Vec<Own>>| {
            // A log subscriber that calls back is the only way to find it taken.
            let mut shards = shards
                .try_borrow_mut()
                .map_err(|_| ApiError::WouldBlock("the engine that is being polled"))?;
            if !shards.iter().any(|own| own.engine == self.id) {
                let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Parts { shared, handler, mailbox } = parts.ok_or(EngineError::Stopped)?;
                let driver = AnyDriver::open(&shared.config, shared.driver)?;
                let shard = LocalShard::build(shared, driver, handler, mailbox)?;
                let process = std::process::id();
                shards.push(Own { engine: self.id, process, shard: Some(shard) });
            }
            let own = shards.iter_mut().find(|own| own.engine == self.id);
            let shard = own.and_then(|own| own.shard.as_mut()).ok_or(EngineError::Stopped)?;
            f(shard)
        };
        SHARDS.try_with(run).map_err(|_| EngineError::Stopped)?
    }

    /// Ends the shard, if the calling thread drives it. Otherwise it ends with its thread.
    pub(super) fn end(&self) {
        if !self.is_driven_here() {
            return;
        }
        let _ = SHARDS.try_with(|shards| {
            let own = shards.try_borrow_mut().ok().and_then(|mut shards| {
                let at = shards.iter().position(|own| own.engine == self.id)?;
                Some(shards.swap_remove(at))
            });
            drop(own);
        });
    }
}
