//! An event source as a built binary, and codes for it.

use super::{Home, PATIENCE, run, text};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A key of tokens, made when it is not there yet.
pub fn key(home: &Home) -> PathBuf {
    let path = home.at("k1.key");
    if !path.exists() {
        let output = run(home.trunkline().args(["token", "key", "--out"]).arg(&path), PATIENCE);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    path
}

/// What options want of it: name and file.
pub fn key_arg(home: &Home) -> String {
    format!("k1={}", key(home).display())
}

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
        let key = key_arg(home);
        let mut command = home.trunkline();
        command.args(["event-source", "--json", "--listen", listen, "--key", &key]);
        let mut child = wrap(&command).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| {
            let _ = child.kill();
            panic!("`{line}`: {e}")
        });
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
