//! A model of two peers that connect to each other at once, over a network that loses, reorders and
//! repeats, checked in every order of events. What is decided about the two connections is decided by
//! the real [`Contender`], statuses are moved by the real transition table; the functions here that
//! have the names of `Endpoint`'s and `Connection`'s do what those do with both.

use super::*;
use crate::status::Trigger;
use stateright::{Checker, Model, Property};
use std::cell::RefCell;
use std::net::Ipv6Addr;
use std::rc::Rc;

/// The number that stands for a side's own connection.
const OWN: u32 = 7;
const EVER: Instant = Instant::from_nanos(u64::MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Packet {
    Request,
    /// The host's proof.
    Answer,
    /// The client's proof, and its AuthenticationRequest.
    Proof,
    Accepted,
    Rejected,
    ClosedByClient,
    ClosedByHost,
}

const PACKETS: [Packet; 7] = [
    Packet::Request,
    Packet::Answer,
    Packet::Proof,
    Packet::Accepted,
    Packet::Rejected,
    Packet::ClosedByClient,
    Packet::ClosedByHost,
];

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct End {
    status: Status,
    began: Instant,
    agreed: Option<Instant>,
    /// The other side has proved itself.
    proven: bool,
    /// Host: whether the application knows it.
    hold: Hold,
    superseded: bool,
    /// Client: the other side's has waited for it long enough.
    late: bool,
}

/// What a peer has: its own connection, and the other one's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Side {
    own: Option<End>,
    host: Option<End>,
    /// Time has passed since the last event that was noted with its time.
    passed: bool,
}

/// What has happened to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Past {
    /// Something ended it: a failure, a time-out, an application that rejects.
    failed: bool,
    /// Its client failed when it had proved itself: the other side may be deciding for it.
    broke: bool,
    /// It was begun by a side that was told of the other one, or had accepted that already.
    warned: bool,
    apart: bool,
    /// It reached its host before that heard of the acceptance of its own.
    overtook: bool,
    /// Its client waited in vain for an answer of any kind.
    hung: bool,
    /// Its client gave it up before it had proved anything, for one that was accepted.
    yielded: bool,
    /// It ended without a word, or was told a second time, although the application knew it.
    wronged: bool,
    /// It had to wait when it was accepted.
    waited: bool,
}

/// The connection with number n is made by side n.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    sides: [Side; 2],
    /// What was ever sent on each connection: it may arrive at any time, often or never. Bit n is
    /// packet n.
    network: [u8; 2],
    past: [Past; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The application connects.
    Begin(usize),
    Deliver(usize, usize),
    /// The application of this side accepts or rejects the other one's connection.
    Accept(usize),
    Reject(usize),
    /// What waits for this side's own connection has waited long enough.
    IsLate(usize),
    /// This side's own connection fails, or the other one's does here.
    OwnFails(usize),
    HostFails(usize),
    Tick(usize),
}

struct Glare {
    /// Who the two are, in whatever order.
    peers: [Option<PeerId>; 2],
    /// Handshakes fail and time out, and applications reject.
    faults: bool,
    /// This side answers nobody.
    deaf: Option<usize>,
}

impl End {
    fn new(now: Instant) -> Self {
        Self {
            status: Status::Connecting,
            began: now,
            agreed: None,
            proven: false,
            hold: Hold::Told,
            superseded: false,
            late: false,
        }
    }

    fn apply(&mut self, trigger: Trigger) {
        if let Some(new) = self.status.on(trigger) {
            self.status = new;
        }
    }

    fn connects(&self) -> bool {
        self.status == Status::Connecting
    }

    fn is_told(&self) -> bool {
        matches!(self.hold, Hold::Told | Hold::Accepting)
    }

    /// A connection that the application does not know ends for nobody.
    fn peer_closed(&mut self) {
        if self.is_told() { self.apply(Trigger::PeerClosed) } else { self.discard() }
    }

    fn fail(&mut self) {
        if self.is_told() { self.apply(Trigger::Problem) } else { self.discard() }
    }

    fn discard(&mut self) {
        self.status = Status::Dead;
    }

    fn superseded(&mut self) {
        self.superseded = true;
        self.peer_closed();
    }

    fn awaits_acceptance(&self) -> bool {
        self.connects() && self.proven
    }
}

