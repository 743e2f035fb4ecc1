//! FindingRoute: how it is entered and left, and what works meanwhile.

use crate::sim::node::OnIncoming;
use crate::sim::pair::options;
use crate::sim::peers::{A, B, Peers};
use crate::sim::{Flow, Size, ms, secs};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::SendOptions;
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::status::Status;

fn path_of(peers: &Peers, node: usize) -> Vec<Status> {
    peers.conn(node).path.clone()
}

#[test]
fn connecting_finding_route_connected_over_the_relay() {
    let mut peers = Peers::finding(1);
    for node in [A, B] {
        let info = peers.info(node);
        assert!(info.relayed && info.peer.is_some());
        assert_eq!(info.status, Status::FindingRoute);
    }
    peers.use_relay();
    peers.open(A, "there", ChannelKind::Messages, Flow::of(20, Size::Fixed(3_000)));
    peers.open(B, "back", ChannelKind::Bytes, Flow::of(50_000, Size::Fixed(3_000)));
    peers.await_eof(B, "there", secs(10));
    peers.await_eof(A, "back", secs(10));
    let passed = [Status::Connecting, Status::FindingRoute, Status::Connected];
    assert_eq!(path_of(&peers, A), passed);
    assert_eq!(path_of(&peers, B), passed);
    assert!(peers.info(A).relayed && peers.info(B).relayed);
    assert_eq!(peers.w.nodes[A].per_remote.keys().filter(|r| r.is_ipv4()).count(), 0);
    peers.finish();
}

#[test]
fn connecting_finding_route_connected_over_a_direct_path() {
    let mut peers = Peers::finding(2);
    peers.try_direct();
    peers.await_status(A, Status::Connected);
    peers.await_status(B, Status::Connected);
    peers.await_relayed(false, secs(5));
    let passed = [Status::Connecting, Status::FindingRoute, Status::Connected];
    assert_eq!(path_of(&peers, A), passed);
    assert_eq!(path_of(&peers, B), passed);
    assert_eq!(peers.info(A).remote, peers.addr(B));
    assert_eq!(peers.info(B).remote, peers.addr(A));
    let told: Vec<_> = peers.conn(A).paths.iter().map(|p| (p.1, p.2)).collect();
    assert_eq!(told, [(peers.addr(B), false)]);
    assert_eq!(peers.conn(B).paths.len(), 1);
    peers.finish();
}

#[test]
fn finding_route_calls_do_what_they_do_in_connecting() {
    let mut peers = Peers::finding(3);
    let conn = peers.conns[A];
    let now = peers.w.now;
    peers.open(A, "queued", ChannelKind::Messages, Flow::of(10, Size::Fixed(1_000)));
    // Unreliable messages are refused as dropped.
    let datagrams = options(ChannelKind::Datagrams);
    let key = peers.node(A).open(now, conn, "loose", datagrams, Flow::silent()).expect("open");
    let sent = peers
        .w
        .call(A, |ep, now, _| ep.send(now, conn, key, b"now or never", SendOptions::default()));
    assert!(matches!(sent, Err(ApiError::Dropped(_))), "{sent:?}");
    peers.w.run_for(secs(2));
    assert_eq!(peers.status(A), Status::FindingRoute);
    assert_eq!(peers.status(B), Status::FindingRoute, "what is queued is not on its way");
    assert!(peers.conn(B).channels.is_empty(), "receives give nothing");
    peers.use_relay();
    peers.await_eof(B, "queued", secs(5));
    peers.finish();
}

