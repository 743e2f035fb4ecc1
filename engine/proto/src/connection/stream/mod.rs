//! The stream link of a connection: TLS 1.3 over TCP, frames back to back inside.
//!
//! A connection with a stream link leaves everything of the datagram link idle: packet keys,
//! connection ids, recovery and paths. Status, authentication, channels, closing and timers are the
//! same. Called by `endpoint` through the connection; knows no socket: bytes come in, bytes go out.
//!
//! | file | what |
//! | --- | --- |
//! | `race` | a stream that is tried beside the datagram link |
//! | `receive` | TLS records in, frames to the channels |
//! | `transmit` | frames of the channels into TLS records |

mod race;
mod receive;
mod transmit;

use super::handshaking::{Authentication, PeerInfo};
use super::sec_info::Decision;
use super::{Connection, Path};
use crate::channel::{FrameShape, Framing};
use crate::config::ConnectionConfig;
use crate::endpoint::{ConnStats, Shared};
use crate::error::{ApiError, CloseReason, PeerMisbehaved, Reason};
use crate::event::Sink;
use crate::handshake::tls::{alert_reason, close_reason};
use crate::handshake::{LocalSecurity, StreamTls};
use crate::ids::{ConnHandle, Role};
use crate::limits::FRAME_HEADER_LEN;
use crate::status::{Status, Trigger};
use crate::time::{Duration, Instant};
use crate::wire::link_message::LinkMessage;
use crate::wire::params::TransportParams;
use crate::wire::record::FrameRecord;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What the stream of a connection needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamNeeds {
    /// Nothing: it goes on.
    Nothing,
    /// All is said: our direction ends once what was written is sent.
    Shutdown,
    /// Nothing more will come or go.
    Close,
}

/// See the module.
pub(crate) struct StreamLink {
    /// `None` only while its plaintext is being handled.
    tls: Option<Box<StreamTls>>,
    /// What the client asks for, or the host allows besides the native protocol.
    plain: bool,
    credential: Vec<u8>,
    /// Client: the datagram link is tried at the same time, and the first to prove the host wins.
    racing: bool,
    remote: SocketAddr,
    /// Client: where it is to be connected to, until somebody does that.
    targets: Vec<SocketAddr>,
    local: Option<IpAddr>,
    /// The TLS handshake is complete.
    up: bool,
    /// The peer's Parameters have come (native).
    has_params: bool,
    /// Nothing of what arrived may be looked at now.
    paused: bool,
    /// Ciphertext that came since.
    held: Vec<u8>,
    // ---- in
    head: [u8; FRAME_HEADER_LEN],
    head_len: usize,
    /// The frame whose body is arriving.
    body: Option<Body>,
    /// What there is of a frame that is taken as a whole.
    whole: Vec<u8>,
    /// Bytes of the stream that have reached their channels, and what the peer was told of that.
    read: u64,
    told: u64,
    /// Something arrived since that the peer wants to hear of.
    asks: bool,
    consumed_at: Option<Instant>,
    consumed_now: bool,
    // ---- out
    written: u64,
    /// Everything that asks for feedback, with the position behind it.
    records: VecDeque<(u64, FrameRecord)>,
    /// Position behind the last PING, and when it was sent.
    ping: Option<(u64, Instant)>,
    rtt: Duration,
    rtt_min: Duration,
    bytes_sent: u64,
    /// What was written before this position was handed over for sending.
    handed: u64,
    close_sent: bool,
    notified: bool,
    /// TLS has failed: what comes cannot be read any more.
    failed: bool,
    /// The TCP connection is no more: nothing comes and nothing goes.
    broken: bool,
    /// The peer's direction has ended: cleanly, or with this text.
    ended: Option<Result<(), String>>,
}

/// The frame whose body is arriving.
#[derive(Clone, Copy, Debug)]
struct Body {
    channel: u16,
    shape: FrameShape,
    missing: usize,
}

