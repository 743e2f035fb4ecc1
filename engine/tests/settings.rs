//! Settings of engines, listeners and connects, each seen to work.

mod common;

use common::*;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use trunkline::hw::{Machine, Nic, Profile};
use trunkline::{
    ChannelOptions, ClientAuth, ConnectConfig, DriverChoice, EngineConfig, Event, FaultConfig,
    Faults, ListenConfig, Pinning, QueuedEngine, Reason, Received, RetryPolicy, Reuse, Status,
    Trust,
};

/// Accepts what comes, until `client` has a connection; what the host was told of it.
fn connected(
    host: &QueuedEngine,
    client: &QueuedEngine,
    connect: &ConnectConfig,
) -> Result<(trunkline::Conn, Event), Reason> {
    let conn = client.connect(connect, None).unwrap();
    let start = Instant::now();
    let (mut incoming, mut out) = (None, Vec::new());
    loop {
        assert!(start.elapsed() < Duration::from_secs(15), "no connection and no end");
        host.poll_group().recv_many(&mut out, 16, Some(Duration::from_millis(5)));
        for received in out.drain(..) {
            if let Received::Event(event @ Event::Incoming { conn, .. }) = received {
                host.accept(conn).unwrap();
                incoming = Some(event);
            }
        }
        client.poll_group().recv_many(&mut out, 16, Some(Duration::from_millis(5)));
        for received in out.drain(..) {
            let Received::Event(Event::Status { conn: c, new, reason, .. }) = received else {
                continue;
            };
            if c == conn && new != Status::Connected {
                client.close(conn, 1000, "", None).unwrap();
                return Err(reason.unwrap().reason);
            }
        }
        if client.status(conn) == Status::Connected
            && let Some(incoming) = incoming.take()
        {
            return Ok((conn, incoming));
        }
    }
}

fn mio() -> EngineConfig {
    config(DriverChoice::Mio)
}

#[test]
fn ipv6_and_addresses_that_are_raced() {
    let Ok(probe) = UdpSocket::bind("[::1]:0") else {
        println!("no IPv6 here");
        return;
    };
    for driver in drivers() {
        let identity = identity();
        let host = QueuedEngine::start(config(driver)).unwrap();
        let mut listen = listen(&identity);
        listen.addr = "[::1]:0".parse().unwrap();
        let v6 = host.listen(&listen).unwrap().local_addr;
        let client = QueuedEngine::start(config(driver)).unwrap();
        let (conn, _) = connected(&host, &client, &connect(v6, &identity)).unwrap();
        assert_eq!(client.info(conn).unwrap().remote, v6);
        // One address of each family where nobody answers, and the right one in the middle.
        let dead_v4 = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut raced = connect(dead_v4, &identity);
        raced.remotes.extend([v6, probe.local_addr().unwrap()]);
        connected(&host, &client, &raced).unwrap();
        // The other way round: the host is on IPv4.
        let v4 = host.listen(&common::listen(&identity)).unwrap().local_addr;
        raced.remotes = vec![probe.local_addr().unwrap(), v4];
        connected(&host, &client, &raced).unwrap();
    }
}

#[test]
fn clients_show_who_they_are_and_may_be_refused() {
    let (host_id, client_id, stranger) = (identity(), identity(), identity());
    let host = QueuedEngine::start(mio()).unwrap();
    let addr = host
        .listen(&ListenConfig {
            client_auth: ClientAuth::Required(Trust::Pins(vec![client_id.peer_id()])),
            ..listen(&host_id)
        })
        .unwrap()
        .local_addr;
    let client =
        QueuedEngine::start(EngineConfig { identity: Some(client_id.clone()), ..mio() }).unwrap();
    let mut connect = connect(addr, &host_id);
    connect.credential = b"ticket".to_vec();
    let (_, event) = connected(&host, &client, &connect).unwrap();
    let Event::Incoming { peer, credential, .. } = event else { panic!() };
    assert_eq!(peer, Some(client_id.peer_id()));
    assert_eq!(credential, b"ticket");
    connect.identity = Some(stranger);
    let refused = connected(&host, &client, &connect).unwrap_err();
    assert!([Reason::BAD_CERTIFICATE, Reason::AUTHENTICATION].contains(&refused), "{refused}");
}

