//! Channel requests, associations and security through the real engine, inline and queued.

mod common;

use common::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use trunkline::{
    ApiError, Association, AssociationConfig, AssociationEnd, AssociationEvent, AssociationState,
    AuthMethod, Channel, ChannelKind, ChannelOptions, ChannelRequest, ClientAuth, CloseReason,
    Conn, ConnectConfig, Context, DeliveryError, Discontent, DriverChoice, Engine, EngineConfig,
    Event, Handler, Identity, Incoming, OpenRequest, Opened, QueuedEngine, Reason, Received,
    Refused, RequestError, Reuse, SecHandle, SecInfo, Security, SecurityCallback, SecurityChoice,
    SecurityStage, SendSecurity, Status, Trust,
};

/// What happened, for the test.
#[derive(Debug)]
enum Saw {
    Incoming(Vec<u8>),
    Done(OpenRequest, Result<Opened, RequestError>),
    Association(Association, AssociationEvent),
    Message(Association, Vec<u8>, SecInfo),
    Request(String),
    Data(Vec<u8>),
}

type Job = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// Tells a test what happens and does what it posts.
struct Node {
    saw: Sender<Saw>,
    /// Refuse connections over which this message comes.
    discontent: Option<&'static [u8]>,
    /// Answers to channel requests by name; others are declined.
    accept: bool,
}

impl Handler for Node {
    type Command = Job;

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        let _ = self.saw.send(Saw::Incoming(incoming.credential.to_vec()));
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
            let _ = cx.close(conn, 1000, "", None);
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        r: &ChannelRequest<'_>,
    ) {
        let _ = self.saw.send(Saw::Request(r.name.to_owned()));
        if self.accept {
            cx.accept_channel(channel, &ChannelOptions::default()).unwrap();
        } else {
            cx.decline_channel(channel, 1001, "not here").unwrap();
        }
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: Channel, bytes: &[u8]) {
        let _ = self.saw.send(Saw::Data(bytes.to_vec()));
    }

    fn on_request_done(
        &mut self,
        cx: &mut Context<'_>,
        request: OpenRequest,
        outcome: Result<Opened, &RequestError>,
    ) {
        if let Ok(opened) = outcome {
            // Sending from inside takes effect at once.
            cx.send(opened.channel, b"from inside").unwrap();
            cx.flush(opened.channel).unwrap();
        }
        let _ = self.saw.send(Saw::Done(request, outcome.map_err(Clone::clone)));
    }

    fn on_association(&mut self, _: &mut Context<'_>, a: Association, event: &AssociationEvent) {
        let _ = self.saw.send(Saw::Association(a, event.clone()));
    }

    fn on_association_message(
        &mut self,
        _: &mut Context<'_>,
        association: Association,
        message: &[u8],
        info: &SecInfo,
    ) -> Result<(), Discontent> {
        let _ = self.saw.send(Saw::Message(association, message.to_vec(), *info));
        if self.discontent == Some(message) {
            return Err(Discontent { code: 1234, text: "not from you".into() });
        }
        Ok(())
    }

    fn on_command(&mut self, cx: &mut Context<'_>, job: Job) {
        job(cx);
    }
}

struct Side {
    engine: Engine<Node>,
    seen: Receiver<Saw>,
}

impl Side {
    fn start(config: EngineConfig, discontent: Option<&'static [u8]>) -> Self {
        let (saw, seen) = channel();
        let mut node = Some(Node { saw, discontent, accept: true });
        Self { engine: Engine::start(config, |_| node.take().unwrap()).unwrap(), seen }
    }

    fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Context<'_>) -> R + Send + 'static,
    ) -> R {
        let (result, wait) = channel();
        let job: Job = Box::new(move |cx| {
            let _ = result.send(job(cx));
        });
        self.engine.post(0, job).unwrap();
        wait.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn until<T>(&self, what: &str, mut wanted: impl FnMut(Saw) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let saw = self.seen.recv_timeout(left).unwrap_or_else(|_| panic!("never: {what}"));
            if let Some(found) = wanted(saw) {
                return found;
            }
        }
    }

    fn done(&self, request: OpenRequest) -> Result<Opened, RequestError> {
        self.until("an answer", |saw| match saw {
            Saw::Done(r, outcome) if r == request => Some(outcome),
            _ => None,
        })
    }
}

fn signals() -> AssociationConfig {
    AssociationConfig::new("signals")
}

fn pair(driver: DriverChoice) -> (Side, Side, ConnectConfig) {
    pair_with(config(driver), config(driver), None, None)
}

fn pair_with(
    client: EngineConfig,
    host: EngineConfig,
    discontent: Option<&'static [u8]>,
    auth: Option<ClientAuth>,
) -> (Side, Side, ConnectConfig) {
    let identity = identity();
    let host = Side::start(host, discontent);
    let mut listen = listen(&identity);
    listen.client_auth = auth.unwrap_or(ClientAuth::None);
    let listener = host.engine.listen(&listen).unwrap();
    let client = Side::start(client, None);
    (client, host, connect(listener.local_addr, &identity))
}

/// Behaviours §4, "one connection, many channels", through both drivers.
#[test]
fn one_connection_many_channels_by_one_call_each() {
    for driver in drivers() {
        let (client, host, connect) = pair(driver);
        let requests: Vec<OpenRequest> = (0..10)
            .map(|i| {
                let connect = connect.clone();
                let ask = move |cx: &mut Context<'_>| {
                    cx.request_channel(&connect, &format!("file://{i}"), &ChannelOptions::default())
                };
                client.run(ask).unwrap()
            })
            .collect();
        let opened: Vec<Opened> = requests.into_iter().map(|r| client.done(r).unwrap()).collect();
        assert!(opened.iter().all(|o| o.channel.conn() == opened[0].channel.conn()));
        assert_eq!(host.engine.stats().connections(), 1);
        assert_eq!(client.engine.stats().total().connections_opened, 1);
        for _ in 0..10 {
            let data = host.until("data from inside", |saw| match saw {
                Saw::Data(data) => Some(data),
                _ => None,
            });
            assert_eq!(data, b"from inside");
        }
        // A cancelled one is answered once, as cancelled or as granted.
        let c = connect.clone();
        let (request, cancelled) = client.run(move |cx| {
            let request = cx.request_channel(&c, "x", &ChannelOptions::default()).unwrap();
            (request, cx.cancel_request(request))
        });
        assert!(cancelled);
        assert_eq!(client.done(request), Err(RequestError::Cancelled));
        assert!(!client.run(move |cx| cx.cancel_request(request)));
    }
}

