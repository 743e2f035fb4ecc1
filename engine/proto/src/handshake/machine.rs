//! The machine of one handshake: its public face, its timers and its endings.

use super::client::{AwaitConnectionResponse, ClientState};
use super::crypto_stream::{CryptoReceive, Inserted};
use super::host::{AwaitAuthenticationRequest, HostState};
use super::level::Space;
use super::outcome::{Established, HandshakeConfig, HandshakeCounters, Receipt};
use super::state::{HandshakeFacts, HandshakeFailure, HandshakeState};
use super::tls::{ClientTls, HostTls, close_reason};
use crate::crypto::{DataKeys, RetryOrigin, Rng};
use crate::error::{ApiError, CloseReason, PeerMisbehaved};
use crate::ids::{ConnectionId, Role};
use crate::limits::MIN_PACKET;
use crate::observe::Tap;
use crate::time::{Duration, Instant};
use crate::wire::packet::{Level, LongHeader};
use crate::wire::params::TransportParams;
use core::fmt;
use rustls::quic;

/// A CLOSE or VersionList that nobody vouched for is believed by a client when this many
/// retransmission intervals passed without progress.
const CLIENT_HINT_INTERVALS: u64 = 6;
/// The same for a host, which has nothing to gain by haste.
const HOST_HINT_INTERVALS: u64 = 8;
/// The retransmission interval doubles at most this often: 250 ms to 2 s.
const MAX_BACKOFF: u32 = 3;
/// Bytes of post-handshake TLS messages kept ahead of a gap.
const TICKETS_AHEAD: usize = 32 * 1024;

/// Which level TLS writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteLevel {
    Initial,
    Handshake,
    Data,
}

/// A claim without proof, believed when `at` comes without progress.
#[derive(Clone, Debug)]
pub(super) struct Hint {
    pub(super) outcome: Receipt,
    pub(super) at: Instant,
}

/// The attempt is over without success.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) reason: CloseReason,
    /// A CLOSE is to be sent now.
    pub(super) due: bool,
    /// The peer ended it: nothing is ever sent.
    pub(super) silent: bool,
    /// Packets that came since.
    pub(super) heard: u32,
}

#[derive(Debug)]
pub(super) enum RoleState {
    Client(ClientState),
    Host(HostState),
}

/// The handshake of one connection attempt.
///
/// Calls, in any order: [`receive`](Self::receive) for each long packet (after
/// [`on_datagram_bytes`](Self::on_datagram_bytes) for the datagram it came in),
/// [`handle_timeout`](Self::handle_timeout) at [`timeout`](Self::timeout), then
/// [`take_established`](Self::take_established) and [`poll_transmit`](Self::poll_transmit) until
/// it gives `None`.
#[allow(clippy::struct_field_names, reason = "the spaces are named as RFC 9001 names their levels")]
pub struct Handshake {
    pub(super) role: RoleState,
    pub(super) tls: quic::Connection,
    pub(super) write_level: WriteLevel,
    pub(super) config: HandshakeConfig,
    pub(super) local_id: ConnectionId,
    /// The peer's id once it is known; a ConnectionRequest goes to the request's id instead.
    pub(super) remote_id: ConnectionId,
    pub(super) initial: Option<Space>,
    pub(super) handshake: Option<Space>,
    pub(super) one_rtt: Option<DataKeys>,
    pub(super) tickets: Vec<u8>,
    /// Client: TLS bytes of data packets.
    post: CryptoReceive,
    pub(super) established: Option<Box<Established>>,
    taken: bool,
    /// The peer's proof was verified.
    pub(super) proven: bool,
    confirmed: bool,
    pub(super) rtt: Option<Duration>,
    pub(super) backoff: u32,
    pub(super) deadline: Option<Instant>,
    /// Host: the client's address is known to be its own.
    pub(super) address_proven: bool,
    pub(super) hint: Option<Hint>,
    pub(super) ending: Option<Ending>,
    pub(super) counters: HandshakeCounters,
    tap: Option<Tap>,
}

impl Handshake {
    /// Starts an attempt to connect. `server_name` is a DNS name or an IP address; it goes into
    /// the ClientHello and is checked when trust is by CA roots. `local_id` is the id that the
    /// host will send to; `initial_source_id` of `params` is set to it.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] when `server_name` is neither, [`ApiError::Security`] when TLS
    /// cannot start.
    pub fn client(
        now: Instant,
        tls: &ClientTls,
        server_name: &str,
        params: TransportParams,
        local_id: ConnectionId,
        config: HandshakeConfig,
        rng: &mut Rng,
    ) -> Result<Self, ApiError> {
        let (state, connection, initial) =
            AwaitConnectionResponse::start(tls, server_name, params, local_id, rng)?;
        let remote_id = state.destination_id();
        let role = RoleState::Client(ClientState::AwaitConnectionResponse(Box::new(state)));
        let mut machine = Self::new(now, role, connection, local_id, remote_id, config, initial);
        machine.pull_tls();
        Ok(machine)
    }

