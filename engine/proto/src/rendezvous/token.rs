//! Access tokens: what allows a client to connect to an event source.
//!
//! A token says which application, which client ids and which roles it is good for, and until
//! when. It is signed with HMAC-SHA256 under a key that whoever mints it shares with the event
//! source, which needs no database. Its text is `tk1.KEY.PAYLOAD.MAC`: the name of the key, then
//! the payload (msgpack: `[app, clients, roles, expires]`) and the MAC of everything before the
//! last dot, both base64url without padding (RFC 4648 §5). Keys are named so that they can be
//! replaced one after the other.
//!
//! Nothing of a token is believed before its MAC is checked, in time that does not depend on where
//! it differs.

use super::event::text;
use super::names::{AppId, ClientId, PairingRole, is_name_byte};
use crate::limits::{MAX_ACCESS_TOKEN, MAX_CLIENT_ID, MAX_TOKEN_KEY_ID, MAX_TOKEN_KEYS};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::fmt;
use core::str::FromStr;
use ring::hmac;
use rmp::decode::{Bytes, read_array_len, read_int};
use rmp::encode::{write_array_len, write_str, write_uint};
use std::sync::Arc;

const PREFIX: &str = "tk1";
/// Shortest secret of a key, in bytes: as long as what HMAC-SHA256 gives.
pub const MIN_SECRET: usize = 32;
/// Stars of one pattern.
const MAX_STARS: usize = 4;

/// Why a token is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It does not have the form of a token.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// It is signed with a key that is not known here.
    #[error("token is signed with an unknown key")]
    UnknownKey,
    /// Its signature does not fit.
    #[error("token has a wrong signature")]
    BadSignature,
    /// Its time is over.
    #[error("token has expired {ago_s} s ago")]
    Expired {
        /// Since when, in seconds.
        ago_s: u64,
    },
    /// A key cannot be used.
    #[error("key {0}")]
    Key(&'static str),
}

/// The text of a token, which means nothing to whoever carries it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AccessToken(Arc<str>);

impl AccessToken {
    /// Wraps the text.
    ///
    /// # Errors
    /// It is longer than [`MAX_ACCESS_TOKEN`], or has characters that no token has.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() || text.len() > MAX_ACCESS_TOKEN {
            return Err(TokenError::Malformed("it must have 1 to 512 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Malformed("it has characters that no token has"));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccessToken {
    type Err = TokenError;

    fn from_str(s: &str) -> Result<Self, TokenError> {
        Self::new(s)
    }
}

/// A token is as good as a password: it is not shown.
impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken")
    }
}

/// Client ids: one, or with `*` for any number of characters (also none) as many as fit.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientPattern(Arc<str>);

impl ClientPattern {
    /// Checks a pattern: 1 to 64 characters of a [`ClientId`], and at most 4 `*` among them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() || text.len() > MAX_CLIENT_ID {
            return Err(TokenError::Malformed("client pattern must have 1 to 64 characters"));
        }
        if !text.bytes().all(|b| b == b'*' || is_name_byte(b)) {
            return Err(TokenError::Malformed("client pattern has a character that no id has"));
        }
        if text.bytes().filter(|b| *b == b'*').count() > MAX_STARS {
            return Err(TokenError::Malformed("client pattern has more than 4 stars"));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the id of one client.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether `client` is one of them.
    pub fn matches(&self, client: &ClientId) -> bool {
        let mut rest = client.as_str();
        let mut parts = self.0.split('*');
        let Some(first) = parts.next() else { return false };
        let Some(after) = rest.strip_prefix(first) else { return false };
        rest = after;
        let mut last = None;
        for part in parts {
            // The earliest place for each part but the last leaves most to those behind it.
            if let Some(before) = last.replace(part) {
                let Some(at) = rest.find(before) else { return false };
                rest = &rest[at + before.len()..];
            }
        }
        last.map_or(rest.is_empty(), |last| rest.ends_with(last))
    }
}

impl From<&ClientId> for ClientPattern {
    fn from(client: &ClientId) -> Self {
        Self(client.as_str().into())
    }
}

impl fmt::Display for ClientPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoleSet(u8);

impl RoleSet {
    /// Both.
    pub const ALL: Self = Self(0b11);

    /// One.
    pub const fn only(role: PairingRole) -> Self {
        Self(1 << role as u8)
    }

    /// These; `None` when there is none.
    pub fn of(roles: &[PairingRole]) -> Option<Self> {
        let bits = roles.iter().fold(0, |bits, role| bits | Self::only(*role).0);
        (bits != 0).then_some(Self(bits))
    }

    /// Whether `role` is one of them.
    pub const fn contains(self, role: PairingRole) -> bool {
        self.0 & Self::only(role).0 != 0
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let all = PairingRole::ALL.into_iter();
        all.filter(|role| self.contains(*role)).map(PairingRole::name).collect()
    }
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// In this application,
    pub app: AppId,
    /// as one of these clients,
    pub clients: ClientPattern,
    /// with one of these roles,
    pub roles: RoleSet,
    /// until then, in seconds of Unix time.
    pub expires_s: u64,
}

