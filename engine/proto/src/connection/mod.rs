//! One connection: the composition of handshake, path, keys, recovery and channels under the
//! status machine.
//!
//! Called by `endpoint` only. `receive.rs` takes packets, `transmit.rs` writes them, `close.rs` and
//! `path.rs` hold the state of closing and moving; this file has the application's calls, the
//! timers and the status.

mod close;
mod deadlines;
mod glare;
mod handshaking;
mod ids;
mod path;
mod receive;
mod report;
mod route;
mod sec_info;
mod stream;
#[cfg(test)]
mod test_support;
mod timers;
mod transmit;

use crate::channel::Mux;
use crate::config::ConnectionConfig;
use crate::crypto::{DataKeys, ReplayWindow};
use crate::endpoint::{RxMeta, Shared};
use crate::error::{ApiError, CloseReason, Reason};
use crate::event::Sink;
use crate::handshake::LocalSecurity;
use crate::ids::{ConnHandle, Role};
use crate::limits::{PACKET_OVERHEAD, whole_blocks};
use crate::place::Place;
use crate::recovery::{Fate, ReceivedPackets, Recovery};
use crate::status::{Status, Trigger};
use crate::time::{Duration, Instant};
use crate::wire::control;
use crate::wire::ranges::RangeSet;
use crate::wire::record::FrameRecord;
use close::Closing;
pub(crate) use glare::{Contender, Step};
use handshaking::{Authentication, Handshaking, PeerInfo};
pub(crate) use handshaking::{ClientSide, HostSide};
use ids::IdSet;
use path::Migration;
pub(crate) use path::Path;
pub(crate) use receive::Taken;
use route::Route;
pub(crate) use route::is_discard_only;
use sec_info::Decision;
pub use sec_info::{AuthMethod, Party, SecInfo, SecInfoError};
use std::net::SocketAddr;
use std::sync::Arc;
use stream::StreamLink;
pub use stream::StreamNeeds;
pub(crate) use stream::StreamSide;
use timers::Timers;
#[cfg(test)]
use transmit::Alone;

/// Frames of the connection itself that wait for the next packet.
#[derive(Debug, Default)]
struct Pending {
    ping: bool,
    close_ack: bool,
    /// The peer is to be told after how many packets we want an acknowledgement.
    ack_frequency: bool,
    /// What it was told last: every packet on its own.
    ack_every_packet: bool,
    /// Answers to PATH_CHALLENGE, each with the path that it must go on if that is another one.
    path_responses: Vec<([u8; 8], Option<Path>)>,
    new_ids: Vec<u64>,
    retire_ids: Vec<u64>,
    tickets: Option<Box<Tickets>>,
}

/// Post-handshake CRYPTO of the host (session tickets), until the peer has it.
#[derive(Debug, Default)]
struct Tickets {
    bytes: Vec<u8>,
    /// To be sent.
    ranges: Vec<core::ops::Range<usize>>,
    acked: RangeSet,
}

impl Pending {
    /// A piece of the tickets was lost: it is sent again unless another copy has arrived.
    fn ticket_lost(&mut self, start: usize, len: u16) {
        let Some(tickets) = &mut self.tickets else { return };
        let range = start..start + usize::from(len);
        let known = tickets.ranges.contains(&range);
        if range.end <= tickets.bytes.len() && !known && !tickets.acked.contains(start as u64) {
            tickets.ranges.push(range);
        }
    }

    /// A piece of the tickets has arrived; once all have, they are forgotten.
    fn ticket_acked(&mut self, start: u64, len: u16) {
        let Some(tickets) = &mut self.tickets else { return };
        let all = tickets.bytes.len() as u64;
        tickets.acked.insert(start..(start + u64::from(len)).min(all));
        if tickets.acked.covered() >= all {
            self.tickets = None;
        }
    }

    /// Whether a piece of the tickets waits for a packet.
    fn has_tickets(&self) -> bool {
        self.tickets.as_ref().is_some_and(|tickets| !tickets.ranges.is_empty())
    }

