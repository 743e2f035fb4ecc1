//! `token` and `event-source` of the built binary: keys, tokens, a server with clients, restart,
//! metrics, and how much of all this many clients cost.

mod common;

#[path = "event_source/crowd.rs"]
mod crowd;

use common::source::{key, key_arg};
use common::{Home, PATIENCE, run, signal, text, wait};
use crowd::Crowd;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use trunkline::rendezvous::{
    AccessToken, ClientId, Notice, PairingClient, PairingClientConfig, PairingConfig, PairingRole,
    PairingState,
};
use trunkline::{ConnectConfig, ConnectLink, PeerId, Trust};

fn mint(home: &Home, more: &[&str]) -> String {
    let mut command = home.trunkline();
    command.args(["token", "mint", "--key", &key_arg(home), "--app", "chess"]).args(more);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn inspect(home: &Home, token: &str, more: &[&str]) -> (i32, Value) {
    let mut command = home.trunkline();
    command.args(["token", "inspect", token, "--json"]).args(more);
    let output = run(&mut command, PATIENCE);
    let object = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), object)
}

/// A running `event-source --json`, killed when dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
    fingerprint: PeerId,
    metrics: SocketAddr,
    out: BufReader<std::process::ChildStdout>,
    log: std::thread::JoinHandle<String>,
}

impl Server {
    fn start(home: &Home, listen: &str, more: &[&str]) -> Self {
        Self::configured(home, &[&["--listen", listen], more].concat())
    }

