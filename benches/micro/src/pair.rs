//! A client and a host, joined in memory: everything that the protocol does, no system call.

use crate::keys::identity;
use std::net::SocketAddr;
use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::endpoint::{
    ClientConfig, Ecn, Endpoint, EndpointConfig, EndpointKeys, ListenerConfig, RetryPolicy, RxMeta,
    SendOptions,
};
use trunkline_proto::error::ApiError;
use trunkline_proto::event::{ChannelEnd, ChannelRequest, Incoming, Sink};
use trunkline_proto::handshake::{ClientAuth, ClientTls, HostTls, Trust};
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// Bytes of the buffer that a train is written into.
const TRAIN: usize = 65_000;
/// Packets of a train.
const SEGMENTS: usize = 44;
/// Time that passes between two turns.
const TURN: Duration = Duration::from_micros(50);

/// What happened at one side.
#[derive(Debug, Default)]
pub struct Log {
    /// Messages that came.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Channels that ended.
    pub closed: u64,
    incoming: Vec<ConnHandle>,
    requests: Vec<ChannelKey>,
    ends: Vec<ChannelKey>,
}

impl Sink for Log {
    fn incoming(&mut self, conn: ConnHandle, _: &Incoming<'_>) {
        self.incoming.push(conn);
    }
    fn channel_request(&mut self, _: ConnHandle, key: ChannelKey, _: &ChannelRequest<'_>) {
        self.requests.push(key);
    }
    fn message(&mut self, _: ConnHandle, _: ChannelKey, _: ChannelKind, message: &[u8]) {
        self.messages += 1;
        self.bytes += message.len() as u64;
    }
    fn data(&mut self, _: ConnHandle, _: ChannelKey, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
    }
    fn eof(&mut self, _: ConnHandle, channel: ChannelKey) {
        self.ends.push(channel);
    }
    fn channel_closed(&mut self, _: ConnHandle, _: ChannelKey, _: &ChannelEnd) {
        self.closed += 1;
    }
}

/// One side.
#[derive(Debug)]
pub struct Side {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// What happened.
    pub log: Log,
    addr: SocketAddr,
    conn: Option<ConnHandle>,
}

impl Side {
    fn new(endpoint: Endpoint, addr: &str) -> Self {
        let addr = addr.parse().expect("an address");
        Self { endpoint, log: Log::default(), addr, conn: None }
    }

    /// Its name of the connection.
    ///
    /// # Panics
    /// Before there is one.
    pub fn conn(&self) -> ConnHandle {
        self.conn.expect("a connection")
    }

    /// Takes one train, as a shard does.
    fn receive(&mut self, now: Instant, from: SocketAddr, train: &mut [u8], segment: usize) {
        let meta = RxMeta { socket: 0, remote: from, local: None, ecn: Ecn::Ect0 };
        for packet in train.chunks_mut(segment) {
            self.endpoint.receive(now, &meta, packet, &mut self.log);
        }
    }

    fn end_turn(&mut self, now: Instant) {
        self.endpoint.end_batch(now, &mut self.log);
        if self.endpoint.next_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now, &mut self.log);
        }
    }
}

/// A connected pair.
#[derive(Debug)]
pub struct Pair {
    /// The side that connected.
    pub client: Side,
    /// The side that listens.
    pub host: Side,
    now: Instant,
    train: Vec<u8>,
}

fn endpoint(now: Instant, seed: u8, connection: &ConnectionConfig) -> Endpoint {
    let keys = EndpointKeys { id: [seed; 16], reset: [seed; 32], retry: [seed; 32] };
    let config = EndpointConfig {
        shard: 0,
        server: 0,
        seed: [seed; 32],
        keys,
        connection: connection.clone(),
        max_connections: 16,
        max_handshakes: 16,
        retry: RetryPolicy::Never,
        observer: None,
    };
    Endpoint::new(now, config).expect("an endpoint")
}

