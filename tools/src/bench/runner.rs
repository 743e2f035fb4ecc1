//! Runs one scenario through Trunkline and takes its figures between two marks.

use super::client::{BenchClient, Command, Plan, Sample, Update};
use super::figures::{Cpu, Rtt, Run};
use super::table;
use crate::cli::{BenchArgs, Scenario};
use crate::engine::Post;
use crate::exit::{Exit, Failure};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use trunkline::{ConnectConfig, Reuse};

/// Between two live lines.
const LIVE: Duration = Duration::from_millis(500);
/// Longest warm-up; a third of the measured time where that is less.
const WARM_UP: Duration = Duration::from_secs(1);
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
    pub fn time(&self) -> Duration {
        self.args.time + self.warm_up()
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

    /// Runs `scenario` once; its figures and its round trips in nanoseconds.
    pub fn scenario(
        &self,
        scenario: Scenario,
        length: usize,
        connect: &ConnectConfig,
    ) -> Result<(Run, Histogram<u64>), Failure> {
        let connections = self.args.connections;
        let plan = Plan {
            scenario,
            length,
            connections,
            connect: ConnectConfig { reuse: Reuse::ForceNew, ..connect.clone() },
        };
        self.post.deliver(Command::Run(Box::new(plan)));
        let result = self.measured(scenario);
        self.post.deliver(Command::Stop);
        if result.is_ok() {
            self.wait(|update| matches!(update, Update::Stopped).then_some(()))?;
        }
        let (first, last, warm_up) = result?;
        Ok((self.figures(scenario, length, &first, &last, warm_up), last.rtt))
    }

    /// The marks around the measured time.
    fn measured(&self, scenario: Scenario) -> Result<(Sample, Sample, Duration), Failure> {
        self.wait(|update| matches!(update, Update::Running).then_some(()))?;
        let warm_up = self.warm_up();
        let begun = Instant::now();
        let mut before = self.mark(false)?;
        while begun.elapsed() < warm_up {
            before = self.live(scenario, begun, warm_up, &before, true)?;
        }
        let first = self.mark(true)?;
        let begun = Instant::now();
        before = first.clone();
        while begun.elapsed() < self.args.time {
            before = self.live(scenario, begun, self.args.time, &before, false)?;
        }
        if io::stderr().is_terminal() {
            eprintln!();
        }
        let last = before;
        Ok((first, last, warm_up))
    }

    /// Sleeps to the next live line (or to the end), takes a mark and shows it.
    fn live(
        &self,
        scenario: Scenario,
        begun: Instant,
        whole: Duration,
        before: &Sample,
        warm: bool,
    ) -> Result<Sample, Failure> {
        std::thread::sleep(LIVE.min(whole.saturating_sub(begun.elapsed())));
        let sample = self.mark(false)?;
        let rate = Rate::between(before, &sample);
        let at = begun.elapsed().as_secs_f64();
        let line = table::live(scenario, at, rate.gbps, rate.messages_per_s, warm);
        if io::stderr().is_terminal() {
            eprint!("\r{line}");
        } else {
            eprintln!("{line}");
        }
        Ok(sample)
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

    fn figures(
        &self,
        scenario: Scenario,
        length: usize,
        first: &Sample,
        last: &Sample,
        warm_up: Duration,
    ) -> Run {
        let rate = Rate::between(first, last);
        let used = |a: Option<f64>, b: Option<f64>| Some((b? - a?).max(0.0));
        let server_cpu = |sample: &Sample| sample.servers.first().and_then(|marked| marked.cpu_s);
        let server_corrupt: u64 = last.servers.iter().map(|marked| marked.corrupt).sum();
        Run {
            scenario: scenario.name(),
            link: "datagram",
            driver: self.driver.clone(),
            server_driver: last.servers.first().map(|m| m.driver.clone()).unwrap_or_default(),
            loopback: self.loopback,
            seconds: rate.seconds,
            warmup_seconds: warm_up.as_secs_f64(),
            length,
            connections: self.args.connections,
            messages: rate.messages,
            bytes: rate.bytes,
            corrupt: server_corrupt + last.corrupt,
            goodput_gbps: rate.gbps,
            messages_per_s: rate.messages_per_s,
            rtt_us: Rtt::of(&last.rtt),
            rtt_samples: last.rtt.len(),
            cpu_s: Cpu {
                client: used(first.client_cpu, last.client_cpu),
                server: used(server_cpu(first), server_cpu(last)),
            },
            packet_bytes: last.packet_bytes,
            packets_sent: last.packets_sent.saturating_sub(first.packets_sent),
            packets_lost: last.packets_lost.saturating_sub(first.packets_lost),
            retransmits: last.retransmits.saturating_sub(first.retransmits),
            busy_poll_us: self.args.busy_poll,
            rounds: 1,
            per_round: BTreeMap::new(),
            spread: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
    }
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
            client_cpu: None,
            packets_sent: 0,
            packets_lost: 0,
            retransmits: 0,
            packet_bytes: 0,
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
