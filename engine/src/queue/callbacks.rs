//! Callback groups: what happens is told on the shard's own thread, at once, instead of waiting in
//! a poll group; and what the application calls from inside takes effect there, without a queue.
//!
//! While a callback runs, its thread has the shard's half of the API lent ([`inside`]). Commands
//! that were posted before go first, so that what one thread does happens in the order in which it
//! did it. Events are collected and told when the protocol and the handler are in the middle of
//! nothing: before the next bytes of their group, and at the end of a turn.

use super::QueuedEngine;
use super::cells::ChannelCell;
use super::event::Event;
use super::handler::QueueHandler;
use super::link::ShardLink;
use super::outgoing::Outgoing;
use crate::handle::Channel;
use crate::handler::{Context, Handler as _};
use crate::retained::{Credit, Retained};
use crate::sys::lend::{Borrowing, Lending};
use std::sync::Arc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::ApiError;

/// Takes what happens to the connections of a group, on the threads of their shards: connections of
/// different shards call at the same time.
///
/// Every call of the engine may be made from inside, and takes effect at once where it concerns the
/// shard that calls; only [`shutdown`](QueuedEngine::shutdown) and dropping the engine may not. The
/// shard does nothing else meanwhile: do not block. A panic ends the shard.
pub trait Callbacks: Send + Sync + 'static {
    /// The next bytes of a channel, or a message, as `kind` says. They are valid for the call;
    /// [`QueuedEngine::keep`] keeps them. `user` is the channel's number
    /// ([`set_channel_user_data`](QueuedEngine::set_channel_user_data)).
    fn on_data(&self, channel: Channel, user: u64, kind: ChannelKind, data: &[u8]);

    /// Anything else. [`Event::Data`] does not occur.
    fn on_event(&self, event: Event);
}

/// A [`Context`], without its lifetime.
pub(super) struct Contexts;

impl Borrowing for Contexts {
    type Of<'a> = Context<'a>;
}

