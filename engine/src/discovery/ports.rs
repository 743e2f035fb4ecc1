//! The sockets of presence: one for each interface, family and purpose, waited for together.

use super::DiscoveryError;
use super::interfaces::{Interfaces, Local};
use ::mio::net::UdpSocket;
use ::mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trunkline_proto::rendezvous::presence::{GROUP_V4, GROUP_V6, MAX_MESSAGE_LEN};

/// Datagrams read from one socket before the others have their turn.
const READS_IN_TURN: usize = 64;
/// Problems kept between two looks at the interfaces.
const MAX_PROBLEMS: usize = 256;
/// How soon an interface is tried again that could not be used.
const RETRY: Duration = Duration::from_secs(1);
/// Least time between two looks at the interfaces.
const MIN_RESCAN: Duration = Duration::from_millis(100);
/// Stands for a [`Waker`]; sockets are numbered from 0.
const WAKE: Token = Token(usize::MAX);

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// A host hears questions to the group.
    Group,
    /// A host hears questions to its own address, and answers both.
    Answer,
    /// A client asks the group, and hears the answers.
    Ask,
    /// A client asks single hosts, wherever they are.
    AskHosts,
}

/// A socket that there is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub purpose: Purpose,
    pub local: Local,
}

type Key = (Purpose, u32, IpAddr);

impl Wanted {
    fn key(&self) -> Key {
        (self.purpose, self.local.index, self.local.ip)
    }
}

/// Something that goes wrong on one interface. Nothing else suffers from it, and it is tried again
/// and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The interface's name.
    pub interface: String,
    /// Its address that was to be used.
    pub address: IpAddr,
    /// What was being done.
    pub doing: String,
    /// The system's words for what is wrong.
    pub error: String,
    /// The system's kind of error.
    pub kind: io::ErrorKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, address, doing, error, .. } = self;
        write!(f, "{interface} ({address}): {doing}: {error}")
    }
}

/// Ends the wait of another thread that is inside [`poll`](super::Discovery::poll).
#[derive(Clone, Debug)]
pub struct Waker(Arc<::mio::Waker>);

impl Waker {
    /// The poll that is going on, or else the next one, comes back without waiting any longer; until
    /// then the descriptor is readable.
    ///
    /// # Errors
    /// The system's.
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}

/// A socket that there is.
#[derive(Debug)]
pub(super) struct Port {
    pub purpose: Purpose,
    pub local: Local,
    socket: UdpSocket,
    readable: bool,
}

/// All of them. A number is never given twice.
#[derive(Debug)]
pub(super) struct Ports {
    selector: Poll,
    waker: Waker,
    woken: bool,
    events: Events,
    open: BTreeMap<u32, Port>,
    next: u32,
    problems: Vec<Problem>,
    interfaces: Interfaces,
    rescan_at: Instant,
    /// UDP port of hosts.
    port: u16,
}

