//! s2n-quic, on one single-threaded tokio runtime a side.
//!
//! | setting | value | why |
//! | --- | --- | --- |
//! | base, initial and max MTU | 1480 (1452 bytes of UDP payload under IPv4), or 16,000 of payload for `bulk-large` | the same packets for all; nothing is probed |
//! | GSO, GRO | on (the default) | |
//! | data windows | 16 MiB; send buffer of a stream 4 MiB | more than loopback has under way |
//! | acknowledgements, congestion control | the defaults: CUBIC | |
//! | socket buffers | 4 MiB | as Trunkline |
//! | datagram queues | 16,384 on one connection, 64 on each of many | sends wait for room; memory of many stays small |
//! | bulk messages | lent (`Bytes::from_owner`) | not copied, as with Trunkline |
//! | cryptography | rustls with ring, AES-128-GCM first | as Trunkline; s2n-tls with AWS-LC is its default |

use super::quinn::runtime;
use super::tcp::gather;
use super::udp;
use crate::counters::{Series, unix_ns};
use crate::frames::Frames;
use crate::identity;
use crate::lent::lent;
use crate::pacer::{CLIENT_SLOTS, Pacer, SERVER_SLOTS};
use crate::payload::{self, Lender, Source};
use crate::peer::{Outcome, Peer};
use crate::side::Side;
use crate::workload::{BATCH, Job, OPENING, Workload};
use bytes::Bytes;
use s2n_quic::connection::Handle;
use s2n_quic::provider::datagram::default::{Endpoint as Datagrams, Receiver, Sender};
use s2n_quic::provider::io::tokio::Provider as Io;
use s2n_quic::provider::limits::Limits;
use s2n_quic::provider::tls::rustls as tls;
use s2n_quic::stream::{ReceiveStream, SendStream};
use s2n_quic::{Client, Connection, Server};
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Flow control windows in bytes.
const WINDOW: u64 = 16 << 20;
/// Bytes of a stream that may wait or be unacknowledged.
const SEND_BUFFER: u32 = 4 << 20;
/// Headers of IPv4 and UDP.
const HEADERS: usize = 28;
/// Chunks read at once.
const CHUNKS: usize = 32;

/// Largest packet: the fastest of 9,000 to 32,000; with 65,507 it ends in an error.
const LARGEST: usize = 16_000;

/// The peer.
pub struct S2n;

impl Peer for S2n {
    fn name(&self) -> &'static str {
        "s2n-quic"
    }

    fn about(&self) -> &'static str {
        "s2n-quic (QUIC, rustls with ring, AES-128-GCM, GSO and GRO, CUBIC)"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["s2n-quic", "s2n-quic-transport", "rustls", "tokio"]
    }

    fn refuses(&self, _: Workload) -> Option<&'static str> {
        None
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        runtime()?.block_on(serve(job, side))
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        runtime()?.block_on(drive(job, server, side))
    }
}

fn limits() -> Result<Limits> {
    Ok(Limits::new()
        .with_data_window(WINDOW)?
        .with_bidirectional_local_data_window(WINDOW)?
        .with_bidirectional_remote_data_window(WINDOW)?
        .with_unidirectional_data_window(WINDOW)?
        .with_max_send_buffer_size(SEND_BUFFER)?
        .with_max_keep_alive_period(Duration::from_secs(10))?)
}

fn io(job: &Job, address: SocketAddr) -> Result<Io> {
    let mtu = job.packet().min(LARGEST) + HEADERS;
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    Ok(Io::builder()
        .with_rx_socket(udp::bind(address)?)?
        .with_max_mtu(mtu)?
        .with_initial_mtu(mtu)?
        .with_base_mtu(mtu)?
        .build()?)
}

fn datagrams(job: &Job) -> Result<Datagrams> {
    let capacity = match job.workload {
        Workload::Datagrams => 16_384,
        Workload::Tick => 64,
        _ => 1,
    };
    Ok(Datagrams::builder().with_send_capacity(capacity)?.with_recv_capacity(capacity)?.build()?)
}

/// All connections of a ticking side.
type Shared = Arc<Mutex<Vec<Handle>>>;

async fn serve(job: &Job, side: &Side) -> Outcome {
    let mut server = Server::builder()
        .with_tls(tls::Server::from(identity::server()?))?
        .with_io(io(job, job.listen.parse()?)?)?
        .with_limits(limits()?)?
        .with_datagram(datagrams(job)?)?
        .start()?;
    side.listening(server.local_addr()?);
    let all = Shared::default();
    if job.workload == Workload::Tick {
        tokio::spawn(tick(Arc::clone(&all), SERVER_SLOTS, side.clone()));
    }
    while let Some(mut connection) = server.accept().await {
        let (side, all, workload) = (side.clone(), Arc::clone(&all), job.workload);
        tokio::spawn(async move {
            // It ends when the client closes it.
            let _ = answer(workload, &mut connection, &all, &side).await;
        });
    }
    Ok(())
}

