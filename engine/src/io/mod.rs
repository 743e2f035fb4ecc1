//! Drivers: how datagrams get in and out of a shard.
//!
//! A [`Driver`] lends transmit buffers, takes trains of equally sized packets, delivers received
//! trains in its own buffers, and sleeps until there is work, a deadline or a wake. The shard is
//! its only caller and is generic over it. A driver knows nothing of connections, packets or
//! encryption, starts no thread, and reads no clock except where it waits.
//!
//! | driver | what it is |
//! | --- | --- |
//! | `uring` | Linux io_uring: multishot receive into provided buffers, batched GSO sends |
//! | `mio` | readiness through the `mio` crate; recvmmsg and sendmmsg with GSO and GRO on Linux, plain calls elsewhere |
//! | `sim` | a seeded network in memory |
//! | `fault` | wraps any of them: loss, duplication, reordering, delay, corruption, rate |
//!
//! `detect` finds out which of the real ones works here, by using them.

mod arrive;
pub mod config;
pub mod detect;
pub mod fault;
mod impair;
pub mod mio;
pub mod sim;
pub mod stream;
mod train;
#[cfg(target_os = "linux")]
pub mod uring;
pub mod waker;

pub use config::{DriverChoice, DriverConfig, DriverError};
pub use fault::{FaultConfig, FaultDriver};
pub use impair::{FaultStats, Faults};
pub use mio::MioDriver;
pub use sim::{SimConfig, SimDriver, SimNetwork};
pub use stream::{StreamBytes, StreamEvent, StreamId};
#[cfg(target_os = "linux")]
pub use uring::UringDriver;
pub use waker::Waker;

use crate::buf::{Lease, Retainer};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// Largest train that a driver takes, in bytes: one IPv4 datagram's payload.
pub const MAX_TRAIN: usize = 65_507;
/// Most segments in one train that every supported kernel takes.
pub const MAX_SEGMENTS: usize = 64;

/// What a driver can do; fixed once it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Most bytes in one train, and the length of every lent buffer.
    pub max_train: usize,
    /// Most segments in one train.
    pub max_segments: usize,
    /// Bytes in front of every lent buffer that the driver keeps for its own headers; they are not
    /// part of what [`Driver::bytes`] shows.
    pub headroom: usize,
    /// Received datagrams arrive merged into trains.
    pub gro: bool,
    /// The system cuts trains into packets; otherwise the driver does.
    pub gso: bool,
    /// ECN marks are sent and reported.
    pub ecn: bool,
    /// The arrival time of datagrams is known.
    pub rx_time: bool,
}

/// A transmit buffer lent by a driver. Hand it back with [`Driver::send`] or
/// [`Driver::give_back`]; one that is merely dropped is lost to the driver.
#[derive(Debug)]
#[must_use = "a lent buffer goes back through `send` or `give_back`"]
pub struct TxBuf {
    pub(crate) index: u32,
}

/// Where a train goes and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxMeta {
    /// The driver's number of the socket to send from.
    pub socket: u16,
    /// The receiver.
    pub remote: SocketAddr,
    /// The local address to send from; `None` = the system chooses.
    pub local: Option<IpAddr>,
    /// Bytes used at the start of the buffer.
    pub len: usize,
    /// Size of every packet but the last, which may be shorter; equal to `len` for one packet.
    pub segment: usize,
    /// ECN codepoint, 0 to 3, for all packets.
    pub ecn: u8,
    /// A packet-size probe: losing it is harmless. (No packet is ever fragmented by the sender;
    /// the flag only tells failures apart.)
    pub probe: bool,
}

impl TxMeta {
    /// Number of packets in the train.
    pub const fn segments(&self) -> usize {
        if self.segment == 0 { 1 } else { self.len.div_ceil(self.segment) }
    }
}

/// A received datagram, or a train of datagrams that the system merged. Hand it back with
/// [`Driver::release`].
#[derive(Debug)]
#[must_use = "a received buffer goes back through `release`"]
pub struct RxItem {
    /// The driver's number of the socket it arrived at.
    pub socket: u16,
    /// The sender.
    pub remote: SocketAddr,
    /// The local address it was sent to, where the system tells.
    pub local: Option<IpAddr>,
    /// Bytes received.
    pub len: usize,
    /// Size of every datagram but the last, which may be shorter; equal to `len` for one.
    pub stride: usize,
    /// ECN codepoint, 0 to 3, of all of them.
    pub ecn: u8,
    pub(crate) token: u32,
}

impl RxItem {
    /// Number of datagrams in the train.
    pub const fn segments(&self) -> usize {
        if self.stride == 0 { 1 } else { self.len.div_ceil(self.stride) }
    }
}

/// Why a train was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxError {
    /// A packet is larger than the interface takes (EMSGSIZE).
    TooLarge,
    /// There is no route, or a firewall forbids it.
    Unreachable,
    /// The system is short of buffers.
    NoBuffers,
    /// Another error number of the system; 0 when it gave none.
    Other(i32),
}

/// A train that was not sent, or not completely; its buffer is back with the driver.
#[derive(Clone, Copy, Debug)]
pub struct TxFailure {
    /// What was asked for.
    pub meta: TxMeta,
    /// Why it failed.
    pub error: TxError,
}

