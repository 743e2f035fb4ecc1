//! `trunkline discover` and `recv --announce`: two network namespaces joined by a veth pair find
//! each other through the built binary. Needs root and iproute2; skips, saying why, elsewhere.

mod common;

use common::veth::{ADDRESSES, Veth};
use common::{Home, PATIENCE, Recv, events, run, text};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The network, or `None` with a word on standard error.
fn network() -> Option<Veth> {
    match Veth::new(1500).and_then(|veth| veth.with_ipv6().map(|()| veth)) {
        Ok(veth) => Some(veth),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// `recv --announce` at one end.
fn receiver(veth: &Veth, end: usize, home: &Home, listen: &str, args: &[&str]) -> Recv {
    let mut command = home.trunkline();
    command.arg("recv").arg("--dir").arg(home.at("inbox")).args(["--json", "--listen", listen]);
    command.args(args);
    Recv::spawn(&mut veth.at(end, &command), home.at("inbox"))
        .unwrap_or_else(|why| panic!("recv did not start: {why}"))
}

fn discover(veth: &Veth, end: usize, home: &Home, args: &[&str]) -> Output {
    let mut command = home.trunkline();
    command.arg("discover").args(args);
    run(&mut veth.at(end, &command), PATIENCE)
}

/// Looks until something is found: an address may need a moment to become usable.
fn find(veth: &Veth, end: usize, home: &Home, args: &[&str]) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let args = [&["--json", "--timeout", "1"], args].concat();
        let output = discover(veth, end, home, &args);
        let mut devices = events(&output);
        let summary = devices.pop().unwrap_or_else(|| panic!("{}", text(&output.stderr)));
        assert_eq!(summary["event"], "summary");
        assert_eq!(summary["exit"], output.status.code().unwrap());
        devices.retain(|event| event["event"] == "device");
        assert_eq!(summary["devices"], devices.len());
        if let Some(device) = devices.pop() {
            assert!(devices.is_empty(), "{devices:?}");
            assert_eq!(output.status.code(), Some(0));
            return device;
        }
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(Instant::now() < deadline, "{args:?}: nothing; {}", text(&output.stderr));
    }
}

fn addresses(device: &Value) -> Vec<String> {
    let all = device["addresses"].as_array().unwrap();
    all.iter().map(|a| a["address"].as_str().unwrap().to_owned()).collect()
}

/// Each end finds the other over IPv4 multicast, IPv6 multicast and unicast.
#[test]
fn two_namespaces_find_each_other() {
    let Some(veth) = network() else { return };
    for end in [0, 1] {
        let other = 1 - end;
        let (home, finder) = (Home::new(), Home::new());
        let name = ["--announce=Küche", "--announce-type", "laptop"];
        // IPv4: over the group, and asked at its address.
        let recv = receiver(&veth, other, &home, "0.0.0.0:7470", &name);
        assert_eq!(recv.listening["announced"], "Küche");
        let unicast = ["--unicast", ADDRESSES[other]];
        for args in [&["-4"][..], &unicast, &[]] {
            let device = find(&veth, end, &finder, args);
            assert_eq!(addresses(&device), [format!("{}:7470", ADDRESSES[other])], "{args:?}");
            assert_eq!(device["fingerprint"], recv.fingerprint.as_str());
            assert_eq!(device["name"], "Küche");
            assert_eq!(device["service"], "trunkline.files");
            assert_eq!((&device["type"], &device["mode"]), (&"laptop".into(), &"open".into()));
            assert_eq!(device["links"], serde_json::json!(["udp", "tls"]));
            assert!(device["addresses"][0]["rtt_ms"].as_f64().unwrap() < 1000.0);
        }
        // An IPv4 listener is not announced over IPv6.
        let none = discover(&veth, end, &finder, &["-6", "--timeout", "0.5"]);
        assert_eq!(none.status.code(), Some(1), "{}", text(&none.stdout));
        assert_eq!(recv.stop(), 0);
        // IPv6: over the group from link-local addresses, and asked at its address.
        let recv = receiver(&veth, other, &home, "[::]:7470", &name);
        // (While the system still checks that nobody else has its link-local address, the host
        // answers from the other one.)
        let deadline = Instant::now() + PATIENCE;
        let (device, found) = loop {
            let device = find(&veth, end, &finder, &["-6"]);
            let found = addresses(&device);
            if found[0].starts_with("[fe80::") {
                break (device, found);
            }
            assert!(Instant::now() < deadline, "{found:?}");
        };
        assert!(found[0].ends_with("]:7470") && found[0].contains('%'), "{found:?}");
        assert_eq!(device["fingerprint"], recv.fingerprint.as_str());
        let target = common::veth::ADDRESSES_V6[other];
        let device = find(&veth, end, &finder, &["--unicast", target]);
        assert_eq!(addresses(&device), [format!("[{target}]:7470")]);
        assert_eq!(recv.stop(), 0);
    }
}

