//! The command line: every option with its help. What the commands do is in their own files.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use trunkline::{ConnectLink, Links, PeerId};

/// Port that `recv` listens on and `send` tries when none is given.
pub const DEFAULT_PORT: u16 = 7470;
/// Port of an event source.
pub const EVENT_SOURCE_PORT: u16 = 7472;
/// Port of a bench server.
pub const BENCH_PORT: u16 = 7471;

const EXIT_CODES: &str = "\
Exit codes:
  0    everything asked for was done
  1    some files were not transferred, or a local file could not be used
  2    the command line is wrong
  3    the peer is not trusted, or does not trust us
  4    no connection, or the connection was lost
  130  interrupted";

/// Encrypted, multiplexed connections over UDP or TLS: move files, measure the machine, make keys,
/// bring clients together.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What the log on standard error shows: error, warn, info, debug, trace, or a filter such as
    /// trunkline=debug.
    /// [default: $TRUNKLINE_LOG, else warn]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send files to a receiver.
    #[command(after_help = SEND_HELP)]
    Send(SendArgs),
    /// Receive files into a folder.
    #[command(after_help = RECV_HELP)]
    Recv(RecvArgs),
    /// Measure throughput, message rate and round trip.
    #[command(after_help = BENCH_HELP)]
    Bench(BenchArgs),
    /// Make a key and a self-signed certificate.
    #[command(after_help = KEYGEN_HELP)]
    Keygen(KeygenArgs),
    /// Find devices of the local network that announce themselves.
    #[command(after_help = crate::discover::HELP)]
    Discover(crate::discover::DiscoverArgs),
    /// Talk with one other person, who has the same code.
    #[command(after_help = crate::chat::HELP)]
    Chat(crate::chat::ChatArgs),
    /// Run an event source: the server over which clients find each other and pair.
    #[command(after_help = crate::event_source::HELP)]
    EventSource(crate::event_source::EventSourceArgs),
    /// Mint and inspect the access tokens of an event source, and make its keys.
    #[command(after_help = crate::token::HELP)]
    Token(crate::token::TokenArgs),
}

const SEND_HELP: &str = "\
Examples:
  trunkline send 127.0.0.1:7470 report.pdf photo.jpg
  trunkline send media.example.org movie.mkv --pin 3f0c…91
  trunkline send discover:study notes.txt       to a receiver that announces itself by that name

The receiver prints its fingerprint when it starts. Without --pin the sender asks once whether it
is the right one, remembers the answer in the known-peers file, and refuses another one later.

Exit codes: 0 all files stored and checked, 1 some were not, 2 usage, 3 not trusted,
4 no connection or connection lost, 130 interrupted";

const RECV_HELP: &str = "\
Examples:
  trunkline recv --dir inbox
  trunkline recv --dir inbox --listen '[::]:7470' --allow 3f0c…91 --max-bytes 20G
  trunkline recv --dir inbox --listen 0.0.0.0:7470 --announce=study

Serves one sender after another until interrupted. Files never replace others and never leave the
folder; a file has its final name only when it is whole and its SHA-256 agrees.

Exit codes: 0 interrupted while idle (or --once done) with every file stored, 1 some were not
stored, 2 usage, 4 cannot listen or a sender was lost in the middle of a file (see --keep),
130 interrupted in the middle of a file";

const BENCH_HELP: &str = "\
Examples:
  trunkline bench                               both ends here, all scenarios, one table
  trunkline bench --floor                       beside what plain UDP does on this machine
  trunkline bench --scenario latency -t 10 --busy-poll --hgrm rtt.hgrm
  trunkline bench -s --listen 0.0.0.0:7471      on one machine, and on the other:
  trunkline bench -c 192.0.2.7:7471 --json

Received payload is read and checked; figures count what was delivered, after a warm-up.
The JSON object is described in docs/bench-json.md.";

const KEYGEN_HELP: &str = "\
Examples:
  trunkline keygen                              the key that send and recv use by default
  trunkline keygen --out server.pem --name media.example.org

