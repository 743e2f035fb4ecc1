//! Loss recovery and congestion control of the Data space (RFC 9002), sans-IO.
//!
//! | module | what |
//! | --- | --- |
//! | [`received`] | what we must acknowledge, and when |
//! | `sent` | sent packets and their contents until they are settled |
//! | [`rtt`] | round-trip estimate |
//! | `loss` | loss thresholds, probe timeouts, congestion events and their undoing |
//! | [`congestion`] | window and rate: CUBIC with HyStart++, fixed |
//! | `pacer` | spreads the window over a round trip |
//! | `mtu` | packet size search (RFC 8899) |
//! | [`ecn`] | marks and their validation |
//! | `skip` | packet numbers left out against optimistic acknowledgement |
//!
//! [`Recovery`] composes them. It owns no data: contents of packets are
//! [`FrameRecord`]s, and whoever owns what a record names is told its [`Fate`].
//!
//! To send: [`Recovery::send_budget`] (not for ACK-only packets and probes), then for each packet
//! [`Recovery::begin_packet`], any number of [`Recovery::record`], and
//! [`Recovery::finish_packet`] or [`Recovery::abandon_packet`]. When
//! [`Recovery::probes_owed`] is above zero, that many ack-eliciting packets are sent regardless of
//! the budget. Called by `connection`.

pub mod congestion;
pub mod ecn;
mod loss;
mod mtu;
mod pacer;
pub mod received;
pub mod rtt;
mod sent;
mod skip;
mod stats;
#[cfg(test)]
mod tests;
mod types;
mod view;

pub use congestion::Controller;
pub use ecn::{Ecn, EcnState};
pub use loss::MAX_PTO;
pub use received::ReceivedPackets;
pub use rtt::Rtt;
use stats::Counters;
pub use stats::RecoveryStats;
pub use types::{AckSummary, Asks, Budget, Fate, PacketFlags, TimeoutOutcome};

use crate::config::ConnectionConfig;
use crate::error::PeerMisbehaved;
use crate::limits::{MAX_PACKET, MAX_TRACKED_PACKETS};
use crate::place::Place;
use crate::time::{Duration, Instant};
use crate::wire::ack::AckFrame;
use crate::wire::record::FrameRecord;
use congestion::{AckEvent, Control, Signal};
use ecn::EcnValidation;
use loss::{Acked, LossState, Lost, PathView};
use mtu::MtuSearch;
use pacer::{Burst, Pacer};
use received::{LATER_ACK_DELAY, LATER_ACK_PACKETS};
use sent::{Marks, SentPackets};
use skip::SkippedNumbers;

/// ACK-only packets in a row after which one should ask for an acknowledgement itself
/// (RFC 9000 §13.2.4), so that what they told can be forgotten.
const PING_AFTER: u32 = 32;
/// A window of fewer packets is turned over faster when each of them is acknowledged at once.
const FEW_PACKETS: u64 = 8;
/// ACK-only packets remembered while nothing is in flight before them.
const MAX_UNASKED: usize = 128;

/// Loss recovery of one connection's Data space.
#[derive(Debug)]
pub struct Recovery {
    sent: SentPackets,
    next_pn: u64,
    /// Bytes in flight on this path; packets, of former paths too, that the probe timer waits for.
    in_flight: u64,
    awaited: u32,
    largest_acked: Option<u64>,
    /// First packet of the present path.
    path_first: u64,
    /// A round ends when this number is acknowledged.
    round_end: u64,
    /// Most bytes in flight in this round, and in the one before.
    peak: u64,
    last_peak: u64,
    /// ACK-only packets sent since the last other one.
    unasked: u32,
    loss: LossState,
    rtt: Rtt,
    max_ack_delay: Duration,
    lan_rtt: Duration,
    burst_packets: u32,
    controller: Controller,
    pacer: Pacer,
    mtu: MtuSearch,
    ecn: EcnValidation,
    skip: SkippedNumbers,
    congestion: crate::config::Congestion,
    counters: Counters,
}

