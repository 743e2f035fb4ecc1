//! Packets by way of an event source. To the endpoint that is a path like any other: the socket
//! [`RELAY_SOCKET`], and for each peer an address out of the discard prefix 100::/64 (RFC 6666),
//! which never occurs on a network. Here is what these addresses stand for.

use super::Shard;
use super::context::Source;
use crate::handle::Channel;
use crate::handler::Handler;
use crate::io::Driver;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use trunkline_proto::endpoint::{Ecn, RxMeta};
use trunkline_proto::limits::{MAX_RELAY_PACKET, RELAY_SOCKET};
use trunkline_proto::rendezvous::{ClientId, relay};

/// Peers that are remembered after they were left.
const RETIRED: usize = 64;
/// Packets that wait for the endpoint; more are dropped.
const WAITING: usize = 1024;
/// The port of all these addresses.
const PORT: u16 = 1;

struct Peer {
    client: ClientId,
    /// The channel to the event source, while there is one.
    channel: Option<Channel>,
}

/// The peers of one shard that are reached over relays.
#[derive(Default)]
pub(crate) struct Relays {
    peers: HashMap<u64, Peer>,
    last: u64,
    /// Those that ends of connections still go to, the oldest first.
    retired: VecDeque<u64>,
    arrived: VecDeque<(SocketAddr, Box<[u8]>)>,
    scratch: Vec<u8>,
}

fn address(number: u64) -> SocketAddr {
    let prefix = 0x0100_u128 << 112;
    (IpAddr::V6(Ipv6Addr::from_bits(prefix | u128::from(number))), PORT).into()
}

fn number(addr: SocketAddr) -> Option<u64> {
    match addr.ip() {
        IpAddr::V6(v6) if v6.segments()[..4] == [0x100, 0, 0, 0] => Some(v6.to_bits() as u64),
        _ => None,
    }
}

impl Relays {
    /// An address that stands for a client.
    pub(crate) fn add(&mut self, client: ClientId) -> SocketAddr {
        self.last += 1;
        self.peers.insert(self.last, Peer { client, channel: None });
        address(self.last)
    }

    /// The channel through which it is reached from now on.
    pub(crate) fn attach(&mut self, addr: SocketAddr, channel: Option<Channel>) {
        if let Some(peer) = number(addr).and_then(|n| self.peers.get_mut(&n)) {
            peer.channel = channel;
        }
    }

    /// Nothing but the end of its connection goes there any more; one day it stands for nobody.
    pub(crate) fn retire(&mut self, addr: SocketAddr) {
        self.retired.extend(number(addr));
        if self.retired.len() > RETIRED
            && let Some(oldest) = self.retired.pop_front()
        {
            self.peers.remove(&oldest);
        }
    }

    /// The message that carries a packet to whom `to` stands for, and the channel it goes to.
    pub(crate) fn wrap(&mut self, to: SocketAddr, packet: &[u8]) -> Option<(Channel, &[u8])> {
        let peer = self.peers.get(&number(to)?)?;
        let channel = peer.channel.filter(|_| packet.len() <= MAX_RELAY_PACKET)?;
        self.scratch.clear();
        relay::encode(&mut self.scratch, peer.client.as_str(), packet);
        Some((channel, &self.scratch))
    }

    /// A packet from whom `from` stands for.
    pub(crate) fn arrive(&mut self, from: SocketAddr, packet: Box<[u8]>) {
        if self.arrived.len() < WAITING {
            self.arrived.push_back((from, packet));
        }
    }

    /// The next packet for the endpoint.
    pub(crate) fn next(&mut self) -> Option<(RxMeta, Box<[u8]>)> {
        let (remote, packet) = self.arrived.pop_front()?;
        Some((RxMeta { socket: RELAY_SOCKET, remote, local: None, ecn: Ecn::NotEct }, packet))
    }
}

impl<H: Handler, D: Driver> Shard<H, D> {
    /// Packets that came by way of an event source, which the handler has just handed over.
    pub(super) fn take_relayed(&mut self) -> u64 {
        let mut happened = 0;
        while let Some((meta, mut packet)) = self.core.relays.next() {
            let core = &mut self.core;
            core.hear(&mut packet, meta.socket, |endpoint, now, packet, sink| {
                endpoint.receive(now, &meta, packet, sink)
            });
            happened += self.handler.deliver(core, &packet, Source::NONE);
        }
        happened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Conn;
    use trunkline_proto::ids::{ChannelKey, ConnHandle};

    #[test]
    fn an_address_stands_for_one_client_and_is_never_given_again() {
        let mut relays = Relays::default();
        let (bob, carol) = (ClientId::new("bob").unwrap(), ClientId::new("carol").unwrap());
        let (b, c) = (relays.add(bob), relays.add(carol.clone()));
        assert_eq!(b.to_string(), "[100::1]:1");
        assert_ne!(b, c);
        assert!(relays.wrap(b, b"x").is_none(), "there is no channel");
        let conn = Conn::new(0, ConnHandle { slot: 1, generation: 1 });
        let channel = Channel::new(conn, ChannelKey { slot: 1, life: 1 });
        relays.attach(b, Some(channel));
        assert_eq!(relays.wrap(b, b"packet"), Some((channel, &b"\x03bobpacket"[..])));
        assert!(relays.wrap(c, b"x").is_none());
        assert!(relays.wrap("[2001:db8::1]:1".parse().unwrap(), b"x").is_none());
        assert!(relays.wrap(b, &[0; MAX_RELAY_PACKET + 1]).is_none());
        relays.retire(b);
        assert!(relays.wrap(b, b"its end").is_some());
        for _ in 0..RETIRED {
            let next = relays.add(carol.clone());
            assert_ne!(next, b);
            relays.retire(next);
        }
        assert!(relays.wrap(b, b"packet").is_none());
        assert_eq!(relays.peers.len(), RETIRED + 1, "carol, and those that were left");
    }

    #[test]
    fn what_arrives_is_bounded() {
        let mut relays = Relays::default();
        let bob = relays.add(ClientId::new("bob").unwrap());
        for n in 0..2 * WAITING {
            relays.arrive(bob, vec![n as u8].into());
        }
        let mut count = 0;
        while let Some((meta, _)) = relays.next() {
            assert_eq!((meta.socket, meta.remote), (RELAY_SOCKET, bob));
            count += 1;
        }
        assert_eq!(count, WAITING);
    }
}
