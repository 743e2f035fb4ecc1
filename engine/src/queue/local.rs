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

thread_local! {
    /// The shards that this thread drives, by the number of their engine.
    static SHARDS: RefCell<Vec<(u64, Queue)>> = const { RefCell::new(Vec::new()) };
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
        let run = |shards: &RefCell<Vec<(u64, Queue)>>| {
            // A log subscriber that calls back is the only way to find it taken.
            let mut shards = shards
                .try_borrow_mut()
                .map_err(|_| ApiError::WouldBlock("the engine that is being polled"))?;
            if !shards.iter().any(|(id, _)| *id == self.id) {
                let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Parts { shared, handler, mailbox } = parts.ok_or(EngineError::Stopped)?;
                let driver = AnyDriver::open(&shared.config, shared.driver)?;
                shards.push((self.id, LocalShard::build(shared, driver, handler, mailbox)?));
            }
            let (_, shard) =
                shards.iter_mut().find(|(id, _)| *id == self.id).ok_or(EngineError::Stopped)?;
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
            let shard = shards.try_borrow_mut().ok().and_then(|mut shards| {
                let at = shards.iter().position(|(id, _)| *id == self.id)?;
                Some(shards.swap_remove(at))
            });
            if let Some((_, mut shard)) = shard {
                shard.stop();
            }
        });
    }
}
