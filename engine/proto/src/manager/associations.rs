//! All associations of a manager: their channels, timers and ends (behaviours §5). What they send
//! is in `sending`.

use super::config::AssociationConfig;
use super::key::ReuseKey;
use super::notice::{
    AssociationEnd, AssociationEvent, AssociationId, DeliveryError, ManagerSink, Notice,
    RequestError, RequestId,
};
use super::slots::Slots;
use super::state::{AssociationState as State, AssociationTrigger as Trigger};
use crate::config::{ChannelKind, ChannelOptions};
use crate::connection::SecInfo;
use crate::error::{ApiError, CloseReason};
use crate::event::{ChannelEnd, ChannelRequest};
use crate::ids::{ChannelKey, ConnHandle, PeerId};
use crate::payload::Payload;
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Whom an association waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listens {
    /// It makes its connection itself, or has it.
    No,
    Anybody,
    To(PeerId),
    /// For somebody whom the caller finds.
    Elsewhere,
}

impl Listens {
    fn at_all(self) -> bool {
        self != Self::No
    }

    /// Whether it takes what a peer asks for.
    const fn here(self) -> bool {
        matches!(self, Self::Anybody | Self::To(_))
    }

    fn to(self, peer: Option<PeerId>) -> bool {
        match self {
            Self::No | Self::Elsewhere => false,
            Self::Anybody => true,
            Self::To(wanted) => peer == Some(wanted),
        }
    }
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) token: u64,
    pub(super) data: Payload,
    /// The connection must match this.
    pub(super) wanted: Option<Box<SecInfo>>,
    pub(super) expires: Instant,
}

/// One association.
#[derive(Debug)]
pub(super) struct Association {
    pub(super) id: AssociationId,
    pub(super) config: AssociationConfig,
    pub(super) state: State,
    pub(super) key: Option<ReuseKey>,
    listens: Listens,
    pub(super) request: Option<RequestId>,
    /// Its channel, asked for or open.
    pub(super) at: Option<(ConnHandle, ChannelKey)>,
    pub(super) info: Option<SecInfo>,
    no_connection: Option<Instant>,
    pub(super) queue: VecDeque<Queued>,
    pub(super) queued_bytes: usize,
    /// Tokens of messages that are not acknowledged, by receipt.
    pub(super) sent: BTreeMap<u64, u64>,
    pub(super) next_receipt: u64,
    pub(super) blocked: bool,
    /// Our direction was ended.
    pub(super) finished: bool,
    /// Why it will be over once everything is delivered.
    pub(super) closing: Option<AssociationEnd>,
    timer: Option<Instant>,
}

impl Association {
    /// Whether messages can be given to it.
    pub(super) fn takes_messages(&self) -> bool {
        self.state.takes_messages() && self.closing != Some(AssociationEnd::Closed)
    }

    fn tell<S: ManagerSink>(&self, event: AssociationEvent, sink: &mut S) {
        sink.notice(Notice::Association { association: self.id, event });
    }

    pub(super) fn delivered<S: ManagerSink>(&self, token: u64, sink: &mut S) {
        self.tell(AssociationEvent::Delivered { token }, sink);
    }

    pub(super) fn undelivered<S: ManagerSink>(
        &self,
        token: u64,
        error: DeliveryError,
        sink: &mut S,
    ) {
        self.tell(AssociationEvent::Undelivered { token, error }, sink);
    }

    /// Moves the state; whether the trigger did anything. What an end leaves behind is told first.
    pub(super) fn apply<S: ManagerSink>(
        &mut self,
        trigger: Trigger,
        end: Option<AssociationEnd>,
        sink: &mut S,
    ) -> bool {
        let Some(new) = self.state.on(trigger) else { return false };
        let old = core::mem::replace(&mut self.state, new);
        if new == State::Destroyed {
            let end = end.clone().unwrap_or(AssociationEnd::Closed);
            let sent = core::mem::take(&mut self.sent).into_values();
            let queued = core::mem::take(&mut self.queue).into_iter().map(|q| q.token);
            for token in sent.chain(queued).collect::<Vec<_>>() {
                self.undelivered(token, DeliveryError::Ended(end.clone()), sink);
            }
            self.queued_bytes = 0;
        }
        let end = if new == State::Destroyed { end } else { None };
        let info = self.info.map(Box::new);
        self.tell(AssociationEvent::State { old, new, end, info }, sink);
        true
    }

