//! What a channel of the load sends: messages that are copied into the engine, or lent to it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control;
use rustc_hash::FxHashMap;
use trunkline::{ApiError, Channel, Context, Payload, SendOptions};
use trunkline_floor::payload::{BODIES, Lender, Source};

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
    lengths: FxHashMap<usize, Shared>,
}

struct Shared {
    source: Source,
    /// Feeders that hold it.
    holders: usize,
}

impl Sources {
    /// The source of messages of `length` bytes.
    pub fn of(&mut self, length: usize) -> &mut Source {
        let new = || Shared { source: Source::new(length, SEED), holders: 0 };
        &mut self.lengths.entry(length).or_insert_with(new).source
    }

    /// One more feeder needs messages of `length` bytes until it lets go.
    pub fn hold(&mut self, length: usize) {
        self.of(length);
        if let Some(shared) = self.lengths.get_mut(&length) {
            shared.holders += 1;
        }
    }

    /// One of those that held it does not need it any more.
    pub fn let_go(&mut self, length: usize) {
        if let Some(shared) = self.lengths.get_mut(&length) {
            shared.holders = shared.holders.saturating_sub(1);
            if shared.holders == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    /// Memory that one more feeder with copied messages of `length` bytes takes.
    pub fn cost(&self, length: usize) -> usize {
        if self.lengths.contains_key(&length) { 0 } else { BODIES * length }
    }

    /// Memory of all messages.
    pub fn bytes(&self) -> usize {
        self.lengths.keys().map(|length| BODIES * length).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_stays_while_somebody_holds_it() {
        let mut sources = Sources::default();
        assert_eq!((sources.cost(1000), sources.bytes()), (4000, 0));
        sources.hold(1000);
        sources.hold(1000);
        assert_eq!((sources.cost(1000), sources.bytes()), (0, 4000));
        sources.let_go(1000);
        assert_eq!(sources.bytes(), 4000);
        sources.let_go(1000);
        assert_eq!(sources.bytes(), 0);
    }
}
