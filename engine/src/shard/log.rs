//! What the endpoint told during a receive or a timeout, in order, until the handler hears it.
//!
//! The endpoint calls a [`Recorder`] while it is in the middle of a packet; the handler is called
//! right after, when the endpoint is free again, so that it can open, send and close at once.
//! Bytes are not copied for that: an entry names its place in the receive buffer, which stays with
//! the shard until the handler has seen it. Only bytes that come from elsewhere (put together from
//! packets that arrived out of order) go through an arena.

use crate::retained::{Block, BlockPool};
use crate::sync::Arc;
use std::net::SocketAddr;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::error::CloseReason;
use trunkline_proto::event::{ChannelEnd, ChannelRequest, CloseReport, Incoming, Sink};
use trunkline_proto::ids::{ChannelKey, ConnHandle, PeerId};
use trunkline_proto::manager::{ManagerSink, Notice};
use trunkline_proto::status::Status;

/// An arena larger than this is given back to the allocator after use.
const ARENA_KEEP: usize = 256 << 10;

/// Messages of at least this many bytes are taken with the buffer they were put together in.
const TAKE: usize = 4 << 10;
/// Buffers kept to be swapped for those.
const POOLED: usize = 32;

/// Where the bytes of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the receive buffer being processed, at this offset.
    Buffer,
    /// In the arena.
    Arena,
    /// In a buffer of [`EventLog::owned`]: its index is the length, the bytes begin at the offset.
    Owned,
}

/// Bytes of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub start: u32,
    pub len: u32,
    pub place: Place,
}

/// One event.
#[derive(Debug)]
pub(crate) enum Entry {
    Data { conn: ConnHandle, channel: ChannelKey, span: Span },
    Message { conn: ConnHandle, channel: ChannelKey, kind: ChannelKind, span: Span },
    Ready { conn: ConnHandle, channel: ChannelKey },
    Eof { conn: ConnHandle, channel: ChannelKey },
    Writable { conn: ConnHandle, channel: ChannelKey },
    CreditShort { conn: ConnHandle, channel: ChannelKey },
    Reset { conn: ConnHandle, channel: ChannelKey, code: u32 },
    Stopped { conn: ConnHandle, channel: ChannelKey, code: u32 },
    Receipt { conn: ConnHandle, channel: ChannelKey, token: u64 },
    Checked { conn: ConnHandle },
    Rare { conn: ConnHandle, event: Box<Rare> },
}

/// Events that carry more than a few numbers.
#[derive(Debug)]
pub(crate) enum Rare {
    Status {
        old: Status,
        new: Status,
        reason: Option<CloseReason>,
    },
    Incoming {
        socket: u16,
        remote: SocketAddr,
        peer: Option<PeerId>,
        credential: Vec<u8>,
        server_name: Option<String>,
    },
    Dead(CloseReport),
    Path {
        remote: SocketAddr,
        relayed: bool,
    },
    PathFailed {
        socket: u16,
        remote: SocketAddr,
    },
    Superseded {
        by: ConnHandle,
    },
    Request {
        channel: ChannelKey,
        id: u16,
        name: String,
        options: trunkline_proto::config::ChannelOptions,
    },
    Closed {
        channel: ChannelKey,
        end: ChannelEnd,
    },
    Notice(Notice),
}

impl Entry {
    pub(crate) const fn conn(&self) -> ConnHandle {
        match self {
            Self::Data { conn, .. }
            | Self::Message { conn, .. }
            | Self::Ready { conn, .. }
            | Self::Eof { conn, .. }
            | Self::Writable { conn, .. }
            | Self::CreditShort { conn, .. }
            | Self::Reset { conn, .. }
            | Self::Stopped { conn, .. }
            | Self::Receipt { conn, .. }
            | Self::Checked { conn }
            | Self::Rare { conn, .. } => *conn,
        }
    }
}

/// The events of one receive buffer or one timeout; its memory is used again.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    pub entries: Vec<Entry>,
    pub arena: Vec<u8>,
    /// Buffers in which the endpoint had put messages together.
    pub owned: Vec<Arc<Block>>,
}

/// A pool for those buffers.
pub(crate) const fn block_pool() -> BlockPool {
    BlockPool::new(POOLED)
}

