//! A network address translator between nodes and the rest of the network (RFC 4787).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use trunkline_proto::time::{Duration, Instant};

/// Which outside port an inside address gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// One for all it talks to.
    Independent,
    /// One for each address and port that it talks to: a "symmetric" NAT.
    PerRemote,
}

/// From where packets are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// From everywhere, once there is a mapping.
    Open,
    /// From addresses to which something was sent.
    Address,
    /// From addresses and ports to which something was sent.
    AddressAndPort,
}

#[derive(Clone, Debug)]
struct Binding {
    inside: SocketAddr,
    /// With [`Mapping::PerRemote`]: whom it is for.
    remote: Option<SocketAddr>,
    port: u16,
    /// Where packets went, and when the last one did.
    sent: BTreeMap<SocketAddr, Instant>,
}

/// One translator with one outside address.
#[derive(Clone, Debug)]
pub struct Nat {
    pub ip: IpAddr,
    pub mapping: Mapping,
    pub filter: Filter,
    /// How long it remembers what nothing is sent on. Only what goes out counts.
    pub timeout: Duration,
    next_port: u16,
    bindings: Vec<Binding>,
    /// Packets from outside that were not let in.
    pub refused: u64,
}

impl Nat {
    pub fn new(ip: [u8; 4], mapping: Mapping, filter: Filter) -> Self {
        Self {
            ip: ip.into(),
            mapping,
            filter,
            timeout: Duration::from_secs(120),
            next_port: 40_000 + u16::from(ip[3]) * 7,
            bindings: Vec::new(),
            refused: 0,
        }
    }

    /// Port-restricted cone: the usual home router.
    pub fn cone(ip: [u8; 4]) -> Self {
        Self::new(ip, Mapping::Independent, Filter::AddressAndPort)
    }

    /// Symmetric: a port of its own for every remote, and let in from there only.
    pub fn symmetric(ip: [u8; 4]) -> Self {
        Self::new(ip, Mapping::PerRemote, Filter::AddressAndPort)
    }

    /// Loses all it knows, as when it is restarted; ports are new ones afterwards.
    pub fn forget(&mut self) {
        self.bindings.clear();
        self.next_port += 100;
    }

    /// A packet goes out; says where it seems to come from.
    pub fn outbound(&mut self, now: Instant, inside: SocketAddr, to: SocketAddr) -> SocketAddr {
        let timeout = self.timeout;
        for binding in &mut self.bindings {
            binding.sent.retain(|_, at| now.since(*at) < timeout);
        }
        self.bindings.retain(|b| !b.sent.is_empty());
        let remote = (self.mapping == Mapping::PerRemote).then_some(to);
        let known = self.bindings.iter().position(|b| b.inside == inside && b.remote == remote);
        let at = known.unwrap_or_else(|| {
            self.next_port += 1;
            let port = self.next_port;
            self.bindings.push(Binding { inside, remote, port, sent: BTreeMap::new() });
            self.bindings.len() - 1
        });
        self.bindings[at].sent.insert(to, now);
        SocketAddr::new(self.ip, self.bindings[at].port)
    }

    /// Who is behind a port, whoever asks.
    pub fn behind(&self, port: u16) -> Option<SocketAddr> {
        self.bindings.iter().find(|b| b.port == port).map(|b| b.inside)
    }

    /// A packet comes in; says for whom it is, if it is let in.
    pub fn inbound(&mut self, now: Instant, port: u16, from: SocketAddr) -> Option<SocketAddr> {
        let (timeout, filter) = (self.timeout, self.filter);
        let lets_in = |b: &Binding| {
            let alive = |at: &Instant| now.since(*at) < timeout;
            match filter {
                Filter::Open => b.sent.values().any(alive),
                Filter::Address => b.sent.iter().any(|(to, at)| to.ip() == from.ip() && alive(at)),
                Filter::AddressAndPort => b.sent.get(&from).is_some_and(alive),
            }
        };
        let found = self.bindings.iter().find(|b| b.port == port && lets_in(b)).map(|b| b.inside);
        self.refused += u64::from(found.is_none());
        found
    }
}
