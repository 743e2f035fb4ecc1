//! Received bytes that outlive the call that brought them.

use crate::buf::Lease;
use crossbeam::queue::ArrayQueue;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use trunkline_proto::payload::Payload;

/// Larger buffers are given back to the allocator.
const POOLED_BYTES: usize = 256 << 10;

/// Bytes that several [`Retained`] share. The memory goes back to its pool with the last of them.
pub(crate) struct Block {
    bytes: Vec<u8>,
    pool: Option<Arc<ArrayQueue<Vec<u8>>>>,
}

impl Block {
    pub(crate) const fn new(bytes: Vec<u8>, pool: Option<Arc<ArrayQueue<Vec<u8>>>>) -> Self {
        Self { bytes, pool }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let mut bytes = std::mem::take(&mut self.bytes);
            if bytes.capacity() <= POOLED_BYTES {
                bytes.clear();
                let _ = pool.push(bytes);
            }
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.bytes.len())
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

    #[test]
    fn a_block_returns_to_its_pool_with_its_last_part() {
        let pool = Arc::new(ArrayQueue::new(2));
        let block = Arc::new(Block::new(b"hello world".to_vec(), Some(pool.clone())));
        let a = Retained::part(block.clone(), 0, 5);
        let b = Retained::part(block, 6, 5);
        let c = b.clone();
        assert_eq!((&*a, &*b), (&b"hello"[..], &b"world"[..]));
        drop((a, b));
        assert!(pool.is_empty());
        assert_eq!(Payload::from(c).as_slice(), b"world");
        let back = pool.pop().unwrap();
        assert!(back.is_empty() && back.capacity() >= 11);
    }

    #[test]
    fn parts_outside_of_a_block_are_empty() {
        let block = Arc::new(Block::new(b"abc".to_vec(), None));
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
