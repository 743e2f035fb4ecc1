//! The queued API's half on the shard's thread: a [`Handler`] that turns commands into calls and
//! calls into batches for the poll groups.
//!
//! The application's names of connections and channels are cells of the [`ShardLink`]; this is
//! where they are matched with the endpoint's.

use super::callbacks::Given;
use super::event::Event;
use super::group::{Groups, Writer};
use super::link::ShardLink;
use super::managed::Managed;
use super::pairings::Pairings;
use super::waiting::{Spare, Waiting};
use crate::handle::{Channel, Conn};
use crate::handler::Context;
use crate::retained::{Credit, Pool, Retained};
use crate::shard::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use trunkline_proto::config::ChannelOptions;
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::event::{ChannelEnd, CloseReport};
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::time::Duration;

pub(super) const NONE: u32 = u32::MAX;
/// Received bytes from this length on are kept where they are instead of being copied.
const KEEP: usize = 8 << 10;
/// Credits remembered, to be used again: one for each of those that the application holds.
const CREDITS: usize = 1024;

/// A connection, by the index of its cell.
#[derive(Default)]
pub(super) struct ConnSide {
    life: u32,
    pub(super) real: Option<Conn>,
    /// Cells of its channels by the endpoint's slot.
    by_slot: Vec<u32>,
    /// The connect failed before there was a connection.
    pub(super) stillborn: Option<CloseReason>,
    /// Bytes that still waited when channels ended with the connection, and how many channels.
    lost: (u64, u32),
}

/// A channel, by the index of its cell.
#[derive(Default)]
pub(super) struct ChannelSide {
    life: u32,
    /// Index of the connection's cell.
    conn: u32,
    pub real: Option<Channel>,
    pub waiting: Waiting,
    /// Bytes that callbacks were given and the connection does not know of.
    pub taken: u64,
    /// Bytes from which on it has to be told.
    pub step: u64,
    /// A callback found no room, and hears when there is some.
    pub blocked: bool,
}

