//! Connections between two peers that found each other over an event source: made over its relay,
//! moved to direct paths, and one of two when both sides connect at once (`docs/routes.md`).

use super::{ClientConfig, Endpoint};
use crate::config::ConnectionConfig;
use crate::connection::{Connection, is_discard_only};
use crate::error::ApiError;
use crate::event::Sink;
use crate::ids::{ConnHandle, Role};
use crate::limits::{RELAY_PACKET, RELAY_SOCKET};
use crate::status::Status;
use crate::time::Instant;
use std::net::SocketAddr;
use std::sync::Arc;

/// Connections whose beginning depends on others of the same two peers.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Slots of our own connections made over a relay; some may have ended since.
    clients: Vec<u32>,
    /// Slots of connections of peers that wait for the verdict.
    held: Vec<u32>,
}

/// What becomes of a connection of a peer to which we are connecting ourselves.
enum Verdict {
    /// The application learns of it.
    Tell,
    /// Ours goes first, if it comes about.
    Wait,
    /// Ours goes first, and the peer knows it.
    Discard,
}

/// A relay carries no larger packets; the size grows on direct paths only.
pub(super) fn for_relay(config: Arc<ConnectionConfig>) -> Arc<ConnectionConfig> {
    if config.initial_packet <= RELAY_PACKET {
        return config;
    }
    Arc::new(ConnectionConfig { initial_packet: RELAY_PACKET, ..ConnectionConfig::clone(&config) })
}

impl Endpoint {
    /// Starts a connection to a peer over the relay of an event source: `relay` is the address that
    /// stands for the peer there (in 100::/64). Its packets go to the socket [`RELAY_SOCKET`], one
    /// by one, each of at most [`RELAY_PACKET`] bytes. Once the peer has agreed it is FindingRoute
    /// until [`Self::try_path`] succeeds or [`Self::use_relay`] is called.
    ///
    /// # Errors
    /// As [`Self::connect`]; [`ApiError::InvalidArgument`] for an address outside 100::/64.
    pub fn connect_relayed(
        &mut self,
        now: Instant,
        relay: SocketAddr,
        config: &ClientConfig,
    ) -> Result<ConnHandle, ApiError> {
        if !is_discard_only(relay.ip()) {
            let why = "must lie in 100::/64";
            return Err(ApiError::InvalidArgument { field: "relay", why });
        }
        config.validate()?;
        let connection = for_relay(self.settings(config));
        let handle = self.begin(now, connection, RELAY_SOCKET, &[relay], config)?;
        let own = config.tls.identity().map(crate::handshake::Identity::peer_id);
        let first = self.shared.issue_id(handle, 0).0;
        if let Some(conn) = &mut self.slots[handle.slot as usize].conn {
            conn.set_precedence(own.map(|id| (id, first)));
        }
        let slots = &self.slots;
        self.rivals.clients.retain(|slot| is_relayed_client(slots[*slot as usize].conn.as_deref()));
        self.rivals.clients.push(handle.slot);
        Ok(handle)
    }

    /// The key of a [`RouteFinder`](crate::rendezvous::route::RouteFinder) for this connection, the
    /// same on both sides and known to nobody else. `None` before the peer has proved itself, and
    /// when the connection was not made over a relay.
    pub fn route_key(&self, conn: ConnHandle) -> Option<[u8; 32]> {
        self.open(conn).and_then(Connection::route_key)
    }

    /// Asks a direct path to the peer whether it works. When it does, a client moves there and a
    /// host follows its client; [`Sink::path`] tells, or [`Sink::path_failed`] when no answer came
    /// in time. Before the peer agrees the question waits.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`]; [`ApiError::NoConnection`] when the connection was not made over
    /// a relay; [`ApiError::InvalidArgument`] for what is no direct path;
    /// [`ApiError::LimitReached`] while [`MAX_PATH_PROBES`](crate::limits::MAX_PATH_PROBES) are
    /// being asked.
    pub fn try_path(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        socket: u16,
        remote: SocketAddr,
    ) -> Result<(), ApiError> {
        if self.open(conn).is_none() {
            return Err(ApiError::InvalidHandle);
        }
        self.touch(conn.slot);
        let connection = self.slots[conn.slot as usize].conn.as_mut();
        let connection = connection.ok_or(ApiError::InvalidHandle)?;
        connection.try_path(now, socket, remote, &mut self.shared)
    }

