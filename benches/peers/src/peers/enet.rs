//! ENet (rusty_enet, the C library translated to Rust): reliable UDP without encryption.
//!
//! | setting | value | why |
//! | --- | --- | --- |
//! | MTU | 1452, or 4096 (its maximum) for `bulk-large` | the same packets for all |
//! | bandwidth limits | none | |
//! | throttle | acceleration 32, deceleration 0 | unreliable packets are never dropped by the sender |
//! | peers | as many as there are connections; 256 while they come and go | every call looks at all |
//! | channels | 2 | one for messages, one for credit |
//! | socket buffers | 4 MiB | as Trunkline; ENet's own 256 KiB loses packets |
//! | waiting | `poll` for the socket, 1 ms at most | a game's loop; `tick` always sleeps 1 ms, as every service call looks at every peer |
//!
//! ENet queues without bound. So a receiver of reliable messages returns credit every few
//! messages, and the sender keeps a bounded number under way, enough for ENet's own window.

use super::udp;
use crate::counters::{Counters, Series, unix_ns};
use crate::pacer::{CLIENT_SLOTS, Pacer, SERVER_SLOTS};
use crate::payload::{self, Source};
use crate::peer::{Outcome, Peer};
use crate::side::Side;
use crate::workload::{Job, OPENING, PACKET, Workload};
use rusty_enet::{
    Event, Host, HostSettings, MTU_MAX, Packet, PacketReceived, PeerID, Socket, SocketOptions,
};
use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Longest sleep.
const NAP: Duration = Duration::from_millis(1);
/// Channel of the messages.
const DATA: u8 = 0;
/// Channel on which the receiver says what it has taken.
const CREDIT: u8 = 1;
/// Peers of a host while connections come and go.
const PEERS_OPENING: usize = 256;
/// Unreliable messages between two looks at the socket.
const BURST: usize = 256;

/// The peer.
pub struct Enet;

impl Peer for Enet {
    fn name(&self) -> &'static str {
        "enet"
    }

    fn about(&self) -> &'static str {
        "ENet (rusty_enet), not encrypted"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["rusty_enet"]
    }

    fn refuses(&self, workload: Workload) -> Option<&'static str> {
        match workload {
            Workload::SmallBatched => Some("gathers messages itself, see `small`"),
            Workload::Resumed => Some("has no handshake to shorten"),
            Workload::Memory => Some("takes the memory of all peers when a host is made"),
            _ => None,
        }
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        let socket = udp::bind(job.listen.parse()?)?;
        let address = socket.local_addr()?;
        let mut server = Server::new(job, side, host(job, socket)?);
        side.listening(address);
        loop {
            server.turn()?;
        }
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        let socket = udp::bind(udp::any(server))?;
        let mut client = Client::new(job, server, side, host(job, socket)?);
        client.start()?;
        loop {
            client.turn()?;
        }
    }
}

/// A socket that knows when it was read empty, and can wait.
struct Waiting {
    socket: UdpSocket,
    waiter: udp::Waiter,
    drained: bool,
}

impl Socket for Waiting {
    type Address = SocketAddr;
    type Error = io::Error;

