//! Behaviours §5: associations, their states, queues and timers.

use crate::net::{Answer, CLIENT, Config, HOST, Net, Told, ms, secs};
use crate::seeded;
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::ids::PeerId;
use trunkline_proto::manager::{
    AssociationConfig, AssociationEnd, AssociationEvent, AssociationId, AssociationState as State,
    DeliveryError, RequestError, Reuse, Security, Target,
};
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

pub fn config() -> AssociationConfig {
    AssociationConfig::new("signals")
}

/// The client's side of an association with the host, which is not awaited.
pub fn associate(net: &mut Net, target: &Target) -> AssociationId {
    let target = target.clone();
    net.call(CLIENT, |now, m, ep| m.associate(now, ep, target, config())).expect("associate")
}

/// The host's side.
pub fn listen(net: &mut Net, peer: Option<PeerId>) -> AssociationId {
    net.call(HOST, |now, m, _| m.listen_association(now, peer, config())).expect("listen")
}

pub fn send(
    net: &mut Net,
    node: usize,
    id: AssociationId,
    data: &[u8],
    token: u64,
) -> Result<(), ApiError> {
    let data = Payload::from(data.to_vec());
    net.call(node, |now, m, ep| m.send_message(now, ep, id, data, token, Security::Local))
}

/// States that an association has told, in order.
pub fn states(net: &Net, node: usize, id: AssociationId) -> Vec<State> {
    let of = |e: AssociationEvent| match e {
        AssociationEvent::State { new, .. } => Some(new),
        _ => None,
    };
    net.nodes[node].log.events(id).into_iter().filter_map(of).collect()
}

pub fn end(net: &Net, node: usize, id: AssociationId) -> Option<AssociationEnd> {
    net.nodes[node].log.events(id).into_iter().find_map(|e| match e {
        AssociationEvent::State { end, .. } => end,
        _ => None,
    })
}

/// What became of each token: exactly one thing.
pub fn outcome(net: &Net, node: usize, id: AssociationId, token: u64) -> Result<(), DeliveryError> {
    let mut all = net.nodes[node].log.events(id).into_iter().filter_map(|e| match e {
        AssociationEvent::Delivered { token: t } if t == token => Some(Ok(())),
        AssociationEvent::Undelivered { token: t, error } if t == token => Some(Err(error)),
        _ => None,
    });
    let first = all.next().unwrap_or_else(|| panic!("nothing was told of {token}"));
    assert!(all.next().is_none(), "{token} was told twice");
    first
}

pub fn told_of(net: &Net, node: usize, id: AssociationId, token: u64) -> bool {
    net.nodes[node].log.events(id).iter().any(|e| match e {
        AssociationEvent::Delivered { token: t }
        | AssociationEvent::Undelivered { token: t, .. } => *t == token,
        _ => false,
    })
}

/// Two connected sides.
pub fn pair(net: &mut Net) -> (AssociationId, AssociationId) {
    let target = net.target(HOST);
    let listening = listen(net, None);
    let calling = associate(net, &target);
    net.run_until("connected", secs(20), |net| {
        net.nodes[CLIENT].manager.association_state(calling) == State::Connected
            && net.nodes[HOST].manager.association_state(listening) == State::Connected
    });
    (calling, listening)
}

/// "AwaitingConnection: messages queue"; "Connected: messages go out at once; received ones go
/// straight up".
#[test]
fn awaiting_connection_messages_queue_and_connected_they_go_at_once() {
    seeded(
        "associations::awaiting_connection_messages_queue_and_connected_they_go_at_once",
        8,
        |seed| {
            let mut net = Net::new(seed);
            net.loss = if seed % 2 == 0 { 0 } else { 1_000 };
            net.reorder = 1_000;
            let target = net.target(HOST);
            let listening = listen(&mut net, None);
            let calling = associate(&mut net, &target);
            assert_eq!(
                net.nodes[CLIENT].manager.association_state(calling),
                State::AwaitingConnection
            );
            for i in 0..10u64 {
                send(&mut net, CLIENT, calling, format!("queued {i}").as_bytes(), i).expect("send");
            }
            net.run_until("all delivered", secs(60), |net| {
                (0..10).all(|i| told_of(net, CLIENT, calling, i))
            });
            for i in 0..10 {
                assert_eq!(outcome(&net, CLIENT, calling, i), Ok(()));
            }
            let expected: Vec<_> = (0..10).map(|i| format!("queued {i}").into_bytes()).collect();
            assert_eq!(net.nodes[HOST].log.messages(), expected, "in order");
            net.loss = 0;
            net.reorder = 0;
            net.run_for(secs(2));
            let start = net.now;
            send(&mut net, CLIENT, calling, b"at once", 100).expect("send");
            net.run_until("it is there", secs(1), |net| net.nodes[HOST].log.messages().len() == 11);
            assert!(net.now.since(start) <= ms(11), "{:?}", net.now.since(start));
            send(&mut net, HOST, listening, b"and back", 7).expect("send");
            net.run_for(secs(1));
            assert_eq!(net.nodes[CLIENT].log.messages(), [b"and back".to_vec()]);
            assert_eq!(outcome(&net, HOST, listening, 7), Ok(()));
            assert_eq!(states(&net, CLIENT, calling), [State::Connected]);
            // The application was not asked for the association's channel.
            assert_eq!(net.nodes[HOST].log.count(|t| matches!(t, Told::Request(..))), 0);
        },
    );
}

