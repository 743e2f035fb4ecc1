//! One run of the matrix: everything about it follows from its seed.

use super::alloc;
use super::app::{Chan, Conn};
use super::flow::{End, Flow, Size};
use super::link::{Link, Rate};
use super::node::{NodeConfig, OnRequest, Over};
use super::pair::{CLIENT, HOST, Pair};
use super::rng::Rng;
use super::world::NodeId;
use super::{ms, secs};
use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::endpoint::RetryPolicy;
use trunkline_proto::error::Reason;
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::handshake::{ClientAuth, Trust};
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

/// Bytes of heap that one endpoint may hold at its peak: buffers of the data under way and tables.
const PEAK_HEAP: i64 = 24 << 20;
/// Bytes of heap that an endpoint may keep when its last connection is dead; its listeners, which are
/// two on a host, are part of that.
const IDLE_HEAP: i64 = 9 << 10;
/// Steps of one run.
const MAX_STEPS: u64 = 600_000;

/// What the channels of a run carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    Only(ChannelKind),
    Mixed,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This side closes with linger when everything is done, or in the middle.
    Linger { by: NodeId, midway: bool },
    /// This side closes at once.
    Abrupt { by: NodeId, midway: bool },
    /// Both sides close within the same round trip.
    Both { linger: bool, midway: bool },
    /// This side is gone without a word.
    Vanish { who: NodeId },
}

const ENDINGS: [Ending; 16] = [
    Ending::Linger { by: CLIENT, midway: false },
    Ending::Linger { by: HOST, midway: false },
    Ending::Linger { by: CLIENT, midway: true },
    Ending::Linger { by: HOST, midway: true },
    Ending::Linger { by: CLIENT, midway: true },
    Ending::Linger { by: HOST, midway: true },
    Ending::Abrupt { by: CLIENT, midway: false },
    Ending::Abrupt { by: HOST, midway: false },
    Ending::Abrupt { by: CLIENT, midway: true },
    Ending::Abrupt { by: HOST, midway: true },
    Ending::Both { linger: true, midway: false },
    Ending::Both { linger: false, midway: false },
    Ending::Both { linger: true, midway: true },
    Ending::Both { linger: false, midway: true },
    Ending::Vanish { who: CLIENT },
    Ending::Vanish { who: HOST },
];

/// A run, before it is made.
#[derive(Debug)]
pub struct Scenario {
    pub seed: u64,
    /// What carries the connection. A stream is not lost, damaged or cut: only its delay is drawn.
    pub over: Over,
    pub kinds: Kinds,
    pub channels: u64,
    pub link: Link,
    /// The path's packet size falls to this, then.
    pub mtu_drop: Option<(Duration, usize)>,
    /// The client's address changes then.
    pub rebinds: Vec<Duration>,
    /// From then on nothing passes, for so long.
    pub blackout: Option<(Duration, Duration)>,
    pub ending: Ending,
    /// When a run that ends midway ends, after it was connected.
    pub cut: Duration,
    pub manual_credit: bool,
    /// Bytes of each direction of a byte stream, at most.
    pub volume: u64,
    pub retry: bool,
}

