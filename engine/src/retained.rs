//! Received bytes that outlive the call that brought them.

use crate::buf::Lease;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use trunkline_proto::payload::Payload;

/// Blocks of a pool that are looked at before a new one is made.
const TRIES: usize = 4;
/// Larger buffers are given back to the allocator.
const POOLED_BYTES: usize = 256 << 10;

/// Bytes that several [`Retained`] share.
#[derive(Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
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

/// Blocks of one shard that are used again when nobody holds their bytes any more: with them goes
/// the memory of the messages that were put together.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// First in, first out: the one at the front has been out for longest. The pool's own share
    /// stays here while others hold the block.
    blocks: VecDeque<Arc<Block>>,
    most: usize,
}

impl BlockPool {
    /// Remembers `most` blocks.
    pub(crate) const fn new(most: usize) -> Self {
        Self { blocks: VecDeque::new(), most }
    }

    /// Makes a block of `bytes`, in whose place memory of an earlier block is left, if there is any.
    pub(crate) fn swap(&mut self, bytes: &mut Vec<u8>) -> Arc<Block> {
        for _ in 0..TRIES.min(self.blocks.len()) {
            let Some(mut block) = self.blocks.pop_front() else { break };
            if let Some(free) = Arc::get_mut(&mut block) {
                std::mem::swap(&mut free.bytes, bytes);
                bytes.clear();
                self.remember(&block);
                return block;
            }
            self.blocks.push_back(block);
        }
        let block = Arc::new(Block { bytes: std::mem::take(bytes) });
        if self.blocks.len() < self.most {
            self.remember(&block);
        }
        block
    }

    fn remember(&mut self, block: &Arc<Block>) {
        if block.bytes.capacity() <= POOLED_BYTES {
            self.blocks.push_back(block.clone());
        }
    }
}

/// What is done when the last share of some bytes is gone.
pub(crate) trait OnDrop: Send + Sync {
    /// The bytes are gone.
    fn dropped(&self);
}

struct Guarded {
    bytes: Retained,
    guard: Box<dyn OnDrop>,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.guard.dropped();
    }
}

#[derive(Clone)]
enum Kept {
    Lease(Lease),
    Part { block: Arc<Block>, start: u32, len: u32 },
    Copy(Arc<[u8]>),
    Guarded(Arc<Guarded>),
}

/// Received bytes that outlive the call that brought them. Can go to other threads; cloning
/// shares the bytes. Sent on as a [`Payload`], they are not copied again.
#[derive(Clone)]
pub struct Retained(Kept);

impl Retained {
    /// A copy of its own.
    pub fn copy(bytes: &[u8]) -> Self {
        Self(Kept::Copy(bytes.into()))
    }

    pub(crate) const fn lease(lease: Lease) -> Self {
        Self(Kept::Lease(lease))
    }

    /// `len` bytes of a block from `start`; nothing beyond its end.
    pub(crate) const fn part(block: Arc<Block>, start: u32, len: u32) -> Self {
        Self(Kept::Part { block, start, len })
    }

    /// The same bytes, with something that is done when they are gone.
    pub(crate) fn guarded(self, guard: Box<dyn OnDrop>) -> Self {
        Self(Kept::Guarded(Arc::new(Guarded { bytes: self, guard })))
    }

    /// Whether the bytes still lie in the driver's receive buffer, which they keep from being
    /// filled again.
    pub fn is_lease(&self) -> bool {
        match &self.0 {
            Kept::Lease(_) => true,
            Kept::Guarded(guarded) => guarded.bytes.is_lease(),
            _ => false,
        }
    }
}

impl Deref for Retained {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Lease(lease) => lease,
            Kept::Part { block, start, len } => {
                let start = *start as usize;
                block.get(start..start + *len as usize).unwrap_or_default()
            }
            Kept::Copy(bytes) => bytes,
            Kept::Guarded(guarded) => &guarded.bytes,
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
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        assert_eq!(pool.blocks.len(), 2);
        drop(held);
        let mut large = vec![0; POOLED_BYTES + 1];
        drop(pool.swap(&mut large));
        assert_eq!(pool.blocks.len(), 1, "the large one is not kept");
    }

    #[test]
    fn parts_outside_of_a_block_are_empty() {
        let block = block(b"abc");
        assert_eq!(&*Retained::part(block.clone(), 1, 3), b"");
        assert_eq!(&*Retained::part(block, 3, 0), b"");
    }

    #[test]
    fn a_guard_runs_once_after_the_last_clone() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        struct Count;
        impl OnDrop for Count {
            fn dropped(&self) {
                RUNS.fetch_add(1, Ordering::SeqCst);
            }
        }
        let a = Retained::copy(b"x").guarded(Box::new(Count));
        let b = a.clone();
        drop(a);
        assert_eq!(RUNS.load(Ordering::SeqCst), 0);
        assert_eq!(&*b, b"x");
        drop(b);
        assert_eq!(RUNS.load(Ordering::SeqCst), 1);
    }
}
