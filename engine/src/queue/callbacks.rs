//! Callback groups: what happens is told on the shard's own thread, at once, instead of waiting in
//! a poll group; and what the application calls from inside takes effect there, without a queue.
//!
//! While a callback runs, its thread has the shard's half of the API lent ([`inside`]). Commands
//! that were posted before go first, so that what one thread does happens in the order in which it
//! did it. Events are collected and told when the protocol and the handler are in the middle of
//! nothing: before the next bytes of their group, and at the end of a turn.

use super::QueuedEngine;
use super::event::Event;
use super::handler::QueueHandler;
use super::link::ShardLink;
use super::outgoing::Outgoing;
use crate::handle::{Channel, Conn};
use crate::handler::{Context, Handler as _};
use crate::retained::{Credit, Retained};
use crate::sys::lend::{Borrowing, Lending};
use std::sync::Arc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ChannelKey, ConnHandle};

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
    /// A callback runs that has nothing lent ([`QueuedEngine::as_callback`]).
    static TELLING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The bytes that a callback is being given.
#[derive(Default)]
pub(super) struct Given {
    channel: Option<Channel>,
    /// Bytes whose credit has not been passed on to a [`Retained`].
    owed: u64,
}

/// What became of a message that [`QueuedEngine::send_inside`] was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentInside {
    /// It was taken.
    Taken,
    /// It was not, for the reason that was stored.
    Refused,
    /// The calling thread is not inside a callback of the channel's shard.
    Elsewhere,
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
    QueuedEngine::as_callback(|| callbacks.on_event(event));
}

/// Whether the calling thread is inside a callback.
pub(super) fn is_inside() -> bool {
    INSIDE.with(Lending::is_lent) || TELLING.with(std::cell::Cell::get)
}

impl QueueHandler {
    /// What was posted before takes effect before.
    #[inline]
    fn take_commands(&mut self, cx: &mut Context<'_>) {
        if !self.link.mailbox.commands.is_empty() {
            self.carry_out(cx);
        }
    }

    #[cold]
    fn carry_out(&mut self, cx: &mut Context<'_>) {
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
        let Some((callbacks, quiet)) = writer.lend_callbacks() else { return false };
        let group = writer.index();
        let callbacks = if quiet { callbacks } else { self.after_events(cx, group, callbacks) };
        let cell = self.link.channels.get(name.key().slot);
        let user = cell.map_or(0, |cell| cell.user.load(std::sync::atomic::Ordering::Relaxed));
        self.given.channel = Some(name);
        self.given.owed = bytes.len() as u64;
        INSIDE.with(|inside| {
            inside.lend(self, cx, || callbacks.on_data(name, user, kind, bytes));
        });
        self.writers[group].return_callbacks(callbacks);
        let Given { owed, .. } = std::mem::take(&mut self.given);
        if owed > 0 {
            self.consumed(cx, name, owed);
        }
        true
    }

    /// The same callbacks, after they were told what comes first.
    #[cold]
    fn after_events(
        &mut self,
        cx: &mut Context<'_>,
        group: usize,
        callbacks: Arc<dyn Callbacks>,
    ) -> Arc<dyn Callbacks> {
        let spare = callbacks.clone();
        self.writers[group].return_callbacks(callbacks);
        self.tell_events(cx, group);
        self.writers[group].lend_callbacks().map_or(spare, |(callbacks, _)| callbacks)
    }

