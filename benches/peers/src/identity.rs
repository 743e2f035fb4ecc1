//! Who the servers are, and the TLS settings of everything that uses rustls.
//!
//! The key follows from a constant, so that two processes on two machines know each other without
//! exchanging anything. It protects nothing.

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::error::Error;
use std::sync::Arc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The name in the certificate.
pub const NAME: &str = "localhost";
/// What servers and clients agree to speak.
const ALPN: &[u8] = b"bench";
/// An Ed25519 key as PKCS#8, without its 32 bytes.
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A certificate and its key.
pub struct Made {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The same as text.
    pub certificate_pem: String,
    /// The key.
    pub key: PrivateKeyDer<'static>,
    /// The same as text.
    pub key_pem: String,
}

/// The same certificate and key each time.
///
/// # Errors
/// Never with a working cryptographic library.
pub fn made() -> Result<Made> {
    let mut der = PKCS8_ED25519.to_vec();
    der.extend_from_slice(b"a benchmark's key, known to all.");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
    let pair = KeyPair::try_from(&key)?;
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&pair)?;
    Ok(Made {
        certificate: certificate.der().clone(),
        certificate_pem: certificate.pem(),
        key,
        key_pem: pair.serialize_pem(),
    })
}

/// ring, with AES-128-GCM before everything else, and X25519 only, as Trunkline has it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let preferred = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.retain(|suite| suite.suite() != preferred.suite());
    provider.cipher_suites.insert(0, preferred);
    provider.kx_groups = vec![ring::kx_group::X25519];
    Arc::new(provider)
}

/// TLS of a server: TLS 1.3 only, tickets without state, so that clients can resume.
///
/// # Errors
/// Never with a working cryptographic library.
pub fn server() -> Result<ServerConfig> {
    let made = made()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.certificate], made.key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// TLS of a client that trusts the one certificate and, if wanted, resumes sessions.
///
/// # Errors
/// Never with a working cryptographic library.
pub fn client(resume: bool) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(made()?.certificate)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption =
        if resume { Resumption::in_memory_sessions(64) } else { Resumption::disabled() };
    Ok(config)
}

/// The server's name as rustls wants it.
///
/// # Errors
/// Never.
pub fn server_name() -> Result<ServerName<'static>> {
    Ok(ServerName::try_from(NAME)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_know_the_same_certificate() {
        assert_eq!(made().unwrap().certificate, made().unwrap().certificate);
    }

    #[test]
    fn aes_128_comes_first() {
        let suites = &provider().cipher_suites;
        assert_eq!(suites[0].suite(), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        server().unwrap();
        client(true).unwrap();
    }
}
