//! What a peer may say that it should not: Activity messages in every order and form.

use crate::net::{CLIENT, HOST, Net, Told, ms, secs};
use trunkline_proto::config::ChannelOptions;
use trunkline_proto::error::PeerMisbehaved;
use trunkline_proto::status::Status;
use trunkline_proto::wire::control::{
    Activity, ControlMessage, encode_activity, next_value, parse,
};

const IDLE: Activity = Activity::Idle { count: 7 };
const RETIRING: Activity = Activity::Retiring { count: 7, answers: 0x1234_5678 };

/// Every form that a level can have, and none that it cannot.
#[test]
fn activity_messages_are_checked_field_by_field() {
    let wire: [(Activity, &[u8]); 3] = [
        (Activity::Active, &[0x92, 0x03, 0x00]),
        (IDLE, &[0x93, 0x03, 0x01, 0x07]),
        (RETIRING, &[0x94, 0x03, 0x02, 0x07, 0xce, 0x12, 0x34, 0x56, 0x78]),
    ];
    for (level, expected) in wire {
        let mut bytes = Vec::new();
        encode_activity(&mut bytes, level);
        assert_eq!(bytes, expected);
        assert_eq!(parse(&bytes), Ok(ControlMessage::Activity(level)));
        for len in 0..bytes.len() {
            assert_eq!(next_value(&bytes[..len]), Ok(None), "{len} bytes");
            assert!(parse(&bytes[..len]).is_err());
        }
    }
    let error = |bytes: &[u8]| match parse(bytes) {
        Err(PeerMisbehaved::Control(why)) => why,
        other => panic!("{other:?}"),
    };
    let range = "activity is not 0, 1 or 2";
    assert_eq!(error(&[0x91, 0x03]), "Activity has fewer than 2 elements");
    assert_eq!(error(&[0x92, 0x03, 0x03]), range);
    assert_eq!(error(&[0x92, 0x03, 0xff]), range, "-1");
    assert_eq!(error(&[0x92, 0x03, 0xc0]), range, "nil");
    assert_eq!(error(&[0x92, 0x03, 0xa1, b'x']), range, "a string");
    assert_eq!(error(&[0x92, 0x03, 0xcf, 0, 0, 0, 1, 0, 0, 0, 1]), range, "wide");
    let few = "Activity has fewer elements than its level needs";
    assert_eq!(error(&[0x92, 0x03, 0x01]), few);
    assert_eq!(error(&[0x93, 0x03, 0x02, 0x01]), few);
    let count = "count is not an unsigned 32-bit integer";
    assert_eq!(error(&[0x93, 0x03, 0x01, 0xc3]), count);
    assert_eq!(error(&[0x93, 0x03, 0x01, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0]), count, "2^32");
    let answers = "answers is not an unsigned 32-bit integer";
    assert_eq!(error(&[0x94, 0x03, 0x02, 0x01, 0xff]), answers);
    // Wider integers of the same value, and elements of a later version, are fine.
    let fine = Ok(ControlMessage::Activity(IDLE));
    assert_eq!(parse(&[0x93, 0xcc, 0x03, 0xcd, 0, 1, 0xce, 0, 0, 0, 7]), fine);
    assert_eq!(parse(&[0x94, 0x03, 0x01, 0x07, 0x81, 0xa1, b'k', 0xc3]), fine);
    assert_eq!(parse(&[0x93, 0x03, 0x00, 0x07]), Ok(ControlMessage::Activity(Activity::Active)));
}

/// A peer that says anything in any order, however often: bounded answers, and an end that both
/// sides agree on or none.
#[test]
fn activity_in_any_order_does_no_harm() {
    crate::seeded("hostile::activity_in_any_order_does_no_harm", 10, |seed| {
        let mut rng = crate::sim::rng::Rng::new(seed);
        let mut net = Net::new(seed);
        let target = net.target(HOST);
        let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
        let opened = net.answer(id).expect("open");
        let host = net.at_host();
        net.run_for(secs(1));
        let before = net.nodes[CLIENT].packets_out;
        for _ in 0..300 {
            let (count, answers) = (rng.below(4) as u32, rng.below(4) as u32);
            let retiring = Activity::Retiring { count, answers };
            let level = rng.pick(&[Activity::Active, Activity::Idle { count }, retiring]);
            net.call(HOST, |_, _, ep| ep.send_activity(host, level)).expect("connected");
            net.run_for(ms(5));
        }
        // A channel is open: whatever the peer says, the connection stays, and nothing but
        // acknowledgements answers.
        assert_eq!(net.status(CLIENT, opened.conn), Status::Connected);
        let sent = net.nodes[CLIENT].packets_out - before;
        assert!(sent <= 400, "{sent} packets for 300 messages");
        net.call(CLIENT, |now, _, ep| {
            ep.reset_channel(now, opened.conn, opened.channel, 0).expect("reset");
            ep.stop_channel(now, opened.conn, opened.channel, 0).expect("stop");
        });
        net.run_for(secs(5));
        let before = net.nodes[CLIENT].packets_out;
        for count in 0..2_000 {
            let level = if count % 2 == 0 { Activity::Idle { count } } else { Activity::Active };
            let said = net.call(HOST, |_, _, ep| ep.send_activity(host, level));
            assert!(said.is_ok(), "closed although it is not quiet");
            net.run_for(ms(2));
        }
        let sent = net.nodes[CLIENT].packets_out - before;
        assert!(sent <= 2_100, "{sent} packets for 2000 messages");
        // Quiet for its hold time: it says so, and no answer to anything else closes it.
        net.run_for(secs(182));
        let said = net.nodes[HOST].log.all().filter_map(|t| match t {
            Told::Activity(_, Activity::Idle { count }) => Some(*count),
            _ => None,
        });
        let count = said.last().expect("it says that it is idle");
        for wrong in [count.wrapping_sub(1), count.wrapping_add(1), u32::MAX] {
            let stale = Activity::Retiring { count: 1, answers: wrong };
            net.call(HOST, |_, _, ep| ep.send_activity(host, stale)).expect("connected");
            net.run_for(secs(1));
            assert_eq!(net.status(CLIENT, opened.conn), Status::Connected, "{wrong}");
        }
        let sent_before = net.nodes[CLIENT].packets_out;
        for count in 0..500 {
            net.call(HOST, |_, _, ep| ep.send_activity(host, Activity::Idle { count }))
                .expect("open");
            net.run_for(ms(2));
        }
        let sent = net.nodes[CLIENT].packets_out - sent_before;
        assert!(sent <= 520, "{sent} packets for 500 messages");
        let right = Activity::Retiring { count: 1, answers: count };
        net.call(HOST, |_, _, ep| ep.send_activity(host, right)).expect("connected");
        net.run_for(secs(10));
        assert_eq!(net.status(CLIENT, opened.conn), Status::None, "closed");
    });
}

/// A level nobody knows ends the connection as a protocol error, as every broken message does. That
/// a peer which does not know the message ignores it is shown by
/// `idle::inactivity_a_peer_that_never_says_so_keeps_the_connection` and by unknown types in
/// `tests/hostile.rs`.
#[test]
fn activity_before_connected_is_not_sent() {
    let mut net = Net::new(1);
    let target = net.target(HOST);
    let conn = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target)).expect("connect").conn;
    let early = net.call(CLIENT, |_, _, ep| ep.send_activity(conn, IDLE));
    assert!(early.is_err(), "before the peer can know us");
    net.run_for(secs(1));
    assert_eq!(net.status(CLIENT, conn), Status::Connected);
}
