//! `trunkline chat`: two people and an event source, all of them the built binary; once at
//! terminals, as people have them, and otherwise through pipes.
#![cfg(unix)]

mod common;

use common::source::Source;
use common::{Home, PATIENCE, run, signal, text, wait};
use nix::pty::openpty;
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

fn here(command: &Command) -> Command {
    let mut same = Command::new(command.get_program());
    same.args(command.get_args()).stdin(Stdio::null());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => same.env(key, value),
            None => same.env_remove(key),
        };
    }
    same
}

/// A chat with a way to type and everything that it has shown.
struct Person {
    child: Child,
    keyboard: Keyboard,
    screen: Arc<Mutex<String>>,
}

enum Keyboard {
    Terminal(File),
    Pipe(ChildStdin),
}

impl Person {
    fn at_terminal(home: &Home, args: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let mut command = home.trunkline();
        command.arg("chat").args(args);
        command.stdin(Stdio::from(pty.slave.try_clone().unwrap()));
        command.stdout(Stdio::from(pty.slave.try_clone().unwrap()));
        command.stderr(Stdio::from(pty.slave));
        let child = command.spawn().unwrap();
        // What keeps the slave open in this process ends here, so that the reader sees the end.
        drop(command);
        let master = File::from(pty.master);
        let keyboard = Keyboard::Terminal(master.try_clone().unwrap());
        Self { child, keyboard, screen: watch(master) }
    }

