//! Socket options, and groups of sockets on one address.

use super::super::{BufferSizes, SocketFacts, size_buffers};
use super::bpf::attach_steering;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

fn set_int(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option value is an int that lives through the call, given with its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_int(socket: &impl AsFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`; both live through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Sets what a driver needs of a UDP socket: non-blocking, merged receiving when `gro`, ECN marks,
/// the local address of each datagram on wildcard sockets, drop counts, and no fragmentation by
/// sender or path, whatever path MTU the kernel believes in (the protocol does its own search).
///
/// # Errors
/// Only for options that every supported kernel has.
pub fn configure(socket: &UdpSocket, gro: bool) -> io::Result<SocketFacts> {
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    let wildcard = local.ip().is_unspecified();
    let v6 = local.is_ipv6();
    let v6_only = v6 && get_int(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)? != 0;
    if v6 {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, i32::from(wildcard))?;
    }
    if !v6_only {
        set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        set_int(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        // A dual-stack socket reports mapped addresses with the IPv6 option alone.
        set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, i32::from(wildcard && !v6))?;
    }
    // Without it drops are merely not counted.
    let _ = set_int(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    let gro = gro && set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    // Asked for, never set: a segment size belongs to one send.
    let gso = get_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
    Ok(SocketFacts { local, wildcard, gro, gso })
}

/// Bytes of a TCP connection that were sent and not acknowledged, or wait to be sent (tcp(7):
/// `SIOCOUTQ`); 0 when it does not say.
pub fn stream_backlog(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Ends a TCP connection at once with a reset, whatever still wants to be sent (connect(2):
/// `AF_UNSPEC`). Requests of the socket that wait fail.
///
/// # Errors
/// The socket is no TCP socket, or a thread is blocked on it.
pub(crate) fn disconnect(socket: &impl AsFd) -> io::Result<()> {
    // SAFETY: a sockaddr is numbers only, and all zeros are a value of it.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    // SAFETY: the address lives through the call, given with its size.
    let result = unsafe {
        libc::connect(
            socket.as_fd().as_raw_fd(),
            &raw const nowhere,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends without checksums: the kernel refuses to segment for such a socket.
#[cfg(test)]
pub(crate) fn set_no_checksum(socket: &UdpSocket) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}

/// Whether the kernel segments trains (GSO) and merges datagrams (GRO), asked of a fresh socket.
pub fn offloads() -> (bool, bool) {
    let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)) else {
        return (false, false);
    };
    let gso = get_int(&socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
    let gro = set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    (gso, gro)
}

/// Binds `count` sockets to one address, in order. More than one form a SO_REUSEPORT group whose
/// short packets are steered by their connection id to the socket numbered like their shard
/// (see [`steering_program`](super::steering_program)); everything else goes by the kernel's hash.
/// Never close one of a group alone: the kernel would renumber the others.
///
/// Port 0 takes a free port, the same for all. An IPv6 address takes IPv6 only.
///
/// # Errors
/// The system's; `InvalidInput` for a count of 0 or above 256.
pub fn bind_group(
    address: SocketAddr,
    count: usize,
    sizes: BufferSizes,
) -> io::Result<Vec<UdpSocket>> {
    if count == 0 || count > 256 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "1 to 256 sockets in a group"));
    }
    let mut sockets: Vec<UdpSocket> = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if count > 1 {
            socket.set_reuse_port(true)?;
        }
        size_buffers(&socket, sizes)?;
        let to = match sockets.first() {
            Some(first) => first.local_addr()?,
            None => address,
        };
        socket.bind(&to.into())?;
        socket.set_nonblocking(true)?;
        sockets.push(socket.into());
    }
    if let [first, _, ..] = sockets.as_slice() {
        attach_steering(first)?;
    }
    Ok(sockets)
}
