//! The event source's rows of behaviours §2, and what bad clients do.

use super::*;
use crate::limits::{MAX_EVENT, MAX_EVENT_BODY};
use crate::rendezvous::event::{Event, decode};
use crate::rendezvous::token::{AccessToken, ClientPattern, RoleSet, credential};
use PairingRole::{Controller, Responder};
use proptest::prelude::*;
use std::collections::HashSet;

mod relay;

const UNIX: u64 = 1_700_000_000;

#[derive(Default)]
struct Out {
    sent: Vec<(u32, Event)>,
    relayed: Vec<(u32, Vec<u8>)>,
    aborted: Vec<(u32, Abort)>,
    /// Clients whose channel has no room.
    full: HashSet<u32>,
}

impl Outlet<u32> for Out {
    fn send(&mut self, client: u32, message: &[u8]) -> bool {
        if self.full.contains(&client) {
            return false;
        }
        self.sent.push((client, decode(message).unwrap().to_owned().unwrap()));
        true
    }

    fn relay(&mut self, client: u32, message: &[u8]) -> bool {
        if self.full.contains(&client) {
            return false;
        }
        self.relayed.push((client, message.to_vec()));
        true
    }

    fn abort(&mut self, client: u32, reason: Abort, _: &str) {
        self.aborted.push((client, reason));
    }
}

fn keys() -> KeyRing {
    let mut keys = KeyRing::new();
    keys.add("k1", &[1; 32]).unwrap();
    keys
}

fn grant(app: &str, clients: &str) -> Grant {
    Grant {
        app: AppId::new(app).unwrap(),
        clients: ClientPattern::new(clients).unwrap(),
        roles: RoleSet::ALL,
        expires_s: UNIX + 3600,
    }
}

fn ticket(grant: &Grant, client: &str, role: PairingRole) -> Vec<u8> {
    let token = keys().mint("k1", grant).unwrap();
    format!("{} {client} {role}", token.as_str()).into_bytes()
}

/// An event of the application.
fn application<'a>(to: &'a str, body: &'a [u8]) -> EventRef<'a> {
    EventRef {
        kind: EventType::Application,
        subtype: 0,
        from: "",
        to,
        role: None,
        sent: 0,
        received: 0,
        buffered: false,
        body,
    }
}

struct World {
    source: EventSource<u32>,
    out: Out,
    now: Instant,
}

impl World {
    fn with(config: SourceConfig) -> Self {
        let source = EventSource::new(config, keys(), LocalRouter::default()).unwrap();
        Self { source, out: Out::default(), now: Instant::from_nanos(1_000_000_000) }
    }

    fn new() -> Self {
        Self::with(SourceConfig::default())
    }

    fn connect(&mut self, key: u32, credential: &[u8]) -> Result<(), Refusal> {
        self.source.connect(self.now, UNIX, key, credential, &mut self.out).map(drop)
    }

    fn join(&mut self, key: u32, app: &str, client: &str, role: PairingRole) {
        self.connect(key, &ticket(&grant(app, "*"), client, role)).unwrap();
        assert!(self.source.opened(key));
    }

    /// `c` (1), a controller, and `r` (2), a responder, of one application.
    fn pair() -> Self {
        let mut world = Self::new();
        world.join(1, "app", "c", Controller);
        world.join(2, "app", "r", Responder);
        world
    }

    fn receive(&mut self, key: u32, message: &[u8]) {
        self.source.receive(self.now, key, message, &mut self.out);
    }

    fn send(&mut self, key: u32, kind: EventType, to: &str) {
        self.send_from(key, kind, "", to);
    }

    fn send_from(&mut self, key: u32, kind: EventType, from: &str, to: &str) {
        let mut message = Vec::new();
        let event = EventRef { kind, from, sent: 5, ..application(to, b"") };
        event::encode(&mut message, &event);
        self.receive(key, &message);
    }

    fn seconds(&mut self, s: u64) {
        for _ in 0..s {
            self.now += Duration::from_secs(1);
            self.source.handle_timeout(self.now, UNIX + s, &mut self.out);
        }
    }

