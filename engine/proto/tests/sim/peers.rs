//! Two peers behind translators, with the relay of an event source between them.

use super::app::Conn;
use super::flow::Flow;
use super::nat::Nat;
use super::node::{Node, NodeConfig};
use super::pair::{check_delivery, options};
use super::secs;
use super::tls;
use super::world::{NodeId, World, relay_addr, stun_server};
use std::net::SocketAddr;
use trunkline_proto::config::{ChannelKind, ConnectionConfig};
use trunkline_proto::endpoint::{ClientConfig, ConnInfo};
use trunkline_proto::handshake::{ClientAuth, Trust};
use trunkline_proto::ids::{ConnHandle, Role};
use trunkline_proto::rendezvous::route::{RouteConfig, RouteFinder};
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

/// Node number of the first peer, the one that connects when one does.
pub const A: NodeId = 0;
/// Node number of the second peer.
pub const B: NodeId = 1;

/// Two peers, and the connection that one of them made to the other.
pub struct Peers {
    pub w: World,
    /// The connection as each peer names it.
    pub conns: [ConnHandle; 2],
}

/// A peer that answers over the relay, with an identity of its own.
pub fn peer(number: u64) -> NodeConfig {
    NodeConfig {
        listen_relay: true,
        identity: tls::identity(number, tls::HOST_NAME),
        client_auth: ClientAuth::Required(Trust::DangerousAny),
        ..NodeConfig::client()
    }
}

impl Peers {
    /// Two peers on the open network, with the same settings.
    pub fn new(seed: u64, change: impl Fn(&mut ConnectionConfig)) -> Self {
        let mut w = World::new(seed);
        w.add("a", peer(601).with(&change));
        w.add("b", peer(602).with(&change));
        Self { w, conns: [ConnHandle { slot: u32::MAX, generation: u32::MAX }; 2] }
    }

    /// The same behind translators.
    pub fn behind(seed: u64, a: Nat, b: Nat) -> Self {
        let mut peers = Self::new(seed, |_| {});
        peers.w.nats = vec![a, b];
        peers.w.behind(A, 0);
        peers.w.behind(B, 1);
        peers
    }

    /// Peers that are FindingRoute.
    pub fn finding(seed: u64) -> Self {
        let mut peers = Self::new(seed, |_| {});
        peers.connect();
        peers
    }

    /// Peers that are connected over the relay.
    pub fn relayed(seed: u64) -> Self {
        let mut peers = Self::finding(seed);
        peers.use_relay();
        peers
    }

    /// How a peer connects to the other.
    pub fn config(&self, node: NodeId) -> ClientConfig {
        let identity = &self.w.nodes[node].config.identity;
        ClientConfig {
            tls: tls::client_tls(&Trust::DangerousAny, Some(identity)),
            server_name: tls::HOST_NAME.into(),
            credential: vec![node as u8; 20],
            connection: None,
        }
    }

    /// A peer starts a connection to the other.
    pub fn start(&mut self, node: NodeId) -> ConnHandle {
        let config = self.config(node);
        let relay = relay_addr(1 - node);
        let conn = self
            .w
            .call(node, |ep, now, _| ep.connect_relayed(now, relay, &config))
            .expect("connect_relayed");
        let known = Conn::new(conn, Role::Client, relay);
        self.w.nodes[node].app.conns.insert(conn, known);
        self.conns[node] = conn;
        conn
    }

    /// A connects to B, until both are FindingRoute.
    pub fn connect(&mut self) {
        self.start(A);
        self.await_status(A, Status::FindingRoute);
        self.find_host();
        self.await_status(B, Status::FindingRoute);
    }

    /// Looks up the host's connection.
    pub fn find_host(&mut self) {
        let hosts = self.w.nodes[B].app.conns.values();
        let live = hosts.filter(|c| c.role == Role::Host && !c.ended());
        self.conns[B] = live.map(|c| c.handle).max().expect("the host was told");
    }

    pub fn await_status(&mut self, node: NodeId, status: Status) {
        let conn = self.conns[node];
        let what = format!("node {node} is {status:?}");
        self.w.run_until(&what, secs(30), |w| w.nodes[node].endpoint.status(conn) == status);
    }

