//! The inline API over real sockets, with every driver that works here.

mod common;

use common::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use trunkline::{
    Channel, ChannelEnd, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, CloseReport,
    Conn, ConnectConfig, Context, Engine, Handler, HandshakeFailure, HandshakeState, Incoming,
    Reason, SendOptions, Status,
};

/// Accepts everything and sends every message and byte back.
#[derive(Default)]
struct Echo {
    waiting: HashMap<Channel, Vec<Vec<u8>>>,
    ended: Vec<Channel>,
    panic_on: Option<&'static [u8]>,
}

impl Echo {
    fn back(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        let waiting = self.waiting.entry(channel).or_default();
        if !waiting.is_empty() || cx.send(channel, bytes).is_err() {
            waiting.push(bytes.to_vec());
        }
    }
}

impl Handler for Echo {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        cx.accept(conn).unwrap();
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        _: Option<&CloseReason>,
    ) {
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            cx.close(conn, Reason::APP.0, "", None).unwrap();
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _: &ChannelRequest<'_>,
    ) {
        cx.accept_channel(channel, &ChannelOptions::default()).unwrap();
    }

    fn on_data(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        self.back(cx, channel, bytes);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        assert!(self.panic_on != Some(m), "asked to");
        self.back(cx, channel, m);
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let Some(waiting) = self.waiting.get_mut(&channel) else { return };
        while let Some(first) = waiting.first() {
            if cx.send(channel, first).is_err() {
                return;
            }
            waiting.remove(0);
        }
        if self.ended.contains(&channel) {
            let _ = cx.finish(channel);
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if self.waiting.get(&channel).is_none_or(Vec::is_empty) {
            cx.finish(channel).unwrap();
        } else {
            self.ended.push(channel);
        }
    }
}

/// What a client saw.
#[derive(Debug, PartialEq)]
enum Saw {
    Status(Status, Option<Reason>),
    Message(Vec<u8>),
    Data(Vec<u8>),
    Eof,
    Closed(ChannelEnd),
    Dead(CloseReport),
}

type Job = Box<dyn FnOnce(&mut Client, &mut Context<'_>) + Send>;

/// Tells a test what happens, and does what the test posts.
struct Client {
    saw: Sender<(Option<Channel>, Saw)>,
    unsent: HashMap<Channel, (Vec<u8>, usize, bool)>,
    /// How the handshake of the connection stood that ended last.
    ended: Option<HandshakeState>,
}

impl Client {
    fn new() -> (Self, Receiver<(Option<Channel>, Saw)>) {
        let (saw, seen) = channel();
        (Self { saw, unsent: HashMap::new(), ended: None }, seen)
    }

    fn tell(&self, channel: Option<Channel>, saw: Saw) {
        let _ = self.saw.send((channel, saw));
    }

    /// Sends all of `bytes` on a `bytes` channel, and then its end.
    fn send_all(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: Vec<u8>) {
        self.unsent.insert(channel, (bytes, 0, false));
        self.on_writable(cx, channel);
    }
}

impl Handler for Client {
    type Command = Job;

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        self.tell(None, Saw::Status(new, reason.map(|r| r.reason)));
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            self.ended = cx.info(conn).map(|info| info.handshake);
            cx.close(conn, Reason::APP.0, "", None).unwrap();
        }
    }

    fn on_dead(&mut self, _: &mut Context<'_>, _: Conn, report: &CloseReport) {
        self.tell(None, Saw::Dead(report.clone()));
    }

    fn on_message(&mut self, _: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        self.tell(Some(channel), Saw::Message(m.to_vec()));
    }

    fn on_data(&mut self, _: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        self.tell(Some(channel), Saw::Data(bytes.to_vec()));
    }

    fn on_eof(&mut self, _: &mut Context<'_>, channel: Channel) {
        self.tell(Some(channel), Saw::Eof);
    }

    fn on_channel_closed(&mut self, _: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        self.tell(Some(channel), Saw::Closed(end.clone()));
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let Some((bytes, sent, finished)) = self.unsent.get_mut(&channel) else { return };
        while *sent < bytes.len() {
            let end = bytes.len().min(*sent + (64 << 10));
            if cx.send(channel, &bytes[*sent..end]).is_err() {
                return;
            }
            *sent = end;
        }
        if !*finished {
            *finished = true;
            cx.finish(channel).unwrap();
        }
    }

    fn on_command(&mut self, cx: &mut Context<'_>, job: Job) {
        job(self, cx);
    }
}

