//! From commands to the endpoint: what a channel sends, and what waits for room.

use super::command::{COPY_AGAIN, Pack};
use super::event::Event;
use super::handler::{NONE, QueueHandler};
use super::waiting::Next;
use crate::handle::{Channel, Conn};
use crate::handler::Context;
use std::sync::atomic::Ordering;
use trunkline_proto::endpoint::SendOptions;
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::limits;
use trunkline_proto::payload::Payload;

/// Channels whose credit is returned in one go.
const CREDITS_A_TURN: usize = 4096;
/// Calls of other shards in one turn.
const HANDED_A_TURN: usize = 1024;

/// What one call sends.
pub(super) enum Outgoing<'a> {
    Bytes(&'a [u8]),
    Payload(Payload),
}

impl Outgoing<'_> {
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Payload(data) => data.len(),
        }
    }
}

impl QueueHandler {
    /// Sends for a callback on this thread, without a queue: what finds no room is not taken. What
    /// other threads have sent before and still waits goes first.
    #[inline]
    pub(super) fn send_here(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        what: &Outgoing<'_>,
        receipt: Option<u64>,
    ) -> Result<(), ApiError> {
        let side = self.side(key.slot, key.life).ok_or(ApiError::InvalidHandle)?;
        if let Some(real) = side.real.filter(|_| side.waiting.is_empty()) {
            let options = SendOptions { receipt, ..SendOptions::default() };
            let sent = match what {
                Outgoing::Bytes(bytes) => cx.send_with(real, bytes, options),
                Outgoing::Payload(data) => cx.send_payload(real, data.clone(), options),
            };
            if let Err(ApiError::WouldBlock(_)) = sent {
                side.blocked = true;
            }
            return sent;
        }
        let (len, limit) = (what.len(), limits::MAX_MESSAGE);
        if len > limit {
            return Err(ApiError::MessageTooLarge { len, limit });
        }
        if let Some(cell) = self.link.channels.get(key.slot) {
            self.link.admit(cell, len)?;
        }
        let side = self.channels.get_mut(key.slot as usize).ok_or(ApiError::InvalidHandle)?;
        match what {
            Outgoing::Bytes(bytes) => side.waiting.push_copy(bytes, receipt, &mut self.spare),
            Outgoing::Payload(data) => side.waiting.push_payload(data.clone(), receipt),
        }
        Ok(())
    }

    /// After room has come: tells a callback that found none.
    pub(super) fn tell_writable(&mut self, name: Channel) {
        let key = name.key();
        let Some(side) = self.side(key.slot, key.life) else { return };
        if side.blocked && side.waiting.is_empty() {
            side.blocked = false;
            self.emit(name.conn().slot(), Event::Writable { channel: name });
        }
    }

    /// `len` bytes of a channel are no longer queued.
    #[inline]
    pub(super) fn finished(&mut self, cell: u32, len: usize) {
        if self.done.0 != cell {
            self.settle();
            self.done.0 = cell;
        }
        self.done.1 += len as u64;
    }

    /// Takes what is done from its channel's count; a blocked channel hears of the room.
    pub(super) fn settle(&mut self) {
        let (index, bytes) = std::mem::replace(&mut self.done, (NONE, 0));
        if bytes == 0 {
            return;
        }
        let Some(cell) = self.link.channels.get(index) else { return };
        if cell.unqueue(bytes) {
            self.maybe_writable(index);
        }
    }

    /// Tells the application that a blocked channel has room, if it has. One that is still to begin
    /// is told then.
    pub(super) fn maybe_writable(&mut self, index: u32) {
        let Some(name) = self.name_of(index).filter(|n| n.key().life % 2 == 1) else { return };
        if self.link.channels.get(index).is_some_and(|cell| self.link.unblock(cell)) {
            self.emit(name.conn().slot(), Event::Writable { channel: name });
        }
    }

