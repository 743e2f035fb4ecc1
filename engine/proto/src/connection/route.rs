//! The routes of a connection between two peers that found each other over an event source: the
//! relay on which it begins, direct paths that are tried, and going from one to the other
//! (`docs/routes.md`).
//!
//! The client goes where a path has answered its challenge and the host follows its packets; both
//! go back to the relay by themselves when a direct path falls silent.

use super::glare::{Contender, Hold, Precedence};
use super::handshaking::Authentication;
use super::path::Challenge;
use super::{Connection, Path};
use crate::endpoint::{RxMeta, Shared};
use crate::error::{ApiError, CloseReason, Reason};
use crate::event::{Incoming, Sink};
use crate::ids::{ConnectionId, Role};
use crate::lean::reserve_first;
use crate::limits::{MAX_PATH_PROBES, RELAY_SOCKET};
use crate::status::{Status, Trigger};
use crate::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr};

/// After a move packets of the peer still come over the relay for so long at least; later ones say
/// that it has gone back there.
const MOVE_GRACE: Duration = Duration::from_secs(1);
/// A host that gave a path up does not follow its client there for so long.
const DISTRUST: Duration = Duration::from_secs(3);

/// A direct path that is being tried.
#[derive(Debug)]
struct PathProbe {
    challenge: Challenge,
    /// Its answer is in the packet that is being taken.
    answered: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Route {
    /// The path over the event source.
    relay: Path,
    /// The direct path in use before, from which packets may still come.
    former: Option<Path>,
    probes: Vec<PathProbe>,
    /// Host: a direct path that answered, for when the client's packets come over it.
    proven: Option<Path>,
    /// Host: the path that was given up, and until when the client is not followed there.
    distrusted: Option<(Path, Instant)>,
    /// The relay is to do, whenever the peer agrees.
    settled: bool,
    moved_at: Option<Instant>,
    /// What both sides and nobody else know, for the search.
    key: Option<[u8; 32]>,
    began: Instant,
    agreed: Option<Instant>,
    /// Client: who we are to the peer.
    own: Option<Precedence>,
    /// The first id that the peer took.
    peer_first: ConnectionId,
    /// Host: what a client that has proved itself waits for, beside one of our own to it.
    hold: Hold,
    /// When there is something new to decide about that.
    held_until: Option<Instant>,
    /// Its credential, which the application does not know yet.
    credential: Vec<u8>,
}

impl Route {
    pub(super) fn new(now: Instant, relay: Path) -> Self {
        Self {
            relay,
            former: None,
            probes: Vec::new(),
            proven: None,
            distrusted: None,
            settled: false,
            moved_at: None,
            key: None,
            began: now,
            agreed: None,
            own: None,
            peer_first: ConnectionId::default(),
            hold: Hold::Held,
            held_until: None,
            credential: Vec::new(),
        }
    }

    /// Whether packets from there can be the peer's.
    pub(super) fn knows(&self, meta: &RxMeta) -> bool {
        self.relay.is(meta.socket, meta.remote)
            || self.former.is_some_and(|p| p.is(meta.socket, meta.remote))
            || self.probes.iter().any(|p| p.challenge.path.is(meta.socket, meta.remote))
    }

    fn timeout(&self) -> Option<Instant> {
        self.probes.iter().map(|p| p.challenge.send_at.min(p.challenge.deadline)).min()
    }
}

impl Connection {
    /// Packets go over the relay.
    pub(crate) const fn is_relayed(&self) -> bool {
        self.path.socket == RELAY_SOCKET
    }

    /// The address that stands for the peer at the relay, when the connection has one.
    pub(crate) fn relay(&self) -> Option<SocketAddr> {
        self.route.as_ref().map(|r| r.relay.remote)
    }

    fn route_mut(&mut self) -> Result<&mut Route, ApiError> {
        self.route.as_deref_mut().ok_or(ApiError::NoConnection("it was not made over a relay"))
    }

    /// Keeps what the two sides share, for [`Self::route_key`].
    pub(super) fn note_exporter(&mut self, exporter: &[u8; 32]) {
        if let Some(route) = &mut self.route {
            route.key = Some(crate::crypto::route_key(exporter));
        }
    }

