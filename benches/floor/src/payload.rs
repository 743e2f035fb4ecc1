//! What bench messages contain: every one carries a check value over all of its bytes, which the
//! receiver computes again. The time for that is part of every figure.
//!
//! Layout, little-endian: check u64, sequence u64, body. The body is one of a few random ones,
//! chosen by the sequence number, whose checks the sender knows in advance: it pays for the
//! header only, the receiver for every byte.

use std::sync::Arc;

/// Bytes in front of the body.
pub const HEADER: usize = 16;
/// Different bodies of a [`Source`].
pub const BODIES: usize = 4;

/// Odd constants with well mixed bits (from the digits of π).
const KEYS: [u64; 2 * LANES] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6d,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
    0x9216_d5d9_8979_fb1b,
    0xd131_0ba6_98df_b5ad,
    0x2ffd_72db_d01a_dfb7,
    0xb8e1_afed_6a26_7e97,
    0xba7c_9045_f12c_7f99,
    0x24a1_9947_b391_6cf7,
    0x0801_f2e2_858e_fc17,
    0x6369_20d8_7157_4e69,
];
const LANES: usize = 8;
const STRIPE: usize = 8 * LANES;

/// A 64-bit check of `bytes` that depends on every byte and its place.
///
/// Eight lanes of 64-bit words, each with a sum and a sum of its sums, as in Fletcher's checksum:
/// additions only, so that a compiler turns it into vector code and reading memory is most of its
/// time. A change within one word always shows in the sum, a moved word in the sum of sums.
pub fn check(bytes: &[u8]) -> u64 {
    if bytes.len() <= STRIPE {
        return check_short(bytes);
    }
    let (mut sums, mut moments) = ([0u64; LANES], [0u64; LANES]);
    let mut stripes = bytes.chunks_exact(STRIPE);
    for stripe in &mut stripes {
        for lane in 0..LANES {
            sums[lane] = sums[lane].wrapping_add(word(&stripe[8 * lane..8 * lane + 8]));
            moments[lane] = moments[lane].wrapping_add(sums[lane]);
        }
    }
    let mut words = stripes.remainder().chunks_exact(8);
    let mut lane = 0;
    for rest in &mut words {
        sums[lane] = sums[lane].wrapping_add(word(rest));
        moments[lane] = moments[lane].wrapping_add(sums[lane]);
        lane += 1;
    }
    if !words.remainder().is_empty() {
        sums[lane] = sums[lane].wrapping_add(word(words.remainder()));
        moments[lane] = moments[lane].wrapping_add(sums[lane]);
    }
    let (sum_keys, moment_keys) = KEYS.split_at(LANES);
    let fold = |lanes: &[u64; LANES], keys: &[u64]| {
        lanes
            .iter()
            .zip(keys)
            .fold(0u64, |all, (lane, key)| all.wrapping_add(lane.wrapping_mul(*key)))
    };
    let sum = mix(fold(&sums, sum_keys).wrapping_add(bytes.len() as u64));
    sum ^ fold(&moments, moment_keys).rotate_left(32)
}

/// At most one word a lane: the keys alone tell places apart.
fn check_short(bytes: &[u8]) -> u64 {
    let mut keys = KEYS.iter();
    let mut words = bytes.chunks_exact(8);
    let mut sum = bytes.len() as u64;
    for (bytes, key) in (&mut words).zip(&mut keys) {
        sum = sum.wrapping_add(word(bytes).wrapping_mul(*key));
    }
    if let (false, Some(key)) = (words.remainder().is_empty(), keys.next()) {
        sum = sum.wrapping_add(word(words.remainder()).wrapping_mul(*key));
    }
    mix(sum)
}

/// Up to eight bytes, little-endian.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

/// The check value of a whole message from that of its body.
const fn seal(body_check: u64, sequence: u64) -> u64 {
    mix(body_check ^ sequence.wrapping_mul(KEYS[0]))
}

/// Writes the header of a message whose body has this check.
#[inline]
fn number(message: &mut [u8], body_check: u64, sequence: u64) {
    message[..8].copy_from_slice(&seal(body_check, sequence).to_le_bytes());
    message[8..HEADER].copy_from_slice(&sequence.to_le_bytes());
}

/// A message without a number, and the check of its body.
fn body(length: usize, state: &mut u64) -> (Vec<u8>, u64) {
    let mut message = vec![0; length.max(HEADER)];
    for chunk in message[HEADER..].chunks_mut(8) {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mix(*state).to_le_bytes()[..chunk.len()]);
    }
    let sum = check(&message[HEADER..]);
    (message, sum)
}

/// Makes messages of one length.
pub struct Source {
    bodies: Vec<(Vec<u8>, u64)>,
    sequence: u64,
}

