//! The event source: who is there, and who may write to whom (design, behaviours §2).
//!
//! It moves no bytes and reads no clock. Whoever runs it names each connection with a key of its
//! choice, calls [`EventSource::connect`] with the credential when a connection is asked for,
//! [`EventSource::opened`], [`EventSource::receive`] and [`EventSource::gone`] as things happen to
//! it (for its packets [`EventSource::relay_opened`], [`EventSource::receive_relay`] and
//! [`EventSource::relay_closed`]), and gives every call an [`Outlet`] through which events and
//! packets leave and connections end.
//!
//! Nothing a client says about itself is believed: its application, id and role are those of its
//! token, and are put into every event that it sends.

mod config;
mod forwarding;
mod limits;
mod router;
mod stats;

pub use config::SourceConfig;
pub use router::{LocalRouter, Party, Relayed, Route, Routed, Router};
pub use stats::{Counter, RelayStats, SourceStats};

use super::event::{self, Abort, EventError, EventRef, EventType, Reject};
use super::names::{AppId, ClientId, PairingRole};
use super::token::{Grant, KeyRing};
use crate::error::{ApiError, Reason};
use crate::time::{Duration, Instant};
use core::hash::Hash;
use limits::Limits;
use std::collections::{HashMap, VecDeque};

/// Between two looks at clients that may not be alive.
const SWEEP: Duration = Duration::from_secs(1);

/// The close reason of a client that was sent away because too many are there, and may come back.
pub const BUSY: Reason = Reason(1107);

/// Where an event source puts what leaves it.
pub trait Outlet<K> {
    /// Hands an event to a client's channel. `false`: there is no room, and
    /// [`EventSource::writable`] will be called when there is some.
    fn send(&mut self, client: K, message: &[u8]) -> bool;

    /// Hands a packet to a client's channel of packets. `false`: there is no room, and the packet
    /// is gone.
    fn relay(&mut self, client: K, message: &[u8]) -> bool;

    /// Ends a client's connection with the reason's code.
    fn abort(&mut self, client: K, reason: Abort, text: &str);
}

/// Why a connection is not accepted: the code, and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// [`BUSY`], or that of an [`Abort`].
    pub reason: Reason,
    /// At most 127 bytes.
    pub text: String,
}

#[derive(Debug)]
struct Client {
    party: Party,
    since: Instant,
    expires_s: u64,
    opened: bool,
    relay_open: bool,
    limits: Limits,
    queue: VecDeque<Box<[u8]>>,
    queued_bytes: usize,
    /// Its channel has no room since then.
    blocked: Option<Instant>,
}

/// The machine. See the module.
#[derive(Debug)]
pub struct EventSource<K, R = LocalRouter<K>> {
    config: SourceConfig,
    keys: KeyRing,
    router: R,
    clients: HashMap<K, Client>,
    stats: SourceStats,
    sweep_at: Option<Instant>,
    scratch: Vec<u8>,
}

impl<K: Copy + Eq + Hash, R: Router<K>> EventSource<K, R> {
    /// An event source without clients.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] names a setting that is out of range.
    pub fn new(config: SourceConfig, keys: KeyRing, router: R) -> Result<Self, ApiError> {
        config.validate()?;
        Ok(Self {
            config,
            keys,
            router,
            clients: HashMap::new(),
            stats: SourceStats::default(),
            sweep_at: None,
            scratch: Vec::new(),
        })
    }

    /// Other keys for the tokens of clients to come.
    pub fn set_keys(&mut self, keys: KeyRing) {
        self.keys = keys;
    }

    /// The router.
    pub const fn router_mut(&mut self) -> &mut R {
        &mut self.router
    }

    /// Counters.
    pub const fn stats(&self) -> &SourceStats {
        &self.stats
    }

