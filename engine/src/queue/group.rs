//! Poll groups: where the messages and events of many connections wait for the application.
//!
//! A shard writes what a turn brought into one batch and hands that over with one queue operation;
//! the application takes it apart. Neither side takes a lock unless the application sleeps.

use super::callbacks::{Callbacks, tell_without_shard};
use super::event::{Event, Message, Received};
use super::link::ShardLink;
use super::lock;
use crate::handle::Channel;
use crate::retained::{Block, BlockPool, Retained};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{self, ArrayQueue, SegQueue, bound};
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::ApiError;

/// Batches that wait in one group; more stay with their shard.
const BATCHES: usize = bound(512, 1);
/// Batches begun and not finished at once: one for each thread that receives.
const BEGUN: usize = bound(64, 1);
/// Bytes in a batch after which it is handed over.
const BATCH_BYTES: usize = 48 << 10;
/// Messages and events in a batch after which it is handed over.
const BATCH_ITEMS: usize = 1024;
/// Buffers kept for batches to come.
const POOLED: usize = 64;
/// Batches that one shard keeps back before it takes nothing new for a group.
const KEPT_BACK: usize = 1 << 16;
/// Poll groups of one engine.
const MAX_GROUPS: usize = 1024;

/// All poll groups of an engine, by index; the first is the default one.
pub(super) struct Groups {
    list: Mutex<Vec<PollGroup>>,
    /// Batches in all groups of an engine without threads that are not finished.
    pub unfinished: Arc<AtomicUsize>,
}

impl Groups {
    pub(super) fn new(default: PollGroup, unfinished: Arc<AtomicUsize>) -> Self {
        Self { list: Mutex::new(vec![default]), unfinished }
    }

    /// Adds a group, made with the index that it gets.
    pub(super) fn add(&self, make: impl FnOnce(u32) -> PollGroup) -> Result<PollGroup, ApiError> {
        let mut list = lock(&self.list);
        if list.len() >= MAX_GROUPS {
            return Err(ApiError::LimitReached { what: "poll groups", limit: MAX_GROUPS as u64 });
        }
        let group = make(list.len() as u32);
        list.push(group.clone());
        Ok(group)
    }

    /// The groups with this index or a higher one, in order.
    pub(super) fn from(&self, index: usize) -> Vec<PollGroup> {
        lock(&self.list).get(index..).unwrap_or_default().to_vec()
    }
}

/// One message or event on its way.
pub(super) enum Item {
    Message {
        channel: Channel,
        kind: ChannelKind,
        start: u32,
        len: u32,
    },
    Data {
        channel: Channel,
        start: u32,
        len: u32,
    },
    /// Its bytes are the next of [`Lists::kept`].
    Large {
        channel: Channel,
        kind: ChannelKind,
    },
    /// Relayed.
    Packet {
        pairing: u64,
        start: u32,
        len: u32,
    },
    Writable {
        channel: Channel,
    },
    Receipt {
        channel: Channel,
        token: u64,
    },
    /// Anything rarer.
    Event(Box<Event>),
}

/// What a batch is made of; used again when it is empty.
#[derive(Default)]
struct Lists {
    items: VecDeque<Item>,
    /// Bytes that are kept elsewhere.
    kept: VecDeque<Retained>,
}

impl Lists {
    /// Empty ones with room for as much as in `others`.
    fn like(others: &Self) -> Self {
        Self {
            items: VecDeque::with_capacity(others.items.len()),
            kept: VecDeque::with_capacity(others.kept.len()),
        }
    }
}

/// What one turn of one shard brought to one group.
struct Batch {
    link: Arc<ShardLink>,
    lists: Lists,
    block: sync::Arc<Block>,
    /// Of [`Inner::waiting`].
    bytes: usize,
}

