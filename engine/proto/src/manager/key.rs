//! What makes two connects the same, and where a connection leads.

use crate::endpoint::ClientConfig;
use crate::ids::ConnectLink;
use crate::manager::SecHandle;
use ring::digest;
use std::net::SocketAddr;

/// What two connects must have in common to share a connection: a connect never rides on a
/// connection made with weaker trust, another identity, another credential or over another link
/// (behaviours §5).
///
/// A digest: it costs the same for any credential, and tells nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReuseKey([u8; 32]);

impl ReuseKey {
    /// The key of a connect to any of `remotes` with `config` over `link`. Who the peer is follows
    /// from the trust and the server name in `config`.
    pub fn new(remotes: &[SocketAddr], config: &ClientConfig, link: ConnectLink) -> Self {
        let mut remotes = remotes.to_vec();
        remotes.sort_unstable();
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(&[link as u8]);
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

    /// The key of the same connect where a security callback decides by this handle too.
    pub fn with_handle(self, handle: Option<SecHandle>) -> Self {
        let Some(SecHandle(value)) = handle else { return self };
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&self.0);
        hash.update(&value.to_be_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        Self(key)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
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

/// Where a connection leads, and how it is made.
#[derive(Clone, Debug)]
pub struct Target {
    /// Number of the socket that it goes through.
    pub socket: u16,
    /// Addresses of the one peer; the first valid answer decides.
    pub remotes: Vec<SocketAddr>,
    /// Trust, identity, credential and settings.
    pub config: ClientConfig,
    /// What carries it.
    pub link: ConnectLink,
    /// Whether a connection that is there will do.
    pub reuse: Reuse,
    /// Handed to the security callback while the connection is being made.
    pub handle: Option<SecHandle>,
}

impl Target {
    /// A target with [`Reuse::Allow`] over the datagram link, without a handle.
    pub const fn new(socket: u16, remotes: Vec<SocketAddr>, config: ClientConfig) -> Self {
        let (link, reuse) = (ConnectLink::Datagram, Reuse::Allow);
        Self { socket, remotes, config, link, reuse, handle: None }
    }

    /// Its key.
    pub fn key(&self) -> ReuseKey {
        ReuseKey::new(&self.remotes, &self.config, self.link)
    }
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

    /// Behaviours §5, "reuse": peer identity, remote address, own identity, trust policy,
    /// credential and link.
    #[test]
    fn only_equal_connects_have_equal_keys() {
        let [a, b, c]: [SocketAddr; 3] =
            ["192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1"].map(|a| a.parse().unwrap());
        let pin = Trust::Pins(vec![PeerId([1; 32])]);
        let other = Trust::Pins(vec![PeerId([2; 32])]);
        let base = config("name", b"ticket", &pin);
        let of = |remotes: &[SocketAddr], config: &ClientConfig| {
            ReuseKey::new(remotes, config, ConnectLink::Datagram)
        };
        let key = of(&[a, b], &base);
        assert_eq!(key, of(&[b, a], &base.clone()), "the order means nothing");
        let made = crate::handshake::test_support::make_certificate(
            crate::handshake::test_support::KeyKind::Ed25519,
            "me",
        );
        let me = crate::handshake::Identity::from_pem(
            made.cert.pem().as_bytes(),
            made.key.serialize_pem().as_bytes(),
        )
        .unwrap();
        let as_me =
            ClientConfig { tls: ClientTls::new(Some(me), &pin, None).unwrap(), ..base.clone() };
        let mut keys = vec![
            key,
            ReuseKey::new(&[a, b], &base, ConnectLink::Stream),
            of(&[a], &base),
            of(&[a, b, c], &base),
            of(&[c], &base),
            of(&[a, b], &config("nameticket", b"", &pin)),
            of(&[a, b], &config("name", b"Ticket", &pin)),
            of(&[a, b], &config("name", b"ticket", &other)),
            of(&[a, b], &config("name", b"ticket", &Trust::DangerousAny)),
            of(&[a, b], &as_me),
            key.with_handle(Some(SecHandle(1))),
            key.with_handle(Some(SecHandle(2))),
        ];
        assert_eq!(key.with_handle(None), key);
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
