//! Whole shards in one thread: over a simulated network under a virtual clock, and over loopback
//! with a middleman.

use super::*;
use crate::config::{ConnectConfig, EngineConfig, ListenConfig};
use crate::handle::{Channel, Conn, ListenerId};
use crate::io::{DriverConfig, Faults, MioDriver, SimConfig, SimDriver, SimNetwork};
use crate::security::{Identity, Trust};
use crate::shard::local::LocalShard;
use std::net::SocketAddr;
use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::event::{ChannelRequest, CloseReport, Incoming};
use trunkline_proto::status::Status;

fn identity() -> Identity {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let cert =
        rcgen::CertificateParams::new(vec!["host".into()]).unwrap().self_signed(&key).unwrap();
    Identity::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

/// Takes everything, and remembers what came.
#[derive(Default)]
struct Taker {
    statuses: Vec<Status>,
    bytes: Vec<u8>,
    messages: Vec<Vec<u8>>,
    eof: usize,
    dead: Vec<CloseReport>,
    timers: Vec<u64>,
    unsent: Option<(Channel, Vec<u8>)>,
}

impl Taker {
    fn push(&mut self, cx: &mut Context<'_>) {
        let Some((channel, bytes)) = &mut self.unsent else { return };
        while !bytes.is_empty() {
            let part = bytes.len().min(50_000);
            if cx.send(*channel, &bytes[..part]).is_err() {
                return;
            }
            bytes.drain(..part);
        }
        cx.finish(*channel).unwrap();
        self.unsent = None;
    }
}

impl Handler for Taker {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        cx.accept(conn).unwrap();
    }

    fn on_status(
        &mut self,
        _: &mut Context<'_>,
        _: Conn,
        _: Status,
        new: Status,
        _: Option<&CloseReason>,
    ) {
        self.statuses.push(new);
    }

    fn on_channel_request(&mut self, cx: &mut Context<'_>, ch: Channel, _: &ChannelRequest<'_>) {
        cx.accept_channel(ch, &ChannelOptions::default()).unwrap();
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: Channel, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: Channel, _: ChannelKind, m: &[u8]) {
        self.messages.push(m.to_vec());
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.eof += 1;
        let _ = cx.finish(channel);
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.push(cx);
    }

    fn on_dead(&mut self, _: &mut Context<'_>, _: Conn, report: &CloseReport) {
        self.dead.push(report.clone());
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        self.timers.push(token);
        if token < 3 {
            cx.set_timer(Duration::from_millis(10), token + 1);
        }
    }
}

struct SimPair {
    network: SimNetwork,
    host: LocalShard<Taker, SimDriver>,
    client: LocalShard<Taker, SimDriver>,
    connect: ConnectConfig,
}

impl SimPair {
    fn new(sim: &SimConfig, config: EngineConfig) -> Self {
        let network = SimNetwork::new(sim);
        let (host_addr, client_addr): (SocketAddr, SocketAddr) =
            ("10.0.0.1:7470".parse().unwrap(), "10.0.0.2:5000".parse().unwrap());
        let identity = identity();
        let driver = |addr| {
            let mut driver = network.driver(&DriverConfig::default()).unwrap();
            let socket = driver.bind(addr).unwrap();
            (driver, socket)
        };
        let (driver, socket) = driver(host_addr);
        let mut host = LocalShard::with_driver(config.clone(), driver, Taker::default()).unwrap();
        host.listen_on(socket, &ListenConfig::new(host_addr, identity.clone())).unwrap();
        let mut driver = network.driver(&DriverConfig::default()).unwrap();
        let socket = driver.bind(client_addr).unwrap();
        let mut client = LocalShard::with_driver(config, driver, Taker::default()).unwrap();
        client.connect_through(socket, client_addr).unwrap();
        let connect = ConnectConfig::new(host_addr, Trust::Pins(vec![identity.peer_id()]));
        Self { network, host, client, connect }
    }

