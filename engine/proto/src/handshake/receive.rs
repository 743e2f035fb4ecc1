//! Packets in: from a long packet to a change of state, or to a counter.

use super::client::ClientState;
use super::crypto_stream::Inserted;
use super::host::{AwaitAuthenticationRequest, HostState};
use super::machine::{Handshake, RoleState};
use super::outcome::{Dropped, Established, Receipt};
use super::tls::{exporter, peer_of, suite_name, suite_number};
use crate::error::{CloseReason, PeerMisbehaved, Reason};
use crate::ids::ConnectionId;
use crate::limits::{MAX_CRYPTO_BUFFER, TRANSPORT_CHANNEL};
use crate::time::Instant;
use crate::wire::frame::Frames;
use crate::wire::packet::{Level, LongPacket, MessageType, Retry, VersionList};
use crate::wire::params::TransportParams;
use crate::wire::transport::TransportFrame;
use rustls::HandshakeKind;

/// CRYPTO bytes kept ahead of a gap: little for what anybody can send.
const INITIAL_AHEAD: usize = 16 * 1024;
const HANDSHAKE_AHEAD: usize = 64 * 1024;
/// Weight of a proof that somebody else answered too.
const CONTRADICTION: u32 = 2;

/// The fields of a sealed packet's header, copied out of the packet.
#[derive(Clone, Copy)]
#[allow(clippy::struct_field_names, reason = "as in LongHeader")]
struct Header {
    message: MessageType,
    level: Level,
    dcid: ConnectionId,
    scid: ConnectionId,
    pn: u64,
    header_len: usize,
    packet_len: usize,
}

/// What a payload consists of, found before any of it is believed.
#[derive(Default)]
struct Scan {
    ack_eliciting: bool,
    crypto: bool,
    close: Option<CloseReason>,
}

impl Handshake {
    /// Takes one long packet, which is opened in place.
    pub fn receive(&mut self, now: Instant, packet: &mut [u8]) -> Receipt {
        let receipt = match &mut self.ending {
            Some(ending) => {
                // Seldom and seldomer: the peer's packets must not make us a reflector.
                ending.heard = ending.heard.saturating_add(1);
                ending.due |= !ending.silent && ending.heard.is_power_of_two();
                Receipt::Dropped(Dropped::Over)
            }
            None => self.receive_long(now, packet),
        };
        if let Receipt::Dropped(why) = receipt {
            self.counters.dropped += 1;
            match why {
                Dropped::Forged => self.counters.forged += 1,
                Dropped::Duplicate => self.counters.duplicates += 1,
                _ => {}
            }
            tracing::trace!(id = ?self.local_id, ?why, "handshake packet dropped");
        }
        receipt
    }

    fn receive_long(&mut self, now: Instant, packet: &mut [u8]) -> Receipt {
        let header = match LongPacket::parse(packet) {
            Err(why) => return Receipt::Dropped(Dropped::Header(why)),
            Ok(LongPacket::Retry(retry)) => return self.on_retry(now, &retry),
            Ok(LongPacket::VersionList(list)) => return self.on_version_list(now, &list),
            Ok(LongPacket::Sealed(header)) => {
                let (Some(dcid), Some(scid)) = (header.destination(), header.source()) else {
                    return Receipt::Dropped(Dropped::ForeignId);
                };
                Header {
                    message: header.message,
                    level: header.level,
                    dcid,
                    scid,
                    pn: u64::from(header.pn),
                    header_len: header.header_len,
                    packet_len: header.packet_len(),
                }
            }
        };
        match packet.get_mut(..header.packet_len) {
            Some(packet) => self.on_sealed(now, header, packet),
            None => Receipt::Dropped(Dropped::Header(crate::wire::packet::DropReason::Truncated)),
        }
    }

    fn on_retry(&mut self, now: Instant, retry: &Retry<'_>) -> Receipt {
        let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &mut self.role else {
            return Receipt::Dropped(Dropped::Unexpected);
        };
        let Some(keys) = state.follow(self.local_id, retry) else {
            return Receipt::Dropped(Dropped::Retry);
        };
        self.remote_id = state.destination_id();
        if let Some(space) = &mut self.initial {
            space.replace_keys(keys);
        }
        self.counters.retries += 1;
        self.backoff = 0;
        self.deadline = Some(now + self.interval());
        Receipt::Ok
    }

