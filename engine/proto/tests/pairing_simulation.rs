//! Many pairs and one event source in virtual time: events are late, lost and out of order, the
//! source is restarted, clients come, go and change their partners, all from a seed.

use std::collections::BTreeMap;
use trunkline_proto::crypto::Rng;
use trunkline_proto::rendezvous::event::{Abort, decode};
use trunkline_proto::rendezvous::pairing::{Notice, Output, Pairing, PairingConfig, PairingState};
use trunkline_proto::rendezvous::token::{ClientPattern, RoleSet, credential};
use trunkline_proto::rendezvous::{
    AccessToken, AppId, ClientId, EventSource, Grant, KeyRing, LocalRouter, Outlet, PairingRole,
    SourceConfig,
};
use trunkline_proto::time::{Duration, Instant};

const START: Instant = Instant::from_nanos(1_000_000_000);
const PAIRS: usize = 8;
const CLIENTS: usize = 2 * PAIRS;
const UNIX_S: u64 = 1_700_000_000;

/// A connection: client and number, so that a new one is never taken for an old one.
type Key = (usize, u32);

#[derive(Clone, Debug)]
enum Arrival {
    /// A connection reaches the source.
    Connect(Key, Vec<u8>),
    /// It is open, or it is not.
    Opened(Key),
    Aborted(Key, Abort),
    ToSource(Key, Vec<u8>),
    ToClient(Key, Vec<u8>),
    Gone(Key),
}

#[derive(Default)]
struct Out(Vec<Arrival>);

impl Outlet<Key> for Out {
    fn send(&mut self, client: Key, message: &[u8]) -> bool {
        self.0.push(Arrival::ToClient(client, message.to_vec()));
        true
    }

    fn relay(&mut self, client: Key, _: &[u8]) -> bool {
        panic!("a packet for {client:?}, where none is sent");
    }

    fn abort(&mut self, client: Key, reason: Abort, _: &str) {
        self.0.push(Arrival::Aborted(client, reason));
    }
}

struct World {
    now: Instant,
    rng: Rng,
    source: EventSource<Key>,
    keys: KeyRing,
    pairings: Vec<Pairing>,
    conns: Vec<u32>,
    /// What arrives when, in the order of time.
    arrivals: BTreeMap<(Instant, u64), Arrival>,
    count: u64,
    /// Loss in thousandths.
    loss: u64,
    events_received: usize,
}

fn id(client: usize) -> ClientId {
    ClientId::new(&format!("client-{client}")).unwrap()
}

fn role(client: usize) -> PairingRole {
    PairingRole::ALL[client % 2]
}

