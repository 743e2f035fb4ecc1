//! Answers that a host gives to a ConnectionRequest without keeping state.

use super::tls::initial_keys;
use crate::crypto::RetryTokens;
use crate::error::CloseReason;
use crate::ids::ConnectionId;
use crate::limits::{TAG_LEN, VERSION};
use crate::time::Instant;
use crate::wire::codec::Writer;
use crate::wire::packet::{
    Level, LongHeader, LongPrefix, MessageType, Retry, VersionList, patch_payload_len,
};
use crate::wire::transport::TransportFrame;
use rustls::Side;
use std::net::SocketAddr;

/// Writes a Retry for `request`, which came from `remote`, into `buf` and gives its length.
/// `retry_id` is a fresh id: the client's next ConnectionRequest carries it as its destination, and
/// [`RetryTokens::check`] expects it. `None` when `buf` is too short (128 bytes are enough).
pub fn write_retry(
    now: Instant,
    tokens: &RetryTokens,
    remote: SocketAddr,
    request: &LongHeader<'_>,
    retry_id: ConnectionId,
    buf: &mut [u8],
) -> Option<usize> {
    let client_id = request.source()?;
    let token = tokens.issue(now, remote, request.dcid, &client_id.0, &retry_id.0)?;
    Retry::write(buf, client_id, retry_id, token.as_bytes(), request.dcid).ok()
}

/// Writes a VersionList that answers a packet of another version into `buf` and gives its length.
pub fn write_version_list(prefix: &LongPrefix<'_>, buf: &mut [u8]) -> Option<usize> {
    VersionList::write(buf, prefix, &[VERSION]).ok()
}

/// Writes a CLOSE that refuses `request` without any state into `buf` and gives its length: a hint
/// that the client acts on when it hears nothing better. `None` when `buf` is too short.
pub fn write_refusal(
    request: &LongHeader<'_>,
    reason: &CloseReason,
    buf: &mut [u8],
) -> Option<usize> {
    let keys = initial_keys(request.dcid, Side::Server)?;
    let header = LongHeader {
        message: MessageType::ConnectionResponse,
        level: Level::Initial,
        version: VERSION,
        dcid: request.scid,
        scid: request.dcid,
        token: &[],
        pn: 0,
        header_len: 0,
        payload_len: 0,
    };
    let header_len = header.write(buf).ok()?;
    let room = buf.len().checked_sub(header_len + TAG_LEN)?;
    let mut w = Writer::new(buf.get_mut(header_len..header_len + room)?);
    let close =
        TransportFrame::Close { reason: reason.reason, discarded: false, text: &reason.text };
    close.write(&mut w).ok()?;
    let payload_len = w.written();
    patch_payload_len(buf, header_len, payload_len + TAG_LEN);
    let (head, rest) = buf.split_at_mut(header_len);
    let (payload, tag_room) = rest.split_at_mut(payload_len);
    let tag = keys.local.packet.encrypt_in_place(0, head, payload).ok()?;
    tag_room.get_mut(..TAG_LEN)?.copy_from_slice(tag.as_ref());
    Some(header_len + payload_len + TAG_LEN)
}
