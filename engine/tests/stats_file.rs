//! What other processes see of an engine in its stats file.
#![cfg(unix)]

mod common;

use common::{connect, connection, identity, listen, open, pattern, wait_until};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use trunkline::io::{FaultConfig, FaultDriver, Faults};
use trunkline::stats::file::{Health, Sample, ShardSample, StatsFile};
use trunkline::{
    Channel, ChannelOptions, ChannelRequest, CloseReport, Conn, ConnStats, ConnectionConfig,
    Context, DriverChoice, Engine, EngineConfig, Handler, Incoming, LocalShard,
};

/// A path of this test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("trunkline-{name}-{}.stats", std::process::id())))
    }

    fn sample(&self) -> Sample {
        StatsFile::open(&self.0).unwrap().read().unwrap()
    }

    fn config(&self) -> EngineConfig {
        let stats_file = Some(self.0.clone());
        EngineConfig { stats_file, connection: small_packets(), ..EngineConfig::default() }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// So that there are enough of them to lose some.
fn small_packets() -> ConnectionConfig {
    ConnectionConfig { max_packet: 1400, ..connection() }
}

/// Hangs when it is told to, until the sender of the other end is gone.
struct Hangs;

impl Handler for Hangs {
    type Command = Receiver<()>;

    fn on_command(&mut self, _: &mut Context<'_>, until: Receiver<()>) {
        let _ = until.recv();
    }
}

#[test]
fn a_handler_that_hangs_is_seen_and_seen_to_go_on() {
    let scratch = Scratch::new("hangs");
    let engine = Engine::start(scratch.config(), |_| Hangs).unwrap();
    let running = |sample: &Sample| sample.health == Health::Running;
    wait_until("a start", || running(&scratch.sample()));
    let (go_on, until) = mpsc::channel();
    let start = Instant::now();
    engine.post(0, until).map_err(|_| "full").unwrap();
    wait_until("silence", || matches!(scratch.sample().health, Health::NotAnswering(_)));
    let Health::NotAnswering(silent) = scratch.sample().health else { panic!("it answers") };
    assert!(silent >= Duration::from_secs(2), "{silent:?}");
    assert!(silent <= start.elapsed() + Duration::from_millis(500), "{silent:?}");
    drop(go_on);
    wait_until("an answer", || running(&scratch.sample()));
    engine.shutdown(Duration::ZERO);
    assert_eq!(scratch.sample().health, Health::Ended);
}

#[test]
fn a_shard_that_spins_for_long_answers() {
    let scratch = Scratch::new("spins");
    let busy_poll = Some(Duration::from_secs(60));
    let engine = Engine::start(EngineConfig { busy_poll, ..scratch.config() }, |_| Hangs).unwrap();
    wait_until("a start", || scratch.sample().health == Health::Running);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_500) {
        std::thread::sleep(Duration::from_millis(100));
        let sample = scratch.sample();
        assert_eq!(sample.health, Health::Running);
        assert!(sample.monotonic_ns - sample.shards[0].heartbeat_ns < 1_500_000_000);
    }
    engine.shutdown(Duration::ZERO);
}

/// Looking again and again is waiting too, and counts while it lasts: not all at once afterwards.
#[test]
fn a_shard_that_spins_for_long_has_no_load() {
    let scratch = Scratch::new("spins-idle");
    let busy_poll = Some(Duration::from_secs(2));
    let engine = Engine::start(EngineConfig { busy_poll, ..scratch.config() }, |_| Hangs).unwrap();
    wait_until("a start", || scratch.sample().health == Health::Running);
    let figures = || {
        let shard = scratch.sample().shards.remove(0);
        (shard.heartbeat_ns, shard.get("waited_ns").unwrap(), shard.asleep)
    };
    std::thread::sleep(Duration::from_millis(500));
    let mut before = figures();
    let mut intervals = 0;
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(500));
        let now = figures();
        assert!(now.1 >= before.1, "a counter went back: {before:?} {now:?}");
        // A heartbeat without figures comes only with work.
        let passed = now.0 - before.0;
        let worked = passed.saturating_sub(now.1 - before.1);
        assert!(
            worked * 10 < passed.max(100_000_000),
            "{worked} of {passed} ns: {before:?} {now:?}"
        );
        intervals += u32::from(passed > 0);
        before = now;
    }
    assert!(intervals >= 2 && before.2, "{intervals} {before:?}");
    engine.shutdown(Duration::ZERO);
}

/// It sleeps, and nothing wakes it to write that down.
#[test]
fn a_shard_that_sleeps_has_no_load_and_none_when_it_wakes() {
    let scratch = Scratch::new("sleeps-idle");
    let engine = Engine::start(scratch.config(), |_| Hangs).unwrap();
    wait_until("sleep", || scratch.sample().shards[0].asleep);
    let figures = || {
        let sample = scratch.sample();
        (sample.monotonic_ns, sample.shards[0].get("waited_ns").unwrap(), sample.shards[0].asleep)
    };
    let mut before = figures();
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(300));
        let mut now = figures();
        let load = 1.0 - (now.1 - before.1) as f64 / (now.0 - before.0) as f64;
        assert!((-0.01..0.2).contains(&load), "{round}: {load} {before:?} {now:?}");
        // Woken for nothing, and asleep again at once: the counter does not go back.
        let (_, until) = mpsc::channel();
        engine.post(0, until).map_err(|_| "full").unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            let then = figures();
            assert!(then.1 >= now.1, "{round}: {now:?} {then:?}");
            now = then;
        }
        before = now;
    }
    engine.shutdown(Duration::ZERO);
}

