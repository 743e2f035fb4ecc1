//! Two shards that one thread drives in turn, under a clock that it moves, so that what a transfer
//! takes is counted exactly however busy the machine is.

use crate::alloc;
use crate::common::tap::{Observer, Tap};
use crate::common::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use trunkline::io::{Batch, RxItem, TxMeta};
use trunkline::stats::ShardStats;
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, ChannelRequest, Conn, Context, DriverChoice,
    EngineConfig, Handler, Incoming, LocalShard, Pinning, SendOptions,
};

/// UDP payload of a packet.
pub const PACKET: usize = 1_452;
/// Datagrams sent in a turn: more than their queue holds would only be dropped.
const BURST: u64 = 512;

/// Time that passes from turn to turn.
const TURN_NS: u64 = 50_000;

/// What passed the driver of one side.
#[derive(Debug, Default)]
pub struct Counts {
    trains: AtomicU64,
    packets: AtomicU64,
    clock: AtomicU64,
    time: Arc<Clock>,
    /// Polls that brought something.
    batches: AtomicU64,
    /// The train that is being taken: where it lies, and its length.
    start: AtomicUsize,
    len: AtomicUsize,
}

/// The time of both sides.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    ns: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now(), ns: AtomicU64::new(0) }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}

impl Observer for Arc<Counts> {
    fn sent(&self, _: &[u8], meta: &TxMeta) {
        add(&self.trains, 1);
        add(&self.packets, meta.segments() as u64);
    }
    fn received(&self, train: &[u8], _: &RxItem) {
        self.start.store(train.as_ptr() as usize, Relaxed);
        self.len.store(train.len(), Relaxed);
    }
    fn polled(&self, batch: &Batch) {
        add(&self.batches, u64::from(!batch.rx.is_empty()));
    }
    fn clock(&self, _: Instant) -> Instant {
        add(&self.clock, 1);
        self.time.start + Duration::from_nanos(self.time.ns.load(Relaxed))
    }
}

/// One side: sends what it is told to, and looks where the bytes it receives lie.
#[derive(Default)]
pub struct Side {
    pub counts: Arc<Counts>,
    pub channel: Option<Channel>,
    pub ready: bool,
    /// To be sent, and of which length; in buffers of the engine or from memory of our own.
    pub left: u64,
    pub data: Vec<u8>,
    pub send_bufs: bool,
    pub datagrams: bool,
    /// Received.
    pub messages: u64,
    pub bytes: u64,
    pub in_place: u64,
}

