//! Pairings and an event source in every order of events: a model of three clients, whose events
//! the network loses and reorders at will, that is searched exhaustively within its bounds. The
//! machines are the real ones.

use stateright::{Checker, Model, Property};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use trunkline_proto::rendezvous::event::{Abort, Event, EventType, decode};
use trunkline_proto::rendezvous::pairing::{Notice, Output, Pairing, PairingConfig, PairingState};
use trunkline_proto::rendezvous::token::{ClientPattern, RoleSet, credential};
use trunkline_proto::rendezvous::{
    AccessToken, AppId, ClientId, EventSource, Grant, KeyRing, LocalRouter, Outlet, PairingRole,
    SourceConfig,
};
use trunkline_proto::time::{Duration, Instant};

const START: Instant = Instant::from_nanos(1_000_000_000_000);
/// All intervals are multiples of it.
const TICK: Duration = Duration::from_secs(5);
const SIDES: usize = 3;

/// Two controllers that want the same responder.
const CLIENTS: [(&str, PairingRole); SIDES] =
    [("a", PairingRole::Controller), ("r", PairingRole::Responder), ("b", PairingRole::Controller)];

fn id(side: usize) -> ClientId {
    ClientId::new(CLIENTS[side].0).unwrap()
}

fn side_of(id: &ClientId) -> usize {
    CLIENTS.iter().position(|(name, _)| *name == id.as_str()).unwrap()
}

thread_local! {
    static KEYS: (KeyRing, Vec<AccessToken>) = {
        let mut keys = KeyRing::new();
        keys.add("k", &[9; 32]).unwrap();
        let tokens = (0..SIDES)
            .map(|side| {
                let grant = Grant {
                    app: AppId::new("app").unwrap(),
                    clients: ClientPattern::from(&id(side)),
                    roles: RoleSet::only(CLIENTS[side].1),
                    expires_s: u64::MAX,
                };
                keys.mint("k", &grant).unwrap()
            })
            .collect();
        (keys, tokens)
    };
    /// Event sources by which clients are connected. What else they remember are limits, which
    /// are set out of the way.
    static SOURCES: RefCell<HashMap<[bool; SIDES], EventSource<usize>>> = RefCell::default();
}

struct Outgoing(Vec<Event>);

impl Outlet<usize> for Outgoing {
    fn send(&mut self, client: usize, message: &[u8]) -> bool {
        let event = decode(message).unwrap().to_owned().unwrap();
        assert_eq!(side_of(&event.to), client);
        self.0.push(event);
        true
    }

    fn relay(&mut self, client: usize, _: &[u8]) -> bool {
        panic!("a packet for {client}");
    }

    fn abort(&mut self, _: usize, reason: Abort, text: &str) {
        panic!("{reason}: {text}");
    }
}

