//! Answers to STUN requests, at the listeners that give them: packets that belong to no connection,
//! and go out beside those of the endpoint.

use super::sockets::Sockets;
use crate::io::{Driver, TxMeta};
use crate::stats::ShardCounters;
use std::net::{IpAddr, SocketAddr};
use trunkline_proto::endpoint::RxMeta;
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

/// A shard's part of a STUN server.
pub(crate) struct Stun {
    server: StunServer,
    waiting: Vec<Answer>,
}

impl Stun {
    pub(crate) fn new(config: StunConfig, now: Instant) -> Self {
        Self { server: StunServer::new(config, now), waiting: Vec::new() }
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

    /// Hands answers to the driver. Those that find no buffer are gone: who asked asks again.
    pub(crate) fn transmit<D: Driver>(
        &mut self,
        driver: &mut D,
        sockets: &Sockets,
        counters: &ShardCounters,
    ) {
        for answer in self.waiting.drain(..) {
            let Some(socket) = sockets.to_driver(answer.socket) else { continue };
            let Some(mut buf) = driver.lend() else {
                counters.stun_dropped.add(1);
                continue;
            };
            let len = usize::from(answer.len);
            driver.bytes(&mut buf)[..len].copy_from_slice(&answer.bytes[..len]);
            let Answer { remote, local, .. } = answer;
            driver.send(
                buf,
                TxMeta { socket, remote, local, len, segment: len, ecn: 0, probe: false },
            );
            counters.stun_answered.add(1);
            counters.datagrams_sent.add(1);
            counters.bytes_sent.add(len as u64);
        }
    }
}