impl Recovery {
    /// Where the oldest packet that waits for an acknowledgement lies, and its oldest record.
    pub(crate) fn places(&self) -> (Place, Place) {
        self.sent.places()
    }

    /// Recovery of a connection that has sent nothing in the Data space. `initial_packet` is the
    /// UDP payload to start with, `seed` must be unpredictable for the peer.
    pub fn new(now: Instant, cfg: &ConnectionConfig, initial_packet: usize, seed: u64) -> Self {
        let mtu = MtuSearch::new(initial_packet, cfg.max_packet);
        let packet = mtu.size() as u64;
        Self {
            sent: SentPackets::default(),
            next_pn: 0,
            in_flight: 0,
            awaited: 0,
            largest_acked: None,
            path_first: 0,
            round_end: 0,
            peak: 0,
            last_peak: 0,
            unasked: 0,
            loss: LossState::new(now, 0),
            rtt: Rtt::new(),
            max_ack_delay: cfg.max_ack_delay,
            lan_rtt: cfg.lan_rtt,
            burst_packets: cfg.pacing_burst,
            controller: Controller::new(cfg.congestion, packet),
            pacer: Pacer::new(now, congestion::initial_window(packet)),
            mtu,
            ecn: EcnValidation::new(cfg.ecn),
            skip: SkippedNumbers::new(seed),
            congestion: cfg.congestion,
            counters: Counters::default(),
        }
    }

    /// What the peer's transport parameters say: the longest it holds acknowledgements back, and
    /// the largest packet it takes. The packet-size search begins.
    pub fn set_peer(&mut self, max_ack_delay: Duration, max_packet: usize) {
        self.max_ack_delay = max_ack_delay;
        self.mtu.start(max_packet);
        self.controller.on_packet_size(self.mtu.size() as u64);
    }

    /// The round trip that the handshake measured.
    pub fn first_rtt_sample(&mut self, _now: Instant, sample: Duration) {
        if !self.rtt.has_sample() {
            self.rtt.update(sample, Duration::ZERO);
        }
    }

    // ---- sending ----------------------------------------------------------------------------

    /// The number that the next packet will have.
    pub const fn next_pn(&self) -> u64 {
        if self.skip.is_next(self.next_pn) { self.next_pn + 1 } else { self.next_pn }
    }

    /// Starts a packet and gives its number.
    pub fn begin_packet(&mut self) -> u64 {
        if self.sent.end() != self.next_pn {
            // The one before was neither finished nor abandoned: its number stays unused.
            self.sent.abandon();
            self.sent.push_skipped();
        }
        if self.skip.is_next(self.next_pn) {
            self.skip.advance();
            self.sent.push_skipped();
            self.next_pn += 1;
        }
        let pn = self.next_pn;
        self.next_pn += 1;
        pn
    }

    /// Adds to what the packet being built contains.
    #[inline]
    pub fn record(&mut self, record: FrameRecord) {
        self.sent.record(record);
    }

    /// The packet `pn` that [`Self::begin_packet`] started is sealed: `size` bytes of UDP payload.
    #[inline]
    pub fn finish_packet(&mut self, now: Instant, pn: u64, size: usize, flags: PacketFlags) {
        debug_assert_eq!(pn + 1, self.next_pn, "packets are finished in order");
        let ect = flags.ecn == Ecn::Ect0;
        if ect {
            self.ecn.on_sent();
        }
        let marks = Marks { asks: flags.asks, mtu_probe: flags.probe_mtu, ect };
        self.sent.push(now, size.min(MAX_PACKET) as u16, marks);
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += size as u64;
        if flags.asks == Asks::Nothing {
            self.unasked = self.unasked.saturating_add(1);
            self.sent.trim(MAX_UNASKED);
            return;
        }
        self.unasked = 0;
        if flags.asks == Asks::Soon {
            self.awaited += 1;
            self.loss.last_awaited = now;
            self.loss.probes_owed = self.loss.probes_owed.saturating_sub(1);
        }
        if flags.probe_mtu {
            // A probe may be larger than the whole window, and most vanish at the first hop: it
            // would only keep data back. There is at most one a round trip.
            self.mtu.on_probe_sent(pn, size);
            self.counters.mtu_probes += 1;
            return;
        }
        self.in_flight += size as u64;
        if flags.asks == Asks::Later && self.is_half_full() {
            self.loss.last_awaited = now;
        }
        self.peak = self.peak.max(self.in_flight);
        self.pacer.on_sent(size as u64);
    }

