//! Settings of an engine, its listeners and its connections.

use crate::capture::CaptureConfig;
use crate::io::{DriverChoice, DriverConfig, MAX_SEGMENTS};
use crate::security::{ClientAuth, Identity, Trust};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use trunkline_proto::config::ConnectionConfig;
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::ConnectLink;
use trunkline_proto::limits;

pub use trunkline_proto::endpoint::RetryPolicy;
pub use trunkline_proto::manager::{Reuse, SecHandle, SecurityCallback};
pub use trunkline_proto::rendezvous::stun::StunConfig;

/// Most shards of one engine: the shard number is one byte of a connection id.
pub const MAX_SHARDS: usize = 256;
/// Most addresses that one connect tries.
pub const MAX_REMOTES: usize = 16;

/// Where the threads of the shards run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// Wherever the system puts them.
    #[default]
    None,
    /// Shard *n* on the *n*-th of these processors; numbers as the system counts them.
    Cores(Vec<usize>),
}

/// A set of addresses: an address and the number of leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNet {
    /// The address.
    pub addr: IpAddr,
    /// Leading bits that count: at most 32 or 128.
    pub prefix: u8,
}

impl IpNet {
    /// First and last address, as IPv6 numbers; IPv4 in its mapped form.
    pub(crate) fn range(self) -> (u128, u128) {
        let (base, bits) = match self.addr {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), 32 - u32::from(self.prefix.min(32))),
            IpAddr::V6(v6) => (v6.to_bits(), 128 - u32::from(self.prefix.min(128))),
        };
        let host = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
        (base & !host, base | host)
    }
}

