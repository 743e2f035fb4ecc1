//! What a measurement gives: the JSON object of `docs/bench-json.md`.

use super::control::Sent;
use super::ends::Losses;
use super::flows::{Direction, Way};
use super::search::Step;
use super::sinks::Count;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};
use trunkline::hw::Machine;

/// Version of the JSON object; fields are added without a new one, never removed or changed.
pub const SCHEMA: u32 = 1;

/// Everything that one command measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub version: &'static str,
    /// What the user calls it.
    pub title: Option<String>,
    /// Seconds since 1970 at the end.
    pub unix_s: u64,
    pub host: Host,
    pub runs: Vec<Run>,
}

/// The machine.
#[derive(Debug, Serialize)]
pub struct Host {
    pub os: &'static str,
    pub arch: &'static str,
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    pub cpus: usize,
    pub name: Option<String>,
    /// The network interface that has the default route, or the loopback interface.
    pub nic: Option<Interface>,
    pub profile: Option<String>,
    /// The same for measurements that can be compared.
    pub fingerprint: String,
}

/// A network interface.
#[derive(Clone, Debug, Serialize)]
pub struct Interface {
    pub name: String,
    pub driver: String,
    pub rx_queues: usize,
}

/// A part of the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct Interval {
    /// From 1.
    pub round: usize,
    /// Its end, from the beginning of the measured time.
    pub at_s: f64,
    pub goodput_gbps: f64,
    pub messages_per_s: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub packets_lost: u64,
    /// Congestion windows of the client's connections.
    pub window_bytes: u64,
    /// Parts of the time, of 1, that each side's shard had a processor.
    pub load: Cpu,
}

/// A flow within the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct FlowRun {
    pub name: &'static str,
    pub way: Way,
    pub reliable: bool,
    pub length: usize,
    pub priority: u8,
    /// Open loop: messages a second on each connection.
    pub rate_per_s: Option<f64>,
    /// Part of the scenario's goodput and messages.
    pub counted: bool,
    #[serde(flatten)]
    pub count: Count,
    pub goodput_gbps: f64,
    pub messages_per_s: f64,
}

/// Cycles for each packet that a side sent or received; null where there are no counters.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PerPacket {
    pub client: Option<f64>,
    pub server: Option<f64>,
    /// Cycles in the kernel are in it, on each side that has a figure.
    pub kernel: bool,
}

/// How well the main figure is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Confidence {
    /// Name of the figure in `per_round`.
    pub figure: &'static str,
    pub level: f64,
    /// What was asked for.
    pub wanted_percent: f64,
    /// Half of the interval's width in percent of the mean; null with less than two rounds.
    pub percent: Option<f64>,
    pub met: bool,
}

/// One scenario.
#[derive(Debug, Serialize)]
pub struct Run {
    pub scenario: &'static str,
    pub link: &'static str,
    pub driver: String,
    pub server_driver: String,
    pub loopback: bool,
    pub direction: Direction,
    /// Open loop: messages a second on each connection.
    pub rate_per_s: Option<f64>,
    pub seconds: f64,
    pub warmup_seconds: f64,
    pub length: usize,
    pub connections: u32,
    /// Of the connections, in media: those that publish.
    pub publishers: u32,
    pub channels: u32,
    pub messages: u64,
    pub bytes: u64,
    pub corrupt: u64,
    /// Unreliable messages that did not arrive, though later ones did.
    pub missing: u64,
    /// Of connections that were made: those whose session was resumed.
    pub resumed: u64,
    pub goodput_gbps: f64,
    pub messages_per_s: f64,
    pub rtt_us: Rtt,
    pub rtt_samples: u64,
    pub cpu_s: Cpu,
    /// CPU seconds for each gigabit that was delivered.
    pub cpu_s_per_gbit: Cpu,
    pub cycles_per_packet: PerPacket,
    /// What those sent that send the load, headers of packets and acknowledgements included.
    pub wire_gbps: f64,
    pub packet_bytes: u64,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub retransmits: u64,
    /// Why packets of both sides were lost.
    pub losses: Losses,
    pub busy_poll_us: Option<u32>,
    /// Messages were lent to the engine, not copied.
    pub lent: bool,
    pub flows: Vec<FlowRun>,
    pub intervals: Vec<Interval>,
    pub confidence: Option<Confidence>,
    /// Rates that were tried.
    pub search: Vec<Step>,
    pub rounds: usize,
    /// One value for each round; NaN, in JSON null, where a round had none.
    pub per_round: BTreeMap<&'static str, Vec<f64>>,
    /// Smallest and largest of `per_round`.
    pub spread: BTreeMap<&'static str, [f64; 2]>,
    /// Medians of those of `per_round` that exist with floors only.
    #[serde(flatten)]
    pub floors: BTreeMap<&'static str, f64>,
}

