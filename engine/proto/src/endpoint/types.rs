//! Values that pass between an endpoint and its caller.

use crate::config::ConnectionConfig;
use crate::error::{ApiError, CloseReason};
use crate::handshake::{ClientTls, HandshakeFailure, HandshakeState, HostTls};
use crate::ids::{Link, PeerId, Role};
use crate::limits::MAX_CREDENTIAL;
use crate::observe::Observer;
pub use crate::recovery::Ecn;
use crate::status::Status;
use crate::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a datagram came from and to, as the driver saw it.
#[derive(Clone, Copy, Debug)]
pub struct RxMeta {
    /// Number of the socket within the shard.
    pub socket: u16,
    /// The sender.
    pub remote: SocketAddr,
    /// The local address it was sent to, where the system tells.
    pub local: Option<IpAddr>,
    /// Its ECN mark.
    pub ecn: Ecn,
}

/// One train of packets written by [`Endpoint::poll_transmit`](super::Endpoint::poll_transmit).
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// Number of the socket within the shard.
    pub socket: u16,
    /// The receiver.
    pub remote: SocketAddr,
    /// The local address to send from; `None` = the system chooses.
    pub local: Option<IpAddr>,
    /// ECN mark for all packets.
    pub ecn: Ecn,
    /// Bytes written at the start of the buffer.
    pub len: usize,
    /// Size of every packet but the last, which may be shorter. Equal to `len` for one packet.
    pub segment: usize,
    /// The packet is a packet-size probe: it must not be fragmented or segmented, and losing it is harmless.
    pub probe: bool,
}

/// What became of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// Taken (or dropped and counted).
    Here,
    /// Its connection id names another shard: forward a copy there.
    Shard(u8),
}

/// How to send one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// Take the data even when the buffers are over their limit (a recorded send of a handler).
    pub over_limit: bool,
    /// Ask for a [`Sink::receipt`](crate::event::Sink::receipt) with this token when the peer has acknowledged all of it.
    pub receipt: Option<u64>,
}

/// Keys shared by all shards of an engine; derived or random, never sent.
#[derive(Clone)]
pub struct EndpointKeys {
    /// Enciphers the slot inside connection ids.
    pub id: [u8; 16],
    /// Makes stateless-reset tokens; stable across restarts when it is derived from the identity.
    pub reset: [u8; 32],
    /// Makes retry tokens.
    pub retry: [u8; 32],
}

impl core::fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("EndpointKeys(..)")
    }
}

/// When a host answers a ConnectionRequest with a Retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Never.
    Never,
    /// While at least this many handshakes are under way.
    WhenLoaded(u32),
    /// Always.
    Always,
}

/// Settings of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Shard number, written into connection ids.
    pub shard: u8,
    /// Server number, written into connection ids for load balancers.
    pub server: u8,
    /// Seed of everything random here; must be unpredictable outside tests.
    pub seed: [u8; 32],
    /// Keys shared by all shards.
    pub keys: EndpointKeys,
    /// Defaults of its connections.
    pub connection: ConnectionConfig,
    /// Connections at once, at most 2^20.
    pub max_connections: u32,
    /// Host handshakes under way at once; beyond it requests are dropped and counted.
    pub max_handshakes: u32,
    /// When requests get a Retry.
    pub retry: RetryPolicy,
    /// Sees every packet in the clear.
    pub observer: Option<Arc<dyn Observer>>,
}

/// What a listening socket does with ConnectionRequests.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// TLS settings of the host: identity and what is asked of clients.
    pub tls: HostTls,
    /// Settings of its connections; `None` = the endpoint's.
    pub connection: Option<ConnectionConfig>,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// TLS settings of the client: trust and identity.
    pub tls: ClientTls,
    /// TLS server name.
    pub server_name: String,
    /// Credential sent under 1-RTT keys, at most 8 KiB.
    pub credential: Vec<u8>,
    /// Settings of this connection; `None` = the endpoint's.
    pub connection: Option<ConnectionConfig>,
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// Our side.
    pub role: Role,
    /// The status.
    pub status: Status,
    /// What our role in the handshake waits for, or how the attempt ended.
    pub handshake: HandshakeState,
    /// Where the peer is.
    pub remote: SocketAddr,
    /// The local address in use, where known.
    pub local: Option<IpAddr>,
    /// The peer's identity.
    pub peer: Option<PeerId>,
    /// Why the connection ended, if it has.
    pub reason: Option<CloseReason>,
    /// The peer closed and said that data it had received was thrown away: its application never
    /// saw all that it acknowledged.
    pub peer_discarded: bool,
    /// TLS cipher suite.
    pub suite: Option<&'static str>,
    /// The TLS session was resumed.
    pub resumed: bool,
    /// What carries it.
    pub link: Link,
    /// A stream link that has only frames, requests and EOFs.
    pub plain: bool,
    /// Packets go over the relay of an event source; `remote` only stands for the peer then.
    pub relayed: bool,
}

