//! Partners that get a connection of their own over a real event source, and what others can do
//! about it: nothing.

mod common;

use common::source::*;
use common::*;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use trunkline::rendezvous::{
    Abort, Notice, PairingRole, PairingState, PeerConfig, PeerLink, RELAY_CHANNEL, RouteConfig,
    Session, SessionConfig,
};
use trunkline::{
    Channel, ChannelEnd, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, Conn, ConnInfo,
    ConnectionConfig, Context, DriverChoice, Engine, Event, Handler, Identity, Incoming, PeerId,
    QueuedEngine, Reason, Received, Role, Status, StunPacket,
};
use trunkline_proto::rendezvous::relay;

const SESSION_TIMER: u64 = 1;
const LINK_TIMER: u64 = 2;
/// The link is seen to so often.
const AGAIN_TIMER: u64 = 3;
const AGAIN: trunkline::Duration = trunkline::Duration::from_millis(50);
const LINES: &str = "lines";

/// What has happened at a client.
#[derive(Default)]
struct Seen {
    state: Option<PairingState>,
    aborted: Option<Abort>,
    /// Who asked for a connection.
    offered: Vec<Option<PeerId>>,
    /// What became of connections of the link, and why they ended.
    statuses: Vec<(Status, Option<CloseReason>)>,
    /// What was said on channels of the link.
    lines: Vec<Vec<u8>>,
    /// Channels that were asked for.
    requests: usize,
    /// Packets that came by way of the event source.
    packets: Vec<Vec<u8>>,
}

/// A client with a pairing and a link to one peer.
struct Talker {
    session: Session,
    link: PeerLink,
    role: PairingRole,
    /// Whom the link is to lead to, while there is to be one.
    wanted: Option<PeerId>,
    /// It hears where its partner can be reached.
    finds: bool,
    line: Option<Channel>,
    seen: Arc<Mutex<Seen>>,
}

