//! An echo server and a client of it, in one process or in two.
//!
//! ```sh
//! cargo run --example echo                                  # both here
//! cargo run --example echo -- server 127.0.0.1:7472         # prints its fingerprint
//! cargo run --example echo -- client 127.0.0.1:7472 FINGERPRINT hello
//! ```
//!
//! The server uses the inline API: its handler runs on the thread of a shard and is given messages
//! where the kernel put them. The client uses the queued API, from an ordinary thread.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use trunkline::{
    Channel, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, Conn, ConnectConfig,
    Context, Engine, EngineConfig, Event, Handler, Identity, Incoming, ListenConfig, QueuedEngine,
    Received, Status, Trust,
};

/// Sends every message back on the channel that it came on.
struct Echo;

impl Handler for Echo {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        println!("connection from {}", incoming.remote);
        let _ = cx.accept(conn);
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _request: &ChannelRequest<'_>,
    ) {
        let _ = cx.accept_channel(channel, &ChannelOptions::default());
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _kind: ChannelKind,
        message: &[u8],
    ) {
        // A server that has more to do than this keeps what `WouldBlock` refuses until
        // `on_writable`.
        if let Err(e) = cx.send(channel, message) {
            eprintln!("cannot answer: {e}");
        }
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _old: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            println!("connection ended: {}", reason.map(ToString::to_string).unwrap_or_default());
            let _ = cx.close(conn, 1000, "", None);
        }
    }
}

fn server(addr: SocketAddr) -> Result<(Engine<Echo>, SocketAddr, Identity), Box<dyn Error>> {
    // A real server keeps its key; `trunkline keygen` makes one.
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let identity = Identity::from_pem(
        made.cert.pem().as_bytes(),
        made.signing_key.serialize_pem().as_bytes(),
    )?;
    let engine = Engine::start(EngineConfig::default(), |_shard| Echo)?;
    let listener = engine.listen(&ListenConfig::new(addr, identity.clone()))?;
    println!("listening on {}, fingerprint {}", listener.local_addr, identity.peer_id());
    Ok((engine, listener.local_addr, identity))
}

fn client(addr: SocketAddr, trust: Trust, text: &str) -> Result<(), Box<dyn Error>> {
    let engine = QueuedEngine::start(EngineConfig::default())?;
    let conn = engine.connect(&ConnectConfig::new(addr, trust), None)?;
    let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
    // Neither waits for an answer: the message goes out with the request for its channel.
    let channel = engine.open_channel(conn, "echo", &options)?;
    engine.send(channel, text.as_bytes())?;
    let mut received = Vec::new();
    loop {
        engine.poll_group().recv_many(&mut received, 64, Some(Duration::from_secs(10)));
        if received.is_empty() {
            return Err("no answer".into());
        }
        for item in received.drain(..) {
            match item {
                Received::Message(message) => {
                    println!("back: {}", String::from_utf8_lossy(&message.data));
                    assert_eq!(&*message.data, text.as_bytes());
                    engine.close(conn, 1000, "done", Some(Duration::from_secs(5)))?;
                    engine.shutdown(Duration::from_secs(5))?;
                    return Ok(());
                }
                Received::Event(Event::Status { reason: Some(reason), .. }) => {
                    return Err(reason.to_string().into());
                }
                Received::Event(_) => {}
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let (engine, addr, identity) = server(([127, 0, 0, 1], 0).into())?;
            client(addr, Trust::Pins(vec![identity.peer_id()]), "hello")?;
            engine.shutdown(Duration::ZERO);
        }
        ["server", addr] => {
            let _running = server(addr.parse()?)?;
            loop {
                std::thread::park();
            }
        }
        ["client", addr, fingerprint, text] => {
            client(addr.parse()?, Trust::Pins(vec![fingerprint.parse()?]), text)?;
        }
        _ => return Err("arguments: none, server ADDR, or client ADDR FINGERPRINT TEXT".into()),
    }
    Ok(())
}
