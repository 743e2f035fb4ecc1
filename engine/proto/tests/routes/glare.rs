//! Two connections of the same peers at once: one survives, that whose client has the lower
//! identity, and the application of its client never sees the other.

use crate::seeded;
use crate::sim::node::{NodeConfig, OnIncoming};
use crate::sim::peers::{A, B, Peers, peer};
use crate::sim::tls;
use crate::sim::world::World;
use crate::sim::{Flow, Size, ms, secs};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::Reason;
use trunkline_proto::handshake::ClientAuth;
use trunkline_proto::ids::{ConnHandle, Role};
use trunkline_proto::status::Status;

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
