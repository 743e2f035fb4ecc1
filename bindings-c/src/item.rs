//! Items: what comes out of a poll group. Plain C structs that point into memory of the engine,
//! which an item owns until it is released.

use crate::association::{trunk_association_change, trunk_delivery};
use crate::channel::{kind_of, trunk_kind};
use crate::detail::{
    Detail, c_text, trunk_closed, trunk_dead, trunk_incoming, trunk_path, trunk_request,
    trunk_status_change,
};
use crate::fork;
use crate::handle::{trunk_channel, trunk_conn};
use crate::manager::trunk_opened;
use crate::names::Names;
use crate::pairing_notice::{trunk_pairing_notice, trunk_peer, trunk_relayed};
use crate::security::TRUNK_FINGERPRINT_BYTES;
use engine::{AssociationEvent, Event, Received, Retained};
use std::ffi::{c_char, c_void};
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
/// A channel ended; its last item: detail.closed. Its handle is stale since it ended, which may be
/// before this item is received.
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
/// What was taken for sending on a channel could not be handed to its connection (trunk_send has
/// the reasons): detail.text says why.
pub const TRUNK_ITEM_SEND_FAILED: trunk_item_type = 12;
/// The peer has answered trunk_conn_check.
pub const TRUNK_ITEM_CHECK_ANSWERED: trunk_item_type = 13;
/// A connection is gone for good; its last item: detail.dead.
pub const TRUNK_ITEM_DEAD: trunk_item_type = 14;
/// A shard has failed, and nothing more is heard of its connections: detail.text says why. conn is
/// 0.
pub const TRUNK_ITEM_SHARD_FAILED: trunk_item_type = 15;
/// The answer to trunk_channel_request: detail.opened; channel, if there is one.
pub const TRUNK_ITEM_OPENED: trunk_item_type = 16;
/// The state of an association changed: detail.association; channel, while it has one.
pub const TRUNK_ITEM_ASSOCIATION: trunk_item_type = 17;
/// The peer has acknowledged a message of an association: token, detail.delivery.
pub const TRUNK_ITEM_DELIVERED: trunk_item_type = 18;
/// A message of an association was not delivered: token, detail.delivery. Each message is told one
/// of the two.
pub const TRUNK_ITEM_UNDELIVERED: trunk_item_type = 19;
/// A connection was begun for a channel request or an association. It is freed by itself when it
/// ends; trunk_connect to the same peer makes it the caller's.
pub const TRUNK_ITEM_BEGUN: trunk_item_type = 20;
/// Something happened to a pairing: detail.pairing. conn is 0.
pub const TRUNK_ITEM_PAIRING: trunk_item_type = 21;
/// A packet of the partner came by way of the event source: detail.relayed. conn is 0.
pub const TRUNK_ITEM_RELAYED: trunk_item_type = 22;
/// There is a connection with the partner of a pairing: conn, detail.peer. It is freed by itself
/// when it ends.
pub const TRUNK_ITEM_PEER: trunk_item_type = 23;
/// A connection that was made over the relay of an event source goes another way: detail.path.
pub const TRUNK_ITEM_PATH: trunk_item_type = 24;

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
    /// TRUNK_ITEM_OPENED.
    pub opened: *const trunk_opened,
    /// TRUNK_ITEM_ASSOCIATION.
    pub association: *const trunk_association_change,
    /// TRUNK_ITEM_DELIVERED, TRUNK_ITEM_UNDELIVERED.
    pub delivery: *const trunk_delivery,
    /// TRUNK_ITEM_PAIRING.
    pub pairing: *const trunk_pairing_notice,
    /// TRUNK_ITEM_RELAYED.
    pub relayed: *const trunk_relayed,
    /// TRUNK_ITEM_PEER.
    pub peer: *const trunk_peer,
    /// TRUNK_ITEM_PATH.
    pub path: *const trunk_path,
}

