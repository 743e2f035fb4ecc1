//! Memory that channels hand back: blocks of queued bytes in five sizes, and the buffers that only
//! a busy channel has. Steady traffic allocates nothing; an idle connection keeps next to nothing.

use super::datagram::{DatagramRecv, DatagramSend};
use super::recv::RecvBuf;
use super::send::SendBuf;

/// Sizes of blocks. The first is small, so that a channel with one short message is cheap.
const CLASSES: [usize; 5] = [256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];
/// The largest block.
pub(super) const MAX_BLOCK: usize = CLASSES[CLASSES.len() - 1];
/// Free blocks kept, in bytes.
const KEEP_BYTES: usize = 4 << 20;
/// Free bytes kept once nothing is queued or unacknowledged any more.
const KEEP_IDLE_BYTES: usize = 1 << 10;
/// Free buffer objects kept of each type.
const KEEP_OBJECTS: usize = 256;
/// Free buffer objects of each type kept once nothing is queued or unacknowledged any more.
const KEEP_IDLE_OBJECTS: usize = 4;
/// Bytes of receive buffers kept.
const KEEP_RECV_BYTES: usize = 512 << 10;

/// Free blocks and buffers of one connection.
#[derive(Debug, Default)]
pub(super) struct Pool {
    blocks: [Vec<Vec<u8>>; CLASSES.len()],
    /// Sum of the capacities in `blocks`.
    block_bytes: usize,
    // The boxes themselves are what is kept: a channel holds a pointer.
    #[allow(clippy::vec_box)]
    sends: Vec<Box<SendBuf>>,
    #[allow(clippy::vec_box)]
    recvs: Vec<Box<RecvBuf>>,
    /// Sum of the capacities in `recvs`.
    recv_bytes: usize,
    #[allow(clippy::vec_box)]
    datagram_sends: Vec<Box<DatagramSend>>,
    #[allow(clippy::vec_box)]
    datagram_recvs: Vec<Box<DatagramRecv>>,
}

// What is kept and handed out are the boxes themselves.
#[allow(clippy::unnecessary_box_returns)]
impl Pool {
    /// An empty block that holds at least `min(want, MAX_BLOCK)` bytes.
    pub(super) fn block(&mut self, want: usize) -> Vec<u8> {
        let class = CLASSES.iter().position(|size| *size >= want).unwrap_or(CLASSES.len() - 1);
        if let Some(block) = self.blocks[class].pop() {
            self.block_bytes -= block.capacity();
            return block;
        }
        Vec::with_capacity(CLASSES[class])
    }

    /// Takes a block back.
    pub(super) fn give_block(&mut self, mut block: Vec<u8>) {
        let size = block.capacity();
        if self.block_bytes + size > KEEP_BYTES {
            return;
        }
        if let Some(class) = CLASSES.iter().position(|s| *s == size) {
            block.clear();
            self.block_bytes += size;
            self.blocks[class].push(block);
        }
    }

    /// A send buffer whose stream stands at `offset`.
    pub(super) fn send_buf(&mut self, offset: u64) -> Box<SendBuf> {
        let mut buf = self.sends.pop().unwrap_or_default();
        buf.start_at(offset);
        buf
    }

    /// Takes an emptied send buffer back.
    pub(super) fn give_send_buf(&mut self, mut buf: Box<SendBuf>) {
        buf.clear(self);
        if self.sends.len() < KEEP_OBJECTS {
            self.sends.push(buf);
        }
    }

    /// A receive buffer whose first byte is stream byte `base`.
    pub(super) fn recv_buf(&mut self, base: u64) -> Box<RecvBuf> {
        let mut buf = self.recvs.pop().unwrap_or_default();
        self.recv_bytes -= buf.capacity();
        buf.start_at(base);
        buf
    }

    /// Takes a receive buffer back.
    pub(super) fn give_recv_buf(&mut self, mut buf: Box<RecvBuf>) {
        buf.clear();
        let bytes = self.recv_bytes + buf.capacity();
        if bytes <= KEEP_RECV_BYTES && self.recvs.len() < KEEP_OBJECTS {
            self.recv_bytes = bytes;
            self.recvs.push(buf);
        }
    }

    /// An empty datagram queue.
    pub(super) fn datagram_send(&mut self) -> Box<DatagramSend> {
        self.datagram_sends.pop().unwrap_or_default()
    }

    /// Takes a datagram queue back.
    pub(super) fn give_datagram_send(&mut self, mut queue: Box<DatagramSend>) {
        queue.clear(self);
        if self.datagram_sends.len() < KEEP_OBJECTS {
            self.datagram_sends.push(queue);
        }
    }

    /// An empty datagram reassembly.
    pub(super) fn datagram_recv(&mut self) -> Box<DatagramRecv> {
        self.datagram_recvs.pop().unwrap_or_default()
    }

    /// Takes an emptied reassembly back.
    pub(super) fn give_datagram_recv(&mut self, recv: Box<DatagramRecv>) {
        if self.datagram_recvs.len() < KEEP_OBJECTS {
            self.datagram_recvs.push(recv);
        }
    }

    /// Gives memory back to the system, but for what the next short message needs.
    pub(super) fn trim(&mut self) {
        if self.block_bytes <= KEEP_IDLE_BYTES {
            return;
        }
        for blocks in &mut self.blocks[1..] {
            *blocks = Vec::new();
        }
        self.blocks[0].truncate(2);
        self.block_bytes = self.blocks[0].iter().map(Vec::capacity).sum();
        self.sends.truncate(KEEP_IDLE_OBJECTS);
        self.datagram_sends.truncate(KEEP_IDLE_OBJECTS);
    }

    /// Gives all memory back to the system.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}
