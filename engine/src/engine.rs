//! Shards on threads of the engine, and how the application reaches them.

use crate::config::{EngineConfig, IpNet, ListenConfig};
use crate::error::{EngineError, Full};
use crate::handle::{Conn, ListenerId};
use crate::handler::Handler;
use crate::shard::bind::bind_links;
use crate::shard::control::{AddListener, Control, ShardEnd, listener_config};
use crate::shard::local::post;
use crate::shard::mailbox::Mailbox;
use crate::shard::shared::Shared;
use crate::shard::threads::{Started, spawn};
use crate::stats::{EngineStats, ShardStats};
use crossbeam::channel::{Receiver, bounded};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trunkline_proto::event::CloseReport;

/// How long a shard may take to answer a question.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// An address that is listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub id: ListenerId,
    /// The address, with the port that the system chose.
    pub local_addr: SocketAddr,
}

/// How the connections of an engine ended.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Every connection that was there when the shutdown began, with what was delivered.
    pub connections: Vec<(Conn, CloseReport)>,
    /// Shards that had given up, with the reason.
    pub failures: Vec<(u8, String)>,
    /// Shards that did not answer in time.
    pub unanswered: Vec<u8>,
}

impl ShutdownReport {
    pub(crate) fn from_ends(ends: Vec<ShardEnd>) -> Self {
        let mut report = Self::default();
        for end in ends {
            report.connections.extend(end.connections);
            report.failures.extend(end.failure.map(|f| (end.shard, f)));
        }
        report
    }

    /// Whether all reliable data of all connections was acknowledged.
    pub fn all_delivered(&self) -> bool {
        self.unanswered.is_empty() && self.connections.iter().all(|(_, r)| r.undelivered_bytes == 0)
    }
}

/// Shards on pinned threads of their own, each with a handler. Dropping it ends every connection
/// at once; see [`shutdown`](Self::shutdown) for the patient way.
pub struct Engine<H: Handler> {
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox<H::Command>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    driver_name: &'static str,
}

impl<H: Handler> Engine<H> {
    /// Starts the shards; `handler` makes the handler of each.
    ///
    /// # Errors
    /// Unusable settings, no driver, no thread.
    pub fn start(config: EngineConfig, handler: impl FnMut(u8) -> H) -> Result<Self, EngineError> {
        let shared = Shared::new(config)?;
        let mailboxes = (0..shared.config.shards)
            .map(|_| Arc::new(Mailbox::new(shared.config.mailbox)))
            .collect();
        Self::start_shared(shared, mailboxes, handler)
    }

    pub(crate) fn start_shared(
        shared: Arc<Shared>,
        mailboxes: Vec<Arc<Mailbox<H::Command>>>,
        mut handler: impl FnMut(u8) -> H,
    ) -> Result<Self, EngineError> {
        let mut engine =
            Self { shared, mailboxes, threads: Mutex::new(Vec::new()), driver_name: "" };
        let (started, answers) = bounded::<Started>(engine.mailboxes.len());
        for (shard, mailbox) in engine.mailboxes.iter().enumerate() {
            let shard = shard as u8;
            let handler = handler(shard);
            let thread =
                spawn(engine.shared.clone(), shard, handler, mailbox.clone(), started.clone())?;
            engine.threads().push(thread);
        }
        drop(started);
        for _ in 0..engine.mailboxes.len() {
            // Dropping the engine ends the shards that did start.
            engine.driver_name = answers.recv().map_err(|_| EngineError::Stopped)??;
        }
        tracing::info!(shards = engine.mailboxes.len(), driver = engine.driver_name, "engine runs");
        Ok(engine)
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    /// The driver in use.
    pub const fn driver_name(&self) -> &'static str {
        self.driver_name
    }

    /// Posts a command for [`on_command`](Handler::on_command) of one shard's handler. Wakes the
    /// shard if it sleeps.
    ///
    /// # Errors
    /// [`Full`] when its mailbox is full, it has ended, or there is no such shard; the command
    /// comes back.
    pub fn post(&self, shard: u8, command: H::Command) -> Result<(), Full<H::Command>> {
        let at = usize::from(shard);
        match (self.mailboxes.get(at), self.shared.ports.get(at)) {
            (Some(mailbox), Some(port)) => post(mailbox, port, command),
            _ => Err(Full(command)),
        }
    }

    /// Accepts connections at an address, on all shards.
    ///
    /// # Errors
    /// Unusable settings, the system's refusal of the address, or an engine that has ended.
    pub fn listen(&self, config: &ListenConfig) -> Result<Listener, EngineError> {
        let answers = listen_all(&self.shared, config)?;
        let failed = |e| EngineError::system(format!("listen at {}", config.addr), e);
        for _ in 0..self.shards() {
            let answer = answers.1.recv_timeout(ANSWER_WAIT).map_err(|_| EngineError::Stopped)?;
            if let Err(e) = answer {
                self.unlisten(answers.0.id, true);
                return Err(failed(e));
            }
        }
        tracing::info!(addr = %answers.0.local_addr, "listening");
        Ok(answers.0)
    }

    /// Accepts no more connections there. Those that exist live on unless `close_connections`; the
    /// address is free when the last of them is gone.
    pub fn unlisten(&self, id: ListenerId, close_connections: bool) {
        let done = unlisten_all(&self.shared, id, close_connections);
        for _ in 0..self.shards() {
            if done.recv_timeout(ANSWER_WAIT).is_err() {
                break;
            }
        }
    }

