//! Finds direct paths between two clients of an event source that are connected over its relay
//! (`docs/routes.md`): each tells the other its addresses in `route` events, both check all pairs of
//! them by ICE (RFC 8445), and what works is handed to the connection to be tried.
//!
//! A [`RouteFinder`] goes with one connection, from FindingRoute on until it ends. It takes the time
//! and what arrived, and says what is to be sent and done; it never touches the connection itself.
//! All that it believes is authenticated with a key that only the two sides of the connection have
//! ([`Endpoint::route_key`](crate::endpoint::Endpoint::route_key)).

mod agent;
mod asking;
mod message;
#[cfg(test)]
mod tests;

pub use message::RouteError;

use crate::connection::is_discard_only;
use crate::crypto::Rng;
use crate::ids::Role;
use crate::limits::{MAX_ROUTE_CANDIDATES, RELAY_SOCKET};
use crate::time::{Duration, Instant};
use agent::Agent;
use asking::Transaction;
use message::{Message, Told};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// Subtype of the `route` events that a finder sends and takes.
pub const ROUTE_SUBTYPE: u16 = 1;

/// Things that wait to be sent or done; a caller that does not take them loses the oldest.
const MAX_OUTPUTS: usize = 256;
/// Event sources that are asked for our address.
const MAX_SERVERS: usize = 4;
/// What has changed is told after this, together with what changes meanwhile.
const GATHER: Duration = Duration::from_millis(20);
/// First repetition of what the peer has not confirmed; doubles.
const REPEAT: Duration = Duration::from_millis(500);
const REPEAT_MAX: Duration = Duration::from_secs(8);
/// Confirmations are at least so far apart.
const CONFIRM: Duration = Duration::from_millis(250);
/// First repetition of a question to an event source; doubles.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Questions of one round.
const ASKS: u32 = 5;
/// A path that the checks favour and the connection could not use is tried again after this; doubles.
const TRY_AGAIN: Duration = Duration::from_secs(2);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(32);

/// Settings of a [`RouteFinder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// After this without a direct path the relay is to do. 3 s.
    pub relay_after: Duration,
    /// While the relay does, everything is checked anew this often. 30 s.
    pub search_every: Duration,
    /// An event source is asked for our address this often. 15 s.
    pub ask_every: Duration,
    /// A direct path whose checks are not answered for this long is lost. 6 s.
    pub lost_after: Duration,
    /// Take part in paths within the machine. `false`.
    pub allow_loopback: bool,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            relay_after: Duration::from_secs(3),
            search_every: Duration::from_secs(30),
            ask_every: Duration::from_secs(15),
            lost_after: Duration::from_secs(6),
            allow_loopback: false,
        }
    }
}

/// What a [`RouteFinder`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOutput {
    /// Send this to the partner, as the body of a `route` event of subtype [`ROUTE_SUBTYPE`].
    Event(Vec<u8>),
    /// Send this STUN packet.
    Stun {
        /// Number of the socket.
        socket: u16,
        /// The local address to send from.
        local: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// The packet.
        packet: Vec<u8>,
    },
    /// Call [`try_path`](crate::endpoint::Endpoint::try_path).
    Try {
        /// Number of the socket.
        socket: u16,
        /// Where the peer is reached.
        remote: SocketAddr,
    },
    /// No direct path by now: call [`use_relay`](crate::endpoint::Endpoint::use_relay). The search
    /// goes on.
    UseRelay,
    /// The direct path is lost: call [`fall_back`](crate::endpoint::Endpoint::fall_back).
    FallBack,
}

/// An address of ours.
#[derive(Debug)]
struct Local {
    socket: u16,
    addr: SocketAddr,
    priority: u32,
    /// How others see it, and that candidate's priority.
    seen: Option<(SocketAddr, u32)>,
    /// The question to an event source that may still be answered, and how often it was sent.
    asked: Option<(Transaction, u32)>,
    ask_at: Instant,
}

