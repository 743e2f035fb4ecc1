//! What a measurement gives: the JSON object of `docs/bench-json.md`.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// Version of the JSON object; fields are added without a new one, never removed or changed.
pub const SCHEMA: u32 = 1;

/// Everything that one command measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub version: &'static str,
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
}

/// One scenario.
#[derive(Debug, Serialize)]
pub struct Run {
    pub scenario: &'static str,
    pub link: &'static str,
    pub driver: String,
    pub server_driver: String,
    pub loopback: bool,
    pub seconds: f64,
    pub warmup_seconds: f64,
    pub length: usize,
    pub connections: u32,
    pub channels: u32,
    pub messages: u64,
    pub bytes: u64,
    pub corrupt: u64,
    pub goodput_gbps: f64,
    pub messages_per_s: f64,
    pub rtt_us: Rtt,
    pub rtt_samples: u64,
    pub cpu_s: Cpu,
    pub packet_bytes: u64,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub retransmits: u64,
    pub busy_poll_us: Option<u32>,
    /// Messages were lent to the engine, not copied.
    pub lent: bool,
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
    pub fn new(runs: Vec<Run>) -> Self {
        Self { schema: SCHEMA, version: env!("CARGO_PKG_VERSION"), host: Host::here(), runs }
    }
}

impl Host {
    fn here() -> Self {
        let first_line =
            |path| fs::read_to_string(path).ok().map(|text: String| text.trim().to_owned());
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cpu,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
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
            seconds: 3.0,
            warmup_seconds: 1.0,
            length: 64,
            connections: 1,
            channels: 1,
            messages: 3_000_000,
            bytes: 192_000_000,
            corrupt: 0,
            goodput_gbps: 0.512,
            messages_per_s: 1e6,
            rtt_us: Rtt::of(&times),
            rtt_samples: times.len(),
            cpu_s: Cpu { client: Some(2.9), server: None },
            packet_bytes: 1452,
            packets_sent: 1,
            packets_lost: 2,
            retransmits: 3,
            busy_poll_us: None,
            lent: false,
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
        ];
        let runs: Vec<Run> = ["bulk", "small", "datagrams", "latency", "loaded"]
            .into_iter()
            .filter_map(|scenario| {
                let floors = floors.map(|key| (key, 1.0)).to_vec();
                let rtt = trunkline_floor::histogram();
                rounds::combine(vec![Round { run: run(scenario), rtt, floors }])
            })
            .map(|(run, _)| run)
            .collect();
        let value = serde_json::to_value(Report::new(runs)).unwrap();
        assert_eq!(value["schema"], 1);
        let documented = include_str!("../../../docs/bench-json.md");
        let check = |object: &serde_json::Value| {
            for field in object.as_object().unwrap().keys() {
                assert!(documented.contains(&format!("`{field}`")), "{field} is not documented");
            }
        };
        check(&value);
        check(&value["host"]);
        for run in value["runs"].as_array().unwrap() {
            for object in [run, &run["rtt_us"], &run["cpu_s"], &run["per_round"], &run["spread"]] {
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
