//! Making associations, and what they send (behaviours §5).

use super::associations::{Association, Cut, Listens, Offer, Queued};
use super::config::AssociationConfig;
use super::hold::HoldState;
use super::key::{Reuse, ReuseKey, Target};
use super::notice::{AssociationEnd, AssociationId, DeliveryError, ManagerSink, Notice};
use super::requests::{GIVEN_UP, Owner};
use super::security::SecHandle;
use super::state::{AssociationState as State, AssociationTrigger as Trigger};
use super::{Manager, Seen};
use crate::connection::SecInfo;
use crate::endpoint::{Endpoint, SendOptions};
use crate::error::ApiError;
use crate::event::{ChannelRequest, Sink};
use crate::ids::{ChannelKey, ConnHandle, PeerId};
use crate::limits::MAX_MESSAGE;
use crate::payload::Payload;
use crate::time::Instant;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a sender asks of the connection's security.
#[derive(Clone, Copy, Debug, Default)]
pub enum Security<'a> {
    /// Nothing: local policy, which is the target and the callback, decides.
    #[default]
    Local,
    /// The callback is given this while the connection is being made.
    Handle(SecHandle),
    /// The message goes only over a connection that [`matches`](SecInfo::matches) this; otherwise its
    /// sender gets [`DeliveryError::Security`], and nothing is sent elsewhere.
    Info(&'a SecInfo),
}

/// Messages that waited in an association without a connection.
#[derive(Debug, Default)]
pub struct Messages(VecDeque<Queued>);

impl Messages {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens that they were sent with, in order.
    pub fn tokens(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|m| m.token)
    }
}

/// Notices of a call without a sink: they are told by the next run.
struct Later(Vec<Notice>);

impl Sink for Later {}

impl ManagerSink for Later {
    fn notice(&mut self, notice: Notice) {
        self.0.push(notice);
    }
}

impl Manager {
    /// The association of this name with a target: the one that there is, or a new one, which takes
    /// or makes a connection as `target.reuse` says. With [`Reuse::ForceNew`] always a new one.
    ///
    /// # Errors
    /// Settings out of range; what [`Manager::request_channel`] gives.
    pub fn associate(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        target: Target,
        config: AssociationConfig,
    ) -> Result<AssociationId, ApiError> {
        let key = self.key_of(&target);
        if target.reuse != Reuse::ForceNew
            && let Some(id) = self.live_association(key, &config.name)
        {
            return Ok(id);
        }
        let (name, options) = (config.name.clone(), config.options());
        let id = self.associations.insert(now, config, Some(key), Listens::No)?;
        let owner = Owner::Association(id);
        match self.request(now, endpoint, Arc::new(target), &name, &options, owner) {
            Ok(request) => {
                if let Some(association) = self.associations.get(id) {
                    association.request = Some(request);
                }
                Ok(id)
            }
            Err(error) => {
                self.associations.remove(id);
                Err(error)
            }
        }
    }

    /// The newest association of this name with a target that takes messages.
    fn live_association(&self, key: ReuseKey, name: &str) -> Option<AssociationId> {
        let is_retiring = |association: &Association| {
            let state = association.at.and_then(|(conn, _)| self.hold_state(conn));
            state.is_some_and(|s| s != HoldState::Active && s != HoldState::Idle)
        };
        let mut all = self.associations.find(key, name);
        all.find(|a| a.takes_messages() && !is_retiring(a)).map(|a| a.id)
    }

    /// An association that waits for `peer` (or for anybody) to ask for a channel of its name. The
    /// channel is accepted without asking the application. If none comes within
    /// [`AssociationConfig::no_connection`], the association is destroyed.
    ///
    /// # Errors
    /// Settings out of range, or too many associations.
    pub fn listen_association(
        &mut self,
        now: Instant,
        peer: Option<PeerId>,
        config: AssociationConfig,
    ) -> Result<AssociationId, ApiError> {
        self.wait_for(now, config, peer.map_or(Listens::Anybody, Listens::To))
    }

