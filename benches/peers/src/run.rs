//! One measurement: two processes, marks around the measured time, and the figure.

use crate::counters::Sample;
use crate::figures::Figure;
use crate::peer;
use crate::side::{Ask, Role, Said};
use crate::workload::{Job, PATIENCE, Workload};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longest warm-up; a third of the measured time where that is less.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// How long messages may still be under way after the last was sent.
const DRAIN: Duration = Duration::from_millis(300);
/// How long idle connections are left alone before memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections that stand before memory is counted: what the first ones cost is not theirs alone.
const BASE_CONNECTIONS: u64 = 100;

/// A side as its starter sees it.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<Said>,
}

impl Process {
    /// Starts a side of `job`.
    ///
    /// # Errors
    /// This program cannot be started again.
    pub fn start(role: Role, job: &Job, connect: Option<SocketAddr>) -> Result<Self, String> {
        let failed = |e| format!("cannot start the {}: {e}", role.name());
        let program = std::env::current_exe().map_err(failed)?;
        let text = serde_json::to_string(job).map_err(|e| failed(e.into()))?;
        let mut command = Command::new(program);
        command.args(["side", role.name(), &text]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(connect) = connect {
            command.arg(connect.to_string());
        }
        let mut child = command.spawn().map_err(failed)?;
        let (tell, said) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let said = serde_json::from_str(&line).unwrap_or(Said::Failed(line));
                    if tell.send(said).is_err() {
                        break;
                    }
                }
            });
        }
        let input = child.stdin.take();
        Ok(Self { child, input, said })
    }

    /// Asks for something that has no answer, or before it is waited for.
    ///
    /// # Errors
    /// The side has ended.
    pub fn ask(&mut self, ask: Ask) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("no input")?;
        let line = serde_json::to_string(&ask).map_err(|e| e.to_string())?;
        writeln!(input, "{line}").map_err(|e| format!("a side has ended: {e}"))
    }

    /// Waits for what `wanted` picks.
    ///
    /// # Errors
    /// The side failed, ended, or says nothing for long.
    pub fn wait<T>(&self, wanted: impl Fn(Said) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said::Failed(why)) => return Err(why),
                Ok(said) => {
                    if let Some(found) = wanted(said) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err("a side does not answer".into()),
                Err(RecvTimeoutError::Disconnected) => return Err("a side has ended".into()),
            }
        }
    }

    /// The address that a server listens at.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn address(&self) -> Result<SocketAddr, String> {
        self.wait(|said| match said {
            Said::Listening(address) => Some(address),
            _ => None,
        })
    }

    /// Until a client's load runs.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn running(&self) -> Result<(), String> {
        self.wait(|said| (said == Said::Running).then_some(()))
    }

    /// What it has counted.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn sample(&mut self, ask: Ask) -> Result<Sample, String> {
        let asked = self.ask(ask);
        // A side that has ended cannot be asked, but has said why.
        let sample = self.wait(|said| match said {
            Said::Sample(sample) => Some(sample),
            _ => None,
        })?;
        asked.map(|()| sample)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input ends a side.
        self.input = None;
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both sides of a measurement.
struct Pair {
    client: Process,
    server: Process,
}

impl Pair {
    fn sample(&mut self, ask: Ask) -> Result<Samples, String> {
        let (server, client) = (self.server.sample(ask)?, self.client.sample(ask)?);
        Ok(Samples { client, server })
    }
}

#[derive(Clone, Copy)]
struct Samples {
    client: Sample,
    server: Sample,
}

/// Runs a job on loopback for `time`, after a warm-up.
///
/// # Errors
/// A side failed, or something that was delivered was not right.
pub fn measure(job: &Job, time: Duration) -> Result<Figure, String> {
    if let Some(figure) = peer::find(&job.peer).and_then(|peer| peer.measure(job, time)) {
        return figure;
    }
    let server = Process::start(Role::Server, job, None)?;
    let client = Process::start(Role::Client, job, Some(server.address()?))?;
    client.running()?;
    let mut pair = Pair { client, server };
    let figure = match job.workload {
        Workload::Memory => memory(job, &mut pair)?,
        workload => timed(workload, &mut pair, time)?,
    };
    Ok(figure)
}

fn check(samples: &Samples) -> Result<(), String> {
    check_corrupt(samples.client.corrupt + samples.server.corrupt)
}