impl Pair {
    /// Connects a client to a host with packets of 1452 bytes.
    ///
    /// # Panics
    /// When that fails.
    pub fn new() -> Self {
        let connection = ConnectionConfig { max_packet: 1_452, ..ConnectionConfig::default() };
        let now = Instant::from_nanos(1_000_000_000);
        let mut host = endpoint(now, 2, &connection);
        let tls = HostTls::new(identity(), &ClientAuth::None, None).expect("TLS settings");
        host.listen(0, ListenerConfig { tls, connection: None }).expect("a listener");
        let mut pair = Self {
            client: Side::new(endpoint(now, 1, &connection), "192.0.2.1:1000"),
            host: Side::new(host, "192.0.2.2:2000"),
            now,
            train: vec![0; TRAIN],
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        let config = ClientConfig {
            tls: ClientTls::new(None, &Trust::DangerousAny, None).expect("TLS settings"),
            server_name: "host.test".into(),
            credential: Vec::new(),
            connection: None,
        };
        let to = [self.host.addr];
        let client = &mut self.client;
        client.conn = Some(client.endpoint.connect(self.now, 0, &to, &config).expect("connect"));
        for _ in 0..20_000 {
            self.turn();
            if let Some(conn) = self.host.log.incoming.pop() {
                self.host.endpoint.accept(self.now, conn).expect("accept");
                self.host.conn = Some(conn);
            }
        }
        assert_eq!(self.client.endpoint.status(self.client.conn()), Status::Connected);
    }

    /// Both sides send what they may, receive it, and run their timers once. Gives the packets.
    pub fn turn(&mut self) -> u64 {
        self.now += TURN;
        let now = self.now;
        let mut packets = hand_over(now, &mut self.client, &mut self.host, &mut self.train);
        self.host.end_turn(now);
        packets += hand_over(now, &mut self.host, &mut self.client, &mut self.train);
        self.client.end_turn(now);
        packets
    }

    /// Opens channels at the client and accepts them at the host.
    ///
    /// # Panics
    /// When that fails.
    pub fn open(&mut self, kind: ChannelKind, count: usize) -> Vec<ChannelKey> {
        let options = ChannelOptions { kind, ..ChannelOptions::default() };
        let client = &mut self.client;
        let conn = client.conn();
        let keys = (0..count)
            .map(|_| client.endpoint.open_channel(self.now, conn, "x", &options).expect("open"))
            .collect();
        let mut accepted = 0;
        for _ in 0..10_000 {
            self.turn();
            let conn = self.host.conn();
            for key in std::mem::take(&mut self.host.log.requests) {
                self.host.endpoint.accept_channel(self.now, conn, key, &options).expect("accept");
                accepted += 1;
            }
            if accepted == count {
                break;
            }
        }
        assert_eq!(accepted, count);
        for _ in 0..10 {
            self.turn();
        }
        keys
    }

    /// Sends one message from the client. `false`: there is no room before the next turns.
    ///
    /// # Panics
    /// When the channel takes no messages.
    #[inline]
    pub fn send(&mut self, channel: ChannelKey, message: &[u8]) -> bool {
        let client = &mut self.client;
        let conn = client.conn();
        match client.endpoint.send(self.now, conn, channel, message, SendOptions::default()) {
            Ok(()) => true,
            Err(ApiError::WouldBlock(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends `count` messages over `channels` in turn and waits until the host has them.
    ///
    /// # Panics
    /// When they do not arrive.
    pub fn transfer(&mut self, channels: &[ChannelKey], message: &[u8], count: u64) {
        let before = self.host.log.messages;
        let (mut sent, mut idle) = (0, 0);
        while self.host.log.messages - before < count {
            while sent < count && self.send(channels[sent as usize % channels.len()], message) {
                sent += 1;
            }
            idle = if self.turn() == 0 { idle + 1 } else { 0 };
            assert!(idle < 1_000_000, "the transfer has stalled");
        }
    }

    /// Opens channels, ends them from both sides, and waits until they are gone.
    ///
    /// # Panics
    /// When that fails.
    pub fn open_and_close(&mut self, count: usize) {
        let keys = self.open(ChannelKind::Messages, count);
        let before = (self.client.log.closed, self.host.log.closed);
        let client = &mut self.client;
        for key in keys {
            client.endpoint.finish_channel(self.now, client.conn(), key).expect("finish");
        }
        for _ in 0..10_000 {
            self.turn();
            let host = &mut self.host;
            for key in std::mem::take(&mut host.log.ends) {
                host.endpoint.finish_channel(self.now, host.conn(), key).expect("finish");
            }
            let closed = (self.client.log.closed - before.0).min(self.host.log.closed - before.1);
            if closed == count as u64 {
                return;
            }
        }
        panic!("channels that do not end");
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

fn hand_over(now: Instant, from: &mut Side, to: &mut Side, train: &mut [u8]) -> u64 {
    let mut packets = 0;
    while let Some(t) = from.endpoint.poll_transmit(now, train, SEGMENTS) {
        packets += t.len.div_ceil(t.segment) as u64;
        if t.remote == to.addr {
            to.receive(now, from.addr, &mut train[..t.len], t.segment);
        }
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_transfers() {
        let mut pair = Pair::new();
        for kind in [ChannelKind::Messages, ChannelKind::Bytes] {
            let keys = pair.open(kind, 3);
            assert_eq!(keys.len(), 3);
        }
        let keys = pair.open(ChannelKind::Messages, 2);
        pair.transfer(&keys, &[7; 1_000], 5_000);
        assert_eq!(pair.host.log.messages, 5_000);
        assert_eq!(pair.host.log.bytes, 5_000_000);
    }

    #[test]
    fn channels_open_and_close() {
        let mut pair = Pair::new();
        pair.open_and_close(10);
        pair.open_and_close(10);
        assert_eq!((pair.client.log.closed, pair.host.log.closed), (20, 20));
    }
}
