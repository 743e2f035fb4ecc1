//! Making a connection: both orders, large flights, retries, restarts, limits.

use crate::seeded;
use crate::sim::forge::{self, Long};
use crate::sim::node::NodeConfig;
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::{Flow, Packet, Size, Verdict, World, ms, secs, tls};
use std::cell::RefCell;
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::{ClientConfig, RetryPolicy};
use trunkline_proto::error::Reason;
use trunkline_proto::handshake::Trust;
use trunkline_proto::ids::Role;
use trunkline_proto::limits::{AMPLIFICATION_FACTOR, MIN_PACKET};
use trunkline_proto::status::Status;

/// Packets that were seen on the network.
type Seen = Rc<RefCell<Vec<Packet>>>;

fn record(w: &mut World) -> Seen {
    let seen = Seen::default();
    let log = seen.clone();
    w.set_hook(move |p| {
        log.borrow_mut().push(p.clone());
        Verdict::Pass
    });
    seen
}

/// Sends something both ways and waits for it.
fn exchange(pair: &mut Pair, name: &str) {
    let flow = Flow::of(20_000, Size::Mixed(3_000));
    pair.host().policy.answer = Box::new(move |_, _| Flow::of(30_000, Size::Mixed(3_000)));
    pair.open(CLIENT, name, ChannelKind::Bytes, flow);
    pair.await_eof(HOST, name, secs(60));
    pair.await_eof(CLIENT, name, secs(60));
    pair.check_delivery();
}

#[test]
fn a_connection_is_made_and_both_sides_know_it() {
    let mut pair = Pair::apart(1, NodeConfig::client(), NodeConfig::host());
    let seen = record(&mut pair.w);
    pair.connect();
    let (client, host) = (pair.w.addr(CLIENT), pair.w.addr(HOST));
    let info = |pair: &Pair, node: usize| {
        pair.w.nodes[node].endpoint.info(pair.handle(node)).expect("an open connection")
    };
    let (c, h) = (info(&pair, CLIENT), info(&pair, HOST));
    assert_eq!((c.role, h.role), (Role::Client, Role::Host));
    assert_eq!((c.status, h.status), (Status::Connected, Status::Connected));
    assert_eq!((c.remote, h.remote), (host, client));
    assert_eq!(c.peer, Some(tls::host_id().peer_id()));
    assert_eq!(h.peer, None, "the host did not ask for a certificate");
    assert_eq!(c.suite, Some("TLS13_AES_128_GCM_SHA256"));
    assert!(!c.resumed);
    assert_eq!(pair.conn(HOST).server_name.as_deref(), Some(tls::HOST_NAME));
    let first = seen.borrow()[0].clone();
    assert_eq!(first.long_kind(), Some((forge::CONNECTION_REQUEST, 0)));
    assert!(first.data.len() >= MIN_PACKET, "the first packet has {} bytes", first.data.len());
    // One round trip for ConnectionRequest and ConnectionResponse, half of one for the
    // AuthenticationRequest, half of one for the answer.
    assert!(pair.now().as_nanos() <= ms(41).as_nanos(), "{:?}", pair.now());
    exchange(&mut pair, "both ways");
    pair.finish();
}

#[test]
fn large_certificate_chain_under_loss() {
    let (identity, root) = tls::large_chain(6, 4_000);
    let size: usize = identity.certificates().iter().map(|c| c.len()).sum();
    assert!(size > 32_000, "{size} bytes of certificates");
    seeded("handshake::large_certificate_chain_under_loss", 24, |seed| {
        let client = NodeConfig::client().with(|c| c.initial_timeout = secs(60));
        let mut host = NodeConfig::host().with(|c| c.initial_timeout = secs(60));
        host.identity = identity.clone();
        let mut pair = Pair::apart(seed, client, host);
        pair.link(|link| {
            link.loss = [0, 500, 2_000][(seed % 3) as usize];
            link.reorder = 1_000;
            link.duplicate = 300;
            link.delay = ms(40);
        });
        // Until the first packet under handshake keys came from the client, its address is not
        // proven.
        let counts = Rc::new(RefCell::new((0u64, 0u64, false)));
        let log = counts.clone();
        let client_addr = pair.w.addr(CLIENT);
        pair.w.set_hook(move |p| {
            let (received, sent, proven) = &mut *log.borrow_mut();
            if p.from == client_addr {
                *received += p.data.len() as u64;
                *proven |= p.long_kind() != Some((forge::CONNECTION_REQUEST, 0));
            } else if !*proven {
                *sent += p.data.len() as u64;
                assert!(*sent <= AMPLIFICATION_FACTOR * *received, "{sent} for {received} bytes");
            }
            Verdict::Pass
        });
        let now = pair.now();
        let to = pair.w.addr(HOST);
        let config = ClientConfig {
            tls: tls::client_tls(&Trust::Roots(vec![root.clone().into()]), None),
            ..pair.client().client_config()
        };
        pair.c = pair.client().connect(now, &[to], &config);
        pair.await_connected();
        pair.w.clear_hook();
        exchange(&mut pair, "after it");
        pair.finish();
    });
}

