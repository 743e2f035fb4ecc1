//! Received bytes that outlive the call that brought them.

use crate::buf::Lease;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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

/// What is done when the last share of some bytes is gone.
pub(crate) trait OnDrop: Send + Sync {
    /// The number of shares. (Not that of the `Arc`: a pool has one as well.)
    fn shares(&self) -> &AtomicU32;

    /// The bytes are gone.
    fn dropped(&self);
}

/// One share of some bytes.
struct Guard(Arc<dyn OnDrop>);

impl Guard {
    fn new(on_drop: Arc<dyn OnDrop>) -> Self {
        on_drop.shares().fetch_add(1, Ordering::Relaxed);
        Self(on_drop)
    }
}

impl Clone for Guard {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.shares().fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.dropped();
        }
    }
}

#[derive(Clone)]
enum Kept {
    Lease(Lease),
    Part { block: Arc<Block>, start: u32, len: u32 },
    Copy(Arc<[u8]>),
}

/// Received bytes that outlive the call that brought them. Can go to other threads; cloning
/// shares the bytes. Sent on as a [`Payload`], they are not copied again.
#[derive(Clone)]
pub struct Retained {
    kept: Kept,
    /// Goes after the bytes.
    _guard: Option<Guard>,
}

impl Retained {
    const fn new(kept: Kept) -> Self {
        Self { kept, _guard: None }
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

    /// The same bytes, with something that is done when they are gone.
    pub(crate) fn guarded(self, on_drop: Arc<dyn OnDrop>) -> Self {
        Self { _guard: Some(Guard::new(on_drop)), ..self }
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
        Self::new(Arc::new(retained))
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
    use std::sync::atomic::AtomicUsize;

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
    fn a_guard_runs_once_after_the_last_clone() {
        #[derive(Default)]
        struct Count {
            shares: AtomicU32,
            runs: AtomicUsize,
        }
        impl OnDrop for Count {
            fn shares(&self) -> &AtomicU32 {
                &self.shares
            }
            fn dropped(&self) {
                self.runs.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count::default());
        for runs in 0..2 {
            let a = Retained::copy(b"x").guarded(count.clone());
            let b = a.clone();
            drop(a);
            assert_eq!(count.runs.load(Ordering::SeqCst), runs);
            assert_eq!(&*b, b"x");
            drop(b);
            assert_eq!(count.runs.load(Ordering::SeqCst), runs + 1);
        }
    }
}
