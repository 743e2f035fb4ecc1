//! Channel requests and associations: the application's calls, and what the shard tells of them.

use super::cells::kind_flags;
use super::event::Event;
use super::group::PollGroup;
use super::handler::QueueHandler;
use super::{QueuedEngine, Reusable, lock};
use crate::config::{ConnectConfig, Reuse};
use crate::handle::{Association, Channel, Conn, OpenRequest};
use crate::handler::{Context, Opened};
use crate::security::Chosen;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::connection::SecInfo;
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::ids::{ChannelKey, PeerId};
use trunkline_proto::limits;
use trunkline_proto::manager::{
    AssociationConfig, AssociationEnd, AssociationEvent, AssociationState, DeliveryError,
    RequestError, ReuseKey, SecHandle, Security,
};
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;

/// Bits of a number of a request or association that say which shard has it.
const SHARD_SHIFT: u32 = 56;

/// An association of the application.
#[derive(Clone, Copy, Debug)]
struct Linked {
    number: u64,
    group: u32,
    /// Its channel's cell and life.
    channel: Option<Channel>,
}

/// See the module.
pub(super) struct Managed {
    reusable: Arc<Reusable>,
    /// Numbers and groups of requests.
    requests: BTreeMap<OpenRequest, (u64, u32)>,
    by_request: BTreeMap<u64, OpenRequest>,
    associations: BTreeMap<Association, Linked>,
    by_association: BTreeMap<u64, Association>,
}

impl Managed {
    pub(super) const fn new(reusable: Arc<Reusable>) -> Self {
        Self {
            reusable,
            requests: BTreeMap::new(),
            by_request: BTreeMap::new(),
            associations: BTreeMap::new(),
            by_association: BTreeMap::new(),
        }
    }
}

/// How a queued send asks for security; see [`Security`].
#[derive(Clone, Debug, Default)]
pub enum SendSecurity {
    /// As the connect says.
    #[default]
    Local,
    /// Given to the security callback.
    Handle(SecHandle),
    /// Only over a connection that matches.
    Info(Box<SecInfo>),
}

impl SendSecurity {
    fn borrowed(&self) -> Security<'_> {
        match self {
            Self::Local => Security::Local,
            Self::Handle(handle) => Security::Handle(*handle),
            Self::Info(info) => Security::Info(info),
        }
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

    /// The manager needed a connection of its own.
    pub(super) fn connection_begun(&mut self, conn: Conn, key: ReuseKey) {
        let Some((index, life)) = self.link.conns.take() else { return };
        if let Some(cell) = self.link.conns.get(index) {
            cell.begin(Status::Connecting, 0);
        }
        self.begin_conn(index, life);
        self.map_conn(index, conn);
        let name = self.link.conn_name(index, life);
        lock(&self.managed.reusable).insert(key, name);
        self.emit(index, Event::ConnectionBegun { conn: name });
    }

