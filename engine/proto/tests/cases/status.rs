//! The table of statuses: its timers with their defaults and where they are set, reading after the
//! end, slots that are used again (behaviours §3). What calls do in each status is in `calls`.

use crate::sim::forge::Long;
use crate::sim::node::NodeConfig;
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::{Flow, Packet, Size, Verdict, ms, secs, tls};
use std::cell::RefCell;
use std::rc::Rc;
use trunkline_proto::config::{ChannelKind, ConnectionConfig};
use trunkline_proto::endpoint::{ClientConfig, ListenerConfig};
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::handshake::ClientAuth;
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

#[test]
fn the_default_timers_are_those_of_the_table() {
    let c = ConnectionConfig::default();
    assert_eq!(c.initial_timeout, secs(10));
    assert_eq!(c.connected_timeout, secs(10));
    assert!(c.keep_alive.mul(3) < c.connected_timeout, "keep-alives well inside it");
    assert_eq!(c.linger_timeout, secs(30));
    assert_eq!(c.fin_wait_timeout, secs(5));
    assert_eq!(c.handshake_retransmit, ms(250));
    assert_eq!(c.check_timeout, secs(3));
}

/// What a client sends while nobody answers: the moments in milliseconds, for each of its attempts
/// (a client begins again with another id, in case somebody forged answers).
fn requests(retransmit: Duration) -> Vec<Vec<u64>> {
    let client = NodeConfig::client().with(|c| c.handshake_retransmit = retransmit);
    let mut pair = Pair::apart(1, client, NodeConfig::host());
    pair.w.vanish(HOST);
    let sent = Rc::<RefCell<Vec<Packet>>>::default();
    let log = sent.clone();
    pair.w.set_hook(move |p| {
        log.borrow_mut().push(p.clone());
        Verdict::Pass
    });
    let start = pair.now();
    pair.start();
    pair.w.run_for(ms(9_900));
    let mut attempts: Vec<Vec<u64>> = Vec::new();
    let mut id = Vec::new();
    for packet in sent.borrow().iter() {
        let long = Long::parse(&packet.data).expect("a ConnectionRequest");
        if long.dcid != id {
            id = long.dcid;
            attempts.push(Vec::new());
        }
        let at = packet.sent_at.since(start).as_millis();
        attempts.last_mut().expect("an attempt").push(at);
    }
    pair.w.clear_hook();
    pair.w.finish();
    attempts
}

#[test]
fn the_handshake_is_retransmitted_after_250_ms_doubling() {
    let default = requests(ConnectionConfig::default().handshake_retransmit);
    assert_eq!(default[..2], [vec![0, 250, 750], vec![1_750, 2_000, 2_500, 3_500]]);
    for (attempts, first) in [(default, 250), (requests(ms(100)), 100)] {
        for attempt in &attempts {
            let mut wait = first;
            for pair in attempt.windows(2) {
                assert_eq!(pair[1] - pair[0], wait, "{attempts:?}");
                wait = (wait * 2).min(first * 8);
            }
        }
        assert!(attempts.len() >= 3, "{attempts:?}");
    }
}

/// Where the settings of a connection come from, most particular first.
#[derive(Clone, Copy, Debug)]
enum SetAt {
    /// The connect or the listener.
    Own,
    /// The endpoint (the engine).
    Endpoint,
}

fn timeouts(c: &mut ConnectionConfig) {
    c.initial_timeout = ms(1_200);
    c.connected_timeout = ms(2_400);
    c.keep_alive = ms(600);
    c.fin_wait_timeout = ms(900);
}

/// A pair with other timers than the defaults, set at one place.
fn pair_with(set: SetAt) -> Pair {
    let mut own = NodeConfig::client().connection;
    timeouts(&mut own);
    match set {
        SetAt::Endpoint => {
            Pair::apart(1, NodeConfig::client().with(timeouts), NodeConfig::host().with(timeouts))
        }
        SetAt::Own => {
            let mut pair = Pair::apart(1, NodeConfig::client(), NodeConfig::host());
            let tls = tls::host_tls(tls::host_id(), &ClientAuth::None);
            let listener = ListenerConfig { tls, connection: Some(own) };
            pair.host().endpoint.listen(0, listener).expect("listen");
            pair
        }
    }
}

fn start(pair: &mut Pair, set: SetAt) {
    let mut config = pair.client().client_config();
    if matches!(set, SetAt::Own) {
        let mut own = NodeConfig::client().connection;
        timeouts(&mut own);
        config = ClientConfig { connection: Some(own), ..config };
    }
    pair.start_with(&config);
}