/// What the connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Using {
    Relay,
    Direct(SocketAddr),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct RouteFinder {
    config: RouteConfig,
    role: Role,
    key: [u8; 32],
    rng: Rng,
    agent: Agent,
    servers: Vec<SocketAddr>,
    locals: Vec<Local>,
    generation: u32,
    /// Our list of candidates, counted, and the peer's.
    revision: u32,
    peer_revision: u32,
    /// Our last revision that the peer has.
    confirmed: u32,
    tell_at: Option<Instant>,
    repeat: Duration,
    told_at: Option<Instant>,
    using: Using,
    /// What the checks favour, with when it is handed to the connection.
    best: Option<(u16, SocketAddr)>,
    try_at: Option<Instant>,
    try_again: Duration,
    /// When the relay is to do, until that was said.
    relay_at: Option<Instant>,
    search_at: Instant,
    /// Answers of the direct path, and when the last one came.
    answers: (u64, Instant),
    out: VecDeque<RouteOutput>,
}

impl RouteFinder {
    /// A finder for a connection whose handshake is complete. `key` is its
    /// [`route_key`](crate::endpoint::Endpoint::route_key), `role` our side of it. `epoch` is any
    /// moment of the system's clock: the ICE agent counts time from there, and it is not read here.
    /// `seed` must be unpredictable outside tests.
    pub fn new(
        now: Instant,
        epoch: std::time::Instant,
        role: Role,
        key: [u8; 32],
        seed: [u8; 32],
        config: RouteConfig,
    ) -> Self {
        let mut rng = Rng::from_seed(seed);
        let agent = Agent::new(now, epoch, role, key, rng.u64());
        Self {
            relay_at: Some(now + config.relay_after),
            search_at: now + config.search_every,
            config,
            role,
            key,
            rng,
            agent,
            servers: Vec::new(),
            locals: Vec::new(),
            generation: 0,
            revision: 0,
            peer_revision: 0,
            confirmed: 0,
            tell_at: None,
            repeat: REPEAT,
            told_at: None,
            using: Using::Relay,
            best: None,
            try_at: None,
            try_again: TRY_AGAIN,
            answers: (0, now),
            out: VecDeque::new(),
        }
    }

    // ---- addresses of ours

    /// Event sources that answer STUN requests; the first of each address family is asked.
    pub fn set_servers(&mut self, now: Instant, servers: &[SocketAddr]) {
        self.servers = servers.iter().copied().take(MAX_SERVERS).collect();
        self.ask_anew(now);
        self.run(now);
    }

    /// Every socket asks under which address it is seen.
    fn ask_anew(&mut self, now: Instant) {
        for local in &mut self.locals {
            local.ask_at = now;
            local.asked = None;
        }
    }

    /// The addresses at which our sockets can be reached: every interface's with the socket's port.
    /// Call it again when they change: the search begins anew then. More than
    /// [`MAX_ROUTE_CANDIDATES`] are left out, the last first.
    pub fn set_locals(&mut self, now: Instant, locals: &[(u16, SocketAddr)]) {
        let usable =
            |&&(socket, addr): &&(u16, SocketAddr)| socket != RELAY_SOCKET && self.is_usable(addr);
        let mut wanted: Vec<(u16, SocketAddr)> = Vec::new();
        for local in locals.iter().filter(usable) {
            if !wanted.contains(local) && wanted.len() < MAX_ROUTE_CANDIDATES {
                wanted.push(*local);
            }
        }
        if self.locals.iter().map(|l| (l.socket, l.addr)).eq(wanted.iter().copied()) {
            return;
        }
        let first = self.locals.is_empty() && self.revision == 0;
        self.locals.retain(|l| wanted.contains(&(l.socket, l.addr)));
        for (socket, addr) in wanted {
            if !self.locals.iter().any(|l| (l.socket, l.addr) == (socket, addr)) {
                let local =
                    Local { socket, addr, priority: 0, seen: None, asked: None, ask_at: now };
                self.locals.push(local);
            }
        }
        if first {
            self.add_locals();
            self.changed(now);
        } else {
            // Mappings may have changed with the network.
            self.ask_anew(now);
            self.restart(now, self.generation.saturating_add(1));
        }
        self.run(now);
    }

