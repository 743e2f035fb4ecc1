//! System calls that no crate offers, in small safe wrappers.
//!
//! `linux/` holds everything that only Linux has; `portable.rs` does the same jobs with what the
//! standard library offers. Both export the same names for what every driver needs, so that
//! nothing above this module asks which system it runs on:
//!
//! | name | job |
//! | --- | --- |
//! | [`configure`] | the options of a socket that a driver takes over |
//! | [`bind_group`] | one socket for each shard on one address, steered by connection id |
//! | [`offloads`] | whether the system segments and merges trains |
//! | [`RecvBatch`], [`SendBatch`] | many datagrams or trains in one call |
//! | [`prefetch`] | memory is fetched into the caches |
//!
//! `map` and `signal` are there on Unix only. [`lend`] is no system call, but as unsafe as one.

pub mod lend;
#[cfg(unix)]
pub mod map;
#[cfg(unix)]
pub mod signal;

#[cfg(target_os = "linux")]
pub mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod portable;
mod prefetch;

#[cfg(target_os = "linux")]
pub use linux::{
    RecvBatch, SendBatch, bind_group, configure, kernel_release, offloads, sleep_readable,
    stream_backlog,
};
#[cfg(not(target_os = "linux"))]
pub use portable::{
    RecvBatch, SendBatch, bind_group, configure, kernel_release, offloads, stream_backlog,
};
pub use prefetch::prefetch;

use crate::io::TxError;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A received datagram or merged train, as the system described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The sender; `None` when the system gave an address of no known kind.
    pub remote: Option<SocketAddr>,
    /// The local address it was sent to, where known.
    pub local: Option<IpAddr>,
    /// Bytes in the buffer.
    pub len: usize,
    /// Size of every datagram but the last; equal to `len` for one.
    pub stride: usize,
    /// ECN codepoint.
    pub ecn: u8,
    /// It did not fit the buffer.
    pub truncated: bool,
    /// Datagrams dropped at this socket so far because its buffer was full; given only with
    /// datagrams that follow a drop.
    pub dropped: Option<u32>,
}

/// A datagram or train to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The receiver.
    pub remote: SocketAddr,
    /// The local address to send from; `None` = the system chooses.
    pub local: Option<IpAddr>,
    /// All bytes.
    pub bytes: &'a [u8],
    /// Size of every packet but the last.
    pub segment: usize,
    /// ECN codepoint.
    pub ecn: u8,
}

/// What [`configure`] found out about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    /// Its own address.
    pub local: SocketAddr,
    /// It is bound to all local addresses, so that each datagram says which one it was sent to.
    pub wildcard: bool,
    /// Datagrams arrive merged into trains.
    pub gro: bool,
    /// Trains can be segmented by the system.
    pub gso: bool,
}

/// Socket buffer sizes wished for, in bytes; the system caps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSizes {
    /// SO_RCVBUF.
    pub receive: usize,
    /// SO_SNDBUF.
    pub send: usize,
}

impl Default for BufferSizes {
    fn default() -> Self {
        Self { receive: 4 * 1024 * 1024, send: 4 * 1024 * 1024 }
    }
}

/// Sets the sizes and says in the log what came of them. Returns the effective ones.
fn size_buffers(socket: &socket2::Socket, wanted: BufferSizes) -> io::Result<BufferSizes> {
    let _ = socket.set_recv_buffer_size(wanted.receive);
    let _ = socket.set_send_buffer_size(wanted.send);
    // Linux reports twice what it grants: the other half is its own bookkeeping.
    let share = if cfg!(target_os = "linux") { 2 } else { 1 };
    let got = BufferSizes {
        receive: socket.recv_buffer_size()? / share,
        send: socket.send_buffer_size()? / share,
    };
    let (receive, send) = (got.receive, got.send);
    if receive < wanted.receive || send < wanted.send {
        tracing::warn!(
            receive,
            send,
            wanted_receive = wanted.receive,
            wanted_send = wanted.send,
            "socket buffers are smaller than wanted; see net.core.rmem_max and wmem_max"
        );
    } else {
        tracing::debug!(receive, send, "socket buffers");
    }
    Ok(got)
}

/// What an error of a send means to the caller.
pub fn tx_error(error: &io::Error) -> TxError {
    #[cfg(unix)]
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => return TxError::TooLarge,
        Some(
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EADDRNOTAVAIL
            | libc::EACCES
            | libc::EPERM
            | libc::ECONNREFUSED
            | libc::EAFNOSUPPORT,
        ) => return TxError::Unreachable,
        Some(libc::ENOBUFS | libc::ENOMEM) => return TxError::NoBuffers,
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::ConnectionRefused => TxError::Unreachable,
        io::ErrorKind::OutOfMemory => TxError::NoBuffers,
        // WSAEMSGSIZE.
        _ if cfg!(windows) && error.raw_os_error() == Some(10_040) => TxError::TooLarge,
        _ => TxError::Other(error.raw_os_error().unwrap_or(0)),
    }
}

/// Whether the system refused to segment a train: the same bytes may go through packet by packet.
pub fn is_gso_refusal(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// Whether a failed send was for want of room in the socket's buffer: try again when writable.
pub fn is_blocked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests;
