//! A client and a host joined by a seeded link that loses, delays, reorders, duplicates and
//! damages, with an optional observer on the path.

use crate::crypto::{ResetTokens, RetryTokens, Rng};
use crate::error::CloseReason;
use crate::handshake::test_support::{KeyKind, identity};
use crate::handshake::*;
use crate::ids::ConnectionId;
use crate::limits::{AMPLIFICATION_FACTOR, MIN_PACKET};
use crate::time::{Duration, Instant};
use crate::wire::packet::{LongHeader, LongPacket, LongPrefix, MessageType, is_long};
use crate::wire::params::TransportParams;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How the link treats datagrams; chances in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    pub(super) loss: u64,
    pub(super) duplicate: u64,
    pub(super) corrupt: u64,
    pub(super) delay_min: u64,
    pub(super) delay_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum To {
    Client,
    Host,
}

/// What an observer puts onto the wire when it sees a datagram; its packets arrive first.
pub(super) type Observer = Box<dyn FnMut(To, &[u8]) -> Vec<(To, Vec<u8>)>>;

/// One attempt on the host, as its endpoint would keep it.
pub(super) struct Attempt {
    pub(super) machine: Handshake,
    pub(super) established: Option<Established>,
    pub(super) ended: Option<Receipt>,
    retried: bool,
}

pub(super) struct Setup {
    pub(super) client_tls: ClientTls,
    pub(super) host_tls: HostTls,
    pub(super) server_name: &'static str,
    pub(super) link: Link,
    pub(super) seed: u64,
    /// Retry packets that the host demands before it answers.
    pub(super) retries: u32,
    pub(super) config: HandshakeConfig,
}

impl Setup {
    /// An Ed25519 host pinned by an anonymous client, over a perfect link of 10 ms.
    pub(super) fn new() -> Self {
        let host = identity(KeyKind::Ed25519, "host.test");
        let trust = Trust::Pins(vec![host.peer_id()]);
        Self {
            client_tls: ClientTls::new(None, &trust, None).unwrap(),
            host_tls: HostTls::new(host, &ClientAuth::None, None).unwrap(),
            server_name: "host.test",
            link: Link { delay_min: 10, delay_max: 10, ..Link::default() },
            seed: 0,
            retries: 0,
            config: HandshakeConfig::default(),
        }
    }

    pub(super) fn run(&self) -> Net {
        let mut net = self.start();
        net.run_until(Duration::from_secs(60), Net::both_established);
        net
    }

    pub(super) fn start(&self) -> Net {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        let mut rng = Rng::from_seed(seed);
        let client_id = ConnectionId([0xC1; 8]);
        let now = Instant::from_nanos(1_000_000_000);
        let reset = ResetTokens::new(&[9; 32]);
        let params = TransportParams {
            reset_token: Some(reset.token(&client_id)),
            early_data: 7,
            ..TransportParams::default()
        };
        let client = Handshake::client(
            now,
            &self.client_tls,
            self.server_name,
            params,
            client_id,
            self.config,
            &mut rng,
        )
        .unwrap();
        Net {
            started: now,
            now,
            client,
            client_established: None,
            client_ended: None,
            hosts: Vec::new(),
            host_tls: self.host_tls.clone(),
            config: self.config,
            link: self.link,
            observer: None,
            rng,
            queue: BinaryHeap::new(),
            sequence: 0,
            retries: self.retries,
            version_lists: false,
            drop_next: Vec::new(),
            tokens: RetryTokens::new(&[5; 32], RetryTokens::LIFETIME),
            sent: [0; 2],
        }
    }
}

type Queued = Reverse<(Instant, u64, To, Vec<u8>)>;

pub(super) struct Net {
    started: Instant,
    pub(super) now: Instant,
    pub(super) client: Handshake,
    pub(super) client_established: Option<Established>,
    pub(super) client_ended: Option<Receipt>,
    pub(super) hosts: Vec<Attempt>,
    host_tls: HostTls,
    config: HandshakeConfig,
    pub(super) link: Link,
    pub(super) observer: Option<Observer>,
    rng: Rng,
    queue: BinaryHeap<Queued>,
    sequence: u64,
    retries: u32,
    /// The host knows no version of the client's.
    pub(super) version_lists: bool,
    /// Directions whose next datagram is lost.
    pub(super) drop_next: Vec<To>,
    tokens: RetryTokens,
    /// Datagrams sent by client and host.
    pub(super) sent: [u64; 2],
}

const REMOTE: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(192, 0, 2, 1), 4000));

impl Net {
    pub(super) fn elapsed(&self) -> Duration {
        self.now.since(self.started)
    }

