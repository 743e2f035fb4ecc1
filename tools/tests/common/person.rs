//! A person who uses `trunkline chat`, at a terminal or through pipes.
#![cfg(unix)]

use super::netns::here;
use super::{Home, PATIENCE, wait};
use nix::pty::openpty;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A chat with a way to type and everything that it has shown.
pub struct Person {
    pub child: Child,
    keyboard: Keyboard,
    screen: Arc<Mutex<String>>,
}

enum Keyboard {
    Terminal(File),
    Pipe(ChildStdin),
}

impl Person {
    pub fn at_terminal(home: &Home, args: &[&str]) -> Self {
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
    pub fn at_pipe(home: &Home, args: &[&str]) -> Self {
        Self::elsewhere(home, args, here)
    }

    /// With `--json`, where `wrap` puts it.
    pub fn elsewhere(home: &Home, args: &[&str], wrap: impl Fn(&Command) -> Command) -> Self {
        let mut command = home.trunkline();
        command.args(["chat", "--json"]).args(args);
        let mut command = wrap(&command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let screen = watch(child.stdout.take().unwrap());
        let keyboard = Keyboard::Pipe(child.stdin.take().unwrap());
        Self { child, keyboard, screen }
    }

    pub fn types(&mut self, line: &str) {
        let line = format!("{line}\n");
        match &mut self.keyboard {
            Keyboard::Terminal(to) => to.write_all(line.as_bytes()).unwrap(),
            Keyboard::Pipe(to) => to.write_all(line.as_bytes()).unwrap(),
        }
    }

    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    pub fn sees(&self, what: &str) {
        self.waits(what, |screen| screen.contains(what));
    }

    pub fn waits(&self, what: &str, f: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !f(&self.screen()) {
            assert!(start.elapsed() < PATIENCE, "no `{what}`; on the screen:\n{}", self.screen());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The events of `--json` of one kind.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let all = self.screen();
        let whole = all.rfind('\n').map_or("", |end| &all[..end]);
        let events = whole.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        events.filter(|event| event["event"] == kind).collect()
    }

    pub fn waits_for_event(&self, kind: &str, field: &str, value: impl Into<Value>) {
        let value = value.into();
        self.waits(&format!("{kind} {field} {value}"), |_| {
            self.events(kind).iter().any(|event| event[field] == value)
        });
    }

    pub fn exit(&mut self) -> i32 {
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

fn watch(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
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
