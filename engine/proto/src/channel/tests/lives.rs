//! Ids that are used again, and very many channels.

use super::behaviour::stream_frame;
use super::net::{Net, Weather, pattern_bytes, receive};
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::event::ChannelEnd;
use crate::wire::frame::Frames;

fn options() -> ChannelOptions {
    ChannelOptions { kind: ChannelKind::Messages, no_delay: true, ..ChannelOptions::default() }
}

/// One life of the lowest id: a message each way and both EOFs.
fn live(net: &mut Net, n: u64) {
    net.sides[0].mux.rewind_ids();
    let name = format!("life {n}");
    let a = net.open(0, &name, &options());
    let early = net.rng.chance(70);
    let (there, back) = (pattern_bytes(n, 0, 700), pattern_bytes(!n, 0, 900));
    if early {
        net.send(0, a, &there);
        net.finish(0, a);
    }
    let mut answered = false;
    while net.sides[0].mux.info(a).is_some() {
        assert!(net.step(), "stuck in life {n}");
        let b = net.sides[1].sink.channels.iter().find(|(_, s)| s.name == name);
        if let Some((b, true)) = b.map(|(b, seen)| (*b, seen.ready)).filter(|_| !answered) {
            answered = true;
            net.send(1, b, &back);
            net.finish(1, b);
            if !early {
                net.send(0, a, &there);
                net.finish(0, a);
            }
        }
    }
    assert_eq!(net.seen(0, a).closed, Some(ChannelEnd::Finished));
    assert_eq!(net.seen(0, a).messages, [back]);
    let seen = net.sides[1].sink.by_name(&name);
    assert!(seen.messages == [there] && seen.eof);
}

#[test]
fn the_same_id_over_and_over() {
    for seed in 0..30 {
        let weather = Weather { stray: 15, duplicate: 10, ..Weather::BAD };
        let mut net = Net::new(seed, weather, ConnectionConfig::default());
        for n in 0..60 {
            live(&mut net, n);
        }
        net.settle();
        assert_eq!(net.sides[0].mux.count() + net.sides[1].mux.count(), 0);
    }
}

#[test]
fn many_lives_of_a_few_ids_at_once() {
    for seed in 0..20 {
        let weather = Weather { stray: 20, ..Weather::BAD };
        let mut net = Net::new(seed, weather, ConnectionConfig::default());
        let mut alive = Vec::new();
        let mut done = Vec::new();
        for n in 0..400u64 {
            net.sides[0].mux.rewind_ids();
            let name = format!("{n}");
            let a = net.open(0, &name, &options());
            net.send(0, a, &pattern_bytes(n, 0, 50));
            net.finish(0, a);
            alive.push((a, name));
            for _ in 0..net.rng.below(6) {
                net.step();
                // The acceptor closes as soon as it may.
                let ready: Vec<_> = net.sides[1].mux.keys().collect();
                for b in ready {
                    if net.seen(1, b).ready {
                        let _ = net.sides[1].mux.finish(net.now, b);
                    }
                }
            }
            let mux = &net.sides[0].mux;
            let (gone, rest) = alive.into_iter().partition(|(a, _)| mux.info(*a).is_none());
            alive = rest;
            done.append(&mut { gone });
        }
        while net.step() {
            for b in net.sides[1].mux.keys().collect::<Vec<_>>() {
                if net.seen(1, b).ready {
                    let _ = net.sides[1].mux.finish(net.now, b);
                }
            }
        }
        for (n, seen) in (0..400).map(|n| (n, net.sides[1].sink.by_name(&format!("{n}")))) {
            assert_eq!(seen.messages, [pattern_bytes(n, 0, 50)], "seed {seed}");
            assert_eq!(seen.closed, Some(ChannelEnd::Finished));
        }
        assert_eq!(net.sides[0].mux.count() + net.sides[1].mux.count(), 0);
    }
}

#[test]
fn a_delayed_packet_of_a_former_life() {
    let mut net = Net::new(1, Weather::FINE, ConnectionConfig::default());
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.send(0, a, b"old");
    net.finish(0, a);
    let (old_pn, old) = net.packet(0).unwrap();
    net.lost(0, old_pn);
    net.finish(1, b);
    net.settle();
    assert_eq!(net.sides[0].mux.count(), 0);
    // Before the next request it is held, after it it is ignored.
    receive(&mut net.sides[1], net.now, old_pn, &old).unwrap();
    net.sides[0].mux.rewind_ids();
    let a = net.open(0, "new", &options());
    net.send(0, a, b"new");
    net.settle();
    receive(&mut net.sides[1], net.now, old_pn, &old).unwrap();
    assert_eq!(net.sides[1].sink.by_name("new").messages, [b"new"]);
    assert!(!net.sides[1].sink.by_name("new").eof);
}

