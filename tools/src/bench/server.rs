//! The server of a measurement: reads, checks and counts what arrives, sends back what is to be
//! sent back, and answers marks.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control::{self, CONTROL, ECHO, Mark, Marked, PROBE, SINK};
use rustc_hash::FxHashMap;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use trunkline::{
    ApiError, Channel, ChannelKind, ChannelOptions, ChannelRequest, CloseReason, CloseReport, Conn,
    Context, Handler, Incoming, Reason, SendOptions, Status,
};
use trunkline_floor::cpu::ThreadClock;
use trunkline_floor::payload;

/// Answers of an echo channel that wait for room; more than a closed loop ever has.
const MAX_PENDING: usize = 1024;

/// Which clients there have been.
#[derive(Debug, Default)]
pub struct Served {
    /// Connections that are there.
    present: AtomicUsize,
    /// Marks that were asked for.
    marks: AtomicU64,
}

impl Served {
    /// Connections that are there.
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// Whether a client has measured something.
    pub fn any(&self) -> bool {
        self.marks.load(Ordering::Relaxed) > 0
    }
}

/// The handler.
pub struct BenchServer {
    served: Arc<Served>,
    conns: HashSet<Conn>,
    /// Connections that have stood.
    handshakes: u64,
    driver: Arc<OnceLock<String>>,
    clock: Option<ThreadClock>,
    started: Instant,
    channels: FxHashMap<Channel, Role>,
    sinks: Vec<Sink>,
    /// Places in `sinks` that are free again.
    free: Vec<usize>,
    /// Answers of a connection that wait for room.
    pending: HashMap<Conn, usize>,
    /// The counting channel of the last message and its place, mostly those of the next.
    recent: Option<(Channel, usize)>,
}

/// What is done with the messages of a channel; those that are counted have a place in `sinks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Control,
    Sink(usize),
    Echo(usize),
    Probe,
}

/// What one counting channel has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Sink {
    messages: u64,
    bytes: u64,
    corrupt: u64,
    /// Reliable: sequence number of the next message.
    next: u64,
}

impl Sink {
    /// Reads a message and counts it.
    #[inline]
    fn take(&mut self, kind: ChannelKind, message: &[u8]) {
        match payload::open(message) {
            Some(sequence)
                if kind == ChannelKind::Datagrams
                    || sequence == self.next
                    || self.messages == 0 && control::is_first(sequence) =>
            {
                self.next = sequence + 1;
                self.messages += 1;
                self.bytes += message.len() as u64;
            }
            Some(sequence) => {
                self.next = sequence + 1;
                self.corrupt += 1;
            }
            None => self.corrupt += 1,
        }
    }
}

impl BenchServer {
    /// A server; `driver` is filled in once the engine knows.
    pub fn new(driver: Arc<OnceLock<String>>, served: Arc<Served>) -> Self {
        Self {
            served,
            conns: HashSet::new(),
            handshakes: 0,
            driver,
            clock: None,
            started: Instant::now(),
            channels: FxHashMap::default(),
            sinks: Vec::new(),
            free: Vec::new(),
            pending: HashMap::new(),
            recent: None,
        }
    }

    fn new_sink(&mut self) -> usize {
        if let Some(free) = self.free.pop() {
            self.sinks[free] = Sink::default();
            return free;
        }
        self.sinks.push(Sink::default());
        self.sinks.len() - 1
    }