impl Side {
    /// Moments at which something was noted count, and how much time lies between them does not.
    fn renumber(&mut self) {
        let mut ends: Vec<_> = [&mut self.own, &mut self.host].into_iter().flatten().collect();
        let mut moments: Vec<Instant> =
            ends.iter().flat_map(|e| [Some(e.began), e.agreed]).flatten().collect();
        moments.sort();
        moments.dedup();
        let number = |at: Instant| {
            let place = moments.binary_search(&at).expect("one of them");
            Instant::from_nanos(place as u64 + 1)
        };
        for end in &mut ends {
            end.began = number(end.began);
            end.agreed = end.agreed.map(number);
        }
    }

    fn now(&self) -> Instant {
        let ends = [&self.own, &self.host];
        let moments = ends.into_iter().flatten().flat_map(|e| [Some(e.began), e.agreed]).flatten();
        let last = moments.max().unwrap_or(Instant::ZERO);
        Instant::from_nanos(last.as_nanos() + u64::from(self.passed))
    }
}

impl State {
    fn contender(model: &Glare, side: usize, end: &End, is_own: bool) -> Contender {
        let client = if is_own { side } else { 1 - side };
        let first = ConnectionId([client as u8; 8]);
        // Every host shows a certificate.
        let other = model.peers[1 - side].or(is_own.then_some(PeerId([99; 32])));
        Contender {
            relay: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1),
            status: end.status,
            precedence: model.peers[client].map(|id| (id, first)),
            peer: other.filter(|_| end.proven),
            began: end.began,
            hopes_until: if end.late { Instant::ZERO } else { EVER },
            agreed: end.agreed,
        }
    }

    fn ours(&self, model: &Glare, side: usize) -> impl Iterator<Item = (u32, Contender)> {
        let own = self.sides[side].own.as_ref();
        own.map(|end| (OWN, Self::contender(model, side, end, true))).into_iter()
    }

    /// What ends every batch, and every call.
    fn judge(&mut self, model: &Glare, side: usize) {
        let Some(host) = self.sides[side].host.as_ref().filter(|h| h.awaits_acceptance()) else {
            return;
        };
        let hold = host.hold;
        let theirs = Self::contender(model, side, host, false);
        let step = theirs.step(self.sides[side].now(), hold, self.ours(model, side));
        let losers = self.ours(model, side).filter(|(_, own)| theirs.takes_place_of(own)).count();
        let conn = 1 - side;
        let now = self.sides[side].now();
        let Side { own, host: Some(host), passed } = &mut self.sides[side] else { return };
        match step {
            Step::Keep(_) => self.past[conn].waited |= hold == Hold::Accepting,
            Step::Tell => {
                self.past[conn].wronged |= host.is_told();
                host.hold = Hold::Told;
            }
            Step::Discard => {
                self.past[conn].wronged |= host.is_told();
                host.discard();
            }
            Step::GiveWay(_) => host.superseded(),
            Step::Accept => {
                (host.agreed, *passed) = (Some(now), false);
                host.apply(Trigger::PeerAgreed);
                if let Some(own) = own.as_mut().filter(|_| losers > 0) {
                    self.past[side].yielded = !own.proven;
                    own.superseded();
                }
                self.send(conn, Packet::Accepted);
            }
        }
    }

    fn begin(&mut self, side: usize) {
        let now = self.sides[side].now();
        if let Some(host) = &self.sides[side].host {
            self.past[side].warned = host.is_told();
            self.past[side].apart = host.agreed.is_some();
        }
        self.sides[side].own = Some(End::new(now));
        self.sides[side].passed = false;
        self.send(side, Packet::Request);
    }

    fn accept(&mut self, model: &Glare, side: usize) {
        let host = self.sides[side].host.as_mut();
        if let Some(host) = host.filter(|h| h.awaits_acceptance() && h.hold == Hold::Told) {
            host.hold = Hold::Accepting;
        }
        self.judge(model, side);
    }

    fn send(&mut self, conn: usize, packet: Packet) {
        self.network[conn] |= 1 << packet as u8;
    }

    fn was_sent(&self, conn: usize, packet: Packet) -> bool {
        self.network[conn] & 1 << packet as u8 != 0
    }

    /// Whether a packet can arrive now. Packets take time: no answer to one comes at the moment at
    /// which that arrived.
    fn arrives(&self, conn: usize, packet: Packet) -> bool {
        let at_host = &self.sides[1 - conn];
        let at_once = || at_host.host.as_ref().is_some_and(|h| h.began == at_host.now());
        self.was_sent(conn, packet) && !(packet == Packet::Answer && at_once())
    }

    fn deliver(&mut self, model: &Glare, conn: usize, packet: Packet) {
        let (at_client, at_host) = (conn, 1 - conn);
        match packet {
            Packet::Request => {
                let side = &mut self.sides[at_host];
                if side.host.is_none() && model.deaf != Some(at_host) {
                    let own = side.own.as_ref();
                    self.past[conn].overtook = own.is_some_and(|own| own.agreed.is_none());
                    side.host = Some(End { hold: Hold::Held, ..End::new(side.now()) });
                    side.passed = false;
                    self.send(conn, Packet::Answer);
                }
            }
            Packet::Answer => {
                if let Some(own) = self.sides[at_client].own.as_mut().filter(|e| e.connects()) {
                    own.proven = true;
                    self.send(conn, Packet::Proof);
                }
            }
            Packet::Proof => {
                if let Some(host) = self.sides[at_host].host.as_mut().filter(|e| e.connects()) {
                    host.proven = true;
                }
            }
            Packet::Accepted => {
                let side = &mut self.sides[at_client];
                let now = side.now();
                if let Some(own) = side.own.as_mut().filter(|e| e.connects()) {
                    own.agreed = Some(now);
                    own.apply(Trigger::PeerAgreed);
                    side.passed = false;
                }
            }
            Packet::Rejected | Packet::ClosedByHost => {
                if let Some(own) = &mut self.sides[at_client].own {
                    own.peer_closed();
                }
            }
            Packet::ClosedByClient => {
                if let Some(host) = &mut self.sides[at_host].host {
                    host.peer_closed();
                }
            }
        }
        self.judge(model, at_client);
        self.judge(model, at_host);
    }

    fn own_fails(&mut self, side: usize) {
        let Some(own) = &mut self.sides[side].own else { return };
        self.past[side].failed = true;
        self.past[side].broke = own.proven;
        own.fail();
        self.send(side, Packet::ClosedByClient);
    }

    fn is_live(&self, conn: usize) -> bool {
        let ends = [&self.sides[conn].own, &self.sides[1 - conn].host];
        ends.into_iter().all(|e| e.as_ref().is_some_and(|e| e.status == Status::FindingRoute))
    }

    /// Only one side believes in it.
    fn is_half(&self, conn: usize) -> bool {
        let ends = [&self.sides[conn].own, &self.sides[1 - conn].host];
        let lives = ends.map(|e| e.as_ref().is_some_and(|e| e.status == Status::FindingRoute));
        lives[0] != lives[1]
    }

    /// What is sent again until it has arrived does arrive, and what is not is lost; applications
    /// accept whatever they are told; all that waits for nothing comes to its time-out.
    fn calm(&self, model: &Glare) -> Rc<Self> {
        thread_local! {
            static LAST: RefCell<Option<(State, Rc<State>)>> = RefCell::default();
        }
        LAST.with_borrow_mut(|last| match last {
            Some((state, calm)) if state == self => calm.clone(),
            _ => last.insert((self.clone(), Rc::new(self.calmed(model)))).1.clone(),
        })
    }

    fn calmed(&self, model: &Glare) -> Self {
        let mut state = self.clone();
        loop {
            state.sides.iter_mut().for_each(|side| side.passed = true);
            let before = state.clone();
            for conn in 0..2 {
                for packet in PACKETS {
                    if state.is_repeated(conn, packet) {
                        state.deliver(model, conn, packet);
                    }
                }
            }
            for side in 0..2 {
                state.accept(model, side);
            }
            if state == before {
                state.time_out(model);
            }
            if state == before {
                return state;
            }
        }
    }

    /// Whether the sender of a packet that may have been lost sends it again.
    fn is_repeated(&self, conn: usize, packet: Packet) -> bool {
        let own = self.sides[conn].own.as_ref();
        let host = self.sides[1 - conn].host.as_ref();
        match packet {
            Packet::Request => own.is_some_and(|e| e.connects() && !e.proven),
            Packet::Answer => host.is_some_and(|e| e.connects() && !e.proven),
            Packet::Proof => own.is_some_and(|e| e.connects() && e.proven),
            Packet::Accepted => host.is_some_and(|e| e.status == Status::FindingRoute),
            _ => self.was_sent(conn, packet),
        }
    }

    /// The first time-out of those that have to come.
    fn time_out(&mut self, model: &Glare) {
        for side in 0..2 {
            let other = self.sides[1 - side].own.as_ref();
            let alone = other.is_none_or(|other| !other.connects());
            let Side { own, host: Some(host), .. } = &mut self.sides[side] else { continue };
            if !host.connects() || host.hold != Hold::Held {
                continue;
            }
            if let Some(own) = own.as_mut().filter(|own| host.proven && !own.late) {
                own.late = true;
                return self.judge(model, side);
            }
            if alone {
                return host.discard();
            }
        }
        for side in 0..2 {
            if let Some(own) = self.sides[side].own.as_mut().filter(|o| o.connects()) {
                self.past[side].hung = true;
                own.fail();
                self.send(side, Packet::ClosedByClient);
                return self.judge(model, side);
            }
        }
    }
}

