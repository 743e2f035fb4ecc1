//! `trunkline bench`.

mod args;
mod chart;
mod client;
mod compare;
mod confidence;
mod control;
mod csv;
mod cycles;
mod ends;
mod feed;
mod figures;
mod floors;
mod flows;
mod handshakes;
mod hgrm;
mod html;
mod live;
mod load;
mod pace;
mod rounds;
mod runner;
mod search;
mod server;
mod sinks;
mod table;

use crate::address::Target;
use crate::cli::LinkChoice;
use crate::engine::{self, Post};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::{keygen, print};
use args::{BENCH_PORT, Instead, Scenario};
pub use args::{BenchArgs, HELP};
use client::BenchClient;
use ends::Gauges;
use figures::Report;
use floors::Floors;
use flows::Direction;
use rounds::Effort;
use runner::Bench;
use server::{Answer, BenchServer, Served};
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use trunkline::{
    ConnectConfig, ConnectionConfig, Engine, EngineConfig, ListenConfig, PeerId, Pinning, Trust,
};
use trunkline_floor::{cpu, payload};

/// Shortest message: its own header.
pub const MIN_LENGTH: usize = payload::HEADER;
/// Longest message.
pub const MAX_LENGTH: usize = trunkline::limits::MAX_MESSAGE;

/// Rounds with `--floor` unless told otherwise.
const FLOOR_ROUNDS: u32 = 5;
/// Rounds at most with `--confidence` unless told otherwise.
const CONFIDENCE_ROUNDS: u32 = 30;
/// Without a connection for so long a client is taken to have gone.
const GONE: Duration = Duration::from_secs(2);
/// Marks of all clients that may wait for their answers.
const MAX_QUESTIONS: usize = 1024;
/// How long the other side gets to learn that we end.
const FAREWELL: Duration = Duration::from_millis(300);

