//! Frames out: which channel has something to send, and the packing of a packet.

use super::datagram::Filled;
use super::framing::Framing;
use super::mux::Mux;
use super::table::{Channel, State, flag};
use crate::config::ChannelKind;
use crate::ids::ChannelKey;
use crate::limits::{
    CONTROL_CHANNEL, FRAME_HEADER_LEN, FRAME_OVERHEAD, MAX_CONTROL_MESSAGE, MAX_FRAME_BODY,
};
use crate::time::Instant;
use crate::wire::codec::Writer;
use crate::wire::control::next_value;
use crate::wire::frame::{
    DatagramHeader, write_bare_frame, write_bare_header, write_datagram_header, write_stream_header,
};
use crate::wire::link_message::LinkMessage;
use crate::wire::record::FrameRecord;
use crate::wire::transport::TransportFrame;

/// The key under which records name CONTROL.
pub(super) const CONTROL_KEY: ChannelKey = ChannelKey { slot: 0, life: 0 };
/// What a frame costs of the early-data credit besides its body: the receiver may have to hold it
/// with its header.
pub(super) const EARLY_FRAME_COST: u64 = 16;
/// A stream is not cut into pieces smaller than this only to fill up a packet.
const MIN_PIECE: u64 = 32;
/// Most messages of CONTROL are shorter: of the others more is copied to find their end.
const SHORT_MESSAGE: usize = 256;

/// The payload of one packet while it is being filled.
struct Packet<'a, R> {
    buf: &'a mut [u8],
    at: usize,
    framing: Framing,
    record: &'a mut R,
}

impl<R: FnMut(FrameRecord)> Packet<'_, R> {
    #[inline]
    fn room(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Body bytes of a stream frame that can take some of `wanted` bytes; 0 when it is not worth
    /// it.
    #[inline]
    fn piece(&self, wanted: u64) -> usize {
        let overhead = self.framing.overhead();
        let room = self.room().saturating_sub(overhead).min(MAX_FRAME_BODY) as u64;
        if room < wanted.min(MIN_PIECE) { 0 } else { wanted.min(room) as usize }
    }

    /// Writes the header of a stream frame and gives the place of its body.
    #[inline]
    fn stream(&mut self, key: ChannelKey, id: u16, offset: u64, len: usize) -> &mut [u8] {
        let overhead = self.framing.overhead();
        let frame = &mut self.buf[self.at..self.at + overhead + len];
        if self.framing.is_stream() {
            write_bare_header(frame, id, len);
        } else {
            write_stream_header(frame, id, offset, len);
        }
        self.at += overhead + len;
        let len = len as u16;
        (self.record)(FrameRecord::Stream { channel: key, offset, len, eof: len == 0 });
        &mut frame[overhead..]
    }

    /// Writes a TRANSPORT frame; `false` when it does not fit.
    fn transport(&mut self, frame: &TransportFrame<'_>, record: FrameRecord) -> bool {
        if self.framing.is_stream() {
            return self.link_message(frame, record);
        }
        let mut writer = Writer::new(&mut self.buf[self.at..]);
        if frame.write(&mut writer).is_err() {
            return false;
        }
        self.at += writer.written();
        (self.record)(record);
        true
    }

    /// Writes the message of CONTROL that stands for a TRANSPORT frame; `false` when it does not fit.
    fn link_message(&mut self, frame: &TransportFrame<'_>, record: FrameRecord) -> bool {
        let Some(message) = LinkMessage::of(frame) else { return true };
        let mut body = Vec::with_capacity(32);
        message.encode(&mut body);
        self.bare(CONTROL_CHANNEL, &body) && {
            (self.record)(record);
            true
        }
    }

    /// Writes a whole frame of a stream link; `false` when it does not fit.
    fn bare(&mut self, id: u16, body: &[u8]) -> bool {
        let written = write_bare_frame(&mut self.buf[self.at..], id, body);
        self.at += written.unwrap_or(0);
        written.is_some()
    }
}

/// What became of a channel's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has nothing more to send now.
    Done,
    /// It has used up its share of this round.
    Over,
    /// The packet is full.
    Full,
    /// It waits for early-data credit.
    Early,
}

