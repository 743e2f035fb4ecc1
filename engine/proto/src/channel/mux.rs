//! The multiplexer itself: what it consists of, its settings, timers and reports.

use super::control::Control;
use super::datagram::ReassemblyBudget;
use super::early::Early;
use super::flow::Budget;
use super::framing::Framing;
use super::incoming::Discard;
use super::pool::Pool;
use super::sched::Sched;
use super::stream::Holding;
use super::table::{Channel, State, Table, flag};
use crate::config::{ChannelKind, ConnectionConfig};
use crate::error::{CloseReason, PeerMisbehaved, Reason};
use crate::event::{ChannelEnd, Sink};
use crate::ids::{ChannelKey, ConnHandle, Role};
use crate::limits::{MAX_CHANNELS, MAX_DATAGRAM, MIN_PACKET, PACKET_OVERHEAD};
use crate::place::Place;
use crate::time::{Duration, Instant};
use crate::wire::params::TransportParams;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// What the peer allows us.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerLimits {
    /// Early-data credit; unanswered channels may use this much together.
    pub early_data: u64,
    pub max_channels: u32,
    pub max_message: u64,
    pub max_datagram: u64,
    /// `false` while these are only our guess.
    pub known: bool,
}

/// All channels of one connection, the CONTROL stream included.
///
/// It knows nothing of packets but their records: [`Mux::fill`] reports what it put into a packet,
/// and [`Mux::on_acked`] or [`Mux::on_lost`] tell what became of it.
///
/// Order of calls: [`Mux::new`]; [`Mux::set_peer`] with the peer's transport parameters;
/// [`Mux::send_control`] and [`Mux::poll_control`] for authentication; [`Mux::set_ready`], after
/// which channels are served.
#[derive(Debug)]
pub struct Mux {
    pub(super) config: Arc<ConnectionConfig>,
    pub(super) framing: Framing,
    pub(super) peer: PeerLimits,
    pub(super) ready: bool,
    pub(super) discarding: bool,
    pub(super) discarded: bool,
    pub(super) table: Table,
    pub(super) control: Control,
    pub(super) sched: Sched,
    pub(super) pool: Pool,
    pub(super) budget: Budget,
    pub(super) early: Early,
    pub(super) reassembly: ReassemblyBudget,
    /// Plain stream link: what the peer has sent and nobody has taken.
    pub(super) held: Holding,
    /// Smoothed round trip, for the growth of windows.
    pub(super) rtt: Duration,
    /// Bytes of payload that a full packet carries.
    pub(super) packet_payload: usize,
    /// Early-data credit of the peer in use.
    pub(super) early_used: u64,
    /// Bytes that the peer sent beyond the limits of its channels, on early-data credit.
    pub(super) early_excess: u64,
    /// Reliable bytes of channels accepted and not acknowledged up to the front.
    pub(super) unacked: u64,
    /// Those of them never sent.
    pub(super) unsent: u64,
    /// EOFs and RESETs asked for and not acknowledged.
    pub(super) unacked_ends: u32,
    /// Channels that we opened, and channels of the peer that count against its limit.
    pub(super) own_count: u32,
    pub(super) peer_count: u32,
    /// Unanswered requests of ours, in the order of their deadlines.
    pub(super) requests: VecDeque<(Instant, ChannelKey)>,
    /// Channels with a reassembly, in the order of their timers.
    pub(super) reassemblies: VecDeque<(Instant, ChannelKey)>,
    /// Channels of which the sink has to be told something: accepted, or ended by our own call.
    pub(super) pending: VecDeque<ChannelKey>,
    /// Channels whose sends gave `WouldBlock`.
    pub(super) blocked: Vec<ChannelKey>,
    /// Some of them because the connection's buffer is full.
    pub(super) all_blocked: bool,
    /// One of them may go on, which no acknowledgement will tell: data was sent or dropped since.
    pub(super) room_made: bool,
    pub(super) stats: MuxStats,
    /// When a frame of a channel last came or went.
    pub(super) moved_at: Option<Instant>,
    /// What had become of reliable data when the connection ended.
    final_report: Option<DeliveryReport>,
}

