//! One node of a world: an endpoint, its address, its application and what that does by itself.

use super::alloc;
use super::app::{App, Conn, Event, order};
use super::flow::{Flow, Pump, Pumped};
use super::pattern;
use super::rng::Rng;
use super::tls;
use super::world::{NodeId, Packet, relay_addr};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use trunkline_proto::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use trunkline_proto::endpoint::{
    ClientConfig, Endpoint, EndpointConfig, EndpointKeys, ListenerConfig, RetryPolicy, Transmit,
};
use trunkline_proto::error::ApiError;
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::handshake::{ClientAuth, HandshakeEvent, HandshakeState, Identity};
use trunkline_proto::ids::{ChannelKey, ConnHandle, Role};
use trunkline_proto::limits;
use trunkline_proto::rendezvous::route::{RouteFinder, RouteOutput};
use trunkline_proto::status::Status;
use trunkline_proto::time::{Duration, Instant};

/// Runs of a timer at one instant after which it counts as one that never goes away.
const MAX_TIMER_RUNS: u32 = 200;
/// Trains that one endpoint may send at one instant.
const MAX_TRAINS: u32 = 20_000;
/// Error codes with which a simulated application closes.
pub const CLOSE_CODE: u32 = 1234;

/// What a client connects over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Datagrams,
    Stream,
    PlainStream,
    /// Datagrams and a stream at once.
    Either,
}

thread_local! {
    /// What clients connect over unless they say otherwise.
    static USUAL: Cell<Over> = const { Cell::new(Over::Datagrams) };
}

/// Whether a case of both links runs over the stream now.
pub fn is_repeated_over_a_stream() -> bool {
    USUAL.get() == Over::Stream
}

/// Says over which link a case failed.
struct Tried(Over);

impl Drop for Tried {
    fn drop(&mut self) {
        USUAL.set(Over::Datagrams);
        if std::thread::panicking() {
            eprintln!("over {:?}", self.0);
        }
    }
}

/// Runs a case over datagrams and over a native stream: what it promises holds on both.
pub fn on_both_links(case: impl Fn(Over)) {
    for over in [Over::Datagrams, Over::Stream] {
        let _tried = Tried(over);
        USUAL.set(over);
        case(over);
    }
}

/// How a node is made.
#[derive(Clone)]
pub struct NodeConfig {
    /// What a client connects over; a host takes all.
    pub over: Over,
    /// Answers ConnectionRequests.
    pub listen: bool,
    /// Answers those that come over the relay.
    pub listen_relay: bool,
    pub identity: Identity,
    /// What a host asks of its clients.
    pub client_auth: ClientAuth,
    pub connection: ConnectionConfig,
    pub retry: RetryPolicy,
    pub max_connections: u32,
    pub max_handshakes: u32,
    /// Segments in one train.
    pub max_segments: usize,
    /// Bytes of the buffer that packets are written to.
    pub buffer: usize,
    /// Largest packet that the interface takes; it says so when one is larger.
    pub interface: usize,
}

impl NodeConfig {
    /// A host with the usual identity that takes any client.
    pub fn host() -> Self {
        Self { listen: true, identity: tls::host_id().clone(), ..Self::client() }
    }

    /// A client with the usual identity.
    pub fn client() -> Self {
        Self {
            over: USUAL.get(),
            listen: false,
            listen_relay: false,
            identity: tls::client_id().clone(),
            client_auth: ClientAuth::None,
            // Links carry what they are given unless a test says otherwise: Ethernet's packets.
            connection: ConnectionConfig { max_packet: 1452, ..ConnectionConfig::default() },
            retry: RetryPolicy::Never,
            max_connections: 4096,
            max_handshakes: 2048,
            max_segments: 10,
            buffer: 65_536,
            interface: 65_507,
        }
    }

