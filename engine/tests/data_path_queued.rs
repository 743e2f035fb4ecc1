//! What the data path of the queued API does not do, counted over real sockets on all threads of
//! the process: no allocation for a packet or a message, few system calls, wakes and readings of
//! the clock for many messages, one copy from a [`trunkline::SendBuf`] into the packet, none of
//! received bytes that are long enough to be leased.
//!
//! Each count is taken twice: with engines that one thread polls in turn, where it is exact, and
//! with threads that send, receive and sleep as they like.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/counts.rs"]
mod counts;

use common::queued::Pair;
use common::*;
use counts::Counts;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trunkline::{
    ApiError, Channel, ChannelKind, DriverChoice, Event, QueuedEngine, Received, stats::ShardStats,
};

/// UDP payload of a packet as on most networks, and the largest one.
const PACKET: usize = 1_452;
const LARGE_PACKET: usize = 65_507;

/// Allocations that a whole transfer may cost.
const FEW: u64 = 16;
/// Transfers before the one that is measured.
const WARM_UPS: usize = 2;
/// Transfers that are measured before one must be steady: as long as more is under way than ever
/// before, lists and pools grow. What a message costs, it costs in each of them.
const TRIES: usize = 8;
/// Longest time of a transfer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages taken in one call: more than a turn brings, so that the receiver does not fall behind.
const TAKE: usize = 4_096;
/// Messages of one `send_many`.
const MANY: usize = 32;

/// How messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// One by one, copied by the call.
    Send,
    /// `MANY` at once.
    Many,
    /// In buffers of the engine.
    SendBuf,
    /// One by one, each with a receipt.
    Receipt,
}

/// A transfer.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: ChannelKind,
    how: How,
    len: usize,
    count: u64,
    packet: usize,
    threads: bool,
}

impl Plan {
    const fn new(kind: ChannelKind, how: How, len: usize, count: u64) -> Self {
        Self { kind, how, len, count, packet: PACKET, threads: false }
    }

    fn with_threads(self) -> Self {
        Self { threads: true, ..self }
    }

    fn bytes(&self) -> u64 {
        self.len as u64 * self.count
    }
}

/// What a transfer took.
#[derive(Debug)]
struct Used {
    all: Counts,
    client: Figures,
    host: Figures,
    received: Tally,
    /// Polls of both engines, where the test makes them.
    polls: u64,
}

impl Used {
    /// Messages or packets, whatever is more: of short messages many fit into a packet, of long ones
    /// only a part.
    fn units(&self, plan: &Plan) -> u64 {
        plan.count.max(self.client.packets)
    }
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    packets: u64,
    turns: u64,
    looks: u64,
    sleeps: u64,
    wakes: u64,
    system_calls: u64,
}

impl Figures {
    fn now(engine: &QueuedEngine) -> Self {
        let stats = engine.engine_stats();
        let ShardStats { counts, driver, .. } = &stats.shards[0];
        Self {
            packets: counts.datagrams_sent,
            turns: counts.turns,
            looks: counts.looks,
            sleeps: driver.sleeps,
            wakes: driver.wakes,
            system_calls: driver.syscalls,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            turns: self.turns - before.turns,
            looks: self.looks - before.looks,
            sleeps: self.sleeps - before.sleeps,
            wakes: self.wakes - before.wakes,
            system_calls: self.system_calls - before.system_calls,
        }
    }
}

/// What came out of a poll group.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Calls that were prepared to sleep.
    sleeps: u64,
    messages: u64,
    bytes: u64,
    /// Bytes that were still where the kernel had put them.
    leased: u64,
    writable: u64,
    receipts: u64,
}

