//! Credentials: signed tokens that say until when their holder may connect, and whatever else the
//! application wants to know of it.
//!
//! A [`CredentialIssuer`] (a login service, a matchmaker) makes them, a client presents one when it
//! connects, and the host's application checks it with a [`CredentialVerifier`] before it accepts
//! ([`Incoming::verify`](crate::event::Incoming::verify)). They are signed with a secret that issuer
//! and verifier share (HMAC-SHA256), or with the issuer's Ed25519 key, of which the verifier knows
//! the public half only. A credential holds for one *audience* (a name that both sides are given and
//! that is signed with it, not sent), for a time, and, where it is bound to a [`PeerId`], for the
//! client that can prove to be that peer: what was stolen then is of no use to anybody else.
//!
//! Nothing here reads a clock: Unix time, in seconds, is an argument. What happens when a credential
//! expires while its connection lives is for the application to decide; [`Credential::expires_in`]
//! says when that is. The bytes are described in `docs/credentials.md`.

use super::token::equal_secrets;
use crate::error::ApiError;
use crate::ids::PeerId;
use crate::limits::{MAX_CREDENTIAL, MAX_CREDENTIAL_AUDIENCE, MAX_CREDENTIAL_CLAIMS};
use crate::time::Duration;
use core::fmt;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ring::{digest, hmac};

/// First byte of a credential.
const FORMAT: u8 = 1;
const HMAC_SHA256: u8 = 1;
const ED25519_SIGNATURE: u8 = 2;
/// The credential names the peer that may use it.
const BOUND: u8 = 1;
/// Format, algorithm, flags, key id, issued, expires.
const HEADER: usize = 1 + 1 + 1 + 4 + 8 + 8;
const PEER: usize = 32;
/// What is signed begins with this, so that no signature means anything elsewhere.
const CONTEXT: &[u8] = b"trunkline credential 1\0";
/// Shortest secret in bytes: that of the hash (RFC 2104 §3).
const MIN_SECRET: usize = 32;
/// How far the issuer's clock may run ahead of the verifier's, in seconds.
const AHEAD_S: u64 = 30;

const _: () = assert!(HEADER + PEER + 64 + MAX_CREDENTIAL_CLAIMS <= MAX_CREDENTIAL);

/// What a credential is to say.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// From when it holds, in seconds of Unix time.
    pub issued_s: u64,
    /// Until when it holds, in seconds of Unix time.
    pub expires_s: u64,
    /// The only client that may use it; `None` = whoever has it.
    pub peer: Option<PeerId>,
    /// Whatever the application wants to know of its holder, at most [`MAX_CREDENTIAL_CLAIMS`]
    /// bytes. Signed, not encrypted: its holder can read it.
    pub claims: &'a [u8],
}

/// What a valid credential says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential<'a> {
    /// Which of the verifier's keys it was signed with.
    pub key_id: u32,
    /// When it was issued, in seconds of Unix time.
    pub issued_s: u64,
    /// Until when it holds, in seconds of Unix time.
    pub expires_s: u64,
    /// The client that it is bound to, which is the one that presented it.
    pub peer: Option<PeerId>,
    /// What the issuer said of its holder.
    pub claims: &'a [u8],
}

impl Credential<'_> {
    /// How long it still holds at `now_s`, seconds of Unix time.
    pub const fn expires_in(&self, now_s: u64) -> Duration {
        let left_s = self.expires_s.saturating_sub(now_s);
        // Further away than a timer can be set.
        const MAX_S: u64 = u64::MAX / 1_000_000_000;
        Duration::from_secs(if left_s < MAX_S { left_s } else { MAX_S })
    }
}

/// Why a credential is not accepted. The words are fit to be told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The client presented none.
    #[error("a credential is required")]
    Missing,
    /// Not a credential, or one that was cut.
    #[error("malformed credential: {0}")]
    Malformed(&'static str),
    /// Signed with a key that the verifier does not have.
    #[error("credential signed with unknown key {0}")]
    UnknownKey(u32),
    /// The signature is not that of the key, or it was made for another audience.
    #[error("credential with a wrong signature")]
    Signature,
    /// It holds from a later time on.
    #[error("credential is not valid yet")]
    NotYetValid,
    /// Its time is over.
    #[error("credential expired {by_s} s ago")]
    Expired {
        /// Since how many seconds.
        by_s: u64,
    },
    /// It is bound to another client, or this one showed no certificate.
    #[error("credential belongs to another peer")]
    WrongPeer,
}

fn argument(field: &'static str, why: &'static str) -> ApiError {
    ApiError::InvalidArgument { field, why }
}

