//! Memory that channels hand back: blocks of queued bytes in five sizes, and the buffers that only
//! a busy channel has. Steady traffic allocates nothing, whether or not it pauses for a moment; a
//! connection that was quiet for a while gives everything back.

use super::datagram::{DatagramRecv, DatagramSend};
use super::recv::RecvBuf;
use super::send::SendBuf;

/// Sizes of blocks. The first is small, so that a channel with one short message is cheap.
const CLASSES: [usize; 5] = [256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];
/// The largest block.
pub(super) const MAX_BLOCK: usize = CLASSES[CLASSES.len() - 1];
/// Free blocks kept, in bytes: as much as one channel may hold with default settings, because half
/// of that is acknowledged before the application is asked for more.
const KEEP_BYTES: usize = 32 << 20;
/// Free buffer objects kept of each type.
const KEEP_OBJECTS: usize = 256;
/// Bytes of emptied queues kept.
const KEEP_LIST_BYTES: usize = 2 << 20;
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
    /// Bytes of the lists inside `sends` and `datagram_sends`.
    list_bytes: usize,
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
        self.list_bytes -= buf.list_bytes();
        buf.start_at(offset);
        buf
    }

    /// Takes an emptied send buffer back.
    pub(super) fn give_send_buf(&mut self, mut buf: Box<SendBuf>) {
        buf.clear(self);
        let bytes = self.list_bytes + buf.list_bytes();
        if self.sends.len() < KEEP_OBJECTS && bytes <= KEEP_LIST_BYTES {
            self.list_bytes = bytes;
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
        let queue = self.datagram_sends.pop().unwrap_or_default();
        self.list_bytes -= queue.list_bytes();
        queue
    }

    /// Takes a datagram queue back.
    pub(super) fn give_datagram_send(&mut self, mut queue: Box<DatagramSend>) {
        queue.clear(self);
        let bytes = self.list_bytes + queue.list_bytes();
        if self.datagram_sends.len() < KEEP_OBJECTS && bytes <= KEEP_LIST_BYTES {
            self.list_bytes = bytes;
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

    /// Gives all memory back to the system.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}
