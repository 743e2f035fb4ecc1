//! Calls of the application.

use super::mux::Mux;
use super::outgoing::EARLY_FRAME_COST;
use super::recv::NO_END;
use super::table::{Channel, State, flag};
use crate::config::{ChannelKind, ChannelOptions};
use crate::endpoint::SendOptions;
use crate::error::ApiError;
use crate::ids::ChannelKey;
use crate::limits::{
    FRAME_OVERHEAD, MAX_CHANNEL_NAME, MAX_CHANNELS, MAX_DATAGRAM, MAX_STREAM_OFFSET, UNSENT_SHARE,
};
use crate::payload::Payload;
use crate::time::{Duration, Instant};
use crate::wire::codec::Writer;
use crate::wire::control::{ChannelRequestMessage, RequestOptions};

/// Shorter payloads are copied: that is cheaper than keeping their owner.
const COPY_BELOW: usize = 1024;

/// Channels of a plain link that may return credit in larger steps.
const FEW: u32 = 8;

/// What is sent.
enum Source<'a> {
    Copy(&'a [u8]),
    Shared(Payload),
}

impl Source<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copy(data) => data,
            Self::Shared(payload) => payload.as_slice(),
        }
    }
}

impl Mux {
    /// Asks the peer for a channel; `next_pn` is the number of the next packet that we send. Data
    /// can be sent at once.
    pub fn open(
        &mut self,
        now: Instant,
        name: &str,
        options: &ChannelOptions,
        next_pn: u64,
    ) -> Result<ChannelKey, ApiError> {
        options.validate()?;
        if name.len() > MAX_CHANNEL_NAME {
            let why = "must be at most 1024 bytes";
            return Err(ApiError::InvalidArgument { field: "name", why });
        }
        if self.discarding {
            return Err(ApiError::NoConnection("closing"));
        }
        if options.unique
            && let Some(key) = self.channel_by_name(name)
        {
            return Ok(key);
        }
        if self.own_count >= self.peer.max_channels {
            let limit = self.peer.max_channels.into();
            return Err(ApiError::LimitReached { what: "channels that the peer allows", limit });
        }
        let Some(id) = self.table.free_own_id() else {
            let limit = u64::from(MAX_CHANNELS / 2);
            return Err(ApiError::LimitReached { what: "channel ids", limit });
        };
        let reliable = options.kind != ChannelKind::Datagrams;
        let mut flags = flag::OURS | if options.latest { flag::LATEST } else { 0 };
        let credited = reliable && !self.framing.is_plain();
        if credited {
            match self.budget.take_own_minimum(self.own_count) {
                Some(true) => flags |= flag::POOL_MINIMUM,
                Some(false) => {}
                None => {
                    let limit = self.config.receive_budget;
                    return Err(ApiError::LimitReached { what: "receive_budget", limit });
                }
            }
        }
        let others = self.table.count();
        let key = self.table.insert(id);
        let channel = self.table.at(key.slot);
        channel.state = State::Requested;
        channel.kind = options.kind;
        channel.name = (!name.is_empty()).then(|| name.into());
        let waits = options.wait_for_answer || self.framing.is_plain();
        channel.set(flags | if waits { flag::WAIT_ANSWER } else { 0 });
        set_options(channel, options);
        if reliable && !credited {
            channel.recv.limit = MAX_STREAM_OFFSET;
        }
        if credited {
            let want = options.window.unwrap_or(self.config.channel_window);
            let explicit = options.window.is_some();
            self.budget.open(&mut channel.recv, want, explicit, others, now);
        }
        self.own_count += 1;
        let end = self.write_own(key, name, next_pn, false, options);
        if self.early.is_dirty(id) {
            self.await_ack(end, key);
        }
        self.requests.push_back((now + self.config.channel_timeout, key));
        Ok(key)
    }