#[test]
fn retries_key_logs_and_busy_polling() {
    let path = std::env::temp_dir().join(format!("trunkline-keys-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let identity = identity();
    let busy = Some(Duration::from_millis(20));
    let host =
        QueuedEngine::start(EngineConfig { retry: RetryPolicy::Always, busy_poll: busy, ..mio() })
            .unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client =
        QueuedEngine::start(EngineConfig { key_log: Some(path.clone()), busy_poll: busy, ..mio() })
            .unwrap();
    connected(&host, &client, &connect(addr, &identity)).unwrap();
    assert_eq!(host.engine_stats().shards[0].endpoint.retries, 1);
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(log.lines().any(|l| l.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "{log}");
}

#[test]
fn a_listener_comes_back_while_old_connections_live() {
    let identity = identity();
    let host = QueuedEngine::start(mio()).unwrap();
    let first = host.listen(&listen(&identity)).unwrap();
    let client = QueuedEngine::start(mio()).unwrap();
    let mut connect = connect(first.local_addr, &identity);
    connect.reuse = Reuse::ForceNew;
    let (old, _) = connected(&host, &client, &connect).unwrap();
    host.unlisten(first.id, false);
    connect.connection = Some(trunkline::ConnectionConfig {
        initial_timeout: trunkline::Duration::from_millis(300),
        ..connection()
    });
    assert_eq!(connected(&host, &client, &connect).unwrap_err(), Reason::TIMEOUT);
    // The old socket still has the address, and is used again.
    let config = ListenConfig { addr: first.local_addr, ..listen(&identity) };
    let again = host.listen(&config).unwrap();
    assert!(host.listen(&config).is_err(), "it is in use now");
    assert_eq!(client.status(old), Status::Connected);
    assert_eq!(again.local_addr, first.local_addr);
    connected(&host, &client, &connect).unwrap();
    assert_eq!(client.status(old), Status::Connected);
    host.unlisten(again.id, true);
    wait_until("the address to be free", || UdpSocket::bind(first.local_addr).is_ok());
}

#[test]
fn errors_say_what_is_wrong() {
    let bad = QueuedEngine::start(EngineConfig { shards: 0, ..mio() }).unwrap_err();
    assert!(bad.to_string().contains("shards"), "{bad}");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let host = QueuedEngine::start(mio()).unwrap();
    let config = ListenConfig { addr: taken.local_addr().unwrap(), ..listen(&identity()) };
    let bad = host.listen(&config).unwrap_err();
    assert!(bad.to_string().contains(&taken.local_addr().unwrap().to_string()), "{bad}");
    let none = ConnectConfig { remotes: Vec::new(), ..connect(config.addr, &identity()) };
    assert!(host.connect(&none, None).unwrap_err().to_string().contains("remotes"));
    let pins =
        ConnectConfig { trust: Trust::Pins(Vec::new()), ..connect(config.addr, &identity()) };
    assert!(host.connect(&pins, None).unwrap_err().to_string().contains("trust"));
}

#[cfg(target_os = "linux")]
#[test]
fn threads_have_names_and_places() {
    let core = trunkline::hw::cores()[0];
    let _engine =
        QueuedEngine::start(EngineConfig { pin: Pinning::Cores(vec![core]), ..mio() }).unwrap();
    let places: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok())
        .filter(|status| status.starts_with("Name:\ttrunk-shard-0\n"))
        .collect();
    assert!(!places.is_empty());
    let pinned = format!("Cpus_allowed_list:\t{core}\n");
    assert!(places.iter().any(|status| status.contains(&pinned)), "{places:?}");
}

/// The processors that threads named as shard 0 may run on.
#[cfg(target_os = "linux")]
fn places_of_shards() -> Vec<String> {
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status"));
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let shards = tasks
        .filter_map(|task| status(task.ok()?).ok())
        .filter(|status| status.starts_with("Name:\ttrunk-shard-0\n"));
    let list = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.unwrap_or_default().to_owned()
    };
    shards.map(list).collect()
}

/// Settings of a profile that places shards and shortens trains, on a machine whose first processor
/// takes the interrupts.
fn profiled(driver: DriverChoice) -> EngineConfig {
    const PROFILE: &str = "\
name = 'mine'
description = ''
drivers = []
engine.pin = { value = true, why = 'for the test' }
engine.placement = { value = 'near', why = 'for the test' }
engine.gso_segments = { value = 2, why = 'for the test' }
";
    let cores = trunkline::hw::cores();
    let nic = Nic { irq_cores: cores.iter().take(1).copied().collect(), ..Nic::default() };
    let machine = Machine { cores, nics: vec![nic], ..Machine::default() };
    let mut config = config(driver);
    Profile::parse("mine", PROFILE).unwrap().apply(&mut config, &machine);
    config
}

#[cfg(target_os = "linux")]
#[test]
fn a_profile_places_shards_and_what_is_set_later_goes_before_it() {
    let cores = trunkline::hw::cores();
    let (first, last) = (cores[0], *cores.last().unwrap());
    if first == last {
        return println!("skipped: one processor only");
    }
    let config = profiled(DriverChoice::Mio);
    let placed = QueuedEngine::start(config.clone()).unwrap();
    let Pinning::Cores(chosen) = &config.pin else { panic!() };
    assert_ne!(chosen[0], first, "that one takes the interrupts");
    // Other tests of this process have shards of that name, too, but pin none of them there.
    assert!(places_of_shards().contains(&chosen[0].to_string()));
    drop(placed);
    let config = EngineConfig { pin: Pinning::Cores(vec![first]), ..config };
    let _placed = QueuedEngine::start(config).unwrap();
    assert!(places_of_shards().contains(&first.to_string()));
}

/// Packets a train of a client that sends as much as the other side takes unasked.
fn packets_a_train(client: EngineConfig) -> f64 {
    let identity = identity();
    let host = QueuedEngine::start(config(client.driver)).unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = QueuedEngine::start(client).unwrap();
    let (conn, _) = connected(&host, &client, &connect(addr, &identity)).unwrap();
    let channel = client.open_channel(conn, "x", &ChannelOptions::default()).unwrap();
    let before = client.engine_stats().shards[0].driver;
    client.send(channel, &pattern(200_000, 1)).unwrap();
    let sent = || client.engine_stats().shards[0].driver;
    wait_until("the transfer", || sent().tx_bytes - before.tx_bytes > 200_000);
    let after = sent();
    (after.tx_packets - before.tx_packets) as f64 / (after.tx_trains - before.tx_trains) as f64
}

#[test]
fn a_profile_shortens_trains_and_what_is_set_later_goes_before_it() {
    for driver in drivers() {
        let mut short = profiled(driver);
        // Ethernet's size: on loopback packets would be as long as trains.
        short.connection.max_packet = 1452;
        short.pin = Pinning::None;
        let long = EngineConfig { gso_segments: 64, ..short.clone() };
        let (short, long) = (packets_a_train(short), packets_a_train(long));
        assert!(short > 1.2 && short <= 2.0, "{driver}: {short}");
        assert!(long > 3.0, "{driver}: {long}");
    }
}

#[test]
fn sources_can_be_denied_while_it_runs() {
    let identity = identity();
    let host = QueuedEngine::start(mio()).unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = QueuedEngine::start(mio()).unwrap();
    host.set_deny(&["127.0.0.0/8".parse().unwrap()]);
    // The shard takes its mail in order: after an answer it knows.
    let _ = host.engine_stats();
    let mut connect = connect(addr, &identity);
    connect.connection = Some(trunkline::ConnectionConfig {
        initial_timeout: trunkline::Duration::from_millis(400),
        ..connection()
    });
    assert_eq!(connected(&host, &client, &connect).unwrap_err(), Reason::TIMEOUT);
    assert!(host.engine_stats().total().requests_denied > 0);
    host.set_deny(&[]);
    connected(&host, &client, &connect).unwrap();
}

#[test]
fn a_flood_of_nonsense_leaves_a_connection_alive() {
    let identity = identity();
    let host = QueuedEngine::start(mio()).unwrap();
    let addr: SocketAddr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = QueuedEngine::start(mio()).unwrap();
    let (conn, _) = connected(&host, &client, &connect(addr, &identity)).unwrap();
    let flood = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let start = Instant::now();
        let mut sent = 0u64;
        while start.elapsed() < Duration::from_millis(1500) {
            let mut bytes = pattern((sent % 1400) as usize + 1, sent);
            // Short packets, ConnectionRequests, other long packets, and anything.
            bytes[0] = match sent % 4 {
                0 => 0x40,
                1 => 0x80,
                2 => 0xb0,
                _ => bytes[0],
            };
            let _ = socket.send_to(&bytes, addr);
            sent += 1;
        }
        sent
    });
    let start = Instant::now();
    let mut answered = 0;
    let mut out = Vec::new();
    while !flood.is_finished() {
        client.check(conn).unwrap();
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(3) {
            client.poll_group().recv_many(&mut out, 16, Some(Duration::from_millis(50)));
            if out.drain(..).any(|r| matches!(r, Received::Event(Event::CheckAnswered { .. }))) {
                answered += 1;
                break;
            }
        }
        assert_eq!(client.status(conn), Status::Connected);
    }
    let sent = flood.join().unwrap();
    println!("{sent} sent in {:?}, {answered} checks answered", start.elapsed());
    assert!(answered >= 3, "{answered} round trips during the flood");
    let stats = host.engine_stats();
    assert_eq!(stats.connections(), 1, "nothing lasting came of it");
    let seen = &stats.shards[0];
    assert!(seen.endpoint.malformed + seen.endpoint.unknown_id > 0, "{seen:?}");
    assert!(seen.counts.requests_limited > 0, "{seen:?}");
}

