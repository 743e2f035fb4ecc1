//! The application's calls, by handle.

use super::{
    ClientConfig, ConnInfo, ConnStats, Endpoint, EndpointStats, Listener, ListenerConfig,
    SendOptions, Transmit,
};
use crate::channel::{ChannelInfo, Mux};
use crate::config::{ChannelOptions, ConnectionConfig};
use crate::connection::{ClientSide, Connection, SecInfo};
use crate::deferred::Deferred;
use crate::error::{ApiError, CloseReason};
use crate::handshake::HandshakeState;
use crate::ids::{ChannelKey, ConnHandle, Role};
use crate::payload::Payload;
use crate::status::Status;
use crate::time::{Duration, Instant};
use crate::wire::control::{Activity, encode_activity};
use std::net::SocketAddr;
use std::sync::Arc;

impl Endpoint {
    /// Answers ConnectionRequests that arrive on `socket`.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] names the field that is out of range.
    pub fn listen(&mut self, socket: u16, listener: ListenerConfig) -> Result<(), ApiError> {
        let listener = self.listener(listener)?;
        self.listeners.sockets.insert(socket, listener);
        Ok(())
    }

    /// Stops answering; connections live on.
    pub fn unlisten(&mut self, socket: u16) {
        self.listeners.sockets.remove(&socket);
    }

    /// Starts a connection; the same request goes to every address, the first valid answer decides.
    ///
    /// # Errors
    /// Configuration out of range, TLS settings unusable, or too many connections.
    pub fn connect(
        &mut self,
        now: Instant,
        socket: u16,
        remotes: &[SocketAddr],
        config: &ClientConfig,
    ) -> Result<ConnHandle, ApiError> {
        config.validate()?;
        let connection = self.settings(config);
        self.begin(now, connection, socket, remotes, config)
    }

    /// What a listener keeps of its configuration.
    pub(super) fn listener(&self, config: ListenerConfig) -> Result<Listener, ApiError> {
        if let Some(connection) = &config.connection {
            connection.validate()?;
        }
        let connection = config.connection.map_or_else(|| self.connection.clone(), Arc::new);
        Ok(Listener { tls: config.tls, connection })
    }

    /// The settings of a client's connection.
    pub(super) fn settings(&self, config: &ClientConfig) -> Arc<ConnectionConfig> {
        let own = config.connection.as_ref();
        own.map_or_else(|| self.connection.clone(), |own| Arc::new(own.clone()))
    }