impl StreamLink {
    /// Whether a frame has begun to arrive and not ended.
    const fn is_inside_frame(&self) -> bool {
        self.head_len > 0 || self.body.is_some()
    }
}

impl core::fmt::Debug for StreamLink {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamLink")
            .field("up", &self.up)
            .field("read", &self.read)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// What a stream connection starts with.
pub(crate) struct StreamSide {
    pub(crate) tls: StreamTls,
    pub(crate) plain: bool,
    pub(crate) credential: Vec<u8>,
    /// What the TLS settings say of its security.
    pub(crate) security: Arc<LocalSecurity>,
    pub(crate) remote: SocketAddr,
    /// Client: all addresses of the host.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) local: Option<IpAddr>,
    /// Number of the socket it came through; without meaning for a client.
    pub(crate) socket: u16,
}

impl Connection {
    /// A connection over a stream: the client's from before the TCP connection stands, the host's
    /// from when it was accepted.
    pub(crate) fn stream(
        now: Instant,
        handle: ConnHandle,
        role: Role,
        config: Arc<ConnectionConfig>,
        side: StreamSide,
        shared: &mut Shared,
    ) -> Self {
        let path = Path::new(side.socket, side.remote, side.local, true);
        let security = side.security.clone();
        let mut conn = Self::new(now, handle, role, config, path, None, security, shared);
        if role == Role::Client {
            conn.note_credential(&side.credential);
            let framing = if side.plain { Framing::Plain } else { Framing::Stream };
            conn.mux.set_framing(framing);
        }
        conn.stream = Some(StreamLink::new(side, false));
        conn
    }
}

impl StreamLink {
    fn new(side: StreamSide, racing: bool) -> Box<Self> {
        Box::new(Self {
            tls: Some(Box::new(side.tls)),
            plain: side.plain,
            credential: side.credential,
            racing,
            remote: side.remote,
            targets: side.targets,
            local: side.local,
            up: false,
            has_params: false,
            paused: false,
            held: Vec::new(),
            head: [0; FRAME_HEADER_LEN],
            head_len: 0,
            body: None,
            whole: Vec::new(),
            read: 0,
            told: 0,
            asks: false,
            consumed_at: None,
            consumed_now: false,
            written: 0,
            records: VecDeque::new(),
            ping: None,
            rtt: Duration::ZERO,
            rtt_min: Duration::ZERO,
            bytes_sent: 0,
            handed: 0,
            close_sent: false,
            notified: false,
            failed: false,
            broken: false,
            ended: None,
        })
    }
}

impl Connection {
    /// Whether this is a connection over a stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(|link| !link.racing)
    }

    /// Whether it has a stream, be it one that is only tried.
    pub(crate) const fn has_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// The peer's transport parameters are still to come, and come first.
    pub(super) fn awaits_parameters(&self) -> bool {
        self.stream.as_ref().is_some_and(|link| !link.has_params)
    }

    /// Whether its stream is a plain one.
    pub(super) const fn is_plain(&self) -> bool {
        self.stream.is_some() && self.mux.framing().is_plain()
    }

