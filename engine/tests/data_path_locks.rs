//! No lock on the data path: the sources say which files name one at all, and a running engine shows
//! that its shards neither ask the kernel for one nor wait anywhere but in their drivers.

mod common;

use common::queued::Pair;
use common::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use trunkline::{ApiError, Channel, ChannelKind, DriverChoice, Received};

/// What blocks a thread.
const LOCKS: [&str; 6] =
    ["Mutex", "RwLock", "Condvar", "Barrier", "parking_lot", "std::sync::mpsc"];
/// What takes a lock.
const TAKES: [&str; 5] = [".lock()", " lock(&", ".read()", ".write()", ".try_lock()"];

/// A file that names a lock, how many places of it take one, and why that is not the data path.
const ALLOWED: [(&str, usize, &str); 13] = [
    ("engine/src/engine.rs", 2, "threads to be joined, at the start and the end"),
    ("engine/src/capture/mod.rs", 3, "only where a capture is written, for debugging"),
    ("engine/src/capture/shard.rs", 1, "the same; the shard's own, never waited for"),
    ("engine/src/security.rs", 2, "TLS settings, by connects; the key log, by handshakes"),
    ("engine/src/io/sim.rs", 16, "the network in memory, for tests"),
    ("engine/src/io/uring/wake.rs", 2, "the ring's number, to wake a shard that sleeps"),
    ("engine/src/queue/directory.rs", 1, "associations, by calls that look for one, and by ends"),
    ("engine/src/queue/group.rs", 6, "where a receiver sleeps that finds nothing; new groups"),
    ("engine/src/queue/local.rs", 1, "the parts of a shard, until its thread is known"),
    ("engine/src/queue/mod.rs", 1, "connections that a connect can share"),
    ("engine/src/rendezvous/table.rs", 1, "where the clients of an event source are, by events"),
    ("engine/src/sync/mod.rs", 0, "names what a group's receivers sleep in"),
    ("engine/src/sync/modelled.rs", 3, "models only: no engine is compiled with it"),
];

fn sources() -> Vec<PathBuf> {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![engine.join("src"), engine.join("proto/src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 100, "the source tree is not where it should be");
    found
}

/// The code of a file: without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        },
    )
}

#[test]
fn only_what_is_listed_names_a_lock() {
    let mut found = Vec::new();
    for path in sources() {
        let code = code(&path);
        if LOCKS.iter().any(|lock| code.contains(lock)) {
            let takes: usize = TAKES.iter().map(|take| code.matches(take).count()).sum();
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.push((name, takes));
        }
    }
    found.sort();
    let mut allowed = ALLOWED.map(|(name, takes, _)| (name.to_owned(), takes)).to_vec();
    allowed.sort();
    assert_eq!(found, allowed, "locks in these files, taken in so many places");
}

/// Sends `count` short messages from one thread, which takes them out again and never sleeps.
fn flow(pair: &Pair, count: u64) {
    let start = Instant::now();
    let many: Vec<(Channel, &[u8])> = vec![(pair.channel, &[7; 64][..]); 32];
    let (mut left, mut received, mut out) = (count, 0, Vec::new());
    while received < count {
        while left > 0 {
            let (taken, result) = pair.client.send_many(&many[..left.min(32) as usize]);
            left -= taken as u64;
            match result {
                Ok(()) => {}
                Err(ApiError::WouldBlock(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        pair.client.poll_group().recv_many(&mut out, 1_024, Some(Duration::ZERO));
        out.clear();
        pair.host.poll_group().recv_many(&mut out, 1_024, Some(Duration::ZERO));
        received += out.drain(..).filter(|r| matches!(r, Received::Message(_))).count() as u64;
        assert!(start.elapsed() < Duration::from_secs(60), "{received} of {count}");
    }
}

/// The threads of shards, by the system's numbers.
#[cfg(target_os = "linux")]
fn shard_threads() -> Vec<String> {
    let is_shard = |task: &fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.starts_with("trunk-shard")
    };
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten().filter(is_shard);
    tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}

/// Times that the threads of shards have given up their processor to wait.
#[cfg(target_os = "linux")]
fn waits(threads: &[String]) -> u64 {
    let waits_of = |thread: &String| -> u64 {
        let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    threads.iter().map(waits_of).sum()
}

#[cfg(target_os = "linux")]
#[test]
fn a_shard_waits_only_in_its_driver() {
    const COUNT: u64 = 300_000;
    let sleeps = |pair: &Pair| -> u64 {
        [&pair.client, &pair.host]
            .map(|e| e.engine_stats().shards[0].driver)
            .iter()
            // A short sleep of the driver that goes by readiness may be two calls.
            .map(|driver| 2 * driver.sleeps)
            .sum()
    };
    for driver in drivers() {
        let pair = Pair::new(&config(driver), true, ChannelKind::Messages);
        flow(&pair, COUNT);
        let threads = shard_threads();
        let (waited, slept) = (waits(&threads), sleeps(&pair));
        flow(&pair, COUNT);
        let (waited, slept) = (waits(&threads) - waited, sleeps(&pair) - slept);
        println!("{driver}: {waited} waits, {slept} in sleeps, {COUNT} messages");
        assert!(waited <= slept + 50, "{driver}: {waited} waits, {slept} of them sleeps");
        assert!(waited < COUNT / 50, "{driver}: {waited} waits");
    }
}

const FLOW: &str = "TRUNKLINE_TEST_FLOW";

/// Not a test: what the one below watches.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "started by a_shard_asks_the_kernel_for_no_lock"]
fn watched_flow() {
    let text = std::env::var(FLOW).unwrap();
    let (driver, count) = text.split_once(' ').unwrap();
    let driver = if driver == "uring" { DriverChoice::Uring } else { DriverChoice::Mio };
    let pair = Pair::new(&config(driver), true, ChannelKind::Messages);
    println!("shards {}", shard_threads().join(" "));
    flow(&pair, count.parse().unwrap());
    // The threads end without being joined, which is a futex as well.
    std::process::exit(0);
}

/// System calls `futex` of both shards while `count` messages pass.
#[cfg(target_os = "linux")]
fn futexes(driver: DriverChoice, count: u64) -> u64 {
    let trace = std::env::temp_dir().join(format!("trunkline-futex-{}", std::process::id()));
    let output = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-e", "trace=futex", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["watched_flow", "--exact", "--ignored", "--nocapture"])
        .env(FLOW, format!("{driver} {count}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let shards = text.lines().find_map(|l| l.split_once("shards ")).map(|(_, l)| l.to_owned());
    let shards = shards.unwrap_or_else(|| panic!("{output:?}"));
    let calls = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    assert!(output.status.success(), "{output:?}");
    let threads: Vec<&str> = shards.split_whitespace().collect();
    assert_eq!(threads.len(), 2, "{output:?}");
    let of_shard =
        |line: &&str| line.split_whitespace().next().is_some_and(|t| threads.contains(&t));
    calls.lines().filter(of_shard).filter(|line| line.contains("futex(")).count() as u64
}

#[cfg(target_os = "linux")]
#[test]
fn a_shard_asks_the_kernel_for_no_lock() {
    let works = Command::new("strace").args(["-f", "--seccomp-bpf", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: strace is not installed, or may not trace here");
        return;
    }
    for driver in drivers() {
        let (few, many) = (futexes(driver, 20_000), futexes(driver, 200_000));
        println!("{driver}: {few} futex calls of shards for 20,000 messages, {many} for 200,000");
        // Some are those of the start.
        assert!(few <= 40 && many <= 40, "{driver}: {few} and {many} futex calls");
    }
}
