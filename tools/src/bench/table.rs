//! The tables and the live line for people.

use super::args::Scenario;
use super::figures::{Interval, PerPacket, Report, Run};
use super::rounds::{self, Comparison};
use super::search::Step;
use super::sinks::Count;
use std::fmt::Write as _;

/// All runs as a table for people.
pub fn table(report: &Report) -> String {
    let head = [
        "scenario",
        "goodput",
        "wire",
        "messages",
        "p50",
        "p99",
        "p99.9",
        "max",
        "CPU client",
        "server",
        "packets",
        "packet",
        "lost",
        "re-sent",
        "driver",
    ];
    let units =
        ["", "Gb/s", "Gb/s", "/s", "µs", "µs", "µs", "µs", "s/Gb", "s/Gb", "", "bytes", "", "", ""];
    let mut rows: Vec<Vec<String>> = vec![
        head.iter().map(ToString::to_string).collect(),
        units.iter().map(ToString::to_string).collect(),
    ];
    rows.extend(report.runs.iter().map(row));
    let mut out = aligned(&rows, &[0, head.len() - 1]);
    let rounds = report.runs.iter().map(|run| run.rounds).max().unwrap_or(0);
    if rounds > 1 {
        let _ = writeln!(out, "medians of {rounds} rounds; packets, lost and re-sent are sums");
    }
    if rounds > 1 || report.runs.iter().any(|run| !run.floors.is_empty()) {
        out.push('\n');
        out.push_str(&beside_floors(&report.runs));
    }
    if report.runs.iter().any(has_flows) {
        out.push('\n');
        out.push_str(&flows(&report.runs));
    }
    for run in report.runs.iter().filter(|run| !run.search.is_empty()) {
        let rate = grouped(run.rate_per_s.unwrap_or_default() as u64);
        let _ = writeln!(
            out,
            "{}: {rate} messages/s on each connection is the highest rate kept, of {} tried",
            run.scenario,
            run.search.len()
        );
    }
    for run in &report.runs {
        if let Some(known) = &run.confidence {
            let _ = writeln!(out, "{}: {}", run.scenario, known.words());
        }
    }
    for run in &report.runs {
        if let Some(words) = run.losses.words() {
            let _ = writeln!(out, "{}: lost {words}", run.scenario);
        }
        if let Some(words) = cpu_each(run) {
            let _ = writeln!(out, "{}: {words}", run.scenario);
        }
        if let Some(words) = cycles(run) {
            let _ = writeln!(out, "{}: {words}", run.scenario);
        }
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

/// Whether the sums of a run say too little.
fn has_flows(run: &Run) -> bool {
    run.flows.iter().filter(|flow| flow.counted).count() > 1
        || run.flows.iter().any(|flow| !flow.reliable)
}

/// What became of each flow, where there are several or some may get lost.
fn flows(runs: &[Run]) -> String {
    let head = ["scenario", "flow", "", "bytes", "messages/s", "Gb/s", "missing", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for run in runs.iter().filter(|run| has_flows(run)) {
        for (number, flow) in run.flows.iter().enumerate() {
            let Count { messages, missing, .. } = flow.count;
            let percent = 100.0 * missing as f64 / (messages + missing).max(1) as f64;
            rows.push(vec![
                if number == 0 { run.scenario.to_owned() } else { String::new() },
                flow.name.to_owned(),
                if flow.reliable { "reliable" } else { "unreliable" }.to_owned(),
                flow.length.to_string(),
                grouped(flow.messages_per_s as u64),
                format!("{:.3}", flow.goodput_gbps),
                if flow.reliable { "-".to_owned() } else { grouped(missing) },
                if flow.reliable { String::new() } else { format!("{percent:.2} %") },
            ]);
        }
    }
    aligned(&rows, &[0, 1, 2])
}

/// Processor time of what has no bytes: a connection.
fn cpu_each(run: &Run) -> Option<String> {
    if run.bytes > 0 || run.messages == 0 {
        return None;
    }
    let us = |seconds: Option<f64>| {
        seconds.map_or("-".to_owned(), |s| format!("{:.0}", s * 1e6 / run.messages as f64))
    };
    let (client, server) = (us(run.cpu_s.client), us(run.cpu_s.server));
    Some(format!("CPU for a connection: client {client} µs, server {server} µs"))
}

/// Cycles of both sides, where there are counters.
fn cycles(run: &Run) -> Option<String> {
    let PerPacket { client, server, kernel } = run.cycles_per_packet;
    if client.is_none() && server.is_none() {
        return None;
    }
    let of = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
    let where_to = if kernel { "kernel included" } else { "without the kernel" };
    let (client, server) = (of(client), of(server));
    Some(format!("cycles per packet: client {client}, server {server} ({where_to})"))
}

fn row(run: &Run) -> Vec<String> {
    let us = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.1}"));
    let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.3}"));
    let driver = if run.driver == run.server_driver {
        run.driver.clone()
    } else {
        format!("{}/{}", run.driver, run.server_driver)
    };
    vec![
        run.scenario.to_owned(),
        format!("{:.3}", run.goodput_gbps),
        format!("{:.3}", run.wire_gbps),
        grouped(run.messages_per_s as u64),
        us(run.rtt_us.p50),
        us(run.rtt_us.p99),
        us(run.rtt_us.p999),
        us(run.rtt_us.max),
        seconds(run.cpu_s_per_gbit.client),
        seconds(run.cpu_s_per_gbit.server),
        grouped(run.packets_sent),
        run.packet_bytes.to_string(),
        grouped(run.packets_lost),
        grouped(run.retransmits),
        driver,
    ]
}

/// Cells in columns as wide as their widest; the columns `left` begin at their left edge.
pub fn aligned(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for cells in rows {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let _ = if left.contains(&column) {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Every figure with its spread over the rounds and, where they were measured, its floors.
fn beside_floors(runs: &[Run]) -> String {
    let floors = runs.iter().any(|run| !run.floors.is_empty());
    let head = ["scenario", "figure", "", "median", "min–max"];
    let more = ["floor", "median", "min–max", "ratio", "min–max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    if floors {
        rows[0].extend(more.map(str::to_owned));
    }
    for run in runs.iter().filter(|run| run.rounds > 1 || !run.floors.is_empty()) {
        let mut before = "";
        for comparison in rounds::comparisons(run) {
            let again = comparison.figure == before;
            if again && !floors {
                continue;
            }
            let mut cells = match (again, before) {
                (true, _) => vec![String::new(); 5],
                (false, _) => figure(run, comparison),
            };
            if !before.is_empty() {
                cells[0].clear();
            }
            before = comparison.figure;
            if floors {
                cells.extend(floor(run, comparison));
            }
            rows.push(cells);
        }
    }
    let mut out = aligned(&rows, &[0, 1, 2, 5]);
    if runs.iter().any(|run| !run.floors.is_empty() && run.scenario != "loaded") {
        out.push_str("floor: plain UDP on the same CPUs right before\n");
    }
    if runs.iter().any(|run| run.scenario == "loaded") {
        out.push_str("loaded: beside the same connection's own figures of the same run\n");
    }
    if floors {
        out.push_str("ratio: median of the rounds'\n");
    }
    out
}

fn figure(run: &Run, comparison: &Comparison) -> Vec<String> {
    let Comparison { figure, unit, value, .. } = comparison;
    let median = run.figure(value).map_or("-".to_owned(), |value| number(value, unit));
    let spread = range(run, value, |value| number(value, unit));
    vec![run.scenario.to_owned(), (*figure).to_owned(), (*unit).to_owned(), median, spread]
}

fn floor(run: &Run, comparison: &Comparison) -> Vec<String> {
    let Comparison { unit, floor_name, floor, ratio, .. } = comparison;
    let name = match *floor_name {
        rounds::PING_PONG => format!("{floor_name}, {}", waits(run.busy_poll_us.is_some())),
        name => name.to_owned(),
    };
    let median = |key: &str, shown: &dyn Fn(f64) -> String| {
        let value = run.floors.get(key).copied().filter(|value| value.is_finite());
        value.map_or("-".to_owned(), shown)
    };
    vec![
        name,
        median(floor, &|value| number(value, unit)),
        range(run, floor, |value| number(value, unit)),
        median(ratio, &|value| format!("{value:.2}")),
        range(run, ratio, |value| format!("{value:.2}")),
    ]
}

fn range(run: &Run, key: &str, shown: impl Fn(f64) -> String) -> String {
    match run.spread.get(key) {
        Some([min, max]) if min.is_finite() => format!("{}–{}", shown(*min), shown(*max)),
        _ => "-".to_owned(),
    }
}

/// A figure with as many digits as its unit deserves.
pub fn number(value: f64, unit: &str) -> String {
    match unit {
        "Gb/s" | "cores" => format!("{value:.3}"),
        "µs" => format!("{value:.1}"),
        _ => grouped(value as u64),
    }
}

/// What an end does while nothing is there.
pub const fn waits(spins: bool) -> &'static str {
    if spins { "spinning" } else { "blocking" }
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

/// A rate that a search tried.
pub fn step(scenario: Scenario, step: &Step) -> String {
    let rate = grouped(step.rate_per_s as u64);
    let p99 = step.p99_us.map_or("-".to_owned(), |p99| format!("{p99:.1}"));
    let kept = if step.kept { "kept" } else { "not kept" };
    format!(
        "{:<9} {rate:>12} messages/s offered  {:6.2} % missing  p99 {p99} µs  {kept}",
        scenario.name(),
        step.loss_percent
    )
}

/// What is said of an interval where there is no terminal.
pub fn live_line(scenario: Scenario, phase: &str, interval: &Interval) -> String {
    let name = scenario.name();
    let Interval { at_s, goodput_gbps, messages_per_s, p50_us, packets_lost, .. } = interval;
    let per_s = grouped(*messages_per_s as u64);
    let p50 = p50_us.map_or(String::new(), |p50| format!("  p50 {p50:8.1} µs"));
    format!(
        "{name:<9} {at_s:5.1} s {phase:<10} {goodput_gbps:8.3} Gb/s {per_s:>12} messages/s{p50}\
         {packets_lost:>6} lost"
    )
}

#[cfg(test)]
mod tests {
    use super::super::figures::FlowRun;
    use super::super::figures::tests::run;
    use super::super::rounds::tests::round;
    use super::*;

    fn report(runs: Vec<Run>) -> Report {
        Report::new(runs, None, None)
    }

    #[test]
    fn the_table_is_aligned() {
        let table = table(&report(vec![run("bulk"), run("datagrams")]));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 7, "{table}");
        let column = |line: &str, text: &str| {
            line.find(text).map(|at| line[..at].chars().count() + text.chars().count())
        };
        assert_eq!(column(lines[0], "goodput"), column(lines[2], "0.512"));
        assert_eq!(column(lines[0], "messages"), column(lines[3], "1,000,000"));
        assert!(lines[2].contains("uring/mio") && lines[6].starts_with("loopback"));
        assert_eq!(lines[4], "bulk: lost 2 packets in the network");
    }

    #[test]
    fn flows_are_shown_where_there_are_several_or_some_may_get_lost() {
        let mut both = run("bulk");
        both.flows.push(FlowRun { name: "down", ..both.flows[0].clone() });
        let mut lossy = run("datagrams");
        lossy.flows[0].reliable = false;
        lossy.flows[0].count.missing = 1_000_000;
        let table = table(&report(vec![run("small"), both, lossy]));
        let below = table.split("\n\n").nth(1).unwrap();
        let lines: Vec<Vec<&str>> =
            below.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
        assert_eq!(lines[1][..3], ["bulk", "up", "reliable"], "{table}");
        assert_eq!(lines[2][..2], ["down", "reliable"], "{table}");
        assert_eq!(lines[3][..3], ["datagrams", "up", "unreliable"], "{table}");
        assert_eq!(lines[3][6..], ["1,000,000", "25.00", "%"], "{table}");
    }

    #[test]
    fn connections_have_processor_time() {
        let connects = Run { bytes: 0, messages: 10_000, ..run("handshakes") };
        assert_eq!(
            cpu_each(&connects).unwrap(),
            "CPU for a connection: client 290 µs, server 150 µs"
        );
        assert_eq!(cpu_each(&run("bulk")), None);
    }

    #[test]
    fn cycles_are_shown_where_there_are_counters() {
        let mut counted = run("bulk");
        counted.cycles_per_packet = PerPacket { client: Some(1234.4), server: None, kernel: true };
        assert_eq!(
            cycles(&counted).unwrap(),
            "cycles per packet: client 1234, server - (kernel included)"
        );
        assert_eq!(cycles(&run("bulk")), None);
    }

    #[test]
    fn grouping() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn floors_stand_beside_figures() {
        let rounds = |scenario, floors: &[(&'static str, f64)]| {
            let round = || round(scenario, 0.512, floors.to_vec());
            rounds::combine(vec![round(), round()]).unwrap().0
        };
        let bulk = rounds("bulk", &[("floor_gbps", 1.024), ("floor_plain_gbps", 2.048)]);
        let latency = rounds("latency", &[("floor_us", 250.0), ("floor_p99_us", 990.0)]);
        let table = table(&report(vec![bulk, latency]));
        let below = table.split("\n\n").nth(1).unwrap();
        let lines: Vec<Vec<&str>> = below
            .lines()
            .map(|line| line.split("  ").filter(|c| !c.is_empty()).collect())
            .collect();
        let cells = |line: usize| lines[line].iter().map(|cell| cell.trim()).collect::<Vec<_>>();
        assert_eq!(
            cells(1),
            ["bulk", "goodput", "Gb/s", "0.512", "0.512–0.512", "GSO + AES-128-GCM", "1.024"]
                .into_iter()
                .chain(["1.024–1.024", "0.50", "0.50–0.50"])
                .collect::<Vec<_>>()
        );
        assert_eq!(cells(2)[..2], ["GSO, no cipher", "2.048"]);
        assert_eq!(cells(3)[..2], ["latency", "p50"]);
        assert!(below.contains("UDP ping-pong, blocking") && below.contains("2.00–2.00"));
        let width = |line: &str| line.chars().count();
        let lines: Vec<&str> = below.lines().collect();
        assert!(lines[1..5].iter().all(|line| width(line) == width(lines[0])), "{below}");
    }

    #[test]
    fn rounds_without_floors_show_their_spread() {
        let run = |goodput| round("bulk", goodput, Vec::new());
        let (run, _) = rounds::combine(vec![run(1.0), run(2.0), run(4.0)]).unwrap();
        let table = table(&report(vec![run]));
        assert!(table.contains("medians of 3 rounds"), "{table}");
        assert!(table.contains("2.000  1.000–4.000") && !table.contains("ratio"), "{table}");
    }
}
