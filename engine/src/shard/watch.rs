//! Keeps the shard's block of the stats file up to date: after a turn when it is time, and before a
//! sleep. The clock is not read for it, and nobody is woken.

use super::Shard;
use super::shared::Shared;
use crate::handler::Handler;
use crate::io::Driver;
use crate::stats::Durations;
use crate::stats::file::layout::{self, ROW_FIELDS, ROWS};
use crate::stats::file::write::{BlockWriter, INTERVAL, State};
use std::net::IpAddr;
use trunkline_proto::endpoint::{ConnStats, Endpoint};
use trunkline_proto::ids::ConnHandle;
use trunkline_proto::time::{Duration, Instant};

/// Connections looked at by one refresh; of more, the figures come together over several.
const A_REFRESH: usize = 1024;
/// A sleep that may take this long is taken for the end of what the shard had to do.
const LONG_SLEEP: Duration = Duration::from_millis(250);
/// Walks before such sleeps, from one refresh in time to the next.
const EXTRA: u8 = 2;

/// What the walk before saw of the connection in a slot.
#[derive(Clone, Copy, Default)]
struct Seen {
    generation: u32,
    bytes: u64,
}

/// Added up over connections.
#[derive(Clone, Copy, Default)]
struct Sums {
    connections: u64,
    channels: u64,
    unacked: u64,
    unsent: u64,
}

/// See the module.
pub(super) struct Watch {
    block: BlockWriter,
    due: Instant,
    extra: u8,
    /// Time spent waiting for work, in nanoseconds, up to the last wait that is over.
    waited: u64,
    /// The slot with which the walk goes on.
    at: usize,
    walk: Sums,
    rtt: Durations,
    seen: Vec<Seen>,
    /// The connections for the table, and what each has moved since the walk before.
    busiest: Vec<(u64, ConnHandle)>,
    /// The least that gets a connection in when the table is full, and where it is.
    least: (u64, usize),
}

impl Watch {
    fn new(block: BlockWriter, driver: &str, now: Instant) -> Box<Self> {
        block.begin(driver, now.as_nanos());
        Box::new(Self {
            block,
            due: now,
            extra: EXTRA,
            waited: 0,
            at: 0,
            walk: Sums::default(),
            rtt: Durations::new(),
            seen: Vec::new(),
            busiest: Vec::with_capacity(ROWS),
            least: (0, 0),
        })
    }

    /// The shard is awake again, after a wait of `waited`.
    #[inline]
    fn woke(&mut self, now: Instant, waited: Duration) {
        self.waited += waited.as_nanos();
        self.block.wake(now.as_nanos(), self.waited);
    }

    #[inline]
    fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    fn end(&self, failure: Option<&str>) {
        self.block.end(if failure.is_some() { State::Failed } else { State::Ended }, failure);
    }

    /// Looks at the connections in the next `most` slots; whether the walk is through.
    fn walk(&mut self, endpoint: &mut Endpoint, most: usize) -> bool {
        if self.at == 0 {
            self.walk = Sums::default();
            self.rtt.clear();
            self.busiest.clear();
        }
        let slots = endpoint.slots();
        if self.seen.len() < slots {
            self.seen.resize(slots.next_power_of_two(), Seen::default());
        }
        let end = slots.min(self.at.saturating_add(most));
        for slot in self.at..end {
            let Some(conn) = endpoint.in_slot(slot) else { continue };
            self.walk.connections += 1;
            endpoint.count_losses(slot);
            if let Some(stats) = endpoint.stats(conn) {
                self.look(slot, conn, &stats);
            }
        }
        self.at = if end == slots { 0 } else { end };
        self.at == 0
    }

    fn look(&mut self, slot: usize, conn: ConnHandle, stats: &ConnStats) {
        self.walk.channels += u64::from(stats.channels);
        self.walk.unacked += stats.unacked_bytes;
        self.walk.unsent += stats.unsent_bytes;
        if stats.rtt > Duration::ZERO {
            self.rtt.record(stats.rtt);
        }
        let before = self.seen[slot];
        let before = if before.generation == conn.generation { before } else { Seen::default() };
        let now =
            Seen { generation: conn.generation, bytes: stats.bytes_sent + stats.bytes_received };
        self.seen[slot] = now;
        self.rank(now.bytes.saturating_sub(before.bytes), conn);
    }

    /// Keeps those that moved the most.
    fn rank(&mut self, moved: u64, conn: ConnHandle) {
        if self.busiest.len() < ROWS {
            self.busiest.push((moved, conn));
        } else if moved > self.least.0 {
            self.busiest[self.least.1] = (moved, conn);
        } else {
            return;
        }
        if self.busiest.len() == ROWS {
            let least = self.busiest.iter().enumerate().map(|(at, (moved, _))| (*moved, at)).min();
            self.least = least.unwrap_or_default();
        }
    }

    /// Writes what a walk has found, after the fields that every refresh writes.
    fn put_walk(
        &mut self,
        now: Instant,
        endpoint: &Endpoint,
        loop_time: &Durations,
        send: (usize, usize),
    ) {
        let (walk, losses, block) = (self.walk, endpoint.losses(), &mut self.block);
        for value in [
            send.0 as u64,
            send.1 as u64,
            block.on_clock(now.as_nanos()),
            walk.connections,
            walk.channels,
            walk.unacked,
            walk.unsent,
            losses.packets_lost,
            losses.retransmits,
            losses.datagrams_dropped,
        ] {
            block.put(value);
        }
        layout::each_summary(&self.rtt.summary(), |v| block.put(v));
        layout::each_summary(&loop_time.summary(), |v| block.put(v));
        block.put(self.busiest.len() as u64);
        for (_, conn) in &self.busiest {
            let row = row(endpoint, *conn).unwrap_or([0; ROW_FIELDS]);
            for value in row {
                block.put(value);
            }
        }
    }
}

