//! The client of a measurement on the shard: connections, load, round trips and marks.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::args::Scenario;
use super::control::{self, CONTROL, ECHO, Mark, Marked, PROBE, SINK};
use super::feed::Feed;
use super::handshakes::Handshakes;
use super::load::{self, Load, PROBE_LENGTH, Pace, Probes};
use crate::exit::{Exit, Failure};
use hdrhistogram::Histogram;
use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::time::Instant;
use trunkline::{
    ApiError, Channel, ChannelEnd, ChannelKind, ChannelOptions, CloseReason, CloseReport, Conn,
    ConnectConfig, Context, Duration, Handler, Reason, Status,
};
use trunkline_floor::cpu::ThreadClock;
use trunkline_floor::payload::{self, Source};

/// Token of the timer for probes.
const PROBE_TIMER: u64 = 1;
/// Token of the timer that goes on sending.
const PUMP_TIMER: u64 = 2;

/// One scenario to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub length: usize,
    pub connections: u32,
    /// Channels of the load on each of them.
    pub channels: u32,
    /// Messages are lent to the engine.
    pub lent: bool,
    /// Open loop: messages a second on each connection.
    pub rate: Option<f64>,
    pub connect: ConnectConfig,
}

impl Plan {
    /// Whether messages are sent at fixed times, whatever comes back.
    fn open_loop(&self) -> bool {
        self.rate.is_some() || self.scenario == Scenario::Loaded
    }

    /// Channels of the load: none where there is none, or all messages are probes.
    fn load_channels(&self) -> u32 {
        let probes = self.scenario == Scenario::Latency && self.rate.is_some();
        if probes || self.scenario.connects() { 0 } else { self.channels }
    }

    /// Connections that stay for the whole run; where others come and go, one that asks for marks.
    fn links(&self) -> u32 {
        if self.scenario.connects() { 1 } else { self.connections }
    }
}

fn run_handshakes(plan: &Plan) -> Option<Handshakes> {
    let resume = plan.scenario == Scenario::Resumptions;
    plan.scenario.connects().then(|| Handshakes::new(plan.connect.clone(), resume))
}

/// What the measuring thread wants.
pub enum Command {
    /// Connect and start the load.
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
    /// Every connection stands and the load runs.
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
    /// One for each connection.
    pub servers: Vec<Marked>,
    pub rtt: Histogram<u64>,
    /// Messages that came back wrong.
    pub corrupt: u64,
    /// Connections made whose session was resumed.
    pub resumed: u64,
    pub client_cpu: Option<f64>,
    pub packets_sent: u64,
    /// Of the packets that were sent, and the system's headers are not in it.
    pub bytes_sent: u64,
    pub packets_lost: u64,
    pub retransmits: u64,
    pub packet_bytes: u64,
    /// What carries the connections.
    pub link: trunkline::Link,
}

/// The handler.
pub struct BenchClient {
    updates: Sender<Update>,
    clock: Option<ThreadClock>,
    run: Option<Run>,
}

struct Run {
    plan: Plan,
    links: Vec<Link>,
    roles: HashMap<Channel, (usize, Role)>,
    ready: usize,
    dead: usize,
    stopping: bool,
    failed: bool,
    rtt: Histogram<u64>,
    corrupt: u64,
    marks: u64,
    answers: Vec<Marked>,
    /// A timer that goes on sending is set.
    pump_due: bool,
    handshakes: Option<Handshakes>,
}

/// One connection.
pub struct Link {
    pub conn: Conn,
    control: Option<Channel>,
    /// Channels of the load, each with what it sends.
    pub load: Vec<(Channel, Feed)>,
    /// Of the messages that are copied.
    pub source: Source,
    /// The one whose turn is next.
    pub turn: usize,
    probes: Option<Probes>,
    /// When the message of the closed loop that is under way was sent.
    pub sent_at: Option<Instant>,
    channels_ready: u32,
    running: bool,
    pub blocked: bool,
    pub pace: Pace,
}

impl Link {
    /// The next channel of the load is the one after this.
    pub fn pass_turn(&mut self) {
        self.turn = if self.turn + 1 == self.load.len() { 0 } else { self.turn + 1 };
    }