    /// Whether the peer should acknowledge every packet, given whether it was asked for that:
    /// losses keep the window so small that a packet which waits for the next one, or for the
    /// peer's delay, holds back a good part of it.
    pub fn wants_every_ack(&self, asked: bool) -> bool {
        let packets = self.controller.window() / self.packet_size() as u64;
        let few = if asked { 2 * FEW_PACKETS } else { FEW_PACKETS };
        packets < few && self.controller.ssthresh() < u64::MAX
    }

    /// So much is in flight that an acknowledgement is awaited whatever the packets hold.
    fn is_half_full(&self) -> bool {
        self.in_flight > self.controller.window() / 2
    }

    /// The next packet should ask for its acknowledgement soon even if it holds nothing that
    /// would: the window is small, and the peer might wait for more packets than it lets through.
    pub fn wants_answer(&self) -> bool {
        let (window, packet) = (self.controller.window(), self.packet_size() as u64);
        let few = u64::from(LATER_ACK_PACKETS) * packet;
        window < few / 2 || window < 4 * few && self.in_flight + packet > window / 2
    }

    /// Nothing was written into packet `pn` after all. Only for the packet begun last and before
    /// anything was sealed under its number.
    pub fn abandon_packet(&mut self, pn: u64) {
        debug_assert_eq!(pn + 1, self.next_pn, "only the packet begun last can be abandoned");
        self.sent.abandon();
        self.next_pn = pn;
    }

    /// What may be sent now. Not asked for ACK-only packets and probes.
    pub fn send_budget(&mut self, now: Instant) -> Budget {
        self.ecn.on_train();
        if self.is_full() {
            return Budget::Window;
        }
        let packet = self.packet_size() as u64;
        let window = self.controller.window();
        let room = window.saturating_sub(self.in_flight);
        if room < packet {
            self.peak = self.peak.max(window);
            return Budget::Window;
        }
        let lan = self.rtt.has_sample() && self.rtt.smoothed() < self.lan_rtt;
        let bytes = match self.controller.pacing_rate(&self.rtt) {
            // A window per round trip of less than a millisecond: bursts are short as it is.
            Some(_) if lan && self.controller.acks_pace() => room,
            Some(rate) => {
                let longest =
                    if lan { Burst::Lan } else { Burst::Packets(self.burst_packets.into()) };
                match self.pacer.budget(now, rate, packet, longest) {
                    Ok(bytes) => bytes.min(room),
                    Err(at) => return Budget::Pacing(at),
                }
            }
            None => room,
        };
        Budget::Bytes(bytes - bytes % packet)
    }

    /// As many packets are remembered as may be. No packet may be begun, not even an ACK-only
    /// one: a peer that acknowledges nothing gets nothing acknowledged. Probes are exempt, their
    /// backoff bounds them.
    pub fn is_full(&self) -> bool {
        self.sent.len() >= MAX_TRACKED_PACKETS
    }

    /// Ack-eliciting packets to be sent now regardless of window and pacing (RFC 9002 §6.2.4).
    pub const fn probes_owed(&self) -> u32 {
        self.loss.probes_owed
    }

    /// So many ACK-only packets went out in a row that the next packet should carry a PING.
    pub const fn ping_wanted(&self) -> bool {
        self.unasked >= PING_AFTER
    }