impl Model for Glare {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { sides: Default::default(), network: [0; 2], past: Default::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (n, side) in state.sides.iter().enumerate() {
            if side.own.is_none() {
                actions.push(Action::Begin(n));
            }
            let sent = (0..PACKETS.len()).filter(|p| state.arrives(n, PACKETS[*p]));
            actions.extend(sent.map(|packet| Action::Deliver(n, packet)));
            if !side.passed {
                actions.push(Action::Tick(n));
            }
            if let Some(own) = side.own.as_ref().filter(|own| own.connects()) {
                if !own.late {
                    actions.push(Action::IsLate(n));
                }
                if self.faults {
                    actions.push(Action::OwnFails(n));
                }
            }
            let Some(host) = side.host.as_ref().filter(|h| h.connects()) else { continue };
            if self.faults {
                actions.push(Action::HostFails(n));
            }
            match host.hold {
                _ if !host.proven => {}
                Hold::Told => {
                    actions.push(Action::Accept(n));
                    if self.faults {
                        actions.push(Action::Reject(n));
                    }
                }
                Hold::Held | Hold::Accepting => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin(side) => {
                state.begin(side);
                state.judge(self, side);
            }
            Action::Deliver(conn, packet) => state.deliver(self, conn, PACKETS[packet]),
            Action::Accept(side) => {
                state.accept(self, side);
            }
            Action::Reject(side) => {
                state.past[1 - side].failed = true;
                state.sides[side].host.as_mut()?.apply(Trigger::Close);
                state.send(1 - side, Packet::Rejected);
            }
            Action::IsLate(side) => {
                state.sides[side].own.as_mut()?.late = true;
                state.judge(self, side);
            }
            Action::OwnFails(side) => {
                state.own_fails(side);
                state.judge(self, side);
            }
            Action::HostFails(side) => {
                state.past[1 - side].failed = true;
                let host = state.sides[side].host.as_mut()?;
                host.fail();
                if host.proven {
                    state.send(1 - side, Packet::ClosedByHost);
                }
            }
            Action::Tick(side) => state.sides[side].passed = true,
        }
        state.sides.iter_mut().for_each(Side::renumber);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("nothing is held for ever", |model: &Self, state: &State| {
                let calm = state.calm(model);
                calm.sides.iter().flat_map(|s| [&s.own, &s.host]).flatten().all(|e| !e.connects())
            }),
            Property::always("what was told is told once, and its end too", |_, state: &State| {
                state.past.iter().all(|past| !past.wronged)
            }),
        ];
        if self.peers[0].is_some() {
            properties.extend(Self::with_certificates());
            if self.deaf.is_none() {
                properties.extend(self.what_happens());
            }
        } else {
            properties.push(Property::always("nothing gives way", |_, state: &State| {
                let ends = state.sides.iter().flat_map(|s| [&s.own, &s.host]).flatten();
                ends.into_iter().all(|e| !e.superseded)
            }));
            properties.push(Property::sometimes("both live", |_, state: &State| {
                state.is_live(0) && state.is_live(1)
            }));
        }
        properties
    }
}

