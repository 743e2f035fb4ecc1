//! Pairing through a real event source over real sockets.

mod common;

use common::source::*;
use common::*;
use std::time::{Duration, Instant};
use trunkline::rendezvous::{
    Abort, AccessToken, AppId, ClientId, ClientPattern, Grant, Notice, PairingClient,
    PairingClientConfig, PairingRole, PairingState, Reject, RoleSet, SourceConfig,
};
use trunkline::{
    ChannelKind, ChannelOptions, DriverChoice, Event, QueuedEngine, Reason, Received, Status,
};

impl Source {
    /// A client that is active and has everything but a partner.
    fn client(&self, app: &str, name: &str, role: PairingRole) -> Client {
        let client = self.passive(role);
        client.0.assign_client_id(Some(ClientId::new(name).unwrap())).unwrap();
        client.0.assign_access_token(Some(token(app, "*"))).unwrap();
        client.0.set_active(true).unwrap();
        client
    }

    fn passive(&self, role: PairingRole) -> Client {
        let config = PairingClientConfig {
            engine: engine_config(DriverChoice::Mio, 1),
            pairing: fast_pairing(),
            relay: true,
            ..PairingClientConfig::new(self.connect(), role)
        };
        Client(PairingClient::start(config).unwrap())
    }
}

struct Client(PairingClient);

impl Client {
    /// Waits for a notice that `f` takes.
    fn wait<T>(&self, what: &str, mut f: impl FnMut(Notice) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < Duration::from_secs(30), "{what} did not come");
            if let Some(found) = self.0.recv(Duration::from_millis(100)).and_then(&mut f) {
                return found;
            }
        }
    }

    fn reaches(&self, state: PairingState) {
        self.wait(state.name(), |notice| match notice {
            Notice::State { new, .. } if new == state => Some(()),
            _ => None,
        });
    }

    fn aborted(&self) -> Abort {
        self.wait("abort", |notice| match notice {
            Notice::Aborted(reason) => Some(reason),
            _ => None,
        })
    }

    fn rejected(&self) -> Reject {
        self.wait("reject", |notice| match notice {
            Notice::Rejected { reason, .. } => Some(reason),
            _ => None,
        })
    }

    fn assign(&self, partner: &str) {
        self.0.assign_partner(Some(client(partner))).unwrap();
    }

    fn event(&self) -> (u16, Vec<u8>) {
        self.wait("event", |notice| match notice {
            Notice::Event { subtype, body, .. } => Some((subtype, body.to_vec())),
            _ => None,
        })
    }
}

/// A life of a pair, with every driver, and with its halves on one shard or on several.
#[test]
fn a_pair_meets_talks_and_parts() {
    for driver in drivers() {
        for shards in [1, 3] {
            let source = Source::start(driver, shards);
            let c = source.client("app", "c", PairingRole::Controller);
            // Some on other shards than the controller, whichever that is.
            let responders: Vec<Client> = (0..4)
                .map(|n| source.client("app", &format!("r{n}"), PairingRole::Responder))
                .collect();
            for (n, r) in responders.iter().enumerate() {
                r.reaches(PairingState::ReadyToPair);
                c.assign(&format!("r{n}"));
                r.reaches(PairingState::Interacting);
                c.reaches(PairingState::Interacting);
                assert_eq!(r.0.partner().unwrap(), Some((client("c"), None)));
                c.0.send(7, b"hello", false).unwrap();
                assert_eq!(r.event(), (7, b"hello".to_vec()));
                r.0.send(8, &vec![9; 8192], true).unwrap();
                assert_eq!(c.event(), (8, vec![9; 8192]));
                r.0.send_route(1, b"candidate").unwrap();
                c.wait("route", |notice| matches!(notice, Notice::Route { .. }).then_some(()));
            }
            // The others were left by the controller, in words.
            for r in &responders[..3] {
                wait_until("unassign", || r.0.partner().unwrap().is_none());
                assert_eq!(r.0.state().unwrap(), PairingState::ReadyToPair);
            }
            c.0.set_active(false).unwrap();
            responders[3].reaches(PairingState::Searching);
            let stats = source.server.stats();
            assert_eq!(stats.source.attached, 5);
            assert!(shards == 1 || stats.source.forwarded > 0 || stats.source.delivered > 0);
        }
    }
}

