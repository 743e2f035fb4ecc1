//! Who we are: a certificate chain and its private key; and who a peer is.

use crate::error::ApiError;
use crate::ids::PeerId;
use core::fmt;
use ring::{digest, hmac};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// Longest chain: it has to fit into one TLS message of 2^16 − 1 bytes, with its framing.
const MAX_CHAIN_BYTES: usize = 60 * 1024;

/// A certificate chain with the private key of its first certificate. Ed25519 and ECDSA P-256 are
/// the recommended keys; whatever the TLS provider can sign with works. Cloning shares it.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    peer_id: PeerId,
    /// Known only to who has the private key.
    secret: Arc<hmac::Key>,
}

impl Identity {
    /// From PEM text: one or more certificates, the own one first, and one private key (PKCS#8,
    /// SEC1 or PKCS#1).
    ///
    /// # Errors
    /// [`ApiError::Security`] that names what is missing or does not fit together.
    pub fn from_pem(certificates: &[u8], private_key: &[u8]) -> Result<Self, ApiError> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| security("certificate PEM", &e))?;
        let key = PrivateKeyDer::from_pem_slice(private_key)
            .map_err(|e| security("private key PEM", &e))?;
        Self::from_der(chain, key)
    }

    /// From DER.
    ///
    /// # Errors
    /// [`ApiError::Security`] when the chain is empty or longer than 60 KiB, the key is of an unknown kind, or the key
    /// is not the one of the first certificate.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        private_key: PrivateKeyDer<'static>,
    ) -> Result<Self, ApiError> {
        let first = chain.first().ok_or(ApiError::Security("no certificate given".into()))?;
        let peer_id = peer_id_of(first)?;
        if chain.iter().map(|c| c.len()).sum::<usize>() > MAX_CHAIN_BYTES {
            return Err(ApiError::Security("certificate chain longer than 60 KiB".into()));
        }
        let secret = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, private_key.secret_der()));
        let key = super::tls::provider()
            .key_provider
            .load_private_key(private_key)
            .map_err(|e| security("private key", &e))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|e| security("certificate and private key", &e))?;
        Ok(Self { certified: Arc::new(certified), peer_id, secret })
    }

    /// A key that is the same whenever this private key is loaded and that nobody can guess who
    /// does not have it; another one for each `purpose`.
    pub fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.secret, purpose).as_ref());
        out
    }

    /// What peers will see: SHA-256 of the subject public key info.
    pub const fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The certificates, the own one first, in DER.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The certificate of one and the key of another: what a thief of a certificate has.
    #[cfg(test)]
    pub(super) fn mismatched(certificate: &Self, key: &Self) -> Self {
        let chain = certificate.certified.cert.clone();
        let certified = Arc::new(CertifiedKey::new(chain, key.certified.key.clone()));
        Self { certified, peer_id: certificate.peer_id, secret: key.secret.clone() }
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id)
    }
}

/// The identity that a certificate proves: SHA-256 of its DER-encoded SubjectPublicKeyInfo
/// (RFC 5280 §4.1.2.7, the outer SEQUENCE included), the same that
/// `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | sha256sum` prints.
///
/// # Errors
/// [`ApiError::Security`] when it is not an X.509 v3 certificate.
pub fn peer_id_of(certificate: &CertificateDer<'_>) -> Result<PeerId, ApiError> {
    let parsed =
        webpki::EndEntityCert::try_from(certificate).map_err(|e| security("certificate", &e))?;
    Ok(peer_id_of_key(&parsed.subject_public_key_info()))
}

fn peer_id_of_key(subject_public_key_info: &[u8]) -> PeerId {
    let hash = digest::digest(&digest::SHA256, subject_public_key_info);
    let mut id = [0; 32];
    id.copy_from_slice(hash.as_ref());
    PeerId(id)
}

pub(super) fn security(what: &str, why: &dyn fmt::Display) -> ApiError {
    ApiError::Security(format!("{what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::test_support::{KeyKind, make_certificate};
    use rcgen::PublicKeyData;

    #[test]
    fn peer_id_is_the_hash_of_the_public_key() {
        for kind in [KeyKind::Ed25519, KeyKind::P256] {
            let made = make_certificate(kind, "host.example");
            let expected = peer_id_of_key(&made.key.subject_public_key_info());
            let identity =
                Identity::from_pem(made.cert.pem().as_bytes(), made.key.serialize_pem().as_bytes())
                    .unwrap();
            assert_eq!(identity.peer_id(), expected);
            assert_eq!(peer_id_of(made.cert.der()).unwrap(), expected);
            assert_eq!(identity.certificates().len(), 1);
        }
    }

    #[test]
    fn derived_keys_depend_on_the_private_key_and_the_purpose() {
        let load = |made: &crate::handshake::test_support::Made| {
            Identity::from_pem(made.cert.pem().as_bytes(), made.key.serialize_pem().as_bytes())
                .unwrap()
        };
        let (a, b) =
            (make_certificate(KeyKind::Ed25519, "a"), make_certificate(KeyKind::Ed25519, "a"));
        assert_eq!(load(&a).derive(b"x"), load(&a).derive(b"x"));
        assert_ne!(load(&a).derive(b"x"), load(&a).derive(b"y"));
        assert_ne!(load(&a).derive(b"x"), load(&b).derive(b"x"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let a = make_certificate(KeyKind::Ed25519, "a");
        let b = make_certificate(KeyKind::Ed25519, "b");
        let err = |cert: &str, key: &str| {
            Identity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap_err().to_string()
        };
        let many = a.cert.pem().repeat(61 * 1024 / a.cert.der().len());
        assert!(err(&many, &a.key.serialize_pem()).contains("60 KiB"));
        assert!(err(&a.cert.pem(), &b.key.serialize_pem()).contains("certificate and private key"));
        assert!(err("", &a.key.serialize_pem()).contains("no certificate"));
        assert!(err(&a.cert.pem(), "").contains("private key PEM"));
        assert!(
            err(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &a.key.serialize_pem()
            )
            .contains("certificate")
        );
    }
}