/// "messages queue (bounded, …)".
#[test]
fn awaiting_connection_the_queue_is_bounded() {
    let mut net = Net::new(1);
    net.nodes[HOST].down = true;
    let target = net.target(HOST);
    let small = AssociationConfig { queue_messages: 3, queue_bytes: 100, ..config() };
    let id = net.call(CLIENT, |now, m, ep| m.associate(now, ep, target, small)).expect("associate");
    send(&mut net, CLIENT, id, &[0; 60], 0).expect("room");
    let full = send(&mut net, CLIENT, id, &[0; 60], 1);
    assert!(matches!(full, Err(ApiError::WouldBlock(_))), "{full:?}");
    send(&mut net, CLIENT, id, &[0; 20], 2).expect("room");
    send(&mut net, CLIENT, id, &[0; 20], 3).expect("room");
    let full = send(&mut net, CLIENT, id, &[], 4);
    assert!(matches!(full, Err(ApiError::WouldBlock(_))), "{full:?}");
    let large = send(&mut net, CLIENT, id, &vec![0; (16 << 20) + 1], 5);
    assert!(matches!(large, Err(ApiError::MessageTooLarge { .. })), "{large:?}");
    net.run_for(secs(30));
    for (token, told) in [(0, true), (1, false), (2, true), (3, true), (4, false), (5, false)] {
        assert_eq!(told_of(&net, CLIENT, id, token), told, "{token}: an error is the whole answer");
    }
}

/// "(…, with age limit)".
#[test]
fn awaiting_connection_old_messages_expire() {
    let mut net = Net::new(2);
    net.nodes[HOST].accept = false;
    let target = net.target(HOST);
    let quick = AssociationConfig { queue_age: secs(2), ..config() };
    let id = net.call(CLIENT, |now, m, ep| m.associate(now, ep, target, quick)).expect("associate");
    send(&mut net, CLIENT, id, b"old", 1).expect("send");
    net.run_for(ms(1_500));
    send(&mut net, CLIENT, id, b"younger", 2).expect("send");
    net.run_for(ms(1_000));
    assert_eq!(outcome(&net, CLIENT, id, 1), Err(DeliveryError::Expired));
    assert!(!told_of(&net, CLIENT, id, 2));
    let conn = net.at_host();
    let _ = listen(&mut net, None);
    net.call(HOST, |now, _, ep| ep.accept(now, conn)).expect("accept");
    net.run_for(secs(1));
    assert_eq!(outcome(&net, CLIENT, id, 2), Ok(()));
    assert_eq!(net.nodes[HOST].log.messages(), [b"younger".to_vec()]);
}