/// Behaviours §4, "no callback = decline; one declined leaves the others alone".
#[test]
fn request_without_a_callback_is_declined() {
    struct Deaf;
    impl Handler for Deaf {
        type Command = ();
        fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
            cx.accept(conn).unwrap();
        }
    }
    let identity = identity();
    let host = Engine::start(config(DriverChoice::Mio), |_| Deaf).unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = Side::start(config(DriverChoice::Mio), None);
    let connect = connect(addr, &identity);
    for _ in 0..2 {
        let connect = connect.clone();
        let request = client
            .run(move |cx| cx.request_channel(&connect, "x", &ChannelOptions::default()))
            .unwrap();
        let outcome = client.done(request);
        let Err(RequestError::Declined { code, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(code, Reason::APP_REJECTED.0);
    }
    assert_eq!(client.engine.stats().total().connections_opened, 1, "the connection lives on");
}

/// Behaviours §4, "callbacks: never run under a lock; may open, close, send and destroy from
/// inside": a handler that does all of it in every call.
#[test]
fn callbacks_may_open_close_send_and_destroy_from_inside() {
    struct Busy {
        connect: ConnectConfig,
        rounds: u32,
        done: Sender<u32>,
    }
    impl Busy {
        fn again(&mut self, cx: &mut Context<'_>) {
            self.rounds += 1;
            if self.rounds == 60 {
                let _ = self.done.send(self.rounds);
                return;
            }
            let options = ChannelOptions::default();
            cx.request_channel(&self.connect, &format!("r{}", self.rounds), &options).unwrap();
        }
    }
    impl Handler for Busy {
        type Command = ();
        fn on_command(&mut self, cx: &mut Context<'_>, (): ()) {
            self.again(cx);
        }
        fn on_request_done(
            &mut self,
            cx: &mut Context<'_>,
            _: OpenRequest,
            outcome: Result<Opened, &RequestError>,
        ) {
            if let Ok(opened) = outcome {
                cx.send(opened.channel, b"x").unwrap();
                // Opens, sends on and destroys another one, and now and then the whole connection.
                let conn = opened.channel.conn();
                let other = cx.open_channel(conn, "other", &ChannelOptions::default()).unwrap();
                cx.send(other, b"y").unwrap();
                cx.reset(other, 5).unwrap();
                if self.rounds.is_multiple_of(7) {
                    cx.close(conn, 1000, "from inside", None).unwrap();
                    assert_eq!(cx.send(opened.channel, b"z"), Err(ApiError::InvalidHandle));
                } else {
                    cx.finish(opened.channel).unwrap();
                }
            }
            self.again(cx);
        }
    }
    let identity = identity();
    let host = Side::start(config(DriverChoice::Mio), None);
    let addr = host.engine.listen(&listen(&identity)).unwrap().local_addr;
    let (done, wait) = channel();
    let mut busy = Some(Busy { connect: connect(addr, &identity), rounds: 0, done });
    let client = Engine::start(config(DriverChoice::Mio), |_| busy.take().unwrap()).unwrap();
    client.post(0, ()).unwrap();
    assert_eq!(wait.recv_timeout(Duration::from_secs(20)), Ok(60));
    assert!(client.stats().shards[0].failure.is_none());
}

/// Behaviours §5: an association through the engine; received messages tell their SecInfo.
#[test]
fn associations_queue_connect_and_tell_the_security_of_each_message() {
    for driver in drivers() {
        let auth = ClientAuth::Optional(Trust::DangerousAny);
        let me = identity();
        let mut client = config(driver);
        client.identity = Some(me.clone());
        let (client, host, connect) = pair_with(client, config(driver), None, Some(auth));
        let peer = Some(me.peer_id());
        let listening = host.run(move |cx| cx.listen_association(peer, signals())).unwrap();
        let c = connect.clone();
        let calling = client
            .run(move |cx| {
                let association = cx.associate(&c, signals())?;
                cx.send_message(association, b"queued".to_vec(), 7, Security::Local)?;
                Ok::<_, ApiError>(association)
            })
            .unwrap();
        let info = host.until("the message", |saw| match saw {
            Saw::Message(a, message, info) => {
                assert_eq!((a, message.as_slice()), (listening, &b"queued"[..]));
                Some(info)
            }
            Saw::Request(name) => panic!("asked for {name}"),
            _ => None,
        });
        assert_eq!(info.peer.identity, Some(me.peer_id()));
        assert_eq!(info.peer.method, AuthMethod::DangerousAny);
        let told = client.until("the receipt", |saw| match saw {
            Saw::Association(a, AssociationEvent::Delivered { token: 7 }) => Some(a),
            _ => None,
        });
        assert_eq!(told, calling);
        let ours = client.run(move |cx| cx.association_info(calling)).unwrap();
        assert_eq!(ours.exporter(), info.exporter());
        // By SecInfo: the same security will do, and nothing else.
        let mut weaker = connect.clone();
        weaker.trust = Trust::DangerousAny;
        let refused = client
            .run(move |cx| cx.send_to(&weaker, signals(), b"x".to_vec(), 8, Security::Info(&ours)));
        assert!(matches!(refused, Err(ApiError::NoConnection(_))), "{refused:?}");
        let same = client.run(move |cx| {
            cx.send_to(&connect, signals(), b"again".to_vec(), 9, Security::Info(&ours))
        });
        assert_eq!(same, Ok(calling));
        client.run(move |cx| cx.close_association(calling)).unwrap();
        let end = client.until("the end", |saw| match saw {
            Saw::Association(_, AssociationEvent::State { end, .. }) => end,
            _ => None,
        });
        assert_eq!(end, AssociationEnd::Closed);
        let state = client.run(move |cx| cx.association_state(calling));
        assert_eq!(state, AssociationState::Destroyed);
    }
}

/// Behaviours §5, "receiving: a handler that is not content returns an error and the connection is
/// ended with a reason".
#[test]
fn receiving_a_handler_that_is_not_content_ends_the_connection_with_a_reason() {
    let mio = || config(DriverChoice::Mio);
    let (client, host, connect) = pair_with(mio(), mio(), Some(b"bad"), None);
    host.run(move |cx| cx.listen_association(None, signals())).unwrap();
    client
        .run(move |cx| {
            let a = cx.associate(&connect, signals())?;
            cx.send_message(a, b"good".to_vec(), 1, Security::Local)?;
            cx.send_message(a, b"bad".to_vec(), 2, Security::Local)
        })
        .unwrap();
    let reason = client.until("the end", |saw| match saw {
        Saw::Association(_, AssociationEvent::State { end, .. }) => end,
        _ => None,
    });
    let AssociationEnd::Broken(reason) = reason else { panic!("{reason:?}") };
    assert_eq!((reason.reason, reason.text.as_str()), (Reason(1234), "not from you"));
}

fn with_security(
    callback: impl Fn(&trunkline::SecurityQuery<'_>) -> Result<SecurityChoice, Refused>
    + Send
    + Sync
    + 'static,
) -> EngineConfig {
    EngineConfig { security: Some(SecurityCallback::new(callback)), ..config(DriverChoice::Mio) }
}

/// Behaviours §5, "security callback: … may choose identity, pins and credential", before anything is
/// sent and once the peer is proven.
#[test]
fn security_callback_chooses_identity_pins_and_credential() {
    let (me, asked) = (identity(), Arc::new(Mutex::new(Vec::new())));
    let (chosen, notes, pins) = (me.clone(), asked.clone(), Arc::new(Mutex::new(None)));
    let known = pins.clone();
    let client = with_security(move |query| {
        notes.lock().unwrap().push((query.stage, query.handle, query.info.is_proven()));
        Ok(match query.stage {
            SecurityStage::Beginning => SecurityChoice {
                identity: Some(chosen.clone()),
                trust: known.lock().unwrap().clone(),
                credential: None,
            },
            SecurityStage::PeerProven => SecurityChoice {
                credential: Some(b"for this peer".to_vec()),
                ..SecurityChoice::default()
            },
        })
    });
    let auth = ClientAuth::Required(Trust::Pins(vec![me.peer_id()]));
    let (client, host, connect) = pair_with(client, config(DriverChoice::Mio), None, Some(auth));
    *pins.lock().unwrap() = Some(connect.trust.clone());
    // The connect itself believes nobody that exists.
    let nobody = Trust::Pins(vec![identity().peer_id()]);
    let connect = ConnectConfig { trust: nobody, sec_handle: Some(SecHandle(5)), ..connect };
    let c = connect.clone();
    let request =
        client.run(move |cx| cx.request_channel(&c, "x", &ChannelOptions::default())).unwrap();
    client.done(request).unwrap();
    let credential = host.until("the client", |saw| match saw {
        Saw::Incoming(credential) => Some(credential),
        _ => None,
    });
    assert_eq!(credential, b"for this peer");
    let asked = asked.lock().unwrap().clone();
    let handle = Some(SecHandle(5));
    let expected =
        [(SecurityStage::Beginning, handle, false), (SecurityStage::PeerProven, handle, true)];
    assert_eq!(asked, expected);
}

/// Behaviours §5, "may refuse: the attempt fails as authentication", at both moments.
#[test]
fn security_callback_refuses_at_both_moments() {
    for stage in [SecurityStage::Beginning, SecurityStage::PeerProven] {
        let client = with_security(move |query| {
            if query.stage == stage {
                Err(Refused("no".into()))
            } else {
                Ok(SecurityChoice::default())
            }
        });
        let (client, host, connect) = pair_with(client, config(DriverChoice::Mio), None, None);
        let asked =
            client.run(move |cx| cx.request_channel(&connect, "x", &ChannelOptions::default()));
        if stage == SecurityStage::Beginning {
            assert_eq!(asked, Err(ApiError::Refused("no".into())));
        } else {
            let Err(RequestError::Connection(reason)) = client.done(asked.unwrap()) else {
                panic!("no failure")
            };
            assert_eq!(reason.reason, Reason::AUTHENTICATION);
        }
        assert!(host.seen.try_recv().is_err(), "the host's application heard of it");
    }
}

/// A shutdown answers what is still asked for, and does not wait for it.
#[test]
fn a_shutdown_answers_the_requests_that_are_left() {
    let identity = identity();
    let (saw, seen) = channel();
    let mut silent = Some(Silent);
    let host = Engine::start(config(DriverChoice::Mio), |_| silent.take().unwrap()).unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let mut node = Some(Node { saw, discontent: None, accept: true });
    let engine = Engine::start(config(DriverChoice::Mio), |_| node.take().unwrap()).unwrap();
    let client = Side { engine, seen };
    let connect = connect(addr, &identity);
    let request = client
        .run(move |cx| cx.request_channel(&connect, "x", &ChannelOptions::default()))
        .unwrap();
    wait_until("the connection", || host.stats().connections() == 1);
    let start = Instant::now();
    let report = client.engine.shutdown(Duration::from_secs(5));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(report.connections.len(), 1);
    let outcome = client.done(request);
    let Err(RequestError::Connection(reason)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason.reason, Reason::SHUTDOWN);
}

/// Takes connections and never answers channel requests.
struct Silent;

impl Handler for Silent {
    type Command = ();
    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        cx.accept(conn).unwrap();
    }
    fn on_channel_request(&mut self, _: &mut Context<'_>, _: Channel, _: &ChannelRequest<'_>) {}
}

// ---- queued

struct Queued {
    engine: QueuedEngine,
    got: Mutex<Vec<Received>>,
}

impl Queued {
    fn start(config: EngineConfig) -> Self {
        Self { engine: QueuedEngine::start(config).unwrap(), got: Mutex::default() }
    }

    /// The first event that is wanted; what else came stays for later calls.
    fn until<T>(&self, what: &str, mut wanted: impl FnMut(&Received) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut got = self.got.lock().unwrap();
            let found = got.iter().enumerate().find_map(|(i, r)| wanted(r).map(|f| (i, f)));
            if let Some((i, found)) = found {
                got.remove(i);
                return found;
            }
            assert!(Instant::now() < end, "never: {what}: {got:?}");
            let mut out = Vec::new();
            self.engine.poll_group().recv_many(&mut out, 100, Some(Duration::from_millis(20)));
            got.extend(out);
        }
    }

    fn done(&self, request: u64) -> Result<Opened, RequestError> {
        self.until("an answer", |r| match r {
            Received::Event(Event::RequestDone { request: n, outcome }) if *n == request => {
                Some(outcome.clone())
            }
            _ => None,
        })
    }
}

