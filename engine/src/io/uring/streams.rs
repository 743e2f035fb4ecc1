//! TCP on io_uring: multishot accepts and receives, sends that the kernel completes.
//!
//! A stream's slot is used again when the kernel holds none of its requests. What requests point to
//! (the buffer being sent, the address being connected to) stays in the slot until they are done.

use super::super::stream::{
    AcceptPause, Spares, StreamBytes, StreamEvent, StreamId, configure, is_of_one_connection,
};
use super::super::{Batch, stream};
use super::provided::GROUP;
use super::{UringDriver, kind};
use crate::sys;
use crate::sys::linux::{Name, disconnect};
use io_uring::{cqueue, opcode, types};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// Flags of a send: all of it or an error, and no signal.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

#[derive(Debug)]
struct Listening {
    socket: TcpListener,
    armed: bool,
    closing: bool,
}

/// One stream. It lies on the heap: the kernel reads the address from it.
struct Slot {
    socket: TcpStream,
    life: u32,
    /// Where it is connecting to.
    name: Name,
    connecting: bool,
    /// Somebody wants what arrives.
    reading: bool,
    /// A multishot receive is under way.
    armed: bool,
    finished: bool,
    failed: bool,
    buffer: Option<Box<[u8]>>,
    /// Bytes of the buffer that are sent, and all that are to be sent.
    sending: Option<(usize, usize)>,
    shutdown: bool,
    closing: bool,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// All streams of one driver.
#[derive(Debug, Default)]
pub(super) struct Streams {
    listeners: Vec<Option<Listening>>,
    // Boxed, so that the address does not move while the kernel may read it.
    #[allow(clippy::vec_box)]
    slots: Vec<Option<Box<Slot>>>,
    free: Vec<u32>,
    lives: u32,
    pause: AcceptPause,
    /// The driver goes: nothing is started any more.
    ending: bool,
    spare: Spares,
    /// Streams and listening sockets whose receives and accepts are to be started.
    unarmed: Vec<u32>,
    unarmed_listeners: usize,
    events: Vec<StreamEvent>,
}

impl Streams {
    pub(super) fn has_news(&self) -> bool {
        !self.events.is_empty()
    }

    /// Moves what happened to where the shard looks.
    pub(super) fn tell(&mut self, batch: &mut Batch) {
        batch.streams.append(&mut self.events);
    }

    /// Whether receives wait for a buffer.
    pub(super) fn is_starved(&self) -> bool {
        !self.unarmed.is_empty()
    }

    /// How long accepting still rests.
    pub(super) fn accept_rest(&mut self) -> Option<Duration> {
        self.pause.rest()
    }

    fn slot(&mut self, stream: StreamId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(stream.index as usize)?.as_deref_mut();
        slot.filter(|slot| slot.life == stream.life && !slot.closing)
    }

    fn add(&mut self, socket: TcpStream, connecting: bool) -> StreamId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.lives = self.lives.wrapping_add(1);
        let id = StreamId { index, life: self.lives };
        self.slots[index as usize] = Some(Box::new(Slot {
            socket,
            life: id.life,
            name: Name::EMPTY,
            connecting,
            reading: false,
            armed: false,
            finished: false,
            failed: false,
            buffer: None,
            sending: None,
            shutdown: false,
            closing: false,
        }));
        id
    }

    fn fail(&mut self, index: u32, error: io::Error) {
        let Some(Some(slot)) = self.slots.get_mut(index as usize) else { return };
        let stream = StreamId { index, life: slot.life };
        if !std::mem::replace(&mut slot.failed, true) && !slot.closing {
            self.events.push(StreamEvent::Failed(stream, error));
        }
    }
}

impl UringDriver {
    pub(super) fn add_stream_listener(&mut self, listener: TcpListener) -> io::Result<u16> {
        listener.set_nonblocking(false)?;
        let listeners = &mut self.streams.listeners;
        let number = listeners.iter().position(Option::is_none).unwrap_or(listeners.len());
        let id = u16::try_from(number).map_err(|_| io::ErrorKind::QuotaExceeded)?;
        if number == listeners.len() {
            listeners.push(None);
        }
        listeners[number] = Some(Listening { socket: listener, armed: false, closing: false });
        self.streams.unarmed_listeners += 1;
        Ok(id)
    }

