//! A connection before its keys exist: construction, the handshake machine's datagrams, and the
//! moment at which the connection is established.

use super::sec_info::Decision;
use super::timers::Timers;
use super::{Connection, Counters, IdSet, Path, Pending, Route, Tickets};
use crate::channel::Mux;
use crate::config::ConnectionConfig;
use crate::crypto::ReplayWindow;
use crate::crypto::RetryOrigin;
use crate::endpoint::{Ecn, RxMeta, Shared, Transmit};
use crate::error::ApiError;
use crate::event::Sink;
use crate::handshake::{
    ClientTls, Established, Handshake, HandshakeConfig, HandshakeFacts, HandshakeFailure,
    HandshakeState, HostTls, LocalSecurity, Receipt,
};
use crate::ids::{ConnHandle, ConnectionId, PeerId, Role};
use crate::limits::{MAX_DATAGRAM, MAX_PACKET, RELAY_SOCKET};
use crate::observe::Tap;
use crate::recovery::{ReceivedPackets, Recovery};
use crate::status::Status;
use crate::time::{Duration, Instant};
use crate::wire::control;
use crate::wire::packet::LongHeader;
use crate::wire::params::TransportParams;
use std::net::SocketAddr;
use std::sync::Arc;

/// A client keeps the handshake machine for session tickets for so many probe timeouts, in which
/// lost ones are sent again, and at most so long.
const KEPT_PTOS: u64 = 4;
const KEPT: Duration = Duration::from_secs(3);
/// Credit of CONTROL.
const CONTROL_WINDOW: u64 = 64 * 1024;

/// How far the application-level authentication has come (behaviours §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authentication {
    /// Host: the AuthenticationRequest has not come.
    AwaitingRequest,
    /// Host: the application decides.
    AwaitingApplication,
    /// Client: the AuthenticationResponse has not come.
    AwaitingResponse,
    Done,
    Failed,
}

impl Authentication {
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::AwaitingApplication)
    }

    pub(super) fn fail(&mut self) {
        if *self != Self::Done {
            *self = Self::Failed;
        }
    }
}

/// What the handshake proved about the peer.
#[derive(Debug)]
pub(super) struct PeerInfo {
    pub(super) id: Option<PeerId>,
    pub(super) suite: &'static str,
    pub(super) suite_number: u16,
    pub(super) exporter: [u8; 32],
    /// When its keys were there.
    pub(super) since: Instant,
    pub(super) resumed: bool,
    pub(super) server_name: Option<String>,
    pub(super) connected_timeout: Duration,
}

/// The machine and what goes with it until the keys are in use on both sides.
#[derive(Debug)]
pub(super) struct Handshaking {
    pub(super) machine: Handshake,
    /// Client: addresses that all get the same request; the first valid answer decides.
    pub(super) candidates: Vec<SocketAddr>,
    /// A datagram that still goes to the candidates from this index on.
    copy: Option<(Vec<u8>, usize)>,
    credential: Vec<u8>,
    confirmed: bool,
}

/// What a client connects with.
pub(crate) struct ClientSide<'a> {
    pub(crate) tls: &'a ClientTls,
    pub(crate) server_name: &'a str,
    pub(crate) credential: &'a [u8],
    pub(crate) remotes: &'a [SocketAddr],
    pub(crate) socket: u16,
}

/// What a host answers with.
pub(crate) struct HostSide<'a> {
    pub(crate) tls: &'a HostTls,
    pub(crate) request: &'a LongHeader<'a>,
    pub(crate) retry: Option<&'a RetryOrigin>,
    pub(crate) meta: &'a RxMeta,
}

fn params(config: &ConnectionConfig, local_id: ConnectionId, token: [u8; 16]) -> TransportParams {
    TransportParams {
        initial_source_id: local_id,
        reset_token: Some(token),
        max_packet: MAX_PACKET as u64,
        connected_timeout_ms: config.connected_timeout.as_millis().max(1),
        max_ack_delay_us: config.max_ack_delay.as_micros(),
        early_data: config.early_data,
        control_window: CONTROL_WINDOW,
        max_channels: config.max_channels,
        max_message: config.max_message as u64,
        max_datagram: MAX_DATAGRAM as u64,
        ..TransportParams::default()
    }
}

fn handshake_config(config: &ConnectionConfig) -> HandshakeConfig {
    HandshakeConfig { retransmit: config.handshake_retransmit, max_packet: config.initial_packet }
}

fn observe(machine: &mut Handshake, handle: ConnHandle, shared: &Shared) {
    if let Some(observer) = &shared.observer {
        machine.observe(Tap::new(observer.clone(), handle));
    }
}