    /// An association that waits like one that listens, for a channel that the caller finds: on
    /// another endpoint as well. An association is made of that channel, and inherits
    /// ([`Self::inherit`]) what this one was given ([`Self::withdraw_association`]).
    ///
    /// # Errors
    /// As [`Self::listen_association`].
    pub fn expect_association(
        &mut self,
        now: Instant,
        config: AssociationConfig,
    ) -> Result<AssociationId, ApiError> {
        self.wait_for(now, config, Listens::Elsewhere)
    }

    fn wait_for(
        &mut self,
        now: Instant,
        config: AssociationConfig,
        listens: Listens,
    ) -> Result<AssociationId, ApiError> {
        if self.stopped {
            return Err(ApiError::NoConnection("the endpoint is about to end"));
        }
        self.associations.insert(now, config, None, listens)
    }

    /// Takes an association that waits for its connection away, without a notice. What waits in it is
    /// the caller's.
    pub fn withdraw_association(&mut self, id: AssociationId) -> Messages {
        let waits = |a: &&mut Association| a.state == State::AwaitingConnection;
        let Some(association) = self.associations.get(id).filter(waits) else {
            return Messages::default();
        };
        let messages = Messages(core::mem::take(&mut association.queue));
        self.associations.remove(id);
        messages
    }

    /// Gives an association the messages of one that was withdrawn, before anything else is sent over
    /// it. They keep their tokens and their age.
    ///
    /// # Errors
    /// The messages, when it takes none any more.
    pub fn inherit(&mut self, id: AssociationId, messages: Messages) -> Result<(), Messages> {
        let Some(association) = self.associations.get(id).filter(|a| a.takes_messages()) else {
            return Err(messages);
        };
        association.queued_bytes += messages.0.iter().map(|m| m.data.len()).sum::<usize>();
        association.queue.extend(messages.0);
        self.associations.dirty.push(id);
        self.associations.rearm(id);
        Ok(())
    }

    /// Makes an association of a channel that a peer asks for, and accepts it.
    ///
    /// # Errors
    /// Settings out of range; [`ApiError::WrongChannel`] when the channel is not of the kind
    /// `messages`; what [`Endpoint::accept_channel`] gives.
    pub fn accept_association(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        conn: ConnHandle,
        channel: ChannelKey,
        config: AssociationConfig,
    ) -> Result<AssociationId, ApiError> {
        config.validate()?;
        let options = config.options();
        let info = endpoint.channel_info(conn, channel).ok_or(ApiError::InvalidHandle)?;
        if info.kind != options.kind {
            return Err(ApiError::WrongChannel("an association needs one of messages"));
        }
        let hold = config.hold;
        let id = self.associations.insert(now, config, None, Listens::No)?;
        if let Err(error) = endpoint.accept_channel(now, conn, channel, &options) {
            self.associations.remove(id);
            return Err(error);
        }
        self.associations.attach(id, conn, channel, endpoint.sec_info(conn));
        self.book.hold_for(now, conn, hold, true);
        Ok(id)
    }

    /// Sends a message: at once when the association is Connected, else when it is. Exactly one
    /// [`AssociationEvent`](super::AssociationEvent) with `token` follows, which says whether the
    /// peer has acknowledged it.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`] when the association is destroyed or being closed;
    /// [`ApiError::WouldBlock`] when its queue is full; [`ApiError::MessageTooLarge`]. Nothing
    /// follows an error.
    pub fn send_message(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: AssociationId,
        data: Payload,
        token: u64,
        security: Security<'_>,
    ) -> Result<(), ApiError> {
        let association = self.associations.get(id).ok_or(ApiError::InvalidHandle)?;
        if !association.takes_messages() {
            return Err(ApiError::InvalidHandle);
        }
        let len = data.len();
        if len > MAX_MESSAGE {
            return Err(ApiError::MessageTooLarge { len, limit: MAX_MESSAGE });
        }
        let config = &association.config;
        let full = association.queued_bytes + len > config.queue_bytes
            || association.queue.len() >= config.queue_messages;
        if full && !association.queue.is_empty() {
            return Err(ApiError::WouldBlock("the association's queue"));
        }
        let wanted = match security {
            Security::Info(info) => Some(Box::new(*info)),
            Security::Local | Security::Handle(_) => None,
        };
        let expires = now + config.queue_age;
        association.queued_bytes += len;
        association.queue.push_back(Queued { token, data, wanted, expires });
        let (state, at) = (association.state, association.at);
        self.associations.dirty.push(id);
        if let Security::Handle(handle) = security
            && state == State::AwaitingConnection
        {
            self.offer_handle(id, handle);
        }
        if let Some((conn, _)) = at
            && self.hold_state(conn) == Some(HoldState::Idle)
        {
            self.seen.push_back(Seen::Moved(conn));
        } else if state == State::Connected {
            let mut later = Later(Vec::new());
            self.flush(now, endpoint, id, &mut later);
            self.owed.extend(later.0);
        }
        self.associations.rearm(id);
        Ok(())
    }

