//! Pairings beside the other connections of a queued engine, with threads and without, and
//! connections with the partner that show like any other.

mod common;

use common::source::*;
use common::*;
use std::time::{Duration, Instant};
use trunkline::rendezvous::{Notice, PairingRole, PairingState, RouteConfig};
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, Conn, DriverChoice, EngineConfig, Event,
    Identity, PairingSettings, QueuedEngine, Received, Status,
};

/// One client, and what has happened to it.
struct Client {
    engine: QueuedEngine,
    pairing: u64,
    identity: Identity,
    seen: Vec<Received>,
}

impl Client {
    fn start(source: &Source, name: &str, role: PairingRole, threads: bool, link: bool) -> Self {
        let config = config(DriverChoice::Auto);
        let start = if threads { QueuedEngine::start } else { QueuedEngine::local };
        Self::of(start(config).unwrap(), source, name, role, link)
    }

    /// One that shares its engine.
    fn of(
        engine: QueuedEngine,
        source: &Source,
        name: &str,
        role: PairingRole,
        link: bool,
    ) -> Self {
        let identity = identity();
        let settings = PairingSettings {
            pairing: fast_pairing(),
            relay: true,
            identity: link.then(|| identity.clone()),
            route: RouteConfig { allow_loopback: true, ..RouteConfig::default() },
            ..PairingSettings::new(source.connect(), role)
        };
        let pairing = engine.pair(&settings, None).unwrap();
        engine.assign_client_id(pairing, Some(client(name))).unwrap();
        engine.assign_access_token(pairing, Some(token("app", name))).unwrap();
        engine.set_pairing_active(pairing, true).unwrap();
        Self { engine, pairing, identity, seen: Vec::new() }
    }

    fn look(&mut self) {
        if self.engine.is_threadless() {
            self.engine.poll(Some(Duration::from_millis(1))).unwrap();
        }
        self.engine.poll_group().recv_many(&mut self.seen, 100, Some(Duration::from_millis(1)));
    }

    fn state(&self) -> PairingState {
        self.engine.pairing_status(self.pairing).unwrap().state
    }

    /// The connections with the partner that were shown.
    fn peers(&self) -> Vec<Conn> {
        let peer = |received: &Received| match received {
            Received::Event(Event::Peer { pairing, conn }) => {
                assert_eq!(*pairing, self.pairing);
                Some(*conn)
            }
            _ => None,
        };
        self.seen.iter().filter_map(peer).collect()
    }

    fn messages(&self) -> Vec<(Channel, Vec<u8>)> {
        let message = |received: &Received| match received {
            Received::Message(m) => Some((m.channel, m.data.to_vec())),
            Received::Event(_) => None,
        };
        self.seen.iter().filter_map(message).collect()
    }
}

fn until(what: &str, all: &mut [&mut Client], mut done: impl FnMut(&mut [&mut Client]) -> bool) {
    let start = Instant::now();
    while !done(all) {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        for client in all.iter_mut() {
            client.look();
        }
    }
}

fn interacting(all: &mut [&mut Client]) {
    until("they find each other", all, |all| {
        all.iter().all(|client| client.state() == PairingState::Interacting)
    });
}

fn pair(source: &Source, threads: bool, link: bool) -> (Client, Client) {
    let bob = Client::start(source, "bob", PairingRole::Responder, threads, link);
    let alice = Client::start(source, "alice", PairingRole::Controller, threads, link);
    alice.engine.assign_partner(alice.pairing, Some(client("bob"))).unwrap();
    let (mut alice, mut bob) = (alice, bob);
    interacting(&mut [&mut alice, &mut bob]);
    (alice, bob)
}