    pub(super) fn remove_stream_listener(&mut self, number: u16) -> io::Result<()> {
        let listener = self.streams.listeners.get_mut(usize::from(number)).and_then(Option::as_mut);
        let Some(listening) = listener.filter(|l| !l.closing) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        listening.closing = true;
        if listening.armed {
            return self.cancel(kind::ACCEPT | u64::from(number));
        }
        self.streams.unarmed_listeners -= 1;
        self.streams.listeners[usize::from(number)] = None;
        Ok(())
    }

    fn cancel(&mut self, user_data: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(user_data).build().user_data(kind::IGNORE);
        // SAFETY: the entry points to nothing.
        unsafe { self.ring.push(&entry) }
    }

    /// Starts the accepts and receives that are not under way.
    pub(super) fn arm_streams(&mut self) -> io::Result<()> {
        if self.streams.unarmed_listeners > 0 && self.streams.accept_rest().is_none() {
            for (number, listening) in self.streams.listeners.iter_mut().enumerate() {
                let Some(listening) = listening.as_mut().filter(|l| !l.armed && !l.closing) else {
                    continue;
                };
                let entry = opcode::AcceptMulti::new(types::Fd(listening.socket.as_raw_fd()))
                    .flags(libc::SOCK_CLOEXEC)
                    .build();
                // SAFETY: the entry points to nothing; the descriptor stays open until the request
                // has ended.
                unsafe { self.ring.push(&entry.user_data(kind::ACCEPT | number as u64))? };
                listening.armed = true;
                self.under_way += 1;
            }
            self.streams.unarmed_listeners = 0;
        }
        if self.posted == 0 {
            return Ok(());
        }
        for index in std::mem::take(&mut self.streams.unarmed) {
            let Some(Some(slot)) = self.streams.slots.get_mut(index as usize) else { continue };
            let idle = slot.armed || slot.closing || slot.finished || slot.failed;
            if idle || !slot.reading || slot.connecting {
                continue;
            }
            let entry = opcode::RecvMulti::new(types::Fd(slot.socket.as_raw_fd()), GROUP).build();
            // SAFETY: the buffers of the group live as long as `memory`, which is only freed when
            // no request is under way; the descriptor stays open until the request has ended.
            unsafe { self.ring.push(&entry.user_data(kind::STREAM_RECEIVE | u64::from(index)))? };
            slot.armed = true;
            self.under_way += 1;
        }
        Ok(())
    }

    pub(super) fn start_connect(&mut self, remote: SocketAddr) -> io::Result<StreamId> {
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
        let stream = self.streams.add(socket.into(), true);
        let Some(Some(slot)) = self.streams.slots.get_mut(stream.index as usize) else {
            return Err(stream::unsupported());
        };
        let len = slot.name.set(&remote);
        let fd = types::Fd(slot.socket.as_raw_fd());
        let entry = opcode::Connect::new(fd, slot.name.as_mut_ptr().cast(), len).build();
        // SAFETY: the address lies in the slot, which neither moves nor goes before the completion,
        // and so does the socket.
        unsafe { self.ring.push(&entry.user_data(kind::CONNECT | u64::from(stream.index)))? };
        self.under_way += 1;
        Ok(stream)
    }

    pub(super) fn set_reading(&mut self, stream: StreamId, on: bool) {
        let Some(slot) = self.streams.slot(stream) else { return };
        if slot.reading == on {
            return;
        }
        slot.reading = on;
        if on {
            if !slot.armed {
                self.streams.unarmed.push(stream.index);
            }
        } else if slot.armed {
            // Should it fail, what arrives is told all the same.
            let _ = self.cancel(kind::STREAM_RECEIVE | u64::from(stream.index));
        }
    }