/// A host that accepts everything and notes what comes.
fn queued_host(identity: &Identity, shards: usize) -> (Arc<Queued>, SocketAddr) {
    let mut config = config(DriverChoice::Mio);
    config.shards = shards;
    let host = Arc::new(Queued::start(config));
    let addr = host.engine.listen(&listen(identity)).unwrap().local_addr;
    (host, addr)
}

fn serve(host: &Arc<Queued>, stop: &Arc<AtomicU32>) -> std::thread::JoinHandle<()> {
    let (host, stop) = (host.clone(), stop.clone());
    std::thread::spawn(move || {
        while stop.load(Ordering::Relaxed) == 0 {
            let mut out = Vec::new();
            host.engine.poll_group().recv_many(&mut out, 100, Some(Duration::from_millis(5)));
            for received in out {
                match &received {
                    Received::Event(Event::Incoming { conn, .. }) => {
                        host.engine.accept(*conn).unwrap();
                    }
                    Received::Event(Event::ChannelRequest { channel, name, .. }) => {
                        if name == "signals" {
                            host.engine.accept_association(*channel, signals(), None).unwrap();
                        } else {
                            host.engine
                                .accept_channel(*channel, &ChannelOptions::default())
                                .unwrap();
                        }
                    }
                    _ => host.got.lock().unwrap().push(received),
                }
            }
        }
    })
}

/// The queued API: requests share one connection, whatever the shard, and each is answered once.
#[test]
fn queued_requests_share_one_connection_and_are_answered_once() {
    let identity = identity();
    let (host, addr) = queued_host(&identity, 2);
    let stop = Arc::new(AtomicU32::new(0));
    let thread = serve(&host, &stop);
    let mut client = config(DriverChoice::Mio);
    client.shards = 2;
    let client = Queued::start(client);
    let connect = connect(addr, &identity);
    let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
    let requests: Vec<u64> = (0..20)
        .map(|i| client.engine.request_channel(&connect, &format!("c{i}"), &options, None).unwrap())
        .collect();
    let mut channels = HashMap::new();
    for request in requests {
        let opened = client.done(request).unwrap();
        client.engine.send(opened.channel, b"hello").unwrap();
        channels.insert(opened.channel, opened);
    }
    assert_eq!(channels.len(), 20);
    let conn = channels.keys().next().unwrap().conn();
    assert!(channels.keys().all(|c| c.conn() == conn));
    for _ in 0..20 {
        let message = host.until("a message", |r| match r {
            Received::Message(m) => Some(m.data.to_vec()),
            Received::Event(_) => None,
        });
        assert_eq!(message, b"hello");
    }
    assert_eq!(host.engine.engine_stats().connections(), 1);
    // The application's own connect finds it, and it is its own from then on.
    assert_eq!(client.engine.connect(&connect, None), Ok(conn));
    assert!(client.engine.sec_info(conn).unwrap().is_proven());
    // A new one can be forced.
    let fresh = ConnectConfig { reuse: Reuse::ForceNew, ..connect.clone() };
    let forced = client.engine.request_channel(&fresh, "forced", &options, None).unwrap();
    assert_ne!(client.done(forced).unwrap().channel.conn(), conn);
    assert_eq!(host.engine.engine_stats().connections(), 2);
    let never = ConnectConfig { reuse: Reuse::NeverNew, trust: Trust::DangerousAny, ..connect };
    let refused = client.engine.request_channel(&never, "x", &options, None);
    assert!(matches!(refused, Err(ApiError::NoConnection(_))), "{refused:?}");
    stop.store(1, Ordering::Relaxed);
    thread.join().unwrap();
}

