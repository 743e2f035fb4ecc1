//! Endpoints against peers and strangers that do not keep to the rules. Two endpoints on a network
//! without loss, with a look inside.

mod authentication;
mod losses;

use super::*;
use crate::config::{ChannelKind, ChannelOptions};
use crate::crypto::Rng;
use crate::error::{CloseReason, Reason};
use crate::event::{ChannelRequest, CloseReport, Incoming};
use crate::handshake::test_support::{KeyKind, identity};
use crate::handshake::{ClientAuth, ClientTls, HostTls, Trust};
use crate::ids::ChannelKey;
use crate::limits::{AMPLIFICATION_FACTOR, MIN_PACKET};
use crate::status::Status;
use crate::time::Duration;
use crate::wire::transport::TransportFrame;
use std::net::SocketAddr;

#[derive(Default)]
struct Log {
    incoming: Vec<ConnHandle>,
    status: Vec<(ConnHandle, Status, Option<Reason>)>,
    dead: Vec<(ConnHandle, CloseReport)>,
    requests: Vec<(ConnHandle, ChannelKey)>,
    order: Vec<&'static str>,
}

impl Sink for Log {
    fn incoming(&mut self, conn: ConnHandle, _: &Incoming<'_>) {
        self.incoming.push(conn);
    }
    fn status(&mut self, conn: ConnHandle, _: Status, new: Status, reason: Option<&CloseReason>) {
        self.status.push((conn, new, reason.map(|r| r.reason)));
        self.order.push("status");
    }
    fn channel_request(&mut self, conn: ConnHandle, channel: ChannelKey, _: &ChannelRequest<'_>) {
        self.requests.push((conn, channel));
    }
    fn dead(&mut self, conn: ConnHandle, report: &CloseReport) {
        self.dead.push((conn, report.clone()));
        self.order.push("dead");
    }
}

struct Side {
    ep: Endpoint,
    addr: SocketAddr,
    log: Log,
    buffer: usize,
}

type Datagram = (SocketAddr, Vec<u8>);

impl Side {
    fn transmit(&mut self, now: Instant) -> Vec<Datagram> {
        let mut out = Vec::new();
        let mut buf = vec![0; self.buffer];
        while let Some(t) = self.ep.poll_transmit(now, &mut buf, 8) {
            out.extend(buf[..t.len].chunks(t.segment).map(|p| (t.remote, p.to_vec())));
            assert!(out.len() < 10_000, "sends without end");
        }
        out
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Routed {
        let meta = RxMeta { socket: 0, remote: from, local: None, ecn: Ecn::NotEct };
        let mut data = datagram.to_vec();
        let routed = self.ep.receive(now, &meta, &mut data, &mut self.log);
        self.ep.end_batch(now, &mut self.log);
        routed
    }

    fn timers(&mut self, now: Instant) {
        if self.ep.next_timeout().is_some_and(|at| at <= now) {
            self.ep.handle_timeout(now, &mut self.log);
        }
    }

    fn inside(&mut self, conn: ConnHandle) -> &mut Connection {
        self.ep.slots[conn.slot as usize].conn.as_mut().expect("a connection")
    }

    fn reason(&self, conn: ConnHandle) -> Option<Reason> {
        self.log.status.iter().rev().find(|(c, ..)| *c == conn).and_then(|(_, _, r)| *r)
    }
}

struct Net {
    now: Instant,
    client: Side,
    host: Side,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn endpoint(now: Instant, seed: u8, change: impl Fn(&mut EndpointConfig)) -> Endpoint {
    let keys = EndpointKeys { id: [seed; 16], reset: [seed; 32], retry: [seed; 32] };
    let mut config = EndpointConfig {
        shard: 0,
        server: 0,
        seed: [seed; 32],
        keys,
        connection: ConnectionConfig::default(),
        max_connections: 64,
        max_handshakes: 4,
        retry: RetryPolicy::Never,
        observer: None,
    };
    change(&mut config);
    Endpoint::new(now, config).unwrap()
}

impl Net {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut EndpointConfig)) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut host = endpoint(now, 2, &change);
        let tls = HostTls::new(identity(KeyKind::Ed25519, "host.test"), &ClientAuth::None, None);
        host.listen(0, ListenerConfig { tls: tls.unwrap(), connection: None }).unwrap();
        let side = |ep, at: &str| Side { ep, addr: addr(at), log: Log::default(), buffer: 65_535 };
        Self {
            now,
            client: side(endpoint(now, 1, &change), "192.0.2.1:1000"),
            host: side(host, "192.0.2.2:2000"),
        }
    }

    fn config() -> ClientConfig {
        ClientConfig {
            tls: ClientTls::new(None, &Trust::DangerousAny, None).unwrap(),
            server_name: "host.test".into(),
            credential: Vec::new(),
            connection: None,
        }
    }

    /// Exchanges what there is, a millisecond each way.
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.now += Duration::from_millis(1);
            let now = self.now;
            for (to, packet) in self.client.transmit(now) {
                if to == self.host.addr {
                    self.host.receive(now, self.client.addr, &packet);
                }
            }
            for (to, packet) in self.host.transmit(now) {
                if to == self.client.addr {
                    self.client.receive(now, self.host.addr, &packet);
                }
            }
            self.client.timers(now);
            self.host.timers(now);
        }
    }

    /// Connects, accepts, and gives both handles.
    fn connect(&mut self) -> (ConnHandle, ConnHandle) {
        let known = self.host.log.incoming.len();
        let remotes = [self.host.addr];
        let c = self.client.ep.connect(self.now, 0, &remotes, &Self::config()).unwrap();
        self.run(6);
        let h = self.host.log.incoming[known];
        self.host.ep.accept(self.now, h).unwrap();
        self.run(60);
        assert_eq!(self.client.ep.status(c), Status::Connected);
        assert_eq!(self.host.ep.status(h), Status::Connected);
        (c, h)
    }

    /// The client sends this to the host although no honest client would.
    fn forge(&mut self, c: ConnHandle, frames: &[TransportFrame<'_>]) {
        let packet = self.client.inside(c).forge_frames(self.now, frames);
        self.host.receive(self.now, self.client.addr, &packet);
    }
}