    /// UDP payload of full packets now.
    pub fn packet_size(&self) -> usize {
        // From the second probe timeout in a row on, the size itself may be the trouble.
        if self.loss.pto_count >= 2 {
            self.mtu.size().min(self.mtu.base())
        } else {
            self.mtu.size()
        }
    }

    /// Size of a packet-size probe that should be sent now: an ack-eliciting packet padded to
    /// exactly that UDP payload, alone in its datagram, that carries nothing worth repeating.
    /// Probes are not counted as bytes in flight and none is due while the window is full.
    pub fn mtu_probe(&mut self, now: Instant) -> Option<usize> {
        if self.loss.pto_count > 0 || self.in_flight >= self.controller.window() || self.is_full() {
            return None;
        }
        self.mtu.next_probe(now)
    }

    /// The local system refuses to send a packet of `size` bytes in one piece: a probe, or an
    /// ordinary packet after the interface has changed.
    pub fn on_probe_too_large(&mut self, now: Instant, size: usize) {
        if let Some(size) = self.mtu.on_too_large(now, size) {
            self.controller.on_packet_size(size as u64);
        }
    }

    /// The mark for the next packets, to be handed back with each of them. It is the same for a
    /// whole train: it changes in [`Self::send_budget`], by an ACK frame or a timeout only.
    pub const fn ecn(&self) -> Ecn {
        self.ecn.mark()
    }

    // ---- acknowledgements ---------------------------------------------------------------------

    /// Handles an ACK frame. `fate` is told of every record of every packet that is newly
    /// acknowledged or lost, oldest first within each range of the frame.
    pub fn on_ack(
        &mut self,
        now: Instant,
        ack: &AckFrame<'_>,
        mut fate: impl FnMut(Fate, &FrameRecord),
    ) -> Result<AckSummary, PeerMisbehaved> {
        if ack.largest >= self.next_pn {
            return Err(PeerMisbehaved::OptimisticAck);
        }
        let mut acked = Acked::default();
        let path = self.path_view();
        let lowest = self.sent.base().min(self.skip.lowest());
        for range in ack.ranges() {
            let (lo, hi) = (*range.start(), *range.end());
            if hi < lowest {
                break;
            }
            if self.skip.any_in(lo, hi) {
                return Err(PeerMisbehaved::OptimisticAck);
            }
            self.sent.ack_range(lo, hi, &mut |pn, p| acked.add(path, pn, p), &mut fate);
        }
        let Some((newest, newest_sent)) = acked.newest else {
            return Ok(AckSummary { largest_acked: self.largest_acked, ..AckSummary::default() });
        };
        self.counters.packets_acked += acked.packets;
        self.in_flight = self.in_flight.saturating_sub(acked.in_flight);
        self.awaited = self.awaited.saturating_sub(acked.awaited);
        let raised = self.largest_acked.is_none_or(|largest| newest > largest);
        self.largest_acked = self.largest_acked.max(Some(newest));

        let mut sample = None;
        if newest == ack.largest && acked.any_eliciting && newest >= self.path_first {
            let later = if acked.newest_later { LATER_ACK_DELAY } else { Duration::ZERO };
            let delay = ack.delay.min(self.max_ack_delay.max(later));
            sample = Some(self.rtt.update(now.since(newest_sent), delay));
        }
        let after_probes = self.loss.pto_count >= 2;
        self.loss.pto_count = 0;
        self.loss.probes_owed = 0;

        let mut summary = AckSummary {
            newly_acked_packets: acked.packets,
            newly_acked_bytes: acked.bytes,
            largest_newly_acked: Some(newest),
            largest_acked: self.largest_acked,
            spurious: acked.spurious,
            mtu_changed: self.mtu_acked(now, &acked),
            ..AckSummary::default()
        };
        if raised && self.ecn.on_ack(acked.marked, ack.ecn) && ack.largest >= self.loss.event.until
        {
            self.counters.ecn_events += 1;
            self.congestion_event(Signal::Ecn, None);
        }
        let lost = self.detect_lost(now, after_probes, &mut summary.mtu_changed, &mut fate);
        summary.lost_packets = lost.packets;
        if acked.spurious > 0 {
            summary.undone = self.on_spurious(now, &acked);
        }
        self.grow(now, &acked, sample);
        self.sent.retire(now, self.keep_lost());
        Ok(summary)
    }

