//! The driver that works here, behind one type, so that an engine is compiled once.

use crate::buf::Retainer;
use crate::config::EngineConfig;
use crate::error::EngineError;
#[cfg(target_os = "linux")]
use crate::io::UringDriver;
use crate::io::fault::{FaultConfig, FaultDriver};
use crate::io::{
    Batch, Buffers, Capabilities, Driver, DriverChoice, DriverStats, MioDriver, RxItem,
    StreamBytes, StreamId, TxBuf, TxMeta, Waker,
};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// Any of the drivers. The choice is one predictable branch a call, and calls are made for trains
/// and batches, not for packets.
#[derive(Debug)]
pub enum AnyDriver {
    /// Readiness and batched system calls.
    Mio(Box<MioDriver>),
    /// io_uring.
    #[cfg(target_os = "linux")]
    Uring(Box<UringDriver>),
    /// One of the others behind a bad network.
    Faulty(Box<FaultDriver<AnyDriver>>),
}

impl AnyDriver {
    /// Makes a driver; `choice` is what [`detect::choose`](crate::io::detect::choose) gave. Call it
    /// on the thread that will use the driver.
    pub(crate) fn open(config: &EngineConfig, choice: DriverChoice) -> Result<Self, EngineError> {
        let io = config.driver_config();
        let driver = match choice {
            #[cfg(target_os = "linux")]
            DriverChoice::Uring => Self::Uring(Box::new(UringDriver::new(&io)?)),
            _ => Self::Mio(Box::new(MioDriver::new(&io)?)),
        };
        Ok(match &config.fault {
            None => driver,
            Some(fault) => Self::Faulty(Box::new(FaultDriver::new(driver, fault))),
        })
    }
}

macro_rules! each {
    ($self:expr, $driver:ident => $call:expr) => {
        match $self {
            AnyDriver::Mio($driver) => $call,
            #[cfg(target_os = "linux")]
            AnyDriver::Uring($driver) => $call,
            AnyDriver::Faulty($driver) => $call,
        }
    };
}

impl Driver for AnyDriver {
    fn name(&self) -> &'static str {
        each!(self, d => d.name())
    }
    fn capabilities(&self) -> &Capabilities {
        each!(self, d => d.capabilities())
    }
    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<u16> {
        each!(self, d => d.add_socket(socket))
    }
    fn remove_socket(&mut self, socket: u16) -> io::Result<()> {
        each!(self, d => d.remove_socket(socket))
    }
    fn lend(&mut self) -> Option<TxBuf> {
        each!(self, d => d.lend())
    }
    fn bytes(&mut self, buf: &mut TxBuf) -> &mut [u8] {
        each!(self, d => d.bytes(buf))
    }
    fn give_back(&mut self, buf: TxBuf) {
        each!(self, d => d.give_back(buf));
    }
    fn send(&mut self, buf: TxBuf, meta: TxMeta) {
        each!(self, d => d.send(buf, meta));
    }
    fn flush(&mut self) -> io::Result<()> {
        each!(self, d => d.flush())
    }
    fn poll(&mut self, timeout: Option<Duration>, batch: &mut Batch) -> io::Result<()> {
        each!(self, d => d.poll(timeout, batch))
    }
    fn received(&mut self, item: &RxItem) -> (&mut [u8], Retainer<'_>) {
        each!(self, d => d.received(item))
    }
    fn release(&mut self, item: RxItem) {
        each!(self, d => d.release(item));
    }
    fn listen_streams(&mut self, listener: TcpListener) -> io::Result<u16> {
        each!(self, d => d.listen_streams(listener))
    }
    fn unlisten_streams(&mut self, listener: u16) -> io::Result<()> {
        each!(self, d => d.unlisten_streams(listener))
    }
    fn connect_stream(&mut self, remote: SocketAddr) -> io::Result<StreamId> {
        each!(self, d => d.connect_stream(remote))
    }
    fn read_stream(&mut self, stream: StreamId, on: bool) {
        each!(self, d => d.read_stream(stream, on));
    }
    fn stream_buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        each!(self, d => d.stream_buffer(stream))
    }
    fn send_stream(&mut self, stream: StreamId, len: usize) -> bool {
        each!(self, d => d.send_stream(stream, len))
    }
    fn shutdown_stream(&mut self, stream: StreamId) {
        each!(self, d => d.shutdown_stream(stream));
    }
    fn close_stream(&mut self, stream: StreamId) {
        each!(self, d => d.close_stream(stream));
    }
    fn abort_stream(&mut self, stream: StreamId) {
        each!(self, d => d.abort_stream(stream));
    }
    fn stream_backlog(&mut self, stream: StreamId) -> usize {
        each!(self, d => d.stream_backlog(stream))
    }
    fn stream_bytes(&mut self, bytes: &StreamBytes) -> (&mut [u8], Retainer<'_>) {
        each!(self, d => d.stream_bytes(bytes))
    }
    fn release_stream(&mut self, bytes: StreamBytes) {
        each!(self, d => d.release_stream(bytes));
    }
    fn waker(&self) -> Waker {
        each!(self, d => d.waker())
    }
    fn fd(&self) -> Option<i32> {
        each!(self, d => d.fd())
    }
    fn stats(&self) -> &DriverStats {
        each!(self, d => d.stats())
    }
    fn buffers(&self) -> Buffers {
        each!(self, d => d.buffers())
    }
    fn now(&self) -> Instant {
        each!(self, d => d.now())
    }
    fn set_faults(&mut self, config: &FaultConfig) {
        if let Self::Faulty(driver) = self {
            driver.configure(config);
        }
    }
}