impl Ports {
    /// # Errors
    /// The system has no selector to give.
    pub(super) fn new(interfaces: Interfaces, port: u16) -> Result<Self, DiscoveryError> {
        let failed = "make a selector";
        let selector = Poll::new().map_err(super::system(failed))?;
        let waker = ::mio::Waker::new(selector.registry(), WAKE).map_err(super::system(failed))?;
        Ok(Self {
            selector,
            waker: Waker(Arc::new(waker)),
            woken: false,
            events: Events::with_capacity(64),
            open: BTreeMap::new(),
            next: 0,
            problems: Vec::new(),
            interfaces,
            rescan_at: Instant::now(),
            port,
        })
    }

    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    #[cfg(unix)]
    pub(super) fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.selector)
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether somebody has woken this since it was asked last.
    pub(super) const fn take_woken(&mut self) -> bool {
        std::mem::replace(&mut self.woken, false)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Port)> {
        self.open.iter().map(|(number, port)| (*number, port))
    }

    pub(super) fn get(&self, number: u32) -> Option<&Port> {
        self.open.get(&number)
    }

    pub(super) const fn rescan_at(&self) -> Instant {
        self.rescan_at
    }

    /// Look at the interfaces with the next turn.
    pub(super) fn rescan_now(&mut self) {
        self.rescan_at = Instant::now();
    }

    /// Opens what is wanted for the addresses of now and closes what is not wanted any more.
    /// `true` when a socket was opened.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub(super) fn rescan(
        &mut self,
        wanted: impl FnOnce(&[Local]) -> Vec<Wanted>,
    ) -> Result<bool, DiscoveryError> {
        let found = self.interfaces.scan().map_err(super::system("list network interfaces"))?;
        let wanted = wanted(&found);
        let gone: Vec<u32> = self
            .iter()
            .filter(|(_, p)| !wanted.iter().any(|w| w.purpose == p.purpose && w.local == p.local))
            .map(|(number, _)| number)
            .collect();
        for number in gone {
            self.close(number);
        }
        let mut opened = false;
        let mut problems = Vec::new();
        for want in wanted {
            if self.open.values().any(|p| (p.purpose, p.local.index, p.local.ip) == want.key()) {
                continue;
            }
            match self.open(&want) {
                Ok(()) => opened = true,
                Err((doing, error)) => problems.push(problem(&want.local, doing, &error)),
            }
        }
        for new in problems.iter().filter(|p| !self.problems.contains(p)) {
            tracing::info!("presence: {new}");
        }
        self.problems = problems;
        let again = self.interfaces.rescan.max(MIN_RESCAN);
        let again = if self.problems.is_empty() { again } else { again.min(RETRY) };
        self.rescan_at = Instant::now() + again;
        Ok(opened)
    }

    fn open(&mut self, want: &Wanted) -> Result<(), (String, io::Error)> {
        let socket = open(want, self.port)?;
        let number = self.next;
        let mut socket = UdpSocket::from_std(socket.into());
        let token = Token(number as usize);
        self.selector
            .registry()
            .register(&mut socket, token, Interest::READABLE)
            .map_err(|e| ("watch the socket".to_owned(), e))?;
        self.next += 1;
        let Wanted { purpose, local } = want.clone();
        tracing::debug!(interface = local.name, ip = %local.ip, ?purpose, "presence socket");
        self.open.insert(number, Port { purpose, local, socket, readable: true });
        Ok(())
    }

    fn close(&mut self, number: u32) {
        if let Some(mut port) = self.open.remove(&number) {
            tracing::debug!(interface = port.local.name, ip = %port.local.ip, "presence socket closed");
            let _ = self.selector.registry().deregister(&mut port.socket);
        }
    }

    /// Waits for datagrams or a wake, at most `timeout`.
    ///
    /// # Errors
    /// The selector's.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<(), DiscoveryError> {
        let waiting = self.open.values().any(|p| p.readable);
        let timeout = if waiting { Duration::ZERO } else { timeout };
        match self.selector.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(super::system("wait for datagrams")(e)),
        }
        for event in &self.events {
            if event.token() == WAKE {
                self.woken = true;
                continue;
            }
            let number = event.token().0 as u32;
            if let Some(port) = self.open.get_mut(&number) {
                port.readable = true;
            }
        }
        Ok(())
    }

    /// Takes what has arrived, up to a bound; the next [`wait`](Self::wait) comes back at once when
    /// there is more.
    pub(super) fn receive(&mut self, mut take: impl FnMut(u32, &Port, SocketAddr, &[u8])) {
        // One byte more than any message: what is cut is seen to be too large.
        let mut buf = [0; MAX_MESSAGE_LEN + 1];
        for (number, port) in &mut self.open {
            if !port.readable {
                continue;
            }
            for _ in 0..READS_IN_TURN {
                match port.socket.recv_from(&mut buf) {
                    Ok((len, from)) => take(*number, port, from, &buf[..len]),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        port.readable = false;
                        break;
                    }
                    // Such as that a host we asked has no such port: told once and then forgotten
                    // by the system, like everything else that can be said here.
                    Err(e) => tracing::debug!(interface = port.local.name, "presence: {e}"),
                }
            }
        }
    }

    /// Sends from a socket. What the network refuses is a problem of the interface until the next
    /// look at it.
    pub(super) fn send(&mut self, number: u32, to: SocketAddr, datagram: &[u8]) {
        let Some(port) = self.open.get(&number) else { return };
        let Err(error) = port.socket.send_to(datagram, to) else { return };
        // No room in the queue: the datagram is lost, as datagrams are.
        if error.kind() == io::ErrorKind::WouldBlock {
            return;
        }
        let new = problem(&port.local, format!("send to {to}"), &error);
        if !self.problems.contains(&new) && self.problems.len() < MAX_PROBLEMS {
            tracing::info!("presence: {new}");
            self.problems.push(new);
        }
    }

    /// Sends a question to the group from a socket made for that.
    pub(super) fn send_to_group(&mut self, number: u32, datagram: &[u8]) {
        let Some(port) = self.open.get(&number) else { return };
        let to = group_from(&port.local, self.port);
        self.send(number, to, datagram);
    }
}

