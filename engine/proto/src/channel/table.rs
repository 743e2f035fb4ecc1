//! Slots of channels, ids on the wire, and what is remembered of former lives of an id.

use super::datagram::{DatagramRecv, DatagramSend};
use super::recv::RecvState;
use super::send::SendBuf;
use super::stream::ChannelHolding;
use crate::config::ChannelKind;
use crate::ids::{ChannelKey, Role};
use crate::limits::{CLIENT_FIRST_CHANNEL, HOST_FIRST_CHANNEL, TRANSPORT_CHANNEL};
use crate::place::Place;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Bits of [`Channel::flags`].
pub(super) mod flag {
    /// We opened it.
    pub const OURS: u32 = 1;
    /// In the queue of new data of its class.
    pub const IN_FRESH: u32 = 1 << 1;
    /// In the queue of lost data of its class.
    pub const IN_LOST: u32 = 1 << 2;
    /// In the queue of transport frames.
    pub const IN_TRANSPORT: u32 = 1 << 3;
    /// Waits for more data before it sends.
    pub const HELD: u32 = 1 << 4;
    /// Waits for early-data credit.
    pub const IN_EARLY: u32 = 1 << 5;
    /// Its turn in the round robin has begun.
    pub const TURN: u32 = 1 << 6;
    /// Small writes never wait.
    pub const NO_DELAY: u32 = 1 << 7;
    /// Nothing is sent before the answer.
    pub const WAIT_ANSWER: u32 = 1 << 8;
    /// Nothing is sent before our request or answer was acknowledged.
    pub const WAIT_ACK: u32 = 1 << 9;
    /// The application ended our direction.
    pub const FIN: u32 = 1 << 10;
    /// The EOF has to be sent (again).
    pub const FIN_PENDING: u32 = 1 << 11;
    /// The EOF was acknowledged.
    pub const FIN_ACKED: u32 = 1 << 12;
    /// Our direction was cancelled.
    pub const RESET: u32 = 1 << 13;
    /// A RESET has to be sent (again).
    pub const RESET_PENDING: u32 = 1 << 14;
    /// We refuse what the peer sends.
    pub const STOP: u32 = 1 << 15;
    /// A STOP has to be sent (again).
    pub const STOP_PENDING: u32 = 1 << 16;
    /// A CREDIT has to be sent (again).
    pub const CREDIT_PENDING: u32 = 1 << 17;
    /// Our direction is over and acknowledged.
    pub const SEND_DONE: u32 = 1 << 18;
    /// The peer's direction is over.
    pub const RECV_DONE: u32 = 1 << 19;
    /// A send gave `WouldBlock`.
    pub const BLOCKED: u32 = 1 << 20;
    /// Late datagrams are dropped.
    pub const LATEST: u32 = 1 << 21;
    /// Some frame of it was lost or may still be under way when all is over.
    pub const DIRTY: u32 = 1 << 22;
    /// It ended by a RESET or a STOP.
    pub const ENDED: u32 = 1 << 23;
    /// The peer was the first to do so.
    pub const ENDED_BY_PEER: u32 = 1 << 24;
    /// Counts against the limit of channels of the peer.
    pub const COUNTED: u32 = 1 << 25;
    /// Accepted; the sink does not know yet.
    pub const READY_PENDING: u32 = 1 << 26;
    /// Waits for reassembly budget.
    pub const WAIT_RESERVE: u32 = 1 << 27;
    /// Its minimum of credit came out of the shared pool.
    pub const POOL_MINIMUM: u32 = 1 << 28;
    /// The timer of its reassembly is set.
    pub const REASSEMBLY_TIMER: u32 = 1 << 29;
    /// Our EOF or RESET was sent at least once.
    pub const END_SENT: u32 = 1 << 30;
    /// Our request was never answered although we gave up.
    pub const UNANSWERED: u32 = 1 << 31;
}

