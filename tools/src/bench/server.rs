//! The server of a measurement: reads, checks and counts what arrives, sends back or on what is to
//! be, sends loads of its own, and answers marks.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control::{self, Ask, CONTROL, Carry, Mark, Marked, Sent};
use super::ends::{End, Gauges};
use super::feed::{Feed, Sources};
use super::flows::{Load, Way};
use super::load::{Feeder, LENT_COPIES};
use super::sinks::{Sink, Sinks, Then};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use trunkline::{
    ApiError, Channel, ChannelEnd, ChannelKind, ChannelOptions, ChannelRequest, CloseReason,
    CloseReport, Conn, Context, Handler, Incoming, Payload, Reason, SendOptions, Status,
};

/// Answers of an echo channel that wait for room; more than a closed loop ever has.
const MAX_PENDING: usize = 1024;
/// Flows of one run.
const MAX_FLOWS: u32 = 16;
/// Bytes of messages that we keep to send to all clients together.
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

/// A load that goes down, from when its run has begun.
struct Down {
    session: u64,
    load: Load,
    feeder: Feeder,
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
    feeders: FxHashMap<u64, Down>,
    next_feeder: u64,
    feeder_of: FxHashMap<Channel, u64>,
    sources: Sources,
    /// Memory of what the feeders lend.
    lent: usize,
    /// Who is subscribed to the streams of a run.
    streams: FxHashMap<(u64, u32), Vec<Channel>>,
    /// The stream of a subscriber.
    subscribed: FxHashMap<Channel, (u64, u32)>,
    /// Answers on a channel that wait for room.
    pending: FxHashMap<Channel, usize>,
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
            lent: 0,
            streams: FxHashMap::default(),
            subscribed: FxHashMap::default(),
            pending: FxHashMap::default(),
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

    /// A channel has ended.
    fn drop_channel(&mut self, channel: Channel) {
        self.sinks.remove(channel);
        self.control.remove(&channel);
        self.pending.remove(&channel);
        let down = self.feeder_of.remove(&channel).and_then(|at| self.feeders.remove(&at));
        if let Some(Down { feeder, .. }) = down {
            self.lent -= feeder.own_bytes();
            if let Some(length) = feeder.copies() {
                self.sources.let_go(length);
            }
        }
        if let Some(stream) = self.subscribed.remove(&channel)
            && let Some(subscribers) = self.streams.get_mut(&stream)
        {
            subscribers.retain(|subscriber| *subscriber != channel);
            if subscribers.is_empty() {
                self.streams.remove(&stream);
            }
        }
    }

    /// A connection has ended, with those of its channels that had not.
    fn forget(&mut self, conn: Conn) {
        self.sinks.forget(conn);
        self.control.retain(|channel| channel.conn() != conn);
        self.pending.retain(|channel, _| channel.conn() != conn);
        let of_conn = |channel: &&Channel| channel.conn() == conn;
        let mut left: Vec<Channel> = self.feeder_of.keys().filter(of_conn).copied().collect();
        left.extend(self.subscribed.keys().filter(of_conn));
        for channel in left {
            self.drop_channel(channel);
        }
        self.conns.remove(&conn);
    }

