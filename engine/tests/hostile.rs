//! A flood of hostile datagrams over real sockets, beside a connection at work.
//!
//! Random, damaged, cut and repeated datagrams, made from the real traffic of the very connection,
//! leave at 100,000 a second for the host, and some for the client. The connection keeps at least
//! half of its goodput and a round trip of less than 20 ms in 99 of 100 cases, nothing is left behind
//! in memory, and everything that the system delivers is counted.
//!
//! Making the flood costs a small machine more than the host's share of taking it: the goodput is
//! compared with that beside the same flood at a socket that nobody reads. On a machine that is busy
//! with other things one good measurement out of a few is enough, and where it never gets to make the
//! whole rate beside the transfer, as much of it as it makes, but more than half. This file has one
//! test, so that the test runner gives it the machine for itself.

#[path = "../proto/tests/sim/alloc.rs"]
#[allow(dead_code, missing_docs, clippy::cast_possible_wrap)]
mod alloc;
mod common;

use common::tap::{Observer, Tap};
use common::*;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trunkline::io::{Batch, Driver, MioDriver, RxItem, TxMeta};
use trunkline::stats::ShardStats;
use trunkline::{
    Channel, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, Conn, Context, DriverChoice,
    DriverConfig, Engine, EngineConfig, Handler, Incoming, ListenConfig, LocalShard, Pinning,
    Status,
};

/// Datagrams a second.
const RATE: f64 = 100_000.0;
/// Datagrams that leave together at most.
const BURST: u64 = 400;
/// Bytes of one message of the transfer.
const MESSAGE: usize = 16 << 10;
/// How long one measurement takes.
const MEASURE: Duration = Duration::from_millis(700);
/// How long the flood runs before it is measured.
const RAMP: Duration = Duration::from_millis(300);
/// After this the host gives up attempts to connect that nobody goes on with.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// Measurements after which a bad one counts.
const ATTEMPTS: u32 = 6;
/// Bytes that a flood may leave behind in the shard: tables that have grown to their bound.
const LASTING: i64 = 64 << 10;
/// What 99 of 100 round trips beside a flood must stay below.
const ROUND_TRIP_US: u32 = 20_000;
/// Genuine datagrams that are kept to be made into others.
const CAPTURED: usize = 512;

// ---- the host

/// Datagrams as they passed the host's driver, while somebody wants them.
#[derive(Default)]
struct Captured {
    on: AtomicBool,
    datagrams: Mutex<Vec<Vec<u8>>>,
}

impl Captured {
    fn note(&self, bytes: &[u8], stride: usize) {
        if !self.on.load(Relaxed) {
            return;
        }
        let mut kept = self.datagrams.lock().unwrap();
        for datagram in bytes.chunks(stride.max(1)) {
            if kept.len() < CAPTURED {
                kept.push(datagram[..datagram.len().min(1_452)].to_vec());
            }
        }
    }
}

impl Observer for Arc<Captured> {
    fn sent(&self, train: &[u8], meta: &TxMeta) {
        self.note(train, meta.segment);
    }
    fn received(&self, train: &[u8], item: &RxItem) {
        self.note(train, item.stride);
    }
}

/// Sends messages of "ping" back, and checks that those of "bulk" come in order and whole.
#[derive(Default)]
struct Host {
    bytes: u64,
    next: u64,
    ended: u64,
    opened: u64,
    remote: Option<SocketAddr>,
    ping: Option<Channel>,
}

impl Handler for Host {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        self.opened += 1;
        self.remote = Some(incoming.remote);
        cx.accept(conn).unwrap();
    }

    fn on_status(
        &mut self,
        _: &mut Context<'_>,
        _: Conn,
        _: Status,
        new: Status,
        _: Option<&CloseReason>,
    ) {
        self.ended += u64::from(!matches!(new, Status::Connecting | Status::Connected));
    }

    fn on_channel_request(&mut self, cx: &mut Context<'_>, c: Channel, r: &ChannelRequest<'_>) {
        let ping = r.name == "ping";
        if ping {
            self.ping = Some(c);
        }
        let priority = if ping { 0 } else { 4 };
        cx.accept_channel(c, &ChannelOptions { priority, no_delay: true, ..options() }).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        if self.ping == Some(channel) {
            let _ = cx.send(channel, m);
            return;
        }
        let number = u64::from_be_bytes(m[..8].try_into().unwrap());
        assert_eq!((number, m.len()), (self.next, MESSAGE), "a message is missing");
        self.next += 1;
        self.bytes += m.len() as u64;
    }
}

