//! `keygen`, help and usage errors of the built binary.

mod common;

use common::{Home, PATIENCE, run, text};
use std::fs;

#[test]
fn keygen_writes_a_private_file_and_prints_the_fingerprint() {
    let home = Home::new();
    let output = run(home.trunkline().arg("keygen"), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let path = home.at("home/identity.pem");
    let pem = fs::read_to_string(&path).unwrap();
    assert!(pem.contains("BEGIN PRIVATE KEY") && pem.contains("BEGIN CERTIFICATE"));
    let out = text(&output.stdout);
    let fingerprint = out.lines().find_map(|l| l.strip_prefix("fingerprint ")).unwrap();
    assert_eq!(fingerprint.len(), 64);
    assert!(fingerprint.chars().all(|c| c.is_ascii_hexdigit()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn keygen_never_replaces_a_key() {
    let home = Home::new();
    let path = home.file("mine.pem", b"precious");
    let output = run(home.trunkline().args(["keygen", "--out"]).arg(&path), PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not replaced"), "{}", text(&output.stderr));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn keygen_json_and_certificate() {
    let home = Home::new();
    let (key, cert) = (home.at("k.pem"), home.at("c.pem"));
    let mut command = home.trunkline();
    command.args(["keygen", "--json", "--name", "example.org", "--name", "::1", "--out"]);
    let output = run(command.arg(&key).arg("--cert").arg(&cert), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["file"], key.display().to_string());
    assert_eq!(object["fingerprint"].as_str().unwrap().len(), 64);
    let cert = fs::read_to_string(cert).unwrap();
    assert!(cert.contains("BEGIN CERTIFICATE") && !cert.contains("PRIVATE"));
    assert!(fs::read_to_string(key).unwrap().ends_with(&cert));
}

#[test]
fn a_key_made_on_first_use_is_kept() {
    let home = Home::new();
    let first = common::Recv::start(&home, &[]).fingerprint.clone();
    let second = common::Recv::start(&home, &[]).fingerprint.clone();
    assert_eq!(first, second);
}

#[test]
fn every_subcommand_has_help() {
    let home = Home::new();
    for sub in ["send", "recv", "bench", "keygen", "event-source", "token"] {
        let output = run(home.trunkline().args([sub, "--help"]), PATIENCE);
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        assert!(help.contains("Usage:") && help.contains("Examples:"), "{help}");
    }
    let output = run(home.trunkline().arg("--help"), PATIENCE);
    assert!(text(&output.stdout).contains("Exit codes:"));
    assert_eq!(run(&mut home.trunkline(), PATIENCE).status.code(), Some(2));
}

#[test]
fn unusable_keys_are_errors() {
    let home = Home::new();
    let bad = home.file("bad.pem", b"this is no key");
    let file = home.file("a", b"x");
    let mut command = home.trunkline();
    command.args(["send", "127.0.0.1:9", "--trust-any", "--identity"]).arg(&bad).arg(&file);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("bad.pem"), "{}", text(&output.stderr));
}
