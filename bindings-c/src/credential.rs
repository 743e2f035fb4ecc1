//! Credentials: what a client shows the host's application, made and checked by us. The bytes are
//! described in `docs/credentials.md`.

use crate::abi::{self, Struct};
use crate::registry::{Kind, Registry};
use crate::result::{Error, Result, TRUNK_ERR_CREDENTIAL, TRUNK_ERR_SECURITY, guard, trunk_result};
use crate::security::TRUNK_FINGERPRINT_BYTES;
use engine::limits::{MAX_CREDENTIAL, MAX_CREDENTIAL_AUDIENCE, MAX_CREDENTIAL_CLAIMS};
use engine::rendezvous::MIN_SECRET;
use engine::{Credential, CredentialError, CredentialIssuer, CredentialVerifier, Grant, PeerId};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::ffi::{c_char, c_void};
use std::sync::{PoisonError, RwLock};

/// Most bytes of a credential.
pub const TRUNK_CREDENTIAL_BYTES: usize = 8192;
/// Most bytes of what a credential says of its holder.
pub const TRUNK_CREDENTIAL_CLAIMS_BYTES: usize = 8064;
/// Fewest bytes of a secret with which credentials or access tokens are signed.
pub const TRUNK_SECRET_BYTES: usize = 32;
/// Bytes of an Ed25519 public key.
pub const TRUNK_PUBLIC_KEY_BYTES: usize = 32;

const _: () = {
    assert!(TRUNK_CREDENTIAL_BYTES == MAX_CREDENTIAL && MAX_CREDENTIAL_AUDIENCE == 255);
    assert!(TRUNK_CREDENTIAL_CLAIMS_BYTES == MAX_CREDENTIAL_CLAIMS);
    assert!(TRUNK_SECRET_BYTES == MIN_SECRET);
};

/// What makes credentials: a login service, a matchmaker. 0 is none.
pub type trunk_credential_issuer = u64;
/// What checks credentials, with the keys of any number of issuers. 0 is none.
pub type trunk_credential_verifier = u64;

static ISSUERS: Registry<CredentialIssuer> =
    Registry::new(Kind::CredentialIssuer, "invalid or already closed credential issuer");
static VERIFIERS: Registry<RwLock<CredentialVerifier>> =
    Registry::new(Kind::CredentialVerifier, "invalid or already closed credential verifier");

/// What a credential is to say. trunk_credential_grant_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_credential_grant {
    /// Size of this struct; set by trunk_credential_grant_init.
    pub struct_size: u32,
    /// Not 0: only the client whose fingerprint peer is may use it, so that it is of no use to
    /// whoever steals it. 0.
    pub has_peer: u32,
    /// From when it holds, in seconds of Unix time. 0 = now.
    pub issued_s: u64,
    /// Until when it holds, in seconds of Unix time. Required.
    pub expires_s: u64,
    /// The client's fingerprint.
    pub peer: [u8; TRUNK_FINGERPRINT_BYTES],
    /// Whatever the application wants to know of its holder, at most TRUNK_CREDENTIAL_CLAIMS_BYTES.
    /// Signed, not encrypted: its holder can read it. NULL = nothing.
    pub claims: *const c_void,
    /// Bytes of it.
    pub claims_size: usize,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_credential_grant {
    const NAME: &'static str = "trunk_credential_grant";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            has_peer: 0,
            issued_s: 0,
            expires_s: 0,
            peer: [0; TRUNK_FINGERPRINT_BYTES],
            claims: std::ptr::null(),
            claims_size: 0,
        }
    }
}

/// Why a credential is not accepted.
pub type trunk_credential_error = u32;

