//! TLS records in, frames to the channels.

use super::Body;
use crate::channel::FrameShape;
use crate::connection::Connection;
use crate::connection::handshaking::Authentication;
use crate::error::PeerMisbehaved;
use crate::event::{NullSink, Sink};
use crate::ids::Role;
use crate::limits::{CONTROL_CHANNEL, FRAME_HEADER_LEN, TRANSPORT_CHANNEL};
use crate::status::Status;
use crate::time::Instant;
use crate::wire::control::{ControlMessage, next_value, parse};
use crate::wire::link_message::LinkMessage;

/// The peer is told at once when this much has been taken since it heard last.
const CONSUMED_STEP: u64 = 128 << 10;

impl Connection {
    /// Takes bytes of the TCP stream, in order.
    pub(crate) fn stream_receive<S: Sink>(&mut self, now: Instant, bytes: &[u8], sink: &mut S) {
        self.counters.bytes_received += bytes.len() as u64;
        let Some(link) = &mut self.stream else { return };
        if link.notified || link.failed {
            // Nothing that comes now counts but the end of the stream.
            return;
        }
        if link.paused {
            // Order is kept; how much is held is bounded by what was on its way when reading stopped.
            link.held.extend_from_slice(bytes);
            return;
        }
        self.take_records(now, bytes, sink);
    }

