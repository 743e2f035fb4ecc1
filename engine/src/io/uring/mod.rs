//! The driver on io_uring: multishot receives into a ring of provided buffers, batched sends, one
//! system call a turn when busy.
//!
//! Memory that the kernel may touch (buffers, message headers) outlives every request: dropping the
//! driver cancels and waits, and if the kernel does not finish, leaks rather than frees.

mod messages;
mod provided;
mod ring;
mod wake;

use super::train::{Cut, RefusedPaths, Train};
use super::waker::{Parking, Waker};
use super::{
    Batch, Capabilities, Driver, DriverConfig, DriverError, DriverStats, MAX_TRAIN, RxItem, TxBuf,
    TxError, TxFailure, TxMeta,
};
use crate::buf::{Retainer, RxPool, TxPool};
use crate::sys::linux::EventFd;
use crate::sys::{self, Outgoing, SendBatch, SocketFacts};
use io_uring::{cqueue, opcode, types};
use messages::{PAYLOAD, ReceiveHeader, SendSlots};
use provided::{BufferRing, GROUP};
use ring::{Entered, HARVEST, Ring, explain};
use std::cell::OnceCell;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;
use wake::{RingSignal, SharedSignal};

/// What a completion belongs to: the upper half of its user data. The lower half is a number.
mod kind {
    pub(super) const RECEIVE: u64 = 1 << 32;
    pub(super) const SEND: u64 = 2 << 32;
    pub(super) const WAKE: u64 = 3 << 32;
    pub(super) const IGNORE: u64 = 4 << 32;
    pub(super) const MASK: u64 = !0 << 32;
}

/// Longest sleep while a socket cannot be read because every receive buffer is held.
const STARVED_SLEEP: Duration = Duration::from_millis(1);
/// How long dropping waits for the kernel, in steps.
const DRAIN_STEP: Duration = Duration::from_millis(20);
const DRAIN_STEPS: u32 = 100;

#[derive(Debug)]
struct Slot {
    socket: UdpSocket,
    facts: SocketFacts,
    /// A multishot receive is under way.
    armed: bool,
    /// Being removed: waits for its requests.
    closing: bool,
    /// Sends under way.
    sends: usize,
    /// It was armed before: arming again is counted.
    known: bool,
    /// Drops reported so far.
    dropped: u32,
}

/// Everything that the kernel reads or writes while requests are under way.
#[derive(Debug)]
struct KernelMemory {
    rx: RxPool,
    tx: TxPool,
    provided: BufferRing,
    sends: SendSlots,
    receive: ReceiveHeader,
}

/// See the [module](self). Made on the thread that uses it, unless
/// [`DriverConfig::thread_bound`] is off.
#[derive(Debug)]
pub struct UringDriver {
    ring: Ring,
    memory: ManuallyDrop<KernelMemory>,
    slots: Vec<Option<Slot>>,
    /// By number of the transmit buffer.
    trains: Box<[Option<Train>]>,
    /// Buffers that the kernel has.
    posted: usize,
    /// Sockets to arm.
    unarmed: usize,
    /// Requests that will have a completion: receives, sends, the poll of the eventfd.
    under_way: usize,
    /// Polling the eventfd.
    wake_armed: bool,
    parking: Arc<Parking>,
    signal: Arc<RingSignal>,
    /// For a foreign event loop: polling the ring itself does not tell of deferred work.
    foreign: OnceCell<EventFd>,
    sync_send: SendBatch,
    failures: Vec<TxFailure>,
    refused: RefusedPaths,
    /// A transmit buffer was wanted and none was free.
    wants_buffer: bool,
    config: DriverConfig,
    capabilities: Capabilities,
    stats: DriverStats,
}