/// The queued API: a request whose connection dies is asked for again on a new one.
#[test]
fn queued_requests_survive_the_end_of_their_connection() {
    let identity = identity();
    let host = Arc::new(Queued::start(config(DriverChoice::Mio)));
    let addr = host.engine.listen(&listen(&identity)).unwrap().local_addr;
    let client = Queued::start(config(DriverChoice::Mio));
    let connect = connect(addr, &identity);
    let request =
        client.engine.request_channel(&connect, "x", &ChannelOptions::default(), None).unwrap();
    let asked = |what: &str| {
        let conn = host.until(what, |r| match r {
            Received::Event(Event::Incoming { conn, .. }) => Some(*conn),
            _ => None,
        });
        host.engine.accept(conn).unwrap();
        host.until(what, |r| match r {
            Received::Event(Event::ChannelRequest { channel, .. }) => Some(*channel),
            _ => None,
        })
    };
    let first = asked("the first");
    host.engine.close(first.conn(), 1500, "gone", None).unwrap();
    let second = asked("the second");
    host.engine.accept_channel(second, &ChannelOptions::default()).unwrap();
    let opened = client.done(request).unwrap();
    client.engine.send(opened.channel, b"over the second").unwrap();
    let data = host.until("data", |r| match r {
        Received::Event(Event::Data { data, .. }) => Some(data.to_vec()),
        _ => None,
    });
    assert_eq!(data, b"over the second");
}

/// The queued API: associations, their messages and their delivery.
#[test]
fn queued_associations_deliver_and_tell() {
    let identity = identity();
    let (host, addr) = queued_host(&identity, 2);
    let stop = Arc::new(AtomicU32::new(0));
    let thread = serve(&host, &stop);
    let client = Queued::start(config(DriverChoice::Mio));
    let connect = connect(addr, &identity);
    let association = client.engine.associate(&connect, signals(), None).unwrap();
    client.engine.send_message(association, b"one".to_vec(), 1, SendSecurity::Local).unwrap();
    let outcome = |token: u64| {
        client.until("an outcome", |r| match r {
            Received::Event(Event::Association { association: n, event, .. }) => {
                assert_eq!(*n, association);
                match event {
                    AssociationEvent::Delivered { token: t } if *t == token => Some(Ok(())),
                    AssociationEvent::Undelivered { token: t, error } if *t == token => {
                        Some(Err(error.clone()))
                    }
                    _ => None,
                }
            }
            _ => None,
        })
    };
    assert_eq!(outcome(1), Ok(()));
    let there = host.until("the message", |r| match r {
        Received::Message(m) if m.data[..] == b"one"[..] => Some(m.channel),
        _ => None,
    });
    let (at_host, named) = host.until("connected", |r| match r {
        Received::Event(Event::Association { association, channel: Some(channel), event }) => {
            let connected = |s: &AssociationState| *s == AssociationState::Connected;
            match event {
                AssociationEvent::State { new, .. } if connected(new) => {
                    Some((*association, *channel))
                }
                _ => None,
            }
        }
        _ => None,
    });
    assert_eq!(there, named, "messages come on the channel that was told");
    let info = host.engine.sec_info(there.conn()).unwrap();
    host.engine
        .send_message(at_host, b"two".to_vec(), 2, SendSecurity::Info(Box::new(info)))
        .unwrap();
    let back = client.until("the answer", |r| match r {
        Received::Message(m) => Some(m.data.to_vec()),
        Received::Event(_) => None,
    });
    assert_eq!(back, b"two");
    // A SecInfo of somebody else's: that sender alone is told.
    let wanted = SendSecurity::Info(Box::new(info));
    client.engine.send_message(association, b"three".to_vec(), 3, wanted).unwrap();
    assert_eq!(outcome(3), Err(DeliveryError::Security));
    client.engine.send_message(association, b"four".to_vec(), 4, SendSecurity::Local).unwrap();
    assert_eq!(outcome(4), Ok(()));
    client.engine.close_association(association).unwrap();
    let end = client.until("the end", |r| match r {
        Received::Event(Event::Association {
            event: AssociationEvent::State { end, .. }, ..
        }) => end.clone(),
        _ => None,
    });
    assert_eq!(end, AssociationEnd::Closed);
    client.engine.send_message(association, b"five".to_vec(), 5, SendSecurity::Local).unwrap();
    assert_eq!(outcome(5), Err(DeliveryError::Api(ApiError::InvalidHandle)));
    stop.store(1, Ordering::Relaxed);
    thread.join().unwrap();
}

// ---- queued, several shards

type Told = Vec<(AssociationState, Option<AssociationEnd>)>;

/// An application of the queued API, and what it was told of associations.
struct Ear {
    engine: QueuedEngine,
    states: HashMap<u64, Told>,
    outcomes: HashMap<(u64, u64), Vec<Result<(), DeliveryError>>>,
    /// The association of each channel.
    channels: HashMap<Channel, u64>,
    messages: Vec<(Channel, Vec<u8>)>,
    requests: Vec<Channel>,
    /// Requests become associations.
    accepts: bool,
    /// The hold time of these.
    hold: trunkline::Duration,
}

impl Ear {
    fn new(engine: QueuedEngine) -> Self {
        Self {
            engine,
            states: HashMap::new(),
            outcomes: HashMap::new(),
            channels: HashMap::new(),
            messages: Vec::new(),
            requests: Vec::new(),
            accepts: false,
            hold: signals().hold,
        }
    }

    /// On threads of its own.
    fn start(driver: DriverChoice, shards: usize) -> Self {
        let config = EngineConfig { shards, ..config(driver) };
        Self::new(QueuedEngine::start(config).unwrap())
    }

    /// Polled by the test.
    fn local(driver: DriverChoice, identity: Option<Identity>) -> Self {
        let config = EngineConfig { identity, ..config(driver) };
        Self::new(QueuedEngine::local(config).unwrap())
    }

    fn hear(&mut self) {
        let wait = if self.engine.is_threadless() {
            self.engine.poll(Some(Duration::ZERO)).unwrap();
            Duration::ZERO
        } else {
            Duration::from_millis(1)
        };
        let mut out = Vec::new();
        self.engine.poll_group().recv_many(&mut out, 1000, Some(wait));
        for received in out {
            match received {
                Received::Message(m) => self.messages.push((m.channel, m.data.to_vec())),
                Received::Event(Event::Incoming { conn, .. }) => self.engine.accept(conn).unwrap(),
                Received::Event(Event::ChannelRequest { channel, .. }) => {
                    self.requests.push(channel);
                    if self.accepts {
                        let config = AssociationConfig { hold: self.hold, ..signals() };
                        self.engine.accept_association(channel, config, None).unwrap();
                    }
                }
                Received::Event(Event::Association { association, channel, event }) => {
                    self.channels.extend(channel.map(|channel| (channel, association)));
                    self.note(association, event);
                }
                Received::Event(_) => {}
            }
        }
    }

