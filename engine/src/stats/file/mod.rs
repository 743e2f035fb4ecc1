//! Figures of a running engine in a file: [`EngineConfig::stats_file`].
//!
//! The engine maps the file and each shard keeps its part of it up to date with plain stores. Nobody
//! is asked, so that whoever reads the file learns the same of a process that hangs, and of one that
//! is gone. [`StatsFile`] reads it; `docs/watching.md` has the layout and the meaning of the fields.
//!
//! Counters and gauges are right whenever a shard sleeps, and at most 200 ms old while it does not.
//! The rows of connections, and what is added up over connections, come from a walk over them that
//! takes place five times a second at most (fifteen times when the shard has little to do), over at
//! most 1024 connections at once. The last walk before a shard sleeps for long has them right.
//!
//! [`EngineConfig::stats_file`]: crate::EngineConfig::stats_file

pub(crate) mod layout;
mod process;
mod read;
#[cfg(unix)]
pub(crate) mod write;

pub use read::{ConnRow, Field, Health, Info, Kind, ReadError, Sample, ShardSample, StatsFile};

#[cfg(test)]
mod tests;