impl EventLog {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Ready for the next buffer.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.owned.clear();
        if self.arena.capacity() > ARENA_KEEP {
            self.arena = Vec::new();
        } else {
            self.arena.clear();
        }
    }

    /// The bytes of `span`; `buffer` is what the recorder was given.
    pub(crate) fn bytes<'a>(&'a self, span: Span, buffer: &'a [u8]) -> &'a [u8] {
        let range = span.start as usize..span.start as usize + span.len as usize;
        let bytes = match span.place {
            Place::Buffer => buffer.get(range),
            Place::Arena => self.arena.get(range),
            Place::Owned => self.block(span).and_then(|block| block.get(range.start..)),
        };
        bytes.unwrap_or_default()
    }

    /// The buffer that the bytes of `span` have to themselves.
    pub(crate) fn block(&self, span: Span) -> Option<&Arc<Block>> {
        (span.place == Place::Owned).then(|| self.owned.get(span.len as usize)).flatten()
    }

    /// A recorder for events about the bytes at `buffer`, which arrived at `socket`.
    pub(crate) fn recorder<'a>(
        &'a mut self,
        pool: &'a mut BlockPool,
        buffer: &[u8],
        socket: u16,
    ) -> Recorder<'a> {
        Recorder { log: self, pool, base: buffer.as_ptr() as usize, len: buffer.len(), socket }
    }
}

/// The sink that fills an [`EventLog`].
pub(crate) struct Recorder<'a> {
    log: &'a mut EventLog,
    pool: &'a mut BlockPool,
    base: usize,
    len: usize,
    socket: u16,
}

impl Recorder<'_> {
    fn span(&mut self, bytes: &[u8]) -> Span {
        let len = bytes.len() as u32;
        let offset = (bytes.as_ptr() as usize).wrapping_sub(self.base);
        if offset <= self.len && bytes.len() <= self.len - offset {
            return Span { start: offset as u32, len, place: Place::Buffer };
        }
        let start = self.log.arena.len() as u32;
        self.log.arena.extend_from_slice(bytes);
        Span { start, len, place: Place::Arena }
    }

    fn push(&mut self, entry: Entry) {
        self.log.entries.push(entry);
    }

    fn rare(&mut self, conn: ConnHandle, event: Rare) {
        self.push(Entry::Rare { conn, event: Box::new(event) });
    }
}

impl Sink for Recorder<'_> {
    fn status(&mut self, conn: ConnHandle, old: Status, new: Status, reason: Option<&CloseReason>) {
        self.rare(conn, Rare::Status { old, new, reason: reason.cloned() });
    }

    fn incoming(&mut self, conn: ConnHandle, incoming: &Incoming<'_>) {
        let event = Rare::Incoming {
            socket: self.socket,
            remote: incoming.remote,
            peer: incoming.peer,
            credential: incoming.credential.to_vec(),
            server_name: incoming.server_name.map(str::to_owned),
        };
        self.rare(conn, event);
    }

    fn dead(&mut self, conn: ConnHandle, report: &CloseReport) {
        self.rare(conn, Rare::Dead(report.clone()));
    }

    fn channel_request(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        request: &ChannelRequest<'_>,
    ) {
        let event = Rare::Request {
            channel,
            id: request.id,
            name: request.name.to_owned(),
            options: request.options,
        };
        self.rare(conn, event);
    }

    fn channel_ready(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.push(Entry::Ready { conn, channel });
    }

    fn channel_closed(&mut self, conn: ConnHandle, channel: ChannelKey, end: &ChannelEnd) {
        self.rare(conn, Rare::Closed { channel, end: end.clone() });
    }

    #[inline]
    fn data(&mut self, conn: ConnHandle, channel: ChannelKey, bytes: &[u8]) {
        let span = self.span(bytes);
        self.push(Entry::Data { conn, channel, span });
    }

    #[inline]
    fn message(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        kind: ChannelKind,
        message: &[u8],
    ) {
        let span = self.span(message);
        self.push(Entry::Message { conn, channel, kind, span });
    }

    fn message_buffer(
        &mut self,
        conn: ConnHandle,
        channel: ChannelKey,
        kind: ChannelKind,
        buffer: &mut Vec<u8>,
        from: usize,
    ) {
        let len = buffer.len().saturating_sub(from);
        if len < TAKE {
            let span = self.span(buffer.get(from..).unwrap_or_default());
            return self.push(Entry::Message { conn, channel, kind, span });
        }
        // Few messages are that long: the place of this one and of its bytes fit the span.
        let index = self.log.owned.len() as u32;
        self.log.owned.push(self.pool.swap(buffer));
        let span = Span { start: from as u32, len: index, place: Place::Owned };
        self.push(Entry::Message { conn, channel, kind, span });
    }

    fn eof(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.push(Entry::Eof { conn, channel });
    }

    fn reset(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {
        self.push(Entry::Reset { conn, channel, code });
    }

    fn stopped(&mut self, conn: ConnHandle, channel: ChannelKey, code: u32) {
        self.push(Entry::Stopped { conn, channel, code });
    }

    fn writable(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.push(Entry::Writable { conn, channel });
    }
    fn credit_short(&mut self, conn: ConnHandle, channel: ChannelKey) {
        self.push(Entry::CreditShort { conn, channel });
    }

    fn receipt(&mut self, conn: ConnHandle, channel: ChannelKey, token: u64) {
        self.push(Entry::Receipt { conn, channel, token });
    }

    fn path(&mut self, conn: ConnHandle, remote: SocketAddr, relayed: bool) {
        self.rare(conn, Rare::Path { remote, relayed });
    }

    fn path_failed(&mut self, conn: ConnHandle, socket: u16, remote: SocketAddr) {
        self.rare(conn, Rare::PathFailed { socket, remote });
    }

    fn superseded(&mut self, conn: ConnHandle, by: ConnHandle) {
        self.rare(conn, Rare::Superseded { by });
    }

    fn check_answered(&mut self, conn: ConnHandle) {
        self.push(Entry::Checked { conn });
    }
}

