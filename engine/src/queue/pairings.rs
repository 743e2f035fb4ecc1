//! Pairings over an event source, beside the other connections of a shard: the application's calls,
//! and what the shard tells of them. With an identity, a pairing makes connections of its own with
//! the partner, which show like any other.

use super::callbacks::inside;
use super::event::Event;
use super::group::PollGroup;
use super::handler::QueueHandler;
use super::{QueuedEngine, with_manual_credit};
use crate::config::ConnectConfig;
use crate::handle::{Channel, Conn};
use crate::handler::{Context, StunPacket};
use crate::rendezvous::{PeerConfig, PeerLink, Session, SessionConfig};
use crate::security::Identity;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use trunkline_proto::config::ConnectionConfig;
use trunkline_proto::error::{ApiError, CloseReason};
use trunkline_proto::event::{ChannelEnd, Incoming};
use trunkline_proto::ids::PeerId;
use trunkline_proto::rendezvous::pairing::{PairingConfig, PairingState, Sent};
use trunkline_proto::rendezvous::route::RouteConfig;
use trunkline_proto::rendezvous::token::AccessToken;
use trunkline_proto::rendezvous::{ClientId, PairingRole, Reject};
use trunkline_proto::status::Status;

/// How to pair over an event source.
#[derive(Clone, Debug)]
pub struct PairingSettings {
    /// Where the event source is, and what makes it acceptable.
    pub source: ConnectConfig,
    /// Our part.
    pub role: PairingRole,
    /// Timers and queues.
    pub pairing: PairingConfig,
    /// Whether packets are exchanged with the partner by way of the event source: for the
    /// application, or for connections with the partner.
    pub relay: bool,
    /// Who we are to the partner, for connections with it ([`QueuedEngine::connect_peer`],
    /// [`QueuedEngine::accept_peer`]); it needs `relay`, and takes all relayed packets.
    pub identity: Option<Identity>,
    /// Settings of these connections; `None` = the engine's.
    pub connection: Option<ConnectionConfig>,
    /// The search for direct paths.
    pub route: RouteConfig,
}

impl PairingSettings {
    /// For `role` at this event source, everything else by default.
    pub fn new(source: ConnectConfig, role: PairingRole) -> Self {
        Self {
            source,
            role,
            pairing: PairingConfig::default(),
            relay: false,
            identity: None,
            connection: None,
            route: RouteConfig::default(),
        }
    }
}

/// A pairing at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairingStatus {
    /// The state.
    pub state: PairingState,
    /// The partner.
    pub partner: Option<ClientId>,
    /// Why the partner rejected us, if it did.
    pub rejected: Option<Reject>,
    /// Events that wait for the partner, or for their turn.
    pub waiting_events: usize,
    /// The connection with the partner.
    pub peer: Option<Conn>,
    /// Whether that goes over a direct path now.
    pub direct: bool,
}

/// One pairing of a shard.
struct Pair {
    group: u32,
    session: Session,
    peer: Option<PeerLink>,
    /// The connection of `peer` that the application knows of.
    shown: Option<Conn>,
}

/// The pairings of one shard, by number.
#[derive(Default)]
pub(super) struct Pairings {
    pairs: BTreeMap<u64, Pair>,
    /// Each has two tokens of timers: an even one, and the next.
    tokens: BTreeMap<u64, u64>,
    next_token: u64,
}

impl Pairings {
    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

impl QueueHandler {
    fn pair(
        &mut self,
        cx: &mut Context<'_>,
        (number, group): (u64, u32),
        settings: PairingSettings,
    ) -> Result<(), ApiError> {
        let PairingSettings { source, role, pairing, relay, identity, connection, route } =
            settings;
        let token = self.pairings.next_token;
        self.pairings.next_token += 2;
        let session = Session::new(SessionConfig { source, role, pairing, timer: token, relay })?;
        let peer = identity.map(|identity| {
            let config = PeerConfig { identity, connection, route, timer: token + 1 };
            PeerLink::new(config)
        });
        self.pairings.tokens.insert(token, number);
        self.pairings.pairs.insert(number, Pair { group, session, peer, shown: None });
        self.after(cx, number);
        Ok(())
    }

