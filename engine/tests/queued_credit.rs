//! The queued API returns the credit of what was received: whatever the windows are, the peer goes
//! on once everything was taken, and what ended channels held is free again.

mod common;

use common::*;
use std::time::{Duration, Instant};
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, ConnectionConfig, DriverChoice, Event,
    QueuedEngine, Received, Status,
};

/// A client and a host that are driven in turn, without threads.
struct Pair {
    host: QueuedEngine,
    client: QueuedEngine,
    conn: trunkline::Conn,
    /// Bytes of payload that the host has received.
    received: usize,
    /// What the host has received and not dropped, while it is set.
    held: Option<Vec<Received>>,
    /// Channels that ended at the client.
    ended: usize,
    /// EOFs that the host has seen.
    eofs: usize,
    /// The host ends its own direction after the client's.
    answers: bool,
}

impl Pair {
    fn new(driver: DriverChoice, connection: ConnectionConfig) -> Self {
        let identity = identity();
        let mut config = config(driver);
        config.connection = connection;
        let host = QueuedEngine::local(config.clone()).unwrap();
        let addr = host.listen(&listen(&identity)).unwrap().local_addr;
        let client = QueuedEngine::local(config).unwrap();
        let conn = client.connect(&connect(addr, &identity), None).unwrap();
        let mut pair =
            Self { host, client, conn, received: 0, held: None, ended: 0, eofs: 0, answers: true };
        pair.until("the connection stands", |p| p.client.status(conn) == Status::Connected);
        pair
    }

    fn open(&self, kind: ChannelKind) -> Channel {
        let options = ChannelOptions { kind, ..ChannelOptions::default() };
        self.client.open_channel(self.conn, "x", &options).unwrap()
    }

    /// Sends, as soon as there is room.
    fn send(&mut self, channel: Channel, data: &[u8]) {
        while let Err(error) = self.client.send(channel, data) {
            assert!(matches!(error, ApiError::WouldBlock(_)), "{error}");
            self.step();
        }
    }

    fn step(&mut self) {
        let mut out = Vec::new();
        self.client.poll(Some(Duration::from_millis(1))).unwrap();
        self.client.poll_group().recv_many(&mut out, 1000, Some(Duration::ZERO));
        for received in out.drain(..) {
            self.ended +=
                usize::from(matches!(received, Received::Event(Event::ChannelClosed { .. })));
        }
        self.host.poll(Some(Duration::from_millis(1))).unwrap();
        self.host.poll_group().recv_many(&mut out, 1000, Some(Duration::ZERO));
        for received in out {
            match &received {
                Received::Event(Event::Incoming { conn, .. }) => self.host.accept(*conn).unwrap(),
                Received::Event(Event::ChannelRequest { channel, .. }) => {
                    let options = ChannelOptions::default();
                    self.host.accept_channel(*channel, &options).unwrap();
                }
                Received::Event(Event::Data { data, .. }) => self.received += data.len(),
                Received::Message(m) => self.received += m.data.len(),
                Received::Event(Event::Eof { channel }) => {
                    self.eofs += 1;
                    if self.answers {
                        let _ = self.host.finish(*channel);
                    }
                }
                Received::Event(_) => {}
            }
            if let Some(held) = &mut self.held {
                held.push(received);
            }
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{what}: {} bytes, {} EOFs, {} ended",
                self.received,
                self.eofs,
                self.ended
            );
            self.step();
        }
    }
}

/// Windows that most messages of the tests do not fit into twice.
fn small_windows() -> ConnectionConfig {
    ConnectionConfig {
        channel_window: 64 << 10,
        channel_window_max: 64 << 10,
        max_message: 1 << 20,
        ..ConnectionConfig::default()
    }
}

/// A budget that a hundred channels exhaust if nothing of it comes back.
fn small_budget() -> ConnectionConfig {
    ConnectionConfig {
        channel_window: 64 << 10,
        receive_budget: 4 << 20,
        max_channels: 1000,
        ..ConnectionConfig::default()
    }
}

