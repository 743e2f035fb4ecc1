//! Taking packets: open, frames, acknowledgements, change of path.

use super::{Authentication, Connection, Migration, lost};
use crate::channel::ConnMessage;
use crate::endpoint::{RxMeta, Shared};
use crate::error::{CloseReason, PeerMisbehaved};
use crate::event::{NullSink, Sink};
use crate::handshake::Receipt;
use crate::ids::{ConnectionId, Role};
use crate::limits::{CONTROL_CHANNEL, MAX_PATH_CHALLENGES, TRANSPORT_CHANNEL};
use crate::recovery::{Asks, Fate};
use crate::status::Status;
use crate::time::Instant;
use crate::wire::ack::AckFrame;
use crate::wire::frame::{Frames, RawFrame};
use crate::wire::packet::{ShortHeader, expand_pn};
use crate::wire::record::FrameRecord;
use crate::wire::transport::TransportFrame;

use super::ids::PeerConnectionId;
use super::path::{Challenge, Path};

/// What the frames of one packet asked for.
#[derive(Default)]
struct PacketFacts {
    asks: Asks,
    /// Anything but path validation and ids: such a packet moves the path (RFC 9000 §9.1).
    moves_path: bool,
    ping: bool,
    data: bool,
    close: Option<CloseReason>,
    /// The CLOSE said so of data of ours.
    discarded: bool,
    close_ack: bool,
    /// A path that is tried has answered.
    answered: bool,
}

/// What became of a short packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was opened.
    Opened,
    /// It came before the keys.
    Early,
    /// It is a copy, or too old to be told from one.
    Copy,
    /// It could not be authenticated. It may be a stateless reset.
    Forged,
}

impl Connection {
    /// Takes one short packet whose id names this connection.
    pub(crate) fn receive_short<S: Sink>(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        header: ShortHeader,
        packet: &mut [u8],
        shared: &mut Shared,
        sink: &mut S,
    ) -> Taken {
        let Some(keys) = &mut self.keys else {
            return Taken::Early;
        };
        let size = packet.len();
        let pn = expand_pn(self.received.largest().unwrap_or(0), header.pn);
        if !self.replay.check(pn) {
            self.counters.packets_rejected += 1;
            return Taken::Copy;
        }
        let opened = match keys.open(now, pn, header.key_phase, packet) {
            Ok(opened) => opened.payload,
            Err(crate::crypto::OpenError::Forged) => {
                self.counters.packets_rejected += 1;
                return Taken::Forged;
            }
            Err(crate::crypto::OpenError::Misbehaved(e)) => {
                self.misbehaved(now, e, sink);
                return Taken::Opened;
            }
        };
        self.replay.insert(pn);
        self.counters.packets_received += 1;
        self.counters.bytes_received += size as u64;
        self.heard(now);
        self.confirm_handshake(now);
        let newest = self.received.largest().is_none_or(|l| pn > l);
        let same_path = self.path.is(meta.socket, meta.remote);
        if same_path {
            self.path.on_received(size);
        }
        let mut facts = PacketFacts::default();
        let answers = self.pending.path_responses.len();
        // Channels of a connection that the application closed tell it nothing more.
        let result = if self.status.is_open_to_application() {
            receive_frames(self, now, pn, opened, &mut facts, shared, sink)
        } else {
            receive_frames(self, now, pn, opened, &mut facts, shared, &mut NullSink)
        };
        if let Err(e) = result {
            self.misbehaved(now, e, sink);
            return Taken::Opened;
        }
        self.received.on_packet(now, pn, facts.asks, meta.ecn);
        if facts.data {
            self.busy(now);
        } else if facts.ping {
            // Nothing follows that could share the answer: waiting costs both sides a timer.
            self.received.answer_now();
        }
        if facts.answered {
            self.on_answered(now, meta, sink);
        }
        let moves = !same_path && newest && facts.moves_path;
        if moves && !self.follow_known(now, meta, sink) {
            self.move_path(now, meta, size, shared);
        }
        if meta.remote != self.path.remote || meta.socket != self.path.socket {
            // PATH_RESPONSE goes where the challenge came from (RFC 9000 §8.2.2).
            let mut path = Path::new(meta.socket, meta.remote, meta.local, false);
            path.on_received(size);
            for (_, on) in self.pending.path_responses.iter_mut().skip(answers) {
                *on = Some(path);
            }
        }
        self.after_packet(now, facts, sink);
        Taken::Opened
    }

    pub(super) fn misbehaved<S: Sink>(&mut self, now: Instant, e: PeerMisbehaved, sink: &mut S) {
        self.fail(now, CloseReason::new(e.reason(), &e.to_string()), sink);
    }

