//! Many TLS connections in one thread, by readiness: ticks, handshakes and idle connections.

use super::tcp::{connect, prepare};
use crate::counters::Counters;
use crate::frames::Frames;
use crate::identity;
use crate::pacer::{CLIENT_SLOTS, Pacer, SERVER_SLOTS};
use crate::payload::{self, Source};
use crate::peer::Outcome;
use crate::side::Side;
use crate::workload::{Job, OPENING, Workload};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

const LISTENER: Token = Token(usize::MAX >> 1);
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// One connection.
struct Link {
    socket: TcpStream,
    tls: Connection,
    frames: Frames,
    /// The client's message is on its way, or the answer.
    asked: bool,
}

/// How a connection goes on after something was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Stay,
    Close,
}

impl Link {
    fn new(socket: TcpStream, tls: Connection, length: usize) -> Self {
        Self { socket, tls, frames: Frames::new(length), asked: false }
    }

    /// Writes what there is; what does not go now goes with the next event.
    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(message)?;
        self.flush()
    }

    /// Reads everything that is there; `each` sees every message.
    fn receive(&mut self, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<Next> {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(Next::Close),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Stay),
                Err(e) => return Err(e),
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let n = self.tls.reader().read(buffer)?;
                self.frames.push(&buffer[..n], &mut each);
                left -= n;
            }
            if state.peer_has_closed() {
                return Ok(Next::Close);
            }
        }
    }
}

/// All connections of a side; a closed one leaves its place to the next.
#[derive(Default)]
struct Links {
    all: Vec<Option<Link>>,
    free: Vec<usize>,
}

impl Links {
    fn add(&mut self, registry: &Registry, mut link: Link) -> io::Result<usize> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        let wanted = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut link.socket, Token(at), wanted)?;
        self.all[at] = Some(link);
        Ok(at)
    }

    fn get(&mut self, at: usize) -> Option<&mut Link> {
        self.all.get_mut(at)?.as_mut()
    }

    fn remove(&mut self, at: usize) {
        // Dropping the socket takes it out of the poll.
        if self.all.get_mut(at).is_some_and(|link| link.take().is_some()) {
            self.free.push(at);
        }
    }

    fn tick(&mut self, pacer: &mut Pacer, source: &mut Source, counters: &Counters) {
        while let Some((slot, at)) = pacer.due(Instant::now()) {
            if counters.is_quiet() {
                continue;
            }
            for n in pacer.members(slot, self.all.len()) {
                if let Some(link) = self.get(n).filter(|link| !link.tls.is_handshaking())
                    && link.send(source.numbered(at)).is_ok()
                {
                    counters.sent(1);
                }
            }
        }
    }
}

fn wait(poll: &mut Poll, events: &mut Events, pacer: Option<&Pacer>) -> io::Result<()> {
    let timeout = pacer.map(|pacer| pacer.next().saturating_duration_since(Instant::now()));
    match poll.poll(events, timeout) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other,
    }
}

/// The server: answers the message of an opened connection, and ticks.
pub(super) fn serve(
    job: &Job,
    listener: std::net::TcpListener,
    config: &Arc<ServerConfig>,
    side: &Side,
) -> Outcome {
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(EVENTS));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut links, mut buffer) = (Links::default(), vec![0; 16 << 10]);
    let mut source = Source::new(job.workload.message(), 2);
    let mut pacer = (job.workload == Workload::Tick).then(|| Pacer::new(SERVER_SLOTS));
    loop {
        wait(&mut poll, &mut events, pacer.as_ref())?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    let socket: std::net::TcpStream = socket.into();
                    prepare(&socket, job)?;
                    let tls = ServerConnection::new(Arc::clone(config))?;
                    let socket = TcpStream::from_std(socket);
                    let link = Link::new(socket, tls.into(), job.workload.message());
                    links.add(poll.registry(), link)?;
                }
                continue;
            }
            let at = event.token().0;
            let Some(link) = links.get(at) else { continue };
            if answer(job, link, &mut buffer, &side.counters).is_err_or_closed() {
                links.remove(at);
            }
        }
        if let Some(pacer) = &mut pacer {
            links.tick(pacer, &mut source, &side.counters);
        }
    }
}