#[test]
fn both_connect_to_each_other_at_once() {
    seeded("handshake::both_connect_to_each_other_at_once", 10, |seed| {
        let mut w = World::new(seed);
        w.link.loss = 500;
        w.link.jitter = ms(8);
        let mut a = NodeConfig::host();
        a.identity = tls::client_id().clone();
        w.add("a", a);
        w.add("b", NodeConfig::host());
        let (to_a, to_b) = (w.addr(0), w.addr(1));
        let trust = |id: usize| {
            let peer = [tls::client_id(), tls::host_id()][id].peer_id();
            tls::client_tls(&Trust::Pins(vec![peer]), None)
        };
        let config = |w: &World, tls| ClientConfig { tls, ..w.nodes[0].client_config() };
        let (now, one, two) = (w.now, config(&w, trust(1)), config(&w, trust(0)));
        let a_conn = w.nodes[0].connect(now, &[to_b], &one);
        let b_conn = w.nodes[1].connect(now, &[to_a], &two);
        w.run_until("both have both connections", secs(20), |w| {
            w.nodes.iter().all(|n| {
                n.app.conns.len() == 2
                    && n.app.conns.values().all(|c| c.status == Status::Connected)
            })
        });
        for (node, conn, name) in [(0, a_conn, "from a"), (1, b_conn, "from b")] {
            let flow = Flow::of(5_000, Size::Mixed(500));
            let options = trunkline_proto::config::ChannelOptions::default();
            w.nodes[node].open(w.now, conn, name, options, flow).expect("open");
        }
        w.run_until("both got all", secs(20), |w| {
            w.nodes
                .iter()
                .all(|n| n.app.conns.values().flat_map(|c| c.channels.values()).any(|ch| ch.eof))
        });
        w.finish();
    });
}

#[test]
fn a_retry_proves_the_address_and_keeps_no_state() {
    seeded("handshake::a_retry_proves_the_address_and_keeps_no_state", 10, |seed| {
        let mut host = NodeConfig::host();
        host.retry = RetryPolicy::Always;
        let mut pair = Pair::apart(seed, NodeConfig::client(), host);
        pair.link(|link| link.loss = [0, 1_000][(seed % 2) as usize]);
        let seen = record(&mut pair.w);
        pair.start();
        pair.w.run_until("a retry is on its way", secs(20), |_| {
            seen.borrow().iter().any(|p| p.long_kind() == Some((forge::RETRY, 0)))
        });
        assert!(pair.host().is_empty(), "a request without token made a connection");
        pair.await_connected();
        let tokens: Vec<usize> = seen
            .borrow()
            .iter()
            .filter_map(|p| Long::parse(&p.data))
            .filter(|l| l.message == forge::CONNECTION_REQUEST)
            .map(|l| l.token.len())
            .collect();
        assert_eq!(tokens[0], 0);
        assert!(tokens.iter().any(|len| *len > 0), "the token never came back");
        exchange(&mut pair, "after a retry");
        pair.finish();
    });
}

#[test]
fn a_retry_token_serves_its_address_and_its_time_only() {
    let mut host = NodeConfig::host();
    host.retry = RetryPolicy::Always;
    let mut pair = Pair::apart(7, NodeConfig::client(), host);
    let seen = record(&mut pair.w);
    pair.connect();
    let with_token = seen
        .borrow()
        .iter()
        .find(|p| Long::parse(&p.data).is_some_and(|l| !l.token.is_empty()))
        .cloned()
        .expect("a request with a token");
    pair.w.finish();
    let to = pair.w.addr(HOST);
    let connections = |pair: &Pair| pair.w.nodes[HOST].endpoint.connections().count();
    // Another address, while the token is fresh: at most another Retry.
    let other = "10.9.9.9:999".parse().expect("an address");
    pair.w.inject(other, to, with_token.data.clone(), ms(1));
    pair.w.run_for(ms(100));
    assert_eq!(connections(&pair), 0, "a token of another address was accepted");
    // Its own address, a minute later.
    pair.w.run_for(secs(60));
    pair.w.inject(with_token.from, to, with_token.data, ms(1));
    pair.w.run_for(ms(100));
    assert_eq!(connections(&pair), 0, "an old token was accepted");
    let (_, bytes) = pair.w.astray.get(&other).copied().unwrap_or_default();
    assert!(bytes <= AMPLIFICATION_FACTOR * 1_452);
}

