//! The model, with exact expectations.

use std::time::Duration;
use trunkline_link::{Burst, Counters, Fate, Link, LinkConfig};

const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn link(config: &LinkConfig, seed: u64) -> Link<u64> {
    Link::new(config, seed).unwrap()
}

/// Sends `count` packets of 1500 bytes, one every `gap`, and returns what became of them.
fn send(link: &mut Link<u64>, count: u64, gap: Duration) -> Vec<Fate> {
    (0..count).map(|n| link.send(gap * n as u32, 1500, n)).collect()
}

/// Everything that arrives, with its time.
fn drain(link: &mut Link<u64>) -> Vec<(Duration, u64)> {
    let mut all = Vec::new();
    while let Some(at) = link.next_at() {
        if let Some(before) = at.checked_sub(Duration::from_nanos(1)) {
            assert_eq!(link.receive(before), None, "before its time");
        }
        all.push((at, link.receive(at).unwrap()));
    }
    all
}

#[test]
fn without_settings_packets_pass_at_once() {
    let mut link = link(&LinkConfig::default(), 1);
    for n in 0..100 {
        assert_eq!(link.send(us(n), 100, n), Fate::Sent(us(n)));
        assert_eq!(link.receive(us(n)), Some(n));
    }
    assert_eq!((link.next_at(), link.receive(us(1000)), link.under_way()), (None, None, 0));
}

#[test]
fn the_delay_is_exact() {
    let mut link = link(&LinkConfig { delay: us(10_000), ..LinkConfig::default() }, 1);
    send(&mut link, 1000, us(7));
    assert_eq!(link.under_way(), 1000);
    let expected: Vec<_> = (0..1000).map(|n| (us(10_000 + 7 * n), n)).collect();
    assert_eq!(drain(&mut link), expected);
}

#[test]
fn the_rate_is_exact_and_nothing_adds_up() {
    // 1500 bytes at 7 Mbit/s are 1,714,285.714… ns.
    let config = LinkConfig { rate: Some(7_000_000), ..LinkConfig::default() };
    let mut link = link(&config, 1);
    for n in 0..70_000u64 {
        let end = (n + 1) * 12_000 * 1_000_000_000 / 7_000_000;
        let fate = link.send(Duration::ZERO, 1500, n);
        assert_eq!(fate, Fate::Sent(Duration::from_nanos(end)));
    }
    // 70,000 packets of 12,000 bits at 7 Mbit/s.
    assert_eq!(drain(&mut link).last(), Some(&(Duration::from_secs(120), 69_999)));
    // After a pause the line begins anew.
    let later = Duration::from_secs(200);
    assert_eq!(link.send(later, 875, 0), Fate::Sent(later + us(1000)));
}

#[test]
fn a_slow_line_makes_packets_wait_in_front_of_the_delay() {
    let config = LinkConfig { rate: Some(12_000_000), delay: us(5000), ..LinkConfig::default() };
    let mut link = link(&config, 1);
    let fates = send(&mut link, 3, us(400));
    // A millisecond each on the line.
    assert_eq!(fates, [6000, 7000, 8000].map(|at| Fate::Sent(us(at))));
}

#[test]
fn the_queue_holds_its_limit_and_drops_at_the_tail() {
    let config = LinkConfig { rate: Some(12_000_000), queue: Some(4500), ..LinkConfig::default() };
    let mut link = link(&config, 1);
    let fates = send(&mut link, 5, Duration::ZERO);
    assert_eq!(fates[..3], [1000, 2000, 3000].map(|at| Fate::Sent(us(at))));
    assert_eq!(fates[3..], [Fate::Dropped; 2]);
    // A packet is on the line until its last bit has left.
    assert_eq!(link.send(us(999), 1500, 5), Fate::Dropped);
    assert_eq!(link.send(us(1000), 1500, 6), Fate::Sent(us(4000)));
    // Smaller ones find room where larger ones do not.
    assert_eq!(link.send(us(2500), 1501, 7), Fate::Dropped);
    assert_eq!(link.send(us(2500), 150, 8), Fate::Sent(us(4100)));
    // A line that does nothing takes a packet larger than the queue.
    assert_eq!(link.send(us(5000), 9000, 9), Fate::Sent(us(11_000)));
    let arrived: Vec<u64> = drain(&mut link).into_iter().map(|(_, n)| n).collect();
    assert_eq!(arrived, [0, 1, 2, 6, 8, 9]);
    let expected = Counters {
        packets: 10,
        bytes: 5 * 1500 + 1500 + 1500 + 1501 + 150 + 9000,
        delivered: 6,
        delivered_bytes: 4 * 1500 + 150 + 9000,
        dropped: 4,
        queue_most: 9000,
        ..Counters::default()
    };
    assert_eq!(*link.counters(), expected);
}

