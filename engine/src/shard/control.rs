//! What the engine tells a shard, apart from the application's commands.

use crate::config::{IpNet, Links, ListenConfig};
use crate::handle::{Conn, ListenerId};
use crate::io::FaultConfig;
use crate::stats::ShardStats;
use crossbeam::channel::Sender;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;
use trunkline_proto::endpoint::ListenerConfig;
use trunkline_proto::event::CloseReport;

/// A listening socket for one shard.
pub(crate) struct AddListener {
    pub id: ListenerId,
    pub addr: SocketAddr,
    /// `None`: the shard has one at this address that listens no more.
    pub socket: Option<UdpSocket>,
    /// Where TCP connections arrive, if they are taken.
    pub stream: Option<TcpListener>,
    pub links: Links,
    /// Whether STUN requests are answered there.
    pub stun: bool,
    pub config: ListenerConfig,
    pub result: Option<Sender<std::io::Result<()>>>,
}

/// What a shard reports when it has ended its connections.
#[derive(Debug, Default)]
pub(crate) struct ShardEnd {
    pub shard: u8,
    pub connections: Vec<(Conn, CloseReport)>,
    pub failure: Option<String>,
}

/// A message to one shard.
pub(crate) enum Control {
    Listen(Box<AddListener>),
    Unlisten {
        id: ListenerId,
        close_connections: bool,
        done: Sender<()>,
    },
    Deny(Vec<IpNet>),
    Faults(Box<FaultConfig>),
    Stats(Sender<Box<ShardStats>>),
    NetworkChanged,
    /// End every connection, wait for them, report, and stop.
    Shutdown {
        linger: Duration,
        report: Sender<ShardEnd>,
    },
    /// Stop at once, after telling the peers.
    Stop,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Listen(_) => "Listen",
            Self::Unlisten { .. } => "Unlisten",
            Self::Deny(_) => "Deny",
            Self::Faults(_) => "Faults",
            Self::Stats(_) => "Stats",
            Self::NetworkChanged => "NetworkChanged",
            Self::Shutdown { .. } => "Shutdown",
            Self::Stop => "Stop",
        })
    }
}

/// Keeps [`ListenConfig`] and what the endpoint needs of it together.
pub(crate) fn listener_config(
    config: &ListenConfig,
    key_log: Option<std::sync::Arc<dyn rustls::KeyLog>>,
) -> Result<ListenerConfig, trunkline_proto::error::ApiError> {
    config.validate()?;
    Ok(ListenerConfig {
        tls: crate::security::host_tls(&config.identity, &config.client_auth, key_log)?,
        connection: config.connection.clone(),
    })
}
