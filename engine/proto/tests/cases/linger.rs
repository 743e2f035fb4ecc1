//! Closing with linger: everything arrives, nothing hangs.

use crate::seeded;
use crate::sim::app::Event;
use crate::sim::link::Rate;
use crate::sim::node::{CLOSE_CODE, NodeConfig, OnRequest};
use crate::sim::pair::{CLIENT, HOST, Pair, options};
use crate::sim::{End, Flow, Over, Size, ms, on_both_links, secs};
use trunkline_proto::config::{ChannelKind, Congestion, ConnectionConfig};
use trunkline_proto::error::Reason;
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::limits::MAX_BUDGET;
use trunkline_proto::status::Status;

/// Bytes that the lossy test sends.
const BULK: u64 = 50 << 20;

/// Close right after 50 MB of reliable sends, over a link that loses 5 %.
fn fifty_megabytes(closer: usize, congestion: Congestion, delay_ms: u64) {
    let settings = |c: &mut trunkline_proto::config::ConnectionConfig| {
        c.congestion = congestion;
        c.max_packet = 8_900;
        c.linger_timeout = secs(600);
        takes_all(c);
    };
    let mut pair = Pair::with(11, settings);
    pair.link(|link| {
        link.loss = 500;
        link.delay = ms(delay_ms);
    });
    for node in [CLIENT, HOST] {
        pair.w.nodes[node].app.keep_history = true;
    }
    let other = 1 - closer;
    // Ten channels of 5 MiB each, in pieces and messages of 64 KiB; a part of them is even opened
    // in the moment of closing.
    for i in 0..10u64 {
        let (kind, amount) = if i % 2 == 0 {
            (ChannelKind::Bytes, BULK / 10)
        } else {
            (ChannelKind::Messages, BULK / 10 / 65_536)
        };
        pair.open(closer, &format!("bulk/{i}"), kind, Flow::of(amount, Size::Fixed(65_536)));
        if i == 6 {
            pair.w.run_for(ms(30));
        }
    }
    let handed_over: u64 =
        pair.conn(closer).channels.values().map(|c| c.pump.as_ref().expect("ours").bytes).sum();
    assert_eq!(handed_over, BULK, "the endpoint took everything before the close");
    pair.close(closer, Some(secs(600)));
    pair.w.run_until("the lingering side is dead", secs(600), |w| w.nodes[closer].is_empty());
    pair.w.drain(secs(20));
    let report = pair.conn(closer).report.clone().expect("a report");
    // Messages count with their lengths.
    let counted = report.acknowledged_bytes - BULK;
    assert!(counted <= 5 * 8 * 100 && report.undelivered_bytes == 0, "{report:?}");
    assert!(report.peer_knows);
    let got: u64 = pair.conn(other).channels.values().map(|c| c.received.bytes).sum();
    assert_eq!(got, BULK);
    assert!(pair.conn(other).channels.values().all(|c| c.eof), "a direction without its EOF");
    pair.check_delivery();
    // No sign of closing before the last byte.
    let last_byte = pair.conn(other).channels.values().filter_map(|c| c.last_data).max();
    let sign = pair.w.history(other).iter().find_map(|(at, event)| match event {
        Event::Status { new, .. } if *new != Status::Connected => Some(*at),
        Event::Closed { end: ChannelEnd::Connection(_), .. }
        | Event::Reset { .. }
        | Event::Stopped { .. } => Some(*at),
        _ => None,
    });
    assert!(sign > last_byte, "a sign at {sign:?}, the last byte at {last_byte:?}");
    assert_eq!(pair.conn(other).reason.as_ref().map(|r| r.reason), Some(Reason(CLOSE_CODE)));
}

#[test]
fn fifty_megabytes_over_a_lossy_link_at_a_fixed_rate() {
    fifty_megabytes(CLIENT, Congestion::Fixed { bytes_per_s: 20_000_000 }, 20);
}

#[test]
fn fifty_megabytes_over_a_lossy_link_with_cubic() {
    fifty_megabytes(HOST, Congestion::Cubic, 1);
}

#[test]
fn a_lingering_close_with_nothing_to_deliver_is_immediate() {
    on_both_links(|_| {
        let mut pair = Pair::connected(1);
        pair.settle();
        let start = pair.now();
        pair.close(CLIENT, Some(secs(30)));
        pair.w.run_until("the slot is free", secs(1), |w| w.nodes[CLIENT].is_empty());
        assert!(pair.now().since(start) <= ms(50));
        pair.w.drain(secs(5));
    });
}

/// Everything can be handed over before the close.
fn takes_all(c: &mut ConnectionConfig) {
    c.unsent_limit = MAX_BUDGET;
}

/// The link carries 1,000 bytes a second: nothing is done in time.
fn too_slow(pair: &mut Pair) {
    pair.link(|link| link.rate = Some(Rate { bytes_per_s: 4_000, queue: 4_000 }));
}

