//! The usual world: one host, one client, one connection between them.

use super::app::{Chan, Conn};
use super::flow::Flow;
use super::link::Link;
use super::node::{Node, NodeConfig, Over};
use super::world::{NodeId, World};
use super::{ms, secs};
use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::endpoint::{ClientConfig, ConnStats};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// Node number of the client.
pub const CLIENT: NodeId = 0;
/// Node number of the host.
pub const HOST: NodeId = 1;

/// A world with a client and a host.
pub struct Pair {
    pub w: World,
    /// The connection as the client names it, once it is made.
    pub c: ConnHandle,
    /// The connection as the host names it, once it is connected.
    pub h: ConnHandle,
}

/// Options of a channel of this kind whose small writes do not wait.
pub fn options(kind: ChannelKind) -> ChannelOptions {
    ChannelOptions { kind, no_delay: true, ..ChannelOptions::default() }
}

impl Pair {
    /// A client and a host that are not connected.
    pub fn apart(seed: u64, client: NodeConfig, host: NodeConfig) -> Self {
        let mut w = World::new(seed);
        let plain = client.over == Over::PlainStream;
        if super::node::is_repeated_over_a_stream() {
            // What is expected of times holds on both links.
            (w.tcp.delay, w.tcp.jitter) = (w.link.delay, w.link.jitter);
        }
        w.add("client", client);
        w.add("host", host);
        for node in &mut w.nodes {
            node.app.plain = plain;
        }
        let none = ConnHandle { slot: u32::MAX, generation: u32::MAX };
        Self { w, c: none, h: none }
    }

    /// A connected pair with the same settings on both sides.
    pub fn with(seed: u64, change: impl Fn(&mut ConnectionConfig)) -> Self {
        let client = NodeConfig::client().with(&change);
        let mut pair = Self::apart(seed, client, NodeConfig::host().with(&change));
        pair.connect();
        pair
    }