    /// Runs the network until `done`; at most `limit` of virtual time.
    fn run(&mut self, limit: std::time::Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let start = self.network.now();
        let zero = Some(std::time::Duration::ZERO);
        while !done(self) {
            let passed = self.network.now() - start;
            assert!(passed < limit, "not done after {passed:?} of virtual time");
            let happened = self.host.poll(zero).unwrap() + self.client.poll(zero).unwrap();
            if happened > 0 {
                continue;
            }
            let now = self.network.now();
            let arrival = self.network.next_arrival().map(|at| at.saturating_duration_since(now));
            let next = [arrival, self.host.next_timeout(), self.client.next_timeout()];
            let step = next.into_iter().flatten().min().expect("nothing will ever happen");
            self.network.advance(step.max(std::time::Duration::from_nanos(1)));
        }
    }
}

const SECONDS: fn(u64) -> std::time::Duration = std::time::Duration::from_secs;

#[test]
fn a_transfer_over_a_bad_simulated_network() {
    let sim = SimConfig {
        seed: 42,
        faults: Faults {
            loss: 0.05,
            delay: std::time::Duration::from_millis(20),
            ..Faults::default()
        },
        ..SimConfig::default()
    };
    let config = EngineConfig { dangerous_seed: Some([9; 32]), ..EngineConfig::default() };
    let mut pair = SimPair::new(&sim, config);
    let connect = pair.connect.clone();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|i| (i * 7 / 3) as u8).collect();
    let sent = bytes.clone();
    let conn = pair
        .client
        .with_context(|cx, taker| {
            let conn = cx.connect(&connect).unwrap();
            let ch = cx.open_channel(conn, "bulk", &ChannelOptions::default()).unwrap();
            taker.unsent = Some((ch, sent));
            taker.push(cx);
            conn
        })
        .unwrap();
    pair.run(SECONDS(120), |p| p.host.handler_mut().unwrap().eof == 1);
    assert!(pair.host.handler_mut().unwrap().bytes == bytes);
    let linger = Some(Duration::from_secs(10));
    pair.client.with_context(|cx, _| cx.close(conn, 1000, "", linger).unwrap()).unwrap();
    pair.run(SECONDS(60), |p| p.client.handler_mut().unwrap().dead.len() == 1);
    let report = pair.client.handler_mut().unwrap().dead[0].clone();
    assert_eq!(report.undelivered_bytes, 0);
    assert_eq!(pair.client.handler_mut().unwrap().statuses, [Status::Connected]);
    pair.run(SECONDS(60), |p| {
        p.host.handler_mut().unwrap().statuses == [Status::Connected, Status::ClosedByPeer]
    });
    assert_eq!(pair.client.next_timeout(), None, "no timer is left");
}

#[test]
fn a_peer_that_vanishes_times_out_and_an_end_waits_for_no_one() {
    let mut pair = SimPair::new(&SimConfig::default(), EngineConfig::default());
    let connect = pair.connect.clone();
    pair.client.with_context(|cx, _| cx.connect(&connect).unwrap()).unwrap();
    pair.run(SECONDS(5), |p| p.client.handler_mut().unwrap().statuses == [Status::Connected]);
    pair.network.set_faults(Faults { loss: 1.0, ..Faults::default() });
    let before = pair.network.now();
    pair.run(SECONDS(30), |p| {
        p.client.handler_mut().unwrap().statuses.last() == Some(&Status::ProblemDetectedLocally)
    });
    let waited = pair.network.now() - before;
    assert!((SECONDS(9)..SECONDS(12)).contains(&waited), "{waited:?}");
    pair.client.begin_shutdown(SECONDS(1));
    pair.run(SECONDS(10), |p| p.client.is_finished());
    assert_eq!(pair.client.take_report().unwrap().connections.len(), 1);
}