#[test]
fn a_bad_network_can_be_had_for_tests() {
    for driver in drivers() {
        let identity = identity();
        let host = QueuedEngine::start(config(driver)).unwrap();
        let addr = host.listen(&listen(&identity)).unwrap().local_addr;
        let lossy = Faults { loss: 0.1, ..Faults::default() };
        let client = QueuedEngine::start(EngineConfig {
            fault: Some(FaultConfig { seed: 3, outbound: lossy, inbound: lossy, only: Vec::new() }),
            ..config(driver)
        })
        .unwrap();
        let (conn, _) = connected(&host, &client, &connect(addr, &identity)).unwrap();
        let channel = client.open_channel(conn, "x", &ChannelOptions::default()).unwrap();
        let bytes = pattern(1 << 20, 11);
        client.send(channel, &bytes).unwrap();
        client.finish(channel).unwrap();
        let (mut got, mut out, mut eof) = (Vec::new(), Vec::new(), false);
        let start = Instant::now();
        while !eof {
            assert!(start.elapsed() < Duration::from_secs(30), "{driver}: {} bytes", got.len());
            host.poll_group().recv_many(&mut out, 100, Some(Duration::from_millis(20)));
            for received in out.drain(..) {
                match received {
                    Received::Event(Event::ChannelRequest { channel, .. }) => {
                        host.accept_channel(channel, &ChannelOptions::default()).unwrap();
                    }
                    Received::Event(Event::Data { data, .. }) => got.extend_from_slice(&data),
                    Received::Event(Event::Eof { .. }) => eof = true,
                    _ => {}
                }
            }
        }
        assert!(got == bytes);
        assert!(client.stats(conn).unwrap().packets_lost > 0);
    }
}