/// A figure counts only if everything that was delivered was right.
///
/// # Errors
/// It was not.
pub fn check_corrupt(messages: u64) -> Result<(), String> {
    match messages {
        0 => Ok(()),
        n => Err(format!("{n} messages were not right")),
    }
}

/// How long a measurement of `time` runs before it counts.
pub fn warm_up(time: Duration) -> Duration {
    WARM_UP.min(time / 3)
}

fn timed(workload: Workload, pair: &mut Pair, time: Duration) -> Result<Figure, String> {
    std::thread::sleep(warm_up(time));
    let first = pair.sample(Ask::Mark)?;
    std::thread::sleep(time);
    let last = pair.sample(Ask::Sample)?;
    check(&last)?;
    let mut figure = figure(workload, &first, &last);
    if matches!(workload, Workload::Datagrams | Workload::Tick) {
        pair.client.ask(Ask::Quiet)?;
        pair.server.ask(Ask::Quiet)?;
        std::thread::sleep(DRAIN);
        let end = pair.sample(Ask::Sample)?;
        check(&end)?;
        let sent = end.client.sent + end.server.sent;
        let received = end.client.received + end.server.received;
        let lost = sent.saturating_sub(received) as f64 / sent.max(1) as f64;
        figure.extra.insert("lost_percent".into(), 100.0 * lost);
    }
    Ok(figure)
}

fn figure(workload: Workload, first: &Samples, last: &Samples) -> Figure {
    let seconds = |a: &Sample, b: &Sample| b.at_ns.saturating_sub(a.at_ns).max(1) as f64 / 1e9;
    let cpu = |a: &Sample, b: &Sample| b.cpu_ns.saturating_sub(a.cpu_ns) as f64 / 1e9;
    let elapsed = seconds(&first.server, &last.server);
    let messages = (last.server.received - first.server.received) as f64;
    let bytes = (last.server.bytes - first.server.bytes) as f64;
    let server_cpu = cpu(&first.server, &last.server);
    let server_cores = server_cpu / elapsed;
    let us = |ns: u64| ns as f64 / 1e3;
    let main = match workload {
        Workload::Bulk | Workload::BulkLarge => bytes * 8.0 / elapsed / 1e9,
        Workload::Latency => us(last.client.delays.p50_ns),
        Workload::Tick => server_cores,
        Workload::Handshakes | Workload::Resumed => messages / server_cpu.max(1e-9),
        _ => messages / elapsed / 1e6,
    };
    let mut figure = Figure::new(main);
    let mut extra = |name: &str, value: f64| figure.extra.insert(name.to_owned(), value);
    extra("server_cores", server_cores);
    extra("client_cores", cpu(&first.client, &last.client) / seconds(&first.client, &last.client));
    match workload {
        Workload::Latency => {
            extra("p99_us", us(last.client.delays.p99_ns));
            extra("per_s", last.client.delays.count as f64 / elapsed);
        }
        Workload::Tick => {
            extra("p99_up_us", us(last.server.delays.p99_ns));
            extra("p99_down_us", us(last.client.delays.p99_ns));
            extra("per_s", messages / elapsed);
        }
        _ => {
            extra("per_s", messages / elapsed);
        }
    }
    figure
}

/// What each connection adds to the server's memory.
fn memory(job: &Job, pair: &mut Pair) -> Result<Figure, String> {
    let deadline = Instant::now() + PATIENCE;
    let mut base: Option<Samples> = None;
    loop {
        let now = pair.sample(Ask::Sample)?;
        if base.is_none() && now.server.received >= BASE_CONNECTIONS {
            base = Some(now);
        }
        if now.server.received >= job.connections as u64 {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("{} connections stand after {PATIENCE:?}", now.server.received));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(SETTLE);
    let first = pair.sample(Ask::Mark)?;
    std::thread::sleep(SETTLE);
    let last = pair.sample(Ask::Sample)?;
    check(&last)?;
    let base = base.ok_or("there were too few connections")?;
    let added = (last.server.received - base.server.received).max(1) as f64;
    let kib = |a: &Sample, b: &Sample| b.resident.saturating_sub(a.resident) as f64 / 1024.0;
    let mut figure = Figure::new(kib(&base.server, &last.server) / added);
    let idle = (last.server.at_ns - first.server.at_ns).max(1) as f64;
    let cores = (last.server.cpu_ns - first.server.cpu_ns) as f64 / idle;
    figure.extra.insert("client_kib".into(), kib(&base.client, &last.client) / added);
    figure.extra.insert("idle_server_cores".into(), cores);
    Ok(figure)
}
