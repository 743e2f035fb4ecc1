//! The examples are built as a user would build them, and run: with each other, and with the tool.

mod common;

use common::{Folder, Link, Running, compile, field, run, serve, succeeded, tool};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

fn echo() -> &'static Path {
    static EXE: OnceLock<std::path::PathBuf> = OnceLock::new();
    EXE.get_or_init(|| compile("examples/echo.c", Link::Shared))
}

fn transfer() -> &'static Path {
    static EXE: OnceLock<std::path::PathBuf> = OnceLock::new();
    EXE.get_or_init(|| compile("examples/transfer.c", Link::Shared))
}

const ECHOED: &str = "hello\nfrom\none process\n";

#[test]
fn echo_in_one_process() {
    assert_eq!(succeeded(&run(&mut Command::new(echo()))), ECHOED);
}

#[test]
fn echo_with_the_static_library() {
    let exe = compile("examples/echo.c", Link::Static);
    assert_eq!(succeeded(&run(&mut Command::new(exe))), ECHOED);
}

#[test]
fn echo_between_processes() {
    let (_host, address, fingerprint) = serve(Command::new(echo()).args(["host", "127.0.0.1:0"]));
    for texts in [&["one"][..], &["two", "", "drei — vier"]] {
        let output = run(Command::new(echo()).args(["client", &address, &fingerprint]).args(texts));
        assert_eq!(succeeded(&output), texts.join("\n") + "\n");
    }
    let wrong = "00".repeat(32);
    let output = run(Command::new(echo()).args(["client", &address, &wrong, "secret"]));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("4003"), "a host that is not the pinned one: {said}");
}

#[test]
fn echo_says_how_it_is_used() {
    assert_eq!(run(Command::new(echo()).arg("help")).status.code(), Some(2));
}

/// Bytes that are not all alike.
fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Files of all the sizes that make a difference; their paths.
fn files(folder: &Folder) -> Vec<std::path::PathBuf> {
    let sizes = [0, 1, 12, 65_535, 65_536, 65_537, 5_000_001];
    let mut paths = Vec::new();
    for (i, size) in sizes.into_iter().enumerate() {
        let path = folder.path().join(format!("file {i} – {size}.bin"));
        std::fs::write(&path, content(size, i as u64 + 7)).unwrap();
        paths.push(path);
    }
    for i in 0..60 {
        let path = folder.path().join(format!("small-{i}"));
        std::fs::write(&path, content(100 + i, i as u64)).unwrap();
        paths.push(path);
    }
    paths
}

fn assert_same(sent: &[std::path::PathBuf], inbox: &Path) {
    for path in sent {
        let name = path.file_name().unwrap();
        let (a, b) = (std::fs::read(path).unwrap(), std::fs::read(inbox.join(name)).unwrap());
        assert!(a == b, "{} differs", path.display());
    }
    let stored = std::fs::read_dir(inbox).unwrap().count();
    assert_eq!(stored, sent.len(), "nothing else is there");
}

/// The tool, with a folder of its own for keys.
fn tool_in(home: &Folder) -> Command {
    let mut command = Command::new(tool());
    command.env("TRUNKLINE_HOME", home.path());
    command
}

/// `trunkline recv`, with its address and fingerprint.
fn tool_receives(home: &Folder, inbox: &Folder) -> (Running, String, String) {
    let mut command = tool_in(home);
    command.args(["recv", "--json", "--once", "--listen", "127.0.0.1:0", "--dir"]);
    let mut running = Running::start(command.arg(inbox.path()));
    let line = loop {
        let line = running.first_line();
        if line.contains("\"listening\"") {
            break line;
        }
    };
    let (address, fingerprint) = (field(&line, "address"), field(&line, "fingerprint"));
    (running, address.to_owned(), fingerprint.to_owned())
}