    /// Replaces the list of sources whose ConnectionRequests are dropped.
    pub fn set_deny(&self, nets: &[IpNet]) {
        for port in &self.shared.ports {
            let _ = port.control(Control::Deny(nets.to_vec()));
        }
    }

    /// The local network has changed: connections are checked at once, and clients move theirs.
    pub fn network_changed(&self) {
        for port in &self.shared.ports {
            let _ = port.control(Control::NetworkChanged);
        }
    }

    /// Counters and histograms of every shard that answers.
    pub fn stats(&self) -> EngineStats {
        let (reply, answers) = bounded(self.shards());
        let asked = self
            .shared
            .ports
            .iter()
            .filter(|port| port.control(Control::Stats(reply.clone())).is_ok())
            .count();
        drop(reply);
        let mut stats = EngineStats::default();
        for _ in 0..asked {
            let Ok(shard) = answers.recv_timeout(ANSWER_WAIT) else { break };
            stats.shards.push(*shard);
        }
        for shard in 0..self.shards() as u8 {
            if let Some(failure) = self.shared.failure(shard)
                && !stats.shards.iter().any(|s| s.shard == shard)
            {
                stats.shards.push(ShardStats {
                    shard,
                    counts: self.shared.counters[usize::from(shard)].read(),
                    failure: Some(failure.to_owned()),
                    ..ShardStats::default()
                });
            }
        }
        stats.shards.sort_by_key(|s| s.shard);
        stats
    }

    /// Ends every connection: what was sent reliably is delivered first, for at most `linger`.
    /// Waits until all connections are gone or the limits have passed, ends the threads, and says
    /// what became of each connection. A second call finds nothing left to report. Do not call it
    /// from a handler, whose shard would wait for itself.
    pub fn shutdown(&self, linger: Duration) -> ShutdownReport {
        let (report, ends) = bounded(self.shards());
        let mut waiting: Vec<u8> = Vec::new();
        for (shard, port) in self.shared.ports.iter().enumerate() {
            let control = Control::Shutdown { linger, report: report.clone() };
            if port.control(control).is_ok() {
                waiting.push(shard as u8);
            }
        }
        drop(report);
        let fin_wait: Duration = self.shared.config.connection.fin_wait_timeout.into();
        let deadline = Instant::now() + linger + fin_wait + ANSWER_WAIT;
        let mut collected = Vec::new();
        while !waiting.is_empty() {
            let Ok(end) = ends.recv_deadline(deadline) else { break };
            waiting.retain(|s| *s != end.shard);
            collected.push(end);
        }
        let mut result = ShutdownReport::from_ends(collected);
        for shard in 0..self.shards() as u8 {
            if let Some(failure) = self.shared.failure(shard)
                && !result.failures.iter().any(|(s, _)| *s == shard)
            {
                result.failures.push((shard, failure.to_owned()));
            }
        }
        result.unanswered = waiting;
        if result.unanswered.is_empty() {
            self.join();
            // A process may end without dropping its engine.
            if let Some(capture) = &self.shared.capture {
                capture.finish();
            }
        } else {
            // They are waited for when the engine is dropped: they may still call the handler.
            tracing::error!(shards = ?result.unanswered, "shards do not answer in time");
        }
        result
    }

    /// Waits for the threads of all shards.
    fn join(&self) {
        for thread in self.threads().drain(..) {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// Binds a group of sockets and sends one to each shard.
pub(crate) fn listen_all(
    shared: &Shared,
    config: &ListenConfig,
) -> Result<(Listener, Receiver<std::io::Result<()>>), EngineError> {
    let listener = listener_config(config, shared.key_log.clone())?;
    let failed = |e| EngineError::system(format!("listen at {}", config.addr), e);
    let bytes = shared.config.socket_buffer_bytes;
    let shards = shared.ports.len();
    let bound = bind_links(config.addr, config.links, shards, bytes).map_err(failed)?;
    let local_addr = bound.local_addr;
    let id = shared.new_listener();
    let (result, answers) = bounded(shards);
    let sockets = bound.datagrams.into_iter().zip(bound.streams);
    for (port, (socket, stream)) in shared.ports.iter().zip(sockets) {
        let add = AddListener {
            id,
            addr: local_addr,
            socket,
            stream,
            links: config.links,
            stun: config.stun,
            config: listener.clone(),
            result: Some(result.clone()),
        };
        port.control(Control::Listen(Box::new(add))).map_err(|_| EngineError::Stopped)?;
    }
    Ok((Listener { id, local_addr }, answers))
}

/// Tells every shard to listen no more; each says when it is done.
pub(crate) fn unlisten_all(
    shared: &Shared,
    id: ListenerId,
    close_connections: bool,
) -> Receiver<()> {
    let (done, answers) = bounded(shared.ports.len());
    for port in &shared.ports {
        let done = done.clone();
        let _ = port.control(Control::Unlisten { id, close_connections, done });
    }
    answers
}

impl<H: Handler> Drop for Engine<H> {
    fn drop(&mut self) {
        if self.threads().is_empty() {
            return;
        }
        for port in &self.shared.ports {
            let _ = port.control(Control::Stop);
        }
        self.join();
    }
}

impl<H: Handler> std::fmt::Debug for Engine<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("shards", &self.shards())
            .field("driver", &self.driver_name)
            .finish_non_exhaustive()
    }
}
