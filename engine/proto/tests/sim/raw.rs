//! A stream peer with nothing of ours in it: rustls, and frames and messages written by hand, in
//! memory beside one endpoint.

use super::rng::Rng;
use super::tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig};
use rustls::{ServerConnection, SignatureScheme};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::endpoint::{
    self, Endpoint, EndpointConfig, EndpointKeys, ListenerConfig, RetryPolicy, StreamNeeds,
};
use trunkline_proto::error::CloseReason;
use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming, Sink};
use trunkline_proto::handshake::{ClientAuth, Trust};
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// An event as the application was told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Status(Status, Option<CloseReason>),
    Incoming(Vec<u8>),
    Dead(CloseReport),
    Request(ChannelKey, u16, String, ChannelKind),
    Ready(ChannelKey),
    Closed(ChannelKey, ChannelEnd),
    Message(ChannelKey, Vec<u8>),
    Eof(ChannelKey),
    Reset(ChannelKey, u32),
    Stopped(ChannelKey, u32),
    Writable(ChannelKey),
    Receipt(ChannelKey, u64),
    CheckAnswered,
}

/// Everything that the application was told.
#[derive(Debug, Default)]
pub struct Log {
    pub events: Vec<Told>,
    /// Bytes of `bytes` channels, in order.
    pub data: Vec<(ChannelKey, Vec<u8>)>,
    handled: usize,
}

impl Log {
    /// All bytes of a channel.
    pub fn bytes(&self, channel: ChannelKey) -> Vec<u8> {
        let of = self.data.iter().filter(|(key, _)| *key == channel);
        of.flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }

    /// How the channel ended.
    pub fn end(&self, channel: ChannelKey) -> Option<&ChannelEnd> {
        let mut ends = self.events.iter().filter_map(|e| match e {
            Told::Closed(key, end) if *key == channel => Some(end),
            _ => None,
        });
        let end = ends.next();
        assert_eq!(ends.next(), None, "a channel ended twice");
        end
    }

    /// The last status with its reason.
    pub fn status(&self) -> Option<(Status, Option<CloseReason>)> {
        self.events.iter().rev().find_map(|e| match e {
            Told::Status(status, reason) => Some((*status, reason.clone())),
            _ => None,
        })
    }

    /// Forgets all but the end, for long runs.
    pub fn forget(&mut self) {
        self.events.retain(|e| matches!(e, Told::Status(s, _) if *s != Status::Connected));
        self.data.clear();
        self.handled = self.events.len();
    }

    pub fn count(&self, which: impl Fn(&Told) -> bool) -> usize {
        self.events.iter().filter(|e| which(e)).count()
    }

    /// Keys and ids of the channels that were asked for.
    pub fn requests(&self) -> Vec<(ChannelKey, u16, String)> {
        let request = |e: &Told| match e {
            Told::Request(key, id, name, _) => Some((*key, *id, name.clone())),
            _ => None,
        };
        self.events.iter().filter_map(request).collect()
    }
}

impl Sink for Log {
    fn status(&mut self, _: ConnHandle, _: Status, new: Status, reason: Option<&CloseReason>) {
        self.events.push(Told::Status(new, reason.cloned()));
    }
    fn incoming(&mut self, _: ConnHandle, incoming: &Incoming<'_>) {
        self.events.push(Told::Incoming(incoming.credential.to_vec()));
    }
    fn dead(&mut self, _: ConnHandle, report: &CloseReport) {
        self.events.push(Told::Dead(report.clone()));
    }
    fn channel_request(&mut self, _: ConnHandle, key: ChannelKey, r: &ChannelRequest<'_>) {
        self.events.push(Told::Request(key, r.id, r.name.to_owned(), r.options.kind));
    }
    fn channel_ready(&mut self, _: ConnHandle, key: ChannelKey) {
        self.events.push(Told::Ready(key));
    }
    fn channel_closed(&mut self, _: ConnHandle, key: ChannelKey, end: &ChannelEnd) {
        self.events.push(Told::Closed(key, end.clone()));
    }
    fn data(&mut self, _: ConnHandle, key: ChannelKey, bytes: &[u8]) {
        self.data.push((key, bytes.to_vec()));
    }
    fn message(&mut self, _: ConnHandle, key: ChannelKey, _: ChannelKind, message: &[u8]) {
        self.events.push(Told::Message(key, message.to_vec()));
    }
    fn eof(&mut self, _: ConnHandle, key: ChannelKey) {
        self.events.push(Told::Eof(key));
    }
    fn reset(&mut self, _: ConnHandle, key: ChannelKey, code: u32) {
        self.events.push(Told::Reset(key, code));
    }
    fn stopped(&mut self, _: ConnHandle, key: ChannelKey, code: u32) {
        self.events.push(Told::Stopped(key, code));
    }
    fn writable(&mut self, _: ConnHandle, key: ChannelKey) {
        self.events.push(Told::Writable(key));
    }
    fn receipt(&mut self, _: ConnHandle, key: ChannelKey, token: u64) {
        self.events.push(Told::Receipt(key, token));
    }
    fn check_answered(&mut self, _: ConnHandle) {
        self.events.push(Told::CheckAnswered);
    }
}

