//! Row "events": buffered ones, their bounded queue, their rate, counts, bodies.

use super::*;
use PairingRole::Controller;

fn send(side: &mut Side, subtype: u16, buffered: bool) -> Result<Sent, ApiError> {
    side.call(|p, now| p.send(now, subtype, b"body", buffered))
}

fn subtypes(side: &Side) -> Vec<u16> {
    let sent = side.sent.iter().filter(|e| e.kind == EventType::Application);
    sent.map(|e| e.subtype).collect()
}

#[test]
fn a_buffered_event_waits_while_not_paired_and_is_sent_on_pairing() {
    let mut side = Side::connected(Controller, "me");
    assert_eq!(send(&mut side, 1, true), Ok(Sent::Queued));
    assert!(matches!(send(&mut side, 2, false), Err(ApiError::NoConnection(_))));
    assert_eq!(side.pairing.waiting_events(), 1);
    side.assign(Some("you"));
    assert_eq!(side.to(), [(EventType::Ping, "you"), (EventType::Application, "you")]);
    assert!(side.sent[1].buffered && side.sent[1].subtype == 1);
    assert_eq!(&*side.sent[1].body, b"body");
    assert_eq!(side.pairing.waiting_events(), 0);
}

#[test]
fn application_events_are_sent_at_most_once_a_second() {
    let mut side = Side::searching(Controller, "me", "you");
    assert_eq!(send(&mut side, 1, false), Ok(Sent::Now));
    assert!(matches!(send(&mut side, 2, false), Err(ApiError::Dropped(_))));
    assert_eq!(send(&mut side, 3, true), Ok(Sent::Queued));
    assert_eq!(send(&mut side, 4, true), Ok(Sent::Queued));
    side.pass(Duration::from_millis(999));
    assert_eq!(subtypes(&side), [1]);
    side.pass(Duration::from_millis(1));
    assert_eq!(subtypes(&side), [1, 3]);
    side.seconds(1);
    assert_eq!(subtypes(&side), [1, 3, 4]);
    side.seconds(1);
    assert_eq!(send(&mut side, 5, false), Ok(Sent::Now));
}

#[test]
fn the_rate_can_be_configured_away() {
    let config = PairingConfig { event_interval: Duration::ZERO, ..PairingConfig::default() };
    let mut side = Side::with(Controller, config);
    for n in 0..10 {
        assert_eq!(send(&mut side, n, true), Ok(Sent::Queued));
    }
    side.call(|p, now| p.assign_partner(now, Some(client("you"))).unwrap());
    side.call(|p, now| p.set_active(now, true));
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
    side.call(Pairing::connection_open);
    assert_eq!(subtypes(&side), (0..10).collect::<Vec<_>>(), "all at once, in order");
    for n in 10..20 {
        assert_eq!(send(&mut side, n, false), Ok(Sent::Now));
    }
}

#[test]
fn control_and_route_events_are_exempt_from_the_rate() {
    let mut side = Side::searching(Controller, "me", "you");
    assert_eq!(send(&mut side, 1, false), Ok(Sent::Now));
    for n in 0..5 {
        side.call(|p, now| p.send_route(now, n, b"candidate").unwrap());
    }
    side.hear(EventType::Ping, "you");
    side.hear(EventType::Ping, "other");
    side.assign(None);
    let kinds = side.kinds();
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!(count(EventType::Route), 5);
    assert_eq!((count(EventType::Ping), count(EventType::Reject)), (1, 1));
    assert_eq!(count(EventType::Unassign), 1);
}

#[test]
fn the_queue_is_bounded_in_events_and_bytes() {
    let mut side = Side::new(Controller);
    for n in 0..64 {
        assert_eq!(send(&mut side, n, true), Ok(Sent::Queued));
    }
    assert!(matches!(send(&mut side, 64, true), Err(ApiError::WouldBlock(_))));
    let mut side = Side::new(Controller);
    for _ in 0..8 {
        side.call(|p, now| p.send(now, 0, &[0; MAX_EVENT_BODY], true)).unwrap();
    }
    let full = side.call(|p, now| p.send(now, 0, b"x", true));
    assert!(matches!(full, Err(ApiError::WouldBlock(_))));
    side.call(|p, now| p.send(now, 0, b"", true)).unwrap();
}

#[test]
fn a_body_is_at_most_8192_bytes() {
    let mut side = Side::searching(Controller, "me", "you");
    let long = vec![0; MAX_EVENT_BODY + 1];
    let too_large = ApiError::MessageTooLarge { len: 8193, limit: 8192 };
    assert_eq!(side.call(|p, now| p.send(now, 0, &long, true)), Err(too_large.clone()));
    assert_eq!(side.call(|p, now| p.send_route(now, 0, &long)), Err(too_large));
    side.call(|p, now| p.send(now, 0, &long[1..], false)).unwrap();
}

#[test]
fn what_waits_for_one_partner_never_goes_to_another() {
    let mut side = Side::searching(Controller, "me", "you");
    for n in 1..=3 {
        send(&mut side, n, true).unwrap();
    }
    side.clear();
    side.assign(Some("other"));
    side.seconds(10);
    assert!(subtypes(&side).is_empty());
    assert!(side.notices.contains(&Notice::Discarded(2)), "and the application knows");
    // What had no partner yet is for the next one.
    let mut side = Side::connected(Controller, "me");
    send(&mut side, 1, true).unwrap();
    side.assign(Some("other"));
    assert_eq!(subtypes(&side), [1]);
}

#[test]
fn an_event_waits_for_a_lost_source_too() {
    let mut side = Side::interacting(Controller, "me", "you");
    side.call(Pairing::connection_closed);
    assert_eq!(send(&mut side, 1, true), Ok(Sent::Queued));
    side.seconds(1);
    side.call(Pairing::connection_open);
    assert_eq!(subtypes(&side), [1]);
}

#[test]
fn events_count_what_was_sent_and_received() {
    let mut side = Side::interacting(Controller, "me", "you");
    let before = side.pairing.sent;
    let theirs = event(EventType::Application, "you", PairingRole::Responder);
    side.receive(&EventRef { to: "me", sent: 41, received: 3, buffered: true, ..theirs });
    let expected = Notice::Event {
        from: client("you"),
        subtype: 0,
        buffered: true,
        sent: 41,
        received: 3,
        body: [].into(),
    };
    assert_eq!(side.notices, [expected]);
    send(&mut side, 1, false).unwrap();
    let ours = side.sent.last().unwrap();
    assert_eq!((ours.sent, ours.received), (before + 1, 2), "a ping and an event of the partner");
    // Another partner, another count; ours goes on.
    side.assign(Some("other"));
    assert_eq!(side.sent.last().unwrap().received, 0);
    assert_eq!(side.sent.last().unwrap().sent, before + 3);
}

#[test]
fn the_state_is_told_before_the_event_that_caused_it() {
    let mut side = Side::searching(Controller, "me", "you");
    side.hear(EventType::Application, "you");
    assert!(matches!(
        &side.notices[..],
        [Notice::State { new: PairingState::Interacting, .. }, Notice::Event { .. }]
    ));
}