impl Glare {
    /// Whether nobody answers this connection.
    fn is_vain(&self, conn: usize) -> bool {
        self.deaf == Some(1 - conn)
    }

    /// Which of the two goes first.
    fn first(&self) -> usize {
        usize::from(self.peers[1] < self.peers[0])
    }

    fn with_certificates() -> Vec<Property<Self>> {
        vec![
            Property::always("never two that were begun at once", |model: &Self, state: &State| {
                let apart = state.past.iter().any(|past| past.apart);
                let both = |s: &State| s.is_live(0) && s.is_live(1);
                apart || !(both(state) || both(&state.calm(model)))
            }),
            Property::always("both sides have the same one", |model: &Self, state: &State| {
                let calm = state.calm(model);
                let odd = calm.past.iter().any(|past| past.broke || past.apart);
                odd || !(calm.is_half(0) || calm.is_half(1))
            }),
            Property::always("it is the one of the lower identity", |model: &Self, s: &State| {
                let calm = s.calm(model);
                let first = model.first();
                let [one, other] = calm.past;
                let begun = calm.sides.iter().all(|side| side.own.is_some());
                let odd = one.failed || other.failed || one.apart || other.apart;
                let odd = odd || model.deaf.is_some();
                // The other one was accepted before the lower one had proved anything, and the
                // application was told of it in time or had to be in the end.
                let late = calm.sides[first].own.as_ref().is_some_and(|own| own.late);
                let late = calm.past[first].yielded && (late || calm.past[first].warned);
                !begun || odd || calm.is_live(if late { 1 - first } else { first })
            }),
            Property::always(
                "one begun after an acceptance lives, too",
                |model: &Self, s: &State| {
                    let calm = s.calm(model);
                    (0..2).all(|conn| {
                        let past = calm.past[conn];
                        let odd = past.failed || past.overtook || calm.past[1 - conn].overtook;
                        let odd = odd || model.is_vain(conn);
                        !past.apart || odd || calm.is_live(conn)
                    })
                },
            ),
            Property::always("not both are given up", |model: &Self, state: &State| {
                let calm = state.calm(model);
                let sound = |conn: usize| {
                    calm.sides[conn].own.is_some()
                        && !calm.past[conn].failed
                        && !calm.past[1 - conn].broke
                        && !model.is_vain(conn)
                };
                !(sound(0) || sound(1)) || calm.is_live(0) || calm.is_live(1)
            }),
            Property::always("nobody waits in vain", |model: &Self, state: &State| {
                let calm = state.calm(model);
                (0..2).all(|conn| {
                    let [past, other] = [calm.past[conn], calm.past[1 - conn]];
                    let alone = model.is_vain(conn) && !calm.is_live(1 - conn);
                    !past.hung || past.apart || past.failed || other.broke || alone
                })
            }),
            Property::always("who loses knows why", |model: &Self, state: &State| {
                let calm = state.calm(model);
                (0..2).all(|conn| {
                    let own = calm.sides[conn].own.as_ref();
                    let past = calm.past[conn];
                    own.is_none_or(|own| {
                        own.status == Status::FindingRoute
                            || own.superseded
                            || past.failed
                            || past.hung
                    })
                })
            }),
        ]
    }

