//! Behaviours §5, "inactivity": idle, said to the peer, closed when the peer is idle too, woken by
//! traffic.

use crate::associations::{associate, config, end, listen, outcome, pair, send, states};
use crate::net::{CLIENT, Config, HOST, Net, Told, ms, secs};
use crate::seeded;
use trunkline_proto::config::ChannelOptions;
use trunkline_proto::endpoint::SendOptions;
use trunkline_proto::manager::{
    AssociationConfig, AssociationEnd, AssociationState as State, HoldState, ManagerConfig, Reuse,
    Target,
};
use trunkline_proto::status::Status;

/// "no channel open and nothing moved for the hold time (default 180 s; keep-alives do not count):
/// idle, says so to the peer, and closes gracefully when the peer is idle too".
#[test]
fn inactivity_both_sides_idle_closes_gracefully() {
    seeded("idle::inactivity_both_sides_idle_closes_gracefully", 6, |seed| {
        let mut net = Net::new(seed);
        net.loss = 500;
        net.reorder = 1_000;
        let (calling, listening) = pair(&mut net);
        send(&mut net, CLIENT, calling, b"last words", 1).expect("send");
        net.run_for(secs(1));
        let moved = net.now;
        let (conn, _) = net.nodes[CLIENT].manager.association_channel(calling).expect("a channel");
        net.run_for(secs(170));
        assert_eq!(net.status(CLIENT, conn), Status::Connected, "keep-alives hold it");
        assert_eq!(states(&net, CLIENT, calling), [State::Connected]);
        net.run_until("the end", secs(60), |net| end(net, CLIENT, calling).is_some());
        let waited = net.now.since(moved);
        assert!((secs(178)..secs(190)).contains(&waited), "{waited:?}");
        net.run_for(secs(10));
        for (node, id) in [(CLIENT, calling), (HOST, listening)] {
            assert_eq!(end(&net, node, id), Some(AssociationEnd::Idle));
            let told = states(&net, node, id);
            assert_eq!(told, [State::Connected, State::Idle, State::Destroyed]);
        }
        assert_eq!(net.nodes[CLIENT].endpoint.connections().count(), 0);
        assert_eq!(outcome(&net, CLIENT, calling, 1), Ok(()));
        assert!(net.nodes[CLIENT].manager.is_empty());
        // The host's application accepted its end: it is the one to free it.
        let host = net.at_host();
        if net.status(HOST, host) == Status::ClosedByPeer {
            net.call(HOST, |now, _, ep| ep.close(now, host, 1000, "", None)).expect("close");
            net.run_for(secs(1));
        }
        assert!(net.nodes[HOST].manager.is_empty());
    });
}

/// One idle side alone closes nothing.
#[test]
fn inactivity_one_idle_side_waits_for_the_other() {
    let mut net = Net::new(1);
    let target = net.target(HOST);
    let long = AssociationConfig { hold: secs(400), ..config() };
    let listening =
        net.call(HOST, |now, m, _| m.listen_association(now, None, long)).expect("listen");
    let calling = associate(&mut net, &target);
    net.run_for(secs(200));
    assert_eq!(net.nodes[CLIENT].manager.association_state(calling), State::Idle);
    assert_eq!(net.nodes[HOST].manager.association_state(listening), State::Connected);
    net.run_for(secs(150));
    assert_eq!(net.nodes[CLIENT].manager.association_state(calling), State::Idle, "not yet");
    net.run_for(secs(80));
    assert_eq!(end(&net, CLIENT, calling), Some(AssociationEnd::Idle));
    assert_eq!(end(&net, HOST, listening), Some(AssociationEnd::Idle));
}

/// A peer that says nothing about it (it does not know the message, or does not look after the
/// connection) keeps it open.
#[test]
fn inactivity_a_peer_that_never_says_so_keeps_the_connection() {
    let mut net = Net::new(2);
    let target = net.target(HOST);
    let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
    let opened = net.answer(id).expect("open");
    let (conn, channel) = (opened.conn, opened.channel);
    net.call(CLIENT, |now, _, ep| {
        ep.reset_channel(now, conn, channel, 0).expect("reset");
        ep.stop_channel(now, conn, channel, 0).expect("stop");
    });
    net.run_for(secs(1_000));
    assert_eq!(net.status(CLIENT, conn), Status::Connected);
    assert_eq!(net.nodes[CLIENT].manager.hold_state(conn), Some(HoldState::Idle));
    // The peer looks after it from now on: it is closed after its hold time.
    let host = net.at_host();
    net.call(HOST, |now, m, _| m.hold(now, host, Some(secs(20))));
    net.run_for(secs(25));
    assert_eq!(net.status(CLIENT, conn), Status::None);
    assert_eq!(net.nodes[HOST].endpoint.connections().count(), 0);
}

