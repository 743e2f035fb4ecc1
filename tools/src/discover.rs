//! `trunkline discover`.

mod table;

use crate::address::Target;
use crate::announce::device_id;
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::transfer::report::{print_json, print_line};
use clap::Args;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trunkline::discovery::{
    ClientConfig, ClientEvent, Destination, Device, DeviceId, Discovery, DiscoveryConfig,
    Interfaces, Links, PORT,
};

/// Between two looks whether to end.
const TICK: Duration = Duration::from_millis(100);

pub const HELP: &str = "\
Examples:
  trunkline discover                            everything that announces itself here
  trunkline discover --service trunkline.files  receivers of files
  trunkline discover --watch --json             what comes, changes and goes, until interrupted
  trunkline discover --unicast 192.0.2.7        one host, also beyond the local network

A device is found when it announces itself, as `trunkline recv --announce` does. What it says of
itself is not proved until a connection does: pin the fingerprint. docs/presence.md has the
protocol and the fields of --json.

Exit codes: 0 something was found (with --watch: interrupted), 1 nothing was found, 2 usage,
4 no network interface can be used, 130 interrupted";

/// Options of `discover`.
#[derive(Debug, Args)]
pub struct DiscoverArgs {
    /// Seconds to look for.
    #[arg(long, short = 't', value_name = "SECONDS", default_value = "2",
          value_parser = crate::cli::seconds)]
    pub timeout: Duration,
    /// Go on until interrupted, and tell of each device that comes, changes or goes.
    #[arg(long, conflicts_with = "timeout")]
    pub watch: bool,
    /// Only devices of this service.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub service: String,
    /// Ask this host, HOST or HOST:PORT, instead of the local network (may be repeated).
    #[arg(long, value_name = "HOST")]
    pub unicast: Vec<String>,
    /// Only the device that has this id; @FILE reads it from a file.
    #[arg(long, value_name = "ID", value_parser = device_id)]
    pub id: Option<DeviceId>,
    /// Only on this network interface (may be repeated) [default: all].
    #[arg(long, value_name = "NAME")]
    pub interface: Vec<String>,
    /// Over IPv4 only.
    #[arg(short = '4', long)]
    pub ipv4: bool,
    /// Over IPv6 only.
    #[arg(short = '6', long, conflicts_with = "ipv4")]
    pub ipv6: bool,
    /// One JSON object a line on standard output (docs/presence.md).
    #[arg(long)]
    pub json: bool,
}

/// The subcommand.
pub fn run(args: &DiscoverArgs) -> Result<Exit, Failure> {
    let mut discovery = open(&config(args)?)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    {
        let interrupted = Arc::clone(&interrupted);
        interrupt::watch(move || interrupted.store(true, Ordering::Relaxed));
    }
    let deadline = (!args.watch).then(|| Instant::now() + args.timeout);
    let mut told = Vec::new();
    if args.watch && !args.json {
        print_line(&table::head());
    }
    loop {
        let left = deadline.map_or(TICK, |d| d.saturating_duration_since(Instant::now()));
        for event in discovery.poll(left.min(TICK)).map_err(broken)? {
            if args.watch {
                tell(&event, &discovery, args.json);
            }
        }
        for problem in discovery.problems() {
            if !told.contains(problem) {
                told.push(problem.clone());
                if args.json {
                    print_json("problem", json!({"reason": problem.to_string()}));
                }
            }
        }
        if interrupted.load(Ordering::Relaxed) || left.is_zero() {
            break;
        }
    }
    let interrupted = interrupted.load(Ordering::Relaxed);
    let mut devices: Vec<&Device> = discovery.devices().collect();
    devices.sort_by(|a, b| (&a.name, a.peer, a.port()).cmp(&(&b.name, b.peer, b.port())));
    let exit = match (interrupted, args.watch) {
        (true, false) => Exit::Interrupted,
        (false, _) if devices.is_empty() => Exit::Failed,
        _ => Exit::Done,
    };
    if args.json {
        if !args.watch {
            for device in &devices {
                print_json("device", fields(device, &discovery));
            }
        }
        print_json("summary", json!({"devices": devices.len(), "exit": exit as u8}));
    } else if !args.watch {
        if devices.is_empty() {
            for problem in &told {
                eprintln!("note: {problem}");
            }
            eprintln!("nothing was found");
        } else {
            print_line(table::table(&devices, discovery.now()).trim_end());
        }
    }
    Ok(exit)
}

