//! Associations: the application's calls, and what the shard tells of them. Those that wait for a peer
//! are in `listening`.

use super::QueuedEngine;
use super::directory::Directory;
use super::event::Event;
use super::group::PollGroup;
use super::handler::QueueHandler;
use super::link::ShardLink;
use crate::config::{ConnectConfig, Reuse};
use crate::handle::{Association, Channel};
use crate::handler::Context;
use crate::security::Chosen;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trunkline_proto::connection::SecInfo;
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::limits;
use trunkline_proto::manager::{
    AssociationConfig, AssociationEnd, AssociationEvent, AssociationState, DeliveryError,
    RequestError, SecHandle, Security,
};
use trunkline_proto::payload::Payload;

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

/// A message on its way to the shard of its association.
pub(super) struct Sending {
    data: Payload,
    pub token: u64,
    security: SendSecurity,
}

impl Sending {
    fn new(data: Payload, token: u64, security: SendSecurity) -> Result<Self, ApiError> {
        let len = data.len();
        if len > limits::MAX_MESSAGE {
            return Err(ApiError::MessageTooLarge { len, limit: limits::MAX_MESSAGE });
        }
        Ok(Self { data, token, security })
    }
}

/// What an association of the shard is to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What its number says.
    Whole,
    /// Another one has taken over its number, because this one is about to end as idle.
    Former,
    /// It waits for a peer that may come to any shard.
    Waits,
    /// The same, and its peer has come to another shard, which is about to say so.
    Taken,
}

/// An association of the application.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked {
    pub number: u64,
    pub group: u32,
    /// Its channel's cell and life.
    channel: Option<Channel>,
    pub part: Part,
    /// The application has closed it.
    pub closing: bool,
}

/// Where an association is that was to wait here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent {
    pub shard: u8,
    pub group: u32,
}

/// The associations of one shard.
pub(super) struct Associations {
    pub directory: Arc<Directory>,
    pub links: Arc<Vec<Arc<ShardLink>>>,
    pub linked: BTreeMap<Association, Linked>,
    pub by_number: BTreeMap<u64, Association>,
    /// Numbers without one, while calls are on their way that will make it: none could be made so far,
    /// or the last was idle. And their groups.
    unborn: BTreeMap<u64, u32>,
    /// Numbers of this shard whose associations are on others, because their peers came there.
    pub lent: BTreeMap<u64, Lent>,
    /// Numbers of this shard whose peers were quicker than the calls that begin to wait for them.
    pub early: BTreeSet<u64>,
}

impl Associations {
    pub(super) const fn new(directory: Arc<Directory>, links: Arc<Vec<Arc<ShardLink>>>) -> Self {
        Self {
            directory,
            links,
            linked: BTreeMap::new(),
            by_number: BTreeMap::new(),
            unborn: BTreeMap::new(),
            lent: BTreeMap::new(),
            early: BTreeSet::new(),
        }
    }

    pub(super) fn link(&mut self, association: Association, number: u64, group: u32, part: Part) {
        let linked = Linked { number, group, channel: None, part, closing: false };
        self.linked.insert(association, linked);
        self.by_number.insert(number, association);
    }

    pub(super) fn find(&self, number: u64) -> Option<(Association, Linked)> {
        let association = *self.by_number.get(&number)?;
        Some((association, *self.linked.get(&association)?))
    }

    /// It is over.
    fn unlink(&mut self, association: Association, number: u64) {
        self.linked.remove(&association);
        if self.by_number.get(&number) == Some(&association) {
            self.by_number.remove(&number);
            if !self.unborn.contains_key(&number) {
                self.directory.open().forget(number);
            }
        }
    }

    /// Whether the end of an association is told. One that was idle goes on where the next call finds
    /// no other: nothing was lost with it.
    fn is_end_told(&mut self, linked: &Linked, end: Option<&AssociationEnd>) -> bool {
        let number = linked.number;
        match linked.part {
            Part::Whole if end == Some(&AssociationEnd::Idle) && !linked.closing => {
                let goes_on = self.directory.open().has_more(number);
                if goes_on {
                    self.unborn.insert(number, linked.group);
                }
                !goes_on
            }
            Part::Whole => true,
            Part::Former | Part::Taken => false,
            Part::Waits => linked.closing || self.directory.open().unlist(number).is_some(),
        }
    }
}

impl QueueHandler {
    pub(super) fn emit_group(&mut self, group: u32, event: Event) {
        if let Some(writer) = self.writer_of(group as usize) {
            writer.event(event);
        }
    }

    /// An association that is over before it was there.
    pub(super) fn no_association(&mut self, number: u64, group: u32, end: AssociationEnd) {
        let event = AssociationEvent::State {
            old: AssociationState::AwaitingConnection,
            new: AssociationState::Destroyed,
            end: Some(end),
            info: None,
        };
        self.emit_group(group, Event::Association { association: number, channel: None, event });
    }

