//! The configuration file and the options of an event source, put together.

use super::{EventSourceArgs, LogFormat};
use crate::cli::{EVENT_SOURCE_PORT, LinkChoice};
use crate::exit::Failure;
use crate::token::{KeyFile, add_key};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trunkline::StunConfig;
use trunkline::rendezvous::{AppId, KeyRing, SourceConfig};

/// Longest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// What clients connect over.
    #[serde(default)]
    pub link: LinkChoice,
    /// Address and port.
    pub address: SocketAddr,
    /// Whether STUN requests are answered there; absent: where there is a UDP port.
    stun: Option<bool>,
}

impl Listen {
    /// Over both links.
    const fn at(address: SocketAddr) -> Self {
        Self { link: LinkChoice::Auto, address, stun: None }
    }

    /// Whether STUN requests are answered there.
    pub fn answers_stun(&self) -> bool {
        self.stun.unwrap_or(self.link.links().datagram)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    id: String,
    file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    address: SocketAddr,
}

/// `[limits]`; what is absent has its default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    clients: Option<usize>,
    events_per_s: Option<u32>,
    events_burst: Option<u32>,
    bytes_per_s: Option<u64>,
    bytes_burst: Option<u64>,
    faults_per_s: Option<u32>,
    faults_burst: Option<u32>,
    queue_events: Option<usize>,
    queue_bytes: Option<usize>,
    relay_packets_per_s: Option<u32>,
    relay_packets_burst: Option<u32>,
    relay_bytes_per_s: Option<u64>,
    relay_bytes_burst: Option<u64>,
    stun_per_s: Option<u32>,
    stun_per_source_per_s: Option<u32>,
    stall_s: Option<u64>,
    open_s: Option<u64>,
    end_expired: Option<bool>,
    handshakes_per_source_per_s: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    identity: Option<PathBuf>,
    apps: Option<Vec<String>>,
    shards: Option<u16>,
    linger_s: Option<u64>,
    log: Option<LogFormat>,
    stats_file: Option<PathBuf>,
    relay: Option<bool>,
    #[serde(default)]
    listen: Vec<Listen>,
    #[serde(default)]
    key: Vec<Key>,
    metrics: Option<Metrics>,
    #[serde(default)]
    limits: Limits,
}

/// Everything that the server needs to know.
#[derive(Debug)]
pub struct Settings {
    pub identity: Option<PathBuf>,
    pub shards: usize,
    pub linger: Duration,
    pub log: LogFormat,
    pub stats_file: Option<PathBuf>,
    pub listen: Vec<Listen>,
    pub keys: KeyRing,
    pub metrics: Option<SocketAddr>,
    pub source: SourceConfig,
    pub handshakes_per_source_per_s: u32,
    pub stun: StunConfig,
}

impl Settings {
    /// The file, if there is one, with what the options say instead.
    pub fn load(args: &EventSourceArgs) -> Result<Self, Failure> {
        let (file, folder) = match &args.config {
            Some(path) => (read(path)?, path.parent().unwrap_or(Path::new(""))),
            None => (Document::default(), Path::new("")),
        };
        Self::combine(args, file, folder)
    }

    /// Paths of the file are relative to its `folder`.
    fn combine(args: &EventSourceArgs, file: Document, folder: &Path) -> Result<Self, Failure> {
        let mut listen = file.listen;
        if !args.listen.is_empty() {
            listen = args.listen.iter().copied().map(Listen::at).collect();
        }
        if listen.is_empty() {
            listen.push(Listen::at((Ipv4Addr::LOCALHOST, EVENT_SOURCE_PORT).into()));
        }
        let mut key_files = args.key.clone();
        if key_files.is_empty() {
            let key = |key: Key| KeyFile { id: key.id, path: folder.join(key.file) };
            key_files = file.key.into_iter().map(key).collect();
        }
        if key_files.is_empty() {
            let text = "no key: nobody could connect (--key NAME=FILE, or [[key]] in the file)";
            return Err(Failure::usage(text));
        }
        let mut keys = KeyRing::new();
        for key in &key_files {
            add_key(&mut keys, key)?;
        }
        let mut apps = file.apps.map(|apps| parse_apps(&apps)).transpose()?;
        if !args.app.is_empty() {
            apps = Some(args.app.clone());
        }
        let source = source_config(&file.limits, apps, file.relay.unwrap_or(true))?;
        let shards = args.shards.or(file.shards).unwrap_or(1);
        if !(1..=256).contains(&shards) {
            return Err(Failure::usage("shards must lie in 1..=256"));
        }
        Ok(Self {
            identity: args.identity.clone().or_else(|| file.identity.map(|path| folder.join(path))),
            shards: shards.into(),
            linger: Duration::from_secs(file.linger_s.unwrap_or(5).min(60)),
            log: args.log_format.or(file.log).unwrap_or_default(),
            stats_file: args.stats.path().or_else(|| file.stats_file.map(|path| folder.join(path))),
            listen,
            keys,
            metrics: args.metrics.or(file.metrics.map(|m| m.address)),
            source,
            stun: stun_config(&file.limits),
            handshakes_per_source_per_s: file.limits.handshakes_per_source_per_s.unwrap_or(200),
        })
    }
}

