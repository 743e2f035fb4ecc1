use super::*;
use crate::io::tests::{Got, meta, send, take};
use crate::io::{DriverConfig, MioDriver, SimConfig, SimDriver, SimNetwork};
use proptest::prelude::*;

const HERE: ([u8; 4], u16) = ([10, 0, 0, 1], 1000);
const THERE: ([u8; 4], u16) = ([10, 0, 0, 2], 2000);

struct Bench {
    network: SimNetwork,
    a: FaultDriver<SimDriver>,
    b: FaultDriver<SimDriver>,
}

/// Two wrapped drivers on a perfect simulated network.
fn bench(out: &FaultConfig, back: &FaultConfig) -> Bench {
    let network = SimNetwork::new(&SimConfig::default());
    let driver = |address: ([u8; 4], u16)| {
        let mut driver = network.driver(&DriverConfig::default()).unwrap();
        driver.bind(address.into()).unwrap();
        driver
    };
    let (a, b) = (FaultDriver::new(driver(HERE), out), FaultDriver::new(driver(THERE), back));
    Bench { network, a, b }
}

/// Packet `i` of a run: its number, then bytes that follow from it.
fn packet(i: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![i as u8; len];
    bytes[..4].copy_from_slice(&i.to_be_bytes());
    bytes
}

impl Bench {
    /// Sends `count` packets in trains, a train every millisecond; returns what arrived, in order.
    fn run(&mut self, count: u32, train: u32, len: usize) -> Vec<(u128, Vec<u8>)> {
        let start = self.network.now();
        let (mut sent, mut arrived, mut idle) = (0, Vec::new(), 0);
        let mut batch = Batch::default();
        while idle < 1000 {
            if sent < count {
                let n = train.min(count - sent);
                let bytes: Vec<u8> = (sent..sent + n).flat_map(|i| packet(i, len)).collect();
                send(&mut self.a, meta(0, THERE.into(), bytes.len(), len), &bytes);
                sent += n;
            }
            self.a.poll(Some(Duration::ZERO), &mut batch).unwrap();
            assert!(batch.rx.is_empty() && batch.failures.is_empty());
            loop {
                self.b.poll(Some(Duration::ZERO), &mut batch).unwrap();
                if batch.rx.is_empty() {
                    break;
                }
                let mut got: Vec<Got> = Vec::new();
                take(&mut self.b, &mut batch, &mut got);
                let at = (self.network.now() - start).as_millis();
                for item in got {
                    arrived.extend(item.bytes.chunks(item.stride).map(|p| (at, p.to_vec())));
                }
                idle = 0;
            }
            self.network.advance(Duration::from_millis(1));
            idle += 1;
        }
        arrived
    }
}

fn faulty(outbound: Faults) -> FaultConfig {
    FaultConfig { seed: 7, outbound, ..FaultConfig::default() }
}

fn numbers(arrived: &[(u128, Vec<u8>)]) -> Vec<u32> {
    arrived.iter().map(|(_, p)| u32::from_be_bytes(*p.first_chunk().unwrap())).collect()
}

#[test]
fn without_faults_trains_pass_whole() {
    let mut bench = bench(&FaultConfig::default(), &FaultConfig::default());
    let arrived = bench.run(640, 64, 100);
    assert_eq!(numbers(&arrived), (0..640).collect::<Vec<_>>());
    assert_eq!(bench.b.stats().rx_items, 10);
    assert_eq!(bench.a.stats().tx_gso, 10);
}

#[test]
fn loss_hits_packets_inside_trains() {
    for inbound in [false, true] {
        let faults = Faults { loss: 0.1, ..Faults::NONE };
        let quiet = FaultConfig::default();
        let config = FaultConfig { seed: 7, inbound: faults, ..quiet.clone() };
        let mut bench =
            if inbound { bench(&quiet, &config) } else { bench(&faulty(faults), &quiet) };
        let arrived = numbers(&bench.run(6400, 64, 100));
        assert!((5600..5900).contains(&arrived.len()), "{}", arrived.len());
        assert!(arrived.is_sorted(), "what is left is in order");
        // Not whole trains.
        let trains: std::collections::HashSet<u32> = arrived.iter().map(|n| n / 64).collect();
        assert_eq!(trains.len(), 100);
        let stats = if inbound { bench.b.fault_stats().1 } else { bench.a.fault_stats().0 };
        assert_eq!((stats.packets, stats.lost), (6400, 6400 - arrived.len() as u64));
    }
}

#[test]
fn delay_keeps_the_order_and_reordering_does_not() {
    let delay = Faults { delay: Duration::from_millis(50), ..Faults::NONE };
    let arrived = bench(&faulty(delay), &FaultConfig::default()).run(100, 10, 100);
    assert_eq!(numbers(&arrived), (0..100).collect::<Vec<_>>());
    for (i, (at, _)) in arrived.iter().enumerate() {
        assert_eq!(*at, 50 + i as u128 / 10);
    }
    let reorder = Faults { reorder: 0.1, ..Faults::NONE };
    let mut arrived = numbers(&bench(&faulty(reorder), &FaultConfig::default()).run(1000, 10, 100));
    assert!(!arrived.is_sorted());
    arrived.sort_unstable();
    assert_eq!(arrived, (0..1000).collect::<Vec<_>>());
}