/// It is accepted.
pub const TRUNK_CREDENTIAL_GOOD: trunk_credential_error = 0;
/// The client presented none.
pub const TRUNK_CREDENTIAL_MISSING: trunk_credential_error = 1;
/// Not a credential, or one that was cut.
pub const TRUNK_CREDENTIAL_MALFORMED: trunk_credential_error = 2;
/// Signed with a key that the verifier does not have: key_id.
pub const TRUNK_CREDENTIAL_UNKNOWN_KEY: trunk_credential_error = 3;
/// The signature is not that of the key, or it was made for another audience.
pub const TRUNK_CREDENTIAL_WRONG_SIGNATURE: trunk_credential_error = 4;
/// It holds from a later time on.
pub const TRUNK_CREDENTIAL_NOT_YET_VALID: trunk_credential_error = 5;
/// Its time is over: expired_by_s.
pub const TRUNK_CREDENTIAL_EXPIRED: trunk_credential_error = 6;
/// It is bound to another client, or this one has shown no certificate.
pub const TRUNK_CREDENTIAL_WRONG_PEER: trunk_credential_error = 7;
/// For a reason that this version has no name for.
pub const TRUNK_CREDENTIAL_OTHER: trunk_credential_error = 8;

/// What a credential says. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_credential {
    /// Size of this struct; set by trunk_credential_init.
    pub struct_size: u32,
    /// Why it is not accepted; the fields below are 0 then, unless stated at the error.
    pub error: trunk_credential_error,
    /// Which of the verifier's keys it was signed with.
    pub key_id: u32,
    /// Whether it is bound to a client, and peer is valid.
    pub has_peer: u32,
    /// From when it holds, in seconds of Unix time.
    pub issued_s: u64,
    /// Until when it holds, in seconds of Unix time, which is not part of its time. What happens
    /// then to a connection that lives is the application's choice.
    pub expires_s: u64,
    /// TRUNK_CREDENTIAL_EXPIRED: since how many seconds its time is over.
    pub expired_by_s: u64,
    /// Fingerprint of the client that it is bound to, which is the one that presented it.
    pub peer: [u8; TRUNK_FINGERPRINT_BYTES],
    /// What the issuer said of its holder: points into the credential that was given to
    /// trunk_credential_verify, and is valid as long as that.
    pub claims: *const u8,
    /// Bytes of it.
    pub claims_size: usize,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_credential {
    const NAME: &'static str = "trunk_credential";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            error: TRUNK_CREDENTIAL_GOOD,
            key_id: 0,
            has_peer: 0,
            issued_s: 0,
            expires_s: 0,
            expired_by_s: 0,
            peer: [0; TRUNK_FINGERPRINT_BYTES],
            claims: std::ptr::null(),
            claims_size: 0,
        }
    }
}

impl From<&Credential<'_>> for trunk_credential {
    fn from(credential: &Credential<'_>) -> Self {
        Self {
            key_id: credential.key_id,
            has_peer: credential.peer.is_some().into(),
            issued_s: credential.issued_s,
            expires_s: credential.expires_s,
            peer: credential.peer.map_or([0; TRUNK_FINGERPRINT_BYTES], |peer| peer.0),
            claims: credential.claims.as_ptr(),
            claims_size: credential.claims.len(),
            ..Self::defaults()
        }
    }
}

impl From<CredentialError> for trunk_credential {
    fn from(error: CredentialError) -> Self {
        let mut answer = Self::defaults();
        answer.error = match error {
            CredentialError::Missing => TRUNK_CREDENTIAL_MISSING,
            CredentialError::Malformed(_) => TRUNK_CREDENTIAL_MALFORMED,
            CredentialError::UnknownKey(key_id) => {
                answer.key_id = key_id;
                TRUNK_CREDENTIAL_UNKNOWN_KEY
            }
            CredentialError::Signature => TRUNK_CREDENTIAL_WRONG_SIGNATURE,
            CredentialError::NotYetValid => TRUNK_CREDENTIAL_NOT_YET_VALID,
            CredentialError::Expired { by_s } => {
                answer.expired_by_s = by_s;
                TRUNK_CREDENTIAL_EXPIRED
            }
            CredentialError::WrongPeer => TRUNK_CREDENTIAL_WRONG_PEER,
            _ => TRUNK_CREDENTIAL_OTHER,
        };
        answer
    }
}

/// Fills struct_size bytes at grant with the defaults. Call it as
/// trunk_credential_grant_init(&grant).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_grant_init_sized(
    grant: *mut trunk_credential_grant,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(grant, struct_size) })
}