/// Counters of one connection's channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MuxStats {
    /// Reliable bytes acknowledged (lengths of messages included).
    pub acked_bytes: u64,
    /// Reliable bytes that had to be sent again.
    pub retransmitted_bytes: u64,
    /// Messages handed to the sink, of both kinds.
    pub messages_received: u64,
    /// Unreliable messages handed over for sending.
    pub datagrams_queued: u64,
    /// Unreliable messages dropped because their queue was full or their channel ended.
    pub datagrams_dropped: u64,
    /// Unreliable messages dropped because their time was over.
    pub datagrams_expired: u64,
    /// Unreliable messages received and dropped: late, incomplete, or without room.
    pub datagrams_not_delivered: u64,
    /// Frames ignored because they belong to a former life of their id or to nothing.
    pub stale_frames: u64,
}

/// What became of reliable data so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryReport {
    /// Bytes acknowledged by the peer.
    pub acknowledged_bytes: u64,
    /// Bytes accepted for sending and not acknowledged.
    pub undelivered_bytes: u64,
    /// Channels with such bytes.
    pub undelivered_channels: u32,
}

/// Where a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelPhase {
    /// We asked for it and the peer has not answered.
    Requested,
    /// The peer asked for it and we have not answered.
    Offered,
    /// Both agreed.
    Open,
}

/// What can be told about a channel.
#[derive(Clone, Debug)]
pub struct ChannelInfo<'a> {
    /// Id on the wire.
    pub id: u16,
    /// Its name.
    pub name: Cow<'a, str>,
    /// What it carries.
    pub kind: ChannelKind,
    /// Where it stands.
    pub phase: ChannelPhase,
    /// Whether we asked for it.
    pub ours: bool,
    /// Priority class of what we send.
    pub priority: u8,
    /// Weight of what we send.
    pub weight: u8,
    /// Bytes accepted and not sent yet; of `datagrams` with a small cost per message.
    pub queued_bytes: u64,
    /// Reliable bytes accepted and not acknowledged.
    pub unacked_bytes: u64,
    /// Stream bytes received in order.
    pub received_bytes: u64,
    /// Stream bytes that the peer may send in all.
    pub receive_limit: u64,
    /// Whether a send would give `WouldBlock` until the writable event.
    pub blocked: bool,
}

impl ChannelInfo<'_> {
    /// The same, to be kept.
    pub fn into_owned(self) -> ChannelInfo<'static> {
        ChannelInfo { name: Cow::Owned(self.name.into_owned()), ..self }
    }
}

impl Mux {
    /// An empty multiplexer. Nothing is allocated but the shared configuration.
    pub fn new(role: Role, config: &Arc<ConnectionConfig>) -> Self {
        Self {
            peer: PeerLimits {
                early_data: 0,
                max_channels: MAX_CHANNELS,
                max_message: config.max_message as u64,
                max_datagram: MAX_DATAGRAM as u64,
                known: false,
            },
            framing: Framing::Packets,
            held: Holding::default(),
            ready: false,
            discarding: false,
            discarded: false,
            table: Table::new(role),
            control: Control::new(),
            sched: Sched::default(),
            pool: Pool::default(),
            budget: Budget::new(config),
            early: Early::default(),
            reassembly: ReassemblyBudget {
                used: 0,
                limit: config.datagram_reassembly,
                max_message: MAX_DATAGRAM as u64,
            },
            rtt: Duration::from_millis(100),
            packet_payload: MIN_PACKET - PACKET_OVERHEAD,
            early_used: 0,
            early_excess: 0,
            unacked: 0,
            unsent: 0,
            unacked_ends: 0,
            own_count: 0,
            peer_count: 0,
            requests: VecDeque::new(),
            reassemblies: VecDeque::new(),
            pending: VecDeque::new(),
            blocked: Vec::new(),
            all_blocked: false,
            room_made: false,
            final_report: None,
            stats: MuxStats::default(),
            moved_at: None,
            config: config.clone(),
        }
    }

