//! One core's state: a driver, an endpoint, a handler, and the loop that joins them.
//!
//! A turn of the loop: wait for the driver, read the clock once, give every datagram to the
//! endpoint and what came of it to the handler, take datagrams from other shards, end the batch,
//! empty the mailbox, run timers, write packets into buffers of the driver, hand them over. Every
//! step takes a bounded share, so that a flood of one kind cannot starve the others.
//!
//! | file | what it has |
//! | --- | --- |
//! | `core` | the state that depends neither on the handler nor on the driver |
//! | `log` | events on their way from the endpoint to the handler |
//! | `dispatch` | the handler's calls, and what happens when one panics |
//! | `context` | what a handler can do |
//! | `mailbox`, `control`, `forward` | what comes from other threads |
//! | `sockets`, `limits`, `timers` | the shard's tables |
//! | `streams` | its TCP streams |
//! | `bind` | the sockets of a listener, for all shards |
//! | `relay` | packets by way of an event source |
//! | `stun` | answers to those who ask under which address they are seen |
//! | `ahead` | connections are fetched into the caches before their turn |
//! | `wait`, `spin` | how long it sleeps, and whether it looks again before |
//! | `watch` | the stats file |
//! | `drive` | the driver that works here |
//! | `local` | a shard that the application drives |
//! | `threads` | shards with threads of the engine |
//!
//! This is the only part of the engine that knows both the endpoint and the driver.

mod ahead;
pub(crate) mod bind;
pub(crate) mod context;
pub(crate) mod control;
mod core;
mod dispatch;
pub(crate) mod drive;
mod forward;
mod limits;
pub(crate) mod local;
mod log;
pub(crate) mod mailbox;
mod relay;
pub(crate) mod shared;
pub(crate) mod sockets;
mod spin;
pub(crate) mod streams;
pub(crate) mod stun;
pub(crate) mod threads;
mod timers;
mod wait;
#[cfg_attr(not(unix), path = "unwatched.rs")]
mod watch;

#[cfg(test)]
mod tests;

use crate::error::EngineError;
use crate::handler::{Context, Handler};
use crate::io::{Batch, Driver, RxItem, TxError, TxFailure, TxMeta};
use crate::stats::{Durations, ShardStats};
use context::Source;
use control::{AddListener, Control, ShardEnd};
use core::Core;
use crossbeam::channel::Sender;
use dispatch::HandlerSlot;
use forward::forward;
use limits::{Throttle, is_connection_request};
use mailbox::{Mailbox, Port};
use shared::Shared;
use spin::Spin;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use trunkline_proto::endpoint::{Ecn, Routed, RxMeta, Transmit};
use trunkline_proto::error::{CloseReason, Reason};
use trunkline_proto::limits::RELAY_SOCKET;
use trunkline_proto::rendezvous::stun::is_stun;
use trunkline_proto::time::{Duration, Instant};

/// Commands of the application in one turn.
const COMMANDS_A_TURN: usize = 1024;
/// Control messages in one turn.
const CONTROLS_A_TURN: usize = 16;
/// Datagrams taken over from other shards in one turn.
const FORWARDS_A_TURN: usize = 256;
/// Trains written in one turn.
const TRAINS_A_TURN: u64 = 48;
/// Bytes after which no more trains are written at once. What arrives meanwhile, and what the
/// application has to add, waits no longer than these take to seal and send; and buffers, messages and
/// what the kernel copies are still in the processor's second cache when they are touched again.
const BYTES_A_TURN: u64 = 64 << 10;

/// One shard: see the module. `H` is the application, `D` moves the datagrams.
pub struct Shard<H: Handler, D: Driver> {
    core: Core,
    handler: HandlerSlot<H>,
    driver: D,
    port: Arc<Port>,
    mailbox: Arc<Mailbox<H::Command>>,
    batch: Batch,
    tokens: Vec<u64>,
    /// Something is left to do: the next turn does not sleep.
    more: bool,
    /// No transmit buffer was free.
    stalled: bool,
    /// The application's event loop sleeps for us, on the driver's descriptor.
    embedded: bool,
    /// The handler was called from outside of a turn.
    owes_batch_end: bool,
    last_turn: Option<Instant>,
    last_work: Instant,
    spin: Spin,
    /// When the wait before this turn began.
    waits_since: Option<Instant>,
    forged_log: Throttle,
    report: Option<Sender<ShardEnd>>,
    finished: bool,
    watch: Option<Box<watch::Watch>>,
}