struct Inner {
    batches: ArrayQueue<Batch>,
    /// Batches that a receiver has begun and put back; they come first.
    begun: ArrayQueue<Batch>,
    /// The same when `begun` is full: there are more receivers than places.
    begun_too: SegQueue<Batch>,
    /// Bytes of messages in batches that are not finished.
    waiting: CachePadded<AtomicUsize>,
    /// A shard keeps batches back because `batches` is full.
    kept_back: AtomicBool,
    sleepers: AtomicUsize,
    /// Calls of [`PollGroup::wake`], and how many of them have ended a wait.
    wakes: AtomicU64,
    heard: AtomicU64,
    /// Nothing more is added: nobody waits any more. Set under the lock of `sleep`.
    ended: AtomicBool,
    sleep: sync::Mutex<()>,
    awake: sync::Condvar,
    dropped: AtomicU64,
    limit: usize,
    links: Weak<Vec<Arc<ShardLink>>>,
    lists: ArrayQueue<Lists>,
    /// Without threads, where nobody polls while a receiver sleeps: it must not. Batches that are not
    /// finished, in all groups: while there are some, nobody waits for more.
    threadless: Option<Arc<AtomicUsize>>,
    /// What is called instead of collecting batches.
    callbacks: Option<Arc<dyn Callbacks>>,
}

/// Messages and events of some connections of a queued engine, to be received by any thread. If
/// several threads receive from one group, each gets whole stretches in order.
#[derive(Clone)]
pub struct PollGroup {
    inner: Arc<Inner>,
    pub(super) index: u32,
}

impl PollGroup {
    pub(super) fn new(
        index: u32,
        limit: usize,
        links: Weak<Vec<Arc<ShardLink>>>,
        threadless: Option<Arc<AtomicUsize>>,
        callbacks: Option<Arc<dyn Callbacks>>,
    ) -> Self {
        let inner = Inner {
            batches: ArrayQueue::new(BATCHES),
            begun: ArrayQueue::new(BEGUN),
            begun_too: SegQueue::new(),
            waiting: CachePadded::new(AtomicUsize::new(0)),
            kept_back: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            wakes: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            sleep: sync::Mutex::new(()),
            awake: sync::Condvar::new(),
            dropped: AtomicU64::new(0),
            limit,
            links,
            lists: ArrayQueue::new(POOLED),
            threadless,
            callbacks,
        };
        Self { inner: Arc::new(inner), index }
    }

