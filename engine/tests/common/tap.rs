//! A driver that lets others see what passes.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};
use trunkline::AnyDriver;
use trunkline::buf::Retainer;
use trunkline::io::{
    Batch, Capabilities, Driver, DriverStats, RxItem, StreamBytes, StreamId, TxBuf, TxMeta, Waker,
};

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
    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<u16> {
        self.inner.add_socket(socket)
    }
    fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
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
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()> {
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
    fn listen_streams(&mut self, listener: TcpListener) -> io::Result<u16> {
        self.inner.listen_streams(listener)
    }
    fn unlisten_streams(&mut self, listener: u16) -> io::Result<()> {
        self.inner.unlisten_streams(listener)
    }
    fn connect_stream(&mut self, remote: SocketAddr) -> io::Result<StreamId> {
        self.inner.connect_stream(remote)
    }
    fn read_stream(&mut self, stream: StreamId, on: bool) {
        self.inner.read_stream(stream, on);
    }
    fn stream_buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        self.inner.stream_buffer(stream)
    }
    fn send_stream(&mut self, stream: StreamId, len: usize) -> bool {
        self.inner.send_stream(stream, len)
    }
    fn shutdown_stream(&mut self, stream: StreamId) {
        self.inner.shutdown_stream(stream);
    }
    fn close_stream(&mut self, stream: StreamId) {
        self.inner.close_stream(stream);
    }
    fn abort_stream(&mut self, stream: StreamId) {
        self.inner.abort_stream(stream);
    }
    fn stream_backlog(&mut self, stream: StreamId) -> usize {
        self.inner.stream_backlog(stream)
    }
    fn stream_bytes(&mut self, bytes: &StreamBytes) -> (&mut [u8], Retainer<'_>) {
        self.inner.stream_bytes(bytes)
    }
    fn release_stream(&mut self, bytes: StreamBytes) {
        self.inner.release_stream(bytes);
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