/// What is told of no connection.
const NOBODY: ConnHandle = ConnHandle { slot: u32::MAX, generation: 0 };

impl ManagerSink for Recorder<'_> {
    fn notice(&mut self, notice: Notice) {
        let conn = match &notice {
            Notice::Begun { conn, .. } => *conn,
            _ => NOBODY,
        };
        self.rare(conn, Rare::Notice(notice));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnHandle = ConnHandle { slot: 1, generation: 1 };
    const CHANNEL: ChannelKey = ChannelKey { slot: 2, life: 3 };

    fn spans(log: &EventLog) -> Vec<Span> {
        log.entries
            .iter()
            .map(|e| match e {
                Entry::Data { span, .. } | Entry::Message { span, .. } => *span,
                _ => unreachable!(),
            })
            .collect()
    }

    #[test]
    fn bytes_of_the_buffer_are_named_and_others_copied() {
        let buffer = b"0123456789".to_vec();
        let (mut log, mut pool) = (EventLog::default(), block_pool());
        let mut recorder = log.recorder(&mut pool, &buffer, 0);
        recorder.data(CONN, CHANNEL, &buffer[2..5]);
        recorder.message(CONN, CHANNEL, ChannelKind::Messages, b"elsewhere");
        recorder.data(CONN, CHANNEL, &buffer[..]);
        recorder.data(CONN, CHANNEL, &buffer[10..]);
        recorder.message(CONN, CHANNEL, ChannelKind::Messages, b"");
        let spans = spans(&log);
        assert_eq!(spans[0].place, Place::Buffer);
        assert_eq!(log.bytes(spans[0], &buffer), b"234");
        assert_eq!(spans[1].place, Place::Arena);
        assert_eq!(log.bytes(spans[1], &buffer), b"elsewhere");
        assert_eq!(log.bytes(spans[2], &buffer), b"0123456789");
        assert_eq!(log.bytes(spans[3], &buffer), b"");
        assert_eq!(log.bytes(spans[4], &buffer), b"");
    }

    #[test]
    fn a_buffer_is_taken_and_comes_back() {
        let (mut log, mut pool) = (EventLog::default(), block_pool());
        let mut buffer = vec![7; 10_000];
        buffer[..2].fill(0);
        let address = buffer.as_ptr();
        log.recorder(&mut pool, &[], 0).message_buffer(
            CONN,
            CHANNEL,
            ChannelKind::Messages,
            &mut buffer,
            2,
        );
        assert!(buffer.is_empty());
        let span = spans(&log)[0];
        assert_eq!(log.bytes(span, &[]), &[7; 9_998][..]);
        assert_eq!(log.bytes(span, &[]).as_ptr() as usize, address as usize + 2);
        log.clear();
        let mut other = vec![1; 5_000];
        log.recorder(&mut pool, &[], 0).message_buffer(
            CONN,
            CHANNEL,
            ChannelKind::Messages,
            &mut other,
            0,
        );
        assert_eq!(other.as_ptr(), address, "the first buffer is used again");
        let mut short = vec![1; 50];
        log.recorder(&mut pool, &[], 0).message_buffer(
            CONN,
            CHANNEL,
            ChannelKind::Messages,
            &mut short,
            1,
        );
        assert_eq!(short.len(), 50);
        assert_eq!(log.bytes(spans(&log)[1], &[]), &[1; 49][..]);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 32, "{}", size_of::<Entry>());
    }

    #[test]
    fn a_large_arena_is_not_kept() {
        let (mut log, mut pool) = (EventLog::default(), block_pool());
        log.recorder(&mut pool, &[], 0).data(CONN, CHANNEL, &vec![7; ARENA_KEEP * 2]);
        log.clear();
        assert_eq!(log.arena.capacity(), 0);
        log.recorder(&mut pool, &[], 0).data(CONN, CHANNEL, &[7; 100]);
        log.clear();
        assert!(log.arena.capacity() >= 100);
        assert!(log.is_empty());
    }
}
