//! Received bytes that outlive the call that brought them.

use crate::buf::Lease;
use crate::handle::Channel;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use trunkline_proto::payload::Payload;

/// Things of a pool that are looked at before a new one is made.
pub(crate) const TRIES: usize = 4;
/// Larger buffers are given back to the allocator.
const POOLED_BYTES: usize = 256 << 10;

/// Bytes that several [`Retained`] share.
#[derive(Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// Replaces the bytes; memory is used again if it is large enough.
    pub(crate) fn set(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of memory that it holds.
    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.bytes.len())
    }
}

/// Shared things of one shard that are used again when nobody else holds them any more.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    /// First in, first out: the one at the front has been out for longest. The pool's own share
    /// stays here while others hold the thing.
    things: VecDeque<Arc<T>>,
    most: usize,
}

impl<T> Pool<T> {
    /// Remembers `most` things.
    pub(crate) const fn new(most: usize) -> Self {
        Self { things: VecDeque::new(), most }
    }

    /// Takes out one that nobody holds.
    fn take(&mut self) -> Option<Arc<T>> {
        for _ in 0..TRIES.min(self.things.len()) {
            let mut thing = self.things.pop_front()?;
            if Arc::get_mut(&mut thing).is_some() {
                return Some(thing);
            }
            self.things.push_back(thing);
        }
        None
    }

    fn remember(&mut self, thing: &Arc<T>) {
        if self.things.len() < self.most {
            self.things.push_back(thing.clone());
        }
    }

    /// One that nobody else holds, made ready by `set`; `make` makes a new one if there is none.
    pub(crate) fn get(&mut self, make: impl FnOnce() -> T, set: impl FnOnce(&mut T)) -> Arc<T> {
        let mut thing = self.take().unwrap_or_else(|| Arc::new(make()));
        if let Some(free) = Arc::get_mut(&mut thing) {
            set(free);
        }
        self.remember(&thing);
        thing
    }
}

/// Blocks that are used again: with them goes the memory of the messages that were put together.
pub(crate) type BlockPool = Pool<Block>;

impl BlockPool {
    /// Makes a block of `bytes`, in whose place memory of an earlier block is left, if there is any.
    pub(crate) fn swap(&mut self, bytes: &mut Vec<u8>) -> Arc<Block> {
        let mut block = self.take().unwrap_or_default();
        if let Some(free) = Arc::get_mut(&mut block) {
            std::mem::swap(&mut free.bytes, bytes);
            bytes.clear();
        }
        if block.capacity() <= POOLED_BYTES {
            self.remember(&block);
        }
        block
    }
}

/// Gets the credit of received bytes back.
pub(crate) trait Creditor: Send + Sync {
    /// `bytes` of a channel are gone.
    fn release(&self, channel: Channel, bytes: u64);
}

/// The credit of bytes that the application holds: it returns when the last share is gone.
pub(crate) struct Credit {
    to: std::sync::Arc<dyn Creditor>,
    channel: Channel,
    bytes: u64,
    /// Shares that the application has. (Not the number of the `Arc`: a pool has one as well.)
    shares: AtomicU32,
}

impl Credit {
    pub(crate) fn new(to: std::sync::Arc<dyn Creditor>, channel: Channel) -> Self {
        Self { to, channel, bytes: 0, shares: AtomicU32::new(0) }
    }

    /// From now on it is that of `bytes` of this channel.
    pub(crate) const fn set(&mut self, channel: Channel, bytes: u64) {
        (self.channel, self.bytes) = (channel, bytes);
    }
}

/// One share of a credit.
struct Share(Arc<Credit>);

impl Share {
    fn new(credit: Arc<Credit>) -> Self {
        credit.shares.fetch_add(1, Ordering::Relaxed);
        Self(credit)
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.0.shares.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.to.release(self.0.channel, self.0.bytes);
        }
    }
}

#[derive(Clone)]
enum Kept {
    Lease(Lease),
    Part { block: Arc<Block>, start: u32, len: u32 },
    Copy(std::sync::Arc<[u8]>),
}

/// Received bytes that outlive the call that brought them. Can go to other threads; cloning
/// shares the bytes. Sent on as a [`Payload`], they are not copied again.
#[derive(Clone)]
pub struct Retained {
    kept: Kept,
    /// Goes after the bytes.
    _credit: Option<Share>,
}

impl Retained {
    const fn new(kept: Kept) -> Self {
        Self { kept, _credit: None }
    }

    /// A copy of its own.
    pub fn copy(bytes: &[u8]) -> Self {
        Self::new(Kept::Copy(bytes.into()))
    }

