//! 65,534 channels open at once, 32,767 opened by each side, twice over, on every link.

mod sim;

use sim::alloc;
use sim::node::NodeConfig;
use sim::pair::{CLIENT, HOST, Pair, options};
use sim::{Flow, Over, Size, ms, on_both_links, secs};
use std::collections::BTreeSet;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::limits::{CLIENT_FIRST_CHANNEL, HOST_FIRST_CHANNEL, MAX_CHANNELS};

const EACH: usize = MAX_CHANNELS as usize / 2;
/// Bytes of heap that one endpoint may hold at most with all channels open and written to.
const PEAK_BYTES: i64 = 96 << 20;

/// What is written on channel number `i` before its direction ends: some write nothing.
fn flow(i: usize) -> Flow {
    Flow::of((i % 97) as u64, Size::Fixed(40))
}

fn pair(seed: u64) -> Pair {
    let config = |c: NodeConfig| {
        c.with(|c| {
            c.max_packet = 8_900;
            c.connected_timeout = secs(20);
            c.channel_timeout = secs(120);
        })
    };
    let mut pair = Pair::apart(seed, config(NodeConfig::client()), config(NodeConfig::host()));
    pair.link(|link| {
        link.delay = ms(2);
        link.loss = 20;
        link.reorder = 100;
        link.reorder_by = ms(4);
    });
    pair.connect();
    pair
}

/// Both sides open all of theirs; nothing ends before all are open.
fn open_all(pair: &mut Pair, round: usize) {
    for i in 0..EACH {
        for node in [CLIENT, HOST] {
            let name = format!("{round}/{node}/{i}");
            let kind = options(ChannelKind::Bytes);
            pair.try_open(node, &name, kind, Flow::silent()).expect("open");
        }
        if i % 512 == 511 {
            pair.w.run_for(ms(5));
        }
    }
    pair.run_until("all are open", secs(120), |p| {
        [CLIENT, HOST].iter().all(|n| {
            p.stats(*n).channels == MAX_CHANNELS
                && p.conn(*n).channels.values().all(|c| c.ready)
                && p.conn(*n).channels.len() == 2 * EACH
        })
    });
}

fn write_then_close_all(pair: &mut Pair, round: usize) {
    for i in 0..EACH {
        for opener in [CLIENT, HOST] {
            let name = format!("{round}/{opener}/{i}");
            // Both directions of every channel.
            pair.send(CLIENT, &name, flow(i));
            pair.send(HOST, &name, flow(i + 13));
        }
    }
    pair.run_until("all are over", secs(300), |p| {
        [CLIENT, HOST].iter().all(|n| p.stats(*n).channels == 0)
    });
    pair.settle();
    for node in [CLIENT, HOST] {
        for chan in pair.conn(node).channels.values() {
            assert_eq!(chan.end, Some(ChannelEnd::Finished), "{}", chan.name);
        }
    }
    pair.check_delivery();
    for node in [CLIENT, HOST] {
        let handle = pair.handle(node);
        // Every id of the other side's half was in use, in each round.
        let conn = pair.conn(node);
        let ids: BTreeSet<u16> = conn.channels.values().filter_map(|c| c.id).collect();
        let first = [HOST_FIRST_CHANNEL, CLIENT_FIRST_CHANNEL][node];
        assert_eq!(ids.len(), EACH);
        assert_eq!(ids.first(), Some(&first), "round {round}");
        assert_eq!(ids.last(), Some(&(first + EACH as u16 - 1)), "round {round}");
        let conn = pair.w.nodes[node].app.conn_mut(handle);
        conn.channels.clear();
        conn.by_name.clear();
    }
}

#[test]
fn all_channels_open_at_once_and_again() {
    on_both_links(|_| {
        let mut pair = pair(1);
        for round in 0..2 {
            alloc::reset_peaks();
            open_all(&mut pair, round);
            write_then_close_all(&mut pair, round);
            for node in [CLIENT, HOST] {
                let peak = pair.w.nodes[node].heap_peak();
                println!("node {node}, round {round}: {peak} bytes at most");
                assert!(peak < PEAK_BYTES, "node {node}: {peak} bytes");
            }
        }
        pair.finish();
    });
}

#[test]
fn write_then_close_on_each_loses_no_byte() {
    on_both_links(|_| {
        // Open, write and end in one go, without waiting for any answer; twice over with the same ids;
        // and a lingering close right behind the last of them.
        let mut pair = pair(2);
        for node in [CLIENT, HOST] {
            pair.w.nodes[node].policy.answer = Box::new(|_, _| Flow::of(0, Size::Fixed(1)));
        }
        for round in 0..2 {
            for i in 0..EACH {
                for node in [CLIENT, HOST] {
                    let name = format!("{round}/{node}/{i}");
                    let kind = options(ChannelKind::Bytes);
                    let flow = flow(i);
                    let opened = pair.try_open(node, &name, kind, flow.clone());
                    if opened.is_err() {
                        // The other half of the ids is still being closed.
                        pair.run_until("an id is free", secs(60), |p| {
                            p.stats(node).channels < MAX_CHANNELS - 1_000
                        });
                        pair.try_open(node, &name, kind, flow).expect("open");
                    }
                }
            }
            if round == 0 {
                pair.run_until("all are over", secs(300), |p| {
                    [CLIENT, HOST].iter().all(|n| p.stats(*n).channels == 0)
                });
                pair.check_delivery();
            }
        }
        pair.close(CLIENT, Some(secs(100)));
        pair.w.run_until("the lingering side is dead", secs(100), |w| w.nodes[CLIENT].is_empty());
        pair.w.drain(secs(20));
        let report = pair.conn(CLIENT).report.clone().expect("a report");
        assert_eq!(report.undelivered_bytes, 0);
        for chan in pair.conn(CLIENT).channels.values().filter(|c| c.ours) {
            let at_host = pair.conn(HOST).named(&chan.name).expect("it was asked for");
            assert!(at_host.eof, "{} has no EOF", chan.name);
        }
        pair.check_delivery();
    });
}

#[test]
fn on_a_plain_stream_the_opener_ends_each_and_loses_no_byte() {
    let client = NodeConfig { over: Over::PlainStream, ..NodeConfig::client() };
    let change = |c: &mut trunkline_proto::config::ConnectionConfig| c.channel_timeout = secs(120);
    let mut pair = Pair::apart(3, client.with(change), NodeConfig::host().with(change));
    pair.connect();
    for round in 0..2 {
        open_all(&mut pair, round);
        for i in 0..EACH {
            for opener in [CLIENT, HOST] {
                pair.send(opener, &format!("{round}/{opener}/{i}"), flow(i));
            }
        }
        pair.run_until("all are over", secs(300), |p| {
            [CLIENT, HOST].iter().all(|n| p.stats(*n).channels == 0)
        });
        pair.settle();
        pair.check_delivery();
        for node in [CLIENT, HOST] {
            for chan in pair.conn(node).channels.values() {
                assert_eq!(chan.end, Some(ChannelEnd::Finished), "{}", chan.name);
                assert_eq!(chan.eof, !chan.ours, "{}", chan.name);
            }
            let handle = pair.handle(node);
            let conn = pair.w.nodes[node].app.conn_mut(handle);
            conn.channels.clear();
            conn.by_name.clear();
        }
    }
    pair.finish();
}
