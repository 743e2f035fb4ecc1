//! The larger examples and those in other languages, built as a user would build them, and run: by
//! themselves, with each other, and with the tool.

mod common;

use common::{
    Folder, Link, Running, built, cc, compile, compile_with, field, root, run, serve, succeeded,
    tool,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn example(name: &str) -> PathBuf {
    compile(&format!("examples/{name}.c"), Link::Shared)
}

/// The whole number behind the first field of a name in a JSON object.
fn number(object: &str, name: &str) -> u64 {
    let start = object.find(&format!("\"{name}\":")).expect(name) + name.len() + 3;
    let digits = object[start..].split(|c: char| !c.is_ascii_digit()).next();
    digits.expect("digits").parse().expect("a number")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a program prints; `None` when it is not there or fails.
fn asked(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Something is not here that a test needs. The gate, which has installed it, does not take that.
fn missing(what: &str) {
    assert!(std::env::var_os("TRUNKLINE_EXAMPLES_REQUIRED").is_none(), "{what} is not here");
    eprintln!("skipped: {what} is not here");
}

#[test]
fn they_say_how_they_are_used() {
    for name in ["echo_callbacks", "forwarder", "game_server", "pair"] {
        let output = run(Command::new(example(name)).args(["help", "me", "please", "now"]));
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(said(&output).contains(&format!("usage: {name}")), "{name}: {}", said(&output));
    }
}

#[test]
fn callbacks_echo() {
    let exe = example("echo_callbacks");
    for (count, size) in [("2000", "64"), ("50", "65536"), ("1", "1")] {
        let output = succeeded(&run(Command::new(&exe).args([count, size])));
        assert!(output.starts_with(&format!("{count} round trips of {size} bytes")), "{output}");
    }
}

// ---- game server

#[test]
fn a_game_with_many_players() {
    let mut command = Command::new(example("game_server"));
    let report = succeeded(&run(command.args("--clients 100 --seconds 2 --json".split(' '))));
    assert_eq!(number(&report, "clients"), 100, "{report}");
    assert_eq!(number(&report, "ticks") + number(&report, "ticks_missed"), 120, "{report}");
    let (_, rest) = report.split_once("\"states\":").expect("states");
    let (states, lines) = rest.split_once("\"lines\":").expect("lines");
    assert!(number(&report, "received") > 0, "inputs arrive: {report}");
    assert!(number(states, "sent") >= number(states, "received"), "{report}");
    assert!(number(states, "received") > 0, "{report}");
    assert_eq!(number(lines, "sent"), number(lines, "heard"), "the chat is reliable: {report}");
}

#[test]
fn a_game_says_how_late_its_ticks_were() {
    let mut command = Command::new(example("game_server"));
    let output = succeeded(&run(command.args("--hz 100 --clients 3 --seconds 1".split(' '))));
    let mut lines = output.lines();
    assert!(lines.next().is_some_and(|l| l.starts_with("3 players, 100 Hz: ")), "{output}");
    let late = lines.find_map(|l| l.strip_prefix("lateness of a tick")).expect("a table");
    let us: Vec<f64> = late.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert_eq!(us.len(), 4, "{output}");
    assert!(us.is_sorted() && us[0] >= 0.0, "min, median, p99, max: {output}");
}

// ---- forwarder

/// Frames that were forwarded and those that were skipped, as the last line of the table says.
fn forwarded(output: &str) -> (u64, u64) {
    let line = output.lines().last().and_then(|l| l.strip_prefix("forwarded")).expect("a table");
    let words: Vec<&str> = line.split_whitespace().collect();
    (words[0].parse().expect("frames"), words[2].parse().expect("skipped"))
}

#[test]
fn a_forwarder_accounts_for_every_frame() {
    let exe = example("forwarder");
    for options in [
        "--subscribers 20 --slow 0 --seconds 1",
        "--subscribers 5 --slow 2 --seconds 3 --fps 120",
        "--subscribers 3 --slow 0 --seconds 1 --size 65536 --fps 30",
        "--subscribers 3 --slow 0 --seconds 1 --size 5000",
    ] {
        let output = succeeded(&run(Command::new(&exe).args(options.split(' '))));
        let (through, skipped) = forwarded(&output);
        assert!(through > 0, "{options}: {output}");
        // A machine that is busy publishes less than was asked for, which the slow ones may manage.
        if options.contains("--slow 2") && through + skipped > 5 * 200 {
            assert!(skipped > 0, "slow subscribers miss frames: {output}");
        }
    }
}

#[test]
fn a_forwarder_in_processes() {
    let exe = example("forwarder");
    let (mut host, address, fingerprint) = serve(Command::new(&exe).args(["host", "127.0.0.1:0"]));
    let role = |name: &str, options: &str| {
        let mut command = Command::new(&exe);
        command.args([name, &address, &fingerprint]).args(options.split(' '));
        Running::start(&mut command)
    };
    let subscribers = role("subscribe", "--subscribers 5");
    // Who comes later misses the beginning, and nobody says when all are there.
    std::thread::sleep(std::time::Duration::from_millis(500));
    succeeded(&role("publish", "--seconds 1").finish());
    let heard = succeeded(&subscribers.finish());
    let told = host.first_line();
    let count = |text: &str| text.split(' ').find_map(|w| w.parse::<u64>().ok()).expect("a number");
    assert!(count(&heard) > 0 && told.contains(&format!("forwarded {} times", count(&heard))));

    let left = role("subscribe", "--subscribers 1");
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(host);
    let output = left.finish();
    assert_eq!(output.status.code(), Some(1), "a host that is gone");
    assert!(said(&output).starts_with("subscriber: "), "{}", said(&output));
}

// ---- pair

/// Both programs until they have talked; what the controller says.
fn talk(exe: &Path, source: &[&str; 3]) -> String {
    let role = |role: &str, names: &[&str]| {
        let mut command = Command::new(exe);
        command.arg(role).args(source).args(names).arg("--loopback");
        Running::start(&mut command)
    };
    let bob = role("responder", &["bob"]);
    let alice = succeeded(&role("controller", &["alice", "bob"]).finish());
    let bob = succeeded(&bob.finish());
    for (told, partner) in [(&alice, "bob"), (&bob, "alice")] {
        assert!(told.contains(&format!("partner {partner} has the key ")), "{told}");
        assert!(told.contains("partner: hello 1\npartner: hello 2\npartner: hello 3\n"), "{told}");
        assert!(told.contains("path: "), "{told}");
    }
    alice
}

#[test]
fn a_pair_finds_each_other_over_an_event_source() {
    let (home, exe) = (Folder::new(), example("pair"));
    let key = format!("k1={}", home.path().join("k1.key").display());
    let trunkline = |arguments: &[&str]| {
        let mut command = Command::new(tool());
        command.env("TRUNKLINE_HOME", home.path()).args(arguments);
        command
    };
    succeeded(&run(&mut trunkline(&["token", "key", "--out", &key[3..]])));
    let mint = ["token", "mint", "--key", &key, "--app", "pair", "--client", "*"];
    let token = succeeded(&run(&mut trunkline(&mint)));
    let token = token.trim();
    let serve = ["event-source", "--key", &key, "--listen", "127.0.0.1:0", "--json"];
    let mut source = Running::start(&mut trunkline(&serve));
    let line = source.first_line();
    let place = [field(&line, "address"), field(&line, "fingerprint")];

    // A machine that is busy may decide for the relay before a direct path is proven.
    let mut talks = (0..3).map(|_| talk(&exe, &[place[0], place[1], token]));
    assert!(talks.any(|told| told.contains("path: direct, to ")), "no direct path");

    let forged = format!("{token}x");
    let output = run(Command::new(&exe).arg("responder").args(place).args([&forged, "bob"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("1103"), "{}", said(&output));
}

// ---- loops of the application

/// The C echo, which the others talk with.
fn echo() -> &'static Path {
    static EXE: OnceLock<PathBuf> = OnceLock::new();
    EXE.get_or_init(|| compile("examples/echo.c", Link::Shared))
}

/// A program with a loop: both ends in it, and each end with another program.
fn loops(exe: &Path) {
    let all = "50 said, 50 heard";
    assert!(succeeded(&run(&mut Command::new(exe))).starts_with(all));
    let (_host, address, fingerprint) = serve(Command::new(echo()).args(["host", "127.0.0.1:0"]));
    let output = succeeded(&run(Command::new(exe).args(["client", &address, &fingerprint])));
    assert!(output.starts_with(all), "{output}");
    let (_host, address, fingerprint) = serve(Command::new(exe).args(["host", "127.0.0.1:0"]));
    let output = run(Command::new(echo()).args(["client", &address, &fingerprint, "a", "b"]));
    assert_eq!(succeeded(&output), "a\nb\n");
    assert_eq!(run(Command::new(exe).arg("help")).status.code(), Some(2));
}

#[test]
fn an_epoll_loop() {
    if cfg!(target_os = "linux") {
        loops(&example("loop_epoll"));
    } else {
        eprintln!("skipped: epoll is Linux's");
    }
}

#[test]
fn a_libuv_loop() {
    let mut command = Command::new("pkg-config");
    let command = command.args(["--cflags", "--libs", "libuv"]);
    let Some(flags) = asked(command) else {
        missing("libuv or pkg-config (Debian: libuv1-dev)");
        return;
    };
    let flags: Vec<&str> = flags.split_whitespace().collect();
    loops(&compile_with(&cc(), &flags, "examples/loop_uv.c", Link::Shared));
}

// ---- other languages

/// An echo in another language: both ends in it, and each end with C.
fn echoes(program: &dyn Fn() -> Command) {
    let one = succeeded(&run(&mut program()));
    assert_eq!(one, "hello\nfrom\none process\n");
    let texts = ["two", "", "drei — vier"];
    let c = || Command::new(echo());
    for (mut host, mut client) in [(program(), c()), (c(), program())] {
        let (_host, address, fingerprint) = serve(host.args(["host", "127.0.0.1:0"]));
        let output = run(client.args(["client", &address, &fingerprint]).args(texts));
        assert_eq!(succeeded(&output), texts.join("\n") + "\n");
    }
    let (_host, address, _) = serve(c().args(["host", "127.0.0.1:0"]));
    let wrong = "00".repeat(32);
    let output = run(program().args(["client", &address, &wrong, "secret"]));
    assert_eq!(output.status.code(), Some(1), "a host that is not the pinned one");
    assert!(said(&output).contains("4003"), "{}", said(&output));
    assert_eq!(run(program().arg("help")).status.code(), Some(2));
}

/// The shared library.
fn library() -> PathBuf {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    built().join(format!("{DLL_PREFIX}trunkline{DLL_SUFFIX}"))
}

/// A Python 3 with cffi.
fn python() -> Option<&'static str> {
    let has_cffi = |python: &&str| {
        let output = Command::new(python).args(["-c", "import cffi"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has_cffi)
}

#[test]
fn an_echo_in_python() {
    let Some(python) = python() else {
        missing("Python 3 with cffi (Debian: python3-cffi)");
        return;
    };
    echoes(&|| {
        let mut command = Command::new(python);
        command.arg(root().join("examples/python/echo.py"));
        command.env("TRUNKLINE_LIBRARY", library()).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    });
}

#[test]
fn an_echo_in_go() {
    if asked(Command::new("go").arg("version")).is_none() {
        eprintln!("skipped: Go is not here");
        return;
    }
    let folder = Folder::new();
    let exe = folder.path().join("echo");
    let library = built().display().to_string();
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&exe).arg("echo.go");
    build.current_dir(root().join("examples/go"));
    build.env("CGO_ENABLED", "1");
    build.env("CGO_CFLAGS", format!("-I{}", root().join("include").display()));
    build.env("CGO_LDFLAGS", format!("-L{library} -Wl,-rpath,{library}"));
    succeeded(&run(&mut build));
    echoes(&|| Command::new(&exe));
}