#[test]
fn a_loaded_host_asks_for_a_retry() {
    let mut host = NodeConfig::host();
    host.retry = RetryPolicy::WhenLoaded(4);
    let mut pair = Pair::apart(3, NodeConfig::client(), host);
    let seen = record(&mut pair.w);
    pair.start();
    let request = seen_request(&mut pair, &seen);
    pair.await_connected();
    // Requests that nobody will ever answer for, each with ids of its own.
    for i in 0..8u8 {
        let from = format!("10.8.0.{}:77", i + 1).parse().expect("an address");
        let forged = forged_request(&request, i);
        let to = pair.w.addr(HOST);
        pair.w.inject(from, to, forged, ms(1 + u64::from(i)));
    }
    pair.w.run_for(ms(50));
    seen.borrow_mut().clear();
    pair.start();
    pair.await_connected();
    let retried = seen.borrow().iter().any(|p| p.long_kind() == Some((forge::RETRY, 0)));
    assert!(retried, "eight handshakes under way and no retry");
    pair.w.run_for(secs(15));
    pair.finish();
}

/// The client's first ConnectionRequest.
fn seen_request(pair: &mut Pair, seen: &Seen) -> Packet {
    pair.w.run_until("a request is sent", secs(1), |_| !seen.borrow().is_empty());
    seen.borrow()[0].clone()
}

/// A valid request that has the ClientHello of `request` and other ids.
fn forged_request(request: &Packet, number: u8) -> Vec<u8> {
    let old = Long::parse(&request.data).expect("a long packet");
    let frames = forge::InitialKeys::of(&old.dcid, rustls::Side::Server)
        .open(&request.data)
        .expect("everybody can open it");
    let new = Long { dcid: vec![number + 1; 8], scid: vec![number + 101; 8], ..old };
    forge::InitialKeys::of(&new.dcid, rustls::Side::Client).seal(&new, frames, MIN_PACKET)
}

#[test]
fn spoofed_requests_get_at_most_three_times_back() {
    let (identity, _) = tls::large_chain(6, 4_000);
    seeded("handshake::spoofed_requests_get_at_most_three_times_back", 6, |seed| {
        let mut host = NodeConfig::host();
        host.identity = identity.clone();
        let mut pair = Pair::apart(seed, NodeConfig::client(), host);
        let seen = record(&mut pair.w);
        pair.start();
        let request = seen_request(&mut pair, &seen);
        let to = pair.w.addr(HOST);
        let mut sent = std::collections::BTreeMap::new();
        for i in 0..10u8 {
            let from: std::net::SocketAddr = format!("10.7.0.{}:7", i + 1).parse().expect("addr");
            let mut packet = forged_request(&request, i);
            match i % 5 {
                // Too small a datagram deserves no answer at all.
                1 => packet = forge_small(&request, i),
                // A version that the host does not know.
                2 => packet[1..5].copy_from_slice(&[1, 2, 3, 4]),
                // A short packet of a connection that never was.
                3 => packet[0] = 0x40,
                _ => {}
            }
            for n in 0..=seed % 4 {
                *sent.entry(from).or_insert(0) += packet.len() as u64;
                pair.w.inject(from, to, packet.clone(), ms(1 + n * 300));
            }
        }
        pair.w.run_for(secs(40));
        for (addr, bytes) in &sent {
            let (packets, back) = pair.w.astray.get(addr).copied().unwrap_or_default();
            let limit = AMPLIFICATION_FACTOR * bytes;
            assert!(back <= limit, "{addr}: {back} bytes in {packets} packets for {bytes}");
        }
        let to_small = "10.7.0.2:7".parse().expect("an address");
        assert_eq!(pair.w.astray.get(&to_small), None, "an unpadded request was answered");
        assert!(pair.w.astray.len() >= 6, "the others were answered: {:?}", pair.w.astray);
        pair.w.finish();
    });
}