    /// What the model must come to for the rest to mean something.
    fn what_happens(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::sometimes("the lower one lives", |model: &Self, state: &State| {
                let own = &state.sides[1 - model.first()].own;
                state.is_live(model.first()) && own.as_ref().is_some_and(|o| o.superseded)
            }),
            Property::sometimes("the higher one is accepted first", |model: &Self, s: &State| {
                s.is_live(1 - model.first()) && s.past[model.first()].yielded
            }),
            Property::sometimes("one that was told gives way", |_, state: &State| {
                let mut hosts = state.sides.iter().filter_map(|s| s.host.as_ref());
                hosts.any(|h| h.superseded)
            }),
            Property::sometimes("one waits when it is accepted", |_, state: &State| {
                state.past.iter().any(|past| past.waited)
            }),
            Property::sometimes("both live, one after the other", |_, state: &State| {
                state.is_live(0) && state.is_live(1)
            }),
        ];
        if self.faults {
            properties.push(Property::sometimes("one that waited lives", |_, state: &State| {
                (0..2).any(|conn| state.past[conn].waited && state.is_live(conn))
            }));
        }
        properties
    }
}

/// Searches everything that can happen to peers of these identities; `None` = nobody shows one.
fn check(identities: Option<[u8; 2]>, faults: bool, deaf: Option<usize>, least: usize) {
    let peers = identities.map_or([None; 2], |ids| ids.map(|n| Some(PeerId([n; 32]))));
    let checker = Glare { peers, faults, deaf }.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done());
    let states = checker.unique_state_count();
    println!("{states} states, {} deep", checker.max_depth());
    assert!(states > least, "only {states} states: the model does not reach far");
}

#[test]
fn one_of_two_survives_in_every_order_of_events() {
    check(Some([1, 2]), false, None, 5_000);
    check(Some([2, 1]), false, None, 5_000);
}

#[test]
fn one_of_two_survives_when_handshakes_fail() {
    check(Some([1, 2]), true, None, 50_000);
}

/// Only the first ids of the two connections tell them apart.
#[test]
fn one_of_two_survives_between_peers_of_one_identity() {
    check(Some([1, 1]), true, None, 50_000);
}

#[test]
fn one_of_two_survives_if_the_other_is_not_answered() {
    check(Some([1, 2]), true, Some(0), 100);
    check(Some([1, 2]), true, Some(1), 100);
}

#[test]
fn without_certificates_nothing_gives_way() {
    check(None, true, None, 50_000);
}
