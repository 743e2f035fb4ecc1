//! `trunkline bench`.

mod client;
mod control;
mod figures;
mod server;

use crate::address::Target;
use crate::cli::{BENCH_PORT, BenchArgs, Scenario};
use crate::engine::{self, Post};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::keygen;
use client::{BenchClient, Command, Plan, Sample, Update};
use figures::{Cpu, Report, Rtt, Run};
use server::BenchServer;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use trunkline::{
    ConnectConfig, ConnectionConfig, Engine, EngineConfig, ListenConfig, PeerId, Pinning, Reuse,
    Trust,
};
use trunkline_floor::{cpu, payload};

/// Shortest message: its own header.
pub const MIN_LENGTH: usize = payload::HEADER;
/// Longest message.
pub const MAX_LENGTH: usize = trunkline::limits::MAX_MESSAGE;

/// Between two live lines.
const LIVE: Duration = Duration::from_millis(500);
/// Longest warm-up; a third of the measured time where that is less.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long connections and answers may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes queued on the loaded channel, at least.
const LOAD_BUFFER: u64 = 4 << 20;
/// How long the other side gets to learn that we end.
const FAREWELL: Duration = Duration::from_millis(300);

/// The subcommand.
pub fn run(args: &BenchArgs) -> Result<Exit, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    {
        let stop = Arc::clone(&stop);
        interrupt::watch(move || stop.store(true, Ordering::Relaxed));
    }
    if args.server { serve(args, &stop) } else { measure(args, &stop) }
}

/// `bench -s`: until interrupted.
fn serve(args: &BenchArgs, stop: &AtomicBool) -> Result<Exit, Failure> {
    let (_, processor, _) = cpu::processors();
    let server = Server::start(args, args.listen, processor)?;
    let (address, fingerprint) = (server.address.to_string(), server.fingerprint.to_string());
    if args.json {
        let driver = &server.driver;
        let object = serde_json::json!({
            "address": address, "fingerprint": fingerprint, "driver": driver,
        });
        println!("{object}");
    } else {
        println!("fingerprint {fingerprint}");
        println!("listening on {address} ({})", server.driver);
    }
    let _ = io::stdout().flush();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    server.post.shutdown(FAREWELL);
    Ok(Exit::Done)
}

/// A server with a key of its own.
struct Server {
    post: Post<BenchServer>,
    address: SocketAddr,
    fingerprint: PeerId,
    driver: String,
}

impl Server {
    fn start(args: &BenchArgs, listen: SocketAddr, processor: usize) -> Result<Self, Failure> {
        let (identity, fingerprint) = keygen::ephemeral()?;
        let name = Arc::new(OnceLock::new());
        let post = Post::<BenchServer>::new();
        let config = engine_config(args, processor, MAX_LENGTH);
        let engine = post.start(config, BenchServer::new(Arc::clone(&name)))?;
        let driver = engine.driver_name().to_owned();
        let _ = name.set(driver.clone());
        let address = listen_at(engine, ListenConfig::new(listen, identity))?;
        Ok(Self { post, address, fingerprint, driver })
    }
}

fn listen_at(engine: &Engine<BenchServer>, config: ListenConfig) -> Result<SocketAddr, Failure> {
    match engine.listen(&config) {
        Ok(listener) => Ok(listener.local_addr),
        Err(e) => Err(Failure::connection(format!("cannot listen at {}: {e}", config.addr))),
    }
}

/// UDP payload of a packet on Ethernet, IPv6 header included.
const ETHERNET_PACKET: usize = 1452;

/// One pinned shard whose messages are at most `max_message` bytes.
fn engine_config(args: &BenchArgs, processor: usize, max_message: usize) -> EngineConfig {
    let mut connection = ConnectionConfig {
        max_message,
        channel_send_buffer: LOAD_BUFFER.max(4 * max_message as u64),
        fin_wait_timeout: trunkline::Duration::from_millis(500),
        ..ConnectionConfig::default()
    };
    match args.mtu {
        Some(bytes) => {
            connection.initial_packet = usize::from(bytes);
            connection.max_packet = usize::from(bytes);
        }
        // What an Ethernet path carries: loopback's own size would flatter the figures.
        None => connection.max_packet = ETHERNET_PACKET,
    }
    EngineConfig { connection, pin: Pinning::Cores(vec![processor]), ..engine::config(args.driver) }
}