fn options() -> ChannelOptions {
    ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() }
}

/// Processor time of the calling thread in nanoseconds; 0 where the system does not tell.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

/// The state of the host at one moment.
struct Snapshot {
    at: Instant,
    cpu_ns: u64,
    heap: i64,
    bytes: u64,
    ended: u64,
    opened: u64,
    remote: Option<SocketAddr>,
    stats: ShardStats,
}

/// The thread of the host: one shard that it drives itself.
struct HostThread {
    addr: SocketAddr,
    ask: Sender<SyncSender<Snapshot>>,
    thread: JoinHandle<()>,
}

impl HostThread {
    fn start(driver: DriverChoice, captured: &Arc<Captured>) -> (Self, trunkline::Identity) {
        let identity = identity();
        let listen = listen(&identity);
        let captured = captured.clone();
        let (ask, asked) = channel();
        let (tell, told) = channel();
        let run = move || run_host(driver, captured, &listen, &tell, &asked);
        let thread = std::thread::Builder::new().name("host".into()).spawn(run).unwrap();
        (Self { addr: told.recv().unwrap(), ask, thread }, identity)
    }

    fn snapshot(&self) -> Snapshot {
        // Its memory is ours: what the host holds is counted by what its thread asks for.
        let (reply, answer) = sync_channel(1);
        self.ask.send(reply).unwrap();
        answer.recv().unwrap()
    }
}