    /// CLOSE, CLOSE_ACK, and the answer to packets that come after the end.
    fn after_packet<S: Sink>(&mut self, now: Instant, facts: PacketFacts, sink: &mut S) {
        let has_close = facts.close.is_some();
        if let Some(reason) = facts.close {
            self.pending.close_ack = true;
            self.peer_closed(now, reason, sink);
            if let Some(closing) = &mut self.closing {
                closing.peer_discarded |= facts.discarded;
            }
        }
        if facts.close_ack
            && let Some(closing) = &mut self.closing
        {
            closing.on_acknowledged();
        }
        if !has_close
            && !facts.close_ack
            && matches!(self.status, Status::FinWait | Status::ProblemDetectedLocally)
            && let Some(closing) = &mut self.closing
            && !closing.acknowledged
        {
            closing.on_late_packet(now);
        }
    }

    fn on_transport<S: Sink>(
        &mut self,
        now: Instant,
        pn: u64,
        frame: &TransportFrame<'_>,
        facts: &mut PacketFacts,
        shared: &mut Shared,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let conn = self.handle;
        match *frame {
            TransportFrame::Ack(_) | TransportFrame::Close { .. } | TransportFrame::CloseAck => {}
            // The rest concerns a connection that goes on.
            _ if !self.is_transferring() => return Ok(()),
            _ => {}
        }
        match *frame {
            TransportFrame::Ping => facts.ping = true,
            TransportFrame::Ack(ref ack) => self.on_ack(now, ack, sink)?,
            TransportFrame::Credit { channel, limit } => self.mux.on_credit(pn, channel, limit)?,
            TransportFrame::EarlyCredit { limit } => self.mux.on_early_credit(limit),
            TransportFrame::ChannelReset { channel, code, final_offset } => {
                self.mux.on_reset(now, conn, pn, channel, code, final_offset, sink)?;
            }
            TransportFrame::ChannelStop { channel, code } => {
                self.mux.on_stop(now, conn, pn, channel, code, sink)?;
            }
            TransportFrame::Close { reason, text, discarded } => {
                facts.close = Some(CloseReason::new(reason, text));
                facts.discarded = discarded;
            }
            TransportFrame::CloseAck => facts.close_ack = true,
            TransportFrame::PathChallenge(data) => {
                if self.pending.path_responses.len() < MAX_PATH_CHALLENGES {
                    self.pending.path_responses.push((data, None));
                }
            }
            TransportFrame::PathResponse(data) => {
                facts.answered |= self.note_answer(data);
                self.on_path_response(now, data, sink);
            }
            TransportFrame::NewConnectionId { sequence, retire_prior_to, id, token } => {
                self.on_new_connection_id(sequence, retire_prior_to, id, token, shared)?;
            }
            TransportFrame::RetireConnectionId { sequence } => {
                self.ids.retire_local(sequence)?;
                let Self { ids, pending, .. } = self;
                pending.new_ids.retain(|s| ids.is_local(*s));
                while let Some(next) = ids.issue() {
                    pending.new_ids.push(next);
                }
            }
            TransportFrame::AckFrequency { threshold, max_delay } => {
                self.received.set_frequency(pn, threshold, max_delay);
            }
            TransportFrame::Crypto { offset, data } => {
                if self.role == Role::Host {
                    return Err(PeerMisbehaved::Unexpected("CRYPTO from a client"));
                }
                if let Some(handshake) = &mut self.handshake {
                    handshake.machine.post_handshake(offset, data)?;
                }
            }
        }
        Ok(())
    }

    fn on_ack<S: Sink>(
        &mut self,
        now: Instant,
        ack: &AckFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let conn = self.handle;
        let Self { recovery, mux, pending, received, closing, counters, ids, .. } = self;
        let summary = recovery.on_ack(now, ack, |fate, record| match (fate, record) {
            (Fate::Acked, FrameRecord::Ack { largest }) => received.on_ack_of_ack(*largest),
            (Fate::Acked, FrameRecord::Close) => {
                if let Some(closing) = closing {
                    closing.on_acknowledged();
                }
            }
            (Fate::Acked, FrameRecord::NewConnectionId { .. } | FrameRecord::AckFrequency) => {}
            (Fate::Acked, FrameRecord::RetireConnectionId { sequence }) => {
                ids.on_retired(*sequence);
            }
            (Fate::Acked, FrameRecord::Crypto { offset, len }) => {
                pending.ticket_acked(*offset, *len);
            }
            (Fate::Acked, _) => mux.on_acked(now, conn, record, sink),
            (_, _) => lost(fate, record, mux, pending, ids, &mut counters.retransmits),
        })?;
        if let (Some(largest), Some(keys)) = (summary.largest_newly_acked, &mut self.keys) {
            keys.on_acked(largest);
            if self.timers.check.take().is_some() && self.told {
                sink.check_answered(conn);
            }
        }
        if summary.newly_acked_packets > 0 {
            self.mux.set_rtt(self.recovery.rtt().smoothed());
            if let Some(keys) = &mut self.keys {
                keys.set_pto(self.recovery.pto());
            }
        }
        Ok(())
    }

