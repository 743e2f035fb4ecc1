//! The driver on readiness, through the `mio` crate: works wherever mio does. On Linux many trains
//! travel in one recvmmsg or sendmmsg call, with segmentation and merging by the kernel.
//!
//! Sockets are registered edge-triggered: a socket that has become readable is read, over as many
//! polls as the cap on a batch takes, until it gives less than was asked for.

mod streams;

use super::arrive::Arrivals;
use super::stream::{StreamBytes, StreamId, shorter};
use super::train::{Cut, RefusedPaths, Train};
use super::waker::{Parking, Signal, Waker};
use super::{
    Batch, Buffers, Capabilities, Driver, DriverConfig, DriverError, DriverStats, MAX_TRAIN,
    RxItem, TxBuf, TxError, TxFailure, TxMeta,
};
use crate::buf::{Retainer, RxPool, TxPool};
use crate::sys::{self, Outgoing, RecvBatch, SendBatch};
use ::mio::net::UdpSocket as MioSocket;
use ::mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
#[cfg(unix)]
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use streams::Streams;

const WAKE: Token = Token(usize::MAX);
/// Messages in one receive call.
const RECV_BATCH: usize = 32;
/// Events of streams taken from the selector at once.
const STREAM_EVENTS: usize = 256;
/// Messages in one send call.
const SEND_BATCH: usize = 64;
/// Polls in a row that may go without asking for events while sockets are known to be readable.
const POLLS_WITHOUT_EVENTS: u32 = 16;
/// Sleeps shorter than this are timed by the nanosecond; the selector counts milliseconds.
#[cfg(target_os = "linux")]
const PRECISE_SLEEP: Duration = Duration::from_millis(5);
/// Longest sleep while a socket cannot be read because every receive buffer is held.
const STARVED_SLEEP: Duration = Duration::from_millis(1);

impl Signal for ::mio::Waker {
    fn signal(&self) {
        // It fails only when the selector is gone, and with it the sleeper.
        let _ = self.wake();
    }
}

#[derive(Debug)]
struct Slot {
    socket: MioSocket,
    arrivals: Arrivals,
    /// May have datagrams waiting.
    readable: bool,
    /// Had no room for the first of `queue`; an event will tell when it has.
    blocked: bool,
    queue: VecDeque<Train>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct MioDriver {
    selector: Poll,
    events: Events,
    parking: Arc<Parking>,
    slots: Vec<Option<Slot>>,
    /// Where the next poll starts to look for datagrams, so that no socket starves the others.
    next_socket: usize,
    polls_without_events: u32,
    rx: RxPool,
    tx: TxPool,
    recv: RecvBatch,
    send: SendBatch,
    /// Buffers of one receive call.
    indices: Vec<u32>,
    /// Parts of one send call: position in the queue, and bytes done after it.
    parts: Vec<(usize, usize)>,
    failures: Vec<TxFailure>,
    refused: RefusedPaths,
    streams: Streams,
    config: DriverConfig,
    capabilities: Capabilities,
    stats: DriverStats,
}

impl MioDriver {
    /// Allocates the pools and the selector.
    ///
    /// # Errors
    /// `System` when the system is out of memory or descriptors.
    pub fn new(config: &DriverConfig) -> Result<Self, DriverError> {
        let system = |context| move |source| DriverError::System { context, source };
        let config = config.clamped();
        let selector = Poll::new().map_err(system("creating a selector"))?;
        let waker =
            ::mio::Waker::new(selector.registry(), WAKE).map_err(system("creating a waker"))?;
        let (gso, gro) = sys::offloads();
        let capabilities = Capabilities {
            max_train: MAX_TRAIN,
            max_segments: config.max_segments,
            headroom: 0,
            gro: gro && config.gro,
            gso: gso && config.gso,
            ecn: cfg!(target_os = "linux"),
            rx_time: false,
        };
        let rx = RxPool::new(config.rx_buffers, config.rx_buffer_bytes, config.lease_reserve)
            .map_err(system("allocating receive buffers"))?;
        let tx = TxPool::new(config.tx_buffers, MAX_TRAIN)
            .map_err(system("allocating transmit buffers"))?;
        Ok(Self {
            selector,
            events: Events::with_capacity(config.max_sockets + 1 + STREAM_EVENTS),
            parking: Parking::new(Box::new(waker)),
            slots: Vec::new(),
            next_socket: 0,
            polls_without_events: 0,
            rx,
            tx,
            recv: RecvBatch::new(RECV_BATCH),
            send: SendBatch::new(SEND_BATCH),
            indices: Vec::with_capacity(RECV_BATCH),
            parts: Vec::with_capacity(SEND_BATCH),
            failures: Vec::new(),
            refused: RefusedPaths::default(),
            streams: Streams::default(),
            config,
            capabilities,
            stats: DriverStats::default(),
        })
    }

