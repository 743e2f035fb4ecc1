//! UDP sockets as all peers get them.

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Largest UDP payload over IPv4.
pub(super) const LARGEST: usize = 65_507;
/// Send and receive buffer of a socket in bytes, as Trunkline asks for.
const BUFFER: usize = 4 << 20;

/// A bound socket with large buffers.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Any local address that reaches `server`.
pub(super) fn any(server: SocketAddr) -> SocketAddr {
    if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    }
}

/// Waits for a non-blocking socket to become readable.
pub(super) struct Waiter {
    poll: Poll,
    events: Events,
    // Registered, and must live as long as the registration.
    _socket: mio::net::UdpSocket,
}

impl Waiter {
    /// For this socket.
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut socket = mio::net::UdpSocket::from_std(socket.try_clone()?);
        poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
        Ok(Self { poll, events: Events::with_capacity(1), _socket: socket })
    }

    /// Until a datagram comes, at most `longest`. The socket must have been read empty.
    pub(super) fn wait(&mut self, longest: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(longest)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// The same for a socket that may have something already.
    pub(super) fn wait_unless_readable(
        &mut self,
        socket: &UdpSocket,
        longest: Duration,
    ) -> io::Result<()> {
        match socket.peek(&mut [0]) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(longest),
            _ => Ok(()),
        }
    }
}
