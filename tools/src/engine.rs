//! The engine as the commands use it: one shard, and a way to reach its handler from threads that
//! start before it does.

use crate::cli::Driver;
use crate::exit::Failure;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use trunkline::stats::ShardStats;
use trunkline::{DriverChoice, Engine, EngineConfig, Handler};

/// How long a thread waits before it tries again to reach a shard whose mailbox is full.
const RETRY: Duration = Duration::from_micros(50);

/// Reaches the handler of an engine, also one that is yet to start.
pub struct Post<H: Handler> {
    engine: Arc<OnceLock<Engine<H>>>,
    ended: Arc<AtomicBool>,
}

impl<H: Handler> Clone for Post<H> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), ended: Arc::clone(&self.ended) }
    }
}

impl<H: Handler> Post<H> {
    /// For an engine that is yet to start.
    pub fn new() -> Self {
        Self { engine: Arc::default(), ended: Arc::default() }
    }

    /// Starts the engine.
    pub fn start(&self, config: EngineConfig, handler: H) -> Result<&Engine<H>, Failure> {
        let mut handler = Some(handler);
        let engine = Engine::start(config, |_shard| {
            handler.take().unwrap_or_else(|| unreachable!("one shard has one handler"))
        })
        .map_err(|e| Failure::connection(e.to_string()))?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Hands `command` to the handler; waits while its mailbox is full. Lost once the engine has
    /// ended.
    pub fn deliver(&self, command: H::Command) {
        let mut command = command;
        while !self.ended.load(Ordering::Relaxed) {
            let Some(engine) = self.engine.get() else {
                thread::sleep(RETRY);
                continue;
            };
            match engine.post(0, command) {
                Ok(()) => return,
                Err(full) => command = full.0,
            }
            thread::sleep(RETRY);
        }
    }

    /// The figures of its shard; all zero before it starts and once it has ended.
    pub fn stats(&self) -> ShardStats {
        let engine = self.engine.get().filter(|_| !self.ended.load(Ordering::Relaxed));
        engine.and_then(|engine| engine.stats().shards.pop()).unwrap_or_default()
    }

    /// Ends the engine: connections get at most `linger` to deliver what they have.
    pub fn shutdown(&self, linger: Duration) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(engine) = self.engine.get() {
            engine.shutdown(linger);
        }
    }
}

/// Where `--stats-file` has the figures of the running engine kept.
#[derive(Debug, Default, clap::Args)]
pub struct StatsFileArg {
    /// Keep figures of the running engine in this file, for `trunkline top` (docs/watching.md); it
    /// stays when we end, and an existing one is replaced.
    #[arg(long, value_name = "FILE")]
    pub stats_file: Option<PathBuf>,
}

impl StatsFileArg {
    /// What goes into the settings of the engine.
    pub fn path(&self) -> Option<PathBuf> {
        self.stats_file.clone()
    }
}

/// The settings that every command starts from.
pub fn config(driver: Driver) -> EngineConfig {
    EngineConfig {
        driver: match driver {
            Driver::Auto => DriverChoice::Auto,
            Driver::Uring => DriverChoice::Uring,
            Driver::Mio => DriverChoice::Mio,
        },
        ..EngineConfig::default()
    }
}

/// Lets this process have as many files as the system allows: every connection over TLS is one.
pub fn raise_file_limit() {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let raised = getrlimit(Resource::RLIMIT_NOFILE)
            .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}
