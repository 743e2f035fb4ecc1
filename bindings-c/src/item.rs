//! Items: what comes out of a poll group. Plain C structs that point into memory of the engine,
//! which an item owns until it is released.

use crate::channel::{kind_of, trunk_channel_options, trunk_kind};
use crate::fork;
use crate::handle::{trunk_channel, trunk_conn};
use crate::instance::Live;
use crate::security::TRUNK_FINGERPRINT_BYTES;
use crate::status::{TRUNK_REASON_NONE, trunk_reason, trunk_status};
use engine::{ChannelEnd, CloseReason, CloseReport, Event, Received, Retained};
use std::ffi::{CString, c_char, c_void};
use std::mem::ManuallyDrop;

/// What an item is.
pub type trunk_item_type = u32;

/// Nothing: an item that was released.
pub const TRUNK_ITEM_NONE: trunk_item_type = 0;
/// Data of a channel: data and size. The next bytes of a stream, or one whole message, as kind
/// says.
pub const TRUNK_ITEM_DATA: trunk_item_type = 1;
/// The status of a connection changed: detail.status.
pub const TRUNK_ITEM_STATUS: trunk_item_type = 2;
/// Host: a peer has proved itself and waits for trunk_accept or trunk_reject: detail.incoming.
pub const TRUNK_ITEM_INCOMING: trunk_item_type = 3;
/// The peer asks for a channel and waits for trunk_channel_accept or trunk_channel_decline:
/// detail.request.
pub const TRUNK_ITEM_REQUEST: trunk_item_type = 4;
/// A channel is usable: the peer has accepted it, or we have.
pub const TRUNK_ITEM_READY: trunk_item_type = 5;
/// A channel ended and its handle is stale; its last item: detail.closed.
pub const TRUNK_ITEM_CLOSED: trunk_item_type = 6;
/// The peer sends no more on a channel, and everything before was received.
pub const TRUNK_ITEM_EOF: trunk_item_type = 7;
/// The peer cancelled what it was sending on a channel: code.
pub const TRUNK_ITEM_RESET: trunk_item_type = 8;
/// The peer refuses the rest of what we send on a channel: code.
pub const TRUNK_ITEM_STOPPED: trunk_item_type = 9;
/// A send on a channel gave TRUNK_ERR_WOULD_BLOCK, and there is room again.
pub const TRUNK_ITEM_WRITABLE: trunk_item_type = 10;
/// The peer has acknowledged all of what was sent with this token.
pub const TRUNK_ITEM_RECEIPT: trunk_item_type = 11;
/// What was taken for sending on a channel could not be handed to its connection: detail.text says
/// why.
pub const TRUNK_ITEM_SEND_FAILED: trunk_item_type = 12;
/// The peer has answered trunk_conn_check.
pub const TRUNK_ITEM_CHECK_ANSWERED: trunk_item_type = 13;
/// A connection is gone for good; its last item: detail.dead.
pub const TRUNK_ITEM_DEAD: trunk_item_type = 14;
/// A shard has failed, and nothing more is heard of its connections: detail.text says why. conn is
/// 0.
pub const TRUNK_ITEM_SHARD_FAILED: trunk_item_type = 15;

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

/// What an item has beyond its own fields; type says which member, if any, is valid.
#[repr(C)]
#[derive(Clone, Copy)]
pub union trunk_item_detail {
    /// TRUNK_ITEM_STATUS.
    pub status: *const trunk_status_change,
    /// TRUNK_ITEM_INCOMING.
    pub incoming: *const trunk_incoming,
    /// TRUNK_ITEM_REQUEST.
    pub request: *const trunk_request,
    /// TRUNK_ITEM_CLOSED.
    pub closed: *const trunk_closed,
    /// TRUNK_ITEM_DEAD.
    pub dead: *const trunk_dead,
    /// TRUNK_ITEM_SEND_FAILED, TRUNK_ITEM_SHARD_FAILED.
    pub text: *const c_char,
}