#[test]
fn finding_route_closing_discards_the_queue_at_once() {
    let mut peers = Peers::finding(4);
    peers.open(A, "queued", ChannelKind::Messages, Flow::of(10, Size::Fixed(1_000)));
    let (now, conn) = (peers.w.now, peers.conns[A]);
    peers.node(A).close(now, conn, Some(secs(30))).expect("close");
    peers.await_status(B, Status::ClosedByPeer);
    assert!(peers.conn(B).channels.is_empty());
    assert_eq!(
        peers.conn(B).path,
        [Status::Connecting, Status::FindingRoute, Status::ClosedByPeer]
    );
    peers.w.finish();
    let report = peers.conn(A).report.clone().expect("dead");
    assert!(report.undelivered_bytes >= 10_000, "{report:?}");
    assert_eq!(peers.conn(A).path.get(1..), Some(&[Status::FindingRoute, Status::FinWait][..]));
}

#[test]
fn no_route_in_time_is_a_timeout_of_its_own() {
    let mut peers = Peers::new(5, |c| c.initial_timeout = secs(10));
    // The host agrees after nine seconds: that time is up alone.
    peers.node(B).policy.incoming = OnIncoming::Ignore;
    peers.start(A);
    peers.w.run_for(secs(9));
    peers.find_host();
    let host = peers.conns[B];
    peers.w.call(B, |ep, now, _| ep.accept(now, host)).expect("accept");
    peers.w.run_for(ms(500));
    assert_eq!((peers.status(A), peers.status(B)), (Status::FindingRoute, Status::FindingRoute));
    let agreed = peers.w.now;
    peers.w.run_for(secs(9));
    assert_eq!((peers.status(A), peers.status(B)), (Status::FindingRoute, Status::FindingRoute));
    // The host's time began a little earlier; the client learns why.
    peers.await_status(B, Status::ProblemDetectedLocally);
    assert!(peers.w.now.since(agreed) <= secs(10), "ten seconds for FindingRoute");
    peers.await_status(A, Status::ClosedByPeer);
    for node in [A, B] {
        let reason = peers.conn(node).reason.clone().expect("a reason");
        assert_eq!((reason.reason, reason.text.as_str()), (Reason::TIMEOUT, "no route in time"));
    }
    peers.w.finish();
}

#[test]
fn nobody_agrees_is_a_timeout_in_connecting() {
    let mut peers = Peers::new(6, |_| {});
    peers.node(B).policy.incoming = OnIncoming::Ignore;
    let start = peers.w.now;
    peers.start(A);
    peers.await_status(A, Status::ProblemDetectedLocally);
    assert!(peers.w.now.since(start) >= secs(10) && peers.w.now.since(start) < secs(11));
    assert_eq!(peers.conn(A).path, [Status::Connecting, Status::ProblemDetectedLocally]);
    assert_eq!(peers.conn(A).reason.as_ref().map(|r| r.reason), Some(Reason::TIMEOUT));
    peers.w.finish();
}

#[test]
fn a_peer_that_vanishes_in_finding_route_is_a_timeout() {
    for gone in [A, B] {
        let mut peers = Peers::new(7, |c| {
            c.initial_timeout = secs(30);
            c.connected_timeout = secs(5);
            c.keep_alive = secs(1);
        });
        peers.connect();
        peers.w.vanish(gone);
        let start = peers.w.now;
        peers.await_status(1 - gone, Status::ProblemDetectedLocally);
        assert!(peers.w.now.since(start) < secs(6));
        let reason = peers.conn(1 - gone).reason.clone().expect("a reason");
        assert_eq!(reason.reason, Reason::TIMEOUT);
        peers.w.finish();
    }
}

#[test]
fn a_path_that_is_tried_too_soon_waits_for_the_peer_to_agree() {
    let mut peers = Peers::new(8, |_| {});
    peers.node(B).policy.incoming = OnIncoming::Ignore;
    peers.start(A);
    let to = peers.addr(B);
    peers.try_path(A, to);
    peers.w.run_for(secs(6));
    assert_eq!(peers.status(A), Status::Connecting);
    let direct = peers.w.nodes[A].per_remote.get(&to).copied().unwrap_or_default();
    assert_eq!(direct, (0, 0), "nothing goes there before");
    peers.find_host();
    let host = peers.conns[B];
    peers.w.call(B, |ep, now, _| ep.accept(now, host)).expect("accept");
    peers.await_relayed(false, secs(2));
    peers.await_status(A, Status::Connected);
    peers.await_status(B, Status::Connected);
    peers.finish();
}

