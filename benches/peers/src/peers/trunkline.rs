//! Trunkline with the inline API.
//!
//! | setting | value | why |
//! | --- | --- | --- |
//! | shards | one on each side, on the thread's processor | one core a side |
//! | `initial_packet`, `max_packet` | 1452, or the largest for `bulk-large` | the same packets for all; nothing is searched |
//! | `handshakes_per_source_per_s` | no bound | all clients have one address |
//! | `fin_wait_timeout` | 500 ms | closed connections do not pile up while new ones are counted |
//! | bulk messages | lent (`send_payload`) | copied once, into the packet |
//! | everything else | default | |
//!
//! Each workload has one channel: `messages` or, for `datagrams` and `tick`, `datagrams`. Full
//! handshakes ask for a different server name each time, so that no ticket is found.

use crate::counters::{Counters, Series, unix_ns};
use crate::identity;
use crate::pacer::{CLIENT_SLOTS, Pacer, SERVER_SLOTS};
use crate::payload::{self, Lender, Source};
use crate::peer::{Outcome, Peer};
use crate::side::Side;
use crate::workload::{BULK_MESSAGE, Job, OPENING, Workload};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, CloseReport, Conn,
    ConnectConfig, ConnectionConfig, Context, Duration, Engine, EngineConfig, Handler, Identity,
    Incoming, ListenConfig, Payload, PeerId, Reason, Reuse, SendOptions, Status, Trust,
};

/// Messages sent at most in one go, so that acknowledgements are seen in between.
const BURST: u32 = 8192;
/// Token of the only kind of timer.
const TIMER: u64 = 1;

/// The peer.
pub struct Trunkline;

impl Peer for Trunkline {
    fn name(&self) -> &'static str {
        "trunkline"
    }

    fn about(&self) -> &'static str {
        "Trunkline, inline API: TLS 1.3 and AES-128-GCM over UDP with GSO and GRO"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["trunkline", "ring"]
    }

    fn refuses(&self, workload: Workload) -> Option<&'static str> {
        match workload {
            Workload::SmallBatched => Some("gathers messages itself, see `small`"),
            _ => None,
        }
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        let handler = Server::new(job, side);
        let mut handler = Some(handler);
        let engine = Engine::start(engine_config(job), |_| {
            handler.take().unwrap_or_else(|| unreachable!("one shard"))
        })?;
        let listener = engine.listen(&ListenConfig::new(job.listen.parse()?, identity()?.0))?;
        side.listening(listener.local_addr);
        keep(engine);
        Ok(())
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        let mut handler = Some(Client::new(job, server, side)?);
        let engine = Engine::start(engine_config(job), |_| {
            handler.take().unwrap_or_else(|| unreachable!("one shard"))
        })?;
        keep(engine);
        Ok(())
    }
}

/// Lets a thing live as long as the process.
pub(crate) fn keep<T: Send + 'static>(thing: T) {
    std::thread::spawn(move || {
        let _thing = thing;
        loop {
            std::thread::park();
        }
    });
}

/// The server's identity and its fingerprint.
pub(crate) fn identity() -> Result<(Identity, PeerId), Box<dyn std::error::Error + Send + Sync>> {
    let made = identity::made()?;
    let identity = Identity::from_pem(made.certificate_pem.as_bytes(), made.key_pem.as_bytes())?;
    let id = identity.peer_id();
    Ok((identity, id))
}

/// Settings of both sides.
pub(super) fn engine_config(job: &Job) -> EngineConfig {
    let packet = job.packet().min(trunkline::limits::MAX_PACKET);
    let connection = ConnectionConfig {
        initial_packet: packet,
        max_packet: packet,
        max_message: BULK_MESSAGE,
        fin_wait_timeout: Duration::from_millis(500),
        ..ConnectionConfig::default()
    };
    EngineConfig { connection, handshakes_per_source_per_s: 0, ..EngineConfig::default() }
}

/// How a client reaches the server.
pub(crate) fn connect_config(
    server: SocketAddr,
) -> Result<ConnectConfig, Box<dyn std::error::Error + Send + Sync>> {
    let trust = Trust::Pins(vec![identity()?.1]);
    Ok(ConnectConfig { reuse: Reuse::ForceNew, ..ConnectConfig::new(server, trust) })
}

/// The channel of a workload.
pub(super) fn channel_options(workload: Workload) -> ChannelOptions {
    let kind = match workload {
        Workload::Datagrams | Workload::Tick => ChannelKind::Datagrams,
        _ => ChannelKind::Messages,
    };
    let no_delay = !matches!(workload, Workload::Bulk | Workload::BulkLarge | Workload::Small);
    ChannelOptions { kind, no_delay, ..ChannelOptions::default() }
}