/// "traffic wakes it": from either side, whatever kind.
#[test]
fn inactivity_traffic_wakes_it() {
    for waker in [CLIENT, HOST] {
        let mut net = Net::new(3);
        let target = net.target(HOST);
        let long = AssociationConfig { hold: secs(400), ..config() };
        let listening =
            net.call(HOST, |now, m, _| m.listen_association(now, None, long)).expect("listen");
        let calling = associate(&mut net, &target);
        net.run_for(secs(200));
        assert_eq!(net.nodes[CLIENT].manager.association_state(calling), State::Idle);
        let id = if waker == CLIENT { calling } else { listening };
        send(&mut net, waker, id, b"good morning", 1).expect("send");
        net.run_for(secs(1));
        assert_eq!(outcome(&net, waker, id, 1), Ok(()));
        assert_eq!(net.nodes[1 - waker].log.messages().len(), 1);
        assert_eq!(
            states(&net, CLIENT, calling),
            [State::Connected, State::Idle, State::Connected]
        );
        // The hold time begins anew.
        net.run_for(secs(170));
        assert_eq!(net.nodes[CLIENT].manager.association_state(calling), State::Connected);
        net.run_for(secs(15));
        assert_eq!(net.nodes[CLIENT].manager.association_state(calling), State::Idle);
    }
}

/// "no channel open": an open channel, even a silent one, keeps the connection.
#[test]
fn inactivity_an_open_channel_keeps_the_connection() {
    let mut net = Net::new(4);
    let (calling, listening) = pair(&mut net);
    let target = net.target(HOST);
    let id = net.request(&target, "file", &ChannelOptions::default()).expect("request");
    let opened = net.answer(id).expect("open");
    net.run_for(secs(1_000));
    assert_eq!(states(&net, CLIENT, calling), [State::Connected]);
    assert_eq!(net.nodes[HOST].manager.association_state(listening), State::Connected);
    let (conn, channel) = (opened.conn, opened.channel);
    net.call(CLIENT, |now, _, ep| {
        ep.send(now, conn, channel, b"the end", SendOptions::default()).expect("send");
        ep.finish_channel(now, conn, channel).expect("finish");
        ep.stop_channel(now, conn, channel, 0).expect("stop");
    });
    let host = net.nodes[HOST].log.all().find_map(|t| match t {
        Told::Request(c, k, n) if n == "file" => Some((*c, *k)),
        _ => None,
    });
    let (host, key) = host.expect("asked for");
    net.run_for(secs(1));
    let _ = net.call(HOST, |now, _, ep| ep.finish_channel(now, host, key));
    net.run_for(secs(170));
    assert_eq!(states(&net, CLIENT, calling), [State::Connected]);
    net.run_for(secs(240));
    assert_eq!(end(&net, CLIENT, calling), Some(AssociationEnd::Idle));
    assert_eq!(end(&net, HOST, listening), Some(AssociationEnd::Idle));
}

/// The connection's own channels have hold times too; configurable, and `None` = for ever.
#[test]
fn inactivity_the_hold_time_is_configurable() {
    for (hold, closed) in [(Some(secs(5)), true), (None, false)] {
        let manager = ManagerConfig { hold, ..ManagerConfig::default() };
        let mut net = Net::with(5, Config { manager, ..Config::default() }, Config::default());
        let target = net.target(HOST);
        let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
        let opened = net.answer(id).expect("open");
        let host = net.at_host();
        net.call(HOST, |now, m, _| m.hold(now, host, Some(secs(5))));
        net.call(CLIENT, |now, _, ep| {
            ep.reset_channel(now, opened.conn, opened.channel, 0).expect("reset");
            ep.stop_channel(now, opened.conn, opened.channel, 0).expect("stop");
        });
        net.run_for(secs(12));
        assert_eq!(net.status(CLIENT, opened.conn) == Status::None, closed);
    }
}

/// A connection that the application took over is its own: it is not closed behind its back.
#[test]
fn inactivity_a_connection_of_the_application_is_left_alone() {
    let mut net = Net::new(6);
    let target = net.target(HOST);
    let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
    let opened = net.answer(id).expect("open");
    let shared = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target)).expect("connect");
    assert_eq!((shared.conn, shared.reused), (opened.conn, true));
    let host = net.at_host();
    net.call(HOST, |now, m, _| m.hold(now, host, Some(secs(5))));
    net.call(CLIENT, |now, _, ep| {
        ep.reset_channel(now, opened.conn, opened.channel, 0).expect("reset");
        ep.stop_channel(now, opened.conn, opened.channel, 0).expect("stop");
    });
    net.run_for(secs(400));
    assert_eq!(net.status(CLIENT, opened.conn), Status::Connected);
    net.call(CLIENT, |now, m, _| m.hold(now, opened.conn, Some(secs(5))));
    net.run_for(secs(10));
    assert_eq!(net.status(CLIENT, opened.conn), Status::None, "asked for");
}

