//! What an idle connection costs.

#![allow(clippy::cast_possible_wrap)]

mod sim;

use sim::alloc;
use sim::node::NodeConfig;
use sim::pair::{CLIENT, HOST, Pair, options};
use sim::{Flow, Over, Size, World, secs};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::status::Status;

/// Bytes of heap of one idle connection after its handshake, on each side: tables included, and what
/// the allocator adds.
const IDLE_CONNECTION_BYTES: i64 = 5 * 1024;
/// The same over a stream: TLS keeps its own state, and a buffer for what it reads.
const IDLE_STREAM_BYTES: i64 = 12 * 1024;
/// More for the first channel: its map and lists begin with room for a few.
const FIRST_CHANNEL_BYTES: i64 = 512;
/// The same of one idle, answered channel of many.
const IDLE_CHANNEL_BYTES: i64 = 256;

/// Connects so many more clients, and waits until their handshakes are forgotten.
fn connect(w: &mut World, count: usize) {
    let before = w.nodes[0].app.conns.len();
    let config = w.nodes[0].client_config();
    let to = w.addr(1);
    // Not all in one moment: peaks of the handshakes would stay in the allocator's tables.
    for i in 0..count {
        let now = w.now;
        w.nodes[0].connect(now, &[to], &config);
        if i % 50 == 49 {
            w.run_for(secs(1));
        }
    }
    w.run_until("all are connected", secs(20), |w| {
        w.nodes.iter().all(|n| {
            n.app.conns.len() == before + count
                && n.app.conns.values().all(|c| c.status == Status::Connected)
        })
    });
    w.run_for(secs(30));
}

/// What each of many more connections costs each side, `then` included.
fn check_connections(over: Over, figure: i64, what: &str, mut then: impl FnMut(&mut World)) {
    let mut w = World::new(1);
    w.add("client", NodeConfig { over, ..NodeConfig::client() });
    w.add("host", NodeConfig::host());
    connect(&mut w, 100);
    then(&mut w);
    let before = [w.heap(0), w.heap(1)];
    let more = 1_000;
    connect(&mut w, more);
    then(&mut w);
    for (node, before) in [(0, before[0]), (1, before[1])] {
        let each = (w.heap(node) - before) / more as i64;
        println!("{}: {each} bytes of heap for {what}", w.nodes[node].name);
        assert!(each <= figure, "{}: {each} bytes for {what}", w.nodes[node].name);
        assert!(each > 500, "{}: {each} bytes cannot be all of it", w.nodes[node].name);
    }
    w.finish();
}

#[test]
fn an_idle_connection_stays_within_its_figure() {
    check_connections(Over::Datagrams, IDLE_CONNECTION_BYTES, "an idle connection", |_| {});
}

#[test]
fn an_idle_connection_over_a_stream_stays_within_its_figure() {
    for over in [Over::Stream, Over::PlainStream] {
        check_connections(
            over,
            IDLE_STREAM_BYTES,
            &format!("an idle connection over {over:?}"),
            |_| {},
        );
    }
}

#[test]
fn an_idle_connection_with_a_channel_stays_within_its_figure() {
    let figure = IDLE_CONNECTION_BYTES + FIRST_CHANNEL_BYTES;
    check_connections(Over::Datagrams, figure, "an idle connection with a channel", |w| {
        let conns: Vec<_> = w.nodes[0].app.conns.keys().copied().collect();
        for (i, conn) in conns.into_iter().enumerate() {
            if !w.nodes[0].app.conns[&conn].channels.is_empty() {
                continue;
            }
            let flow = Flow::of(100, Size::Fixed(100));
            let now = w.now;
            w.nodes[0].open(now, conn, "c", options(ChannelKind::Messages), flow).expect("open");
            if i % 50 == 49 {
                w.run_for(secs(1));
            }
        }
        w.run_for(secs(30));
    });
}

#[test]
fn an_idle_channel_stays_within_its_figure() {
    let mut pair = Pair::connected(2);
    let count = 13_000;
    let open = |pair: &mut Pair, count: usize| {
        let before = pair.conn(CLIENT).channels.len();
        for i in before..before + count {
            pair.open(CLIENT, &format!("c{i}"), ChannelKind::Bytes, Flow::silent());
        }
        pair.run_until("all are ready", secs(60), |p| {
            let at = |n| p.conn(n).channels.len() == before + count;
            at(CLIENT) && at(HOST) && p.conn(CLIENT).channels.values().all(|c| c.ready)
        });
        // Until the timeout of the requests is forgotten.
        pair.w.run_for(secs(20));
    };
    open(&mut pair, 500);
    let before = [pair.w.heap(CLIENT), pair.w.heap(HOST)];
    open(&mut pair, count);
    for node in [CLIENT, HOST] {
        let each = (pair.w.heap(node) - before[node]) / count as i64;
        println!("{}: {each} bytes of heap for an idle channel", pair.w.nodes[node].name);
        assert!(each <= IDLE_CHANNEL_BYTES, "node {node}: {each} bytes");
    }
    pair.finish();
}

#[test]
fn busy_connections_give_their_memory_back() {
    let mut pair = Pair::connected(3);
    pair.settle();
    let before = [pair.w.heap(CLIENT), pair.w.heap(HOST)];
    let round = |pair: &mut Pair, n: usize| {
        pair.host().policy.answer = Box::new(|_, _| Flow::of(500_000, Size::Fixed(20_000)));
        for i in 0..50 {
            let flow = Flow::of(500_000, Size::Fixed(20_000));
            pair.try_open(CLIENT, &format!("{n}/{i}"), options(ChannelKind::Bytes), flow)
                .expect("open");
        }
        pair.run_until("all is over", secs(60), |p| {
            [CLIENT, HOST].iter().all(|node| {
                let channels = &p.conn(*node).channels;
                channels.len() == 50 * (n + 1) && channels.values().all(|c| c.end.is_some())
            })
        });
        // Memory kept for the next burst is given back with the keep-alive.
        pair.w.run_for(secs(10));
    };
    round(&mut pair, 0);
    let after = [pair.w.heap(CLIENT), pair.w.heap(HOST)];
    for n in 1..5 {
        round(&mut pair, n);
    }
    for node in [CLIENT, HOST] {
        let (now, kept) = (pair.w.heap(node), after[node] - before[node]);
        println!("node {node}: {} → {} → {now} bytes of heap", before[node], after[node]);
        assert!(kept < 2_000, "node {node} keeps {kept} bytes after a transfer");
        assert!(now - after[node] < 1_000, "node {node} grows: {} → {now}", after[node]);
    }
    pair.finish();
}

/// Sending in the steady state allocates per message handed over, not per packet.
#[test]
fn receiving_in_the_steady_state_allocates_next_to_nothing() {
    let mut pair = Pair::connected(4);
    pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(1 << 40, Size::Fixed(60_000)));
    pair.w.run_for(secs(2));
    let owner = pair.w.nodes[HOST].owner;
    let (calls, packets) = (alloc::calls(owner), pair.w.nodes[HOST].packets_in);
    pair.w.run_for(secs(2));
    let calls = alloc::calls(owner) - calls;
    let packets = pair.w.nodes[HOST].packets_in - packets;
    println!("{calls} allocations for {packets} packets");
    assert!(packets > 1_000, "{packets} packets");
    assert!(calls * 20 <= packets, "{calls} allocations for {packets} packets");
    pair.finish();
}
