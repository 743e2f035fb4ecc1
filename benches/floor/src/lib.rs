//! What a machine can do without Trunkline: plain UDP over loopback, with the system calls and the
//! cipher that a transport cannot do without, and nothing else.
//!
//! `trunkline bench --floor` and the comparison with other transports stand beside these figures.
//! They are measured as the benchmark measures: one thread for each end, each pinned to a CPU; the
//! payload is read and checked at the receiver ([`payload`]); what was delivered counts; a warm-up
//! comes first. Sender and receiver share memory, which they use for nothing but telling how far
//! the receiver is, so that its socket buffer does not overflow.
//!
//! | function | floor of |
//! | --- | --- |
//! | [`bulk`] | goodput: trains with UDP_SEGMENT and UDP_GRO, with or without AES-128-GCM |
//! | [`single_packets`] | message rate: one `send` and one `recv` a packet |
//! | [`ping_pong`] | round trips, asleep or spinning while waiting |
//! | [`tick`] | CPU time of a server with many slow connections |
//!
//! They use this machine's first network namespace only, open no port to others, and are there on
//! Linux only: elsewhere they give [`std::io::ErrorKind::Unsupported`].

pub mod cpu;
pub mod payload;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
use elsewhere as here;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as here;

use hdrhistogram::Histogram;
use std::io;
use std::time::Duration;

/// Bytes of a packet around its payload: the 13-byte header of a short packet and the 16-byte tag.
pub const OVERHEAD: usize = 13 + 16;
/// Largest UDP payload over IPv4.
pub const MAX_PACKET: usize = 65_507;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Setup {
    /// CPU of the thread that sends, or that asks.
    pub client_cpu: usize,
    /// CPU of the thread that receives, or that answers; may be the same one.
    pub server_cpu: usize,
    /// Measured time.
    pub time: Duration,
    /// Time before it that does not count.
    pub warm_up: Duration,
    /// UDP payload of a packet of [`bulk`], header and tag included.
    pub packet_bytes: usize,
}

/// What seals the packets of [`bulk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// Nothing; they have the same layout and size all the same.
    None,
    /// AES-128-GCM: sealed in place by the sender, opened in place by the receiver.
    Aes128Gcm,
}

/// What both ends of [`ping_pong`] do while nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Sleep in the system call.
    Block,
    /// Ask again and again.
    Spin,
}

/// CPU seconds of both threads within the measured time; `None` where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuSeconds {
    /// The thread that sends or asks. Over loopback it also runs the kernel's receive path.
    pub client: Option<f64>,
    /// The thread that receives or answers.
    pub server: Option<f64>,
}

/// What arrived within the measured time.
#[derive(Clone, Debug, Default)]
pub struct Throughput {
    /// Measured time.
    pub seconds: f64,
    /// Packets whose payload was right.
    pub packets: u64,
    /// Bytes of those payloads.
    pub bytes: u64,
    /// Packets that did not open, or whose payload was wrong.
    pub corrupt: u64,
    /// Packets that never came.
    pub lost: u64,
    /// CPU time.
    pub cpu: CpuSeconds,
}

impl Throughput {
    /// Delivered payload in gigabits (10⁹) a second.
    pub fn gbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e9
    }

    /// Delivered packets a second.
    pub fn packets_per_s(&self) -> f64 {
        self.packets as f64 / self.seconds
    }
}

/// Round trips within the measured time.
#[derive(Clone, Debug)]
pub struct RoundTrips {
    /// Measured time.
    pub seconds: f64,
    /// Nanoseconds from before the send call to after the receive call.
    pub rtt_ns: Histogram<u64>,
    /// Messages that came back wrong.
    pub corrupt: u64,
    /// Messages that did not come back within 100 ms.
    pub lost: u64,
    /// CPU time.
    pub cpu: CpuSeconds,
}

/// Messages of many slow connections within the measured time.
#[derive(Clone, Debug, Default)]
pub struct Ticks {
    /// Measured time.
    pub seconds: f64,
    /// Messages that the server received and that were right.
    pub received: u64,
    /// Answers that the client received and that were right.
    pub answers: u64,
    /// Packets, either way, that did not open or whose payload was wrong.
    pub corrupt: u64,
    /// Packets, either way, that never came.
    pub lost: u64,
    /// CPU time; that of the server is the floor.
    pub cpu: CpuSeconds,
}

/// A histogram of round trips in nanoseconds: 1 ns to 100 s, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are valid"))
}

/// Bulk transfer: trains of up to 64 packets and 64 KiB, one `sendmsg` with UDP_SEGMENT each,
/// received with `recvmsg` and UDP_GRO. Each packet carries one message of [`payload`], copied
/// into it once: 13 header bytes, the payload, a 16-byte tag.
///
/// # Errors
/// A packet size that does not hold header, tag and payload or exceeds [`MAX_PACKET`]; a CPU that
/// cannot be had; any failed system call.
pub fn bulk(setup: &Setup, cipher: Cipher) -> io::Result<Throughput> {
    let smallest = OVERHEAD + payload::HEADER;
    if !(smallest..=MAX_PACKET).contains(&setup.packet_bytes) {
        let text = format!("a packet has {smallest} to {MAX_PACKET} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    here::bulk(setup, cipher)
}

/// Single packets: `send` and `recv` for each, `payload_bytes` of UDP payload, no cipher, while
/// the receiver runs.
///
/// # Errors
/// A payload that [`payload`] has no room in or that exceeds [`MAX_PACKET`]; a CPU that cannot be
/// had; any failed system call.
pub fn single_packets(setup: &Setup, payload_bytes: usize) -> io::Result<Throughput> {
    check_payload(payload_bytes, MAX_PACKET)?;
    here::single_packets(setup, payload_bytes)
}

/// Round trips: one packet with `payload_bytes` of UDP payload goes and comes back before the
/// next; no cipher, payload checked on both sides.
///
/// # Errors
/// As [`single_packets`].
pub fn ping_pong(setup: &Setup, wait: Wait, payload_bytes: usize) -> io::Result<RoundTrips> {
    check_payload(payload_bytes, MAX_PACKET)?;
    here::ping_pong(setup, wait, payload_bytes)
}

/// A server with `connections` that each send `per_second` messages of `payload_bytes` and get
/// one back for each: `recvfrom`, AES-128-GCM with keys of the connection, `sendto`. The messages
/// are spread evenly over the time, in slices of a millisecond.
///
/// # Errors
/// As [`single_packets`]; no connection or no message.
pub fn tick(
    setup: &Setup,
    connections: u32,
    per_second: u32,
    payload_bytes: usize,
) -> io::Result<Ticks> {
    check_payload(payload_bytes, MAX_PACKET - OVERHEAD)?;
    if connections == 0 || per_second == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to send"));
    }
    here::tick(setup, connections, per_second, payload_bytes)
}

fn check_payload(bytes: usize, most: usize) -> io::Result<()> {
    if (payload::HEADER..=most).contains(&bytes) {
        return Ok(());
    }
    let text = format!("a payload has {} to {most} bytes", payload::HEADER);
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}
