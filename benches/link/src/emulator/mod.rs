//! The program on Linux.
//!
//! ```text
//! cli      what was asked for
//! netns    namespaces and TUN devices, removed at the end
//! forward  devices ↔ model, asleep until the next packet
//! command  what ends it
//! report   what is printed
//! ```

mod cli;
mod command;
mod forward;
mod netns;
mod report;

use clap::Parser as _;
use cli::Args;
use command::{Running, Signals};
use forward::Forwarder;
use netns::Namespace;
use report::Report;
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use trunkline_link::{Link, LinkConfig};

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
/// A wrong command line.
const USAGE: u8 = 2;
/// Something here went wrong, and not in the command.
const FAILED: u8 = 125;

/// Why the program ends, and its exit status.
struct Failure(u8, String);

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self(FAILED, why)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(FAILED, error.to_string())
    }
}

/// The program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let checked = args.link().and_then(|link| Ok((link, args.names()?)));
    let done = match checked {
        Ok((link, names)) => run(&args, &link, &names),
        Err(e) => Err(Failure(USAGE, format!("--{}: {}", e.field, e.why))),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure(code, why)) => {
            eprintln!("link-emulator: {why}");
            ExitCode::from(code)
        }
    }
}

fn run(args: &Args, config: &LinkConfig, names: &[String; 2]) -> Result<u8, Failure> {
    let mut signals = Signals::catch()?;
    let spaces = [Namespace::make(&names[0])?, Namespace::make(&names[1])?];
    let devices =
        [spaces[0].device(ADDRESSES[0], args.mtu)?, spaces[1].device(ADDRESSES[1], args.mtu)?];
    let link = |seed| Link::new(config, seed).map_err(|e| e.to_string());
    let mut forwarder = Forwarder::new(devices, [link(args.seed)?, link(!args.seed)?]);
    // Sleeps end when they should, not 50 µs later. Without this they are a little less exact.
    let _ = nix::sys::prctl::set_timerslack(1);
    let addresses = ADDRESSES.map(|address| address.to_string());
    let variables = [
        ("LINK_A", names[0].as_str()),
        ("LINK_B", names[1].as_str()),
        ("LINK_A_ADDRESS", addresses[0].as_str()),
        ("LINK_B_ADDRESS", addresses[1].as_str()),
    ];
    let mut running = Running::start(&args.command, &variables).map_err(|e| {
        let program = args.command[0].display();
        Failure(command::cannot_start(&e), format!("{program}: {e}"))
    })?;
    if running.is_none() {
        print(&ready(args.json, &spaces, &addresses));
    }
    let code = wait(&mut forwarder, &mut signals, running.as_mut())?;
    let device_drops = [spaces[0].device_drops()?, spaces[1].device_drops()?];
    let report = Report {
        config,
        seed: args.seed,
        seconds: forwarder.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(),
        ways: &forwarder.ways,
        device_drops,
    };
    if args.json {
        print(&report.json().to_string());
    } else {
        eprintln!("{}", report.table());
    }
    Ok(code)
}

/// Forwards until the command ends or a signal comes.
fn wait(
    forwarder: &mut Forwarder,
    signals: &mut Signals,
    mut running: Option<&mut Running>,
) -> Result<u8, Failure> {
    loop {
        forwarder.run_until(&signals.wake)?;
        let over = signals.over();
        match &mut running {
            None if over => return Ok(0),
            None => {}
            Some(running) if over => return Ok(running.end()?),
            Some(running) => {
                if let Some(code) = running.ended()? {
                    return Ok(code);
                }
            }
        }
    }
}

fn ready(json: bool, spaces: &[Namespace; 2], addresses: &[String; 2]) -> String {
    if json {
        let side = |n: usize| json!({ "netns": spaces[n].name(), "address": addresses[n] });
        return json!({ "ready": true, "a": side(0), "b": side(1) }).to_string();
    }
    let side = |n: usize| format!("{} ({})", spaces[n].name(), addresses[n]);
    format!("{} and {} are linked", side(0), side(1))
}

/// A line on standard output. Nobody reads it any more if this fails.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// CPU time of this thread, which does everything; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let ns = text.split_ascii_whitespace().next().and_then(|ns| ns.parse::<f64>().ok());
    ns.unwrap_or(0.0) / 1e9
}
