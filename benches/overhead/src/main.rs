//! What the C interface costs: 64-byte messages through C and through Rust, in turn, in one run.
//!
//! ```text
//! cargo run --release -p trunkline-overhead
//! cargo run --release -p trunkline-overhead -- --rounds 7 --seconds 3 --json
//! ```
//!
//! Each round runs every way once: two processes over loopback, one on each of two processors. The
//! figures are medians over the rounds; ratios are of the same round.

mod inline;
mod queued;
mod side;

use clap::{Parser, Subcommand};
use side::Side;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The ways, what each is compared with, and whether it needs a thread of its own to receive.
const WAYS: [Way; 7] = [
    Way { name: "inline", what: "Rust: a handler on the shard's thread", than: "inline" },
    Way { name: "callbacks", what: "C: callbacks on the shard's thread", than: "inline" },
    Way { name: "callbacks-many", what: "C: the same, sends of 32 messages", than: "inline" },
    Way {
        name: "rust-polled",
        what: "Rust: queued, one thread polls and receives",
        than: "inline",
    },
    Way {
        name: "polled",
        what: "C: poll group, one thread polls and receives",
        than: "rust-polled",
    },
    Way { name: "rust-groups", what: "Rust: queued, received by another thread", than: "inline" },
    Way { name: "groups", what: "C: poll group, received by another thread", than: "rust-groups" },
];

struct Way {
    name: &'static str,
    what: &'static str,
    than: &'static str,
}

impl Way {
    fn is_c(&self) -> bool {
        !self.name.starts_with("rust-") && self.name != "inline"
    }

    fn has_own_threads(&self) -> bool {
        self.name.ends_with("groups")
    }
}

#[derive(Parser)]
#[command(about = "What the C interface costs, against Rust, in one run")]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Rounds; each runs every way once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Role {
    /// One side through Rust; started by the program itself.
    #[command(hide = true)]
    Side { role: String, api: String, scenario: String, seconds: f64, host: Vec<String> },
}

fn main() {
    let args = Args::parse();
    if let Some(Role::Side { api, scenario, seconds, host, .. }) = args.role {
        let host = match host.as_slice() {
            [addr, pin] => Some((addr.parse().expect("an address"), pin.parse().expect("a pin"))),
            _ => None,
        };
        let side = Side { scenario, seconds, host };
        return match &*api {
            "inline" => inline::run(&side),
            "rust-polled" => queued::run(&side, true),
            _ => queued::run(&side, false),
        };
    }
    let c = build();
    let mut rates = vec![Vec::new(); WAYS.len()];
    let mut medians = vec![Vec::new(); WAYS.len()];
    let mut tails = vec![Vec::new(); WAYS.len()];
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        for (i, way) in WAYS.iter().enumerate() {
            rates[i].push(measure(&c, way, "rate", args.seconds).0);
            let (median, tail) = measure(&c, way, "latency", args.seconds);
            medians[i].push(median / 1000.0);
            tails[i].push(tail / 1000.0);
        }
    }
    print(&args, &rates, &medians, &tails);
}

/// The C program and the library that it uses, both built as this program is.
fn build() -> PathBuf {
    let exe = std::env::current_exe().expect("a path");
    let dir = exe.parent().expect("target/release").to_owned();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = dir.parent().expect("target");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "-p", "trunkline-c", "--target-dir"])
        .arg(target)
        .current_dir(here)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the library does not build");
    let program = dir.join("overhead-c");
    let status = Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-I"])
        .arg(here.join("../../bindings-c/include"))
        .arg(here.join("c/overhead.c"))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(target.join("release"))
        .arg(format!("-Wl,-rpath,{}", target.join("release").display()))
        .args(["-ltrunkline", "-lpthread"])
        .status()
        .expect("a C compiler");
    assert!(status.success(), "the C program does not build");
    program
}

fn start(c: &Path, way: &Way, role: &str, scenario: &str, seconds: f64, host: &str) -> Child {
    let exe = std::env::current_exe().expect("a path");
    let program = if way.is_c() { c } else { &exe };
    let mut command;
    if way.has_own_threads() {
        command = Command::new(program);
    } else {
        let core = if role == "host" { "1" } else { "0" };
        command = Command::new("taskset");
        command.args(["-c", core]).arg(program);
    }
    if !way.is_c() {
        command.arg("side");
    }
    command.args([role, way.name, scenario, &seconds.to_string()]);
    command.args(host.split_whitespace());
    command.stdout(Stdio::piped()).spawn().expect("the side starts")
}

/// One measurement: the rate, or median and 99 % of the round trips.
fn measure(c: &Path, way: &Way, scenario: &str, seconds: f64) -> (f64, f64) {
    let mut host = start(c, way, "host", scenario, seconds, "");
    let mut lines = BufReader::new(host.stdout.take().expect("piped")).lines();
    let address = lines.next().expect("an address").expect("readable");
    let mut client = start(c, way, "client", scenario, seconds, &address);
    let mut answers = BufReader::new(client.stdout.take().expect("piped")).lines();
    let answer = if scenario == "rate" { lines.next() } else { answers.next() };
    let answer = answer.expect("a figure").expect("readable");
    let ended = client.wait().expect("the client ends").success();
    assert!(host.wait().expect("the host ends").success() && ended, "{} failed", way.name);
    let mut figures = answer.split(' ').map(|n| n.parse().expect("a number"));
    (figures.next().unwrap_or(0.0), figures.next().unwrap_or(0.0))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Median of the ratios of two ways, round by round.
fn ratio(of: &[f64], than: &[f64]) -> f64 {
    median(&of.iter().zip(than).map(|(a, b)| a / b).collect::<Vec<_>>())
}

fn print(args: &Args, rates: &[Vec<f64>], medians: &[Vec<f64>], tails: &[Vec<f64>]) {
    let at = |name: &str| WAYS.iter().position(|way| way.name == name).unwrap_or(0);
    if args.json {
        let ways: Vec<_> = WAYS
            .iter()
            .enumerate()
            .map(|(i, way)| {
                let (than, inline) = (at(way.than), at("inline"));
                serde_json::json!({
                    "way": way.name, "than": way.than,
                    "messages_per_s": rates[i], "p50_us": medians[i], "p99_us": tails[i],
                    "rate_ratio": ratio(&rates[i], &rates[than]),
                    "p50_ratio": ratio(&medians[i], &medians[than]),
                    "rate_ratio_inline": ratio(&rates[i], &rates[inline]),
                })
            })
            .collect();
        println!("{}", serde_json::json!({ "rounds": args.rounds, "ways": ways }));
        return;
    }
    println!(
        "| way | 64-byte messages/s | than inline | than | | round trip p50 / p99 | than | |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for (i, way) in WAYS.iter().enumerate() {
        let than = at(way.than);
        println!(
            "| {} | {:.2} M | {:.3} | {} | {:.3} | {:.1} / {:.1} µs | {} | {:.3} |",
            way.what,
            median(&rates[i]) / 1e6,
            ratio(&rates[i], &rates[0]),
            way.than,
            ratio(&rates[i], &rates[than]),
            median(&medians[i]),
            median(&tails[i]),
            way.than,
            ratio(&medians[i], &medians[than]),
        );
    }
}
