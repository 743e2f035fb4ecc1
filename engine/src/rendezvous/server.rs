//! An event source as a server: the machine of `trunkline_proto` on the shards of an engine.

use super::table::{ShardRouter, Table};
use super::{EVENTS_CHANNEL, RELAY_CHANNEL, channel_options, relay_options};
use crate::config::{EngineConfig, ListenConfig};
use crate::engine::{Engine, Listener, ShutdownReport};
use crate::error::EngineError;
use crate::handle::{Channel, Conn, ListenerId};
use crate::handler::{Context, Handler};
use crate::stats::EngineStats;
use crossbeam::channel::{Sender, bounded};
use crossbeam::queue::SegQueue;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::{CloseReason, Reason};
use trunkline_proto::event::{ChannelEnd, ChannelRequest, Incoming};
use trunkline_proto::rendezvous::event::Abort;
use trunkline_proto::rendezvous::event_source::{EventSource, Outlet, Refusal, Relayed, Routed};
use trunkline_proto::rendezvous::{KeyRing, SourceConfig, SourceStats};
use trunkline_proto::status::Status;
use trunkline_proto::time::Instant;

/// How long a question to a shard may take.
const ANSWER_WAIT: std::time::Duration = std::time::Duration::from_secs(2);
const TIMER: u64 = 1;

/// What an event source has to say about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Clients that are connected.
    pub clients: usize,
    /// Events that wait for clients to take them.
    pub waiting_events: usize,
    /// Bytes of them.
    pub waiting_bytes: usize,
    /// Counters since the start.
    pub source: SourceStats,
}

/// What goes from thread to shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// An event for a client of the shard.
    Routed(Box<Routed>),
    /// A packet for a client of the shard.
    Relayed(Box<Relayed>),
    /// Another shard has a newer connection of this client.
    Released(Conn),
    Keys(KeyRing),
    Stats(Sender<ServerStats>),
}

/// A running event source. Dropping it ends every connection at once; see
/// [`shutdown`](Self::shutdown) for the patient way.
#[derive(Debug)]
pub struct EventSourceServer {
    engine: Arc<Engine<SourceHandler>>,
    listeners: SegQueue<ListenerId>,
}

impl EventSourceServer {
    /// Starts the shards. Without settings of their own, give connections those of
    /// [`connection_config`](super::connection_config).
    ///
    /// # Errors
    /// Unusable settings, no driver, no thread.
    pub fn start(
        engine: EngineConfig,
        source: &SourceConfig,
        keys: &KeyRing,
    ) -> Result<Self, EngineError> {
        source.validate()?;
        let table = Arc::new(Table::default());
        let engine = Engine::start(engine, |shard| {
            let router = ShardRouter::new(table.clone(), shard);
            SourceHandler {
                source: EventSource::new(source.clone(), keys.clone(), router).ok(),
                channels: HashMap::new(),
                timer_at: None,
            }
        })?;
        let engine = Arc::new(engine);
        table.started(&engine);
        Ok(Self { engine, listeners: SegQueue::new() })
    }

    /// Accepts clients at an address, on all shards. Can be called for several addresses.
    ///
    /// # Errors
    /// As [`Engine::listen`].
    pub fn listen(&self, config: &ListenConfig) -> Result<Listener, EngineError> {
        let listener = self.engine.listen(config)?;
        self.listeners.push(listener.id);
        Ok(listener)
    }

    /// Accepts no more clients there; those that are connected stay.
    pub fn unlisten(&self, id: ListenerId) {
        self.engine.unlisten(id, false);
    }

    /// Other keys for clients to come.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] when a shard does not take them.
    pub fn set_keys(&self, keys: &KeyRing) -> Result<(), EngineError> {
        for shard in 0..self.engine.shards() as u8 {
            let command = Command::Keys(keys.clone());
            self.engine.post(shard, command).map_err(|_| EngineError::Stopped)?;
        }
        Ok(())
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.engine.shards()
    }

