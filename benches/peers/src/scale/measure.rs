//! Measures series: two processes a point, as for a workload.

use super::job::Point;
use super::series::{Figures, Series};
use super::{lines, series, sides};
use crate::counters::Sample;
use crate::host::Host;
use crate::run::Process;
use crate::side::{Ask, Role};
use crate::workload::{Job, Workload};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Messages a second each way of the series over connections and channels.
const PER_S: u64 = 20_000;
/// Connections of the series `limit`.
const LIMIT_CONNECTIONS: usize = 10_000;
/// Its first rate, in messages a second each way on each connection.
const LIMIT_FIRST: u64 = 5;
/// Connections of the series `shards`.
const FLOODED: usize = 64;
/// A rate is held when 99 % of the messages arrive within this time.
const LIMIT_P99_US: f64 = 100_000.0;
/// After connections stand, and after the last message was sent.
const SETTLE: Duration = Duration::from_millis(500);

/// The command line.
#[derive(Args)]
pub struct Scale {
    /// Series, several with commas; all by default.
    #[arg(value_delimiter = ',')]
    series: Vec<Name>,
    /// Connections or channels of the points.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000, 10_000])]
    counts: Vec<usize>,
    /// Rounds; the medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds of a point.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Write everything to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write charts into this folder.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write the tables to this file.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// A series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Over connections.
    Connections,
    /// Over channels of one connection.
    Channels,
    /// Over the rate of 10,000 connections.
    Limit,
    /// Over shards.
    Shards,
}

/// Runs series.
///
/// # Errors
/// A side failed, or a file cannot be written.
pub fn run(args: &Scale) -> Result<(), String> {
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|e| e.to_string())?;
    let chosen = if args.series.is_empty() { Name::value_variants() } else { &args.series };
    let mut all = Vec::new();
    for name in chosen {
        let series = match name {
            Name::Connections => over(args, time, "connections", |n| Point::beats(n, 1, PER_S))?,
            Name::Channels => over(args, time, "channels", |n| Point::beats(1, n, PER_S))?,
            Name::Limit => limit(time)?,
            Name::Shards => shards(args, time)?,
        };
        println!("{}", series::table(&series));
        all.push(series);
    }
    write(args, &all)
}

fn over(
    args: &Scale,
    time: Duration,
    axis: &str,
    point: impl Fn(usize) -> Point,
) -> Result<Series, String> {
    let points = points(args, &args.counts, axis, |count| {
        let measured = measure(&point(count), time)?;
        Ok((Figures { x: count as f64, ..measured.figures }, measured.resident))
    })?;
    let title = match axis {
        "channels" => format!("Channels of one connection, {PER_S} × 100 bytes a second each way"),
        _ => format!("Connections, {PER_S} × 100 bytes a second each way in all"),
    };
    Ok(Series { name: axis.to_owned(), axis: axis.to_owned(), title, points })
}

/// Every count in every round.
fn points(
    args: &Scale,
    counts: &[usize],
    axis: &str,
    one: impl Fn(usize) -> Result<(Figures, f64), String>,
) -> Result<Vec<Figures>, String> {
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); counts.len()];
    for round in 1..=args.rounds.max(1) {
        let mut first: Option<(f64, f64)> = None;
        for (count, rounds) in counts.iter().zip(&mut rounds) {
            let (mut figures, resident) = one(*count)?;
            match first {
                None => first = Some((figures.x, resident)),
                Some((x, base)) if figures.x > x => {
                    figures.server_bytes = ((resident - base) / (figures.x - x)).max(0.0);
                }
                Some(_) => {}
            }
            eprintln!(
                "round {round}: {count} {axis}: {:.0} ns/message, {:.0} messages/s",
                figures.server_ns, figures.messages_per_s
            );
            rounds.push(figures);
        }
    }
    Ok(rounds.iter().map(|rounds| Figures::median(rounds)).collect())
}

/// Raises the rate until it is not held any more, twice in a row.
fn limit(time: Duration) -> Result<Series, String> {
    let mut points = Vec::new();
    let mut rate = LIMIT_FIRST;
    let mut failures = 0;
    while failures < 2 {
        let point = Point::beats(LIMIT_CONNECTIONS, 1, rate * LIMIT_CONNECTIONS as u64);
        let figures = Figures { x: rate as f64, ..measure(&point, time)?.figures };
        let wanted = 2.0 * point.per_s();
        let held = figures.lost_percent == 0.0
            && figures.p99_us < LIMIT_P99_US
            && figures.messages_per_s > 0.97 * wanted;
        eprintln!(
            "{rate}/s: {:.2} cores, p99 {:.0} µs, {:.3} % lost{}",
            figures.server_cores,
            figures.p99_us,
            figures.lost_percent,
            if held { "" } else { ": not held" }
        );
        if held {
            failures = 0;
            points.push(figures);
            rate += 1;
        } else {
            failures += 1;
        }
    }
    Ok(Series {
        name: "limit".to_owned(),
        axis: "messages/s each".to_owned(),
        title: format!("{LIMIT_CONNECTIONS} connections, 100-byte messages each way: rates held"),
        points,
    })
}

