//! Files from one process to another.

mod common;

use common::{Home, PATIENCE, Recv, events, finish, noise, run, send_command, send_ok, text};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

fn assert_same(recv: &Recv, files: &[PathBuf]) {
    for file in files {
        let name = file.file_name().unwrap();
        let (sent, got) = (fs::read(file).unwrap(), fs::read(recv.dir.join(name)).unwrap());
        assert!(sent == got, "{} differs", file.display());
    }
}

#[test]
fn sizes_around_every_boundary() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &[]);
    let files: Vec<PathBuf> = [0, 1, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 5_000_000]
        .into_iter()
        .map(|len| home.file(&format!("out/file-{len}"), &noise(len, len as u64 + 1)))
        .collect();
    let output = send_ok(&home, &recv, &files);
    for _ in &files {
        recv.event("finished");
    }
    assert_same(&recv, &files);
    assert_eq!(recv.names().len(), files.len(), "{:?}", recv.names());
    assert!(text(&output.stdout).lines().all(|line| line.starts_with("sent ")));
    assert_eq!(recv.stop(), 0);
}

#[test]
fn one_receiver_serves_one_sender_after_another() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    for n in 0..3 {
        let file = home.file(&format!("out/{n}"), &noise(1000, n));
        send_ok(&home, &recv, &[file]);
    }
    assert_eq!(recv.names(), ["0", "1", "2"]);
    assert_eq!(recv.stop(), 0);
}

#[test]
fn five_hundred_small_files_at_once() {
    let home = Home::new();
    let recv = Recv::start(&home, &["--once"]);
    let files: Vec<PathBuf> =
        (0..500).map(|n| home.file(&format!("out/n{n}"), &noise(n * 7, n as u64))).collect();
    send_ok(&home, &recv, &files);
    assert_same(&recv, &files);
    assert_eq!(recv.names().len(), 500);
    let mut recv = recv;
    assert_eq!(recv.exit(PATIENCE), 0);
    let summary = recv.event("summary");
    assert_eq!((&summary["files"], &summary["failed"]), (&500.into(), &0.into()));
}

/// 3 GiB without taking that much space on either side. `TRUNKLINE_TEST_SPARSE_MIB` changes the
/// size for slow machines.
#[cfg(unix)]
#[test]
fn a_large_sparse_file() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let mib = std::env::var("TRUNKLINE_TEST_SPARSE_MIB").ok().and_then(|v| v.parse().ok());
    let len = mib.unwrap_or(3 * 1024) << 20;
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--once"]);
    let path = home.sparse("sparse.img", len);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let marks = [0, len / 3, len - 7];
    for at in marks {
        file.write_all_at(b"marker!", at).unwrap();
    }
    let output = run(&mut send_command(&home, &recv, &[path]), Duration::from_secs(300));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(recv.exit(PATIENCE), 0);
    let got = fs::File::open(recv.dir.join("sparse.img")).unwrap();
    let meta = got.metadata().unwrap();
    assert_eq!(meta.len(), len);
    assert!(meta.blocks() * 512 < 8 << 20, "{} bytes on disk", meta.blocks() * 512);
    for at in marks {
        let mut found = [0; 7];
        got.read_exact_at(&mut found, at).unwrap();
        assert_eq!(&found, b"marker!");
    }
}

#[test]
fn several_senders_at_once() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let mut children = Vec::new();
    for n in 0..4 {
        let file = home.file(&format!("out/s{n}"), &noise(3_000_000 + n, n as u64));
        let mut command = send_command(&home, &recv, std::slice::from_ref(&file));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        children.push((command.spawn().unwrap(), file));
    }
    for (mut child, file) in children {
        let output = finish(&mut child, PATIENCE);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_same(&recv, &[file]);
    }
    assert_eq!(recv.stop(), 0);
}

#[test]
fn json_for_programs() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--once"]);
    let files = [home.file("out/a", b"alpha"), home.file("out/b", &noise(100_000, 1))];
    let output = run(send_command(&home, &recv, &files).arg("--json"), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let events = events(&output);
    let of = |kind: &str| events.iter().filter(|e| e["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("started").len(), 2);
    let finished = of("finished");
    let a = finished.iter().find(|e| e["file"] == "a").unwrap();
    // SHA-256 of "alpha".
    let sha = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
    assert_eq!((&a["sha256"], &a["bytes"]), (&sha.into(), &5.into()));
    assert_eq!(of("connected")[0]["fingerprint"], recv.fingerprint.as_str());
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["exit"]), (&"summary".into(), &0.into()));
    assert_eq!(recv.exit(PATIENCE), 0);
    let stored = recv.event("finished");
    assert!(stored["path"].as_str().unwrap().starts_with(&recv.dir.display().to_string()));
}

#[test]
fn ipv6() {
    let home = Home::new();
    let Ok(recv) = Recv::try_start(&home, &["--listen", "[::1]:0"]) else {
        eprintln!("skipped: no IPv6 here");
        return;
    };
    assert!(recv.address.starts_with("[::1]:"));
    let file = home.file("out/six", &noise(300_000, 6));
    send_ok(&home, &recv, std::slice::from_ref(&file));
    assert_same(&recv, &[file]);
}