    /// No direct route by now: a connection that is FindingRoute is Connected over the relay, now or
    /// as soon as the peer agrees. Direct paths can still be tried afterwards.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`]; [`ApiError::NoConnection`] when it was not made over a relay.
    pub fn use_relay(&mut self, now: Instant, conn: ConnHandle) -> Result<(), ApiError> {
        self.with(conn, |c, sink| c.use_relay(now, sink))
    }

    /// The direct path does not work any more: back to the relay. A connection on which nothing is
    /// heard for half its `connected_timeout` goes back by itself.
    ///
    /// # Errors
    /// As [`Self::use_relay`].
    pub fn fall_back(&mut self, now: Instant, conn: ConnHandle) -> Result<(), ApiError> {
        self.with(conn, |c, sink| c.fall_back(now, sink))
    }

    // ---- two connections of the same peers at once

    /// Notes a connection that waits for the verdict.
    pub(super) fn note_held(&mut self, slot: u32) {
        let conn = self.slots[slot as usize].conn.as_ref();
        if conn.is_some_and(|c| c.held_until().is_some()) && !self.rivals.held.contains(&slot) {
            self.rivals.held.push(slot);
        }
    }

    /// Decides about connections of peers that wait.
    pub(super) fn judge<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let mut at = 0;
        while let Some(slot) = self.rivals.held.get(at).copied() {
            let Some(until) = self.slots[slot as usize].conn.as_ref().and_then(|c| c.held_until())
            else {
                self.rivals.held.swap_remove(at);
                continue;
            };
            let (verdict, losers) = self.verdict(slot);
            match verdict {
                Verdict::Wait if now < until => {
                    at += 1;
                    continue;
                }
                Verdict::Discard => {
                    if let Some(conn) = &mut self.slots[slot as usize].conn {
                        conn.discard();
                    }
                }
                Verdict::Tell | Verdict::Wait => self.prefer(now, slot, &losers, sink),
            }
            self.rivals.held.swap_remove(at);
            self.touch(slot);
        }
    }

    /// Whether a connection of a peer goes before ours to the same peer, and which of ours do not.
    /// The one whose client has the lower identity does; the first ids decide where both are equal.
    fn verdict(&self, slot: u32) -> (Verdict, Vec<u32>) {
        let mut losers = Vec::new();
        let Some(conn) = self.slots[slot as usize].conn.as_deref() else {
            return (Verdict::Discard, losers);
        };
        let Some(theirs) = conn.precedence() else { return (Verdict::Tell, losers) };
        let mut verdict = Verdict::Tell;
        for &other in &self.rivals.clients {
            let ours = self.slots[other as usize].conn.as_deref();
            let Some(ours) = ours.filter(|c| is_relayed_client(Some(c))) else { continue };
            let same = ours.relay() == conn.relay()
                && ours.usable().is_ok()
                && ours.overlaps(conn)
                && ours.proven_peer().is_none_or(|id| id == theirs.0);
            let Some(order) = ours.precedence().filter(|_| same) else { continue };
            if order < theirs {
                if ours.proven_peer().is_some() {
                    return (Verdict::Discard, losers);
                }
                verdict = Verdict::Wait;
            } else if ours.status() == Status::Connecting {
                losers.push(other);
            }
        }
        (verdict, losers)
    }

    /// The application learns of a connection of a peer, and that ours give way to it.
    fn prefer<S: Sink>(&mut self, now: Instant, slot: u32, losers: &[u32], sink: &mut S) {
        let Some(by) = self.slots[slot as usize].conn.as_ref().map(|c| c.handle()) else { return };
        for &loser in losers {
            if let Some(conn) = &mut self.slots[loser as usize].conn {
                if conn.is_told() {
                    sink.superseded(conn.handle(), by);
                }
                conn.superseded(now, sink);
                self.touch(loser);
            }
        }
        if let Some(conn) = &mut self.slots[slot as usize].conn {
            conn.tell_held(sink);
        }
    }

    /// Whether connections wait for a verdict.
    pub(super) fn has_held(&self) -> bool {
        !self.rivals.held.is_empty()
    }
}

fn is_relayed_client(conn: Option<&Connection>) -> bool {
    conn.is_some_and(|c| c.role() == Role::Client && c.relay().is_some())
}
