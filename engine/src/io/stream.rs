//! What drivers and shards say to each other about TCP streams.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Bytes of the buffer that a stream lends for sending: four TLS records and what they add.
pub const STREAM_BUFFER: usize = 66 << 10;
/// Buffers that a driver keeps for streams that will send next.
pub(super) const SPARE_BUFFERS: usize = 32;
/// Connections taken from one listening socket in one poll.
pub(super) const ACCEPTS_A_POLL: usize = 64;
/// Silence after which TCP itself asks whether the peer is there, and how long it may take.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PROBES: u32 = 3;
/// A peer that takes nothing of what is sent for this long is given up, whether it is gone or does
/// not read (RFC 5482; Linux counts probes of a closed window, too). Longer than an application may
/// pause: on a native link its own timeouts find out about the dead much earlier.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(120);
/// When the system has no descriptor or memory for one more connection, the next try waits so long.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A driver's name of a stream. Its place is used again once the stream was closed, its name is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub(crate) index: u32,
    pub(crate) life: u32,
}

/// Received bytes of a stream. Hand them back with
/// [`Driver::release_stream`](super::Driver::release_stream).
#[derive(Debug)]
#[must_use = "received bytes go back through `release_stream`"]
pub struct StreamBytes {
    /// The stream.
    pub stream: StreamId,
    /// How many.
    pub len: usize,
    pub(crate) token: u32,
}

/// Something happened to a stream.
#[derive(Debug)]
pub enum StreamEvent {
    /// A peer has connected to a listening socket.
    Accepted {
        /// The driver's number of the listening socket.
        listener: u16,
        /// The new stream.
        stream: StreamId,
        /// The peer.
        remote: SocketAddr,
        /// Where it connected to.
        local: Option<IpAddr>,
    },
    /// A connection that was asked for stands.
    Connected(StreamId),
    /// Bytes arrived.
    Received(StreamBytes),
    /// The last send is done: the buffer is free again.
    Sent(StreamId),
    /// The peer has ended its direction.
    Finished(StreamId),
    /// The connection could not be made, or broke. Nothing more happens to it; it is still to be
    /// closed.
    Failed(StreamId, io::Error),
}

/// Sets what every stream needs: no delay of small writes, and that TCP finds out about dead peers.
pub(super) fn configure(socket: socket2::SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keep_alive = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE);
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
    let keep_alive = keep_alive.with_interval(KEEP_ALIVE_INTERVAL);
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let keep_alive = keep_alive.with_retries(KEEP_ALIVE_PROBES);
    socket.set_tcp_keepalive(&keep_alive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// Accepting rests while the system has no descriptor or memory: those who wait stay in its queue,
/// and are taken when there is room again.
#[derive(Debug, Default)]
pub(super) struct AcceptPause(Option<Instant>);

impl AcceptPause {
    /// An accept failed.
    pub(super) fn begin(&mut self, error: &io::Error) {
        tracing::warn!(%error, "accepting rests");
        self.0 = Some(Instant::now() + ACCEPT_PAUSE);
    }

    /// Whether accepting rests still.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// How long it still rests; the clock is read only if it does. `None` once it is over.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        let rest = self.0?.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero());
        if rest.is_none() {
            self.0 = None;
        }
        rest
    }
}

/// Send buffers kept for streams that will send next.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Box<[u8]>>);

impl Spares {
    pub(super) fn take(&mut self) -> Box<[u8]> {
        self.0.pop().unwrap_or_else(|| vec![0; STREAM_BUFFER].into_boxed_slice())
    }

    pub(super) fn keep(&mut self, buffer: Option<Box<[u8]>>) {
        if self.0.len() < SPARE_BUFFERS {
            self.0.extend(buffer);
        }
    }
}

/// The shorter of two sleeps; `None` has no end.
pub(super) fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Whether an error of an accept concerns one connection only, and the next may well succeed.
pub(super) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    )
}

/// That a driver knows no streams.
pub(super) fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this driver has no streams")
}
