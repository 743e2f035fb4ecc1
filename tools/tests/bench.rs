//! `bench` of the built binary: its JSON object and two processes.

mod common;

use common::veth::{self, Veth};
use common::{Home, PATIENCE, run, text};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

const SCENARIOS: [&str; 5] = ["bulk", "small", "datagrams", "latency", "loaded"];

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
    // With flows in both directions each side has a clock, and marks of its own.
    let far = if run["direction"] == "both" { 0.3 } else { 0.05 };
    assert!((per_s * seconds / messages - 1.0).abs() < far, "{run}");
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
    assert_eq!(runs.len(), SCENARIOS.len());
    for (run, scenario) in runs.iter().zip(SCENARIOS) {
        check_run(run, scenario);
        assert_eq!(run["loopback"], true);
    }
    // Half of the load, beside figures of its own.
    let of = |field: &str| runs[4][field].as_f64().unwrap();
    assert!((0.3..0.7).contains(&of("ratio_gbps")), "{}", runs[4]);
    assert!((of("goodput_gbps") / of("full_gbps") / of("ratio_gbps") - 1.0).abs() < 1e-9);
    let p99 = runs[4]["rtt_us"]["p99"].as_f64().unwrap();
    assert!((p99 / of("idle_p99_us") / of("ratio") - 1.0).abs() < 1e-9, "{}", runs[4]);
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
fn rounds_are_medians_and_sums() {
    let home = Home::new();
    let hgrm = home.at("rtt.hgrm");
    let mut command = home.trunkline();
    command.args(["bench", "--json", "-t", "0.1", "--rounds", "3", "--busy-poll=50", "--hgrm"]);
    command.arg(&hgrm).args(["--scenario", "latency", "--scenario", "small"]);
    let object = object(&run(&mut command, PATIENCE));
    for run in object["runs"].as_array().unwrap() {
        assert_eq!((&run["rounds"], &run["busy_poll_us"]), (&3.into(), &50.into()));
        let rounds = run["per_round"]["messages_per_s"].as_array().unwrap();
        let mut sorted: Vec<f64> = rounds.iter().map(|v| v.as_f64().unwrap()).collect();
        sorted.sort_by(f64::total_cmp);
        assert_eq!(sorted.len(), 3);
        assert_eq!(run["messages_per_s"].as_f64(), Some(sorted[1]));
        let spread = &run["spread"]["messages_per_s"];
        assert_eq!((spread[0].as_f64(), spread[1].as_f64()), (Some(sorted[0]), Some(sorted[2])));
        assert!(run["seconds"].as_f64().unwrap() >= 0.3, "{run}");
        assert!(run.get("ratio").is_none() && run.get("floor_gbps").is_none());
    }
    assert!(!hgrm.exists());
    for run in object["runs"].as_array().unwrap() {
        let name = format!("rtt-{}.hgrm", run["scenario"].as_str().unwrap());
        let text = std::fs::read_to_string(home.at(&name)).unwrap();
        assert!(text.trim_start().starts_with("Value"), "{text}");
        let total = format!("Total count    = {:>12}]", run["rtt_samples"].as_u64().unwrap());
        assert!(text.contains(&total), "{total}: {text}");
    }
}

#[test]
fn results_as_pages_and_lines() {
    let home = Home::new();
    let (csv, html) = (home.at("bench.csv"), home.at("bench.html"));
    let mut command = home.trunkline();
    command.args(["bench", "-J", "-t", "0.4", "-i", "0.1", "--rounds", "2", "-T", "a <title>"]);
    command.args(["--scenario", "small", "--scenario", "latency", "--csv"]).arg(&csv);
    command.arg("--html").arg(&html);
    let object = object(&run(&mut command, PATIENCE));
    assert_eq!(object["title"], "a <title>");
    assert_eq!(object["host"]["fingerprint"].as_str().unwrap().len(), 16);
    assert_eq!(object["host"]["nic"]["driver"], "lo");
    for run in object["runs"].as_array().unwrap() {
        let intervals = run["intervals"].as_array().unwrap();
        assert!(intervals.len() >= 4, "{intervals:?}");
        let rounds: Vec<u64> = intervals.iter().map(|i| i["round"].as_u64().unwrap()).collect();
        assert!(rounds.is_sorted() && rounds[0] == 1 && rounds.last() == Some(&2), "{rounds:?}");
        assert!(run["wire_gbps"].as_f64().unwrap() > 0.0, "{run}");
    }
    let lines = std::fs::read_to_string(csv).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.lines().nth(1).unwrap().starts_with("small,a <title>,"), "{lines}");
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("a &lt;title&gt;") && page.contains("</html>"));
    assert_eq!(page.matches("<svg").count(), 6, "rounds, time and percentiles of both");
}

