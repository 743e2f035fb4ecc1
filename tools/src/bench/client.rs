//! The client of a measurement on the shard: connections, their flows and marks.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::args::Scenario;
use super::control::{self, Ask, CONTROL, Carry, Mark, Marked, Sent};
use super::ends::{End, Gauges};
use super::feed::{Feed, Sources};
use super::flows::{Flow, Load, Way};
use super::handshakes::Handshakes;
use super::load::Feeder;
use super::sinks::{Count, Sink, Sinks, Then};
use crate::exit::{Exit, Failure};
use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use trunkline::{
    ApiError, Channel, ChannelEnd, ChannelKind, ChannelOptions, CloseReason, CloseReport, Conn,
    ConnectConfig, Context, Handler, Reason, Status,
};
use trunkline_floor::payload;

/// Connections of a run that are being made at once.
const IN_PROGRESS: usize = 128;

/// One scenario to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub flows: Vec<Flow>,
    /// In `handshakes` and `resumptions`: under way at once.
    pub connections: u32,
    /// Of `connections`, in `media`: those that publish.
    pub publishers: u32,
    /// Random; tells this run from others at the server.
    pub session: u64,
    pub connect: ConnectConfig,
}

impl Plan {
    /// Connections that stay for the whole run; where others come and go, one that asks for marks.
    fn links(&self) -> u32 {
        if self.scenario.connects() { 1 } else { self.connections }
    }

    /// The flows of one connection, each with the number of its stream.
    fn carried(&self, link: u32) -> Vec<(u32, u32)> {
        let all = 0..self.flows.len() as u32;
        match self.scenario {
            Scenario::Media if link < self.publishers => vec![(0, link)],
            Scenario::Media => (0..self.publishers).map(|stream| (1, stream)).collect(),
            _ => all.map(|flow| (flow, 0)).collect(),
        }
    }
}

/// What the measuring thread wants.
pub enum Command {
    /// Connect and start the flows.
    Run(Box<Plan>),
    /// Change the load of [`Scenario::Loaded`], which begins without one.
    Load(Load),
    /// Take a mark; `reset`: round trips are counted from now on.
    Mark { reset: bool },
    /// Close all connections.
    Stop,
}

/// What it is told.
pub enum Update {
    /// Every connection stands and the flows run.
    Running,
    /// The answer to [`Command::Mark`].
    Marked(Box<Sample>),
    /// All connections of a run are gone.
    Stopped,
    /// The run cannot go on.
    Failed(Failure),
}

/// Everything that is known at a mark.
#[derive(Clone)]
pub struct Sample {
    /// What the server says.
    pub server: Marked,
    /// What arrived here, or came back, of each flow.
    pub flows: Vec<Count>,
    /// Our clock.
    pub at_ns: u64,
    /// What our connections have sent.
    pub sent: Sent,
    /// Our thread and our machine; filled in by the measuring thread.
    pub end: End,
    pub rtt: Histogram<u64>,
    /// Connections made whose session was resumed.
    pub resumed: u64,
    /// Congestion windows and bytes in flight of our connections.
    pub window: u64,
    pub in_flight: u64,
    /// What carries the connections.
    pub link: trunkline::Link,
}

/// The handler.
pub struct BenchClient {
    updates: Sender<Update>,
    gauges: Gauges,
    started: Instant,
    /// Runs until now.
    runs: u32,
    run: Option<Run>,
}

struct Run {
    /// Part of the tokens of its timers, some of which fire when it is over.
    number: u32,
    plan: Plan,
    links: Vec<Link>,
    places: FxHashMap<Conn, usize>,
    /// Of the channels that no sink counts.
    roles: FxHashMap<Channel, Role>,
    feeders: Vec<Feeder>,
    /// The feeder of each stream that is published.
    publishers: FxHashMap<u32, usize>,
    sources: Sources,
    sinks: Sinks,
    /// Of [`Way::Echo`]: what came back of each flow.
    returned: Vec<Count>,
    ready: u32,
    dead: usize,
    stopping: bool,
    failed: bool,
    rtt: Histogram<u64>,
    marks: u64,
    handshakes: Option<Handshakes>,
}

/// One connection.
struct Link {
    conn: Conn,
    control: Option<Channel>,
    /// Channels that are not ready yet.
    waiting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Control,
    /// What is sent by a feeder, and may come back.
    Feed(usize),
}

impl BenchClient {
    /// Waits for commands.
    pub fn new(updates: Sender<Update>, gauges: Gauges) -> Self {
        Self { updates, gauges, started: Instant::now(), runs: 0, run: None }
    }

