//! TLS settings, built once from an identity and a trust, and shared by all connections.
//!
//! TLS 1.3 only, ALPN `trunkline/1`, AES-128-GCM first. Hosts issue tickets and clients keep them in
//! memory, so that a second connection resumes; nothing is ever sent as 0-RTT.

use super::identity::{Identity, peer_id_of, security};
use super::stream_tls::StreamTls;
use super::trust::{ClientAuth, LocalSecurity, Trust};
use crate::error::{ApiError, CloseReason, Reason};
use crate::ids::PeerId;
use crate::limits::{ALPN, ALPN_PLAIN};
use core::fmt;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring as ring_provider;
use rustls::quic;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, CommonState, Error,
    ServerConfig, ServerConnection, Side,
};
use rustls_pki_types::ServerName;
use std::sync::{Arc, OnceLock};

pub use rustls::KeyLog;

/// Session tickets that a host sends on each connection: single-use, so one makes the next
/// connection cheap and that one brings its own.
const TICKETS: usize = 1;
/// Sessions that a client remembers for stream links.
const STREAM_SESSIONS: usize = 256;
/// Label of the exported value that both sides of a connection share (RFC 8446 §7.5).
pub(super) const EXPORTER_LABEL: &[u8] = b"EXPORTER-trunkline";

/// Settings of the connecting side. Cloning shares them, the ticket memory included.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// For stream links, made when the first one is: native, and plain.
    streams: Arc<[OnceLock<Arc<ClientConfig>>; 2]>,
    identity: Option<Identity>,
    security: Arc<LocalSecurity>,
    fingerprint: TlsFingerprint,
}

/// Settings of the listening side. Cloning shares them, the ticket keys included.
#[derive(Clone)]
pub struct HostTls {
    config: Arc<ServerConfig>,
    /// For stream links, made when the first one is: native only, and plain too.
    streams: Arc<[OnceLock<Arc<ServerConfig>>; 2]>,
    identity: Identity,
    security: Arc<LocalSecurity>,
}

/// Tells apart settings of clients that must not share a connection: two values are equal when
/// trust and own identity are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct TlsFingerprint([u8; 32]);

impl TlsFingerprint {
    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of a client with this identity and trust.
    pub fn new(identity: Option<&Identity>, trust: &Trust) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(&identity.map_or([0; 32], |i| i.peer_id().0));
        trust.digest_into(&mut hash);
        let mut out = [0; 32];
        out.copy_from_slice(hash.finish().as_ref());
        Self(out)
    }
}

impl ClientTls {
    /// A client that presents `identity` when asked (if it has one) and believes hosts as `trust`
    /// says. Sessions are resumed only between connections made with the same value or a clone.
    ///
    /// # Errors
    /// [`ApiError::Security`] or [`ApiError::InvalidArgument`] for unusable roots or empty pins.
    pub fn new(
        identity: Option<Identity>,
        trust: &Trust,
        key_log: Option<Arc<dyn KeyLog>>,
    ) -> Result<Self, ApiError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| security("TLS settings", &e))?
            .dangerous()
            .with_custom_certificate_verifier(trust.server_verifier()?);
        let mut config = match &identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
                (*identity.certified()).clone(),
            ))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = false;
        if let Some(log) = key_log {
            config.key_log = log;
        }
        let fingerprint = TlsFingerprint::new(identity.as_ref(), trust);
        let security = Arc::new(trust.local_security(identity.as_ref().map(Identity::peer_id)));
        Ok(Self {
            config: Arc::new(config),
            streams: Arc::default(),
            identity,
            security,
            fingerprint,
        })
    }

    /// What is known of the security of its connections before they are made.
    pub(crate) fn security(&self) -> &Arc<LocalSecurity> {
        &self.security
    }

    /// TLS for a stream link. Sessions of one link are never resumed on another.
    pub(crate) fn stream(&self, server_name: &str, plain: bool) -> Result<StreamTls, ApiError> {
        let config = self.streams[usize::from(plain)].get_or_init(|| {
            let mut config = (*self.config).clone();
            config.alpn_protocols = vec![if plain { ALPN_PLAIN.to_vec() } else { ALPN.to_vec() }];
            config.resumption = Resumption::in_memory_sessions(STREAM_SESSIONS);
            Arc::new(config)
        });
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
            ApiError::InvalidArgument { field: "server_name", why: "is no host name or address" }
        })?;
        ClientConnection::new(config.clone(), name)
            .map(StreamTls::new)
            .map_err(|e| security("TLS", &e))
    }

    /// What must be equal for two connects to share a connection.
    pub const fn fingerprint(&self) -> TlsFingerprint {
        self.fingerprint
    }

    /// The identity presented to hosts that ask.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(super) fn connect(
        &self,
        server_name: &ServerName<'static>,
        params: Vec<u8>,
    ) -> Result<quic::Connection, ApiError> {
        quic::ClientConnection::new(
            self.config.clone(),
            quic::Version::V1,
            server_name.clone(),
            params,
        )
        .map(quic::Connection::Client)
        .map_err(|e| security("TLS", &e))
    }
}

