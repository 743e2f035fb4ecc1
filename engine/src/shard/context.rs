//! What a handler can do: the shard's side of every call to it.

mod managed;

use super::bind::bind_links;
use super::control::{AddListener, listener_config};
use super::core::Core;
use super::relay::Relays;
use super::sockets::Family;
use super::stun::StunPacket;
use crate::Listener;
use crate::buf::{Retainer, SendBuf};
use crate::config::{ConnectConfig, ListenConfig};
use crate::error::EngineError;
use crate::handle::{Channel, Conn, ListenerId, TimerId};
use crate::retained::{Block, Retained};
use crate::sync::Arc;
use std::fmt;
use std::net::SocketAddr;
use trunkline_proto::channel::ChannelInfo;
use trunkline_proto::config::ChannelOptions;
use trunkline_proto::endpoint::{ConnInfo, ConnStats, SendOptions};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::ConnHandle;
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// A lease is worth it for at least this part of a receive buffer; less is copied, so that a small
/// message never pins a large buffer.
const LEASE_FRACTION: usize = 8;

/// Where the bytes of the current call are kept.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub retainer: Retainer<'a>,
    pub owned: Option<&'a Arc<Block>>,
}

impl Source<'_> {
    pub(crate) const NONE: Self = Self { retainer: Retainer::none(), owned: None };
}