The file holds the private key (Ed25519, PKCS #8) and the self-signed certificate, both PEM,
readable by its owner only. An existing file is never replaced.";

/// Which driver carries the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// The fastest that works here.
    #[default]
    Auto,
    /// io_uring (Linux 6.6 or newer); an error where it is not available.
    Uring,
    /// mio: recvmsg and sendmsg, everywhere.
    Mio,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkChoice {
    /// Both at once: the first that proves the other side is kept. A listener takes both.
    #[default]
    Auto,
    /// Packets in UDP datagrams.
    Udp,
    /// TLS over TCP, for networks that let no UDP through.
    Tls,
}

impl LinkChoice {
    /// The word of options, files and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Udp => "udp",
            Self::Tls => "tls",
        }
    }

    /// What it is, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Auto => "UDP and TLS",
            Self::Udp => "UDP",
            Self::Tls => "TLS",
        }
    }

    /// What a listener takes connections over.
    pub const fn links(self) -> Links {
        match self {
            Self::Auto => Links::BOTH,
            Self::Udp => Links::DATAGRAM,
            Self::Tls => Links::STREAM,
        }
    }

    /// What a client connects over.
    pub const fn connect(self) -> ConnectLink {
        match self {
            Self::Auto => ConnectLink::Auto,
            Self::Udp => ConnectLink::Datagram,
            Self::Tls => ConnectLink::Stream,
        }
    }
}

/// Options of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// Receiver: HOST, HOST:PORT, [IPV6]:PORT, or discover:NAME for one of the local network that
    /// announces itself. All addresses of a name are tried at once.
    #[arg(value_name = "ADDRESS")]
    pub to: String,
    /// Files to send; each arrives under its own name.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Accept only a receiver with this fingerprint (may be repeated).
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    pub pin: Vec<PeerId>,
    /// Accept any receiver, without asking or remembering: anybody in between can read along.
    #[arg(long, conflicts_with = "pin")]
    pub trust_any: bool,
    #[command(flatten)]
    pub common: TransferArgs,
}

/// Options of `recv`.
#[derive(Debug, Args)]
pub struct RecvArgs {
    /// Folder for the files; made if it is not there.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Address and port (UDP and TCP) to listen on. The default takes senders of this machine only.
    #[arg(long, value_name = "ADDR:PORT", default_value_t = default_listen(DEFAULT_PORT))]
    pub listen: SocketAddr,
    /// Take files only from a sender with this fingerprint (may be repeated).
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    pub allow: Vec<PeerId>,
    /// Most bytes to take in all, such as 500M or 20G (powers of 1024).
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub max_bytes: Option<u64>,
    /// Store a file whose name is taken as `name (1).ext` instead of refusing it.
    #[arg(long)]
    pub rename: bool,
    /// End when the first sender that offered a file has gone.
    #[arg(long, conflicts_with = "keep")]
    pub once: bool,
    /// Carry on when a sender was lost in the middle of a file.
    #[arg(long)]
    pub keep: bool,
    /// Have every file on the disk, not only handed to the system, before it counts as stored.
    #[arg(long)]
    pub sync: bool,
    #[command(flatten)]
    pub announce: crate::announce::AnnounceArgs,
    #[command(flatten)]
    pub common: TransferArgs,
}

/// Options that `send` and `recv` share.
#[derive(Debug, Args)]
pub struct TransferArgs {
    /// Our key and certificate (PEM, as keygen writes it) [default: identity.pem in
    /// $TRUNKLINE_HOME or ~/.config/trunkline, made on first use]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Which driver carries the packets.
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    /// What carries the connection.
    #[arg(long, value_enum, default_value_t = LinkChoice::Auto)]
    pub link: LinkChoice,
    /// Seconds without any packet after which the other side counts as lost.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// One JSON object a line on standard output (docs/file-transfer.md).
    #[arg(long)]
    pub json: bool,
    /// What is written for protocol analysers.
    #[command(flatten)]
    pub capture: crate::capture::CaptureArgs,
}

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
}

impl Scenario {
    /// All of them, in the order in which they are run.
    pub const ALL: [Self; 5] =
        [Self::Bulk, Self::Small, Self::Datagrams, Self::Latency, Self::Loaded];

    /// The name on the command line and in the JSON object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Small => "small",
            Self::Datagrams => "datagrams",
            Self::Latency => "latency",
            Self::Loaded => "loaded",
        }
    }

    /// Bytes of a message when `-l` is not given.
    pub const fn default_length(self) -> usize {
        match self {
            Self::Bulk | Self::Loaded => 64 * 1024,
            Self::Small | Self::Datagrams | Self::Latency => 64,
        }
    }
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
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
    /// Run only this scenario (may be repeated) [default: all].
    #[arg(long, value_enum)]
    pub scenario: Vec<Scenario>,
    /// Seconds measured for each scenario, after a warm-up.
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub time: Duration,
    /// Bytes of a message [default: bulk and loaded 65536, others 64].
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = message_length)]
    pub length: Option<usize>,
    /// Connections at once.
    #[arg(short = 'P', long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Channels of each connection that carry the load, one message on each in turn.
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
    /// Write the round trips to this file in HdrHistogram's percentile format, in microseconds;
    /// with several scenarios one file each, FILE-SCENARIO.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub hgrm: Option<PathBuf>,
    /// One JSON object on standard output (docs/bench-json.md), everything else on standard error.
    #[arg(long)]
    pub json: bool,
}