    /// A message that goes nowhere. `group` counts where nothing is known of the association.
    pub(super) fn undelivered(&mut self, number: u64, group: u32, token: u64, error: ApiError) {
        let linked = self.managed.associations.find(number).map(|(_, linked)| linked);
        let channel = linked.and_then(|l| l.channel);
        let group = linked.map_or(group, |l| l.group);
        let error = DeliveryError::Api(error);
        let event = AssociationEvent::Undelivered { token, error };
        self.emit_group(group, Event::Association { association: number, channel, event });
    }

    /// Makes the association of a number unless it is there, and sends a message over it. `first`:
    /// the number was given for this call.
    fn associate(
        &mut self,
        cx: &mut Context<'_>,
        chosen: &Chosen,
        config: AssociationConfig,
        (number, group, first): (u64, u32, bool),
        message: Option<Sending>,
    ) {
        let all = &mut self.managed.associations;
        all.directory.open().arrived(number);
        let known = all.find(number);
        let group = all.unborn.get(&number).copied().unwrap_or(group);
        let token = message.as_ref().map(|m| m.token);
        let begins = known.is_none() && (first || all.unborn.contains_key(&number));
        let made = if known.map_or(!begins, |(_, linked)| linked.closing) {
            // It has ended since the call.
            Err(ApiError::InvalidHandle)
        } else if let Some(Sending { data, token, security }) = message {
            cx.send_to_chosen(chosen, config, data, token, security.borrowed())
        } else {
            cx.associate_chosen(chosen, config)
        };
        match made {
            Ok(association) => self.associated(association, known, number, group),
            Err(error) => {
                if let Some(token) = token {
                    self.undelivered(number, group, token, error.clone());
                }
                if begins {
                    self.not_associated(number, group, error);
                }
            }
        }
    }

    /// The association of a number is there.
    fn associated(
        &mut self,
        association: Association,
        known: Option<(Association, Linked)>,
        number: u64,
        group: u32,
    ) {
        let all = &mut self.managed.associations;
        all.unborn.remove(&number);
        match (known, all.linked.get(&association)) {
            (Some((old, _)), _) if old == association => {}
            (Some(_), Some(_)) => {}
            (None, Some(_)) => {
                // It has another number: one that the directory does not know.
                let error = ApiError::LimitReached { what: "associations of this name", limit: 1 };
                self.not_associated(number, group, error);
            }
            (known, None) => {
                if let Some((old, linked)) = known {
                    all.linked.insert(old, Linked { part: Part::Former, ..linked });
                }
                let group = known.map_or(group, |(_, linked)| linked.group);
                all.link(association, number, group, Part::Whole);
            }
        }
    }

    /// It could not be made. Its end is told unless further calls will try.
    fn not_associated(&mut self, number: u64, group: u32, error: ApiError) {
        let all = &mut self.managed.associations;
        if all.directory.open().has_more(number) {
            all.unborn.insert(number, group);
        } else {
            all.unborn.remove(&number);
            self.no_association(number, group, AssociationEnd::Failed(RequestError::Api(error)));
        }
    }

    fn accept_association(
        &mut self,
        cx: &mut Context<'_>,
        channel: ChannelKey,
        config: AssociationConfig,
        (number, group): (u64, u32),
    ) {
        let real = self.real_channel(channel.slot, channel.life);
        match real.and_then(|real| cx.accept_association(real, config)) {
            Ok(made) => self.managed.associations.link(made, number, group, Part::Whole),
            Err(error) => {
                let end = AssociationEnd::Failed(RequestError::Api(error));
                self.no_association(number, group, end);
            }
        }
    }

    pub(super) fn send_message(
        &mut self,
        cx: &mut Context<'_>,
        (number, group): (u64, u32),
        message: Sending,
    ) {
        if let Some(lent) = self.managed.associations.lent.get(&number).copied() {
            return self.pass_on(number, lent, message);
        }
        let Sending { data, token, security } = message;
        let sent = match self.managed.associations.find(number) {
            Some((association, linked)) if !linked.closing => {
                cx.send_message(association, data, token, security.borrowed())
            }
            _ => Err(ApiError::InvalidHandle),
        };
        if let Err(error) = sent {
            self.undelivered(number, group, token, error);
        }
    }

    /// `listed`: the group of an association that the call has kept from being found by a peer.
    pub(super) fn close_association(
        &mut self,
        cx: &mut Context<'_>,
        number: u64,
        listed: Option<u32>,
    ) {
        let all = &mut self.managed.associations;
        if let Some(lent) = all.lent.get(&number).copied() {
            self.hand(lent.shard, move |h, cx| h.close_association(cx, number, None));
        } else if let Some((association, mut linked)) = all.find(number) {
            if linked.part == Part::Waits && listed.is_none() && !linked.closing {
                linked.part = Part::Taken;
            } else if cx.close_association(association).is_err() && listed.is_some() {
                // Its time was up while the call was under way, and its end was left to us.
                all.unlink(association, number);
                return self.no_association(number, linked.group, AssociationEnd::Closed);
            }
            linked.closing = true;
            all.linked.insert(association, linked);
        } else if let Some(group) = all.unborn.remove(&number).or(listed) {
            self.no_association(number, group, AssociationEnd::Closed);
        }
    }

