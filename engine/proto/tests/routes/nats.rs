//! Peers behind translators find a direct path where there is one, and the relay where there is not.

use crate::seeded;
use crate::sim::nat::{Filter, Mapping, Nat};
use crate::sim::peers::{A, B, Peers};
use crate::sim::{Flow, Size, Verdict, ms, secs};
use std::cell::RefCell;
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::rendezvous::route::{RouteConfig, RouteError};
use trunkline_proto::status::Status;

const A_IP: [u8; 4] = [198, 51, 100, 1];
const B_IP: [u8; 4] = [203, 0, 113, 2];

/// Peers behind these translators that look for routes.
fn searching(seed: u64, a: Nat, b: Nat) -> Peers {
    let mut peers = Peers::behind(seed, a, b);
    peers.connect();
    peers.search();
    peers
}

fn flow_both_ways(peers: &mut Peers, name: &str, pieces: u64) {
    for node in [A, B] {
        let flow = Flow::of(pieces, Size::Fixed(1_500)).paced(ms(10));
        peers.open(node, &format!("{name} of {node}"), ChannelKind::Messages, flow);
    }
}

fn await_both(peers: &mut Peers, name: &str) {
    for node in [A, B] {
        peers.await_eof(1 - node, &format!("{name} of {node}"), secs(120));
    }
}

#[test]
fn peers_behind_cones_get_a_direct_path() {
    let kinds = [
        (Mapping::Independent, Filter::Open),
        (Mapping::Independent, Filter::Address),
        (Mapping::Independent, Filter::AddressAndPort),
    ];
    seeded("nats::peers_behind_cones_get_a_direct_path", 18, |seed| {
        let (a, b) = (kinds[(seed % 3) as usize], kinds[(seed / 3 % 3) as usize]);
        let mut peers = Peers::behind(seed, Nat::new(A_IP, a.0, a.1), Nat::new(B_IP, b.0, b.1));
        peers.w.both_ways(A, B, |link| {
            link.loss = [0, 1_000][(seed / 9) as usize % 2];
            link.delay = ms(5 + seed * 11 % 80);
        });
        peers.connect();
        let start = peers.w.now;
        peers.search();
        flow_both_ways(&mut peers, "early", 100);
        peers.await_relayed(false, secs(8));
        let limit = if seed < 9 { ms(1_500) } else { secs(8) };
        assert!(peers.w.now.since(start) < limit, "{:?}", peers.w.now.since(start));
        await_both(&mut peers, "early");
        for node in [A, B] {
            assert_eq!(
                peers.conn(node).path,
                [Status::Connecting, Status::FindingRoute, Status::Connected]
            );
        }
        assert_eq!(peers.info(A).remote.ip(), peers.w.nats[1].ip);
        assert_eq!(peers.info(B).remote.ip(), peers.w.nats[0].ip);
        peers.finish();
    });
}

#[test]
fn one_symmetric_side_is_reached_through_what_the_checks_meet() {
    // The address that the event source sees of the symmetric side is of no use to the peer; the one
    // that the checks come from is.
    for symmetric in [A, B] {
        let open = |ip| Nat::new(ip, Mapping::Independent, Filter::Address);
        let (a, b) = if symmetric == A {
            (Nat::symmetric(A_IP), open(B_IP))
        } else {
            (open(A_IP), Nat::symmetric(B_IP))
        };
        let mut peers = searching(3, a, b);
        peers.await_relayed(false, secs(5));
        peers.await_status(A, Status::Connected);
        peers.await_status(B, Status::Connected);
        flow_both_ways(&mut peers, "data", 50);
        await_both(&mut peers, "data");
        peers.finish();
    }
}

#[test]
fn symmetric_on_both_sides_stays_relayed_until_one_changes() {
    seeded("nats::symmetric_on_both_sides_stays_relayed_until_one_changes", 6, |seed| {
        let mut peers = searching(seed, Nat::symmetric(A_IP), Nat::symmetric(B_IP));
        let start = peers.w.now;
        peers.await_status(A, Status::Connected);
        peers.await_status(B, Status::Connected);
        let took = peers.w.now.since(start);
        assert!(took >= secs(3) && took < ms(3_500), "the relay after three seconds: {took:?}");
        flow_both_ways(&mut peers, "steady", 6_000);
        peers.w.run_for(secs(20));
        assert!(!peers.is_direct() && peers.info(A).relayed && peers.info(B).relayed);
        // One of them gets another router.
        let at = (seed % 2) as usize;
        let nat = &mut peers.w.nats[at];
        nat.forget();
        nat.mapping = Mapping::Independent;
        nat.filter = Filter::Open;
        peers.await_relayed(false, secs(60));
        peers.w.run_for(secs(5));
        assert!(peers.is_direct());
        await_both(&mut peers, "steady");
        peers.finish();
    });
}

