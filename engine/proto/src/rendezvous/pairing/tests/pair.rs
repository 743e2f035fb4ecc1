//! Rows: roles, ping, partner limit, inactive, unassign, reject.

use super::*;
use PairingRole::{Controller, Responder};
use PairingState::*;

/// Row "ping": every 5 s searching.
#[test]
fn pings_every_5_s_while_searching() {
    let mut side = Side::searching(Controller, "me", "you");
    side.pass(Duration::from_millis(4_999));
    assert!(side.sent.is_empty());
    side.pass(Duration::from_millis(1));
    assert_eq!(side.to(), [(EventType::Ping, "you")]);
    side.seconds(60);
    assert_eq!(side.sent.len(), 13);
}

/// Row "ping": every 10 s interacting.
#[test]
fn pings_every_10_s_while_interacting() {
    let mut side = Side::interacting(Controller, "me", "you");
    for second in 1..=60 {
        side.seconds(1);
        side.hear(EventType::Ping, "you");
        assert_eq!(side.sent.len(), second / 10, "after {second} s");
    }
    assert!(side.kinds().iter().all(|k| *k == EventType::Ping));
}

/// Row "ping": at once on entering interacting.
#[test]
fn pings_at_once_on_entering_interacting() {
    let mut side = Side::searching(Responder, "me", "you");
    side.seconds(1);
    side.hear(EventType::Ping, "you");
    assert_eq!((side.state(), side.kinds()), (Interacting, vec![EventType::Ping]));
    side.hear(EventType::Ping, "you");
    assert_eq!(side.sent.len(), 1, "once");
}

/// Row "ping": at once on entering searching from ready_to_pair.
#[test]
fn pings_at_once_on_entering_searching_from_ready_to_pair() {
    let mut side = Side::connected(Controller, "me");
    side.assign(Some("you"));
    assert_eq!((side.state(), side.to()), (Searching, vec![(EventType::Ping, "you")]));
}

/// Row "ping": at once on entering searching from connecting.
#[test]
fn pings_at_once_on_entering_searching_from_connecting() {
    let mut side = Side::new(Controller);
    side.call(|p, now| p.assign_partner(now, Some(client("you"))).unwrap());
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
    side.call(|p, now| p.set_active(now, true));
    assert_eq!(side.state(), Connecting);
    assert!(side.sent.is_empty());
    side.call(Pairing::connection_open);
    assert_eq!((side.state(), side.to()), (Searching, vec![(EventType::Ping, "you")]));
}

#[test]
fn no_ping_before_its_time_when_interacting_ends() {
    let mut side = Side::interacting(Controller, "me", "you");
    side.seconds(1);
    side.hear(EventType::Inactive, "you");
    assert_eq!(side.state(), Searching);
    assert!(side.sent.is_empty());
    side.seconds(4);
    assert_eq!(side.kinds(), [EventType::Ping], "5 s after the last one");
    // Which may be over when it ends.
    let mut side = Side::interacting(Controller, "me", "you");
    side.seconds(6);
    side.hear(EventType::Inactive, "you");
    assert!(side.sent.is_empty());
    side.seconds(0);
    assert_eq!(side.kinds(), [EventType::Ping]);
}

/// Row "ping": any event sent restarts the interval.
#[test]
fn any_event_sent_to_the_partner_restarts_the_interval() {
    let mut side = Side::interacting(Controller, "me", "you");
    side.seconds(9);
    side.call(|p, now| p.send(now, 1, b"x", false).unwrap());
    side.clear();
    side.pass(Duration::from_millis(9_999));
    assert!(side.sent.is_empty());
    side.pass(Duration::from_millis(1));
    assert_eq!(side.kinds(), [EventType::Ping]);
    side.hear(EventType::Ping, "you");
    side.clear();
    side.seconds(9);
    side.call(|p, now| p.send_route(now, 1, b"x").unwrap());
    side.clear();
    side.seconds(9);
    assert!(side.sent.is_empty());
}

/// A flood of strangers' pings keeps no ping back.
#[test]
fn answers_to_strangers_do_not_restart_the_interval() {
    let mut side = Side::searching(Controller, "me", "you");
    for _ in 0..10 {
        side.pass(Duration::from_millis(500));
        side.hear(EventType::Ping, "other");
    }
    let pings = side.to().into_iter().filter(|to| *to == (EventType::Ping, "you")).count();
    assert_eq!((pings, side.sent.len()), (1, 11));
}

