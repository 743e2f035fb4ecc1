//! The program between real namespaces. Needs root and /dev/net/tun.
#![cfg(target_os = "linux")]

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_link-emulator");
const PATIENCE: Duration = Duration::from_secs(10);

/// Why namespaces and devices cannot be made here.
fn missing() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // CAP_NET_ADMIN and CAP_SYS_ADMIN.
    let needed = 1 << 12 | 1 << 21;
    if capabilities.is_none_or(|have| have & needed != needed) {
        return Some("not root".into());
    }
    if let Err(e) = File::options().read(true).write(true).open("/dev/net/tun") {
        return Some(format!("/dev/net/tun: {e}"));
    }
    match Command::new("ip").args(["netns", "list"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(e) => Some(format!("ip: {e}")),
    }
}

fn can_run() -> bool {
    let missing = missing();
    if let Some(why) = &missing {
        eprintln!("skipped: {why}");
    }
    missing.is_none()
}

/// A link without a command, and namespaces of its own.
struct Linked {
    child: Child,
    output: BufReader<ChildStdout>,
    names: [String; 2],
    addresses: [String; 2],
}

impl Linked {
    fn start(args: &[&str]) -> Self {
        let mut child =
            Command::new(PROGRAM).args(args).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let ready = read(&mut output);
        assert_eq!(ready["ready"], true, "{ready}");
        let text = |side: &str, key: &str| ready[side][key].as_str().unwrap().to_owned();
        let names = ["a", "b"].map(|side| text(side, "netns"));
        let addresses = ["a", "b"].map(|side| text(side, "address"));
        Self { child, output, names, addresses }
    }

    /// Runs something in the namespace of a side, on a thread of its own.
    fn within<T: Send + 'static>(
        &self,
        side: usize,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.names[side])).unwrap();
        thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            run()
        })
    }

    fn socket(&self, side: usize) -> UdpSocket {
        let address = (self.addresses[side].clone(), 0);
        let socket = self.within(side, move || UdpSocket::bind(address).unwrap()).join().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Ends it with a signal; what it says then.
    fn end(mut self, signal: Signal) -> Value {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        let report = read(&mut self.output);
        assert!(self.child.wait().unwrap().success());
        for name in &self.names {
            assert!(!exists(name), "{name} is still there");
        }
        report
    }
}

fn read(output: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

#[test]
fn round_trips_take_twice_the_delay() {
    if !can_run() {
        return;
    }
    let linked = Linked::start(&["--delay", "10ms"]);
    let (a, b) = (linked.socket(0), linked.socket(1));
    a.connect(b.local_addr().unwrap()).unwrap();
    let count = 30;
    let echo = thread::spawn(move || {
        let mut buffer = [0; 2000];
        for _ in 0..count {
            let (n, from) = b.recv_from(&mut buffer).unwrap();
            b.send_to(&buffer[..n], from).unwrap();
        }
    });
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            a.send(&[1; 100]).unwrap();
            a.recv(&mut [0; 2000]).unwrap();
            begun.elapsed()
        })
        .collect();
    echo.join().unwrap();
    times.sort_unstable();
    // Never less; the upper half may have waited for a busy machine.
    assert!(times[0] >= Duration::from_millis(20), "{times:?}");
    assert!(times[count / 4] < Duration::from_millis(23), "{times:?}");
    let report = linked.end(Signal::SIGTERM);
    for way in ["a_to_b", "b_to_a"] {
        assert_eq!(report[way]["packets"], 30, "{report}");
        assert_eq!(report[way]["delivered"], 30, "{report}");
    }
}

#[test]
fn as_much_is_lost_as_was_asked_for() {
    if !can_run() {
        return;
    }
    let linked = Linked::start(&["--loss", "5%", "--seed", "7"]);
    let (a, b) = (linked.socket(0), linked.socket(1));
    a.connect(b.local_addr().unwrap()).unwrap();
    let count = 20_000u64;
    let sender = thread::spawn(move || {
        for n in 0..count {
            a.send(&n.to_be_bytes()).unwrap();
            if n % 50 == 49 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    b.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 100];
    let (mut received, mut next) = (0, 0);
    while !sender.is_finished() || next < count {
        let Ok(n) = b.recv(&mut buffer) else { break };
        let number = u64::from_be_bytes(buffer[..n].try_into().unwrap());
        assert!(number >= next, "order is kept");
        (received, next) = (received + 1, number + 1);
    }
    sender.join().unwrap();
    let report = linked.end(Signal::SIGINT);
    let way = &report["a_to_b"];
    let of = |key: &str| way[key].as_u64().unwrap();
    assert_eq!(of("packets"), count);
    assert_eq!(of("device_dropped") + of("device_refused"), 0);
    assert_eq!(of("delivered") + of("lost"), count);
    let share = of("lost") as f64 / count as f64;
    assert!((share - 0.05).abs() < 0.007, "{share}");
    // What the link delivered is what arrives, but for what a full socket buffer dropped.
    assert!(received <= of("delivered") && received * 100 >= of("delivered") * 99, "{received}");
}

#[test]
fn the_command_decides_the_exit_status() {
    if !can_run() {
        return;
    }
    let script = "ip netns exec $LINK_A ip addr show link0 && echo $LINK_A $LINK_B; exit 7";
    let output = run(&["--json", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("10.77.0.1/24"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    for name in lines[lines.len() - 2].split(' ') {
        assert!(!exists(name), "{name} is still there");
    }
    let report: Value = serde_json::from_str(lines[lines.len() - 1]).unwrap();
    assert_eq!(report["a_to_b"]["lost"], 0);
    assert_eq!(run(&["--", "/there/is/none"]).status.code(), Some(127));
    assert_eq!(run(&["--", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
}

#[test]
fn a_signal_ends_the_command_too() {
    if !can_run() {
        return;
    }
    let mut child = Command::new(PROGRAM)
        .args(["--", "sh", "-c", "echo $LINK_A; echo $$; exec sleep 100"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (name, command) = (lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap());
    assert!(exists(&name));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(!exists(&name));
    assert!(!Path::new("/proc").join(command).exists());
}

#[test]
fn a_namespace_that_is_there_is_left_alone() {
    if !can_run() {
        return;
    }
    let linked = Linked::start(&[]);
    let output = run(&["--a", "link-test-not-made", "--b", &linked.names[1], "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&linked.names[1]), "{error}");
    assert!(exists(&linked.names[1]) && !exists("link-test-not-made"));
    linked.end(Signal::SIGHUP);
}

#[test]
fn a_wrong_command_line_names_the_field() {
    for (args, field) in [
        (["--loss", "200%"], "--loss"),
        (["--jitter", "1ms"], "--jitter"),
        (["--queue", "1ms"], "--rate"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains(field));
    }
}