fn new_id(sequence: u64, retire_prior_to: u64, token: [u8; 16]) -> TransportFrame<'static> {
    let id = ConnectionId((1000 + sequence).to_be_bytes());
    TransportFrame::NewConnectionId { sequence, retire_prior_to, id, token }
}

/// A packet that ends in `token`, as a stateless reset does.
fn reset(token: [u8; 16]) -> Vec<u8> {
    let mut packet = vec![0x40; 43 - 16];
    packet.extend(token);
    packet
}

#[test]
fn a_datagram_asks_for_one_connection_at_most() {
    let mut net = Net::new();
    for _ in 0..2 {
        net.client.ep.connect(net.now, 0, &[net.host.addr], &Net::config()).unwrap();
    }
    let requests = net.client.transmit(net.now);
    assert_eq!(requests.len(), 2);
    let both = [requests[0].1.as_slice(), requests[1].1.as_slice()].concat();
    net.host.receive(net.now, net.client.addr, &both);
    assert_eq!(net.host.ep.connections().count(), 1);
    // Behind something else a request has not passed the limits of its source.
    let stranger = addr("192.0.2.9:9");
    let mut other = requests[1].1.clone();
    other[0] = 0xb1;
    let hidden = [other.as_slice(), requests[1].1.as_slice()].concat();
    net.host.receive(net.now, stranger, &hidden);
    assert_eq!(net.host.ep.connections().count(), 1);
    assert_eq!(net.host.ep.requests.len(), 1);
}

#[test]
fn a_request_that_does_not_open_leaves_nothing() {
    let mut net = Net::new();
    net.client.ep.connect(net.now, 0, &[net.host.addr], &Net::config()).unwrap();
    let mut request = net.client.transmit(net.now).remove(0).1;
    *request.last_mut().unwrap() ^= 1;
    // The seal ends before the padding of the datagram: damage it as well.
    request[60] ^= 1;
    for port in 1..100 {
        let from = SocketAddr::new(net.client.addr.ip(), port);
        net.host.receive(net.now, from, &request);
        assert!(net.host.transmit(net.now).is_empty(), "answered");
    }
    let ep = &net.host.ep;
    assert_eq!((ep.connections().count(), ep.requests.len(), ep.handshakes), (0, 0, 0));
    assert_eq!(ep.shared.counters.dropped_handshake_packets, 99);
    assert!(ep.wheel.is_empty());
}