    /// The longest reliable message that can be sent, as far as is known.
    pub const fn max_message(&self) -> usize {
        self.peer.max_message as usize
    }

    /// Takes the peer's limits. A channel on which a longer message was sent before they were known
    /// is reset.
    pub fn set_peer(&mut self, params: &TransportParams) {
        self.peer = PeerLimits {
            early_data: params.early_data,
            max_channels: params.max_channels.min(MAX_CHANNELS),
            max_message: params.max_message.min(self.config.max_message as u64),
            max_datagram: params.max_datagram.min(MAX_DATAGRAM as u64),
            known: true,
        };
        self.control.raise_limit(params.control_window);
        for slot in 0..self.table.slots() {
            let channel = self.table.at(slot);
            let longest = core::mem::take(&mut channel.early);
            if u64::from(longest) > self.peer.max_message {
                // A message was accepted that the peer does not take: the channel cannot go on.
                channel.ended(Reason::LOCAL_LIMIT.0, false);
                self.cancel_send(slot, Reason::LOCAL_LIMIT.0);
            }
        }
        self.wake_early();
    }

    /// Both sides are authenticated: requests and data may go out from now on.
    pub fn set_ready(&mut self, now: Instant) {
        self.ready = true;
        self.control.unstage(&mut self.pool);
        let deadline = now + self.config.channel_timeout;
        for (at, _) in &mut self.requests {
            *at = deadline;
        }
    }

    /// The smoothed round trip, for the growth of receive windows.
    pub const fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Bytes of payload that a packet of the current size carries; datagrams are cut to it.
    pub fn set_packet_payload(&mut self, bytes: usize) {
        self.packet_payload = bytes.max(64);
    }