    /// Calls `f` with a pairing, and tells what comes of it.
    fn with_pair<R>(
        &mut self,
        cx: &mut Context<'_>,
        number: u64,
        f: impl FnOnce(&mut Session, Option<&mut PeerLink>, &mut Context<'_>) -> R,
    ) -> Result<R, ApiError> {
        let pair = self.pairings.pairs.get_mut(&number).ok_or(ApiError::InvalidHandle)?;
        let result = f(&mut pair.session, pair.peer.as_mut(), cx);
        self.after(cx, number);
        Ok(result)
    }

    /// Tells what a pairing has to tell.
    fn after(&mut self, cx: &mut Context<'_>, number: u64) {
        let Some(pair) = self.pairings.pairs.get_mut(&number) else { return };
        let group = pair.group;
        let mut events = Vec::new();
        if let Some(link) = &mut pair.peer {
            link.pump(cx, &mut pair.session);
        }
        while let Some(notice) = pair.session.poll_notice() {
            if let Some(link) = &mut pair.peer
                && link.on_notice(cx, &mut pair.session, &notice)
            {
                continue;
            }
            events.push(Event::Pairing { pairing: number, notice });
        }
        let packets: Vec<_> = std::iter::from_fn(|| pair.session.poll_relayed()).collect();
        let conn = pair.peer.as_ref().and_then(PeerLink::conn);
        let new = conn.filter(|conn| pair.shown != Some(*conn));
        pair.shown = conn;
        for event in events {
            self.emit_group(group, event);
        }
        if let Some(writer) = self.writer_of(group as usize) {
            for packet in packets {
                writer.packet(number, &packet);
            }
        }
        if let Some(conn) = new {
            self.show_peer(cx, conn, (number, group));
        }
    }

    /// The application gets to know a connection with a partner.
    fn show_peer(&mut self, cx: &mut Context<'_>, real: Conn, (number, group): (u64, u32)) {
        if self.conn_cell(real).is_some() {
            return;
        }
        let Some((cell, life)) = self.link.conns.take() else {
            // More connections than the application may have: it goes as it came.
            let _ = self.with_pair(cx, number, |_, link, cx| link.map(|link| link.leave(cx)));
            return;
        };
        if let Some(shared) = self.link.conns.get(cell) {
            shared.begin(cx.status(real), group);
        }
        self.begin_conn(cell, life);
        self.map_conn(cx, cell, real);
        let conn = self.link.conn_name(cell, life);
        self.emit_group(group, Event::Peer { pairing: number, conn });
    }

    /// Asks the pairings, one after the other, whether something concerns them.
    fn offer(
        &mut self,
        cx: &mut Context<'_>,
        mut f: impl FnMut(&mut Session, Option<&mut PeerLink>, &mut Context<'_>) -> bool,
    ) -> bool {
        let taken = self
            .pairings
            .pairs
            .iter_mut()
            .find_map(|(n, p)| f(&mut p.session, p.peer.as_mut(), cx).then_some(*n));
        if let Some(number) = taken {
            self.after(cx, number);
        }
        taken.is_some()
    }

    pub(super) fn pairing_incoming(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        incoming: &Incoming<'_>,
    ) -> bool {
        !self.pairings.is_empty()
            && self.offer(cx, |_, link, cx| link.is_some_and(|l| l.on_incoming(cx, conn, incoming)))
    }

    pub(super) fn pairing_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        new: Status,
        reason: Option<&CloseReason>,
    ) {
        self.offer(cx, |session, link, cx| {
            session.on_status(cx, conn, new, reason)
                || link.is_some_and(|link| link.on_status(cx, session, conn, new))
        });
    }

    pub(super) fn pairing_dead(&mut self, cx: &mut Context<'_>, conn: Conn) {
        self.offer(cx, |_, link, cx| link.is_some_and(|link| link.on_dead(cx, conn)));
    }

    pub(super) fn pairing_ready(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.offer(cx, |session, _, cx| session.on_channel_ready(cx, channel));
    }

    pub(super) fn pairing_closed(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        end: &ChannelEnd,
    ) {
        self.offer(cx, |session, _, cx| session.on_channel_closed(cx, channel, end));
    }

    pub(super) fn pairing_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.offer(cx, |session, _, cx| session.on_eof(cx, channel));
    }

    #[cold]
    pub(super) fn pairing_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        message: &[u8],
    ) {
        self.offer(cx, |session, _, cx| session.on_message(cx, channel, message));
    }

    pub(super) fn pairing_writable(&mut self, cx: &mut Context<'_>, channel: Channel) {
        self.offer(cx, |session, _, cx| session.on_writable(cx, channel));
    }

