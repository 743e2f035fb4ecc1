//! Hostile input: whatever anybody can put into a datagram, beside connections that are at work.
//!
//! Random, damaged, cut, repeated and spliced datagrams, made from the real traffic of the very
//! connections that they are aimed at, arrive between the genuine ones, from the peer's address and
//! from others. The connections lose nothing and notice nothing; nothing is left behind; everything
//! is counted; and no address gets more than three times what came from it.

mod sim;

use sim::forge::{self, InitialKeys, Long};
use sim::link::corrupt;
use sim::node::NodeConfig;
use sim::pair::{CLIENT, HOST, Pair, options};
use sim::rng::Rng;
use sim::{Flow, NodeId, Packet, Size, Verdict, World, ms, secs, seeds};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::{Ecn, EndpointStats, RetryPolicy, Routed, RxMeta};
use trunkline_proto::limits::{AMPLIFICATION_FACTOR, MIN_PACKET, VERSION};
use trunkline_proto::status::Status;
use trunkline_proto::time::Instant;

/// Genuine packets that are remembered to be made into others.
const REMEMBERED: usize = 400;
/// Heap that a flood may leave behind: tables that have grown to their bound.
const LASTING: i64 = 16 * 1024;

type Captured = Rc<RefCell<VecDeque<Packet>>>;

/// Remembers the newest packets between the nodes, long ones (there are few) for longer. What goes
/// to others is left out: passing it on would be a path like any other.
fn capture(w: &mut World) -> (Captured, Captured) {
    let (short, long) = (Captured::default(), Captured::default());
    let logs = (short.clone(), long.clone());
    let nodes: Vec<_> = w.nodes.iter().map(|n| n.addr).collect();
    w.set_hook(move |p| {
        if !nodes.contains(&p.to) {
            return Verdict::Pass;
        }
        let mut log = if p.is_long() { logs.1.borrow_mut() } else { logs.0.borrow_mut() };
        if log.len() == REMEMBERED {
            log.pop_front();
        }
        log.push_back(p.clone());
        Verdict::Pass
    });
    (short, long)
}

/// Somebody who sees everything, can send anything from any address, and has no keys.
struct Attacker {
    rng: Rng,
    short: Captured,
    long: Captured,
    sent: u64,
    /// Every datagram must be counted as refused: not so in the middle of a handshake, whose first
    /// packets anybody can make, and may repeat.
    strict: bool,
}

impl Attacker {
    fn new(w: &mut World, seed: u64) -> Self {
        let (short, long) = capture(w);
        Self { rng: Rng::new(seed).fork(77), short, long, sent: 0, strict: true }
    }

    fn pick(&mut self, long: bool) -> Option<Packet> {
        let log = if long { self.long.clone() } else { self.short.clone() };
        let log = log.borrow();
        (!log.is_empty()).then(|| log[self.rng.below(log.len() as u64) as usize].clone())
    }

    fn noise(&mut self, max: u64) -> Vec<u8> {
        let mut data = vec![0; self.rng.below(max + 1) as usize];
        self.rng.fill(&mut data);
        data
    }

    /// A datagram that no endpoint may take for anything.
    fn datagram(&mut self, now: Instant) -> Vec<u8> {
        let from_handshake = self.rng.below(3) == 0;
        let Some(real) = self.pick(from_handshake) else { return self.noise(1_500) };
        let long = self.rng.below(4) == 0;
        let Some(other) = self.pick(long) else { return self.noise(1_500) };
        let mut data = real.data.clone();
        match self.rng.below(12) {
            0 => data = self.noise(1_500),
            1 => {
                data = self.noise(300);
                if let Some(first) = data.first_mut() {
                    *first =
                        [0x40, 0x41, 0x80, 0x81, 0x90, 0xa0, 0xb1, 0xc0][(*first & 7) as usize];
                }
            }
            // The right header, and noise.
            2 => {
                let keep = data.len().min([9, 13, 29][self.rng.below(3) as usize]);
                data.truncate(keep);
                data.extend(self.noise(1_400));
            }
            3 | 4 => corrupt(&mut data, &mut self.rng),
            5 => data.truncate(self.rng.below(data.len() as u64) as usize),
            // As it was: a copy of what has arrived.
            6 => {}
            // Head and tail of two packets.
            7 => {
                let (a, b) = (self.rng.below(data.len() as u64), other.data.len() as u64);
                data.truncate(a as usize);
                data.extend(&other.data[self.rng.below(b) as usize..]);
            }
            // The other's number, flags or id.
            8 if data.len() > 13 && other.data.len() > 13 => {
                let part = [0..1, 1..9, 9..13][self.rng.below(3) as usize].clone();
                data[part.clone()].copy_from_slice(&other.data[part]);
                if data == other.data {
                    data.push(1);
                }
            }
            // A far number of the right connection.
            9 if data.len() > 13 => {
                let pn = self.rng.u64() as u32;
                data[9..13].copy_from_slice(&pn.to_be_bytes());
            }
            // Several in one.
            10 => {
                let mut all = self.long_packet();
                all.extend(&data);
                corrupt(&mut all, &mut self.rng);
                data = all;
            }
            _ => data = self.long_packet(),
        }
        for genuine in [&real, &other] {
            // A copy that comes before its original is the original.
            let whole = data.starts_with(&genuine.data) || data.ends_with(&genuine.data);
            if whole && now.since(genuine.sent_at) < ms(50) {
                return self.noise(1_500);
            }
        }
        data
    }

