//! A network of endpoints in one thread, under one virtual clock and one seed.
//!
//! [`World::step`] always goes on to the next event: the arrival of a packet, a timer of an
//! endpoint, a piece of a paced flow or an action that the test planned. Endpoints live in
//! different times (each has its own origin), behind addresses that may change, on links that lose,
//! delay, reorder, repeat and damage packets.

use super::alloc;
use super::app::{App, Event};
use super::link::Link;
use super::nat::Nat;
use super::node::{Node, NodeConfig};
use super::rng::{Rng, mix};
use super::tcp::{Carried, Tcp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use trunkline_proto::endpoint::{Ecn, Endpoint, Routed, RxMeta};
use trunkline_proto::ids::ConnHandle;
use trunkline_proto::limits::RELAY_SOCKET;
use trunkline_proto::rendezvous::route::RouteError;
use trunkline_proto::rendezvous::stun::{MAX_ANSWER, StunConfig, StunServer};
use trunkline_proto::time::{Duration, Instant};

/// How long a route event takes from one client to the other.
const EVENT_DELAY: Duration = Duration::from_millis(30);

/// Number of a node in its world.
pub type NodeId = usize;

/// Steps without progress of the clock after which a world counts as spinning.
const MAX_STEPS_AT_ONE_INSTANT: u64 = 2_000;

/// A packet on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When the sender handed it to the network.
    pub sent_at: Instant,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub ecn: Ecn,
    pub data: Vec<u8>,
}

impl Packet {
    /// It is a long packet: part of a handshake.
    pub fn is_long(&self) -> bool {
        self.data.first().is_some_and(|b| b & 0x80 != 0)
    }

    /// Message type and level of a long packet at its start.
    pub fn long_kind(&self) -> Option<(u8, u8)> {
        self.is_long().then(|| ((self.data[0] >> 4) & 7, self.data[0] & 3))
    }
}

/// What a hook wants done with a packet.
#[derive(Debug)]
pub enum Verdict {
    /// As the link decides.
    Pass,
    /// Nothing arrives.
    Drop,
    /// Arrives so much after its sending, untouched.
    After(Duration),
}

type Hook = Box<dyn FnMut(&mut Packet) -> Verdict>;
type Action = Box<dyn FnOnce(&mut World)>;