    /// Who got what type of event from whom.
    fn got(&mut self) -> Vec<(u32, EventType, String)> {
        let sent = self.out.sent.drain(..);
        sent.map(|(to, e)| (to, e.kind, e.from.map(|f| f.to_string()).unwrap_or_default()))
            .collect()
    }
}

#[test]
fn events_reach_their_recipient_with_their_true_sender() {
    let mut world = World::pair();
    world.send(1, EventType::Ping, "r");
    world.send_from(2, EventType::Application, "r", "c");
    assert_eq!(world.out.sent[0].1.role, Some(Controller));
    assert_eq!(world.out.sent[1].1.role, Some(Responder));
    assert_eq!(
        world.got(),
        [(2, EventType::Ping, "c".to_owned()), (1, EventType::Application, "r".to_owned())]
    );
    assert_eq!(world.source.stats().delivered, 2);
}

fn refusal(world: &mut World, credential: &[u8]) -> (Option<Abort>, String) {
    let before = world.source.len();
    let refusal = world.connect(99, credential).unwrap_err();
    assert_eq!(world.source.len(), before);
    assert!(world.source.party(99).is_none());
    assert!(refusal.text.len() <= 127, "{}", refusal.text);
    (Abort::from_reason(refusal.reason), refusal.text)
}

