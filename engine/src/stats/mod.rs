//! Counters and histograms: what an engine, a shard or a connection has done.
//!
//! Counters have one writer, the shard's thread, and are plain stores; readers on other threads see
//! them a little late. Histograms belong to the shard and are copied when somebody asks.

pub mod file;

use crate::io::DriverStats;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use trunkline_proto::time::Duration;

pub use trunkline_proto::endpoint::EndpointStats;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owner of the counter may call this.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counters of one shard, written by its thread.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct ShardCounters {
            $(pub(crate) $name: Counter,)+
        }

        /// Counters of one shard since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ShardCounts {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl ShardCounters {
            /// Hands every counter to `put`, in the order of [`ShardCounts::NAMES`].
            pub(crate) fn each(&self, mut put: impl FnMut(u64)) {
                $(put(self.$name.get());)+
            }

            pub(crate) fn read(&self) -> ShardCounts {
                ShardCounts { $($name: self.$name.get(),)+ }
            }
        }

        impl ShardCounts {
            /// Names, in the order of [`ShardCounters::each`].
            pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// Adds another shard's.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)+
            }
        }
    };
}

counters! {
    /// Turns of the event loop.
    turns,
    /// Turns that waited for work.
    sleeps,
    /// Looks for work by turns that might have slept. Each reads the clock.
    looks,
    /// Datagrams taken from the driver.
    datagrams_received,
    /// Bytes of them.
    bytes_received,
    /// Datagrams handed to the driver.
    datagrams_sent,
    /// Bytes of them.
    bytes_sent,
    /// Trains handed to the driver.
    trains_sent,
    /// Trains that the system refused.
    trains_failed,
    /// Turns in which no transmit buffer was free.
    transmit_stalls,
    /// Calls to the handler about received data and events.
    events,
    /// Commands of the application.
    commands,
    /// Timers of the application that fired.
    timers,
    /// Datagrams handed to another shard.
    forwards_sent,
    /// Datagrams taken over from other shards.
    forwards_received,
    /// Datagrams for another shard that were dropped: its queue was full, or there is none.
    forwards_dropped,
    /// ConnectionRequests dropped because their source is on the deny list.
    requests_denied,
    /// ConnectionRequests dropped because their source asked too often.
    requests_limited,
    /// STUN requests that were answered.
    stun_answered,
    /// STUN messages that were dropped: malformed, not for us, or too many.
    stun_dropped,
    /// Connections that were made or accepted.
    connections_opened,
    /// Connections that are gone.
    connections_closed,
}

/// Percentiles of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of samples.
    pub count: u64,
    /// Smallest.
    pub min: u64,
    /// Half are not above this.
    pub p50: u64,
    /// 99 % are not above this.
    pub p99: u64,
    /// 99.9 % are not above this.
    pub p999: u64,
    /// Largest.
    pub max: u64,
}

impl Summary {
    pub(crate) fn of(histogram: &Histogram<u32>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// Durations from 1 µs to 100 s with two significant digits. Samples outside are clamped.
#[derive(Clone, Debug)]
pub(crate) struct Durations(Option<Histogram<u32>>);

impl Durations {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 100_000_000, 2).ok())
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(duration.as_micros().max(1));
        }
    }

    pub(crate) fn clear(&mut self) {
        if let Some(histogram) = &mut self.0 {
            histogram.reset();
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        self.0.as_ref().map_or_else(Summary::default, Summary::of)
    }
}

/// One shard at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShardStats {
    /// Its number.
    pub shard: u8,
    /// Counters.
    pub counts: ShardCounts,
    /// Its driver's counters.
    pub driver: DriverStats,
    /// What became of packets that no connection took, and how connections began.
    pub endpoint: EndpointStats,
    /// Live connections.
    pub connections: usize,
    /// Smoothed round trips of the live connections, in microseconds.
    pub rtt_us: Summary,
    /// Time from one turn of a busy event loop to the next, in microseconds.
    pub loop_us: Summary,
    /// Why it has given up: the message of a handler's panic, or of its driver.
    pub failure: Option<String>,
}

/// An engine at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EngineStats {
    /// Each shard that answered, in order.
    pub shards: Vec<ShardStats>,
}

impl EngineStats {
    /// The counters of all shards together.
    pub fn total(&self) -> ShardCounts {
        let mut total = ShardCounts::default();
        for shard in &self.shards {
            total.merge(&shard.counts);
        }
        total
    }

    /// Live connections of all shards.
    pub fn connections(&self) -> usize {
        self.shards.iter().map(|s| s.connections).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_read_and_merge() {
        let counters = ShardCounters::default();
        counters.turns.add(2);
        counters.turns.add(3);
        counters.events.add(7);
        let mut a = counters.read();
        assert_eq!((a.turns, a.events, a.sleeps), (5, 7, 0));
        a.merge(&counters.read());
        assert_eq!((a.turns, a.events), (10, 14));
    }

    #[test]
    fn durations_are_summed_up_within_their_precision() {
        let mut durations = Durations::new();
        assert_eq!(durations.summary(), Summary::default());
        for us in 1..=1000 {
            durations.record(Duration::from_micros(us));
        }
        durations.record(Duration::ZERO);
        durations.record(Duration::MAX);
        let s = durations.summary();
        assert_eq!((s.count, s.min), (1002, 1));
        assert!((495..=510).contains(&s.p50), "{s:?}");
        assert!((980..=1000).contains(&s.p99), "{s:?}");
        assert!(s.max >= 99_000_000, "{s:?}");
    }
}