    fn on_version_list(&mut self, now: Instant, list: &VersionList<'_>) -> Receipt {
        let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &self.role else {
            return Receipt::Dropped(Dropped::Unexpected);
        };
        if !state.is_version_refused(self.local_id, list) {
            return Receipt::Dropped(Dropped::Unexpected);
        }
        let theirs: Vec<String> = list.versions().take(8).map(|v| format!("{v:#010x}")).collect();
        let reason =
            CloseReason::new(Reason::VERSION, &format!("the host speaks {}", theirs.join(", ")));
        self.take_hint(now, Receipt::Failed(reason));
        Receipt::Ok
    }

    fn on_sealed(&mut self, now: Instant, header: Header, packet: &mut [u8]) -> Receipt {
        if let Some(dropped) = self.screen(&header, packet) {
            return dropped;
        }
        let space = match header.level {
            Level::Initial => &self.initial,
            Level::Handshake => &self.handshake,
        };
        let Some(space) = space else { return Receipt::Dropped(Dropped::NoKeys) };
        // Numbers of Initial packets can be used up by anybody; their contents bear repetition.
        if header.level == Level::Handshake && space.is_duplicate(header.pn) {
            return Receipt::Dropped(Dropped::Duplicate);
        }
        let Some(payload) = space.open(header.pn, header.header_len, packet) else {
            if header.level == Level::Handshake {
                self.suspect(1);
            }
            return Receipt::Dropped(Dropped::Forged);
        };
        if header.level == Level::Handshake && self.initial.take().is_some() {
            self.on_first_authentic(now);
        }
        match (header.level, scan(payload)) {
            (Level::Initial, Ok(scan)) => self.on_initial(now, &header, &scan, payload),
            (Level::Initial, Err(_)) => Receipt::Dropped(Dropped::Frames),
            (Level::Handshake, Ok(scan)) => self.on_handshake(now, &header, &scan, payload),
            (Level::Handshake, Err(error)) => self.misbehaved(error),
        }
    }

    /// Whether the packet is one that this role takes, from whom it should come; keeps Handshake
    /// packets for which there are no keys yet.
    fn screen(&mut self, header: &Header, packet: &[u8]) -> Option<Receipt> {
        let dropped = |why| Some(Receipt::Dropped(why));
        let wanted = match (&self.role, header.level) {
            (RoleState::Client(_), _) => MessageType::ConnectionResponse,
            (RoleState::Host(_), Level::Initial) => MessageType::ConnectionRequest,
            (RoleState::Host(_), Level::Handshake) => MessageType::AuthenticationRequest,
        };
        if header.message != wanted {
            return dropped(Dropped::Unexpected);
        }
        match &mut self.role {
            RoleState::Client(ClientState::AwaitConnectionResponse(state)) => {
                if header.dcid != self.local_id || state.is_former_host(header.scid) {
                    return dropped(Dropped::ForeignId);
                }
                if header.level == Level::Handshake && self.handshake.is_none() {
                    let kept = state.hold(packet);
                    self.counters.held += u64::from(kept);
                    return if kept { Some(Receipt::Ok) } else { dropped(Dropped::NoKeys) };
                }
                if header.level == Level::Handshake && state.answered_by() != Some(header.scid) {
                    state.suspect(1);
                    return dropped(Dropped::ForeignId);
                }
                None
            }
            RoleState::Client(_) => (header.dcid != self.local_id || header.scid != self.remote_id)
                .then_some(Receipt::Dropped(Dropped::ForeignId)),
            RoleState::Host(state) => {
                let by_request = header.level == Level::Initial
                    && matches!(state, HostState::AwaitAuthenticationRequest(s)
                        if s.request_id() == header.dcid);
                let ours = header.dcid == self.local_id || by_request;
                (!ours || header.scid != self.remote_id)
                    .then_some(Receipt::Dropped(Dropped::ForeignId))
            }
        }
    }

    /// A Handshake packet was opened: the Initial level is over (RFC 9001 §4.9.1), and the address
    /// is the peer's own (RFC 9000 §8.1).
    fn on_first_authentic(&mut self, now: Instant) {
        if let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &mut self.role {
            state.lock();
        }
        self.address_proven = true;
        self.progress(now);
    }

    /// Client: a sign that the answer which we believed is not the host's.
    fn suspect(&mut self, weight: u32) {
        if let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &mut self.role {
            state.suspect(weight);
        }
    }

    // ---- Initial: everything may be forged