impl Tally {
    fn add(&mut self, received: &Received) {
        let data = match received {
            Received::Message(m) => &m.data,
            Received::Event(Event::Data { data, .. }) => data,
            Received::Event(Event::Writable { .. }) => return self.writable += 1,
            Received::Event(Event::Receipt { .. }) => return self.receipts += 1,
            Received::Event(_) => return,
        };
        self.messages += 1;
        self.bytes += data.len() as u64;
        self.leased += if data.is_lease() { data.len() as u64 } else { 0 };
    }

    /// Takes what there is, waiting for it if it may.
    fn take(&mut self, from: &QueuedEngine, out: &mut Vec<Received>, wait: Duration) {
        self.sleeps += u64::from(!wait.is_zero());
        from.poll_group().recv_many(out, TAKE, Some(wait));
        out.drain(..).for_each(|received| self.add(&received));
    }
}

/// Sends one channel full.
struct Sender<'a> {
    engine: &'a QueuedEngine,
    channel: Channel,
    plan: Plan,
    data: &'a [u8],
    left: u64,
}

impl Sender<'_> {
    /// Sends until nothing is left or there is no room.
    fn fill(&mut self) {
        while self.left > 0 {
            match self.step() {
                Ok(sent) => self.left -= sent,
                Err(ApiError::WouldBlock(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn step(&mut self) -> Result<u64, ApiError> {
        let (engine, channel) = (self.engine, self.channel);
        match self.plan.how {
            How::Send => engine.send(channel, self.data).map(|()| 1),
            How::Receipt => engine.send_with_receipt(channel, self.data, self.left).map(|()| 1),
            How::Many => {
                let most = self.left.min(MANY as u64) as usize;
                match engine.send_many(&[(channel, self.data); MANY][..most]) {
                    (0, result) => result.map(|()| 0),
                    (taken, _) => Ok(taken as u64),
                }
            }
            How::SendBuf => {
                let blocked = ApiError::WouldBlock("all buffers are in use");
                let buf = engine.send_buf(self.data.len()).ok_or(blocked)?;
                // What is in it does not matter here, and writing it would be a copy that counts.
                engine.send_payload(channel, buf.freeze(self.data.len()), None).map(|()| 1)
            }
        }
    }
}

/// Carries a plan out.
struct Rig {
    pair: Pair,
    plan: Plan,
    data: Vec<u8>,
    out: [Vec<Received>; 2],
}

impl Rig {
    fn new(driver: DriverChoice, plan: Plan) -> Self {
        let mut config = config(driver);
        config.connection.max_packet = plan.packet;
        // So that a transfer is often held back, on all ways down to the packet.
        config.connection.max_message = 256 << 10;
        config.connection.channel_send_buffer = 1 << 20;
        let pair = Pair::new(&config, plan.threads, plan.kind);
        let out = [Vec::with_capacity(TAKE), Vec::with_capacity(TAKE)];
        Self { pair, plan, data: vec![7; plan.len], out }
    }

    /// Carries the plan out once.
    fn transfer(&mut self) -> Used {
        let before = [Figures::now(&self.pair.client), Figures::now(&self.pair.host)];
        let (all, received, polls) =
            if self.plan.threads { self.run_threads() } else { self.run_in_turns() };
        let used = Used {
            all,
            client: Figures::now(&self.pair.client).since(before[0]),
            host: Figures::now(&self.pair.host).since(before[1]),
            received,
            polls,
        };
        assert_eq!(used.received.bytes, self.plan.bytes(), "{used:?}");
        used
    }

    fn sender(&self) -> Sender<'_> {
        Sender {
            engine: &self.pair.client,
            channel: self.pair.channel,
            plan: self.plan,
            data: &self.data,
            left: self.plan.count,
        }
    }

    fn run_in_turns(&mut self) -> (Counts, Tally, u64) {
        let mut out = std::mem::take(&mut self.out);
        let (mut here, mut there, mut polls) = (Tally::default(), Tally::default(), 0);
        let before = Counts::now();
        let mut sender = self.sender();
        let mut idle = 0;
        while idle < 100 {
            let bytes = there.bytes;
            sender.fill();
            self.pair.poll();
            polls += 1;
            there.take(&self.pair.host, &mut out[1], Duration::ZERO);
            here.take(&self.pair.client, &mut out[0], Duration::ZERO);
            let done = there.bytes == self.plan.bytes() || self.plan.kind == ChannelKind::Datagrams;
            idle = if done && bytes == there.bytes { idle + 1 } else { 0 };
        }
        let used = Counts::now() - before;
        self.out = out;
        there.receipts += here.receipts;
        (used, there, polls)
    }

    /// One thread sends and sleeps until there is room, another receives and sleeps until there is
    /// something.
    fn run_threads(&mut self) -> (Counts, Tally, u64) {
        let [mut events, mut out] = std::mem::take(&mut self.out);
        let go = AtomicBool::new(false);
        let mut there = Tally::default();
        let start = Instant::now();
        let sent = |mut sender: Sender<'_>| {
            let mut here = Tally::default();
            while !go.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            sender.fill();
            while sender.left > 0 {
                assert!(start.elapsed() < PATIENCE, "{:?}: {} left", self.plan, sender.left);
                here.take(&self.pair.client, &mut events, Duration::from_millis(1));
                sender.fill();
            }
            (events, here)
        };
        let used = std::thread::scope(|scope| {
            let thread = scope.spawn(|| sent(self.sender()));
            let before = Counts::now();
            go.store(true, Ordering::Release);
            while there.bytes < self.plan.bytes() {
                there.take(&self.pair.host, &mut out, Duration::from_millis(100));
                assert!(start.elapsed() < PATIENCE, "{:?}: {there:?}", self.plan);
            }
            let used = Counts::now() - before;
            let (events, here) = thread.join().unwrap();
            there.receipts += here.receipts;
            there.sleeps += here.sleeps;
            (used, events)
        });
        self.out = [used.1, out];
        (used.0, there, 0)
    }

    /// The last of some transfers: the others warm everything up.
    fn measured(driver: DriverChoice, plan: Plan) -> Used {
        Self::steady(driver, plan, u64::MAX)
    }

    /// The same, once a transfer needs no more than so many allocations.
    fn steady(driver: DriverChoice, plan: Plan, allocations: u64) -> Used {
        let mut rig = Self::new(driver, plan);
        for _ in 0..WARM_UPS {
            rig.transfer();
        }
        let transfers = std::iter::repeat_with(|| rig.transfer()).take(TRIES);
        let mut transfers = transfers.inspect(|used| println!("{driver}, {plan:?}: {used:?}"));
        let mut used = transfers.next().unwrap();
        while used.all.allocations > allocations
            && let Some(next) = transfers.next()
        {
            used = if next.all.allocations < used.all.allocations { next } else { used };
        }
        used
    }
}

const PLANS: [Plan; 9] = {
    use ChannelKind::{Bytes, Messages};
    [
        Plan::new(Messages, How::Send, 64, 100_000),
        Plan::new(Messages, How::Many, 64, 100_000),
        Plan::new(Messages, How::Many, 400, 100_000),
        Plan::new(Messages, How::Send, 400, 100_000),
        Plan::new(Messages, How::Send, 4_000, 10_000),
        Plan::new(Messages, How::Send, 40_000, 2_000),
        Plan::new(Messages, How::SendBuf, 65_536, 1_000),
        Plan::new(Messages, How::Receipt, 64, 100_000),
        Plan::new(Bytes, How::SendBuf, 65_536, 1_000),
    ]
};

#[test]
fn a_message_costs_no_allocation() {
    let _alone = counts::alone();
    for driver in drivers() {
        for plan in PLANS {
            let used = Rig::steady(driver, plan, FEW);
            assert!(used.all.allocations <= FEW, "{driver} {plan:?}: {used:?}");
        }
    }
}

/// Where threads run as they like a receiver may fall behind by more batches than are kept for it:
/// those are allocated, which is still nothing for a packet or a message.
#[test]
fn threads_allocate_nothing_for_each_message() {
    let _alone = counts::alone();
    for driver in drivers() {
        for plan in PLANS.map(Plan::with_threads) {
            let used = Rig::steady(driver, plan, 4 * FEW);
            let most = 4 * FEW + used.units(&plan) / 64;
            assert!(used.all.allocations <= most, "{driver} {plan:?}: {used:?}");
        }
    }
}

#[test]
fn a_poll_reads_the_clock_once_and_the_application_never() {
    let _alone = counts::alone();
    for driver in drivers() {
        for plan in [PLANS[0], PLANS[1], PLANS[8]] {
            let used = Rig::measured(driver, plan);
            assert_eq!(used.all.clock, 2 * used.polls, "{driver} {plan:?}: {used:?}");
        }
    }
}

#[test]
fn many_messages_are_worth_one_wake_one_system_call_and_one_look_at_the_clock() {
    let _alone = counts::alone();
    for driver in drivers() {
        for plan in PLANS.map(Plan::with_threads) {
            let used = Rig::measured(driver, plan);
            let Used { client, host, received, .. } = used;
            let mut calls = client.system_calls + host.system_calls;
            let looks = client.looks + host.looks;
            if driver == DriverChoice::Mio {
                // Each look in place of a sleep is one: there are as many as the wait is long.
                calls -= looks;
            }
            assert!(calls <= used.units(&plan) / 8, "{driver} {plan:?}: {used:?}");
            let wakes = client.wakes + host.wakes;
            assert!(wakes <= used.units(&plan) / 16, "{driver} {plan:?}: {used:?}");
            // One reading a turn, one before a sleep, one for each look in place of it; four where
            // the application may sleep.
            let turns = client.turns + host.turns;
            let clock = 2 * turns + looks + 5 * received.sleeps + 100;
            assert!(used.all.clock <= clock, "{driver} {plan:?}: {used:?}");
        }
    }
}

#[test]
fn a_send_buf_is_copied_once_into_the_packet() {
    let _alone = counts::alone();
    for driver in drivers() {
        // On the other side short pieces are copied together once, and messages put together.
        for plan in [PLANS[6], PLANS[8]] {
            let used = Rig::measured(driver, plan);
            let copies = used.all.copied as f64 / plan.bytes() as f64;
            assert!((1.95..2.02).contains(&copies), "{driver}: {copies} copies, {used:?}");
        }
    }
}

#[test]
fn long_pieces_stay_where_the_kernel_has_put_them() {
    let _alone = counts::alone();
    for driver in drivers() {
        let plan = Plan { packet: LARGE_PACKET, ..PLANS[8] };
        let used = Rig::steady(driver, plan, FEW);
        let copies = used.all.copied as f64 / plan.bytes() as f64;
        let leased = used.received.leased as f64 / plan.bytes() as f64;
        assert!((0.95..1.05).contains(&copies), "{driver}: {copies} copies, {used:?}");
        assert!(leased > 0.95, "{driver}: {used:?}");
        assert!(used.all.allocations <= FEW, "{driver}: {used:?}");
    }
}

#[test]
fn a_send_buf_is_not_copied_when_it_is_taken() {
    let _alone = counts::alone();
    for driver in drivers() {
        let mut rig = Rig::new(driver, Plan { count: 16, ..PLANS[8] });
        rig.transfer();
        let (live, copied) = (counts::live(), Counts::now().copied);
        let mut sender = rig.sender();
        sender.fill();
        assert_eq!(sender.left, 0, "room for all");
        assert_eq!(Counts::now().copied, copied, "{driver}");
        rig.pair.client.poll(Some(Duration::ZERO)).unwrap();
        let grown = counts::live().saturating_sub(live);
        assert!(grown < 16 << 10, "{driver}: {grown} bytes");
    }
}