/// What one [`Driver::poll`] brought; reused from call to call.
#[derive(Debug, Default)]
pub struct Batch {
    /// Received items. The caller drains and releases every one.
    pub rx: Vec<RxItem>,
    /// Trains that could not be sent. The caller drains them.
    pub failures: Vec<TxFailure>,
    /// What happened to streams, in order. The caller drains it and releases received bytes.
    pub streams: Vec<StreamEvent>,
    /// The cap was reached and more is waiting: poll again without sleeping, whatever
    /// [`Driver::fd`] says.
    pub more: bool,
}

impl Batch {
    /// Whether the poll brought nothing, and would not bring anything at once.
    pub fn is_empty(&self) -> bool {
        self.rx.is_empty() && self.failures.is_empty() && self.streams.is_empty() && !self.more
    }
}

/// Counters of one driver since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// System calls made for sending, receiving and waiting (ring enters for io_uring).
    pub syscalls: u64,
    /// Calls that were prepared to sleep.
    pub sleeps: u64,
    /// Sleeps ended, or avoided, by a [`Waker`].
    pub wakes: u64,
    /// Packets handed to the system.
    pub tx_packets: u64,
    /// Trains handed to the system, single packets included.
    pub tx_trains: u64,
    /// Bytes of UDP payload handed to the system.
    pub tx_bytes: u64,
    /// Trains that the system segmented.
    pub tx_gso: u64,
    /// Trains that could not be sent.
    pub tx_failed: u64,
    /// Sends that had to wait for room in the socket's buffer.
    pub tx_blocked: u64,
    /// Trains refused with segmentation offload and sent packet by packet instead.
    pub gso_refused: u64,
    /// Datagrams received.
    pub rx_packets: u64,
    /// Items received: merged trains and single datagrams.
    pub rx_items: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// Received items that were merged trains.
    pub rx_gro: u64,
    /// Received items dropped because they did not fit a buffer.
    pub rx_truncated: u64,
    /// Received items dropped because their description made no sense.
    pub rx_malformed: u64,
    /// What the system dropped because a socket's receive buffer was full; a train that it had merged,
    /// or on loopback never taken apart, counts as one.
    pub rx_dropped: u64,
    /// Times that a multishot receive ended and was started again.
    pub rx_rearmed: u64,
    /// Times that receiving stopped for want of a buffer.
    pub rx_no_buffer: u64,
    /// Sleeps cut short because a socket could not be read for want of a buffer.
    pub rx_starved: u64,
    /// Times that the completion queue overflowed.
    pub cq_overflow: u64,
    /// Leases given out.
    pub leases: u64,
    /// Leases refused because the pool was low.
    pub leases_refused: u64,
    /// Times that no transmit buffer was free.
    pub tx_no_buffer: u64,
    /// Times that accepting streams rested because the system had no descriptor or memory for one
    /// more.
    pub accepts_paused: u64,
}

/// Buffers of a driver at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Receive buffers.
    pub rx: usize,
    /// Those of them that nobody holds: in the pool, or with the kernel and empty.
    pub rx_free: usize,
    /// Transmit buffers.
    pub tx: usize,
    /// Those of them that are not on their way.
    pub tx_free: usize,
}

/// Moves datagrams for one shard. Made and used on the shard's own thread.
///
/// One turn of the shard: [`poll`](Self::poll), then for every item
/// [`received`](Self::received) and [`release`](Self::release), then [`lend`](Self::lend) and
/// [`send`](Self::send) until nothing is left to send; the next `poll` submits it.
pub trait Driver {
    /// `"uring"`, `"mio"`, `"sim"`; wrappers give the name of what they wrap.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Takes over a bound socket, sets the options that the driver needs (non-blocking, GRO, ECN,
    /// local address, no fragmentation) and starts receiving from it.
    ///
    /// # Errors
    /// The system's, or `InvalidInput` when all socket numbers are taken.
    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<u16>;

    /// Stops receiving and closes the socket, at once or when its last send is done. What was
    /// queued is still sent where possible; items received before may still be delivered.
    ///
    /// # Errors
    /// `NotFound` for a number that is not in use.
    fn remove_socket(&mut self, socket: u16) -> io::Result<()>;

    /// Lends a transmit buffer; `None` when all are on their way (poll, then try again).
    fn lend(&mut self) -> Option<TxBuf>;

    /// The bytes of a lent buffer: [`Capabilities::max_train`] of them, with arbitrary contents.
    fn bytes(&mut self, buf: &mut TxBuf) -> &mut [u8];

    /// Takes an unused buffer back.
    fn give_back(&mut self, buf: TxBuf);

    /// Queues a train for [`flush`](Self::flush). A train that cannot be sent is reported by a
    /// later [`poll`](Self::poll); nothing is reported for one that was.
    fn send(&mut self, buf: TxBuf, meta: TxMeta);

    /// Submits everything queued.
    ///
    /// # Errors
    /// Only those that make the driver unusable.
    fn flush(&mut self) -> io::Result<()>;

