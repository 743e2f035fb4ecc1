//! Packets that come in another order than they were sent, or long after.

use crate::seeded;
use crate::sim::app::Conn;
use crate::sim::pair::{CLIENT, HOST, Pair, options};
use crate::sim::{End, Flow, Size, Verdict, ms, secs};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::RetryPolicy;
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::limits::{CLIENT_FIRST_CHANNEL, HOST_FIRST_CHANNEL};
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

/// Holds the next `count` packets of the client back for this long.
fn hold_back(pair: &mut Pair, count: u32, wait: Duration) -> Rc<Cell<u32>> {
    let left = Rc::new(Cell::new(count));
    let (counter, client) = (left.clone(), pair.w.addr(CLIENT));
    pair.w.set_hook(move |p| {
        if p.from != client || counter.get() == 0 {
            return Verdict::Pass;
        }
        counter.set(counter.get() - 1);
        Verdict::After(wait)
    });
    left
}

#[test]
fn frames_that_overtake_their_request() {
    for kind in [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams] {
        let mut pair = Pair::connected(1);
        pair.settle();
        // The packet with the request is late; the ones behind it are not.
        let left = hold_back(&mut pair, 1, ms(40));
        let silent = Flow::silent();
        pair.open(CLIENT, "overtaken", kind, silent);
        pair.w.run_for(ms(1));
        assert_eq!(left.get(), 0, "the request went out at once");
        let amount = if kind == ChannelKind::Bytes { 8_000 } else { 8 };
        pair.send(CLIENT, "overtaken", Flow::of(amount, Size::Fixed(1_000)));
        pair.w.run_for(ms(15));
        assert!(pair.conn(HOST).named("overtaken").is_none(), "data made a channel");
        pair.await_eof(HOST, "overtaken", secs(1));
        if kind == ChannelKind::Datagrams {
            let got = pair.chan(HOST, "overtaken").received.messages;
            assert_eq!(got, 8, "frames held until their request came");
        }
        pair.check_delivery();
        pair.finish();
    }
}

#[test]
fn frames_that_overtake_their_request_are_held_within_a_budget() {
    let mut pair = Pair::with(2, |c| c.early_data = 4_000);
    pair.settle();
    hold_back(&mut pair, 1, ms(300));
    for i in 0..4 {
        let flow = Flow::of(20_000, Size::Fixed(500));
        pair.open(CLIENT, &format!("c{i}"), ChannelKind::Bytes, flow);
    }
    pair.w.run_for(ms(200));
    for i in 0..4 {
        pair.await_eof(HOST, &format!("c{i}"), secs(5));
    }
    assert_eq!(pair.status(HOST), Status::Connected);
    pair.check_delivery();
    pair.finish();
}

#[test]
fn an_eof_that_overtakes_data() {
    for kind in [ChannelKind::Bytes, ChannelKind::Messages] {
        let mut pair = Pair::connected(3);
        pair.open(CLIENT, "stream", kind, Flow::silent());
        pair.settle();
        let left = hold_back(&mut pair, 1, ms(60));
        let amount = if kind == ChannelKind::Bytes { 900 } else { 3 };
        pair.send(CLIENT, "stream", Flow::of(amount, Size::Fixed(300)).ending(End::Stay));
        pair.w.run_for(ms(1));
        assert_eq!(left.get(), 0);
        pair.send(CLIENT, "stream", Flow::of(0, Size::Fixed(1)));
        pair.w.run_for(ms(15));
        let early = pair.chan(HOST, "stream");
        assert!(!early.eof && early.received.bytes == 0, "an EOF before the data");
        pair.await_eof(HOST, "stream", secs(1));
        pair.check_delivery();
        pair.finish();
    }
}

#[test]
fn a_refusal_after_an_eof_that_overtook_data() {
    // The EOF is acknowledged and never comes again; only what it overtook is missing.
    let mut pair = Pair::connected(8);
    pair.host().policy.answer = Box::new(|_, _| Flow::of(0, Size::Fixed(1)));
    pair.open(CLIENT, "stream", ChannelKind::Bytes, Flow::silent());
    pair.settle();
    hold_back(&mut pair, 1, ms(60));
    let data = Flow::of(900, Size::Fixed(300)).ending(End::Stay);
    pair.send(CLIENT, "stream", data);
    pair.w.run_for(ms(1));
    pair.send(CLIENT, "stream", Flow::of(0, Size::Fixed(1)));
    pair.w.run_for(ms(15));
    let (h, key) = (pair.h, pair.key(HOST, "stream"));
    pair.w.call(HOST, |ep, now, app| {
        ep.stop_channel(now, h, key, 7).expect("stop");
        app.conn_mut(h).chan_mut(key).stop_sent = true;
    });
    pair.run_until("both sides are through", secs(2), |p| {
        [CLIENT, HOST].iter().all(|n| p.chan(*n, "stream").end.is_some())
    });
    let end = pair.chan(HOST, "stream").end.clone();
    assert_eq!(end, Some(ChannelEnd::Reset { code: 7, by_peer: false }));
    assert_eq!(pair.stats(CLIENT).channels, 0);
    assert_eq!(pair.stats(HOST).channels, 0);
    pair.finish();
}

