//! `trunkline top` beside a running `recv` that keeps a stats file.
#![cfg(target_os = "linux")]

mod common;

use common::{Home, Recv, send_ok, text};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(8);

fn top(home: &Home, args: &[&str]) -> Output {
    home.trunkline().arg("top").args(args).output().unwrap()
}

fn sample(home: &Home, file: &Path) -> (Value, i32) {
    let output = top(home, &["--once", "--json", file.to_str().unwrap()]);
    let object = serde_json::from_slice(&output.stdout);
    let object = object.unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
    (object, output.status.code().unwrap())
}

/// Samples until the engine is so.
fn until(home: &Home, file: &Path, state: &str) -> (Value, i32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (object, code) = sample(home, file);
        if object["state"] == state {
            return (object, code);
        }
        assert!(Instant::now() < deadline, "not {state}: {object}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u64, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_file_outlives_whatever_happens_to_its_process() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    let (running, code) = until(&home, &file, "running");
    assert_eq!(code, 0);
    let pid = running["pid"].as_u64().unwrap();
    send_ok(&home, &recv, &[home.file("out/a", &common::noise(300_000, 1))]);
    let received = |object: &Value| object["shards"][0]["fields"]["bytes_received"].as_u64();
    let by_pid = top(&home, &["--once", "--json", &pid.to_string()]);
    let by_pid: Value = serde_json::from_slice(&by_pid.stdout).unwrap();
    assert!(received(&by_pid).unwrap() > 300_000, "{by_pid}");
    signal(pid, "STOP");
    let (stopped, code) = until(&home, &file, "not answering");
    assert_eq!(code, 4);
    assert!(received(&stopped).unwrap() > 300_000, "{stopped}");
    let lines = top(&home, &["--once", file.to_str().unwrap()]);
    assert!(text(&lines.stdout).contains("not answering"), "{}", text(&lines.stdout));
    signal(pid, "KILL");
    let (died, code) = until(&home, &file, "died");
    assert_eq!(code, 4);
    assert!(received(&died).unwrap() > 300_000, "{died}");
}

#[test]
fn an_orderly_end_is_told_and_another_engine_takes_the_file() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let option = ["--stats-file", file.to_str().unwrap()];
    let mut recv = Recv::start(&home, &option);
    until(&home, &file, "running");
    recv.signal("TERM");
    assert_eq!(recv.exit(PATIENCE), 0);
    let (ended, code) = sample(&home, &file);
    assert_eq!((&ended["state"], code), (&"ended".into(), 0));
    let _recv = Recv::start(&home, &option);
    let (running, _) = until(&home, &file, "running");
    assert_ne!(running["pid"], ended["pid"]);
    let folder = top(&home, &["--count", "2", "-i", "0.1", home.at("").to_str().unwrap()]);
    assert_eq!(text(&folder.stdout).matches("SHARD  STATE").count(), 2);
}

#[test]
fn what_is_no_stats_file_is_a_usage_error() {
    let home = Home::new();
    let no = home.file("no", b"something else");
    for what in [no.to_str().unwrap(), home.at("missing").to_str().unwrap(), "4000000000"] {
        let output = top(&home, &["--once", what]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert!(text(&output.stderr).contains(what), "{}", text(&output.stderr));
    }
    let bad = ["recv", "--listen", "127.0.0.1:0", "--stats-file", "/no/such/folder/stats"];
    let output = home.trunkline().args(bad).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let error = text(&output.stderr);
    assert!(error.contains("stats file /no/such/folder/stats"), "{error}");
}

#[test]
fn the_prometheus_page_is_well_formed() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let _recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    until(&home, &file, "running");
    let output = top(&home, &["--prometheus", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let page = text(&output.stdout);
    let (mut families, mut series) = (HashSet::new(), HashSet::new());
    let mut current = String::new();
    let mut kind = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && families.insert(name.to_owned()), "{line}");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            of.clone_into(&mut kind);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (id, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = id.split('{').next().unwrap();
            assert_eq!(name, current, "values follow their name");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(series.insert(id.to_owned()), "{line}");
        }
    }
    assert!(series.iter().any(|s| s.starts_with("trunkline_shard_up{")), "{page}");
    assert!(families.contains("trunkline_bytes_received_total") && families.len() > 80);
}