/// Counters and gauges of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnStats {
    /// Packets sent and received, lost, with frames sent again.
    pub packets_sent: u64,
    /// Packets opened.
    pub packets_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Reliable frames sent again.
    pub retransmits: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Smallest round trip.
    pub rtt_min: Duration,
    /// How much round trips vary; 0 over a stream.
    pub rtt_var: Duration,
    /// Bytes a second that packets leave at while there is enough to send; 0 = not limited, or not
    /// known.
    pub pacing_rate: u64,
    /// Congestion window in bytes.
    pub window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Current UDP payload size.
    pub packet_size: u64,
    /// Reliable bytes handed over and not acknowledged.
    pub unacked_bytes: u64,
    /// Those of them that were never sent.
    pub unsent_bytes: u64,
    /// Channels open.
    pub channels: u32,
    /// Packets that failed to open or were replayed.
    pub packets_rejected: u64,
    /// Unreliable messages dropped before sending.
    pub datagrams_dropped: u64,
    /// Of the packets declared lost: those that had arrived, as an acknowledgement said later.
    pub spurious_losses: u64,
}

/// Counters of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointStats {
    /// Datagrams handed in.
    pub datagrams: u64,
    /// Datagrams that were nothing of ours or damaged in their headers.
    pub malformed: u64,
    /// Short packets whose connection id names no live connection.
    pub unknown_id: u64,
    /// Short packets that could not be opened.
    pub rejected: u64,
    /// Short packets that were copies, or too old to be told from copies.
    pub copies: u64,
    /// Packets of a connection whose keys did not exist yet.
    pub early_packets: u64,
    /// Long packets of connections beyond their handshake.
    pub late_handshake_packets: u64,
    /// Long packets that were invalid, forged, repeated or out of order.
    pub dropped_handshake_packets: u64,
    /// ConnectionRequests and TCP connections refused because a bound was reached; TCP connections
    /// that made room for others before they had proved anything, too.
    pub refused: u64,
    /// Retry packets sent.
    pub retries: u64,
    /// VersionLists sent.
    pub version_lists: u64,
    /// Stateless resets sent.
    pub resets_sent: u64,
    /// Stateless resets received.
    pub resets_received: u64,
    /// Connections begun by peers.
    pub accepted: u64,
    /// Those of them that ended before the application heard of them.
    pub failed_handshakes: u64,
    /// Connections begun by us.
    pub connected: u64,
    /// Attempts, ours and those of peers, that ended by the initial timeout. Like the next two they
    /// are counted when the connection is gone.
    pub attempts_timed_out: u64,
    /// Attempts that ended because of a proof, of the order of the handshake, or because the host's
    /// application denied the client.
    pub attempts_denied: u64,
    /// Attempts that ended for another reason.
    pub attempts_given_up: u64,
}

impl EndpointStats {
    pub(super) const fn count_attempt(&mut self, state: HandshakeState) {
        let HandshakeState::ConnectionFailed(failure) = state else { return };
        let counter = match failure {
            HandshakeFailure::Timeout => &mut self.attempts_timed_out,
            HandshakeFailure::Authentication => &mut self.attempts_denied,
            HandshakeFailure::Other => &mut self.attempts_given_up,
        };
        *counter += 1;
    }

    /// Packets that were nothing of ours, damaged, forged, copied or out of place. A connection
    /// that is at work and in peace causes none.
    pub const fn unwanted(&self) -> u64 {
        self.malformed
            + self.unknown_id
            + self.rejected
            + self.copies
            + self.early_packets
            + self.late_handshake_packets
            + self.dropped_handshake_packets
            + self.resets_received
    }
}

impl ClientConfig {
    /// Checks every field; the error names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        if self.credential.len() > MAX_CREDENTIAL {
            return Err(ApiError::InvalidArgument {
                field: "credential",
                why: "must be at most 8192 bytes",
            });
        }
        self.connection.as_ref().map_or(Ok(()), ConnectionConfig::validate)
    }
}