    /// Both take the relay.
    pub fn use_relay(&mut self) {
        for node in [A, B] {
            let conn = self.conns[node];
            self.w.call(node, |ep, now, _| ep.use_relay(now, conn)).expect("use_relay");
        }
        self.await_status(A, Status::Connected);
        self.await_status(B, Status::Connected);
    }

    /// Both look for routes to each other.
    pub fn search(&mut self) {
        self.search_with(&RouteConfig::default());
    }

    pub fn search_with(&mut self, config: &RouteConfig) {
        for (node, role) in [(A, Role::Client), (B, Role::Host)] {
            let conn = self.conns[node];
            let key = self.w.nodes[node].endpoint.route_key(conn).expect("a key");
            let now = self.w.nodes[node].local_time(self.w.now);
            let epoch = std::time::Instant::now();
            let seed = [node as u8 + self.w.seed as u8; 32];
            let mut finder = RouteFinder::new(now, epoch, role, key, seed, config.clone());
            finder.set_servers(now, &[stun_server()]);
            finder.set_locals(now, &[(0, self.w.addr(node))]);
            self.w.nodes[node].finder = Some((finder, conn));
        }
    }

    /// Whether the path in use is direct, at both.
    pub fn is_direct(&self) -> bool {
        [A, B].iter().all(|node| !self.info(*node).relayed)
    }

    /// Where the other peer reaches this one: its own address, for peers on the open network.
    pub fn addr(&self, node: NodeId) -> SocketAddr {
        self.w.addr(node)
    }

    /// This peer tries the direct path to an address.
    pub fn try_path(&mut self, node: NodeId, remote: SocketAddr) {
        let conn = self.conns[node];
        self.w.call(node, |ep, now, _| ep.try_path(now, conn, 0, remote)).expect("try_path");
    }

    /// Both try the direct path to the other's address.
    pub fn try_direct(&mut self) {
        let (a, b) = (self.addr(A), self.addr(B));
        self.try_path(A, b);
        self.try_path(B, a);
    }

    pub fn info(&self, node: NodeId) -> ConnInfo {
        self.w.nodes[node].endpoint.info(self.conns[node]).expect("a live connection")
    }

    pub fn status(&self, node: NodeId) -> Status {
        self.w.nodes[node].endpoint.status(self.conns[node])
    }

    pub fn conn(&self, node: NodeId) -> &Conn {
        self.w.nodes[node].app.conn(self.conns[node])
    }

    /// Waits until both sides send over the relay, or neither does.
    pub fn await_relayed(&mut self, relayed: bool, limit: Duration) {
        let conns = self.conns;
        let what = if relayed { "both use the relay" } else { "both use a direct path" };
        self.w.run_until(what, limit, |w| {
            [A, B].iter().all(|node| {
                let info = w.nodes[*node].endpoint.info(conns[*node]);
                info.is_some_and(|i| i.relayed == relayed)
            })
        });
    }

    pub fn fall_back(&mut self, node: NodeId) {
        let conn = self.conns[node];
        self.w.call(node, |ep, now, _| ep.fall_back(now, conn)).expect("fall_back");
    }

    /// Nothing passes between the two directly, or everything.
    pub fn cut(&mut self, down: bool) {
        self.w.both_ways(A, B, |link| link.down = down);
    }

    /// Opens a channel at this node and starts to send on it.
    pub fn open(&mut self, node: NodeId, name: &str, kind: ChannelKind, flow: Flow) {
        let (now, conn) = (self.w.now, self.conns[node]);
        self.w.nodes[node].open(now, conn, name, options(kind), flow).expect("open");
    }

    /// Waits until the channel called `name` has its EOF at this node.
    pub fn await_eof(&mut self, node: NodeId, name: &str, limit: Duration) {
        let conn = self.conns[node];
        let what = format!("{name} has its EOF at node {node}");
        self.w.run_until(&what, limit, |w| {
            w.nodes[node].app.conn(conn).named(name).is_some_and(|c| c.eof)
        });
    }

    pub fn node(&mut self, node: NodeId) -> &mut Node {
        &mut self.w.nodes[node]
    }

    /// Everything that one side sent on a channel that ended well has arrived at the other.
    pub fn check_delivery(&self) {
        check_delivery(self.conn(A), self.conn(B));
        check_delivery(self.conn(B), self.conn(A));
    }

    /// Closes both sides, waits for the end and checks that nothing is left.
    pub fn finish(mut self) {
        self.check_delivery();
        self.w.finish();
    }
}
