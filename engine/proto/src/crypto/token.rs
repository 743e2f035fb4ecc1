//! Opaque bytes with a meaning for us alone: connection ids that name a shard and a slot,
//! stateless-reset tokens, and the tokens of a Retry.

use crate::ids::ConnectionId;
use crate::limits::{MAX_RETRY_TOKEN, RESET_TOKEN_LEN};
use crate::time::{Duration, Instant};
use core::fmt;
use ring::hmac;
use siphasher::sip::SipHasher13;
use std::net::{IpAddr, SocketAddr};

/// Bits of a slot number inside a connection id.
pub const SLOT_BITS: u32 = 20;
/// Bits of a slot's generation inside a connection id.
pub const GENERATION_BITS: u32 = 12;
const HALF_BITS: u32 = 20;
const HALF_MASK: u32 = (1 << HALF_BITS) - 1;
const ROUNDS: u8 = 4;
const _: () = assert!(SLOT_BITS == HALF_BITS && GENERATION_BITS + 8 == HALF_BITS);

/// What one of our own connection ids says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdParts {
    /// Slot in the shard's connection table, below 2^20.
    pub slot: u32,
    /// Low 12 bits of the slot's generation.
    pub generation: u16,
    /// Which of the connection's ids it is (low 8 bits of its sequence number).
    pub sequence: u8,
}

/// Makes and reads the connection ids that a shard hands out.
///
/// Layout: byte 0 is random, byte 1 is the shard xor byte 0, byte 2 the server xor byte 0 (what a
/// classic BPF program or a load balancer can undo), bytes 3..8 hold slot, generation and sequence,
/// enciphered by a keyed permutation of 40 bits (four Feistel rounds of SipHash-1-3) that the first
/// three bytes tweak. Without the key two ids of a connection cannot be linked beyond their shard
/// and server.
#[derive(Clone)]
pub struct ConnIdCodec {
    hash: SipHasher13,
    shard: u8,
    server: u8,
}

/// The shard that a connection id names; for ids that we made. A steering program computes the same.
pub const fn shard_of(id: &ConnectionId) -> u8 {
    id.0[0] ^ id.0[1]
}

impl ConnIdCodec {
    /// A codec for the ids of `shard` of `server`. All shards of an engine share `key`.
    pub fn new(key: &[u8; 16], shard: u8, server: u8) -> Self {
        Self { hash: SipHasher13::new_with_key(key), shard, server }
    }

    /// The id of `parts`; `random` is a random byte. Slot and generation are cut to their bits.
    pub fn encode(&self, random: u8, parts: IdParts) -> ConnectionId {
        let head = [random, self.shard ^ random, self.server ^ random];
        let mut left = parts.slot & HALF_MASK;
        let mut right = (u32::from(parts.generation) << 8 | u32::from(parts.sequence)) & HALF_MASK;
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, head, right));
        }
        let block = (u64::from(left) << HALF_BITS | u64::from(right)).to_be_bytes();
        let [_, _, _, b3, b4, b5, b6, b7] = block;
        ConnectionId([head[0], head[1], head[2], b3, b4, b5, b6, b7])
    }

    /// What `id` says; `None` when it names another shard or server. An id that we never made
    /// gives arbitrary parts: compare the generation.
    pub fn decode(&self, id: &ConnectionId) -> Option<IdParts> {
        let [h0, h1, h2, b3, b4, b5, b6, b7] = id.0;
        if h0 ^ h1 != self.shard || h0 ^ h2 != self.server {
            return None;
        }
        let block = u64::from_be_bytes([0, 0, 0, b3, b4, b5, b6, b7]);
        let mut left = (block >> HALF_BITS) as u32 & HALF_MASK;
        let mut right = block as u32 & HALF_MASK;
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(round, [h0, h1, h2], left), left);
        }
        Some(IdParts { slot: left, generation: (right >> 8) as u16, sequence: right as u8 })
    }

    fn round(&self, round: u8, head: [u8; 3], half: u32) -> u32 {
        let input = [
            round,
            head[0],
            head[1],
            head[2],
            (half >> 16) as u8,
            (half >> 8) as u8,
            half as u8,
            0,
        ];
        self.hash.hash(&input) as u32 & HALF_MASK
    }
}

impl fmt::Debug for ConnIdCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnIdCodec(shard {}, server {})", self.shard, self.server)
    }
}

/// Computes the stateless-reset token of a connection id (RFC 9000 §10.3.2): a keyed hash, so that
/// a restarted engine with the same key still knows it.
#[derive(Clone)]
pub struct ResetTokens {
    key: hmac::Key,
}

impl ResetTokens {
    /// Tokens under a key that outlives restarts.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The first 16 bytes of HMAC-SHA256(key, id).
    pub fn token(&self, id: &ConnectionId) -> [u8; RESET_TOKEN_LEN] {
        truncated(hmac::sign(&self.key, &id.0))
    }
}

impl fmt::Debug for ResetTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetTokens")
    }
}

/// Whether two secrets of the same length are equal, in time that does not depend on where they
/// differ.
pub fn equal_secrets(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y));
    // Keeps the compiler from ending the loop early once a bit is set.
    a.len() == b.len() && core::hint::black_box(difference) == 0
}

