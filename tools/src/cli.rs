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
    /// Measure throughput, message rate and round trip, and compare measurements.
    #[command(after_help = crate::bench::HELP)]
    Bench(crate::bench::BenchArgs),
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
    /// Print what a shell needs to complete these commands.
    #[command(after_help = crate::manual::COMPLETIONS_HELP)]
    Completions(crate::manual::CompletionsArgs),
    /// Write the manual pages.
    #[command(after_help = crate::manual::MAN_HELP)]
    Man(crate::manual::ManArgs),
    /// Show and set what suits the network interfaces of this machine.
    #[command(after_help = crate::profile::HELP)]
    Profile(crate::profile::ProfileArgs),
    /// Watch an engine at work, from the file in which it keeps its figures.
    #[command(after_help = crate::top::HELP)]
    Top(crate::top::TopArgs),
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

const KEYGEN_HELP: &str = "\
Examples:
  trunkline keygen                              the key that send and recv use by default
  trunkline keygen --out server.pem --name media.example.org

The file holds the private key (Ed25519, PKCS #8) and the self-signed certificate, both PEM,
readable by its owner only. An existing file is never replaced.

Exit codes: 0 made, 1 a file is there already or cannot be written, 2 usage";

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
    #[command(flatten)]
    pub stats: crate::engine::StatsFileArg,
    /// What is written for protocol analysers.
    #[command(flatten)]
    pub capture: crate::capture::CaptureArgs,
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

pub fn default_listen(port: u16) -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

/// A fingerprint: 64 hexadecimal digits, colons allowed, `SHA256:` in front allowed.
pub fn fingerprint(text: &str) -> Result<PeerId, String> {
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
        fn check(command: &clap::Command) {
            let own = command.get_subcommands().filter(|sub| sub.get_name() != "help");
            for mut sub in own.cloned().collect::<Vec<_>>() {
                let help = sub.render_long_help().to_string();
                let name = sub.get_name().to_owned();
                // Those that only lead to others need none.
                if !sub.is_subcommand_required_set() {
                    assert!(help.contains("Examples:"), "{name} has no example");
                    assert!(help.contains("Exit codes:"), "{name} does not tell its exit codes");
                }
                for arg in sub.get_arguments() {
                    assert!(arg.get_help().is_some(), "{} of {name} has no help", arg.get_id());
                }
                check(&sub);
            }
        }
        check(&Cli::command());
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