    /// The host's attempt that the client is talking to.
    pub(super) fn host(&mut self) -> &mut Attempt {
        self.hosts.last_mut().expect("the host has an attempt")
    }

    pub(super) fn both_established(&self) -> bool {
        self.client_established.is_some() && self.hosts.iter().any(|h| h.established.is_some())
    }

    pub(super) fn over(&self) -> bool {
        self.client_ended.is_some() && self.hosts.iter().all(|h| h.ended.is_some())
    }

    /// The results of both sides, which must agree and have keys that fit.
    pub(super) fn results(mut self) -> (Established, Established) {
        let host = self.hosts.iter_mut().find_map(|h| h.established.take());
        let (mut client, mut host) = (self.client_established.unwrap(), host.unwrap());
        assert_eq!(client.exporter, host.exporter);
        assert_eq!((client.suite, client.resumed), (host.suite, host.resumed));
        assert_eq!(host.peer_params.initial_source_id, host.peer_id);
        assert_eq!(client.peer_params.initial_source_id, client.peer_id);
        assert_eq!(host.peer_params.early_data, 7);
        let mut packet = [0x40u8; 60];
        client.keys.seal(0, &mut packet).unwrap();
        assert!(host.keys.open(self.now, 0, false, &mut packet).is_ok());
        let mut packet = [0x40u8; 60];
        host.keys.seal(0, &mut packet).unwrap();
        assert!(client.keys.open(self.now, 0, false, &mut packet).is_ok());
        (client, host)
    }

