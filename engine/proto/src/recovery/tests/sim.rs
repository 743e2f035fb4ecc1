//! A toy network: senders with a [`Recovery`] each, one shared bottleneck, receivers that
//! acknowledge. Virtual clock, one seed, no threads: the same seed gives the same run.

use crate::config::ConnectionConfig;
use crate::ids::ChannelKey;
use crate::recovery::{Asks, Budget, Ecn, Fate, PacketFlags, ReceivedPackets, Recovery};
use crate::time::{Duration, Instant};
use crate::wire::codec::Writer;
use crate::wire::frame::Frames;
use crate::wire::ranges::RangeSet;
use crate::wire::record::FrameRecord;
use crate::wire::transport::TransportFrame;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub(super) const KEY: ChannelKey = ChannelKey { slot: 1, life: 1 };

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn at_ms(n: u64) -> Instant {
    Instant::ZERO + ms(n)
}

/// xorshift64*.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// True `per_million` times in a million.
    pub(super) fn chance(&mut self, per_million: u64) -> bool {
        self.next() % 1_000_000 < per_million
    }
}

/// Properties of the bottleneck, towards the receivers. The way back delays and loses.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) bytes_per_s: u64,
    /// One way.
    pub(super) delay: Duration,
    pub(super) queue_bytes: u64,
    /// Random loss and reordering, per million packets.
    pub(super) loss: u64,
    pub(super) ack_loss: u64,
    pub(super) reorder: u64,
    pub(super) reorder_by: Duration,
    /// Largest UDP payload, and what it changes to at a time.
    pub(super) mtu: usize,
    pub(super) mtu_later: Option<(Instant, usize)>,
    /// Queue in bytes above which ECT packets are marked.
    pub(super) mark_above: u64,
    /// ECN marks are erased.
    pub(super) bleach: bool,
    /// Nothing passes between these times.
    pub(super) outage: Option<(Instant, Instant)>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            bytes_per_s: 12_500_000,
            delay: ms(10),
            queue_bytes: 250_000,
            loss: 0,
            ack_loss: 0,
            reorder: 0,
            reorder_by: ms(5),
            mtu: 65_507,
            mtu_later: None,
            mark_above: u64::MAX,
            bleach: false,
            outage: None,
        }
    }
}

struct Packet {
    flow: usize,
    pn: u64,
    ecn: Ecn,
    data: Option<(u64, u16)>,
}

enum Event {
    Data(Packet),
    Ack(usize, Vec<u8>),
}

/// One sender and its receiver.
pub(super) struct Flow {
    pub(super) recovery: Recovery,
    pub(super) received: ReceivedPackets,
    /// Bytes still to be sent for the first time.
    pub(super) left: u64,
    next_offset: u64,
    again: RangeSet,
    acked: RangeSet,
    /// What the receiver has.
    pub(super) delivered: RangeSet,
    pacing: Option<Instant>,
    start: Instant,
    /// Longest run of packets sent at one moment.
    pub(super) longest_burst: usize,
    pub(super) undone: u32,
    pub(super) sizes: Vec<usize>,
}

pub(super) struct Sim {
    pub(super) now: Instant,
    pub(super) link: Link,
    pub(super) flows: Vec<Flow>,
    random: Random,
    /// When the bottleneck is free again.
    free_at: Instant,
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    events: Vec<Option<Event>>,
    order: u64,
}

impl Sim {
    pub(super) fn new(seed: u64, link: Link) -> Self {
        Self {
            now: at_ms(1),
            link,
            flows: Vec::new(),
            random: Random(seed | 1),
            free_at: Instant::ZERO,
            heap: BinaryHeap::new(),
            events: Vec::new(),
            order: 0,
        }
    }

    /// Adds a flow with `left` bytes to send from `start` on.
    pub(super) fn flow(&mut self, cfg: &ConnectionConfig, left: u64, start: Instant) {
        let seed = self.random.next();
        let mut recovery = Recovery::new(start, cfg, cfg.initial_packet, seed);
        recovery.set_peer(cfg.max_ack_delay, 65_507);
        recovery.first_rtt_sample(start, self.link.delay.mul(2));
        self.flows.push(Flow {
            sizes: vec![recovery.packet_size()],
            recovery,
            received: ReceivedPackets::new(cfg.max_ack_delay),
            left,
            next_offset: 0,
            again: RangeSet::new(),
            acked: RangeSet::new(),
            delivered: RangeSet::new(),
            pacing: None,
            start,
            longest_burst: 0,
            undone: 0,
        });
    }

