//! The jobs of [`sys`](super) with what the standard library offers: one packet a call, no merged
//! trains, no ECN, no local addresses.

use super::{BufferSizes, Outgoing, Received, SocketFacts, size_buffers};
use mio::net::UdpSocket as MioSocket;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};

/// Sets what a driver needs of a UDP socket: non-blocking.
///
/// # Errors
/// The system's.
pub fn configure(socket: &UdpSocket, _gro: bool) -> io::Result<SocketFacts> {
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    let wildcard = local.ip().is_unspecified();
    Ok(SocketFacts { local, wildcard, gro: false, gso: false })
}

/// Bytes of a TCP connection that the peer has not acknowledged: nobody tells.
pub const fn stream_backlog<S>(_: &S) -> usize {
    0
}

/// Trains are neither segmented nor merged by the system.
pub const fn offloads() -> (bool, bool) {
    (false, false)
}

/// Binds one socket. Port 0 takes a free port. An IPv6 address takes IPv6 only.
///
/// # Errors
/// The system's; `Unsupported` for more than one socket, because packets could not be steered.
pub fn bind_group(
    address: SocketAddr,
    count: usize,
    sizes: BufferSizes,
) -> io::Result<Vec<UdpSocket>> {
    if count != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "several sockets on one address need Linux",
        ));
    }
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    size_buffers(&socket, sizes)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(vec![socket.into()])
}

/// The system's release: unknown here.
pub fn kernel_release() -> String {
    String::new()
}

/// Receives many datagrams, one call each.
#[derive(Debug)]
pub struct RecvBatch {
    received: Vec<Received>,
    count: usize,
}

impl RecvBatch {
    /// At most `count` datagrams a call.
    pub fn new(count: usize) -> Self {
        Self { received: Vec::with_capacity(count), count }
    }

    /// Receives at most one datagram into each of `slices` without waiting, and returns how many
    /// came. Fewer than asked for means that no more were there.
    ///
    /// # Errors
    /// `WouldBlock` when there was none; others as the system gives them.
    pub fn recv(&mut self, socket: &MioSocket, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.received.clear();
        for slice in slices.iter_mut().take(self.count) {
            match socket.recv_from(slice) {
                Ok((len, remote)) => self.received.push(Received {
                    remote: Some(remote),
                    local: None,
                    len,
                    stride: len,
                    ecn: 0,
                    truncated: false,
                    dropped: None,
                }),
                Err(e) if self.received.is_empty() => return Err(e),
                Err(_) => break,
            }
        }
        Ok(self.received.len())
    }

    /// What was said about the datagram in slice `i` of the last call.
    pub fn message(&self, i: usize) -> Option<Received> {
        self.received.get(i).copied()
    }
}

/// Sends many datagrams, one call each.
#[derive(Debug)]
pub struct SendBatch {
    count: usize,
}

impl SendBatch {
    /// At most `count` messages a call.
    pub const fn new(count: usize) -> Self {
        Self { count }
    }

    /// Most messages in one call.
    pub const fn capacity(&self) -> usize {
        self.count
    }

    /// Sends single datagrams without waiting, and returns how many went: all before the first
    /// that failed.
    ///
    /// # Errors
    /// That of the first one; `WouldBlock` when there is no room for it.
    pub fn send<'a>(
        &mut self,
        socket: &MioSocket,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let mut sent = 0;
        for message in messages.take(self.count) {
            match socket.send_to(message.bytes, message.remote) {
                Ok(_) => sent += 1,
                Err(e) if sent == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(sent)
    }
}
