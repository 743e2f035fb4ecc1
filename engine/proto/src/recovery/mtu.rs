//! Packet size: datagram packetization-layer path MTU discovery (RFC 8899).
//!
//! Works in UDP payload bytes. One probe at a time, sent only while the connection sends anyway
//! (there is no timer of its own, so an idle connection stays idle). The largest size that could
//! work is tried first: on most networks the first probe settles the search. A lost probe says
//! something about the path only after [`MAX_PROBES`] tries and never about congestion.

use crate::limits::MIN_PACKET;
use crate::time::{Duration, Instant};

/// Losses of probes of a common size that prove it too large (RFC 8899 §5.1.2).
const MAX_PROBES: u8 = 3;
/// The same for sizes between the common ones, where little is at stake.
const MAX_BISECTION_PROBES: u8 = 2;
/// A finished search is repeated after this time (RFC 8899 §5.1.1, PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// The search ends when fewer than this many bytes could be gained, or less than a 64th.
const MIN_GAIN: u16 = 16;
/// Rounds of loss, without a large packet acknowledged between, that mean a black hole.
const BLACK_HOLE_ROUNDS: u8 = 3;

/// Payloads that networks commonly carry, largest first: loopback over IPv4 and IPv6, 9000-byte
/// frames over IPv4 and IPv6, Ethernet over IPv4 and IPv6, tunnels, the minimum of IPv6.
const CANDIDATES: [u16; 10] =
    [65_507, 65_488, 8_972, 8_952, 4_352, 1_472, 1_452, 1_400, 1_280, 1_232];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The size is held: by configuration, or until the peer's limit is known.
    Held,
    Searching,
    /// Settled until then.
    Done(Instant),
}

/// The search of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct MtuSearch {
    state: State,
    /// Size in use.
    size: u16,
    /// What every path must carry.
    base: u16,
    /// Largest size worth trying on this connection.
    max: u16,
    /// Sizes from here on are known not to work.
    too_large: u32,
    /// The probe in flight: number and size.
    probe: Option<(u64, u16)>,
    /// Lost probes of the present candidate.
    tries: u8,
    /// Loss rounds without a large packet getting through.
    suspicious: u8,
    /// Newest acknowledged packet that was larger than the base.
    newest_large: u64,
}

impl MtuSearch {
    /// Starts at `initial` and stays there until [`Self::start`].
    pub(super) fn new(initial: usize, max: usize) -> Self {
        let initial = to_u16(initial);
        let max = to_u16(max).max(initial);
        Self {
            state: State::Held,
            size: initial,
            base: if max > initial { MIN_PACKET as u16 } else { initial },
            max,
            too_large: u32::from(max) + 1,
            probe: None,
            tries: 0,
            suspicious: 0,
            newest_large: 0,
        }
    }

    /// The peer takes packets up to `peer_max`; the search may begin.
    pub(super) fn start(&mut self, peer_max: usize) {
        let peer_max = to_u16(peer_max.max(MIN_PACKET));
        self.max = self.max.min(peer_max);
        self.size = self.size.min(peer_max);
        self.base = self.base.min(self.size);
        self.search();
    }

    fn search(&mut self) {
        self.too_large = u32::from(self.max) + 1;
        self.tries = 0;
        self.probe = None;
        self.state = if self.max > self.size { State::Searching } else { State::Held };
    }

    pub(super) const fn size(&self) -> usize {
        self.size as usize
    }

    pub(super) const fn base(&self) -> usize {
        self.base as usize
    }

    /// Whether no search is under way.
    pub(super) const fn is_settled(&self) -> bool {
        !matches!(self.state, State::Searching)
    }

    /// Size of a probe that should be sent now.
    pub(super) fn next_probe(&mut self, now: Instant) -> Option<usize> {
        if self.probe.is_some() {
            return None;
        }
        match self.state {
            State::Held => return None,
            State::Done(until) if now < until => return None,
            State::Done(_) => self.search(),
            State::Searching => {}
        }
        let size = self.candidate();
        if size.is_none() && self.state == State::Searching {
            self.finish(now);
        }
        size.map(usize::from)
    }