#[test]
fn events_and_packets_go_from_client_to_client() {
    for threads in [true, false] {
        let source = Source::start(DriverChoice::Auto, 1);
        let (mut alice, mut bob) = pair(&source, threads, false);
        alice.engine.send_event(alice.pairing, 7, b"e2e4", true).unwrap();
        bob.engine.send_relayed(bob.pairing, b"packet").unwrap();
        let big = vec![0; 100_000];
        let refused = bob.engine.send_relayed(bob.pairing, &big);
        assert!(matches!(refused, Err(ApiError::MessageTooLarge { .. })), "{refused:?}");
        until("both arrive", &mut [&mut alice, &mut bob], |all| {
            let event = |received: &Received| match received {
                Received::Event(Event::Pairing {
                    notice: Notice::Event { subtype, body, .. },
                    ..
                }) => *subtype == 7 && **body == *b"e2e4",
                _ => false,
            };
            let packet = |received: &Received| match received {
                Received::Event(Event::Relayed { data, .. }) => **data == *b"packet",
                _ => false,
            };
            all[1].seen.iter().any(event) && all[0].seen.iter().any(packet)
        });
        let status = alice.engine.pairing_status(alice.pairing).unwrap();
        assert_eq!((status.partner, status.peer), (Some(client("bob")), None));
        let unable = alice.engine.connect_peer(alice.pairing, bob.identity.peer_id());
        assert!(matches!(unable, Err(ApiError::InvalidArgument { field: "identity", .. })));
        // The end of an engine is told to the partner.
        alice.engine.shutdown(Duration::from_secs(1)).unwrap();
        until("bob notices", &mut [&mut bob], |all| all[0].state() == PairingState::Searching);
        bob.engine.end_pairing(bob.pairing).unwrap();
        assert_eq!(bob.engine.end_pairing(bob.pairing), Err(ApiError::InvalidHandle));
        assert_eq!(bob.engine.pairing_status(bob.pairing), Err(ApiError::InvalidHandle));
        wait_until("nobody is left", || {
            if bob.engine.is_threadless() {
                bob.engine.poll(Some(Duration::ZERO)).unwrap();
            }
            source.server.stats().clients == 0
        });
    }
}

fn connected(client: &Client, conn: Conn) -> bool {
    client.engine.status(conn) == Status::Connected
}

#[test]
fn partners_get_a_connection_of_their_own() {
    for threads in [true, false] {
        let source = Source::start(DriverChoice::Auto, 1);
        let (mut alice, mut bob) = pair(&source, threads, true);
        bob.engine.accept_peer(bob.pairing, alice.identity.peer_id()).unwrap();
        alice.engine.connect_peer(alice.pairing, bob.identity.peer_id()).unwrap();
        until("a connection", &mut [&mut alice, &mut bob], |all| {
            all.iter().all(|c| c.peers().first().is_some_and(|conn| connected(c, *conn)))
        });
        let (at_alice, at_bob) = (alice.peers()[0], bob.peers()[0]);
        assert_eq!(alice.engine.info(at_alice).unwrap().peer, Some(bob.identity.peer_id()));
        let refused = alice.engine.send_relayed(alice.pairing, b"packet");
        assert!(matches!(refused, Err(ApiError::InvalidArgument { field: "identity", .. })));
        let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
        let channel = alice.engine.open_channel(at_alice, "chat", &options).unwrap();
        let long = pattern(300_000, 3);
        alice.engine.send(channel, b"hello").unwrap();
        alice.engine.send(channel, &long).unwrap();
        until("bob is asked", &mut [&mut alice, &mut bob], |all| {
            let request = |received: &Received| match received {
                Received::Event(Event::ChannelRequest { channel, name, .. }) => {
                    assert_eq!((channel.conn(), &**name), (at_bob, "chat"));
                    Some(*channel)
                }
                _ => None,
            };
            let asked = all[1].seen.iter().find_map(request);
            asked.is_some_and(|channel| {
                all[1].engine.accept_channel(channel, &options).unwrap();
                all[1].engine.send(channel, b"hello, too").unwrap();
                true
            })
        });
        until("all arrives", &mut [&mut alice, &mut bob], |all| {
            all[0].messages().len() == 1 && all[1].messages().len() == 2
        });
        assert_eq!(alice.messages()[0].1, b"hello, too");
        assert!(bob.messages()[1].1 == long);
        until("a direct path is found", &mut [&mut alice, &mut bob], |all| {
            all.iter().all(|client| {
                let event = |received: &Received| {
                    matches!(received, Received::Event(Event::Path { relayed: false, .. }))
                };
                client.engine.pairing_status(client.pairing).unwrap().direct
                    && client.seen.iter().any(event)
            })
        });
        // Closed by the application, and made once more.
        alice.engine.close(at_alice, 1200, "again", Some(Duration::from_secs(1))).unwrap();
        until("both are gone", &mut [&mut alice, &mut bob], |all| {
            let dead =
                |received: &Received| matches!(received, Received::Event(Event::Dead { .. }));
            all.iter().all(|client| client.seen.iter().any(dead))
        });
        alice.engine.connect_peer(alice.pairing, bob.identity.peer_id()).unwrap();
        until("another connection", &mut [&mut alice, &mut bob], |all| {
            all.iter().all(|c| c.peers().get(1).is_some_and(|conn| connected(c, *conn)))
        });
        let second = bob.peers()[1];
        alice.engine.leave_peer(alice.pairing).unwrap();
        until("bob hears of the end", &mut [&mut alice, &mut bob], |all| {
            !connected(all[1], second)
        });
    }
}