fn run_host(
    driver: DriverChoice,
    captured: Arc<Captured>,
    listen: &ListenConfig,
    tell: &Sender<SocketAddr>,
    asked: &Receiver<SyncSender<Snapshot>>,
) {
    pin(0);
    let tap = Tap { inner: open(driver), observer: captured };
    let mut connection = connection();
    connection.initial_timeout = FORGOTTEN.into();
    let config = EngineConfig { connection, ..EngineConfig::default() };
    let mut shard = LocalShard::with_driver(config, tap, Host::default()).unwrap();
    let listener = shard.with_context(|cx, _| cx.listen(listen)).unwrap().unwrap();
    tell.send(listener.local_addr).unwrap();
    loop {
        shard.poll(Some(Duration::from_millis(2))).unwrap();
        match asked.try_recv() {
            Ok(reply) => {
                let host = shard.handler_mut().unwrap();
                let (bytes, ended) = (host.bytes, host.ended);
                let (opened, remote) = (host.opened, host.remote);
                let heap = alloc::live(alloc::TEST);
                let (at, stats) = (Instant::now(), shard.stats());
                let all =
                    Snapshot { at, cpu_ns: cpu_ns(), heap, bytes, ended, opened, remote, stats };
                reply.send(all).unwrap();
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => {}
            Err(std::sync::mpsc::TryRecvError::Disconnected) => break,
        }
    }
    shard.shutdown(Duration::ZERO).unwrap();
}

fn cores() -> usize {
    core_affinity::get_core_ids().unwrap_or_default().len()
}

fn pin(core: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(id) = cores.get(core) {
        core_affinity::set_for_current(*id);
    }
}

// ---- the client

/// What the client measures.
#[derive(Default)]
struct Seen {
    round_trips_us: Mutex<Vec<u32>>,
    ended: AtomicU64,
    /// Nothing is sent on "bulk" for now.
    pause: AtomicBool,
}

/// Sends as much as it may on "bulk", and a ping every millisecond.
struct Client {
    addr: SocketAddr,
    host: trunkline::Identity,
    seen: Arc<Seen>,
    start: Instant,
    message: Vec<u8>,
    number: u64,
    bulk: Option<Channel>,
    ping: Option<Channel>,
}

impl Client {
    fn fill(&mut self, cx: &mut Context<'_>) {
        let Some(bulk) = self.bulk else { return };
        while !self.seen.pause.load(Relaxed) {
            self.message[..8].copy_from_slice(&self.number.to_be_bytes());
            if cx.send(bulk, &self.message).is_err() {
                return;
            }
            self.number += 1;
        }
    }
}

impl Handler for Client {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let conn = cx.connect(&connect(self.addr, &self.host)).unwrap();
        let urgent = ChannelOptions { priority: 0, no_delay: true, ..options() };
        self.ping = Some(cx.open_channel(conn, "ping", &urgent).unwrap());
        let bulk = ChannelOptions { priority: 4, ..options() };
        self.bulk = Some(cx.open_channel(conn, "bulk", &bulk).unwrap());
        cx.set_timer(Duration::from_millis(1).into(), 0);
    }

    fn on_status(
        &mut self,
        _: &mut Context<'_>,
        _: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if !matches!(new, Status::Connecting | Status::Connected) {
            self.seen.ended.fetch_add(1, Relaxed);
            println!("the client's connection is {new:?}: {reason:?}");
        }
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.fill(cx);
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if self.bulk == Some(channel) {
            self.fill(cx);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) {
        if let Some(ping) = self.ping {
            let now = self.start.elapsed().as_micros() as u64;
            let _ = cx.send(ping, &now.to_be_bytes());
        }
        self.fill(cx);
        cx.set_timer(Duration::from_millis(1).into(), 0);
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: Channel, _: ChannelKind, m: &[u8]) {
        let sent = u64::from_be_bytes(m[..8].try_into().unwrap());
        let took = self.start.elapsed().as_micros() as u64 - sent;
        self.seen.round_trips_us.lock().unwrap().push(took as u32);
    }
}

// ---- the flood

/// A small generator, good enough for noise.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// One hostile datagram.
fn hostile(rng: &mut Rng, real: &[Vec<u8>]) -> Vec<u8> {
    let mut data = real[rng.below(real.len())].clone();
    let len = data.len();
    match rng.below(10) {
        0 | 1 => {
            let len = 1 + rng.below(1_400);
            data = rng.noise(len);
        }
        // The right id, and noise.
        2 => {
            data.truncate(9);
            data.extend(rng.noise(4));
            let len = rng.below(1_200);
            data.extend(rng.noise(len));
        }
        3 => data.truncate(rng.below(len)),
        // A copy.
        4 => {}
        // A long packet with the right ids, more or less.
        5 => {
            let flags = 0x80 | rng.next() as u8;
            let mut long = vec![flags];
            long.extend(trunkline::limits::VERSION.to_be_bytes());
            long.push(8);
            long.extend(data.get(1..9).unwrap_or(&[7; 8]));
            long.push(8);
            long.extend(rng.noise(8));
            let len = rng.below(1_200);
            long.extend(rng.noise(len));
            data = long;
        }
        _ => {
            if data[0] & 0x80 == 0 && len > 13 && rng.below(2) == 0 {
                // A number that may still come.
                data[9..13].copy_from_slice(&rng.next().to_be_bytes()[..4]);
            }
            for _ in 0..=rng.below(4) {
                let at = rng.below(len);
                data[at] ^= 1 << rng.below(8);
            }
        }
    }
    data
}

/// Sends hostile datagrams from addresses of its own until it is told to stop.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Flood {
    fn start(host: SocketAddr, client: SocketAddr, real: Vec<Vec<u8>>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || flood(host, client, &real, seed, &stopped);
        let thread = std::thread::Builder::new().name("flood".into()).spawn(run).unwrap();
        Self { stop, thread }
    }

    /// Datagrams sent, and for how long.
    fn end(self) -> (u64, Duration) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn flood(
    host: SocketAddr,
    client: SocketAddr,
    real: &[Vec<u8>],
    seed: u64,
    stop: &AtomicBool,
) -> (u64, Duration) {
    pin(1);
    let mut rng = Rng(seed);
    let ready: Vec<_> = (0..4_096).map(|_| hostile(&mut rng, real)).collect();
    // Datagrams leave one by one, as if from many senders.
    let config = DriverConfig { gso: false, gro: false, tx_buffers: 1_024, ..Default::default() };
    let mut driver = MioDriver::new(&config).unwrap();
    let sockets: Vec<u16> =
        (0..4).map(|_| driver.add_socket(UdpSocket::bind(loopback()).unwrap()).unwrap()).collect();
    let mut batch = Batch::default();
    let (start, mut sent) = (Instant::now(), 0u64);
    while !stop.load(Relaxed) {
        let due = (start.elapsed().as_secs_f64() * RATE * 1.05) as u64;
        let behind = due.saturating_sub(sent).min(BURST);
        for _ in 0..behind {
            let Some(mut buf) = driver.lend() else { break };
            let data = &ready[rng.below(ready.len())];
            driver.bytes(&mut buf)[..data.len()].copy_from_slice(data);
            let remote = if rng.below(8) == 0 { client } else { host };
            let meta = TxMeta {
                socket: sockets[rng.below(sockets.len())],
                remote,
                local: None,
                len: data.len(),
                segment: data.len(),
                ecn: 0,
                probe: false,
            };
            driver.send(buf, meta);
            sent += 1;
        }
        let pause = Duration::from_micros(if behind < 50 { 200 } else { 0 });
        driver.poll(Some(pause), &mut batch).unwrap();
        // Real senders do not take the client's processor: one that has fallen behind still gives
        // way, or the client waits for the scheduler's next tick, 10 ms on some systems.
        std::thread::yield_now();
        for item in batch.rx.drain(..) {
            driver.release(item);
        }
        batch.failures.clear();
    }
    (sent, start.elapsed())
}

// ---- the measurement

struct Figures {
    gbps: f64,
    p50_us: u32,
    p99_us: u32,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gbps, p50_us, p99_us } = self;
        write!(f, "{gbps:.2} Gb/s, round trip {p50_us} µs, 99 % {p99_us} µs")
    }
}

