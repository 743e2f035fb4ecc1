//! Wraps any driver and does to its packets what bad networks do: loss, duplication, reordering,
//! delay, corruption, a bounded rate, a smaller path MTU. Works on packets, also on those inside
//! trains, in both directions, from a seed. Streams pass unharmed.
//!
//! Packets that something happens to are copied and travel alone; the others pass untouched. A test
//! tool: it allocates, and reads the clock of the driver it wraps.

use super::impair::{Due, FaultStats, Faults, Impairment, damage};
use super::{
    Batch, Buffers, Capabilities, Driver, DriverStats, RxItem, StreamBytes, StreamId, TxBuf,
    TxMeta, Waker,
};
use crate::buf::Retainer;
use std::cell::Cell;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// Packets held back in each direction; more are lost.
const MAX_HELD: usize = 65_536;
/// Held-back packets delivered by one poll.
const MAX_DELIVERED: usize = 1024;
/// Marks the tokens of items that lie in buffers of the wrapper.
const OWN: u32 = 1 << 31;

/// What to do, and to whose packets. Connections over streams are not harmed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultConfig {
    /// The same seed does the same to the same packets.
    pub seed: u64,
    /// Faults of what is sent.
    pub outbound: Faults,
    /// Faults of what is received.
    pub inbound: Faults,
    /// Only packets to or from these addresses; all when empty. Port 0 stands for every port.
    pub only: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Outgoing {
    meta: TxMeta,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Incoming {
    socket: u16,
    remote: SocketAddr,
    local: Option<IpAddr>,
    ecn: u8,
    bytes: Vec<u8>,
}

/// Packets in the hands of the wrapper, one direction.
#[derive(Debug)]
struct Held<T> {
    path: Impairment,
    waiting: BinaryHeap<Due<T>>,
    order: u64,
}

impl<T> Held<T> {
    fn new(faults: Faults, seed: u64) -> Self {
        Self { path: Impairment::new(faults, seed), waiting: BinaryHeap::new(), order: 0 }
    }

    fn hold(&mut self, at: Instant, what: T) {
        if self.waiting.len() < MAX_HELD {
            self.order += 1;
            self.waiting.push(Due { at, order: self.order, what });
        } else {
            self.path.stats.overflowed += 1;
        }
    }

    fn due(&mut self, now: Instant) -> Option<T> {
        if self.waiting.peek()?.at > now {
            return None;
        }
        self.waiting.pop().map(|due| due.what)
    }

    fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|due| due.at)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct FaultDriver<D> {
    inner: D,
    only: Vec<SocketAddr>,
    outbound: Held<Outgoing>,
    inbound: Held<Incoming>,
    /// Due, but the driver had no buffer.
    ready: VecDeque<Outgoing>,
    /// Buffers of delivered items, by token.
    own: Vec<Option<Vec<u8>>>,
    free: Vec<u32>,
    /// Memory of packets gone by.
    spare: Vec<Vec<u8>>,
    embedded: Cell<bool>,
}

impl<D: Driver> FaultDriver<D> {
    /// Wraps `inner`.
    pub fn new(inner: D, config: &FaultConfig) -> Self {
        Self {
            inner,
            only: config.only.clone(),
            outbound: Held::new(config.outbound, config.seed),
            inbound: Held::new(config.inbound, config.seed ^ 0x5555_5555_5555_5555),
            ready: VecDeque::new(),
            own: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            embedded: Cell::new(false),
        }
    }

    /// Changes the faults from now on: outbound, inbound.
    pub fn set_faults(&mut self, outbound: Faults, inbound: Faults) {
        self.outbound.path.faults = outbound;
        self.inbound.path.faults = inbound;
    }

    /// Changes the faults, and whose packets they concern, from now on. The seed is that of the
    /// beginning.
    pub fn configure(&mut self, config: &FaultConfig) {
        self.only.clone_from(&config.only);
        self.set_faults(config.outbound, config.inbound);
    }

    /// What was done so far: outbound, inbound.
    pub const fn fault_stats(&self) -> (FaultStats, FaultStats) {
        (self.outbound.path.stats, self.inbound.path.stats)
    }

    /// The driver inside.
    pub const fn inner(&self) -> &D {
        &self.inner
    }

    fn concerns(&self, remote: SocketAddr) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|a| a.ip() == remote.ip() && (a.port() == 0 || a.port() == remote.port()))
    }

    fn copy(spare: &mut Vec<Vec<u8>>, bytes: &[u8], hurt: Option<u64>) -> Vec<u8> {
        let mut copy = spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        if let Some(seed) = hurt {
            damage(&mut copy, seed);
        }
        copy
    }

    fn keep_spare(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < 256 {
            self.spare.push(bytes);
        }
    }

    /// Sends what is due, as far as the driver has buffers. Whether it sent anything.
    fn pump(&mut self, now: Instant) -> bool {
        while let Some(packet) = self.outbound.due(now) {
            self.ready.push_back(packet);
        }
        let mut any = false;
        while !self.ready.is_empty() {
            let Some(mut buf) = self.inner.lend() else { break };
            let Some(packet) = self.ready.pop_front() else { break };
            self.inner.bytes(&mut buf)[..packet.bytes.len()].copy_from_slice(&packet.bytes);
            self.inner.send(buf, packet.meta);
            self.keep_spare(packet.bytes);
            any = true;
        }
        any
    }

    /// Decides about the packets of an item. `Some` gives it back, untouched.
    fn sift(
        &mut self,
        item: RxItem,
        now: Instant,
        fates: &mut Vec<super::impair::Fate>,
    ) -> Option<RxItem> {
        fates.clear();
        let stride = item.stride.max(1);
        for i in 0..item.segments().max(1) {
            let len = (item.len - i * stride).min(stride);
            fates.push(self.inbound.path.decide(now, len));
        }
        // What is held back already comes first.
        let none_due = self.inbound.next().is_none_or(|at| at > now);
        if none_due && fates.iter().all(|f| f.is_untouched(now)) {
            return Some(item);
        }
        for (i, fate) in fates.iter().enumerate() {
            let start = i * stride;
            let end = item.len.min(start + stride);
            for at in fate.arrivals.into_iter().flatten() {
                let bytes = &self.inner.rx_bytes(&item)[start..end];
                let bytes = Self::copy(&mut self.spare, bytes, fate.damage);
                let RxItem { socket, remote, local, ecn, .. } = item;
                self.inbound.hold(at, Incoming { socket, remote, local, ecn, bytes });
            }
        }
        self.inner.release(item);
        None
    }

    /// Puts a packet that was held back into an item.
    fn deliver(&mut self, packet: Incoming) -> RxItem {
        let token = self.free.pop().unwrap_or_else(|| {
            self.own.push(None);
            self.own.len() as u32 - 1
        });
        let len = packet.bytes.len();
        self.own[token as usize] = Some(packet.bytes);
        RxItem {
            socket: packet.socket,
            remote: packet.remote,
            local: packet.local,
            len,
            stride: len,
            ecn: packet.ecn,
            token: token | OWN,
        }
    }
}

