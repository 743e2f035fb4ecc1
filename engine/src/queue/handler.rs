//! The queued API's half on the shard's thread: a [`Handler`] that turns commands into calls and
//! calls into batches for the poll groups.
//!
//! The application's names of connections and channels are cells of the [`ShardLink`]; this is
//! where they are matched with the endpoint's.

use super::cells::{BLOCKED, CREDIT_TOLD, LOSSY, MESSAGES};
use super::command::{COPY_AGAIN, Command, Part};
use super::event::Event;
use super::group::{PollGroup, Writer};
use super::link::{Credit, ShardLink};
use crate::config::ConnectConfig;
use crate::handle::{Channel, Conn};
use crate::handler::{Context, Handler};
use crate::retained::Retained;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::endpoint::SendOptions;
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming};
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

const NONE: u32 = u32::MAX;
/// Received bytes from this length on are kept where they are instead of being copied.
const KEEP: usize = 8 << 10;
/// Channels whose credit is returned in one go.
const CREDITS_A_TURN: usize = 4096;

/// Something that waits for room in the connection.
enum Waiting {
    Bytes(Payload, Option<u64>),
    Finish,
}

/// A connection, by the index of its cell.
#[derive(Default)]
struct ConnSide {
    life: u32,
    real: Option<Conn>,
    group: u32,
    /// Cells of its channels by the endpoint's slot.
    by_slot: Vec<u32>,
    /// The connect failed before there was a connection.
    stillborn: Option<CloseReason>,
}

/// A channel, by the index of its cell.
#[derive(Default)]
struct ChannelSide {
    life: u32,
    /// Index of the connection's cell.
    conn: u32,
    real: Option<Channel>,
    waiting: VecDeque<Waiting>,
}

/// See the module.
pub struct QueueHandler {
    link: Arc<ShardLink>,
    conns: Vec<ConnSide>,
    channels: Vec<ChannelSide>,
    /// Cells of connections by the endpoint's slot, with its generation.
    by_slot: Vec<(u32, u32)>,
    writers: Vec<Writer>,
    /// The channel that the last message came on, and its cell.
    last: Option<(Channel, u32, u32)>,
    /// Bytes that reached their connection, of one channel, not yet taken from its count.
    done: (u32, u64),
    default_window: u64,
}

impl std::fmt::Debug for QueueHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueHandler").field("shard", &self.link.shard).finish_non_exhaustive()
    }
}

fn at<T: Default>(list: &mut Vec<T>, index: u32) -> &mut T {
    let index = index as usize;
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    &mut list[index]
}

impl QueueHandler {
    pub(super) fn new(link: Arc<ShardLink>, group: PollGroup, default_window: u64) -> Self {
        let writer = Writer::new(group, link.clone());
        Self {
            link,
            conns: Vec::new(),
            channels: Vec::new(),
            by_slot: Vec::new(),
            writers: vec![writer],
            last: None,
            done: (NONE, 0),
            default_window,
        }
    }

    // ---- names

    fn conn_cell(&self, real: Conn) -> Option<u32> {
        let (cell, generation) = *self.by_slot.get(real.slot() as usize)?;
        (cell != NONE && generation == real.handle().generation).then_some(cell)
    }

    fn conn_name(&self, cell: u32) -> Option<Conn> {
        let side = self.conns.get(cell as usize)?;
        Some(self.link.conn_name(cell, side.life))
    }

    /// The endpoint's name of a connection of the application.
    pub(super) fn real_conn(&self, conn: Conn) -> Result<Conn, ApiError> {
        let handle = conn.handle();
        self.conns
            .get(handle.slot as usize)
            .filter(|side| side.life == handle.generation)
            .and_then(|side| side.real)
            .ok_or(ApiError::InvalidHandle)
    }

    fn side(&mut self, cell: u32, life: u32) -> Option<&mut ChannelSide> {
        self.channels.get_mut(cell as usize).filter(|side| side.life == life)
    }

    /// The endpoint's name of a channel of the application.
    pub(super) fn real_channel(&self, cell: u32, life: u32) -> Result<Channel, ApiError> {
        self.channels
            .get(cell as usize)
            .filter(|side| side.life == life)
            .and_then(|side| side.real)
            .ok_or(ApiError::InvalidHandle)
    }