    fn on_initial(
        &mut self,
        now: Instant,
        header: &Header,
        scan: &Scan,
        payload: &[u8],
    ) -> Receipt {
        if let Some(reason) = &scan.close {
            self.take_hint(now, Receipt::Closed(reason.clone()));
            return Receipt::Ok;
        }
        if let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &mut self.role
            && scan.crypto
        {
            if !state.answered(header.scid) {
                state.suspect(CONTRADICTION);
                return Receipt::Dropped(Dropped::ForeignId);
            }
            self.remote_id = header.scid;
        }
        let Some(space) = &mut self.initial else { return Receipt::Dropped(Dropped::NoKeys) };
        // Once there are Handshake keys, TLS reads no more Initial bytes.
        let read_on = self.handshake.is_none();
        let mut contradiction = false;
        for frame in frames(payload) {
            match frame {
                TransportFrame::Ack(ack) if !space.is_optimistic(&ack) => {
                    self.rtt = self.rtt.or(space.on_ack(now, &ack).rtt);
                }
                TransportFrame::Crypto { offset, data } if read_on => {
                    match space.rx.insert(offset, data, INITIAL_AHEAD) {
                        Inserted::New | Inserted::Old => {}
                        Inserted::Conflict => contradiction = true,
                        Inserted::TooFar => return Receipt::Dropped(Dropped::TooFar),
                    }
                }
                TransportFrame::Crypto { offset, data } => {
                    contradiction |= space.rx.conflicts(offset, data);
                }
                _ => {}
            }
        }
        space.on_received(now, header.pn, scan.ack_eliciting);
        if contradiction {
            self.suspect(CONTRADICTION);
            if read_on && matches!(self.role, RoleState::Host(_)) {
                // One of two versions is the client's, but which? Its next request starts afresh.
                let reason = CloseReason::new(Reason::PROTOCOL, "two versions of a request");
                self.end(reason.clone(), true);
                return Receipt::Failed(reason);
            }
        }
        if read_on { self.feed_initial(now) } else { Receipt::Ok }
    }

    fn feed_initial(&mut self, now: Instant) -> Receipt {
        if let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &self.role
            && state.is_poisoned()
        {
            return Receipt::Ok;
        }
        let Some(space) = self.initial.as_mut().filter(|s| s.rx.can_read()) else {
            return Receipt::Ok;
        };
        if let Err(error) = self.tls.read_hs(space.rx.read()) {
            return match &mut self.role {
                RoleState::Client(ClientState::AwaitConnectionResponse(state)) => {
                    tracing::debug!(id = ?self.local_id, %error, "false ConnectionResponse");
                    if state.on_poison() { self.restart(now) } else { Receipt::Ok }
                }
                _ => self.tls_failed(&error),
            };
        }
        self.pull_tls();
        if self.handshake.is_none() {
            return Receipt::Ok;
        }
        self.progress(now);
        let RoleState::Client(ClientState::AwaitConnectionResponse(state)) = &mut self.role else {
            return Receipt::Ok;
        };
        for mut packet in state.take_held() {
            let receipt = self.receive(now, &mut packet);
            if matches!(receipt, Receipt::Closed(_) | Receipt::Failed(_)) {
                return receipt;
            }
        }
        Receipt::Ok
    }

    // ---- Handshake: only the peer can have sealed it

    fn on_handshake(
        &mut self,
        now: Instant,
        header: &Header,
        scan: &Scan,
        payload: &[u8],
    ) -> Receipt {
        if let Some(reason) = &scan.close {
            self.end(reason.clone(), true);
            return Receipt::Closed(reason.clone());
        }
        let Some(space) = &mut self.handshake else { return Receipt::Dropped(Dropped::NoKeys) };
        let mut moved = false;
        for frame in frames(payload) {
            match frame {
                TransportFrame::Ack(ack) => {
                    if space.is_optimistic(&ack) {
                        return self.misbehaved(PeerMisbehaved::OptimisticAck);
                    }
                    let outcome = space.on_ack(now, &ack);
                    moved |= outcome.newly_acked;
                    self.rtt = outcome.rtt.or(self.rtt);
                }
                TransportFrame::Crypto { offset, data } => {
                    if offset.saturating_add(data.len() as u64) > MAX_CRYPTO_BUFFER as u64 {
                        return self.misbehaved(PeerMisbehaved::Limit("CRYPTO"));
                    }
                    match space.rx.insert(offset, data, HANDSHAKE_AHEAD) {
                        Inserted::New if self.proven => {
                            let late = PeerMisbehaved::Unexpected("CRYPTO after Finished");
                            return self.misbehaved(late);
                        }
                        Inserted::New => moved = true,
                        Inserted::Old => {}
                        Inserted::Conflict => {
                            let second = PeerMisbehaved::Unexpected("second version of CRYPTO");
                            return self.misbehaved(second);
                        }
                        Inserted::TooFar => return Receipt::Dropped(Dropped::TooFar),
                    }
                }
                _ => {}
            }
        }
        space.on_received(now, header.pn, scan.ack_eliciting);
        if moved {
            self.progress(now);
        }
        self.feed_handshake()
    }

