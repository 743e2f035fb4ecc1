//! Callback groups: what happens is told on the shard's thread, and what is called from inside
//! takes effect there.

mod common;

use common::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;
use trunkline::{
    ApiError, AssociationConfig, Callbacks, Channel, ChannelEnd, ChannelKind, ChannelOptions, Conn,
    EngineConfig, Event, ListenConfig, QueuedEngine, Received, Retained, SendSecurity, Status,
    WeakEngine,
};

fn messages() -> ChannelOptions {
    ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() }
}

type OnData = Box<dyn Fn(&QueuedEngine, Channel, u64, &[u8]) + Send + Sync>;
type OnEvent = Box<dyn Fn(&QueuedEngine, &Event) + Send + Sync>;

/// Callbacks that are given their engine.
struct Told {
    engine: OnceLock<WeakEngine>,
    data: OnData,
    event: OnEvent,
    /// Every call came on one of these threads.
    threads: Mutex<HashMap<u8, ThreadId>>,
    /// Events after the engine was gone.
    late: AtomicUsize,
}

impl Told {
    fn new(
        data: impl Fn(&QueuedEngine, Channel, u64, &[u8]) + Send + Sync + 'static,
        event: impl Fn(&QueuedEngine, &Event) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine: OnceLock::new(),
            data: Box::new(data),
            event: Box::new(event),
            threads: Mutex::default(),
            late: AtomicUsize::new(0),
        })
    }

    fn engine(&self, conn: Option<Conn>) -> Option<QueuedEngine> {
        if let Some(conn) = conn {
            let me = std::thread::current().id();
            let first = *self.threads.lock().unwrap().entry(conn.shard()).or_insert(me);
            assert_eq!(first, me, "a shard calls on one thread");
        }
        self.engine.get().and_then(WeakEngine::upgrade)
    }
}

impl Callbacks for Told {
    fn on_data(&self, channel: Channel, user: u64, _: ChannelKind, data: &[u8]) {
        let engine = self.engine(Some(channel.conn())).expect("data of an engine that is there");
        (self.data)(&engine, channel, user, data);
    }

