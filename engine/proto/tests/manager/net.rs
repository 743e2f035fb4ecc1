//! Nodes with a manager each, and the network between them.

use crate::sim::rng::Rng;
use crate::sim::tls;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::connection::SecInfo;
use trunkline_proto::endpoint::{
    ClientConfig, Ecn, Endpoint, EndpointConfig, EndpointKeys, ListenerConfig, RetryPolicy, RxMeta,
};
use trunkline_proto::error::CloseReason;
use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming, Sink};
use trunkline_proto::handshake::{ClientAuth, Identity};
use trunkline_proto::ids::{ChannelKey, ConnHandle, PeerId};
use trunkline_proto::manager::{
    AssociationEvent, AssociationId, Manager, ManagerConfig, ManagerSink, Notice, Opened,
    RequestError, RequestId, Target,
};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};
use trunkline_proto::wire::control::Activity;

pub type NodeId = usize;
/// A node that connects.
pub const CLIENT: NodeId = 0;
/// A node that listens.
pub const HOST: NodeId = 1;

/// What an application is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Status(ConnHandle, Status, Option<CloseReason>),
    Incoming(ConnHandle, Option<PeerId>, Vec<u8>),
    Dead(ConnHandle),
    Request(ConnHandle, ChannelKey, String),
    Ready(ConnHandle, ChannelKey),
    Closed(ConnHandle, ChannelKey, ChannelEnd),
    Data(ConnHandle, ChannelKey, Vec<u8>),
    Message(ConnHandle, ChannelKey, Vec<u8>),
    Eof(ConnHandle, ChannelKey),
    Security(ConnHandle, SecInfo),
    Activity(ConnHandle, Activity),
    Notice(Notice),
}

/// The sink of a node.
#[derive(Debug, Default)]
pub struct Log {
    pub now: Instant,
    pub told: Vec<(Instant, Told)>,
    seen: usize,
}

impl Log {
    fn push(&mut self, told: Told) {
        self.told.push((self.now, told));
    }

    pub fn all(&self) -> impl Iterator<Item = &Told> {
        self.told.iter().map(|(_, t)| t)
    }

    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.all().filter_map(|t| match t {
            Told::Notice(notice) => Some(notice),
            _ => None,
        })
    }

    /// The answers to a request: there must never be two.
    pub fn answers(&self, id: RequestId) -> Vec<Result<Opened, RequestError>> {
        let of = |n: &Notice| match n {
            Notice::Request { request, outcome } if *request == id => Some(outcome.clone()),
            _ => None,
        };
        self.notices().filter_map(of).collect()
    }

    pub fn events(&self, id: AssociationId) -> Vec<AssociationEvent> {
        let of = |n: &Notice| match n {
            Notice::Association { association, event } if *association == id => Some(event.clone()),
            _ => None,
        };
        self.notices().filter_map(of).collect()
    }

    pub fn messages(&self) -> Vec<Vec<u8>> {
        let of = |t: &Told| match t {
            Told::Message(_, _, m) => Some(m.clone()),
            _ => None,
        };
        self.all().filter_map(of).collect()
    }

    pub fn count(&self, what: impl Fn(&Told) -> bool) -> usize {
        self.all().filter(|t| what(t)).count()
    }
}

impl Sink for Log {
    fn status(&mut self, conn: ConnHandle, _: Status, new: Status, reason: Option<&CloseReason>) {
        self.push(Told::Status(conn, new, reason.cloned()));
    }
    fn incoming(&mut self, conn: ConnHandle, incoming: &Incoming<'_>) {
        self.push(Told::Incoming(conn, incoming.peer, incoming.credential.to_vec()));
    }
    fn dead(&mut self, conn: ConnHandle, _: &CloseReport) {
        self.push(Told::Dead(conn));
    }
    fn channel_request(&mut self, conn: ConnHandle, channel: ChannelKey, r: &ChannelRequest<'_>) {
        self.push(Told::Request(conn, channel, r.name.to_owned()));
    }
    fn channel_ready(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.push(Told::Ready(conn, channel));
    }
    fn channel_closed(&mut self, conn: ConnHandle, channel: ChannelKey, end: &ChannelEnd) {
        self.push(Told::Closed(conn, channel, end.clone()));
    }
    fn data(&mut self, conn: ConnHandle, channel: ChannelKey, bytes: &[u8]) {
        self.push(Told::Data(conn, channel, bytes.to_vec()));
    }
    fn message(&mut self, conn: ConnHandle, channel: ChannelKey, _: ChannelKind, message: &[u8]) {
        self.push(Told::Message(conn, channel, message.to_vec()));
    }
    fn eof(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.push(Told::Eof(conn, channel));
    }
    fn activity(&mut self, conn: ConnHandle, activity: Activity) {
        self.push(Told::Activity(conn, activity));
    }
    fn security(&mut self, conn: ConnHandle, info: &SecInfo) {
        self.push(Told::Security(conn, *info));
    }
}