/// Two clients on one shard, each with its own identity, which its partner demands.
#[test]
fn pairings_of_one_shard_have_identities_of_their_own() {
    let source = Source::start(DriverChoice::Auto, 1);
    let engine = QueuedEngine::start(config(DriverChoice::Auto)).unwrap();
    let respond = PairingRole::Responder;
    let mut bob = Client::of(engine.clone(), &source, "bob", respond, true);
    let mut carol = Client::of(engine, &source, "carol", respond, true);
    let control = PairingRole::Controller;
    let mut alice = Client::start(&source, "alice", control, true, true);
    let mut dave = Client::start(&source, "dave", control, true, true);
    alice.engine.assign_partner(alice.pairing, Some(client("bob"))).unwrap();
    dave.engine.assign_partner(dave.pairing, Some(client("carol"))).unwrap();
    interacting(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    for (responder, controller) in [(&bob, &alice), (&carol, &dave)] {
        let id = controller.identity.peer_id();
        responder.engine.accept_peer(responder.pairing, id).unwrap();
    }
    for (responder, controller) in [(&bob, &alice), (&carol, &dave)] {
        let id = responder.identity.peer_id();
        controller.engine.connect_peer(controller.pairing, id).unwrap();
    }
    until("both are connected", &mut [&mut alice, &mut dave], |all| {
        all.iter().all(|c| c.peers().first().is_some_and(|conn| connected(c, *conn)))
    });
    for (controller, partner) in [(&alice, &bob), (&dave, &carol)] {
        let peer = controller.engine.info(controller.peers()[0]).unwrap().peer;
        assert_eq!(peer, Some(partner.identity.peer_id()));
    }
}

/// A pairing is one of the things that an engine does.
#[test]
fn a_pairing_lives_beside_other_connections_and_pairings() {
    let source = Source::start(DriverChoice::Auto, 1);
    let engine = QueuedEngine::start(EngineConfig { shards: 2, ..config(DriverChoice::Auto) });
    let engine = engine.unwrap();
    let mut pairings = Vec::new();
    for (name, role) in [("bob", PairingRole::Responder), ("alice", PairingRole::Controller)] {
        let settings = PairingSettings {
            pairing: fast_pairing(),
            ..PairingSettings::new(source.connect(), role)
        };
        let pairing = engine.pair(&settings, None).unwrap();
        engine.assign_client_id(pairing, Some(client(name))).unwrap();
        engine.assign_access_token(pairing, Some(token("app", name))).unwrap();
        engine.set_pairing_active(pairing, true).unwrap();
        pairings.push(pairing);
    }
    engine.assign_partner(pairings[1], Some(client("bob"))).unwrap();
    wait_until("they find each other", || {
        let state = |p| engine.pairing_status(p).unwrap().state;
        pairings.iter().all(|p| state(*p) == PairingState::Interacting)
    });
    let host = identity();
    let addr = engine.listen(&listen(&host)).unwrap().local_addr;
    let conn = engine.connect(&connect(addr, &host), None).unwrap();
    let mut out = Vec::new();
    wait_until("a connection with ourselves", || {
        engine.poll_group().recv_many(&mut out, 100, Some(Duration::ZERO));
        for received in out.drain(..) {
            if let Received::Event(Event::Incoming { conn, .. }) = received {
                engine.accept(conn).unwrap();
            }
        }
        engine.status(conn) == Status::Connected
    });
    assert!(
        engine
            .pair(
                &PairingSettings {
                    identity: Some(identity()),
                    ..PairingSettings::new(source.connect(), PairingRole::Responder)
                },
                None
            )
            .is_err(),
        "connections with the partner need the relay"
    );
    assert_eq!(engine.set_pairing_active(pairings[0] + 100, true), Err(ApiError::InvalidHandle));
}
