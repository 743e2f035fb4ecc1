//! The server of a measurement: reads, checks and counts what arrives, sends back or on what is to
//! be, sends loads of its own, and answers marks.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control::{self, CONTROL, Carry, Mark, Marked, Sent};
use super::ends::{End, Gauges};
use super::feed::{Feed, Sources};
use super::flows::Way;
use super::load::Feeder;
use super::sinks::{Sink, Sinks, Then};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, CloseReport, Conn,
    Context, Handler, Incoming, Payload, Reason, SendOptions, Status,
};

/// Answers of an echo channel that wait for room; more than a closed loop ever has.
const MAX_PENDING: usize = 1024;
/// Flows of one run.
const MAX_FLOWS: u32 = 16;
/// Bytes of one message of each channel that goes down, and of each length: what we keep to send, of
/// all clients together.
const MAX_KEPT: usize = 256 << 20;

/// Which clients there have been.
#[derive(Debug, Default)]
pub struct Served {
    /// Connections that are there.
    present: AtomicUsize,
    /// Marks that were asked for.
    marks: AtomicU64,
}

impl Served {
    /// Connections that are there.
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// Whether a client has measured something.
    pub fn any(&self) -> bool {
        self.marks.load(Ordering::Relaxed) > 0
    }
}

/// A mark that waits for the figures of this end, which another thread reads.
#[derive(Debug)]
pub struct Asked {
    channel: Channel,
    mark: Mark,
}

/// The figures are there.
#[derive(Debug)]
pub struct Answer {
    pub asked: Asked,
    pub end: End,
}

/// The handler.
pub struct BenchServer {
    served: Arc<Served>,
    gauges: Gauges,
    questions: SyncSender<Asked>,
    driver: Arc<OnceLock<String>>,
    started: Instant,
    /// Connections that have stood.
    handshakes: u64,
    /// Connections, each with its run once that is known.
    conns: HashMap<Conn, Option<u64>>,
    sinks: Sinks,
    /// Channels that ask for marks.
    control: FxHashSet<Channel>,
    /// By numbers that are not used again, which are the tokens of their timers.
    feeders: FxHashMap<u64, Feeder>,
    next_feeder: u64,
    feeder_of: FxHashMap<Channel, u64>,
    sources: Sources,
    /// Bytes of one message of each feeder.
    kept: usize,
    /// Who is subscribed to the streams of a run.
    streams: FxHashMap<(u64, u32), Vec<Channel>>,
    /// Answers of a connection that wait for room.
    pending: HashMap<Conn, usize>,
}

impl BenchServer {
    /// A server; `driver` is filled in once the engine knows, `questions` are answered by an
    /// [`Answer`].
    pub fn new(
        driver: Arc<OnceLock<String>>,
        served: Arc<Served>,
        gauges: Gauges,
        questions: SyncSender<Asked>,
    ) -> Self {
        Self {
            served,
            gauges,
            questions,
            driver,
            started: Instant::now(),
            handshakes: 0,
            conns: HashMap::new(),
            sinks: Sinks::default(),
            control: FxHashSet::default(),
            feeders: FxHashMap::default(),
            next_feeder: 0,
            feeder_of: FxHashMap::default(),
            sources: Sources::default(),
            kept: 0,
            streams: FxHashMap::default(),
            pending: HashMap::new(),
        }
    }