/// Where a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The slot is free.
    Free,
    /// We asked for it.
    Requested,
    /// The peer asked for it and the application has not answered.
    Offered,
    /// Both sides agreed.
    Open,
    /// Over for the application; the peer has still something to learn or to tell.
    Closing,
}

/// One channel. Everything that only a busy channel needs is behind a pointer. In this order: the first
/// 64 bytes are what sending needs.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Channel {
    pub life: u32,
    pub flags: u32,
    pub id: u16,
    pub state: State,
    pub kind: ChannelKind,
    pub priority: u8,
    pub weight: u8,
    /// Bytes that it may still send in its turn; below zero when its last datagram was longer.
    pub deficit: i32,
    /// Early-data credit that it uses while it is not answered. Before the peer's limits are known:
    /// the longest message sent.
    pub early: u32,
    pub send: Option<Box<SendBuf>>,
    /// Stream bytes below this offset may be sent.
    pub send_limit: u64,
    /// Where our stream stands while `send` is empty; `datagrams`: the next message id.
    pub send_at: u64,
    /// Frames of packets with lower numbers belong to a former life of the id. In a free slot: the
    /// next free one.
    pub since: u64,
    /// `datagrams`: milliseconds after which an unsent message is dropped; 0 = never.
    pub expires_ms: u32,
    /// Code of our RESET.
    pub reset_code: u32,
    pub recv: RecvState,
    /// Plain stream link: what of it counts as held.
    pub held: ChannelHolding,
    pub datagram_send: Option<Box<DatagramSend>>,
    pub datagram_recv: Option<Box<DatagramRecv>>,
    pub name: Option<Box<str>>,
    /// Code of our STOP.
    pub stop_code: u32,
    /// Code of what ended it first.
    pub end_code: u32,
}

impl Channel {
    const fn free() -> Self {
        Self {
            life: 0,
            flags: 0,
            id: 0,
            state: State::Free,
            kind: ChannelKind::Bytes,
            priority: 0,
            weight: 1,
            deficit: 0,
            early: 0,
            expires_ms: 0,
            reset_code: 0,
            stop_code: 0,
            end_code: 0,
            since: 0,
            send_limit: 0,
            send_at: 0,
            name: None,
            send: None,
            recv: RecvState::new(),
            held: ChannelHolding::NONE,
            datagram_send: None,
            datagram_recv: None,
        }
    }

    /// Whether all bits of `mask` are set.
    #[inline]
    pub(super) const fn has(&self, mask: u32) -> bool {
        self.flags & mask == mask
    }

    /// Whether a bit of `mask` is set.
    #[inline]
    pub(super) const fn any(&self, mask: u32) -> bool {
        self.flags & mask != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, mask: u32) {
        self.flags |= mask;
    }

    #[inline]
    pub(super) const fn clear(&mut self, mask: u32) {
        self.flags &= !mask;
    }

    /// Whether the application still knows it.
    #[inline]
    pub(super) const fn is_known(&self) -> bool {
        matches!(self.state, State::Requested | State::Offered | State::Open)
    }

    /// Whether the peer, who opened it, may see it as over and its id as free: all that the peer
    /// sent has arrived, and so may have our own end.
    #[inline]
    pub(super) const fn awaits_next_life(&self) -> bool {
        self.has(flag::RECV_DONE | flag::END_SENT) && !self.has(flag::OURS)
    }

    /// Stream offset of the next byte that was never sent.
    pub(super) fn next_offset(&self) -> u64 {
        self.send.as_ref().map_or(self.send_at, |send| send.next())
    }

    /// Reliable bytes from the first unacknowledged one on.
    pub(super) fn unacked(&self) -> u64 {
        self.send.as_ref().map_or(0, |send| send.unacked())
    }

    /// Reliable bytes never sent.
    pub(super) fn unsent(&self) -> u64 {
        self.send.as_ref().map_or(0, |send| send.unsent())
    }

