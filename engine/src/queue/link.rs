//! What the application's threads and one shard share: cells, the mailbox with memory for what it
//! carries, and lists of what needs the shard's attention.

use super::cells::{BLOCKED, CREDIT_TOLD, ChannelCell, ConnCell, LISTED, LOSSY, Table};
use super::command::{Call, Command, Pack};
use super::memory::{Copies, Packs};
use crate::handle::{Channel, Conn};
use crate::retained::Creditor;
use crate::shard::mailbox::{Mailbox, Port};
use crate::sync::SegQueue;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ChannelKey, ConnHandle};

/// What does not fit now.
const FULL: ApiError = ApiError::WouldBlock("the shard's mailbox");
/// The same, of what nobody waits for.
const DROPPED: ApiError = ApiError::Dropped("the shard's mailbox is full");
/// Channel cells of one shard for each connection that it may have, on average; a bound.
const CHANNELS_A_CONNECTION: u32 = 16;
/// One connection can have all of its channels.
const MIN_CHANNELS: u32 = 1 << 18;

/// Bytes of ended channels from which on their connection is told that they were taken. Far below
/// what any connection may receive.
const ENDED_STEP: u64 = 16 << 10;

/// See the module.
pub(super) struct ShardLink {
    pub shard: u8,
    pub conns: Table<ConnCell>,
    pub channels: Table<ChannelCell>,
    pub mailbox: Arc<Mailbox<Command>>,
    pub port: Arc<Port>,
    pub copies: Copies,
    pub packs: Packs,
    /// Channels that found the mailbox full. Each is here at most once.
    pub blocked: SegQueue<u32>,
    /// Channels with credit to return. Each is here at most once.
    pub credits: SegQueue<u32>,
    /// Connections with credit of ended channels to return. Each is here at most once.
    pub ended: SegQueue<u32>,
    /// Calls from other shards, which must neither wait for room nor get lost.
    pub handed: SegQueue<Call>,
    /// The shard knows that the lists hold something.
    poked: AtomicBool,
    /// Bytes of messages in the mailbox that are too long to lie in it.
    pub waiting_bytes: AtomicU64,
    /// Most bytes of one channel in the mailbox.
    channel_limit: u64,
    /// Most bytes in all.
    shard_limit: u64,
    failed: AtomicBool,
}

impl ShardLink {
    pub(super) fn new(
        shard: u8,
        mailbox: Arc<Mailbox<Command>>,
        port: Arc<Port>,
        config: &crate::config::EngineConfig,
    ) -> Self {
        let channels = config.max_connections.saturating_mul(CHANNELS_A_CONNECTION);
        Self {
            shard,
            // Closed connections linger beside new ones.
            conns: Table::new(config.max_connections.saturating_mul(2)),
            channels: Table::new(channels.max(MIN_CHANNELS)),
            mailbox,
            port,
            copies: Copies::new(
                config.connection.channel_send_buffer as usize + 2 * config.queue_channel_bytes,
            ),
            packs: Packs::new(),
            blocked: SegQueue::new(),
            credits: SegQueue::new(),
            ended: SegQueue::new(),
            handed: SegQueue::new(),
            poked: AtomicBool::new(false),
            waiting_bytes: AtomicU64::new(0),
            channel_limit: config.queue_channel_bytes as u64,
            shard_limit: config.queue_shard_bytes as u64,
            failed: AtomicBool::new(false),
        }
    }

    pub(super) const fn conn_name(&self, index: u32, life: u32) -> Conn {
        Conn::new(self.shard, ConnHandle { slot: index, generation: life })
    }

    /// The cell of a connection that the application may still use.
    pub(super) fn conn(&self, conn: Conn) -> Result<&ConnCell, ApiError> {
        let handle = conn.handle();
        self.conns
            .check(handle.slot, handle.generation)
            .filter(|cell| cell.is_open(handle.generation))
            .ok_or(ApiError::InvalidHandle)
    }

