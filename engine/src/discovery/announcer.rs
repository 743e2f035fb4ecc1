//! The host's side: answers on every interface that leads to the listener.

use super::interfaces::{Interfaces, Local};
use super::ports::{Port, Ports, Problem, Purpose, Waker, Wanted};
use super::{DiscoveryError, seed};
use crate::engine::Listener;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::PeerId;
use trunkline_proto::rendezvous::presence::{
    Announcement, Arrival, Host, HostConfig, HostCounts, HostState, MAX_MESSAGE_LEN, PORT,
};
use trunkline_proto::time::Instant as ProtoInstant;

/// What to announce, and where.
#[derive(Clone, Debug)]
pub struct AnnouncerConfig {
    /// What is told to those who ask.
    pub announcement: Announcement,
    /// Addresses that the listeners are bound to: only over these is anything answered, so that
    /// whoever finds us can also connect. An unspecified address stands for all of its family.
    pub listen: Vec<IpAddr>,
    /// Whom to answer, and how often.
    pub host: HostConfig,
    /// On which interfaces.
    pub interfaces: Interfaces,
    /// UDP port on which questions are heard.
    pub port: u16,
}

impl AnnouncerConfig {
    /// Announces `announcement` for a listener at `listen`.
    pub fn new(announcement: Announcement, listen: IpAddr) -> Self {
        Self {
            announcement,
            listen: vec![listen],
            host: HostConfig::default(),
            interfaces: Interfaces::default(),
            port: PORT,
        }
    }

    /// For a listener of an engine, which proves to be `peer`.
    pub fn of_listener(
        name: impl Into<String>,
        service: impl Into<String>,
        peer: PeerId,
        listener: &Listener,
    ) -> Self {
        let address = listener.local_addr;
        Self::new(Announcement::new(name, service, peer, address.port()), address.ip())
    }
}

impl AnnouncerConfig {
    /// Whether the listener can be reached from this machine only.
    pub fn is_local_only(&self) -> bool {
        self.listen.iter().all(IpAddr::is_loopback)
    }
}

/// Lets itself be found. It answers while it is polled; dropping it says goodbye to those who
/// asked.
#[derive(Debug)]
pub struct Announcer {
    host: Host,
    ports: Ports,
    listen: Vec<IpAddr>,
    origin: Instant,
}

impl Announcer {
    /// Opens the sockets.
    ///
    /// # Errors
    /// Unusable settings, or no interface that can be used.
    pub fn start(config: AnnouncerConfig) -> Result<Self, DiscoveryError> {
        let origin = Instant::now();
        let AnnouncerConfig { announcement, listen, host, interfaces, port } = config;
        let mut announcer = Self {
            host: Host::new(host, announcement, seed()?, ProtoInstant::ZERO)?,
            ports: Ports::new(interfaces, port)?,
            listen,
            origin,
        };
        announcer.rescan()?;
        if announcer.ports.iter().next().is_none() {
            return Err(DiscoveryError::NoInterface(announcer.ports.problems().to_vec()));
        }
        Ok(announcer)
    }

    fn now(&self) -> ProtoInstant {
        ProtoInstant::ZERO + self.origin.elapsed().into()
    }

    /// Whether somebody has asked within the heartbeat.
    pub fn state(&self) -> HostState {
        self.host.state()
    }

    /// Clients that asked within the heartbeat.
    pub fn sessions(&self) -> usize {
        self.host.sessions()
    }

    /// What was done with what was received.
    pub const fn counts(&self) -> HostCounts {
        self.host.counts()
    }

    /// What goes wrong on single interfaces, now.
    pub fn problems(&self) -> &[Problem] {
        self.ports.problems()
    }