    fn on_new_connection_id(
        &mut self,
        sequence: u64,
        retire_prior_to: u64,
        id: ConnectionId,
        token: [u8; 16],
        shared: &mut Shared,
    ) -> Result<(), PeerMisbehaved> {
        let new = PeerConnectionId { sequence, id, token: Some(token) };
        let before = self.ids.token();
        let result = self.ids.add_peer(new, retire_prior_to, &mut self.pending.retire_ids);
        if self.ids.token() != before {
            self.token_changed(before, shared);
        }
        result
    }

    // ---- authentication messages on CONTROL

    /// Takes what CONTROL brought for the connection itself. What stands behind such a message is
    /// looked at once it has taken effect; on a host that is when the application has accepted.
    pub(super) fn take_control<S: Sink>(
        &mut self,
        now: Instant,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        loop {
            if let Some(message) = self.mux.poll_control() {
                self.on_auth_message(now, message, sink)?;
                self.control_waits = true;
            }
            // A peer on a stream may say how far it has read at any time.
            if self.authentication == Authentication::AwaitingApplication
                && !self.is_stream()
                && self.mux.has_more_control()
            {
                // A client says nothing more until it has the answer.
                return Err(PeerMisbehaved::Unexpected(
                    "CONTROL before the AuthenticationResponse",
                ));
            }
            let undecided = if self.is_stream() {
                self.authentication == Authentication::AwaitingApplication
            } else {
                self.authentication != Authentication::Done
            };
            if !self.control_waits || undecided || !self.is_transferring() {
                return Ok(());
            }
            if self.status == Status::FindingRoute {
                if !self.mux.has_more_control() {
                    return Ok(());
                }
                self.peer_has_route(now, sink);
            }
            self.control_waits = false;
            self.mux.resume_control(now, self.handle, sink)?;
        }
    }

    fn on_auth_message<S: Sink>(
        &mut self,
        now: Instant,
        message: ConnMessage,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let last_words = matches!(message, ConnMessage::Close { .. } | ConnMessage::CloseAck);
        if self.awaits_parameters() && !last_words && !matches!(message, ConnMessage::Parameters(_))
        {
            return Err(PeerMisbehaved::Unexpected("message before Parameters"));
        }
        match (message, self.authentication) {
            (ConnMessage::Request { credential }, Authentication::AwaitingRequest) => {
                self.on_authentication_request(&credential, sink);
            }
            (ConnMessage::Response { accepted: true, .. }, Authentication::AwaitingResponse) => {
                self.authentication = Authentication::Done;
                self.agreed(now, sink);
            }
            (ConnMessage::Response { reason, text, .. }, Authentication::AwaitingResponse) => {
                self.authentication = Authentication::Failed;
                self.peer_closed(now, CloseReason { reason, text }, sink);
            }
            (ConnMessage::Request { .. }, _) => {
                return Err(PeerMisbehaved::Unexpected("AuthenticationRequest"));
            }
            (ConnMessage::Response { .. }, _) => {
                return Err(PeerMisbehaved::Unexpected("AuthenticationResponse"));
            }
            (message, _) => self.on_link_message(now, message, sink)?,
        }
        Ok(())
    }

    pub(super) fn on_authentication_request<S: Sink>(&mut self, credential: &[u8], sink: &mut S) {
        self.authentication = Authentication::AwaitingApplication;
        self.note_credential(credential);
        if !self.hold(credential) {
            self.tell_incoming(credential, sink);
        }
    }

    // ---- path