    /// Appends at most `max` messages and events to `out`, and returns how many. If there are
    /// none, waits for some for at most `timeout` (`None` = as long as it takes). In an engine
    /// without threads it never waits: call [`poll`](super::QueuedEngine::poll) first. After
    /// [`shutdown`](super::QueuedEngine::shutdown) nobody waits either.
    pub fn recv_many(
        &self,
        out: &mut Vec<Received>,
        max: usize,
        timeout: Option<Duration>,
    ) -> usize {
        let heard = self.inner.heard.load(Ordering::SeqCst);
        let taken = self.take(out, max);
        let at_once = self.inner.threadless.is_some() || timeout == Some(Duration::ZERO);
        if taken > 0 || max == 0 || at_once {
            return taken;
        }
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            if !self.sleep(deadline, heard) {
                return self.take(out, max);
            }
            let taken = self.take(out, max);
            if taken > 0 {
                return taken;
            }
        }
    }

    /// Whether its connections call callbacks, and nothing is ever received from it.
    pub fn has_callbacks(&self) -> bool {
        self.inner.callbacks.is_some()
    }

    /// Unreliable messages that were dropped because the group was not emptied in time.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Bytes of messages that wait to be received.
    pub fn waiting_bytes(&self) -> usize {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    /// Ends the wait of every thread that receives from this group, or of the next one.
    pub fn wake(&self) {
        let _asleep = self.inner.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.wakes.fetch_add(1, Ordering::SeqCst);
        self.inner.awake.notify_all();
    }

    /// The engine has ended: every wait is over, and none begins.
    pub(super) fn end(&self) {
        let _asleep = self.inner.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.ended.store(true, Ordering::SeqCst);
        self.inner.awake.notify_all();
    }

    /// Threads that sleep, or look once more before they do.
    #[cfg(all(test, loom))]
    pub(super) fn sleepers(&self) -> usize {
        self.inner.sleepers.load(Ordering::SeqCst)
    }

    /// `false` when the deadline has passed, or the group has ended or was woken more often than the
    /// `heard` times that had ended a wait when this one began.
    fn sleep(&self, deadline: Option<Instant>, heard: u64) -> bool {
        let inner = &*self.inner;
        let guard = inner.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        let wakes = inner.wakes.load(Ordering::SeqCst);
        if inner.ended.load(Ordering::SeqCst) || wakes != heard {
            inner.heard.store(wakes, Ordering::SeqCst);
            return false;
        }
        inner.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut in_time = true;
        // Whoever adds a batch after this look sees a sleeper, and takes the lock to wake it.
        let empty = inner.batches.is_empty() && inner.begun.is_empty();
        if empty && inner.begun_too.is_empty() {
            match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                None => drop(inner.awake.wait(guard)),
                Some(Duration::ZERO) => in_time = false,
                Some(left) => drop(inner.awake.wait_timeout(guard, left)),
            }
        }
        inner.sleepers.fetch_sub(1, Ordering::SeqCst);
        in_time
    }

    fn next_batch(&self) -> Option<Batch> {
        let inner = &*self.inner;
        inner.begun.pop().or_else(|| inner.begun_too.pop()).or_else(|| inner.batches.pop())
    }

    fn take(&self, out: &mut Vec<Received>, max: usize) -> usize {
        let mut taken = 0;
        while taken < max {
            let Some(mut batch) = self.next_batch() else { break };
            taken += batch.take(out, max - taken);
            if batch.lists.items.is_empty() {
                self.finish(batch);
            } else {
                self.put_back(batch);
            }
        }
        taken
    }

    /// Leaves the rest of a batch to whoever receives next.
    fn put_back(&self, batch: Batch) {
        if let Err(batch) = self.inner.begun.push(batch) {
            self.inner.begun_too.push(batch);
        }
        self.wake_one();
    }

    fn finish(&self, batch: Batch) {
        self.inner.waiting.fetch_sub(batch.bytes, Ordering::Relaxed);
        if let Some(unfinished) = &self.inner.threadless {
            unfinished.fetch_sub(1, Ordering::Relaxed);
        }
        let _ = self.inner.lists.push(batch.lists);
        if self.inner.kept_back.load(Ordering::SeqCst)
            && self.inner.kept_back.swap(false, Ordering::SeqCst)
            && let Some(links) = self.inner.links.upgrade()
        {
            for link in links.iter() {
                link.poke();
            }
        }
    }

    /// Adds a batch, and wakes a sleeping receiver.
    fn add(&self, batch: Batch) -> Result<(), Batch> {
        self.inner.batches.push(batch)?;
        if let Some(unfinished) = &self.inner.threadless {
            unfinished.fetch_add(1, Ordering::Relaxed);
        }
        self.wake_one();
        Ok(())
    }

    /// There is something to receive: one thread that waits for it need not any longer.
    fn wake_one(&self) {
        fence(Ordering::SeqCst);
        if self.inner.sleepers.load(Ordering::Relaxed) > 0 {
            let _asleep = self.inner.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.awake.notify_one();
        }
    }
}

