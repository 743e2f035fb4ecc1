//! The roles of the handshake, row by row: what client and host wait for, and how attempts fail
//! (behaviours §1).

use crate::seeded;
use crate::sim::node::{NodeConfig, OnIncoming};
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::{Flow, NodeId, Packet, Size, Verdict, ms, secs, tls};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::{ClientConfig, RetryPolicy};
use trunkline_proto::error::Reason;
use trunkline_proto::handshake::{ClientAuth, HandshakeFailure, HandshakeState, Trust};
use trunkline_proto::ids::ConnHandle;
use trunkline_proto::status::Status;

use HandshakeState::{
    ConnectionFailed, Ready, WaitingForAuthenticationRequest, WaitingForAuthenticationResponse,
    WaitingForConnectionRequest, WaitingForConnectionResponse,
};

const TIMEOUT: HandshakeState = ConnectionFailed(HandshakeFailure::Timeout);
const AUTHENTICATION: HandshakeState = ConnectionFailed(HandshakeFailure::Authentication);
const OTHER: HandshakeState = ConnectionFailed(HandshakeFailure::Other);

/// What the connection's role waits for at this node.
fn state(pair: &Pair, node: NodeId, conn: ConnHandle) -> Option<HandshakeState> {
    pair.w.nodes[node].endpoint.handshake_state(conn)
}

/// The only connection of the host's endpoint, told or not.
fn at_host(pair: &Pair) -> Option<ConnHandle> {
    let mut conns = pair.w.nodes[HOST].endpoint.connections();
    let first = conns.next();
    assert_eq!(conns.next(), None, "the host has one connection at most");
    first
}

/// The state of the client as its application sees it, which agrees with what the endpoint says.
fn client_state(pair: &Pair) -> HandshakeState {
    let info = pair.w.nodes[CLIENT].endpoint.info(pair.c).expect("an open handle");
    assert_eq!(Some(info.handshake), state(pair, CLIENT, pair.c));
    info.handshake
}

fn push(path: &mut Vec<HandshakeState>, state: HandshakeState) {
    if path.last() != Some(&state) {
        path.push(state);
    }
}

/// Runs until both sides are in a state that nothing leads out of (or the host has forgotten the
/// attempt), and gives all states on the way.
fn paths(pair: &mut Pair) -> (Vec<HandshakeState>, Vec<HandshakeState>) {
    let (mut client, mut host) = (vec![], vec![]);
    let listening = pair.w.nodes[HOST].endpoint.listener_state(0);
    push(&mut host, listening.expect("the host listens"));
    let until = pair.now() + secs(40);
    loop {
        push(&mut client, client_state(pair));
        let h = at_host(pair);
        if let Some(h) = h {
            push(&mut host, state(pair, HOST, h).expect("it exists"));
        }
        let over = host.last().expect("a state").is_final() || h.is_none();
        if client.last().expect("a state").is_final() && over {
            return (client, host);
        }
        assert!(pair.w.step(until), "nothing happens: {client:?}, {host:?}");
    }
}

/// `client WaitingForConnectionResponse`, `client WaitingForAuthenticationResponse`,
/// `host WaitingForConnectionRequest`, `host WaitingForAuthenticationRequest`, `Ready`.
#[test]
fn client_and_host_pass_through_every_state_in_order() {
    for retry in [RetryPolicy::Never, RetryPolicy::Always] {
        let host = NodeConfig { retry, ..NodeConfig::host() };
        let mut pair = Pair::apart(1, NodeConfig::client(), host);
        assert_eq!(pair.w.nodes[CLIENT].endpoint.listener_state(0), None);
        pair.start();
        let (client, host) = paths(&mut pair);
        assert_eq!(client, [WaitingForConnectionResponse, WaitingForAuthenticationResponse, Ready]);
        assert_eq!(host, [WaitingForConnectionRequest, WaitingForAuthenticationRequest, Ready]);
        pair.await_connected();
        // Ready says how the attempt ended; the end of the connection does not change that.
        let c = pair.c;
        pair.close(HOST, None);
        pair.run_until("the client is told", secs(1), |pair| pair.conn(CLIENT).ended());
        assert_eq!(state(&pair, CLIENT, c), Some(Ready));
        assert_eq!(
            pair.w.nodes[HOST].endpoint.listener_state(0),
            Some(WaitingForConnectionRequest)
        );
        pair.w.finish();
        for node in &pair.w.nodes {
            let s = node.endpoint.endpoint_stats();
            assert_eq!(s.attempts_timed_out + s.attempts_denied + s.attempts_given_up, 0);
        }
    }
}

