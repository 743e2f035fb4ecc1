//! Requests for channels and their answers.

use super::early::Held;
use super::mux::Mux;
use super::table::{State, flag};
use crate::config::{ChannelKind, ChannelOptions};
use crate::error::{PeerMisbehaved, Reason};
use crate::event::{ChannelEnd, ChannelRequest, Sink};
use crate::ids::{ChannelKey, ConnHandle};
use crate::limits::{CONTROL_CHANNEL, MAX_STREAM_OFFSET, TRANSPORT_CHANNEL};
use crate::time::Instant;
use crate::wire::control::{ChannelRequestMessage, RequestOptions};

impl Mux {
    /// The peer asks for a channel.
    pub(super) fn on_request<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        request: &ChannelRequestMessage<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let id = request.channel;
        let plain = self.framing.is_plain();
        if plain && id == CONTROL_CHANNEL {
            return Err(PeerMisbehaved::Control("channel is 0"));
        }
        let wrong_half = self.table.is_own(id) && !plain;
        if id == CONTROL_CHANNEL || id == TRANSPORT_CHANNEL || wrong_half {
            self.write_refusal(id, Reason::PROTOCOL.0, "not an id of the opener");
            return Ok(());
        }
        if let Some(slot) = self.table.slot_of(id)
            && plain
            && !self.plain_is_over(slot)
        {
            return self.plain_request_for_used(conn, slot, sink);
        }
        if let Some(slot) = self.table.slot_of(id)
            && !self.finalise(conn, slot, sink)
        {
            self.write_refusal(id, Reason::PROTOCOL.0, "id in use");
            return Ok(());
        }
        let since = self.framing.since(request.options.since);
        let lost = self.early.lost_frames(id, since);
        let held = self.early.take(id, false);
        let key = self.offer(request, since);
        let refusal = if self.discarding {
            Some((Reason::APP.0, "closing"))
        } else if self.peer_count >= self.config.max_channels || self.budget.is_choked() {
            Some((Reason::LOCAL_LIMIT.0, "too many channels"))
        } else if lost {
            Some((Reason::LOCAL_LIMIT.0, "early data lost"))
        } else {
            None
        };
        if let Some((code, text)) = refusal {
            self.decline_slot(key.slot, code, text);
        } else {
            self.table.at(key.slot).set(flag::COUNTED);
            self.peer_count += 1;
            let o = &request.options;
            let options = ChannelOptions {
                unique: false,
                kind: o.kind,
                priority: o.priority,
                weight: o.weight,
                window: o.window,
                no_delay: false,
                wait_for_answer: false,
                latest: o.latest,
                expires_ms: o.expires_ms,
            };
            let event = ChannelRequest { id, name: request.name, options };
            sink.channel_request(conn, key, &event);
        }
        self.replay(now, conn, key, held, sink)
    }

    /// Makes the channel that the peer asks for.
    fn offer(&mut self, request: &ChannelRequestMessage<'_>, since: u64) -> ChannelKey {
        let o = &request.options;
        let key = self.table.insert(request.channel);
        let channel = self.table.at(key.slot);
        channel.state = State::Offered;
        channel.kind = o.kind;
        channel.since = since;
        channel.send_limit = self.framing.first_limit(o.window);
        if self.framing.is_plain() {
            channel.recv.limit = MAX_STREAM_OFFSET;
        }
        channel.name = (!request.name.is_empty()).then(|| request.name.into());
        if o.kind == ChannelKind::Datagrams {
            channel.expires_ms = o.expires_ms;
            if o.latest {
                channel.set(flag::LATEST);
            }
        }
        key
    }

    /// A request for the id of a channel that still exists: whether the old one is over from the
    /// opener's view, in which case it is gone now.
    fn finalise<S: Sink>(&mut self, conn: ConnHandle, slot: u32, sink: &mut S) -> bool {
        let channel = self.table.at(slot);
        let ended = channel.any(flag::END_SENT | flag::SEND_DONE);
        let over = match channel.state {
            // Declined: the opener may forget it before its RESET arrives.
            State::Closing => true,
            State::Open => channel.has(flag::RECV_DONE) && ended,
            _ => false,
        };
        if !over {
            return false;
        }
        // The request says that the opener has all that we sent.
        channel.set(flag::RECV_DONE);
        let key = ChannelKey { slot, life: channel.life };
        if let Some(send) = &mut channel.send {
            let moved = send.on_acked(send.base(), send.unacked(), &mut self.pool);
            self.unacked -= moved;
            self.stats.acked_bytes += moved;
            self.front_moved(conn, key, sink);
        }
        if self.table.get(key).is_some_and(|ch| !ch.has(flag::SEND_DONE)) {
            self.send_done(conn, slot, sink);
        } else {
            self.end(conn, slot, sink);
        }
        true
    }

    /// Answers that a request is declined. The name is left out: the id says it all.
    fn write_refusal(&mut self, channel: u16, code: u32, text: &str) {
        if self.framing.is_plain() {
            self.control.declined.push_back(channel);
            return;
        }
        let options = RequestOptions {
            has_map: true,
            declined: Some(code),
            reason: text,
            ..RequestOptions::default()
        };
        let before = self.control.end();
        let answer = ChannelRequestMessage { name: "", channel, is_answer: true, options };
        let after = self.write_request(&answer);
        self.control.refusals += after - before;
    }

    /// Declines a channel that was offered. Its slot stays until the opener's RESET.
    pub(super) fn decline_slot(&mut self, slot: u32, code: u32, text: &str) {
        let channel = self.table.at(slot);
        channel.name = None;
        let id = channel.id;
        let over = channel.has(flag::RECV_DONE);
        if channel.any(flag::RESET) && !channel.has(flag::SEND_DONE) {
            self.unacked_ends -= 1;
        }
        let channel = self.table.at(slot);
        channel.state = State::Closing;
        channel.set(flag::SEND_DONE);
        channel.clear(flag::RESET_PENDING);
        self.uncount(slot);
        self.drop_incoming(slot);
        self.write_refusal(id, code, text);
        if over || self.framing.is_plain() {
            self.free(slot);
        }
    }

    /// The peer answers a request of ours.
    pub(super) fn on_answer<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        answer: &ChannelRequestMessage<'_>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let slot = match self.table.slot_of(answer.channel) {
            Some(slot) if self.table.is_own(answer.channel) => slot,
            // It crossed our EOF.
            _ if self.framing.is_plain() => return Ok(()),
            _ => return Err(PeerMisbehaved::Control("answer without a request")),
        };
        let channel = self.table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        let declined = answer.options.declined;
        let since = self.framing.since(answer.options.since);
        match channel.state {
            State::Requested => {}
            State::Closing if channel.has(flag::UNANSWERED) => {
                channel.clear(flag::UNANSWERED);
                channel.since = since;
                if declined.is_some() {
                    channel.set(flag::RECV_DONE);
                }
                self.end(conn, slot, sink);
                return Ok(());
            }
            _ if self.framing.is_plain() => return Ok(()),
            _ => return Err(PeerMisbehaved::Control("answer without a request")),
        }
        self.settle_requests();
        self.refund_early(slot);
        if let Some(code) = declined {
            self.early.take(answer.channel, true);
            self.forget_channel(slot, code);
            self.table.at(slot).set(flag::RECV_DONE);
            let text = answer.options.reason.to_owned();
            sink.channel_closed(conn, key, &ChannelEnd::Declined { code, text });
            self.end(conn, slot, sink);
            return Ok(());
        }
        let channel = self.table.at(slot);
        channel.state = State::Open;
        channel.since = since;
        channel.clear(flag::WAIT_ANSWER | flag::WAIT_ACK);
        let limit = self.framing.first_limit(answer.options.window);
        channel.send_limit = limit;
        if channel.kind != ChannelKind::Datagrams {
            // What was sent beyond the limit stays early data until the limit reaches it.
            self.early_used += channel.next_offset().saturating_sub(limit);
        }
        sink.channel_ready(conn, key);
        let held = self.early.take(answer.channel, true);
        self.activate(slot);
        self.activate_transport(slot);
        self.wake_early();
        self.replay(now, conn, key, held, sink)
    }

    /// Gives up a request that was not answered in time.
    pub(super) fn give_up_request<S: Sink>(
        &mut self,
        conn: ConnHandle,
        key: ChannelKey,
        sink: &mut S,
    ) {
        let id = self.table.at(key.slot).id;
        self.early.take(id, true);
        // Its early-data credit stays used until the peer has our RESET and drops what it holds.
        self.forget_channel(key.slot, Reason::TIMEOUT.0);
        if self.table.at(key.slot).has(flag::SEND_DONE) {
            self.refund_early(key.slot);
            self.wake_early();
        }
        let channel = self.table.at(key.slot);
        if self.framing.is_plain() {
            // Our EOF ends it; an answer that crosses it means nothing.
            channel.set(flag::RECV_DONE);
            if !self.discarding {
                sink.channel_closed(conn, key, &ChannelEnd::TimedOut);
            }
            return;
        }
        channel.set(flag::STOP | flag::STOP_PENDING | flag::UNANSWERED);
        channel.stop_code = Reason::TIMEOUT.0;
        self.activate_transport(key.slot);
        if !self.discarding {
            sink.channel_closed(conn, key, &ChannelEnd::TimedOut);
        }
    }

    /// Answered requests at the front of the queue of deadlines go.
    pub(super) fn settle_requests(&mut self) {
        while let Some((_, key)) = self.requests.front() {
            match self.table.peek(*key) {
                Some(ch) if ch.state == State::Requested => break,
                _ => self.requests.pop_front(),
            };
        }
    }

    /// Ends a channel for the application: what is queued is dropped and a RESET tells the peer,
    /// even when our EOF was acknowledged already: it is what frees the id on the other side.
    fn forget_channel(&mut self, slot: u32, code: u32) {
        let channel = self.table.at(slot);
        if channel.has(flag::SEND_DONE) && !channel.has(flag::RESET) {
            channel.clear(flag::SEND_DONE);
            self.unacked_ends += 1;
        }
        self.cancel_send(slot, code);
        self.drop_incoming(slot);
        self.table.at(slot).state = State::Closing;
    }

    /// Goes on with what was held for a channel that has now been announced or answered.
    pub(super) fn replay<S: Sink>(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        key: ChannelKey,
        held: Option<Held>,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let Some(held) = held else { return Ok(()) };
        let Some(channel) = self.table.get(key) else { return Ok(()) };
        let (id, since) = (channel.id, channel.since);
        if held.overflow.is_some_and(|pn| pn >= since) && channel.state == State::Open {
            // Something of it was dropped for want of room: it cannot go on.
            let code = Reason::LOCAL_LIMIT.0;
            channel.ended(code, false);
            self.cancel_send(key.slot, code);
            self.refuse(key.slot, code);
            return Ok(());
        }
        let mut frames: Vec<_> = held.frames(id).collect();
        frames.sort_by_key(|(pn, _)| *pn);
        for (pn, frame) in frames {
            if self.table.get(key).is_none() {
                return Ok(());
            }
            self.channel_frame(now, conn, pn, &frame, sink)?;
        }
        if let Some((pn, limit)) = held.credit {
            self.on_credit(pn, id, limit)?;
        }
        if let Some((pn, code)) = held.stop {
            self.channel_stop(conn, pn, id, code, sink);
        }
        if let Some((pn, code, end)) = held.reset {
            self.channel_reset(conn, pn, id, code, end, sink)?;
        }
        Ok(())
    }
}
