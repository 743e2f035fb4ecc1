//! Direct paths: moved to, lost, and found again, while data flows.

use crate::seeded;
use crate::sim::peers::{A, B, Peers};
use crate::sim::world::relay_addr;
use crate::sim::{Flow, Size, Verdict, ms, secs};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::limits::RELAY_PACKET;
use trunkline_proto::status::Status;

const KINDS: [ChannelKind; 2] = [ChannelKind::Bytes, ChannelKind::Messages];

/// A steady flow in both directions, of so many pieces of 2,000 bytes, 5 ms apart.
fn flows(peers: &mut Peers, pieces: u64) {
    for node in [A, B] {
        for kind in KINDS {
            let amount = if kind == ChannelKind::Bytes { pieces * 2_000 } else { pieces };
            let flow = Flow::of(amount, Size::Fixed(2_000)).paced(ms(5));
            peers.open(node, &format!("{kind:?} of {node}"), kind, flow);
        }
    }
}

/// Everything of [`flows`] arrives, once and in order (which the applications check).
fn await_flows(peers: &mut Peers) {
    for node in [A, B] {
        for kind in KINDS {
            peers.await_eof(1 - node, &format!("{kind:?} of {node}"), secs(120));
        }
    }
    peers.check_delivery();
}

/// The paths told to a node: over the relay or not.
fn told(peers: &Peers, node: usize) -> Vec<bool> {
    peers.conn(node).paths.iter().map(|p| p.2).collect()
}

#[test]
fn data_flows_on_from_the_relay_to_a_direct_path() {
    seeded("paths::data_flows_on_from_the_relay_to_a_direct_path", 16, |seed| {
        let mut peers = Peers::relayed(seed);
        let loss = [0, 300, 1_000][(seed % 3) as usize];
        peers.w.both_ways(A, B, |link| {
            link.loss = loss;
            link.reorder = if seed % 2 == 1 { 500 } else { 0 };
            link.delay = ms(1 + seed * 7 % 60);
        });
        for node in [A, B] {
            peers.w.relay_from(node).loss = loss;
        }
        flows(&mut peers, 300);
        peers.w.run_for(ms(400));
        peers.try_direct();
        peers.await_relayed(false, secs(10));
        peers.w.run_for(ms(500));
        let relayed = peers.w.relayed;
        await_flows(&mut peers);
        assert!(peers.w.relayed <= relayed + 40, "packets still go over the relay");
        assert_eq!((peers.status(A), peers.status(B)), (Status::Connected, Status::Connected));
        peers.finish();
    });
}

#[test]
fn a_direct_path_that_dies_is_left_and_found_again() {
    seeded("paths::a_direct_path_that_dies_is_left_and_found_again", 12, |seed| {
        let mut peers = Peers::relayed(seed);
        let loss = [0, 500][(seed % 2) as usize];
        for node in [A, B] {
            peers.w.relay_from(node).loss = loss;
        }
        peers.try_direct();
        peers.await_relayed(false, secs(5));
        flows(&mut peers, 4_000);
        for _ in 0..2 {
            peers.w.run_for(secs(1));
            peers.cut(true);
            if seed % 3 == 0 {
                // One of them is told from outside; the other follows.
                peers.w.run_for(ms(300));
                peers.fall_back((seed % 2) as usize);
            }
            peers.await_relayed(true, secs(9));
            peers.cut(false);
            peers.w.run_for(secs(1));
            peers.try_direct();
            peers.await_relayed(false, secs(10));
        }
        await_flows(&mut peers);
        for node in [A, B] {
            assert_eq!(told(&peers, node), [false, true, false, true, false], "node {node}");
        }
        peers.finish();
    });
}

#[test]
fn one_direction_that_dies_sends_both_back_to_the_relay() {
    for (from, to) in [(A, B), (B, A)] {
        let mut peers = Peers::relayed(21);
        peers.try_direct();
        peers.await_relayed(false, secs(5));
        flows(&mut peers, 3_000);
        peers.w.run_for(secs(1));
        peers.w.path(from, to).down = true;
        peers.await_relayed(true, secs(9));
        peers.w.run_for(secs(5));
        assert!(peers.info(A).relayed && peers.info(B).relayed, "and they stay there");
        await_flows(&mut peers);
        assert_eq!(told(&peers, A), [false, true]);
        peers.finish();
    }
}

#[test]
fn an_idle_connection_leaves_a_dead_path_too() {
    let mut peers = Peers::relayed(22);
    peers.try_direct();
    peers.await_relayed(false, secs(5));
    peers.w.run_for(secs(20));
    assert!(!peers.info(A).relayed && !peers.info(B).relayed, "idleness is no silence");
    peers.cut(true);
    peers.await_relayed(true, secs(9));
    peers.w.run_for(secs(30));
    assert_eq!((peers.status(A), peers.status(B)), (Status::Connected, Status::Connected));
    peers.finish();
}

