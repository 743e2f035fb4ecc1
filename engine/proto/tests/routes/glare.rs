//! Two connections of the same peers at once: one survives, that whose client has the lower
//! identity, and the application of its client never sees the other.

use crate::seeded;
use crate::sim::node::{NodeConfig, OnIncoming};
use crate::sim::peers::{A, B, Peers, peer};
use crate::sim::tls;
use crate::sim::world::World;
use crate::sim::{Flow, Size, ms, secs};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::handshake::ClientAuth;
use trunkline_proto::ids::{ConnHandle, Role};
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

/// The peer with the lower identity, and the other.
fn order(peers: &Peers) -> (usize, usize) {
    let id = |node: usize| peers.w.nodes[node].config.identity.peer_id();
    if id(A) < id(B) { (A, B) } else { (B, A) }
}

/// Both sides have one live connection, made by `winner`; it works.
fn check_survivor(mut peers: Peers, winner: usize, seed: u64) {
    let loser = 1 - winner;
    let at_winner: Vec<_> = peers.w.nodes[winner].app.conns.values().map(|c| c.role).collect();
    assert_eq!(at_winner, [Role::Client], "seed {seed}: the winner's application saw the other");
    let own = peers.conns[loser];
    let gone = peers.w.nodes[loser].app.conn(own);
    assert_eq!(gone.path, [Status::Connecting, Status::ClosedByPeer], "seed {seed}");
    assert_eq!(gone.reason.as_ref().map(|r| r.reason), Some(Reason::SUPERSEDED));
    let by = gone.superseded_by.expect("told by which");
    assert_eq!(peers.w.nodes[loser].app.conn(by).role, Role::Host);
    peers.conns[loser] = by;
    peers.w.nodes[loser].close_where(peers.w.now, |c| c.handle == own);
    for node in [winner, loser] {
        let conn = peers.conns[node];
        peers.w.call(node, |ep, now, _| ep.use_relay(now, conn)).expect("use_relay");
    }
    peers.await_status(winner, Status::Connected);
    peers.await_status(loser, Status::Connected);
    for node in [A, B] {
        peers.open(
            node,
            &format!("of {node}"),
            ChannelKind::Bytes,
            Flow::of(9_000, Size::Fixed(900)),
        );
    }
    peers.await_eof(A, "of 1", secs(60));
    peers.await_eof(B, "of 0", secs(60));
    // An attempt that was given up before its proof arrived ends by its timeout.
    peers.w.run_for(secs(12));
    let left: Vec<usize> = peers.w.nodes.iter().map(|n| n.endpoint.connections().count()).collect();
    assert_eq!(left, [1, 1], "seed {seed}: one connection at each side");
    peers.w.finish();
}

fn settled(w: &mut World, loser: usize, own: ConnHandle) -> bool {
    let status = |n: usize, role: Role| {
        w.nodes[n].app.conns.values().any(|c| c.role == role && c.status == Status::FindingRoute)
    };
    w.nodes[loser].app.conn(own).status == Status::ClosedByPeer
        && status(loser, Role::Host)
        && status(1 - loser, Role::Client)
}

#[test]
fn the_lower_client_survives_however_the_packets_fall() {
    seeded("glare::the_lower_client_survives_however_the_packets_fall", 60, |seed| {
        let mut peers = Peers::new(seed, |_| {});
        let (winner, loser) = order(&peers);
        for node in [A, B] {
            let link = peers.w.relay_from(node);
            link.delay = ms(5 + seed * 13 % 70);
            link.loss = [0, 500, 1_500][(seed % 3) as usize];
            link.reorder = [0, 2_000][(seed / 3 % 2) as usize];
        }
        let (first, second) = if seed % 2 == 0 { (winner, loser) } else { (loser, winner) };
        peers.start(first);
        // The second starts before it has heard all of the first one's proof.
        peers.w.run_for(ms(seed * 7 % 12));
        peers.start(second);
        let own = peers.conns[loser];
        peers.w.run_until("one is left", secs(9), |w| settled(w, loser, own));
        check_survivor(peers, winner, seed);
    });
}