#[test]
fn rounds_until_a_figure_is_known() {
    let home = Home::new();
    let bench = |percent| {
        let mut command = home.trunkline();
        command.args(["bench", "-J", "-t", "0.1", "--scenario", "latency", "--rounds", "5"]);
        command.args(["--confidence", percent]);
        object(&run(&mut command, PATIENCE))["runs"][0].clone()
    };
    for percent in ["50", "0.1"] {
        let run = bench(percent);
        let known = &run["confidence"];
        let rounds = run["rounds"].as_u64().unwrap();
        let half = known["percent"].as_f64().unwrap();
        let wanted: f64 = percent.parse().unwrap();
        assert_eq!(known["met"], half <= wanted, "{known}");
        assert_eq!(known["figure"], "p50_us");
        // It goes on exactly while it is not known.
        assert!((3..=5).contains(&rounds), "{rounds}");
        assert!(rounds == 5 || half <= wanted, "{rounds} rounds: {known}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let home = Home::new();
    for (scenario, rate, messages) in
        [("small", "2000/s", 2000.0), ("datagrams", "2000/s", 2000.0), ("latency", "512k", 1000.0)]
    {
        let mut command = home.trunkline();
        command.args(["bench", "-J", "-t", "0.5", "--scenario", scenario, "-b", rate]);
        let object = object(&run(&mut command, PATIENCE));
        let run = &object["runs"][0];
        check_run(run, scenario);
        assert_eq!(run["rate_per_s"].as_f64(), Some(messages));
        let measured = run["messages_per_s"].as_f64().unwrap();
        assert!((0.8..1.2).contains(&(measured / messages)), "{scenario}: {measured}");
        assert!(run["rtt_samples"].as_u64().unwrap() > 100, "{run}");
    }
}

/// What a server sends is checked and counted by the client.
#[test]
fn the_load_goes_the_other_way_and_both() {
    let home = Home::new();
    for (option, direction, ways) in
        [("-R", "down", &["down"][..]), ("--bidir", "both", &["up", "down"])]
    {
        let mut command = home.trunkline();
        command.args(["bench", "-J", "-t", "0.3", option, "-P", "2", "--channels", "3"]);
        let object = object(&run(&mut command, PATIENCE));
        let runs = object["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 3, "those that have a direction");
        for (run, scenario) in runs.iter().zip(SCENARIOS) {
            check_run(run, scenario);
            assert_eq!(run["direction"], direction);
            let flows = run["flows"].as_array().unwrap();
            let loads: Vec<&Value> = flows.iter().filter(|flow| flow["counted"] == true).collect();
            assert_eq!(loads.iter().map(|flow| &flow["way"]).collect::<Vec<_>>(), ways);
            assert!(loads.iter().all(|flow| flow["messages"].as_u64().unwrap() > 0), "{run}");
            let sum: u64 = loads.iter().map(|flow| flow["bytes"].as_u64().unwrap()).sum();
            assert_eq!(run["bytes"].as_u64(), Some(sum));
            assert!(run["packets_sent"].as_u64().unwrap() > 10, "{run}");
        }
    }
    // At a rate, each channel of the server has its part of it.
    let mut command = home.trunkline();
    command.args(["bench", "-J", "-t", "0.5", "--scenario", "datagrams", "-R", "-b", "3000/s"]);
    let object = object(&run(command.args(["--channels", "3"]), PATIENCE));
    let measured = object["runs"][0]["messages_per_s"].as_f64().unwrap();
    assert!((2400.0..3600.0).contains(&measured), "{measured}");
    let output =
        common::run(home.trunkline().args(["bench", "-R", "--scenario", "latency"]), PATIENCE);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("latency"), "{}", text(&output.stderr));
}

#[test]
fn games_and_media() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let bench = |args: &[&str]| {
        let mut command = home.trunkline();
        command.args(["bench", "-c", &server.address, "--trust-any", "-J", "-t", "0.6"]);
        object(&run(command.args(args), PATIENCE))["runs"][0].clone()
    };
    let close = |value: &Value, wanted: f64| {
        let value = value.as_f64().unwrap();
        assert!((0.8..1.2).contains(&(value / wanted)), "{value} in place of {wanted}");
    };
    let tick = bench(&["--scenario", "tick", "-P", "50"]);
    check_run(&tick, "tick");
    assert_eq!((&tick["connections"], &tick["length"]), (&50.into(), &100.into()));
    close(&tick["messages_per_s"], 1500.0);
    assert!(tick["rtt_samples"].as_u64().unwrap() > 300, "{tick}");
    assert!(tick["per_round"]["server_cores"][0].as_f64().unwrap() > 0.0, "{tick}");

    let mixed = bench(&["--scenario", "mixed", "-P", "10"]);
    for (name, per_s) in [("input", 600.0), ("state", 300.0), ("events", 100.0), ("assets", 40.0)] {
        let flows = mixed["flows"].as_array().unwrap();
        let flow = flows.iter().find(|flow| flow["name"] == name).unwrap();
        close(&flow["messages_per_s"], per_s);
    }
    assert!(mixed["rtt_samples"].as_u64().unwrap() > 20, "{mixed}");

    let media = bench(&["--scenario", "media", "--publishers", "2", "--subscribers", "5"]);
    check_run(&media, "media");
    assert_eq!((&media["connections"], &media["publishers"]), (&7.into(), &2.into()));
    close(&media["messages_per_s"], 2.0 * 5.0 * 250.0);
    close(&media["flows"][0]["messages_per_s"], 2.0 * 250.0);
    // From publisher to subscriber.
    close(&media["rtt_samples"], media["messages"].as_f64().unwrap());
}

#[test]
fn lost_packets_have_a_cause() {
    let home = Home::new();
    // Far less than a connection has under way while it sends what it can.
    let profile = home.file(
        "small.toml",
        b"name = \"small\"\ndescription = \"small buffers\"\ndrivers = []\n\
          [engine.socket_buffer_bytes]\nvalue = 65536\nwhy = \"to lose something\"\n",
    );
    let server = Server::start(&home, &["--profile", profile.to_str().unwrap()]);
    let mut command = home.trunkline();
    command.args(["bench", "-c", &server.address, "--trust-any", "-J", "-t", "2", "-i", "0.1"]);
    command.args(["--scenario", "bulk"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let measuring =
        lines.by_ref().find(|line| line.as_ref().is_ok_and(|l| l.contains("measuring")));
    assert!(measuring.is_some());
    // Nobody reads the server's socket for a while.
    for _ in 0..3 {
        common::signal(server.child.id(), "STOP");
        std::thread::sleep(std::time::Duration::from_millis(100));
        common::signal(server.child.id(), "CONT");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{rest:?}");
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = &object["runs"][0];
    let of = |cause: &str| run["losses"][cause].as_u64().unwrap();
    assert!(of("socket_buffer") > 0, "{run}");
    assert!(of("socket_buffer") >= of("network"), "{run}");
    assert_eq!(of("wrong_shard"), 0, "there is one shard");
    assert!(rest.iter().any(|line| line.contains("in full socket buffers")), "{rest:?}");
}

#[test]
fn options_that_a_scenario_does_not_have_are_refused() {
    let home = Home::new();
    for (args, named) in [
        (&["--scenario", "media", "-P", "3"][..], "--connections"),
        (&["--scenario", "mixed", "-l", "3000"], "--length"),
        (&["--scenario", "tick", "--channels", "2"], "--channels"),
        (&["--scenario", "bulk", "--publishers", "2"], "media"),
        (&["--scenario", "latency", "--bidir"], "latency"),
        (&["--scenario", "mixed", "-b", "1M"], "mixed"),
    ] {
        let output = run(home.trunkline().arg("bench").args(args), PATIENCE);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let err = text(&output.stderr);
        assert!(err.contains(named), "{args:?}: {err}");
    }
}

#[test]
fn what_a_setting_changes_is_shown() {
    let home = Home::new();
    let json = home.at("knobs.json");
    let mut knobs = Command::new("python3");
    knobs.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/knobs.py"));
    knobs.args(["--program", env!("CARGO_BIN_EXE_trunkline"), "--rounds", "2", "--seconds", "0.1"]);
    let output = run(knobs.args(["--knob", "copy,rx-64", "--json"]).arg(&json), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for row in
        ["| messages copied, not lent | bulk | Gb/s |", "| 64 receive buffers (256) | small |"]
    {
        assert!(table.contains(row), "{table}");
    }
    let figures: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    for knob in ["as it is", "copy", "rx-64"] {
        assert_eq!(figures["bulk"][knob].as_array().unwrap().len(), 2, "{figures}");
    }
    let mut knobs = Command::new("python3");
    knobs.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/knobs.py"));
    let output = run(knobs.args(["--knob", "nonsense"]), PATIENCE);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

/// The guide sends people to counters; they must be there.
#[cfg(unix)]
#[test]
fn the_tuning_guide_names_counters_that_exist() {
    let home = Home::new();
    let stats = home.at("stats");
    let mut command = home.trunkline();
    command.args(["bench", "-t", "0.3", "--scenario", "small", "--stats-file"]).arg(&stats);
    assert_eq!(run(&mut command, PATIENCE).status.code(), Some(0));
    let output = run(home.trunkline().args(["top", "--once", "--json"]).arg(&stats), PATIENCE);
    let sample: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fields = sample["shards"][0]["fields"].as_object().unwrap();
    let source = include_str!("../../engine/src/stats/file/layout.rs");
    let guide = include_str!("../../docs/tuning.md");
    assert!(!guide.contains("| @") && !guide.contains("\n@"), "figures are to follow");
    let table = guide.split("## When it is slow").nth(1).unwrap();
    let table = table.split("## Sizing").next().unwrap();
    let mut seen = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let column = row.split(" | ").nth(1).unwrap();
        for name in column.split('`').skip(1).step_by(2) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.contains('_') || !name.chars().all(plain) {
                continue;
            }
            // Those of one connection are in its row.
            let of_row = source.contains(&format!("\"{name}\""));
            let known = fields.contains_key(name) || of_row || name == "spurious_losses";
            assert!(known, "{name} is no counter: {row}");
            seen += 1;
        }
    }
    assert!(seen > 15, "{table}");
}

/// A panel that is drawn over itself, and gone at the end.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_has_a_live_view() {
    let home = Home::new();
    let bench = home.trunkline();
    let program = bench.get_program().to_str().unwrap().to_owned();
    let script = format!(
        "import os, pty, sys\n\
         sys.exit(os.waitstatus_to_exitcode(pty.spawn(['{program}', 'bench', '-t', '0.6', '-i', \
         '0.1', '--scenario', 'bulk'])))"
    );
    let mut command = Command::new("python3");
    let output = run(command.env("TERM", "xterm").args(["-c", &script]), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in ["window", "in flight", "re-sent", "shards", "RTT", "\u{2588}", "\u{1b}[2K"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // The table comes last, without a rest of the panel.
    let table = shown.rfind("scenario").unwrap();
    assert!(!shown[table..].contains("in flight"), "{shown}");
}

#[test]
fn the_highest_rate_that_is_kept() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "-J", "-t", "0.2", "--scenario", "latency", "--find-max"]);
    command.args(["-b", "1000/s", "--max-loss", "20", "--max-p99", "100000"]);
    let object = object(&run(&mut command, PATIENCE));
    let run = &object["runs"][0];
    let steps = run["search"].as_array().unwrap();
    let rates = |kept| {
        let steps = steps.iter().filter(move |step| step["kept"] == kept);
        steps.map(|step| step["rate_per_s"].as_f64().unwrap())
    };
    assert_eq!(steps[0]["rate_per_s"].as_f64(), Some(1000.0));
    let most = rates(true).fold(0.0, f64::max);
    let least = rates(false).fold(f64::INFINITY, f64::min);
    assert_eq!(run["rate_per_s"].as_f64(), Some(most));
    assert!(most < least && least / most <= 1.05, "{most} {least}");
    let output = common::run(
        home.trunkline().args(["bench", "--find-max", "--scenario", "loaded"]),
        PATIENCE,
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn connections_are_made_anew_and_resumed() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "-J", "-t", "0.4", "-P", "4"]);
    command.args(["--scenario", "handshakes", "--scenario", "resumptions"]);
    let object = object(&run(&mut command, PATIENCE));
    let [full, resumed] = object["runs"].as_array().unwrap().as_slice() else { panic!() };
    for run in [full, resumed] {
        assert!(run["messages"].as_u64().unwrap() > 50, "{run}");
        assert!(run["rtt_us"]["p50"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(full["resumed"], 0);
    let (resumed, all) =
        (resumed["resumed"].as_f64().unwrap(), resumed["messages"].as_f64().unwrap());
    assert!(resumed > 0.8 * all, "{resumed} of {all}");
    for more in [&["-b", "1000/s"][..], &["--find-max"]] {
        let mut command = home.trunkline();
        let output =
            common::run(command.args(["bench", "--scenario", "handshakes"]).args(more), PATIENCE);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("handshakes"), "{}", text(&output.stderr));
    }
}

#[test]
fn measurements_are_compared() {
    let home = Home::new();
    let report = |name: &str, values: [f64; 5]| {
        let run = serde_json::json!({
            "scenario": "bulk", "link": "datagram", "length": 65536, "connections": 1,
            "channels": 1, "per_round": { "goodput_gbps": values },
        });
        let object = serde_json::json!({ "schema": 1, "host": {}, "runs": [run] });
        let path = home.at(name);
        std::fs::write(&path, object.to_string()).unwrap();
        path
    };
    let (fast, slow) =
        (report("fast", [10.0, 10.1, 9.9, 10.0, 10.2]), report("slow", [8.0, 8.1, 7.9, 8.0, 8.2]));
    let compare = |files: [&std::path::Path; 2]| {
        run(home.trunkline().args(["bench", "compare", "--json"]).args(files), PATIENCE)
    };
    let output = compare([&fast, &slow]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["differences"][0]["verdict"], "worse");
    let output = compare([&slow, &fast]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let output = compare([&fast, &home.at("nowhere")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nowhere"), "{}", text(&output.stderr));
    std::fs::write(home.at("other"), "{}").unwrap();
    let output = compare([&fast, &home.at("other")]);
    assert!(text(&output.stderr).contains("schema"), "{}", text(&output.stderr));
}

#[test]
fn a_server_for_one_client() {
    let home = Home::new();
    let mut server = Server::start(&home, &["-1"]);
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let mut command = home.trunkline();
    command.args(["bench", "-c", "127.0.0.1", "-p", port, "-J", "-t", "0.2"]);
    command.args(["--scenario", "latency", "--scenario", "small"]);
    let object = object(&run(&mut command, PATIENCE));
    assert_eq!(object["runs"].as_array().unwrap().len(), 2);
    let status = common::wait(&mut server.child, PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn floors_and_ratios() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "--json", "-t", "0.1", "--floor", "--rounds", "2"]);
    let output = run(&mut command, PATIENCE);
    let object = object(&output);
    let runs = object["runs"].as_array().unwrap();
    let floors: [&[&str]; 4] = [
        &["floor_gbps", "floor_plain_gbps", "ratio", "ratio_plain"],
        &["floor_gbps", "floor_per_s", "ratio", "ratio_gbps"],
        &["floor_gbps", "floor_per_s", "ratio", "ratio_gbps"],
        &["floor_us", "floor_p99_us", "ratio", "ratio_p99"],
    ];
    for ((run, scenario), fields) in runs.iter().zip(SCENARIOS).zip(floors) {
        assert_eq!((&run["scenario"], &run["rounds"]), (&scenario.into(), &2.into()));
        assert_eq!(run["corrupt"], 0);
        for field in fields {
            assert!(run[field].as_f64().unwrap() > 0.0, "{field} of {run}");
            assert_eq!(run["per_round"][field].as_array().unwrap().len(), 2);
            assert_eq!(run["spread"][field].as_array().unwrap().len(), 2);
        }
        let (value, floor) = match scenario {
            "bulk" => ("goodput_gbps", "floor_gbps"),
            "latency" => ("p50_us", "floor_us"),
            _ => ("messages_per_s", "floor_per_s"),
        };
        let of = |field: &str| run["per_round"][field][0].as_f64().unwrap();
        assert!((of(value) / of(floor) / of("ratio") - 1.0).abs() < 1e-9, "{run}");
    }
    let err = text(&output.stderr);
    assert!(err.contains("UDP ping-pong, blocking") && err.contains("round 2 of 2"), "{err}");
}

#[test]
fn floors_need_both_ends_here() {
    let home = Home::new();
    for other in [&["-s"][..], &["-c", "127.0.0.1:1"]] {
        let output = run(home.trunkline().args(["bench", "--floor"]).args(other), PATIENCE);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("--floor"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_histogram_that_cannot_be_written_is_told_at_once() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "-t", "50", "--hgrm"]).arg(home.at("nowhere/rtt.hgrm"));
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("rtt-bulk.hgrm"), "{}", text(&output.stderr));
}

#[test]
fn lengths_connections_driver_and_packet_size() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["bench", "--json", "-t", "0.2", "--scenario", "bulk", "-l", "1000", "-P", "3"]);
    command.args(["--driver", "mio", "--mtu", "1300", "--channels", "5"]);
    let object = object(&run(&mut command, PATIENCE));
    let run = &object["runs"][0];
    check_run(run, "bulk");
    assert_eq!((&run["length"], &run["connections"]), (&1000.into(), &3.into()));
    assert_eq!(run["channels"], 5);
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
        Self::of(&mut command)
    }

    fn of(command: &mut Command) -> Self {
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
    for (run, scenario) in pinned["runs"].as_array().unwrap().iter().zip(SCENARIOS) {
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

/// The size of packets follows the path, and goodput follows the size.
#[test]
fn packets_as_large_as_the_path_carries() {
    let home = Home::new();
    let bulk = |command: &mut Command| {
        let object = object(&run(command, PATIENCE));
        let run = &object["runs"][0];
        check_run(run, "bulk");
        (run["packet_bytes"].as_u64().unwrap(), run["goodput_gbps"].as_f64().unwrap())
    };
    let args = ["--json", "-t", "0.5", "--scenario", "bulk", "--max-mtu", "65507"];
    assert_eq!(bulk(home.trunkline().arg("bench").args(args)).0, 65_507, "loopback");
    let over = |mtu| -> Result<(u64, f64), String> {
        let veth = Veth::new(mtu)?;
        let mut server = home.trunkline();
        server.args(["bench", "-s", "--max-mtu", "65507", "--listen"]);
        server.arg(format!("{}:0", veth::ADDRESSES[1]));
        let server = Server::of(&mut veth.at(1, &server));
        let mut client = home.trunkline();
        client.args(["bench", "-c", &server.address, "--pin", &server.fingerprint]).args(args);
        Ok(bulk(&mut veth.at(0, &client)))
    };
    let mut best = [0.0_f64; 2];
    // Other tests run beside this one, so a single comparison says little.
    for _ in 0..5 {
        for (best, (mtu, payload)) in best.iter_mut().zip([(1500, 1472), (9000, 8972)]) {
            match over(mtu) {
                Ok((packet, goodput)) => {
                    assert_eq!(packet, payload, "MTU {mtu}");
                    *best = best.max(goodput);
                }
                Err(why) => {
                    eprintln!("skipped: {why}");
                    return;
                }
            }
        }
        if best[1] > best[0] {
            return;
        }
    }
    panic!("goodput with 1500 and with 9000 bytes: {best:?} Gb/s");
}
