//! Two people behind NATs, in network namespaces (Linux, root, iproute2; nftables or Python): what the
//! STUN answers of the event source tell them, and that they reach each other.
#![cfg(target_os = "linux")]

mod common;

use common::nat::{Lab, Nat, OUTSIDE, PRIVATE, PUBLIC, PUBLIC_TOO, Translator};
use common::person::Person;
use common::source::Source;
use common::{Home, PATIENCE, run, text};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The networks, or `None` with a word on standard error.
fn lab(kinds: [Nat; 2]) -> Option<Lab> {
    or_skipped(Lab::new(kinds))
}

fn or_skipped(lab: Result<Lab, String>) -> Option<Lab> {
    match lab {
        Ok(lab) => Some(lab),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// Asks the event source at each of `addresses` from one socket; the addresses that it was told.
fn seen(lab: &Lab, side: usize, addresses: &[String]) -> Vec<(String, u16)> {
    const ASK: &str = "\
import socket, sys, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
for target in sys.argv[1:]:
    host, port = target.rsplit(':', 1)
    for attempt in range(40):
        s.sendto(bytes.fromhex('000100002112a442') + b'transaction!', (host, int(port)))
        try:
            answer = s.recv(100)
        except socket.timeout:
            continue
        assert answer[:4] == bytes.fromhex('0101000c') and answer[8:20] == b'transaction!'
        port = struct.unpack('>H', answer[26:28])[0] ^ 0x2112
        ip = bytes(a ^ b for a, b in zip(answer[28:32], bytes.fromhex('2112a442')))
        print(socket.inet_ntoa(ip), port)
        break
";
    let mut python = Command::new("python3");
    python.args(["-c", ASK]).args(addresses);
    let output = run(&mut lab.at(side, &python), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let lines = lines.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(ip, port)| (ip.to_owned(), port.parse().unwrap())).collect()
}

/// A client learns from the event source how it is seen outside, and from two of its addresses what
/// kind of NAT it is behind.
#[test]
fn clients_behind_nats_learn_how_they_are_seen() {
    for translator in [Translator::Kernel, Translator::Program] {
        let lab = Lab::with([Nat::Cone, Nat::Symmetric], translator);
        let Some(lab) = or_skipped(lab) else { continue };
        learn_how_they_are_seen(&lab);
    }
}

fn learn_how_they_are_seen(lab: &Lab) {
    let home = Home::new();
    let source = Source::start(&home, "0.0.0.0:7472", |command| lab.between(command));
    assert!(source.address.ends_with(":7472"));
    let addresses = [PUBLIC, PUBLIC_TOO, "203.0.113.5"].map(|ip| format!("{ip}:7472"));
    for (side, kind) in [(0, Nat::Cone), (1, Nat::Symmetric)] {
        let seen = seen(lab, side, &addresses);
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.iter().all(|(ip, _)| ip == OUTSIDE[side]), "{seen:?}");
        let ports: std::collections::HashSet<u16> = seen.iter().map(|(_, port)| *port).collect();
        assert_eq!(ports.len() == 1, kind == Nat::Cone, "{kind:?}: {ports:?}");
    }
    // Another NAT in the same place maps as its kind does.
    lab.replace(1, Nat::Cone).unwrap();
    let seen = seen(lab, 1, &addresses);
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

/// An event source between two people behind NATs of these kinds.
struct Setting {
    lab: Lab,
    home: Home,
    source: Source,
    code: String,
}

impl Setting {
    fn new(kinds: [Nat; 2]) -> Option<Self> {
        lab(kinds).map(Self::of)
    }

    fn of(lab: Lab) -> Self {
        let home = Home::new();
        let listen = format!("{PUBLIC}:7472");
        let source = Source::start(&home, &listen, |command| lab.between(command));
        let code = source.code(&home);
        Self { lab, home, source, code }
    }

    fn people(&self) -> [Person; 2] {
        assert_eq!(self.source.address, format!("{PUBLIC}:7472"));
        [0, 1].map(|side| {
            let args = ["--pair", self.code.as_str()];
            Person::elsewhere(&self.home, &args, |command| self.lab.at(side, command))
        })
    }
}

/// Each says something, which the other hears.
fn talk(people: &mut [Person; 2], about: &str) {
    for side in [0, 1] {
        people[side].types(&format!("{about} from {}", PRIVATE[side]));
    }
    for side in [0, 1] {
        people[1 - side].waits_for_event("line", "text", format!("{about} from {}", PRIVATE[side]));
    }
}

fn statuses(person: &Person) -> Vec<String> {
    let all = person.events("link");
    all.iter().map(|event| event["status"].as_str().unwrap().to_owned()).collect()
}

/// Behind different NATs that map as cones do: a direct connection.
#[test]
fn behind_different_cone_nats_the_connection_is_direct() {
    if let Some(setting) = Setting::new([Nat::Cone, Nat::Cone]) {
        reach_each_other_directly(setting);
    }
}

/// Whatever the kernel can do, NATs can be had.
#[test]
fn behind_nats_that_are_programs_too() {
    let Some(lab) = or_skipped(Lab::with([Nat::Cone, Nat::Cone], Translator::Program)) else {
        return;
    };
    reach_each_other_directly(Setting::of(lab));
    let lab = Lab::with([Nat::Symmetric, Nat::Symmetric], Translator::Program).unwrap();
    become_direct_when_a_nat_is_replaced(&Setting::of(lab));
}

fn reach_each_other_directly(setting: Setting) {
    let mut people = setting.people();
    talk(&mut people, "before");
    for person in &people {
        person.waits_for_event("route", "route", "direct");
    }
    // The status passes through all that there is; who accepts begins with the second.
    let mut seen: Vec<Vec<String>> = people.iter().map(statuses).collect();
    seen.sort_by_key(Vec::len);
    assert_eq!(seen[1], ["Connecting", "FindingRoute", "Connected"], "{seen:?}");
    assert_eq!(seen[0], ["FindingRoute", "Connected"], "{seen:?}");
    // Without the event source, too.
    let Setting { source, .. } = setting;
    drop(source);
    talk(&mut people, "directly");
    people[0].types("/quit");
    assert_eq!(people[0].exit(), 0);
}

/// Behind symmetric NATs on both sides: relayed, and direct when one NAT gives way to another.
#[test]
fn behind_symmetric_nats_it_is_relayed_and_then_direct_when_a_nat_is_replaced() {
    if let Some(setting) = Setting::new([Nat::Symmetric, Nat::Symmetric]) {
        become_direct_when_a_nat_is_replaced(&setting);
    }
}

/// Where IPv4 has symmetric NATs on both sides and IPv6 has none: direct over IPv6.
#[test]
fn the_direct_path_is_over_ipv6_where_only_that_works() {
    let Some(lab) = lab([Nat::Symmetric, Nat::Symmetric]) else { return };
    if let Err(why) = lab.add_ipv6() {
        return eprintln!("skipped: {why}");
    }
    let setting = Setting::of(lab);
    let mut people = setting.people();
    for person in &people {
        person.waits_for_event("route", "route", "direct");
    }
    talk(&mut people, "directly");
    // Without the event source, too.
    let Setting { source, .. } = setting;
    drop(source);
    talk(&mut people, "alone");
}

/// They get a connection that is relayed, and no other while they talk.
fn talk_relayed(people: &mut [Person; 2]) {
    for person in people.iter() {
        person.waits_for_event("route", "route", "relayed");
    }
    talk(people, "relayed");
    for person in people.iter() {
        assert!(!person.events("route").iter().any(|event| event["route"] == "direct"));
    }
}

fn become_direct_when_a_nat_is_replaced(setting: &Setting) {
    let mut people = setting.people();
    talk_relayed(&mut people);
    setting.lab.replace(0, Nat::Open).unwrap();
    for person in &people {
        person.waits_for_event("route", "route", "direct");
    }
    talk(&mut people, "directly");
}

/// Who is where no UDP passes reaches the event source over TLS, and the other one over its relay.
#[test]
fn where_udp_is_dropped_it_is_relayed_over_tls() {
    let Some(setting) = Setting::new([Nat::NoUdp, Nat::Cone]) else { return };
    let mut people = setting.people();
    talk_relayed(&mut people);
    people[0].types("/quit");
    assert_eq!(people[0].exit(), 0);
}

/// What a transfer takes that tries both links where UDP is dropped, beside one that was told.
#[test]
fn a_network_that_drops_udp_costs_little_time() {
    let Some(lab) = lab([Nat::NoUdp, Nat::Cone]) else { return };
    let home = Home::new();
    let mut receiver = home.trunkline();
    receiver.args(["recv", "--json", "--listen", &format!("{PUBLIC}:7470"), "--dir"]);
    let receiver = lab.between(receiver.arg(home.at("inbox"))).stdout(Stdio::piped()).spawn();
    let mut receiver = Killed(receiver.unwrap());
    let mut line = String::new();
    BufReader::new(receiver.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut taken = 0;
    let mut send = |link: &str| {
        taken += 1;
        let file = home.file(&format!("file {taken}"), b"small");
        let mut command = home.trunkline();
        command.args(["send", "--trust-any", "--link", link, "--timeout", "10"]);
        command.arg(format!("{PUBLIC}:7470")).arg(file);
        let start = Instant::now();
        let output = run(&mut lab.at(0, &command), PATIENCE);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        start.elapsed()
    };
    // The machine may be busy: the least of some is the network's share.
    let mut least = |link: &str| (0..5).map(|_| send(link)).min().unwrap();
    let (told, both) = (least("tls"), least("auto"));
    println!("a transfer over tls takes {told:?}, over auto {both:?}");
    assert!(both < told + Duration::from_millis(300), "{told:?}, {both:?}");
    // Nothing passes over UDP indeed.
    let mut command = home.trunkline();
    command.args(["send", "--trust-any", "--link", "udp", "--timeout", "2"]);
    command.arg(format!("{PUBLIC}:7470")).arg(home.file("barred", b"small"));
    let output = run(&mut lab.at(0, &command), PATIENCE);
    assert_ne!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
