//! `trunkline top` beside a running `recv` that keeps a stats file.
#![cfg(target_os = "linux")]

mod common;

use common::netns::here;
use common::person::Person;
use common::source::{Source, key};
use common::{Home, Recv, run, send_command, send_ok, text};
use serde_json::Value;
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(8);

fn top(home: &Home, args: &[&str]) -> Output {
    home.trunkline().arg("top").args(args).output().unwrap()
}

fn sample(home: &Home, file: &Path) -> (Value, i32) {
    let output = top(home, &["--once", "--json", file.to_str().unwrap()]);
    let object = serde_json::from_slice(&output.stdout);
    let object = object.unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
    (object, output.status.code().unwrap())
}

/// Samples until the engine is so.
fn until(home: &Home, file: &Path, state: &str) -> (Value, i32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (object, code) = sample(home, file);
        if object["state"] == state {
            return (object, code);
        }
        assert!(Instant::now() < deadline, "not {state}: {object}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u64, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_file_outlives_whatever_happens_to_its_process() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    let (running, code) = until(&home, &file, "running");
    assert_eq!(code, 0);
    let pid = running["pid"].as_u64().unwrap();
    send_ok(&home, &recv, &[home.file("out/a", &common::noise(300_000, 1))]);
    let received = |object: &Value| object["shards"][0]["fields"]["bytes_received"].as_u64();
    let by_pid = top(&home, &["--once", "--json", &pid.to_string()]);
    let by_pid: Value = serde_json::from_slice(&by_pid.stdout).unwrap();
    assert!(received(&by_pid).unwrap() > 300_000, "{by_pid}");
    signal(pid, "STOP");
    let (stopped, code) = until(&home, &file, "not answering");
    assert_eq!(code, 4);
    assert!(received(&stopped).unwrap() > 300_000, "{stopped}");
    let lines = top(&home, &["--once", file.to_str().unwrap()]);
    assert!(text(&lines.stdout).contains("not answering"), "{}", text(&lines.stdout));
    signal(pid, "KILL");
    let (died, code) = until(&home, &file, "died");
    assert_eq!(code, 4);
    assert!(received(&died).unwrap() > 300_000, "{died}");
}

#[test]
fn an_orderly_end_is_told_and_another_engine_takes_the_file() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let option = ["--stats-file", file.to_str().unwrap()];
    let mut recv = Recv::start(&home, &option);
    until(&home, &file, "running");
    recv.signal("TERM");
    assert_eq!(recv.exit(PATIENCE), 0);
    let (ended, code) = sample(&home, &file);
    assert_eq!((&ended["state"], code), (&"ended".into(), 0));
    let _recv = Recv::start(&home, &option);
    let (running, _) = until(&home, &file, "running");
    assert_ne!(running["pid"], ended["pid"]);
    let folder = top(&home, &["--count", "2", "-i", "0.1", home.at("").to_str().unwrap()]);
    assert_eq!(text(&folder.stdout).matches("SHARD STATE").count(), 2);
}

#[test]
fn send_and_chat_and_an_event_source_keep_figures_too() {
    let home = Home::new();
    let file = home.at("figures");
    let option = ["--stats-file", file.to_str().unwrap()];
    let recv = Recv::start(&home, &[]);
    let mut send = send_command(&home, &recv, &[home.file("out/a", &common::noise(300_000, 1))]);
    assert_eq!(run(send.args(option), PATIENCE).status.code(), Some(0));
    let (sent, code) = sample(&home, &file);
    assert_eq!((&sent["state"], code), (&"ended".into(), 0));
    let fields = &sent["shards"][0]["fields"];
    assert!(fields["bytes_sent"].as_u64().unwrap() > 300_000, "{fields}");
    let source = Source::start(&home, "127.0.0.1:0", here);
    let mut person =
        Person::at_pipe(&home, &[&["--pair", &source.code(&home)][..], &option].concat());
    person.waits_for_event("state", "state", "searching");
    let (talking, _) = until(&home, &file, "running");
    assert_eq!(talking["pid"], person.child.id());
    person.types("/quit");
    assert_eq!(person.exit(), 0);
    assert_eq!(sample(&home, &file).0["state"], "ended");
    // By its configuration, relative to where that is.
    key(&home);
    let settings = "stats_file = \"of-the-source\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
                    [[key]]\nid = \"k1\"\nfile = \"k1.key\"\n";
    let settings = home.file("source.toml", settings.as_bytes());
    let mut command = home.trunkline();
    command.args(["event-source", "--json", "--config"]).arg(settings);
    let served = Lines::start(&mut command);
    served.next();
    let (running, _) = until(&home, &home.at("of-the-source"), "running");
    assert_eq!(running["pid"], served.child.lock().unwrap().id());
    served.signal("TERM");
    assert_eq!(served.exit(PATIENCE), 0);
    assert_eq!(sample(&home, &home.at("of-the-source")).0["state"], "ended");
}