/// One message or event. Everything it points to belongs to the engine and stays valid until the
/// item is given to trunk_message_release, which every item wants, on any thread. A struct
/// assignment moves the item: release one of the two. Of fixed size: it does not grow.
#[repr(C)]
pub struct trunk_item {
    /// What it is.
    pub r#type: trunk_item_type,
    /// TRUNK_ITEM_DATA, TRUNK_ITEM_REQUEST: what the channel carries.
    pub kind: trunk_kind,
    /// The connection that it is about.
    pub conn: trunk_conn,
    /// The channel that it is about; 0 when it is about the connection.
    pub channel: trunk_channel,
    /// User data of the connection, or NULL.
    pub conn_user: *mut c_void,
    /// User data of the channel, or NULL.
    pub channel_user: *mut c_void,
    /// TRUNK_ITEM_DATA: the bytes.
    pub data: *const u8,
    /// TRUNK_ITEM_DATA: number of bytes; a message may have none.
    pub size: usize,
    /// TRUNK_ITEM_RECEIPT: the token given with the message.
    pub token: u64,
    /// TRUNK_ITEM_RESET, TRUNK_ITEM_STOPPED: the peer's code.
    pub code: u32,
    /// 0.
    pub reserved: u32,
    /// More about it, as type says.
    pub detail: trunk_item_detail,
    /// The engine's.
    pub owner: [u64; 6],
}

const _: () = assert!(size_of::<trunk_item>() == 128 || size_of::<usize>() != 8);
/// Bytes of `owner` that hold the value which keeps an item's memory.
const KEEPS: usize = 5 * size_of::<u64>();
const _: () = assert!(size_of::<Retained>() <= KEEPS && align_of::<Retained>() <= 8);
const _: () = assert!(size_of::<Box<Detail>>() <= KEEPS);

/// What `owner` holds: in the low half of its first word, under the fork generation.
const OWNS_NOTHING: u64 = 0;
const OWNS_DATA: u64 = 1;
const OWNS_DETAIL: u64 = 2;