/// The host waits for the application too: `WaitingForAuthenticationRequest` until it accepts.
#[test]
fn the_host_is_ready_when_its_application_accepts() {
    let mut pair = Pair::apart(2, NodeConfig::client(), NodeConfig::host());
    pair.host().policy.incoming = OnIncoming::Ignore;
    pair.start();
    pair.w.run_for(secs(5));
    pair.h = pair.w.only(HOST);
    let info = pair.w.nodes[HOST].endpoint.info(pair.h).expect("it was offered");
    assert_eq!(info.handshake, WaitingForAuthenticationRequest);
    assert_eq!(client_state(&pair), WaitingForAuthenticationResponse);
    let h = pair.h;
    pair.w.call(HOST, |ep, now, _| ep.accept(now, h)).expect("accept");
    assert_eq!(state(&pair, HOST, h), Some(Ready));
    assert_eq!(client_state(&pair), WaitingForAuthenticationResponse, "it does not know yet");
    pair.await_connected();
    assert_eq!(client_state(&pair), Ready);
    pair.finish();
}

/// `WaitingForConnectionResponse` → `ConnectionFailed(timeout)`.
#[test]
fn no_connection_response_is_a_timeout() {
    let mut pair = Pair::apart(3, NodeConfig::client(), NodeConfig::host());
    pair.w.vanish(HOST);
    pair.start();
    let (client, _) = paths(&mut pair);
    assert_eq!(client, [WaitingForConnectionResponse, TIMEOUT]);
    assert!(pair.now().as_nanos() >= secs(10).as_nanos(), "{:?}", pair.now());
    assert_eq!(pair.conn(CLIENT).reason.as_ref().expect("a reason").reason, Reason::TIMEOUT);
    pair.w.finish();
    assert_eq!(pair.w.nodes[CLIENT].endpoint.endpoint_stats().attempts_timed_out, 1);
}

/// `WaitingForAuthenticationResponse` → `ConnectionFailed(timeout)`: the AuthenticationRequest is
/// lost however often it is sent, and the host, which never sees it, gives up as well:
/// `WaitingForAuthenticationRequest` → `ConnectionFailed(timeout)`.
#[test]
fn an_authentication_request_that_never_arrives_is_a_timeout_on_both_sides() {
    let mut pair = Pair::apart(4, NodeConfig::client(), NodeConfig::host());
    let client = pair.w.addr(CLIENT);
    pair.w.set_hook(move |p| {
        // What follows the ConnectionRequest at the Initial level.
        let later = p.from == client && !matches!(p.long_kind(), Some((0, _)));
        if later { Verdict::Drop } else { Verdict::Pass }
    });
    pair.start();
    let mut offered = false;
    let until = pair.now() + secs(12);
    while pair.w.step(until) && !client_state(&pair).is_final() {
        offered |= pair.w.nodes[HOST].app.conns.values().any(|c| c.known);
    }
    assert_eq!(client_state(&pair), TIMEOUT);
    let text = pair.conn(CLIENT).reason.clone().expect("a reason").text;
    assert!(!offered, "the application heard of a client that did not prove itself");
    assert!(!text.is_empty());
    pair.w.run_for(secs(20));
    assert_eq!(at_host(&pair), None);
    assert_eq!(pair.w.nodes[HOST].endpoint.endpoint_stats().attempts_timed_out, 1);
    pair.w.clear_hook();
    pair.w.finish();
}

/// The AuthenticationResponse never arrives: the client's attempt is a timeout; the host was ready
/// and learns of it.
#[test]
fn an_authentication_response_that_never_arrives_is_a_timeout() {
    let mut pair = Pair::apart(5, NodeConfig::client(), NodeConfig::host());
    let host = pair.w.addr(HOST);
    pair.w.set_hook(move |p| {
        let short = p.from == host && !p.is_long();
        if short { Verdict::Drop } else { Verdict::Pass }
    });
    pair.start();
    let (client, at_host) = paths(&mut pair);
    assert_eq!(client, [WaitingForConnectionResponse, WaitingForAuthenticationResponse, TIMEOUT]);
    assert_eq!(at_host.last(), Some(&Ready));
    pair.h = pair.w.only(HOST);
    pair.run_until("the host is told", secs(12), |pair| pair.conn(HOST).ended());
    assert_eq!(pair.conn(HOST).reason.as_ref().expect("a reason").reason, Reason::TIMEOUT);
    pair.w.clear_hook();
    pair.w.finish();
}