fn read(path: &Path) -> Result<Document, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|e| Failure::local(format!("cannot read {}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

fn parse_apps(apps: &[String]) -> Result<Vec<AppId>, Failure> {
    let parse = |app: &String| {
        AppId::new(app).map_err(|e| Failure::usage(format!("application `{app}` {e}")))
    };
    apps.iter().map(parse).collect()
}

fn stun_config(limits: &Limits) -> StunConfig {
    let defaults = StunConfig::default();
    StunConfig {
        per_s: limits.stun_per_s.unwrap_or(defaults.per_s),
        per_source_per_s: limits.stun_per_source_per_s.unwrap_or(defaults.per_source_per_s),
    }
}

fn source_config(
    limits: &Limits,
    apps: Option<Vec<AppId>>,
    relay: bool,
) -> Result<SourceConfig, Failure> {
    let seconds = trunkline::Duration::from_secs;
    let defaults = SourceConfig::default();
    let config = SourceConfig {
        apps,
        max_clients: limits.clients.unwrap_or(defaults.max_clients),
        events_per_s: limits.events_per_s.unwrap_or(defaults.events_per_s),
        events_burst: limits.events_burst.unwrap_or(defaults.events_burst),
        bytes_per_s: limits.bytes_per_s.unwrap_or(defaults.bytes_per_s),
        bytes_burst: limits.bytes_burst.unwrap_or(defaults.bytes_burst),
        faults_per_s: limits.faults_per_s.unwrap_or(defaults.faults_per_s),
        faults_burst: limits.faults_burst.unwrap_or(defaults.faults_burst),
        queue_events: limits.queue_events.unwrap_or(defaults.queue_events),
        queue_bytes: limits.queue_bytes.unwrap_or(defaults.queue_bytes),
        relay,
        relay_packets_per_s: limits.relay_packets_per_s.unwrap_or(defaults.relay_packets_per_s),
        relay_packets_burst: limits.relay_packets_burst.unwrap_or(defaults.relay_packets_burst),
        relay_bytes_per_s: limits.relay_bytes_per_s.unwrap_or(defaults.relay_bytes_per_s),
        relay_bytes_burst: limits.relay_bytes_burst.unwrap_or(defaults.relay_bytes_burst),
        stall_limit: limits.stall_s.map_or(defaults.stall_limit, seconds),
        open_limit: limits.open_s.map_or(defaults.open_limit, seconds),
        end_expired: limits.end_expired.unwrap_or(defaults.end_expired),
    };
    config.validate().map_err(|e| Failure::usage(format!("limits: {e}")))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use clap::Parser as _;

    fn args(more: &[&str]) -> EventSourceArgs {
        let all = [&["trunkline", "event-source"], more].concat();
        match crate::cli::Cli::try_parse_from(all).unwrap().command {
            crate::cli::Command::EventSource(args) => args,
            _ => panic!(),
        }
    }

    fn scratch() -> Scratch {
        let dir = Scratch::new();
        std::fs::write(dir.path().join("k1.key"), format!("{}\n", "ab".repeat(32))).unwrap();
        dir
    }

    fn load(dir: &Scratch, file: &str, more: &[&str]) -> Result<Settings, Failure> {
        let path = dir.path().join("event-source.toml");
        std::fs::write(&path, file).unwrap();
        Settings::load(&args(&[&["--config", path.to_str().unwrap()], more].concat()))
    }

    const KEY: &str = "[[key]]\nid = \"k1\"\nfile = \"k1.key\"\n";

    /// The example of the document is understood, and shows every setting.
    #[test]
    fn the_example_of_the_document() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let document = std::fs::read_to_string(root.join("docs/event-source.md")).unwrap();
        let example = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let dir = scratch();
        let settings = load(&dir, example, &[]).unwrap();
        let defaults = SourceConfig::default();
        assert_eq!(settings.source.max_clients, defaults.max_clients);
        assert_eq!(settings.source.bytes_burst, defaults.bytes_burst);
        assert_eq!(settings.source.stall_limit, defaults.stall_limit);
        assert_eq!(settings.source.relay_bytes_per_s, defaults.relay_bytes_per_s);
        assert_eq!(settings.source.relay_packets_burst, defaults.relay_packets_burst);
        assert_eq!(settings.stun, StunConfig::default());
        assert!(settings.source.relay && settings.listen[0].answers_stun());
        assert_eq!(settings.identity, Some(dir.path().join("identity.pem")));
        assert_eq!(settings.stats_file, Some(dir.path().join("event-source.stats")));
        assert_eq!(settings.keys.ids().collect::<Vec<_>>(), ["k1"]);
        let links: Vec<_> = settings.listen.iter().map(|l| l.link).collect();
        assert_eq!(links, [LinkChoice::Auto, LinkChoice::Tls]);
        assert!(!settings.listen[1].answers_stun(), "there is no UDP port");
        let fields = [
            "clients",
            "events_per_s",
            "events_burst",
            "bytes_per_s",
            "bytes_burst",
            "faults_per_s",
            "faults_burst",
            "queue_events",
            "queue_bytes",
            "relay_packets_per_s",
            "relay_packets_burst",
            "relay_bytes_per_s",
            "relay_bytes_burst",
            "stun_per_s",
            "stun_per_source_per_s",
            "stall_s",
            "open_s",
            "end_expired",
            "handshakes_per_source_per_s",
        ];
        for field in fields {
            assert!(example.contains(&format!("\n{field} = ")), "{field}");
        }
    }

    #[test]
    fn options_replace_what_the_file_says() {
        let dir = scratch();
        let file = format!(
            "shards = 2\napps = [\"a\"]\nlog = \"text\"\nstats_file = \"/run/s\"\n[[listen]]\naddress = \"127.0.0.1:1\"\n{KEY}"
        );
        let settings = load(&dir, &file, &[]).unwrap();
        assert_eq!((settings.shards, settings.log), (2, LogFormat::Text));
        assert_eq!(settings.listen[0].address.port(), 1);
        assert_eq!(settings.stats_file, Some("/run/s".into()));
        let more = ["--shards", "3", "--app", "b", "--listen", "[::1]:7", "--log-format", "json"];
        let more = [&more[..], &["--stats-file", "mine"]].concat();
        let settings = load(&dir, &file, &more).unwrap();
        assert_eq!(settings.stats_file, Some("mine".into()), "not relative to the folder");
        assert_eq!((settings.shards, settings.log), (3, LogFormat::Json));
        assert_eq!(settings.listen[0].address.to_string(), "[::1]:7");
        assert_eq!(settings.source.apps, Some(vec![AppId::new("b").unwrap()]));
    }

    #[test]
    fn mistakes_are_named() {
        let dir = scratch();
        for (file, why) in [
            ("", "no key"),
            ("shard = 2", "shard"),
            ("[limits]\nevents = 2", "events"),
            ("[[listen]]\nlink = \"smoke\"\naddress = \"127.0.0.1:1\"", "smoke"),
            ("[[listen]]\naddress = \"here\"", "socket address"),
            (&format!("[limits]\nevents_per_s = 0\n{KEY}"), "events_per_s"),
            (&format!("apps = [\"a b\"]\n{KEY}"), "a b"),
            (&format!("shards = 0\n{KEY}"), "shards"),
            ("[[key]]\nid = \"k1\"\nfile = \"none.key\"", "none.key"),
            (&format!("{KEY}{KEY}"), "already"),
        ] {
            let failure = load(&dir, file, &[]).unwrap_err();
            assert!(failure.text.contains(why), "{file}: {failure}");
        }
        std::fs::write(dir.path().join("k1.key"), "secret").unwrap();
        assert!(load(&dir, KEY, &[]).unwrap_err().text.contains("hexadecimal"));
        std::fs::write(dir.path().join("k1.key"), "abcd").unwrap();
        assert!(load(&dir, KEY, &[]).unwrap_err().text.contains("32 bytes"));
    }
}