    pub(super) fn wake<S: ManagerSink>(&mut self, sink: &mut S) {
        self.apply(Trigger::Traffic, None, sink);
    }

    pub(super) fn rest<S: ManagerSink>(&mut self, sink: &mut S) {
        self.apply(Trigger::Inactive, None, sink);
    }

    /// When something has to be done about it.
    fn deadline(&self) -> Option<Instant> {
        let waits = matches!(self.state, State::AwaitingConnection);
        let no_connection = self.no_connection.filter(|_| waits);
        no_connection.into_iter().chain(self.queue.front().map(|q| q.expires)).min()
    }

    /// Whether it keeps its connection from being quiet.
    fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.sent.is_empty() || self.state == State::AwaitingConnection
    }
}

/// A channel that a peer asked for and that a listening association may take.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) conn: ConnHandle,
    pub(super) channel: ChannelKey,
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) options: ChannelOptions,
}

/// A channel that is left over from an association.
#[derive(Debug)]
pub(super) struct Cut {
    pub conn: ConnHandle,
    pub channel: ChannelKey,
    /// Our direction has ended as it should: the peer has every message.
    pub drained: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Associations {
    slots: Slots<Association>,
    by_channel: BTreeMap<(ConnHandle, ChannelKey), AssociationId>,
    /// Channels of associations that are over, until their ends are told.
    ended: BTreeSet<(ConnHandle, ChannelKey)>,
    /// The newest last: one that was forced leaves those before it.
    by_key: BTreeMap<(ReuseKey, Box<str>), Vec<AssociationId>>,
    /// Those that listen and have no channel, oldest first.
    listening: Vec<AssociationId>,
    pub(super) offers: Vec<Offer>,
    timers: BTreeSet<(Instant, AssociationId)>,
    /// Those that something can be sent of, or that may be over.
    pub(super) dirty: Vec<AssociationId>,
    /// Channels to be ended by the next call that has the endpoint.
    pub(super) cut: Vec<Cut>,
}

/// The keys of all channels of a connection.
pub(super) const fn all_of(
    conn: ConnHandle,
) -> core::ops::RangeInclusive<(ConnHandle, ChannelKey)> {
    let first = ChannelKey { slot: 0, life: 0 };
    let last = ChannelKey { slot: u32::MAX, life: u32::MAX };
    (conn, first)..=(conn, last)
}

impl Associations {
    pub(super) fn insert(
        &mut self,
        now: Instant,
        config: AssociationConfig,
        key: Option<ReuseKey>,
        listens: Listens,
    ) -> Result<AssociationId, ApiError> {
        config.validate()?;
        let by_key = key.map(|key| (key, config.name.as_str().into()));
        let no_connection = listens.at_all().then(|| now + config.no_connection);
        let make = |(slot, generation)| Association {
            id: AssociationId { slot, generation },
            config,
            state: State::AwaitingConnection,
            key,
            listens,
            request: None,
            at: None,
            info: None,
            no_connection,
            queue: VecDeque::new(),
            queued_bytes: 0,
            sent: BTreeMap::new(),
            next_receipt: 0,
            blocked: false,
            finished: false,
            closing: None,
            timer: None,
        };
        let (slot, generation) = self.slots.insert("associations", make)?;
        let id = AssociationId { slot, generation };
        if let Some(name) = by_key {
            self.by_key.entry(name).or_default().push(id);
        }
        if listens.here() {
            self.listening.push(id);
        }
        self.rearm(id);
        Ok(id)
    }