impl ManagerSink for Log {
    fn notice(&mut self, notice: Notice) {
        self.push(Told::Notice(notice));
    }
}

/// What an application does with a channel that is asked for.
#[derive(Clone, Debug)]
pub enum Answer {
    Accept,
    Decline(u32, &'static str),
    Ignore,
}

/// How a node is made.
#[derive(Clone)]
pub struct Config {
    pub identity: Option<Identity>,
    pub auth: ClientAuth,
    pub connection: ConnectionConfig,
    pub manager: ManagerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: None,
            auth: ClientAuth::None,
            connection: ConnectionConfig { max_packet: 1452, ..ConnectionConfig::default() },
            manager: ManagerConfig::default(),
        }
    }
}

/// One node.
pub struct Node {
    pub endpoint: Endpoint,
    pub manager: Manager,
    pub log: Log,
    pub addr: SocketAddr,
    pub accept: bool,
    pub answer: Box<dyn FnMut(&str) -> Answer>,
    /// Neither sends nor receives.
    pub down: bool,
    pub identity: Option<Identity>,
    pub packets_out: u64,
}

impl Node {
    fn new(id: NodeId, config: Config, rng: &mut Rng) -> Self {
        let listen = config.identity.clone().filter(|_| id != CLIENT);
        let keys = EndpointKeys { id: [id as u8; 16], reset: rng.seed(), retry: rng.seed() };
        let mut endpoint = Endpoint::new(
            Instant::ZERO,
            EndpointConfig {
                shard: 0,
                server: 0,
                seed: rng.seed(),
                keys,
                connection: config.connection,
                max_connections: 1024,
                max_handshakes: 256,
                retry: RetryPolicy::Never,
                observer: None,
            },
        )
        .expect("endpoint");
        if let Some(identity) = &listen {
            let tls = tls::host_tls(identity, &config.auth);
            endpoint.listen(0, ListenerConfig { tls, connection: None }).expect("listen");
        }
        Self {
            endpoint,
            manager: Manager::new(config.manager),
            log: Log::default(),
            addr: SocketAddr::from(([10, 0, 0, 1 + id as u8], 4000)),
            accept: true,
            answer: Box::new(|_| Answer::Accept),
            down: false,
            identity: config.identity,
            packets_out: 0,
        }
    }

    fn next(&self) -> Option<Instant> {
        let more = (self.log.seen < self.log.told.len()).then_some(Instant::ZERO);
        [self.endpoint.next_timeout(), self.manager.next_timeout(), more]
            .into_iter()
            .flatten()
            .min()
    }

    /// What the application does about what it was told.
    fn react(&mut self, now: Instant) {
        while let Some((_, told)) = self.log.told.get(self.log.seen).cloned() {
            self.log.seen += 1;
            match told {
                Told::Incoming(conn, ..) if self.accept => {
                    self.endpoint.accept(now, conn).expect("accept");
                }
                Told::Request(conn, channel, name) => {
                    let options = ChannelOptions::default();
                    match (self.answer)(&name) {
                        Answer::Accept => {
                            let _ = self.endpoint.accept_channel(now, conn, channel, &options);
                        }
                        Answer::Decline(code, text) => {
                            let _ = self.endpoint.decline_channel(now, conn, channel, code, text);
                        }
                        Answer::Ignore => {}
                    }
                }
                _ => {}
            }
        }
    }
}

struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    data: Vec<u8>,
}

/// The network, and everybody on it.
pub struct Net {
    pub now: Instant,
    pub nodes: Vec<Node>,
    wire: BTreeMap<(Instant, u64), Packet>,
    count: u64,
    rng: Rng,
    /// Packets lost, in 10,000.
    pub loss: u32,
    /// Packets that wait up to 30 ms longer, in 10,000.
    pub reorder: u32,
    pub delay: Duration,
    buffer: Vec<u8>,
}

impl Net {
    /// A client, a host with the usual identity, and how both are made.
    pub fn with(seed: u64, client: Config, host: Config) -> Self {
        let mut net = Self {
            now: Instant::from_nanos(1_000_000_000),
            nodes: Vec::new(),
            wire: BTreeMap::new(),
            count: 0,
            rng: Rng::new(seed),
            loss: 0,
            reorder: 0,
            delay: Duration::from_millis(10),
            buffer: vec![0; 65_536],
        };
        net.add(Config { identity: Some(tls::client_id().clone()), ..client });
        net.add(Config { identity: Some(tls::host_id().clone()), ..host });
        net
    }

    pub fn new(seed: u64) -> Self {
        Self::with(seed, Config::default(), Config::default())
    }

