//! Connections between two peers that found each other over an event source: made over its relay,
//! moved to direct paths, and one of two when both sides connect at once (`docs/routes.md`).

use super::{ClientConfig, Endpoint, ListenerConfig};
use crate::config::ConnectionConfig;
use crate::connection::{Connection, Contender, Step, is_discard_only};
use crate::error::ApiError;
use crate::event::Sink;
use crate::ids::{ConnHandle, Role};
use crate::limits::{RELAY_PACKET, RELAY_SOCKET};
use crate::time::Instant;
use std::net::SocketAddr;
use std::sync::Arc;

/// Connections whose beginning depends on others of the same two peers.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Slots of our own connections made over a relay; some may have ended since.
    clients: Vec<u32>,
    /// Slots of connections of peers that have proved themselves and were not accepted.
    hosts: Vec<u32>,
}

/// A relay carries no larger packets; the size grows on direct paths only.
pub(super) fn for_relay(config: Arc<ConnectionConfig>) -> Arc<ConnectionConfig> {
    if config.initial_packet <= RELAY_PACKET {
        return config;
    }
    Arc::new(ConnectionConfig { initial_packet: RELAY_PACKET, ..ConnectionConfig::clone(&config) })
}

impl Endpoint {
    /// Answers ConnectionRequests of the peer that `relay` (in 100::/64) stands for.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub fn listen_relayed(
        &mut self,
        relay: SocketAddr,
        listener: ListenerConfig,
    ) -> Result<(), ApiError> {
        let listener = self.listener(listener)?;
        self.listeners.relayed.insert(relay, listener);
        Ok(())
    }

    /// Stops answering; connections live on.
    pub fn unlisten_relayed(&mut self, relay: SocketAddr) {
        self.listeners.relayed.remove(&relay);
    }

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

    /// Notes a connection of a peer that has proved itself and was not accepted.
    pub(super) fn note_rival(&mut self, slot: u32) {
        let conn = self.slots[slot as usize].conn.as_ref();
        if conn.is_some_and(|c| c.waits_for().is_some()) && !self.rivals.hosts.contains(&slot) {
            self.rivals.hosts.push(slot);
        }
    }

    /// Decides about connections of peers that were not accepted.
    pub(super) fn judge<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let mut at = 0;
        while let Some(slot) = self.rivals.hosts.get(at).copied() {
            if self.judge_one(now, slot, sink) {
                at += 1;
            } else {
                self.rivals.hosts.swap_remove(at);
            }
        }
    }

    /// Decides about one of them; `false` when it is none any more.
    pub(super) fn judge_one<S: Sink>(&mut self, now: Instant, slot: u32, sink: &mut S) -> bool {
        let Some(conn) = self.slots[slot as usize].conn.as_deref() else { return false };
        let Some((hold, theirs)) = conn.waits_for().zip(conn.contender()) else { return false };
        let step = theirs.step(now, hold, self.ours());
        let Some(conn) = &mut self.slots[slot as usize].conn else { return false };
        match step {
            Step::Keep(until) => {
                if conn.hold_until(until) {
                    self.touch(slot);
                }
                return true;
            }
            Step::Tell => conn.tell_held(sink),
            Step::Discard => conn.discard(),
            Step::GiveWay(ours) => self.give_way(now, slot, ours, sink),
            Step::Accept => {
                conn.accepted(now, sink);
                let losers = self.ours().filter(|(_, own)| theirs.takes_place_of(own));
                for loser in losers.map(|(loser, _)| loser).collect::<Vec<_>>() {
                    self.give_way(now, loser, slot, sink);
                    self.touch(loser);
                }
            }
        }
        self.touch(slot);
        step == Step::Tell
    }

    /// Our own connections made over a relay.
    fn ours(&self) -> impl Iterator<Item = (u32, Contender)> {
        self.rivals.clients.iter().filter_map(|slot| {
            let conn = self.slots[*slot as usize].conn.as_deref();
            conn.filter(|c| c.role() == Role::Client).and_then(|c| Some((*slot, c.contender()?)))
        })
    }

    /// One of two connections to the same peer ends, and the application learns for which.
    fn give_way<S: Sink>(&mut self, now: Instant, slot: u32, by: u32, sink: &mut S) {
        let Some(by) = self.slots[by as usize].conn.as_ref().map(|c| c.handle()) else { return };
        if let Some(conn) = &mut self.slots[slot as usize].conn {
            sink.superseded(conn.handle(), by);
            conn.superseded(now, sink);
        }
    }

    /// Whether connections of peers wait for the application, or for one of ours.
    pub(super) fn has_rivals(&self) -> bool {
        !self.rivals.hosts.is_empty()
    }
}

fn is_relayed_client(conn: Option<&Connection>) -> bool {
    conn.is_some_and(|c| c.role() == Role::Client && c.relay().is_some())
}