impl fmt::Debug for PollGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollGroup").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Batch {
    /// Moves up to `max` items into `out`, and returns the credit of what was copied into the
    /// batch: its place in the receive buffers is long free.
    fn take(&mut self, out: &mut Vec<Received>, max: usize) -> usize {
        let mut taken = 0;
        let mut run: Option<(Channel, u64)> = None;
        let mut credit = |channel: Channel, len: u32| match &mut run {
            Some((last, bytes)) if *last == channel => *bytes += u64::from(len),
            other => {
                if let Some((last, bytes)) = other.replace((channel, u64::from(len))) {
                    self.link.release(last, bytes);
                }
            }
        };
        while taken < max {
            let Some(item) = self.lists.items.pop_front() else { break };
            taken += 1;
            out.push(match item {
                Item::Message { channel, kind, start, len } => {
                    credit(channel, len);
                    let data = Retained::part(self.block.clone(), start, len);
                    Received::Message(Message { channel, kind, data })
                }
                Item::Data { channel, start, len } => {
                    credit(channel, len);
                    let data = Retained::part(self.block.clone(), start, len);
                    Received::Event(Event::Data { channel, data })
                }
                Item::Large { channel, kind } => {
                    let Some(data) = self.lists.kept.pop_front() else { continue };
                    match kind {
                        ChannelKind::Bytes => Received::Event(Event::Data { channel, data }),
                        kind => Received::Message(Message { channel, kind, data }),
                    }
                }
                Item::Packet { pairing, start, len } => {
                    let data = Retained::part(self.block.clone(), start, len);
                    Received::Event(Event::Relayed { pairing, data })
                }
                Item::Writable { channel } => Received::Event(Event::Writable { channel }),
                Item::Receipt { channel, token } => {
                    Received::Event(Event::Receipt { channel, token })
                }
                Item::Event(event) => Received::Event(*event),
            });
        }
        if let Some((channel, bytes)) = run {
            self.link.release(channel, bytes);
        }
        taken
    }
}

/// A shard's end of a group.
pub(super) struct Writer {
    group: PollGroup,
    link: Arc<ShardLink>,
    lists: Lists,
    bytes: Vec<u8>,
    blocks: BlockPool,
    /// Batches that found the group's queue full. Reliable data in them is bounded by the credit
    /// that is not returned before it is received.
    kept_back: VecDeque<Batch>,
    /// A group with callbacks has these instead of batches.
    told: Option<Told>,
}

/// What a group with callbacks has on one shard.
struct Told {
    /// Away while they run: sharing them would cost writes to a counter that all shards have.
    callbacks: Option<Arc<dyn Callbacks>>,
    events: VecDeque<Event>,
}

impl Writer {
    pub(super) fn new(group: PollGroup, link: Arc<ShardLink>) -> Self {
        let callbacks = group.inner.callbacks.clone();
        Self {
            told: callbacks.map(|c| Told { callbacks: Some(c), events: VecDeque::new() }),
            group,
            link,
            lists: Lists { items: VecDeque::new(), kept: VecDeque::new() },
            bytes: Vec::new(),
            blocks: BlockPool::new(POOLED),
            kept_back: VecDeque::new(),
        }
    }

    /// Index of the group.
    pub(super) const fn index(&self) -> usize {
        self.group.index as usize
    }

    #[inline]
    pub(super) fn has_events(&self) -> bool {
        self.told.as_ref().is_some_and(|told| !told.events.is_empty())
    }

    pub(super) fn event_count(&self) -> usize {
        self.told.as_ref().map_or(0, |told| told.events.len())
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.told.as_mut()?.events.pop_front()
    }

    /// The callbacks, until they are returned, and whether there is no event to tell before.
    #[inline]
    pub(super) fn lend_callbacks(&mut self) -> Option<(Arc<dyn Callbacks>, bool)> {
        let told = self.told.as_mut()?;
        Some((told.callbacks.take()?, told.events.is_empty()))
    }

    #[inline]
    pub(super) fn return_callbacks(&mut self, callbacks: Arc<dyn Callbacks>) {
        if let Some(told) = &mut self.told {
            told.callbacks = Some(callbacks);
        }
    }