#[test]
fn timers_of_the_application_follow_the_clock() {
    let mut pair = SimPair::new(&SimConfig::default(), EngineConfig::default());
    let start = pair.network.now();
    pair.host.with_context(|cx, _| {
        cx.set_timer(Duration::from_millis(5), 1);
        let cancelled = cx.set_timer(Duration::from_millis(1), 77);
        assert!(cx.cancel_timer(cancelled));
    });
    pair.run(SECONDS(1), |p| p.host.handler_mut().unwrap().timers == [1, 2, 3]);
    let passed = pair.network.now() - start;
    let ms = std::time::Duration::from_millis;
    assert!((ms(25)..ms(26)).contains(&passed), "{passed:?}");
}

#[test]
fn requests_are_limited_for_each_source_and_denied_by_list() {
    let config = EngineConfig { handshakes_per_source_per_s: 1, ..EngineConfig::default() };
    let mut pair = SimPair::new(&SimConfig::default(), config);
    let mut connect = pair.connect.clone();
    connect.reuse = crate::config::Reuse::ForceNew;
    pair.client.with_context(|cx, _| {
        for _ in 0..6 {
            cx.connect(&connect).unwrap();
        }
    });
    let connected = |p: &mut SimPair| {
        p.client.handler_mut().unwrap().statuses.iter().filter(|s| **s == Status::Connected).count()
    };
    let start = pair.network.now();
    let network = pair.network.clone();
    pair.run(SECONDS(5), move |_| network.now() - start > std::time::Duration::from_millis(200));
    assert_eq!(connected(&mut pair), 2, "a burst of two");
    assert!(pair.host.stats().counts.requests_limited >= 4);
    let deny = vec!["10.0.0.2".parse().unwrap()];
    pair.host.port().control(Control::Deny(deny)).unwrap();
    let start = pair.network.now();
    let network = pair.network.clone();
    pair.run(SECONDS(8), move |_| network.now() - start > SECONDS(4));
    assert_eq!(connected(&mut pair), 2);
    assert!(pair.host.stats().counts.requests_denied > 0);
}

#[test]
fn a_host_that_was_restarted_says_so() {
    let identity = identity();
    let config = EngineConfig { identity: Some(identity.clone()), ..EngineConfig::default() };
    let network = SimNetwork::new(&SimConfig::default());
    let host_addr: SocketAddr = "10.0.0.1:7470".parse().unwrap();
    let client_addr: SocketAddr = "10.0.0.2:5000".parse().unwrap();
    let start_host = || {
        let mut driver = network.driver(&DriverConfig::default()).unwrap();
        let socket = driver.bind(host_addr).unwrap();
        let mut host = LocalShard::with_driver(config.clone(), driver, Taker::default()).unwrap();
        host.listen_on(socket, &ListenConfig::new(host_addr, identity.clone())).unwrap();
        host
    };
    let mut driver = network.driver(&DriverConfig::default()).unwrap();
    let socket = driver.bind(client_addr).unwrap();
    let mut client =
        LocalShard::with_driver(EngineConfig::default(), driver, Taker::default()).unwrap();
    client.connect_through(socket, client_addr).unwrap();
    let connect = ConnectConfig::new(host_addr, Trust::Pins(vec![identity.peer_id()]));
    client.with_context(|cx, _| cx.connect(&connect).unwrap()).unwrap();
    let mut pair = SimPair { network: network.clone(), host: start_host(), client, connect };
    pair.run(SECONDS(5), |p| p.client.handler_mut().unwrap().statuses == [Status::Connected]);
    // What the dying host still says is lost.
    network.set_faults(Faults { loss: 1.0, ..Faults::default() });
    pair.host.driver_mut().remove_socket(0).unwrap();
    pair.host = start_host();
    network.set_faults(Faults::default());
    let before = network.now();
    pair.run(SECONDS(8), |p| {
        p.client.handler_mut().unwrap().statuses.last() == Some(&Status::ClosedByPeer)
    });
    assert!(network.now() - before < SECONDS(5), "sooner than the timeout");
    assert!(pair.host.stats().endpoint.resets_sent > 0);
}

