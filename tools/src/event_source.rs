//! `trunkline event-source`: the server over which clients find each other (`docs/pairing.md`).

mod config;
mod metrics;

use crate::cli::{Driver, LinkChoice};
use crate::exit::{Exit, Failure};
use crate::token::KeyFile;
use crate::{engine, interrupt, keygen, print, start_log};
use clap::{Args, ValueEnum};
use config::{Listen, Settings};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use trunkline::rendezvous::{AppId, EventSourceServer, connection_config};
use trunkline::{EngineConfig, EngineError, Identity, ListenConfig, Listener};

/// What the log shows unless told otherwise: who comes and goes.
const DEFAULT_LOG: &str = "warn,trunkline=info,trunkline::sys=error";
/// A port that is in use is asked for again so often, for so long.
const PORT_RETRY: Duration = Duration::from_millis(20);
const PORT_PATIENCE: Duration = Duration::from_secs(3);

pub const HELP: &str = "\
Examples:
  trunkline token key --out k1.key
  trunkline event-source --key k1=k1.key --listen 0.0.0.0:7472 --app chess
  trunkline event-source --config event-source.toml --metrics 127.0.0.1:9472

The configuration file (TOML) is described in docs/event-source.md; options replace what it says.
SIGTERM ends the server gracefully: clients are told, take what was sent to them, and come back by
themselves when it, or another one at the same address, is there again.

Exit codes: 0 ended by a signal, 1 a file could not be used, 2 usage or configuration,
4 cannot listen";

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Options of `event-source`.
#[derive(Debug, Args)]
pub struct EventSourceArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port (UDP and TCP) to listen on (may be repeated) [default: 127.0.0.1:7472].
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Key of access tokens: its name, and the file with its secret (may be repeated).
    #[arg(long, value_name = "NAME=FILE")]
    pub key: Vec<KeyFile>,
    /// Serve only this application (may be repeated) [default: every one that a token names].
    #[arg(long, value_name = "APP")]
    pub app: Vec<AppId>,
    /// Our key and certificate (PEM, as keygen writes it) [default: identity.pem in
    /// $TRUNKLINE_HOME or ~/.config/trunkline, made on first use].
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Address and TCP port of the metrics (HTTP, /metrics and /healthz) [default: none].
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Threads that serve clients [default: 1].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Which driver carries the packets.
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    #[command(flatten)]
    pub stats: engine::StatsFileArg,
    /// Form of the log on standard error [default: json].
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// One JSON object a line on standard output.
    #[arg(long)]
    pub json: bool,
}

/// The subcommand.
pub fn run(args: &EventSourceArgs, log: Option<&str>) -> Result<Exit, Failure> {
    let settings = Settings::load(args)?;
    start_log(log, DEFAULT_LOG, settings.log == LogFormat::Json);
    engine::raise_file_limit();
    let (ended, end) = mpsc::channel();
    interrupt::watch(move || {
        let _ = ended.send(());
    });
    let (identity, made) = keygen::load_or_make(settings.identity.as_deref())?;
    if made {
        tracing::info!("made a new key for this user");
    }
    let fingerprint = identity.peer_id().to_string();
    let config = EngineConfig {
        shards: settings.shards,
        connection: connection_config(),
        // With it, clients of a server that was killed learn at once that it has started again.
        identity: Some(identity.clone()),
        max_connections: u32::try_from(settings.source.max_clients)
            .unwrap_or(u32::MAX)
            .saturating_add(1024)
            .min(1 << 20),
        handshakes_per_source_per_s: settings.handshakes_per_source_per_s,
        stun: settings.stun,
        stats_file: settings.stats_file.clone(),
        ..engine::config(args.driver)
    };
    let started = EventSourceServer::start(config, &settings.source, &settings.keys);
    let server = Arc::new(started.map_err(|e| Failure::usage(e.to_string()))?);
    let mut listeners = Vec::new();
    for listen in &settings.listen {
        listeners.push((listen.link, bind(&server, listen, &identity)?));
    }
    let metrics = match settings.metrics {
        Some(addr) => Some(
            metrics::serve(addr, server.clone())
                .map_err(|e| Failure::connection(format!("cannot serve metrics at {addr}: {e}")))?,
        ),
        None => None,
    };
    announce(args.json, &listeners, metrics, &fingerprint, server.driver_name())?;
    // Without signals to watch, only the end of the process ends the server.
    let _ = end.recv();
    stop(args.json, &server, settings.linger)
}

/// Listens there. The kernel lets go of the port of a process that was killed a moment after it is
/// gone, so a port in use is asked for again.
fn bind(
    server: &EventSourceServer,
    listen: &Listen,
    identity: &Identity,
) -> Result<Listener, Failure> {
    let config = ListenConfig {
        links: listen.link.links(),
        stun: listen.answers_stun(),
        ..ListenConfig::new(listen.address, identity.clone())
    };
    let start = Instant::now();
    loop {
        let error = match server.listen(&config) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        if !is_in_use(&error) || start.elapsed() > PORT_PATIENCE {
            let text = format!("cannot listen at {}: {error}", listen.address);
            return Err(if matches!(error, EngineError::Api(_)) {
                Failure::usage(text)
            } else {
                Failure::connection(text)
            });
        }
        std::thread::sleep(PORT_RETRY);
    }
}

fn is_in_use(error: &EngineError) -> bool {
    let EngineError::System { source, .. } = error else { return false };
    source.kind() == ErrorKind::AddrInUse
}

fn stop(json: bool, server: &EventSourceServer, linger: Duration) -> Result<Exit, Failure> {
    tracing::info!("ending: clients are told to come back");
    let stats = server.stats();
    let report = server.shutdown(linger);
    let delivered = report.all_delivered();
    let fields = json!({
        "clients": stats.clients, "attached": stats.source.attached,
        "delivered": stats.source.delivered, "all_taken": delivered,
    });
    let text = format!("ended; {} clients were connected", stats.clients);
    print::event(json, "ended", fields, &text)?;
    Ok(Exit::Done)
}

fn announce(
    json: bool,
    listeners: &[(LinkChoice, Listener)],
    metrics: Option<SocketAddr>,
    fingerprint: &str,
    driver: &str,
) -> Result<(), Failure> {
    use std::fmt::Write as _;
    let addresses: Vec<Value> = listeners
        .iter()
        .map(|(link, listener)| {
            json!({"link": link.name(), "address": listener.local_addr.to_string()})
        })
        .collect();
    let mut text = format!("fingerprint {fingerprint}\n");
    for (link, listener) in listeners {
        let (addr, link) = (listener.local_addr, link.words());
        let _ = writeln!(text, "listening on {addr} ({link}, {driver})");
    }
    if let Some(addr) = metrics {
        let _ = writeln!(text, "metrics at http://{addr}/metrics");
    }
    let fields = json!({
        "listen": addresses, "fingerprint": fingerprint, "driver": driver,
        "metrics": metrics.map(|a| a.to_string()),
    });
    print::event(json, "listening", fields, text.trim_end())
}