    pub(super) fn run_until(&mut self, end: Instant) {
        loop {
            for flow in 0..self.flows.len() {
                self.transmit(flow);
            }
            let event = self.heap.peek().map(|Reverse((at, ..))| *at);
            let timer = self.flows.iter().filter_map(Flow::timeout).min();
            let Some(next) = [event, timer].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            assert!(next >= self.now || timer == Some(next), "time runs forward");
            self.now = self.now.max(next);
            while let Some(Reverse((at, _, slot))) = self.heap.peek().copied() {
                if at > self.now {
                    break;
                }
                self.heap.pop();
                if let Some(event) = self.events[slot].take() {
                    self.handle(event);
                }
            }
            self.timers();
        }
        self.now = end;
    }

    /// Until every byte is acknowledged, at most until `limit`. Gives when that was.
    pub(super) fn run_to_completion(&mut self, limit: Instant) -> Instant {
        let mut end = self.now;
        while !self.flows.iter().all(Flow::is_done) {
            assert!(end < limit, "not finished in time");
            end += ms(1);
            self.run_until(end);
        }
        end
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.heap.push(Reverse((at, self.order, self.events.len())));
        self.events.push(Some(event));
    }

    fn timers(&mut self) {
        let now = self.now;
        for index in 0..self.flows.len() {
            let flow = &mut self.flows[index];
            if now < flow.start {
                continue;
            }
            if flow.pacing.is_some_and(|at| at <= now) {
                flow.pacing = None;
            }
            if flow.recovery.timeout().is_some_and(|at| at <= now) {
                let (again, acked) = (&mut flow.again, &flow.acked);
                let outcome = flow
                    .recovery
                    .on_timeout(now, |fate, record| settle(fate, record, again, acked));
                flow.sizes.extend(outcome.mtu_changed);
            }
            flow.received.on_timeout(now);
            if flow.received.ack_due(now) {
                self.acknowledge(index);
            }
        }
    }

    fn acknowledge(&mut self, flow: usize) {
        let mut buf = [0; 1200];
        let mut w = Writer::new(&mut buf);
        if self.flows[flow].received.write(self.now, &mut w).is_some() {
            let len = w.written();
            if self.random.chance(self.link.ack_loss) {
                return;
            }
            self.push(self.now + self.link.delay, Event::Ack(flow, buf[..len].to_vec()));
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Data(packet) => {
                let flow = &mut self.flows[packet.flow];
                flow.received.on_packet(now, packet.pn, Asks::Soon, packet.ecn);
                if let Some((offset, len)) = packet.data {
                    flow.delivered.insert(offset..offset + u64::from(len));
                }
                flow.received.end_batch(now);
                if flow.received.ack_due(now) {
                    self.acknowledge(packet.flow);
                }
            }
            Event::Ack(flow, bytes) => {
                let frame = Frames::new(&bytes).next().unwrap().unwrap();
                let TransportFrame::Ack(ack) = TransportFrame::parse(frame.body).unwrap() else {
                    panic!("not an ACK");
                };
                let flow = &mut self.flows[flow];
                let (again, acked) = (&mut flow.again, &mut flow.acked);
                let summary = flow
                    .recovery
                    .on_ack(now, &ack, |fate, record| {
                        if let (Fate::Acked, &FrameRecord::Stream { offset, len, .. }) =
                            (fate, record)
                        {
                            acked.insert(offset..offset + u64::from(len));
                            again.remove(offset..offset + u64::from(len));
                        } else {
                            settle(fate, record, again, acked);
                        }
                    })
                    .expect("honest peer");
                flow.undone += u32::from(summary.undone);
                flow.sizes.extend(summary.mtu_changed);
                flow.pacing = None;
            }
        }
    }