impl Mux {
    /// Whether [`Self::fill`] would write something, credit and coalescing considered.
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        self.control.wants_to_send()
            || self.ready && (self.sched.is_ready() || !self.sched.transport.is_empty())
    }

    /// Packs frames into `buf`, the payload of one packet or what is left of it, and reports each
    /// that asks for feedback. Gives the bytes written.
    ///
    /// CONTROL goes first, then CREDIT, RESET and STOP, then the priority classes in order; inside
    /// a class what was lost, then new data in turns by weight.
    pub fn fill<R: FnMut(FrameRecord)>(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        record: &mut R,
    ) -> usize {
        let mut packet = Packet { buf, at: 0, framing: self.framing, record };
        if self.framing.is_stream() {
            self.fill_stream_control(&mut packet);
        } else {
            self.fill_control(&mut packet);
        }
        if self.ready {
            self.fill_transport(&mut packet);
            let before = packet.at;
            self.fill_classes(now, &mut packet);
            if packet.at > before {
                self.moved_at = Some(now);
            }
            if packet.at > 0
                && !self.sched.held.is_empty()
                && packet.room() > FRAME_OVERHEAD + MIN_PIECE as usize
            {
                // The packet goes anyway: what waits for company has found it.
                self.release_held();
                self.fill_classes(now, &mut packet);
            }
        }
        packet.at
    }

    fn fill_control<R: FnMut(FrameRecord)>(&mut self, packet: &mut Packet<'_, R>) {
        if !self.control.wants_to_send() {
            return;
        }
        if self.control.credit_pending {
            let limit = self.control.announced();
            let frame = TransportFrame::Credit { channel: CONTROL_CHANNEL, limit };
            if packet.transport(&frame, FrameRecord::Credit { channel: CONTROL_KEY }) {
                self.control.credit_pending = false;
            }
        }
        while self.control.send.has_lost() {
            let room = packet.piece(u64::MAX);
            if room == 0 {
                return;
            }
            let Some((offset, len)) = self.control.send.take_lost(room as u64) else { break };
            let body = packet.stream(CONTROL_KEY, CONTROL_CHANNEL, offset, len);
            self.control.send.copy_at(offset, body);
        }
        let len = packet.piece(self.control.sendable());
        if len > 0 {
            let offset = self.control.send.next();
            let body = packet.stream(CONTROL_KEY, CONTROL_CHANNEL, offset, len);
            self.control.send.take_new(body);
            self.control.renew();
        }
    }

    /// Stream link: messages of CONTROL, each whole in a frame of its own.
    fn fill_stream_control<R: FnMut(FrameRecord)>(&mut self, packet: &mut Packet<'_, R>) {
        while self.control.send.unsent() > 0 {
            let Self { control, .. } = self;
            let offset = control.send.next();
            let all = MAX_CONTROL_MESSAGE.min(control.send.unsent() as usize);
            let at = packet.at + FRAME_HEADER_LEN;
            let mut most = SHORT_MESSAGE.min(all);
            let len = loop {
                let end = packet.buf.len().min(at + most);
                let Some(peek) = packet.buf.get_mut(at..end) else { return };
                control.send.copy_at(offset, peek);
                match next_value(peek) {
                    Ok(Some(len)) => break len,
                    Ok(None) if most < all => most = all,
                    // What does not stand whole in the rest of this buffer waits for the next one.
                    _ => return,
                }
            };
            let body = packet.stream(CONTROL_KEY, CONTROL_CHANNEL, offset, len);
            control.send.take_new(body);
        }
        while let Some(id) = self.control.declined.front().copied() {
            if !packet.bare(id, &[]) {
                return;
            }
            self.control.declined.pop_front();
        }
    }

    /// CREDIT, RESET and STOP of channels.
    fn fill_transport<R: FnMut(FrameRecord)>(&mut self, packet: &mut Packet<'_, R>) {
        while let Some(slot) = self.sched.transport.front().copied() {
            let channel = self.table.at(slot);
            if channel.has(flag::IN_TRANSPORT)
                && !channel.has(flag::WAIT_ACK)
                && !Self::write_transport(slot, channel, packet)
            {
                return;
            }
            channel.clear(flag::IN_TRANSPORT);
            self.sched.transport.pop_front();
        }
    }

    /// Writes what is pending; `false` when something did not fit.
    fn write_transport<R: FnMut(FrameRecord)>(
        slot: u32,
        channel: &mut Channel,
        packet: &mut Packet<'_, R>,
    ) -> bool {
        let (id, key) = (channel.id, ChannelKey { slot, life: channel.life });
        if packet.framing.is_plain() {
            if channel.has(flag::RESET_PENDING) {
                if !packet.bare(id, &[]) {
                    return false;
                }
                (packet.record)(FrameRecord::Reset { channel: key });
                channel.set(flag::END_SENT);
            }
            channel.clear(flag::CREDIT_PENDING | flag::RESET_PENDING | flag::STOP_PENDING);
            return true;
        }
        if channel.has(flag::CREDIT_PENDING) {
            let frame = TransportFrame::Credit { channel: id, limit: channel.recv.limit };
            if !packet.transport(&frame, FrameRecord::Credit { channel: key }) {
                return false;
            }
            channel.clear(flag::CREDIT_PENDING);
        }
        if channel.has(flag::RESET_PENDING) {
            let final_offset = match channel.kind {
                ChannelKind::Datagrams => 0,
                _ => channel.send_at,
            };
            let frame = TransportFrame::ChannelReset {
                channel: id,
                code: channel.reset_code,
                final_offset,
            };
            if !packet.transport(&frame, FrameRecord::Reset { channel: key }) {
                return false;
            }
            channel.clear(flag::RESET_PENDING);
            channel.set(flag::END_SENT);
        }
        if channel.has(flag::STOP_PENDING) {
            let frame = TransportFrame::ChannelStop { channel: id, code: channel.stop_code };
            if !packet.transport(&frame, FrameRecord::Stop { channel: key }) {
                return false;
            }
            channel.clear(flag::STOP_PENDING);
        }
        true
    }

    fn fill_classes<R: FnMut(FrameRecord)>(&mut self, now: Instant, packet: &mut Packet<'_, R>) {
        let mut from = 0;
        while let Some(class) = self.sched.next_class(from) {
            if packet.room() < FRAME_OVERHEAD {
                return;
            }
            let more = self.fill_lost(class, packet) && self.fill_fresh(now, class, packet);
            self.sched.settle(class);
            if !more {
                return;
            }
            from = class + 1;
            if from == crate::limits::PRIORITIES {
                return;
            }
        }
    }

    /// What a class has to send again; `false` when the packet is full.
    fn fill_lost<R: FnMut(FrameRecord)>(
        &mut self,
        class: usize,
        packet: &mut Packet<'_, R>,
    ) -> bool {
        while let Some(slot) = self.sched.class(class).lost.front().copied() {
            let channel = self.table.at(slot);
            let key = ChannelKey { slot, life: channel.life };
            if channel.has(flag::IN_LOST) {
                if let Some(send) = &mut channel.send {
                    while send.has_lost() {
                        let room = packet.piece(u64::MAX);
                        if room == 0 {
                            return false;
                        }
                        let Some((offset, len)) = send.take_lost(room as u64) else { break };
                        self.stats.retransmitted_bytes += len as u64;
                        send.copy_at(offset, packet.stream(key, channel.id, offset, len));
                    }
                }
                if channel.has(flag::FIN_PENDING | flag::END_SENT) {
                    if packet.room() < FRAME_OVERHEAD {
                        return false;
                    }
                    Self::write_end(key, channel, packet);
                }
                channel.clear(flag::IN_LOST);
            }
            self.sched.class(class).lost.pop_front();
        }
        true
    }

    /// Writes the EOF of our direction; there is room for it.
    fn write_end<R: FnMut(FrameRecord)>(
        key: ChannelKey,
        channel: &mut Channel,
        packet: &mut Packet<'_, R>,
    ) {
        channel.clear(flag::FIN_PENDING);
        channel.set(flag::END_SENT);
        if packet.framing.is_plain() {
            // It ends both ways.
            channel.set(flag::RECV_DONE);
        }
        if channel.kind == ChannelKind::Datagrams && packet.framing.is_stream() {
            packet.bare(channel.id, &[]);
            (packet.record)(FrameRecord::DatagramEof { channel: key });
        } else if channel.kind == ChannelKind::Datagrams {
            let header = DatagramHeader { id: channel.send_at as u32, index: 0, count: 0 };
            write_datagram_header(&mut packet.buf[packet.at..], channel.id, header, 0);
            packet.at += FRAME_OVERHEAD;
            (packet.record)(FrameRecord::DatagramEof { channel: key });
        } else {
            let end = channel.send.as_ref().map_or(channel.send_at, |send| send.end());
            packet.stream(key, channel.id, end, 0);
        }
    }

    /// New data of a class; `false` when the packet is full.
    fn fill_fresh<R: FnMut(FrameRecord)>(
        &mut self,
        now: Instant,
        class: usize,
        packet: &mut Packet<'_, R>,
    ) -> bool {
        let quantum = (self.packet_payload / 16).max(64) as u32;
        loop {
            let queue = &mut self.sched.class(class).fresh;
            let Some(slot) = queue.front().copied() else { return true };
            let alone = queue.len() == 1;
            let channel = self.table.at(slot);
            if !channel.has(flag::IN_FRESH) {
                self.sched.class(class).fresh.pop_front();
                continue;
            }
            if !channel.has(flag::TURN) {
                channel.set(flag::TURN);
                channel.deficit =
                    channel.deficit.saturating_add_unsigned(quantum * u32::from(channel.weight));
            }
            let turn = if channel.deficit <= 0 && !alone {
                Turn::Over
            } else if channel.kind == ChannelKind::Datagrams {
                self.datagram_turn(now, slot, alone, packet)
            } else {
                let turn = self.stream_turn(slot, alone, packet);
                self.note_sent(slot);
                turn
            };
            if turn == Turn::Full {
                return false;
            }
            self.sched.class(class).fresh.pop_front();
            let channel = self.table.at(slot);
            channel.clear(flag::TURN);
            if turn == Turn::Over {
                self.sched.class(class).fresh.push_back(slot);
                continue;
            }
            channel.clear(flag::IN_FRESH);
            channel.deficit = 0;
            if turn == Turn::Early && !channel.has(flag::IN_EARLY) {
                channel.set(flag::IN_EARLY);
                self.sched.early.push_back(slot);
            }
        }
    }

    #[inline]
    fn stream_turn<R: FnMut(FrameRecord)>(
        &mut self,
        slot: u32,
        alone: bool,
        packet: &mut Packet<'_, R>,
    ) -> Turn {
        let channel = self.table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        let early = channel.state == State::Requested;
        loop {
            let unsent = channel.unsent();
            let mut wanted = unsent;
            if early {
                let free = self.peer.early_data.saturating_sub(self.early_used);
                let over = free <= EARLY_FRAME_COST;
                if over && (unsent > 0 || channel.has(flag::FIN_PENDING)) {
                    return Turn::Early;
                }
                wanted = wanted.min(free.saturating_sub(EARLY_FRAME_COST));
            } else {
                wanted = wanted.min(channel.send_limit.saturating_sub(channel.next_offset()));
            }
            if wanted == 0 {
                if unsent > 0 || !channel.has(flag::FIN_PENDING) {
                    return Turn::Done;
                }
                if packet.room() < FRAME_OVERHEAD {
                    return Turn::Full;
                }
                Self::write_end(key, channel, packet);
                if early {
                    channel.early += EARLY_FRAME_COST as u32;
                    self.early_used += EARLY_FRAME_COST;
                }
                return Turn::Done;
            }
            if !alone {
                wanted = wanted.min(channel.deficit.max(1) as u64);
            }
            let len = packet.piece(wanted);
            let Some(send) = channel.send.as_mut().filter(|_| len > 0) else { return Turn::Full };
            let offset = send.next();
            send.take_new(packet.stream(key, channel.id, offset, len));
            self.unsent -= len as u64;
            if early {
                let cost = len as u64 + EARLY_FRAME_COST;
                channel.early = channel.early.saturating_add(cost as u32);
                self.early_used += cost;
            }
            if !alone {
                channel.deficit = channel.deficit.saturating_sub_unsigned(len as u32);
                if channel.deficit <= 0 {
                    return Turn::Over;
                }
            }
        }
    }

    #[inline]
    fn datagram_turn<R: FnMut(FrameRecord)>(
        &mut self,
        now: Instant,
        slot: u32,
        alone: bool,
        packet: &mut Packet<'_, R>,
    ) -> Turn {
        let Self { table, pool, .. } = self;
        let channel = table.at(slot);
        let key = ChannelKey { slot, life: channel.life };
        let early = channel.state == State::Requested;
        if let Some(mut queue) = channel.datagram_send.take() {
            if channel.expires_ms > 0 {
                self.stats.datagrams_expired += queue.expire(now, pool);
            }
            let turn = loop {
                if early && self.peer.early_data.saturating_sub(self.early_used) <= queue.bytes() {
                    break Turn::Early;
                }
                let rest = &mut packet.buf[packet.at..];
                let (id, payload) = (channel.id, self.packet_payload);
                match queue.fill(rest, id, payload, &mut channel.send_at, pool) {
                    Filled::Empty => break Turn::Done,
                    Filled::Full => break Turn::Full,
                    Filled::Frame(len) => {
                        if packet.framing.is_stream() {
                            let body = len - FRAME_HEADER_LEN;
                            write_bare_header(&mut packet.buf[packet.at..], id, body);
                        } else {
                            channel.set(flag::DIRTY);
                        }
                        packet.at += len;
                        if early {
                            let cost = (len - FRAME_OVERHEAD) as u64 + EARLY_FRAME_COST;
                            channel.early = channel.early.saturating_add(cost as u32);
                            self.early_used += cost;
                        }
                        if !alone {
                            channel.deficit = channel.deficit.saturating_sub_unsigned(len as u32);
                            if channel.deficit <= 0 {
                                break Turn::Over;
                            }
                        }
                    }
                }
            };
            if queue.is_empty() {
                pool.give_datagram_send(queue);
            } else {
                channel.datagram_send = Some(queue);
            }
            if turn != Turn::Done {
                return turn;
            }
        }
        if channel.has(flag::FIN_PENDING) {
            if packet.room() < FRAME_OVERHEAD {
                return Turn::Full;
            }
            Self::write_end(key, channel, packet);
        }
        Turn::Done
    }
}