    /// The cell of a channel whose connection the application may still use.
    #[inline]
    pub(super) fn channel(&self, channel: Channel) -> Result<&ChannelCell, ApiError> {
        let ChannelKey { slot, life } = channel.key();
        let cell = self.channels.check(slot, life).ok_or(ApiError::InvalidHandle)?;
        if cell.conn.load(Ordering::Relaxed) != channel.conn().to_bits() {
            return Err(ApiError::InvalidHandle);
        }
        self.conn(channel.conn())?;
        Ok(cell)
    }

    /// Counts `len` bytes as queued on a channel, or says that it is full.
    pub(super) fn admit(&self, cell: &ChannelCell, len: usize) -> Result<(), ApiError> {
        let len = len as u64;
        // A message larger than the limit goes alone.
        let fits = |queued: u64| queued == 0 || queued + len <= self.channel_limit;
        loop {
            if fits(cell.queued.fetch_add(len, Ordering::SeqCst)) {
                return Ok(());
            }
            cell.queued.fetch_sub(len, Ordering::SeqCst);
            if cell.has(LOSSY) {
                return Err(ApiError::Dropped("the channel's queue is full"));
            }
            cell.raise(BLOCKED);
            // The shard may have emptied the queue before it could see the flag. It stays up: other
            // senders may count on it.
            if !fits(cell.queued.load(Ordering::SeqCst)) {
                return Err(ApiError::WouldBlock("the channel's queue"));
            }
        }
    }

    /// A channel is blocked for want of room elsewhere. Unless enough of it is on its way, after
    /// which it is told, the shard has to look at it.
    fn list(&self, slot: u32, cell: &ChannelCell) {
        if self.has_room(cell) && cell.raise(LISTED) {
            self.blocked.push(slot);
            self.poke();
        }
    }

    /// The next channel that found the mailbox full.
    pub(super) fn next_blocked(&self) -> Option<u32> {
        let index = self.blocked.pop()?;
        if let Some(cell) = self.channels.get(index) {
            cell.lower(LISTED);
        }
        Some(index)
    }

    fn has_room(&self, cell: &ChannelCell) -> bool {
        cell.queued.load(Ordering::SeqCst) <= self.channel_limit / 2
    }

    /// Whether a blocked channel has room, and has to be told so: it is not blocked any more.
    pub(super) fn unblock(&self, cell: &ChannelCell) -> bool {
        self.has_room(cell) && cell.lower(BLOCKED)
    }

    /// Hands a message to the shard, of which `waiting` bytes do not lie in the command itself.
    pub(super) fn push_data(
        &self,
        channel: Channel,
        cell: &ChannelCell,
        len: usize,
        waiting: usize,
        command: Command,
    ) -> Result<(), ApiError> {
        let waiting = waiting as u64;
        let before = self.waiting_bytes.fetch_add(waiting, Ordering::Relaxed);
        let full = waiting > 0 && before > 0 && before + waiting > self.shard_limit;
        let pushed = if full { Err(FULL) } else { self.push(command) };
        let Err(refused) = pushed else { return Ok(()) };
        self.waiting_bytes.fetch_sub(waiting, Ordering::Relaxed);
        cell.queued.fetch_sub(len as u64, Ordering::SeqCst);
        if refused != FULL {
            return Err(refused);
        }
        if cell.has(LOSSY) {
            return Err(DROPPED);
        }
        cell.raise(BLOCKED);
        self.list(channel.key().slot, cell);
        Err(FULL)
    }

    /// Hands over several messages; all of them are taken, or none.
    pub(super) fn push_many(
        &self,
        messages: &[(Channel, &[u8])],
        pack: Box<Pack>,
    ) -> Result<(), ApiError> {
        let count = pack.parts.len();
        let waiting = pack.bytes.len() as u64;
        let before = self.waiting_bytes.fetch_add(waiting, Ordering::Relaxed);
        let full = before > 0 && before + waiting > self.shard_limit;
        let pushed = if full || self.mailbox.commands.is_full() {
            self.packs.give_back(pack);
            Err(FULL)
        } else {
            self.push(Command::Many(pack))
        };
        let Err(mut refused) = pushed else { return Ok(()) };
        self.waiting_bytes.fetch_sub(waiting, Ordering::Relaxed);
        for (i, (channel, data)) in messages.iter().take(count).enumerate() {
            let Some(cell) = self.channels.get(channel.key().slot) else { continue };
            cell.queued.fetch_sub(data.len() as u64, Ordering::SeqCst);
            if i == 0 && refused == FULL {
                if cell.has(LOSSY) {
                    refused = DROPPED;
                } else {
                    cell.raise(BLOCKED);
                }
            }
            // Other senders may have been refused for what is taken back here.
            if cell.has(BLOCKED) {
                self.list(channel.key().slot, cell);
            }
        }
        Err(refused)
    }