    /// A long packet that is well formed, mostly.
    fn long_packet(&mut self) -> Vec<u8> {
        let known = self.pick(true).and_then(|p| Long::parse(&p.data));
        let id = |rng: &mut Rng, real: Option<&[u8]>| match (rng.below(3), real) {
            (0, _) | (_, None) => {
                let mut id = vec![0; [8, 8, 8, 0, 20, 7][rng.below(6) as usize]];
                rng.fill(&mut id);
                id
            }
            (_, Some(real)) => real.to_vec(),
        };
        let dcid = id(&mut self.rng, known.as_ref().map(|k| k.dcid.as_slice()));
        let scid = id(&mut self.rng, known.as_ref().map(|k| k.scid.as_slice()));
        let message = self.rng.below(8) as u8;
        let version = if self.rng.below(4) == 0 { self.rng.u64() as u32 } else { VERSION };
        let mut out = vec![0x80 | (message << 4) | self.rng.below(4) as u8];
        out.extend(version.to_be_bytes());
        for id in [&dcid, &scid] {
            out.push(id.len() as u8);
            out.extend(id);
        }
        if message <= 1 {
            let token = self.noise(140);
            out.extend((token.len() as u16).to_be_bytes());
            out.extend(token);
        }
        out.extend((self.rng.below(5) as u32).to_be_bytes());
        let sealed = self.noise(1_300);
        let wrong = if self.rng.below(4) == 0 { self.rng.below(70) } else { 0 };
        out.extend((sealed.len() as u16 + wrong as u16).to_be_bytes());
        out.extend(sealed);
        out
    }

    fn stranger(&mut self) -> SocketAddr {
        let host = self.rng.below(200) as u8;
        SocketAddr::new(IpAddr::from([10, 200, 0, host]), 1 + self.rng.below(3) as u16)
    }

    /// Sends one datagram to a node, and checks that it was counted.
    fn shoot(&mut self, w: &mut World, to: NodeId) {
        let data = self.datagram(w.now);
        let from = if self.rng.below(2) == 0 { w.addr(1 - to) } else { self.stranger() };
        self.send(w, to, from, data);
    }

    fn send(&mut self, w: &mut World, to: NodeId, from: SocketAddr, mut data: Vec<u8>) {
        self.sent += 1;
        let meta = RxMeta { socket: 0, remote: from, local: None, ecn: Ecn::NotEct };
        let node = &mut w.nodes[to];
        node.received(from, data.len());
        let before = counted(node.endpoint.endpoint_stats());
        let routed = w.call(to, |ep, now, app| ep.receive(now, &meta, &mut data, app));
        if matches!(routed, Routed::Shard(_)) {
            // What a shard does with an id of a shard that does not exist.
            w.call(to, |ep, now, _| ep.reset_unknown(now, &meta, &data));
            return;
        }
        // Anybody may repeat a ConnectionRequest that was answered.
        let request = data.first().is_some_and(|b| b >> 4 == 8);
        let after = counted(w.nodes[to].endpoint.endpoint_stats());
        assert!(
            after > before || request || !self.strict,
            "not counted: {} bytes, {:?}",
            data.len(),
            data.first()
        );
    }
}

/// Everything that an endpoint can do with a datagram that is not a genuine packet.
fn counted(s: &EndpointStats) -> u64 {
    s.unwanted() + s.refused + s.retries + s.version_lists + s.accepted
}

/// Nobody but the two gets more than three times what came from there.
fn check_amplification(w: &World) {
    for node in &w.nodes {
        for (remote, (from, to)) in &node.per_remote {
            let peer = w.nodes.iter().any(|n| n.addr == *remote);
            let limit = AMPLIFICATION_FACTOR * from;
            assert!(peer || *to <= limit, "{remote} sent {from} bytes and got {to}");
        }
    }
}

