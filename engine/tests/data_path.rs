//! What the data path does not do, counted over real sockets: no allocation for a packet or a
//! message, no system call for a packet, one reading of the clock a turn, no copy between the
//! kernel's buffer and the handler, none between a [`SendBuf`] and the packet, no short trains while
//! there is more to send, no second acknowledgement for one batch.
//!
//! Both sides are shards that one thread drives in turn, under a clock that it moves, so that every
//! count is exact however busy the machine is.

#[path = "../proto/tests/sim/alloc.rs"]
#[allow(dead_code, missing_docs, clippy::cast_possible_wrap)]
mod alloc;
mod common;

use common::tap::{Observer, Tap};
use common::*;
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
const PACKET: usize = 1_452;
/// Packets of the longest train: 65,507 bytes of them.
const FULL_TRAIN: u64 = 65_507 / PACKET as u64;

/// Datagrams sent in a turn: more than their queue holds would only be dropped.
const BURST: u64 = 512;

/// Time that passes from turn to turn.
const TURN_NS: u64 = 50_000;

/// What passed the driver of one side.
#[derive(Debug, Default)]
struct Counts {
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
struct Clock {
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
struct Side {
    counts: Arc<Counts>,
    channel: Option<Channel>,
    ready: bool,
    /// To be sent, and of which length; in buffers of the engine or from memory of our own.
    left: u64,
    data: Vec<u8>,
    send_bufs: bool,
    datagrams: bool,
    /// Received.
    messages: u64,
    bytes: u64,
    in_place: u64,
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

type Shard = LocalShard<Side, Tap<Arc<Counts>>>;

fn shard(driver: DriverChoice, time: &Arc<Clock>) -> (Shard, Arc<Counts>) {
    let counts = Arc::new(Counts { time: time.clone(), ..Counts::default() });
    let mut connection = connection();
    connection.max_packet = PACKET;
    let config = EngineConfig { pin: Pinning::None, connection, ..EngineConfig::default() };
    let tap = Tap { inner: open(driver), observer: counts.clone() };
    let side = Side { counts: counts.clone(), ..Side::default() };
    (LocalShard::with_driver(config, tap, side).unwrap(), counts)
}

/// What happened between two moments.
#[derive(Debug)]
struct Used {
    allocations: u64,
    turns: u64,
    client: Figures,
    host: Figures,
    bytes: u64,
    in_place: u64,
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    trains: u64,
    packets: u64,
    clock: u64,
    batches: u64,
    system_calls: u64,
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

struct Rig {
    client: Shard,
    host: Shard,
    client_counts: Arc<Counts>,
    host_counts: Arc<Counts>,
    time: Arc<Clock>,
    turns: u64,
    /// Messages that the host had seen, and turns since there were more.
    seen: u64,
    waited: u32,
}

impl Rig {
    /// A connected pair with one channel from the client to the host.
    fn new(driver: DriverChoice, kind: ChannelKind) -> Self {
        let identity = identity();
        let time = Arc::<Clock>::default();
        let (mut host, host_counts) = shard(driver, &time);
        let (mut client, client_counts) = shard(driver, &time);
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

    fn turn(&mut self) {
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

    fn turn_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
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

    fn start(&mut self, len: usize, count: u64, send_bufs: bool) {
        self.client.with_context(|cx, side| {
            side.data = vec![7; len];
            (side.left, side.send_bufs) = (count, send_bufs);
            side.fill(cx);
        });
    }

    /// Sends `count` times `len` bytes; of datagrams some may be lost. What it took.
    fn transfer(&mut self, len: usize, count: u64, send_bufs: bool) -> Used {
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
    fn measured(driver: DriverChoice, kind: ChannelKind, len: usize, count: u64) -> Used {
        let mut rig = Self::new(driver, kind);
        rig.transfer(len, count, false);
        let used = rig.transfer(len, count, false);
        println!("{driver}, {kind:?}, {count} x {len} bytes: {used:?}");
        used
    }
}

/// Allocations that the counters of a whole transfer may cost: tables that grow now and then.
const FEW: u64 = 16;

#[test]
fn a_message_costs_no_allocation() {
    for driver in drivers() {
        for (kind, len, count) in [
            (ChannelKind::Messages, 64, 200_000),
            (ChannelKind::Messages, 65_536, 2_000),
            (ChannelKind::Bytes, 65_536, 2_000),
            (ChannelKind::Datagrams, 64, 200_000),
        ] {
            let used = Rig::measured(driver, kind, len, count);
            assert!(used.client.packets > 1_000, "{used:?}");
            assert!(used.allocations <= FEW, "{driver} {kind:?} {len}: {used:?}");
        }
    }
}

#[test]
fn a_turn_reads_the_clock_once() {
    for driver in drivers() {
        let used = Rig::measured(driver, ChannelKind::Messages, 64, 100_000);
        assert_eq!((used.client.clock, used.host.clock), (used.turns, used.turns), "{used:?}");
    }
}

#[test]
fn a_packet_costs_no_system_call() {
    for driver in drivers() {
        let used = Rig::measured(driver, ChannelKind::Messages, 65_536, 2_000);
        // Turns in which nothing happens cost a call too: not those are of interest.
        let calls = used.client.system_calls + used.host.system_calls;
        let idle = 2 * 2 * 200;
        assert!(calls < idle + used.client.packets / 8, "{driver}: {used:?}");
    }
}

#[test]
fn what_comes_in_order_is_handed_over_where_it_lies() {
    for driver in drivers() {
        for (kind, len, count) in
            [(ChannelKind::Bytes, 65_536, 2_000), (ChannelKind::Messages, 64, 100_000)]
        {
            let used = Rig::measured(driver, kind, len, count);
            assert_eq!(used.bytes, len as u64 * count);
            // A message that does not fit into the rest of a packet is put together.
            let least = if kind == ChannelKind::Bytes { 0.999 } else { 0.9 };
            assert!(
                used.in_place as f64 > used.bytes as f64 * least,
                "{driver} {kind:?}: {used:?}"
            );
        }
    }
}

#[test]
fn a_send_buf_is_not_copied_when_it_is_accepted() {
    for driver in drivers() {
        let mut rig = Rig::new(driver, ChannelKind::Bytes);
        let used = rig.transfer(65_536, 1_000, true);
        assert_eq!(used.bytes, 65_536_000);
        // Half a MiB that has not left yet: all of it still lies in the buffers of the application.
        let before = alloc::live(alloc::TEST);
        rig.start(65_536, 7, true);
        assert_eq!(rig.client.handler_mut().unwrap().left, 0, "room for all");
        let grown = alloc::live(alloc::TEST) - before;
        assert!(grown < 16 << 10, "{driver}: {grown} bytes");
        let used = rig.transfer(65_536, 1_000, true);
        assert!(used.allocations <= FEW, "{driver}: {used:?}");
    }
}

#[test]
fn trains_are_full_and_a_batch_is_acknowledged_once() {
    for driver in drivers() {
        let used = Rig::measured(driver, ChannelKind::Messages, 65_536, 4_000);
        let mean = used.client.packets as f64 / used.client.trains as f64;
        assert!(mean > 0.9 * FULL_TRAIN as f64, "{driver}: {mean:.1} packets a train, {used:?}");
        assert!(used.host.packets <= used.host.batches + 10, "{driver}: {used:?}");
        assert!(used.host.batches < used.client.packets / 8, "{driver}: {used:?}");
    }
}
