//! What one side of a connection sends for a flow: the same for client and server.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::feed::{Feed, Sources};
use super::flows::Load;
use super::pace::Schedule;
use std::time::Instant;
use trunkline::{ApiError, Channel, Conn, Context, Duration};
use trunkline_floor::payload::Source;

/// Between two probes.
const PROBE_EVERY: std::time::Duration = std::time::Duration::from_millis(1);
/// Messages sent at most in one go, so that acknowledgements are seen in between.
const BURST_MESSAGES: u32 = 8192;
/// The least that goes in one go, however much the connection drops.
const LEAST_BURST: u32 = 8;
/// Until the next try when the connection drops what it is given.
const STUCK: std::time::Duration = std::time::Duration::from_micros(200);
/// Messages that a feeder which lends has at least: one to copy, one under way.
pub const LENT_COPIES: usize = 2;
/// Shortest time after which a load with a rate goes on.
const SHORTEST: std::time::Duration = std::time::Duration::from_micros(50);
/// Slow flows begin in whole slices, so that those of many connections share the turns of a shard, as
/// they would in a program with a clock of its own.
const SLICE: std::time::Duration = std::time::Duration::from_millis(1);
/// Part of their distance by which flows with a rate begin one after the other: multiples of it, cut
/// off at 1, lie evenly, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Sends the messages of one flow on one connection.
pub struct Feeder {
    conn: Conn,
    flow: u32,
    channels: Vec<(Channel, Feed)>,
    /// The channel whose turn is next.
    turn: usize,
    length: usize,
    reliable: bool,
    /// Its messages are its own, and lent.
    lent: bool,
    pace: Pace,
    /// Its timer is set.
    due: bool,
    running: bool,
    /// When the message was sent that has to come back before the next.
    sent_at: Option<Instant>,
    /// The number of the next message to come back.
    returning: u64,
    /// Messages that are back.
    back: u64,
}

/// How fast it sends.
#[derive(Debug)]
struct Pace {
    load: Load,
    /// Of [`Load::Rate`].
    schedule: Option<Schedule>,
    /// Unreliable messages are never refused; the oldest are dropped instead. So the burst follows
    /// what was dropped.
    burst: u32,
    dropped: u64,
}

impl Pace {
    /// From `now` on; `number` tells flows with the same rate apart.
    fn new(load: Load, number: usize, now: Instant) -> Self {
        let schedule = match load {
            Load::Rate(messages) => {
                let phase = (number as f64 * GOLDEN).fract();
                Some(Schedule::per_second(now, messages).after(phase, SLICE))
            }
            _ => None,
        };
        Self { load, schedule, burst: 256, dropped: 0 }
    }
}

impl Feeder {
    /// Of flow `flow`, with messages of `length` bytes, on channels that are added.
    pub fn new(conn: Conn, flow: u32, length: usize, reliable: bool, lent: bool) -> Self {
        Self {
            conn,
            flow,
            channels: Vec::new(),
            turn: 0,
            length,
            reliable,
            lent,
            pace: Pace::new(Load::None, 0, Instant::now()),
            due: false,
            running: false,
            sent_at: None,
            returning: 0,
            back: 0,
        }
    }

    /// One more channel.
    pub fn add(&mut self, channel: Channel, feed: Feed) {
        self.channels.push((channel, feed));
    }

    /// Bytes of the messages that it copies; `None` when they are lent.
    pub const fn copies(&self) -> Option<usize> {
        if self.lent { None } else { Some(self.length) }
    }

    /// Memory of the messages that it lends, while one is under way.
    pub const fn own_bytes(&self) -> usize {
        if self.lent { LENT_COPIES * self.length } else { 0 }
    }

