//! Unreliable messages.

use super::net::{Net, Weather, pattern_bytes, receive};
use crate::channel::Mux;
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::endpoint::SendOptions;
use crate::error::{ApiError, PeerMisbehaved};
use crate::event::ChannelEnd;
use crate::ids::ChannelKey;
use crate::time::Duration;
use crate::wire::frame::{DatagramHeader, Frames, write_datagram_header};

fn net() -> Net {
    Net::new(1, Weather::FINE, ConnectionConfig::default())
}

fn fragment(id: u32, index: u8, count: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 10];
    write_datagram_header(&mut frame, 1, DatagramHeader { id, index, count }, body.len());
    frame.extend_from_slice(body);
    frame
}

fn open(net: &mut Net, options: &ChannelOptions) -> (ChannelKey, ChannelKey) {
    let options = ChannelOptions { kind: ChannelKind::Datagrams, ..*options };
    let a = net.open(0, "d", &options);
    net.settle();
    (a, net.sides[1].mux.channel_by_id(1).unwrap())
}

fn stats(net: &Net, side: usize) -> crate::channel::MuxStats {
    let mux: &Mux = &net.sides[side].mux;
    mux.stats()
}

#[test]
fn many_in_one_packet() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Datagrams);
    for n in 0..18u8 {
        net.send(0, a, &[n; 64]);
    }
    let (pn, payload) = net.packet(0).unwrap();
    assert_eq!(Frames::new(&payload).count(), 18);
    net.deliver(1, pn, &payload);
    assert_eq!(net.seen(1, b).messages.len(), 18);
}

#[test]
fn all_sizes_arrive_whole() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Datagrams);
    let sizes = [0, 1, 1389, 1390, 1391, 1400, 2000, 30_000, 65_535, 65_536];
    for size in sizes {
        net.send(0, a, &pattern_bytes(size as u64, 0, size));
    }
    net.settle();
    let seen = &net.seen(1, b).messages;
    assert_eq!(seen.len(), sizes.len());
    for (message, size) in seen.iter().zip(sizes) {
        assert!(*message == pattern_bytes(size as u64, 0, size));
    }
    let large = net.sides[0].mux.send(net.now, a, &vec![0; 65_537], SendOptions::default());
    assert!(matches!(large, Err(ApiError::MessageTooLarge { .. })));
}

#[test]
fn fragments_in_any_order() {
    let whole = pattern_bytes(4, 0, 2500);
    let parts: Vec<_> = whole.chunks(1000).collect();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut net = net();
        let (_, b) = net.connect(ChannelKind::Datagrams);
        for i in order {
            let frame = fragment(7, i as u8, 3, parts[i]);
            receive(&mut net.sides[1], net.now, 100 + i as u64, &frame).unwrap();
            receive(&mut net.sides[1], net.now, 200 + i as u64, &frame[..]).unwrap();
        }
        assert!(net.seen(1, b).messages[0] == whole, "{order:?}");
        net.now += Duration::from_secs(2);
        net.settle();
        net.check();
        assert_eq!(net.seen(1, b).messages.len(), 1);
    }
}

#[test]
fn contradicting_fragments_break_the_protocol() {
    let bad = [
        [fragment(1, 0, 3, &[0; 100]), fragment(1, 1, 4, &[0; 100])],
        [fragment(1, 0, 3, &[0; 100]), fragment(1, 1, 3, &[0; 99])],
        [fragment(1, 0, 3, &[0; 100]), fragment(1, 2, 3, &[0; 101])],
        [fragment(1, 2, 3, &[0; 101]), fragment(1, 0, 3, &[0; 100])],
        [fragment(1, 0, 1, b"fine"), fragment(2, 3, 3, &[0; 100])],
        [fragment(1, 0, 1, b"fine"), fragment(2, 0, 3, &[])],
        [fragment(1, 0, 1, b"fine"), fragment(2, 0, 255, &[0; 1000])],
        [fragment(1, 254, 255, &[0; 300]), fragment(1, 0, 255, &[0; 300])],
    ];
    for [first, second] in bad {
        let mut net = net();
        net.connect(ChannelKind::Datagrams);
        receive(&mut net.sides[1], net.now, 100, &first).unwrap();
        let result = receive(&mut net.sides[1], net.now, 101, &second);
        assert!(
            matches!(result, Err(PeerMisbehaved::Malformed(_) | PeerMisbehaved::Limit(_))),
            "{result:?}"
        );
    }
}

#[test]
fn latest_drops_what_comes_late() {
    let mut net = net();
    let (_, b) = open(&mut net, &ChannelOptions { latest: true, ..ChannelOptions::default() });
    for (pn, id) in [(100, 5u32), (101, 4), (102, 6), (103, 6), (104, u32::MAX)] {
        let frame = fragment(id, 0, 1, &id.to_be_bytes());
        receive(&mut net.sides[1], net.now, pn, &frame).unwrap();
    }
    assert_eq!(net.seen(1, b).messages, [[0, 0, 0, 5], [0, 0, 0, 6]]);
    assert_eq!(stats(&net, 1).datagrams_not_delivered, 3);
}

