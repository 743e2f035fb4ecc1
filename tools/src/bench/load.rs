//! What one connection of a measurement sends: the load, and the probes beside it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::client::Link;
use super::pace::Schedule;
use std::time::Instant;
use trunkline::{ApiError, Channel, Context, Duration};
use trunkline_floor::payload::Source;

/// Bytes of a probe.
pub const PROBE_LENGTH: usize = 64;
/// Between two probes.
const PROBE_EVERY: std::time::Duration = std::time::Duration::from_millis(1);
/// Messages sent at most in one go, so that acknowledgements are seen in between.
const BURST_MESSAGES: u32 = 8192;
/// Shortest time after which a load with a rate goes on.
const SHORTEST: std::time::Duration = std::time::Duration::from_micros(50);

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Nothing.
    None,
    /// What the channel takes.
    Full,
    /// So many messages a second on each connection.
    Rate(f64),
}

/// How fast a connection sends.
#[derive(Debug)]
pub struct Pace {
    load: Load,
    /// Of [`Load::Rate`].
    schedule: Option<Schedule>,
    /// Unreliable messages are never refused; the oldest are dropped instead. So the burst follows
    /// what was dropped.
    burst: u32,
    dropped: u64,
}

impl Pace {
    /// From now on.
    pub fn new(load: Load) -> Self {
        let schedule = match load {
            Load::Rate(messages) => Some(Schedule::per_second(Instant::now(), messages)),
            _ => None,
        };
        Self { load, schedule, burst: 256, dropped: 0 }
    }
}

/// One send call for each message, until the channel is full, the rate is reached, or it is time
/// to look around. Gives when to go on, unless a full channel tells that.
pub fn due(cx: &mut Context<'_>, link: &mut Link) -> Result<Option<Duration>, ApiError> {
    if link.load.is_empty() {
        return Ok(None);
    }
    link.blocked = false;
    let mut left = if link.pace.load == Load::None { 0 } else { BURST_MESSAGES };
    let now = Instant::now();
    while left > 0 && link.pace.schedule.is_none_or(|schedule| schedule.is_due(now)) {
        let (channel, feed) = &mut link.load[link.turn];
        match feed.send(cx, *channel, &mut link.source) {
            // An unreliable one that is dropped was sent as well.
            Ok(()) | Err(ApiError::Dropped(_)) => {}
            Err(e) => {
                link.blocked = true;
                return Err(e);
            }
        }
        link.pass_turn();
        if let Some(schedule) = &mut link.pace.schedule {
            schedule.advance();
        }
        left -= 1;
    }
    Ok(match (link.pace.load, &link.pace.schedule) {
        (Load::None, _) => None,
        (_, Some(schedule)) => Some(schedule.until_next(now).max(SHORTEST).into()),
        _ => Some(Duration::ZERO),
    })
}

/// Unreliable messages: those that are due, or without a rate as many as the connection seems to
/// take. Says when to go on.
pub fn unreliable(cx: &mut Context<'_>, link: &mut Link) -> Result<Option<Duration>, ApiError> {
    if link.load.is_empty() {
        return Ok(None);
    }
    if link.pace.schedule.is_some() {
        return due(cx, link);
    }
    let dropped = cx.stats(link.conn).map_or(0, |stats| stats.datagrams_dropped);
    if dropped > link.pace.dropped {
        link.pace.dropped = dropped;
        link.pace.burst = (link.pace.burst / 2).max(8);
    } else {
        link.pace.burst = (link.pace.burst + 8).min(BURST_MESSAGES);
    }
    for _ in 0..link.pace.burst {
        let (channel, feed) = &mut link.load[link.turn];
        match feed.send(cx, *channel, &mut link.source) {
            Ok(()) | Err(ApiError::Dropped(_)) => {}
            Err(e) => return Err(e),
        }
        link.pass_turn();
    }
    Ok(Some(Duration::ZERO))
}

/// The next message of the closed loop.
pub fn ping(cx: &mut Context<'_>, link: &mut Link) -> Result<(), ApiError> {
    let Some((channel, feed)) = link.load.first_mut() else { return Ok(()) };
    if link.sent_at.is_some() {
        return Ok(());
    }
    let now = Instant::now();
    feed.send(cx, *channel, &mut link.source)?;
    link.sent_at = Some(now);
    Ok(())
}

/// Messages of priority 0 that come back.
pub struct Probes {
    channel: Channel,
    source: Source,
    /// They go out at these times whatever has come back; without it one at a time.
    schedule: Option<Schedule>,
    /// When the one under way was sent, where there is one at a time.
    sent_at: Option<Instant>,
    /// Those that came back.
    returned: u64,
}

impl Probes {
    /// On `channel`, one after the other.
    pub fn new(channel: Channel, length: usize, seed: u64) -> Self {
        Self {
            channel,
            source: Source::new(length, seed),
            schedule: None,
            sent_at: None,
            returned: 0,
        }
    }

    /// So many a second, whatever comes back; without a number one each [`PROBE_EVERY`].
    pub fn paced(self, per_second: Option<f64>) -> Self {
        let start = Instant::now();
        let schedule = per_second.map_or_else(
            || Schedule::new(start, PROBE_EVERY),
            |per_second| Schedule::per_second(start, per_second),
        );
        Self { schedule: Some(schedule), ..self }
    }

    /// Sends what is due. Gives the time until the next.
    pub fn send(&mut self, cx: &mut Context<'_>, now: Instant) -> Duration {
        let Some(mut schedule) = self.schedule else {
            if self.sent_at.is_none() && self.send_one(cx) {
                self.sent_at = Some(now);
            }
            return PROBE_EVERY.into();
        };
        while schedule.is_due(now) && self.send_one(cx) {
            schedule.advance();
        }
        self.schedule = Some(schedule);
        schedule.until_next(now).max(SHORTEST).into()
    }

    fn send_one(&mut self, cx: &mut Context<'_>) -> bool {
        let sent = cx.send(self.channel, self.source.message()).is_ok();
        if sent {
            self.source.advance();
        }
        sent
    }

    /// A probe with this number is back. Gives when it was sent, or meant to be; `None` if another
    /// was expected.
    pub fn take(&mut self, sequence: Option<u64>) -> Option<Instant> {
        if sequence != Some(self.returned) {
            return None;
        }
        let number = self.returned;
        self.returned += 1;
        match &self.schedule {
            Some(schedule) => Some(schedule.time_of(number)),
            None => self.sent_at.take(),
        }
    }
}