fn small(config: NodeConfig) -> NodeConfig {
    NodeConfig { max_handshakes: 32, max_connections: 64, ..config }
}

/// Starts traffic of every kind in both directions.
fn traffic(pair: &mut Pair, round: u32) {
    pair.host().policy.answer = Box::new(|_, kind| match kind {
        ChannelKind::Bytes => Flow::of(300_000, Size::Mixed(9_000)),
        _ => Flow::of(150, Size::Mixed(3_000)).paced(ms(3)),
    });
    for kind in [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams] {
        let flow = match kind {
            ChannelKind::Bytes => Flow::of(300_000, Size::Mixed(9_000)),
            _ => Flow::of(150, Size::Mixed(3_000)).paced(ms(3)),
        };
        pair.try_open(CLIENT, &format!("{round} {kind:?}"), options(kind), flow).expect("open");
    }
}

fn is_over(pair: &Pair, round: u32) -> bool {
    [CLIENT, HOST].iter().all(|node| {
        let conn = pair.conn(*node);
        let mut names = [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams]
            .map(|kind| format!("{round} {kind:?}"))
            .into_iter();
        names.all(|name| conn.named(&name).is_some_and(|c| c.end.is_some()))
    })
}

/// Lets the traffic of a round run while `per_step` hostile datagrams go to each node between two
/// events.
fn under_fire(pair: &mut Pair, attacker: &mut Attacker, round: u32, per_step: u64) {
    let lost = [CLIENT, HOST].map(|node| pair.stats(node).packets_lost);
    traffic(pair, round);
    let limit = pair.now() + secs(60);
    while !is_over(pair, round) {
        assert!(pair.w.step(limit), "round {round} is not done");
        for node in [CLIENT, HOST] {
            for _ in 0..per_step {
                attacker.shoot(&mut pair.w, node);
            }
        }
    }
    for node in [CLIENT, HOST] {
        assert_eq!(pair.status(node), Status::Connected);
        assert_eq!(pair.stats(node).packets_lost, lost[node], "forgery looked like loss");
    }
}