    /// A connected pair with default settings.
    pub fn connected(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    /// Starts a connection and does not wait for it.
    pub fn start(&mut self) {
        let config = self.client().client_config();
        self.start_with(&config);
    }

    /// Starts a connection with these settings and does not wait for it.
    pub fn start_with(&mut self, config: &ClientConfig) {
        let (now, to) = (self.w.now, self.w.addr(HOST));
        self.c = self.w.nodes[CLIENT].connect(now, &[to], config);
    }

    /// Starts a connection and waits until both sides are connected.
    pub fn connect(&mut self) {
        self.start();
        self.await_connected();
    }

    /// Waits until both sides of the newest connection are connected.
    pub fn await_connected(&mut self) {
        let c = self.c;
        self.w.run_until("the client is connected", secs(60), |w| {
            w.nodes[CLIENT].app.conn(c).status == Status::Connected
        });
        let from = self.w.addr(CLIENT);
        // On a plain link the client is connected before the host has its last flight.
        self.w.run_until("the host knows the client", secs(60), |w| {
            w.nodes[HOST].app.conns.values().any(|c| c.remote == from && !c.ended())
        });
        let hosts = &self.host().app.conns;
        let newest = hosts.values().filter(|c| c.remote == from && !c.ended()).map(|c| c.handle);
        self.h = newest.max_by_key(|h| (h.generation, h.slot)).expect("the host knows the client");
        let h = self.h;
        self.w.run_until("the host is connected", secs(60), |w| {
            w.nodes[HOST].app.conn(h).status == Status::Connected
        });
    }

    /// Changes both directions of the path.
    pub fn link(&mut self, change: impl Fn(&mut Link)) {
        self.w.both_ways(CLIENT, HOST, change);
    }

    pub fn now(&self) -> Instant {
        self.w.now
    }

    pub fn client(&mut self) -> &mut Node {
        &mut self.w.nodes[CLIENT]
    }

    pub fn host(&mut self) -> &mut Node {
        &mut self.w.nodes[HOST]
    }

    /// The connection as this node knows it.
    pub fn handle(&self, node: NodeId) -> ConnHandle {
        if node == CLIENT { self.c } else { self.h }
    }

    /// The log of the connection at this node.
    pub fn conn(&self, node: NodeId) -> &Conn {
        self.w.nodes[node].app.conn(self.handle(node))
    }

    /// The log of the channel called `name` at this node.
    pub fn chan(&self, node: NodeId, name: &str) -> &Chan {
        let conn = self.conn(node);
        conn.named(name).unwrap_or_else(|| panic!("node {node} knows no channel {name}"))
    }

    /// The key of the channel called `name` at this node.
    pub fn key(&self, node: NodeId, name: &str) -> ChannelKey {
        self.chan(node, name).channel
    }

    pub fn status(&self, node: NodeId) -> Status {
        self.w.nodes[node].endpoint.status(self.handle(node))
    }

    pub fn stats(&self, node: NodeId) -> ConnStats {
        let stats = self.w.nodes[node].endpoint.stats(self.handle(node));
        stats.unwrap_or_else(|| panic!("node {node} has no such connection"))
    }

    /// Opens a channel at this node and starts to send on it.
    pub fn open(&mut self, node: NodeId, name: &str, kind: ChannelKind, flow: Flow) -> ChannelKey {
        self.try_open(node, name, options(kind), flow).expect("open")
    }

    pub fn try_open(
        &mut self,
        node: NodeId,
        name: &str,
        options: ChannelOptions,
        flow: Flow,
    ) -> Result<ChannelKey, ApiError> {
        let (now, conn) = (self.w.now, self.handle(node));
        self.w.nodes[node].open(now, conn, name, options, flow)
    }

    /// Sends more on a channel whose flow was done.
    pub fn send(&mut self, node: NodeId, name: &str, flow: Flow) {
        let (now, conn, key) = (self.w.now, self.handle(node), self.key(node, name));
        self.w.nodes[node].send_more(now, conn, key, flow);
    }

    /// Closes at this node.
    pub fn close(&mut self, node: NodeId, linger: Option<Duration>) {
        let (now, conn) = (self.w.now, self.handle(node));
        self.w.nodes[node].close(now, conn, linger).expect("close");
    }

    /// Waits until the channel called `name` has its EOF at this node.
    pub fn await_eof(&mut self, node: NodeId, name: &str, limit: Duration) {
        let conn = self.handle(node);
        let what = format!("{name} has its EOF at node {node}");
        self.w.run_until(&what, limit, |w| {
            w.nodes[node].app.conn(conn).named(name).is_some_and(|c| c.eof)
        });
    }

    /// Waits until `done` holds for the pair.
    pub fn run_until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let until = self.w.now + limit;
        while !done(self) {
            if !self.w.step(until) {
                if done(self) {
                    return;
                }
                let states: Vec<_> = self.w.nodes.iter().map(Node::summary).collect();
                panic!("not within {} ms: {what}\n{}", limit.as_millis(), states.join("\n"));
            }
        }
    }

    /// Lets everything settle.
    pub fn settle(&mut self) {
        self.w.run_for(ms(2_000));
    }

    /// Everything that one side sent on a channel that ended well has arrived at the other.
    pub fn check_delivery(&self) {
        for (at, from) in [(CLIENT, HOST), (HOST, CLIENT)] {
            check_delivery(self.conn(at), self.conn(from), self.w.nodes[at].app.plain);
        }
    }

    /// Closes both sides, waits for the end and checks that nothing is left.
    pub fn finish(mut self) {
        self.w.finish();
    }
}

/// What `at` received from `from` is what `from` sent, as far as it was to arrive.
pub fn check_delivery(at: &Conn, from: &Conn, plain: bool) {
    for chan in at.channels.values() {
        let name = &chan.name;
        let Some(sent) = from.named(name).and_then(|other| other.pump.as_ref()) else {
            assert_eq!(chan.received.messages + chan.received.bytes, 0, "{name}: from nowhere");
            continue;
        };
        let got = (chan.received.bytes, chan.received.messages);
        if chan.options.kind == ChannelKind::Datagrams {
            assert!(got.1 <= sent.messages, "{name}: more datagrams than were sent");
            continue;
        }
        let bytes_only = chan.options.kind == ChannelKind::Bytes;
        assert!(got.0 <= sent.bytes, "{name}: {} of {} bytes", got.0, sent.bytes);
        // On a plain link cancelling is an EOF, too.
        let stopped = from.named(name).is_some_and(|other| other.stop_sent);
        if chan.eof && !(plain && (sent.cancelled || stopped)) {
            assert!(sent.finished, "{name}: an EOF that was not sent");
            assert_eq!(got.0, sent.bytes, "{name}: bytes before the EOF");
            assert!(bytes_only || got.1 == sent.messages, "{name}: messages before the EOF");
        }
    }
}
