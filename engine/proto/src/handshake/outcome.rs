//! What goes into a handshake and what comes out of it.

use crate::crypto::DataKeys;
use crate::error::CloseReason;
use crate::ids::{ConnectionId, PeerId};
use crate::limits::MIN_PACKET;
use crate::time::Duration;
use crate::wire::packet::DropReason;
use crate::wire::params::TransportParams;
use core::fmt;
use rustls_pki_types::CertificateDer;

/// Settings of a handshake.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeConfig {
    /// First retransmission of a flight; doubles. 250 ms.
    pub retransmit: Duration,
    /// Largest datagram written, in bytes; at least 1200.
    pub max_packet: usize,
}

impl Default for HandshakeConfig {
    fn default() -> Self {
        Self { retransmit: Duration::from_millis(250), max_packet: MIN_PACKET }
    }
}

/// Why a packet was dropped. Nothing but counters changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dropped {
    /// The header makes no sense or has another version.
    Header(DropReason),
    /// Its connection ids belong to nobody here.
    ForeignId,
    /// This role or state never takes this message.
    Unexpected,
    /// Its keys are gone or do not exist yet and it could not be kept.
    NoKeys,
    /// It was not sealed by the peer, or was damaged.
    Forged,
    /// It came before.
    Duplicate,
    /// Frames of an Initial packet that make no sense.
    Frames,
    /// Its data lies too far ahead to be kept; it will come again.
    TooFar,
    /// A Retry that may not be followed or has a wrong integrity tag.
    Retry,
    /// The handshake is over.
    Over,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It was taken.
    Ok,
    /// It was dropped.
    Dropped(Dropped),
    /// The peer ended the attempt.
    Closed(CloseReason),
    /// The attempt failed on our side; [`Handshake::poll_transmit`](super::Handshake::poll_transmit) tells the peer.
    Failed(CloseReason),
}

/// Counts of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeCounters {
    /// Packets dropped for any reason.
    pub dropped: u64,
    /// Of these, packets that could not be opened.
    pub forged: u64,
    /// Of these, packets that came before.
    pub duplicates: u64,
    /// Packets that arrived before their keys and were kept.
    pub held: u64,
    /// Flights sent again because the timer ran out.
    pub timeouts: u64,
    /// Client: attempts started again with a fresh ClientHello.
    pub restarts: u64,
    /// Client: Retry packets followed.
    pub retries: u64,
    /// Datagrams written.
    pub datagrams_sent: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Bytes counted by [`Handshake::on_datagram_bytes`](super::Handshake::on_datagram_bytes).
    pub bytes_received: u64,
}

/// What a finished handshake gives.
pub struct Established {
    /// Keys of data packets.
    pub keys: DataKeys,
    /// The peer's transport parameters, checked.
    pub peer_params: TransportParams,
    /// The peer's identity; `None` when it presented no certificate.
    pub peer: Option<PeerId>,
    /// The certificates that the peer presented, now or in the session that was resumed.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// Name of the TLS cipher suite.
    pub suite: &'static str,
    /// The name that the client asked for; a client's own, or what the host was told.
    pub server_name: Option<String>,
    /// 32 bytes that only the two sides know (label `EXPORTER-trunkline`, no context).
    pub exporter: [u8; 32],
    /// The session was resumed from a ticket.
    pub resumed: bool,
    /// A measured round trip, if one was.
    pub rtt: Option<Duration>,
    /// The id to send data packets to.
    pub peer_id: ConnectionId,
    /// Host: TLS bytes (session tickets) to send as CRYPTO in data packets, from offset 0.
    pub tickets: Vec<u8>,
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established")
            .field("peer", &self.peer)
            .field("suite", &self.suite)
            .field("resumed", &self.resumed)
            .field("peer_id", &self.peer_id)
            .finish_non_exhaustive()
    }
}