/// An association that waits for a channel which is found elsewhere: what it was given goes over the one
/// of that channel, with its age, and the first is never told of again.
#[test]
fn awaiting_connection_messages_go_over_the_association_that_inherits_them() {
    let mut net = Net::new(5);
    net.nodes[HOST].answer = Box::new(|_| Answer::Ignore);
    let quick = AssociationConfig { queue_age: secs(4), ..config() };
    let waiting =
        net.call(HOST, |now, m, _| m.expect_association(now, quick.clone())).expect("expect");
    send(&mut net, HOST, waiting, b"old", 1).expect("send");
    net.run_for(secs(3));
    send(&mut net, HOST, waiting, b"one", 2).expect("send");
    send(&mut net, HOST, waiting, b"two", 3).expect("send");
    let target = net.target(HOST);
    let calling = associate(&mut net, &target);
    let asked = |net: &Net| {
        net.nodes[HOST].log.all().find_map(|t| match t {
            Told::Request(conn, channel, _) => Some((*conn, *channel)),
            _ => None,
        })
    };
    net.run_until("the request", secs(5), |net| asked(net).is_some());
    net.run_for(ms(1_500));
    assert_eq!(outcome(&net, HOST, waiting, 1), Err(DeliveryError::Expired));
    let (conn, channel) = asked(&net).expect("the application decides");
    let made = net
        .call(HOST, |now, m, ep| m.accept_association(now, ep, conn, channel, quick))
        .expect("accept");
    let messages = net.call(HOST, |_, m, _| m.withdraw_association(waiting));
    assert_eq!(messages.tokens().collect::<Vec<_>>(), [2, 3]);
    net.call(HOST, |_, m, _| m.inherit(made, messages)).expect("it takes messages");
    send(&mut net, HOST, made, b"three", 4).expect("send");
    net.run_for(secs(2));
    let expected: Vec<_> = [&b"one"[..], b"two", b"three"].map(<[u8]>::to_vec).into();
    assert_eq!(net.nodes[CLIENT].log.messages(), expected, "in order");
    for token in [2, 3, 4] {
        assert_eq!(outcome(&net, HOST, made, token), Ok(()));
    }
    assert_eq!(states(&net, HOST, waiting), []);
    assert_eq!(net.nodes[HOST].manager.association_state(waiting), State::Destroyed);
    // One that is over gives nothing and takes nothing.
    assert!(net.call(HOST, |_, m, _| m.withdraw_association(made)).is_empty());
    let other = net.call(HOST, |now, m, _| m.expect_association(now, config())).expect("expect");
    send(&mut net, HOST, other, b"x", 5).expect("send");
    let messages = net.call(HOST, |_, m, _| m.withdraw_association(other));
    net.call(HOST, |now, m, ep| m.close_association(now, ep, made)).expect("close");
    let back = net.call(HOST, |_, m, _| m.inherit(made, messages)).expect_err("it is closing");
    assert_eq!(back.tokens().collect::<Vec<_>>(), [5]);
    assert_eq!(net.nodes[CLIENT].manager.association_state(calling), State::Connected);
    net.run_for(secs(20));
    assert!(!told_of(&net, HOST, made, 5) && states(&net, HOST, other).is_empty());
}

/// What is closed is not found any more, in the same moment already.
#[test]
fn closing_takes_nothing_and_is_not_found() {
    let mut net = Net::new(6);
    let (calling, _) = pair(&mut net);
    net.nodes[HOST].answer = Box::new(|_| Answer::Ignore);
    let target = net.target(HOST);
    let (second, full, again) = net.call(CLIENT, |now, m, ep| {
        m.close_association(now, ep, calling).expect("close");
        let full =
            m.send_message(now, ep, calling, Payload::from(b"x".to_vec()), 1, Security::Local);
        let second = m.close_association(now, ep, calling);
        (second, full, m.associate(now, ep, target, config()).expect("associate"))
    });
    assert_eq!((second, full), (Err(ApiError::InvalidHandle), Err(ApiError::InvalidHandle)));
    assert_ne!(again, calling);
    net.run_for(secs(1));
    assert_eq!(end(&net, CLIENT, calling), Some(AssociationEnd::Closed));
    assert_eq!(net.nodes[CLIENT].manager.association_state(again), State::AwaitingConnection);
}

/// "a listening association starts NoConn (default 10 s): on expiry it is destroyed".
#[test]
fn awaiting_connection_listening_in_vain_ends_with_no_conn() {
    let mut net = Net::new(3);
    let start = net.now;
    let id = listen(&mut net, None);
    send(&mut net, HOST, id, b"for nobody", 9).expect("send");
    net.run_until("the end", secs(20), |net| end(net, HOST, id).is_some());
    let waited = net.now.since(start);
    assert!((secs(10)..secs(10) + ms(50)).contains(&waited), "{waited:?}");
    assert_eq!(end(&net, HOST, id), Some(AssociationEnd::NoConnection));
    let gone = DeliveryError::Ended(AssociationEnd::NoConnection);
    let told = outcome(&net, HOST, id, 9);
    assert!(told == Err(gone) || told == Err(DeliveryError::Expired), "{told:?}");
    assert_eq!(net.nodes[HOST].manager.association_state(id), State::Destroyed);
    assert_eq!(send(&mut net, HOST, id, b"x", 10), Err(ApiError::InvalidHandle));
    // A peer that comes later is asked about the ordinary way.
    let target = net.target(HOST);
    associate(&mut net, &target);
    net.run_for(secs(1));
    assert_eq!(net.nodes[HOST].log.count(|t| matches!(t, Told::Request(..))), 1);
}

