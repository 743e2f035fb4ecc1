//! The client's side: asks on every interface and keeps what was found.

use super::interfaces::{Interfaces, Local};
use super::ports::{Ports, Problem, Purpose, Waker, Wanted, anywhere};
use super::{DiscoveryError, seed};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use trunkline_proto::rendezvous::presence::{
    Client, ClientConfig, ClientCounts, ClientEvent, ClientState, Destination, Device,
    MAX_MESSAGE_LEN, PORT,
};
use trunkline_proto::time::Instant as ProtoInstant;

/// Whom to look for, and where.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// Service, id, single hosts to ask, intervals.
    pub client: ClientConfig,
    /// On which interfaces the group is asked.
    pub interfaces: Interfaces,
    /// UDP port of the hosts.
    pub port: u16,
}

impl Default for DiscoveryConfig {
    /// All devices of all services on all interfaces.
    fn default() -> Self {
        Self { client: ClientConfig::default(), interfaces: Interfaces::default(), port: PORT }
    }
}

impl DiscoveryConfig {
    /// Devices of one service.
    pub fn for_service(service: impl Into<String>) -> Self {
        let client = ClientConfig { service: service.into(), ..ClientConfig::default() };
        Self { client, ..Self::default() }
    }
}

/// Finds devices. It asks while it is polled: between two polls of more than a heartbeat all
/// devices are lost.
#[derive(Debug)]
pub struct Discovery {
    client: Client,
    ports: Ports,
    group: bool,
    v4_hosts: bool,
    v6_hosts: bool,
    origin: Instant,
    events: Vec<ClientEvent>,
}

impl Discovery {
    /// Opens the sockets. The first question leaves with the first [`poll`](Self::poll).
    ///
    /// # Errors
    /// Unusable settings, or no interface that can be used.
    pub fn start(config: DiscoveryConfig) -> Result<Self, DiscoveryError> {
        let origin = Instant::now();
        let DiscoveryConfig { client, interfaces, port } = config;
        let group = client.group;
        let is_v4 = |t: &SocketAddr| t.ip().to_canonical().is_ipv4();
        let v4_hosts = client.targets.iter().any(is_v4);
        let v6_hosts = !client.targets.iter().all(is_v4);
        let mut discovery = Self {
            client: Client::new(client, seed()?, ProtoInstant::ZERO)?,
            ports: Ports::new(interfaces, port)?,
            group,
            v4_hosts,
            v6_hosts,
            origin,
            events: Vec::new(),
        };
        discovery.rescan()?;
        if discovery.ports.iter().next().is_none() {
            return Err(DiscoveryError::NoInterface(discovery.ports.problems().to_vec()));
        }
        Ok(discovery)
    }

    /// The time as the devices' [`found`](Device::found) and [`heard`](Device::heard) count it.
    pub fn now(&self) -> ProtoInstant {
        ProtoInstant::ZERO + self.origin.elapsed().into()
    }

