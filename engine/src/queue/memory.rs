//! Memory for messages on their way to a shard, used again and again: taken by any thread, without a
//! lock, and free when the shard or the connection is done with it.

use super::command::Pack;
use crate::retained::{Block, TRIES};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, ArrayQueue, payload};
use trunkline_proto::payload::Payload;

/// Copies of single messages that are remembered.
const COPIES: usize = 8192;
/// Packs that are remembered.
const PACKS: usize = 1024;
/// Bytes of a pack, beyond which it takes no further message.
pub(super) const PACK_BYTES: usize = 16 << 10;
/// Messages that a new pack has room for at most.
pub(super) const PACK_PARTS: usize = 256;
/// Larger packs (one long message alone) are given back to the allocator.
const PACK_KEEP: usize = 2 * PACK_BYTES;

/// Copies of messages, each in a block that is free when the last share of it is gone.
pub(super) struct Copies {
    /// First in, first out: the one at the front has been out for longest.
    blocks: ArrayQueue<Arc<Block>>,
    /// Bytes of memory in `blocks`, and the most of them.
    held: AtomicUsize,
    most: usize,
}

impl Copies {
    /// Remembers blocks of `most` bytes in all: somewhat more than one channel may have on its way.
    pub(super) fn new(most: usize) -> Self {
        Self { blocks: ArrayQueue::new(COPIES), held: AtomicUsize::new(0), most }
    }

    /// A copy of `data`.
    pub(super) fn copy(&self, data: &[u8]) -> Payload {
        let mut block = self.take().unwrap_or_default();
        let before = block.capacity();
        if let Some(free) = Arc::get_mut(&mut block) {
            free.set(data);
        }
        let after = block.capacity();
        // A block that was here is counted already.
        let held = self.held.fetch_add(after - before, Ordering::Relaxed) + after - before;
        if held > self.most || self.blocks.push(block.clone()).is_err() {
            self.held.fetch_sub(after, Ordering::Relaxed);
        }
        payload(block)
    }

    /// Bytes that are counted as remembered, and those that are. Forgets them.
    #[cfg(all(test, loom))]
    pub(super) fn forget(&self) -> (usize, usize) {
        let blocks = std::iter::from_fn(|| self.blocks.pop());
        (self.held.load(Ordering::Relaxed), blocks.map(|block| block.capacity()).sum())
    }

    /// Takes out a block that nobody holds.
    fn take(&self) -> Option<Arc<Block>> {
        for _ in 0..TRIES {
            let mut block = self.blocks.pop()?;
            if Arc::get_mut(&mut block).is_some() {
                return Some(block);
            }
            if let Err(block) = self.blocks.push(block) {
                self.held.fetch_sub(block.capacity(), Ordering::Relaxed);
            }
        }
        None
    }
}

/// Packs that the shard has emptied.
pub(super) struct Packs {
    empty: ArrayQueue<Box<Pack>>,
}

// What is kept and handed out are the boxes themselves.
#[allow(clippy::unnecessary_box_returns)]
impl Packs {
    pub(super) fn new() -> Self {
        Self { empty: ArrayQueue::new(PACKS) }
    }

    /// An empty pack.
    pub(super) fn take(&self) -> Box<Pack> {
        self.empty.pop().unwrap_or_default()
    }

    /// Takes a pack back.
    pub(super) fn give_back(&self, mut pack: Box<Pack>) {
        if pack.bytes.capacity() <= PACK_KEEP {
            pack.parts.clear();
            pack.bytes.clear();
            // One too many is given back to the allocator.
            let _ = self.empty.push(pack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_used_again_when_its_last_share_is_gone() {
        let copies = Copies::new(1000);
        let a = copies.copy(&[1; 100]);
        let address = a.as_slice().as_ptr();
        let b = copies.copy(&[2; 100]);
        assert_ne!(b.as_slice().as_ptr(), address);
        let share = a.slice(10, 5).unwrap();
        drop((a, b));
        assert_ne!(copies.copy(&[3; 50]).as_slice().as_ptr(), address);
        assert_eq!(share.as_slice(), [1; 5]);
        drop(share);
        let c = copies.copy(&[4; 50]);
        assert_eq!((c.as_slice(), c.as_slice().as_ptr()), (&[4; 50][..], address));
    }

    #[test]
    fn copies_are_bounded() {
        let copies = Copies::new(1000);
        let all: Vec<_> = (0..20).map(|_| copies.copy(&[1; 100])).collect();
        assert_eq!((copies.blocks.len(), copies.held.load(Ordering::Relaxed)), (10, 1000));
        drop(all);
        drop(copies.copy(&[1; 900]));
        let held = copies.held.load(Ordering::Relaxed);
        assert_eq!((copies.blocks.len(), held), (9, 900), "one grew, and was let go");
        drop(copies.copy(&[]));
        assert_eq!(copies.copy(b"x").as_slice(), b"x");
    }

    #[test]
    fn packs_come_back_empty() {
        let packs = Packs::new();
        let mut pack = packs.take();
        pack.bytes.extend_from_slice(b"hello");
        let address = pack.bytes.as_ptr();
        packs.give_back(pack);
        let mut pack = packs.take();
        assert!(pack.bytes.is_empty() && pack.bytes.as_ptr() == address);
        pack.bytes.reserve(PACK_KEEP + 1);
        packs.give_back(pack);
        assert_eq!(packs.take().bytes.capacity(), 0, "too large to be kept");
    }
}
