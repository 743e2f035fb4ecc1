//! The streams of a shard: which of the driver's belongs to which connection, and the turn's work
//! with them.
//!
//! A client's TCP connection is tried at one address after the other, a little apart, and the first
//! that stands is taken (RFC 8305); the endpoint hears of that one only.

use super::Shard;
use super::core::{Core, NO_SOCKET};
use super::dispatch::HandlerSlot;
use crate::buf::Retainer;
use crate::handle::ListenerId;
use crate::handler::Handler;
use crate::io::{Driver, StreamEvent, StreamId};
use crate::shard::context::Source;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use trunkline_proto::endpoint::StreamNeeds;
use trunkline_proto::ids::ConnHandle;
use trunkline_proto::time::{Duration, Instant};

/// The next address is tried after this long (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// A stream whose connection is gone waits so long for the end of the peer's direction: closing it
/// with bytes unread would take back what was sent last.
const DRAIN: Duration = Duration::from_secs(2);
/// While it has something that the peer does not have, it waits at most so many times as long for
/// the peer to take some. Then it is reset.
const DRAINS: u32 = 15;
/// Bytes that one stream may send before others have their turn.
const BYTES_A_STREAM: usize = 256 << 10;

/// A client's connection that is being made.
struct Connecting {
    conn: ConnHandle,
    rest: VecDeque<SocketAddr>,
    attempts: Vec<(StreamId, SocketAddr)>,
    next_at: Instant,
    error: Option<io::Error>,
}

impl Connecting {
    fn has(&self, stream: StreamId) -> bool {
        self.attempts.iter().any(|(id, _)| *id == stream)
    }
}

/// A stream of a connection.
#[derive(Clone, Copy)]
struct Stream {
    id: StreamId,
    /// The listener that took it.
    listener: Option<ListenerId>,
    reading: bool,
    shut_down: bool,
    /// The peer's direction has ended.
    ended: bool,
    /// Something was sent: the peer shall have it before the end.
    used: bool,
}

/// What is left to do with a stream whose connection is gone.
struct Farewell {
    /// Still to be said before our direction ends.
    words: Vec<u8>,
    /// The peer's direction has ended: nothing more to wait for.
    ended: bool,
}

/// How long a stream without a connection waits.
#[derive(Clone, Copy)]
struct Draining {
    id: StreamId,
    until: Instant,
    /// How often it may wait again.
    left: u32,
    /// Bytes that the peer did not have when it began to wait.
    backlog: usize,
}

/// A socket that streams arrive at.
struct StreamListener {
    id: ListenerId,
    /// The driver's number, once it has it.
    driver: Option<u16>,
    local: SocketAddr,
    socket: Option<TcpListener>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Streams {
    listeners: Vec<Option<StreamListener>>,
    by_stream: HashMap<StreamId, ConnHandle>,
    by_conn: HashMap<ConnHandle, Stream>,
    connecting: Vec<Connecting>,
    /// Connections that may have something to send.
    wanting: VecDeque<ConnHandle>,
    /// Streams without a connection, until both directions have ended.
    draining: HashMap<StreamId, Farewell>,
    /// When they have waited long enough, the first first; those that are gone among them.
    drains: VecDeque<Draining>,
    /// Listening sockets that are to be closed.
    retiring: Vec<u16>,
}

impl Streams {
    /// Connects `conn` to the first of `remotes` that takes it.
    fn connect(&mut self, now: Instant, conn: ConnHandle, remotes: &[SocketAddr]) {
        self.connecting.push(Connecting {
            conn,
            rest: remotes.iter().copied().collect(),
            attempts: Vec::new(),
            next_at: now,
            error: None,
        });
    }