fn row(endpoint: &Endpoint, conn: ConnHandle) -> Option<[u64; ROW_FIELDS]> {
    let (info, stats) = (endpoint.info(conn)?, endpoint.stats(conn)?);
    let bits = match info.remote.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let peer = info.peer.map_or(0, |p| p.0.first_chunk().map_or(0, |b| u64::from_be_bytes(*b)));
    Some([
        u64::from(conn.slot) << 32 | u64::from(conn.generation),
        (bits >> 64) as u64,
        bits as u64,
        u64::from(info.remote.port()),
        peer,
        info.status as i64 as u64,
        info.link as u64,
        info.role as u64,
        stats.rtt.as_nanos(),
        stats.rtt_min.as_nanos(),
        stats.window,
        stats.in_flight,
        stats.bytes_sent,
        stats.bytes_received,
        stats.packets_sent,
        stats.packets_received,
        stats.packets_lost,
        stats.retransmits,
        stats.unacked_bytes,
        stats.unsent_bytes,
        u64::from(stats.channels),
        stats.packet_size,
    ])
}

/// The watch of a shard, where there is a stats file.
pub(super) fn open(shared: &Shared, shard: u8, driver: &str, now: Instant) -> Option<Box<Watch>> {
    let block = shared.stats_file.as_ref()?.shard(shard)?;
    Some(Watch::new(block, driver, now))
}

impl<H: Handler, D: Driver> Shard<H, D> {
    /// A wait that began at `since` is over.
    #[inline]
    pub(super) fn watch_woke(&mut self, now: Instant, since: Instant) {
        if let Some(watch) = &mut self.watch {
            watch.woke(now, now.since(since));
        }
    }

    /// The application drives the shard.
    pub(super) fn watch_driven(&self) {
        if let Some(watch) = &self.watch {
            watch.block.note_driven();
        }
    }

    /// The shard has ended; the last figures count.
    pub(super) fn watch_end(&mut self, failure: Option<&str>) {
        if let Some(watch) = &mut self.watch {
            watch.at = 0;
        }
        // A wait that has failed counts to its end.
        let now = self.waits_since.map_or(self.core.now, |_| self.time());
        self.refresh(now, usize::MAX);
        if let Some(watch) = &self.watch {
            watch.end(failure);
        }
    }

    /// The end of a turn.
    #[inline]
    pub(super) fn refresh_if_due(&mut self) {
        self.watch_looking(self.core.now);
    }

    /// In the middle of a wait without a sleep, which may be a long one.
    #[inline]
    pub(super) fn watch_looking(&mut self, now: Instant) {
        if let Some(watch) = &self.watch
            && watch.is_due(now)
        {
            self.refresh(now, A_REFRESH);
        }
    }

    /// Before a sleep, at `now` and for at most `sleep`.
    #[inline]
    pub(super) fn refresh_and_rest(&mut self, now: Instant, sleep: Option<Duration>) {
        let Some(watch) = &mut self.watch else { return };
        let in_time = watch.is_due(now);
        let extra = !in_time && watch.extra > 0 && sleep.is_none_or(|s| s >= LONG_SLEEP);
        watch.extra -= u8::from(extra);
        self.refresh(now, if in_time || extra { A_REFRESH } else { 0 });
        if let Some(watch) = &self.watch {
            watch.block.rest(now.as_nanos(), sleep.map(|s| (now + s).as_nanos()));
        }
    }

    /// The application's event loop is going to sleep, as far as the shard knows.
    pub(super) fn watch_embedded(&mut self) {
        if self.watch.is_some() && !self.more {
            let now = self.core.now;
            let sleep = self.deadline().map(|at| at.since(now));
            self.refresh_and_rest(now, sleep);
        }
    }

    /// Brings the block up to date, and looks at so many connections.
    fn refresh(&mut self, now: Instant, connections: usize) {
        let Some(mut watch) = self.watch.take() else { return };
        if watch.is_due(now) {
            watch.due = now + INTERVAL.into();
            watch.extra = EXTRA;
        }
        let core = &mut self.core;
        // Before the sequence is odd: readers do not wait for it.
        let walked = connections > 0 && watch.walk(&mut core.endpoint, connections);
        let send = if walked { (core.send_pool.count(), core.send_pool.free()) } else { (0, 0) };
        // With what the shard has waited so far this time, which may be long when it does not sleep.
        let waits = self.waits_since.map_or(Duration::ZERO, |since| now.since(since));
        let waited = watch.waited + waits.as_nanos();
        let block = &mut watch.block;
        block.beat(now.as_nanos());
        block.open();
        core.counters.each(|v| block.put(v));
        block.put(waited);
        layout::each_driver(self.driver.stats(), |v| block.put(v));
        layout::each_endpoint(core.endpoint.endpoint_stats(), |v| block.put(v));
        let buffers = self.driver.buffers();
        for value in [
            self.mailbox.commands.len(),
            self.mailbox.commands.capacity(),
            self.port.controls.len(),
            self.port.forwards.len(),
            self.handler.waiting_bytes() as usize,
            buffers.rx,
            buffers.rx_free,
            buffers.tx,
            buffers.tx_free,
        ] {
            block.put(value as u64);
        }
        if walked {
            watch.put_walk(now, &core.endpoint, &core.loop_time, send);
        }
        watch.block.close();
        if let Some(failure) = self.handler.failure() {
            watch.end(Some(failure));
        }
        self.watch = Some(watch);
    }
}
