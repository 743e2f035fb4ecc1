//! The state of one shard that does not depend on its handler or its driver.

use super::ahead::Ahead;
use super::control::{AddListener, ShardEnd};
use super::limits::Admission;
use super::log::{EventLog, Recorder, block_pool};
use super::relay::Relays;
use super::shared::{Shared, new_send_pool};
use super::sockets::{Family, Purpose, Sockets};
use super::streams::Streams;
use super::stun::Stun;
use super::timers::AppTimers;
use crate::buf::SendPool;
use crate::capture::{ShardCapture, StreamTap};
use crate::config::{ConnectConfig, mapped};
use crate::error::EngineError;
use crate::handle::{Conn, ListenerId};
use crate::retained::BlockPool;
use crate::security::{Chosen, choose, client_of};
use crate::stats::{Durations, ShardCounters};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use trunkline_proto::endpoint::{Endpoint, EndpointConfig, ListenerConfig, SendOptions};
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::event::CloseReport;
use trunkline_proto::ids::{ConnHandle, ConnectLink};
use trunkline_proto::manager::{Manager, ManagerConfig, Target, Watch};
use trunkline_proto::time::{Duration, Instant};

/// What a shard must tell when its connections have ended.
pub(crate) struct Ending {
    /// When it stops waiting.
    pub deadline: Instant,
    /// How each connection ended so far.
    pub end: ShardEnd,
}

/// See the module.
pub(crate) struct Core {
    pub shard: u8,
    /// The time of this turn.
    pub now: Instant,
    pub endpoint: Endpoint,
    pub shared: Arc<Shared>,
    pub counters: Arc<ShardCounters>,
    pub sockets: Sockets,
    pub streams: Streams,
    pub timers: AppTimers,
    pub admission: Admission,
    pub ahead: Ahead,
    pub stun: Stun,
    pub relays: Relays,
    pub log: EventLog,
    pub blocks: BlockPool,
    /// Generation of the connection in each slot that the handler closed: it hears no more of that
    /// one but its end.
    closed: Vec<u32>,
    /// Send buffers of the handler.
    pub send_pool: SendPool,
    /// The handler asked for a send buffer when all were in use.
    pub wants_send_buf: bool,
    pub loop_time: Durations,
    pub ending: Option<Ending>,
    /// Listening socket of each accepted connection, by slot; `u16::MAX` = none.
    accepted_at: Vec<u16>,
    pub manager: Manager,
    /// Where streams are written to, if they are.
    pub capture: StreamTap,
}