async fn next_datagram(handle: &Handle) -> Result<Bytes> {
    let received = poll_fn(|cx| {
        handle
            .datagram_mut(|receiver: &mut Receiver| receiver.poll_recv_datagram(cx))
            .unwrap_or(std::task::Poll::Pending)
    });
    received.await.map_err(|e| e.to_string().into())
}

async fn answer(
    workload: Workload,
    connection: &mut Connection,
    all: &Shared,
    side: &Side,
) -> Result<()> {
    let handle = connection.handle();
    match workload {
        Workload::Tick => {
            all.lock().unwrap_or_else(PoisonError::into_inner).push(handle.clone());
            loop {
                side.counters.stamped(&next_datagram(&handle).await?);
            }
        }
        Workload::Datagrams => loop {
            let datagram = next_datagram(&handle).await?;
            match payload::open(&datagram) {
                Some(_) => side.counters.received(datagram.len()),
                None => side.counters.corrupt(),
            }
        },
        Workload::Handshakes | Workload::Resumed | Workload::Memory => {
            let stream = connection.accept_bidirectional_stream().await?.ok_or("closed")?;
            let (receive, mut send) = stream.split();
            let message = read_to_end(receive).await?;
            match payload::open(&message) {
                Some(_) => side.counters.received(message.len()),
                None => side.counters.corrupt(),
            }
            send.send(message.into()).await?;
            send.finish()?;
            // Dropping the connection would close it.
            let _ = connection.accept_bidirectional_stream().await;
            Ok(())
        }
        Workload::Latency => {
            let stream = connection.accept_bidirectional_stream().await?.ok_or("closed")?;
            let (receive, send) = stream.split();
            echo(workload, send, receive, side).await
        }
        _ => {
            let stream = connection.accept_receive_stream().await?.ok_or("closed")?;
            receive(workload, stream, side).await
        }
    }
}

async fn read_to_end(mut stream: ReceiveStream) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.receive().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn receive(workload: Workload, mut stream: ReceiveStream, side: &Side) -> Result<()> {
    let (mut frames, mut series) = (Frames::new(workload.message()), Series::default());
    let mut chunks = vec![Bytes::new(); CHUNKS];
    loop {
        let (n, open) = stream.receive_vectored(&mut chunks).await?;
        for chunk in &mut chunks[..n] {
            frames.push(chunk, |message| series.take(&side.counters, message));
            *chunk = Bytes::new();
        }
        if !open {
            return Ok(());
        }
    }
}

async fn echo(
    workload: Workload,
    mut send: SendStream,
    mut receive: ReceiveStream,
    side: &Side,
) -> Result<()> {
    let (mut frames, mut series) = (Frames::new(workload.message()), Series::default());
    while let Some(chunk) = receive.receive().await? {
        frames.push(&chunk, |message| series.take(&side.counters, message));
        send.send(chunk).await?;
    }
    Ok(())
}

/// Sends what is due to every connection, on the pacer's schedule.
async fn tick(all: Shared, slots: usize, side: Side) {
    let mut pacer = Pacer::new(slots);
    let mut source = Source::new(Workload::Tick.message(), slots as u64);
    loop {
        tokio::time::sleep_until(pacer.next().into()).await;
        while let Some((slot, at)) = pacer.due(Instant::now()) {
            if side.counters.is_quiet() {
                continue;
            }
            let all = all.lock().unwrap_or_else(PoisonError::into_inner);
            for n in pacer.members(slot, all.len()) {
                let message = Bytes::copy_from_slice(source.numbered(at));
                let sent = all[n].datagram_mut(|sender: &mut Sender| sender.send_datagram(message));
                if matches!(sent, Ok(Ok(()))) {
                    side.counters.sent(1);
                }
            }
        }
    }
}

async fn drive(job: &Job, server: SocketAddr, side: &Side) -> Outcome {
    let crypto = identity::client(job.workload == Workload::Resumed)?;
    let client = Client::builder()
        .with_tls(tls::Client::from(crypto))?
        .with_io(io(job, udp::any(server))?)?
        .with_limits(limits()?)?
        .with_datagram(datagrams(job)?)?
        .start()?;
    match job.workload {
        Workload::Tick => drive_tick(job, &client, server, side).await,
        workload if workload.opens() => open_many(job, &client, server, side).await,
        workload => {
            let mut connection = connect(&client, server).await?;
            side.running();
            send(workload, &mut connection, side).await
        }
    }
}

