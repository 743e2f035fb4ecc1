//! Many connections that send a little at a steady rate.

use super::packet::{self, Protection};
use super::pair::{self, Counts, Link};
use super::socket;
use crate::payload::{self, Source};
use crate::{Cipher, OVERHEAD, Setup, Ticks};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Messages are sent this often, as many as are due.
const SLICE: Duration = Duration::from_millis(1);
/// Messages sent in one go at most, however late it is.
const MOST_AT_ONCE: u64 = 256;

/// See [`crate::tick`].
pub fn tick(
    setup: &Setup,
    connections: u32,
    per_second: u32,
    payload_bytes: usize,
) -> io::Result<Ticks> {
    let (client, server) = (socket::one()?, socket::one()?);
    let to = server.local_addr()?;
    let client = Peer::new(client, connections, payload_bytes, 0)?;
    let server = Peer::new(server, connections, payload_bytes, 1)?;
    let per_second = u64::from(connections) * u64::from(per_second);
    let measured = pair::run(
        setup,
        move |link| generate(link, client, to, per_second),
        move |link| serve(link, server),
    )?;
    let answers = measured.client;
    Ok(Ticks {
        seconds: measured.seconds,
        received: measured.counts.packets,
        answers: answers.packets,
        corrupt: measured.counts.corrupt + answers.corrupt,
        lost: measured.counts.lost + answers.lost,
        cpu: measured.cpu,
    })
}

/// One end of all connections.
struct Peer {
    socket: UdpSocket,
    source: Source,
    /// One pair for each connection: what it sends, what it receives.
    connections: Vec<(Protection, Protection)>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    counts: Counts,
}

impl Peer {
    /// `side` 0 or 1; the other end is the other one.
    fn new(
        socket: UdpSocket,
        connections: u32,
        payload_bytes: usize,
        side: u64,
    ) -> io::Result<Self> {
        let pair = |connection: u32| -> io::Result<_> {
            let of = |side| Protection::new(Cipher::Aes128Gcm, 2 * u64::from(connection) + side);
            Ok((of(side)?, of(1 - side)?))
        };
        Ok(Self {
            socket,
            source: Source::new(payload_bytes, side),
            connections: (0..connections).map(pair).collect::<io::Result<_>>()?,
            incoming: vec![0; payload_bytes + OVERHEAD + 1],
            outgoing: vec![0; payload_bytes + OVERHEAD],
            counts: Counts::default(),
        })
    }

    /// One message of `connection`.
    fn send(&mut self, connection: usize, to: SocketAddr) -> io::Result<()> {
        let (sealing, _) = &mut self.connections[connection];
        sealing.seal(self.source.message(), &mut self.outgoing)?;
        self.source.advance();
        self.socket.send_to(&self.outgoing, to)?;
        Ok(())
    }

    /// Takes one packet, if there is one: its connection, if it is right, and where it is from.
    fn receive(&mut self) -> io::Result<Option<(Option<usize>, SocketAddr)>> {
        let came = socket::come(self.socket.recv_from(&mut self.incoming))?;
        Ok(came.map(|(bytes, from)| (self.open(bytes), from)))
    }

    fn open(&mut self, bytes: usize) -> Option<usize> {
        let packet = &mut self.incoming[..bytes];
        let connection = packet::id(packet).map_or(usize::MAX, |id| (id / 2) as usize);
        let opened = self
            .connections
            .get_mut(connection)
            .and_then(|(_, opening)| opening.open(packet))
            .filter(|opened| payload::open(opened.payload).is_some());
        let Some(opened) = opened else {
            self.counts.corrupt += 1;
            return None;
        };
        self.counts.lost += opened.skipped;
        self.counts.packets += 1;
        self.counts.bytes += opened.payload.len() as u64;
        Some(connection)
    }
}

/// Sends what is due and takes the answers; gives the answers of the measured time.
fn generate(link: &Link, mut peer: Peer, to: SocketAddr, per_second: u64) -> io::Result<Counts> {
    peer.socket.set_nonblocking(true)?;
    let begun = Instant::now();
    let (mut sent, mut wake, mut connection) = (0, begun, 0);
    let mut measuring = false;
    while !link.stopped() {
        if !measuring && link.measuring() {
            measuring = true;
            peer.counts = Counts::default();
        }
        let due = begun.elapsed().as_micros() as u64 * per_second / 1_000_000;
        for _ in 0..due.saturating_sub(sent).min(MOST_AT_ONCE) {
            peer.send(connection, to)?;
            connection = (connection + 1) % peer.connections.len();
            sent += 1;
        }
        while peer.receive()?.is_some() {}
        wake = (wake + SLICE).max(Instant::now());
        thread::sleep(wake.saturating_duration_since(Instant::now()));
    }
    Ok(peer.counts)
}

/// Answers every message with one of its own.
fn serve(link: &Link, mut peer: Peer) -> io::Result<()> {
    while !link.stopped() {
        let Some((connection, from)) = peer.receive()? else { continue };
        if let Some(connection) = connection {
            peer.send(connection, from)?;
        }
        link.tell(&peer.counts, peer.counts.packets);
    }
    Ok(())
}