    /// The same with other settings of its connections.
    pub fn with(mut self, change: impl FnOnce(&mut ConnectionConfig)) -> Self {
        change(&mut self.connection);
        self.connection.validate().expect("settings of a simulated node");
        self
    }
}

/// What the application does with a connection that is offered to it.
#[derive(Clone, Debug)]
pub enum OnIncoming {
    Accept,
    Reject(u32, String),
    /// Neither: never answers.
    Ignore,
}

/// What the application does with a channel that is asked for.
#[derive(Clone, Debug)]
pub enum OnRequest {
    /// Takes it with its own options.
    Accept(ChannelOptions),
    Decline(u32, String),
    Ignore,
}

/// What a flow is made from: the name and kind of the channel that was asked for.
pub type Answer = Box<dyn FnMut(&str, ChannelKind) -> Flow>;

/// After how much the rest of a channel is refused, and with which code.
pub type Stop = Box<dyn FnMut(&str) -> Option<(u64, u32)>>;

/// What the application does by itself.
pub struct Policy {
    pub incoming: OnIncoming,
    pub request: Box<dyn FnMut(&str) -> OnRequest>,
    /// What is sent back on a channel that was asked for.
    pub answer: Answer,
    /// Refuse the rest of a channel after so much, with this code.
    pub stop: Stop,
    /// Close handles whose connection ended.
    pub close_ended: bool,
    /// With `manual_credit`: return credit for what came on this channel at once.
    pub consume: Box<dyn FnMut(&str) -> bool>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            incoming: OnIncoming::Accept,
            request: Box::new(|_| OnRequest::Accept(ChannelOptions::default())),
            answer: Box::new(|_, _| Flow::silent()),
            stop: Box::new(|_| None),
            close_ended: false,
            consume: Box::new(|_| true),
        }
    }
}

/// An endpoint at an address, with its application.
pub struct Node {
    pub name: &'static str,
    pub id: NodeId,
    /// Who pays for its heap.
    pub owner: usize,
    pub endpoint: Endpoint,
    pub app: App,
    pub policy: Policy,
    pub config: NodeConfig,
    /// Where the network reaches it.
    pub addr: SocketAddr,
    /// The local address it is told.
    pub local: Option<IpAddr>,
    /// The translator it stands behind.
    pub nat: Option<usize>,
    /// Looks for routes of a connection.
    pub finder: Option<(RouteFinder, ConnHandle)>,
    pub alive: bool,
    /// Origin of its time on the world's clock, in nanoseconds before zero.
    offset: u64,
    /// What its number held before it was made: earlier worlds of the same thread.
    heap_base: i64,
    keys: EndpointKeys,
    timer_runs: (Instant, u32),
    /// Where packets are written; kept, because clearing it would cost more than all else.
    buffer: Vec<u8>,
    paced: BTreeSet<(Instant, ConnHandle, (u32, u32))>,
    /// When the finder has work.
    finder_at: Option<Instant>,
    /// UDP payload bytes and packets sent and received.
    pub bytes_out: u64,
    pub packets_out: u64,
    pub packets_in: u64,
    /// Largest packet sent that was no probe, and largest probe.
    pub largest_out: usize,
    pub largest_probe: usize,
    /// Bytes from and to each remote address.
    pub per_remote: BTreeMap<SocketAddr, (u64, u64)>,
    pub timer_calls: u64,
    /// Trains that the interface refused.
    pub refused: u64,
    /// The last known state of each connection's handshake.
    handshakes: BTreeMap<ConnHandle, HandshakeState>,
}

/// Whether the table of handshake states leads from `old` to `new`, in one step or several.
fn leads_to(old: HandshakeState, new: HandshakeState) -> bool {
    old == new
        || HandshakeEvent::ALL
            .iter()
            .filter_map(|event| old.on(*event))
            .any(|next| leads_to(next, new))
}

