//! What all connections of an endpoint share: randomness, ids and tokens, and packets sent without
//! a connection.

use super::types::{Ecn, EndpointConfig, EndpointStats, RxMeta, Transmit};
use crate::crypto::{ConnIdCodec, IdParts, ResetTokens, RetryTokens, Rng};
use crate::handshake::{write_retry, write_version_list};
use crate::ids::{ConnHandle, ConnectionId};
use crate::limits::{MIN_SHORT_PACKET, RESET_TOKEN_LEN};
use crate::observe::Observer;
use crate::time::{Duration, Instant};
use crate::wire::packet::{LongHeader, LongPrefix};
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::collections::{BTreeSet, VecDeque};
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;

/// Packets without a connection that may wait.
const OUTBOX: usize = 64;
/// Stateless resets a second.
const RESETS_PER_S: u64 = 1_000;
/// Room for an answer without state; smaller than what causes it.
const ANSWER: usize = 512;
/// Bytes of a stateless reset.
const RESET_LEN: usize = 43;

/// See the module's documentation.
pub(crate) struct Shared {
    pub(crate) rng: Rng,
    pub(crate) codec: ConnIdCodec,
    pub(crate) counters: EndpointStats,
    /// Added to generations inside ids: with the same keys a restarted endpoint must not take
    /// packets of its former life for those of a new connection, but answer them with a reset.
    life: u32,
    reset: ResetTokens,
    retry: RetryTokens,
    /// Peers' reset tokens, each with the slot of a connection that it would end. They are kept as
    /// keyed hashes, so that the time of a search tells nothing about them (RFC 9000 §10.3.1). One
    /// token may have several owners: what a peer announces never changes whom another's ends.
    tokens: BTreeSet<(u64, u64, u32)>,
    token_hash: SipHasher24,
    request_hash: SipHasher13,
    outbox: VecDeque<(Transmit, Vec<u8>)>,
    reset_allowance: u64,
    reset_refilled: Instant,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(now: Instant, config: &EndpointConfig) -> Self {
        let mut rng = Rng::from_seed(config.seed);
        let token_hash = SipHasher24::new_with_keys(rng.u64(), rng.u64());
        let request_hash = SipHasher13::new_with_keys(rng.u64(), rng.u64());
        Self {
            life: rng.u64() as u32,
            rng,
            token_hash,
            request_hash,
            codec: ConnIdCodec::new(&config.keys.id, config.shard, config.server),
            counters: EndpointStats::default(),
            reset: ResetTokens::new(&config.keys.reset),
            retry: RetryTokens::new(&config.keys.retry, RetryTokens::LIFETIME),
            tokens: BTreeSet::new(),
            outbox: VecDeque::new(),
            reset_allowance: RESETS_PER_S,
            reset_refilled: now,
            observer: config.observer.clone(),
        }
    }

    /// Makes our connection id number `sequence` of `conn`, with its reset token.
    pub(crate) fn issue_id(
        &mut self,
        conn: ConnHandle,
        sequence: u64,
    ) -> (ConnectionId, [u8; RESET_TOKEN_LEN]) {
        let generation = self.id_generation(conn.generation);
        // The same id comes out when a lost NEW_CONNECTION_ID is written again.
        let salt = self.reset.token(&ConnectionId(
            (u64::from(conn.slot) << 32 | u64::from(generation) ^ sequence << 20).to_be_bytes(),
        ));
        let parts = IdParts { slot: conn.slot, generation, sequence: sequence as u8 };
        let id = self.codec.encode(salt[0], parts);
        (id, self.reset.token(&id))
    }

    /// What ids say of a slot's generation.
    pub(crate) const fn id_generation(&self, generation: u32) -> u16 {
        (generation.wrapping_add(self.life) & 0xFFF) as u16
    }

    pub(crate) fn remember_token(&mut self, token: [u8; RESET_TOKEN_LEN], slot: u32) {
        let (a, b) = self.hashed(&token);
        self.tokens.insert((a, b, slot));
    }

    pub(crate) fn forget_token(&mut self, token: &[u8; RESET_TOKEN_LEN], slot: u32) {
        let (a, b) = self.hashed(token);
        self.tokens.remove(&(a, b, slot));
    }

