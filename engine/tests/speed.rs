//! Measurements of the queued API; run them with
//! `cargo test --release -p trunkline --test speed -- --ignored --nocapture --test-threads 1`.

mod common;

use common::*;
use std::time::{Duration, Instant};
use trunkline::{ApiError, Channel, ChannelKind, ChannelOptions, Event, QueuedEngine, Received};

/// Seconds of processor time that this process has used.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 =
        after_name.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// One application thread sends, another receives, each engine has one shard.
fn run(length: usize, batch: usize, seconds: u64) {
    let identity = identity();
    let host = QueuedEngine::start(config(trunkline::DriverChoice::Auto)).unwrap();
    let addr = host.listen(&listen(&identity)).unwrap().local_addr;
    let client = QueuedEngine::start(config(trunkline::DriverChoice::Auto)).unwrap();
    let conn = client.connect(&connect(addr, &identity), None).unwrap();
    let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
    let channel = client.open_channel(conn, "x", &options).unwrap();
    let sender = {
        let client = client.clone();
        std::thread::spawn(move || {
            let message = vec![7; length];
            let many: Vec<(Channel, &[u8])> = vec![(channel, &message[..]); batch];
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(seconds) {
                for _ in 0..100 {
                    let result = if batch == 1 {
                        client.send(channel, &message)
                    } else {
                        client.send_many(&many).1
                    };
                    match result {
                        Ok(()) => {}
                        Err(ApiError::WouldBlock(_)) => {
                            let mut out = Vec::new();
                            let wait = Some(Duration::from_millis(10));
                            client.poll_group().recv_many(&mut out, 16, wait);
                        }
                        Err(e) => panic!("{e}"),
                    }
                }
            }
            client.finish(channel).unwrap();
        })
    };
    let mut out = Vec::new();
    let (mut count, mut bytes, mut done) = (0u64, 0u64, false);
    let (start, cpu) = (Instant::now(), cpu_s());
    while !done {
        host.poll_group().recv_many(&mut out, 4096, Some(Duration::from_secs(5)));
        for received in out.drain(..) {
            match received {
                Received::Message(m) => {
                    count += 1;
                    bytes += m.data.len() as u64;
                }
                Received::Event(Event::Incoming { conn, .. }) => host.accept(conn).unwrap(),
                Received::Event(Event::ChannelRequest { channel, .. }) => {
                    host.accept_channel(channel, &ChannelOptions::default()).unwrap();
                }
                Received::Event(Event::Eof { .. }) => done = true,
                Received::Event(_) => {}
            }
        }
    }
    sender.join().unwrap();
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_s() - cpu);
    println!(
        "{length:6} bytes, {batch:3} a call: {:.2} M messages/s, {:.2} Gb/s; of one processor's \
         time {:.2} M/s, {:.2} Gb/s",
        count as f64 / took / 1e6,
        bytes as f64 * 8.0 / took / 1e9,
        count as f64 / cpu / 1e6,
        bytes as f64 * 8.0 / cpu / 1e9,
    );
}

#[test]
#[ignore = "a measurement"]
fn queued() {
    run(64, 1, 3);
    run(64, 32, 3);
    run(65_536, 1, 3);
}
