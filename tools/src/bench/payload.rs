//! What bench messages contain: every one carries a check value over all of its bytes, which the
//! receiver computes again. The time for that is part of every figure.
//!
//! Layout, little-endian: check u64, sequence u64, body. The body is one of a few random ones,
//! chosen by the sequence number, whose checks the sender knows in advance: it pays for the
//! header only, the receiver for every byte.

/// Bytes in front of the body.
pub const HEADER: usize = 16;
/// Different bodies.
const BODIES: usize = 4;

/// Odd constants with well mixed bits (from the digits of π).
const KEYS: [u64; 24] = [
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
    0xa458_fea3_f493_3d7f,
    0x0d95_748f_728e_b659,
    0x718b_cd58_8215_4aef,
    0x7b54_a41d_c25a_59b5,
    0x9c30_d539_2af2_6013,
    0xc5d1_b023_2860_85f1,
    0xca41_7918_b8db_38ef,
    0x8e79_dcb0_603a_180f,
];
const LANES: usize = 8;
const STRIPE: usize = 8 * LANES;
/// Stripes after which the lanes are mixed; within a round each stripe has keys of its own.
const ROUND: usize = KEYS.len() - LANES;

/// A 64-bit check of `bytes` that depends on every byte and its place. Built like XXH3: eight
/// lanes that a compiler turns into vector code, so that reading memory is most of its time.
pub fn check(bytes: &[u8]) -> u64 {
    let mut lanes = [0; LANES];
    lanes.copy_from_slice(&KEYS[..LANES]);
    let mut rounds = bytes.chunks_exact(STRIPE * ROUND);
    for round in &mut rounds {
        for (n, stripe) in round.chunks_exact(STRIPE).enumerate() {
            accumulate(&mut lanes, stripe, n);
        }
        for (lane, key) in lanes.iter_mut().zip(&KEYS[ROUND..]) {
            *lane = (*lane ^ (*lane >> 47) ^ key).wrapping_mul(0x9e37_79b1);
        }
    }
    let mut stripes = rounds.remainder().chunks_exact(STRIPE);
    let mut n = 0;
    for stripe in &mut stripes {
        accumulate(&mut lanes, stripe, n);
        n += 1;
    }
    let rest = stripes.remainder();
    if !rest.is_empty() {
        let mut last = [0; STRIPE];
        last[..rest.len()].copy_from_slice(rest);
        accumulate(&mut lanes, &last, n.min(ROUND - 1));
    }
    lanes
        .iter()
        .zip(&KEYS[LANES..])
        .fold(bytes.len() as u64, |sum, (lane, key)| mix(sum ^ lane.wrapping_mul(*key)))
}

#[inline(always)]
fn accumulate(lanes: &mut [u64; LANES], stripe: &[u8], n: usize) {
    let keys = &KEYS[n..n + LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        let mut word = [0; 8];
        word.copy_from_slice(&stripe[8 * i..8 * i + 8]);
        let word = u64::from_le_bytes(word);
        let keyed = word ^ keys[i];
        // The product alone would lose a word whose half is zero: the word itself is added too.
        *lane = lane
            .wrapping_add(word.rotate_left(32))
            .wrapping_add((keyed & 0xffff_ffff).wrapping_mul(keyed >> 32));
    }
}

const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

/// The check value of a whole message from that of its body.
const fn seal(body_check: u64, sequence: u64) -> u64 {
    mix(body_check ^ mix(sequence ^ KEYS[0]))
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
        let mut body = || {
            let mut message = vec![0; length.max(HEADER)];
            for chunk in message[HEADER..].chunks_mut(8) {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
            }
            let sum = check(&message[HEADER..]);
            (message, sum)
        };
        Self { bodies: (0..BODIES).map(|_| body()).collect(), sequence: 0 }
    }

    /// The next message; the same one again until [`Self::advance`].
    pub fn message(&mut self) -> &[u8] {
        let sequence = self.sequence;
        let (message, body) = &mut self.bodies[(sequence % BODIES as u64) as usize];
        message[..8].copy_from_slice(&seal(*body, sequence).to_le_bytes());
        message[8..HEADER].copy_from_slice(&sequence.to_le_bytes());
        message
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

/// Reads all of a message; its sequence number if the check agrees.
pub fn open(message: &[u8]) -> Option<u64> {
    let (head, body) = message.split_first_chunk::<HEADER>()?;
    let mut words = head.chunks_exact(8).map(|w| {
        let mut word = [0; 8];
        word.copy_from_slice(w);
        u64::from_le_bytes(word)
    });
    let (sum, sequence) = (words.next()?, words.next()?);
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
