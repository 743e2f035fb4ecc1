//! Any order of calls, events and notices.

use super::*;
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Active(bool),
    Client(Option<usize>),
    Token(bool),
    Partner(Option<usize>),
    Send(bool),
    Open,
    Closed,
    Aborted(usize),
    Event { kind: usize, from: usize, to: usize, role: Option<usize>, received: u64, subtype: u16 },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    let maybe = || proptest::option::of(0..NAMES.len());
    prop_oneof![
        1 => any::<bool>().prop_map(Step::Active),
        1 => maybe().prop_map(Step::Client),
        1 => any::<bool>().prop_map(Step::Token),
        3 => maybe().prop_map(Step::Partner),
        2 => any::<bool>().prop_map(Step::Send),
        4 => Just(Step::Open),
        1 => Just(Step::Closed),
        1 => (0..6usize).prop_map(Step::Aborted),
        12 => (0..6usize, name(), name(), proptest::option::of(0..2usize), 0..40u64, 0..6u16)
            .prop_map(|(kind, from, to, role, received, subtype)| Step::Event {
                kind, from, to, role, received, subtype
            }),
        4 => (0..40_000u64).prop_map(Step::Pass),
    ]
}

/// What has to be so after every step, whatever it was.
struct Watch {
    side: Side,
    connected: bool,
}

impl Watch {
    fn take(&mut self, step: &Step) {
        let side = &mut self.side;
        let name = |n: &Option<usize>| n.map(|n| client(NAMES[n]));
        match step {
            Step::Active(active) => side.call(|p, now| p.set_active(now, *active)),
            Step::Client(id) => drop(side.call(|p, now| p.assign_client_id(now, name(id)))),
            Step::Token(some) => {
                side.call(|p, now| p.assign_access_token(now, some.then(|| token("t"))));
            }
            Step::Partner(id) => drop(side.call(|p, now| p.assign_partner(now, name(id)))),
            Step::Send(buffered) => drop(side.call(|p, now| p.send(now, 0, b"x", *buffered))),
            Step::Open => side.call(Pairing::connection_open),
            Step::Closed => side.call(Pairing::connection_closed),
            Step::Aborted(n) => side.call(|p, now| p.connection_aborted(now, Abort::ALL[*n])),
            Step::Event { kind, from, to, role, received, subtype } => side.receive(&EventRef {
                subtype: *subtype,
                to: NAMES[*to],
                received: *received,
                role: role.map(|r| PairingRole::ALL[r]),
                ..event(EventType::ALL[*kind], NAMES[*from], PairingRole::Controller)
            }),
            Step::Pass(ms) => side.pass(Duration::from_millis(*ms)),
        }
    }

    fn check(&mut self, before: &Pairing) {
        let rejected_before = before.rejected().map(|_| before.partner().cloned());
        for output in core::mem::take(&mut self.side.log) {
            match output {
                Output::Connect { .. } => {
                    assert!(!self.connected, "one connection at a time");
                    self.connected = true;
                }
                Output::Disconnect => {
                    assert!(self.connected, "there is one to close");
                    self.connected = false;
                }
                Output::Send(event) => {
                    assert!(event.from.is_some() && event.from.as_ref() != Some(&event.to));
                    assert!(event.body.len() <= MAX_EVENT_BODY);
                    let to = Some(event.to);
                    let stays = before.rejected() == self.side.pairing.rejected();
                    if rejected_before == Some(to.clone()) && stays {
                        assert_eq!(event.kind, EventType::Reject, "a rejecter is left alone");
                    }
                }
                Output::Notice(Notice::State { old, new }) => assert_ne!(old, new),
                Output::Notice(_) => {}
            }
        }
        let pairing = &self.side.pairing;
        if pairing.link == SourceLink::Closed {
            self.connected = false;
        }
        assert_eq!(
            pairing.state().is_connected(),
            pairing.link == SourceLink::Open && pairing.active && pairing.client.is_some()
        );
        assert!(!pairing.state().is_paired() || pairing.partner().is_some());
        assert!(!pairing.state().is_paired() || pairing.rejected().is_none());
        assert!(pairing.partner().is_none() || pairing.partner() != pairing.client());
        assert!(pairing.waiting_events() <= pairing.config.queue_events);
        if pairing.state().is_paired() {
            let due = pairing.next_timeout().expect("pings go on");
            assert!(due <= self.side.now + Duration::from_secs(10));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_things_breaks_a_pairing(
        controller in any::<bool>(),
        connected in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let role = if controller { PairingRole::Controller } else { PairingRole::Responder };
        let side = if connected { Side::connected(role, "a") } else { Side::new(role) };
        let mut watch = Watch { side, connected };
        for step in &steps {
            let before = watch.side.pairing.clone();
            watch.take(step);
            watch.check(&before);
        }
    }

    #[test]
    fn the_same_steps_give_the_same_bytes(steps in proptest::collection::vec(step(), 1..40)) {
        let run = || {
            let side = Side::connected(PairingRole::Controller, "a");
            let mut watch = Watch { side, connected: true };
            for step in &steps {
                watch.take(step);
            }
            watch.side.log
        };
        prop_assert_eq!(run(), run());
    }
}