    /// Where it listens is said by `more` or by a file that it names.
    fn configured(home: &Home, more: &[&str]) -> Self {
        let mut command: Command = home.trunkline();
        command.args(["event-source", "--json", "--key", &key_arg(home)]);
        command.args(["--metrics", "127.0.0.1:0"]).args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut err = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let _ = err.read_to_string(&mut log);
            log
        });
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| {
            let _ = child.kill();
            panic!("`{line}`: {e}")
        });
        assert_eq!(event["event"], "listening");
        let parse = |value: &Value| value.as_str().unwrap().parse().unwrap();
        Self {
            addr: parse(&event["listen"][0]["address"]),
            fingerprint: event["fingerprint"].as_str().unwrap().parse().unwrap(),
            metrics: parse(&event["metrics"]),
            child,
            out,
            log,
        }
    }

    fn connect(&self, link: ConnectLink) -> ConnectConfig {
        let trust = Trust::Pins(vec![self.fingerprint]);
        ConnectConfig { link, ..ConnectConfig::new(self.addr, trust) }
    }

    fn client(
        &self,
        link: ConnectLink,
        token: &str,
        name: &str,
        role: PairingRole,
    ) -> PairingClient {
        let fast = trunkline::Duration::from_millis;
        let pairing = PairingConfig {
            searching_ping: fast(300),
            interacting_ping: fast(600),
            partner_limit: fast(5_000),
            ..PairingConfig::default()
        };
        let config =
            PairingClientConfig { pairing, ..PairingClientConfig::new(self.connect(link), role) };
        let client = PairingClient::start(config).unwrap();
        client.assign_client_id(Some(ClientId::new(name).unwrap())).unwrap();
        client.assign_access_token(Some(AccessToken::new(token).unwrap())).unwrap();
        client.set_active(true).unwrap();
        client
    }

    fn get(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn page(&self) -> String {
        let answer = self.get("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        answer
    }

    /// A metric's value.
    fn metric(&self, name: &str) -> u64 {
        let (page, name) = (self.page(), format!("trunkline_event_source_{name} "));
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// SIGTERM; the exit code, the last line, and the log.
    fn stop(mut self) -> (i32, Value, String) {
        signal(self.child.id(), "TERM");
        let status = wait(&mut self.child, PATIENCE).expect("it did not end");
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new));
        (status.code().unwrap_or(-1), serde_json::from_str(&line).unwrap(), log.join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reaches(client: &PairingClient, state: PairingState) {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "{state} was not reached");
        match client.recv(Duration::from_millis(100)) {
            Some(Notice::State { new, .. }) if new == state => return,
            _ => {}
        }
    }
}

#[test]
fn a_token_is_minted_and_inspected() {
    let home = Home::new();
    let token = mint(&home, &["--client", "p-*", "--role", "controller", "--ttl", "2h"]);
    assert!(token.starts_with("tk1.k1."), "{token}");
    let (code, object) = inspect(&home, &token, &[]);
    assert_eq!((code, &object["app"], &object["client"]), (0, &"chess".into(), &"p-*".into()));
    assert_eq!(object["roles"], serde_json::json!(["controller"]));
    assert_eq!(object["good"], Value::Null, "nothing was proven");
    let key = key_arg(&home);
    let (code, object) = inspect(&home, &token, &["--key", &key]);
    assert_eq!((code, &object["good"]), (0, &true.into()));
    let mut spoiled = token.clone();
    let last = if spoiled.pop() == Some('A') { 'E' } else { 'A' };
    spoiled.push(last);
    let (code, object) = inspect(&home, &spoiled, &["--key", &key]);
    assert_eq!((code, &object["verdict"]), (3, &"token has a wrong signature".into()));
    assert_eq!(inspect(&home, "tk1.what", &[]).0, 3);
    let minted = mint(&home, &["--client", "a", "--json"]);
    let object: Value = serde_json::from_str(&minted).unwrap();
    assert_eq!(object["roles"], serde_json::json!(["controller", "responder"]));
    assert_eq!(inspect(&home, object["token"].as_str().unwrap(), &["--key", &key]).0, 0);
}

#[cfg(unix)]
#[test]
fn a_key_is_private_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let path = key(&home);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let output = run(home.trunkline().args(["token", "key", "--out"]).arg(&path), PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn mistakes_have_exit_codes() {
    let home = Home::new();
    let code = |args: &[&str]| {
        let output = run(home.trunkline().args(args), PATIENCE);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    assert_eq!(code(&["event-source"]).0, 2, "no key");
    assert_eq!(code(&["event-source", "--config", "/nowhere.toml"]).0, 1);
    assert_eq!(code(&["event-source", "--key", "k1"]).0, 2);
    assert_eq!(
        code(&["token", "mint", "--key", "k1=/nowhere", "--app", "a", "--client", "b"]).0,
        1
    );
    assert_eq!(code(&["token", "mint", "--key", "k1=x", "--app", "a b", "--client", "b"]).0, 2);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let args =
        ["event-source", "--key", &key_arg(&home), "--listen", "127.0.0.1:0", "--metrics", &addr];
    let (exit, why) = code(&args);
    assert_eq!(exit, 4, "{why}");
    assert!(why.contains("metrics"), "{why}");
}

/// Two clients meet through the program; it is restarted under them; its figures and its log say
/// what happened.
fn pair_and_survive_a_restart(links: [ConnectLink; 2]) {
    let home = Home::new();
    let (alice, bob) = (mint(&home, &["--client", "alice"]), mint(&home, &["--client", "bob"]));
    let server = Server::start(&home, "127.0.0.1:0", &["--app", "chess"]);
    let addr = server.addr.to_string();
    let c = server.client(links[0], &alice, "alice", PairingRole::Controller);
    let r = server.client(links[1], &bob, "bob", PairingRole::Responder);
    c.assign_partner(Some(ClientId::new("bob").unwrap())).unwrap();
    reaches(&r, PairingState::Interacting);
    reaches(&c, PairingState::Interacting);
    assert_eq!(server.metric("clients"), 2);
    assert_eq!(server.metric("clients_attached_total"), 2);
    assert!(server.metric("events_received_total{type=\"ping\"}") >= 2);
    assert!(server.get("GET /healthz HTTP/1.1\r\n\r\n").ends_with("\r\n\r\nok\n"));
    assert!(server.get("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(server.get("PUT /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    let head = server.get("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n") && !head.contains("clients"), "{head}");
    let (code, ended, log) = server.stop();
    assert_eq!((code, &ended["event"], &ended["clients"]), (0, &"ended".into(), &2.into()));
    let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let attached = lines.iter().filter(|l| l["message"] == "client attached").count();
    assert_eq!(attached, 2, "{log}");
    assert!(lines.iter().any(|l| l["client"] == "alice" && l["app"] == "chess"), "{log}");
    assert!(!log.contains("tk1."), "no token in the log");
    reaches(&c, PairingState::ReadyToConnect);
    reaches(&r, PairingState::ReadyToConnect);
    let again = Server::start(&home, &addr, &["--app", "chess"]);
    reaches(&c, PairingState::Interacting);
    reaches(&r, PairingState::Interacting);
    assert_eq!(again.metric("clients_attached_total"), 2);
    c.shutdown();
    reaches(&r, PairingState::Searching);
}

#[test]
fn clients_pair_through_the_program_and_survive_its_restart() {
    pair_and_survive_a_restart([ConnectLink::Datagram; 2]);
}

#[test]
fn clients_pair_over_tls_and_over_both_links() {
    pair_and_survive_a_restart([ConnectLink::Stream; 2]);
    pair_and_survive_a_restart([ConnectLink::Stream, ConnectLink::Datagram]);
    pair_and_survive_a_restart([ConnectLink::Auto; 2]);
}

/// A listener for one link is deaf to the other.
#[test]
fn a_listener_may_be_for_tls_only() {
    let home = Home::new();
    let config = home.file("es.toml", b"[[listen]]\nlink = \"tls\"\naddress = \"127.0.0.1:0\"\n");
    let server = Server::configured(&home, &["--config", &config.display().to_string()]);
    let token = mint(&home, &["--client", "*"]);
    let over_tls = server.client(ConnectLink::Stream, &token, "a", PairingRole::Responder);
    let over_both = server.client(ConnectLink::Auto, &token, "b", PairingRole::Responder);
    reaches(&over_tls, PairingState::ReadyToPair);
    reaches(&over_both, PairingState::ReadyToPair);
    let mut over_udp =
        PairingClientConfig::new(server.connect(ConnectLink::Datagram), PairingRole::Responder);
    over_udp.source.connection = Some(trunkline::ConnectionConfig {
        initial_timeout: trunkline::Duration::from_secs(1),
        ..trunkline::rendezvous::connection_config()
    });
    let over_udp = PairingClient::start(over_udp).unwrap();
    over_udp.assign_client_id(Some(ClientId::new("c").unwrap())).unwrap();
    over_udp.assign_access_token(Some(AccessToken::new(&token).unwrap())).unwrap();
    over_udp.set_active(true).unwrap();
    reaches(&over_udp, PairingState::Connecting);
    reaches(&over_udp, PairingState::ReadyToConnect);
    // STUN needs one.
    let config = b"[[listen]]\nlink = \"tls\"\naddress = \"127.0.0.1:0\"\nstun = true\n";
    let config = home.file("stun.toml", config).display().to_string();
    let mut command = home.trunkline();
    command.args(["event-source", "--config", &config, "--key", &key_arg(&home)]);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("stun"), "{}", text(&output.stderr));
}

/// After a kill its port may be held by the kernel for a moment: the next one waits for it.
#[test]
fn it_starts_again_at_once_after_a_kill() {
    let home = Home::new();
    let mut server = Server::start(&home, "127.0.0.1:0", &[]);
    let (address, fingerprint) = (server.addr, server.fingerprint);
    for _ in 0..5 {
        drop(server);
        server = Server::start(&home, &address.to_string(), &[]);
        assert_eq!((server.addr, server.fingerprint), (address, fingerprint));
    }
    // A port that another one has is another matter.
    let mut command = home.trunkline();
    command.args(["event-source", "--listen", &address.to_string(), "--key", &key_arg(&home)]);
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&address.to_string()), "{}", text(&output.stderr));
}

/// A client of the metrics that says nothing keeps others waiting for two seconds at most.
#[test]
fn a_silent_reader_of_metrics_does_not_block_it() {
    let home = Home::new();
    let server = Server::start(&home, "127.0.0.1:0", &[]);
    let _silent = TcpStream::connect(server.metrics).unwrap();
    assert_eq!(server.metric("clients"), 0);
    let _ = server.get(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(10_000)).as_str()[..4096]);
    assert_eq!(server.metric("clients"), 0);
}

