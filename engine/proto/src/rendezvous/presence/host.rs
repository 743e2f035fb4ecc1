//! The host's side: answers those who ask, as often as the rates allow, to nobody who could not
//! have asked.

use super::describe::Announcement;
use super::state::{HostState, HostTrigger};
use super::wire::{Message, Nonce, Request, Response};
use crate::crypto::rng::Rng;
use crate::error::ApiError;
use crate::limits::{MAX_FAREWELLS, MAX_PENDING_ANSWERS, MAX_PRESENCE_SESSIONS, VERSION};
use crate::rendezvous::rate::RateTable;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Ports below this belong to services: a question from there was not asked by a client.
const FIRST_CLIENT_PORT: u16 = 1024;

/// From how far away a question to our own address may come. Questions to the group are answered
/// only on the link, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// From the link.
    Link,
    /// From the link and from private addresses (RFC 1918, RFC 4193).
    #[default]
    Site,
    /// From everywhere.
    Anywhere,
}

/// Which questions are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    /// All that are meant for us.
    #[default]
    Everybody,
    /// Only those that carry the hash of our id: the device shows itself to nobody else.
    ThoseWhoKnowTheId,
}

/// Settings of a [`Host`].
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Which questions are answered.
    pub answers: Answers,
    /// From how far away.
    pub reach: Reach,
    /// A session ends when nothing is heard for so long; 1 s to 1 h, 35 s by default.
    pub heartbeat: Duration,
    /// Answers to the group's questions are held back by up to so much, at random, so that those of
    /// many devices do not collide; at most 1 s, 100 ms by default.
    pub spread: Duration,
    /// Answers a second in all, 1 to 10,000, and twice as many at once. 50 by default.
    pub answers_per_second: u32,
    /// Answers a second to one source address, at least 1, and twice as many at once. 5 by default.
    pub answers_per_source: u32,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            answers: Answers::default(),
            reach: Reach::default(),
            heartbeat: Duration::from_secs(35),
            spread: Duration::from_millis(100),
            answers_per_second: 50,
            answers_per_source: 5,
        }
    }
}

impl HostConfig {
    /// Checks every field; the error names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        let check = |ok, field, why| {
            if ok { Ok(()) } else { Err(ApiError::InvalidArgument { field, why }) }
        };
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let heartbeat = (second..=hour).contains(&self.heartbeat);
        check(heartbeat, "heartbeat", "must lie between 1 s and 1 h")?;
        check(self.spread <= second, "spread", "must be at most 1 s")?;
        let all = 1..=10_000;
        let rate = all.contains(&self.answers_per_second);
        check(rate, "answers_per_second", "must lie in 1..=10000")?;
        let rate = (1..=self.answers_per_second).contains(&self.answers_per_source);
        check(rate, "answers_per_source", "must lie in 1..=answers_per_second")
    }
}

/// Where a datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The sender.
    pub from: SocketAddr,
    /// Where it arrived, in numbers of whoever owns the sockets: the answer leaves there.
    pub interface: u32,
    /// It was sent to the group.
    pub multicast: bool,
    /// The sender's address belongs to a network that the interface is part of.
    pub on_link: bool,
}

/// An answer that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To whom.
    pub to: SocketAddr,
    /// Where the question arrived.
    pub interface: u32,
    /// Bytes in the buffer.
    pub len: usize,
}

/// What a host did with what it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostCounts {
    /// Answers given, farewells included.
    pub answered: u64,
    /// No presence message, or a malformed one.
    pub malformed: u64,
    /// Answers of others.
    pub not_questions: u64,
    /// From an address that could not have asked, or from too far away.
    pub wrong_source: u64,
    /// For another service or another device.
    pub not_for_us: u64,
    /// Above a rate.
    pub rate_limited: u64,
    /// The answer to the same question was waiting already.
    pub repeated: u64,
    /// Too many answers were waiting.
    pub full: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Sessions that ended because their heartbeat expired.
    pub expired: u64,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    state: HostState,
    heard: Instant,
    nonce: Nonce,
    interface: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    to: SocketAddr,
    interface: u32,
    nonce: Nonce,
    asked: Instant,
    leaving: bool,
}

