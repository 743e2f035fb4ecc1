//! The driver's face to the shard.

use super::super::arrive::Arrivals;
use super::super::stream::shorter;
use super::super::train::{Cut, Train};
use super::super::{
    Batch, Buffers, Capabilities, Driver, DriverStats, MAX_TRAIN, RxItem, StreamBytes, StreamId,
    TxBuf, TxError, TxMeta, Waker,
};
use super::messages::PAYLOAD;
use super::{STARVED_SLEEP, Slot, UringDriver, kind};
use crate::buf::Retainer;
use crate::sys;
use crate::sys::linux::EventFd;
use io_uring::opcode;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

impl Driver for UringDriver {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<u16> {
        let facts = sys::configure(&socket, self.config.gro)?;
        let number = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < self.config.max_sockets => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "all socket numbers of the driver are taken",
                ));
            }
        };
        self.ring.submitter().register_files_update(number as u32, &[socket.as_raw_fd()])?;
        self.slots[number] = Some(Slot {
            socket,
            arrivals: Arrivals::new(number as u16, facts),
            armed: false,
            closing: false,
            sends: 0,
            known: false,
        });
        self.unarmed += 1;
        Ok(number as u16)
    }

    fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
        let number = usize::from(socket);
        let Some(Some(slot)) = self.slots.get_mut(number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if slot.closing {
            return Err(io::ErrorKind::NotFound.into());
        }
        slot.closing = true;
        if slot.armed {
            let user_data = kind::RECEIVE | number as u64;
            let entry = opcode::AsyncCancel::new(user_data).build().user_data(kind::IGNORE);
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(&entry)? };
        } else {
            self.unarmed -= 1;
        }
        let entered = self.ring.submit()?;
        self.entered(entered);
        self.finish_removal(number)
    }

    fn lend(&mut self) -> Option<TxBuf> {
        let Some(index) = self.memory.tx.take() else {
            self.stats.tx_no_buffer += 1;
            self.wants_buffer = true;
            return None;
        };
        Some(TxBuf { index })
    }

    fn bytes(&mut self, buf: &mut TxBuf) -> &mut [u8] {
        self.memory.tx.bytes_mut(buf.index)
    }

    fn give_back(&mut self, buf: TxBuf) {
        self.memory.tx.put(buf.index);
    }

    fn send(&mut self, buf: TxBuf, meta: TxMeta) {
        let index = buf.index;
        let error = match self.slots.get(usize::from(meta.socket)) {
            Some(Some(slot)) if !slot.closing => {
                (meta.len > MAX_TRAIN).then_some(TxError::TooLarge)
            }
            _ => Some(TxError::Unreachable),
        };
        let system = self.capabilities.gso && !self.refused.contains(meta.remote.ip());
        let cut = if system { Cut::System } else { Cut::Here };
        self.trains[index as usize] = Some(Train::new(buf, meta, cut));
        if let Some(error) = error {
            self.fail(index, error);
        } else if let Err(error) = self.start(index) {
            // The ring is unusable; the next poll says so too.
            self.fail(index, sys::tx_error(&error));
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.ring.queued() > 0 {
            let entered = self.ring.submit()?;
            self.entered(entered);
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()> {
        let start_len = batch.rx.len();
        self.prepare()?;
        if timeout.is_some_and(|t| t.is_zero()) || self.ring.queued() > 0 {
            let entered = self.ring.submit_if_useful()?;
            self.entered(entered);
        }
        let mut taken = self.harvest(batch, start_len)?;
        // Completions of sends alone are no reason to come back.
        if timeout.is_none_or(|t| !t.is_zero())
            && !self.has_news(batch, start_len)
            && !self.ring.has_completions()
        {
            // A receive that ended just now goes on before the sleep.
            self.prepare()?;
            let starved = self.unarmed > 0 || self.streams.is_starved();
            let limit = starved.then_some(STARVED_SLEEP);
            let timeout = shorter(timeout, shorter(limit, self.streams.accept_rest()));
            if self.parking.park() {
                self.stats.sleeps += 1;
                self.stats.rx_starved += u64::from(limit.is_some());
                let entered = self.ring.wait(timeout)?;
                self.entered(entered);
            } else {
                let entered = self.ring.submit_if_useful()?;
                self.entered(entered);
            }
            taken += self.harvest(batch, start_len)?;
        }
        if self.parking.unpark() {
            self.stats.wakes += 1;
        }
        self.wants_buffer = false;
        self.demand.used(batch.rx.len() - start_len);
        batch.failures.append(&mut self.failures);
        self.streams.tell(batch);
        let mut late = 0;
        if let Some(event) = self.foreign.get() {
            self.stats.syscalls += 1;
            event.clear();
            // What came before this shows in the ring now; what comes after makes it readable again.
            if self.ring.has_work() {
                let entered = self.ring.submit()?;
                self.entered(entered);
                late = self.harvest(batch, start_len)?;
            }
        }
        // The kernel may announce work that this thread has just run. Such an announcement stays until
        // there is work again: it counts only as long as it brings something, and a sleep ends for
        // what comes later.
        self.streams.tell(batch);
        let work = late > 0 || (taken > 0 && self.ring.has_work());
        batch.more = work || self.ring.has_completions();
        self.stats.syscalls += std::mem::take(&mut self.ring.enters);
        (self.stats.leases, self.stats.leases_refused) = self.memory.rx.lease_counts();
        Ok(())
    }

    fn listen_streams(&mut self, listener: TcpListener) -> io::Result<u16> {
        self.add_stream_listener(listener)
    }

    fn unlisten_streams(&mut self, listener: u16) -> io::Result<()> {
        self.remove_stream_listener(listener)
    }

    fn connect_stream(&mut self, remote: SocketAddr) -> io::Result<StreamId> {
        self.start_connect(remote)
    }

    fn read_stream(&mut self, stream: StreamId, on: bool) {
        self.set_reading(stream, on);
    }

    fn stream_buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        self.lend_stream_buffer(stream)
    }

    fn send_stream(&mut self, stream: StreamId, len: usize) -> bool {
        self.start_stream_send(stream, len)
    }

    fn shutdown_stream(&mut self, stream: StreamId) {
        self.end_stream(stream);
    }

    fn close_stream(&mut self, stream: StreamId) {
        self.remove_stream(stream);
    }

    fn abort_stream(&mut self, stream: StreamId) {
        self.reset_stream(stream);
    }

    fn stream_backlog(&mut self, stream: StreamId) -> usize {
        self.unacknowledged(stream)
    }

    fn stream_bytes(&mut self, bytes: &StreamBytes) -> (&mut [u8], Retainer<'_>) {
        self.memory.rx.open(bytes.token, 0, bytes.len)
    }

    fn release_stream(&mut self, bytes: StreamBytes) {
        self.memory.rx.release(bytes.token);
    }

    fn received(&mut self, item: &RxItem) -> (&mut [u8], Retainer<'_>) {
        self.memory.rx.open(item.token, PAYLOAD, item.len)
    }

    fn release(&mut self, item: RxItem) {
        self.memory.rx.release(item.token);
    }

    fn waker(&self) -> Waker {
        self.parking.waker()
    }

    fn fd(&self) -> Option<i32> {
        self.parking.embed();
        if self.foreign.get().is_none() {
            let event = EventFd::new().ok()?;
            let fd = event.as_fd().as_raw_fd();
            self.ring.submitter().register_eventfd(fd).ok()?;
            // Whatever came before is found by the first poll.
            event.signal();
            let _ = self.foreign.set(event);
        }
        self.foreign.get().map(|event| event.as_fd().as_raw_fd())
    }

    fn stats(&self) -> &DriverStats {
        &self.stats
    }

    fn buffers(&self) -> Buffers {
        let (rx, tx) = (&self.memory.rx, &self.memory.tx);
        Buffers {
            rx: rx.count(),
            rx_free: rx.free() + self.posted,
            tx: tx.count(),
            tx_free: tx.free(),
        }
    }
}