#[test]
fn bytes_of_one_address_are_no_credit_for_another() {
    let mut net = Net::new();
    net.client.ep.connect(net.now, 0, &[net.host.addr], &Net::config()).unwrap();
    let request = net.client.transmit(net.now).remove(0).1;
    net.host.receive(net.now, net.client.addr, &request);
    let mut drawn: usize = 0;
    let mut response = Vec::new();
    for round in 0..200 {
        net.now += Duration::from_millis(100);
        for (to, packet) in net.host.transmit(net.now) {
            assert_eq!(to, net.client.addr);
            drawn += packet.len();
            response = packet;
        }
        // Long packets with the right id from everywhere but the address that asked.
        let mut junk = response.clone();
        junk[0] = 0xb1;
        let (dcid, scid) = (response[6..14].to_vec(), response[15..23].to_vec());
        junk[6..14].copy_from_slice(&scid);
        junk[15..23].copy_from_slice(&dcid);
        junk.resize(1_400, 7);
        let elsewhere = SocketAddr::new(addr("198.51.100.1:1").ip(), 1 + round);
        net.host.receive(net.now, elsewhere, &junk);
        net.host.timers(net.now);
    }
    assert!(drawn > 0 && drawn as u64 <= AMPLIFICATION_FACTOR * request.len() as u64, "{drawn}");
}

#[test]
fn connections_that_we_begin_are_no_handshakes_of_a_host() {
    let mut net = Net::new();
    for _ in 0..10 {
        net.host.ep.connect(net.now, 0, &[addr("192.0.2.77:7")], &Net::config()).unwrap();
    }
    assert_eq!(net.host.ep.handshakes, 0);
    net.connect();
    assert_eq!(net.host.ep.handshakes, 0);
}

#[test]
fn a_retired_id_is_not_found_again() {
    let mut net = Net::new();
    let (c, _) = net.connect();
    let old = net.client.inside(c).forge_frames(net.now, &[TransportFrame::Ping]);
    net.client.ep.network_changed(net.now);
    net.run(5);
    let before = net.host.ep.shared.counters;
    net.host.receive(net.now, net.client.addr, &old);
    let after = net.host.ep.shared.counters;
    assert_eq!((before.unknown_id + 1, before.rejected), (after.unknown_id, after.rejected));
}

#[test]
fn a_token_ends_only_those_that_announced_it_for_an_id_in_use() {
    let mut net = Net::new();
    let (a, ha) = net.connect();
    let (b, hb) = net.connect();
    assert_eq!(net.host.ep.shared.tokens(), 2, "one for each id in use");
    // `a` announces a token that `b` has as well; it is taken into use.
    let shared = net.host.inside(hb).peer_token().unwrap();
    let next = |net: &mut Net, c, sequence, token| {
        net.forge(c, &[new_id(sequence, sequence, token)]);
    };
    next(&mut net, a, 7, shared);
    assert_eq!(net.host.inside(ha).peer_token(), Some(shared));
    // And given up again: the other one keeps it.
    next(&mut net, a, 8, [8; 16]);
    assert_eq!(net.host.ep.shared.tokens(), 2);
    net.host.receive(net.now, addr("203.0.113.1:1"), &reset(shared));
    assert_eq!(net.host.ep.status(ha), Status::Connected);
    assert_eq!(net.host.ep.status(hb), Status::ClosedByPeer);
    assert_eq!(net.host.reason(hb), Some(Reason::RESET));
    // Tokens given up, and those of ids that are not in use, end nothing.
    net.forge(a, &[new_id(9, 0, [9; 16])]);
    net.host.receive(net.now, net.client.addr, &reset([9; 16]));
    assert_eq!(net.host.ep.status(ha), Status::Connected);
    net.host.receive(net.now, net.client.addr, &reset([8; 16]));
    assert_eq!(net.host.ep.status(ha), Status::ClosedByPeer);
    for (side, conns) in [(&mut net.host, [ha, hb]), (&mut net.client, [a, b])] {
        for conn in conns {
            let _ = side.ep.close(net.now, conn, 1000, "", None);
        }
    }
    for _ in 0..7 {
        net.now += Duration::from_secs(1);
        net.run(1);
    }
    for side in [&net.host, &net.client] {
        assert_eq!(side.ep.connections().count(), 0);
        assert_eq!(side.ep.shared.tokens(), 0, "tokens outlive their connection");
        assert!(side.ep.requests.is_empty() && side.ep.wheel.is_empty());
    }
}