impl<D: Driver> Driver for FaultDriver<D> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<u16> {
        self.inner.add_socket(socket)
    }

    fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
        self.outbound.waiting.retain(|due| due.what.meta.socket != socket);
        self.inbound.waiting.retain(|due| due.what.socket != socket);
        self.ready.retain(|packet| packet.meta.socket != socket);
        self.inner.remove_socket(socket)
    }

    fn lend(&mut self) -> Option<TxBuf> {
        self.inner.lend()
    }

    fn bytes(&mut self, buf: &mut TxBuf) -> &mut [u8] {
        self.inner.bytes(buf)
    }

    fn give_back(&mut self, buf: TxBuf) {
        self.inner.give_back(buf);
    }

    fn send(&mut self, mut buf: TxBuf, meta: TxMeta) {
        let in_line = !self.ready.is_empty() || !self.outbound.waiting.is_empty();
        if !self.concerns(meta.remote) || (self.outbound.path.faults.is_none() && !in_line) {
            self.inner.send(buf, meta);
            return;
        }
        let now = self.inner.now();
        let segment = if meta.segment == 0 { meta.len } else { meta.segment.min(meta.len) };
        let count = if segment == 0 { 1 } else { meta.len.div_ceil(segment) };
        let fates: Vec<_> = (0..count)
            .map(|i| self.outbound.path.decide(now, (meta.len - i * segment).min(segment)))
            .collect();
        self.pump(now);
        let none_due = self.ready.is_empty();
        if none_due && fates.iter().all(|f| f.is_untouched(now)) {
            self.inner.send(buf, meta);
            return;
        }
        for (i, fate) in fates.iter().enumerate() {
            let start = i * segment;
            let end = meta.len.min(start + segment);
            for at in fate.arrivals.into_iter().flatten() {
                let bytes = &self.inner.bytes(&mut buf)[start..end];
                let bytes = Self::copy(&mut self.spare, bytes, fate.damage);
                let meta = TxMeta { len: bytes.len(), segment: bytes.len(), ..meta };
                self.outbound.hold(at, Outgoing { meta, bytes });
            }
        }
        self.inner.give_back(buf);
        self.pump(now);
    }

    fn flush(&mut self) -> io::Result<()> {
        let now = self.inner.now();
        self.pump(now);
        self.inner.flush()
    }

    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()> {
        let now = self.inner.now();
        self.pump(now);
        let next = [self.outbound.next(), self.inbound.next()].into_iter().flatten().min();
        let mut limit = next.map(|at| at.saturating_duration_since(now));
        if !self.ready.is_empty() {
            limit =
                Some(limit.map_or(Duration::from_millis(1), |l| l.min(Duration::from_millis(1))));
        }
        let timeout = match (timeout, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let start = batch.rx.len();
        self.inner.poll(timeout, batch)?;
        let now = self.inner.now();
        if !self.inbound.path.faults.is_none() || !self.inbound.waiting.is_empty() {
            let mut fates = Vec::new();
            let arrived: Vec<RxItem> = batch.rx.drain(start..).collect();
            for item in arrived {
                if self.concerns(item.remote) {
                    let untouched = self.sift(item, now, &mut fates);
                    batch.rx.extend(untouched);
                } else {
                    batch.rx.push(item);
                }
            }
        }
        let mut delivered = 0;
        while delivered < MAX_DELIVERED
            && let Some(packet) = self.inbound.due(now)
        {
            let item = self.deliver(packet);
            batch.rx.push(item);
            delivered += 1;
        }
        if self.pump(now) {
            self.inner.flush()?;
        }
        let held = self.inbound.waiting.len() + self.outbound.waiting.len() + self.ready.len();
        // The descriptor does not tell when held packets are due.
        batch.more |= delivered == MAX_DELIVERED || (self.embedded.get() && held > 0);
        Ok(())
    }

    fn received(&mut self, item: &RxItem) -> (&mut [u8], Retainer<'_>) {
        if item.token & OWN == 0 {
            return self.inner.received(item);
        }
        let own = self.own.get_mut((item.token & !OWN) as usize).and_then(Option::as_mut);
        (own.map_or(&mut [], |bytes| bytes.as_mut_slice()), Retainer::none())
    }

    fn release(&mut self, item: RxItem) {
        if item.token & OWN == 0 {
            self.inner.release(item);
            return;
        }
        let index = item.token & !OWN;
        if let Some(bytes) = self.own.get_mut(index as usize).and_then(Option::take) {
            self.keep_spare(bytes);
            self.free.push(index);
        }
    }

    // Faults are of datagrams: a stream is what TCP makes of them.

    fn listen_streams(&mut self, listener: TcpListener) -> io::Result<u16> {
        self.inner.listen_streams(listener)
    }

    fn unlisten_streams(&mut self, listener: u16) -> io::Result<()> {
        self.inner.unlisten_streams(listener)
    }

    fn connect_stream(&mut self, remote: SocketAddr) -> io::Result<StreamId> {
        self.inner.connect_stream(remote)
    }

    fn read_stream(&mut self, stream: StreamId, on: bool) {
        self.inner.read_stream(stream, on);
    }

    fn stream_buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        self.inner.stream_buffer(stream)
    }

    fn send_stream(&mut self, stream: StreamId, len: usize) -> bool {
        self.inner.send_stream(stream, len)
    }

    fn shutdown_stream(&mut self, stream: StreamId) {
        self.inner.shutdown_stream(stream);
    }

    fn close_stream(&mut self, stream: StreamId) {
        self.inner.close_stream(stream);
    }

    fn abort_stream(&mut self, stream: StreamId) {
        self.inner.abort_stream(stream);
    }

    fn stream_backlog(&mut self, stream: StreamId) -> usize {
        self.inner.stream_backlog(stream)
    }

    fn stream_bytes(&mut self, bytes: &StreamBytes) -> (&mut [u8], Retainer<'_>) {
        self.inner.stream_bytes(bytes)
    }

    fn release_stream(&mut self, bytes: StreamBytes) {
        self.inner.release_stream(bytes);
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn fd(&self) -> Option<i32> {
        self.embedded.set(true);
        self.inner.fd()
    }

    fn stats(&self) -> &DriverStats {
        self.inner.stats()
    }

    fn buffers(&self) -> Buffers {
        self.inner.buffers()
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }
}

#[cfg(test)]
mod tests;