impl Source {
    /// Messages of `length` bytes, at least [`HEADER`].
    pub fn new(length: usize, seed: u64) -> Self {
        let mut state = seed;
        Self { bodies: (0..BODIES).map(|_| body(length, &mut state)).collect(), sequence: 0 }
    }

    /// The next message; the same one again until [`Self::advance`].
    #[inline]
    pub fn message(&mut self) -> &[u8] {
        let sequence = self.sequence;
        let (message, body) = &mut self.bodies[(sequence % BODIES as u64) as usize];
        number(message, *body, sequence);
        message
    }

    /// A message with a number of the caller's choice instead of the next one.
    pub fn numbered(&mut self, number: u64) -> &[u8] {
        self.sequence = number;
        self.message()
    }

    /// The message was taken.
    pub const fn advance(&mut self) {
        self.sequence += 1;
    }

    /// Messages taken so far.
    pub const fn sent(&self) -> u64 {
        self.sequence
    }
}

/// Messages of one length that are lent to a transport instead of copied: each is written again
/// when it has come back. Their bodies stay; what changes is the header.
pub struct Lender {
    /// One body, and its check.
    body: (Vec<u8>, u64),
    messages: Vec<Arc<Vec<u8>>>,
    /// The message that was not taken yet.
    ready: Option<usize>,
    sequence: u64,
}

impl Lender {
    /// Messages of `length` bytes, at least [`HEADER`], numbered from `first` on.
    pub fn new(length: usize, mut seed: u64, first: u64) -> Self {
        let body = body(length, &mut seed);
        Self { body, messages: Vec::new(), ready: None, sequence: first }
    }

    /// The next message; the same one again until [`Self::advance`].
    pub fn message(&mut self) -> Arc<Vec<u8>> {
        let at = match self.ready {
            Some(at) => at,
            None => self.write(),
        };
        self.ready = Some(at);
        Arc::clone(&self.messages[at])
    }

    /// Writes a message that nobody holds: the first of them, which is the one most likely still
    /// in the caches.
    fn write(&mut self) -> usize {
        let back = self.messages.iter_mut().position(|message| Arc::get_mut(message).is_some());
        let at = back.unwrap_or_else(|| {
            self.messages.push(Arc::new(self.body.0.clone()));
            self.messages.len() - 1
        });
        if let Some(message) = Arc::get_mut(&mut self.messages[at]) {
            number(message, self.body.1, self.sequence);
        }
        at
    }

    /// The message was taken.
    pub const fn advance(&mut self) {
        self.ready = None;
        self.sequence += 1;
    }

    /// The number of the next message.
    pub const fn next(&self) -> u64 {
        self.sequence
    }
}

/// Reads all of a message; its sequence number if the check agrees.
#[inline]
pub fn open(message: &[u8]) -> Option<u64> {
    let (head, body) = message.split_first_chunk::<HEADER>()?;
    let (sum, sequence) = (word(&head[..8]), word(&head[8..]));
    (seal(check(body), sequence) == sum).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_open() {
        for length in [HEADER, 17, 24, 64, 100, 1040, 65_536] {
            let mut source = Source::new(length, 1);
            for sequence in 0..10 {
                assert_eq!(source.message().len(), length);
                assert_eq!(open(source.message()), Some(sequence));
                source.advance();
            }
        }
    }

    #[test]
    fn lent_messages_are_written_again_when_they_are_back() {
        let mut lender = Lender::new(5_000, 7, 0);
        let first = lender.message();
        assert_eq!(open(&lender.message()), Some(0), "not taken yet");
        lender.advance();
        let second = lender.message();
        assert_eq!((open(&first), open(&second)), (Some(0), Some(1)));
        let place = first.as_ptr();
        drop(first);
        lender.advance();
        let third = lender.message();
        assert_eq!((open(&second), open(&third)), (Some(1), Some(2)));
        assert_eq!((third.as_ptr(), lender.next()), (place, 2));
    }

    #[test]
    fn every_changed_bit_is_seen() {
        for length in [HEADER, 40, 64, 81, 1500] {
            let mut message = Source::new(length, 2).message().to_vec();
            for bit in 0..length * 8 {
                message[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&message), None, "bit {bit} of {length} bytes");
                message[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn moved_and_cut_parts_are_seen() {
        let whole = Source::new(65_536, 3).message().to_vec();
        for part in [8, 64, 1024, 1400, 8192] {
            let mut swapped = whole.clone();
            let (a, b) = swapped[HEADER..].split_at_mut(part);
            a.swap_with_slice(&mut b[..part]);
            assert_eq!(open(&swapped), None, "{part} bytes swapped");
        }
        assert_eq!(open(&whole[..whole.len() - 1]), None);
        assert_eq!(open(&whole[..8]), None);
        let mut zeros = vec![0; 64];
        zeros.extend_from_slice(&[0; 64]);
        assert_ne!(check(&zeros[..64]), check(&zeros));
    }
}
