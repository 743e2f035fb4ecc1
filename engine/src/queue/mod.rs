//! The queued API: any thread opens, sends and closes; messages and events are received from poll
//! groups.
//!
//! It is one [`Handler`](crate::Handler) of the engine and shares everything below it with the
//! inline API. Calls check their handle and go into a bounded queue of the connection's shard; a
//! full queue is [`ApiError::WouldBlock`], and an [`Event::Writable`] follows when there is room.
//! Calls that need the shard's answer ([`info`](QueuedEngine::info), [`stats`](QueuedEngine::stats),
//! [`listen`](QueuedEngine::listen), [`shutdown`](QueuedEngine::shutdown)) wait for it; no other
//! call blocks.
//!
//! Received bytes belong to the engine: long ones stay where they are until the last clone of
//! their [`Retained`](crate::Retained) is dropped, and their credit returns then; short ones are
//! copied together and their credit returns when they are received.
//!
//! | file | what it has |
//! | --- | --- |
//! | `cells` | what any thread must know of a connection or channel |
//! | `link` | what the application's threads and one shard share |
//! | `command` | what goes to a shard |
//! | `handler` | the shard's half |
//! | `group` | poll groups: what comes from the shards |
//! | `local` | the engine without threads |

mod cells;
mod command;
mod event;
mod group;
mod handler;
mod link;
mod local;

pub use event::{Event, Message, Received};
pub use group::PollGroup;

use crate::buf::SendBuf;
use crate::config::{ConnectConfig, EngineConfig, IpNet, ListenConfig, Reuse};
use crate::engine::{Engine, Listener, ShutdownReport, listen_all};
use crate::error::EngineError;
use crate::handle::{Channel, Conn, ListenerId};
use crate::handler::Context;
use crate::shard::control::Control;
use crate::shard::mailbox::Mailbox;
use crate::shard::shared::Shared;
use crate::stats::EngineStats;
use cells::{ChannelCell, ConnCell, LOSSY, MESSAGES};
use command::{Command, INLINE, Part};
use crossbeam::channel::bounded;
use handler::{QueueHandler, credit_step, kind_flags};
use link::ShardLink;
use local::{LocalRunner, Parts};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trunkline_proto::config::{ChannelOptions, ConnectionConfig};
use trunkline_proto::endpoint::{ClientConfig, ConnInfo, ConnStats};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::limits;
use trunkline_proto::manager::ReuseKey;
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;

/// How long a call that needs a shard's answer waits for it.
const ANSWER_WAIT: std::time::Duration = std::time::Duration::from_secs(2);
/// Poll groups of one engine.
const MAX_GROUPS: usize = 1024;

/// Locks something that is no part of the data path.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Runner {
    Threads(Engine<QueueHandler>),
    Local(LocalRunner),
}

