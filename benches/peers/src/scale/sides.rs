//! Both sides of a point: engines with one handler a shard.

use super::job::{Load, Point};
use crate::counters::{Counters, Series, unix_ns};
use crate::payload::Source;
use crate::peer::{Outcome, Peer};
use crate::peers::trunkline::{connect_config, identity, keep};
use crate::side::Side;
use crate::workload::{Job, OPENING, PACKET, Workload};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, Conn,
    ConnectConfig, ConnectionConfig, Context, Duration, Engine, EngineConfig, Handler, Incoming,
    ListenConfig, Pinning, Reason, Status,
};

/// Name of the peer.
pub const NAME: &str = "scale";
/// Bytes of a message of [`Load::Beats`].
const BEAT_MESSAGE: usize = 100;
/// Bytes of a message of [`Load::Flood`].
const FLOOD_MESSAGE: usize = 64;
/// Messages sent on a channel in one go.
const BURST: usize = 256;
const TIMER: u64 = 1;

/// Trunkline with as many shards, connections and channels as a [`Point`] asks for.
pub struct Scale;

impl Peer for Scale {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "Trunkline, inline API, one point of a series"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["trunkline", "ring"]
    }

    fn refuses(&self, _: Workload) -> Option<&'static str> {
        Some("is not a workload")
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        let point = point(job)?;
        let engine = Engine::start(engine_config(&point), |_| Server::new(&point, side))?;
        let listener = engine.listen(&ListenConfig::new(job.listen.parse()?, identity()?.0))?;
        side.listening(listener.local_addr);
        keep(engine);
        Ok(())
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        let point = point(job)?;
        let connect = connect_config(server)?;
        let left = Arc::new(AtomicUsize::new(point.shards));
        let engine = Engine::start(engine_config(&point), |shard| {
            Client::new(&point, usize::from(shard), &connect, side, &left)
        })?;
        keep(engine);
        Ok(())
    }
}

fn point(job: &Job) -> Result<Point, String> {
    job.point.clone().ok_or_else(|| "a job without a point".to_owned())
}

fn engine_config(point: &Point) -> EngineConfig {
    let connection = ConnectionConfig {
        initial_packet: PACKET,
        max_packet: PACKET,
        fin_wait_timeout: Duration::from_millis(500),
        channel_timeout: Duration::from_secs(60),
        ..ConnectionConfig::default()
    };
    // A single shard has the processor that its process was given.
    let pin =
        if point.shards > 1 { Pinning::Cores((0..point.shards).collect()) } else { Pinning::None };
    EngineConfig {
        connection,
        shards: point.shards,
        pin,
        handshakes_per_source_per_s: 0,
        ..EngineConfig::default()
    }
}

fn channel_options(load: Load) -> ChannelOptions {
    let (kind, no_delay) = match load {
        Load::Beats => (ChannelKind::Datagrams, true),
        Load::Flood => (ChannelKind::Messages, false),
    };
    ChannelOptions { kind, no_delay, ..ChannelOptions::default() }
}

/// Sends to one channel after the other at fixed times.
struct Beats {
    begun: Instant,
    begun_unix_ns: u64,
    every_ns: u64,
    per_beat: usize,
    beat: u64,
    channels: Vec<Channel>,
    next: usize,
    source: Source,
}

