//! Identities of simulated nodes: Ed25519 keys made from a number, so that every run has the same.

use super::rng::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::OnceLock;
use trunkline_proto::handshake::{ClientAuth, ClientTls, HostTls, Identity, Trust};
use trunkline_proto::ids::PeerId;

/// Name that the usual host has.
pub const HOST_NAME: &str = "host.test";

/// The key pair with this number.
fn key_pair(number: u64) -> KeyPair {
    // PKCS#8 (RFC 8410 §7) around the 32 bytes of an Ed25519 private key.
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(Rng::new(number).seed());
    KeyPair::from_pkcs8_der_and_sign_algo(&der.into(), &PKCS_ED25519).expect("an Ed25519 key")
}

fn params(number: u64, name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(1_000 + number));
    params
}

/// The identity with this number: a self-signed certificate for `name`.
pub fn identity(number: u64, name: &str) -> Identity {
    let key = key_pair(number);
    let cert = params(number, name).self_signed(&key).expect("a certificate");
    Identity::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("an identity")
}

/// Certificate and private key of the identity with this number.
pub fn der(number: u64, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = key_pair(number);
    let cert = params(number, name).self_signed(&key).expect("a certificate");
    (cert.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// What the usual host is.
pub fn host_id() -> &'static Identity {
    static ID: OnceLock<Identity> = OnceLock::new();
    ID.get_or_init(|| identity(1, HOST_NAME))
}

/// What the usual client is.
pub fn client_id() -> &'static Identity {
    static ID: OnceLock<Identity> = OnceLock::new();
    ID.get_or_init(|| identity(2, "client.test"))
}

/// An identity with a chain of `issuers` certificates above its own, each with `padding` bytes of
/// names, and the certificate of the root, which is not part of the chain.
pub fn large_chain(issuers: u64, padding: usize) -> (Identity, Vec<u8>) {
    let authority = |number: u64| {
        let mut params = params(number, &format!("authority-{number}.test"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationName, "x".repeat(padding));
        params
    };
    let root_key = key_pair(500);
    let root = authority(500).self_signed(&root_key).expect("a root");
    let mut issuer = Issuer::new(authority(500), root_key);
    let mut chain = String::new();
    for number in 501..501 + issuers {
        let key = key_pair(number);
        let cert = authority(number).signed_by(&key, &issuer).expect("an authority");
        chain = cert.pem() + &chain;
        issuer = Issuer::new(authority(number), key);
    }
    let key = key_pair(499);
    let leaf = params(499, HOST_NAME).signed_by(&key, &issuer).expect("a certificate");
    let chain = leaf.pem() + &chain;
    let id = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes());
    (id.expect("an identity"), root.der().to_vec())
}

/// TLS settings of a host.
pub fn host_tls(identity: &Identity, client_auth: &ClientAuth) -> HostTls {
    HostTls::new(identity.clone(), client_auth, None).expect("TLS settings of a host")
}

/// TLS settings of a client; each call starts without session tickets.
pub fn client_tls(trust: &Trust, identity: Option<&Identity>) -> ClientTls {
    ClientTls::new(identity.cloned(), trust, None).expect("TLS settings of a client")
}

/// A client that believes the usual host only.
pub fn pinned(identity: Option<&Identity>) -> ClientTls {
    client_tls(&Trust::Pins(vec![host_id().peer_id()]), identity)
}

/// Who the usual client is to a host that asked for its certificate.
pub fn client_peer_id() -> PeerId {
    client_id().peer_id()
}
