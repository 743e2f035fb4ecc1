//! Runs one scenario through Trunkline and takes its figures between two marks.

use super::args::{BenchArgs, Scenario};
use super::client::{BenchClient, Command, Plan, Sample, Update};
use super::feed::LENT_FROM;
use super::figures::{Cpu, Interval, Rtt, Run};
use super::load::Load;
use super::table;
use crate::engine::Post;
use crate::exit::{Exit, Failure};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
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
        if scenario == Scenario::Datagrams && length > trunkline::limits::MAX_DATAGRAM {
            return Err(Failure::usage("a datagram has at most 65536 bytes (-l)"));
        }
        Ok(length)
    }

    /// Channels of the load: a closed loop has one.
    const fn channels(&self, scenario: Scenario) -> u32 {
        if matches!(scenario, Scenario::Latency) { 1 } else { self.args.channels }
    }

    /// Messages a second on each connection, in an open loop.
    pub fn rate(&self, scenario: Scenario, length: usize) -> Option<f64> {
        let rate = self.args.rate.filter(|_| scenario.has_rate());
        rate.map(|rate| rate.messages(length))
    }

    /// Whether the messages of a load are lent. Unreliable ones are always copied by the engine, and
    /// one at a time gains nothing.
    fn is_lent(&self, scenario: Scenario, length: usize) -> bool {
        let load = matches!(scenario, Scenario::Bulk | Scenario::Small | Scenario::Loaded);
        !self.args.copy && load && length >= LENT_FROM
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
        let connections = self.args.connections;
        let plan = Plan {
            scenario,
            length,
            connections,
            channels: self.channels(scenario),
            lent: self.is_lent(scenario, length),
            rate,
            connect: ConnectConfig { reuse: Reuse::ForceNew, ..connect.clone() },
        };
        self.post.deliver(Command::Run(Box::new(plan)));
        let result = self.measured(scenario, length);
        self.post.deliver(Command::Stop);
        if result.is_ok() {
            self.wait(|update| matches!(update, Update::Stopped).then_some(()))?;
        }
        let Marks { phase: Phase { first, last, intervals }, warm_up, beside } = result?;
        let mut run = self.figures(scenario, length, &first, &last);
        run.warmup_seconds = warm_up.as_secs_f64();
        run.intervals = intervals;
        run.rate_per_s = rate;
        Ok((run, last.rtt, beside))
    }

    /// The marks around the measured time.
    fn measured(&self, scenario: Scenario, length: usize) -> Result<Marks, Failure> {
        self.wait(|update| matches!(update, Update::Running).then_some(()))?;
        let begun = Instant::now();
        let beside = if scenario == Scenario::Loaded {
            self.half_load(length)?
        } else {
            self.phase(scenario, "warming up", self.warm_up(), false)?;
            Beside::new()
        };
        let warm_up = begun.elapsed();
        let phase = self.phase(scenario, "measuring", self.args.time, true)?;
        if io::stderr().is_terminal() {
            eprintln!();
        }
        Ok(Marks { phase, warm_up, beside })
    }

    /// Measures round trips without a load and goodput with all that goes, and leaves half of that
    /// running.
    fn half_load(&self, length: usize) -> Result<Beside, Failure> {
        std::thread::sleep(SETTLE);
        let idle = self.phase(Scenario::Loaded, "no load", self.warm_up(), true)?.last;
        self.post.deliver(Command::Load(Load::Full));
        std::thread::sleep(SETTLE);
        let full = self.phase(Scenario::Loaded, "full load", self.warm_up(), false)?;
        let full = Rate::between(&full.first, &full.last).gbps;
        let messages = full * 1e9 / 8.0 / length as f64 / f64::from(self.args.connections);
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

    /// Marks at the beginning and at the end of a time, with live lines in between. `reset`: round
    /// trips are counted from the first one on.
    fn phase(
        &self,
        scenario: Scenario,
        name: &str,
        time: Duration,
        reset: bool,
    ) -> Result<Phase, Failure> {
        let first = self.mark(reset)?;
        let begun = Instant::now();
        let mut phase = Phase { last: first.clone(), first, intervals: Vec::new() };
        while begun.elapsed() < time {
            self.sleep(self.args.interval.min(time.saturating_sub(begun.elapsed())))?;
            let sample = self.mark(false)?;
            let interval = interval(&phase.last, &sample, begun.elapsed().as_secs_f64());
            let line = table::live(scenario, name, &interval);
            if io::stderr().is_terminal() {
                eprint!("\r{line}");
            } else {
                eprintln!("{line}");
            }
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
        self.wait(|update| match update {
            Update::Marked(sample) => Some(*sample),
            _ => None,
        })
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

    fn figures(&self, scenario: Scenario, length: usize, first: &Sample, last: &Sample) -> Run {
        let rate = Rate::between(first, last);
        let used = |a: Option<f64>, b: Option<f64>| Some((b? - a?).max(0.0));
        let server_cpu = |sample: &Sample| sample.servers.first().and_then(|marked| marked.cpu_s);
        let cpu_s = Cpu {
            client: used(first.client_cpu, last.client_cpu),
            server: used(server_cpu(first), server_cpu(last)),
        };
        let sent = last.bytes_sent.saturating_sub(first.bytes_sent);
        let server_corrupt: u64 = last.servers.iter().map(|marked| marked.corrupt).sum();
        Run {
            scenario: scenario.name(),
            link: match last.link {
                Link::Datagram => "datagram",
                Link::Stream => "stream",
            },
            driver: self.driver.clone(),
            server_driver: last.servers.first().map(|m| m.driver.clone()).unwrap_or_default(),
            loopback: self.loopback,
            seconds: rate.seconds,
            warmup_seconds: 0.0,
            rate_per_s: None,
            length,
            connections: self.args.connections,
            channels: self.channels(scenario),
            messages: rate.messages,
            bytes: rate.bytes,
            corrupt: server_corrupt + last.corrupt,
            resumed: last.resumed.saturating_sub(first.resumed),
            goodput_gbps: rate.gbps,
            messages_per_s: rate.messages_per_s,
            rtt_us: Rtt::of(&last.rtt),
            rtt_samples: last.rtt.len(),
            cpu_s,
            cpu_s_per_gbit: cpu_s.per_gbit(rate.bytes),
            wire_gbps: if rate.seconds > 0.0 { sent as f64 * 8e-9 / rate.seconds } else { 0.0 },
            packet_bytes: last.packet_bytes,
            packets_sent: last.packets_sent.saturating_sub(first.packets_sent),
            packets_lost: last.packets_lost.saturating_sub(first.packets_lost),
            retransmits: last.retransmits.saturating_sub(first.retransmits),
            busy_poll_us: self.args.busy_poll,
            lent: self.is_lent(scenario, length),
            intervals: Vec::new(),
            confidence: None,
            search: Vec::new(),
            rounds: 1,
            per_round: BTreeMap::new(),
            spread: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
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
fn interval(before: &Sample, after: &Sample, at_s: f64) -> Interval {
    let rate = Rate::between(before, after);
    let mut rtt = after.rtt.clone();
    // The sample before has only what this one has as well, unless the count began anew.
    let rtt = if rtt.subtract(&before.rtt).is_ok() { rtt } else { after.rtt.clone() };
    let rtt = Rtt::of(&rtt);
    Interval {
        round: 1,
        at_s,
        goodput_gbps: rate.gbps,
        messages_per_s: rate.messages_per_s,
        p50_us: rtt.p50,
        p99_us: rtt.p99,
        packets_lost: after.packets_lost.saturating_sub(before.packets_lost),
    }
}

/// The measured time.
struct Marks {
    phase: Phase,
    /// Time before the first mark.
    warm_up: Duration,
    beside: Beside,
}

/// What was delivered between two marks, by the server's clock.
#[derive(Debug, Default)]
struct Rate {
    seconds: f64,
    messages: u64,
    bytes: u64,
    gbps: f64,
    messages_per_s: f64,
}

impl Rate {
    fn between(first: &Sample, last: &Sample) -> Self {
        let mut rate = Self::default();
        for after in &last.servers {
            // Connections answer in any order.
            let Some(before) = first.servers.iter().find(|before| before.link == after.link) else {
                continue;
            };
            let seconds = after.at_ns.saturating_sub(before.at_ns) as f64 / 1e9;
            if seconds <= 0.0 {
                continue;
            }
            let messages = after.messages.saturating_sub(before.messages);
            let bytes = after.bytes.saturating_sub(before.bytes);
            rate.seconds = rate.seconds.max(seconds);
            rate.messages += messages;
            rate.bytes += bytes;
            rate.gbps += bytes as f64 * 8.0 / seconds / 1e9;
            rate.messages_per_s += messages as f64 / seconds;
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Marked;
    use super::*;

    fn sample(servers: Vec<Marked>) -> Sample {
        Sample {
            servers,
            rtt: trunkline_floor::histogram(),
            corrupt: 0,
            resumed: 0,
            client_cpu: None,
            packets_sent: 0,
            bytes_sent: 0,
            packets_lost: 0,
            retransmits: 0,
            packet_bytes: 0,
            link: Link::Datagram,
        }
    }

    fn marked(link: u32, at_ns: u64, messages: u64) -> Marked {
        Marked {
            mark: 1,
            link,
            at_ns,
            messages,
            bytes: messages * 1000,
            corrupt: 0,
            handshakes: 0,
            cpu_s: None,
            driver: String::new(),
        }
    }

    #[test]
    fn rates_add_up_over_connections() {
        let first = sample(vec![marked(0, 1_000_000_000, 10), marked(1, 1_000_000_000, 0)]);
        let last = sample(vec![marked(1, 3_000_000_000, 100), marked(0, 2_000_000_000, 60)]);
        let rate = Rate::between(&first, &last);
        assert_eq!((rate.messages, rate.bytes), (150, 150_000));
        assert!((rate.messages_per_s - 100.0).abs() < 1e-9);
        assert!((rate.gbps - 100.0 * 8000.0 / 1e9).abs() < 1e-12);
        assert!((rate.seconds - 2.0).abs() < 1e-9);
    }
}