/// Fills struct_size bytes at credential with zeros and its size. Call it as
/// trunk_credential_init(&credential).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_init_sized(
    credential: *mut trunk_credential,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(credential, struct_size) })
}

/// Makes an issuer that signs with a secret which the verifiers share (HMAC-SHA256), and stores its
/// handle, which is valid until trunk_credential_issuer_close. audience is what its credentials are
/// for, a game or a fleet: UTF-8, at most 255 bytes, the same at the verifiers, and not sent.
/// key_id is the number under which the verifiers have the secret, of at least TRUNK_SECRET_BYTES
/// random bytes, which are copied.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_issuer_with_secret(
    audience: *const c_char,
    key_id: u32,
    secret: *const c_void,
    secret_size: usize,
    issuer: *mut trunk_credential_issuer,
) -> trunk_result {
    guard(|| {
        abi::expect(issuer, "issuer")?;
        // SAFETY: a string, and that many bytes, by contract.
        let (audience, secret) = unsafe {
            (abi::text(audience, "audience")?, abi::bytes(secret, secret_size, "secret")?)
        };
        let made = CredentialIssuer::with_secret(audience, key_id, secret)?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(issuer, "issuer", ISSUERS.insert(made)) }
    })
}

/// The same with an Ed25519 key, of which the verifiers have the public half only: PKCS#8, as PEM
/// or DER, such as "openssl genpkey -algorithm ed25519" makes it; of a text of
/// trunk_identity_generate it takes the key. It is copied.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SECURITY
/// (no such key).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_issuer_with_ed25519(
    audience: *const c_char,
    key_id: u32,
    private_key: *const c_void,
    private_key_size: usize,
    issuer: *mut trunk_credential_issuer,
) -> trunk_result {
    guard(|| {
        abi::expect(issuer, "issuer")?;
        // SAFETY: a string, and that many bytes, by contract.
        let (audience, key) = unsafe {
            let key = abi::bytes(private_key, private_key_size, "private_key")?;
            (abi::text(audience, "audience")?, key)
        };
        let made = with_ed25519(audience, key_id, key)?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(issuer, "issuer", ISSUERS.insert(made)) }
    })
}

fn with_ed25519(audience: &str, key_id: u32, key: &[u8]) -> Result<CredentialIssuer> {
    const PEM: &[u8] = b"-----BEGIN ";
    if !key.windows(PEM.len()).any(|part| part == PEM) {
        return Ok(CredentialIssuer::with_ed25519(audience, key_id, key)?);
    }
    let der = PrivatePkcs8KeyDer::from_pem_slice(key)
        .map_err(|e| Error::text(TRUNK_ERR_SECURITY, format!("private_key: {e}")))?;
    Ok(CredentialIssuer::with_ed25519(audience, key_id, der.secret_pkcs8_der())?)
}

/// Stores the public half of an issuer's Ed25519 key, TRUNK_PUBLIC_KEY_BYTES bytes, for verifiers.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT (the issuer signs with a secret), TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_issuer_public_key(
    issuer: trunk_credential_issuer,
    public_key: *mut u8,
) -> trunk_result {
    guard(|| {
        let issuer = ISSUERS.get(issuer)?;
        abi::expect(public_key, "public_key")?;
        let key = issuer
            .public_key()
            .ok_or(Error::invalid("issuer", "signs with a secret and has no public key"))?;
        // SAFETY: that many writable bytes by contract.
        unsafe { public_key.copy_from_nonoverlapping(key.as_ptr(), TRUNK_PUBLIC_KEY_BYTES) };
        Ok(())
    })
}

