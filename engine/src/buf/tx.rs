//! Transmit buffers of one driver.

use super::region::Region;
use std::fmt;
use std::io;
use std::ptr::NonNull;

/// Equally sized buffers that trains are written into.
pub struct TxPool {
    region: Region,
    stride: usize,
    bytes: usize,
    /// Last in, first out, so that the buffer still in the processor's caches goes first.
    free: Vec<u32>,
    count: usize,
}

impl TxPool {
    /// `count` buffers of `bytes` bytes.
    ///
    /// # Errors
    /// The system's, when it has no memory.
    pub fn new(count: usize, bytes: usize) -> io::Result<Self> {
        // An odd number of cache lines apart, so that the starts of buffers spread over cache sets.
        let stride = bytes.next_multiple_of(64) + 64;
        let total = stride.checked_mul(count).ok_or(io::ErrorKind::OutOfMemory)?;
        let indices = u32::try_from(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            region: Region::new(total)?,
            stride,
            bytes,
            free: (0..indices).rev().collect(),
            count,
        })
    }

    /// Buffers not lent.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Number of buffers.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Takes a buffer.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Puts a buffer back.
    pub fn put(&mut self, index: u32) {
        debug_assert!(!self.free.contains(&index), "a transmit buffer was given back twice");
        self.free.push(index);
    }

    /// Bytes to write.
    pub fn bytes_mut(&mut self, index: u32) -> &mut [u8] {
        let start = self.address(index);
        // SAFETY: inside the region, initialised, and `&mut self` makes it the only slice. The
        // kernel only ever reads.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.bytes) }
    }

    /// Bytes to read.
    pub fn bytes(&self, index: u32) -> &[u8] {
        let start = self.address(index);
        // SAFETY: inside the region, initialised, and nobody writes through `&self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.bytes) }
    }

    /// The address of a buffer, for the kernel.
    pub(crate) fn address(&self, index: u32) -> NonNull<u8> {
        self.region.range(index as usize * self.stride, self.bytes)
    }
}

impl fmt::Debug for TxPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxPool")
            .field("count", &self.count)
            .field("bytes", &self.bytes)
            .field("free", &self.free.len())
            .finish_non_exhaustive()
    }
}