/// The network and its nodes.
pub struct World {
    pub now: Instant,
    pub seed: u64,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    /// Behaviour of the path between two nodes that has none of its own.
    pub link: Link,
    links: BTreeMap<(NodeId, NodeId), Link>,
    pub nats: Vec<Nat>,
    /// The relay of an event source: each node's way to it and on to the other node.
    pub relay: Link,
    relays: BTreeMap<NodeId, Link>,
    /// Packets that went over the relay.
    pub relayed: u64,
    /// Route events that were sent: by whom, and the body.
    pub events: Vec<(NodeId, Vec<u8>)>,
    /// The event source carries no events.
    pub events_lost: bool,
    stun: StunServer,
    hook: Option<Hook>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    flights: BTreeMap<u64, Packet>,
    pieces: BTreeMap<u64, Carried>,
    pub tcp: Tcp,
    actions: BTreeMap<(Instant, u64), Action>,
    sequence: u64,
    /// Packets and bytes that went to addresses where nobody is.
    pub astray: BTreeMap<SocketAddr, (u64, u64)>,
    pub steps: u64,
    pub max_steps: u64,
    /// Packets that arrived.
    pub delivered: u64,
    steps_here: u64,
    /// Digest of everything that went over the network: when, from where, how long.
    pub digest: u64,
    /// Print packets and events.
    pub trace: bool,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            seed,
            rng: Rng::new(seed).fork(1),
            nodes: Vec::new(),
            link: Link::default(),
            links: BTreeMap::new(),
            nats: Vec::new(),
            relay: Link::with_delay(Duration::from_millis(25)),
            relays: BTreeMap::new(),
            relayed: 0,
            events: Vec::new(),
            events_lost: false,
            stun: StunServer::new(StunConfig::default(), Instant::ZERO),
            hook: None,
            queue: BinaryHeap::new(),
            flights: BTreeMap::new(),
            pieces: BTreeMap::new(),
            tcp: Tcp::new(Rng::new(seed).fork(3)),
            actions: BTreeMap::new(),
            sequence: 0,
            astray: BTreeMap::new(),
            steps: 0,
            max_steps: 3_000_000,
            delivered: 0,
            steps_here: 0,
            digest: 0,
            trace: std::env::var_os("TRUNKLINE_TRACE").is_some(),
        }
    }

    /// Adds a node at an address of its own.
    pub fn add(&mut self, name: &'static str, config: NodeConfig) -> NodeId {
        let id = self.nodes.len();
        let seed = Rng::new(self.seed).fork(100 + id as u64);
        self.nodes.push(Node::new(name, id, self.now, config, seed));
        id
    }

    /// The path from one node to another, for changes.
    pub fn path(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        self.links.entry((from, to)).or_insert_with(|| self.link.clone())
    }

    /// Puts a node behind a translator; several can stand behind one.
    pub fn behind(&mut self, node: NodeId, nat: usize) {
        self.nodes[node].nat = Some(nat);
    }

    /// The path over the relay from one node, for changes.
    pub fn relay_from(&mut self, node: NodeId) -> &mut Link {
        self.relays.entry(node).or_insert_with(|| self.relay.clone())
    }

    /// Changes both directions between two nodes.
    pub fn both_ways(&mut self, a: NodeId, b: NodeId, mut change: impl FnMut(&mut Link)) {
        change(self.path(a, b));
        change(self.path(b, a));
    }

    /// Sees, changes, drops and delays every packet before the links do.
    pub fn set_hook(&mut self, hook: impl FnMut(&mut Packet) -> Verdict + 'static) {
        self.hook = Some(Box::new(hook));
    }

    /// Leaves packets to the links again.
    pub fn clear_hook(&mut self) {
        self.hook = None;
    }

    /// Does something so much later.
    pub fn after(&mut self, wait: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.sequence += 1;
        self.actions.insert((self.now + wait, self.sequence), Box::new(action));
    }

    /// Puts a packet on the network that nobody sent; it arrives for certain.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>, after: Duration) {
        let packet = Packet { sent_at: self.now, from, to, ecn: Ecn::NotEct, data };
        let at = self.now + Duration::from_nanos(after.as_nanos().max(1));
        self.fly(at, packet);
    }

    /// Where the network reaches a node at present.
    pub fn addr(&self, node: NodeId) -> SocketAddr {
        self.nodes[node].addr
    }

    /// The node's address changes, as behind a NAT that forgot it: packets to the old one get lost.
    pub fn rebind(&mut self, node: NodeId) -> SocketAddr {
        let addr = &mut self.nodes[node].addr;
        let old = *addr;
        addr.set_port(addr.port() + 1);
        old
    }

    /// The node is gone, as after `kill -9` or a pulled cable: nothing in, nothing out, no timer.
    pub fn vanish(&mut self, node: NodeId) {
        self.nodes[node].alive = false;
    }

    /// The node is back with an endpoint that knows nothing of earlier connections.
    pub fn restart(&mut self, node: NodeId) {
        let now = self.now;
        let seed = Rng::new(self.seed).fork(1_000 + self.rng.u64());
        self.nodes[node].restart(now, seed);
    }

    /// Calls an endpoint directly, in its own time.
    pub fn call<T>(
        &mut self,
        node: NodeId,
        f: impl FnOnce(&mut Endpoint, Instant, &mut App) -> T,
    ) -> T {
        self.nodes[node].call(self.now, f)
    }

    /// One event. `false` when nothing is left to happen up to `until`; the clock then stands there.
    pub fn step(&mut self, until: Instant) -> bool {
        self.transmit();
        let Some(next) = self.next_event().filter(|next| *next <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.steps += 1;
        assert!(self.steps <= self.max_steps, "more than {} steps", self.max_steps);
        if next > self.now {
            self.steps_here = 0;
            self.now = next;
        } else {
            self.steps_here += 1;
            let timers: Vec<_> = self.nodes.iter().map(|n| n.next_timeout(self.now)).collect();
            assert!(
                self.steps_here < MAX_STEPS_AT_ONE_INSTANT,
                "spinning at {:?}; timers: {timers:?}, packets: {:?}",
                self.now,
                self.queue.peek(),
            );
        }
        while let Some(entry) = self.actions.first_entry().filter(|e| e.key().0 <= self.now) {
            let action = entry.remove();
            action(self);
        }
        self.deliver();
        for node in self.nodes.iter_mut().filter(|n| n.alive) {
            node.run_timers(self.now);
            node.react(self.now);
        }
        true
    }

    fn next_event(&self) -> Option<Instant> {
        let flight = self.queue.peek().map(|Reverse((at, _))| *at);
        let action = self.actions.first_key_value().map(|(key, _)| key.0);
        let nodes = self.nodes.iter().filter(|n| n.alive).filter_map(|n| n.next_event(self.now));
        flight.into_iter().chain(action).chain(nodes).min()
    }

    fn transmit(&mut self) {
        for id in 0..self.nodes.len() {
            if !self.nodes[id].alive {
                continue;
            }
            // What is found out may have more to be sent.
            let (checks, events) = self.nodes[id].search(self.now);
            let packets = self.nodes[id].transmit(self.now);
            for packet in checks.into_iter().chain(packets) {
                self.send(id, packet);
            }
            for body in events {
                self.events.push((id, body.clone()));
                if !self.events_lost {
                    self.after(EVENT_DELAY, move |w| {
                        w.route_event(1 - id, &body);
                    });
                }
            }
        }
        let pieces = self.tcp.transmit(self.now, &mut self.nodes);
        self.carry(pieces);
    }

    /// A route event reaches a node; says whether its finder took it.
    pub fn route_event(&mut self, to: NodeId, body: &[u8]) -> Option<Result<(), RouteError>> {
        let local = self.nodes[to].local_time(self.now);
        let (finder, _) = self.nodes[to].finder.as_mut()?;
        Some(finder.on_event(local, body))
    }

    /// The event source tells a client where it is seen.
    fn ask_stun(&mut self, packet: &Packet) {
        let mut out = [0; MAX_ANSWER];
        if let Ok(len) = self.stun.receive(self.now, &packet.data, packet.from, &mut out) {
            let delay = self.link.delay.mul(2);
            self.inject(stun_server(), packet.from, out[..len].to_vec(), delay);
        }
    }

    fn carry(&mut self, pieces: Vec<(Instant, Carried)>) {
        for (at, piece) in pieces {
            if self.trace {
                println!("{:>12} piece {:?}", self.now.as_nanos() / 1_000, summary(&piece));
            }
            self.sequence += 1;
            self.queue.push(Reverse((at, self.sequence)));
            self.pieces.insert(self.sequence, piece);
        }
    }

    /// Breaks every TCP connection.
    pub fn break_streams(&mut self) {
        let pieces = self.tcp.break_all(self.now);
        self.carry(pieces);
    }

    fn send(&mut self, from: NodeId, mut packet: Packet) {
        if let Some(nat) = self.nodes[from].nat
            && !is_relay(packet.to)
            && !self.nodes.iter().any(|n| n.addr == packet.to && n.nat == Some(nat))
        {
            packet.from = self.nats[nat].outbound(self.now, packet.from, packet.to);
        }
        let (now, len) = (self.now, packet.data.len());
        self.digest = mix(self.digest ^ now.as_nanos() ^ ((len as u64) << 40) ^ from as u64);
        if self.trace {
            let (name, to) = (self.nodes[from].name, packet.to);
            println!("{:>12} {name} → {to}: {}", now.as_nanos() / 1_000, describe(&packet.data));
        }
        match self.hook.as_mut().map_or(Verdict::Pass, |hook| hook(&mut packet)) {
            Verdict::Drop => return,
            Verdict::After(delay) => return self.fly(now + delay, packet),
            Verdict::Pass => {}
        }
        if packet.to == stun_server() {
            return self.ask_stun(&packet);
        }
        let Some(to) = self.toward(from, packet.to) else {
            let entry = self.astray.entry(packet.to).or_default();
            *entry = (entry.0 + 1, entry.1 + packet.data.len() as u64);
            return;
        };
        let link = if is_relay(packet.to) {
            self.relayed += 1;
            self.relays.entry(from).or_insert_with(|| self.relay.clone())
        } else {
            self.links.entry((from, to)).or_insert_with(|| self.link.clone())
        };
        let copies = if link.duplicates(&mut self.rng) { 2 } else { 1 };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let mut copy = packet.clone();
            if let Some(at) = link.carry(now, &mut copy.data, &mut self.rng) {
                if link.ce > 0 && copy.ecn != Ecn::NotEct && self.rng.chance(link.ce) {
                    copy.ecn = Ecn::Ce;
                }
                arrivals.push((at, copy));
            }
        }
        if self.trace && arrivals.is_empty() {
            println!("{:>12} lost", "");
        }
        for (at, copy) in arrivals {
            self.fly(at, copy);
        }
    }

    fn fly(&mut self, at: Instant, packet: Packet) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.flights.insert(self.sequence, packet);
    }

    /// To which node the network carries a packet of `from`.
    fn toward(&self, from: NodeId, to: SocketAddr) -> Option<NodeId> {
        if let Some(node) = relay_node(to) {
            return (node < self.nodes.len()).then_some(node);
        }
        if let Some(nat) = self.nats.iter().find(|n| n.ip == to.ip()) {
            let inside = nat.behind(to.port())?;
            return self.nodes.iter().position(|n| n.addr == inside);
        }
        // Addresses behind a translator mean something only there.
        let near = |n: &Node| n.nat.is_none() || n.nat == self.nodes[from].nat;
        self.nodes.iter().position(|n| n.addr == to && near(n))
    }

    /// The node and its socket at which a packet arrives, if it is let in.
    fn admit(&mut self, packet: &Packet) -> Option<(NodeId, u16)> {
        if let Some(node) = relay_node(packet.to) {
            return Some((node, RELAY_SOCKET));
        }
        let mut to = packet.to;
        if let Some(nat) = self.nats.iter_mut().find(|n| n.ip == to.ip()) {
            to = nat.inbound(self.now, to.port(), packet.from)?;
        }
        self.nodes.iter().position(|n| n.addr == to).map(|node| (node, 0))
    }

    /// Everything that arrives now, in one batch per node.
    fn deliver(&mut self) {
        while let Some(Reverse((at, sequence))) = self.queue.peek().copied() {
            if at > self.now {
                break;
            }
            self.queue.pop();
            if let Some(piece) = self.pieces.remove(&sequence) {
                self.delivered += 1;
                let more = self.tcp.arrive(self.now, piece, &mut self.nodes);
                self.carry(more);
                continue;
            }
            let Some(mut packet) = self.flights.remove(&sequence) else { continue };
            let Some((to, socket)) = self.admit(&packet).filter(|to| self.nodes[to.0].alive) else {
                continue;
            };
            self.delivered += 1;
            let local = self.nodes[to].local.filter(|_| socket != RELAY_SOCKET);
            let meta = RxMeta { socket, remote: packet.from, local, ecn: packet.ecn };
            if self.trace {
                let name = self.nodes[to].name;
                println!("{:>12} {name} receives {}", at.as_nanos() / 1_000, packet.data.len());
            }
            if packet.data.first().is_some_and(|b| *b < 4) && socket == 0 {
                self.nodes[to].stun(self.now, packet.from, &packet.data);
                continue;
            }
            let node = &mut self.nodes[to];
            node.received(packet.from, packet.data.len());
            let routed =
                node.call(self.now, |ep, now, app| ep.receive(now, &meta, &mut packet.data, app));
            if let Routed::Shard(shard) = routed {
                // Only a damaged or invented id names a shard that does not exist.
                assert_ne!(shard, 0, "our own shard was named as another one");
            }
        }
        self.tcp.read(self.now, &mut self.nodes);
        for node in self.nodes.iter_mut().filter(|n| n.alive) {
            node.end_batch(self.now);
            node.react(self.now);
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until `done`, at most for `limit`; says whether it came so far.
    pub fn runs_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let until = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(until) {
                return done(self);
            }
        }
    }

    /// Runs until `done`, which must come within `limit`.
    pub fn run_until(&mut self, what: &str, limit: Duration, done: impl FnMut(&mut Self) -> bool) {
        let start = self.now;
        let came = self.runs_until(limit, done);
        if !came {
            let states: Vec<_> = self.nodes.iter().map(Node::summary).collect();
            panic!("not within {} ms: {what}\n{}", limit.as_millis(), states.join("\n"));
        }
        if self.trace {
            println!("-- {what} after {} ms", self.now.since(start).as_millis());
        }
    }

    /// Closes what is still open, waits until every connection is dead, and checks that nothing is
    /// left: no connection, no timer, no packet.
    pub fn finish(&mut self) {
        for node in self.nodes.iter_mut().filter(|n| n.alive) {
            node.close_where(self.now, |_| true);
        }
        self.drain(Duration::from_secs(120));
    }

    /// Waits until every connection is dead, and checks that nothing is left.
    pub fn drain(&mut self, limit: Duration) {
        for node in self.nodes.iter_mut().filter(|n| n.alive) {
            node.policy.close_ended = true;
            node.close_where(self.now, super::app::Conn::ended);
        }
        self.run_until("every connection is dead", limit, |w| {
            w.nodes.iter().filter(|n| n.alive).all(Node::is_empty)
        });
        // A repeated ConnectionRequest that comes last of all starts an attempt of its own, which
        // ends by its timeout.
        self.run_until("no packet and no timer is left", Duration::from_secs(80), |w| {
            w.transmit();
            w.queue.is_empty()
                && w.nodes.iter().filter(|n| n.alive).all(|n| n.next_timeout(w.now).is_none())
        });
        for node in self.nodes.iter_mut().filter(|n| n.alive) {
            assert!(node.transmit(self.now).is_empty(), "{} still sends", node.name);
            node.check_ended();
        }
    }

    /// Forgets packets on their way, so that a world that was left can be drained.
    pub fn lose_all_in_flight(&mut self) {
        self.queue.clear();
        self.flights.clear();
        self.pieces.clear();
    }

    /// Bytes of heap that the endpoint of a node holds.
    pub fn heap(&self, node: NodeId) -> i64 {
        self.nodes[node].heap()
    }

    /// The only connection of a node.
    pub fn only(&self, node: NodeId) -> ConnHandle {
        let conns = &self.nodes[node].app.conns;
        assert_eq!(conns.len(), 1, "{} has one connection", self.nodes[node].name);
        *conns.first_key_value().expect("one").0
    }

    /// Events of a node, with their time.
    pub fn history(&self, node: NodeId) -> &[(Instant, Event)] {
        &self.nodes[node].app.history
    }
}