impl UringDriver {
    /// Sets up the ring and the pools.
    ///
    /// # Errors
    /// `Unavailable` with the reason in words when io_uring, or something the driver needs of it,
    /// does not work here; `System` when memory for the pools is missing.
    pub fn new(config: &DriverConfig) -> Result<Self, DriverError> {
        let config = config.clamped();
        let unavailable = |what: &'static str| {
            move |e: io::Error| DriverError::Unavailable {
                driver: "uring",
                reason: explain(what, &e),
            }
        };
        let system = |context| move |source| DriverError::System { context, source };
        let submissions = (config.tx_buffers + config.max_sockets + 16).next_power_of_two().max(64);
        let completions =
            2 * (config.rx_buffers + submissions + 2 * config.max_sockets).next_power_of_two();
        let mut ring = Ring::new(submissions as u32, completions as u32, config.thread_bound)
            .map_err(unavailable("setting up a ring"))?;
        let missing = ring.missing_features();
        if !missing.is_empty() {
            let reason = format!("this kernel is too old: it lacks {}", missing.join(", "));
            return Err(DriverError::Unavailable { driver: "uring", reason });
        }
        ring.submitter()
            .register_files_sparse(config.max_sockets as u32)
            .map_err(unavailable("registering a file table"))?;
        if config.thread_bound
            && let Err(error) = ring.register_descriptor()
        {
            tracing::debug!(%error, "the ring's descriptor is not registered");
        }
        let memory = KernelMemory {
            rx: RxPool::new(
                config.rx_buffers,
                PAYLOAD + config.rx_buffer_bytes,
                config.lease_reserve,
            )
            .map_err(system("allocating receive buffers"))?,
            tx: TxPool::new(config.tx_buffers, MAX_TRAIN)
                .map_err(system("allocating transmit buffers"))?,
            provided: BufferRing::new(&ring.submitter(), config.rx_posted as u16)
                .map_err(unavailable("registering a ring of buffers"))?,
            sends: SendSlots::new(config.tx_buffers),
            receive: ReceiveHeader::new(),
        };
        let signal = Self::signal(&mut ring).map_err(unavailable("creating an eventfd"))?;
        let (gso, gro) = sys::offloads();
        let capabilities = Capabilities {
            max_train: MAX_TRAIN,
            max_segments: config.max_segments,
            headroom: 0,
            gro: gro && config.gro,
            gso: gso && config.gso,
            ecn: true,
            rx_time: false,
        };
        let (used, not_used) = ring.flag_names();
        tracing::debug!(
            flags = used.join(" "),
            not_available = not_used.join(" "),
            wake_by_message = signal.event_fd().is_none(),
            "io_uring is set up"
        );
        Ok(Self {
            ring,
            memory: ManuallyDrop::new(memory),
            slots: Vec::new(),
            trains: (0..config.tx_buffers).map(|_| None).collect(),
            posted: 0,
            unarmed: 0,
            under_way: 0,
            wake_armed: false,
            parking: Parking::new(Box::new(SharedSignal(signal.clone()))),
            signal,
            foreign: OnceCell::new(),
            sync_send: SendBatch::new(64),
            failures: Vec::new(),
            refused: RefusedPaths::default(),
            wants_buffer: false,
            config,
            capabilities,
            stats: DriverStats::default(),
        })
    }

    /// Names of the set-up flags in use, and of those that this kernel does not know.
    pub fn flags(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        self.ring.flag_names()
    }

    /// Whether wakes are messages into the ring; otherwise an eventfd is used.
    pub fn wakes_by_message(&self) -> bool {
        self.signal.event_fd().is_none()
    }

    /// Tries a message; falls back to an eventfd.
    fn signal(ring: &mut Ring) -> io::Result<Arc<RingSignal>> {
        let by_message = wake::send_message(ring.fd(), kind::IGNORE).and_then(|()| {
            ring.wait(Some(Duration::from_millis(100)))?;
            let mut entries = [const { MaybeUninit::uninit() }; 4];
            let arrived = ring.harvest(&mut entries).iter().any(|c| c.user_data() == kind::IGNORE);
            if arrived { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
        });
        match by_message {
            Ok(()) => Ok(RingSignal::message(ring.fd(), kind::WAKE)),
            Err(_) => RingSignal::event(kind::WAKE),
        }
    }

    /// Gives the kernel buffers and starts the receives that are not under way.
    fn prepare(&mut self) -> io::Result<()> {
        let memory = &mut *self.memory;
        memory.rx.reclaim();
        let len = (PAYLOAD + self.config.rx_buffer_bytes) as u32;
        let before = self.posted;
        while self.posted < memory.provided.count()
            && let Some(index) = memory.rx.take()
        {
            memory.provided.push(index as u16, memory.rx.address(index), len);
            self.posted += 1;
        }
        if self.posted != before {
            memory.provided.publish();
        }
        if self.unarmed > 0 && self.posted > 0 {
            self.arm_all()?;
        }
        if !self.wake_armed
            && let Some(fd) = self.signal.event_fd()
        {
            let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).multi(true);
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(&entry.build().user_data(kind::WAKE))? };
            self.wake_armed = true;
            self.under_way += 1;
        }
        Ok(())
    }

    fn arm_all(&mut self) -> io::Result<()> {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            if slot.armed || slot.closing {
                continue;
            }
            let file = types::Fixed(number as u32);
            let entry = opcode::RecvMsgMulti::new(file, self.memory.receive.as_ptr(), GROUP);
            // SAFETY: the header and the buffers of the group live as long as `memory`, which is
            // only freed when no request is under way.
            unsafe {
                self.ring.push(&entry.build().user_data(kind::RECEIVE | number as u64))?;
            }
            slot.armed = true;
            self.unarmed -= 1;
            self.under_way += 1;
            self.stats.rx_rearmed += u64::from(slot.known);
            slot.known = true;
        }
        Ok(())
    }

    /// Starts, or goes on with, sending a train. Its buffer is free again when nothing is left.
    fn start(&mut self, index: u32) -> io::Result<()> {
        loop {
            let Some(train) = &self.trains[index as usize] else { return Ok(()) };
            let here = train.cut != Cut::System && train.meta.segment < train.meta.len;
            if here && self.send_here(index)? {
                continue;
            }
            let Some(train) = &self.trains[index as usize] else { return Ok(()) };
            let number = usize::from(train.meta.socket);
            let Some(Some(slot)) = self.slots.get_mut(number) else {
                self.fail(index, TxError::Unreachable);
                return Ok(());
            };
            let part = train.part(train.done, self.config.max_segments);
            let memory = &mut *self.memory;
            let message = Outgoing {
                remote: train.meta.remote,
                local: train.meta.local.filter(|_| slot.facts.wildcard),
                bytes: &memory.tx.bytes(index)[part.start..part.start + part.len],
                segment: part.segment,
                ecn: train.meta.ecn,
            };
            let header = memory.sends.prepare(index as usize, &message);
            let entry = opcode::SendMsg::new(types::Fixed(number as u32), header);
            // SAFETY: header, address, control messages and bytes live in `memory`, which is only
            // freed when no request is under way, and are not touched before the completion: slot
            // and buffer belong to this train.
            unsafe { self.ring.push(&entry.build().user_data(kind::SEND | u64::from(index)))? };
            slot.sends += 1;
            self.under_way += 1;
            return Ok(());
        }
    }

    /// Sends the packets of a train one by one, in few calls. `false` when the socket is full: the
    /// ring waits for room with the next packet.
    fn send_here(&mut self, index: u32) -> io::Result<bool> {
        if self.ring.queued() > 0 {
            self.ring.submit()?;
        }
        let Some(train) = &mut self.trains[index as usize] else { return Ok(true) };
        let Some(Some(slot)) = self.slots.get(usize::from(train.meta.socket)) else {
            self.fail(index, TxError::Unreachable);
            return Ok(true);
        };
        let meta = train.meta;
        let local = meta.local.filter(|_| slot.facts.wildcard);
        let rest = &self.memory.tx.bytes(index)[train.done..meta.len];
        let messages = rest.chunks(meta.segment).map(|bytes| Outgoing {
            remote: meta.remote,
            local,
            bytes,
            segment: bytes.len(),
            ecn: meta.ecn,
        });
        self.stats.syscalls += 1;
        match self.sync_send.send(&slot.socket, messages) {
            Ok(count) => {
                for _ in 0..count {
                    self.sent(index);
                }
            }
            Err(error) if sys::is_blocked(&error) => {
                self.stats.tx_blocked += 1;
                return Ok(false);
            }
            Err(error) => self.fail(index, sys::tx_error(&error)),
        }
        Ok(true)
    }

    /// The next part of a train went out.
    fn sent(&mut self, index: u32) {
        let Some(train) = &mut self.trains[index as usize] else { return };
        let part = train.part(train.done, self.config.max_segments);
        self.stats.tx_trains += 1;
        self.stats.tx_packets += part.segments() as u64;
        self.stats.tx_bytes += part.len as u64;
        self.stats.tx_gso += u64::from(part.segments() > 1);
        if train.cut == Cut::Refused {
            // The same bytes pass uncut: it is the segmentation that this path does not take.
            self.refused.insert(train.meta.remote.ip());
            train.cut = Cut::Here;
        }
        train.done += part.len;
        if train.is_end(train.done) {
            self.trains[index as usize] = None;
            self.memory.tx.put(index);
        }
    }

    fn fail(&mut self, index: u32, error: TxError) {
        if let Some(train) = self.trains[index as usize].take() {
            self.stats.tx_failed += 1;
            self.failures.push(TxFailure { meta: train.meta, error });
            self.memory.tx.put(index);
        }
    }

    /// A send is over.
    fn on_send(&mut self, index: u32, result: i32) -> io::Result<()> {
        self.under_way -= 1;
        let Some(Some(train)) = self.trains.get_mut(index as usize) else { return Ok(()) };
        let number = usize::from(train.meta.socket);
        if let Some(Some(slot)) = self.slots.get_mut(number) {
            slot.sends -= 1;
        }
        if result >= 0 {
            self.sent(index);
        } else {
            let error = io::Error::from_raw_os_error(-result);
            let in_segments = train.cut == Cut::System && train.meta.segment < train.meta.len;
            if in_segments && sys::is_gso_refusal(&error) {
                self.stats.gso_refused += 1;
                train.cut = Cut::Refused;
            } else if !matches!(-result, libc::EAGAIN | libc::EINTR) {
                self.fail(index, sys::tx_error(&error));
            }
        }
        self.start(index)?;
        self.finish_removal(number)
    }

    /// A receive brought something, or ended.
    fn on_receive(
        &mut self,
        number: usize,
        result: i32,
        flags: u32,
        batch: &mut Batch,
    ) -> io::Result<()> {
        let Some(Some(slot)) = self.slots.get_mut(number) else { return Ok(()) };
        if !cqueue::more(flags) {
            slot.armed = false;
            self.under_way -= 1;
            self.unarmed += usize::from(!slot.closing);
            self.stats.rx_no_buffer += u64::from(result == -libc::ENOBUFS);
        }
        let closing = slot.closing;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.posted -= 1;
            let token = u32::from(buffer);
            let rx = &mut self.memory.rx;
            let written = usize::try_from(result).ok().filter(|_| !closing);
            rx.hold(token);
            let item = written.and_then(|written| {
                let received = messages::parse(rx.open(token, 0, written).0);
                Self::item(number as u16, token, received, slot, &mut self.stats)
            });
            match item {
                Some(item) => batch.rx.push(item),
                None => self.memory.rx.release(token),
            }
        }
        if closing { self.finish_removal(number) } else { Ok(()) }
    }

    fn item(
        socket: u16,
        token: u32,
        received: Option<sys::Received>,
        slot: &mut Slot,
        stats: &mut DriverStats,
    ) -> Option<RxItem> {
        if let Some(dropped) = received.and_then(|r| r.dropped) {
            stats.rx_dropped += u64::from(dropped.wrapping_sub(slot.dropped));
            slot.dropped = dropped;
        }
        if received.is_some_and(|r| r.truncated) {
            stats.rx_truncated += 1;
            return None;
        }
        let Some((received, remote)) = received.and_then(|r| Some((r, r.remote?))) else {
            stats.rx_malformed += 1;
            return None;
        };
        let local = if slot.facts.wildcard { received.local } else { Some(slot.facts.local.ip()) };
        let item = RxItem {
            socket,
            remote,
            local,
            len: received.len,
            stride: received.stride,
            ecn: received.ecn,
            token,
        };
        stats.rx_items += 1;
        stats.rx_packets += item.segments() as u64;
        stats.rx_bytes += item.len as u64;
        stats.rx_gro += u64::from(item.stride < item.len);
        Some(item)
    }

    /// Takes completions until there are none or `batch` is full.
    fn harvest(&mut self, batch: &mut Batch, start_len: usize) -> io::Result<()> {
        let mut entries = [const { MaybeUninit::uninit() }; HARVEST];
        loop {
            let room = self.config.max_batch - (batch.rx.len() - start_len);
            let taken = self.ring.harvest(&mut entries[..room.min(HARVEST)]);
            if taken.is_empty() {
                return Ok(());
            }
            for entry in taken {
                let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
                let number = data as u32;
                match data & kind::MASK {
                    kind::RECEIVE => self.on_receive(number as usize, result, flags, batch)?,
                    kind::SEND => self.on_send(number, result)?,
                    kind::WAKE if self.wake_armed && !cqueue::more(flags) => {
                        self.wake_armed = false;
                        self.under_way -= 1;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Frees the number of a socket that is being removed, once nothing uses it.
    fn finish_removal(&mut self, number: usize) -> io::Result<()> {
        let Some(Some(slot)) = self.slots.get(number) else { return Ok(()) };
        if slot.closing && !slot.armed && slot.sends == 0 {
            self.ring.submitter().register_files_update(number as u32, &[-1])?;
            self.slots[number] = None;
        }
        Ok(())
    }

    fn has_news(&self, batch: &Batch, start_len: usize) -> bool {
        batch.rx.len() > start_len
            || !self.failures.is_empty()
            || (self.wants_buffer && self.memory.tx.free() > 0)
    }

    fn entered(&mut self, entered: Entered) {
        self.stats.cq_overflow += u64::from(entered == Entered::Overflow);
    }

    /// Ends every request and waits for that. `false` when the kernel does not finish.
    fn drain(&mut self) -> bool {
        for slot in self.slots.iter_mut().flatten() {
            slot.closing = true;
        }
        self.unarmed = 0;
        let mut batch = Batch::default();
        for step in 0..DRAIN_STEPS {
            if self.under_way == 0 {
                return true;
            }
            // Again and again: a train of several parts has started its next one.
            if step % 10 == 0 && self.ring.cancel_all(kind::IGNORE).is_err() {
                return false;
            }
            let start = batch.rx.len();
            if self.ring.wait(Some(DRAIN_STEP)).is_err() || self.harvest(&mut batch, start).is_err()
            {
                return false;
            }
            for item in batch.rx.drain(..) {
                self.memory.rx.release(item.token);
            }
        }
        self.under_way == 0
    }
}

impl Driver for UringDriver {
    fn name(&self) -> &'static str {
        "uring"
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
        self.ring.submitter().register_files_update(number as u32, &[socket.as_raw_fd()])?;
        self.slots[number] = Some(Slot {
            socket,
            facts,
            armed: false,
            closing: false,
            sends: 0,
            known: false,
            dropped: 0,
        });
        self.unarmed += 1;
        Ok(number as u16)
    }

    fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
        let number = usize::from(socket);
        let Some(Some(slot)) = self.slots.get_mut(number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if slot.closing {
            return Err(io::ErrorKind::NotFound.into());
        }
        slot.closing = true;
        if slot.armed {
            let user_data = kind::RECEIVE | number as u64;
            let entry = opcode::AsyncCancel::new(user_data).build().user_data(kind::IGNORE);
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(&entry)? };
        } else {
            self.unarmed -= 1;
        }
        let entered = self.ring.submit()?;
        self.entered(entered);
        self.finish_removal(number)
    }

    fn lend(&mut self) -> Option<TxBuf> {
        let Some(index) = self.memory.tx.take() else {
            self.stats.tx_no_buffer += 1;
            self.wants_buffer = true;
            return None;
        };
        Some(TxBuf { index })
    }

    fn bytes(&mut self, buf: &mut TxBuf) -> &mut [u8] {
        self.memory.tx.bytes_mut(buf.index)
    }

    fn give_back(&mut self, buf: TxBuf) {
        self.memory.tx.put(buf.index);
    }

    fn send(&mut self, buf: TxBuf, meta: TxMeta) {
        let index = buf.index;
        let error = match self.slots.get(usize::from(meta.socket)) {
            Some(Some(slot)) if !slot.closing => {
                (meta.len > MAX_TRAIN).then_some(TxError::TooLarge)
            }
            _ => Some(TxError::Unreachable),
        };
        let system = self.capabilities.gso && !self.refused.contains(meta.remote.ip());
        let cut = if system { Cut::System } else { Cut::Here };
        self.trains[index as usize] = Some(Train::new(buf, meta, cut));
        if let Some(error) = error {
            self.fail(index, error);
        } else if let Err(error) = self.start(index) {
            // The ring is unusable; the next poll says so too.
            self.fail(index, sys::tx_error(&error));
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.ring.queued() > 0 {
            let entered = self.ring.submit()?;
            self.entered(entered);
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()> {
        let start_len = batch.rx.len();
        self.prepare()?;
        if timeout.is_some_and(|t| t.is_zero()) || self.ring.queued() > 0 {
            let entered = self.ring.submit_if_useful()?;
            self.entered(entered);
        }
        self.harvest(batch, start_len)?;
        // Completions of sends alone are no reason to come back.
        if timeout.is_none_or(|t| !t.is_zero())
            && !self.has_news(batch, start_len)
            && !self.ring.has_completions()
        {
            // A receive that ended just now goes on before the sleep.
            self.prepare()?;
            let limit = (self.unarmed > 0).then_some(STARVED_SLEEP);
            let timeout = match (timeout, limit) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if self.parking.park() {
                self.stats.sleeps += 1;
                self.stats.rx_starved += u64::from(limit.is_some());
                let entered = self.ring.wait(timeout)?;
                self.entered(entered);
            } else {
                let entered = self.ring.submit_if_useful()?;
                self.entered(entered);
            }
            self.harvest(batch, start_len)?;
        }
        if self.parking.unpark() {
            self.stats.wakes += 1;
        }
        self.wants_buffer = false;
        batch.failures.append(&mut self.failures);
        // What came before this shows in the ring now; what comes after makes it readable again.
        if let Some(event) = self.foreign.get() {
            self.stats.syscalls += 1;
            event.clear();
        }
        batch.more = self.ring.has_completions() || self.ring.has_work();
        self.stats.syscalls += std::mem::take(&mut self.ring.enters);
        (self.stats.leases, self.stats.leases_refused) = self.memory.rx.lease_counts();
        Ok(())
    }

    fn received(&mut self, item: &RxItem) -> (&mut [u8], Retainer<'_>) {
        self.memory.rx.open(item.token, PAYLOAD, item.len)
    }

    fn release(&mut self, item: RxItem) {
        self.memory.rx.release(item.token);
    }

    fn waker(&self) -> Waker {
        self.parking.waker()
    }

    fn fd(&self) -> Option<i32> {
        self.parking.embed();
        if self.foreign.get().is_none() {
            let event = EventFd::new().ok()?;
            let fd = event.as_fd().as_raw_fd();
            self.ring.submitter().register_eventfd(fd).ok()?;
            // Whatever came before is found by the first poll.
            event.signal();
            let _ = self.foreign.set(event);
        }
        self.foreign.get().map(|event| event.as_fd().as_raw_fd())
    }

    fn stats(&self) -> &DriverStats {
        &self.stats
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        self.signal.close();
        if self.drain() {
            // The file table would keep the ports in use until the kernel gets to it.
            let _ = self.ring.submitter().unregister_files();
            let _ = self.ring.submitter().unregister_buf_ring(GROUP);
            // SAFETY: no request is under way, so the kernel does not touch the memory any more;
            // the field is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        } else {
            tracing::warn!("io_uring requests did not end: their memory is leaked");
        }
    }
}