    fn note(&mut self, association: u64, event: AssociationEvent) {
        let (token, outcome) = match event {
            AssociationEvent::State { new, end, .. } => {
                return self.states.entry(association).or_default().push((new, end));
            }
            AssociationEvent::Delivered { token } => (token, Ok(())),
            AssociationEvent::Undelivered { token, error } => (token, Err(error)),
            other => panic!("{other:?}"),
        };
        self.outcomes.entry((association, token)).or_default().push(outcome);
    }

    fn send(&self, association: u64, data: impl Into<Vec<u8>>, token: u64) {
        self.engine.send_message(association, data.into(), token, SendSecurity::Local).unwrap();
    }

    fn is(&self, association: u64, state: AssociationState) -> bool {
        self.states.get(&association).and_then(|s| s.last()).is_some_and(|(s, _)| *s == state)
    }

    /// How it ended. Told once, and last.
    fn end(&self, association: u64) -> Option<AssociationEnd> {
        let told = self.states.get(&association)?;
        let ends = told.iter().filter(|(s, _)| *s == AssociationState::Destroyed).count();
        assert!(ends <= 1 && told.len() <= 3, "{told:?}");
        told.last().and_then(|(_, end)| end.clone())
    }

    /// What became of a message. Told once.
    fn outcome(&self, association: u64, token: u64) -> Option<Result<(), DeliveryError>> {
        let told = self.outcomes.get(&(association, token))?;
        assert_eq!(told.len(), 1, "{told:?}");
        told.first().cloned()
    }

    /// The messages of an association, in order.
    fn heard(&self, association: u64) -> Vec<String> {
        let its =
            |(channel, _): &&(Channel, Vec<u8>)| self.channels.get(channel) == Some(&association);
        let text = |(_, message): &(Channel, Vec<u8>)| String::from_utf8(message.clone()).unwrap();
        self.messages.iter().filter(its).map(text).collect()
    }
}

fn hear_until(what: &str, ears: &mut [Ear], mut done: impl FnMut(&[Ear]) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done(ears) {
        assert!(Instant::now() < end, "never: {what}");
        ears.iter_mut().for_each(Ear::hear);
    }
}

/// What else comes.
fn hear_more(ears: &mut [Ear]) {
    let end = Instant::now() + Duration::from_millis(50);
    while Instant::now() < end {
        ears.iter_mut().for_each(Ear::hear);
    }
}

/// Behaviours §5, associations that listen: taken on every shard, once each, and reached by the number
/// that the call gave, wherever the peer came to.
#[test]
fn queued_listening_takes_peers_on_every_shard() {
    const CLIENTS: usize = 12;
    for driver in drivers() {
        let identity = identity();
        let host = Ear::start(driver, 3);
        let listener = host.engine.listen(&listen(&identity)).unwrap();
        let connect = connect(listener.local_addr, &identity);
        let waiting: Vec<u64> = (0..CLIENTS)
            .map(|_| host.engine.listen_association(None, signals(), None).unwrap())
            .collect();
        for number in &waiting {
            host.send(*number, "welcome", 1);
        }
        let mut ears = vec![host];
        ears.extend((0..CLIENTS).map(|_| Ear::local(driver, None)));
        let calling: Vec<u64> = ears[1..]
            .iter()
            .enumerate()
            .map(|(i, client)| {
                let number = client.engine.associate(&connect, signals(), None).unwrap();
                client.send(number, format!("{i}"), 1);
                number
            })
            .collect();
        let said = |ear: &Ear, n: u64, token: u64| ear.outcome(n, token) == Some(Ok(()));
        hear_until("all are connected", &mut ears, |ears| {
            waiting.iter().all(|n| said(&ears[0], *n, 1) && ears[0].heard(*n).len() == 1)
                && calling.iter().zip(&ears[1..]).all(|(n, ear)| said(ear, *n, 1))
        });
        let shards: std::collections::BTreeSet<u8> =
            ears[0].channels.keys().map(|c| c.conn().shard()).collect();
        assert!(shards.len() > 1, "all came to {shards:?}");
        assert_eq!((ears[0].channels.len(), ears[0].requests.len()), (CLIENTS, 0));
        // Who is where.
        let client_of = |ears: &[Ear], n: u64| ears[0].heard(n)[0].parse::<usize>().unwrap();
        let mut clients: Vec<usize> = waiting.iter().map(|n| client_of(&ears, *n)).collect();
        for (number, client) in waiting.iter().zip(&clients) {
            for i in 0..20 {
                ears[0].send(*number, format!("{client} {i}"), 2 + i);
            }
        }
        hear_until("the answers", &mut ears, |ears| {
            waiting.iter().all(|n| (2..22).all(|token| said(&ears[0], *n, token)))
                && ears[1..].iter().all(|ear| ear.messages.len() == 21)
        });
        for (i, (number, ear)) in calling.iter().zip(&ears[1..]).enumerate() {
            let mut expected = vec!["welcome".to_owned()];
            expected.extend((0..20).map(|k| format!("{i} {k}")));
            assert_eq!(ear.heard(*number), expected, "in order");
        }
        // Half are ended here, half by their peers.
        for (number, client) in waiting.iter().zip(&clients) {
            if client % 2 == 0 {
                ears[0].engine.close_association(*number).unwrap();
            } else {
                ears[1 + client].engine.close_association(calling[*client]).unwrap();
            }
        }
        hear_until("the ends", &mut ears, |ears| {
            waiting.iter().all(|n| ears[0].end(*n).is_some())
                && calling.iter().zip(&ears[1..]).all(|(n, ear)| ear.end(*n).is_some())
        });
        for number in &waiting {
            ears[0].send(*number, "too late", 100);
        }
        hear_until("the answers", &mut ears, |ears| {
            waiting.iter().all(|n| ears[0].outcome(*n, 100).is_some())
        });
        hear_more(&mut ears);
        for (number, client) in waiting.iter().zip(&clients) {
            let (ours, theirs) = (AssociationEnd::Closed, AssociationEnd::ClosedByPeer);
            let here = if client % 2 == 0 { (&ours, &theirs) } else { (&theirs, &ours) };
            assert_eq!(ears[0].end(*number).as_ref(), Some(here.0));
            assert_eq!(ears[1 + client].end(calling[*client]).as_ref(), Some(here.1));
            let late = Some(Err(DeliveryError::Api(ApiError::InvalidHandle)));
            assert_eq!(ears[0].outcome(*number, 100), late);
        }
        clients.sort_unstable();
        assert_eq!(clients, (0..CLIENTS).collect::<Vec<_>>(), "each was taken once");
        // Nobody waits any more: the application is asked.
        ears[1].engine.associate(&connect, signals(), None).unwrap();
        hear_until("a request", &mut ears, |ears| ears[0].requests.len() == 1);
        // Nor when what waited was closed.
        let unwanted = ears[0].engine.listen_association(None, signals(), None).unwrap();
        ears[0].engine.close_association(unwanted).unwrap();
        ears[2].engine.associate(&connect, signals(), None).unwrap();
        hear_until("a request", &mut ears, |ears| ears[0].requests.len() == 2);
        hear_until("the end", &mut ears, |ears| ears[0].end(unwanted).is_some());
        assert_eq!(ears[0].end(unwanted), Some(AssociationEnd::Closed));
        let last = ears[0].requests[1];
        let made = ears[0].engine.accept_association(last, signals(), None).unwrap();
        hear_until("it is", &mut ears, |ears| ears[0].is(made, AssociationState::Connected));
    }
}

