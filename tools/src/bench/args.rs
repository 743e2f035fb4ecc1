//! The options of `bench`.

use super::flows::{Direction, PACKETS, TICKS};
use crate::cli::{Driver, LinkChoice, byte_count, default_listen, fingerprint, seconds};
use clap::{Args, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use trunkline::PeerId;

/// Port of a bench server.
pub const BENCH_PORT: u16 = 7471;

/// What `trunkline bench --help` ends with.
pub const HELP: &str = "\
Examples:
  trunkline bench                               both ends here, all scenarios, one table
  trunkline bench --floor                       beside what plain UDP does on this machine
  trunkline bench --scenario latency -t 10 --busy-poll --hgrm rtt.hgrm
  trunkline bench -s --listen 0.0.0.0:7471      on one machine, and on the other:
  trunkline bench -c 192.0.2.7:7471 --json
  trunkline bench --scenario small -b 100k      open loop: at this rate, whatever comes back
  trunkline bench --scenario datagrams --find-max --max-loss 0.1 --max-p99 2000 -t 1
  trunkline bench -c 192.0.2.7 --scenario bulk --bidir
  trunkline bench --scenario tick --scenario mixed --scenario media -t 10
  trunkline bench --confidence 2 --html bench.html
  trunkline bench compare before.json after.json

Received payload is read and checked; figures count what was delivered, after a warm-up.
The JSON object is described in docs/bench-json.md.

Exit codes: 0 measured, 1 a message was corrupt or a file could not be written, 2 usage,
3 the server is not trusted, 4 no connection or connection lost, 130 interrupted";

/// What `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 64 KiB reliable messages, one channel.
    Bulk,
    /// 64-byte reliable messages, one channel.
    Small,
    /// 64-byte unreliable messages.
    Datagrams,
    /// One 64-byte message to and fro at a time.
    Latency,
    /// Round trips of 64-byte messages of priority 0, sent at a fixed rate whether or not answers
    /// come, beside half of the goodput that bulk has here.
    Loaded,
    /// Connections made, each with a full handshake, and closed; -P of them under way at once.
    Handshakes,
    /// The same with sessions that are resumed.
    Resumptions,
    /// A game server's ticks: 100 unreliable bytes to and fro, 30 times a second on each of 1000
    /// connections.
    Tick,
    /// What players of a fast game send and get, on each of 100 connections: input, state, events,
    /// voice and assets.
    Mixed,
    /// Streams of 2.4 Mb/s that the server forwards: every subscriber gets all publishers'.
    Media,
}

impl Scenario {
    /// Those that are run unless others are asked for, in this order.
    pub const USUAL: [Self; 5] =
        [Self::Bulk, Self::Small, Self::Datagrams, Self::Latency, Self::Loaded];

