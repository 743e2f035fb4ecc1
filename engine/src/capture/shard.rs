//! What one shard puts into the capture.
//!
//! A packet in the clear is a PDU for the dissector `trunkline_clear` (docs/wireshark.md):
//!
//! ```text
//! version u8 = 1 | sent u8 | shard u8 | 0 u8 | connection u64 | packet number u64 |
//! header length u16 | header | frames
//! ```
//! Bytes of a stream link are put behind IP and TCP headers that are made up: the analyser's own TLS
//! opens them with the secrets in the same file.

use super::Capture;
use super::pcapng::{CLEAR, SEGMENTS, pdu_tags, segment_headers};
use crate::io::StreamId;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trunkline_proto::endpoint::{RxMeta, Transmit};
use trunkline_proto::observe::{ClearPacket, Observer};

/// Bytes of a stream in one segment.
const SEGMENT: usize = 32 << 10;
/// Client ports that are made up begin here; the system's own is not known to a shard.
const FIRST_PORT: u16 = 0xC000;

/// A stream of this shard.
#[derive(Debug)]
struct Stream {
    id: StreamId,
    local: SocketAddr,
    remote: SocketAddr,
    /// Bytes sent and received, plus one, as TCP counts them.
    sent: u32,
    received: u32,
}

#[derive(Debug, Default)]
struct State {
    /// Local addresses of the sockets for datagrams, by number.
    sockets: HashMap<u16, SocketAddr>,
    /// Where the datagram at hand came from.
    came: Option<(SocketAddr, SocketAddr)>,
    /// Packets that were written and whose way is not told yet.
    sealed: Vec<Vec<u8>>,
    /// By the driver's place, which has one stream at a time.
    streams: HashMap<u32, Stream>,
    ports: u16,
}

impl State {
    fn local(&self, socket: u16, ip: Option<IpAddr>) -> SocketAddr {
        let known = self.sockets.get(&socket).copied();
        let known = known.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
        SocketAddr::new(ip.unwrap_or(known.ip()), known.port())
    }
}

/// See the module. Used by the shard's thread only; the lock is there for the compiler, and never
/// waited for.
#[derive(Debug)]
pub(crate) struct ShardCapture {
    capture: Arc<Capture>,
    shard: u8,
    state: Mutex<State>,
}

impl ShardCapture {
    pub(crate) fn new(capture: Arc<Capture>, shard: u8) -> Self {
        Self { capture, shard, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard has a socket for datagrams.
    pub(crate) fn socket(&self, number: u16, local: SocketAddr) {
        self.state().sockets.insert(number, local);
    }

    /// A stream stands. Without `listener` it is a client's.
    fn stream_begun(
        &self,
        id: StreamId,
        listener: Option<SocketAddr>,
        ip: Option<IpAddr>,
        remote: SocketAddr,
    ) {
        let mut state = self.state();
        let local = if let Some(listener) = listener {
            SocketAddr::new(ip.unwrap_or(listener.ip()), listener.port())
        } else {
            // Another port for each, so that an analyser tells them apart.
            let port = FIRST_PORT | (u16::from(self.shard) << 8 & 0x3F00) ^ state.ports & 0x3FFF;
            state.ports = state.ports.wrapping_add(1);
            let ip = ip.unwrap_or(if remote.ip().to_canonical().is_loopback() {
                remote.ip()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            });
            SocketAddr::new(ip, port)
        };
        state.streams.insert(id.index, Stream { id, local, remote, sent: 1, received: 1 });
    }

    /// Bytes of a stream, in order.
    fn stream_bytes(&self, id: StreamId, sent: bool, bytes: &[u8]) {
        let mut state = self.state();
        let known = state.streams.get_mut(&id.index).filter(|s| s.id == id);
        let Some(stream) = known else { return };
        for piece in bytes.chunks(SEGMENT) {
            let (ours, theirs) = (stream.sent, stream.received);
            let headers = if sent {
                segment_headers(stream.local, stream.remote, ours, theirs, piece.len())
            } else {
                segment_headers(stream.remote, stream.local, theirs, ours, piece.len())
            };
            self.capture.packet(SEGMENTS, sent, &[&headers, piece]);
            let counted = if sent { &mut stream.sent } else { &mut stream.received };
            *counted = counted.wrapping_add(piece.len() as u32);
        }
    }

    /// The PDU of a packet.
    fn pdu(&self, packet: &ClearPacket<'_>, sent: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(22 + packet.header.len() + packet.payload.len());
        out.extend_from_slice(&[1, u8::from(sent), self.shard, 0]);
        out.extend_from_slice(&packet.conn.slot.to_be_bytes());
        out.extend_from_slice(&packet.conn.generation.to_be_bytes());
        out.extend_from_slice(&packet.number.to_be_bytes());
        out.extend_from_slice(&(packet.header.len() as u16).to_be_bytes());
        out.extend_from_slice(packet.header);
        out.extend_from_slice(packet.payload);
        out
    }
}

/// The streams of a shard, as far as there is a capture.
#[derive(Debug, Default)]
pub(crate) struct StreamTap(pub Option<Arc<ShardCapture>>);

impl StreamTap {
    /// See [`ShardCapture::stream_begun`].
    pub(crate) fn begun(
        &self,
        id: StreamId,
        listener: Option<SocketAddr>,
        ip: Option<IpAddr>,
        remote: SocketAddr,
    ) {
        if let Some(capture) = &self.0 {
            capture.stream_begun(id, listener, ip, remote);
        }
    }

    /// A copy of received bytes, which are opened in place; empty without a capture.
    pub(crate) fn copy(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.as_ref().map_or_else(Vec::new, |_| bytes.to_vec())
    }

    /// Bytes of a stream, in order.
    pub(crate) fn bytes(&self, id: StreamId, sent: bool, bytes: &[u8]) {
        if let Some(capture) = &self.0 {
            capture.stream_bytes(id, sent, bytes);
        }
    }
}

impl Observer for ShardCapture {
    fn receiving(&self, meta: &RxMeta) {
        let mut state = self.state();
        state.came = Some((meta.remote, state.local(meta.socket, meta.local)));
    }

    fn opened(&self, packet: &ClearPacket<'_>) {
        let Some((source, destination)) = self.state().came else { return };
        let pdu = self.pdu(packet, false);
        self.capture.packet(CLEAR, false, &[&pdu_tags(source, destination), &pdu]);
    }

    fn sealed(&self, packet: &ClearPacket<'_>) {
        let pdu = self.pdu(packet, true);
        self.state().sealed.push(pdu);
    }

    fn sent(&self, transmit: &Transmit) {
        let mut state = self.state();
        let local = state.local(transmit.socket, transmit.local);
        let tags = pdu_tags(local, transmit.remote);
        for pdu in state.sealed.drain(..) {
            self.capture.packet(CLEAR, true, &[&tags, &pdu]);
        }
    }
}