/// Options of `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// File to write [default: identity.pem in $TRUNKLINE_HOME or ~/.config/trunkline].
    #[arg(long, short = 'o', value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also write the certificate alone, which is public, to this file.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Host name or address to put into the certificate (may be repeated).
    #[arg(long, value_name = "HOST", default_value = "trunkline")]
    pub name: Vec<String>,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

fn default_listen(port: u16) -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

/// A fingerprint: 64 hexadecimal digits, colons allowed, `SHA256:` in front allowed.
fn fingerprint(text: &str) -> Result<PeerId, String> {
    let digits = text.strip_prefix("SHA256:").or_else(|| text.strip_prefix("sha256:"));
    digits.unwrap_or(text).parse().map_err(|e| format!("{e}"))
}

/// A number of bytes with an optional K, M, G or T (powers of 1024).
pub fn byte_count(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| "expected a number such as 500M".to_owned())?;
    let unit = unit.to_ascii_uppercase();
    let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("unknown unit `{unit}`; use K, M, G or T")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// Seconds, fractions allowed, from a tenth of a second to a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.trim_end_matches('s').parse().map_err(|_| "expected seconds")?;
    if (0.1..=86_400.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err("must lie between 0.1 and 86400 seconds".to_owned())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_help_with_an_example() {
        for mut sub in Cli::command().get_subcommands().cloned().collect::<Vec<_>>() {
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{} has no example", sub.get_name());
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
            }
        }
    }

    #[test]
    fn byte_counts() {
        assert_eq!(byte_count("0"), Ok(0));
        assert_eq!(byte_count("500M"), Ok(500 << 20));
        assert_eq!(byte_count("3GiB"), Ok(3 << 30));
        assert_eq!(byte_count("2kb"), Ok(2048));
        assert!(byte_count("2x").unwrap_err().contains("unknown unit"));
        assert!(byte_count("").is_err());
        assert!(byte_count("M").is_err());
        assert!(byte_count("18446744073709551615K").is_err());
    }

    #[test]
    fn fingerprints() {
        let hex = "ab".repeat(32);
        let plain = fingerprint(&hex).unwrap();
        assert_eq!(fingerprint(&format!("SHA256:{hex}")).unwrap(), plain);
        assert_eq!(fingerprint(&["ab"; 32].join(":")).unwrap(), plain);
        assert!(fingerprint(&hex[1..]).is_err());
        assert!(fingerprint("zz").is_err());
    }

    #[test]
    fn defaults_listen_on_this_machine_only() {
        let cli = Cli::try_parse_from(["trunkline", "recv", "--dir", "inbox"]).unwrap();
        let Command::Recv(args) = cli.command else { panic!() };
        assert_eq!(args.listen.to_string(), "127.0.0.1:7470");
        assert!(args.listen.ip().is_loopback());
    }

    #[test]
    fn contradictions_are_refused() {
        for bad in [
            vec!["send", "host"],
            vec!["send", "host", "file", "--pin", "00", "--trust-any"],
            vec!["bench", "-s", "-c", "host"],
            vec!["bench", "--listen", "127.0.0.1:1"],
            vec!["bench", "-l", "4"],
            vec!["bench", "--mtu", "1199"],
            vec!["bench", "--max-mtu", "65508"],
            vec!["bench", "--mtu", "1200", "--max-mtu", "1400"],
            vec!["bench", "-t", "0"],
            vec!["bench", "--floor", "-s"],
            vec!["bench", "--floor", "-c", "host"],
            vec!["bench", "--rounds", "0"],
            vec!["bench", "--busy-poll=0"],
            vec!["recv", "--once", "--keep"],
            vec!["recv", "--announce-id", "x"],
            vec!["recv", "--announce", "--announce-hidden"],
            vec!["recv", "--announce", "--announce-type", "toaster"],
            vec!["discover", "--watch", "--timeout", "3"],
            vec!["discover", "-4", "-6"],
        ] {
            let args = [&["trunkline"], bad.as_slice()].concat();
            assert!(Cli::try_parse_from(&args).is_err(), "{args:?} was taken");
        }
    }
}