    pub(super) fn lend_stream_buffer(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        let Streams { slots, spare, .. } = &mut *self.streams;
        let slot = slots.get_mut(stream.index as usize)?.as_mut()?;
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

    pub(super) fn start_stream_send(&mut self, stream: StreamId, len: usize) -> bool {
        let Some(slot) = self.streams.slot(stream) else { return true };
        if len == 0 {
            let buffer = slot.buffer.take();
            self.streams.spare.keep(buffer);
            return true;
        }
        slot.sending = Some((0, len));
        if let Err(error) = self.push_stream_send(stream.index) {
            self.streams.fail(stream.index, error);
        }
        false
    }

    fn push_stream_send(&mut self, index: u32) -> io::Result<()> {
        let Some(Some(slot)) = self.streams.slots.get_mut(index as usize) else { return Ok(()) };
        let (Some((done, len)), Some(buffer)) = (slot.sending, &slot.buffer) else { return Ok(()) };
        let rest = &buffer[done..len];
        let fd = types::Fd(slot.socket.as_raw_fd());
        let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32).flags(SEND_FLAGS);
        // SAFETY: the buffer stays in its slot, untouched, while `sending` is set, which the
        // completion ends; neither slot nor socket goes before that.
        unsafe { self.ring.push(&entry.build().user_data(kind::STREAM_SEND | u64::from(index)))? };
        self.under_way += 1;
        Ok(())
    }

    pub(super) fn end_stream(&mut self, stream: StreamId) {
        if let Some(slot) = self.streams.slot(stream) {
            if slot.sending.is_some() {
                slot.shutdown = true;
            } else {
                // A peer that is gone needs no end.
                let _ = slot.socket.shutdown(Shutdown::Write);
            }
        }
    }

    pub(super) fn remove_stream(&mut self, stream: StreamId) {
        let Some(slot) = self.streams.slot(stream) else { return };
        slot.closing = true;
        let (armed, connecting) = (slot.armed, slot.connecting);
        if armed {
            let _ = self.cancel(kind::STREAM_RECEIVE | u64::from(stream.index));
        }
        if connecting {
            let _ = self.cancel(kind::CONNECT | u64::from(stream.index));
        }
        self.finish_stream(stream.index);
    }

    /// Bytes that the system has and the peer has not acknowledged.
    pub(super) fn unacknowledged(&mut self, stream: StreamId) -> usize {
        self.streams.slot(stream).map_or(0, |slot| sys::stream_backlog(&slot.socket))
    }

    /// Closes with a reset: what is being sent fails at once.
    pub(super) fn reset_stream(&mut self, stream: StreamId) {
        let Some(Some(slot)) = self.streams.slots.get_mut(stream.index as usize) else { return };
        if slot.life != stream.life {
            return;
        }
        // Not by closing: the socket stays open until the kernel has ended its requests, and what
        // was sent would go on being delivered.
        if !slot.connecting && disconnect(&slot.socket).is_err() {
            let _ = SockRef::from(&slot.socket).set_linger(Some(Duration::ZERO));
            let _ = slot.socket.shutdown(Shutdown::Both);
        }
        if slot.closing {
            return self.finish_stream(stream.index);
        }
        self.remove_stream(stream);
    }

    /// Frees the slot of a stream that is closed once the kernel has no request of it.
    fn finish_stream(&mut self, index: u32) {
        let Some(Some(slot)) = self.streams.slots.get(index as usize) else { return };
        let busy = slot.armed || slot.sending.is_some() || slot.connecting;
        if !slot.closing || busy {
            return;
        }
        if let Some(slot) = self.streams.slots[index as usize].take() {
            self.streams.spare.keep(slot.buffer);
            self.streams.free.push(index);
        }
    }

    /// The driver goes: nothing is started any more.
    pub(super) fn end_streams(&mut self) {
        self.streams.ending = true;
        for listening in self.streams.listeners.iter_mut().flatten() {
            listening.closing = true;
        }
        for slot in self.streams.slots.iter_mut().flatten() {
            slot.closing = true;
        }
        self.streams.unarmed.clear();
        self.streams.unarmed_listeners = 0;
    }

    // ---- completions