    pub(crate) const fn lease(lease: Lease) -> Self {
        Self::new(Kept::Lease(lease))
    }

    /// `len` bytes of a block from `start`; nothing beyond its end.
    pub(crate) const fn part(block: Arc<Block>, start: u32, len: u32) -> Self {
        Self::new(Kept::Part { block, start, len })
    }

    /// The same bytes, whose credit returns when they are gone.
    pub(crate) fn with_credit(self, credit: Arc<Credit>) -> Self {
        Self { _credit: Some(Share::new(credit)), ..self }
    }

    /// Whether the bytes still lie in the driver's receive buffer, which they keep from being
    /// filled again.
    pub const fn is_lease(&self) -> bool {
        matches!(self.kept, Kept::Lease(_))
    }
}

impl Deref for Retained {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.kept {
            Kept::Lease(lease) => lease,
            Kept::Part { block, start, len } => {
                let start = *start as usize;
                block.get(start..start + *len as usize).unwrap_or_default()
            }
            Kept::Copy(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Retained {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Retained> for Payload {
    fn from(retained: Retained) -> Self {
        Self::new(std::sync::Arc::new(retained))
    }
}

impl PartialEq<[u8]> for Retained {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl fmt::Debug for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retained({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Conn;
    use std::sync::atomic::AtomicU64;
    use trunkline_proto::ids::{ChannelKey, ConnHandle};

    fn block(bytes: &[u8]) -> Arc<Block> {
        Arc::new(Block { bytes: bytes.to_vec() })
    }

    #[test]
    fn a_block_is_used_again_after_its_last_part() {
        let mut pool = BlockPool::new(2);
        let mut bytes = b"hello world".to_vec();
        let address = bytes.as_ptr();
        let block = pool.swap(&mut bytes);
        assert_eq!(bytes.capacity(), 0, "there was nothing to give");
        let a = Retained::part(block.clone(), 0, 5);
        let b = Retained::part(block, 6, 5);
        let c = b.clone();
        assert_eq!((&*a, &*b), (&b"hello"[..], &b"world"[..]));
        drop((a, b));
        let mut other = b"other".to_vec();
        drop(pool.swap(&mut other));
        assert_eq!(other.capacity(), 0, "the first is still held, and there is no second");
        assert_eq!(Payload::from(c).as_slice(), b"world");
        let mut third = b"third".to_vec();
        assert_eq!(&**pool.swap(&mut third), b"third");
        assert!(third.is_empty() && third.as_ptr() == address, "the memory of the first");
    }

    #[test]
    fn a_pool_is_bounded() {
        let mut pool = BlockPool::new(2);
        let held: Vec<_> = (0..5).map(|n| pool.swap(&mut vec![n; 10])).collect();
        assert_eq!(pool.things.len(), 2);
        drop(held);
        let mut large = vec![0; POOLED_BYTES + 1];
        drop(pool.swap(&mut large));
        assert_eq!(pool.things.len(), 1, "the large one is not kept");
    }

    #[test]
    fn parts_outside_of_a_block_are_empty() {
        let block = block(b"abc");
        assert_eq!(&*Retained::part(block.clone(), 1, 3), b"");
        assert_eq!(&*Retained::part(block, 3, 0), b"");
    }

    #[test]
    fn credit_returns_once_after_the_last_clone() {
        const CONN: Conn = Conn::new(1, ConnHandle { slot: 2, generation: 7 });
        const CHANNEL: Channel = Channel::new(CONN, ChannelKey { slot: 3, life: 5 });
        #[derive(Default)]
        struct Sum(AtomicU64);
        impl Creditor for Sum {
            fn release(&self, channel: Channel, bytes: u64) {
                assert_eq!(channel, CHANNEL);
                self.0.fetch_add(bytes, Ordering::SeqCst);
            }
        }
        let sum = std::sync::Arc::new(Sum::default());
        let mut pool = Pool::new(1);
        for round in 0..3 {
            let make = || Credit::new(sum.clone(), CHANNEL);
            let credit = pool.get(make, |credit| credit.set(CHANNEL, 10));
            let a = Retained::copy(b"x").with_credit(credit);
            let b = a.clone();
            drop(a);
            assert_eq!(sum.0.load(Ordering::SeqCst), 10 * round);
            assert_eq!(&*b, b"x");
            drop(b);
            assert_eq!(sum.0.load(Ordering::SeqCst), 10 * (round + 1));
        }
        assert_eq!(std::sync::Arc::strong_count(&sum), 2, "one credit, used again");
    }

    #[test]
    fn retained_bytes_are_small() {
        assert!(size_of::<Retained>() <= 40, "{}", size_of::<Retained>());
    }
}
