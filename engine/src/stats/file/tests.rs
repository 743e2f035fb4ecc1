//! The writer and the reader together, and files that nobody wrote like this.
#![cfg(unix)]

use super::layout::{self, block, head};
use super::write::{State, Writer};
use super::*;
use crate::sys::map::monotonic_ns;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A path for one test, removed at its end.
struct Path(PathBuf);

impl Path {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("trunkline-stats-{}-{n}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn since(origin: Instant) -> u64 {
    origin.elapsed().as_nanos() as u64
}

#[test]
fn the_names_fit_what_is_written() {
    let (text, fields) = layout::names();
    assert_eq!(fields, *layout::FIELDS);
    assert_eq!(text.lines().filter(|l| l.starts_with("r ")).count(), layout::ROW_FIELDS);
    let mut names: Vec<&str> = text.lines().filter(|l| !l.is_empty()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name occurs twice");
}

#[test]
fn a_file_tells_what_was_written_and_how_it_ended() {
    let path = Path::new();
    let origin = Instant::now();
    let writer = Writer::create(&path.0, 2, origin, 0).unwrap();
    let file = StatsFile::open(&path.0).unwrap();
    assert_eq!(file.info().pid, u64::from(std::process::id()));
    assert_eq!((file.info().shards, file.info().engine.as_str()), (2, env!("CARGO_PKG_VERSION")));
    assert_eq!(file.read().unwrap().health, Health::Starting);
    let mut blocks: Vec<_> = (0..2).map(|i| writer.shard(i).unwrap()).collect();
    assert!(writer.shard(2).is_none());
    for (i, block) in blocks.iter_mut().enumerate() {
        block.begin("sim", since(origin));
        block.open();
        (0..1000).for_each(|n| block.put(n + i as u64));
        block.close();
    }
    let sample = file.read().unwrap();
    assert_eq!(sample.health, Health::Running);
    for (i, shard) in sample.shards.iter().enumerate() {
        assert_eq!((shard.driver.as_str(), shard.torn), ("sim", false));
        assert_eq!(shard.get("turns"), Some(i as u64), "the first field");
        assert_eq!(shard.values.len(), file.fields().len());
        assert_eq!(shard.get("no such field"), None);
    }
    blocks.pop();
    assert_eq!(file.read().unwrap().shards[1].health, Health::Ended);
    assert_eq!(file.read().unwrap().health, Health::Running);
    blocks[0].end(State::Failed, Some("it broke"));
    blocks.clear();
    let sample = file.read().unwrap();
    assert_eq!(sample.health, Health::Failed("it broke".into()));
    assert_eq!(sample.shards[0].get("turns"), Some(0), "figures stay");
}

#[test]
fn who_is_late_does_not_answer_and_who_sleeps_is_not_late() {
    let path = Path::new();
    // The shard's time began long ago.
    let origin = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    let ns = 3_600_000_000_000;
    let writer = Writer::create(&path.0, 1, origin, ns).unwrap();
    let block = writer.shard(0).unwrap();
    let file = StatsFile::open(&path.0).unwrap();
    let health = || file.read().unwrap().health;
    let (now, long_ago) = (ns + since(origin), ns + since(origin) - 30_000_000_000);
    block.begin("sim", long_ago);
    let Health::NotAnswering(late) = health() else { panic!("{:?}", health()) };
    assert!((29..=40).contains(&late.as_secs()), "{late:?}");
    block.rest(long_ago, None);
    assert_eq!(health(), Health::Running, "sleeps until something comes");
    block.rest(long_ago, Some(now + 60_000_000_000));
    assert_eq!(health(), Health::Running, "sleeps for a while yet");
    block.rest(long_ago, Some(now - 10_000_000_000));
    let Health::NotAnswering(late) = health() else { panic!("{:?}", health()) };
    assert!((9..=20).contains(&late.as_secs()), "{late:?}");
    block.beat(ns + since(origin));
    assert_eq!(health(), Health::Running);
}

#[test]
fn a_new_engine_takes_the_path_over_and_a_bad_path_is_named() {
    let path = Path::new();
    let first = Writer::create(&path.0, 1, Instant::now(), 0).unwrap();
    let old = StatsFile::open(&path.0).unwrap();
    drop(first.shard(0).unwrap());
    let _second = Writer::create(&path.0, 3, Instant::now(), 0).unwrap();
    assert_eq!(old.read().unwrap().shards.len(), 1);
    assert_eq!(StatsFile::open(&path.0).unwrap().read().unwrap().shards.len(), 3);
    let bad = Writer::create(std::path::Path::new("/no/such/folder/stats"), 1, Instant::now(), 0);
    let error = bad.unwrap_err().to_string();
    assert!(error.contains("stats file /no/such/folder/stats"), "{error}");
}

#[test]
fn a_file_of_a_process_that_is_gone_says_so() {
    let path = Path::new();
    let writer = Writer::create(&path.0, 1, Instant::now(), 0).unwrap();
    let block = writer.shard(0).unwrap();
    block.begin("sim", 0);
    let mut bytes = std::fs::read(&path.0).unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let pid = u64::from(child.id());
    bytes[head::PID * 8..][..8].copy_from_slice(&pid.to_ne_bytes());
    std::fs::write(&path.0, &bytes).unwrap();
    let sample = StatsFile::open(&path.0).unwrap().read().unwrap();
    assert_eq!(sample.health, Health::Died);
    // The same number, but not the same process.
    bytes[head::PID * 8..][..8].copy_from_slice(&u64::from(std::process::id()).to_ne_bytes());
    bytes[head::STARTED * 8] ^= 1;
    std::fs::write(&path.0, &bytes).unwrap();
    let sample = StatsFile::open(&path.0).unwrap().read().unwrap();
    assert_eq!(sample.health, Health::Died);
}

#[test]
fn what_is_read_belongs_together() {
    let path = Path::new();
    let writer = Writer::create(&path.0, 1, Instant::now(), 0).unwrap();
    let mut block = writer.shard(0).unwrap();
    let file = StatsFile::open(&path.0).unwrap();
    let stop = AtomicBool::new(false);
    let fields = *layout::FIELDS - 1;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                block.open();
                (0..fields).for_each(|_| block.put(n));
                block.close();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // A shard does other things most of the time.
                (0..2_000).for_each(|_| std::hint::spin_loop());
            }
        });
        let (mut whole, mut last) = (0, 0);
        let start = Instant::now();
        while whole < 2_000 && start.elapsed() < Duration::from_secs(5) {
            let shard = file.read().unwrap().shards.remove(0);
            if shard.torn {
                continue;
            }
            let values = &shard.values[..fields];
            assert!(values.iter().all(|v| *v == values[0]), "{values:?}");
            assert!(values[0] >= last);
            last = values[0];
            whole += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(whole > 100 && last > 0, "{whole} whole reads, {last} writes");
    });
}