    pub(super) fn association_event(
        &mut self,
        cx: &mut Context<'_>,
        association: Association,
        event: &AssociationEvent,
    ) {
        let all = &mut self.managed.associations;
        let Some(mut linked) = all.linked.get(&association).copied() else { return };
        let (mut over, mut told) = (false, true);
        if let AssociationEvent::State { new, end, .. } = event {
            over = *new == AssociationState::Destroyed;
            told = if over {
                all.is_end_told(&linked, end.as_ref())
            } else {
                linked.part != Part::Former
            };
            if *new == AssociationState::Connected && linked.channel.is_none() {
                let real = cx.association_channel(association);
                linked.channel = real.and_then(|real| self.adopt_channel(cx, real).ok());
                self.managed.associations.linked.insert(association, linked);
            }
        }
        let Linked { number, group, channel, part, .. } = linked;
        if told {
            let event = event.clone();
            self.emit_group(group, Event::Association { association: number, channel, event });
        }
        // One that was taken is kept until the shard that has its peer says so.
        let kept = !told && matches!(part, Part::Waits | Part::Taken);
        if over && !kept {
            self.managed.associations.unlink(association, number);
            self.give_number_back(number);
            if let Some(ChannelKey { slot, life }) = channel.map(Channel::key)
                && self.side(slot, life).is_some()
            {
                self.end_channel(cx, slot);
            }
        }
    }
}

impl QueuedEngine {
    /// The association of this name with a peer: the one that there is with the same settings, or a
    /// new one. [`Event::Association`] tells what happens to it, in `group` or in the default group
    /// (in that of the first call, if it is there already); from Connected on it names the channel
    /// on which its messages are received.
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
        self.with_peer(self.choose(connect)?, config, group, None)
    }

    /// Sends a message to a peer: over the association of this name, which is made if there is none
    /// ([`associate`](Self::associate)), with the connection that it needs. Returns its number. With
    /// [`SendSecurity::Info`] only over a connection that exists and matches. Exactly one
    /// [`AssociationEvent`] with `token` says what became of it; it is undelivered, too, when the
    /// association could not be made, or broke while the message was on its way to it. One that was
    /// idle may go on over another connection: Connected is told of it once more then.
    ///
    /// Who sends much to one peer gives the number to [`send_message`](Self::send_message), which
    /// need not look for the association.
    ///
    /// # Errors
    /// A message that is too large, a full queue to the shard, no connection to share where none may
    /// be made; as [`associate`](Self::associate). Nothing follows.
    pub fn send_to(
        &self,
        connect: &ConnectConfig,
        config: AssociationConfig,
        data: impl Into<Payload>,
        token: u64,
        security: SendSecurity,
        group: Option<&PollGroup>,
    ) -> Result<u64, ApiError> {
        config.validate()?;
        let mut connect = connect.clone();
        if let SendSecurity::Handle(handle) = security {
            connect.sec_handle = Some(handle);
        }
        let mut chosen = self.choose(&connect)?;
        if let SendSecurity::Info(_) = security {
            chosen.config.reuse = Reuse::NeverNew;
        }
        let message = Sending::new(data.into(), token, security)?;
        self.with_peer(chosen, config, group, Some(message))
    }

    /// The number of the association with a peer, which its shard makes if there is none.
    fn with_peer(
        &self,
        chosen: Chosen,
        config: AssociationConfig,
        group: Option<&PollGroup>,
        message: Option<Sending>,
    ) -> Result<u64, ApiError> {
        let group = group.map_or(0, |g| g.index);
        let (key, name) = (chosen.key, config.name.clone());
        // Open until the shard has been told: nobody else begins the same one meanwhile.
        let mut lists = self.inner.directory.open();
        let lives = |number| self.link_of(number).is_ok_and(|link| !link.is_failed());
        let known = match chosen.config.reuse {
            Reuse::ForceNew => None,
            _ => lists.find(key, &name, lives),
        };
        let number = match known {
            Some(number) => number,
            None => self.number(self.shard_for(&chosen, group)?),
        };
        let as_number = (number, group, known.is_none());
        Self::post(self.link_of(number)?, move |h, cx| {
            h.associate(cx, &chosen, config, as_number, message);
        })?;
        lists.coming(key, &name, number);
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
        Self::call(link, move |h, cx| h.accept_association(cx, key, config, (number, group)))?;
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
        let message = Sending::new(data.into(), token, security)?;
        self.on_shard(association, move |h, cx| h.send_message(cx, (association, 0), message))
    }

    /// Closes an association once what it was given is delivered; its connection stays. One that
    /// waits for a peer takes none any more when this returns.
    ///
    /// # Errors
    /// A full queue, or a number that was never given.
    pub fn close_association(&self, association: u64) -> Result<(), ApiError> {
        let mut lists = self.inner.directory.open();
        let listing = lists.unlist(association);
        let listed = listing.as_ref().map(|l| l.group);
        let closed = self.link_of(association).and_then(|link| {
            Self::post(link, move |h, cx| h.close_association(cx, association, listed))
        });
        match (&closed, listing) {
            (Ok(()), _) => lists.forget(association),
            (Err(_), Some(listing)) => lists.list(listing),
            (Err(_), None) => {}
        }
        closed
    }
}
