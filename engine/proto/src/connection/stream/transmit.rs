//! Frames of the channels into TLS records.

use crate::connection::Connection;
use crate::event::{NullSink, Sink};
use crate::limits::{CONTROL_CHANNEL, MAX_STREAM_RECORDS, STREAM_PAYLOAD, STREAM_RECORD};
use crate::status::Status;
use crate::time::Instant;
use crate::wire::frame::write_bare_frame;
use crate::wire::link_message::LinkMessage;

/// What TLS adds to a record at most (RFC 8446 §5.2).
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
/// Room for one message of the link itself: Consumed, Ping, Close or its answer.
const LINK_MESSAGE: usize = 160;

impl Connection {
    /// Writes the next bytes of the stream into `out`; gives how many, and whether something else has
    /// changed. `scratch` has room for the plaintext of one record.
    pub(crate) fn stream_transmit<S: Sink>(
        &mut self,
        now: Instant,
        out: &mut [u8],
        scratch: &mut [u8],
        sink: &mut S,
    ) -> (usize, bool) {
        let mut changed = false;
        if self.is_plain()
            && let Some(handed) = self.stream.as_ref().map(|link| link.handed)
        {
            // Nothing on the wire says more than that TCP has what was written last.
            changed = if self.status.is_open_to_application() {
                self.stream_acked(now, handed, sink)
            } else {
                self.stream_acked(now, handed, &mut NullSink)
            };
        }
        let Some(mut tls) = self.stream.as_mut().and_then(|link| link.tls.take()) else {
            return (0, changed);
        };
        let mut n = 0;
        loop {
            n += tls.write(&mut out[n..]);
            let room = out.len() - n;
            if tls.wants_write() || room < STREAM_RECORD + RECORD_OVERHEAD {
                break;
            }
            let len = self.fill_record(now, scratch);
            if len > 0 {
                tls.seal(&scratch[..len]);
            } else if !self.notify_is_due() {
                break;
            } else if let Some(link) = &mut self.stream {
                link.notified = true;
                tls.close_notify();
            }
        }
        if let Some(link) = &mut self.stream {
            if !tls.wants_write() {
                link.handed = link.written;
            }
            link.tls = Some(tls);
            link.bytes_sent += n as u64;
        }
        (n, changed)
    }

    /// Packs one record; gives its length.
    fn fill_record(&mut self, now: Instant, scratch: &mut [u8]) -> usize {
        let handshaking = self.stream.as_ref().is_none_or(|link| !link.up || link.notified);
        if handshaking {
            return 0;
        }
        let room = scratch.len().min(STREAM_PAYLOAD);
        let full =
            self.stream.as_ref().is_some_and(|link| link.records.len() >= MAX_STREAM_RECORDS);
        let denied = self.closing.as_ref().is_some_and(|c| c.rejection && c.due);
        let mut n = 0;
        if (self.is_transferring() || denied) && !full {
            let Self { stream, mux, .. } = self;
            let Some(link) = stream else { return 0 };
            let start = link.written;
            let fresh = link.records.len();
            n = mux
                .fill(now, &mut scratch[..room], &mut |record| link.records.push_back((0, record)));
            // What is in one record is taken as one.
            for (end, _) in link.records.range_mut(fresh..) {
                *end = start + n as u64;
            }
            link.written += n as u64;
            if n > 0 {
                self.busy(now);
                self.awaiting_answer = true;
            }
        }
        if self.is_plain() {
            return n;
        }
        n + self.fill_link_messages(now, n > 0, &mut scratch[n..])
    }

    /// Messages of the link itself, behind everything else in a record. `goes_anyway`: there is
    /// something else.
    fn fill_link_messages(&mut self, now: Instant, goes_anyway: bool, room: &mut [u8]) -> usize {
        let ending = !self.is_transferring();
        let Some(link) = &mut self.stream else { return 0 };
        let mut at = 0;
        let mut write = |message: LinkMessage<'_>| {
            let mut body = Vec::with_capacity(LINK_MESSAGE);
            message.encode(&mut body);
            at += write_bare_frame(&mut room[at..], CONTROL_CHANNEL, &body)
                .expect("room for messages of the link");
        };
        // Parameters are the first message: before they are out nothing was received to speak of.
        let started = link.written > 0;
        let consumed = link.consumed_now || (goes_anyway && link.asks && link.read > link.told);
        if started && !ending && consumed {
            write(LinkMessage::Consumed { position: link.read });
            (link.told, link.asks) = (link.read, false);
            (link.consumed_now, link.consumed_at) = (false, None);
        }
        let pings = started && !ending && core::mem::take(&mut self.pending.ping);
        if pings {
            write(LinkMessage::Ping);
        }
        if core::mem::take(&mut self.pending.close_ack) {
            write(LinkMessage::CloseAck);
        }
        if let Some(closing) = &mut self.closing
            && closing.due
            && !closing.acknowledged
            && !link.close_sent
        {
            let (reason, discarded) = (closing.reason.reason, closing.discarded);
            write(LinkMessage::Close { reason, discarded, text: &closing.reason.text });
            closing.due = false;
            link.close_sent = true;
        }
        link.written += at as u64;
        if pings {
            link.ping = Some((link.written, now));
        }
        at
    }

    /// Whether nothing is left to say: close_notify ends our direction.
    fn notify_is_due(&mut self) -> bool {
        let plain = self.is_plain();
        let Some(link) = &self.stream else { return false };
        let over = match self.status {
            Status::ClosedByPeer | Status::Dead => true,
            // CLOSE is out, and its acknowledgement still has to be read. Before TLS stands, and on a
            // plain link, there is nothing to wait for.
            Status::ProblemDetectedLocally | Status::FinWait => {
                let settled = self.closing.as_ref().is_none_or(|c| c.is_settled());
                plain || !link.up || settled || link.ended.is_some()
            }
            _ => false,
        };
        let due = over && !link.notified;
        if due
            && plain
            && let Some(closing) = &mut self.closing
        {
            closing.due = false;
        }
        due
    }
}