/// Round trips in microseconds; null without samples.
#[derive(Debug, Default, Serialize)]
pub struct Rtt {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub max: Option<f64>,
}

/// CPU seconds of each side's shard within the measured time; null where the system does not say.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    pub client: Option<f64>,
    pub server: Option<f64>,
}

/// One round of one scenario.
#[derive(Debug)]
pub struct Round {
    pub run: Run,
    /// Nanoseconds.
    pub rtt: Histogram<u64>,
    /// Its floors by their names in the JSON object.
    pub floors: Vec<(&'static str, f64)>,
}

impl Report {
    /// The figures of `runs` on this machine.
    pub fn new(runs: Vec<Run>, title: Option<String>, profile: Option<String>) -> Self {
        let loopback = runs.iter().all(|run| run.loopback);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            title,
            unix_s: now.map_or(0, |since| since.as_secs()),
            host: Host::here(loopback, profile),
            runs,
        }
    }
}

impl Confidence {
    /// For people.
    pub fn words(&self) -> String {
        let Self { figure, level, wanted_percent, percent, met } = self;
        let level = level * 100.0;
        let known = percent.map_or("unknown".to_owned(), |percent| format!("± {percent:.1} %"));
        let so = if *met { "as asked for" } else { "NOT as asked for" };
        format!("{figure} {known} with {level:.0} % confidence, {so} (± {wanted_percent} %)")
    }
}

impl Cpu {
    /// For each gigabit of `bytes`.
    pub fn per_gbit(self, bytes: u64) -> Self {
        let of = |seconds: Option<f64>| {
            let gbit = bytes as f64 * 8e-9;
            seconds.map(|seconds| seconds / gbit).filter(|value| value.is_finite())
        };
        Self { client: of(self.client), server: of(self.server) }
    }
}

impl Run {
    /// A main figure by its name in `per_round`; `None` where there were no samples.
    pub fn figure(&self, name: &str) -> Option<f64> {
        match name {
            "goodput_gbps" => Some(self.goodput_gbps),
            "messages_per_s" => Some(self.messages_per_s),
            "p50_us" => self.rtt_us.p50,
            "server_cores" => self.server_cores(),
            _ => self.rtt_us.p99,
        }
    }

    /// Loads of one rate that arrive: a connection has one in each direction, and a subscriber one of
    /// each publisher.
    pub fn loads(&self) -> u32 {
        match (self.direction, self.publishers) {
            (Direction::Both, _) => 2 * self.connections,
            (_, 0) => self.connections,
            (_, publishers) => (self.connections - publishers) * publishers,
        }
    }

    /// Processors that the server's shard had.
    pub fn server_cores(&self) -> Option<f64> {
        Some(self.cpu_s.server? / self.seconds).filter(|cores| cores.is_finite())
    }

    /// What was sent in the measured time by those that send the load.
    pub fn set_sent(&mut self, sent: &Sent) {
        self.packet_bytes = sent.packet_bytes;
        self.packets_sent = sent.packets;
        self.packets_lost = sent.lost;
        self.retransmits = sent.retransmits;
        if self.seconds > 0.0 {
            self.wire_gbps = sent.bytes as f64 * 8e-9 / self.seconds;
        }
    }
}

impl Host {
    fn here(loopback: bool, profile: Option<String>) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        let Machine { nics, kernel, .. } = Machine::this();
        let nic = nics.into_iter().find(|nic| (nic.driver == "lo") == loopback);
        let name = gethostname::gethostname().into_string().ok();
        let mut host = Self {
            name: name.filter(|name| !name.is_empty()),
            nic: nic.map(|nic| Interface {
                name: nic.name,
                driver: nic.driver,
                rx_queues: nic.rx_queues,
            }),
            profile,
            fingerprint: String::new(),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            kernel: Some(kernel).filter(|kernel| !kernel.is_empty()),
            cpu,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        };
        host.fingerprint = host.fingerprint();
        host
    }

    /// 16 hexadecimal digits of what decides about figures. Not the name: machines of one kind are
    /// alike.
    fn fingerprint(&self) -> String {
        let nic = self.nic.as_ref().map(|nic| (&nic.driver, nic.rx_queues));
        let Self { os, arch, kernel, cpu, cpus, profile, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        let all = format!("{:?}", (os, arch, kernel, cpu, cpus, nic, profile, version));
        let digest = ring::digest::digest(&ring::digest::SHA256, all.as_bytes());
        crate::hex::encode(&digest.as_ref()[..8])
    }
}