    /// Answers the ConnectionRequest with this header, whose packet is to be given to
    /// [`receive`](Self::receive) next; if that drops it, nobody asked for anything and the attempt
    /// is to be forgotten. `retry` is what its token proved; a request whose token proves nothing
    /// must not get here (a client believes that its token counts).
    /// `initial_source_id`, `original_destination_id` and `retry_source_id` of `params` are set
    /// here.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] when it is no ConnectionRequest with ids of 8 bytes,
    /// [`ApiError::Security`] when TLS cannot start.
    pub fn host(
        now: Instant,
        tls: &HostTls,
        params: TransportParams,
        local_id: ConnectionId,
        request: &LongHeader<'_>,
        retry: Option<&RetryOrigin>,
        config: HandshakeConfig,
    ) -> Result<Self, ApiError> {
        let (state, connection, initial) =
            AwaitAuthenticationRequest::start(tls, params, local_id, request, retry)?;
        let remote_id = state.client_id();
        let role = RoleState::Host(HostState::AwaitAuthenticationRequest(state));
        let mut machine = Self::new(now, role, connection, local_id, remote_id, config, initial);
        machine.address_proven = retry.is_some();
        Ok(machine)
    }

    fn new(
        now: Instant,
        role: RoleState,
        tls: quic::Connection,
        local_id: ConnectionId,
        remote_id: ConnectionId,
        mut config: HandshakeConfig,
        initial: Space,
    ) -> Self {
        config.max_packet = config.max_packet.max(MIN_PACKET);
        Self {
            address_proven: matches!(role, RoleState::Client(_)),
            role,
            tls,
            write_level: WriteLevel::Initial,
            config,
            local_id,
            remote_id,
            initial: Some(initial),
            handshake: None,
            one_rtt: None,
            tickets: Vec::new(),
            post: CryptoReceive::default(),
            established: None,
            taken: false,
            proven: false,
            confirmed: false,
            rtt: None,
            backoff: 0,
            deadline: Some(now + config.retransmit),
            hint: None,
            ending: None,
            counters: HandshakeCounters::default(),
            tap: None,
        }
    }

    /// Shows every packet to an observer, those of the connection that comes of it included. To be
    /// called before anything is sent or received.
    pub(crate) fn observe(&mut self, tap: Tap) {
        if let Some(initial) = &mut self.initial {
            initial.observe(Some(tap.clone()));
        }
        self.tap = Some(tap);
    }

    // ---- what the caller can see

    /// What it waits for; `Ready` when the proofs are complete, which for a host is before its
    /// application has answered.
    pub fn state(&self) -> HandshakeState {
        let role = self.role();
        let failure =
            self.ending.as_ref().map(|e| HandshakeFailure::of(role, e.reason.reason, e.silent));
        let accepted = match role {
            Role::Client => self.confirmed,
            Role::Host => self.proven,
        };
        HandshakeState::of(&HandshakeFacts {
            role,
            requested: true,
            proven: self.proven,
            accepted: accepted && failure.is_none(),
            failure,
        })
    }

    /// Which side we are.
    pub const fn role(&self) -> Role {
        match self.role {
            RoleState::Client(_) => Role::Client,
            RoleState::Host(_) => Role::Host,
        }
    }

    /// Counts so far.
    pub const fn counters(&self) -> HandshakeCounters {
        self.counters
    }

    /// Why it failed, once it has.
    pub fn failure(&self) -> Option<&CloseReason> {
        self.ending.as_ref().map(|e| &e.reason)
    }

    /// The destination id of every ConnectionRequest packet of this attempt, what a host must route
    /// here besides its own id. Changes when a client follows a Retry or starts again; `None` when
    /// no more of them are expected.
    pub const fn request_id(&self) -> Option<ConnectionId> {
        match &self.role {
            RoleState::Client(ClientState::AwaitConnectionResponse(state)) => {
                Some(state.destination_id())
            }
            RoleState::Host(HostState::AwaitAuthenticationRequest(state)) => {
                Some(state.request_id())
            }
            _ => None,
        }
    }

    /// Whether a packet sealed with keys that only the two sides have was opened. A failure before
    /// that may be the work of anybody on the path: a host then forgets the attempt at once, so
    /// that the true client's next ConnectionRequest starts a new one.
    pub const fn is_authenticated(&self) -> bool {
        match &self.role {
            RoleState::Client(ClientState::AwaitConnectionResponse(state)) => state.is_locked(),
            RoleState::Host(HostState::AwaitAuthenticationRequest(_)) => self.initial.is_none(),
            _ => true,
        }
    }