/// Row "abort": `invalid_access_token`.
#[test]
fn a_wrong_token_is_refused() {
    let mut world = World::new();
    let good = ticket(&grant("app", "*"), "c", Controller);
    for (credential, why) in [
        (&b""[..], "malformed"),
        (b"hello", "malformed"),
        (b"\xff\xfe", "malformed"),
        (&good[1..], "malformed"),
        (&good[..good.len() - " c controller".len()], "TOKEN CLIENT ROLE"),
        (&[&good[..], b" x"].concat(), "TOKEN CLIENT ROLE"),
    ] {
        let (abort, text) = refusal(&mut world, credential);
        assert_eq!(abort, Some(Abort::InvalidAccessToken), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let mut other = KeyRing::new();
    other.add("k1", &[2; 32]).unwrap();
    let forged = other.mint("k1", &grant("app", "*")).unwrap();
    let client = ClientId::new("c").unwrap();
    let (abort, text) = refusal(&mut world, &credential(&forged, &client, Controller));
    assert_eq!(
        (abort, text.as_str()),
        (Some(Abort::InvalidAccessToken), "token has a wrong signature")
    );
    let old = Grant { expires_s: UNIX, ..grant("app", "*") };
    let (abort, text) = refusal(&mut world, &ticket(&old, "c", Controller));
    assert_eq!(
        (abort, text.as_str()),
        (Some(Abort::InvalidAccessToken), "token has expired 0 s ago")
    );
    let unknown = AccessToken::new("tk1.k9.AA.AA").unwrap();
    let (_, text) = refusal(&mut world, &credential(&unknown, &client, Controller));
    assert_eq!(text, "token is signed with an unknown key");
    assert_eq!(world.source.stats().refused[2], 9);
}

/// Row "abort": `invalid_client_id`.
#[test]
fn a_client_id_that_the_token_does_not_allow_is_refused() {
    let mut world = World::new();
    for client in ["other", "player-", "a*b", ""] {
        let (abort, text) =
            refusal(&mut world, &ticket(&grant("app", "player-1*"), client, Controller));
        assert_eq!(abort, Some(Abort::InvalidClientId), "{text}");
    }
    world.join(1, "app", "player-12", Controller);
}

/// Row "abort": `invalid_role`.
#[test]
fn a_role_that_the_token_does_not_allow_is_refused() {
    let mut world = World::new();
    let only = Grant { roles: RoleSet::only(Responder), ..grant("app", "*") };
    let (abort, _) = refusal(&mut world, &ticket(&only, "c", Controller));
    assert_eq!(abort, Some(Abort::InvalidRole));
    let mut strange = ticket(&only, "c", Responder);
    strange.truncate(strange.len() - 1);
    assert_eq!(refusal(&mut world, &strange).0, Some(Abort::InvalidRole));
    world.connect(1, &ticket(&only, "c", Responder)).unwrap();
}

/// Row "abort": `not_authorized`.
#[test]
fn an_application_that_is_not_served_is_refused() {
    let apps = Some(vec![AppId::new("app").unwrap()]);
    let mut world = World::with(SourceConfig { apps, ..SourceConfig::default() });
    let (abort, _) = refusal(&mut world, &ticket(&grant("other", "*"), "c", Controller));
    assert_eq!(abort, Some(Abort::NotAuthorized));
    world.join(1, "app", "c", Controller);
}

/// Row "same client id twice": the newest wins.
#[test]
fn the_newest_client_of_an_id_wins() {
    let mut world = World::pair();
    world.join(3, "app", "c", Controller);
    assert_eq!(world.out.aborted, [(1, Abort::ReleasedByOther)]);
    assert_eq!(world.source.len(), 2);
    world.send(2, EventType::Ping, "c");
    world.send(1, EventType::Ping, "r");
    assert_eq!(world.got(), [(3, EventType::Ping, "r".to_owned())], "the old one is nobody");
    // Its end, when it comes, takes nothing from the new one.
    world.source.gone(1);
    world.send(2, EventType::Ping, "c");
    assert_eq!(world.got().len(), 1);
    // The same id in another application is somebody else.
    world.join(4, "other", "c", Controller);
    assert_eq!(world.out.aborted.len(), 1);
}

#[test]
fn a_client_that_fails_to_prove_itself_takes_no_place() {
    let mut world = World::pair();
    let mut forged = ticket(&grant("app", "*"), "c", Controller);
    forged[20] ^= 1;
    world.connect(3, &forged).unwrap_err();
    assert!(world.out.aborted.is_empty());
    assert_eq!(world.source.len(), 2);
}

/// Row "abort": `client_not_alive`.
#[test]
fn a_client_that_takes_nothing_is_not_alive() {
    let mut world = World::pair();
    world.out.full.insert(2);
    world.send(1, EventType::Ping, "r");
    world.seconds(9);
    assert!(world.out.aborted.is_empty());
    world.seconds(2);
    assert_eq!(world.out.aborted, [(2, Abort::ClientNotAlive)]);
    assert_eq!(
        world.source.presence(&AppId::new("app").unwrap(), &ClientId::new("r").unwrap()),
        None
    );
}

#[test]
fn a_client_that_never_opens_its_channel_is_not_alive() {
    let mut world = World::new();
    world.connect(1, &ticket(&grant("app", "*"), "c", Controller)).unwrap();
    world.seconds(11);
    assert_eq!(world.out.aborted, [(1, Abort::ClientNotAlive)]);
    assert!(!world.source.opened(1));
    assert_eq!(world.source.next_timeout(), None, "nobody is left to look at");
}

#[test]
fn a_second_channel_is_declined() {
    let mut world = World::pair();
    assert!(!world.source.opened(1));
    assert!(!world.source.opened(77));
}

#[test]
fn tokens_that_expire_end_connections_only_if_told_so() {
    for end_expired in [false, true] {
        let mut world = World::with(SourceConfig { end_expired, ..SourceConfig::default() });
        world.join(1, "app", "c", Controller);
        world.now += Duration::from_secs(2);
        world.source.handle_timeout(world.now, UNIX + 3600, &mut world.out);
        let expected = [(1, Abort::InvalidAccessToken)];
        assert_eq!(world.out.aborted, expected[..usize::from(end_expired)]);
    }
}

/// Row "reject": `app_id_mismatch`.
#[test]
fn a_ping_into_another_application_is_rejected() {
    let mut world = World::pair();
    world.join(3, "other", "x", Responder);
    world.send(1, EventType::Ping, "x");
    let [(1, answer)] = &world.out.sent[..] else { panic!("{:?}", world.out.sent) };
    assert_eq!(answer.kind, EventType::Reject);
    assert_eq!(Reject::from_wire(answer.subtype), Reject::AppIdMismatch);
    assert_eq!(answer.from, Some(ClientId::new("x").unwrap()), "in the place of the partner");
    assert_eq!((answer.received, answer.body.len()), (5, 0), "the ping that it answers");
}

/// Row "reject": `invalid_partner_role`.
#[test]
fn a_ping_to_the_same_role_is_rejected() {
    let mut world = World::pair();
    world.join(3, "app", "c2", Controller);
    world.join(4, "app", "r2", Responder);
    world.send(1, EventType::Ping, "c2");
    world.send(2, EventType::Ping, "r2");
    let answers: Vec<_> =
        world.out.sent.iter().map(|(to, e)| (*to, Reject::from_wire(e.subtype))).collect();
    assert_eq!(answers, [(1, Reject::InvalidPartnerRole), (2, Reject::InvalidPartnerRole)]);
}

/// Row "filtering": all other mismatching events are blocked in silence.
#[test]
fn mismatching_events_are_blocked_in_silence() {
    let mut world = World::pair();
    world.join(3, "other", "x", Responder);
    world.join(4, "app", "c2", Controller);
    for kind in EventType::ALL.into_iter().filter(|k| *k != EventType::Ping) {
        world.send(1, kind, "x");
        world.send(1, kind, "c2");
        world.send(1, kind, "nobody");
    }
    world.send(2, EventType::Unassign, "c");
    assert!(world.got().is_empty());
    assert_eq!(world.source.stats().blocked, 11);
    assert_eq!(world.source.stats().absent, 5);
    world.send(1, EventType::Ping, "nobody");
    assert!(world.got().is_empty(), "whoever is not there may come: no answer");
}

/// An id that is used in two applications is looked for in the sender's own first.
#[test]
fn the_own_application_comes_first() {
    let mut world = World::new();
    world.join(1, "a", "r", Responder);
    world.join(2, "b", "r", Responder);
    world.join(3, "b", "c", Controller);
    world.send(3, EventType::Ping, "r");
    assert_eq!(world.got(), [(2, EventType::Ping, "c".to_owned())]);
}

#[test]
fn forged_senders_are_dropped() {
    let mut world = World::pair();
    world.send_from(1, EventType::Ping, "somebody", "r");
    world.send_from(1, EventType::Application, "r", "r");
    world.send_from(1, EventType::Ping, "c", "c");
    assert!(world.got().is_empty());
    assert_eq!((world.source.stats().forged, world.source.stats().malformed), (2, 1));
}

#[test]
fn oversize_unknown_and_malformed_events_are_dropped() {
    let mut world = World::pair();
    world.receive(1, &vec![0; MAX_EVENT + 1]);
    let mut long = Vec::new();
    let body = vec![0; MAX_EVENT_BODY + 1];
    let event = application("r", &body);
    event::encode(&mut long, &event);
    world.receive(1, &long);
    let mut fits = Vec::new();
    event::encode(&mut fits, &EventRef { body: &body[1..], ..event });
    world.receive(1, &fits);
    fits[1] = 0x55;
    world.receive(1, &fits);
    world.receive(1, b"");
    world.receive(1, b"hello");
    assert_eq!(world.got().len(), 1);
    let stats = world.source.stats();
    assert_eq!((stats.oversize, stats.unknown_type, stats.malformed), (2, 1, 2));
    assert!(world.out.aborted.is_empty());
}

#[test]
fn a_flood_of_pings_is_limited_and_then_ended() {
    let mut world = World::pair();
    for _ in 0..150 {
        world.send(1, EventType::Ping, "r");
    }
    assert_eq!(world.got().len(), 100);
    assert_eq!(world.source.stats().limited, 50);
    world.now += Duration::from_secs(1);
    for _ in 0..60 {
        world.send(1, EventType::Ping, "r");
    }
    assert_eq!(world.got().len(), 50, "50 a second");
    assert!(world.out.aborted.is_empty());
    for _ in 0..600 {
        world.send(1, EventType::Ping, "r");
    }
    assert_eq!(world.out.aborted, [(1, Abort::NotAuthorized)]);
    // Others do not notice.
    world.join(3, "app", "c", Controller);
    world.send(3, EventType::Ping, "r");
    assert_eq!(world.got().len(), 1);
}

#[test]
fn a_client_may_send_so_many_bytes() {
    let mut world = World::pair();
    let mut message = Vec::new();
    let body = vec![0; MAX_EVENT_BODY];
    let event = application("r", &body);
    event::encode(&mut message, &event);
    for _ in 0..80 {
        world.receive(1, &message);
    }
    assert_eq!(world.got().len(), (512 << 10) / message.len());
}

#[test]
fn queues_are_bounded_and_keep_their_order() {
    let mut world = World::pair();
    world.out.full.insert(2);
    for _ in 0..70 {
        world.send(1, EventType::Ping, "r");
    }
    assert_eq!(world.source.waiting().0, 64);
    assert_eq!(world.source.stats().overflowed, 6);
    world.source.writable(world.now, 2, &mut world.out);
    assert_eq!(world.source.waiting().0, 64, "still no room");
    world.out.full.clear();
    world.send(1, EventType::Inactive, "r");
    assert!(world.got().is_empty(), "nothing overtakes what waits");
    world.source.writable(world.now, 2, &mut world.out);
    assert_eq!(world.got().len(), 64);
    assert_eq!(world.source.waiting(), (0, 0));
    world.send(1, EventType::Ping, "r");
    assert_eq!(world.got().len(), 1);
    world.seconds(20);
    assert!(world.out.aborted.is_empty());
}

#[test]
fn too_many_clients_are_sent_away_as_busy() {
    let mut world = World::with(SourceConfig { max_clients: 2, ..SourceConfig::default() });
    world.join(1, "app", "a", Controller);
    world.join(2, "app", "b", Controller);
    let busy = world.connect(3, &ticket(&grant("app", "*"), "c", Controller)).unwrap_err();
    assert_eq!(busy.reason, BUSY);
    assert_eq!(Abort::from_reason(busy.reason), None, "it may come back");
    world.join(4, "app", "a", Controller);
    assert_eq!(world.source.len(), 2, "a client that comes again has a place");
}

#[test]
fn presence_follows_clients() {
    let mut world = World::pair();
    let presence = |world: &World, app: &str, client: &str| {
        world.source.presence(&AppId::new(app).unwrap(), &ClientId::new(client).unwrap())
    };
    assert_eq!(presence(&world, "app", "c"), Some(Controller));
    assert_eq!(presence(&world, "other", "c"), None);
    world.join(3, "app", "c", Responder);
    assert_eq!(presence(&world, "app", "c"), Some(Responder));
    world.source.gone(3);
    assert_eq!(presence(&world, "app", "c"), None);
}

/// Two event sources with a router that brings events from one to the other: the machines of
/// clients and sources need not know.
#[test]
fn a_fleet_needs_only_another_router() {
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Default)]
    struct Bus {
        places: HashMap<(AppId, ClientId), (usize, u32, PairingRole)>,
        events: Vec<(usize, Routed)>,
        packets: Vec<(usize, Relayed)>,
        released: Vec<(usize, u32)>,
    }
    struct Node(usize, Rc<RefCell<Bus>>);
    impl Router<u32> for Node {
        fn attach(&mut self, party: &Party, key: u32) -> Option<u32> {
            let mut bus = self.1.borrow_mut();
            let place = (self.0, key, party.role);
            let (node, old, _) =
                bus.places.insert((party.app.clone(), party.client.clone()), place)?;
            if node == self.0 {
                return Some(old);
            }
            bus.released.push((node, old));
            None
        }
        fn detach(&mut self, party: &Party, key: u32) {
            let mut bus = self.1.borrow_mut();
            let name = (party.app.clone(), party.client.clone());
            if bus.places.get(&name).is_some_and(|p| (p.0, p.1) == (self.0, key)) {
                bus.places.remove(&name);
            }
        }
        fn presence(&self, app: &AppId, client: &ClientId) -> Option<PairingRole> {
            self.1.borrow().places.get(&(app.clone(), client.clone())).map(|p| p.2)
        }
        fn relay(&mut self, from: &Party, to: &str, packet: &[u8]) -> Route<u32> {
            let mut bus = self.1.borrow_mut();
            let name = (from.app.clone(), ClientId::new(to).unwrap());
            match bus.places.get(&name).copied() {
                None => Route::Absent,
                Some((node, key, _)) if node == self.0 => Route::Here(key),
                Some((node, ..)) => {
                    bus.packets.push((node, Relayed::new(from, to, packet).unwrap()));
                    Route::Elsewhere
                }
            }
        }
        fn route(&mut self, from: &Party, event: &EventRef<'_>) -> Route<u32> {
            let mut bus = self.1.borrow_mut();
            let own = |name: &&(AppId, ClientId)| name.1.as_str() == event.to && name.0 == from.app;
            let any = |name: &&(AppId, ClientId)| name.1.as_str() == event.to;
            let name = bus.places.keys().find(own).or_else(|| bus.places.keys().find(any)).cloned();
            match name.map(|name| bus.places[&name]) {
                None => Route::Absent,
                Some((node, key, _)) if node == self.0 => Route::Here(key),
                Some((node, ..)) => {
                    bus.events.push((node, Routed::new(from, event).unwrap()));
                    Route::Elsewhere
                }
            }
        }
    }

    let bus = Rc::new(RefCell::new(Bus::default()));
    let mut out = Out::default();
    let now = Instant::from_nanos(1);
    let mut nodes: Vec<EventSource<u32, Node>> = (0..2)
        .map(|n| EventSource::new(SourceConfig::default(), keys(), Node(n, bus.clone())).unwrap())
        .collect();
    let mut join = |nodes: &mut Vec<EventSource<u32, Node>>, node: usize, key, app, id, role| {
        let ticket = ticket(&grant(app, "*"), id, role);
        nodes[node].connect(now, UNIX, key, &ticket, &mut out).unwrap();
        assert!(nodes[node].opened(key));
    };
    join(&mut nodes, 0, 1, "app", "c", Controller);
    join(&mut nodes, 1, 2, "app", "r", Responder);
    join(&mut nodes, 1, 3, "other", "x", Responder);
    let send = |nodes: &mut Vec<EventSource<u32, Node>>, to: &str, out: &mut Out| {
        let mut message = Vec::new();
        let event = EventRef { kind: EventType::Ping, sent: 1, ..application(to, b"") };
        event::encode(&mut message, &event);
        nodes[0].receive(now, 1, &message, out);
        for _ in 0..2 {
            let events = core::mem::take(&mut bus.borrow_mut().events);
            for (node, routed) in events {
                nodes[node].routed(now, &routed, out);
            }
        }
    };
    send(&mut nodes, "r", &mut out);
    assert_eq!(out.sent.len(), 1);
    assert_eq!((out.sent[0].0, out.sent[0].1.kind), (2, EventType::Ping));
    out.sent.clear();
    // A blocked ping is answered by the other node, back over the bus.
    send(&mut nodes, "x", &mut out);
    assert_eq!((out.sent[0].0, out.sent[0].1.kind), (1, EventType::Reject));
    assert_eq!(Reject::from_wire(out.sent[0].1.subtype), Reject::AppIdMismatch);
    // A packet takes the same way.
    assert!(nodes[0].relay_opened(1) && nodes[1].relay_opened(2));
    nodes[0].receive_relay(now, 1, b"\x01rpacket", &mut out);
    let packets = core::mem::take(&mut bus.borrow_mut().packets);
    assert_eq!((packets.len(), packets[0].0), (1, 1));
    nodes[1].relayed(&packets[0].1, &mut out);
    assert_eq!(out.relayed, [(2, b"\x01cpacket".to_vec())]);
    // The newest wins across nodes.
    let ticket = ticket(&grant("app", "*"), "c", Controller);
    nodes[1].connect(now, UNIX, 9, &ticket, &mut out).unwrap();
    let released = core::mem::take(&mut bus.borrow_mut().released);
    assert_eq!(released, [(0, 1)]);
    nodes[0].released(1, &mut out);
    assert_eq!(out.aborted, [(1, Abort::ReleasedByOther)]);
    assert!(nodes[0].is_empty());
    assert!(nodes[1].opened(9), "its place is not taken away by the end of the old one");
}