impl Rtt {
    /// From a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let us = |ns: u64| Some(ns as f64 / 1e3);
        Self {
            p50: us(histogram.value_at_quantile(0.5)),
            p99: us(histogram.value_at_quantile(0.99)),
            p999: us(histogram.value_at_quantile(0.999)),
            max: us(histogram.max()),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::rounds;
    use super::*;

    pub fn run(scenario: &'static str) -> Run {
        let mut times = trunkline_floor::histogram();
        for us in 1..=1000 {
            times.record(us * 1000).unwrap();
        }
        Run {
            scenario,
            link: "datagram",
            driver: "uring".into(),
            server_driver: "mio".into(),
            loopback: true,
            direction: Direction::Up,
            rate_per_s: None,
            seconds: 3.0,
            warmup_seconds: 1.0,
            length: 64,
            connections: 1,
            publishers: 0,
            channels: 1,
            messages: 3_000_000,
            bytes: 192_000_000,
            corrupt: 0,
            missing: 0,
            resumed: 0,
            goodput_gbps: 0.512,
            messages_per_s: 1e6,
            rtt_us: Rtt::of(&times),
            rtt_samples: times.len(),
            cpu_s: Cpu { client: Some(2.9), server: Some(1.5) },
            cpu_s_per_gbit: Cpu { client: Some(1.0), server: Some(0.5) },
            cycles_per_packet: PerPacket::default(),
            wire_gbps: 0.6,
            packet_bytes: 1452,
            packets_sent: 1,
            packets_lost: 2,
            retransmits: 3,
            losses: Losses { network: 2, ..Losses::default() },
            busy_poll_us: None,
            lent: false,
            intervals: vec![Interval {
                round: 1,
                at_s: 0.5,
                goodput_gbps: 0.5,
                messages_per_s: 9.9e5,
                p50_us: Some(500.0),
                p99_us: None,
                packets_lost: 2,
                window_bytes: 1 << 20,
                load: Cpu { client: Some(0.9), server: None },
            }],
            flows: vec![FlowRun {
                name: "up",
                way: Way::Up,
                reliable: true,
                length: 64,
                priority: 4,
                rate_per_s: None,
                counted: true,
                count: Count { messages: 3_000_000, bytes: 192_000_000, corrupt: 0, missing: 0 },
                goodput_gbps: 0.512,
                messages_per_s: 1e6,
            }],
            confidence: None,
            search: Vec::new(),
            rounds: 1,
            per_round: BTreeMap::new(),
            spread: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
    }

    #[test]
    fn the_object_has_the_documented_fields() {
        let floors = [
            "floor_gbps",
            "floor_plain_gbps",
            "floor_per_s",
            "floor_us",
            "floor_p99_us",
            "floor_lost",
            "idle_p50_us",
            "idle_p99_us",
            "full_gbps",
            "floor_server_cores",
        ];
        let runs: Vec<Run> = ["bulk", "small", "datagrams", "latency", "loaded", "tick"]
            .into_iter()
            .filter_map(|scenario| {
                let floors = floors.map(|key| (key, 1.0)).to_vec();
                let rtt = trunkline_floor::histogram();
                rounds::combine(vec![Round { run: run(scenario), rtt, floors }])
            })
            .map(|(run, _)| run)
            .collect();
        let value = serde_json::to_value(Report::new(runs, None, None)).unwrap();
        assert_eq!(value["schema"], 1);
        let documented = include_str!("../../../docs/bench-json.md");
        let check = |object: &serde_json::Value| {
            for field in object.as_object().unwrap().keys() {
                assert!(documented.contains(&format!("`{field}`")), "{field} is not documented");
            }
        };
        check(&value);
        check(&value["host"]);
        check(&value["host"]["nic"]);
        for run in value["runs"].as_array().unwrap() {
            for object in [
                run,
                &run["rtt_us"],
                &run["cpu_s"],
                &run["cpu_s_per_gbit"],
                &run["cycles_per_packet"],
                &run["losses"],
                &run["flows"][0],
                &run["intervals"][0],
                &run["per_round"],
                &run["spread"],
            ] {
                check(object);
            }
            assert!(run["ratio"].is_number());
        }
    }

    #[test]
    fn quantiles_are_in_microseconds() {
        let rtt = run("latency").rtt_us;
        let close = |value: Option<f64>, want: f64| (value.unwrap() - want).abs() < want * 0.002;
        assert!(close(rtt.p50, 500.0) && close(rtt.p99, 990.0) && close(rtt.p999, 999.0));
        assert!(close(rtt.max, 1000.0));
        assert!(Rtt::of(&trunkline_floor::histogram()).p50.is_none());
    }
}
