//! What a measurement gives: the JSON object of `docs/bench-json.md` and the table.

use crate::cli::Scenario;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write as _;
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

/// A histogram of round trips: 1 ns to 100 s, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are valid"))
}

/// All runs as a table for people.
pub fn table(report: &Report) -> String {
    let head = [
        "scenario",
        "goodput",
        "messages",
        "p50",
        "p99",
        "p99.9",
        "max",
        "CPU client",
        "server",
        "packet",
        "lost",
        "re-sent",
        "driver",
    ];
    let units = ["", "Gb/s", "/s", "µs", "µs", "µs", "µs", "s", "s", "bytes", "", "", ""];
    let mut rows: Vec<Vec<String>> = vec![
        head.iter().map(ToString::to_string).collect(),
        units.iter().map(ToString::to_string).collect(),
    ];
    rows.extend(report.runs.iter().map(row));
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for cells in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let first_or_last = column == 0 || column == head.len() - 1;
            let _ = if first_or_last {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for run in report.runs.iter().filter(|run| run.corrupt > 0) {
        let (scenario, corrupt) = (run.scenario, run.corrupt);
        let _ = writeln!(out, "{scenario}: {corrupt} messages were corrupt");
    }
    if report.runs.iter().any(|run| run.loopback) {
        out.push_str("loopback: the sender's CPU also runs the kernel's receive path\n");
    }
    out
}

fn row(run: &Run) -> Vec<String> {
    let us = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.1}"));
    let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
    let driver = if run.driver == run.server_driver {
        run.driver.clone()
    } else {
        format!("{}/{}", run.driver, run.server_driver)
    };
    vec![
        run.scenario.to_owned(),
        format!("{:.3}", run.goodput_gbps),
        grouped(run.messages_per_s as u64),
        us(run.rtt_us.p50),
        us(run.rtt_us.p99),
        us(run.rtt_us.p999),
        us(run.rtt_us.max),
        seconds(run.cpu_s.client),
        seconds(run.cpu_s.server),
        run.packet_bytes.to_string(),
        grouped(run.packets_lost),
        grouped(run.retransmits),
        driver,
    ]
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What the live line says.
pub fn live(scenario: Scenario, at: f64, gbps: f64, per_s: f64, warm: bool) -> String {
    let name = scenario.name();
    let phase = if warm { "warming up" } else { "measuring" };
    format!(
        "{name:<9} {at:5.1} s {phase:<10} {gbps:8.3} Gb/s {:>12} messages/s",
        grouped(per_s as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scenario: &'static str) -> Run {
        let mut times = histogram();
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
        }
    }

    #[test]
    fn the_object_has_the_documented_fields() {
        let value = serde_json::to_value(Report::new(vec![run("small")])).unwrap();
        assert_eq!(value["schema"], 1);
        let documented = include_str!("../../../docs/bench-json.md");
        let check = |object: &serde_json::Value| {
            for field in object.as_object().unwrap().keys() {
                assert!(documented.contains(&format!("`{field}`")), "{field} is not documented");
            }
        };
        check(&value);
        check(&value["host"]);
        check(&value["runs"][0]);
        check(&value["runs"][0]["rtt_us"]);
        check(&value["runs"][0]["cpu_s"]);
    }

    #[test]
    fn quantiles_are_in_microseconds() {
        let rtt = run("latency").rtt_us;
        let close = |value: Option<f64>, want: f64| (value.unwrap() - want).abs() < want * 0.002;
        assert!(close(rtt.p50, 500.0) && close(rtt.p99, 990.0) && close(rtt.p999, 999.0));
        assert!(close(rtt.max, 1000.0));
        assert!(Rtt::of(&histogram()).p50.is_none());
    }

    #[test]
    fn the_table_is_aligned() {
        let table = table(&Report::new(vec![run("bulk"), run("datagrams")]));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5);
        let column = |line: &str, text: &str| {
            line.find(text).map(|at| line[..at].chars().count() + text.chars().count())
        };
        assert_eq!(column(lines[0], "goodput"), column(lines[2], "0.512"));
        assert_eq!(column(lines[0], "messages"), column(lines[3], "1,000,000"));
        assert!(lines[2].contains("uring/mio") && lines[4].starts_with("loopback"));
    }

    #[test]
    fn grouping() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }
}
