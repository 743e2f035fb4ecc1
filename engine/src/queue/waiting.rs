//! What a channel was given to send while its connection had no room.

use std::collections::VecDeque;
use trunkline_proto::payload::Payload;

/// Buffers kept for channels that have to wait next.
const SPARE: usize = 16;
/// Bytes that are sent before those behind them move to the front.
const MOVE: usize = 64 << 10;

/// Emptied buffers of all channels of a shard: a channel has one only while something waits.
#[derive(Default)]
pub(super) struct Spare {
    buffers: Vec<Vec<u8>>,
}

enum Entry {
    Copy { len: usize, receipt: Option<u64> },
    Payload(Payload, Option<u64>),
    Finish,
}

/// The next thing to send.
pub(super) enum Next<'a> {
    Copy(&'a [u8], Option<u64>),
    Payload(&'a Payload, Option<u64>),
    Finish,
}

impl Next<'_> {
    /// Its bytes.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Copy(bytes, _) => bytes.len(),
            Self::Payload(data, _) => data.len(),
            Self::Finish => 0,
        }
    }
}

impl Entry {
    fn len(&self) -> usize {
        match self {
            Self::Copy { len, .. } => *len,
            Self::Payload(data, _) => data.len(),
            Self::Finish => 0,
        }
    }
}

/// See the module. Copies of short messages lie back to back in one buffer.
#[derive(Default)]
pub(super) struct Waiting {
    entries: VecDeque<Entry>,
    copies: Vec<u8>,
    /// Bytes of `copies` that are sent.
    sent: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push_copy(&mut self, bytes: &[u8], receipt: Option<u64>, spare: &mut Spare) {
        if self.copies.capacity() == 0 {
            self.copies = spare.buffers.pop().unwrap_or_default();
        }
        self.copies.extend_from_slice(bytes);
        self.entries.push_back(Entry::Copy { len: bytes.len(), receipt });
    }

    pub(super) fn push_payload(&mut self, data: Payload, receipt: Option<u64>) {
        self.entries.push_back(Entry::Payload(data, receipt));
    }

    pub(super) fn push_finish(&mut self) {
        self.entries.push_back(Entry::Finish);
    }

    pub(super) fn front(&self) -> Option<Next<'_>> {
        Some(match self.entries.front()? {
            Entry::Copy { len, receipt } => {
                Next::Copy(self.copies.get(self.sent..self.sent + len)?, *receipt)
            }
            Entry::Payload(data, receipt) => Next::Payload(data, *receipt),
            Entry::Finish => Next::Finish,
        })
    }

    pub(super) fn pop_front(&mut self, spare: &mut Spare) {
        if let Some(Entry::Copy { len, .. }) = self.entries.pop_front() {
            self.sent += len;
        }
        if self.sent == self.copies.len() {
            self.give_back(spare);
        } else if self.sent >= MOVE && self.sent * 2 >= self.copies.len() {
            self.copies.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::len).sum()
    }

    /// Forgets everything; how many bytes that were.
    pub(super) fn clear(&mut self, spare: &mut Spare) -> usize {
        let lost = self.bytes();
        self.entries.clear();
        self.give_back(spare);
        lost
    }

    fn give_back(&mut self, spare: &mut Spare) {
        let mut copies = std::mem::take(&mut self.copies);
        self.sent = 0;
        if copies.capacity() > 0 && spare.buffers.len() < SPARE {
            copies.clear();
            spare.buffers.push(copies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(waiting: &mut Waiting, spare: &mut Spare) -> Option<Vec<u8>> {
        let bytes = match waiting.front()? {
            Next::Copy(bytes, _) => bytes.to_vec(),
            Next::Payload(data, _) => data.as_slice().to_vec(),
            Next::Finish => b"end".to_vec(),
        };
        waiting.pop_front(spare);
        Some(bytes)
    }

    #[test]
    fn what_waits_comes_in_order() {
        let (mut waiting, mut spare) = (Waiting::default(), Spare::default());
        waiting.push_copy(b"one", None, &mut spare);
        waiting.push_copy(b"", None, &mut spare);
        waiting.push_payload(Payload::from(b"two".to_vec()), Some(7));
        waiting.push_copy(b"three", None, &mut spare);
        waiting.push_finish();
        let all: Vec<_> = std::iter::from_fn(|| next(&mut waiting, &mut spare)).collect();
        assert_eq!(all, [&b"one"[..], b"", b"two", b"three", b"end"]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let (mut waiting, mut spare) = (Waiting::default(), Spare::default());
        waiting.push_copy(&[0; 1000], None, &mut spare);
        for i in 1..1000u32 {
            waiting.push_copy(&[i as u8; 1000], None, &mut spare);
            assert_eq!(next(&mut waiting, &mut spare).unwrap(), [(i - 1) as u8; 1000]);
            assert!(waiting.copies.len() <= MOVE + 2000);
        }
    }

    #[test]
    fn an_emptied_buffer_goes_to_the_next_channel() {
        let (mut a, mut b, mut spare) = (Waiting::default(), Waiting::default(), Spare::default());
        a.push_copy(&[1; 1000], None, &mut spare);
        a.push_payload(Payload::from(vec![0; 50]), None);
        let address = a.copies.as_ptr();
        assert_eq!(a.clear(&mut spare), 1050);
        assert!(a.is_empty());
        b.push_copy(&[2; 500], None, &mut spare);
        assert_eq!(b.copies.as_ptr(), address);
        assert!(spare.buffers.is_empty());
    }
}