/// A listening association takes the peer that it waits for, and no other.
#[test]
fn awaiting_connection_a_listening_association_takes_its_peer_only() {
    let known = crate::sim::tls::client_peer_id();
    let trust = trunkline_proto::handshake::Trust::DangerousAny;
    let auth = trunkline_proto::handshake::ClientAuth::Optional(trust);
    for (wanted, taken) in [(PeerId([9; 32]), false), (known, true)] {
        let host = Config { auth: auth.clone(), ..Config::default() };
        let mut net = Net::with(4, Config::default(), host);
        let target = net.target(HOST);
        let listening = listen(&mut net, Some(wanted));
        associate(&mut net, &target);
        net.run_for(secs(1));
        let state = net.nodes[HOST].manager.association_state(listening);
        assert_eq!(state == State::Connected, taken);
        let asked = net.nodes[HOST].log.count(|t| matches!(t, Told::Request(..)));
        assert_eq!(asked == 1, !taken, "what it does not take is the application's");
    }
}

/// "a connection error destroys it; queued senders are told", one by one.
#[test]
fn awaiting_connection_a_connection_error_destroys_it_and_tells_the_senders() {
    let mut net = Net::new(5);
    net.nodes[HOST].down = true;
    let target = net.target(HOST);
    let patient = AssociationConfig { queue_age: secs(60), ..config() };
    let id =
        net.call(CLIENT, |now, m, ep| m.associate(now, ep, target, patient)).expect("associate");
    for token in 0..5 {
        send(&mut net, CLIENT, id, b"x", token).expect("send");
    }
    net.run_until("the end", secs(20), |net| end(net, CLIENT, id).is_some());
    let Some(AssociationEnd::Failed(RequestError::Connection(reason))) = end(&net, CLIENT, id)
    else {
        panic!("{:?}", end(&net, CLIENT, id));
    };
    assert_eq!(reason.reason, Reason::TIMEOUT);
    for token in 0..5 {
        let told = outcome(&net, CLIENT, id, token);
        assert!(matches!(told, Err(DeliveryError::Ended(AssociationEnd::Failed(_)))), "{told:?}");
    }
    assert_eq!(states(&net, CLIENT, id), [State::Destroyed]);
    assert_eq!(send(&mut net, CLIENT, id, b"x", 99), Err(ApiError::InvalidHandle));
}

/// The peer's refusal of the channel is a connection error of the association.
#[test]
fn awaiting_connection_a_declined_channel_is_a_connection_error() {
    let mut net = Net::new(6);
    net.nodes[HOST].answer = Box::new(|_| crate::net::Answer::Decline(3, "no signals"));
    let target = net.target(HOST);
    let id = associate(&mut net, &target);
    net.run_for(secs(1));
    let declined = RequestError::Declined { code: 3, text: "no signals".into() };
    assert_eq!(end(&net, CLIENT, id), Some(AssociationEnd::Failed(declined)));
}