    /// The key of the search for routes, once the handshake has made one.
    pub(crate) fn route_key(&self) -> Option<[u8; 32]> {
        self.route.as_ref()?.key
    }

    // ---- status

    /// The peer agreed. Without a relay below that is all; otherwise a route is looked for.
    pub(super) fn agreed<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let Some(route) = &mut self.route else { return self.establish(now, sink) };
        route.agreed = Some(now);
        for probe in &mut route.probes {
            probe.challenge = probe.challenge.again(now);
        }
        let settled = route.settled;
        self.timers.initial = Some(now + self.config.initial_timeout);
        self.heard(now);
        self.apply(Trigger::PeerAgreed, None, sink);
        if settled {
            self.establish(now, sink);
        }
    }

    /// The peer sends what only a connected peer sends: it has a route, and so have we.
    #[cold]
    pub(super) fn peer_has_route<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        if self.status == Status::FindingRoute {
            self.establish(now, sink);
        }
    }

    /// No direct route by now: the relay does.
    pub(crate) fn use_relay<S: Sink>(
        &mut self,
        now: Instant,
        sink: &mut S,
    ) -> Result<(), ApiError> {
        self.usable()?;
        self.route_mut()?.settled = true;
        if self.status == Status::FindingRoute {
            self.establish(now, sink);
        }
        Ok(())
    }

    // ---- probing

    /// Asks a direct path whether it works. The client moves there when it does.
    pub(crate) fn try_path(
        &mut self,
        now: Instant,
        socket: u16,
        remote: SocketAddr,
        shared: &mut Shared,
    ) -> Result<(), ApiError> {
        self.usable()?;
        let pto = self.recovery.pto();
        let here = self.path.is(socket, remote);
        let route = self.route_mut()?;
        if socket == RELAY_SOCKET || is_discard_only(remote.ip()) || remote.port() == 0 {
            return Err(ApiError::InvalidArgument { field: "remote", why: "is no direct path" });
        }
        if here || route.probes.iter().any(|p| p.challenge.path.is(socket, remote)) {
            return Ok(());
        }
        if route.probes.len() >= MAX_PATH_PROBES {
            return Err(ApiError::LimitReached {
                what: "paths tried at once",
                limit: MAX_PATH_PROBES as u64,
            });
        }
        // Whoever asks has proved by other means that the peer wants packets there.
        let path = Path::new(socket, remote, None, true);
        let challenge = Challenge::new(now, path, shared.rng.u64().to_be_bytes(), pto);
        reserve_first(&mut route.probes);
        route.probes.push(PathProbe { challenge, answered: false });
        Ok(())
    }

    /// The next challenge that is due for a path that is tried.
    pub(super) fn due_probe(&mut self, now: Instant) -> Option<([u8; 8], Path)> {
        if self.status == Status::Connecting {
            // Nothing but authentication goes on before the peer agrees.
            return None;
        }
        let probes = &mut self.route.as_mut()?.probes;
        let due = probes.iter_mut().find(|p| p.challenge.send_at <= now)?;
        due.challenge.on_sent(now);
        Some((due.challenge.data, due.challenge.path))
    }

    pub(super) fn route_timeout(&self) -> Option<Instant> {
        self.route.as_ref().filter(|_| self.status != Status::Connecting)?.timeout()
    }

    /// Gives up paths that did not answer.
    pub(super) fn run_route<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let conn = self.handle;
        let open = self.status.is_open_to_application();
        let Some(route) = &mut self.route else { return };
        if self.status == Status::Connecting {
            return;
        }
        route.probes.retain(|probe| {
            let lives = probe.challenge.deadline > now;
            if !lives && open {
                let path = probe.challenge.path;
                sink.path_failed(conn, path.socket, path.remote);
            }
            lives
        });
        if route.probes.is_empty() {
            route.probes = Vec::new();
        }
    }

    /// Notes the answer to a challenge of a path that is tried. Returns whether there is one.
    pub(super) fn note_answer(&mut self, data: [u8; 8]) -> bool {
        let Some(route) = &mut self.route else { return false };
        let probe = route.probes.iter_mut().find(|p| p.challenge.data == data);
        probe.map(|p| p.answered = true).is_some()
    }

    /// An answer came. It proves the path in both directions only if it came that way.
    #[cold]
    pub(super) fn on_answered<S: Sink>(&mut self, now: Instant, meta: &RxMeta, sink: &mut S) {
        let Some(route) = &mut self.route else { return };
        let proves = |p: &PathProbe| p.answered && p.challenge.path.is(meta.socket, meta.remote);
        let proven = route.probes.iter().position(proves);
        for probe in &mut route.probes {
            probe.answered = false;
        }
        let Some(at) = proven else { return };
        let mut path = route.probes.swap_remove(at).challenge.path;
        path.local = meta.local;
        if self.role == Role::Host {
            // The client says which of them it is.
            route.proven = Some(path);
            route.distrusted = None;
            self.peer_has_route(now, sink);
            return;
        }
        self.move_to(now, path, sink);
        // So that the host follows at once.
        self.pending.ping = true;
    }

    // ---- moving

    /// Packets go over a path that is proven from now on.
    fn move_to<S: Sink>(&mut self, now: Instant, path: Path, sink: &mut S) {
        let old = self.path;
        self.migration = None;
        if let Some(route) = &mut self.route {
            route.moved_at = Some(now);
            route.former = Some(old).filter(|p| p.socket != RELAY_SOCKET);
        }
        tracing::debug!(conn = ?self.handle, from = %old.remote, to = %path.remote, "moves");
        self.go_to(now, path);
        self.path_proven(now, sink);
    }

    /// The path in use is proven: that is told, and is what FindingRoute waits for unless it is the
    /// relay.
    pub(super) fn path_proven<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let relayed = self.is_relayed();
        if self.told && self.status.is_open_to_application() {
            sink.path(self.handle, self.path.remote, relayed);
        }
        if !relayed {
            self.peer_has_route(now, sink);
        }
    }

    /// The direct path does not work any more: back to the relay.
    pub(crate) fn fall_back<S: Sink>(
        &mut self,
        now: Instant,
        sink: &mut S,
    ) -> Result<(), ApiError> {
        self.usable()?;
        self.route_mut()?;
        self.return_to_relay(now, sink);
        Ok(())
    }

    fn return_to_relay<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        if self.is_relayed() {
            return;
        }
        let given_up = self.path;
        let Some(route) = &mut self.route else { return };
        let relay = route.relay;
        route.proven = None;
        if self.role == Role::Host {
            route.distrusted = Some((given_up, now + DISTRUST));
        }
        self.move_to(now, relay, sink);
        self.pending.ping = true;
    }

    /// A ping went unanswered for a while: a direct path is given up before the connection is.
    /// Called when a keep-alive is due; returns whether another one is wanted soon.
    pub(super) fn on_silence<S: Sink>(&mut self, now: Instant, sink: &mut S) -> bool {
        if self.route.is_none() || self.is_relayed() {
            return false;
        }
        let half = self.config.connected_timeout.div(2);
        let silent = self.timers.connected.is_some_and(|end| end.since(now) <= half);
        if silent && self.awaiting_answer {
            self.return_to_relay(now, sink);
        }
        true
    }

    /// A packet that moves the path came over another one than ours. Returns whether that is
    /// settled without asking the path.
    pub(super) fn follow_known<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        sink: &mut S,
    ) -> bool {
        let grace = MOVE_GRACE.max(self.recovery.pto().mul(3));
        let Some(route) = &mut self.route else { return self.role == Role::Client };
        let to_relay = route.relay.is(meta.socket, meta.remote);
        if self.role == Role::Client {
            // The host has gone back: our packets do not reach it, or its do not reach us.
            if to_relay && route.moved_at.is_none_or(|t| now.since(t) >= grace) {
                self.return_to_relay(now, sink);
            }
            return true;
        }
        if route.distrusted.is_some_and(|(p, until)| now < until && p.is(meta.socket, meta.remote))
        {
            return true;
        }
        let known = route.proven.filter(|p| p.is(meta.socket, meta.remote));
        let Some(path) = known.or_else(|| to_relay.then_some(route.relay)) else { return false };
        self.move_to(now, path, sink);
        true
    }

    // ---- two connections of the same peers at once

    /// The peer's first id, for the order of connections.
    pub(super) fn note_peer_id(&mut self, id: ConnectionId) {
        if let Some(route) = &mut self.route {
            route.peer_first = id;
        }
    }

    /// Host: the client has proved itself, and whether the application learns of it is the
    /// endpoint's to decide. `false` when there is nothing to decide.
    pub(super) fn hold(&mut self, credential: &[u8]) -> bool {
        let Some(route) = &mut self.route else { return false };
        route.credential = credential.to_vec();
        true
    }

    /// When there is something new to decide about a connection that is held.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.route.as_ref()?.held_until
    }

    /// Sets that moment; returns whether it is another one than before.
    pub(crate) fn hold_until(&mut self, until: Option<Instant>) -> bool {
        let Some(route) = &mut self.route else { return false };
        core::mem::replace(&mut route.held_until, until) != until
    }

    /// Host: what stands between the connection and its acceptance, if something does.
    pub(crate) fn waits_for(&self) -> Option<Hold> {
        let awaits = self.status == Status::Connecting
            && self.authentication == Authentication::AwaitingApplication;
        self.route.as_ref().filter(|_| awaits).map(|r| r.hold)
    }

    /// Host: the application has accepted, which takes effect as soon as it may. `false` when there
    /// is nothing that it could have to wait for.
    pub(super) fn accept_later(&mut self) -> bool {
        let Some(route) = &mut self.route else { return false };
        route.hold = Hold::Accepting;
        true
    }

    /// Host: the application has accepted, and that has not taken effect.
    pub(super) fn is_accepting(&self) -> bool {
        self.route.as_ref().is_some_and(|r| r.hold == Hold::Accepting)
    }

    /// Host: the application learns of a client that was held.
    pub(crate) fn tell_held<S: Sink>(&mut self, sink: &mut S) {
        let Some(route) = &mut self.route else { return };
        (route.hold, route.held_until) = (Hold::Told, None);
        let credential = core::mem::take(&mut route.credential);
        self.tell_incoming(&credential, sink);
    }

    /// Host: offers the connection to the application.
    pub(super) fn tell_incoming<S: Sink>(&mut self, credential: &[u8], sink: &mut S) {
        self.told = true;
        let peer = self.peer.as_deref();
        let incoming = Incoming {
            remote: self.path.remote,
            peer: peer.and_then(|p| p.id),
            credential,
            server_name: peer.and_then(|p| p.server_name.as_deref()),
        };
        sink.incoming(self.handle, &incoming);
    }

    /// Client: who we are to the peer, if anybody.
    pub(crate) fn set_precedence(&mut self, own: Option<Precedence>) {
        if let Some(route) = &mut self.route {
            route.own = own;
        }
    }

    /// What there is to know of it beside another connection of the same two peers. `None` when it
    /// was not made over a relay.
    pub(crate) fn contender(&self) -> Option<Contender> {
        let route = self.route.as_ref()?;
        let peer = self.peer.as_ref().and_then(|p| p.id);
        Some(Contender {
            relay: route.relay.remote,
            status: self.status,
            precedence: match self.role {
                Role::Client => route.own,
                Role::Host => peer.map(|id| (id, route.peer_first)),
            },
            peer,
            began: route.began,
            hopes_until: route.began + self.config.initial_timeout.div(2),
            agreed: route.agreed,
        })
    }

    /// Another connection of the same two peers takes the place of this one. The peer comes to that
    /// by itself, and is told nothing.
    pub(crate) fn superseded<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let reason = CloseReason::new(Reason::SUPERSEDED, "the peer connected at the same time");
        self.handshake = None;
        self.peer_closed(now, reason, sink);
        self.pending.close_ack = false;
    }
}

/// Addresses that stand for peers at a relay, and lead nowhere else (RFC 6666).
pub(crate) const fn is_discard_only(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            a == 0x100 && b == 0 && c == 0 && d == 0
        }
        IpAddr::V4(_) => false,
    }
}