type Call = Box<dyn FnOnce(&mut Talker, &mut Context<'_>) + Send>;

impl Talker {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn is_link(&self, conn: Conn) -> bool {
        self.link.conn() == Some(conn)
    }

    /// Deals with what came of a call of the session.
    fn after(&mut self, cx: &mut Context<'_>) {
        while let Some(notice) = self.session.poll_notice() {
            if !self.finds && matches!(notice, Notice::Route { .. }) {
                continue;
            }
            if self.link.on_notice(cx, &mut self.session, &notice) {
                continue;
            }
            match notice {
                Notice::State { new, .. } => self.seen().state = Some(new),
                Notice::Aborted(reason) => self.seen().aborted = Some(reason),
                _ => {}
            }
        }
        self.link.pump(cx, &mut self.session);
    }

    fn see_to_link(&mut self, cx: &mut Context<'_>) {
        let Some(id) = self.wanted else { return };
        if self.session.pairing().state() == PairingState::Interacting {
            // Until packets are relayed it is an error.
            match self.role {
                PairingRole::Controller => drop(self.link.connect(cx, &mut self.session, id)),
                PairingRole::Responder => {
                    drop(self.link.accept(cx, &mut self.session, id));
                }
            }
        }
    }

    fn info(&self, cx: &Context<'_>) -> Option<ConnInfo> {
        self.link.conn().and_then(|conn| cx.info(conn))
    }
}

impl Handler for Talker {
    type Command = Call;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        cx.set_timer(AGAIN, AGAIN_TIMER);
    }

    fn on_command(&mut self, cx: &mut Context<'_>, call: Call) {
        call(self, cx);
        self.after(cx);
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        self.seen().offered.push(incoming.peer);
        assert!(self.link.on_incoming(cx, conn, incoming), "there is nobody else");
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        if !self.is_link(conn) {
            self.session.on_status(cx, conn, new, reason);
            return self.after(cx);
        }
        self.seen().statuses.push((new, reason.cloned()));
        match new {
            Status::Connected if self.role == PairingRole::Controller => {
                let kind = ChannelKind::Messages;
                let options = ChannelOptions { kind, no_delay: true, ..ChannelOptions::default() };
                let _ = cx.open_channel(conn, LINES, &options);
            }
            Status::ClosedByPeer | Status::ProblemDetectedLocally => self.line = None,
            _ => {}
        }
        assert!(self.link.on_status(cx, &mut self.session, conn, new));
        self.after(cx);
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        self.seen().requests += 1;
        assert!(self.is_link(channel.conn()), "a channel of a connection that was not accepted");
        cx.accept_channel(channel, &request.options).unwrap();
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if self.is_link(channel.conn()) {
            self.line = Some(channel);
        } else {
            self.session.on_channel_ready(cx, channel);
            self.after(cx);
        }
    }

    fn on_channel_closed(&mut self, cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        self.line.take_if(|line| *line == channel);
        self.session.on_channel_closed(cx, channel, end);
        self.after(cx);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, channel: Channel, _: ChannelKind, m: &[u8]) {
        if self.is_link(channel.conn()) {
            return self.seen().lines.push(m.to_vec());
        }
        if self.session.relay_channel() == Some(channel) {
            let read = relay::decode(m).expect("what the event source sends");
            self.seen().packets.push(read.packet.to_vec());
        }
        self.session.on_message(cx, channel, m);
        self.after(cx);
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.session.on_writable(cx, channel);
    }

    fn on_path(&mut self, cx: &mut Context<'_>, conn: Conn, remote: std::net::SocketAddr, r: bool) {
        self.link.on_path(cx, &mut self.session, conn, (remote, r));
    }

    fn on_path_failed(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        socket: u16,
        remote: std::net::SocketAddr,
    ) {
        self.link.on_path_failed(cx, &mut self.session, conn, (socket, remote));
    }

    fn on_stun(&mut self, cx: &mut Context<'_>, packet: StunPacket) {
        self.link.on_stun(cx, &mut self.session, &packet);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        match token {
            SESSION_TIMER => drop(self.session.on_timer(cx, token)),
            LINK_TIMER => drop(self.link.on_timer(cx, &mut self.session, token)),
            _ => {
                self.see_to_link(cx);
                cx.set_timer(AGAIN, AGAIN_TIMER);
            }
        }
        self.after(cx);
    }
}

/// A client with an engine of its own.
struct Peer {
    engine: Engine<Talker>,
    seen: Arc<Mutex<Seen>>,
    id: PeerId,
}

/// How a client is made.
#[derive(Clone)]
struct Made<'a> {
    source: &'a Source,
    driver: DriverChoice,
    name: &'static str,
    role: PairingRole,
    identity: Identity,
    /// Whether it looks for direct paths.
    finds: bool,
}

impl<'a> Made<'a> {
    fn new(
        source: &'a Source,
        driver: DriverChoice,
        name: &'static str,
        role: PairingRole,
    ) -> Self {
        Self { source, driver, name, role, identity: identity(), finds: true }
    }

    /// Active, and under its name.
    fn start(self) -> Peer {
        let config = SessionConfig {
            source: self.source.connect(),
            role: self.role,
            pairing: fast_pairing(),
            timer: SESSION_TIMER,
            relay: true,
        };
        let mut route = RouteConfig::default();
        if !self.finds {
            route.relay_after = trunkline::Duration::from_millis(50);
        }
        let link = PeerConfig {
            // An attempt with somebody else does not go on for long.
            connection: Some(ConnectionConfig {
                initial_timeout: trunkline::Duration::from_secs(3),
                ..common::connection()
            }),
            route,
            ..PeerConfig::new(self.identity.clone(), LINK_TIMER)
        };
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut talker = Some(Talker {
            session: Session::new(config).unwrap(),
            link: PeerLink::new(link),
            role: self.role,
            wanted: None,
            finds: self.finds,
            line: None,
            seen: seen.clone(),
        });
        let engine = engine_config(self.driver, 1);
        let engine = Engine::start(engine, |_| talker.take().expect("one shard")).unwrap();
        let peer = Peer { engine, seen, id: self.identity.peer_id() };
        let name = client(self.name);
        peer.call(move |talker, cx| {
            let session = &mut talker.session;
            session.call(cx, |p, now| p.assign_client_id(now, Some(name))).unwrap();
            session.call(cx, |p, now| p.assign_access_token(now, Some(token("app", "*"))));
            session.call(cx, |p, now| p.set_active(now, true));
        });
        peer
    }
}