/// Row "partner limit": 25 s without any event from the partner.
#[test]
fn after_25_s_of_silence_interacting_becomes_searching() {
    for kind in [EventType::Ping, EventType::Application, EventType::Route] {
        let mut side = Side::interacting(Controller, "me", "you");
        side.seconds(20);
        side.hear(kind, "you");
        side.pass(Duration::from_millis(24_999));
        assert_eq!(side.state(), Interacting);
        side.pass(Duration::from_millis(1));
        assert_eq!(side.state(), Searching);
        side.hear(kind, "you");
        assert_eq!(side.state(), Interacting, "{kind}");
    }
}

/// Row "inactive": sent to the partner on going passive.
#[test]
fn going_passive_sends_inactive() {
    for role in PairingRole::ALL {
        let mut side = Side::interacting(role, "me", "you");
        side.call(|p, now| p.set_active(now, false));
        assert_eq!(side.to(), [(EventType::Inactive, "you")]);
        assert_eq!((side.state(), side.disconnects), (Passive, 1));
        // First said, then gone.
        let said = side.log.iter().position(|o| matches!(o, Output::Send(_))).unwrap();
        let gone = side.log.iter().position(|o| *o == Output::Disconnect).unwrap();
        assert!(said < gone);
        let mut side = Side::connected(role, "me");
        side.call(|p, now| p.set_active(now, false));
        assert!(side.sent.is_empty(), "nobody to tell");
    }
}

/// Row "inactive": the receiver goes interacting → searching at once.
#[test]
fn inactive_makes_the_receiver_search_at_once() {
    for role in PairingRole::ALL {
        let mut side = Side::interacting(role, "me", "you");
        side.hear(EventType::Inactive, "you");
        assert_eq!(side.state(), Searching);
        side.hear(EventType::Ping, "you");
        assert_eq!(side.state(), Interacting, "it is back");
    }
}

/// Row "unassign": a controller whose partner is taken away sends it to the previous partner.
#[test]
fn a_controller_tells_the_partner_that_is_taken_away() {
    let mut side = Side::interacting(Controller, "me", "you");
    side.assign(None);
    assert_eq!((side.to(), side.state()), (vec![(EventType::Unassign, "you")], ReadyToPair));
    let mut side = Side::interacting(Controller, "me", "you");
    side.assign(Some("other"));
    assert_eq!(side.to(), [(EventType::Unassign, "you"), (EventType::Ping, "other")]);
    assert_eq!(side.state(), Searching);
}

#[test]
fn a_responder_sends_no_unassign() {
    let mut side = Side::interacting(Responder, "me", "you");
    side.assign(None);
    assert!(side.sent.is_empty());
    assert_eq!(side.state(), ReadyToPair);
}

/// Row "unassign": not if it was rejected.
#[test]
fn a_rejecter_gets_no_unassign() {
    let mut side = Side::searching(Controller, "me", "you");
    reject(&mut side, Reject::AssignedToOther);
    side.clear();
    side.assign(Some("other"));
    assert_eq!(side.to(), [(EventType::Ping, "other")]);
}

/// Row "unassign": a receiver that had the sender as partner drops it.
#[test]
fn unassign_makes_the_receiver_drop_its_partner() {
    let mut side = Side::interacting(Responder, "me", "you");
    side.hear(EventType::Unassign, "other");
    assert_eq!(side.state(), Interacting);
    side.hear(EventType::Unassign, "you");
    assert_eq!((side.state(), side.pairing.partner()), (ReadyToPair, None));
    assert!(side.notices.contains(&Notice::Partner(None)));
    assert!(side.sent.is_empty());
    side.seconds(60);
    assert!(side.sent.is_empty(), "no ping without a partner");
}

/// A partner that could not be told is told later.
#[test]
fn unassign_is_made_up_for_when_the_source_is_back() {
    let mut side = Side::interacting(Controller, "me", "you");
    side.call(Pairing::connection_closed);
    side.assign(Some("other"));
    assert!(side.sent.is_empty());
    side.seconds(1);
    side.call(Pairing::connection_open);
    assert_eq!(side.to(), [(EventType::Ping, "other"), (EventType::Unassign, "you")]);
    side.clear();
    // Taken back in time: nothing to tell.
    side.call(Pairing::connection_closed);
    side.assign(Some("you"));
    side.assign(Some("other"));
    side.seconds(1);
    side.call(Pairing::connection_open);
    assert_eq!(side.to(), [(EventType::Ping, "other")]);
}