impl Scenario {
    /// The run of `seed` with these channels.
    pub fn new(seed: u64, kinds: Kinds, channels: u64) -> Self {
        let mut rng = Rng::new(seed).fork(7);
        let loss = [0, 100, 500, 2_000][(seed % 4) as usize];
        let mut link = Link { loss, ..Link::default() };
        link.delay = match rng.below(4) {
            0 => Duration::from_micros(rng.between(10, 500)),
            1 => ms(rng.between(1, 20)),
            2 => ms(rng.between(20, 100)),
            _ => ms(rng.between(100, 300)),
        };
        link.jitter = link.delay.div(rng.pick(&[2, 4, 100, u64::MAX]));
        link.reorder = rng.pick(&[0, 0, 300, 2_000]);
        link.reorder_by = ms(rng.between(1, 200));
        link.duplicate = rng.pick(&[0, 0, 200, 1_000]);
        link.corrupt = rng.pick(&[0, 0, 50, 300]);
        link.ce = rng.pick(&[0, 0, 0, 200]);
        link.mtu = rng.pick(&[1_200, 1_472, 1_472, 8_972, 65_507]);
        if rng.chance(2_000) {
            let bytes_per_s = rng.between(200_000, 5_000_000);
            link.rate = Some(Rate { bytes_per_s, queue: bytes_per_s / 10 });
        }
        let mtu_drop = rng
            .chance(2_500)
            .then(|| (ms(rng.between(0, 3_000)), rng.between(1_200, 1_400) as usize));
        let rebinds = match rng.below(8) {
            0 => vec![ms(rng.between(0, 3_000))],
            1 => vec![ms(rng.between(0, 1_000)), ms(rng.between(1_000, 4_000))],
            _ => vec![],
        };
        let blackout =
            rng.chance(1_500).then(|| (ms(rng.between(0, 3_000)), ms(rng.between(100, 8_000))));
        let round_trips = link.delay.mul(2).as_millis() + 20;
        let harsh = u64::from(link.loss) * round_trips;
        let volume = match harsh {
            0..20_000 => 60_000,
            20_000..200_000 => 30_000,
            _ => 12_000,
        };
        Self {
            seed,
            over: Over::Datagrams,
            kinds,
            channels,
            mtu_drop,
            rebinds,
            blackout,
            ending: rng.pick(&ENDINGS),
            cut: ms(rng.below(round_trips * 8)),
            manual_credit: rng.chance(3_000),
            volume,
            retry: rng.chance(1_000),
            link,
        }
    }

    /// The same over a native stream.
    pub fn over_a_stream(self) -> Self {
        // The link plays no part any more.
        let link = Link { loss: 0, ..self.link };
        Self { over: Over::Stream, rebinds: vec![], blackout: None, mtu_drop: None, link, ..self }
    }

    /// The same over a plain stream.
    pub fn over_a_plain_stream(self) -> Self {
        Self { over: Over::PlainStream, ..self.over_a_stream() }
    }

    fn is_plain(&self) -> bool {
        self.over == Over::PlainStream
    }

    fn settings(&self, c: &mut ConnectionConfig, side: NodeId) {
        let mut rng = Rng::new(self.seed).fork(20 + side as u64);
        // Under heavy loss nothing may be blamed on the usual, shorter limits.
        c.initial_timeout = secs(60);
        c.channel_timeout = secs(100);
        c.connected_timeout = secs(40);
        c.linger_timeout = secs(300);
        c.fin_wait_timeout = secs(60);
        c.max_packet = rng.pick(&[1_200, 1_452, 1_452, 9_000, 65_507]);
        c.manual_credit = self.manual_credit;
        c.ecn = rng.chance(7_000);
        c.coalesce = rng.pick(&[Duration::ZERO, ms(1), ms(5)]);
        c.max_ack_delay = rng.pick(&[Duration::ZERO, ms(5), ms(25)]);
        c.channel_window = rng.pick(&[512, 4_096, 65_536, 1 << 20]);
        c.channel_window_max = c.channel_window.max(rng.pick(&[4_096, 1 << 20]));
        c.early_data = rng.pick(&[0, 1_000, 256 << 10]);
        c.key_update_packets = rng.pick(&[64, 200, 1 << 22]);
        c.max_message = rng.pick(&[64 << 10, 1 << 20]);
        c.channel_send_buffer = c.max_message as u64;
        c.send_buffer = rng.pick(&[1 << 20, 128 << 20]).max(c.channel_send_buffer);
    }

    fn options(kind: ChannelKind, rng: &mut Rng) -> ChannelOptions {
        let datagrams = kind == ChannelKind::Datagrams;
        ChannelOptions {
            kind,
            priority: rng.below(8) as u8,
            weight: rng.between(1, 255) as u8,
            window: rng.chance(1_000).then_some(rng.between(256, 20_000)),
            no_delay: rng.chance(5_000),
            wait_for_answer: rng.chance(2_000),
            unique: false,
            latest: datagrams && rng.chance(3_000),
            expires_ms: if datagrams && rng.chance(3_000) { 500 } else { 0 },
        }
    }