    /// A handle given with a send is kept for the callback if none is.
    fn offer_handle(&mut self, id: AssociationId, handle: SecHandle) {
        let request = self.associations.get(id).and_then(|a| a.request);
        let conn = request.and_then(|request| self.requests.conn_of(request));
        if let Some(record) = conn.and_then(|conn| self.book.get_mut(conn))
            && !record.connected
        {
            record.handle.get_or_insert(handle);
        }
    }

    /// Sends a message to a target: over the association of this name, which is made if there is
    /// none. With [`Security::Info`] only over an association or a connection that exists and
    /// matches; with [`Security::Handle`] the handle is part of the target.
    ///
    /// # Errors
    /// [`ApiError::NoConnection`] when none matches; else as [`Self::associate`] and
    /// [`Self::send_message`]. Nothing follows an error, and nothing is sent.
    #[allow(clippy::too_many_arguments, reason = "what is sent, where to and how")]
    pub fn send_to(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        mut target: Target,
        config: AssociationConfig,
        data: Payload,
        token: u64,
        security: Security<'_>,
    ) -> Result<AssociationId, ApiError> {
        match security {
            Security::Handle(handle) => target.handle = Some(handle),
            Security::Info(wanted) => {
                let key = self.key_of(&target);
                let id = self.live_association(key, &config.name);
                let at = id.and_then(|id| self.associations.peek(id)).and_then(|a| a.at);
                let found = self.book.find(endpoint, &key, Reuse::NeverNew, None);
                let conn = at.map(|(conn, _)| conn).or(found);
                let info = conn.and_then(|conn| endpoint.sec_info(conn));
                if !info.is_some_and(|info| info.matches(wanted)) {
                    return Err(ApiError::NoConnection("none has the security asked for"));
                }
                target.reuse = Reuse::NeverNew;
            }
            Security::Local => {}
        }
        let id = self.associate(now, endpoint, target, config)?;
        self.send_message(now, endpoint, id, data, token, security)?;
        Ok(id)
    }

    /// Closes an association: what it was given before is delivered, unless there is no connection
    /// yet; then everything queued is told undelivered. Its channel ends, the connection stays.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`], also for a second close.
    pub fn close_association(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: AssociationId,
    ) -> Result<(), ApiError> {
        let association = self.associations.get(id).ok_or(ApiError::InvalidHandle)?;
        if !association.takes_messages() {
            return Err(ApiError::InvalidHandle);
        }
        association.closing = Some(AssociationEnd::Closed);
        if let Some(request) = association.request.take() {
            self.cancel_request(now, endpoint, request);
        }
        self.associations.dirty.push(id);
        Ok(())
    }

    // ---- views

    /// The state; [`AssociationState::Destroyed`](State::Destroyed) for a stale id.
    pub fn association_state(&self, id: AssociationId) -> State {
        self.associations.peek(id).map_or(State::Destroyed, |a| a.state)
    }

    /// The association whose channel this is.
    pub fn association_of(&self, conn: ConnHandle, channel: ChannelKey) -> Option<AssociationId> {
        self.associations.of(conn, channel)
    }

    /// The channel of an association, once the peer was asked for it.
    pub fn association_channel(&self, id: AssociationId) -> Option<(ConnHandle, ChannelKey)> {
        self.associations.peek(id).and_then(|a| a.at)
    }