    /// Tells the events that a group has at this moment. Those that come of it are told later.
    pub(super) fn tell_events(&mut self, cx: &mut Context<'_>, group: usize) {
        let count = self.writers[group].event_count();
        for _ in 0..count {
            let Some(event) = self.writers[group].next_event() else { return };
            let Some((callbacks, _)) = self.writers[group].lend_callbacks() else { return };
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
        // Commands that went before a call from inside may have made room, which is told in another
        // turn.
        if more || self.done.1 > 0 {
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
        let Some(channel) = self.given.channel else { return Retained::copy(data) };
        let bytes = std::mem::take(&mut self.given.owed);
        let kept = cx.retain(data);
        if bytes == 0 {
            return kept;
        }
        let mut credit = Credit::new(self.link.clone(), channel);
        credit.set(channel, bytes);
        kept.with_credit(crate::sync::Arc::new(credit))
    }
}

/// A send that may be from inside.
struct Request<'a> {
    engine: &'a QueuedEngine,
    shard: usize,
    key: ChannelKey,
    what: Outgoing<'a>,
    receipt: Option<u64>,
    error: &'a mut Option<ApiError>,
}

impl<'a> Request<'a> {
    /// For a channel as a number.
    #[inline]
    fn of(
        engine: &'a QueuedEngine,
        bits: u64,
        data: &'a [u8],
        error: &'a mut Option<ApiError>,
    ) -> Self {
        let ConnHandle { slot, generation: life } = Conn::from_bits(bits).handle();
        let shard = usize::from(Conn::from_bits(bits).shard());
        let (key, what) = (ChannelKey { slot, life }, Outgoing::Bytes(data));
        Self { engine, shard, key, what, receipt: None, error }
    }

    /// It is written once and read where it stands, and one word comes back: whatever goes through
    /// memory twice here costs as much as the rest.
    #[inline]
    fn send(mut self) -> SentInside {
        let this = &mut self;
        INSIDE.with(|inside| {
            if !inside.is_lent() {
                return SentInside::Elsewhere;
            }
            let sent = inside.borrow(|handler, cx| {
                handler.take_commands(cx);
                this.carry_out(handler, cx)
            });
            sent.unwrap_or(SentInside::Elsewhere)
        })
    }

    #[inline]
    fn carry_out(&mut self, handler: &mut QueueHandler, cx: &mut Context<'_>) -> SentInside {
        let link = self.engine.inner.links.get(self.shard);
        if !link.is_some_and(|link| Arc::ptr_eq(&handler.link, link)) {
            return SentInside::Elsewhere;
        }
        match handler.send_here(cx, self.key, &self.what, self.receipt) {
            Ok(()) => SentInside::Taken,
            Err(refused) => {
                *self.error = Some(refused);
                SentInside::Refused
            }
        }
    }
}

impl QueuedEngine {
    /// Whether the calling thread is inside a callback of an engine.
    pub fn is_inside_callback() -> bool {
        is_inside()
    }

    /// Calls `f` as what a thread of the library calls and has nothing lent: calls that would wait for
    /// a shard are refused inside.
    pub fn as_callback<R>(f: impl FnOnce() -> R) -> R {
        TELLING.with(|telling| {
            let before = telling.replace(true);
            let result = f();
            telling.set(before);
            result
        })
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

    /// Sends from inside a callback of the channel's shard, without a queue: for callers that have a
    /// channel as a number ([`channel_bits`](Self::channel_bits)) and count nanoseconds.
    /// [`send`](Self::send) does the same. The reason of a refusal is stored at `error`.
    #[inline]
    pub fn send_inside(&self, bits: u64, data: &[u8], error: &mut Option<ApiError>) -> SentInside {
        Request::of(self, bits, data, error).send()
    }

    /// The same for several, in order, until one is not taken. Those that were are counted at `sent`.
    #[inline]
    pub fn send_many_inside<'a>(
        &self,
        messages: impl Iterator<Item = (u64, &'a [u8])>,
        sent: &mut usize,
        error: &mut Option<ApiError>,
    ) -> SentInside {
        INSIDE.with(|inside| {
            let all = inside.borrow(|handler, cx| {
                handler.take_commands(cx);
                for (bits, data) in messages {
                    match Request::of(self, bits, data, error).carry_out(handler, cx) {
                        SentInside::Taken => *sent += 1,
                        otherwise => return otherwise,
                    }
                }
                SentInside::Taken
            });
            all.unwrap_or(SentInside::Elsewhere)
        })
    }

    /// The same for a channel by name.
    #[inline]
    pub(super) fn send_here(
        &self,
        channel: Channel,
        what: Outgoing<'_>,
        receipt: Option<u64>,
    ) -> Option<Result<(), ApiError>> {
        let mut error = None;
        let (shard, key) = (usize::from(channel.conn().shard()), channel.key());
        let request = Request { engine: self, shard, key, what, receipt, error: &mut error };
        match request.send() {
            SentInside::Elsewhere => None,
            SentInside::Taken => Some(Ok(())),
            SentInside::Refused => error.map(Err),
        }
    }
}