/// The same, for a peer that is named, and for one that does not come.
#[test]
fn queued_listening_waits_for_whom_it_is_told_and_not_for_ever() {
    for driver in drivers() {
        let (identity, me) = (identity(), identity());
        let host = Ear::start(driver, 3);
        let mut listen = listen(&identity);
        listen.client_auth = ClientAuth::Optional(Trust::DangerousAny);
        let connect = connect(host.engine.listen(&listen).unwrap().local_addr, &identity);
        let short = || AssociationConfig {
            no_connection: trunkline::Duration::from_millis(100),
            ..signals()
        };
        let alone = host.engine.listen_association(None, short(), None).unwrap();
        host.send(alone, "for nobody", 1);
        let mut ears = vec![host, Ear::local(driver, None), Ear::local(driver, Some(me.clone()))];
        hear_until("the end", &mut ears, |ears| ears[0].end(alone).is_some());
        assert_eq!(ears[0].end(alone), Some(AssociationEnd::NoConnection));
        let gone = Some(Err(DeliveryError::Ended(AssociationEnd::NoConnection)));
        assert_eq!(ears[0].outcome(alone, 1), gone);
        let peer = Some(me.peer_id());
        let waiting = ears[0].engine.listen_association(peer, signals(), None).unwrap();
        ears[1].engine.associate(&connect, signals(), None).unwrap();
        hear_until("a request", &mut ears, |ears| ears[0].requests.len() == 1);
        let mine = ears[2].engine.associate(&connect, signals(), None).unwrap();
        hear_until("it is connected", &mut ears, |ears| {
            ears[0].is(waiting, AssociationState::Connected)
                && ears[2].is(mine, AssociationState::Connected)
        });
        hear_more(&mut ears);
        assert_eq!(ears[0].requests.len(), 1);
    }
}

/// The same while it is closed at the very moment in which its peer comes: it is taken or it is not,
/// and nothing is told twice or not at all.
#[test]
fn queued_listening_is_taken_or_closed_but_not_both() {
    const ROUNDS: u64 = 60;
    for driver in drivers() {
        let identity = identity();
        let host = Ear::start(driver, 3);
        let connect =
            connect(host.engine.listen(&listen(&identity)).unwrap().local_addr, &identity);
        let mut ears = vec![host];
        ears.extend((0..4).map(|_| Ear::start(driver, 1)));
        // The connections stand: what follows is a matter of microseconds.
        for i in 1..ears.len() {
            let conn = ears[i].engine.connect(&connect, None).unwrap();
            hear_until("a connection", &mut ears, |ears| {
                ears[i].engine.status(conn) == Status::Connected
            });
        }
        let (mut taken, mut asked) = (0, 0);
        for round in 0..ROUNDS {
            let client = 1 + (round % 4) as usize;
            let waiting = ears[0].engine.listen_association(None, signals(), None).unwrap();
            ears[0].send(waiting, "early", 1);
            let calling = ears[client].engine.associate(&connect, signals(), None).unwrap();
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(round * 10) {
                std::hint::spin_loop();
            }
            ears[0].send(waiting, "late", 2);
            ears[0].engine.close_association(waiting).unwrap();
            ears[0].send(waiting, "too late", 3);
            hear_until("the ends", &mut ears, |ears| {
                if ears[0].requests.len() > asked {
                    // Not taken: this ends the client's.
                    asked = ears[0].requests.len();
                    let channel = ears[0].requests[asked - 1];
                    ears[0].engine.decline_channel(channel, 1001, "no").unwrap();
                }
                ears[0].end(waiting).is_some()
                    && ears[client].end(calling).is_some()
                    && (1..=3).all(|token| ears[0].outcome(waiting, token).is_some())
            });
            assert_eq!(ears[0].end(waiting), Some(AssociationEnd::Closed));
            let was_taken = ears[0].states[&waiting].len() > 1;
            taken += usize::from(was_taken);
            let delivered = if was_taken { Ok(()) } else { Err(()) };
            for token in 1..=2 {
                let outcome = ears[0].outcome(waiting, token).unwrap();
                assert_eq!(outcome.map_err(|_| ()), delivered, "{token}");
            }
            let late = Some(Err(DeliveryError::Api(ApiError::InvalidHandle)));
            assert_eq!(ears[0].outcome(waiting, 3), late);
            let heard = ears[client].heard(calling);
            assert_eq!(heard, if was_taken { vec!["early", "late"] } else { Vec::new() });
        }
        println!("{driver}: {taken} of {ROUNDS} were taken, {asked} were not");
        assert_eq!(taken + asked, ROUNDS as usize);
    }
}

/// Closed at the very moment in which nobody has come in time: one of the two is told, once.
#[test]
fn queued_listening_in_vain_or_closed_but_not_both() {
    for driver in drivers() {
        let config =
            AssociationConfig { no_connection: trunkline::Duration::from_millis(1), ..signals() };
        let mut ears = [Ear::start(driver, 2)];
        let mut closed = 0;
        for round in 0..200 {
            let waiting = ears[0].engine.listen_association(None, config.clone(), None).unwrap();
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(900 + round * 2) {
                std::hint::spin_loop();
            }
            ears[0].engine.close_association(waiting).unwrap();
            hear_until("an end", &mut ears, |ears| ears[0].end(waiting).is_some());
            closed += u32::from(ears[0].end(waiting) == Some(AssociationEnd::Closed));
        }
        println!("{driver}: {closed} of 200 were closed");
        hear_more(&mut ears);
        assert!(ears[0].states.keys().all(|number| ears[0].end(*number).is_some()));
    }
}

/// What still waits for a peer when the engine ends has waited long enough.
#[test]
fn queued_listening_ends_with_the_engine() {
    for driver in drivers() {
        let mut ear = Ear::start(driver, 2);
        let waiting: Vec<u64> =
            (0..4).map(|_| ear.engine.listen_association(None, signals(), None).unwrap()).collect();
        for number in &waiting {
            ear.send(*number, "for nobody", 1);
        }
        let _ = ear.engine.shutdown(Duration::from_millis(10)).unwrap();
        hear_more(std::slice::from_mut(&mut ear));
        for number in waiting {
            assert_eq!(ear.end(number), Some(AssociationEnd::NoConnection));
            let gone = Some(Err(DeliveryError::Ended(AssociationEnd::NoConnection)));
            assert_eq!(ear.outcome(number, 1), gone);
        }
    }
}

// ---- queued, sending to a peer

fn send_to(
    ear: &Ear,
    connect: &ConnectConfig,
    text: &str,
    token: u64,
    security: SendSecurity,
) -> Result<u64, ApiError> {
    ear.engine.send_to(connect, signals(), text.as_bytes().to_vec(), token, security, None)
}