/// The application neglects the client: `ConnectionFailed(timeout)` on both sides, whoever's timer
/// runs out first.
#[test]
fn neglect_is_a_timeout_on_both_sides() {
    for (client_limit, host_limit) in [(secs(10), secs(10)), (secs(3), secs(9)), (secs(9), secs(3))]
    {
        let client = NodeConfig::client().with(|c| c.initial_timeout = client_limit);
        let host = NodeConfig::host().with(|c| c.initial_timeout = host_limit);
        let mut pair = Pair::apart(6, client, host);
        pair.host().policy.incoming = OnIncoming::Ignore;
        let start = pair.now();
        pair.start();
        let (client, host) = paths(&mut pair);
        let waiting = WaitingForAuthenticationResponse;
        assert_eq!(client, [WaitingForConnectionResponse, waiting, TIMEOUT]);
        let waiting = WaitingForAuthenticationRequest;
        assert_eq!(host, [WaitingForConnectionRequest, waiting, TIMEOUT]);
        let took = pair.now().since(start);
        let limit = client_limit.min(host_limit);
        assert!(took >= limit && took <= limit + ms(200), "after {} ms", took.as_millis());
        pair.h = pair.w.only(HOST);
        for node in [CLIENT, HOST] {
            let reason = pair.conn(node).reason.as_ref().expect("a reason").reason;
            assert_eq!(reason, Reason::TIMEOUT, "at node {node}");
        }
        pair.w.finish();
    }
}

/// `WaitingForAuthenticationRequest`, denied → `ConnectionFailed(authentication)`; the client
/// learns code and text.
#[test]
fn a_denied_client_fails_by_authentication_and_learns_why() {
    let mut pair = Pair::apart(7, NodeConfig::client(), NodeConfig::host());
    pair.host().policy.incoming = OnIncoming::Reject(1_401, "the ticket has expired".into());
    let config = ClientConfig { credential: b"old".to_vec(), ..pair.client().client_config() };
    pair.start_with(&config);
    let (client, host) = paths(&mut pair);
    assert_eq!(
        client,
        [WaitingForConnectionResponse, WaitingForAuthenticationResponse, AUTHENTICATION]
    );
    assert_eq!(
        host,
        [WaitingForConnectionRequest, WaitingForAuthenticationRequest, AUTHENTICATION]
    );
    let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
    assert_eq!((reason.reason, &*reason.text), (Reason(1_401), "the ticket has expired"));
    pair.w.finish();
    assert_eq!(pair.w.nodes[CLIENT].endpoint.endpoint_stats().attempts_denied, 1);
    assert_eq!(pair.w.nodes[HOST].endpoint.endpoint_stats().attempts_denied, 1);
}

/// The denial's first packets are lost, one more in each round.
#[test]
fn a_denial_that_is_lost_is_sent_again() {
    for lost in 1..=8u32 {
        let mut pair = Pair::apart(u64::from(lost), NodeConfig::client(), NodeConfig::host());
        pair.host().policy.incoming = OnIncoming::Reject(2_222, "not you".into());
        let (host, left) = (pair.w.addr(HOST), Rc::new(Cell::new(lost)));
        let counter = left.clone();
        pair.w.set_hook(move |p| {
            // The denial and what repeats it are the host's only short packets.
            if p.from == host && !p.is_long() && counter.get() > 0 {
                counter.set(counter.get() - 1);
                return Verdict::Drop;
            }
            Verdict::Pass
        });
        pair.start();
        pair.run_until("the client is told", secs(6), |pair| pair.conn(CLIENT).ended());
        assert_eq!(left.get(), 0, "fewer than {lost} packets");
        let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
        assert_eq!((reason.reason, &*reason.text), (Reason(2_222), "not you"), "{lost} lost");
        assert_eq!(client_state(&pair), AUTHENTICATION);
        pair.w.finish();
    }
}

/// Proofs that fail → `ConnectionFailed(authentication)`, at the side that finds it and at the
/// other, and the application of the host hears nothing.
#[test]
fn a_proof_that_fails_is_an_authentication_failure_on_both_sides() {
    let stranger = tls::identity(88, "stranger.test");
    let pins = |id| Trust::Pins(vec![id]);
    let required = ClientAuth::Required(pins(tls::client_peer_id()));
    let wrong_host = tls::client_tls(&pins(stranger.peer_id()), None);
    let wrong_client = tls::pinned(Some(&stranger));
    let no_client = tls::pinned(None);
    for (auth, tls) in
        [(ClientAuth::None, wrong_host), (required.clone(), wrong_client), (required, no_client)]
    {
        let host = NodeConfig { client_auth: auth, ..NodeConfig::host() };
        let mut pair = Pair::apart(8, NodeConfig::client(), host);
        let config = ClientConfig { tls, ..pair.client().client_config() };
        pair.start_with(&config);
        let (client, _) = paths(&mut pair);
        assert_eq!(client.last(), Some(&AUTHENTICATION), "{client:?}");
        assert!(!client.contains(&Ready));
        pair.w.run_for(secs(20));
        assert_eq!(at_host(&pair), None);
        let stats = *pair.w.nodes[HOST].endpoint.endpoint_stats();
        assert_eq!((stats.attempts_denied, stats.attempts_timed_out), (1, 0));
        assert!(pair.w.nodes[HOST].app.conns.values().all(|c| !c.known));
        pair.w.finish();
    }
}