    /// Flushes, sleeps until there is work, `timeout` has passed or a [`Waker`] was used, and
    /// appends what there is to `batch`, at most [`DriverConfig::max_batch`] items. `Some(0)` does
    /// not sleep; `None` sleeps without limit. May return with nothing. After it returns, look
    /// into the mailboxes: a wake is not reported.
    ///
    /// # Errors
    /// Only those that make the driver unusable.
    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()>;

    /// The bytes of a received item (all its datagrams), with a handle that can lease parts of
    /// them while they are being looked at.
    ///
    /// Bytes that were leased, during an earlier call too, must not be written any more.
    fn received(&mut self, item: &RxItem) -> (&mut [u8], Retainer<'_>);

    /// The bytes of a received item; see [`received`](Self::received).
    fn rx_bytes(&mut self, item: &RxItem) -> &mut [u8] {
        self.received(item).0
    }

    /// Keeps `len` bytes from `start` alive beyond [`release`](Self::release). `None` when the
    /// pool is below its watermark, when the driver cannot, or when the range is not inside the
    /// item: the caller copies then.
    fn lease(&mut self, item: &RxItem, start: usize, len: usize) -> Option<Lease> {
        let (bytes, retainer) = self.received(item);
        retainer.lease(bytes.get(start..start.checked_add(len)?)?)
    }

    /// Takes a received item back.
    fn release(&mut self, item: RxItem);

    // ---- streams

    /// Takes over a listening TCP socket: connections come as [`StreamEvent::Accepted`].
    ///
    /// # Errors
    /// The system's; `Unsupported` from a driver without streams.
    fn listen_streams(&mut self, listener: TcpListener) -> io::Result<u16> {
        drop(listener);
        Err(stream::unsupported())
    }

    /// Closes a listening socket. Connections that it took live on.
    ///
    /// # Errors
    /// `NotFound` for a number that is not in use.
    fn unlisten_streams(&mut self, listener: u16) -> io::Result<()> {
        let _ = listener;
        Err(stream::unsupported())
    }

    /// Starts a TCP connection; [`StreamEvent::Connected`] or [`StreamEvent::Failed`] follows.
    ///
    /// # Errors
    /// The system's; `Unsupported` from a driver without streams.
    fn connect_stream(&mut self, remote: SocketAddr) -> io::Result<StreamId> {
        let _ = remote;
        Err(stream::unsupported())
    }

    /// Starts or stops to read from a stream. A new one is not read from. What arrived before it
    /// was stopped may still be told.
    fn read_stream(&mut self, stream: StreamId, on: bool) {
        let _ = (stream, on);
    }

    /// The buffer of a stream, at least [`stream::STREAM_BUFFER`] bytes; `None` while what it holds
    /// is being sent ([`StreamEvent::Sent`] tells when it is), and when the stream is not connected.
    fn stream_buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        let _ = stream;
        None
    }

    /// Sends the first `len` bytes of the stream's buffer, which was just asked for; 0 gives it back.
    /// `true` when the buffer is free again at once; otherwise [`StreamEvent::Sent`] follows.
    fn send_stream(&mut self, stream: StreamId, len: usize) -> bool {
        let _ = (stream, len);
        true
    }

    /// Ends our direction once everything is sent.
    fn shutdown_stream(&mut self, stream: StreamId) {
        let _ = stream;
    }

    /// Closes a stream once everything is sent. Nothing more is told of it.
    fn close_stream(&mut self, stream: StreamId) {
        let _ = stream;
    }

    /// Closes a stream with a reset: what was not sent is dropped, by the system too. Nothing more
    /// is told of it. Works on a stream that is being closed.
    fn abort_stream(&mut self, stream: StreamId) {
        let _ = stream;
    }

    /// Bytes of a stream that the system has and the peer has not acknowledged; 0 where nobody can
    /// tell.
    fn stream_backlog(&mut self, stream: StreamId) -> usize {
        let _ = stream;
        0
    }

    /// The bytes of [`StreamEvent::Received`]; see [`received`](Self::received).
    fn stream_bytes(&mut self, bytes: &StreamBytes) -> (&mut [u8], Retainer<'_>) {
        let _ = bytes;
        (&mut [], Retainer::none())
    }

    /// Takes received bytes back.
    fn release_stream(&mut self, bytes: StreamBytes) {
        let _ = bytes;
    }

    /// A handle that ends or prevents the sleep of [`poll`](Self::poll) from any thread.
    fn waker(&self) -> Waker;

    /// A descriptor that is readable when [`poll`](Self::poll) has work, for a foreign event
    /// loop. Once asked for, wakes make it readable too whenever the driver is not being polled.
    /// `None` where the driver has none.
    fn fd(&self) -> Option<i32>;

    /// Counters.
    fn stats(&self) -> &DriverStats;

    /// Its buffers; all 0 from a driver that does not tell.
    fn buffers(&self) -> Buffers {
        Buffers::default()
    }

    /// Changes the faults, where there are any: [`FaultDriver`].
    fn set_faults(&mut self, _config: &FaultConfig) {}

    /// The driver's clock: the system's monotonic one, or the virtual one of a simulation. The
    /// caller reads it once a turn.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
