//! Connections over streams: their bytes in and out.
//!
//! The caller owns the sockets. For a client it makes a TCP connection to where
//! [`Endpoint::connect_stream`] wants to go, or tells that it cannot
//! ([`Endpoint::stream_failed`]). Once TCP stands: received bytes go to
//! [`Endpoint::stream_receive`] while [`Endpoint::stream_is_readable`]; whenever
//! [`Endpoint::next_stream`] names a connection, or the last bytes of one have been sent,
//! [`Endpoint::stream_transmit`] has the next ones, and [`Endpoint::stream_needs`] says when to end.
//! [`Endpoint::closed_stream`] names those whose sockets nobody needs any more.

use super::{ClientConfig, Endpoint, Listener, ListenerConfig};
use crate::connection::{Connection, StreamNeeds, StreamSide};
use crate::error::ApiError;
use crate::event::{NullSink, Sink};
use crate::ids::{ConnHandle, ConnectLink, Role};
use crate::limits::STREAM_RECORD;
use crate::time::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// A connection over a stream that is gone.
#[derive(Debug)]
pub struct ClosedStream {
    /// Its handle, stale by now.
    pub conn: ConnHandle,
    /// The last bytes for the peer. They are sent, if all that was written before them is, before the
    /// socket closes.
    pub farewell: Vec<u8>,
}

/// Least room for the bytes of a stream: one record, and what TLS itself has to say.
pub const MIN_STREAM_BUFFER: usize = STREAM_RECORD + 1024;

struct StreamListener {
    listener: Listener,
    plain: bool,
}

/// What an endpoint keeps for streams.
#[derive(Default)]
pub(super) struct Streams {
    listeners: BTreeMap<u16, StreamListener>,
    /// Slots that may have something to send.
    ready: VecDeque<u32>,
    closed: VecDeque<ClosedStream>,
    live: u32,
    /// Host: connections in the order in which they came, some of which have proved nothing yet.
    unproven: VecDeque<ConnHandle>,
    /// Plaintext of one record.
    scratch: Vec<u8>,
}

impl core::fmt::Debug for Streams {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Streams").field("listeners", &self.listeners.len()).finish_non_exhaustive()
    }
}

impl Streams {
    pub(super) fn push_ready(&mut self, slot: u32) {
        self.ready.push_back(slot);
    }

    /// A stream lost the race with the datagram link.
    pub(super) fn lost(&mut self, conn: ConnHandle) {
        self.closed.push_back(ClosedStream { conn, farewell: Vec::new() });
        self.live -= 1;
    }

    /// A connection is gone; its last words are written down. What only streams need is given back
    /// with the last of them.
    pub(super) fn forget(&mut self, now: Instant, conn: &mut Connection) {
        self.scratch.resize(STREAM_RECORD, 0);
        let mut farewell = Vec::new();
        if conn.owes_farewell() {
            farewell.resize(MIN_STREAM_BUFFER, 0);
            let (n, _) = conn.stream_transmit(now, &mut farewell, &mut self.scratch, &mut NullSink);
            farewell.truncate(n);
            farewell.shrink_to_fit();
        }
        self.closed.push_back(ClosedStream { conn: conn.handle(), farewell });
        self.live -= 1;
        if self.live == 0 {
            self.scratch = Vec::new();
            self.ready = VecDeque::new();
            self.unproven = VecDeque::new();
        }
    }
}

/// What the stream of a client begins with, to one of `targets`.
fn stream_side(
    config: &ClientConfig,
    plain: bool,
    targets: Vec<SocketAddr>,
) -> Result<StreamSide, ApiError> {
    let Some(&remote) = targets.first() else {
        return Err(ApiError::InvalidArgument { field: "remotes", why: "is empty" });
    };
    Ok(StreamSide {
        tls: config.tls.stream(&config.server_name, plain)?,
        plain,
        credential: config.credential.clone(),
        security: config.tls.security().clone(),
        remote,
        targets,
        local: None,
        socket: 0,
    })
}

impl Endpoint {
    /// Takes TCP connections that arrive on listening socket `socket` (a number of the caller's, in
    /// a space of its own). `plain`: clients may speak the plain protocol, too.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] names the field that is out of range.
    pub fn listen_stream(
        &mut self,
        socket: u16,
        config: ListenerConfig,
        plain: bool,
    ) -> Result<(), ApiError> {
        let listener = self.listener(config)?;
        self.streams.listeners.insert(socket, StreamListener { listener, plain });
        Ok(())
    }

    /// Takes no more of them; connections live on.
    pub fn unlisten_stream(&mut self, socket: u16) {
        self.streams.listeners.remove(&socket);
    }