#[test]
fn peers_of_one_identity_are_told_apart_by_their_first_ids() {
    seeded("glare::peers_of_one_identity_are_told_apart_by_their_first_ids", 8, |seed| {
        let mut w = World::new(seed);
        w.add("a", peer(700));
        w.add("b", peer(700));
        let none = ConnHandle { slot: u32::MAX, generation: u32::MAX };
        let mut peers = Peers { w, conns: [none; 2] };
        peers.start(A);
        peers.start(B);
        let owns = peers.conns;
        peers.w.run_until("one is left", secs(9), |w| {
            settled(w, A, owns[A]) || settled(w, B, owns[B])
        });
        let winner = if settled(&mut peers.w, A, owns[A]) { B } else { A };
        check_survivor(peers, winner, seed);
    });
}

#[test]
fn a_peer_that_does_not_answer_loses_no_connection_to_glare() {
    // The one with the lower identity connects to a peer that answers nobody: that peer's own
    // connection is the one that comes about.
    let probe = Peers::new(1, |_| {});
    let (winner, loser) = order(&probe);
    let mut w = World::new(2);
    for node in [A, B] {
        let number = 601 + node as u64;
        w.add("peer", NodeConfig { listen_relay: node == winner, ..peer(number) });
    }
    let none = ConnHandle { slot: u32::MAX, generation: u32::MAX };
    let mut peers = Peers { w, conns: [none; 2] };
    peers.start(winner);
    peers.start(loser);
    peers.await_status(loser, Status::FindingRoute);
    let host = peers.w.nodes[winner].app.conns.values().find(|c| c.role == Role::Host);
    assert_eq!(host.map(|c| c.status), Some(Status::FindingRoute));
    peers.w.finish();
}

#[test]
fn a_connection_of_a_peer_that_was_restarted_is_not_taken_for_glare() {
    for again in [A, B] {
        let mut peers = Peers::relayed(3);
        // The other side still believes in the old one.
        peers.w.restart(again);
        peers.w.run_for(ms(10));
        peers.start(again);
        peers.await_status(again, Status::FindingRoute);
        let other = 1 - again;
        let hosts = peers.w.nodes[other].app.conns.values().filter(|c| c.role == Role::Host);
        assert!(hosts.filter(|c| c.status == Status::FindingRoute).count() == 1);
        peers.w.finish();
    }
}

#[test]
fn a_second_connection_later_is_no_glare() {
    let mut peers = Peers::relayed(4);
    let first = peers.conns;
    peers.start(B);
    peers.await_status(B, Status::FindingRoute);
    assert_eq!(peers.w.nodes[A].endpoint.status(first[A]), Status::Connected);
    assert_eq!(peers.w.nodes[B].endpoint.status(first[B]), Status::Connected);
    peers.w.finish();
}

#[test]
fn without_identities_both_live() {
    // Nobody asks for certificates: nothing tells whose connection goes first.
    let mut w = World::new(5);
    for number in [601, 602] {
        w.add("peer", NodeConfig { client_auth: ClientAuth::None, ..peer(number) });
    }
    let none = ConnHandle { slot: u32::MAX, generation: u32::MAX };
    let mut peers = Peers { w, conns: [none; 2] };
    peers.start(A);
    peers.start(B);
    peers.await_status(A, Status::FindingRoute);
    peers.await_status(B, Status::FindingRoute);
    peers.w.finish();
}