#[test]
fn the_table_and_the_choices() {
    let Some(veth) = network() else { return };
    let (home, finder) = (Home::new(), Home::new());
    let id = home.file("id", b"a secret between us\n");
    let id = format!("@{}", id.display());
    let args = ["--announce=Study", "--announce-id", &id, "--announce-hidden"];
    let recv = receiver(&veth, 1, &home, "0.0.0.0:7470", &args);
    // Those who know the id find it, others do not.
    let device = find(&veth, 0, &finder, &["--id", "a secret between us"]);
    assert_eq!(device["id_proven"], true);
    for args in [&["--id", "another"][..], &[]] {
        let none = discover(&veth, 0, &finder, &[&["-t", "0.5"], args].concat());
        assert_eq!(none.status.code(), Some(1));
        assert!(text(&none.stderr).contains("nothing was found"), "{}", text(&none.stderr));
    }
    let shown = discover(&veth, 0, &finder, &["-t", "1", "--id", "a secret between us"]);
    let shown = text(&shown.stdout);
    let lines: Vec<Vec<&str>> = shown.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        ["name", "type", "mode", "address", "port", "age", "RTT", "service", "fingerprint"]
    );
    assert_eq!(lines[1][..5], ["Study", "unspecified", "open", ADDRESSES[1], "7470"]);
    assert_eq!(lines[1].last(), Some(&recv.fingerprint.as_str()));
    // Another service is not meant.
    let args = ["-t", "0.5", "--service", "chess", "--id", "a secret between us"];
    assert_eq!(discover(&veth, 0, &finder, &args).status.code(), Some(1));
    // Nor does an interface that is not there help.
    let none = discover(&veth, 0, &finder, &["--interface", "nosuch0"]);
    assert_eq!(none.status.code(), Some(4));
    assert!(text(&none.stderr).contains("no network interface"), "{}", text(&none.stderr));
    assert_eq!(recv.stop(), 0);
}

/// `send discover:NAME`, with the address, the port and the family found out.
#[test]
fn files_go_to_a_name() {
    let Some(veth) = network() else { return };
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let (home, sender) = (Home::new(), Home::new());
        let recv = receiver(&veth, 1, &home, listen, &["--announce=Living Room"]);
        let file = sender.file("note.txt", b"hello");
        let send = |to: &str, pin: &str| {
            let mut command = sender.trunkline();
            command.args(["send", to, "--pin", pin]).arg(&file);
            run(&mut veth.at(0, &command), PATIENCE)
        };
        let deadline = Instant::now() + PATIENCE;
        let output = loop {
            let output = send("discover:living room", &recv.fingerprint);
            if output.status.code() == Some(0) || Instant::now() > deadline {
                break output;
            }
        };
        assert_eq!(output.status.code(), Some(0), "{listen}: {}", text(&output.stderr));
        assert_eq!(std::fs::read(recv.dir.join("note.txt")).unwrap(), b"hello");
        assert_eq!(recv.stop(), 0);
    }
}

