//! A driver that lets others see what passes.

use std::net::UdpSocket;
use std::time::{Duration, Instant};
use trunkline::AnyDriver;
use trunkline::buf::Retainer;
use trunkline::io::{Batch, Capabilities, Driver, DriverStats, RxItem, TxBuf, TxMeta, Waker};

/// Who sees it. Default bodies look away.
#[allow(unused_variables)]
pub trait Observer {
    /// A train leaves.
    fn sent(&self, train: &[u8], meta: &TxMeta) {}
    /// A train came, in the buffer that the kernel filled.
    fn received(&self, train: &[u8], item: &RxItem) {}
    /// The driver was asked for what there is.
    fn polled(&self, batch: &Batch) {}
    /// The clock is read, and says this; gives what the shard is told.
    fn clock(&self, now: Instant) -> Instant {
        now
    }
}

/// Any driver, and who sees what passes it.
pub struct Tap<O> {
    pub inner: AnyDriver,
    pub observer: O,
}

impl<O: Observer> Driver for Tap<O> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }
    fn add_socket(&mut self, socket: UdpSocket) -> std::io::Result<u16> {
        self.inner.add_socket(socket)
    }
    fn remove_socket(&mut self, socket: u16) -> std::io::Result<()> {
        self.inner.remove_socket(socket)
    }
    fn lend(&mut self) -> Option<TxBuf> {
        self.inner.lend()
    }
    fn bytes(&mut self, buf: &mut TxBuf) -> &mut [u8] {
        self.inner.bytes(buf)
    }
    fn give_back(&mut self, buf: TxBuf) {
        self.inner.give_back(buf);
    }
    fn send(&mut self, mut buf: TxBuf, meta: TxMeta) {
        self.observer.sent(&self.inner.bytes(&mut buf)[..meta.len], &meta);
        self.inner.send(buf, meta);
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> std::io::Result<()> {
        self.inner.poll(timeout, batch)?;
        self.observer.polled(batch);
        Ok(())
    }
    fn received(&mut self, item: &RxItem) -> (&mut [u8], Retainer<'_>) {
        let (bytes, retainer) = self.inner.received(item);
        self.observer.received(bytes, item);
        (bytes, retainer)
    }
    fn release(&mut self, item: RxItem) {
        self.inner.release(item);
    }
    fn waker(&self) -> Waker {
        self.inner.waker()
    }
    fn fd(&self) -> Option<i32> {
        self.inner.fd()
    }
    fn stats(&self) -> &DriverStats {
        self.inner.stats()
    }
    fn now(&self) -> Instant {
        self.observer.clock(self.inner.now())
    }
}