#[test]
fn duplicates_and_damage() {
    let faults = Faults { duplicate: 0.2, corrupt: 0.1, ..Faults::NONE };
    let mut bench = bench(&faulty(faults), &FaultConfig::default());
    let arrived = bench.run(2000, 20, 100);
    let stats = bench.a.fault_stats().0;
    assert_eq!(arrived.len() as u64, 2000 + stats.duplicated);
    let intact = |p: &Vec<u8>| *p == packet(u32::from_be_bytes(*p.first_chunk().unwrap()), 100);
    let broken = arrived.iter().filter(|(_, p)| !intact(p)).count() as u64;
    assert!(broken >= stats.corrupted * 9 / 10 && stats.corrupted > 150);
}

#[test]
fn rate_and_path_mtu() {
    // 100 packets of 1,000 bytes at 8 Mb/s: one a millisecond.
    let faults = Faults { rate: Some(8_000_000), queue: 1_000_000, ..Faults::NONE };
    let arrived = bench(&faulty(faults), &FaultConfig::default()).run(100, 50, 1000);
    assert_eq!(arrived.len(), 100);
    assert!((99..=101).contains(&arrived.last().unwrap().0));
    let faults = Faults { max_packet: Some(999), ..Faults::NONE };
    let arrived = bench(&faulty(faults), &FaultConfig::default()).run(100, 50, 1000);
    assert!(arrived.is_empty());
}

#[test]
fn only_the_named_addresses_are_hit() {
    let config = FaultConfig {
        only: vec![([10, 0, 0, 3], 0).into()],
        ..faulty(Faults { loss: 1.0, ..Faults::NONE })
    };
    assert_eq!(bench(&config, &FaultConfig::default()).run(100, 10, 50).len(), 100);
    let config = FaultConfig { only: vec![(THERE.0, 0).into()], ..config };
    assert_eq!(bench(&config, &FaultConfig::default()).run(100, 10, 50).len(), 0);
}

#[test]
fn works_around_a_real_driver() {
    let faults = Faults { delay: Duration::from_millis(5), loss: 0.5, ..Faults::NONE };
    let make = || MioDriver::new(&DriverConfig::default()).unwrap();
    let config = FaultConfig { seed: 3, inbound: faults, ..faulty(faults) };
    let (mut a, mut b) = (FaultDriver::new(make(), &config), make());
    let socket = || UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    a.add_socket(socket()).unwrap();
    let at_b = socket();
    let to = at_b.local_addr().unwrap();
    b.add_socket(at_b).unwrap();
    let start = Instant::now();
    send(&mut a, meta(0, to, 64_000, 1000), &vec![1; 64_000]);
    let (mut batch, mut got) = (Batch::default(), Vec::new());
    while start.elapsed() < Duration::from_millis(300) {
        a.poll(Some(Duration::from_millis(20)), &mut batch).unwrap();
        b.poll(Some(Duration::ZERO), &mut batch).unwrap();
        take(&mut b, &mut batch, &mut got);
    }
    let packets: usize = got.iter().map(|g| g.bytes.len() / 1000).sum();
    assert_eq!(packets as u64, 64 - a.fault_stats().0.lost);
    assert!((10..54).contains(&packets));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the faults: nothing arrives that was not sent, nothing more often than twice, and
    /// the same seed gives the same bytes at the same times.
    #[test]
    fn properties(
        seed: u64, loss in 0.0..0.5f64, duplicate in 0.0..0.5f64, reorder in 0.0..0.5f64,
        jitter in 0u64..20, train in 1u32..64, len in 4usize..1000,
    ) {
        let faults = Faults {
            loss, duplicate, reorder, jitter: Duration::from_millis(jitter), ..Faults::NONE
        };
        let config = FaultConfig { seed, outbound: faults, inbound: faults, only: vec![] };
        let run = || {
            let mut bench = bench(&config, &config);
            let arrived = bench.run(200, train, len);
            (arrived, bench.a.fault_stats(), bench.b.fault_stats())
        };
        let (arrived, (out, _), (_, back)) = run();
        let mut counts = [0u8; 200];
        for (_, p) in &arrived {
            let number = u32::from_be_bytes(*p.first_chunk().unwrap());
            prop_assert_eq!(p, &packet(number, len));
            counts[number as usize] += 1;
        }
        prop_assert!(counts.iter().all(|c| *c <= 4));
        let expected = 200 - out.lost + out.duplicated - back.lost + back.duplicated;
        prop_assert_eq!(arrived.len() as u64, expected);
        prop_assert_eq!(arrived, run().0);
    }
}