#[test]
fn linger_has_a_limit_and_says_what_was_lost() {
    for linger in [secs(30), secs(3)] {
        let mut pair = Pair::with(2, takes_all);
        too_slow(&mut pair);
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(2_000_000, Size::Fixed(50_000)));
        pair.w.run_for(ms(200));
        let start = pair.now();
        pair.close(CLIENT, Some(linger));
        pair.w.run_until("the slot is free", secs(60), |w| w.nodes[CLIENT].is_empty());
        let took = pair.now().since(start);
        assert!(took >= linger, "gave up after {} ms", took.as_millis());
        assert!(took <= linger + secs(5) + ms(100), "took {} ms", took.as_millis());
        let report = pair.conn(CLIENT).report.clone().expect("a report");
        assert_eq!(report.reason.reason, Reason::LINGER_EXPIRED, "{report:?}");
        assert!(report.undelivered_bytes > 0 && report.undelivered_channels == 1, "{report:?}");
        assert_eq!(report.acknowledged_bytes + report.undelivered_bytes, 2_000_000);
        pair.w.drain(secs(20));
        assert!(!pair.chan(HOST, "bulk").eof, "a clean EOF for a part");
        let told = pair.conn(HOST).reason.clone().expect("a reason").reason;
        assert_eq!(told, Reason::LINGER_EXPIRED, "the peer learns that data is missing");
    }
}

#[test]
fn a_vanished_peer_does_not_hold_a_linger_longer() {
    seeded("linger::a_vanished_peer_does_not_hold_a_linger_longer", 8, |seed| {
        let mut pair = Pair::connected(seed);
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(900_000, Size::Fixed(50_000)));
        pair.w.run_for(ms(50 * (seed % 3)));
        let linger = secs([3, 60][(seed % 2) as usize]);
        if seed % 4 < 2 {
            pair.close(CLIENT, Some(linger));
            pair.w.run_for(ms(10));
            pair.w.vanish(HOST);
        } else {
            pair.w.vanish(HOST);
            pair.close(CLIENT, Some(linger));
        }
        let start = pair.now();
        pair.w.run_until("the slot is free", secs(100), |w| w.nodes[CLIENT].is_empty());
        let took = pair.now().since(start);
        // The connected timeout still runs, or the linger limit: whichever ends first.
        let limit = linger.min(secs(10)) + secs(5) + ms(500);
        assert!(took <= limit, "took {} ms", took.as_millis());
        let report = pair.conn(CLIENT).report.clone().expect("a report");
        assert!(report.undelivered_bytes > 0 && !report.peer_knows, "{report:?}");
        pair.w.drain(secs(10));
    });
}

#[test]
fn a_peer_that_closes_meanwhile_ends_the_linger() {
    let mut pair = Pair::connected(4);
    too_slow(&mut pair);
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(900_000, Size::Fixed(50_000)));
    pair.w.run_for(ms(500));
    pair.close(CLIENT, Some(secs(60)));
    pair.w.run_for(ms(1_000));
    pair.link(|link| link.rate = None);
    pair.close(HOST, None);
    let start = pair.now();
    pair.w.drain(secs(20));
    assert!(pair.now().since(start) < secs(20));
    let report = pair.conn(CLIENT).report.clone().expect("a report");
    assert!(report.undelivered_bytes > 0 && report.peer_knows, "{report:?}");
}

#[test]
fn lingering_takes_no_part_in_what_still_comes_in() {
    on_both_links(|over| {
        seeded("linger::lingering_takes_no_part_in_what_still_comes_in", 10, |seed| {
            let mut pair = Pair::connected(seed);
            pair.link(|link| link.loss = [0, 300][(seed % 2) as usize]);
            // A stream of this world is fast: something must be left to linger for.
            let total = if over == Over::Datagrams { 400_000 } else { 30_000_000 };
            // The host sends more than any window, all the time, and asks for new channels.
            pair.host().policy.answer = Box::new(|_, _| Flow::of(50_000_000, Size::Fixed(20_000)));
            pair.open(CLIENT, "out", ChannelKind::Bytes, Flow::of(total, Size::Fixed(10_000)));
            pair.w.run_for(ms(60));
            let before = pair.w.nodes[CLIENT].app.events;
            pair.close(CLIENT, Some(secs(60)));
            pair.open(HOST, "late", ChannelKind::Messages, Flow::of(10, Size::Fixed(100)));
            pair.w.run_until("the slot is free", secs(60), |w| w.nodes[CLIENT].is_empty());
            pair.w.drain(secs(20));
            let handed = pair.chan(CLIENT, "out").pump.as_ref().map_or(0, |pump| pump.bytes);
            assert!(handed == total || over == Over::Stream, "{handed} bytes were handed over");
            assert_eq!(pair.chan(HOST, "out").received.bytes, handed, "all of ours arrived");
            assert_eq!(pair.chan(HOST, "out").eof, handed == total);
            let report = pair.conn(CLIENT).report.clone().expect("a report");
            assert_eq!((report.undelivered_bytes, report.peer_knows), (0, true), "{report:?}");
            // Nothing but statuses and the end was told after the close.
            let events = pair.w.nodes[CLIENT].app.events - before;
            assert!(events <= 6, "{events} events after the close");
            let told = pair.conn(HOST).report.clone().expect("a report");
            assert!(told.undelivered_bytes > 0, "what was dropped was reported as delivered");
            let says = told.peer_discarded;
            assert!(says, "the final CLOSE does not say that data was discarded");
            assert!(!report.peer_discarded);
        });
    });
}