#[test]
fn a_peer_that_retires_ids_without_end_fills_no_memory() {
    let mut net = Net::new();
    let (c, h) = net.connect();
    let frames: Vec<_> =
        (0..2_000).map(|n| TransportFrame::RetireConnectionId { sequence: n }).collect();
    net.forge(c, &frames);
    assert!(net.host.inside(h).pending_frames() <= 2);
    assert_eq!(net.host.ep.status(h), Status::Connected);
    let (c, h) = net.connect();
    let frames: Vec<_> = (5..300).map(|n| new_id(n, n, [n as u8; 16])).collect();
    net.forge(c, &frames);
    assert!(net.host.inside(h).pending_frames() <= 16);
    assert_eq!(net.host.reason(h), Some(Reason::PROTOCOL));
    assert_eq!(net.host.ep.shared.tokens(), 2);
}

#[test]
fn a_challenge_is_answered_where_it_came_from() {
    let mut net = Net::new();
    let (c, h) = net.connect();
    net.now += Duration::from_millis(100);
    net.run(2);
    let challenge = TransportFrame::PathChallenge([5; 8]);
    let probe = net.client.inside(c).forge_frames(net.now, &[challenge]);
    let elsewhere = addr("192.0.2.1:4444");
    net.host.receive(net.now, elsewhere, &probe);
    let sent = net.host.transmit(net.now);
    let there: Vec<_> = sent.iter().filter(|(to, _)| *to == elsewhere).collect();
    assert_eq!(there.len(), 1, "{sent:?}");
    assert!(there[0].1.len() <= 3 * probe.len());
    assert_eq!(net.host.ep.info(h).unwrap().remote, net.client.addr, "a probe moves nothing");
}

#[test]
fn only_another_host_makes_the_path_a_new_one() {
    let mut net = Net::new();
    let (c, h) = net.connect();
    let rtt = net.host.ep.stats(h).unwrap().rtt;
    net.client.addr.set_port(1_001);
    net.forge(c, &[TransportFrame::Ping]);
    assert_eq!(net.host.ep.info(h).unwrap().remote, net.client.addr);
    assert_eq!(net.host.ep.stats(h).unwrap().rtt, rtt, "only the port changed");
    net.run(20);
    net.client.addr = addr("198.51.100.7:1000");
    net.forge(c, &[TransportFrame::Ping]);
    assert_eq!(net.host.ep.info(h).unwrap().remote, net.client.addr);
    assert_ne!(net.host.ep.stats(h).unwrap().rtt, rtt);
    net.run(20);
    assert_eq!(net.host.ep.status(h), Status::Connected);
}

#[test]
fn a_violation_during_linger_is_answered_with_close() {
    let mut net = Net::new();
    let (c, h) = net.connect();
    let options = ChannelOptions { kind: ChannelKind::Bytes, ..ChannelOptions::default() };
    let channel = net.host.ep.open_channel(net.now, h, "x", &options).unwrap();
    net.host.ep.send(net.now, h, channel, b"data", SendOptions::default()).unwrap();
    net.host.ep.close(net.now, h, 1000, "", Some(Duration::from_secs(30))).unwrap();
    net.host.transmit(net.now);
    let bad = net.client.inside(c).forge(net.now, &[0, 1, 0xff, 0xff, 0x66]);
    net.host.receive(net.now, net.client.addr, &bad);
    assert_eq!(net.host.log.dead.len(), 1);
    assert_eq!(net.host.log.dead[0].1.reason.reason, Reason::PROTOCOL);
    net.run(2);
    assert_eq!(net.client.ep.status(c), Status::ClosedByPeer);
    assert_eq!(net.client.reason(c), Some(Reason::PROTOCOL));
}

#[test]
fn a_handle_that_is_kept_keeps_no_packets_going() {
    let mut net = Net::new();
    let (c, h) = net.connect();
    let bad = net.client.inside(c).forge(net.now, &[0, 1, 0xff, 0xff, 0x66]);
    net.host.receive(net.now, net.client.addr, &bad);
    assert_eq!(net.host.ep.status(h), Status::ProblemDetectedLocally);
    let mut sent = 0;
    while let Some(at) = net.host.ep.next_timeout() {
        net.now = net.now.max(at);
        net.host.timers(net.now);
        sent += net.host.transmit(net.now).len();
        assert!(sent < 50, "CLOSE without end");
    }
    assert!(sent >= 5);
    let late = net.client.inside(c).forge_frames(net.now, &[TransportFrame::Ping]);
    net.host.receive(net.now, net.client.addr, &late);
    assert!(net.host.transmit(net.now).is_empty());
    assert_eq!(net.host.ep.status(h), Status::ProblemDetectedLocally);
}