#[test]
fn an_eof_of_datagrams_that_overtakes_data() {
    let mut pair = Pair::connected(4);
    pair.open(CLIENT, "datagrams", ChannelKind::Datagrams, Flow::silent());
    pair.settle();
    hold_back(&mut pair, 1, ms(60));
    pair.send(CLIENT, "datagrams", Flow::of(3, Size::Fixed(300)).ending(End::Stay));
    pair.w.run_for(ms(1));
    pair.send(CLIENT, "datagrams", Flow::of(0, Size::Fixed(1)));
    // Nothing after the EOF: the application checks it.
    pair.await_eof(HOST, "datagrams", secs(1));
    pair.w.run_for(secs(1));
    pair.finish();
}

#[test]
fn an_answer_overtaken_by_data() {
    // The host's acceptance is late, its data on the same channel is not.
    let mut pair = Pair::connected(5);
    pair.settle();
    let host = pair.w.addr(HOST);
    pair.host().policy.answer = Box::new(|_, _| Flow::silent());
    pair.open(CLIENT, "answered", ChannelKind::Bytes, Flow::silent());
    let held = Rc::new(Cell::new(false));
    let flag = held.clone();
    pair.w.set_hook(move |p| {
        if p.from == host && !flag.replace(true) {
            return Verdict::After(ms(80));
        }
        Verdict::Pass
    });
    pair.w.run_for(ms(12));
    assert!(held.get(), "the acceptance went out");
    pair.send(HOST, "answered", Flow::of(5_000, Size::Fixed(500)));
    pair.await_eof(CLIENT, "answered", secs(1));
    pair.check_delivery();
    pair.finish();
}

#[test]
fn a_reset_that_overtakes_the_request() {
    let mut pair = Pair::connected(6);
    pair.settle();
    hold_back(&mut pair, 1, ms(40));
    pair.host().policy.answer = Box::new(|_, _| Flow::of(0, Size::Fixed(1)));
    let key = pair.open(CLIENT, "short-lived", ChannelKind::Bytes, Flow::silent());
    pair.w.run_for(ms(1));
    let c = pair.c;
    pair.w.call(CLIENT, |ep, now, app| {
        ep.reset_channel(now, c, key, 9).expect("reset");
        app.conn_mut(c).chan_mut(key).pump.as_mut().expect("ours").cancelled = true;
    });
    pair.w.run_for(ms(20));
    pair.settle();
    if let Some(at_host) = pair.conn(HOST).named("short-lived") {
        assert_eq!(at_host.end, Some(ChannelEnd::Reset { code: 9, by_peer: true }));
    }
    assert_eq!(pair.status(HOST), Status::Connected);
    pair.run_until("it is over", secs(12), |p| p.chan(CLIENT, "short-lived").end.is_some());
    pair.finish();
}