    /// The name on the command line and in the JSON object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Small => "small",
            Self::Datagrams => "datagrams",
            Self::Latency => "latency",
            Self::Loaded => "loaded",
            Self::Handshakes => "handshakes",
            Self::Resumptions => "resumptions",
            Self::Tick => "tick",
            Self::Mixed => "mixed",
            Self::Media => "media",
        }
    }

    /// Whether it makes connections instead of sending messages.
    pub const fn connects(self) -> bool {
        matches!(self, Self::Handshakes | Self::Resumptions)
    }

    /// Whether its rate is a setting (`-b`, `--find-max`).
    pub const fn has_rate(self) -> bool {
        !matches!(self, Self::Loaded | Self::Mixed) && !self.connects()
    }

    /// Whether it can go the other way (`--reverse`, `--bidir`).
    pub const fn has_direction(self) -> bool {
        matches!(self, Self::Bulk | Self::Small | Self::Datagrams)
    }

    /// Whether its messages are reliable.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Datagrams | Self::Tick | Self::Media)
    }

    /// Whether plain UDP does the same. `loaded` stands beside itself.
    pub const fn has_floor(self) -> bool {
        !matches!(self, Self::Loaded | Self::Mixed | Self::Media) && !self.connects()
    }

    /// Whether its load can be spread over channels.
    pub const fn has_channels(self) -> bool {
        self.has_direction() || matches!(self, Self::Loaded)
    }

    /// Messages a second on each connection from which the highest rate is searched.
    pub const fn search_from(self) -> f64 {
        match self {
            Self::Tick => TICKS,
            Self::Media => PACKETS,
            _ => 1000.0,
        }
    }

    /// Connections when `-P` is not given.
    pub const fn default_connections(self) -> u32 {
        match self {
            Self::Tick => 1000,
            Self::Mixed => 100,
            _ => 1,
        }
    }

    /// Bytes of a message when `-l` is not given.
    pub const fn default_length(self) -> usize {
        match self {
            Self::Bulk | Self::Loaded => 64 * 1024,
            Self::Tick => 100,
            Self::Media => 1200,
            // Each flow has its own.
            Self::Mixed => 0,
            _ => 64,
        }
    }
}

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// Instead of measuring.
    #[command(subcommand)]
    pub instead: Option<Instead>,
    /// Be the server of a two-process measurement.
    #[arg(short = 's', long, conflicts_with = "client")]
    pub server: bool,
    /// Be the client: measure against the server at this address.
    #[arg(short = 'c', long, value_name = "ADDRESS")]
    pub client: Option<String>,
    /// Server: address and port (UDP and TCP) to listen on.
    #[arg(long, value_name = "ADDR:PORT", requires = "server",
          default_value_t = default_listen(BENCH_PORT))]
    pub listen: SocketAddr,
    /// Port: with -s the one to listen on, in place of that of --listen; with -c that of the server.
    #[arg(short = 'p', long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Server: end when one client has been served and gone for two seconds.
    #[arg(short = '1', long, requires = "server")]
    pub one_off: bool,
    /// Run only this scenario (may be repeated) [default: bulk, small, datagrams, latency, loaded].
    #[arg(long, value_enum)]
    pub scenario: Vec<Scenario>,
    /// Seconds measured for each scenario, after a warm-up.
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub time: Duration,
    /// Between two lines of what is going on.
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds,
          conflicts_with = "server")]
    pub interval: Duration,
    /// Open loop: send at this rate on each connection, whatever comes back; bits of payload a
    /// second (500M, 2G) or messages a second (100k/s). Round trips count from the moment at which a
    /// message was meant to be sent, so that a stall shows in all that it delays. For bulk, small,
    /// datagrams, latency, tick and media.
    #[arg(short = 'b', long, value_name = "RATE", value_parser = rate, conflicts_with = "server")]
    pub rate: Option<OfferedRate>,
    /// Search the highest rate of the open loop that is kept up within --max-loss and --max-p99, from
    /// that of -b on [default: 1000/s, tick 30/s, media 250/s]; -t for each rate that is tried.
    #[arg(long, conflicts_with_all = ["server", "floor"])]
    pub find_max: bool,
    /// With --find-max: messages that may be missing or late.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent,
          requires = "find_max")]
    pub max_loss: f64,
    /// With --find-max: the longest p99 of round trips [default: any].
    #[arg(long, value_name = "MICROSECONDS", requires = "find_max",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_p99: Option<u32>,
    /// Reverse: the load goes from server to client. For bulk, small and datagrams.
    #[arg(short = 'R', long, conflicts_with = "server")]
    pub reverse: bool,
    /// Loads in both directions at once. For bulk, small and datagrams.
    #[arg(long, conflicts_with_all = ["server", "reverse"])]
    pub bidir: bool,
    /// Bytes of a message, except in mixed [default: bulk and loaded 65536, media 1200, tick 100,
    /// others 64].
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = message_length)]
    pub length: Option<usize>,
    /// Connections at once; in handshakes and resumptions: being made. Not for media [default: tick
    /// 1000, mixed 100, others 1].
    #[arg(short = 'P', long, value_name = "COUNT", conflicts_with = "server",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Option<u32>,
    /// media: connections that publish a stream each [default: 4].
    #[arg(long, value_name = "COUNT", conflicts_with = "server",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub publishers: Option<u32>,
    /// media: connections that get all streams [default: 50].
    #[arg(long, value_name = "COUNT", conflicts_with = "server",
          value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub subscribers: Option<u32>,
    /// Channels of each connection that carry the load, one message on each in turn. For bulk, small,
    /// datagrams and loaded.
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub channels: u32,
    /// Which driver carries the packets.
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    /// What carries the connections [default: udp; a server takes both].
    #[arg(long, value_enum)]
    pub link: Option<LinkChoice>,
    /// Hold the packet size: bytes of UDP payload, 1200 to 65507 [default: search up to 1452].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1200..=65507))]
    pub mtu: Option<u16>,
    /// Let the search for the packet size go up to this: what a path with larger frames carries,
    /// loopback included [default: 1452].
    #[arg(long, value_name = "BYTES", conflicts_with = "mtu",
          value_parser = clap::value_parser!(u16).range(1200..=65507))]
    pub max_mtu: Option<u16>,
    /// Client: accept only a server with this fingerprint.
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint, requires = "client")]
    pub pin: Vec<PeerId>,
    /// Client: accept any server. This is what happens without --pin; giving it silences the note.
    #[arg(long, conflicts_with = "pin", requires = "client")]
    pub trust_any: bool,
    /// Spin this long after the last packet before a thread sleeps, on this side; with
    /// --busy-poll alone 1000.
    #[arg(long, value_name = "MICROSECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub busy_poll: Option<u32>,
    /// Copy all messages into the engine. Without it those of 4096 bytes and more are lent: sent
    /// from our own memory, which is written again when they are acknowledged.
    #[arg(long, conflicts_with = "server")]
    pub copy: bool,
    /// Also measure what plain UDP does here, on the same processors, in turn with each scenario
    /// (Linux; both ends here).
    #[arg(long, conflicts_with_all = ["server", "client"])]
    pub floor: bool,
    /// Run everything this often, in turn, and show medians [default: 1, with --floor 5].
    #[arg(long, value_name = "COUNT", conflicts_with = "server",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Run rounds until the main figure of each scenario is known within this many percent, with
    /// 95 % confidence; at least 3, at most --rounds [default then: 30]. Says where it was not enough.
    #[arg(long, value_name = "PERCENT", conflicts_with = "server", value_parser = percent)]
    pub confidence: Option<f64>,
    /// Settings for the network interface: auto, the name of a profile, or a file.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// A title for the results.
    #[arg(short = 'T', long, value_name = "TEXT", conflicts_with = "server")]
    pub title: Option<String>,
    /// Write the results to this file as comma-separated values, a line for each scenario.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub csv: Option<PathBuf>,
    /// Write the results to this file as one page with charts, which needs nothing else.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub html: Option<PathBuf>,
    /// Write the round trips to this file in HdrHistogram's percentile format, in microseconds;
    /// with several scenarios one file each, FILE-SCENARIO.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub hgrm: Option<PathBuf>,
    /// What the engine writes beside: of the server with -s, else of the client.
    #[command(flatten)]
    pub stats: crate::engine::StatsFileArg,
    /// As above.
    #[command(flatten)]
    pub capture: crate::capture::CaptureArgs,
    /// One JSON object on standard output (docs/bench-json.md), everything else on standard error.
    #[arg(short = 'J', long)]
    pub json: bool,
}