/// Makes a credential in the capacity bytes at credential, and stores its size at size also when
/// they are too few. TRUNK_CREDENTIAL_BYTES are always enough, and 119 bytes more than the claims.
/// The client gives it to trunk_connect_config.credential.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_issue(
    issuer: trunk_credential_issuer,
    grant: *const trunk_credential_grant,
    credential: *mut u8,
    capacity: usize,
    size: *mut usize,
) -> trunk_result {
    guard(|| {
        let issuer = ISSUERS.get(issuer)?;
        abi::expect(size, "size")?;
        if grant.is_null() {
            return Err(Error::null("grant"));
        }
        // SAFETY: a grant by contract.
        let grant = unsafe { abi::read(grant) }?;
        let made = issuer.issue(&Grant {
            issued_s: abi::unix_s(grant.issued_s),
            expires_s: grant.expires_s,
            peer: (grant.has_peer != 0).then_some(PeerId(grant.peer)),
            // SAFETY: that many bytes by contract.
            claims: unsafe { abi::bytes(grant.claims, grant.claims_size, "claims") }?,
        })?;
        // SAFETY: the caller's buffer, and a size that was checked.
        unsafe { abi::put_bytes(&made, credential, capacity, size) }
    })
}

/// Ends an issuer; its handle is stale afterwards.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_credential_issuer_close(issuer: trunk_credential_issuer) -> trunk_result {
    guard(|| ISSUERS.take(issuer).map(drop))
}

/// Makes a verifier without keys, which accepts nothing, and stores its handle, which is valid
/// until trunk_credential_verifier_close. audience is that of the issuers.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_verifier_new(
    audience: *const c_char,
    verifier: *mut trunk_credential_verifier,
) -> trunk_result {
    guard(|| {
        abi::expect(verifier, "verifier")?;
        // SAFETY: a string by contract.
        let made = CredentialVerifier::new(unsafe { abi::text(audience, "audience") }?)?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(verifier, "verifier", VERIFIERS.insert(RwLock::new(made))) }
    })
}

/// Runs `f` with a verifier that it may change.
fn change<R>(
    verifier: trunk_credential_verifier,
    f: impl FnOnce(&mut CredentialVerifier) -> R,
) -> Result<R> {
    let verifier = VERIFIERS.get(verifier)?;
    let mut verifier = verifier.write().unwrap_or_else(PoisonError::into_inner);
    Ok(f(&mut verifier))
}

/// Has a verifier accept what is signed with a secret of at least TRUNK_SECRET_BYTES, which is
/// copied, in place of what had the number before. To change keys, give verifiers the new one, then
/// let issuers use it, and remove the old one when its last credential has expired.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_verifier_add_secret(
    verifier: trunk_credential_verifier,
    key_id: u32,
    secret: *const c_void,
    secret_size: usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: that many bytes by contract.
        let secret = unsafe { abi::bytes(secret, secret_size, "secret") }?;
        Ok(change(verifier, |verifier| verifier.add_secret(key_id, secret))??)
    })
}

/// The same with the public half of an Ed25519 key, TRUNK_PUBLIC_KEY_BYTES bytes, as
/// trunk_credential_issuer_public_key gives it.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_verifier_add_public_key(
    verifier: trunk_credential_verifier,
    key_id: u32,
    public_key: *const u8,
) -> trunk_result {
    guard(|| {
        // SAFETY: that many bytes by contract.
        let key = unsafe { abi::array(public_key.cast(), 1, "public_key") }?;
        let key: [u8; TRUNK_PUBLIC_KEY_BYTES] = key[0];
        change(verifier, |verifier| verifier.add_public_key(key_id, key))
    })
}

/// Has a verifier accept nothing any more that is signed with this key. A key that it does not have
/// is no error.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_credential_verifier_remove_key(
    verifier: trunk_credential_verifier,
    key_id: u32,
) -> trunk_result {
    guard(|| change(verifier, |verifier| verifier.remove_key(key_id)))
}

