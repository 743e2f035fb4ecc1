//! `bench` of the built binary: its JSON object and two processes.

mod common;

use common::{Home, PATIENCE, run, text};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Output, Stdio};

const NUMBERS: [&str; 12] = [
    "seconds",
    "warmup_seconds",
    "length",
    "connections",
    "messages",
    "bytes",
    "goodput_gbps",
    "messages_per_s",
    "packet_bytes",
    "packets_sent",
    "packets_lost",
    "retransmits",
];

fn check_run(run: &Value, scenario: &str) {
    assert_eq!(run["scenario"], scenario);
    assert_eq!(run["link"], "datagram");
    assert!(run["driver"].is_string() && run["server_driver"].is_string());
    for field in NUMBERS {
        assert!(run[field].is_number(), "{field} of {run}");
    }
    assert_eq!(run["corrupt"], 0);
    assert!(run["messages"].as_u64().unwrap() > 0, "{run}");
    let seconds = run["seconds"].as_f64().unwrap();
    let per_s = run["messages_per_s"].as_f64().unwrap();
    let messages = run["messages"].as_u64().unwrap() as f64;
    assert!((per_s * seconds / messages - 1.0).abs() < 0.05, "{run}");
    let bytes = run["bytes"].as_u64().unwrap();
    assert_eq!(bytes, run["messages"].as_u64().unwrap() * run["length"].as_u64().unwrap());
    for field in ["p50", "p99", "p999", "max"] {
        assert!(run["rtt_us"][field].as_f64().is_none_or(|us| us > 0.0));
        assert!(run["rtt_us"].get(field).is_some());
    }
    for side in ["client", "server"] {
        assert!(run["cpu_s"].get(side).is_some());
    }
}

fn object(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)));
    assert_eq!(object["schema"], 1);
    assert_eq!(object["version"], env!("CARGO_PKG_VERSION"));
    assert!(object["host"]["cpus"].as_u64().unwrap() >= 1);
    object
}

#[test]
fn everything_in_one_process() {
    let home = Home::new();
    let output = run(home.trunkline().args(["bench", "-t", "0.3", "--json"]), PATIENCE);
    let object = object(&output);
    let runs = object["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    for (run, scenario) in runs.iter().zip(["bulk", "small", "datagrams", "latency"]) {
        check_run(run, scenario);
        assert_eq!(run["loopback"], true);
    }
    assert_eq!(runs[0]["length"], 65_536);
    assert!(runs[3]["rtt_us"]["p50"].as_f64().unwrap() < 100_000.0);
    // Live lines and the table are on standard error.
    let err = text(&output.stderr);
    assert!(err.contains("measuring") && err.contains("goodput"), "{err}");
}

#[test]
fn one_table_for_people() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "-t", "0.2", "--scenario", "latency", "--scenario", "bulk"]);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("scenario") && lines[0].contains("p99.9"), "{out}");
    assert!(lines[2].starts_with("latency") && lines[3].starts_with("bulk"), "{out}");
}

#[test]
fn lengths_connections_driver_and_packet_size() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "--json", "-t", "0.2", "--scenario", "bulk", "-l", "1000", "-P", "3"]);
    command.args(["--driver", "mio", "--mtu", "1300"]);
    let object = object(&run(&mut command, PATIENCE));
    let run = &object["runs"][0];
    check_run(run, "bulk");
    assert_eq!((&run["length"], &run["connections"]), (&1000.into(), &3.into()));
    assert_eq!((&run["driver"], &run["packet_bytes"]), (&"mio".into(), &1300.into()));
}

#[test]
fn a_server_for_programs() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "-s", "--listen", "127.0.0.1:0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let object: Value = serde_json::from_str(&line).unwrap();
    assert!(object["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(object["fingerprint"].as_str().unwrap().len(), 64);
    common::signal(child.id(), "TERM");
    assert_eq!(common::wait(&mut child, PATIENCE).unwrap().code(), Some(0));
}

/// A bench server of its own process, killed when dropped.
struct Server {
    child: Child,
    address: String,
    fingerprint: String,
}

impl Server {
    fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.trunkline();
        command.args(["bench", "-s", "--listen", "127.0.0.1:0"]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut find = |prefix: &str| {
            let line = lines.next().unwrap().unwrap();
            let rest = line.strip_prefix(prefix).unwrap_or_else(|| panic!("{line}"));
            rest.split(' ').next().unwrap().to_owned()
        };
        let fingerprint = find("fingerprint ");
        let address = find("listening on ");
        Self { child, address, fingerprint }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_processes() {
    let home = Home::new();
    let server = Server::start(&home, &["--driver", "mio"]);
    let bench = |args: &[&str]| {
        let mut command = home.trunkline();
        command.args(["bench", "-c", &server.address, "--json", "-t", "0.3"]).args(args);
        run(&mut command, PATIENCE)
    };
    let output = bench(&["--pin", &server.fingerprint]);
    let pinned = object(&output);
    for (run, scenario) in
        pinned["runs"].as_array().unwrap().iter().zip(["bulk", "small", "datagrams", "latency"])
    {
        check_run(run, scenario);
        assert_eq!(run["server_driver"], "mio");
    }
    // Without a pin it works too, and says so.
    let output = bench(&["--scenario", "latency"]);
    object(&output);
    assert!(text(&output.stderr).contains("not checked"));
    let wrong = bench(&["--pin", &"ab".repeat(32)]);
    assert_eq!(wrong.status.code(), Some(3), "{}", text(&wrong.stderr));
    assert!(wrong.stdout.is_empty());
}

#[test]
fn nobody_there() {
    let home = Home::new();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = run(home.trunkline().args(["bench", "-t", "0.2", "-c", &address]), PATIENCE);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
}