#[test]
fn two_strangers_at_one_address_do_not_supersede_each_other() {
    // What comes over the relay under the same address but from another identity is another peer.
    let probe = Peers::new(6, |_| {});
    let (winner, loser) = order(&probe);
    let mut peers = Peers::new(6, |_| {});
    peers.node(loser).policy.incoming = OnIncoming::Ignore;
    let own = peers.start(winner);
    peers.w.run_for(secs(1));
    // The loser's client shows another certificate than its host.
    let mut config = peers.config(loser);
    let stranger = tls::identity(800, tls::HOST_NAME);
    config.tls = tls::client_tls(&trunkline_proto::handshake::Trust::DangerousAny, Some(&stranger));
    let relay = crate::sim::world::relay_addr(winner);
    let conn = peers.w.call(loser, |ep, now, _| ep.connect_relayed(now, relay, &config));
    let conn = conn.expect("connect");
    let known = crate::sim::app::Conn::new(conn, Role::Client, relay);
    peers.w.nodes[loser].app.conns.insert(conn, known);
    peers.conns[loser] = conn;
    peers.await_status(loser, Status::FindingRoute);
    assert_eq!(peers.w.nodes[winner].endpoint.status(own), Status::Connecting);
    peers.w.finish();
}

// ---- applications that take their time

/// Two peers whose applications decide about no connection by themselves, the lower one first.
fn undecided(seed: u64) -> (Peers, usize, usize) {
    let mut peers = Peers::new(seed, |_| {});
    let (lower, higher) = order(&peers);
    for node in [A, B] {
        peers.node(node).policy.incoming = OnIncoming::Ignore;
    }
    (peers, lower, higher)
}

/// Waits until a peer's application is told of a connection of the other.
fn await_told(peers: &mut Peers, node: usize) -> ConnHandle {
    await_told_within(peers, node, secs(9))
}

fn await_told_within(peers: &mut Peers, node: usize, limit: Duration) -> ConnHandle {
    let told = |w: &World| {
        let mut conns = w.nodes[node].app.conns.values();
        conns.find(|c| c.role == Role::Host && c.known && !c.ended()).map(|c| c.handle)
    };
    peers.w.run_until("the application is told", limit, |w| told(w).is_some());
    told(&peers.w).expect("told")
}

fn accept(peers: &mut Peers, node: usize, conn: ConnHandle) -> Result<(), ApiError> {
    peers.w.call(node, |ep, now, _| ep.accept(now, conn))
}

/// The connections of a peer that were agreed and live.
fn live(peers: &Peers, node: usize) -> Vec<Role> {
    let conns = peers.w.nodes[node].app.conns.values();
    let live = conns.filter(|c| matches!(c.status, Status::FindingRoute | Status::Connected));
    live.map(|c| c.role).collect()
}

/// All that is left after a while is one connection, made by `client`; the other one was given up
/// for it.
fn check_one(mut peers: Peers, client: usize) {
    peers.w.run_for(secs(3));
    for node in [A, B] {
        let role = if node == client { Role::Client } else { Role::Host };
        assert_eq!(live(&peers, node), [role], "at {node}");
        let conn = peers.w.nodes[node].app.conns.values().find(|c| c.role == role);
        peers.conns[node] = conn.expect("the one that lives").handle;
    }
    peers.use_relay();
    peers.open(client, "line", ChannelKind::Bytes, Flow::of(5_000, Size::Fixed(500)));
    peers.await_eof(1 - client, "line", secs(20));
    peers.w.run_for(secs(12));
    let left: Vec<usize> = peers.w.nodes.iter().map(|n| n.endpoint.connections().count()).collect();
    let kept = |node: usize| {
        let conns = peers.w.nodes[node].app.conns.values();
        conns.filter(|c| c.ended() && c.closed.is_none()).count()
    };
    assert_eq!(left, [1 + kept(A), 1 + kept(B)], "handles of what ended are all that is left");
    peers.w.finish();
}

fn check_superseded(peers: &Peers, node: usize, conn: ConnHandle, by: ConnHandle) {
    let c = peers.w.nodes[node].app.conn(conn);
    assert_eq!(c.path, [Status::Connecting, Status::ClosedByPeer]);
    assert_eq!(c.reason.as_ref().map(|r| r.reason), Some(Reason::SUPERSEDED));
    assert_eq!(c.superseded_by, Some(by));
}

