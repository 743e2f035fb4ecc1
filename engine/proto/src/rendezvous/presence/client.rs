//! The client's side: asks, in growing intervals and never at the same moment as others, and keeps
//! what was answered for as long as it is confirmed.

use super::describe::DeviceId;
use super::state::{ClientState, ClientTrigger};
use super::table::{Change, Device, Devices, Path, key_of};
use super::wire::{Message, Nonce, Request, Response, check_service};
use crate::crypto::rng::Rng;
use crate::error::ApiError;
use crate::ids::PeerId;
use crate::limits::{MAX_OPEN_QUESTIONS, MAX_PRESENCE_IGNORED, MAX_PRESENCE_TARGETS};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// Before a first question passes up to so much, so that programs that start together do not ask
/// together.
const FIRST_JITTER: Duration = Duration::from_millis(20);
/// Between first and second question.
const SECOND_AFTER: Duration = Duration::from_millis(250);
/// Between second and third; every further gap is twice the one before, up to the interval.
const THIRD_AFTER: Duration = Duration::from_secs(1);
/// Least interval.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Find only devices of this service; empty = of all.
    pub service: String,
    /// Find only the device that has this id, and have it prove that.
    pub id: Option<DeviceId>,
    /// Overlook devices with these keys, such as our own; at most 16.
    pub ignore: Vec<PeerId>,
    /// Ask the group.
    pub group: bool,
    /// Ask these hosts too, whether or not the group reaches them; at most 64.
    pub targets: Vec<SocketAddr>,
    /// Between two questions once the first ones are asked; 500 ms to 10 min, 10 s by default.
    pub interval: Duration,
    /// A device from which nothing is heard for so long is lost. At least twice the interval and a
    /// second; 35 s by default: three questions go unanswered.
    pub heartbeat: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            service: String::new(),
            id: None,
            ignore: Vec::new(),
            group: true,
            targets: Vec::new(),
            interval: Duration::from_secs(10),
            heartbeat: Duration::from_secs(35),
        }
    }
}

impl ClientConfig {
    /// Checks every field; the error names the first one that is unusable.
    pub fn validate(&self) -> Result<(), ApiError> {
        let check = |ok, field, why| {
            if ok { Ok(()) } else { Err(ApiError::InvalidArgument { field, why }) }
        };
        let service = check_service(&self.service);
        check(service, "service", "must have at most 63 letters, digits, `.`, `-` or `_`")?;
        check(self.ignore.len() <= MAX_PRESENCE_IGNORED, "ignore", "must hold at most 16 keys")?;
        let few = self.targets.len() <= MAX_PRESENCE_TARGETS;
        check(few, "targets", "must hold at most 64 addresses")?;
        let real =
            |t: &SocketAddr| t.port() != 0 && !t.ip().is_unspecified() && !t.ip().is_multicast();
        check(self.targets.iter().all(real), "targets", "must have a port and a real address")?;
        let whom = self.group || !self.targets.is_empty();
        check(whom, "targets", "must not be empty unless the group is asked")?;
        let interval = (MIN_INTERVAL..=Duration::from_secs(600)).contains(&self.interval);
        check(interval, "interval", "must lie between 500 ms and 10 min")?;
        let heartbeat = self.interval.mul(2) + Duration::from_secs(1) <= self.heartbeat
            && self.heartbeat <= Duration::from_secs(7200);
        check(heartbeat, "heartbeat", "must lie between twice the interval and a second, and 2 h")
    }
}

/// Whom a question goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The group, on every interface, over IPv4 and IPv6.
    Group,
    /// One host.
    Host(SocketAddr),
}

/// A question that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// To whom.
    pub to: Destination,
    /// Bytes in the buffer.
    pub len: usize,
}

/// What a client has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A device that was not known answered.
    Found(Device),
    /// A device says something else of itself, or has one more address.
    Changed(Device),
    /// A device left, or its heartbeat expired.
    Lost(Device),
    /// Nobody there has answered for the heartbeat; asking goes on.
    Silent(Destination),
}

/// What a client did with what it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCounts {
    /// Questions asked.
    pub asked: u64,
    /// Valid answers.
    pub answers: u64,
    /// No presence message, or a malformed one.
    pub malformed: u64,
    /// Questions of others.
    pub not_answers: u64,
    /// Answers to nothing that we asked there, or asked too long ago.
    pub unasked: u64,
    /// Answers of another service, of a device that does not know the id, or of one to overlook.
    pub unwanted: u64,
    /// Answers that a bound of the table left out.
    pub full: u64,
}

/// A destination and the session that is sought there.
#[derive(Debug)]
struct Asking {
    to: Destination,
    state: ClientState,
    /// When the session began, or something was heard last.
    since: Instant,
    /// Questions that can be answered, oldest first, with their times.
    open: VecDeque<(Nonce, Instant)>,
    next_at: Instant,
    last_at: Option<Instant>,
    /// Questions since the schedule began.
    step: u32,
    /// Devices that were missing when the schedule began anew for their sake, and still are.
    missing: usize,
    /// When it did so last.
    hurried_at: Option<Instant>,
}

