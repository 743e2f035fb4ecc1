//! TCP on readiness: reads into the driver's receive buffers, writes as far as the system takes.

use super::super::stream::{
    ACCEPTS_A_POLL, AcceptPause, Spares, StreamBytes, StreamEvent, StreamId, configure,
    is_of_one_connection,
};
use crate::buf::RxPool;
use crate::sys;
use ::mio::event::Event;
use ::mio::net::{TcpListener, TcpStream};
use ::mio::{Interest, Registry, Token};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// Tokens of listening sockets and of streams begin here; those of datagram sockets are smaller.
const LISTENERS: usize = 1 << 16;
const STREAMS: usize = 1 << 17;
/// Reads of one stream in one poll.
const READS_A_POLL: usize = 4;

#[derive(Debug)]
struct Listening {
    socket: TcpListener,
    readable: bool,
}

#[derive(Debug)]
struct Slot {
    socket: TcpStream,
    life: u32,
    /// Is among those to look at.
    touched: bool,
    connecting: bool,
    /// May have bytes waiting.
    readable: bool,
    /// The peer's end was announced: a short read does not mean that nothing more can be read.
    read_closed: bool,
    /// Somebody wants them.
    reading: bool,
    finished: bool,
    failed: bool,
    buffer: Option<Box<[u8]>>,
    /// Bytes of the buffer that are sent, and all that are to be sent.
    sending: Option<(usize, usize)>,
    blocked: bool,
    shutdown: bool,
    closing: bool,
}

