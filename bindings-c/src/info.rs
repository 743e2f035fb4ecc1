//! What is known of a connection, and what it and its engine have done.

use crate::abi::{self, Struct};
use crate::handle::trunk_conn;
use crate::instance::{live, trunk_engine};
use crate::result::{Error, guard, trunk_result};
use crate::security::TRUNK_FINGERPRINT_BYTES;
use crate::status::{
    TRUNK_HANDSHAKE_NONE, TRUNK_REASON_NONE, TRUNK_STATUS_NONE, handshake, trunk_handshake,
    trunk_reason, trunk_status,
};
use engine::{ConnInfo, ConnStats, Link, Role};
use std::ffi::c_char;

/// Which side of a connection we are.
pub type trunk_role = u32;

/// We connected.
pub const TRUNK_ROLE_CLIENT: trunk_role = 0;
/// We accepted.
pub const TRUNK_ROLE_HOST: trunk_role = 1;

/// What carries a connection.
pub type trunk_link = u32;

/// Packets in UDP datagrams.
pub const TRUNK_LINK_DATAGRAM: trunk_link = 0;
/// TLS over TCP.
pub const TRUNK_LINK_STREAM: trunk_link = 1;

pub(crate) const fn role(role: Role) -> trunk_role {
    match role {
        Role::Client => TRUNK_ROLE_CLIENT,
        Role::Host => TRUNK_ROLE_HOST,
    }
}

pub(crate) const fn link(link: Link) -> trunk_link {
    match link {
        Link::Datagram => TRUNK_LINK_DATAGRAM,
        Link::Stream => TRUNK_LINK_STREAM,
    }
}

/// What is known of a connection. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_conn_info {
    /// Size of this struct; set by trunk_conn_info_init.
    pub struct_size: u32,
    /// The status.
    pub status: trunk_status,
    /// Whether we are client or host.
    pub role: trunk_role,
    /// Whether the peer has shown a certificate, and peer is valid.
    pub has_peer: u32,
    /// The peer's fingerprint.
    pub peer: [u8; TRUNK_FINGERPRINT_BYTES],
    /// The peer's address and port.
    pub remote: [c_char; 64],
    /// Our address towards the peer, without a port; empty when the system does not tell.
    pub local: [c_char; 64],
    /// TLS cipher suite; empty before the handshake.
    pub suite: [c_char; 48],
    /// Whether the TLS session was resumed.
    pub resumed: u32,
    /// Why the connection ended; TRUNK_REASON_NONE while it has not.
    pub reason: trunk_reason,
    /// The reason in words.
    pub reason_text: [c_char; 128],
    /// What our role waits for while the connection is made, or how the attempt ended.
    pub handshake: trunk_handshake,
    /// Whether the peer closed and said that it had thrown away data which it had received.
    pub peer_discarded: u32,
    /// What carries it.
    pub link: trunk_link,
    /// Whether that is the plain protocol, which has only frames, requests and EOFs.
    pub plain: u32,
    /// Whether packets go over the relay of an event source; remote only stands for the peer then.
    pub relayed: u32,
    /// The shard that it belongs to, from 0 on; its callbacks come on one thread.
    pub shard: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_conn_info {
    const NAME: &'static str = "trunk_conn_info";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            status: TRUNK_STATUS_NONE,
            role: TRUNK_ROLE_CLIENT,
            has_peer: 0,
            peer: [0; TRUNK_FINGERPRINT_BYTES],
            remote: [0; 64],
            local: [0; 64],
            suite: [0; 48],
            resumed: 0,
            reason: TRUNK_REASON_NONE,
            reason_text: [0; 128],
            handshake: TRUNK_HANDSHAKE_NONE,
            peer_discarded: 0,
            link: TRUNK_LINK_DATAGRAM,
            plain: 0,
            relayed: 0,
            shard: 0,
        }
    }
}

