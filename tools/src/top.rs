//! `trunkline top`: what running engines do, from their stats files (`docs/watching.md`).

mod object;
mod prometheus;
mod rates;
mod screen;
mod table;
mod terminal;

use crate::exit::{Exit, Failure};
use crate::{interrupt, metrics, print};
use clap::{Args, ValueEnum};
use rates::Watched;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use terminal::Wake;
use trunkline::stats::file::{Health, StatsFile};

pub const HELP: &str = "\
Examples:
  trunkline recv --dir inbox --stats-file /run/user/1000/recv.stats      and beside it:
  trunkline top /run/user/1000/recv.stats
  trunkline top 4711                            the engines of a process (Linux)
  trunkline top --once --json recv.stats        one object for programs
  trunkline top --prometheus recv.stats > /var/lib/node_exporter/trunkline.prom

At a terminal the screen is live: q or Ctrl-C ends it.

A process that hangs or has died leaves its last figures: top says so and shows them. Rates are
those since the sample before; of the first sample, the mean since the engine started.

Exit codes: 0 done or interrupted, and every engine works or has ended in good order; 2 usage, or no
such file; 4 at the end an engine did not answer, had failed or had died";

/// What the table of connections is sorted by; the largest comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Bytes a second, both ways.
    #[default]
    Rate,
    /// Bytes so far, both ways.
    Bytes,
    /// Round trip.
    Rtt,
    /// Frames sent again.
    Retransmits,
    /// Packets lost.
    Lost,
    /// Bytes handed over and not acknowledged.
    Unacked,
    /// Channels.
    Channels,
}

/// Options of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Stats file, number of a process that has one, or folder with such files.
    #[arg(value_name = "FILE|PID|DIR")]
    pub what: String,
    /// Take one sample and end.
    #[arg(long, conflicts_with = "count")]
    pub once: bool,
    /// End after so many samples.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Seconds from one sample to the next.
    #[arg(long, short = 'i', value_name = "SECONDS", default_value = "1",
          value_parser = crate::cli::seconds)]
    pub interval: Duration,
    /// What the connections are sorted by.
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    pub sort: Sort,
    /// One JSON object for each sample and engine, a line each (docs/watching.md).
    #[arg(long)]
    pub json: bool,
    /// Print the figures once in Prometheus' text format.
    #[arg(long, conflicts_with_all = ["json", "count"])]
    pub prometheus: bool,
    /// Serve the figures to Prometheus over HTTP (/metrics and /healthz) until interrupted; the file
    /// is read for each request.
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["json", "count", "once", "prometheus"])]
    pub prometheus_listen: Option<SocketAddr>,
}

/// The subcommand.
pub fn run(args: &TopArgs) -> Result<Exit, Failure> {
    let mut watched = find(&args.what)?;
    if args.prometheus {
        watched.iter_mut().try_for_each(Watched::sample)?;
        let page = prometheus::render(&watched);
        io::stdout().write_all(page.as_bytes()).map_err(print::failure)?;
        return Ok(exit(&watched));
    }
    let samples = if args.once { Some(1) } else { args.count };
    let follows = samples.is_none() && !args.json && args.prometheus_listen.is_none();
    let live = follows && io::stdout().is_terminal();
    if live {
        terminal::prepare();
    }
    let (wake, woken) = mpsc::channel();
    let ended = wake.clone();
    let end = move || {
        let _ = ended.send(Wake::End);
    };
    interrupt::watch_both(end, terminal::leave);
    if let Some(addr) = args.prometheus_listen {
        let paths = watched.into_iter().map(|w| w.path).collect();
        let local = metrics::serve(addr, prometheus::Served { paths })
            .map_err(|e| Failure::connection(format!("cannot serve metrics at {addr}: {e}")))?;
        print::result(
            false,
            &serde_json::Value::Null,
            &format!("metrics at http://{local}/metrics"),
        )?;
        let _ = woken.recv();
        return Ok(Exit::Done);
    }
    if live {
        let keys = terminal::watch(wake.clone());
        keys.map_err(|e| Failure::local(format!("keys cannot be read: {e}")))?;
    }
    follow(args, &mut watched, samples, live, &woken)?;
    Ok(exit(&watched))
}

/// Takes and shows samples, so many or until it is told to end.
fn follow(
    args: &TopArgs,
    watched: &mut [Watched],
    samples: Option<u64>,
    live: bool,
    woken: &Receiver<Wake>,
) -> Result<(), Failure> {
    let mut screen = live.then(terminal::Alternate::enter);
    let mut due = Instant::now();
    for taken in 1.. {
        watched.iter_mut().try_for_each(Watched::sample)?;
        show(args, watched, live)?;
        if samples.is_some_and(|n| taken >= n) {
            break;
        }
        // Those that were left out while this process was stopped do not come all at once.
        due = (due + args.interval).max(Instant::now());
        while let Ok(wake) = woken.recv_timeout(due.saturating_duration_since(Instant::now())) {
            match wake {
                Wake::End => return Ok(()),
                Wake::Resized => {}
                Wake::Suspend => {
                    drop(screen.take());
                    terminal::suspend();
                    screen = live.then(terminal::Alternate::enter);
                }
            }
            show(args, watched, live)?;
        }
    }
    Ok(())
}

fn show(args: &TopArgs, watched: &[Watched], live: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let printed = if args.json {
        watched.iter().try_for_each(|w| writeln!(out, "{}", object::of(w, args.sort)))
    } else {
        // What goes into a file has all columns beside each other.
        let width = io::stdout().is_terminal().then(|| terminal::size().1);
        let text: String = watched
            .iter()
            .map(|w| screen::text(w, args.sort, width.unwrap_or(usize::MAX), live))
            .collect();
        if live {
            screen::draw(&mut out, &text, terminal::how_to_end(), terminal::size())
        } else {
            writeln!(out, "{}", text.trim_end())
        }
    };
    printed.and_then(|()| out.flush()).map_err(print::failure)
}

fn exit(watched: &[Watched]) -> Exit {
    let is_well =
        |w: &Watched| matches!(w.health(), Health::Starting | Health::Running | Health::Ended);
    if watched.iter().all(is_well) { Exit::Done } else { Exit::Connection }
}

/// The engines that were asked for: at least one.
fn find(what: &str) -> Result<Vec<Watched>, Failure> {
    let path = Path::new(what);
    let paths = if path.is_dir() {
        stats_files(path)?
    } else if path.exists() || what.parse::<u32>().is_err() {
        let file = StatsFile::open(path).map_err(|e| Failure::usage(format!("{what}: {e}")))?;
        return Ok(vec![Watched::new(path.to_owned(), file)]);
    } else {
        of_process(what)?
    };
    let open = |path: PathBuf| StatsFile::open(&path).ok().map(|file| Watched::new(path, file));
    let found: Vec<Watched> = paths.into_iter().filter_map(open).collect();
    if found.is_empty() {
        return Err(Failure::usage(format!("{what}: there is no stats file")));
    }
    Ok(found)
}

/// What a folder holds, in the order of the names.
fn stats_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |e: io::Error| Failure::usage(format!("{}: {e}", folder.display()));
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    Ok(paths)
}

/// The files that a process has mapped, each once.
fn of_process(pid: &str) -> Result<Vec<PathBuf>, Failure> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
        .map_err(|e| Failure::usage(format!("process {pid}: {e}")))?;
    let shared = |line: &&str| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw-s"));
    let path = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
    let mut paths: Vec<PathBuf> = maps.lines().filter(shared).filter_map(path).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}