#[test]
fn a_relay_that_is_settled_for_too_soon_waits_for_the_peer_to_agree() {
    let mut peers = Peers::new(9, |_| {});
    let conn = peers.start(A);
    peers.w.call(A, |ep, now, _| ep.use_relay(now, conn)).expect("use_relay");
    assert_eq!(peers.status(A), Status::Connecting);
    peers.await_status(A, Status::Connected);
    assert_eq!(
        peers.conn(A).path,
        [Status::Connecting, Status::FindingRoute, Status::Connected],
        "FindingRoute is passed through"
    );
    peers.find_host();
    // The host learns it with the first data.
    assert_eq!(peers.status(B), Status::FindingRoute);
    peers.open(A, "first", ChannelKind::Bytes, Flow::of(10, Size::Fixed(10)));
    peers.await_eof(B, "first", secs(2));
    assert_eq!(peers.status(B), Status::Connected);
    peers.finish();
}

#[test]
fn the_first_data_of_a_connected_peer_ends_finding_route() {
    for (from, kind) in [
        (A, ChannelKind::Bytes),
        (B, ChannelKind::Bytes),
        (A, ChannelKind::Datagrams),
        (B, ChannelKind::Messages),
    ] {
        let mut peers = Peers::finding(10);
        let conn = peers.conns[from];
        peers.w.call(from, |ep, now, _| ep.use_relay(now, conn)).expect("use_relay");
        peers.w.run_for(secs(1));
        assert_eq!(peers.status(1 - from), Status::FindingRoute);
        peers.open(from, "first", kind, Flow::of(10, Size::Fixed(10)));
        peers.await_eof(1 - from, "first", secs(2));
        assert_eq!(peers.status(1 - from), Status::Connected);
        peers.finish();
    }
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    let mut peers = Peers::finding(11);
    let conn = peers.conns[A];
    peers.w.call(A, |ep, now, _| {
        for (socket, remote) in [(0xFFFE, "10.0.0.2:4000"), (0, "[100::2]:1"), (0, "10.0.0.2:0")] {
            let tried = ep.try_path(now, conn, socket, remote.parse().expect("an address"));
            assert!(matches!(tried, Err(ApiError::InvalidArgument { .. })), "{remote}: {tried:?}");
        }
        for i in 0..4u8 {
            let remote = ([10, 9, 0, i], 9).into();
            ep.try_path(now, conn, 0, remote).expect("try_path");
            ep.try_path(now, conn, 0, remote).expect("the same again");
        }
        let fifth = ep.try_path(now, conn, 0, ([10, 9, 0, 5], 9).into());
        assert!(matches!(fifth, Err(ApiError::LimitReached { .. })), "{fifth:?}");
        let mut stale = conn;
        stale.generation += 1;
        assert_eq!(ep.use_relay(now, stale), Err(ApiError::InvalidHandle));
        assert_eq!(ep.fall_back(now, stale), Err(ApiError::InvalidHandle));
        let remote = "10.0.0.2:4000".parse().expect("an address");
        assert_eq!(ep.try_path(now, stale, 0, remote), Err(ApiError::InvalidHandle));
    });
    let config = peers.config(A);
    peers.w.call(A, |ep, now, _| {
        let direct = "10.0.0.2:4000".parse().expect("an address");
        let refused = ep.connect_relayed(now, direct, &config);
        assert!(matches!(refused, Err(ApiError::InvalidArgument { field: "relay", .. })));
    });
    let now = peers.w.now;
    let nobody = "10.0.0.77:1".parse().expect("an address");
    let plain = peers.node(A).connect(now, &[nobody], &config);
    peers.w.call(A, |ep, now, _| {
        let no_relay = |r: Result<(), ApiError>| matches!(r, Err(ApiError::NoConnection(_)));
        assert!(no_relay(ep.use_relay(now, plain)));
        assert!(no_relay(ep.fall_back(now, plain)));
        assert!(no_relay(ep.try_path(now, plain, 0, "10.0.0.2:4000".parse().expect("one"))));
    });
    peers.w.run_for(secs(4));
    assert_eq!(peers.conn(A).paths_failed.len(), 4, "none of them answered");
    peers.use_relay();
    peers.finish();
}