/// What both sides mix into every signature.
fn check_audience(audience: &str) -> Result<Box<[u8]>, ApiError> {
    if audience.len() > MAX_CREDENTIAL_AUDIENCE {
        return Err(argument("audience", "must be at most 255 bytes"));
    }
    let mut prefix = CONTEXT.to_vec();
    prefix.push(audience.len() as u8);
    prefix.extend_from_slice(audience.as_bytes());
    Ok(prefix.into())
}

fn secret_key(secret: &[u8]) -> Result<hmac::Key, ApiError> {
    if secret.len() < MIN_SECRET {
        return Err(argument("secret", "must be at least 32 bytes"));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, secret))
}

enum SigningKey {
    Secret(hmac::Key),
    Private(Box<Ed25519KeyPair>),
}

/// Makes credentials for one audience.
pub struct CredentialIssuer {
    key: SigningKey,
    key_id: u32,
    prefix: Box<[u8]>,
}

impl CredentialIssuer {
    /// Signs with a secret that the verifiers share, of at least 32 random bytes. `key_id` is the
    /// number under which they have it.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`]: a secret that is too short, an audience that is too long.
    pub fn with_secret(audience: &str, key_id: u32, secret: &[u8]) -> Result<Self, ApiError> {
        let key = SigningKey::Secret(secret_key(secret)?);
        Ok(Self { key, key_id, prefix: check_audience(audience)? })
    }

    /// Signs with an Ed25519 key in PKCS#8 (what `openssl genpkey -algorithm ed25519` makes, as
    /// DER).
    ///
    /// # Errors
    /// [`ApiError::Security`]: no such key; [`ApiError::InvalidArgument`]: an audience that is too
    /// long.
    pub fn with_ed25519(audience: &str, key_id: u32, pkcs8: &[u8]) -> Result<Self, ApiError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map_err(|e| ApiError::Security(format!("Ed25519 key: {e}")))?;
        let key = SigningKey::Private(Box::new(pair));
        Ok(Self { key, key_id, prefix: check_audience(audience)? })
    }

    /// The public half of an Ed25519 key, for verifiers.
    pub fn public_key(&self) -> Option<[u8; 32]> {
        match &self.key {
            SigningKey::Secret(_) => None,
            SigningKey::Private(pair) => pair.public_key().as_ref().try_into().ok(),
        }
    }

    /// Makes a credential.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`]: claims that are too long, or a time that ends before it
    /// begins.
    pub fn issue(&self, grant: &Grant<'_>) -> Result<Vec<u8>, ApiError> {
        if grant.claims.len() > MAX_CREDENTIAL_CLAIMS {
            return Err(argument("claims", "must be at most 8064 bytes"));
        }
        if grant.expires_s <= grant.issued_s {
            return Err(argument("expires_s", "must be later than issued_s"));
        }
        let algorithm = match self.key {
            SigningKey::Secret(_) => HMAC_SHA256,
            SigningKey::Private(_) => ED25519_SIGNATURE,
        };
        // The prefix stands in front until all is signed.
        let mut out = self.prefix.to_vec();
        out.extend([FORMAT, algorithm, if grant.peer.is_some() { BOUND } else { 0 }]);
        out.extend(self.key_id.to_be_bytes());
        out.extend(grant.issued_s.to_be_bytes());
        out.extend(grant.expires_s.to_be_bytes());
        if let Some(peer) = grant.peer {
            out.extend(peer.0);
        }
        out.extend_from_slice(grant.claims);
        match &self.key {
            SigningKey::Secret(key) => {
                let tag = hmac::sign(key, &out);
                out.extend_from_slice(tag.as_ref());
            }
            SigningKey::Private(pair) => {
                let signature = pair.sign(&out);
                out.extend_from_slice(signature.as_ref());
            }
        }
        Ok(out.split_off(self.prefix.len()))
    }
}

impl fmt::Debug for CredentialIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialIssuer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum VerifyingKey {
    Secret(hmac::Key),
    Public([u8; 32]),
}

/// Checks credentials of one audience. Holds any number of keys, so that a new one can be brought
/// in before the old one is taken away.
#[derive(Clone)]
pub struct CredentialVerifier {
    keys: Vec<(u32, VerifyingKey)>,
    prefix: Box<[u8]>,
}

impl CredentialVerifier {
    /// A verifier without keys, which accepts nothing.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`]: an audience of more than 255 bytes.
    pub fn new(audience: &str) -> Result<Self, ApiError> {
        Ok(Self { keys: Vec::new(), prefix: check_audience(audience)? })
    }

