//! What all shards of one engine have in common. Nothing here is written by a shard per packet or
//! message except the forwarding queues, and those only by the odd datagram that lands on the wrong
//! shard.

use super::mailbox::Port;
use crate::buf::SendPool;
use crate::capture::Capture;
use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::handle::ListenerId;
use crate::io::{DriverChoice, detect};
use crate::security::{BothKeyLogs, ClientTlsCache, FileKeyLog};
use crate::stats::ShardCounters;
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use trunkline_proto::endpoint::{EndpointConfig, EndpointKeys};
use trunkline_proto::error::ApiError;
use trunkline_proto::time::Instant;

/// Time starts here and not at 0, so that "long ago" can be told from "now" in the first seconds.
const ORIGIN: u64 = 3_600_000_000_000;

/// Shared by the shards and the handles of one engine.
pub(crate) struct Shared {
    pub config: EngineConfig,
    /// What the wish for a driver came to; without meaning for shards that are given one.
    pub driver: DriverChoice,
    pub ports: Vec<Arc<Port>>,
    pub counters: Vec<Arc<ShardCounters>>,
    pub clients: ClientTlsCache,
    pub key_log: Option<Arc<dyn rustls::KeyLog>>,
    pub capture: Option<Arc<Capture>>,
    /// For the threads of the application, through the queued API. Each shard has one of its own for
    /// its handler.
    pub send_pool: SendPool,
    /// Why each shard has given up, if it has.
    pub failures: Vec<OnceLock<String>>,
    /// Where the shards keep their figures, if anywhere.
    #[cfg(unix)]
    pub stats_file: Option<Arc<crate::stats::file::write::Writer>>,
    keys: EndpointKeys,
    origin: std::time::Instant,
    next_listener: AtomicU32,
}

impl Shared {
    /// For shards with a driver of this system.
    pub(crate) fn new(config: EngineConfig) -> Result<Arc<Self>, EngineError> {
        config.validate()?;
        let driver = detect::choose(config.driver)?;
        Self::with_origin(config, driver, std::time::Instant::now())
    }

    /// For shards whose time starts at `origin`.
    pub(crate) fn with_origin(
        config: EngineConfig,
        driver: DriverChoice,
        origin: std::time::Instant,
    ) -> Result<Arc<Self>, EngineError> {
        config.validate()?;
        let send_pool = new_send_pool(&config)?;
        let key_log: Option<Arc<dyn rustls::KeyLog>> = match &config.key_log {
            None => None,
            Some(path) => {
                let log = FileKeyLog::open(path)
                    .map_err(|e| EngineError::system(format!("key log {}", path.display()), e))?;
                tracing::warn!(path = %path.display(), "TLS secrets are written to a file");
                Some(Arc::new(log))
            }
        };
        let capture = config.capture.as_ref().map(Capture::start).transpose()?;
        let key_log = match (key_log, capture.as_ref().map(Capture::key_log)) {
            (Some(a), Some(b)) => Some(Arc::new(BothKeyLogs(a, b)) as _),
            (a, b) => a.or(b),
        };
        let ports = (0..config.shards).map(|_| Arc::new(Port::new(config.forward_queue))).collect();
        let counters = (0..config.shards).map(|_| Arc::default()).collect();
        let keys = EndpointKeys {
            id: random(&config, b"connection ids")?,
            reset: match &config.identity {
                Some(identity) => identity.derive(b"trunkline reset tokens"),
                None => random(&config, b"reset tokens")?,
            },
            retry: random(&config, b"retry tokens")?,
        };
        #[cfg(unix)]
        let stats_file = config
            .stats_file
            .as_ref()
            .map(|path| {
                crate::stats::file::write::Writer::create(path, config.shards, origin, ORIGIN)
            })
            .transpose()?;
        Ok(Arc::new(Self {
            #[cfg(unix)]
            stats_file,
            ports,
            counters,
            clients: ClientTlsCache::default(),
            key_log,
            capture,
            send_pool,
            failures: (0..config.shards).map(|_| OnceLock::new()).collect(),
            keys,
            driver,
            origin,
            next_listener: AtomicU32::new(1),
            config,
        }))
    }

    pub(crate) fn time(&self, at: std::time::Instant) -> Instant {
        let passed = at.saturating_duration_since(self.origin).as_nanos();
        Instant::from_nanos(ORIGIN.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// Remembers why a shard has given up; the first reason stays.
    pub(crate) fn note_failure(&self, shard: u8, message: &str) {
        if let Some(failure) = self.failures.get(usize::from(shard)) {
            let _ = failure.set(message.to_owned());
        }
    }

    /// Why a shard has given up, if it has.
    pub(crate) fn failure(&self, shard: u8) -> Option<&str> {
        self.failures.get(usize::from(shard))?.get().map(String::as_str)
    }

    pub(crate) fn new_listener(&self) -> ListenerId {
        ListenerId(self.next_listener.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn endpoint_config(&self, shard: u8) -> Result<EndpointConfig, EngineError> {
        let config = &self.config;
        Ok(EndpointConfig {
            shard,
            server: config.server,
            seed: random(config, &[b's', b'e', b'e', b'd', shard])?,
            keys: self.keys.clone(),
            connection: config.connection.clone(),
            max_connections: config.max_connections,
            max_handshakes: config.max_handshakes,
            retry: config.retry,
            observer: None,
        })
    }
}

/// Send buffers as configured; they take up memory once they are used.
pub(crate) fn new_send_pool(config: &EngineConfig) -> Result<SendPool, EngineError> {
    SendPool::new(config.send_buffers, config.send_buffer_bytes)
        .map_err(|e| EngineError::system("send buffers", e))
}

/// Random bytes: from the system, or from the configured seed and what they are for.
fn random<const N: usize>(config: &EngineConfig, purpose: &[u8]) -> Result<[u8; N], EngineError> {
    let mut out = [0; N];
    match config.dangerous_seed {
        None => SystemRandom::new()
            .fill(&mut out)
            .map_err(|_| ApiError::Security("the system gives no random bytes".into()))?,
        Some(seed) => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &seed);
            let tag = ring::hmac::sign(&key, purpose);
            for (o, t) in out.iter_mut().zip(tag.as_ref()) {
                *o = *t;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_repeats_only_with_a_seed() {
        let plain = EngineConfig::default();
        let a: [u8; 32] = random(&plain, b"x").unwrap();
        let b: [u8; 32] = random(&plain, b"x").unwrap();
        assert_ne!(a, b);
        let seeded = EngineConfig { dangerous_seed: Some([7; 32]), ..Default::default() };
        let a: [u8; 32] = random(&seeded, b"x").unwrap();
        let b: [u8; 32] = random(&seeded, b"x").unwrap();
        let c: [u8; 32] = random(&seeded, b"y").unwrap();
        assert_eq!(a, b);
        assert_ne!(a, c);
    }
}
