//! What a channel of the load sends: messages that are copied into the engine, or lent to it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control;
use rustc_hash::FxHashMap;
use trunkline::{ApiError, Channel, Context, Payload, SendOptions};
use trunkline_floor::payload::{Lender, Source};

/// The messages of one channel, numbered from [`control::first`] on.
pub enum Feed {
    /// The number of the next one. The engine keeps a copy until it is acknowledged, so that all
    /// messages of a length can have the same source.
    Copied(u64),
    /// The engine refers to ours, which is written again when it was let go.
    Lent(Lender),
}

impl Feed {
    /// Channel `number` of a flow, with messages of `length` bytes.
    pub fn new(number: u32, length: usize, lent: bool) -> Self {
        let first = control::first(number);
        if lent { Self::Lent(Lender::new(length, SEED, first)) } else { Self::Copied(first) }
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

/// Of the bodies of all messages.
const SEED: u64 = 1;

/// Messages to copy from, one source for each length.
#[derive(Default)]
pub struct Sources {
    lengths: FxHashMap<usize, Source>,
}

impl Sources {
    /// The source of messages of `length` bytes.
    pub fn of(&mut self, length: usize) -> &mut Source {
        self.lengths.entry(length).or_insert_with(|| Source::new(length, SEED))
    }

    /// Bytes of the messages of all lengths, each counted once.
    pub fn bytes(&self) -> usize {
        self.lengths.keys().sum()
    }
}
