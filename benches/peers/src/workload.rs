//! The workloads, and what is told to the two processes of a measurement.

use crate::scale::job::Point;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bytes of UDP payload in a packet: what Ethernet carries under an IPv6 header.
pub const PACKET: usize = 1452;
/// Bytes of a bulk message.
pub const BULK_MESSAGE: usize = 64 << 10;
/// Bytes of a small message.
pub const SMALL_MESSAGE: usize = 64;
/// Bytes of a tick message.
pub const TICK_MESSAGE: usize = 100;
/// Ticks a second, each way, on each connection.
pub const TICKS_PER_S: u32 = 30;
/// Bytes that a caller gathers before it sends, where it does.
pub const BATCH: usize = 64 << 10;
/// Congestion control of TCP unless something else is asked for: that of all other peers, whatever
/// the machine's default is.
pub const TCP_CONGESTION: &str = "cubic";
/// Connections that are being opened at once.
pub const OPENING: usize = 32;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// One connection, one stream, messages of 64 KiB, packets as on Ethernet.
    Bulk,
    /// The same with the largest packets that loopback and the peer allow.
    BulkLarge,
    /// Reliable messages of 64 bytes, one send call each.
    Small,
    /// The same, gathered by the caller into writes of 64 KiB.
    SmallBatched,
    /// Unreliable messages of 64 bytes.
    Datagrams,
    /// One message of 64 bytes to and fro, nothing else going on, sleeping in between.
    Latency,
    /// Many connections, 30 messages of 100 bytes a second on each, in both directions.
    Tick,
    /// New connections with a full handshake and one message there and back.
    Handshakes,
    /// The same with resumed sessions.
    Resumed,
    /// Many connections that do nothing.
    Memory,
}

/// Which figures are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Much.
    Higher,
    /// Little.
    Lower,
}

impl Workload {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 10] = [
        Self::Bulk,
        Self::BulkLarge,
        Self::Small,
        Self::SmallBatched,
        Self::Datagrams,
        Self::Latency,
        Self::Tick,
        Self::Handshakes,
        Self::Resumed,
        Self::Memory,
    ];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::BulkLarge => "bulk-large",
            Self::Small => "small",
            Self::SmallBatched => "small-batched",
            Self::Datagrams => "datagrams",
            Self::Latency => "latency",
            Self::Tick => "tick",
            Self::Handshakes => "handshakes",
            Self::Resumed => "resumed",
            Self::Memory => "memory",
        }
    }

    /// From the command line.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// One line for tables and charts.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Bulk => "Bulk: one connection, 64 KiB messages, 1452-byte packets",
            Self::BulkLarge => "Bulk, largest packets: one connection, 64 KiB messages",
            Self::Small => "64-byte reliable messages, one send call each",
            Self::SmallBatched => "64-byte reliable messages, gathered by the caller into 64 KiB",
            Self::Datagrams => "64-byte unreliable messages",
            Self::Latency => "Round trip of one 64-byte message, idle, sleeping",
            Self::Tick => "Tick: 30 × 100 bytes a second each way on every connection",
            Self::Handshakes => "New connections, full handshake, one message there and back",
            Self::Resumed => "New connections, resumed session, one message there and back",
            Self::Memory => "Resident memory of the server for an idle connection",
        }
    }

    /// Unit of the main figure.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Bulk | Self::BulkLarge => "Gb/s",
            Self::Small | Self::SmallBatched | Self::Datagrams => "M/s",
            Self::Latency => "µs, median",
            Self::Tick => "server cores",
            Self::Handshakes | Self::Resumed => "per second of server CPU",
            Self::Memory => "KiB",
        }
    }

    /// Which way the main figure is good.
    pub const fn better(self) -> Better {
        match self {
            Self::Latency | Self::Tick | Self::Memory => Better::Lower,
            _ => Better::Higher,
        }
    }

    /// Bytes of one message.
    pub const fn message(self) -> usize {
        match self {
            Self::Bulk | Self::BulkLarge => BULK_MESSAGE,
            Self::Tick => TICK_MESSAGE,
            _ => SMALL_MESSAGE,
        }
    }

    /// Connections, unless something else is asked for.
    pub const fn connections(self) -> usize {
        match self {
            Self::Tick => 1000,
            Self::Memory => 2000,
            _ => 1,
        }
    }

    /// Whether it is about opening connections.
    pub const fn opens(self) -> bool {
        matches!(self, Self::Handshakes | Self::Resumed | Self::Memory)
    }

    /// Whether peers that can are lent messages instead of copying them.
    pub const fn lends(self) -> bool {
        matches!(self, Self::Bulk | Self::BulkLarge)
    }

    /// Whether it has more than one connection.
    pub const fn many(self) -> bool {
        self.opens() || matches!(self, Self::Tick)
    }
}

/// What both processes of a measurement do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Name of the peer.
    pub peer: String,
    /// The workload.
    pub workload: Workload,
    /// Connections of [`Workload::Tick`] and [`Workload::Memory`].
    pub connections: usize,
    /// Where the server listens; port 0 lets the system choose.
    pub listen: String,
    /// Congestion control of TCP sockets, as the kernel calls it.
    pub tcp_congestion: String,
    /// A point of a series instead of the workload.
    #[serde(default)]
    pub point: Option<Point>,
}

impl Job {
    /// On loopback, with the workload's own number of connections.
    pub fn new(peer: &str, workload: Workload) -> Self {
        Self {
            peer: peer.to_owned(),
            workload,
            connections: workload.connections(),
            listen: "127.0.0.1:0".to_owned(),
            tcp_congestion: TCP_CONGESTION.to_owned(),
            point: None,
        }
    }

    /// Largest UDP payload of a packet, if the peer can be told; `u16::MAX` = no bound.
    pub const fn packet(&self) -> usize {
        if matches!(self.workload, Workload::BulkLarge) { u16::MAX as usize } else { PACKET }
    }
}

/// How long connections may take to stand, and answers to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json() {
        for workload in Workload::ALL {
            assert_eq!(Workload::from_name(workload.name()), Some(workload));
            let json = serde_json::to_string(&workload).unwrap();
            assert_eq!(json, format!("\"{}\"", workload.name()));
        }
        assert_eq!(Workload::from_name("nothing"), None);
    }

    #[test]
    fn jobs_survive_the_command_line() {
        let job = Job::new("quinn", Workload::Tick);
        assert_eq!(job.connections, 1000);
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    }
}