impl Node {
    pub fn new(
        name: &'static str,
        id: NodeId,
        now: Instant,
        config: NodeConfig,
        mut seed: Rng,
    ) -> Self {
        // Endpoints choose the origin of their time themselves: no two nodes share one.
        let offset = 1_000_000_000 * (1 + seed.below(1_000_000));
        let keys = EndpointKeys { id: [7 + id as u8; 16], reset: seed.seed(), retry: seed.seed() };
        let owner = id + 1;
        let trace = std::env::var_os("TRUNKLINE_TRACE").is_some();
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + id as u8)), 4_000);
        let heap_base = alloc::live(owner);
        let local_now = Instant::from_nanos(now.as_nanos() + offset);
        let endpoint = endpoint(owner, local_now, &config, keys.clone(), seed.seed());
        Self {
            name,
            id,
            owner,
            endpoint,
            app: App { name, trace, ..App::default() },
            policy: Policy::default(),
            addr,
            local: id.is_multiple_of(2).then_some(addr.ip()),
            nat: None,
            finder: None,
            alive: true,
            offset,
            heap_base,
            keys,
            timer_runs: (Instant::ZERO, 0),
            buffer: Vec::new(),
            paced: BTreeSet::new(),
            finder_at: None,
            bytes_out: 0,
            packets_out: 0,
            packets_in: 0,
            largest_out: 0,
            largest_probe: 0,
            per_remote: BTreeMap::new(),
            timer_calls: 0,
            refused: 0,
            handshakes: BTreeMap::new(),
            config,
        }
    }

    /// Comes back with an endpoint that shares only keys and address with the former one.
    pub fn restart(&mut self, now: Instant, mut seed: Rng) {
        let local = self.local_time(now);
        self.endpoint = endpoint(self.owner, local, &self.config, self.keys.clone(), seed.seed());
        self.app.conns.clear();
        self.app.pending.clear();
        self.paced.clear();
        self.handshakes.clear();
        self.alive = true;
    }

    /// This node's time when the world's clock stands at `now`.
    pub fn local_time(&self, now: Instant) -> Instant {
        Instant::from_nanos(now.as_nanos() + self.offset)
    }

    fn world_time(&self, local: Instant) -> Instant {
        Instant::from_nanos(local.as_nanos().saturating_sub(self.offset))
    }

    pub fn call<T>(
        &mut self,
        now: Instant,
        f: impl FnOnce(&mut Endpoint, Instant, &mut App) -> T,
    ) -> T {
        let local = self.local_time(now);
        self.app.now = now;
        let _owner = alloc::As::owner(self.owner);
        f(&mut self.endpoint, local, &mut self.app)
    }

    /// When the endpoint's next timer is due, on the world's clock.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.endpoint.next_timeout().map(|at| self.world_time(at).max(now))
    }

    /// When this node does something by itself.
    pub fn next_event(&self, now: Instant) -> Option<Instant> {
        let paced = self.paced.first().map(|entry| entry.0.max(now));
        let local = self.local_time(now);
        let search = self.finder_at.filter(|_| self.finder.is_some());
        let search = search.map(|at| self.world_time(at.max(local)));
        self.next_timeout(now).into_iter().chain(paced).chain(search).min()
    }

    /// Bytes of heap that the endpoint holds.
    pub fn heap(&self) -> i64 {
        alloc::live(self.owner) - self.heap_base
    }

    /// The most that it held since the peaks were reset.
    pub fn heap_peak(&self) -> i64 {
        alloc::peak(self.owner) - self.heap_base
    }

    pub fn received(&mut self, from: SocketAddr, len: usize) {
        self.packets_in += 1;
        self.per_remote.entry(from).or_default().0 += len as u64;
    }

    pub fn end_batch(&mut self, now: Instant) {
        self.call(now, Endpoint::end_batch);
        self.check_handshakes();
    }

    /// Handshakes go on only as their table says.
    fn check_handshakes(&mut self) {
        let name = self.name;
        for conn in self.endpoint.connections() {
            let state = self.endpoint.handshake_state(conn).expect("a connection that is listed");
            let Some(old) = self.handshakes.insert(conn, state) else {
                // A host's connection has no info before it is told.
                let role = self.endpoint.info(conn).map_or(Role::Host, |info| info.role);
                let first = HandshakeState::first(role);
                assert!(leads_to(first, state), "{name}: {conn:?} begins with {state:?}");
                continue;
            };
            assert!(leads_to(old, state), "{name}: {conn:?} went from {old:?} to {state:?}");
        }
    }

    pub fn run_timers(&mut self, now: Instant) {
        if self.next_timeout(now).is_some_and(|at| at <= now) {
            self.timer_calls += 1;
            if self.timer_runs.0 == now {
                self.timer_runs.1 += 1;
                let name = self.name;
                assert!(self.timer_runs.1 < MAX_TIMER_RUNS, "{name}: a timer never goes away");
            } else {
                self.timer_runs = (now, 0);
            }
            self.call(now, Endpoint::handle_timeout);
            self.check_handshakes();
        }
        self.run_finder(now);
        while let Some(entry) = self.paced.first().copied().filter(|entry| entry.0 <= now) {
            self.paced.remove(&entry);
            let (_, conn, (slot, life)) = entry;
            self.pump(now, conn, ChannelKey { slot, life });
        }
    }

    /// What the finder wants done, and its packets. Bodies of route events are given back.
    pub fn search(&mut self, now: Instant) -> (Vec<Packet>, Vec<Vec<u8>>) {
        let (mut packets, mut events) = (Vec::new(), Vec::new());
        let local = self.local_time(now);
        while let Some((finder, conn)) = &mut self.finder {
            let conn = *conn;
            let Some(output) = finder.poll() else {
                self.finder_at = Some(finder.next_timeout());
                break;
            };
            match output {
                RouteOutput::Event(body) => events.push(body),
                RouteOutput::Stun { socket, local, remote, packet } => {
                    assert_eq!((socket, local), (0, self.addr), "{}", self.name);
                    packets.push(Packet {
                        sent_at: now,
                        from: self.addr,
                        to: remote,
                        ecn: trunkline_proto::endpoint::Ecn::NotEct,
                        data: packet,
                    });
                }
                RouteOutput::Try { socket, remote } => {
                    let tried = self.endpoint.try_path(local, conn, socket, remote);
                    tried.unwrap_or_else(|e| panic!("{}: {remote}: {e}", self.name));
                }
                RouteOutput::UseRelay => self.endpoint.use_relay(local, conn).expect("relay"),
                RouteOutput::FallBack => self.endpoint.fall_back(local, conn).expect("back"),
            }
        }
        (packets, events)
    }

    fn run_finder(&mut self, now: Instant) {
        let local = self.local_time(now);
        if let Some((finder, _)) = &mut self.finder
            && finder.next_timeout() <= local
        {
            finder.handle_timeout(local);
        }
    }

    /// A STUN packet came.
    pub fn stun(&mut self, now: Instant, from: SocketAddr, packet: &[u8]) -> bool {
        let local = self.local_time(now);
        let Some((finder, _)) = &mut self.finder else { return false };
        finder.on_stun(local, 0, self.local, from, packet)
    }

    /// All packets that the endpoint wants to send now.
    pub fn transmit(&mut self, now: Instant) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut buf = std::mem::take(&mut self.buffer);
        buf.resize(self.config.buffer, 0);
        let max = self.config.max_segments;
        for train in 0.. {
            assert!(train < MAX_TRAINS, "{}: sends without end", self.name);
            let Some(t) = self.call(now, |ep, now, _| ep.poll_transmit(now, &mut buf, max)) else {
                break;
            };
            self.check_train(&t, buf.len());
            if t.segment > self.config.interface {
                self.call(now, |ep, now, _| ep.transmit_failed(now, &t, true));
                self.refused += 1;
                continue;
            }
            for segment in buf[..t.len].chunks(t.segment) {
                self.packets_out += 1;
                self.bytes_out += segment.len() as u64;
                self.per_remote.entry(t.remote).or_default().1 += segment.len() as u64;
                let data = segment.to_vec();
                let relayed = t.socket == limits::RELAY_SOCKET;
                packets.push(Packet {
                    sent_at: now,
                    from: if relayed { relay_addr(self.id) } else { self.addr },
                    to: t.remote,
                    ecn: t.ecn,
                    data,
                });
            }
        }
        self.buffer = buf;
        packets
    }

    fn check_train(&mut self, t: &Transmit, capacity: usize) {
        let name = self.name;
        assert!(t.len > 0 && t.len <= capacity, "{name}: a train of {} bytes", t.len);
        assert!(t.segment > 0 && t.segment <= t.len, "{name}: segments of {} bytes", t.segment);
        let segments = t.len.div_ceil(t.segment);
        assert!(segments <= self.config.max_segments, "{name}: {segments} segments");
        assert!(!t.probe || segments == 1, "{name}: a probe in {segments} segments");
        if t.socket == limits::RELAY_SOCKET {
            assert!(segments == 1, "{name}: {segments} segments for the relay");
            assert!(t.len <= limits::RELAY_PACKET, "{name}: {} bytes for the relay", t.len);
            assert!(!t.probe, "{name}: a size probe for the relay");
        }
        let largest = self.config.connection.max_packet;
        assert!(t.segment <= largest, "{name}: packet of {} bytes", t.segment);
        if t.probe {
            self.largest_probe = self.largest_probe.max(t.segment);
        } else {
            self.largest_out = self.largest_out.max(t.segment);
        }
    }

    /// Starts a connection to `remotes` with the usual trust.
    pub fn connect(
        &mut self,
        now: Instant,
        remotes: &[SocketAddr],
        config: &ClientConfig,
    ) -> ConnHandle {
        let over = self.config.over;
        let conn = self
            .call(now, |ep, now, _| {
                let plain = over == Over::PlainStream;
                match over {
                    Over::Datagrams => ep.connect(now, 0, remotes, config),
                    Over::Either => ep.connect_either(now, 0, remotes, config),
                    _ => ep.connect_stream(now, &remotes[..1], config, plain),
                }
            })
            .expect("connect");
        let known = Conn::new(conn, Role::Client, remotes[0]);
        let old = self.app.conns.insert(conn, known);
        assert!(old.is_none(), "{}: the handle {conn:?} was given twice", self.name);
        conn
    }

    /// How this node connects to the usual host.
    pub fn client_config(&self) -> ClientConfig {
        ClientConfig {
            tls: tls::pinned(Some(&self.config.identity)),
            server_name: tls::HOST_NAME.into(),
            credential: Vec::new(),
            connection: None,
        }
    }

    /// Opens a channel and starts to send `flow` on it.
    pub fn open(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        name: &str,
        options: ChannelOptions,
        flow: Flow,
    ) -> Result<ChannelKey, ApiError> {
        let channel = self.call(now, |ep, now, _| ep.open_channel(now, conn, name, &options))?;
        self.app.trace_channel("opens", name, channel);
        let chan = self.app.conn_mut(conn).add_channel(channel, name, true, options, None);
        chan.pump = Some(Pump::new(flow, pattern::key(name, true), options.kind));
        self.pump(now, conn, channel);
        Ok(channel)
    }

    /// Sends more on a channel whose flow was done.
    pub fn send_more(&mut self, now: Instant, conn: ConnHandle, channel: ChannelKey, flow: Flow) {
        let chan = self.app.conn_mut(conn).chan_mut(channel);
        chan.pump.as_mut().expect("a channel that we may send on").restart(flow);
        self.pump(now, conn, channel);
    }

    /// Hands over more of a channel's flow.
    pub fn pump(&mut self, now: Instant, conn: ConnHandle, channel: ChannelKey) {
        let local = self.local_time(now);
        let Some(c) = self.app.conns.get_mut(&conn).filter(|c| !c.ended()) else { return };
        let chan = c.chan_mut(channel);
        let over = self.app.plain && chan.stop_sent;
        if over || chan.end.is_some() || chan.stopped.is_some() {
            return;
        }
        let Some(pump) = chan.pump.as_mut().filter(|p| !p.done) else { return };
        let pumped = pump.run(self.owner, &mut self.endpoint, local, conn, channel);
        match pumped {
            Pumped::Blocked => chan.blocked = true,
            Pumped::Wait(at) => {
                let at = Instant::from_nanos(at.as_nanos() - self.offset);
                self.paced.insert((at, conn, order(channel)));
            }
            Pumped::Done => {}
            Pumped::Refused(e) => {
                let status = self.endpoint.status(conn);
                let (name, told) = (self.name, &chan.name);
                // Only the end of the connection, of which the event is still to come, excuses it.
                assert_ne!(status, Status::Connected, "{name}: send on channel {told}: {e}");
            }
        }
    }

    /// Closes a connection as the application does; returns what the endpoint said.
    pub fn close(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        linger: Option<Duration>,
    ) -> Result<(), ApiError> {
        let result = self.call(now, |ep, now, _| ep.close(now, conn, CLOSE_CODE, "done", linger));
        if result.is_ok() {
            self.app.conn_mut(conn).closed = Some(now);
            self.finder.take_if(|f| f.1 == conn);
            assert_eq!(
                self.endpoint.status(conn),
                Status::None,
                "{}: status after close",
                self.name
            );
        }
        result
    }

    /// Closes every connection of this sort that is not closed.
    pub fn close_where(&mut self, now: Instant, which: impl Fn(&Conn) -> bool) {
        let open = |c: &&Conn| c.known && c.closed.is_none() && c.report.is_none() && which(c);
        let conns: Vec<_> = self.app.conns.values().filter(open).map(|c| c.handle).collect();
        for conn in conns {
            self.close(now, conn, None).expect("close");
        }
    }

    /// Does what the application does about the events that it was told.
    pub fn react(&mut self, now: Instant) {
        while let Some(event) = self.app.pending.pop_front() {
            match event {
                Event::Incoming { conn } => self.decide(now, conn),
                Event::Request { conn, channel } => self.decide_channel(now, conn, channel),
                Event::Ready { conn, channel } | Event::Writable { conn, channel } => {
                    self.pump(now, conn, channel);
                }
                Event::Data { conn, channel, .. } => self.take(now, conn, channel),
                Event::Status { conn, new, .. } => self.check_status(now, conn, new),
                Event::Path { conn, remote, relayed } => {
                    let local = self.local_time(now);
                    if let Some((finder, _)) = self.finder.as_mut().filter(|f| f.1 == conn) {
                        finder.on_path(local, remote, relayed);
                    }
                }
                Event::PathFailed { conn, remote } => {
                    let local = self.local_time(now);
                    if let Some((finder, _)) = self.finder.as_mut().filter(|f| f.1 == conn) {
                        finder.on_path_failed(local, 0, remote);
                    }
                }
                _ => {}
            }
        }
    }

    fn check_status(&mut self, now: Instant, conn: ConnHandle, new: Status) {
        let Some(c) = self.app.conns.get(&conn) else { return };
        let (closed, known, current) = (c.closed.is_some(), c.known, c.status);
        if closed || !known || current != new {
            return;
        }
        assert_eq!(self.endpoint.status(conn), new, "{}: status as told", self.name);
        let ended = matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally);
        if ended && self.policy.close_ended {
            self.close(now, conn, None).expect("close of an ended connection");
        }
    }

    fn decide(&mut self, now: Instant, conn: ConnHandle) {
        let policy = self.policy.incoming.clone();
        let result = match &policy {
            OnIncoming::Accept => self.call(now, |ep, now, _| ep.accept(now, conn)),
            OnIncoming::Reject(code, text) => {
                self.call(now, |ep, now, _| ep.reject(now, conn, *code, text))
            }
            OnIncoming::Ignore => return,
        };
        if let Err(e) = result {
            // It may have ended in the same breath.
            let status = self.endpoint.status(conn);
            assert_ne!(status, Status::Connecting, "{}: {policy:?}: {e}", self.name);
            return;
        }
        let c = self.app.conn_mut(conn);
        match policy {
            OnIncoming::Accept => c.accepted = true,
            _ => c.closed = Some(now),
        }
    }

    fn decide_channel(&mut self, now: Instant, conn: ConnHandle, channel: ChannelKey) {
        let name = self.name;
        let chan = self.app.conn_mut(conn).chan_mut(channel);
        if chan.end.is_some() {
            return; // withdrawn in the same breath
        }
        let (told, kind) = (chan.name.clone(), chan.options.kind);
        chan.stop_after = (self.policy.stop)(&told);
        match (self.policy.request)(&told) {
            OnRequest::Accept(options) => {
                let flow = (self.policy.answer)(&told, kind);
                chan.pump = Some(Pump::new(flow, pattern::key(&told, false), kind));
                let accepted =
                    self.call(now, |ep, now, _| ep.accept_channel(now, conn, channel, &options));
                if let Err(e) = accepted {
                    let status = self.endpoint.status(conn);
                    assert_ne!(status, Status::Connected, "{name}: accepting {told}: {e}");
                }
            }
            OnRequest::Decline(code, text) => {
                let declined = self
                    .call(now, |ep, now, _| ep.decline_channel(now, conn, channel, code, &text));
                if let Err(e) = declined {
                    let status = self.endpoint.status(conn);
                    assert_ne!(status, Status::Connected, "{name}: declining {told}: {e}");
                    return;
                }
                // Its key is stale now, and nothing more is told.
                let chan = self.app.conn_mut(conn).chan_mut(channel);
                chan.end = Some(ChannelEnd::Declined { code, text });
            }
            OnRequest::Ignore => {}
        }
    }

    fn take(&mut self, now: Instant, conn: ConnHandle, channel: ChannelKey) {
        let manual = self.config.connection.manual_credit;
        let plain = self.app.plain;
        let Some(c) = self.app.conns.get_mut(&conn).filter(|c| !c.ended()) else { return };
        let chan = c.chan_mut(channel);
        let bytes = std::mem::take(&mut chan.unconsumed);
        if chan.end.is_some() {
            if manual && bytes > 0 {
                let taken = self.call(now, |ep, _, _| ep.consume_ended(conn, bytes));
                taken.unwrap_or_else(|e| panic!("{}: consume: {e}", self.name));
            }
            return;
        }
        let got = if chan.options.kind == ChannelKind::Bytes {
            chan.received.bytes
        } else {
            chan.received.messages
        };
        let stop = chan.stop_after.filter(|(after, _)| got >= *after && !chan.stop_sent);
        if let Some((_, code)) = stop.filter(|_| !chan.eof && chan.reset.is_none()) {
            chan.stop_sent = true;
            let stopped = self.call(now, |ep, now, _| ep.stop_channel(now, conn, channel, code));
            if let Err(e) = stopped {
                // On a plain link an end of ours may have been sent, which ends both directions.
                assert!(plain, "{}: stop: {e}", self.name);
                self.app.conn_mut(conn).chan_mut(channel).stop_sent = false;
            }
        }
        if manual && bytes > 0 {
            let chan = self.app.conn_mut(conn).chan_mut(channel);
            if (self.policy.consume)(&chan.name) {
                let taken = self.call(now, |ep, now, _| ep.consume(now, conn, channel, bytes));
                taken.unwrap_or_else(|e| panic!("{}: consume: {e}", self.name));
            } else {
                chan.unconsumed = bytes;
            }
        }
    }

    /// No connection is left.
    pub fn is_empty(&self) -> bool {
        self.endpoint.connections().next().is_none()
    }

    /// Every connection that ever was had its last event, and every channel its end.
    pub fn check_ended(&self) {
        let name = self.name;
        for c in self.app.conns.values() {
            let conn = c.handle;
            assert!(c.report.is_some(), "{name}: {conn:?} never told its last event: {:?}", c.path);
            assert_eq!(self.endpoint.status(conn), Status::None, "{name}: a dead handle");
            assert!(self.endpoint.info(conn).is_none(), "{name}: a dead handle has an info");
            let last = *c.path.last().expect("a first status");
            let ended = matches!(last, Status::ClosedByPeer | Status::ProblemDetectedLocally);
            if ended && c.path.len() > 1 {
                let open = c.channels.values().find(|chan| chan.end.is_none());
                let open = open.map(|chan| &chan.name);
                assert_eq!(open, None, "{name}: a channel of {conn:?} never ended");
            }
        }
    }

    /// The state in a few lines, for messages of failed tests.
    pub fn summary(&self) -> String {
        use std::fmt::Write;
        let mut out = format!(
            "{}{}: {} connections, next timer {:?}",
            self.name,
            if self.alive { "" } else { " (vanished)" },
            self.endpoint.connections().count(),
            self.endpoint.next_timeout().map(|at| self.world_time(at)),
        );
        for c in self.app.conns.values().take(4) {
            let stats = self.endpoint.stats(c.handle);
            let _ = write!(out, "\n  {:?} {:?} {:?} {stats:?}", c.role, c.path, c.reason);
            let unfinished = c.channels.values().filter(|chan| chan.end.is_none());
            for chan in unfinished.take(6) {
                let pump = chan.pump.as_ref();
                let _ = write!(
                    out,
                    "\n    {:?} {} ready {} eof {} reset {:?} stopped {:?} blocked {} received {}/{} sent {}/{} done {}",
                    chan.options.kind,
                    chan.name,
                    chan.ready,
                    chan.eof,
                    chan.reset,
                    chan.stopped,
                    chan.blocked,
                    chan.received.bytes,
                    chan.received.messages,
                    pump.map_or(0, |p| p.bytes),
                    pump.map_or(0, |p| p.messages),
                    pump.is_some_and(|p| p.done),
                );
            }
        }
        out
    }
}

fn endpoint(
    owner: usize,
    now: Instant,
    config: &NodeConfig,
    keys: EndpointKeys,
    seed: [u8; 32],
) -> Endpoint {
    assert!(config.connection.max_packet <= limits::MAX_PACKET);
    let tls = config.listen.then(|| tls::host_tls(&config.identity, &config.client_auth));
    let _owner = alloc::As::owner(owner);
    let mut endpoint = Endpoint::new(
        now,
        EndpointConfig {
            shard: 0,
            server: 0,
            seed,
            keys,
            connection: config.connection.clone(),
            max_connections: config.max_connections,
            max_handshakes: config.max_handshakes,
            retry: config.retry,
            observer: None,
        },
    )
    .expect("endpoint");
    if let Some(tls) = tls {
        let listener = ListenerConfig { tls, connection: None };
        endpoint.listen(0, listener.clone()).expect("listen");
        endpoint.listen_stream(0, listener, true).expect("listen");
    }
    if config.listen_relay {
        let tls = tls::host_tls(&config.identity, &config.client_auth);
        let listener = ListenerConfig { tls, connection: None };
        endpoint.listen(limits::RELAY_SOCKET, listener).expect("listen");
    }
    endpoint
}
