//! KCP (the crate `kcp`) over a plain UDP socket: reliable, without encryption and without a
//! handshake.
//!
//! | setting | value | why |
//! | --- | --- | --- |
//! | `nodelay` | (1, 10, 2, 1): no delay, 10 ms, fast resend after 2, no congestion control | KCP's own fast mode |
//! | windows | 1024 packets both ways; 32 on each of many connections | fits the socket buffer |
//! | MTU | 1452, or 65,507 for `bulk-large` | the same packets for all |
//! | stream mode | on where there is a stream | small messages fill segments |
//! | flush | after every batch of sends or receives | not only every 10 ms |
//! | socket buffers | 4 MiB | as Trunkline |
//!
//! KCP writes one packet for each system call, as all programs with it do.

use super::udp;
use crate::counters::{Counters, Series, unix_ns};
use crate::frames::Frames;
use crate::pacer::{CLIENT_SLOTS, Pacer, SERVER_SLOTS};
use crate::payload::{self, Source};
use crate::peer::{Outcome, Peer};
use crate::side::Side;
use crate::workload::{Job, Workload};
use kcp::Kcp;
use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// KCP's clock in milliseconds.
const INTERVAL: Duration = Duration::from_millis(10);
/// Packets that may be under way.
const WINDOW: u16 = 1024;
/// The same on each of many connections.
const WINDOW_MANY: u16 = 32;
/// Bytes of a header.
const HEADER: usize = 24;
/// Datagrams read before something is done about them.
const BATCH: usize = 64;

/// The peer.
pub struct KcpPeer;

impl Peer for KcpPeer {
    fn name(&self) -> &'static str {
        "kcp"
    }

    fn about(&self) -> &'static str {
        "KCP (crate kcp, nodelay 1/10/2/1), not encrypted"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["kcp"]
    }

    fn refuses(&self, workload: Workload) -> Option<&'static str> {
        match workload {
            Workload::SmallBatched => Some("gathers messages itself, see `small`"),
            Workload::Datagrams => Some("has no unreliable messages"),
            Workload::Handshakes | Workload::Resumed => Some("has no handshake"),
            _ => None,
        }
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        let socket = udp::bind(job.listen.parse()?)?;
        let mut node = Node::new(job, socket, SERVER_SLOTS)?;
        side.listening(node.socket.local_addr()?);
        loop {
            node.receive()?;
            let mut back = Vec::new();
            for (conv, link) in &mut node.links {
                let asked = link.take(job.workload, &side.counters);
                if asked > 0 && (job.workload.opens() || job.workload == Workload::Latency) {
                    back.push(*conv);
                }
            }
            for conv in back {
                node.echo(conv)?;
            }
            node.finish_turn(job.workload, side)?;
        }
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        let socket = udp::bind(udp::any(server))?;
        let mut node = Node::new(job, socket, CLIENT_SLOTS)?;
        let count = if job.workload.many() { job.connections } else { 1 };
        for conv in 1..=count as u32 {
            node.add(conv, server)?;
        }
        side.running();
        if job.workload.many() { drive_many(job, node, side) } else { drive_one(job, node, side) }
    }
}

/// Where the packets of a connection go.
struct Output {
    socket: Arc<UdpSocket>,
    to: SocketAddr,
}

impl Write for Output {
    fn write(&mut self, packet: &[u8]) -> io::Result<usize> {
        match self.socket.send_to(packet, self.to) {
            // As if the network had lost it.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(packet.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection.
struct Link {
    kcp: Kcp<Output>,
    frames: Frames,
    series: Series,
    /// The last message, to be sent back.
    last: Vec<u8>,
    dirty: bool,
}

impl Link {
    /// Reads everything that has arrived in order; how many messages.
    fn take(&mut self, workload: Workload, counters: &Counters) -> usize {
        // Messages are as long as a write of 64 KiB; both sides have a stack of megabytes.
        #[allow(clippy::large_stack_arrays)]
        let mut buffer = [0; 1 << 16];
        let mut messages = 0;
        let (series, last) = (&mut self.series, &mut self.last);
        while let Ok(n) = self.kcp.recv(&mut buffer) {
            self.frames.push(&buffer[..n], |message| {
                messages += 1;
                match workload {
                    Workload::Tick => return counters.stamped(message),
                    workload if workload.opens() => match payload::open(message) {
                        Some(_) => counters.received(message.len()),
                        None => counters.corrupt(),
                    },
                    _ => series.take(counters, message),
                }
                if workload.message() < 1024 {
                    last.clear();
                    last.extend_from_slice(message);
                }
            });
        }
        messages
    }
}

/// A socket and its connections.
struct Node {
    job: Job,
    socket: Arc<UdpSocket>,
    waiter: udp::Waiter,
    begun: Instant,
    updated: Instant,
    links: HashMap<u32, Link>,
    buffer: Vec<u8>,
    pacer: Pacer,
    source: Source,
}

impl Node {
    fn new(job: &Job, socket: UdpSocket, slots: usize) -> Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            job: job.clone(),
            waiter: udp::Waiter::new(&socket)?,
            socket: Arc::new(socket),
            begun: Instant::now(),
            updated: Instant::now(),
            links: HashMap::new(),
            buffer: vec![0; 1 << 16],
            pacer: Pacer::new(slots),
            source: Source::new(job.workload.message(), slots as u64),
        })
    }