impl Beats {
    fn new(point: &Point) -> Self {
        Self {
            begun: Instant::now(),
            begun_unix_ns: unix_ns(),
            every_ns: 1_000_000_000 / u64::from(point.beats_per_s.max(1)),
            per_beat: point.per_beat,
            beat: 0,
            channels: Vec::new(),
            next: 0,
            source: Source::new(BEAT_MESSAGE, 1),
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>) {
        (self.begun, self.begun_unix_ns, self.beat) = (Instant::now(), unix_ns(), 0);
        cx.set_timer(Duration::ZERO, TIMER);
    }

    /// Sends what is due and sets the timer for the next beat.
    fn send(&mut self, cx: &mut Context<'_>, counters: &Counters) {
        let now = self.begun.elapsed().as_nanos() as u64;
        while self.beat * self.every_ns <= now {
            let stamp = self.begun_unix_ns + self.beat * self.every_ns;
            self.beat += 1;
            if counters.is_quiet() || self.channels.is_empty() {
                continue;
            }
            for _ in 0..self.per_beat {
                self.next = (self.next + 1) % self.channels.len();
                let message = self.source.numbered(stamp);
                let sent = cx.send(self.channels[self.next], message);
                if !matches!(sent, Err(ApiError::InvalidHandle)) {
                    counters.sent(1);
                }
            }
        }
        let wait = (self.beat * self.every_ns).saturating_sub(now);
        cx.set_timer(Duration::from_nanos(wait), TIMER);
    }
}

struct Server {
    load: Load,
    counters: Arc<Counters>,
    series: HashMap<Channel, Series>,
    beats: Beats,
}

impl Server {
    fn new(point: &Point, side: &Side) -> Self {
        Self {
            load: point.load,
            counters: side.another(),
            series: HashMap::new(),
            beats: Beats::new(point),
        }
    }
}

impl Handler for Server {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        if self.load == Load::Beats {
            self.beats.begin(cx);
        }
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        let _ = cx.accept(conn);
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        _: Option<&CloseReason>,
    ) {
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            let _ = cx.close(conn, Reason::APP.0, "", None);
        }
    }

    fn on_channel_request(&mut self, cx: &mut Context<'_>, ch: Channel, _: &ChannelRequest<'_>) {
        if cx.accept_channel(ch, &channel_options(self.load)).is_ok() {
            self.beats.channels.push(ch);
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, ch: Channel, _: ChannelKind, message: &[u8]) {
        match self.load {
            Load::Beats => self.counters.stamped(message),
            Load::Flood => self.series.entry(ch).or_default().take(&self.counters, message),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) {
        self.beats.send(cx, &self.counters);
    }
}

struct Client {
    point: Point,
    /// Connections of this shard.
    wanted: usize,
    connect: ConnectConfig,
    side: Side,
    counters: Arc<Counters>,
    /// Shards whose channels do not all stand yet.
    left: Arc<AtomicUsize>,
    opened: usize,
    ready: usize,
    beats: Beats,
    sources: HashMap<Channel, Source>,
}

impl Client {
    fn new(
        point: &Point,
        shard: usize,
        connect: &ConnectConfig,
        side: &Side,
        left: &Arc<AtomicUsize>,
    ) -> Self {
        let share = point.connections / point.shards;
        let rest = usize::from(shard < point.connections % point.shards);
        Self {
            point: point.clone(),
            wanted: share + rest,
            connect: connect.clone(),
            side: side.clone(),
            counters: side.another(),
            left: Arc::clone(left),
            opened: 0,
            ready: 0,
            beats: Beats::new(point),
            sources: HashMap::new(),
        }
    }

    fn open(&mut self, cx: &mut Context<'_>) {
        if self.opened == self.wanted {
            return;
        }
        if let Err(e) = cx.connect(&self.connect) {
            self.side.fail(&format!("cannot connect: {e}"));
        }
        self.opened += 1;
    }

    fn run(&mut self, cx: &mut Context<'_>) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.side.running();
        }
        match self.point.load {
            Load::Beats => self.beats.begin(cx),
            Load::Flood => {
                cx.set_timer(Duration::ZERO, TIMER);
            }
        }
    }

    fn flood(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let source = self.sources.entry(channel).or_insert_with(|| Source::new(FLOOD_MESSAGE, 1));
        for _ in 0..BURST {
            match cx.send(channel, source.message()) {
                Ok(()) => source.advance(),
                Err(ApiError::WouldBlock(_) | ApiError::InvalidHandle) => break,
                Err(e) => self.side.fail(&format!("cannot send: {e}")),
            }
        }
    }
}

impl Handler for Client {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        for _ in 0..OPENING {
            self.open(cx);
        }
        if self.wanted == 0 {
            self.run(cx);
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
        match new {
            Status::Connected => {
                for _ in 0..self.point.channels {
                    match cx.open_channel(conn, "scale", &channel_options(self.point.load)) {
                        Ok(channel) => self.beats.channels.push(channel),
                        Err(e) => self.side.fail(&format!("cannot open a channel: {e}")),
                    }
                }
            }
            Status::ClosedByPeer | Status::ProblemDetectedLocally => {
                let reason = reason.map(ToString::to_string).unwrap_or_default();
                self.side.fail(&format!("the connection ended: {reason}"));
            }
            _ => {}
        }
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.ready += 1;
        if self.ready.is_multiple_of(self.point.channels) {
            self.open(cx);
        }
        if self.ready == self.wanted * self.point.channels {
            self.run(cx);
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: Channel, _: ChannelKind, message: &[u8]) {
        self.counters.stamped(message);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) {
        match self.point.load {
            Load::Beats => self.beats.send(cx, &self.counters),
            Load::Flood => {
                for at in 0..self.beats.channels.len() {
                    self.flood(cx, self.beats.channels[at]);
                }
                cx.set_timer(Duration::ZERO, TIMER);
            }
        }
    }
}