    /// Hands over a command that is not data.
    pub(super) fn push(&self, command: Command) -> Result<(), ApiError> {
        if self.is_failed() {
            return Err(ApiError::NoConnection("the shard has failed"));
        }
        if self.mailbox.commands.push(command).is_err() {
            return Err(FULL);
        }
        self.port.notify();
        Ok(())
    }

    /// Makes the shard look at the lists.
    pub(super) fn poke(&self) {
        if !self.poked.swap(true, Ordering::SeqCst) {
            // A full mailbox is being emptied, which ends with a look at the lists.
            let _ = self.mailbox.commands.push(Command::Poke);
            self.port.notify();
        }
    }

    /// Hands over a call of another shard; `false` when this one has failed.
    pub(super) fn hand(&self, call: Call) -> bool {
        if self.is_failed() {
            return false;
        }
        self.handed.push(call);
        self.poke();
        true
    }

    /// The shard is about to look at the lists.
    pub(super) fn begin_service(&self) {
        self.poked.store(false, Ordering::SeqCst);
    }

    /// The next channel with credit to return.
    pub(super) fn next_credit(&self) -> Option<u32> {
        let index = self.credits.pop()?;
        if let Some(cell) = self.channels.get(index) {
            cell.lower(CREDIT_TOLD);
        }
        Some(index)
    }

    /// The application has taken `bytes` of a channel.
    pub(super) fn release(&self, channel: Channel, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let ChannelKey { slot, life } = channel.key();
        match self.channels.get(slot) {
            Some(cell) if cell.released.add(life, bytes).is_some() => self.tell_credit(slot, cell),
            _ => self.release_ended(channel.conn(), bytes),
        }
    }

    /// Tells the shard of a channel's credit if that has to be.
    pub(super) fn tell_credit(&self, slot: u32, cell: &ChannelCell) {
        if cell.released.sum() >= cell.credit_step.load(Ordering::SeqCst) && cell.raise(CREDIT_TOLD)
        {
            self.credits.push(slot);
            self.poke();
        }
    }

    /// The application has taken `bytes` of a channel that has ended. They still take their part of
    /// what the connection may receive.
    #[cold]
    fn release_ended(&self, conn: Conn, bytes: u64) {
        let ConnHandle { slot, generation } = conn.handle();
        let Some(cell) = self.conns.get(slot) else { return };
        let Some(sum) = cell.released.add(generation, bytes) else { return };
        if sum >= ENDED_STEP && sum - bytes.min(sum) < ENDED_STEP {
            self.ended.push(slot);
            self.poke();
        }
    }

    /// Ends the life of a channel. Gives the bytes that the application has taken and the connection
    /// does not know of; what is taken from now on counts for the connection at once.
    pub(super) fn end_channel(&self, slot: u32, life: u32) -> u64 {
        let bytes = self.channels.get(slot).map_or(0, |cell| cell.released.end(life));
        self.channels.give_back(slot, life);
        bytes
    }

    /// The next connection with credit of ended channels to return, and how much.
    pub(super) fn next_ended(&self) -> Option<(u32, u64)> {
        let index = self.ended.pop()?;
        let cell = self.conns.get(index);
        Some((index, cell.map_or(0, |cell| cell.released.take())))
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

impl Creditor for ShardLink {
    fn release(&self, channel: Channel, bytes: u64) {
        Self::release(self, channel, bytes);
    }
}