impl Connection {
    /// A connection that will ask for one.
    pub(crate) fn client(
        now: Instant,
        handle: ConnHandle,
        config: Arc<ConnectionConfig>,
        side: &ClientSide<'_>,
        shared: &mut Shared,
    ) -> Result<Self, ApiError> {
        let (local_id, token) = shared.issue_id(handle, 0);
        let params = params(&config, local_id, token);
        let mut machine = Handshake::client(
            now,
            side.tls,
            side.server_name,
            params,
            local_id,
            handshake_config(&config),
            &mut shared.rng,
        )?;
        observe(&mut machine, handle, shared);
        let Some(&remote) = side.remotes.first() else {
            return Err(ApiError::InvalidArgument { field: "remotes", why: "is empty" });
        };
        let path = Path::new(side.socket, remote, None, true);
        let handshake = Handshaking {
            machine,
            candidates: if side.remotes.len() > 1 { side.remotes.to_vec() } else { Vec::new() },
            copy: None,
            credential: side.credential.to_vec(),
            confirmed: false,
        };
        let security = side.tls.security().clone();
        let mut conn =
            Self::new(now, handle, Role::Client, config, path, Some(handshake), security, shared);
        conn.note_credential(side.credential);
        Ok(conn)
    }

    /// A connection that answers a ConnectionRequest.
    pub(crate) fn host(
        now: Instant,
        handle: ConnHandle,
        config: Arc<ConnectionConfig>,
        side: HostSide<'_>,
        shared: &mut Shared,
    ) -> Result<Self, ApiError> {
        let (local_id, token) = shared.issue_id(handle, 0);
        let params = params(&config, local_id, token);
        let mut machine = Handshake::host(
            now,
            side.tls,
            params,
            local_id,
            side.request,
            side.retry,
            handshake_config(&config),
        )?;
        observe(&mut machine, handle, shared);
        let meta = side.meta;
        // The machine does its own amplification accounting until the address is proven.
        let path = Path::new(meta.socket, meta.remote, meta.local, true);
        let handshake = Handshaking {
            machine,
            candidates: Vec::new(),
            copy: None,
            credential: Vec::new(),
            confirmed: false,
        };
        let security = side.tls.security().clone();
        Ok(Self::new(now, handle, Role::Host, config, path, Some(handshake), security, shared))
    }

    #[allow(clippy::too_many_arguments, reason = "the parts that the two roles make differently")]
    pub(super) fn new(
        now: Instant,
        handle: ConnHandle,
        role: Role,
        config: Arc<ConnectionConfig>,
        path: Path,
        handshake: Option<Handshaking>,
        security: Arc<LocalSecurity>,
        shared: &mut Shared,
    ) -> Self {
        Self {
            handle,
            role,
            status: Status::Connecting,
            path,
            migration: None,
            route: (path.socket == RELAY_SOCKET).then(|| Box::new(Route::new(now, path))),
            ids: IdSet::new(),
            keys: None,
            replay: ReplayWindow::new(),
            recovery: Recovery::new(now, &config, config.initial_packet, shared.rng.u64()),
            received: ReceivedPackets::new(config.max_ack_delay),
            mux: Mux::new(role, &config),
            handshake: handshake.map(Box::new),
            stream: None,
            stream_lost: false,
            authentication: match role {
                Role::Client => Authentication::AwaitingResponse,
                Role::Host => Authentication::AwaitingRequest,
            },
            peer: None,
            security,
            credential: None,
            decision: Decision::None,
            pending: Pending::default(),
            closing: None,
            timers: Timers { initial: Some(now + config.initial_timeout), ..Timers::default() },
            counters: Counters::default(),
            told: role == Role::Client,
            awaiting_answer: false,
            was_quiet: false,
            counted: role == Role::Host,
            control_waits: false,
            keys_used_up: false,
            config,
        }
    }

    // ---- packets

    /// Every byte of a datagram counts for what may be sent back before the address is proven: to
    /// where it came from, and nowhere else.
    pub(crate) fn on_handshake_datagram(&mut self, meta: &RxMeta, bytes: usize) {
        if meta.remote == self.path.remote
            && let Some(handshake) = &mut self.handshake
        {
            handshake.machine.on_datagram_bytes(bytes);
        }
    }

