//! Channels in one call with the connection that they need, and associations.

use super::Context;
use crate::config::ConnectConfig;
use crate::handle::{Association, Channel, Conn, OpenRequest};
use crate::security::{Chosen, choose};
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::connection::SecInfo;
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ConnHandle, PeerId};
use trunkline_proto::manager::{
    AssociationConfig, AssociationId, AssociationState, HoldState, Messages, RequestId, Security,
};
use trunkline_proto::payload::Payload;
use trunkline_proto::time::Duration;

impl Context<'_> {
    // ---- channel requests

    /// Asks the peer for a channel by name, over a connection that is there, one being made, or a
    /// new one, as [`ConnectConfig::reuse`] says. Exactly one
    /// [`on_request_done`](crate::Handler::on_request_done) answers. A request whose connection
    /// dies is asked for again once, over another one.
    ///
    /// # Errors
    /// Unusable settings, too many connections, or none to share with
    /// [`Reuse::NeverNew`](crate::Reuse::NeverNew); nothing follows.
    pub fn request_channel(
        &mut self,
        connect: &ConnectConfig,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<OpenRequest, ApiError> {
        let chosen = choose(&self.core.shared, connect)?;
        self.request_chosen(&chosen, name, options)
    }

    pub(crate) fn request_chosen(
        &mut self,
        chosen: &Chosen,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<OpenRequest, ApiError> {
        let target = self.core.target(chosen)?;
        let core = &mut *self.core;
        let id =
            core.manager.request_channel(core.now, &mut core.endpoint, target, name, options)?;
        Ok(OpenRequest::new(core.shard, id))
    }

    /// A connection that belongs to the manager, for a request that is about to follow.
    pub(crate) fn begin_chosen(&mut self, chosen: &Chosen, mine: bool) -> Result<Conn, ApiError> {
        let core = &mut *self.core;
        let conn = core.connect_chosen(chosen)?;
        if mine {
            core.manager.adopt(core.now, conn);
        }
        Ok(core.conn(conn))
    }

    /// A connection that was begun for a request belongs to the application from now on.
    pub(crate) fn keep(&mut self, conn: Conn) {
        if let Ok(handle) = self.core.own(conn) {
            self.core.manager.keep(handle);
        }
    }

    /// Gives a request up: it is answered with
    /// [`RequestError::Cancelled`](crate::RequestError::Cancelled). `false` when it was answered
    /// before.
    pub fn cancel_request(&mut self, request: OpenRequest) -> bool {
        let Some(id) = self.core_request(request) else { return false };
        let core = &mut *self.core;
        core.manager.cancel_request(core.now, &mut core.endpoint, id)
    }

    /// The channel of a request that is not answered, for data that is not to wait for the answer.
    /// Such a request is not asked for again when its connection dies.
    pub fn early_channel(&mut self, request: OpenRequest) -> Option<Channel> {
        let id = self.core_request(request)?;
        let (conn, channel) = self.core.manager.early_channel(id)?;
        Some(Channel::new(self.core.conn(conn), channel))
    }

    fn core_request(&self, request: OpenRequest) -> Option<RequestId> {
        (request.shard() == self.core.shard).then(|| request.id())
    }

    /// Closes a connection by itself when no channel is open and nothing has moved for `time` on
    /// this side, and the peer says the same of its side; `None` = no more. Keep-alives do not
    /// count.
    ///
    /// # Errors
    /// A stale handle.
    pub fn hold(&mut self, conn: Conn, time: Option<Duration>) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        if self.core.endpoint.info(handle).is_none() {
            return Err(ApiError::InvalidHandle);
        }
        self.core.manager.hold(self.core.now, handle, time);
        Ok(())
    }

    /// How much a connection is wanted, where [`hold`](Self::hold) looks after it.
    pub fn hold_state(&self, conn: Conn) -> Option<HoldState> {
        self.core.manager.hold_state(self.core.own(conn).ok()?)
    }

    /// What is known of the security of a connection.
    pub fn sec_info(&self, conn: Conn) -> Option<SecInfo> {
        self.core.endpoint.sec_info(self.core.own(conn).ok()?)
    }

    // ---- associations

    fn association_id(&self, association: Association) -> Result<AssociationId, ApiError> {
        if association.shard() == self.core.shard {
            Ok(association.id())
        } else {
            Err(ApiError::InvalidHandle)
        }
    }

    /// The association of this name with a peer: the one that there is, or a new one.
    ///
    /// # Errors
    /// As [`request_channel`](Self::request_channel).
    pub fn associate(
        &mut self,
        connect: &ConnectConfig,
        config: AssociationConfig,
    ) -> Result<Association, ApiError> {
        let chosen = choose(&self.core.shared, connect)?;
        self.associate_chosen(&chosen, config)
    }

    pub(crate) fn associate_chosen(
        &mut self,
        chosen: &Chosen,
        config: AssociationConfig,
    ) -> Result<Association, ApiError> {
        let target = self.core.target(chosen)?;
        let core = &mut *self.core;
        let id = core.manager.associate(core.now, &mut core.endpoint, target, config)?;
        Ok(Association::new(core.shard, id))
    }

    /// What a channel carries.
    pub(crate) fn channel_kind(&self, channel: Channel) -> Option<ChannelKind> {
        let handle = self.core.own(channel.conn()).ok()?;
        self.core.endpoint.channel_info(handle, channel.key()).map(|info| info.kind)
    }

    /// An association that waits for `peer`, or for anybody, to ask for a channel of its name;
    /// which is accepted without [`on_channel_request`](crate::Handler::on_channel_request). The
    /// connection itself is accepted as ever.
    ///
    /// # Errors
    /// Settings out of range, or too many associations.
    pub fn listen_association(
        &mut self,
        peer: Option<PeerId>,
        config: AssociationConfig,
    ) -> Result<Association, ApiError> {
        let core = &mut *self.core;
        let id = core.manager.listen_association(core.now, peer, config)?;
        Ok(Association::new(core.shard, id))
    }

    /// Makes an association of a channel that the peer asks for, and accepts it.
    ///
    /// # Errors
    /// As [`accept_channel`](Self::accept_channel); a channel that is not of messages.
    pub fn accept_association(
        &mut self,
        channel: Channel,
        config: AssociationConfig,
    ) -> Result<Association, ApiError> {
        let handle = self.core.own(channel.conn())?;
        let core = &mut *self.core;
        let id = core.manager.accept_association(
            core.now,
            &mut core.endpoint,
            handle,
            channel.key(),
            config,
        )?;
        Ok(Association::new(core.shard, id))
    }

    /// Sends a message over an association, at once or when it is Connected. Exactly one
    /// [`AssociationEvent`](crate::AssociationEvent) with `token` says what became of it.
    ///
    /// # Errors
    /// A stale handle, a full queue, a message that is too large; nothing follows.
    pub fn send_message(
        &mut self,
        association: Association,
        data: impl Into<Payload>,
        token: u64,
        security: Security<'_>,
    ) -> Result<(), ApiError> {
        let id = self.association_id(association)?;
        let core = &mut *self.core;
        core.manager.send_message(core.now, &mut core.endpoint, id, data.into(), token, security)
    }

    /// Sends a message to a peer, over the association of this name, which is made if there is
    /// none. With [`Security::Info`] only over a connection that exists and matches.
    ///
    /// # Errors
    /// [`ApiError::NoConnection`] when none matches; as [`associate`](Self::associate) and
    /// [`send_message`](Self::send_message).
    pub fn send_to(
        &mut self,
        connect: &ConnectConfig,
        config: AssociationConfig,
        data: impl Into<Payload>,
        token: u64,
        security: Security<'_>,
    ) -> Result<Association, ApiError> {
        let mut connect = connect.clone();
        if let Security::Handle(handle) = security {
            connect.sec_handle = Some(handle);
        }
        let chosen = choose(&self.core.shared, &connect)?;
        self.send_to_chosen(&chosen, config, data.into(), token, security)
    }

    pub(crate) fn send_to_chosen(
        &mut self,
        chosen: &Chosen,
        config: AssociationConfig,
        data: Payload,
        token: u64,
        security: Security<'_>,
    ) -> Result<Association, ApiError> {
        let target = self.core.target(chosen)?;
        let core = &mut *self.core;
        let (now, ep) = (core.now, &mut core.endpoint);
        let id = core.manager.send_to(now, ep, target, config, data, token, security)?;
        Ok(Association::new(core.shard, id))
    }

    /// An association for a channel that is found on any shard; see
    /// [`Manager::expect_association`](trunkline_proto::manager::Manager::expect_association).
    pub(crate) fn expect_association(
        &mut self,
        config: AssociationConfig,
    ) -> Result<Association, ApiError> {
        let core = &mut *self.core;
        let id = core.manager.expect_association(core.now, config)?;
        Ok(Association::new(core.shard, id))
    }

    /// Takes one away that has no channel, with what waits in it.
    pub(crate) fn withdraw_association(&mut self, association: Association) -> Messages {
        let id = self.association_id(association);
        id.map_or_else(|_| Messages::default(), |id| self.core.manager.withdraw_association(id))
    }

    /// What waited in the one that was taken away goes over this one.
    pub(crate) fn inherit(
        &mut self,
        association: Association,
        messages: Messages,
    ) -> Result<(), Messages> {
        match self.association_id(association) {
            Ok(id) => self.core.manager.inherit(id, messages),
            Err(_) => Err(messages),
        }
    }

    /// Closes an association once what it was given is delivered. Its connection stays.
    ///
    /// # Errors
    /// A stale handle, also for a second close.
    pub fn close_association(&mut self, association: Association) -> Result<(), ApiError> {
        let id = self.association_id(association)?;
        let core = &mut *self.core;
        core.manager.close_association(core.now, &mut core.endpoint, id)
    }

    /// The state of an association; Destroyed for a stale handle.
    pub fn association_state(&self, association: Association) -> AssociationState {
        let id = self.association_id(association);
        id.map_or(AssociationState::Destroyed, |id| self.core.manager.association_state(id))
    }

    /// What is known of the security of an association's connection, once it has one.
    pub fn association_info(&self, association: Association) -> Option<SecInfo> {
        self.core.manager.association_info(self.association_id(association).ok()?)
    }

    /// The channel of an association, once the peer was asked for it.
    pub fn association_channel(&self, association: Association) -> Option<Channel> {
        let id = self.association_id(association).ok()?;
        let (conn, channel): (ConnHandle, _) = self.core.manager.association_channel(id)?;
        Some(Channel::new(self.core.conn(conn), channel))
    }
}