    /// Sends what is queued at one socket until it is empty or the socket is full.
    fn flush_socket(&mut self, number: usize) -> io::Result<()> {
        let Some(Some(slot)) = self.slots.get_mut(number) else { return Ok(()) };
        while !slot.queue.is_empty() && !slot.blocked {
            let max_segments = self.config.max_segments;
            self.parts.clear();
            'plan: for (position, train) in slot.queue.iter().enumerate() {
                let mut from = train.done;
                loop {
                    if self.parts.len() == SEND_BATCH {
                        break 'plan;
                    }
                    from += train.part(from, max_segments).len;
                    self.parts.push((position, from));
                    if train.is_end(from) {
                        break;
                    }
                }
            }
            let (queue, tx, wildcard) = (&slot.queue, &self.tx, slot.arrivals.facts.wildcard);
            let messages = self.parts.iter().enumerate().map(|(i, &(position, end))| {
                let train = &queue[position];
                let start = match i.checked_sub(1).map(|before| self.parts[before]) {
                    Some((before, end)) if before == position => end,
                    _ => train.done,
                };
                Outgoing {
                    remote: train.meta.remote,
                    local: train.meta.local.filter(|_| wildcard),
                    bytes: &tx.bytes(train.buf.index)[start..end],
                    segment: train.meta.segment,
                    ecn: train.meta.ecn,
                }
            });
            self.stats.syscalls += 1;
            match slot.socket.try_io(|| self.send.send(&slot.socket, messages)) {
                Ok(sent) => {
                    for _ in 0..sent {
                        let (refused, stats) = (&mut self.refused, &mut self.stats);
                        if let Some(buf) = Self::sent(slot, max_segments, refused, stats) {
                            self.tx.put(buf.index);
                        }
                    }
                }
                Err(error) if sys::is_blocked(&error) => {
                    self.stats.tx_blocked += 1;
                    slot.blocked = true;
                    self.selector.registry().reregister(
                        &mut slot.socket,
                        Token(number),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                }
                Err(error) => {
                    if let Some(failure) = Self::failed(slot, &error, &mut self.stats) {
                        self.failures.push(failure.0);
                        self.tx.put(failure.1.index);
                    }
                }
            }
        }
        Ok(())
    }

    /// The first part in the queue was sent. Returns the buffer of a train that is done.
    fn sent(
        slot: &mut Slot,
        max_segments: usize,
        refused: &mut RefusedPaths,
        stats: &mut DriverStats,
    ) -> Option<TxBuf> {
        let done = slot.queue.front_mut()?.advance(max_segments, refused, stats);
        if done { slot.queue.pop_front().map(|train| train.buf) } else { None }
    }

    /// The first part in the queue was refused with `error`. Returns the train if that is final.
    fn failed(
        slot: &mut Slot,
        error: &io::Error,
        stats: &mut DriverStats,
    ) -> Option<(TxFailure, TxBuf)> {
        if slot.queue.front_mut()?.retries_uncut(error, stats) {
            return None;
        }
        stats.tx_failed += 1;
        let train = slot.queue.pop_front()?;
        Some((TxFailure { meta: train.meta, error: sys::tx_error(error) }, train.buf))
    }