/// Everything but `-s`.
fn measure(args: &BenchArgs, stop: &AtomicBool) -> Result<Exit, Failure> {
    let (client_processor, server_processor, apart) = cpu::processors();
    if !apart {
        eprintln!("note: only one processor may be used; client and server share it");
    }
    let server = match &args.client {
        Some(_) => None,
        None => Some(Server::start(args, ([127, 0, 0, 1], 0).into(), server_processor)?),
    };
    let connect = match (&args.client, &server) {
        (Some(address), _) => remote_target(args, address)?,
        (None, Some(server)) => {
            ConnectConfig::new(server.address, Trust::Pins(vec![server.fingerprint]))
        }
        (None, None) => return Err(Failure::usage("no server")),
    };
    let loopback = connect.remotes.iter().all(|remote| remote.ip().is_loopback());
    let max_message = args.length.unwrap_or(0).max(64 << 10);
    let config = engine_config(args, client_processor, max_message);
    let (updates, events) = mpsc::channel();
    let post = Post::<BenchClient>::new();
    let driver = post.start(config, BenchClient::new(updates))?.driver_name().to_owned();
    let scenarios = match args.scenario.as_slice() {
        [] => Scenario::ALL.to_vec(),
        chosen => chosen.to_vec(),
    };
    eprintln!("{}", headline(args, &driver, server.as_ref()));
    let mut bench = Bench { args, post: &post, events: &events, stop, driver, loopback };
    let mut runs = Vec::new();
    let mut outcome = Ok(());
    for scenario in scenarios {
        match bench.scenario(scenario, connect.clone()) {
            Ok(run) => runs.push(run),
            Err(failure) => {
                outcome = Err(failure);
                break;
            }
        }
    }
    post.shutdown(FAREWELL);
    if let Some(server) = &server {
        server.post.shutdown(FAREWELL);
    }
    let report = Report::new(runs);
    match outcome {
        Ok(()) => print(args, &report),
        Err(failure) => {
            if !report.runs.is_empty() {
                eprint!("\n{}", figures::table(&report));
            }
            Err(failure)
        }
    }
}

fn headline(args: &BenchArgs, driver: &str, server: Option<&Server>) -> String {
    let at = match (&args.client, server) {
        (Some(address), _) => format!("against {address}"),
        _ => "both ends in this process, on loopback".to_owned(),
    };
    format!("trunkline {} bench, {driver}, {at}", env!("CARGO_PKG_VERSION"))
}

fn remote_target(args: &BenchArgs, address: &str) -> Result<ConnectConfig, Failure> {
    let target = Target::parse(address, BENCH_PORT)?;
    let trust = if args.pin.is_empty() {
        if !args.trust_any {
            eprintln!("note: the server is not checked; --pin FINGERPRINT does");
        }
        Trust::DangerousAny
    } else {
        Trust::Pins(args.pin.clone())
    };
    let remotes = target.resolve()?;
    let first = *remotes.first().ok_or_else(|| Failure::connection("no address"))?;
    Ok(ConnectConfig { remotes, ..ConnectConfig::new(first, trust) })
}

fn print(args: &BenchArgs, report: &Report) -> Result<Exit, Failure> {
    let table = figures::table(report);
    let mut out = io::stdout().lock();
    let printed = if args.json {
        eprint!("{table}");
        let object = serde_json::to_string_pretty(report)
            .map_err(|e| Failure::local(format!("cannot make JSON: {e}")))?;
        writeln!(out, "{object}")
    } else {
        write!(out, "{table}")
    };
    printed.map_err(|e| Failure::local(format!("cannot print: {e}")))?;
    let corrupt = report.runs.iter().any(|run| run.corrupt > 0);
    Ok(if corrupt { Exit::Failed } else { Exit::Done })
}

/// Runs scenarios, one after the other, on connections of their own.
struct Bench<'a> {
    args: &'a BenchArgs,
    post: &'a Post<BenchClient>,
    events: &'a Receiver<Update>,
    stop: &'a AtomicBool,
    driver: String,
    loopback: bool,
}

impl Bench<'_> {
    fn scenario(&mut self, scenario: Scenario, connect: ConnectConfig) -> Result<Run, Failure> {
        let length = self.args.length.unwrap_or(scenario.default_length());
        if scenario == Scenario::Datagrams && length > trunkline::limits::MAX_DATAGRAM {
            return Err(Failure::usage("a datagram has at most 65536 bytes (-l)"));
        }
        let connections = self.args.connections;
        let plan = Plan {
            scenario,
            length,
            connections,
            connect: ConnectConfig { reuse: Reuse::ForceNew, ..connect },
        };
        self.post.deliver(Command::Run(Box::new(plan)));
        let result = self.measured(scenario);
        self.post.deliver(Command::Stop);
        if result.is_ok() {
            self.wait(|update| matches!(update, Update::Stopped).then_some(()))?;
        }
        let (first, last, warm_up) = result?;
        Ok(self.figures(scenario, length, &first, &last, warm_up))
    }

    /// The marks around the measured time.
    fn measured(&self, scenario: Scenario) -> Result<(Sample, Sample, Duration), Failure> {
        self.wait(|update| matches!(update, Update::Running).then_some(()))?;
        let warm_up = WARM_UP.min(self.args.time / 3);
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
        let line = figures::live(scenario, at, rate.gbps, rate.messages_per_s, warm);
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
    use super::*;
    use control::Marked;

    fn sample(servers: Vec<Marked>) -> Sample {
        Sample {
            servers,
            rtt: figures::histogram(),
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

    #[test]
    fn settings_are_valid() {
        use crate::cli::{Cli, Command};
        use clap::Parser as _;
        for mtu in ["1200", "1452", "9000", "65507"] {
            let cli = Cli::parse_from(["trunkline", "bench", "--mtu", mtu]);
            let Command::Bench(args) = cli.command else { panic!() };
            for length in [64 << 10, MAX_LENGTH] {
                engine_config(&args, 0, length).validate().unwrap();
            }
        }
    }
}