    pub(super) fn get(&mut self, id: AssociationId) -> Option<&mut Association> {
        self.slots.get((id.slot, id.generation))
    }

    pub(super) fn peek(&self, id: AssociationId) -> Option<&Association> {
        self.slots.peek((id.slot, id.generation))
    }

    /// Those of this key and name, the newest first.
    pub(super) fn find(&self, key: ReuseKey, name: &str) -> impl Iterator<Item = &Association> {
        let all = self.by_key.get(&(key, name.into()));
        all.into_iter().flatten().rev().filter_map(|id| self.peek(*id))
    }

    /// The association whose channel this is.
    pub(super) fn of(&self, conn: ConnHandle, channel: ChannelKey) -> Option<AssociationId> {
        if self.by_channel.is_empty() {
            return None;
        }
        self.by_channel.get(&(conn, channel)).copied()
    }

    pub(super) fn has_channels(&self) -> bool {
        !self.by_channel.is_empty() || !self.ended.is_empty()
    }

    pub(super) fn is_ended(&self, conn: ConnHandle, channel: ChannelKey) -> bool {
        !self.ended.is_empty() && self.ended.contains(&(conn, channel))
    }

    pub(super) fn channels_of(&self, conn: ConnHandle) -> usize {
        self.by_channel.range(all_of(conn)).count() + self.ended.range(all_of(conn)).count()
    }

    /// Whether one of them has something to do on a connection.
    pub(super) fn is_busy(&self, conn: ConnHandle) -> bool {
        let mut of_conn = self.by_channel.range(all_of(conn)).filter_map(|(_, id)| self.peek(*id));
        of_conn.any(Association::is_busy)
    }

    pub(super) fn ids_of(&self, conn: ConnHandle) -> Vec<AssociationId> {
        self.by_channel.range(all_of(conn)).map(|(_, id)| *id).collect()
    }

    pub(super) fn each_of(&mut self, conn: ConnHandle, mut f: impl FnMut(&mut Association)) {
        for id in self.ids_of(conn) {
            if let Some(association) = self.get(id) {
                f(association);
            }
            self.dirty.push(id);
        }
    }

    // ---- channels

    pub(super) fn attach(
        &mut self,
        id: AssociationId,
        conn: ConnHandle,
        channel: ChannelKey,
        info: Option<SecInfo>,
    ) {
        let Some(association) = self.get(id) else { return };
        association.at = Some((conn, channel));
        association.info = info;
        self.by_channel.insert((conn, channel), id);
        self.listening.retain(|l| *l != id);
    }

    /// A channel is over.
    pub(super) fn unmap(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.by_channel.remove(&(conn, channel));
    }

    /// Its channel is gone and another one is looked for.
    pub(super) fn detach(&mut self, id: AssociationId) {
        let Some(association) = self.get(id) else { return };
        association.info = None;
        let listens = association.listens.here();
        if let Some(at) = association.at.take() {
            self.by_channel.remove(&at);
        }
        if listens && !self.listening.contains(&id) {
            self.listening.push(id);
        }
    }

    /// Listening: whether a channel that a peer asks for is kept from the application until it is
    /// known who the peer is.
    pub(super) fn may_take(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        request: &ChannelRequest<'_>,
    ) -> bool {
        let named = |id: &AssociationId| {
            self.peek(*id).is_some_and(|association| association.config.name == request.name)
        };
        if request.options.kind != ChannelKind::Messages || !self.listening.iter().any(named) {
            return false;
        }
        let (id, name, options) = (request.id, request.name.to_owned(), request.options);
        self.offers.push(Offer { conn, channel, id, name, options });
        true
    }

    /// Who takes an offer of this peer.
    pub(super) fn taker(&self, name: &str, peer: Option<PeerId>) -> Option<AssociationId> {
        let fits = |id: &&AssociationId| {
            self.peek(**id).is_some_and(|association| {
                association.config.name == name && association.listens.to(peer)
            })
        };
        self.listening.iter().find(fits).copied()
    }