/// "broken: destroyed; reusing it is impossible; everything queued is reported".
#[test]
fn broken_is_destroyed_reported_and_never_used_again() {
    seeded("associations::broken_is_destroyed_reported_and_never_used_again", 8, |seed| {
        let mut net = Net::new(seed);
        let (calling, listening) = pair(&mut net);
        send(&mut net, CLIENT, calling, b"arrives", 1).expect("send");
        net.run_for(secs(1));
        assert_eq!(outcome(&net, CLIENT, calling, 1), Ok(()));
        net.nodes[HOST].down = true;
        for token in 10..20 {
            send(&mut net, CLIENT, calling, b"is lost", token).expect("send");
        }
        net.run_for(secs(20));
        let Some(AssociationEnd::Broken(reason)) = end(&net, CLIENT, calling) else {
            panic!("{:?}", end(&net, CLIENT, calling));
        };
        assert_eq!(reason.reason, Reason::TIMEOUT, "the true reason");
        for token in 10..20 {
            let told = outcome(&net, CLIENT, calling, token);
            assert!(
                matches!(told, Err(DeliveryError::Ended(AssociationEnd::Broken(_)))),
                "{told:?}"
            );
        }
        assert_eq!(send(&mut net, CLIENT, calling, b"x", 30), Err(ApiError::InvalidHandle));
        assert!(net.call(CLIENT, |now, m, ep| m.close_association(now, ep, calling)).is_err());
        net.nodes[HOST].down = false;
        net.run_for(secs(20));
        assert!(matches!(end(&net, HOST, listening), Some(AssociationEnd::Broken(_))));
        // The same target again is another association.
        let target = net.target(HOST);
        listen(&mut net, None);
        let again = associate(&mut net, &target);
        assert_ne!(again, calling);
        send(&mut net, CLIENT, again, b"anew", 40).expect("send");
        net.run_for(secs(2));
        assert_eq!(outcome(&net, CLIENT, again, 40), Ok(()));
        let got = net.nodes[HOST].log.messages();
        assert_eq!(got, [b"arrives".to_vec(), b"anew".to_vec()], "nothing hopped over");
    });
}

/// "one channel's reliable messages never hop between connections while any is unacknowledged".
#[test]
fn reuse_messages_never_hop_between_connections() {
    let mut net = Net::new(7);
    let (calling, _) = pair(&mut net);
    let (first, _) = net.nodes[CLIENT].manager.association_channel(calling).expect("a channel");
    // Another connection to the same peer stands ready.
    let target = Target { reuse: Reuse::ForceNew, ..net.target(HOST) };
    let other = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target)).expect("connect").conn;
    net.run_for(secs(1));
    assert_eq!(net.status(CLIENT, other), Status::Connected);
    let host = net.nodes[HOST].endpoint.connections().min().expect("the first");
    // Messages leave, and the connection ends before they are acknowledged.
    net.delay = ms(200);
    for token in 0..5 {
        send(&mut net, CLIENT, calling, format!("m{token}").as_bytes(), token).expect("send");
    }
    net.run_for(ms(10));
    net.call(HOST, |now, _, ep| ep.close(now, host, 1500, "gone", None)).expect("close");
    net.run_for(secs(5));
    assert_eq!(net.status(CLIENT, first), Status::None);
    assert_eq!(net.status(CLIENT, other), Status::Connected);
    for token in 0..5 {
        assert!(outcome(&net, CLIENT, calling, token).is_err(), "told, not sent again");
    }
    assert!(net.nodes[HOST].log.messages().is_empty(), "sent over the other connection");
}

/// A close delivers what was given before, and tells both sides.
#[test]
fn closing_delivers_first_and_the_peer_learns_of_it() {
    seeded("associations::closing_delivers_first_and_the_peer_learns_of_it", 8, |seed| {
        let mut net = Net::new(seed);
        let (calling, listening) = pair(&mut net);
        net.loss = 1_000;
        for token in 0..50 {
            send(&mut net, CLIENT, calling, &[token as u8; 2_000], token).expect("send");
        }
        net.call(CLIENT, |now, m, ep| m.close_association(now, ep, calling)).expect("close");
        let again = net.call(CLIENT, |now, m, ep| m.close_association(now, ep, calling));
        net.run_until("the end", secs(60), |net| end(net, CLIENT, calling).is_some());
        assert!(again.is_ok() || again == Err(ApiError::InvalidHandle));
        for token in 0..50 {
            assert_eq!(outcome(&net, CLIENT, calling, token), Ok(()));
        }
        assert_eq!(end(&net, CLIENT, calling), Some(AssociationEnd::Closed));
        net.run_for(secs(5));
        assert_eq!(end(&net, HOST, listening), Some(AssociationEnd::ClosedByPeer));
        assert_eq!(net.nodes[HOST].log.messages().len(), 50);
        // The connection stays, and nothing of the channel reached the application.
        assert_eq!(net.nodes[CLIENT].endpoint.connections().count(), 1);
        for node in [CLIENT, HOST] {
            let stray = |t: &Told| matches!(t, Told::Closed(..) | Told::Eof(..) | Told::Ready(..));
            assert_eq!(net.nodes[node].log.count(stray), 0);
        }
        let conn = net.nodes[CLIENT].endpoint.connections().next().expect("it stays");
        assert_eq!(net.nodes[CLIENT].endpoint.stats(conn).expect("open").channels, 0, "left over");
    });
}