impl From<&ConnInfo> for trunk_conn_info {
    fn from(info: &ConnInfo) -> Self {
        let local = info.local.map(|ip| ip.to_string()).unwrap_or_default();
        let reason = info.reason.as_ref();
        Self {
            struct_size: 0,
            status: info.status as trunk_status,
            role: role(info.role),
            has_peer: info.peer.is_some().into(),
            peer: info.peer.map_or([0; TRUNK_FINGERPRINT_BYTES], |peer| peer.0),
            remote: abi::fixed_text(&info.remote.to_string()),
            local: abi::fixed_text(&local),
            suite: abi::fixed_text(info.suite.unwrap_or_default()),
            resumed: info.resumed.into(),
            reason: reason.map_or(TRUNK_REASON_NONE, |r| r.reason.0),
            reason_text: abi::fixed_text(reason.map_or("", |r| r.text.as_str())),
            handshake: handshake(info.handshake),
            peer_discarded: info.peer_discarded.into(),
            link: link(info.link),
            plain: info.plain.into(),
            relayed: info.relayed.into(),
            shard: 0,
        }
    }
}

/// Counters and gauges of a connection. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_conn_stats {
    /// Size of this struct; set by trunk_conn_stats_init.
    pub struct_size: u32,
    /// Channels open.
    pub channels: u32,
    /// Smoothed round trip.
    pub rtt_ns: u64,
    /// Smallest round trip.
    pub rtt_min_ns: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received and opened.
    pub packets_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Packets received that could not be opened, or came twice.
    pub packets_rejected: u64,
    /// Reliable frames sent again.
    pub retransmits: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// Congestion window in bytes.
    pub window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Reliable bytes handed over and not acknowledged.
    pub unacked_bytes: u64,
    /// UDP payload bytes of a full packet.
    pub packet_size: u64,
    /// Unreliable messages dropped before they were sent.
    pub datagrams_dropped: u64,
    /// How much round trips vary; 0 over a stream.
    pub rtt_var_ns: u64,
    /// Bytes a second that packets leave at while there is enough to send; 0 = not limited, or not
    /// known.
    pub pacing_rate: u64,
    /// Those of unacked_bytes that were never sent.
    pub unsent_bytes: u64,
    /// Those of packets_lost that had arrived, as an acknowledgement said later.
    pub spurious_losses: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_conn_stats {
    const NAME: &'static str = "trunk_conn_stats";

    fn defaults() -> Self {
        Self::from(&ConnStats::default())
    }
}

impl From<&ConnStats> for trunk_conn_stats {
    fn from(stats: &ConnStats) -> Self {
        Self {
            struct_size: 0,
            channels: stats.channels,
            rtt_ns: stats.rtt.as_nanos(),
            rtt_min_ns: stats.rtt_min.as_nanos(),
            packets_sent: stats.packets_sent,
            packets_received: stats.packets_received,
            packets_lost: stats.packets_lost,
            packets_rejected: stats.packets_rejected,
            retransmits: stats.retransmits,
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            window: stats.window,
            in_flight: stats.in_flight,
            unacked_bytes: stats.unacked_bytes,
            packet_size: stats.packet_size,
            datagrams_dropped: stats.datagrams_dropped,
            rtt_var_ns: stats.rtt_var.as_nanos(),
            pacing_rate: stats.pacing_rate,
            unsent_bytes: stats.unsent_bytes,
            spurious_losses: stats.spurious_losses,
        }
    }
}

/// Fills struct_size bytes at info with zeros and its size. Call it as trunk_conn_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_info_init_sized(
    info: *mut trunk_conn_info,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(info, struct_size) })
}

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_conn_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_stats_init_sized(
    stats: *mut trunk_conn_stats,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(stats, struct_size) })
}