    fn init(&mut self, _: SocketOptions) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    fn send(&mut self, address: SocketAddr, buffer: &[u8]) -> io::Result<usize> {
        match self.socket.send_to(buffer, address) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    fn receive(
        &mut self,
        buffer: &mut [u8; MTU_MAX],
    ) -> io::Result<Option<(SocketAddr, PacketReceived)>> {
        match self.socket.recv_from(buffer) {
            Ok((n, from)) => Ok(Some((from, PacketReceived::Complete(n)))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.drained = true;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

fn host(job: &Job, socket: UdpSocket) -> Result<Host<Waiting>> {
    let waiter = udp::Waiter::new(&socket)?;
    let peer_limit = if job.workload.opens() { PEERS_OPENING } else { job.connections };
    let settings = HostSettings { channel_limit: 2, peer_limit, ..HostSettings::default() };
    let socket = Waiting { socket, waiter, drained: false };
    let mut host = Host::new(socket, settings).map_err(|e| format!("no host: {e:?}"))?;
    let mtu = if job.workload == Workload::BulkLarge { MTU_MAX } else { PACKET };
    host.set_mtu(mtu as u16).map_err(|e| format!("no such MTU: {e:?}"))?;
    Ok(host)
}

/// Sleeps until a packet, or for a nap.
fn wait(host: &mut Host<Waiting>, workload: Workload) -> Result<()> {
    if workload == Workload::Tick {
        std::thread::sleep(NAP);
    } else if std::mem::take(&mut host.socket_mut().drained) {
        host.socket_mut().waiter.wait(NAP)?;
    }
    Ok(())
}

/// Messages between two returns of credit, and messages under way at most.
const fn credit(workload: Workload) -> (u64, u64) {
    match workload {
        Workload::Bulk | Workload::BulkLarge => (8, 64),
        _ => (1024, 16_384),
    }
}

fn tick(
    host: &mut Host<Waiting>,
    pacer: &mut Pacer,
    source: &mut Source,
    peers: &[PeerID],
    counters: &Counters,
) {
    while let Some((slot, at)) = pacer.due(Instant::now()) {
        if counters.is_quiet() {
            continue;
        }
        for n in pacer.members(slot, peers.len()) {
            let packet = Packet::unreliable(source.numbered(at));
            if host.peer_mut(peers[n]).send(DATA, &packet).is_ok() {
                counters.sent(1);
            }
        }
        host.flush();
    }
}

struct Server<'a> {
    workload: Workload,
    counters: &'a Counters,
    host: Host<Waiting>,
    series: Series,
    taken: u64,
    peers: Vec<PeerID>,
    pacer: Pacer,
    source: Source,
}

impl<'a> Server<'a> {
    fn new(job: &Job, side: &'a Side, host: Host<Waiting>) -> Self {
        Self {
            workload: job.workload,
            counters: &side.counters,
            host,
            series: Series::default(),
            taken: 0,
            peers: Vec::new(),
            pacer: Pacer::new(SERVER_SLOTS),
            source: Source::new(job.workload.message(), 2),
        }
    }

    fn turn(&mut self) -> Result<()> {
        while let Some(event) = self.host.service()? {
            match event {
                Event::Connect { peer, .. } => {
                    peer.set_throttle(1000, 32, 0);
                    if self.workload == Workload::Tick {
                        self.peers.push(peer.id());
                    }
                }
                Event::Receive { peer, packet, .. } => {
                    let (id, message) = (peer.id(), packet.data());
                    take(self.workload, self.counters, &mut self.series, message);
                    self.taken += 1;
                    let echo = self.workload.opens() || self.workload == Workload::Latency;
                    if echo {
                        let back = Packet::reliable(message);
                        self.host.peer_mut(id).send(DATA, &back).map_err(|e| format!("{e:?}"))?;
                        self.host.flush();
                    } else if reliable(self.workload)
                        && self.taken.is_multiple_of(credit(self.workload).0)
                    {
                        let back = Packet::reliable(&self.taken.to_le_bytes()[..]);
                        self.host.peer_mut(id).send(CREDIT, &back).map_err(|e| format!("{e:?}"))?;
                    }
                }
                Event::Disconnect { .. } => {}
            }
        }
        if self.workload == Workload::Tick {
            tick(&mut self.host, &mut self.pacer, &mut self.source, &self.peers, self.counters);
        }
        self.host.flush();
        wait(&mut self.host, self.workload)
    }
}

const fn reliable(workload: Workload) -> bool {
    matches!(workload, Workload::Bulk | Workload::BulkLarge | Workload::Small)
}

fn take(workload: Workload, counters: &Counters, series: &mut Series, message: &[u8]) {
    match workload {
        Workload::Tick => counters.stamped(message),
        workload if workload.opens() || workload == Workload::Datagrams => {
            match payload::open(message) {
                Some(_) => counters.received(message.len()),
                None => counters.corrupt(),
            }
        }
        _ => series.take(counters, message),
    }
}

struct Client<'a> {
    job: &'a Job,
    server: SocketAddr,
    side: &'a Side,
    host: Host<Waiting>,
    source: Source,
    pacer: Pacer,
    peers: Vec<PeerID>,
    opened: usize,
    running: bool,
    /// Messages that the server has taken.
    taken: u64,
    sent_at: u64,
}

impl<'a> Client<'a> {
    fn new(job: &'a Job, server: SocketAddr, side: &'a Side, host: Host<Waiting>) -> Self {
        Self {
            job,
            server,
            side,
            host,
            source: Source::new(job.workload.message(), 1),
            pacer: Pacer::new(CLIENT_SLOTS),
            peers: Vec::new(),
            opened: 0,
            running: false,
            taken: 0,
            sent_at: 0,
        }
    }

    fn start(&mut self) -> Result<()> {
        if self.job.workload.opens() {
            self.side.running();
        }
        for _ in 0..if self.job.workload.many() { OPENING } else { 1 } {
            self.open()?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        if self.job.workload == Workload::Handshakes || self.opened < self.job.connections {
            self.opened += 1;
            self.host.connect(self.server, 2, 0).map_err(|_| "no peer is free")?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        loop {
            let (peer, message) = match self.host.service()? {
                None => break,
                Some(Event::Connect { peer, .. }) => {
                    peer.set_throttle(1000, 32, 0);
                    (peer.id(), None)
                }
                Some(Event::Receive { peer, packet, .. }) => (peer.id(), Some(packet)),
                Some(Event::Disconnect { .. }) if self.job.workload.opens() => {
                    self.open()?;
                    continue;
                }
                Some(Event::Disconnect { .. }) => return Err("the connection ended".into()),
            };
            match message {
                None => self.connected(peer)?,
                Some(packet) => self.received(peer, packet.data())?,
            }
        }
        if self.running {
            self.pump()?;
        }
        self.host.flush();
        wait(&mut self.host, self.job.workload)
    }

    fn connected(&mut self, peer: PeerID) -> Result<()> {
        if self.job.workload == Workload::Handshakes {
            let packet = Packet::reliable(self.source.message());
            return self
                .host
                .peer_mut(peer)
                .send(DATA, &packet)
                .map_err(|e| format!("{e:?}").into());
        }
        self.peers.push(peer);
        self.open()?;
        if self.peers.len() == self.job.connections {
            self.running = true;
            self.side.running();
            self.pacer = Pacer::new(CLIENT_SLOTS);
            if self.job.workload == Workload::Latency {
                self.ping()?;
            }
        }
        Ok(())
    }

    fn received(&mut self, peer: PeerID, message: &[u8]) -> Result<()> {
        let counters = &self.side.counters;
        match self.job.workload {
            Workload::Tick => counters.stamped(message),
            Workload::Latency => {
                if payload::open(message) == self.source.sent().checked_sub(1) {
                    counters.delay(unix_ns().saturating_sub(self.sent_at));
                    counters.received(message.len());
                } else {
                    counters.corrupt();
                }
                self.ping()?;
            }
            Workload::Handshakes => {
                match payload::open(message) {
                    Some(_) => counters.received(message.len()),
                    None => counters.corrupt(),
                }
                self.host.peer_mut(peer).disconnect(0);
            }
            _ => self.taken = message.try_into().map_or(self.taken, u64::from_le_bytes),
        }
        Ok(())
    }

    fn ping(&mut self) -> Result<()> {
        self.sent_at = unix_ns();
        self.send(true)?;
        self.host.flush();
        Ok(())
    }

    fn send(&mut self, reliable: bool) -> Result<()> {
        let message = self.source.message();
        let packet = if reliable { Packet::reliable(message) } else { Packet::unreliable(message) };
        let sent = self.host.peer_mut(self.peers[0]).send(DATA, &packet);
        sent.map_err(|e| format!("cannot send: {e:?}"))?;
        self.source.advance();
        self.side.counters.sent(1);
        Ok(())
    }

    fn pump(&mut self) -> Result<()> {
        match self.job.workload {
            Workload::Tick => {
                let (pacer, source) = (&mut self.pacer, &mut self.source);
                tick(&mut self.host, pacer, source, &self.peers, &self.side.counters);
            }
            Workload::Datagrams if !self.side.counters.is_quiet() => {
                for _ in 0..BURST {
                    self.send(false)?;
                }
                // The next look at the socket must not sleep.
                self.host.flush();
                self.host.socket_mut().drained = false;
            }
            workload if reliable(workload) => {
                while self.source.sent() < self.taken + credit(workload).1 {
                    self.send(true)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
