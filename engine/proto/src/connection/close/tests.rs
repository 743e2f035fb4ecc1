//! A model of two connections that close, over a network that loses and reorders, checked in every
//! order of events. Statuses are moved by the real transition table, CLOSE by the real [`Closing`];
//! the functions here that have the names of `Connection`'s do what those do with both.

use super::*;
use crate::error::Reason;
use crate::status::{Status, Trigger};
use stateright::{Checker, Model, Property};

const TICK: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(2);
const FIN_WAIT: Duration = Duration::from_secs(1);
const CONNECTED: Duration = Duration::from_secs(2);
/// Time passes up to here; the first side may close up to a tick after the start, and is over by
/// then.
const HORIZON: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Packet {
    Data,
    Ack,
    Ping,
    Close,
    CloseAck,
}

const PACKETS: [Packet; 5] =
    [Packet::Data, Packet::Ack, Packet::Ping, Packet::Close, Packet::CloseAck];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Side {
    status: Status,
    closing: Option<Closing>,
    /// Reliable data that the peer has not acknowledged.
    unacked: bool,
    ack_due: bool,
    close_ack_due: bool,
    ping_due: bool,
    data_due: bool,
    linger: Option<Instant>,
    fin_wait: Option<Instant>,
    connected: Option<Instant>,
    /// When the application closed while the connection worked.
    closed_at: Option<Instant>,
    /// It said CLOSE while nothing on the wire may say so.
    broke_silence: bool,
    /// It ended its linger early although data was unacknowledged.
    cut_short: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: Instant,
    sides: [Side; 2],
    /// What is on its way to each side; bit n is packet n.
    network: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Close { side: usize, linger: bool },
    Deliver { to: usize, packet: usize },
    Lose { to: usize, packet: usize },
}

struct Closes {
    /// Which sides have data that the peer never acknowledges: it lives, and does not read.
    stalled: [bool; 2],
}

impl Side {
    fn new(now: Instant, unacked: bool) -> Self {
        Self {
            status: Status::Connected,
            closing: None,
            unacked,
            ack_due: false,
            close_ack_due: false,
            ping_due: false,
            data_due: unacked,
            linger: None,
            fin_wait: None,
            connected: Some(now + CONNECTED),
            closed_at: None,
            broke_silence: false,
            cut_short: false,
        }
    }

    fn is_transferring(&self) -> bool {
        matches!(self.status, Status::Connected | Status::Linger)
    }

    fn apply(&mut self, trigger: Trigger) {
        if let Some(new) = self.status.on(trigger) {
            self.status = new;
        }
    }

    fn new_closing(reason: Reason) -> Closing {
        Closing::new(CloseReason::new(reason, ""), false, Duration::from_millis(500))
    }

    fn start_closing(&mut self, now: Instant, reason: Reason) {
        self.closing = Some(Self::new_closing(reason));
        self.linger = None;
        self.connected = None;
        self.fin_wait = Some(now + FIN_WAIT);
    }

    fn close(&mut self, now: Instant, linger: bool) {
        match self.status {
            Status::ClosedByPeer | Status::ProblemDetectedLocally => self.apply(Trigger::Close),
            Status::Connected if linger && self.unacked => {
                self.closed_at = Some(now);
                self.linger = Some(now + LINGER);
                let mut closing = Self::new_closing(Reason::APP);
                closing.due = false;
                self.closing = Some(closing);
                self.apply(Trigger::CloseLinger);
            }
            _ => {
                self.closed_at = Some(now);
                self.start_closing(now, Reason::APP);
                self.apply(Trigger::Close);
            }
        }
    }

    fn fail(&mut self, now: Instant) {
        match self.status {
            Status::Connected => {
                self.start_closing(now, Reason::TIMEOUT);
                self.apply(Trigger::Problem);
            }
            Status::Linger | Status::FinWait => {
                self.closing = Some(Self::new_closing(Reason::TIMEOUT));
                self.apply(Trigger::Problem);
            }
            _ => {}
        }
    }

    fn peer_closed(&mut self) {
        if !self.status.is_open_to_application() || self.status.on(Trigger::PeerClosed).is_none() {
            if let Some(closing) = &mut self.closing {
                closing.on_acknowledged();
            }
            self.apply(Trigger::PeerClosed);
            return;
        }
        let mut closing = Self::new_closing(Reason::APP);
        closing.on_acknowledged();
        self.closing = Some(closing);
        (self.linger, self.connected, self.fin_wait) = (None, None, None);
        self.apply(Trigger::PeerClosed);
    }

    fn flushed(&mut self, now: Instant, reason: Reason) {
        self.cut_short |= self.unacked && reason != Reason::LINGER_EXPIRED;
        self.start_closing(now, reason);
        self.apply(Trigger::Flushed);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if let Some(closing) = &mut self.closing {
            closing.on_timeout(now);
        }
        if due(&mut self.connected) {
            self.fail(now);
        }
        if due(&mut self.linger) && self.status == Status::Linger {
            self.flushed(now, Reason::LINGER_EXPIRED);
        }
        if due(&mut self.fin_wait) {
            if let Some(closing) = &mut self.closing {
                closing.give_up();
            }
            self.apply(Trigger::FinWaitOver);
        }
        // The keep-alive, and the recovery's repetition.
        self.ping_due = self.is_transferring();
        self.data_due = self.is_transferring() && self.unacked;
    }