#[test]
fn files_from_c_to_the_tool() {
    let (home, from, inbox) = (Folder::new(), Folder::new(), Folder::new());
    let sent = files(&from);
    let (receiver, address, fingerprint) = tool_receives(&home, &inbox);
    let output = run(Command::new(transfer()).args(["send", &address, &fingerprint]).args(&sent));
    succeeded(&output);
    succeeded(&receiver.finish());
    assert_same(&sent, inbox.path());
}

#[test]
fn files_from_the_tool_to_c() {
    let (home, from, inbox) = (Folder::new(), Folder::new(), Folder::new());
    let sent = files(&from);
    let (receiver, address, fingerprint) =
        serve(Command::new(transfer()).args(["recv", "127.0.0.1:0"]).arg(inbox.path()));
    let mut sender = tool_in(&home);
    sender.args(["send", &address, "--pin", &fingerprint]).args(&sent);
    succeeded(&run(&mut sender));
    succeeded(&receiver.finish());
    assert_same(&sent, inbox.path());
}

#[test]
fn files_from_c_to_c() {
    let (from, inbox) = (Folder::new(), Folder::new());
    let sent = files(&from);
    let (receiver, address, fingerprint) =
        serve(Command::new(transfer()).args(["recv", "[::1]:0"]).arg(inbox.path()));
    let output = run(Command::new(transfer()).args(["send", &address, &fingerprint]).args(&sent));
    succeeded(&output);
    succeeded(&receiver.finish());
    assert_same(&sent, inbox.path());
}

#[test]
fn a_name_that_is_taken_is_refused_and_left_alone() {
    let (home, from, inbox) = (Folder::new(), Folder::new(), Folder::new());
    for name in ["taken", "free"] {
        std::fs::write(from.path().join(name), name).unwrap();
    }
    std::fs::write(inbox.path().join("taken"), "mine").unwrap();
    let (receiver, address, fingerprint) =
        serve(Command::new(transfer()).args(["recv", "127.0.0.1:0"]).arg(inbox.path()));
    let mut sender = tool_in(&home);
    sender.args(["send", &address, "--pin", &fingerprint]);
    sender.arg(from.path().join("taken")).arg(from.path().join("free"));
    let output = run(&mut sender);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(receiver.finish().status.code(), Some(1));
    assert_eq!(std::fs::read(inbox.path().join("taken")).unwrap(), b"mine");
    assert_eq!(std::fs::read(inbox.path().join("free")).unwrap(), b"free");
}

#[test]
fn the_tool_refuses_what_it_has_and_c_says_so() {
    let (home, from, inbox) = (Folder::new(), Folder::new(), Folder::new());
    std::fs::write(from.path().join("taken"), content(3_000_000, 3)).unwrap();
    std::fs::write(inbox.path().join("taken"), "mine").unwrap();
    let (receiver, address, fingerprint) = tool_receives(&home, &inbox);
    let path = from.path().join("taken");
    let output = run(Command::new(transfer()).args(["send", &address, &fingerprint]).arg(path));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("taken: "), "{said}");
    assert_eq!(receiver.finish().status.code(), Some(1));
    assert_eq!(std::fs::read(inbox.path().join("taken")).unwrap(), b"mine");
}

#[test]
fn a_sender_that_is_killed_leaves_no_half_file() {
    let (from, inbox) = (Folder::new(), Folder::new());
    // Sparse: larger than what can be sent before the kill.
    let path = from.path().join("huge");
    std::fs::File::create(&path).unwrap().set_len(20 << 30).unwrap();
    let (receiver, address, fingerprint) =
        serve(Command::new(transfer()).args(["recv", "127.0.0.1:0"]).arg(inbox.path()));
    let sender =
        Running::start(Command::new(transfer()).args(["send", &address, &fingerprint]).arg(path));
    let arriving = || std::fs::read_dir(inbox.path()).unwrap().count() > 0;
    let start = std::time::Instant::now();
    while !arriving() && start.elapsed().as_secs() < 30 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(arriving(), "nothing arrives");
    drop(sender);
    let output = receiver.finish();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!arriving(), "the partial file is removed");
}
