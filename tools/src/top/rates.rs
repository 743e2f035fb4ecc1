//! One engine from sample to sample: what came of two of them a second.

use crate::exit::Failure;
use crate::top::Sort;
use std::collections::VecDeque;
use std::path::PathBuf;
use trunkline::stats::file::{ConnRow, Health, Sample, ShardSample, StatsFile};

/// Samples that the small curves show.
const HISTORY: usize = 40;

/// An engine that is watched.
pub struct Watched {
    pub path: PathBuf,
    pub file: StatsFile,
    pub now: Option<Sample>,
    before: Option<Sample>,
    /// Megabits a second and the median round trip in milliseconds, of each sample.
    pub history: VecDeque<(f64, f64)>,
}

/// One shard, with what it did from the sample before to this one.
pub struct ShardRates<'a> {
    pub sample: &'a ShardSample,
    before: Option<&'a ShardSample>,
    /// Seconds between the two.
    pub seconds: f64,
}

impl ShardRates<'_> {
    pub fn value(&self, name: &str) -> u64 {
        self.sample.get(name).unwrap_or(0)
    }

    /// How much a counter grew each second.
    pub fn rate(&self, name: &str) -> f64 {
        let before = self.before.and_then(|b| b.get(name)).unwrap_or(0);
        per_second(self.value(name), before, self.seconds)
    }

    /// The part of the time, of 1, in which it did not wait for work.
    pub fn load(&self) -> f64 {
        if self.seconds <= 0.0 { 0.0 } else { (1.0 - self.rate("waited_ns") / 1e9).clamp(0.0, 1.0) }
    }
}

/// One connection, with the shard that has it.
pub struct ConnRates<'a> {
    pub shard: usize,
    pub row: &'a ConnRow,
    /// Bytes a second.
    pub sent: f64,
    pub received: f64,
}

impl ConnRates<'_> {
    pub fn value(&self, name: &str) -> u64 {
        self.row.get(name).unwrap_or(0)
    }

    fn key(&self, sort: Sort) -> f64 {
        let value = |name| self.value(name) as f64;
        match sort {
            Sort::Rate => self.sent + self.received,
            Sort::Bytes => value("bytes_sent") + value("bytes_received"),
            Sort::Rtt => value("rtt_ns"),
            Sort::Retransmits => value("retransmits"),
            Sort::Lost => value("packets_lost"),
            Sort::Unacked => value("unacked_bytes"),
            Sort::Channels => value("channels"),
        }
    }
}

fn per_second(now: u64, before: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 { 0.0 } else { now.saturating_sub(before) as f64 / seconds }
}

/// Of which moment a shard's figures are: those of one that sleeps are right still.
const fn figures_at(sample: &Sample, shard: &ShardSample) -> u64 {
    let lives = matches!(shard.health, Health::Running);
    if shard.asleep && lives { sample.monotonic_ns } else { shard.heartbeat_ns }
}

impl Watched {
    pub const fn new(path: PathBuf, file: StatsFile) -> Self {
        Self { path, file, now: None, before: None, history: VecDeque::new() }
    }

    /// Takes a sample. When a new engine has taken over the path, that one is watched from now on.
    pub fn sample(&mut self) -> Result<(), Failure> {
        if let Ok(file) = StatsFile::open(&self.path)
            && file.info() != self.file.info()
        {
            self.file = file;
            self.now = None;
            self.history.clear();
        }
        let sample = self.file.read();
        let sample = sample.map_err(|e| Failure::usage(format!("{}: {e}", self.path.display())))?;
        self.before = self.now.replace(sample);
        let shards = self.shards();
        let total: f64 = shards.iter().map(bits).sum::<f64>() / 1e6;
        let rtt = shards.iter().map(|s| s.value("rtt_us_p50")).max().unwrap_or(0);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((total, rtt as f64 / 1e3));
        Ok(())
    }

    /// How the engine is.
    pub fn health(&self) -> &Health {
        self.now.as_ref().map_or(&Health::Starting, |s| &s.health)
    }

    pub fn shards(&self) -> Vec<ShardRates<'_>> {
        let Some(now) = &self.now else { return Vec::new() };
        let rates = |sample| {
            let (before, since) = self.before_of(sample);
            let passed = figures_at(now, sample).saturating_sub(since);
            ShardRates { sample, before, seconds: passed as f64 / 1e9 }
        };
        now.shards.iter().map(rates).collect()
    }

    /// The shard in the sample before, and of when its figures were.
    fn before_of(&self, shard: &ShardSample) -> (Option<&ShardSample>, u64) {
        let found = self.before.as_ref().and_then(|b| Some((b, b.shards.get(shard.shard)?)));
        found.map_or((None, self.file.info().monotonic_ns), |(sample, before)| {
            (Some(before), figures_at(sample, before))
        })
    }

    /// The connections of all shards, sorted.
    pub fn connections(&self, sort: Sort) -> Vec<ConnRates<'_>> {
        let mut found = Vec::new();
        for shard in self.shards() {
            for row in &shard.sample.connections {
                let before = shard.before.map(|b| &b.connections[..]).unwrap_or_default();
                let before = before.iter().find(|b| b.id() == row.id());
                let rate = |name: &str| {
                    // Of one that was not in the table before nobody knows since when it counts.
                    let before = before.and_then(|b| b.get(name));
                    let now = row.get(name).unwrap_or(0);
                    let since = if shard.before.is_some() { now } else { 0 };
                    per_second(now, before.unwrap_or(since), shard.seconds)
                };
                let (sent, received) = (rate("bytes_sent"), rate("bytes_received"));
                found.push(ConnRates { shard: shard.sample.shard, row, sent, received });
            }
        }
        found.sort_by(|a, b| b.key(sort).total_cmp(&a.key(sort)));
        found
    }
}

fn bits(shard: &ShardRates<'_>) -> f64 {
    (shard.rate("bytes_received") + shard.rate("bytes_sent")) * 8.0
}