    /// Clients here.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is no client here.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Events that wait for clients here, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        self.clients.values().fold((0, 0), |(n, b), c| (n + c.queue.len(), b + c.queued_bytes))
    }

    /// Who a connection is.
    pub fn party(&self, key: K) -> Option<&Party> {
        self.clients.get(&key).map(|c| &c.party)
    }

    /// Presence: the role in which a client is there, wherever that is.
    pub fn presence(&self, app: &AppId, client: &ClientId) -> Option<PairingRole> {
        self.router.presence(app, client)
    }

    /// A connection is asked for with this credential, at `unix_s` seconds of Unix time. Whoever
    /// has the client's place so far is released.
    ///
    /// # Errors
    /// With what to refuse it; nothing has changed then.
    pub fn connect(
        &mut self,
        now: Instant,
        unix_s: u64,
        key: K,
        credential: &[u8],
        out: &mut impl Outlet<K>,
    ) -> Result<&Party, Refusal> {
        let (party, expires_s) = match self.check(unix_s, credential) {
            Ok(admitted) => admitted,
            Err((reason, text)) => {
                self.stats.refuse(reason);
                return Err(Refusal { reason: reason.reason(), text });
            }
        };
        let full = self.clients.len() >= self.config.max_clients;
        if full && self.router.presence(&party.app, &party.client).is_none() {
            self.stats.busy += 1;
            return Err(Refusal { reason: BUSY, text: "too many clients".to_owned() });
        }
        if let Some(old) = self.router.attach(&party, key).filter(|old| *old != key) {
            self.end(old, Abort::ReleasedByOther, "a newer connection has this client id", out);
        }
        self.stats.attached += 1;
        self.sweep_at.get_or_insert(now + SWEEP);
        let client = Client {
            party,
            since: now,
            expires_s,
            opened: false,
            relay_open: false,
            limits: Limits::new(now),
            queue: VecDeque::new(),
            queued_bytes: 0,
            blocked: None,
        };
        Ok(&self.clients.entry(key).insert_entry(client).into_mut().party)
    }

    fn check(&self, unix_s: u64, credential: &[u8]) -> Result<(Party, u64), (Abort, String)> {
        let bad_token = |why: String| (Abort::InvalidAccessToken, why);
        let text = core::str::from_utf8(credential).unwrap_or_default();
        let mut words = text.split(' ');
        let token = words.next().unwrap_or_default();
        let grant = self.keys.verify(token, unix_s).map_err(|e| bad_token(e.to_string()))?;
        let (Some(client), Some(role), None) = (words.next(), words.next(), words.next()) else {
            return Err(bad_token("credential is not TOKEN CLIENT ROLE".to_owned()));
        };
        let bad_client = |why: &str| (Abort::InvalidClientId, format!("client id {why}"));
        let client = ClientId::new(client).map_err(|e| bad_client(&e.to_string()))?;
        let Grant { app, clients, roles, expires_s } = grant;
        if !clients.matches(&client) {
            return Err(bad_client("is not one that the token allows"));
        }
        let bad_role = |why: &str| (Abort::InvalidRole, format!("role {why}"));
        let role: PairingRole = role.parse().map_err(bad_role)?;
        if !roles.contains(role) {
            return Err(bad_role("is not one that the token allows"));
        }
        if self.config.apps.as_ref().is_some_and(|apps| !apps.contains(&app)) {
            return Err((Abort::NotAuthorized, "application is not served here".to_owned()));
        }
        Ok((Party { app, client, role }, expires_s))
    }

    /// A connection asks for its channel. `false`: it has one, or is not there; decline it.
    pub fn opened(&mut self, key: K) -> bool {
        match self.clients.get_mut(&key) {
            Some(client) if !client.opened => {
                client.opened = true;
                true
            }
            _ => false,
        }
    }

    /// A connection has ended, or its channel has.
    pub fn gone(&mut self, key: K) {
        if let Some(client) = self.clients.remove(&key) {
            self.router.detach(&client.party, key);
        }
    }

    /// A newer connection of the same client was made elsewhere; the router has given its place
    /// away already.
    pub fn released(&mut self, key: K, out: &mut impl Outlet<K>) {
        self.end(key, Abort::ReleasedByOther, "a newer connection has this client id", out);
    }

    fn end(&mut self, key: K, reason: Abort, text: &str, out: &mut impl Outlet<K>) {
        if self.clients.contains_key(&key) {
            self.gone(key);
            self.stats.abort(reason);
            out.abort(key, reason, text);
        }
    }

    /// A message of a client's channel.
    pub fn receive(&mut self, now: Instant, key: K, message: &[u8], out: &mut impl Outlet<K>) {
        let Some(client) = self.clients.get_mut(&key).filter(|c| c.opened) else { return };
        let allowed = client.limits.event(now, message.len(), &self.config);
        let read = if allowed { event::decode(message) } else { Err(EventError::TooLarge) };
        let own = client.party.client.as_str();
        let fault = match read {
            _ if !allowed => &mut self.stats.limited,
            Err(EventError::TooLarge) => &mut self.stats.oversize,
            Err(EventError::UnknownType(_)) => &mut self.stats.unknown_type,
            Err(EventError::Malformed(_)) => &mut self.stats.malformed,
            Ok(event) if event.to.is_empty() || event.to == own => &mut self.stats.malformed,
            Ok(event) if !event.from.is_empty() && event.from != own => &mut self.stats.forged,
            Ok(event) => {
                self.stats.receive(event.kind);
                let party = client.party.clone();
                let role = Some(party.role);
                let event = EventRef { from: party.client.as_str(), role, ..event };
                self.route(now, &party, &event, out);
                return;
            }
        };
        *fault += 1;
        if !client.limits.fault(now, &self.config) {
            let text = "too many events, or too many that are no good";
            self.end(key, Abort::NotAuthorized, text, out);
        }
    }

    fn route(
        &mut self,
        now: Instant,
        from: &Party,
        event: &EventRef<'_>,
        out: &mut impl Outlet<K>,
    ) {
        match self.router.route(from, event) {
            Route::Here(to) => self.arrive(now, to, from, event, out),
            Route::Elsewhere => self.stats.forwarded += 1,
            Route::Absent => self.stats.absent += 1,
            Route::Full => self.stats.overflowed += 1,
        }
    }

    /// An event that the router of another event source brought here.
    pub fn routed(&mut self, now: Instant, routed: &Routed, out: &mut impl Outlet<K>) {
        self.route(now, &routed.from, &routed.event.as_ref(), out);
    }

    /// The recipient is here: whether the event may reach it is decided here, too.
    fn arrive(
        &mut self,
        now: Instant,
        to: K,
        from: &Party,
        event: &EventRef<'_>,
        out: &mut impl Outlet<K>,
    ) {
        let Some(client) = self.clients.get_mut(&to).filter(|c| c.opened) else {
            self.stats.absent += 1;
            return;
        };
        let ping = event.kind == EventType::Ping;
        let reject = if client.party.app != from.app {
            Reject::AppIdMismatch
        } else if client.party.role == from.role {
            Reject::InvalidPartnerRole
        } else if event.kind == EventType::Unassign && from.role != PairingRole::Controller {
            self.stats.blocked += 1;
            return;
        } else {
            self.scratch.clear();
            event::encode(&mut self.scratch, event);
            let message = core::mem::take(&mut self.scratch);
            self.deliver(now, to, &message, out);
            self.scratch = message;
            return;
        };
        match reject {
            _ if !ping => self.stats.blocked += 1,
            Reject::AppIdMismatch => self.stats.rejected_app += 1,
            _ => self.stats.rejected_role += 1,
        }
        if ping {
            self.reject(now, from, event, reject, out);
        }
    }

    /// Answers a ping in the place of the client that must not get it.
    fn reject(
        &mut self,
        now: Instant,
        pinged_by: &Party,
        ping: &EventRef<'_>,
        reason: Reject,
        out: &mut impl Outlet<K>,
    ) {
        let Ok(client) = ClientId::new(ping.to) else { return };
        // To whoever pinged, the answer comes from where the ping should have gone: from its own
        // application, in the role that a partner has.
        let from = Party { app: pinged_by.app.clone(), client, role: pinged_by.role.partner() };
        let answer = EventRef {
            kind: EventType::Reject,
            subtype: reason.to_wire(),
            from: ping.to,
            to: ping.from,
            role: None,
            sent: 0,
            received: ping.sent,
            buffered: false,
            body: &[],
        };
        self.route(now, &from, &answer, out);
    }

    fn deliver(&mut self, now: Instant, to: K, message: &[u8], out: &mut impl Outlet<K>) {
        let Some(client) = self.clients.get_mut(&to) else { return };
        if client.blocked.is_none() {
            if out.send(to, message) {
                self.stats.delivered += 1;
                return;
            }
            client.blocked = Some(now);
        }
        let bytes = client.queued_bytes + message.len();
        if client.queue.len() >= self.config.queue_events || bytes > self.config.queue_bytes {
            self.stats.overflowed += 1;
            return;
        }
        self.stats.queued += 1;
        client.queued_bytes = bytes;
        client.queue.push_back(message.into());
    }

    /// A client's channel that had no room has some.
    pub fn writable(&mut self, now: Instant, key: K, out: &mut impl Outlet<K>) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if client.blocked.take().is_none() {
            return;
        }
        while let Some(message) = client.queue.front() {
            if !out.send(key, message) {
                client.blocked = Some(now);
                return;
            }
            client.queued_bytes -= message.len();
            client.queue.pop_front();
            self.stats.delivered += 1;
        }
        client.queue = VecDeque::new();
    }

    /// Looks for clients that are not alive, and for tokens that have expired.
    pub fn handle_timeout(&mut self, now: Instant, unix_s: u64, out: &mut impl Outlet<K>) {
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        let config = &self.config;
        let over = |since: Instant, limit| now.since(since) >= limit;
        let verdict = |client: &Client| {
            if config.end_expired && unix_s >= client.expires_s {
                Some((Abort::InvalidAccessToken, "token has expired"))
            } else if client.blocked.is_some_and(|since| over(since, config.stall_limit)) {
                Some((Abort::ClientNotAlive, "events were not taken"))
            } else if !client.opened && over(client.since, config.open_limit) {
                Some((Abort::ClientNotAlive, "the channel was not opened"))
            } else {
                None
            }
        };
        let verdicts: Vec<_> =
            self.clients.iter().filter_map(|(key, c)| verdict(c).map(|v| (*key, v))).collect();
        for (key, (reason, text)) in verdicts {
            self.end(key, reason, text, out);
        }
        self.sweep_at = (!self.clients.is_empty()).then(|| now + SWEEP);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }
}

#[cfg(test)]
mod tests;
