//! Associations that wait for a peer, on whichever shard it comes to.
//!
//! The shard that gave the number keeps one without a channel: it holds what is sent meanwhile, and
//! ends when nobody comes in time. The directory tells all shards whom it waits for, and the first
//! that is asked for such a channel takes the entry out and makes an association of that channel.
//! What was sent follows it there, and so does whatever the application asks of the number, by way
//! of the shard that gave it: nothing overtakes.

use super::QueuedEngine;
use super::associations::{Lent, Part, Sending};
use super::directory::Listing;
use super::group::PollGroup;
use super::handler::QueueHandler;
use super::managed::{numbers_of, shard_of};
use crate::handle::Channel;
use crate::handler::Context;
use std::sync::atomic::Ordering;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::ApiError;
use trunkline_proto::event::ChannelRequest;
use trunkline_proto::ids::PeerId;
use trunkline_proto::manager::{AssociationConfig, AssociationEnd, Messages, RequestError};

/// Calls from other shards that wait for one shard: beyond them, messages are told undelivered.
const HANDED: usize = 1024;

impl QueueHandler {
    /// Has another shard do something; `false` when it has failed.
    pub(super) fn hand(
        &self,
        shard: u8,
        call: impl FnOnce(&mut Self, &mut Context<'_>) + Send + 'static,
    ) -> bool {
        let link = self.managed.associations.links.get(usize::from(shard));
        link.is_some_and(|link| link.hand(Box::new(call)))
    }

    /// An association begins to wait.
    fn expect(
        &mut self,
        cx: &mut Context<'_>,
        config: AssociationConfig,
        (number, group): (u64, u32),
    ) {
        let all = &mut self.managed.associations;
        if all.early.remove(&number) {
            return;
        }
        match cx.expect_association(config) {
            Ok(association) => all.link(association, number, group, Part::Waits),
            Err(error) => {
                if all.directory.open().unlist(number).is_some() {
                    let end = AssociationEnd::Failed(RequestError::Api(error));
                    self.no_association(number, group, end);
                }
            }
        }
    }

    /// Makes an association of a channel that a peer asks for, if one waits for that.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) -> bool {
        if request.options.kind != ChannelKind::Messages {
            return false;
        }
        let peer = cx.info(channel.conn()).and_then(|info| info.peer);
        let directory = self.managed.associations.directory.clone();
        let mut lists = directory.open();
        let Some(Listing { number, group, config, .. }) = lists.waits_for(request.name, peer)
        else {
            return false;
        };
        let (number, group) = (*number, *group);
        let Ok(association) = cx.accept_association(channel, config.clone()) else { return false };
        lists.unlist(number);
        drop(lists);
        let (home, here) = (shard_of(number), self.link.shard);
        let what = if home == here { self.let_go(cx, number) } else { Default::default() };
        self.managed.associations.link(association, number, group, Part::Whole);
        if home == here {
            self.inherit(cx, (number, group), what);
        } else {
            self.hand(home, move |h, cx| h.lend(cx, (number, group), here));
        }
        true
    }

    /// The messages of one that waited in vain here, and whether it is to be closed.
    fn let_go(&mut self, cx: &mut Context<'_>, number: u64) -> (Messages, bool) {
        let all = &mut self.managed.associations;
        let Some((association, linked)) = all.find(number) else {
            all.early.insert(number);
            return Default::default();
        };
        all.by_number.remove(&number);
        all.linked.remove(&association);
        (cx.withdraw_association(association), linked.closing)
    }

    /// The association of a number has begun on another shard.
    fn lend(&mut self, cx: &mut Context<'_>, (number, group): (u64, u32), shard: u8) {
        let (messages, closing) = self.let_go(cx, number);
        self.managed.associations.lent.insert(number, Lent { shard, group });
        if messages.is_empty() && !closing {
            return;
        }
        let tokens: Vec<u64> = messages.tokens().collect();
        let handed = self.hand(shard, move |h, cx| {
            h.inherit(cx, (number, group), (messages, closing));
        });
        if !handed {
            self.lost(number, group, &tokens, &ApiError::NoConnection("the shard has failed"));
        }
    }

    /// Its messages go over the association that has a channel.
    fn inherit(
        &mut self,
        cx: &mut Context<'_>,
        (number, group): (u64, u32),
        (messages, closing): (Messages, bool),
    ) {
        let left = match self.managed.associations.find(number) {
            Some((association, _)) => cx.inherit(association, messages),
            None => Err(messages),
        };
        if let Err(messages) = left {
            let tokens: Vec<u64> = messages.tokens().collect();
            self.lost(number, group, &tokens, &ApiError::InvalidHandle);
        }
        if closing {
            self.close_association(cx, number, None);
        }
    }

    fn lost(&mut self, number: u64, group: u32, tokens: &[u64], error: &ApiError) {
        for token in tokens {
            self.undelivered(number, group, *token, error.clone());
        }
    }

    /// A message for an association on another shard.
    pub(super) fn pass_on(&mut self, number: u64, lent: Lent, message: Sending) {
        let (token, Lent { shard, group }) = (message.token, lent);
        let link = &self.managed.associations.links[usize::from(shard)];
        let error = if link.handed.len() >= HANDED {
            ApiError::WouldBlock("the shard's mailbox")
        } else if self.hand(shard, move |h, cx| h.send_message(cx, (number, group), message)) {
            return;
        } else {
            ApiError::NoConnection("the shard has failed")
        };
        self.undelivered(number, group, token, error);
    }

    /// An association is over: the shard that gave its number need not know of it any more.
    pub(super) fn give_number_back(&self, number: u64) {
        let home = shard_of(number);
        if home != self.link.shard {
            self.hand(home, move |h, _| {
                h.managed.associations.lent.remove(&number);
            });
        }
    }

    /// Nothing waits here any more.
    pub(super) fn stop_listening(&self) {
        self.managed.associations.directory.open().unlist_all(numbers_of(self.link.shard));
    }
}

impl QueuedEngine {
    /// An association that waits for `peer`, or for anybody, to ask for a channel of its name, on
    /// whichever shard: the first that does so becomes its peer, without an
    /// [`Event::ChannelRequest`](crate::Event::ChannelRequest). A peer for which none waits shows as
    /// such a request, of which [`accept_association`](Self::accept_association) makes one. The
    /// connection itself is accepted as ever.
    ///
    /// # Errors
    /// Settings out of range, or a full queue.
    pub fn listen_association(
        &self,
        peer: Option<PeerId>,
        config: AssociationConfig,
        group: Option<&PollGroup>,
    ) -> Result<u64, ApiError> {
        config.validate()?;
        let group = group.map_or(0, |g| g.index);
        let next = self.inner.next_shard.fetch_add(1, Ordering::Relaxed);
        let number = self.number((next % self.shards()) as u8);
        let listing = Listing { number, group, peer, config: config.clone() };
        let mut lists = self.inner.directory.open();
        Self::post(self.link_of(number)?, move |h, cx| h.expect(cx, config, (number, group)))?;
        // From here on every shard knows of it.
        lists.list(listing);
        Ok(number)
    }
}