impl HostTls {
    /// A host with this identity that authenticates clients as `client_auth` says.
    ///
    /// # Errors
    /// [`ApiError::Security`] or [`ApiError::InvalidArgument`] for unusable roots or empty pins.
    pub fn new(
        identity: Identity,
        client_auth: &ClientAuth,
        key_log: Option<Arc<dyn KeyLog>>,
    ) -> Result<Self, ApiError> {
        let resolver = SingleCertAndKey::from((*identity.certified()).clone());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| security("TLS settings", &e))?
            .with_client_cert_verifier(client_auth.verifier()?)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ticketer =
            ring_provider::Ticketer::new().map_err(|e| security("session tickets", &e))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        config.max_early_data_size = 0;
        if let Some(log) = key_log {
            config.key_log = log;
        }
        let security = Arc::new(client_auth.local_security(identity.peer_id()));
        Ok(Self { config: Arc::new(config), streams: Arc::default(), identity, security })
    }

    /// What is known of the security of its connections before they are made.
    pub(crate) fn security(&self) -> &Arc<LocalSecurity> {
        &self.security
    }

    /// TLS for a stream link. `plain`: a client may speak the plain protocol, too.
    pub(crate) fn stream(&self, plain: bool) -> Result<StreamTls, ApiError> {
        let config = self.streams[usize::from(plain)].get_or_init(|| {
            let mut config = (*self.config).clone();
            config.alpn_protocols = vec![ALPN.to_vec()];
            if plain {
                config.alpn_protocols.push(ALPN_PLAIN.to_vec());
            }
            if let Ok(ticketer) = ring_provider::Ticketer::new() {
                config.ticketer = ticketer;
            }
            Arc::new(config)
        });
        ServerConnection::new(config.clone()).map(StreamTls::new).map_err(|e| security("TLS", &e))
    }

    /// The identity presented to clients.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn accept(&self, params: Vec<u8>) -> Result<quic::Connection, ApiError> {
        quic::ServerConnection::new(self.config.clone(), quic::Version::V1, params)
            .map(quic::Connection::Server)
            .map_err(|e| security("TLS", &e))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?})", self.identity)
    }
}

impl fmt::Debug for HostTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTls({:?})", self.identity)
    }
}

/// The cryptography behind everything, AES-128-GCM before AES-256-GCM.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            let mut provider = ring_provider::default_provider();
            provider.cipher_suites = vec![
                ring_provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
                ring_provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
                ring_provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ];
            Arc::new(provider)
        })
        .clone()
}

/// The keys of the Initial level (RFC 9001 §5.2): known to everybody who sees the first packet, so
/// they keep out corruption and senders who see nothing, and nobody else.
pub(super) fn initial_keys(first_destination_id: &[u8], side: Side) -> Option<quic::Keys> {
    let suite = ring_provider::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
    Some(suite.keys(first_destination_id, side, quic::Version::V1))
}

/// What both sides of the connection can compute and nobody else.
pub(super) fn exporter(tls: &quic::Connection) -> Result<[u8; 32], Error> {
    tls.export_keying_material([0; 32], EXPORTER_LABEL, None)
}

