//! TCP with TLS 1.3 as in `tcp`, and yamux streams in it: what libp2p does. One single-threaded
//! tokio runtime a side.
//!
//! | setting | value | why |
//! | --- | --- | --- |
//! | TCP | as `tcp` | |
//! | receive window | tuned by yamux up to 1 GiB (the default) | |
//! | frames | up to 64 KiB (`split_send_size`) | the default of 16 KiB costs more frames for each message |
//! | reads | 128 KiB at a time in front of rustls where there is one connection | |
//!
//! Every message is flushed where an answer is waited for; elsewhere it is one write.

use super::quinn::runtime;
use super::tcp::{self, gather};
use crate::counters::{Series, unix_ns};
use crate::frames::Frames;
use crate::identity;
use crate::pacer::{CLIENT_SLOTS, Pacer, SERVER_SLOTS};
use crate::payload::{self, Source};
use crate::peer::{Outcome, Peer};
use crate::side::Side;
use crate::workload::{BATCH, Job, OPENING, Workload};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use yamux::{Config, Connection, Mode, Stream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Socket = Compat<TlsStream<BufReader<TcpStream>>>;

/// Bytes of a frame, at most.
const FRAME: usize = 64 << 10;
/// Bytes read from a socket at once.
const READ: usize = 128 << 10;
/// The same where there are many sockets.
const READ_MANY: usize = 4 << 10;

/// The peer.
pub struct Yamux;

impl Peer for Yamux {
    fn name(&self) -> &'static str {
        "yamux"
    }

    fn about(&self) -> &'static str {
        "yamux streams over TCP with TLS 1.3 (tokio-rustls, ring, AES-128-GCM)"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["yamux", "tokio-rustls", "rustls", "tokio"]
    }

    fn refuses(&self, workload: Workload) -> Option<&'static str> {
        (workload == Workload::Datagrams).then_some("has no unreliable messages")
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        runtime()?.block_on(serve(job, side))
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        runtime()?.block_on(drive(job, server, side))
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.set_split_send_size(FRAME);
    config
}

fn read_size(job: &Job) -> usize {
    if job.workload.many() { READ_MANY } else { READ }
}

/// The sending halves of a ticking side.
type Shared = Arc<Mutex<Vec<WriteHalf<Stream>>>>;

async fn serve(job: &Job, side: &Side) -> Outcome {
    let acceptor = TlsAcceptor::from(Arc::new(identity::server()?));
    let listener = tcp::listen(job)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    side.listening(listener.local_addr()?);
    let all = Shared::default();
    if job.workload == Workload::Tick {
        tokio::spawn(tick(Arc::clone(&all), SERVER_SLOTS, side.clone()));
    }
    loop {
        let (socket, _) = listener.accept().await?;
        let socket = prepared(socket, job)?;
        let (acceptor, side, all) = (acceptor.clone(), side.clone(), Arc::clone(&all));
        let workload = job.workload;
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(socket).await else { return };
            let tls = TlsStream::from(tls).compat();
            let mut connection = Connection::new(tls, config(), Mode::Server);
            while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
                tokio::spawn(answer(workload, stream, Arc::clone(&all), side.clone()));
            }
        });
    }
}

fn prepared(socket: TcpStream, job: &Job) -> Result<BufReader<TcpStream>> {
    let socket = socket.into_std()?;
    tcp::prepare(&socket, job)?;
    socket.set_nonblocking(true)?;
    Ok(BufReader::with_capacity(read_size(job), TcpStream::from_std(socket)?))
}

/// Serves a stream until the client ends it.
async fn answer(workload: Workload, stream: Stream, all: Shared, side: Side) {
    let (receive, mut send) = stream.split();
    let mut echo = None;
    match workload {
        Workload::Tick => all.lock().await.push(send),
        workload if workload.opens() || workload == Workload::Latency => echo = Some(send),
        _ => {
            let _ = send.flush().await;
        }
    }
    let _ = receive_all(workload, receive, echo, &side).await;
}

async fn receive_all(
    workload: Workload,
    mut receive: ReadHalf<Stream>,
    mut echo: Option<WriteHalf<Stream>>,
    side: &Side,
) -> Result<()> {
    let (mut frames, mut series) = (Frames::new(workload.message()), Series::default());
    let mut buffer = vec![0; if workload.many() { READ_MANY } else { READ }];
    loop {
        let n = receive.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        frames.push(&buffer[..n], |message| match workload {
            Workload::Tick => side.counters.stamped(message),
            workload if workload.opens() => match payload::open(message) {
                Some(_) => side.counters.received(message.len()),
                None => side.counters.corrupt(),
            },
            _ => series.take(&side.counters, message),
        });
        if let Some(send) = &mut echo {
            send.write_all(&buffer[..n]).await?;
            send.flush().await?;
        }
    }
    if let Some(send) = &mut echo {
        send.close().await?;
    }
    Ok(())
}