    /// Lingering: what arrives from now on is acknowledged and dropped, credit keeps flowing, and
    /// no event reaches the sink. Open requests of the peer are declined.
    pub fn discard_incoming(&mut self, on: bool) {
        if on {
            let mut discard = Discard::default();
            let nowhere = ConnHandle { slot: 0, generation: 0 };
            // What is held for a channel just accepted goes the way of all that arrives from now
            // on; should it break the protocol, the channel merely stalls.
            let _ = self.deliver(Instant::ZERO, nowhere, &mut discard);
            self.discarded |= discard.data;
        }
        self.discarding = on;
        if !on {
            return;
        }
        self.budget.forget_orphans();
        for slot in 0..self.table.slots() {
            let channel = self.table.at(slot);
            match channel.state {
                State::Offered => {
                    self.decline_slot(slot, Reason::APP.0, "");
                }
                State::Open => {
                    let (unconsumed, debt) = (channel.recv.unconsumed, channel.recv.debt);
                    channel.recv.unconsumed = 0;
                    channel.recv.debt = 0;
                    let done = channel.any(flag::RECV_DONE | flag::STOP);
                    let reliable = channel.kind != ChannelKind::Datagrams;
                    self.discarded |= unconsumed + debt > 0;
                    self.budget.release(debt);
                    if self.framing.is_plain() {
                        self.recount(slot);
                    }
                    if reliable && !done {
                        self.renew(Instant::ZERO, slot);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether data was dropped since [`Self::discard_incoming`].
    pub const fn has_discarded(&self) -> bool {
        self.discarded
    }

    /// Reliable bytes of channels that are queued or unacknowledged.
    pub const fn unacked_reliable_bytes(&self) -> u64 {
        self.unacked
    }

    /// Reliable bytes handed over that were never sent.
    pub const fn unsent_reliable_bytes(&self) -> u64 {
        self.unsent
    }

    /// Whether something reliable is not acknowledged: data, EOFs, RESETs, or messages of CONTROL.
    pub fn has_unacked_reliable(&self) -> bool {
        self.unacked > 0 || self.unacked_ends > 0 || self.control.has_unacked()
    }

    /// What became of the reliable data of channels, while they exist: ask before
    /// [`Self::close_all`].
    pub fn report(&self) -> DeliveryReport {
        if let Some(report) = self.final_report {
            return report;
        }
        let mut report = DeliveryReport {
            acknowledged_bytes: self.stats.acked_bytes,
            ..DeliveryReport::default()
        };
        for (_, channel) in self.table.iter() {
            if let Some(send) = &channel.send {
                let beyond = send.acked_beyond();
                let missing = send.unacked() - beyond;
                report.acknowledged_bytes += beyond;
                report.undelivered_bytes += missing;
                report.undelivered_channels += u32::from(missing > 0);
            }
        }
        report
    }

    /// When a frame of a channel last came or went, CONTROL not counted; `None` before the first.
    pub const fn moved_at(&self) -> Option<Instant> {
        self.moved_at
    }

    /// Counters.
    pub const fn stats(&self) -> MuxStats {
        self.stats
    }

    /// What can be told about a channel; `None` for a stale key.
    pub fn info(&self, key: ChannelKey) -> Option<ChannelInfo<'_>> {
        let channel = self.table.peek(key)?;
        let phase = match channel.state {
            State::Requested => ChannelPhase::Requested,
            State::Offered => ChannelPhase::Offered,
            State::Open => ChannelPhase::Open,
            State::Free | State::Closing => return None,
        };
        let datagrams = channel.datagram_send.as_ref().map_or(0, |queue| queue.bytes());
        Some(ChannelInfo {
            id: channel.id,
            name: Cow::Borrowed(channel.name.as_deref().unwrap_or("")),
            kind: channel.kind,
            phase,
            ours: channel.has(flag::OURS),
            priority: channel.priority,
            weight: channel.weight,
            queued_bytes: channel.unsent() + datagrams,
            unacked_bytes: channel.unacked(),
            received_bytes: channel.recv.next,
            receive_limit: channel.recv.limit,
            blocked: channel.has(flag::BLOCKED),
        })
    }

    /// What a channel carries; `None` for a stale key. Cheaper than [`Self::info`].
    pub fn kind(&self, key: ChannelKey) -> Option<ChannelKind> {
        self.table.peek(key).filter(|ch| ch.is_known()).map(|ch| ch.kind)
    }

    /// Whether sends on the channel give `WouldBlock` until the writable event.
    pub fn is_blocked(&self, key: ChannelKey) -> bool {
        self.table.peek(key).is_some_and(|ch| ch.has(flag::BLOCKED))
    }

    /// The channel with this id on the wire.
    pub fn channel_by_id(&self, id: u16) -> Option<ChannelKey> {
        let key = self.table.key_of(id)?;
        self.table.peek(key).is_some_and(Channel::is_known).then_some(key)
    }

    /// A channel of this name that the application knows and can still send on.
    pub fn channel_by_name(&self, name: &str) -> Option<ChannelKey> {
        let usable = |ch: &Channel| {
            matches!(ch.state, State::Requested | State::Open) && !ch.any(flag::FIN | flag::RESET)
        };
        let mut named = self.table.iter().filter(|(_, ch)| ch.name.as_deref() == Some(name));
        named.find(|(_, ch)| usable(ch)).map(|(key, _)| key)
    }

    /// All channels that the application knows, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = ChannelKey> + '_ {
        self.table.iter().filter(|(_, ch)| ch.is_known()).map(|(key, _)| key)
    }

    /// Channels in use, those included that are over for the application and wait for the peer.
    pub const fn count(&self) -> u32 {
        self.table.count()
    }

    /// Where the first channels lie.
    pub fn place(&self) -> Place {
        self.table.place()
    }

    /// Whether packets just written made room that a channel waits for.
    #[inline]
    pub const fn has_made_room(&self) -> bool {
        self.room_made
    }

    /// When [`Self::on_timeout`] has work: small writes waited long enough, an unanswered request
    /// or a partial datagram is given up, or an event waits to be told.
    pub fn timeout(&self) -> Option<Instant> {
        if !self.pending.is_empty() || self.room_made {
            return Some(Instant::ZERO);
        }
        let requests = self.requests.front().filter(|_| self.ready).map(|(at, _)| *at);
        let reassemblies = self.reassemblies.front().map(|(at, _)| *at);
        [requests, reassemblies, self.sched.held_until, self.early.timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Runs every timer that is due and tells the sink about accepted channels. Data held back
    /// until the acceptance can turn out to break the protocol.
    pub fn on_timeout<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        if self.sched.held_until.is_some_and(|at| at <= now) {
            self.release_held();
        }
        if core::mem::take(&mut self.room_made) {
            self.unblock(conn, sink);
        }
        self.early.on_timeout(now);
        while let Some((at, key)) = self.reassemblies.front().copied() {
            if at > now {
                break;
            }
            self.reassemblies.pop_front();
            self.expire_reassembly(now, key);
        }
        while let Some((at, key)) = self.requests.front().copied() {
            let waits = self.table.peek(key).is_some_and(|ch| ch.state == State::Requested);
            if waits && (at > now || !self.ready) {
                break;
            }
            self.requests.pop_front();
            if waits {
                self.give_up_request(conn, key, sink);
            }
        }
        self.deliver(now, conn, sink)
    }

    fn expire_reassembly(&mut self, now: Instant, key: ChannelKey) {
        let Self { table, pool, reassembly, .. } = self;
        let Some(channel) = table.get(key) else { return };
        channel.clear(flag::REASSEMBLY_TIMER);
        let Some(mut recv) = channel.datagram_recv.take() else { return };
        self.stats.datagrams_not_delivered += recv.expire(now, reassembly, pool);
        if let Some(at) = recv.deadline() {
            channel.set(flag::REASSEMBLY_TIMER);
            channel.datagram_recv = Some(recv);
            let place = self.reassemblies.partition_point(|(other, _)| *other <= at);
            self.reassemblies.insert(place, (at, key));
        } else {
            pool.give_datagram_recv(recv);
        }
    }

    /// The connection is over: every channel is told once and forgotten.
    pub fn close_all<S: Sink>(&mut self, conn: ConnHandle, reason: &CloseReason, sink: &mut S) {
        self.final_report = Some(self.report());
        let keys: Vec<ChannelKey> = self.table.iter().map(|(key, _)| key).collect();
        for key in keys {
            let known = self.table.peek(key).is_some_and(Channel::is_known);
            self.free(key.slot);
            if known && !self.discarding {
                sink.channel_closed(conn, key, &ChannelEnd::Connection(reason.clone()));
            }
        }
        self.requests = VecDeque::new();
        self.reassemblies = VecDeque::new();
        self.pending = VecDeque::new();
        self.blocked = Vec::new();
        self.all_blocked = false;
        self.room_made = false;
        self.early = Early::default();
        self.sched = Sched::default();
        self.control.clear(&mut self.pool);
        self.pool.release();
    }

    /// The connection is idle: memory kept for the next burst is given back.
    pub fn shrink(&mut self) {
        self.pool.release();
        if self.table.count() == 0 {
            // Nothing names a slot any more but stale entries of the queues.
            self.sched = Sched::default();
            self.table.release();
        }
        self.sched.shrink();
        self.control.shrink(&mut self.pool);
        self.requests.shrink_to_fit();
        self.reassemblies.shrink_to_fit();
        self.pending.shrink_to_fit();
        self.blocked.shrink_to_fit();
    }
}
