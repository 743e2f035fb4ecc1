//! Which receivers a sender believes.

mod common;

use common::{Home, PATIENCE, Recv, run, send_command, send_ok, text};
use std::fs;
use std::process::Command;

fn unpinned(home: &Home, recv: &Recv, extra: &[&str]) -> Command {
    let file = home.file("out/a", b"a");
    let mut command = home.trunkline();
    command.arg("send").arg(&recv.address).args(extra).arg(file);
    command
}

#[test]
fn an_unknown_receiver_is_refused_without_a_terminal() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let output = run(&mut unpinned(&home, &recv, &[]), PATIENCE);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let err = text(&output.stderr);
    assert!(err.contains("--pin") && err.contains("--trust-any"), "{err}");
    assert!(recv.names().is_empty());
    assert!(!home.at("home/known_peers").exists());
}

#[test]
fn trust_any_asks_nothing_and_remembers_nothing() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let output = run(&mut unpinned(&home, &recv, &["--trust-any"]), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(recv.names(), ["a"]);
    assert!(!home.at("home/known_peers").exists());
}

#[test]
fn a_wrong_pin_is_refused() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let output = run(&mut unpinned(&home, &recv, &["--pin", &"ab".repeat(32)]), PATIENCE);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(recv.names().is_empty());
}

#[test]
fn one_of_several_pins_is_enough() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let (wrong, right) = ("ab".repeat(32), recv.fingerprint.clone());
    let mut command = unpinned(&home, &recv, &["--pin", &wrong, "--pin", &right]);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_known_receiver_needs_no_question() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    home.file("home/known_peers", format!("{} {}\n", recv.address, recv.fingerprint).as_bytes());
    let output = run(&mut unpinned(&home, &recv, &[]), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(recv.names(), ["a"]);
}

#[test]
fn a_changed_key_is_refused() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let known = format!("{} {}\n", recv.address, "ab".repeat(32));
    let path = home.file("home/known_peers", known.as_bytes());
    let output = run(&mut unpinned(&home, &recv, &[]), PATIENCE);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let err = text(&output.stderr);
    assert!(err.contains("CHANGED") && err.contains(&recv.fingerprint), "{err}");
    assert!(recv.names().is_empty());
    assert_eq!(fs::read_to_string(path).unwrap(), known);
}

#[test]
fn a_broken_known_peers_file_is_not_skipped() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    home.file("home/known_peers", format!("{} abc\n", recv.address).as_bytes());
    let output = run(&mut unpinned(&home, &recv, &[]), PATIENCE);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("line 1"), "{}", text(&output.stderr));
}

#[test]
fn pins_do_not_touch_the_known_peers_file() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let file = home.file("out/b", b"b");
    send_ok(&home, &recv, std::slice::from_ref(&file));
    assert!(!home.at("home/known_peers").exists());
    // Nor are they overruled by it.
    home.file("home/known_peers", format!("{} {}\n", recv.address, "ab".repeat(32)).as_bytes());
    let file = home.file("out/c", b"c");
    assert_eq!(run(&mut send_command(&home, &recv, &[file]), PATIENCE).status.code(), Some(0));
}

/// On a terminal the question comes once, and only `yes` goes on.
#[cfg(target_os = "linux")]
#[test]
fn asked_once_on_a_terminal() {
    let home = Home::new();
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: script(1), which makes a terminal, is not installed");
        return;
    }
    let recv = Recv::start(&home, &["--rename"]);
    let file = home.file("out/a", b"a");
    let send =
        format!("{} send {} {}", env!("CARGO_BIN_EXE_trunkline"), recv.address, file.display());
    let on_terminal = |answer: &str| {
        let line = format!("printf '{answer}\\n' | script -qefc '{send}' /dev/null");
        let mut command = Command::new("sh");
        command.args(["-c", &line]).env("TRUNKLINE_HOME", home.at("home"));
        run(&mut command, PATIENCE)
    };
    let no = on_terminal("no");
    assert_eq!(no.status.code(), Some(3), "{}", text(&no.stdout));
    assert!(text(&no.stdout).contains(&recv.fingerprint), "{}", text(&no.stdout));
    assert!(recv.names().is_empty());
    let yes = on_terminal("yes");
    assert_eq!(yes.status.code(), Some(0), "{}", text(&yes.stdout));
    assert_eq!(recv.names(), ["a"]);
    let known = fs::read_to_string(home.at("home/known_peers")).unwrap();
    assert_eq!(known, format!("{} {}\n", recv.address, recv.fingerprint));
    // Known now: no question, also without a terminal.
    let output = run(&mut unpinned(&home, &recv, &[]), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