/// What an application and its finder may do while a route is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Accept,
    TryA,
    TryB,
    RelayA,
    RelayB,
    BackA,
}

impl Step {
    fn run(self, peers: &mut Peers) {
        let node = if matches!(self, Self::TryA | Self::RelayA | Self::BackA) { A } else { B };
        let (conn, to) = (peers.conns[node], peers.addr(1 - node));
        let done = peers.w.call(node, |ep, now, _| match self {
            Self::Accept => ep.accept(now, conn),
            Self::TryA | Self::TryB => ep.try_path(now, conn, 0, to),
            Self::RelayA | Self::RelayB => ep.use_relay(now, conn),
            Self::BackA => ep.fall_back(now, conn),
        });
        done.unwrap_or_else(|e| panic!("{self:?}: {e}"));
    }
}

fn permutations(steps: &[Step], each: &mut impl FnMut(&[Step])) {
    fn extend(rest: &[Step], order: &mut Vec<Step>, each: &mut impl FnMut(&[Step])) {
        if rest.is_empty() {
            return each(order);
        }
        for (i, step) in rest.iter().enumerate() {
            let others: Vec<Step> =
                rest.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, s)| *s).collect();
            order.push(*step);
            extend(&others, order, each);
            order.pop();
        }
    }
    extend(steps, &mut Vec::new(), each);
}

#[test]
fn every_order_of_steps_ends_connected() {
    let steps = [Step::Accept, Step::TryA, Step::TryB, Step::RelayA, Step::RelayB, Step::BackA];
    let mut orders = 0;
    permutations(&steps, &mut |order| {
        for pause in [ms(0), ms(40)] {
            let mut peers = Peers::new(12, |_| {});
            peers.node(B).policy.incoming = OnIncoming::Ignore;
            peers.start(A);
            peers.w.run_for(ms(300));
            peers.find_host();
            for step in order {
                step.run(&mut peers);
                peers.w.run_for(pause);
            }
            peers.await_status(A, Status::Connected);
            peers.await_status(B, Status::Connected);
            for node in [A, B] {
                let passed = [Status::Connecting, Status::FindingRoute, Status::Connected];
                assert_eq!(peers.conn(node).path, passed, "{order:?}, node {node}");
                peers.open(
                    node,
                    &format!("of {node}"),
                    ChannelKind::Bytes,
                    Flow::of(99, Size::Fixed(9)),
                );
            }
            peers.await_eof(A, "of 1", secs(5));
            peers.await_eof(B, "of 0", secs(5));
            peers.w.run_for(secs(2));
            let info = [peers.info(A), peers.info(B)];
            assert_eq!(info[A].relayed, info[B].relayed, "{order:?}: one here, one there");
            peers.finish();
            orders += 1;
        }
    });
    assert_eq!(orders, 2 * 720);
}

#[test]
fn closing_at_any_moment_of_the_way_leaves_nothing() {
    for by in [A, B] {
        for at in 0..40 {
            let mut peers = Peers::new(13, |_| {});
            peers.start(A);
            peers.w.run_for(ms(260));
            peers.find_host();
            peers.try_direct();
            peers.w.run_for(ms(at * 3));
            let (now, conn) = (peers.w.now, peers.conns[by]);
            peers.node(by).close(now, conn, None).expect("close");
            peers.await_status(1 - by, Status::ClosedByPeer);
            peers.w.finish();
        }
    }
}
