//! Engine-owned send buffers: written by the application, sent without a copy, used again.

use super::region::Region;
use crate::sync::{Arc, ArrayQueue, payload};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use trunkline_proto::payload::Payload;

/// One buffer: a part of the pool's memory that belongs to nobody else. References to it are
/// counted in cache lines of its own: its neighbours may be with other shards.
#[repr(align(128))]
struct Slab {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl Slab {
    fn bytes(&self) -> &[u8] {
        let start = self.region.range(self.start, self.len);
        // SAFETY: the ranges of slabs are disjoint, this one is initialised (zeroed at first), and
        // it is written only through `&mut Slab`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.region.range(self.start, self.len);
        // SAFETY: as above, and `&mut self` makes this the only reference to the range.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// A bounded number of send buffers. Cloning shares the pool.
#[derive(Clone)]
pub struct SendPool {
    /// Every buffer that is not being written: free ones, and ones that a connection still holds.
    /// First in, first out, so that the one at the front has been on its way for longest.
    queue: Arc<ArrayQueue<Arc<Slab>>>,
    bytes: usize,
}

/// Buffers looked at before [`SendPool::take`] gives up.
const TAKE_TRIES: usize = 8;

impl SendPool {
    /// `count` buffers of `bytes` bytes each.
    ///
    /// # Errors
    /// `InvalidInput` for a size or number of zero; the system's, when it has no memory.
    pub fn new(count: usize, bytes: usize) -> io::Result<Self> {
        if count == 0 || bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stride = bytes.next_multiple_of(64);
        let total = stride.checked_mul(count).ok_or(io::ErrorKind::OutOfMemory)?;
        let region = Arc::new(Region::new(total)?);
        let queue = ArrayQueue::new(count);
        for i in 0..count {
            let slab = Slab { region: region.clone(), start: i * stride, len: bytes };
            let pushed = queue.push(Arc::new(slab));
            debug_assert!(pushed.is_ok());
        }
        Ok(Self { queue: Arc::new(queue), bytes })
    }

    /// Bytes of one buffer.
    pub const fn buffer_bytes(&self) -> usize {
        self.bytes
    }

    /// Number of buffers.
    pub fn count(&self) -> usize {
        self.queue.capacity()
    }

    /// Buffers that [`take`](Self::take) could give now. Looks at each of up to 256; of more, the
    /// share among 256 of them counts for all. Whoever takes one meanwhile may find none.
    pub(crate) fn free(&self) -> usize {
        const LOOKS: usize = 256;
        let count = self.count();
        let looks = count.min(LOOKS);
        let mut free = 0;
        for _ in 0..looks.min(self.queue.len()) {
            let Some(mut slab) = self.queue.pop() else { break };
            free += usize::from(Arc::get_mut(&mut slab).is_some());
            let pushed = self.queue.push(slab);
            debug_assert!(pushed.is_ok(), "more buffers than places");
        }
        (free * count).checked_div(looks).unwrap_or(0)
    }

    /// Takes a buffer with arbitrary contents, from any thread and without a lock. `None` when all
    /// are being written or not acknowledged yet: wait for the connection to become writable.
    pub fn take(&self) -> Option<SendBuf> {
        for _ in 0..TAKE_TRIES.min(self.queue.capacity()) {
            let mut slab = self.queue.pop()?;
            if Arc::get_mut(&mut slab).is_some() {
                return Some(SendBuf { slab: Some(slab), queue: self.queue.clone() });
            }
            let pushed = self.queue.push(slab);
            debug_assert!(pushed.is_ok(), "more buffers than places");
        }
        None
    }
}

impl fmt::Debug for SendPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPool")
            .field("count", &self.queue.capacity())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A send buffer being written. Dropping it puts it back.
pub struct SendBuf {
    /// Always there until `freeze` or `drop`.
    slab: Option<Arc<Slab>>,
    queue: Arc<ArrayQueue<Arc<Slab>>>,
}

impl SendBuf {
    /// The first `len` bytes (all of them, if it has fewer) as a payload to send. The buffer is
    /// free again when the last clone of the payload is gone. Allocates nothing.
    pub fn freeze(mut self, len: usize) -> Payload {
        let Some(slab) = self.slab.take() else { return Payload::from(Vec::new()) };
        let len = len.min(slab.len);
        let whole = payload(slab.clone());
        let pushed = self.queue.push(slab);
        debug_assert!(pushed.is_ok(), "more buffers than places");
        whole.slice(0, len).unwrap_or(whole)
    }
}

impl Deref for SendBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slab.as_ref().map_or(&[], |slab| slab.bytes())
    }
}

impl DerefMut for SendBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // A buffer being written has one reference: this one.
        self.slab.as_mut().and_then(Arc::get_mut).map_or(&mut [], Slab::bytes_mut)
    }
}

impl Drop for SendBuf {
    fn drop(&mut self) {
        if let Some(slab) = self.slab.take() {
            let pushed = self.queue.push(slab);
            debug_assert!(pushed.is_ok(), "more buffers than places");
        }
    }
}

impl fmt::Debug for SendBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendBuf({} bytes)", self.len())
    }
}
