//! Handing messages to the shards.

use super::QueuedEngine;
use super::callbacks::is_inside;
use super::cells::{ChannelCell, LOSSY, MESSAGES};
use super::channels::usable;
use super::command::{Command, INLINE, Part};
use super::link::ShardLink;
use super::memory::{PACK_BYTES, PACK_PARTS};
use super::outgoing::Outgoing;
use crate::buf::SendBuf;
use crate::handle::Channel;
use crate::sync::atomic::Ordering;
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::limits;
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;

impl QueuedEngine {
    /// Sends a copy of `data`: the next bytes of a `bytes` channel, or one message.
    ///
    /// # Errors
    /// [`ApiError::WouldBlock`] when a queue is full ([`Event::Writable`](crate::Event::Writable) follows);
    /// [`ApiError::Dropped`] for an unreliable message that cannot go now;
    /// [`ApiError::MessageTooLarge`]; a stale handle, or a connection that has ended.
    #[inline]
    pub fn send(&self, channel: Channel, data: &[u8]) -> Result<(), ApiError> {
        let (link, cell) = self.channel(channel)?;
        if let Some(sent) = self.send_here(channel, Outgoing::Bytes(data), None) {
            return sent;
        }
        send_queued(link, cell, channel, data)
    }

    /// Sends on a channel as a number where [`send_inside`](Self::send_inside) has said
    /// [`Elsewhere`](super::SentInside::Elsewhere).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_outside(&self, bits: u64, data: &[u8]) -> Result<(), ApiError> {
        let (link, cell, channel) = self.named(bits)?;
        send_queued(link, cell, channel, data)
    }

    /// The same, with an [`Event::Receipt`](crate::Event::Receipt) when the peer has acknowledged all of it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with_receipt(
        &self,
        channel: Channel,
        data: &[u8],
        token: u64,
    ) -> Result<(), ApiError> {
        let (link, cell) = self.channel(channel)?;
        let bytes = Outgoing::Bytes(data);
        if let Some(sent) = self.send_here(channel, bytes, Some(token)) {
            return sent;
        }
        send_copy(link, cell, channel, data, Some(token))
    }

    /// Sends without a copy; `data` is let go when all of it is acknowledged.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_payload(
        &self,
        channel: Channel,
        data: Payload,
        receipt: Option<u64>,
    ) -> Result<(), ApiError> {
        let (link, cell) = self.channel(channel)?;
        if is_inside() {
            let payload = Outgoing::Payload(data.clone());
            if let Some(sent) = self.send_here(channel, payload, receipt) {
                return sent;
            }
        }
        admit(link, cell, channel, data.len())?;
        push_payload(link, cell, channel, data, receipt, false)
    }

    /// A buffer of the engine to write a payload into; `None` when all are in use or `len` is more
    /// than one holds. Send it with [`SendBuf::freeze`] and [`send_payload`](Self::send_payload).
    pub fn send_buf(&self, len: usize) -> Option<SendBuf> {
        let pool = &self.inner.shared.send_pool;
        if len > pool.buffer_bytes() { None } else { pool.take() }
    }

    /// Sends many short messages with few queue operations. Returns how many were taken, from the
    /// front; the first that was not taken gives the error.
    ///
    /// # Errors
    /// Of the first message that was not taken, beside the number of those before it: as
    /// [`send`](Self::send).
    pub fn send_many(&self, messages: &[(Channel, &[u8])]) -> (usize, Result<(), ApiError>) {
        let mut taken = 0;
        while taken < messages.len() {
            let mut error = None;
            let named = messages[taken..].iter().map(|(to, data)| (Self::channel_bits(*to), *data));
            self.send_many_inside(named, &mut taken, &mut error);
            if let Some(error) = error {
                return (taken, Err(error));
            }
            // The first that is left, if any is, is of another shard, or this is no callback.
            match self.send_some(&messages[taken..]) {
                (0, Err(error)) => return (taken, Err(error)),
                (some, result) => {
                    taken += some;
                    if let Err(error) = result {
                        return (taken, Err(error));
                    }
                }
            }
        }
        (taken, Ok(()))
    }

    /// One command for messages to the same shard.
    fn send_some(&self, messages: &[(Channel, &[u8])]) -> (usize, Result<(), ApiError>) {
        let Some((first, _)) = messages.first() else { return (0, Ok(())) };
        let link = match self.link(first.conn()) {
            Ok(link) => link,
            Err(error) => return (0, Err(error)),
        };
        let mut pack = link.packs.take();
        if pack.bytes.capacity() == 0 {
            // A new one: large enough for the next call like this, however much of this one is taken.
            let bytes: usize = messages.iter().map(|(_, data)| data.len()).sum();
            pack.bytes.reserve(bytes.min(PACK_BYTES));
            pack.parts.reserve(messages.len().min(PACK_PARTS));
        }
        let mut result = Ok(());
        for (channel, data) in messages {
            let fits = pack.parts.is_empty() || pack.bytes.len() + data.len() <= PACK_BYTES;
            if channel.conn().shard() != first.conn().shard() || !fits {
                break;
            }
            let admitted = self
                .channel(*channel)
                .and_then(|(link, cell)| admit(link, cell, *channel, data.len()));
            if let Err(error) = admitted {
                result = Err(error);
                break;
            }
            let ChannelKey { slot: cell, life } = channel.key();
            pack.parts.push(Part { cell, life, len: data.len() as u32 });
            pack.bytes.extend_from_slice(data);
        }
        let count = pack.parts.len();
        if count == 0 {
            link.packs.give_back(pack);
            return (0, result);
        }
        match link.push_many(messages, pack) {
            Ok(()) => (count, result),
            Err(error) => (0, Err(error)),
        }
    }
}