pub(super) const NO_SOCKET: u16 = u16::MAX;

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, shard: u8, now: Instant) -> Result<Self, EngineError> {
        let capture = shared.capture.clone().map(|c| Arc::new(ShardCapture::new(c, shard)));
        let observer = capture.clone().map(|c| c as _);
        let config = EndpointConfig { observer, ..shared.endpoint_config(shard)? };
        let endpoint = Endpoint::new(now, config)?;
        let config = &shared.config;
        Ok(Self {
            shard,
            now,
            endpoint,
            counters: shared.counters[usize::from(shard)].clone(),
            sockets: Sockets::new(capture.clone()),
            streams: Streams::default(),
            timers: AppTimers::new(now),
            admission: Admission::new(config.handshakes_per_source_per_s, &config.deny),
            ahead: Ahead::default(),
            stun: Stun::new(config.stun, now),
            relays: Relays::default(),
            log: EventLog::default(),
            blocks: block_pool(),
            closed: Vec::new(),
            send_pool: new_send_pool(config)?,
            wants_send_buf: false,
            loop_time: Durations::new(),
            ending: None,
            accepted_at: Vec::new(),
            manager: Manager::new(ManagerConfig {
                hold: config.idle_hold.map(Into::into),
                security: config.security.clone(),
            }),
            capture: StreamTap(capture),
            shared,
        })
    }

    pub(crate) const fn conn(&self, handle: ConnHandle) -> Conn {
        Conn::new(self.shard, handle)
    }

    /// The handle of a connection of this shard.
    pub(crate) fn own(&self, conn: Conn) -> Result<ConnHandle, ApiError> {
        if conn.shard() == self.shard { Ok(conn.handle()) } else { Err(ApiError::InvalidHandle) }
    }

    pub(crate) fn connect(&mut self, config: &ConnectConfig) -> Result<ConnHandle, ApiError> {
        let chosen = choose(&self.shared, config)?;
        self.connect_chosen(&chosen)
    }

    pub(crate) fn connect_chosen(&mut self, chosen: &Chosen) -> Result<ConnHandle, ApiError> {
        let target = self.target(chosen)?;
        let connected = self.manager.connect(self.now, &mut self.endpoint, target)?;
        if !connected.reused {
            self.counters.connections_opened.add(1);
        }
        Ok(connected.conn)
    }

    /// A call of the endpoint that tells things about the bytes of `buffer`, which came through
    /// `socket`. The manager hears them first, the log keeps the rest.
    pub(super) fn hear<R>(
        &mut self,
        buffer: &mut [u8],
        socket: u16,
        call: impl FnOnce(&mut Endpoint, Instant, &mut [u8], &mut Watch<'_, Recorder<'_>>) -> R,
    ) -> R {
        let mut recorder = self.log.recorder(&mut self.blocks, buffer, socket);
        call(&mut self.endpoint, self.now, buffer, &mut self.manager.watch(&mut recorder))
    }

    /// Where a connect leads.
    pub(crate) fn target(&mut self, chosen: &Chosen) -> Result<Target, ApiError> {
        if self.ending.is_some() {
            return Err(ApiError::NoConnection("the engine is shutting down"));
        }
        let Chosen { config, client, .. } = chosen;
        let (socket, remotes) = match config.link {
            ConnectLink::Stream | ConnectLink::PlainStream => (NO_SOCKET, config.remotes.clone()),
            _ => self.client_side(&config.remotes)?,
        };
        let (reuse, handle, link) = (config.reuse, config.sec_handle, config.link);
        Ok(Target { reuse, handle, link, ..Target::new(socket, remotes, client.clone()) })
    }

    /// A socket for datagrams to some addresses, and how it names them.
    fn client_side(&mut self, remotes: &[SocketAddr]) -> Result<(u16, Vec<SocketAddr>), ApiError> {
        let family = Family::of(remotes);
        let buffer_bytes = self.shared.config.socket_buffer_bytes;
        match self.sockets.client(family, buffer_bytes) {
            Ok(socket) if family == Family::Both => {
                Ok((socket, remotes.iter().map(|r| mapped(*r)).collect()))
            }
            Ok(socket) => Ok((socket, remotes.to_vec())),
            // A system without IPv6: the IPv4 addresses are what is left.
            Err(_) if family == Family::Both => {
                let v4 = remotes.iter().copied().filter(SocketAddr::is_ipv4).collect();
                Ok((self.client_socket(Family::V4)?, v4))
            }
            Err(e) => Err(no_socket(&e)),
        }
    }

    /// Starts a connection to a peer that an event source's relay reaches at `relay`.
    pub(crate) fn connect_relayed(
        &mut self,
        relay: SocketAddr,
        config: &ConnectConfig,
    ) -> Result<ConnHandle, ApiError> {
        if self.ending.is_some() {
            return Err(ApiError::NoConnection("the engine is shutting down"));
        }
        let client = client_of(&self.shared, config)?;
        let conn = self.endpoint.connect_relayed(self.now, relay, &client)?;
        self.counters.connections_opened.add(1);
        Ok(conn)
    }

    /// Hands a packet to the relay. One that finds no room is lost, as on any path.
    pub(crate) fn relay(&mut self, to: SocketAddr, packet: &[u8]) {
        if let Some((channel, message)) = self.relays.wrap(to, packet) {
            let (conn, key) = (channel.conn().handle(), channel.key());
            let options = SendOptions::default();
            let _ = self.endpoint.send(self.now, conn, key, message, options);
        }
    }

    /// The socket of direct paths of a family, and its port.
    pub(crate) fn path_socket(&mut self, family: Family) -> Result<(u16, u16), ApiError> {
        let number = self.client_socket(family)?;
        let port = self.sockets.get(number).map_or(0, |entry| entry.local.port());
        Ok((number, port))
    }

    fn client_socket(&mut self, family: Family) -> Result<u16, ApiError> {
        let bytes = self.shared.config.socket_buffer_bytes;
        self.sockets.client(family, bytes).map_err(|e| no_socket(&e))
    }

    /// Takes over a listening socket of the engine.
    pub(crate) fn listen(&mut self, add: AddListener) -> io::Result<()> {
        if let Some(stream) = add.stream {
            let number = self.streams.listen(add.id, stream)?;
            self.endpoint
                .listen_stream(number, add.config.clone(), add.links.plain)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        }
        if !add.links.datagram {
            return Ok(());
        }
        if let Some(socket) = add.socket {
            let socket = self.sockets.add(socket, Purpose::Listen(add.id))?;
            self.listen_on(socket, add.addr, add.id, &add.config)?;
        } else if self.awaken(add.addr, add.id, &add.config) == 0 {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.sockets.set_stun(add.id, add.stun);
        Ok(())
    }

    /// Listens with a socket that the driver has already.
    pub(crate) fn listen_adopted(
        &mut self,
        driver: u16,
        local: SocketAddr,
        id: ListenerId,
        config: &ListenerConfig,
    ) -> io::Result<()> {
        let socket = self.sockets.adopt(driver, local, Purpose::Listen(id))?;
        self.listen_on(socket, local, id, config)
    }

    fn listen_on(
        &mut self,
        socket: u16,
        local: SocketAddr,
        id: ListenerId,
        config: &ListenerConfig,
    ) -> io::Result<()> {
        // Sockets of an earlier listener at this address still get part of the requests.
        self.awaken(local, id, config);
        self.endpoint
            .listen(socket, config.clone())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
    }

    /// Sockets at this address that listened once do so again. Returns how many there are.
    fn awaken(&mut self, local: SocketAddr, id: ListenerId, config: &ListenerConfig) -> usize {
        let dormant: Vec<u16> = self
            .sockets
            .iter()
            .filter(|(_, e)| matches!(e.purpose, Purpose::Dormant(_)) && e.local == local)
            .map(|(n, _)| n)
            .collect();
        for number in &dormant {
            if self.endpoint.listen(*number, config.clone()).is_ok() {
                self.sockets.awaken(*number, id);
            }
        }
        dormant.len()
    }

    pub(crate) fn unlisten(&mut self, id: ListenerId, close_connections: bool) {
        let numbers: Vec<u16> = self
            .sockets
            .iter()
            .filter(|(_, e)| e.purpose == Purpose::Listen(id))
            .map(|(n, _)| n)
            .collect();
        for number in self.streams.unlisten(id) {
            self.endpoint.unlisten_stream(number);
        }
        let mut accepted = self.streams.accepted_by(id);
        for number in numbers {
            self.endpoint.unlisten(number);
            self.sockets.make_dormant(number);
            let through = |c: &ConnHandle| self.accepted_socket(*c) == Some(number);
            accepted.extend(self.endpoint.connections().filter(through));
        }
        if !close_connections {
            return;
        }
        for conn in accepted {
            let text = "the listener was closed";
            let _ = self.endpoint.close(self.now, conn, Reason::APP.0, text, None);
        }
    }

    pub(crate) fn unlisten_all(&mut self) {
        let listening = self.sockets.iter().filter_map(|(_, e)| match e.purpose {
            Purpose::Listen(id) => Some(id),
            _ => None,
        });
        let ids: Vec<ListenerId> = listening.chain(self.streams.listener_ids()).collect();
        for id in ids {
            self.unlisten(id, false);
        }
    }

    /// The handler has closed a connection.
    pub(crate) fn note_closed(&mut self, conn: ConnHandle) {
        let at = conn.slot as usize;
        if self.closed.len() <= at {
            self.closed.resize(at + 1, 0);
        }
        self.closed[at] = conn.generation;
    }

    /// Whether the handler has closed a connection.
    #[inline]
    pub(crate) fn is_closed(&self, conn: ConnHandle) -> bool {
        self.closed.get(conn.slot as usize) == Some(&conn.generation)
    }

    /// Notes through which socket a connection came.
    pub(crate) fn note_accepted(&mut self, conn: ConnHandle, socket: u16) {
        self.counters.connections_opened.add(1);
        let at = conn.slot as usize;
        if self.accepted_at.len() <= at {
            self.accepted_at.resize(at + 1, NO_SOCKET);
        }
        self.accepted_at[at] = socket;
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.accepted += 1;
        }
    }

    fn accepted_socket(&self, conn: ConnHandle) -> Option<u16> {
        self.accepted_at.get(conn.slot as usize).copied().filter(|s| *s != NO_SOCKET)
    }

    /// Forgets a dead connection, and keeps its report if the engine is ending.
    pub(crate) fn note_dead(&mut self, conn: ConnHandle, name: Conn, report: &CloseReport) {
        self.counters.connections_closed.add(1);
        if let Some(socket) = self.accepted_socket(conn) {
            self.accepted_at[conn.slot as usize] = NO_SOCKET;
            self.sockets.forget_accepted(socket);
        }
        if let Some(ending) = &mut self.ending {
            ending.end.connections.push((name, report.clone()));
        }
    }

    /// Starts to end: no new connections, every connection is closed.
    pub(crate) fn begin_end(&mut self, linger: Duration, reason: &CloseReason) {
        if self.ending.is_some() {
            return;
        }
        self.unlisten_all();
        self.manager.stop(self.now);
        let fin_wait = self.shared.config.connection.fin_wait_timeout;
        self.ending = Some(Ending {
            deadline: self.now + linger + fin_wait + Duration::from_secs(1),
            end: ShardEnd { shard: self.shard, ..ShardEnd::default() },
        });
        let linger = (linger > Duration::ZERO).then_some(linger);
        self.endpoint.close_all(self.now, reason, linger);
    }

    /// Whether a send buffer that the handler waits for is there.
    pub(crate) fn has_wanted_send_buf(&mut self) -> bool {
        let there = self.wants_send_buf && self.send_pool.take().is_some();
        self.wants_send_buf &= !there;
        there
    }

    /// Whether the end that was begun is reached: nothing is left, or its time is up.
    pub(crate) fn end_reached(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| {
            let over = self.endpoint.connections().next().is_none();
            self.now >= ending.deadline || (over && !self.streams.is_draining())
        })
    }

    /// Reports on what is left when the time is up.
    pub(crate) fn take_end(&mut self, name: impl Fn(Conn, &mut CloseReport) -> Conn) -> ShardEnd {
        let left: Vec<ConnHandle> = self.endpoint.connections().collect();
        let Some(Ending { mut end, .. }) = self.ending.take() else {
            return ShardEnd { shard: self.shard, ..ShardEnd::default() };
        };
        for conn in left {
            let unacked = self.endpoint.stats(conn).map_or(0, |s| s.unacked_bytes);
            let mut report = CloseReport {
                acknowledged_bytes: 0,
                undelivered_bytes: unacked,
                undelivered_channels: 0,
                reason: CloseReason::new(Reason::LINGER_EXPIRED, "the engine stopped waiting"),
                peer_knows: false,
                peer_discarded: false,
            };
            let name = name(self.conn(conn), &mut report);
            end.connections.push((name, report));
        }
        end
    }
}

fn no_socket(e: &io::Error) -> ApiError {
    tracing::warn!(error = %e, "no client socket");
    ApiError::NoConnection("the system gives no socket")
}