impl Grant {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        let _ = write_array_len(&mut out, 4);
        let _ = write_str(&mut out, self.app.as_str());
        let _ = write_str(&mut out, self.clients.as_str());
        let _ = write_uint(&mut out, self.roles.0.into());
        let _ = write_uint(&mut out, self.expires_s);
        out
    }

    fn decode(payload: &[u8]) -> Result<Self, TokenError> {
        let bad = TokenError::Malformed;
        let mut rd = Bytes::new(payload);
        if !read_array_len(&mut rd).is_ok_and(|n| n >= 4) {
            return Err(bad("payload is not an array of 4 elements"));
        }
        let app = text(&mut rd).and_then(|s| AppId::new(s).ok()).ok_or(bad("app is not a name"))?;
        let clients = text(&mut rd).ok_or(bad("client pattern is not a string"))?;
        let clients = ClientPattern::new(clients)?;
        let roles = match read_int::<u8, _>(&mut rd) {
            Ok(bits) if bits != 0 && bits & !RoleSet::ALL.0 == 0 => RoleSet(bits),
            _ => return Err(bad("roles are not a number from 1 to 3")),
        };
        let expires_s = read_int(&mut rd).map_err(|_| bad("expiry is not an unsigned integer"))?;
        Ok(Self { app, clients, roles, expires_s })
    }
}

/// The parts of a token's text.
struct Parts<'a> {
    key: &'a str,
    payload: &'a str,
    mac: &'a str,
    /// What the MAC covers.
    signed: &'a str,
}

fn split(token: &str) -> Result<Parts<'_>, TokenError> {
    let bad = TokenError::Malformed;
    if token.len() > MAX_ACCESS_TOKEN {
        return Err(bad("it must have 1 to 512 characters"));
    }
    let (signed, mac) = token.rsplit_once('.').ok_or(bad("it has no dots"))?;
    let mut parts = signed.split('.');
    if parts.next() != Some(PREFIX) {
        return Err(bad("it does not start with tk1"));
    }
    let (Some(key), Some(payload), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad("it must have 4 parts"));
    };
    check_key_id(key).map_err(|_| bad("the name of its key is not one"))?;
    Ok(Parts { key, payload, mac, signed })
}

fn decoded(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("it is not base64url"))
}

/// What a token says, and the name of its key, without checking whether any of it is true.
///
/// # Errors
/// [`TokenError::Malformed`].
pub fn dangerous_inspect(token: &str) -> Result<(String, Grant), TokenError> {
    let parts = split(token)?;
    Ok((parts.key.to_owned(), Grant::decode(&decoded(parts.payload)?)?))
}

fn check_key_id(id: &str) -> Result<(), TokenError> {
    let fits = (1..=MAX_TOKEN_KEY_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fits { Ok(()) } else { Err(TokenError::Key("name must be 1 to 32 of A-Z a-z 0-9 - _")) }
}

/// Keys under which tokens are minted and checked.
#[derive(Clone, Default)]
pub struct KeyRing {
    keys: Vec<(String, hmac::Key)>,
}

impl KeyRing {
    /// No key: no token is good.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`TokenError::Key`]: the name is malformed or taken, the secret is shorter than
    /// [`MIN_SECRET`], or there are [`MAX_TOKEN_KEYS`] keys.
    pub fn add(&mut self, id: &str, secret: &[u8]) -> Result<(), TokenError> {
        check_key_id(id)?;
        if secret.len() < MIN_SECRET {
            return Err(TokenError::Key("secret must have at least 32 bytes"));
        }
        if self.find(id).is_some() {
            return Err(TokenError::Key("name is there already"));
        }
        if self.keys.len() >= MAX_TOKEN_KEYS {
            return Err(TokenError::Key("is one too many (64)"));
        }
        self.keys.push((id.to_owned(), hmac::Key::new(hmac::HMAC_SHA256, secret)));
        Ok(())
    }

    /// Names of the keys, in the order in which they were added.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    fn find(&self, id: &str) -> Option<&hmac::Key> {
        self.keys.iter().find(|(name, _)| name == id).map(|(_, key)| key)
    }

    /// Signs a token with the key `id`.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`].
    pub fn mint(&self, id: &str, grant: &Grant) -> Result<AccessToken, TokenError> {
        let key = self.find(id).ok_or(TokenError::UnknownKey)?;
        let signed = format!("{PREFIX}.{id}.{}", URL_SAFE_NO_PAD.encode(grant.encode()));
        let mac = URL_SAFE_NO_PAD.encode(hmac::sign(key, signed.as_bytes()));
        AccessToken::new(&format!("{signed}.{mac}"))
    }

    /// Checks a token at `unix_s`, seconds of Unix time. It is good up to the second in which it
    /// expires, which is not part of its time.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong.
    pub fn verify(&self, token: &str, unix_s: u64) -> Result<Grant, TokenError> {
        let parts = split(token)?;
        let key = self.find(parts.key).ok_or(TokenError::UnknownKey)?;
        let mac = decoded(parts.mac)?;
        hmac::verify(key, parts.signed.as_bytes(), &mac).map_err(|_| TokenError::BadSignature)?;
        let grant = Grant::decode(&decoded(parts.payload)?)?;
        if unix_s >= grant.expires_s {
            return Err(TokenError::Expired { ago_s: unix_s - grant.expires_s });
        }
        Ok(grant)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// The credential with which a client connects: token, client id and role, with a space between
/// them.
pub fn credential(token: &AccessToken, client: &ClientId, role: PairingRole) -> Vec<u8> {
    format!("{} {client} {role}", token.as_str()).into_bytes()
}

#[cfg(test)]
mod tests;