    /// Takes one long packet. Returns whether it was valid.
    pub(crate) fn receive_long<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        packet: &mut [u8],
        shared: &mut Shared,
        sink: &mut S,
    ) -> bool {
        let Some(handshake) = &mut self.handshake else {
            shared.counters.late_handshake_packets += 1;
            return true;
        };
        match handshake.machine.receive(now, packet) {
            Receipt::Ok => {
                // Only what TLS has authenticated decides which of the candidates it is.
                if handshake.machine.is_authenticated() && !handshake.candidates.is_empty() {
                    handshake.candidates = Vec::new();
                    handshake.copy = None;
                    self.path = Path::new(meta.socket, meta.remote, meta.local, true);
                }
                self.after_handshake(now, shared);
            }
            Receipt::Dropped(reason) => {
                tracing::trace!(conn = ?self.handle, ?reason, "handshake packet dropped");
                shared.counters.dropped_handshake_packets += 1;
                return false;
            }
            other => self.handshake_over(now, other, sink),
        }
        true
    }

    /// Writes the next handshake datagram; the same one goes to every candidate address.
    pub(super) fn transmit_handshake(&mut self, now: Instant, buf: &mut [u8]) -> Option<Transmit> {
        let handshake = self.handshake.as_mut()?;
        if let Some((datagram, next)) = &mut handshake.copy {
            let remote = *handshake.candidates.get(*next)?;
            *next += 1;
            let len = datagram.len();
            buf.get_mut(..len)?.copy_from_slice(datagram);
            if *next >= handshake.candidates.len() {
                handshake.copy = None;
            }
            return Some(Transmit { remote, ..self.plain_transmit(len) });
        }
        let len = handshake.machine.poll_transmit(now, buf)?;
        if handshake.candidates.len() > 1 {
            handshake.copy = Some((buf[..len].to_vec(), 1));
        }
        Some(self.plain_transmit(len))
    }

    const fn plain_transmit(&self, len: usize) -> Transmit {
        Transmit {
            socket: self.path.socket,
            remote: self.path.remote,
            local: self.path.local,
            ecn: Ecn::NotEct,
            len,
            segment: len,
            probe: false,
        }
    }

    /// What our role waits for, or how its attempt ended.
    pub(crate) fn handshake_state(&self) -> HandshakeState {
        let ended = self.closing.as_ref();
        HandshakeState::of(&HandshakeFacts {
            role: self.role,
            requested: true,
            proven: self.peer.is_some(),
            accepted: self.authentication == Authentication::Done,
            failure: ended.map(|c| HandshakeFailure::of(self.role, c.reason.reason, c.by_peer)),
        })
    }

    // ---- completion

    /// Takes over the keys once the machine has them.
    pub(super) fn after_handshake(&mut self, now: Instant, shared: &mut Shared) {
        if self.keys.is_none()
            && self.usable().is_ok()
            && let Some(handshake) = &mut self.handshake
            && let Some(established) = handshake.machine.take_established()
        {
            self.on_established(now, established, shared);
        }
    }

    fn on_established(&mut self, now: Instant, e: Established, shared: &mut Shared) {
        self.lose_stream();
        let p = &e.peer_params;
        let mut keys = e.keys;
        keys.set_update_after(self.config.key_update_packets);
        self.keys = Some(Box::new(keys));
        self.ids.set_first_peer(e.peer_id, p.reset_token);
        self.note_peer_id(e.peer_id);
        self.note_exporter(&e.exporter);
        if let Some(token) = p.reset_token {
            shared.remember_token(token, self.handle.slot);
        }
        self.recovery.set_peer(Duration::from_micros(p.max_ack_delay_us), p.max_packet as usize);
        if let Some(rtt) = e.rtt {
            self.recovery.first_rtt_sample(now, rtt);
            self.mux.set_rtt(rtt);
        }
        self.mux.set_peer(p);
        self.sync_packet_size();
        self.peer = Some(Box::new(PeerInfo {
            id: e.peer,
            suite: e.suite,
            suite_number: e.suite_number,
            exporter: e.exporter,
            since: now,
            resumed: e.resumed,
            server_name: e.server_name,
            connected_timeout: Duration::from_millis(p.connected_timeout_ms),
        }));
        if self.role == Role::Client {
            let credential = self.handshake.as_mut().map(|h| core::mem::take(&mut h.credential));
            self.present(credential.unwrap_or_default());
        } else if !e.tickets.is_empty() {
            let all = 0..e.tickets.len();
            let tickets = Tickets { bytes: e.tickets, ranges: vec![all], ..Tickets::default() };
            self.pending.tickets = Some(Box::new(tickets));
        }
        self.pending.new_ids.extend(self.ids.issue());
    }

    pub(super) fn send_authentication_request(&mut self, credential: &[u8]) {
        let mut message = Vec::new();
        control::encode_authentication_request(&mut message, credential);
        self.mux.send_control(&message);
    }

    /// The peer uses the 1-RTT keys: it has everything of our flights.
    pub(super) fn confirm_handshake(&mut self, now: Instant) {
        let Some(handshake) = &mut self.handshake else { return };
        if handshake.confirmed {
            return;
        }
        handshake.confirmed = true;
        handshake.machine.confirm();
        match self.role {
            Role::Host => self.handshake = None,
            // Session tickets may still come.
            Role::Client => {
                let kept = self.recovery.pto().mul(KEPT_PTOS).min(KEPT);
                self.timers.handshake_kept = Some(now + kept);
            }
        }
    }
}