    /// The shard has ended: tells what is left, without a shard to call back into.
    pub(super) fn tell_the_rest(&mut self) {
        let Some((callbacks, _)) = self.lend_callbacks() else { return };
        while let Some(event) = self.next_event() {
            tell_without_shard(&*callbacks, event);
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        if let Some(told) = &mut self.told {
            return told.events.push_back(event);
        }
        self.push(match event {
            Event::Writable { channel } => Item::Writable { channel },
            Event::Receipt { channel, token } => Item::Receipt { channel, token },
            event => Item::Event(Box::new(event)),
        });
    }

    /// Copies a message into the batch. Unreliable ones are dropped when too much waits.
    #[inline]
    pub(super) fn message(&mut self, channel: Channel, kind: ChannelKind, bytes: &[u8]) {
        if kind == ChannelKind::Datagrams && !self.has_room(bytes.len()) {
            self.link.release(channel, bytes.len() as u64);
            return;
        }
        let start = self.copy(bytes);
        self.push(Item::Message { channel, kind, start, len: bytes.len() as u32 });
    }

    /// Copies a relayed packet into the batch, unless too much waits.
    pub(super) fn packet(&mut self, pairing: u64, bytes: &[u8]) {
        if let Some(told) = &mut self.told {
            let data = Retained::copy(bytes);
            return told.events.push_back(Event::Relayed { pairing, data });
        }
        if self.has_room(bytes.len()) {
            let start = self.copy(bytes);
            self.push(Item::Packet { pairing, start, len: bytes.len() as u32 });
        }
    }

    /// Whether the application has fallen so far behind that its peers may ask for nothing new.
    pub(super) fn is_backed_up(&self) -> bool {
        self.kept_back.len() >= KEPT_BACK
    }

    /// Copies bytes of a stream into the batch, together with those before them.
    pub(super) fn data(&mut self, channel: Channel, bytes: &[u8]) {
        let start = self.copy(bytes);
        if let Some(Item::Data { channel: last, start: first, len }) = self.lists.items.back_mut()
            && *last == channel
            && *first + *len == start
        {
            *len += bytes.len() as u32;
            return self.hand_over_if_full();
        }
        self.push(Item::Data { channel, start, len: bytes.len() as u32 });
    }

    /// Bytes that are kept elsewhere.
    pub(super) fn large(&mut self, channel: Channel, kind: ChannelKind, data: Retained) {
        self.lists.kept.push_back(data);
        self.push(Item::Large { channel, kind });
    }

    /// Whether batches wait for a place in the group.
    #[cfg(all(test, loom))]
    pub(super) fn keeps_back(&self) -> bool {
        !self.kept_back.is_empty()
    }

    fn has_room(&self, len: usize) -> bool {
        let waiting = self.group.inner.waiting.load(Ordering::Relaxed) + self.bytes.len() + len;
        let room = waiting <= self.group.inner.limit && self.kept_back.is_empty();
        if !room {
            self.group.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    fn copy(&mut self, bytes: &[u8]) -> u32 {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        start
    }

    #[inline]
    fn push(&mut self, item: Item) {
        self.lists.items.push_back(item);
        self.hand_over_if_full();
    }

    #[inline]
    fn hand_over_if_full(&mut self) {
        if self.lists.items.len() >= BATCH_ITEMS || self.bytes.len() >= BATCH_BYTES {
            self.hand_over();
        }
    }

    /// Gives what was collected to the group.
    pub(super) fn hand_over(&mut self) {
        self.retry();
        if self.lists.items.is_empty() {
            return;
        }
        let inner = &self.group.inner;
        let next = inner.lists.pop().unwrap_or_else(|| Lists::like(&self.lists));
        let lists = std::mem::replace(&mut self.lists, next);
        let waiting = self.bytes.len();
        inner.waiting.fetch_add(waiting, Ordering::Relaxed);
        let block = self.blocks.swap(&mut self.bytes);
        if self.bytes.capacity() == 0 {
            // The next batch will need about as much.
            self.bytes.reserve(waiting);
        }
        let batch = Batch { link: self.link.clone(), lists, block, bytes: waiting };
        if self.kept_back.is_empty() {
            if let Err(batch) = self.group.add(batch) {
                self.keep_back(batch);
            }
        } else {
            self.keep_back(batch);
        }
    }

    fn keep_back(&mut self, batch: Batch) {
        self.kept_back.push_back(batch);
        self.group.inner.kept_back.store(true, Ordering::SeqCst);
        // The receiver may have emptied the queue before it could see the flag.
        self.retry();
    }

    /// Tries again with what was kept back.
    fn retry(&mut self) {
        while let Some(batch) = self.kept_back.pop_front() {
            if let Err(batch) = self.group.add(batch) {
                self.kept_back.push_front(batch);
                self.group.inner.kept_back.store(true, Ordering::SeqCst);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;
    use crate::handle::Conn;
    use crate::shard::mailbox::{Mailbox, Port};
    use trunkline_proto::ids::ChannelKey;

    fn rig(limit: usize) -> (PollGroup, Writer, Arc<ShardLink>, Arc<Vec<Arc<ShardLink>>>) {
        let link = Arc::new(ShardLink::new(
            0,
            Arc::new(Mailbox::new(16)),
            Arc::new(Port::new(1)),
            &EngineConfig::default(),
        ));
        let links = Arc::new(vec![link.clone()]);
        let group = PollGroup::new(0, limit, Arc::downgrade(&links), None, None);
        let writer = Writer::new(group.clone(), link.clone());
        (group, writer, link, links)
    }

    fn channel(link: &ShardLink, step: u64) -> Channel {
        let (slot, life) = link.channels.take().unwrap();
        let conn = Conn::from_bits(77);
        let cell = link.channels.get(slot).unwrap();
        cell.begin(conn.to_bits(), 0);
        cell.credit_step.store(step, Ordering::SeqCst);
        Channel::new(conn, ChannelKey { slot, life })
    }

    fn drain(group: &PollGroup, max: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        group.recv_many(&mut out, max, Some(Duration::ZERO));
        out.into_iter()
            .map(|r| match r {
                Received::Message(m) => m.data.to_vec(),
                Received::Event(Event::Data { data, .. }) => data.to_vec(),
                Received::Event(_) => b"event".to_vec(),
            })
            .collect()
    }

    #[test]
    fn order_is_kept_across_parts_of_batches() {
        let (group, mut writer, link, _links) = rig(1 << 20);
        let ch = channel(&link, 1 << 20);
        for i in 0..10u8 {
            writer.message(ch, ChannelKind::Messages, &[i]);
            if i % 4 == 3 {
                writer.hand_over();
            }
        }
        writer.event(Event::Eof { channel: ch });
        writer.hand_over();
        let mut all = Vec::new();
        loop {
            let part = drain(&group, 3);
            if part.is_empty() {
                break;
            }
            assert!(part.len() <= 3);
            all.extend(part);
        }
        let mut expected: Vec<Vec<u8>> = (0..10u8).map(|i| vec![i]).collect();
        expected.push(b"event".to_vec());
        assert_eq!(all, expected);
        assert_eq!(group.waiting_bytes(), 0);
    }

    #[test]
    fn stream_bytes_flow_together() {
        let (group, mut writer, link, _links) = rig(1 << 20);
        let (a, b) = (channel(&link, 1 << 20), channel(&link, 1 << 20));
        writer.data(a, b"one ");
        writer.data(a, b"two");
        writer.data(b, b"other");
        writer.data(a, b" three");
        writer.hand_over();
        assert_eq!(drain(&group, 10), [&b"one two"[..], b"other", b" three"]);
    }

    #[test]
    fn taking_returns_credit_in_steps() {
        let (group, mut writer, link, _links) = rig(1 << 20);
        let ch = channel(&link, 100);
        for _ in 0..9 {
            writer.message(ch, ChannelKind::Messages, &[0; 11]);
        }
        writer.hand_over();
        drain(&group, 100);
        assert!(link.credits.is_empty(), "99 bytes are not worth a wake");
        writer.message(ch, ChannelKind::Messages, &[0; 11]);
        writer.hand_over();
        drain(&group, 100);
        assert_eq!(link.credits.pop(), Some(ch.key().slot));
        assert!(link.credits.is_empty());
        let cell = link.channels.get(ch.key().slot).unwrap();
        assert_eq!(cell.released.sum(), 110);
    }

    #[test]
    fn unreliable_messages_are_dropped_and_counted_when_nobody_receives() {
        let (group, mut writer, link, _links) = rig(1000);
        let ch = channel(&link, 100);
        for _ in 0..20 {
            writer.message(ch, ChannelKind::Datagrams, &[0; 100]);
        }
        writer.hand_over();
        assert_eq!(group.dropped(), 10);
        assert_eq!(drain(&group, 100).len(), 10);
        writer.message(ch, ChannelKind::Datagrams, &[0; 100]);
        writer.hand_over();
        assert_eq!(drain(&group, 100).len(), 1);
    }

    #[test]
    fn reliable_messages_are_kept_back_and_come_when_there_is_room() {
        let (group, mut writer, link, _links) = rig(1000);
        let ch = channel(&link, u64::MAX);
        let total = BATCHES + 10;
        for i in 0..total {
            writer.message(ch, ChannelKind::Messages, &(i as u32).to_be_bytes());
            writer.hand_over();
        }
        assert_eq!(writer.kept_back.len(), 10);
        let first = drain(&group, 20);
        assert_eq!(first.len(), 20);
        assert!(link.mailbox.commands.pop().is_some(), "the shard is poked");
        writer.hand_over();
        assert!(writer.kept_back.is_empty());
        let mut all = first;
        all.extend(drain(&group, usize::MAX));
        let expected: Vec<Vec<u8>> = (0..total as u32).map(|i| i.to_be_bytes().to_vec()).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_sleeping_receiver_is_woken() {
        let (group, mut writer, link, _links) = rig(1000);
        let ch = channel(&link, 100);
        let receiver = {
            let group = group.clone();
            std::thread::spawn(move || {
                let mut out = Vec::new();
                let start = Instant::now();
                let n = group.recv_many(&mut out, 10, Some(Duration::from_secs(20)));
                (n, start.elapsed())
            })
        };
        while group.inner.sleepers.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        writer.message(ch, ChannelKind::Messages, b"x");
        writer.hand_over();
        let (n, took) = receiver.join().unwrap();
        assert_eq!(n, 1);
        assert!(took < Duration::from_secs(10));
    }

    #[test]
    fn a_wake_ends_a_wait_without_anything() {
        let (group, _writer, _link, _links) = rig(1000);
        let receiver = {
            let group = group.clone();
            std::thread::spawn(move || group.recv_many(&mut Vec::new(), 10, None))
        };
        while group.inner.sleepers.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        group.wake();
        assert_eq!(receiver.join().unwrap(), 0);
    }

    #[test]
    fn a_wake_before_a_wait_ends_the_next_one() {
        let (group, mut writer, link, _links) = rig(1000);
        group.wake();
        group.wake();
        let (mut out, long) = (Vec::new(), Some(Duration::from_secs(60)));
        let start = Instant::now();
        assert_eq!(group.recv_many(&mut out, 10, long), 0);
        assert!(start.elapsed() < Duration::from_secs(30));
        // That was one wait for both; and what is there is taken all the same.
        group.wake();
        writer.message(channel(&link, 100), ChannelKind::Messages, b"x");
        writer.hand_over();
        assert_eq!(group.recv_many(&mut out, 10, long), 1);
        assert_eq!(group.recv_many(&mut out, 10, long), 0);
        assert_eq!(group.recv_many(&mut out, 10, Some(Duration::from_millis(1))), 0);
    }

    #[test]
    fn nobody_waits_after_the_end() {
        let (group, _writer, _link, _links) = rig(1000);
        let receiver = {
            let group = group.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    assert_eq!(group.recv_many(&mut Vec::new(), 10, None), 0);
                }
            })
        };
        while group.inner.sleepers.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        group.end();
        receiver.join().unwrap();
    }

    #[test]
    fn a_wait_ends_in_time_without_anything() {
        let (group, _writer, _link, _links) = rig(1000);
        let mut out = Vec::new();
        assert_eq!(group.recv_many(&mut out, 10, Some(Duration::from_millis(20))), 0);
    }

    #[test]
    fn an_item_is_small() {
        assert!(size_of::<Item>() <= 32, "{}", size_of::<Item>());
    }
}
