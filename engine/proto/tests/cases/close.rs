//! Closing without linger: who learns what, and when the slot is free.

use crate::seeded;
use crate::sim::node::{CLOSE_CODE, NodeConfig, OnIncoming};
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::{Flow, Size, ms, on_both_links, secs};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::{Reason, cut};
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

/// When this side's slot became free, after closing.
fn time_to_dead(pair: &mut Pair, node: usize, limit: Duration) -> Duration {
    let start = pair.now();
    pair.w.run_until("the slot is free", limit, |w| w.nodes[node].is_empty());
    pair.now().since(start)
}

#[test]
fn the_peer_learns_code_and_text() {
    on_both_links(|_| {
        let long = "ü".repeat(100);
        for (code, text, told) in [
            (1_000, "", Reason(1_000)),
            (2_998, "goodbye", Reason(2_998)),
            (1_500, long.as_str(), Reason(1_500)),
            (999, "x", Reason::APP_OUT_OF_RANGE),
            (4_001, "", Reason::APP_OUT_OF_RANGE),
        ] {
            for node in [CLIENT, HOST] {
                let mut pair = Pair::connected(1);
                pair.open(node, "open", ChannelKind::Messages, Flow::silent());
                pair.settle();
                let conn = pair.handle(node);
                pair.w
                    .call(node, |ep, now, _| ep.close(now, conn, code, text, None))
                    .expect("close");
                let now = pair.now();
                pair.w.nodes[node].app.conn_mut(conn).closed = Some(now);
                pair.run_until("the peer is told", ms(50), |p| p.conn(1 - node).ended());
                assert_eq!(pair.status(1 - node), Status::ClosedByPeer);
                let reason = pair.conn(1 - node).reason.clone().expect("a reason");
                assert_eq!(reason.reason, told);
                if told == Reason(code) {
                    assert_eq!(reason.text, cut(text, 127));
                } else {
                    assert!(reason.text.contains(&code.to_string()), "{reason} hides {code}");
                }
                // A channel never ends as if all had been well.
                let end = pair.chan(1 - node, "open").end.clone();
                assert_eq!(end, Some(ChannelEnd::Connection(reason)));
                assert!(!pair.chan(1 - node, "open").eof);
                pair.w.drain(secs(10));
            }
        }
    });
}

#[test]
fn fin_wait_ends_early_when_the_peer_acknowledges() {
    on_both_links(|_| {
        let mut pair = Pair::connected(2);
        pair.settle();
        pair.close(CLIENT, None);
        let took = time_to_dead(&mut pair, CLIENT, secs(6));
        assert!(took <= ms(50), "dead after {} ms at 20 ms round trip", took.as_millis());
        let report = pair.conn(CLIENT).report.clone().expect("a report");
        assert!(report.peer_knows);
        assert_eq!(report.reason.reason, Reason(CLOSE_CODE));
        pair.w.finish();
    });
}

#[test]
fn fin_wait_has_a_limit() {
    on_both_links(|_| {
        for limit in [secs(5), ms(700)] {
            let mut pair = Pair::with(3, |c| c.fin_wait_timeout = limit);
            pair.settle();
            pair.w.vanish(HOST);
            pair.close(CLIENT, None);
            let took = time_to_dead(&mut pair, CLIENT, secs(20));
            assert!(took >= limit && took <= limit + ms(100), "dead after {} ms", took.as_millis());
            let report = pair.conn(CLIENT).report.clone().expect("a report");
            assert!(!report.peer_knows, "a vanished peer knows nothing");
            pair.w.finish();
        }
    });
}

#[test]
fn a_lost_close_is_sent_again() {
    seeded("close::a_lost_close_is_sent_again", 12, |seed| {
        let mut pair = Pair::connected(seed);
        pair.settle();
        let closer = (seed % 2) as usize;
        // The first packets after closing are lost in one direction or both.
        pair.w.path(closer, 1 - closer).down = true;
        pair.w.path(1 - closer, closer).down = seed % 3 == 0;
        pair.close(closer, None);
        pair.w.run_for(ms(1_000));
        pair.link(|link| link.down = false);
        pair.run_until("the peer is told", secs(4), |p| p.conn(1 - closer).ended());
        assert_eq!(pair.status(1 - closer), Status::ClosedByPeer);
        let reason = pair.conn(1 - closer).reason.clone().expect("a reason");
        assert_eq!(reason.reason, Reason(CLOSE_CODE));
        pair.w.drain(secs(10));
    });
}