/// What a valid Retry token proves: the address answered, and this was the client's first id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOrigin {
    id: [u8; 20],
    len: u8,
}

impl RetryOrigin {
    /// The destination id of the client's very first ConnectionRequest.
    pub fn original_destination_id(&self) -> &[u8] {
        &self.id[..usize::from(self.len)]
    }

    /// An origin with this original destination id; `None` when it is longer than 20 bytes.
    pub fn new(original_destination_id: &[u8]) -> Option<Self> {
        let mut id = [0; 20];
        id.get_mut(..original_destination_id.len())?.copy_from_slice(original_destination_id);
        Some(Self { id, len: original_destination_id.len() as u8 })
    }
}

/// Makes and checks the tokens of Retry packets (RFC 9000 §8.1.2–8.1.4) without keeping state.
///
/// Layout: version u8 (1), time of issue u64 (ns), length u8 and bytes of the original destination
/// id, MAC (16 bytes). The MAC key changes with every period of one lifetime; the MAC covers time,
/// address, port, the original destination id, the client's source id, and the source id of the
/// Retry (which the client's next request has as its destination id). Shards that share the key
/// must share the origin of time.
#[derive(Clone)]
pub struct RetryTokens {
    master: hmac::Key,
    lifetime: Duration,
}

const TOKEN_VERSION: u8 = 1;
const MAC_LEN: usize = 16;
const TOKEN_FIXED: usize = 1 + 8 + 1 + MAC_LEN;
const _: () = assert!(TOKEN_FIXED + 20 <= MAX_RETRY_TOKEN);

impl RetryTokens {
    /// How long a token is good for unless the caller says otherwise.
    pub const LIFETIME: Duration = Duration::from_secs(4);

    /// Tokens under a key shared by the shards of an engine; `lifetime` is at least a millisecond.
    pub fn new(key: &[u8; 32], lifetime: Duration) -> Self {
        Self {
            master: hmac::Key::new(hmac::HMAC_SHA256, key),
            lifetime: lifetime.max(Duration::from_millis(1)),
        }
    }

    /// A token for the client at `remote` that chose `original_destination_id` and `client_id`;
    /// `retry_id` is the source id of the Retry. `None` when an id is longer than 20 bytes.
    pub fn issue(
        &self,
        now: Instant,
        remote: SocketAddr,
        original_destination_id: &[u8],
        client_id: &[u8],
        retry_id: &[u8],
    ) -> Option<RetryToken> {
        let origin = RetryOrigin::new(original_destination_id)?;
        let issued = now.as_nanos();
        let mac = self.mac(issued, remote, &origin, client_id, retry_id);
        let mut token = RetryToken { bytes: [0; TOKEN_FIXED + 20], len: 0 };
        token.push(&[TOKEN_VERSION]);
        token.push(&issued.to_be_bytes());
        token.push(&[origin.len]);
        token.push(origin.original_destination_id());
        token.push(&mac);
        Some(token)
    }

    /// Checks the token of a ConnectionRequest from `remote` whose source id is `client_id` and
    /// whose destination id is `retry_id`. `None` when anything differs or it is too old.
    pub fn check(
        &self,
        now: Instant,
        remote: SocketAddr,
        client_id: &[u8],
        retry_id: &[u8],
        token: &[u8],
    ) -> Option<RetryOrigin> {
        let (&version, rest) = token.split_first()?;
        let (issued, rest) = rest.split_first_chunk::<8>()?;
        let (&len, rest) = rest.split_first()?;
        let (id, mac) = rest.split_at_checked(usize::from(len))?;
        let origin = RetryOrigin::new(id)?;
        let issued = u64::from_be_bytes(*issued);
        // A token may come from a shard whose batch began a little later than ours.
        let age = issued.abs_diff(now.as_nanos());
        if version != TOKEN_VERSION || mac.len() != MAC_LEN || age > self.lifetime.as_nanos() {
            return None;
        }
        let expected = self.mac(issued, remote, &origin, client_id, retry_id);
        equal_secrets(&expected, mac).then_some(origin)
    }

    fn mac(
        &self,
        issued: u64,
        remote: SocketAddr,
        origin: &RetryOrigin,
        client_id: &[u8],
        retry_id: &[u8],
    ) -> [u8; MAC_LEN] {
        let period = issued / self.lifetime.as_nanos();
        let period_key = hmac::sign(&self.master, &period.to_be_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, period_key.as_ref());
        let ip = match remote.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut mac = hmac::Context::with_key(&key);
        mac.update(b"trunkline retry");
        mac.update(&issued.to_be_bytes());
        mac.update(&ip.octets());
        mac.update(&remote.port().to_be_bytes());
        for id in [origin.original_destination_id(), client_id, retry_id] {
            mac.update(&(id.len() as u64).to_be_bytes());
            mac.update(id);
        }
        truncated(mac.sign())
    }
}

impl fmt::Debug for RetryTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryTokens(lifetime {:?})", self.lifetime)
    }
}