/// A detail with the texts that it points to.
enum Detail {
    Status(trunk_status_change, #[expect(dead_code, reason = "pointed to")] CString),
    Incoming(
        trunk_incoming,
        #[expect(dead_code, reason = "pointed to")] (CString, Option<CString>, Vec<u8>),
    ),
    Request(trunk_request, #[expect(dead_code, reason = "pointed to")] Box<[u8]>),
    Closed(trunk_closed, #[expect(dead_code, reason = "pointed to")] CString),
    Dead(trunk_dead, #[expect(dead_code, reason = "pointed to")] CString),
    Text(CString),
}

/// A text with a final NUL; inner ones are taken out.
fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

impl Detail {
    fn status(old: engine::Status, new: engine::Status, reason: Option<&CloseReason>) -> Self {
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

    fn closed(end: &ChannelEnd) -> Self {
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

    fn dead(report: &CloseReport) -> Self {
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

    fn request(id: u16, name: &str, options: &engine::ChannelOptions) -> Self {
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
}

impl trunk_item {
    pub(crate) const NONE: Self = Self {
        r#type: TRUNK_ITEM_NONE,
        kind: 0,
        conn: 0,
        channel: 0,
        conn_user: std::ptr::null_mut(),
        channel_user: std::ptr::null_mut(),
        data: std::ptr::null(),
        size: 0,
        token: 0,
        code: 0,
        reserved: 0,
        detail: trunk_item_detail { text: std::ptr::null() },
        owner: [OWNS_NOTHING; 6],
    };

    /// Moves a value into `owner`.
    fn own<T>(&mut self, tag: u64, value: T) {
        const { assert!(size_of::<T>() <= KEEPS && align_of::<T>() <= align_of::<u64>()) };
        self.owner[0] = tag | u64::from(fork::generation()) << 32;
        let place = (&raw mut self.owner[1]).cast::<T>();
        // SAFETY: the five words behind the first have room for a `T` and its alignment, and the
        // pointer is derived from the whole array's place.
        unsafe { place.write(value) };
    }

    /// The value in `owner`.
    ///
    /// # Safety
    /// `owner` holds a `T`, which nobody takes out again.
    unsafe fn disown<T>(&mut self) -> T {
        // SAFETY: by contract.
        unsafe { (&raw const self.owner[1]).cast::<T>().read() }
    }

    /// What the engine's memory is kept with.
    pub(crate) fn retained(&self) -> Option<Retained> {
        if self.owner[0] & 0xff != OWNS_DATA || !self.is_ours() {
            return None;
        }
        // SAFETY: the tag says that it holds a `Retained`, and this copy of it is never dropped.
        let kept = unsafe { (&raw const self.owner[1]).cast::<ManuallyDrop<Retained>>().read() };
        Some((*kept).clone())
    }

    /// Whether the item came to this process, not to its parent.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner[0] & 0xff == OWNS_NOTHING || fork::is_same((self.owner[0] >> 32) as u32)
    }

    /// Gives the memory back; the item is empty afterwards.
    pub(crate) fn release(&mut self) {
        match self.owner[0] & 0xff {
            // SAFETY: the tag says what it holds, and is cleared below.
            OWNS_DATA => drop(unsafe { self.disown::<Retained>() }),
            // SAFETY: as above.
            OWNS_DETAIL => drop(unsafe { self.disown::<Box<Detail>>() }),
            _ => {}
        }
        *self = Self::NONE;
    }

    fn set_data(&mut self, data: Retained, kind: engine::ChannelKind) {
        self.r#type = TRUNK_ITEM_DATA;
        self.kind = kind_of(kind);
        self.data = data.as_ptr();
        self.size = data.len();
        self.own(OWNS_DATA, data);
    }

    fn set_detail(&mut self, type_: trunk_item_type, detail: Detail) {
        let detail = Box::new(detail);
        self.r#type = type_;
        self.detail = match &*detail {
            Detail::Status(status, _) => trunk_item_detail { status },
            Detail::Incoming(incoming, _) => trunk_item_detail { incoming },
            Detail::Request(request, _) => trunk_item_detail { request },
            Detail::Closed(closed, _) => trunk_item_detail { closed },
            Detail::Dead(dead, _) => trunk_item_detail { dead },
            Detail::Text(text) => trunk_item_detail { text: text.as_ptr() },
        };
        self.own(OWNS_DETAIL, detail);
    }

    fn name_channel(&mut self, live: &Live, channel: engine::Channel) {
        self.conn = live.masks.conn(channel.conn());
        self.channel = live.masks.channel(channel);
        (self.conn_user, self.channel_user) = live.users.channel(channel);
    }

    fn name_conn(&mut self, live: &Live, conn: engine::Conn) {
        self.conn = live.masks.conn(conn);
        self.conn_user = live.users.conn(conn);
    }

    /// The item of something received.
    pub(crate) fn of(live: &Live, received: Received) -> Self {
        let mut item = Self::NONE;
        match received {
            Received::Message(message) => {
                item.name_channel(live, message.channel);
                item.set_data(message.data, message.kind);
            }
            Received::Event(event) => item.set_event(live, event),
        }
        item
    }

    fn set_event(&mut self, live: &Live, event: Event) {
        match event {
            Event::Data { channel, data } => {
                self.name_channel(live, channel);
                self.set_data(data, engine::ChannelKind::Bytes);
            }
            Event::Status { conn, old, new, reason } => {
                self.name_conn(live, conn);
                self.set_detail(TRUNK_ITEM_STATUS, Detail::status(old, new, reason.as_ref()));
            }
            Event::Incoming { conn, remote, peer, credential, server_name } => {
                self.name_conn(live, conn);
                let remote = c_text(&remote.to_string());
                let name = server_name.as_deref().map(c_text);
                let incoming = trunk_incoming {
                    struct_size: size_of::<trunk_incoming>() as u32,
                    has_peer: peer.is_some().into(),
                    peer: peer.map_or([0; TRUNK_FINGERPRINT_BYTES], |p| p.0),
                    remote: remote.as_ptr(),
                    server_name: name.as_ref().map_or(std::ptr::null(), |n| n.as_ptr()),
                    credential: credential.as_ptr(),
                    credential_size: credential.len(),
                };
                let detail = Detail::Incoming(incoming, (remote, name, credential));
                self.set_detail(TRUNK_ITEM_INCOMING, detail);
            }
            Event::ChannelRequest { channel, id, name, options } => {
                self.name_channel(live, channel);
                self.kind = kind_of(options.kind);
                self.set_detail(TRUNK_ITEM_REQUEST, Detail::request(id, &name, &options));
            }
            Event::ChannelReady { channel } => self.plain(live, TRUNK_ITEM_READY, channel),
            Event::ChannelClosed { channel, end } => {
                self.name_channel(live, channel);
                live.users.end_channel(channel);
                self.set_detail(TRUNK_ITEM_CLOSED, Detail::closed(&end));
            }
            Event::Eof { channel } => self.plain(live, TRUNK_ITEM_EOF, channel),
            Event::Reset { channel, code } => {
                self.plain(live, TRUNK_ITEM_RESET, channel);
                self.code = code;
            }
            Event::Stopped { channel, code } => {
                self.plain(live, TRUNK_ITEM_STOPPED, channel);
                self.code = code;
            }
            Event::Writable { channel } => self.plain(live, TRUNK_ITEM_WRITABLE, channel),
            Event::Receipt { channel, token } => {
                self.plain(live, TRUNK_ITEM_RECEIPT, channel);
                self.token = token;
            }
            Event::SendFailed { channel, error } => {
                self.name_channel(live, channel);
                let text = c_text(&error.to_string());
                self.set_detail(TRUNK_ITEM_SEND_FAILED, Detail::Text(text));
            }
            Event::CheckAnswered { conn } => {
                self.name_conn(live, conn);
                self.r#type = TRUNK_ITEM_CHECK_ANSWERED;
            }
            Event::Dead { conn, report } => {
                self.name_conn(live, conn);
                live.users.end_conn(conn);
                self.set_detail(TRUNK_ITEM_DEAD, Detail::dead(&report));
            }
            Event::ShardFailed { shard, message } => {
                let text = c_text(&format!("shard {shard}: {message}"));
                self.set_detail(TRUNK_ITEM_SHARD_FAILED, Detail::Text(text));
            }
            // An event that this interface has no item for is dropped by the receiver.
            _ => {}
        }
    }

    fn plain(&mut self, live: &Live, type_: trunk_item_type, channel: engine::Channel) {
        self.name_channel(live, channel);
        self.r#type = type_;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{ChannelKind, ChannelOptions, Reason, Status};
    use std::ffi::CStr;

    #[test]
    fn an_item_keeps_its_bytes_until_it_is_released() {
        let data = Retained::copy(b"hello");
        let mut item = trunk_item::NONE;
        item.set_data(data.clone(), ChannelKind::Messages);
        drop(data);
        // SAFETY: the item has not been released.
        assert_eq!(unsafe { std::slice::from_raw_parts(item.data, item.size) }, b"hello");
        let shared = item.retained().unwrap();
        item.release();
        assert_eq!(&*shared, b"hello");
        assert_eq!((item.r#type, item.data.is_null()), (TRUNK_ITEM_NONE, true));
        assert!(item.retained().is_none());
        item.release();
    }

    #[test]
    fn details_point_to_what_they_keep() {
        let mut item = trunk_item::NONE;
        let reason = CloseReason::new(Reason::TIMEOUT, "no\0 answer");
        let (old, new) = (Status::Connected, Status::ProblemDetectedLocally);
        item.set_detail(TRUNK_ITEM_STATUS, Detail::status(old, new, Some(&reason)));
        // SAFETY: the type says which member is valid.
        let (status, text) = unsafe {
            let status = &*item.detail.status;
            (status, CStr::from_ptr(status.reason_text))
        };
        assert_eq!((status.old_status, status.new_status, status.reason), (3, 5, 4001));
        assert_eq!(text, c"no answer");
        item.release();

        item.set_detail(TRUNK_ITEM_REQUEST, Detail::request(7, "a\0b", &ChannelOptions::default()));
        // SAFETY: as above.
        let (request, name) = unsafe {
            let request = &*item.detail.request;
            (request, std::slice::from_raw_parts(request.name.cast::<u8>(), request.name_size + 1))
        };
        assert_eq!((request.wire_id, name), (7, &b"a\0b\0"[..]));
        item.release();
    }

    #[test]
    fn every_end_of_a_channel_has_its_name() {
        let ends = [
            (ChannelEnd::Finished, TRUNK_END_FINISHED, 0),
            (ChannelEnd::Declined { code: 3, text: "full".into() }, TRUNK_END_DECLINED, 3),
            (ChannelEnd::Reset { code: 4, by_peer: true }, TRUNK_END_RESET, 4),
            (ChannelEnd::TimedOut, TRUNK_END_TIMED_OUT, 0),
            (
                ChannelEnd::Connection(CloseReason::new(Reason::TIMEOUT, "gone")),
                TRUNK_END_CONNECTION,
                0,
            ),
        ];
        for (end, name, code) in ends {
            let Detail::Closed(closed, _) = Detail::closed(&end) else { panic!() };
            assert_eq!((closed.end, closed.code), (name, code));
        }
    }
}