    /// Reads a socket into `batch` until it is empty, the batch full or no buffer free.
    fn read_socket(&mut self, number: usize, batch: &mut Batch, start_len: usize) {
        let Some(Some(slot)) = self.slots.get_mut(number) else { return };
        while slot.readable {
            let room = self.config.max_batch - (batch.rx.len() - start_len);
            if room == 0 {
                return;
            }
            self.indices.clear();
            while self.indices.len() < room.min(RECV_BATCH)
                && let Some(index) = self.rx.take()
            {
                self.indices.push(index);
            }
            if self.indices.is_empty() {
                self.stats.rx_no_buffer += 1;
                return;
            }
            self.stats.syscalls += 1;
            let (socket, recv) = (&slot.socket, &mut self.recv);
            let result = self.rx.with_slices::<RECV_BATCH, _>(&self.indices, 0, |slices| {
                socket.try_io(|| recv.recv(socket, slices))
            });
            let count = match result {
                Ok(count) => count,
                // Another error is one that was pending: the next poll reads on.
                Err(error) => {
                    slot.readable = error.kind() != io::ErrorKind::WouldBlock;
                    self.put_indices();
                    return;
                }
            };
            for (i, &index) in self.indices.iter().enumerate() {
                let item = (i < count)
                    .then(|| slot.arrivals.item(index, self.recv.message(i), &mut self.stats))
                    .flatten();
                if let Some(item) = item {
                    self.rx.hold(index);
                    batch.rx.push(item);
                } else {
                    self.rx.put(index);
                }
            }
            slot.readable = count == self.indices.len();
        }
    }

    fn put_indices(&mut self) {
        for &index in &self.indices {
            self.rx.put(index);
        }
    }

    /// Takes events, sleeping for at most `timeout`.
    fn take_events(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.polls_without_events = 0;
        self.stats.syscalls += 1;
        #[cfg(target_os = "linux")]
        let timeout = match timeout {
            Some(time) if !time.is_zero() && time < PRECISE_SLEEP => {
                self.stats.syscalls += 1;
                sys::sleep_readable(self.selector.as_raw_fd(), time)?;
                Some(Duration::ZERO)
            }
            other => other,
        };
        match self.selector.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e),
        }
        for event in &self.events {
            if self.streams.on_event(event) {
                continue;
            }
            let Some(Some(slot)) = self.slots.get_mut(event.token().0) else { continue };
            if event.is_readable() || event.is_error() {
                slot.readable = true;
            }
            if event.is_writable() && slot.blocked {
                slot.blocked = false;
                self.selector.registry().reregister(
                    &mut slot.socket,
                    event.token(),
                    Interest::READABLE,
                )?;
            }
        }
        Ok(())
    }
}

