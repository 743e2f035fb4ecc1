//! quinn, on one single-threaded tokio runtime a side.
//!
//! | setting | value | why |
//! | --- | --- | --- |
//! | `initial_mtu`, `min_mtu`, no discovery | 1452, or 16,000 for `bulk-large` | the same packets for all; with larger ones quinn 0.11 does not connect |
//! | GSO, GRO, `sendmsg` batches | on (quinn-udp's default); no GSO for `bulk-large` | ten such packets are more than a send may have |
//! | initial window | 10 packets | as RFC 9002; the default is less than two large packets |
//! | stream and connection windows | 16 MiB | more than loopback has under way, so that flow control never waits |
//! | send window | 256 KiB on loopback, else 16 MiB | best of 256 KiB to 16 MiB: quinn searches what is unacknowledged |
//! | acknowledgement frequency | every 10 packets (extension on) | fewer acknowledgements; the default is every 2 |
//! | congestion control | CUBIC (the default) | |
//! | socket buffers | 4 MiB | as Trunkline; the system's default loses packets |
//! | datagram buffers | 8 MiB | sends wait for room instead of dropping |
//! | bulk messages | lent (`write_chunk`) | not copied, as with Trunkline |
//! | reads | up to 32 chunks without a copy (`read_chunks`) | the cheapest read there is |
//! | cryptography | rustls with ring, AES-128-GCM first | as Trunkline |

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
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Flow control and send buffers, in bytes.
const WINDOW: u32 = 16 << 20;
/// The send window on loopback, in bytes.
const LOOPBACK_SEND_WINDOW: u64 = 256 << 10;
/// Bytes of datagrams that may wait.
const DATAGRAM_BUFFER: usize = 8 << 20;
/// Packets that quinn puts into one send at most; more than 64 KiB in all the system refuses.
const GSO_PACKETS: usize = 10;
/// Largest packet: larger ones than this end in an error or take longer.
const LARGEST: usize = 16_000;
/// Chunks read at once.
const CHUNKS: usize = 32;
/// Packets for each acknowledgement.
const ACK_EVERY: u32 = 10;

/// The peer.
pub struct Quinn;

impl Peer for Quinn {
    fn name(&self) -> &'static str {
        "quinn"
    }

    fn about(&self) -> &'static str {
        "quinn (QUIC, rustls with ring, AES-128-GCM, GSO and GRO, CUBIC)"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["quinn", "quinn-proto", "quinn-udp", "rustls", "tokio"]
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

/// A tokio runtime on the calling thread alone.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn transport(job: &Job) -> Arc<TransportConfig> {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
    let mut congestion = CubicConfig::default();
    congestion.initial_window(10 * u64::from(packet(job)));
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(packet(job))
        .min_mtu(packet(job))
        .mtu_discovery_config(None)
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(send_window(job))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .enable_segmentation_offload(packet(job) as usize * GSO_PACKETS < udp::LARGEST)
        .congestion_controller_factory(Arc::new(congestion))
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .ack_frequency_config(Some(acks));
    Arc::new(transport)
}

/// Bytes of streams under way or waiting. Few on loopback: looking for what is to be sent takes
/// longer the more there is.
fn send_window(job: &Job) -> u64 {
    let loopback = job.listen.parse().is_ok_and(|at: SocketAddr| at.ip().is_loopback());
    if loopback { LOOPBACK_SEND_WINDOW } else { WINDOW.into() }
}

fn packet(job: &Job) -> u16 {
    job.packet().min(LARGEST) as u16
}

fn endpoint(job: &Job, listen: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = udp::bind(listen)?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(packet(job))?;
    Ok(Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?)
}

/// All connections of a ticking side.
type Shared = Arc<Mutex<Vec<Connection>>>;

async fn serve(job: &Job, side: &Side) -> Outcome {
    let crypto = QuicServerConfig::try_from(identity::server()?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(job));
    let endpoint = endpoint(job, job.listen.parse()?, Some(config))?;
    side.listening(endpoint.local_addr()?);
    let all = Shared::default();
    if job.workload == Workload::Tick {
        tokio::spawn(tick(Arc::clone(&all), SERVER_SLOTS, side.clone()));
    }
    while let Some(incoming) = endpoint.accept().await {
        let (side, all, workload) = (side.clone(), Arc::clone(&all), job.workload);
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            // It ends when the client closes it.
            let _ = answer(workload, &connection, &all, &side).await;
        });
    }
    Ok(())
}

async fn answer(
    workload: Workload,
    connection: &Connection,
    all: &Shared,
    side: &Side,
) -> Result<()> {
    match workload {
        Workload::Tick => {
            all.lock().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
            loop {
                side.counters.stamped(&connection.read_datagram().await?);
            }
        }
        Workload::Datagrams => loop {
            let datagram = connection.read_datagram().await?;
            match payload::open(&datagram) {
                Some(_) => side.counters.received(datagram.len()),
                None => side.counters.corrupt(),
            }
        },
        Workload::Handshakes | Workload::Resumed | Workload::Memory => {
            let (mut send, mut receive) = connection.accept_bi().await?;
            let message = receive.read_to_end(workload.message()).await?;
            match payload::open(&message) {
                Some(_) => side.counters.received(message.len()),
                None => side.counters.corrupt(),
            }
            send.write_all(&message).await?;
            send.finish()?;
            connection.closed().await;
            Ok(())
        }
        Workload::Latency => {
            let (send, receive) = connection.accept_bi().await?;
            echo(workload, send, receive, side).await
        }
        _ => receive(workload, connection.accept_uni().await?, side).await,
    }
}