thread_local! {
    static INSIDE: Lending<QueueHandler, Contexts> = const { Lending::new() };
    /// A callback runs that has nothing lent: its shard has ended.
    static TELLING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The bytes that a callback is being given.
#[derive(Clone, Copy)]
pub(super) struct Given {
    channel: Channel,
    /// Bytes whose credit has not been passed on to a [`Retained`].
    owed: u64,
}

/// Calls `f` with the shard's half, if the calling thread is inside a callback of that shard.
#[inline]
pub(super) fn inside<R>(
    link: &ShardLink,
    f: impl FnOnce(&mut QueueHandler, &mut Context<'_>) -> R,
) -> Option<R> {
    INSIDE.with(|inside| {
        if !inside.is_lent() {
            return None;
        }
        inside
            .borrow(|handler, cx| {
                std::ptr::eq(&raw const *handler.link, link).then(|| {
                    handler.take_commands(cx);
                    f(handler, cx)
                })
            })
            .flatten()
    })
}

/// Tells the callbacks of a shard that has ended.
pub(super) fn tell_without_shard(callbacks: &dyn Callbacks, event: Event) {
    TELLING.with(|telling| telling.set(true));
    callbacks.on_event(event);
    TELLING.with(|telling| telling.set(false));
}

/// Whether the calling thread is inside a callback.
pub(super) fn is_inside() -> bool {
    INSIDE.with(Lending::is_lent)
}

impl QueueHandler {
    /// What was posted before takes effect before.
    #[inline]
    fn take_commands(&mut self, cx: &mut Context<'_>) {
        let waiting = self.link.mailbox.commands.len();
        for _ in 0..waiting {
            let Some(command) = self.link.mailbox.commands.pop() else { break };
            self.on_command(cx, command);
        }
    }

    /// Gives bytes to the callbacks of a group; `false` when it has none.
    #[inline]
    pub(super) fn call_with_data(
        &mut self,
        cx: &mut Context<'_>,
        name: Channel,
        kind: ChannelKind,
        bytes: &[u8],
    ) -> bool {
        let Some(writer) = self.writer(name.conn().slot()) else { return false };
        if !writer.has_callbacks() {
            return false;
        }
        let group = writer.index();
        if writer.has_events() {
            self.tell_events(cx, group);
        }
        let Some(callbacks) = self.writers[group].lend_callbacks() else { return true };
        let cell = self.link.channels.get(name.key().slot);
        let user = cell.map_or(0, |cell| cell.user.load(std::sync::atomic::Ordering::Relaxed));
        self.given = Some(Given { channel: name, owed: bytes.len() as u64 });
        INSIDE.with(|inside| {
            inside.lend(self, cx, || callbacks.on_data(name, user, kind, bytes));
        });
        self.writers[group].return_callbacks(callbacks);
        if let Some(Given { owed, .. }) = self.given.take()
            && owed > 0
        {
            self.consumed(cx, name, owed);
        }
        true
    }

    /// Tells the events that a group has at this moment. Those that come of it are told later.
    pub(super) fn tell_events(&mut self, cx: &mut Context<'_>, group: usize) {
        let count = self.writers[group].event_count();
        for _ in 0..count {
            let Some(event) = self.writers[group].next_event() else { return };
            let Some(callbacks) = self.writers[group].lend_callbacks() else { return };
            INSIDE.with(|inside| inside.lend(self, cx, || callbacks.on_event(event)));
            self.writers[group].return_callbacks(callbacks);
        }
    }

    /// At the end of a turn: tells what there is to tell in all groups with callbacks.
    pub(super) fn tell_all_events(&mut self, cx: &mut Context<'_>) {
        let mut more = false;
        for group in 0..self.writers.len() {
            if self.writers[group].has_events() {
                self.tell_events(cx, group);
                more |= self.writers[group].has_events();
            }
        }
        if more {
            self.link.poke();
        }
    }

    /// Bytes that a callback was given are gone: their credit returns when that is worth a word.
    #[inline]
    fn consumed(&mut self, cx: &mut Context<'_>, name: Channel, bytes: u64) {
        let key = name.key();
        let Some(side) = self.side(key.slot, key.life) else {
            return self.link.release(name, bytes);
        };
        side.taken += bytes;
        if side.taken >= side.step {
            self.return_credit(cx, key.slot);
        }
    }

    /// Keeps bytes that a callback was given; their credit returns with them.
    fn keep_given(&mut self, cx: &Context<'_>, data: &[u8]) -> Retained {
        let Some(Given { channel, owed }) = self.given.as_mut() else {
            return Retained::copy(data);
        };
        let (channel, bytes) = (*channel, std::mem::take(owed));
        let kept = cx.retain(data);
        if bytes == 0 {
            return kept;
        }
        let mut credit = Credit::new(self.link.clone(), channel);
        credit.set(channel, bytes);
        kept.with_credit(Arc::new(credit))
    }
}

impl QueuedEngine {
    /// Whether the calling thread is inside a callback of an engine.
    pub fn is_inside_callback() -> bool {
        is_inside() || TELLING.with(std::cell::Cell::get)
    }

    /// Inside [`Callbacks::on_data`]: keeps bytes that it was given, or a part of them, beyond the
    /// call: where they lie if that is worth it, otherwise as a copy. They count against what the
    /// peer may send until the last clone is dropped. Anywhere else: a copy.
    pub fn keep(&self, data: &[u8]) -> Retained {
        INSIDE
            .with(|inside| inside.borrow(|handler, cx| handler.keep_given(cx, data)))
            .unwrap_or_else(|| Retained::copy(data))
    }

    /// A group whose connections call `callbacks` on their shards' threads.
    /// [`recv_many`](super::PollGroup::recv_many) never gives anything.
    ///
    /// # Errors
    /// Too many groups (1024).
    pub fn new_callback_group(
        &self,
        callbacks: Arc<dyn Callbacks>,
    ) -> Result<super::PollGroup, ApiError> {
        self.add_group(Some(callbacks))
    }

    /// Sends from inside a callback of the channel's shard. `None` on any other thread.
    #[inline]
    pub(super) fn send_inside(
        &self,
        link: &ShardLink,
        cell: &ChannelCell,
        channel: Channel,
        what: Outgoing<'_>,
        receipt: Option<u64>,
    ) -> Option<Result<(), ApiError>> {
        inside(link, |handler, cx| {
            self.check_len(cell, what.len())?;
            handler.send_here(cx, channel.key(), what, receipt)
        })
    }

    /// Whether the calling thread is inside a callback of the channel's shard.
    pub(super) fn is_here(&self, channel: Channel) -> bool {
        self.link(channel.conn()).is_ok_and(|link| inside(link, |_, _| ()).is_some())
    }
}
