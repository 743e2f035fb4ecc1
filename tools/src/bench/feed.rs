//! What a channel of the load sends: messages that are copied into the engine, or lent to it.

use crate::cli::Scenario;
use trunkline::{ApiError, Channel, Context, Payload, SendOptions};
use trunkline_floor::payload::{Lender, Source};

/// Messages from this length on are lent, unless `--copy` is given.
const LENT_FROM: usize = 4096;

/// Whether the messages of a load are lent. Unreliable ones are always copied by the engine, and one
/// at a time gains nothing.
pub fn is_lent(scenario: Scenario, length: usize, lend: bool) -> bool {
    let load = !matches!(scenario, Scenario::Datagrams | Scenario::Latency);
    lend && load && length >= LENT_FROM
}

/// The messages of one channel.
pub enum Feed {
    /// The engine keeps a copy until it is acknowledged.
    Copied(Source),
    /// The engine refers to ours, which is written again when it was let go.
    Lent(Lender),
}

impl Feed {
    /// Messages of `length` bytes.
    pub fn new(length: usize, seed: u64, lent: bool) -> Self {
        if lent {
            Self::Lent(Lender::new(length, seed))
        } else {
            Self::Copied(Source::new(length, seed))
        }
    }

    /// Hands the next message over. It stays the next one unless that succeeds, or it was an
    /// unreliable one and dropped.
    #[inline]
    pub fn send(&mut self, cx: &mut Context<'_>, channel: Channel) -> Result<(), ApiError> {
        let sent = match self {
            Self::Copied(source) => cx.send(channel, source.message()),
            Self::Lent(lender) => {
                let message = Payload::new(lender.message());
                cx.send_payload(channel, message, SendOptions::default())
            }
        };
        if matches!(sent, Ok(()) | Err(ApiError::Dropped(_))) {
            match self {
                Self::Copied(source) => source.advance(),
                Self::Lent(lender) => lender.advance(),
            }
        }
        sent
    }

    /// Messages handed over.
    pub const fn sent(&self) -> u64 {
        match self {
            Self::Copied(source) => source.sent(),
            Self::Lent(lender) => lender.sent(),
        }
    }
}