    /// The number of the last message of a closed loop, which has one channel.
    fn last_sent(&self) -> Option<u64> {
        self.load.first().and_then(|(_, feed)| feed.next().checked_sub(1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Control,
    Load,
    Echo,
    Probe,
}

impl BenchClient {
    /// Waits for commands.
    pub fn new(updates: Sender<Update>) -> Self {
        Self { updates, clock: None, run: None }
    }

    fn tell(&self, update: Update) {
        let _ = self.updates.send(update);
    }

    fn start(&mut self, cx: &mut Context<'_>, plan: Plan) {
        let mut run = Run {
            links: Vec::new(),
            roles: HashMap::new(),
            ready: 0,
            dead: 0,
            stopping: false,
            failed: false,
            rtt: trunkline_floor::histogram(),
            corrupt: 0,
            marks: 0,
            answers: Vec::new(),
            pump_due: false,
            handshakes: run_handshakes(&plan),
            plan,
        };
        for _ in 0..run.plan.links() {
            match cx.connect(&run.plan.connect) {
                Ok(conn) => run.links.push(Link {
                    conn,
                    control: None,
                    load: Vec::new(),
                    source: Source::new(run.plan.length, run.links.len() as u64 + 1),
                    turn: 0,
                    probes: None,
                    sent_at: None,
                    channels_ready: 0,
                    running: false,
                    blocked: false,
                    pace: Pace::new(match run.plan.scenario {
                        Scenario::Loaded => Load::None,
                        _ => run.plan.rate.map_or(Load::Full, Load::Rate),
                    }),
                }),
                Err(e) => {
                    run.failed = true;
                    self.tell(Update::Failed(Failure::connection(format!("cannot connect: {e}"))));
                    break;
                }
            }
        }
        self.run = Some(run);
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

    /// The channels of a connection that stands.
    fn open_channels(&mut self, cx: &mut Context<'_>, conn: Conn) -> Result<(), ApiError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let Some(at) = run.links.iter().position(|link| link.conn == conn) else { return Ok(()) };
        let urgent =
            |kind| ChannelOptions { kind, priority: 0, no_delay: true, ..Default::default() };
        let mut open = |name, options: ChannelOptions, role| {
            let channel = cx.open_channel(conn, name, &options)?;
            run.roles.insert(channel, (at, role));
            Ok(channel)
        };
        let control = open(CONTROL, urgent(ChannelKind::Messages), Role::Control)?;
        let load = ChannelOptions { kind: ChannelKind::Messages, ..Default::default() };
        let unreliable = ChannelOptions { kind: ChannelKind::Datagrams, ..Default::default() };
        let (name, load, role) = match run.plan.scenario {
            Scenario::Bulk | Scenario::Small | Scenario::Loaded => (SINK, load, Role::Load),
            Scenario::Datagrams => (SINK, unreliable, Role::Load),
            _ => (ECHO, urgent(ChannelKind::Messages), Role::Echo),
        };
        let mut feeds = Vec::new();
        let open_loop = run.plan.open_loop();
        for number in 0..run.plan.load_channels() {
            let seed = (u64::from(number) << 32) + at as u64 + 1;
            feeds.push((
                open(name, load, role)?,
                Feed::new(number, run.plan.length, seed, run.plan.lent),
            ));
        }
        // In an open loop the messages whose round trips are measured are paced probes.
        let seed = !(at as u64);
        let urgent = urgent(ChannelKind::Messages);
        let probes = match (run.plan.scenario, run.plan.rate) {
            (Scenario::Latency, None) | (Scenario::Handshakes | Scenario::Resumptions, _) => None,
            (Scenario::Latency, rate) => {
                let channel = open(ECHO, urgent, Role::Probe)?;
                Some(Probes::new(channel, run.plan.length, seed).paced(rate))
            }
            _ => {
                let probes = Probes::new(open(PROBE, urgent, Role::Probe)?, PROBE_LENGTH, seed);
                Some(if open_loop { probes.paced(None) } else { probes })
            }
        };
        let link = &mut run.links[at];
        link.control = Some(control);
        link.load = feeds;
        link.probes = probes;
        Ok(())
    }

    fn load(&mut self, cx: &mut Context<'_>, load: Load) {
        let Some(run) = &mut self.run else { return };
        for link in &mut run.links {
            link.pace = Pace::new(load);
            link.blocked = false;
        }
        self.pump_all(cx);
    }

    fn mark(&mut self, cx: &mut Context<'_>, reset: bool) {
        let Some(run) = &mut self.run else { return };
        if reset {
            run.rtt.reset();
        }
        run.marks += 1;
        run.answers.clear();
        let mut problem = None;
        for (number, link) in run.links.iter().enumerate() {
            let question = control::encode(&Mark { mark: run.marks, link: number as u32 });
            if let Some(control) = link.control
                && let Err(e) = cx.send(control, &question)
            {
                problem = Some(format!("cannot ask the server: {e}"));
            }
        }
        if let Some(problem) = problem {
            self.fail(&problem);
        }
    }

    fn on_marked(&mut self, cx: &mut Context<'_>, marked: Marked) {
        let Some(run) = &mut self.run else { return };
        if marked.mark != run.marks {
            return;
        }
        run.answers.push(match run.handshakes {
            // What is counted of a run that makes connections.
            Some(_) => Marked { messages: marked.handshakes, bytes: 0, ..marked },
            None => marked,
        });
        if run.answers.len() < run.links.len() {
            return;
        }
        let mut sample = Sample {
            servers: std::mem::take(&mut run.answers),
            rtt: run.rtt.clone(),
            corrupt: run.corrupt,
            resumed: run.handshakes.as_ref().map_or(0, Handshakes::resumed),
            client_cpu: self.clock.as_ref().and_then(ThreadClock::seconds),
            packets_sent: 0,
            bytes_sent: 0,
            packets_lost: 0,
            retransmits: 0,
            packet_bytes: 0,
            link: run
                .links
                .first()
                .and_then(|link| cx.info(link.conn))
                .map(|info| info.link)
                .unwrap_or_default(),
        };
        for stats in run.links.iter().filter_map(|link| cx.stats(link.conn)) {
            sample.packets_sent += stats.packets_sent;
            sample.bytes_sent += stats.bytes_sent;
            sample.packets_lost += stats.packets_lost;
            sample.retransmits += stats.retransmits;
            sample.packet_bytes = sample.packet_bytes.max(stats.packet_size);
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

    /// Sends what the channel takes.
    fn pump(&mut self, cx: &mut Context<'_>, at: usize) {
        let Some(run) = &mut self.run else { return };
        if run.stopping {
            return;
        }
        let link = &mut run.links[at];
        let result = match run.plan.scenario {
            Scenario::Bulk | Scenario::Small | Scenario::Loaded => load::due(cx, link),
            Scenario::Datagrams => load::unreliable(cx, link),
            Scenario::Latency => load::ping(cx, link).map(|()| None),
            Scenario::Handshakes | Scenario::Resumptions => Ok(None),
        };
        match result {
            Ok(Some(again)) if !run.pump_due => {
                run.pump_due = true;
                cx.set_timer(again, PUMP_TIMER);
            }
            Ok(_) | Err(ApiError::WouldBlock(_) | ApiError::InvalidHandle) => {}
            Err(e) => self.fail(&format!("cannot send: {e}")),
        }
    }

    /// A message of a closed loop or a probe is back.
    fn on_return(&mut self, cx: &mut Context<'_>, at: usize, role: Role, message: &[u8]) {
        let now = Instant::now();
        let Some(run) = &mut self.run else { return };
        let link = &mut run.links[at];
        let sequence = payload::open(message);
        let last = link.last_sent();
        let sent = match (role, &mut link.probes) {
            (Role::Echo, _) if sequence == last => link.sent_at.take(),
            (Role::Probe, Some(probes)) => probes.take(sequence),
            _ => None,
        };
        match sent {
            Some(sent) => {
                let ns = u64::try_from(now.duration_since(sent).as_nanos()).unwrap_or(u64::MAX);
                run.rtt.saturating_record(ns);
            }
            None => run.corrupt += 1,
        }
        if role == Role::Echo {
            self.pump(cx, at);
        }
    }

    fn on_ready(&mut self, cx: &mut Context<'_>, at: usize) {
        let Some(run) = &mut self.run else { return };
        let link = &mut run.links[at];
        link.channels_ready += 1;
        let load = run.plan.load_channels();
        if link.channels_ready < 1 + load + u32::from(link.probes.is_some()) {
            return;
        }
        link.running = true;
        run.ready += 1;
        if run.ready == run.links.len() {
            if run.links.iter().any(|link| link.probes.is_some()) {
                cx.set_timer(Duration::ZERO, PROBE_TIMER);
            }
            self.tell(Update::Running);
            self.begin_handshakes(cx);
        }
        self.pump(cx, at);
    }

    fn begin_handshakes(&mut self, cx: &mut Context<'_>) {
        let Some(run) = &mut self.run else { return };
        let Some(handshakes) = &mut run.handshakes else { return };
        let begun = (0..run.plan.connections).try_for_each(|_| handshakes.begin(cx));
        if let Err(e) = begun {
            self.fail(&format!("cannot connect: {e}"));
        }
    }

    /// Whether the connection that stands was one of those that come and go.
    fn handshake_done(&mut self, cx: &mut Context<'_>, conn: Conn) -> bool {
        let Some(run) = &mut self.run else { return false };
        let Some(handshakes) = &mut run.handshakes else { return false };
        match handshakes.stands(cx, conn) {
            Some(Ok(took)) => {
                let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                run.rtt.saturating_record(ns);
                true
            }
            Some(Err(e)) => {
                self.fail(&format!("cannot connect: {e}"));
                true
            }
            None => false,
        }
    }

    fn send_probes(&mut self, cx: &mut Context<'_>) {
        let Some(run) = &mut self.run else { return };
        if run.stopping {
            return;
        }
        let now = Instant::now();
        let next = run.links.iter_mut().filter_map(|link| link.probes.as_mut());
        let next = next.map(|probes| probes.send(cx, now)).min();
        if let Some(next) = next {
            cx.set_timer(next, PROBE_TIMER);
        }
    }

    fn pump_all(&mut self, cx: &mut Context<'_>) {
        let links = self.run.as_ref().map_or(0, |run| run.links.len());
        for at in 0..links {
            if self.run.as_ref().is_some_and(|run| run.links[at].running && !run.links[at].blocked)
            {
                self.pump(cx, at);
            }
        }
    }
}

impl Handler for BenchClient {
    type Command = Command;

    fn on_start(&mut self, _cx: &mut Context<'_>) {
        self.clock = Some(ThreadClock::current());
    }

    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Run(plan) => self.start(cx, *plan),
            Command::Load(load) => self.load(cx, load),
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
                if let Err(e) = self.open_channels(cx, conn) {
                    self.fail(&format!("cannot open a channel: {e}"));
                }
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
            && run.links.iter().any(|link| link.conn == conn)
        {
            run.dead += 1;
            self.end_if_over();
        }
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let at = self.run.as_ref().and_then(|run| run.roles.get(&channel)).map(|(at, _)| *at);
        if let Some(at) = at {
            self.on_ready(cx, at);
        }
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
        let role = self.run.as_ref().and_then(|run| run.roles.get(&channel)).copied();
        match role {
            Some((_, Role::Control)) => {
                if let Some(marked) = control::decode::<Marked>(message) {
                    self.on_marked(cx, marked);
                }
            }
            Some((at, role)) => self.on_return(cx, at, role, message),
            None => {}
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let at = self.run.as_ref().and_then(|run| run.roles.get(&channel)).map(|(at, _)| *at);
        if let Some(at) = at {
            self.pump(cx, at);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        if token == PROBE_TIMER {
            return self.send_probes(cx);
        }
        if let Some(run) = &mut self.run {
            run.pump_due = false;
        }
        self.pump_all(cx);
    }
}