/// What the event source makes of an event of `from` while these clients are connected.
fn through_source(connected: [bool; SIDES], from: usize, event: &Event) -> Vec<Event> {
    SOURCES.with_borrow_mut(|sources| {
        let mut out = Outgoing(Vec::new());
        let source = sources.entry(connected).or_insert_with(|| {
            KEYS.with(|(keys, tokens)| {
                let limits = SourceConfig {
                    events_per_s: u32::MAX,
                    events_burst: u32::MAX,
                    bytes_per_s: u64::MAX >> 32,
                    bytes_burst: u64::MAX >> 32,
                    ..SourceConfig::default()
                };
                let mut source =
                    EventSource::new(limits, keys.clone(), LocalRouter::default()).unwrap();
                for side in (0..SIDES).filter(|side| connected[*side]) {
                    let ticket = credential(&tokens[side], &id(side), CLIENTS[side].1);
                    source.connect(START, 0, side, &ticket, &mut out).unwrap();
                    assert!(source.opened(side));
                }
                source
            })
        });
        source.receive(START, from, &event.encode(), &mut out);
        out.0
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Closed,
    Opening,
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client {
    pairing: Pairing,
    link: Link,
    active: bool,
    /// Who has rejected it, as it was told.
    rejected_by: Option<ClientId>,
    /// A ping went to whoever had rejected it.
    pinged_rejecter: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: Instant,
    clients: Vec<Client>,
    /// Events between event source and clients, in no order. Each is with its sender's event
    /// source; whoever is not connected when it is delivered does not get it.
    network: Vec<(usize, Event)>,
    calls: u8,
    losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The attempt of this client to connect succeeds.
    Open(usize),
    /// This client loses its connection, and what is on its way from it.
    Break(usize),
    Activate(usize, bool),
    Assign(usize, Option<usize>),
    Deliver(usize),
    Lose(usize),
    Tick,
}

struct Pairs {
    /// Calls of applications, and broken connections, in all.
    calls: u8,
    losses: u8,
    ticks: u64,
    /// Events on their way at once.
    network: usize,
    /// Which clients take part.
    sides: &'static [usize],
}

impl State {
    /// Does what the machines want done.
    fn carry_out(&mut self) {
        for side in 0..SIDES {
            let client = &mut self.clients[side];
            while let Some(output) = client.pairing.poll() {
                match output {
                    Output::Connect { .. } => client.link = Link::Opening,
                    Output::Disconnect => client.link = Link::Closed,
                    Output::Send(event) => {
                        client.pinged_rejecter |= event.kind == EventType::Ping
                            && client.rejected_by.as_ref() == Some(&event.to);
                        self.network.push((side, event));
                    }
                    Output::Notice(Notice::Rejected { partner, .. }) => {
                        client.rejected_by = Some(partner);
                    }
                    // Whoever makes itself our partner wants to be one.
                    Output::Notice(Notice::Partner(Some(_))) => client.rejected_by = None,
                    _ => {}
                }
            }
        }
        self.network.sort_by_key(|(side, event)| (*side, event.sent, event.encode()));
    }

    fn call<T>(&mut self, side: usize, f: impl FnOnce(&mut Pairing, Instant) -> T) -> T {
        let result = f(&mut self.clients[side].pairing, self.now);
        self.carry_out();
        result
    }

    fn assign(&mut self, side: usize, partner: Option<usize>) {
        let partner = partner.map(id);
        // Only another partner makes the rejection void.
        if self.clients[side].pairing.partner() != partner.as_ref() {
            self.clients[side].rejected_by = None;
        }
        self.call(side, |p, now| p.assign_partner(now, partner)).unwrap();
    }

    fn deliver(&mut self, at: usize) {
        let (from, event) = self.network.remove(at);
        let mut connected = [false; SIDES];
        for (side, connected) in connected.iter_mut().enumerate() {
            *connected = self.clients[side].link == Link::Open;
        }
        // What was sent before a connection ended (`inactive`, say) still arrives: it lingers.
        connected[from] = true;
        for event in through_source(connected, from, &event) {
            let to = side_of(&event.to);
            if self.clients[to].link == Link::Open {
                self.call(to, |p, now| p.receive(now, &event.as_ref()));
            }
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        for side in 0..SIDES {
            // Twice: a ping that was due before the partner went silent is due then, too.
            for _ in 0..2 {
                if self.clients[side].pairing.next_timeout().is_some_and(|at| at <= self.now) {
                    self.call(side, Pairing::handle_timeout);
                }
            }
        }
    }

    /// Everything arrives at once for a while; nobody does anything else. The properties that look
    /// at what comes of a state are asked one after the other: it is found once.
    fn calm(&self) -> Rc<Self> {
        thread_local! {
            static LAST: RefCell<Option<(State, Rc<State>)>> = RefCell::default();
        }
        LAST.with_borrow_mut(|last| match last {
            Some((state, calm)) if state == self => calm.clone(),
            _ => last.insert((self.clone(), Rc::new(self.calmed()))).1.clone(),
        })
    }

    fn calmed(&self) -> Self {
        let mut state = self.clone();
        for _ in 0..7 {
            for side in 0..SIDES {
                if state.clients[side].link == Link::Opening {
                    state.clients[side].link = Link::Open;
                    state.call(side, Pairing::connection_open);
                }
            }
            let mut delivered = 0;
            while !state.network.is_empty() {
                state.deliver(0);
                delivered += 1;
                assert!(delivered < 100, "events without end");
            }
            state.tick();
        }
        state
    }

    fn state(&self, side: usize) -> PairingState {
        self.clients[side].pairing.state()
    }

    fn is_partner(&self, side: usize, other: usize) -> bool {
        self.clients[side].pairing.partner() == Some(&id(other))
    }
}

impl Model for Pairs {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let clients = (0..SIDES)
            .map(|side| {
                let role = CLIENTS[side].1;
                let config = PairingConfig { backoff: TICK, ..PairingConfig::default() };
                let mut pairing = Pairing::new(role, config).unwrap();
                let token = KEYS.with(|(_, tokens)| tokens[side].clone());
                pairing.assign_client_id(START, Some(id(side))).unwrap();
                pairing.assign_access_token(START, Some(token));
                if role == PairingRole::Controller && self.sides.contains(&side) {
                    pairing.assign_partner(START, Some(id(1))).unwrap();
                }
                Client {
                    pairing,
                    link: Link::Closed,
                    active: false,
                    rejected_by: None,
                    pinged_rejecter: false,
                }
            })
            .collect();
        let (calls, losses) = (self.calls, self.losses);
        let mut state = State { now: START, clients, network: Vec::new(), calls, losses };
        for side in self.sides {
            state.clients[*side].active = true;
            state.call(*side, |p, now| p.set_active(now, true));
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for side in self.sides.iter().copied() {
            let client = &state.clients[side];
            match client.link {
                Link::Opening => actions.push(Action::Open(side)),
                Link::Open if state.calls > 0 => actions.push(Action::Break(side)),
                _ => {}
            }
            if state.calls == 0 {
                continue;
            }
            actions.push(Action::Activate(side, !client.active));
            for partner in self.sides.iter().copied().map(Some).chain([None]) {
                let fits = partner.is_none_or(|p| CLIENTS[p].1 != CLIENTS[side].1);
                if fits && client.pairing.partner() != partner.map(id).as_ref() {
                    actions.push(Action::Assign(side, partner));
                }
            }
        }
        for at in 0..state.network.len() {
            actions.push(Action::Deliver(at));
            if state.losses > 0 {
                actions.push(Action::Lose(at));
            }
        }
        if state.now.since(START) < TICK.mul(self.ticks) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Open(side) => {
                state.clients[side].link = Link::Open;
                state.call(side, Pairing::connection_open);
            }
            Action::Break(side) => {
                state.calls -= 1;
                state.clients[side].link = Link::Closed;
                state.network.retain(|(from, _)| *from != side);
                state.call(side, Pairing::connection_closed);
            }
            Action::Activate(side, active) => {
                state.calls -= 1;
                state.clients[side].active = active;
                state.call(side, |p, now| p.set_active(now, active));
            }
            Action::Assign(side, partner) => {
                state.calls -= 1;
                state.assign(side, partner);
            }
            Action::Deliver(at) => state.deliver(at),
            Action::Lose(at) => {
                state.losses -= 1;
                state.network.remove(at);
            }
            Action::Tick => state.tick(),
        }
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.network.len() <= self.network
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no illegal state", |_, state: &State| {
                state.clients.iter().all(|client| {
                    let p = &client.pairing;
                    let s = p.state();
                    s.is_active() == client.active
                        && s.is_connected() == (client.active && client.link == Link::Open)
                        && (s == PairingState::Connecting)
                            == (client.active && client.link == Link::Opening)
                        && s.is_paired()
                            == (s.is_connected() && p.partner().is_some() && p.rejected().is_none())
                        && (client.active || client.link == Link::Closed)
                })
            }),
            Property::always("a rejected partner never gets another ping", |_, state: &State| {
                state.clients.iter().all(|client| !client.pinged_rejecter)
            }),
            Property::always(
                "nobody stays searching for a partner that is interacting",
                |model: &Self, state: &State| {
                    let calm = state.calm();
                    let pairs =
                        model.sides.iter().flat_map(|a| model.sides.iter().map(|b| (*a, *b)));
                    pairs.into_iter().all(|(a, b)| {
                        a == b
                            || calm.state(a) != PairingState::Searching
                            || !calm.is_partner(a, b)
                            || calm.state(b) != PairingState::Interacting
                    })
                },
            ),
            Property::always(
                "two that want each other find each other",
                |model: &Self, state: &State| {
                    let calm = state.calm();
                    let pairs =
                        model.sides.iter().flat_map(|a| model.sides.iter().map(|b| (*a, *b)));
                    pairs.into_iter().all(|(a, b)| {
                        let want =
                            |a: usize, b: usize| calm.state(a).is_paired() && calm.is_partner(a, b);
                        !(want(a, b) && want(b, a))
                            || (calm.state(a) == PairingState::Interacting
                                && calm.state(b) == PairingState::Interacting)
                    })
                },
            ),
            Property::always(
                "a controller that is alone gets its responder",
                |model: &Self, s: &State| {
                    let calm = s.calm();
                    // Both are there, it was not rejected, and nobody else is: they must be a pair.
                    model.sides != [0, 1]
                        || !calm.is_partner(0, 1)
                        || !calm.state(0).is_connected()
                        || !calm.state(1).is_connected()
                        || calm.state(0) == PairingState::Interacting
                },
            ),
            Property::sometimes("a pair is made", |_, state: &State| {
                state.state(0) == PairingState::Interacting
                    && state.state(1) == PairingState::Interacting
            }),
            Property::sometimes("somebody is rejected or leaves", |model: &Self, state: &State| {
                if model.sides.len() == 3 {
                    state.clients.iter().any(|c| c.rejected_by.is_some())
                } else {
                    state.state(1) == PairingState::Interacting
                        && state.state(0) == PairingState::Passive
                }
            }),
        ]
    }
}

fn check(model: Pairs, least: usize) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done());
    let states = checker.unique_state_count();
    println!("{states} states, {} deep", checker.max_depth());
    assert!(states > least, "only {states} states: the model does not reach far");
}

/// One pair: applications that come, go and change their minds, losses, broken connections.
#[test]
fn two_parties_in_every_order_of_events() {
    check(Pairs { calls: 2, losses: 1, ticks: 2, network: 2, sides: &[0, 1] }, 1_000);
}

/// Two controllers that want one responder.
#[test]
fn two_controllers_contend_for_a_responder() {
    check(Pairs { calls: 1, losses: 1, ticks: 1, network: 3, sides: &[0, 1, 2] }, 1_000);
}
