//! The exchange: packets are delayed, reordered, duplicated and lost by a seeded generator; what
//! is acknowledged or given up goes back to the sender.

use crate::channel::Mux;
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::endpoint::SendOptions;
use crate::error::PeerMisbehaved;
use crate::event::{ChannelEnd, ChannelRequest, Sink};
use crate::ids::{ChannelKey, ConnHandle, Role};
use crate::limits::TRANSPORT_CHANNEL;
use crate::time::{Duration, Instant};
use crate::wire::frame::Frames;
use crate::wire::params::TransportParams;
use crate::wire::record::FrameRecord;
use crate::wire::transport::TransportFrame;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub(super) const CONN: ConnHandle = ConnHandle { slot: 3, generation: 1 };
/// The replay window of a connection: older packets are dropped.
const REPLAY: u64 = 1024;

#[derive(Clone, Debug)]
pub(super) struct Rng(pub u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// Mostly small numbers, below two to the power of `bits`.
    pub(super) fn skewed(&mut self, bits: u64) -> u64 {
        let bits = self.below(bits);
        self.below(1 << bits)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Byte `at` of the stream with this seed.
pub(super) fn pattern(seed: u64, at: u64) -> u8 {
    (Rng(seed ^ (at >> 3)).next() >> (8 * (at & 7))) as u8
}

pub(super) fn pattern_bytes(seed: u64, from: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| pattern(seed, from + i)).collect()
}

/// What one side saw of one channel.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub name: String,
    pub ready: bool,
    pub bytes: Vec<u8>,
    pub messages: Vec<Vec<u8>>,
    pub eof: bool,
    pub reset: Option<u32>,
    pub stopped: Option<u32>,
    pub closed: Option<ChannelEnd>,
    pub writable: u32,
    pub receipts: Vec<u64>,
}

/// Records everything; requests wait in `requests`.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub channels: HashMap<ChannelKey, Seen>,
    pub requests: Vec<(ChannelKey, String, ChannelOptions)>,
    /// Bytes handed over, to be consumed later.
    pub unconsumed: Vec<(ChannelKey, u64)>,
    /// Channels whose credit step may be another one.
    pub steps_over: Vec<ChannelKey>,
    /// Accepted channels in the order in which they became ready.
    pub ready: Vec<ChannelKey>,
}

impl Recorder {
    pub(super) fn seen(&mut self, key: ChannelKey) -> &mut Seen {
        let seen = self.channels.entry(key).or_default();
        assert!(seen.closed.is_none(), "event after the end of {key:?}");
        seen
    }

    pub(super) fn by_name(&self, name: &str) -> &Seen {
        self.channels.values().find(|s| s.name == name).expect("a channel of that name")
    }
}

impl Sink for Recorder {
    fn channel_request(&mut self, conn: ConnHandle, key: ChannelKey, r: &ChannelRequest<'_>) {
        assert_eq!(conn, CONN);
        self.seen(key).name = r.name.to_owned();
        self.requests.push((key, r.name.to_owned(), r.options));
    }
    fn channel_ready(&mut self, _: ConnHandle, key: ChannelKey) {
        let seen = self.seen(key);
        assert!(!seen.ready, "ready twice");
        seen.ready = true;
        self.ready.push(key);
    }
    fn channel_closed(&mut self, _: ConnHandle, key: ChannelKey, end: &ChannelEnd) {
        self.seen(key).closed = Some(end.clone());
    }
    fn data(&mut self, _: ConnHandle, key: ChannelKey, bytes: &[u8]) {
        let seen = self.seen(key);
        assert!(seen.ready && !seen.eof && seen.reset.is_none());
        assert!(!bytes.is_empty());
        seen.bytes.extend_from_slice(bytes);
        self.unconsumed.push((key, bytes.len() as u64));
    }
    fn message(&mut self, _: ConnHandle, key: ChannelKey, _: ChannelKind, message: &[u8]) {
        let seen = self.seen(key);
        assert!(seen.ready && !seen.eof && seen.reset.is_none());
        seen.messages.push(message.to_vec());
        self.unconsumed.push((key, message.len() as u64));
    }
    fn credit_short(&mut self, _: ConnHandle, key: ChannelKey) {
        self.steps_over.push(key);
    }
    fn eof(&mut self, _: ConnHandle, key: ChannelKey) {
        self.steps_over.push(key);
        let seen = self.seen(key);
        assert!(seen.ready && !seen.eof && seen.reset.is_none());
        seen.eof = true;
    }
    fn reset(&mut self, _: ConnHandle, key: ChannelKey, code: u32) {
        self.steps_over.push(key);
        self.seen(key).reset = Some(code);
    }
    fn stopped(&mut self, _: ConnHandle, key: ChannelKey, code: u32) {
        self.seen(key).stopped = Some(code);
    }
    fn writable(&mut self, _: ConnHandle, key: ChannelKey) {
        self.seen(key).writable += 1;
    }
    fn receipt(&mut self, _: ConnHandle, key: ChannelKey, token: u64) {
        self.seen(key).receipts.push(token);
    }
}