impl Peer {
    fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Talker, &mut Context<'_>) -> R + Send + 'static,
    ) -> R {
        let (reply, answer) = channel();
        let call: Call = Box::new(move |talker, cx| reply.send(f(talker, cx)).unwrap());
        assert!(self.engine.post(0, call).is_ok());
        answer.recv_timeout(Duration::from_secs(20)).expect("the engine answers")
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// How often it was offered a connection, a link of its own had another status, a line was
    /// heard, and a channel was asked for.
    fn counts(&self) -> [usize; 4] {
        let seen = self.seen();
        [seen.offered.len(), seen.statuses.len(), seen.lines.len(), seen.requests]
    }

    fn assign(&self, partner: &str) {
        let partner = client(partner);
        self.call(move |talker, cx| {
            talker.session.call(cx, |p, now| p.assign_partner(now, Some(partner))).unwrap();
        });
    }

    /// Comes back after somebody else was there under its name.
    fn return_to(&self, partner: &str) {
        self.call(|talker, cx| talker.session.call(cx, |p, now| p.set_active(now, false)));
        self.call(|talker, cx| talker.session.call(cx, |p, now| p.set_active(now, true)));
        self.assign(partner);
    }

    fn is_interacting(&self) -> bool {
        self.seen().state == Some(PairingState::Interacting)
    }

    /// From now on there is to be a connection with the partner, who must prove that it is `id`.
    fn links(&self, id: PeerId) {
        self.call(move |talker, _| talker.wanted = Some(id));
    }

    /// It has had enough.
    fn leaves(&self) {
        self.call(|talker, cx| {
            talker.wanted = None;
            talker.link.leave(cx);
            talker.line = None;
        });
    }

    fn conn(&self) -> Option<Conn> {
        self.call(|talker, _| talker.link.conn())
    }

    fn info(&self) -> Option<ConnInfo> {
        self.call(|talker, cx| talker.info(cx))
    }

    fn is_direct(&self) -> bool {
        self.call(|talker, _| talker.link.is_direct())
    }

    fn is_linked(&self) -> bool {
        self.call(|talker, _| talker.line.is_some())
    }

    fn says(&self, line: &[u8]) -> bool {
        let line = line.to_vec();
        self.call(move |talker, cx| talker.line.is_some_and(|on| cx.send(on, &line).is_ok()))
    }

    /// The partner is handed a packet that no connection of ours has made.
    fn relays(&self, packet: &[u8]) -> bool {
        let packet = packet.to_vec();
        self.call(move |talker, cx| talker.session.send_relayed(cx, &packet).is_ok())
    }

    fn hears(&self, line: &[u8]) {
        let heard = || self.seen().lines.iter().any(|l| l == line);
        wait_until(&format!("hearing {}", String::from_utf8_lossy(line)), heard);
    }

    /// Connections that others have begun with it.
    fn accepted(&self) -> u64 {
        self.engine.stats().shards[0].endpoint.accepted
    }
}

/// Both get a connection with each other.
fn link_up(controller: &Peer, responder: &Peer, name: &str) {
    controller.assign(name);
    wait_until("pairing", || controller.is_interacting() && responder.is_interacting());
    controller.links(responder.id);
    responder.links(controller.id);
    wait_until("a link", || controller.is_linked() && responder.is_linked());
}