    fn finish(&mut self, now: Instant) {
        self.state =
            if self.size < self.max { State::Done(now + RAISE_AFTER) } else { State::Held };
    }

    /// The next size to try: the largest allowed first, then what networks commonly carry from
    /// large to small, then halving.
    fn candidate(&self) -> Option<u16> {
        let low = self.size;
        if u32::from(self.max) < self.too_large {
            return (self.max > low).then_some(self.max);
        }
        let high = self.too_large as u16;
        if high - low <= MIN_GAIN.max(low / 64) {
            return None;
        }
        let common = CANDIDATES.into_iter().find(|&c| c > low && c < high);
        Some(common.unwrap_or(low + (high - low) / 2))
    }

    pub(super) fn on_probe_sent(&mut self, pn: u64, size: usize) {
        self.probe = Some((pn, to_u16(size)));
    }

    /// A packet larger than the base arrived, or a probe. Gives the new size when it changed.
    pub(super) fn on_acked(
        &mut self,
        now: Instant,
        pn: u64,
        size: u16,
        probe: bool,
    ) -> Option<usize> {
        if size > self.base {
            self.newest_large = self.newest_large.max(pn);
            self.suspicious = 0;
        }
        if !probe || self.probe.is_none_or(|(number, _)| number != pn) {
            return None;
        }
        self.probe = None;
        self.tries = 0;
        if size <= self.size {
            return None;
        }
        self.size = size;
        if self.state == State::Searching && self.candidate().is_none() {
            self.finish(now);
        }
        Some(self.size())
    }

    /// A probe was lost.
    pub(super) fn on_probe_lost(&mut self, now: Instant, pn: u64) {
        if let Some((number, size)) = self.probe
            && number == pn
        {
            self.probe = None;
            self.tries += 1;
            let common = size == self.max || CANDIDATES.contains(&size);
            if self.tries >= if common { MAX_PROBES } else { MAX_BISECTION_PROBES } {
                self.exclude(now, size);
            }
        }
    }

    /// The local system refuses to send `size` in one piece: a probe, or, when an interface has
    /// changed, an ordinary packet. Gives the new size when it changed.
    pub(super) fn on_too_large(&mut self, now: Instant, size: usize) -> Option<usize> {
        let size = to_u16(size);
        if self.probe.is_some_and(|(_, s)| s >= size) {
            self.probe = None;
        }
        let shrink = size <= self.size && size > self.base;
        if shrink {
            self.size = self.base;
            self.search();
        }
        if size > self.size {
            self.exclude(now, size);
        }
        shrink.then_some(self.size())
    }

    fn exclude(&mut self, now: Instant, size: u16) {
        self.tries = 0;
        self.too_large = self.too_large.min(u32::from(size));
        if self.state == State::Searching && self.candidate().is_none() {
            self.finish(now);
        }
    }

    /// A round of loss detection found ordinary packets larger than the base lost, the newest of
    /// them `newest_lost`. `after_probes`: small packets got through after at least two probe
    /// timeouts during which large ones did not. Gives the new size when this is a black hole.
    pub(super) fn on_large_lost(&mut self, newest_lost: u64, after_probes: bool) -> Option<usize> {
        if self.size <= self.base || newest_lost <= self.newest_large {
            return None;
        }
        self.suspicious += if after_probes { BLACK_HOLE_ROUNDS } else { 1 };
        if self.suspicious < BLACK_HOLE_ROUNDS {
            return None;
        }
        self.suspicious = 0;
        // An outage looks the same: what worked until now is tried first.
        let tried_first = u32::from(self.size) + 1;
        self.size = self.base;
        self.search();
        self.too_large = self.too_large.min(tried_first);
        Some(self.size())
    }

    /// A new path: from the base, with everything to be found out.
    pub(super) fn on_path_change(&mut self) {
        let started = self.state != State::Held || self.size > self.base;
        self.size = self.base;
        self.suspicious = 0;
        self.newest_large = 0;
        self.probe = None;
        if started {
            self.search();
        }
    }
}

fn to_u16(size: usize) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}
