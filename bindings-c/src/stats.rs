//! Counters of an engine, its shards and its poll groups.

use crate::abi::{self, Struct};
use crate::callbacks::outside_of_callbacks;
use crate::handle::trunk_group;
use crate::instance::{Live, live, trunk_engine};
use crate::receive::group_at;
use crate::result::{Error, Result, guard, trunk_result};
use engine::stats::{EngineStats, ShardStats, Summary};

/// Counters of an engine, over all its shards. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_engine_stats {
    /// Size of this struct; set by trunk_engine_stats_init.
    pub struct_size: u32,
    /// Shards that answered.
    pub shards: u32,
    /// Live connections.
    pub connections: u64,
    /// Connections that were made or accepted.
    pub connections_opened: u64,
    /// Connections that are gone.
    pub connections_closed: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of them received.
    pub bytes_received: u64,
    /// Bytes of them sent.
    pub bytes_sent: u64,
    /// Connection requests dropped because their source is denied.
    pub requests_denied: u64,
    /// Connection requests dropped because their source asked too often.
    pub requests_limited: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_engine_stats {
    const NAME: &'static str = "trunk_engine_stats";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            shards: 0,
            connections: 0,
            connections_opened: 0,
            connections_closed: 0,
            datagrams_received: 0,
            datagrams_sent: 0,
            bytes_received: 0,
            bytes_sent: 0,
            requests_denied: 0,
            requests_limited: 0,
        }
    }
}

impl From<&EngineStats> for trunk_engine_stats {
    fn from(stats: &EngineStats) -> Self {
        let total = stats.total();
        Self {
            struct_size: 0,
            shards: stats.shards.len() as u32,
            connections: stats.connections() as u64,
            connections_opened: total.connections_opened,
            connections_closed: total.connections_closed,
            datagrams_received: total.datagrams_received,
            datagrams_sent: total.datagrams_sent,
            bytes_received: total.bytes_received,
            bytes_sent: total.bytes_sent,
            requests_denied: total.requests_denied,
            requests_limited: total.requests_limited,
        }
    }
}

/// Percentiles of a distribution. Of fixed size: it does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct trunk_summary {
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

impl From<&Summary> for trunk_summary {
    fn from(s: &Summary) -> Self {
        Self { count: s.count, min: s.min, p50: s.p50, p99: s.p99, p999: s.p999, max: s.max }
    }
}

/// Counters and gauges of one shard since it started. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_shard_stats {
    /// Size of this struct; set by trunk_shard_stats_init.
    pub struct_size: u32,
    /// Whether the shard has failed.
    pub failed: u32,
    /// Live connections.
    pub connections: u64,
    /// Smoothed round trips of the live connections, in microseconds.
    pub rtt_us: trunk_summary,
    /// Time from one turn of the busy shard to the next, in microseconds.
    pub loop_us: trunk_summary,
    /// Turns of the event loop.
    pub turns: u64,
    /// Turns that waited for work.
    pub sleeps: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Trains of datagrams handed to the system at once.
    pub trains_sent: u64,
    /// Trains that the system refused.
    pub trains_failed: u64,
    /// Turns in which no transmit buffer was free.
    pub transmit_stalls: u64,
    /// Calls about received data and events.
    pub events: u64,
    /// Calls of the application that the shard carried out.
    pub commands: u64,
    /// Datagrams handed to another shard.
    pub forwards_sent: u64,
    /// Datagrams taken over from other shards.
    pub forwards_received: u64,
    /// Datagrams for another shard that were dropped.
    pub forwards_dropped: u64,
    /// Connection requests dropped because their source is denied.
    pub requests_denied: u64,
    /// Connection requests dropped because their source asked too often.
    pub requests_limited: u64,
    /// STUN requests that were answered.
    pub stun_answered: u64,
    /// STUN messages that were dropped.
    pub stun_dropped: u64,
    /// Connections that were made or accepted.
    pub connections_opened: u64,
    /// Connections that are gone.
    pub connections_closed: u64,
    /// System calls of the driver.
    pub syscalls: u64,
    /// Trains that the system cut into packets.
    pub tx_gso: u64,
    /// Sends that found the socket's buffer full.
    pub tx_blocked: u64,
    /// Receives that brought several datagrams.
    pub rx_gro: u64,
    /// Datagrams that the system dropped because a socket's buffer was full.
    pub rx_dropped: u64,
    /// Moments at which no receive buffer was free.
    pub rx_no_buffer: u64,
    /// Datagrams that were nothing of ours, or damaged in their headers.
    pub malformed: u64,
    /// Packets whose connection id names no live connection.
    pub unknown_id: u64,
    /// Packets that could not be opened.
    pub rejected: u64,
    /// Packets that were copies, or too old to be told from copies.
    pub copies: u64,
    /// Connection requests answered with a demand to prove the address.
    pub retries: u64,
    /// Handshakes of hosts that failed.
    pub handshakes_failed: u64,
    /// Answers to packets of connections that are not known any more.
    pub resets_sent: u64,
}