#[test]
fn the_second_controller_is_rejected() {
    let source = Source::start(DriverChoice::Mio, 1);
    let r = source.client("app", "r", PairingRole::Responder);
    let first = source.client("app", "c1", PairingRole::Controller);
    first.assign("r");
    r.reaches(PairingState::Interacting);
    let second = source.client("app", "c2", PairingRole::Controller);
    second.assign("r");
    assert_eq!(second.rejected(), Reject::AssignedToOther);
    assert_eq!(second.0.state().unwrap(), PairingState::ReadyToPair);
}

#[test]
fn wrong_application_and_wrong_role_are_rejected_by_the_source() {
    let source = Source::start(DriverChoice::Mio, 2);
    let c = source.client("app", "c", PairingRole::Controller);
    let other = source.client("other", "x", PairingRole::Responder);
    let same = source.client("app", "c2", PairingRole::Controller);
    other.reaches(PairingState::ReadyToPair);
    same.reaches(PairingState::ReadyToPair);
    c.assign("x");
    assert_eq!(c.rejected(), Reject::AppIdMismatch);
    c.assign("c2");
    assert_eq!(c.rejected(), Reject::InvalidPartnerRole);
}

/// A denied client learns why, at the handshake or later.
#[test]
fn every_refusal_reaches_the_client() {
    let apps = Some(vec![AppId::new("app").unwrap()]);
    let config = SourceConfig { apps, ..SourceConfig::default() };
    let source = Source::with(DriverChoice::Mio, 1, &config, identity(), loopback());
    let refused = |text: &str, id: &str, role| {
        let c = source.passive(role);
        c.0.assign_client_id(Some(client(id))).unwrap();
        c.0.assign_access_token(Some(AccessToken::new(text).unwrap())).unwrap();
        c.0.set_active(true).unwrap();
        let reason = c.aborted();
        assert_eq!(c.0.state().unwrap(), PairingState::ReadyToConnect);
        reason
    };
    let good = token("app", "a*");
    let controller = PairingRole::Controller;
    assert_eq!(refused("nonsense", "a", controller), Abort::InvalidAccessToken);
    let mut spoiled = good.as_str().to_owned();
    let last = if spoiled.pop() == Some('A') { 'E' } else { 'A' };
    spoiled.push(last);
    assert_eq!(refused(&spoiled, "a", controller), Abort::InvalidAccessToken);
    assert_eq!(refused(good.as_str(), "b", controller), Abort::InvalidClientId);
    assert_eq!(refused(token("other", "*").as_str(), "a", controller), Abort::NotAuthorized);
    let grant = Grant {
        app: AppId::new("app").unwrap(),
        clients: ClientPattern::new("*").unwrap(),
        roles: RoleSet::only(PairingRole::Responder),
        expires_s: unix_s() + 60,
    };
    let only = keys().mint("k1", &grant).unwrap();
    assert_eq!(refused(only.as_str(), "a", controller), Abort::InvalidRole);
    let old = keys().mint("k1", &Grant { expires_s: unix_s() - 1, ..grant }).unwrap();
    assert_eq!(refused(old.as_str(), "a", PairingRole::Responder), Abort::InvalidAccessToken);
    assert_eq!(source.server.stats().clients, 0);
}

