//! Discovery and announcer on the loopback interface, each test on a port of its own.

use super::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use trunkline_proto::ids::PeerId;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn loopback() -> Interfaces {
    let found = Interfaces::default().scan().unwrap();
    let name = found.into_iter().find(|l| l.ip.is_loopback()).unwrap().name;
    Interfaces { names: vec![name], ..Interfaces::default() }
}

fn announcer(port: u16, n: u8, listen: IpAddr) -> Announcer {
    let told =
        Announcement::new(format!("device {n}"), "test", PeerId([n; 32]), 7000 + u16::from(n));
    let config =
        AnnouncerConfig { interfaces: loopback(), port, ..AnnouncerConfig::new(told, listen) };
    Announcer::start(config).unwrap()
}

fn discovery(port: u16, client: ClientConfig) -> Discovery {
    Discovery::start(DiscoveryConfig { client, interfaces: loopback(), port }).unwrap()
}

/// Polls both sides in turn until an event of the discovery fits.
fn until(
    discovery: &mut Discovery,
    announcers: &mut [Announcer],
    mut fits: impl FnMut(&ClientEvent) -> bool,
) -> ClientEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for announcer in announcers.iter_mut() {
            announcer.poll(Duration::ZERO).unwrap();
        }
        for event in discovery.poll(Duration::from_millis(2)).unwrap() {
            if fits(&event) {
                return event;
            }
        }
        assert!(
            Instant::now() < deadline,
            "nothing came; {:?} {:?} {:?}",
            discovery.counts(),
            discovery.problems(),
            announcers.iter().map(|a| (a.counts(), a.problems().to_vec())).collect::<Vec<_>>()
        );
    }
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[test]
fn several_programs_of_one_machine_are_found_over_multicast() {
    let port = free_port();
    let mut announcers = [announcer(port, 1, V4), announcer(port, 2, V4), announcer(port, 3, V4)];
    let mut discovery = discovery(port, ClientConfig::default());
    let mut found = std::collections::BTreeSet::new();
    until(&mut discovery, &mut announcers, |event| {
        if let ClientEvent::Found(device) = event {
            found.insert(device.peer);
        }
        found.len() == 3
    });
    for device in discovery.devices() {
        assert_eq!(device.service, "test");
        let n = device.peer.0[0];
        assert_eq!(device.addresses(), [SocketAddr::from(([127, 0, 0, 1], 7000 + u16::from(n)))]);
    }
    assert!(announcers.iter().all(|a| a.state() == HostState::Ready && a.sessions() == 1));
    assert_eq!(discovery.state(), ClientState::Ready);
    // Dropping one says goodbye.
    let [first, rest @ ..] = announcers;
    drop(first);
    let mut rest = Vec::from(rest);
    let event = until(&mut discovery, &mut rest, |e| matches!(e, ClientEvent::Lost(_)));
    let ClientEvent::Lost(device) = event else { unreachable!() };
    assert_eq!(device.peer, PeerId([1; 32]));
}

#[test]
fn over_ipv6_on_this_machine() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let port = free_port();
    let mut announcers = [announcer(port, 1, V6)];
    let mut discovery = discovery(port, ClientConfig::default());
    let found = until(&mut discovery, &mut announcers, |e| matches!(e, ClientEvent::Found(_)));
    let ClientEvent::Found(device) = found else { unreachable!() };
    assert_eq!(device.addresses(), [SocketAddr::from((Ipv6Addr::LOCALHOST, 7001))]);
    assert_eq!(discovery.poll(Duration::ZERO).unwrap(), [], "an IPv4 address is not announced");
}

#[test]
fn over_unicast_and_silence_is_told() {
    let port = free_port();
    let mut announcers = [announcer(port, 1, IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let client = |target: SocketAddr| ClientConfig {
        group: false,
        targets: vec![target],
        interval: trunkline_proto::time::Duration::from_millis(500),
        heartbeat: trunkline_proto::time::Duration::from_secs(2),
        ..ClientConfig::default()
    };
    let mut asker = discovery(port, client(target));
    until(&mut asker, &mut announcers, |e| matches!(e, ClientEvent::Found(_)));
    assert_eq!(asker.session(Destination::Host(target)), Some(ClientState::Ready));
    // A mapped address is the same one.
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), port);
    let mut asker = discovery(port, client(mapped));
    until(&mut asker, &mut announcers, |e| matches!(e, ClientEvent::Found(_)));
    // Where nobody is, nobody answers (and a port that is closed does no harm).
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut asker = discovery(port, client(nobody));
    let event = until(&mut asker, &mut announcers, |_| true);
    assert_eq!(event, ClientEvent::Silent(Destination::Host(nobody)));
}

