//! Connections that are shared and channel requests: the application's calls, and what the shard tells
//! of them.

use super::associations::Associations;
use super::cells::kind_flags;
use super::event::Event;
use super::group::PollGroup;
use super::handler::QueueHandler;
use super::link::ShardLink;
use super::{QueuedEngine, Reusable, lock};
use crate::config::{ConnectConfig, Reuse};
use crate::handle::{Channel, Conn, OpenRequest};
use crate::handler::{Context, Opened};
use crate::security::Chosen;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::connection::SecInfo;
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::limits;
use trunkline_proto::manager::{RequestError, ReuseKey};
use trunkline_proto::status::Status;

/// Where in a number of a request, an association or a pairing its shard stands: the highest bit is
/// free.
const SHARD_SHIFT: u32 = 55;

/// The shard that gave a number.
pub(super) const fn shard_of(number: u64) -> u8 {
    (number >> SHARD_SHIFT) as u8
}

/// All numbers that a shard may give.
pub(super) const fn numbers_of(shard: u8) -> RangeInclusive<u64> {
    let first = (shard as u64) << SHARD_SHIFT;
    first..=first | ((1 << SHARD_SHIFT) - 1)
}

/// See the module.
pub(super) struct Managed {
    reusable: Arc<Reusable>,
    /// Numbers and groups of requests.
    requests: BTreeMap<OpenRequest, (u64, u32)>,
    by_request: BTreeMap<u64, OpenRequest>,
    pub(super) associations: Associations,
}

impl Managed {
    pub(super) const fn new(reusable: Arc<Reusable>, associations: Associations) -> Self {
        Self { reusable, requests: BTreeMap::new(), by_request: BTreeMap::new(), associations }
    }
}

impl QueueHandler {
    // ---- connections