    /// What one side sends on a channel.
    fn flow(&self, kind: ChannelKind, rng: &mut Rng) -> Flow {
        let share = (self.volume * 2 / self.channels).max(100);
        let budget = rng.between(0, share * 2);
        let end = if rng.chance(800) { End::Reset(rng.below(5_000) as u32) } else { End::Eof };
        let pace = Duration::from_micros(rng.between(100, 20_000));
        let mut flow = match kind {
            ChannelKind::Bytes => Flow::of(budget, Size::Mixed(5_000)),
            ChannelKind::Messages if self.channels == 1 && rng.chance(3_000) => {
                Flow::of(budget / 20_000 + 1, Size::Mixed(40_000))
            }
            ChannelKind::Messages => Flow::of(budget / 600, Size::Mixed(1_800)),
            ChannelKind::Datagrams => Flow::of(budget / 600, Size::Mixed(4_000)).paced(pace),
        };
        flow.end = end;
        flow.receipts = kind != ChannelKind::Datagrams && rng.chance(2_000);
        flow.shared = rng.chance(3_000);
        if rng.chance(1_000) {
            flow = flow.paced(pace);
        }
        flow
    }

    fn kind(&self, rng: &mut Rng) -> ChannelKind {
        match self.kinds {
            Kinds::Only(kind) => kind,
            Kinds::Mixed => {
                rng.pick(&[ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams])
            }
        }
    }

    /// Makes the run and checks everything that must hold in it.
    pub fn run(self) {
        let before = alloc::live_total();
        {
            let mut pair = self.build();
            self.transfer(&mut pair);
            self.end(&mut pair);
            self.check(&pair);
        }
        assert_eq!(alloc::live_total(), before, "heap that nobody owns any more");
    }

    /// Makes the run and gives a digest of all packets.
    pub fn digest(&self) -> u64 {
        let mut pair = self.build();
        self.transfer(&mut pair);
        self.end(&mut pair);
        pair.w.digest
    }

    fn build(&self) -> Pair {
        let mut rng = Rng::new(self.seed).fork(8);
        let mut client = NodeConfig::client().with(|c| self.settings(c, CLIENT));
        client.over = self.over;
        let mut host = NodeConfig::host().with(|c| self.settings(c, HOST));
        host.client_auth = match rng.below(4) {
            0 => ClientAuth::Required(Trust::Pins(vec![super::tls::client_peer_id()])),
            1 => ClientAuth::Optional(Trust::DangerousAny),
            _ => ClientAuth::None,
        };
        host.retry = if self.retry { RetryPolicy::Always } else { RetryPolicy::Never };
        host.max_segments = rng.pick(&[1, 4, 64]);
        let mut pair = Pair::apart(self.seed, client, host);
        alloc::reset_peaks();
        pair.w.max_steps = MAX_STEPS;
        pair.link(|link| *link = self.link.clone());
        (pair.w.tcp.delay, pair.w.tcp.jitter) = (self.link.delay, self.link.delay);
        pair.w.tcp.window = rng.pick(&[2_000, 20_000, 200_000]);
        pair.w.tcp.longest = rng.pick(&[1, 100, 5_000, 70_000]).max(20);
        for node in [CLIENT, HOST] {
            pair.w.nodes[node].app.tell_data = true;
            self.policies(&mut pair, node);
        }
        pair
    }

    /// What an application answers depends on the name only, whenever it is asked.
    fn policies(&self, pair: &mut Pair, node: NodeId) {
        let of = move |label: u64, seed: u64, name: &str| {
            Rng::new(seed).fork(label ^ super::pattern::key(name, node == HOST))
        };
        let (seed, many) = (self.seed, self.channels > 1);
        let answers = Self { link: self.link.clone(), rebinds: vec![], ..*self };
        let policy = &mut pair.w.nodes[node].policy;
        policy.answer = Box::new(move |name, kind| answers.flow(kind, &mut of(1, seed, name)));
        policy.stop = Box::new(move |name| {
            let mut rng = of(2, seed, name);
            rng.chance(600).then(|| (rng.below(3_000), rng.below(9_000) as u32))
        });
        policy.request = Box::new(move |name| {
            let mut rng = of(3, seed, name);
            if many && rng.chance(400) {
                return OnRequest::Decline(rng.below(100) as u32, "not this one".into());
            }
            let datagrams = name.starts_with("Datagrams");
            let kind = if datagrams { ChannelKind::Datagrams } else { ChannelKind::Bytes };
            OnRequest::Accept(Self::options(kind, &mut rng))
        });
    }