/// Believes any host: who the endpoint is is of no interest to this peer.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What an endpoint is told to do about the peer.
#[derive(Clone, Debug)]
pub struct Setup {
    pub alpn: Vec<&'static [u8]>,
    pub connection: ConnectionConfig,
    /// Host: clients may speak the plain protocol. Client: how it connects.
    pub plain: bool,
    pub client_auth: ClientAuth,
    /// What the client believes.
    pub trust: Trust,
    pub credential: Vec<u8>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            alpn: vec![b"mux/0"],
            connection: ConnectionConfig { unsent_limit: 64 << 20, ..ConnectionConfig::default() },
            plain: true,
            client_auth: ClientAuth::None,
            trust: Trust::DangerousAny,
            credential: Vec::new(),
        }
    }
}

impl Setup {
    /// A peer that speaks the native protocol.
    pub fn native() -> Self {
        Self { alpn: vec![b"trunkline/1"], plain: false, ..Self::default() }
    }

    pub fn with(mut self, change: impl FnOnce(&mut ConnectionConfig)) -> Self {
        change(&mut self.connection);
        self.connection.validate().expect("settings");
        self
    }
}

/// An endpoint and the peer.
pub struct Raw {
    pub now: Instant,
    pub endpoint: Endpoint,
    pub conn: ConnHandle,
    pub log: Log,
    pub tls: Connection,
    /// The application takes connections and channels at once.
    pub accepts: bool,
    pub accepts_channels: bool,
    /// The peer reads.
    pub reads: bool,
    /// Most bytes that arrive at once.
    pub chunk: usize,
    /// Plaintext of the endpoint, as it arrived, and how much that was in all.
    pub got: Vec<u8>,
    pub total: u64,
    /// A bit of the next bytes is turned over on their way.
    damage: Option<u64>,
    /// The peer saw close_notify, the end of the endpoint's direction, its socket closed.
    pub notified: bool,
    pub fin: bool,
    pub closed: bool,
    /// Why the peer's TLS ended.
    pub error: Option<rustls::Error>,
    to_us: VecDeque<u8>,
    from_us: VecDeque<u8>,
    fin_sent: bool,
    fin_told: bool,
    wants: bool,
}

fn endpoint(connection: ConnectionConfig) -> Endpoint {
    let mut seed = Rng::new(7);
    let keys = EndpointKeys { id: [9; 16], reset: seed.seed(), retry: seed.seed() };
    let config = EndpointConfig {
        shard: 0,
        server: 0,
        seed: seed.seed(),
        keys,
        connection,
        max_connections: 64,
        max_handshakes: 64,
        retry: RetryPolicy::Never,
        observer: None,
    };
    Endpoint::new(start(), config).expect("endpoint")
}

fn start() -> Instant {
    Instant::from_nanos(1_000_000_000_000)
}

fn address() -> SocketAddr {
    ([10, 0, 0, 9], 4_000).into()
}

impl Raw {
    /// The peer is the client, the endpoint the host. Nothing has been sent.
    pub fn client(setup: &Setup) -> Self {
        let mut endpoint = endpoint(setup.connection.clone());
        let tls = tls::host_tls(tls::host_id(), &setup.client_auth);
        let listener = ListenerConfig { tls, connection: None };
        endpoint.listen_stream(0, listener, setup.plain).expect("listen");
        let conn = endpoint.accept_stream(start(), 0, address(), None).expect("accept");
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        config.alpn_protocols = setup.alpn.iter().map(|p| p.to_vec()).collect();
        let name = ServerName::try_from(tls::HOST_NAME).expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("client");
        Self::new(endpoint, conn, tls.into())
    }