async fn receive(workload: Workload, mut stream: RecvStream, side: &Side) -> Result<()> {
    let (mut frames, mut series) = (Frames::new(workload.message()), Series::default());
    let mut chunks = vec![Bytes::new(); CHUNKS];
    while let Some(n) = stream.read_chunks(&mut chunks).await? {
        for chunk in &mut chunks[..n] {
            frames.push(chunk, |message| series.take(&side.counters, message));
            *chunk = Bytes::new();
        }
    }
    Ok(())
}

async fn echo(
    workload: Workload,
    mut send: SendStream,
    mut receive: RecvStream,
    side: &Side,
) -> Result<()> {
    let (mut series, mut message) = (Series::default(), vec![0; workload.message()]);
    loop {
        receive.read_exact(&mut message).await?;
        series.take(&side.counters, &message);
        send.write_all(&message).await?;
    }
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
                if all[n].send_datagram(message).is_ok() {
                    side.counters.sent(1);
                }
            }
        }
    }
}

async fn drive(job: &Job, server: SocketAddr, side: &Side) -> Outcome {
    let crypto = QuicClientConfig::try_from(identity::client(job.workload == Workload::Resumed)?)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(job));
    let mut endpoint = endpoint(job, udp::any(server), None)?;
    endpoint.set_default_client_config(config);
    match job.workload {
        Workload::Tick => drive_tick(job, &endpoint, server, side).await,
        workload if workload.opens() => open_many(job, &endpoint, server, side).await,
        workload => {
            let connection = endpoint.connect(server, identity::NAME)?.await?;
            side.running();
            send(workload, &connection, side).await
        }
    }
}

async fn send(workload: Workload, connection: &Connection, side: &Side) -> Outcome {
    let mut source = Source::new(workload.message(), 1);
    match workload {
        Workload::Datagrams => {
            while !side.counters.is_quiet() {
                let message = Bytes::copy_from_slice(source.message());
                connection.send_datagram_wait(message).await?;
                source.advance();
                side.counters.sent(1);
            }
            std::future::pending().await
        }
        Workload::Latency => {
            let (send, receive) = connection.open_bi().await?;
            ping(send, receive, &mut source, side).await
        }
        Workload::SmallBatched => {
            let mut stream = connection.open_uni().await?;
            let mut gathered = Vec::with_capacity(BATCH);
            loop {
                gather(&mut gathered, &mut source, BATCH);
                stream.write_all(&gathered).await?;
            }
        }
        Workload::Bulk | Workload::BulkLarge => {
            let mut lender = Lender::new(workload.message(), 1, 0);
            let mut stream = connection.open_uni().await?;
            loop {
                stream.write_chunk(lent(&mut lender)).await?;
                lender.advance();
            }
        }
        _ => {
            let mut stream = connection.open_uni().await?;
            loop {
                stream.write_all(source.message()).await?;
                source.advance();
            }
        }
    }
}

async fn ping(
    mut send: SendStream,
    mut receive: RecvStream,
    source: &mut Source,
    side: &Side,
) -> Outcome {
    let mut back = vec![0; source.message().len()];
    loop {
        let begun = unix_ns();
        send.write_all(source.message()).await?;
        receive.read_exact(&mut back).await?;
        if payload::open(&back) == Some(source.sent()) {
            side.counters.delay(unix_ns().saturating_sub(begun));
            side.counters.received(back.len());
        } else {
            side.counters.corrupt();
        }
        source.advance();
    }
}

async fn drive_tick(job: &Job, endpoint: &Endpoint, server: SocketAddr, side: &Side) -> Outcome {
    let all = Shared::default();
    for _ in 0..job.connections {
        let connection = endpoint.connect(server, identity::NAME)?.await?;
        all.lock().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
        let counters = Arc::clone(&side.counters);
        tokio::spawn(async move {
            while let Ok(datagram) = connection.read_datagram().await {
                counters.stamped(&datagram);
            }
        });
    }
    side.running();
    tick(all, CLIENT_SLOTS, side.clone()).await;
    Ok(())
}

/// Opens connections, some at once, with one message there and back on each.
async fn open_many(job: &Job, endpoint: &Endpoint, server: SocketAddr, side: &Side) -> Outcome {
    side.running();
    let keep = job.workload == Workload::Memory;
    let share = if keep { job.connections.div_ceil(OPENING) } else { usize::MAX };
    for _ in 0..OPENING {
        let (endpoint, side) = (endpoint.clone(), side.clone());
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for _ in 0..share {
                match open_one(&endpoint, server, &side).await {
                    Ok(connection) if keep => kept.push(connection),
                    Ok(connection) => connection.close(VarInt::from_u32(0), b""),
                    Err(e) => side.fail(&format!("cannot open a connection: {e}")),
                }
            }
            std::future::pending::<()>().await;
        });
    }
    std::future::pending().await
}

async fn open_one(endpoint: &Endpoint, server: SocketAddr, side: &Side) -> Result<Connection> {
    let connection = endpoint.connect(server, identity::NAME)?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut source = Source::new(Workload::Handshakes.message(), 1);
    send.write_all(source.message()).await?;
    send.finish()?;
    let back = receive.read_to_end(Workload::Handshakes.message()).await?;
    match payload::open(&back) {
        Some(_) => side.counters.received(back.len()),
        None => side.counters.corrupt(),
    }
    Ok(connection)
}