fn measure(host: &HostThread, seen: &Seen) -> Figures {
    seen.round_trips_us.lock().unwrap().clear();
    let before = host.snapshot();
    std::thread::sleep(MEASURE);
    let after = host.snapshot();
    let mut us = seen.round_trips_us.lock().unwrap().clone();
    us.sort_unstable();
    assert!(us.len() > 50, "{} round trips in {MEASURE:?}", us.len());
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    Figures {
        gbps: (after.bytes - before.bytes) as f64 * 8.0 / seconds / 1e9,
        p50_us: us[us.len() / 2],
        p99_us: us[us.len() * 99 / 100],
    }
}

/// Everything that came to the host while the flood ran was taken or counted.
fn check_counted(before: &Snapshot, after: &Snapshot, sent: u64) {
    let endpoint = |s: &Snapshot| {
        let e = &s.stats.endpoint;
        e.unwanted() + e.refused + e.retries + e.version_lists + e.accepted
    };
    let requests = |s: &Snapshot| s.stats.counts.requests_limited + s.stats.counts.requests_denied;
    let lost = |s: &Snapshot| s.stats.driver.rx_dropped;
    let counted = endpoint(after) - endpoint(before) + requests(after) - requests(before);
    let dropped = lost(after) - lost(before);
    println!("sent {sent}, an eighth to the client; counted {counted}, dropped {dropped}");
    let cpu = (after.cpu_ns - before.cpu_ns) / counted.max(1);
    println!("{cpu} ns of the host's processor for each; {:?}", after.stats.endpoint);
    let to_host = sent as f64 * 7.0 / 8.0;
    assert!((counted + dropped) as f64 > to_host * 0.98, "{counted} + {dropped} of {to_host}");
    assert!((counted as f64) < to_host * 1.02, "{counted} of {to_host}: genuine ones among them");
}