    fn add_locals(&mut self) {
        for local in &mut self.locals {
            local.priority = self.agent.add_local(local.addr, None).unwrap_or_default();
            if let Some((seen, priority)) = &mut local.seen {
                *priority = self.agent.add_local(local.addr, Some(*seen)).unwrap_or_default();
            }
        }
    }

    /// Whether packets may be sent to or from an address at all.
    fn is_usable(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip();
        let routed = match ip {
            IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_link_local() && v4.octets()[0] != 0,
            IpAddr::V6(v6) => {
                let mapped = v6.to_ipv4_mapped().is_some();
                !v6.is_unicast_link_local() && !mapped && !is_discard_only(ip)
            }
        };
        let special = ip.is_unspecified() || ip.is_multicast();
        routed && !special && addr.port() != 0 && (self.config.allow_loopback || !ip.is_loopback())
    }

    // ---- what arrives

    /// The body of a `route` event of subtype [`ROUTE_SUBTYPE`] from the partner.
    ///
    /// # Errors
    /// [`RouteError`]: it is dropped and changes nothing.
    pub fn on_event(&mut self, now: Instant, body: &[u8]) -> Result<(), RouteError> {
        let message = Message::decode(body, self.role.peer(), &self.key)?;
        if message.generation < self.generation {
            // What we repeat says which one it is now.
            return Err(RouteError::Stale);
        }
        if message.generation > self.generation {
            self.restart(now, message.generation);
        }
        if message.seen <= self.revision && message.seen > self.confirmed {
            self.confirmed = message.seen;
            if self.confirmed == self.revision {
                self.tell_at = None;
            }
        }
        if message.revision > self.peer_revision {
            self.peer_revision = message.revision;
            let usable = message.candidates.into_iter().filter(|c| self.is_usable(c.addr));
            let usable = usable.collect();
            self.agent.set_remotes(usable);
        }
        if message.wanted {
            let soonest = self.told_at.map_or(now, |at| (at + CONFIRM).max(now)) + GATHER;
            self.tell_at = Some(self.tell_at.map_or(soonest, |at| at.min(soonest)));
        }
        self.run(now);
        Ok(())
    }

    /// A STUN packet (first byte 0–3) that came to `socket`, at `local` where that is known. Returns
    /// whether it was for this finder; otherwise it may be for another one.
    pub fn on_stun(
        &mut self,
        now: Instant,
        socket: u16,
        local: Option<IpAddr>,
        remote: SocketAddr,
        packet: &[u8],
    ) -> bool {
        if let Some(transaction) = asking::answered(packet)
            && let Some(at) = self.locals.iter().position(|l| {
                l.socket == socket && l.asked.is_some_and(|(asked, _)| asked == transaction)
            })
        {
            if self.servers.contains(&remote) {
                self.on_answer(now, at, packet);
                self.run(now);
            }
            return true;
        }
        let at = self
            .locals
            .iter()
            .filter(|l| l.socket == socket && l.addr.is_ipv4() == remote.is_ipv4());
        let exact = at.clone().find(|l| local == Some(l.addr.ip()));
        let Some(addr) = exact.or(at.clone().next()).map(|l| l.addr) else { return false };
        let ours = self.agent.receive(now, addr, remote, packet);
        if ours {
            self.run(now);
        }
        ours
    }

