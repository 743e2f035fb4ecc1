//! The ICE agent of crate `is`, with what it lacks: our clock, credentials that both sides derive,
//! and bounds on what it remembers.

use crate::ids::Role;
use crate::limits::{MAX_ROUTE_ADDRESSES, MAX_ROUTE_CANDIDATES};
use crate::time::Instant;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, CandidateKind, IceAgent, IceAgentEvent, IceCreds, Protocol, Sha1HmacProvider};
use ring::hmac;
use std::net::SocketAddr;
use std::time::Duration as StdDuration;

use super::message::Told;

/// Pairs of addresses that are checked at once.
const MAX_PAIRS: usize = 32;
/// A check that is not answered is repeated after this, doubling …
const FIRST_RETRY: StdDuration = StdDuration::from_millis(200);
/// … up to this, which is also how often a path that works is checked.
const SLOWEST_CHECK: StdDuration = StdDuration::from_secs(2);

#[derive(Debug)]
struct Sha1;

impl Sha1HmacProvider for Sha1 {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let mut context =
            hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
        for part in payloads {
            context.update(part);
        }
        let mut out = [0; 20];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

/// A STUN packet that is to be sent.
pub(super) struct Check {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) packet: Vec<u8>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Agent {
    ice: IceAgent,
    role: Role,
    key: [u8; 32],
    /// One moment on both clocks.
    epoch: std::time::Instant,
    origin: Instant,
    /// Addresses of the peer that it was told of or that checks came from, in this generation.
    met: Vec<SocketAddr>,
    /// Addresses of ours that checks were answered for.
    mapped: Vec<SocketAddr>,
    /// The peer's candidates as they were told last.
    told: Vec<Told>,
}

fn derive(key: &[u8; 32], role: Role, generation: u32) -> IceCreds {
    let part = |label: &[u8], len: usize| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(label);
        context.update(&[u8::from(role == Role::Host)]);
        context.update(&generation.to_be_bytes());
        STANDARD_NO_PAD.encode(&context.sign().as_ref()[..len])
    };
    IceCreds { ufrag: part(b"ufrag", 9), pass: part(b"pwd", 24) }
}

fn told_candidate(told: &Told) -> Candidate {
    let kind = if told.reflexive { CandidateKind::ServerReflexive } else { CandidateKind::Host };
    Candidate::from_parts(
        String::from("1"),
        1,
        Protocol::Udp,
        told.priority,
        told.addr,
        kind,
        None,
        None,
        None,
    )
}

impl Agent {
    /// `epoch` is any moment of the system's clock, which stands for `now` and is not read again.
    pub(super) fn new(
        now: Instant,
        epoch: std::time::Instant,
        role: Role,
        key: [u8; 32],
        tie_breaker: u64,
    ) -> Self {
        let mut ice = IceAgent::with_hmac(derive(&key, role, 0), &Sha1);
        ice.set_remote_credentials(derive(&key, role.peer(), 0));
        ice.set_controlling(role == Role::Client);
        ice.set_control_tie_breaker(tie_breaker);
        ice.set_max_candidate_pairs(MAX_PAIRS);
        ice.set_initial_stun_rto(FIRST_RETRY);
        ice.set_max_stun_rto(SLOWEST_CHECK);
        let mut agent = Self {
            ice,
            role,
            key,
            epoch,
            origin: now,
            met: Vec::new(),
            mapped: Vec::new(),
            told: Vec::new(),
        };
        agent.handle_timeout(now);
        agent
    }

    fn outside(&self, at: Instant) -> std::time::Instant {
        self.epoch + StdDuration::from_nanos(at.since(self.origin).as_nanos())
    }

    /// Forgets everything but the time.
    pub(super) fn restart(&mut self, now: Instant, generation: u32) {
        self.ice.ice_restart(derive(&self.key, self.role, generation), false);
        self.ice.set_remote_credentials(derive(&self.key, self.role.peer(), generation));
        self.met.clear();
        self.mapped.clear();
        self.told.clear();
        self.handle_timeout(now);
    }

    /// Checks everything once more, also what has failed.
    pub(super) fn search_again(&mut self) {
        self.ice.recreate_candidate_pairs();
    }

    /// Adds an address of ours: of the interface, or as seen by others. Gives its priority.
    pub(super) fn add_local(&mut self, base: SocketAddr, seen: Option<SocketAddr>) -> Option<u32> {
        let candidate = match seen {
            Some(seen) => Candidate::server_reflexive(seen, base, Protocol::Udp),
            None => Candidate::host(base, Protocol::Udp),
        };
        self.ice.add_local_candidate(candidate.ok()?).map(Candidate::prio)
    }

    pub(super) fn remove_local(&mut self, base: SocketAddr, seen: SocketAddr) {
        if let Ok(candidate) = Candidate::server_reflexive(seen, base, Protocol::Udp) {
            self.ice.invalidate_candidate(&candidate);
        }
    }

    /// Takes over the peer's candidates.
    pub(super) fn set_remotes(&mut self, told: Vec<Told>) {
        for gone in self.told.iter().filter(|t| !told.contains(t)) {
            self.ice.invalidate_candidate(&told_candidate(gone));
        }
        for new in told.iter().filter(|t| !self.told.contains(t)) {
            if Self::meet(&mut self.met, MAX_ROUTE_ADDRESSES, new.addr) {
                self.ice.add_remote_candidate(told_candidate(new));
            }
        }
        self.told = told;
    }

    /// Whether there is room for what is remembered of an address.
    fn meet(list: &mut Vec<SocketAddr>, max: usize, addr: SocketAddr) -> bool {
        if list.contains(&addr) {
            return true;
        }
        let fits = list.len() < max;
        if fits {
            list.push(addr);
        }
        fits
    }

    /// Takes a STUN packet, if it is for this agent: made with its passwords, and not one too many
    /// of those that leave something behind. Anybody can repeat a check from any address.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        packet: &[u8],
    ) -> bool {
        let Ok(message) = StunMessage::parse(packet) else { return false };
        if !self.ice.accepts_message(&message) {
            return false;
        }
        let fits = if message.is_binding_request() {
            Self::meet(&mut self.met, MAX_ROUTE_ADDRESSES, remote)
        } else if let Some(mapped) = message.mapped_address() {
            Self::meet(&mut self.mapped, MAX_ROUTE_CANDIDATES, mapped)
        } else {
            true
        };
        if fits {
            let packet =
                StunPacket { proto: Protocol::Udp, source: remote, destination: local, message };
            let now = self.outside(now);
            self.ice.handle_packet(now, packet);
        }
        true
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let now = self.outside(now);
        self.ice.handle_timeout(now);
    }

    pub(super) fn timeout(&mut self) -> Option<Instant> {
        let at = self.ice.poll_timeout()?;
        let since = at.saturating_duration_since(self.epoch);
        Some(self.origin + since.into())
    }

    pub(super) fn poll_check(&mut self) -> Option<Check> {
        self.ice.poll_transmit().map(|t| Check {
            local: t.source,
            remote: t.destination,
            packet: t.contents.to_vec(),
        })
    }

    /// The path that the checks favour, when that has changed: local and remote address.
    pub(super) fn poll_path(&mut self) -> Option<(SocketAddr, SocketAddr)> {
        while let Some(event) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                return Some((source, destination));
            }
        }
        None
    }

    /// How often the path that the checks favour has answered.
    pub(super) fn answers(&self) -> u64 {
        self.ice.nominated_pair_responses_received().unwrap_or_default()
    }
}
