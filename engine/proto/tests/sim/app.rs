//! The application of a simulated node: records what it is told and checks that it may be told so.

use super::alloc;
use super::flow::Pump;
use super::pattern::{self, Receiver};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::error::CloseReason;
use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming, Sink};
use trunkline_proto::ids::{ChannelKey, ConnHandle, PeerId, Role};
use trunkline_proto::status::{Status, Trigger};
use trunkline_proto::time::Instant;

/// An event as it was told, without the bytes.
#[derive(Clone, Debug)]
pub enum Event {
    Status { conn: ConnHandle, old: Status, new: Status, reason: Option<CloseReason> },
    Incoming { conn: ConnHandle },
    Dead { conn: ConnHandle },
    Request { conn: ConnHandle, channel: ChannelKey },
    Ready { conn: ConnHandle, channel: ChannelKey },
    Closed { conn: ConnHandle, channel: ChannelKey, end: ChannelEnd },
    Data { conn: ConnHandle, channel: ChannelKey, len: u64 },
    Eof { conn: ConnHandle, channel: ChannelKey },
    Reset { conn: ConnHandle, channel: ChannelKey, code: u32 },
    Stopped { conn: ConnHandle, channel: ChannelKey, code: u32 },
    Writable { conn: ConnHandle, channel: ChannelKey },
    Receipt { conn: ConnHandle, channel: ChannelKey, token: u64 },
    CheckAnswered { conn: ConnHandle },
    Path { conn: ConnHandle, remote: SocketAddr, relayed: bool },
    PathFailed { conn: ConnHandle, remote: SocketAddr },
}

/// What is known of a channel and what happened on it.
#[derive(Debug)]
pub struct Chan {
    pub channel: ChannelKey,
    pub name: String,
    /// Id on the wire, known to the side that was asked.
    pub id: Option<u16>,
    /// We opened it.
    pub ours: bool,
    pub options: ChannelOptions,
    /// What we send; none before we accepted.
    pub pump: Option<Pump>,
    /// A send gave "would block".
    pub blocked: bool,
    /// What we received.
    pub received: Receiver,
    /// Received and not yet returned as credit.
    pub unconsumed: u64,
    /// Refuse the rest with this code once so many bytes or messages came.
    pub stop_after: Option<(u64, u32)>,
    pub stop_sent: bool,
    pub ready: bool,
    pub eof: bool,
    pub reset: Option<u32>,
    pub stopped: Option<u32>,
    pub receipts: BTreeSet<u64>,
    pub end: Option<ChannelEnd>,
    /// When the first and the last content came.
    pub first_data: Option<Instant>,
    pub last_data: Option<Instant>,
}

/// What is known of a connection and what happened on it.
#[derive(Debug)]
pub struct Conn {
    pub handle: ConnHandle,
    pub role: Role,
    pub remote: SocketAddr,
    pub peer: Option<PeerId>,
    pub credential: Vec<u8>,
    pub server_name: Option<String>,
    /// The last status told.
    pub status: Status,
    /// All statuses told.
    pub path: Vec<Status>,
    pub reason: Option<CloseReason>,
    /// The application was asked for it (host) or asked for it itself (client).
    pub known: bool,
    pub accepted: bool,
    /// When we closed it.
    pub closed: Option<Instant>,
    pub report: Option<CloseReport>,
    pub dead_at: Option<Instant>,
    pub checks_answered: u32,
    /// Paths told: when, where to, over the relay.
    pub paths: Vec<(Instant, SocketAddr, bool)>,
    pub paths_failed: Vec<SocketAddr>,
    pub superseded_by: Option<ConnHandle>,
    pub channels: BTreeMap<(u32, u32), Chan>,
    pub by_name: BTreeMap<String, ChannelKey>,
}

impl Conn {
    pub fn new(handle: ConnHandle, role: Role, remote: SocketAddr) -> Self {
        Self {
            handle,
            role,
            remote,
            peer: None,
            credential: Vec::new(),
            server_name: None,
            status: Status::Connecting,
            path: vec![Status::Connecting],
            reason: None,
            known: role == Role::Client,
            accepted: false,
            closed: None,
            report: None,
            dead_at: None,
            checks_answered: 0,
            paths: Vec::new(),
            paths_failed: Vec::new(),
            superseded_by: None,
            channels: BTreeMap::new(),
            by_name: BTreeMap::new(),
        }
    }

    /// The channel with this key, which was told or opened before.
    pub fn chan(&self, channel: ChannelKey) -> &Chan {
        &self.channels[&order(channel)]
    }

