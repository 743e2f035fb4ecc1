//! The command line, rounds of measurements, and what is written about them.

use crate::figures::{Row, Table};
use crate::host::Host;
use crate::peer::{self, Peer};
use crate::remote::{self, Drive};
use crate::run;
use crate::scale::measure::{self, Scale};
use crate::side::{self, Role};
use crate::workload::{Job, TCP_CONGESTION, Workload};
use crate::{svg, tables};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Runs the same workloads through Trunkline and through other transports.
#[derive(Parser)]
#[command(name = "peers", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measure: Measure,
}

#[derive(Args)]
struct Measure {
    /// Workloads, several with commas; all by default.
    #[arg(long, value_delimiter = ',', value_parser = parse_workload)]
    workload: Vec<Workload>,
    /// Peers, several with commas; all by default.
    #[arg(long, value_delimiter = ',', value_parser = parse_peer)]
    peer: Vec<&'static str>,
    /// Rounds; each has every workload through every peer once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds, after a warm-up of at most one second.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Connections of `tick` and `memory`.
    #[arg(long)]
    connections: Option<usize>,
    /// Write everything to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write one chart for each workload into this folder.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write the tables to this file.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// The server of a bulk measurement between two machines or network namespaces, until
    /// interrupted; questions about it are answered on TCP at the port above.
    Serve {
        /// trunkline, quinn, tcp, …
        #[arg(long, value_parser = parse_peer)]
        peer: &'static str,
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// Congestion control of TCP sockets.
        #[arg(long, default_value = TCP_CONGESTION)]
        tcp_congestion: String,
    },
    /// The client of such a measurement.
    Drive(Drive),
    /// How the costs of Trunkline grow with connections, channels and shards.
    Scale(Scale),
    /// List peers and workloads.
    List,
    /// One of the two processes of a measurement.
    #[command(hide = true)]
    Side { role: String, job: String, connect: Option<SocketAddr> },
}

fn parse_workload(name: &str) -> Result<Workload, String> {
    Workload::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Workload::ALL.iter().map(|workload| workload.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

fn parse_peer(name: &str) -> Result<&'static str, String> {
    peer::find(name).map(Peer::name).ok_or_else(|| {
        let names: Vec<&str> = peer::ALL.iter().map(|peer| peer.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => compare(&cli.measure),
        Some(Command::Scale(scale)) => measure::run(&scale),
        Some(Command::List) => {
            list();
            Ok(())
        }
        Some(Command::Side { role, job, connect }) => run_side(&role, &job, connect),
        Some(Command::Serve { peer, listen, tcp_congestion }) => {
            remote::serve(peer, listen, tcp_congestion)
        }
        Some(Command::Drive(drive)) => remote::drive(&drive),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("peers: {why}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    for peer in peer::ALL {
        println!("{:<18} {}", peer.name(), peer.about());
    }
    println!();
    for workload in Workload::ALL {
        println!("{:<18} {} ({})", workload.name(), workload.title(), workload.unit());
    }
}

fn run_side(role: &str, job: &str, connect: Option<SocketAddr>) -> Result<(), String> {
    let job: Job = serde_json::from_str(job).map_err(|e| format!("no job: {e}"))?;
    let role = match role {
        "server" => Role::Server,
        "client" => Role::Client,
        _ => return Err(format!("no side {role:?}")),
    };
    side::run(role, &job, connect)
}

fn compare(args: &Measure) -> Result<(), String> {
    let workloads =
        if args.workload.is_empty() { Workload::ALL.to_vec() } else { args.workload.clone() };
    let peers: Vec<&dyn Peer> = peer::ALL
        .into_iter()
        .filter(|peer| args.peer.is_empty() || args.peer.contains(&peer.name()))
        .collect();
    let mut results: Vec<Table> = workloads.iter().map(|w| empty_table(*w, &peers)).collect();
    for round in 0..args.rounds.max(1) {
        for table in &mut results {
            measure_round(args, round, table)?;
        }
    }
    results.iter_mut().for_each(Table::summarize);
    let packages: BTreeSet<&str> = peers.iter().flat_map(|peer| peer.packages()).copied().collect();
    let host = Host::this(&packages.into_iter().collect::<Vec<_>>());
    println!("{}\n", host.line());
    for table in &results {
        println!("{}", tables::text(table));
    }
    write_all(args, &host, &results)
}

fn empty_table(workload: Workload, peers: &[&dyn Peer]) -> Table {
    let mut table = Table::new(workload);
    table.rows = peers
        .iter()
        .map(|peer| Row {
            peer: peer.name().to_owned(),
            about: peer.about().to_owned(),
            refused: peer.refuses(workload).map(str::to_owned),
            ..Row::default()
        })
        .collect();
    table
}

fn measure_round(args: &Measure, round: usize, table: &mut Table) -> Result<(), String> {
    let workload = table.workload;
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|e| e.to_string())?;
    for row in table.rows.iter_mut().filter(|row| row.refused.is_none()) {
        let mut job = Job::new(&row.peer, workload);
        if let (Some(connections), true) = (args.connections, job.connections > 1) {
            job.connections = connections;
        }
        let at =
            format!("round {} of {}: {} {}", round + 1, args.rounds, workload.name(), row.peer);
        match run::measure(&job, time) {
            Ok(figure) => {
                progress(&format!("{at}: {} {}", tables::number(figure.main), workload.unit()));
                row.rounds.push(Some(figure));
            }
            Err(why) => {
                eprintln!("{at}: {why}");
                row.failures.push(why);
                row.rounds.push(None);
            }
        }
    }
    Ok(())
}

fn progress(line: &str) {
    let mut err = std::io::stderr();
    let end = if err.is_terminal() { "\x1b[K\r" } else { "\n" };
    let _ = write!(err, "{line}{end}");
}

fn write_all(args: &Measure, host: &Host, results: &[Table]) -> Result<(), String> {
    if let Some(path) = &args.json {
        let report = json!({
            "host": host,
            "rounds": args.rounds,
            "seconds": args.seconds,
            "workloads": results,
        });
        let text = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
        write(path, &(text + "\n"))?;
    }
    if let Some(folder) = &args.svg {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for table in results {
            write(&folder.join(chart_name(table)), &svg::chart(table))?;
        }
    }
    if let Some(path) = &args.markdown {
        write(path, &document(args, host, results, path.parent()))?;
    }
    Ok(())
}

fn chart_name(table: &Table) -> String {
    format!("{}.svg", table.workload.name())
}

/// The tables as a document in `folder`, with links to the charts where those are below it.
fn document(args: &Measure, host: &Host, results: &[Table], folder: Option<&Path>) -> String {
    let folder = folder.unwrap_or(Path::new(""));
    let charts = args.svg.as_ref().map(|svg| svg.strip_prefix(folder).unwrap_or(svg));
    let mut text = format!(
        "{}\n\n{} rounds of {} s each, all peers in turn in every round; loopback, client and \
         server on a processor each.\n",
        host.line(),
        args.rounds,
        args.seconds
    );
    for table in results {
        let chart = charts.map(|charts| charts.join(chart_name(table)).display().to_string());
        text.push('\n');
        text.push_str(&tables::markdown(table, chart.as_deref()));
    }
    text
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