    /// The first slot, from `from` on, whose connection a stateless reset ending in `token` ends.
    pub(crate) fn token_owner(&self, token: &[u8; RESET_TOKEN_LEN], from: u32) -> Option<u32> {
        if self.tokens.is_empty() {
            return None;
        }
        let (a, b) = self.hashed(token);
        self.tokens.range((a, b, from)..=(a, b, u32::MAX)).next().map(|found| found.2)
    }

    /// Tokens remembered.
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    fn hashed(&self, token: &[u8; RESET_TOKEN_LEN]) -> (u64, u64) {
        let mut hasher = self.token_hash;
        hasher.write(token);
        hasher.finish128().as_u64()
    }

    /// Who asks for a connection: address, source id (which a restarted attempt keeps) and
    /// destination id (of which it takes a new one), hashed with a key that nobody outside knows.
    /// Never 0.
    pub(crate) fn request_key(
        &self,
        remote: SocketAddr,
        client: ConnectionId,
        request: ConnectionId,
    ) -> u64 {
        let mut hasher = self.request_hash;
        match remote {
            SocketAddr::V4(v4) => hasher.write(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                hasher.write(&v6.ip().octets());
                hasher.write_u32(v6.scope_id());
            }
        }
        hasher.write_u16(remote.port());
        hasher.write(&client.0);
        hasher.write(&request.0);
        hasher.finish().max(1)
    }

    pub(crate) const fn retry_tokens(&self) -> &RetryTokens {
        &self.retry
    }

    /// The next packet that belongs to no connection.
    pub(crate) fn pop_outbox(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let (transmit, bytes) = self.outbox.pop_front()?;
        buf.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(transmit)
    }

    pub(crate) fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Queues a packet; when too many wait, it is dropped.
    pub(crate) fn push_outbox(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back((transmit, bytes));
        }
    }

    fn answer(&mut self, meta: &RxMeta, bytes: Vec<u8>) {
        let len = bytes.len();
        let transmit = Transmit {
            socket: meta.socket,
            remote: meta.remote,
            local: meta.local,
            ecn: Ecn::NotEct,
            len,
            segment: len,
            probe: false,
        };
        self.push_outbox(transmit, bytes);
    }

    /// Answers a short packet for an unknown connection, smaller than what caused it and at a
    /// bounded rate (RFC 9000 §10.3).
    pub(crate) fn stateless_reset(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        cause: &[u8],
        id: ConnectionId,
    ) {
        let len = RESET_LEN.min(cause.len().saturating_sub(1));
        if len < MIN_SHORT_PACKET {
            return;
        }
        let passed = now.since(self.reset_refilled);
        let refill = passed.as_nanos() / (Duration::from_secs(1).as_nanos() / RESETS_PER_S);
        if refill > 0 {
            self.reset_allowance = self.reset_allowance.saturating_add(refill).min(RESETS_PER_S);
            self.reset_refilled = now;
        }
        if self.reset_allowance == 0 {
            return;
        }
        self.reset_allowance -= 1;
        let mut bytes = vec![0; len];
        self.rng.fill(&mut bytes);
        bytes[0] = 0x40 | (bytes[0] & 1);
        bytes[len - RESET_TOKEN_LEN..].copy_from_slice(&self.reset.token(&id));
        self.counters.resets_sent += 1;
        self.answer(meta, bytes);
    }

    /// Answers with what `write` puts into a small buffer.
    pub(crate) fn answer_with(
        &mut self,
        meta: &RxMeta,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let mut bytes = vec![0; ANSWER];
        let Some(len) = write(&mut bytes) else { return false };
        bytes.truncate(len);
        self.answer(meta, bytes);
        true
    }

    /// Tells a client of another version which one we speak.
    pub(crate) fn version_list(&mut self, meta: &RxMeta, prefix: &LongPrefix<'_>) {
        let sent = self.answer_with(meta, |buf| write_version_list(prefix, buf));
        self.counters.version_lists += u64::from(sent);
    }

    /// Makes a client prove its address first.
    pub(crate) fn send_retry(&mut self, now: Instant, meta: &RxMeta, request: &LongHeader<'_>) {
        let id = self.rng.connection_id();
        let tokens = self.retry.clone();
        let sent =
            self.answer_with(meta, |buf| write_retry(now, &tokens, meta.remote, request, id, buf));
        self.counters.retries += u64::from(sent);
    }
}
