//! Runs one scenario through Trunkline and takes its figures between two marks.

use super::args::{BenchArgs, Scenario};
use super::client::{BenchClient, Command, Plan, Sample, Update};
use super::ends::{End, Gauges, Losses};
use super::figures::{Cpu, FlowRun, Interval, PerPacket, Rtt, Run};
use super::flows::{self, Direction, Flow, Load, Settings, Way};
use super::live::Live;
use super::sinks::Count;
use crate::engine::Post;
use crate::exit::{Exit, Failure};
use crate::keygen;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use trunkline::{ConnectConfig, Link, Reuse};

/// Longest warm-up; a third of the measured time where that is less.
const WARM_UP: Duration = Duration::from_secs(1);
/// From a change of the load to the next mark.
const SETTLE: Duration = Duration::from_millis(200);
/// How long connections and answers may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs scenarios, one after the other, on connections of their own.
pub struct Bench<'a> {
    pub args: &'a BenchArgs,
    pub post: &'a Post<BenchClient>,
    pub gauges: Gauges,
    pub events: &'a Receiver<Update>,
    pub stop: &'a AtomicBool,
    pub driver: String,
    pub loopback: bool,
}

impl Bench<'_> {
    /// Time that one scenario takes.
    pub fn time(&self, scenario: Scenario) -> Duration {
        let before = match scenario {
            Scenario::Loaded => 2 * (SETTLE + self.warm_up()) + SETTLE,
            _ => self.warm_up(),
        };
        before + self.args.time
    }

    fn warm_up(&self) -> Duration {
        WARM_UP.min(self.args.time / 3)
    }

    /// Bytes of a message of `scenario`.
    pub fn length(&self, scenario: Scenario) -> Result<usize, Failure> {
        let length = self.args.length.unwrap_or(scenario.default_length());
        if !scenario.is_reliable() && length > trunkline::limits::MAX_DATAGRAM {
            return Err(Failure::usage("a datagram has at most 65536 bytes (-l)"));
        }
        Ok(length)
    }

    /// Channels of the load; where every message comes back, or each flow has its own, it is one.
    const fn channels(&self, scenario: Scenario) -> u32 {
        if scenario.has_channels() { self.args.channels } else { 1 }
    }

    /// Messages a second on each connection, in an open loop.
    pub fn rate(&self, scenario: Scenario, length: usize) -> Option<f64> {
        let rate = self.args.rate.filter(|_| scenario.has_rate());
        rate.map(|rate| rate.messages(length))
    }

    /// Which way the load of `scenario` goes.
    pub const fn direction(&self, scenario: Scenario) -> Direction {
        if scenario.has_direction() { self.args.direction() } else { Direction::Up }
    }

    fn flows(&self, scenario: Scenario, length: usize, rate: Option<f64>) -> Vec<Flow> {
        flows::of(&Settings {
            scenario,
            direction: self.direction(scenario),
            length,
            rate,
            channels: self.channels(scenario),
            lend: !self.args.copy,
        })
    }

    /// Runs `scenario` once; its figures, its round trips in nanoseconds, and what it measured to
    /// stand beside them, by their names in the JSON object.
    pub fn scenario(
        &self,
        scenario: Scenario,
        length: usize,
        rate: Option<f64>,
        connect: &ConnectConfig,
    ) -> Result<(Run, Histogram<u64>, Beside), Failure> {
        let mut session = [0; 8];
        keygen::random(&mut session)?;
        let flows = self.flows(scenario, length, rate);
        let plan = Plan {
            scenario,
            flows: flows.clone(),
            connections: self.args.connections(scenario),
            publishers: self.args.publishers(),
            session: u64::from_le_bytes(session),
            connect: ConnectConfig { reuse: Reuse::ForceNew, ..connect.clone() },
        };
        self.post.deliver(Command::Run(Box::new(plan)));
        let result = self.measured(scenario, length, &flows);
        self.post.deliver(Command::Stop);
        if result.is_ok() {
            self.wait(|update| matches!(update, Update::Stopped).then_some(()))?;
        }
        let Marks { phase: Phase { first, last, intervals }, warm_up, beside } = result?;
        let mut run = self.figures(scenario, length, &flows, &first, &last);
        run.warmup_seconds = warm_up.as_secs_f64();
        run.intervals = intervals;
        run.rate_per_s = rate;
        Ok((run, last.rtt, beside))
    }

    /// The marks around the measured time.
    fn measured(
        &self,
        scenario: Scenario,
        length: usize,
        flows: &[Flow],
    ) -> Result<Marks, Failure> {
        self.wait(|update| matches!(update, Update::Running).then_some(()))?;
        let begun = Instant::now();
        let mut live = Live::new(scenario);
        let beside = if scenario == Scenario::Loaded {
            self.half_load(length, flows, &mut live)?
        } else {
            self.phase(flows, &mut live, ("warming up", self.warm_up()), false)?;
            Beside::new()
        };
        let warm_up = begun.elapsed();
        let phase = self.phase(flows, &mut live, ("measuring", self.args.time), true)?;
        live.end();
        Ok(Marks { phase, warm_up, beside })
    }

    /// Measures round trips without a load and goodput with all that goes, and leaves half of that
    /// running.
    fn half_load(&self, length: usize, flows: &[Flow], live: &mut Live) -> Result<Beside, Failure> {
        std::thread::sleep(SETTLE);
        let idle = self.phase(flows, live, ("no load", self.warm_up()), true)?.last;
        self.post.deliver(Command::Load(Load::Full));
        std::thread::sleep(SETTLE);
        let full = self.phase(flows, live, ("full load", self.warm_up()), false)?;
        let full = Totals::between(&full.first, &full.last, flows).gbps;
        let connections = self.args.connections(Scenario::Loaded);
        let messages = full * 1e9 / 8.0 / length as f64 / f64::from(connections);
        self.post.deliver(Command::Load(Load::Rate(messages / 2.0)));
        std::thread::sleep(SETTLE);
        let idle = Rtt::of(&idle.rtt);
        let none = f64::NAN;
        Ok(vec![
            ("idle_p50_us", idle.p50.unwrap_or(none)),
            ("idle_p99_us", idle.p99.unwrap_or(none)),
            ("full_gbps", full),
        ])
    }

    /// Marks at the beginning and at the end of a time, shown as they come. `reset`: round trips are
    /// counted from the first one on.
    fn phase(
        &self,
        flows: &[Flow],
        live: &mut Live,
        (name, time): (&str, Duration),
        reset: bool,
    ) -> Result<Phase, Failure> {
        let first = self.mark(reset)?;
        let begun = Instant::now();
        let mut phase = Phase { last: first.clone(), first, intervals: Vec::new() };
        while begun.elapsed() < time {
            self.sleep(self.args.interval.min(time.saturating_sub(begun.elapsed())))?;
            let sample = self.mark(false)?;
            let interval = interval(flows, &phase.last, &sample, begun.elapsed().as_secs_f64());
            live.show(name, time, &interval, &sample);
            phase.last = sample;
            phase.intervals.push(interval);
        }
        Ok(phase)
    }

    /// Sleeps unless the measurement is interrupted.
    fn sleep(&self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::new(Exit::Interrupted, "interrupted"));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn mark(&self, reset: bool) -> Result<Sample, Failure> {
        self.post.deliver(Command::Mark { reset });
        let mut sample = self.wait(|update| match update {
            Update::Marked(sample) => Some(*sample),
            _ => None,
        })?;
        sample.end = self.gauges.read(&self.post.stats());
        Ok(sample)
    }

    /// Waits for the update that `wanted` picks.
    fn wait<T>(&self, wanted: impl Fn(Update) -> Option<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::new(Exit::Interrupted, "interrupted"));
            }
            match self.events.recv_timeout(Duration::from_millis(100)) {
                Ok(Update::Failed(failure)) => return Err(failure),
                Ok(update) => {
                    if let Some(found) = wanted(update) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => return Err(Failure::connection("the other side does not answer")),
            }
        }
    }

    fn figures(
        &self,
        scenario: Scenario,
        length: usize,
        flows: &[Flow],
        first: &Sample,
        last: &Sample,
    ) -> Run {
        let totals = if scenario.connects() {
            Totals::of_connections(first, last)
        } else {
            Totals::between(first, last, flows)
        };
        let (client, server) = ((&first.end, &last.end), (&first.server.end, &last.server.end));
        let cpu = |(first, last): (&End, &End)| last.cpu_since(first);
        let cpu_s = Cpu { client: cpu(client), server: cpu(server) };
        let cycles = |(first, last): (&End, &End)| last.cycles_per_packet(first);
        let (up, down) = (last.sent.since(&first.sent), last.server.sent.since(&first.server.sent));
        let both = up.plus(&down);
        let media = scenario == Scenario::Media;
        let mut run = Run {
            scenario: scenario.name(),
            link: match last.link {
                Link::Datagram => "datagram",
                Link::Stream => "stream",
            },
            driver: self.driver.clone(),
            server_driver: last.server.driver.clone(),
            loopback: self.loopback,
            direction: self.direction(scenario),
            seconds: totals.seconds,
            warmup_seconds: 0.0,
            rate_per_s: None,
            length,
            connections: self.args.connections(scenario),
            publishers: if media { self.args.publishers() } else { 0 },
            channels: self.channels(scenario),
            messages: totals.count.messages,
            bytes: totals.count.bytes,
            corrupt: corrupt(last),
            missing: totals.count.missing,
            resumed: last.resumed.saturating_sub(first.resumed),
            goodput_gbps: totals.gbps,
            messages_per_s: totals.messages_per_s,
            rtt_us: Rtt::of(&last.rtt),
            rtt_samples: last.rtt.len(),
            cpu_s,
            cpu_s_per_gbit: cpu_s.per_gbit(totals.count.bytes),
            cycles_per_packet: PerPacket {
                client: cycles(client),
                server: cycles(server),
                kernel: [&last.end, &last.server.end]
                    .iter()
                    .all(|end| end.cycles.is_none() || end.kernel_cycles),
            },
            wire_gbps: 0.0,
            packet_bytes: 0,
            packets_sent: 0,
            packets_lost: 0,
            retransmits: 0,
            losses: Losses::attribute(&both, [client, server]),
            busy_poll_us: self.args.busy_poll,
            lent: flows.iter().any(|flow| flow.lent),
            flows: (0..flows.len()).map(|at| totals.flow(at)).collect(),
            intervals: Vec::new(),
            confidence: None,
            search: Vec::new(),
            rounds: 1,
            per_round: BTreeMap::new(),
            spread: BTreeMap::new(),
            floors: BTreeMap::new(),
        };
        let counted = |of: fn(Way) -> bool| flows.iter().any(|flow| flow.counted && of(flow.way));
        let goes_down = counted(|way| matches!(way, Way::Down | Way::Echo | Way::Subscribe));
        let goes_up = counted(|way| matches!(way, Way::Up | Way::Echo | Way::Publish));
        run.set_sent(match (goes_up, goes_down) {
            (true, true) => &both,
            (false, true) => &down,
            _ => &up,
        });
        run
    }
}