    /// The result, once: when the keys of data packets exist and the peer's proof was verified.
    pub fn take_established(&mut self) -> Option<Established> {
        let established = self.established.take()?;
        self.taken = true;
        Some(*established)
    }

    /// A data packet of the peer was opened: it has our last flight. The keys of the handshake are
    /// dropped (RFC 9001 §4.9.2).
    pub fn confirm(&mut self) {
        if self.proven && !self.confirmed {
            self.confirmed = true;
            self.initial = None;
            self.handshake = None;
            self.deadline = None;
        }
    }

    /// Whether nothing is left to do: the result was taken and the peer has our last flight. A
    /// client keeps the machine a little longer for [`post_handshake`](Self::post_handshake).
    pub fn is_done(&self) -> bool {
        let delivered = self.handshake.as_ref().is_none_or(|space| match self.role {
            RoleState::Client(_) => !space.tx.has_unacked(),
            RoleState::Host(_) => !space.ack_due,
        });
        self.taken && self.ending.is_none() && (self.confirmed || delivered)
    }

    /// TLS bytes that came as CRYPTO in data packets: session tickets, for a client.
    ///
    /// # Errors
    /// The violation that ends the connection.
    pub fn post_handshake(&mut self, offset: u64, data: &[u8]) -> Result<(), PeerMisbehaved> {
        if matches!(self.role, RoleState::Host(_)) || !self.proven {
            return Err(PeerMisbehaved::Unexpected("CRYPTO"));
        }
        match self.post.insert(offset, data, TICKETS_AHEAD) {
            Inserted::New | Inserted::Old => {}
            Inserted::Conflict => return Err(PeerMisbehaved::Malformed("CRYPTO")),
            Inserted::TooFar => return Err(PeerMisbehaved::Limit("CRYPTO")),
        }
        if self.post.can_read() && self.tls.read_hs(self.post.read()).is_err() {
            return Err(PeerMisbehaved::Malformed("CRYPTO"));
        }
        Ok(())
    }

    // ---- endings

    /// Gives up: a CLOSE with this reason goes out at every level that has keys.
    pub fn close(&mut self, reason: &CloseReason) {
        if self.ending.is_none() {
            self.end(reason.clone(), false);
        }
    }

    pub(super) fn end(&mut self, reason: CloseReason, silent: bool) {
        self.ending = Some(Ending { reason, due: !silent, silent, heard: 0 });
        self.established = None;
        self.hint = None;
        self.deadline = None;
    }

    pub(super) fn fail(&mut self, reason: CloseReason) -> Receipt {
        self.end(reason.clone(), false);
        Receipt::Failed(reason)
    }

    pub(super) fn misbehaved(&mut self, error: PeerMisbehaved) -> Receipt {
        self.fail(CloseReason::new(error.reason(), &error.to_string()))
    }

    pub(super) fn tls_failed(&mut self, error: &rustls::Error) -> Receipt {
        let reason = close_reason(error, self.tls.alert());
        self.fail(reason)
    }

    /// Notes a claim that nobody vouched for. Later ones neither hasten nor delay it.
    pub(super) fn take_hint(&mut self, now: Instant, outcome: Receipt) {
        if self.hint.is_none() && !self.is_authenticated() {
            let intervals = match self.role {
                RoleState::Client(_) => CLIENT_HINT_INTERVALS,
                RoleState::Host(_) => HOST_HINT_INTERVALS,
            };
            let at = now + self.config.retransmit.mul(intervals);
            self.hint = Some(Hint { outcome, at });
        }
    }

    // ---- TLS out

    /// Moves what TLS wrote into the streams of its levels, and installs new keys.
    pub(super) fn pull_tls(&mut self) {
        loop {
            let mut bytes = Vec::new();
            let change = self.tls.write_hs(&mut bytes);
            match self.write_level {
                WriteLevel::Initial => push(&mut self.initial, &bytes),
                WriteLevel::Handshake => push(&mut self.handshake, &bytes),
                WriteLevel::Data => self.tickets.extend_from_slice(&bytes),
            }
            match change {
                Some(quic::KeyChange::Handshake { keys }) => {
                    let mut space = Space::new(Level::Handshake, keys);
                    space.observe(self.tap.clone());
                    self.handshake = Some(space);
                    self.write_level = WriteLevel::Handshake;
                }
                Some(quic::KeyChange::OneRtt { keys, next }) => {
                    let mut keys = DataKeys::from_tls(keys, next);
                    keys.observe(self.tap.clone());
                    self.one_rtt = Some(keys);
                    self.write_level = WriteLevel::Data;
                }
                None => return,
            }
        }
    }

    // ---- time

