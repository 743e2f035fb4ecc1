//! The driver on io_uring: multishot receives into a ring of provided buffers, batched sends, one
//! system call a turn when busy.
//!
//! Memory that the kernel may touch (buffers, message headers) outlives every request: dropping the
//! driver cancels and waits, and if the kernel does not finish, leaks rather than frees.

mod demand;
mod driver;
mod messages;
mod provided;
mod receive;
mod ring;
mod streams;
mod transmit;
mod wake;

use super::arrive::Arrivals;
use super::train::{RefusedPaths, Train};
use super::waker::Parking;
use super::{
    Batch, Capabilities, DriverConfig, DriverError, DriverStats, MAX_TRAIN, StreamEvent, TxFailure,
};
use crate::buf::{RxPool, TxPool};
use crate::sys::linux::EventFd;
use crate::sys::{self, SendBatch};
use demand::Demand;
use io_uring::cqueue;
use messages::{PAYLOAD, ReceiveHeader, SendSlots};
use provided::{BufferRing, GROUP};
use ring::{Entered, Flag, HARVEST, Ring, explain};
use std::cell::OnceCell;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;
use streams::Streams;
use wake::{RingSignal, SharedSignal};

/// What a completion belongs to: the upper half of its user data. The lower half is a number.
mod kind {
    pub(super) const RECEIVE: u64 = 1 << 32;
    pub(super) const SEND: u64 = 2 << 32;
    pub(super) const WAKE: u64 = 3 << 32;
    pub(super) const IGNORE: u64 = 4 << 32;
    pub(super) const ACCEPT: u64 = 5 << 32;
    pub(super) const CONNECT: u64 = 6 << 32;
    pub(super) const STREAM_RECEIVE: u64 = 7 << 32;
    pub(super) const STREAM_SEND: u64 = 8 << 32;
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
    arrivals: Arrivals,
    /// A multishot receive is under way.
    armed: bool,
    /// Being removed: waits for its requests.
    closing: bool,
    /// Sends under way.
    sends: usize,
    /// It was armed before: arming again is counted.
    known: bool,
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

impl KernelMemory {
    fn new(ring: &Ring, config: &DriverConfig) -> Result<Self, DriverError> {
        let system = |context| move |source| DriverError::System { context, source };
        let rx_bytes = PAYLOAD + config.rx_buffer_bytes;
        Ok(Self {
            rx: RxPool::new(config.rx_buffers, rx_bytes, config.lease_reserve)
                .map_err(system("allocating receive buffers"))?,
            tx: TxPool::new(config.tx_buffers, MAX_TRAIN)
                .map_err(system("allocating transmit buffers"))?,
            provided: BufferRing::new(&ring.submitter(), config.rx_posted as u16)
                .map_err(unavailable("registering a ring of buffers"))?,
            sends: SendSlots::new(config.tx_buffers),
            receive: ReceiveHeader::new(),
        })
    }
}

fn unavailable(what: &'static str) -> impl FnOnce(io::Error) -> DriverError {
    move |e| DriverError::Unavailable { driver: "uring", reason: explain(what, &e) }
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
    demand: Demand,
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
    streams: ManuallyDrop<Streams>,
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
        Self::with(config, &Flag::wanted(config.thread_bound), true)
    }

    /// With at most the given set-up flags, and wakes by message only if allowed.
    fn with(config: &DriverConfig, flags: &[Flag], messages: bool) -> Result<Self, DriverError> {
        let config = config.clamped();
        let submissions = (config.tx_buffers + config.max_sockets + 16).next_power_of_two().max(64);
        let completions =
            2 * (config.rx_buffers + submissions + 2 * config.max_sockets).next_power_of_two();
        let mut ring = Ring::new(submissions as u32, completions as u32, flags)
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
        let memory = KernelMemory::new(&ring, &config)?;
        let demand = Demand::new(memory.provided.count());
        let signal =
            Self::signal(&mut ring, messages).map_err(unavailable("creating an eventfd"))?;
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
            demand,
            unarmed: 0,
            under_way: 0,
            wake_armed: false,
            parking: Parking::new(Box::new(SharedSignal(signal.clone()))),
            signal,
            foreign: OnceCell::new(),
            sync_send: SendBatch::new(64),
            failures: Vec::new(),
            refused: RefusedPaths::default(),
            streams: ManuallyDrop::new(Streams::default()),
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
    fn signal(ring: &mut Ring, messages: bool) -> io::Result<Arc<RingSignal>> {
        if !messages {
            return RingSignal::event(kind::WAKE);
        }
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

    /// Takes completions until there are none or `batch` is full; how many.
    fn harvest(&mut self, batch: &mut Batch, start_len: usize) -> io::Result<usize> {
        let mut count = 0;
        let mut entries = [const { MaybeUninit::uninit() }; HARVEST];
        loop {
            let room = self.config.max_batch - (batch.rx.len() - start_len);
            let taken = self.ring.harvest(&mut entries[..room.min(HARVEST)]);
            if taken.is_empty() {
                return Ok(count);
            }
            count += taken.len();
            for entry in taken {
                let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
                let number = data as u32;
                match data & kind::MASK {
                    kind::RECEIVE => self.on_receive(number as usize, result, flags, batch)?,
                    kind::SEND => self.on_send(number, result)?,
                    kind::STREAM_RECEIVE => self.on_stream_receive(number, result, flags),
                    kind::STREAM_SEND => self.on_stream_send(number, result),
                    kind::ACCEPT => self.on_accept(number as usize, result, flags),
                    kind::CONNECT => self.on_connect(number, result),
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
            || self.streams.has_news()
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
        self.end_streams();
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
            self.streams.tell(&mut batch);
            for event in batch.streams.drain(..) {
                if let StreamEvent::Received(bytes) = event {
                    self.memory.rx.release(bytes.token);
                }
            }
        }
        self.under_way == 0
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
            // SAFETY: as above; buffers and addresses of streams are such memory, too.
            unsafe { ManuallyDrop::drop(&mut self.streams) };
        } else {
            tracing::warn!("io_uring requests did not end: their memory is leaked");
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