    /// The application's name of the endpoint's channel, and its group.
    #[inline]
    fn channel_name(&mut self, real: Channel) -> Option<(Channel, u32)> {
        let (cell, group) = match self.last {
            Some((last, cell, group)) if last == real => (cell, group),
            _ => {
                let conn = self.conns.get(self.conn_cell(real.conn())? as usize)?;
                let cell = *conn.by_slot.get(real.key().slot as usize)?;
                let group = conn.group;
                self.channels.get(cell as usize).filter(|side| side.real == Some(real))?;
                self.last = Some((real, cell, group));
                (cell, group)
            }
        };
        let side = self.channels.get(cell as usize)?;
        let conn = self.conn_name(side.conn)?;
        Some((Channel::new(conn, ChannelKey { slot: cell, life: side.life }), group))
    }

    fn name_of(&self, cell: u32) -> Option<Channel> {
        let side = self.channels.get(cell as usize)?;
        let conn = self.conn_name(side.conn)?;
        Some(Channel::new(conn, ChannelKey { slot: cell, life: side.life }))
    }

    fn group_of(&self, conn_cell: u32) -> usize {
        self.conns.get(conn_cell as usize).map_or(0, |side| side.group as usize)
    }

    fn emit(&mut self, conn_cell: u32, event: Event) {
        let group = self.group_of(conn_cell);
        if let Some(writer) = self.writers.get_mut(group) {
            writer.event(event);
        }
    }

    fn emit_channel(&mut self, real: Channel, event: impl FnOnce(Channel) -> Event) {
        if let Some((name, group)) = self.channel_name(real)
            && let Some(writer) = self.writers.get_mut(group as usize)
        {
            writer.event(event(name));
        }
    }

    /// Makes room for a group.
    pub(super) fn add_group(&mut self, group: PollGroup) {
        let index = group.index as usize;
        while self.writers.len() < index {
            // Groups arrive in order; a hole is filled by its own call.
            let filler = Writer::new(group.clone(), self.link.clone());
            self.writers.push(filler);
        }
        let writer = Writer::new(group, self.link.clone());
        match self.writers.get_mut(index) {
            Some(place) => *place = writer,
            None => self.writers.push(writer),
        }
    }

    /// What happens to a connection goes to this group from now on.
    pub(super) fn assign(&mut self, conn: Conn, group: u32) {
        let handle = conn.handle();
        if let Some(side) = self.conns.get_mut(handle.slot as usize)
            && side.life == handle.generation
        {
            side.group = group;
            self.last = None;
        }
    }

    // ---- connections

    fn begin_conn(&mut self, cell: u32, life: u32, group: u32) {
        *at(&mut self.conns, cell) = ConnSide { life, group, ..ConnSide::default() };
    }