    /// Goes on with what was held back.
    pub(super) fn resume_stream<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        if self.stream.as_ref().is_none_or(|link| !link.paused) || self.stream_is_blocked() {
            return;
        }
        let Some(link) = &mut self.stream else { return };
        link.paused = false;
        let held = core::mem::take(&mut link.held);
        if link.notified || link.failed {
            return;
        }
        self.take_records(now, &held, sink);
    }

    fn take_records<S: Sink>(&mut self, now: Instant, bytes: &[u8], sink: &mut S) {
        let Some(mut tls) = self.stream.as_mut().and_then(|link| link.tls.take()) else { return };
        let mut rest = bytes;
        // What was decrypted before reading stopped comes first.
        let mut first = true;
        let mut drained = false;
        loop {
            if self.stream_is_blocked() {
                if let Some(link) = &mut self.stream
                    && !(drained && rest.is_empty())
                {
                    link.paused = true;
                    link.held.extend_from_slice(rest);
                }
                break;
            }
            if !first {
                if rest.is_empty() {
                    break;
                }
                match tls.read(&mut rest) {
                    Ok(true) => drained = false,
                    Ok(false) => break,
                    Err(error) => {
                        if let Some(link) = &mut self.stream {
                            link.failed = true;
                        }
                        self.tls_failed(now, &error, sink);
                        break;
                    }
                }
                if self.stream.as_ref().is_some_and(|link| !link.up) && !tls.is_handshaking() {
                    self.on_stream_up(now, &mut tls, sink);
                    if self.stream_is_blocked() {
                        continue;
                    }
                }
            }
            (first, drained) = (false, true);
            tls.plaintext(|bytes| {
                if self.status.is_open_to_application() {
                    self.take_plaintext(now, bytes, sink);
                } else {
                    self.take_plaintext(now, bytes, &mut NullSink);
                }
            });
        }
        if let Some(link) = &mut self.stream {
            if tls.is_closed_by_peer() && link.ended.is_none() {
                // Nothing counts behind it, and not everybody who waits for ours ends its direction.
                link.ended = Some(Ok(()));
            }
            link.tls = Some(tls);
        }
        self.note_taken(now);
        self.heard(now);
    }

    /// Decides when the peer hears of what was taken.
    fn note_taken(&mut self, now: Instant) {
        let delay = self.config.max_ack_delay;
        let Some(link) = &mut self.stream else { return };
        if !link.asks || link.read == link.told {
            return;
        }
        if link.read - link.told >= CONSUMED_STEP {
            link.consumed_now = true;
        } else if link.consumed_at.is_none() {
            link.consumed_at = Some(now + delay);
        }
    }

    /// Takes plaintext. What breaks the protocol ends the connection, and the frames behind it are
    /// still told apart: the peer's last words are among them.
    fn take_plaintext<S: Sink>(&mut self, now: Instant, mut bytes: &[u8], sink: &mut S) {
        while !bytes.is_empty() {
            if let Err(e) = self.take_frames(now, &mut bytes, sink) {
                self.misbehaved(now, e, sink);
            }
        }
    }

    /// Cuts plaintext into frames, up to the first that breaks the protocol; `rest` is what is left.
    fn take_frames<S: Sink>(
        &mut self,
        now: Instant,
        rest: &mut &[u8],
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        while !rest.is_empty() {
            let bytes = *rest;
            let Some(link) = &mut self.stream else { return Ok(()) };
            let Some(body) = link.body else {
                let n = (FRAME_HEADER_LEN - link.head_len).min(bytes.len());
                let (head, after) = bytes.split_at(n);
                link.head[link.head_len..link.head_len + n].copy_from_slice(head);
                link.head_len += n;
                link.read += n as u64;
                *rest = after;
                if link.head_len == FRAME_HEADER_LEN {
                    link.head_len = 0;
                    let word = u32::from_be_bytes(link.head);
                    let (channel, len) = (word as u16, (word >> 16) as usize);
                    if let Err(e) = self.begin_frame(now, channel, len, sink) {
                        self.skip_body(channel, len);
                        return Err(e);
                    }
                }
                continue;
            };
            let (piece, after) = bytes.split_at(body.missing.min(bytes.len()));
            *rest = after;
            link.read += piece.len() as u64;
            link.body = (piece.len() < body.missing)
                .then(|| Body { missing: body.missing - piece.len(), ..body });
            let last = link.body.is_none();
            match body.shape {
                FrameShape::Skip => {}
                FrameShape::Pieces => {
                    self.on_stream_piece(now, body.channel, piece, sink)?;
                }
                FrameShape::Whole if last && link.whole.is_empty() => {
                    self.on_whole_frame(now, body.channel, piece, sink)?;
                }
                FrameShape::Whole => {
                    link.whole.extend_from_slice(piece);
                    if last {
                        let whole = core::mem::take(&mut link.whole);
                        let result = self.on_whole_frame(now, body.channel, &whole, sink);
                        self.keep_buffer(whole);
                        result?;
                    }
                }
            }
        }
        Ok(())
    }

    fn skip_body(&mut self, channel: u16, len: usize) {
        if let Some(link) = &mut self.stream {
            let body = Body { channel, shape: FrameShape::Skip, missing: len };
            link.body = (len > 0).then_some(body);
        }
    }

    fn keep_buffer(&mut self, mut whole: Vec<u8>) {
        whole.clear();
        if let Some(link) = &mut self.stream {
            link.whole = whole;
        }
    }

    fn begin_frame<S: Sink>(
        &mut self,
        now: Instant,
        channel: u16,
        len: usize,
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        let plain = self.is_plain();
        if channel == TRANSPORT_CHANNEL && !plain {
            return Err(PeerMisbehaved::Unexpected("TRANSPORT frame on a stream link"));
        }
        if self.role == Role::Host
            && self.authentication != Authentication::Done
            && channel != CONTROL_CHANNEL
            && self.is_transferring()
        {
            return Err(PeerMisbehaved::Unexpected("data before the connection was accepted"));
        }
        if len == 0 && channel == CONTROL_CHANNEL {
            return if plain { Ok(()) } else { Err(PeerMisbehaved::Malformed("EOF of CONTROL")) };
        }
        let shape = self.mux.frame_shape(channel);
        let transferring = self.is_transferring();
        let Some(link) = &mut self.stream else { return Ok(()) };
        if channel != CONTROL_CHANNEL {
            link.asks = true;
        }
        if len > 0 {
            link.body = Some(Body { channel, shape, missing: len });
            return Ok(());
        }
        if transferring {
            self.mux.on_stream_eof(now, self.handle, channel, sink)?;
            self.busy(now);
        }
        Ok(())
    }

    fn on_stream_piece<S: Sink>(
        &mut self,
        now: Instant,
        channel: u16,
        piece: &[u8],
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        if !self.is_transferring() {
            return Ok(());
        }
        self.busy(now);
        self.mux.on_stream_bytes(now, self.handle, channel, piece, sink)
    }

    fn on_whole_frame<S: Sink>(
        &mut self,
        now: Instant,
        channel: u16,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), PeerMisbehaved> {
        if !self.is_transferring() {
            if channel == CONTROL_CHANNEL {
                self.late_control(now, body);
            }
            return Ok(());
        }
        if channel != CONTROL_CHANNEL {
            self.busy(now);
            return self.mux.on_stream_frame(now, self.handle, channel, body, sink);
        }
        if let Some(link) = &mut self.stream {
            link.asks |= !is_consumed(body);
        }
        self.mux.on_stream_frame(now, self.handle, channel, body, sink)?;
        self.take_control(now, sink)
    }

    /// After the end only what concerns the end counts.
    fn late_control(&mut self, now: Instant, body: &[u8]) {
        let mut rest = body;
        let mut ends = false;
        while let Ok(Some(len)) = next_value(rest) {
            let (message, after) = rest.split_at(len);
            rest = after;
            match parse(message) {
                Ok(ControlMessage::Link(LinkMessage::Close { .. })) => {
                    self.pending.close_ack = true;
                    ends = true;
                }
                Ok(ControlMessage::Link(LinkMessage::CloseAck)) => ends = true,
                _ => {}
            }
        }
        let waits = matches!(self.status, Status::FinWait | Status::ProblemDetectedLocally);
        if let Some(closing) = &mut self.closing
            && ends
            && waits
        {
            closing.on_acknowledged();
            self.busy(now);
        }
    }
}

/// Whether a frame of CONTROL holds nothing but one Consumed, which is not answered.
fn is_consumed(body: &[u8]) -> bool {
    matches!(parse(body), Ok(ControlMessage::Link(LinkMessage::Consumed { .. })))
}
