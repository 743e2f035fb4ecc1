//! The command-line tool of Trunkline: moves files, measures, makes keys, runs an event source.

mod address;
mod announce;
mod bench;
mod boot;
mod capture;
mod chat;
mod cli;
mod discover;
mod engine;
mod event_source;
mod exit;
mod hex;
mod home;
mod interrupt;
mod keygen;
mod manual;
mod metrics;
mod peers;
mod print;
mod profile;
mod recv;
#[cfg(test)]
mod scratch;
mod send;
mod sparkline;
mod token;
mod top;
mod transfer;

use clap::Parser as _;
use cli::{Cli, Command};
use std::process::ExitCode;

/// What the log shows unless told otherwise. Socket buffers that the system caps are the normal
/// case and nothing that a user of this tool has to act on.
const DEFAULT_LOG: &str = "warn,trunkline::sys=error";

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        // A server tells what happens, in the form that its settings ask for.
        Command::EventSource(_) => {}
        _ => start_log(cli.log.as_deref(), DEFAULT_LOG, false),
    }
    let outcome = match &cli.command {
        Command::Send(args) => Ok(send::run(args)),
        Command::Recv(args) => Ok(recv::run(args)),
        Command::Bench(args) => bench::run(args),
        Command::Keygen(args) => keygen::run(args),
        Command::Discover(args) => discover::run(args),
        Command::Chat(args) => chat::run(args),
        Command::EventSource(args) => event_source::run(args, cli.log.as_deref()),
        Command::Token(args) => token::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
        Command::Profile(args) => profile::run(args),
        Command::Top(args) => top::run(args),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// Starts the log on standard error, as text or as one JSON object a line.
fn start_log(filter: Option<&str>, default: &str, json: bool) {
    let fallback = || std::env::var("TRUNKLINE_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = filter.map_or_else(fallback, str::to_owned);
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.init();
    }
}