struct Pair {
    host: Engine<Echo>,
    client: Engine<Client>,
    addr: SocketAddr,
    connect: ConnectConfig,
    seen: Receiver<(Option<Channel>, Saw)>,
}

impl Pair {
    fn start(driver: trunkline::DriverChoice, shards: usize, echo: fn() -> Echo) -> Self {
        let identity = identity();
        let mut host_config = config(driver);
        host_config.shards = shards;
        let host = Engine::start(host_config, |_| echo()).unwrap();
        let listener = host.listen(&listen(&identity)).unwrap();
        let (client, seen) = Client::new();
        let mut client = Some(client);
        let client = Engine::start(config(driver), |_| client.take().unwrap()).unwrap();
        let connect = connect(listener.local_addr, &identity);
        Self { host, client, addr: listener.local_addr, connect, seen }
    }

    fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Client, &mut Context<'_>) -> R + Send + 'static,
    ) -> R {
        let (result, wait) = channel();
        let job: Job = Box::new(move |client, cx| {
            let _ = result.send(job(client, cx));
        });
        self.client.post(0, job).unwrap();
        wait.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn connect(&self) -> Conn {
        let connect = self.connect.clone();
        let conn = self.run(move |_, cx| cx.connect(&connect)).unwrap();
        assert_eq!(self.next().1, Saw::Status(Status::Connected, None));
        conn
    }

    fn next(&self) -> (Option<Channel>, Saw) {
        self.seen.recv_timeout(Duration::from_secs(20)).expect("nothing more happened")
    }
}

const MESSAGES: ChannelOptions = ChannelOptions {
    kind: ChannelKind::Messages,
    priority: 4,
    weight: 16,
    window: None,
    no_delay: false,
    wait_for_answer: false,
    latest: false,
    expires_ms: 0,
    unique: false,
};

#[test]
fn messages_come_back_and_the_close_is_reported() {
    for driver in drivers() {
        let pair = Pair::start(driver, 1, Echo::default);
        let conn = pair.connect();
        let ch = pair.run(move |_, cx| cx.open_channel(conn, "echo", &MESSAGES)).unwrap();
        for i in 0..50u32 {
            let message = pattern(i as usize * 37, u64::from(i));
            pair.run(move |_, cx| cx.send(ch, &message)).unwrap();
        }
        for i in 0..50u32 {
            let expected = pattern(i as usize * 37, u64::from(i));
            assert_eq!(pair.next(), (Some(ch), Saw::Message(expected)));
        }
        pair.run(move |_, cx| cx.close(conn, 1234, "bye", Some(trunkline::Duration::from_secs(5))))
            .unwrap();
        assert!(pair.run(move |_, cx| cx.close(conn, 1234, "bye", None)).is_err(), "twice");
        let (_, Saw::Dead(report)) = pair.next() else { panic!() };
        assert_eq!(report.undelivered_bytes, 0);
        assert!(report.peer_knows, "{report:?}");
        assert_eq!(report.reason.reason, Reason(1234));
        let stats = pair.client.stats();
        assert_eq!(stats.connections(), 0);
        assert!(stats.total().bytes_sent > 0 && stats.total().connections_closed == 1);
    }
}

