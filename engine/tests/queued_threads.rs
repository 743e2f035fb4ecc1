//! Many threads of the application at one queued engine, over real sockets. It checks that every
//! message arrives once and in order; run with the thread sanitizer (see CONTRIBUTING.md) it also
//! shows that no two threads touch the same memory unordered.

mod common;

use common::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, Conn, ConnectConfig, DriverChoice, Event,
    Message, Payload, PollGroup, QueuedEngine, Received, Reuse, Status,
};

const SENDERS: usize = 4;
const RECEIVERS: usize = 3;
/// Messages of each sender.
const EACH: u32 = 3000;
/// Channels and connections that come and go meanwhile.
const CHANNELS: u32 = 200;
const CONNECTIONS: u32 = 10;
/// Every so many messages are sent back.
const ECHO: u32 = 8;
const LIMIT: Duration = Duration::from_secs(100);

fn messages() -> ChannelOptions {
    ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() }
}

/// Lies in the queue itself, is copied, is kept where it was received, in turn.
fn size(number: u32) -> usize {
    [4, 60, 102, 103, 2000, 9000, 20_000][number as usize % 7]
}

fn message(number: u32) -> Vec<u8> {
    let mut bytes = vec![number as u8; size(number)];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number of a message that is as it was sent.
fn number(m: &Message) -> u32 {
    let number = u32::from_be_bytes(m.data[..4].try_into().unwrap());
    assert_eq!(m.data.len(), size(number));
    assert!(m.data[4..].iter().all(|byte| *byte == number as u8));
    number
}

/// What all threads of the test have.
struct Shared {
    host: QueuedEngine,
    client: QueuedEngine,
    connect: ConnectConfig,
    /// Of the host, one for each of its receivers.
    groups: Vec<PollGroup>,
    /// Channels of which everything has arrived.
    complete: AtomicU32,
    echoes: AtomicU32,
    writable: AtomicU64,
    stop: AtomicBool,
    start: Instant,
}

impl Shared {
    fn new() -> Arc<Self> {
        let identity = identity();
        let mut config = config(DriverChoice::Mio);
        (config.shards, config.queue_channel_bytes) = (2, 64 << 10);
        let host = QueuedEngine::start(config.clone()).unwrap();
        let listener = host.listen(&listen(&identity)).unwrap();
        let mut connect = connect(listener.local_addr, &identity);
        connect.reuse = Reuse::ForceNew;
        Arc::new(Self {
            groups: (0..RECEIVERS).map(|_| host.new_poll_group().unwrap()).collect(),
            host,
            client: QueuedEngine::start(config).unwrap(),
            connect,
            complete: AtomicU32::new(0),
            echoes: AtomicU32::new(0),
            writable: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            start: Instant::now(),
        })
    }

    /// A thread that does this again and again until the end.
    fn again(self: &Arc<Self>, mut step: impl FnMut(&Self) + Send + 'static) -> JoinHandle<()> {
        let shared = self.clone();
        spawn(move || {
            while !shared.stop.load(Ordering::Acquire) {
                assert!(shared.start.elapsed() < LIMIT, "stuck");
                step(&shared);
            }
        })
    }

    /// Tries until there is room.
    fn until_sent(&self, mut send: impl FnMut() -> Result<(), ApiError>) {
        while let Err(error) = send() {
            assert!(matches!(error, ApiError::WouldBlock(_)), "{error}");
            assert!(self.start.elapsed() < LIMIT, "no room");
            std::thread::yield_now();
        }
    }

    /// One of the host's receivers: `next` has the number that each channel is to bring next.
    fn host_step(&self, next: &mut HashMap<Channel, u32>, received: Received) {
        match received {
            Received::Event(Event::ChannelRequest { channel, .. }) => {
                let _ = self.host.accept_channel(channel, &messages());
            }
            Received::Message(m) => {
                let expected = next.entry(m.channel).or_default();
                assert_eq!(number(&m), *expected, "in order");
                *expected += 1;
                if (*expected).is_multiple_of(ECHO) {
                    let data = Payload::from(m.data.clone());
                    self.until_sent(|| self.host.send_payload(m.channel, data.clone(), None));
                }
            }
            Received::Event(Event::Eof { channel }) => {
                if next.remove(&channel) == Some(EACH) {
                    self.complete.fetch_add(1, Ordering::AcqRel);
                }
                let _ = self.host.finish(channel);
            }
            Received::Event(Event::Status { conn, new: Status::ClosedByPeer, .. }) => {
                let _ = self.host.close(conn, 1000, "", None);
            }
            Received::Event(_) => {}
        }
    }

    /// One sender, in every way there is to send.
    fn send_all(&self, conn: Conn) {
        let client = &self.client;
        let channel = client.open_channel(conn, "numbers", &messages()).unwrap();
        let mut number = 0;
        while number < EACH {
            let data = message(number);
            match number % 5 {
                0 => {
                    let next = message(number + 1);
                    let both = [(channel, &data[..]), (channel, &next[..])];
                    let both = &both[..both.len().min((EACH - number) as usize)];
                    let (sent, result) = client.send_many(both);
                    assert!(matches!(result, Ok(()) | Err(ApiError::WouldBlock(_))), "{result:?}");
                    number += sent as u32;
                    continue;
                }
                1 => {
                    let payload = client.send_buf(data.len()).map(|mut buf| {
                        buf[..data.len()].copy_from_slice(&data);
                        buf.freeze(data.len())
                    });
                    let payload = payload.unwrap_or_else(|| data.into());
                    self.until_sent(|| client.send_payload(channel, payload.clone(), None));
                }
                2 => {
                    let token = u64::from(number);
                    self.until_sent(|| client.send_with_receipt(channel, &data, token));
                }
                _ => self.until_sent(|| client.send(channel, &data)),
            }
            number += 1;
        }
        self.until_sent(|| client.finish(channel));
    }

    /// Channels that begin and end, and connections.
    fn come_and_go(&self) {
        let client = &self.client;
        let conn = client.connect(&self.connect, None).unwrap();
        for i in 0..CHANNELS {
            let mut channel = None;
            self.until_sent(|| {
                client.open_channel(conn, "short", &messages()).map(|c| channel = Some(c))
            });
            let channel = channel.unwrap();
            client.set_channel_user_data(channel, u64::from(i)).unwrap();
            self.until_sent(|| client.send(channel, &message(0)));
            self.until_sent(|| {
                if i % 4 == 0 { client.reset(channel, 7) } else { client.finish(channel) }
            });
            // The other half ends when the host has seen it.
            if i % 16 == 15 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        for i in 0..CONNECTIONS {
            let conn = client.connect(&self.connect, None).unwrap();
            let channel = client.open_channel(conn, "shorter", &messages()).unwrap();
            let _ = client.send(channel, &message(0));
            let linger = (i % 2 == 0).then_some(Duration::from_secs(1));
            self.until_sent(|| client.close(conn, 1000, "", linger));
            assert_eq!(client.status(conn), Status::None);
        }
    }

    /// One of the client's receivers, which share a group.
    fn client_step(&self, received: Received) {
        match received {
            Received::Message(m) => {
                assert_eq!((number(&m) + 1) % ECHO, 0);
                self.echoes.fetch_add(1, Ordering::AcqRel);
            }
            Received::Event(Event::Writable { .. }) => {
                self.writable.fetch_add(1, Ordering::Relaxed);
            }
            Received::Event(Event::Status { conn, new: Status::ClosedByPeer, .. }) => {
                let _ = self.client.close(conn, 1000, "", None);
            }
            Received::Event(_) => {}
        }
    }

    fn ask(&self, conn: Conn) {
        for engine in [&self.host, &self.client] {
            assert_eq!(engine.engine_stats().shards.len(), 2);
            engine.poll_group().waiting_bytes();
        }
        let _ = self.client.stats(conn);
        let _ = self.client.info(conn);
        let _ = self.client.set_user_data(conn, 5);
        let _ = self.client.user_data(conn);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn receive(group: &PollGroup, most: usize) -> Vec<Received> {
    let mut out = Vec::new();
    group.recv_many(&mut out, most, Some(Duration::from_millis(20)));
    out
}

#[test]
fn many_threads_send_receive_open_and_close() {
    let shared = Shared::new();
    let mut threads = Vec::new();
    // The host's connections, each to the group of one receiver.
    let mut next = 0;
    threads.push(shared.again(move |shared| {
        for received in receive(shared.host.poll_group(), 16) {
            if let Received::Event(Event::Incoming { conn, .. }) = received {
                let _ = shared.host.assign(conn, &shared.groups[next % RECEIVERS]);
                let _ = shared.host.accept(conn);
                next += 1;
            }
        }
    }));
    for i in 0..RECEIVERS {
        let mut next = HashMap::new();
        threads.push(shared.again(move |shared| {
            for received in receive(&shared.groups[i], 50) {
                shared.host_step(&mut next, received);
            }
        }));
    }
    for _ in 0..2 {
        threads.push(shared.again(|shared| {
            for received in receive(shared.client.poll_group(), 5) {
                shared.client_step(received);
            }
        }));
    }
    let connections: Vec<Conn> =
        (0..SENDERS).map(|_| shared.client.connect(&shared.connect, None).unwrap()).collect();
    let first = connections[0];
    threads.push(shared.again(move |shared| shared.ask(first)));
    let mut senders: Vec<_> = connections
        .into_iter()
        .map(|conn| {
            let shared = shared.clone();
            spawn(move || shared.send_all(conn))
        })
        .collect();
    senders.push({
        let shared = shared.clone();
        spawn(move || shared.come_and_go())
    });
    for sender in senders {
        sender.join().unwrap();
    }
    let echoes = SENDERS as u32 * (EACH / ECHO);
    while shared.complete.load(Ordering::Acquire) < SENDERS as u32
        || shared.echoes.load(Ordering::Acquire) < echoes
    {
        assert!(shared.start.elapsed() < LIMIT, "not everything arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    shared.stop.store(true, Ordering::Release);
    for group in &shared.groups {
        group.wake();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(shared.echoes.load(Ordering::Acquire), echoes);
    println!("{} writable events", shared.writable.load(Ordering::Relaxed));
    let report = shared.client.shutdown(Duration::from_secs(1)).unwrap();
    assert!(report.failures.is_empty() && report.unanswered.is_empty(), "{report:?}");
}

/// Writable events of one channel, for whoever waits for the next one.
#[derive(Default)]
struct Room {
    told: Mutex<u64>,
    more: Condvar,
}

impl Room {
    fn told(&self) -> u64 {
        *self.told.lock().unwrap()
    }

    fn tell(&self) {
        *self.told.lock().unwrap() += 1;
        self.more.notify_all();
    }

    /// Sends when there is room, and does nothing until it is told of some.
    fn send(&self, mut send: impl FnMut() -> Result<(), ApiError>) {
        loop {
            let before = self.told();
            match send() {
                Ok(()) => return,
                Err(ApiError::WouldBlock(_)) => {}
                Err(error) => panic!("{error}"),
            }
            let told = self.told.lock().unwrap();
            let wait = Duration::from_secs(20);
            let waited = self.more.wait_timeout_while(told, wait, |told| *told == before).unwrap();
            assert!(!waited.1.timed_out(), "blocked, and never told of room");
        }
    }
}

/// Several threads on one channel, which is full most of the time: each that is refused hears of
/// room.
#[test]
fn threads_that_send_on_one_channel_are_all_told_of_room() {
    let mut config = config(DriverChoice::Mio);
    (config.queue_channel_bytes, config.mailbox) = (16 << 10, 16);
    let pair = Arc::new(common::queued::Pair::new(&config, true, ChannelKind::Messages));
    let room = Arc::new(Room::default());
    let senders: Vec<_> = (0..SENDERS)
        .map(|i| {
            let (pair, room) = (pair.clone(), room.clone());
            spawn(move || {
                for number in 0..EACH {
                    let data = vec![i as u8; size(number) / 2];
                    room.send(|| match number % 3 {
                        0 => pair.client.send_many(&[(pair.channel, &data)]).1,
                        _ => pair.client.send(pair.channel, &data),
                    });
                }
            })
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let teller = {
        let (pair, room, stop) = (pair.clone(), room.clone(), stop.clone());
        spawn(move || {
            while !stop.load(Ordering::Acquire) {
                for received in receive(pair.client.poll_group(), 50) {
                    if matches!(received, Received::Event(Event::Writable { .. })) {
                        room.tell();
                    }
                }
            }
        })
    };
    let mut left = SENDERS as u32 * EACH;
    let start = Instant::now();
    while left > 0 {
        let received = receive(pair.host.poll_group(), 50);
        left -= received.iter().filter(|r| matches!(r, Received::Message(_))).count() as u32;
        assert!(start.elapsed() < LIMIT, "{left} messages do not arrive");
    }
    for sender in senders {
        sender.join().unwrap();
    }
    stop.store(true, Ordering::Release);
    teller.join().unwrap();
    println!("told {} times", room.told());
}