    /// Whether what is sent reaches the peer: keys exist.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.is_some() || self.stream.as_ref().is_some_and(|link| link.up)
    }

    // ---- the TLS handshake

    /// TLS has proved the peer: the link is native or plain from here on.
    fn on_stream_up<S: Sink>(&mut self, now: Instant, tls: &mut StreamTls, sink: &mut S) {
        let peer = match tls.peer() {
            Ok(peer) => peer,
            Err(_) if self.lose_stream() => return,
            Err(reason) => return self.fail(now, reason, sink),
        };
        let Some(link) = &mut self.stream else { return };
        link.up = true;
        let native = peer.is_native;
        let refusal = match (self.role, native, link.plain) {
            (Role::Client, true, true) => Some("the host speaks only the native protocol"),
            (Role::Client, false, false) => Some("the host does not speak the native protocol"),
            (Role::Host, false, false) => Some("the client does not speak the native protocol"),
            _ => None,
        };
        if refusal.is_some() && self.lose_stream() {
            return;
        }
        self.lose_datagrams();
        if let Some(text) = refusal {
            // Who does not speak the native protocol is told nothing in it.
            if !native {
                self.mux.set_framing(Framing::Plain);
            }
            return self.fail(now, CloseReason::new(Reason::VERSION, text), sink);
        }
        self.mux.set_framing(if native { Framing::Stream } else { Framing::Plain });
        self.peer = Some(Box::new(PeerInfo {
            id: peer.id,
            suite: peer.suite,
            suite_number: peer.suite_number,
            exporter: peer.exporter,
            since: now,
            resumed: peer.resumed,
            server_name: peer.server_name,
            connected_timeout: self.config.connected_timeout,
        }));
        if native {
            let mut message = Vec::new();
            let params = self.stream_params().encode();
            LinkMessage::Parameters(&params).encode(&mut message);
            self.mux.send_control(&message);
            self.request_authentication();
            return;
        }
        // A plain peer need never say anything again.
        (self.timers.connected, self.timers.keep_alive) = (None, None);
        let limits = TransportParams { early_data: 0, ..self.stream_params() };
        self.mux.set_peer(&limits);
        match self.role {
            Role::Client => match &mut self.decision {
                Decision::None => self.establish_plain(now, sink),
                wanted => *wanted = Decision::Due(Vec::new()),
            },
            Role::Host => self.on_authentication_request(&[], sink),
        }
    }

    fn stream_params(&self) -> TransportParams {
        let config = &self.config;
        TransportParams {
            connected_timeout_ms: config.connected_timeout.as_millis().max(1),
            max_ack_delay_us: config.max_ack_delay.as_micros(),
            early_data: config.early_data,
            max_channels: config.max_channels,
            max_message: config.max_message as u64,
            ..TransportParams::default()
        }
    }

    /// Client: the AuthenticationRequest goes out.
    fn request_authentication(&mut self) {
        let Some(link) = &mut self.stream else { return };
        if self.role != Role::Client || !link.up {
            return;
        }
        let credential = core::mem::take(&mut link.credential);
        self.present(credential);
    }

    /// Client: a plain link is usable as soon as the host is proven.
    pub(in crate::connection) fn establish_plain<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.authentication = Authentication::Done;
        self.establish(now, sink);
    }

    /// The TCP connection could not be made, or broke.
    pub(crate) fn stream_failed<S: Sink>(&mut self, now: Instant, text: &str, sink: &mut S) {
        let Some(link) = &mut self.stream else { return };
        link.broken = true;
        if link.ended.is_none() {
            link.ended = Some(Err(text.to_owned()));
        }
        (link.held, link.paused) = (Vec::new(), false);
        self.after_stream_end(now, sink);
    }

    /// The peer's direction of the TCP connection has ended.
    pub(crate) fn stream_finished<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let Some(link) = &mut self.stream else { return };
        if link.ended.is_none() {
            link.ended = Some(Ok(()));
        }
        self.after_stream_end(now, sink);
    }

    /// Acts on the end of the peer's direction, once everything before it was taken.
    fn after_stream_end<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        let plain = self.is_plain();
        let Some(link) = &self.stream else { return };
        let (Some(end), true) = (&link.ended, !link.paused) else { return };
        if link.racing {
            self.lose_stream();
            return;
        }
        let notified = link.tls.as_ref().is_some_and(|tls| tls.is_closed_by_peer());
        let (code, text) = match end {
            Err(text) if link.up => (Reason::RESET, text.as_str()),
            Err(text) => (Reason::LOCAL_NETWORK, text.as_str()),
            Ok(()) if !link.up => (Reason::RESET, "the stream ended in the handshake"),
            Ok(()) if !notified => (Reason::RESET, "the stream ended without close_notify"),
            Ok(()) if link.is_inside_frame() => {
                (Reason::PROTOCOL, "the stream ended inside a frame")
            }
            Ok(()) if plain => (Reason::APP, ""),
            Ok(()) => (Reason::RESET, "the stream ended without a close"),
        };
        // On a plain link that is how one closes.
        let closed = plain && code == Reason::APP;
        let knows = plain && link.notified && end.is_ok();
        let reason = CloseReason::new(code, text);
        match self.status {
            Status::Connecting | Status::FindingRoute | Status::Connected | Status::Linger => {
                if closed {
                    self.peer_closed(now, reason, sink);
                } else {
                    self.fail(now, reason, sink);
                }
            }
            Status::FinWait => {
                if let Some(closing) = &mut self.closing
                    && knows
                {
                    closing.on_acknowledged();
                }
                self.apply(Trigger::PeerClosed, None, sink);
            }
            _ => {}
        }
    }

    fn tls_failed<S: Sink>(&mut self, now: Instant, error: &rustls::Error, sink: &mut S) {
        if self.lose_stream() {
            return;
        }
        if let rustls::Error::AlertReceived(alert) = error {
            // The peer ended it, and says why.
            return self.peer_closed(now, alert_reason(*alert), sink);
        }
        self.fail(now, close_reason(error, None), sink);
    }

    /// What the peer says of the link itself.
    pub(super) fn on_link_message<S: Sink>(
        &mut self,
        now: Instant,
        message: crate::channel::ConnMessage,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        use crate::channel::ConnMessage;
        let Some(link) = &mut self.stream else {
            return Err(PeerMisbehaved::Unexpected("message of a stream link"));
        };
        match message {
            ConnMessage::Parameters(bytes) => {
                if core::mem::replace(&mut link.has_params, true) {
                    return Err(PeerMisbehaved::Unexpected("Parameters"));
                }
                let params = TransportParams::parse(&bytes)?;
                if let Some(peer) = &mut self.peer {
                    peer.connected_timeout = Duration::from_millis(params.connected_timeout_ms);
                }
                self.mux.set_peer(&params);
            }
            ConnMessage::Consumed(position) => return self.on_consumed(now, position, sink),
            ConnMessage::Ping => link.consumed_now = true,
            ConnMessage::Close { reason, text, discarded } => {
                self.pending.close_ack = true;
                self.peer_closed(now, CloseReason { reason, text }, sink);
                if let Some(closing) = &mut self.closing {
                    closing.peer_discarded |= discarded;
                }
            }
            ConnMessage::CloseAck => {
                if let Some(closing) = &mut self.closing {
                    closing.on_acknowledged();
                }
            }
            ConnMessage::Request { .. } | ConnMessage::Response { .. } => {}
        }
        Ok(())
    }

    /// The peer has taken everything before `position`.
    fn on_consumed<S: Sink>(
        &mut self,
        now: Instant,
        position: u64,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(link) = &mut self.stream else { return Ok(()) };
        if position > link.written {
            return Err(PeerMisbehaved::Control("position lies beyond what was sent"));
        }
        if let Some((at, sent)) = link.ping
            && at <= position
        {
            link.ping = None;
            let sample = now.since(sent);
            link.rtt = if link.rtt == Duration::ZERO {
                sample
            } else {
                link.rtt.mul(7).div(8) + sample.div(8)
            };
            link.rtt_min =
                if link.rtt_min == Duration::ZERO { sample } else { link.rtt_min.min(sample) };
            self.mux.set_rtt(link.rtt);
            if self.timers.check.take().is_some() && self.told {
                sink.check_answered(self.handle);
            }
        }
        self.stream_acked(now, position, sink);
        Ok(())
    }

    /// Everything before `position` is off our hands; whether that says anything new.
    pub(super) fn stream_acked<S: Sink>(
        &mut self,
        now: Instant,
        position: u64,
        sink: &mut S,
    ) -> bool {
        let Self { stream, mux, handle, .. } = self;
        let Some(link) = stream else { return false };
        let before = link.records.len();
        while let Some((end, record)) = link.records.front()
            && *end <= position
        {
            mux.on_acked(now, *handle, record, sink);
            link.records.pop_front();
        }
        link.records.len() < before
    }

    // ---- what the shard asks

    /// Whether the peer may be read from.
    pub(crate) fn stream_is_readable(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|link| link.ended.is_none() && !link.paused && !self.stream_is_blocked())
    }

    /// Whether nothing of what the peer sent may be looked at now.
    fn stream_is_blocked(&self) -> bool {
        let undecided =
            self.is_plain() && self.authentication == Authentication::AwaitingApplication;
        (undecided || self.mux.is_choked()) && self.is_transferring()
    }

    /// What the stream needs when everything written was sent.
    pub(crate) fn stream_needs(&self) -> StreamNeeds {
        let Some(link) = &self.stream else { return StreamNeeds::Close };
        let said_all = link.notified && !self.stream_owes();
        // A peer that does not end its direction in time is not waited for.
        let given_up = self.closing.as_ref().is_some_and(|c| c.is_settled() && !c.acknowledged);
        if link.broken || (said_all && (link.ended.is_some() || given_up)) {
            StreamNeeds::Close
        } else if said_all {
            StreamNeeds::Shutdown
        } else {
            StreamNeeds::Nothing
        }
    }

    /// Whether something of the end is still to be written.
    pub(super) fn stream_owes(&self) -> bool {
        let Some(link) = &self.stream else { return false };
        if link.broken {
            return false;
        }
        let last_word = self.closing.as_ref().is_some_and(|c| c.due && !c.acknowledged);
        let waits = link.tls.as_ref().is_some_and(|tls| tls.wants_write());
        waits || (link.up && !link.notified && (last_word || self.pending.close_ack))
    }

    /// Whether our direction of TLS would end without close_notify (RFC 8446 §6.1).
    pub(super) fn stream_owes_notify(&self) -> bool {
        let Some(link) = &self.stream else { return false };
        link.up && !link.notified && !matches!(link.ended, Some(Err(_)))
    }

    /// When the peer is to be told what we have taken.
    pub(super) fn stream_timeout(&self) -> Option<Instant> {
        self.stream.as_ref().and_then(|link| link.consumed_at)
    }

    pub(super) fn run_stream_timer(&mut self, now: Instant) {
        if let Some(link) = &mut self.stream
            && super::timers::take_due(&mut link.consumed_at, now)
        {
            link.consumed_now = true;
        }
    }

    /// Memory kept for the next burst is given back.
    pub(super) fn shrink_stream(&mut self) {
        let Some(link) = &mut self.stream else { return };
        link.whole.shrink_to_fit();
        if link.records.is_empty() {
            link.records = VecDeque::new();
        }
    }

    /// After a batch: what was held back may be looked at, or the end that came meanwhile.
    pub(super) fn settle_stream<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.resume_stream(now, sink);
        self.after_stream_end(now, sink);
    }

    /// Counters and gauges, if this is a connection over a stream. What only packets have is zero.
    pub(super) fn stream_stats(&self) -> Option<ConnStats> {
        let link = self.stream.as_ref().filter(|link| !link.racing)?;
        let mux = self.mux.stats();
        Some(ConnStats {
            bytes_sent: link.bytes_sent,
            bytes_received: self.counters.bytes_received,
            rtt: link.rtt,
            rtt_min: link.rtt_min,
            unacked_bytes: self.mux.unacked_reliable_bytes(),
            unsent_bytes: self.mux.unsent_reliable_bytes(),
            channels: self.mux.count(),
            datagrams_dropped: mux.datagrams_dropped + mux.datagrams_expired,
            ..ConnStats::default()
        })
    }

    /// An application call that a stream link cannot do.
    pub(super) fn refuse_on_plain(&self, why: &'static str) -> Result<(), ApiError> {
        if self.is_plain() { Err(ApiError::NoConnection(why)) } else { Ok(()) }
    }
}
