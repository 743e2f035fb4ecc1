//! Whom we believe: CA roots, pinned public keys, or (named dangerous) anybody.
//!
//! Whatever the trust, the peer must prove that it holds the private key: no verifier here skips
//! the signature over the handshake.

use super::identity::{peer_id_of, security};
use super::tls::provider;
use crate::connection::AuthMethod;
use crate::error::ApiError;
use crate::ids::PeerId;
use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// What makes a peer's certificate acceptable.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Trust {
    /// It chains to one of these CA certificates (DER); a client also checks the host's name.
    Roots(Vec<CertificateDer<'static>>),
    /// Its public key is one of these. Names, dates and issuers play no part, as with ssh.
    Pins(Vec<PeerId>),
    /// Any certificate at all. The connection is encrypted, but to whom is unknown: anybody on the
    /// path can be the other end.
    DangerousAny,
}

/// What a host asks of its clients.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientAuth {
    /// A client must present a certificate that this accepts.
    Required(Trust),
    /// A client may present one; if it does, this must accept it.
    Optional(Trust),
    /// Clients are not asked for a certificate.
    None,
}

/// What of a side's TLS settings a [`SecInfo`](crate::connection::SecInfo) tells.
#[derive(Debug)]
pub(crate) struct LocalSecurity {
    /// Who we are.
    pub(crate) identity: Option<PeerId>,
    /// How a peer that shows a certificate is authenticated.
    pub(crate) method: AuthMethod,
    /// Digest of the whole trust policy.
    pub(crate) trust: [u8; 32],
}

impl Trust {
    const fn method(&self) -> AuthMethod {
        match self {
            Self::Roots(_) => AuthMethod::Certificate,
            Self::Pins(_) => AuthMethod::Pin,
            Self::DangerousAny => AuthMethod::DangerousAny,
        }
    }

    /// Feeds the policy to a hash: equal policies feed the same, the order of pins means nothing.
    pub(super) fn digest_into(&self, hash: &mut digest::Context) {
        match self {
            Self::Roots(roots) => {
                hash.update(b"roots");
                for root in roots {
                    hash.update(&(root.len() as u64).to_be_bytes());
                    hash.update(root);
                }
            }
            Self::Pins(pins) => {
                hash.update(b"pins");
                let mut pins = pins.clone();
                pins.sort_unstable();
                for pin in pins {
                    hash.update(&pin.0);
                }
            }
            Self::DangerousAny => hash.update(b"any"),
        }
    }

    pub(super) fn local_security(&self, identity: Option<PeerId>) -> LocalSecurity {
        local(identity, self.method(), |hash| self.digest_into(hash))
    }
}

impl ClientAuth {
    pub(super) fn local_security(&self, identity: PeerId) -> LocalSecurity {
        let (demand, trust) = match self {
            Self::Required(trust) => (&b"required"[..], Some(trust)),
            Self::Optional(trust) => (&b"optional"[..], Some(trust)),
            Self::None => (&b"none"[..], None),
        };
        local(Some(identity), trust.map_or(AuthMethod::None, Trust::method), |hash| {
            hash.update(demand);
            if let Some(trust) = trust {
                trust.digest_into(hash);
            }
        })
    }
}

fn local(
    identity: Option<PeerId>,
    method: AuthMethod,
    feed: impl FnOnce(&mut digest::Context),
) -> LocalSecurity {
    let mut hash = digest::Context::new(&digest::SHA256);
    feed(&mut hash);
    let mut trust = [0; 32];
    trust.copy_from_slice(hash.finish().as_ref());
    LocalSecurity { identity, method, trust }
}

impl Trust {
    fn validate(&self) -> Result<(), ApiError> {
        match self {
            Self::Pins(pins) if pins.is_empty() => {
                Err(ApiError::InvalidArgument { field: "trust", why: "has no pinned key" })
            }
            Self::Roots(roots) if roots.is_empty() => {
                Err(ApiError::InvalidArgument { field: "trust", why: "has no root certificate" })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn server_verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, ApiError> {
        self.validate()?;
        match self {
            Self::Roots(roots) => {
                Ok(WebPkiServerVerifier::builder_with_provider(root_store(roots)?, provider())
                    .build()
                    .map_err(|e| security("root certificates", &e))?)
            }
            _ => Ok(Arc::new(KeyVerifier { trust: self.clone(), mandatory: true })),
        }
    }

    fn client_verifier(&self, mandatory: bool) -> Result<Arc<dyn ClientCertVerifier>, ApiError> {
        self.validate()?;
        match self {
            Self::Roots(roots) => {
                let builder =
                    WebPkiClientVerifier::builder_with_provider(root_store(roots)?, provider());
                let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
                Ok(builder.build().map_err(|e| security("root certificates", &e))?)
            }
            _ => Ok(Arc::new(KeyVerifier { trust: self.clone(), mandatory })),
        }
    }
}

impl ClientAuth {
    pub(super) fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, ApiError> {
        match self {
            Self::Required(trust) => trust.client_verifier(true),
            Self::Optional(trust) => trust.client_verifier(false),
            Self::None => Ok(WebPkiClientVerifier::no_client_auth()),
        }
    }
}

fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, ApiError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|e| security("root certificate", &e))?;
    }
    Ok(Arc::new(store))
}

/// Accepts by public key alone (pins), or anything (dangerous), for both roles.
#[derive(Debug)]
struct KeyVerifier {
    trust: Trust,
    mandatory: bool,
}

impl KeyVerifier {
    fn accepts(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let id = peer_id_of(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match &self.trust {
            Trust::Pins(pins) if pins.contains(&id) => Ok(()),
            Trust::DangerousAny => Ok(()),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn signature(
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn schemes() -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

const NO_TLS12: Error = Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic);

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.accepts(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.accepts(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}