#[test]
fn a_relay_that_dies_beside_a_direct_path_changes_nothing() {
    let mut peers = Peers::relayed(23);
    peers.try_direct();
    peers.await_relayed(false, secs(5));
    for node in [A, B] {
        peers.w.relay_from(node).down = true;
    }
    flows(&mut peers, 1_000);
    await_flows(&mut peers);
    peers.w.run_for(secs(60));
    assert_eq!((peers.status(A), peers.status(B)), (Status::Connected, Status::Connected));
    assert!(!peers.info(A).relayed && !peers.info(B).relayed);
    assert_eq!((told(&peers, A).len(), told(&peers, B).len()), (1, 1));
    peers.finish();
}

#[test]
fn both_routes_dead_end_the_connection_by_its_timeout() {
    let mut peers = Peers::relayed(24);
    peers.try_direct();
    peers.await_relayed(false, secs(5));
    peers.w.run_for(secs(1));
    peers.cut(true);
    for node in [A, B] {
        peers.w.relay_from(node).down = true;
    }
    let start = peers.w.now;
    peers.await_status(A, Status::ProblemDetectedLocally);
    peers.await_status(B, Status::ProblemDetectedLocally);
    assert!(peers.w.now.since(start) <= secs(11));
    peers.w.finish();
}

#[test]
fn the_host_alone_may_try_and_the_client_decides() {
    let mut peers = Peers::finding(25);
    let (a, b) = (peers.addr(A), peers.addr(B));
    peers.try_path(B, a);
    peers.w.run_for(secs(4));
    // The client drops what comes from where it asked nothing.
    assert_eq!(peers.conn(B).paths_failed, [a]);
    assert_eq!((peers.status(A), peers.status(B)), (Status::FindingRoute, Status::FindingRoute));
    peers.try_path(A, b);
    peers.await_relayed(false, secs(2));
    peers.await_status(A, Status::Connected);
    peers.await_status(B, Status::Connected);
    peers.finish();
}

#[test]
fn a_path_that_does_not_answer_is_told_and_harms_nothing() {
    let mut peers = Peers::relayed(26);
    flows(&mut peers, 1_500);
    peers.cut(true);
    peers.try_direct();
    peers.w.run_for(secs(5));
    assert_eq!(peers.conn(A).paths_failed, [peers.addr(B)]);
    assert_eq!(peers.conn(B).paths_failed, [peers.addr(A)]);
    assert!(told(&peers, A).is_empty() && told(&peers, B).is_empty());
    await_flows(&mut peers);
    assert_eq!(peers.w.nodes[A].endpoint.stats(peers.conns[A]).expect("live").packets_lost, 0);
    peers.finish();
}

#[test]
fn window_round_trip_and_packet_size_start_afresh_on_a_new_path() {
    let mut peers = Peers::relayed(27);
    for node in [A, B] {
        peers.w.relay_from(node).delay = ms(150);
    }
    peers.w.both_ways(A, B, |link| link.delay = ms(2));
    peers.open(A, "bulk", ChannelKind::Bytes, Flow::of(20_000_000, Size::Fixed(50_000)));
    peers.w.run_for(secs(3));
    let before = peers.w.nodes[A].endpoint.stats(peers.conns[A]).expect("live");
    assert!(before.rtt > ms(250) && before.window > 50_000, "{before:?}");
    assert_eq!(before.packet_size, RELAY_PACKET as u64, "no search over the relay");
    peers.try_direct();
    let conn = peers.conns[A];
    peers.w.run_until("it moved", secs(5), |w| {
        w.nodes[A].endpoint.info(conn).is_some_and(|i| !i.relayed)
    });
    let moved = peers.w.nodes[A].endpoint.stats(conn).expect("live");
    assert!(moved.window <= 15_000, "{moved:?}");
    peers.w.run_for(ms(300));
    let after = peers.w.nodes[A].endpoint.stats(conn).expect("live");
    assert!(after.rtt < ms(30), "{after:?}");
    assert!(after.packet_size > 1_400, "the size is searched for: {after:?}");
    peers.fall_back(A);
    peers.w.run_for(secs(1));
    let back = peers.w.nodes[A].endpoint.stats(conn).expect("live");
    assert_eq!(back.packet_size, RELAY_PACKET as u64);
    assert!(back.rtt > ms(200), "{back:?}");
    peers.await_eof(B, "bulk", secs(120));
    peers.finish();
}