#[test]
fn lingering_waits_for_a_channel_that_is_accepted_late() {
    on_both_links(|_| {
        let mut pair = Pair::with(5, takes_all);
        pair.host().policy.request = Box::new(|_| OnRequest::Ignore);
        pair.open(CLIENT, "late", ChannelKind::Bytes, Flow::of(700_000, Size::Fixed(50_000)));
        pair.close(CLIENT, Some(secs(30)));
        pair.w.run_for(secs(3));
        assert_eq!(pair.status(HOST), Status::Connected, "closed under the peer's hands");
        let (h, key) = (pair.h, pair.key(HOST, "late"));
        pair.host().policy.request = Box::new(|_| OnRequest::Accept(options(ChannelKind::Bytes)));
        pair.w.call(HOST, |ep, now, _| {
            ep.accept_channel(now, h, key, &options(ChannelKind::Bytes)).expect("accept");
        });
        pair.await_eof(HOST, "late", secs(5));
        pair.w.drain(secs(10));
        let report = pair.conn(CLIENT).report.clone().expect("a report");
        assert_eq!(report.undelivered_bytes, 0);
    });
}

#[test]
fn lingering_does_not_wait_for_what_was_given_up() {
    on_both_links(|_| {
        // Declined, stopped and cancelled channels hold nothing that could still be delivered.
        let mut pair = Pair::with(6, takes_all);
        pair.host().policy.request = Box::new(|name| match name {
            "declined" => OnRequest::Decline(3, "no".into()),
            _ => OnRequest::Accept(options(ChannelKind::Bytes)),
        });
        pair.host().app.tell_data = true;
        pair.host().policy.stop = Box::new(|name| (name == "stopped").then_some((1, 9)));
        let bulk = || Flow::of(900_000, Size::Fixed(50_000));
        pair.open(CLIENT, "declined", ChannelKind::Bytes, bulk());
        pair.open(CLIENT, "stopped", ChannelKind::Bytes, bulk());
        pair.open(CLIENT, "cancelled", ChannelKind::Bytes, bulk().ending(End::Reset(5)));
        pair.open(CLIENT, "good", ChannelKind::Bytes, bulk());
        let start = pair.now();
        pair.close(CLIENT, Some(secs(30)));
        pair.w.run_until("the slot is free", secs(10), |w| w.nodes[CLIENT].is_empty());
        assert!(pair.now().since(start) < secs(10));
        pair.w.drain(secs(10));
        assert!(pair.chan(HOST, "good").eof);
        assert!(!pair.chan(HOST, "cancelled").eof && !pair.chan(HOST, "stopped").eof);
        pair.check_delivery();
    });
}

#[test]
fn a_slow_reader_is_waited_for() {
    on_both_links(|_| {
        let settings = |c: &mut ConnectionConfig| c.manual_credit = true;
        let client = NodeConfig::client().with(takes_all);
        let mut pair = Pair::apart(7, client, NodeConfig::host().with(settings));
        pair.connect();
        pair.host().app.tell_data = true;
        pair.host().policy.consume = Box::new(|_| false);
        pair.open(CLIENT, "slow", ChannelKind::Bytes, Flow::of(3_000_000, Size::Fixed(50_000)));
        pair.close(CLIENT, Some(secs(30)));
        let h = pair.h;
        for _ in 0..20 {
            pair.w.run_for(ms(500));
            let Some(chan) = pair.conn(HOST).named("slow").filter(|c| !c.eof) else { break };
            let status = pair.conn(HOST).status;
            assert_eq!(status, Status::Connected, "closed under the reader's hands");
            let (key, bytes) = (chan.channel, chan.unconsumed);
            pair.w.call(HOST, |ep, now, app| {
                ep.consume(now, h, key, bytes).expect("consume");
                app.conn_mut(h).chan_mut(key).unconsumed = 0;
            });
        }
        pair.await_eof(HOST, "slow", secs(5));
        pair.w.drain(secs(10));
        pair.check_delivery();
    });
}
