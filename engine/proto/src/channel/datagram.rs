//! Unreliable messages: the queue of those to be sent, and the putting together of fragments.

use super::pool::{MAX_BLOCK, Pool};
use crate::error::PeerMisbehaved;
use crate::limits::{FRAME_OVERHEAD, MAX_FRAGMENTS};
use crate::time::Instant;
use crate::wire::frame::{DatagramHeader, write_datagram_header};
use std::collections::VecDeque;

/// What a queued message costs besides its bytes.
const ITEM_COST: u64 = 24;
/// What a message that is being put together costs besides its bytes.
const PARTIAL_COST: u64 = 192;
/// Messages of one channel that are put together at once.
const MAX_PARTIALS: usize = 64;
/// Room that fragments leave in a packet for an acknowledgement, in bytes.
const FRAGMENT_SLACK: usize = 64;
/// A message without expiry.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

#[derive(Debug)]
struct Item {
    deadline: Instant,
    len: u32,
    /// Its bytes are the first ones of a block.
    starts_block: bool,
}

/// A message of which some fragments were sent.
#[derive(Clone, Copy, Debug)]
struct Progress {
    id: u32,
    size: usize,
    index: u8,
    count: u8,
}

/// Messages of one channel that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct DatagramSend {
    items: VecDeque<Item>,
    blocks: VecDeque<Vec<u8>>,
    /// Index in the first block of the first message.
    read: usize,
    /// Bytes with the cost of each message.
    bytes: u64,
    progress: Option<Progress>,
}

/// What became of a turn of a datagram queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// A frame of this many bytes was written.
    Frame(usize),
    /// The next frame does not fit into what is left of the packet.
    Full,
    /// Nothing is queued.
    Empty,
}

impl DatagramSend {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Queued messages.
    pub(super) fn len(&self) -> u64 {
        self.items.len() as u64
    }

    /// Queued bytes with their cost.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops everything.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        self.items.clear();
        while let Some(block) = self.blocks.pop_front() {
            pool.give_block(block);
        }
        (self.read, self.bytes, self.progress) = (0, 0, None);
    }

    /// Bytes of memory that an empty queue holds.
    pub(super) fn list_bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>() + self.blocks.capacity() * size_of::<Vec<u8>>()
    }

    /// Appends a message; the oldest ones go until no more than `limit` bytes are queued. Gives how
    /// many went.
    pub(super) fn push(
        &mut self,
        data: &[u8],
        deadline: Option<Instant>,
        limit: u64,
        pool: &mut Pool,
    ) -> u64 {
        let cost = data.len() as u64 + ITEM_COST;
        let mut dropped = 0;
        while self.bytes + cost > limit && !self.items.is_empty() {
            self.pop(pool);
            dropped += 1;
        }
        let room = self.blocks.back().map_or(0, |b| b.capacity() - b.len());
        let starts_block = self.blocks.is_empty() || room < data.len();
        if starts_block {
            let want = self.blocks.back().map_or(0, |b| b.capacity() * 4);
            self.blocks.push_back(pool.block(data.len().max(want).min(MAX_BLOCK)));
        }
        if let Some(block) = self.blocks.back_mut() {
            block.extend_from_slice(data);
        }
        let deadline = deadline.unwrap_or(NEVER);
        self.items.push_back(Item { deadline, len: data.len() as u32, starts_block });
        self.bytes += cost;
        dropped
    }

    fn pop(&mut self, pool: &mut Pool) {
        let Some(item) = self.items.pop_front() else { return };
        self.progress = None;
        self.bytes -= u64::from(item.len) + ITEM_COST;
        self.read += item.len as usize;
        if self.items.front().is_none_or(|next| next.starts_block) {
            self.read = 0;
            if let Some(block) = self.blocks.pop_front() {
                pool.give_block(block);
            }
        }
    }

    /// Drops messages whose time is over; gives how many.
    #[inline]
    pub(super) fn expire(&mut self, now: Instant, pool: &mut Pool) -> u64 {
        let mut expired = 0;
        while self.items.front().is_some_and(|item| item.deadline <= now) {
            self.pop(pool);
            expired += 1;
        }
        expired
    }

    /// Writes the next frame into `buf`, the rest of a packet whose payload has room for
    /// `payload` bytes in all. `next_id` counts messages.
    pub(super) fn fill(
        &mut self,
        buf: &mut [u8],
        channel: u16,
        payload: usize,
        next_id: &mut u64,
        pool: &mut Pool,
    ) -> Filled {
        let Some(item) = self.items.front() else { return Filled::Empty };
        let len = item.len as usize;
        if self.progress.is_none() && len + FRAME_OVERHEAD > payload.max(buf.len()) {
            self.begin(len, payload, next_id);
        }
        let Some(progress) = self.progress else {
            let Some(frame) = buf.get_mut(..len + FRAME_OVERHEAD) else { return Filled::Full };
            let header = DatagramHeader { id: *next_id as u32, index: 0, count: 1 };
            *next_id += 1;
            self.write(frame, channel, header, 0);
            self.pop(pool);
            return Filled::Frame(len + FRAME_OVERHEAD);
        };
        if progress.size + FRAME_OVERHEAD > payload.max(buf.len()) {
            // Packets became smaller than the fragments: the rest could never be sent.
            self.pop(pool);
            return self.fill(buf, channel, payload, next_id, pool);
        }
        let at = progress.size * usize::from(progress.index);
        let n = progress.size.min(len - at);
        let Some(frame) = buf.get_mut(..n + FRAME_OVERHEAD) else { return Filled::Full };
        let Progress { id, index, count, .. } = progress;
        self.write(frame, channel, DatagramHeader { id, index, count }, at);
        if index + 1 == count {
            self.pop(pool);
        } else {
            self.progress = Some(Progress { index: index + 1, ..progress });
        }
        Filled::Frame(n + FRAME_OVERHEAD)
    }

    /// Cuts the first message into fragments.
    fn begin(&mut self, len: usize, payload: usize, next_id: &mut u64) {
        let room = payload.saturating_sub(FRAME_OVERHEAD + FRAGMENT_SLACK).max(1);
        let size = room.max(len.div_ceil(MAX_FRAGMENTS));
        let count = len.div_ceil(size) as u8;
        self.progress = Some(Progress { id: *next_id as u32, size, index: 0, count });
        *next_id += 1;
    }

    /// Writes header and bytes of a frame of the first message, from byte `at` of it.
    fn write(&self, frame: &mut [u8], channel: u16, header: DatagramHeader, at: usize) {
        let n = frame.len() - FRAME_OVERHEAD;
        write_datagram_header(frame, channel, header, n);
        let from = self.read + at;
        if let Some(bytes) = self.blocks.front().and_then(|block| block.get(from..from + n)) {
            frame[FRAME_OVERHEAD..].copy_from_slice(bytes);
        }
    }
}