#[test]
fn a_direct_path_dies_and_comes_back() {
    seeded("nats::a_direct_path_dies_and_comes_back", 8, |seed| {
        let mut peers = searching(seed, Nat::cone(A_IP), Nat::cone(B_IP));
        peers.await_relayed(false, secs(5));
        if seed % 2 == 0 {
            flow_both_ways(&mut peers, "steady", 8_000);
        }
        for _ in 0..2 {
            peers.w.run_for(secs(3));
            peers.cut(true);
            peers.await_relayed(true, secs(9));
            peers.w.run_for(secs(10));
            assert_eq!((peers.status(A), peers.status(B)), (Status::Connected, Status::Connected));
            peers.cut(false);
            peers.await_relayed(false, secs(40));
        }
        if seed % 2 == 0 {
            await_both(&mut peers, "steady");
        }
        peers.finish();
    });
}

#[test]
fn a_router_that_is_restarted_is_survived() {
    for at in [A, B] {
        let mut peers = searching(5, Nat::cone(A_IP), Nat::cone(B_IP));
        peers.await_relayed(false, secs(5));
        flow_both_ways(&mut peers, "steady", 5_000);
        peers.w.run_for(secs(2));
        peers.w.nats[at].forget();
        peers.w.run_for(secs(45));
        assert!(peers.is_direct(), "found again");
        await_both(&mut peers, "steady");
        assert_eq!((peers.status(A), peers.status(B)), (Status::Connected, Status::Connected));
        peers.finish();
    }
}

#[test]
fn mappings_are_kept_open_while_nothing_flows() {
    let (mut a, mut b) = (Nat::cone(A_IP), Nat::cone(B_IP));
    (a.timeout, b.timeout) = (secs(10), secs(10));
    let mut peers = searching(6, a, b);
    peers.await_relayed(false, secs(5));
    peers.w.run_for(secs(300));
    assert!(peers.is_direct());
    assert_eq!((peers.conn(A).paths.len(), peers.conn(B).paths.len()), (1, 1), "it never moved");
    flow_both_ways(&mut peers, "late", 20);
    await_both(&mut peers, "late");
    peers.finish();
}

#[test]
fn the_event_source_dies_beside_a_direct_path() {
    let mut peers = searching(7, Nat::cone(A_IP), Nat::cone(B_IP));
    peers.await_relayed(false, secs(5));
    for node in [A, B] {
        peers.w.relay_from(node).down = true;
    }
    peers.w.events_lost = true;
    flow_both_ways(&mut peers, "data", 3_000);
    await_both(&mut peers, "data");
    peers.w.run_for(secs(120));
    assert!(peers.is_direct());
    assert_eq!((peers.conn(A).paths.len(), peers.conn(B).paths.len()), (1, 1));
    peers.finish();
}

#[test]
fn events_that_are_lost_are_sent_again() {
    let mut peers = Peers::behind(8, Nat::cone(A_IP), Nat::cone(B_IP));
    peers.connect();
    peers.w.events_lost = true;
    peers.search();
    peers.w.run_for(secs(6));
    assert!(peers.info(A).relayed, "nobody knows where to look");
    assert_eq!((peers.status(A), peers.status(B)), (Status::Connected, Status::Connected));
    peers.w.events_lost = false;
    peers.await_relayed(false, secs(12));
    // Once both have confirmed, nothing more is said.
    peers.w.run_for(secs(30));
    let said = peers.w.events.len();
    peers.w.run_for(secs(60));
    assert_eq!(peers.w.events.len(), said);
    peers.finish();
}