/// Counts, and sends back what is to be sent back.
struct Server {
    workload: Workload,
    counters: Arc<Counters>,
    series: Series,
    ticking: Vec<Channel>,
    pacer: Pacer,
    source: Source,
}

impl Server {
    fn new(job: &Job, side: &Side) -> Self {
        Self {
            workload: job.workload,
            counters: Arc::clone(&side.counters),
            series: Series::default(),
            ticking: Vec::new(),
            pacer: Pacer::new(SERVER_SLOTS),
            source: Source::new(job.workload.message(), 2),
        }
    }
}

/// Sends what is due to its connections, and sets the timer for the next part.
fn tick(
    cx: &mut Context<'_>,
    pacer: &mut Pacer,
    source: &mut Source,
    channels: &[Channel],
    counters: &Counters,
) {
    while let Some((slot, at)) = pacer.due(Instant::now()) {
        if counters.is_quiet() {
            continue;
        }
        for n in pacer.members(slot, channels.len()) {
            if !matches!(cx.send(channels[n], source.numbered(at)), Err(ApiError::InvalidHandle)) {
                counters.sent(1);
            }
        }
    }
    let wait = pacer.next().saturating_duration_since(Instant::now());
    cx.set_timer(Duration::from_nanos(wait.as_nanos() as u64), TIMER);
}

impl Handler for Server {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        if self.workload == Workload::Tick {
            cx.set_timer(Duration::ZERO, TIMER);
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
        if cx.accept_channel(ch, &channel_options(self.workload)).is_ok()
            && self.workload == Workload::Tick
        {
            self.ticking.push(ch);
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, ch: Channel, _: ChannelKind, message: &[u8]) {
        match self.workload {
            Workload::Tick => self.counters.stamped(message),
            Workload::Datagrams => match payload::open(message) {
                Some(_) => self.counters.received(message.len()),
                None => self.counters.corrupt(),
            },
            Workload::Latency => {
                self.series.take(&self.counters, message);
                let _ = cx.send(ch, message);
            }
            workload if workload.opens() => match payload::open(message) {
                Some(_) if cx.send(ch, message).is_ok() => self.counters.received(message.len()),
                _ => self.counters.corrupt(),
            },
            _ => self.series.take(&self.counters, message),
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let _ = cx.finish(channel);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) {
        tick(cx, &mut self.pacer, &mut self.source, &self.ticking, &self.counters);
    }
}

/// Connects and sends.
struct Client {
    side: Side,
    workload: Workload,
    wanted: usize,
    connect: ConnectConfig,
    opened: usize,
    channels: Vec<Channel>,
    source: Source,
    /// Bulk messages, which are not copied.
    lender: Option<Lender>,
    pacer: Pacer,
    /// When the message under way was sent, in nanoseconds since 1970.
    sent_at: u64,
    running: bool,
    blocked: bool,
    /// Unreliable messages are not refused; the oldest are dropped. So the burst follows what was
    /// dropped.
    burst: u32,
    dropped: u64,
}

impl Client {
    fn new(
        job: &Job,
        server: SocketAddr,
        side: &Side,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            side: side.clone(),
            workload: job.workload,
            wanted: job.connections,
            connect: connect_config(server)?,
            opened: 0,
            channels: Vec::new(),
            source: Source::new(job.workload.message(), 1),
            lender: job.workload.lends().then(|| Lender::new(job.workload.message(), 1, 0)),
            pacer: Pacer::new(CLIENT_SLOTS),
            sent_at: 0,
            running: false,
            blocked: false,
            burst: 256,
            dropped: 0,
        })
    }

    fn open(&mut self, cx: &mut Context<'_>) {
        if self.workload == Workload::Handshakes {
            self.connect.server_name = format!("host{}.test", self.opened);
        }
        if let Err(e) = cx.connect(&self.connect) {
            self.side.fail(&format!("cannot connect: {e}"));
        }
        self.opened += 1;
    }