/// Behaviours §5, sending with nothing: any thread, one association, one connection.
#[test]
fn queued_send_to_makes_what_it_needs_and_uses_it_again() {
    const THREADS: u64 = 4;
    const EACH: u64 = 50;
    for driver in drivers() {
        let identity = identity();
        let mut host = Ear::start(driver, 3);
        host.accepts = true;
        let connect =
            connect(host.engine.listen(&listen(&identity)).unwrap().local_addr, &identity);
        let client = Ear::start(driver, 2);
        let numbers: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|t| {
                    let (client, connect) = (&client, &connect);
                    scope.spawn(move || {
                        let send = |i| {
                            let text = format!("{t} {i}");
                            send_to(client, connect, &text, t * EACH + i, SendSecurity::Local)
                        };
                        (0..EACH).map(|i| send(i).unwrap()).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let number = numbers[0];
        assert!(numbers.iter().all(|n| *n == number));
        let mut ears = vec![host, client];
        hear_until("all of it", &mut ears, |ears| {
            (0..THREADS * EACH).all(|token| ears[1].outcome(number, token).is_some())
                && ears[0].messages.len() as u64 == THREADS * EACH
        });
        for token in 0..THREADS * EACH {
            assert_eq!(ears[1].outcome(number, token), Some(Ok(())));
        }
        let at_host = *ears[0].channels.values().next().unwrap();
        for t in 0..THREADS {
            let mine = format!("{t} ");
            let heard: Vec<String> =
                ears[0].heard(at_host).into_iter().filter(|m| m.starts_with(&mine)).collect();
            let expected: Vec<String> = (0..EACH).map(|i| format!("{t} {i}")).collect();
            assert_eq!(heard, expected, "in the order of each thread");
        }
        assert_eq!(ears[0].engine.engine_stats().connections(), 1);
        // It is what an associate finds, and what is sent over by its number.
        assert_eq!(ears[1].engine.associate(&connect, signals(), None), Ok(number));
        ears[1].send(number, "by number", 1000);
        let other = AssociationConfig::new("other");
        let second = ears[1].engine.associate(&connect, other, None).unwrap();
        assert_ne!(second, number);
        hear_until("it", &mut ears, |ears| ears[1].outcome(number, 1000) == Some(Ok(())));
        // Closed: what is sent next goes over another one, with the same connection.
        ears[1].engine.close_association(number).unwrap();
        let next = send_to(&ears[1], &connect, "next", 1001, SendSecurity::Local).unwrap();
        assert_ne!(next, number);
        hear_until("it", &mut ears, |ears| {
            ears[1].outcome(next, 1001) == Some(Ok(())) && ears[1].end(number).is_some()
        });
        assert_eq!(ears[1].end(number), Some(AssociationEnd::Closed));
        assert_eq!(ears[0].engine.engine_stats().connections(), 1);
        // Another that is forced is what is found from then on, while the first lives.
        let fresh = ConnectConfig { reuse: Reuse::ForceNew, ..connect.clone() };
        let forced = send_to(&ears[1], &fresh, "forced", 1002, SendSecurity::Local).unwrap();
        let found = send_to(&ears[1], &connect, "found", 1003, SendSecurity::Local).unwrap();
        assert!(forced != next && found == forced);
        hear_until("it", &mut ears, |ears| {
            ears[1].outcome(found, 1003) == Some(Ok(())) && !ears[1].states[&next].is_empty()
        });
        assert_eq!(ears[0].engine.engine_stats().connections(), 2);
        ears[1].engine.close_association(forced).unwrap();
        let again = send_to(&ears[1], &connect, "again", 1004, SendSecurity::Local);
        assert_eq!(again, Ok(next));
        hear_until("it", &mut ears, |ears| ears[1].outcome(next, 1004) == Some(Ok(())));
    }
}

/// Errors are told at once where they are known, and as events where the shard finds out: one for each
/// message.
#[test]
fn queued_send_to_tells_what_goes_wrong_once() {
    for driver in drivers() {
        let identity = identity();
        let host = Ear::start(driver, 2);
        let connect =
            connect(host.engine.listen(&listen(&identity)).unwrap().local_addr, &identity);
        let client = Ear::start(driver, 2);
        let never = ConnectConfig { reuse: Reuse::NeverNew, ..connect.clone() };
        let refused = send_to(&client, &never, "x", 1, SendSecurity::Local);
        assert!(matches!(refused, Err(ApiError::NoConnection(_))), "{refused:?}");
        let long = vec![0; (16 << 20) + 1];
        let refused =
            client.engine.send_to(&connect, signals(), long, 2, SendSecurity::Local, None);
        assert!(matches!(refused, Err(ApiError::MessageTooLarge { .. })), "{refused:?}");
        let bad = AssociationConfig { queue_messages: 0, ..signals() };
        let refused =
            client.engine.send_to(&connect, bad, b"x".to_vec(), 3, SendSecurity::Local, None);
        assert!(matches!(refused, Err(ApiError::InvalidArgument { .. })), "{refused:?}");
        assert_eq!(host.engine.engine_stats().connections(), 0, "nothing was sent");
        // The queue of an association is bounded, and the third finds it full; nobody answers.
        let mut ears = vec![host, client];
        let small = || AssociationConfig { queue_messages: 2, ..signals() };
        let send = |ears: &[Ear], token: u64| {
            let text = format!("{token}").into_bytes();
            ears[1].engine.send_to(&connect, small(), text, token, SendSecurity::Local, None)
        };
        let number = send(&ears, 4).unwrap();
        assert_eq!((send(&ears, 5), send(&ears, 6)), (Ok(number), Ok(number)));
        hear_until("what is full", &mut ears, |ears| ears[1].outcome(number, 6).is_some());
        let full = ears[1].outcome(number, 6);
        let Some(Err(DeliveryError::Api(ApiError::WouldBlock(_)))) = full else {
            panic!("{full:?}")
        };
        hear_until("a request", &mut ears, |ears| ears[0].requests.len() == 1);
        assert_eq!((ears[1].outcome(number, 4), ears[1].outcome(number, 5)), (None, None));
        let asked = ears[0].requests[0];
        ears[0].engine.decline_channel(asked, 1001, "not here").unwrap();
        hear_until("the end", &mut ears, |ears| ears[1].end(number).is_some());
        let declined =
            AssociationEnd::Failed(RequestError::Declined { code: 1001, text: "not here".into() });
        assert_eq!(ears[1].end(number), Some(declined.clone()));
        for token in [4, 5] {
            let outcome = ears[1].outcome(number, token);
            assert_eq!(outcome, Some(Err(DeliveryError::Ended(declined.clone()))));
        }
        // The next makes another one, which breaks with its connection.
        let next = send(&ears, 7).unwrap();
        assert_ne!(next, number);
        hear_until("a request", &mut ears, |ears| ears[0].requests.len() == 2);
        let asked = ears[0].requests[1];
        ears[0].engine.accept_association(asked, signals(), None).unwrap();
        hear_until("it", &mut ears, |ears| ears[1].outcome(next, 7) == Some(Ok(())));
        ears[0].engine.close(asked.conn(), 1500, "gone", None).unwrap();
        hear_until("the end", &mut ears, |ears| ears[1].end(next).is_some());
        let end = ears[1].end(next);
        let Some(AssociationEnd::Broken(reason)) = end else { panic!("{end:?}") };
        assert_eq!(reason.reason, Reason(1500));
        // And then one over a new connection.
        ears[0].accepts = true;
        let last = send(&ears, 8).unwrap();
        hear_until("it", &mut ears, |ears| ears[1].outcome(last, 8) == Some(Ok(())));
        assert!(last != next && last != number);
    }
}

/// Behaviours §5, sending with a SecInfo: only over a connection that is there and matches, and who
/// sends with other wishes meanwhile is not affected.
#[test]
fn queued_send_to_with_sec_info_goes_over_a_match_only() {
    for driver in drivers() {
        let identity = identity();
        let mut host = Ear::start(driver, 2);
        host.accepts = true;
        let connect =
            connect(host.engine.listen(&listen(&identity)).unwrap().local_addr, &identity);
        let client = Ear::start(driver, 2);
        let mut ears = vec![host, client];
        let conn = ears[1].engine.connect(&connect, None).unwrap();
        hear_until("a connection", &mut ears, |ears| {
            ears[1].engine.status(conn) == Status::Connected
        });
        let info = ears[1].engine.sec_info(conn).unwrap();
        let by_info = |info: &SecInfo| SendSecurity::Info(Box::new(*info));
        // There is none of this security.
        let weaker = ConnectConfig { trust: Trust::DangerousAny, ..connect.clone() };
        let refused = send_to(&ears[1], &weaker, "x", 1, by_info(&info));
        assert!(matches!(refused, Err(ApiError::NoConnection(_))), "{refused:?}");
        // There is a connection, but what is wanted is something else; the next one does not mind.
        let mut other = info;
        other.role = info.role.peer();
        let first = send_to(&ears[1], &connect, "not this", 2, by_info(&other)).unwrap();
        let second = send_to(&ears[1], &connect, "this", 3, SendSecurity::Local).unwrap();
        let third = send_to(&ears[1], &connect, "and this", 4, by_info(&info)).unwrap();
        let fourth = send_to(&ears[1], &connect, "not this", 5, by_info(&other)).unwrap();
        hear_until("what became of them", &mut ears, |ears| {
            [(first, 2), (second, 3), (third, 4), (fourth, 5)]
                .iter()
                .all(|(n, token)| ears[1].outcome(*n, *token).is_some())
        });
        hear_until("the messages", &mut ears, |ears| ears[0].messages.len() == 2);
        for (number, token) in [(first, 2), (fourth, 5)] {
            let outcome = ears[1].outcome(number, token);
            let Some(Err(DeliveryError::Api(ApiError::NoConnection(_)))) = outcome else {
                panic!("{outcome:?}")
            };
        }
        assert_eq!(ears[1].outcome(second, 3), Some(Ok(())));
        assert_eq!(ears[1].outcome(third, 4), Some(Ok(())));
        assert!(second == third && third == fourth);
        let at_host = *ears[0].channels.values().next().unwrap();
        assert_eq!(ears[0].heard(at_host), ["this", "and this"]);
        assert_eq!(ears[1].end(second), None, "the association lives on");
        // Where none can be made, the number ends, and the next call gets another.
        ears[1].engine.close_association(second).unwrap();
        hear_until("the end", &mut ears, |ears| ears[1].end(second).is_some());
        let none = send_to(&ears[1], &connect, "not this", 6, by_info(&other)).unwrap();
        hear_until("the end", &mut ears, |ears| ears[1].end(none).is_some());
        let end = ears[1].end(none);
        let Some(AssociationEnd::Failed(RequestError::Api(ApiError::NoConnection(_)))) = end else {
            panic!("{end:?}")
        };
        assert!(ears[1].outcome(none, 6).is_some_and(|o| o.is_err()));
        let last = send_to(&ears[1], &connect, "last", 7, by_info(&info)).unwrap();
        hear_until("it", &mut ears, |ears| ears[1].outcome(last, 7) == Some(Ok(())));
        assert!(last != none);
        hear_until("it", &mut ears, |ears| ears[0].messages.len() == 3);
        assert_eq!(ears[0].engine.engine_stats().connections(), 1);
    }
}

/// Behaviours §5, sending with a SecHandle: the callback is given it, and may refuse.
#[test]
fn queued_send_to_with_a_handle_asks_the_callback() {
    for driver in drivers() {
        let identity = identity();
        let mut host = Ear::start(driver, 2);
        host.accepts = true;
        let connect =
            connect(host.engine.listen(&listen(&identity)).unwrap().local_addr, &identity);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = asked.clone();
        let callback = SecurityCallback::new(move |query: &trunkline::SecurityQuery<'_>| {
            notes.lock().unwrap().push((query.stage, query.handle));
            if query.handle == Some(SecHandle(9)) {
                return Err(Refused("not nine".into()));
            }
            Ok(SecurityChoice::default())
        });
        let config = EngineConfig { security: Some(callback), shards: 2, ..config(driver) };
        let client = Ear::new(QueuedEngine::start(config).unwrap());
        let nine = send_to(&client, &connect, "x", 1, SendSecurity::Handle(SecHandle(9)));
        assert_eq!(nine, Err(ApiError::Refused("not nine".into())));
        asked.lock().unwrap().clear();
        let mut ears = vec![host, client];
        let five = SendSecurity::Handle(SecHandle(5));
        let number = send_to(&ears[1], &connect, "five", 2, five.clone()).unwrap();
        hear_until("it", &mut ears, |ears| ears[1].outcome(number, 2) == Some(Ok(())));
        let handle = Some(SecHandle(5));
        let expected = [(SecurityStage::Beginning, handle), (SecurityStage::PeerProven, handle)];
        assert_eq!(*asked.lock().unwrap(), expected);
        // The same handle finds the same one; another handle has a connection of its own.
        assert_eq!(send_to(&ears[1], &connect, "five", 3, five), Ok(number));
        let six = SendSecurity::Handle(SecHandle(6));
        let other = send_to(&ears[1], &connect, "six", 4, six).unwrap();
        assert_ne!(other, number);
        hear_until("them", &mut ears, |ears| {
            ears[1].outcome(number, 3) == Some(Ok(())) && ears[1].outcome(other, 4) == Some(Ok(()))
        });
        assert_eq!(ears[0].engine.engine_stats().connections(), 2);
    }
}

/// A message that is sent just when both sides have found their connection idle goes over it or over
/// another one.
#[test]
fn queued_send_to_at_the_end_of_an_idle_connection_is_delivered() {
    const ROUNDS: u64 = 60;
    for driver in drivers() {
        let identity = identity();
        let mut host = Ear::start(driver, 2);
        (host.accepts, host.hold) = (true, trunkline::Duration::from_millis(10));
        let connect =
            connect(host.engine.listen(&listen(&identity)).unwrap().local_addr, &identity);
        let client = Ear::start(driver, 2);
        let mut ears = vec![host, client];
        let short =
            || AssociationConfig { hold: trunkline::Duration::from_millis(10), ..signals() };
        let mut numbers = std::collections::BTreeSet::new();
        for token in 0..ROUNDS {
            let security = SendSecurity::Local;
            let number = ears[1]
                .engine
                .send_to(&connect, short(), vec![token as u8], token, security, None)
                .unwrap();
            numbers.insert(number);
            hear_until("what became of it", &mut ears, |ears| {
                ears[1].outcome(number, token).is_some()
            });
            assert_eq!(ears[1].outcome(number, token), Some(Ok(())), "{driver}: {token}");
            // Around twice the hold time after the last sign of life.
            let end = Instant::now() + Duration::from_micros(token * 150);
            while Instant::now() < end {
                ears.iter_mut().for_each(Ear::hear);
            }
        }
        println!("{driver}: {} associations for {ROUNDS} messages", numbers.len());
        assert_eq!(ears[0].messages.len() as u64, ROUNDS);
    }
}