    pub(super) fn pairing_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        let Some(number) = self.pairings.tokens.get(&(token & !1)).copied() else { return };
        let _ = self.with_pair(cx, number, |session, link, cx| {
            session.on_timer(cx, token) || link.is_some_and(|l| l.on_timer(cx, session, token))
        });
    }

    pub(super) fn pairing_path(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        remote: SocketAddr,
        relayed: bool,
    ) {
        self.offer(cx, |session, link, cx| {
            link.is_some_and(|link| link.on_path(cx, session, conn, (remote, relayed)))
        });
        if let Some(cell) = self.conn_cell(conn)
            && let Some(conn) = self.conn_name(cell)
        {
            self.emit(cell, Event::Path { conn, remote, relayed });
        }
    }

    pub(super) fn pairing_path_failed(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        path: (u16, SocketAddr),
    ) {
        self.offer(cx, |session, link, cx| {
            link.is_some_and(|link| link.on_path_failed(cx, session, conn, path))
        });
    }

    pub(super) fn pairing_stun(&mut self, cx: &mut Context<'_>, stun: &StunPacket) {
        self.offer(cx, |session, link, cx| {
            link.is_some_and(|link| link.on_stun(cx, session, stun))
        });
    }

    /// Goes passive, which tells the partner, and forgets the pairing.
    fn end_pairing(&mut self, cx: &mut Context<'_>, number: u64) {
        let _ = self.with_pair(cx, number, |session, link, cx| {
            if let Some(link) = link {
                link.leave(cx);
            }
            session.call(cx, |pairing, now| pairing.set_active(now, false));
        });
        self.pairings.pairs.remove(&number);
        self.pairings.tokens.retain(|_, n| *n != number);
    }

    /// The engine is about to end.
    pub(super) fn end_pairings(&mut self, cx: &mut Context<'_>) {
        while let Some(number) = self.pairings.pairs.keys().next().copied() {
            self.end_pairing(cx, number);
        }
    }
}

impl QueuedEngine {
    /// Begins a pairing, which is passive until [`set_pairing_active`](Self::set_pairing_active),
    /// and gives its number. What happens shows as [`Event::Pairing`] in `group`, or in the default
    /// group. Waits for its shard.
    ///
    /// # Errors
    /// Unusable settings, or a shard that does not answer.
    pub fn pair(
        &self,
        settings: &PairingSettings,
        group: Option<&PollGroup>,
    ) -> Result<u64, ApiError> {
        let mut settings = settings.clone();
        if settings.identity.is_some() && !settings.relay {
            let why = "must be on for connections with the partner";
            return Err(ApiError::InvalidArgument { field: "relay", why });
        }
        if let Some(connection) = &mut settings.connection {
            connection.validate()?;
            with_manual_credit(connection);
        }
        let group = group.map_or(0, |g| g.index);
        // Inside a callback no other shard can be asked.
        let here = self.inner.links.iter().find(|link| inside(link, |_, _| ()).is_some());
        let shard = here.map_or_else(
            || (self.inner.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards()) as u8,
            |link| link.shard,
        );
        let number = self.number(shard);
        if settings.pairing.backoff_seed == 0 {
            // No two clients begin again at the same moment.
            settings.pairing.backoff_seed = crate::rendezvous::random_seed()?;
        }
        self.ask_shard(self.link_of(number)?, move |h, cx| h.pair(cx, (number, group), settings))??;
        Ok(number)
    }

    /// Whether the client is to be connected, and to reach its partner.
    ///
    /// # Errors
    /// A number of no pairing, or a shard that does not answer.
    pub fn set_pairing_active(&self, pairing: u64, active: bool) -> Result<(), ApiError> {
        self.ask_pairing(pairing, move |session, _, cx| {
            session.call(cx, |pairing, now| pairing.set_active(now, active));
        })
    }

    /// Who we are to the event source; `None` = nobody yet.
    ///
    /// # Errors
    /// As the machine's ([`Pairing`](crate::rendezvous::Pairing)); otherwise as
    /// [`set_pairing_active`](Self::set_pairing_active).
    pub fn assign_client_id(&self, pairing: u64, client: Option<ClientId>) -> Result<(), ApiError> {
        self.ask_pairing(pairing, move |session, _, cx| {
            session.call(cx, |pairing, now| pairing.assign_client_id(now, client))
        })?
    }

    /// What lets us into the event source.
    ///
    /// # Errors
    /// As [`set_pairing_active`](Self::set_pairing_active).
    pub fn assign_access_token(
        &self,
        pairing: u64,
        token: Option<AccessToken>,
    ) -> Result<(), ApiError> {
        self.ask_pairing(pairing, move |session, _, cx| {
            session.call(cx, |pairing, now| pairing.assign_access_token(now, token));
        })
    }

    /// With whom we pair.
    ///
    /// # Errors
    /// As [`assign_client_id`](Self::assign_client_id).
    pub fn assign_partner(&self, pairing: u64, partner: Option<ClientId>) -> Result<(), ApiError> {
        self.ask_pairing(pairing, move |session, _, cx| {
            session.call(cx, |pairing, now| pairing.assign_partner(now, partner))
        })?
    }

    /// Sends an event of the application to the partner; one that is `buffered` may wait for it.
    ///
    /// # Errors
    /// As [`assign_client_id`](Self::assign_client_id).
    pub fn send_event(
        &self,
        pairing: u64,
        subtype: u16,
        body: &[u8],
        buffered: bool,
    ) -> Result<Sent, ApiError> {
        let body = body.to_vec();
        self.ask_pairing(pairing, move |session, _, cx| {
            session.call(cx, |pairing, now| pairing.send(now, subtype, &body, buffered))
        })?
    }