/// Sends what is due on every stream, on the pacer's schedule.
async fn tick(all: Shared, slots: usize, side: Side) {
    let mut pacer = Pacer::new(slots);
    let mut source = Source::new(Workload::Tick.message(), slots as u64);
    loop {
        tokio::time::sleep_until(pacer.next().into()).await;
        while let Some((slot, at)) = pacer.due(Instant::now()) {
            if side.counters.is_quiet() {
                continue;
            }
            let mut all = all.lock().await;
            for n in pacer.members(slot, all.len()) {
                if all[n].write_all(source.numbered(at)).await.is_ok() {
                    side.counters.sent(1);
                }
            }
        }
    }
}

/// A connection with one stream; it is driven until it ends.
async fn open(job: &Job, server: SocketAddr, tls: &TlsConnector) -> Result<Stream> {
    let socket = tcp::connect(job, server)?;
    socket.set_nonblocking(true)?;
    let socket = prepared(TcpStream::from_std(socket)?, job)?;
    let tls = tls.connect(identity::server_name()?, socket).await?;
    let socket: Socket = TlsStream::from(tls).compat();
    let mut connection = Connection::new(socket, config(), Mode::Client);
    let stream = poll_fn(|cx| connection.poll_new_outbound(cx)).await?;
    tokio::spawn(async move {
        while let Some(Ok(_)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {}
    });
    Ok(stream)
}

async fn drive(job: &Job, server: SocketAddr, side: &Side) -> Outcome {
    let config = identity::client(job.workload == Workload::Resumed)?;
    let tls = TlsConnector::from(Arc::new(config));
    match job.workload {
        Workload::Tick => drive_tick(job, server, &tls, side).await,
        workload if workload.opens() => open_many(job, server, &tls, side).await,
        workload => {
            let stream = open(job, server, &tls).await?;
            side.running();
            send(workload, stream, side).await
        }
    }
}

async fn send(workload: Workload, mut stream: Stream, side: &Side) -> Outcome {
    let mut source = Source::new(workload.message(), 1);
    match workload {
        Workload::Latency => loop {
            let begun = unix_ns();
            ask(&mut stream, &mut source, side).await?;
            side.counters.delay(unix_ns().saturating_sub(begun));
        },
        Workload::SmallBatched => {
            let mut gathered = Vec::with_capacity(BATCH);
            loop {
                gather(&mut gathered, &mut source, BATCH);
                stream.write_all(&gathered).await?;
            }
        }
        _ => loop {
            stream.write_all(source.message()).await?;
            source.advance();
        },
    }
}

/// One message there and back.
async fn ask(stream: &mut Stream, source: &mut Source, side: &Side) -> Result<()> {
    let mut back = vec![0; source.message().len()];
    stream.write_all(source.message()).await?;
    stream.flush().await?;
    stream.read_exact(&mut back).await?;
    if payload::open(&back) == Some(source.sent()) {
        side.counters.received(back.len());
    } else {
        side.counters.corrupt();
    }
    source.advance();
    Ok(())
}

async fn drive_tick(job: &Job, server: SocketAddr, tls: &TlsConnector, side: &Side) -> Outcome {
    let all = Shared::default();
    for _ in 0..job.connections {
        let mut stream = open(job, server, tls).await?;
        // The stream exists for the server once something was sent on it.
        stream.write_all(Source::new(Workload::Tick.message(), 1).numbered(unix_ns())).await?;
        side.counters.sent(1);
        let (receive, send) = stream.split();
        all.lock().await.push(send);
        let side = side.clone();
        tokio::spawn(async move {
            let _ = receive_all(Workload::Tick, receive, None, &side).await;
        });
    }
    side.running();
    tick(all, CLIENT_SLOTS, side.clone()).await;
    Ok(())
}

/// Opens connections, some at once, with one message there and back on each.
async fn open_many(job: &Job, server: SocketAddr, tls: &TlsConnector, side: &Side) -> Outcome {
    side.running();
    let keep = job.workload == Workload::Memory;
    let share = if keep { job.connections.div_ceil(OPENING) } else { usize::MAX };
    for _ in 0..OPENING {
        let (job, tls, side) = (job.clone(), tls.clone(), side.clone());
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for _ in 0..share {
                match open_one(&job, server, &tls, &side).await {
                    Ok(stream) if keep => kept.push(stream),
                    Ok(_) => {}
                    Err(e) => side.fail(&format!("cannot open a connection: {e}")),
                }
            }
            std::future::pending::<()>().await;
        });
    }
    std::future::pending().await
}

async fn open_one(
    job: &Job,
    server: SocketAddr,
    tls: &TlsConnector,
    side: &Side,
) -> Result<Stream> {
    let mut stream = open(job, server, tls).await?;
    ask(&mut stream, &mut Source::new(job.workload.message(), 1), side).await?;
    stream.close().await?;
    Ok(stream)
}
