//! The sockets of one shard: listening ones, given by the engine, and client sockets, made when
//! the first connection needs one.
//!
//! The endpoint knows sockets by the numbers of this table, the driver by its own. That lets a
//! connect made inside a handler's call name its socket at once, although the driver takes it over
//! only after the call.

use crate::capture::ShardCapture;
use crate::handle::ListenerId;
use crate::sys::{self, BufferSizes};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// Sockets of one shard at once.
const MAX_SOCKETS: usize = 1024;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Accepts connections.
    Listen(ListenerId),
    /// Accepts no more, but has connections.
    Dormant(ListenerId),
    /// Makes connections to addresses of one family, or of both.
    Client(Family),
}

/// Which addresses a client socket reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    /// IPv6, and IPv4 in its mapped form.
    Both,
}

impl Family {
    /// The family that reaches all of `remotes`.
    pub(crate) fn of(remotes: &[SocketAddr]) -> Self {
        let v4 = remotes.iter().any(SocketAddr::is_ipv4);
        let v6 = remotes.iter().any(SocketAddr::is_ipv6);
        match (v4, v6) {
            (true, true) => Self::Both,
            (false, true) => Self::V6,
            _ => Self::V4,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub purpose: Purpose,
    pub local: SocketAddr,
    /// The driver's number, once it has the socket.
    driver: Option<u16>,
    /// Connections that were accepted through it and live.
    pub accepted: u32,
    /// STUN requests are answered there, as long as it listens.
    stun: bool,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    entries: Vec<Option<Entry>>,
    /// The driver's number → ours.
    by_driver: Vec<Option<u16>>,
    pending: Vec<(u16, UdpSocket)>,
    retiring: Vec<u16>,
    capture: Option<Arc<ShardCapture>>,
}

impl Sockets {
    /// No sockets yet; those to come are told to `capture`.
    pub(crate) fn new(capture: Option<Arc<ShardCapture>>) -> Self {
        Self { capture, ..Self::default() }
    }

    /// Adds a bound socket; the driver gets it with [`attach`](Self::attach).
    pub(crate) fn add(&mut self, socket: UdpSocket, purpose: Purpose) -> io::Result<u16> {
        let number = self.place(socket.local_addr()?, purpose)?;
        self.pending.push((number, socket));
        Ok(number)
    }

    /// Adds a socket that the driver has already, under its number `driver`.
    pub(crate) fn adopt(
        &mut self,
        driver: u16,
        local: SocketAddr,
        purpose: Purpose,
    ) -> io::Result<u16> {
        let number = self.place(local, purpose)?;
        self.map(number, driver);
        Ok(number)
    }

    fn map(&mut self, number: u16, driver: u16) {
        if let Some(entry) = self.get_mut(number) {
            entry.driver = Some(driver);
        }
        let at = usize::from(driver);
        if self.by_driver.len() <= at {
            self.by_driver.resize(at + 1, None);
        }
        self.by_driver[at] = Some(number);
    }

    fn place(&mut self, local: SocketAddr, purpose: Purpose) -> io::Result<u16> {
        let number = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        if number >= MAX_SOCKETS {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many sockets"));
        }
        if let Some(capture) = &self.capture {
            capture.socket(number as u16, local);
        }
        let entry = Some(Entry { purpose, local, driver: None, accepted: 0, stun: false });
        if number == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[number] = entry;
        }
        Ok(number as u16)
    }

    /// The client socket that reaches `family`, made if there is none.
    pub(crate) fn client(&mut self, family: Family, buffer_bytes: usize) -> io::Result<u16> {
        let wanted = Purpose::Client(family);
        let found =
            self.entries.iter().position(|e| e.as_ref().is_some_and(|e| e.purpose == wanted));
        if let Some(number) = found {
            return Ok(number as u16);
        }
        let socket = bind_client(family, buffer_bytes)?;
        self.add(socket, wanted)
    }

    pub(crate) fn get(&self, number: u16) -> Option<&Entry> {
        self.entries.get(usize::from(number))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u16) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(number))?.as_mut()
    }

    /// Our number of the driver's socket.
    pub(crate) fn of_driver(&self, driver: u16) -> Option<u16> {
        self.by_driver.get(usize::from(driver)).copied().flatten()
    }

    /// The driver's number of our socket.
    pub(crate) fn to_driver(&self, number: u16) -> Option<u16> {
        self.get(number)?.driver
    }

    /// Every socket with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(n, e)| Some((n as u16, e.as_ref()?)))
    }

    /// The socket of a listener, awake or dormant.
    pub(crate) fn of_listener(&self, id: ListenerId) -> Option<u16> {
        self.iter()
            .find(|(_, e)| matches!(e.purpose, Purpose::Listen(l) | Purpose::Dormant(l) if l == id))
            .map(|(n, _)| n)
    }

    /// The listener that a socket has or had.
    pub(crate) fn listener(&self, number: u16) -> Option<ListenerId> {
        match self.get(number)?.purpose {
            Purpose::Listen(id) | Purpose::Dormant(id) => Some(id),
            Purpose::Client(_) => None,
        }
    }

    /// Whether STUN requests are answered at the sockets of a listener.
    pub(crate) fn set_stun(&mut self, id: ListenerId, on: bool) {
        let own = |e: &&mut Entry| e.purpose == Purpose::Listen(id);
        self.entries.iter_mut().flatten().filter(own).for_each(|e| e.stun = on);
    }

    /// Whether they are at this one.
    pub(crate) fn answers_stun(&self, number: u16) -> bool {
        self.get(number).is_some_and(|e| e.stun && matches!(e.purpose, Purpose::Listen(_)))
    }

    /// Whether it makes connections, rather than accepting them.
    pub(crate) fn is_client(&self, number: u16) -> bool {
        self.get(number).is_some_and(|e| matches!(e.purpose, Purpose::Client(_)))
    }

    /// Gives the driver every socket that it does not have yet.
    pub(crate) fn attach(
        &mut self,
        mut give: impl FnMut(UdpSocket) -> io::Result<u16>,
    ) -> Vec<(u16, io::Error)> {
        let mut failed = Vec::new();
        for (number, socket) in std::mem::take(&mut self.pending) {
            match give(socket) {
                Ok(driver) => self.map(number, driver),
                Err(e) => {
                    self.entries[usize::from(number)] = None;
                    failed.push((number, e));
                }
            }
        }
        failed
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// One connection less; a dormant listener without connections retires.
    pub(crate) fn forget_accepted(&mut self, number: u16) {
        if let Some(entry) = self.get_mut(number) {
            entry.accepted = entry.accepted.saturating_sub(1);
            if entry.accepted == 0 && matches!(entry.purpose, Purpose::Dormant(_)) {
                self.retiring.push(number);
            }
        }
    }

    /// The listener accepts no more; without connections its socket retires.
    pub(crate) fn make_dormant(&mut self, number: u16) {
        if let Some(entry) = self.get_mut(number)
            && let Purpose::Listen(id) = entry.purpose
        {
            entry.purpose = Purpose::Dormant(id);
            if entry.accepted == 0 {
                self.retiring.push(number);
            }
        }
    }

    /// A dormant socket accepts again, for a new listener at the same address.
    pub(crate) fn awaken(&mut self, number: u16, id: ListenerId) {
        if let Some(entry) = self.get_mut(number) {
            entry.purpose = Purpose::Listen(id);
        }
        self.retiring.retain(|n| *n != number);
    }

    /// Takes out the sockets that nobody uses any more, as the driver's numbers.
    pub(crate) fn retire(&mut self) -> Vec<u16> {
        if self.retiring.is_empty() {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for number in std::mem::take(&mut self.retiring) {
            if let Some(entry) = self.entries[usize::from(number)].take() {
                match entry.driver {
                    Some(driver) => {
                        self.by_driver[usize::from(driver)] = None;
                        gone.push(driver);
                    }
                    None => self.pending.retain(|(n, _)| *n != number),
                }
            }
        }
        gone
    }
}

fn bind_client(family: Family, buffer_bytes: usize) -> io::Result<UdpSocket> {
    if family == Family::Both {
        return bind_both(buffer_bytes);
    }
    let any: SocketAddr = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    bind_listeners(any, 1, buffer_bytes)?.pop().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// An IPv6 socket that reaches IPv4 too.
fn bind_both(buffer_bytes: usize) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    // The system may give less; that is no reason to fail.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
    Ok(socket.into())
}

/// One listening socket for each of `shards` shards at the same address, in their order.
pub(crate) fn bind_listeners(
    addr: SocketAddr,
    shards: usize,
    buffer_bytes: usize,
) -> io::Result<Vec<UdpSocket>> {
    let sizes = BufferSizes { receive: buffer_bytes, send: buffer_bytes };
    sys::bind_group(addr, shards, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn numbers_are_ours_and_the_driver_keeps_its_own() {
        let mut sockets = Sockets::default();
        let id = ListenerId(1);
        let a = sockets.add(local(), Purpose::Listen(id)).unwrap();
        let b = sockets.client(Family::V4, 0).unwrap();
        assert_eq!(sockets.client(Family::V4, 0).unwrap(), b, "made once");
        assert!(sockets.has_pending());
        let mut next = 7;
        let failed = sockets.attach(|_| {
            next += 1;
            Ok(next)
        });
        assert!(failed.is_empty() && !sockets.has_pending());
        assert_eq!((sockets.to_driver(a), sockets.to_driver(b)), (Some(8), Some(9)));
        assert_eq!(sockets.of_driver(9), Some(b));
        assert_eq!(sockets.of_driver(1), None);
        assert_eq!(sockets.of_listener(id), Some(a));
        assert_eq!(sockets.listener(b), None);
    }

    #[test]
    fn a_listener_retires_with_its_last_connection() {
        let mut sockets = Sockets::default();
        let id = ListenerId(1);
        let n = sockets.add(local(), Purpose::Listen(id)).unwrap();
        sockets.attach(|_| Ok(0));
        sockets.get_mut(n).unwrap().accepted = 1;
        sockets.make_dormant(n);
        assert!(sockets.retire().is_empty());
        sockets.forget_accepted(n);
        assert_eq!(sockets.retire(), [0]);
        assert!(sockets.get(n).is_none());
        // The number is used again.
        assert_eq!(sockets.add(local(), Purpose::Listen(ListenerId(2))).unwrap(), n);
    }

    #[test]
    fn a_dormant_listener_can_awake() {
        let mut sockets = Sockets::default();
        let n = sockets.add(local(), Purpose::Listen(ListenerId(1))).unwrap();
        sockets.attach(|_| Ok(0));
        sockets.make_dormant(n);
        sockets.awaken(n, ListenerId(2));
        assert!(sockets.retire().is_empty());
        assert_eq!(sockets.of_listener(ListenerId(2)), Some(n));
    }

    #[test]
    fn a_socket_that_the_driver_refuses_is_gone() {
        let mut sockets = Sockets::default();
        let n = sockets.client(Family::V4, 0).unwrap();
        let failed = sockets.attach(|_| Err(io::ErrorKind::Other.into()));
        assert_eq!(failed[0].0, n);
        assert!(sockets.get(n).is_none());
    }

    #[test]
    fn families() {
        let v4: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(Family::of(&[v4]), Family::V4);
        assert_eq!(Family::of(&[v6]), Family::V6);
        assert_eq!(Family::of(&[v6, v4]), Family::Both);
    }

    #[test]
    fn listeners_of_one_address() {
        let sockets = bind_listeners("127.0.0.1:0".parse().unwrap(), 3, 0).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        assert!(sockets.iter().all(|s| s.local_addr().unwrap().port() == port));
    }
}