    #[inline]
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        (cell, life): (u32, u32),
        bytes: &[u8],
        receipt: Option<u64>,
    ) {
        let Some(side) = self.side(cell, life) else {
            self.finished(cell, bytes.len());
            return;
        };
        if let Some(real) = side.real.filter(|_| side.waiting.is_empty()) {
            let options = SendOptions { receipt, ..SendOptions::default() };
            match cx.send_with(real, bytes, options) {
                Ok(()) => return self.finished(cell, bytes.len()),
                Err(ApiError::WouldBlock(_)) => {}
                Err(error) => return self.failed(cell, bytes.len(), error),
            }
        }
        let Some(side) = self.channels.get_mut(cell as usize) else { return };
        side.waiting.push_copy(bytes, receipt, &mut self.spare);
    }

    pub(super) fn send_data(
        &mut self,
        cx: &mut Context<'_>,
        (cell, life): (u32, u32),
        data: Payload,
        receipt: Option<u64>,
        copied: bool,
    ) {
        let len = data.len();
        self.link.waiting_bytes.fetch_sub(len as u64, Ordering::Relaxed);
        if copied && len <= COPY_AGAIN {
            return self.send(cx, (cell, life), data.as_slice(), receipt);
        }
        let Some(side) = self.side(cell, life) else {
            return self.finished(cell, len);
        };
        let Some(real) = side.real.filter(|_| side.waiting.is_empty()) else {
            side.waiting.push_payload(data, receipt);
            return;
        };
        let options = SendOptions { receipt, ..SendOptions::default() };
        match cx.send_payload(real, data.clone(), options) {
            Ok(()) => self.finished(cell, len),
            Err(ApiError::WouldBlock(_)) => {
                if let Some(side) = self.side(cell, life) {
                    side.waiting.push_payload(data, receipt);
                }
            }
            Err(error) => self.failed(cell, len, error),
        }
    }

    pub(super) fn send_many(&mut self, cx: &mut Context<'_>, pack: Box<Pack>) {
        self.link.waiting_bytes.fetch_sub(pack.bytes.len() as u64, Ordering::Relaxed);
        let mut rest = &pack.bytes[..];
        for part in &pack.parts {
            let (message, after) = rest.split_at(rest.len().min(part.len as usize));
            rest = after;
            self.send(cx, (part.cell, part.life), message, None);
        }
        self.link.packs.give_back(pack);
    }

    /// Tries again with what waits on a channel.
    pub(super) fn send_waiting(&mut self, cx: &mut Context<'_>, cell: u32, over_limit: bool) {
        loop {
            let Some(side) = self.channels.get_mut(cell as usize) else { return };
            let Some(real) = side.real else { return };
            let Some(next) = side.waiting.front() else { return };
            let len = next.len();
            let sent = match next {
                Next::Finish => cx.finish(real),
                Next::Copy(bytes, receipt) => {
                    cx.send_with(real, bytes, SendOptions { receipt, over_limit })
                }
                Next::Payload(data, receipt) => {
                    cx.send_payload(real, data.clone(), SendOptions { receipt, over_limit })
                }
            };
            if let Err(ApiError::WouldBlock(_)) = sent {
                return;
            }
            side.waiting.pop_front(&mut self.spare);
            match sent {
                Ok(()) => self.finished(cell, len),
                Err(error) => self.failed(cell, len, error),
            }
        }
    }

    fn failed(&mut self, cell: u32, len: usize, error: ApiError) {
        self.finished(cell, len);
        // Unreliable messages may be dropped; the end of a connection is told by its own events.
        if matches!(error, ApiError::Dropped(_) | ApiError::NoConnection(_)) {
            return;
        }
        if let Some(channel) = self.name_of(cell) {
            self.emit(channel.conn().slot(), Event::SendFailed { channel, error });
        }
    }

    pub(super) fn finish(&mut self, cx: &mut Context<'_>, cell: u32, life: u32) {
        let Some(side) = self.side(cell, life) else { return };
        if !side.waiting.is_empty() {
            side.waiting.push_finish();
            return;
        }
        if let Some(real) = side.real
            && let Err(error) = cx.finish(real)
        {
            self.failed(cell, 0, error);
        }
    }

    /// Cancels what a channel sends, what waits included.
    pub(super) fn reset(&mut self, cx: &mut Context<'_>, cell: u32, life: u32, code: u32) {
        let Some(side) = self.side(cell, life) else { return };
        let real = side.real;
        let mut waiting = std::mem::take(&mut side.waiting);
        let lost = waiting.clear(&mut self.spare);
        self.finished(cell, lost);
        if let Some(real) = real {
            let _ = cx.reset(real, code);
        }
    }

    /// Looks at the lists of channels that need something.
    pub(super) fn service(&mut self, cx: &mut Context<'_>) {
        self.link.begin_service();
        let link = self.link.clone();
        while let Some(index) = link.next_blocked() {
            self.maybe_writable(index);
        }
        while let Some((index, bytes)) = link.next_ended() {
            if let Some(Ok(real)) = self.conn_name(index).map(|conn| self.real_conn(conn)) {
                let _ = cx.consume_ended(real, bytes);
            }
        }
        for _ in 0..HANDED_A_TURN {
            let Some(call) = link.handed.pop() else { break };
            call(self, cx);
        }
        for _ in 0..CREDITS_A_TURN {
            let Some(index) = link.next_credit() else { break };
            self.return_credit(cx, index);
        }
        if !link.credits.is_empty() || !link.handed.is_empty() {
            link.poke();
        }
    }

    /// Tells the connection what was taken of a channel, and settles when it will be told again.
    pub(super) fn return_credit(&mut self, cx: &mut Context<'_>, index: u32) {
        let Some(cell) = self.link.channels.get(index) else { return };
        let mut bytes = cell.released.take();
        let mut side = self.channels.get_mut(index as usize);
        bytes += side.as_mut().map_or(0, |side| std::mem::take(&mut side.taken));
        let real = side.as_ref().and_then(|side| side.real);
        if let Some(real) = real {
            let _ = cx.consume(real, bytes);
            if let (Some(step), Some(side)) = (cx.credit_step(real), side) {
                side.step = step;
                cell.credit_step.store(step, Ordering::SeqCst);
                // The application may have taken as much before it could see the new step.
                self.link.tell_credit(index, cell);
            }
        } else if let Ok(conn) = self.real_conn(Conn::from_bits(cell.conn.load(Ordering::Relaxed)))
        {
            let _ = cx.consume_ended(conn, bytes);
        }
    }
}