/// Receives the partner's answer to our last ping.
pub(super) fn reject(side: &mut Side, reason: Reject) {
    let partner = side.pairing.partner().unwrap().to_string();
    let me = side.pairing.client().unwrap().to_string();
    let role = side.pairing.role().partner();
    let received = side.pairing.sent;
    let answer = event(EventType::Reject, &partner, role);
    let subtype = reason.to_wire();
    side.receive(&EventRef { to: &me, subtype, received, ..answer });
}

/// Row "reject": answers a ping from anybody but the assigned partner.
#[test]
fn a_stranger_is_told_assigned_to_other() {
    for role in PairingRole::ALL {
        for mut side in [Side::searching(role, "me", "you"), Side::interacting(role, "me", "you")] {
            let me = side.pairing.client().unwrap().to_string();
            let ping = event(EventType::Ping, "other", role.partner());
            side.receive(&EventRef { to: &me, sent: 77, ..ping });
            let [answer] = &side.sent[..] else { panic!("{:?}", side.sent) };
            assert_eq!((answer.kind, answer.to.as_str()), (EventType::Reject, "other"));
            assert_eq!(Reject::from_wire(answer.subtype), Reject::AssignedToOther);
            assert_eq!(answer.received, 77, "it says which ping it answers");
            assert_eq!(side.pairing.partner(), Some(&client("you")));
        }
    }
}

/// Row "reject": a controller without a partner says `not_paired`.
#[test]
fn a_controller_without_partner_tells_not_paired() {
    let mut side = Side::connected(Controller, "me");
    side.hear(EventType::Ping, "other");
    assert_eq!(side.to(), [(EventType::Reject, "other")]);
    assert_eq!(Reject::from_wire(side.sent[0].subtype), Reject::NotPaired);
    assert_eq!(side.pairing.partner(), None, "a controller adopts nobody");
}

/// Row "reject": the receiver leaves paired and stops pinging until another partner is assigned.
#[test]
fn a_rejected_client_stops_pinging_until_another_partner_is_assigned() {
    for reason in Reject::ALL {
        let mut side = Side::searching(Controller, "me", "you");
        reject(&mut side, reason);
        assert_eq!((side.state(), side.pairing.rejected()), (ReadyToPair, Some(reason)));
        let partner = client("you");
        assert!(side.notices.contains(&Notice::Rejected { partner, reason }));
        side.assign(Some("you"));
        side.seconds(600);
        side.hear(EventType::Ping, "you");
        side.hear(EventType::Application, "you");
        assert_eq!((side.state(), side.sent.len()), (ReadyToPair, 0), "{reason}");
        side.assign(Some("other"));
        assert_eq!(side.to(), [(EventType::Ping, "other")]);
    }
}

/// Row "reject": … or until its client id is reassigned.
#[test]
fn a_rejected_client_starts_again_when_its_id_is_reassigned() {
    let mut side = Side::searching(Controller, "me", "you");
    reject(&mut side, Reject::AssignedToOther);
    side.clear();
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    assert_eq!(side.to(), [(EventType::Ping, "you")]);
    assert_eq!(side.disconnects, 0, "the same id needs no other connection");
    reject(&mut side, Reject::AssignedToOther);
    side.clear();
    side.call(|p, now| p.assign_client_id(now, Some(client("me2"))).unwrap());
    assert_eq!((side.state(), side.disconnects), (Connecting, 1));
    assert!(side.sent.is_empty());
    side.call(Pairing::connection_open);
    assert_eq!(side.to(), [(EventType::Ping, "you")]);
}

/// An answer to a ping of an earlier assignment, still on its way, ends nothing.
#[test]
fn a_late_reject_does_not_hurt_a_new_assignment() {
    let mut side = Side::searching(Controller, "me", "you");
    let old = side.pairing.sent;
    side.assign(None);
    side.assign(Some("you"));
    let late = event(EventType::Reject, "you", Responder);
    side.receive(&EventRef { to: "me", subtype: 1, received: old, ..late });
    assert_eq!(side.state(), Searching);
    side.receive(&EventRef { to: "me", subtype: 1, received: u64::MAX, ..late });
    assert_eq!(side.state(), Searching, "and one to a ping that never was");
    reject(&mut side, Reject::AssignedToOther);
    assert_eq!(side.state(), ReadyToPair);
}