/// A message of which some fragments have arrived.
#[derive(Debug)]
struct Partial {
    id: u32,
    count: u8,
    arrived: u16,
    bits: [u64; 4],
    /// Bytes of each fragment but the last; 0 while only the last one is here.
    size: usize,
    data: Vec<u8>,
    /// The last fragment, when it came before another.
    tail: Vec<u8>,
    deadline: Instant,
    charged: u64,
}

/// Messages of one channel that are being put together.
#[derive(Debug, Default)]
pub(super) struct DatagramRecv {
    partials: Vec<Partial>,
}

/// Bound of the memory of all reassemblies of a connection.
#[derive(Debug)]
pub(super) struct ReassemblyBudget {
    pub used: u64,
    pub limit: u64,
    pub max_message: u64,
}

const BAD: PeerMisbehaved = PeerMisbehaved::Malformed("datagram fragment");

impl DatagramRecv {
    pub(super) const fn is_empty(&self) -> bool {
        self.partials.is_empty()
    }

    /// When the oldest partial message is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.partials.first().map(|p| p.deadline)
    }

    /// Takes one fragment of a message of several; gives the message when it is complete.
    pub(super) fn receive(
        &mut self,
        header: DatagramHeader,
        body: &[u8],
        deadline: Instant,
        budget: &mut ReassemblyBudget,
        pool: &mut Pool,
    ) -> Result<Option<Vec<u8>>, PeerMisbehaved> {
        let at = if let Some(at) = self.partials.iter().rposition(|p| p.id == header.id) {
            at
        } else {
            if !self.admit(header, body, budget, pool)? {
                return Ok(None);
            }
            self.start(header, deadline, budget)
        };
        let partial = &mut self.partials[at];
        let complete = partial.add(header, body, budget, pool);
        match complete {
            Ok(false) => Ok(None),
            Ok(true) => {
                let mut partial = self.partials.remove(at);
                budget.used -= partial.charged;
                Ok(Some(core::mem::take(&mut partial.data)))
            }
            Err(Refusal::Budget) => {
                let partial = self.partials.remove(at);
                partial.free(budget, pool);
                Ok(None)
            }
            Err(Refusal::Misbehaved(e)) => Err(e),
        }
    }

    /// Makes room for one more message of at least the announced length; older ones of the channel
    /// go first.
    fn admit(
        &mut self,
        header: DatagramHeader,
        body: &[u8],
        budget: &mut ReassemblyBudget,
        pool: &mut Pool,
    ) -> Result<bool, PeerMisbehaved> {
        let last = header.index + 1 == header.count;
        let fragments = if last { 1 } else { u64::from(header.count) };
        let bytes = fragments * body.len() as u64;
        if bytes.saturating_sub(body.len() as u64) > budget.max_message {
            return Err(PeerMisbehaved::Limit("datagram size"));
        }
        while !self.partials.is_empty()
            && (self.partials.len() >= MAX_PARTIALS
                || budget.used + bytes + PARTIAL_COST > budget.limit)
        {
            self.partials.remove(0).free(budget, pool);
        }
        Ok(budget.used + bytes + PARTIAL_COST <= budget.limit)
    }

    fn start(
        &mut self,
        header: DatagramHeader,
        deadline: Instant,
        budget: &mut ReassemblyBudget,
    ) -> usize {
        budget.used += PARTIAL_COST;
        self.partials.push(Partial {
            id: header.id,
            count: header.count,
            arrived: 0,
            bits: [0; 4],
            size: 0,
            data: Vec::new(),
            tail: Vec::new(),
            deadline,
            charged: PARTIAL_COST,
        });
        self.partials.len() - 1
    }

    /// Gives up what is too old.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        budget: &mut ReassemblyBudget,
        pool: &mut Pool,
    ) -> u64 {
        let mut expired = 0;
        while self.partials.first().is_some_and(|p| p.deadline <= now) {
            self.partials.remove(0).free(budget, pool);
            expired += 1;
        }
        expired
    }

    /// Gives up messages for which `keep` says no.
    pub(super) fn retain(
        &mut self,
        keep: impl Fn(u32) -> bool,
        budget: &mut ReassemblyBudget,
        pool: &mut Pool,
    ) {
        let mut at = 0;
        while at < self.partials.len() {
            if keep(self.partials[at].id) {
                at += 1;
            } else {
                self.partials.remove(at).free(budget, pool);
            }
        }
    }
}