fn summary(piece: &Carried) -> String {
    use super::tcp::Piece;
    match &piece.2 {
        Piece::Bytes(bytes) => format!("{} to {}: {} bytes", piece.0, piece.1, bytes.len()),
        other => format!("{} to {}: {other:?}", piece.0, piece.1),
    }
}

/// Where the event source answers STUN requests.
pub fn stun_server() -> SocketAddr {
    SocketAddr::new([192, 0, 2, 1].into(), 3_478)
}

/// The address that stands for a node at the relay.
pub fn relay_addr(node: NodeId) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, node as u16 + 1).into(), 1)
}

fn relay_node(addr: SocketAddr) -> Option<NodeId> {
    let IpAddr::V6(ip) = addr.ip() else { return None };
    let segments = ip.segments();
    (segments[0] == 0x100 && segments[7] > 0).then(|| usize::from(segments[7]) - 1)
}

fn is_relay(addr: SocketAddr) -> bool {
    relay_node(addr).is_some()
}

/// A packet in a few words, for traces.
pub fn describe(data: &[u8]) -> String {
    let first = data.first().copied().unwrap_or_default();
    let len = data.len();
    if first & 0x80 != 0 {
        format!("long type {} level {}, {len} bytes", (first >> 4) & 7, first & 3)
    } else if len >= 13 {
        let pn = u32::from_be_bytes([data[9], data[10], data[11], data[12]]);
        format!("short {pn}, phase {}, {len} bytes", first & 1)
    } else {
        format!("{len} bytes")
    }
}