#[test]
fn what_is_no_stats_file_is_a_usage_error() {
    let home = Home::new();
    let no = home.file("no", b"something else");
    for what in [no.to_str().unwrap(), home.at("missing").to_str().unwrap(), "4000000000"] {
        let output = top(&home, &["--once", what]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert!(text(&output.stderr).contains(what), "{}", text(&output.stderr));
    }
    let bad = ["recv", "--listen", "127.0.0.1:0", "--stats-file", "/no/such/folder/stats"];
    let output = home.trunkline().args(bad).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let error = text(&output.stderr);
    assert!(error.contains("stats file /no/such/folder/stats"), "{error}");
}

/// Whoever can write the file does not get to steer the terminal of who looks at it.
#[test]
fn nothing_of_a_file_steers_the_terminal() {
    const EVIL: &[u8] = b"\x1b[2J\x07\x9b1;1H";
    let home = Home::new();
    let file = home.at("recv.stats");
    let recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    until(&home, &file, "running");
    let whole = std::fs::read(&file).unwrap();
    drop(recv);
    let word = |at: usize| u64::from_ne_bytes(*whole[at * 8..].first_chunk().unwrap()) as usize;
    let block = word(14);
    // The engine's version, and of the shard its driver and why it has failed.
    for (at, len) in [(17 * 8, 32), (block + 5 * 8, 16), (block + 7 * 8, 128)] {
        let mut bytes = whole.clone();
        bytes[at..at + len].fill(0);
        bytes[at..at + EVIL.len()].copy_from_slice(EVIL);
        bytes[block + 3 * 8..][..8].copy_from_slice(&3u64.to_ne_bytes());
        let evil = home.file("evil.stats", &bytes);
        let output = top(&home, &["--once", evil.to_str().unwrap()]);
        let shown = text(&output.stdout);
        assert!(shown.contains("?[2J"), "{at}: {shown:?}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{at}: {shown:?}");
    }
}

#[test]
fn the_prometheus_page_is_well_formed() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let _recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    until(&home, &file, "running");
    let output = top(&home, &["--prometheus", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    check_page(&text(&output.stdout));
}

/// Prometheus' text format: HELP and TYPE before the values of each name, no value twice.
fn check_page(page: &str) {
    let (mut families, mut series) = (HashSet::new(), HashSet::new());
    let mut current = String::new();
    let mut kind = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && families.insert(name.to_owned()), "{line}");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            of.clone_into(&mut kind);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (id, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = id.split('{').next().unwrap();
            assert_eq!(name, current, "values follow their name");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(series.insert(id.to_owned()), "{line}");
        }
    }
    assert!(series.iter().any(|s| s.starts_with("trunkline_shard_up{")), "{page}");
    assert!(families.contains("trunkline_bytes_received_total") && families.len() > 80);
}

/// A running command and the lines it prints; killed when dropped.
struct Lines {
    child: Mutex<Child>,
    lines: Mutex<std::io::Lines<BufReader<ChildStdout>>>,
}