impl<H: Handler, D: Driver> Shard<H, D> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        shard: u8,
        driver: D,
        handler: H,
        mailbox: Arc<Mailbox<H::Command>>,
    ) -> Result<Self, EngineError> {
        let now = shared.time(driver.now());
        let port = shared.ports[usize::from(shard)].clone();
        let spin = Spin::new(shared.config.busy_poll.map(Into::into));
        port.set_waker(driver.waker());
        let watch = watch::open(&shared, shard, driver.name(), now);
        Ok(Self {
            core: Core::new(shared, shard, now)?,
            handler: HandlerSlot::new(handler),
            driver,
            port,
            mailbox,
            batch: Batch::default(),
            tokens: Vec::new(),
            more: true,
            stalled: false,
            embedded: false,
            owes_batch_end: false,
            last_turn: None,
            last_work: now,
            spin,
            waits_since: None,
            forged_log: Throttle::new(Duration::from_secs(1)),
            report: None,
            finished: false,
            watch,
        })
    }

    /// One turn, which waits at most `limit` for work (`None` = as long as it takes). Returns the
    /// number of things that happened: calls to the handler, and trains sent.
    pub(crate) fn turn(&mut self, limit: Option<std::time::Duration>) -> Result<u64, EngineError> {
        self.wait(limit)?;
        let now = self.time();
        if let Some(last) = self.last_turn.take() {
            self.core.loop_time.record(now.since(last));
        }
        if let Some(since) = self.waits_since.take() {
            self.spin.learn(now.since(since));
            self.watch_woke(now, since);
        }
        self.core.now = now;
        self.core.counters.turns.add(1);
        self.more = self.batch.more;
        let mut happened = self.handler.start(&mut self.core);
        happened += self.receive();
        happened += self.take_stream_events();
        happened += self.take_forwarded();
        happened += self.take_relayed();
        happened += self.hear_stun();
        happened += self.end_batch();
        self.attach_sockets();
        happened += self.empty_mailbox();
        happened += self.run_app_timers();
        self.owes_batch_end |= self.core.has_wanted_send_buf();
        // A second time for what the first brought: the shard does not sleep on it.
        let mut told = 0;
        for _ in 0..2 {
            happened += self.run_timers();
            if happened > told || std::mem::take(&mut self.owes_batch_end) {
                told = happened;
                self.handler.call(&mut self.core, Source::NONE, H::on_batch_end);
                self.attach_sockets();
            }
            happened += self.transmit();
            happened += self.transmit_streams();
            told = told.max(happened);
            if self.more || !self.is_timer_due() {
                break;
            }
        }
        self.more |= self.is_timer_due() || self.core.streams.has_work();
        self.retire_sockets();
        self.check_end();
        if happened > 0 {
            self.last_work = now;
        }
        self.last_turn = self.more.then_some(now);
        self.refresh_if_due();
        Ok(happened)
    }

    // ---- receiving

    fn receive(&mut self) -> u64 {
        let mut happened = 0;
        let mut items = std::mem::take(&mut self.batch.rx);
        for at in 0..items.len() {
            let core = &mut self.core;
            core.ahead.before_item(at, &items, &mut self.driver, &core.endpoint);
            happened += self.receive_item(&items[at]);
        }
        for item in items.drain(..) {
            self.driver.release(item);
        }
        self.batch.rx = items;
        let mut failures = std::mem::take(&mut self.batch.failures);
        for failure in failures.drain(..) {
            self.transmit_failed(&failure);
        }
        self.batch.failures = failures;
        happened
    }

    fn receive_item(&mut self, item: &RxItem) -> u64 {
        let Some(socket) = self.core.sockets.of_driver(item.socket) else { return 0 };
        let meta =
            RxMeta { socket, remote: item.remote, local: item.local, ecn: ecn_from(item.ecn) };
        let (bytes, retainer) = self.driver.received(item);
        let core = &mut self.core;
        let counters = &*core.counters;
        counters.datagrams_received.add(item.segments() as u64);
        counters.bytes_received.add(item.len as u64);
        let mut recorder = core.log.recorder(&mut core.blocks, bytes, socket);
        let mut sink = core.manager.watch(&mut recorder);
        for segment in bytes.chunks_mut(item.stride.max(1)) {
            if is_stun(segment) && core.sockets.answers_stun(socket) {
                core.stun.receive(core.now, &meta, segment, counters);
                continue;
            }
            if is_stun(segment) && core.sockets.is_client(socket) {
                core.stun.hear(&meta, segment);
                continue;
            }
            if is_connection_request(segment)
                && let Err(refused) = core.admission.check(core.now, item.remote)
            {
                refused.count(counters);
                continue;
            }
            let routed = core.endpoint.receive(core.now, &meta, segment, &mut sink);
            if let Routed::Shard(to) = routed {
                let known = usize::from(to) < core.shared.ports.len() && to != core.shard;
                match core.sockets.listener(socket).filter(|_| known) {
                    Some(listener) => {
                        forward(&core.shared, counters, to, &meta, listener, segment);
                    }
                    // A shard that does not exist: the peer knows us from another life.
                    None => core.endpoint.reset_unknown(core.now, &meta, segment),
                }
            }
        }
        self.handler.deliver(core, bytes, Source { retainer, owned: None })
    }

    fn take_forwarded(&mut self) -> u64 {
        let mut happened = 0;
        for _ in 0..FORWARDS_A_TURN {
            let Some(mut forwarded) = self.port.forwards.pop() else { return happened };
            let core = &mut self.core;
            core.counters.forwards_received.add(1);
            let Some(socket) = core.sockets.of_listener(forwarded.listener) else { continue };
            let meta = RxMeta { socket, ..forwarded.meta };
            let data = &mut forwarded.data[..];
            let routed = core.hear(data, socket, |endpoint, now, data, sink| {
                endpoint.receive(now, &meta, data, sink)
            });
            if routed != Routed::Here && self.forged_log.allow(core.now) {
                tracing::debug!(shard = core.shard, "a forwarded datagram belongs nowhere");
            }
            happened += self.handler.deliver(core, data, Source::NONE);
        }
        self.more = true;
        happened
    }

    fn end_batch(&mut self) -> u64 {
        let core = &mut self.core;
        let mut recorder = core.log.recorder(&mut core.blocks, &[], 0);
        core.endpoint.end_batch(core.now, &mut core.manager.watch(&mut recorder));
        core.manager.run(core.now, &mut core.endpoint, &mut recorder);
        self.handler.deliver(core, &[], Source::NONE)
    }

    // ---- timers and mailbox

    fn is_timer_due(&self) -> bool {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= self.core.now);
        due(self.core.endpoint.next_timeout()) || due(self.core.manager.next_timeout())
    }

    fn run_timers(&mut self) -> u64 {
        if !self.is_timer_due() {
            return 0;
        }
        let core = &mut self.core;
        let mut recorder = core.log.recorder(&mut core.blocks, &[], 0);
        core.endpoint.handle_timeout(core.now, &mut core.manager.watch(&mut recorder));
        core.manager.run(core.now, &mut core.endpoint, &mut recorder);
        self.handler.deliver(core, &[], Source::NONE)
    }

    fn run_app_timers(&mut self) -> u64 {
        let mut tokens = std::mem::take(&mut self.tokens);
        self.core.timers.expire(self.core.now, &mut tokens);
        let count = tokens.len() as u64;
        if count > 0 {
            self.core.counters.timers.add(count);
            let mut rest = tokens.drain(..);
            self.handler.call_each(&mut self.core, || rest.next(), H::on_timer);
        }
        self.tokens = tokens;
        count
    }

    fn empty_mailbox(&mut self) -> u64 {
        for _ in 0..CONTROLS_A_TURN {
            let Some(control) = self.port.controls.pop() else { break };
            self.obey(control);
        }
        self.take_commands(COMMANDS_A_TURN)
    }

    fn take_commands(&mut self, most: usize) -> u64 {
        let commands = self.mailbox.clone();
        let most = most.min(commands.commands.capacity());
        let mut taken = 0;
        let next = || {
            if taken == most {
                return None;
            }
            let command = commands.commands.pop();
            taken += usize::from(command.is_some());
            command
        };
        self.handler.call_each(&mut self.core, next, H::on_command);
        self.core.counters.commands.add(taken as u64);
        taken as u64
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Listen(add) => self.listen(*add),
            Control::Unlisten { id, close_connections, done } => {
                self.core.unlisten(id, close_connections);
                let _ = done.try_send(());
            }
            Control::Deny(nets) => self.core.admission.set_deny(&nets),
            Control::Faults(config) => self.driver.set_faults(&config),
            Control::Stats(reply) => {
                let _ = reply.try_send(Box::new(self.stats()));
            }
            Control::NetworkChanged => self.core.endpoint.network_changed(self.core.now),
            Control::Shutdown { linger, report } => self.shutdown(linger, report),
            Control::Stop => {
                self.begin_end(Duration::ZERO);
                if let Some(ending) = &mut self.core.ending {
                    ending.deadline = self.core.now;
                }
            }
        }
        self.more = true;
    }

    fn listen(&mut self, mut add: AddListener) {
        let reply = add.result.take();
        let result = if self.handler.failure().is_some() || self.core.ending.is_some() {
            Err(io::Error::other("the shard is ending"))
        } else {
            self.core.listen(add)
        };
        let failed = self.attach_sockets();
        let result = result.and_then(|()| failed.map_or(Ok(()), Err));
        if let Some(reply) = reply {
            let _ = reply.try_send(result);
        }
    }

    // ---- sockets

    /// Gives new sockets to the driver; returns the last error.
    fn attach_sockets(&mut self) -> Option<io::Error> {
        let failed_stream = self.attach_streams();
        if !self.core.sockets.has_pending() {
            return failed_stream;
        }
        let driver = &mut self.driver;
        let failed = self.core.sockets.attach(|socket: UdpSocket| driver.add_socket(socket));
        for (number, error) in &failed {
            tracing::error!(shard = self.core.shard, socket = *number, %error, "driver refused a socket");
            self.core.endpoint.unlisten(*number);
        }
        failed.into_iter().next_back().map(|(_, e)| e).or(failed_stream)
    }

    fn retire_sockets(&mut self) {
        for number in self.core.sockets.retire() {
            if let Err(error) = self.driver.remove_socket(number) {
                tracing::warn!(shard = self.core.shard, %error, "closing a socket");
            }
        }
    }

    // ---- sending

    fn transmit(&mut self) -> u64 {
        self.stalled = false;
        self.core.stun.transmit(&mut self.driver, &self.core.sockets, &self.core.counters);
        let max_segments = self.driver.capabilities().max_segments;
        let core = &mut self.core;
        let (mut trains, mut packets, mut bytes) = (0u64, 0, 0u64);
        loop {
            if trains == TRAINS_A_TURN || bytes >= BYTES_A_TURN {
                self.more = true;
                break;
            }
            let Some(mut buf) = self.driver.lend() else {
                self.stalled = true;
                core.counters.transmit_stalls.add(1);
                break;
            };
            ahead::before_transmit(&core.endpoint);
            let room = self.driver.bytes(&mut buf);
            let Some(train) = core.endpoint.poll_transmit(core.now, room, max_segments) else {
                self.driver.give_back(buf);
                break;
            };
            let Some(socket) = core.sockets.to_driver(train.socket) else {
                if train.socket == RELAY_SOCKET {
                    bytes += train.len as u64;
                    core.relay(train.remote, &self.driver.bytes(&mut buf)[..train.len]);
                }
                self.driver.give_back(buf);
                continue;
            };
            let meta = tx_meta(&train, socket);
            trains += 1;
            packets += meta.segments() as u64;
            bytes += train.len as u64;
            self.driver.send(buf, meta);
        }
        if trains > 0 {
            core.counters.trains_sent.add(trains);
            core.counters.datagrams_sent.add(packets);
            core.counters.bytes_sent.add(bytes);
        }
        trains
    }

    fn transmit_failed(&mut self, failure: &TxFailure) {
        self.core.counters.trains_failed.add(1);
        let Some(socket) = self.core.sockets.of_driver(failure.meta.socket) else { return };
        let train = train_of(&failure.meta, socket);
        let too_large = failure.error == TxError::TooLarge;
        if failure.error != TxError::NoBuffers {
            self.core.endpoint.transmit_failed(self.core.now, &train, too_large);
        }
    }

    // ---- the end

    /// Ends every connection and reports when that is done.
    pub(crate) fn shutdown(&mut self, linger: std::time::Duration, report: Sender<ShardEnd>) {
        self.core.now = self.time();
        self.begin_end(linger.into());
        self.report = Some(report);
        self.more = true;
    }

    fn begin_end(&mut self, linger: Duration) {
        if self.core.ending.is_none() {
            self.handler.start(&mut self.core);
            // What was posted before the end still counts: it may be data to deliver.
            self.take_commands(usize::MAX);
            self.owes_batch_end = true;
            let lingers = linger > Duration::ZERO;
            self.handler.call(&mut self.core, Source::NONE, |h, cx| h.on_shutdown(cx, lingers));
        }
        let reason = CloseReason::new(Reason::SHUTDOWN, "the engine is shutting down");
        self.core.begin_end(linger, &reason);
    }

    fn check_end(&mut self) {
        if self.finished || !self.core.end_reached() {
            return;
        }
        // The last packets leave before the sockets close.
        self.transmit();
        self.transmit_streams();
        let _ = self.driver.flush();
        let handler = &self.handler;
        let mut end = self.core.take_end(|conn, report| handler.report_as(conn, report));
        end.failure = handler.failure().map(str::to_owned);
        if let Some(report) = self.report.take() {
            let _ = report.try_send(end);
        }
        self.port.close();
        self.finished = true;
        self.watch_end(None);
    }

    /// Ends without telling anybody on the network: the driver or the engine itself has failed.
    pub(crate) fn give_up(&mut self, message: &str) {
        tracing::error!(shard = self.core.shard, message, "shard gives up");
        self.core.shared.note_failure(self.core.shard, message);
        self.port.close();
        self.finished = true;
        self.watch_end(Some(message));
        if let Some(report) = self.report.take() {
            let failure = Some(message.to_owned());
            let _ = report.try_send(ShardEnd {
                shard: self.core.shard,
                failure,
                ..ShardEnd::default()
            });
        }
    }

    /// Whether the shard has ended, and `turn` need not be called again.
    pub(crate) const fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn stats(&self) -> ShardStats {
        let mut rtt = Durations::new();
        let mut connections = 0;
        for conn in self.core.endpoint.connections() {
            connections += 1;
            if let Some(stats) = self.core.endpoint.stats(conn)
                && stats.rtt > Duration::ZERO
            {
                rtt.record(stats.rtt);
            }
        }
        ShardStats {
            shard: self.core.shard,
            counts: self.core.counters.read(),
            driver: *self.driver.stats(),
            endpoint: *self.core.endpoint.endpoint_stats(),
            connections,
            rtt_us: rtt.summary(),
            loop_us: self.core.loop_time.summary(),
            failure: self.handler.failure().map(str::to_owned),
        }
    }

    /// Calls `f` with a context and the handler, outside of everything else.
    pub(crate) fn with_context<R>(
        &mut self,
        f: impl FnOnce(&mut Context<'_>, &mut H) -> R,
    ) -> Option<R> {
        self.core.now = self.time();
        self.handler.start(&mut self.core);
        let result =
            self.handler.get().map(|h| f(&mut Context::new(&mut self.core, Source::NONE), h));
        self.attach_sockets();
        self.more = true;
        self.owes_batch_end = true;
        result
    }
}

impl<H: Handler, D: Driver> std::fmt::Debug for Shard<H, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("shard", &self.core.shard)
            .field("driver", &self.driver.name())
            .finish_non_exhaustive()
    }
}

const fn ecn_from(bits: u8) -> Ecn {
    match bits & 3 {
        1 => Ecn::Ect1,
        2 => Ecn::Ect0,
        3 => Ecn::Ce,
        _ => Ecn::NotEct,
    }
}

const fn tx_meta(train: &Transmit, socket: u16) -> TxMeta {
    TxMeta {
        socket,
        remote: train.remote,
        local: train.local,
        len: train.len,
        segment: train.segment,
        ecn: train.ecn as u8,
        probe: train.probe,
    }
}

const fn train_of(meta: &TxMeta, socket: u16) -> Transmit {
    Transmit {
        socket,
        remote: meta.remote,
        local: meta.local,
        ecn: ecn_from(meta.ecn),
        len: meta.len,
        segment: meta.segment,
        probe: meta.probe,
    }
}
