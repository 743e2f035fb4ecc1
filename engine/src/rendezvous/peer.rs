//! A connection of one's own with the partner of a [`Session`], end to end: made over the relay of
//! the event source, and moved to a direct path as soon as one is found (`docs/routes.md`).
//!
//! The controller connects, the responder accepts. The handler owns the link beside its session and
//! passes on the calls that concern it (each says whether it did); the connection itself is the
//! handler's like any other.

use super::session::Session;
use crate::config::{ConnectConfig, ListenConfig};
use crate::error::EngineError;
use crate::handle::{Conn, TimerId};
use crate::handler::{Context, StunPacket};
use crate::security::{ClientAuth, Identity, Trust};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::net::{IpAddr, SocketAddr};
use trunkline_proto::config::ConnectionConfig;
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::event::Incoming;
use trunkline_proto::ids::PeerId;
use trunkline_proto::rendezvous::ClientId;
use trunkline_proto::rendezvous::pairing::Notice;
use trunkline_proto::rendezvous::route::{ROUTE_SUBTYPE, RouteConfig, RouteFinder, RouteOutput};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// The addresses of this machine are looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Settings of a [`PeerLink`].
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Who we are to the peer.
    pub identity: Identity,
    /// Settings of the connection; `None` = the engine's.
    pub connection: Option<ConnectionConfig>,
    /// The search for direct paths.
    pub route: RouteConfig,
    /// Token of the link's timer, which no other timer of the handler has.
    pub timer: u64,
}

impl PeerConfig {
    /// As `identity`, everything else by default.
    pub fn new(identity: Identity, timer: u64) -> Self {
        Self { identity, connection: None, route: RouteConfig::default(), timer }
    }
}

/// The one we may connect with.
#[derive(Debug)]
struct Peer {
    client: ClientId,
    id: PeerId,
    relay: SocketAddr,
}

/// See the module.
#[derive(Debug)]
pub struct PeerLink {
    config: PeerConfig,
    /// Where the ICE agent counts time from.
    epoch: std::time::Instant,
    listens: bool,
    peer: Option<Peer>,
    conn: Option<Conn>,
    finder: Option<RouteFinder>,
    timer: Option<(TimerId, Instant)>,
    look_at: Instant,
}

impl PeerLink {
    /// A link that does nothing before it is told who the peer is.
    pub fn new(config: PeerConfig) -> Self {
        Self {
            config,
            epoch: std::time::Instant::now(),
            listens: false,
            peer: None,
            conn: None,
            finder: None,
            timer: None,
            look_at: Instant::ZERO,
        }
    }

    /// The connection, if there is one.
    pub const fn conn(&self) -> Option<Conn> {
        self.conn
    }

    /// Whether a direct path is in use.
    pub fn is_direct(&self) -> bool {
        self.finder.as_ref().is_some_and(RouteFinder::is_direct)
    }

    /// Connects to the partner of `session`, which must prove that it is `id`. Nothing happens while
    /// there is a connection with it.
    ///
    /// # Errors
    /// [`ApiError::NoConnection`] without a partner or a channel of packets; otherwise as
    /// [`Context::connect`].
    pub fn connect(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        id: PeerId,
    ) -> Result<(), ApiError> {
        let relay = self.meet(cx, session, id)?;
        let ended = |conn| {
            !matches!(
                cx.status(conn),
                Status::Connecting | Status::FindingRoute | Status::Connected
            )
        };
        if self.conn.is_none_or(ended) {
            let mut config = ConnectConfig::new(relay, Trust::Pins(vec![id]));
            config.identity = Some(self.config.identity.clone());
            config.connection.clone_from(&self.config.connection);
            self.conn = Some(cx.connect_relayed(relay, &config)?);
        }
        self.pump(cx, session);
        Ok(())
    }

    /// Accepts a connection of the partner of `session`, which must prove that it is `id`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and as [`Context::listen`].
    pub fn accept(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        id: PeerId,
    ) -> Result<(), EngineError> {
        let relay = self.meet(cx, session, id)?;
        if !self.listens {
            let config = ListenConfig {
                client_auth: ClientAuth::Required(Trust::DangerousAny),
                connection: self.config.connection.clone(),
                ..ListenConfig::new(relay, self.config.identity.clone())
            };
            cx.listen_relayed(&config)?;
            self.listens = true;
        }
        self.pump(cx, session);
        Ok(())
    }