#[test]
fn the_newest_of_one_id_wins_also_across_shards() {
    let source = Source::start(DriverChoice::Mio, 3);
    let mut before = source.client("app", "c", PairingRole::Controller);
    before.reaches(PairingState::ReadyToPair);
    for _ in 0..4 {
        let now = source.client("app", "c", PairingRole::Controller);
        now.reaches(PairingState::ReadyToPair);
        assert_eq!(before.aborted(), Abort::ReleasedByOther);
        before = now;
    }
    wait_until("one client", || source.server.stats().clients == 1);
    assert_eq!(before.0.state().unwrap(), PairingState::ReadyToPair);
}

/// Graceful restart: clients come back by themselves, and still know each other.
#[test]
fn clients_come_back_after_a_restart() {
    let source = Source::start(DriverChoice::Mio, 1);
    let r = source.client("app", "r", PairingRole::Responder);
    let c = source.client("app", "c", PairingRole::Controller);
    c.assign("r");
    r.reaches(PairingState::Interacting);
    c.reaches(PairingState::Interacting);
    let Source { server, identity, addr } = source;
    server.shutdown(Duration::from_secs(1));
    c.reaches(PairingState::ReadyToConnect);
    r.reaches(PairingState::ReadyToConnect);
    drop(server);
    let again = Source::with(DriverChoice::Mio, 1, &SourceConfig::default(), identity, addr);
    // Each may be interacting with a partner that is not back yet, having heard it before: the
    // source keeps nothing for clients that are not there.
    c.reaches(PairingState::Interacting);
    r.reaches(PairingState::Interacting);
    c.0.send(1, b"there again", false).unwrap();
    assert_eq!(r.event(), (1, b"there again".to_vec()));
    assert_eq!(again.server.stats().clients, 2);
}

/// A server that is gone without a word (here: dropped, then started again) is found again, too.
#[test]
fn clients_come_back_after_a_crash() {
    let source = Source::start(DriverChoice::Mio, 1);
    let c = source.client("app", "c", PairingRole::Controller);
    c.reaches(PairingState::ReadyToPair);
    let Source { server, identity, addr } = source;
    drop(server);
    let _again = Source::with(DriverChoice::Mio, 1, &SourceConfig::default(), identity, addr);
    c.reaches(PairingState::ReadyToPair);
}

/// A client that speaks nothing of the library's: raw messages on a plain channel.
struct Raw {
    engine: QueuedEngine,
    conn: trunkline::Conn,
    channel: trunkline::Channel,
}

impl Raw {
    fn connect(source: &Source, name: &str) -> Self {
        let engine = QueuedEngine::start(engine_config(DriverChoice::Mio, 1)).unwrap();
        let credential = format!("{} {name} controller", token("app", "*").as_str());
        let mut config = connect(source.addr, &source.identity);
        config.credential = credential.into_bytes();
        let conn = engine.connect(&config, None).unwrap();
        let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
        let channel = engine.open_channel(conn, "events", &options).unwrap();
        Self { engine, conn, channel }
    }

    fn wait<T>(&self, what: &str, mut f: impl FnMut(&Received) -> Option<T>) -> T {
        let start = Instant::now();
        let mut out = Vec::new();
        loop {
            assert!(start.elapsed() < Duration::from_secs(30), "{what} did not come");
            self.engine.poll_group().recv_many(&mut out, 64, Some(Duration::from_millis(100)));
            if let Some(found) = out.drain(..).find_map(|r| f(&r)) {
                return found;
            }
        }
    }

    fn ready(&self) {
        self.wait("channel", |r| {
            matches!(r, Received::Event(Event::ChannelReady { .. })).then_some(())
        });
    }

    fn end(&self) -> Reason {
        self.wait("end", |r| match r {
            Received::Event(Event::Status { new: Status::ClosedByPeer, reason, .. }) => {
                Some(reason.as_ref().unwrap().reason)
            }
            _ => None,
        })
    }
}