    fn map_conn(&mut self, cell: u32, real: Conn) {
        let slot = real.slot() as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, (NONE, 0));
        }
        self.by_slot[slot] = (cell, real.handle().generation);
        if let Some(side) = self.conns.get_mut(cell as usize) {
            side.real = Some(real);
        }
    }

    pub(super) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        group: u32,
        config: &ConnectConfig,
    ) {
        let handle = conn.handle();
        self.begin_conn(handle.slot, handle.generation, group);
        match cx.connect(config) {
            Ok(real) => self.map_conn(handle.slot, real),
            Err(error) => {
                let reason = CloseReason::new(Reason::LOCAL_LIMIT, &error.to_string());
                if let Some(cell) = self.link.conns.get(handle.slot) {
                    cell.set_status(Status::ProblemDetectedLocally);
                }
                if let Some(side) = self.conns.get_mut(handle.slot as usize) {
                    side.stillborn = Some(reason.clone());
                }
                let event = Event::Status {
                    conn,
                    old: Status::Connecting,
                    new: Status::ProblemDetectedLocally,
                    reason: Some(reason),
                };
                self.emit(handle.slot, event);
            }
        }
    }

    pub(super) fn close(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        code: u32,
        text: &str,
        linger: Option<Duration>,
    ) {
        let handle = conn.handle();
        let Some(side) =
            self.conns.get_mut(handle.slot as usize).filter(|s| s.life == handle.generation)
        else {
            return;
        };
        if let Some(reason) = side.stillborn.take() {
            let report = CloseReport {
                acknowledged_bytes: 0,
                undelivered_bytes: 0,
                undelivered_channels: 0,
                reason,
                peer_knows: false,
            };
            self.end_conn(handle.slot, &report);
        } else if let Some(real) = side.real {
            // What waits for room is still the application's: it goes first, over the limit.
            for cell in self.cells_of(handle.slot) {
                self.send_waiting(cx, cell, linger.is_some());
            }
            let _ = cx.close(real, code, text, linger);
        }
    }

    fn cells_of(&self, conn_cell: u32) -> Vec<u32> {
        let Some(side) = self.conns.get(conn_cell as usize) else { return Vec::new() };
        side.by_slot.iter().copied().filter(|cell| *cell != NONE).collect()
    }

    /// Frees everything of a connection, and says so.
    fn end_conn(&mut self, cell: u32, report: &CloseReport) {
        for channel in self.cells_of(cell) {
            self.end_channel(channel);
        }
        let Some(name) = self.conn_name(cell) else { return };
        self.emit(cell, Event::Dead { conn: name, report: report.clone() });
        let side = std::mem::take(&mut self.conns[cell as usize]);
        if let Some(real) = side.real
            && let Some(slot) = self.by_slot.get_mut(real.slot() as usize)
        {
            *slot = (NONE, 0);
        }
        self.link.conns.give_back(cell, side.life);
    }

    // ---- channels

    fn begin_channel(&mut self, cell: u32, life: u32, conn: u32, real: Channel) {
        *at(&mut self.channels, cell) =
            ChannelSide { life, conn, real: Some(real), waiting: VecDeque::new() };
        if let Some(side) = self.conns.get_mut(conn as usize) {
            let slot = real.key().slot as usize;
            if side.by_slot.len() <= slot {
                side.by_slot.resize(slot + 1, NONE);
            }
            side.by_slot[slot] = cell;
        }
        self.last = None;
    }

    pub(super) fn open_channel(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        name: &str,
        options: &ChannelOptions,
    ) {
        let ChannelKey { slot: cell, life } = channel.key();
        let opened =
            self.real_conn(channel.conn()).and_then(|real| cx.open_channel(real, name, options));
        match opened {
            Ok(real) => self.begin_channel(cell, life, channel.conn().slot(), real),
            Err(error) => {
                let reason = CloseReason::new(Reason::LOCAL_LIMIT, &error.to_string());
                let event = Event::ChannelClosed { channel, end: ChannelEnd::Connection(reason) };
                self.emit(channel.conn().slot(), event);
                self.link.channels.give_back(cell, life);
            }
        }
    }

    /// Frees a channel; what still waited is lost with it.
    fn end_channel(&mut self, cell: u32) {
        let Some(side) = self.channels.get_mut(cell as usize) else { return };
        let side = std::mem::take(side);
        let lost: usize = side.waiting.iter().map(waiting_bytes).sum();
        self.finished(cell, lost);
        if let Some(real) = side.real
            && let Some(conn) = self.conns.get_mut(side.conn as usize)
            && let Some(slot) = conn.by_slot.get_mut(real.key().slot as usize)
            && *slot == cell
        {
            *slot = NONE;
        }
        self.last = None;
        self.link.channels.give_back(cell, side.life);
    }

    // ---- sending

    /// `len` bytes of a channel are no longer queued.
    #[inline]
    fn finished(&mut self, cell: u32, len: usize) {
        if self.done.0 != cell {
            self.settle();
            self.done.0 = cell;
        }
        self.done.1 += len as u64;
    }

    /// Takes what is done from its channel's count; a blocked channel hears of the room.
    fn settle(&mut self) {
        let (index, bytes) = std::mem::replace(&mut self.done, (NONE, 0));
        if bytes == 0 {
            return;
        }
        let Some(cell) = self.link.channels.get(index) else { return };
        cell.queued.fetch_sub(bytes, Ordering::SeqCst);
        if cell.has(BLOCKED) {
            self.maybe_writable(index);
        }
    }

    /// Tells the application that a blocked channel has room, if it has.
    fn maybe_writable(&mut self, index: u32) {
        let Some(cell) = self.link.channels.get(index) else { return };
        if !self.link.has_room(cell) || !cell.lower(BLOCKED) {
            return;
        }
        if let Some(name) = self.name_of(index).filter(|n| n.key().life % 2 == 1) {
            self.emit(name.conn().slot(), Event::Writable { channel: name });
        }
    }

    #[inline]
    fn send(&mut self, cx: &mut Context<'_>, cell: u32, life: u32, bytes: &[u8]) {
        let Some(side) = self.side(cell, life) else {
            self.finished(cell, bytes.len());
            return;
        };
        let Some(real) = side.real.filter(|_| side.waiting.is_empty()) else {
            side.waiting.push_back(Waiting::Bytes(Payload::from(bytes.to_vec()), None));
            return;
        };
        match cx.send(real, bytes) {
            Ok(()) => self.finished(cell, bytes.len()),
            Err(ApiError::WouldBlock(_)) => {
                let bytes = Payload::from(bytes.to_vec());
                if let Some(side) = self.side(cell, life) {
                    side.waiting.push_back(Waiting::Bytes(bytes, None));
                }
            }
            Err(error) => self.failed(cell, bytes.len(), error),
        }
    }

    fn send_data(
        &mut self,
        cx: &mut Context<'_>,
        (cell, life): (u32, u32),
        data: Payload,
        receipt: Option<u64>,
        copied: bool,
    ) {
        let len = data.len();
        self.link.waiting_bytes.fetch_sub(len as u64, Ordering::Relaxed);
        if copied && receipt.is_none() && len <= COPY_AGAIN {
            return self.send(cx, cell, life, data.as_slice());
        }
        let Some(side) = self.side(cell, life) else {
            return self.finished(cell, len);
        };
        let Some(real) = side.real.filter(|_| side.waiting.is_empty()) else {
            side.waiting.push_back(Waiting::Bytes(data, receipt));
            return;
        };
        let options = SendOptions { receipt, ..SendOptions::default() };
        match cx.send_payload(real, data.clone(), options) {
            Ok(()) => self.finished(cell, len),
            Err(ApiError::WouldBlock(_)) => {
                if let Some(side) = self.side(cell, life) {
                    side.waiting.push_back(Waiting::Bytes(data, receipt));
                }
            }
            Err(error) => self.failed(cell, len, error),
        }
    }

    fn send_many(&mut self, cx: &mut Context<'_>, parts: &[Part], bytes: &[u8]) {
        self.link.waiting_bytes.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
        let mut rest = bytes;
        for part in parts {
            let (message, after) = rest.split_at(rest.len().min(part.len as usize));
            rest = after;
            self.send(cx, part.cell, part.life, message);
        }
    }

    /// Tries again with what waits on a channel.
    fn send_waiting(&mut self, cx: &mut Context<'_>, cell: u32, over_limit: bool) {
        loop {
            let Some(side) = self.channels.get_mut(cell as usize) else { return };
            let Some(real) = side.real else { return };
            let Some(next) = side.waiting.pop_front() else { return };
            match next {
                Waiting::Finish => {
                    if let Err(error) = cx.finish(real) {
                        self.failed(cell, 0, error);
                    }
                }
                Waiting::Bytes(data, receipt) => {
                    let len = data.len();
                    let options = SendOptions { receipt, over_limit };
                    match cx.send_payload(real, data.clone(), options) {
                        Ok(()) => self.finished(cell, len),
                        Err(ApiError::WouldBlock(_)) => {
                            side.waiting.push_front(Waiting::Bytes(data, receipt));
                            return;
                        }
                        Err(error) => self.failed(cell, len, error),
                    }
                }
            }
        }
    }

    fn failed(&mut self, cell: u32, len: usize, error: ApiError) {
        self.finished(cell, len);
        // Unreliable messages may be dropped; the end of a connection is told by its own events.
        if matches!(error, ApiError::Dropped(_) | ApiError::NoConnection(_)) {
            return;
        }
        if let Some(channel) = self.name_of(cell) {
            self.emit(channel.conn().slot(), Event::SendFailed { channel, error });
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>, cell: u32, life: u32) {
        let Some(side) = self.side(cell, life) else { return };
        if !side.waiting.is_empty() {
            side.waiting.push_back(Waiting::Finish);
            return;
        }
        if let Some(real) = side.real
            && let Err(error) = cx.finish(real)
        {
            self.failed(cell, 0, error);
        }
    }

    /// Cancels what a channel sends, what waits included.
    pub(super) fn reset(&mut self, cx: &mut Context<'_>, cell: u32, life: u32, code: u32) {
        let Some(side) = self.side(cell, life) else { return };
        let lost: usize = side.waiting.drain(..).map(|w| waiting_bytes(&w)).sum();
        let real = side.real;
        self.finished(cell, lost);
        if let Some(real) = real {
            let _ = cx.reset(real, code);
        }
    }

    /// Looks at the lists of channels that need something.
    fn service(&mut self, cx: &mut Context<'_>) {
        self.link.begin_service();
        let link = self.link.clone();
        while let Some(index) = link.blocked.pop() {
            self.maybe_writable(index);
        }
        for _ in 0..CREDITS_A_TURN {
            let Some(index) = link.credits.pop() else { return };
            let Some(cell) = link.channels.get(index) else { continue };
            cell.lower(CREDIT_TOLD);
            let bytes = cell.released.swap(0, Ordering::SeqCst);
            if let Some(real) = self.channels.get(index as usize).and_then(|side| side.real) {
                let _ = cx.consume(real, bytes);
            }
        }
        link.poke();
    }

    // ---- receiving

    /// The bytes kept without a copy, if that is worth it; their credit returns with them.
    fn keep(&self, cx: &Context<'_>, channel: Channel, bytes: &[u8]) -> Option<Retained> {
        if bytes.len() < KEEP {
            return None;
        }
        let kept = cx.retain_shared(bytes)?;
        let credit =
            Credit { link: self.link.clone(), key: channel.key(), bytes: bytes.len() as u64 };
        Some(kept.guarded(Box::new(credit)))
    }

    pub(super) const fn credit_step(&self, options: &ChannelOptions) -> u32 {
        credit_step(options, self.default_window)
    }
}