    fn tell(&self, update: Update) {
        let _ = self.updates.send(update);
    }

    fn start(&mut self, cx: &mut Context<'_>, plan: Plan) {
        let handshakes = plan.scenario.connects().then(|| {
            let resume = plan.scenario == Scenario::Resumptions;
            Handshakes::new(plan.connect.clone(), resume)
        });
        self.runs = self.runs.wrapping_add(1);
        let mut run = Run {
            number: self.runs,
            links: Vec::new(),
            places: FxHashMap::default(),
            publishers: FxHashMap::default(),
            roles: FxHashMap::default(),
            feeders: Vec::new(),
            sources: Sources::default(),
            sinks: Sinks::default(),
            returned: vec![Count::default(); plan.flows.len()],
            ready: 0,
            dead: 0,
            stopping: false,
            failed: false,
            rtt: trunkline_floor::histogram(),
            marks: 0,
            handshakes,
            plan,
        };
        let begun = (0..IN_PROGRESS).try_for_each(|_| run.connect_next(cx));
        self.run = Some(run);
        self.attempt("cannot connect", |_| begun);
    }

    fn fail(&mut self, reason: &str) {
        self.fail_as(Exit::Connection, reason);
    }

    fn fail_as(&mut self, exit: Exit, reason: &str) {
        if let Some(run) = &mut self.run
            && !run.failed
            && !run.stopping
        {
            run.failed = true;
            self.tell(Update::Failed(Failure::new(exit, reason)));
        }
    }

    /// Does something that may fail for the whole run.
    fn attempt(&mut self, what: &str, does: impl FnOnce(&mut Run) -> Result<(), ApiError>) {
        if let Some(run) = &mut self.run
            && let Err(e) = does(run)
        {
            self.fail(&format!("{what}: {e}"));
        }
    }

    fn mark(&mut self, cx: &mut Context<'_>, reset: bool) {
        self.attempt("cannot ask the server", |run| {
            if reset {
                run.rtt.reset();
            }
            run.marks += 1;
            let mark = Ask::Mark(Mark { mark: run.marks, session: run.plan.session });
            match run.links.first().and_then(|link| link.control) {
                Some(control) => cx.send(control, &control::encode(&mark)),
                None => Ok(()),
            }
        });
    }

    fn on_marked(&mut self, cx: &Context<'_>, server: Marked) {
        let Some(run) = &self.run else { return };
        if server.mark != run.marks {
            return;
        }
        let mut flows = run.sinks.counts(run.plan.session);
        flows.resize_with(run.plan.flows.len().max(flows.len()), Count::default);
        for (flow, returned) in flows.iter_mut().zip(&run.returned) {
            flow.add(returned);
        }
        for feeder in &run.feeders {
            flows[feeder.flow() as usize].missing += feeder.missing();
        }
        let info = run.links.first().and_then(|link| cx.info(link.conn));
        let mut sample = Sample {
            server,
            flows,
            at_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            sent: Sent::default(),
            end: End::default(),
            rtt: run.rtt.clone(),
            resumed: run.handshakes.as_ref().map_or(0, Handshakes::resumed),
            window: 0,
            in_flight: 0,
            link: info.map(|info| info.link).unwrap_or_default(),
        };
        for stats in run.links.iter().filter_map(|link| cx.stats(link.conn)) {
            sample.sent.add(&stats);
            sample.window += stats.window;
            sample.in_flight += stats.in_flight;
        }
        self.tell(Update::Marked(Box::new(sample)));
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        let Some(run) = &mut self.run else { return };
        run.stopping = true;
        if let Some(handshakes) = &mut run.handshakes {
            handshakes.stop(cx);
        }
        for link in &run.links {
            let _ = cx.close(link.conn, Reason::APP.0, "measured", None);
        }
        self.end_if_over();
    }

    fn end_if_over(&mut self) {
        if self.run.as_ref().is_some_and(|run| run.stopping && run.dead >= run.links.len()) {
            self.run = None;
            self.tell(Update::Stopped);
        }
    }

