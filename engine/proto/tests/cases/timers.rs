//! Every timer of a connection: what starts it, when it fires, what it says.

use crate::seeded;
use crate::sim::node::{NodeConfig, OnIncoming};
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::{Flow, Size, ms, on_both_links, secs};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// How late a timer may fire.
const SLACK: Duration = ms(300);

fn within(since: Instant, now: Instant, expected: Duration) {
    let took = now.since(since);
    assert!(
        took >= expected.saturating_sub(SLACK) && took <= expected + SLACK,
        "{} ms instead of {} ms",
        took.as_millis(),
        expected.as_millis()
    );
}

/// Waits until this side sees a problem; gives the reason and when it did.
fn await_problem(pair: &mut Pair, node: usize, limit: Duration) -> (Reason, Instant) {
    pair.run_until("a problem is seen", limit, |pair| {
        pair.conn(node).status == Status::ProblemDetectedLocally
    });
    (pair.conn(node).reason.as_ref().expect("a reason").reason, pair.now())
}

#[test]
fn keep_alive_holds_an_idle_connection() {
    seeded("timers::keep_alive_holds_an_idle_connection", 8, |seed| {
        let mut pair = Pair::connected(seed);
        pair.link(|link| link.loss = [0, 500][(seed % 2) as usize]);
        pair.settle();
        let before = pair.w.delivered;
        pair.w.run_for(secs(600));
        assert_eq!(pair.status(CLIENT), Status::Connected);
        assert_eq!(pair.status(HOST), Status::Connected);
        let packets = pair.w.delivered - before;
        // The client pings every 3 s or a little earlier, and each ping is answered. That is enough
        // for both sides; only where packets are lost the host pings too.
        let most = [420, 700][(seed % 2) as usize];
        assert!((380..=most).contains(&packets), "{packets} packets in ten idle minutes");
        pair.open(CLIENT, "later", ChannelKind::Bytes, Flow::of(10_000, Size::Fixed(1_000)));
        pair.await_eof(HOST, "later", secs(10));
        pair.finish();
    });
}

#[test]
fn a_vanished_peer_is_a_timeout_within_the_connected_timeout() {
    on_both_links(|_| {
        seeded("timers::a_vanished_peer_is_a_timeout_within_the_connected_timeout", 8, |seed| {
            let busy = seed % 4 < 2;
            let timeout = [secs(10), secs(2)][(seed / 4 % 2) as usize];
            let mut pair = Pair::with(seed, |c| {
                c.connected_timeout = timeout;
                c.keep_alive = timeout.div(3);
            });
            pair.settle();
            let gone = (seed % 2) as usize;
            if busy {
                let flow = Flow::of(100_000_000, Size::Fixed(10_000));
                pair.open(1 - gone, "bulk", ChannelKind::Bytes, flow);
                pair.w.run_for(ms(500));
            } else {
                pair.w.run_for(secs(30));
            }
            let start = pair.now();
            pair.w.vanish(gone);
            let (reason, at) = await_problem(&mut pair, 1 - gone, secs(30));
            assert_eq!(reason, Reason::TIMEOUT);
            // The last packet may have come up to one keep-alive interval before.
            let took = at.since(start);
            assert!(took <= timeout + SLACK, "noticed after {} ms", took.as_millis());
            assert!(took >= timeout.div(2).saturating_sub(SLACK), "after {} ms", took.as_millis());
            assert_eq!(pair.status(1 - gone), Status::ProblemDetectedLocally);
            pair.w.finish();
        });
    });
}

#[test]
fn a_silent_host_is_an_initial_timeout() {
    on_both_links(|_| {
        for limit in [secs(10), ms(1_500)] {
            let client = NodeConfig::client().with(|c| c.initial_timeout = limit);
            let mut pair = Pair::apart(1, client, NodeConfig::host());
            pair.w.vanish(HOST);
            let start = pair.now();
            pair.start();
            let (reason, at) = await_problem(&mut pair, CLIENT, secs(30));
            assert_eq!(reason, Reason::TIMEOUT);
            within(start, at, limit);
            pair.w.finish();
        }
    });
}

#[test]
fn a_host_that_falls_silent_in_the_handshake_is_an_initial_timeout() {
    on_both_links(|_| {
        let mut pair = Pair::apart(2, NodeConfig::client(), NodeConfig::host());
        let start = pair.now();
        pair.start();
        // The ConnectionResponse is on its way, nothing else will come.
        pair.w.run_for(ms(15));
        pair.w.vanish(HOST);
        let (reason, at) = await_problem(&mut pair, CLIENT, secs(30));
        assert_eq!(reason, Reason::TIMEOUT);
        within(start, at, secs(10));
        pair.w.finish();
    });
}