/// Floods beside a connection that is nearly idle: what they leave behind.
fn check_lasting(driver: DriverChoice, host: &HostThread, real: &[Vec<u8>]) {
    let client = host.snapshot().remote.unwrap();
    let mut heap = Vec::new();
    for round in 0..2 {
        let before = host.snapshot();
        let flood = Flood::start(host.addr, client, real.to_vec(), round);
        std::thread::sleep(MEASURE);
        let (sent, _) = flood.end();
        std::thread::sleep(FORGOTTEN + RAMP);
        let after = host.snapshot();
        check_counted(&before, &after, sent);
        heap.extend([before.heap, after.heap]);
    }
    println!("{driver}: heap of the host before and after two floods: {heap:?}");
    let grown = heap[3] - heap[1];
    assert!(grown < LASTING, "{driver}: {grown} bytes more after a second flood");
}

/// Floods beside a transfer: what they do to it. The same flood runs first with the aim at a socket
/// that nobody reads, because making it costs a small machine more than it costs the host.
fn check_felt(driver: DriverChoice, host: &HostThread, seen: &Seen, real: &[Vec<u8>]) {
    let client = host.snapshot().remote.unwrap();
    let nobody = UdpSocket::bind(loopback()).unwrap();
    let elsewhere = nobody.local_addr().unwrap();
    let during = |host_addr, client_addr, seed| {
        let flood = Flood::start(host_addr, client_addr, real.to_vec(), seed);
        std::thread::sleep(RAMP);
        let figures = measure(host, seen);
        let (sent, took) = flood.end();
        (figures, sent as f64 / took.as_secs_f64())
    };
    let (mut made, mut borne) = (0.0f64, 0.0f64);
    for attempt in 1..=ATTEMPTS {
        let (calm, _) = during(elsewhere, elsewhere, 100);
        let (flooded, rate) = during(host.addr, client, 100 + u64::from(attempt));
        println!("{driver}, attempt {attempt}: {calm}; with {rate:.0} a second: {flooded}");
        let kept = flooded.gbps >= calm.gbps / 2.0 && flooded.p99_us < ROUND_TRIP_US;
        if kept && rate >= RATE * 0.95 {
            return;
        }
        made = made.max(rate);
        borne = borne.max(if kept { rate } else { 0.0 });
    }
    assert!(made < RATE * 0.95 && borne > RATE / 2.0, "{driver}: the flood was felt");
    println!("{driver}: this machine makes no more than {made:.0} a second; {borne:.0} were borne");
}

fn under_flood(driver: DriverChoice) {
    let captured = Arc::<Captured>::default();
    captured.on.store(true, Relaxed);
    let (host, identity) = HostThread::start(driver, &captured);
    let seen = Arc::<Seen>::default();
    let addr = host.addr;
    let config = EngineConfig {
        driver,
        pin: if cores() > 1 { Pinning::Cores(vec![1]) } else { Pinning::None },
        connection: connection(),
        ..EngineConfig::default()
    };
    let client = {
        let seen = seen.clone();
        Engine::start(config, move |_| Client {
            addr,
            host: identity.clone(),
            seen: seen.clone(),
            start: Instant::now(),
            message: vec![0x5a; MESSAGE],
            number: 0,
            bulk: None,
            ping: None,
        })
        .unwrap()
    };
    wait_until("enough to copy", || captured.datagrams.lock().unwrap().len() == CAPTURED);
    captured.on.store(false, Relaxed);
    let real = std::mem::take(&mut *captured.datagrams.lock().unwrap());

    seen.pause.store(true, Relaxed);
    std::thread::sleep(RAMP);
    check_lasting(driver, &host, &real);
    seen.pause.store(false, Relaxed);
    std::thread::sleep(RAMP);
    check_felt(driver, &host, &seen, &real);

    let end = host.snapshot();
    assert_eq!((end.ended, end.opened), (0, 1), "the connection of the host ended");
    assert_eq!(seen.ended.load(Relaxed), 0, "the connection of the client ended");
    let _ = client.shutdown(Duration::ZERO);
    drop(host.ask);
    host.thread.join().unwrap();
}

#[test]
fn a_connection_lives_beside_a_flood() {
    // One after the other: they measure.
    for driver in drivers() {
        under_flood(driver);
    }
}