/// An address as an IPv6 number; IPv4 in its mapped form.
pub(crate) fn address_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl From<IpAddr> for IpNet {
    fn from(addr: IpAddr) -> Self {
        Self { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for IpNet {
    type Err = ApiError;

    /// `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
    fn from_str(s: &str) -> Result<Self, ApiError> {
        let bad = |why| ApiError::InvalidArgument { field: "network", why };
        let (addr, prefix) = s.split_once('/').map_or((s, None), |(a, p)| (a, Some(p)));
        let addr: IpAddr = addr.parse().map_err(|_| bad("has no valid address"))?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => max,
            Some(p) => p
                .parse()
                .ok()
                .filter(|p| *p <= max)
                .ok_or(bad("has a prefix that is out of range"))?,
        };
        Ok(Self { addr, prefix })
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// Settings of an engine. [`Default`] is one shard with the best driver;
/// [`validate`](Self::validate) names the first field that is out of range.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Shards, each with a thread of its own unless the application drives it. 1.
    pub shards: usize,
    /// Processors of the shards' threads.
    pub pin: Pinning,
    /// Driver.
    pub driver: DriverChoice,
    /// Defaults of all connections.
    pub connection: ConnectionConfig,
    /// Who we are as a client, unless a connect says otherwise. With it, peers of a host that was
    /// restarted learn at once that their connections are gone.
    pub identity: Option<Identity>,
    /// Receive buffers of a shard, 64 KiB each. 256.
    pub rx_buffers: usize,
    /// Transmit buffers of a shard, 64 KiB each. 64.
    pub tx_buffers: usize,
    /// Let the system cut trains into packets where it can.
    pub gso: bool,
    /// Most packets of a train, and so of one send call, 1 to 64. 64.
    pub gso_segments: usize,
    /// Let the system merge received datagrams where it can.
    pub gro: bool,
    /// Wanted size of each socket's send and receive buffer in bytes; the system may give less.
    /// 4 MiB.
    pub socket_buffer_bytes: usize,
    /// Commands that wait for one shard at once. 4096.
    pub mailbox: usize,
    /// Datagrams on their way from one shard to another at once. 256.
    pub forward_queue: usize,
    /// Connections of one shard at once, at most 2^20. 65,536.
    pub max_connections: u32,
    /// Host-side handshakes of one shard under way at once; more requests are dropped. 4096.
    pub max_handshakes: u32,
    /// ConnectionRequests a second from one source (an IPv4 address, an IPv6 /64) that one shard
    /// answers, twice that in a burst. 200; 0 = any number.
    pub handshakes_per_source_per_s: u32,
    /// How often a shard answers STUN requests, where a listener does.
    pub stun: StunConfig,
    /// Sources whose ConnectionRequests are dropped.
    pub deny: Vec<IpNet>,
    /// When a ConnectionRequest is answered with a Retry first.
    pub retry: RetryPolicy,
    /// TLS secrets are appended to this file, for protocol analysers. Whoever can read it can
    /// read every connection.
    pub key_log: Option<PathBuf>,
    /// Figures of the running engine are kept in this file, for `trunkline top` and whoever else may
    /// read it; see [`stats::file`](crate::stats::file). An existing file is replaced. Unix only.
    pub stats_file: Option<PathBuf>,
    /// Everything that connections say is written to this file, in the clear, for protocol
    /// analysers (docs/wireshark.md). Whoever can read it can read every connection.
    pub capture: Option<CaptureConfig>,
    /// Spin this long after the last work before a shard sleeps; zero = sleep at once. Without it a
    /// shard spins for at most 20 µs, and only while at least four of five of its waits are
    /// shorter than that.
    pub busy_poll: Option<Duration>,
    /// Server number, written into connection ids for load balancers.
    pub server: u8,
    /// Send buffers for sending without a copy: as many for the handler of each shard, and as many for
    /// the queued API. 64.
    pub send_buffers: usize,
    /// Bytes of each of them. 64 KiB.
    pub send_buffer_bytes: usize,
    /// Queued API: bytes of one channel that wait for its shard before sends give `WouldBlock`.
    /// 1 MiB.
    pub queue_channel_bytes: usize,
    /// Queued API: bytes of messages that wait for one shard in all. 256 MiB.
    pub queue_shard_bytes: usize,
    /// Queued API: bytes that wait in one poll group before unreliable messages are dropped.
    /// 16 MiB.
    pub queue_group_bytes: usize,
    /// How long a connection that a channel request or an association made by itself stays when no
    /// channel is open and nothing moves; the peer has to agree that it is idle. `None` = until it
    /// is closed. 180 s.
    pub idle_hold: Option<Duration>,
    /// Asked while connections are being made: may choose identity, trust and credential, and may
    /// refuse.
    pub security: Option<SecurityCallback>,
    /// Seed of everything random, for tests that repeat; `None` = unpredictable.
    pub dangerous_seed: Option<[u8; 32]>,
    /// Faults that are added to everything sent and received, for tests.
    pub fault: Option<crate::FaultConfig>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            shards: 1,
            pin: Pinning::None,
            driver: DriverChoice::Auto,
            connection: ConnectionConfig::default(),
            identity: None,
            rx_buffers: 256,
            tx_buffers: 64,
            gso: true,
            gso_segments: MAX_SEGMENTS,
            gro: true,
            socket_buffer_bytes: 4 << 20,
            mailbox: 4096,
            forward_queue: 256,
            max_connections: 65_536,
            max_handshakes: 4096,
            handshakes_per_source_per_s: 200,
            stun: StunConfig::default(),
            deny: Vec::new(),
            retry: RetryPolicy::WhenLoaded(512),
            key_log: None,
            stats_file: None,
            capture: None,
            busy_poll: None,
            server: 0,
            send_buffers: 64,
            send_buffer_bytes: 64 << 10,
            queue_channel_bytes: 1 << 20,
            queue_shard_bytes: 256 << 20,
            queue_group_bytes: 16 << 20,
            idle_hold: Some(Duration::from_secs(180)),
            security: None,
            dangerous_seed: None,
            fault: None,
        }
    }
}

fn check(ok: bool, field: &'static str, why: &'static str) -> Result<(), ApiError> {
    if ok { Ok(()) } else { Err(ApiError::InvalidArgument { field, why }) }
}

impl EngineConfig {
    pub(crate) fn driver_config(&self) -> DriverConfig {
        DriverConfig {
            rx_buffers: self.rx_buffers,
            tx_buffers: self.tx_buffers,
            lease_reserve: self.rx_buffers / 2,
            gso: self.gso,
            max_segments: self.gso_segments,
            gro: self.gro,
            ..DriverConfig::default()
        }
    }

    /// Checks every field; the error names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        check((1..=MAX_SHARDS).contains(&self.shards), "shards", "must lie in 1..=256")?;
        if let Pinning::Cores(cores) = &self.pin {
            check(cores.len() >= self.shards, "pin", "must name one processor for each shard")?;
        }
        check((16..=1 << 20).contains(&self.mailbox), "mailbox", "must lie in 16..=1048576")?;
        check(
            (1..=1 << 16).contains(&self.forward_queue),
            "forward_queue",
            "must lie in 1..=65536",
        )?;
        check(
            (1..=1 << 20).contains(&self.max_connections),
            "max_connections",
            "must lie in 1..=1048576",
        )?;
        check((8..=32_768).contains(&self.rx_buffers), "rx_buffers", "must lie in 8..=32768")?;
        check((4..=4_096).contains(&self.tx_buffers), "tx_buffers", "must lie in 4..=4096")?;
        check(
            (1..=MAX_SEGMENTS).contains(&self.gso_segments),
            "gso_segments",
            "must lie in 1..=64",
        )?;
        check(self.max_handshakes >= 1, "max_handshakes", "must be at least 1")?;
        check((1..=1 << 16).contains(&self.send_buffers), "send_buffers", "must lie in 1..=65536")?;
        check(
            (64..=limits::MAX_MESSAGE).contains(&self.send_buffer_bytes),
            "send_buffer_bytes",
            "must lie in 64..=16777216",
        )?;
        check(self.queue_channel_bytes >= 4096, "queue_channel_bytes", "must be at least 4096")?;
        check(
            self.queue_shard_bytes >= self.queue_channel_bytes,
            "queue_shard_bytes",
            "must not be below queue_channel_bytes",
        )?;
        check(
            self.queue_group_bytes >= limits::MAX_DATAGRAM,
            "queue_group_bytes",
            "must be at least 65536",
        )?;
        check(cfg!(unix) || self.stats_file.is_none(), "stats_file", "needs a Unix system")?;
        for net in &self.deny {
            let max = if net.addr.is_ipv4() { 32 } else { 128 };
            check(net.prefix <= max, "deny", "has a prefix that is out of range")?;
        }
        self.capture.as_ref().map_or(Ok(()), CaptureConfig::validate)?;
        self.connection.validate()
    }
}