    /// Everything sent was acknowledged: what was kept for sending again goes.
    fn shrink(&mut self) {
        if !self.has_tickets() {
            self.tickets = None;
        }
        self.path_responses.shrink_to_fit();
        self.new_ids.shrink_to_fit();
        self.retire_ids.shrink_to_fit();
    }
}

/// Pieces of memory that a message needs and that a connection points to.
pub(crate) const PARTS: usize = 5;

/// Plain counters.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets_received: u64,
    bytes_received: u64,
    packets_rejected: u64,
    retransmits: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Connection {
    handle: ConnHandle,
    role: Role,
    status: Status,
    config: Arc<ConnectionConfig>,
    path: Path,
    migration: Option<Box<Migration>>,
    /// It was made over a relay.
    route: Option<Box<Route>>,
    ids: IdSet,
    keys: Option<Box<DataKeys>>,
    replay: ReplayWindow,
    recovery: Recovery,
    received: ReceivedPackets,
    mux: Mux,
    handshake: Option<Box<Handshaking>>,
    /// The link below, if it is a stream.
    stream: Option<Box<StreamLink>>,
    /// A stream that was tried was given up.
    stream_lost: bool,
    authentication: Authentication,
    peer: Option<Box<PeerInfo>>,
    /// What our TLS settings say of this connection's security.
    security: Arc<LocalSecurity>,
    /// The credential that was shown, as a digest.
    credential: Option<Box<[u8; 32]>>,
    /// Client: whether somebody decides what becomes of the connection once the host is proven.
    decision: Decision,
    pending: Pending,
    closing: Option<Box<Closing>>,
    timers: Timers,
    counters: Counters,
    /// The application knows the handle: always for a client, from `incoming` on for a host.
    told: bool,
    /// Something that asks for an answer was sent since the last packet from the peer.
    awaiting_answer: bool,
    /// There was a pause after its beginnings.
    was_quiet: bool,
    /// Counts among the endpoint's handshakes under way.
    counted: bool,
    /// CONTROL has more behind a message that has not taken effect.
    control_waits: bool,
    /// Nothing more may be sealed: the cipher's limit is reached and the peer lets no update happen.
    keys_used_up: bool,
}

impl Connection {
    pub(crate) const fn handle(&self) -> ConnHandle {
        self.handle
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    pub(crate) const fn status(&self) -> Status {
        self.status
    }

    pub(crate) const fn is_told(&self) -> bool {
        self.told
    }

    pub(crate) fn is_live_id(&self, sequence: u8) -> bool {
        self.ids.is_live(sequence)
    }

    /// The reset token of the id that the peer is sent to at present.
    pub(crate) const fn peer_token(&self) -> Option<[u8; 16]> {
        self.ids.token()
    }

    pub(crate) const fn remote(&self) -> SocketAddr {
        self.path.remote
    }

    /// Handle checks of application calls: gone handles are invalid, and what needs a live
    /// connection says so.
    pub(crate) fn usable(&self) -> Result<(), ApiError> {
        match self.status {
            Status::Connecting | Status::FindingRoute | Status::Connected => Ok(()),
            Status::ClosedByPeer => Err(ApiError::NoConnection("closed by the peer")),
            Status::ProblemDetectedLocally => Err(ApiError::NoConnection("ended by a problem")),
            _ => Err(ApiError::InvalidHandle),
        }
    }

    /// What a message needs besides this: keys and the first channels.
    pub(crate) fn parts(&self) -> [Place; PARTS] {
        let keys = self.keys.as_ref().map(|keys| keys.places()).unwrap_or_default();
        let (packet, record) = self.recovery.places();
        [keys.0, keys.1, self.mux.place(), packet, record]
    }

    /// Whether packets just written made room that a channel waits for.
    pub(crate) const fn has_made_room(&self) -> bool {
        self.mux.has_made_room()
    }

    pub(crate) fn mux(&mut self) -> &mut Mux {
        &mut self.mux
    }

    pub(crate) const fn mux_ref(&self) -> &Mux {
        &self.mux
    }

    pub(crate) fn next_pn(&self) -> u64 {
        self.recovery.next_pn()
    }

    /// Moves the status through its table; returns whether the trigger did anything.
    fn apply<S: Sink>(
        &mut self,
        trigger: Trigger,
        reason: Option<&CloseReason>,
        sink: &mut S,
    ) -> bool {
        let Some(new) = self.status.on(trigger) else { return false };
        let old = core::mem::replace(&mut self.status, new);
        tracing::debug!(conn = ?self.handle, ?old, ?new, ?reason, "status");
        if self.told && new != Status::Dead {
            sink.status(self.handle, old, new, reason);
        }
        true
    }

    // ---- application calls

    /// Host: the application takes the connection.
    pub(crate) fn accept<S: Sink>(&mut self, now: Instant, sink: &mut S) -> Result<(), ApiError> {
        if self.authentication != Authentication::AwaitingApplication || self.is_accepting() {
            return Err(ApiError::NoConnection("nothing to accept in this state"));
        }
        if !self.accept_later() {
            self.accepted(now, sink);
        }
        Ok(())
    }

    /// Host: that the application takes the connection has its effect.
    pub(crate) fn accepted<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.authentication = Authentication::Done;
        self.send_authentication_response(true, Reason::APP, "");
        self.agreed(now, sink);
    }