/// All streams of one driver.
#[derive(Debug, Default)]
pub(super) struct Streams {
    listeners: Vec<Option<Listening>>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    lives: u32,
    pause: AcceptPause,
    pub(super) pauses: u64,
    spare: Spares,
    /// Streams to look at in the next poll.
    touched: Vec<u32>,
    /// What happened outside of a poll.
    events: Vec<StreamEvent>,
}

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len() && self.listeners.iter().all(Option::is_none)
    }

    /// Whether a poll would bring something without asking the selector.
    pub(super) fn has_news(&self) -> bool {
        !self.events.is_empty()
            || !self.touched.is_empty()
            || (!self.pause.is_on() && self.listeners.iter().flatten().any(|l| l.readable))
    }

    /// The longest sleep that leaves nothing undone: accepting goes on, or buffers come back.
    pub(super) fn longest_sleep(&mut self, starved: Duration) -> Option<Duration> {
        let rest = self.pause.rest();
        if self.touched.is_empty() { rest } else { Some(rest.map_or(starved, |r| r.min(starved))) }
    }

    pub(super) fn listen(
        &mut self,
        registry: &Registry,
        listener: std::net::TcpListener,
    ) -> io::Result<u16> {
        listener.set_nonblocking(true)?;
        let number =
            self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        let id = u16::try_from(number).map_err(|_| io::ErrorKind::QuotaExceeded)?;
        if number == self.listeners.len() {
            self.listeners.push(None);
        }
        let mut socket = TcpListener::from_std(listener);
        registry.register(&mut socket, Token(LISTENERS + number), Interest::READABLE)?;
        self.listeners[number] = Some(Listening { socket, readable: true });
        Ok(id)
    }

    pub(super) fn unlisten(&mut self, registry: &Registry, listener: u16) -> io::Result<()> {
        let slot = self.listeners.get_mut(usize::from(listener)).and_then(Option::take);
        let mut listening = slot.ok_or(io::ErrorKind::NotFound)?;
        registry.deregister(&mut listening.socket)
    }

    pub(super) fn connect(
        &mut self,
        registry: &Registry,
        remote: SocketAddr,
    ) -> io::Result<StreamId> {
        let socket = TcpStream::connect(remote)?;
        self.add(registry, socket, true)
    }

    fn add(
        &mut self,
        registry: &Registry,
        mut socket: TcpStream,
        connecting: bool,
    ) -> io::Result<StreamId> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        let token = Token(STREAMS + index as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut socket, token, interest) {
            self.free.push(index);
            return Err(error);
        }
        self.lives = self.lives.wrapping_add(1);
        let id = StreamId { index, life: self.lives };
        self.slots[index as usize] = Some(Slot {
            socket,
            life: id.life,
            touched: false,
            connecting,
            readable: !connecting,
            read_closed: false,
            reading: false,
            finished: false,
            failed: false,
            buffer: None,
            sending: None,
            blocked: false,
            shutdown: false,
            closing: false,
        });
        Ok(id)
    }

    fn slot(&mut self, stream: StreamId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(stream.index as usize)?.as_mut();
        slot.filter(|slot| slot.life == stream.life && !slot.closing)
    }

    fn touch(&mut self, index: u32) {
        if let Some(Some(slot)) = self.slots.get_mut(index as usize)
            && !std::mem::replace(&mut slot.touched, true)
        {
            self.touched.push(index);
        }
    }

    /// Starts or stops to read.
    pub(super) fn read(&mut self, stream: StreamId, on: bool) {
        let Some(slot) = self.slot(stream) else { return };
        let starts = on && !slot.reading;
        slot.reading = on;
        if starts && slot.readable {
            self.touch(stream.index);
        }
    }

    pub(super) fn buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        let spare = &mut self.spare;
        let slot = self.slots.get_mut(stream.index as usize)?.as_mut()?;
        if slot.life != stream.life
            || slot.closing
            || slot.sending.is_some()
            || slot.failed
            || slot.connecting
        {
            return None;
        }
        let buffer = slot.buffer.get_or_insert_with(|| spare.take());
        Some(buffer)
    }

    /// Sends the first `len` bytes of the buffer; `true` when the system has them all.
    pub(super) fn send(&mut self, stream: StreamId, len: usize) -> bool {
        let Some(slot) = self.slot(stream) else { return true };
        slot.sending = (len > 0).then_some((0, len));
        self.write(stream.index);
        self.slots[stream.index as usize].as_ref().is_none_or(|slot| slot.sending.is_none())
    }

    /// Hands the system what it takes.
    fn write(&mut self, index: u32) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else { return };
        while let (Some((done, len)), Some(buffer), false) =
            (slot.sending, &slot.buffer, slot.blocked)
        {
            match slot.socket.write(&buffer[done..len]) {
                Ok(n) if done + n == len => slot.sending = None,
                Ok(n) => slot.sending = Some((done + n, len)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => slot.blocked = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    slot.sending = None;
                    Self::fail(slot, index, error, &mut self.events);
                }
            }
        }
        if slot.sending.is_some() {
            return;
        }
        let buffer = slot.buffer.take();
        if std::mem::take(&mut slot.shutdown) {
            // A peer that is gone needs no end.
            let _ = slot.socket.shutdown(Shutdown::Write);
        }
        self.spare.keep(buffer);
    }

    fn fail(slot: &mut Slot, index: u32, error: io::Error, events: &mut Vec<StreamEvent>) {
        let stream = StreamId { index, life: slot.life };
        if !std::mem::replace(&mut slot.failed, true) && !slot.closing {
            events.push(StreamEvent::Failed(stream, error));
        }
    }

    /// Ends our direction when everything is sent.
    pub(super) fn shutdown(&mut self, stream: StreamId) {
        if let Some(slot) = self.slot(stream) {
            slot.shutdown = true;
            if slot.sending.is_none() {
                self.write(stream.index);
            }
        }
    }

    /// Bytes that the system has and the peer has not acknowledged.
    pub(super) fn backlog(&mut self, stream: StreamId) -> usize {
        self.slot(stream).map_or(0, |slot| sys::stream_backlog(&slot.socket))
    }

    /// Closes when everything is sent.
    pub(super) fn close(&mut self, registry: &Registry, stream: StreamId) {
        let Some(slot) = self.slot(stream) else { return };
        slot.closing = true;
        self.finish_closing(registry, stream.index);
    }

    /// Closes at once, with a reset.
    pub(super) fn abort(&mut self, registry: &Registry, stream: StreamId) {
        let Some(Some(slot)) = self.slots.get_mut(stream.index as usize) else { return };
        if slot.life != stream.life {
            return;
        }
        // Without it what was sent is still delivered: the end is the same for us.
        let _ = SockRef::from(&slot.socket).set_linger(Some(Duration::ZERO));
        (slot.closing, slot.sending) = (true, None);
        self.finish_closing(registry, stream.index);
    }

    fn finish_closing(&mut self, registry: &Registry, index: u32) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else { return };
        if !slot.closing || (slot.sending.is_some() && !slot.failed) {
            return;
        }
        if let Some(mut slot) = self.slots[index as usize].take() {
            let _ = registry.deregister(&mut slot.socket);
            self.spare.keep(slot.buffer.take());
            self.free.push(index);
        }
    }

    /// An event of the selector; `false` when it belongs to something else.
    pub(super) fn on_event(&mut self, event: &Event) -> bool {
        let token = event.token().0;
        if token == super::WAKE.0 || token < LISTENERS {
            return false;
        }
        if token < STREAMS {
            if let Some(Some(listening)) = self.listeners.get_mut(token - LISTENERS) {
                listening.readable = true;
            }
            return true;
        }
        let index = (token - STREAMS) as u32;
        if let Some(Some(slot)) = self.slots.get_mut(index as usize) {
            slot.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            slot.read_closed |= event.is_read_closed() || event.is_error();
            if event.is_writable() || event.is_error() || event.is_write_closed() {
                slot.blocked = false;
            }
            self.touch(index);
        }
        true
    }

    /// Does what can be done; appends what came of it to `out`, at most about `most` items.
    pub(super) fn poll(
        &mut self,
        registry: &Registry,
        rx: &mut RxPool,
        out: &mut Vec<StreamEvent>,
        most: usize,
    ) {
        self.accept(registry);
        out.append(&mut self.events);
        let start = out.len();
        for index in std::mem::take(&mut self.touched) {
            if let Some(Some(slot)) = self.slots.get_mut(index as usize) {
                slot.touched = false;
            }
            self.advance(index);
            let Some(Some(slot)) = self.slots.get_mut(index as usize) else { continue };
            let was_sending = slot.sending.is_some();
            if was_sending {
                self.write(index);
                let Some(Some(slot)) = self.slots.get_mut(index as usize) else { continue };
                if slot.sending.is_none() && !slot.closing && !slot.failed {
                    out.push(StreamEvent::Sent(StreamId { index, life: slot.life }));
                }
            }
            if out.len() - start < most {
                self.receive(index, rx, out);
            }
            let wants = self.slots[index as usize].as_ref().is_some_and(|slot| {
                slot.readable && slot.reading && !slot.failed && !slot.closing && !slot.connecting
            });
            if wants {
                self.touch(index);
            }
            self.finish_closing(registry, index);
        }
        out.append(&mut self.events);
    }

    /// Goes on with a connection that is being made.
    fn advance(&mut self, index: u32) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else { return };
        if !slot.connecting || slot.failed || slot.closing {
            return;
        }
        let stream = StreamId { index, life: slot.life };
        match slot.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                return Self::fail(slot, index, error, &mut self.events);
            }
        }
        match slot.socket.peer_addr() {
            Ok(_) => {
                slot.connecting = false;
                slot.readable = true;
                match configure(SockRef::from(&slot.socket)) {
                    Ok(()) => self.events.push(StreamEvent::Connected(stream)),
                    Err(error) => Self::fail(slot, index, error, &mut self.events),
                }
            }
            // Not yet: another event follows.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => Self::fail(slot, index, error, &mut self.events),
        }
    }

    fn receive(&mut self, index: u32, rx: &mut RxPool, out: &mut Vec<StreamEvent>) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else { return };
        let stream = StreamId { index, life: slot.life };
        for _ in 0..READS_A_POLL {
            let idle = !slot.reading || slot.connecting || slot.finished || slot.failed;
            if idle || slot.closing || !slot.readable {
                return;
            }
            let Some(token) = rx.take() else { return };
            let socket = &mut slot.socket;
            let mut room = 0;
            let result = rx.with_slices::<1, _>(&[token], 0, |slices| {
                room = slices[0].len();
                socket.read(&mut slices[0])
            });
            match result {
                Ok(0) => {
                    rx.put(token);
                    slot.finished = true;
                    slot.readable = false;
                    out.push(StreamEvent::Finished(stream));
                }
                Ok(len) => {
                    rx.hold(token);
                    slot.readable = len == room || slot.read_closed;
                    out.push(StreamEvent::Received(StreamBytes { stream, len, token }));
                }
                Err(error) => {
                    rx.put(token);
                    match error.kind() {
                        io::ErrorKind::WouldBlock => slot.readable = false,
                        io::ErrorKind::Interrupted => {}
                        _ => Self::fail(slot, index, error, &mut self.events),
                    }
                }
            }
        }
    }

    fn accept(&mut self, registry: &Registry) {
        if self.pause.rest().is_some() {
            return;
        }
        for number in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_A_POLL {
                let Some(Some(listening)) = self.listeners.get_mut(number) else { break };
                if !listening.readable {
                    break;
                }
                match listening.socket.accept() {
                    Ok((socket, remote)) => {
                        let local = socket.local_addr().ok().map(|a| a.ip());
                        let listener = number as u16;
                        let added = configure(SockRef::from(&socket))
                            .and_then(|()| self.add(registry, socket, false));
                        if let Ok(stream) = added {
                            let event = StreamEvent::Accepted { listener, stream, remote, local };
                            self.events.push(event);
                        }
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listening.readable = false;
                    }
                    // Out of descriptors or memory.
                    Err(error) => {
                        self.pause.begin(&error);
                        self.pauses += 1;
                        return;
                    }
                }
            }
        }
    }
}