    pub fn add(&mut self, config: Config) -> NodeId {
        let id = self.nodes.len();
        let mut rng = self.rng.fork(id as u64);
        self.nodes.push(Node::new(id, config, &mut rng));
        id
    }

    /// How the client reaches a node with the usual trust.
    pub fn target(&self, node: NodeId) -> Target {
        let identity = self.nodes[CLIENT].identity.as_ref();
        let trust = trunkline_proto::handshake::Trust::Pins(vec![
            self.nodes[node].identity.as_ref().expect("a host").peer_id(),
        ]);
        let config = ClientConfig {
            tls: tls::client_tls(&trust, identity),
            server_name: tls::HOST_NAME.into(),
            credential: Vec::new(),
            connection: None,
        };
        Target::new(0, vec![self.nodes[node].addr], config)
    }

    /// A call of the application.
    pub fn call<R>(
        &mut self,
        node: NodeId,
        f: impl FnOnce(Instant, &mut Manager, &mut Endpoint) -> R,
    ) -> R {
        let now = self.now;
        let node = &mut self.nodes[node];
        f(now, &mut node.manager, &mut node.endpoint)
    }

    pub fn request(
        &mut self,
        target: &Target,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<RequestId, trunkline_proto::error::ApiError> {
        let target = target.clone();
        self.call(CLIENT, |now, m, ep| m.request_channel(now, ep, target, name, options))
    }

    /// The one answer to a request, awaited.
    pub fn answer(&mut self, id: RequestId) -> Result<Opened, RequestError> {
        self.run_until("an answer", Duration::from_secs(60), |net| {
            !net.nodes[CLIENT].log.answers(id).is_empty()
        });
        let answers = self.nodes[CLIENT].log.answers(id);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.into_iter().next().expect("one")
    }

    fn turn(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id];
        node.log.now = now;
        node.endpoint.end_batch(now, &mut node.manager.watch(&mut node.log));
        node.manager.run(now, &mut node.endpoint, &mut node.log);
        node.react(now);
        if node.endpoint.next_timeout().is_some_and(|at| at <= now) {
            node.endpoint.handle_timeout(now, &mut node.manager.watch(&mut node.log));
            node.manager.run(now, &mut node.endpoint, &mut node.log);
            node.react(now);
        }
        while let Some(t) = node.endpoint.poll_transmit(now, &mut self.buffer, 10) {
            for segment in self.buffer[..t.len].chunks(t.segment) {
                node.packets_out += 1;
                if node.down || self.rng.chance(self.loss) {
                    continue;
                }
                let late = if self.rng.chance(self.reorder) { self.rng.below(30) } else { 0 };
                let at = now + self.delay + Duration::from_millis(late);
                self.count += 1;
                let packet = Packet { from: node.addr, to: t.remote, data: segment.to_vec() };
                self.wire.insert((at, self.count), packet);
            }
        }
    }

    /// One moment; `false` when nothing happens until `limit`.
    pub fn step(&mut self, limit: Instant) -> bool {
        let next = self.nodes.iter().filter_map(Node::next);
        let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
        let Some(at) = next.chain(wire).min().map(|at| at.max(self.now)).filter(|at| *at <= limit)
        else {
            self.now = limit;
            return false;
        };
        self.now = at;
        while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= at) {
            let mut packet = entry.remove();
            let Some(node) = self.nodes.iter_mut().find(|n| n.addr == packet.to) else { continue };
            if node.down {
                continue;
            }
            let ecn = Ecn::NotEct;
            let meta = RxMeta { socket: 0, remote: packet.from, local: None, ecn };
            node.log.now = at;
            let sink = &mut node.manager.watch(&mut node.log);
            let _ = node.endpoint.receive(at, &meta, &mut packet.data, sink);
        }
        for id in 0..self.nodes.len() {
            self.turn(id);
        }
        true
    }

    pub fn run_for(&mut self, time: Duration) {
        let limit = self.now + time;
        while self.step(limit) {}
    }

    pub fn run_until(&mut self, what: &str, time: Duration, mut done: impl FnMut(&Self) -> bool) {
        let limit = self.now + time;
        while !done(self) {
            assert!(self.step(limit) || done(self), "not in time: {what}");
        }
    }

    pub fn status(&self, node: NodeId, conn: ConnHandle) -> Status {
        self.nodes[node].endpoint.status(conn)
    }

    /// The host's newest connection.
    pub fn at_host(&self) -> ConnHandle {
        let of = |t: &Told| match t {
            Told::Incoming(conn, ..) => Some(*conn),
            _ => None,
        };
        self.nodes[HOST].log.all().filter_map(of).last().expect("a connection at the host")
    }

    pub fn incoming(&self, node: NodeId) -> usize {
        self.nodes[node].log.count(|t| matches!(t, Told::Incoming(..)))
    }
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