    /// The peer is the host, the endpoint the client. Nothing has been sent.
    pub fn host(setup: &Setup) -> Self {
        let mut endpoint = endpoint(setup.connection.clone());
        let config = endpoint::ClientConfig {
            tls: tls::client_tls(&setup.trust, Some(tls::client_id())),
            server_name: tls::HOST_NAME.into(),
            credential: setup.credential.clone(),
            connection: None,
        };
        let conn =
            endpoint.connect_stream(start(), &[address()], &config, setup.plain).expect("connect");
        let (cert, key) = tls::der(1, tls::HOST_NAME);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("a certificate");
        config.alpn_protocols = setup.alpn.iter().map(|p| p.to_vec()).collect();
        let tls = ServerConnection::new(Arc::new(config)).expect("server");
        Self::new(endpoint, conn, tls.into())
    }

    fn new(endpoint: Endpoint, conn: ConnHandle, mut tls: Connection) -> Self {
        tls.set_buffer_limit(None);
        Self {
            now: start(),
            endpoint,
            conn,
            log: Log::default(),
            tls,
            accepts: true,
            accepts_channels: true,
            reads: true,
            chunk: usize::MAX,
            got: Vec::new(),
            total: 0,
            damage: None,
            notified: false,
            fin: false,
            closed: false,
            error: None,
            to_us: VecDeque::new(),
            from_us: VecDeque::new(),
            fin_sent: false,
            fin_told: false,
            wants: true,
        }
    }

    /// Sends plaintext.
    pub fn send(&mut self, bytes: &[u8]) {
        self.queue(bytes);
        self.pump();
    }

    /// Seals plaintext without letting anything move.
    pub fn queue(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("room");
    }

    /// Sends one frame.
    pub fn frame(&mut self, channel: u16, body: &[u8]) {
        self.send(&frame(channel, body));
    }

    /// Sends bytes that TLS has not seen.
    pub fn inject(&mut self, bytes: &[u8]) {
        self.flush();
        self.to_us.extend(bytes);
        self.pump();
    }

    /// Ends the peer's direction, with close_notify or without.
    pub fn finish(&mut self, notify: bool) {
        if notify {
            self.tls.send_close_notify();
        }
        self.flush();
        self.fin_sent = true;
        self.pump();
    }