    /// With `--json`.
    fn at_pipe(home: &Home, args: &[&str]) -> Self {
        let mut command = home.trunkline();
        command.args(["chat", "--json"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let screen = watch(child.stdout.take().unwrap());
        let keyboard = Keyboard::Pipe(child.stdin.take().unwrap());
        Self { child, keyboard, screen }
    }

    fn types(&mut self, line: &str) {
        let line = format!("{line}\n");
        match &mut self.keyboard {
            Keyboard::Terminal(to) => to.write_all(line.as_bytes()).unwrap(),
            Keyboard::Pipe(to) => to.write_all(line.as_bytes()).unwrap(),
        }
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    fn sees(&self, what: &str) {
        self.waits(what, |screen| screen.contains(what));
    }

    fn waits(&self, what: &str, f: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !f(&self.screen()) {
            assert!(start.elapsed() < PATIENCE, "no `{what}`; on the screen:\n{}", self.screen());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The events of `--json` of one kind.
    fn events(&self, kind: &str) -> Vec<Value> {
        let all = self.screen();
        let whole = all.rfind('\n').map_or("", |end| &all[..end]);
        let events = whole.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        events.filter(|event| event["event"] == kind).collect()
    }

    fn waits_for_event(&self, kind: &str, field: &str, value: impl Into<Value>) {
        let value = value.into();
        self.waits(&format!("{kind} {field} {value}"), |_| {
            self.events(kind).iter().any(|event| event[field] == value)
        });
    }

    fn exit(&mut self) -> i32 {
        let status = wait(&mut self.child, PATIENCE);
        status.unwrap_or_else(|| panic!("no end; {}", self.screen())).code().unwrap_or(-1)
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn watch(mut from: impl std::io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let screen = Arc::new(Mutex::new(String::new()));
    let shown = screen.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    });
    screen
}

/// Two people at two terminals type the same code, talk, and one of them leaves.
#[test]
fn two_people_at_two_terminals() {
    let home = Home::new();
    let source = Source::start(&home, "127.0.0.1:0", here);
    let code = source.code(&home);
    let mut one = Person::at_terminal(&home, &["--pair", &code]);
    one.sees("* connecting to the event source");
    one.sees("* searching for the other one");
    one.types("are you there?");
    let mut two = Person::at_terminal(&home, &["--pair", &code]);
    one.sees("* the other one is there");
    two.sees("* the other one is there");
    two.sees("> are you there?");
    two.types("yes. Grüße!");
    one.sees("> yes. Grüße!");
    // What would move the cursor or ring the bell is shown, not done.
    two.types("\u{16}\u{1b}[2J");
    one.waits("escape", |screen| screen.contains("> \\u{1b}[2J"));
    two.types("/quit");
    two.sees("* ended");
    assert_eq!(two.exit(), 0);
    // The other one is searched for again, and found.
    one.waits("search", |screen| screen.matches("* searching for the other one").count() >= 2);
    one.types("come back");
    let again = Person::at_terminal(&home, &["--pair", &code]);
    again.sees("> come back");
    assert!(!again.screen().contains("> are you there?"), "said once");
    // Ctrl-D: the end of input.
    one.types("\u{4}");
    assert_eq!(one.exit(), 0);
}

/// Lines arrive once and in order, also those that are said while the event source is away.
#[test]
fn lines_survive_a_restart_of_the_event_source() {
    let home = Home::new();
    let mut source = Source::start(&home, "127.0.0.1:0", here);
    let code = source.code(&home);
    let mut one = Person::at_pipe(&home, &["--pair", &code]);
    let mut two = Person::at_pipe(&home, &["--pair", &code]);
    one.waits_for_event("state", "state", "interacting");
    for n in 0..100 {
        one.types(&format!("line {n}"));
    }
    two.waits_for_event("line", "text", "line 50");
    source.restart(&home, here);
    for n in 100..120 {
        one.types(&format!("line {n}"));
    }
    two.waits_for_event("line", "text", "line 119");
    let lines = two.events("line");
    let texts: Vec<&str> = lines.iter().map(|l| l["text"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..120).map(|n| format!("line {n}")).collect();
    assert_eq!(texts, expected);
    one.waits_for_event("delivered", "number", 120);
    assert_eq!(one.events("said").len(), 120);
    signal(two.child.id(), "TERM");
    assert_eq!(two.exit(), 0);
    assert_eq!(two.events("ended")[0]["exit"], 0);
    one.types("/quit");
    assert_eq!(one.exit(), 0);
}

/// Who creates the code waits for the one who gets it.
#[test]
fn the_one_who_creates_the_code_waits() {
    let home = Home::new();
    let source = Source::start(&home, "127.0.0.1:0", here);
    let key = format!("k1={}", home.at("k1.key").display());
    let args = ["--create", "--source", &source.address, "--pin", &source.fingerprint];
    let one = Person::at_pipe(&home, &[&args[..], &["--key", &key]].concat());
    one.waits("code", |_| one.events("code").len() == 1);
    let code = one.events("code")[0]["code"].as_str().unwrap().to_owned();
    let mut two = Person::at_pipe(&home, &["--pair", &code]);
    two.types("hello");
    one.waits_for_event("line", "text", "hello");
    // A third one with the code: somebody has to go, and is told why.
    let _three = Person::at_pipe(&home, &["--pair", &code]);
    let start = Instant::now();
    let mut people = [one, two];
    loop {
        assert!(start.elapsed() < PATIENCE);
        let ended = people.iter_mut().find(|p| p.child.try_wait().unwrap().is_some());
        if let Some(person) = ended {
            assert_eq!(person.exit(), 3, "{}", person.screen());
            let ended = &person.events("ended")[0];
            assert_eq!(ended["reason"], "somebody else has come with this code");
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn mistakes_have_exit_codes() {
    let home = Home::new();
    let code = |args: &[&str]| {
        let output = run(home.trunkline().arg("chat").args(args), PATIENCE);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    assert_eq!(code(&[]).0, 2);
    assert_eq!(code(&["--pair", "blue-otter"]).0, 2);
    assert_eq!(code(&["--create"]).0, 2);
    let source = Source::start(&home, "127.0.0.1:0", here);
    let good = source.code(&home);
    assert_eq!(code(&["--pair", &good, "--create"]).0, 2);
    assert_eq!(code(&["--create", "--source", "x", "--pin", &source.fingerprint]).0, 2, "no key");
    // A token that the event source does not know.
    let spoiled = format!("{}AAAA", &good[..good.len() - 4]);
    let (exit, why) = code(&["--pair", &spoiled]);
    assert_eq!(exit, 3, "{why}");
    assert!(why.contains("invalid_access_token"), "{why}");
    assert!(!why.contains("tk1."), "no token is shown");
}