/// Finds devices.
///
/// Call [`receive`](Self::receive) for each datagram, [`handle_timeout`](Self::handle_timeout) when
/// [`next_timeout`](Self::next_timeout) has passed, and after either
/// [`poll_transmit`](Self::poll_transmit) until it gives nothing.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    rng: Rng,
    asking: Vec<Asking>,
    devices: Devices,
    counts: ClientCounts,
}

impl Client {
    /// A client that asks from now on.
    ///
    /// # Errors
    /// The setting that is out of range.
    pub fn new(config: ClientConfig, seed: [u8; 32], now: Instant) -> Result<Self, ApiError> {
        config.validate()?;
        let mut rng = Rng::from_seed(seed);
        let mut asking: Vec<Asking> = Vec::new();
        let group = config.group.then_some(Destination::Group);
        for to in group.into_iter().chain(config.targets.iter().map(|t| Destination::Host(*t))) {
            if asking.iter().any(|a| a.to == to) {
                continue;
            }
            asking.push(Asking {
                to,
                state: ClientState::WaitingForPresenceResponse,
                since: now,
                open: VecDeque::new(),
                next_at: now + jitter(&mut rng, FIRST_JITTER),
                last_at: None,
                step: 0,
                missing: 0,
                hurried_at: None,
            });
        }
        let devices = Devices::new(config.heartbeat);
        Ok(Self { config, rng, asking, devices, counts: ClientCounts::default() })
    }

    /// Ready while a device is known.
    pub fn state(&self) -> ClientState {
        if self.devices.is_empty() {
            ClientState::WaitingForPresenceResponse
        } else {
            ClientState::Ready
        }
    }

    /// The state of the session that is sought there; `None` when nobody is asked there. One that
    /// ends is followed by another at once, so that this is never Ended.
    pub fn session(&self, to: Destination) -> Option<ClientState> {
        self.asking.iter().find(|a| a.to == to).map(|a| a.state)
    }

    /// The devices that are there.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter()
    }

    /// What was done with what was received.
    pub const fn counts(&self) -> ClientCounts {
        self.counts
    }

    /// Asks again as at the beginning: the network has changed. Two questions to the same
    /// destination still have a quarter of a second between them.
    pub fn ask_now(&mut self, now: Instant) {
        for asking in &mut self.asking {
            let earliest = asking.last_at.map_or(now, |last| last + SECOND_AFTER).max(now);
            asking.next_at =
                asking.next_at.min(earliest + jitter(&mut self.rng, FIRST_JITTER)).max(earliest);
            asking.step = 0;
        }
    }

    /// Takes a datagram from `from`. Whatever is wrong with it is counted and changes nothing.
    pub fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Option<ClientEvent> {
        let response = match Message::parse(datagram) {
            Ok(Message::Response(response)) => response,
            Ok(Message::Request(_)) => {
                self.counts.not_answers += 1;
                return None;
            }
            Err(_) => {
                self.counts.malformed += 1;
                return None;
            }
        };
        let Some((at, asked)) = self.question(now, from, &response.nonce) else {
            self.counts.unasked += 1;
            return None;
        };
        let proven = self.config.id.as_ref().is_some_and(|id| Response::proves(datagram, id));
        let other_service =
            !self.config.service.is_empty() && self.config.service != response.service;
        if other_service
            || self.config.id.is_some() && !proven
            || self.config.ignore.contains(&response.peer)
        {
            self.counts.unwanted += 1;
            return None;
        }
        self.counts.answers += 1;
        let address = listening_at(from, response.port);
        if response.leaving {
            return self.farewell(now, at, &response, address);
        }
        let asking = &mut self.asking[at];
        asking.state = asking.state.after(ClientTrigger::Answered);
        asking.since = now;
        let held = Duration::from_micros(response.held_us.into());
        let rtt = now.since(asked).saturating_sub(held);
        let change = self.devices.hear(&response, proven, Path { address, rtt, heard: now });
        let device = || self.devices.get(&key_of(&response)).cloned();
        match change {
            Change::Found => device().map(ClientEvent::Found),
            Change::Changed => device().map(ClientEvent::Changed),
            Change::Same => None,
            Change::Full => {
                self.counts.full += 1;
                None
            }
        }
    }

    /// The question with this nonce that somebody at `from` may answer, and when it was asked.
    fn question(&self, now: Instant, from: SocketAddr, nonce: &Nonce) -> Option<(usize, Instant)> {
        self.asking.iter().enumerate().find_map(|(at, asking)| {
            let may = match asking.to {
                Destination::Group => true,
                Destination::Host(host) => same_address(host, from),
            };
            let open = asking.open.iter().find(|(n, _)| n == nonce).filter(|_| may)?;
            (now.since(open.1) <= self.config.heartbeat).then_some((at, open.1))
        })
    }

    fn farewell(
        &mut self,
        now: Instant,
        at: usize,
        response: &Response<'_>,
        address: SocketAddr,
    ) -> Option<ClientEvent> {
        let asking = &mut self.asking[at];
        if matches!(asking.to, Destination::Host(_)) {
            asking.state = asking.state.after(ClientTrigger::HostLeft);
            asking.begin_anew(now);
        }
        self.devices.leave(&key_of(response), address).map(ClientEvent::Lost)
    }

    /// Writes the next question that is due.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Question> {
        let asking = self.asking.iter_mut().find(|a| a.next_at <= now)?;
        asking.hurry(now, &self.devices, self.config.interval);
        let nonce = self.rng.array();
        let wanted = self.config.id.as_ref().map(|id| Request::wanted_hash(id, &nonce));
        let request = Request { nonce, wanted, service: &self.config.service };
        let len = request.write(out)?;
        if asking.open.len() >= MAX_OPEN_QUESTIONS {
            asking.open.pop_front();
        }
        asking.open.push_back((nonce, now));
        let gap = gap(asking.step, self.config.interval);
        // An eighth more or less, so that clients that once asked together drift apart.
        let low = gap.saturating_sub(gap.div(8));
        asking.next_at = now + low + jitter(&mut self.rng, gap.div(4));
        asking.last_at = Some(now);
        asking.step = asking.step.saturating_add(1);
        self.counts.asked += 1;
        Some(Question { to: asking.to, len })
    }

    /// When [`handle_timeout`](Self::handle_timeout) or a question is due.
    pub fn next_timeout(&self) -> Instant {
        let heartbeat = self.config.heartbeat;
        let asking = self.asking.iter().map(|a| a.next_at.min(a.since + heartbeat));
        // `validate` has seen to it that somebody is asked.
        asking.chain(self.devices.next_expiry()).min().unwrap_or(Instant::ZERO)
    }

    /// Ends the sessions whose heartbeat has expired and tells of each.
    pub fn handle_timeout(&mut self, now: Instant, mut tell: impl FnMut(ClientEvent)) {
        self.devices.expire(now, |device| tell(ClientEvent::Lost(device)));
        for asking in &mut self.asking {
            if asking.since + self.config.heartbeat <= now {
                asking.state = asking.state.after(ClientTrigger::HeartbeatExpired);
                asking.begin_anew(now);
                tell(ClientEvent::Silent(asking.to));
            }
        }
    }
}