    /// Remembers what ended the channel first.
    pub(super) const fn ended(&mut self, code: u32, by_peer: bool) {
        if !self.has(flag::ENDED) {
            self.set(flag::ENDED | if by_peer { flag::ENDED_BY_PEER } else { 0 });
            self.end_code = code;
        }
    }
}

/// Spreads ids over a hash table.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u16(u16::from(*byte) ^ (self.0 as u16));
        }
    }

    #[inline]
    fn write_u16(&mut self, id: u16) {
        let h = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = h ^ (h >> 32);
    }
}

/// A map with channel ids as keys.
pub(super) type IdMap<T> = HashMap<u16, T, BuildHasherDefault<IdHasher>>;

/// A set of ids, one bit each, as long as the highest id in each half needs.
#[derive(Debug, Default)]
pub(super) struct IdSet {
    halves: [Vec<u64>; 2],
}

impl IdSet {
    const fn place(id: u16) -> (usize, usize, u64) {
        let low = (id & 0x7FFF) as usize;
        ((id >> 15) as usize, low / 64, 1 << (low % 64))
    }

    pub(super) fn insert(&mut self, id: u16) {
        let (half, word, bit) = Self::place(id);
        let words = &mut self.halves[half];
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= bit;
    }

    /// Takes the id out; whether it was in.
    pub(super) fn remove(&mut self, id: u16) -> bool {
        let (half, word, bit) = Self::place(id);
        match self.halves[half].get_mut(word) {
            Some(w) => {
                let was = *w & bit != 0;
                *w &= !bit;
                was
            }
            None => false,
        }
    }

    pub(super) fn contains(&self, id: u16) -> bool {
        let (half, word, bit) = Self::place(id);
        self.halves[half].get(word).is_some_and(|w| w & bit != 0)
    }
}

/// Channels in one piece of memory: most connections have one or two.
const CHUNK: usize = 2;
/// End of the list of free slots.
const NONE: u32 = u32::MAX;

/// All channels of one connection but CONTROL. Slots never move, and memory grows in small pieces.
#[derive(Debug)]
pub(super) struct Table {
    // Boxed, so that growing does not move channels.
    #[allow(clippy::vec_box)]
    chunks: Vec<Box<[Channel; CHUNK]>>,
    first_free: u32,
    ids: IdMap<u32>,
    /// The id that was looked up last, and its slot. Id 0 is never looked up.
    cache: (u16, u32),
    last_life: u32,
    /// First id of our half, number of ids in it, and where the search goes on.
    own_first: u16,
    own_next: u16,
    count: u32,
}

/// Ids of the half that starts at `first`.
const fn half_len(first: u16) -> u16 {
    if first == CLIENT_FIRST_CHANNEL {
        HOST_FIRST_CHANNEL - CLIENT_FIRST_CHANNEL
    } else {
        TRANSPORT_CHANNEL - HOST_FIRST_CHANNEL
    }
}

impl Table {
    /// Where the first channels lie.
    pub(super) fn place(&self) -> Place {
        Place::of_some(self.chunks.first().map(|chunk| &**chunk))
    }

    pub(super) fn new(role: Role) -> Self {
        let own_first = match role {
            Role::Client => CLIENT_FIRST_CHANNEL,
            Role::Host => HOST_FIRST_CHANNEL,
        };
        Self {
            chunks: Vec::new(),
            first_free: NONE,
            ids: IdMap::default(),
            cache: (0, 0),
            last_life: 0,
            own_first,
            own_next: own_first,
            count: 0,
        }
    }

    /// Slots in use.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Whether an id is of our half.
    #[inline]
    pub(super) const fn is_own(&self, id: u16) -> bool {
        (id >= HOST_FIRST_CHANNEL) == (self.own_first == HOST_FIRST_CHANNEL)
    }

