//! Runs the built binary in folders of its own.
#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod nat;
pub mod netns;
pub mod person;
pub mod source;
pub mod veth;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longest that anything here may take unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a key store, removed at the end of the test.
pub struct Home {
    path: PathBuf,
}

impl Home {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("trunkline-test-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    /// A path inside.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A new file inside.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A new file of zeros that takes no space.
    pub fn sparse(&self, name: &str, len: u64) -> PathBuf {
        let path = self.at(name);
        fs::File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    /// The binary with this home, without a terminal.
    pub fn trunkline(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command
            .env("TRUNKLINE_HOME", self.at("home"))
            .env_remove("TRUNKLINE_LOG")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Bytes that look random and repeat from run to run.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A running `recv --json`, killed when dropped.
pub struct Recv {
    child: Child,
    pub address: String,
    pub fingerprint: String,
    pub dir: PathBuf,
    /// The event with which it began.
    pub listening: Value,
    events: Receiver<Value>,
    seen: Vec<Value>,
    errors: Arc<Mutex<String>>,
}

impl Recv {
    pub fn start(home: &Home, args: &[&str]) -> Self {
        Self::try_start(home, args).unwrap_or_else(|why| panic!("recv did not start: {why}"))
    }

    /// `Err` with its standard error when it ends before it listens.
    pub fn try_start(home: &Home, args: &[&str]) -> Result<Self, String> {
        let dir = home.at("inbox");
        let mut command = home.trunkline();
        command.arg("recv").arg("--dir").arg(&dir).arg("--json");
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::spawn(command.args(args), dir)
    }

    /// Runs `command`, a `recv --json` into `dir`.
    pub fn spawn(command: &mut Command, dir: PathBuf) -> Result<Self, String> {
        let mut recv = Self::watch(command);
        recv.dir = dir;
        let Some(listening) = recv.try_event("listening", PATIENCE) else {
            return Err(recv.errors());
        };
        let field = |name| listening[name].as_str().unwrap();
        field("address").clone_into(&mut recv.address);
        field("fingerprint").clone_into(&mut recv.fingerprint);
        recv.listening = listening;
        Ok(recv)
    }

    /// Runs any command that prints JSON lines.
    pub fn watch(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, events) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines() {
                let Ok(line) = line else { return };
                let value = serde_json::from_str(&line)
                    .unwrap_or_else(|e| panic!("`{line}` is not JSON: {e}"));
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let mut err = child.stderr.take().unwrap();
        let shared = Arc::clone(&errors);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut buffer) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self {
            child,
            address: String::new(),
            fingerprint: String::new(),
            dir: PathBuf::new(),
            listening: Value::Null,
            events,
            seen: Vec::new(),
            errors,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Waits for an event of this kind; others are put aside.
    pub fn event(&mut self, kind: &str) -> Value {
        self.try_event(kind, PATIENCE).unwrap_or_else(|| {
            panic!("no event {kind}; seen: {:?}; stderr: {}", self.seen, self.errors())
        })
    }

    pub fn try_event(&mut self, kind: &str, patience: Duration) -> Option<Value> {
        if let Some(at) = self.seen.iter().position(|event| event["event"] == kind) {
            return Some(self.seen.remove(at));
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).ok()?;
            if event["event"] == kind {
                return Some(event);
            }
            self.seen.push(event);
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end and gives the exit code.
    pub fn exit(&mut self, patience: Duration) -> i32 {
        let status = wait(&mut self.child, patience)
            .unwrap_or_else(|| panic!("recv did not end; stderr: {}", self.errors()));
        status.code().unwrap_or(-1)
    }

    /// Interrupts it while idle: it ends with code 0 when all went well.
    pub fn stop(mut self) -> i32 {
        self.signal("INT");
        self.exit(PATIENCE)
    }

    /// Names in the folder, hidden ones included.
    pub fn names(&self) -> Vec<String> {
        names_in(&self.dir)
    }
}

impl Drop for Recv {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end, at most `patience` long.
pub fn run(command: &mut Command, patience: Duration) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(&mut child, patience)
}

/// Collects the output of a child that was started with pipes.
pub fn finish(child: &mut Child, patience: Duration) -> Output {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let out = read(out.map(|p| Box::new(p) as _));
    let err = read(err.map(|p| Box::new(p) as _));
    let status = wait(child, patience);
    if status.is_none() {
        let _ = child.kill();
    }
    let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
    let status = status.unwrap_or_else(|| {
        panic!("did not end in {patience:?}: {}", String::from_utf8_lossy(&stderr))
    });
    Output { status, stdout, stderr }
}

/// `send` to a receiver, pinned to its fingerprint.
pub fn send_command(home: &Home, recv: &Recv, files: &[PathBuf]) -> Command {
    let mut command = home.trunkline();
    command.args(["send", &recv.address, "--pin", &recv.fingerprint]).args(files);
    command
}

/// Runs [`send_command`] and expects success.
pub fn send_ok(home: &Home, recv: &Recv, files: &[PathBuf]) -> Output {
    let output = run(&mut send_command(home, recv, files), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", text(&output.stderr), recv.errors());
    output
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// JSON lines.
pub fn events(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