    /// Adds a listening socket; gives the number that the endpoint knows it by.
    pub(crate) fn listen(&mut self, id: ListenerId, socket: TcpListener) -> io::Result<u16> {
        let local = socket.local_addr()?;
        let entry = StreamListener { id, driver: None, local, socket: Some(socket) };
        let free = self.listeners.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.listeners.push(None);
            self.listeners.len() - 1
        });
        self.listeners[number] = Some(entry);
        u16::try_from(number).map_err(|_| io::ErrorKind::QuotaExceeded.into())
    }

    /// Forgets the listening sockets of a listener; gives their numbers.
    pub(crate) fn unlisten(&mut self, id: ListenerId) -> Vec<u16> {
        let mut gone = Vec::new();
        for (number, entry) in self.listeners.iter_mut().enumerate() {
            if entry.as_ref().is_some_and(|e| e.id == id) {
                self.retiring.extend(entry.take().and_then(|e| e.driver));
                gone.push(number as u16);
            }
        }
        gone
    }

    /// All listeners with streams.
    pub(crate) fn listener_ids(&self) -> Vec<ListenerId> {
        self.listeners.iter().flatten().map(|e| e.id).collect()
    }

    fn local_of(&self, driver: u16) -> Option<SocketAddr> {
        self.listeners.iter().flatten().find(|e| e.driver == Some(driver)).map(|e| e.local)
    }

    fn listener_of(&self, driver: u16) -> Option<(u16, ListenerId)> {
        let entries = self.listeners.iter().enumerate();
        let found = entries.filter_map(|(n, e)| e.as_ref().map(|e| (n, e)));
        found.filter(|(_, e)| e.driver == Some(driver)).map(|(n, e)| (n as u16, e.id)).next()
    }

    /// When the next address is to be tried, or a stream has waited long enough.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let attempts = self.connecting.iter().filter(|c| !c.rest.is_empty()).map(|c| c.next_at);
        attempts.chain(self.drains.front().map(|d| d.until)).min()
    }

    /// Whether a stream still waits for the end of the peer's direction.
    pub(crate) fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Whether something is to be done with the driver before the next sleep.
    pub(crate) fn has_work(&self) -> bool {
        !self.wanting.is_empty() || !self.retiring.is_empty()
    }

    /// Connections that a listener took and that live.
    pub(crate) fn accepted_by(&self, id: ListenerId) -> Vec<ConnHandle> {
        let accepted = self.by_conn.iter().filter(|(_, stream)| stream.listener == Some(id));
        accepted.map(|(conn, _)| *conn).collect()
    }

    /// Whether this is a connection over a stream.
    pub(crate) fn contains(&self, conn: ConnHandle) -> bool {
        self.by_conn.contains_key(&conn)
    }

    fn map(&mut self, conn: ConnHandle, id: StreamId, listener: Option<ListenerId>) {
        self.by_stream.insert(id, conn);
        let (reading, shut_down, ended, used) = (true, false, false, false);
        let stream = Stream { id, listener, reading, shut_down, ended, used };
        self.by_conn.insert(conn, stream);
    }

    fn drain(&mut self, id: StreamId, now: Instant, left: u32, backlog: usize) {
        self.drains.push_back(Draining { id, until: now + DRAIN, left, backlog });
    }
}

impl<H: Handler, D: Driver> Shard<H, D> {
    /// Gives new listening sockets to the driver, takes old ones back, and starts connections.
    /// Returns the last error of a listening socket.
    pub(super) fn attach_streams(&mut self) -> Option<io::Error> {
        let mut failed = None;
        let Core { streams, endpoint, .. } = &mut self.core;
        for driver in streams.retiring.drain(..) {
            if let Err(error) = self.driver.unlisten_streams(driver) {
                tracing::warn!(%error, "closing a listening socket");
            }
        }
        for number in 0..streams.listeners.len() {
            let Some(entry) = &mut streams.listeners[number] else { continue };
            let Some(socket) = entry.socket.take() else { continue };
            match self.driver.listen_streams(socket) {
                Ok(driver) => entry.driver = Some(driver),
                Err(error) => {
                    tracing::error!(addr = %entry.local, %error, "driver refused a listening socket");
                    endpoint.unlisten_stream(number as u16);
                    streams.listeners[number] = None;
                    failed = Some(error);
                }
            }
        }
        self.try_addresses();
        failed
    }

    /// Tries the addresses whose turn it is.
    fn try_addresses(&mut self) {
        let now = self.core.now;
        let mut at = 0;
        while at < self.core.streams.connecting.len() {
            let entry = &mut self.core.streams.connecting[at];
            while entry.next_at <= now
                && let Some(remote) = entry.rest.pop_front()
            {
                match self.driver.connect_stream(remote) {
                    Ok(id) => {
                        entry.attempts.push((id, remote));
                        entry.next_at = now + ATTEMPT_DELAY;
                    }
                    Err(error) => entry.error = Some(error),
                }
            }
            if entry.attempts.is_empty() && entry.rest.is_empty() {
                let entry = self.core.streams.connecting.swap_remove(at);
                self.stream_failed(entry.conn, entry.error);
            } else {
                at += 1;
            }
        }
    }