    fn path_view(&self) -> PathView {
        PathView { first: self.path_first, base: self.mtu.base() as u16, event: self.loss.event }
    }

    fn mtu_acked(&mut self, now: Instant, acked: &Acked) -> Option<usize> {
        if let Some((pn, size)) = acked.large {
            self.mtu.on_acked(now, pn, size, false);
        }
        let (pn, size) = acked.probe?;
        let changed = self.mtu.on_acked(now, pn, size, true)?;
        self.controller.on_packet_size(changed as u64);
        Some(changed)
    }

    /// Tells the controller of an ACK frame.
    fn grow(&mut self, now: Instant, acked: &Acked, sample: Option<Duration>) {
        let new_round = self.largest_acked.is_some_and(|largest| largest >= self.round_end);
        // An event that this very frame caused lies behind everything acknowledged by it.
        let growth = if self.loss.event.until > acked.newest.map_or(0, |(pn, _)| pn) {
            0
        } else {
            acked.growth
        };
        self.controller.on_ack(&AckEvent {
            now,
            acked: acked.in_flight,
            growth,
            in_flight: self.in_flight,
            sample,
            rtt: &self.rtt,
            new_round,
            peak: self.peak.max(self.last_peak),
        });
        if new_round {
            self.round_end = self.next_pn;
            self.last_peak = self.peak;
            self.peak = self.in_flight;
        }
    }

    /// Packets that were declared lost arrived late. Gives whether a congestion event was undone.
    #[cold]
    fn on_spurious(&mut self, now: Instant, acked: &Acked) -> bool {
        self.counters.spurious_losses += u64::from(acked.spurious);
        if let (Some((pn, sent)), Some(largest)) = (acked.late, self.largest_acked) {
            self.loss.on_spurious(largest.saturating_sub(pn), now.since(sent), self.rtt.smoothed());
        }
        self.loss.event.add_spurious(acked.event_spurious);
        let undo = self.loss.event.take_undo();
        if undo {
            self.controller.on_spurious();
            self.counters.undone_events += 1;
        }
        undo
    }

    /// How long after sending a lost packet is still remembered.
    fn keep_lost(&self) -> Duration {
        if self.sent.len() > MAX_TRACKED_PACKETS / 2 {
            return Duration::ZERO;
        }
        self.rtt.smoothed().max(self.rtt.latest()).mul(3) + rtt::GRANULARITY
    }

    // ---- loss and timers ------------------------------------------------------------------------

    fn detect_lost(
        &mut self,
        now: Instant,
        after_probes: bool,
        mtu_changed: &mut Option<usize>,
        fate: &mut impl FnMut(Fate, &FrameRecord),
    ) -> Lost {
        let mut lost = Lost::default();
        self.loss.time = None;
        let Some(largest) = self.largest_acked else { return lost };
        let path = self.path_view();
        let delay = self.rtt.loss_delay(self.loss.eighths);
        self.loss.time = self.sent.detect_lost(
            largest,
            self.loss.packets,
            now,
            delay,
            &mut |found| lost.add(path, found),
            fate,
        );
        if lost.packets > 0 || lost.probe.is_some() {
            self.on_lost(now, &lost, after_probes, mtu_changed);
        }
        lost
    }