/// Shorter to ask.
trait Ended {
    fn is_err_or_closed(&self) -> bool;
}

impl Ended for io::Result<Next> {
    fn is_err_or_closed(&self) -> bool {
        !matches!(self, Ok(Next::Stay))
    }
}

fn answer(job: &Job, link: &mut Link, buffer: &mut [u8], counters: &Counters) -> io::Result<Next> {
    let mut back = Vec::new();
    let next = link.receive(buffer, |message| {
        if job.workload == Workload::Tick {
            return counters.stamped(message);
        }
        match payload::open(message) {
            Some(_) => {
                counters.received(message.len());
                back.extend_from_slice(message);
            }
            None => counters.corrupt(),
        }
    })?;
    if !back.is_empty() {
        link.tls.writer().write_all(&back)?;
    }
    link.flush()?;
    Ok(next)
}

/// The client's half.
struct Client<'a> {
    job: &'a Job,
    server: SocketAddr,
    config: &'a Arc<ClientConfig>,
    side: &'a Side,
    links: Links,
    source: Source,
    opened: usize,
    ready: usize,
}

impl Client<'_> {
    /// Opens the next connection if there is to be one.
    fn open(&mut self, registry: &Registry) -> Outcome {
        let endless = matches!(self.job.workload, Workload::Handshakes | Workload::Resumed);
        if !endless && self.opened >= self.job.connections {
            return Ok(());
        }
        self.opened += 1;
        let socket = connect(self.job, self.server)?;
        socket.set_nonblocking(true)?;
        let tls = ClientConnection::new(Arc::clone(self.config), identity::server_name()?)?;
        let link = Link::new(TcpStream::from_std(socket), tls.into(), self.job.workload.message());
        let at = self.links.add(registry, link)?;
        if let Some(link) = self.links.get(at) {
            link.flush()?;
        }
        Ok(())
    }

    /// A connection can be read.
    fn on_event(&mut self, registry: &Registry, at: usize, buffer: &mut [u8]) -> Outcome {
        let Some(link) = self.links.get(at) else { return Ok(()) };
        let tick = self.job.workload == Workload::Tick;
        let counters = &self.side.counters;
        let mut answers = 0;
        let next = link.receive(buffer, |message| {
            if tick {
                return counters.stamped(message);
            }
            match payload::open(message) {
                Some(_) => counters.received(message.len()),
                None => counters.corrupt(),
            }
            answers += 1;
        })?;
        link.flush()?;
        if next == Next::Close {
            return Err("the server closed a connection".into());
        }
        if !link.tls.is_handshaking() && !link.asked {
            link.asked = true;
            if tick {
                self.ready += 1;
                self.open(registry)?;
            } else {
                link.send(self.source.message())?;
            }
        }
        if answers > 0 {
            if self.job.workload != Workload::Memory {
                self.close(at)?;
            }
            self.open(registry)?;
        }
        Ok(())
    }

    fn close(&mut self, at: usize) -> Outcome {
        if let Some(link) = self.links.get(at) {
            link.tls.send_close_notify();
            link.flush()?;
        }
        self.links.remove(at);
        Ok(())
    }
}

/// The client: opens connections, one message on each; or opens them all and ticks.
pub(super) fn drive(
    job: &Job,
    server: SocketAddr,
    config: &Arc<ClientConfig>,
    side: &Side,
) -> Outcome {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(EVENTS));
    let mut buffer = vec![0; 16 << 10];
    let source = Source::new(job.workload.message(), 1);
    let links = Links::default();
    let mut client = Client { job, server, config, side, links, source, opened: 0, ready: 0 };
    let mut pacer = None;
    if job.workload.opens() {
        side.running();
    }
    for _ in 0..OPENING {
        client.open(poll.registry())?;
    }
    loop {
        wait(&mut poll, &mut events, pacer.as_ref())?;
        for event in &events {
            client.on_event(poll.registry(), event.token().0, &mut buffer)?;
        }
        if job.workload == Workload::Tick && pacer.is_none() && client.ready == job.connections {
            side.running();
            pacer = Some(Pacer::new(CLIENT_SLOTS));
        }
        if let Some(pacer) = &mut pacer {
            client.links.tick(pacer, &mut client.source, &side.counters);
        }
    }
}