    /// What copied messages are taken from; what is lent needs none, and gets the smallest.
    fn source<'a>(&self, sources: &'a mut Sources) -> &'a mut Source {
        sources.of(self.copies().unwrap_or(0))
    }

    /// Number of its flow.
    pub const fn flow(&self) -> u32 {
        self.flow
    }

    /// From `now` on this much is sent; [`Self::go`] begins. `number` tells those with the same rate
    /// apart, so that not all send at once.
    pub fn set_load(&mut self, load: Load, number: usize, now: Instant) {
        self.pace = Pace::new(load, number, now);
        self.running = true;
    }

    /// Sends what is due, and sets the timer `token` for what comes next unless something else will
    /// tell: a channel that has room again, a message that is back.
    pub fn go(
        &mut self,
        cx: &mut Context<'_>,
        sources: &mut Sources,
        token: u64,
    ) -> Result<(), ApiError> {
        if !self.running || self.channels.is_empty() {
            return Ok(());
        }
        let next = match self.pace.load {
            Load::None => Ok(None),
            Load::OneByOne => self.one(cx, sources).map(|()| None),
            Load::Probe => self.one(cx, sources).map(|()| Some(PROBE_EVERY.into())),
            Load::Full if !self.reliable => self.unreliable(cx, sources).map(Some),
            Load::Full | Load::Rate(_) => self.burst(cx, sources).map(Some),
        };
        let next = match next {
            Ok(next) => next,
            // The channel tells when it has room, except to probes, which may come too late.
            Err(ApiError::WouldBlock(_)) if self.pace.load == Load::Probe => {
                Some(PROBE_EVERY.into())
            }
            Err(ApiError::WouldBlock(_) | ApiError::InvalidHandle) => None,
            Err(e) => return Err(e),
        };
        if let Some(next) = next
            && !self.due
        {
            self.due = true;
            cx.set_timer(next, token);
        }
        Ok(())
    }

    /// The timer has fired.
    pub const fn on_timer(&mut self) {
        self.due = false;
    }

    /// One send call for each message, until the channel is full, the rate is reached, or it is time
    /// to look around. Gives when to go on.
    fn burst(&mut self, cx: &mut Context<'_>, sources: &mut Sources) -> Result<Duration, ApiError> {
        let now = Instant::now();
        let source = self.source(sources);
        for _ in 0..BURST_MESSAGES {
            if self.pace.schedule.is_some_and(|schedule| !schedule.is_due(now)) {
                break;
            }
            self.next(cx, source)?;
            if let Some(schedule) = &mut self.pace.schedule {
                schedule.advance();
            }
        }
        Ok(match &self.pace.schedule {
            Some(schedule) => schedule.until_next(now).max(SHORTEST).into(),
            None => Duration::ZERO,
        })
    }

    /// As many unreliable messages as the connection seems to take.
    fn unreliable(
        &mut self,
        cx: &mut Context<'_>,
        sources: &mut Sources,
    ) -> Result<Duration, ApiError> {
        let dropped = cx.stats(self.conn).map_or(0, |stats| stats.datagrams_dropped);
        let pace = &mut self.pace;
        if dropped > pace.dropped {
            pace.dropped = dropped;
            pace.burst = (pace.burst / 2).max(LEAST_BURST);
        } else {
            pace.burst = (pace.burst + LEAST_BURST).min(BURST_MESSAGES);
        }
        // Where even the least is too much, nothing is taken at the moment.
        let stuck = pace.burst == LEAST_BURST;
        let source = self.source(sources);
        for _ in 0..self.pace.burst {
            self.next(cx, source)?;
        }
        Ok(if stuck { STUCK.into() } else { Duration::ZERO })
    }

    /// The next message, on the channel whose turn it is.
    #[inline]
    fn next(&mut self, cx: &mut Context<'_>, source: &mut Source) -> Result<(), ApiError> {
        let (channel, feed) = &mut self.channels[self.turn];
        match feed.send(cx, *channel, source) {
            // An unreliable one that is dropped was sent as well.
            Ok(()) | Err(ApiError::Dropped(_)) => {}
            Err(e) => return Err(e),
        }
        self.turn = if self.turn + 1 == self.channels.len() { 0 } else { self.turn + 1 };
        Ok(())
    }

    /// The next message, unless the one before is still under way.
    fn one(&mut self, cx: &mut Context<'_>, sources: &mut Sources) -> Result<(), ApiError> {
        if self.sent_at.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        let source = self.source(sources);
        self.next(cx, source)?;
        self.sent_at = Some(now);
        Ok(())
    }

    /// Message `number` is back. Gives when it was sent, or meant to be; `None` if another was
    /// expected.
    pub fn returned(&mut self, number: u64) -> Option<Instant> {
        // What is unreliable may come after a later one. Reliable ones may be missing too: a server
        // with too many answers to keep drops some.
        let late = number < self.returning && self.reliable;
        if late || number >= self.sent() {
            return None;
        }
        self.returning = self.returning.max(number + 1);
        self.back += 1;
        match self.pace.schedule {
            Some(_) => self.meant_at(number),
            None => self.sent_at.take(),
        }
    }

    /// Messages that did not come back, though later ones did.
    pub const fn missing(&self) -> u64 {
        self.returning.saturating_sub(self.back)
    }

    /// When message `number` was meant to be sent, in an open loop.
    pub fn meant_at(&self, number: u64) -> Option<Instant> {
        self.pace.schedule.map(|schedule| schedule.time_of(number))
    }

    /// Messages that were sent on its first channel.
    fn sent(&self) -> u64 {
        self.channels.first().map_or(0, |(_, feed)| feed.next())
    }
}