#[test]
fn bad_messages_are_survived_and_a_flood_is_ended() {
    let source = Source::start(DriverChoice::Mio, 1);
    let r = source.client("app", "r", PairingRole::Responder);
    r.reaches(PairingState::ReadyToPair);
    let raw = Raw::connect(&source, "c");
    raw.ready();
    // From nobody, of no type, not even msgpack; then a ping as the document has it.
    raw.engine.send(raw.channel, b"").unwrap();
    raw.engine.send(raw.channel, b"hello").unwrap();
    raw.engine.send(raw.channel, &[0xc1; 500]).unwrap();
    let forged = b"\x99\x01\x00\xa1x\xa1r\xc0\x01\x00\xc2\xc4\x00";
    raw.engine.send(raw.channel, forged).unwrap();
    let unknown = b"\x99\x30\x00\xa0\xa1r\xc0\x01\x00\xc2\xc4\x00";
    raw.engine.send(raw.channel, unknown).unwrap();
    let ping = b"\x99\x01\x00\xa0\xa1r\xc0\x01\x00\xc2\xc4\x00";
    raw.engine.send(raw.channel, ping).unwrap();
    r.reaches(PairingState::Interacting);
    assert_eq!(r.0.partner().unwrap(), Some((client("c"), None)));
    let stats = source.server.stats().source;
    assert_eq!((stats.malformed, stats.forged, stats.unknown_type), (3, 1, 1));
    // Others, and other kinds, are declined; the connection lives.
    let options = ChannelOptions::default();
    let bytes = raw.engine.open_channel(raw.conn, "events", &options).unwrap();
    raw.wait("decline", |r| match r {
        Received::Event(Event::ChannelClosed { channel, .. }) if *channel == bytes => Some(()),
        _ => None,
    });
    for _ in 0..2_000 {
        if raw.engine.send(raw.channel, ping).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(raw.end(), Abort::NotAuthorized.reason());
    assert_eq!(source.server.stats().clients, 1);
    r.reaches(PairingState::Searching);
}

/// Disconnects in the middle of each step leave nothing behind.
#[test]
fn a_client_that_vanishes_at_any_step_leaves_nothing_behind() {
    let source = Source::start(DriverChoice::Mio, 1);
    for step in 0..4 {
        let raw = Raw::connect(&source, "c");
        match step {
            0 => {}
            1 => {
                raw.wait("connection", |r| match r {
                    Received::Event(Event::Status { new: Status::Connected, .. }) => Some(()),
                    _ => None,
                });
            }
            2 => raw.ready(),
            _ => {
                raw.ready();
                let ping = b"\x99\x01\x00\xa0\xa1r\xc0\x01\x00\xc2\xc4\x00";
                raw.engine.send(raw.channel, ping).unwrap();
                raw.engine.finish(raw.channel).unwrap();
                raw.end();
            }
        }
        drop(raw);
        wait_until("nobody left", || source.server.stats().clients == 0);
    }
}

#[test]
fn what_waits_too_long_to_be_taken_ends_the_client() {
    let limit = trunkline::Duration::from_secs(1);
    let config = SourceConfig { stall_limit: limit, open_limit: limit, ..SourceConfig::default() };
    let source = Source::with(DriverChoice::Mio, 1, &config, identity(), loopback());
    // Connects, and never opens its channel.
    let engine = QueuedEngine::start(engine_config(DriverChoice::Mio, 1)).unwrap();
    let mut config = connect(source.addr, &source.identity);
    config.credential = format!("{} c controller", token("app", "*").as_str()).into_bytes();
    let conn = engine.connect(&config, None).unwrap();
    let channel =
        trunkline::Channel::from_parts(conn, trunkline_proto::ids::ChannelKey { slot: 0, life: 0 });
    let raw = Raw { engine, conn, channel };
    assert_eq!(raw.end(), Abort::ClientNotAlive.reason());
}

/// Packets pass between partners, whichever shards they are on, and to nobody else.
#[test]
fn packets_are_relayed_between_partners() {
    for driver in drivers() {
        for shards in [1, 3] {
            let source = Source::start(driver, shards);
            let c = source.client("app", "c", PairingRole::Controller);
            let responders: Vec<Client> = (0..4)
                .map(|n| source.client("app", &format!("r{n}"), PairingRole::Responder))
                .collect();
            assert!(c.0.send_relayed(b"x").is_err(), "there is no partner");
            for (n, r) in responders.iter().enumerate() {
                r.reaches(PairingState::ReadyToPair);
                c.assign(&format!("r{n}"));
                r.reaches(PairingState::Interacting);
                c.reaches(PairingState::Interacting);
                exchange(&c, r, &[n as u8; 1200]);
                exchange(r, &c, b"back");
            }
            assert!(c.0.send_relayed(&[0; 1201]).is_err(), "too large");
            for r in &responders {
                assert_eq!(r.0.recv_relayed(Duration::ZERO), None);
            }
            let stats = source.server.stats().source.relay;
            assert!(stats.delivered >= 8 && stats.delivered_bytes >= 4 * 1204);
            assert_eq!((stats.malformed, stats.blocked, stats.oversize), (0, 0, 0));
        }
    }
}

/// Sends `packet` until it has arrived: the other's channel may not be open yet.
fn exchange(from: &Client, to: &Client, packet: &[u8]) {
    let start = Instant::now();
    loop {
        let _ = from.0.send_relayed(packet);
        if let Some(received) = to.0.recv_relayed(Duration::from_millis(200)) {
            assert_eq!(*received, *packet);
            while to.0.recv_relayed(Duration::from_millis(20)).is_some() {}
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no packet arrived");
    }
}

/// An event source that relays nothing goes on pairing.
#[test]
fn clients_pair_where_packets_are_not_relayed() {
    let config = SourceConfig { relay: false, ..SourceConfig::default() };
    let source = Source::with(DriverChoice::Mio, 1, &config, identity(), loopback());
    let c = source.client("app", "c", PairingRole::Controller);
    let r = source.client("app", "r", PairingRole::Responder);
    c.assign("r");
    r.reaches(PairingState::Interacting);
    c.reaches(PairingState::Interacting);
    wait_until("declined", || c.0.send_relayed(b"x").is_err());
    assert_eq!(r.0.recv_relayed(Duration::from_millis(50)), None);
    r.0.send(1, b"still here", false).unwrap();
    assert_eq!(c.event(), (1, b"still here".to_vec()));
}

/// STUN requests are answered with the address that they come from, and nothing else is answered.
#[test]
fn stun_is_answered_where_the_listener_says_so() {
    let request: [u8; 20] = *b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl";
    for driver in drivers() {
        let source = Source::start(driver, 2);
        let socket = std::net::UdpSocket::bind(loopback()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = [0; 100];
        for _ in 0..10 {
            socket.send_to(&request, source.addr).unwrap();
            let (len, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((len, from), (32, source.addr));
            assert_eq!(answer[..8], *b"\x01\x01\x00\x0c\x21\x12\xa4\x42");
            assert_eq!(answer[8..20], *b"abcdefghijkl");
            let port = u16::from_be_bytes([answer[26] ^ 0x21, answer[27] ^ 0x12]);
            assert_eq!(port, socket.local_addr().unwrap().port());
        }
        let mut foreign = request;
        foreign[0] = 1;
        socket.send_to(&foreign, source.addr).unwrap();
        socket.send_to(&request[..19], source.addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(socket.recv_from(&mut answer).is_err());
        let counts = source.server.engine_stats().total();
        assert_eq!((counts.stun_answered, counts.stun_dropped), (10, 2));
    }
    // Not asked for, not answered.
    let engine = QueuedEngine::start(engine_config(DriverChoice::Mio, 1)).unwrap();
    let addr = engine.listen(&listen(&identity())).unwrap().local_addr;
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.send_to(&request, addr).unwrap();
    assert!(socket.recv_from(&mut [0; 100]).is_err());
}
