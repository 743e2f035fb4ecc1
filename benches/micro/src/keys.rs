//! The 1-RTT keys of a connection, from a TLS handshake in memory.

use rustls::crypto::ring::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider};
use rustls::quic::{ClientConnection, Connection, KeyChange, ServerConnection, Version};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use std::sync::Arc;
use trunkline_proto::crypto::DataKeys;
use trunkline_proto::handshake::Identity;

fn certificate() -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let params = rcgen::CertificateParams::new(vec!["host.test".to_owned()]).expect("a name");
    (params.self_signed(&key).expect("a certificate"), key)
}

/// A self-signed Ed25519 identity for `host.test`.
///
/// # Panics
/// When the system gives no random numbers.
pub fn identity() -> Identity {
    let (cert, key) = certificate();
    Identity::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("an identity")
}

/// The AES-128-GCM keys of both sides: client and host.
///
/// # Panics
/// When the handshake fails.
pub fn data_keys() -> (DataKeys, DataKeys) {
    let (cert, key) = certificate();
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
        ..default_provider()
    };
    let provider = Arc::new(provider);
    let versions = [&rustls::version::TLS13];
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let host = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate");
    let name = ServerName::try_from("host.test").expect("a name");
    let client = ClientConnection::new(Arc::new(client), Version::V1, name, Vec::new());
    let host = ServerConnection::new(Arc::new(host), Version::V1, Vec::new());
    let mut client = Connection::Client(client.expect("a client"));
    let mut host = Connection::Server(host.expect("a host"));
    let (mut client_keys, mut host_keys) = (None, None);
    for _ in 0..3 {
        hand_over(&mut client, &mut host, &mut client_keys);
        hand_over(&mut host, &mut client, &mut host_keys);
    }
    (client_keys.expect("keys of the client"), host_keys.expect("keys of the host"))
}

/// Everything that one side has to say, level by level.
fn hand_over(from: &mut Connection, to: &mut Connection, keys: &mut Option<DataKeys>) {
    loop {
        let mut bytes = Vec::new();
        let change = from.write_hs(&mut bytes);
        if !bytes.is_empty() {
            to.read_hs(&bytes).expect("handshake bytes");
        }
        if change.is_none() && bytes.is_empty() {
            return;
        }
        if let Some(KeyChange::OneRtt { keys: now, next }) = change {
            *keys = Some(DataKeys::from_tls(now, next));
        }
    }
}