    fn on_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let Some(run) = &mut self.run else { return };
        let Some(at) = run.places.get(&channel.conn()) else { return };
        let link = &mut run.links[*at];
        link.waiting = link.waiting.saturating_sub(1);
        if link.waiting > 0 {
            return;
        }
        run.ready += 1;
        if run.ready == run.plan.links() {
            self.tell(Update::Running);
            self.attempt("cannot send", |run| run.begin(cx));
        } else {
            self.attempt("cannot connect", |run| run.connect_next(cx));
        }
    }

    /// Whether the connection that stands was one of those that come and go.
    fn handshake_done(&mut self, cx: &mut Context<'_>, conn: Conn) -> bool {
        let Some(run) = &mut self.run else { return false };
        let Some(handshakes) = &mut run.handshakes else { return false };
        match handshakes.stands(cx, conn) {
            Some(Ok(took)) => {
                run.record(took);
                true
            }
            Some(Err(e)) => {
                self.fail(&format!("cannot connect: {e}"));
                true
            }
            None => false,
        }
    }
}

impl Run {
    /// Begins one more connection, if any is left.
    fn connect_next(&mut self, cx: &mut Context<'_>) -> Result<(), ApiError> {
        if self.links.len() < self.plan.links() as usize {
            let conn = cx.connect(&self.plan.connect)?;
            self.places.insert(conn, self.links.len());
            self.links.push(Link { conn, control: None, waiting: 0 });
        }
        Ok(())
    }

    /// The channels of a connection that stands.
    fn open_channels(&mut self, cx: &mut Context<'_>, conn: Conn) -> Result<(), ApiError> {
        let Some(at) = self.places.get(&conn).copied() else { return Ok(()) };
        let mut opened = 0;
        if at == 0 {
            let options = ChannelOptions {
                kind: ChannelKind::Messages,
                priority: 0,
                no_delay: true,
                ..Default::default()
            };
            let control = cx.open_channel(conn, CONTROL, &options)?;
            self.roles.insert(control, Role::Control);
            self.links[at].control = Some(control);
            opened += 1;
        }
        for (number, stream) in self.plan.carried(at as u32) {
            let flow = self.plan.flows[number as usize].clone();
            opened += flow.channels as usize;
            self.open_flow(cx, conn, &flow, (number, stream))?;
        }
        self.links[at].waiting = opened;
        Ok(())
    }

    fn open_flow(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        flow: &Flow,
        (number, stream): (u32, u32),
    ) -> Result<(), ApiError> {
        let options = flow.options();
        let sends = matches!(flow.way, Way::Up | Way::Echo | Way::Publish);
        let feeder = self.feeders.len();
        if sends {
            self.feeders.push(Feeder::new(conn, number, flow.length, flow.reliable, flow.lent));
            if flow.way == Way::Publish {
                self.publishers.insert(stream, feeder);
            }
        }
        // Each channel that goes down has a rate of its own at the server.
        let load = match flow.load {
            Load::Rate(rate) => Load::Rate(rate / f64::from(flow.channels)),
            load => load,
        };
        let streams = matches!(flow.way, Way::Publish | Way::Subscribe);
        for channel in 0..flow.channels {
            let carry = Carry {
                session: self.plan.session,
                flow: number,
                way: flow.way,
                channel: if streams { stream } else { channel },
                length: flow.length,
                load,
                lent: flow.lent,
                priority: flow.priority,
            };
            let opened = cx.open_channel(conn, &carry.name(), &options)?;
            if sends {
                self.feeders[feeder].add(opened, Feed::new(channel, flow.length, flow.lent));
                self.roles.insert(opened, Role::Feed(feeder));
            } else {
                let then = match flow.way {
                    Way::Subscribe => Then::Delay(stream),
                    _ => Then::Nothing,
                };
                self.sinks.add(opened, options.kind, Sink::new(self.plan.session, number, then));
            }
        }
        Ok(())
    }