fn new_source(keys: &KeyRing) -> EventSource<Key> {
    EventSource::new(SourceConfig::default(), keys.clone(), LocalRouter::default()).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut keys = KeyRing::new();
        keys.add("k", &[5; 32]).unwrap();
        let pairings = (0..CLIENTS)
            .map(|client| {
                let config =
                    PairingConfig { backoff_seed: client as u64 + 1, ..PairingConfig::default() };
                Pairing::new(role(client), config).unwrap()
            })
            .collect();
        let mut world = Self {
            now: START,
            rng: Rng::from_seed(bytes),
            source: new_source(&keys),
            keys,
            pairings,
            conns: vec![0; CLIENTS],
            arrivals: BTreeMap::new(),
            count: 0,
            loss: 0,
            events_received: 0,
        };
        for client in 0..CLIENTS {
            let token = world.token(client);
            world.call(client, |p, now| p.assign_client_id(now, Some(id(client))).unwrap());
            world.call(client, |p, now| p.assign_access_token(now, Some(token)));
            world.call(client, |p, now| p.set_active(now, true));
        }
        world
    }

    fn token(&self, client: usize) -> AccessToken {
        let grant = Grant {
            app: AppId::new("app").unwrap(),
            clients: ClientPattern::from(&id(client)),
            roles: RoleSet::only(role(client)),
            expires_s: UNIX_S + 1,
        };
        self.keys.mint("k", &grant).unwrap()
    }

    /// Something arrives after up to `most`.
    fn later(&mut self, most: Duration, arrival: Arrival) {
        let delay = Duration::from_nanos(self.rng.below(most.as_nanos().max(1)));
        self.count += 1;
        self.arrivals.insert((self.now + delay, self.count), arrival);
    }

    fn travels(&mut self, arrival: Arrival) {
        let lossy = matches!(arrival, Arrival::ToSource(..) | Arrival::ToClient(..));
        if !lossy || self.rng.below(1000) >= self.loss {
            self.later(Duration::from_millis(300), arrival);
        }
    }

    fn call<R>(&mut self, client: usize, f: impl FnOnce(&mut Pairing, Instant) -> R) -> R {
        let result = f(&mut self.pairings[client], self.now);
        while let Some(output) = self.pairings[client].poll() {
            let key = (client, self.conns[client]);
            match output {
                Output::Connect { client: name, token, role } => {
                    self.conns[client] += 1;
                    let ticket = credential(&token, &name, role);
                    self.travels(Arrival::Connect((client, self.conns[client]), ticket));
                }
                Output::Disconnect => {
                    self.conns[client] += 1;
                    // Behind everything that was sent on it.
                    self.count += 1;
                    let at = self.now + Duration::from_millis(301);
                    self.arrivals.insert((at, self.count), Arrival::Gone(key));
                }
                Output::Send(event) => self.travels(Arrival::ToSource(key, event.encode())),
                Output::Notice(Notice::Event { from, .. }) => {
                    assert_eq!(Some(&from), self.pairings[client].partner());
                    self.events_received += 1;
                }
                Output::Notice(Notice::Aborted(reason)) => panic!("{reason}"),
                _ => {}
            }
        }
        result
    }

    fn arrive(&mut self, arrival: Arrival) {
        let mut out = Out::default();
        let current = |world: &Self, key: Key| world.conns[key.0] == key.1;
        match arrival {
            Arrival::Connect(key, ticket) => {
                if self.source.connect(self.now, UNIX_S, key, &ticket, &mut out).is_ok() {
                    assert!(self.source.opened(key));
                    self.travels(Arrival::Opened(key));
                } else {
                    panic!("a good token was refused");
                }
            }
            Arrival::Opened(key) if current(self, key) => {
                self.call(key.0, Pairing::connection_open);
            }
            Arrival::Aborted(key, reason) if current(self, key) => {
                self.call(key.0, |p, now| p.connection_aborted(now, reason));
            }
            Arrival::ToSource(key, message) => {
                self.source.receive(self.now, key, &message, &mut out);
            }
            Arrival::ToClient(key, message) if current(self, key) => {
                let event = decode(&message).unwrap();
                self.call(key.0, |p, now| p.receive(now, &event));
            }
            Arrival::Gone(key) => self.source.gone(key),
            _ => {}
        }
        for arrival in out.0 {
            self.travels(arrival);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timeout = self.pairings.iter().filter_map(Pairing::next_timeout).min();
            let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
            let source = self.source.next_timeout();
            let next = [timeout, arrival, source].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            for client in 0..CLIENTS {
                if self.pairings[client].next_timeout().is_some_and(|at| at <= self.now) {
                    self.call(client, Pairing::handle_timeout);
                }
            }
            let mut out = Out::default();
            self.source.handle_timeout(self.now, UNIX_S, &mut out);
            assert!(out.0.is_empty(), "everybody is alive");
            while let Some(entry) = self.arrivals.first_entry().filter(|e| e.key().0 <= self.now) {
                let arrival = entry.remove();
                self.arrive(arrival);
            }
        }
        self.now = end;
    }

    /// The source is gone, and all connections with it; another one is there at once.
    fn restart(&mut self) {
        self.source = new_source(&self.keys);
        self.arrivals.clear();
        for client in 0..CLIENTS {
            self.conns[client] += 1;
            self.call(client, Pairing::connection_closed);
        }
    }

    /// Something that applications and networks do.
    fn disturb(&mut self) {
        let client = self.rng.below(CLIENTS as u64) as usize;
        match self.rng.below(8) {
            0 => self.call(client, |p, now| p.set_active(now, false)),
            1 | 2 => self.call(client, |p, now| p.set_active(now, true)),
            3 | 4 => {
                let other = self.rng.below(PAIRS as u64) as usize * 2 + 1 - client % 2;
                self.call(client, |p, now| p.assign_partner(now, Some(id(other))).unwrap());
            }
            5 => self.call(client, |p, now| p.assign_partner(now, None).unwrap()),
            6 => drop(self.call(client, |p, now| p.send(now, 1, b"event", true))),
            _ => {
                let key = (client, self.conns[client]);
                self.conns[client] += 1;
                self.source.gone(key);
                self.call(client, Pairing::connection_closed);
            }
        }
    }

    /// What any calm has to lead to.
    fn check(&self) {
        for (client, pairing) in self.pairings.iter().enumerate() {
            let partner = pairing.partner();
            let other = (0..CLIENTS).find(|other| Some(&id(*other)) == partner);
            let Some(other) = other.map(|other| &self.pairings[other]) else { continue };
            let mutual = other.partner() == Some(&id(client));
            if mutual && pairing.state().is_paired() && other.state().is_paired() {
                assert_eq!(pairing.state(), PairingState::Interacting, "client {client}");
            }
            if pairing.state() == PairingState::Interacting {
                assert!(mutual, "client {client} interacts with somebody else's partner");
            }
        }
    }
}

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("TRUNKLINE_SEED") {
        return vec![seed.parse().unwrap()];
    }
    let count = std::env::var("TRUNKLINE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    (0..count).collect()
}

#[test]
fn pairs_find_each_other_again_after_any_disturbance() {
    let (mut events, mut interacting) = (0, 0);
    for seed in seeds() {
        println!("seed {seed} (TRUNKLINE_SEED={seed} repeats it)");
        let mut world = World::new(seed);
        world.run(Duration::from_secs(2));
        for _ in 0..6 {
            world.loss = 100;
            for _ in 0..10 {
                let pause = Duration::from_millis(world.rng.below(4000));
                world.disturb();
                world.run(pause);
            }
            if world.rng.below(3) == 0 {
                world.restart();
            }
            world.loss = 0;
            world.run(Duration::from_secs(65));
            world.check();
        }
        // Everybody wants its neighbour: nobody is left alone.
        for client in 0..CLIENTS {
            world.call(client, |p, now| p.set_active(now, true));
            world.call(client, |p, now| p.assign_partner(now, None).unwrap());
        }
        world.run(Duration::from_secs(65));
        for client in (0..CLIENTS).step_by(2) {
            world.call(client, |p, now| p.assign_partner(now, Some(id(client + 1))).unwrap());
        }
        world.run(Duration::from_secs(65));
        world.check();
        let all = |p: &&Pairing| p.state() == PairingState::Interacting;
        interacting += world.pairings.iter().filter(all).count();
        assert_eq!(world.pairings.iter().filter(all).count(), CLIENTS, "seed {seed}");
        events += world.events_received;
    }
    assert!(events > 0 && interacting > 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::new(7);
        world.loss = 50;
        for _ in 0..20 {
            world.disturb();
            world.run(Duration::from_millis(1500));
        }
        (world.pairings, world.count)
    };
    assert_eq!(run(), run());
}