fn forge_small(request: &Packet, number: u8) -> Vec<u8> {
    let old = Long::parse(&request.data).expect("a long packet");
    let frames = forge::InitialKeys::of(&old.dcid, rustls::Side::Server)
        .open(&request.data)
        .expect("everybody can open it");
    let used = frames.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let new = Long { dcid: vec![number + 1; 8], scid: vec![number + 101; 8], ..old };
    let packet = forge::InitialKeys::of(&new.dcid, rustls::Side::Client).seal(
        &new,
        frames[..used].to_vec(),
        0,
    );
    assert!(packet.len() < MIN_PACKET);
    packet
}

#[test]
fn stateless_reset_after_a_restart() {
    seeded("handshake::stateless_reset_after_a_restart", 10, |seed| {
        let mut pair = Pair::connected(seed);
        exchange(&mut pair, "before");
        pair.settle();
        let seen = record(&mut pair.w);
        let restarted = if seed % 2 == 0 { HOST } else { CLIENT };
        let other = 1 - restarted;
        pair.w.restart(restarted);
        let start = pair.now();
        pair.open(other, "after", ChannelKind::Bytes, Flow::of(3_000, Size::Fixed(500)));
        pair.run_until("the restart is noticed", secs(2), |pair| pair.conn(other).ended());
        let reason = pair.conn(other).reason.as_ref().map(|r| r.reason);
        assert_eq!(reason, Some(Reason::RESET));
        let took = pair.now().since(start);
        assert!(took <= ms(1_000), "noticed after {} ms", took.as_millis());
        let sizes = |from| {
            let seen = seen.borrow();
            let of: Vec<_> = seen.iter().filter(|p| p.from == from).map(|p| p.data.len()).collect();
            of
        };
        let (causes, resets) = (sizes(pair.w.addr(other)), sizes(pair.w.addr(restarted)));
        assert!(resets.len() <= causes.len());
        assert!(resets.iter().max() < causes.iter().max(), "{resets:?} for {causes:?}");
        pair.w.finish();
        // And a new connection is made as if nothing had been.
        if restarted == HOST {
            pair.connect();
            exchange(&mut pair, "anew");
            pair.finish();
        }
    });
}

#[test]
fn stateless_resets_are_limited_and_cannot_be_guessed() {
    let mut pair = Pair::connected(5);
    exchange(&mut pair, "before");
    pair.settle();
    let seen = record(&mut pair.w);
    pair.open(CLIENT, "more", ChannelKind::Bytes, Flow::of(3_000, Size::Fixed(500)));
    pair.settle();
    let (client, host) = (pair.w.addr(CLIENT), pair.w.addr(HOST));
    let to_client = seen.borrow().iter().rev().find(|p| p.to == client).cloned().expect("a packet");
    // Somebody who knows the ids but not the token.
    for i in 0..50u8 {
        let mut forged = to_client.data.clone();
        forged.resize(40 + usize::from(i), i);
        forged[20..].fill(i);
        pair.w.inject(host, client, forged, ms(u64::from(i)));
    }
    pair.settle();
    assert_eq!(pair.status(CLIENT), Status::Connected);
    // A flood of packets of connections that never were.
    let stranger = "10.6.0.1:6".parse().expect("an address");
    for i in 0..5_000u64 {
        let mut packet = vec![0x40; 200];
        packet[1..9].copy_from_slice(&i.to_be_bytes());
        pair.w.inject(stranger, host, packet, trunkline_proto::time::Duration::from_micros(i));
    }
    pair.settle();
    let (resets, _) = pair.w.astray.get(&stranger).copied().unwrap_or_default();
    assert!(resets < 1_100, "{resets} resets for 5,000 packets in 5 ms");
    exchange(&mut pair, "after");
    pair.finish();
}

#[test]
fn an_old_connection_blocks_no_new_one_from_its_address() {
    seeded("handshake::an_old_connection_blocks_no_new_one_from_its_address", 6, |seed| {
        let mut pair = Pair::connected(seed);
        exchange(&mut pair, "first");
        // The client's process was killed and started again behind the same port.
        pair.w.restart(CLIENT);
        pair.connect();
        exchange(&mut pair, "second");
        assert_eq!(pair.w.nodes[HOST].app.conns.len(), 2);
        pair.finish();
    });
}