    fn stream_failed(&mut self, conn: ConnHandle, error: Option<io::Error>) {
        let core = &mut self.core;
        let text = error.map_or_else(|| "no address to connect to".to_owned(), |e| e.to_string());
        core.hear(&mut [], NO_SOCKET, |endpoint, now, _, sink| {
            endpoint.stream_failed(now, conn, &text, sink);
        });
        self.handler.deliver(core, &[], Source::NONE);
        self.core.streams.wanting.push_back(conn);
    }

    /// Handles what the driver told of streams; gives the number of things that happened.
    pub(super) fn take_stream_events(&mut self) -> u64 {
        if self.batch.streams.is_empty() {
            return 0;
        }
        let mut happened = 0;
        let mut events = std::mem::take(&mut self.batch.streams);
        for event in events.drain(..) {
            happened += 1;
            match event {
                StreamEvent::Accepted { listener, stream, remote, local } => {
                    self.accepted(listener, stream, remote, local);
                }
                StreamEvent::Connected(stream) => self.connected(stream),
                StreamEvent::Received(bytes) => {
                    if let Some(conn) = self.core.streams.by_stream.get(&bytes.stream).copied() {
                        let (slice, retainer) = self.driver.stream_bytes(&bytes);
                        let name = (conn, bytes.stream);
                        receive(&mut self.core, &mut self.handler, name, slice, retainer);
                        self.steer_reading(conn);
                    }
                    self.driver.release_stream(bytes);
                }
                StreamEvent::Sent(stream) => {
                    if let Some(conn) = self.core.streams.by_stream.get(&stream).copied() {
                        self.core.streams.wanting.push_back(conn);
                    } else {
                        self.say_farewell(stream);
                    }
                }
                StreamEvent::Finished(stream) => self.finished(stream),
                StreamEvent::Failed(stream, error) => self.failed(stream, error),
            }
        }
        self.batch.streams = events;
        happened
    }

    fn accepted(
        &mut self,
        listener: u16,
        stream: StreamId,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) {
        let core = &mut self.core;
        if let Err(refused) = core.admission.check(core.now, remote) {
            refused.count(&core.counters);
            return self.driver.close_stream(stream);
        }
        let known = core.streams.listener_of(listener).filter(|_| core.ending.is_none());
        let Some((number, id)) = known else { return self.driver.close_stream(stream) };
        self.bound_sockets();
        let core = &mut self.core;
        match core.endpoint.accept_stream(core.now, number, remote, local) {
            Ok(conn) => {
                core.streams.map(conn, stream, Some(id));
                core.capture.begun(stream, core.streams.local_of(listener), local, remote);
                self.driver.read_stream(stream, true);
            }
            Err(error) => {
                tracing::debug!(%remote, %error, "a connection is not taken");
                self.driver.close_stream(stream);
            }
        }
    }

    /// What only waits for its peer's end must not add to the sockets that connections may have.
    fn bound_sockets(&mut self) {
        let most = self.core.shared.config.max_connections as usize;
        let streams = &mut self.core.streams;
        // Where connections take all there is, the newcomer is not taken anyway.
        while streams.by_conn.len() < most
            && streams.by_conn.len() + streams.draining.len() >= most
            && let Some(oldest) = streams.drains.pop_front()
        {
            if streams.draining.remove(&oldest.id).is_some() {
                self.driver.abort_stream(oldest.id);
            }
        }
    }

    fn connected(&mut self, stream: StreamId) {
        let streams = &mut self.core.streams;
        let found = streams.connecting.iter().position(|c| c.has(stream));
        let Some(at) = found else { return };
        let entry = streams.connecting.swap_remove(at);
        for (id, remote) in entry.attempts {
            if id == stream {
                self.core.endpoint.stream_connected(entry.conn, remote, None);
                self.core.capture.begun(id, None, None, remote);
            } else {
                self.driver.close_stream(id);
            }
        }
        streams.map(entry.conn, stream, None);
        streams.wanting.push_back(entry.conn);
        self.driver.read_stream(stream, true);
        self.bound_sockets();
    }