/// Bytes of a bench message: it must hold its own header and fit the largest message.
fn message_length(text: &str) -> Result<usize, String> {
    let max = crate::bench::MAX_LENGTH as u64;
    let min = crate::bench::MIN_LENGTH as u64;
    let value = byte_count(text)?;
    if (min..=max).contains(&value) {
        Ok(value as usize)
    } else {
        Err(format!("must lie between {min} and {max} bytes"))
    }
}

/// What an open loop sends on each connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OfferedRate {
    /// Bits of payload a second.
    Bits(f64),
    /// Messages a second.
    Messages(f64),
}

impl BenchArgs {
    /// Which way the load goes.
    pub const fn direction(&self) -> Direction {
        match (self.reverse, self.bidir) {
            (true, _) => Direction::Down,
            (_, true) => Direction::Both,
            _ => Direction::Up,
        }
    }

    /// Connections of `media` that publish.
    pub fn publishers(&self) -> u32 {
        self.publishers.unwrap_or(4)
    }

    /// Connections of a scenario.
    pub fn connections(&self, scenario: Scenario) -> u32 {
        match scenario {
            Scenario::Media => self.publishers() + self.subscribers.unwrap_or(50),
            _ => self.connections.unwrap_or(scenario.default_connections()),
        }
    }
}

