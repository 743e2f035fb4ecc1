//! Rows: abort, same client id twice (the client's side), leaving paired, connections.

use super::*;
use PairingRole::{Controller, Responder};
use PairingState::*;

/// Row "abort": back to ready_to_connect, until something is assigned.
#[test]
fn every_abort_leads_back_to_ready_to_connect() {
    for reason in Abort::ALL {
        for mut side in
            [Side::interacting(Controller, "me", "you"), Side::connected(Responder, "me")]
        {
            side.call(|p, now| p.connection_aborted(now, reason));
            assert_eq!(side.state(), ReadyToConnect);
            assert!(side.notices.contains(&Notice::Aborted(reason)));
            side.seconds(3600);
            assert!(side.connects.is_empty(), "{reason}: it is not tried again by itself");
            let mut again = |f: fn(&mut Pairing, Instant)| {
                side.clear();
                side.call(f);
                assert_eq!((side.state(), side.connects.len()), (Connecting, 1), "{reason}");
                side.call(|p, now| p.connection_aborted(now, reason));
                assert_eq!(side.state(), ReadyToConnect);
            };
            again(|p, now| p.assign_access_token(now, Some(token("t"))));
            again(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
            again(|p, now| p.assign_client_id(now, Some(client("me3"))).unwrap());
            again(|p, now| {
                p.set_active(now, false);
                p.set_active(now, true);
            });
        }
    }
}

/// Row "same client id twice": the older one does not fight for its place.
#[test]
fn a_released_client_stays_away() {
    let mut side = Side::interacting(Controller, "me", "you");
    side.call(|p, now| p.connection_aborted(now, Abort::ReleasedByOther));
    side.seconds(3600);
    assert!(side.connects.is_empty() && side.sent.is_empty());
    assert_eq!(side.pairing.next_timeout(), None);
}

#[test]
fn a_token_that_came_during_the_attempt_is_tried() {
    let mut side = Side::new(Controller);
    side.call(|p, now| p.set_active(now, true));
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    side.call(|p, now| p.assign_access_token(now, Some(token("old"))));
    side.call(|p, now| p.assign_access_token(now, Some(token("new"))));
    assert_eq!(side.connects.len(), 1);
    side.call(|p, now| p.connection_aborted(now, Abort::InvalidAccessToken));
    side.seconds(1);
    assert_eq!(side.connects.last().unwrap().1, token("new"));
    side.call(|p, now| p.connection_aborted(now, Abort::InvalidAccessToken));
    side.seconds(60);
    assert_eq!(side.connects.len(), 2);
}

/// Row "leaving paired": from the context that is being left.
#[test]
fn farewells_come_from_the_context_that_is_left() {
    // Another id: a controller takes itself away, so that its responder is free for the new one.
    let mut side = Side::interacting(Controller, "me", "you");
    side.call(|p, now| p.assign_client_id(now, Some(client("new"))).unwrap());
    let [Output::Send(farewell), Output::Disconnect, ..] = &side.log[..] else {
        panic!("{:?}", side.log)
    };
    assert_eq!(farewell.kind, EventType::Unassign);
    assert_eq!((&farewell.from, &farewell.to), (&Some(client("me")), &client("you")));
    assert_eq!(side.connects[0].0, client("new"));
    // A responder goes inactive under its old id.
    let mut side = Side::interacting(Responder, "me", "you");
    side.call(|p, now| p.assign_client_id(now, Some(client("new"))).unwrap());
    assert_eq!(side.to(), [(EventType::Inactive, "you")]);
    assert_eq!(side.sent[0].from, Some(client("me")));
    // No id at all is passive.
    for role in PairingRole::ALL {
        let mut side = Side::interacting(role, "me", "you");
        side.call(|p, now| p.assign_client_id(now, None).unwrap());
        assert_eq!(side.to(), [(EventType::Inactive, "you")]);
        assert_eq!(side.sent[0].from, Some(client("me")));
        assert_eq!((side.state(), side.disconnects), (Passive, 1));
    }
    // Another partner: the old one is told.
    let mut side = Side::interacting(Controller, "me", "you");
    side.assign(Some("other"));
    assert_eq!(side.sent[0].to, client("you"));
    // The token is taken away.
    let mut side = Side::interacting(Responder, "me", "you");
    side.call(|p, now| p.assign_access_token(now, None));
    assert_eq!(side.to(), [(EventType::Inactive, "you")]);
    assert_eq!((side.state(), side.disconnects), (ReadyToConnect, 1));
}

#[test]
fn a_lost_connection_is_made_again_with_growing_pauses() {
    let mut side = Side::connected(Controller, "me");
    side.call(Pairing::connection_closed);
    assert_eq!((side.state(), side.connects.len()), (ReadyToConnect, 0));
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let from = side.now;
        let at = side.pairing.next_timeout().unwrap();
        side.pass(at.since(from));
        assert_eq!((side.state(), side.connects.len()), (Connecting, 1));
        pauses.push(at.since(from).as_millis());
        side.clear();
        side.call(Pairing::connection_closed);
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    // One that lasted starts anew; one that is lost at once does not.
    side.seconds(30);
    side.call(Pairing::connection_open);
    side.seconds(29);
    side.call(Pairing::connection_closed);
    assert_eq!(side.pairing.next_timeout(), Some(side.now + Duration::from_secs(30)));
    side.seconds(30);
    side.call(Pairing::connection_open);
    side.seconds(30);
    side.call(Pairing::connection_closed);
    assert_eq!(side.pairing.next_timeout(), Some(side.now + Duration::from_millis(250)));
}

/// A client that has all it needs, whose pauses come from `seed`.
fn about_to_connect(seed: u64) -> Side {
    let config = PairingConfig { backoff_seed: seed, ..PairingConfig::default() };
    let mut side = Side::with(Controller, config);
    side.call(|p, now| p.set_active(now, true));
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
    side
}

#[test]
fn pauses_differ_from_client_to_client() {
    let pause = |seed| {
        let mut side = about_to_connect(seed);
        side.call(Pairing::connection_closed);
        side.pairing.next_timeout().unwrap().since(side.now).as_micros()
    };
    let mut pauses: Vec<u64> = (1..=1000).map(pause).collect();
    assert!(pauses.iter().all(|p| (125_000..=250_000).contains(p)));
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 900);
    assert!(pauses[100] < 150_000 && pauses[pauses.len() - 100] > 225_000, "spread out");
    assert_eq!(pause(5), pause(5));
}