    /// The interfaces and addresses on which questions are heard.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let ports = self.ports.iter().filter(|(_, p)| p.purpose == Purpose::Answer);
        ports.map(|(_, p)| (p.local.name.as_str(), p.local.ip))
    }

    /// What is told to those who ask.
    pub const fn announcement(&self) -> &Announcement {
        self.host.announcement()
    }

    /// Tells something else from now on; clients learn of it with their next question.
    ///
    /// # Errors
    /// The field that is unusable; nothing changes then.
    pub fn announce(&mut self, announcement: Announcement) -> Result<(), ApiError> {
        self.host.announce(announcement)
    }

    /// Looks at the interfaces with the next [`poll`](Self::poll).
    pub fn network_changed(&mut self) {
        self.ports.rescan_now();
    }

    /// When [`poll`](Self::poll) has something to do, for applications that sleep by themselves.
    pub fn next_timeout(&self) -> Instant {
        let rescan = self.ports.rescan_at();
        self.host.next_timeout().map_or(rescan, |host| {
            let host: Duration = host.since(ProtoInstant::ZERO).into();
            rescan.min(self.origin + host)
        })
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

    /// Answers for `timeout`, or until the [`waker`](Self::waker) is used; with zero, whatever is
    /// waiting.
    ///
    /// # Errors
    /// The system's, about nothing that has to do with a single interface.
    pub fn poll(&mut self, timeout: Duration) -> Result<(), DiscoveryError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut wait = Duration::ZERO;
        loop {
            self.ports.wait(wait)?;
            self.turn()?;
            let now = Instant::now();
            if self.ports.take_woken() || deadline.is_some_and(|d| now >= d) {
                return Ok(());
            }
            let next = self.next_timeout();
            wait = deadline.map_or(next, |d| d.min(next)).saturating_duration_since(now);
        }
    }

    /// Ends the announcement: those who asked are told, and nothing is answered any more.
    pub fn withdraw(&mut self) {
        let now = self.now();
        self.host.withdraw(now);
        self.transmit();
    }

    fn turn(&mut self) -> Result<(), DiscoveryError> {
        let now = self.now();
        let Self { host, ports, .. } = self;
        let mut heard: Vec<(Arrival, Vec<u8>)> = Vec::new();
        ports.receive(|number, port, from, datagram| {
            let multicast = port.purpose == Purpose::Group;
            let arrival = Arrival { from, interface: number, multicast, on_link: false };
            heard.push((arrival, datagram.to_vec()));
        });
        for (mut arrival, datagram) in heard {
            let Some(port) = ports.get(arrival.interface) else { continue };
            arrival.on_link = on_link(ports, port, arrival.from.ip());
            if let Some(answers) = answering(ports, port, arrival.from.ip()) {
                arrival.interface = answers;
                host.receive(now, arrival, &datagram);
            }
        }
        host.handle_timeout(now);
        if Instant::now() >= ports.rescan_at() {
            self.rescan()?;
        }
        self.transmit();
        Ok(())
    }

    fn transmit(&mut self) {
        let mut buf = [0; MAX_MESSAGE_LEN];
        while let Some(answer) = self.host.poll_transmit(self.now(), &mut buf) {
            self.ports.send(answer.interface, answer.to, &buf[..answer.len]);
        }
    }

    fn rescan(&mut self) -> Result<bool, DiscoveryError> {
        let listen = &self.listen;
        self.ports.rescan(|locals| hearers(locals, listen))
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Whether the sender belongs to a network of the interface.
fn on_link(ports: &Ports, port: &Port, from: IpAddr) -> bool {
    let same = |p: &Port| p.local.index == port.local.index;
    ports.iter().any(|(_, p)| same(p) && p.local.covers(from.to_canonical()))
}

/// The socket that answers what arrived at this one: itself, or the one of the same interface that
/// has an address of the sender's kind.
fn answering(ports: &Ports, port: &Port, from: IpAddr) -> Option<u32> {
    let link_local = matches!(from, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let fits = |p: &Port| {
        p.purpose == Purpose::Answer
            && p.local.index == port.local.index
            && p.local.ip.is_ipv4() == port.local.ip.is_ipv4()
            && (port.purpose == Purpose::Group || p.local.ip == port.local.ip)
    };
    let score = |p: &Port| (p.local.is_link_local() == link_local, p.local.covers(from));
    let all = ports.iter().filter(|(_, p)| fits(p));
    all.max_by_key(|(number, p)| (score(p), u32::MAX - number)).map(|(number, _)| number)
}

/// One socket for each address that leads to the listener, and one for the group on each interface
/// and family.
fn hearers(locals: &[Local], listen: &[IpAddr]) -> Vec<Wanted> {
    let leads = |l: &Local| {
        listen.iter().any(|a| *a == l.ip || a.is_unspecified() && a.is_ipv4() == l.ip.is_ipv4())
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    for local in locals.iter().filter(|l| leads(l)) {
        let first =
            |w: &Wanted| w.local.index == local.index && w.local.ip.is_ipv4() == local.ip.is_ipv4();
        let known = wanted.iter().any(|w| w.purpose == Purpose::Group && first(w));
        if !known {
            wanted.push(Wanted { purpose: Purpose::Group, local: local.clone() });
        }
        wanted.push(Wanted { purpose: Purpose::Answer, local: local.clone() });
    }
    wanted
}
