//! What arrives on the channels of one side: read, checked and counted.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use trunkline::{Channel, ChannelKind, Conn};
use trunkline_floor::payload;

/// What arrived of a flow, or on a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Messages that were right.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that were not right, or out of order where that cannot be.
    pub corrupt: u64,
    /// Unreliable messages whose numbers were passed over.
    pub missing: u64,
}

impl Count {
    /// Adds another one.
    pub const fn add(&mut self, other: &Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.corrupt = self.corrupt.saturating_add(other.corrupt);
        self.missing = self.missing.saturating_add(other.missing);
    }

    /// Since `before`.
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(before.messages),
            bytes: self.bytes.saturating_sub(before.bytes),
            corrupt: self.corrupt.saturating_sub(before.corrupt),
            missing: self.missing.saturating_sub(before.missing),
        }
    }
}

/// What is done with a message besides counting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// It goes back.
    Back,
    /// It goes to those that are subscribed to this stream.
    Forward(u32),
    /// It came from the publisher of this stream.
    Delay(u32),
}

/// One counting channel.
#[derive(Clone, Copy, Debug)]
pub struct Sink {
    /// Of which run.
    session: u64,
    flow: u32,
    then: Then,
    messages: u64,
    bytes: u64,
    corrupt: u64,
    /// Unreliable: number of the first message that was seen.
    begin: u64,
    /// One more than the highest number.
    next: u64,
}

impl Sink {
    /// Of one flow of a run.
    pub const fn new(session: u64, flow: u32, then: Then) -> Self {
        Self { session, flow, then, messages: 0, bytes: 0, corrupt: 0, begin: 0, next: 0 }
    }

    /// Reads a message and counts it; its number, if it was right.
    #[inline]
    fn take(&mut self, kind: ChannelKind, message: &[u8]) -> Option<u64> {
        let Some(number) = payload::open(message) else {
            self.corrupt += 1;
            return None;
        };
        if kind == ChannelKind::Datagrams {
            if self.messages == 0 {
                (self.begin, self.next) = (number, number);
            }
            self.next = self.next.max(number.saturating_add(1));
        } else {
            let expected = number == self.next || self.messages == 0 && control::is_first(number);
            self.next = number.saturating_add(1);
            if !expected {
                self.corrupt += 1;
                return None;
            }
        }
        self.messages += 1;
        self.bytes += message.len() as u64;
        Some(number)
    }

    fn count(&self, kind: ChannelKind) -> Count {
        let numbers = self.next.saturating_sub(self.begin);
        let missing = match kind {
            ChannelKind::Datagrams => numbers.saturating_sub(self.messages),
            _ => 0,
        };
        let Self { messages, bytes, corrupt, .. } = *self;
        Count { messages, bytes, corrupt, missing }
    }
}

/// A message that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub then: Then,
    /// If it was right.
    pub number: Option<u64>,
}

/// All counting channels of one side.
#[derive(Debug, Default)]
pub struct Sinks {
    places: FxHashMap<Channel, usize>,
    all: Vec<(ChannelKind, Sink)>,
    /// Places in `all` that are free again.
    free: Vec<usize>,
    /// The channel of the last message and its place, mostly those of the next.
    recent: Option<(Channel, usize)>,
}

impl Sinks {
    /// Counts on one more channel.
    pub fn add(&mut self, channel: Channel, kind: ChannelKind, sink: Sink) {
        let at = self.free.pop().unwrap_or(self.all.len());
        if at == self.all.len() {
            self.all.push((kind, sink));
        } else {
            self.all[at] = (kind, sink);
        }
        self.places.insert(channel, at);
    }

    /// Reads and counts a message; `None` if its channel does not count.
    #[inline]
    pub fn take(&mut self, channel: Channel, message: &[u8]) -> Option<Taken> {
        let at = match self.recent {
            Some((recent, at)) if recent == channel => at,
            _ => {
                let at = *self.places.get(&channel)?;
                self.recent = Some((channel, at));
                at
            }
        };
        let (kind, sink) = &mut self.all[at];
        let number = sink.take(*kind, message);
        Some(Taken { then: sink.then, number })
    }

    /// What arrived of each flow of a run.
    pub fn counts(&self, session: u64) -> Vec<Count> {
        let mut flows: Vec<Count> = Vec::new();
        let of_run = self.places.values().map(|at| &self.all[*at]);
        for (kind, sink) in of_run.filter(|(_, sink)| sink.session == session) {
            let flow = sink.flow as usize;
            if flows.len() <= flow {
                flows.resize_with(flow + 1, Count::default);
            }
            flows[flow].add(&sink.count(*kind));
        }
        flows
    }

    /// Forgets a channel.
    pub fn remove(&mut self, channel: Channel) {
        self.recent = None;
        self.free.extend(self.places.remove(&channel));
    }

    /// Forgets the channels of a connection.
    pub fn forget(&mut self, conn: Conn) {
        self.recent = None;
        let free = &mut self.free;
        self.places.retain(|channel, at| {
            let stays = channel.conn() != conn;
            if !stays {
                free.push(*at);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_what_is_right() {
        let mut source = payload::Source::new(64, 1);
        let mut next = || {
            let message = source.message().to_vec();
            source.advance();
            message
        };
        let (a, b, c, d) = (next(), next(), next(), next());
        let (messages, datagrams) = (ChannelKind::Messages, ChannelKind::Datagrams);
        let counted = |kind, taken: &[&[u8]]| {
            let mut sink = Sink::new(0, 0, Then::Nothing);
            for message in taken {
                sink.take(kind, message);
            }
            sink.count(kind)
        };
        let count =
            |messages, corrupt, missing| Count { messages, bytes: messages * 64, corrupt, missing };
        assert_eq!(counted(messages, &[&a, &b]), count(2, 0, 0));
        // One is missing: what follows is out of order once.
        assert_eq!(counted(messages, &[&a, &b, &d]), count(2, 1, 0));
        let mut broken = c.clone();
        broken[20] ^= 1;
        assert_eq!(counted(messages, &[&a, &b, &broken]), count(2, 1, 0));
        // Unreliable messages may be missing, and come late.
        assert_eq!(counted(datagrams, &[&a, &d]), count(2, 0, 2));
        assert_eq!(counted(datagrams, &[&a, &d, &b]), count(3, 0, 1));
        assert_eq!(counted(datagrams, &[&b, &d]), count(2, 0, 1));
    }
}