    fn finished(&mut self, stream: StreamId) {
        let core = &mut self.core;
        if let Some(farewell) = core.streams.draining.get_mut(&stream) {
            farewell.ended = true;
            return self.say_farewell(stream);
        }
        let Some(conn) = core.streams.by_stream.get(&stream).copied() else { return };
        if let Some(known) = core.streams.by_conn.get_mut(&conn) {
            known.ended = true;
        }
        core.hear(&mut [], NO_SOCKET, |endpoint, now, _, sink| {
            endpoint.stream_finished(now, conn, sink);
        });
        self.handler.deliver(core, &[], Source::NONE);
        self.core.streams.wanting.push_back(conn);
    }

    fn failed(&mut self, stream: StreamId, error: io::Error) {
        if self.core.streams.draining.remove(&stream).is_some() {
            return self.driver.close_stream(stream);
        }
        if let Some(conn) = self.core.streams.by_stream.get(&stream).copied() {
            self.stream_failed(conn, Some(error));
            // However long the application takes to close: the socket is of no use.
            return self.close_stream(conn);
        }
        let streams = &mut self.core.streams;
        let found = streams.connecting.iter_mut().find(|c| c.has(stream));
        if let Some(entry) = found {
            entry.attempts.retain(|(id, _)| *id != stream);
            entry.error = Some(error);
            entry.next_at = self.core.now;
            self.more = true;
        }
        self.driver.close_stream(stream);
        self.try_addresses();
    }

    /// Stops or starts to read a stream, as its connection can take it.
    fn steer_reading(&mut self, conn: ConnHandle) {
        let readable = self.core.endpoint.stream_is_readable(conn);
        let Some(stream) = self.core.streams.by_conn.get_mut(&conn) else { return };
        if stream.reading != readable {
            stream.reading = readable;
            self.driver.read_stream(stream.id, readable);
        }
    }

    /// Sends what streams have to send; gives the number of sends.
    pub(super) fn transmit_streams(&mut self) -> u64 {
        let mut begun = false;
        while let Some(conn) = self.core.endpoint.next_stream() {
            let Core { streams, endpoint, now, .. } = &mut self.core;
            if !streams.by_conn.contains_key(&conn) {
                let targets = endpoint.take_stream_targets(conn);
                if !targets.is_empty() {
                    streams.connect(*now, conn, &targets);
                    begun = true;
                }
            }
            streams.wanting.push_back(conn);
        }
        if begun {
            self.try_addresses();
        }
        // Before anything asks what such a connection needs: it may still have something to say.
        self.take_closed();
        let mut sends = 0;
        for _ in 0..self.core.streams.wanting.len() {
            let Some(conn) = self.core.streams.wanting.pop_front() else { break };
            sends += self.transmit_stream(conn);
        }
        self.take_closed();
        self.end_draining();
        sends
    }

    /// Looks after the streams of connections that are gone.
    fn take_closed(&mut self) {
        while let Some(closed) = self.core.endpoint.closed_stream() {
            let Some(stream) = self.core.streams.by_conn.get(&closed.conn).copied() else {
                self.give_up_connecting(closed.conn);
                continue;
            };
            if closed.farewell.is_empty() && !stream.used {
                // The peer was told nothing that could be taken back.
                self.close_stream(closed.conn);
            } else {
                self.drain_stream(closed.conn, closed.farewell);
            }
        }
    }

    /// The connection of a stream is gone: our direction ends, and the peer's is awaited.
    fn drain_stream(&mut self, conn: ConnHandle, words: Vec<u8>) {
        let streams = &mut self.core.streams;
        if let Some(stream) = streams.by_conn.remove(&conn) {
            streams.by_stream.remove(&stream.id);
            streams.draining.insert(stream.id, Farewell { words, ended: stream.ended });
            streams.drain(stream.id, self.core.now, DRAINS, usize::MAX);
            self.driver.read_stream(stream.id, true);
            self.say_farewell(stream.id);
        }
    }

    /// Ends our direction of a stream whose connection is gone, with its last words if there are any.
    fn say_farewell(&mut self, id: StreamId) {
        let Some(farewell) = self.core.streams.draining.get_mut(&id) else { return };
        if !farewell.words.is_empty() {
            // They wait for what is being sent before.
            let Some(buffer) = self.driver.stream_buffer(id) else { return };
            let words = std::mem::take(&mut farewell.words);
            if let Some(room) = buffer.get_mut(..words.len()) {
                room.copy_from_slice(&words);
                self.core.capture.bytes(id, true, &words);
                self.core.counters.bytes_sent.add(words.len() as u64);
                self.driver.send_stream(id, words.len());
            }
        }
        self.driver.shutdown_stream(id);
        // What the driver still has goes first; it says when that is done.
        if farewell.ended && self.driver.stream_buffer(id).is_some() {
            self.driver.send_stream(id, 0);
            self.core.streams.draining.remove(&id);
            self.driver.close_stream(id);
        }
    }

