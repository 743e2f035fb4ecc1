//! Every floor, for a moment: sane figures, everything delivered read and right.
#![cfg(target_os = "linux")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trunkline_floor::{
    Cipher, OVERHEAD, Setup, Throughput, Wait, bulk, cpu, ping_pong, single_packets, tick,
};

/// One measurement at a time: they would take each other's CPUs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn setup(packet_bytes: usize) -> Setup {
    let (client_cpu, server_cpu, _) = cpu::processors();
    let time = Duration::from_millis(100);
    Setup { client_cpu, server_cpu, time, warm_up: time / 5, packet_bytes }
}

fn check(figures: &Throughput, payload_bytes: u64) {
    assert!((0.1..10.0).contains(&figures.seconds), "{figures:?}");
    assert!(figures.packets > 0, "{figures:?}");
    assert_eq!(figures.bytes, figures.packets * payload_bytes);
    assert_eq!(figures.corrupt, 0);
    assert!(figures.lost <= figures.packets / 100 + 64, "{figures:?}");
    assert!(figures.gbps() > 0.0 && figures.packets_per_s() > 0.0);
    let both = figures.cpu.client.zip(figures.cpu.server);
    assert!(both.is_none_or(|(a, b)| a + b < 2.5 * figures.seconds), "{figures:?}");
}

#[test]
fn bulk_with_and_without_cipher() {
    let _alone = alone();
    for packet_bytes in [1452, 100, 65_507] {
        for cipher in [Cipher::None, Cipher::Aes128Gcm] {
            let figures = bulk(&setup(packet_bytes), cipher).unwrap();
            check(&figures, (packet_bytes - OVERHEAD) as u64);
        }
    }
}

#[test]
fn both_threads_on_one_cpu() {
    let _alone = alone();
    let mut setup = setup(1452);
    setup.server_cpu = setup.client_cpu;
    check(&bulk(&setup, Cipher::Aes128Gcm).unwrap(), 1423);
    check(&single_packets(&setup, 64).unwrap(), 64);
    assert!(!ping_pong(&setup, Wait::Spin, 64).unwrap().rtt_ns.is_empty());
}

#[test]
fn one_packet_a_call() {
    let _alone = alone();
    check(&single_packets(&setup(1452), 64).unwrap(), 64);
}

#[test]
fn round_trips() {
    let _alone = alone();
    for wait in [Wait::Block, Wait::Spin] {
        let trips = ping_pong(&setup(1452), wait, 64).unwrap();
        assert!(trips.rtt_ns.len() > 10, "{wait:?}: {}", trips.rtt_ns.len());
        assert_eq!((trips.corrupt, trips.lost), (0, 0));
        assert!((500..100_000_000).contains(&trips.rtt_ns.value_at_quantile(0.5)));
    }
}

#[test]
fn slow_connections() {
    let _alone = alone();
    let ticks = tick(&setup(1452), 50, 100, 100).unwrap();
    assert!((100..=2_500).contains(&ticks.received), "{ticks:?}");
    assert!((100..=2_500).contains(&ticks.answers), "{ticks:?}");
    assert_eq!((ticks.corrupt, ticks.lost), (0, 0));
    assert!(ticks.cpu.server.is_none_or(|s| s < ticks.seconds * 1.2));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let _alone = alone();
    for packet_bytes in [OVERHEAD + 15, 65_508] {
        assert!(bulk(&setup(packet_bytes), Cipher::None).is_err());
    }
    assert!(single_packets(&setup(1452), 15).is_err());
    assert!(ping_pong(&setup(1452), Wait::Block, 65_508).is_err());
    assert!(tick(&setup(1452), 0, 30, 100).is_err());
    let nowhere = Setup { server_cpu: 100_000, ..setup(1452) };
    let error = bulk(&nowhere, Cipher::None).unwrap_err();
    assert!(error.to_string().contains("CPU 100000"), "{error}");
}