#[test]
fn nobody_of_that_name() {
    let home = Home::new();
    let file = home.file("x", b"x");
    let mut command = home.trunkline();
    command.args(["send", "discover:nobody has this name", "--trust-any"]).arg(file);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no receiver of that name"), "{}", text(&output.stderr));
}

/// Comes, goes, and comes back: told as it happens.
#[test]
fn watching() {
    let Some(veth) = network() else { return };
    let (home, finder) = (Home::new(), Home::new());
    let mut command = finder.trunkline();
    command.args(["discover", "--watch", "--json"]);
    let mut watch = Recv::watch(&mut veth.at(0, &command));
    for _ in 0..2 {
        let recv = receiver(&veth, 1, &home, "0.0.0.0:7470", &["--announce=Study"]);
        let found = watch.event("found");
        assert_eq!(found["fingerprint"], recv.fingerprint.as_str());
        assert_eq!(recv.stop(), 0);
        // It said goodbye: that is much faster than the heartbeat.
        let lost = watch.try_event("lost", Duration::from_secs(10)).expect("a farewell");
        assert_eq!(lost["name"], "Study");
    }
    watch.signal("INT");
    assert_eq!(watch.exit(PATIENCE), 0);
}

/// An interface that comes up while both are running is used.
#[test]
fn interfaces_that_come_and_go() {
    let Some(veth) = network() else { return };
    veth.ip(0, "link set eth down").unwrap();
    let (home, finder) = (Home::new(), Home::new());
    let recv = receiver(&veth, 1, &home, "0.0.0.0:7470", &["--announce=Study"]);
    veth.ip(0, "link set lo up").unwrap();
    let mut command = finder.trunkline();
    command.args(["discover", "--watch", "--json", "-4"]);
    let mut watch = Recv::watch(&mut veth.at(0, &command));
    assert_eq!(watch.try_event("found", Duration::from_millis(500)), None);
    veth.ip(0, "link set eth up").unwrap();
    assert_eq!(watch.event("found")["name"], "Study");
    watch.signal("INT");
    assert_eq!(watch.exit(PATIENCE), 0);
    assert_eq!(recv.stop(), 0);
}

#[test]
fn a_listener_for_this_machine_says_so() {
    let home = Home::new();
    let recv = Recv::start(&home, &["--announce=here"]);
    let deadline = Instant::now() + PATIENCE;
    while !recv.errors().contains("to this machine only") {
        assert!(Instant::now() < deadline, "{}", recv.errors());
        std::thread::sleep(Duration::from_millis(10));
    }
    // And it is found on this machine.
    let mut command = home.trunkline();
    command.args(["discover", "--json", "-t", "1", "--service", "trunkline.files"]);
    let output = run(&mut command, PATIENCE);
    let found = events(&output);
    let mine = found.iter().find(|e| e["fingerprint"] == recv.fingerprint.as_str());
    let mine = mine.unwrap_or_else(|| panic!("{found:?} {}", text(&output.stderr)));
    assert!(addresses(mine).contains(&recv.address), "{mine}");
    assert_eq!(recv.stop(), 0);
}

#[test]
fn usage_errors() {
    let home = Home::new();
    let code = |args: &[&str]| {
        let mut command: Command = home.trunkline();
        run(command.args(args), PATIENCE).status.code()
    };
    assert_eq!(code(&["discover", "--service", "a b"]), Some(2));
    assert_eq!(code(&["discover", "--unicast", ":1"]), Some(2));
    assert_eq!(code(&["discover", "--unicast", "127.0.0.1", "-6"]), Some(2));
    assert_eq!(code(&["discover", "--id", ""]), Some(2));
    let dir = home.at("inbox").display().to_string();
    let name = format!("--announce={}", "x".repeat(64));
    assert_eq!(code(&["recv", "--dir", &dir, "--listen", "127.0.0.1:0", &name]), Some(2));
}