/// Opens the sockets; what is wrong with the settings is the user's to correct.
pub fn open(config: &DiscoveryConfig) -> Result<Discovery, Failure> {
    config.client.validate().map_err(|e| Failure::usage(e.to_string()))?;
    Discovery::start(config.clone()).map_err(broken)
}

fn broken(e: trunkline::discovery::DiscoveryError) -> Failure {
    Failure::connection(format!("cannot look for devices: {e}"))
}

fn config(args: &DiscoverArgs) -> Result<DiscoveryConfig, Failure> {
    let mut targets = Vec::new();
    for host in &args.unicast {
        let wanted = |a: &std::net::SocketAddr| if a.is_ipv4() { !args.ipv6 } else { !args.ipv4 };
        targets.extend(Target::parse(host, PORT)?.resolve()?.into_iter().filter(wanted));
    }
    if !args.unicast.is_empty() && targets.is_empty() {
        return Err(Failure::usage("no host has an address of the family that was asked for"));
    }
    Ok(DiscoveryConfig {
        client: ClientConfig {
            service: args.service.clone(),
            id: args.id.clone(),
            group: args.unicast.is_empty(),
            targets,
            ..ClientConfig::default()
        },
        interfaces: Interfaces {
            names: args.interface.clone(),
            ipv4: !args.ipv6,
            ipv6: !args.ipv4,
            ..Interfaces::default()
        },
        ..DiscoveryConfig::default()
    })
}

fn tell(event: &ClientEvent, discovery: &Discovery, json: bool) {
    let (word, sign, device) = match event {
        ClientEvent::Found(device) => ("found", '+', device),
        ClientEvent::Changed(device) => ("changed", '~', device),
        ClientEvent::Lost(device) => ("lost", '-', device),
        ClientEvent::Silent(to) => return silent(*to, json),
        _ => return,
    };
    if json {
        print_json(word, fields(device, discovery));
    } else {
        print_line(&table::line(sign, device, discovery.now()));
    }
}

/// That the whole network is silent is no news.
fn silent(to: Destination, json: bool) {
    let Destination::Host(host) = to else { return };
    if json {
        print_json("silent", json!({"address": host.to_string()}));
    } else {
        eprintln!("{host} does not answer");
    }
}

fn fields(device: &Device, discovery: &Discovery) -> Value {
    let seconds = |d: trunkline::Duration| (d.as_secs_f64() * 1e3).round() / 1e3;
    let paths: Vec<Value> = device
        .addresses()
        .into_iter()
        .filter_map(|address| device.paths.iter().find(|p| p.address == address))
        .map(|p| json!({"address": p.address.to_string(), "rtt_ms": p.rtt.as_secs_f64() * 1e3}))
        .collect();
    let named = [("udp", Links::UDP), ("tls", Links::TLS)];
    let links: Vec<&str> =
        named.iter().filter(|(_, l)| device.links.contains(*l)).map(|(n, _)| *n).collect();
    json!({
        "name": device.name,
        "service": device.service,
        "type": device.device_type.to_string(),
        "mode": device.mode.to_string(),
        "addresses": paths,
        "port": device.port(),
        "links": links,
        "fingerprint": device.peer.to_string(),
        "id_proven": device.id_proven,
        "age_s": seconds(discovery.now().since(device.heard())),
    })
}