fn close_to(took: Duration, expected: Duration) {
    let slack = ms(100);
    assert!(
        took + slack >= expected && took <= expected + slack,
        "{} ms instead of {} ms",
        took.as_millis(),
        expected.as_millis()
    );
}

#[test]
fn timers_are_set_for_each_endpoint_listener_and_connection() {
    for set in [SetAt::Endpoint, SetAt::Own] {
        // initial
        let mut pair = pair_with(set);
        pair.w.vanish(HOST);
        let begin = pair.now();
        start(&mut pair, set);
        pair.run_until("the attempt ends", secs(5), |pair| pair.conn(CLIENT).ended());
        close_to(pair.now().since(begin), ms(1_200));
        pair.w.finish();
        // connected, at both sides
        for gone in [CLIENT, HOST] {
            let mut pair = pair_with(set);
            start(&mut pair, set);
            pair.await_connected();
            pair.w.run_for(secs(5));
            pair.w.vanish(gone);
            let begin = pair.now();
            pair.run_until("it is noticed", secs(5), |pair| pair.conn(1 - gone).ended());
            let took = pair.now().since(begin);
            assert!(took >= ms(1_600) && took <= ms(2_500), "{set:?}: {} ms", took.as_millis());
            pair.w.finish();
        }
        // fin-wait, at both sides
        for closer in [CLIENT, HOST] {
            let mut pair = pair_with(set);
            start(&mut pair, set);
            pair.await_connected();
            pair.w.vanish(1 - closer);
            let begin = pair.now();
            pair.close(closer, None);
            pair.w.run_until("the slot is free", secs(5), |w| w.nodes[closer].is_empty());
            close_to(pair.now().since(begin), ms(900));
            pair.w.finish();
        }
    }
}

/// A connection that is Dead has left its slot: the next one has it, and the old handle names
/// nothing.
#[test]
fn dead_a_slot_is_used_again_and_the_old_handle_names_nothing() {
    let mut pair = Pair::connected(3);
    for _ in 0..5 {
        let (c, h) = (pair.c, pair.h);
        pair.close(CLIENT, None);
        pair.run_until("the host is told", secs(1), |pair| pair.conn(HOST).ended());
        pair.close(HOST, None);
        pair.run_until("both are dead", secs(6), |pair| {
            [CLIENT, HOST].iter().all(|node| pair.w.nodes[*node].is_empty())
        });
        pair.connect();
        assert_eq!((pair.c.slot, pair.h.slot), (c.slot, h.slot), "the slots are free");
        assert!(pair.c != c && pair.h != h);
        for (node, old) in [(CLIENT, c), (HOST, h)] {
            assert_eq!(pair.w.nodes[node].endpoint.status(old), Status::None);
            assert!(pair.w.nodes[node].endpoint.info(old).is_none());
            let late = pair.w.call(node, |ep, now, _| ep.close(now, old, 1000, "", None));
            assert_eq!(late, Err(ApiError::InvalidHandle));
            assert_eq!(pair.status(node), Status::Connected, "the new one is untouched");
        }
    }
    pair.finish();
}

/// The CLOSE of a side that throws away what still comes says so; that of one whose application saw
/// everything does not.
#[test]
fn the_close_says_whether_received_data_was_discarded() {
    let mut pair = Pair::connected(4);
    pair.open(CLIENT, "out", ChannelKind::Bytes, Flow::of(100_000, Size::Fixed(10_000)));
    pair.await_eof(HOST, "out", secs(5));
    pair.settle();
    pair.close(HOST, Some(secs(5)));
    pair.run_until("the client is told", secs(2), |pair| pair.conn(CLIENT).ended());
    assert_eq!(pair.status(CLIENT), Status::ClosedByPeer);
    let info = pair.w.nodes[CLIENT].endpoint.info(pair.c).expect("an open handle");
    assert_eq!(info.reason.expect("a reason").reason, Reason(crate::sim::node::CLOSE_CODE));
    assert!(!info.peer_discarded, "the application has seen everything");
    pair.w.finish();
    // What comes after the close is thrown away.
    let mut pair = Pair::connected(5);
    let flow = Flow::of(1_000_000, Size::Fixed(10_000));
    pair.host().policy.answer = Box::new(move |_, _| Flow::of(200_000, Size::Fixed(10_000)));
    pair.open(CLIENT, "out", ChannelKind::Bytes, flow);
    pair.w.run_for(ms(50));
    pair.close(HOST, Some(secs(5)));
    pair.run_until("the client is told", secs(6), |pair| pair.conn(CLIENT).ended());
    let info = pair.w.nodes[CLIENT].endpoint.info(pair.c).expect("an open handle");
    assert!(info.peer_discarded);
    pair.w.finish();
}