#[test]
fn the_times_in_the_file_are_those_of_the_monotonic_clock() {
    let scratch = Scratch::new("clock");
    let _engine = Engine::start(scratch.config(), |_| Hangs).unwrap();
    wait_until("a start", || scratch.sample().shards[0].get("walked_ns").is_some_and(|t| t > 0));
    let started = StatsFile::open(&scratch.0).unwrap().info().monotonic_ns;
    let sample = scratch.sample();
    let times = started..=sample.monotonic_ns;
    let shard = &sample.shards[0];
    for at in [shard.heartbeat_ns, shard.get("walked_ns").unwrap()] {
        assert!(times.contains(&at), "{at} is not in {times:?}");
    }
}

/// One end of a transfer.
#[derive(Default)]
struct Side {
    channel: Option<Channel>,
    left: Vec<u8>,
    got: usize,
    dead: bool,
    last: ConnStats,
}

impl Side {
    fn fill(&mut self, cx: &mut Context<'_>) {
        let Some(channel) = self.channel else { return };
        while !self.left.is_empty() {
            let len = self.left.len().min(16 << 10);
            if cx.send(channel, &self.left[..len]).is_err() {
                return;
            }
            self.left.drain(..len);
        }
    }
}

impl Handler for Side {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        cx.accept(conn).unwrap();
    }
    fn on_channel_request(&mut self, cx: &mut Context<'_>, c: Channel, r: &ChannelRequest<'_>) {
        cx.accept_channel(c, &r.options).unwrap();
    }
    fn on_channel_ready(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.fill(cx);
    }
    fn on_writable(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.fill(cx);
    }
    fn on_data(&mut self, _: &mut Context<'_>, _: Channel, bytes: &[u8]) {
        self.got += bytes.len();
    }
    fn on_dead(&mut self, _: &mut Context<'_>, _: Conn, _: &CloseReport) {
        self.dead = true;
    }
}

const COUNTERS: [&str; 3] = ["packets_lost", "retransmits", "messages_dropped"];

fn counters(shard: &ShardSample) -> [u64; 3] {
    COUNTERS.map(|name| shard.get(name).unwrap())
}

/// Connections one after another over a link that loses packets; each is gone within a moment.
#[test]
fn what_was_lost_stays_counted_when_its_connection_is_gone() {
    const BYTES: usize = 400_000;
    let scratch = Scratch::new("losses");
    let identity = identity();
    let faults = FaultConfig {
        seed: 5,
        outbound: Faults { loss: 0.1, ..Faults::default() },
        ..FaultConfig::default()
    };
    let driver = FaultDriver::new(open(DriverChoice::Mio), &faults);
    let mut client = LocalShard::with_driver(scratch.config(), driver, Side::default()).unwrap();
    let config = EngineConfig { connection: small_packets(), ..EngineConfig::default() };
    let mut host =
        LocalShard::with_driver(config, open(DriverChoice::Mio), Side::default()).unwrap();
    let listener = host.with_context(|cx, _| cx.listen(&listen(&identity))).unwrap().unwrap();
    let file = StatsFile::open(&scratch.0).unwrap();
    let (mut known, mut sums) = ([0; 3], [0; 3]);
    for round in 0..5 {
        let conn = client.with_context(|cx, side| {
            let conn = cx.connect(&connect(listener.local_addr, &identity)).unwrap();
            let channel = cx.open_channel(conn, "x", &ChannelOptions::default()).unwrap();
            *side = Side { channel: Some(channel), left: pattern(BYTES, 1), ..Side::default() };
            conn
        });
        let conn = conn.unwrap();
        let before = host.handler_mut().unwrap().got;
        let start = Instant::now();
        let mut closes = false;
        while !client.handler_mut().unwrap().dead {
            assert!(start.elapsed() < Duration::from_secs(20), "round {round}");
            client.poll(Some(Duration::ZERO)).unwrap();
            host.poll(Some(Duration::ZERO)).unwrap();
            let all = host.handler_mut().unwrap().got - before == BYTES;
            client.with_context(|cx, side| {
                if let Some(stats) = cx.stats(conn) {
                    side.last = stats;
                }
                if all && !closes {
                    closes = true;
                    cx.close(conn, 1000, "", None).unwrap();
                }
            });
            let now = counters(&file.read().unwrap().shards[0]);
            assert!(now.iter().zip(known).all(|(now, known)| *now >= known), "{now:?} {known:?}");
            known = now;
        }
        let last = client.handler_mut().unwrap().last;
        assert!(last.retransmits > 0, "{last:?}");
        sums[0] += last.packets_lost;
        sums[1] += last.retransmits;
    }
    client.shutdown(Duration::ZERO).unwrap();
    assert_eq!(file.read().unwrap().health, Health::Ended);
    let shard = file.read().unwrap().shards.remove(0);
    let all = counters(&shard);
    assert!(all.iter().zip(known).all(|(all, known)| *all >= known), "{all:?} {known:?}");
    assert!(all[0] >= sums[0] && all[1] >= sums[1], "{all:?}, but connections said {sums:?}");
    assert_eq!((shard.get("connections"), shard.connections.len()), (Some(0), 0));
}