    /// The driver in use.
    pub fn driver_name(&self) -> &'static str {
        self.engine.driver_name()
    }

    /// What the shards that answer say, added up.
    pub fn stats(&self) -> ServerStats {
        let (reply, answers) = bounded(self.engine.shards());
        let asked = (0..self.engine.shards() as u8)
            .filter(|shard| self.engine.post(*shard, Command::Stats(reply.clone())).is_ok())
            .count();
        drop(reply);
        let mut sum = ServerStats::default();
        for _ in 0..asked {
            let Ok(one) = answers.recv_timeout(ANSWER_WAIT) else { break };
            sum.clients += one.clients;
            sum.waiting_events += one.waiting_events;
            sum.waiting_bytes += one.waiting_bytes;
            sum.source.add(&one.source);
        }
        sum
    }

    /// What the engine says.
    pub fn engine_stats(&self) -> EngineStats {
        self.engine.stats()
    }

    /// Ends the server: every client is told that it may come back (to this server when it is
    /// started again, or to another), and gets at most `linger` to take what it was sent.
    pub fn shutdown(&self, linger: std::time::Duration) -> ShutdownReport {
        // Nobody who comes back at once is let in by the one that ends.
        while let Some(id) = self.listeners.pop() {
            self.engine.unlisten(id, false);
        }
        self.engine.shutdown(linger)
    }
}

/// One shard of an event source.
#[derive(Debug)]
pub(crate) struct SourceHandler {
    /// There is one: its settings were checked.
    source: Option<EventSource<Conn, ShardRouter>>,
    channels: HashMap<Conn, Channels>,
    timer_at: Option<Instant>,
}

/// What a client has opened.
#[derive(Clone, Copy, Debug, Default)]
struct Channels {
    events: Option<Channel>,
    relay: Option<Channel>,
}

/// How events and aborts leave a shard.
struct Out<'a, 'b> {
    cx: &'a mut Context<'b>,
    channels: &'a mut HashMap<Conn, Channels>,
}

impl Out<'_, '_> {
    fn say(&mut self, channel: Option<Channel>, message: &[u8]) -> bool {
        channel.is_some_and(|channel| self.cx.send(channel, message).is_ok())
    }
}

impl Outlet<Conn> for Out<'_, '_> {
    fn send(&mut self, client: Conn, message: &[u8]) -> bool {
        self.say(self.channels.get(&client).and_then(|open| open.events), message)
    }

    fn relay(&mut self, client: Conn, message: &[u8]) -> bool {
        self.say(self.channels.get(&client).and_then(|open| open.relay), message)
    }