/// See the module.
pub struct QueueHandler {
    shared: Arc<Shared>,
    pub(super) link: Arc<ShardLink>,
    pub(super) conns: Vec<ConnSide>,
    pub(super) channels: Vec<ChannelSide>,
    /// Cells of connections by the endpoint's slot, with its generation.
    by_slot: Vec<(u32, u32)>,
    /// The engine's poll groups, of which `writers` has those that were needed so far.
    groups: Arc<Groups>,
    pub(super) writers: Vec<Writer>,
    credits: Pool<Credit>,
    /// Memory for what waits.
    pub(super) spare: Spare,
    /// Channel requests and associations.
    pub(super) managed: Managed,
    pub(super) pairings: Pairings,
    /// The channel that the last message came on, and its cell.
    last: Option<(Channel, u32)>,
    /// Bytes that reached their connection, of one channel, not yet taken from its count.
    pub(super) done: (u32, u64),
    /// What a callback is being given.
    pub(super) given: Given,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        link: Arc<ShardLink>,
        groups: Arc<Groups>,
        managed: Managed,
    ) -> Self {
        Self {
            shared,
            managed,
            link,
            conns: Vec::new(),
            channels: Vec::new(),
            by_slot: Vec::new(),
            groups,
            writers: Vec::new(),
            credits: Pool::new(CREDITS),
            spare: Spare::default(),
            last: None,
            pairings: Pairings::default(),
            done: (NONE, 0),
            given: Given::default(),
        }
    }

    // ---- names

    pub(super) fn conn_cell(&self, real: Conn) -> Option<u32> {
        let (cell, generation) = *self.by_slot.get(real.slot() as usize)?;
        (cell != NONE && generation == real.handle().generation).then_some(cell)
    }

    #[inline(always)]
    pub(super) fn conn_name(&self, cell: u32) -> Option<Conn> {
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

    pub(super) fn side(&mut self, cell: u32, life: u32) -> Option<&mut ChannelSide> {
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

    /// The application's name of the endpoint's channel. Always inlined: an `Option<Channel>` goes
    /// through memory, and reading it back at once costs more than finding it.
    #[inline(always)]
    pub(super) fn channel_name(&mut self, real: Channel) -> Option<Channel> {
        let cell = match self.last {
            Some((last, cell)) if last == real => cell,
            _ => {
                let conn = self.conns.get(self.conn_cell(real.conn())? as usize)?;
                let cell = *conn.by_slot.get(real.key().slot as usize)?;
                self.channels.get(cell as usize).filter(|side| side.real == Some(real))?;
                self.last = Some((real, cell));
                cell
            }
        };
        self.name_of(cell)
    }

    #[inline(always)]
    pub(super) fn name_of(&self, cell: u32) -> Option<Channel> {
        let side = self.channels.get(cell as usize)?;
        let conn = self.conn_name(side.conn)?;
        Some(Channel::new(conn, ChannelKey { slot: cell, life: side.life }))
    }

    /// Where what happens to a connection is written. The group is read anew each time: what
    /// arrives after the application chose another one shows there.
    #[inline]
    pub(super) fn writer(&mut self, conn_cell: u32) -> Option<&mut Writer> {
        let group = self.link.conns.get(conn_cell)?.group.load(Ordering::Acquire) as usize;
        self.writer_of(group)
    }

    #[inline]
    pub(super) fn writer_of(&mut self, group: usize) -> Option<&mut Writer> {
        if group >= self.writers.len() {
            self.add_writers();
        }
        self.writers.get_mut(group)
    }

    /// Makes a writer for each group that has none.
    #[cold]
    fn add_writers(&mut self) {
        let new = self.groups.from(self.writers.len());
        self.writers.extend(new.into_iter().map(|group| Writer::new(group, self.link.clone())));
    }

    pub(super) fn emit(&mut self, conn_cell: u32, event: Event) {
        if let Some(writer) = self.writer(conn_cell) {
            writer.event(event);
        }
    }

    pub(super) fn emit_channel(&mut self, real: Channel, event: impl FnOnce(Channel) -> Event) {
        if let Some(name) = self.channel_name(real) {
            self.emit(name.conn().slot(), event(name));
        }
    }

    // ---- connections

    pub(super) fn begin_conn(&mut self, cell: u32, life: u32) {
        *at(&mut self.conns, cell) = ConnSide { life, ..ConnSide::default() };
    }

    pub(super) fn map_conn(&mut self, cx: &Context<'_>, cell: u32, real: Conn) {
        self.note_limits(cx, cell, real);
        let slot = real.slot() as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, (NONE, 0));
        }
        self.by_slot[slot] = (cell, real.handle().generation);
        if let Some(side) = self.conns.get_mut(cell as usize) {
            side.real = Some(real);
        }
    }

    /// Lets the application's threads know what a connection carries.
    pub(super) fn note_limits(&self, cx: &Context<'_>, cell: u32, real: Conn) {
        if let (Some(shared), Some(limit)) = (self.link.conns.get(cell), cx.max_message(real)) {
            shared.max_message.store(limit as u32, Ordering::Relaxed);
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
            let mut report = CloseReport {
                acknowledged_bytes: 0,
                undelivered_bytes: 0,
                undelivered_channels: 0,
                reason,
                peer_knows: false,
                peer_discarded: false,
            };
            self.count_waiting(handle.slot, &mut report);
            self.end_conn(cx, handle.slot, &report);
        } else if let Some(real) = side.real {
            self.send_all_waiting(cx, handle.slot, linger.is_some());
            let _ = cx.close(real, code, text, linger);
        }
    }

    /// Before a close: what waits for room is still the application's. If the close lingers, it goes
    /// over the limit.
    pub(super) fn send_all_waiting(&mut self, cx: &mut Context<'_>, conn: u32, lingers: bool) {
        for cell in self.cells_of(conn) {
            self.send_waiting(cx, cell, lingers);
        }
    }

    /// Adds what never reached the connection to what was not delivered.
    pub(super) fn count_waiting(&self, conn: u32, report: &mut CloseReport) {
        let cells = self.cells_of(conn).into_iter();
        let sides = cells.filter_map(|cell| self.channels.get(cell as usize));
        let waiting = sides.map(|side| side.waiting.bytes()).filter(|bytes| *bytes > 0);
        let before = self.conns.get(conn as usize).map_or((0, 0), |side| side.lost);
        let (bytes, channels) = waiting.fold(before, |(all, n), len| (all + len as u64, n + 1));
        report.undelivered_bytes += bytes;
        // The same channels as a rule: what waits, waits behind what is on its way.
        report.undelivered_channels = report.undelivered_channels.max(channels);
    }

    /// A channel ends with its connection: remembers what waits.
    pub(super) fn note_lost(&mut self, cell: u32) {
        let Some(side) = self.channels.get(cell as usize) else { return };
        let bytes = side.waiting.bytes() as u64;
        if bytes > 0
            && let Some(conn) = self.conns.get_mut(side.conn as usize)
        {
            conn.lost = (conn.lost.0 + bytes, conn.lost.1 + 1);
        }
    }

    /// The connections of this shard, as the application knows them.
    pub(super) fn connections(&self) -> Vec<Conn> {
        let is_used = |side: &ConnSide| side.real.is_some() || side.stillborn.is_some();
        let cells = self.conns.iter().zip(0..).filter(|(side, _)| is_used(side));
        cells.filter_map(|(_, cell)| self.conn_name(cell)).collect()
    }

    fn cells_of(&self, conn_cell: u32) -> Vec<u32> {
        let Some(side) = self.conns.get(conn_cell as usize) else { return Vec::new() };
        side.by_slot.iter().copied().filter(|cell| *cell != NONE).collect()
    }

    /// Frees everything of a connection, and says so.
    pub(super) fn end_conn(&mut self, cx: &mut Context<'_>, cell: u32, report: &CloseReport) {
        for channel in self.cells_of(cell) {
            self.end_channel(cx, channel);
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

    pub(super) fn begin_channel(
        &mut self,
        cx: &mut Context<'_>,
        (cell, life): (u32, u32),
        conn: u32,
        real: Channel,
    ) {
        *at(&mut self.channels, cell) =
            ChannelSide { life, conn, real: Some(real), ..ChannelSide::default() };
        if let Some(side) = self.conns.get_mut(conn as usize) {
            let slot = real.key().slot as usize;
            if side.by_slot.len() <= slot {
                side.by_slot.resize(slot + 1, NONE);
            }
            side.by_slot[slot] = cell;
        }
        self.last = None;
        self.return_credit(cx, cell);
        // It may have been sent on, and been blocked, since the application opened it.
        self.maybe_writable(cell);
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
            Ok(real) => self.begin_channel(cx, (cell, life), channel.conn().slot(), real),
            Err(error) => {
                let reason = CloseReason::new(Reason::LOCAL_LIMIT, &error.to_string());
                let event = Event::ChannelClosed { channel, end: ChannelEnd::Connection(reason) };
                self.emit(channel.conn().slot(), event);
                self.link.channels.give_back(cell, life);
            }
        }
    }

    /// Opens a channel, or finds the one that has this name already: `channel` is given back then.
    pub(super) fn join_channel(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        channel: Channel,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<Channel, ApiError> {
        let ChannelKey { slot: cell, life } = channel.key();
        let real = cx
            .open_channel(conn, name, options)
            .inspect_err(|_| self.link.channels.give_back(cell, life))?;
        if let Some(existing) = self.channel_name(real) {
            self.link.channels.give_back(cell, life);
            return Ok(existing);
        }
        self.begin_channel(cx, (cell, life), channel.conn().slot(), real);
        Ok(channel)
    }

    /// Frees a channel; what still waited is lost with it.
    pub(super) fn end_channel(&mut self, cx: &mut Context<'_>, cell: u32) {
        let Some(side) = self.channels.get_mut(cell as usize) else { return };
        let mut side = std::mem::take(side);
        let lost = side.waiting.clear(&mut self.spare);
        self.finished(cell, lost);
        if let Some(real) = side.real
            && let Some(conn) = self.conns.get_mut(side.conn as usize)
            && let Some(slot) = conn.by_slot.get_mut(real.key().slot as usize)
            && *slot == cell
        {
            *slot = NONE;
        }
        self.last = None;
        let bytes = self.link.end_channel(cell, side.life) + side.taken;
        if let Some(real) = side.real {
            let _ = cx.consume_ended(real.conn(), bytes);
        }
    }

    // ---- receiving

    /// What the application has taken of a channel must not wait until it is worth a step.
    pub(super) fn return_credit_now(&mut self, cx: &mut Context<'_>, channel: Channel) {
        if let Some(name) = self.channel_name(channel) {
            self.return_credit(cx, name.key().slot);
        }
    }

    /// The bytes kept without a copy, if that is worth it; their credit returns with them.
    pub(super) fn keep(
        &mut self,
        cx: &Context<'_>,
        channel: Channel,
        bytes: &[u8],
    ) -> Option<Retained> {
        if bytes.len() < KEEP {
            return None;
        }
        let kept = cx.retain_shared(bytes)?;
        let make = || Credit::new(self.link.clone(), channel);
        let set = |credit: &mut Credit| credit.set(channel, bytes.len() as u64);
        Some(kept.with_credit(self.credits.get(make, set)))
    }
}

impl Drop for QueueHandler {
    /// The shard has ended, as wanted or not: whoever waits for it must hear of that.
    fn drop(&mut self) {
        self.link.fail();
        self.stop_listening();
        let shard = self.link.shard;
        self.add_writers();
        let failure = self.shared.failure(shard);
        for writer in &mut self.writers {
            if let Some(message) = failure {
                writer.event(Event::ShardFailed { shard, message: message.to_owned() });
            }
            writer.hand_over();
            writer.tell_the_rest();
        }
    }
}
