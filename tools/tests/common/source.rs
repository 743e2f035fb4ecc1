//! An event source as a built binary, and codes for it.

use super::{Home, PATIENCE, run, text};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A running `event-source --json`, killed when dropped.
pub struct Source {
    child: Child,
    pub address: String,
    pub fingerprint: String,
    key: String,
    /// For the next start.
    listen: String,
}

impl Source {
    /// Starts one; `wrap` puts the command where it is to run.
    pub fn start(home: &Home, listen: &str, wrap: impl Fn(&Command) -> Command) -> Self {
        let path = home.at("k1.key");
        if !path.exists() {
            let output = run(home.trunkline().args(["token", "key", "--out"]).arg(&path), PATIENCE);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
        let key = format!("k1={}", path.display());
        let mut command = home.trunkline();
        command.args(["event-source", "--json", "--listen", listen, "--key", &key]);
        let start = Instant::now();
        let (child, event) = loop {
            let mut child = wrap(&command).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if let Ok(event) = serde_json::from_str::<Value>(&line) {
                break (child, event);
            }
            // The kernel takes a moment to let go of the port of a process that was killed.
            let _ = child.kill();
            let _ = child.wait();
            assert!(start.elapsed() < PATIENCE, "the event source does not start");
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        let address = event["listen"][0]["address"].as_str().unwrap().to_owned();
        let fingerprint = event["fingerprint"].as_str().unwrap().to_owned();
        Self { child, listen: address.clone(), address, fingerprint, key }
    }

    /// A code of chat, as its `--create --print` gives it.
    pub fn code(&self, home: &Home) -> String {
        let mut command = home.trunkline();
        command.args(["chat", "--create", "--print", "--source", &self.address]);
        command.args(["--pin", &self.fingerprint, "--key", &self.key]);
        let output = run(&mut command, PATIENCE);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// Kills it and starts it anew at the same address.
    pub fn restart(&mut self, home: &Home, wrap: impl Fn(&Command) -> Command) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        *self = Self::start(home, &self.listen.clone(), wrap);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