    /// Host: the application refuses the connection.
    pub(crate) fn reject<S: Sink>(
        &mut self,
        now: Instant,
        code: u32,
        text: &str,
        sink: &mut S,
    ) -> Result<(), ApiError> {
        if self.authentication != Authentication::AwaitingApplication || self.is_accepting() {
            return Err(ApiError::NoConnection("nothing to reject in this state"));
        }
        self.authentication = Authentication::Failed;
        let reason = CloseReason::new(Reason::from_app(code), text);
        self.send_authentication_response(false, reason.reason, &reason.text);
        self.start_closing(now, reason.clone(), true);
        self.apply(Trigger::Close, Some(&reason), sink);
        Ok(())
    }

    fn send_authentication_response(&mut self, accepted: bool, reason: Reason, text: &str) {
        if self.is_plain() {
            return;
        }
        let mut message = Vec::new();
        control::encode_authentication_response(&mut message, accepted, reason, text);
        self.mux.send_control(&message);
    }

    /// Connected: keys, acceptance and route are there.
    fn establish<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.timers.initial = None;
        self.heard(now);
        self.mux.set_ready(now);
        self.apply(Trigger::Established, None, sink);
    }

    /// Closes on behalf of the application.
    pub(crate) fn close<S: Sink>(
        &mut self,
        now: Instant,
        code: u32,
        text: &str,
        linger: Option<Duration>,
        sink: &mut S,
    ) -> Result<(), ApiError> {
        if !self.status.is_open_to_application() || !self.told {
            return Err(ApiError::InvalidHandle);
        }
        let text = if Reason::from_app(code).0 == code {
            text.to_owned()
        } else {
            format!("[code {code}] {text}")
        };
        let reason = CloseReason::new(Reason::from_app(code), &text);
        self.close_with(now, reason, linger, sink);
        Ok(())
    }

    /// The same with any reason (engine shutdown).
    pub(crate) fn close_with<S: Sink>(
        &mut self,
        now: Instant,
        reason: CloseReason,
        linger: Option<Duration>,
        sink: &mut S,
    ) {
        let lingers =
            linger.filter(|_| self.status == Status::Connected && self.mux.has_unacked_reliable());
        match (self.status, lingers) {
            (Status::ClosedByPeer | Status::ProblemDetectedLocally, _) => {
                self.apply(Trigger::Close, None, sink);
            }
            (_, Some(limit)) => {
                self.mux.discard_incoming(true);
                self.timers.linger = Some(now + limit);
                self.closing = Some(Box::new(self.new_closing(reason.clone())));
                // Nothing on the wire tells the peer before the last byte is acknowledged.
                if let Some(closing) = &mut self.closing {
                    closing.due = false;
                }
                self.apply(Trigger::CloseLinger, Some(&reason), sink);
            }
            _ => {
                self.start_closing(now, reason.clone(), false);
                self.apply(Trigger::Close, Some(&reason), sink);
            }
        }
    }

    fn new_closing(&self, reason: CloseReason) -> Closing {
        let pto = self.recovery.pto();
        Closing::new(reason, self.mux.has_discarded(), pto)
    }

    /// From now on CLOSE is what goes out; fin-wait runs.
    fn start_closing(&mut self, now: Instant, reason: CloseReason, rejection: bool) {
        self.lose_stream();
        let mut closing = self.new_closing(reason);
        closing.rejection = rejection;
        if self.keys.is_none()
            && let Some(handshake) = &mut self.handshake
        {
            handshake.machine.close(&closing.reason);
        }
        self.closing = Some(Box::new(closing));
        self.timers =
            Timers { fin_wait: Some(now + self.config.fin_wait_timeout), ..Timers::default() };
    }

    /// Pings; an answer must come within the check timeout.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), ApiError> {
        self.usable()?;
        self.refuse_on_plain("a plain link has no way to ask the peer")?;
        if self.has_keys() {
            self.pending.ping = true;
            self.timers.check = Some(now + self.config.check_timeout);
        }
        Ok(())
    }

    /// The local network changed: ask the peer at once, from a fresh connection id.
    pub(crate) fn network_changed(&mut self, now: Instant, shared: &mut Shared) {
        if !self.has_keys() || self.usable().is_err() {
            return;
        }
        if self.role == Role::Client && !self.is_stream() {
            let before = self.ids.token();
            // A peer that leaves too many of our retirements unanswered gets no more of them.
            if self.ids.switch(&mut self.pending.retire_ids) == Ok(true) {
                self.token_changed(before, shared);
            }
            self.recovery.on_path_change(now);
        }
        // A state that allows it was checked above.
        let _ = self.check(now);
    }

    // ---- endings

    /// Something went wrong on our side of the wire: timeout, bad crypto, protocol error.
    fn fail<S: Sink>(&mut self, now: Instant, reason: CloseReason, sink: &mut S) {
        match self.status {
            Status::Connecting | Status::FindingRoute | Status::Connected => {
                if let Some(handshake) = &mut self.handshake {
                    handshake.machine.close(&reason);
                }
                self.authentication.fail();
                self.start_closing(now, reason.clone(), false);
                self.mux.close_all(self.handle, &reason, sink);
                self.apply(Trigger::Problem, Some(&reason), sink);
            }
            Status::Linger | Status::FinWait => {
                // The last word; who only timed out cannot hear it.
                self.closing = Some(Box::new(self.new_closing(reason.clone())));
                self.apply(Trigger::Problem, Some(&reason), sink);
            }
            _ => {}
        }
    }

    /// The peer closed, or lost its state.
    fn peer_closed<S: Sink>(&mut self, now: Instant, reason: CloseReason, sink: &mut S) {
        if !self.status.is_open_to_application() {
            if let Some(closing) = &mut self.closing {
                closing.on_acknowledged();
            }
            self.apply(Trigger::PeerClosed, Some(&reason), sink);
            return;
        }
        if self.status.on(Trigger::PeerClosed).is_none() {
            if let Some(closing) = &mut self.closing {
                closing.on_acknowledged();
            }
            return;
        }
        let mut closing = self.new_closing(reason.clone());
        closing.on_acknowledged();
        closing.by_peer = true;
        self.closing = Some(Box::new(closing));
        self.authentication.fail();
        self.timers = Timers::default();
        if !self.told {
            self.timers.fin_wait = Some(now + self.config.fin_wait_timeout);
        }
        self.mux.close_all(self.handle, &reason, sink);
        self.apply(Trigger::PeerClosed, Some(&reason), sink);
    }

    /// A stateless reset with one of our peer's tokens.
    pub(crate) fn on_stateless_reset<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        if self.route.is_some() && self.status == Status::Connecting {
            // The peer may have dropped it for its own connection to us, which is about to arrive.
            return;
        }
        self.peer_closed(now, CloseReason::new(Reason::RESET, ""), sink);
        self.pending.close_ack = false;
    }

    /// Whether packets from there can belong to this connection.
    pub(crate) fn accepts_from(&self, meta: &RxMeta) -> bool {
        self.role == Role::Host
            || meta.remote == self.path.remote
            || self.handshake.as_ref().is_some_and(|h| h.candidates.contains(&meta.remote))
            || self.route.as_ref().is_some_and(|r| r.knows(meta))
    }

    /// The driver could not send a train whole, or a packet was too large for the interface.
    pub(crate) fn transmit_failed(&mut self, now: Instant, size: usize, too_large: bool) {
        if too_large {
            self.recovery.on_probe_too_large(now, size);
        }
    }

    /// Another id of the peer is in use.
    fn token_changed(&mut self, before: Option<[u8; 16]>, shared: &mut Shared) {
        if let Some(token) = before {
            shared.forget_token(&token, self.handle.slot);
        }
        if let Some(token) = self.ids.token() {
            shared.remember_token(token, self.handle.slot);
        }
    }

    /// A host that the application does not know and that is over: nothing is told.
    pub(crate) const fn is_dead(&self) -> bool {
        matches!(self.status, Status::Dead)
    }

    /// Counts among the endpoint's handshakes under way.
    pub(crate) const fn is_counted_as_handshake(&self) -> bool {
        self.counted
    }

    /// Once, when the handshake is over, well or badly.
    pub(crate) fn take_handshake_end(&mut self) -> bool {
        self.counted && self.authentication.is_over() && core::mem::take(&mut self.counted)
    }

    /// The application does not know it any more: it ends without a word to anybody.
    pub(crate) fn forget(&mut self) {
        self.told = false;
        self.discard();
    }

    /// Ends a connection that nobody was told of, without a word.
    pub(crate) fn discard(&mut self) {
        self.authentication.fail();
        self.handshake = None;
        self.status = Status::Dead;
    }

    /// Tells the channels how much a packet carries now.
    fn sync_packet_size(&mut self) {
        self.mux.set_packet_payload(self.data_packet_size() - PACKET_OVERHEAD);
    }

    /// Size of a full packet of data: as large as the path allows, but sealed in whole blocks. A
    /// part of a block takes the cipher 40 ns, a tenth of the time for a packet, and carries at
    /// most 15 bytes, a hundredth of it.
    fn data_packet_size(&self) -> usize {
        PACKET_OVERHEAD + whole_blocks(self.recovery.packet_size() - PACKET_OVERHEAD)
    }
}

/// Routes a record whose packet was lost (or is sent again as a probe) to its owner.
fn lost(
    fate: Fate,
    record: &FrameRecord,
    mux: &mut Mux,
    pending: &mut Pending,
    ids: &IdSet,
    retransmits: &mut u64,
) {
    match *record {
        FrameRecord::NewConnectionId { sequence } => {
            if ids.is_local(sequence) && !pending.new_ids.contains(&sequence) {
                pending.new_ids.push(sequence);
            }
        }
        FrameRecord::RetireConnectionId { sequence } => {
            if ids.is_retiring(sequence) && !pending.retire_ids.contains(&sequence) {
                pending.retire_ids.push(sequence);
            }
        }
        FrameRecord::Crypto { offset, len } => pending.ticket_lost(offset as usize, len),
        FrameRecord::AckFrequency => pending.ack_frequency = true,
        FrameRecord::Ack { .. } | FrameRecord::Close => {}
        _ => {
            if fate == Fate::Lost || fate == Fate::Probe {
                *retransmits += 1;
            }
            mux.on_lost(record);
        }
    }
}