#[test]
fn a_client_that_falls_silent_in_the_handshake_leaves_nothing_at_the_host() {
    on_both_links(|_| {
        let mut pair = Pair::apart(3, NodeConfig::client(), NodeConfig::host());
        pair.start();
        pair.w.run_for(ms(15));
        pair.w.vanish(CLIENT);
        assert_eq!(pair.w.nodes[HOST].endpoint.connections().count(), 1);
        // The initial timeout, and fin-wait.
        pair.w.run_until("the host has forgotten it", secs(16), |w| w.nodes[HOST].is_empty());
        assert!(
            pair.w.nodes[HOST].app.conns.values().all(|c| !c.known),
            "the application was told"
        );
        pair.w.finish();
    });
}

#[test]
fn an_application_that_never_accepts_is_an_initial_timeout_on_both_sides() {
    on_both_links(|_| {
        let mut pair = Pair::apart(4, NodeConfig::client(), NodeConfig::host());
        pair.host().policy.incoming = OnIncoming::Ignore;
        let start = pair.now();
        pair.start();
        pair.w.run_until("the host is offered it", secs(1), |w| {
            w.nodes[HOST].app.conns.values().any(|c| c.known)
        });
        pair.h = pair.w.only(HOST);
        assert_eq!(pair.status(HOST), Status::Connecting);
        assert_eq!(pair.status(CLIENT), Status::Connecting);
        pair.run_until("the client is told", secs(11), |pair| pair.conn(CLIENT).ended());
        within(start, pair.now(), secs(10));
        pair.run_until("the host is told", secs(1), |pair| pair.conn(HOST).ended());
        for node in [CLIENT, HOST] {
            assert!(!pair.conn(node).path.contains(&Status::Connected));
            let reason = pair.conn(node).reason.as_ref().expect("a reason").reason;
            assert_eq!(reason, Reason::TIMEOUT, "at node {node}");
        }
        // Too late now.
        let h = pair.h;
        let late = pair.w.call(HOST, |ep, now, _| ep.accept(now, h));
        assert!(
            matches!(late, Err(ApiError::NoConnection(_) | ApiError::InvalidHandle)),
            "{late:?}"
        );
        pair.w.finish();
    });
}

#[test]
fn a_late_accept_is_in_time() {
    on_both_links(|_| {
        let mut pair = Pair::apart(5, NodeConfig::client(), NodeConfig::host());
        pair.host().policy.incoming = OnIncoming::Ignore;
        pair.start();
        pair.w.run_for(secs(9));
        pair.h = pair.w.only(HOST);
        let h = pair.h;
        pair.w.call(HOST, |ep, now, _| ep.accept(now, h)).expect("still time");
        pair.await_connected();
        pair.finish();
    });
}

#[test]
fn a_check_is_answered_or_ends_the_connection() {
    on_both_links(|_| {
        let mut pair = Pair::connected(6);
        pair.settle();
        let c = pair.c;
        pair.w.call(CLIENT, |ep, now, _| ep.check(now, c)).expect("check");
        let start = pair.now();
        pair.run_until("it is answered", ms(100), |pair| pair.conn(CLIENT).checks_answered == 1);
        assert!(pair.now().since(start) >= ms(20));
        pair.settle();
        pair.w.vanish(HOST);
        let start = pair.now();
        pair.w.call(CLIENT, |ep, now, _| ep.check(now, c)).expect("check");
        let (reason, at) = await_problem(&mut pair, CLIENT, secs(5));
        assert_eq!(reason, Reason::TIMEOUT);
        within(start, at, secs(3));
        pair.w.finish();
    });
}

#[test]
fn a_network_change_is_noticed_soon() {
    on_both_links(|_| {
        let mut pair = Pair::connected(7);
        pair.settle();
        // With a peer that answers it harms nothing.
        pair.w.call(CLIENT, |ep, now, _| ep.network_changed(now));
        pair.settle();
        assert_eq!(pair.status(CLIENT), Status::Connected);
        pair.w.vanish(HOST);
        let start = pair.now();
        pair.w.call(CLIENT, |ep, now, _| ep.network_changed(now));
        let (reason, at) = await_problem(&mut pair, CLIENT, secs(12));
        assert_eq!(reason, Reason::TIMEOUT);
        within(start, at, secs(3));
        pair.w.finish();
    });
}

#[test]
fn a_blackout_shorter_than_the_timeout_is_survived() {
    seeded("timers::a_blackout_shorter_than_the_timeout_is_survived", 10, |seed| {
        let mut pair = Pair::connected(seed);
        let amount = 3_000_000;
        let flow = move || Flow::of(amount, Size::Fixed(20_000));
        pair.host().policy.answer = Box::new(move |_, _| flow());
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, flow());
        pair.w.run_for(ms(60 + 10 * seed));
        pair.link(|link| link.down = true);
        pair.w.run_for(ms(1_000 * (1 + seed % 7)));
        pair.link(|link| link.down = false);
        pair.await_eof(HOST, "bulk", secs(30));
        pair.await_eof(CLIENT, "bulk", secs(30));
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn an_idle_pair_costs_few_steps() {
    on_both_links(|_| {
        let mut pair = Pair::connected(8);
        pair.settle();
        let before = pair.w.steps;
        pair.w.run_for(secs(60));
        let steps = pair.w.steps - before;
        assert!(steps <= 400, "{steps} steps in an idle minute");
        pair.finish();
    });
}