#[test]
fn a_writer_that_stopped_in_the_middle_is_read_all_the_same() {
    let path = Path::new();
    let writer = Writer::create(&path.0, 1, Instant::now(), 0).unwrap();
    let mut block = writer.shard(0).unwrap();
    block.begin("sim", 0);
    block.open();
    block.put(7);
    let start = monotonic_ns();
    let shard = StatsFile::open(&path.0).unwrap().read().unwrap().shards.remove(0);
    assert!(shard.torn && shard.get("turns") == Some(7));
    assert!(monotonic_ns() - start < 5_000_000_000, "tries end");
}

fn valid() -> Vec<u8> {
    let path = Path::new();
    let writer = Writer::create(&path.0, 2, Instant::now(), 0).unwrap();
    let mut block = writer.shard(0).unwrap();
    block.open();
    (0..1000).for_each(|n| block.put(n));
    block.close();
    std::fs::read(&path.0).unwrap()
}

/// Opens and reads it, and looks at everything.
fn devour(bytes: &[u8]) -> Result<(), ReadError> {
    let path = Path::new();
    std::fs::write(&path.0, bytes).unwrap();
    let file = StatsFile::open(&path.0)?;
    for shard in file.read()?.shards {
        for conn in &shard.connections {
            let _ = (conn.remote(), conn.peer(), conn.status(), conn.id(), conn.fields().count());
        }
    }
    Ok(())
}

#[test]
fn every_cut_is_an_error() {
    let valid = valid();
    devour(&valid).unwrap();
    for len in (0..valid.len()).step_by(97) {
        assert!(devour(&valid[..len]).is_err(), "{len} bytes");
    }
    let mut newer = valid;
    newer[head::VERSION * 8] = 9;
    assert!(matches!(devour(&newer), Err(ReadError::Version(9))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(devour(&bytes).is_err());
    }

    #[test]
    fn damage_is_survived(
        changes in proptest::collection::vec((0..layout::HEADER + 300, any::<u64>(), 0..64u32), 1..6),
    ) {
        let mut bytes = valid();
        for (at, value, shift) in changes {
            let place = &mut bytes[at * 8..][..8];
            place.copy_from_slice(&(value >> shift).to_ne_bytes());
        }
        let _ = devour(&bytes);
    }
}

#[test]
fn a_block_leaves_room_for_its_text() {
    assert_eq!(block::FAILURE + block::FAILURE_WORDS, block::FIELDS - 1);
}