    /// Why a channel that carries this is not taken.
    fn refusal(&self, kind: ChannelKind, carry: &Carry) -> Option<&'static str> {
        let Carry { flow, way, length, lent, .. } = *carry;
        let cost = if lent { LENT_COPIES * length } else { self.sources.cost(length) };
        if kind == ChannelKind::Bytes {
            Some("a stream has no messages to count")
        } else if flow >= MAX_FLOWS || carry.priority > 7 {
            Some("no such flow here")
        } else if !(super::MIN_LENGTH..=super::MAX_LENGTH).contains(&length) {
            Some("no message has that length")
        } else if way == Way::Down && self.sources.bytes() + self.lent + cost > MAX_KEPT {
            Some("this would take too much memory of the server")
        } else {
            None
        }
    }

    /// Takes a channel that carries something.
    fn carry(&mut self, channel: Channel, kind: ChannelKind, carry: Carry) {
        let Carry { session, flow, way, length, .. } = carry;
        let mut sink = |then| self.sinks.add(channel, kind, Sink::new(session, flow, then));
        match way {
            Way::Up => sink(Then::Nothing),
            Way::Echo => sink(Then::Back),
            Way::Publish => sink(Then::Forward(carry.channel)),
            Way::Subscribe => {
                let stream = (session, carry.channel);
                self.streams.entry(stream).or_default().push(channel);
                self.subscribed.insert(channel, stream);
            }
            Way::Down => {
                let reliable = kind != ChannelKind::Datagrams;
                let mut feeder = Feeder::new(channel.conn(), flow, length, reliable, carry.lent);
                feeder.add(channel, Feed::new(carry.channel, length, carry.lent));
                self.lent += feeder.own_bytes();
                if let Some(length) = feeder.copies() {
                    self.sources.hold(length);
                }
                let number = self.next_feeder;
                self.next_feeder += 1;
                self.feeders.insert(number, Down { session, load: carry.load, feeder });
                self.feeder_of.insert(channel, number);
            }
        }
    }

    /// What goes down in a run begins.
    fn begin(&mut self, cx: &mut Context<'_>, session: u64) {
        let now = self.slice();
        let of_run = self.feeders.iter_mut().filter(|(_, down)| down.session == session);
        for (number, Down { load, feeder, .. }) in of_run {
            feeder.set_load(*load, *number as usize, now);
            go(cx, feeder, &mut self.sources, *number);
        }
    }

    fn go(&mut self, cx: &mut Context<'_>, feeder: u64) {
        if let Some(Down { feeder: one, .. }) = self.feeders.get_mut(&feeder) {
            go(cx, one, &mut self.sources, feeder);
        }
    }

    /// Keeps some answers that the channel has no room for, and drops the others.
    fn send_back(&mut self, cx: &mut Context<'_>, channel: Channel, message: &[u8]) {
        let sent = match cx.send(channel, message) {
            Err(ApiError::WouldBlock(_)) => {
                let pending = self.pending.entry(channel).or_default();
                if *pending == MAX_PENDING {
                    return;
                }
                *pending += 1;
                let over_limit = SendOptions { over_limit: true, receipt: None };
                cx.send_with(channel, message, over_limit)
            }
            sent => sent,
        };
        match sent {
            Ok(()) | Err(ApiError::Dropped(_)) => {}
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

/// Sends what is due.
fn go(cx: &mut Context<'_>, feeder: &mut Feeder, sources: &mut Sources, token: u64) {
    if let Err(e) = feeder.go(cx, sources, token) {
        tracing::debug!("cannot send: {e}");
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
        let refusal = match &carry {
            Some(carry) => self.refusal(request.options.kind, carry),
            None if request.name == CONTROL => None,
            None => Some("no such channel here"),
        };
        if let Some(text) = refusal {
            let _ = cx.decline_channel(channel, Reason::APP_REJECTED.0, text);
            return;
        }
        let priority = carry.map_or(0, |carry| carry.priority);
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
        self.carry(channel, request.options.kind, carry);
    }

    fn on_channel_closed(&mut self, _cx: &mut Context<'_>, channel: Channel, _end: &ChannelEnd) {
        self.drop_channel(channel);
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
        } else if self.control.contains(&channel) {
            match control::decode(message) {
                Some(Ask::Begin { session }) => self.begin(cx, session),
                Some(Ask::Mark(mark)) => {
                    // Who asks faster than we answer gets no answer.
                    let _ = self.questions.try_send(Asked { channel, mark });
                }
                None => {}
            }
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.pending.remove(&channel);
        if let Some(feeder) = self.feeder_of.get(&channel) {
            self.go(cx, *feeder);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        if let Some(down) = self.feeders.get_mut(&token) {
            down.feeder.on_timer();
        }
        self.go(cx, token);
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let _ = cx.finish(channel);
    }
}