#[test]
fn a_request_ends_the_former_life() {
    let mut net = Net::new(1, Weather::FINE, ConnectionConfig::default());
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.finish(0, a);
    net.settle();
    // The acceptor's EOF arrives, its acknowledgement does not.
    net.finish(1, b);
    let (pn, payload) = net.packet(1).unwrap();
    receive(&mut net.sides[0], net.now, pn, &payload).unwrap();
    assert_eq!(net.seen(0, a).closed, Some(ChannelEnd::Finished));
    assert!(net.seen(1, b).closed.is_none());
    net.sides[0].mux.rewind_ids();
    let a = net.open(0, "next", &options());
    net.send(0, a, b"next");
    let (pn, payload) = net.packet(0).unwrap();
    net.deliver(1, pn, &payload);
    assert_eq!(net.seen(1, b).closed, Some(ChannelEnd::Finished));
    net.settle();
    assert_eq!(net.sides[1].sink.by_name("next").messages, [b"next"]);
}

#[test]
fn nothing_overtakes_the_request_of_an_id_with_stray_frames() {
    let mut net = Net::new(1, Weather::FINE, ConnectionConfig::default());
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.send(0, a, b"old");
    net.finish(0, a);
    net.finish(1, b);
    let (pn, _) = net.packet(0).unwrap();
    net.lost(0, pn);
    net.settle();
    net.sides[0].mux.rewind_ids();
    let a = net.open(0, "new", &options());
    net.send(0, a, b"waits for the acknowledgement of the request");
    let (pn, payload) = net.packet(0).unwrap();
    assert!(Frames::new(&payload).all(|f| f.unwrap().channel == 0));
    assert_eq!(net.packet(0), None);
    net.acked(0, pn);
    let (_, payload) = net.packet(0).unwrap();
    assert!(Frames::new(&payload).any(|f| f.unwrap().channel == 1));
}

#[test]
fn stray_frames_of_many_ids_are_bounded_and_harmless() {
    let mut net = Net::new(1, Weather::FINE, ConnectionConfig::default());
    let mut keys = Vec::new();
    for n in 0..3000 {
        keys.push(net.open(0, &format!("{n}"), &options()));
    }
    net.settle();
    for (a, id) in keys.into_iter().zip(1..) {
        let b = net.sides[1].mux.channel_by_id(id).unwrap();
        net.finish(0, a);
        net.finish(1, b);
    }
    net.settle();
    assert_eq!(net.sides[1].mux.count(), 0);
    for (n, id) in (1..3000).enumerate() {
        let payload = stream_frame(id, 0, &[0; 1000]);
        receive(&mut net.sides[1], net.now, 100_000 + n as u64, &payload).unwrap();
    }
    net.check();
    // A request whose early frames may have been dropped is declined, not cut.
    net.sides[0].mux.rewind_ids();
    let a = net.open_with_pn(0, "2", &options(), 99_000);
    let (pn, payload) = net.packet(0).unwrap();
    net.deliver(1, pn, &payload);
    net.settle();
    assert!(matches!(net.seen(0, a).closed, Some(ChannelEnd::Declined { .. })));
    // Time removes them altogether.
    net.settle();
    assert_eq!(net.sides[1].mux.timeout(), None);
}

/// 32,767 channels from each side at once, twice over: written to and closed.
#[test]
fn write_then_close_on_every_id_twice() {
    let weather = Weather { loss: 1, ..Weather::FINE };
    let mut net = Net::new(3, weather, ConnectionConfig::default());
    for round in 0..2u64 {
        for n in 0..32_767u64 {
            for side in 0..2 {
                let key = net.open(side, "", &options());
                let seed = n << 1 | side as u64 | round << 40;
                net.send(side, key, &pattern_bytes(seed, 0, 24));
                net.finish(side, key);
            }
        }
        let full = net.sides[0].mux.open(net.now, "", &options(), 0);
        assert!(full.is_err());
        assert_eq!(net.sides[0].mux.count(), 32_767);
        net.settle_fast(|net| {
            for side in 0..2 {
                let s = &mut net.sides[side];
                while let Some(key) = s.sink.ready.pop() {
                    s.mux.finish(net.now, key).ok();
                }
            }
        });
        for side in 0..2 {
            assert_eq!(net.sides[side].mux.count(), 0);
            let s = &mut net.sides[side];
            let mut got: Vec<_> =
                s.sink.channels.drain().flat_map(|(_, seen)| seen.messages).collect();
            got.sort();
            let mut want: Vec<_> = (0..32_767u64)
                .map(|n| pattern_bytes(n << 1 | (1 - side as u64) | round << 40, 0, 24))
                .collect();
            want.sort();
            assert!(got == want, "round {round}: bytes lost");
        }
    }
}