    pub(super) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        chosen: &Chosen,
        mine: bool,
    ) {
        let handle = conn.handle();
        self.begin_conn(handle.slot, handle.generation);
        match cx.begin_chosen(chosen, mine) {
            Ok(real) => self.map_conn(cx, handle.slot, real),
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

    /// The manager needed a connection of its own.
    pub(super) fn connection_begun(&mut self, cx: &Context<'_>, conn: Conn, key: ReuseKey) {
        let Some((index, life)) = self.link.conns.take() else { return };
        if let Some(cell) = self.link.conns.get(index) {
            cell.begin(Status::Connecting, 0);
        }
        self.begin_conn(index, life);
        self.map_conn(cx, index, conn);
        let name = self.link.conn_name(index, life);
        lock(&self.managed.reusable).insert(key, name);
        self.emit(index, Event::ConnectionBegun { conn: name });
    }

    // ---- requests

    fn request(
        &mut self,
        cx: &mut Context<'_>,
        chosen: &Chosen,
        (name, options): (&str, &ChannelOptions),
        (number, group): (u64, u32),
    ) {
        match cx.request_chosen(chosen, name, options) {
            Ok(request) => {
                self.managed.requests.insert(request, (number, group));
                self.managed.by_request.insert(number, request);
            }
            Err(error) => {
                let outcome = Err(RequestError::Api(error));
                self.emit_group(group, Event::RequestDone { request: number, outcome });
            }
        }
    }

    pub(super) fn request_done(
        &mut self,
        cx: &mut Context<'_>,
        request: OpenRequest,
        outcome: Result<Opened, &RequestError>,
    ) {
        let Some((number, group)) = self.managed.requests.remove(&request) else { return };
        self.managed.by_request.remove(&number);
        let outcome = match outcome {
            Ok(opened) => match self.adopt_channel(cx, opened.channel) {
                Ok(channel) => Ok(Opened { channel, ..opened }),
                Err(error) => {
                    let _ = cx.reset(opened.channel, 0);
                    let _ = cx.stop(opened.channel, 0);
                    Err(RequestError::Api(error))
                }
            },
            Err(error) => Err(error.clone()),
        };
        self.emit_group(group, Event::RequestDone { request: number, outcome });
    }

    /// The application's name of a channel that the manager opened.
    pub(super) fn adopt_channel(
        &mut self,
        cx: &mut Context<'_>,
        real: Channel,
    ) -> Result<Channel, ApiError> {
        if let Some(name) = self.channel_name(real) {
            return Ok(name);
        }
        let conn_cell = self.conn_cell(real.conn()).ok_or(ApiError::InvalidHandle)?;
        let conn = self.conn_name(conn_cell).ok_or(ApiError::InvalidHandle)?;
        let (slot, life) = self.link.channels.take().ok_or(ApiError::LimitReached {
            what: "channels",
            limit: u64::from(limits::MAX_CHANNELS),
        })?;
        if let Some(cell) = self.link.channels.get(slot) {
            let kind = cx.channel_kind(real).unwrap_or(ChannelKind::Bytes);
            cell.begin(conn.to_bits(), kind_flags(kind));
        }
        self.begin_channel(cx, (slot, life), conn_cell, real);
        Ok(Channel::new(conn, ChannelKey { slot, life }))
    }
}

impl QueuedEngine {
    pub(super) fn number(&self, shard: u8) -> u64 {
        let count = self.inner.next_number.fetch_add(1, Ordering::Relaxed);
        u64::from(shard) << SHARD_SHIFT | (count & ((1 << SHARD_SHIFT) - 1))
    }

    pub(super) fn link_of(&self, number: u64) -> Result<&ShardLink, ApiError> {
        let link = self.inner.links.get(usize::from(shard_of(number)));
        let count = number & ((1 << SHARD_SHIFT) - 1);
        let was_given = count < self.inner.next_number.load(Ordering::Relaxed);
        link.filter(|_| was_given).map(|link| &**link).ok_or(ApiError::InvalidHandle)
    }

    /// The shard of a connection to share, or of one that is begun now.
    pub(super) fn shard_for(&self, chosen: &Chosen, group: u32) -> Result<u8, ApiError> {
        if chosen.config.reuse == Reuse::ForceNew {
            // The shard makes one, which nobody else can take first.
            let next = self.inner.next_shard.fetch_add(1, Ordering::Relaxed);
            return Ok((next % self.inner.links.len()) as u8);
        }
        Ok(self.share(chosen, group, true, |_| ())?.0.shard())
    }

    /// Asks the peer for a channel by name, over a connection that is there, one being made, or a new
    /// one, as [`ConnectConfig::reuse`] says. Exactly one [`Event::RequestDone`] with the number that
    /// this gives follows in `group`, or in the default group. A request whose connection dies is
    /// asked for again once, over another one.
    ///
    /// # Errors
    /// Unusable settings, a refusal of the security callback, too many connections, or none to share.
    pub fn request_channel(
        &self,
        connect: &ConnectConfig,
        name: &str,
        options: &ChannelOptions,
        group: Option<&PollGroup>,
    ) -> Result<u64, ApiError> {
        options.validate()?;
        if name.len() > limits::MAX_CHANNEL_NAME {
            let why = "must be at most 1024 bytes";
            return Err(ApiError::InvalidArgument { field: "name", why });
        }
        let chosen = self.choose(connect)?;
        let group = group.map_or(0, |g| g.index);
        let shard = self.shard_for(&chosen, group)?;
        let number = self.number(shard);
        let (name, options) = (name.to_owned(), *options);
        Self::call(&self.inner.links[usize::from(shard)], move |h, cx| {
            h.request(cx, &chosen, (&name, &options), (number, group));
        })?;
        Ok(number)
    }

    /// Gives a request up; [`RequestError::Cancelled`] answers it unless something else has. One that
    /// is answered stays so: the answer may be on its way while this is called.
    ///
    /// # Errors
    /// A full queue, or a number that was never given.
    pub fn cancel_request(&self, request: u64) -> Result<(), ApiError> {
        self.on_shard(request, move |h, cx| {
            if let Some(request) = h.managed.by_request.get(&request).copied() {
                cx.cancel_request(request);
            }
        })
    }

    pub(super) fn on_shard(
        &self,
        number: u64,
        call: impl FnOnce(&mut QueueHandler, &mut Context<'_>) + Send + 'static,
    ) -> Result<(), ApiError> {
        Self::call(self.link_of(number)?, call)
    }

    /// What is known of the security of a connection; waits for its shard.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub fn sec_info(&self, conn: Conn) -> Result<SecInfo, ApiError> {
        self.ask(conn, |_, cx, real| cx.sec_info(real))?.ok_or(ApiError::InvalidHandle)
    }

    /// Closes a connection when it is idle on both sides; see [`Context::hold`].
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn hold(&self, conn: Conn, time: Option<std::time::Duration>) -> Result<(), ApiError> {
        self.call_conn(conn, move |cx, real| {
            let _ = cx.hold(real, time.map(Into::into));
        })
    }
}
