//! An event source over loopback, and what it takes to be its client.

use super::{connect, identity, link, loopback};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};
use trunkline::rendezvous::{
    AccessToken, AppId, ClientId, ClientPattern, EventSourceServer, Grant, KeyRing, PairingConfig,
    RoleSet, SourceConfig, connection_config,
};
use trunkline::{
    ConnectConfig, ConnectLink, ConnectionConfig, DriverChoice, EngineConfig, Identity, Links,
    ListenConfig,
};

pub fn keys() -> KeyRing {
    let mut keys = KeyRing::new();
    keys.add("k1", &[3; 32]).unwrap();
    keys
}

pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

pub fn token(app: &str, clients: &str) -> AccessToken {
    let grant = Grant {
        app: AppId::new(app).unwrap(),
        clients: ClientPattern::new(clients).unwrap(),
        roles: RoleSet::ALL,
        expires_s: unix_s() + 600,
    };
    keys().mint("k1", &grant).unwrap()
}

pub fn engine_config(driver: DriverChoice, shards: usize) -> EngineConfig {
    EngineConfig {
        driver,
        shards,
        connection: ConnectionConfig {
            fin_wait_timeout: trunkline::Duration::from_millis(500),
            ..connection_config()
        },
        ..EngineConfig::default()
    }
}

/// Partners that find each other soon.
pub fn fast_pairing() -> PairingConfig {
    let fast = trunkline::Duration::from_millis;
    PairingConfig {
        searching_ping: fast(200),
        interacting_ping: fast(400),
        partner_limit: fast(2_000),
        event_interval: fast(0),
        ..PairingConfig::default()
    }
}

pub struct Source {
    pub server: EventSourceServer,
    pub identity: Identity,
    pub addr: SocketAddr,
}

impl Source {
    pub fn start(driver: DriverChoice, shards: usize) -> Self {
        Self::with(driver, shards, &SourceConfig::default(), identity(), loopback())
    }

    pub fn with(
        driver: DriverChoice,
        shards: usize,
        config: &SourceConfig,
        identity: Identity,
        addr: SocketAddr,
    ) -> Self {
        let engine =
            EngineConfig { identity: Some(identity.clone()), ..engine_config(driver, shards) };
        let server = EventSourceServer::start(engine, config, &keys()).unwrap();
        let links = if link() == ConnectLink::Stream { Links::BOTH } else { Links::DATAGRAM };
        let listen =
            ListenConfig { links, stun: true, ..ListenConfig::new(addr, identity.clone()) };
        let listener = server.listen(&listen).unwrap();
        Self { server, identity, addr: listener.local_addr }
    }

    /// How its clients reach it.
    pub fn connect(&self) -> ConnectConfig {
        connect(self.addr, &self.identity)
    }
}
