use super::*;
use crate::io::tests::{Got, meta, send, take};

fn address(last: u8, port: u16) -> SocketAddr {
    ([10, 0, 0, last], port).into()
}

fn network(config: &SimConfig) -> (SimNetwork, SimDriver, SimDriver) {
    let network = SimNetwork::new(config);
    let mut a = network.driver(&DriverConfig::default()).unwrap();
    let mut b = network.driver(&DriverConfig::default()).unwrap();
    a.bind(address(1, 1)).unwrap();
    b.bind(address(2, 2)).unwrap();
    (network, a, b)
}

fn poll(d: &mut SimDriver) -> Vec<Got> {
    let (mut batch, mut got) = (Batch::default(), Vec::new());
    loop {
        d.poll(Some(Duration::ZERO), &mut batch).unwrap();
        take(d, &mut batch, &mut got);
        if !batch.more {
            return got;
        }
    }
}

#[test]
fn datagrams_reach_their_address_merged_or_not() {
    for gro in [true, false] {
        let (_, mut a, mut b) = network(&SimConfig { gro, ..SimConfig::default() });
        send(&mut a, TxMeta { ecn: 3, ..meta(0, address(2, 2), 950, 100) }, &[5; 950]);
        send(&mut a, meta(0, address(9, 9), 10, 10), &[6; 10]);
        send(&mut a, meta(0, address(2, 2), 0, 0), &[]);
        a.flush().unwrap();
        let got = poll(&mut b);
        assert_eq!(got.len(), if gro { 2 } else { 11 });
        assert_eq!(got.iter().map(|g| g.bytes.len()).sum::<usize>(), 950);
        assert_eq!((got[0].stride, got[0].ecn, got[0].remote), (100, 3, address(1, 1)));
        assert_eq!(got[0].local, Some(address(2, 2).ip()));
    }
}

#[test]
fn time_passes_only_when_told() {
    let faults = Faults { delay: Duration::from_millis(30), ..Faults::NONE };
    let (network, mut a, mut b) = network(&SimConfig { faults, ..SimConfig::default() });
    send(&mut a, meta(0, address(2, 2), 10, 10), &[1; 10]);
    a.flush().unwrap();
    assert_eq!(network.next_arrival(), Some(network.now() + Duration::from_millis(30)));
    let start = b.now();
    b.poll(None, &mut Batch::default()).unwrap();
    assert!(poll(&mut b).is_empty());
    network.advance(Duration::from_millis(29));
    assert!(poll(&mut b).is_empty());
    network.advance(Duration::from_millis(1));
    assert_eq!(poll(&mut b).len(), 1);
    assert_eq!(b.now() - start, Duration::from_millis(30));
}

/// A conversation of two drivers under bad conditions, as one long record.
fn record(seed: u64) -> Vec<(Duration, Got)> {
    let faults = Faults {
        loss: 0.1,
        duplicate: 0.05,
        reorder: 0.1,
        corrupt: 0.02,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(5),
        ..Faults::NONE
    };
    let (network, mut a, mut b) = network(&SimConfig { seed, faults, ..SimConfig::default() });
    let start = network.now();
    let mut record = Vec::new();
    for i in 0..300usize {
        let len = 500 + i;
        send(&mut a, meta(0, address(2, 2), len, 100), &vec![i as u8; len]);
        a.flush().unwrap();
        for got in poll(&mut b) {
            let back = vec![got.bytes[0]; got.bytes.len()];
            send(&mut b, meta(0, got.remote, back.len(), got.stride), &back);
            record.push((network.now() - start, got));
        }
        b.flush().unwrap();
        record.extend(poll(&mut a).into_iter().map(|got| (network.now() - start, got)));
        network.advance(Duration::from_millis(1));
    }
    record
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let one = record(42);
    assert!(one.len() > 300);
    assert_eq!(one, record(42));
    assert_ne!(one, record(43));
}

