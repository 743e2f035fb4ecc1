//! The queued API over real sockets, with and without threads.

mod common;

use common::*;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trunkline::{
    ApiError, Channel, ChannelEnd, ChannelKind, ChannelOptions, Conn, ConnectConfig, ConnectLink,
    EngineError, Event, HandshakeFailure, HandshakeState, Payload, QueuedEngine, Reason, Received,
    Status,
};

fn messages() -> ChannelOptions {
    ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() }
}

/// One received item that is not of interest to the protocol of the host below.
fn host_step(host: &QueuedEngine, received: Received) {
    match received {
        Received::Event(Event::Incoming { conn, .. }) => host.accept(conn).unwrap(),
        Received::Event(Event::ChannelRequest { channel, .. }) => {
            host.accept_channel(channel, &ChannelOptions::default()).unwrap();
        }
        Received::Event(Event::Status {
            conn,
            new: Status::ClosedByPeer | Status::ProblemDetectedLocally,
            ..
        }) => host.close(conn, 1000, "", None).unwrap(),
        Received::Message(m) => {
            // Any other error: the connection has ended meanwhile.
            while let Err(ApiError::WouldBlock(_)) =
                host.send_payload(m.channel, Payload::from(m.data.clone()), None)
            {
                std::thread::yield_now();
            }
        }
        Received::Event(Event::Eof { channel }) => {
            let _ = host.finish(channel);
        }
        Received::Event(_) => {}
    }
}

/// A host that sends messages back, on a thread of the application.
struct Host {
    engine: QueuedEngine,
    connect: ConnectConfig,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: Arc<AtomicU64>,
}

impl Host {
    fn start(driver: trunkline::DriverChoice, shards: usize) -> Self {
        let identity = identity();
        let mut config = config(driver);
        config.shards = shards;
        let engine = QueuedEngine::start(config).unwrap();
        let listener = engine.listen(&listen(&identity)).unwrap();
        let stop = Arc::new(AtomicU64::new(0));
        let thread = {
            let (engine, stop) = (engine.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut out = Vec::new();
                while stop.load(Ordering::Relaxed) == 0 {
                    let wait = Some(Duration::from_millis(20));
                    engine.poll_group().recv_many(&mut out, 256, wait);
                    for received in out.drain(..) {
                        host_step(&engine, received);
                    }
                }
            })
        };
        Self {
            engine,

            connect: connect(listener.local_addr, &identity),
            thread: Some(thread),
            stop,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// Receives one by one.
struct Inbox<'a> {
    engine: &'a QueuedEngine,
    waiting: VecDeque<Received>,
}

impl<'a> Inbox<'a> {
    fn new(engine: &'a QueuedEngine) -> Self {
        Self { engine, waiting: VecDeque::new() }
    }

    fn next(&mut self) -> Received {
        let start = Instant::now();
        loop {
            if let Some(received) = self.waiting.pop_front() {
                return received;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "nothing more happened");
            if self.engine.is_threadless() {
                self.engine.poll(Some(Duration::from_millis(20))).unwrap();
            }
            let mut out = Vec::new();
            self.engine.poll_group().recv_many(&mut out, 100, Some(Duration::from_millis(20)));
            self.waiting.extend(out);
        }
    }