impl From<&ShardStats> for trunk_shard_stats {
    fn from(stats: &ShardStats) -> Self {
        Self {
            struct_size: 0,
            failed: stats.failure.is_some().into(),
            connections: stats.connections as u64,
            rtt_us: (&stats.rtt_us).into(),
            loop_us: (&stats.loop_us).into(),
            turns: stats.counts.turns,
            sleeps: stats.counts.sleeps,
            datagrams_received: stats.counts.datagrams_received,
            bytes_received: stats.counts.bytes_received,
            datagrams_sent: stats.counts.datagrams_sent,
            bytes_sent: stats.counts.bytes_sent,
            trains_sent: stats.counts.trains_sent,
            trains_failed: stats.counts.trains_failed,
            transmit_stalls: stats.counts.transmit_stalls,
            events: stats.counts.events,
            commands: stats.counts.commands,
            forwards_sent: stats.counts.forwards_sent,
            forwards_received: stats.counts.forwards_received,
            forwards_dropped: stats.counts.forwards_dropped,
            requests_denied: stats.counts.requests_denied,
            requests_limited: stats.counts.requests_limited,
            stun_answered: stats.counts.stun_answered,
            stun_dropped: stats.counts.stun_dropped,
            connections_opened: stats.counts.connections_opened,
            connections_closed: stats.counts.connections_closed,
            syscalls: stats.driver.syscalls,
            tx_gso: stats.driver.tx_gso,
            tx_blocked: stats.driver.tx_blocked,
            rx_gro: stats.driver.rx_gro,
            rx_dropped: stats.driver.rx_dropped,
            rx_no_buffer: stats.driver.rx_no_buffer,
            malformed: stats.endpoint.malformed,
            unknown_id: stats.endpoint.unknown_id,
            rejected: stats.endpoint.rejected,
            copies: stats.endpoint.copies,
            retries: stats.endpoint.retries,
            handshakes_failed: stats.endpoint.failed_handshakes,
            resets_sent: stats.endpoint.resets_sent,
        }
    }
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_shard_stats {
    const NAME: &'static str = "trunk_shard_stats";

    fn defaults() -> Self {
        Self::from(&ShardStats::default())
    }
}

/// Gauges of a poll group. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_group_stats {
    /// Size of this struct; set by trunk_group_stats_init.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes of messages that wait to be received.
    pub waiting_bytes: u64,
    /// Unreliable messages that were dropped because the group was not emptied in time.
    pub dropped: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_group_stats {
    const NAME: &'static str = "trunk_group_stats";

    fn defaults() -> Self {
        Self { struct_size: 0, reserved: 0, waiting_bytes: 0, dropped: 0 }
    }
}

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_engine_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_stats_init_sized(
    stats: *mut trunk_engine_stats,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(stats, struct_size) })
}

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_shard_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_shard_stats_init_sized(
    stats: *mut trunk_shard_stats,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(stats, struct_size) })
}

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_group_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_group_stats_init_sized(
    stats: *mut trunk_group_stats,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(stats, struct_size) })
}

/// What the shards say; those that do not answer are missing.
fn ask(live: &Live) -> Result<EngineStats> {
    live.drive()?;
    outside_of_callbacks()?;
    Ok(live.logged(|| live.queued.engine_stats()))
}

/// Stores counters of the engine.
///
/// Any thread, but not inside a callback; without threads the one that polls. Waits for the shards,
/// usually for microseconds. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_get_stats(
    engine: *mut trunk_engine,
    stats: *mut trunk_engine_stats,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(stats, trunk_engine_stats::NAME)?;
        let found = ask(live)?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(stats, &trunk_engine_stats::from(&found)) }
    })
}

/// Stores counters and gauges of one shard, from 0 to one less than the number of shards.
///
/// Threads as trunk_engine_get_stats. Errors: as trunk_engine_get_stats, and
/// TRUNK_ERR_INVALID_ARGUMENT; TRUNK_ERR_FAILED when the shard does not answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_get_shard_stats(
    engine: *mut trunk_engine,
    shard: u32,
    stats: *mut trunk_shard_stats,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(stats, trunk_shard_stats::NAME)?;
        if shard as usize >= live.queued.shards() {
            return Err(Error::invalid("shard", "is not below the number of shards"));
        }
        let found = ask(live)?;
        let one = found.shards.iter().find(|one| u32::from(one.shard) == shard);
        let one =
            one.ok_or(Error::new(crate::result::TRUNK_ERR_FAILED, "the shard does not answer"))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(stats, &trunk_shard_stats::from(one)) }
    })
}

/// Stores gauges of a poll group (0 = the engine's own).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_group_get_stats(
    engine: *mut trunk_engine,
    group: trunk_group,
    stats: *mut trunk_group_stats,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(stats, trunk_group_stats::NAME)?;
        let group = group_at(live, group)?;
        let answer = trunk_group_stats {
            struct_size: 0,
            reserved: 0,
            waiting_bytes: group.waiting_bytes() as u64,
            dropped: group.dropped(),
        };
        // SAFETY: a struct by contract.
        unsafe { abi::write(stats, &answer) }
    })
}