#[test]
fn addresses_change_and_peers_vanish() {
    let (network, mut a, mut b) = network(&SimConfig::default());
    assert!(network.rebind(address(1, 1), address(1, 77)));
    assert!(!network.rebind(address(1, 1), address(1, 78)));
    send(&mut a, meta(0, address(2, 2), 10, 10), &[1; 10]);
    a.flush().unwrap();
    assert_eq!(poll(&mut b)[0].remote, address(1, 77));
    for (to, count) in [(address(1, 1), 0), (address(1, 77), 1)] {
        send(&mut b, meta(0, to, 10, 10), &[1; 10]);
        b.flush().unwrap();
        assert_eq!(poll(&mut a).len(), count);
    }
    network.set_faults_from(address(2, 2), Faults { loss: 1.0, ..Faults::NONE });
    send(&mut b, meta(0, address(1, 77), 10, 10), &[1; 10]);
    b.flush().unwrap();
    assert!(poll(&mut a).is_empty());
    send(&mut a, meta(0, address(2, 2), 10, 10), &[1; 10]);
    a.flush().unwrap();
    assert_eq!(poll(&mut b).len(), 1);
}

#[test]
fn groups_are_steered_and_wildcards_answer_from_the_address_asked() {
    let network = SimNetwork::new(&SimConfig::default());
    let make = || network.driver(&DriverConfig::default()).unwrap();
    let (mut x, mut y, mut client) = (make(), make(), make());
    let any: SocketAddr = ([0, 0, 0, 0], 7).into();
    x.bind(any).unwrap();
    y.bind(any).unwrap();
    client.bind(address(1, 1)).unwrap();
    for shard in [0u8, 1, 1] {
        send(&mut client, meta(0, address(3, 7), 4, 4), &[0x40, 9, 9 ^ shard, 0]);
    }
    client.flush().unwrap();
    let (at_x, at_y) = (poll(&mut x), poll(&mut y));
    assert_eq!((at_x.len(), at_y.iter().map(|g| g.bytes.len()).sum::<usize>()), (1, 8));
    let back = TxMeta { local: at_x[0].local, ..meta(0, at_x[0].remote, 5, 5) };
    send(&mut x, back, &[1; 5]);
    x.flush().unwrap();
    assert_eq!(poll(&mut client)[0].remote, address(3, 7));
}

#[test]
fn failures_are_reported() {
    let (_, mut a, _b) = network(&SimConfig { max_payload: 1472, ..SimConfig::default() });
    send(&mut a, meta(0, address(2, 2), 3000, 1473), &[1; 3000]);
    send(&mut a, meta(5, address(2, 2), 30, 30), &[1; 30]);
    let mut batch = Batch::default();
    a.poll(Some(Duration::ZERO), &mut batch).unwrap();
    let errors: Vec<TxError> = batch.failures.iter().map(|f| f.error).collect();
    assert_eq!(errors, [TxError::TooLarge, TxError::Unreachable]);
    a.remove_socket(0).unwrap();
    assert!(a.remove_socket(0).is_err());
    assert_eq!(a.bind(address(1, 5)).unwrap(), 0);
}

#[test]
fn under_the_real_clock_drivers_sleep_and_wake() {
    let faults = Faults { delay: Duration::from_millis(20), ..Faults::NONE };
    let config = SimConfig { virtual_clock: false, faults, ..SimConfig::default() };
    let (_, mut a, mut b) = network(&config);
    let mut batch = Batch::default();
    let start = Instant::now();
    b.poll(Some(Duration::from_millis(10)), &mut batch).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(10));
    let waker = b.waker();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        waker.wake();
        send(&mut a, meta(0, address(2, 2), 10, 10), &[1; 10]);
        a.flush().unwrap();
        a
    });
    b.poll(None, &mut batch).unwrap();
    assert_eq!((b.stats().wakes, batch.rx.len()), (1, 0));
    let start = Instant::now();
    b.poll(None, &mut batch).unwrap();
    assert_eq!(batch.rx.len(), 1);
    assert!(start.elapsed() >= Duration::from_millis(10), "the datagram takes its time");
    thread.join().unwrap();
}