#[test]
fn a_live_connection_notices_nothing() {
    seeds::run("hostile", "a_live_connection_notices_nothing", 1, 4, |seed| {
        let mut pair = Pair::apart(seed, small(NodeConfig::client()), small(NodeConfig::host()));
        let mut attacker = Attacker::new(&mut pair.w, seed);
        pair.connect();
        pair.w.run_for(secs(5));
        let mut heap = Vec::new();
        for round in 0..4 {
            under_fire(&mut pair, &mut attacker, round, 30);
            // Long enough that attempts which nobody continued are given up.
            pair.w.run_for(secs(20));
            heap.push([pair.w.heap(CLIENT), pair.w.heap(HOST)]);
        }
        for node in [CLIENT, HOST] {
            let (first, last) = (heap[1][node], heap[3][node]);
            assert!(last <= first + LASTING, "node {node} grows: {heap:?}");
        }
        assert!(attacker.sent > 50_000, "{} hostile datagrams", attacker.sent);
        check_amplification(&pair.w);
        let info = pair.w.nodes[HOST].endpoint.info(pair.h).expect("connected");
        assert_eq!(info.remote, pair.w.addr(CLIENT), "a forgery moved the path");
        assert_eq!(pair.w.nodes[HOST].app.conns.len(), 1, "a forgery made a connection");
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn a_connection_is_made_under_fire() {
    seeds::run("hostile", "a_connection_is_made_under_fire", 1, 12, |seed| {
        let retry = [RetryPolicy::Never, RetryPolicy::Always][(seed % 2) as usize];
        let host = NodeConfig { retry, ..NodeConfig::host() };
        let mut pair = Pair::apart(seed, NodeConfig::client(), host);
        let mut attacker = Attacker::new(&mut pair.w, seed);
        attacker.strict = false;
        pair.start();
        let (c, limit) = (pair.c, pair.now() + secs(9));
        while pair.w.nodes[CLIENT].app.conn(c).status != Status::Connected {
            assert!(pair.w.step(limit), "not connected");
            for node in [CLIENT, HOST] {
                for _ in 0..40 {
                    attacker.shoot(&mut pair.w, node);
                }
            }
        }
        pair.await_connected();
        under_fire(&mut pair, &mut attacker, 0, 3);
        check_amplification(&pair.w);
        pair.check_delivery();
        pair.w.clear_hook();
        pair.finish();
    });
}

/// ConnectionRequests that are valid in all that anybody can know, from addresses that never
/// answer: each gets at most three times what it sent, however often it repeats itself.
#[test]
fn spoofed_requests_draw_little_and_leave_nothing() {
    for (seed, retry) in
        [(1, RetryPolicy::Never), (2, RetryPolicy::WhenLoaded(8)), (3, RetryPolicy::Always)]
    {
        let host = NodeConfig { retry, ..small(NodeConfig::host()) };
        let mut pair = Pair::apart(seed, small(NodeConfig::client()), host);
        let mut attacker = Attacker::new(&mut pair.w, seed);
        pair.connect();
        pair.w.run_for(secs(5));
        let request = attacker.long.borrow()[0].data.clone();
        assert_eq!(Long::parse(&request).expect("long").message, forge::CONNECTION_REQUEST);
        let mut heap = Vec::new();
        for round in 0..3u64 {
            for i in 0..3_000u64 {
                let from = attacker.stranger();
                let mut data = request.clone();
                if i % 4 != 0 {
                    data = own_request(&request, i % 4 == 3, &mut attacker.rng);
                }
                for _ in 0..=attacker.rng.below(3) {
                    let from_it = from;
                    let meta = RxMeta { socket: 0, remote: from_it, local: None, ecn: Ecn::NotEct };
                    let mut copy = data.clone();
                    pair.w.nodes[HOST].received(from, copy.len());
                    pair.w.call(HOST, |ep, now, app| ep.receive(now, &meta, &mut copy, app));
                }
                if i % 16 == 0 {
                    pair.w.run_for(ms(1 + round));
                }
            }
            pair.w.run_for(secs(30));
            heap.push(pair.w.heap(HOST));
            check_amplification(&pair.w);
        }
        let stats = *pair.w.nodes[HOST].endpoint.endpoint_stats();
        assert!(stats.retries > 1_000 || retry == RetryPolicy::Never, "{stats:?}");
        assert!(stats.accepted > 10 || retry == RetryPolicy::Always, "{stats:?}");
        assert!(heap[2] <= heap[0] + LASTING, "the host grows: {heap:?}");
        let left = pair.w.nodes[HOST].endpoint.connections().count();
        assert_eq!(left, 1, "attempts that nobody continued are still there");
        let answered: u64 = pair.w.astray.values().map(|a| a.1).sum();
        assert!(answered > 0, "nothing was answered at all");
        pair.w.clear_hook();
        under_fire(&mut pair, &mut attacker, 9, 0);
        pair.finish();
    }
}

/// A request with ids of its own: the ClientHello of a real one, or noise that is sealed well.
fn own_request(real: &[u8], noise: bool, rng: &mut Rng) -> Vec<u8> {
    let seen = Long::parse(real).expect("a ConnectionRequest");
    let hello = InitialKeys::of(&seen.dcid, rustls::Side::Server).open(real).expect("open to all");
    let dcid = rng.u64().to_be_bytes().to_vec();
    let scid = rng.u64().to_be_bytes().to_vec();
    let keys = InitialKeys::of(&dcid, rustls::Side::Client);
    let long = Long { dcid, scid, token: Vec::new(), pn: 0, ..seen };
    let frames = if noise {
        let mut bytes = vec![0; 200];
        rng.fill(&mut bytes);
        forge::crypto(0, &bytes)
    } else {
        hello
    };
    keys.seal(&long, frames, MIN_PACKET)
}

/// An endpoint without any connection, under fire from everywhere: nothing stays.
#[test]
fn an_endpoint_at_rest_keeps_nothing() {
    let mut pair = Pair::apart(5, small(NodeConfig::client()), small(NodeConfig::host()));
    let mut attacker = Attacker::new(&mut pair.w, 5);
    pair.connect();
    pair.open(CLIENT, "some", ChannelKind::Bytes, Flow::of(100_000, Size::Fixed(2_000)));
    pair.await_eof(HOST, "some", secs(5));
    pair.w.finish();
    pair.w.clear_hook();
    let mut heap = Vec::new();
    for _ in 0..4 {
        for i in 0..20_000 {
            attacker.shoot(&mut pair.w, CLIENT + i % 2);
            if i % 64 == 0 {
                pair.w.run_for(ms(5));
            }
        }
        pair.w.run_for(secs(30));
        for node in [CLIENT, HOST] {
            assert!(pair.w.nodes[node].is_empty());
            assert_eq!(pair.w.nodes[node].next_timeout(pair.w.now), None, "a timer is left");
        }
        heap.push([pair.w.heap(CLIENT), pair.w.heap(HOST)]);
    }
    for node in [CLIENT, HOST] {
        assert!(heap[3][node] <= heap[1][node], "node {node} grows: {heap:?}");
    }
    check_amplification(&pair.w);
}