    /// Everything stands.
    fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), ApiError> {
        if let Some(control) = self.links.first().and_then(|link| link.control) {
            cx.send(control, &control::encode(&Ask::Begin { session: self.plan.session }))?;
        }
        if let Some(handshakes) = &mut self.handshakes {
            return (0..self.plan.connections).try_for_each(|_| handshakes.begin(cx));
        }
        let now = Instant::now();
        for at in 0..self.feeders.len() {
            let load = self.plan.flows[self.feeders[at].flow() as usize].load;
            self.feeders[at].set_load(load, at, now);
            self.go(cx, at)?;
        }
        Ok(())
    }

    /// Changes the first flow of every connection.
    fn load(&mut self, cx: &mut Context<'_>, load: Load) -> Result<(), ApiError> {
        for at in 0..self.feeders.len() {
            if self.feeders[at].flow() == 0 {
                self.feeders[at].set_load(load, at, Instant::now());
                self.go(cx, at)?;
            }
        }
        Ok(())
    }

    /// Sends what is due.
    fn go(&mut self, cx: &mut Context<'_>, feeder: usize) -> Result<(), ApiError> {
        if self.stopping {
            return Ok(());
        }
        match self.feeders.get_mut(feeder) {
            Some(one) => {
                let token = u64::from(self.number) << 32 | feeder as u64;
                one.go(cx, &mut self.sources, token)
            }
            None => Ok(()),
        }
    }

    /// A message came back.
    fn returned(&mut self, feeder: usize, message: &[u8], now: Instant) {
        let one = &mut self.feeders[feeder];
        let number = payload::open(message);
        let sent = number.and_then(|number| one.returned(number));
        let count = &mut self.returned[one.flow() as usize];
        match sent {
            Some(sent) => {
                count.messages += 1;
                count.bytes += message.len() as u64;
                self.record(now.saturating_duration_since(sent));
            }
            None => count.corrupt += 1,
        }
    }

    fn record(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos());
        self.rtt.saturating_record(ns.unwrap_or(u64::MAX));
    }

    /// A message of a stream arrived; when its publisher was meant to send it is known here.
    fn forwarded(&mut self, stream: u32, number: Option<u64>, now: Instant) {
        let publisher = self.publishers.get(&stream).and_then(|at| self.feeders.get(*at));
        if let Some(sent) = number.and_then(|number| publisher?.meant_at(number)) {
            self.record(now.saturating_duration_since(sent));
        }
    }
}

impl Handler for BenchClient {
    type Command = Command;

    fn on_start(&mut self, _cx: &mut Context<'_>) {
        self.gauges.start();
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Run(plan) => self.start(cx, *plan),
            Command::Load(load) => self.attempt("cannot send", |run| run.load(cx, load)),
            Command::Mark { reset } => self.mark(cx, reset),
            Command::Stop => self.stop(cx),
        }
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _old: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        match new {
            Status::Connected if self.handshake_done(cx, conn) => {}
            Status::Connected => {
                self.attempt("cannot open a channel", |run| run.open_channels(cx, conn));
            }
            Status::ClosedByPeer | Status::ProblemDetectedLocally => {
                let words = reason.map_or_else(|| "no reason".to_owned(), ToString::to_string);
                let exit = match reason.map(|r| r.reason) {
                    Some(Reason::BAD_CERTIFICATE) => Exit::Trust,
                    _ => Exit::Connection,
                };
                self.fail_as(exit, &words);
                let _ = cx.close(conn, Reason::APP.0, "", None);
            }
            _ => {}
        }
    }

    fn on_dead(&mut self, _cx: &mut Context<'_>, conn: Conn, _report: &CloseReport) {
        if let Some(run) = &mut self.run
            && run.places.contains_key(&conn)
        {
            run.dead += 1;
            self.end_if_over();
        }
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.on_ready(cx, channel);
    }

    fn on_channel_closed(&mut self, _cx: &mut Context<'_>, _channel: Channel, end: &ChannelEnd) {
        if let ChannelEnd::Declined { text, .. } = end {
            self.fail(&format!("the server declined a channel: {text}"));
        }
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _kind: ChannelKind,
        message: &[u8],
    ) {
        let Some(run) = &mut self.run else { return };
        if let Some(taken) = run.sinks.take(channel, message) {
            if let Then::Delay(stream) = taken.then {
                run.forwarded(stream, taken.number, Instant::now());
            }
            return;
        }
        match run.roles.get(&channel).copied() {
            Some(Role::Control) => {
                if let Some(marked) = control::decode::<Marked>(message) {
                    self.on_marked(cx, marked);
                }
            }
            Some(Role::Feed(feeder)) => {
                run.returned(feeder, message, Instant::now());
                // In a closed loop the next one goes at once; a timer has all others sent.
                if run.plan.flows[run.feeders[feeder].flow() as usize].load == Load::OneByOne {
                    self.attempt("cannot send", |run| run.go(cx, feeder));
                }
            }
            None => {}
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let role = self.run.as_ref().and_then(|run| run.roles.get(&channel)).copied();
        if let Some(Role::Feed(feeder)) = role {
            self.attempt("cannot send", |run| run.go(cx, feeder));
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        let (number, feeder) = ((token >> 32) as u32, token as u32 as usize);
        if let Some(run) = &mut self.run
            && run.number == number
            && let Some(one) = run.feeders.get_mut(feeder)
        {
            one.on_timer();
            self.attempt("cannot send", |run| run.go(cx, feeder));
        }
    }
}