    /// A channel is over of which nobody but us has heard.
    pub(super) fn forget_channel(&mut self, conn: ConnHandle, channel: ChannelKey) -> bool {
        let offers = self.offers.len();
        self.offers.retain(|o| (o.conn, o.channel) != (conn, channel));
        self.ended.remove(&(conn, channel)) || self.offers.len() < offers
    }

    // ---- events

    pub(super) fn connected<S: ManagerSink>(&mut self, id: AssociationId, sink: &mut S) {
        let Some(association) = self.get(id) else { return };
        association.request = None;
        if association.apply(Trigger::Connected, None, sink) {
            self.dirty.push(id);
            self.rearm(id);
        }
    }

    pub(super) fn not_connected<S: ManagerSink>(
        &mut self,
        id: AssociationId,
        error: RequestError,
        sink: &mut S,
    ) {
        self.destroy(id, Trigger::ConnectionError, AssociationEnd::Failed(error), sink);
    }

    /// A connection is over.
    pub(super) fn broken<S: ManagerSink>(
        &mut self,
        conn: ConnHandle,
        reason: &CloseReason,
        idle: bool,
        sink: &mut S,
    ) {
        for id in self.ids_of(conn) {
            self.break_one(id, reason, idle, sink);
        }
        let ended: Vec<_> = self.ended.range(all_of(conn)).copied().collect();
        for key in ended {
            self.ended.remove(&key);
        }
        self.offers.retain(|o| o.conn != conn);
    }

    fn break_one<S: ManagerSink>(
        &mut self,
        id: AssociationId,
        reason: &CloseReason,
        idle: bool,
        sink: &mut S,
    ) {
        let Some(association) = self.get(id) else { return };
        let (state, waits) = (association.state, association.request.is_none());
        match state {
            // The request finds another connection, or fails.
            State::AwaitingConnection if !waits => {}
            State::AwaitingConnection => self.detach(id),
            State::Idle if idle => self.destroy(id, Trigger::BothIdle, AssociationEnd::Idle, sink),
            State::Closing if association.queue.is_empty() && association.sent.is_empty() => {
                let end = association.closing.take().unwrap_or(AssociationEnd::Closed);
                self.destroy(id, Trigger::Drained, end, sink);
            }
            _ => {
                let end = AssociationEnd::Broken(reason.clone());
                self.destroy(id, Trigger::Broken, end, sink);
            }
        }
    }

    pub(super) fn channel_closed<S: ManagerSink>(
        &mut self,
        id: AssociationId,
        end: &ChannelEnd,
        idle: bool,
        sink: &mut S,
    ) {
        if let Some(at) = self.peek(id).and_then(|a| a.at) {
            // Nothing follows the end of a channel.
            self.by_channel.remove(&at);
        }
        match end {
            ChannelEnd::Connection(reason) => self.break_one(id, reason, idle, sink),
            _ if self.peek(id).is_some_and(|a| a.state == State::AwaitingConnection) => {
                self.detach(id);
            }
            _ => {
                let closing = self.get(id).and_then(|a| a.closing.take());
                let end = closing.unwrap_or(AssociationEnd::ClosedByPeer);
                self.destroy(id, Trigger::Broken, end, sink);
            }
        }
    }

    /// The peer has sent its last message: ours that wait still go, and then it is over.
    pub(super) fn peer_finished(&mut self, id: AssociationId) {
        let Some(association) = self.get(id) else { return };
        association.closing.get_or_insert(AssociationEnd::ClosedByPeer);
        self.dirty.push(id);
    }

    /// The peer takes or sends no more.
    pub(super) fn peer_cut<S: ManagerSink>(&mut self, id: AssociationId, sink: &mut S) {
        let Some(association) = self.get(id) else { return };
        let drained = association.queue.is_empty() && association.sent.is_empty();
        let end = association.closing.take().filter(|_| drained);
        self.destroy(id, Trigger::Broken, end.unwrap_or(AssociationEnd::ClosedByPeer), sink);
    }

