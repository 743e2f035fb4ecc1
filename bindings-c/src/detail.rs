//! Details of items: plain C structs with the texts that they point to.

use crate::association::{trunk_association_change, trunk_delivery};
use crate::channel::trunk_channel_options;
use crate::manager::trunk_opened;
use crate::pairing_notice::{trunk_pairing_notice, trunk_peer, trunk_relayed};
use crate::sec_info::trunk_sec_info;
use crate::security::TRUNK_FINGERPRINT_BYTES;
use crate::status::{TRUNK_REASON_NONE, trunk_reason, trunk_status};
use engine::{ChannelEnd, CloseReason, CloseReport, Retained};
use std::ffi::{CString, c_char};
use std::net::SocketAddr;
use std::sync::Arc;

/// Of TRUNK_ITEM_STATUS. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_status_change {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// The status before.
    pub old_status: trunk_status,
    /// The status now.
    pub new_status: trunk_status,
    /// Why, when the new status is an end; otherwise TRUNK_REASON_NONE.
    pub reason: trunk_reason,
    /// The reason in words; never NULL.
    pub reason_text: *const c_char,
}

/// Of TRUNK_ITEM_INCOMING. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_incoming {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// Whether the peer has shown a certificate, and peer is valid.
    pub has_peer: u32,
    /// The peer's fingerprint.
    pub peer: [u8; TRUNK_FINGERPRINT_BYTES],
    /// The peer's address and port; never NULL.
    pub remote: *const c_char,
    /// The name it asked for, or NULL.
    pub server_name: *const c_char,
    /// The credential that it presented.
    pub credential: *const u8,
    /// Bytes of it.
    pub credential_size: usize,
}

/// Of TRUNK_ITEM_REQUEST. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_request {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// Its id on the wire.
    pub wire_id: u32,
    /// The name that the peer chose, UTF-8, with a final NUL; never NULL.
    pub name: *const c_char,
    /// Bytes of it without the final NUL. It may hold other NULs.
    pub name_size: usize,
    /// The peer's options: its kind, and what concerns the peer's sending.
    pub options: trunk_channel_options,
}

/// How a channel ended.
pub type trunk_end = u32;

/// Both sides have sent everything, and everything was acknowledged.
pub const TRUNK_END_FINISHED: trunk_end = 0;
/// The peer declined it: code, text.
pub const TRUNK_END_DECLINED: trunk_end = 1;
/// A side cancelled its sending or refused the other's: code, by_peer.
pub const TRUNK_END_RESET: trunk_end = 2;
/// No answer came to the request in time.
pub const TRUNK_END_TIMED_OUT: trunk_end = 3;
/// The connection ended, or could not carry the channel: reason, text.
pub const TRUNK_END_CONNECTION: trunk_end = 4;
/// In a way that this version has no name for.
pub const TRUNK_END_OTHER: trunk_end = 5;

/// Of TRUNK_ITEM_CLOSED. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_closed {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// How it ended.
    pub end: trunk_end,
    /// The code given with it.
    pub code: u32,
    /// Whether the peer started it.
    pub by_peer: u32,
    /// TRUNK_END_CONNECTION: why.
    pub reason: trunk_reason,
    /// 0.
    pub reserved: u32,
    /// Words for people; never NULL.
    pub text: *const c_char,
}

/// Of TRUNK_ITEM_DEAD: what became of the reliable data of a connection. New fields come at the
/// end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_dead {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// Whether the peer knows that the connection has ended.
    pub peer_knows: u32,
    /// Bytes handed over that the peer acknowledged.
    pub acknowledged_bytes: u64,
    /// Bytes handed over and not acknowledged.
    pub undelivered_bytes: u64,
    /// Channels that still had undelivered data.
    pub undelivered_channels: u32,
    /// The final reason.
    pub reason: trunk_reason,
    /// The reason in words; never NULL.
    pub reason_text: *const c_char,
    /// Whether the peer said that it had thrown away data which it had received.
    pub peer_discarded: u32,
    /// 0.
    pub reserved: u32,
}

/// Of TRUNK_ITEM_PATH. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_path {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// Whether packets go over the relay of an event source again.
    pub relayed: u32,
    /// The address in use; never NULL.
    pub remote: *const c_char,
}