    /// The channel with this key, for changes.
    pub fn chan_mut(&mut self, channel: ChannelKey) -> &mut Chan {
        self.channels
            .get_mut(&order(channel))
            .unwrap_or_else(|| panic!("an event of the unknown channel {channel:?}"))
    }

    /// The channel called `name`, if it is known.
    pub fn named(&self, name: &str) -> Option<&Chan> {
        self.by_name.get(name).and_then(|key| self.channels.get(&order(*key)))
    }

    /// Notes a channel that we opened or were asked for.
    pub fn add_channel(
        &mut self,
        channel: ChannelKey,
        name: &str,
        ours: bool,
        options: ChannelOptions,
        id: Option<u16>,
    ) -> &mut Chan {
        let chan = Chan {
            channel,
            name: name.to_owned(),
            id,
            ours,
            options,
            pump: None,
            blocked: false,
            received: Receiver::new(pattern::key(name, !ours), options.kind, options.latest),
            unconsumed: 0,
            stop_after: None,
            stop_sent: false,
            ready: false,
            eof: false,
            reset: None,
            stopped: None,
            receipts: BTreeSet::new(),
            end: None,
            first_data: None,
            last_data: None,
        };
        self.by_name.insert(name.to_owned(), channel);
        let old = self.channels.insert(order(channel), chan);
        assert!(old.is_none(), "the channel key {channel:?} was given twice");
        self.chan_mut(channel)
    }

    /// The connection told its end to the application or was ended by it.
    pub fn ended(&self) -> bool {
        self.closed.is_some()
            || matches!(self.status, Status::ClosedByPeer | Status::ProblemDetectedLocally)
    }
}

/// Keys in an order, for maps that are always walked the same way.
pub fn order(channel: ChannelKey) -> (u32, u32) {
    (channel.slot, channel.life)
}

/// Whether the transition table knows a trigger that leads from `old` to `new`.
pub fn legal(old: Status, new: Status) -> bool {
    Trigger::ALL.iter().any(|t| old.on(*t) == Some(new))
}

/// The sink of a node.
#[derive(Debug, Default)]
pub struct App {
    /// For messages of failed checks.
    pub name: &'static str,
    /// Set by the world before every call.
    pub now: Instant,
    pub conns: BTreeMap<ConnHandle, Conn>,
    /// Events that the world has not reacted to.
    pub pending: VecDeque<Event>,
    /// All events but data, with their time.
    pub history: Vec<(Instant, Event)>,
    /// Keep the history.
    pub keep_history: bool,
    /// Note received data among the pending events.
    pub tell_data: bool,
    /// Sink calls of every sort.
    pub events: u64,
    /// Print events.
    pub trace: bool,
    /// Its connections are plain: one EOF ends a channel both ways, and nothing else ends one.
    pub plain: bool,
}

impl App {
    /// The connection with this handle, which was told or made before.
    pub fn conn(&self, conn: ConnHandle) -> &Conn {
        self.conns.get(&conn).unwrap_or_else(|| panic!("{}: no connection {conn:?}", self.name))
    }

    /// The connection with this handle, for changes.
    pub fn conn_mut(&mut self, conn: ConnHandle) -> &mut Conn {
        let name = self.name;
        self.conns.get_mut(&conn).unwrap_or_else(|| panic!("{name}: no connection {conn:?}"))
    }

    /// Says which channel a key stands for.
    pub fn trace_channel(&self, what: &str, name: &str, channel: ChannelKey) {
        if self.trace {
            println!("{:>12} {} {what} {name}: {channel:?}", "", self.name);
        }
    }

    fn note(&mut self, event: Event) {
        self.events += 1;
        if self.trace {
            println!("{:>12} {} is told {event:?}", self.now.as_nanos() / 1_000, self.name);
        }
        if self.keep_history {
            self.history.push((self.now, event.clone()));
        }
        self.pending.push_back(event);
    }

    /// The connection of an event that only a connection in use may have.
    fn live(&mut self, conn: ConnHandle, what: &str) -> &mut Conn {
        let name = self.name;
        let c = self.conn_mut(conn);
        assert!(c.known, "{name}: {what} of {conn:?} before the application knew it");
        assert!(c.report.is_none(), "{name}: {what} of {conn:?} after its last event");
        assert!(c.closed.is_none(), "{name}: {what} of {conn:?} after it was closed");
        c
    }

    fn live_chan(&mut self, conn: ConnHandle, channel: ChannelKey, what: &str) -> &mut Chan {
        let name = self.name;
        let chan = self.live(conn, what).chan_mut(channel);
        assert!(chan.end.is_none(), "{name}: {what} of channel {} after its end", chan.name);
        chan
    }

