//! What an event source is told at its start, and what it says of itself.

use crate::abi::{self, Struct};
use crate::result::{Error, Result, TRUNK_ERR_INVALID_ARGUMENT, guard, trunk_result};
use engine::rendezvous::{AppId, RelayStats, ServerStats, SourceConfig, SourceStats};
use std::ffi::c_char;

/// Settings of an event source. trunk_source_config_init fills in the defaults, which are stated
/// with each field. Everything that it points to is copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_source_config {
    /// Size of this struct; set by trunk_source_config_init.
    pub struct_size: u32,
    /// Clients of one shard at once; more are sent away as busy, for which
    /// trunk_engine_config.max_connections must leave room. 65536.
    pub max_clients: u32,
    /// Applications that are served. NULL = every one that a token names.
    pub apps: *const *const c_char,
    /// Number of them; 0 = every one that a token names.
    pub app_count: usize,
    /// Events a second that a client may send; more are dropped. 50.
    pub events_per_s: u32,
    /// Events that it may send at once. 100.
    pub events_burst: u32,
    /// Bytes of events a second that a client may send. 128 KiB.
    pub bytes_per_s: u64,
    /// Bytes that it may send at once. 512 KiB.
    pub bytes_burst: u64,
    /// Events a second that are dropped for what they are (malformed, forged, too many) before the
    /// client is. 20.
    pub faults_per_s: u32,
    /// Such events that may come at once. 500.
    pub faults_burst: u32,
    /// Events that wait for one client to take them. 64.
    pub queue_events: u32,
    /// Not 0: packets of connections between clients are relayed. 1.
    pub relay: u32,
    /// Bytes that wait for one client to take them. 128 KiB.
    pub queue_bytes: u64,
    /// Packets a second that a client may have relayed; more are dropped. 1000.
    pub relay_packets_per_s: u32,
    /// Packets that it may have relayed at once. 1000.
    pub relay_packets_burst: u32,
    /// Bytes a second that a client may have relayed. 512 KiB.
    pub relay_bytes_per_s: u64,
    /// Bytes that it may have relayed at once. 512 KiB.
    pub relay_bytes_burst: u64,
    /// A client that takes nothing for this long while something waits is not alive. 10 s.
    pub stall_limit_ns: u64,
    /// A client that does not open its channel for this long is not alive. 10 s.
    pub open_limit_ns: u64,
    /// Not 0: a token that expires also ends the connection that was made with it. 0.
    pub end_expired: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_source_config {
    const NAME: &'static str = "trunk_source_config";

    fn defaults() -> Self {
        Self::from(&SourceConfig::default())
    }
}

/// All but the applications, which are on nobody's list by default.
impl From<&SourceConfig> for trunk_source_config {
    fn from(config: &SourceConfig) -> Self {
        Self {
            struct_size: 0,
            max_clients: u32::try_from(config.max_clients).unwrap_or(u32::MAX),
            apps: std::ptr::null(),
            app_count: 0,
            events_per_s: config.events_per_s,
            events_burst: config.events_burst,
            bytes_per_s: config.bytes_per_s,
            bytes_burst: config.bytes_burst,
            faults_per_s: config.faults_per_s,
            faults_burst: config.faults_burst,
            queue_events: u32::try_from(config.queue_events).unwrap_or(u32::MAX),
            relay: config.relay.into(),
            queue_bytes: config.queue_bytes as u64,
            relay_packets_per_s: config.relay_packets_per_s,
            relay_packets_burst: config.relay_packets_burst,
            relay_bytes_per_s: config.relay_bytes_per_s,
            relay_bytes_burst: config.relay_bytes_burst,
            stall_limit_ns: config.stall_limit.as_nanos(),
            open_limit_ns: config.open_limit.as_nanos(),
            end_expired: config.end_expired.into(),
            reserved: 0,
        }
    }
}