/// One message or event. Everything it points to belongs to the engine and stays valid until the
/// item is given to trunk_message_release, which every item wants, on any thread. A struct
/// assignment moves the item: release one of the two, and fill the other with zeros if it stands in
/// an array that is released. Of fixed size: it does not grow.
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
    /// TRUNK_ITEM_RECEIPT, TRUNK_ITEM_DELIVERED, TRUNK_ITEM_UNDELIVERED: the token given with the
    /// message.
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

/// What a channel and its connection are called, and their user data.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    conn: trunk_conn,
    channel: trunk_channel,
    conn_user: *mut c_void,
    channel_user: *mut c_void,
}

impl Named {
    fn of(names: &Names, channel: engine::Channel) -> Self {
        let (conn_user, channel_user) = names.users.channel(channel);
        let (conn, channel) = (names.masks.conn(channel.conn()), names.masks.channel(channel));
        Self { conn, channel, conn_user, channel_user }
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
        self.r#type = TRUNK_ITEM_NONE;
        (self.data, self.size) = (std::ptr::null(), 0);
        self.detail.text = std::ptr::null();
        self.owner[0] = OWNS_NOTHING;
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
            Detail::Path(path, _) => trunk_item_detail { path },
            Detail::Opened(opened, _) => trunk_item_detail { opened },
            Detail::Association(association, _) => trunk_item_detail { association },
            Detail::Delivery(delivery, _) => trunk_item_detail { delivery },
            Detail::Pairing(pairing, _) => trunk_item_detail { pairing },
            Detail::Relayed(relayed, _) => trunk_item_detail { relayed },
            Detail::Peer(peer) => trunk_item_detail { peer },
        };
        self.own(OWNS_DETAIL, detail);
    }

    fn name_channel(&mut self, names: &Names, channel: engine::Channel) {
        self.name(Named::of(names, channel));
    }

    fn name(&mut self, named: Named) {
        (self.conn, self.channel) = (named.conn, named.channel);
        (self.conn_user, self.channel_user) = (named.conn_user, named.channel_user);
    }

    fn name_conn(&mut self, names: &Names, conn: engine::Conn) {
        (self.conn, self.conn_user) = names.conn(conn);
    }

    /// The item of something received.
    pub(crate) fn of(names: &Names, received: Received) -> Self {
        let mut item = Self::NONE;
        item.set(names, received, &mut None);
        item
    }

    /// Makes an empty item that of something received. `last` is the channel of the data before, and
    /// what it is called: most data is of the same one.
    #[inline]
    pub(crate) fn set(
        &mut self,
        names: &Names,
        received: Received,
        last: &mut Option<(engine::Channel, Named)>,
    ) {
        let (channel, data, kind) = match received {
            Received::Message(message) => (message.channel, message.data, message.kind),
            Received::Event(Event::Data { channel, data }) => {
                (channel, data, engine::ChannelKind::Bytes)
            }
            Received::Event(event) => {
                // It may end a channel, and with it what is kept of it.
                *last = None;
                return self.set_event(names, event);
            }
        };
        let named = match last {
            Some((known, named)) if *known == channel => *named,
            _ => last.insert((channel, Named::of(names, channel))).1,
        };
        self.name(named);
        self.set_data(data, kind);
    }

    fn set_event(&mut self, names: &Names, event: Event) {
        match event {
            Event::Status { conn, old, new, reason } => {
                self.name_conn(names, conn);
                self.set_detail(TRUNK_ITEM_STATUS, Detail::status(old, new, reason.as_ref()));
            }
            Event::Incoming { conn, remote, peer, credential, server_name } => {
                self.name_conn(names, conn);
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
                self.name_channel(names, channel);
                self.kind = kind_of(options.kind);
                self.set_detail(TRUNK_ITEM_REQUEST, Detail::request(id, &name, &options));
            }
            Event::ChannelReady { channel } => self.plain(names, TRUNK_ITEM_READY, channel),
            Event::ChannelClosed { channel, end } => {
                self.name_channel(names, channel);
                names.users.end_channel(channel);
                self.set_detail(TRUNK_ITEM_CLOSED, Detail::closed(&end));
            }
            Event::Eof { channel } => self.plain(names, TRUNK_ITEM_EOF, channel),
            Event::Reset { channel, code } => {
                self.plain(names, TRUNK_ITEM_RESET, channel);
                self.code = code;
            }
            Event::Stopped { channel, code } => {
                self.plain(names, TRUNK_ITEM_STOPPED, channel);
                self.code = code;
            }
            Event::Writable { channel } => self.plain(names, TRUNK_ITEM_WRITABLE, channel),
            Event::Receipt { channel, token } => {
                self.plain(names, TRUNK_ITEM_RECEIPT, channel);
                self.token = token;
            }
            Event::SendFailed { channel, error } => {
                self.name_channel(names, channel);
                let text = c_text(&error.to_string());
                self.set_detail(TRUNK_ITEM_SEND_FAILED, Detail::Text(text));
            }
            Event::CheckAnswered { conn } => {
                self.name_conn(names, conn);
                self.r#type = TRUNK_ITEM_CHECK_ANSWERED;
            }
            Event::Dead { conn, report } => {
                self.name_conn(names, conn);
                names.users.end_conn(conn);
                self.set_detail(TRUNK_ITEM_DEAD, Detail::dead(&report));
            }
            Event::ShardFailed { shard, message } => {
                let text = c_text(&format!("shard {shard}: {message}"));
                self.set_detail(TRUNK_ITEM_SHARD_FAILED, Detail::Text(text));
            }
            Event::ConnectionBegun { conn } => {
                self.name_conn(names, conn);
                self.r#type = TRUNK_ITEM_BEGUN;
            }
            Event::RequestDone { request, outcome } => {
                if let Ok(opened) = &outcome {
                    self.name_channel(names, opened.channel);
                }
                let request = names.masks.request(request);
                self.set_detail(TRUNK_ITEM_OPENED, Detail::opened(request, &outcome));
            }
            Event::Association { association, channel, event } => {
                if let Some(channel) = channel {
                    self.name_channel(names, channel);
                }
                self.set_association(names.masks.association(association), event);
            }
            Event::Pairing { pairing, notice } => {
                if let Some(detail) = Detail::pairing(names.masks.pairing(pairing), notice) {
                    self.set_detail(TRUNK_ITEM_PAIRING, detail);
                }
            }
            Event::Relayed { pairing, data } => {
                let detail = Detail::relayed(names.masks.pairing(pairing), data);
                self.set_detail(TRUNK_ITEM_RELAYED, detail);
            }
            Event::Peer { pairing, conn } => {
                self.name_conn(names, conn);
                self.set_detail(TRUNK_ITEM_PEER, Detail::peer(names.masks.pairing(pairing)));
            }
            Event::Path { conn, remote, relayed } => {
                self.name_conn(names, conn);
                self.set_detail(TRUNK_ITEM_PATH, Detail::path(remote, relayed));
            }
            // An event that this interface has no item for is dropped by the receiver.
            _ => {}
        }
    }

    fn set_association(&mut self, association: u64, event: AssociationEvent) {
        match event {
            AssociationEvent::State { old, new, end, info } => {
                let detail =
                    Detail::association(association, (old, new), end.as_ref(), info.as_deref());
                self.set_detail(TRUNK_ITEM_ASSOCIATION, detail);
            }
            AssociationEvent::Delivered { token } => {
                self.token = token;
                self.set_detail(TRUNK_ITEM_DELIVERED, Detail::delivery(association, None));
            }
            AssociationEvent::Undelivered { token, error } => {
                self.token = token;
                let detail = Detail::delivery(association, Some(&error));
                self.set_detail(TRUNK_ITEM_UNDELIVERED, detail);
            }
            _ => {}
        }
    }

    /// Bytes that a callback was given, or a part of them.
    pub(crate) fn kept(data: Retained) -> Self {
        let mut item = Self::NONE;
        item.set_data(data, engine::ChannelKind::Messages);
        item
    }

    fn plain(&mut self, names: &Names, type_: trunk_item_type, channel: engine::Channel) {
        self.name_channel(names, channel);
        self.r#type = type_;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detail::*;
    use engine::{ChannelEnd, ChannelKind, ChannelOptions, CloseReason, Reason, Status};
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