/// What a listener takes connections over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// Packets in UDP datagrams.
    pub datagram: bool,
    /// TLS over TCP, the native protocol.
    pub stream: bool,
    /// TLS over TCP, the plain protocol too: frame headers, ChannelRequest and EOF, for peers that
    /// know nothing else. Such a client shows no credential.
    pub plain: bool,
}

impl Links {
    /// UDP only.
    pub const DATAGRAM: Self = Self { datagram: true, stream: false, plain: false };
    /// TLS over TCP only, the native protocol.
    pub const STREAM: Self = Self { datagram: false, stream: true, plain: false };
    /// UDP and, on the same port, TLS over TCP.
    pub const BOTH: Self = Self { datagram: true, stream: true, plain: false };

    /// Whether TCP connections are taken.
    pub const fn any_stream(self) -> bool {
        self.stream || self.plain
    }
}

impl Default for Links {
    fn default() -> Self {
        Self::DATAGRAM
    }
}

/// Where and as whom to accept connections.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// The address; port 0 lets the system choose one.
    pub addr: SocketAddr,
    /// Who we are.
    pub identity: Identity,
    /// What clients must show.
    pub client_auth: ClientAuth,
    /// What connections are taken over.
    pub links: Links,
    /// Whether STUN Binding requests are answered at its UDP port: clients learn the address under
    /// which they are seen there. They are not.
    pub stun: bool,
    /// Settings of its connections; `None` = the engine's.
    pub connection: Option<ConnectionConfig>,
}