    pub(super) fn on_accept(&mut self, number: usize, result: i32, flags: u32) {
        let Some(Some(listening)) = self.streams.listeners.get_mut(number) else { return };
        if !cqueue::more(flags) {
            listening.armed = false;
            self.under_way -= 1;
            if listening.closing {
                self.streams.listeners[number] = None;
            } else {
                self.streams.unarmed_listeners += 1;
            }
        }
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            let cancelled = error.raw_os_error() == Some(libc::ECANCELED);
            if !cancelled && !is_of_one_connection(&error) {
                // Out of descriptors or memory.
                self.streams.pause.begin(&error);
                self.stats.accepts_paused += 1;
            }
            return;
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let socket = unsafe { TcpStream::from_raw_fd(result) };
        let gone = self.streams.listeners[number].as_ref().is_none_or(|l| l.closing);
        let remote = socket.peer_addr();
        let (Ok(remote), false) = (remote, gone) else { return };
        if configure(SockRef::from(&socket)).is_err() {
            return;
        }
        let local = socket.local_addr().ok().map(|a| a.ip());
        let stream = self.streams.add(socket, false);
        let listener = number as u16;
        self.streams.events.push(StreamEvent::Accepted { listener, stream, remote, local });
    }

    pub(super) fn on_connect(&mut self, index: u32, result: i32) {
        self.under_way -= 1;
        let Some(Some(slot)) = self.streams.slots.get_mut(index as usize) else { return };
        slot.connecting = false;
        let stream = StreamId { index, life: slot.life };
        if slot.closing {
            return self.finish_stream(index);
        }
        let made = if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else {
            configure(SockRef::from(&slot.socket))
        };
        match made {
            Ok(()) => {
                if slot.reading {
                    self.streams.unarmed.push(index);
                }
                self.streams.events.push(StreamEvent::Connected(stream));
            }
            Err(error) => self.streams.fail(index, error),
        }
    }

    pub(super) fn on_stream_receive(&mut self, index: u32, result: i32, flags: u32) {
        let Some(Some(slot)) = self.streams.slots.get_mut(index as usize) else { return };
        let stream = StreamId { index, life: slot.life };
        if !cqueue::more(flags) {
            slot.armed = false;
            self.under_way -= 1;
            if slot.reading && !slot.closing && result != 0 {
                self.streams.unarmed.push(index);
            }
            if result == -libc::ENOBUFS && self.demand.ran_out() {
                self.stats.rx_no_buffer += 1;
            }
        }
        let Some(Some(slot)) = self.streams.slots.get_mut(index as usize) else { return };
        let closing = slot.closing;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.posted -= 1;
            let token = u32::from(buffer);
            match usize::try_from(result) {
                Ok(len) if len > 0 && !closing => {
                    self.memory.rx.hold(token);
                    let bytes = StreamBytes { stream, len, token };
                    self.streams.events.push(StreamEvent::Received(bytes));
                }
                _ => self.memory.rx.put(token),
            }
        }
        let Some(Some(slot)) = self.streams.slots.get_mut(index as usize) else { return };
        match -result {
            0 if !slot.finished => {
                slot.finished = true;
                if !closing {
                    self.streams.events.push(StreamEvent::Finished(stream));
                }
            }
            code if code > 0
                && !matches!(
                    code,
                    libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN
                ) =>
            {
                self.streams.fail(index, io::Error::from_raw_os_error(code));
            }
            _ => {}
        }
        self.finish_stream(index);
    }

    pub(super) fn on_stream_send(&mut self, index: u32, result: i32) {
        self.under_way -= 1;
        let ending = self.streams.ending;
        let Some(Some(slot)) = self.streams.slots.get_mut(index as usize) else { return };
        let Some((done, len)) = slot.sending else { return };
        let again = matches!(-result, libc::EINTR | libc::EAGAIN) && !ending;
        if result < 0 && !again {
            slot.sending = None;
            let buffer = slot.buffer.take();
            self.streams.spare.keep(buffer);
            self.streams.fail(index, io::Error::from_raw_os_error(-result));
            return self.finish_stream(index);
        }
        let done = done + usize::try_from(result).unwrap_or(0);
        if done < len && !ending {
            slot.sending = Some((done, len));
            if let Err(error) = self.push_stream_send(index) {
                self.streams.fail(index, error);
            }
            return;
        }
        slot.sending = None;
        let buffer = slot.buffer.take();
        if std::mem::take(&mut slot.shutdown) {
            let _ = slot.socket.shutdown(Shutdown::Write);
        }
        if !slot.closing && !slot.failed {
            let stream = StreamId { index, life: slot.life };
            self.streams.events.push(StreamEvent::Sent(stream));
        }
        self.streams.spare.keep(buffer);
        self.finish_stream(index);
    }
}