impl Driver for MioDriver {
    fn name(&self) -> &'static str {
        "mio"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<u16> {
        let facts = sys::configure(&socket, self.config.gro)?;
        let number = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < self.config.max_sockets => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "all socket numbers of the driver are taken",
                ));
            }
        };
        let mut socket = MioSocket::from_std(socket);
        self.selector.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        self.slots[number] = Some(Slot {
            socket,
            arrivals: Arrivals::new(number as u16, facts),
            readable: true,
            blocked: false,
            queue: VecDeque::new(),
        });
        Ok(number as u16)
    }

    fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
        let number = usize::from(socket);
        if !matches!(self.slots.get(number), Some(Some(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flushed = self.flush_socket(number);
        if let Some(mut slot) = self.slots[number].take() {
            for train in slot.queue.drain(..) {
                self.tx.put(train.buf.index);
            }
            self.selector.registry().deregister(&mut slot.socket)?;
        }
        flushed
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
        let Some(Some(slot)) = self.slots.get_mut(usize::from(meta.socket)) else {
            self.tx.put(buf.index);
            self.failures.push(TxFailure { meta, error: TxError::Unreachable });
            return;
        };
        if meta.len > MAX_TRAIN {
            self.tx.put(buf.index);
            self.failures.push(TxFailure { meta, error: TxError::TooLarge });
            return;
        }
        let system = self.capabilities.gso
            && slot.arrivals.facts.gso
            && !self.refused.contains(meta.remote.ip());
        let cut = if system { Cut::System } else { Cut::Here };
        slot.queue.push_back(Train::new(buf, meta, cut));
    }

    fn flush(&mut self) -> io::Result<()> {
        for number in 0..self.slots.len() {
            self.flush_socket(number)?;
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()> {
        self.flush()?;
        self.rx.reclaim();
        let start_len = batch.rx.len();
        let start_streams = batch.streams.len();
        let readable = self.slots.iter().flatten().any(|s| s.readable) || self.streams.has_news();
        let blocked = self.slots.iter().flatten().any(|s| s.blocked);
        if readable || !self.failures.is_empty() {
            self.polls_without_events += 1;
            if blocked
                || !self.streams.is_empty()
                || self.polls_without_events >= POLLS_WITHOUT_EVENTS
            {
                self.take_events(Some(Duration::ZERO))?;
            }
        }
        self.read_sockets(batch, start_len);
        self.poll_streams(batch);
        // What was thought to be readable may have been empty, or no buffer free for it.
        let quiet = batch.rx.len() == start_len && batch.streams.len() == start_streams;
        if quiet && self.failures.is_empty() {
            let starved = self.slots.iter().flatten().any(|s| s.readable);
            let limit = if starved { Some(STARVED_SLEEP) } else { None };
            let limit = shorter(limit, self.streams.longest_sleep(STARVED_SLEEP));
            let timeout = shorter(timeout, limit);
            let awake = timeout.is_some_and(|t| t.is_zero()) || !self.parking.park();
            self.stats.sleeps += u64::from(!awake);
            self.stats.rx_starved += u64::from(!awake && starved);
            self.take_events(if awake { Some(Duration::ZERO) } else { timeout })?;
            self.read_sockets(batch, start_len);
            self.poll_streams(batch);
        }
        if self.parking.unpark() {
            self.stats.wakes += 1;
        }
        batch.failures.append(&mut self.failures);
        batch.more = self.slots.iter().flatten().any(|s| s.readable) || self.streams.has_news();
        Ok(())
    }

    fn listen_streams(&mut self, listener: TcpListener) -> io::Result<u16> {
        self.streams.listen(self.selector.registry(), listener)
    }

    fn unlisten_streams(&mut self, listener: u16) -> io::Result<()> {
        self.streams.unlisten(self.selector.registry(), listener)
    }

    fn connect_stream(&mut self, remote: SocketAddr) -> io::Result<StreamId> {
        self.streams.connect(self.selector.registry(), remote)
    }

    fn read_stream(&mut self, stream: StreamId, on: bool) {
        self.streams.read(stream, on);
    }

    fn stream_buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        self.streams.buffer(stream)
    }

    fn send_stream(&mut self, stream: StreamId, len: usize) -> bool {
        self.stats.syscalls += 1;
        self.streams.send(stream, len)
    }

    fn shutdown_stream(&mut self, stream: StreamId) {
        self.streams.shutdown(stream);
    }

    fn close_stream(&mut self, stream: StreamId) {
        self.streams.close(self.selector.registry(), stream);
    }

    fn abort_stream(&mut self, stream: StreamId) {
        self.streams.abort(self.selector.registry(), stream);
    }

    fn stream_backlog(&mut self, stream: StreamId) -> usize {
        self.streams.backlog(stream)
    }

    fn stream_bytes(&mut self, bytes: &StreamBytes) -> (&mut [u8], Retainer<'_>) {
        self.rx.open(bytes.token, 0, bytes.len)
    }

    fn release_stream(&mut self, bytes: StreamBytes) {
        self.rx.release(bytes.token);
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

    #[cfg(unix)]
    fn fd(&self) -> Option<i32> {
        self.parking.embed();
        Some(self.selector.as_raw_fd())
    }

    #[cfg(not(unix))]
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
}

impl MioDriver {
    fn poll_streams(&mut self, batch: &mut Batch) {
        let registry = self.selector.registry();
        self.streams.poll(registry, &mut self.rx, &mut batch.streams, self.config.max_batch);
        self.stats.accepts_paused = self.streams.pauses;
    }

    fn read_sockets(&mut self, batch: &mut Batch, start_len: usize) {
        let count = self.slots.len();
        for i in 0..count {
            let number = (self.next_socket + i) % count;
            self.read_socket(number, batch, start_len);
        }
        if count > 0 {
            self.next_socket = (self.next_socket + 1) % count;
        }
        (self.stats.leases, self.stats.leases_refused) = self.rx.lease_counts();
    }
}