/// The shard, as a handler's call sees it.
pub struct Context<'a> {
    core: &'a mut Core,
    source: Source<'a>,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("shard", &self.core.shard).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    pub(crate) const fn new(core: &'a mut Core, source: Source<'a>) -> Self {
        Self { core, source }
    }

    /// The time of this turn; read once a turn.
    pub const fn now(&self) -> Instant {
        self.core.now
    }

    /// The number of this shard.
    pub const fn shard(&self) -> u8 {
        self.core.shard
    }

    /// Number of shards of the engine.
    pub fn shards(&self) -> usize {
        self.core.shared.config.shards
    }

    /// Accepts connections at an address, on this shard alone. (All shards of an engine listen
    /// with [`Engine::listen`](crate::Engine::listen).)
    ///
    /// # Errors
    /// Unusable settings, or the system's refusal of the address.
    pub fn listen(&mut self, config: &ListenConfig) -> Result<Listener, EngineError> {
        let listener = listener_config(config, self.core.shared.key_log.clone())?;
        let bytes = self.core.shared.config.socket_buffer_bytes;
        let failed = |e| EngineError::system(format!("listen at {}", config.addr), e);
        let mut bound = bind_links(config.addr, config.links, 1, bytes).map_err(failed)?;
        let local_addr = bound.local_addr;
        let id = self.core.shared.new_listener();
        self.core
            .listen(AddListener {
                id,
                addr: local_addr,
                socket: bound.datagrams.pop().flatten(),
                stream: bound.streams.pop().flatten(),
                links: config.links,
                stun: config.stun,
                config: listener,
                result: None,
            })
            .map_err(failed)?;
        Ok(Listener { id, local_addr })
    }

    /// Accepts no more connections there. Those that exist live on unless `close_connections`.
    pub fn unlisten(&mut self, id: ListenerId, close_connections: bool) {
        self.core.unlisten(id, close_connections);
    }

    /// Starts a connection, or finds one to share as [`ConnectConfig::reuse`] says.
    ///
    /// # Errors
    /// Unusable settings, too many connections, or none to share with
    /// [`Reuse::NeverNew`](crate::Reuse::NeverNew).
    pub fn connect(&mut self, config: &ConnectConfig) -> Result<Conn, ApiError> {
        let handle = self.core.connect(config)?;
        Ok(self.core.conn(handle))
    }

    pub(crate) const fn conn(&self, handle: ConnHandle) -> Conn {
        self.core.conn(handle)
    }

    pub(crate) const fn relays(&mut self) -> &mut Relays {
        &mut self.core.relays
    }

    /// Starts a connection to whom `relay` stands for; the addresses of `config` do not count.
    pub(crate) fn connect_relayed(
        &mut self,
        relay: SocketAddr,
        config: &ConnectConfig,
    ) -> Result<Conn, ApiError> {
        let handle = self.core.connect_relayed(relay, config)?;
        Ok(self.core.conn(handle))
    }

    /// Accepts connections of whom the address of `config` stands for, over a relay.
    pub(crate) fn listen_relayed(&mut self, config: &ListenConfig) -> Result<(), ApiError> {
        let listener = listener_config(config, self.core.shared.key_log.clone())?;
        self.core.endpoint.listen_relayed(config.addr, listener)
    }

    /// The peer that `relay` stands for is not spoken with any more.
    pub(crate) fn leave_relayed(&mut self, relay: SocketAddr) {
        self.core.endpoint.unlisten_relayed(relay);
        self.core.relays.retire(relay);
    }

    pub(crate) fn route_key(&self, conn: Conn) -> Option<[u8; 32]> {
        self.core.endpoint.route_key(self.core.own(conn).ok()?)
    }

    /// The socket of direct paths of a family, and its port.
    pub(crate) fn path_socket(&mut self, v6: bool) -> Result<(u16, u16), ApiError> {
        self.core.path_socket(if v6 { Family::V6 } else { Family::V4 })
    }

    pub(crate) fn try_path(
        &mut self,
        conn: Conn,
        socket: u16,
        remote: SocketAddr,
    ) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.try_path(self.core.now, handle, socket, remote)
    }

    pub(crate) fn use_relay(&mut self, conn: Conn) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.use_relay(self.core.now, handle)
    }

    pub(crate) fn fall_back(&mut self, conn: Conn) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.fall_back(self.core.now, handle)
    }

    pub(crate) fn send_stun(&mut self, packet: StunPacket) {
        self.core.stun.say(packet);
    }

    /// Host: takes a connection.
    ///
    /// # Errors
    /// A stale handle, or a connection that does not wait for this.
    pub fn accept(&mut self, conn: Conn) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.accept(self.core.now, handle)
    }

    /// Host: refuses a connection. The peer learns `code` (1000–2999) and `text`.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn reject(&mut self, conn: Conn, code: u32, text: &str) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.reject(self.core.now, handle, code, text)?;
        self.core.note_closed(handle);
        Ok(())
    }

    /// Closes a connection; with `linger`, reliable data is delivered first, for at most that
    /// long. The handle is stale afterwards, and nothing but
    /// [`on_dead`](crate::Handler::on_dead) is told about it any more.
    ///
    /// # Errors
    /// A stale handle.
    pub fn close(
        &mut self,
        conn: Conn,
        code: u32,
        text: &str,
        linger: Option<Duration>,
    ) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.close(self.core.now, handle, code, text, linger)?;
        self.core.note_closed(handle);
        Ok(())
    }

    /// The status; [`Status::None`] for a stale handle.
    pub fn status(&self, conn: Conn) -> Status {
        self.core.own(conn).map_or(Status::None, |handle| self.core.endpoint.status(handle))
    }

    /// What is known of a connection.
    pub fn info(&self, conn: Conn) -> Option<ConnInfo> {
        self.core.endpoint.info(self.core.own(conn).ok()?)
    }

    /// Counters and gauges of a connection.
    pub fn stats(&self, conn: Conn) -> Option<ConnStats> {
        self.core.endpoint.stats(self.core.own(conn).ok()?)
    }

    /// The channels of a connection that the application knows, in no particular order.
    pub fn channels(&self, conn: Conn) -> Vec<Channel> {
        let found = self.core.own(conn).ok().map(|handle| self.core.endpoint.channels(handle));
        found.into_iter().flatten().map(|key| Channel::new(conn, key)).collect()
    }

    /// What can be told about a channel.
    pub fn channel_info(&self, channel: Channel) -> Option<ChannelInfo<'_>> {
        let handle = self.core.own(channel.conn()).ok()?;
        self.core.endpoint.channel_info(handle, channel.key())
    }

    /// The longest reliable message that a connection carries: our own limit, and once it is
    /// connected no more than the peer's.
    pub fn max_message(&self, conn: Conn) -> Option<usize> {
        self.core.endpoint.max_message(self.core.own(conn).ok()?)
    }

    /// Every connection of this shard, whatever its status.
    pub fn connections(&self) -> impl Iterator<Item = Conn> + '_ {
        self.core.endpoint.connections().map(|handle| self.core.conn(handle))
    }

    /// Asks the peer for a sign of life; no answer within the configured time ends the connection.
    ///
    /// # Errors
    /// A stale handle or one that is not connected.
    pub fn check(&mut self, conn: Conn) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.check(self.core.now, handle)
    }

    /// Opens a channel; data may be sent on it at once.
    ///
    /// # Errors
    /// A stale handle, a connection that has ended, unusable options, or too many channels.
    pub fn open_channel(
        &mut self,
        conn: Conn,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<Channel, ApiError> {
        let handle = self.core.own(conn)?;
        let key = self.core.endpoint.open_channel(self.core.now, handle, name, options)?;
        Ok(Channel::new(conn, key))
    }

    /// Accepts a channel that the peer asked for, with our own priority, weight and window.
    ///
    /// # Errors
    /// A stale handle, or a channel that does not wait for this.
    pub fn accept_channel(
        &mut self,
        channel: Channel,
        options: &ChannelOptions,
    ) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.accept_channel(self.core.now, handle, channel.key(), options)
    }

    /// Declines a channel that the peer asked for; the others live on.
    ///
    /// # Errors
    /// As [`accept_channel`](Self::accept_channel).
    pub fn decline_channel(
        &mut self,
        channel: Channel,
        code: u32,
        text: &str,
    ) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.decline_channel(self.core.now, handle, channel.key(), code, text)
    }

    /// Sends a copy of `data`: the next bytes of a `bytes` channel, or one message.
    ///
    /// # Errors
    /// [`ApiError::WouldBlock`] when a buffer is full: nothing was taken, and
    /// [`on_writable`](crate::Handler::on_writable) follows. Otherwise see [`ApiError`].
    #[inline]
    pub fn send(&mut self, channel: Channel, data: &[u8]) -> Result<(), ApiError> {
        self.send_with(channel, data, SendOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_with(
        &mut self,
        channel: Channel,
        data: &[u8],
        options: SendOptions,
    ) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.ahead.before_send(&self.core.endpoint, handle.slot);
        self.core.endpoint.send(self.core.now, handle, channel.key(), data, options)
    }

    /// Sends without copying before the packet; `data` is let go when all of it is acknowledged.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_payload(
        &mut self,
        channel: Channel,
        data: Payload,
        options: SendOptions,
    ) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.send_payload(self.core.now, handle, channel.key(), data, options)
    }

    /// A buffer of the engine to write a payload into; `None` when `len` is more than one holds, or
    /// when all are in use: [`on_batch_end`](crate::Handler::on_batch_end) follows as soon as one is
    /// free. Send it with [`SendBuf::freeze`] and [`send_payload`](Self::send_payload).
    pub fn send_buf(&mut self, len: usize) -> Option<SendBuf> {
        let pool = &self.core.send_pool;
        if len > pool.buffer_bytes() {
            return None;
        }
        let buf = pool.take();
        self.core.wants_send_buf |= buf.is_none();
        buf
    }

    /// Ends our direction: the peer sees the EOF after everything sent so far.
    ///
    /// # Errors
    /// A stale handle, or a direction that has ended.
    pub fn finish(&mut self, channel: Channel) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.finish_channel(self.core.now, handle, channel.key())
    }

    /// Cancels what we are sending; what was not delivered never will be.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn reset(&mut self, channel: Channel, code: u32) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.reset_channel(self.core.now, handle, channel.key(), code)
    }

    /// Refuses the rest of what the peer sends.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn stop(&mut self, channel: Channel, code: u32) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.stop_channel(self.core.now, handle, channel.key(), code)
    }

    /// Sends now what waits to be sent together with more.
    ///
    /// # Errors
    /// A stale handle.
    pub fn flush(&mut self, channel: Channel) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.flush_channel(self.core.now, handle, channel.key())
    }

    /// Returns credit for received bytes, on connections with
    /// [`manual_credit`](crate::ConnectionConfig::manual_credit).
    ///
    /// # Errors
    /// A stale handle.
    pub fn consume(&mut self, channel: Channel, bytes: u64) -> Result<(), ApiError> {
        let handle = self.core.own(channel.conn())?;
        self.core.endpoint.consume(self.core.now, handle, channel.key(), bytes)
    }

    /// Returns credit for received bytes of a channel that has ended.
    ///
    /// # Errors
    /// A stale handle.
    pub fn consume_ended(&mut self, conn: Conn, bytes: u64) -> Result<(), ApiError> {
        let handle = self.core.own(conn)?;
        self.core.endpoint.consume_ended(handle, bytes)
    }

    /// How many bytes of a channel may be taken before [`consume`](Self::consume) is called, without
    /// the peer ever having to wait for them; `None` for a stale handle. Changes with each `consume`
    /// and with [`Handler::on_credit_short`](crate::Handler::on_credit_short).
    pub fn credit_step(&self, channel: Channel) -> Option<u64> {
        let handle = self.core.own(channel.conn()).ok()?;
        self.core.endpoint.credit_step(handle, channel.key())
    }

    /// Keeps bytes that this call was given (or any others) beyond it: in place when they are a
    /// large part of their buffer and buffers are plentiful, otherwise as a copy.
    pub fn retain(&self, bytes: &[u8]) -> Retained {
        self.retain_shared(bytes).unwrap_or_else(|| Retained::copy(bytes))
    }

    /// The same without the copy.
    pub(crate) fn retain_shared(&self, bytes: &[u8]) -> Option<Retained> {
        if let Some(owned) = self.source.owned {
            let offset = (bytes.as_ptr() as usize).wrapping_sub(owned.as_ptr() as usize);
            if offset <= owned.len() && bytes.len() <= owned.len() - offset {
                return Some(Retained::part(owned.clone(), offset as u32, bytes.len() as u32));
            }
        }
        if bytes.len() * LEASE_FRACTION < self.source.retainer.buffer_bytes() {
            return None;
        }
        self.source.retainer.lease(bytes).map(Retained::lease)
    }

    /// Calls [`on_timer`](crate::Handler::on_timer) with `token` once, `after` this turn's time.
    pub fn set_timer(&mut self, after: Duration, token: u64) -> TimerId {
        self.core.timers.set(self.core.now + after, token)
    }

    /// The same at a moment.
    pub fn set_timer_at(&mut self, at: Instant, token: u64) -> TimerId {
        self.core.timers.set(at, token)
    }

    /// Cancels a timer; `false` when it has fired or was cancelled.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.core.timers.cancel(timer)
    }

    /// The local network has changed: connections are checked at once, and clients move theirs.
    pub fn network_changed(&mut self) {
        self.core.endpoint.network_changed(self.core.now);
    }
}