/// The number of a cipher suite in the registry of RFC 8446 §B.4; 0 when none is agreed on.
pub(super) fn suite_number(tls: &CommonState) -> u16 {
    tls.negotiated_cipher_suite().map_or(0, |s| u16::from(s.suite()))
}

/// The name of a cipher suite, as RFC 8446 §B.4 writes it.
pub(super) fn suite_name(tls: &CommonState) -> &'static str {
    tls.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("unknown")
}

/// Who the peer's certificate says it is.
pub(super) fn peer_of(tls: &CommonState) -> Result<Option<PeerId>, CloseReason> {
    let first = tls.peer_certificates().and_then(<[_]>::first);
    first
        .map(peer_id_of)
        .transpose()
        .map_err(|e| CloseReason::new(Reason::BAD_CERTIFICATE, &e.to_string()))
}

/// What an alert of the peer means for the connection.
pub(crate) fn alert_reason(alert: AlertDescription) -> CloseReason {
    use AlertDescription as A;
    let (reason, text) = match alert {
        A::NoApplicationProtocol => (Reason::VERSION, "the peer does not speak this protocol"),
        A::ProtocolVersion => (Reason::VERSION, "the peer does not speak TLS 1.3"),
        A::CertificateRequired => (Reason::AUTHENTICATION, "the peer wants a certificate"),
        // Access denied: the verifier does not know the key.
        A::AccessDenied
        | A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA => (Reason::BAD_CERTIFICATE, "the peer does not accept our certificate"),
        A::BadRecordMac | A::DecryptError | A::DecryptionFailed | A::HandshakeFailure => {
            (Reason::BAD_CRYPTO, "the peer could not verify what we sent")
        }
        A::UserCanceled => (Reason::APP, "the peer gave up"),
        A::InternalError => (Reason::MISC, "the peer has an internal error"),
        _ => (Reason::PROTOCOL, "the peer ended the TLS connection"),
    };
    CloseReason::new(reason, &format!("{text} (alert {}: {alert:?})", u8::from(alert)))
}

/// The reason with which a TLS failure ends the attempt, and is told to the peer.
pub(crate) fn close_reason(error: &Error, alert: Option<AlertDescription>) -> CloseReason {
    let reason = match error {
        Error::InvalidCertificate(_) | Error::UnsupportedNameType => Reason::BAD_CERTIFICATE,
        Error::NoCertificatesPresented => Reason::AUTHENTICATION,
        Error::NoApplicationProtocol => Reason::VERSION,
        Error::DecryptError
        | Error::EncryptError
        | Error::PeerIncompatible(_)
        | Error::PeerSentOversizedRecord => Reason::BAD_CRYPTO,
        Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime | Error::General(_) => {
            Reason::INTERNAL
        }
        _ => Reason::PROTOCOL,
    };
    let text = match error {
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the key is not one of those expected".to_owned()
        }
        _ => error.to_string(),
    };
    match alert {
        Some(alert) => CloseReason::new(reason, &format!("{text} (alert {})", u8::from(alert))),
        None => CloseReason::new(reason, &text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_128_comes_first_and_has_quic_keys() {
        let suites = &provider().cipher_suites;
        assert_eq!(suites[0].suite(), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert!(suites.iter().all(|s| s.tls13().is_some_and(|s| s.quic_suite().is_some())));
    }

    /// RFC 9001 §A.1: the client's Initial key for destination id 0x8394c8f03e515708 seals what
    /// the server's side opens.
    #[test]
    fn initial_keys_of_both_sides_fit() {
        let id = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        let client = initial_keys(&id, Side::Client).unwrap();
        let host = initial_keys(&id, Side::Server).unwrap();
        let mut data = *b"hello---";
        let tag = client.local.packet.encrypt_in_place(1, b"head", &mut data).unwrap();
        let mut sealed = [data.as_slice(), tag.as_ref()].concat();
        assert_eq!(
            host.remote.packet.decrypt_in_place(1, b"head", &mut sealed).unwrap(),
            b"hello---"
        );
    }
}
