//! The sockets of a listener: what its links name, at one address.

use super::sockets::bind_listeners;
use crate::config::Links;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Connections that the system keeps until they are accepted, if its limit (`net.core.somaxconn` of
/// Linux) allows as many. Those beyond are tried again by their side after a second or more: too few
/// make all who come back at once after a restart wait.
const BACKLOG: i32 = 4096;
/// With port 0 a port that is free for datagrams is tried for streams, at most this often.
const PORT_ATTEMPTS: u32 = 16;

/// Sockets of one listener, for each shard.
pub(crate) struct Bound {
    pub local_addr: SocketAddr,
    pub datagrams: Vec<Option<UdpSocket>>,
    pub streams: Vec<Option<TcpListener>>,
}

/// Binds what `links` name to one address, the same port for all.
pub(crate) fn bind_links(
    addr: SocketAddr,
    links: Links,
    shards: usize,
    buffer_bytes: usize,
) -> io::Result<Bound> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match bind_once(addr, links, shards, buffer_bytes) {
            Err(e)
                if e.kind() == io::ErrorKind::AddrInUse
                    && addr.port() == 0
                    && attempt < PORT_ATTEMPTS => {}
            result => return result,
        }
    }
}

fn bind_once(
    addr: SocketAddr,
    links: Links,
    shards: usize,
    buffer_bytes: usize,
) -> io::Result<Bound> {
    let mut local_addr = addr;
    let mut datagrams: Vec<Option<UdpSocket>> = Vec::new();
    if links.datagram {
        match bind_listeners(addr, shards, buffer_bytes) {
            Ok(sockets) => datagrams = sockets.into_iter().map(Some).collect(),
            // Perhaps by ourselves: the socket of a listener that was closed and has connections.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && addr.port() != 0 => {}
            Err(e) => return Err(e),
        }
        if let Some(Some(first)) = datagrams.first() {
            local_addr = first.local_addr()?;
        }
    }
    datagrams.resize_with(shards, || None);
    let mut streams = Vec::new();
    if links.any_stream() {
        streams = bind_streams(local_addr, shards)?;
        if let Some(Some(first)) = streams.first() {
            local_addr = first.local_addr()?;
        }
    }
    streams.resize_with(shards, || None);
    Ok(Bound { local_addr, datagrams, streams })
}

/// One listening TCP socket for each shard, among which the system spreads connections; where it
/// cannot, the first shard has the only one.
fn bind_streams(addr: SocketAddr, shards: usize) -> io::Result<Vec<Option<TcpListener>>> {
    use socket2::{Domain, Protocol, Socket, Type};
    let count = if cfg!(target_os = "linux") { shards } else { 1 };
    let mut listeners: Vec<Option<TcpListener>> = Vec::new();
    let mut to = addr;
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        #[cfg(target_os = "linux")]
        if count > 1 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&to.into())?;
        socket.listen(BACKLOG)?;
        let listener: TcpListener = socket.into();
        to = listener.local_addr()?;
        listeners.push(Some(listener));
    }
    Ok(listeners)
}
