//! What the tests over real sockets share.
#![allow(dead_code)]

pub mod queued;
pub mod source;
pub mod tap;

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use trunkline::io::{MioDriver, UringDriver};
use trunkline::{
    AnyDriver, ConnectConfig, ConnectLink, ConnectionConfig, DriverChoice, DriverConfig,
    EngineConfig, Identity, Links, ListenConfig, Trust,
};

/// A fresh identity.
pub fn identity() -> Identity {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let cert =
        rcgen::CertificateParams::new(vec!["trunkline".into()]).unwrap().self_signed(&key).unwrap();
    Identity::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

/// Timeouts that let a test fail soon.
pub fn connection() -> ConnectionConfig {
    ConnectionConfig {
        fin_wait_timeout: trunkline::Duration::from_millis(500),
        ..ConnectionConfig::default()
    }
}

pub fn config(driver: DriverChoice) -> EngineConfig {
    EngineConfig { driver, connection: connection(), ..EngineConfig::default() }
}

/// A driver of this kind.
pub fn open(driver: DriverChoice) -> AnyDriver {
    let io = DriverConfig::default();
    match driver {
        DriverChoice::Uring => AnyDriver::Uring(Box::new(UringDriver::new(&io).unwrap())),
        _ => AnyDriver::Mio(Box::new(MioDriver::new(&io).unwrap())),
    }
}

/// The drivers that work here.
pub fn drivers() -> Vec<DriverChoice> {
    let mut drivers = vec![DriverChoice::Mio];
    if trunkline::io::detect::choose(DriverChoice::Uring).is_ok() {
        drivers.push(DriverChoice::Uring);
    }
    drivers
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// What the tests of this binary connect over: those whose name ends so, over streams.
pub fn link() -> ConnectLink {
    if module_path!().split("::").next().is_some_and(|name| name.ends_with("streams")) {
        ConnectLink::Stream
    } else {
        ConnectLink::Datagram
    }
}

pub fn listen(identity: &Identity) -> ListenConfig {
    let links = if link() == ConnectLink::Stream { Links::STREAM } else { Links::DATAGRAM };
    ListenConfig { links, ..ListenConfig::new(loopback(), identity.clone()) }
}

pub fn connect(addr: SocketAddr, host: &Identity) -> ConnectConfig {
    let trust = Trust::Pins(vec![host.peer_id()]);
    ConnectConfig { link: link(), ..ConnectConfig::new(addr, trust) }
}

/// Waits until `done`, or panics.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that tell every position apart.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}