#[test]
fn a_delayed_packet_from_seconds_ago() {
    seeded("overtaking::a_delayed_packet_from_seconds_ago", 16, |seed| {
        let mut pair = Pair::connected(seed);
        let wait = ms([1_500, 4_000, 9_000, 40_000][(seed % 4) as usize]);
        let flow = || Flow::of(300_000, Size::Mixed(8_000)).paced(ms(20));
        pair.host().policy.answer = Box::new(move |_, _| flow());
        let kind = [ChannelKind::Bytes, ChannelKind::Messages][(seed / 4 % 2) as usize];
        let amount = if kind == ChannelKind::Bytes { 300_000 } else { 300 };
        pair.open(CLIENT, "first", kind, Flow::of(amount, Size::Fixed(5_000)).paced(ms(20)));
        pair.w.run_for(ms(100));
        // Several packets of both sides arrive when everybody has forgotten them.
        let left = Rc::new(Cell::new(6));
        let counter = left.clone();
        pair.w.set_hook(move |_| {
            if counter.get() == 0 {
                return Verdict::Pass;
            }
            counter.set(counter.get() - 1);
            Verdict::After(wait)
        });
        pair.await_eof(HOST, "first", secs(60));
        pair.open(CLIENT, "second", kind, Flow::of(50, Size::Fixed(50)));
        pair.await_eof(HOST, "second", secs(60));
        pair.w.run_for(wait + secs(1));
        assert_eq!(left.get(), 0);
        assert_eq!(pair.status(CLIENT), Status::Connected);
        assert_eq!(pair.status(HOST), Status::Connected);
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn a_packet_of_a_former_connection() {
    let mut pair = Pair::connected(7);
    let stored = Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = stored.clone();
    pair.w.set_hook(move |p| {
        log.borrow_mut().push(p.clone());
        Verdict::Pass
    });
    pair.open(CLIENT, "old", ChannelKind::Bytes, Flow::of(20_000, Size::Fixed(1_000)));
    pair.await_eof(HOST, "old", secs(1));
    pair.w.finish();
    pair.w.clear_hook();
    pair.connect();
    for p in stored.borrow().iter() {
        pair.w.inject(p.from, p.to, p.data.clone(), ms(5));
    }
    pair.open(CLIENT, "new", ChannelKind::Bytes, Flow::of(20_000, Size::Fixed(1_000)));
    pair.await_eof(HOST, "new", secs(1));
    pair.settle();
    assert_eq!(pair.status(CLIENT), Status::Connected);
    assert_eq!(pair.status(HOST), Status::Connected);
    pair.check_delivery();
    pair.finish();
}

/// Opens and ends so many short channels at this node, some at a time.
fn churn(pair: &mut Pair, node: usize, from: u32, count: u32) {
    let mut next = from;
    while next < from + count {
        let batch = 2_048.min(from + count - next);
        for i in next..next + batch {
            let name = format!("{node}/{i}");
            let flow = Flow::of(u64::from(i % 3), Size::Fixed(1));
            pair.open(node, &name, ChannelKind::Bytes, flow);
        }
        next += batch;
        pair.run_until("the batch is over", secs(60), |p| {
            let last = format!("{node}/{}", next - 1);
            p.chan(node, &last).end.is_some()
                && p.w.nodes[node].endpoint.stats(p.handle(node)).is_some_and(|s| s.channels < 64)
        });
        // The logs of channels that ended on both sides are not needed any more.
        let ended = |c: &Conn| -> BTreeSet<String> {
            c.channels.values().filter(|c| c.end.is_some()).map(|c| c.name.clone()).collect()
        };
        let both = &ended(pair.conn(CLIENT)) & &ended(pair.conn(HOST));
        for at in [CLIENT, HOST] {
            let conn = pair.handle(at);
            let conn = pair.w.nodes[at].app.conn_mut(conn);
            conn.channels.retain(|_, c| !both.contains(&c.name));
        }
    }
}

#[test]
fn ids_are_used_again_and_packets_of_their_former_life_are_dropped() {
    seeded(
        "overtaking::ids_are_used_again_and_packets_of_their_former_life_are_dropped",
        2,
        |seed| {
            // Jumbo packets: a whole round of ids fits into less packets than the replay window, so
            // that only the channels' own lives tell old frames from new ones.
            let mut pair = Pair::with(seed, |c| {
                c.max_packet = 65_507;
                c.keep_alive = secs(3);
            });
            pair.host().policy.answer = Box::new(|_, _| Flow::of(0, Size::Fixed(1)));
            pair.client().policy.answer = Box::new(|_, _| Flow::of(0, Size::Fixed(1)));
            pair.settle();
            let node = (seed % 2) as usize;
            pair.link(|link| {
                link.delay = ms(1);
                link.reorder = 1_500;
                link.reorder_by = ms(10);
                link.duplicate = 500;
                link.loss = 50;
            });
            let first_id = [CLIENT_FIRST_CHANNEL, HOST_FIRST_CHANNEL][node];
            // The first life: its packets come again much later than they were sent.
            let late = Rc::new(std::cell::RefCell::new(Vec::new()));
            let (log, from) = (late.clone(), pair.w.addr(node));
            pair.w.set_hook(move |p| {
                if p.from == from && log.borrow().len() < 40 {
                    log.borrow_mut().push(p.clone());
                    // It never arrives now: what it carried is sent again in another packet.
                    return Verdict::Drop;
                }
                Verdict::Pass
            });
            for i in 0..20 {
                let flow = Flow::of(1_000, Size::Fixed(100));
                pair.open(node, &format!("first/{i}"), ChannelKind::Bytes, flow);
            }
            for i in 0..20 {
                pair.await_eof(1 - node, &format!("first/{i}"), secs(60));
            }
            pair.w.clear_hook();
            let firsts: Vec<_> = (0..20)
                .map(|i| pair.chan(1 - node, &format!("first/{i}")).id.expect("an id"))
                .collect();
            assert!(firsts.contains(&first_id), "{firsts:?}");
            churn(&mut pair, node, 0, 0x7fff - 20);
            // The ids start anew.
            for i in 0..20 {
                pair.open(node, &format!("second/{i}"), ChannelKind::Bytes, Flow::silent());
            }
            pair.w.run_for(ms(100));
            let again: Vec<_> = (0..20)
                .map(|i| pair.chan(1 - node, &format!("second/{i}")).id.expect("an id"))
                .collect();
            assert!(
                firsts.iter().filter(|id| again.contains(id)).count() >= 18,
                "{firsts:?} {again:?}"
            );
            for p in late.borrow().iter() {
                pair.w.inject(p.from, p.to, p.data.clone(), ms(1));
            }
            pair.w.run_for(ms(100));
            for i in 0..20 {
                let name = format!("second/{i}");
                assert_eq!(pair.chan(1 - node, &name).received.bytes, 0, "data of the former life");
                pair.send(node, &name, Flow::of(1_000, Size::Fixed(100)));
                pair.await_eof(1 - node, &name, secs(60));
            }
            assert_eq!(pair.status(CLIENT), Status::Connected);
            pair.check_delivery();
            pair.finish();
        },
    );
}

#[test]
fn heavy_reordering_of_short_channels() {
    seeded("overtaking::heavy_reordering_of_short_channels", 6, |seed| {
        let mut pair = Pair::connected(seed);
        pair.link(|link| {
            link.reorder = 5_000;
            link.reorder_by = ms(200);
            link.duplicate = 2_000;
            link.loss = 500;
        });
        pair.host().policy.answer = Box::new(|_, _| Flow::of(300, Size::Mixed(200)));
        for i in 0..300u64 {
            let flow = Flow::of(i * 7, Size::Mixed(500));
            pair.try_open(CLIENT, &format!("c{i}"), options(ChannelKind::Bytes), flow)
                .expect("open");
            if i % 10 == 0 {
                pair.w.run_for(ms(3));
            }
        }
        pair.run_until("all are over", secs(120), |p| {
            [CLIENT, HOST].iter().all(|n| {
                let channels = &p.conn(*n).channels;
                channels.len() == 300 && channels.values().all(|c| c.end.is_some())
            })
        });
        for chan in pair.conn(CLIENT).channels.values() {
            assert_eq!(chan.end, Some(ChannelEnd::Finished));
        }
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn packets_out_of_order_are_taken() {
    let mut pair = Pair::connected(9);
    pair.link(|link| {
        link.reorder = 3_000;
        link.reorder_by = ms(15);
    });
    pair.host().policy.answer = Box::new(|_, _| Flow::of(500_000, Size::Fixed(5_000)));
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(500_000, Size::Fixed(5_000)));
    pair.await_eof(HOST, "bulk", secs(20));
    pair.await_eof(CLIENT, "bulk", secs(20));
    pair.settle();
    for node in [CLIENT, HOST] {
        let (here, there) = (pair.stats(node), pair.stats(1 - node));
        assert_eq!(here.packets_rejected, 0, "late packets were not opened");
        assert_eq!(here.packets_received, there.packets_sent);
    }
    pair.finish();
}

#[test]
fn a_delayed_handshake_packet() {
    seeded("overtaking::a_delayed_handshake_packet", 12, |seed| {
        let mut host = crate::sim::NodeConfig::host();
        host.retry = [RetryPolicy::Never, RetryPolicy::Always][(seed % 2) as usize];
        let mut pair = Pair::apart(seed, crate::sim::NodeConfig::client(), host);
        // One packet of the handshake comes seconds late, or even after the connection is made.
        let number = Rc::new(Cell::new(0));
        let (counter, which) = (number, seed / 2 % 6);
        pair.w.set_hook(move |_| {
            counter.set(counter.get() + 1);
            if counter.get() == which + 1 { Verdict::After(ms(3_000)) } else { Verdict::Pass }
        });
        pair.connect();
        pair.open(CLIENT, "data", ChannelKind::Bytes, Flow::of(50_000, Size::Fixed(5_000)));
        pair.await_eof(HOST, "data", secs(5));
        pair.w.run_for(secs(5));
        assert_eq!(pair.w.nodes[HOST].endpoint.connections().count(), 1, "a ghost connection");
        assert_eq!(pair.status(CLIENT), Status::Connected);
        pair.finish();
    });
}