impl trunk_source_config {
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    pub(crate) unsafe fn convert(&self) -> Result<SourceConfig> {
        // SAFETY: an array by contract.
        let names = unsafe { abi::array(self.apps, self.app_count, "apps") }?;
        let mut apps = Vec::with_capacity(names.len());
        for name in names {
            // SAFETY: a string by contract.
            let name = unsafe { abi::text(*name, "apps") }?;
            let wrong =
                |e| Error::text(TRUNK_ERR_INVALID_ARGUMENT, format!("apps: \"{name}\" {e}"));
            apps.push(AppId::new(name).map_err(wrong)?);
        }
        let config = SourceConfig {
            apps: (!apps.is_empty()).then_some(apps),
            max_clients: self.max_clients as usize,
            events_per_s: self.events_per_s,
            events_burst: self.events_burst,
            bytes_per_s: self.bytes_per_s,
            bytes_burst: self.bytes_burst,
            faults_per_s: self.faults_per_s,
            faults_burst: self.faults_burst,
            queue_events: self.queue_events as usize,
            queue_bytes: usize::try_from(self.queue_bytes)
                .map_err(|_| Error::invalid("queue_bytes", "is larger than the address space"))?,
            relay: self.relay != 0,
            relay_packets_per_s: self.relay_packets_per_s,
            relay_packets_burst: self.relay_packets_burst,
            relay_bytes_per_s: self.relay_bytes_per_s,
            relay_bytes_burst: self.relay_bytes_burst,
            stall_limit: engine::Duration::from_nanos(self.stall_limit_ns),
            open_limit: engine::Duration::from_nanos(self.open_limit_ns),
            end_expired: self.end_expired != 0,
        };
        config.validate()?;
        Ok(config)
    }
}

/// What an event source has to say about itself, over all its shards: gauges, and counters since
/// its start. docs/pairing.md says what each means to a client. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_source_stats {
    /// Size of this struct; set by trunk_source_stats_init.
    pub struct_size: u32,
    /// Shards.
    pub shards: u32,
    /// Those of them that have failed: a mistake of this library, please report it.
    pub failed_shards: u32,
    /// 0.
    pub reserved: u32,
    /// Clients that are connected.
    pub clients: u64,
    /// Events that wait for clients to take them.
    pub waiting_events: u64,
    /// Bytes of them.
    pub waiting_bytes: u64,
    /// Clients that were let in.
    pub attached: u64,
    /// Clients that were sent away because too many were there.
    pub busy: u64,
    /// Clients that were not let in because their token does not allow their role.
    pub refused_invalid_role: u64,
    /// The same, because their client id is malformed, or their token does not allow it.
    pub refused_invalid_client_id: u64,
    /// The same, because their token is malformed, forged or expired, or its key unknown.
    pub refused_invalid_access_token: u64,
    /// The same, because their application is not served here.
    pub refused_not_authorized: u64,
    /// The same, because a newer connection has the client id.
    pub refused_released_by_other: u64,
    /// The same, because they are not alive.
    pub refused_client_not_alive: u64,
    /// Clients that were let in and aborted later, because their token does not allow their role.
    pub aborted_invalid_role: u64,
    /// The same, because their token does not allow their client id.
    pub aborted_invalid_client_id: u64,
    /// The same, because their token has expired.
    pub aborted_invalid_access_token: u64,
    /// The same, because they sent too many events that are no good.
    pub aborted_not_authorized: u64,
    /// The same, because a newer connection has the client id.
    pub aborted_released_by_other: u64,
    /// The same, because they took nothing for too long, or opened no channel.
    pub aborted_client_not_alive: u64,
    /// Events of clients that carry something of their application.
    pub received_application: u64,
    /// Pings.
    pub received_ping: u64,
    /// Events of clients that went passive.
    pub received_inactive: u64,
    /// Events of controllers that took another partner, or none.
    pub received_unassign: u64,
    /// Events that answer a ping which led nowhere.
    pub received_reject: u64,
    /// Events of partners that look for a route.
    pub received_route: u64,
    /// Events handed to clients, also those that waited.
    pub delivered: u64,
    /// Events handed to other shards.
    pub forwarded: u64,
    /// Events that had to wait for their recipient.
    pub queued: u64,
    /// Events dropped: their recipient is not there.
    pub absent: u64,
    /// Pings between applications, each answered with a reject.
    pub rejected_app: u64,
    /// Pings between clients of one role, each answered with a reject.
    pub rejected_role: u64,
    /// Events dropped: they may not pass between their sender and their recipient.
    pub blocked: u64,
    /// Events dropped: they gave a false sender.
    pub forged: u64,
    /// Events dropped: they could not be read.
    pub malformed: u64,
    /// Events dropped: longer than an event can be.
    pub oversize: u64,
    /// Events dropped: their type is not known.
    pub unknown_type: u64,
    /// Events dropped: beyond what a client may send.
    pub limited: u64,
    /// Events dropped: the queue of their recipient was full, or the way to it.
    pub overflowed: u64,
    /// Packets between clients that were handed to their recipients.
    pub relay_delivered: u64,
    /// Bytes of them.
    pub relay_delivered_bytes: u64,
    /// Packets handed to other shards.
    pub relay_forwarded: u64,
    /// Packets dropped: their recipient is not there, or takes none.
    pub relay_absent: u64,
    /// Packets dropped: they may not pass between their sender and their recipient.
    pub relay_blocked: u64,
    /// Packets dropped: they could not be read.
    pub relay_malformed: u64,
    /// Packets dropped: longer than one can be.
    pub relay_oversize: u64,
    /// Packets dropped: beyond what a client may have relayed.
    pub relay_limited: u64,
    /// Packets dropped: the channel of their recipient was full, or the way to it.
    pub relay_overflowed: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_source_stats {
    const NAME: &'static str = "trunk_source_stats";

    fn defaults() -> Self {
        Self::from(&ServerStats::default())
    }
}