/// Channels that share a budget have windows far below the one that the configuration names.
#[test]
fn windows_smaller_than_configured() {
    for driver in drivers() {
        let connection = ConnectionConfig {
            receive_budget: 2 << 20,
            max_channels: 200,
            ..ConnectionConfig::default()
        };
        let mut pair = Pair::new(driver, connection);
        let channels: Vec<_> = (0..100).map(|_| pair.open(ChannelKind::Bytes)).collect();
        for channel in &channels {
            pair.send(*channel, &pattern(300_000, 1));
        }
        pair.until("all arrives", |p| p.received == 30_000_000);
    }
}

/// A message that has to wait for credit of a short one before it.
#[test]
fn long_messages_behind_short_ones() {
    for driver in drivers() {
        let mut pair = Pair::new(driver, small_windows());
        let channel = pair.open(ChannelKind::Messages);
        let mut total = 0;
        for len in [100, 65_000, 100, 60_000, 10_000, 1 << 20, 1, 1 << 20, 65_000, 1 << 19] {
            pair.send(channel, &pattern(len, 1));
            total += len;
            pair.until("a message arrives", |p| p.received == total);
        }
    }
}

/// A long message whose predecessors the application holds for a while.
#[test]
fn long_messages_behind_held_ones() {
    for driver in drivers() {
        let mut pair = Pair::new(driver, small_windows());
        let channel = pair.open(ChannelKind::Messages);
        pair.held = Some(Vec::new());
        for len in [5_000, 6_000, 1 << 20] {
            pair.send(channel, &pattern(len, 1));
        }
        pair.until("the short ones arrive", |p| p.received == 11_000);
        for _ in 0..50 {
            pair.step();
        }
        pair.held = None;
        pair.until("the long one arrives", |p| p.received == 11_000 + (1 << 20));
    }
}

/// Unreliable messages have no credit; the bound on what waits must count what was taken.
#[test]
fn unreliable_messages_go_on() {
    for driver in drivers() {
        let connection =
            ConnectionConfig { datagram_reassembly: 64 << 10, ..ConnectionConfig::default() };
        let mut pair = Pair::new(driver, connection);
        let channel = pair.open(ChannelKind::Datagrams);
        let start = Instant::now();
        let mut sent = 0;
        // A few are lost on the way to the acceptance and in a busy kernel.
        while pair.received < 5_000_000 {
            assert!(start.elapsed() < Duration::from_secs(20), "{} of {sent}", pair.received);
            sent += 10_000;
            let _ = pair.client.send(channel, &pattern(10_000, 1));
            pair.step();
        }
    }
}

/// A connection outlives any number of channels: what they held counts only until it is taken.
#[test]
fn ended_channels_leave_no_debt() {
    for driver in drivers() {
        for hold in [false, true] {
            let mut pair = Pair::new(driver, small_budget());
            for round in 1..=20 {
                pair.held = hold.then(Vec::new);
                for _ in 0..10 {
                    let channel = pair.open(ChannelKind::Bytes);
                    pair.send(channel, &pattern(50_000, 1));
                    pair.client.finish(channel).unwrap();
                }
                pair.until("the channels end", |p| p.ended == 10 * round);
                assert_eq!(pair.eofs, 10 * round, "none was declined");
            }
            pair.held = None;
            assert_eq!(pair.received, 200 * 50_000);
        }
    }
}

/// Of a channel that is only open in our own direction nothing waits to be credited.
#[test]
fn half_open_channels_leave_no_debt() {
    for driver in drivers() {
        let mut pair = Pair::new(driver, small_budget());
        pair.answers = false;
        for n in 1..=300 {
            let channel = pair.open(ChannelKind::Bytes);
            pair.send(channel, &pattern(50_000, 1));
            pair.client.finish(channel).unwrap();
            pair.until("it arrives", |p| p.received == 50_000 * n && p.eofs == n);
        }
    }
}
