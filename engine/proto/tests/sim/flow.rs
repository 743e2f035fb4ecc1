//! What one side sends on one channel, and the pump that hands it to the endpoint as it takes it.

use super::alloc;
use super::pattern;
use super::rng::Rng;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::{Endpoint, SendOptions};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::payload::Payload;
use trunkline_proto::time::{Duration, Instant};

/// How large the pieces of a flow are.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// All of this size.
    Fixed(usize),
    /// Empty, tiny, around the size of a packet, and up to this many bytes.
    Mixed(usize),
}

impl Size {
    fn draw(self, rng: &mut Rng) -> usize {
        match self {
            Self::Fixed(n) => n,
            Self::Mixed(max) => {
                let n = match rng.below(6) {
                    0 => 0,
                    1 => rng.between(1, 40),
                    2 => rng.between(1100, 1500),
                    3 => rng.between(0, max as u64),
                    _ => rng.between(1, 400),
                };
                (n as usize).min(max)
            }
        }
    }
}

/// How a sender ends its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an EOF.
    Eof,
    /// By cancelling it with this code.
    Reset(u32),
    /// Not at all.
    Stay,
}

/// What one side sends on one channel.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Bytes of a byte stream, or messages.
    pub amount: u64,
    /// Size of writes, or of messages.
    pub size: Size,
    /// How it ends.
    pub end: End,
    /// Ask for a receipt with every message, its number being the token.
    pub receipts: bool,
    /// Hand the data over as shared payload.
    pub shared: bool,
    /// One piece each this long; `None` = as fast as they are taken.
    pub every: Option<Duration>,
}

impl Flow {
    /// `amount` bytes or messages as fast as possible, then an EOF.
    pub fn of(amount: u64, size: Size) -> Self {
        Self { amount, size, end: End::Eof, receipts: false, shared: false, every: None }
    }

    /// Nothing at all, not even an end.
    pub fn silent() -> Self {
        Self { end: End::Stay, ..Self::of(0, Size::Fixed(1)) }
    }

    /// The same with another end.
    pub fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// The same at a pace.
    pub fn paced(self, every: Duration) -> Self {
        Self { every: Some(every), ..self }
    }
}

/// What came of pumping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// The channel takes no more now; a writable event must follow.
    Blocked,
    /// The next piece is due then.
    Wait(Instant),
    /// Everything was handed over and the end was said.
    Done,
    /// The endpoint refused.
    Refused(ApiError),
}

/// A flow that is being sent.
#[derive(Clone, Debug)]
pub struct Pump {
    flow: Flow,
    key: u64,
    kind: ChannelKind,
    rng: Rng,
    next_at: Instant,
    /// A piece that was refused with "would block", to be offered again unchanged.
    waiting: Option<Vec<u8>>,
    /// Bytes taken by the endpoint.
    pub bytes: u64,
    /// Messages taken by the endpoint.
    pub messages: u64,
    /// Unreliable messages that the endpoint dropped at once.
    pub dropped: u64,
    /// Numbers given to messages.
    pub numbered: u64,
    /// Nothing more will come.
    pub done: bool,
    /// The EOF was handed over.
    pub finished: bool,
    /// The direction was cancelled.
    pub cancelled: bool,
}

impl Pump {
    /// Starts `flow` for the direction with this content key.
    pub fn new(flow: Flow, key: u64, kind: ChannelKind) -> Self {
        Self {
            rng: Rng::new(key),
            flow,
            key,
            kind,
            next_at: Instant::ZERO,
            waiting: None,
            bytes: 0,
            messages: 0,
            dropped: 0,
            numbered: 0,
            done: false,
            finished: false,
            cancelled: false,
        }
    }

    /// Replaces what is still to be sent; content goes on where it was.
    pub fn restart(&mut self, flow: Flow) {
        let sent = if self.kind == ChannelKind::Bytes { self.bytes } else { self.numbered };
        self.flow = Flow { amount: sent + flow.amount, ..flow };
        self.done = false;
    }

    /// Whether the whole amount was taken.
    pub fn exhausted(&self) -> bool {
        let sent = if self.kind == ChannelKind::Bytes { self.bytes } else { self.numbered };
        self.waiting.is_none() && sent >= self.flow.amount
    }

    fn next_piece(&mut self) -> Vec<u8> {
        if let Some(piece) = self.waiting.take() {
            return piece;
        }
        let len = self.flow.size.draw(&mut self.rng);
        if self.kind == ChannelKind::Bytes {
            let left = self.flow.amount - self.bytes;
            let mut piece = vec![0; len.max(1).min(left as usize)];
            pattern::fill(self.key, self.bytes, &mut piece);
            return piece;
        }
        let number = self.numbered;
        self.numbered += 1;
        pattern::message(self.key, number, len, self.kind == ChannelKind::Messages)
    }

    /// Hands over as much as the endpoint takes.
    pub fn run(
        &mut self,
        owner: usize,
        endpoint: &mut Endpoint,
        now: Instant,
        conn: ConnHandle,
        channel: ChannelKey,
    ) -> Pumped {
        while !self.done && !self.exhausted() {
            if let Some(every) = self.flow.every {
                if now < self.next_at {
                    return Pumped::Wait(self.next_at);
                }
                self.next_at = now + every;
            }
            let piece = self.next_piece();
            let token = self.flow.receipts.then_some(self.messages);
            let options = SendOptions { receipt: token, ..SendOptions::default() };
            let paying = alloc::As::owner(owner);
            let result = if self.flow.shared {
                let copy = Payload::from(piece.clone());
                endpoint.send_payload(now, conn, channel, copy, options)
            } else {
                endpoint.send(now, conn, channel, &piece, options)
            };
            drop(paying);
            match result {
                Ok(()) => {
                    self.bytes += piece.len() as u64;
                    self.messages += 1;
                }
                Err(ApiError::WouldBlock(_)) => {
                    self.waiting = Some(piece);
                    return Pumped::Blocked;
                }
                Err(ApiError::Dropped(_)) if self.kind == ChannelKind::Datagrams => {
                    self.dropped += 1;
                }
                Err(e) => {
                    self.done = true;
                    return Pumped::Refused(e);
                }
            }
        }
        if self.done {
            return Pumped::Done;
        }
        self.done = true;
        let _paying = alloc::As::owner(owner);
        let ended = match self.flow.end {
            End::Eof => endpoint.finish_channel(now, conn, channel),
            End::Reset(code) => endpoint.reset_channel(now, conn, channel, code),
            End::Stay => Ok(()),
        };
        match ended {
            Ok(()) => {
                self.finished = self.flow.end == End::Eof;
                self.cancelled = matches!(self.flow.end, End::Reset(_));
                Pumped::Done
            }
            Err(e) => Pumped::Refused(e),
        }
    }
}