/// All but the shards, which the engine counts.
impl From<&ServerStats> for trunk_source_stats {
    fn from(stats: &ServerStats) -> Self {
        // Exhaustive: a counter that is added there is added here.
        let ServerStats { clients, waiting_events, waiting_bytes, source } = *stats;
        #[rustfmt::skip]
        let SourceStats {
            attached, busy, delivered, forwarded, absent, rejected_app, rejected_role, blocked,
            forged, malformed, oversize, unknown_type, limited, queued, overflowed,
            refused: [
                refused_invalid_role, refused_invalid_client_id, refused_invalid_access_token,
                refused_not_authorized, refused_released_by_other, refused_client_not_alive,
            ],
            aborted: [
                aborted_invalid_role, aborted_invalid_client_id, aborted_invalid_access_token,
                aborted_not_authorized, aborted_released_by_other, aborted_client_not_alive,
            ],
            received: [
                received_application, received_ping, received_inactive, received_unassign,
                received_reject, received_route,
            ],
            relay: RelayStats {
                delivered: relay_delivered, delivered_bytes: relay_delivered_bytes,
                forwarded: relay_forwarded, absent: relay_absent, blocked: relay_blocked,
                malformed: relay_malformed, oversize: relay_oversize, limited: relay_limited,
                overflowed: relay_overflowed,
            },
        } = source;
        Self {
            struct_size: 0,
            shards: 0,
            failed_shards: 0,
            reserved: 0,
            clients: clients as u64,
            waiting_events: waiting_events as u64,
            waiting_bytes: waiting_bytes as u64,
            attached,
            busy,
            refused_invalid_role,
            refused_invalid_client_id,
            refused_invalid_access_token,
            refused_not_authorized,
            refused_released_by_other,
            refused_client_not_alive,
            aborted_invalid_role,
            aborted_invalid_client_id,
            aborted_invalid_access_token,
            aborted_not_authorized,
            aborted_released_by_other,
            aborted_client_not_alive,
            received_application,
            received_ping,
            received_inactive,
            received_unassign,
            received_reject,
            received_route,
            delivered,
            forwarded,
            queued,
            absent,
            rejected_app,
            rejected_role,
            blocked,
            forged,
            malformed,
            oversize,
            unknown_type,
            limited,
            overflowed,
            relay_delivered,
            relay_delivered_bytes,
            relay_forwarded,
            relay_absent,
            relay_blocked,
            relay_malformed,
            relay_oversize,
            relay_limited,
            relay_overflowed,
        }
    }
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_source_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_source_config_init_sized(
    config: *mut trunk_source_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_source_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_source_stats_init_sized(
    stats: *mut trunk_source_stats,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(stats, struct_size) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_survive_the_way_there_and_back() {
        // SAFETY: the pointers are NULL.
        let config = unsafe { trunk_source_config::defaults().convert() }.unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", SourceConfig::default()));
    }

    #[test]
    fn every_setting_arrives() {
        let apps = [c"chess".as_ptr(), c"go".as_ptr()];
        let config = trunk_source_config {
            struct_size: 0,
            max_clients: 1,
            apps: apps.as_ptr(),
            app_count: 2,
            events_per_s: 2,
            events_burst: 3,
            bytes_per_s: 4,
            bytes_burst: 10_005,
            faults_per_s: 6,
            faults_burst: 7,
            queue_events: 8,
            relay: 0,
            queue_bytes: 10_009,
            relay_packets_per_s: 10,
            relay_packets_burst: 11,
            relay_bytes_per_s: 12,
            relay_bytes_burst: 10_013,
            stall_limit_ns: 14_000_000_000,
            open_limit_ns: 15_000_000_000,
            end_expired: 1,
            reserved: 0,
        };
        // SAFETY: an array of literals.
        let there = unsafe { config.convert() }.unwrap();
        let names: Vec<_> = there.apps.as_ref().unwrap().iter().map(AppId::as_str).collect();
        assert_eq!(names, ["chess", "go"]);
        let back = trunk_source_config { apps: config.apps, app_count: 2, ..(&there).into() };
        assert_eq!(format!("{back:?}"), format!("{config:?}"));
    }

    #[test]
    fn errors_name_the_field() {
        let wrong = |change: fn(&mut trunk_source_config)| {
            let mut config = trunk_source_config::defaults();
            change(&mut config);
            // SAFETY: the pointers are NULL.
            unsafe { config.convert() }.unwrap_err().to_string()
        };
        assert!(wrong(|c| c.max_clients = 0).contains("max_clients"));
        assert!(wrong(|c| c.stall_limit_ns = 5).contains("stall_limit"));
        assert!(wrong(|c| c.app_count = 1).contains("apps is NULL"));
        let apps = [c"a b".as_ptr()];
        let config =
            trunk_source_config { apps: apps.as_ptr(), app_count: 1, ..Struct::defaults() };
        // SAFETY: an array of literals.
        let error = unsafe { config.convert() }.unwrap_err().to_string();
        assert!(error.starts_with("apps: \"a b\" has a character"), "{error}");
    }

    #[test]
    fn counters_by_reason_and_type_have_their_places() {
        let source = SourceStats {
            refused: [1, 2, 3, 4, 5, 6],
            aborted: [11, 12, 13, 14, 15, 16],
            received: [21, 22, 23, 24, 25, 26],
            ..SourceStats::default()
        };
        let stats = ServerStats { clients: 7, source, ..ServerStats::default() };
        let c = trunk_source_stats::from(&stats);
        let said = format!("{c:?}");
        for counter in source.counters() {
            let Some((_, label)) = counter.label else { continue };
            let Some((_, kind)) = counter.name.split_once('_') else { continue };
            let value = counter.value;
            if value != 0 {
                assert!(said.contains(&format!(" {kind}_{label}: {value},")), "{counter:?}");
            }
        }
        assert_eq!((c.clients, c.refused_client_not_alive, c.received_route), (7, 6, 26));
    }
}