    fn transmit(&mut self, index: usize) {
        let now = self.now;
        let mut burst = 0;
        if now < self.flows[index].start {
            return;
        }
        loop {
            let flow = &mut self.flows[index];
            let owed = flow.recovery.probes_owed() > 0;
            if let Some(size) = flow.recovery.mtu_probe(now)
                && !flow.is_done()
            {
                self.send(index, size, true, Ecn::NotEct);
                continue;
            }
            if !owed && (!flow.wants() || flow.pacing.is_some()) {
                break;
            }
            let size = flow.recovery.packet_size();
            let ecn = flow.recovery.ecn();
            let count = if owed {
                u64::from(flow.recovery.probes_owed())
            } else {
                match flow.recovery.send_budget(now) {
                    Budget::Bytes(bytes) => {
                        assert!(bytes >= size as u64 && bytes % size as u64 == 0);
                        bytes / size as u64
                    }
                    Budget::Pacing(at) => {
                        assert!(at > now);
                        flow.pacing = Some(at);
                        break;
                    }
                    Budget::Window => break,
                }
            };
            for _ in 0..count {
                if !owed && !self.flows[index].wants() {
                    break;
                }
                self.send(index, size, false, ecn);
                burst += 1;
            }
        }
        let flow = &mut self.flows[index];
        flow.longest_burst = flow.longest_burst.max(burst);
    }

    fn send(&mut self, index: usize, size: usize, probe: bool, ecn: Ecn) {
        let now = self.now;
        let flow = &mut self.flows[index];
        let pn = flow.recovery.begin_packet();
        let data = if probe { None } else { flow.take((size - 40) as u16) };
        if let Some((offset, len)) = data {
            flow.recovery.record(FrameRecord::Stream { channel: KEY, offset, len, eof: false });
        }
        let bytes = if probe { size } else { 40 + data.map_or(0, |(_, len)| usize::from(len)) };
        let flags = PacketFlags { asks: Asks::Soon, probe_mtu: probe, ecn };
        flow.recovery.finish_packet(now, pn, bytes, flags);
        self.carry(Packet { flow: index, pn, ecn, data }, bytes);
    }

    /// The bottleneck: a queue, a rate, a delay, and whatever goes wrong.
    fn carry(&mut self, mut packet: Packet, bytes: usize) {
        let now = self.now;
        let mtu = match self.link.mtu_later {
            Some((at, mtu)) if now >= at => mtu,
            _ => self.link.mtu,
        };
        let ns = |bytes: u64| {
            Duration::from_nanos(
                (u128::from(bytes) * 1_000_000_000 / u128::from(self.link.bytes_per_s)) as u64,
            )
        };
        let waiting = self.free_at.since(now);
        let queued = (waiting.as_secs_f64() * self.link.bytes_per_s as f64) as u64;
        let out = self.link.outage.is_some_and(|(from, to)| (from..to).contains(&now));
        if bytes > mtu || out || queued + bytes as u64 > self.link.queue_bytes.max(bytes as u64) {
            return;
        }
        self.free_at = self.free_at.max(now) + ns(bytes as u64);
        if self.random.chance(self.link.loss) {
            return;
        }
        if self.link.bleach {
            packet.ecn = Ecn::NotEct;
        } else if queued > self.link.mark_above && packet.ecn == Ecn::Ect0 {
            packet.ecn = Ecn::Ce;
        }
        let mut at = self.free_at + self.link.delay;
        if self.random.chance(self.link.reorder) {
            at += self.link.reorder_by;
        }
        self.push(at, Event::Data(packet));
    }
}

fn settle(fate: Fate, record: &FrameRecord, again: &mut RangeSet, acked: &RangeSet) {
    let &FrameRecord::Stream { offset, len, .. } = record else { return };
    if fate != Fate::Acked {
        for gap in acked.gaps(offset..offset + u64::from(len)) {
            again.insert(gap);
        }
    }
}

impl Flow {
    pub(super) fn wants(&self) -> bool {
        self.left > 0 || !self.again.is_empty()
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.acked.covered() == self.next_offset
    }

    fn take(&mut self, max: u16) -> Option<(u64, u16)> {
        if let Some(range) = self.again.pop_front_up_to(u64::from(max)) {
            return Some((range.start, (range.end - range.start) as u16));
        }
        let len = self.left.min(u64::from(max));
        if len == 0 {
            return None;
        }
        let offset = self.next_offset;
        self.next_offset += len;
        self.left -= len;
        Some((offset, len as u16))
    }

    fn timeout(&self) -> Option<Instant> {
        [self.recovery.timeout(), self.received.timeout(), self.pacing, Some(self.start)]
            .into_iter()
            .flatten()
            .filter(|at| *at != self.start || self.recovery.next_pn() == 0)
            .min()
    }
}