#[test]
fn settings_are_checked() {
    let with = |f: fn(&mut SourceConfig)| {
        let mut config = SourceConfig::default();
        f(&mut config);
        config.validate()
    };
    with(|_| {}).unwrap();
    for (field, bad) in [
        ("max_clients", with(|c| c.max_clients = 0)),
        ("events_per_s", with(|c| c.events_per_s = 0)),
        ("events_burst", with(|c| c.events_burst = 0)),
        ("bytes_per_s", with(|c| c.bytes_per_s = 0)),
        ("bytes_burst", with(|c| c.bytes_burst = 8191)),
        ("faults_per_s", with(|c| c.faults_per_s = 0)),
        ("faults_burst", with(|c| c.faults_burst = 0)),
        ("queue_events", with(|c| c.queue_events = 0)),
        ("queue_bytes", with(|c| c.queue_bytes = 1)),
        ("relay_packets_per_s", with(|c| c.relay_packets_per_s = 0)),
        ("relay_packets_burst", with(|c| c.relay_packets_burst = 0)),
        ("relay_bytes_per_s", with(|c| c.relay_bytes_per_s = 0)),
        ("relay_bytes_burst", with(|c| c.relay_bytes_burst = 1264)),
        ("stall_limit", with(|c| c.stall_limit = Duration::ZERO)),
        ("open_limit", with(|c| c.open_limit = Duration::ZERO)),
    ] {
        assert!(bad.unwrap_err().to_string().starts_with(field), "{field}");
    }
}