    /// Accepts a channel that the peer asked for. The sink hears of it at the next
    /// [`Mux::deliver`] or [`Mux::on_timeout`], which is due at once; data can be sent right away.
    pub fn accept(
        &mut self,
        now: Instant,
        key: ChannelKey,
        options: &ChannelOptions,
        next_pn: u64,
    ) -> Result<(), ApiError> {
        let others = self.table.count();
        let plain = self.framing.is_plain();
        let channel = self.offered(key)?;
        // What the opener asked for holds for both directions.
        let options = &ChannelOptions {
            kind: channel.kind,
            latest: channel.has(flag::LATEST),
            expires_ms: channel.expires_ms,
            ..*options
        };
        options.validate()?;
        set_options(channel, options);
        channel.state = State::Open;
        channel.set(flag::READY_PENDING);
        let (id, name) = (channel.id, channel.name.clone());
        if !plain && channel.kind != ChannelKind::Datagrams && !channel.has(flag::RECV_DONE) {
            let want = options.window.unwrap_or(self.config.channel_window);
            let explicit = options.window.is_some();
            let Self { table, budget, .. } = self;
            let recv = &mut table.at(key.slot).recv;
            let over = recv.highest.saturating_sub(recv.limit);
            budget.open(recv, want, explicit, others, now);
            self.early_excess -= over - recv.highest.saturating_sub(recv.limit);
        }
        let end = self.write_own(key, name.as_deref().unwrap_or(""), next_pn, true, options);
        if self.early.is_dirty(id) {
            self.await_ack(end, key);
        }
        self.pending.push_back(key);
        Ok(())
    }

    /// Declines a channel that the peer asked for; its key is stale afterwards.
    pub fn decline(
        &mut self,
        _now: Instant,
        key: ChannelKey,
        code: u32,
        text: &str,
        _next_pn: u64,
    ) -> Result<(), ApiError> {
        self.offered(key)?;
        self.decline_slot(key.slot, code, text);
        Ok(())
    }

    fn offered(&mut self, key: ChannelKey) -> Result<&mut Channel, ApiError> {
        let channel = self.known(key)?;
        if channel.state == State::Offered {
            Ok(channel)
        } else {
            Err(ApiError::WrongChannel("it does not wait for an answer of ours"))
        }
    }

    /// The channel, if the application may still use it.
    fn known(&mut self, key: ChannelKey) -> Result<&mut Channel, ApiError> {
        self.table.get(key).filter(|ch| ch.is_known()).ok_or(ApiError::InvalidHandle)
    }

    /// Writes our request or answer for a channel.
    fn write_own(
        &mut self,
        key: ChannelKey,
        name: &str,
        next_pn: u64,
        is_answer: bool,
        options: &ChannelOptions,
    ) -> u64 {
        let framing = self.framing;
        let channel = self.table.at(key.slot);
        let window = (channel.kind != ChannelKind::Datagrams).then_some(channel.recv.limit);
        let message =
            ChannelRequestMessage { name, channel: channel.id, is_answer, ..Default::default() };
        if framing.is_plain() {
            let options = RequestOptions { kind: channel.kind, ..RequestOptions::default() };
            return self.write_request(&ChannelRequestMessage { options, ..message });
        }
        let message = ChannelRequestMessage {
            options: RequestOptions {
                has_map: true,
                kind: channel.kind,
                priority: options.priority,
                weight: options.weight,
                window,
                since: (!framing.is_stream()).then_some(next_pn),
                latest: options.latest,
                expires_ms: options.expires_ms,
                ..RequestOptions::default()
            },
            ..message
        };
        self.write_request(&message)
    }

    /// Sends a copy of `data`: the next bytes of a `bytes` channel, or one message.
    #[inline]
    pub fn send(
        &mut self,
        now: Instant,
        key: ChannelKey,
        data: &[u8],
        options: SendOptions,
    ) -> Result<(), ApiError> {
        self.queue(now, key, Source::Copy(data), options, false)
    }

    /// The same, but the bounds of the send buffers are not enforced: the channel counts as blocked
    /// when they are exceeded. For sends that were accepted before they could be carried out.
    pub fn send_unbounded(
        &mut self,
        now: Instant,
        key: ChannelKey,
        data: &[u8],
        options: SendOptions,
    ) -> Result<(), ApiError> {
        self.queue(now, key, Source::Copy(data), options, true)
    }