    /// Opens the next connection if there is to be one.
    fn open_next(&mut self, cx: &mut Context<'_>) {
        let endless = matches!(self.workload, Workload::Handshakes | Workload::Resumed);
        if endless || self.opened < self.wanted {
            self.open(cx);
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) {
        self.running = true;
        self.side.running();
        match self.workload {
            Workload::Tick => {
                self.pacer = Pacer::new(CLIENT_SLOTS);
                cx.set_timer(Duration::ZERO, TIMER);
            }
            Workload::Latency => self.ping(cx),
            _ => self.pump(cx),
        }
    }

    fn ping(&mut self, cx: &mut Context<'_>) {
        self.sent_at = unix_ns();
        if let Err(e) = cx.send(self.channels[0], self.source.message()) {
            self.side.fail(&format!("cannot send: {e}"));
        }
        self.source.advance();
    }

    fn pump(&mut self, cx: &mut Context<'_>) {
        let Some(&channel) = self.channels.first() else { return };
        let before = self.source.sent();
        let result = if self.workload == Workload::Datagrams {
            self.pump_unreliable(cx, channel)
        } else {
            self.pump_reliable(cx, channel)
        };
        self.side.counters.sent(self.source.sent() - before);
        match result {
            Ok(()) | Err(ApiError::WouldBlock(_)) => {}
            Err(e) => self.side.fail(&format!("cannot send: {e}")),
        }
    }

    fn pump_reliable(&mut self, cx: &mut Context<'_>, channel: Channel) -> Result<(), ApiError> {
        self.blocked = false;
        for _ in 0..BURST {
            let sent = match &mut self.lender {
                Some(lender) => {
                    let message = Payload::new(lender.message());
                    cx.send_payload(channel, message, SendOptions::default())
                }
                None => cx.send(channel, self.source.message()),
            };
            if let Err(e) = sent {
                self.blocked = true;
                return Err(e);
            }
            if let Some(lender) = &mut self.lender {
                lender.advance();
            }
            self.source.advance();
        }
        cx.set_timer(Duration::ZERO, TIMER);
        Ok(())
    }

    fn pump_unreliable(&mut self, cx: &mut Context<'_>, channel: Channel) -> Result<(), ApiError> {
        if self.side.counters.is_quiet() {
            return Ok(());
        }
        let dropped = cx.stats(channel.conn()).map_or(0, |stats| stats.datagrams_dropped);
        if dropped > self.dropped {
            self.dropped = dropped;
            self.burst = (self.burst / 2).max(8);
        } else {
            self.burst = (self.burst + 8).min(BURST);
        }
        for _ in 0..self.burst {
            match cx.send(channel, self.source.message()) {
                Ok(()) | Err(ApiError::Dropped(_)) => self.source.advance(),
                Err(e) => return Err(e),
            }
        }
        cx.set_timer(Duration::ZERO, TIMER);
        Ok(())
    }

    /// The answer to the message of a connection that is to be opened and, mostly, closed.
    fn answered(&mut self, cx: &mut Context<'_>, channel: Channel, message: &[u8]) {
        match payload::open(message) {
            Some(_) => self.side.counters.received(message.len()),
            None => self.side.counters.corrupt(),
        }
        if self.workload == Workload::Memory {
            let _ = cx.finish(channel);
        } else {
            let _ = cx.close(channel.conn(), Reason::APP.0, "", None);
        }
        self.open_next(cx);
    }
}

impl Handler for Client {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        if self.workload.opens() {
            self.running = true;
            self.side.running();
        }
        let at_once = if self.workload.many() { OPENING.min(self.wanted.max(1)) } else { 1 };
        let endless = matches!(self.workload, Workload::Handshakes | Workload::Resumed);
        for _ in 0..if endless { OPENING } else { at_once } {
            self.open(cx);
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
                let opened = cx.open_channel(conn, "bench", &channel_options(self.workload));
                let channel = match opened {
                    Ok(channel) => channel,
                    Err(e) => self.side.fail(&format!("cannot open a channel: {e}")),
                };
                if self.workload.opens() {
                    let _ = cx.send(channel, self.source.message());
                } else {
                    self.channels.push(channel);
                }
            }
            Status::ClosedByPeer | Status::ProblemDetectedLocally => {
                let reason = reason.map(ToString::to_string).unwrap_or_default();
                self.side.fail(&format!("the connection ended: {reason}"));
            }
            _ => {}
        }
    }

    fn on_dead(&mut self, _: &mut Context<'_>, _: Conn, _: &CloseReport) {}

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, _: Channel) {
        if self.workload == Workload::Tick && self.opened < self.wanted {
            self.open(cx);
        }
        let all = if self.workload == Workload::Tick { self.wanted } else { 1 };
        if !self.running && self.channels.len() >= all {
            self.run(cx);
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, ch: Channel, _: ChannelKind, message: &[u8]) {
        match self.workload {
            Workload::Tick => self.side.counters.stamped(message),
            Workload::Latency => {
                if payload::open(message) == self.source.sent().checked_sub(1) {
                    self.side.counters.delay(unix_ns().saturating_sub(self.sent_at));
                    self.side.counters.received(message.len());
                } else {
                    self.side.counters.corrupt();
                }
                self.ping(cx);
            }
            _ => self.answered(cx, ch, message),
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.pump(cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) {
        if self.workload == Workload::Tick {
            let (pacer, source) = (&mut self.pacer, &mut self.source);
            tick(cx, pacer, source, &self.channels, &self.side.counters);
        } else if !self.blocked {
            self.pump(cx);
        }
    }
}