    /// The peer's address changed (NAT rebinding): data goes on within the amplification limit,
    /// freely once the new path is proven. The old one is asked too (RFC 9000 §9.3.3).
    fn move_path(&mut self, now: Instant, meta: &RxMeta, size: usize, shared: &mut Shared) {
        let back = self
            .migration
            .as_ref()
            .and_then(|m| m.previous)
            .filter(|p| p.remote == meta.remote && p.socket == meta.socket);
        if let Some(previous) = back {
            self.migration = None;
            self.go_to(now, previous);
            return;
        }
        let pto = self.recovery.pto();
        let old = self.path;
        let previous = if old.validated {
            Some(old)
        } else {
            self.migration.as_ref().and_then(|m| m.previous)
        };
        let mut path = Path::new(meta.socket, meta.remote, meta.local, false);
        path.on_received(size);
        tracing::debug!(conn = ?self.handle, from = %old.remote, to = %meta.remote, "peer moved");
        self.go_to(now, path);
        let challenge = Challenge::new(now, self.path, shared.rng.u64().to_be_bytes(), pto);
        let previous_challenge =
            previous.map(|p| Challenge::new(now, p, shared.rng.u64().to_be_bytes(), pto));
        self.migration = Some(Box::new(Migration { previous, challenge, previous_challenge }));
    }

    /// Packets go there from now on. What is known of the old path says nothing about the new one,
    /// unless only the port differs: a NAT forgot us (RFC 9000 §9.4).
    pub(super) fn go_to(&mut self, now: Instant, path: Path) {
        let same_host = self.path.remote.ip() == path.remote.ip();
        self.path = path;
        if !same_host {
            self.recovery.on_path_change(now);
        }
    }

    fn on_path_response<S: Sink>(&mut self, now: Instant, data: [u8; 8], sink: &mut S) {
        let Some(migration) = &mut self.migration else { return };
        if migration.challenge.data == data {
            self.path.validated = true;
            self.migration = None;
            self.path_proven(now, sink);
        } else if migration.previous_challenge.is_some_and(|c| c.data == data) {
            migration.previous_challenge = None;
        }
    }
}

/// Hands the frames of one opened packet to their owners.
#[allow(clippy::too_many_arguments)]
fn receive_frames<S: Sink>(
    c: &mut Connection,
    now: Instant,
    pn: u64,
    payload: &[u8],
    facts: &mut PacketFacts,
    shared: &mut Shared,
    sink: &mut S,
) -> Result<(), PeerMisbehaved> {
    for frame in Frames::new(payload) {
        let frame = frame?;
        if frame.channel == TRANSPORT_CHANNEL {
            let frame = TransportFrame::parse(frame.body)?;
            if frame.is_ack_eliciting() {
                facts.asks = Asks::Soon;
            }
            facts.moves_path |= !matches!(
                frame,
                TransportFrame::PathChallenge(_)
                    | TransportFrame::PathResponse(_)
                    | TransportFrame::NewConnectionId { .. }
            );
            c.on_transport(now, pn, &frame, facts, shared, sink)?;
        } else {
            if facts.asks != Asks::Soon {
                let later = c.mux.is_unreliable(&frame);
                facts.asks = if later { Asks::Later } else { Asks::Soon };
            }
            facts.moves_path = true;
            facts.data = true;
            c.on_channel_frame(now, pn, &frame, sink)?;
        }
    }
    Ok(())
}

impl Connection {
    fn on_channel_frame<S: Sink>(
        &mut self,
        now: Instant,
        pn: u64,
        frame: &RawFrame<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        match self.status {
            Status::Connecting | Status::Connected | Status::Linger => {}
            Status::FindingRoute => {
                let new = frame.channel != CONTROL_CHANNEL || self.mux.is_new_control(frame);
                if new {
                    self.peer_has_route(now, sink);
                }
            }
            _ => return Ok(()),
        }
        if self.role == Role::Host
            && self.authentication != Authentication::Done
            && frame.channel != CONTROL_CHANNEL
        {
            return Err(PeerMisbehaved::Unexpected("data before the connection was accepted"));
        }
        let next_pn = self.recovery.next_pn();
        self.mux.on_frame(now, self.handle, pn, frame, next_pn, sink)?;
        if frame.channel == CONTROL_CHANNEL {
            self.take_control(now, sink)?;
        }
        Ok(())
    }

    /// Ends a receive batch.
    pub(crate) fn end_batch(&mut self, now: Instant) {
        self.received.end_batch(now);
    }

    /// The handshake ended without success.
    pub(super) fn handshake_over<S: Sink>(&mut self, now: Instant, receipt: Receipt, sink: &mut S) {
        let over = matches!(receipt, Receipt::Closed(_) | Receipt::Failed(_));
        if over && self.lose_datagrams() {
            return;
        }
        match receipt {
            Receipt::Closed(reason) => self.peer_closed(now, reason, sink),
            Receipt::Failed(reason) => self.fail(now, reason, sink),
            Receipt::Ok | Receipt::Dropped(_) => {}
        }
    }
}
