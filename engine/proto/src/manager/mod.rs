//! The connection manager: a second connect to the same peer opens a channel on the connection that
//! is already there (behaviours §4).
//!
//! It holds no connection: it remembers which handle was made for which [`ReuseKey`], and asks the
//! endpoint whether that handle still lives. Called by the shard, above the endpoint.

use crate::endpoint::{ClientConfig, Endpoint};
use crate::error::ApiError;
use crate::handshake::TlsFingerprint;
use crate::ids::ConnHandle;
use crate::status::Status;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What two connects must have in common to share a connection: a connect never rides on a
/// connection made with weaker trust, another identity or another credential (behaviours §5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReuseKey {
    remotes: Vec<SocketAddr>,
    server_name: String,
    credential: Vec<u8>,
    tls: TlsFingerprint,
}

impl ReuseKey {
    /// The key of a connect to any of `remotes` with `config`.
    pub fn new(remotes: &[SocketAddr], config: &ClientConfig) -> Self {
        let mut remotes = remotes.to_vec();
        remotes.sort_unstable();
        Self {
            remotes,
            server_name: config.server_name.clone(),
            credential: config.credential.clone(),
            tls: config.tls.fingerprint(),
        }
    }
}

/// Whether a connect may use a connection that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// Use a live connection, await one being made, else make one.
    #[default]
    Allow,
    /// Always make one.
    ForceNew,
    /// Never make one: fail when there is none.
    NeverNew,
}

/// What a connect came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The connection; its channels can be opened at once and are asked for when it is Connected.
    pub conn: ConnHandle,
    /// It was there before.
    pub reused: bool,
}

/// Remembers which connection was made for which key.
#[derive(Debug, Default)]
pub struct Manager {
    by_key: BTreeMap<ReuseKey, ConnHandle>,
}

impl Manager {
    /// Finds or makes the connection for a connect.
    ///
    /// # Errors
    /// [`ApiError::NoConnection`] with [`Reuse::NeverNew`] when there is none; what
    /// [`Endpoint::connect`] gives.
    pub fn connect(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        socket: u16,
        remotes: &[SocketAddr],
        config: &ClientConfig,
        reuse: Reuse,
    ) -> Result<Connected, ApiError> {
        let key = ReuseKey::new(remotes, config);
        if reuse != Reuse::ForceNew
            && let Some(&conn) = self.by_key.get(&key)
            && is_usable(endpoint, conn)
        {
            return Ok(Connected { conn, reused: true });
        }
        if reuse == Reuse::NeverNew {
            return Err(ApiError::NoConnection("none to this peer, and a new one was not wanted"));
        }
        let conn = endpoint.connect(now, socket, remotes, config)?;
        self.by_key.insert(key, conn);
        Ok(Connected { conn, reused: false })
    }

    /// Forgets a connection that is over.
    pub fn forget(&mut self, conn: ConnHandle) {
        self.by_key.retain(|_, c| *c != conn);
    }

    /// Number of connections remembered.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

fn is_usable(endpoint: &Endpoint, conn: ConnHandle) -> bool {
    matches!(endpoint.status(conn), Status::Connecting | Status::FindingRoute | Status::Connected)
}