fn shards(args: &Scale, time: Duration) -> Result<Series, String> {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let counts: Vec<usize> = [1, 2, 4, 8, 16].into_iter().filter(|n| *n <= most).collect();
    let points = points(args, &counts, "shards", |shards| {
        let measured = measure(&Point::flood(FLOODED, shards), time)?;
        let figures = Figures { x: shards as f64, p99_us: 0.0, ..measured.figures };
        Ok((figures, 0.0))
    })?;
    let points = points.into_iter().map(|p| Figures { server_bytes: 0.0, ..p }).collect();
    Ok(Series {
        name: "shards".to_owned(),
        axis: "shards".to_owned(),
        title: format!("Shards of each side, {FLOODED} connections flooded with 64-byte messages"),
        points,
    })
}

struct Measured {
    figures: Figures,
    /// Bytes of the server while the load ran.
    resident: f64,
}

/// One point.
fn measure(point: &Point, time: Duration) -> Result<Measured, String> {
    let job = Job { point: Some(point.clone()), ..Job::new(sides::NAME, Workload::Tick) };
    let mut server = Process::start(Role::Server, &job, None)?;
    let mut client = Process::start(Role::Client, &job, Some(server.address()?))?;
    client.running()?;
    std::thread::sleep(SETTLE);
    let first = (server.sample(Ask::Mark)?, client.sample(Ask::Mark)?);
    std::thread::sleep(time);
    let last = (server.sample(Ask::Sample)?, client.sample(Ask::Sample)?);
    let mut figures = figures(&first, &last);
    if point.beats_per_s > 0 {
        for side in [&mut server, &mut client] {
            side.ask(Ask::Quiet)?;
        }
        std::thread::sleep(SETTLE);
        let end = (server.sample(Ask::Sample)?, client.sample(Ask::Sample)?);
        let sent = end.0.sent + end.1.sent;
        let lost = sent.saturating_sub(end.0.received + end.1.received);
        figures.lost_percent = 100.0 * lost as f64 / sent.max(1) as f64;
    }
    match last.0.corrupt + last.1.corrupt {
        0 => Ok(Measured { figures, resident: last.0.resident as f64 }),
        n => Err(format!("{n} messages were not right")),
    }
}

fn figures(first: &(Sample, Sample), last: &(Sample, Sample)) -> Figures {
    let seconds = (last.0.at_ns - first.0.at_ns).max(1) as f64 / 1e9;
    let received = (last.0.received - first.0.received + last.1.received - first.1.received) as f64;
    // Each message is sent by one side and received by the other.
    let cost = |a: &Sample, b: &Sample| (b.cpu_ns - a.cpu_ns) as f64 / received.max(1.0);
    Figures {
        messages_per_s: received / seconds,
        server_ns: cost(&first.0, &last.0),
        client_ns: cost(&first.1, &last.1),
        server_cores: (last.0.cpu_ns - first.0.cpu_ns) as f64 / 1e9 / seconds,
        p99_us: last.0.delays.p99_ns.max(last.1.delays.p99_ns) as f64 / 1e3,
        ..Figures::default()
    }
}

fn write(args: &Scale, all: &[Series]) -> Result<(), String> {
    let host = Host::this(&["trunkline", "ring"]);
    let put = |path: &PathBuf, text: &str| {
        fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    };
    if let Some(path) = &args.json {
        let report = json!({
            "host": host, "rounds": args.rounds, "seconds": args.seconds, "series": all,
        });
        let text = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
        put(path, &(text + "\n"))?;
    }
    if let Some(folder) = &args.svg {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for series in all.iter().filter(|series| series.points.len() > 1) {
            put(&folder.join(format!("{}.svg", series.name)), &lines::cost(series))?;
            if series.points.iter().any(|point| point.server_bytes > 0.0) {
                let name = format!("{}-memory.svg", series.name);
                put(&folder.join(name), &lines::memory(series))?;
            }
        }
    }
    if let Some(path) = &args.markdown {
        let tables: Vec<String> = all.iter().map(series::table).collect();
        put(path, &tables.join("\n"))?;
    }
    Ok(())
}