    fn abort(&mut self, client: Conn, reason: Abort, text: &str) {
        self.channels.remove(&client);
        tracing::info!(conn = client.to_bits(), %reason, text, "client aborted");
        let _ = self.cx.close(client, reason.reason().0, text, None);
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl SourceHandler {
    /// Calls the machine, and has its timer set.
    fn with<T>(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut EventSource<Conn, ShardRouter>, Instant, &mut Out<'_, '_>) -> T,
    ) -> Option<T> {
        let source = self.source.as_mut()?;
        let now = cx.now();
        let result = f(source, now, &mut Out { cx, channels: &mut self.channels });
        if self.timer_at.is_none()
            && let Some(at) = source.next_timeout()
        {
            self.timer_at = Some(at);
            cx.set_timer_at(at, TIMER);
        }
        Some(result)
    }

    /// A client's connection or channel has ended.
    fn gone(&mut self, cx: &mut Context<'_>, conn: Conn, reason: Option<&CloseReason>) {
        self.channels.remove(&conn);
        self.with(cx, |source, _, _| {
            if let Some(party) = source.party(conn) {
                let reason = reason.map(ToString::to_string).unwrap_or_default();
                let (app, client) = (party.app.as_str(), party.client.as_str());
                tracing::info!(conn = conn.to_bits(), app, client, reason, "client gone");
            }
            source.gone(conn);
        });
        let _ = cx.close(conn, Reason::APP.0, "", None);
    }

    /// The client opens one channel of each kind.
    fn take_channel(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) -> bool {
        let conn = channel.conn();
        match (request.name, request.options.kind) {
            (EVENTS_CHANNEL, ChannelKind::Messages) => {
                let fits = self.with(cx, |source, _, _| source.opened(conn)) == Some(true);
                let taken = fits && cx.accept_channel(channel, &channel_options()).is_ok();
                if taken {
                    self.channels.entry(conn).or_default().events = Some(channel);
                }
                taken
            }
            (RELAY_CHANNEL, ChannelKind::Datagrams) => {
                let fits = self.with(cx, |source, _, _| source.relay_opened(conn)) == Some(true);
                let taken = fits && cx.accept_channel(channel, &relay_options()).is_ok();
                if taken {
                    self.channels.entry(conn).or_default().relay = Some(channel);
                }
                taken
            }
            _ => false,
        }
    }

    /// A channel will bring no more: without that of its events, a client is of no use.
    fn channel_ended(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let conn = channel.conn();
        let Some(open) = self.channels.get_mut(&conn) else { return };
        if open.events == Some(channel) {
            self.gone(cx, conn, None);
        } else if open.relay.take_if(|relay| *relay == channel).is_some() {
            let _ = cx.finish(channel);
            self.with(cx, |source, _, _| source.relay_closed(conn));
        }
    }
}

impl Handler for SourceHandler {
    type Command = Command;

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        let remote = incoming.remote;
        let admitted = self.with(cx, |source, now, out| {
            let party = source.connect(now, unix_s(), conn, incoming.credential, out)?;
            let (app, client, role) = (party.app.as_str(), party.client.as_str(), party.role);
            tracing::info!(conn = conn.to_bits(), %remote, app, client, %role, "client attached");
            Ok(())
        });
        match admitted {
            Some(Ok(())) => {
                if cx.accept(conn).is_err() {
                    self.gone(cx, conn, None);
                }
            }
            Some(Err(refusal)) => {
                let Refusal { reason, text } = refusal;
                tracing::info!(%remote, code = reason.0, text, "client refused");
                let _ = cx.reject(conn, reason.0, &text);
            }
            None => {
                let _ = cx.reject(conn, super::BUSY.0, "");
            }
        }
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            self.gone(cx, conn, reason);
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        if !self.take_channel(cx, channel, request) {
            let text = "a messages channel named events and a datagrams channel named relay is all \
                        there is";
            let _ = cx.decline_channel(channel, Reason::APP_REJECTED.0, text);
        }
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, _: &ChannelEnd) {
        self.channel_ended(cx, channel);
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.channel_ended(cx, channel);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        let conn = channel.conn();
        let Some(open) = self.channels.get(&conn) else { return };
        if open.events == Some(channel) {
            self.with(cx, |source, now, out| source.receive(now, conn, m, out));
        } else if open.relay == Some(channel) {
            self.with(cx, |source, now, out| source.receive_relay(now, conn, m, out));
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let open = self.channels.get(&channel.conn());
        if open.is_some_and(|open| open.events == Some(channel)) {
            self.with(cx, |source, now, out| source.writable(now, channel.conn(), out));
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Routed(routed) => {
                self.with(cx, |source, now, out| source.routed(now, &routed, out));
            }
            Command::Relayed(relayed) => {
                self.with(cx, |source, _, out| source.relayed(&relayed, out));
            }
            Command::Released(conn) => {
                self.with(cx, |source, _, out| source.released(conn, out));
            }
            Command::Keys(keys) => {
                self.with(cx, |source, _, _| source.set_keys(keys));
            }
            Command::Stats(reply) => {
                let stats = self.with(cx, |source, _, _| {
                    let (waiting_events, waiting_bytes) = source.waiting();
                    let (clients, source) = (source.len(), *source.stats());
                    ServerStats { clients, waiting_events, waiting_bytes, source }
                });
                let _ = reply.send(stats.unwrap_or_default());
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) {
        self.timer_at = None;
        self.with(cx, |source, now, out| {
            source.router_mut().retry();
            source.handle_timeout(now, unix_s(), out);
        });
    }
}