    fn marked(&mut self, conn: Conn, mark: Mark) -> Marked {
        self.served.marks.fetch_add(1, Ordering::Relaxed);
        let own = self.channels.iter().filter(|(channel, _)| channel.conn() == conn);
        let sinks: Vec<&Sink> = own
            .filter_map(|(_, role)| match role {
                Role::Sink(at) | Role::Echo(at) => self.sinks.get(*at),
                _ => None,
            })
            .collect();
        let sum = |of: fn(&Sink) -> u64| sinks.iter().map(|sink| of(sink)).sum();
        Marked {
            mark: mark.mark,
            link: mark.link,
            at_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            messages: sum(|s| s.messages),
            bytes: sum(|s| s.bytes),
            corrupt: sum(|s| s.corrupt),
            handshakes: self.handshakes,
            cpu_s: self.clock.as_ref().and_then(ThreadClock::seconds),
            driver: self.driver.get().cloned().unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    fn forget(&mut self, conn: Conn) {
        self.recent = None;
        self.pending.remove(&conn);
        let free = &mut self.free;
        self.channels.retain(|channel, role| {
            let stays = channel.conn() != conn;
            if let (false, Role::Sink(at) | Role::Echo(at)) = (stays, role) {
                free.push(*at);
            }
            stays
        });
    }

    fn send_back(&mut self, cx: &mut Context<'_>, channel: Channel, message: &[u8]) {
        let pending = self.pending.entry(channel.conn()).or_default();
        let over_limit = SendOptions { over_limit: *pending < MAX_PENDING, receipt: None };
        match cx.send_with(channel, message, over_limit) {
            Ok(()) => *pending = 0,
            Err(ApiError::WouldBlock(_)) => *pending += 1,
            Err(e) => tracing::debug!("cannot send back: {e}"),
        }
    }
}

impl Handler for BenchServer {
    type Command = ();

    fn on_start(&mut self, _cx: &mut Context<'_>) {
        self.clock = Some(ThreadClock::current());
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        tracing::debug!("connection from {}", incoming.remote);
        if cx.accept(conn).is_ok() {
            self.conns.insert(conn);
            self.served.present.store(self.conns.len(), Ordering::Relaxed);
        }
    }

    fn on_dead(&mut self, _cx: &mut Context<'_>, conn: Conn, _report: &CloseReport) {
        self.conns.remove(&conn);
        self.served.present.store(self.conns.len(), Ordering::Relaxed);
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _old: Status,
        new: Status,
        _reason: Option<&CloseReason>,
    ) {
        if new == Status::Connected {
            self.handshakes += 1;
        }
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            self.forget(conn);
            let _ = cx.close(conn, Reason::APP.0, "", None);
        }
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        request: &ChannelRequest<'_>,
    ) {
        let role = match request.name {
            CONTROL => Role::Control,
            SINK => Role::Sink(self.new_sink()),
            ECHO => Role::Echo(self.new_sink()),
            PROBE => Role::Probe,
            _ => {
                let _ = cx.decline_channel(channel, Reason::APP_REJECTED.0, "no such channel here");
                return;
            }
        };
        let sink = matches!(role, Role::Sink(_));
        let priority = if sink { 4 } else { 0 };
        let options = ChannelOptions { priority, no_delay: !sink, ..ChannelOptions::default() };
        if cx.accept_channel(channel, &options).is_ok() {
            self.channels.insert(channel, role);
        }
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        kind: ChannelKind,
        message: &[u8],
    ) {
        if let Some((recent, at)) = self.recent
            && recent == channel
        {
            return self.sinks[at].take(kind, message);
        }
        match self.channels.get(&channel) {
            Some(Role::Sink(at)) => {
                self.recent = Some((channel, *at));
                self.sinks[*at].take(kind, message);
            }
            Some(Role::Echo(at)) => {
                self.sinks[*at].take(kind, message);
                self.send_back(cx, channel, message);
            }
            Some(Role::Probe) => self.send_back(cx, channel, message),
            Some(Role::Control) => {
                if let Some(mark) = control::decode::<Mark>(message) {
                    let marked = self.marked(channel.conn(), mark);
                    self.send_back(cx, channel, &control::encode(&marked));
                }
            }
            None => {}
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, channel: Channel) {
        let _ = cx.finish(channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_what_is_right() {
        let mut source = payload::Source::new(64, 1);
        let mut next = || {
            let message = source.message().to_vec();
            source.advance();
            message
        };
        let (a, b, c, d) = (next(), next(), next(), next());
        let mut sink = Sink::default();
        sink.take(ChannelKind::Messages, &a);
        sink.take(ChannelKind::Messages, &b);
        assert_eq!((sink.messages, sink.bytes, sink.corrupt), (2, 128, 0));
        // One is missing: what follows is out of order once.
        sink.take(ChannelKind::Messages, &d);
        assert_eq!((sink.messages, sink.corrupt), (2, 1));
        let mut broken = c.clone();
        broken[20] ^= 1;
        sink.take(ChannelKind::Messages, &broken);
        assert_eq!((sink.messages, sink.corrupt), (2, 2));
        // Unreliable messages may be missing.
        let mut sink = Sink::default();
        for message in [&a, &d] {
            sink.take(ChannelKind::Datagrams, message);
        }
        assert_eq!((sink.messages, sink.corrupt), (2, 0));
    }
}
