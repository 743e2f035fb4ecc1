//! Shards on threads of the engine.

use super::Shard;
use super::dispatch::panic_text;
use super::drive::AnyDriver;
use super::mailbox::Mailbox;
use super::shared::Shared;
use crate::config::Pinning;
use crate::error::EngineError;
use crate::handler::Handler;
use crate::hw;
use crate::io::Driver;
use crossbeam::channel::Sender;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use tracing::subscriber::NoSubscriber;

/// Said by a shard's thread once it runs or cannot.
pub(crate) type Started = Result<&'static str, EngineError>;

/// Starts the thread of one shard. It reports on `started` and runs until it is told to end.
pub(crate) fn spawn<H: Handler>(
    shared: Arc<Shared>,
    shard: u8,
    handler: H,
    mailbox: Arc<Mailbox<H::Command>>,
    started: Sender<Started>,
) -> Result<JoinHandle<()>, EngineError> {
    // Whoever starts an engine with a log of its own gets the shards' lines too.
    let log = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    let run = move || run(&shared, shard, handler, mailbox, &started);
    std::thread::Builder::new()
        .name(format!("trunk-shard-{shard}"))
        .spawn(move || {
            if log.is::<NoSubscriber>() {
                run();
            } else {
                tracing::dispatcher::with_default(&log, run);
            }
        })
        .map_err(|e| EngineError::system("thread of a shard", e))
}

fn run<H: Handler>(
    shared: &Arc<Shared>,
    shard: u8,
    handler: H,
    mailbox: Arc<Mailbox<H::Command>>,
    started: &Sender<Started>,
) {
    if let Pinning::Cores(cores) = &shared.config.pin
        && let Some(core) = cores.get(usize::from(shard))
        && !hw::pin_to(*core)
    {
        tracing::warn!(shard, core, "the system refuses to run this shard on that processor");
    }
    // Made here: memory near this processor, and a ring that belongs to this thread.
    let made = AnyDriver::open(&shared.config, shared.driver)
        .and_then(|driver| Shard::new(shared.clone(), shard, driver, handler, mailbox));
    let mut this = match made {
        Ok(this) => this,
        Err(e) => {
            shared.ports[usize::from(shard)].close();
            let _ = started.send(Err(e));
            return;
        }
    };
    let _ = started.send(Ok(this.driver.name()));
    tracing::debug!(shard, driver = this.driver.name(), "shard runs");
    let ran = catch_unwind(AssertUnwindSafe(|| {
        while !this.is_finished() {
            if let Err(error) = this.turn(None) {
                this.give_up(&error.to_string());
            }
        }
    }));
    if let Err(panic) = ran {
        // A mistake of the engine itself: nothing of this shard can be trusted any more.
        let message = panic_text(&*panic);
        tracing::error!(shard, message, "shard failed");
        this.give_up(message);
    }
    tracing::debug!(shard, "shard ended");
}
