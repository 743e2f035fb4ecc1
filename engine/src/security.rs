//! Identities, trust, and the TLS settings made of them.

use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use trunkline_proto::error::ApiError;
use trunkline_proto::handshake::{ClientTls, HostTls};

pub use trunkline_proto::handshake::{ClientAuth, Identity, Trust};

use crate::config::ConnectConfig;

/// TLS settings of clients kept for connects to come; the oldest goes first.
const CACHED_CLIENTS: usize = 64;

/// TLS settings of a host.
pub(crate) fn host_tls(
    identity: &Identity,
    client_auth: &ClientAuth,
    key_log: Option<Arc<dyn rustls::KeyLog>>,
) -> Result<HostTls, ApiError> {
    HostTls::new(identity.clone(), client_auth, key_log)
}

fn add(hash: &mut Context, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn add_trust(hash: &mut Context, trust: &Trust) {
    match trust {
        Trust::Roots(roots) => {
            add(hash, b"roots");
            hash.update(&(roots.len() as u64).to_be_bytes());
            for root in roots {
                add(hash, root);
            }
        }
        Trust::Pins(pins) => {
            add(hash, b"pins");
            let mut pins = pins.clone();
            pins.sort_unstable();
            pins.dedup();
            for pin in pins {
                hash.update(&pin.0);
            }
        }
        // Never equal to a trust that this version does not know.
        other => add(hash, format!("{other:?}").as_bytes()),
    }
}

fn finish(hash: Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

fn tls_key(trust: &Trust, identity: Option<&Identity>) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    add_trust(&mut hash, trust);
    match identity {
        Some(identity) => {
            add(&mut hash, b"identity");
            for certificate in identity.certificates() {
                add(&mut hash, certificate);
            }
        }
        None => add(&mut hash, b"anonymous"),
    }
    finish(hash)
}

/// What two connects must have in common to share a connection: everything that decides who is at
/// the other end and what it may know of us.
pub(crate) fn reuse_key(config: &ConnectConfig, identity: Option<&Identity>) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(&tls_key(&config.trust, identity));
    add(&mut hash, config.server_name.as_bytes());
    add(&mut hash, &config.credential);
    let mut remotes = config.remotes.clone();
    remotes.sort_unstable();
    remotes.dedup();
    for remote in remotes {
        add(&mut hash, remote.to_string().as_bytes());
    }
    finish(hash)
}

/// TLS settings of clients, built once for each trust and identity: session tickets are found
/// again that way, and a connect costs no certificate parsing.
#[derive(Debug, Default)]
pub(crate) struct ClientTlsCache {
    known: Mutex<Vec<([u8; 32], ClientTls)>>,
}

impl ClientTlsCache {
    pub(crate) fn get(
        &self,
        trust: &Trust,
        identity: Option<&Identity>,
        key_log: Option<Arc<dyn rustls::KeyLog>>,
    ) -> Result<ClientTls, ApiError> {
        let key = tls_key(trust, identity);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tls)) = known.iter().find(|(k, _)| *k == key) {
            return Ok(tls.clone());
        }
        let tls = ClientTls::new(identity.cloned(), trust, key_log)?;
        if known.len() >= CACHED_CLIENTS {
            known.remove(0);
        }
        known.push((key, tls.clone()));
        Ok(tls)
    }
}

/// Appends TLS secrets to a file in the format that protocol analysers read (SSLKEYLOGFILE).
#[derive(Debug)]
pub(crate) struct FileKeyLog {
    file: Mutex<File>,
}

impl FileKeyLog {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let mut options = File::options();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { file: Mutex::new(options.open(path)?) })
    }
}

impl rustls::KeyLog for FileKeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = String::with_capacity(label.len() + 2 * (client_random.len() + 34));
        line.push_str(label);
        for part in [client_random, secret] {
            line.push(' ');
            for byte in part {
                use std::fmt::Write;
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push('\n');
        // A handshake does not fail because its log cannot be written.
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::KeyLog;
    use trunkline_proto::ids::PeerId;

    #[test]
    fn the_reuse_key_tells_everything_apart_that_matters() {
        let base = ConnectConfig::new("192.0.2.1:7".parse().unwrap(), Trust::DangerousAny);
        let key = |c: &ConnectConfig| reuse_key(c, None);
        let same = base.clone();
        assert_eq!(key(&base), key(&same));
        let mut other = base.clone();
        other.trust = Trust::Pins(vec![PeerId([1; 32])]);
        assert_ne!(key(&base), key(&other), "a pinned connect never rides on a trusting one");
        let mut twice = other.clone();
        twice.trust = Trust::Pins(vec![PeerId([1; 32]), PeerId([1; 32])]);
        assert_eq!(key(&other), key(&twice));
        let mut other = base.clone();
        other.credential = b"ticket".to_vec();
        assert_ne!(key(&base), key(&other));
        let mut other = base.clone();
        other.server_name = "else".into();
        assert_ne!(key(&base), key(&other));
        let mut other = base.clone();
        other.remotes.push("192.0.2.2:7".parse().unwrap());
        assert_ne!(key(&base), key(&other));
        let mut swapped = other.clone();
        swapped.remotes.reverse();
        assert_eq!(key(&swapped), key(&other));
    }

    #[test]
    fn the_key_log_appends_lines_and_is_private() {
        let dir = std::env::temp_dir().join(format!("trunkline-keylog-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let log = FileKeyLog::open(&dir).unwrap();
        log.log("CLIENT_HANDSHAKE_TRAFFIC_SECRET", &[0xab; 2], &[0x01, 0xff]);
        log.log("X", &[], &[7]);
        let text = std::fs::read_to_string(&dir).unwrap();
        assert_eq!(text, "CLIENT_HANDSHAKE_TRAFFIC_SECRET abab 01ff\nX  07\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        std::fs::remove_file(&dir).unwrap();
    }
}