/// Figures that others stand beside, by their names in the JSON object.
pub type Beside = Vec<(&'static str, f64)>;

/// A time between two marks.
struct Phase {
    first: Sample,
    last: Sample,
    intervals: Vec<Interval>,
}

/// What happened between two samples, the second of which was taken at `at_s`.
fn interval(flows: &[Flow], before: &Sample, after: &Sample, at_s: f64) -> Interval {
    let totals = match flows {
        [] => Totals::of_connections(before, after),
        flows => Totals::between(before, after, flows),
    };
    let mut rtt = after.rtt.clone();
    // The sample before has only what this one has as well, unless the count began anew.
    let rtt = if rtt.subtract(&before.rtt).is_ok() { rtt } else { after.rtt.clone() };
    let rtt = Rtt::of(&rtt);
    let sent = after.sent.since(&before.sent).plus(&after.server.sent.since(&before.server.sent));
    let load = |before: &End, after: &End, ns: u64| {
        after.cpu_since(before).map(|cpu| (cpu * 1e9 / ns.max(1) as f64).min(1.0))
    };
    Interval {
        round: 1,
        at_s,
        goodput_gbps: totals.gbps,
        messages_per_s: totals.messages_per_s,
        p50_us: rtt.p50,
        p99_us: rtt.p99,
        packets_lost: sent.lost,
        window_bytes: after.window,
        load: Cpu {
            client: load(&before.end, &after.end, after.at_ns.saturating_sub(before.at_ns)),
            server: load(
                &before.server.end,
                &after.server.end,
                after.server.at_ns.saturating_sub(before.server.at_ns),
            ),
        },
    }
}

/// The measured time.
struct Marks {
    phase: Phase,
    /// Time before the first mark.
    warm_up: Duration,
    beside: Beside,
}

/// Messages that were wrong, on both sides.
fn corrupt(sample: &Sample) -> u64 {
    let sum = |counts: &[Count]| counts.iter().map(|count| count.corrupt).sum::<u64>();
    sum(&sample.flows) + sum(&sample.server.flows)
}

/// What was delivered between two marks, each flow by the clock of the side that receives it.
#[derive(Debug, Default)]
struct Totals {
    seconds: f64,
    count: Count,
    gbps: f64,
    messages_per_s: f64,
    /// All flows, those too that are not in the sums.
    flows: Vec<(Flow, Count, f64)>,
}

impl Totals {
    fn between(first: &Sample, last: &Sample, flows: &[Flow]) -> Self {
        let seconds = |first: u64, last: u64| last.saturating_sub(first) as f64 / 1e9;
        let at_server = seconds(first.server.at_ns, last.server.at_ns);
        let at_client = seconds(first.at_ns, last.at_ns);
        let mut totals = Self::default();
        for (number, flow) in flows.iter().enumerate() {
            let (first, last, seconds) = match flow.way {
                Way::Up | Way::Publish => (&first.server.flows, &last.server.flows, at_server),
                _ => (&first.flows, &last.flows, at_client),
            };
            let of = |counts: &[Count]| counts.get(number).copied().unwrap_or_default();
            let count = of(last).since(&of(first));
            totals.flows.push((flow.clone(), count, seconds));
            if flow.counted && seconds > 0.0 {
                totals.seconds = totals.seconds.max(seconds);
                totals.count.add(&count);
                totals.gbps += count.bytes as f64 * 8e-9 / seconds;
                totals.messages_per_s += count.messages as f64 / seconds;
            }
        }
        totals
    }

    /// Connections that stood, in place of messages.
    fn of_connections(first: &Sample, last: &Sample) -> Self {
        let seconds = last.server.at_ns.saturating_sub(first.server.at_ns) as f64 / 1e9;
        let messages = last.server.handshakes.saturating_sub(first.server.handshakes);
        let messages_per_s = if seconds > 0.0 { messages as f64 / seconds } else { 0.0 };
        let count = Count { messages, ..Count::default() };
        Self { seconds, count, messages_per_s, ..Self::default() }
    }

    fn flow(&self, number: usize) -> FlowRun {
        let (flow, count, seconds) = &self.flows[number];
        let per_s = |value: f64| if *seconds > 0.0 { value / seconds } else { 0.0 };
        FlowRun {
            name: flow.name,
            way: flow.way,
            reliable: flow.reliable,
            length: flow.length,
            priority: flow.priority,
            rate_per_s: match flow.load {
                Load::Rate(rate) => Some(rate),
                _ => None,
            },
            counted: flow.counted,
            count: *count,
            goodput_gbps: per_s(count.bytes as f64 * 8e-9),
            messages_per_s: per_s(count.messages as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::{Marked, Sent};
    use super::*;

    fn sample(at_ns: u64, server: &[Count], client: &[Count]) -> Sample {
        Sample {
            server: Marked { at_ns, flows: server.to_vec(), ..Marked::default() },
            flows: client.to_vec(),
            at_ns: 2 * at_ns,
            sent: Sent::default(),
            end: End::default(),
            rtt: trunkline_floor::histogram(),
            resumed: 0,
            window: 0,
            in_flight: 0,
            link: Link::Datagram,
        }
    }

    fn count(messages: u64) -> Count {
        Count { messages, bytes: messages * 1000, ..Count::default() }
    }

    #[test]
    fn rates_add_up_over_flows() {
        let settings = Settings {
            scenario: Scenario::Bulk,
            direction: Direction::Both,
            length: 1000,
            rate: None,
            channels: 1,
            lend: false,
        };
        let flows = flows::of(&settings);
        let none = count(0);
        // The server knows of no flow yet.
        let first = sample(1_000_000_000, &[], &[none; 3]);
        let last =
            sample(2_000_000_000, &[count(100), none, count(7)], &[none, count(60), count(6)]);
        let totals = Totals::between(&first, &last, &flows);
        assert_eq!((totals.count.messages, totals.count.bytes), (160, 160_000));
        // The client's clock says that two seconds have passed.
        assert!((totals.messages_per_s - 130.0).abs() < 1e-9, "{totals:?}");
        assert!((totals.gbps - 130.0 * 8000.0 / 1e9).abs() < 1e-12);
        assert!((totals.seconds - 2.0).abs() < 1e-9);
        // Probes are counted apart.
        let probes = totals.flow(2);
        assert_eq!((probes.name, probes.counted, probes.count.messages), ("probe", false, 6));
    }

    #[test]
    fn connections_stand_for_messages() {
        let mut last = sample(3_000_000_000, &[], &[]);
        last.server.handshakes = 500;
        let totals = Totals::of_connections(&sample(1_000_000_000, &[], &[]), &last);
        assert_eq!((totals.count.messages, totals.count.bytes), (500, 0));
        assert!((totals.messages_per_s - 250.0).abs() < 1e-9);
    }
}