/// Stores what is known of a connection.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_NO_CONNECTION (the shard does not answer), TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_get_info(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    info: *mut trunk_conn_info,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(info, trunk_conn_info::NAME)?;
        live.drive()?;
        let conn = live.names.masks.conn_of(conn);
        let found = live.logged(|| live.queued.info(conn))?;
        let answer =
            trunk_conn_info { shard: conn.shard().into(), ..trunk_conn_info::from(&found) };
        // SAFETY: a struct by contract.
        unsafe { abi::write(info, &answer) }
    })
}

/// Stores counters and gauges of a connection.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_get_stats(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    stats: *mut trunk_conn_stats,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(stats, trunk_conn_stats::NAME)?;
        live.drive()?;
        let found = live.logged(|| live.queued.stats(live.names.masks.conn_of(conn)))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(stats, &trunk_conn_stats::from(&found)) }
    })
}

/// Stores the handles of the engine's connections at conns, at most capacity, in no particular
/// order, and at count how many there are, which may be more: all that trunk_close was not called
/// for, those that are offered among them. conns may be NULL when capacity is 0.
///
/// Any thread; without threads the one that polls. Inside a callback only on an engine with one
/// shard. Waits for the shards, usually for microseconds. Errors: as trunk_conn_get_info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_conns(
    engine: *mut trunk_engine,
    conns: *mut trunk_conn,
    capacity: usize,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect_list(conns, capacity, "conns", count)?;
        live.drive()?;
        let found = live.logged(|| live.queued.connections())?;
        let found = found.into_iter().map(|conn| live.names.masks.conn(conn));
        // SAFETY: checked, and the caller's memory by contract.
        unsafe { abi::put_list(found, conns, capacity, count) }
    })
}

/// Stores which of the engine's shards carries a connection, from 0: for state that callbacks keep
/// for each shard. It stays the same as long as the connection.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_shard(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    shard: *mut u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        let conn = live.names.masks.conn_of(conn);
        if live.queued.status(conn) == engine::Status::None {
            return Err(Error::handle("no such connection"));
        }
        // SAFETY: writable by contract.
        unsafe { abi::put(shard, "shard", u32::from(conn.shard())) }
    })
}

/// Stores the time of the engine's clock, which trunk_sec_info.established_ns is of, in
/// nanoseconds.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_now(engine: *mut trunk_engine, ns: *mut u64) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: writable by contract.
        unsafe { abi::put(ns, "ns", live.queued.now().as_nanos()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::TRUNK_HANDSHAKE_FAILED_AUTHENTICATION;
    use engine::{CloseReason, HandshakeFailure, HandshakeState, PeerId, Reason, Status};

    #[test]
    fn info_fits_its_fixed_texts() {
        let info = ConnInfo {
            role: Role::Host,
            status: Status::ClosedByPeer,
            handshake: HandshakeState::ConnectionFailed(HandshakeFailure::Authentication),
            remote: "[2001:db8:1111:2222:3333:4444:5555:6666%4294967295]:65535".parse().unwrap(),
            local: Some("::1".parse().unwrap()),
            peer: Some(PeerId([9; 32])),
            reason: Some(CloseReason::new(Reason::APP, &"x".repeat(200))),
            suite: Some("TLS13_AES_128_GCM_SHA256"),
            resumed: true,
            peer_discarded: true,
            link: engine::Link::Datagram,
            plain: false,
            relayed: false,
        };
        let c = trunk_conn_info::from(&info);
        let text = |chars: &[c_char]| -> String {
            chars.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
        };
        assert_eq!(text(&c.remote), info.remote.to_string());
        assert_eq!(text(&c.local), "::1");
        assert_eq!(text(&c.suite), "TLS13_AES_128_GCM_SHA256");
        assert_eq!(text(&c.reason_text).len(), 127);
        assert_eq!((c.status, c.reason, c.role), (4, 1000, TRUNK_ROLE_HOST));
        assert_eq!((c.has_peer, c.peer, c.resumed), (1, [9; 32], 1));
        assert_eq!(c.peer_discarded, 1);
        assert_eq!(c.handshake, TRUNK_HANDSHAKE_FAILED_AUTHENTICATION);
    }
}