impl OfferedRate {
    /// Messages of `length` bytes a second.
    pub fn messages(self, length: usize) -> f64 {
        match self {
            Self::Bits(bits) => bits / 8.0 / length.max(1) as f64,
            Self::Messages(messages) => messages,
        }
    }
}

/// A number with an optional K, M or G (powers of 1000) and `/s` for messages.
fn rate(text: &str) -> Result<OfferedRate, String> {
    let (number, messages) = match text.strip_suffix("/s") {
        Some(number) => (number, true),
        None => (text, false),
    };
    let split = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (digits, unit) = number.split_at(split);
    let scale = match unit.to_ascii_uppercase().as_str() {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return Err(format!("unknown unit `{unit}`; use K, M or G, and /s for messages")),
    };
    let value =
        digits.parse::<f64>().map_err(|_| "expected a rate such as 500M or 100k/s")? * scale;
    if !(1.0..=1e13).contains(&value) {
        return Err("must lie between 1 and 10000G".to_owned());
    }
    Ok(if messages { OfferedRate::Messages(value) } else { OfferedRate::Bits(value) })
}

/// Percent of a figure, from a tenth to 50.
fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.trim_end_matches('%').parse().map_err(|_| "expected percent")?;
    if (0.1..=50.0).contains(&value) {
        Ok(value)
    } else {
        Err("must lie between 0.1 and 50 percent".to_owned())
    }
}

/// What `bench` does instead of measuring.
#[derive(Debug, Subcommand)]
pub enum Instead {
    /// Compare measurements: which differences are more than chance.
    #[command(after_help = super::compare::HELP)]
    Compare(CompareArgs),
}

/// Options of `bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Results of `bench --json`. The others are compared with the first.
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A difference counts when chance makes one as large in fewer cases than this.
    #[arg(long, value_name = "PROBABILITY", default_value = "0.05", value_parser = probability)]
    pub alpha: f64,
    /// One JSON object on standard output.
    #[arg(short = 'J', long)]
    pub json: bool,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0001..=0.5).contains(&value) => Ok(value),
        _ => Err("must lie between 0.0001 and 0.5".to_owned()),
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the expected values are exact")]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate("500M"), Ok(OfferedRate::Bits(5e8)));
        assert_eq!(rate("2.5g"), Ok(OfferedRate::Bits(2.5e9)));
        assert_eq!(rate("100k/s"), Ok(OfferedRate::Messages(1e5)));
        assert_eq!(rate("30/s"), Ok(OfferedRate::Messages(30.0)));
        assert_eq!(OfferedRate::Bits(8000.0).messages(100), 10.0);
        assert_eq!(OfferedRate::Messages(30.0).messages(100), 30.0);
        for bad in ["", "0", "x", "5T", "5 M", "1..2", "20000G", "/s", "inf", "nan"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentages_and_probabilities() {
        assert_eq!((percent("2"), percent("0.5%")), (Ok(2.0), Ok(0.5)));
        assert_eq!(probability("0.01"), Ok(0.01));
        for bad in ["0", "51", "x", "NaN"] {
            assert!(percent(bad).is_err() && probability(bad).is_err(), "{bad}");
        }
    }
}
