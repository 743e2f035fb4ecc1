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