/// The clients of a source that is restarted come back one after the other.
#[test]
fn lost_connections_are_made_again_spread_over_two_seconds() {
    let pause = |seed| {
        let mut side = about_to_connect(seed);
        side.call(Pairing::connection_open);
        side.call(Pairing::connection_closed);
        side.pairing.next_timeout().unwrap().since(side.now).as_millis()
    };
    let mut tenths = [0; 23];
    for seed in 1..=1000 {
        let pause = pause(seed);
        assert!((125..=2_250).contains(&pause), "{pause} ms");
        tenths[pause as usize / 100] += 1;
    }
    assert!(tenths[3..20].iter().all(|n| (25..=80).contains(n)), "{tenths:?}");
}

#[test]
fn a_pair_survives_a_restart_of_the_source() {
    let mut side = Side::interacting(Controller, "me", "you");
    side.call(Pairing::connection_closed);
    assert_eq!(side.state(), ReadyToConnect);
    side.seconds(1);
    side.call(Pairing::connection_open);
    assert_eq!(side.state(), Interacting, "heard within the limit");
    assert_eq!(side.to(), [(EventType::Ping, "you")]);
    side.call(Pairing::connection_closed);
    side.seconds(30);
    side.clear();
    side.call(Pairing::connection_open);
    assert_eq!(side.state(), Searching);
    assert_eq!(side.to(), [(EventType::Ping, "you")]);
}

#[test]
fn notices_that_fit_no_attempt_change_nothing() {
    let mut side = Side::new(Controller);
    side.call(Pairing::connection_open);
    side.call(Pairing::connection_closed);
    side.call(|p, now| p.connection_aborted(now, Abort::InvalidRole));
    assert_eq!((side.state(), side.log.len()), (Passive, 0));
    side.call(|p, now| p.set_active(now, true));
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
    assert_eq!(side.state(), Connecting, "the abort of nothing was none");
}

#[test]
fn passive_closes_a_connection_that_is_being_made() {
    let mut side = Side::new(Responder);
    side.call(|p, now| p.set_active(now, true));
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
    side.call(|p, now| p.set_active(now, false));
    assert_eq!((side.state(), side.disconnects), (Passive, 1));
    side.call(Pairing::connection_open);
    assert_eq!(side.state(), Passive);
}