    /// The address that stands for the partner.
    fn meet(
        &mut self,
        cx: &mut Context<'_>,
        session: &Session,
        id: PeerId,
    ) -> Result<SocketAddr, ApiError> {
        let client = session.pairing().partner().ok_or(ApiError::NoConnection("not paired"))?;
        session.relay_channel().ok_or(ApiError::NoConnection("packets are not relayed"))?;
        if let Some(peer) = &self.peer
            && peer.client == *client
            && peer.id == id
        {
            return Ok(peer.relay);
        }
        self.leave(cx);
        let relay = cx.relays().add(client.clone());
        self.peer = Some(Peer { client: client.clone(), id, relay });
        Ok(relay)
    }

    /// Ends the connection, which the peer learns, and forgets the peer.
    pub fn leave(&mut self, cx: &mut Context<'_>) {
        if let Some(conn) = self.conn.take() {
            let _ = cx.close(conn, Reason::APP.0, "", None);
        }
        if let Some(peer) = self.peer.take() {
            cx.leave_relayed(peer.relay);
        }
        self.listens = false;
        self.stop(cx);
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        self.finder = None;
        if let Some((timer, _)) = self.timer.take() {
            cx.cancel_timer(timer);
        }
    }

    /// From [`Handler::on_incoming`](crate::Handler::on_incoming).
    pub fn on_incoming(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        incoming: &Incoming<'_>,
    ) -> bool {
        let Some(peer) = self.peer.as_ref().filter(|p| p.relay == incoming.remote) else {
            return false;
        };
        if incoming.peer != Some(peer.id) || cx.accept(conn).is_err() {
            let _ = cx.reject(conn, Reason::APP_REJECTED.0, "another peer was expected");
            return true;
        }
        // The peer has started anew: the connection of before is no more.
        if let Some(old) = self.conn.replace(conn) {
            let _ = cx.close(old, Reason::APP.0, "", None);
            self.stop(cx);
        }
        true
    }