/// docs/protocol.md, 9.2.
#[test]
fn what_the_opener_asks_for_holds_in_both_directions() {
    let mut net = net();
    let wanted = ChannelOptions { latest: true, expires_ms: 20, ..ChannelOptions::default() };
    let (a, b) = open(&mut net, &wanted);
    for (pn, id) in [(100, 5u32), (101, 4), (102, 6)] {
        let frame = fragment(id, 0, 1, &id.to_be_bytes());
        receive(&mut net.sides[0], net.now, pn, &frame).unwrap();
    }
    assert_eq!(net.seen(0, a).messages, [[0, 0, 0, 5], [0, 0, 0, 6]]);
    net.send(1, b, b"too old");
    net.now += Duration::from_millis(20);
    net.settle();
    assert_eq!(stats(&net, 1).datagrams_expired, 1);
}

#[test]
fn expired_messages_are_not_sent() {
    let mut net = net();
    let (a, b) = open(&mut net, &ChannelOptions { expires_ms: 20, ..ChannelOptions::default() });
    net.send(0, a, b"too old");
    net.now += Duration::from_millis(15);
    net.send(0, a, b"in time");
    net.now += Duration::from_millis(5);
    net.settle();
    assert_eq!(net.seen(1, b).messages, [b"in time"]);
    assert_eq!(stats(&net, 0).datagrams_expired, 1);
}

#[test]
fn the_oldest_go_when_the_queue_is_full() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Datagrams);
    for n in 0..2000u32 {
        let mut message = vec![0; 1000];
        message[..4].copy_from_slice(&n.to_be_bytes());
        net.send(0, a, &message);
    }
    net.settle();
    let seen = &net.seen(1, b).messages;
    assert!(seen.len() > 1000 && seen.len() < 1050, "{}", seen.len());
    assert_eq!(seen.last().unwrap()[..4], 1999u32.to_be_bytes());
    assert_eq!(stats(&net, 0).datagrams_dropped, 2000 - seen.len() as u64);
}

#[test]
fn incomplete_messages_are_bounded_and_forgotten() {
    let mut net = net();
    let (_, b) = net.connect(ChannelKind::Datagrams);
    for id in 0..5000 {
        let frame = fragment(id, (id % 40) as u8, 50, &[1; 1200]);
        receive(&mut net.sides[1], net.now, 100 + u64::from(id), &frame).unwrap();
        net.check();
    }
    net.settle();
    assert_eq!(net.sides[1].mux.timeout(), None);
    assert!(net.seen(1, b).messages.is_empty());
    assert!(stats(&net, 1).datagrams_not_delivered > 0);
    net.check();
}

#[test]
fn smaller_packets_in_the_middle_of_a_message() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Datagrams);
    net.send(0, a, &[1; 10_000]);
    net.send(0, a, b"behind it");
    let (pn, payload) = net.packet(0).unwrap();
    net.deliver(1, pn, &payload);
    net.weather.packet = 800;
    net.sides[0].mux.set_packet_payload(800);
    net.settle();
    assert_eq!(net.seen(1, b).messages, [b"behind it"]);
}

#[test]
fn eof_is_reliable() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Datagrams);
    net.send(0, a, b"last");
    net.finish(0, a);
    net.finish(1, b);
    let (pn, _) = net.packet(0).unwrap();
    net.lost(0, pn);
    net.settle();
    assert!(net.seen(1, b).eof && net.seen(1, b).messages.is_empty());
    assert_eq!(net.seen(0, a).closed, Some(ChannelEnd::Finished));
    assert_eq!(net.seen(1, b).closed, Some(ChannelEnd::Finished));
}

#[test]
fn early_datagrams_within_the_budget() {
    let config = ConnectionConfig { early_data: 2000, ..ConnectionConfig::default() };
    let mut net = Net::new(1, Weather::FINE, config);
    let options = ChannelOptions { kind: ChannelKind::Datagrams, ..ChannelOptions::default() };
    let a = net.open(0, "x", &options);
    net.send(0, a, &[1; 900]);
    let second = net.sides[0].mux.send(net.now, a, &[1; 1500], SendOptions::default());
    assert!(matches!(second, Err(ApiError::Dropped(_))));
    let receipt = net.sides[0].mux.send(
        net.now,
        a,
        b"x",
        SendOptions { receipt: Some(1), ..SendOptions::default() },
    );
    assert!(matches!(receipt, Err(ApiError::InvalidArgument { .. })));
    net.settle();
    assert_eq!(net.sides[1].sink.by_name("x").messages.len(), 1);
}

#[test]
fn weights_hold_for_datagrams_longer_than_a_turn() {
    let mut net = net();
    let keys = [4u8, 12].map(|weight| {
        let kind = ChannelKind::Datagrams;
        net.open(0, "w", &ChannelOptions { kind, weight, ..ChannelOptions::default() })
    });
    net.settle();
    for key in keys {
        for _ in 0..700 {
            net.send(0, key, &[0; 1300]);
        }
    }
    let mut counts = [0; 3];
    for _ in 0..400 {
        let (_, payload) = net.packet(0).unwrap();
        for frame in Frames::new(&payload) {
            counts[usize::from(frame.unwrap().channel)] += 1;
        }
    }
    assert!((90..110).contains(&counts[1]) && counts[2] > 280, "{counts:?}");
}