#[test]
fn hostile_datagrams_at_the_sockets() {
    let port = free_port();
    let mut announcers = [announcer(port, 1, V4)];
    let rogue = UdpSocket::bind("127.0.0.1:0").unwrap();
    rogue.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let host = SocketAddr::from(([127, 0, 0, 1], port));
    let mut question = vec![0x0B, b'T', b'K', b'P', 1, 1];
    question.resize(256, 0);
    let large = vec![0x0B; 60_000];
    for datagram in [&b""[..], b"x", &question[..255], &large, &[0x40; 64], &[0; 20]] {
        rogue.send_to(datagram, host).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while announcers[0].counts().malformed < 6 {
        announcers[0].poll(Duration::from_millis(5)).unwrap();
        assert!(Instant::now() < deadline, "{:?}", announcers[0].counts());
    }
    let mut buf = [0; 600];
    assert!(rogue.recv_from(&mut buf).is_err(), "no answer to any of them");
    // A flood: the rate of one source, and never more bytes than were sent.
    for n in 0..2000u16 {
        question[6..8].copy_from_slice(&n.to_be_bytes());
        rogue.send_to(&question, host).unwrap();
        announcers[0].poll(Duration::ZERO).unwrap();
    }
    announcers[0].poll(Duration::from_millis(200)).unwrap();
    let mut answered = 0;
    while let Ok((len, from)) = rogue.recv_from(&mut buf) {
        assert!(len <= 256 && from == host);
        answered += 1;
    }
    let counts = announcers[0].counts();
    assert!(answered >= 1 && counts.rate_limited >= 1000, "{answered} {counts:?}");
    // Still there for others: another address of this machine is another source.
    let mut discovery = discovery(port, ClientConfig::default());
    let other = UdpSocket::bind("127.0.0.2:0");
    if let Ok(other) = other {
        other.send_to(&question, host).unwrap();
        other.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while other.recv_from(&mut buf).is_err() {
            announcers[0].poll(Duration::ZERO).unwrap();
            assert!(Instant::now() < deadline);
        }
    }
    until(&mut discovery, &mut announcers, |e| matches!(e, ClientEvent::Found(_)));
}

#[test]
fn errors_name_the_interface_and_the_address() {
    // Somebody who does not share has the port.
    let port = free_port();
    let taken = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let told = Announcement::new("x", "test", PeerId([1; 32]), 7000);
    let start = |names: Vec<String>| {
        let interfaces = Interfaces { names, ipv6: false, ..Interfaces::default() };
        let config = AnnouncerConfig {
            interfaces,
            port,
            ..AnnouncerConfig::new(told.clone(), Ipv4Addr::LOCALHOST.into())
        };
        Announcer::start(config)
    };
    let lo = loopback().names;
    match start(lo.clone()) {
        Err(DiscoveryError::NoInterface(problems)) => {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|p| p.contains(&format!("bind 127.0.0.1:{port}"))), "{all:?}");
        }
        Ok(announcer) => {
            // The group's socket could be had; the other problem is told.
            let problems = announcer.problems();
            let text = problems[0].to_string();
            assert!(text.contains(&lo[0]) && text.contains("127.0.0.1"), "{text}");
            assert_eq!(problems[0].kind, std::io::ErrorKind::AddrInUse);
        }
        Err(other) => panic!("{other}"),
    }
    drop(taken);
    let error = start(vec!["no-such-interface".into()]).unwrap_err();
    assert!(error.to_string().contains("no network interface"), "{error}");
    let error = Discovery::start(DiscoveryConfig::for_service("a b")).unwrap_err();
    assert!(error.to_string().contains("service"), "{error}");
}

#[test]
fn polling_takes_no_longer_than_allowed_and_the_descriptor_wakes() {
    let port = free_port();
    let mut discovery = discovery(port, ClientConfig::default());
    let begun = Instant::now();
    assert_eq!(discovery.poll(Duration::from_millis(50)).unwrap(), []);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert!(discovery.next_timeout() > begun);
    let begun = Instant::now();
    assert!(discovery.find(Duration::from_millis(300)).unwrap().is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(discovery.counts().asked >= 2, "{:?}", discovery.counts());
    #[cfg(target_os = "linux")]
    {
        let mut host = announcer(port, 1, V4);
        host.poll(Duration::ZERO).unwrap();
        let fd = host.as_raw_fd();
        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.send_to(b"x", ("127.0.0.1", port)).unwrap();
        assert!(crate::sys::sleep_readable(fd, PATIENCE).unwrap());
    }
}

#[test]
fn a_wait_ends_when_another_thread_says_so() {
    let port = free_port();
    let mut discovery = discovery(port, ClientConfig::default());
    let mut host = announcer(port + 1, 1, V4);
    let wakers = [discovery.waker(), host.waker()];
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(discovery.poll(Duration::MAX).unwrap(), []));
        scope.spawn(|| host.poll(Duration::MAX).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        for waker in &wakers {
            waker.wake().unwrap();
        }
    });
    assert!(begun.elapsed() < PATIENCE);
    // One that comes too early counts for the next wait, and for no other.
    wakers[0].wake().unwrap();
    discovery.poll(PATIENCE).unwrap();
    let begun = Instant::now();
    discovery.poll(Duration::from_millis(50)).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(50));
}
