//! The queued API: any thread opens, sends and closes; messages and events are received from poll
//! groups.
//!
//! It is one [`Handler`](crate::Handler) of the engine and shares everything below it with the
//! inline API. Calls check their handle and go into a bounded queue of the connection's shard; a
//! full queue is [`ApiError::WouldBlock`], and an [`Event::Writable`] follows when there is room.
//! Calls that need the shard's answer ([`info`](QueuedEngine::info), [`stats`](QueuedEngine::stats),
//! [`listen`](QueuedEngine::listen), [`shutdown`](QueuedEngine::shutdown), and
//! [`open_channel`](QueuedEngine::open_channel) of a unique name) wait for it; no other call blocks.
//!
//! Received bytes belong to the engine: long ones stay where they are until the last clone of
//! their [`Retained`](crate::Retained) is dropped, and their credit returns then; short ones are
//! copied together and their credit returns when they are received.
//!
//! ```no_run
//! use trunkline::{
//!     AssociationConfig, ChannelOptions, ConnectConfig, Event, QueuedEngine, Received, SendSecurity,
//! };
//!
//! # fn run(engine: &QueuedEngine, bob: &ConnectConfig) -> Result<(), trunkline::ApiError> {
//! // A channel and the connection that it needs, shared with everybody who wants the same peer.
//! let request = engine.request_channel(bob, "file://1", &ChannelOptions::default(), None)?;
//! let association = engine.associate(bob, AssociationConfig::new("signals"), None)?;
//! engine.send_message(association, b"hello".to_vec(), 1, SendSecurity::Local)?;
//! let mut out = Vec::new();
//! engine.poll_group().recv_many(&mut out, 64, None);
//! for received in out {
//!     match received {
//!         Received::Event(Event::RequestDone { request: done, outcome }) if done == request => {
//!             engine.send(outcome.expect("a channel").channel, b"contents")?;
//!         }
//!         Received::Event(Event::Association { event, .. }) => eprintln!("{event:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | file | what it has |
//! | --- | --- |
//! | `connections`, `channels`, `sending` | the calls of the application |
//! | `managed` | shared connections and channel requests, both halves |
//! | `associations`, `listening` | associations, both halves |
//! | `directory` | associations that a call or a shard looks for |
//! | `callbacks` | groups that are told on their shards' threads |
//! | `cells` | what any thread must know of a connection or channel |
//! | `link` | what the application's threads and one shard share |
//! | `command`, `memory` | what goes to a shard |
//! | `pairings` | pairings over an event source, both halves |
//! | `handler`, `outgoing`, `waiting` | the shard's half |
//! | `group` | poll groups: what comes from the shards |
//! | `local` | the engine without threads |

mod associations;
mod callbacks;
mod cells;
mod channels;
mod command;
mod connections;
mod directory;
mod event;
mod group;
mod handler;
mod link;
mod listening;
mod local;
mod managed;
mod memory;
mod outgoing;
mod pairings;
mod sending;
mod upcalls;
mod waiting;

#[cfg(all(test, loom))]
mod tests;

pub use associations::SendSecurity;
pub use callbacks::{Callbacks, SentInside};
pub use event::{Event, Message, Received};
use group::Groups;
pub use group::PollGroup;
pub use pairings::{PairingSettings, PairingStatus};

use crate::config::EngineConfig;
use crate::engine::{Engine, ShutdownReport};
use crate::error::EngineError;
use crate::handle::{Channel, Conn};
use crate::handler::{Context, Handler as _};
use crate::shard::mailbox::Mailbox;
use crate::shard::shared::Shared;
use crate::stats::EngineStats;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use associations::Associations;
use callbacks::{inside, is_inside};
use cells::{ChannelCell, ConnCell};
use command::Command;
use crossbeam::channel::bounded;
use directory::Directory;
use handler::QueueHandler;
use link::ShardLink;
use local::{LocalRunner, Parts};
use managed::Managed;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use trunkline_proto::config::ConnectionConfig;
use trunkline_proto::error::ApiError;
use trunkline_proto::manager::ReuseKey;

/// How long a call that needs a shard's answer waits for it.
const ANSWER_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Locks something that is no part of the data path.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that a connect can share.
type Reusable = Mutex<BTreeMap<ReuseKey, Conn>>;

enum Runner {
    Threads(Engine<QueueHandler>),
    Local(Box<LocalRunner>),
}

struct Inner {
    shared: Arc<Shared>,
    links: Arc<Vec<Arc<ShardLink>>>,
    groups: Arc<Groups>,
    default_group: PollGroup,
    /// Connections that a connect can share.
    reusable: Arc<Reusable>,
    directory: Arc<Directory>,
    next_number: AtomicU64,
    next_shard: AtomicUsize,
    /// Whether [`QueuedEngine::shutdown`] was called.
    shut_down: AtomicBool,
    runner: Runner,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Runner::Local(local) = &self.runner {
            local.end();
        }
    }
}

