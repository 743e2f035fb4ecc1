//! What a channel of the load sends: messages that are copied into the engine, or lent to it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control;
use trunkline::{ApiError, Channel, Context, Payload, SendOptions};
use trunkline_floor::payload::{Lender, Source};

/// Messages from this length on are lent, unless `--copy` is given.
pub const LENT_FROM: usize = 4096;

/// The messages of one channel, numbered from [`control::first`] on.
pub enum Feed {
    /// The number of the next one. The engine keeps a copy until it is acknowledged, so that all
    /// channels of a connection can have the same source.
    Copied(u64),
    /// The engine refers to ours, which is written again when it was let go.
    Lent(Lender),
}

impl Feed {
    /// Channel `number` of a connection, with messages of `length` bytes.
    pub fn new(number: u32, length: usize, seed: u64, lent: bool) -> Self {
        let first = control::first(number);
        if lent { Self::Lent(Lender::new(length, seed, first)) } else { Self::Copied(first) }
    }

    /// Hands the next message over. It stays the next one unless that succeeds, or it was an
    /// unreliable one and dropped.
    #[inline]
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        source: &mut Source,
    ) -> Result<(), ApiError> {
        let sent = match self {
            Self::Copied(next) => cx.send(channel, source.numbered(*next)),
            Self::Lent(lender) => {
                let message = Payload::new(lender.message());
                cx.send_payload(channel, message, SendOptions::default())
            }
        };
        if matches!(sent, Ok(()) | Err(ApiError::Dropped(_))) {
            match self {
                Self::Copied(next) => *next += 1,
                Self::Lent(lender) => lender.advance(),
            }
        }
        sent
    }

    /// The number of the next message.
    pub const fn next(&self) -> u64 {
        match self {
            Self::Copied(next) => *next,
            Self::Lent(lender) => lender.next(),
        }
    }
}