    /// Sends bytes that somebody else owns; they are read when they go into a packet, and the owner
    /// is let go when all are acknowledged. Datagrams and short payloads are copied.
    pub fn send_payload(
        &mut self,
        now: Instant,
        key: ChannelKey,
        payload: Payload,
        options: SendOptions,
    ) -> Result<(), ApiError> {
        self.queue(now, key, Source::Shared(payload), options, false)
    }

    /// [`Self::send_payload`] without bounds, as [`Self::send_unbounded`].
    pub fn send_payload_unbounded(
        &mut self,
        now: Instant,
        key: ChannelKey,
        payload: Payload,
        options: SendOptions,
    ) -> Result<(), ApiError> {
        self.queue(now, key, Source::Shared(payload), options, true)
    }

    #[inline]
    fn queue(
        &mut self,
        now: Instant,
        key: ChannelKey,
        source: Source<'_>,
        options: SendOptions,
        unbounded: bool,
    ) -> Result<(), ApiError> {
        let Self { table, pool, config, .. } = self;
        let channels = u64::from(table.count().max(1));
        let Some(channel) = table.get(key).filter(|ch| ch.is_known()) else {
            return Err(ApiError::InvalidHandle);
        };
        if channel.any(flag::FIN | flag::RESET) || channel.state == State::Offered {
            return Err(not_sendable(channel));
        }
        let len = source.as_slice().len();
        if channel.kind == ChannelKind::Datagrams {
            return self.queue_datagram(now, key, &source, options);
        }
        let mut prefix = [0; 8];
        let mut prefix_len = 0;
        if channel.kind == ChannelKind::Messages {
            if len as u64 > self.peer.max_message {
                return Err(too_large(len, self.peer.max_message));
            }
            if !self.peer.known {
                channel.early = channel.early.max(len as u32);
            }
            let mut writer = Writer::new(&mut prefix);
            let _ = writer.put_varint(len as u64);
            prefix_len = writer.written();
        } else if len == 0 {
            return empty_write(options);
        } else if len as u64 > config.channel_send_buffer {
            return Err(too_large(len, config.channel_send_buffer));
        }
        let total = (prefix_len + len) as u64;
        let queued = channel.unacked();
        let channel_full = queued + total > config.channel_send_buffer && queued > 0;
        // Channels whose readers are slow may fill the common buffer; an even share of it is left to
        // each of the others.
        let all_full = self.unacked + total > config.send_buffer
            && self.unacked > 0
            && queued + total > config.send_buffer / channels;
        let waiting = channel.unsent();
        let ahead = self.unsent + total > config.unsent_limit
            && self.ready
            && waiting > 0
            && waiting + total > (config.unsent_limit / channels).max(UNSENT_SHARE);
        self.all_blocked |= all_full || ahead;
        if channel_full || all_full || ahead {
            if !channel.has(flag::BLOCKED) {
                channel.set(flag::BLOCKED);
                self.blocked.push(key);
            }
            if !unbounded {
                return Err(would_block(channel_full, all_full));
            }
        }
        let send = match &mut channel.send {
            Some(send) => send,
            none => none.insert(pool.send_buf(channel.send_at)),
        };
        if send.end() + total > MAX_STREAM_OFFSET {
            let limit = MAX_STREAM_OFFSET;
            return Err(ApiError::LimitReached { what: "bytes of one channel", limit });
        }
        if prefix_len > 0 {
            send.push_copy(&prefix[..prefix_len], pool);
        }
        match source {
            Source::Shared(payload) if len >= COPY_BELOW => send.push_payload(payload),
            _ => send.push_copy(source.as_slice(), pool),
        }
        if let Some(token) = options.receipt {
            send.add_receipt(token);
        }
        self.unacked += total;
        self.unsent += total;
        self.schedule(now, key.slot, total);
        Ok(())
    }