    /// Starts a connection over what `link` says, to any of `remotes`, which are addresses of one
    /// host. `socket` is for datagrams.
    ///
    /// # Errors
    /// As [`Self::connect`] and [`Self::connect_stream`].
    pub fn connect_over(
        &mut self,
        now: Instant,
        link: ConnectLink,
        socket: u16,
        remotes: &[SocketAddr],
        config: &ClientConfig,
    ) -> Result<ConnHandle, ApiError> {
        match link {
            ConnectLink::Datagram => self.connect(now, socket, remotes, config),
            ConnectLink::Stream => self.connect_stream(now, remotes, config, false),
            ConnectLink::PlainStream => self.connect_stream(now, remotes, config, true),
            ConnectLink::Auto => self.connect_either(now, socket, remotes, config),
        }
    }

    /// Starts a connection over a stream to the first of `remotes` that takes one. `plain`: it speaks
    /// the plain protocol, frame headers, ChannelRequest and EOF only.
    ///
    /// # Errors
    /// Configuration out of range, TLS settings unusable, or too many connections.
    pub fn connect_stream(
        &mut self,
        now: Instant,
        remotes: &[SocketAddr],
        config: &ClientConfig,
        plain: bool,
    ) -> Result<ConnHandle, ApiError> {
        config.validate()?;
        let side = stream_side(config, plain, remotes.to_vec())?;
        let connection = self.settings(config);
        let handle = self.reserve()?;
        let conn =
            Connection::stream(now, handle, Role::Client, connection, side, &mut self.shared);
        self.shared.counters.connected += 1;
        self.streams.live += 1;
        self.insert(handle, conn);
        Ok(handle)
    }