#[test]
fn the_loss_rate_is_what_was_asked_for() {
    for (loss, seed) in [(0.001, 1), (0.01, 2), (0.05, 3), (0.5, 4)] {
        let mut link = link(&LinkConfig { loss, ..LinkConfig::default() }, seed);
        let count = 400_000;
        send(&mut link, count, us(1));
        let counters = *link.counters();
        let share = counters.lost as f64 / count as f64;
        // Four standard deviations.
        let tolerance = 4.0 * (loss * (1.0 - loss) / count as f64).sqrt();
        assert!((share - loss).abs() < tolerance, "{share} of {loss}");
        assert_eq!(drain(&mut link).len() as u64, count - counters.lost);
        assert_eq!(counters.lost_in_bursts + counters.dropped, 0);
    }
    let mut all = link(&LinkConfig { loss: 1.0, ..LinkConfig::default() }, 1);
    assert_eq!(send(&mut all, 9, us(1)), [Fate::Lost; 9]);
}

#[test]
fn bursts_have_the_right_share_and_length() {
    let burst = Burst { begin: 0.005, end: 0.25 };
    let mut link = link(&LinkConfig { burst: Some(burst), ..LinkConfig::default() }, 7);
    let fates = send(&mut link, 1_000_000, us(1));
    let lost = fates.iter().filter(|fate| **fate == Fate::LostInBurst).count();
    assert_eq!(lost as u64, link.counters().lost_in_bursts);
    assert_eq!(link.counters().lost, 0);
    let share = lost as f64 / 1e6;
    assert!((share - burst.loss()).abs() < 0.001, "{share} of {}", burst.loss());
    let bursts = fates.chunk_by(|a, b| a == b || matches!((a, b), (Fate::Sent(_), Fate::Sent(_))));
    let lengths: Vec<_> = bursts.filter(|b| b[0] == Fate::LostInBurst).map(<[Fate]>::len).collect();
    let mean = lost as f64 / lengths.len() as f64;
    assert!((mean - 4.0).abs() < 0.15, "{mean}");
    assert!(lengths.iter().any(|n| *n > 10) && lengths.contains(&1));
}

#[test]
fn a_seed_is_a_run() {
    let config = LinkConfig {
        delay: us(2000),
        jitter: us(500),
        loss: 0.1,
        burst: Some(Burst { begin: 0.01, end: 0.2 }),
        rate: Some(100_000_000),
        queue: Some(30_000),
        ..LinkConfig::default()
    };
    let run_of = |config: &LinkConfig, seed| send(&mut link(config, seed), 5000, us(100));
    let run = |seed| run_of(&config, seed);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    // Which packets are lost follows from the seed and their numbers, not from other settings.
    let lost = |fates: &[Fate]| -> Vec<usize> {
        (0..fates.len()).filter(|n| matches!(fates[*n], Fate::Lost | Fate::LostInBurst)).collect()
    };
    let other = LinkConfig { rate: None, queue: None, jitter: us(0), ..config.clone() };
    let wide = LinkConfig { queue: None, ..config.clone() };
    assert_eq!(lost(&run_of(&other, 1)), lost(&run_of(&wide, 1)));
}

#[test]
fn losses_have_used_the_line() {
    let config = LinkConfig { loss: 0.5, rate: Some(12_000_000), ..LinkConfig::default() };
    let mut link = link(&config, 1);
    for (n, fate) in send(&mut link, 100, Duration::ZERO).into_iter().enumerate() {
        assert!(matches!(fate, Fate::Lost) || fate == Fate::Sent(us(1000 * (n as u64 + 1))));
    }
}

#[test]
fn jitter_stays_in_its_bounds_and_keeps_the_order() {
    let config = LinkConfig { delay: us(5000), jitter: us(1000), ..LinkConfig::default() };
    let mut link = link(&config, 3);
    // Far apart: nothing waits for another packet.
    send(&mut link, 2000, us(5000));
    let delays: Vec<Duration> =
        drain(&mut link).into_iter().map(|(at, n)| at.abs_diff(us(5000 * n))).collect();
    let (min, max) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
    assert!(min >= us(4000) && min < us(4010), "{min:?}");
    assert!(max <= us(6000) && max > us(5990), "{max:?}");
    let mean = delays.iter().sum::<Duration>() / 2000;
    assert!(mean.abs_diff(us(5000)) < us(50), "{mean:?}");

    let mut dense = Link::new(&config, 3).unwrap();
    send(&mut dense, 2000, us(10));
    let arrived = drain(&mut dense);
    assert!(arrived.is_sorted_by_key(|(at, n)| (*at, *n)), "order is kept");
    assert!(arrived.iter().all(|(at, n)| *at <= us(10 * n + 6000)));
}

#[test]
fn packets_overtake_where_that_was_asked_for() {
    let config =
        LinkConfig { delay: us(5000), jitter: us(1000), reorder: true, ..LinkConfig::default() };
    let mut link = link(&config, 3);
    send(&mut link, 2000, us(10));
    let arrived = drain(&mut link);
    assert!(arrived.is_sorted_by_key(|(at, _)| *at));
    assert!(!arrived.is_sorted_by_key(|(_, n)| *n));
    let mut numbers: Vec<u64> = arrived.into_iter().map(|(_, n)| n).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..2000), "each arrives once");
}