impl Lines {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Mutex::new(BufReader::new(child.stdout.take().unwrap()).lines());
        Self { child: Mutex::new(child), lines }
    }

    fn next(&self) -> String {
        self.lines.lock().unwrap().next().unwrap().unwrap()
    }

    fn signal(&self, name: &str) {
        common::signal(self.child.lock().unwrap().id(), name);
    }

    fn exit(&self, patience: Duration) -> i32 {
        let status = common::wait(&mut self.child.lock().unwrap(), patience);
        status.expect("no end").code().unwrap_or(-1)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A running `top --prometheus-listen`.
struct Served {
    top: Lines,
    addr: SocketAddr,
}

/// Sends `request` and reads until the other side closes.
fn ask(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    answer(&mut stream)
}

fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

impl Served {
    fn start(home: &Home, file: &Path) -> Self {
        let mut command = home.trunkline();
        command.args(["top", "--prometheus-listen", "127.0.0.1:0"]).arg(file);
        let top = Lines::start(&mut command);
        let line = top.next();
        let addr = line.strip_prefix("metrics at http://").and_then(|l| l.strip_suffix("/metrics"));
        let addr = addr.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Self { top, addr }
    }

    /// The body of what `/metrics` answers.
    fn page(&self) -> String {
        let text = ask(self.addr, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        body.to_owned()
    }

    fn status(&self, request: &[u8]) -> String {
        let text = ask(self.addr, request);
        let status = text.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{text:?}"));
        status[..3].to_owned()
    }
}

#[test]
fn a_scraper_gets_its_page_whatever_others_ask() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let mut recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    until(&home, &file, "running");
    let served = Served::start(&home, &file);
    check_page(&served.page());
    let cases: [(&[u8], &str); 9] = [
        (b"GET /healthz HTTP/1.1\r\n\r\n", "200"),
        (b"GET / HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00 no HTTP at all\r\n\r\n", "400"),
        (b"\xff\xfe\x00\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
        (&vec![b'a'; 100_000], "400"),
        (&[b"GET /metrics HTTP/1.1\r\nX: ", &vec![b'x'; 90_000][..]].concat(), "400"),
    ];
    for (request, status) in cases {
        let shown = request[..request.len().min(40)].escape_ascii().to_string();
        assert_eq!(served.status(request), status, "{shown}");
    }
    let head = ask(served.addr, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // Whoever goes away in the middle, or says nothing more, is nobody's problem.
    let silent = TcpStream::connect(served.addr).unwrap();
    silent.shutdown(Shutdown::Write).unwrap();
    drop(TcpStream::connect(served.addr).unwrap());
    let page = std::thread::scope(|scope| {
        let many: Vec<_> = (0..100).map(|_| scope.spawn(|| served.page())).collect();
        many.into_iter().map(|one| one.join().unwrap()).last().unwrap()
    });
    check_page(&page);
    recv.kill();
    until(&home, &file, "died");
    assert_eq!(served.status(b"GET /healthz HTTP/1.1\r\n\r\n"), "503");
    let page = served.page();
    let up = page.lines().find(|line| line.starts_with("trunkline_shard_up{")).unwrap();
    assert!(up.ends_with(" 0"), "{up}");
    served.top.signal("TERM");
    assert_eq!(served.top.exit(PATIENCE), 0);
}

#[test]
fn slow_clients_keep_no_scraper_waiting() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let _recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    until(&home, &file, "running");
    let served = Served::start(&home, &file);
    let start = Instant::now();
    let mut slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(served.addr).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
        .collect();
    check_page(&served.page());
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    // One that says a little again and again does not have more time for it.
    let mut trickle = slow.pop().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    trickle.write_all(b"y").unwrap();
    for stream in slow.iter_mut().chain([&mut trickle]) {
        assert!(answer(stream).starts_with("HTTP/1.1 408 "));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // As many as are served at once, and more: they run out of time one after the other.
    let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(served.addr).unwrap()).collect();
    let start = Instant::now();
    check_page(&served.page());
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    drop(idle);
}
