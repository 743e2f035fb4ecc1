//! The command-line tool of Trunkline: moves files, measures, makes keys.

mod address;
mod announce;
mod bench;
mod cli;
mod discover;
mod engine;
mod exit;
mod home;
mod interrupt;
mod keygen;
mod peers;
mod recv;
#[cfg(test)]
mod scratch;
mod send;
mod transfer;

use clap::Parser as _;
use cli::{Cli, Command};
use std::process::ExitCode;

/// What the log shows unless told otherwise. Socket buffers that the system caps are the normal
/// case and nothing that a user of this tool has to act on.
const DEFAULT_LOG: &str = "warn,trunkline::sys=error";

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log.as_deref());
    let outcome = match &cli.command {
        Command::Send(args) => Ok(send::run(args)),
        Command::Recv(args) => Ok(recv::run(args)),
        Command::Bench(args) => bench::run(args),
        Command::Keygen(args) => keygen::run(args),
        Command::Discover(args) => discover::run(args),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        failure.exit
    });
    ExitCode::from(exit as u8)
}

fn start_log(filter: Option<&str>) {
    let fallback = || std::env::var("TRUNKLINE_LOG").unwrap_or_else(|_| DEFAULT_LOG.to_owned());
    let filter = filter.map_or_else(fallback, str::to_owned);
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
}