/// Checks the size bytes at credential, as trunk_incoming has them, at now_s, in seconds of Unix
/// time (0 = now), and stores what it says at found. peer is the fingerprint that the client has
/// proved with its certificate (trunk_incoming.peer), or NULL if it has shown none. Nothing of a
/// credential is believed before its signature is good.
///
/// What is not accepted gives TRUNK_ERR_CREDENTIAL; found->error says why, and trunk_last_error in
/// words that are fit to be told to the client, as the text of trunk_reject.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_CREDENTIAL, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_credential_verify(
    verifier: trunk_credential_verifier,
    credential: *const c_void,
    size: usize,
    now_s: u64,
    peer: *const u8,
    found: *mut trunk_credential,
) -> trunk_result {
    guard(|| {
        let verifier = VERIFIERS.get(verifier)?;
        abi::expect(found, trunk_credential::NAME)?;
        // SAFETY: that many bytes, and a fingerprint or NULL, by contract.
        let (bytes, peer) = unsafe {
            (abi::bytes(credential, size, "credential")?, peer.cast::<[u8; 32]>().as_ref())
        };
        let result = verifier.read().unwrap_or_else(PoisonError::into_inner).verify(
            bytes,
            abi::unix_s(now_s),
            peer.map(|id| PeerId(*id)),
        );
        let answer = result.as_ref().map_or_else(|e| (*e).into(), trunk_credential::from);
        // SAFETY: a struct by contract.
        unsafe { abi::write(found, &answer) }?;
        result.map(drop).map_err(|e| Error::text(TRUNK_ERR_CREDENTIAL, e.to_string()))
    })
}

/// Ends a verifier; its handle is stale afterwards.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn trunk_credential_verifier_close(
    verifier: trunk_credential_verifier,
) -> trunk_result {
    guard(|| VERIFIERS.take(verifier).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_name() {
        let reasons = [
            (CredentialError::Missing, TRUNK_CREDENTIAL_MISSING),
            (CredentialError::Malformed("cut short"), TRUNK_CREDENTIAL_MALFORMED),
            (CredentialError::UnknownKey(7), TRUNK_CREDENTIAL_UNKNOWN_KEY),
            (CredentialError::Signature, TRUNK_CREDENTIAL_WRONG_SIGNATURE),
            (CredentialError::NotYetValid, TRUNK_CREDENTIAL_NOT_YET_VALID),
            (CredentialError::Expired { by_s: 9 }, TRUNK_CREDENTIAL_EXPIRED),
            (CredentialError::WrongPeer, TRUNK_CREDENTIAL_WRONG_PEER),
        ];
        for (i, (error, name)) in reasons.into_iter().enumerate() {
            let answer = trunk_credential::from(error);
            assert_eq!((answer.error, name), (name, i as u32 + 1));
            assert_eq!(answer.key_id, if name == TRUNK_CREDENTIAL_UNKNOWN_KEY { 7 } else { 0 });
            assert_eq!(answer.expired_by_s, if name == TRUNK_CREDENTIAL_EXPIRED { 9 } else { 0 });
            assert!(answer.claims.is_null());
        }
    }

    #[test]
    fn what_a_credential_says_is_all_there() {
        let credential = Credential {
            key_id: 5,
            issued_s: 10,
            expires_s: 20,
            peer: Some(PeerId([3; 32])),
            claims: b"player 42",
        };
        let c = trunk_credential::from(&credential);
        assert_eq!((c.error, c.key_id, c.issued_s, c.expires_s), (0, 5, 10, 20));
        assert_eq!((c.has_peer, c.peer, c.claims_size), (1, [3; 32], 9));
        assert_eq!(c.claims, credential.claims.as_ptr());
    }

    #[test]
    fn ed25519_keys_are_pem_or_der() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let (pem, der) = (pair.serialize_pem(), pair.serialize_der());
        let public = |key: &[u8]| with_ed25519("game", 1, key).unwrap().public_key().unwrap();
        assert_eq!(public(pem.as_bytes()), public(&der));
        assert_eq!(public(format!("notes\n{pem}").as_bytes()), public(&der));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        for bad in [&b""[..], b"nonsense", &der[..20], other.serialize_pem().as_bytes()] {
            assert_eq!(with_ed25519("game", 1, bad).unwrap_err().code, TRUNK_ERR_SECURITY);
        }
        let long = with_ed25519(&"a".repeat(256), 1, &der).unwrap_err();
        assert!(long.to_string().contains("audience"), "{long}");
    }
}
