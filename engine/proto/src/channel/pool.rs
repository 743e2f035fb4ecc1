//! Memory that channels hand back: blocks of queued bytes in six sizes, and the buffers that only
//! a busy channel has. Steady traffic allocates nothing, whether or not it pauses for a moment; a
//! connection that was quiet for a while gives everything back.

use super::datagram::{DatagramRecv, DatagramSend};
use super::recv::RecvBuf;
use super::send::SendBuf;
use crate::lean::reserve_first;

/// Sizes of blocks. The first is small, so that a channel with one short message is cheap.
const CLASSES: [usize; 6] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];
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

/// Free blocks and buffers of one connection, none of which an idle one has.
#[derive(Debug, Default)]
pub(super) struct Pool {
    lists: Option<Box<Lists>>,
}

#[derive(Debug, Default)]
struct Lists {
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
        let lists = self.lists.get_or_insert_default();
        let class = CLASSES.iter().position(|size| *size >= want).unwrap_or(CLASSES.len() - 1);
        if let Some(block) = lists.blocks[class].pop() {
            lists.block_bytes -= block.capacity();
            return block;
        }
        Vec::with_capacity(CLASSES[class])
    }

    /// Takes a block back.
    pub(super) fn give_block(&mut self, mut block: Vec<u8>) {
        let lists = self.lists.get_or_insert_default();
        let size = block.capacity();
        if lists.block_bytes + size > KEEP_BYTES {
            return;
        }
        if let Some(class) = CLASSES.iter().position(|s| *s == size) {
            block.clear();
            lists.block_bytes += size;
            reserve_first(&mut lists.blocks[class]);
            lists.blocks[class].push(block);
        }
    }

    /// A send buffer whose stream stands at `offset`.
    pub(super) fn send_buf(&mut self, offset: u64) -> Box<SendBuf> {
        let lists = self.lists.get_or_insert_default();
        let mut buf = lists.sends.pop().unwrap_or_default();
        lists.list_bytes -= buf.list_bytes();
        buf.start_at(offset);
        buf
    }

    /// Takes an emptied send buffer back.
    pub(super) fn give_send_buf(&mut self, mut buf: Box<SendBuf>) {
        buf.clear(self);
        let lists = self.lists.get_or_insert_default();
        let bytes = lists.list_bytes + buf.list_bytes();
        if lists.sends.len() < KEEP_OBJECTS && bytes <= KEEP_LIST_BYTES {
            lists.list_bytes = bytes;
            reserve_first(&mut lists.sends);
            lists.sends.push(buf);
        }
    }

    /// A receive buffer whose first byte is stream byte `base`.
    pub(super) fn recv_buf(&mut self, base: u64) -> Box<RecvBuf> {
        let lists = self.lists.get_or_insert_default();
        let mut buf = lists.recvs.pop().unwrap_or_default();
        lists.recv_bytes -= buf.capacity();
        buf.start_at(base);
        buf
    }

    /// Takes a receive buffer back.
    pub(super) fn give_recv_buf(&mut self, mut buf: Box<RecvBuf>) {
        let lists = self.lists.get_or_insert_default();
        buf.clear();
        let bytes = lists.recv_bytes + buf.capacity();
        if bytes <= KEEP_RECV_BYTES && lists.recvs.len() < KEEP_OBJECTS {
            lists.recv_bytes = bytes;
            reserve_first(&mut lists.recvs);
            lists.recvs.push(buf);
        }
    }

    /// An empty datagram queue.
    pub(super) fn datagram_send(&mut self) -> Box<DatagramSend> {
        let lists = self.lists.get_or_insert_default();
        let queue = lists.datagram_sends.pop().unwrap_or_default();
        lists.list_bytes -= queue.list_bytes();
        queue
    }

    /// Takes a datagram queue back.
    pub(super) fn give_datagram_send(&mut self, mut queue: Box<DatagramSend>) {
        queue.clear(self);
        let lists = self.lists.get_or_insert_default();
        let bytes = lists.list_bytes + queue.list_bytes();
        if lists.datagram_sends.len() < KEEP_OBJECTS && bytes <= KEEP_LIST_BYTES {
            lists.list_bytes = bytes;
            reserve_first(&mut lists.datagram_sends);
            lists.datagram_sends.push(queue);
        }
    }

    /// An empty datagram reassembly.
    pub(super) fn datagram_recv(&mut self) -> Box<DatagramRecv> {
        let lists = self.lists.get_or_insert_default();
        lists.datagram_recvs.pop().unwrap_or_default()
    }

    /// Takes an emptied reassembly back.
    pub(super) fn give_datagram_recv(&mut self, recv: Box<DatagramRecv>) {
        let lists = self.lists.get_or_insert_default();
        if lists.datagram_recvs.len() < KEEP_OBJECTS {
            reserve_first(&mut lists.datagram_recvs);
            lists.datagram_recvs.push(recv);
        }
    }

    /// Gives all memory back to the system.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}