/// A side that has said that it starts nothing keeps its word: what is asked for meanwhile goes over
/// another connection.
#[test]
fn inactivity_a_retiring_side_starts_nothing_on_the_connection() {
    let manager = ManagerConfig { hold: Some(secs(5)), ..ManagerConfig::default() };
    let mut net = Net::with(7, Config { manager, ..Config::default() }, Config::default());
    net.delay = ms(200);
    let target = net.target(HOST);
    let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
    let first = net.answer(id).expect("open");
    let host = net.at_host();
    net.call(HOST, |now, m, _| m.hold(now, host, Some(secs(3))));
    net.call(CLIENT, |now, _, ep| {
        ep.reset_channel(now, first.conn, first.channel, 0).expect("reset");
        ep.stop_channel(now, first.conn, first.channel, 0).expect("stop");
    });
    net.run_until("it retires", secs(20), |net| {
        net.nodes[CLIENT].manager.hold_state(first.conn) == Some(HoldState::Retiring)
    });
    assert_eq!(net.status(CLIENT, first.conn), Status::Connected);
    let id = net.request(&target, "y", &ChannelOptions::default()).expect("request");
    let second = net.answer(id).expect("open");
    assert_ne!(second.conn, first.conn);
    assert_eq!(net.status(CLIENT, first.conn), Status::None, "closed as agreed");
}

/// While two idle sides agree on the end, one of them starts something: nothing is lost.
#[test]
fn inactivity_nothing_that_is_started_meanwhile_is_lost() {
    seeded("idle::inactivity_nothing_that_is_started_meanwhile_is_lost", 60, |seed| {
        let mut rng = crate::sim::rng::Rng::new(seed);
        let mut net = Net::new(seed);
        net.delay = ms(40);
        net.reorder = rng.pick(&[0, 2_000]);
        let target = net.target(HOST);
        let quick = || AssociationConfig { hold: secs(5), ..config() };
        net.call(HOST, |now, m, _| m.listen_association(now, None, quick())).expect("listen");
        let manager_target = target.clone();
        net.call(CLIENT, |now, m, ep| m.associate(now, ep, manager_target, quick()))
            .expect("associate");
        net.run_for(secs(1));
        send_last(&mut net, &target);
        // Around the moment at which both become idle.
        net.run_for(ms(4_800 + rng.below(500)));
        let id = net.request(&target, "started", &ChannelOptions::default()).expect("request");
        let opened = net.answer(id).expect("a channel, whatever becomes of the idle connection");
        net.call(CLIENT, |now, _, ep| {
            ep.send(now, opened.conn, opened.channel, b"whole", SendOptions::default())
                .expect("send");
        });
        net.run_for(secs(2));
        let got = net.nodes[HOST].log.count(|t| matches!(t, Told::Data(_, _, d) if d == b"whole"));
        assert_eq!(got, 1);
        assert_eq!(net.nodes[CLIENT].log.answers(id).len(), 1);
    });
}

fn send_last(net: &mut Net, target: &Target) {
    let target = Target { reuse: Reuse::NeverNew, ..target.clone() };
    let found = net.call(CLIENT, |now, m, ep| m.associate(now, ep, target, config()));
    let id = found.expect("the one that there is");
    send(net, CLIENT, id, b"last", 77).expect("send");
    net.run_for(ms(200));
}

/// A message given to an association that two sides are just ending is told, not lost in silence;
/// sending to the target again makes a new one.
#[test]
fn inactivity_a_message_in_the_last_moment_is_told() {
    seeded("idle::inactivity_a_message_in_the_last_moment_is_told", 60, |seed| {
        let mut rng = crate::sim::rng::Rng::new(seed);
        let mut net = Net::new(seed);
        net.delay = ms(40);
        let target = net.target(HOST);
        let quick = || AssociationConfig { hold: secs(5), ..config() };
        listen(&mut net, None);
        let t = target.clone();
        let id =
            net.call(CLIENT, |now, m, ep| m.associate(now, ep, t, quick())).expect("associate");
        net.run_for(secs(1));
        let host = net.at_host();
        net.call(HOST, |now, m, _| m.hold(now, host, Some(secs(5))));
        net.run_for(ms(3_800 + rng.below(600)));
        let sent = send(&mut net, CLIENT, id, b"late", 5);
        net.run_for(secs(3));
        let arrived = net.nodes[HOST].log.messages() == [b"late".to_vec()];
        match sent {
            Ok(()) => match outcome(&net, CLIENT, id, 5) {
                Ok(()) => assert!(arrived),
                Err(_) => assert!(!arrived, "delivered, and told otherwise"),
            },
            Err(_) => assert!(!arrived),
        }
    });
}
