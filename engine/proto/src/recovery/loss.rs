//! When packets count as lost, and what that means (RFC 9002 §6 and §7): thresholds, probe
//! timeouts, congestion events and their undoing. Pure bookkeeping; [`super::Recovery`] applies it.

use super::sent::SentPacket;
use crate::time::{Duration, Instant};

/// Packets behind the newest acknowledged one that make a packet lost (RFC 9002 §6.1.1).
pub(super) const PACKET_THRESHOLD: u64 = 3;
/// The threshold never adapts beyond this.
const MAX_PACKET_THRESHOLD: u64 = 64;
/// Round trips, in eighths, after which a packet is lost (RFC 9002 §6.1.2).
pub(super) const TIME_THRESHOLD: u64 = 9;
/// The threshold never adapts beyond two round trips.
const MAX_TIME_THRESHOLD: u64 = 16;
/// Probe timeouts between which everything must be lost for persistent congestion (§7.6.1).
pub(super) const PERSISTENT_THRESHOLD: u64 = 3;
/// Longest wait between probes, unless a single probe timeout is longer: after an outage the
/// connection is back within this time.
pub const MAX_PTO: Duration = Duration::from_secs(2);
/// Doublings of the probe timeout that are counted.
const MAX_BACKOFF: u32 = 32;

/// State of loss detection.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossState {
    /// When the oldest packet behind an acknowledged one will be lost.
    pub(super) time: Option<Instant>,
    /// Probe timeouts since the last acknowledgement.
    pub(super) pto_count: u32,
    /// Probe packets still to be sent.
    pub(super) probes_owed: u32,
    /// When the newest packet that the probe timer waits for was sent, or the newest probe timeout
    /// expired.
    pub(super) last_awaited: Instant,
    /// Present thresholds: packets, and eighths of a round trip.
    pub(super) packets: u64,
    pub(super) eighths: u64,
    /// The present congestion event.
    pub(super) event: Event,
}

/// A congestion event: the packets from `from` to below `until`, of one round trip.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Event {
    from: u64,
    /// First number sent after the event. The window grows by packets from here on only, and a
    /// loss from here on is another event (RFC 9002 §7.3.2).
    pub(super) until: u64,
    /// Packets of the event that were declared lost; `None`: not to be undone.
    lost: Option<u32>,
    /// Of these, acknowledged later.
    spurious: u32,
}

impl LossState {
    pub(super) fn new(now: Instant, next_pn: u64) -> Self {
        Self {
            time: None,
            pto_count: 0,
            probes_owed: 0,
            last_awaited: now,
            packets: PACKET_THRESHOLD,
            eighths: TIME_THRESHOLD,
            event: Event { from: next_pn, until: next_pn, lost: None, spurious: 0 },
        }
    }

    /// Wait from the newest packet that is awaited to the next probe timeout (RFC 9002 §6.2.1).
    pub(super) fn backoff(&self, pto: Duration) -> Duration {
        let factor = 1u64.checked_shl(self.pto_count.min(MAX_BACKOFF)).unwrap_or(u64::MAX);
        pto.mul(factor).min(MAX_PTO.max(pto))
    }

    /// A probe timeout expired. The next one counts from now, even if no probe can be sent.
    pub(super) fn on_pto(&mut self, now: Instant) {
        self.last_awaited = now;
        self.pto_count = (self.pto_count + 1).min(MAX_BACKOFF);
    }

    /// A packet that was declared lost arrived after all, `behind` numbers behind the newest
    /// acknowledged one and `after` it was sent: waits longer from now on (RFC 9002 §6.1.1).
    pub(super) fn on_spurious(&mut self, behind: u64, after: Duration, round_trip: Duration) {
        if behind >= self.packets {
            self.packets = (behind + 1).min(MAX_PACKET_THRESHOLD);
        }
        if after >= round_trip.mul(self.eighths).div(8) {
            self.eighths = (self.eighths + 1).min(MAX_TIME_THRESHOLD);
        }
    }

