//! Opening, answering and ending channels.

use super::QueuedEngine;
use super::cells::kind_flags;
use super::cells::{ChannelCell, ConnCell};
use super::command::Command;
use super::link::ShardLink;
use crate::handle::{Channel, Conn};
use std::sync::atomic::Ordering;
use trunkline_proto::channel::ChannelInfo;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::limits;
use trunkline_proto::status::Status;

impl QueuedEngine {
    /// Opens a channel. It can be sent on at once; [`Event::ChannelReady`](crate::Event::ChannelReady) or
    /// [`Event::ChannelClosed`](crate::Event::ChannelClosed) follows.
    ///
    /// # Errors
    /// A stale handle, a connection that has ended, unusable options, or too many channels.
    pub fn open_channel(
        &self,
        conn: Conn,
        name: &str,
        options: &ChannelOptions,
    ) -> Result<Channel, ApiError> {
        options.validate()?;
        if name.len() > limits::MAX_CHANNEL_NAME {
            return Err(ApiError::InvalidArgument {
                field: "name",
                why: "must be at most 1024 bytes",
            });
        }
        let (link, cell) = self.conn(conn)?;
        usable(cell)?;
        let (slot, life) = link.channels.take().ok_or(ApiError::LimitReached {
            what: "channels",
            limit: u64::from(limits::MAX_CHANNELS),
        })?;
        if let Some(cell) = link.channels.get(slot) {
            cell.begin(conn.to_bits(), kind_flags(options.kind));
        }
        let channel = Channel::new(conn, ChannelKey { slot, life });
        let (name, options) = (name.to_owned(), *options);
        if options.unique {
            // Only the shard knows whether there is one of that name.
            let joined = self
                .ask(conn, move |h, cx, real| h.join_channel(cx, real, channel, &name, &options));
            return joined.inspect_err(|_| link.channels.give_back(slot, life))?;
        }
        Self::call(link, move |h, cx| h.open_channel(cx, channel, &name, &options))
            .inspect_err(|_| link.channels.give_back(slot, life))?;
        Ok(channel)
    }

    /// Accepts a channel that the peer asked for.
    ///
    /// # Errors
    /// A stale handle, unusable options, or a full queue.
    pub fn accept_channel(
        &self,
        channel: Channel,
        options: &ChannelOptions,
    ) -> Result<(), ApiError> {
        // Of what is only the opener's to say, any is valid.
        ChannelOptions { kind: ChannelKind::Datagrams, ..*options }.validate()?;
        let options = *options;
        self.call_channel(channel, move |h, cx, real| {
            if cx.accept_channel(real, &options).is_ok() {
                h.return_credit(cx, channel.key().slot);
            }
        })
    }

    /// Declines a channel that the peer asked for.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn decline_channel(&self, channel: Channel, code: u32, text: &str) -> Result<(), ApiError> {
        let text = text.to_owned();
        self.call_channel(channel, move |_, cx, real| {
            let _ = cx.decline_channel(real, code, &text);
        })
    }

    /// Ends our direction after everything sent so far.
    ///
    /// # Errors
    /// A stale handle, or a full queue.
    pub fn finish(&self, channel: Channel) -> Result<(), ApiError> {
        let (link, _) = self.channel(channel)?;
        let ChannelKey { slot: cell, life } = channel.key();
        Self::command(link, Command::Finish { cell, life })
    }

    /// Cancels what we are sending.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn reset(&self, channel: Channel, code: u32) -> Result<(), ApiError> {
        let (link, _) = self.channel(channel)?;
        let key = channel.key();
        Self::call(link, move |h, cx| h.reset(cx, key.slot, key.life, code))
    }

    /// Refuses the rest of what the peer sends.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn stop(&self, channel: Channel, code: u32) -> Result<(), ApiError> {
        self.call_channel(channel, move |h, cx, real| {
            let _ = cx.stop(real, code);
            h.return_credit(cx, channel.key().slot);
        })
    }

    /// Sends now what waits to be sent together with more.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn flush(&self, channel: Channel) -> Result<(), ApiError> {
        let (link, _) = self.channel(channel)?;
        let ChannelKey { slot: cell, life } = channel.key();
        Self::command(link, Command::Flush { cell, life })
    }

    /// The channels of a connection, in no particular order. Waits for its shard.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub fn channels(&self, conn: Conn) -> Result<Vec<Channel>, ApiError> {
        self.ask(conn, |h, cx, real| {
            cx.channels(real).into_iter().filter_map(|real| h.channel_name(real)).collect()
        })
    }

    /// What can be told about a channel. What waits for its shard, or for room, is not in it. Waits
    /// for the shard.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub fn channel_info(&self, channel: Channel) -> Result<ChannelInfo<'static>, ApiError> {
        let key = channel.key();
        self.ask(channel.conn(), move |h, cx, _| {
            let real = h.real_channel(key.slot, key.life)?;
            let info = cx.channel_info(real).map(ChannelInfo::into_owned);
            info.ok_or(ApiError::InvalidHandle)
        })?
    }

    /// Keeps a number of the application with a channel.
    ///
    /// # Errors
    /// A stale handle.
    pub fn set_channel_user_data(&self, channel: Channel, value: u64) -> Result<(), ApiError> {
        self.channel(channel).map(|(_, cell)| cell.user.store(value, Ordering::Release))
    }

    /// The number kept with a channel; 0 at first.
    ///
    /// # Errors
    /// A stale handle.
    pub fn channel_user_data(&self, channel: Channel) -> Result<u64, ApiError> {
        self.channel(channel).map(|(_, cell)| cell.user.load(Ordering::Acquire))
    }

    /// A channel of this engine as one number: shard 8, place 24, life 32. 0 names nothing.
    pub const fn channel_bits(channel: Channel) -> u64 {
        let key = channel.key();
        Conn::new(channel.conn().shard(), ConnHandle { slot: key.slot, generation: key.life })
            .to_bits()
    }

    /// The channel that a number names.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandle`] for a stale number, or one that was never given out.
    pub fn channel_from_bits(&self, bits: u64) -> Result<Channel, ApiError> {
        let (link, _, channel) = self.named(bits)?;
        link.conn(channel.conn()).map(|_| channel)
    }

    /// A channel that lives. Its connection is not looked at.
    #[inline]
    pub(super) fn named(&self, bits: u64) -> Result<(&ShardLink, &ChannelCell, Channel), ApiError> {
        let name = Conn::from_bits(bits);
        let ConnHandle { slot, generation: life } = name.handle();
        let link = self.link(name)?;
        let cell = link.channels.check(slot, life).ok_or(ApiError::InvalidHandle)?;
        let conn = Conn::from_bits(cell.conn.load(Ordering::Relaxed));
        Ok((link, cell, Channel::new(conn, ChannelKey { slot, life })))
    }
}

/// Whether a connection can still be sent on.
pub(super) fn usable(cell: &ConnCell) -> Result<Status, ApiError> {
    match cell.status() {
        status @ (Status::Connecting | Status::FindingRoute | Status::Connected) => Ok(status),
        Status::None => Err(ApiError::InvalidHandle),
        _ => Err(ApiError::NoConnection("it has ended")),
    }
}