    /// Starts a connection over datagrams and over a stream at once (native protocol). The link that
    /// first proves the host is kept, and only on that one the host's application hears of it: a
    /// network that drops UDP costs no timeout.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_either(
        &mut self,
        now: Instant,
        socket: u16,
        remotes: &[SocketAddr],
        config: &ClientConfig,
    ) -> Result<ConnHandle, ApiError> {
        // A socket for both families names IPv4 addresses in their mapped form.
        let own = |a: &SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        let side = stream_side(config, false, remotes.iter().map(own).collect())?;
        let handle = self.connect(now, socket, remotes, config)?;
        if let Some(conn) = &mut self.slots[handle.slot as usize].conn {
            conn.race(side);
            self.streams.live += 1;
        }
        Ok(handle)
    }

    /// Where the stream of a client's connection goes; `None` when it has none.
    pub fn stream_target(&self, conn: ConnHandle) -> Option<SocketAddr> {
        self.conn(conn).and_then(Connection::stream_target)
    }

    /// The same, all addresses of a client's stream that nobody has begun to connect.
    pub fn take_stream_targets(&mut self, conn: ConnHandle) -> Vec<SocketAddr> {
        // Nothing about the connection has changed: it is not touched.
        self.conn_mut(conn).map(Connection::take_stream_targets).unwrap_or_default()
    }

    /// Client: the TCP connection stands, between these addresses.
    pub fn stream_connected(
        &mut self,
        conn: ConnHandle,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) {
        self.with_stream(conn, |c| c.stream_connected(remote, local));
    }

    /// Takes over a TCP connection that `remote` has made.
    ///
    /// # Errors
    /// [`ApiError::NoConnection`] when nobody listens there, [`ApiError::LimitReached`]; the caller
    /// closes it then.
    pub fn accept_stream(
        &mut self,
        now: Instant,
        socket: u16,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<ConnHandle, ApiError> {
        let crowded = self.handshakes >= self.config.max_handshakes;
        let full = self.live >= self.config.max_connections;
        let has_room = !(crowded || full) || self.make_room(now);
        if crowded && !has_room {
            self.shared.counters.refused += 1;
            let limit = self.config.max_handshakes.into();
            return Err(ApiError::LimitReached { what: "max_handshakes", limit });
        }
        let Some(StreamListener { listener, plain }) = self.streams.listeners.get(&socket) else {
            return Err(ApiError::NoConnection("nobody listens here"));
        };
        let (plain, connection) = (*plain, listener.connection.clone());
        let side = StreamSide {
            tls: listener.tls.stream(plain)?,
            plain,
            credential: Vec::new(),
            security: listener.tls.security().clone(),
            remote,
            targets: Vec::new(),
            local,
            socket,
        };
        let handle = self.reserve().inspect_err(|_| self.shared.counters.refused += 1)?;
        let conn = Connection::stream(now, handle, Role::Host, connection, side, &mut self.shared);
        self.shared.counters.accepted += 1;
        self.streams.live += 1;
        self.insert(handle, conn);
        self.note_unproven(handle);
        Ok(handle)
    }

    fn with_stream(&mut self, conn: ConnHandle, call: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.conn_mut(conn).filter(|c| c.has_stream()) {
            call(connection);
            self.touch(conn.slot);
        }
    }

    /// Tells what came up in calls without a sink: it happened before what follows.
    fn replay<S: Sink>(&mut self, sink: &mut S) {
        if !self.deferred.is_empty() {
            self.deferred.replay(sink);
        }
    }

    /// Takes bytes of the stream of `conn`, in order. A batch ends with [`Endpoint::end_batch`].
    pub fn stream_receive<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        bytes: &[u8],
        sink: &mut S,
    ) {
        self.replay(sink);
        self.with_stream(conn, |c| c.stream_receive(now, bytes, sink));
    }

    /// The peer's direction of the TCP connection has ended.
    pub fn stream_finished<S: Sink>(&mut self, now: Instant, conn: ConnHandle, sink: &mut S) {
        self.replay(sink);
        self.with_stream(conn, |c| c.stream_finished(now, sink));
    }

    /// The TCP connection could not be made, or broke; `text` says why.
    pub fn stream_failed<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        text: &str,
        sink: &mut S,
    ) {
        self.replay(sink);
        self.with_stream(conn, |c| c.stream_failed(now, text, sink));
    }

    /// A connection over a stream that may have something to send. Call it when
    /// [`Endpoint::poll_transmit`] has given `None`.
    pub fn next_stream(&mut self) -> Option<ConnHandle> {
        while let Some(slot) = self.streams.ready.pop_front() {
            let entry = &self.slots[slot as usize];
            if let Some(conn) = entry.conn.as_ref().filter(|c| c.has_stream()) {
                return Some(conn.handle());
            }
        }
        None
    }

    /// Writes the next bytes of the stream of `conn` into `out`, which has room for at least
    /// [`MIN_STREAM_BUFFER`]; gives how many. The call says that all of what was written last has been
    /// sent, and on a plain link nothing else does: after the last bytes, too, it has to be called
    /// once more, until it gives 0.
    pub fn stream_transmit(&mut self, now: Instant, conn: ConnHandle, out: &mut [u8]) -> usize {
        if self.conn(conn).is_none() {
            return 0;
        }
        let mut scratch = core::mem::take(&mut self.streams.scratch);
        scratch.resize(STREAM_RECORD, 0);
        let mut deferred = core::mem::take(&mut self.deferred);
        let (n, changed) = self
            .conn_mut(conn)
            .map_or((0, false), |c| c.stream_transmit(now, out, &mut scratch, &mut deferred));
        self.deferred = deferred;
        self.streams.scratch = scratch;
        if n > 0 || changed {
            self.touch_quietly(conn.slot);
        }
        n
    }

    /// What the stream of `conn` needs once everything written was sent.
    pub fn stream_needs(&self, conn: ConnHandle) -> StreamNeeds {
        self.conn(conn).map_or(StreamNeeds::Close, Connection::stream_needs)
    }

    /// Whether the stream of `conn` may be read from. It may be again when the connection has been
    /// named by [`Endpoint::next_stream`].
    pub fn stream_is_readable(&self, conn: ConnHandle) -> bool {
        self.conn(conn).is_some_and(Connection::stream_is_readable)
    }

    /// A connection that is gone: its socket is to be closed when what was written is sent.
    pub fn closed_stream(&mut self) -> Option<ClosedStream> {
        let closed = self.streams.closed.pop_front();
        if closed.is_none() && self.streams.live == 0 {
            self.streams.closed.shrink_to_fit();
        }
        closed
    }

    /// Makes room for one more handshake: the oldest TCP connection that has proved nothing goes, so
    /// that silence keeps nobody out. `false` when there is none.
    fn make_room(&mut self, now: Instant) -> bool {
        while let Some(oldest) = self.streams.unproven.pop_front() {
            if self.is_unproven(oldest) {
                self.shared.counters.refused += 1;
                self.drop_quietly(now, oldest.slot);
                return true;
            }
        }
        false
    }

    fn is_unproven(&self, conn: ConnHandle) -> bool {
        self.conn(conn).is_some_and(|c| c.is_counted_as_handshake() && !c.is_told())
    }

    /// A TCP connection was taken.
    fn note_unproven(&mut self, conn: ConnHandle) {
        let mut unproven = core::mem::take(&mut self.streams.unproven);
        while unproven.front().is_some_and(|first| !self.is_unproven(*first)) {
            unproven.pop_front();
        }
        // One that takes long must not let those behind it pile up.
        if unproven.len() >= 2 * self.config.max_handshakes as usize {
            unproven.retain(|conn| self.is_unproven(*conn));
        }
        unproven.push_back(conn);
        self.streams.unproven = unproven;
    }
}