impl Side {
    fn fill(&mut self, cx: &mut Context<'_>) {
        let Some(channel) = self.channel else { return };
        let least = if self.datagrams { self.left.saturating_sub(BURST) } else { 0 };
        while self.left > least {
            let sent = if self.send_bufs {
                let Some(mut buf) = cx.send_buf(self.data.len()) else { return };
                buf[..self.data.len()].copy_from_slice(&self.data);
                cx.send_payload(channel, buf.freeze(self.data.len()), SendOptions::default())
            } else {
                cx.send(channel, &self.data)
            };
            match sent {
                Ok(()) => self.left -= 1,
                Err(ApiError::WouldBlock(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let start = self.counts.start.load(Relaxed);
        let train = start..start + self.counts.len.load(Relaxed);
        let at = bytes.as_ptr() as usize;
        if train.contains(&at) && at + bytes.len() <= train.end {
            self.in_place += bytes.len() as u64;
        }
        self.bytes += bytes.len() as u64;
    }
}

fn options(kind: ChannelKind) -> ChannelOptions {
    ChannelOptions { kind, ..ChannelOptions::default() }
}

impl Handler for Side {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        cx.accept(conn).unwrap();
    }
    fn on_channel_request(&mut self, cx: &mut Context<'_>, c: Channel, r: &ChannelRequest<'_>) {
        cx.accept_channel(c, &options(r.options.kind)).unwrap();
    }
    fn on_channel_ready(&mut self, _: &mut Context<'_>, _: Channel) {
        self.ready = true;
    }
    fn on_data(&mut self, _: &mut Context<'_>, _: Channel, bytes: &[u8]) {
        self.take(bytes);
    }
    fn on_message(&mut self, _: &mut Context<'_>, _: Channel, _: ChannelKind, message: &[u8]) {
        self.messages += 1;
        self.take(message);
    }
    fn on_writable(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.fill(cx);
    }
    fn on_batch_end(&mut self, cx: &mut Context<'_>) {
        if self.send_bufs {
            // There may be a buffer again.
            self.fill(cx);
        }
    }
}

pub type Shard = LocalShard<Side, Tap<Arc<Counts>>>;

fn shard(
    driver: DriverChoice,
    time: &Arc<Clock>,
    stats_file: Option<PathBuf>,
) -> (Shard, Arc<Counts>) {
    let counts = Arc::new(Counts { time: time.clone(), ..Counts::default() });
    let mut connection = connection();
    connection.max_packet = PACKET;
    let config =
        EngineConfig { pin: Pinning::None, connection, stats_file, ..EngineConfig::default() };
    let tap = Tap { inner: open(driver), observer: counts.clone() };
    let side = Side { counts: counts.clone(), ..Side::default() };
    (LocalShard::with_driver(config, tap, side).unwrap(), counts)
}

/// What happened between two moments.
#[derive(Debug)]
pub struct Used {
    pub allocations: u64,
    pub turns: u64,
    pub client: Figures,
    pub host: Figures,
    pub bytes: u64,
    pub in_place: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub trains: u64,
    pub packets: u64,
    pub clock: u64,
    pub batches: u64,
    pub system_calls: u64,
}

impl Figures {
    fn now(counts: &Counts, stats: &ShardStats) -> Self {
        Self {
            trains: counts.trains.load(Relaxed),
            packets: counts.packets.load(Relaxed),
            clock: counts.clock.load(Relaxed),
            batches: counts.batches.load(Relaxed),
            system_calls: stats.driver.syscalls,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            trains: self.trains - before.trains,
            packets: self.packets - before.packets,
            clock: self.clock - before.clock,
            batches: self.batches - before.batches,
            system_calls: self.system_calls - before.system_calls,
        }
    }
}

pub struct Rig {
    pub client: Shard,
    pub host: Shard,
    pub client_counts: Arc<Counts>,
    pub host_counts: Arc<Counts>,
    pub time: Arc<Clock>,
    pub turns: u64,
    /// Messages that the host had seen, and turns since there were more.
    pub seen: u64,
    pub waited: u32,
}

impl Rig {
    /// A connected pair with one channel from the client to the host.
    pub fn new(driver: DriverChoice, kind: ChannelKind) -> Self {
        Self::watched(driver, kind, None)
    }

    /// The same with a stats file of each side: the host's, and the client's with `.client` added.
    pub fn watched(driver: DriverChoice, kind: ChannelKind, stats: Option<PathBuf>) -> Self {
        let client_stats = stats.as_ref().map(|path| path.with_extension("client"));
        let identity = identity();
        let time = Arc::<Clock>::default();
        let (mut host, host_counts) = shard(driver, &time, stats);
        let (mut client, client_counts) = shard(driver, &time, client_stats);
        let listener = host.with_context(|cx, _| cx.listen(&listen(&identity))).unwrap().unwrap();
        client.with_context(|cx, side| {
            let conn = cx.connect(&connect(listener.local_addr, &identity)).unwrap();
            side.channel = Some(cx.open_channel(conn, "x", &options(kind)).unwrap());
            side.datagrams = kind == ChannelKind::Datagrams;
        });
        let mut rig =
            Self { client, host, client_counts, host_counts, time, turns: 0, seen: 0, waited: 0 };
        rig.turn_until("the channel is there", |rig| rig.client.handler_mut().unwrap().ready);
        rig
    }

    pub fn turn(&mut self) {
        self.turns += 1;
        add(&self.time.ns, TURN_NS);
        if self.client.handler_mut().unwrap().datagrams {
            // Nothing holds the sender back but what the receiver has seen; what is lost is given up.
            let seen = self.host.handler_mut().unwrap().messages;
            self.waited = if seen == self.seen { self.waited + 1 } else { 0 };
            self.seen = seen;
            if self.waited == 0 || self.waited > 1_000 {
                self.client.with_context(|cx, side| side.fill(cx));
            }
        }
        self.client.poll(Some(Duration::ZERO)).unwrap();
        self.host.poll(Some(Duration::ZERO)).unwrap();
    }

    pub fn turn_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            self.turn();
            assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        }
    }

    fn figures(&self) -> [Figures; 2] {
        [
            Figures::now(&self.client_counts, &self.client.stats()),
            Figures::now(&self.host_counts, &self.host.stats()),
        ]
    }

    pub fn start(&mut self, len: usize, count: u64, send_bufs: bool) {
        self.client.with_context(|cx, side| {
            side.data = vec![7; len];
            (side.left, side.send_bufs) = (count, send_bufs);
            side.fill(cx);
        });
    }

    /// Sends `count` times `len` bytes; of datagrams some may be lost. What it took.
    pub fn transfer(&mut self, len: usize, count: u64, send_bufs: bool) -> Used {
        let wanted = len as u64 * count;
        let (bytes, in_place) = {
            let host = self.host.handler_mut().unwrap();
            (host.bytes, host.in_place)
        };
        self.start(len, count, send_bufs);
        let ([client, host], turns, calls) =
            (self.figures(), self.turns, alloc::calls(alloc::TEST));
        self.turn_until("the transfer", |rig| {
            let left = rig.client.handler_mut().unwrap().left;
            left == 0 && rig.host.handler_mut().unwrap().bytes - bytes >= wanted / 2
        });
        let mut still = 0;
        let mut last = 0;
        while still < 200 {
            self.turn();
            let now = self.host.handler_mut().unwrap().bytes;
            still = if now == last { still + 1 } else { 0 };
            last = now;
        }
        let allocations = alloc::calls(alloc::TEST) - calls;
        let [client_now, host_now] = self.figures();
        let side = self.host.handler_mut().unwrap();
        Used {
            allocations,
            turns: self.turns - turns,
            client: client_now.since(client),
            host: host_now.since(host),
            bytes: side.bytes - bytes,
            in_place: side.in_place - in_place,
        }
    }

    /// The same after a transfer that warms everything up.
    pub fn measured(driver: DriverChoice, kind: ChannelKind, len: usize, count: u64) -> Used {
        let mut rig = Self::new(driver, kind);
        rig.transfer(len, count, false);
        let used = rig.transfer(len, count, false);
        println!("{driver}, {kind:?}, {count} x {len} bytes: {used:?}");
        used
    }
}
