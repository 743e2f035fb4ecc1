//! Everything at once: short lives of few ids, ended in every way, over a network that loses,
//! delays and repeats.

use super::net::{Net, Rng, Weather, pattern_bytes};
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::endpoint::SendOptions;
use crate::event::ChannelEnd;
use crate::ids::ChannelKey;
use std::collections::HashMap;

/// What was sent on one direction of the channel of this name.
#[derive(Default)]
struct Sent {
    messages: Vec<Vec<u8>>,
    finished: bool,
}

#[derive(Default)]
struct Log {
    /// By the name of the channel and the side that sent.
    sent: HashMap<(String, usize), Sent>,
    declined: u32,
}

fn kind_of(name: &str) -> ChannelKind {
    match name.len() % 3 {
        0 => ChannelKind::Bytes,
        1 => ChannelKind::Messages,
        _ => ChannelKind::Datagrams,
    }
}

fn act(net: &mut Net, rng: &mut Rng, side: usize, key: ChannelKey, log: &mut Log) {
    let now = net.now;
    let s = &mut net.sides[side];
    let name = s.sink.channels[&key].name.clone();
    let sent = log.sent.entry((name.clone(), side)).or_default();
    match rng.below(40) {
        0..=9 if !sent.finished => {
            let len = rng.skewed(14) as usize;
            let data = pattern_bytes(rng.next(), 0, len);
            if s.mux.send(now, key, &data, SendOptions::default()).is_ok() {
                sent.messages.push(data);
            }
        }
        10..=13 if s.mux.finish(now, key).is_ok() => sent.finished = true,
        14 if rng.chance(8) => drop(s.mux.reset(now, key, 1)),
        15 if rng.chance(8) => drop(s.mux.stop(now, key, 2)),
        16..=20 => drop(s.mux.flush(now, key)),
        _ => {}
    }
}

fn answer(net: &mut Net, rng: &mut Rng, side: usize, log: &mut Log) {
    let s = &mut net.sides[side];
    for (key, ..) in std::mem::take(&mut s.sink.requests) {
        if rng.chance(10) {
            if s.mux.decline(net.now, key, 9, "", s.next_pn).is_ok() {
                log.declined += 1;
            }
        } else {
            let options = ChannelOptions { no_delay: rng.chance(50), ..ChannelOptions::default() };
            let _ = s.mux.accept(net.now, key, &options, s.next_pn);
        }
    }
}

fn verify(net: &Net, log: &Log, seed: u64) -> usize {
    let mut finished = 0;
    for side in 0..2 {
        for (key, seen) in &net.sides[side].sink.channels {
            let empty = Sent::default();
            let sent = log.sent.get(&(seen.name.clone(), 1 - side)).unwrap_or(&empty);
            let whole = seen.eof;
            match kind_of(&seen.name) {
                ChannelKind::Bytes => {
                    let all = sent.messages.concat();
                    assert!(all.starts_with(&seen.bytes), "seed {seed} {key:?}");
                    assert!(!whole || all.len() == seen.bytes.len(), "seed {seed} {key:?}");
                }
                ChannelKind::Messages => {
                    assert!(sent.messages.starts_with(&seen.messages), "seed {seed} {key:?}");
                    let complete = sent.messages.len() == seen.messages.len();
                    assert!(!whole || complete, "seed {seed} {key:?}");
                }
                ChannelKind::Datagrams => {
                    assert!(seen.messages.iter().all(|m| sent.messages.contains(m)));
                }
            }
            if seen.closed == Some(ChannelEnd::Finished) {
                assert!(seen.eof && sent.finished);
                finished += 1;
            }
        }
    }
    finished
}

fn run(seed: u64, manual_credit: bool) -> usize {
    // Shown when it fails.
    println!("seed {seed}");
    let config = ConnectionConfig {
        channel_window: 4096,
        channel_window_max: 32 << 10,
        max_channels: 40,
        receive_budget: 96 << 10,
        max_message: 20 << 10,
        reassembly_budget: 30 << 10,
        early_data: 16 << 10,
        channel_send_buffer: 64 << 10,
        send_buffer: 200 << 10,
        manual_credit,
        ..ConnectionConfig::default()
    };
    let mut rng = Rng(seed ^ 0x5EED);
    let weather = Weather {
        loss: rng.below(25),
        stray: rng.below(25),
        duplicate: rng.below(20),
        packet: 200 + rng.below(1300) as usize,
        ..Weather::BAD
    };
    let mut net = Net::new(seed, weather, config);
    net.accept = None;
    let mut log = Log::default();
    let mut lives = 0;
    for round in 0..600 {
        for side in 0..2 {
            if round < 500 && rng.chance(15) {
                lives += 1;
                let name = "x".repeat(lives);
                let options = ChannelOptions {
                    kind: kind_of(&name),
                    priority: rng.below(8) as u8,
                    no_delay: rng.chance(50),
                    wait_for_answer: rng.chance(20),
                    ..ChannelOptions::default()
                };
                net.sides[side].mux.rewind_ids();
                let s = &mut net.sides[side];
                if let Ok(key) = s.mux.open(net.now, &name, &options, s.next_pn) {
                    s.sink.channels.entry(key).or_default().name = name;
                }
            }
            answer(&mut net, &mut rng, side, &mut log);
            let mut keys: Vec<_> = net.sides[side].mux.keys().collect();
            keys.sort();
            for key in keys {
                act(&mut net, &mut rng, side, key, &mut log);
            }
        }
        net.step();
    }
    // Everybody finishes; then nothing must be left.
    for _ in 0..20 {
        for side in 0..2 {
            answer(&mut net, &mut rng, side, &mut log);
            for key in net.sides[side].mux.keys().collect::<Vec<_>>() {
                let name = net.sides[side].sink.channels[&key].name.clone();
                if net.sides[side].mux.finish(net.now, key).is_ok() {
                    log.sent.entry((name, side)).or_default().finished = true;
                }
            }
        }
        net.settle();
    }
    for side in 0..2 {
        let mux = &net.sides[side].mux;
        assert_eq!(mux.count(), 0, "seed {seed}: {:?}", mux.keys().collect::<Vec<_>>());
        assert!(!mux.has_unacked_reliable() && mux.timeout().is_none());
    }
    verify(&net, &log, seed)
}

#[test]
fn chaos() {
    let seeds = std::env::var("TRUNKLINE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let finished: usize = (0..seeds).map(|seed| run(seed, seed % 3 == 0)).sum();
    assert!(finished as u64 > seeds * 10, "{finished}");
}