#[derive(Debug)]
pub(super) struct Side {
    pub mux: Mux,
    pub sink: Recorder,
    pub next_pn: u64,
    /// Sent and neither acknowledged nor given up: records and when to give up.
    sent: BTreeMap<u64, (Instant, Vec<FrameRecord>)>,
    received: HashSet<u64>,
    largest: u64,
    pub error: Option<PeerMisbehaved>,
    pub bytes_sent: u64,
    /// Bytes taken and not consumed, and the credit step, by channel.
    taken: BTreeMap<ChannelKey, (u64, u64)>,
}

impl Side {
    /// Consumes what was taken of channels of which it reaches the credit step.
    fn consume_in_steps(&mut self, now: Instant) {
        for (key, bytes) in std::mem::take(&mut self.sink.unconsumed) {
            self.taken.entry(key).or_insert((0, 1)).0 += bytes;
        }
        for key in std::mem::take(&mut self.sink.steps_over) {
            self.taken.entry(key).or_insert((0, 1)).1 = 1;
        }
        for (key, (bytes, step)) in &mut self.taken {
            if bytes >= step || self.mux.info(*key).is_none() {
                self.mux.consume(now, *key, std::mem::take(bytes)).unwrap();
                *step = self.mux.credit_step(*key).unwrap_or(1);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Flying {
    Packet(u64, Vec<u8>),
    Ack(u64),
}

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub loss: u64,
    pub duplicate: u64,
    /// Share of packets that take up to ten times as long, which the sender takes for lost.
    pub stray: u64,
    pub delay: Duration,
    pub jitter: Duration,
    pub packet: usize,
    /// Packets in flight at most.
    pub window: usize,
}

impl Weather {
    pub(super) const FINE: Self = Self {
        loss: 0,
        duplicate: 0,
        stray: 0,
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
        packet: 1400,
        window: 1 << 20,
    };
    pub(super) const BAD: Self = Self {
        loss: 10,
        duplicate: 5,
        stray: 5,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(8),
        packet: 1200,
        window: 64,
    };
}

#[derive(Debug)]
pub(super) struct Net {
    pub now: Instant,
    pub sides: [Side; 2],
    pub weather: Weather,
    pub rng: Rng,
    flying: BTreeMap<(Instant, u64), (usize, Flying)>,
    serial: u64,
    /// Requests are accepted at once with these options, when set.
    pub accept: Option<ChannelOptions>,
    pub consume: bool,
    /// What is consumed is collected until the credit step of the channel is reached.
    pub in_steps: bool,
}

pub(super) fn params(config: &ConnectionConfig) -> TransportParams {
    TransportParams {
        early_data: config.early_data,
        control_window: crate::channel::CONTROL_WINDOW,
        max_channels: config.max_channels,
        max_message: config.max_message as u64,
        ..TransportParams::default()
    }
}

impl Net {
    pub(super) fn new(seed: u64, weather: Weather, config: ConnectionConfig) -> Self {
        Self::with_configs(seed, weather, [config.clone(), config])
    }

    pub(super) fn with_configs(
        seed: u64,
        weather: Weather,
        configs: [ConnectionConfig; 2],
    ) -> Self {
        for config in &configs {
            config.validate().unwrap();
        }
        let side = |role, own: &ConnectionConfig, peer: &ConnectionConfig| {
            let mut mux = Mux::new(role, &Arc::new(own.clone()));
            mux.set_peer(&params(peer));
            mux.set_rtt(weather.delay.mul(2));
            mux.set_packet_payload(weather.packet);
            mux.set_ready(Instant::from_nanos(1));
            Side {
                mux,
                sink: Recorder::default(),
                next_pn: 0,
                sent: BTreeMap::new(),
                received: HashSet::new(),
                largest: 0,
                error: None,
                bytes_sent: 0,
                taken: BTreeMap::new(),
            }
        };
        Self {
            now: Instant::from_nanos(1),
            sides: [
                side(Role::Client, &configs[0], &configs[1]),
                side(Role::Host, &configs[1], &configs[0]),
            ],
            weather,
            rng: Rng(seed),
            flying: BTreeMap::new(),
            serial: 0,
            accept: Some(ChannelOptions::default()),
            consume: true,
            in_steps: false,
        }
    }

    pub(super) fn open(&mut self, side: usize, name: &str, options: &ChannelOptions) -> ChannelKey {
        let s = &mut self.sides[side];
        let key = s.mux.open(self.now, name, options, s.next_pn).unwrap();
        s.sink.channels.entry(key).or_default().name = name.to_owned();
        key
    }

    /// Opens a channel as if the next packet had this number.
    pub(super) fn open_with_pn(
        &mut self,
        side: usize,
        name: &str,
        options: &ChannelOptions,
        pn: u64,
    ) -> ChannelKey {
        let s = &mut self.sides[side];
        let key = s.mux.open(self.now, name, options, pn).unwrap();
        s.sink.channels.entry(key).or_default().name = name.to_owned();
        key
    }

    /// Opens a channel of a kind and lets the peer accept it: keys of both sides.
    pub(super) fn connect(&mut self, kind: ChannelKind) -> (ChannelKey, ChannelKey) {
        let name = format!("c{}", self.serial);
        let options = ChannelOptions { kind, no_delay: true, ..ChannelOptions::default() };
        let a = self.open(0, &name, &options);
        self.settle();
        let id = self.sides[0].mux.info(a).unwrap().id;
        (a, self.sides[1].mux.channel_by_id(id).unwrap())
    }

    pub(super) fn send(&mut self, side: usize, key: ChannelKey, data: &[u8]) {
        self.sides[side].mux.send(self.now, key, data, SendOptions::default()).unwrap();
    }

    pub(super) fn finish(&mut self, side: usize, key: ChannelKey) {
        self.sides[side].mux.finish(self.now, key).unwrap();
    }

    pub(super) fn seen(&self, side: usize, key: ChannelKey) -> &Seen {
        &self.sides[side].sink.channels[&key]
    }

    fn delay(&mut self) -> Duration {
        let w = self.weather;
        let jitter = Duration::from_nanos(self.rng.below(w.jitter.as_nanos() + 1));
        let mut delay = w.delay + jitter;
        if self.rng.chance(w.stray) {
            delay = delay.mul(1 + self.rng.below(10));
        }
        delay
    }

    fn launch(&mut self, to: usize, what: Flying) {
        let copies = 1 + u64::from(self.rng.chance(self.weather.duplicate));
        for _ in 0..copies {
            if self.rng.chance(self.weather.loss) {
                continue;
            }
            let at = self.now + self.delay();
            self.serial += 1;
            self.flying.insert((at, self.serial), (to, what.clone()));
        }
    }

    /// Fills one packet of a side; `None` when it has nothing to say.
    pub(super) fn packet(&mut self, side: usize) -> Option<(u64, Vec<u8>)> {
        let patience = (self.weather.delay + self.weather.jitter).mul(3);
        let s = &mut self.sides[side];
        if !s.mux.wants_to_send() {
            return None;
        }
        let mut buf = vec![0xEE; self.weather.packet];
        let mut records = Vec::new();
        let n = s.mux.fill(self.now, &mut buf, &mut |r| records.push(r));
        if n == 0 {
            return None;
        }
        buf.truncate(n);
        let pn = s.next_pn;
        s.next_pn += 1;
        s.bytes_sent += n as u64;
        s.sent.insert(pn, (self.now + patience, records));
        Some((pn, buf))
    }

    /// Hands a packet to a side, if it is not a copy of one that came before.
    pub(super) fn deliver(&mut self, to: usize, pn: u64, payload: &[u8]) {
        let s = &mut self.sides[to];
        if pn + REPLAY < s.largest || !s.received.insert(pn) {
            return;
        }
        s.largest = s.largest.max(pn);
        if let Err(e) = receive(s, self.now, pn, payload) {
            s.error.get_or_insert(e);
        }
        self.launch(1 - to, Flying::Ack(pn));
    }

    pub(super) fn acked(&mut self, side: usize, pn: u64) {
        let s = &mut self.sides[side];
        if let Some((_, records)) = s.sent.remove(&pn) {
            for record in &records {
                s.mux.on_acked(self.now, CONN, record, &mut s.sink);
            }
        }
    }

    pub(super) fn lost(&mut self, side: usize, pn: u64) {
        let s = &mut self.sides[side];
        if let Some((_, records)) = s.sent.remove(&pn) {
            for record in &records {
                s.mux.on_lost(record);
            }
        }
    }

    /// What an application does after every event: takes requests and consumes.
    fn applications(&mut self) {
        for s in &mut self.sides {
            if let Some(options) = self.accept {
                for (key, _, _) in std::mem::take(&mut s.sink.requests) {
                    let _ = s.mux.accept(self.now, key, &options, s.next_pn);
                }
            }
            if self.consume && self.in_steps {
                s.consume_in_steps(self.now);
            } else if self.consume {
                for (key, bytes) in std::mem::take(&mut s.sink.unconsumed) {
                    s.mux.consume(self.now, key, bytes).unwrap();
                }
            }
            while s.mux.timeout().is_some_and(|at| at <= self.now) {
                if let Err(e) = s.mux.on_timeout(self.now, CONN, &mut s.sink) {
                    s.error.get_or_insert(e);
                }
            }
        }
    }

    /// Sends what can be sent, then goes to the next event; `false` when nothing will happen any
    /// more.
    pub(super) fn step(&mut self) -> bool {
        self.check();
        self.advance(true)
    }

    fn advance(&mut self, timers: bool) -> bool {
        self.applications();
        for side in 0..2 {
            while self.sides[side].sent.len() < self.weather.window {
                let Some((pn, payload)) = self.packet(side) else { break };
                self.launch(1 - side, Flying::Packet(pn, payload));
            }
        }
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let given_up = self.sides.iter().filter_map(|s| s.sent.values().next()).map(|(at, _)| *at);
        let timers = self.sides.iter().filter_map(|s| s.mux.timeout()).filter(|_| timers).min();
        let Some(next) = [arrival, given_up.min(), timers].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            match entry.remove() {
                (to, Flying::Packet(pn, payload)) => self.deliver(to, pn, &payload),
                (to, Flying::Ack(pn)) => self.acked(to, pn),
            }
        }
        for side in 0..2 {
            while let Some((pn, (at, _))) = self.sides[side].sent.first_key_value() {
                if *at > self.now {
                    break;
                }
                let pn = *pn;
                self.lost(side, pn);
            }
        }
        true
    }

    /// Steps until only timers are left.
    pub(super) fn settle_without_timers(&mut self) {
        while self.advance(false) {
            self.check();
        }
    }

    /// Steps until nothing happens any more, without checks in between.
    pub(super) fn settle_fast(&mut self, mut application: impl FnMut(&mut Self)) {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.advance(true) { 0 } else { idle + 1 };
            application(self);
            assert_eq!(self.sides[0].error.or(self.sides[1].error), None);
        }
        self.check();
    }

    /// Steps until nothing happens any more.
    pub(super) fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 3_000_000, "no end at {:?}", self.now);
        }
    }

    pub(super) fn check(&self) {
        for s in &self.sides {
            assert_eq!(s.error, None);
            s.mux.check();
        }
    }
}

/// What a connection does with the payload of a packet.
pub(super) fn receive(
    s: &mut Side,
    now: Instant,
    pn: u64,
    payload: &[u8],
) -> Result<(), PeerMisbehaved> {
    let Side { mux, sink, next_pn, .. } = s;
    for frame in Frames::new(payload) {
        let frame = frame?;
        if frame.channel != TRANSPORT_CHANNEL {
            mux.on_frame(now, CONN, pn, &frame, *next_pn, sink)?;
            continue;
        }
        match TransportFrame::parse(frame.body)? {
            TransportFrame::Credit { channel, limit } => mux.on_credit(pn, channel, limit)?,
            TransportFrame::EarlyCredit { limit } => mux.on_early_credit(limit),
            TransportFrame::ChannelReset { channel, code, final_offset } => {
                mux.on_reset(now, CONN, pn, channel, code, final_offset, sink)?;
            }
            TransportFrame::ChannelStop { channel, code } => {
                mux.on_stop(now, CONN, pn, channel, code, sink)?;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    Ok(())
}