/// Released bytes from which on a shard is told: a quarter of the window, so that a sender never
/// waits for credit that only lies about.
pub(super) const fn credit_step(options: &ChannelOptions, default_window: u64) -> u32 {
    let window = match options.window {
        Some(window) => window,
        None => default_window,
    };
    let quarter = window / 4;
    if quarter > 256 << 10 { 256 << 10 } else { quarter as u32 }
}

/// The flags of a channel's cell.
pub(super) const fn kind_flags(kind: ChannelKind) -> u32 {
    match kind {
        ChannelKind::Bytes => 0,
        ChannelKind::Messages => MESSAGES,
        ChannelKind::Datagrams => LOSSY,
    }
}

fn waiting_bytes(waiting: &Waiting) -> usize {
    match waiting {
        Waiting::Bytes(data, _) => data.len(),
        Waiting::Finish => 0,
    }
}

impl Handler for QueueHandler {
    type Command = Command;

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        let Some((cell, life)) = self.link.conns.take() else {
            let _ = cx.reject(conn, Reason::APP_REJECTED.0, "too many connections");
            return;
        };
        if let Some(cell) = self.link.conns.get(cell) {
            cell.begin(Status::Connecting);
        }
        self.begin_conn(cell, life, 0);
        self.map_conn(cell, conn);
        let event = Event::Incoming {
            conn: self.link.conn_name(cell, life),
            remote: incoming.remote,
            peer: incoming.peer,
            credential: incoming.credential.to_vec(),
            server_name: incoming.server_name.map(str::to_owned),
        };
        self.emit(cell, event);
    }

    fn on_status(
        &mut self,
        _cx: &mut Context<'_>,
        conn: Conn,
        old: Status,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        let Some(cell) = self.conn_cell(conn) else { return };
        if let Some(shared) = self.link.conns.get(cell) {
            shared.set_status(new);
        }
        if let Some(conn) = self.conn_name(cell) {
            self.emit(cell, Event::Status { conn, old, new, reason: reason.cloned() });
        }
    }

    fn on_dead(&mut self, _cx: &mut Context<'_>, conn: Conn, report: &CloseReport) {
        if let Some(cell) = self.conn_cell(conn) {
            self.end_conn(cell, report);
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        let Some(conn_cell) = self.conn_cell(channel.conn()) else { return };
        let Some(conn) = self.conn_name(conn_cell) else { return };
        let Some((slot, life)) = self.link.channels.take() else {
            let _ = cx.decline_channel(channel, Reason::APP_REJECTED.0, "too many channels");
            return;
        };
        if let Some(cell) = self.link.channels.get(slot) {
            // Our own window is chosen when the channel is accepted.
            let step = self.credit_step(&ChannelOptions::default());
            cell.begin(conn.to_bits(), kind_flags(request.options.kind), step);
        }
        self.begin_channel(slot, life, conn_cell, channel);
        let event = Event::ChannelRequest {
            channel: Channel::new(conn, ChannelKey { slot, life }),
            id: request.id,
            name: request.name.to_owned(),
            options: request.options,
        };
        self.emit(conn_cell, event);
    }

    fn on_channel_ready(&mut self, _cx: &mut Context<'_>, channel: Channel) {
        self.emit_channel(channel, |channel| Event::ChannelReady { channel });
    }

    fn on_channel_closed(&mut self, _cx: &mut Context<'_>, channel: Channel, end: &ChannelEnd) {
        let Some((name, _)) = self.channel_name(channel) else { return };
        self.emit_channel(channel, |channel| Event::ChannelClosed { channel, end: end.clone() });
        self.end_channel(name.key().slot);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, channel: Channel, bytes: &[u8]) {
        let Some((name, group)) = self.channel_name(channel) else { return };
        let kept = self.keep(cx, name, bytes);
        let Some(writer) = self.writers.get_mut(group as usize) else { return };
        match kept {
            Some(kept) => writer.large(name, ChannelKind::Bytes, kept),
            None => writer.data(name, bytes),
        }
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        kind: ChannelKind,
        message: &[u8],
    ) {
        let Some((name, group)) = self.channel_name(channel) else { return };
        let kept = self.keep(cx, name, message);
        let Some(writer) = self.writers.get_mut(group as usize) else { return };
        match kept {
            Some(kept) => writer.large(name, kind, kept),
            None => writer.message(name, kind, message),
        }
    }

    fn on_eof(&mut self, _cx: &mut Context<'_>, channel: Channel) {
        self.emit_channel(channel, |channel| Event::Eof { channel });
    }

    fn on_reset(&mut self, _cx: &mut Context<'_>, channel: Channel, code: u32) {
        self.emit_channel(channel, |channel| Event::Reset { channel, code });
    }

    fn on_stopped(&mut self, _cx: &mut Context<'_>, channel: Channel, code: u32) {
        self.emit_channel(channel, |channel| Event::Stopped { channel, code });
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if let Some((name, _)) = self.channel_name(channel) {
            self.send_waiting(cx, name.key().slot, false);
        }
    }

    fn on_receipt(&mut self, _cx: &mut Context<'_>, channel: Channel, token: u64) {
        self.emit_channel(channel, |channel| Event::Receipt { channel, token });
    }

    fn on_check_answered(&mut self, _cx: &mut Context<'_>, conn: Conn) {
        if let Some(cell) = self.conn_cell(conn)
            && let Some(conn) = self.conn_name(cell)
        {
            self.emit(cell, Event::CheckAnswered { conn });
        }
    }

    #[inline]
    fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        match command {
            Command::Small { cell, life, len, bytes } => {
                let bytes = bytes.get(..usize::from(len)).unwrap_or_default();
                self.send(cx, cell, life, bytes);
            }
            Command::Data { cell, life, data, receipt, copied } => {
                self.send_data(cx, (cell, life), data, receipt, copied);
            }
            Command::Many(many) => self.send_many(cx, &many.0, &many.1),
            Command::Finish { cell, life } => self.finish(cx, cell, life),
            Command::Flush { cell, life } => {
                if let Ok(real) = self.real_channel(cell, life) {
                    let _ = cx.flush(real);
                }
            }
            Command::Call(call) => call(self, cx),
            Command::Poke => {}
        }
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_>) {
        self.settle();
        self.service(cx);
        for writer in &mut self.writers {
            writer.hand_over();
        }
    }

    fn report_as(&self, conn: Conn) -> Conn {
        self.conn_cell(conn).and_then(|cell| self.conn_name(cell)).unwrap_or(conn)
    }
}

impl Drop for QueueHandler {
    /// The shard has ended, as wanted or not: whoever waits for it must hear of that.
    fn drop(&mut self) {
        self.link.fail();
        for writer in &mut self.writers {
            writer.hand_over();
        }
    }
}
