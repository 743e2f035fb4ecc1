//! What all connections of an endpoint share: randomness, ids and tokens, and packets sent without
//! a connection.

use super::types::{Ecn, EndpointConfig, EndpointStats, RxMeta, Transmit};
use crate::crypto::{ConnIdCodec, IdParts, ResetTokens, RetryTokens, Rng};
use crate::handshake::{write_retry, write_version_list};
use crate::ids::{ConnHandle, ConnectionId};
use crate::limits::{MIN_SHORT_PACKET, RESET_TOKEN_LEN};
use crate::time::{Duration, Instant};
use crate::wire::packet::{LongHeader, LongPrefix};
use std::collections::{BTreeMap, VecDeque};

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
    reset: ResetTokens,
    retry: RetryTokens,
    /// Peers' reset tokens, and the slot of the connection that each would end.
    tokens: BTreeMap<[u8; RESET_TOKEN_LEN], u32>,
    outbox: VecDeque<(Transmit, Vec<u8>)>,
    reset_allowance: u64,
    reset_refilled: Instant,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(now: Instant, config: &EndpointConfig) -> Self {
        Self {
            rng: Rng::from_seed(config.seed),
            codec: ConnIdCodec::new(&config.keys.id, config.shard, config.server),
            counters: EndpointStats::default(),
            reset: ResetTokens::new(&config.keys.reset),
            retry: RetryTokens::new(&config.keys.retry, RetryTokens::LIFETIME),
            tokens: BTreeMap::new(),
            outbox: VecDeque::new(),
            reset_allowance: RESETS_PER_S,
            reset_refilled: now,
        }
    }

    /// Makes our connection id number `sequence` of `conn`, with its reset token.
    pub(crate) fn issue_id(
        &mut self,
        conn: ConnHandle,
        sequence: u64,
    ) -> (ConnectionId, [u8; RESET_TOKEN_LEN]) {
        // The same id comes out when a lost NEW_CONNECTION_ID is written again.
        let salt = self.reset.token(&ConnectionId(
            (u64::from(conn.slot) << 32 | u64::from(conn.generation) ^ sequence << 20)
                .to_be_bytes(),
        ));
        let parts = IdParts {
            slot: conn.slot,
            generation: (conn.generation & 0xFFF) as u16,
            sequence: sequence as u8,
        };
        let id = self.codec.encode(salt[0], parts);
        (id, self.reset.token(&id))
    }

    pub(crate) fn remember_token(&mut self, token: [u8; RESET_TOKEN_LEN], slot: u32) {
        self.tokens.insert(token, slot);
    }

    pub(crate) fn forget_token(&mut self, token: &[u8; RESET_TOKEN_LEN]) {
        self.tokens.remove(token);
    }

    /// The connection that a stateless reset ending in `token` would end.
    pub(crate) fn token_owner(&self, token: &[u8; RESET_TOKEN_LEN]) -> Option<u32> {
        self.tokens.get(token).copied()
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
