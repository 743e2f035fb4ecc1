//! TCP with TLS 1.3 from rustls: blocking sockets and one thread a side where there is one
//! connection, readiness (mio) where there are many (`tcp_many`).
//!
//! | setting | value | why |
//! | --- | --- | --- |
//! | `TCP_MAXSEG` | 1448, none for `bulk-large` | segments as large as the packets of the others |
//! | `TCP_NODELAY` | on where an answer is waited for; off for streams | Nagle's delay costs round trips, and saves segments where the sender is ahead anyway |
//! | `TCP_CONGESTION` | CUBIC, or as asked for | as all others |
//! | socket buffers | the kernel's own tuning | fixed sizes were no faster, and turn it off |
//! | writes | 64 KiB of plain text, four full TLS records in one `writev` | |
//! | reads | 128 KiB at a time into a buffer in front of rustls | rustls itself asks for 4 KiB at a time |
//! | cryptography | ring, AES-128-GCM first | as Trunkline |

use super::tcp_many;
use crate::counters::{Series, unix_ns};
use crate::frames::Frames;
use crate::identity;
use crate::payload::{self, Source};
use crate::peer::{Outcome, Peer};
use crate::side::Side;
use crate::workload::{BATCH, Job, Workload};
use rustls::{ClientConnection, ConnectionCommon, ServerConnection};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// Bytes of a TCP segment, options and payload.
const SEGMENT: u32 = 1448;
/// Bytes read from a socket at once.
const READ: usize = 128 << 10;

/// The peer.
pub struct Tcp;

impl Peer for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn about(&self) -> &'static str {
        "TCP with TLS 1.3 (rustls, ring, AES-128-GCM), segments of 1448 bytes"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["rustls", "ring"]
    }

    fn refuses(&self, workload: Workload) -> Option<&'static str> {
        (workload == Workload::Datagrams).then_some("has no unreliable messages")
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        let config = Arc::new(identity::server()?);
        let listener = listen(job)?;
        side.listening(listener.local_addr()?);
        if job.workload.many() {
            return tcp_many::serve(job, listener, &config, side);
        }
        let (socket, _) = listener.accept()?;
        prepare(&socket, job)?;
        receive(job, Tls::new(ServerConnection::new(config)?, socket)?, side)
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        let config = Arc::new(identity::client(job.workload == Workload::Resumed)?);
        if job.workload.many() {
            return tcp_many::drive(job, server, &config, side);
        }
        let socket = connect(job, server)?;
        let tls = ClientConnection::new(config, identity::server_name()?)?;
        send(job, Tls::new(tls, socket)?, side)
    }
}

/// A listening socket whose connections have the right segment size and congestion control.
pub(super) fn listen(job: &Job) -> io::Result<TcpListener> {
    let address: SocketAddr = job.listen.parse().map_err(io::Error::other)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    limit(&socket, job)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// A connected socket.
pub(super) fn connect(job: &Job, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    limit(&socket, job)?;
    socket.connect(&server.into())?;
    let socket: TcpStream = socket.into();
    prepare(&socket, job)?;
    Ok(socket)
}

fn limit(socket: &Socket, job: &Job) -> io::Result<()> {
    if job.workload != Workload::BulkLarge {
        socket.set_tcp_mss(SEGMENT)?;
    }
    socket.set_tcp_congestion(job.tcp_congestion.as_bytes())
}

/// What is set once a connection stands.
pub(super) fn prepare(socket: &TcpStream, job: &Job) -> io::Result<()> {
    let streams = matches!(
        job.workload,
        Workload::Bulk | Workload::BulkLarge | Workload::Small | Workload::SmallBatched
    );
    socket.set_nodelay(!streams)
}

/// A blocking TLS connection.
struct Tls<C> {
    session: C,
    input: BufReader<TcpStream>,
    output: TcpStream,
}

impl<C, D> Tls<C>
where
    C: std::ops::DerefMut<Target = ConnectionCommon<D>>,
{
    /// After the handshake.
    fn new(mut tls: C, socket: TcpStream) -> io::Result<Self> {
        let output = socket.try_clone()?;
        tls.set_buffer_limit(None);
        let mut this = Self { session: tls, input: BufReader::with_capacity(READ, socket), output };
        while this.session.is_handshaking() {
            this.flush()?;
            if this.session.wants_read() {
                this.fill()?;
            }
        }
        this.flush()?;
        Ok(this)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.output)?;
        }
        Ok(())
    }

    /// Reads and decrypts something.
    fn fill(&mut self) -> io::Result<()> {
        if self.session.read_tls(&mut self.input)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.session.process_new_packets().map_err(io::Error::other)?;
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.session.writer().write_all(bytes)?;
        self.flush()
    }

    /// Waits for plain text; how much of it `buffer` has now.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.fill()?,
                Err(e) => return Err(e),
            }
        }
    }
}

fn receive<C, D>(job: &Job, mut stream: Tls<C>, side: &Side) -> Outcome
where
    C: std::ops::DerefMut<Target = ConnectionCommon<D>>,
{
    let mut buffer = vec![0; READ];
    let mut frames = Frames::new(job.workload.message());
    let mut series = Series::default();
    let echo = job.workload == Workload::Latency;
    loop {
        let n = stream.receive(&mut buffer)?;
        frames.push(&buffer[..n], |message| series.take(&side.counters, message));
        if echo {
            stream.send(&buffer[..n])?;
        }
    }
}

fn send<C, D>(job: &Job, mut stream: Tls<C>, side: &Side) -> Outcome
where
    C: std::ops::DerefMut<Target = ConnectionCommon<D>>,
{
    let mut source = Source::new(job.workload.message(), 1);
    side.running();
    if job.workload == Workload::Latency {
        return ping(stream, &mut source, side);
    }
    let batch = if job.workload == Workload::SmallBatched { BATCH } else { 1 };
    let mut gathered = Vec::with_capacity(batch);
    loop {
        if batch == 1 {
            stream.send(source.message())?;
            source.advance();
        } else {
            gather(&mut gathered, &mut source, batch);
            stream.send(&gathered)?;
        }
    }
}

/// `bytes` bytes of messages, as a caller gathers them.
pub(super) fn gather(into: &mut Vec<u8>, source: &mut Source, bytes: usize) {
    into.clear();
    while into.len() < bytes {
        into.extend_from_slice(source.message());
        source.advance();
    }
}

fn ping<C, D>(mut stream: Tls<C>, source: &mut Source, side: &Side) -> Outcome
where
    C: std::ops::DerefMut<Target = ConnectionCommon<D>>,
{
    let mut back = vec![0; source.message().len()];
    loop {
        let begun = unix_ns();
        stream.send(source.message())?;
        let mut got = 0;
        while got < back.len() {
            got += stream.receive(&mut back[got..])?;
        }
        if payload::open(&back) == Some(source.sent()) {
            side.counters.delay(unix_ns().saturating_sub(begun));
            side.counters.received(back.len());
        } else {
            side.counters.corrupt();
        }
        source.advance();
    }
}