    /// Sends a packet to the partner by way of the event source, with
    /// [`PairingSettings::relay`]. Nobody says whether it arrives.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] for a pairing with an identity, whose connection takes all
    /// packets; as [`Session::send_relayed`]; otherwise as
    /// [`set_pairing_active`](Self::set_pairing_active).
    pub fn send_relayed(&self, pairing: u64, packet: &[u8]) -> Result<(), ApiError> {
        let packet = packet.to_vec();
        self.ask_pairing(pairing, move |session, link, cx| match link {
            Some(_) => Err(HAS_IDENTITY),
            None => session.send_relayed(cx, &packet),
        })?
    }

    /// What a pairing is now.
    ///
    /// # Errors
    /// As [`set_pairing_active`](Self::set_pairing_active).
    pub fn pairing_status(&self, pairing: u64) -> Result<PairingStatus, ApiError> {
        let link = self.link_of(pairing)?;
        self.ask_shard(link, move |h, _| {
            let pair = h.pairings.pairs.get(&pairing).ok_or(ApiError::InvalidHandle)?;
            let machine = pair.session.pairing();
            let real = pair.peer.as_ref().and_then(PeerLink::conn);
            Ok(PairingStatus {
                state: machine.state(),
                partner: machine.partner().cloned(),
                rejected: machine.rejected(),
                waiting_events: machine.waiting_events(),
                peer: real.and_then(|r| h.conn_cell(r)).and_then(|cell| h.conn_name(cell)),
                direct: pair.peer.as_ref().is_some_and(PeerLink::is_direct),
            })
        })?
    }

    /// Connects to the partner, which must prove that it is `id`: over the event source at first,
    /// and over a direct path as soon as one is found. [`Event::Peer`] names the connection, which
    /// is freed by itself when it ends. Nothing happens while there is one. The partner calls
    /// [`accept_peer`](Self::accept_peer).
    ///
    /// # Errors
    /// [`ApiError::NoConnection`] without a partner or relayed packets;
    /// [`ApiError::InvalidArgument`] for a pairing without an identity; otherwise as
    /// [`set_pairing_active`](Self::set_pairing_active).
    pub fn connect_peer(&self, pairing: u64, id: PeerId) -> Result<(), ApiError> {
        self.ask_pairing(pairing, move |session, link, cx| {
            link.ok_or(NO_IDENTITY)?.connect(cx, session, id)
        })?
    }

    /// Accepts a connection of the partner, which must prove that it is `id`.
    ///
    /// # Errors
    /// As [`connect_peer`](Self::connect_peer).
    pub fn accept_peer(&self, pairing: u64, id: PeerId) -> Result<(), ApiError> {
        self.ask_pairing(pairing, move |session, link, cx| {
            match link.ok_or(NO_IDENTITY)?.accept(cx, session, id) {
                Err(crate::EngineError::Api(error)) => Err(error),
                // Nothing of the system takes part in it.
                Err(_) => Err(ApiError::NoConnection("no listener for relayed packets")),
                Ok(()) => Ok(()),
            }
        })?
    }

    /// Ends the connection with the partner, and accepts none.
    ///
    /// # Errors
    /// As [`set_pairing_active`](Self::set_pairing_active).
    pub fn leave_peer(&self, pairing: u64) -> Result<(), ApiError> {
        self.ask_pairing(pairing, |_, link, cx| {
            if let Some(link) = link {
                link.leave(cx);
            }
        })
    }

    /// Ends a pairing: the partner is told, and the number is stale.
    ///
    /// # Errors
    /// As [`set_pairing_active`](Self::set_pairing_active).
    pub fn end_pairing(&self, pairing: u64) -> Result<(), ApiError> {
        self.ask_shard(self.link_of(pairing)?, move |h, cx| {
            let known = h.pairings.pairs.contains_key(&pairing);
            h.end_pairing(cx, pairing);
            if known { Ok(()) } else { Err(ApiError::InvalidHandle) }
        })?
    }

    fn ask_pairing<R: Send + 'static>(
        &self,
        pairing: u64,
        f: impl FnOnce(&mut Session, Option<&mut PeerLink>, &mut Context<'_>) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        let link = self.link_of(pairing)?;
        self.ask_shard(link, move |h, cx| h.with_pair(cx, pairing, f))?
    }
}

const NO_IDENTITY: ApiError = ApiError::InvalidArgument {
    field: "identity",
    why: "must be given to the pairing for connections with the partner",
};

const HAS_IDENTITY: ApiError = ApiError::InvalidArgument {
    field: "identity",
    why: "must not be given to a pairing whose packets are the application's",
};