    /// An event source has said how others see one of our addresses.
    fn on_answer(&mut self, now: Instant, at: usize, packet: &[u8]) {
        let seen = asking::mapped(packet).filter(|seen| self.is_usable(*seen));
        let Some(local) = self.locals.get_mut(at) else { return };
        local.asked = None;
        local.ask_at = now + self.config.ask_every;
        let Some(seen) = seen.filter(|s| s.is_ipv4() == local.addr.is_ipv4()) else { return };
        if local.seen.is_some_and(|(old, _)| old == seen)
            || (local.seen.is_none() && seen == local.addr)
        {
            return;
        }
        if let Some((old, _)) = local.seen.take() {
            self.agent.remove_local(local.addr, old);
        }
        if seen != local.addr {
            let priority = self.agent.add_local(local.addr, Some(seen)).unwrap_or_default();
            local.seen = Some((seen, priority));
        }
        self.changed(now);
    }

    /// The connection says which path it uses ([`Sink::path`](crate::event::Sink::path)).
    pub fn on_path(&mut self, now: Instant, remote: SocketAddr, relayed: bool) {
        if relayed {
            if self.using != Using::Relay {
                self.using = Using::Relay;
                self.best = None;
                self.search(now);
            }
        } else {
            self.using = Using::Direct(remote);
            self.relay_at = None;
            self.answers = (self.agent.answers(), now);
        }
        self.run(now);
    }

    /// A path that was tried did not answer
    /// ([`Sink::path_failed`](crate::event::Sink::path_failed)).
    pub fn on_path_failed(&mut self, now: Instant, socket: u16, remote: SocketAddr) {
        // A host that is on a direct path leaves it to the client to find a better one.
        let settled = self.role == Role::Host && self.is_direct();
        if self.best == Some((socket, remote)) && self.using != Using::Direct(remote) && !settled {
            self.try_at = Some(now + self.try_again);
            self.try_again = self.try_again.mul(2).min(TRY_AGAIN_MAX);
        }
    }