#[inline]
fn send_queued(
    link: &ShardLink,
    cell: &ChannelCell,
    channel: Channel,
    data: &[u8],
) -> Result<(), ApiError> {
    if data.len() > INLINE {
        return send_copy(link, cell, channel, data, None);
    }
    ready(link, cell, channel)?;
    link.admit(cell, data.len())?;
    let key = channel.key();
    let command = Command::small(key.slot, key.life, data);
    link.push_data(channel, cell, data.len(), 0, command)
}

fn send_copy(
    link: &ShardLink,
    cell: &ChannelCell,
    channel: Channel,
    data: &[u8],
    receipt: Option<u64>,
) -> Result<(), ApiError> {
    admit(link, cell, channel, data.len())?;
    push_payload(link, cell, channel, link.copies.copy(data), receipt, true)
}

/// Counts what is sent as queued, or says why it cannot be sent now.
fn admit(
    link: &ShardLink,
    cell: &ChannelCell,
    channel: Channel,
    len: usize,
) -> Result<(), ApiError> {
    check_len(link, cell, channel, len)?;
    ready(link, cell, channel)?;
    link.admit(cell, len)
}

/// Whether a channel carries as much at once. What the peer's limit forbids is known once it is
/// connected; before, the shard finds out.
fn check_len(
    link: &ShardLink,
    cell: &ChannelCell,
    channel: Channel,
    len: usize,
) -> Result<(), ApiError> {
    let limit = if cell.has(LOSSY) {
        limits::MAX_DATAGRAM
    } else if cell.has(MESSAGES) {
        link.conn(channel.conn())?.max_message.load(Ordering::Relaxed) as usize
    } else {
        limits::MAX_MESSAGE
    };
    if len > limit { Err(ApiError::MessageTooLarge { len, limit }) } else { Ok(()) }
}

/// Whether a channel can be sent on now.
#[inline]
fn ready(link: &ShardLink, cell: &ChannelCell, channel: Channel) -> Result<(), ApiError> {
    let status = usable(link.conn(channel.conn())?)?;
    if status != Status::Connected && cell.has(LOSSY) {
        return Err(ApiError::Dropped("not connected yet"));
    }
    Ok(())
}

fn push_payload(
    link: &ShardLink,
    cell: &ChannelCell,
    channel: Channel,
    data: Payload,
    receipt: Option<u64>,
    copied: bool,
) -> Result<(), ApiError> {
    let len = data.len();
    let ChannelKey { slot, life } = channel.key();
    let command = Command::Data { cell: slot, life, data, receipt, copied };
    link.push_data(channel, cell, len, len, command)
}