/// All addresses of a name are tried: whichever family the receiver listens on.
#[test]
fn names_are_resolved_and_raced() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let port = recv.address.rsplit(':').next().unwrap();
    let file = home.file("out/named", &noise(1000, 1));
    let mut command = home.trunkline();
    command.args(["send", &format!("localhost:{port}"), "--pin", &recv.fingerprint]).arg(&file);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_same(&recv, &[file]);
}

/// A receiver with this driver, or `None` where the machine has no io_uring.
fn recv_with(home: &Home, driver: &str, listen: &str) -> Option<Recv> {
    match Recv::try_start(home, &["--driver", driver, "--listen", listen]) {
        Ok(recv) => Some(recv),
        Err(why) if driver == "uring" && why.contains("uring driver is not available") => {
            eprintln!("skipped: {why}");
            None
        }
        Err(why) => panic!("{driver} at {listen}: {why}"),
    }
}

#[test]
fn drivers_crossed() {
    let ipv6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
    let families = if ipv6 { &["127.0.0.1:0", "[::1]:0"][..] } else { &["127.0.0.1:0"] };
    for listen in families {
        for (ours, theirs) in
            [("mio", "mio"), ("uring", "mio"), ("mio", "uring"), ("uring", "uring")]
        {
            let home = Home::new();
            // Whether our own side has it shows in the same way.
            if recv_with(&home, ours, "127.0.0.1:0").is_none() {
                continue;
            }
            let Some(recv) = recv_with(&home, theirs, listen) else { continue };
            let file = home.file(&format!("out/{ours}-{theirs}"), &noise(2_000_000, 3));
            let mut command = send_command(&home, &recv, std::slice::from_ref(&file));
            let output = run(command.args(["--driver", ours]), PATIENCE);
            let err = text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{ours} to {theirs} at {listen}: {err}");
            assert_same(&recv, &[file]);
        }
    }
}

/// A forced driver that is not there is an error that says so, never something else in silence.
#[test]
fn the_driver_in_use_is_told() {
    let home = Home::new();
    for driver in ["mio", "uring"] {
        let Some(mut recv) = recv_with(&home, driver, "127.0.0.1:0") else { continue };
        assert_eq!(recv.listening["driver"], driver);
        recv.kill();
    }
}

#[test]
fn permissions_travel() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let home = Home::new();
        let recv = Recv::start(&home, &[]);
        let file = home.file("out/tool", b"#!/bin/sh\n");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
        send_ok(&home, &recv, &[file]);
        let mode = fs::metadata(recv.dir.join("tool")).unwrap().permissions().mode();
        // Never set-user-id; the umask may take bits of group and others away.
        assert_eq!(mode & 0o7700, 0o700);
    }
}

#[test]
fn nobody_there_is_told_in_time() {
    let home = Home::new();
    // Bound and never answered.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = home.file("out/a", b"x");
    let mut command = home.trunkline();
    let address = silent.local_addr().unwrap().to_string();
    command.args(["send", &address, "--trust-any", "--timeout", "1"]).arg(file);
    let begun = std::time::Instant::now();
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no connection"), "{}", text(&output.stderr));
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn local_problems_are_told_before_connecting() {
    let home = Home::new();
    let missing = home.at("missing");
    let mut command = home.trunkline();
    command.args(["send", "127.0.0.1:9", "--trust-any"]).arg(&missing);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("missing"));
    let mut command = home.trunkline();
    command.args(["send", "127.0.0.1:0", "--trust-any"]).arg(home.file("a", b""));
    assert_eq!(run(&mut command, PATIENCE).status.code(), Some(2));
}

#[test]
fn both_sides_write_a_capture_when_they_are_asked_to() {
    let home = Home::new();
    let (ours, theirs) = (home.at("send.pcapng"), home.at("recv.pcapng"));
    let pcap = |path: &PathBuf| path.display().to_string();
    let recv = Recv::start(&home, &["--pcap", &pcap(&theirs), "--link", "udp"]);
    let content = noise(500, 12);
    let file = home.file("out/seen", &content);
    let mut command = send_command(&home, &recv, &[file]);
    command.args(["--link", "udp", "--pcap", &pcap(&ours), "--pcap-max", "1M"]);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(recv.stop(), 0);
    for path in [ours, theirs] {
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[..4], [0x0A, 0x0D, 0x0D, 0x0A], "pcapng begins so");
        assert!(bytes.windows(content.len()).any(|w| w == content), "{}", path.display());
    }
    // Without a file there is nothing to limit.
    let recv = Recv::start(&home, &[]);
    let mut command = send_command(&home, &recv, &[home.at("out/seen")]);
    assert_eq!(run(command.args(["--pcap-max", "1M"]), PATIENCE).status.code(), Some(2));
}