    fn receive(&mut self, now: Instant, packet: Packet, stalled: bool) {
        if self.is_transferring() {
            self.connected = Some(now + CONNECTED);
        }
        match packet {
            Packet::Data => self.ack_due = self.is_transferring() && !stalled,
            Packet::Ack if self.is_transferring() => self.unacked = false,
            Packet::Ack | Packet::Ping => {}
            Packet::Close => {
                self.close_ack_due = self.status != Status::Dead;
                self.peer_closed();
            }
            Packet::CloseAck => {
                if let Some(closing) = &mut self.closing {
                    closing.on_acknowledged();
                }
            }
        }
        let late = !matches!(packet, Packet::Close | Packet::CloseAck)
            && matches!(self.status, Status::FinWait | Status::ProblemDetectedLocally);
        if late
            && let Some(closing) = &mut self.closing
            && !closing.acknowledged
        {
            closing.on_late_packet(now);
        }
    }

    fn settle(&mut self, now: Instant) {
        if self.status == Status::Linger && !self.unacked {
            self.flushed(now, Reason::APP);
        }
        if self.status == Status::FinWait && self.closing.as_ref().is_some_and(|c| c.acknowledged) {
            self.apply(Trigger::FinWaitOver);
        }
    }

    fn transmit(&mut self, now: Instant) -> u8 {
        let mut packets = 0;
        let mut put = |due: &mut bool, packet: Packet| {
            if core::mem::take(due) {
                packets |= 1 << packet as u8;
            }
        };
        if self.is_transferring() {
            put(&mut self.data_due, Packet::Data);
            put(&mut self.ack_due, Packet::Ack);
            put(&mut self.ping_due, Packet::Ping);
        }
        put(&mut self.close_ack_due, Packet::CloseAck);
        if let Some(closing) = &mut self.closing
            && closing.due
            && !closing.acknowledged
        {
            self.broke_silence |= self.status == Status::Linger;
            closing.on_sent(now);
            packets |= 1 << Packet::Close as u8;
        }
        packets
    }
}

impl State {
    /// What ends every batch.
    fn settle(&mut self) {
        for (side, to) in [(0, 1), (1, 0)] {
            self.sides[side].settle(self.now);
            self.network[to] |= self.sides[side].transmit(self.now);
        }
    }
}

impl Model for Closes {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let now = Instant::from_nanos(1_000_000_000);
        [[true, false], [true, true]]
            .into_iter()
            .map(|unacked| State {
                now,
                sides: unacked.map(|unacked| Side::new(now, unacked)),
                network: [0; 2],
            })
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for to in 0..2 {
            for packet in (0..PACKETS.len()).filter(|p| state.network[to] & 1 << p != 0) {
                actions.push(Action::Deliver { to, packet });
                actions.push(Action::Lose { to, packet });
            }
        }
        let started = state.now.since(Instant::from_nanos(1_000_000_000));
        if started < TICK.mul(HORIZON) {
            actions.push(Action::Tick);
        }
        for side in 0..2 {
            let open = state.sides[side].status.is_open_to_application();
            // The first side closes at the start; the other whenever it likes.
            if open && (side == 1 || started < TICK.mul(2)) {
                let with_linger = [true, false];
                actions.extend(with_linger.map(|linger| Action::Close { side, linger }));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => {
                state.now += TICK;
                for side in &mut state.sides {
                    side.handle_timeout(state.now);
                }
            }
            Action::Close { side, linger } => state.sides[side].close(state.now, linger),
            Action::Lose { to, packet } => state.network[to] &= !(1 << packet),
            Action::Deliver { to, packet } => {
                state.network[to] &= !(1 << packet);
                // Whether the data of the other side is acknowledged.
                let stalled = self.stalled[1 - to];
                state.sides[to].receive(state.now, PACKETS[packet], stalled);
            }
        }
        state.settle();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("a lingering close ends", |_, state: &State| {
                state.sides.iter().all(|side| {
                    let over =
                        side.closed_at.is_some_and(|at| state.now.since(at) >= LINGER + FIN_WAIT);
                    !over || side.status == Status::Dead
                })
            }),
            Property::always("linger and fin-wait keep their limits", |_, state: &State| {
                state.sides.iter().all(|side| match side.status {
                    Status::Linger => side.linger.is_some_and(|at| at > state.now),
                    Status::FinWait => side.fin_wait.is_some_and(|at| at > state.now),
                    _ => true,
                })
            }),
            Property::always("nothing tells the peer before linger is over", |_, state: &State| {
                state.sides.iter().all(|side| !side.broke_silence)
            }),
            Property::always("linger waits for the last byte or its limit", |_, state: &State| {
                state.sides.iter().all(|side| !side.cut_short)
            }),
            Property::sometimes("the limit runs out", |_, state: &State| {
                state.sides.iter().any(|side| {
                    let reason = side.closing.as_ref().map(|c| c.reason.reason);
                    reason == Some(Reason::LINGER_EXPIRED)
                })
            }),
            Property::sometimes("both linger", |_, state: &State| {
                state.sides.iter().all(|side| side.status == Status::Linger)
            }),
        ];
        if !self.stalled[0] {
            properties.push(Property::sometimes("all is delivered and known", |_, s: &State| {
                let [one, other] = &s.sides;
                one.status == Status::Dead
                    && !one.unacked
                    && one.closing.as_ref().is_some_and(|c| c.acknowledged)
                    && other.status == Status::ClosedByPeer
            }));
        }
        properties
    }
}

#[test]
fn a_lingering_close_always_ends() {
    for stalled in [[false, false], [true, true]] {
        let checker = Closes { stalled }.checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        assert!(checker.is_done());
        let states = checker.unique_state_count();
        println!("{states} states, {} deep", checker.max_depth());
        assert!(states > 1_000, "only {states} states: the model does not reach far");
    }
}