    /// The devices that are there, in the order of their keys.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.client.devices()
    }

    /// Ready while a device is there.
    pub fn state(&self) -> ClientState {
        self.client.state()
    }

    /// Of the session that is sought at a destination.
    pub fn session(&self, to: Destination) -> Option<ClientState> {
        self.client.session(to)
    }

    /// What was done with what was received.
    pub const fn counts(&self) -> ClientCounts {
        self.client.counts()
    }

    /// What goes wrong on single interfaces, now.
    pub fn problems(&self) -> &[Problem] {
        self.ports.problems()
    }

    /// Looks at the interfaces and asks as at the beginning. Not needed, but faster than waiting
    /// when the application is told that the network has changed.
    pub fn network_changed(&mut self) {
        self.ports.rescan_now();
        self.client.ask_now(self.now());
    }

    /// When [`poll`](Self::poll) has something to do, for applications that sleep by themselves.
    pub fn next_timeout(&self) -> Instant {
        let client: Duration = self.client.next_timeout().since(ProtoInstant::ZERO).into();
        (self.origin + client).min(self.ports.rescan_at())
    }

    /// Becomes readable when a datagram has arrived: for `poll`, `epoll` and the like.
    #[cfg(unix)]
    pub fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.ports.as_raw_fd()
    }

    /// For another thread that wants to end a wait here.
    pub fn waker(&self) -> Waker {
        self.ports.waker()
    }

    /// Asks, hears, forgets. Comes back as soon as there is something to tell or the
    /// [`waker`](Self::waker) was used, after `timeout` at the latest, and at once with a timeout
    /// of zero.
    ///
    /// # Errors
    /// The system's, about nothing that has to do with a single interface.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<ClientEvent>, DiscoveryError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut wait = Duration::ZERO;
        loop {
            self.ports.wait(wait)?;
            self.turn()?;
            let now = Instant::now();
            let woken = self.ports.take_woken();
            if woken || !self.events.is_empty() || deadline.is_some_and(|d| now >= d) {
                return Ok(std::mem::take(&mut self.events));
            }
            let next = self.next_timeout();
            wait = deadline.map_or(next, |d| d.min(next)).saturating_duration_since(now);
        }
    }

    /// Polls for `duration`, whoever uses the waker, and gives all devices that are there then.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn find(&mut self, duration: Duration) -> Result<Vec<Device>, DiscoveryError> {
        let deadline = Instant::now() + duration;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.poll(left)?;
            if left.is_zero() {
                return Ok(self.devices().cloned().collect());
            }
        }
    }

    fn turn(&mut self) -> Result<(), DiscoveryError> {
        let Self { client, ports, events, origin, .. } = self;
        let now = ProtoInstant::ZERO + origin.elapsed().into();
        ports.receive(|_, _, from, datagram| {
            events.extend(client.receive(now, from, datagram));
        });
        client.handle_timeout(now, |event| events.push(event));
        if Instant::now() >= ports.rescan_at() && self.rescan()? {
            self.client.ask_now(now);
        }
        let mut buf = [0; MAX_MESSAGE_LEN];
        while let Some(question) = self.client.poll_transmit(self.now(), &mut buf) {
            self.send(question.to, &buf[..question.len]);
        }
        Ok(())
    }

    fn send(&mut self, to: Destination, question: &[u8]) {
        let fits = |purpose, local: &Local| match to {
            Destination::Group => purpose == Purpose::Ask,
            Destination::Host(host) => {
                purpose == Purpose::AskHosts
                    && local.ip.is_ipv4() == host.ip().to_canonical().is_ipv4()
            }
        };
        let through: Vec<u32> = self
            .ports
            .iter()
            .filter(|(_, p)| fits(p.purpose, &p.local))
            .map(|(number, _)| number)
            .collect();
        for number in through {
            match to {
                Destination::Group => self.ports.send_to_group(number, question),
                Destination::Host(host) => {
                    let host = match host.ip().to_canonical() {
                        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, host.port()),
                        IpAddr::V6(_) => host,
                    };
                    self.ports.send(number, host, question);
                }
            }
        }
    }

    fn rescan(&mut self) -> Result<bool, DiscoveryError> {
        let (group, v4, v6) = (self.group, self.v4_hosts, self.v6_hosts);
        self.ports.rescan(|locals| {
            let mut wanted = if group { askers(locals) } else { Vec::new() };
            for (wish, v4) in [(v4, true), (v6, false)] {
                if wish {
                    let local = anywhere(v4);
                    wanted.push(Wanted { purpose: Purpose::AskHosts, local });
                }
            }
            wanted
        })
    }
}

/// One socket for each IPv4 address; for IPv6 one for each interface, with its link-local address
/// if there is one.
fn askers(locals: &[Local]) -> Vec<Wanted> {
    let better = |a: &Local| {
        a.ip.is_ipv4()
            || a.is_link_local()
            || !locals
                .iter()
                .any(|b| b.index == a.index && b.ip.is_ipv6() && (b.is_link_local() || b.ip < a.ip))
    };
    let chosen = locals.iter().filter(|l| better(l)).cloned();
    chosen.map(|local| Wanted { purpose: Purpose::Ask, local }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::interfaces::local;
    use super::*;

    #[test]
    fn who_asks() {
        let all = [
            local("lo", 1, "127.0.0.1", 8),
            local("lo", 1, "::1", 128),
            local("eth0", 2, "10.0.0.1", 24),
            local("eth0", 2, "10.0.1.1", 24),
            local("eth0", 2, "2001:db8::2", 64),
            local("eth0", 2, "fe80::2", 64),
            local("wg0", 3, "fd00::3", 64),
            local("wg0", 3, "fd00::4", 64),
        ];
        let who: Vec<String> = askers(&all).iter().map(|w| w.local.ip.to_string()).collect();
        assert_eq!(who, ["127.0.0.1", "::1", "10.0.0.1", "10.0.1.1", "fe80::2", "fd00::3"]);
    }
}