#[test]
fn late_packets_are_answered_with_the_reason() {
    // Everything that the closing side sends for a while is lost, its CLOSE included; what the
    // peer sends meanwhile arrives in fin-wait.
    let mut pair = Pair::with(4, |c| {
        c.fin_wait_timeout = secs(30);
        c.connected_timeout = secs(30);
    });
    pair.settle();
    pair.w.path(CLIENT, HOST).down = true;
    pair.close(CLIENT, None);
    // Long enough that the CLOSE is not repeated any more.
    pair.w.run_for(secs(9));
    let sent = pair.w.nodes[CLIENT].packets_out;
    pair.open(HOST, "late", ChannelKind::Bytes, Flow::of(100_000, Size::Fixed(1_000)));
    pair.w.run_for(ms(300));
    assert!(pair.w.nodes[CLIENT].packets_out > sent, "late packets were not answered");
    pair.link(|link| link.down = false);
    pair.run_until("the peer is told", secs(3), |p| p.conn(HOST).ended());
    assert_eq!(pair.conn(HOST).reason.clone().expect("a reason").reason, Reason(CLOSE_CODE));
    pair.w.drain(secs(10));
}

#[test]
fn both_sides_close_at_once() {
    on_both_links(|_| {
        seeded("close::both_sides_close_at_once", 40, |seed| {
            let mut pair = Pair::connected(seed);
            pair.link(|link| {
                link.loss = [0, 1_000][(seed % 2) as usize];
                link.jitter = ms(seed % 7);
            });
            let bulk = || Flow::of(40, Size::Fixed(5_000));
            pair.host().policy.answer = Box::new(move |_, _| bulk());
            pair.open(CLIENT, "bulk", ChannelKind::Messages, bulk());
            pair.w.run_for(ms(10 * (seed % 20)));
            let linger = [None, Some(secs(30))][(seed / 2 % 2) as usize];
            let other = [None, Some(secs(30))][(seed / 4 % 2) as usize];
            let start = pair.now();
            pair.close(CLIENT, linger);
            pair.w.run_for(Duration::from_micros(2_500 * (seed % 8)));
            if !pair.conn(HOST).ended() {
                pair.close(HOST, other);
            }
            pair.w.drain(secs(40));
            for node in [CLIENT, HOST] {
                let report = pair.conn(node).report.as_ref().expect("a report");
                assert!(report.peer_knows, "node {node}: {report:?}");
                let took = pair.conn(node).dead_at.expect("dead").since(start);
                assert!(took < secs(10), "dead after {} ms", took.as_millis());
            }
        });
    });
}

#[test]
fn a_close_before_connected_discards_the_queue() {
    on_both_links(|_| {
        for linger in [None, Some(secs(30))] {
            let mut pair = Pair::apart(5, NodeConfig::client(), NodeConfig::host());
            pair.start();
            pair.open(CLIENT, "early", ChannelKind::Bytes, Flow::of(50_000, Size::Fixed(5_000)));
            pair.w.run_for(ms(15));
            assert_eq!(pair.status(CLIENT), Status::Connecting);
            pair.close(CLIENT, linger);
            let took = time_to_dead(&mut pair, CLIENT, secs(6));
            assert!(took <= secs(5) + ms(100), "{} ms", took.as_millis());
            let report = pair.conn(CLIENT).report.clone().expect("a report");
            assert_eq!((report.acknowledged_bytes, report.undelivered_bytes), (0, 50_000));
            assert_eq!(report.undelivered_channels, 1);
            pair.w.run_for(secs(1));
            let heard = pair.w.nodes[HOST].app.conns.values().any(|c| !c.channels.is_empty());
            assert!(!heard, "the queue was sent after all");
            pair.w.drain(secs(20));
        }
    });
}