impl ListenConfig {
    /// Listens at `addr` as `identity`, and asks nothing of clients.
    pub const fn new(addr: SocketAddr, identity: Identity) -> Self {
        let links = Links::DATAGRAM;
        let client_auth = ClientAuth::None;
        Self { addr, identity, client_auth, links, stun: false, connection: None }
    }

    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        check(
            self.links.datagram || self.links.any_stream(),
            "links",
            "must name at least one link",
        )?;
        check(self.links.datagram || !self.stun, "stun", "needs a listener for datagrams")?;
        self.connection.as_ref().map_or(Ok(()), ConnectionConfig::validate)
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// Addresses of the one peer, at most 16. The same request goes to all, the first valid answer
    /// decides.
    pub remotes: Vec<SocketAddr>,
    /// TLS server name: checked with [`Trust::Roots`], told to the host always.
    pub server_name: String,
    /// What makes the host acceptable.
    pub trust: Trust,
    /// Who we are; `None` = the engine's identity.
    pub identity: Option<Identity>,
    /// Shown to the host's application after the handshake; at most 8 KiB.
    pub credential: Vec<u8>,
    /// Settings of the connection; `None` = the engine's.
    pub connection: Option<ConnectionConfig>,
    /// Whether an existing connection will do.
    pub reuse: Reuse,
    /// What to connect over.
    pub link: ConnectLink,
    /// Handed to [`EngineConfig::security`] while the connection is being made.
    pub sec_handle: Option<SecHandle>,
}

impl ConnectConfig {
    /// To one address, believing `trust`; everything else by default.
    pub fn new(remote: SocketAddr, trust: Trust) -> Self {
        Self {
            remotes: vec![remote],
            server_name: "trunkline".into(),
            trust,
            identity: None,
            credential: Vec::new(),
            connection: None,
            reuse: Reuse::default(),
            link: ConnectLink::default(),
            sec_handle: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        check(!self.remotes.is_empty(), "remotes", "must hold an address")?;
        check(self.remotes.len() <= MAX_REMOTES, "remotes", "must hold at most 16 addresses")?;
        check(
            self.remotes.iter().all(|r| r.port() != 0 && !r.ip().is_unspecified()),
            "remotes",
            "must have a port and a real address",
        )?;
        check(
            self.credential.len() <= limits::MAX_CREDENTIAL,
            "credential",
            "must be at most 8192 bytes",
        )?;
        self.connection.as_ref().map_or(Ok(()), ConnectionConfig::validate)
    }
}

/// The same address in the form that a dual-stack IPv6 socket uses.
pub(crate) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
        SocketAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_errors_name_the_field() {
        EngineConfig::default().validate().unwrap();
        let config = EngineConfig { shards: 0, ..Default::default() };
        let e = config.validate().unwrap_err().to_string();
        assert!(e.contains("shards"), "{e}");
        let config = EngineConfig { shards: 2, pin: Pinning::Cores(vec![0]), ..Default::default() };
        assert!(config.validate().unwrap_err().to_string().contains("pin"));
        let mut config = EngineConfig::default();
        config.connection.max_packet = 10;
        assert!(config.validate().unwrap_err().to_string().contains("max_packet"));
    }

    #[test]
    fn networks_parse_and_cover_what_they_should() {
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let (first, last) = net.range();
        let inside = |s: &str| (first..=last).contains(&address_bits(s.parse().unwrap()));
        assert!(inside("192.0.2.0") && inside("192.0.2.255") && inside("::ffff:192.0.2.9"));
        assert!(!inside("192.0.3.0") && !inside("::1"));
        let all: IpNet = "::/0".parse().unwrap();
        assert_eq!(all.range(), (0, u128::MAX));
        for bad in ["", "1.2.3.4/33", "::/129", "1.2.3/8", "1.2.3.4/x"] {
            assert!(bad.parse::<IpNet>().is_err(), "{bad}");
        }
        assert_eq!("2001:db8::1".parse::<IpNet>().unwrap().to_string(), "2001:db8::1/128");
    }

    #[test]
    fn connects_are_checked() {
        let ok = ConnectConfig::new("127.0.0.1:7470".parse().unwrap(), Trust::DangerousAny);
        ok.validate().unwrap();
        let mut bad = ok.clone();
        bad.remotes.clear();
        assert!(bad.validate().is_err());
        let mut bad = ok.clone();
        bad.remotes[0].set_port(0);
        assert!(bad.validate().is_err());
        let mut bad = ok;
        bad.credential = vec![0; limits::MAX_CREDENTIAL + 1];
        assert!(bad.validate().unwrap_err().to_string().contains("credential"));
    }
}