    /// The next id of our half that is not in use.
    pub(super) fn free_own_id(&mut self) -> Option<u16> {
        let len = half_len(self.own_first);
        for _ in 0..len {
            let id = self.own_next;
            let offset = (id - self.own_first + 1) % len;
            self.own_next = self.own_first + offset;
            if !self.ids.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// Takes a slot for `id`, which is not in use.
    pub(super) fn insert(&mut self, id: u16) -> ChannelKey {
        if self.first_free == NONE {
            self.grow();
        }
        let slot = self.first_free;
        self.last_life = self.last_life.wrapping_add(1).max(1);
        let life = self.last_life;
        let channel = self.at(slot);
        let next = channel.since as u32;
        *channel = Channel { life, id, ..Channel::free() };
        self.first_free = next;
        self.ids.insert(id, slot);
        self.count += 1;
        ChannelKey { slot, life }
    }

    fn grow(&mut self) {
        let first = (self.chunks.len() * CHUNK) as u32;
        let chunk = core::array::from_fn(|i| Channel {
            since: if i + 1 == CHUNK { NONE.into() } else { u64::from(first) + i as u64 + 1 },
            ..Channel::free()
        });
        if self.chunks.len() == self.chunks.capacity() {
            // Grow by an eighth: the last doubling would waste too much.
            self.chunks.reserve_exact(self.chunks.len() / 8 + 1);
        }
        self.chunks.push(Box::new(chunk));
        self.first_free = first;
    }

    /// Gives a slot back.
    pub(super) fn remove(&mut self, slot: u32) {
        let next = u64::from(self.first_free);
        let channel = self.at(slot);
        let id = channel.id;
        *channel = Channel { since: next, ..Channel::free() };
        self.first_free = slot;
        self.ids.remove(&id);
        self.cache = (0, 0);
        self.count -= 1;
        if self.count == 0 {
            self.ids.shrink_to_fit();
        }
    }

    /// Gives the memory of all slots back; none is in use, and nothing may name one any more.
    pub(super) fn release(&mut self) {
        if self.count == 0 {
            self.chunks = Vec::new();
            self.first_free = NONE;
            self.cache = (0, 0);
        }
    }

    /// The channel in a slot that this module or a queue of slots named.
    #[inline]
    pub(super) fn at(&mut self, slot: u32) -> &mut Channel {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// The channel with this key, unless it is gone.
    #[inline]
    pub(super) fn get(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        let chunk = self.chunks.get_mut(key.slot as usize / CHUNK)?;
        let channel = &mut chunk[key.slot as usize % CHUNK];
        (channel.life == key.life && key.life != 0).then_some(channel)
    }

    /// The same, to read.
    pub(super) fn peek(&self, key: ChannelKey) -> Option<&Channel> {
        let chunk = self.chunks.get(key.slot as usize / CHUNK)?;
        let channel = &chunk[key.slot as usize % CHUNK];
        (channel.life == key.life && key.life != 0).then_some(channel)
    }

    /// The slot of an id.
    #[inline]
    pub(super) fn slot_of(&mut self, id: u16) -> Option<u32> {
        if self.cache.0 == id && id != 0 {
            return Some(self.cache.1);
        }
        let slot = *self.ids.get(&id)?;
        self.cache = (id, slot);
        Some(slot)
    }

    /// The key of an id.
    pub(super) fn key_of(&self, id: u16) -> Option<ChannelKey> {
        let slot = *self.ids.get(&id)?;
        let life = self.chunks[slot as usize / CHUNK][slot as usize % CHUNK].life;
        Some(ChannelKey { slot, life })
    }

    /// All slots in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ChannelKey, &Channel)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).enumerate().filter_map(|(slot, ch)| {
            let key = ChannelKey { slot: slot as u32, life: ch.life };
            (ch.life != 0).then_some((key, ch))
        })
    }

    /// The next channel of our own takes the lowest free id.
    #[cfg(test)]
    pub(super) const fn rewind_ids(&mut self) {
        self.own_next = self.own_first;
    }

    /// Number of slots, in use or not.
    pub(super) fn slots(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }
}