    fn emit_group(&mut self, group: u32, event: Event) {
        if let Some(writer) = self.writer_of(group as usize) {
            writer.event(event);
        }
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
    fn adopt_channel(&mut self, cx: &mut Context<'_>, real: Channel) -> Result<Channel, ApiError> {
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

    // ---- associations

    fn link_association(&mut self, association: Association, number: u64, group: u32) {
        let linked = Linked { number, group, channel: None };
        self.managed.associations.insert(association, linked);
        self.managed.by_association.insert(number, association);
    }

    /// An association that could not be made.
    fn no_association(&mut self, number: u64, group: u32, error: ApiError) {
        let event = AssociationEvent::State {
            old: AssociationState::AwaitingConnection,
            new: AssociationState::Destroyed,
            end: Some(AssociationEnd::Failed(RequestError::Api(error))),
            info: None,
        };
        self.emit_group(group, Event::Association { association: number, channel: None, event });
    }

    pub(super) fn association_event(
        &mut self,
        cx: &mut Context<'_>,
        association: Association,
        event: &AssociationEvent,
    ) {
        let Some(mut linked) = self.managed.associations.get(&association).copied() else { return };
        let mut over = false;
        if let AssociationEvent::State { new, .. } = event {
            over = *new == AssociationState::Destroyed;
            if *new == AssociationState::Connected && linked.channel.is_none() {
                let real = cx.association_channel(association);
                linked.channel = real.and_then(|real| self.adopt_channel(cx, real).ok());
                self.managed.associations.insert(association, linked);
            }
        }
        let Linked { number, group, channel } = linked;
        let event = event.clone();
        self.emit_group(group, Event::Association { association: number, channel, event });
        if over {
            self.managed.associations.remove(&association);
            self.managed.by_association.remove(&number);
            if let Some(channel) = channel {
                let ChannelKey { slot, life } = channel.key();
                if self.side(slot, life).is_some() {
                    self.end_channel(cx, slot);
                }
            }
        }
    }
}

impl QueuedEngine {
    fn number(&self, shard: u8) -> u64 {
        let count = self.inner.next_number.fetch_add(1, Ordering::Relaxed);
        u64::from(shard) << SHARD_SHIFT | (count & ((1 << SHARD_SHIFT) - 1))
    }

    /// The shard of a connection to share, or of one that is begun now.
    fn shard_for(&self, chosen: &Chosen, group: u32) -> Result<u8, ApiError> {
        if chosen.config.reuse == Reuse::ForceNew {
            // The shard makes one, which nobody else can take first.
            let next = self.inner.next_shard.fetch_add(1, Ordering::Relaxed);
            return Ok((next % self.inner.links.len()) as u8);
        }
        Ok(self.share(chosen, group, true)?.0.shard())
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

    /// Gives a request up; [`RequestError::Cancelled`] answers it unless something else has.
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

    fn on_shard(
        &self,
        number: u64,
        call: impl FnOnce(&mut QueueHandler, &mut Context<'_>) + Send + 'static,
    ) -> Result<(), ApiError> {
        let shard = (number >> SHARD_SHIFT) as usize;
        Self::call(self.inner.links.get(shard).ok_or(ApiError::InvalidHandle)?, call)
    }

    /// The association of this name with a peer: the one that there is with the same settings, or a
    /// new one. [`Event::Association`] tells what happens to it, in `group` or in the default group;
    /// from Connected on it names the channel on which its messages are received.
    ///
    /// # Errors
    /// As [`request_channel`](Self::request_channel).
    pub fn associate(
        &self,
        connect: &ConnectConfig,
        config: AssociationConfig,
        group: Option<&PollGroup>,
    ) -> Result<u64, ApiError> {
        config.validate()?;
        let chosen = self.choose(connect)?;
        let group = group.map_or(0, |g| g.index);
        let shard = self.shard_for(&chosen, group)?;
        let number = self.number(shard);
        self.on_shard(number, move |h, cx| match cx.associate_chosen(&chosen, config) {
            Ok(association) if h.managed.associations.contains_key(&association) => {
                let error = ApiError::LimitReached { what: "associations of this name", limit: 1 };
                h.no_association(number, group, error);
            }
            Ok(association) => h.link_association(association, number, group),
            Err(error) => h.no_association(number, group, error),
        })?;
        Ok(number)
    }

    /// An association that waits for `peer`, or for anybody, to ask for a channel of its name. With
    /// more than one shard a peer may come to any of them: make an association of its
    /// [`Event::ChannelRequest`] there, with [`accept_association`](Self::accept_association).
    ///
    /// # Errors
    /// Settings out of range; [`ApiError::InvalidArgument`] with more than one shard.
    pub fn listen_association(
        &self,
        peer: Option<PeerId>,
        config: AssociationConfig,
        group: Option<&PollGroup>,
    ) -> Result<u64, ApiError> {
        config.validate()?;
        if self.shards() > 1 {
            let why = "must be 1 for an association that listens";
            return Err(ApiError::InvalidArgument { field: "shards", why });
        }
        let group = group.map_or(0, |g| g.index);
        let number = self.number(0);
        self.on_shard(number, move |h, cx| match cx.listen_association(peer, config) {
            Ok(association) => h.link_association(association, number, group),
            Err(error) => h.no_association(number, group, error),
        })?;
        Ok(number)
    }

    /// Makes an association of a channel that a peer asks for, and accepts it.
    ///
    /// # Errors
    /// A stale handle, settings out of range, or a full queue.
    pub fn accept_association(
        &self,
        channel: Channel,
        config: AssociationConfig,
        group: Option<&PollGroup>,
    ) -> Result<u64, ApiError> {
        config.validate()?;
        let (link, _) = self.channel(channel)?;
        let group = group.map_or(0, |g| g.index);
        let number = self.number(link.shard);
        let key = channel.key();
        Self::call(link, move |h, cx| {
            let made = h
                .real_channel(key.slot, key.life)
                .and_then(|real| cx.accept_association(real, config));
            match made {
                Ok(association) => h.link_association(association, number, group),
                Err(error) => h.no_association(number, group, error),
            }
        })?;
        Ok(number)
    }

    /// Sends a message over an association. Exactly one [`AssociationEvent`] with `token` says what
    /// became of it, also when its queue is full or it has ended meanwhile.
    ///
    /// # Errors
    /// A message that is too large, or a full queue to the shard; nothing follows.
    pub fn send_message(
        &self,
        association: u64,
        data: impl Into<Payload>,
        token: u64,
        security: SendSecurity,
    ) -> Result<(), ApiError> {
        let data = data.into();
        let len = data.len();
        if len > limits::MAX_MESSAGE {
            return Err(ApiError::MessageTooLarge { len, limit: limits::MAX_MESSAGE });
        }
        self.on_shard(association, move |h, cx| {
            let real = h.managed.by_association.get(&association).copied();
            let linked = real.and_then(|real| h.managed.associations.get(&real).copied());
            let sent = real
                .ok_or(ApiError::InvalidHandle)
                .and_then(|real| cx.send_message(real, data, token, security.borrowed()));
            if let Err(error) = sent {
                let error = DeliveryError::Api(error);
                let event = AssociationEvent::Undelivered { token, error };
                let channel = linked.and_then(|l| l.channel);
                let group = linked.map_or(0, |l| l.group);
                h.emit_group(group, Event::Association { association, channel, event });
            }
        })
    }

    /// Closes an association once what it was given is delivered; its connection stays.
    ///
    /// # Errors
    /// A full queue, or a number that was never given.
    pub fn close_association(&self, association: u64) -> Result<(), ApiError> {
        self.on_shard(association, move |h, cx| {
            if let Some(real) = h.managed.by_association.get(&association).copied() {
                let _ = cx.close_association(real);
            }
        })
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