#[test]
fn counters_have_names_and_add_up() {
    let mut world = World::pair();
    world.send(1, EventType::Ping, "r");
    world.send(1, EventType::Ping, "nobody");
    let mut sum = *world.source.stats();
    sum.add(world.source.stats());
    let find = |name, label: Option<&str>| {
        let all = sum.counters();
        let found = all.iter().find(|c| c.name == name && c.label.map(|l| l.1) == label);
        found.map(|c| c.value)
    };
    assert_eq!(find("clients_attached", None), Some(4));
    assert_eq!(find("events_received", Some("ping")), Some(4));
    assert_eq!(find("events_dropped", Some("absent")), Some(2));
    assert_eq!(find("events_delivered", None), Some(2));
}

proptest! {
    /// Whatever clients send, an event is only ever delivered between a controller and a responder
    /// of one application, in the name of who sent it.
    #[test]
    fn nothing_passes_that_must_not(
        messages in proptest::collection::vec(
            (0..6u32, 0..7u8, 0..7usize, 0..7usize, any::<bool>()), 1..100),
    ) {
        let names = ["a", "b", "c", "d", "e", "f", "nobody"];
        let mut world = World::new();
        for (key, name) in names[..6].iter().enumerate() {
            let app = if key < 4 { "app" } else { "other" };
            let role = if key % 2 == 0 { Controller } else { Responder };
            world.join(key as u32, app, name, role);
        }
        for (key, kind, from, to, honest) in messages {
            let mut message = Vec::new();
            let event = EventRef {
                subtype: 3,
                from: if honest { names[key as usize] } else { names[from] },
                role: Some(Controller),
                sent: 1,
                received: 1,
                ..application(names[to], b"")
            };
            event::encode(&mut message, &event);
            message[1] = kind;
            world.receive(key, &message);
            for (to, event) in world.out.sent.drain(..) {
                let recipient = world.source.party(to).unwrap();
                prop_assert_eq!(&recipient.client, &event.to);
                let from = names.iter().position(|n| event.from.as_ref().unwrap().as_str() == *n);
                if event.kind == EventType::Reject && to == key {
                    continue;
                }
                prop_assert_eq!(from, Some(key as usize));
                let sender = world.source.party(key).unwrap();
                prop_assert_eq!(&sender.app, &recipient.app);
                prop_assert_ne!(sender.role, recipient.role);
                prop_assert_eq!(event.role, Some(sender.role));
            }
        }
    }

    #[test]
    fn any_credential_and_any_bytes_are_survived(
        credential in proptest::collection::vec(any::<u8>(), 0..200),
        message in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut world = World::pair();
        prop_assert!(world.connect(9, &credential).is_err());
        world.receive(1, &message);
        world.receive(9, &message);
    }
}