/// A detail with the texts that it points to.
pub(crate) enum Detail {
    Status(trunk_status_change, #[expect(dead_code, reason = "pointed to")] CString),
    Incoming(
        trunk_incoming,
        #[expect(dead_code, reason = "pointed to")] (CString, Option<CString>, Vec<u8>),
    ),
    Request(trunk_request, #[expect(dead_code, reason = "pointed to")] Box<[u8]>),
    Closed(trunk_closed, #[expect(dead_code, reason = "pointed to")] CString),
    Dead(trunk_dead, #[expect(dead_code, reason = "pointed to")] CString),
    Path(trunk_path, #[expect(dead_code, reason = "pointed to")] CString),
    Opened(trunk_opened, #[expect(dead_code, reason = "pointed to")] CString),
    Association(
        trunk_association_change,
        #[expect(dead_code, reason = "pointed to")] (CString, Option<Box<trunk_sec_info>>),
    ),
    Delivery(trunk_delivery, #[expect(dead_code, reason = "pointed to")] CString),
    Pairing(
        trunk_pairing_notice,
        #[expect(dead_code, reason = "pointed to")] (CString, Option<Arc<[u8]>>),
    ),
    Relayed(trunk_relayed, #[expect(dead_code, reason = "pointed to")] Retained),
    Peer(trunk_peer),
    Text(CString),
}

/// A text with a final NUL; inner ones are taken out.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

impl Detail {
    pub(crate) fn status(
        old: engine::Status,
        new: engine::Status,
        reason: Option<&CloseReason>,
    ) -> Self {
        let text = c_text(reason.map_or("", |r| r.text.as_str()));
        let change = trunk_status_change {
            struct_size: size_of::<trunk_status_change>() as u32,
            old_status: old as trunk_status,
            new_status: new as trunk_status,
            reason: reason.map_or(TRUNK_REASON_NONE, |r| r.reason.0),
            reason_text: text.as_ptr(),
        };
        Self::Status(change, text)
    }

    pub(crate) fn closed(end: &ChannelEnd) -> Self {
        let (end, code, by_peer, reason, text) = match end {
            ChannelEnd::Finished => (TRUNK_END_FINISHED, 0, false, 0, String::new()),
            ChannelEnd::Declined { code, text } => {
                (TRUNK_END_DECLINED, *code, true, 0, text.clone())
            }
            ChannelEnd::Reset { code, by_peer } => {
                (TRUNK_END_RESET, *code, *by_peer, 0, String::new())
            }
            ChannelEnd::TimedOut => {
                (TRUNK_END_TIMED_OUT, 0, false, 0, "no answer in time".to_owned())
            }
            ChannelEnd::Connection(reason) => {
                (TRUNK_END_CONNECTION, 0, false, reason.reason.0, reason.text.clone())
            }
            other => (TRUNK_END_OTHER, 0, false, 0, format!("{other:?}")),
        };
        let text = c_text(&text);
        let closed = trunk_closed {
            struct_size: size_of::<trunk_closed>() as u32,
            end,
            code,
            by_peer: by_peer.into(),
            reason,
            reserved: 0,
            text: text.as_ptr(),
        };
        Self::Closed(closed, text)
    }

    pub(crate) fn dead(report: &CloseReport) -> Self {
        let text = c_text(&report.reason.text);
        let dead = trunk_dead {
            struct_size: size_of::<trunk_dead>() as u32,
            peer_knows: report.peer_knows.into(),
            acknowledged_bytes: report.acknowledged_bytes,
            undelivered_bytes: report.undelivered_bytes,
            undelivered_channels: report.undelivered_channels,
            reason: report.reason.reason.0,
            reason_text: text.as_ptr(),
            peer_discarded: report.peer_discarded.into(),
            reserved: 0,
        };
        Self::Dead(dead, text)
    }

    pub(crate) fn request(id: u16, name: &str, options: &engine::ChannelOptions) -> Self {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let text = text.into_boxed_slice();
        let request = trunk_request {
            struct_size: size_of::<trunk_request>() as u32,
            wire_id: id.into(),
            name: text.as_ptr().cast(),
            name_size: name.len(),
            options: options.into(),
        };
        Self::Request(request, text)
    }

    pub(crate) fn path(remote: SocketAddr, relayed: bool) -> Self {
        let text = c_text(&remote.to_string());
        let path = trunk_path {
            struct_size: size_of::<trunk_path>() as u32,
            relayed: relayed.into(),
            remote: text.as_ptr(),
        };
        Self::Path(path, text)
    }
}