async fn connect(client: &Client, server: SocketAddr) -> Result<Connection> {
    let to = s2n_quic::client::Connect::new(server).with_server_name(identity::NAME);
    let mut connection = client.connect(to).await?;
    connection.keep_alive(true)?;
    Ok(connection)
}

async fn send(workload: Workload, connection: &mut Connection, side: &Side) -> Outcome {
    let mut source = Source::new(workload.message(), 1);
    match workload {
        Workload::Datagrams => send_datagrams(&connection.handle(), &mut source, side).await,
        Workload::Latency => {
            let (receive, send) = connection.open_bidirectional_stream().await?.split();
            ping(send, receive, &mut source, side).await
        }
        Workload::SmallBatched => {
            let mut stream = connection.open_send_stream().await?;
            let mut gathered = Vec::with_capacity(BATCH);
            loop {
                gather(&mut gathered, &mut source, BATCH);
                stream.send(Bytes::copy_from_slice(&gathered)).await?;
            }
        }
        Workload::Bulk | Workload::BulkLarge => {
            let mut lender = Lender::new(workload.message(), 1, 0);
            let mut stream = connection.open_send_stream().await?;
            loop {
                stream.send(lent(&mut lender)).await?;
                lender.advance();
            }
        }
        _ => {
            let mut stream = connection.open_send_stream().await?;
            loop {
                stream.send(Bytes::copy_from_slice(source.message())).await?;
                source.advance();
            }
        }
    }
}

async fn send_datagrams(handle: &Handle, source: &mut Source, side: &Side) -> Outcome {
    while !side.counters.is_quiet() {
        let mut message = Bytes::copy_from_slice(source.message());
        let sent = poll_fn(|cx| {
            handle
                .datagram_mut(|sender: &mut Sender| sender.poll_send_datagram(&mut message, cx))
                .unwrap_or(std::task::Poll::Pending)
        });
        sent.await.map_err(|e| e.to_string())?;
        source.advance();
        side.counters.sent(1);
    }
    std::future::pending().await
}

async fn ping(
    mut send: SendStream,
    mut receive: ReceiveStream,
    source: &mut Source,
    side: &Side,
) -> Outcome {
    let mut back = Vec::new();
    loop {
        let begun = unix_ns();
        send.send(Bytes::copy_from_slice(source.message())).await?;
        back.clear();
        while back.len() < Workload::Latency.message() {
            back.extend_from_slice(&receive.receive().await?.ok_or("closed")?);
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

async fn drive_tick(job: &Job, client: &Client, server: SocketAddr, side: &Side) -> Outcome {
    let all = Shared::default();
    let mut kept = Vec::new();
    for _ in 0..job.connections {
        let connection = connect(client, server).await?;
        let handle = connection.handle();
        kept.push(connection);
        all.lock().unwrap_or_else(PoisonError::into_inner).push(handle.clone());
        let counters = Arc::clone(&side.counters);
        tokio::spawn(async move {
            while let Ok(datagram) = next_datagram(&handle).await {
                counters.stamped(&datagram);
            }
        });
    }
    side.running();
    tick(all, CLIENT_SLOTS, side.clone()).await;
    Ok(())
}

/// Opens connections, some at once, with one message there and back on each.
async fn open_many(job: &Job, client: &Client, server: SocketAddr, side: &Side) -> Outcome {
    side.running();
    let keep = job.workload == Workload::Memory;
    let share = if keep { job.connections.div_ceil(OPENING) } else { usize::MAX };
    for _ in 0..OPENING {
        let (client, side) = (client.clone(), side.clone());
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for _ in 0..share {
                match open_one(&client, server, &side).await {
                    Ok(connection) if keep => kept.push(connection),
                    Ok(connection) => connection.close(0u32.into()),
                    Err(e) => side.fail(&format!("cannot open a connection: {e}")),
                }
            }
            std::future::pending::<()>().await;
        });
    }
    std::future::pending().await
}

async fn open_one(client: &Client, server: SocketAddr, side: &Side) -> Result<Connection> {
    let mut connection = connect(client, server).await?;
    let (receive, mut send) = connection.open_bidirectional_stream().await?.split();
    let mut source = Source::new(Workload::Handshakes.message(), 1);
    send.send(Bytes::copy_from_slice(source.message())).await?;
    send.finish()?;
    let back = read_to_end(receive).await?;
    match payload::open(&back) {
        Some(_) => side.counters.received(back.len()),
        None => side.counters.corrupt(),
    }
    Ok(connection)
}