/// A close before there is a connection tells the queued senders.
#[test]
fn closing_before_connected_tells_the_queued_senders() {
    let mut net = Net::new(8);
    net.nodes[HOST].down = true;
    let target = net.target(HOST);
    let id = associate(&mut net, &target);
    send(&mut net, CLIENT, id, b"x", 1).expect("send");
    net.call(CLIENT, |now, m, ep| m.close_association(now, ep, id)).expect("close");
    net.run_for(ms(1));
    assert_eq!(end(&net, CLIENT, id), Some(AssociationEnd::Closed));
    assert_eq!(outcome(&net, CLIENT, id, 1), Err(DeliveryError::Ended(AssociationEnd::Closed)));
}

/// One association for each name and key; an application can make one of a channel that it was asked
/// for.
#[test]
fn an_association_is_found_by_its_target_and_made_of_an_offered_channel() {
    let mut net = Net::new(9);
    net.nodes[HOST].answer = Box::new(|_| crate::net::Answer::Ignore);
    let target = net.target(HOST);
    let first = associate(&mut net, &target);
    assert_eq!(associate(&mut net, &target), first);
    net.run_for(secs(1));
    let asked = net.nodes[HOST].log.all().find_map(|t| match t {
        Told::Request(conn, channel, _) => Some((*conn, *channel)),
        _ => None,
    });
    let (conn, channel) = asked.expect("the application is asked");
    let id = net
        .call(HOST, |now, m, ep| m.accept_association(now, ep, conn, channel, config()))
        .expect("accept");
    send(&mut net, HOST, id, b"hello", 1).expect("send");
    net.run_for(secs(1));
    assert_eq!(net.nodes[CLIENT].log.messages(), [b"hello".to_vec()]);
    assert_eq!(states(&net, HOST, id), [State::Connected]);
    assert_eq!(net.nodes[HOST].manager.association_of(conn, channel), Some(id));
    let forced = Target { reuse: Reuse::ForceNew, ..target.clone() };
    let third = net.call(CLIENT, |now, m, ep| m.associate(now, ep, forced, config()));
    let third = third.expect("a new one");
    assert_ne!(third, first);
    // The newest is found while it takes messages, and then the one before.
    assert_eq!(associate(&mut net, &target), third);
    net.call(CLIENT, |now, m, ep| m.close_association(now, ep, third)).expect("close");
    assert_eq!(associate(&mut net, &target), first);
    net.run_for(secs(1));
    assert_eq!(associate(&mut net, &target), first, "also when that one is gone");
}

/// A large backlog flows at the pace of the connection: full buffers are no loss.
#[test]
fn connected_full_buffers_make_messages_wait() {
    let mut client = Config::default();
    client.connection.channel_send_buffer = 64 << 10;
    client.connection.max_message = 32 << 10;
    let mut net = Net::with(10, client, Config::default());
    let (calling, _) = pair(&mut net);
    let big = AssociationConfig { queue_bytes: 16 << 20, ..config() };
    assert!(big.validate().is_ok());
    let mut sent = 0u64;
    while sent < 60 {
        if send(&mut net, CLIENT, calling, &vec![sent as u8; 20_000], sent).is_ok() {
            sent += 1;
        }
        net.run_for(ms(1));
    }
    net.run_until("all", secs(30), |net| (0..60).all(|t| told_of(net, CLIENT, calling, t)));
    let got = net.nodes[HOST].log.messages();
    assert_eq!(got.len(), 60);
    assert!(got.iter().enumerate().all(|(i, m)| *m == vec![i as u8; 20_000]));
}

/// Settings are checked.
#[test]
fn settings_out_of_range_are_named() {
    let mut net = Net::new(11);
    let mut refused = |config: AssociationConfig| match net
        .call(HOST, |now, m, _| m.listen_association(now, None, config))
    {
        Err(ApiError::InvalidArgument { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(AssociationConfig { hold: Duration::ZERO, ..config() }), "hold");
    assert_eq!(refused(AssociationConfig { queue_messages: 0, ..config() }), "queue_messages");
    assert_eq!(refused(AssociationConfig { name: "x".repeat(1025), ..config() }), "name");
    assert_eq!(refused(AssociationConfig { priority: 8, ..config() }), "priority");
}