    // ---- time

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_timeout(now);
        self.run(now);
    }

    /// When [`Self::handle_timeout`] has work.
    pub fn next_timeout(&mut self) -> Instant {
        let watch = self.is_direct();
        let asks =
            self.locals.iter().filter(|l| self.server_of(l.addr).is_some()).map(|l| l.ask_at);
        let first = asks.min();
        [
            first,
            self.agent.timeout(),
            self.tell_at,
            self.try_at,
            self.relay_at,
            (!watch).then_some(self.search_at),
            watch.then_some(self.answers.1 + self.config.lost_after),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.search_at)
    }

    /// What is to be sent or done next.
    pub fn poll(&mut self) -> Option<RouteOutput> {
        self.out.pop_front()
    }

    /// The path in use is direct.
    pub const fn is_direct(&self) -> bool {
        matches!(self.using, Using::Direct(_))
    }

    fn push(&mut self, output: RouteOutput) {
        if self.out.len() >= MAX_OUTPUTS {
            self.out.pop_front();
        }
        self.out.push_back(output);
    }

    fn run(&mut self, now: Instant) {
        self.ask(now);
        self.take_checks();
        self.take_best(now);
        self.watch(now);
        if self.try_at.is_some_and(|at| at <= now) {
            self.try_at = None;
            if let Some((socket, remote)) = self.best.filter(|b| self.using != Using::Direct(b.1)) {
                self.push(RouteOutput::Try { socket, remote });
            }
        }
        if self.relay_at.is_some_and(|at| at <= now) {
            self.relay_at = None;
            self.push(RouteOutput::UseRelay);
        }
        if self.using == Using::Relay && self.search_at <= now {
            self.search(now);
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell(now);
        }
    }

    fn socket_of(&self, local: SocketAddr) -> Option<u16> {
        self.locals.iter().find(|l| l.addr == local).map(|l| l.socket)
    }

    fn take_checks(&mut self) {
        while let Some(check) = self.agent.poll_check() {
            let socket = self.socket_of(check.local);
            if let Some(socket) = socket {
                let (local, remote, packet) = (check.local, check.remote, check.packet);
                self.push(RouteOutput::Stun { socket, local, remote, packet });
            }
        }
    }

    fn take_best(&mut self, now: Instant) {
        while let Some((local, remote)) = self.agent.poll_path() {
            let socket = self.socket_of(local);
            if let Some(socket) = socket.filter(|_| self.is_usable(remote)) {
                self.best = Some((socket, remote));
                self.try_at = Some(now);
                self.try_again = TRY_AGAIN;
            }
        }
    }

    /// Notices that a direct path answers no more.
    fn watch(&mut self, now: Instant) {
        let Using::Direct(_) = self.using else { return };
        let answers = self.agent.answers();
        if answers != self.answers.0 {
            self.answers = (answers, now);
        } else if now.since(self.answers.1) >= self.config.lost_after {
            self.using = Using::Relay;
            self.best = None;
            self.push(RouteOutput::FallBack);
            self.search(now);
        }
    }

    /// Checks everything once more.
    fn search(&mut self, now: Instant) {
        self.search_at = now + self.config.search_every;
        self.agent.search_again();
        self.agent.handle_timeout(now);
        self.take_checks();
    }

    // ---- what the peer is told

    fn changed(&mut self, now: Instant) {
        self.revision = self.revision.saturating_add(1);
        self.repeat = REPEAT;
        let at = now + GATHER;
        self.tell_at = Some(self.tell_at.map_or(at, |old| old.min(at)));
    }

    fn restart(&mut self, now: Instant, generation: u32) {
        self.generation = generation;
        (self.revision, self.peer_revision, self.confirmed) = (0, 0, 0);
        self.best = None;
        self.try_at = None;
        self.agent.restart(now, generation);
        self.answers = (0, now);
        self.search_at = now + self.config.search_every;
        self.add_locals();
        self.changed(now);
    }

    fn tell(&mut self, now: Instant) {
        let own = self.locals.iter().map(|l| Told {
            reflexive: false,
            addr: l.addr,
            priority: l.priority,
        });
        let seen = self.locals.iter().filter_map(|l| {
            l.seen.map(|(addr, priority)| Told { reflexive: true, addr, priority })
        });
        // How others see us leads further than what we call ourselves.
        let candidates = seen.chain(own).take(MAX_ROUTE_CANDIDATES).collect();
        let wanted = self.confirmed < self.revision;
        let message = Message {
            generation: self.generation,
            revision: self.revision,
            seen: self.peer_revision,
            wanted,
            candidates,
        };
        let body = message.encode(self.role, &self.key);
        self.push(RouteOutput::Event(body));
        self.told_at = Some(now);
        self.tell_at = wanted.then(|| now + self.repeat);
        self.repeat = self.repeat.mul(2).min(REPEAT_MAX);
    }

    // ---- event sources

    fn server_of(&self, addr: SocketAddr) -> Option<SocketAddr> {
        self.servers.iter().copied().find(|s| s.is_ipv4() == addr.is_ipv4())
    }

    fn ask(&mut self, now: Instant) {
        for at in 0..self.locals.len() {
            let Some(server) = self.server_of(self.locals[at].addr) else { continue };
            let local = &mut self.locals[at];
            if local.ask_at > now {
                continue;
            }
            let (transaction, times) = local.asked.unwrap_or_else(|| {
                let mut transaction = [0; 12];
                self.rng.fill(&mut transaction);
                (transaction, 0)
            });
            if times >= ASKS {
                local.asked = None;
                local.ask_at = now + self.config.ask_every;
                continue;
            }
            local.asked = Some((transaction, times + 1));
            local.ask_at = now + ASK_AGAIN.mul(1 << times);
            let (socket, from) = (local.socket, local.addr);
            let packet = asking::request(transaction).to_vec();
            self.push(RouteOutput::Stun { socket, local: from, remote: server, packet });
        }
    }
}