    /// Closes the streams that have waited long enough.
    fn end_draining(&mut self) {
        let now = self.core.now;
        let streams = &mut self.core.streams;
        while let Some(first) = streams.drains.front().copied().filter(|d| d.until <= now) {
            streams.drains.pop_front();
            if !streams.draining.contains_key(&first.id) {
                continue;
            }
            let handed_over = self.driver.stream_buffer(first.id).is_some();
            if handed_over {
                self.driver.send_stream(first.id, 0);
            }
            let backlog = self.driver.stream_backlog(first.id);
            if handed_over && backlog == 0 {
                streams.draining.remove(&first.id);
                self.driver.close_stream(first.id);
            } else if backlog < first.backlog {
                streams.drain(first.id, now, DRAINS, backlog);
            } else if first.left > 0 {
                streams.drain(first.id, now, first.left - 1, first.backlog);
            } else {
                streams.draining.remove(&first.id);
                self.driver.abort_stream(first.id);
            }
        }
    }

    fn transmit_stream(&mut self, conn: ConnHandle) -> u64 {
        self.steer_reading(conn);
        let Some(stream) = self.core.streams.by_conn.get(&conn).copied() else { return 0 };
        let (mut sends, mut bytes) = (0, 0);
        while let Some(buffer) = self.driver.stream_buffer(stream.id) {
            if bytes >= BYTES_A_STREAM {
                self.driver.send_stream(stream.id, 0);
                self.core.streams.wanting.push_back(conn);
                self.more = true;
                break;
            }
            let n = self.core.endpoint.stream_transmit(self.core.now, conn, buffer);
            self.core.capture.bytes(stream.id, true, &buffer[..n]);
            let done = self.driver.send_stream(stream.id, n);
            if n == 0 {
                self.end_of_stream(conn, stream);
                break;
            }
            sends += 1;
            bytes += n;
            if !done {
                break;
            }
        }
        self.core.counters.bytes_sent.add(bytes as u64);
        if sends > 0
            && let Some(known) = self.core.streams.by_conn.get_mut(&conn)
        {
            known.used = true;
        }
        sends
    }

    fn end_of_stream(&mut self, conn: ConnHandle, stream: Stream) {
        match self.core.endpoint.stream_needs(conn) {
            StreamNeeds::Nothing => {}
            StreamNeeds::Shutdown => {
                if let Some(known) = self.core.streams.by_conn.get_mut(&conn)
                    && !std::mem::replace(&mut known.shut_down, true)
                {
                    self.driver.shutdown_stream(stream.id);
                }
            }
            StreamNeeds::Close => self.close_stream(conn),
        }
    }

    fn close_stream(&mut self, conn: ConnHandle) {
        if let Some(stream) = self.core.streams.by_conn.remove(&conn) {
            self.core.streams.by_stream.remove(&stream.id);
            self.driver.close_stream(stream.id);
        }
    }

    fn give_up_connecting(&mut self, conn: ConnHandle) {
        let connecting = &mut self.core.streams.connecting;
        if let Some(at) = connecting.iter().position(|c| c.conn == conn) {
            for (id, _) in connecting.swap_remove(at).attempts {
                self.driver.close_stream(id);
            }
        }
    }
}

/// Gives the endpoint bytes of a stream, and the handler what came of it.
fn receive<H: Handler>(
    core: &mut Core,
    handler: &mut HandlerSlot<H>,
    (conn, id): (ConnHandle, StreamId),
    bytes: &mut [u8],
    retainer: Retainer<'_>,
) {
    core.counters.bytes_received.add(bytes.len() as u64);
    let sealed = core.capture.copy(bytes);
    core.hear(bytes, NO_SOCKET, |endpoint, now, bytes, sink| {
        endpoint.stream_receive(now, conn, bytes, sink);
    });
    // Behind the secrets that open it, which an analyser needs first.
    core.capture.bytes(id, false, &sealed);
    handler.deliver(core, bytes, Source { retainer, owned: None });
}
