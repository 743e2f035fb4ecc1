//! Packets between clients: who may send to whom, how much, and what bad clients do.

use super::*;
use crate::limits::{MAX_RELAY_MESSAGE, MAX_RELAY_PACKET};
use crate::rendezvous::relay;

impl World {
    /// A pair whose channels of packets are open.
    fn relaying() -> Self {
        let mut world = Self::pair();
        assert!(world.source.relay_opened(1) && world.source.relay_opened(2));
        world
    }

    fn relay(&mut self, key: u32, to: &str, packet: &[u8]) {
        let mut message = Vec::new();
        relay::encode(&mut message, to, packet);
        self.relay_raw(key, &message);
    }

    fn relay_raw(&mut self, key: u32, message: &[u8]) {
        self.source.receive_relay(self.now, key, message, &mut self.out);
    }

    fn relayed(&mut self) -> Vec<(u32, String, Vec<u8>)> {
        let all = self.out.relayed.drain(..);
        all.map(|(to, message)| {
            let read = relay::decode(&message).unwrap();
            (to, read.client.to_owned(), read.packet.to_vec())
        })
        .collect()
    }

    fn drops(&self) -> RelayStats {
        self.source.stats().relay
    }
}

#[test]
fn packets_pass_between_partners_in_both_directions() {
    let mut world = World::relaying();
    world.relay(1, "r", b"there");
    world.relay(2, "c", &[9; MAX_RELAY_PACKET]);
    assert_eq!(
        world.relayed(),
        [(2, "c".into(), b"there".to_vec()), (1, "r".into(), vec![9; MAX_RELAY_PACKET])]
    );
    let stats = world.drops();
    assert_eq!((stats.delivered, stats.delivered_bytes), (2, 1205));
}

#[test]
fn a_client_without_the_channel_neither_sends_nor_gets_packets() {
    let mut world = World::pair();
    world.relay(1, "r", b"x");
    assert!(world.source.relay_opened(1));
    assert!(!world.source.relay_opened(1), "one channel for each client");
    assert!(!world.source.relay_opened(77), "nobody");
    world.relay(1, "r", b"x");
    assert!(world.relayed().is_empty());
    assert_eq!(world.drops().absent, 1);
    assert!(world.source.relay_opened(2));
    world.relay(1, "r", b"y");
    assert_eq!(world.relayed(), [(2, "c".into(), b"y".to_vec())]);
    // A channel that ended can be opened anew.
    world.source.relay_closed(2);
    world.relay(1, "r", b"z");
    assert!(world.relayed().is_empty() && world.source.relay_opened(2));
    // Who has gone gets nothing.
    world.source.gone(2);
    world.relay(1, "r", b"z");
    assert!(world.relayed().is_empty());
    assert_eq!(world.drops().absent, 3);
}

#[test]
fn packets_never_leave_their_application_nor_join_two_of_one_role() {
    let mut world = World::relaying();
    world.join(3, "other", "x", Responder);
    world.join(4, "app", "d", Controller);
    assert!(world.source.relay_opened(3) && world.source.relay_opened(4));
    world.relay(1, "x", b"across applications");
    world.relay(1, "d", b"of one role");
    world.relay(3, "c", b"across applications");
    world.relay(1, "nobody", b"x");
    assert!(world.relayed().is_empty());
    let stats = world.drops();
    assert_eq!((stats.blocked, stats.absent), (1, 3));
    // Even when a router brings it.
    let from = Party {
        app: AppId::new("other").unwrap(),
        client: ClientId::new("x").unwrap(),
        role: Responder,
    };
    let forged = Relayed::new(&from, "c", b"x").unwrap();
    world.source.relayed(&forged, &mut world.out);
    assert!(world.relayed().is_empty());
}

#[test]
fn the_name_in_a_relayed_packet_is_that_of_the_token() {
    let mut world = World::relaying();
    world.join(4, "app", "d", Controller);
    assert!(world.source.relay_opened(4));
    world.relay(4, "r", b"x");
    assert_eq!(world.relayed(), [(2, "d".into(), b"x".to_vec())]);
}