#[test]
fn keys_that_may_seal_no_more_end_the_connection() {
    let mut net = Net::new();
    let (c, _) = net.connect();
    net.client.inside(c).use_up_keys();
    net.client.ep.check(net.now, c).unwrap();
    net.client.transmit(net.now);
    net.client.ep.end_batch(net.now, &mut net.client.log);
    assert!(net.client.ep.next_timeout().is_some_and(|at| at <= net.now));
    net.client.timers(net.now);
    assert_eq!(net.client.ep.status(c), Status::ProblemDetectedLocally);
    assert_eq!(net.client.reason(c), Some(Reason::BAD_CRYPTO));
}

#[test]
fn session_tickets_are_forgotten_once_they_arrived() {
    let mut net = Net::new();
    let (_, h) = net.connect();
    net.run(100);
    assert_eq!(net.host.inside(h).kept_ticket_bytes(), 0);
}

#[test]
fn packets_fit_the_buffers_that_are_lent() {
    let mut net = Net::with(|c| c.connection.max_packet = 9_000);
    net.client.buffer = 2_048;
    net.host.buffer = MIN_PACKET;
    let (c, h) = net.connect();
    let options = ChannelOptions { kind: ChannelKind::Bytes, ..ChannelOptions::default() };
    let channel = net.client.ep.open_channel(net.now, c, "x", &options).unwrap();
    net.client.ep.send(net.now, c, channel, &vec![7; 50_000], SendOptions::default()).unwrap();
    net.run(100);
    let size = net.client.ep.stats(c).unwrap().packet_size;
    assert!((1_500..=2_048).contains(&size), "{size}");
    assert!(net.host.ep.stats(h).unwrap().bytes_received > 50_000);
}

#[test]
fn events_of_calls_are_told_before_those_of_the_batch() {
    let mut net = Net::new();
    let (c, h) = net.connect();
    net.host.ep.close(net.now, h, 1000, "", None).unwrap();
    for (to, packet) in net.host.transmit(net.now) {
        assert_eq!(to, net.client.addr);
        net.client.receive(net.now, net.host.addr, &packet);
    }
    net.host.ep.end_batch(net.now, &mut net.host.log);
    net.client.log.order.clear();
    net.client.ep.close(net.now, c, 1000, "", None).unwrap();
    net.client.ep.end_batch(net.now, &mut net.client.log);
    assert_eq!(net.client.log.order, ["dead"]);
    assert_eq!(net.client.log.status.last().map(|s| s.1), Some(Status::ClosedByPeer));
    assert_eq!(net.host.log.order.last(), Some(&"status"));
}

#[test]
fn a_restarted_endpoint_answers_packets_of_its_former_life_with_a_reset() {
    let mut net = Net::new();
    let (c, _) = net.connect();
    // The same keys, another seed, and a new connection in the very same slot.
    let tls = HostTls::new(identity(KeyKind::Ed25519, "host.test"), &ClientAuth::None, None);
    net.host.ep = endpoint(net.now, 2, |config| config.seed = [77; 32]);
    net.host.ep.listen(0, ListenerConfig { tls: tls.unwrap(), connection: None }).unwrap();
    let (d, hd) = net.connect();
    assert_eq!(hd.slot, 0);
    net.client.ep.check(net.now, c).unwrap();
    net.run(3);
    assert_eq!(net.client.ep.status(c), Status::ClosedByPeer);
    assert_eq!(net.client.reason(c), Some(Reason::RESET));
    assert_eq!(net.client.ep.status(d), Status::Connected);
}