    fn connected(&mut self, conn: Conn) {
        match self.next() {
            Received::Event(Event::Status { conn: c, new: Status::Connected, .. }) => {
                assert_eq!(c, conn);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn round_trip(client: &QueuedEngine, connect: &ConnectConfig) {
    let mut inbox = Inbox::new(client);
    let conn = client.connect(connect, None).unwrap();
    assert_eq!(client.status(conn), Status::Connecting);
    assert_eq!(client.connect(connect, None).unwrap(), conn, "the one being made is awaited");
    // Opened and sent on before there is a connection.
    let ch = client.open_channel(conn, "echo", &messages()).unwrap();
    client.send(ch, b"early").unwrap();
    inbox.connected(conn);
    assert_eq!(client.status(conn), Status::Connected);
    assert_eq!(client.connect(connect, None).unwrap(), conn);
    for i in 0..200usize {
        client.send(ch, &pattern(i * 50, i as u64)).unwrap();
    }
    client.send_with_receipt(ch, b"last", 77).unwrap();
    client.finish(ch).unwrap();
    let mut got = Vec::new();
    let (mut receipts, mut closed) = (0, false);
    while !closed {
        match inbox.next() {
            Received::Message(m) => {
                assert_eq!((m.channel, m.kind), (ch, ChannelKind::Messages));
                got.push(m.data.to_vec());
            }
            Received::Event(Event::Receipt { token: 77, .. }) => receipts += 1,
            Received::Event(Event::ChannelReady { .. } | Event::Eof { .. }) => {}
            Received::Event(Event::ChannelClosed { channel, end }) => {
                assert_eq!((channel, end), (ch, ChannelEnd::Finished));
                closed = true;
            }
            other @ Received::Event(_) => panic!("{other:?}"),
        }
    }
    let mut expected = vec![b"early".to_vec()];
    expected.extend((0..200usize).map(|i| pattern(i * 50, i as u64)));
    expected.push(b"last".to_vec());
    assert!(got == expected);
    assert_eq!(receipts, 1);
    assert_eq!(client.send(ch, b"x"), Err(ApiError::InvalidHandle));
    let info = client.info(conn).unwrap();
    assert_eq!(info.status, Status::Connected);
    assert!(client.stats(conn).unwrap().bytes_sent > 0);
    client.close(conn, 1500, "done", Some(Duration::from_secs(1))).unwrap();
    assert_eq!(client.close(conn, 1500, "done", None), Err(ApiError::InvalidHandle));
    assert_eq!(client.status(conn), Status::None);
    loop {
        match inbox.next() {
            Received::Event(Event::Dead { conn: c, report }) => {
                assert_eq!(c, conn);
                assert_eq!((report.reason.reason, report.undelivered_bytes), (Reason(1500), 0));
                break;
            }
            Received::Event(Event::CheckAnswered { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(client.info(conn).is_err());
}

#[test]
fn messages_go_there_and_back() {
    for driver in drivers() {
        let host = Host::start(driver, 1);
        let client = QueuedEngine::start(config(driver)).unwrap();
        round_trip(&client, &host.connect);
    }
}

/// Whoever receives again after a shutdown, or because of it, does not wait for what never comes.
#[test]
fn nobody_waits_after_a_shutdown() {
    for driver in drivers() {
        let engine = QueuedEngine::start(config(driver)).unwrap();
        let further = engine.new_poll_group().unwrap();
        let groups = [engine.poll_group().clone(), further];
        let waiting = groups[0].clone();
        let waits = std::thread::spawn(move || {
            while waiting.recv_many(&mut Vec::new(), 1, Some(Duration::from_secs(20))) > 0 {}
        });
        engine.shutdown(Duration::ZERO).unwrap();
        let start = Instant::now();
        waits.join().unwrap();
        for group in &groups {
            assert_eq!(group.recv_many(&mut Vec::new(), 1, Some(Duration::from_secs(20))), 0);
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{driver}");
    }
}

#[test]
fn an_engine_shuts_down_once() {
    for driver in drivers() {
        for engine in [QueuedEngine::start(config(driver)), QueuedEngine::local(config(driver))] {
            let engine = engine.unwrap();
            engine.shutdown(Duration::ZERO).unwrap();
            let again = engine.shutdown(Duration::ZERO);
            assert!(matches!(again, Err(EngineError::Stopped)), "{driver}: {again:?}");
        }
    }
}

/// Once a connection is gone on both sides, a shutdown has nothing to wait for.
#[test]
fn a_shutdown_after_a_close_does_not_wait() {
    for hosting in drivers() {
        let host = Host::start(hosting, 1);
        for driver in drivers().repeat(3) {
            let client = QueuedEngine::start(config(driver)).unwrap();
            round_trip(&client, &host.connect);
            let start = Instant::now();
            assert!(client.shutdown(Duration::from_secs(10)).unwrap().all_delivered());
            let took = start.elapsed();
            assert!(took < Duration::from_millis(1_500), "{driver} and {hosting}: {took:?}");
        }
    }
}

#[test]
fn the_same_without_threads() {
    for driver in drivers() {
        let host = Host::start(driver, 1);
        let client = QueuedEngine::local(config(driver)).unwrap();
        round_trip(&client, &host.connect);
        let elsewhere = client.clone();
        let wrong = std::thread::spawn(move || elsewhere.poll(None).unwrap_err()).join().unwrap();
        assert!(matches!(wrong, EngineError::WrongThread), "{wrong}");
        assert!(matches!(host.engine.poll(None), Err(EngineError::NotThreadless)));
    }
}

#[test]
fn a_foreign_event_loop_sleeps_on_the_descriptor() {
    for driver in drivers() {
        let host = Host::start(driver, 1);
        let client = QueuedEngine::local(config(driver)).unwrap();
        let fd = client.fd().unwrap().expect("a descriptor");
        let conn = client.connect(&host.connect, None).unwrap();
        let ch = client.open_channel(conn, "x", &messages()).unwrap();
        client.send(ch, b"hello").unwrap();
        let start = Instant::now();
        let mut sleeps = 0;
        let mut out = Vec::new();
        while !out.iter().any(|r| matches!(r, Received::Message(_))) {
            assert!(start.elapsed() < Duration::from_secs(10), "{driver}: no answer");
            client.poll(Some(Duration::ZERO)).unwrap();
            client.poll_group().recv_many(&mut out, 100, None);
            let timeout = client.next_timeout().unwrap();
            if timeout != Some(Duration::ZERO) {
                sleeps += 1;
                trunkline::sys::sleep_readable(fd, timeout.unwrap_or(Duration::from_secs(5)))
                    .unwrap();
            }
        }
        assert!(sleeps < 1000, "{driver}: the descriptor is not always readable: {sleeps}");
        // A wake from another thread ends the sleep.
        while client.poll(Some(Duration::ZERO)).unwrap() > 0 {}
        let waker = {
            let client = client.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                client.send(ch, b"again").unwrap();
            })
        };
        let start = Instant::now();
        let mut out = Vec::new();
        while !out.iter().any(|r| matches!(r, Received::Message(_))) {
            assert!(start.elapsed() < Duration::from_secs(2), "{driver}: a send did not wake us");
            let timeout = client.next_timeout().unwrap().unwrap_or(Duration::from_secs(3));
            trunkline::sys::sleep_readable(fd, timeout).unwrap();
            client.poll(Some(Duration::ZERO)).unwrap();
            client.poll_group().recv_many(&mut out, 100, None);
        }
        waker.join().unwrap();
    }
}

#[test]
fn bytes_of_streams_and_large_messages() {
    for driver in drivers() {
        let identity = identity();
        let host = QueuedEngine::start(config(driver)).unwrap();
        let addr = host.listen(&listen(&identity)).unwrap().local_addr;
        let client = QueuedEngine::start(config(driver)).unwrap();
        let conn = client.connect(&connect(addr, &identity), None).unwrap();
        let stream = client.open_channel(conn, "stream", &ChannelOptions::default()).unwrap();
        let large = client.open_channel(conn, "large", &messages()).unwrap();
        let bytes = Arc::new(pattern(30 << 20, 5));
        let sender = {
            let (client, bytes) = (client.clone(), bytes.clone());
            std::thread::spawn(move || {
                let mut sent = 0;
                let mut inbox = Inbox::new(&client);
                while sent < bytes.len() {
                    let end = bytes.len().min(sent + 100_000);
                    match client.send(stream, &bytes[sent..end]) {
                        Ok(()) => sent = end,
                        Err(ApiError::WouldBlock(_)) => loop {
                            if let Received::Event(Event::Writable { channel }) = inbox.next()
                                && channel == stream
                            {
                                break;
                            }
                        },
                        Err(e) => panic!("{e}"),
                    }
                }
                client.finish(stream).unwrap();
                client.send(large, &pattern(15 << 20, 6)).unwrap();
            })
        };
        let mut inbox = Inbox::new(&host);
        let (mut got, mut eof, mut message) = (Vec::new(), false, false);
        while !eof || !message {
            match inbox.next() {
                Received::Event(Event::Data { data, .. }) => {
                    assert!(!eof);
                    got.extend_from_slice(&data);
                }
                Received::Event(Event::Eof { .. }) => eof = true,
                Received::Message(m) => {
                    assert!(*m.data == pattern(15 << 20, 6)[..]);
                    message = true;
                }
                other @ Received::Event(_) => host_step(&host, other),
            }
        }
        sender.join().unwrap();
        assert_eq!(got.len(), bytes.len());
        assert!(got == *bytes);
    }
}

#[test]
fn what_is_not_received_stops_the_sender_and_nothing_is_lost() {
    let identity = identity();
    let mut small = config(trunkline::DriverChoice::Mio);
    small.connection.channel_window = 64 << 10;
    small.connection.channel_window_max = 64 << 10;
    small.connection.channel_send_buffer = 16 << 20;
    small.queue_channel_bytes = 64 << 10;
    let host = QueuedEngine::start(small.clone()).unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = QueuedEngine::start(small).unwrap();
    let conn = client.connect(&connect(addr, &identity), None).unwrap();
    let ch = client.open_channel(conn, "x", &messages()).unwrap();
    let mut inbox = Inbox::new(&host);
    // Until the channel is accepted, so that data flows.
    loop {
        let received = inbox.next();
        let asked = matches!(received, Received::Event(Event::ChannelRequest { .. }));
        host_step(&host, received);
        if asked {
            break;
        }
    }
    let mut sent = 0u32;
    let mut blocked_since: Option<Instant> = None;
    while blocked_since.is_none_or(|b| b.elapsed() < Duration::from_millis(500)) {
        match client.send(ch, &[&sent.to_be_bytes()[..], &[7; 996]].concat()) {
            Ok(()) => {
                sent += 1;
                blocked_since = None;
            }
            Err(ApiError::WouldBlock(_)) => {
                blocked_since.get_or_insert_with(Instant::now);
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => panic!("{e}"),
        }
        assert!(sent < 40_000, "nothing stops the sender");
    }
    assert!(host.poll_group().waiting_bytes() <= 200 << 10, "bounded by credit");
    let mut next = 0u32;
    let mut writable = false;
    while next < sent {
        if let Received::Message(m) = inbox.next() {
            assert_eq!(m.data[..4], next.to_be_bytes());
            next += 1;
        }
        let mut out = Vec::new();
        client.poll_group().recv_many(&mut out, 10, Some(Duration::ZERO));
        writable |= out.iter().any(|r| matches!(r, Received::Event(Event::Writable { .. })));
    }
    assert!(writable);
    client.send(ch, b"more").unwrap();
}

#[test]
fn many_threads_send_on_many_channels() {
    for driver in drivers() {
        let host = Host::start(driver, 2);
        let client = {
            let mut config = config(driver);
            config.shards = 2;
            QueuedEngine::start(config).unwrap()
        };
        const THREADS: usize = 4;
        const EACH: u32 = 3000;
        let mut channels = Vec::new();
        for _ in 0..THREADS {
            let mut connect = host.connect.clone();
            connect.reuse = trunkline::Reuse::ForceNew;
            let conn = client.connect(&connect, None).unwrap();
            channels.push(client.open_channel(conn, "x", &messages()).unwrap());
        }
        let senders: Vec<_> = channels
            .iter()
            .copied()
            .map(|ch| {
                let client = client.clone();
                std::thread::spawn(move || {
                    let mut next = 0;
                    while next < EACH {
                        let batch: Vec<[u8; 4]> =
                            (next..(next + 10).min(EACH)).map(u32::to_be_bytes).collect();
                        let batch: Vec<(Channel, &[u8])> =
                            batch.iter().map(|m| (ch, &m[..])).collect();
                        let (taken, result) = if next % 3 == 0 {
                            client.send_many(&batch)
                        } else {
                            match client.send(ch, batch[0].1) {
                                Ok(()) => (1, Ok(())),
                                Err(e) => (0, Err(e)),
                            }
                        };
                        next += taken as u32;
                        if let Err(e) = result {
                            assert!(matches!(e, ApiError::WouldBlock(_)), "{e}");
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut inbox = Inbox::new(&client);
        let mut counts: HashMap<Channel, u32> = HashMap::new();
        let mut total = 0;
        while total < THREADS as u32 * EACH {
            if let Received::Message(m) = inbox.next() {
                let count = counts.entry(m.channel).or_default();
                assert_eq!(*m.data, count.to_be_bytes()[..], "in order");
                *count += 1;
                total += 1;
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(counts.len(), THREADS);
    }
}

#[test]
fn groups_separate_connections() {
    let host = Host::start(trunkline::DriverChoice::Mio, 1);
    let client = QueuedEngine::start(config(trunkline::DriverChoice::Mio)).unwrap();
    let group = client.new_poll_group().unwrap();
    let conn = client.connect(&host.connect, Some(&group)).unwrap();
    let mut forced = host.connect.clone();
    forced.reuse = trunkline::Reuse::ForceNew;
    let other = client.connect(&forced, None).unwrap();
    let in_group = client.open_channel(conn, "a", &messages()).unwrap();
    let elsewhere = client.open_channel(other, "b", &messages()).unwrap();
    client.send(in_group, b"a").unwrap();
    client.send(elsewhere, b"b").unwrap();
    let receive = |group: &trunkline::PollGroup| {
        let start = Instant::now();
        loop {
            let mut out = Vec::new();
            group.recv_many(&mut out, 10, Some(Duration::from_secs(1)));
            for received in out {
                assert!(start.elapsed() < Duration::from_secs(10));
                if let Received::Message(m) = received {
                    return (m.channel, m.data.to_vec());
                }
            }
        }
    };
    assert_eq!(receive(&group), (in_group, b"a".to_vec()));
    assert_eq!(receive(client.poll_group()), (elsewhere, b"b".to_vec()));
    client.assign(other, &group).unwrap();
    client.send(elsewhere, b"c").unwrap();
    assert_eq!(receive(&group), (elsewhere, b"c".to_vec()));
}

/// A message that is in the socket already when the application names another group shows in that
/// one: the shard reads its socket before its mailbox.
#[test]
fn a_group_holds_for_what_was_not_received_yet() {
    for driver in drivers() {
        let host = Host::start(driver, 1);
        let client = QueuedEngine::local(config(driver)).unwrap();
        let mut inbox = Inbox::new(&client);
        let conn = client.connect(&host.connect, None).unwrap();
        let ch = client.open_channel(conn, "echo", &messages()).unwrap();
        inbox.connected(conn);
        client.send(ch, b"first").unwrap();
        while !matches!(inbox.next(), Received::Message(_)) {}
        client.send(ch, b"second").unwrap();
        client.flush(ch).unwrap();
        client.poll(Some(Duration::ZERO)).unwrap();
        // The echo arrives while nobody polls.
        std::thread::sleep(Duration::from_millis(300));
        let group = client.new_poll_group().unwrap();
        client.assign(conn, &group).unwrap();
        let start = Instant::now();
        loop {
            client.poll(Some(Duration::from_millis(20))).unwrap();
            let mut out = Vec::new();
            client.poll_group().recv_many(&mut out, 10, None);
            assert!(out.is_empty(), "{out:?}");
            group.recv_many(&mut out, 10, None);
            match out.pop() {
                Some(Received::Message(m)) => break assert_eq!(&*m.data, b"second"),
                other => assert!(other.is_none(), "{other:?}"),
            }
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }
}

#[test]
fn handles_are_checked() {
    let host = Host::start(trunkline::DriverChoice::Mio, 1);
    let client = QueuedEngine::start(config(trunkline::DriverChoice::Mio)).unwrap();
    let conn = client.connect(&host.connect, None).unwrap();
    let ch = client.open_channel(conn, "x", &messages()).unwrap();
    client.set_user_data(conn, 5).unwrap();
    client.set_channel_user_data(ch, 6).unwrap();
    assert_eq!((client.user_data(conn), client.channel_user_data(ch)), (Ok(5), Ok(6)));
    let bits = QueuedEngine::channel_bits(ch);
    assert_eq!(client.channel_from_bits(bits), Ok(ch));
    for wrong in [0, u64::MAX, bits ^ 2, bits ^ (1 << 32), bits ^ (1 << 60)] {
        assert_eq!(client.channel_from_bits(wrong), Err(ApiError::InvalidHandle), "{wrong:x}");
        let conn = Conn::from_bits(wrong);
        assert_eq!(client.accept(conn), Err(ApiError::InvalidHandle));
        assert_eq!(client.status(conn), Status::None);
        assert_eq!(client.open_channel(conn, "x", &messages()), Err(ApiError::InvalidHandle));
    }
    let unique = ChannelOptions { unique: true, ..messages() };
    assert_eq!(client.open_channel(conn, "x", &unique), Ok(ch), "joins the one of that name");
    let y = client.open_channel(conn, "y", &unique).unwrap();
    assert_ne!(y, ch);
    assert_eq!(client.open_channel(conn, "y", &unique), Ok(y));
    let foreign = Channel::from_parts(Conn::from_bits(conn.to_bits() ^ 2), ch.key());
    assert_eq!(client.send(foreign, b"x"), Err(ApiError::InvalidHandle));
    let long = "n".repeat(2000);
    assert!(client.open_channel(conn, &long, &messages()).is_err());
    let too_long = vec![0; (16 << 20) + 1];
    assert!(matches!(client.send(ch, &too_long), Err(ApiError::MessageTooLarge { .. })));
    client.close(conn, 1000, "", None).unwrap();
    assert_eq!(client.send(ch, b"x"), Err(ApiError::InvalidHandle));
    assert_eq!(client.finish(ch), Err(ApiError::InvalidHandle));
}

#[test]
fn unreliable_messages() {
    let host = Host::start(trunkline::DriverChoice::Mio, 1);
    let client = QueuedEngine::start(config(trunkline::DriverChoice::Mio)).unwrap();
    let conn = client.connect(&host.connect, None).unwrap();
    let options = ChannelOptions { kind: ChannelKind::Datagrams, ..ChannelOptions::default() };
    let ch = client.open_channel(conn, "x", &options).unwrap();
    assert!(matches!(client.send(ch, b"too early"), Err(ApiError::Dropped(_))));
    let mut inbox = Inbox::new(&client);
    inbox.connected(conn);
    let mut received = 0;
    for i in 0..3000usize {
        let _ = client.send(ch, &pattern(i % 1000, i as u64));
        while let Some(Received::Message(m)) = inbox.waiting.pop_front() {
            assert_eq!(m.kind, ChannelKind::Datagrams);
            received += 1;
        }
        if i % 50 == 0 {
            std::thread::sleep(Duration::from_millis(2));
            let mut out = Vec::new();
            client.poll_group().recv_many(&mut out, 1000, Some(Duration::ZERO));
            inbox.waiting.extend(out.into_iter().filter(|r| matches!(r, Received::Message(_))));
        }
    }
    assert!(received > 1000, "{received} came back over loopback");
}

#[test]
fn a_shutdown_reports_under_the_applications_names() {
    for local in [false, true] {
        let host = Host::start(trunkline::DriverChoice::Mio, 1);
        let client = started(config(trunkline::DriverChoice::Mio), local);
        let conn = client.connect(&host.connect, None).unwrap();
        let ch = client.open_channel(conn, "x", &messages()).unwrap();
        Inbox::new(&client).connected(conn);
        client.send(ch, &pattern(1 << 20, 3)).unwrap();
        let report = client.shutdown(Duration::from_secs(5)).unwrap();
        assert_eq!(report.connections.len(), 1, "{report:?}");
        assert_eq!(report.connections[0].0, conn);
        assert!(report.all_delivered(), "{report:?}");
        assert!(client.send(ch, b"x").is_err());
        assert!(client.connect(&host.connect, None).is_err());
    }
}

/// The limit of a message is the connection's: its own settings, and the peer's.
#[test]
fn a_message_may_be_as_long_as_its_connection_says() {
    let driver = drivers()[0];
    let limited = |max_message| {
        let mut limited = config(driver);
        limited.connection.max_message = max_message;
        limited
    };
    for (ours, own, peers, limit) in [
        (1 << 20, None, 1 << 20, 1 << 20),
        (1 << 20, Some(100_000), 1 << 20, 100_000),
        (100_000, Some(1 << 20), 1 << 20, 1 << 20),
        (1 << 20, None, 100_000, 100_000),
    ] {
        let identity = identity();
        let host = QueuedEngine::start(limited(peers)).unwrap();
        let addr = host.listen(&listen(&identity)).unwrap().local_addr;
        let client = QueuedEngine::start(limited(ours)).unwrap();
        let mut to = connect(addr, &identity);
        to.connection = own.map(|max| limited(max).connection);
        let conn = client.connect(&to, None).unwrap();
        let channel = client.open_channel(conn, "x", &messages()).unwrap();
        let Received::Event(Event::Incoming { conn: incoming, .. }) = Inbox::new(&host).next()
        else {
            panic!()
        };
        host.accept(incoming).unwrap();
        Inbox::new(&client).connected(conn);
        let long = pattern(limit + 1, 3);
        let refused = client.send(channel, &long);
        assert_eq!(refused, Err(ApiError::MessageTooLarge { len: limit + 1, limit }));
        client.send(channel, &long[..limit]).unwrap();
    }
}

/// On a thread of its own, or without.
fn started(config: trunkline::EngineConfig, local: bool) -> QueuedEngine {
    let start = if local { QueuedEngine::local } else { QueuedEngine::start };
    start(config).unwrap()
}

/// Sends as long as messages are taken; how many bytes were.
fn fill(engine: &QueuedEngine, channel: Channel) -> u64 {
    let message = pattern(200_000, 5);
    let mut taken = 0;
    while engine.send(channel, &message).is_ok() {
        taken += message.len() as u64;
    }
    taken
}

#[test]
fn a_shutdown_delivers_what_still_waits_for_room() {
    for local in [false, true] {
        let host = Host::start(trunkline::DriverChoice::Mio, 1);
        let client = started(config(trunkline::DriverChoice::Mio), local);
        let conn = client.connect(&host.connect, None).unwrap();
        let ch = client.open_channel(conn, "x", &messages()).unwrap();
        Inbox::new(&client).connected(conn);
        let taken = fill(&client, ch);
        let report = client.shutdown(Duration::from_secs(10)).unwrap();
        assert!(report.all_delivered(), "{report:?}");
        assert!(report.connections[0].1.acknowledged_bytes >= taken, "{taken}: {report:?}");
    }
}

/// Whatever was taken and never acknowledged is in the report, also what never left the queue.
#[test]
fn what_does_not_arrive_is_counted_to_the_last_byte() {
    let all = |report: &trunkline::CloseReport, taken: u64| {
        assert!(
            report.acknowledged_bytes + report.undelivered_bytes >= taken,
            "{taken}: {report:?}"
        );
        assert!(report.undelivered_channels > 0, "{report:?}");
    };
    for by_close in [false, true] {
        let u = unread();
        let taken = fill(&u.client, u.channel);
        if by_close {
            u.client.close(u.at_client, 1000, "", None).unwrap();
            let mut inbox = Inbox::new(&u.client);
            loop {
                if let Received::Event(Event::Dead { report, .. }) = inbox.next() {
                    break all(&report, taken);
                }
            }
        } else {
            let report = u.client.shutdown(Duration::ZERO).unwrap();
            assert!(!report.all_delivered(), "{report:?}");
            all(&report.connections[0].1, taken);
        }
    }
}

#[test]
fn a_refused_connection_and_a_declined_channel_say_why() {
    let identity = identity();
    let host = QueuedEngine::start(config(trunkline::DriverChoice::Mio)).unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = QueuedEngine::start(config(trunkline::DriverChoice::Mio)).unwrap();
    let connect = connect(addr, &identity);
    let conn = client.connect(&connect, None).unwrap();
    let mut at_host = Inbox::new(&host);
    let mut at_client = Inbox::new(&client);
    let Received::Event(Event::Incoming { conn: incoming, .. }) = at_host.next() else { panic!() };
    let waiting = HandshakeState::WaitingForAuthenticationRequest;
    assert_eq!(host.info(incoming).unwrap().handshake, waiting);
    assert_eq!(
        client.info(conn).unwrap().handshake,
        HandshakeState::WaitingForAuthenticationResponse
    );
    host.reject(incoming, 1042, "not you").unwrap();
    assert_eq!(host.reject(incoming, 1042, "not you"), Err(ApiError::InvalidHandle));
    match at_client.next() {
        Received::Event(Event::Status { conn: c, new, reason: Some(reason), .. }) => {
            assert_eq!(c, conn);
            assert!(!new.is_open_to_application() || new != Status::Connected);
            assert_eq!((reason.reason, &*reason.text), (Reason(1042), "not you"));
        }
        other => panic!("{other:?}"),
    }
    let denied = HandshakeState::ConnectionFailed(HandshakeFailure::Authentication);
    assert_eq!(client.info(conn).unwrap().handshake, denied);
    // A new connect is not held back by the one that failed.
    let again = client.connect(&connect, None).unwrap();
    assert_ne!(again, conn);
    let incoming = loop {
        if let Received::Event(Event::Incoming { conn, .. }) = at_host.next() {
            break conn;
        }
    };
    host.accept(incoming).unwrap();
    let ch = client.open_channel(again, "secret", &messages()).unwrap();
    loop {
        if let Received::Event(Event::ChannelRequest { channel, name, .. }) = at_host.next() {
            assert_eq!(name, "secret");
            host.decline_channel(channel, 7, "no").unwrap();
            break;
        }
    }
    loop {
        if let Received::Event(Event::ChannelClosed { channel, end }) = at_client.next() {
            assert_eq!(channel, ch);
            assert_eq!(end, ChannelEnd::Declined { code: 7, text: "no".into() });
            break;
        }
    }
}

/// A path between a client and a host that can be cut.
struct Cut {
    addr: std::net::SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Cut {
    fn new(host: std::net::SocketAddr) -> Self {
        let socket = std::net::UdpSocket::bind(loopback()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (addr, cut) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let flag = cut.clone();
        std::thread::spawn(move || {
            let (mut client, mut buf) = (None, vec![0; 65_536]);
            while !flag.load(Ordering::Acquire) {
                let Ok((len, from)) = socket.recv_from(&mut buf) else { continue };
                if from != host {
                    client = Some(from);
                }
                let to = if from == host { client } else { Some(host) };
                let _ = to.map(|to| socket.send_to(&buf[..len], to));
            }
        });
        Self { addr, cut }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.cut.store(true, Ordering::Release);
    }
}

/// A connection whose client has received messages that its application has not looked at.
struct Unread {
    path: Cut,
    host: QueuedEngine,
    client: QueuedEngine,
    at_host: Conn,
    at_client: Conn,
    channel: Channel,
}

fn unread() -> Unread {
    let identity = identity();
    let mut quick = config(trunkline::DriverChoice::Mio);
    quick.connection.connected_timeout = trunkline::Duration::from_millis(700);
    quick.connection.keep_alive = trunkline::Duration::from_millis(200);
    let host = QueuedEngine::start(quick.clone()).unwrap();
    // The path that can be cut carries datagrams only.
    let listening =
        trunkline::ListenConfig { links: trunkline::Links::DATAGRAM, ..listen(&identity) };
    let path = Cut::new(host.listen(&listening).unwrap().local_addr);
    let client = QueuedEngine::start(quick).unwrap();
    let through = trunkline::ConnectConfig {
        link: trunkline::ConnectLink::Datagram,
        ..connect(path.addr, &identity)
    };
    let conn = client.connect(&through, None).unwrap();
    let mut inbox = Inbox::new(&host);
    let Received::Event(Event::Incoming { conn: at_host, .. }) = inbox.next() else { panic!() };
    host.accept(at_host).unwrap();
    let mut inbox = Inbox::new(&client);
    inbox.connected(conn);
    let news = host.open_channel(at_host, "news", &messages()).unwrap();
    let channel = loop {
        if let Received::Event(Event::ChannelRequest { channel, .. }) = inbox.next() {
            client.accept_channel(channel, &ChannelOptions::default()).unwrap();
            break channel;
        }
    };
    for n in 0..100u32 {
        host.send(news, &n.to_be_bytes()).unwrap();
    }
    wait_until("all is acknowledged", || {
        let stats = host.stats(at_host).unwrap();
        stats.unacked_bytes == 0 && stats.channels == 1
    });
    assert!(inbox.waiting.is_empty());
    Unread { path, host, client, at_host, at_client: conn, channel }
}

/// Reads everything: the messages, all of them and in order, and then how it ended. Sends fail, and
/// the handle must be closed, once.
fn read_after_the_end(client: &QueuedEngine, conn: Conn, channel: Channel, expected: Status) {
    assert_eq!(client.status(conn), expected);
    let mut inbox = Inbox::new(client);
    let mut next = 0u32;
    loop {
        match inbox.next() {
            Received::Message(m) => {
                assert_eq!(&*m.data, next.to_be_bytes());
                next += 1;
            }
            Received::Event(Event::Status { conn: c, new, .. }) if c == conn => {
                assert_eq!((new, next), (expected, 100));
                break;
            }
            Received::Event(_) => {}
        }
    }
    let late = client.send(channel, b"late");
    assert!(late.is_err(), "{late:?}");
    let late = client.open_channel(conn, "late", &messages());
    assert!(matches!(late, Err(ApiError::NoConnection(_))), "{late:?}");
    client.close(conn, 1000, "", None).unwrap();
    assert_eq!(client.close(conn, 1000, "", None), Err(ApiError::InvalidHandle));
}

#[test]
fn closed_by_peer_what_was_received_can_still_be_read() {
    let u = unread();
    u.host.close(u.at_host, 1000, "", Some(Duration::from_secs(5))).unwrap();
    wait_until("it is closed", || u.client.status(u.at_client) != Status::Connected);
    read_after_the_end(&u.client, u.at_client, u.channel, Status::ClosedByPeer);
}

#[test]
fn problem_detected_locally_what_was_received_can_still_be_read() {
    let u = unread();
    drop(u.path);
    wait_until("it is noticed", || u.client.status(u.at_client) != Status::Connected);
    read_after_the_end(&u.client, u.at_client, u.channel, Status::ProblemDetectedLocally);
}

#[test]
fn channels_are_listed_and_tell_what_they_are() {
    let driver = drivers()[0];
    let host = Host::start(driver, 1);
    let client = QueuedEngine::start(config(driver)).unwrap();
    let conn = client.connect(&host.connect, None).unwrap();
    let options = ChannelOptions { priority: 2, weight: 77, ..messages() };
    let one = client.open_channel(conn, "one", &options).unwrap();
    let two = client.open_channel(conn, "two", &ChannelOptions::default()).unwrap();
    client.send(one, &[1; 1000]).unwrap();
    wait_until("the message is back", || {
        client.channel_info(one).unwrap().received_bytes >= 1000
            && client.channel_info(one).unwrap().unacked_bytes == 0
    });
    let mut listed = client.channels(conn).unwrap();
    listed.sort_by_key(|channel| channel.key().slot);
    assert_eq!(listed, [one, two]);
    let info = client.channel_info(one).unwrap();
    assert_eq!((&*info.name, info.kind, info.ours), ("one", ChannelKind::Messages, true));
    assert_eq!((info.priority, info.weight, info.phase), (2, 77, trunkline::ChannelPhase::Open));
    let stats = client.stats(conn).unwrap();
    assert_eq!((stats.unsent_bytes, stats.unacked_bytes), (0, 0));
    assert_eq!(stats.rtt_var.as_nanos() > 0, link() == ConnectLink::Datagram);
    client.finish(two).unwrap();
    wait_until("the second is gone", || client.channels(conn).unwrap() == [one]);
    assert!(client.channel_info(two).is_err());
}

#[test]
fn faults_come_and_go_while_the_engine_runs() {
    let driver = drivers()[0];
    let host = Host::start(driver, 1);
    let faults = trunkline::FaultConfig::default();
    let client = QueuedEngine::start(trunkline::EngineConfig {
        fault: Some(faults.clone()),
        ..config(driver)
    });
    let client = client.unwrap();
    let conn = client.connect(&host.connect, None).unwrap();
    let ch = client.open_channel(conn, "x", &messages()).unwrap();
    let mut inbox = Inbox::new(&client);
    inbox.connected(conn);
    let lossy = trunkline::Faults { loss: 1.0, ..trunkline::Faults::NONE };
    let elsewhere = vec!["192.0.2.1:0".parse().unwrap()];
    let set = |outbound, only| {
        client.set_faults(&trunkline::FaultConfig { outbound, only, ..faults.clone() }).unwrap();
    };
    let answered = |what: &str, limit: Duration| {
        client.send(ch, what.as_bytes()).unwrap();
        let start = Instant::now();
        let mut out = Vec::new();
        while start.elapsed() < limit {
            client.poll_group().recv_many(&mut out, 10, Some(Duration::from_millis(5)));
            if out.iter().any(|r| matches!(r, Received::Message(m) if *m.data == *what.as_bytes()))
            {
                return true;
            }
        }
        false
    };
    set(lossy, elsewhere);
    assert!(answered("other addresses lose", Duration::from_secs(5)));
    set(lossy, Vec::new());
    std::thread::sleep(Duration::from_millis(100));
    // Of streams the network itself loses nothing.
    let unharmed = link() == ConnectLink::Stream;
    assert_eq!(answered("all lose", Duration::from_millis(300)), unharmed);
    set(trunkline::Faults::NONE, Vec::new());
    assert!(answered("none lose", Duration::from_secs(8)));
    let plain = QueuedEngine::start(config(driver)).unwrap();
    assert!(plain.set_faults(&faults).is_err());
}

#[test]
fn a_channel_that_is_blocked_before_it_begins_is_told_of_room() {
    let config = config(trunkline::DriverChoice::Mio);
    let pair = common::queued::Pair::new(&config, false, ChannelKind::Messages);
    let client = &pair.client;
    // More than a turn takes; the channel is opened by the last command.
    for _ in 1..config.mailbox {
        client.flush(pair.channel).unwrap();
    }
    let conn = pair.channel.conn();
    let channel = client.open_channel(conn, "late", &ChannelOptions::default()).unwrap();
    let sent = client.send(channel, b"x");
    assert!(matches!(sent, Err(ApiError::WouldBlock(_))), "{sent:?}");
    let mut out = Vec::new();
    let writable = |r: &Received| matches!(r, Received::Event(Event::Writable { channel: told }) if *told == channel);
    for _ in 0..100 {
        pair.poll();
        client.poll_group().recv_many(&mut out, 100, Some(Duration::ZERO));
    }
    assert_eq!(out.iter().filter(|r| writable(r)).count(), 1);
    client.send(channel, b"x").unwrap();
}