/// What is said now on either side arrives at the other, once.
fn exchange(a: &Peer, b: &Peer, what: &str) {
    for (from, to) in [(a, b), (b, a)] {
        let line = format!("{what} to {}", to.id);
        assert!(from.says(line.as_bytes()));
        to.hears(line.as_bytes());
        let times = to.seen().lines.iter().filter(|l| *l == line.as_bytes()).count();
        assert_eq!(times, 1);
    }
}

/// Whether this machine has an address besides those of loopback by which it reaches itself.
fn has_addresses() -> bool {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    found.iter().any(|i| !i.is_loopback() && !i.is_link_local())
}

/// A controller and a responder with a link, and their event source.
fn linked(driver: DriverChoice, finds: bool) -> (Source, Peer, Peer) {
    let source = Source::start(driver, 2);
    let made = |name, role| Made { finds, ..Made::new(&source, driver, name, role) };
    let r = made("r", PairingRole::Responder).start();
    let c = made("c", PairingRole::Controller).start();
    assert!(c.conn().is_none() && !c.is_direct());
    link_up(&c, &r, "r");
    (source, c, r)
}

#[test]
fn partners_get_a_connection_of_their_own() {
    for driver in drivers() {
        for finds in [true, false] {
            let (_source, c, r) = linked(driver, finds);
            exchange(&c, &r, "first");
            for (own, other, role) in [(&c, &r, Role::Client), (&r, &c, Role::Host)] {
                let info = own.info().expect("a connection");
                assert_eq!((info.role, info.status), (role, Status::Connected));
                assert_eq!(info.peer, Some(other.id));
                let path: Vec<Status> = own.seen().statuses.iter().map(|(new, _)| *new).collect();
                assert_eq!(path, [Status::FindingRoute, Status::Connected]);
            }
            assert_eq!(r.seen().offered, [Some(c.id)]);
            assert_eq!((c.counts(), r.counts()), ([0, 2, 1, 0], [1, 2, 1, 1]));
            // What the link says of the way is so.
            let direct = |p: &Peer| p.info().is_some_and(|i| !i.relayed);
            if finds && has_addresses() {
                wait_until("a direct path", || direct(&c) && direct(&r));
            }
            wait_until("the same at both", || {
                [&c, &r].iter().all(|p| p.is_direct() == direct(p)) && direct(&c) == direct(&r)
            });
            assert!(finds || !direct(&c), "nobody knew of a path");
            exchange(&c, &r, "second");
            c.leaves();
            let left = Instant::now();
            wait_until("the end", || r.conn().is_none());
            let (end, reason) = r.seen().statuses.last().cloned().expect("an end");
            assert_eq!((end, reason.map(|r| r.reason)), (Status::ClosedByPeer, Some(Reason::APP)));
            assert!(left.elapsed() < Duration::from_secs(5), "it was not told");
            assert!(c.conn().is_none() && !c.is_direct() && !r.is_direct());
            // And once more.
            c.links(r.id);
            wait_until("another link", || c.is_linked() && r.is_linked());
            exchange(&c, &r, "third");
        }
    }
}