#[test]
fn a_host_on_an_unproven_path_is_held_to_three_times_what_came() {
    // The host did not try: what it sends before its own challenge is answered is bounded.
    let mut peers = Peers::relayed(28);
    peers.open(B, "bulk", ChannelKind::Bytes, Flow::of(5_000_000, Size::Fixed(50_000)));
    peers.w.run_for(secs(1));
    let (a, b) = (peers.addr(A), peers.addr(B));
    let sent = Rc::new(Cell::new((0u64, 0u64)));
    let counter = sent.clone();
    peers.w.set_hook(move |p| {
        let (mut there, mut back) = counter.get();
        if p.from == a && p.to == b {
            there += p.data.len() as u64;
        }
        if p.from == b && p.to == a {
            back += p.data.len() as u64;
            assert!(back <= 3 * there + 1_200, "{back} bytes for {there}");
            // No answer gets through: the path is not proven to the host.
            if back > 2_000 {
                counter.set((there, back));
                return Verdict::Drop;
            }
        }
        counter.set((there, back));
        Verdict::Pass
    });
    peers.try_path(A, b);
    peers.w.run_for(ms(300));
    assert!(sent.get().1 > 0, "the host went there");
    peers.w.clear_hook();
    peers.await_eof(A, "bulk", secs(60));
    peers.finish();
}

#[test]
fn answers_from_elsewhere_prove_nothing() {
    // A PATH_RESPONSE that comes over the relay says that the challenge arrived, not that the path
    // leads back.
    let mut peers = Peers::relayed(29);
    let (a, b) = (peers.addr(A), peers.addr(B));
    peers.w.set_hook(move |p| {
        if p.from == b && p.to == a {
            // Somebody takes it to the relay.
            p.from = relay_addr(B);
            p.to = relay_addr(A);
        }
        Verdict::Pass
    });
    peers.try_path(A, b);
    peers.w.run_for(secs(5));
    assert!(peers.info(A).relayed && peers.info(B).relayed);
    assert_eq!(peers.conn(A).paths_failed, [b]);
    assert_eq!((peers.status(A), peers.status(B)), (Status::Connected, Status::Connected));
    peers.finish();
}

#[test]
fn packets_from_elsewhere_are_dropped_before_they_are_opened() {
    let mut peers = Peers::relayed(30);
    let a = peers.addr(A);
    let stored = Rc::new(RefCell::new(Vec::new()));
    let log = stored.clone();
    peers.w.set_hook(move |p| {
        if p.to == relay_addr(A) && log.borrow().len() < 50 {
            log.borrow_mut().push(p.data.clone());
        }
        Verdict::Pass
    });
    flows(&mut peers, 100);
    await_flows(&mut peers);
    peers.w.clear_hook();
    peers.w.run_for(secs(2));
    let before = *peers.w.nodes[A].endpoint.endpoint_stats();
    let conn = peers.w.nodes[A].endpoint.stats(peers.conns[A]).expect("live");
    let stranger = "10.66.6.6:66".parse().expect("an address");
    let packets = stored.borrow().clone();
    for data in &packets {
        peers.w.inject(stranger, a, data.clone(), ms(1));
        // The address that stands for the peer is nobody's on a real socket.
        peers.w.inject(relay_addr(B), a, data.clone(), ms(2));
    }
    peers.w.run_for(ms(10));
    let after = *peers.w.nodes[A].endpoint.endpoint_stats();
    let then = peers.w.nodes[A].endpoint.stats(peers.conns[A]).expect("live");
    let short = packets.iter().filter(|d| d[0] & 0x80 == 0).count() as u64;
    assert!(after.rejected + after.copies >= before.rejected + before.copies + short);
    assert!(after.rejected >= before.rejected + short, "{after:?}");
    assert_eq!(then.packets_received, conn.packets_received);
    assert!(peers.info(A).relayed);
    peers.finish();
}

#[test]
fn memory_for_paths_is_bounded() {
    let mut peers = Peers::relayed(31);
    peers.w.run_for(secs(5));
    let before = peers.w.heap(A);
    for round in 0..200u32 {
        for i in 0..6u32 {
            let [_, x, y, z] = (round * 6 + i).to_be_bytes();
            let conn = peers.conns[A];
            let remote = ([11, x, y, z], 9).into();
            // The first four are taken, the rest refused.
            let _ = peers.w.call(A, |ep, now, _| ep.try_path(now, conn, 0, remote));
        }
        peers.w.run_for(ms(700));
    }
    peers.w.run_for(secs(5));
    let grown = peers.w.heap(A) - before;
    assert!(grown < 4_096, "{grown} bytes more");
    assert_eq!(peers.status(A), Status::Connected);
    peers.finish();
}