    fn feed_handshake(&mut self) -> Receipt {
        let Some(space) = self.handshake.as_mut().filter(|s| s.rx.can_read()) else {
            return Receipt::Ok;
        };
        if let Err(error) = self.tls.read_hs(space.rx.read()) {
            return self.tls_failed(&error);
        }
        self.pull_tls();
        if !self.tls.is_handshaking() && !self.proven {
            return match self.prove() {
                Ok(()) => Receipt::Ok,
                Err(reason) => self.fail(reason),
            };
        }
        Receipt::Ok
    }

    /// TLS has verified the peer's proof: checks the rest and makes the result.
    fn prove(&mut self) -> Result<(), CloseReason> {
        let misbehaved = |e: PeerMisbehaved| CloseReason::new(e.reason(), &e.to_string());
        let internal = |what: &str| CloseReason::new(Reason::INTERNAL, what);
        let encoded = self
            .tls
            .quic_transport_parameters()
            .ok_or_else(|| misbehaved(PeerMisbehaved::Malformed("transport parameters")))?;
        let peer_params = TransportParams::parse(encoded).map_err(misbehaved)?;
        match &self.role {
            RoleState::Client(ClientState::AwaitConnectionResponse(s)) => s.check(&peer_params),
            RoleState::Host(HostState::AwaitAuthenticationRequest(s)) => s.check(&peer_params),
            _ => Ok(()),
        }
        .map_err(misbehaved)?;
        let keys = self.one_rtt.take().ok_or_else(|| internal("no keys after the handshake"))?;
        let peer_certificates: Vec<_> = self
            .tls
            .peer_certificates()
            .unwrap_or(&[])
            .iter()
            .map(|c| c.clone().into_owned())
            .collect();
        let peer = peer_of(&self.tls)?;
        let exporter =
            exporter(&self.tls).map_err(|_| internal("no exporter after the handshake"))?;
        let mut established = Box::new(Established {
            keys,
            peer_params,
            peer,
            peer_certificates,
            suite: suite_name(&self.tls),
            suite_number: suite_number(&self.tls),
            server_name: None,
            exporter,
            resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
            rtt: self.rtt,
            peer_id: self.remote_id,
            tickets: Vec::new(),
        });
        self.role = match &self.role {
            RoleState::Client(ClientState::AwaitConnectionResponse(state)) => {
                RoleState::Client(state.proved(&mut established))
            }
            RoleState::Client(_) => RoleState::Client(ClientState::AwaitAuthenticationResponse),
            RoleState::Host(_) => {
                let tickets = core::mem::take(&mut self.tickets);
                RoleState::Host(AwaitAuthenticationRequest::proved(
                    &self.tls,
                    tickets,
                    &mut established,
                ))
            }
        };
        self.proven = true;
        self.established = Some(established);
        Ok(())
    }
}

/// Checks every frame of a payload.
fn scan(payload: &[u8]) -> Result<Scan, PeerMisbehaved> {
    let mut scan = Scan::default();
    for frame in Frames::new(payload) {
        let frame = frame?;
        if frame.channel != TRANSPORT_CHANNEL {
            return Err(PeerMisbehaved::Unexpected("channel data in the handshake"));
        }
        let frame = TransportFrame::parse(frame.body)?;
        if !frame.is_allowed_in_handshake() {
            return Err(PeerMisbehaved::Unexpected("TRANSPORT frame in the handshake"));
        }
        scan.ack_eliciting |= frame.is_ack_eliciting();
        scan.crypto |= matches!(frame, TransportFrame::Crypto { .. });
        if let TransportFrame::Close { reason, text, .. } = frame {
            scan.close = Some(CloseReason::new(reason, text));
        }
    }
    Ok(scan)
}

/// The frames of a payload that [`scan`] has accepted.
fn frames(payload: &[u8]) -> impl Iterator<Item = TransportFrame<'_>> {
    Frames::new(payload)
        .map_while(Result::ok)
        .map_while(|frame| TransportFrame::parse(frame.body).ok())
}
