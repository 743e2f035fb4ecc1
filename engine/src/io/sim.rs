//! A network in memory: drivers that reach each other by address, without sockets, with seeded
//! loss, delay and the rest of [`Faults`], under a virtual clock or the real one.
//!
//! Under the virtual clock nothing sleeps: `poll` gives what is due at [`SimNetwork::now`], and the
//! test moves the clock. One thread and one seed give the same bytes every time. Under the real
//! clock drivers on different threads sleep and wake as real ones do.

use super::impair::{Due, FaultStats, Faults, Impairment, damage};
use super::waker::{Parking, Signal, Waker};
use super::{
    Batch, Buffers, Capabilities, Driver, DriverConfig, DriverError, DriverStats, MAX_TRAIN,
    RxItem, TxBuf, TxError, TxFailure, TxMeta,
};
use crate::buf::{Retainer, RxPool, TxPool};
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest merged train, as from a kernel.
const MAX_MERGED: usize = 65_000;
/// Bytes waiting at one socket; more are dropped.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// How a simulated network behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct SimConfig {
    /// Of everything random.
    pub seed: u64,
    /// A virtual clock that only [`SimNetwork::advance`] moves; otherwise the real one.
    pub virtual_clock: bool,
    /// Faults between any two addresses without faults of their own.
    pub faults: Faults,
    /// Received datagrams are merged into trains where a kernel could do it.
    pub gro: bool,
    /// Longest UDP payload that the interfaces take; longer ones fail with `TooLarge`.
    pub max_payload: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            virtual_clock: true,
            faults: Faults::NONE,
            gro: true,
            max_payload: MAX_TRAIN,
        }
    }
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    ecn: u8,
    bytes: Vec<u8>,
}

/// A bound address of one driver.
#[derive(Debug)]
struct Port {
    driver: usize,
    socket: u16,
    address: SocketAddr,
    waiting: BinaryHeap<Due<Datagram>>,
    waiting_bytes: usize,
    dropped: u64,
}

#[derive(Debug)]
struct State {
    config: SimConfig,
    start: Instant,
    elapsed: Duration,
    /// In the order in which they were bound.
    ports: Vec<Port>,
    drivers: usize,
    order: u64,
    common: Impairment,
    /// By sender.
    paths: Vec<(SocketAddr, Impairment)>,
    spare: Vec<Vec<u8>>,
}

impl State {
    fn now(&self) -> Instant {
        if self.config.virtual_clock { self.start + self.elapsed } else { Instant::now() }
    }

    /// Who gets a datagram: the exact address before a wildcard; within a group the shard that a
    /// short packet names, otherwise by the sender.
    fn route(&self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) -> Option<usize> {
        let exact = |p: &Port| p.address == to;
        let wildcard = |p: &Port| {
            p.address.ip().is_unspecified()
                && p.address.port() == to.port()
                && p.address.is_ipv4() == to.is_ipv4()
        };
        let group = |matches: &dyn Fn(&Port) -> bool| -> Vec<usize> {
            self.ports.iter().enumerate().filter(|(_, p)| matches(p)).map(|(i, _)| i).collect()
        };
        let mut members = group(&exact);
        if members.is_empty() {
            members = group(&wildcard);
        }
        if let [flags, a, b, ..] = bytes
            && flags & 0xC0 == 0x40
            && let Some(member) = members.get(usize::from(a ^ b))
        {
            return Some(*member);
        }
        members.get(usize::from(from.port()) % members.len().max(1)).copied()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, ecn: u8, bytes: &[u8]) {
        let now = self.now();
        let own = self.paths.iter_mut().find(|(sender, _)| *sender == from);
        let path = own.map_or(&mut self.common, |(_, path)| path);
        let fate = path.decide(now, bytes.len());
        let Some(target) = self.route(to, from, bytes) else { return };
        for at in fate.arrivals.into_iter().flatten() {
            let port = &mut self.ports[target];
            if port.waiting_bytes + bytes.len() > SOCKET_BUFFER {
                port.dropped += 1;
                continue;
            }
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(bytes);
            if let Some(seed) = fate.damage {
                damage(&mut copy, seed);
            }
            self.order += 1;
            port.waiting_bytes += copy.len();
            let what = Datagram { from, to, ecn, bytes: copy };
            port.waiting.push(Due { at, order: self.order, what });
        }
    }