#[test]
fn bulk_bytes_come_back_whole() {
    for driver in drivers() {
        let pair = Pair::start(driver, 1, Echo::default);
        let conn = pair.connect();
        let bytes = pattern(20 << 20, 7);
        let expected = bytes.clone();
        let ch = pair.run(move |client, cx| {
            let ch = cx.open_channel(conn, "bulk", &ChannelOptions::default()).unwrap();
            client.send_all(cx, ch, bytes);
            ch
        });
        let mut got = Vec::new();
        loop {
            match pair.next() {
                (Some(c), Saw::Data(bytes)) if c == ch => got.extend(bytes),
                (Some(c), Saw::Eof) if c == ch => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got.len(), expected.len());
        assert!(got == expected);
        assert_eq!(pair.next(), (Some(ch), Saw::Closed(ChannelEnd::Finished)));
    }
}

#[test]
fn large_messages_and_many_channels() {
    for driver in drivers() {
        let pair = Pair::start(driver, 1, Echo::default);
        let conn = pair.connect();
        let channels: Vec<Channel> = pair.run(move |_, cx| {
            (0..300u64)
                .map(|i| {
                    let ch = cx.open_channel(conn, &format!("c{i}"), &MESSAGES).unwrap();
                    cx.send(ch, &pattern(i as usize * 501, i)).unwrap();
                    cx.finish(ch).unwrap();
                    ch
                })
                .collect()
        });
        let mut seen: HashMap<Channel, (bool, bool)> = HashMap::new();
        let mut closed = 0;
        while closed < channels.len() {
            let (ch, saw) = pair.next();
            let ch = ch.unwrap();
            let i = channels.iter().position(|c| *c == ch).unwrap();
            let state = seen.entry(ch).or_default();
            match saw {
                Saw::Message(m) => {
                    assert!(m == pattern(i * 501, i as u64), "channel {i}");
                    assert!(!state.0);
                    state.0 = true;
                }
                Saw::Eof => state.1 = true,
                Saw::Closed(ChannelEnd::Finished) => {
                    assert_eq!(*state, (true, true));
                    closed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        let large = pattern(16 << 20, 99);
        let expected = large.clone();
        pair.run(move |_, cx| {
            let ch = cx.open_channel(conn, "large", &MESSAGES).unwrap();
            cx.send_payload(ch, large.into(), SendOptions::default()).unwrap();
        });
        let (_, Saw::Message(m)) = pair.next() else { panic!() };
        assert!(m == expected);
    }
}

#[test]
fn connections_spread_over_shards_and_packets_find_theirs() {
    for driver in drivers() {
        let pair = Pair::start(driver, 2, Echo::default);
        let mut conns = Vec::new();
        for _ in 0..24 {
            let mut connect = pair.connect.clone();
            connect.reuse = trunkline::Reuse::ForceNew;
            let conn = pair.run(move |_, cx| cx.connect(&connect)).unwrap();
            assert_eq!(pair.next().1, Saw::Status(Status::Connected, None));
            conns.push(conn);
        }
        for (i, conn) in conns.iter().copied().enumerate() {
            let ch = pair
                .run(move |_, cx| {
                    let ch = cx.open_channel(conn, "x", &MESSAGES)?;
                    cx.send(ch, &pattern(50_000, i as u64)).map(|()| ch)
                })
                .unwrap();
            assert_eq!(pair.next(), (Some(ch), Saw::Message(pattern(50_000, i as u64))));
        }
        let stats = pair.host.stats();
        assert_eq!(stats.connections(), 24);
        let lost = stats.total().forwards_dropped;
        assert_eq!(lost, 0, "{stats:?}");
        println!(
            "{driver}: connections {:?}, forwarded {}",
            stats.shards.iter().map(|s| s.connections).collect::<Vec<_>>(),
            stats.total().forwards_sent
        );
    }
}

#[test]
fn a_connect_is_shared_unless_told_otherwise() {
    let pair = Pair::start(trunkline::DriverChoice::Mio, 1, Echo::default);
    let conn = pair.connect();
    let connect = pair.connect.clone();
    assert_eq!(pair.run(move |_, cx| cx.connect(&connect)).unwrap(), conn);
    let mut weaker = pair.connect.clone();
    weaker.trust = trunkline::Trust::DangerousAny;
    weaker.reuse = trunkline::Reuse::NeverNew;
    assert!(pair.run(move |_, cx| cx.connect(&weaker)).is_err());
    let mut other = pair.connect.clone();
    other.reuse = trunkline::Reuse::ForceNew;
    assert_ne!(pair.run(move |_, cx| cx.connect(&other)).unwrap(), conn);
}

#[test]
fn a_wrong_key_fails_the_connection() {
    let pair = Pair::start(trunkline::DriverChoice::Mio, 1, Echo::default);
    let wrong = common::connect(pair.addr, &identity());
    pair.run(move |_, cx| cx.connect(&wrong)).unwrap();
    let (_, saw) = pair.next();
    assert_eq!(saw, Saw::Status(Status::ProblemDetectedLocally, Some(Reason::BAD_CERTIFICATE)));
    let failed = HandshakeState::ConnectionFailed(HandshakeFailure::Authentication);
    assert_eq!(pair.run(|client, _| client.ended), Some(failed));
}

#[test]
fn nobody_there_times_out() {
    let (client, seen) = Client::new();
    let mut client = Some(client);
    let mut config = config(trunkline::DriverChoice::Mio);
    config.connection.initial_timeout = trunkline::Duration::from_millis(400);
    let engine = Engine::start(config, |_| client.take().unwrap()).unwrap();
    // The system completes TCP connections that nobody accepts. A port that is free for UDP may be
    // taken for TCP: then the next one.
    let (silent, _backlog) =
        std::iter::repeat_with(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
            .find_map(|silent| {
                let backlog = std::net::TcpListener::bind(silent.local_addr().unwrap()).ok()?;
                Some((silent, backlog))
            })
            .unwrap();
    let connect = common::connect(silent.local_addr().unwrap(), &identity());
    let job: Job = Box::new(move |_, cx| {
        cx.connect(&connect).unwrap();
    });
    engine.post(0, job).unwrap();
    let (_, saw) = seen.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(saw, Saw::Status(Status::ProblemDetectedLocally, Some(Reason::TIMEOUT)));
}

#[test]
fn a_shutdown_delivers_and_reports() {
    for driver in drivers() {
        let pair = Pair::start(driver, 1, Echo::default);
        let conn = pair.connect();
        pair.run(move |client, cx| {
            let ch = cx.open_channel(conn, "last", &ChannelOptions::default()).unwrap();
            client.send_all(cx, ch, pattern(400 << 10, 1));
        });
        let report = pair.client.shutdown(Duration::from_secs(10));
        assert_eq!(report.connections.len(), 1, "{report:?}");
        let (name, close) = &report.connections[0];
        assert_eq!(*name, conn);
        assert_eq!(close.undelivered_bytes, 0);
        assert!(close.acknowledged_bytes >= 400 << 10);
        assert_eq!(close.reason.reason, Reason::SHUTDOWN);
        assert!(report.all_delivered() && report.failures.is_empty());
        let nothing: Job = Box::new(|_, _| ());
        assert!(pair.client.post(0, nothing).is_err(), "the engine has ended");
        assert!(pair.client.shutdown(Duration::ZERO).connections.is_empty());
        wait_until("the host to forget the connection", || pair.host.stats().connections() == 0);
    }
}

#[test]
fn a_panicking_handler_ends_its_connections_and_is_reported() {
    let pair = Pair::start(trunkline::DriverChoice::Mio, 1, || Echo {
        panic_on: Some(b"panic"),
        ..Echo::default()
    });
    let conn = pair.connect();
    pair.run(move |_, cx| {
        let ch = cx.open_channel(conn, "x", &MESSAGES).unwrap();
        cx.send(ch, b"panic").unwrap();
        cx.send(ch, b"after").unwrap();
    });
    let saw = loop {
        match pair.next() {
            (_, saw @ Saw::Status(..)) => break saw,
            (_, Saw::Closed(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(saw, Saw::Status(Status::ClosedByPeer, Some(Reason::INTERNAL)));
    wait_until("the failure to show", || {
        pair.host.stats().shards[0].failure.as_deref() == Some("asked to")
    });
    // Nobody answers there any more.
    let mut connect = pair.connect.clone();
    connect.reuse = trunkline::Reuse::ForceNew;
    let mut quick = connection();
    quick.initial_timeout = trunkline::Duration::from_millis(300);
    connect.connection = Some(quick);
    pair.run(move |_, cx| cx.connect(&connect)).unwrap();
    let report = pair.host.shutdown(Duration::from_secs(1));
    assert_eq!(report.failures, [(0, "asked to".to_owned())]);
}

#[test]
fn a_closed_listener_lets_its_connections_live_and_can_come_back() {
    let pair = Pair::start(trunkline::DriverChoice::Mio, 1, Echo::default);
    let id = trunkline::ListenerId::from_bits(1);
    let conn = pair.connect();
    pair.host.unlisten(id, false);
    let ch = pair.run(move |_, cx| cx.open_channel(conn, "x", &MESSAGES)).unwrap();
    pair.run(move |_, cx| cx.send(ch, b"still here")).unwrap();
    assert_eq!(pair.next(), (Some(ch), Saw::Message(b"still here".to_vec())));
    pair.run(move |_, cx| cx.close(conn, 1000, "", None)).unwrap();
    let (_, Saw::Dead(_)) = pair.next() else { panic!() };
    wait_until("the socket to close", || std::net::UdpSocket::bind(pair.addr).is_ok());
}

#[test]
fn a_listener_closed_with_its_connections_ends_them() {
    let pair = Pair::start(trunkline::DriverChoice::Mio, 1, Echo::default);
    pair.connect();
    pair.host.unlisten(trunkline::ListenerId::from_bits(1), true);
    let (_, Saw::Status(status, Some(reason))) = pair.next() else { panic!() };
    assert_eq!(status, Status::ClosedByPeer);
    assert_eq!(reason, Reason::APP);
}
