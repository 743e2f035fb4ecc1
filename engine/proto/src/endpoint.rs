//! The table of connections of one shard: datagram to connection, connection to datagram.
//!
//! The order of calls: [`Endpoint::receive`] for every datagram of a batch, [`Endpoint::end_batch`]
//! once, [`Endpoint::handle_timeout`] when [`Endpoint::next_timeout`] has passed, application calls,
//! and then [`Endpoint::poll_transmit`] until it gives `None`. Events that arise in application
//! calls are told by the next call that takes a sink; `next_timeout` is then at once.
//!
//! `application.rs` has the calls by handle, `losses.rs` sums over connections, `routing.rs` finds the connection of a datagram,
//! `routes.rs` is about connections over a relay and their direct paths, `streams.rs` is the way of
//! bytes to and from connections over streams.

mod ahead;
mod application;
mod losses;
mod routes;
mod routing;
mod shared;
mod streams;
#[cfg(test)]
mod tests;
mod types;

pub use crate::connection::StreamNeeds;
pub use losses::Losses;
pub(crate) use shared::Shared;
pub use streams::{ClosedStream, MIN_STREAM_BUFFER};
pub use types::*;

use crate::config::ConnectionConfig;
use crate::connection::Connection;
use crate::deferred::Deferred;
use crate::error::ApiError;
use crate::event::{NullSink, Sink};
use crate::ids::{ConnHandle, ConnectionId, Role};
use crate::limits::RELAY_SOCKET;
use crate::time::Instant;
use crate::wheel::TimerWheel;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Slots that connection ids can name.
const MAX_SLOTS: u32 = 1 << 20;
/// Room for the farewell of a connection that is gone.
const FAREWELL: usize = 1500;

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Box<Connection>>,
    /// Its entry in the table of ConnectionRequests; 0 = none.
    request: u64,
    /// In the queue of connections that may have something to send.
    ready: bool,
    /// In the list of connections that this batch has touched.
    touched: bool,
}

#[derive(Debug)]
struct Listener {
    tls: crate::handshake::HostTls,
    connection: Arc<ConnectionConfig>,
}

#[derive(Debug, Default)]
struct Listeners {
    sockets: BTreeMap<u16, Listener>,
    /// For peers that are reached over relays, by the address that stands for them, before what
    /// listens at their socket.
    relayed: BTreeMap<SocketAddr, Listener>,
}

impl Listeners {
    /// What answers a ConnectionRequest that arrives there.
    fn at(&self, meta: &RxMeta) -> Option<&Listener> {
        let relayed = self.relayed.get(&meta.remote).filter(|_| meta.socket == RELAY_SOCKET);
        relayed.or_else(|| self.sockets.get(&meta.socket))
    }
}

/// All connections of one shard. See the module's documentation for the order of calls.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    connection: Arc<ConnectionConfig>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: u32,
    handshakes: u32,
    listeners: Listeners,
    /// Which connection answers which ConnectionRequest, by a keyed hash of who asked.
    requests: BTreeMap<u64, u32>,
    shared: Shared,
    streams: streams::Streams,
    rivals: routes::Rivals,
    wheel: TimerWheel,
    ready: VecDeque<u32>,
    touched: Vec<u32>,
    deferred: Deferred,
    scratch: Vec<u32>,
    tally: losses::Tally,
    /// The last connection id that was looked up, with its slot and sequence number.
    cached: Option<(ConnectionId, u32, u8)>,
}

impl Endpoint {
    /// An endpoint without connections.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`] names the field that is out of range.
    pub fn new(now: Instant, config: EndpointConfig) -> Result<Self, ApiError> {
        config.connection.validate()?;
        if !(1..=MAX_SLOTS).contains(&config.max_connections) {
            return Err(ApiError::InvalidArgument {
                field: "max_connections",
                why: "must lie in 1..=1048576",
            });
        }
        Ok(Self {
            connection: Arc::new(config.connection.clone()),
            shared: Shared::new(now, &config),
            config,
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            handshakes: 0,
            listeners: Listeners::default(),
            requests: BTreeMap::new(),
            streams: streams::Streams::default(),
            rivals: routes::Rivals::default(),
            wheel: TimerWheel::new(now),
            ready: VecDeque::new(),
            touched: Vec::new(),
            deferred: Deferred::default(),
            scratch: Vec::new(),
            tally: losses::Tally::default(),
            cached: None,
        })
    }

    // ---- the table

    fn conn(&self, handle: ConnHandle) -> Option<&Connection> {
        let slot = self.slots.get(handle.slot as usize)?;
        slot.conn.as_deref().filter(|_| slot.generation == handle.generation)
    }