    /// A congestion event turned out real: patience shrinks towards the RFC's thresholds.
    pub(super) fn relax(&mut self) {
        self.packets = (self.packets / 2).max(PACKET_THRESHOLD);
        self.eighths = (self.eighths - 1).max(TIME_THRESHOLD);
    }
}

impl Event {
    /// Starts a new event that ends with what is sent from `next_pn` on. `lost`: packets lost by
    /// it so far; `None` for one that no late acknowledgement undoes. Gives whether the one
    /// before turned out real.
    pub(super) fn begin(&mut self, next_pn: u64, lost: Option<u32>) -> bool {
        let real = self.lost.is_some_and(|lost| lost > self.spurious);
        *self = Self { from: self.until, until: next_pn, lost, spurious: 0 };
        real
    }

    pub(super) fn add_spurious(&mut self, count: u32) {
        self.spurious = self.spurious.saturating_add(count);
    }

    fn holds(&self, pn: u64) -> bool {
        (self.from..self.until).contains(&pn)
    }

    pub(super) fn add_lost(&mut self, count: u32) {
        self.lost = self.lost.map(|lost| lost.saturating_add(count));
    }

    /// Everything that the event took for lost arrived: it never happened. Only once.
    pub(super) fn take_undo(&mut self) -> bool {
        let undo = self.lost.is_some_and(|lost| lost > 0 && self.spurious >= lost);
        if undo {
            self.lost = None;
            self.until = self.from;
        }
        undo
    }
}

/// What one ACK frame newly acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acked {
    /// Packets that the probe timer waited for.
    pub(super) awaited: u32,
    /// Packets, late ones included, and their bytes.
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Any of them asked for an acknowledgement.
    pub(super) any_eliciting: bool,
    /// Bytes that leave flight.
    pub(super) in_flight: u64,
    /// Of these, sent after the present congestion event.
    pub(super) growth: u64,
    /// Packets with ECT(0).
    pub(super) marked: u64,
    /// Newest packet: number and time.
    pub(super) newest: Option<(u64, Instant)>,
    /// Its acknowledgement was allowed to be late.
    pub(super) newest_later: bool,
    /// Newest packet above the base size: number and size.
    pub(super) large: Option<(u64, u16)>,
    /// Packet-size probe.
    pub(super) probe: Option<(u64, u16)>,
    /// Packets that had been declared lost, all and those of the present event.
    pub(super) spurious: u32,
    pub(super) event_spurious: u32,
    /// The oldest of them: number and time.
    pub(super) late: Option<(u64, Instant)>,
}

/// What the tallies need to know of the path.
#[derive(Clone, Copy)]
pub(super) struct PathView {
    /// First packet of the present path.
    pub(super) first: u64,
    /// Packet size above which a packet says something about the path.
    pub(super) base: u16,
    pub(super) event: Event,
}

impl Acked {
    #[inline]
    pub(super) fn add(&mut self, path: PathView, pn: u64, packet: &SentPacket) {
        let size = u64::from(packet.size);
        self.packets += 1;
        self.bytes += size;
        self.any_eliciting |= packet.eliciting();
        self.marked += u64::from(packet.ect() && pn >= path.first);
        if self.newest.is_none_or(|(newest, _)| pn > newest) {
            self.newest = Some((pn, packet.time()));
            self.newest_later = packet.asks_later();
        }
        if packet.was_lost() {
            self.add_late(path, pn, packet);
        } else if packet.eliciting() {
            self.awaited += u32::from(packet.asks_soon());
            if pn >= path.first && !packet.mtu_probe() {
                self.in_flight += size;
                if pn >= path.event.until {
                    self.growth += size;
                }
            }
        }
        if packet.size > path.base && pn >= path.first {
            if packet.mtu_probe() {
                self.probe = Some((pn, packet.size));
            } else if self.large.is_none_or(|(newest, _)| pn > newest) {
                self.large = Some((pn, packet.size));
            }
        }
    }