/// Somebody else under the name of the one who is to connect.
#[test]
fn an_impostor_that_connects_is_rejected() {
    for driver in drivers() {
        let source = Source::start(driver, 1);
        let made = |name, role| Made::new(&source, driver, name, role);
        let r = made("r", PairingRole::Responder).start();
        let true_one = made("c", PairingRole::Controller);
        let other = made("c", PairingRole::Controller).start();
        r.links(true_one.identity.peer_id());
        other.assign("r");
        other.links(r.id);
        wait_until("two refusals", || other.counts()[1] >= 2);
        for (new, reason) in other.seen().statuses.clone() {
            let reason = reason.as_ref().map(|r| (r.reason, r.text.as_str()));
            assert_eq!(new, Status::ClosedByPeer);
            assert_eq!(reason, Some((Reason::APP_REJECTED, "another peer was expected")));
        }
        assert!(r.seen().offered.iter().all(|id| *id == Some(other.id)));
        assert!(r.conn().is_none() && r.counts()[1] == 0);
        // The true one takes its place.
        let c = true_one.start();
        link_up(&c, &r, "r");
        wait_until("its place taken", || other.seen().aborted == Some(Abort::ReleasedByOther));
        exchange(&c, &r, "at last");
        let (conn, offered) = (r.conn(), r.counts()[0]);
        // And the other one once more, while there is a connection.
        other.return_to("r");
        wait_until("one more refusal", || r.counts()[0] > offered);
        assert_eq!((r.conn(), c.counts()[1]), (conn, 2), "the connection goes on");
        c.return_to("r");
        wait_until("pairing again", || c.is_interacting() && r.is_interacting());
        other.call(|talker, _| talker.wanted = None);
        exchange(&c, &r, "still there");
        assert_eq!((r.conn(), r.counts()[3]), (conn, 1));
        assert!(other.counts()[2] == 0 && !other.is_linked());
        let ours = |line: &Vec<u8>| line.starts_with(b"at last") || line.starts_with(b"still");
        assert!(r.seen().lines.iter().all(ours));
    }
}

/// Somebody else under the name of the one who is to accept.
#[test]
fn an_impostor_that_accepts_is_not_believed() {
    for driver in drivers() {
        let source = Source::start(driver, 1);
        let made = |name, role| Made::new(&source, driver, name, role);
        let c = made("c", PairingRole::Controller).start();
        let true_one = made("r", PairingRole::Responder);
        let other = made("r", PairingRole::Responder).start();
        c.assign("r");
        other.links(c.id);
        c.links(true_one.identity.peer_id());
        wait_until("a failure", || c.counts()[1] > 0);
        assert!(other.accepted() > 0, "it was not asked");
        let r = true_one.start();
        r.links(c.id);
        wait_until("a link", || c.is_linked() && r.is_linked());
        exchange(&c, &r, "at last");
        let ends: Vec<Status> = c.seen().statuses.iter().map(|(new, _)| *new).collect();
        let (failures, last) = ends.split_at(ends.len() - 2);
        assert_eq!(last, [Status::FindingRoute, Status::Connected]);
        assert!(failures.iter().all(|new| *new == Status::ProblemDetectedLocally), "{ends:?}");
        // It never had a connection: nothing was offered to its application.
        assert_eq!(other.counts(), [0; 4]);
    }
}

/// A client that hands any packets to any client.
struct Raw {
    engine: QueuedEngine,
    channel: Channel,
}

impl Raw {
    fn connect(source: &Source, app: &str, name: &str, role: &str) -> Self {
        let engine = QueuedEngine::start(engine_config(DriverChoice::Mio, 1)).unwrap();
        let mut config = source.connect();
        config.credential = format!("{} {name} {role}", token(app, "*").as_str()).into_bytes();
        let conn = engine.connect(&config, None).unwrap();
        let events = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
        engine.open_channel(conn, "events", &events).unwrap();
        let packets = ChannelOptions { kind: ChannelKind::Datagrams, ..events };
        let channel = engine.open_channel(conn, RELAY_CHANNEL, &packets).unwrap();
        let is_ready = |r: &Received| match r {
            Received::Event(Event::ChannelReady { channel: ready, .. }) => *ready == channel,
            _ => false,
        };
        let mut out = Vec::new();
        wait_until("a channel of packets", || {
            engine.poll_group().recv_many(&mut out, 64, Some(Duration::from_millis(50)));
            out.drain(..).any(|r| is_ready(&r))
        });
        Self { engine, channel }
    }

    fn relays(&self, to: &str, packet: &[u8]) {
        let mut message = Vec::new();
        relay::encode(&mut message, to, packet);
        wait_until("room", || self.engine.send(self.channel, &message).is_ok());
    }
}

