//! What one side of an exchange is told, and how it answers.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use trunkline::{ConnectConfig, Identity, PeerId, Trust};

/// What is sent.
pub const MESSAGE: [u8; 64] = [7; 64];
/// Before anything is measured.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// What a side does.
#[derive(Clone, Debug)]
pub struct Side {
    /// `rate` or `latency`.
    pub scenario: String,
    /// How long it measures.
    pub seconds: f64,
    /// Where the host is, and its fingerprint; the host itself has none.
    pub host: Option<(SocketAddr, PeerId)>,
}

impl Side {
    /// Whether it connects.
    pub const fn is_client(&self) -> bool {
        self.host.is_some()
    }

    /// Whether each message is sent back.
    pub fn echoes(&self) -> bool {
        self.scenario == "latency"
    }

    /// How a client connects.
    pub fn connect(&self) -> Option<ConnectConfig> {
        let (addr, id) = self.host?;
        Some(ConnectConfig::new(addr, Trust::Pins(vec![id])))
    }
}

/// Nanoseconds since the first call.
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// A fresh identity.
pub fn identity() -> Identity {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let params = rcgen::CertificateParams::new(vec!["trunkline".into()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    Identity::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("an identity")
}

/// Tells where the host is.
pub fn print_address(addr: SocketAddr, identity: &Identity) {
    println!("{addr} {}", identity.peer_id());
}

/// Tells what was measured: messages a second, or median and 99 % of round trips in nanoseconds.
pub fn report(side: &Side, count: u64, ns: u64, mut samples: Vec<u32>) {
    if side.echoes() && side.is_client() {
        samples.sort_unstable();
        let at = |share: usize| samples.get(samples.len() / 100 * share).copied().unwrap_or(0);
        println!("{} {}", at(50), at(99));
    } else {
        println!("{:.0}", count as f64 / (ns as f64 / 1e9));
    }
}