#[test]
fn only_the_partner_can_reject() {
    let mut side = Side::searching(Controller, "me", "you");
    let received = side.pairing.sent;
    let answer = event(EventType::Reject, "other", Responder);
    side.receive(&EventRef { to: "me", subtype: 1, received, ..answer });
    assert_eq!(side.state(), Searching);
}

/// Row "roles": a responder adopts the sender of the first ping from a controller.
#[test]
fn a_responder_adopts_the_first_controller_that_pings() {
    let mut side = Side::connected(Responder, "me");
    side.hear_as(EventType::Ping, "r", Responder);
    side.hear(EventType::Application, "c0");
    side.hear(EventType::Inactive, "c0");
    assert_eq!((side.state(), side.sent.len()), (ReadyToPair, 0), "no ping of a controller");
    side.hear(EventType::Ping, "c1");
    assert_eq!((side.state(), side.pairing.partner()), (Interacting, Some(&client("c1"))));
    assert_eq!(side.to(), [(EventType::Ping, "c1")]);
    assert!(side.notices.contains(&Notice::Partner(Some(client("c1")))));
    side.hear(EventType::Ping, "c2");
    assert_eq!(side.pairing.partner(), Some(&client("c1")));
    assert_eq!(side.to()[1], (EventType::Reject, "c2"));
}

/// Row "roles": a responder may be given its partner.
#[test]
fn a_responder_may_be_given_its_partner() {
    let mut side = Side::searching(Responder, "me", "you");
    side.hear(EventType::Ping, "other");
    assert_eq!(side.to(), [(EventType::Reject, "other")]);
    side.hear(EventType::Ping, "you");
    assert_eq!(side.state(), Interacting);
}

/// Row "roles": a controller must be given its partner.
#[test]
fn a_controller_waits_to_be_given_its_partner() {
    let mut side = Side::connected(Controller, "me");
    side.seconds(600);
    assert_eq!((side.state(), side.sent.len()), (ReadyToPair, 0));
    assert_eq!(side.pairing.next_timeout(), None);
}

/// Row "responder without partner outside ready_to_pair": ignores pings, no reject.
#[test]
fn a_responder_outside_ready_to_pair_ignores_pings() {
    let mut side = Side::new(Responder);
    let deaf = |side: &mut Side, state| {
        assert_eq!(side.state(), state);
        side.receive(&EventRef { to: "me", ..event(EventType::Ping, "you", Controller) });
        assert_eq!((side.state(), side.sent.len()), (state, 0));
        assert_eq!(side.pairing.partner(), None);
    };
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    deaf(&mut side, Passive);
    side.call(|p, now| p.set_active(now, true));
    deaf(&mut side, ReadyToConnect);
    side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
    deaf(&mut side, Connecting);
    side.call(|p, now| p.connection_aborted(now, Abort::NotAuthorized));
    deaf(&mut side, ReadyToConnect);
}

/// A responder that a controller has taken and then rejects is free for the next one.
#[test]
fn an_adopted_partner_that_rejects_is_dropped() {
    let mut side = Side::connected(Responder, "me");
    side.hear(EventType::Ping, "c1");
    side.clear();
    reject(&mut side, Reject::NotPaired);
    assert_eq!((side.state(), side.pairing.partner()), (ReadyToPair, None));
    let (partner, reason) = (client("c1"), Reject::NotPaired);
    assert!(side.notices.contains(&Notice::Rejected { partner, reason }));
    assert!(side.notices.contains(&Notice::Partner(None)));
    side.seconds(60);
    assert!(side.sent.is_empty());
    side.hear(EventType::Ping, "c2");
    assert_eq!(side.to(), [(EventType::Ping, "c2")]);
    // One that it was given stays.
    let mut side = Side::searching(Responder, "me", "you");
    reject(&mut side, Reject::AssignedToOther);
    side.hear(EventType::Ping, "c2");
    assert_eq!(side.pairing.partner(), Some(&client("you")));
}