    /// The peer's socket breaks.
    pub fn break_off(&mut self) {
        let Self { endpoint, log, conn, now, .. } = self;
        endpoint.stream_failed(*now, *conn, "connection reset by peer", log);
        self.closed = true;
        self.pump();
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).expect("a vector takes all");
        }
        if !out.is_empty()
            && let Some(bit) = self.damage.take()
        {
            let at = bit as usize % out.len();
            out[at] ^= 1 << (bit >> 32 & 7);
        }
        self.to_us.extend(out);
    }

    /// Turns over a bit of the next bytes that the peer sends.
    pub fn damage(&mut self, which: u64) {
        self.damage = Some(which);
    }

    /// Hands the peer what the test took from the endpoint itself.
    pub fn deliver(&mut self, sealed: &[u8]) {
        self.from_us.extend(sealed);
    }

    /// Bytes that the endpoint has not read.
    pub fn unread(&self) -> usize {
        self.to_us.len()
    }

    /// Lets everything move that can at this moment.
    pub fn pump(&mut self) {
        for round in 0.. {
            assert!(round < 200_000, "it never comes to rest");
            let moved = self.step_in() | self.step_out() | self.peer_reads();
            if !moved {
                return;
            }
        }
    }

    fn step_in(&mut self) -> bool {
        self.flush();
        let mut moved = false;
        let Self { endpoint, log, conn, now, .. } = self;
        if !self.closed && !self.to_us.is_empty() {
            if endpoint.stream_is_readable(*conn) {
                let n = self.chunk.min(self.to_us.len());
                let piece: Vec<u8> = self.to_us.drain(..n).collect();
                endpoint.stream_receive(*now, *conn, &piece, log);
                moved = true;
            }
        } else if self.fin_sent && !self.fin_told && !self.closed {
            self.fin_told = true;
            endpoint.stream_finished(*now, *conn, log);
            moved = true;
        }
        endpoint.end_batch(*now, log);
        moved | self.react()
    }

    fn react(&mut self) -> bool {
        let mut moved = false;
        while let Some(event) = self.log.events.get(self.log.handled).cloned() {
            self.log.handled += 1;
            let Self { endpoint, conn, now, .. } = self;
            match event {
                Told::Incoming(_) if self.accepts => {
                    endpoint.accept(*now, *conn).expect("accept");
                    moved = true;
                }
                Told::Request(key, _, _, kind) if self.accepts_channels => {
                    let options = ChannelOptions { kind, ..ChannelOptions::default() };
                    // It may be gone in the same breath.
                    let _ = endpoint.accept_channel(*now, *conn, key, &options);
                    moved = true;
                }
                _ => {}
            }
        }
        let Self { endpoint, log, now, .. } = self;
        for _ in 0..1_000 {
            if endpoint.next_timeout().is_none_or(|at| at > *now) {
                return moved;
            }
            endpoint.handle_timeout(*now, log);
            moved = true;
        }
        panic!("a timer never goes away");
    }

    fn step_out(&mut self) -> bool {
        let Self { endpoint, conn, now, .. } = self;
        let mut buf = vec![0; 20_000];
        while endpoint.poll_transmit(*now, &mut buf, 1).is_some() {}
        while let Some(named) = endpoint.next_stream() {
            assert_eq!(named, *conn);
            self.wants = true;
        }
        while let Some(gone) = endpoint.closed_stream() {
            assert_eq!(gone.conn, *conn);
            self.from_us.extend(gone.farewell);
            (self.closed, self.fin) = (true, true);
        }
        if !self.wants || self.closed || self.from_us.len() > 64_000 {
            return false;
        }
        let n = endpoint.stream_transmit(*now, *conn, &mut buf);
        self.from_us.extend(&buf[..n]);
        if n > 0 {
            return true;
        }
        self.wants = false;
        match endpoint.stream_needs(*conn) {
            StreamNeeds::Nothing => {}
            StreamNeeds::Shutdown => self.fin = true,
            StreamNeeds::Close => (self.fin, self.closed) = (true, true),
        }
        true
    }

    fn peer_reads(&mut self) -> bool {
        if !self.reads || self.from_us.is_empty() {
            return false;
        }
        let bytes: Vec<u8> = self.from_us.drain(..).collect();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && self.error.is_none() {
            if self.tls.read_tls(&mut rest).expect("in memory") == 0 {
                break;
            }
            match self.tls.process_new_packets() {
                Ok(state) => self.notified |= state.peer_has_closed(),
                Err(e) => self.error = Some(e),
            }
            // "Would block" is the end of what is there.
            let before = self.got.len();
            let _ = self.tls.reader().read_to_end(&mut self.got);
            self.total += (self.got.len() - before) as u64;
        }
        true
    }

    /// Whatever has happened to it, a connection that is closed is gone in the end.
    pub fn leaves_nothing(&mut self, seed: u64) {
        let long = Duration::from_secs(20);
        self.run(long);
        self.app(|ep, now, conn| {
            let _ = ep.close(now, conn, 1_000, "", None);
        });
        self.run(long);
        assert_eq!(self.endpoint.connections().count(), 0, "seed {seed}");
    }

    /// Lets time pass, timers included.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.pump();
        while let Some(at) = self.endpoint.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.pump();
        }
        self.now = until;
        self.pump();
    }

    /// Takes the whole frames that have come.
    pub fn frames(&mut self) -> Vec<(u16, Vec<u8>)> {
        let mut frames = Vec::new();
        while let [a, b, c, d, rest @ ..] = self.got.as_slice() {
            let len = usize::from(u16::from_be_bytes([*a, *b]));
            if rest.len() < len {
                break;
            }
            frames.push((u16::from_be_bytes([*c, *d]), rest[..len].to_vec()));
            self.got.drain(..4 + len);
        }
        frames
    }

    /// Calls of the application.
    pub fn app<T>(&mut self, f: impl FnOnce(&mut Endpoint, Instant, ConnHandle) -> T) -> T {
        let result = f(&mut self.endpoint, self.now, self.conn);
        self.pump();
        result
    }

    /// The status and the reason of the end that the application was told.
    pub fn end(&self) -> (Status, CloseReason) {
        let (status, reason) = self.log.status().expect("a status");
        (status, reason.unwrap_or_else(|| panic!("{status:?} without a reason")))
    }
}

/// One frame.
pub fn frame(channel: u16, body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u16).to_be_bytes().to_vec();
    out.extend(channel.to_be_bytes());
    out.extend(body);
    out
}

/// `[name, channel, is_answer]` in msgpack, by hand: names up to 31 bytes.
pub fn request(name: &str, channel: u16, is_answer: bool) -> Vec<u8> {
    let mut out = vec![0x93, 0xa0 | name.len() as u8];
    out.extend(name.bytes());
    match channel {
        0..=127 => out.push(channel as u8),
        128..=255 => out.extend([0xcc, channel as u8]),
        _ => {
            out.push(0xcd);
            out.extend(channel.to_be_bytes());
        }
    }
    out.push(if is_answer { 0xc3 } else { 0xc2 });
    out
}