/// Why a fragment was not taken.
enum Refusal {
    Budget,
    Misbehaved(PeerMisbehaved),
}

impl Partial {
    fn free(self, budget: &mut ReassemblyBudget, pool: &mut Pool) {
        budget.used -= self.charged;
        pool.give_block(self.data);
        pool.give_block(self.tail);
    }

    fn charge(&mut self, bytes: usize, budget: &mut ReassemblyBudget) -> Result<(), Refusal> {
        let bytes = bytes as u64;
        if budget.used + bytes > budget.limit {
            return Err(Refusal::Budget);
        }
        budget.used += bytes;
        self.charged += bytes;
        Ok(())
    }

    /// Adds a fragment; `true` when the message is complete in `data`.
    fn add(
        &mut self,
        header: DatagramHeader,
        body: &[u8],
        budget: &mut ReassemblyBudget,
        pool: &mut Pool,
    ) -> Result<bool, Refusal> {
        if header.count != self.count {
            return Err(Refusal::Misbehaved(BAD));
        }
        let (word, bit) = (usize::from(header.index) / 64, 1u64 << (header.index % 64));
        if self.bits[word] & bit != 0 {
            return Ok(false);
        }
        let whole = usize::from(self.count) - 1;
        let last = usize::from(header.index) == whole;
        if last {
            if self.size != 0 && body.len() > self.size {
                return Err(Refusal::Misbehaved(BAD));
            }
            check_size(whole * self.size + body.len(), budget)?;
        } else if self.size == 0 {
            if self.tail.len() > body.len() {
                return Err(Refusal::Misbehaved(BAD));
            }
            check_size(whole * body.len() + self.tail.len(), budget)?;
            self.charge(usize::from(self.count) * body.len(), budget)?;
            self.size = body.len();
            self.data = pool.block(usize::from(self.count) * self.size);
        } else if body.len() != self.size {
            return Err(Refusal::Misbehaved(BAD));
        }
        self.bits[word] |= bit;
        self.arrived += 1;
        let complete = self.arrived == u16::from(self.count);
        if last && !complete {
            if self.size == 0 {
                self.charge(body.len(), budget)?;
            }
            self.tail = pool.block(body.len());
            self.tail.extend_from_slice(body);
            return Ok(false);
        }
        if last {
            self.data.extend_from_slice(body);
        } else {
            self.put(usize::from(header.index) * self.size, body);
            if complete {
                let tail = core::mem::take(&mut self.tail);
                self.data.extend_from_slice(&tail);
                pool.give_block(tail);
            }
        }
        Ok(complete)
    }

    /// Copies a fragment to its place.
    fn put(&mut self, at: usize, body: &[u8]) {
        if at == self.data.len() {
            self.data.extend_from_slice(body);
            return;
        }
        if self.data.len() < at + body.len() {
            self.data.resize(at + body.len(), 0);
        }
        self.data[at..at + body.len()].copy_from_slice(body);
    }
}

fn check_size(len: usize, budget: &ReassemblyBudget) -> Result<(), Refusal> {
    if len as u64 > budget.max_message {
        return Err(Refusal::Misbehaved(PeerMisbehaved::Limit("datagram size")));
    }
    Ok(())
}

/// Whether message `id` is newer than `newest`, in serial-number arithmetic (RFC 1982).
#[inline]
pub(super) const fn is_newer(id: u32, newest: u32) -> bool {
    id.wrapping_sub(newest).cast_signed() > 0
}
