//! What is known of a channel, and which channels a connection has.

use crate::abi::{self, Struct};
use crate::channel::{kind_of, named, trunk_kind};
use crate::handle::{trunk_channel, trunk_conn};
use crate::instance::{live, trunk_engine};
use crate::result::{guard, trunk_result};
use engine::{ChannelInfo, ChannelPhase};
use std::ffi::c_char;

/// Where a channel stands.
pub type trunk_phase = u32;

/// We asked for it, and the peer has not answered.
pub const TRUNK_PHASE_REQUESTED: trunk_phase = 0;
/// The peer asked for it, and we have not answered.
pub const TRUNK_PHASE_OFFERED: trunk_phase = 1;
/// Both agreed.
pub const TRUNK_PHASE_OPEN: trunk_phase = 2;

/// What is known of a channel. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_channel_info {
    /// Size of this struct; set by trunk_channel_info_init.
    pub struct_size: u32,
    /// What it carries.
    pub kind: trunk_kind,
    /// Where it stands.
    pub phase: trunk_phase,
    /// Whether we asked for it.
    pub ours: u32,
    /// Its id on the wire.
    pub wire_id: u32,
    /// Priority class of what we send.
    pub priority: u32,
    /// Weight of what we send.
    pub weight: u32,
    /// Whether a send would give TRUNK_ERR_WOULD_BLOCK until TRUNK_ITEM_WRITABLE.
    pub blocked: u32,
    /// Bytes that the connection took and has not sent yet. What waits for the shard is not among
    /// them. Bytes of messages count with their lengths, here and below.
    pub queued_bytes: u64,
    /// Reliable bytes that the connection took and the peer has not acknowledged.
    pub unacked_bytes: u64,
    /// Reliable bytes received in order.
    pub received_bytes: u64,
    /// Reliable bytes that the peer may send in all.
    pub receive_limit: u64,
    /// Its name, cut to 255 bytes.
    pub name: [c_char; 256],
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_channel_info {
    const NAME: &'static str = "trunk_channel_info";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            kind: 0,
            phase: TRUNK_PHASE_REQUESTED,
            ours: 0,
            wire_id: 0,
            priority: 0,
            weight: 0,
            blocked: 0,
            queued_bytes: 0,
            unacked_bytes: 0,
            received_bytes: 0,
            receive_limit: 0,
            name: [0; 256],
        }
    }
}

impl From<&ChannelInfo<'_>> for trunk_channel_info {
    fn from(info: &ChannelInfo<'_>) -> Self {
        Self {
            struct_size: 0,
            kind: kind_of(info.kind),
            phase: match info.phase {
                ChannelPhase::Requested => TRUNK_PHASE_REQUESTED,
                ChannelPhase::Offered => TRUNK_PHASE_OFFERED,
                ChannelPhase::Open => TRUNK_PHASE_OPEN,
            },
            ours: info.ours.into(),
            wire_id: info.id.into(),
            priority: info.priority.into(),
            weight: info.weight.into(),
            blocked: info.blocked.into(),
            queued_bytes: info.queued_bytes,
            unacked_bytes: info.unacked_bytes,
            received_bytes: info.received_bytes,
            receive_limit: info.receive_limit,
            name: abi::fixed_text(&info.name),
        }
    }
}

/// Fills struct_size bytes at info with zeros and its size. Call it as
/// trunk_channel_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_info_init_sized(
    info: *mut trunk_channel_info,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(info, struct_size) })
}

/// Stores what is known of a channel.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_get_info(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    info: *mut trunk_channel_info,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { named(engine, channel) }?;
        abi::expect(info, trunk_channel_info::NAME)?;
        live.drive()?;
        let found = live.logged(|| live.queued.channel_info(channel))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(info, &trunk_channel_info::from(&found)) }
    })
}

/// Stores the handles of a connection's channels at channels, at most capacity, in no particular
/// order, and at count how many there are, which may be more. channels may be NULL when capacity is
/// 0.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_channels(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    channels: *mut trunk_channel,
    capacity: usize,
    count: *mut usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect_list(channels, capacity, "channels", count)?;
        live.drive()?;
        let found = live.logged(|| live.queued.channels(live.names.masks.conn_of(conn)))?;
        let found = found.into_iter().map(|channel| live.names.masks.channel(channel));
        // SAFETY: checked, and the caller's memory by contract.
        unsafe { abi::put_list(found, channels, capacity, count) }
    })
}