fn crowd(link: ConnectLink, pairs: usize, patience: Duration) {
    let home = Home::new();
    let token = mint(&home, &["--client", "*"]);
    let config = home
        .file("event-source.toml", b"log = \"text\"\n[limits]\nhandshakes_per_source_per_s = 0\n");
    let config = config.display().to_string();
    let mut server =
        Server::start(&home, "127.0.0.1:0", &["--config", &config, "--log-format", "text"]);
    let empty = crowd::usage(server.child.id());
    let crowd = Crowd::start(&server.connect(link), &token, pairs);
    let took = crowd.wait(patience);
    let paired = crowd::usage(server.child.id());
    assert_eq!(server.metric("clients"), 2 * pairs as u64);
    let steady = Duration::from_secs(if pairs > 1_000 { 20 } else { 3 });
    let (ours_before, received) =
        (crowd::usage(std::process::id()), server.metric("events_delivered_total"));
    std::thread::sleep(steady);
    let after = crowd::usage(server.child.id());
    let ours = crowd::usage(std::process::id());
    let events = server.metric("events_delivered_total") - received;
    let clients = 2 * pairs;
    println!(
        "{clients} clients paired in {:.1} s; server: {:.1} MiB, {:.1} KiB a client, {:.1} s of CPU \
         to pair them; then {:.0} events a second for {:.1}% of a processor; clients: {:.1}% of a \
         processor, {:.1} MiB",
        took.as_secs_f64(),
        paired.rss_bytes as f64 / 1_048_576.0,
        paired.rss_bytes.saturating_sub(empty.rss_bytes) as f64 / 1024.0 / clients as f64,
        paired.cpu.saturating_sub(empty.cpu).as_secs_f64(),
        events as f64 / steady.as_secs_f64(),
        after.cpu.saturating_sub(paired.cpu).as_secs_f64() / steady.as_secs_f64() * 100.0,
        ours.cpu.saturating_sub(ours_before.cpu).as_secs_f64() / steady.as_secs_f64() * 100.0,
        ours.rss_bytes as f64 / 1_048_576.0,
    );
    assert_eq!(crowd.lost(), 0, "nobody lost its partner or its connection");
    assert_eq!(server.metric("clients"), clients as u64);
    // Every client pings every 10 s.
    let least = clients as f64 / 10.0 * steady.as_secs_f64() * 0.5;
    assert!(pairs < 1_000 || events as f64 > least, "{events} events");
    let a_client = paired.rss_bytes.saturating_sub(empty.rss_bytes) / clients as u64;
    assert!(pairs < 1_000 || a_client < 64 << 10, "{a_client} bytes of memory a client");
    assert_eq!(server.metric("events_dropped_total{reason=\"overflowed\"}"), 0);
    assert!(server.child.try_wait().unwrap().is_none());
    // A restart under all of them.
    let addr = server.addr.to_string();
    let begun = Instant::now();
    let (code, ended, _) = server.stop();
    assert_eq!((code, &ended["all_taken"]), (0, &true.into()), "{ended}");
    let stopped = begun.elapsed();
    crowd.wait_for(0, patience);
    let again = Server::start(&home, &addr, &["--config", &config, "--log-format", "text"]);
    let back = crowd.wait(patience);
    println!(
        "restart: ended in {:.1} s, all of them back {:.1} s after the start of the next one",
        stopped.as_secs_f64(),
        back.as_secs_f64(),
    );
    assert_eq!(again.metric("clients"), clients as u64);
}

#[test]
fn five_hundred_clients_are_paired() {
    crowd(ConnectLink::Datagram, 250, PATIENCE * 2);
}

#[test]
fn a_hundred_clients_are_paired_over_tls() {
    crowd(ConnectLink::Stream, 50, PATIENCE * 2);
}

/// `cargo test --release -p trunkline-tools --test event_source -- --ignored --nocapture`
#[test]
#[ignore = "takes a minute or more"]
fn ten_thousand_clients_are_paired() {
    crowd(ConnectLink::Datagram, 5_000, Duration::from_secs(900));
}

#[test]
#[ignore = "takes a minute or more"]
fn ten_thousand_clients_are_paired_over_tls() {
    crowd(ConnectLink::Stream, 5_000, Duration::from_secs(900));
}