/// What is neither a timeout nor a matter of authentication says so.
#[test]
fn an_attempt_that_is_given_up_is_neither() {
    // The client changes its mind while the host's application thinks.
    let mut pair = Pair::apart(9, NodeConfig::client(), NodeConfig::host());
    pair.host().policy.incoming = OnIncoming::Ignore;
    pair.start();
    pair.w.run_for(secs(1));
    pair.h = pair.w.only(HOST);
    let (c, h) = (pair.c, pair.h);
    pair.close(CLIENT, None);
    pair.run_until("the host is told", secs(1), |pair| pair.conn(HOST).ended());
    assert_eq!(state(&pair, HOST, h), Some(OTHER));
    pair.w.finish();
    assert_eq!(state(&pair, CLIENT, c), None);
    assert_eq!(pair.w.nodes[HOST].endpoint.endpoint_stats().attempts_given_up, 1);
    // A host that is full.
    let host = NodeConfig { max_connections: 1, ..NodeConfig::host() };
    let mut pair = Pair::apart(10, NodeConfig::client(), host);
    pair.connect();
    pair.start();
    pair.run_until("the client is told", secs(8), |pair| pair.conn(CLIENT).ended());
    assert_eq!(pair.conn(CLIENT).reason.as_ref().expect("a reason").reason, Reason::REFUSED);
    assert_eq!(client_state(&pair), OTHER);
    pair.w.finish();
}

/// Counts the packets of an undisturbed attempt, both ways, up to Connected on both sides.
fn packets_of_an_attempt() -> u32 {
    let mut pair = Pair::apart(11, NodeConfig::client(), NodeConfig::host());
    let (count, seen) = counter(&mut pair);
    pair.connect();
    drop(seen);
    let packets = count.get();
    pair.finish();
    packets
}

/// Counts and records packets as they are sent.
fn counter(pair: &mut Pair) -> (Rc<Cell<u32>>, Rc<RefCell<Vec<Packet>>>) {
    let (count, seen) = (Rc::new(Cell::new(0)), Rc::<RefCell<Vec<Packet>>>::default());
    let (counted, log) = (count.clone(), seen.clone());
    pair.w.set_hook(move |p| {
        counted.set(counted.get() + 1);
        log.borrow_mut().push(p.clone());
        Verdict::Pass
    });
    (count, seen)
}

/// Either side vanishes after each packet of the handshake. The other one ends with a timeout, in
/// time, in the state that belongs to it; and a host is not left with anything.
#[test]
fn a_side_that_vanishes_at_any_step_is_a_timeout() {
    let packets = packets_of_an_attempt();
    assert!(packets >= 5, "{packets} packets");
    for gone in [CLIENT, HOST] {
        for step in 0..=packets {
            let mut pair = Pair::apart(11, NodeConfig::client(), NodeConfig::host());
            let (count, _seen) = counter(&mut pair);
            pair.start();
            let until = pair.now() + secs(2);
            while count.get() < step && pair.w.step(until) {}
            pair.w.vanish(gone);
            // Either timer: of an attempt, or of a connection that was ready.
            pair.w.run_for(secs(21));
            let at = format!("node {gone} gone after {step} packets");
            if gone == HOST {
                let state = client_state(&pair);
                assert!([TIMEOUT, Ready].contains(&state), "{at}: {state:?}");
                assert_eq!(pair.status(CLIENT), Status::ProblemDetectedLocally, "{at}");
                assert_eq!(pair.conn(CLIENT).reason.as_ref().expect("why").reason, Reason::TIMEOUT);
            } else {
                for conn in pair.w.nodes[HOST].app.conns.values().filter(|c| c.known) {
                    assert_eq!(conn.status, Status::ProblemDetectedLocally, "{at}");
                    assert_eq!(conn.reason.as_ref().expect("why").reason, Reason::TIMEOUT);
                }
                let known = pair.w.nodes[HOST].app.conns.values().filter(|c| c.known).count();
                assert_eq!(pair.w.nodes[HOST].endpoint.connections().count(), known, "{at}");
            }
            pair.w.clear_hook();
            pair.w.finish();
        }
    }
}