    fn transfer(&self, pair: &mut Pair) {
        pair.connect();
        if let Some((at, mtu)) = self.mtu_drop {
            pair.w.after(at, move |w| w.both_ways(CLIENT, HOST, |l| l.mtu = l.mtu.min(mtu)));
        }
        for at in &self.rebinds {
            pair.w.after(*at, |w| {
                w.rebind(CLIENT);
            });
        }
        if let Some((at, length)) = self.blackout {
            pair.w.after(at, move |w| {
                w.both_ways(CLIENT, HOST, |l| l.down = true);
                w.after(length, |w| w.both_ways(CLIENT, HOST, |l| l.down = false));
            });
        }
        let mut rng = Rng::new(self.seed).fork(9);
        for i in 0..self.channels {
            let node = if rng.chance(5_000) { CLIENT } else { HOST };
            let kind = self.kind(&mut rng);
            let options = Self::options(kind, &mut rng);
            let flow = self.flow(kind, &mut rng);
            let conn = pair.handle(node);
            let name = format!("{kind:?}/{i}");
            let wait = if rng.chance(7_000) { 0 } else { rng.below(2_000) };
            let open = move |w: &mut super::World| {
                let now = w.now;
                if w.nodes[node].alive && !w.nodes[node].app.conn(conn).ended() {
                    w.nodes[node].open(now, conn, &name, options, flow).expect("open");
                }
            };
            if wait == 0 {
                open(&mut pair.w);
            } else {
                pair.w.after(ms(wait), open);
            }
        }
        let midway = match self.ending {
            Ending::Linger { midway, .. }
            | Ending::Abrupt { midway, .. }
            | Ending::Both { midway, .. } => midway,
            Ending::Vanish { .. } => true,
        };
        if midway {
            pair.w.run_for(self.cut);
        } else {
            let expected = self.channels as usize;
            pair.run_until("every channel has ended on both sides", secs(600), |pair| {
                [CLIENT, HOST].iter().all(|node| {
                    let channels = &pair.conn(*node).channels;
                    channels.len() == expected && channels.values().all(|c| c.end.is_some())
                })
            });
        }
    }

    fn end(&self, pair: &mut Pair) {
        let limit = Some(secs(300));
        match self.ending {
            Ending::Linger { by, .. } => pair.close(by, limit),
            Ending::Abrupt { by, .. } => pair.close(by, None),
            Ending::Both { linger, .. } => {
                let linger = limit.filter(|_| linger);
                pair.close(CLIENT, linger);
                let wait = self.link.delay.mul(self.seed % 3);
                pair.w.run_for(wait);
                if !pair.conn(HOST).ended() {
                    pair.close(HOST, linger);
                }
            }
            Ending::Vanish { who } => {
                pair.w.vanish(who);
                if self.is_plain() {
                    // Only TCP itself can tell.
                    pair.w.break_streams();
                }
            }
        }
        pair.w.drain(secs(400));
    }

    fn check(&self, pair: &Pair) {
        pair.check_delivery();
        for node in [CLIENT, HOST] {
            let conn = pair.conn(node);
            if self.ending == (Ending::Vanish { who: node }) {
                continue;
            }
            self.check_end(pair, node, conn);
            let n = &pair.w.nodes[node];
            let (peak, now) = (n.heap_peak(), n.heap());
            assert!(peak < PEAK_HEAP, "{}: {peak} bytes at the peak", n.name);
            let idle = if self.over == Over::Datagrams { IDLE_HEAP } else { 2 * IDLE_HEAP };
            assert!(now < idle, "{}: {now} bytes when all is over", n.name);
            let budget = 2_000 + 4 * (n.packets_in + n.packets_out);
            assert!(n.timer_calls < budget, "{}: {} timer runs", n.name, n.timer_calls);
        }
    }

