//! The random generator: deterministic from a seed, so that a run can be repeated.
//!
//! The caller seeds it, from the system for a real endpoint and from a test's number otherwise;
//! nothing here reads the system's entropy. It is ChaCha20 with fast key erasure: each refill
//! replaces the key, so that a leaked state tells nothing of what was drawn before.
//! TLS draws its own key shares from the system; those never pass through here.

use crate::ids::ConnectionId;
use core::fmt;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

const KEY: usize = 32;
const BLOCK: usize = 288;

/// A cryptographically secure generator with a seed.
pub struct Rng {
    block: [u8; BLOCK],
    /// First byte of `block` not yet handed out; the key of the next refill comes before it.
    at: usize,
}

impl Rng {
    /// A generator whose output is a function of `seed` alone.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut rng = Self { block: [0; BLOCK], at: BLOCK };
        rng.block[..KEY].copy_from_slice(&seed);
        rng
    }

    fn refill(&mut self) {
        let mut key = [0u8; KEY];
        key.copy_from_slice(&self.block[..KEY]);
        self.block.fill(0);
        // Every key seals exactly once, so the nonce can be constant.
        let sealed = UnboundKey::new(&CHACHA20_POLY1305, &key).and_then(|k| {
            LessSafeKey::new(k).seal_in_place_separate_tag(
                Nonce::assume_unique_for_key([0; 12]),
                Aad::empty(),
                &mut self.block,
            )
        });
        if sealed.is_err() {
            // Cannot happen with a key of the right size; a hash of the key is as good a stream.
            let mac = hmac::Key::new(hmac::HMAC_SHA256, &key);
            for (i, part) in self.block.chunks_exact_mut(KEY).enumerate() {
                part.copy_from_slice(hmac::sign(&mac, &[i as u8]).as_ref());
            }
        }
        self.at = KEY;
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.at == BLOCK {
                self.refill();
            }
            let n = out.len().min(BLOCK - self.at);
            let (head, tail) = out.split_at_mut(n);
            let taken = &mut self.block[self.at..self.at + n];
            head.copy_from_slice(taken);
            taken.fill(0);
            self.at += n;
            out = tail;
        }
    }

    /// `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A random number of 64 bits.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A random number below `bound`; 0 when `bound` is 0. The bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Eight random bytes as a connection id: what a client uses for its first destination id.
    pub fn connection_id(&mut self) -> ConnectionId {
        ConnectionId(self.array())
    }

    /// A generator for a part of the program, independent of what this one gives afterwards.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.array())
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_bytes_in_any_portions() {
        let mut whole = [0u8; 1000];
        Rng::from_seed([7; 32]).fill(&mut whole);
        let mut parts = [0u8; 1000];
        let mut rng = Rng::from_seed([7; 32]);
        let mut at = 0;
        for n in [1usize, 7, 255, 256, 257, 224] {
            rng.fill(&mut parts[at..at + n]);
            at += n;
        }
        assert_eq!(at, 1000);
        assert_eq!(whole, parts);
        let mut other = [0u8; 1000];
        Rng::from_seed([8; 32]).fill(&mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn bits_are_balanced_and_blocks_differ() {
        let mut rng = Rng::from_seed([1; 32]);
        let mut ones = 0;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..4096 {
            let v = rng.u64();
            ones += v.count_ones();
            assert!(seen.insert(v));
        }
        let expected = 4096 * 32;
        assert!(ones.abs_diff(expected) < 2000, "{ones} of {}", expected * 2);
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::from_seed([2; 32]);
        let mut hit = [false; 10];
        for _ in 0..1000 {
            hit[rng.below(10) as usize] = true;
        }
        assert_eq!(hit, [true; 10]);
        assert_eq!(rng.below(0), 0);
    }
}