fn problem(local: &Local, doing: String, error: &io::Error) -> Problem {
    Problem {
        interface: local.name.clone(),
        address: local.ip,
        doing,
        error: error.to_string(),
        kind: error.kind(),
    }
}

/// The group as seen from an interface.
fn group(local: &Local, port: u16) -> SocketAddr {
    match local.ip {
        IpAddr::V4(_) => (GROUP_V4, port).into(),
        IpAddr::V6(_) => SocketAddrV6::new(GROUP_V6, port, 0, local.index).into(),
    }
}

/// Where a question to the group goes from an interface. IPv6 has no multicast on the loopback
/// interface of Linux: there the machine itself is asked.
fn group_from(local: &Local, port: u16) -> SocketAddr {
    if local.ip.is_ipv6() && local.ip.is_loopback() {
        address(local, port)
    } else {
        group(local, port)
    }
}

/// The address of an interface; link-local ones with their scope.
fn address(local: &Local, port: u16) -> SocketAddr {
    match local.ip {
        IpAddr::V6(v6) if local.is_link_local() => {
            SocketAddrV6::new(v6, port, 0, local.index).into()
        }
        ip => (ip, port).into(),
    }
}

fn open(want: &Wanted, port: u16) -> Result<Socket, (String, io::Error)> {
    let local = &want.local;
    let domain = if local.ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |e| (doing, e)
    };
    let socket =
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(failed("make a socket"))?;
    socket.set_nonblocking(true).map_err(failed("make a socket"))?;
    if local.ip.is_ipv6() {
        socket.set_only_v6(true).map_err(failed("make a socket for IPv6 only"))?;
    }
    match want.purpose {
        Purpose::Group => {
            // Bound to the group, the socket hears nothing else. Windows binds to no group: there
            // its own address hears both.
            let to = if cfg!(windows) { address(local, port) } else { group(local, port) };
            share(&socket).map_err(failed("share the port"))?;
            socket.bind(&to.into()).map_err(failed(&format!("bind {to}")))?;
            join(&socket, local).map_err(failed(&format!("join the group {to}")))?;
        }
        Purpose::Answer => {
            let to = address(local, port);
            share(&socket).map_err(failed("share the port"))?;
            socket.bind(&to.into()).map_err(failed(&format!("bind {to}")))?;
        }
        Purpose::Ask => {
            let to = address(local, 0);
            socket.bind(&to.into()).map_err(failed(&format!("bind {to}")))?;
            aim(&socket, local).map_err(failed("send to the group"))?;
        }
        Purpose::AskHosts => {
            socket.bind(&address(local, 0).into()).map_err(failed("bind a port"))?;
        }
    }
    Ok(socket)
}

/// Other programs may use the same address and port.
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(())
}

/// Hears the group on this interface, and on no other.
fn join(socket: &Socket, local: &Local) -> io::Result<()> {
    match local.ip {
        IpAddr::V4(v4) => {
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4(&GROUP_V4, &v4)
        }
        IpAddr::V6(_) => {
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&GROUP_V6, local.index)
        }
    }
}

/// What goes to the group leaves on this interface, is heard by this machine as well, and by no
/// router.
fn aim(socket: &Socket, local: &Local) -> io::Result<()> {
    match local.ip {
        IpAddr::V4(v4) => {
            socket.set_multicast_if_v4(&v4)?;
            socket.set_multicast_ttl_v4(1)?;
            socket.set_multicast_loop_v4(true)
        }
        IpAddr::V6(_) => {
            socket.set_multicast_if_v6(local.index)?;
            socket.set_multicast_hops_v6(1)?;
            socket.set_multicast_loop_v6(true)
        }
    }
}

/// Stands for all addresses of a family.
pub(super) fn anywhere(v4: bool) -> Local {
    let ip = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Local::any(ip)
}