    /// Accepts credentials that are signed with this secret, in place of what had the number
    /// before.
    ///
    /// # Errors
    /// [`ApiError::InvalidArgument`]: fewer than 32 bytes.
    pub fn add_secret(&mut self, key_id: u32, secret: &[u8]) -> Result<(), ApiError> {
        let key = VerifyingKey::Secret(secret_key(secret)?);
        self.remove_key(key_id);
        self.keys.push((key_id, key));
        Ok(())
    }

    /// Accepts credentials that are signed with the Ed25519 key of which this is the public half,
    /// in place of what had the number before.
    pub fn add_public_key(&mut self, key_id: u32, public_key: [u8; 32]) {
        self.remove_key(key_id);
        self.keys.push((key_id, VerifyingKey::Public(public_key)));
    }

    /// Accepts nothing any more that is signed with this key.
    pub fn remove_key(&mut self, key_id: u32) {
        self.keys.retain(|(id, _)| *id != key_id);
    }

    /// Checks a credential at `now_s`, seconds of Unix time, that was presented by `peer`, the
    /// identity that the client has proved with its certificate, if it has.
    ///
    /// # Errors
    /// Why it is not accepted. Nothing that it says is believed before its signature is good.
    pub fn verify<'a>(
        &self,
        credential: &'a [u8],
        now_s: u64,
        peer: Option<PeerId>,
    ) -> Result<Credential<'a>, CredentialError> {
        let parsed = self.open(credential)?;
        if parsed.issued_s > now_s.saturating_add(AHEAD_S) {
            return Err(CredentialError::NotYetValid);
        }
        if parsed.expires_s <= now_s {
            return Err(CredentialError::Expired { by_s: now_s - parsed.expires_s });
        }
        let is_holder = |bound: PeerId| peer.is_some_and(|p| equal_secrets(&p.0, &bound.0));
        if parsed.peer.is_some_and(|bound| !is_holder(bound)) {
            return Err(CredentialError::WrongPeer);
        }
        Ok(parsed)
    }

    /// Reads a credential whose signature is good.
    fn open<'a>(&self, credential: &'a [u8]) -> Result<Credential<'a>, CredentialError> {
        if credential.is_empty() {
            return Err(CredentialError::Missing);
        }
        if credential.len() > MAX_CREDENTIAL {
            return Err(CredentialError::Malformed("too long"));
        }
        let cut = CredentialError::Malformed("cut short");
        let (header, _) = credential.split_first_chunk::<HEADER>().ok_or(cut)?;
        let [format, algorithm, flags, k0, k1, k2, k3, times @ ..] = *header;
        if format != FORMAT {
            return Err(CredentialError::Malformed("unknown format"));
        }
        if flags & !BOUND != 0 {
            return Err(CredentialError::Malformed("unknown flags"));
        }
        let signature_len = match algorithm {
            HMAC_SHA256 => digest::SHA256_OUTPUT_LEN,
            ED25519_SIGNATURE => 64,
            _ => return Err(CredentialError::Malformed("unknown algorithm")),
        };
        let is_bound = flags & BOUND != 0;
        let fixed = HEADER + if is_bound { PEER } else { 0 };
        let signed_len = credential.len().checked_sub(signature_len).filter(|n| *n >= fixed);
        let (signed, signature) = credential.split_at(signed_len.ok_or(cut)?);
        let key_id = u32::from_be_bytes([k0, k1, k2, k3]);
        self.check_signature(algorithm, key_id, signed, signature)?;
        let (issued, expires) = times.split_at(8);
        let seconds = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let (peer, claims) = signed[HEADER..].split_at(fixed - HEADER);
        Ok(Credential {
            key_id,
            issued_s: seconds(issued),
            expires_s: seconds(expires),
            peer: peer.try_into().ok().map(PeerId),
            claims,
        })
    }

    /// The algorithm is the key's: what a credential says of it only has to agree.
    fn check_signature(
        &self,
        algorithm: u8,
        key_id: u32,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), CredentialError> {
        let key = self.keys.iter().find(|(id, _)| *id == key_id);
        let (_, key) = key.ok_or(CredentialError::UnknownKey(key_id))?;
        let message = [&self.prefix, signed].concat();
        let good = match (algorithm, key) {
            (HMAC_SHA256, VerifyingKey::Secret(key)) => {
                hmac::verify(key, &message, signature).is_ok()
            }
            (ED25519_SIGNATURE, VerifyingKey::Public(key)) => {
                UnparsedPublicKey::new(&ED25519, key).verify(&message, signature).is_ok()
            }
            _ => false,
        };
        if good { Ok(()) } else { Err(CredentialError::Signature) }
    }
}

impl fmt::Debug for CredentialVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u32> = self.keys.iter().map(|(id, _)| *id).collect();
        f.debug_struct("CredentialVerifier").field("keys", &ids).finish_non_exhaustive()
    }
}