    fn check_end(&self, pair: &Pair, node: NodeId, conn: &Conn) {
        let report = conn.report.as_ref().expect("dead");
        let told = (conn.path.contains(&Status::ClosedByPeer), conn.reason.as_ref());
        match self.ending {
            Ending::Linger { by, midway } => {
                if by == node {
                    assert_eq!(report.undelivered_bytes, 0, "lingered for nothing: {report:?}");
                    // A client whose address changed again after its last packet cannot be reached.
                    let steady = self.rebinds.is_empty() && self.blackout.is_none();
                    let reachable = steady || by == CLIENT;
                    assert!(report.peer_knows || !reachable, "the peer never heard of the end");
                    Self::check_all_arrived(conn, pair.conn(1 - by), self.is_plain());
                } else {
                    assert!(told.0, "the close did not arrive: {:?} {:?}", conn.path, told.1);
                    let code = if self.is_plain() { 1_000 } else { super::node::CLOSE_CODE };
                    assert_eq!(told.1.map(|r| r.reason), Some(Reason(code)));
                    assert!(midway || report.undelivered_bytes == 0, "{report:?}");
                }
            }
            Ending::Abrupt { by, midway } => {
                assert!(by == node || told.0, "the close did not arrive: {:?}", conn.path);
                assert!(midway || report.undelivered_bytes == 0, "{report:?}");
            }
            Ending::Both { midway, .. } => {
                assert!(midway || report.undelivered_bytes == 0, "{report:?}");
                let problem = conn.path.contains(&Status::ProblemDetectedLocally);
                assert!(!problem, "both closed and one saw a problem: {:?}", told.1);
            }
            Ending::Vanish { .. } => {
                Self::check_report(conn);
                assert!(conn.path.contains(&Status::ProblemDetectedLocally), "{:?}", conn.path);
                let reason = if self.is_plain() { Reason::RESET } else { Reason::TIMEOUT };
                assert_eq!(told.1.map(|r| r.reason), Some(reason));
            }
        }
    }

    /// What was handed over was acknowledged or not, and the report says which (messages count with
    /// their lengths, and what was given up does not count).
    fn check_report(conn: &Conn) {
        let report = conn.report.as_ref().expect("dead");
        let reliable = |c: &&Chan| c.options.kind != ChannelKind::Datagrams;
        let chans = || conn.channels.values().filter(reliable);
        let sent: u64 =
            chans().filter_map(|c| c.pump.as_ref()).map(|p| p.bytes + 8 * p.messages).sum();
        let told = report.acknowledged_bytes + report.undelivered_bytes;
        assert!(told <= sent, "{report:?} of {sent} bytes");
        let all_kept = chans().all(|c| {
            let kept = matches!(c.end, Some(ChannelEnd::Finished | ChannelEnd::Connection(_)));
            let whole = c.pump.as_ref().is_none_or(|p| !p.cancelled);
            kept && whole && c.stopped.is_none()
        });
        let bytes: u64 = chans().filter_map(|c| c.pump.as_ref()).map(|p| p.bytes).sum();
        assert!(!all_kept || told >= bytes, "{report:?} of {bytes} bytes");
    }

    /// Every reliable byte that the lingering side had handed over came to the other application,
    /// unless one of them had given the channel up.
    fn check_all_arrived(from: &Conn, at: &Conn, plain: bool) {
        for chan in from.channels.values().filter(|c| c.options.kind != ChannelKind::Datagrams) {
            let given_up = chan.pump.as_ref().is_none_or(|p| p.cancelled)
                || chan.stopped.is_some()
                || (plain && chan.stop_sent)
                || matches!(chan.end, Some(ChannelEnd::Declined { .. }));
            let other = at.named(&chan.name);
            // On a plain link the other side's end is one of this direction, too.
            let ended = |p: &super::flow::Pump| p.finished || p.cancelled;
            let given_up =
                given_up || plain && other.and_then(|o| o.pump.as_ref()).is_some_and(ended);
            if given_up || other.is_some_and(|o| o.stop_sent || o.pump.is_none()) {
                continue;
            }
            let sent = chan.pump.as_ref().map_or(0, |p| p.bytes);
            let got = other.map_or(0, |o| o.received.bytes);
            assert_eq!(got, sent, "bytes of channel {} that arrived", chan.name);
        }
    }
}