    pub(super) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.started + limit;
        for _ in 0..100_000 {
            self.transmit_all();
            if done(self) {
                return;
            }
            let Some(at) = self.next_event().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            self.deliver_due();
            self.run_timers();
        }
        panic!("endless activity at {:?}", self.elapsed());
    }

    fn next_event(&self) -> Option<Instant> {
        let timers = self.hosts.iter().filter_map(|h| h.machine.timeout());
        let arrival = self.queue.peek().map(|Reverse((at, ..))| *at);
        timers.chain(self.client.timeout()).chain(arrival).min()
    }

    fn deliver_due(&mut self) {
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, _, to, mut datagram))) = self.queue.pop() else { return };
            match to {
                To::Client => self.client_receives(&mut datagram),
                To::Host => self.host_receives(&mut datagram),
            }
        }
    }

    fn run_timers(&mut self) {
        let now = self.now;
        if self.client.timeout().is_some_and(|at| at <= now) {
            note(&mut self.client_ended, self.client.handle_timeout(now));
        }
        for host in &mut self.hosts {
            if host.machine.timeout().is_some_and(|at| at <= now) {
                note(&mut host.ended, host.machine.handle_timeout(now));
            }
        }
    }

    fn client_receives(&mut self, datagram: &mut [u8]) {
        self.client.on_datagram_bytes(datagram.len());
        let mut rest = datagram;
        while let Some((packet, after)) = next_packet(rest) {
            note(&mut self.client_ended, self.client.receive(self.now, packet));
            rest = after;
        }
        if let Some(established) = self.client.take_established() {
            self.client_established = Some(established);
        }
    }

    fn host_receives(&mut self, datagram: &mut [u8]) {
        let len = datagram.len();
        let mut counted = None;
        let mut rest = datagram;
        while let Some((packet, after)) = next_packet(rest) {
            rest = after;
            let Some(at) = self.attempt_for(packet, len) else { continue };
            let host = &mut self.hosts[at];
            if counted != Some(at) {
                host.machine.on_datagram_bytes(len);
                counted = Some(at);
            }
            note(&mut host.ended, host.machine.receive(self.now, packet));
            if let Some(established) = host.machine.take_established() {
                host.established = Some(established);
            }
        }
        // An endpoint forgets what failed before anybody proved anything.
        let mut buf = [0; 1500];
        for at in (0..self.hosts.len()).rev() {
            let host = &mut self.hosts[at];
            if host.ended.is_some() && !host.machine.is_authenticated() {
                if let Some(n) = host.machine.poll_transmit(self.now, &mut buf) {
                    self.send(To::Client, buf[..n].to_vec());
                }
                self.hosts.remove(at);
            }
        }
    }

    fn attempt_for(&mut self, packet: &[u8], datagram_len: usize) -> Option<usize> {
        let prefix = LongPrefix::parse(packet).ok()?;
        let dcid = ConnectionId(prefix.dcid.try_into().ok()?);
        if self.version_lists {
            let mut buf = [0; 64];
            let n = write_version_list(&prefix, &mut buf).unwrap();
            assert_eq!(
                LongPacket::parse(&buf[..n]).map(|p| matches!(p, LongPacket::VersionList(_))),
                Ok(true)
            );
            // The one version of the list is ours: make it another one.
            buf[n - 1] ^= 0x70;
            self.send(To::Client, buf[..n].to_vec());
            return None;
        }
        let known = self
            .hosts
            .iter()
            .position(|h| h.machine.local_id == dcid || h.machine.request_id() == Some(dcid));
        if known.is_some() {
            return known;
        }
        let header = LongHeader::parse(packet).ok()?;
        if header.message != MessageType::ConnectionRequest || datagram_len < MIN_PACKET {
            return None;
        }
        if self.retries == 0 && !header.token.is_empty() {
            // Nobody gave out this token.
            return None;
        }
        let mut origin = None;
        if self.retries > 0 {
            let client_id = header.source()?;
            origin = self.tokens.check(self.now, REMOTE, &client_id.0, &dcid.0, header.token);
            if origin.is_none() || self.retries > 1 {
                if origin.is_some() {
                    self.retries -= 1;
                }
                let (mut buf, retry_id) = ([0; 128], self.rng.connection_id());
                let n = write_retry(self.now, &self.tokens, REMOTE, &header, retry_id, &mut buf)?;
                self.send(To::Client, buf[..n].to_vec());
                return None;
            }
        }
        let local_id = self.rng.connection_id();
        let machine = Handshake::host(
            self.now,
            &self.host_tls,
            TransportParams::default(),
            local_id,
            &header,
            origin.as_ref(),
            self.config,
        )
        .unwrap();
        let retried = origin.is_some();
        self.hosts.push(Attempt { machine, established: None, ended: None, retried });
        Some(self.hosts.len() - 1)
    }

    fn transmit_all(&mut self) {
        let mut buf = [0; 2000];
        while let Some(n) = self.client.poll_transmit(self.now, &mut buf) {
            assert!(n <= self.config.max_packet);
            self.send(To::Host, buf[..n].to_vec());
        }
        for at in 0..self.hosts.len() {
            while let Some(n) = self.hosts[at].machine.poll_transmit(self.now, &mut buf) {
                assert!(n <= self.config.max_packet);
                let host = &self.hosts[at];
                let counters = host.machine.counters();
                assert!(
                    host.retried
                        || host.machine.is_authenticated()
                        || counters.bytes_sent <= AMPLIFICATION_FACTOR * counters.bytes_received,
                    "{counters:?}"
                );
                self.send(To::Client, buf[..n].to_vec());
            }
        }
    }

    /// Puts a datagram onto the link.
    fn send(&mut self, to: To, mut datagram: Vec<u8>) {
        self.sent[usize::from(to == To::Client)] += 1;
        if let Some(mut observer) = self.observer.take() {
            for (to, forged) in observer(to, &datagram) {
                self.push(to, forged, ms(1));
            }
            self.observer = Some(observer);
        }
        if let Some(at) = self.drop_next.iter().position(|d| *d == to) {
            self.drop_next.remove(at);
            return;
        }
        let mut chance = |percent: u64| self.rng.below(100) < percent;
        let copies = 1 + u64::from(chance(self.link.duplicate));
        let lost = chance(self.link.loss);
        if chance(self.link.corrupt) {
            let at = self.rng.below(datagram.len() as u64) as usize;
            datagram[at] ^= 1 << self.rng.below(8);
        }
        if lost {
            return;
        }
        for _ in 0..copies {
            let span = self.link.delay_max - self.link.delay_min + 1;
            let delay = ms(self.link.delay_min + self.rng.below(span));
            self.push(to, datagram.clone(), delay);
        }
    }

    pub(super) fn push(&mut self, to: To, datagram: Vec<u8>, delay: Duration) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, to, datagram)));
    }

    /// Why the client failed.
    pub(super) fn client_reason(&self) -> &CloseReason {
        self.client.failure().expect("the client failed")
    }
}

fn note(slot: &mut Option<Receipt>, receipt: Receipt) {
    if matches!(receipt, Receipt::Closed(_) | Receipt::Failed(_)) {
        assert!(slot.is_none(), "{slot:?} then {receipt:?}");
        *slot = Some(receipt);
    }
}

/// Splits the first long packet off a datagram.
pub(super) fn next_packet(datagram: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    if !is_long(*datagram.first()?) {
        return None;
    }
    let len = match LongPacket::parse(datagram) {
        Ok(LongPacket::Sealed(header)) => header.packet_len(),
        _ => datagram.len(),
    };
    Some(datagram.split_at_mut(len))
}
