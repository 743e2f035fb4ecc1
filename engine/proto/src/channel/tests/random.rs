//! Random traffic over bad networks.

use super::net::{Net, Rng, Weather, pattern_bytes};
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::endpoint::SendOptions;
use crate::event::ChannelEnd;
use crate::ids::ChannelKey;

/// What one direction of one channel carries.
struct Plan {
    side: usize,
    key: ChannelKey,
    kind: ChannelKind,
    seed: u64,
    /// Sizes of the sends to come, last first.
    sends: Vec<usize>,
    sent: Vec<Vec<u8>>,
    finished: bool,
}

fn sizes(rng: &mut Rng, kind: ChannelKind, most: u64) -> Vec<usize> {
    let n = 1 + rng.below(12);
    (0..n)
        .map(|_| {
            let scale = 1 << rng.below(most.ilog2().into());
            let size = rng.below(scale.max(2) * 2).min(most);
            if kind == ChannelKind::Datagrams { size.min(60_000) as usize } else { size as usize }
        })
        .collect()
}

fn run(seed: u64, weather: Weather, channels: u64, most: u64, config: ConnectionConfig) {
    println!("seed {seed}");
    let in_steps = config.manual_credit && seed % 2 == 1;
    let mut net = Net::new(seed, weather, config);
    net.in_steps = in_steps;
    let mut rng = Rng(seed ^ 0xABCD);
    let mut plans = Vec::new();
    for n in 0..channels {
        let side = rng.below(2) as usize;
        let kind = match rng.below(3) {
            0 => ChannelKind::Bytes,
            1 => ChannelKind::Messages,
            _ => ChannelKind::Datagrams,
        };
        let options = ChannelOptions {
            kind,
            priority: rng.below(8) as u8,
            weight: 1 + rng.below(255) as u8,
            no_delay: rng.chance(50),
            wait_for_answer: rng.chance(20),
            ..ChannelOptions::default()
        };
        let key = net.open(side, &format!("n{n}"), &options);
        let sends = sizes(&mut rng, kind, most);
        plans.push(Plan { side, key, kind, seed: n, sends, sent: vec![], finished: false });
        if rng.chance(30) {
            advance(&mut net, &mut plans, &mut rng);
        }
    }
    let mut answered = false;
    let mut idle = 0;
    loop {
        advance(&mut net, &mut plans, &mut rng);
        let more = net.step();
        if !answered
            && net.sides.iter().map(|s| s.sink.channels.len()).sum::<usize>() as u64 == 2 * channels
        {
            answered = true;
            answer(&net, &mut plans, &mut rng, most);
        }
        idle = if more { 0 } else { idle + 1 };
        if idle > 2 && answered && plans.iter().all(|p| p.finished) {
            break;
        }
        assert!(idle < 100, "stuck: seed {seed}");
    }
    verify(&net, &plans, seed);
}

/// The acceptors send too.
fn answer(net: &Net, plans: &mut Vec<Plan>, rng: &mut Rng, most: u64) {
    for n in 0..plans.len() {
        let plan = &plans[n];
        let side = 1 - plan.side;
        let name = format!("n{}", plan.seed);
        let (key, _) = net.sides[side].sink.channels.iter().find(|(_, s)| s.name == name).unwrap();
        let sends = sizes(rng, plan.kind, most);
        let (key, kind, seed) = (*key, plan.kind, plan.seed + (1 << 32));
        plans.push(Plan { side, key, kind, seed, sends, sent: vec![], finished: false });
    }
}

fn advance(net: &mut Net, plans: &mut [Plan], rng: &mut Rng) {
    for plan in plans {
        if plan.finished || rng.chance(50) {
            continue;
        }
        let mux = &mut net.sides[plan.side].mux;
        if mux.info(plan.key).is_none_or(|info| info.phase == crate::channel::ChannelPhase::Offered)
        {
            continue;
        }
        match plan.sends.last().copied() {
            None => {
                mux.finish(net.now, plan.key).unwrap();
                plan.finished = true;
            }
            Some(len) => {
                let data = pattern_bytes(plan.seed, plan.sent.len() as u64 * 31, len);
                match mux.send(net.now, plan.key, &data, SendOptions::default()) {
                    Ok(()) => {
                        plan.sent.push(data);
                        plan.sends.pop();
                    }
                    Err(crate::error::ApiError::Dropped(_)) => {
                        plan.sends.pop();
                    }
                    Err(crate::error::ApiError::WouldBlock(_)) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        }
    }
}

fn verify(net: &Net, plans: &[Plan], seed: u64) {
    for plan in plans {
        let name = format!("n{}", plan.seed & 0xFFFF_FFFF);
        let seen = net.sides[1 - plan.side].sink.by_name(&name);
        assert_eq!(seen.closed, Some(ChannelEnd::Finished), "seed {seed} {name}");
        assert!(seen.eof);
        match plan.kind {
            ChannelKind::Bytes => assert!(seen.bytes == plan.sent.concat(), "seed {seed} {name}"),
            ChannelKind::Messages => assert!(seen.messages == plan.sent, "seed {seed} {name}"),
            ChannelKind::Datagrams => {
                for message in &seen.messages {
                    assert!(plan.sent.contains(message), "seed {seed} {name}: corrupt datagram");
                }
                let lossless = net.weather.loss == 0 && net.weather.jitter.as_nanos() == 0;
                assert!(!lossless || seen.messages.len() == plan.sent.len());
            }
        }
    }
    for s in &net.sides {
        assert_eq!(s.mux.count(), 0, "seed {seed}: channels left");
        assert!(!s.mux.has_unacked_reliable());
        assert_eq!(s.mux.timeout(), None);
    }
}

fn small_config() -> ConnectionConfig {
    ConnectionConfig {
        channel_window: 4096,
        channel_window_max: 16384,
        max_channels: 600,
        receive_budget: 256 << 10,
        max_message: 64 << 10,
        reassembly_budget: 64 << 10,
        early_data: 8 << 10,
        channel_send_buffer: 128 << 10,
        send_buffer: 1 << 20,
        datagram_reassembly: 128 << 10,
        ..ConnectionConfig::default()
    }
}

#[test]
fn one_channel_over_good_and_bad_networks() {
    for seed in 0..60 {
        run(seed, Weather::FINE, 1, 1 << 18, ConnectionConfig::default());
        run(seed, Weather::BAD, 1, 1 << 18, ConnectionConfig::default());
    }
}

#[test]
fn many_channels_over_good_and_bad_networks() {
    for seed in 0..8 {
        run(seed, Weather::FINE, 200, 1 << 14, ConnectionConfig::default());
        run(seed, Weather::BAD, 200, 1 << 14, ConnectionConfig::default());
    }
}

#[test]
fn small_budgets_over_bad_networks() {
    for seed in 0..40 {
        run(seed, Weather::BAD, 20, 60_000, small_config());
    }
}

#[test]
fn manual_credit_over_bad_networks() {
    for seed in 0..80 {
        let config = ConnectionConfig { manual_credit: true, ..small_config() };
        run(seed, Weather::BAD, 20, 60_000, config);
    }
}