#[test]
fn who_accepts_the_other_gives_its_own_up() {
    // The application of the lower one is told of the other before it connects itself, and accepts
    // before its own has proved anything.
    let (mut peers, lower, higher) = undecided(11);
    peers.start(higher);
    let other = await_told(&mut peers, lower);
    let own = peers.start(lower);
    peers.w.run_for(ms(5));
    accept(&mut peers, lower, other).expect("accept");
    peers.w.run_for(ms(1));
    check_superseded(&peers, lower, own, other);
    check_one(peers, higher);
}

#[test]
fn the_lower_goes_on_although_the_other_was_told() {
    // The same, but the other side is quicker to accept.
    let (mut peers, lower, higher) = undecided(12);
    let late = peers.start(higher);
    let other = await_told(&mut peers, lower);
    let own = peers.start(lower);
    let first = await_told(&mut peers, higher);
    accept(&mut peers, higher, first).expect("accept");
    peers.w.run_for(ms(1));
    check_superseded(&peers, higher, late, first);
    peers.await_status(lower, Status::FindingRoute);
    check_superseded(&peers, lower, other, own);
    accept(&mut peers, lower, other).expect_err("it is over");
    check_one(peers, lower);
}

/// The application of the lower one accepts the other when its own may be accepted at any moment.
fn accepted_by_both(seed: u64) -> (Peers, usize, [ConnHandle; 3]) {
    let (mut peers, lower, higher) = undecided(seed);
    peers.start(higher);
    let other = await_told(&mut peers, lower);
    let own = peers.start(lower);
    let first = await_told(&mut peers, higher);
    accept(&mut peers, lower, other).expect("accept");
    accept(&mut peers, lower, other).expect_err("it was accepted");
    let rejected = peers.w.call(lower, |ep, now, _| ep.reject(now, other, 9, ""));
    rejected.expect_err("it was accepted");
    peers.w.run_for(secs(1));
    assert_eq!(peers.w.nodes[lower].endpoint.status(other), Status::Connecting);
    (peers, lower, [own, other, first])
}

#[test]
fn what_is_accepted_waits_for_one_that_goes_first() {
    let (mut peers, lower, [own, other, first]) = accepted_by_both(13);
    accept(&mut peers, 1 - lower, first).expect("accept");
    peers.await_status(lower, Status::FindingRoute);
    check_superseded(&peers, lower, other, own);
    check_one(peers, lower);
}

#[test]
fn what_is_accepted_waits_no_longer_than_for_the_other_ones_end() {
    let (mut peers, lower, [own, _, first]) = accepted_by_both(13);
    let rejected = peers.w.call(1 - lower, |ep, now, _| ep.reject(now, first, 9, "no"));
    rejected.expect("reject");
    peers.w.nodes[1 - lower].app.conn_mut(first).closed = Some(peers.w.now);
    peers.w.run_for(secs(1));
    assert_eq!(peers.w.nodes[lower].app.conn(own).path.last(), Some(&Status::ClosedByPeer));
    check_one(peers, 1 - lower);
}

#[test]
fn who_connects_before_it_accepts_learns_that_it_gives_way() {
    let (mut peers, lower, higher) = undecided(14);
    peers.start(lower);
    let first = await_told(&mut peers, higher);
    let own = peers.start(higher);
    peers.w.run_for(ms(200));
    accept(&mut peers, higher, first).expect("accept");
    peers.w.run_for(ms(1));
    check_superseded(&peers, higher, own, first);
    check_one(peers, lower);
}

#[test]
fn a_connection_begun_right_after_accepting_is_one_of_its_own() {
    // Its first packet arrives together with the acceptance.
    for reversed in [false, true] {
        let (mut peers, lower, higher) = undecided(15);
        let (first, second) = if reversed { (higher, lower) } else { (lower, higher) };
        peers.node(first).policy.incoming = OnIncoming::Accept;
        peers.start(first);
        let conn = await_told(&mut peers, second);
        accept(&mut peers, second, conn).expect("accept");
        peers.start(second);
        peers.w.run_for(secs(2));
        assert_eq!((live(&peers, A).len(), live(&peers, B).len()), (2, 2));
        peers.w.finish();
    }
}

