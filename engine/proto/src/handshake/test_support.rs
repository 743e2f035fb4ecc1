//! Certificates and key pairs for tests.

use super::{ClientAuth, ClientTls, HostTls, Identity, Trust};
use crate::crypto::DataKeys;
use rustls::quic;
use rustls_pki_types::ServerName;

#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyKind {
    Ed25519,
    P256,
}

pub(crate) struct Made {
    pub(crate) cert: rcgen::Certificate,
    pub(crate) key: rcgen::KeyPair,
}

pub(crate) fn make_certificate(kind: KeyKind, name: &str) -> Made {
    make_certificate_with_names(kind, vec![name.to_owned()])
}

/// A self-signed certificate for all of `names`.
pub(crate) fn make_certificate_with_names(kind: KeyKind, names: Vec<String>) -> Made {
    let algorithm = match kind {
        KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
    };
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    Made { cert, key }
}

/// An identity with a certificate for `name` that `ca` has signed.
pub(crate) fn make_signed(kind: KeyKind, name: &str, ca: &Made) -> Identity {
    let made = make_certificate(kind, name);
    let mut ca_params = rcgen::CertificateParams::new(vec!["Test CA".to_owned()]).unwrap();
    ca_params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(ca_params, &ca.key);
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = params.signed_by(&made.key, &issuer).unwrap();
    to_identity(&Made { cert, key: made.key })
}

pub(crate) fn identity(kind: KeyKind, name: &str) -> Identity {
    to_identity(&make_certificate(kind, name))
}

pub(crate) fn to_identity(made: &Made) -> Identity {
    Identity::from_pem(made.cert.pem().as_bytes(), made.key.serialize_pem().as_bytes()).unwrap()
}

/// An identity whose certificate is at least `bytes` long.
pub(crate) fn big_identity(bytes: usize) -> Identity {
    let count = bytes / 60 + 1;
    let names = (0..count).map(|i| format!("{i:056}.test")).collect();
    let identity = to_identity(&make_certificate_with_names(KeyKind::Ed25519, names));
    assert!(identity.certificates()[0].len() >= bytes);
    identity
}

/// The 1-RTT keys of a connected pair: client and host.
pub(crate) fn data_key_pair() -> (DataKeys, DataKeys) {
    let identity = identity(KeyKind::Ed25519, "host.test");
    let host = HostTls::new(identity, &ClientAuth::None, None).unwrap();
    let client = ClientTls::new(None, &Trust::DangerousAny, None).unwrap();
    let mut client =
        client.connect(&ServerName::try_from("host.test").unwrap(), Vec::new()).unwrap();
    let mut host = host.accept(Vec::new()).unwrap();
    let (mut client_keys, mut host_keys) = (None, None);
    for _ in 0..3 {
        pump(&mut client, &mut host, &mut client_keys);
        pump(&mut host, &mut client, &mut host_keys);
    }
    (client_keys.unwrap(), host_keys.unwrap())
}

fn pump(from: &mut quic::Connection, to: &mut quic::Connection, keys: &mut Option<DataKeys>) {
    loop {
        let mut bytes = Vec::new();
        let change = from.write_hs(&mut bytes);
        if !bytes.is_empty() {
            to.read_hs(&bytes).unwrap();
        }
        if change.is_none() && bytes.is_empty() {
            return;
        }
        if let Some(quic::KeyChange::OneRtt { keys: now, next }) = change {
            *keys = Some(DataKeys::from_tls(now, next));
        }
    }
}