/// Answers PresenceRequests for one announcement.
///
/// Call [`receive`](Self::receive) for each datagram, [`handle_timeout`](Self::handle_timeout) when
/// [`next_timeout`](Self::next_timeout) has passed, and after either
/// [`poll_transmit`](Self::poll_transmit) until it gives nothing.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    announcement: Announcement,
    rng: Rng,
    rates: RateTable,
    /// Those that asked, all of them Ready.
    sessions: BTreeMap<SocketAddr, Session>,
    by_age: BTreeSet<(Instant, SocketAddr)>,
    /// By due time.
    pending: BTreeMap<(Instant, u64), Pending>,
    next_pending: u64,
    withdrawn: bool,
    counts: HostCounts,
}

impl Host {
    /// A host that announces from now on.
    ///
    /// # Errors
    /// The setting that is out of range.
    pub fn new(
        config: HostConfig,
        announcement: Announcement,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ApiError> {
        config.validate()?;
        check(&config, &announcement)?;
        let rates = RateTable::new(config.answers_per_second, config.answers_per_source, now);
        Ok(Self {
            config,
            announcement,
            rng: Rng::from_seed(seed),
            rates,
            sessions: BTreeMap::new(),
            by_age: BTreeSet::new(),
            pending: BTreeMap::new(),
            next_pending: 0,
            withdrawn: false,
            counts: HostCounts::default(),
        })
    }

    /// Whether somebody has asked: Ready while there is a session, Ended once
    /// [withdrawn](Self::withdraw).
    pub fn state(&self) -> HostState {
        match (self.withdrawn, self.sessions.is_empty()) {
            (true, _) => HostState::Ended,
            (false, true) => HostState::WaitingForPresenceRequest,
            (false, false) => HostState::Ready,
        }
    }

    /// The state of the session with the client at this address.
    pub fn session(&self, client: SocketAddr) -> HostState {
        match self.sessions.get(&plain(client)) {
            Some(session) => session.state,
            None if self.withdrawn => HostState::Ended,
            None => HostState::WaitingForPresenceRequest,
        }
    }

    /// Clients that asked within the heartbeat.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What was done with what was received.
    pub const fn counts(&self) -> HostCounts {
        self.counts
    }

    /// What is told to those who ask.
    pub const fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Tells something else from now on. Clients learn of it with their next question.
    ///
    /// # Errors
    /// The field that is unusable; nothing changes then.
    pub fn announce(&mut self, announcement: Announcement) -> Result<(), ApiError> {
        check(&self.config, &announcement)?;
        self.announcement = announcement;
        Ok(())
    }

    /// Takes a datagram. Whatever is wrong with it is counted and changes nothing.
    pub fn receive(&mut self, now: Instant, arrival: Arrival, datagram: &[u8]) {
        let request = match Message::parse(datagram) {
            Ok(Message::Request(request)) => request,
            Ok(Message::Response(_)) => return self.counts.not_questions += 1,
            Err(_) => return self.counts.malformed += 1,
        };
        if self.withdrawn || !self.may_ask(&arrival) {
            return self.counts.wrong_source += 1;
        }
        if !request.service.is_empty() && request.service != self.announcement.service {
            return self.counts.not_for_us += 1;
        }
        self.rates.forget(now - self.config.heartbeat.max(self.rates.memory()));
        // Before the hash is looked at: guesses cost as much as answers.
        if !self.rates.allows(arrival.from.ip(), now) {
            return self.counts.rate_limited += 1;
        }
        if !self.is_meant(&request) {
            return self.counts.not_for_us += 1;
        }
        self.answer(now, arrival, request.nonce);
    }

    /// Whether a client can have sent it from there. What was forged to hit somebody else mostly
    /// claims an address or a port that no client has.
    fn may_ask(&self, arrival: &Arrival) -> bool {
        let ip = arrival.from.ip().to_canonical();
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if ip.is_unspecified()
            || ip.is_multicast()
            || broadcast
            || arrival.from.port() < FIRST_CLIENT_PORT
        {
            return false;
        }
        let private = match ip {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        match self.config.reach {
            _ if arrival.on_link => true,
            _ if arrival.multicast => false,
            Reach::Link => false,
            Reach::Site => private,
            Reach::Anywhere => true,
        }
    }

    fn is_meant(&self, request: &Request<'_>) -> bool {
        match (request.wanted, &self.announcement.id) {
            (None, _) => self.config.answers == Answers::Everybody,
            (Some(_), Some(id)) => request.is_for(id),
            (Some(_), None) => false,
        }
    }

    fn answer(&mut self, now: Instant, arrival: Arrival, nonce: Nonce) {
        let to = plain(arrival.from);
        if self.pending.values().any(|p| p.to == to && p.nonce == nonce) {
            return self.counts.repeated += 1;
        }
        if self.pending.len() >= MAX_PENDING_ANSWERS {
            return self.counts.full += 1;
        }
        self.hear(now, to, arrival.interface, nonce);
        let spread = if arrival.multicast { self.config.spread.as_nanos() } else { 0 };
        let due = now + Duration::from_nanos(self.rng.below(spread));
        let interface = arrival.interface;
        self.wait(due, Pending { to, interface, nonce, asked: now, leaving: false });
    }

    /// The session begins, or its heartbeat does.
    fn hear(&mut self, now: Instant, from: SocketAddr, interface: u32, nonce: Nonce) {
        let old = self.sessions.remove(&from);
        if let Some(session) = old {
            self.by_age.remove(&(session.heard, from));
        } else {
            self.counts.sessions += 1;
            if self.sessions.len() >= MAX_PRESENCE_SESSIONS
                && let Some((_, oldest)) = self.by_age.pop_first()
            {
                self.sessions.remove(&oldest);
            }
        }
        let state = old.map_or(HostState::WaitingForPresenceRequest, |session| session.state);
        let state = state.after(HostTrigger::Asked);
        self.sessions.insert(from, Session { state, heard: now, nonce, interface });
        self.by_age.insert((now, from));
    }

    fn wait(&mut self, due: Instant, pending: Pending) {
        self.pending.insert((due, self.next_pending), pending);
        self.next_pending += 1;
    }

    /// Writes the next answer that is due. Each is at most 256 bytes: never more than its question.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Answer> {
        while let Some(first) = self.pending.first_entry() {
            if first.key().0 > now {
                return None;
            }
            let Pending { to, interface, nonce, asked, leaving } = first.remove();
            let told = &self.announcement;
            let response = Response {
                nonce,
                leaving,
                salt: self.rng.array(),
                id_hash: self.rng.array(),
                peer: told.peer,
                protocol: VERSION,
                held_us: u32::try_from(now.since(asked).as_micros()).unwrap_or(u32::MAX),
                port: told.port,
                device_type: told.device_type,
                mode: told.mode,
                links: told.links,
                service: &told.service,
                name: &told.name,
            };
            if let Some(len) = response.write(told.id.as_ref(), out) {
                self.counts.answered += 1;
                return Some(Answer { to, interface, len });
            }
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) or an answer is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let answer = self.pending.first_key_value().map(|(&(due, _), _)| due);
        let expiry = self.by_age.first().map(|&(heard, _)| heard + self.config.heartbeat);
        answer.into_iter().chain(expiry).min()
    }

    /// Ends the sessions whose heartbeat has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(heard, client)) = self.by_age.first()
            && heard + self.config.heartbeat <= now
        {
            self.by_age.remove(&(heard, client));
            if let Some(session) = self.sessions.remove(&client)
                && session.state.after(HostTrigger::HeartbeatExpired) == HostState::Ended
            {
                self.counts.expired += 1;
            }
        }
    }

