//! Paths that change: addresses, packet sizes, ECN.

use crate::seeded;
use crate::sim::link::Rate;
use crate::sim::node::NodeConfig;
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::{Flow, Size, Verdict, ms, secs};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::Ecn;
use trunkline_proto::limits::AMPLIFICATION_FACTOR;
use trunkline_proto::status::Status;

fn bulk() -> Flow {
    Flow::of(2_000_000, Size::Fixed(10_000))
}

#[test]
fn the_clients_address_changes_in_the_middle_of_a_transfer() {
    seeded("paths::the_clients_address_changes_in_the_middle_of_a_transfer", 24, |seed| {
        let mut pair = Pair::connected(seed);
        pair.link(|link| {
            link.loss = [0, 500][(seed % 2) as usize];
            link.rate = Some(Rate { bytes_per_s: 2_000_000, queue: 100_000 });
        });
        match seed / 2 % 3 {
            0 => {
                pair.open(CLIENT, "bulk", ChannelKind::Bytes, bulk());
            }
            1 => {
                pair.open(HOST, "bulk", ChannelKind::Bytes, bulk());
            }
            _ => {
                pair.host().policy.answer = Box::new(|_, _| bulk());
                pair.open(CLIENT, "bulk", ChannelKind::Bytes, bulk());
            }
        }
        for i in 0..3 {
            pair.w.run_for(ms(100 + 37 * (seed % 5)));
            pair.w.rebind(CLIENT);
            if seed % 4 == 3 {
                // Another network altogether.
                pair.w.nodes[CLIENT].addr.set_ip([10, 77, seed as u8, i].into());
            }
        }
        let receivers: &[usize] = match seed / 2 % 3 {
            0 => &[HOST],
            1 => &[CLIENT],
            _ => &[HOST, CLIENT],
        };
        for node in receivers {
            pair.await_eof(*node, "bulk", secs(60));
        }
        let info = pair.w.nodes[HOST].endpoint.info(pair.h).expect("connected");
        assert_eq!(info.remote, pair.w.addr(CLIENT), "the host follows the client");
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn an_idle_client_whose_address_changed_is_found_again() {
    let mut pair = Pair::connected(1);
    pair.settle();
    pair.w.rebind(CLIENT);
    // The next keep-alive tells the host where the client is now.
    pair.w.run_for(secs(5));
    pair.open(HOST, "hello", ChannelKind::Bytes, Flow::of(50_000, Size::Fixed(5_000)));
    pair.await_eof(CLIENT, "hello", secs(2));
    pair.finish();
}

#[test]
fn an_unproven_address_gets_at_most_three_times_what_it_sent() {
    // Somebody on the path sends packets of the client on from another address: until that has
    // answered a challenge, it must not draw the host's traffic.
    let mut pair = Pair::connected(2);
    pair.link(|link| link.rate = Some(Rate { bytes_per_s: 5_000_000, queue: 200_000 }));
    pair.open(HOST, "bulk", ChannelKind::Bytes, Flow::of(20_000_000, Size::Fixed(50_000)));
    pair.w.run_for(secs(1));
    let stranger: std::net::SocketAddr = "10.66.6.6:66".parse().expect("an address");
    let client = pair.w.addr(CLIENT);
    let counts = Rc::new(Cell::new((0u64, 0u64)));
    let counter = counts.clone();
    pair.w.set_hook(move |p| {
        if p.from == client && p.data.len() > 20 && counter.get().0 < 5_000 {
            p.from = stranger;
            let (sent, drawn) = counter.get();
            counter.set((sent + p.data.len() as u64, drawn));
        } else if p.to == stranger {
            let (sent, drawn) = counter.get();
            counter.set((sent, drawn + p.data.len() as u64));
        }
        Verdict::Pass
    });
    pair.w.run_for(secs(5));
    let (sent, drawn) = counts.get();
    assert!(sent > 0, "nothing was sent on");
    assert!(drawn <= AMPLIFICATION_FACTOR * sent, "{drawn} bytes drawn with {sent}");
    assert_eq!(pair.status(HOST), Status::Connected);
    // The client goes on where it is.
    pair.await_eof(CLIENT, "bulk", secs(60));
    pair.finish();
}

#[test]
fn only_the_newest_packet_moves_the_path() {
    let mut pair = Pair::connected(3);
    pair.settle();
    let stored = Rc::new(RefCell::new(Vec::new()));
    let (log, client) = (stored.clone(), pair.w.addr(CLIENT));
    pair.w.set_hook(move |p| {
        if p.from == client && log.borrow().len() % 3 == 1 {
            // This one never arrives at its time.
            log.borrow_mut().push(p.clone());
            return Verdict::Drop;
        }
        if p.from == client {
            log.borrow_mut().push(p.clone());
        }
        Verdict::Pass
    });
    pair.open(CLIENT, "data", ChannelKind::Bytes, Flow::of(100_000, Size::Fixed(5_000)));
    pair.await_eof(HOST, "data", secs(20));
    pair.settle();
    pair.w.clear_hook();
    // All of them, once more, from elsewhere: some new to the host, all older than what it has.
    let stranger = "10.66.6.7:67".parse().expect("an address");
    let host = pair.w.addr(HOST);
    for p in stored.borrow().iter() {
        pair.w.inject(stranger, host, p.data.clone(), ms(1));
    }
    pair.settle();
    let info = pair.w.nodes[HOST].endpoint.info(pair.h).expect("connected");
    assert_eq!(info.remote, client, "an old packet moved the path");
    let drawn = pair.w.astray.get(&stranger).map_or(0, |a| a.1);
    assert_eq!(drawn, 0, "old packets drew {drawn} bytes");
    pair.finish();
}

#[test]
fn a_client_asks_for_its_new_path() {
    let mut pair = Pair::connected(4);
    pair.settle();
    pair.w.rebind(CLIENT);
    pair.w.call(CLIENT, |ep, now, _| ep.network_changed(now));
    let start = pair.now();
    pair.w.run_for(ms(100));
    let info = pair.w.nodes[HOST].endpoint.info(pair.h).expect("connected");
    assert_eq!(info.remote, pair.w.addr(CLIENT), "after {:?}", pair.now().since(start));
    pair.finish();
}

#[test]
fn the_packet_size_grows_to_what_the_path_carries() {
    for (mtu, max, least) in [
        (1_200, 1_452, 1_200),
        (1_400, 9_000, 1_360),
        (8_972, 9_000, 8_800),
        (65_507, 65_507, 60_000),
    ] {
        let mut pair = Pair::apart(
            mtu as u64,
            NodeConfig::client().with(|c| c.max_packet = max),
            NodeConfig::host().with(|c| c.max_packet = max),
        );
        pair.link(|link| link.mtu = mtu);
        pair.connect();
        // Long enough for three tries of every size that is too large.
        let flow = Flow::of(4_000_000, Size::Fixed(20_000)).paced(ms(10));
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, flow);
        pair.await_eof(HOST, "bulk", secs(60));
        let size = pair.stats(CLIENT).packet_size as usize;
        assert!(size <= mtu && size >= least, "packets of {size} bytes over a path of {mtu}");
        assert_eq!(pair.stats(CLIENT).packets_lost, 0, "probes count as lost packets");
        pair.finish();
    }
}

#[test]
fn an_mtu_black_hole_is_found() {
    seeded("paths::an_mtu_black_hole_is_found", 12, |seed| {
        let max = [1_452, 9_000][(seed % 2) as usize];
        let mut pair = Pair::with(seed, |c| c.max_packet = max);
        pair.link(|link| link.loss = [0, 200][(seed / 2 % 2) as usize]);
        // Long enough that the size has grown, and that it is not over.
        let flow = Flow::of(5_000_000, Size::Fixed(20_000)).paced(ms(5));
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, flow);
        pair.w.run_for(ms(800));
        assert!(pair.stats(CLIENT).packet_size > 1_300, "the size has not grown");
        let hole = 1_200 + 20 * (seed as usize % 4);
        pair.link(|link| link.mtu = hole);
        pair.await_eof(HOST, "bulk", secs(30));
        let size = pair.stats(CLIENT).packet_size as usize;
        assert!(size <= hole, "packets of {size} bytes into a hole of {hole}");
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn an_interface_that_refuses_large_packets_is_believed_at_once() {
    let small = |mut config: NodeConfig| {
        config.interface = 1_400;
        config.with(|c| c.max_packet = 9_000)
    };
    let mut pair = Pair::apart(6, small(NodeConfig::client()), small(NodeConfig::host()));
    pair.connect();
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(500_000, Size::Fixed(10_000)));
    pair.await_eof(HOST, "bulk", secs(10));
    let size = pair.stats(CLIENT).packet_size;
    assert!((1_380..=1_400).contains(&size), "packets of {size} bytes");
    assert_eq!(pair.stats(CLIENT).packets_lost, 0);
    let refused = pair.w.nodes[CLIENT].refused;
    assert!(refused <= 16, "tried {refused} times");
    // The interface shrinks while packets of the old size are in use.
    pair.w.nodes[CLIENT].config.interface = 1_250;
    pair.open(CLIENT, "more", ChannelKind::Bytes, Flow::of(500_000, Size::Fixed(10_000)));
    pair.await_eof(HOST, "more", secs(10));
    assert!(pair.stats(CLIENT).packet_size <= 1_250);
    pair.check_delivery();
    pair.finish();
}

#[test]
fn lost_probes_do_no_harm() {
    let mut pair = Pair::apart(5, NodeConfig::client(), NodeConfig::host());
    pair.link(|link| link.mtu = 1_300);
    pair.connect();
    let before = pair.stats(CLIENT).window;
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(500_000, Size::Fixed(10_000)));
    pair.await_eof(HOST, "bulk", secs(10));
    assert!(pair.stats(CLIENT).window >= before, "a lost probe shrank the window");
    assert_eq!(pair.stats(CLIENT).packets_lost, 0, "a lost probe counts as a lost packet");
    pair.finish();
}

#[test]
fn congestion_marks_slow_the_sender_and_lose_nothing() {
    let mut pair = Pair::connected(6);
    pair.w.run_for(ms(500));
    pair.link(|link| link.ce = 2_000);
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, bulk());
    pair.w.run_for(secs(2));
    let window = pair.stats(CLIENT).window;
    pair.await_eof(HOST, "bulk", secs(60));
    assert!(window < 60_000, "a window of {window} bytes under marks");
    assert_eq!(pair.stats(CLIENT).packets_lost, 0);
    pair.finish();
}

#[test]
fn a_path_that_bleaches_ecn_works_without() {
    let mut pair = Pair::connected(7);
    let marked = Rc::new(Cell::new((0u32, 0u32)));
    let counter = marked.clone();
    pair.w.set_hook(move |p| {
        let (with, without) = counter.get();
        if p.ecn == Ecn::NotEct {
            counter.set((with, without + 1));
        } else {
            counter.set((with + 1, 0));
        }
        p.ecn = Ecn::NotEct;
        Verdict::Pass
    });
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, bulk());
    pair.await_eof(HOST, "bulk", secs(30));
    let (with, without) = marked.get();
    assert!(with > 0, "ECN was never tried");
    assert!(without >= 50, "still marking: {with} with, then {without} without");
    assert_eq!(pair.stats(CLIENT).packets_lost, 0);
    pair.finish();
}
