//! Applications that do anything at any time: connections in all directions between three nodes,
//! every call in every status, changing networks, crashes and restarts. Nothing is expected but
//! what always holds: the checks of [`super::app`], delivery as told, and an end of everything.

use super::app::{Chan, Conn};
use super::flow::{End, Flow, Size};
use super::node::{NodeConfig, OnIncoming, OnRequest};
use super::rng::Rng;
use super::tls;
use super::world::{NodeId, World};
use super::{ms, secs};
use std::collections::BTreeMap;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::endpoint::{ClientConfig, RetryPolicy};
use trunkline_proto::error::ApiError;
use trunkline_proto::handshake::Trust;
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

const NODES: usize = 3;
const NAMES: [&str; NODES] = ["anna", "bert", "carl"];

struct Chaos {
    w: World,
    rng: Rng,
    /// Numbers given to channels: no name comes twice.
    named: u64,
    /// Logs of nodes before their restarts.
    gone: Vec<Conn>,
    down_until: [u32; NODES],
    /// Nodes crash and paths fail; otherwise only the applications are wild.
    stormy: bool,
}

/// The run of `seed` with this many steps.
pub fn run(seed: u64, steps: u32) {
    let mut chaos = Chaos::new(seed);
    for _ in 0..steps {
        chaos.act();
        let wait = chaos.rng.pick(&[0, 0, 100, 5_000, 50_000, 400_000]);
        let wait = chaos.rng.below(wait + 1);
        chaos.w.run_for(Duration::from_micros(wait));
    }
    chaos.finish();
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(77);
        let stormy = rng.chance(5_000);
        let mut w = World::new(seed);
        w.max_steps = 400_000;
        w.link.delay = ms(rng.below(60));
        for (i, name) in NAMES.iter().enumerate() {
            let mut config = NodeConfig::host().with(|c| {
                c.initial_timeout = secs(6);
                c.connected_timeout = secs(8);
                c.keep_alive = secs(2);
                c.channel_timeout = secs(4);
                c.max_channels = rng.pick(&[4, 64, 65_534]);
                c.channel_window = rng.pick(&[256, 5_000, 1 << 20]);
                c.early_data = rng.pick(&[0, 2_000, 256 << 10]);
                c.max_message = 200_000;
                c.channel_send_buffer = 200_000;
                c.send_buffer = rng.pick(&[200_000, 128 << 20]);
                c.manual_credit = rng.chance(3_000);
                c.key_update_packets = rng.pick(&[64, 1 << 22]);
                c.max_packet = rng.pick(&[1_200, 1_472, 9_000]);
                c.coalesce = rng.pick(&[Duration::ZERO, ms(5)]);
            });
            config.identity = tls::identity(900 + i as u64, name);
            config.retry = rng.pick(&[RetryPolicy::Never, RetryPolicy::Always]);
            config.max_segments = rng.pick(&[1, 8, 64]);
            w.add(name, config);
        }
        let mut chaos = Self { w, rng, named: 0, gone: Vec::new(), down_until: [0; NODES], stormy };
        for node in 0..NODES {
            chaos.policies(node);
        }
        chaos
    }

    fn policies(&mut self, node: NodeId) {
        let mut rng = self.rng.fork(node as u64 + 1);
        let mut stop = rng.fork(2);
        let mut asked = rng.fork(3);
        let n = &mut self.w.nodes[node];
        n.app.tell_data = true;
        n.policy.close_ended = rng.chance(5_000);
        n.policy.answer = Box::new(move |_, kind| flow(&mut rng, kind));
        n.policy.stop =
            Box::new(move |_| stop.chance(1_000).then(|| (stop.below(2_000), stop.u64() as u32)));
        n.policy.request = Box::new(move |_| match asked.below(12) {
            0 => OnRequest::Decline(asked.below(99) as u32, "no".into()),
            1 => OnRequest::Ignore,
            _ => OnRequest::Accept(ChannelOptions {
                priority: asked.below(8) as u8,
                weight: asked.between(1, 255) as u8,
                no_delay: asked.chance(5_000),
                ..ChannelOptions::default()
            }),
        });
    }

    fn node(&mut self) -> NodeId {
        self.rng.below(NODES as u64) as NodeId
    }

    /// A connection that some living node's application holds.
    fn held(&mut self) -> Option<(NodeId, ConnHandle)> {
        let held: Vec<_> = (0..NODES)
            .filter(|n| self.w.nodes[*n].alive)
            .flat_map(|n| {
                let conns = self.w.nodes[n].app.conns.values();
                let open = conns.filter(|c| c.known && c.closed.is_none() && c.report.is_none());
                open.map(move |c| (n, c.handle))
            })
            .collect();
        (!held.is_empty()).then(|| self.rng.pick(&held))
    }

    /// A channel of one of them that has not ended.
    fn channel(&mut self) -> Option<(NodeId, ConnHandle, ChannelKey)> {
        let (node, conn) = self.held()?;
        let c = self.w.nodes[node].app.conn(conn);
        let open = |chan: &&Chan| chan.end.is_none() && (chan.ours || chan.pump.is_some());
        let keys: Vec<_> = c.channels.values().filter(open).map(|chan| chan.channel).collect();
        (!keys.is_empty() && !c.ended()).then(|| (node, conn, self.rng.pick(&keys)))
    }

    fn act(&mut self) {
        match self.rng.below(100) {
            0..12 => self.connect(),
            12..45 => self.open(),
            45..65 => self.send_more(),
            65..70 => self.give_up(),
            70..74 => self.close(),
            74..78 => self.decide(),
            78..82 => self.check(),
            82..86 => self.network(),
            86..90 if self.stormy => self.network(),
            90..92 => self.rebind(),
            92..94 if self.stormy => self.crash(),
            _ => self.w.run_for(ms(200)),
        }
        for node in 0..NODES {
            let left = &mut self.down_until[node];
            *left = left.saturating_sub(1);
            if *left == 0 && !self.w.nodes[node].alive {
                let old = std::mem::take(&mut self.w.nodes[node].app.conns);
                self.gone.extend(old.into_values());
                self.w.restart(node);
            }
        }
    }

    fn connect(&mut self) {
        let from = self.node();
        let to = (from + 1 + self.rng.below(NODES as u64 - 1) as usize) % NODES;
        if !self.w.nodes[from].alive || self.w.nodes[from].endpoint.connections().count() > 12 {
            return;
        }
        let incoming = match self.rng.below(14) {
            0 => OnIncoming::Reject(1_500, "not now".into()),
            1 => OnIncoming::Ignore,
            _ => OnIncoming::Accept,
        };
        self.w.nodes[to].policy.incoming = incoming;
        // Now and then somebody else is expected there.
        let expected = if self.rng.chance(500) { from } else { to };
        let pin = self.w.nodes[expected].config.identity.peer_id();
        let credential = vec![7; self.rng.pick(&[0, 10, 4_000])];
        let config = ClientConfig {
            tls: tls::client_tls(&Trust::Pins(vec![pin]), None),
            credential,
            ..self.w.nodes[from].client_config()
        };
        let (now, to) = (self.w.now, self.w.addr(to));
        self.w.nodes[from].connect(now, &[to], &config);
    }

    fn open(&mut self) {
        let Some((node, conn)) = self.held() else { return };
        for _ in 0..self.rng.pick(&[1, 1, 2, 10]) {
            let kind =
                self.rng.pick(&[ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams]);
            self.named += 1;
            let name = format!("{kind:?}/{}", self.named);
            let options = ChannelOptions {
                kind,
                priority: self.rng.below(8) as u8,
                weight: self.rng.between(1, 255) as u8,
                no_delay: self.rng.chance(5_000),
                wait_for_answer: self.rng.chance(2_000),
                ..ChannelOptions::default()
            };
            let flow = flow(&mut self.rng, kind);
            let now = self.w.now;
            let status = self.w.nodes[node].endpoint.status(conn);
            match self.w.nodes[node].open(now, conn, &name, options, flow) {
                Ok(_) => {}
                Err(ApiError::LimitReached { .. }) => return,
                Err(ApiError::NoConnection(_)) => {
                    let live = matches!(status, Status::Connecting | Status::Connected);
                    assert!(!live, "no connection in {status:?}");
                    return;
                }
                Err(e) => panic!("open: {e}"),
            }
        }
    }

    fn send_more(&mut self) {
        let Some((node, conn, channel)) = self.channel() else { return };
        let chan = self.w.nodes[node].app.conn(conn).chan(channel);
        let pump = chan.pump.as_ref();
        if chan.stopped.is_some() || !pump.is_some_and(|p| p.done && !p.finished && !p.cancelled) {
            return;
        }
        let (now, flow) = (self.w.now, flow(&mut self.rng, chan.options.kind));
        self.w.nodes[node].send_more(now, conn, channel, flow);
    }

    /// Cancels a direction of a channel, or refuses the other.
    fn give_up(&mut self) {
        let Some((node, conn, channel)) = self.channel() else { return };
        let (code, reset) = (self.rng.u64() as u32, self.rng.chance(5_000));
        let chan = self.w.nodes[node].app.conn_mut(conn).chan_mut(channel);
        if reset {
            let Some(pump) = chan.pump.as_mut() else { return };
            let over = pump.cancelled || pump.finished || chan.stopped.is_some();
            (pump.cancelled, pump.done) = (true, true);
            let result = self.w.call(node, |ep, now, _| ep.reset_channel(now, conn, channel, code));
            assert!(result.is_ok() || over || self.ended(node, conn), "reset: {result:?}");
        } else if chan.eof || chan.reset.is_some() || chan.stop_sent {
            let result = self.w.call(node, |ep, now, _| ep.stop_channel(now, conn, channel, code));
            assert!(result.is_err(), "refused what was over");
        } else {
            chan.stop_sent = true;
            let result = self.w.call(node, |ep, now, _| ep.stop_channel(now, conn, channel, code));
            assert!(result.is_ok() || self.ended(node, conn), "stop: {result:?}");
        }
    }

    fn ended(&self, node: NodeId, conn: ConnHandle) -> bool {
        !matches!(self.w.nodes[node].endpoint.status(conn), Status::Connecting | Status::Connected)
    }

    fn close(&mut self) {
        let Some((node, conn)) = self.held() else { return };
        let linger = self.rng.pick(&[None, Some(Duration::ZERO), Some(ms(300)), Some(secs(20))]);
        let now = self.w.now;
        self.w.nodes[node].close(now, conn, linger).expect("close");
    }

    /// A late decision about a connection that was offered.
    fn decide(&mut self) {
        let Some((node, conn)) = self.held() else { return };
        let c = self.w.nodes[node].app.conn(conn);
        if c.accepted || c.role == trunkline_proto::ids::Role::Client {
            return;
        }
        let live = c.status == Status::Connecting && !self.ended(node, conn);
        if self.rng.chance(7_000) {
            let result = self.w.call(node, |ep, now, _| ep.accept(now, conn));
            assert_eq!(result.is_ok(), live, "{result:?}");
            self.w.nodes[node].app.conn_mut(conn).accepted = true;
        } else {
            let result = self.w.call(node, |ep, now, _| ep.reject(now, conn, 1_600, "late"));
            assert_eq!(result.is_ok(), live, "{result:?}");
            if live {
                let now = self.w.now;
                self.w.nodes[node].app.conn_mut(conn).closed = Some(now);
            }
        }
    }

    fn check(&mut self) {
        if self.rng.chance(2_000) {
            let node = self.node();
            if self.w.nodes[node].alive {
                self.w.call(node, |ep, now, _| ep.network_changed(now));
            }
        } else if let Some((node, conn)) = self.held() {
            let result = self.w.call(node, |ep, now, _| ep.check(now, conn));
            assert!(result.is_ok() || self.ended(node, conn), "check: {result:?}");
        }
    }

    fn network(&mut self) {
        let (a, b) = (self.node(), self.node());
        let (mut rng, stormy) = (self.rng.fork(self.w.steps), self.stormy);
        self.w.both_ways(a, b, |link| {
            link.loss = rng.pick(if stormy { &[0, 0, 100, 1_000, 3_000] } else { &[0, 0, 100] });
            link.reorder = rng.pick(&[0, 0, 2_000]);
            link.duplicate = rng.pick(&[0, 0, 1_000]);
            link.corrupt = rng.pick(&[0, 0, 200]);
            link.mtu = rng.pick(&[1_200, 1_300, 1_472, 65_507]);
            link.delay = ms(rng.below(100));
            link.down = stormy && rng.chance(1_000);
        });
    }

    fn rebind(&mut self) {
        let node = self.node();
        self.w.rebind(node);
    }

    fn crash(&mut self) {
        let node = self.node();
        if self.w.nodes[node].alive {
            self.w.vanish(node);
            self.down_until[node] = self.rng.between(1, 20) as u32;
        }
    }

    fn finish(mut self) {
        for node in 0..NODES {
            if !self.w.nodes[node].alive {
                let old = std::mem::take(&mut self.w.nodes[node].app.conns);
                self.gone.extend(old.into_values());
                self.w.restart(node);
            }
        }
        if self.rng.chance(5_000) {
            self.w.run_for(secs(5));
        }
        self.w.finish();
        self.check_delivery();
    }

    /// Whatever arrived was sent, and what ended well arrived whole.
    fn check_delivery(&self) {
        let all: Vec<&Conn> =
            self.w.nodes.iter().flat_map(|n| n.app.conns.values()).chain(&self.gone).collect();
        let mut by_name: BTreeMap<&str, Vec<&Chan>> = BTreeMap::new();
        for chan in all.iter().flat_map(|c| c.channels.values()) {
            by_name.entry(&chan.name).or_default().push(chan);
        }
        for (name, sides) in by_name {
            assert!(sides.len() <= 2, "{name} came to {} connections", sides.len());
            for (at, from) in [(0, 1), (1, 0)] {
                let Some(at) = sides.get(at) else { continue };
                let sent = sides.get(from).and_then(|s| s.pump.as_ref());
                let got = (at.received.bytes, at.received.messages);
                let Some(sent) = sent else {
                    assert_eq!(got, (0, 0), "{name}: from nowhere");
                    continue;
                };
                assert!(got.0 <= sent.bytes, "{name}: {} of {} bytes", got.0, sent.bytes);
                if at.eof {
                    assert!(sent.finished, "{name}: an EOF that was not sent");
                    let all = at.options.kind == ChannelKind::Datagrams || got.0 == sent.bytes;
                    assert!(all, "{name}: {} of {} bytes before the EOF", got.0, sent.bytes);
                }
            }
        }
    }
}

/// Something to send.
fn flow(rng: &mut Rng, kind: ChannelKind) -> Flow {
    let bytes = rng.pick(&[0, 100, 3_000, 60_000]);
    let amount = rng.below(bytes + 1) / if kind == ChannelKind::Bytes { 1 } else { 500 };
    let mut flow = Flow::of(amount, Size::Mixed(if rng.chance(500) { 60_000 } else { 2_000 }));
    flow.end = match rng.below(10) {
        0 => End::Reset(rng.below(100) as u32),
        1..5 => End::Stay,
        _ => End::Eof,
    };
    flow.shared = rng.chance(3_000);
    flow.receipts = kind != ChannelKind::Datagrams && rng.chance(2_000);
    if rng.chance(2_000) {
        flow = flow.paced(Duration::from_micros(rng.between(10, 20_000)));
    }
    flow
}