/// A frame that could stand in a packet, whatever it means.
fn any_frame(rng: &mut Rng, out: &mut Vec<u8>) {
    let below = |rng: &mut Rng, n: u64| rng.u64() % n;
    let ids = [0, 1, 2, 3, 4, 5, 0x8000, 0x8001, 0xFFFE, rng.u64() as u16];
    let id = ids[below(rng, 10) as usize];
    let number = |rng: &mut Rng| match below(rng, 6) {
        0 => 0,
        1 => below(rng, 10),
        2 => below(rng, 3_000),
        3 => below(rng, 1 << 22),
        4 => (1 << 48) - 1 - below(rng, 2),
        _ => rng.u64() >> 2,
    };
    let varint = |out: &mut Vec<u8>, n: u64| out.extend((n | 3 << 62).to_be_bytes());
    let mut body = Vec::new();
    let channel = if below(rng, 2) == 0 { 0xFFFF } else { id };
    if channel == 0xFFFF {
        let kind = below(rng, 0x10) as u8;
        body.push(kind);
        match kind {
            0x02 => {
                for _ in 0..2 {
                    varint(&mut body, number(rng));
                }
                body.push(below(rng, 2) as u8);
                let ranges = below(rng, 4);
                varint(&mut body, ranges);
                for _ in 0..=2 * ranges {
                    varint(&mut body, number(rng));
                }
                for _ in 0..3 {
                    varint(&mut body, number(rng));
                }
            }
            0x03 | 0x05 | 0x06 => {
                body.extend(id.to_be_bytes());
                if kind != 0x03 {
                    body.extend((rng.u64() as u32).to_be_bytes());
                }
                if kind != 0x06 {
                    varint(&mut body, number(rng));
                }
            }
            0x04 | 0x0c => varint(&mut body, number(rng)),
            0x07 => body.extend([0, 0, 3, 0xe8, 0, 0]),
            0x09 | 0x0a => body.extend(rng.u64().to_be_bytes()),
            0x0b | 0x0d => {
                varint(&mut body, number(rng));
                varint(&mut body, number(rng) % 4);
                if kind == 0x0b {
                    body.extend([below(rng, 5) as u8; 24]);
                }
            }
            0x0e => {
                varint(&mut body, number(rng));
                body.extend([1; 20]);
            }
            _ => {}
        }
    } else {
        body = vec![rng.u64() as u8; below(rng, 400) as usize];
    }
    let wrong = if below(rng, 60) == 0 { below(rng, 5) as u16 } else { 0 };
    out.extend((body.len() as u16 + wrong).to_be_bytes());
    out.extend(channel.to_be_bytes());
    if channel != 0xFFFF {
        out.extend(&number(rng).to_be_bytes()[2..]);
    }
    out.extend(body);
}

/// A peer with the right keys can end its own connection, and do nothing else.
#[test]
fn a_peer_that_sends_anything_harms_only_itself() {
    let mut rng = Rng::from_seed([9; 32]);
    let mut net = Net::new();
    let (good, good_host) = net.connect();
    let (mut survived, mut ended) = (0, 0);
    for round in 0..150 {
        let (c, h) = net.connect();
        for kind in [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams] {
            let options = ChannelOptions { kind, no_delay: true, ..ChannelOptions::default() };
            for _ in 0..2 {
                let channel = net.client.ep.open_channel(net.now, c, "any", &options).unwrap();
                let sent =
                    net.client.ep.send(net.now, c, channel, &[1; 100], SendOptions::default());
                sent.unwrap();
            }
        }
        net.run(3);
        for (conn, channel) in core::mem::take(&mut net.host.log.requests) {
            let options = ChannelOptions::default();
            let _ = net.host.ep.accept_channel(net.now, conn, channel, &options);
            let _ = net.host.ep.send(net.now, conn, channel, &[2; 500], SendOptions::default());
        }
        if round % 3 == 0 {
            net.host.ep.close(net.now, h, 1000, "", Some(Duration::from_secs(2))).unwrap();
        }
        for _ in 0..40 {
            let mut payload = Vec::new();
            for _ in 0..=rng.u64() % 4 {
                any_frame(&mut rng, &mut payload);
            }
            let packet = net.client.inside(c).forge(net.now, &payload);
            net.host.receive(net.now, net.client.addr, &packet);
            let _ = net.host.transmit(net.now);
            net.now += Duration::from_millis(1 + rng.u64() % 20);
            net.host.timers(net.now);
        }
        match net.host.ep.status(h) {
            Status::Connected => survived += 1,
            _ => ended += 1,
        }
        let _ = net.host.ep.close(net.now, h, 1000, "", None);
        let _ = net.client.ep.close(net.now, c, 1000, "", None);
        for _ in 0..7 {
            net.now += Duration::from_secs(1);
            net.run(3);
        }
        assert_eq!(net.host.ep.connections().count(), 1, "round {round}");
        assert_eq!(net.client.ep.connections().count(), 1, "round {round}");
        assert_eq!(net.host.ep.shared.tokens(), 1);
        assert_eq!(net.host.ep.requests.len(), 1);
    }
    assert!(ended > 50, "{survived} survived, {ended} ended");
    assert_eq!(net.host.ep.status(good_host), Status::Connected);
    assert_eq!(net.client.ep.status(good), Status::Connected);
}