    fn on_event(&self, event: Event) {
        match self.engine(event.conn()) {
            Some(engine) => (self.event)(&engine, &event),
            None => {
                self.late.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn start(config: EngineConfig, told: &Arc<Told>) -> QueuedEngine {
    let engine = QueuedEngine::start_with(config, told.clone()).unwrap();
    told.engine.set(engine.downgrade()).unwrap();
    engine
}

/// What every host does.
fn welcome(host: &QueuedEngine, event: &Event) {
    match event {
        Event::Incoming { conn, .. } => host.accept(*conn).unwrap(),
        Event::ChannelRequest { channel, .. } => {
            // It may have ended by now.
            let _ = host.accept_channel(*channel, &ChannelOptions::default());
        }
        Event::Status {
            conn, new: Status::ClosedByPeer | Status::ProblemDetectedLocally, ..
        } => {
            host.close(*conn, 1000, "", None).unwrap();
        }
        Event::Eof { channel } => host.finish(*channel).unwrap(),
        _ => {}
    }
}

/// A host that sends everything back from inside its callbacks.
fn echo() -> Arc<Told> {
    let waiting: Mutex<HashMap<Channel, Vec<Vec<u8>>>> = Mutex::default();
    let waiting = Arc::new(waiting);
    let again = waiting.clone();
    Told::new(
        move |host, channel, _, data| {
            let mut waiting = waiting.lock().unwrap();
            let waits = waiting.entry(channel).or_default();
            if !waits.is_empty() || matches!(host.send(channel, data), Err(ApiError::WouldBlock(_)))
            {
                waits.push(data.to_vec());
            }
        },
        move |host, event| {
            welcome(host, event);
            if let Event::Writable { channel } = event {
                let mut waiting = again.lock().unwrap();
                let waits = waiting.entry(*channel).or_default();
                while let Some(data) = waits.first() {
                    if matches!(host.send(*channel, data), Err(ApiError::WouldBlock(_))) {
                        break;
                    }
                    waits.remove(0);
                }
            }
        },
    )
}

fn listening(host: &QueuedEngine, identity: &trunkline::Identity) -> trunkline::ConnectConfig {
    connect(host.listen(&listen(identity)).unwrap().local_addr, identity)
}

#[test]
fn messages_of_all_sizes_come_back_in_order() {
    for driver in drivers() {
        for shards in [1, 2] {
            let host = start(EngineConfig { shards, ..config(driver) }, &echo());
            let to = listening(&host, &identity());
            let received = Arc::new(Mutex::new(Vec::<(usize, Vec<u8>)>::new()));
            let count = received.clone();
            let told = Told::new(
                move |_, channel, user, data| {
                    assert_eq!(channel.key().life % 2, 1);
                    count.lock().unwrap().push((user as usize, data.to_vec()));
                },
                |_, _| (),
            );
            let client = start(EngineConfig { shards, ..config(driver) }, &told);
            let mut sent = Vec::new();
            for c in 0..4 {
                let mut forced = to.clone();
                forced.reuse = trunkline::config::Reuse::ForceNew;
                let conn = client.connect(&forced, None).unwrap();
                let channel = client.open_channel(conn, "x", &messages()).unwrap();
                client.set_channel_user_data(channel, c + 1).unwrap();
                for i in 0..300 {
                    let len = [0, 1, 64, 102, 103, 3000, 20_000, 200_000][i % 8];
                    let message = pattern(len, i as u64);
                    while let Err(error) = client.send(channel, &message) {
                        assert!(matches!(error, ApiError::WouldBlock(_)), "{error}");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    sent.push((c as usize + 1, message));
                }
            }
            wait_until("all come back", || received.lock().unwrap().len() >= sent.len());
            let received = std::mem::take(&mut *received.lock().unwrap());
            for c in 1..=4 {
                let of = |all: &[(usize, Vec<u8>)]| -> Vec<Vec<u8>> {
                    all.iter().filter(|(n, _)| *n == c).map(|(_, m)| m.clone()).collect()
                };
                assert!(of(&received) == of(&sent), "{driver}: channel {c} differs");
            }
            let report = client.shutdown(Duration::from_secs(5)).unwrap();
            assert!(report.all_delivered());
            drop(client);
            assert_eq!(told.late.load(Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn a_long_stream_of_bytes_goes_there_and_back() {
    for driver in drivers() {
        let host = start(config(driver), &echo());
        let to = listening(&host, &identity());
        let (sum, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (into, eof) = (sum.clone(), ended.clone());
        let told = Told::new(
            move |_, _, _, data| into.lock().unwrap().extend_from_slice(data),
            move |_, event| {
                if matches!(event, Event::ChannelClosed { end: ChannelEnd::Finished, .. }) {
                    eof.store(true, Ordering::Release);
                }
            },
        );
        let client = start(config(driver), &told);
        let conn = client.connect(&to, None).unwrap();
        let channel = client.open_channel(conn, "x", &ChannelOptions::default()).unwrap();
        let all = pattern(40_000_000, 5);
        for part in all.chunks(100_001) {
            while client.send(channel, part).is_err() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        wait_until("all of it comes back", || sum.lock().unwrap().len() >= all.len());
        assert!(*sum.lock().unwrap() == all, "{driver}");
        client.finish(channel).unwrap();
        wait_until("both directions end", || ended.load(Ordering::Acquire));
    }
}

/// What is kept counts against what the peer may send, and is the application's.
#[test]
fn kept_bytes_hold_the_peer_back_and_outlive_the_call() {
    for driver in drivers() {
        let kept: Arc<Mutex<Vec<Retained>>> = Arc::default();
        let (keep, bytes) = (kept.clone(), Arc::new(AtomicUsize::new(0)));
        let count = bytes.clone();
        let told = Told::new(
            move |host, _, _, data| {
                let part = host.keep(&data[..data.len().min(100)]);
                count.fetch_add(data.len(), Ordering::SeqCst);
                keep.lock().unwrap().push(part);
            },
            welcome,
        );
        let host = start(config(driver), &told);
        let identity = identity();
        let config_ = ListenConfig {
            connection: Some(trunkline::ConnectionConfig {
                channel_window: 64 << 10,
                channel_window_max: 64 << 10,
                ..connection()
            }),
            ..listen(&identity)
        };
        let to = connect(host.listen(&config_).unwrap().local_addr, &identity);
        let client = QueuedEngine::start(config(driver)).unwrap();
        let conn = client.connect(&to, None).unwrap();
        let channel = client.open_channel(conn, "x", &messages()).unwrap();
        // What is sent before that goes beyond the window.
        let mut received = Vec::new();
        wait_until("the channel is accepted", || {
            client.poll_group().recv_many(&mut received, 16, Some(Duration::ZERO));
            let ready = |r: &Received| matches!(r, Received::Event(Event::ChannelReady { .. }));
            received.iter().any(ready)
        });
        let message = pattern(1000, 1);
        let send = |n| {
            for _ in 0..n {
                while client.send(channel, &message).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        send(200);
        wait_until("the window is used", || bytes.load(Ordering::SeqCst) >= 60_000);
        std::thread::sleep(Duration::from_millis(200));
        let held = bytes.load(Ordering::SeqCst);
        assert!(held <= 64 << 10, "{driver}: the peer waits for what is kept: {held}");
        assert!(kept.lock().unwrap().iter().all(|part| **part == message[..100]));
        wait_until("the rest comes when it is let go", || {
            kept.lock().unwrap().clear();
            bytes.load(Ordering::SeqCst) >= 200_000
        });
    }
}

/// Everything that a callback may do: it takes effect at once, also questions and ends.
#[test]
fn every_call_works_from_inside() {
    for driver in drivers() {
        let host = start(config(driver), &echo());
        let to = listening(&host, &identity());
        let done = Arc::new(AtomicBool::new(false));
        let other: Arc<Mutex<Option<Conn>>> = Arc::default();
        let (end, second, again) = (done.clone(), other.clone(), to.clone());
        let told = Told::new(
            move |client, channel, user, data| {
                assert_eq!((user, data), (0, &b"hello"[..]));
                let conn = channel.conn();
                // Answers of this shard come without waiting for it.
                assert_eq!(client.info(conn).unwrap().status, Status::Connected);
                assert!(client.stats(conn).unwrap().packets_received > 0);
                assert!(client.sec_info(conn).is_ok());
                assert!(client.engine_stats().shards.is_empty());
                let listener = client.listen(&listen(&identity())).unwrap();
                assert_ne!(listener.local_addr.port(), 0);
                client.unlisten(listener.id, true);
                // Two channels, of which one is there before the call is over.
                let unique = ChannelOptions { unique: true, ..messages() };
                let one = client.open_channel(conn, "unique", &unique).unwrap();
                assert_eq!(client.open_channel(conn, "unique", &unique).unwrap(), one);
                client.send(one, b"x").unwrap();
                client.send_with_receipt(one, b"x", 7).unwrap();
                client.send_payload(one, vec![1; 5000].into(), None).unwrap();
                let (taken, result) = client.send_many(&[(one, b"a"), (one, b"b")]);
                assert!(taken == 2 && result.is_ok());
                let ended = client.open_channel(conn, "ended", &messages()).unwrap();
                client.reset(ended, 1).unwrap();
                let (taken, result) = client.send_many(&[(one, b"a"), (ended, b"b"), (one, b"c")]);
                assert!(taken == 1 && result.is_err());
                client.flush(one).unwrap();
                client.finish(one).unwrap();
                client.reset(channel, 3).unwrap();
                assert!(client.send(channel, b"y").is_err());
                let mut forced = again.clone();
                forced.reuse = trunkline::config::Reuse::ForceNew;
                *second.lock().unwrap() = Some(client.connect(&forced, None).unwrap());
                // Whoever begins or ends an association keeps others from it, and not itself.
                let signals = AssociationConfig::new("signals");
                let there = client.associate(&again, signals.clone(), None).unwrap();
                let found = client
                    .send_to(&again, signals.clone(), vec![1], 1, SendSecurity::Local, None)
                    .unwrap();
                assert_eq!(found, there);
                client.close_association(there).unwrap();
                let waits = client.listen_association(None, signals, None).unwrap();
                client.close_association(waits).unwrap();
                // It ends the connection that it is called for.
                client.close(conn, 1500, "enough", Some(Duration::from_secs(1))).unwrap();
                assert_eq!(client.close(conn, 1500, "", None), Err(ApiError::InvalidHandle));
                assert_eq!(client.status(conn), Status::None);
                assert_eq!(client.send(one, b"z"), Err(ApiError::InvalidHandle));
            },
            move |_, event| {
                if let Event::Dead { report, .. } = event {
                    assert_eq!(report.reason.reason.0, 1500, "{report:?}");
                    end.store(true, Ordering::Release);
                }
            },
        );
        let client = start(config(driver), &told);
        let conn = client.connect(&to, None).unwrap();
        let channel = client.open_channel(conn, "x", &messages()).unwrap();
        client.send(channel, b"hello").unwrap();
        wait_until("the connection is gone", || done.load(Ordering::Acquire));
        let other = other.lock().unwrap().expect("a second connection");
        wait_until("it stands", || client.status(other) == Status::Connected);
    }
}

/// What a thread sends before it polls arrives before what its callbacks send then.
#[test]
fn what_one_thread_does_happens_in_its_order() {
    for driver in drivers() {
        let host = start(config(driver), &echo());
        let to = listening(&host, &identity());
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        let next = Arc::new(AtomicU64::new(0));
        let (into, number) = (seen.clone(), next.clone());
        let told = Told::new(
            move |client, channel, _, data| {
                into.lock().unwrap().push(u64::from_le_bytes(data.try_into().unwrap()));
                if number.load(Ordering::Relaxed) < 2000 {
                    let n = number.fetch_add(1, Ordering::Relaxed);
                    client.send(channel, &n.to_le_bytes()).unwrap();
                }
            },
            |_, _| (),
        );
        let client = QueuedEngine::local_with(config(driver), told.clone()).unwrap();
        told.engine.set(client.downgrade()).unwrap();
        let conn = client.connect(&to, None).unwrap();
        let channel = client.open_channel(conn, "x", &messages()).unwrap();
        let begin = std::time::Instant::now();
        while seen.lock().unwrap().len() < 2000 {
            assert!(begin.elapsed() < Duration::from_secs(20), "{driver}: it stands still");
            if next.load(Ordering::Relaxed) < 2000 {
                let n = next.fetch_add(1, Ordering::Relaxed);
                client.send(channel, &n.to_le_bytes()).unwrap();
            }
            client.poll(Some(Duration::from_millis(1))).unwrap();
        }
        let seen = seen.lock().unwrap();
        assert!(seen.iter().copied().eq(0..seen.len() as u64), "{driver}: {seen:?}");
        let mut out = Vec::new();
        assert_eq!(client.poll_group().recv_many(&mut out, 10, Some(Duration::ZERO)), 0);
        assert!(client.poll_group().has_callbacks());
    }
}

/// Without threads the shard is being polled meanwhile, and takes its sockets afterwards.
#[test]
fn listening_from_inside_needs_no_thread() {
    for driver in drivers() {
        let host = start(config(driver), &echo());
        let to = listening(&host, &identity());
        let (inner, connected) = (identity(), Arc::new(AtomicBool::new(false)));
        let at: Arc<Mutex<Option<trunkline::ConnectConfig>>> = Arc::default();
        let (into, done) = (at.clone(), connected.clone());
        let told = Told::new(
            move |client, _, _, _| *into.lock().unwrap() = Some(listening(client, &inner)),
            move |client, event| {
                welcome(client, event);
                if matches!(event, Event::Incoming { .. }) {
                    done.store(true, Ordering::Release);
                }
            },
        );
        let client = QueuedEngine::local_with(config(driver), told.clone()).unwrap();
        told.engine.set(client.downgrade()).unwrap();
        let conn = client.connect(&to, None).unwrap();
        let channel = client.open_channel(conn, "x", &messages()).unwrap();
        client.send(channel, b"listen").unwrap();
        wait_until("the callback listens", || {
            client.poll(Some(Duration::from_millis(1))).unwrap();
            at.lock().unwrap().is_some()
        });
        let to = at.lock().unwrap().take().expect("an address");
        host.connect(&to, None).unwrap();
        wait_until("somebody comes", || {
            client.poll(Some(Duration::from_millis(1))).unwrap();
            connected.load(Ordering::Acquire)
        });
    }
}

/// Two groups of one engine: one that is called, one that is received from.
#[test]
fn groups_of_both_kinds_live_side_by_side() {
    let driver = drivers()[0];
    let host = start(config(driver), &echo());
    let to = listening(&host, &identity());
    let client = QueuedEngine::start(config(driver)).unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    let told = Told::new(
        move |_, _, _, data| {
            assert_eq!(data, b"called");
            count.fetch_add(1, Ordering::SeqCst);
        },
        |_, _| (),
    );
    told.engine.set(client.downgrade()).unwrap();
    let group = client.new_callback_group(told).unwrap();
    let mut forced = to;
    forced.reuse = trunkline::config::Reuse::ForceNew;
    let one = client.connect(&forced, Some(&group)).unwrap();
    let two = client.connect(&forced, None).unwrap();
    let open = |conn| client.open_channel(conn, "x", &messages()).unwrap();
    client.send(open(one), b"called").unwrap();
    client.send(open(two), b"received").unwrap();
    let mut out = Vec::new();
    wait_until("both answers", || {
        client.poll_group().recv_many(&mut out, 64, Some(Duration::from_millis(1)));
        let message = |r: &trunkline::Received| match r {
            trunkline::Received::Message(m) => &*m.data == b"received",
            trunkline::Received::Event(_) => false,
        };
        called.load(Ordering::SeqCst) == 1 && out.iter().any(message)
    });
    assert!(out.iter().all(|r| r.conn() == Some(two)), "{out:?}");
}

/// A callback that panics ends its shard, as a handler does, and says so.
#[test]
fn a_panic_ends_the_shard_and_nothing_hangs() {
    let driver = drivers()[0];
    let host = start(config(driver), &echo());
    let to = listening(&host, &identity());
    let failed = Arc::new(AtomicBool::new(false));
    let end = failed.clone();
    let told = Told::new(
        |_, _, _, _| panic!("on purpose"),
        move |_, event| {
            if let Event::ShardFailed { message, .. } = event {
                assert!(message.contains("on purpose"));
                end.store(true, Ordering::Release);
            }
        },
    );
    let client = start(config(driver), &told);
    let conn = client.connect(&to, None).unwrap();
    let channel = client.open_channel(conn, "x", &messages()).unwrap();
    client.send(channel, b"hello").unwrap();
    wait_until("the shard fails", || client.status(conn) == Status::ProblemDetectedLocally);
    assert!(client.send(channel, b"hello").is_err());
    drop(client);
    let _ = failed;
}