/// Either side closes after each packet of the handshake: the other one learns it, and nothing is
/// left anywhere.
#[test]
fn a_side_that_closes_at_any_step_leaves_nothing() {
    let packets = packets_of_an_attempt();
    for closer in [CLIENT, HOST] {
        for step in 0..=packets {
            let mut pair = Pair::apart(11, NodeConfig::client(), NodeConfig::host());
            let (count, _seen) = counter(&mut pair);
            pair.start();
            let until = pair.now() + secs(2);
            while count.get() < step && pair.w.step(until) {}
            let now = pair.now();
            pair.w.nodes[closer].close_where(now, |_| true);
            let at = format!("node {closer} closes after {step} packets");
            pair.w.run_for(secs(12));
            if closer == CLIENT {
                let told = pair.w.nodes[HOST].app.conns.values().filter(|c| c.known);
                for conn in told {
                    assert_eq!(conn.status, Status::ClosedByPeer, "{at}");
                }
            } else if pair.w.nodes[HOST].app.conns.values().any(|c| c.closed.is_some()) {
                assert_eq!(pair.status(CLIENT), Status::ClosedByPeer, "{at}");
            } else {
                assert_eq!(pair.status(CLIENT), Status::Connected, "{at}");
            }
            pair.w.clear_hook();
            pair.w.finish();
        }
    }
}

/// Each packet of the handshake is lost once: it is made up for, and one connection comes of it.
#[test]
fn any_lost_packet_of_the_handshake_is_repaired() {
    for lost in 0..packets_of_an_attempt() {
        let mut pair = Pair::apart(11, NodeConfig::client(), NodeConfig::host());
        let count = Cell::new(0);
        pair.w.set_hook(move |_| {
            count.set(count.get() + 1);
            if count.get() == lost + 1 { Verdict::Drop } else { Verdict::Pass }
        });
        pair.connect();
        assert!(pair.now().as_nanos() < secs(3).as_nanos(), "{lost}: {:?}", pair.now());
        assert_eq!(pair.w.nodes[HOST].app.conns.len(), 1, "packet {lost} lost");
        pair.finish();
    }
}

/// Every packet arrives three times, at once and late: the attempt is one attempt.
#[test]
fn repeated_messages_of_the_handshake_change_nothing() {
    seeded("roles::repeated_messages_of_the_handshake_change_nothing", 12, |seed| {
        let mut pair = Pair::apart(seed, NodeConfig::client(), NodeConfig::host());
        pair.link(|link| link.duplicate = 10_000);
        let (_, seen) = counter(&mut pair);
        pair.connect();
        // All of it once more, while the connection is in use.
        let packets = std::mem::take(&mut *seen.borrow_mut());
        let flow = Flow::of(20_000, Size::Mixed(3_000));
        pair.open(CLIENT, "beside", ChannelKind::Bytes, flow);
        for (i, p) in packets.iter().enumerate() {
            let after = ms(1 + (i as u64 * 7 + seed) % 60);
            pair.w.inject(p.from, p.to, p.data.clone(), after);
        }
        pair.await_eof(HOST, "beside", secs(10));
        pair.w.run_for(secs(20));
        for node in [CLIENT, HOST] {
            assert_eq!(pair.status(node), Status::Connected);
            assert_eq!(pair.w.nodes[node].app.conns.len(), 1);
            assert_eq!(pair.w.nodes[node].endpoint.connections().count(), 1);
            assert_eq!(state(&pair, node, pair.handle(node)), Some(Ready));
            assert!(pair.w.nodes[node].endpoint.endpoint_stats().unwanted() > 0, "not counted");
        }
        pair.check_delivery();
        pair.w.clear_hook();
        pair.finish();
    });
}

/// Handshake packets in every order that a short delay can give them.
#[test]
fn overtaken_messages_of_the_handshake_are_put_in_order() {
    let packets = packets_of_an_attempt();
    for late in 0..packets {
        for wait in [ms(25), ms(120), ms(700)] {
            let mut pair = Pair::apart(11, NodeConfig::client(), NodeConfig::host());
            let count = Cell::new(0);
            pair.w.set_hook(move |_| {
                count.set(count.get() + 1);
                if count.get() == late + 1 { Verdict::After(wait) } else { Verdict::Pass }
            });
            pair.connect();
            pair.w.run_for(secs(15));
            assert_eq!(pair.w.nodes[HOST].app.conns.len(), 1, "packet {late} late");
            assert_eq!(pair.w.nodes[HOST].endpoint.connections().count(), 1, "packet {late} late");
            pair.finish();
        }
    }
}
