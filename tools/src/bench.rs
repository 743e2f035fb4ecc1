//! `trunkline bench`.

mod client;
mod control;
mod feed;
mod figures;
mod floors;
mod hgrm;
mod load;
mod pace;
mod rounds;
mod runner;
mod server;
mod table;

use crate::address::Target;
use crate::cli::{BENCH_PORT, BenchArgs, LinkChoice, Scenario};
use crate::engine::{self, Post};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::{keygen, print};
use client::BenchClient;
use figures::Report;
use floors::Floors;
use runner::Bench;
use server::BenchServer;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
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
        let links = args.link.unwrap_or(LinkChoice::Auto).links();
        let listen = ListenConfig { links, ..ListenConfig::new(listen, identity) };
        let address = listen_at(engine, listen)?;
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
    EngineConfig {
        connection,
        pin: Pinning::Cores(vec![processor]),
        busy_poll: args.busy_poll.map(|us| Duration::from_micros(u64::from(us))),
        ..engine::config(args.driver)
    }
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
    let config = engine_config(args, client_processor, max_message);
    let scenarios = match args.scenario.as_slice() {
        [] => Scenario::ALL.to_vec(),
        chosen => chosen.to_vec(),
    };
    let mut hgrm = match &args.hgrm {
        Some(path) => Some(hgrm::Files::create(path, &scenarios)?),
        None => None,
    };
    let floors = args.floor.then(|| {
        let cpus = (client_processor, server_processor);
        Floors::new(args, cpus, config.connection.max_packet)
    });
    let (updates, events) = mpsc::channel();
    let post = Post::<BenchClient>::new();
    let driver = post.start(config, BenchClient::new(updates))?.driver_name().to_owned();
    eprintln!("{}", headline(args, &driver, server.as_ref()));
    let rounds = args.rounds.unwrap_or(if args.floor { FLOOR_ROUNDS } else { 1 });
    let bench = Bench { args, post: &post, events: &events, stop, driver, loopback };
    let (measured, outcome) = rounds::run(&bench, floors.as_ref(), &scenarios, &connect, rounds);
    post.shutdown(FAREWELL);
    if let Some(server) = &server {
        server.post.shutdown(FAREWELL);
    }
    if let Some(files) = &mut hgrm {
        for (run, rtt) in &measured {
            files.write(run.scenario, rtt)?;
        }
    }
    let report = Report::new(measured.into_iter().map(|(run, _)| run).collect());
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
                engine_config(&args, 0, length).validate().unwrap();
            }
        }
    }
}
