//! The connection manager: a second connect to the same peer opens a channel on the connection that
//! is already there (behaviours §4).
//!
//! It holds no connection: it remembers which handle was made for which [`ReuseKey`], and asks the
//! endpoint whether that handle still lives. Called by the shard, above the endpoint.

use crate::endpoint::{ClientConfig, Endpoint, StreamOptions};
use crate::error::ApiError;
use crate::ids::ConnHandle;
use crate::status::Status;
use crate::time::Instant;
use ring::digest;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What two connects must have in common to share a connection: a connect never rides on a
/// connection made with weaker trust, another identity or another credential (behaviours §5).
///
/// A digest: it costs the same for any credential, and tells nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReuseKey([u8; 32]);

impl ReuseKey {
    /// The key of a connect to any of `remotes` with `config`.
    pub fn new(remotes: &[SocketAddr], config: &ClientConfig) -> Self {
        let mut remotes = remotes.to_vec();
        remotes.sort_unstable();
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(&(remotes.len() as u64).to_be_bytes());
        for remote in remotes {
            match remote {
                SocketAddr::V4(v4) => part(&v4.ip().octets()),
                SocketAddr::V6(v6) => {
                    part(&v6.ip().octets());
                    part(&v6.scope_id().to_be_bytes());
                }
            }
            part(&remote.port().to_be_bytes());
        }
        part(config.server_name.as_bytes());
        part(&config.credential);
        part(config.tls.fingerprint().as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        Self(key)
    }
}

impl ReuseKey {
    /// The key of the same connect over another link.
    fn over(self, link: &[u8]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(link);
        hash.update(&self.0);
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        Self(key)
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
    by_conn: BTreeMap<(u32, u32), ReuseKey>,
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
        self.find_or_make(endpoint, key, reuse, |ep| ep.connect(now, socket, remotes, config))
    }

    fn find_or_make(
        &mut self,
        endpoint: &mut Endpoint,
        key: ReuseKey,
        reuse: Reuse,
        make: impl FnOnce(&mut Endpoint) -> Result<ConnHandle, ApiError>,
    ) -> Result<Connected, ApiError> {
        if reuse != Reuse::ForceNew
            && let Some(&conn) = self.by_key.get(&key)
            && is_usable(endpoint, conn)
        {
            return Ok(Connected { conn, reused: true });
        }
        if reuse == Reuse::NeverNew {
            return Err(ApiError::NoConnection("none to this peer, and a new one was not wanted"));
        }
        let conn = make(endpoint)?;
        if let Some(old) = self.by_key.insert(key, conn) {
            self.by_conn.remove(&(old.slot, old.generation));
        }
        self.by_conn.insert((conn.slot, conn.generation), key);
        Ok(Connected { conn, reused: false })
    }

    /// The same for a connection over whichever link proves the host first.
    ///
    /// # Errors
    /// As [`Self::connect`].
    #[allow(clippy::too_many_arguments)]
    pub fn connect_either(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        socket: u16,
        remotes: &[SocketAddr],
        stream_remote: SocketAddr,
        config: &ClientConfig,
        reuse: Reuse,
    ) -> Result<Connected, ApiError> {
        let key = ReuseKey::new(remotes, config).over(b"either");
        self.find_or_make(endpoint, key, reuse, |ep| {
            ep.connect_either(now, socket, remotes, stream_remote, config)
        })
    }

    /// The same for a connection over a stream.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_stream(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        remotes: &[SocketAddr],
        config: &ClientConfig,
        options: StreamOptions,
        reuse: Reuse,
    ) -> Result<Connected, ApiError> {
        let Some(&first) = remotes.first() else {
            return Err(ApiError::InvalidArgument { field: "remotes", why: "is empty" });
        };
        let key =
            ReuseKey::new(remotes, config).over(if options.plain { b"plain" } else { b"stream" });
        self.find_or_make(endpoint, key, reuse, |ep| ep.connect_stream(now, first, config, options))
    }

    /// Forgets a connection that is over.
    pub fn forget(&mut self, conn: ConnHandle) {
        if let Some(key) = self.by_conn.remove(&(conn.slot, conn.generation)) {
            self.by_key.remove(&key);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{ClientTls, Trust};
    use crate::ids::PeerId;

    fn config(name: &str, credential: &[u8], trust: &Trust) -> ClientConfig {
        ClientConfig {
            tls: ClientTls::new(None, trust, None).unwrap(),
            server_name: name.into(),
            credential: credential.to_vec(),
            connection: None,
        }
    }

    #[test]
    fn only_equal_connects_have_equal_keys() {
        let [a, b, c]: [SocketAddr; 3] =
            ["192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1"].map(|a| a.parse().unwrap());
        let pin = Trust::Pins(vec![PeerId([1; 32])]);
        let other = Trust::Pins(vec![PeerId([2; 32])]);
        let base = config("name", b"ticket", &pin);
        let key = ReuseKey::new(&[a, b], &base);
        assert_eq!(key, ReuseKey::new(&[b, a], &base.clone()), "the order means nothing");
        let mut keys = vec![
            key,
            ReuseKey::new(&[a], &base),
            ReuseKey::new(&[a, b, c], &base),
            ReuseKey::new(&[c], &base),
            ReuseKey::new(&[a, b], &config("nameticket", b"", &pin)),
            ReuseKey::new(&[a, b], &config("name", b"Ticket", &pin)),
            ReuseKey::new(&[a, b], &config("name", b"ticket", &other)),
            ReuseKey::new(&[a, b], &config("name", b"ticket", &Trust::DangerousAny)),
        ];
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
