//! STUN packets, which belong to no connection and go out beside those of the endpoint: answers to
//! requests at the listeners that give them, and what handlers exchange with others at client
//! sockets to find routes.

use super::Shard;
use super::sockets::Sockets;
use crate::handler::Handler;
use crate::io::{Driver, TxMeta};
use crate::stats::ShardCounters;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use trunkline_proto::endpoint::RxMeta;
use trunkline_proto::limits::MAX_RELAY_PACKET;
use trunkline_proto::rendezvous::stun::{MAX_ANSWER, StunConfig, StunServer};
use trunkline_proto::time::Instant;

/// Answers that wait for the end of a turn; more are not made.
const WAITING: usize = 256;

struct Answer {
    socket: u16,
    remote: SocketAddr,
    local: Option<IpAddr>,
    len: u8,
    bytes: [u8; MAX_ANSWER],
}

/// A STUN packet of or for a client socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunPacket {
    /// Number of the socket within the shard.
    pub socket: u16,
    /// The local address, where it is known.
    pub local: Option<IpAddr>,
    /// The other end.
    pub remote: SocketAddr,
    /// The packet; its first byte is 0 to 3.
    pub packet: Box<[u8]>,
}

/// A shard's STUN packets.
pub(crate) struct Stun {
    server: StunServer,
    waiting: Vec<Answer>,
    heard: VecDeque<StunPacket>,
    said: VecDeque<StunPacket>,
}

impl Stun {
    pub(crate) fn new(config: StunConfig, now: Instant) -> Self {
        let server = StunServer::new(config, now);
        let (heard, said) = (VecDeque::new(), VecDeque::new());
        Self { server, waiting: Vec::new(), heard, said }
    }

    /// A datagram that may be a request.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        meta: &RxMeta,
        datagram: &[u8],
        counters: &ShardCounters,
    ) {
        let mut bytes = [0; MAX_ANSWER];
        if self.waiting.len() < WAITING
            && let Ok(len) = self.server.receive(now, datagram, meta.remote, &mut bytes)
        {
            let RxMeta { socket, remote, local, .. } = *meta;
            self.waiting.push(Answer { socket, remote, local, len: len as u8, bytes });
        } else {
            counters.stun_dropped.add(1);
        }
    }

    /// A packet that came to a client socket, for the handler.
    pub(crate) fn hear(&mut self, meta: &RxMeta, packet: &[u8]) {
        if self.heard.len() < WAITING && packet.len() <= MAX_RELAY_PACKET {
            let RxMeta { socket, remote, local, .. } = *meta;
            self.heard.push_back(StunPacket { socket, local, remote, packet: packet.into() });
        }
    }

    pub(crate) fn take_heard(&mut self) -> VecDeque<StunPacket> {
        std::mem::take(&mut self.heard)
    }

    /// A packet of the handler.
    pub(crate) fn say(&mut self, packet: StunPacket) {
        if self.said.len() < WAITING && packet.packet.len() <= MAX_RELAY_PACKET {
            self.said.push_back(packet);
        }
    }

    /// Hands answers and what the handler says to the driver. Those that find no buffer are gone:
    /// who asked asks again.
    pub(crate) fn transmit<D: Driver>(
        &mut self,
        driver: &mut D,
        sockets: &Sockets,
        counters: &ShardCounters,
    ) {
        let mut send = |socket, remote, local, bytes: &[u8], answer: bool| {
            let Some(socket) = sockets.to_driver(socket) else { return };
            let Some(mut buf) = driver.lend() else {
                if answer {
                    counters.stun_dropped.add(1);
                }
                return;
            };
            let len = bytes.len();
            driver.bytes(&mut buf)[..len].copy_from_slice(bytes);
            let probe = false;
            driver.send(buf, TxMeta { socket, remote, local, len, segment: len, ecn: 0, probe });
            if answer {
                counters.stun_answered.add(1);
            }
            counters.datagrams_sent.add(1);
            counters.bytes_sent.add(len as u64);
        };
        for a in self.waiting.drain(..) {
            send(a.socket, a.remote, a.local, &a.bytes[..usize::from(a.len)], true);
        }
        for p in self.said.drain(..) {
            send(p.socket, p.remote, p.local, &p.packet, false);
        }
    }
}

impl<H: Handler, D: Driver> Shard<H, D> {
    /// STUN packets that came to client sockets.
    pub(super) fn hear_stun(&mut self) -> u64 {
        let mut heard = self.core.stun.take_heard();
        let count = heard.len() as u64;
        if count > 0 {
            self.handler.call_each(&mut self.core, || heard.pop_front(), H::on_stun);
        }
        count
    }
}
