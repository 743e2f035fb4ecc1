//! Connections over streams, native and plain, in the simulated world.

mod sim;

use sim::pair::{CLIENT, HOST};
use sim::scenario::{Kinds, Scenario};
use sim::{Flow, NodeConfig, Over, Pair, Size, ms, secs, seeds};
use trunkline_proto::config::{ChannelKind, ConnectionConfig};
use trunkline_proto::ids::Link;

fn pair(seed: u64, over: Over, change: impl Fn(&mut ConnectionConfig)) -> Pair {
    let mut client = NodeConfig::client().with(&change);
    client.over = over;
    let mut pair = Pair::apart(seed, client, NodeConfig::host().with(&change));
    pair.connect();
    pair
}

#[test]
fn a_native_stream_connects_and_carries_every_kind() {
    for seed in 0..50 {
        let mut p = pair(seed, Over::Stream, |_| {});
        p.open(CLIENT, "bytes", ChannelKind::Bytes, Flow::of(3_000_000, Size::Mixed(9_000)));
        p.open(CLIENT, "messages", ChannelKind::Messages, Flow::of(1_000, Size::Mixed(100_000)));
        p.open(HOST, "back", ChannelKind::Bytes, Flow::of(2_000_000, Size::Fixed(1_000)));
        for (node, name) in [(HOST, "bytes"), (HOST, "messages"), (CLIENT, "back")] {
            p.await_eof(node, name, secs(60));
        }
        p.check_delivery();
        p.finish();
    }
}

fn either(seed: u64, change: impl FnOnce(&mut Pair)) -> Pair {
    let mut client = NodeConfig::client();
    client.over = Over::Either;
    let mut p = Pair::apart(seed, client, NodeConfig::host());
    p.link(|link| link.delay = ms(20));
    p.w.tcp.delay = ms(20);
    change(&mut p);
    let start = p.now();
    p.connect();
    assert!(p.now().since(start) < ms(300), "{}", p.now().since(start).as_millis());
    p.open(CLIENT, "there", ChannelKind::Bytes, Flow::of(100_000, Size::Fixed(1_000)));
    p.open(HOST, "back", ChannelKind::Messages, Flow::of(1_000, Size::Mixed(3_000)));
    p.await_eof(HOST, "there", secs(60));
    p.await_eof(CLIENT, "back", secs(60));
    p.check_delivery();
    assert_eq!(p.host().app.conns.len(), 1, "the host's application sees one connection");
    p
}

#[test]
fn of_two_links_the_first_to_prove_the_host_is_kept() {
    for seed in 0..20 {
        let p = either(seed, |_| {});
        let info = p.w.nodes[CLIENT].endpoint.info(p.c).unwrap();
        assert_eq!(info.link, Link::Datagram, "it needs a round trip less");
        p.finish();
    }
}

#[test]
fn a_network_without_udp_costs_nothing_but_the_handshake_of_tcp() {
    for seed in 0..20 {
        let p = either(seed, |p| p.link(|link| link.down = true));
        let info = p.w.nodes[CLIENT].endpoint.info(p.c).unwrap();
        assert_eq!(info.link, Link::Stream);
        p.finish();
    }
}

#[test]
fn a_network_without_tcp_is_not_noticed() {
    for seed in 0..20 {
        let p = either(seed, |p| p.w.tcp.refused = true);
        let info = p.w.nodes[CLIENT].endpoint.info(p.c).unwrap();
        assert_eq!(info.link, Link::Datagram);
        p.finish();
    }
}

fn matrix(test: &str, first: u64, kinds: Kinds, channels: u64) {
    Scenario::new(0, Kinds::Mixed, 2).over_a_stream().digest();
    seeds::run("streams", test, first, 300, |seed| {
        Scenario::new(seed, kinds, channels).over_a_stream().run();
    });
}

fn plain_matrix(test: &str, first: u64, kinds: Kinds, channels: u64) {
    Scenario::new(0, Kinds::Mixed, 2).over_a_plain_stream().digest();
    seeds::run("streams", test, first, 200, |seed| {
        Scenario::new(seed, kinds, channels).over_a_plain_stream().run();
    });
}

#[test]
fn matrix_plain_1() {
    plain_matrix("matrix_plain_1", 340_000, Kinds::Mixed, 1);
}

#[test]
fn matrix_plain_20() {
    plain_matrix("matrix_plain_20", 350_000, Kinds::Mixed, 20);
}

#[test]
fn matrix_plain_bytes_200() {
    plain_matrix("matrix_plain_bytes_200", 360_000, Kinds::Only(ChannelKind::Bytes), 200);
}

#[test]
fn matrix_mixed_1() {
    matrix("matrix_mixed_1", 310_000, Kinds::Mixed, 1);
}

#[test]
fn matrix_mixed_20() {
    matrix("matrix_mixed_20", 320_000, Kinds::Mixed, 20);
}

#[test]
fn matrix_mixed_200() {
    matrix("matrix_mixed_200", 330_000, Kinds::Mixed, 200);
}