    fn marked(&self, cx: &Context<'_>, mark: Mark, end: End) -> Marked {
        self.served.marks.fetch_add(1, Ordering::Relaxed);
        let mut sent = Sent::default();
        let of_run = self.conns.iter().filter(|(_, run)| **run == Some(mark.session));
        for stats in of_run.filter_map(|(conn, _)| cx.stats(*conn)) {
            sent.add(&stats);
        }
        Marked {
            mark: mark.mark,
            at_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            flows: self.sinks.counts(mark.session),
            sent,
            handshakes: self.handshakes,
            end,
            driver: self.driver.get().cloned().unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// The time in whole milliseconds, so that the slow flows of all connections keep step.
    fn slice(&self) -> Instant {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.started + std::time::Duration::from_millis(ms)
    }

    fn forget(&mut self, conn: Conn) {
        self.sinks.forget(conn);
        self.pending.remove(&conn);
        self.control.retain(|channel| channel.conn() != conn);
        self.feeder_of.retain(|channel, _| channel.conn() != conn);
        self.feeders.retain(|_, feeder| feeder.conn() != conn);
        self.kept = self.feeders.values().map(Feeder::length).sum();
        if self.feeders.is_empty() {
            self.sources = Sources::default();
        }
        self.streams.retain(|_, channels| {
            channels.retain(|channel| channel.conn() != conn);
            !channels.is_empty()
        });
    }

    /// Takes a channel that carries something.
    fn carry(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        kind: ChannelKind,
        carry: Carry,
    ) -> Result<(), &'static str> {
        let Carry { session, flow, way, length, .. } = carry;
        let lengths = super::MIN_LENGTH..=super::MAX_LENGTH;
        if flow >= MAX_FLOWS || !lengths.contains(&length) || carry.priority > 7 {
            return Err("no such flow here");
        }
        let mut sink = |then| self.sinks.add(channel, kind, Sink::new(session, flow, then));
        match way {
            Way::Up => sink(Then::Nothing),
            Way::Echo => sink(Then::Back),
            Way::Publish => sink(Then::Forward(carry.channel)),
            Way::Subscribe => {
                self.streams.entry((session, carry.channel)).or_default().push(channel);
            }
            Way::Down => {
                if self.sources.bytes() + self.kept + length > MAX_KEPT {
                    return Err("too much to keep");
                }
                self.kept += length;
                let feed = Feed::new(carry.channel, length, carry.lent);
                let reliable = kind != ChannelKind::Datagrams;
                let mut feeder = Feeder::new(channel.conn(), flow, length, reliable);
                feeder.add(channel, feed);
                let number = self.next_feeder;
                self.next_feeder += 1;
                feeder.set_load(carry.load, number as usize, self.slice());
                self.feeders.insert(number, feeder);
                self.feeder_of.insert(channel, number);
                self.go(cx, number);
            }
        }
        Ok(())
    }

    fn go(&mut self, cx: &mut Context<'_>, feeder: u64) {
        if let Some(one) = self.feeders.get_mut(&feeder)
            && let Err(e) = one.go(cx, &mut self.sources, feeder)
        {
            tracing::debug!("cannot send: {e}");
        }
    }

    fn send_back(&mut self, cx: &mut Context<'_>, channel: Channel, message: &[u8]) {
        let pending = self.pending.entry(channel.conn()).or_default();
        let over_limit = SendOptions { over_limit: *pending < MAX_PENDING, receipt: None };
        match cx.send_with(channel, message, over_limit) {
            Ok(()) => *pending = 0,
            Err(ApiError::WouldBlock(_)) => *pending += 1,
            Err(ApiError::Dropped(_)) => {}
            Err(e) => tracing::debug!("cannot send back: {e}"),
        }
    }

    /// To everyone who is subscribed; unreliable, so that nobody holds the others up.
    fn forward(&mut self, cx: &mut Context<'_>, from: Channel, stream: u32, message: &[u8]) {
        let Some(Some(session)) = self.conns.get(&from.conn()) else { return };
        let Some(subscribers) = self.streams.get(&(*session, stream)) else { return };
        let message = Payload::from(cx.retain(message));
        for channel in subscribers {
            match cx.send_payload(*channel, message.clone(), SendOptions::default()) {
                Ok(()) | Err(ApiError::Dropped(_)) => {}
                Err(e) => tracing::debug!("cannot forward: {e}"),
            }
        }
    }
}

impl Handler for BenchServer {
    type Command = Answer;

    fn on_start(&mut self, _cx: &mut Context<'_>) {
        self.gauges.start();
    }

    fn on_command(&mut self, cx: &mut Context<'_>, Answer { asked, end }: Answer) {
        let marked = self.marked(cx, asked.mark, end);
        if self.control.contains(&asked.channel) {
            self.send_back(cx, asked.channel, &control::encode(&marked));
        }
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        tracing::debug!("connection from {}", incoming.remote);
        if cx.accept(conn).is_ok() {
            self.conns.insert(conn, None);
            self.served.present.store(self.conns.len(), Ordering::Relaxed);
        }
    }

    fn on_dead(&mut self, _cx: &mut Context<'_>, conn: Conn, _report: &CloseReport) {
        self.conns.remove(&conn);
        self.forget(conn);
        self.served.present.store(self.conns.len(), Ordering::Relaxed);
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _old: Status,
        new: Status,
        _reason: Option<&CloseReason>,
    ) {
        if new == Status::Connected {
            self.handshakes += 1;
        }
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            self.forget(conn);
            let _ = cx.close(conn, Reason::APP.0, "", None);
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        let carry = Carry::parse(request.name);
        let priority = match (&carry, request.name) {
            (Some(carry), _) => carry.priority,
            (None, CONTROL) => 0,
            _ => {
                let _ = cx.decline_channel(channel, Reason::APP_REJECTED.0, "no such channel here");
                return;
            }
        };
        let options =
            ChannelOptions { priority, no_delay: priority == 0, ..ChannelOptions::default() };
        if cx.accept_channel(channel, &options).is_err() {
            return;
        }
        let Some(carry) = carry else {
            self.control.insert(channel);
            return;
        };
        if let Some(run) = self.conns.get_mut(&channel.conn()) {
            *run = Some(carry.session);
        }
        if let Err(problem) = self.carry(cx, channel, request.options.kind, carry) {
            tracing::debug!("channel refused: {problem}");
            let _ = cx.reset(channel, Reason::APP_REJECTED.0);
        }
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _kind: ChannelKind,
        message: &[u8],
    ) {
        if let Some(taken) = self.sinks.take(channel, message) {
            match taken.then {
                Then::Back => self.send_back(cx, channel, message),
                Then::Forward(stream) => self.forward(cx, channel, stream, message),
                Then::Nothing | Then::Delay(_) => {}
            }
        } else if self.control.contains(&channel)
            && let Some(mark) = control::decode::<Mark>(message)
        {
            // Who asks faster than we answer gets no answer.
            let _ = self.questions.try_send(Asked { channel, mark });
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if let Some(feeder) = self.feeder_of.get(&channel) {
            self.go(cx, *feeder);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        if let Some(feeder) = self.feeders.get_mut(&token) {
            feeder.on_timer();
        }
        self.go(cx, token);
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let _ = cx.finish(channel);
    }
}