    #[cold]
    fn add_late(&mut self, path: PathView, pn: u64, packet: &SentPacket) {
        if packet.mtu_probe() || !packet.eliciting() || pn < path.first {
            return;
        }
        self.spurious += 1;
        self.event_spurious += u32::from(path.event.holds(pn));
        if self.late.is_none_or(|(oldest, _)| pn < oldest) {
            self.late = Some((pn, packet.time()));
        }
    }
}

/// What one run of loss detection found. Probes of the packet size are kept apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    /// Ack-eliciting packets, and their bytes.
    pub(super) packets: u32,
    pub(super) bytes: u64,
    /// Those that the probe timer waited for, probes and those of former paths included.
    pub(super) awaited: u32,
    /// Bytes that leave flight.
    pub(super) in_flight: u64,
    /// Newest packet of this path that counts against congestion.
    pub(super) newest: Option<u64>,
    /// Packets of the present event, and of a later one.
    pub(super) event: u32,
    pub(super) later: u32,
    /// The packet-size probe.
    pub(super) probe: Option<u64>,
    /// Newest packet above the base size.
    pub(super) large: Option<u64>,
    /// Packets with ECT(0) of this path.
    pub(super) marked: u32,
    /// Longest span of time in which everything was lost.
    pub(super) span: Duration,
    run_start: Option<Instant>,
}

impl Lost {
    /// `None`: an acknowledged run lies between.
    pub(super) fn add(&mut self, path: PathView, lost: Option<(u64, &SentPacket)>) {
        let Some((pn, packet)) = lost else {
            self.run_start = None;
            return;
        };
        if !packet.eliciting() {
            return;
        }
        self.awaited += u32::from(packet.asks_soon());
        let here = pn >= path.first;
        if here {
            self.marked += u32::from(packet.ect());
        }
        if packet.mtu_probe() {
            self.probe = Some(pn);
            return;
        }
        self.packets += 1;
        self.bytes += u64::from(packet.size);
        if !here {
            return;
        }
        self.in_flight += u64::from(packet.size);
        self.newest = Some(pn);
        self.event += u32::from(path.event.holds(pn));
        self.later += u32::from(pn >= path.event.until);
        if packet.size > path.base {
            self.large = Some(pn);
        }
        let start = *self.run_start.get_or_insert(packet.time());
        self.span = self.span.max(packet.time().since(start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_cap() {
        let mut loss = LossState::new(Instant::ZERO, 0);
        let pto = Duration::from_millis(100);
        for expected in [100, 200, 400, 800, 1600, 2000, 2000] {
            assert_eq!(loss.backoff(pto), Duration::from_millis(expected));
            loss.on_pto(Instant::ZERO);
        }
        assert_eq!(loss.backoff(Duration::from_secs(3)), Duration::from_secs(3));
        for _ in 0..100 {
            loss.on_pto(Instant::ZERO);
        }
        assert_eq!(loss.backoff(pto), MAX_PTO);
    }

    #[test]
    fn an_event_is_undone_once_when_all_of_it_was_spurious() {
        let mut event = Event { until: 10, ..Event::default() };
        assert!(!event.begin(50, Some(2)));
        assert!(event.holds(10) && event.holds(49) && !event.holds(9) && !event.holds(50));
        event.spurious += 1;
        assert!(!event.take_undo());
        event.add_lost(1);
        event.spurious += 1;
        assert!(!event.take_undo());
        event.spurious += 1;
        assert!(event.take_undo());
        assert!(!event.take_undo());
        assert_eq!(event.until, 10);
    }

    #[test]
    fn thresholds_follow_reordering_within_bounds() {
        let mut loss = LossState::new(Instant::ZERO, 0);
        let rtt = Duration::from_millis(8);
        loss.on_spurious(7, Duration::from_millis(8), rtt);
        assert_eq!((loss.packets, loss.eighths), (8, 9));
        loss.on_spurious(1, Duration::from_millis(9), rtt);
        assert_eq!((loss.packets, loss.eighths), (8, 10));
        for _ in 0..20 {
            loss.on_spurious(1 << 40, Duration::from_secs(9), rtt);
        }
        assert_eq!((loss.packets, loss.eighths), (MAX_PACKET_THRESHOLD, MAX_TIME_THRESHOLD));
    }
}