#[test]
fn a_host_may_close_what_it_has_not_accepted() {
    on_both_links(|_| {
        let mut pair = Pair::apart(6, NodeConfig::client(), NodeConfig::host());
        pair.host().policy.incoming = OnIncoming::Ignore;
        pair.start();
        pair.w.run_for(ms(500));
        pair.h = pair.w.only(HOST);
        pair.close(HOST, Some(secs(30)));
        pair.run_until("the client is told", ms(100), |p| p.conn(CLIENT).ended());
        assert!(!pair.conn(CLIENT).path.contains(&Status::Connected));
        pair.w.drain(secs(10));
    });
}

#[test]
fn without_linger_the_rest_is_dropped_and_the_report_says_so() {
    on_both_links(|_| {
        for node in [CLIENT, HOST] {
            let mut pair = Pair::connected(7);
            pair.link(|link| link.delay = ms(40));
            pair.w.tcp.window = 50_000;
            let total = 5_000_000;
            pair.open(node, "bulk", ChannelKind::Bytes, Flow::of(total, Size::Fixed(50_000)));
            pair.w.run_for(ms(300));
            let taken = pair.chan(node, "bulk").pump.as_ref().expect("ours").bytes;
            pair.close(node, None);
            pair.w.drain(secs(10));
            let report = pair.conn(node).report.clone().expect("a report");
            let got = pair.chan(1 - node, "bulk").received.bytes;
            assert!(report.undelivered_bytes > 0, "{report:?}");
            assert_eq!(report.undelivered_channels, 1);
            assert_eq!(report.acknowledged_bytes + report.undelivered_bytes, taken);
            assert!(got >= report.acknowledged_bytes && got < taken, "{got} arrived; {report:?}");
            assert!(!pair.chan(1 - node, "bulk").eof, "a clean EOF for a part");
            let knows = pair.conn(1 - node).reason.clone().expect("a reason").reason;
            assert_eq!(knows, Reason(CLOSE_CODE));
        }
    });
}

#[test]
fn a_close_that_left_nothing_reports_that() {
    on_both_links(|_| {
        let mut pair = Pair::connected(8);
        pair.host().policy.answer = Box::new(|_, _| Flow::of(7_000, Size::Fixed(700)));
        pair.open(CLIENT, "all", ChannelKind::Bytes, Flow::of(9_000, Size::Fixed(900)));
        pair.run_until("all is over", secs(1), |p| {
            [CLIENT, HOST].iter().all(|n| p.conn(*n).named("all").is_some_and(|c| c.end.is_some()))
        });
        pair.close(CLIENT, None);
        pair.w.drain(secs(10));
        for (node, sent) in [(CLIENT, 9_000), (HOST, 7_000)] {
            let report = pair.conn(node).report.clone().expect("a report");
            assert_eq!((report.acknowledged_bytes, report.undelivered_bytes), (sent, 0));
            assert_eq!(report.undelivered_channels, 0);
            assert!(report.peer_knows);
        }
    });
}

#[test]
fn many_connections_close_at_once() {
    on_both_links(|_| {
        let mut w = crate::sim::World::new(10);
        w.link.loss = 500;
        w.add("client", NodeConfig::client());
        w.add("host", NodeConfig::host());
        let (now, to) = (w.now, w.addr(1));
        let config = w.nodes[0].client_config();
        let conns: Vec<_> = (0..100).map(|_| w.nodes[0].connect(now, &[to], &config)).collect();
        w.run_until("all are connected", secs(20), |w| {
            w.nodes.iter().all(|n| {
                n.app.conns.len() == 100
                    && n.app.conns.values().all(|c| c.status == Status::Connected)
            })
        });
        let now = w.now;
        for (i, c) in conns.iter().enumerate() {
            let linger = (i % 2 == 0).then_some(secs(5));
            w.nodes[0].close(now, *c, linger).expect("close");
        }
        w.drain(secs(20));
        for conn in w.nodes[1].app.conns.values() {
            assert_eq!(conn.reason.as_ref().map(|r| r.reason), Some(Reason(CLOSE_CODE)));
        }
    });
}
