//! How much a driver moves without any protocol, for comparison with the machine's floor:
//! `cargo test --release -p trunkline --lib io::speed -- --ignored --nocapture --test-threads 1`

use super::*;
use crate::sys::{self, BufferSizes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TIME: Duration = Duration::from_secs(2);

/// Processor time of this thread: on a shared machine the better measure.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

fn pin(cpu: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
}

/// Sends trains of `count` packets of `segment` bytes for a while; prints what arrived.
fn flood<D: Driver + 'static>(name: &str, make: fn() -> Option<D>, segment: usize, count: usize) {
    let group = || sys::bind_group(([127, 0, 0, 1], 0).into(), 1, BufferSizes::default());
    let (from, to) = (group().unwrap().remove(0), group().unwrap().remove(0));
    let target = to.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let receiver = std::thread::spawn(move || {
        pin(1);
        let mut driver = make()?;
        driver.add_socket(to).unwrap();
        let (mut batch, mut sum) = (Batch::default(), 0u64);
        let mut first = None;
        while !stopped.load(Ordering::Relaxed) {
            driver.poll(Some(Duration::from_millis(50)), &mut batch).unwrap();
            for item in batch.rx.drain(..) {
                first.get_or_insert_with(Instant::now);
                for word in driver.rx_bytes(&item).chunks_exact(8) {
                    sum = sum.wrapping_add(u64::from_le_bytes(*word.first_chunk().unwrap()));
                }
                driver.release(item);
            }
        }
        std::hint::black_box(sum);
        Some((*driver.stats(), first?.elapsed(), cpu_seconds()))
    });
    pin(0);
    let Some(mut driver) = make() else { return };
    let socket = driver.add_socket(from).unwrap();
    let mut batch = Batch::default();
    let (start, cpu_start) = (Instant::now(), cpu_seconds());
    let (len, remote) = (segment * count, target);
    while start.elapsed() < TIME {
        for _ in 0..16 {
            let Some(mut buf) = driver.lend() else { break };
            driver.bytes(&mut buf)[..len].fill(7);
            let meta = TxMeta { socket, remote, local: None, len, segment, ecn: 2, probe: false };
            driver.send(buf, meta);
        }
        driver.poll(Some(Duration::ZERO), &mut batch).unwrap();
        assert!(batch.failures.is_empty());
    }
    let tx_cpu = cpu_seconds() - cpu_start;
    stop.store(true, Ordering::Relaxed);
    let Some((rx, time, rx_cpu)) = receiver.join().unwrap() else { return };
    let tx = driver.stats();
    let seconds = time.as_secs_f64();
    println!(
        "{name:5} {segment:5} B x {count:2}: received {:5.1} Gb/s, {:5.2} M packets/s; {:4.1} % lost; \
         Gb a processor second: {:.1} sent, {:.1} received; packets a call: {:.0} sent, {:.0} \
         received; rearmed {}, no buffer {}",
        rx.rx_bytes as f64 * 8.0 / seconds / 1e9,
        rx.rx_packets as f64 / seconds / 1e6,
        (1.0 - rx.rx_packets as f64 / tx.tx_packets as f64) * 100.0,
        tx.tx_bytes as f64 * 8.0 / tx_cpu / 1e9,
        rx.rx_bytes as f64 * 8.0 / rx_cpu / 1e9,
        tx.tx_packets as f64 / tx.syscalls as f64,
        rx.rx_packets as f64 / rx.syscalls as f64,
        rx.rx_rearmed,
        rx.rx_no_buffer,
    );
}

/// Time there and back of one small packet.
fn ping<D: Driver + 'static>(name: &str, make: fn() -> Option<D>, spin: bool) {
    let group = || sys::bind_group(([127, 0, 0, 1], 0).into(), 1, BufferSizes::default());
    let (near, far) = (group().unwrap().remove(0), group().unwrap().remove(0));
    let (near_address, far_address) = (near.local_addr().unwrap(), far.local_addr().unwrap());
    let rounds = 50_000;
    let turn = move |driver: &mut D, batch: &mut Batch, socket: u16, remote: SocketAddr| {
        while batch.rx.is_empty() {
            let timeout = if spin { Duration::ZERO } else { Duration::from_secs(1) };
            driver.poll(Some(timeout), batch).unwrap();
        }
        for item in batch.rx.drain(..) {
            driver.release(item);
        }
        send(driver, socket, remote);
    };
    fn send<D: Driver>(driver: &mut D, socket: u16, remote: SocketAddr) {
        let buf = driver.lend().unwrap();
        let meta =
            TxMeta { socket, remote, local: None, len: 64, segment: 64, ecn: 2, probe: false };
        driver.send(buf, meta);
        driver.flush().unwrap();
    }
    let echo = std::thread::spawn(move || {
        pin(1);
        let Some(mut driver) = make() else { return };
        let socket = driver.add_socket(far).unwrap();
        let mut batch = Batch::default();
        for _ in 0..rounds {
            turn(&mut driver, &mut batch, socket, near_address);
        }
    });
    pin(0);
    let Some(mut driver) = make() else { return };
    let socket = driver.add_socket(near).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let (mut batch, mut times) = (Batch::default(), Vec::with_capacity(rounds));
    send(&mut driver, socket, far_address);
    for i in 0..rounds {
        let start = Instant::now();
        while batch.rx.is_empty() {
            let timeout = if spin { Duration::ZERO } else { Duration::from_secs(1) };
            driver.poll(Some(timeout), &mut batch).unwrap();
        }
        for item in batch.rx.drain(..) {
            driver.release(item);
        }
        if i + 1 < rounds {
            send(&mut driver, socket, far_address);
        }
        times.push(start.elapsed());
    }
    echo.join().unwrap();
    times.sort_unstable();
    let at = |q: f64| times[(times.len() as f64 * q) as usize].as_nanos() as f64 / 1000.0;
    let how = if spin { "spinning" } else { "sleeping" };
    println!(
        "{name:5} {how}: p50 {:.1} us, p99 {:.1} us; {:?}",
        at(0.5),
        at(0.99),
        driver.stats().syscalls as f64 / rounds as f64
    );
}

fn config() -> DriverConfig {
    let posted = std::env::var("POSTED").ok().and_then(|p| p.parse().ok());
    let default = DriverConfig::default();
    DriverConfig { rx_posted: posted.unwrap_or(default.rx_posted), ..default }
}

#[allow(clippy::unnecessary_wraps, reason = "the same form for every driver")]
fn mio() -> Option<MioDriver> {
    Some(MioDriver::new(&config()).unwrap())
}

#[cfg(target_os = "linux")]
fn uring() -> Option<UringDriver> {
    UringDriver::new(&config()).map_err(|e| println!("skipped: {e}")).ok()
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    let only = std::env::var("ONLY").unwrap_or_default();
    for (segment, count) in [(1432, 44), (1432, 16), (100, 64), (1432, 1), (64, 1)] {
        if !format!("{segment}x{count}").contains(&only) {
            continue;
        }
        for _ in 0..3 {
            flood("mio", mio, segment, count);
            #[cfg(target_os = "linux")]
            flood("uring", uring, segment, count);
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn round_trip() {
    for spin in [false, true] {
        for _ in 0..2 {
            ping("mio", mio, spin);
            #[cfg(target_os = "linux")]
            ping("uring", uring, spin);
        }
    }
}