#[test]
fn a_partner_that_searches_for_nothing_leaves_the_relay() {
    let mut peers = Peers::behind(9, Nat::cone(A_IP), Nat::cone(B_IP));
    peers.connect();
    peers.search();
    peers.node(B).finder = None;
    let start = peers.w.now;
    peers.await_status(A, Status::Connected);
    assert!(peers.w.now.since(start) < ms(3_500));
    assert_eq!(peers.status(B), Status::FindingRoute);
    flow_both_ways_from(&mut peers, A);
    assert_eq!(peers.status(B), Status::Connected, "the first data says so");
    peers.finish();
}

fn flow_both_ways_from(peers: &mut Peers, node: usize) {
    peers.open(node, "data", ChannelKind::Bytes, Flow::of(5_000, Size::Fixed(500)));
    peers.await_eof(1 - node, "data", secs(10));
}

#[test]
fn forged_and_replayed_route_events_do_nothing() {
    let mut first = searching(10, Nat::cone(A_IP), Nat::cone(B_IP));
    first.await_relayed(false, secs(5));
    let earlier = first.w.events.clone();
    first.finish();

    let mut peers = searching(11, Nat::cone(A_IP), Nat::cone(B_IP));
    peers.await_relayed(false, secs(5));
    peers.w.run_for(secs(5));
    let own = peers.w.events.clone();
    let quiet = peers.w.events.len();
    // Of an earlier connection of the same two peers.
    for (from, body) in &earlier {
        assert_eq!(peers.w.route_event(1 - from, body), Some(Err(RouteError::Forged)));
    }
    for (from, body) in &own {
        // Sent back to who made it.
        assert_eq!(peers.w.route_event(*from, body), Some(Err(RouteError::Forged)));
        // Once more: nothing new, but it may be confirmed once more.
        assert_eq!(peers.w.route_event(1 - from, body), Some(Ok(())));
        // With every byte changed in turn, cut, and longer.
        for at in 0..body.len() {
            let mut forged = body.clone();
            forged[at] ^= 1 << (at % 8);
            assert!(peers.w.route_event(1 - from, &forged).expect("a finder").is_err(), "{at}");
            assert!(peers.w.route_event(1 - from, &body[..at]).expect("a finder").is_err());
        }
        let longer = [body.as_slice(), &[0]].concat();
        assert!(peers.w.route_event(1 - from, &longer).expect("a finder").is_err());
    }
    peers.w.run_for(secs(20));
    assert!(peers.is_direct());
    assert_eq!((peers.conn(A).paths.len(), peers.conn(B).paths.len()), (1, 1));
    assert!(peers.w.events.len() <= quiet + 4, "{} more events", peers.w.events.len() - quiet);
    peers.finish();
}

#[test]
fn forged_and_replayed_stun_does_nothing() {
    let mut peers = Peers::behind(
        12,
        Nat::new(A_IP, Mapping::Independent, Filter::Open),
        Nat::new(B_IP, Mapping::Independent, Filter::Open),
    );
    peers.connect();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    peers.w.set_hook(move |p| {
        if p.data[0] < 4 && log.borrow().len() < 400 {
            log.borrow_mut().push((p.to, p.data.clone()));
        }
        Verdict::Pass
    });
    peers.search();
    peers.await_relayed(false, secs(5));
    peers.w.run_for(secs(2));
    peers.w.clear_hook();
    let (a, b) = (peers.info(A).remote, peers.info(B).remote);
    let stored = seen.borrow().clone();
    assert!(stored.len() > 10);
    let heap = [peers.w.heap(A), peers.w.heap(B)];
    for round in 0..20u16 {
        for (i, (to, data)) in stored.iter().enumerate() {
            let stranger = ([10, 66, round as u8, i as u8], 1_000 + i as u16).into();
            peers.w.inject(stranger, *to, data.clone(), ms(1));
            let mut forged = data.clone();
            let at = i * 7 % forged.len();
            forged[at] ^= 0x10;
            peers.w.inject(stranger, *to, forged, ms(2));
        }
        peers.w.run_for(ms(50));
    }
    peers.w.run_for(secs(30));
    assert!(peers.is_direct());
    assert_eq!((peers.info(A).remote, peers.info(B).remote), (a, b));
    assert_eq!((peers.conn(A).paths.len(), peers.conn(B).paths.len()), (1, 1));
    for node in [A, B] {
        let grown = peers.w.heap(node) - heap[node];
        assert!(grown < 100_000, "{grown} bytes more");
    }
    peers.finish();
}

