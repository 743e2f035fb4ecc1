//! Credit, priority, large messages, datagrams, keys: what flows and what must not hold it up.

use crate::seeded;
use crate::sim::link::Rate;
use crate::sim::node::NodeConfig;
use crate::sim::pair::{CLIENT, HOST, Pair, options};
use crate::sim::{End, Flow, Size, ms, secs};
use trunkline_proto::config::{ChannelKind, ChannelOptions, Congestion};
use trunkline_proto::endpoint::SendOptions;
use trunkline_proto::limits::MAX_BUDGET;
use trunkline_proto::limits::MAX_DATAGRAM;
use trunkline_proto::status::Status;

#[test]
fn a_slow_reader_of_one_channel_never_stalls_another() {
    seeded("flow::a_slow_reader_of_one_channel_never_stalls_another", 6, |seed| {
        let host = NodeConfig::host().with(|c| {
            c.manual_credit = true;
            c.channel_window = 20_000;
            c.channel_window_max = 100_000;
        });
        let mut pair = Pair::apart(seed, NodeConfig::client(), host);
        pair.link(|link| link.loss = [0, 300][(seed % 2) as usize]);
        pair.connect();
        pair.host().app.tell_data = true;
        pair.host().policy.consume = Box::new(|name| !name.starts_with("slow"));
        let kind = [ChannelKind::Bytes, ChannelKind::Messages][(seed / 2 % 2) as usize];
        let amount = if kind == ChannelKind::Bytes { 2_000_000 } else { 400 };
        for i in 0..5 {
            let flow = Flow::of(amount, Size::Fixed(5_000));
            // The slow ones come first, in every sense.
            let first = ChannelOptions { priority: 0, ..options(kind) };
            pair.try_open(CLIENT, &format!("slow/{i}"), first, flow).expect("open");
        }
        pair.w.run_for(secs(2));
        pair.open(CLIENT, "fast", kind, Flow::of(amount, Size::Fixed(5_000)));
        pair.await_eof(HOST, "fast", secs(30));
        for i in 0..5 {
            let slow = pair.chan(HOST, &format!("slow/{i}"));
            assert!(slow.received.bytes <= 100_000 + 5_010, "{} bytes unread", slow.received.bytes);
            assert!(!slow.eof);
        }
        // And they go on once they are read.
        pair.host().policy.consume = Box::new(|_| true);
        let h = pair.h;
        for i in 0..5 {
            let (key, bytes) = {
                let slow = pair.chan(HOST, &format!("slow/{i}"));
                (slow.channel, slow.unconsumed)
            };
            pair.w.call(HOST, |ep, now, app| {
                ep.consume(now, h, key, bytes).expect("consume");
                app.conn_mut(h).chan_mut(key).unconsumed = 0;
            });
        }
        for i in 0..5 {
            pair.await_eof(HOST, &format!("slow/{i}"), secs(60));
        }
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn data_before_the_reader_exists_is_bounded() {
    let host = NodeConfig::host().with(|c| {
        c.manual_credit = true;
        c.channel_window = 65_536;
        c.channel_window_max = 65_536;
    });
    let mut pair = Pair::apart(1, NodeConfig::client(), host);
    pair.connect();
    pair.host().policy.consume = Box::new(|_| false);
    pair.settle();
    let before = pair.w.heap(HOST);
    for i in 0..20 {
        let flow = Flow::of(10_000_000, Size::Fixed(50_000));
        pair.open(CLIENT, &format!("unread/{i}"), ChannelKind::Bytes, flow);
    }
    pair.w.run_for(secs(20));
    let held = pair.w.heap(HOST) - before;
    // Delivered to the sink, not kept: what the endpoint holds is tables.
    assert!(held <= 20 * 65_536 + 200_000, "{held} bytes held");
    let got: u64 = pair.conn(HOST).channels.values().map(|c| c.received.bytes).sum();
    assert_eq!(got, 20 * 65_536, "exactly what was granted");
    pair.finish();
}

#[test]
fn a_message_larger_than_the_credit_window_does_not_deadlock() {
    seeded("flow::a_message_larger_than_the_credit_window_does_not_deadlock", 8, |seed| {
        let manual = seed % 2 == 1;
        let settings = |c: &mut trunkline_proto::config::ConnectionConfig| {
            c.channel_window = 256;
            c.channel_window_max = 1_024 << (seed / 2 % 2 * 6);
            c.manual_credit = manual;
            c.max_message = 1 << 20;
            c.reassembly_budget = 1 << 20;
        };
        let mut pair = Pair::with(seed, settings);
        pair.link(|link| {
            link.delay = ms(1);
            link.loss = [0, 200][(seed / 4 % 2) as usize];
        });
        for node in [CLIENT, HOST] {
            pair.w.nodes[node].app.tell_data = true;
        }
        // Several at once: more than the budget holds at a time.
        for i in 0..3 {
            let flow = Flow::of(2, Size::Fixed(500_000));
            pair.open(CLIENT, &format!("large/{i}"), ChannelKind::Messages, flow);
        }
        let full = Flow::of(1, Size::Fixed(1 << 20));
        pair.open(HOST, "full", ChannelKind::Messages, full);
        for i in 0..3 {
            pair.await_eof(HOST, &format!("large/{i}"), secs(120));
        }
        pair.await_eof(CLIENT, "full", secs(120));
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn a_message_of_sixteen_mebibytes_arrives() {
    let mut pair = Pair::with(2, |c| c.max_packet = 8_900);
    pair.link(|link| {
        link.delay = ms(5);
        link.loss = 50;
    });
    pair.open(CLIENT, "huge", ChannelKind::Messages, Flow::of(1, Size::Fixed(16 << 20)));
    pair.await_eof(HOST, "huge", secs(120));
    assert_eq!(pair.chan(HOST, "huge").received.messages, 1);
    pair.check_delivery();
    pair.finish();
}

/// A link at which channels compete.
fn narrow(pair: &mut Pair) {
    pair.link(|link| link.rate = Some(Rate { bytes_per_s: 1_000_000, queue: 20_000 }));
}

#[test]
fn a_higher_class_goes_first() {
    let mut pair = Pair::connected(3);
    narrow(&mut pair);
    for i in 0..4 {
        let low = ChannelOptions { priority: 7, weight: 255, ..options(ChannelKind::Bytes) };
        let flow = Flow::of(20_000_000, Size::Fixed(100_000));
        pair.try_open(CLIENT, &format!("low/{i}"), low, flow).expect("open");
    }
    pair.w.run_for(secs(2));
    let high = ChannelOptions { priority: 0, weight: 1, ..options(ChannelKind::Messages) };
    let flow = Flow::of(30, Size::Fixed(1_000));
    let start = pair.now();
    pair.try_open(CLIENT, "high", high, flow).expect("open");
    pair.await_eof(HOST, "high", secs(5));
    let took = pair.now().since(start);
    // 30 kB at 1 MB/s behind what the network's own queue holds and whatever is lost there.
    assert!(took <= ms(400), "{} ms for 30 small messages", took.as_millis());
    pair.finish();
}

#[test]
fn weights_share_a_class() {
    let mut pair = Pair::connected(4);
    narrow(&mut pair);
    for (name, weight) in [("one", 10), ("three", 30)] {
        let o = ChannelOptions { weight, ..options(ChannelKind::Bytes) };
        pair.try_open(CLIENT, name, o, Flow::of(20_000_000, Size::Fixed(100_000))).expect("open");
    }
    pair.w.run_for(secs(2));
    let received = |p: &Pair, name: &str| p.chan(HOST, name).received.bytes as f64;
    let (one, three) = (received(&pair, "one"), received(&pair, "three"));
    pair.w.run_for(secs(10));
    let ratio = (received(&pair, "three") - three) / (received(&pair, "one") - one);
    assert!((2.5..3.5).contains(&ratio), "weights 10 and 30 share as 1 : {ratio:.2}");
    pair.finish();
}

#[test]
fn keys_are_updated_under_loss() {
    seeded("flow::keys_are_updated_under_loss", 10, |seed| {
        let mut pair = Pair::with(seed, |c| c.key_update_packets = 64);
        pair.link(|link| {
            link.loss = [0, 100, 500][(seed % 3) as usize];
            link.reorder = 1_000;
            link.duplicate = 300;
            link.rate = Some(Rate { bytes_per_s: 500_000, queue: 50_000 });
        });
        let phases = std::rc::Rc::new(std::cell::Cell::new((0u8, 0u32)));
        let (count, client) = (phases.clone(), pair.w.addr(CLIENT));
        pair.w.set_hook(move |p| {
            if p.from == client && !p.is_long() {
                let (last, changes) = count.get();
                let phase = p.data[0] & 1;
                count.set((phase, changes + u32::from(phase != last)));
            }
            crate::sim::Verdict::Pass
        });
        let flow = || Flow::of(1_500_000, Size::Fixed(10_000));
        pair.host().policy.answer = Box::new(move |_, _| flow());
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, flow());
        pair.await_eof(HOST, "bulk", secs(300));
        pair.await_eof(CLIENT, "bulk", secs(300));
        pair.check_delivery();
        assert!(phases.get().1 >= 5, "{} key updates", phases.get().1);
        pair.finish();
    });
}

#[test]
fn would_block_is_followed_by_writable() {
    for kind in [ChannelKind::Bytes, ChannelKind::Messages] {
        let mut pair = Pair::with(5, |c| {
            c.max_message = 100_000;
            c.channel_send_buffer = 100_000;
            c.send_buffer = 150_000;
        });
        let amount = if kind == ChannelKind::Bytes { 2_000_000 } else { 400 };
        for i in 0..4 {
            let flow = Flow::of(amount, Size::Fixed(5_000));
            pair.open(CLIENT, &format!("c{i}"), kind, flow);
        }
        let blocked = pair.conn(CLIENT).channels.values().filter(|c| c.blocked).count();
        assert_eq!(blocked, 4, "nothing bounded the queues");
        let queued: u64 =
            pair.conn(CLIENT).channels.values().map(|c| c.pump.as_ref().expect("ours").bytes).sum();
        // The connection's buffer, and an even share of it for each.
        assert!(queued <= 300_000, "{queued} bytes queued");
        for i in 0..4 {
            pair.await_eof(HOST, &format!("c{i}"), secs(60));
        }
        pair.check_delivery();
        pair.finish();
    }
}

#[test]
fn what_waits_for_its_first_transmission_is_bounded_and_never_missed() {
    // A long round trip: whoever waits for acknowledgements before going on would be slow.
    let bulk = |limit: u64, kind, amount| {
        let mut pair = Pair::with(9, |c| {
            c.unsent_limit = limit;
            c.channel_window = 8 << 20;
            c.congestion = Congestion::Fixed { bytes_per_s: 25_000_000 };
        });
        pair.link(|link| link.delay = ms(50));
        let start = pair.now();
        pair.open(CLIENT, "bulk", kind, Flow::of(amount, Size::Fixed(20_000)));
        let queued = pair.chan(CLIENT, "bulk").pump.as_ref().expect("ours").bytes;
        pair.await_eof(HOST, "bulk", secs(60));
        let took = pair.now().since(start);
        pair.check_delivery();
        pair.finish();
        (queued, took)
    };
    for (kind, amount) in [(ChannelKind::Bytes, 20_000_000), (ChannelKind::Messages, 1_000)] {
        let (queued, took) = bulk(64 << 10, kind, amount);
        assert!(queued <= 64 << 10, "{queued} bytes wait");
        let (everything, at_once) = bulk(MAX_BUDGET, kind, amount);
        assert!(everything > 10_000_000, "{everything} bytes wait");
        assert!(
            took.as_millis() <= at_once.as_millis() * 11 / 10,
            "{} ms instead of {}",
            took.as_millis(),
            at_once.as_millis()
        );
    }
}

#[test]
fn each_channel_has_its_share_of_what_may_wait() {
    let mut pair = Pair::with(10, |c| c.unsent_limit = 64 << 10);
    pair.link(|link| link.rate = Some(Rate { bytes_per_s: 200_000, queue: 100_000 }));
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(400_000, Size::Fixed(10_000)));
    assert!(pair.chan(CLIENT, "bulk").blocked, "nothing bounded it");
    // One message on each goes at once however much waits on the other, and so does a second one
    // that is short.
    for i in 0..20 {
        let flow = Flow::of(2, Size::Fixed(1_500));
        pair.open(CLIENT, &format!("other/{i}"), ChannelKind::Messages, flow);
        let other = pair.chan(CLIENT, &format!("other/{i}"));
        assert!(!other.blocked && other.pump.as_ref().expect("ours").done, "{i} waits");
    }
    for i in 0..20 {
        pair.await_eof(HOST, &format!("other/{i}"), secs(60));
    }
    pair.await_eof(HOST, "bulk", secs(60));
    pair.check_delivery();
    pair.finish();
}

/// A pair whose host reads nothing of channels called `slow…`, with small send buffers.
fn small_buffers(seed: u64) -> Pair {
    let settings = |c: &mut trunkline_proto::config::ConnectionConfig| {
        c.max_message = 100_000;
        c.channel_send_buffer = 200_000;
        c.send_buffer = 500_000;
        c.manual_credit = true;
        c.channel_window = 50_000;
        c.channel_window_max = 50_000;
    };
    let client = NodeConfig::client().with(settings);
    let mut pair = Pair::apart(seed, client, NodeConfig::host().with(settings));
    pair.connect();
    for node in [CLIENT, HOST] {
        pair.w.nodes[node].app.tell_data = true;
    }
    pair.host().policy.consume = Box::new(|name| !name.starts_with("slow"));
    for i in 0..5 {
        let flow = Flow::of(10_000_000, Size::Fixed(20_000));
        pair.open(CLIENT, &format!("slow/{i}"), ChannelKind::Bytes, flow);
    }
    pair.w.run_for(secs(1));
    pair
}

#[test]
fn unread_channels_that_fill_the_send_buffer_leave_room_for_others() {
    for kind in [ChannelKind::Bytes, ChannelKind::Messages] {
        let mut pair = small_buffers(1);
        let unacked = pair.stats(CLIENT).unacked_bytes;
        assert!(unacked >= 400_000, "{unacked} bytes queued");
        let amount = if kind == ChannelKind::Bytes { 1_000_000 } else { 200 };
        pair.open(CLIENT, "fast", kind, Flow::of(amount, Size::Fixed(5_000)));
        pair.await_eof(HOST, "fast", secs(10));
        let unacked = pair.stats(CLIENT).unacked_bytes;
        assert!(unacked <= 1_000_000, "{unacked} bytes queued in buffers of 500,000");
        pair.check_delivery();
        pair.finish();
    }
}

#[test]
fn room_that_a_cancelled_channel_leaves_is_told() {
    let mut pair = small_buffers(2);
    let flow = Flow::of(1, Size::Fixed(90_000));
    pair.open(CLIENT, "waits", ChannelKind::Messages, flow);
    assert!(pair.chan(CLIENT, "waits").blocked, "there was room");
    pair.w.run_for(secs(1));
    let c = pair.c;
    for i in 0..5 {
        let key = pair.key(CLIENT, &format!("slow/{i}"));
        pair.w.call(CLIENT, |ep, now, app| {
            ep.reset_channel(now, c, key, 1).expect("reset");
            let pump = app.conn_mut(c).chan_mut(key).pump.as_mut().expect("ours");
            (pump.cancelled, pump.done) = (true, true);
        });
    }
    pair.run_until("the other goes on", secs(1), |p| !p.chan(CLIENT, "waits").blocked);
    pair.finish();
}

#[test]
fn small_writes_wait_for_more_only_while_that_pays() {
    let mut pair = Pair::connected(6);
    let lazy = ChannelOptions { no_delay: false, ..options(ChannelKind::Bytes) };
    pair.try_open(CLIENT, "lazy", lazy, Flow::silent()).expect("open");
    pair.settle();
    // Idle link: at once.
    let start = pair.now();
    pair.send(CLIENT, "lazy", Flow::of(10, Size::Fixed(10)).ending(End::Stay));
    pair.run_until("it arrives", secs(1), |p| p.chan(HOST, "lazy").received.bytes == 10);
    assert!(pair.now().since(start) <= ms(11), "a write waited on an idle link");
    // Data in flight: at most 5 ms later, and several share a packet.
    let packets = pair.w.nodes[CLIENT].packets_out;
    let flow = Flow::of(1_000, Size::Fixed(10)).paced(ms(1)).ending(End::Stay);
    pair.send(CLIENT, "lazy", flow);
    let start = pair.now();
    pair.run_until("all arrive", secs(2), |p| p.chan(HOST, "lazy").received.bytes == 1_010);
    assert!(pair.now().since(start) <= ms(100 + 10 + 6));
    let packets = pair.w.nodes[CLIENT].packets_out - packets;
    assert!(packets <= 60, "{packets} packets for 100 small writes in 100 ms");
    // flush does not wait.
    let (c, key) = (pair.c, pair.key(CLIENT, "lazy"));
    pair.send(CLIENT, "lazy", Flow::of(10, Size::Fixed(10)).ending(End::Stay));
    pair.send(CLIENT, "lazy", Flow::of(10, Size::Fixed(10)).ending(End::Stay));
    pair.w.call(CLIENT, |ep, now, _| ep.flush_channel(now, c, key)).expect("flush");
    let start = pair.now();
    pair.run_until("they arrive", secs(1), |p| p.chan(HOST, "lazy").received.bytes == 1_030);
    assert!(pair.now().since(start) <= ms(11), "flushed bytes waited");
    pair.finish();
}

#[test]
fn every_datagram_arrives_on_a_good_link() {
    let mut pair = Pair::with(7, |c| c.max_packet = 1_452);
    pair.open(CLIENT, "small", ChannelKind::Datagrams, Flow::silent());
    pair.open(CLIENT, "large", ChannelKind::Datagrams, Flow::silent());
    pair.settle();
    let small = Flow::of(500, Size::Mixed(1_300)).paced(ms(1));
    pair.send(CLIENT, "small", small);
    pair.send(CLIENT, "large", Flow::of(20, Size::Fixed(MAX_DATAGRAM)).paced(ms(100)));
    pair.await_eof(HOST, "small", secs(5));
    pair.await_eof(HOST, "large", secs(5));
    assert_eq!(pair.chan(HOST, "small").received.messages, 500);
    assert_eq!(pair.chan(HOST, "large").received.messages, 20);
    pair.finish();
}

#[test]
fn ticks_acknowledge_each_other() {
    let mut pair = Pair::connected(21);
    pair.link(|link| link.delay = ms(10));
    for (node, name) in [(CLIENT, "up"), (HOST, "down")] {
        pair.open(node, name, ChannelKind::Datagrams, Flow::silent());
    }
    pair.settle();
    let before = [CLIENT, HOST].map(|node| pair.stats(node).packets_sent);
    for (node, name) in [(CLIENT, "up"), (HOST, "down")] {
        let ticks = Flow::of(600, Size::Fixed(100)).paced(ms(33)).ending(End::Stay);
        pair.send(node, name, ticks);
    }
    pair.w.run_for(secs(21));
    assert_eq!(pair.chan(HOST, "up").received.messages, 600);
    assert_eq!(pair.chan(CLIENT, "down").received.messages, 600);
    for (node, before) in [CLIENT, HOST].into_iter().zip(before) {
        let stats = pair.stats(node);
        let packets = stats.packets_sent - before;
        // A packet a tick, and keep-alives and the last acknowledgement.
        assert!((600..=615).contains(&packets), "{packets} packets");
        let rtt = stats.rtt;
        assert!((ms(20)..ms(24)).contains(&rtt), "the wait is no round trip: {rtt:?}");
    }
    pair.finish();
}

#[test]
fn datagrams_alone_are_acknowledged_now_and_then() {
    let mut pair = Pair::connected(22);
    pair.open(CLIENT, "media", ChannelKind::Datagrams, Flow::silent());
    pair.settle();
    let before = pair.stats(HOST).packets_sent;
    pair.send(CLIENT, "media", Flow::of(1_000, Size::Fixed(1_000)).paced(ms(20)));
    pair.await_eof(HOST, "media", secs(30));
    let answers = pair.stats(HOST).packets_sent - before;
    assert!((100..=130).contains(&answers), "{answers} acknowledgements of 1,000 packets");
    pair.finish();
}

#[test]
fn a_small_window_of_datagrams_is_answered_at_once() {
    seeded("flow::a_small_window_of_datagrams_is_answered_at_once", 4, |seed| {
        let mut pair = Pair::connected(seed);
        pair.open(CLIENT, "media", ChannelKind::Datagrams, Flow::silent());
        pair.settle();
        // Losses keep the window at a few packets; 100 packets a second pass through it all the
        // same, because it is turned over in a round trip, not in a quarter of a second.
        pair.link(|link| {
            link.delay = ms(10);
            link.loss = 1_000;
        });
        pair.send(CLIENT, "media", Flow::of(2_000, Size::Fixed(1_100)).paced(ms(10)));
        pair.await_eof(HOST, "media", secs(30));
        let got = pair.chan(HOST, "media").received.messages;
        assert!((1_700..=1_880).contains(&got), "{got} of 2,000, a tenth of which was lost");
        assert_eq!(pair.stats(CLIENT).datagrams_dropped, 0);
        pair.finish();
    });
}

#[test]
fn datagrams_survive_loss_in_proportion() {
    let mut pair = Pair::connected(8);
    pair.open(CLIENT, "small", ChannelKind::Datagrams, Flow::silent());
    pair.open(CLIENT, "large", ChannelKind::Datagrams, Flow::silent());
    pair.settle();
    pair.link(|link| {
        link.loss = 1_000;
        link.reorder = 2_000;
        link.duplicate = 1_000;
        link.corrupt = 300;
    });
    pair.send(CLIENT, "small", Flow::of(2_000, Size::Fixed(100)).paced(ms(5)));
    pair.send(CLIENT, "large", Flow::of(300, Size::Fixed(5_000)).paced(ms(40)));
    pair.await_eof(HOST, "small", secs(60));
    pair.await_eof(HOST, "large", secs(60));
    let small = pair.chan(HOST, "small").received.messages;
    let large = pair.chan(HOST, "large").received.messages;
    // One packet in ten is lost and one in thirty damaged; a large one needs five packets.
    assert!((1_600..=1_900).contains(&small), "{small} of 2,000");
    assert!((120..=230).contains(&large), "{large} of 300");
    pair.finish();
}

#[test]
fn datagrams_that_expired_are_not_sent() {
    let mut pair = Pair::connected(9);
    let o = ChannelOptions { expires_ms: 50, ..options(ChannelKind::Datagrams) };
    pair.try_open(CLIENT, "expiring", o, Flow::silent()).expect("open");
    pair.settle();
    narrow(&mut pair);
    // Half a second of the link's rate at once: a tenth of that can be sent in time.
    let flow = Flow::of(500, Size::Fixed(1_000)).ending(End::Stay);
    pair.send(CLIENT, "expiring", flow);
    pair.settle();
    let got = pair.chan(HOST, "expiring").received.messages;
    assert!(got <= 150, "{got} of 500 arrived");
    assert!(got >= 10, "{got} of 500 arrived");
    let dropped = pair.stats(CLIENT).datagrams_dropped;
    assert!(dropped >= 300, "{dropped} were counted as dropped");
    pair.finish();
}

#[test]
fn the_oldest_datagram_gives_way_when_the_buffer_is_full() {
    let mut pair = Pair::with(10, |c| c.datagram_send_buffer = 65_536);
    let key = pair.open(CLIENT, "full", ChannelKind::Datagrams, Flow::silent());
    pair.settle();
    narrow(&mut pair);
    let c = pair.c;
    for i in 0..1_000u64 {
        let content =
            crate::sim::pattern::message(crate::sim::pattern::key("full", true), i, 1_000, false);
        let _ = pair.w.call(CLIENT, |ep, now, app| {
            app.conn_mut(c).chan_mut(key).pump.as_mut().expect("ours").messages += 1;
            ep.send(now, c, key, &content, SendOptions::default())
        });
    }
    pair.settle();
    let got = pair.chan(HOST, "full").received.messages;
    assert!((40..=200).contains(&got), "{got} of 1,000 arrived");
    assert!(pair.stats(CLIENT).datagrams_dropped >= 700);
    pair.finish();
}

#[test]
fn only_the_latest_counts_where_that_is_asked_for() {
    seeded("flow::only_the_latest_counts_where_that_is_asked_for", 6, |seed| {
        let mut pair = Pair::connected(seed);
        let o = ChannelOptions { latest: true, ..options(ChannelKind::Datagrams) };
        pair.try_open(CLIENT, "state", o, Flow::silent()).expect("open");
        pair.settle();
        pair.link(|link| {
            link.reorder = 4_000;
            link.reorder_by = ms(60);
        });
        // The receiver checks that none comes after a newer one.
        pair.send(CLIENT, "state", Flow::of(400, Size::Fixed(200)).paced(ms(5)));
        pair.await_eof(HOST, "state", secs(10));
        let got = pair.chan(HOST, "state").received.messages;
        assert!((100..400).contains(&got), "{got} of 400: reordering was to outdate some");
        pair.finish();
    });
}

#[test]
fn goodput_recovers_after_loss() {
    // Not a benchmark: it catches a window that never grows again and timers that stall.
    seeded("flow::goodput_recovers_after_loss", 4, |seed| {
        let mut pair = Pair::connected(seed);
        pair.link(|link| link.rate = Some(Rate { bytes_per_s: 2_000_000, queue: 60_000 }));
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(1 << 40, Size::Fixed(100_000)));
        pair.w.run_for(secs(2));
        pair.link(|link| link.loss = 3_000);
        pair.w.run_for(secs(3));
        pair.link(|link| link.loss = 0);
        pair.w.run_for(secs(3));
        let before = pair.chan(HOST, "bulk").received.bytes;
        pair.w.run_for(secs(5));
        let rate = (pair.chan(HOST, "bulk").received.bytes - before) / 5;
        assert!(rate > 1_400_000, "{rate} bytes a second over a link of 2,000,000");
        assert_eq!(pair.status(CLIENT), Status::Connected);
        pair.finish();
    });
}