    fn next_arrival(&self, driver: Option<usize>) -> Option<Instant> {
        self.ports
            .iter()
            .filter(|p| driver.is_none_or(|d| p.driver == d))
            .filter_map(|p| p.waiting.peek())
            .map(|due| due.at)
            .min()
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was sent, or a sleeper is to wake.
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SimSignal(Arc<Shared>);

impl Signal for SimSignal {
    fn signal(&self) {
        // A sleeper holds the lock from announcing its sleep until it sleeps.
        let _state = self.0.lock();
        self.0.changed.notify_all();
    }
}

/// See the [module](self). Cloning shares the network.
#[derive(Clone, Debug)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

impl SimNetwork {
    /// An empty network.
    pub fn new(config: &SimConfig) -> Self {
        let state = State {
            config: config.clone(),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            ports: Vec::new(),
            drivers: 0,
            order: 0,
            common: Impairment::new(config.faults, config.seed),
            paths: Vec::new(),
            spare: Vec::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// A driver on this network. Bind its addresses with [`SimDriver::bind`].
    ///
    /// # Errors
    /// `System` when there is no memory.
    pub fn driver(&self, config: &DriverConfig) -> Result<SimDriver, DriverError> {
        let system = |context| move |source| DriverError::System { context, source };
        let config = config.clamped();
        let mut state = self.shared.lock();
        let capabilities = Capabilities {
            max_train: MAX_TRAIN,
            max_segments: config.max_segments,
            headroom: 0,
            gro: state.config.gro && config.gro,
            gso: config.gso,
            ecn: true,
            rx_time: false,
        };
        state.drivers += 1;
        Ok(SimDriver {
            network: self.clone(),
            number: state.drivers,
            sockets: Vec::new(),
            queue: Vec::new(),
            failures: Vec::new(),
            parking: Parking::new(Box::new(SimSignal(self.shared.clone()))),
            rx: RxPool::new(config.rx_buffers, config.rx_buffer_bytes, config.lease_reserve)
                .map_err(system("allocating receive buffers"))?,
            tx: TxPool::new(config.tx_buffers, MAX_TRAIN)
                .map_err(system("allocating transmit buffers"))?,
            config,
            capabilities,
            stats: DriverStats::default(),
        })
    }

    /// The time on the network.
    pub fn now(&self) -> Instant {
        self.shared.lock().now()
    }

    /// Moves the virtual clock; nothing under the real one.
    pub fn advance(&self, by: Duration) {
        let mut state = self.shared.lock();
        state.elapsed += by;
        self.shared.changed.notify_all();
    }

    /// When the next datagram arrives anywhere; it may be due already.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.shared.lock().next_arrival(None)
    }

    /// Faults from now on of everything without faults of its own.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().common.faults = faults;
    }

    /// Faults from now on of what `sender` sends. (A loss of 1 in both directions: it vanished.)
    pub fn set_faults_from(&self, sender: SocketAddr, faults: Faults) {
        let mut state = self.shared.lock();
        if let Some((_, path)) = state.paths.iter_mut().find(|(from, _)| *from == sender) {
            path.faults = faults;
            return;
        }
        let seed =
            state.config.seed ^ (state.paths.len() as u64 + 1).wrapping_mul(0x0123_4567_89AB);
        state.paths.push((sender, Impairment::new(faults, seed)));
    }

    /// What was done to packets that had no faults of their own.
    pub fn fault_stats(&self) -> FaultStats {
        self.shared.lock().common.stats
    }

    /// A bound address becomes another, as behind a NAT that forgot: what its driver sends comes
    /// from `new`, what is sent to `old` from now on is lost. `false` when `old` is not bound.
    pub fn rebind(&self, old: SocketAddr, new: SocketAddr) -> bool {
        let mut state = self.shared.lock();
        let Some(port) = state.ports.iter_mut().find(|p| p.address == old) else { return false };
        port.address = new;
        true
    }
}

/// A driver on a [`SimNetwork`].
#[derive(Debug)]
pub struct SimDriver {
    network: SimNetwork,
    number: usize,
    /// Numbers in use.
    sockets: Vec<bool>,
    queue: Vec<(TxBuf, TxMeta)>,
    failures: Vec<TxFailure>,
    parking: Arc<Parking>,
    rx: RxPool,
    tx: TxPool,
    config: DriverConfig,
    capabilities: Capabilities,
    stats: DriverStats,
}

impl SimDriver {
    /// Binds an address. Several drivers that bind the same one form a group, in that order, with
    /// the steering of a real one.
    ///
    /// # Errors
    /// `InvalidInput` when all socket numbers are taken, `AddrInUse` when this driver has it.
    pub fn bind(&mut self, address: SocketAddr) -> io::Result<u16> {
        let mut state = self.network.shared.lock();
        if state.ports.iter().any(|p| p.driver == self.number && p.address == address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let number = match self.sockets.iter().position(|used| !used) {
            Some(free) => free,
            None if self.sockets.len() < self.config.max_sockets => {
                self.sockets.push(false);
                self.sockets.len() - 1
            }
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        self.sockets[number] = true;
        let socket = number as u16;
        state.ports.push(Port {
            driver: self.number,
            socket,
            address,
            waiting: BinaryHeap::new(),
            waiting_bytes: 0,
            dropped: 0,
        });
        Ok(socket)
    }

    fn send_train(&mut self, state: &mut State, buf: &TxBuf, meta: &TxMeta) -> Result<(), TxError> {
        let port = state
            .ports
            .iter()
            .find(|p| p.driver == self.number && p.socket == meta.socket)
            .ok_or(TxError::Unreachable)?;
        let mut from = port.address;
        if from.is_ipv4() != meta.remote.is_ipv4() {
            return Err(TxError::Unreachable);
        }
        if from.ip().is_unspecified() {
            let any: IpAddr = if from.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            from.set_ip(meta.local.unwrap_or(any));
        }
        let segment = if meta.segment == 0 { meta.len } else { meta.segment.min(meta.len) };
        if meta.len > MAX_TRAIN || segment > state.config.max_payload {
            return Err(TxError::TooLarge);
        }
        let bytes = &self.tx.bytes(buf.index)[..meta.len];
        let mut packets = 0;
        for packet in bytes.chunks(segment.max(1)).chain(bytes.is_empty().then_some(&[][..])) {
            state.send(from, meta.remote, meta.ecn & 3, packet);
            packets += 1;
        }
        self.stats.tx_trains += 1;
        self.stats.tx_packets += packets;
        self.stats.tx_bytes += meta.len as u64;
        self.stats.tx_gso += u64::from(packets > 1);
        Ok(())
    }

    /// Delivers what is due, merged where a kernel could do it.
    fn harvest(&mut self, state: &mut State, batch: &mut Batch, start_len: usize) {
        let now = state.now();
        let State { ports, spare, .. } = state;
        let is_due = |port: &Port| port.waiting.peek().is_some_and(|due| due.at <= now);
        while batch.rx.len() - start_len < self.config.max_batch {
            // The earliest of all sockets.
            let earliest = ports
                .iter_mut()
                .filter(|p| p.driver == self.number && is_due(p))
                .max_by(|a, b| a.waiting.peek().cmp(&b.waiting.peek()));
            let Some(port) = earliest else { return };
            let Some(index) = self.rx.take() else {
                self.stats.rx_no_buffer += 1;
                return;
            };
            let mut item = RxItem {
                socket: port.socket,
                remote: port.address,
                local: None,
                len: 0,
                stride: 0,
                ecn: 0,
                token: index,
            };
            let (mut packets, most) = (0, self.config.rx_buffer_bytes.min(MAX_MERGED));
            while let Some(due) = port.waiting.peek()
                && due.at <= now
            {
                let next = &due.what;
                let merges = self.capabilities.gro
                    && (packets as usize) < super::MAX_SEGMENTS
                    && item.len == item.stride * packets as usize
                    && !next.bytes.is_empty()
                    && next.bytes.len() <= item.stride
                    && item.len + next.bytes.len() <= most
                    && (item.remote, item.local, item.ecn)
                        == (next.from, Some(next.to.ip()), next.ecn);
                if packets > 0 && !merges {
                    break;
                }
                let Some(due) = port.waiting.pop() else { break };
                let datagram = due.what;
                port.waiting_bytes -= datagram.bytes.len();
                self.rx.with_slices::<1, _>(&[index], 0, |slices| {
                    slices[0][item.len..][..datagram.bytes.len()].copy_from_slice(&datagram.bytes);
                });
                if packets == 0 {
                    (item.remote, item.local) = (datagram.from, Some(datagram.to.ip()));
                    (item.stride, item.ecn) = (datagram.bytes.len(), datagram.ecn);
                }
                item.len += datagram.bytes.len();
                packets += 1;
                spare.push(datagram.bytes);
            }
            self.rx.hold(index);
            self.stats.rx_items += 1;
            self.stats.rx_packets += packets;
            self.stats.rx_bytes += item.len as u64;
            self.stats.rx_gro += u64::from(packets > 1);
            batch.rx.push(item);
        }
    }

    fn flush_locked(&mut self, state: &mut State) -> bool {
        let sent = !self.queue.is_empty();
        for (buf, meta) in std::mem::take(&mut self.queue) {
            if let Err(error) = self.send_train(state, &buf, &meta) {
                self.stats.tx_failed += 1;
                self.failures.push(TxFailure { meta, error });
            }
            self.tx.put(buf.index);
        }
        sent
    }
}

impl Driver for SimDriver {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Binds the socket's address on the simulated network; the socket itself is closed.
    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<u16> {
        self.bind(socket.local_addr()?)
    }

    fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
        self.flush()?;
        let used = self.sockets.get_mut(usize::from(socket)).filter(|used| **used);
        *used.ok_or(io::ErrorKind::NotFound)? = false;
        let number = self.number;
        let mut state = self.network.shared.lock();
        state.ports.retain(|p| p.driver != number || p.socket != socket);
        Ok(())
    }

    fn lend(&mut self) -> Option<TxBuf> {
        let Some(index) = self.tx.take() else {
            self.stats.tx_no_buffer += 1;
            return None;
        };
        Some(TxBuf { index })
    }

    fn bytes(&mut self, buf: &mut TxBuf) -> &mut [u8] {
        self.tx.bytes_mut(buf.index)
    }

    fn give_back(&mut self, buf: TxBuf) {
        self.tx.put(buf.index);
    }

    fn send(&mut self, buf: TxBuf, meta: TxMeta) {
        self.queue.push((buf, meta));
    }

    fn flush(&mut self) -> io::Result<()> {
        let network = self.network.clone();
        let mut state = network.shared.lock();
        if self.flush_locked(&mut state) {
            network.shared.changed.notify_all();
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()> {
        self.rx.reclaim();
        let start_len = batch.rx.len();
        let network = self.network.clone();
        let mut state = network.shared.lock();
        if self.flush_locked(&mut state) {
            network.shared.changed.notify_all();
        }
        let deadline = timeout.map(|t| state.now() + t);
        loop {
            self.harvest(&mut state, batch, start_len);
            let now = state.now();
            let over = deadline.is_some_and(|d| d <= now);
            if batch.rx.len() > start_len
                || !self.failures.is_empty()
                || over
                || state.config.virtual_clock
                || !self.parking.park()
            {
                break;
            }
            self.stats.sleeps += 1;
            let arrival = state.next_arrival(Some(self.number));
            let until = [deadline, arrival].into_iter().flatten().min();
            let changed = &network.shared.changed;
            state = match until {
                // Due, but no buffer to put it in.
                Some(at) if at <= now => {
                    let step = Duration::from_millis(1);
                    changed.wait_timeout(state, step).map_or_else(|e| e.into_inner().0, |r| r.0)
                }
                Some(at) => {
                    changed.wait_timeout(state, at - now).map_or_else(|e| e.into_inner().0, |r| r.0)
                }
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            if self.parking.is_notified() {
                self.harvest(&mut state, batch, start_len);
                break;
            }
        }
        if self.parking.unpark() {
            self.stats.wakes += 1;
        }
        let now = state.now();
        batch.more = state.next_arrival(Some(self.number)).is_some_and(|at| at <= now);
        self.stats.rx_dropped =
            state.ports.iter().filter(|p| p.driver == self.number).map(|p| p.dropped).sum();
        drop(state);
        batch.failures.append(&mut self.failures);
        (self.stats.leases, self.stats.leases_refused) = self.rx.lease_counts();
        Ok(())
    }

    fn received(&mut self, item: &RxItem) -> (&mut [u8], Retainer<'_>) {
        self.rx.open(item.token, 0, item.len)
    }

    fn release(&mut self, item: RxItem) {
        self.rx.release(item.token);
    }

    fn waker(&self) -> Waker {
        self.parking.waker()
    }

    fn fd(&self) -> Option<i32> {
        None
    }

    fn stats(&self) -> &DriverStats {
        &self.stats
    }

    fn buffers(&self) -> Buffers {
        let (rx, tx) = (&self.rx, &self.tx);
        Buffers { rx: rx.count(), rx_free: rx.free(), tx: tx.count(), tx_free: tx.free() }
    }

    fn now(&self) -> Instant {
        self.network.now()
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        let number = self.number;
        self.network.shared.lock().ports.retain(|p| p.driver != number);
    }
}

#[cfg(test)]
mod tests;