/// A shard with a socket of its own, as if it were one of a group.
fn member(
    shared: &Arc<Shared>,
    shard: u8,
    id: ListenerId,
    identity: &Identity,
) -> (Shard<Taker, MioDriver>, SocketAddr) {
    let driver = MioDriver::new(&shared.config.driver_config()).unwrap();
    let mailbox = Arc::new(Mailbox::new(64));
    let mut this = Shard::new(shared.clone(), shard, driver, Taker::default(), mailbox).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let config =
        control::listener_config(&ListenConfig::new(addr, identity.clone()), None).unwrap();
    this.core
        .listen(AddListener {
            id,
            addr,
            socket: Some(socket),
            stream: None,
            stun: false,
            links: crate::config::Links::DATAGRAM,
            config,
            result: None,
        })
        .unwrap();
    this.attach_sockets();
    (this, addr)
}

#[test]
fn packets_that_land_on_the_wrong_shard_are_forwarded() {
    let identity = identity();
    let config = EngineConfig { shards: 2, ..EngineConfig::default() };
    let shared =
        Shared::with_origin(config, crate::io::DriverChoice::Mio, std::time::Instant::now())
            .unwrap();
    let id = shared.new_listener();
    let (mut right, right_addr) = member(&shared, 0, id, &identity);
    let (mut wrong, wrong_addr) = member(&shared, 1, id, &identity);
    // A middleman gives long packets to the right shard and short ones to the wrong one.
    let front = UdpSocket::bind("127.0.0.1:0").unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [&front, &back] {
        socket.set_nonblocking(true).unwrap();
    }
    let connect =
        ConnectConfig::new(front.local_addr().unwrap(), Trust::Pins(vec![identity.peer_id()]));
    let connection = ConnectionConfig { max_packet: 1452, ..ConnectionConfig::default() };
    let driver = crate::io::DriverChoice::Mio;
    let local = EngineConfig { driver, connection, ..EngineConfig::default() };
    let mut client = LocalShard::new(local, Taker::default()).unwrap();
    let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
    client
        .with_context(|cx, _| {
            let conn = cx.connect(&connect).unwrap();
            let ch = cx.open_channel(conn, "x", &options).unwrap();
            for i in 0..20u8 {
                cx.send(ch, &[i; 3000]).unwrap();
            }
            cx.finish(ch).unwrap();
        })
        .unwrap();
    let mut client_addr = None;
    let mut buf = vec![0; 65_536];
    let start = std::time::Instant::now();
    let zero = Some(std::time::Duration::ZERO);
    while right.handler.get().unwrap().eof == 0 {
        assert!(start.elapsed() < SECONDS(10), "{:?}", shared.counters[0].read());
        client.poll(Some(std::time::Duration::from_micros(200))).unwrap();
        while let Ok((len, from)) = front.recv_from(&mut buf) {
            client_addr = Some(from);
            let to = if buf[0] & 0x80 == 0 { wrong_addr } else { right_addr };
            back.send_to(&buf[..len], to).unwrap();
        }
        for shard in [&mut right, &mut wrong] {
            shard.turn(zero).unwrap();
            shard.driver.flush().unwrap();
        }
        while let Ok((len, _)) = back.recv_from(&mut buf) {
            front.send_to(&buf[..len], client_addr.unwrap()).unwrap();
        }
    }
    let messages = &right.handler.get().unwrap().messages;
    assert_eq!(messages.len(), 20);
    assert!(messages.iter().enumerate().all(|(i, m)| *m == [i as u8; 3000]));
    let (here, there) = (shared.counters[0].read(), shared.counters[1].read());
    assert!(there.forwards_sent > 20, "{there:?}");
    assert_eq!(here.forwards_received + there.forwards_dropped, there.forwards_sent);
    assert_eq!(wrong.core.endpoint.connections().count(), 0);
}