    /// From [`Handler::on_status`](crate::Handler::on_status). After an end the handle is closed.
    pub fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        conn: Conn,
        new: Status,
    ) -> bool {
        if self.conn != Some(conn) {
            return false;
        }
        match new {
            Status::FindingRoute => self.search(cx, session),
            Status::ClosedByPeer | Status::ProblemDetectedLocally => {
                let _ = cx.close(conn, Reason::APP.0, "", None);
                self.conn = None;
                self.stop(cx);
            }
            _ => {}
        }
        true
    }

    /// From [`Handler::on_dead`](crate::Handler::on_dead): the handler has closed the connection.
    pub fn on_dead(&mut self, cx: &mut Context<'_>, conn: Conn) -> bool {
        let ours = self.conn == Some(conn);
        if ours {
            self.conn = None;
            self.stop(cx);
        }
        ours
    }

    fn search(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        let Some(conn) = self.conn else { return };
        let mut seed = [0; 32];
        let key = cx.route_key(conn).filter(|_| SystemRandom::new().fill(&mut seed).is_ok());
        let role = cx.info(conn).map(|info| info.role);
        let (Some(key), Some(role)) = (key, role) else { return };
        let (now, config) = (cx.now(), self.config.route.clone());
        let mut finder = RouteFinder::new(now, self.epoch, role, key, seed, config);
        finder.set_servers(now, session.sources());
        self.finder = Some(finder);
        self.look_at = now;
        self.pump(cx, session);
    }

    /// From the session: a notice that may be about routes.
    pub fn on_notice(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        notice: &Notice,
    ) -> bool {
        let Notice::Route { subtype: ROUTE_SUBTYPE, body, .. } = notice else { return false };
        if let Some(finder) = &mut self.finder {
            if let Err(error) = finder.on_event(cx.now(), body) {
                tracing::debug!(%error, "a word about routes that is dropped");
            }
            self.pump(cx, session);
        }
        true
    }

    /// From [`Handler::on_path`](crate::Handler::on_path).
    pub fn on_path(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        conn: Conn,
        (remote, relayed): (SocketAddr, bool),
    ) -> bool {
        self.with_finder(cx, session, conn, |f, now| f.on_path(now, remote, relayed))
    }

    /// From [`Handler::on_path_failed`](crate::Handler::on_path_failed).
    pub fn on_path_failed(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        conn: Conn,
        (socket, remote): (u16, SocketAddr),
    ) -> bool {
        self.with_finder(cx, session, conn, |f, now| f.on_path_failed(now, socket, remote))
    }

    fn with_finder(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        conn: Conn,
        f: impl FnOnce(&mut RouteFinder, Instant),
    ) -> bool {
        let ours = self.conn == Some(conn);
        if let Some(finder) = self.finder.as_mut().filter(|_| ours) {
            f(finder, cx.now());
            self.pump(cx, session);
        }
        ours
    }

    /// From [`Handler::on_stun`](crate::Handler::on_stun).
    pub fn on_stun(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        stun: &StunPacket,
    ) -> bool {
        let StunPacket { socket, local, remote, packet } = stun;
        let (now, finder) = (cx.now(), self.finder.as_mut());
        let ours = finder.is_some_and(|f| f.on_stun(now, *socket, *local, *remote, packet));
        if ours {
            self.pump(cx, session);
        }
        ours
    }

    /// From [`Handler::on_timer`](crate::Handler::on_timer).
    pub fn on_timer(&mut self, cx: &mut Context<'_>, session: &mut Session, token: u64) -> bool {
        let ours = token == self.config.timer;
        if ours {
            self.timer = None;
            if let Some(finder) = &mut self.finder {
                finder.handle_timeout(cx.now());
            }
            self.pump(cx, session);
        }
        ours
    }

    /// Does what is to be done: call it whenever the session was called.
    pub fn pump(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        let Some(peer) = &self.peer else {
            while session.poll_relayed().is_some() {}
            return;
        };
        let relay = peer.relay;
        // The partner of now may be another one than the peer.
        let same = session.pairing().partner() == Some(&peer.client);
        cx.relays().attach(relay, session.relay_channel().filter(|_| same));
        while let Some(packet) = session.poll_relayed() {
            if same {
                cx.relays().arrive(relay, packet);
            }
        }
        self.look(cx);
        while let Some(output) = self.finder.as_mut().and_then(RouteFinder::poll) {
            self.carry_out(cx, session, output);
        }
        self.set_timer(cx);
    }

    fn carry_out(&mut self, cx: &mut Context<'_>, session: &mut Session, output: RouteOutput) {
        let Some(conn) = self.conn else { return };
        match output {
            // What is not sent is sent again.
            RouteOutput::Event(body) => {
                let _ = session.call(cx, |p, now| p.send_route(now, ROUTE_SUBTYPE, &body));
            }
            RouteOutput::Stun { socket, local, remote, packet } => {
                let (local, packet) = (Some(local.ip()), packet.into());
                cx.send_stun(StunPacket { socket, local, remote, packet });
            }
            RouteOutput::Try { socket, remote } => {
                if cx.try_path(conn, socket, remote).is_err()
                    && let Some(finder) = &mut self.finder
                {
                    finder.on_path_failed(cx.now(), socket, remote);
                }
            }
            RouteOutput::UseRelay => {
                let _ = cx.use_relay(conn);
            }
            RouteOutput::FallBack => {
                let _ = cx.fall_back(conn);
            }
        }
    }

    /// Tells the finder the addresses of this machine.
    fn look(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        let Some(finder) = self.finder.as_mut().filter(|_| now >= self.look_at) else { return };
        self.look_at = now + LOOK_AGAIN;
        let found = if_addrs::get_if_addrs().unwrap_or_default();
        let mut locals = Vec::new();
        for v6 in [false, true] {
            let ips = found.iter().map(if_addrs::Interface::ip).filter(|ip| ip.is_ipv6() == v6);
            let ips: Vec<IpAddr> = ips.collect();
            // A socket is made only for a family that there is.
            if ips.iter().any(|ip| !ip.is_loopback())
                && let Ok((socket, port)) = cx.path_socket(v6)
            {
                locals.extend(ips.into_iter().map(|ip| (socket, SocketAddr::new(ip, port))));
            }
        }
        finder.set_locals(now, &locals);
    }

    fn set_timer(&mut self, cx: &mut Context<'_>) {
        let look_at = self.look_at;
        let next = self.finder.as_mut().map(|f| f.next_timeout().min(look_at));
        if self.timer.map(|(_, at)| at) != next {
            if let Some((timer, _)) = self.timer.take() {
                cx.cancel_timer(timer);
            }
            self.timer = next.map(|at| (cx.set_timer_at(at, self.config.timer), at));
        }
    }
}