    pub(super) fn writable(&mut self, id: AssociationId) {
        if let Some(association) = self.get(id) {
            association.blocked = false;
            self.dirty.push(id);
        }
    }

    pub(super) fn receipt<S: ManagerSink>(
        &mut self,
        id: AssociationId,
        receipt: u64,
        sink: &mut S,
    ) {
        let Some(association) = self.get(id) else { return };
        if let Some(token) = association.sent.remove(&receipt) {
            association.delivered(token, sink);
            self.dirty.push(id);
        }
    }

    // ---- ends

    /// Both sides of a connection are idle.
    pub(super) fn end_idle<S: ManagerSink>(&mut self, conn: ConnHandle, sink: &mut S) {
        for id in self.ids_of(conn) {
            self.destroy(id, Trigger::BothIdle, AssociationEnd::Idle, sink);
        }
    }

    /// Ends an association: everything that it still owes is told, and its id is stale.
    pub(super) fn destroy<S: ManagerSink>(
        &mut self,
        id: AssociationId,
        trigger: Trigger,
        end: AssociationEnd,
        sink: &mut S,
    ) {
        let Some(association) = self.get(id) else { return };
        if !association.apply(trigger, Some(end), sink) || association.state != State::Destroyed {
            return;
        }
        self.remove(id);
    }

    /// Takes it out of everything.
    pub(super) fn remove(&mut self, id: AssociationId) {
        let Some(association) = self.slots.take((id.slot, id.generation)) else { return };
        self.listening.retain(|l| *l != id);
        if let Some(at) = association.timer {
            self.timers.remove(&(at, id));
        }
        if let Some(key) = association.key {
            let name = (key, association.config.name.as_str().into());
            if let Some(all) = self.by_key.get_mut(&name) {
                all.retain(|other| *other != id);
                if all.is_empty() {
                    self.by_key.remove(&name);
                }
            }
        }
        if let Some(at) = association.at
            && self.by_channel.remove(&at).is_some()
        {
            self.ended.insert(at);
            let drained = association.finished && association.sent.is_empty();
            self.cut.push(Cut { conn: at.0, channel: at.1, drained });
        }
    }

    // ---- time

    /// Those that wait for a peer have waited long enough.
    pub(super) fn await_no_more(&mut self, now: Instant) {
        let mut waiting = Vec::new();
        for association in self.slots.iter_mut().filter(|a| a.no_connection.is_some()) {
            association.no_connection = Some(now);
            waiting.push(association.id);
        }
        for id in waiting {
            self.rearm(id);
        }
    }

    /// Its deadline may have changed.
    pub(super) fn rearm(&mut self, id: AssociationId) {
        let Some(association) = self.get(id) else { return };
        let new = association.deadline();
        let old = core::mem::replace(&mut association.timer, new);
        if old != new {
            if let Some(at) = old {
                self.timers.remove(&(at, id));
            }
            if let Some(at) = new {
                self.timers.insert((at, id));
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.offers.is_empty() || !self.cut.is_empty()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Runs what is due: listening in vain, and messages that waited too long.
    pub(super) fn expire<S: ManagerSink>(&mut self, now: Instant, sink: &mut S) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let Some(association) = self.get(id) else {
                self.timers.remove(&(at, id));
                continue;
            };
            let waits = association.state == State::AwaitingConnection;
            if waits && association.no_connection.is_some_and(|at| at <= now) {
                self.destroy(id, Trigger::NoConnection, AssociationEnd::NoConnection, sink);
                continue;
            }
            while association.queue.front().is_some_and(|q| q.expires <= now) {
                let Some(first) = association.queue.pop_front() else { break };
                association.queued_bytes -= first.data.len();
                association.undelivered(first.token, DeliveryError::Expired, sink);
            }
            self.dirty.push(id);
            self.rearm(id);
        }
    }
}