struct Inner {
    shared: Arc<Shared>,
    links: Arc<Vec<Arc<ShardLink>>>,
    groups: Mutex<Vec<PollGroup>>,
    default_group: PollGroup,
    /// Connections that a connect can share.
    reusable: Mutex<BTreeMap<ReuseKey, Conn>>,
    next_shard: AtomicUsize,
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
        Self::build(config, false)
    }

    /// An engine without threads and with one shard: nothing happens but in
    /// [`poll`](Self::poll).
    ///
    /// # Errors
    /// Unusable settings.
    pub fn local(mut config: EngineConfig) -> Result<Self, EngineError> {
        config.shards = 1;
        Self::build(config, true)
    }

    fn build(mut config: EngineConfig, threadless: bool) -> Result<Self, EngineError> {
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
        let group = PollGroup::new(0, config.queue_group_bytes, Arc::downgrade(&links), threadless);
        let window = config.connection.channel_window;
        let handler =
            |shard: u8| QueueHandler::new(links[usize::from(shard)].clone(), group.clone(), window);
        let runner = if threadless {
            let mailbox = mailboxes[0].clone();
            let parts = Parts { shared: shared.clone(), handler: handler(0), mailbox };
            Runner::Local(LocalRunner::new(parts))
        } else {
            Runner::Threads(Engine::start_shared(shared.clone(), mailboxes, handler)?)
        };
        let inner = Inner {
            groups: Mutex::new(vec![group.clone()]),
            default_group: group,
            reusable: Mutex::new(BTreeMap::new()),
            next_shard: AtomicUsize::new(0),
            shared,
            links,
            runner,
        };
        Ok(Self { inner: Arc::new(inner) })
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
    /// something (`None` = as long as it takes). Returns the number of things that happened.
    ///
    /// # Errors
    /// [`EngineError::WrongThread`] on any thread but the first that polled;
    /// [`EngineError::NotThreadless`]; the driver's.
    pub fn poll(&self, budget: Option<std::time::Duration>) -> Result<u64, EngineError> {
        self.local_runner()?.with(|shard| shard.poll(budget))
    }

    /// A descriptor that is readable when [`poll`](Self::poll) has work.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn fd(&self) -> Result<Option<i32>, EngineError> {
        self.local_runner()?.with(|shard| Ok(shard.fd()))
    }

    /// How long until [`poll`](Self::poll) has work even if nothing arrives; `None` = no plans.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn next_timeout(&self) -> Result<Option<std::time::Duration>, EngineError> {
        self.local_runner()?.with(|shard| Ok(shard.next_timeout()))
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
        link.push(Command::Call(Box::new(call)))
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
        question: impl FnOnce(&Context<'_>, Conn) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        let (link, _) = self.conn(conn)?;
        let ask = move |handler: &mut QueueHandler, cx: &mut Context<'_>| {
            handler.real_conn(conn).map(|real| question(cx, real))
        };
        match &self.inner.runner {
            Runner::Local(local) => {
                let answer = local.with(|shard| {
                    // What was asked for before happens before.
                    shard.poll(Some(std::time::Duration::ZERO))?;
                    Ok(shard.with_context(|cx, handler| ask(handler, cx)))
                });
                match answer {
                    Ok(answer) => answer.ok_or(ApiError::NoConnection("the shard has failed"))?,
                    Err(EngineError::WrongThread) => {
                        Err(ApiError::NoConnection("only the polling thread may ask"))
                    }
                    Err(_) => Err(ApiError::NoConnection("the engine has ended")),
                }
            }
            Runner::Threads(_) => {
                let (reply, answer) = bounded(1);
                Self::call(link, move |handler, cx| {
                    let _ = reply.try_send(ask(handler, cx));
                })?;
                answer
                    .recv_timeout(ANSWER_WAIT)
                    .map_err(|_| ApiError::NoConnection("the shard does not answer"))?
            }
        }
    }

    // ---- listening and connecting

    /// Accepts connections at an address, on all shards. Each shows as [`Event::Incoming`] in the
    /// default group.
    ///
    /// # Errors
    /// Unusable settings, or the system's refusal of the address.
    pub fn listen(&self, config: &ListenConfig) -> Result<Listener, EngineError> {
        let mut config = config.clone();
        if let Some(connection) = &mut config.connection {
            with_manual_credit(connection);
        }
        match &self.inner.runner {
            Runner::Threads(engine) => engine.listen(&config),
            Runner::Local(local) => {
                let (listener, answer) = listen_all(&self.inner.shared, &config)?;
                if local.is_driven_here() {
                    local.with(|shard| shard.poll(Some(std::time::Duration::ZERO)))?;
                    if let Ok(Err(e)) = answer.try_recv() {
                        let context = format!("listen at {}", config.addr);
                        return Err(EngineError::system(context, e));
                    }
                }
                Ok(listener)
            }
        }
    }

    /// Accepts no more connections there. Those that exist live on unless `close_connections`.
    pub fn unlisten(&self, id: ListenerId, close_connections: bool) {
        for link in self.inner.links.iter() {
            let _ = link.port.control(Control::Unlisten { id, close_connections });
        }
    }

    /// Replaces the list of sources whose ConnectionRequests are dropped.
    pub fn set_deny(&self, nets: &[IpNet]) {
        for link in self.inner.links.iter() {
            let _ = link.port.control(Control::Deny(nets.to_vec()));
        }
    }

    /// The local network has changed: connections are checked at once, and clients move theirs.
    pub fn network_changed(&self) {
        for link in self.inner.links.iter() {
            let _ = link.port.control(Control::NetworkChanged);
        }
    }

    /// Starts a connection, or finds one to share as [`ConnectConfig::reuse`] says; whoever shares
    /// a connection shares its handle, and a close closes it for all. What happens to it shows in
    /// `group`, or in the default group.
    ///
    /// # Errors
    /// Unusable settings, too many connections, or none to share.
    pub fn connect(
        &self,
        config: &ConnectConfig,
        group: Option<&PollGroup>,
    ) -> Result<Conn, ApiError> {
        config.validate()?;
        let shared = &self.inner.shared;
        let identity = config.identity.as_ref().or(shared.config.identity.as_ref());
        // Built here, where an error can be told; the shard finds it again.
        let client = ClientConfig {
            tls: shared.clients.get(&config.trust, identity, shared.key_log.clone())?,
            server_name: config.server_name.clone(),
            credential: config.credential.clone(),
            connection: None,
        };
        client.validate()?;
        let key = ReuseKey::new(&config.remotes, &client);
        let mut reusable = lock(&self.inner.reusable);
        if config.reuse != Reuse::ForceNew
            && let Some(conn) = reusable.get(&key)
            && self.is_live(*conn)
        {
            return Ok(*conn);
        }
        if config.reuse == Reuse::NeverNew {
            return Err(ApiError::NoConnection("none exists, and a new one is not wanted"));
        }
        let conn = self.begin_connect(config, group.map_or(0, |g| g.index))?;
        if reusable.len() >= 64 && reusable.len().is_power_of_two() {
            reusable.retain(|_, conn| self.is_live(*conn));
        }
        reusable.insert(key, conn);
        Ok(conn)
    }

    fn begin_connect(&self, config: &ConnectConfig, group: u32) -> Result<Conn, ApiError> {
        let next = self.inner.next_shard.fetch_add(1, Ordering::Relaxed);
        let link = &self.inner.links[next % self.inner.links.len()];
        let (index, life) = link.conns.take().ok_or(ApiError::LimitReached {
            what: "connections",
            limit: u64::from(self.inner.shared.config.max_connections),
        })?;
        if let Some(cell) = link.conns.get(index) {
            cell.begin(Status::Connecting);
        }
        let conn = link.conn_name(index, life);
        let mut config = Box::new(config.clone());
        config.reuse = Reuse::ForceNew;
        if let Some(connection) = &mut config.connection {
            with_manual_credit(connection);
        }
        let pushed = Self::call(link, move |h, cx| h.connect(cx, conn, group, &config));
        if let Err(error) = pushed {
            link.conns.give_back(index, life);
            return Err(error);
        }
        Ok(conn)
    }

    fn is_live(&self, conn: Conn) -> bool {
        matches!(self.status(conn), Status::Connecting | Status::FindingRoute | Status::Connected)
    }

    // ---- connections

    fn call_conn(
        &self,
        conn: Conn,
        call: impl FnOnce(&mut Context<'_>, Conn) + Send + 'static,
    ) -> Result<(), ApiError> {
        let (link, _) = self.conn(conn)?;
        Self::call(link, move |handler, cx| {
            if let Ok(real) = handler.real_conn(conn) {
                call(cx, real);
            }
        })
    }

    /// Host: takes a connection.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn accept(&self, conn: Conn) -> Result<(), ApiError> {
        self.call_conn(conn, |cx, real| {
            let _ = cx.accept(real);
        })
    }

    /// Host: refuses a connection; the peer learns `code` (1000–2999) and `text`. The handle is
    /// stale afterwards.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn reject(&self, conn: Conn, code: u32, text: &str) -> Result<(), ApiError> {
        let (link, cell) = self.conn(conn)?;
        if !cell.close() {
            return Err(ApiError::InvalidHandle);
        }
        let text = text.to_owned();
        Self::call(link, move |handler, cx| {
            if let Ok(real) = handler.real_conn(conn) {
                let _ = cx.reject(real, code, &text);
            }
        })
        .inspect_err(|_| cell.reopen())
    }

    /// Closes a connection; with `linger`, what was sent reliably is delivered first, for at most
    /// that long. The handle is stale at once; [`Event::Dead`] says in the end what was delivered.
    ///
    /// # Errors
    /// A stale handle (a second close too), or a full queue.
    pub fn close(
        &self,
        conn: Conn,
        code: u32,
        text: &str,
        linger: Option<std::time::Duration>,
    ) -> Result<(), ApiError> {
        let (link, cell) = self.conn(conn)?;
        if !cell.close() {
            return Err(ApiError::InvalidHandle);
        }
        let text = text.to_owned();
        let linger = linger.map(Into::into);
        Self::call(link, move |handler, cx| handler.close(cx, conn, code, &text, linger))
            .inspect_err(|_| cell.reopen())
    }

    /// The status; [`Status::None`] for a stale handle.
    pub fn status(&self, conn: Conn) -> Status {
        self.conn(conn).map_or(Status::None, |(_, cell)| cell.status())
    }

    /// What is known of a connection. Waits for its shard.
    ///
    /// # Errors
    /// A stale handle, or a shard that does not answer.
    pub fn info(&self, conn: Conn) -> Result<ConnInfo, ApiError> {
        self.ask(conn, |cx, real| cx.info(real))?.ok_or(ApiError::InvalidHandle)
    }

    /// Counters and gauges of a connection. Waits for its shard.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub fn stats(&self, conn: Conn) -> Result<ConnStats, ApiError> {
        self.ask(conn, |cx, real| cx.stats(real))?.ok_or(ApiError::InvalidHandle)
    }

    /// Asks the peer for a sign of life; no answer within the configured time ends the connection.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn check(&self, conn: Conn) -> Result<(), ApiError> {
        self.call_conn(conn, |cx, real| {
            let _ = cx.check(real);
        })
    }

    /// Keeps a number of the application with a connection.
    ///
    /// # Errors
    /// A stale handle.
    pub fn set_user_data(&self, conn: Conn, value: u64) -> Result<(), ApiError> {
        self.conn(conn).map(|(_, cell)| cell.user.store(value, Ordering::Release))
    }

    /// The number kept with a connection; 0 at first.
    ///
    /// # Errors
    /// A stale handle.
    pub fn user_data(&self, conn: Conn) -> Result<u64, ApiError> {
        self.conn(conn).map(|(_, cell)| cell.user.load(Ordering::Acquire))
    }

    // ---- channels

    /// Opens a channel. It can be sent on at once; [`Event::ChannelReady`] or
    /// [`Event::ChannelClosed`] follows.
    ///
    /// # Errors
    /// A stale handle, a connection that has ended, unusable options, or too many channels.
    pub fn open_channel(
        &self,
        conn: Conn,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<Channel, ApiError> {
        options.validate()?;
        if name.len() > limits::MAX_CHANNEL_NAME {
            return Err(ApiError::InvalidArgument {
                field: "name",
                why: "must be at most 1024 bytes",
            });
        }
        let (link, cell) = self.conn(conn)?;
        usable(cell)?;
        let (slot, life) = link.channels.take().ok_or(ApiError::LimitReached {
            what: "channels",
            limit: u64::from(limits::MAX_CHANNELS),
        })?;
        if let Some(cell) = link.channels.get(slot) {
            let window = self.inner.shared.config.connection.channel_window;
            cell.begin(conn.to_bits(), kind_flags(options.kind), credit_step(options, window));
        }
        let channel = Channel::new(conn, ChannelKey { slot, life });
        let (name, options) = (name.to_owned(), *options);
        Self::call(link, move |h, cx| h.open_channel(cx, channel, &name, &options))
            .inspect_err(|_| link.channels.give_back(slot, life))?;
        Ok(channel)
    }

    /// Accepts a channel that the peer asked for.
    ///
    /// # Errors
    /// A stale handle, unusable options, or a full queue.
    pub fn accept_channel(
        &self,
        channel: Channel,
        options: &ChannelOptions,
    ) -> Result<(), ApiError> {
        options.validate()?;
        let (_, cell) = self.channel(channel)?;
        let window = self.inner.shared.config.connection.channel_window;
        cell.credit_step.store(credit_step(options, window), Ordering::Relaxed);
        let options = *options;
        self.call_channel(channel, move |_, cx, real| {
            let _ = cx.accept_channel(real, &options);
        })
    }

    /// Declines a channel that the peer asked for.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn decline_channel(&self, channel: Channel, code: u32, text: &str) -> Result<(), ApiError> {
        let text = text.to_owned();
        self.call_channel(channel, move |_, cx, real| {
            let _ = cx.decline_channel(real, code, &text);
        })
    }

    /// Ends our direction after everything sent so far.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn finish(&self, channel: Channel) -> Result<(), ApiError> {
        let (link, _) = self.channel(channel)?;
        let ChannelKey { slot: cell, life } = channel.key();
        link.push(Command::Finish { cell, life })
    }

    /// Cancels what we are sending.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn reset(&self, channel: Channel, code: u32) -> Result<(), ApiError> {
        let (link, _) = self.channel(channel)?;
        let key = channel.key();
        Self::call(link, move |h, cx| h.reset(cx, key.slot, key.life, code))
    }

    /// Refuses the rest of what the peer sends.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn stop(&self, channel: Channel, code: u32) -> Result<(), ApiError> {
        self.call_channel(channel, move |_, cx, real| {
            let _ = cx.stop(real, code);
        })
    }

    /// Sends now what waits to be sent together with more.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn flush(&self, channel: Channel) -> Result<(), ApiError> {
        let (link, _) = self.channel(channel)?;
        let ChannelKey { slot: cell, life } = channel.key();
        link.push(Command::Flush { cell, life })
    }

    /// Keeps a number of the application with a channel.
    ///
    /// # Errors
    /// A stale handle.
    pub fn set_channel_user_data(&self, channel: Channel, value: u64) -> Result<(), ApiError> {
        self.channel(channel).map(|(_, cell)| cell.user.store(value, Ordering::Release))
    }

    /// The number kept with a channel; 0 at first.
    ///
    /// # Errors
    /// A stale handle.
    pub fn channel_user_data(&self, channel: Channel) -> Result<u64, ApiError> {
        self.channel(channel).map(|(_, cell)| cell.user.load(Ordering::Acquire))
    }

    /// A channel of this engine as one number: shard 8, place 24, life 32. 0 names nothing.
    pub const fn channel_bits(channel: Channel) -> u64 {
        let key = channel.key();
        Conn::new(channel.conn().shard(), ConnHandle { slot: key.slot, generation: key.life })
            .to_bits()
    }

    /// The channel that a number names.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`] for a stale number, or one that was never given out.
    pub fn channel_from_bits(&self, bits: u64) -> Result<Channel, ApiError> {
        let name = Conn::from_bits(bits);
        let ConnHandle { slot, generation: life } = name.handle();
        let cell = self.link(name)?.channels.check(slot, life).ok_or(ApiError::InvalidHandle)?;
        let conn = Conn::from_bits(cell.conn.load(Ordering::Relaxed));
        let channel = Channel::new(conn, ChannelKey { slot, life });
        self.channel(channel).map(|_| channel)
    }

    // ---- sending

    /// Sends a copy of `data`: the next bytes of a `bytes` channel, or one message.
    ///
    /// # Errors
    /// [`ApiError::WouldBlock`] when a queue is full ([`Event::Writable`] follows);
    /// [`ApiError::Dropped`] for an unreliable message that cannot go now;
    /// [`ApiError::MessageTooLarge`]; a stale handle, or a connection that has ended.
    #[inline]
    pub fn send(&self, channel: Channel, data: &[u8]) -> Result<(), ApiError> {
        let (link, cell) = self.channel(channel)?;
        if data.len() > INLINE {
            return self.send_copy(link, cell, channel, data, None);
        }
        ready(link, cell, channel)?;
        link.admit(cell, data.len())?;
        let key = channel.key();
        let command = Command::small(key.slot, key.life, data);
        link.push_data(channel, cell, data.len(), 0, command)
    }

    /// The same, with an [`Event::Receipt`] when the peer has acknowledged all of it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with_receipt(
        &self,
        channel: Channel,
        data: &[u8],
        token: u64,
    ) -> Result<(), ApiError> {
        let (link, cell) = self.channel(channel)?;
        self.send_copy(link, cell, channel, data, Some(token))
    }

    fn send_copy(
        &self,
        link: &ShardLink,
        cell: &ChannelCell,
        channel: Channel,
        data: &[u8],
        receipt: Option<u64>,
    ) -> Result<(), ApiError> {
        self.check_len(cell, data.len())?;
        ready(link, cell, channel)?;
        link.admit(cell, data.len())?;
        let data = self.copy(data);
        push_payload(link, cell, channel, data, receipt, true)
    }

    /// A copy in a buffer of the engine if that is worth it and one is free.
    fn copy(&self, data: &[u8]) -> Payload {
        let pool = &self.inner.shared.send_pool;
        let fits = data.len() <= pool.buffer_bytes() && data.len() * 2 >= pool.buffer_bytes();
        match fits.then(|| pool.take()).flatten() {
            Some(mut buf) => {
                buf[..data.len()].copy_from_slice(data);
                buf.freeze(data.len())
            }
            None => Payload::from(data.to_vec()),
        }
    }

    /// Sends without a copy; `data` is let go when all of it is acknowledged.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_payload(
        &self,
        channel: Channel,
        data: Payload,
        receipt: Option<u64>,
    ) -> Result<(), ApiError> {
        let (link, cell) = self.channel(channel)?;
        self.check_len(cell, data.len())?;
        ready(link, cell, channel)?;
        link.admit(cell, data.len())?;
        push_payload(link, cell, channel, data, receipt, false)
    }

    /// A buffer of the engine to write a payload into; `None` when all are in use or `len` is more
    /// than one holds. Send it with [`SendBuf::freeze`] and [`send_payload`](Self::send_payload).
    pub fn send_buf(&self, len: usize) -> Option<SendBuf> {
        let pool = &self.inner.shared.send_pool;
        if len > pool.buffer_bytes() { None } else { pool.take() }
    }

    /// Sends many short messages with few queue operations. Returns how many were taken, from the
    /// front; the first that was not taken gives the error.
    ///
    /// # Errors
    /// Of the first message that was not taken, beside the number of those before it: as
    /// [`send`](Self::send).
    pub fn send_many(&self, messages: &[(Channel, &[u8])]) -> (usize, Result<(), ApiError>) {
        let mut taken = 0;
        while taken < messages.len() {
            match self.send_some(&messages[taken..]) {
                (0, Err(error)) => return (taken, Err(error)),
                (some, result) => {
                    taken += some;
                    if let Err(error) = result {
                        return (taken, Err(error));
                    }
                }
            }
        }
        (taken, Ok(()))
    }

    /// One command for messages to the same shard.
    fn send_some(&self, messages: &[(Channel, &[u8])]) -> (usize, Result<(), ApiError>) {
        const BYTES: usize = 16 << 10;
        let mut parts: Vec<Part> = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let mut result = Ok(());
        let Some(shard) = messages.first().map(|(channel, _)| channel.conn().shard()) else {
            return (0, Ok(()));
        };
        for (channel, data) in messages {
            let fits = parts.is_empty() || bytes.len() + data.len() <= BYTES;
            if channel.conn().shard() != shard || !fits {
                break;
            }
            let admitted = self.channel(*channel).and_then(|(link, cell)| {
                self.check_len(cell, data.len())?;
                ready(link, cell, *channel)?;
                link.admit(cell, data.len())
            });
            if let Err(error) = admitted {
                result = Err(error);
                break;
            }
            let ChannelKey { slot: cell, life } = channel.key();
            parts.push(Part { cell, life, len: data.len() as u32 });
            bytes.extend_from_slice(data);
        }
        let Some((channel, _)) = messages.first().filter(|_| !parts.is_empty()) else {
            return (0, result);
        };
        let count = parts.len();
        let Ok(link) = self.link(channel.conn()) else { return (0, result) };
        match link.push_many(messages, parts, bytes) {
            Ok(()) => (count, result),
            Err(error) => (0, Err(error)),
        }
    }

    fn check_len(&self, cell: &ChannelCell, len: usize) -> Result<(), ApiError> {
        let limit = if cell.has(LOSSY) {
            limits::MAX_DATAGRAM
        } else if cell.has(MESSAGES) {
            self.inner.shared.config.connection.max_message
        } else {
            limits::MAX_MESSAGE
        };
        if len > limit { Err(ApiError::MessageTooLarge { len, limit }) } else { Ok(()) }
    }

    // ---- receiving

    /// The group of all connections that were not given another one.
    pub fn poll_group(&self) -> &PollGroup {
        &self.inner.default_group
    }

    /// A further group.
    ///
    /// # Errors
    /// Too many groups (1024), or a full queue.
    pub fn new_poll_group(&self) -> Result<PollGroup, ApiError> {
        let mut groups = lock(&self.inner.groups);
        if groups.len() >= MAX_GROUPS {
            return Err(ApiError::LimitReached { what: "poll groups", limit: MAX_GROUPS as u64 });
        }
        let group = PollGroup::new(
            groups.len() as u32,
            self.inner.shared.config.queue_group_bytes,
            Arc::downgrade(&self.inner.links),
            self.is_threadless(),
        );
        for link in self.inner.links.iter() {
            let group = group.clone();
            Self::call(link, move |handler, _| handler.add_group(group))?;
        }
        groups.push(group.clone());
        Ok(group)
    }

    /// What happens to a connection shows in `group` from now on.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn assign(&self, conn: Conn, group: &PollGroup) -> Result<(), ApiError> {
        let (link, _) = self.conn(conn)?;
        let index = group.index;
        Self::call(link, move |handler, _| handler.assign(conn, index))
    }

    // ---- the engine

    /// Counters and histograms of every shard that answers.
    pub fn engine_stats(&self) -> EngineStats {
        match &self.inner.runner {
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
    /// [`EngineError::WrongThread`].
    pub fn shutdown(&self, linger: std::time::Duration) -> Result<ShutdownReport, EngineError> {
        let report = match &self.inner.runner {
            Runner::Threads(engine) => engine.shutdown(linger),
            Runner::Local(local) => {
                let report = local.with(|shard| shard.end(linger))?;
                local.end();
                report
            }
        };
        for group in lock(&self.inner.groups).iter() {
            group.wake();
        }
        Ok(report)
    }
}

/// Whether a connection can still be sent on.
fn usable(cell: &ConnCell) -> Result<Status, ApiError> {
    match cell.status() {
        status @ (Status::Connecting | Status::FindingRoute | Status::Connected) => Ok(status),
        Status::None => Err(ApiError::InvalidHandle),
        _ => Err(ApiError::NoConnection("it has ended")),
    }
}

/// Whether a channel can be sent on now.
#[inline]
fn ready(link: &ShardLink, cell: &ChannelCell, channel: Channel) -> Result<(), ApiError> {
    let status = usable(link.conn(channel.conn())?)?;
    if status != Status::Connected && cell.has(LOSSY) {
        return Err(ApiError::Dropped("not connected yet"));
    }
    Ok(())
}

fn push_payload(
    link: &ShardLink,
    cell: &ChannelCell,
    channel: Channel,
    data: Payload,
    receipt: Option<u64>,
    copied: bool,
) -> Result<(), ApiError> {
    let len = data.len();
    let ChannelKey { slot, life } = channel.key();
    let command = Command::Data { cell: slot, life, data, receipt, copied };
    link.push_data(channel, cell, len, len, command)
}
