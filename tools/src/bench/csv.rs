//! The results as comma-separated values: a line for each scenario.

use super::figures::{Report, Run};
use std::fmt::Write as _;

/// What a line has, with names of the JSON object.
#[rustfmt::skip]
const COLUMNS: [&str; 34] = [
    "scenario", "title", "version", "fingerprint", "kernel", "cpu", "link", "driver",
    "server_driver", "loopback", "length", "connections", "channels", "rate_per_s", "rounds",
    "seconds", "messages", "bytes", "corrupt", "goodput_gbps", "messages_per_s", "p50_us", "p99_us",
    "p999_us", "max_us", "cpu_client_s", "cpu_server_s", "packets_lost", "retransmits", "direction",
    "missing", "wire_gbps", "cpu_client_s_per_gbit", "cpu_server_s_per_gbit",
];

/// A head and all runs.
pub fn csv(report: &Report) -> String {
    let mut out = COLUMNS.join(",") + "\n";
    for run in &report.runs {
        let cells: Vec<String> = row(report, run).iter().map(|cell| quoted(cell)).collect();
        let _ = writeln!(out, "{}", cells.join(","));
    }
    out
}

fn row(report: &Report, run: &Run) -> [String; COLUMNS.len()] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    [
        run.scenario.to_owned(),
        text(&report.title),
        report.version.to_owned(),
        report.host.fingerprint.clone(),
        text(&report.host.kernel),
        text(&report.host.cpu),
        run.link.to_owned(),
        run.driver.clone(),
        run.server_driver.clone(),
        run.loopback.to_string(),
        run.length.to_string(),
        run.connections.to_string(),
        run.channels.to_string(),
        number(run.rate_per_s),
        run.rounds.to_string(),
        run.seconds.to_string(),
        run.messages.to_string(),
        run.bytes.to_string(),
        run.corrupt.to_string(),
        run.goodput_gbps.to_string(),
        run.messages_per_s.to_string(),
        number(run.rtt_us.p50),
        number(run.rtt_us.p99),
        number(run.rtt_us.p999),
        number(run.rtt_us.max),
        number(run.cpu_s.client),
        number(run.cpu_s.server),
        run.packets_lost.to_string(),
        run.retransmits.to_string(),
        run.direction.name().to_owned(),
        run.missing.to_string(),
        run.wire_gbps.to_string(),
        number(run.cpu_s_per_gbit.client),
        number(run.cpu_s_per_gbit.server),
    ]
}

/// As RFC 4180 has it.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::run;
    use super::*;

    #[test]
    fn a_line_for_each_run() {
        let title = Some("before, \"cold\"".to_owned());
        let text = csv(&Report::new(vec![run("bulk"), run("latency")], title, None));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("bulk,\"before, \"\"cold\"\"\","), "{}", lines[1]);
        assert!(lines[2].starts_with("latency,"));
        assert_eq!(lines[0].split(',').count(), COLUMNS.len());
        // The title has one comma, the name of the processor may have some.
        assert!(lines[2].split(',').count() > COLUMNS.len());
        assert!(lines[1].contains(",0.512,1000000,"), "{}", lines[1]);
    }
}