/// The subcommand.
pub fn run(args: &BenchArgs) -> Result<Exit, Failure> {
    if let Some(Instead::Compare(args)) = &args.instead {
        return compare::run(args);
    }
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
    let mut listen = args.listen;
    if let Some(port) = args.port {
        listen.set_port(port);
    }
    let server = Server::start(args, listen, processor)?;
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
    // A client has a connection for each scenario: only a while after the last one it is gone.
    let mut alone_since = Instant::now();
    let mut is_served = || {
        if server.served.present() > 0 || !server.served.any() {
            alone_since = Instant::now();
        }
        args.one_off && alone_since.elapsed() > GONE
    };
    while !stop.load(Ordering::Relaxed) && !is_served() {
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
    served: Arc<Served>,
}

impl Server {
    fn start(args: &BenchArgs, listen: SocketAddr, processor: usize) -> Result<Self, Failure> {
        let (identity, fingerprint) = keygen::ephemeral()?;
        let name = Arc::new(OnceLock::new());
        let post = Post::<BenchServer>::new();
        let mut config = engine_config(args, processor, MAX_LENGTH)?;
        if args.server {
            write_beside(args, &mut config);
        }
        let served = Arc::<Served>::default();
        let gauges = Gauges::default();
        let (ask, questions) = mpsc::sync_channel(MAX_QUESTIONS);
        let handler = BenchServer::new(Arc::clone(&name), Arc::clone(&served), gauges.clone(), ask);
        let engine = post.start(config, handler)?;
        // The figures of this end are read here, so that the shard need not wait for files. It ends
        // when the handler is gone.
        let answers = post.clone();
        std::thread::spawn(move || {
            for asked in questions {
                let end = gauges.read(&answers.stats());
                answers.deliver(Answer { asked, end });
            }
        });
        let driver = engine.driver_name().to_owned();
        let _ = name.set(driver.clone());
        let links = args.link.unwrap_or(LinkChoice::Auto).links();
        let listen = ListenConfig { links, ..ListenConfig::new(listen, identity) };
        let address = listen_at(engine, listen)?;
        Ok(Self { post, address, fingerprint, driver, served })
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
fn engine_config(
    args: &BenchArgs,
    processor: usize,
    max_message: usize,
) -> Result<EngineConfig, Failure> {
    let mut connection = ConnectionConfig {
        max_message,
        fin_wait_timeout: trunkline::Duration::from_millis(500),
        ..ConnectionConfig::default()
    };
    match args.mtu {
        Some(bytes) => {
            connection.initial_packet = usize::from(bytes);
            connection.max_packet = usize::from(bytes);
        }
        // What an Ethernet path carries: loopback's own size would flatter the figures.
        None => connection.max_packet = args.max_mtu.map_or(ETHERNET_PACKET, usize::from),
    }
    let mut config = engine::config(args.driver);
    if let Some(profile) = &args.profile {
        config.load_profile(profile).map_err(|e| Failure::usage(format!("--profile: {e}")))?;
    }
    let busy_poll = args.busy_poll.map(|us| Duration::from_micros(u64::from(us)));
    Ok(EngineConfig {
        connection,
        shards: 1,
        pin: Pinning::Cores(vec![processor]),
        busy_poll: busy_poll.or(config.busy_poll),
        // The one source that asks is the one that measures.
        handshakes_per_source_per_s: 0,
        ..config
    })
}

/// The files that an engine keeps: there is one of each, so one engine of a process has them.
fn write_beside(args: &BenchArgs, config: &mut EngineConfig) {
    config.stats_file = args.stats.path();
    config.capture = args.capture.config();
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
    let link = args.link.unwrap_or(LinkChoice::Udp);
    let connect = ConnectConfig { link: link.connect(), ..connect };
    let loopback = connect.remotes.iter().all(|remote| remote.ip().is_loopback());
    let max_message = args.length.unwrap_or(0).max(64 << 10);
    let mut config = engine_config(args, client_processor, max_message)?;
    write_beside(args, &mut config);
    let scenarios = scenarios(args)?;
    let mut hgrm = match &args.hgrm {
        Some(path) => Some(hgrm::Files::create(path, &scenarios)?),
        None => None,
    };
    let csv = args.csv.as_deref().map(ResultFile::create).transpose()?;
    let html = args.html.as_deref().map(ResultFile::create).transpose()?;
    let floors = args.floor.then(|| {
        let cpus = (client_processor, server_processor);
        Floors::new(args, cpus, config.connection.max_packet)
    });
    let (updates, events) = mpsc::channel();
    let post = Post::<BenchClient>::new();
    let gauges = Gauges::default();
    let client = BenchClient::new(updates, gauges.clone());
    let driver = post.start(config, client)?.driver_name().to_owned();
    eprintln!("{}", headline(args, &driver, server.as_ref()));
    let rounds = args.rounds.unwrap_or(match args.confidence {
        Some(_) => CONFIDENCE_ROUNDS,
        None if args.floor => FLOOR_ROUNDS,
        None => 1,
    });
    let effort = Effort { rounds, confidence: args.confidence };
    let bench = Bench { args, post: &post, gauges, events: &events, stop, driver, loopback };
    let (measured, outcome) = rounds::run(&bench, floors.as_ref(), &scenarios, &connect, effort);
    post.shutdown(FAREWELL);
    if let Some(server) = &server {
        server.post.shutdown(FAREWELL);
    }
    if let Some(files) = &mut hgrm {
        for (run, rtt) in &measured {
            files.write(run.scenario, rtt)?;
        }
    }
    let (runs, trips): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
    let report = Report::new(runs, args.title.clone(), args.profile.clone());
    if let Some(file) = csv {
        file.write(&csv::csv(&report))?;
    }
    if let Some(file) = html {
        file.write(&html::page(&report, &trips))?;
    }
    match outcome {
        Ok(()) => show(args, &report),
        Err(failure) => {
            if !report.runs.is_empty() {
                eprint!("\n{}", table::table(&report));
            }
            Err(failure)
        }
    }
}

/// What is to be run; an option that one of them does not have is refused.
fn scenarios(args: &BenchArgs) -> Result<Vec<Scenario>, Failure> {
    let directed = args.direction() != Direction::Up;
    let fits = |scenario: &Scenario| {
        // Some have a rate of their own, some have one direction.
        (scenario.has_rate() || !args.find_max) && (scenario.has_direction() || !directed)
    };
    if args.scenario.is_empty() {
        return Ok(Scenario::USUAL.into_iter().filter(fits).collect());
    }
    let refused = |scenario: Scenario| {
        let media = scenario == Scenario::Media;
        let rate = args.rate.is_some() && !scenario.has_rate();
        [
            (rate || args.find_max && !scenario.has_rate(), "-b and --find-max are"),
            (directed && !scenario.has_direction(), "--reverse and --bidir are"),
            (args.length.is_some() && scenario == Scenario::Mixed, "--length is"),
            (args.connections.is_some() && media, "--connections is"),
            (args.channels > 1 && !scenario.has_channels(), "--channels is"),
        ]
        .into_iter()
        .find(|(refused, _)| *refused)
    };
    for scenario in &args.scenario {
        if let Some((_, options)) = refused(*scenario) {
            return Err(Failure::usage(format!("{options} not for {}", scenario.name())));
        }
    }
    let streams = args.publishers.is_some() || args.subscribers.is_some();
    if streams && !args.scenario.contains(&Scenario::Media) {
        return Err(Failure::usage("--publishers and --subscribers are for --scenario media"));
    }
    Ok(args.scenario.clone())
}

/// A file for results, there before anything is measured.
struct ResultFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> ResultFile<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|e| Failure::cannot_write(path, &e))?;
        Ok(Self { path, file })
    }

    fn write(mut self, text: &str) -> Result<(), Failure> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|e| Failure::cannot_write(self.path, &e))
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
    let target = Target::parse(address, args.port.unwrap_or(BENCH_PORT))?;
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

fn show(args: &BenchArgs, report: &Report) -> Result<Exit, Failure> {
    let table = table::table(report);
    let mut out = io::stdout().lock();
    let printed = if args.json {
        eprint!("{table}");
        let object = serde_json::to_string_pretty(report)
            .map_err(|e| Failure::local(format!("cannot make JSON: {e}")))?;
        writeln!(out, "{object}")
    } else {
        write!(out, "{table}")
    };
    printed.map_err(print::failure)?;
    let corrupt = report.runs.iter().any(|run| run.corrupt > 0);
    Ok(if corrupt { Exit::Failed } else { Exit::Done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_valid() {
        use crate::cli::{Cli, Command};
        use clap::Parser as _;
        for mtu in ["1200", "1452", "9000", "65507"] {
            let cli = Cli::parse_from(["trunkline", "bench", "--mtu", mtu]);
            let Command::Bench(args) = cli.command else { panic!() };
            for length in [64 << 10, MAX_LENGTH] {
                engine_config(&args, 0, length).unwrap().validate().unwrap();
            }
        }
    }
}
