//! An echo server and a client in one program: the inline API in two minutes.
//!
//! ```sh
//! cargo run --example echo
//! ```

use std::error::Error;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use trunkline::{
    Channel, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, Conn, ConnectConfig,
    Context, Engine, EngineConfig, Handler, Identity, Incoming, ListenConfig, Reason, Status,
    Trust,
};

/// The server: takes every connection and channel, and sends each message back.
struct Server;

impl Handler for Server {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        println!("server: connection from {}", incoming.remote);
        let _ = cx.accept(conn);
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        println!("server: channel \"{}\"", request.name);
        let _ = cx.accept_channel(channel, &ChannelOptions::default());
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _: ChannelKind,
        message: &[u8],
    ) {
        // A full buffer gives `WouldBlock`, and `on_writable` follows when there is room: a real
        // server keeps the message until then.
        if let Err(error) = cx.send(channel, message) {
            println!("server: {error}");
        }
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if let Some(reason) = reason {
            println!("server: {new:?}, {reason}");
            // The handle stays valid until it is closed.
            let _ = cx.close(conn, Reason::APP.0, "", None);
        }
    }
}

/// The client: connects, sends a few messages, and hands the answers to the main thread.
struct Client {
    connect: ConnectConfig,
    answers: Sender<String>,
}

impl Handler for Client {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
        let sent = cx.connect(&self.connect).and_then(|conn| {
            // No need to wait: what is sent now goes out as soon as the connection is made.
            let channel = cx.open_channel(conn, "echo", &options)?;
            for word in ["hello", "from", "the", "other", "side"] {
                cx.send(channel, word.as_bytes())?;
            }
            Ok(())
        });
        if let Err(error) = sent {
            println!("client: {error}");
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: Channel, _: ChannelKind, message: &[u8]) {
        let _ = self.answers.send(String::from_utf8_lossy(message).into_owned());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // A key and a certificate for this run. `trunkline keygen` writes lasting ones.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let certificate = rcgen::CertificateParams::new(vec!["echo".into()])?.self_signed(&key)?;
    let identity =
        Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
    println!("server: fingerprint {}", identity.peer_id());

    let server = Engine::start(EngineConfig::default(), |_shard| Server)?;
    let listen = ListenConfig::new("127.0.0.1:0".parse()?, identity.clone());
    let listener = server.listen(&listen)?;
    println!("server: listening at {} with {}", listener.local_addr, server.driver_name());

    // The client believes this one key and no other.
    let trust = Trust::Pins(vec![identity.peer_id()]);
    let (answers, received) = channel();
    let connect = ConnectConfig::new(listener.local_addr, trust);
    let client = Engine::start(EngineConfig::default(), |_shard| Client {
        connect: connect.clone(),
        answers: answers.clone(),
    })?;

    for _ in 0..5 {
        println!("client: {}", received.recv_timeout(Duration::from_secs(5))?);
    }

    // Delivers what was sent, tells the peer, and says what became of each connection.
    let report = client.shutdown(Duration::from_secs(5));
    for (conn, close) in &report.connections {
        println!("client: {conn:?}: {} bytes acknowledged", close.acknowledged_bytes);
    }
    server.shutdown(Duration::from_secs(1));
    Ok(())
}