#[test]
fn an_answer_that_the_event_source_did_not_give_is_ignored() {
    let mut peers = Peers::behind(13, Nat::cone(A_IP), Nat::cone(B_IP));
    peers.connect();
    peers.search();
    peers.await_relayed(false, secs(5));
    peers.w.run_for(secs(10));
    let before = peers.w.events.len();
    let inside = peers.addr(A);
    // A success response out of thin air, with an address of the attacker.
    let mut packet = vec![1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42];
    packet.extend([9; 12]);
    packet.extend([0, 0x20, 0, 8, 0, 1, 1, 2, 3, 4, 5, 6]);
    for _ in 0..50 {
        let at = peers.w.now;
        assert!(!peers.node(A).stun(at, "192.0.2.1:3478".parse().expect("one"), &packet));
        assert!(!peers.node(A).stun(at, inside, &packet));
    }
    peers.w.run_for(secs(5));
    assert_eq!(peers.w.events.len(), before, "nothing new to tell");
    peers.finish();
}

#[test]
fn addresses_that_lead_nowhere_are_not_told_or_believed() {
    let mut peers = Peers::finding(14);
    peers.search();
    let now = peers.w.now;
    let local = peers.w.nodes[A].local_time(now);
    let own = peers.addr(A);
    let nowhere = [
        "0.0.0.0:1",
        "127.0.0.1:9",
        "224.0.0.1:9",
        "255.255.255.255:9",
        "169.254.1.1:9",
        "10.0.0.9:0",
        "[::1]:9",
        "[fe80::1]:9",
        "[ff02::1]:9",
        "[100::1]:9",
        "[::ffff:10.0.0.9]:9",
    ];
    let mut locals = vec![(0, own), (0xFFFE, own)];
    locals.extend(nowhere.iter().map(|a| (0, a.parse().expect("an address"))));
    let (finder, _) = peers.node(A).finder.as_mut().expect("a finder");
    finder.set_locals(local, &locals);
    peers.await_relayed(false, secs(5));
    let told: usize =
        peers.w.events.iter().filter(|(n, _)| *n == A).map(|(_, b)| b.len()).max().expect("told");
    assert!(told < 80, "{told} bytes for one candidate");
    let strange = peers.w.astray.len();
    assert_eq!(strange, 0, "{:?}", peers.w.astray);
    peers.finish();
}

#[test]
fn the_relay_is_taken_after_what_is_configured() {
    for after in [ms(500), secs(6)] {
        let mut peers = Peers::behind(15, Nat::symmetric(A_IP), Nat::symmetric(B_IP));
        peers.connect();
        let start = peers.w.now;
        peers.search_with(&RouteConfig { relay_after: after, ..RouteConfig::default() });
        peers.await_status(A, Status::Connected);
        peers.await_status(B, Status::Connected);
        let took = peers.w.now.since(start);
        assert!(took >= after && took < after + ms(200), "{took:?}");
        peers.finish();
    }
}

#[test]
fn a_peer_that_changes_networks_is_found_again() {
    seeded("nats::a_peer_that_changes_networks_is_found_again", 4, |seed| {
        let mut peers = searching(seed, Nat::cone(A_IP), Nat::cone(B_IP));
        peers.await_relayed(false, secs(5));
        flow_both_ways(&mut peers, "steady", 3_000);
        peers.w.run_for(secs(2));
        let moved = (seed % 2) as usize;
        peers.w.nats.push(Nat::cone([198, 51, 100, 77]));
        peers.w.behind(moved, 2);
        let addr: std::net::SocketAddr = ([10, 50, 0, 1], 4_000).into();
        peers.node(moved).addr = addr;
        peers.node(moved).local = Some(addr.ip());
        let now = peers.w.now;
        let local = peers.w.nodes[moved].local_time(now);
        let (finder, _) = peers.node(moved).finder.as_mut().expect("a finder");
        finder.set_locals(local, &[(0, addr)]);
        let conn = peers.conns[moved];
        peers.w.call(moved, |ep, now, _| ep.fall_back(now, conn)).expect("fall_back");
        peers.w.run_for(secs(20));
        assert!(peers.is_direct(), "{:?} {:?}", peers.info(A), peers.info(B));
        let other = 1 - moved;
        assert_eq!(peers.info(other).remote.ip(), std::net::IpAddr::from([198, 51, 100, 77]));
        await_both(&mut peers, "steady");
        peers.finish();
    });
}