impl Asking {
    /// Somebody who was there has not answered the last question: one of the two was lost, or the
    /// host has gone. The gaps become short again, so that a few losses end no session: once for
    /// each who is missing, and at most once in an interval.
    fn hurry(&mut self, now: Instant, devices: &Devices, interval: Duration) {
        let Some(last) = self.last_at else { return };
        let missing = match self.to {
            Destination::Group => devices.iter().filter(|d| d.heard() < last).count(),
            Destination::Host(_) => {
                usize::from(self.state == ClientState::Ready && self.since < last)
            }
        };
        self.missing = self.missing.min(missing);
        if missing > self.missing && self.hurried_at.is_none_or(|at| now >= at + interval) {
            self.step = self.step.min(1);
            self.missing = missing;
            self.hurried_at = Some(now);
        }
    }

    /// The session that ended is followed by another one.
    fn begin_anew(&mut self, now: Instant) {
        if self.state == ClientState::Ended {
            self.state = ClientState::WaitingForPresenceResponse;
            self.since = now;
        }
    }
}

/// Between question number `step` and the next one.
fn gap(step: u32, interval: Duration) -> Duration {
    let gap = match step {
        0 => SECOND_AFTER,
        n => THIRD_AFTER.mul(1 << (n - 1).min(32)),
    };
    gap.min(interval)
}

fn jitter(rng: &mut Rng, below: Duration) -> Duration {
    Duration::from_nanos(rng.below(below.as_nanos()))
}

/// The scope counts only where both sides name one.
fn same_address(a: SocketAddr, b: SocketAddr) -> bool {
    let scopes = match (a, b) {
        (SocketAddr::V6(a), SocketAddr::V6(b)) => {
            a.scope_id() == b.scope_id() || a.scope_id() == 0 || b.scope_id() == 0
        }
        _ => true,
    };
    scopes && a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

/// Where a device listens that answered from `from`.
fn listening_at(from: SocketAddr, port: u16) -> SocketAddr {
    let mut address = from;
    address.set_port(port);
    match &mut address {
        SocketAddr::V6(v6) => {
            v6.set_flowinfo(0);
            match v6.ip().to_canonical() {
                IpAddr::V4(v4) => SocketAddr::new(v4.into(), port),
                IpAddr::V6(_) => address,
            }
        }
        SocketAddr::V4(_) => address,
    }
}
