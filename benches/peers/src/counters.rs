//! What one side of a measurement has seen so far, readable from another thread at any time.

use crate::payload;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Counts that one thread writes and others read.
pub struct Counters {
    begun: Instant,
    sent: AtomicU64,
    received: AtomicU64,
    bytes: AtomicU64,
    corrupt: AtomicU64,
    quiet: AtomicBool,
    delays: Mutex<Histogram<u64>>,
}

/// Counts at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Clock of the process, in nanoseconds.
    pub at_ns: u64,
    /// Messages handed to the peer.
    pub sent: u64,
    /// Messages that arrived and were right; connections, where those are counted.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that arrived and were not right.
    pub corrupt: u64,
    /// CPU time of the process, system calls and the kernel's work in them included.
    pub cpu_ns: u64,
    /// Resident memory of the process in bytes.
    pub resident: u64,
    /// Delays since the last reset: round trips, or one way.
    pub delays: Delays,
}

/// A distribution, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// Values.
    pub count: u64,
    /// Half of them are at most this.
    pub p50_ns: u64,
    /// 99 % of them are at most this.
    pub p99_ns: u64,
    /// The largest.
    pub max_ns: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// An increment without a locked instruction: there is one writer.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        let delays = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Self {
            begun: Instant::now(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            quiet: AtomicBool::new(false),
            delays: Mutex::new(delays.unwrap_or_else(|_| unreachable!("bounds are right"))),
        }
    }

    /// `n` messages were handed to the peer.
    pub fn sent(&self, n: u64) {
        add(&self.sent, n);
    }

    /// A message or connection that is right, of `bytes` bytes.
    pub fn received(&self, bytes: usize) {
        add(&self.received, 1);
        add(&self.bytes, bytes as u64);
    }

    /// A message that is not right.
    pub fn corrupt(&self) {
        add(&self.corrupt, 1);
    }

    /// Reads an unreliable message whose number is the time of its sending, and counts it with
    /// its delay.
    pub fn stamped(&self, message: &[u8]) {
        match payload::open(message) {
            Some(at) => {
                self.received(message.len());
                self.delay(unix_ns().saturating_sub(at));
            }
            None => self.corrupt(),
        }
    }

    /// A delay in nanoseconds.
    pub fn delay(&self, ns: u64) {
        self.histogram().saturating_record(ns);
    }

    /// Whether no more messages are to be sent.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// No more messages from now on.
    pub fn be_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// Connections or messages that were right so far.
    pub fn received_so_far(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn histogram(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.delays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything now, that of `others` added; `reset`: delays are counted from now on.
    pub fn sample(&self, others: &[Arc<Self>], reset: bool) -> Sample {
        let mut sum = Sample::default();
        let mut all = self.histogram().clone();
        all.reset();
        for counters in others.iter().map(Arc::as_ref).chain([self]) {
            let mut histogram = counters.histogram();
            let _ = all.add(&*histogram);
            if reset {
                histogram.reset();
            }
            drop(histogram);
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            sum.sent += read(&counters.sent);
            sum.received += read(&counters.received);
            sum.bytes += read(&counters.bytes);
            sum.corrupt += read(&counters.corrupt);
        }
        let delays = Delays {
            count: all.len(),
            p50_ns: all.value_at_quantile(0.5),
            p99_ns: all.value_at_quantile(0.99),
            max_ns: all.max(),
        };
        Sample {
            at_ns: u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            cpu_ns: cpu_ns(),
            resident: resident(),
            delays,
            ..sum
        }
    }
}

/// Nanoseconds since 1970, the same in all processes of a machine.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// CPU time of all threads of this process that are still there; 0 where the system does not say.
fn cpu_ns() -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Resident bytes of this process; 0 where the system does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The receiver of one ordered, reliable series of messages.
#[derive(Debug, Default)]
pub struct Series {
    next: u64,
}

impl Series {
    /// Reads a message, counts it, and checks that it is the next one.
    #[inline]
    pub fn take(&mut self, counters: &Counters, message: &[u8]) {
        match payload::open(message) {
            Some(sequence) if sequence == self.next => {
                self.next += 1;
                counters.received(message.len());
            }
            Some(sequence) => {
                self.next = sequence + 1;
                counters.corrupt();
            }
            None => counters.corrupt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Source;

    #[test]
    fn only_the_next_right_message_counts() {
        let counters = Counters::new();
        let mut series = Series::default();
        let mut source = Source::new(64, 1);
        series.take(&counters, source.message());
        series.take(&counters, source.numbered(2));
        let mut broken = source.numbered(3).to_vec();
        broken[30] ^= 1;
        series.take(&counters, &broken);
        series.take(&counters, source.numbered(3));
        let sample = counters.sample(&[], false);
        assert_eq!((sample.received, sample.bytes, sample.corrupt), (2, 128, 2));
    }

    #[test]
    fn counts_of_several_threads_add_up() {
        let (one, two) = (Counters::new(), Arc::new(Counters::new()));
        one.received(10);
        two.received(5);
        two.delay(1000);
        let sample = one.sample(&[Arc::clone(&two)], true);
        assert_eq!((sample.received, sample.bytes, sample.delays.count), (2, 15, 1));
        assert_eq!(one.sample(&[two], false).delays.count, 0);
    }

    #[test]
    fn delays_are_counted_from_the_reset() {
        let counters = Counters::new();
        counters.delay(1000);
        assert_eq!(counters.sample(&[], true).delays.count, 1);
        let stamp = unix_ns() - 5_000_000;
        counters.stamped(Source::new(100, 1).numbered(stamp));
        let delays = counters.sample(&[], false).delays;
        assert_eq!(delays.count, 1);
        assert!(delays.p50_ns >= 4_990_000, "{delays:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_uses_memory_and_time() {
        let sample = Counters::new().sample(&[], false);
        assert!(sample.resident > 100_000, "{sample:?}");
        assert!(sample.cpu_ns > 0, "{sample:?}");
    }
}