    /// Puts a client's connection over datagrams into the table.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        connection: Arc<ConnectionConfig>,
        socket: u16,
        remotes: &[SocketAddr],
        config: &ClientConfig,
    ) -> Result<ConnHandle, ApiError> {
        let side = ClientSide {
            tls: &config.tls,
            server_name: &config.server_name,
            credential: &config.credential,
            remotes,
            socket,
        };
        let handle = self.reserve()?;
        match Connection::client(now, handle, connection, &side, &mut self.shared) {
            Ok(conn) => {
                self.shared.counters.connected += 1;
                self.insert(handle, conn);
                Ok(handle)
            }
            Err(error) => {
                self.free.push(handle.slot);
                Err(error)
            }
        }
    }

    /// Runs `call` on a connection whose handle the application still owns.
    pub(super) fn with<R>(
        &mut self,
        handle: ConnHandle,
        call: impl FnOnce(&mut Connection, &mut Deferred) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        if self.open(handle).is_none() {
            return Err(ApiError::InvalidHandle);
        }
        // Before the call, whose result then is ours as it stands: copying it would wait for every
        // store before it, those that miss the caches too.
        self.touch(handle.slot);
        let conn = self.slots[handle.slot as usize].conn.as_mut();
        call(conn.ok_or(ApiError::InvalidHandle)?, &mut self.deferred)
    }

    /// Runs `call` on the channels of a connection that can still send.
    fn with_mux<R>(
        &mut self,
        handle: ConnHandle,
        call: impl FnOnce(&mut Mux) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        self.with(handle, |conn, _| {
            conn.usable()?;
            call(conn.mux())
        })
    }

    /// Host: the application takes the connection. Over a relay one of our own to the same peer that
    /// has come no further than Connecting gives way to it. If that goes first and the peer may be
    /// accepting it, this one waits until that is decided, and gives way in its turn.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`]; [`ApiError::NoConnection`] when there is nothing to accept.
    pub fn accept(&mut self, now: Instant, conn: ConnHandle) -> Result<(), ApiError> {
        self.with(conn, |c, sink| c.accept(now, sink))?;
        let mut deferred = core::mem::take(&mut self.deferred);
        self.judge_one(now, conn.slot, &mut deferred);
        self.deferred = deferred;
        Ok(())
    }

    /// Host: the application refuses the connection; the peer learns code and text. The handle is
    /// invalid afterwards.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub fn reject(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        code: u32,
        text: &str,
    ) -> Result<(), ApiError> {
        self.with(conn, |c, sink| c.reject(now, code, text, sink))
    }

    /// Closes. With `linger`, reliable data is delivered first, for at most that long; the peer
    /// sees nothing of the close before. The handle is invalid afterwards.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`], also for a second close.
    pub fn close(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        code: u32,
        text: &str,
        linger: Option<Duration>,
    ) -> Result<(), ApiError> {
        self.with(conn, |c, sink| c.close(now, code, text, linger, sink))?;
        self.deferred.forget_channels(conn);
        Ok(())
    }

    /// Closes every connection for a reason of the engine's own (it shuts down, a handler failed).
    pub fn close_all(&mut self, now: Instant, reason: &CloseReason, linger: Option<Duration>) {
        for slot in 0..self.slots.len() as u32 {
            let Some(conn) = &mut self.slots[slot as usize].conn else { continue };
            if conn.status().is_open_to_application() {
                conn.close_with(now, reason.clone(), linger, &mut self.deferred);
                let handle = conn.handle();
                self.deferred.forget_channels(handle);
                self.touch(slot);
            }
        }
    }

    /// The status; [`Status::None`] for a stale handle or one that was closed.
    pub fn status(&self, conn: ConnHandle) -> Status {
        self.open(conn).map_or(Status::None, Connection::status)
    }

    /// Pings the peer; no answer within the configured `check_timeout` ends the connection.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`], [`ApiError::NoConnection`].
    pub fn check(&mut self, now: Instant, conn: ConnHandle) -> Result<(), ApiError> {
        self.with(conn, |c, _| c.check(now))
    }

    /// A hint that the local network changed: pings every connection, as a client from a fresh
    /// connection id.
    pub fn network_changed(&mut self, now: Instant) {
        for slot in 0..self.slots.len() as u32 {
            if let Some(conn) = &mut self.slots[slot as usize].conn {
                conn.network_changed(now, &mut self.shared);
                self.touch(slot);
            }
        }
    }

    // ---- security

    /// Client, right after [`Self::connect`]: once the host has proved itself,
    /// [`Sink::security`](crate::event::Sink::security) is told and nothing more is sent before
    /// [`Self::answer_security`]; the initial timeout goes on.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`]; [`ApiError::NoConnection`] when it is too late to ask.
    pub fn ask_security(&mut self, conn: ConnHandle) -> Result<(), ApiError> {
        self.with(conn, |c, _| c.ask_security())
    }

    /// Client: what becomes of a connection whose host has proved itself. `Ok(None)` goes on with
    /// the credential of the connect, `Ok(Some(_))` with another one, `Err(text)` ends the attempt
    /// as [`Reason::AUTHENTICATION`](crate::error::Reason::AUTHENTICATION).
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`]; [`ApiError::NoConnection`] when nothing was asked;
    /// [`ApiError::InvalidArgument`] for a credential of more than 8192 bytes.
    pub fn answer_security(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        answer: Result<Option<&[u8]>, &str>,
    ) -> Result<(), ApiError> {
        self.with(conn, |c, sink| c.answer_security(now, answer, sink))
    }

    /// What is known of a connection's security; `None` for a stale handle. Before the peer has
    /// proved itself only our own side of it is known ([`SecInfo::is_proven`]).
    pub fn sec_info(&self, conn: ConnHandle) -> Option<SecInfo> {
        self.open(conn).map(Connection::sec_info)
    }

    /// Tells the peer how much we still want of the connection.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`]; [`ApiError::NoConnection`] unless it is Connected.
    pub fn send_activity(&mut self, conn: ConnHandle, activity: Activity) -> Result<(), ApiError> {
        self.with(conn, |c, _| {
            if c.status() != Status::Connected {
                return Err(ApiError::NoConnection("not connected"));
            }
            let mut message = Vec::new();
            encode_activity(&mut message, activity);
            c.mux().send_control(&message);
            Ok(())
        })
    }

    /// When a frame of a channel last came or went on a connection; keep-alives and messages of the
    /// connection itself do not count. `None` before the first, and for a stale handle.
    pub fn moved_at(&self, conn: ConnHandle) -> Option<Instant> {
        self.open(conn).and_then(|c| c.mux_ref().moved_at())
    }

    // ---- channels

    /// Opens a channel; it can be sent on at once (queued until Connected).
    ///
    /// # Errors
    /// Name or options out of range, no free id, no connection.
    pub fn open_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<ChannelKey, ApiError> {
        self.with(conn, |c, _| {
            c.usable()?;
            let next_pn = c.next_pn();
            c.mux().open(now, name, options, next_pn)
        })
    }

    /// Accepts a requested channel with our own priority, weight and window.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`], [`ApiError::WrongChannel`] when it was answered before.
    pub fn accept_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        options: &ChannelOptions,
    ) -> Result<(), ApiError> {
        self.with(conn, |c, _| {
            c.usable()?;
            let next_pn = c.next_pn();
            c.mux().accept(now, channel, options, next_pn)
        })
    }

    /// Declines a requested channel.
    ///
    /// # Errors
    /// As [`Self::accept_channel`].
    pub fn decline_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        code: u32,
        text: &str,
    ) -> Result<(), ApiError> {
        self.with(conn, |c, _| {
            c.usable()?;
            let next_pn = c.next_pn();
            c.mux().decline(now, channel, code, text, next_pn)
        })
    }

    /// Sends a copy of `data`: the next bytes of a `bytes` channel, or one message.
    ///
    /// # Errors
    /// [`ApiError::WouldBlock`] when the buffers are full (a writable event follows),
    /// [`ApiError::MessageTooLarge`], [`ApiError::Dropped`] for unreliable messages that cannot go
    /// now, [`ApiError::NoConnection`], [`ApiError::InvalidHandle`].
    pub fn send(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        data: &[u8],
        options: SendOptions,
    ) -> Result<(), ApiError> {
        self.with_mux(conn, |m| {
            if options.over_limit {
                m.send_unbounded(now, channel, data, options)
            } else {
                m.send(now, channel, data, options)
            }
        })
    }

    /// The same without a copy before the packet.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_payload(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        data: Payload,
        options: SendOptions,
    ) -> Result<(), ApiError> {
        self.with_mux(conn, |m| {
            if options.over_limit {
                m.send_payload_unbounded(now, channel, data, options)
            } else {
                m.send_payload(now, channel, data, options)
            }
        })
    }

    /// Ends our direction: EOF after everything sent so far.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`], [`ApiError::NoConnection`].
    pub fn finish_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
    ) -> Result<(), ApiError> {
        self.with_mux(conn, |m| m.finish(now, channel))
    }

    /// Cancels what we are sending; the peer learns the code.
    ///
    /// # Errors
    /// As [`Self::finish_channel`].
    pub fn reset_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        code: u32,
    ) -> Result<(), ApiError> {
        self.with_mux(conn, |m| m.reset(now, channel, code))
    }

    /// Refuses the rest of what the peer sends.
    ///
    /// # Errors
    /// As [`Self::finish_channel`].
    pub fn stop_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        code: u32,
    ) -> Result<(), ApiError> {
        self.with_mux(conn, |m| m.stop(now, channel, code))
    }

    /// Sends now what waits for coalescing.
    ///
    /// # Errors
    /// As [`Self::finish_channel`].
    pub fn flush_channel(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
    ) -> Result<(), ApiError> {
        self.with_mux(conn, |m| m.flush(now, channel))
    }

    /// Returns credit for `bytes` taken by the application (with `manual_credit`).
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`].
    pub fn consume(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
        bytes: u64,
    ) -> Result<(), ApiError> {
        self.with(conn, |c, _| c.mux().consume(now, channel, bytes))
    }

    /// The same for a channel that has ended, whose key need not be known any more.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`].
    pub fn consume_ended(&mut self, conn: ConnHandle, bytes: u64) -> Result<(), ApiError> {
        self.with(conn, |c, _| {
            c.mux().consume_ended(bytes);
            Ok(())
        })
    }

    // ---- views

    /// What is known of a connection; `None` for a stale handle.
    pub fn info(&self, conn: ConnHandle) -> Option<ConnInfo> {
        self.open(conn).map(Connection::info)
    }

    /// What the handshake of a connection waits for, also of one that the application was not told
    /// of (a client that has not proved itself). `None` when there is no such connection.
    pub fn handshake_state(&self, conn: ConnHandle) -> Option<HandshakeState> {
        self.conn(conn).map(Connection::handshake_state)
    }

    /// What a listening socket waits for: a ConnectionRequest. `None` when it does not listen.
    pub fn listener_state(&self, socket: u16) -> Option<HandshakeState> {
        self.listeners.sockets.get(&socket).map(|_| HandshakeState::first(Role::Host))
    }

    /// Its counters and gauges; `None` for a stale handle.
    pub fn stats(&self, conn: ConnHandle) -> Option<ConnStats> {
        self.open(conn).map(Connection::stats)
    }

    /// The longest reliable message that a connection carries: our own limit, and once it is
    /// connected no more than the peer's.
    pub fn max_message(&self, conn: ConnHandle) -> Option<usize> {
        self.open(conn).map(|c| c.mux_ref().max_message())
    }

    /// The channels of a connection that the application knows, in no particular order.
    pub fn channels(&self, conn: ConnHandle) -> Vec<ChannelKey> {
        self.open(conn).map_or_else(Vec::new, |c| c.mux_ref().keys().collect())
    }

    /// A channel's state; `None` for a stale handle or key.
    pub fn channel_info(&self, conn: ConnHandle, channel: ChannelKey) -> Option<ChannelInfo<'_>> {
        self.open(conn).and_then(|c| c.mux_ref().info(channel))
    }

    /// With `manual_credit`: bytes of a channel that the application may have taken before it calls
    /// [`Self::consume`], without the peer ever having to wait for them. `None` for a stale handle or
    /// key.
    pub fn credit_step(&self, conn: ConnHandle, channel: ChannelKey) -> Option<u64> {
        self.open(conn).and_then(|c| c.mux_ref().credit_step(channel))
    }

    /// The endpoint's counters.
    pub const fn endpoint_stats(&self) -> &EndpointStats {
        &self.shared.counters
    }

    /// Live connections, whatever their status.
    pub fn connections(&self) -> impl Iterator<Item = ConnHandle> + '_ {
        self.slots.iter().filter_map(|s| s.conn.as_ref().map(|c| c.handle()))
    }

    /// The live connection in a slot.
    pub fn in_slot(&self, slot: usize) -> Option<ConnHandle> {
        self.slots.get(slot)?.conn.as_ref().map(|c| c.handle())
    }

    /// The driver could not send a train. `too_large`: its packets are larger than the interface
    /// carries (EMSGSIZE).
    pub fn transmit_failed(&mut self, now: Instant, transmit: &Transmit, too_large: bool) {
        if !too_large {
            return;
        }
        for slot in 0..self.slots.len() as u32 {
            let Some(conn) = &mut self.slots[slot as usize].conn else { continue };
            if conn.remote() == transmit.remote {
                conn.transmit_failed(now, transmit.segment, too_large);
                self.touch(slot);
            }
        }
    }
}
