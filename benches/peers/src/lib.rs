//! The same workloads through Trunkline and through other transports, on the same machine, in the
//! same run, with the same payload check.
//!
//! ```sh
//! cargo run --release -p trunkline-peers --features peers -- --help
//! ```
//!
//! | module | what it has |
//! | --- | --- |
//! | [`workload`] | the workloads, and what the processes of a measurement are told |
//! | [`payload`], [`frames`], [`pacer`], [`counters`] | messages and their check, messages in streams, schedules, counts |
//! | `peer`, `peers` | what every transport has to offer, and the transports |
//! | `lent` | messages that are not copied |
//! | `side` | one of the two processes of a measurement |
//! | `run`, `program` | one measurement, and rounds of them |
//! | [`scale`] | series of measurements of Trunkline over connections, channels and shards |
//! | `remote` | a bulk measurement whose sides are started by hand, on two hosts or in two namespaces |
//! | [`figures`], [`tables`], [`svg`], [`host`] | medians and ratios, tables, charts, the machine |
//!
//! The client runs in a process pinned to the first processor, the server in one pinned to the
//! second; each has one thread that does the work, so that CPU time and memory of a process are
//! those of one side. Only what the receiver has read, checked and found right counts.
//!
//! Everything that needs another transport is behind the feature `peers`.

pub use trunkline_floor::payload;

pub mod counters;
pub mod figures;
pub mod frames;
pub mod host;
pub mod pacer;
pub mod scale;
pub mod svg;
pub mod tables;
pub mod workload;

#[cfg(feature = "peers")]
pub mod identity;
#[cfg(feature = "peers")]
pub mod lent;
#[cfg(feature = "peers")]
pub mod peer;
#[cfg(feature = "peers")]
pub mod peers;
#[cfg(feature = "peers")]
pub mod program;
#[cfg(feature = "peers")]
pub mod remote;
#[cfg(feature = "peers")]
pub mod run;
#[cfg(feature = "peers")]
pub mod side;