#[test]
fn requests_go_to_all_addresses_and_the_first_answer_decides() {
    let mut pair = Pair::apart(4, NodeConfig::client(), NodeConfig::host());
    let (now, host) = (pair.now(), pair.w.addr(HOST));
    let nobody = "10.99.0.1:1".parse().expect("an address");
    let config = pair.client().client_config();
    pair.c = pair.client().connect(now, &[nobody, host], &config);
    pair.await_connected();
    let info = pair.w.nodes[CLIENT].endpoint.info(pair.c).expect("connected");
    assert_eq!(info.remote, host);
    assert!(pair.w.astray.contains_key(&nobody), "nothing went to the first address");
    exchange(&mut pair, "raced");
    let before = pair.w.astray[&nobody].0;
    pair.w.run_for(secs(30));
    assert_eq!(pair.w.astray[&nobody].0, before, "the loser is still being called");
    pair.finish();
}

#[test]
fn a_second_connection_resumes_the_session() {
    let mut pair = Pair::apart(6, NodeConfig::client(), NodeConfig::host());
    let config = pair.client().client_config();
    pair.start_with(&config);
    pair.await_connected();
    pair.settle();
    pair.w.finish();
    pair.start_with(&config);
    pair.await_connected();
    let info = |node: usize| pair.w.nodes[node].endpoint.info(pair.handle(node)).expect("open");
    assert!(info(CLIENT).resumed && info(HOST).resumed, "the ticket was not used");
    assert_eq!(info(CLIENT).peer, Some(tls::host_id().peer_id()), "identity of a resumed peer");
    exchange(&mut pair, "resumed");
    pair.finish();
}

#[test]
fn a_closed_listener_leaves_its_connections_alone() {
    let mut pair = Pair::connected(8);
    pair.w.call(HOST, |ep, _, _| ep.unlisten(0));
    exchange(&mut pair, "still there");
    let old = pair.c;
    pair.start();
    let c = pair.c;
    pair.w.run_until("the new attempt fails", secs(12), |w| w.nodes[CLIENT].app.conn(c).ended());
    assert_eq!(pair.w.nodes[CLIENT].endpoint.status(old), Status::Connected);
    pair.finish();
}

#[test]
fn an_address_that_changes_in_the_handshake() {
    seeded("handshake::an_address_that_changes_in_the_handshake", 30, |seed| {
        let mut host = NodeConfig::host();
        host.retry = [RetryPolicy::Never, RetryPolicy::Always][(seed % 2) as usize];
        let mut pair = Pair::apart(seed, NodeConfig::client(), host);
        pair.start();
        pair.w.run_for(ms(3 * seed));
        pair.w.rebind(CLIENT);
        let c = pair.c;
        pair.w.run_until("the client is connected", secs(12), |w| {
            w.nodes[CLIENT].app.conn(c).status == Status::Connected
        });
        let from = pair.w.addr(CLIENT);
        // The host may have been asked from both addresses; one of them is the client.
        let hosts = &pair.w.nodes[HOST];
        let conns = hosts.app.conns.values().filter(|c| c.status == Status::Connected);
        let conns: Vec<_> = conns.map(|c| c.handle).collect();
        let there = conns
            .iter()
            .find(|h| hosts.endpoint.info(**h).is_some_and(|i| i.remote == from))
            .or(conns.first());
        pair.h = *there.expect("the host is connected");
        exchange(&mut pair, "after it");
        pair.finish();
    });
}

/// So many clients connect in one moment; gives how many came through.
fn crowd(clients: usize, max_handshakes: u32) -> usize {
    let mut host = NodeConfig::host();
    host.max_handshakes = max_handshakes;
    let mut w = World::new(9);
    w.link.loss = 200;
    w.add("client", NodeConfig::client());
    w.add("host", host);
    let (now, to) = (w.now, w.addr(1));
    let config = w.nodes[0].client_config();
    let conns: Vec<_> = (0..clients).map(|_| w.nodes[0].connect(now, &[to], &config)).collect();
    w.run_until("all are connected or refused", secs(10), |w| {
        conns.iter().all(|c| {
            let conn = w.nodes[0].app.conn(*c);
            conn.status == Status::Connected || conn.ended()
        })
    });
    let connected = conns.iter().filter(|c| w.nodes[0].app.conn(**c).status == Status::Connected);
    let connected = connected.count();
    for conn in w.nodes[0].app.conns.values().filter(|c| c.ended()) {
        let reason = conn.reason.as_ref().expect("a reason").reason;
        assert_eq!(reason, Reason::REFUSED);
    }
    w.finish();
    connected
}

#[test]
fn many_clients_at_once() {
    assert_eq!(crowd(200, 256), 200);
    // Those that are too many for the host try again, or are told so.
    let connected = crowd(200, 64);
    assert!(connected >= 64, "{connected} of 200 came through");
}