    fn content(&mut self, conn: ConnHandle, channel: ChannelKey, len: usize) -> &mut Chan {
        let (now, name) = (self.now, self.name);
        if self.tell_data {
            self.pending.push_back(Event::Data { conn, channel, len: len as u64 });
        }
        self.events += 1;
        let c = self.live(conn, "content");
        assert_eq!(c.status, Status::Connected, "{name}: content in this status");
        let chan = self.live_chan(conn, channel, "content");
        let told = &chan.name;
        assert!(!chan.eof, "{name}: content of channel {told} after its EOF");
        assert!(chan.reset.is_none(), "{name}: content of channel {told} after its reset");
        assert!(!chan.stop_sent, "{name}: content of channel {told} after we refused the rest");
        assert!(chan.ready, "{name}: content of channel {told} before it was ready");
        chan.first_data.get_or_insert(now);
        chan.last_data = Some(now);
        chan.unconsumed += len as u64;
        chan
    }
}

impl Sink for App {
    fn status(&mut self, conn: ConnHandle, old: Status, new: Status, reason: Option<&CloseReason>) {
        let _owner = alloc::As::owner(alloc::TEST);
        let name = self.name;
        let unknown: SocketAddr = ([0, 0, 0, 0], 0).into();
        let c = self.conns.entry(conn).or_insert_with(|| Conn::new(conn, Role::Host, unknown));
        assert!(c.report.is_none(), "{name}: {old:?} → {new:?} of {conn:?} after its last event");
        assert_eq!(c.status, old, "{name}: {conn:?} goes to {new:?} from another status");
        assert!(legal(old, new), "{name}: {conn:?} may not go from {old:?} to {new:?}");
        c.status = new;
        c.path.push(new);
        let ends = matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally);
        assert!(!ends || reason.is_some(), "{name}: {conn:?} is {new:?} without a reason");
        if reason.is_some() {
            c.reason = reason.cloned();
        }
        self.note(Event::Status { conn, old, new, reason: reason.cloned() });
    }

    fn incoming(&mut self, conn: ConnHandle, incoming: &Incoming<'_>) {
        let _owner = alloc::As::owner(alloc::TEST);
        let name = self.name;
        let remote = incoming.remote;
        let c = self.conns.entry(conn).or_insert_with(|| Conn::new(conn, Role::Host, remote));
        assert!(!c.known, "{name}: {conn:?} was offered twice");
        assert_eq!(c.role, Role::Host, "{name}: our own connection was offered to us");
        assert_eq!(c.status, Status::Connecting, "{name}: {conn:?} was offered in this status");
        c.known = true;
        c.remote = remote;
        c.peer = incoming.peer;
        c.credential = incoming.credential.to_vec();
        c.server_name = incoming.server_name.map(str::to_owned);
        self.note(Event::Incoming { conn });
    }

    fn dead(&mut self, conn: ConnHandle, report: &CloseReport) {
        let _owner = alloc::As::owner(alloc::TEST);
        let (name, now) = (self.name, self.now);
        let c = self.conn_mut(conn);
        assert!(c.report.is_none(), "{name}: {conn:?} died twice");
        assert!(c.closed.is_some() || !c.known, "{name}: {conn:?} died before it was closed");
        c.report = Some(report.clone());
        c.dead_at = Some(now);
        self.note(Event::Dead { conn });
    }

    fn path(&mut self, conn: ConnHandle, remote: SocketAddr, relayed: bool) {
        let _owner = alloc::As::owner(alloc::TEST);
        let now = self.now;
        self.live(conn, "a path").paths.push((now, remote, relayed));
        self.note(Event::Path { conn, remote, relayed });
    }

    fn path_failed(&mut self, conn: ConnHandle, _socket: u16, remote: SocketAddr) {
        let _owner = alloc::As::owner(alloc::TEST);
        self.live(conn, "a failed path").paths_failed.push(remote);
        self.note(Event::PathFailed { conn, remote });
    }

    fn superseded(&mut self, conn: ConnHandle, by: ConnHandle) {
        let _owner = alloc::As::owner(alloc::TEST);
        let c = self.live(conn, "giving way");
        assert_eq!(c.status, Status::Connecting, "a connection that was agreed gives way");
        c.superseded_by = Some(by);
    }

    fn channel_request(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        request: &ChannelRequest<'_>,
    ) {
        let _owner = alloc::As::owner(alloc::TEST);
        self.trace_channel("is asked for", request.name, channel);
        let c = self.live(conn, "a channel request");
        c.add_channel(channel, request.name, false, request.options, Some(request.id));
        self.note(Event::Request { conn, channel });
    }

    fn channel_ready(&mut self, conn: ConnHandle, channel: ChannelKey) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.live_chan(conn, channel, "ready");
        assert!(!chan.ready, "channel {} became ready twice", chan.name);
        chan.ready = true;
        self.note(Event::Ready { conn, channel });
    }

    fn channel_closed(&mut self, conn: ConnHandle, channel: ChannelKey, end: &ChannelEnd) {
        let _owner = alloc::As::owner(alloc::TEST);
        let (name, plain) = (self.name, self.plain);
        let chan = self.live_chan(conn, channel, "the end");
        let told = &chan.name;
        let sent_end = chan.pump.as_ref().is_some_and(|p| p.finished);
        let cancelled = chan.pump.as_ref().is_some_and(|p| p.cancelled);
        match end {
            ChannelEnd::Finished if plain => {
                assert!(chan.eof || sent_end, "{name}: channel {told} finished without any EOF");
            }
            ChannelEnd::Reset { by_peer: true, .. } if plain => {
                assert!(chan.eof, "{name}: channel {told}: {end:?} without the peer's EOF");
            }
            ChannelEnd::Finished => {
                assert!(chan.eof, "{name}: channel {told} finished without the peer's EOF");
                assert!(sent_end, "{name}: channel {told} finished without our EOF");
            }
            ChannelEnd::Reset { code, by_peer: true } => {
                let codes = [chan.reset, chan.stopped];
                // A request may be withdrawn before it was answered.
                let withdrawn = !chan.ours && !chan.ready;
                assert!(
                    withdrawn || codes.contains(&Some(*code)),
                    "{name}: channel {told}: {end:?}, {codes:?}"
                );
            }
            ChannelEnd::Reset { by_peer: false, .. } => {
                assert!(cancelled || chan.stop_sent, "{name}: channel {told}: {end:?} unasked");
            }
            ChannelEnd::Declined { .. } | ChannelEnd::TimedOut => {
                assert!(chan.ours && !chan.ready, "{name}: channel {told}: {end:?}");
            }
            _ => {}
        }
        chan.end = Some(end.clone());
        self.note(Event::Closed { conn, channel, end: end.clone() });
    }

    fn data(&mut self, conn: ConnHandle, channel: ChannelKey, bytes: &[u8]) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.content(conn, channel, bytes.len());
        if let Err(e) = chan.received.data(bytes) {
            panic!("channel {}: {e}", chan.name);
        }
    }

    fn message(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        kind: ChannelKind,
        message: &[u8],
    ) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.content(conn, channel, message.len());
        if let Err(e) = chan.received.message(kind, message) {
            panic!("channel {}: {e}", chan.name);
        }
    }

    fn eof(&mut self, conn: ConnHandle, channel: ChannelKey) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.live_chan(conn, channel, "EOF");
        assert!(!chan.eof, "channel {} had its EOF twice", chan.name);
        assert!(chan.reset.is_none(), "channel {} had an EOF after its reset", chan.name);
        assert!(chan.ready, "channel {} had its EOF before it was ready", chan.name);
        chan.eof = true;
        self.note(Event::Eof { conn, channel });
    }

    fn reset(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.live_chan(conn, channel, "reset");
        assert!(!chan.eof, "channel {} was reset after its EOF", chan.name);
        assert!(chan.reset.is_none(), "channel {} was reset twice", chan.name);
        chan.reset = Some(code);
        self.note(Event::Reset { conn, channel, code });
    }

    fn stopped(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.live_chan(conn, channel, "stop");
        assert!(chan.stopped.is_none(), "channel {} was stopped twice", chan.name);
        chan.stopped = Some(code);
        self.note(Event::Stopped { conn, channel, code });
    }

    fn writable(&mut self, conn: ConnHandle, channel: ChannelKey) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.live_chan(conn, channel, "writable");
        assert!(chan.blocked, "channel {} is writable but was not blocked", chan.name);
        chan.blocked = false;
        self.note(Event::Writable { conn, channel });
    }

    fn receipt(&mut self, conn: ConnHandle, channel: ChannelKey, token: u64) {
        let _owner = alloc::As::owner(alloc::TEST);
        let chan = self.live_chan(conn, channel, "receipt");
        let sent = chan.pump.as_ref().map_or(0, |p| p.messages);
        assert!(token < sent, "channel {}: receipt {token} of {sent} messages", chan.name);
        assert!(chan.receipts.insert(token), "channel {}: receipt {token} twice", chan.name);
        self.note(Event::Receipt { conn, channel, token });
    }

    fn check_answered(&mut self, conn: ConnHandle) {
        let _owner = alloc::As::owner(alloc::TEST);
        self.live(conn, "an answered check").checks_answered += 1;
        self.note(Event::CheckAnswered { conn });
    }
}
