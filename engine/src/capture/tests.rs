//! A writer that is slower than the packets, and one that fails.

use super::pcapng::{CLEAR, pdu_tags};
use super::*;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

/// A file in memory that takes nothing until its gate opens, and fails behind `most` bytes.
struct Slow {
    gate: Receiver<()>,
    most: usize,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Open once nobody holds it any more.
        let _ = self.gate.recv();
        let mut all = self.bytes.lock().unwrap();
        if all.len() + bytes.len() > self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn slow(most: usize) -> (Arc<Capture>, Sender<()>, Arc<Mutex<Vec<u8>>>) {
    let (gate, closed) = channel();
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let out = Slow { gate: closed, most, bytes: bytes.clone() };
    (Capture::into(out, 1 << 30).unwrap(), gate, bytes)
}

/// The packets of a file, each with how many were left out before it, and what its statistics of the
/// interface say: seen and dropped.
fn read(bytes: &[u8]) -> (Vec<u64>, (u64, u64)) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (mut packets, mut statistics) = (Vec::new(), (0, 0));
    let mut at = 0;
    while at < bytes.len() {
        let (kind, len) = (word(at), word(at + 4) as usize);
        assert_eq!(word(at + len - 4) as usize, len, "a block is whole");
        match kind {
            6 => {
                let options = at + 28 + (word(at + 20) as usize).next_multiple_of(4);
                // Behind the flags.
                let dropped = (word(options + 8) & 0xFFFF == 4).then(|| long(options + 12));
                packets.push(dropped.unwrap_or(0));
            }
            5 if word(at + 8) == CLEAR => statistics = (long(at + 24), long(at + 36)),
            _ => {}
        }
        at += len;
    }
    (packets, statistics)
}

/// A packet as a shard hands it over.
fn packet(capture: &Capture, len: usize) {
    let addr = "127.0.0.1:1000".parse().unwrap();
    capture.packet(CLEAR, true, &[&pdu_tags(addr, addr), &vec![0; len]]);
}

fn check_with_tshark(bytes: &[u8], packets: usize) {
    let path = std::env::temp_dir().join(format!("trunkline-slow-{}.pcapng", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let output = std::process::Command::new("tshark")
        .args(["-T", "fields", "-e", "frame.number", "-r"])
        .arg(&path)
        .output();
    std::fs::remove_file(&path).unwrap();
    let Ok(output) = output else {
        eprintln!("skipped: no tshark");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !errors.contains("damaged"), "{errors}");
    assert_eq!(output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).count(), packets);
}

/// More of them than may wait, and more bytes.
#[test]
fn nobody_waits_for_a_writer_that_does_not_keep_up() {
    for (count, len) in [(WAITING + 5_000, 40), (5_000, 16 << 10)] {
        let (capture, gate, bytes) = slow(usize::MAX);
        let mut longest = Duration::ZERO;
        for _ in 0..count {
            let start = Instant::now();
            packet(&capture, len);
            longest = longest.max(start.elapsed());
        }
        assert!(longest < Duration::from_secs(1), "{longest:?} for a packet");
        let left_out = capture.state.interfaces[0].dropped.load(Ordering::Relaxed);
        assert!(left_out > 1000, "{left_out} left out");
        let waiting = capture.state.waiting_bytes.load(Ordering::Relaxed);
        assert!(waiting <= WAITING_BYTES, "{waiting} bytes wait");
        drop(gate);
        // What comes once there is room again is taken, and says what is missing before it.
        while capture.state.waiting_bytes.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        packet(&capture, len);
        packet(&capture, len);
        capture.finish();
        packet(&capture, len);
        let bytes = std::mem::take(&mut *bytes.lock().unwrap());
        let (packets, statistics) = read(&bytes);
        assert_eq!(statistics, (count as u64 + 2, left_out));
        assert_eq!(packets.len() as u64, count as u64 + 2 - left_out);
        assert_eq!(packets.iter().sum::<u64>(), left_out);
        assert_eq!(packets[packets.len() - 2..], [left_out, 0]);
        check_with_tshark(&bytes, packets.len());
    }
}

#[test]
fn nobody_waits_for_a_disk_that_is_full() {
    let (capture, gate, bytes) = slow(1 << 20);
    drop(gate);
    let start = Instant::now();
    for _ in 0..2_000 {
        packet(&capture, 1000);
    }
    while !capture.state.full.load(Ordering::Relaxed) {
        assert!(start.elapsed() < Duration::from_secs(20), "the error is not noticed");
        packet(&capture, 1000);
        std::thread::sleep(Duration::from_millis(1));
    }
    let counts = &capture.state.interfaces[0];
    let before = counts.dropped.load(Ordering::Relaxed);
    packet(&capture, 1000);
    assert_eq!(counts.dropped.load(Ordering::Relaxed), before + 1);
    capture.finish();
    assert!(bytes.lock().unwrap().len() <= 1 << 20);
}