/// The bytes of a Retry token.
#[derive(Clone, Copy, Debug)]
pub struct RetryToken {
    bytes: [u8; TOKEN_FIXED + 20],
    len: usize,
}

impl RetryToken {
    fn push(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    /// The token as it stands in the packet, at most [`MAX_RETRY_TOKEN`] bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The first 16 bytes of a MAC.
pub(crate) fn truncated(tag: hmac::Tag) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&tag.as_ref()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 7], port))
    }

    proptest! {
        #[test]
        fn ids_come_back(key: [u8; 16], shard: u8, server: u8, random: u8,
                         slot in 0u32..1 << 20, generation in 0u16..1 << 12, sequence: u8) {
            let codec = ConnIdCodec::new(&key, shard, server);
            let parts = IdParts { slot, generation, sequence };
            let id = codec.encode(random, parts);
            prop_assert_eq!(codec.decode(&id), Some(parts));
            prop_assert_eq!(shard_of(&id), shard);
            prop_assert_eq!(id.0[0] ^ id.0[2], server);
            prop_assert_eq!(ConnIdCodec::new(&key, shard ^ 1, server).decode(&id), None);
        }

        #[test]
        fn every_id_of_the_shard_decodes_to_its_own_parts(key: [u8; 16], bytes: [u8; 8]) {
            let codec = ConnIdCodec::new(&key, bytes[0] ^ bytes[1], bytes[0] ^ bytes[2]);
            let id = ConnectionId(bytes);
            let parts = codec.decode(&id).unwrap();
            prop_assert!(parts.slot < 1 << SLOT_BITS && parts.generation < 1 << GENERATION_BITS);
            prop_assert_eq!(codec.encode(bytes[0], parts), id);
        }

        #[test]
        fn random_tokens_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..140)) {
            let tokens = RetryTokens::new(&[1; 32], RetryTokens::LIFETIME);
            let now = Instant::from_nanos(u64::from(bytes.first().copied().unwrap_or(0)));
            prop_assert_eq!(tokens.check(now, remote(1), &[1; 8], &[2; 8], &bytes), None);
        }
    }

    #[test]
    fn neighbouring_ids_look_unrelated() {
        let codec = ConnIdCodec::new(&[3; 16], 2, 0);
        let mut seen = HashSet::new();
        let mut flipped = 0;
        for sequence in 0..=254u8 {
            let id = |sequence| codec.encode(9, IdParts { slot: 5, generation: 1, sequence }).0;
            assert!(seen.insert(id(sequence)));
            let (a, b) = (id(sequence), id(sequence + 1));
            flipped += (3..8).map(|i| (a[i] ^ b[i]).count_ones()).sum::<u32>();
        }
        let mean = f64::from(flipped) / 255.0;
        assert!((17.0..23.0).contains(&mean), "{mean} of 40 bits differ");
    }

    #[test]
    fn reset_tokens_depend_on_key_and_id() {
        let id = ConnectionId([1; 8]);
        let a = ResetTokens::new(&[1; 32]);
        assert_eq!(a.token(&id), ResetTokens::new(&[1; 32]).token(&id));
        assert_ne!(a.token(&id), ResetTokens::new(&[2; 32]).token(&id));
        assert_ne!(a.token(&id), a.token(&ConnectionId([2; 8])));
    }

    #[test]
    fn retry_token_is_bound_and_expires() {
        let tokens = RetryTokens::new(&[1; 32], RetryTokens::LIFETIME);
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let (first, client, retry) = ([1u8; 20], [2u8; 8], [3u8; 8]);
        let token = tokens.issue(at(3_900), remote(1000), &first, &client, &retry).unwrap();
        let token = token.as_bytes();
        assert!(token.len() <= MAX_RETRY_TOKEN);
        let ok = tokens.check(at(4_100), remote(1000), &client, &retry, token).unwrap();
        assert_eq!(ok.original_destination_id(), first);
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:1000".parse().unwrap();
        assert!(tokens.check(at(4_100), mapped, &client, &retry, token).is_some());

        let refused = |ms, addr, client: &[u8], retry: &[u8], token: &[u8]| {
            assert_eq!(tokens.check(at(ms), addr, client, retry, token), None);
        };
        refused(4_100, remote(1001), &client, &retry, token);
        refused(4_100, SocketAddr::from(([192, 0, 2, 8], 1000)), &client, &retry, token);
        refused(4_100, remote(1000), &[9; 8], &retry, token);
        refused(4_100, remote(1000), &client, &[9; 8], token);
        refused(7_901, remote(1000), &client, &retry, token);
        refused(4_100, remote(1000), &client, &retry, &token[..token.len() - 1]);
        for i in 0..token.len() {
            let mut bad = token.to_vec();
            bad[i] ^= 0x40;
            refused(4_100, remote(1000), &client, &retry, &bad);
        }
        let other = RetryTokens::new(&[2; 32], RetryTokens::LIFETIME);
        assert_eq!(other.check(at(4_100), remote(1000), &client, &retry, token), None);
        assert!(tokens.issue(at(0), remote(1), &[0; 21], &client, &retry).is_none());
    }
}