#[test]
fn one_that_is_told_after_the_hold_leaves_no_second_one() {
    // The higher one connects and begins to answer only after the hold of the lower one is over.
    let probe = Peers::new(16, |_| {});
    let (lower, higher) = order(&probe);
    let mut w = World::new(16);
    for node in [A, B] {
        let number = 601 + node as u64;
        w.add("peer", NodeConfig { listen_relay: node == lower, ..peer(number) });
    }
    let none = ConnHandle { slot: u32::MAX, generation: u32::MAX };
    let mut peers = Peers { w, conns: [none; 2] };
    peers.node(lower).policy.incoming = OnIncoming::Ignore;
    let own = peers.start(lower);
    peers.start(higher);
    let other = await_told(&mut peers, lower);
    let identity = peers.w.nodes[higher].config.identity.clone();
    let auth = ClientAuth::Required(trunkline_proto::handshake::Trust::DangerousAny);
    let tls = tls::host_tls(&identity, &auth);
    let listener = trunkline_proto::endpoint::ListenerConfig { tls, connection: None };
    let relay = trunkline_proto::limits::RELAY_SOCKET;
    peers.w.call(higher, |ep, _, _| ep.listen(relay, listener)).expect("listen");
    accept(&mut peers, lower, other).expect("accept");
    peers.w.run_for(ms(1));
    check_superseded(&peers, lower, own, other);
    check_one(peers, higher);
}

#[test]
fn a_stranger_that_is_rejected_takes_nobodys_place() {
    // Somebody else, with the lowest identity of all, comes under the address of the lower one: our
    // own connection to that goes on when the stranger is rejected.
    let (mut peers, lower, higher) = undecided(17);
    let own_id = peers.w.nodes[higher].config.identity.peer_id();
    let below = (900..999).map(|n| tls::identity(n, tls::HOST_NAME)).find(|i| i.peer_id() < own_id);
    let mut config = peers.config(lower);
    let trust = trunkline_proto::handshake::Trust::DangerousAny;
    config.tls = tls::client_tls(&trust, Some(&below.expect("a lower one")));
    peers.w.relay_from(lower).down = true;
    let own = peers.start(higher);
    peers.w.run_for(ms(50));
    peers.w.relay_from(lower).down = false;
    let relay = crate::sim::world::relay_addr(higher);
    let conn = peers.w.call(lower, |ep, now, _| ep.connect_relayed(now, relay, &config));
    let conn = conn.expect("connect");
    let known = crate::sim::app::Conn::new(conn, Role::Client, relay);
    peers.w.nodes[lower].app.conns.insert(conn, known);
    let stranger = await_told(&mut peers, higher);
    let rejected = peers.w.call(higher, |ep, now, _| ep.reject(now, stranger, 9, "a stranger"));
    rejected.expect("reject");
    peers.w.nodes[higher].app.conn_mut(stranger).closed = Some(peers.w.now);
    let other = await_told(&mut peers, lower);
    accept(&mut peers, lower, other).expect("accept");
    peers.w.run_for(secs(1));
    assert_eq!(peers.w.nodes[higher].endpoint.status(own), Status::FindingRoute);
    peers.w.finish();
}

#[test]
fn a_peer_that_is_restarted_before_it_accepts_gets_through() {
    // The lower one still waits for the peer of before to accept, and holds the new one's connection
    // until it gives its own up.
    let (mut peers, lower, higher) = undecided(18);
    let own = peers.start(lower);
    await_told(&mut peers, higher);
    peers.w.restart(higher);
    peers.w.run_for(secs(1));
    peers.start(higher);
    let other = await_told_within(&mut peers, lower, secs(12));
    assert_eq!(peers.w.nodes[lower].app.conn(own).reason.as_ref().unwrap().reason, Reason::TIMEOUT);
    accept(&mut peers, lower, other).expect("accept");
    check_one(peers, higher);
}
