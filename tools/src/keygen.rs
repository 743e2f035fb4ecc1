//! `trunkline keygen`, and the identity that `send` and `recv` use when none is named.

use crate::cli::KeygenArgs;
use crate::exit::{Exit, Failure};
use crate::{home, print};
use rcgen::PublicKeyData as _;
use std::io;
use std::path::Path;
use trunkline::{Identity, PeerId};

/// A fresh key with its certificate.
pub struct Made {
    /// Private key and certificate, PEM.
    pub pem: String,
    /// The certificate alone, PEM.
    pub certificate: String,
    /// SHA-256 of the subject public key info.
    pub fingerprint: PeerId,
}

/// Makes an Ed25519 key and a self-signed certificate for `names`.
pub fn make(names: Vec<String>) -> Result<Made, Failure> {
    let bad = |e: rcgen::Error| Failure::local(format!("cannot make a certificate: {e}"));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(bad)?;
    let mut params = rcgen::CertificateParams::new(names.clone()).map_err(bad)?;
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(rcgen::DnType::CommonName, names.first().map_or("trunkline", String::as_str));
    params.distinguished_name = subject;
    let certificate = params.self_signed(&key).map_err(bad)?.pem();
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.as_ref());
    let pem = format!("{}{certificate}", key.serialize_pem());
    Ok(Made { pem, certificate, fingerprint: PeerId(fingerprint) })
}

/// The subcommand.
pub fn run(args: &KeygenArgs) -> Result<Exit, Failure> {
    let path = match &args.out {
        Some(path) => path.clone(),
        None => home::identity_path()?,
    };
    let made = make(args.name.clone())?;
    write(&path, &made.pem, 0o600)?;
    if let Some(cert) = &args.cert {
        write(cert, &made.certificate, 0o644)?;
    }
    let fingerprint = made.fingerprint;
    let object = serde_json::json!({
        "file": path.display().to_string(),
        "certificate": args.cert.as_ref().map(|p| p.display().to_string()),
        "fingerprint": fingerprint.to_string(),
    });
    let text = format!("wrote {}\nfingerprint {fingerprint}", path.display());
    print::result(args.json, &object, &text)?;
    Ok(Exit::Done)
}

/// Random bytes of the system.
pub fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    SystemRandom::new().fill(bytes).map_err(|_| Failure::local("the system gives no random bytes"))
}

/// A new file; one that is there is never replaced.
pub fn write(path: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    home::publish(path, content.as_bytes(), mode).map_err(|e| {
        let path = path.display();
        Failure::local(if e.kind() == io::ErrorKind::AlreadyExists {
            format!("{path} exists; it is not replaced (remove it, or choose another --out)")
        } else {
            format!("cannot write {path}: {e}")
        })
    })
}

/// The identity in `path`, or in the default file, which is made when it is missing. The second
/// value is `true` when it was made now.
pub fn load_or_make(path: Option<&Path>) -> Result<(Identity, bool), Failure> {
    let (path, default) = match path {
        Some(path) => (path.to_owned(), false),
        None => (home::identity_path()?, true),
    };
    let mut made = false;
    if default && std::fs::symlink_metadata(&path).is_err() {
        let fresh = make(vec!["trunkline".to_owned()])?;
        match home::publish(&path, fresh.pem.as_bytes(), 0o600) {
            Ok(()) => made = true,
            // Another command made it in the meantime: that one counts.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Failure::cannot_write(&path, &e)),
        }
    }
    let pem = std::fs::read(&path)
        .map_err(|e| Failure::local(format!("cannot read {}: {e}", path.display())))?;
    let identity = Identity::from_pem(&pem, &pem)
        .map_err(|e| Failure::local(format!("{} is not usable: {e}", path.display())))?;
    Ok((identity, made))
}

/// An identity that lives as long as the process.
pub fn ephemeral() -> Result<(Identity, PeerId), Failure> {
    let made = make(vec!["localhost".to_owned()])?;
    let identity = Identity::from_pem(made.certificate.as_bytes(), made.pem.as_bytes())
        .map_err(|e| Failure::local(format!("the new certificate is not usable: {e}")))?;
    Ok((identity, made.fingerprint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_what_the_engine_computes() {
        let made = make(vec!["localhost".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        let identity =
            Identity::from_pem(made.certificate.as_bytes(), made.pem.as_bytes()).unwrap();
        assert_eq!(identity.peer_id(), made.fingerprint);
        assert!(made.pem.contains("PRIVATE KEY") && made.pem.contains("CERTIFICATE"));
        assert!(!made.certificate.contains("PRIVATE"));
    }

    #[test]
    fn keys_differ() {
        let one = make(vec!["a".to_owned()]).unwrap();
        let two = make(vec!["a".to_owned()]).unwrap();
        assert_ne!(one.fingerprint, two.fingerprint);
    }
}