/// Nothing that looks like anything, and beginnings of what does.
fn garbage() -> Vec<Vec<u8>> {
    let first = [0x00, 0x40, 0x41, 0x80, 0x90, 0xa0, 0xb1, 0xc0, 0xff];
    let packets = first.iter().flat_map(|byte| [1, 9, 40, 1200].map(|len| (*byte, len)));
    packets
        .map(|(byte, len)| {
            let mut packet = pattern(len, u64::from(byte) * 10_000 + len as u64);
            packet[0] = byte;
            packet
        })
        .collect()
}

/// Clients of another application, of the same role, and others than the partner.
#[test]
fn strangers_reach_nobody_over_the_relay() {
    for driver in drivers() {
        let (source, c, r) = linked(driver, false);
        exchange(&c, &r, "before");
        // What began one connection would begin another one when that is over.
        c.leaves();
        wait_until("the end", || r.conn().is_none());
        c.links(r.id);
        wait_until("another link", || c.is_linked() && r.is_linked());
        let taken = r.seen().packets.clone();
        let (conn, accepted) = (r.conn(), r.accepted());
        let before = source.server.stats().source.relay;
        let strangers = [
            Raw::connect(&source, "other", "c", "controller"),
            Raw::connect(&source, "app", "r2", "responder"),
            Raw::connect(&source, "app", "c2", "controller"),
        ];
        let bad = garbage();
        let count = (taken.len() + bad.len()) as u64;
        for packet in taken.iter().chain(&bad) {
            for stranger in &strangers {
                stranger.relays("r", packet);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The last one is of the right application and role: its packets come as far as the client,
        // which takes those of its partner only.
        wait_until("all of it", || {
            let now = source.server.stats().source.relay;
            (now.absent - before.absent, now.blocked - before.blocked) == (count, count)
                && bad.iter().all(|packet| r.seen().packets.contains(packet))
        });
        exchange(&c, &r, "after");
        assert_eq!((r.conn(), r.accepted()), (conn, accepted));
        assert_eq!((c.counts(), r.counts()), ([0, 4, 2, 0], [2, 5, 2, 2]));
    }
}

/// The event source, or whoever has the partner's place there, repeats what it has carried, and
/// makes up more.
#[test]
fn packets_that_are_repeated_or_made_up_change_nothing() {
    for driver in drivers() {
        let (_source, c, r) = linked(driver, false);
        exchange(&c, &r, "first");
        let repeat = |what: &str| {
            let taken = [&c, &r].map(|p| p.seen().packets.clone());
            for (from, to, taken) in [(&c, &r, &taken[1]), (&r, &c, &taken[0])] {
                for packet in taken.iter().chain(&garbage()) {
                    wait_until("room", || from.relays(packet));
                    std::thread::sleep(Duration::from_millis(1));
                }
                let mark = format!("\x7f{what}").into_bytes();
                wait_until("the last of it", || {
                    from.relays(&mark);
                    to.seen().packets.contains(&mark)
                });
            }
        };
        // In the same connection, without one, and in the next one.
        let conns = [c.conn(), r.conn()];
        repeat("same");
        exchange(&c, &r, "second");
        assert_eq!([c.conn(), r.conn()], conns);
        c.leaves();
        wait_until("the end", || r.conn().is_none());
        repeat("none");
        assert!(r.conn().is_none() && c.conn().is_none());
        assert_eq!((c.counts(), r.counts()), ([0, 2, 2, 0], [1, 3, 2, 1]));
        c.links(r.id);
        wait_until("another link", || c.is_linked() && r.is_linked());
        exchange(&c, &r, "third");
        let conns = [c.conn(), r.conn()];
        repeat("next");
        exchange(&c, &r, "fourth");
        assert_eq!([c.conn(), r.conn()], conns);
        assert_eq!((c.counts(), r.counts()), ([0, 4, 4, 0], [2, 5, 4, 2]));
    }
}