    /// What is known of the security of an association's connection, once there is one.
    pub fn association_info(&self, id: AssociationId) -> Option<SecInfo> {
        self.associations.peek(id).and_then(|a| a.info)
    }

    // ---- the turn

    pub(super) fn run_associations<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        sink: &mut S,
    ) {
        for offer in core::mem::take(&mut self.associations.offers) {
            self.take_offer(now, endpoint, &offer, sink);
        }
        self.associations.expire(now, sink);
        for id in core::mem::take(&mut self.associations.dirty) {
            self.flush(now, endpoint, id, sink);
            self.settle(now, endpoint, id, sink);
        }
        for Cut { conn, channel, drained } in core::mem::take(&mut self.associations.cut) {
            // A clean end stays one. The directions that are over already say so.
            if !drained {
                let _ = endpoint.reset_channel(now, conn, channel, GIVEN_UP);
            }
            let _ = endpoint.stop_channel(now, conn, channel, GIVEN_UP);
        }
    }

    /// A peer asks for a channel by the name of an association that listens.
    fn take_offer<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        offer: &Offer,
        sink: &mut S,
    ) {
        let (conn, channel) = (offer.conn, offer.channel);
        let peer = endpoint.info(conn).and_then(|info| info.peer);
        if let Some(id) = self.associations.taker(&offer.name, peer)
            && let Some(config) = self.associations.peek(id).map(|a| a.config.clone())
            && endpoint.accept_channel(now, conn, channel, &config.options()).is_ok()
        {
            self.associations.attach(id, conn, channel, endpoint.sec_info(conn));
            self.book.hold_for(now, conn, config.hold, true);
            return;
        }
        let request = ChannelRequest { id: offer.id, name: &offer.name, options: offer.options };
        sink.channel_request(conn, channel, &request);
    }

    /// Sends what can be sent.
    fn flush<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: AssociationId,
        sink: &mut S,
    ) {
        let Some(association) = self.associations.get(id) else { return };
        let Some((conn, channel)) = association.at else { return };
        let hold = self.book.get(conn).and_then(|r| r.hold).map(|h| h.state());
        let resting = hold.is_some_and(|s| s != HoldState::Active);
        let stands = matches!(association.state, State::Connected | State::Closing);
        if resting || !stands || association.finished {
            return;
        }
        while !association.blocked
            && let Some(first) = association.queue.front()
        {
            let matches = |wanted: &SecInfo| association.info.is_some_and(|i| i.matches(wanted));
            let result = if first.wanted.as_deref().is_none_or(matches) {
                let receipt = Some(association.next_receipt);
                let options = SendOptions { receipt, ..SendOptions::default() };
                endpoint
                    .send_payload(now, conn, channel, first.data.clone(), options)
                    .map_err(DeliveryError::Api)
            } else {
                Err(DeliveryError::Security)
            };
            if matches!(result, Err(DeliveryError::Api(ApiError::WouldBlock(_)))) {
                association.blocked = true;
                break;
            }
            let Some(first) = association.queue.pop_front() else { break };
            association.queued_bytes -= first.data.len();
            match result {
                Ok(()) => {
                    association.sent.insert(association.next_receipt, first.token);
                    association.next_receipt += 1;
                }
                Err(error) => association.undelivered(first.token, error, sink),
            }
        }
        self.associations.rearm(id);
    }

    /// Ends what is to be ended.
    fn settle<S: ManagerSink>(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: AssociationId,
        sink: &mut S,
    ) {
        let Some(association) = self.associations.get(id) else { return };
        let Some(end) = association.closing.clone() else { return };
        if association.state == State::AwaitingConnection {
            if end == AssociationEnd::ClosedByPeer {
                // The peer was quick: the channel is on its way to be open.
                return;
            }
            return self.associations.destroy(id, Trigger::Close, end, sink);
        }
        association.apply(Trigger::Close, None, sink);
        if !association.queue.is_empty() {
            return;
        }
        if let Some((conn, channel)) = association.at
            && !core::mem::replace(&mut association.finished, true)
        {
            let _ = endpoint.finish_channel(now, conn, channel);
        }
        if association.sent.is_empty() {
            self.associations.destroy(id, Trigger::Drained, end, sink);
        }
    }
}