    fn queue_datagram(
        &mut self,
        now: Instant,
        key: ChannelKey,
        source: &Source<'_>,
        options: SendOptions,
    ) -> Result<(), ApiError> {
        if options.receipt.is_some() {
            let why = "is not possible for unreliable messages";
            return Err(ApiError::InvalidArgument { field: "receipt", why });
        }
        let Self { table, pool, config, .. } = self;
        let channel = table.at(key.slot);
        let data = source.as_slice();
        let len = data.len();
        if len as u64 > self.peer.max_datagram {
            return Err(too_large(len, self.peer.max_datagram));
        }
        if channel.state == State::Requested {
            if !self.ready || channel.any(flag::WAIT_ANSWER | flag::WAIT_ACK) {
                return Err(ApiError::Dropped("the channel is not open yet"));
            }
            let queued = channel.datagram_send.as_ref().map_or(0, |queue| queue.bytes());
            let frames = len.div_ceil(self.packet_payload - FRAME_OVERHEAD) as u64 + 1;
            let free = self.peer.early_data.saturating_sub(self.early_used + queued);
            if len as u64 + frames * EARLY_FRAME_COST * 2 > free {
                return Err(ApiError::Dropped("no early-data credit"));
            }
        }
        let deadline = match channel.expires_ms {
            0 => None,
            ms => Some(now + Duration::from_millis(ms.into())),
        };
        let queue = match &mut channel.datagram_send {
            Some(queue) => queue,
            none => none.insert(pool.datagram_send()),
        };
        self.stats.datagrams_queued += 1;
        self.stats.datagrams_dropped +=
            queue.push(data, deadline, config.datagram_send_buffer, pool);
        if !channel.has(flag::IN_FRESH) {
            self.activate(key.slot);
        }
        Ok(())
    }

    /// Ends our direction: EOF after everything sent so far.
    pub fn finish(&mut self, _now: Instant, key: ChannelKey) -> Result<(), ApiError> {
        let plain = self.framing.is_plain();
        let channel = self.known(key)?;
        if channel.any(flag::FIN | flag::RESET) || channel.state == State::Offered {
            return Err(not_sendable(channel));
        }
        let waits = plain && channel.has(flag::READY_PENDING);
        channel.set(flag::FIN | if waits { 0 } else { flag::FIN_PENDING });
        channel.clear(flag::HELD);
        self.unacked_ends += 1;
        self.activate(key.slot);
        Ok(())
    }

    /// Cancels what we are sending on a channel.
    pub fn reset(&mut self, _now: Instant, key: ChannelKey, code: u32) -> Result<(), ApiError> {
        let channel = self.known(key)?;
        if channel.any(flag::RESET | flag::SEND_DONE) || channel.state == State::Offered {
            return Err(not_sendable(channel));
        }
        channel.ended(code, false);
        if self.framing.is_plain() {
            self.plain_cancel(key.slot, code);
        } else {
            self.cancel_send(key.slot, code);
        }
        Ok(())
    }

    /// Refuses the rest of what the peer sends on a channel.
    pub fn stop(&mut self, _now: Instant, key: ChannelKey, code: u32) -> Result<(), ApiError> {
        let plain = self.framing.is_plain();
        let channel = self.known(key)?;
        if channel.state == State::Offered {
            return Err(ApiError::WrongChannel("it waits for an answer of ours"));
        }
        if channel.any(flag::STOP | flag::RECV_DONE) {
            return Err(ApiError::WrongChannel("the peer's direction is over"));
        }
        channel.ended(code, false);
        if plain {
            self.plain_cancel(key.slot, code);
            return Ok(());
        }
        let all_known = channel.recv.end != NO_END;
        self.refuse(key.slot, code);
        if all_known {
            // The peer may be done and have nothing to answer.
            self.table.at(key.slot).set(flag::RECV_DONE);
            self.pending.push_back(key);
        }
        Ok(())
    }

