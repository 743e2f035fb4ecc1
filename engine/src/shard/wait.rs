//! Waiting for work: until when a shard may sleep, and looking again before it does.

use super::Shard;
use crate::error::EngineError;
use crate::handler::Handler;
use crate::io::Driver;
use std::time::Duration;
use trunkline_proto::time::{self, Instant};

/// While no transmit buffer is free, the driver is asked again at least this often; and the pool of
/// send buffers, to which other threads may give one back.
const STALL_WAIT: time::Duration = time::Duration::from_micros(500);

impl<H: Handler, D: Driver> Shard<H, D> {
    /// The next moment at which something is to be done without anything arriving.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ending = self.core.ending.as_ref().map(|e| e.deadline);
        let short = self.stalled || self.core.wants_send_buf;
        let stall = short.then(|| self.core.now + STALL_WAIT);
        let core = &self.core;
        let protocol = [core.endpoint.next_timeout(), core.manager.next_timeout()];
        let ours = [core.timers.next(), core.streams.next_timeout(), ending, stall];
        ours.into_iter().chain(protocol).flatten().min()
    }

    /// Whether there is something to do without anything arriving.
    fn has_work(&self, deadline: Option<Instant>) -> bool {
        self.more || self.has_mail() || deadline.is_some_and(|at| at <= self.core.now)
    }

    /// How long the shard may sleep, as of now.
    pub(super) fn sleep_time(&self) -> Option<Duration> {
        let deadline = self.deadline();
        if self.has_work(deadline) {
            return Some(Duration::ZERO);
        }
        Some(deadline?.since(self.time()).into())
    }

    pub(super) fn time(&self) -> Instant {
        self.core.shared.time(self.driver.now())
    }

    /// Whether another thread has left something.
    fn has_mail(&self) -> bool {
        !self.port.is_empty() || !self.mailbox.commands.is_empty()
    }

    /// Polls the driver, after a sleep of at most `limit` if there is nothing to do.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> Result<(), EngineError> {
        let deadline = self.deadline();
        if self.has_work(deadline) || limit.is_some_and(|limit| limit.is_zero()) {
            return self.poll(Some(Duration::ZERO));
        }
        // Only before a wait is the clock read a second time: the turn itself took a while.
        let now = self.time();
        let sleep = deadline.map(|at| at.since(now).into());
        let timeout = [limit, sleep].into_iter().flatten().min();
        let until = timeout.map(|t| now + t.into());
        self.waits_since = Some(now);
        let spin = self.spin.budget(now.since(self.last_work));
        let mut rests_from = now;
        if spin > time::Duration::ZERO && !self.stalled {
            match self.look_until(now + spin, until)? {
                Some(looked) => rests_from = looked,
                None => return Ok(()),
            }
        }
        let timeout = until.map(|at| at.since(rests_from));
        self.refresh_and_rest(rests_from, timeout);
        let timeout = timeout.map(Into::into);
        let timeout = if self.port.park(&self.mailbox) {
            self.core.counters.sleeps.add(1);
            timeout
        } else {
            Some(Duration::ZERO)
        };
        let polled = self.poll(timeout);
        self.port.unpark();
        polled
    }

    fn poll(&mut self, timeout: Option<Duration>) -> Result<(), EngineError> {
        self.driver
            .poll(timeout, &mut self.batch)
            .map_err(|e| EngineError::system(format!("the {} driver", self.driver.name()), e))
    }

    /// Looks again and again until `end`, or `due`; the time then, or `None` when there is something to
    /// do.
    fn look_until(
        &mut self,
        end: Instant,
        due: Option<Instant>,
    ) -> Result<Option<Instant>, EngineError> {
        loop {
            self.core.counters.looks.add(1);
            self.poll(Some(Duration::ZERO))?;
            if !self.batch.is_empty() || self.has_mail() {
                return Ok(None);
            }
            let now = self.time();
            if due.is_some_and(|due| now >= due) {
                return Ok(None);
            }
            if now >= end {
                return Ok(Some(now));
            }
            self.watch_looking(now);
            std::hint::spin_loop();
        }
    }
}