/// An engine with the queued API. Cloning shares it; it ends with its last clone, at once, see
/// [`shutdown`](Self::shutdown) for the patient way.
#[derive(Clone)]
pub struct QueuedEngine {
    inner: Arc<Inner>,
}

/// A [`QueuedEngine`] that does not keep it alive: for what the engine itself holds, such as
/// [`Callbacks`].
#[derive(Clone, Default)]
pub struct WeakEngine {
    inner: Weak<Inner>,
}

impl WeakEngine {
    /// The engine, unless it has ended.
    pub fn upgrade(&self) -> Option<QueuedEngine> {
        self.inner.upgrade().map(|inner| QueuedEngine { inner })
    }
}

impl fmt::Debug for WeakEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakEngine")
    }
}

impl fmt::Debug for QueuedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedEngine")
            .field("shards", &self.inner.links.len())
            .field("threadless", &self.is_threadless())
            .finish_non_exhaustive()
    }
}

/// Credit is returned by this API, not by the endpoint.
fn with_manual_credit(config: &mut ConnectionConfig) {
    config.manual_credit = true;
}

impl QueuedEngine {
    /// An engine on threads of its own.
    ///
    /// # Errors
    /// Unusable settings, no driver, no thread.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        Self::build(config, false, None)
    }

    /// The same, whose own group calls `callbacks` on the shards' threads.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        config: EngineConfig,
        callbacks: Arc<dyn Callbacks>,
    ) -> Result<Self, EngineError> {
        Self::build(config, false, Some(callbacks))
    }

    /// An engine without threads and with one shard: nothing happens but in
    /// [`poll`](Self::poll).
    ///
    /// # Errors
    /// Unusable settings.
    pub fn local(mut config: EngineConfig) -> Result<Self, EngineError> {
        config.shards = 1;
        Self::build(config, true, None)
    }

    /// The same, whose own group calls `callbacks` in [`poll`](Self::poll), and in calls that wait
    /// for an answer.
    ///
    /// # Errors
    /// Unusable settings.
    pub fn local_with(
        mut config: EngineConfig,
        callbacks: Arc<dyn Callbacks>,
    ) -> Result<Self, EngineError> {
        config.shards = 1;
        Self::build(config, true, Some(callbacks))
    }

    fn build(
        mut config: EngineConfig,
        threadless: bool,
        callbacks: Option<Arc<dyn Callbacks>>,
    ) -> Result<Self, EngineError> {
        with_manual_credit(&mut config.connection);
        let shared = Shared::new(config)?;
        let config = &shared.config;
        let mailboxes: Vec<Arc<Mailbox<Command>>> =
            (0..config.shards).map(|_| Arc::new(Mailbox::new(config.mailbox))).collect();
        let links: Vec<_> = mailboxes
            .iter()
            .zip(&shared.ports)
            .enumerate()
            .map(|(i, (m, p))| Arc::new(ShardLink::new(i as u8, m.clone(), p.clone(), config)))
            .collect();
        let links = Arc::new(links);
        let weak = Arc::downgrade(&links);
        let unfinished = Arc::<AtomicUsize>::default();
        let counted = threadless.then(|| unfinished.clone());
        let group = PollGroup::new(0, config.queue_group_bytes, weak, counted, callbacks);
        let groups = Arc::new(Groups::new(group.clone(), unfinished));
        let reusable = Arc::<Reusable>::default();
        let directory = Arc::<Directory>::default();
        let handler = |shard: u8| {
            let link = links[usize::from(shard)].clone();
            let associations = Associations::new(directory.clone(), links.clone());
            let managed = Managed::new(reusable.clone(), associations);
            QueueHandler::new(shared.clone(), link, groups.clone(), managed)
        };
        let runner = if threadless {
            let mailbox = mailboxes[0].clone();
            let parts = Parts { shared: shared.clone(), handler: handler(0), mailbox };
            Runner::Local(Box::new(LocalRunner::new(parts)))
        } else {
            Runner::Threads(Engine::start_shared(shared.clone(), mailboxes, handler)?)
        };
        let inner = Inner {
            groups,
            default_group: group,
            reusable,
            directory,
            next_number: AtomicU64::new(1),
            next_shard: AtomicUsize::new(0),
            shut_down: AtomicBool::new(false),
            shared,
            links,
            runner,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same engine, not kept alive.
    pub fn downgrade(&self) -> WeakEngine {
        WeakEngine { inner: Arc::downgrade(&self.inner) }
    }

    /// Whether the application drives it with [`poll`](Self::poll).
    pub fn is_threadless(&self) -> bool {
        matches!(self.inner.runner, Runner::Local(_))
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.inner.links.len()
    }

    /// The driver in use; of an engine without threads only once it runs, and on its thread.
    pub fn driver_name(&self) -> &'static str {
        match &self.inner.runner {
            Runner::Threads(engine) => engine.driver_name(),
            Runner::Local(local) => local.with(|shard| Ok(shard.driver_name())).unwrap_or(""),
        }
    }

    // ---- without threads

    fn local_runner(&self) -> Result<&LocalRunner, EngineError> {
        match &self.inner.runner {
            Runner::Local(local) => Ok(local),
            Runner::Threads(_) => Err(EngineError::NotThreadless),
        }
    }

    /// Drives an engine without threads: does what there is to do, waiting at most `budget` for
    /// something (`None` = as long as it takes), but not while something waits in a poll group. Returns
    /// the number of things that happened.
    ///
    /// # Errors
    /// [`EngineError::WrongThread`] on any thread but the first that polled;
    /// [`EngineError::NotThreadless`]; the driver's.
    pub fn poll(&self, budget: Option<std::time::Duration>) -> Result<u64, EngineError> {
        let budget = if self.has_something() { Some(std::time::Duration::ZERO) } else { budget };
        self.local_runner()?.with(|shard| shard.poll(budget))
    }

    /// A descriptor that is readable when [`poll`](Self::poll) has work.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn fd(&self) -> Result<Option<i32>, EngineError> {
        self.local_runner()?.with(|shard| Ok(shard.fd()))
    }

    /// How long until [`poll`](Self::poll) has work even if nothing arrives; `None` = no plans, zero
    /// while something waits in a poll group.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn next_timeout(&self) -> Result<Option<std::time::Duration>, EngineError> {
        let next = self.local_runner()?.with(|shard| Ok(shard.next_timeout()))?;
        Ok(if self.has_something() { Some(std::time::Duration::ZERO) } else { next })
    }

    /// Whether something waits in a poll group of an engine without threads.
    fn has_something(&self) -> bool {
        self.inner.groups.unfinished.load(Ordering::Relaxed) > 0
    }

    /// Ends the wait of [`poll`](Self::poll), or makes the descriptor readable, from any thread.
    pub fn wake(&self) {
        for link in self.inner.links.iter() {
            link.port.wake();
        }
    }

    // ---- shards and handles

    fn link(&self, conn: Conn) -> Result<&Arc<ShardLink>, ApiError> {
        self.inner.links.get(usize::from(conn.shard())).ok_or(ApiError::InvalidHandle)
    }

    fn conn(&self, conn: Conn) -> Result<(&Arc<ShardLink>, &ConnCell), ApiError> {
        let link = self.link(conn)?;
        Ok((link, link.conn(conn)?))
    }

    #[inline]
    fn channel(&self, channel: Channel) -> Result<(&Arc<ShardLink>, &ChannelCell), ApiError> {
        let link = self.link(channel.conn())?;
        Ok((link, link.channel(channel)?))
    }

    fn call(
        link: &ShardLink,
        call: impl FnOnce(&mut QueueHandler, &mut Context<'_>) + Send + 'static,
    ) -> Result<(), ApiError> {
        let mut call = Some(call);
        inside(link, |h, cx| call.take().map(|call| call(h, cx)));
        // It was not called: we are not inside.
        call.map_or(Ok(()), |call| Self::post(link, call))
    }

    /// A call that never runs here, not even inside a callback: for callers that hold a lock which it
    /// may want. Inside, it goes before whatever is called next.
    fn post(
        link: &ShardLink,
        call: impl FnOnce(&mut QueueHandler, &mut Context<'_>) + Send + 'static,
    ) -> Result<(), ApiError> {
        link.push(Command::Call(Box::new(call)))
    }

    /// A command that takes effect at once inside a callback of its shard.
    fn command(link: &ShardLink, command: Command) -> Result<(), ApiError> {
        let mut command = Some(command);
        inside(link, |h, cx| command.take().map(|command| h.on_command(cx, command)));
        command.map_or(Ok(()), |command| link.push(command))
    }

    /// A call on a channel that takes effect on its shard.
    fn call_channel(
        &self,
        channel: Channel,
        call: impl FnOnce(&mut QueueHandler, &mut Context<'_>, Channel) + Send + 'static,
    ) -> Result<(), ApiError> {
        let (link, _) = self.channel(channel)?;
        let key = channel.key();
        Self::call(link, move |handler, cx| {
            if let Ok(real) = handler.real_channel(key.slot, key.life) {
                call(handler, cx, real);
            }
        })
    }

    /// Asks the shard of a connection and waits for the answer.
    fn ask<R: Send + 'static>(
        &self,
        conn: Conn,
        question: impl FnOnce(&mut QueueHandler, &mut Context<'_>, Conn) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        let (link, _) = self.conn(conn)?;
        self.ask_shard(link, move |handler, cx| {
            handler.real_conn(conn).map(|real| question(handler, cx, real))
        })?
    }

    /// Asks a shard and waits for the answer.
    fn ask_shard<R: Send + 'static>(
        &self,
        link: &ShardLink,
        question: impl FnOnce(&mut QueueHandler, &mut Context<'_>) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        let mut ask = Some(question);
        if let Some(Some(answer)) = inside(link, |h, cx| ask.take().map(|ask| ask(h, cx))) {
            return Ok(answer);
        }
        let Some(ask) = ask.filter(|_| !is_inside()) else {
            // It may be asking us at this moment, and neither would answer.
            return Err(ApiError::WouldBlock("another shard, asked from inside a callback"));
        };
        match &self.inner.runner {
            Runner::Local(local) => {
                let answer = local.with(|shard| {
                    // What was asked for before happens before.
                    shard.poll(Some(std::time::Duration::ZERO))?;
                    Ok(shard.with_context(|cx, handler| ask(handler, cx)))
                });
                match answer {
                    Ok(answer) => answer.ok_or(ApiError::NoConnection("the shard has failed")),
                    Err(EngineError::WrongThread) => {
                        Err(ApiError::NoConnection("only the polling thread may ask"))
                    }
                    Err(_) => Err(ApiError::NoConnection("the engine has ended")),
                }
            }
            Runner::Threads(_) => {
                let (reply, answer) = bounded(1);
                // Whoever is first decides: the shard begins with it, or it is never done.
                let decided = Arc::new(AtomicBool::new(false));
                let begun = decided.clone();
                Self::call(link, move |handler, cx| {
                    if !begun.swap(true, Ordering::AcqRel) {
                        let _ = reply.try_send(ask(handler, cx));
                    }
                })?;
                let in_time = answer.recv_timeout(ANSWER_WAIT).ok();
                let late = || {
                    let is_coming = decided.swap(true, Ordering::AcqRel);
                    is_coming.then(|| answer.recv().ok()).flatten()
                };
                in_time.or_else(late).ok_or(ApiError::NoConnection("the shard does not answer"))
            }
        }
    }

    // ---- receiving

    /// The group of all connections that were not given another one.
    pub fn poll_group(&self) -> &PollGroup {
        &self.inner.default_group
    }

    /// A further group.
    ///
    /// # Errors
    /// Too many groups (1024).
    pub fn new_poll_group(&self) -> Result<PollGroup, ApiError> {
        self.add_group(None)
    }

    fn add_group(&self, callbacks: Option<Arc<dyn Callbacks>>) -> Result<PollGroup, ApiError> {
        let shared = &self.inner.shared;
        self.inner.groups.add(|index| {
            let links = Arc::downgrade(&self.inner.links);
            let bytes = shared.config.queue_group_bytes;
            let counted = self.is_threadless().then(|| self.inner.groups.unfinished.clone());
            PollGroup::new(index, bytes, links, counted, callbacks)
        })
    }

    /// What arrives for a connection shows in `group` from now on; what is in another group already
    /// stays there.
    ///
    /// # Errors
    /// A stale handle.
    pub fn assign(&self, conn: Conn, group: &PollGroup) -> Result<(), ApiError> {
        let (_, cell) = self.conn(conn)?;
        cell.group.store(group.index, Ordering::Release);
        Ok(())
    }

    // ---- the engine

    /// Counters and histograms of every shard that answers; of none inside a callback.
    pub fn engine_stats(&self) -> EngineStats {
        match &self.inner.runner {
            Runner::Threads(_) if is_inside() => EngineStats::default(),
            Runner::Threads(engine) => engine.stats(),
            Runner::Local(local) => {
                let mut stats = EngineStats::default();
                stats.shards.extend(local.with(|shard| Ok(shard.stats())).ok());
                stats
            }
        }
    }

    /// Ends every connection: what was sent reliably is delivered first, for at most `linger`.
    /// Waits until all connections are gone or the limits have passed, and says what became of
    /// each. An engine without threads must be ended on its thread.
    ///
    /// # Errors
    /// [`EngineError::WrongThread`]; [`EngineError::Stopped`] for a second call.
    pub fn shutdown(&self, linger: std::time::Duration) -> Result<ShutdownReport, EngineError> {
        let report = match &self.inner.runner {
            Runner::Threads(_) if self.inner.shut_down.swap(true, Ordering::AcqRel) => {
                return Err(EngineError::Stopped);
            }
            Runner::Threads(engine) => engine.shutdown(linger),
            Runner::Local(local) => {
                let report = local.with(|shard| shard.end(linger))?;
                local.end();
                report
            }
        };
        for group in self.inner.groups.from(0) {
            group.end();
        }
        Ok(report)
    }
}