    #[cold]
    fn on_lost(
        &mut self,
        now: Instant,
        lost: &Lost,
        after_probes: bool,
        mtu_changed: &mut Option<usize>,
    ) {
        self.counters.packets_lost += u64::from(lost.packets);
        self.counters.bytes_lost += lost.bytes;
        self.awaited = self.awaited.saturating_sub(lost.awaited);
        self.in_flight = self.in_flight.saturating_sub(lost.in_flight);
        for _ in 0..lost.marked {
            self.ecn.on_lost();
        }
        if let Some(pn) = lost.probe {
            self.mtu.on_probe_lost(now, pn);
        }
        if let Some(size) = lost.large.and_then(|pn| self.mtu.on_large_lost(pn, after_probes)) {
            self.counters.black_holes += 1;
            self.controller.on_packet_size(size as u64);
            *mtu_changed = Some(size);
        }
        self.loss.event.add_lost(lost.event);
        if lost.newest.is_some_and(|pn| pn >= self.loss.event.until) {
            self.counters.loss_events += 1;
            self.congestion_event(Signal::Loss, Some(lost.later));
        }
        let persistent = self.rtt.pto(self.max_ack_delay).mul(loss::PERSISTENT_THRESHOLD);
        if self.rtt.has_sample() && lost.span >= persistent {
            self.counters.persistent_congestions += 1;
            self.rtt.reset_min();
            self.controller.on_congestion(Signal::Persistent);
        }
    }

    fn congestion_event(&mut self, signal: Signal, lost: Option<u32>) {
        if self.loss.event.begin(self.next_pn, lost) {
            self.loss.relax();
        }
        self.controller.on_congestion(signal);
    }

    /// When [`Self::on_timeout`] must be called.
    pub fn timeout(&self) -> Option<Instant> {
        self.loss.time.or_else(|| self.pto_at())
    }

    fn pto_at(&self) -> Option<Instant> {
        let wait = || self.loss.backoff(self.rtt.pto(self.max_ack_delay));
        (self.awaited > 0 || self.is_half_full()).then(|| self.loss.last_awaited + wait())
    }

    /// Does what is due: declares packets lost, or starts a probe. On a probe timeout `fate` is
    /// told [`Fate::Probe`] for the oldest packets in flight, so that the probes carry copies.
    pub fn on_timeout(
        &mut self,
        now: Instant,
        mut fate: impl FnMut(Fate, &FrameRecord),
    ) -> TimeoutOutcome {
        let mut outcome = TimeoutOutcome::default();
        if let Some(at) = self.loss.time {
            if at <= now {
                let lost = self.detect_lost(now, false, &mut outcome.mtu_changed, &mut fate);
                outcome.lost_packets = lost.packets;
                self.sent.retire(now, self.keep_lost());
            }
        } else if self.pto_at().is_some_and(|at| at <= now) {
            self.loss.on_pto(now);
            self.counters.ptos += 1;
            self.loss.probes_owed = self.sent.probe(2, &mut fate).max(1);
            outcome.pto = true;
        }
        outcome
    }

    // ---- the path -------------------------------------------------------------------------------

    /// The connection moved to another path: window, round trip, packet size and ECN start afresh
    /// (RFC 9000 §9.4). Packets sent before stay in flight for their contents only.
    pub fn on_path_change(&mut self, now: Instant) {
        self.mtu.on_path_change();
        let packet = self.mtu.size() as u64;
        self.path_first = self.next_pn;
        self.round_end = self.next_pn;
        self.in_flight = 0;
        self.peak = 0;
        self.last_peak = 0;
        let last_awaited = self.loss.last_awaited;
        self.loss = LossState::new(now, self.next_pn);
        self.loss.last_awaited = last_awaited;
        self.rtt = Rtt::new();
        self.controller = Controller::new(self.congestion, packet);
        self.pacer = Pacer::new(now, congestion::initial_window(packet));
        self.ecn.on_path_change();
    }

    /// The connection falls idle: gives back all memory that is not needed now.
    pub fn shrink(&mut self) {
        self.sent.shrink();
    }
}
