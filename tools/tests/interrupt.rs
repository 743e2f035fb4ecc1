//! Either side stops in the middle of a file.
#![cfg(unix)]

mod common;

use common::{Home, PATIENCE, Recv, finish, names_in, noise, send_command, send_ok, signal, text};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Seconds after which the other side counts as lost.
const TIMEOUT: &str = "2";
/// What the other side may take to say so: the timeout, and room for a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(12);

/// A transfer that takes far longer than any test.
fn endless(home: &Home, recv: &mut Recv) -> Child {
    let file = home.sparse("endless", 1 << 40);
    let mut command = send_command(home, recv, &[file]);
    command.args(["--timeout", TIMEOUT]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    recv.event("started");
    recv.event("progress");
    child
}

fn assert_no_trace(recv: &Recv) {
    let deadline = Instant::now() + PATIENCE;
    while !recv.names().is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", recv.names());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn interrupted_sender() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--timeout", TIMEOUT]);
    let mut send = endless(&home, &mut recv);
    let begun = Instant::now();
    signal(send.id(), "INT");
    let output = finish(&mut send, PATIENCE);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(recv.exit(TOLD_WITHIN), 4, "{}", recv.errors());
    assert!(begun.elapsed() < TOLD_WITHIN);
    let closed = recv.event("closed");
    assert!(closed["reason"].as_str().unwrap().contains("interrupted"), "{closed}");
    assert_eq!(closed["clean"], false);
    assert_no_trace(&recv);
}

#[test]
fn interrupted_receiver() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--timeout", TIMEOUT]);
    let mut send = endless(&home, &mut recv);
    recv.signal("TERM");
    assert_eq!(recv.exit(PATIENCE), 130, "{}", recv.errors());
    let output = finish(&mut send, TOLD_WITHIN);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let err = text(&output.stderr);
    assert!(err.contains("the receiver was interrupted"), "{err}");
    assert!(err.contains("not sent endless"), "{err}");
    assert_no_trace(&recv);
}

#[test]
fn killed_sender() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--timeout", TIMEOUT]);
    let mut send = endless(&home, &mut recv);
    send.kill().unwrap();
    send.wait().unwrap();
    assert_eq!(recv.exit(TOLD_WITHIN), 4, "{}", recv.errors());
    let closed = recv.event("closed");
    assert!(closed["reason"].as_str().unwrap().contains("timeout"), "{closed}");
    assert_no_trace(&recv);
}

#[test]
fn killed_receiver() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--timeout", TIMEOUT]);
    let mut send = endless(&home, &mut recv);
    recv.kill();
    let output = finish(&mut send, TOLD_WITHIN);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("connection was lost"), "{}", text(&output.stderr));
    // What is left has no final name, and the next receiver removes it.
    let left = recv.names();
    assert!(left.iter().all(|name| name.starts_with(".trunkline-")), "{left:?}");
    assert_eq!(left.len(), 1);
    let next = Recv::start(&home, &[]);
    assert!(next.names().is_empty(), "{:?}", next.names());
}

#[test]
fn keep_carries_on() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--timeout", TIMEOUT, "--keep"]);
    let mut send = endless(&home, &mut recv);
    signal(send.id(), "INT");
    finish(&mut send, PATIENCE);
    recv.event("closed");
    assert_no_trace(&recv);
    let file = home.file("out/later", &noise(10_000, 1));
    send_ok(&home, &recv, &[file]);
    assert_eq!(recv.names(), ["later"]);
    // A file failed on the way: that is not a clean sheet.
    assert_eq!(recv.stop(), 1);
}

#[test]
fn finished_files_stay_when_a_later_one_is_cut_off() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &["--timeout", TIMEOUT]);
    let small = home.file("out/small", &noise(50_000, 2));
    let endless = home.sparse("endless", 1 << 40);
    let mut command = send_command(&home, &recv, &[small, endless]);
    let mut send = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    recv.event("finished");
    // Half a second into the other one.
    recv.event("progress");
    signal(send.id(), "INT");
    let output = finish(&mut send, PATIENCE);
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stdout).contains("sent small"), "{}", text(&output.stdout));
    assert_eq!(recv.exit(TOLD_WITHIN), 4);
    assert_eq!(recv.names(), ["small"]);
}

#[test]
fn an_idle_receiver_ends_with_success() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let dir = recv.dir.clone();
    assert_eq!(recv.stop(), 0);
    assert!(names_in(&dir).is_empty());
}

/// A file that becomes shorter while it is read is not stored.
#[test]
fn shrinking_source() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &[]);
    let path = home.sparse("shrinking", 1 << 40);
    let mut command = send_command(&home, &recv, std::slice::from_ref(&path));
    let mut send = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    recv.event("progress");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    let output = finish(&mut send, PATIENCE);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("shorter"), "{}", text(&output.stderr));
    assert_eq!(recv.event("failed")["code"], 8);
    assert_no_trace(&recv);
}