    /// Bytes of a datagram that came from the peer's address, whatever became of them: they count
    /// for the limit of what an unproven address may be sent (RFC 9000 §8.1).
    pub fn on_datagram_bytes(&mut self, bytes: usize) {
        self.counters.bytes_received += bytes as u64;
    }

    pub(super) fn interval(&self) -> Duration {
        let base = self.config.retransmit.max(self.rtt.unwrap_or_default().mul(2));
        base.mul(1 << self.backoff.min(MAX_BACKOFF))
    }

    /// Something that only the true peer can have caused: the timer starts afresh.
    pub(super) fn progress(&mut self, now: Instant) {
        self.backoff = 0;
        self.hint = None;
        self.deadline = Some(now + self.interval());
    }

    /// When [`handle_timeout`](Self::handle_timeout) has work. May lie in the past after
    /// [`on_datagram_bytes`](Self::on_datagram_bytes) or [`receive`](Self::receive).
    pub fn timeout(&self) -> Option<Instant> {
        if self.ending.is_some() {
            return None;
        }
        let timer = self.deadline.filter(|_| self.wants_timer());
        match (timer, self.hint.as_ref().map(|h| h.at)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// A client's timer runs until the host is known to have everything, also with nothing in
    /// flight (RFC 9002 §6.2.2.1); a host's while it has something to send again and may.
    fn wants_timer(&self) -> bool {
        match self.role {
            RoleState::Client(_) if !self.proven => true,
            RoleState::Client(_) => self.handshake.as_ref().is_some_and(|s| s.tx.has_unacked()),
            RoleState::Host(_) => {
                let unfinished = |space: &Option<Space>| {
                    space.as_ref().is_some_and(|s| s.in_flight() || s.tx.has_pending())
                };
                !self.proven
                    && !self.is_blocked()
                    && (unfinished(&self.initial) || unfinished(&self.handshake))
            }
        }
    }

    /// Runs what is due. Gives [`Receipt::Closed`] or [`Receipt::Failed`] when that ends the
    /// attempt, else [`Receipt::Ok`].
    pub fn handle_timeout(&mut self, now: Instant) -> Receipt {
        if self.ending.is_some() {
            return Receipt::Ok;
        }
        if let Some(hint) = self.hint.take_if(|h| now >= h.at) {
            return self.believe(hint.outcome);
        }
        if !self.wants_timer() || self.deadline.is_none_or(|at| now < at) {
            return Receipt::Ok;
        }
        self.counters.timeouts += 1;
        self.backoff += 1;
        if self.restart_is_due() {
            return self.restart(now);
        }
        if let Some(space) = &mut self.initial {
            space.resend_all();
        }
        if let Some(space) = &mut self.handshake {
            space.on_timeout();
        }
        if let RoleState::Client(_) = self.role {
            for space in [&mut self.initial, &mut self.handshake].into_iter().flatten() {
                space.ping_due |= !space.tx.has_pending();
            }
        }
        self.deadline = Some(now + self.interval());
        Receipt::Ok
    }

    fn believe(&mut self, outcome: Receipt) -> Receipt {
        match &outcome {
            Receipt::Closed(reason) => self.end(reason.clone(), true),
            Receipt::Failed(reason) => self.end(reason.clone(), false),
            _ => {}
        }
        outcome
    }

    fn restart_is_due(&self) -> bool {
        matches!(&self.role, RoleState::Client(ClientState::AwaitConnectionResponse(state))
            if state.restart_is_due(self.backoff))
    }

    /// Client: forgets everything and begins with a fresh ClientHello and a fresh destination id.
    pub(super) fn restart(&mut self, now: Instant) -> Receipt {
        let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &mut self.role else {
            return Receipt::Ok;
        };
        self.counters.restarts += 1;
        match state.restart(self.local_id, self.remote_id) {
            Ok((tls, initial)) => {
                tracing::debug!(id = ?self.local_id, "handshake starts again");
                self.remote_id = state.destination_id();
                self.tls = tls;
                self.initial = Some(initial);
                self.handshake = None;
                self.one_rtt = None;
                self.write_level = WriteLevel::Initial;
                self.backoff = 0;
                self.hint = None;
                self.deadline = Some(now + self.interval());
                self.pull_tls();
                Receipt::Ok
            }
            Err(error) => {
                self.fail(CloseReason::new(crate::error::Reason::INTERNAL, &error.to_string()))
            }
        }
    }
}

fn push(space: &mut Option<Space>, bytes: &[u8]) {
    if let Some(space) = space
        && !bytes.is_empty()
    {
        space.tx.push(bytes);
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("state", &self.state())
            .field("local_id", &self.local_id)
            .field("remote_id", &self.remote_id)
            .field("initial", &self.initial)
            .field("handshake", &self.handshake)
            .field("deadline", &self.deadline)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}