    /// Sends now what waits for more data.
    pub fn flush(&mut self, _now: Instant, key: ChannelKey) -> Result<(), ApiError> {
        let channel = self.known(key)?;
        if channel.has(flag::HELD) {
            channel.clear(flag::HELD);
            self.activate(key.slot);
        }
        Ok(())
    }

    /// Manual credit: the application has taken `bytes` that the sink was given on a channel. To be
    /// called for every byte, also after the channel has ended.
    pub fn consume(&mut self, now: Instant, key: ChannelKey, bytes: u64) -> Result<(), ApiError> {
        let Some(channel) = self.table.get(key) else {
            self.budget.consume_orphans(bytes);
            return Ok(());
        };
        let reliable = channel.kind != ChannelKind::Datagrams;
        let plain = self.framing.is_plain();
        let recv = &mut channel.recv;
        let paid = bytes.min(recv.debt);
        recv.debt -= paid;
        let credited = (bytes - paid).min(recv.unconsumed);
        recv.unconsumed -= credited;
        self.budget.consume_orphans(bytes - paid - credited);
        if plain {
            self.recount(key.slot);
            return Ok(());
        }
        if reliable && !channel.any(flag::RECV_DONE | flag::STOP) {
            self.renew(now, key.slot);
        }
        if paid > 0 {
            self.budget.release(paid);
            self.serve_waiters(now);
        }
        Ok(())
    }

    /// Manual credit: bytes of a channel that the application may have taken before it calls
    /// [`Self::consume`], without the peer ever having to wait for them. `None` for a channel that is
    /// gone.
    pub fn credit_step(&self, key: ChannelKey) -> Option<u64> {
        let channel = self.table.peek(key)?;
        let recv = &channel.recv;
        if channel.kind == ChannelKind::Datagrams {
            // What is not consumed takes the place of messages to come.
            let limit = self.config.datagram_reassembly;
            return Some((limit / 4).min(limit - MAX_DATAGRAM as u64).max(1));
        }
        if channel.any(flag::RECV_DONE | flag::STOP) || recv.is_short() {
            return Some(1);
        }
        if self.framing.is_plain() {
            // All channels share one bound: what is not told of a few may use up half of it.
            let (most, few) = (self.config.channel_window_max, self.table.count() <= FEW);
            return Some(if few { (most / (2 * u64::from(FEW))).max(1) } else { 1 });
        }
        // A quarter of the window is the least for which `renew` gives new credit.
        Some((recv.limit.saturating_sub(recv.freed()) / 4).max(1))
    }

    /// Manual credit: the same as [`Self::consume`] for a channel that is gone.
    pub const fn consume_ended(&mut self, bytes: u64) {
        self.budget.consume_orphans(bytes);
    }
}

fn set_options(channel: &mut Channel, options: &ChannelOptions) {
    channel.priority = options.priority;
    channel.weight = options.weight;
    channel.expires_ms = options.expires_ms;
    if options.no_delay {
        channel.set(flag::NO_DELAY);
    }
}

/// Nothing to send: no EOF by accident, and nothing whose arrival could be told.
#[cold]
fn empty_write(options: SendOptions) -> Result<(), ApiError> {
    if options.receipt.is_none() {
        return Ok(());
    }
    Err(ApiError::InvalidArgument { field: "receipt", why: "is not possible for no bytes" })
}

#[cold]
const fn too_large(len: usize, limit: u64) -> ApiError {
    ApiError::MessageTooLarge { len, limit: limit as usize }
}

#[cold]
const fn would_block(channel_full: bool, all_full: bool) -> ApiError {
    ApiError::WouldBlock(match (channel_full, all_full) {
        (true, _) => "the channel's buffer",
        (false, true) => "send_buffer",
        (false, false) => "unsent_limit",
    })
}

#[cold]
fn not_sendable(channel: &Channel) -> ApiError {
    ApiError::WrongChannel(if channel.state == State::Offered {
        "it waits for an answer of ours"
    } else if channel.has(flag::ENDED_BY_PEER) && channel.has(flag::RESET) {
        "the peer refuses more data"
    } else {
        "our direction is over"
    })
}