    fn conn_mut(&mut self, handle: ConnHandle) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(handle.slot as usize)?;
        slot.conn.as_deref_mut().filter(|_| slot.generation == handle.generation)
    }

    /// A connection whose handle the application still owns.
    fn open(&self, handle: ConnHandle) -> Option<&Connection> {
        self.conn(handle).filter(|c| c.is_told() && c.status().is_open_to_application())
    }

    fn reserve(&mut self) -> Result<ConnHandle, ApiError> {
        if self.live >= self.config.max_connections {
            return Err(ApiError::LimitReached {
                what: "max_connections",
                limit: u64::from(self.config.max_connections),
            });
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1).max(1);
        Ok(ConnHandle { slot, generation: entry.generation })
    }

    fn insert(&mut self, handle: ConnHandle, conn: Connection) {
        self.live += 1;
        self.handshakes += u32::from(conn.is_counted_as_handshake());
        self.slots[handle.slot as usize].conn = Some(Box::new(conn));
        self.touch(handle.slot);
    }

    /// Removes a connection that is Dead, tells it, and sends its farewell.
    fn remove<S: Sink>(&mut self, now: Instant, slot: u32, sink: &mut S) {
        let entry = &mut self.slots[slot as usize];
        let Some(mut conn) = entry.conn.take() else { return };
        entry.touched = false;
        let request = core::mem::take(&mut entry.request);
        if request != 0 {
            self.requests.remove(&request);
        }
        if conn.has_stream() {
            self.streams.forget(now, &mut conn);
        }
        if !conn.is_stream() && conn.owes_farewell() {
            let mut bytes = vec![0; FAREWELL];
            if let Some(transmit) = conn.poll_transmit(now, &mut bytes, 1, &mut self.shared) {
                bytes.truncate(transmit.len);
                self.shared.push_outbox(transmit, bytes);
            }
        }
        if let Some(token) = conn.peer_token() {
            self.shared.forget_token(&token, slot);
        }
        if conn.is_counted_as_handshake() {
            self.handshakes -= 1;
        }
        self.cached = self.cached.filter(|(_, cached, _)| *cached != slot);
        self.wheel.set(slot, None);
        self.free.push(slot);
        self.live -= 1;
        self.shared.counters.count_attempt(conn.handshake_state());
        self.tally.close(slot, conn.losses());
        if conn.is_told() {
            sink.dead(conn.handle(), &conn.report());
        } else if conn.role() == Role::Host {
            self.shared.counters.failed_handshakes += 1;
        }
    }

    /// Ends a connection that the application knows nothing of, without a word to anybody.
    fn drop_quietly(&mut self, now: Instant, slot: u32) {
        if let Some(conn) = &mut self.slots[slot as usize].conn {
            conn.forget();
            self.remove(now, slot, &mut NullSink);
        }
    }

    // ---- time and batches

    /// The connection may have something to send, and its deadline may have changed.
    fn touch(&mut self, slot: u32) {
        self.touch_quietly(slot);
        let entry = &mut self.slots[slot as usize];
        if !entry.ready {
            entry.ready = true;
            self.ready.push_back(slot);
        }
    }

    /// What was written or told may have changed deadlines and endings, but gives nothing to send.
    fn touch_quietly(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        if !entry.touched {
            entry.touched = true;
            self.touched.push(slot);
        }
    }

    /// Looks after every connection that was touched: endings, deadlines, and what is to be sent.
    fn settle<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.settle_touched(now, sink);
        while self.has_rivals() {
            self.judge(now, sink);
            if self.touched.is_empty() {
                return;
            }
            self.settle_touched(now, sink);
        }
    }

    fn settle_touched<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        while let Some(slot) = self.touched.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.touched = false;
            let Some(conn) = &mut entry.conn else { continue };
            conn.settle(now, sink);
            if conn.take_stream_lost() {
                self.streams.lost(conn.handle());
            }
            if conn.take_handshake_end() {
                self.handshakes -= 1;
            }
            if conn.is_dead() {
                self.remove(now, slot, sink);
                continue;
            }
            self.wheel.set(slot, conn.next_timeout());
            let waits = conn.waits_for().is_some();
            if !entry.ready {
                entry.ready = true;
                self.ready.push_back(slot);
            }
            if waits {
                self.note_rival(slot);
            }
        }
    }

    /// Ends a receive batch: acknowledgements that are due become sendable, endings are told.
    pub fn end_batch<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.deferred.replay(sink);
        for i in 0..self.touched.len() {
            let slot = self.touched[i];
            if let Some(conn) = &mut self.slots[slot as usize].conn {
                conn.end_batch(now);
            }
        }
        self.settle(now, sink);
    }

    /// Runs every timer that is due.
    pub fn handle_timeout<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.deferred.replay(sink);
        let mut due = core::mem::take(&mut self.scratch);
        self.wheel.expire(now, &mut due);
        for slot in due.drain(..) {
            if let Some(conn) = &mut self.slots[slot as usize].conn {
                conn.handle_timeout(now, &mut self.shared, sink);
                self.touch(slot);
            }
        }
        self.scratch = due;
        self.settle(now, sink);
    }

    /// The next moment at which [`Self::handle_timeout`] has work; in the past when that is now.
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.deferred.is_empty() || !self.touched.is_empty() {
            return Some(Instant::ZERO);
        }
        self.wheel.next()
    }

    /// Writes the next train of one connection into `buf`: at most `max_segments` packets of one
    /// size, the last of which may be shorter. `None` when nothing is to be sent now.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        max_segments: usize,
    ) -> Option<Transmit> {
        while self.shared.has_outbox() {
            if let Some(transmit) = self.shared.pop_outbox(buf) {
                return Some(transmit);
            }
        }
        while let Some(slot) = self.ready.pop_front() {
            let entry = &mut self.slots[slot as usize];
            entry.ready = false;
            let Some(conn) = &mut entry.conn else { continue };
            if conn.has_stream() {
                self.streams.push_ready(slot);
            }
            if conn.is_stream() {
                if !entry.touched {
                    self.wheel.set(slot, conn.next_timeout());
                }
                continue;
            }
            let transmit = conn.poll_transmit(now, buf, max_segments, &mut self.shared);
            if transmit.is_some() {
                entry.ready = true;
                self.ready.push_back(slot);
                if conn.has_made_room() {
                    // The application goes on before the rest is sent.
                    self.wheel.set(slot, Some(now));
                }
                return transmit;
            }
            if !entry.touched {
                self.wheel.set(slot, conn.next_timeout());
            }
        }
        None
    }
}