    fn now(&self) -> u32 {
        self.begun.elapsed().as_millis() as u32
    }

    fn add(&mut self, conv: u32, to: SocketAddr) -> Result<()> {
        let output = Output { socket: Arc::clone(&self.socket), to };
        let mut kcp = Kcp::new_stream(conv, output);
        kcp.set_nodelay(true, 10, 2, true);
        let window = if self.job.workload.many() { WINDOW_MANY } else { WINDOW };
        kcp.set_wndsize(window, window);
        kcp.set_mtu(self.job.packet().min(udp::LARGEST))?;
        kcp.update(self.now())?;
        let link = Link {
            kcp,
            frames: Frames::new(self.job.workload.message()),
            series: Series::default(),
            last: Vec::new(),
            dirty: false,
        };
        self.links.insert(conv, link);
        Ok(())
    }

    /// Takes what the socket has, some of it at least; how many datagrams.
    fn receive(&mut self) -> Result<usize> {
        for taken in 0..BATCH {
            let (n, from) = match self.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(e) => return Err(e.into()),
            };
            if n < HEADER {
                continue;
            }
            let conv = kcp::get_conv(&self.buffer[..n]);
            if !self.links.contains_key(&conv) {
                self.add(conv, from)?;
            }
            if let Some(link) = self.links.get_mut(&conv) {
                link.kcp.input(&self.buffer[..n])?;
                link.dirty = true;
            }
        }
        Ok(BATCH)
    }

    fn echo(&mut self, conv: u32) -> Result<()> {
        if let Some(link) = self.links.get_mut(&conv) {
            link.kcp.send(&link.last)?;
            link.dirty = true;
        }
        Ok(())
    }

    /// Sends acknowledgements and what was written; every connection once an interval.
    fn flush(&mut self) -> Result<()> {
        let (all, now) = (self.updated.elapsed() >= INTERVAL, self.now());
        if all {
            self.updated = Instant::now();
        }
        for link in self.links.values_mut() {
            if all {
                link.kcp.update(now)?;
            }
            if std::mem::take(&mut link.dirty) {
                link.kcp.flush()?;
            }
        }
        Ok(())
    }

    fn tick(&mut self, counters: &Counters) -> Result<()> {
        while let Some((slot, at)) = self.pacer.due(Instant::now()) {
            if counters.is_quiet() {
                continue;
            }
            let mut conv = slot as u32 + 1;
            while let Some(link) = self.links.get_mut(&conv) {
                link.kcp.send(self.source.numbered(at))?;
                link.dirty = true;
                counters.sent(1);
                conv += self.pacer.stride() as u32;
            }
        }
        Ok(())
    }

    /// Ticks, sends, and sleeps when there is nothing else to do.
    fn finish_turn(&mut self, workload: Workload, side: &Side) -> Result<()> {
        if workload == Workload::Tick {
            self.tick(&side.counters)?;
        }
        self.flush()?;
        self.waiter.wait_unless_readable(&self.socket, INTERVAL / 10)?;
        Ok(())
    }
}

fn drive_many(job: &Job, mut node: Node, side: &Side) -> Outcome {
    node.pacer = Pacer::new(CLIENT_SLOTS);
    if job.workload == Workload::Memory {
        let source = &mut node.source;
        for link in node.links.values_mut() {
            link.kcp.send(source.message())?;
            link.dirty = true;
        }
    }
    loop {
        node.receive()?;
        for link in node.links.values_mut().filter(|link| link.dirty) {
            link.take(job.workload, &side.counters);
        }
        node.finish_turn(job.workload, side)?;
    }
}

fn drive_one(job: &Job, mut node: Node, side: &Side) -> Outcome {
    let mut sent_at = 0;
    let mut source = Source::new(job.workload.message(), 1);
    loop {
        let latency = job.workload == Workload::Latency;
        let link = node.links.get_mut(&1).ok_or("no connection")?;
        if latency {
            if link.take(job.workload, &side.counters) > 0 {
                side.counters.delay(unix_ns().saturating_sub(sent_at));
                sent_at = 0;
            }
            if sent_at == 0 {
                sent_at = unix_ns();
                link.kcp.send(source.message())?;
                source.advance();
                link.dirty = true;
            }
        } else {
            while link.kcp.wait_snd() < 2 * usize::from(WINDOW) {
                link.kcp.send(source.message())?;
                source.advance();
                link.dirty = true;
            }
        }
        node.flush()?;
        if node.receive()? == 0 {
            node.waiter.wait_unless_readable(&node.socket, INTERVAL / 10)?;
        }
    }
}