    /// Ends the announcement. Those that asked last, at most 64, are told with a second answer to
    /// their last question: send what [`poll_transmit`](Self::poll_transmit) gives. Answers that
    /// were waiting are dropped; nothing is answered any more.
    pub fn withdraw(&mut self, now: Instant) {
        if std::mem::replace(&mut self.withdrawn, true) {
            return;
        }
        self.pending.clear();
        let told: Vec<SocketAddr> =
            self.by_age.iter().rev().take(MAX_FAREWELLS).map(|&(_, client)| client).collect();
        for to in told {
            if let Some(Session { interface, nonce, .. }) = self.sessions.get(&to).copied() {
                self.wait(now, Pending { to, interface, nonce, asked: now, leaving: true });
            }
        }
        self.sessions.clear();
        self.by_age.clear();
    }
}

fn check(config: &HostConfig, announcement: &Announcement) -> Result<(), ApiError> {
    announcement.validate()?;
    if config.answers == Answers::ThoseWhoKnowTheId && announcement.id.is_none() {
        let why = "must be set for a device that answers only those who know it";
        return Err(ApiError::InvalidArgument { field: "id", why });
    }
    Ok(())
}

/// Without what says nothing about who it is.
fn plain(mut address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_flowinfo(0);
    }
    address
}
