//! Identities, trust, and the TLS settings made of them.

use crate::config::ConnectConfig;
use crate::shard::shared::Shared;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use trunkline_proto::connection::SecInfo;
use trunkline_proto::endpoint::ClientConfig;
use trunkline_proto::error::ApiError;
use trunkline_proto::handshake::{ClientTls, HostTls, TlsFingerprint};
use trunkline_proto::manager::{Refused, ReuseKey, SecurityQuery, SecurityStage};

pub use trunkline_proto::handshake::{ClientAuth, Identity, Trust};

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

/// TLS settings of clients, built once for each trust and identity: session tickets are found
/// again that way, and a connect costs no certificate parsing.
#[derive(Debug, Default)]
pub(crate) struct ClientTlsCache {
    known: Mutex<Vec<(TlsFingerprint, ClientTls)>>,
}

impl ClientTlsCache {
    pub(crate) fn get(
        &self,
        trust: &Trust,
        identity: Option<&Identity>,
        key_log: Option<Arc<dyn rustls::KeyLog>>,
    ) -> Result<ClientTls, ApiError> {
        let key = TlsFingerprint::new(identity, trust);
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

/// A connect with what the security callback chose for it.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// As it was asked for, but for what was chosen.
    pub config: ConnectConfig,
    /// What it comes to.
    pub client: ClientConfig,
    /// What it can share a connection with.
    pub key: ReuseKey,
}

/// Asks the security callback before anything of a connect is sent.
///
/// # Errors
/// Unusable settings; [`ApiError::Refused`].
pub(crate) fn choose(shared: &Shared, config: &ConnectConfig) -> Result<Chosen, ApiError> {
    config.validate()?;
    let mut config = config.clone();
    let mut client = client_of(shared, &config)?;
    let mut handle = None;
    if let Some(callback) = &shared.config.security {
        handle = config.sec_handle;
        let query = SecurityQuery {
            handle,
            stage: SecurityStage::Beginning,
            info: &SecInfo::of_attempt(&client, config.link.link()),
            remotes: &config.remotes,
            server_name: &config.server_name,
        };
        let choice = callback.ask(&query).map_err(|Refused(text)| ApiError::Refused(text))?;
        config.identity = choice.identity.or(config.identity);
        config.trust = choice.trust.unwrap_or(config.trust);
        config.credential = choice.credential.unwrap_or(config.credential);
        config.validate()?;
        client = client_of(shared, &config)?;
    }
    client.validate()?;
    let key = ReuseKey::new(&config.remotes, &client, config.link).with_handle(handle);
    Ok(Chosen { config, client, key })
}

pub(crate) fn client_of(shared: &Shared, config: &ConnectConfig) -> Result<ClientConfig, ApiError> {
    let identity = config.identity.as_ref().or(shared.config.identity.as_ref());
    Ok(ClientConfig {
        tls: shared.clients.get(&config.trust, identity, shared.key_log.clone())?,
        server_name: config.server_name.clone(),
        credential: config.credential.clone(),
        connection: config.connection.clone(),
    })
}

/// A line of a key log: label, client random and secret.
pub(crate) fn key_line(label: &str, client_random: &[u8], secret: &[u8]) -> String {
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
    line
}

/// Two places for the same secrets.
#[derive(Debug)]
pub(crate) struct BothKeyLogs(pub Arc<dyn rustls::KeyLog>, pub Arc<dyn rustls::KeyLog>);

impl rustls::KeyLog for BothKeyLogs {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        self.0.log(label, client_random, secret);
        self.1.log(label, client_random, secret);
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
        let line = key_line(label, client_random, secret);
        // A handshake does not fail because its log cannot be written.
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::KeyLog;

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