#[test]
fn relayed_packets_are_limited_in_number_and_bytes() {
    let mut world = World::with(SourceConfig {
        relay_packets_per_s: 10,
        relay_packets_burst: 20,
        relay_bytes_per_s: 2_000,
        relay_bytes_burst: 4_000,
        ..SourceConfig::default()
    });
    world.join(1, "app", "c", Controller);
    world.join(2, "app", "r", Responder);
    assert!(world.source.relay_opened(1) && world.source.relay_opened(2));
    for _ in 0..100 {
        world.relay(1, "r", b"x");
    }
    assert_eq!(world.relayed().len(), 20);
    // What one may send says nothing about the other.
    for _ in 0..100 {
        world.relay(2, "c", &[0; 998]);
    }
    assert_eq!(world.relayed().len(), 4);
    assert_eq!(world.drops().limited, 176);
    world.now += Duration::from_secs(1);
    for _ in 0..100 {
        world.relay(1, "r", b"x");
        world.relay(2, "c", &[0; 998]);
    }
    assert_eq!(world.relayed().len(), 12);
    assert!(world.out.aborted.is_empty(), "too much is no fault: it is how a sender finds out");
}

#[test]
fn a_recipient_without_room_loses_the_packet_and_nothing_waits() {
    let mut world = World::relaying();
    world.out.full.insert(2);
    world.relay(1, "r", b"lost");
    world.out.full.clear();
    world.source.writable(world.now, 2, &mut world.out);
    assert!(world.relayed().is_empty());
    assert_eq!((world.drops().overflowed, world.source.waiting()), (1, (0, 0)));
}

#[test]
fn bad_packets_are_dropped_and_a_flood_of_them_ends_the_client() {
    let mut world = World::relaying();
    world.relay_raw(1, b"");
    world.relay_raw(1, b"\x01r");
    world.relay_raw(1, b"\x09rpacket");
    world.relay_raw(1, b"\x01 packet");
    world.relay(1, "c", b"to itself");
    world.relay_raw(1, &[b'a'; MAX_RELAY_MESSAGE + 1]);
    let stats = world.drops();
    assert_eq!((stats.malformed, stats.oversize), (5, 1));
    assert!(world.relayed().is_empty() && world.out.aborted.is_empty());
    for _ in 0..600 {
        world.relay_raw(1, b"\x01r");
    }
    assert_eq!(world.out.aborted, [(1, Abort::NotAuthorized)]);
    world.relay(1, "r", b"x");
    assert!(world.relayed().is_empty());
}

#[test]
fn an_event_source_that_does_not_relay_declines_the_channel() {
    let mut world = World::with(SourceConfig { relay: false, ..SourceConfig::default() });
    world.join(1, "app", "c", Controller);
    assert!(!world.source.relay_opened(1));
    world.relay(1, "r", b"x");
    assert_eq!(world.drops(), RelayStats::default());
}

#[test]
fn counters_of_the_relay_have_names_and_add_up() {
    let mut world = World::relaying();
    world.relay(1, "r", b"12345");
    world.relay(1, "nobody", b"x");
    let mut sum = *world.source.stats();
    sum.add(world.source.stats());
    let value = |name, label: Option<&str>| {
        let all = sum.counters();
        all.iter().find(|c| c.name == name && c.label.map(|l| l.1) == label).map(|c| c.value)
    };
    assert_eq!(value("relay_packets_delivered", None), Some(2));
    assert_eq!(value("relay_bytes_delivered", None), Some(10));
    assert_eq!(value("relay_packets_dropped", Some("absent")), Some(2));
}

proptest! {
    /// Whatever arrives on channels of packets, a packet only ever passes unchanged between a
    /// controller and a responder of one application, in the name of who sent it.
    #[test]
    fn no_packet_passes_that_must_not(
        messages in proptest::collection::vec(
            (0..6u32, 0..7usize, proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()),
            1..100),
    ) {
        let names = ["a", "b", "c", "d", "e", "f", "nobody"];
        let mut world = World::new();
        for (key, name) in names[..6].iter().enumerate() {
            let app = if key < 4 { "app" } else { "other" };
            let role = if key % 2 == 0 { Controller } else { Responder };
            world.join(key as u32, app, name, role);
            assert!(world.source.relay_opened(key as u32));
        }
        for (key, to, packet, raw) in messages {
            if raw {
                world.relay_raw(key, &packet);
            } else {
                world.relay(key, names[to], &packet);
            }
            for (recipient, from, relayed) in world.relayed() {
                let sender = world.source.party(key).unwrap();
                let recipient = world.source.party(recipient).unwrap();
                prop_assert_eq!(from.as_str(), sender.client.as_str());
                prop_assert_eq!(&sender.app, &recipient.app);
                prop_assert_ne!(sender.role, recipient.role);
                prop_assert!(packet.ends_with(&relayed));
            }
        }
    }
}
