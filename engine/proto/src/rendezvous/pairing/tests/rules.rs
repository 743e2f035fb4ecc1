//! Rows: states, meta-states, the state as a function, roles, filtering.

use super::*;
use PairingState::*;

#[test]
fn the_state_is_a_function_in_the_stated_order() {
    for active in [false, true] {
        for link in SourceLink::ALL {
            for partner in PartnerView::ALL {
                let expected = if !active {
                    Passive
                } else if link == SourceLink::Open {
                    match partner {
                        PartnerView::Heard => Interacting,
                        PartnerView::Silent => Searching,
                        PartnerView::Unusable => ReadyToPair,
                    }
                } else if link == SourceLink::Opening {
                    Connecting
                } else {
                    ReadyToConnect
                };
                assert_eq!(state_of(Inputs { active, link, partner }), expected);
            }
        }
    }
}

#[test]
fn meta_states() {
    let with = |f: fn(PairingState) -> bool| -> Vec<PairingState> {
        PairingState::ALL.into_iter().filter(|s| f(*s)).collect()
    };
    assert_eq!(
        with(PairingState::is_active),
        [ReadyToConnect, Connecting, ReadyToPair, Searching, Interacting]
    );
    assert_eq!(with(PairingState::is_connected), [ReadyToPair, Searching, Interacting]);
    assert_eq!(with(PairingState::is_paired), [Searching, Interacting]);
}

#[test]
fn all_states_are_reached_in_a_life() {
    let mut side = Side::new(PairingRole::Controller);
    assert_eq!(side.state(), Passive);
    side.call(|p, now| p.set_active(now, true));
    assert_eq!(side.state(), Passive, "no client id yet");
    side.call(|p, now| p.assign_client_id(now, Some(client("me"))).unwrap());
    assert_eq!(side.state(), ReadyToConnect);
    assert!(side.connects.is_empty(), "no token yet");
    side.call(|p, now| p.assign_access_token(now, Some(token("t"))));
    assert_eq!(side.state(), Connecting);
    assert_eq!(side.connects, [(client("me"), token("t"), PairingRole::Controller)]);
    side.call(Pairing::connection_open);
    assert_eq!(side.state(), ReadyToPair);
    side.assign(Some("you"));
    assert_eq!(side.state(), Searching);
    side.hear(EventType::Ping, "you");
    assert_eq!(side.state(), Interacting);
    let states: Vec<_> = side
        .notices
        .iter()
        .filter_map(|n| match n {
            Notice::State { old, new } => Some((*old, *new)),
            _ => None,
        })
        .collect();
    assert_eq!(
        states,
        [
            (Passive, ReadyToConnect),
            (ReadyToConnect, Connecting),
            (Connecting, ReadyToPair),
            (ReadyToPair, Searching),
            (Searching, Interacting)
        ]
    );
}

/// Both parts of the table written down a second time.
#[test]
fn reactions_are_as_written_here() {
    use EventType::*;
    let expected = |role, kind, sender, sender_role| match (kind, sender) {
        (Ping, Sender::Partner) => Reaction::Hear,
        (Application | Route, Sender::Partner) => Reaction::Deliver,
        (Inactive, Sender::Partner) => Reaction::Lose,
        (Unassign, Sender::Partner | Sender::Rejecter) => Reaction::Drop,
        (Reject, Sender::Partner) => Reaction::Leave,
        (Ping, Sender::Stranger) => Reaction::Answer(super::Reject::AssignedToOther),
        (Ping, Sender::Anybody) => match (role, sender_role) {
            (PairingRole::Controller, _) => Reaction::Answer(super::Reject::NotPaired),
            (PairingRole::Responder, Some(PairingRole::Controller)) => Reaction::Adopt,
            _ => Reaction::Ignore,
        },
        _ => Reaction::Ignore,
    };
    let sender_roles = [None, Some(PairingRole::Controller), Some(PairingRole::Responder)];
    for state in PairingState::ALL {
        for role in PairingRole::ALL {
            for kind in EventType::ALL {
                for sender in Sender::ALL {
                    for sender_role in sender_roles {
                        let expected = if state.is_connected() {
                            expected(role, kind, sender, sender_role)
                        } else {
                            Reaction::Ignore
                        };
                        let found = reaction(state, role, kind, sender, sender_role);
                        assert_eq!(found, expected, "{state} {role} {kind} {sender:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_rule_decides_somewhere() {
    for (i, rule) in STATE_RULES.iter().enumerate() {
        let mut decides = false;
        for active in [false, true] {
            for link in SourceLink::ALL {
                for partner in PartnerView::ALL {
                    let fits = |r: &StateRule| {
                        r.active.is_none_or(|a| a == active)
                            && r.link.is_none_or(|l| l == link)
                            && r.partner.is_none_or(|p| p == partner)
                    };
                    decides |= STATE_RULES.iter().position(fits) == Some(i);
                }
            }
        }
        assert!(decides, "{rule:?}");
    }
    for (i, rule) in EVENT_RULES.iter().enumerate() {
        let same = |r: &EventRule| {
            r.kind == rule.kind
                && r.sender == rule.sender
                && (r.role.is_none() || r.role == rule.role)
        };
        assert_eq!(EVENT_RULES.iter().position(same), Some(i), "{rule:?} is hidden");
    }
}

#[test]
fn pings_at_once_exactly_where_stated() {
    for old in PairingState::ALL {
        for new in PairingState::ALL.into_iter().filter(|new| *new != old) {
            let expected = new == Interacting || (new == Searching && old != Interacting);
            assert_eq!(pings_at_once(old, new), expected, "{old} to {new}");
        }
    }
}

/// Row "filtering": only events of the assigned partner reach the application; apart from pings,
/// invalid events are ignored in silence.
#[test]
fn only_the_partner_reaches_the_application() {
    for role in PairingRole::ALL {
        let mut side = Side::interacting(role, "me", "you");
        for kind in EventType::ALL.into_iter().filter(|k| *k != EventType::Ping) {
            side.hear(kind, "other");
        }
        assert!(side.log.is_empty(), "{:?}", side.log);
        let theirs = event(EventType::Application, "you", role.partner());
        side.receive(&EventRef { to: "me", subtype: 9, body: b"x", ..theirs });
        assert!(matches!(&side.notices[..], [Notice::Event { subtype: 9, .. }]));
        side.clear();
        side.receive(&EventRef { to: "somebody", body: b"x", ..theirs });
        side.receive(&EventRef { to: "me", from: "me", kind: EventType::Ping, ..theirs });
        assert!(side.log.is_empty(), "not for us, or in our own name");
    }
}

#[test]
fn settings_are_checked() {
    let with = |f: fn(&mut PairingConfig)| {
        let mut config = PairingConfig::default();
        f(&mut config);
        Pairing::new(PairingRole::Controller, config).map(drop)
    };
    with(|_| {}).unwrap();
    with(|c| c.event_interval = Duration::ZERO).unwrap();
    for (field, bad) in [
        ("searching_ping", with(|c| c.searching_ping = Duration::ZERO)),
        ("interacting_ping", with(|c| c.interacting_ping = Duration::ZERO)),
        ("partner_limit", with(|c| c.partner_limit = Duration::from_secs(19))),
        ("queue_events", with(|c| c.queue_events = 0)),
        ("queue_bytes", with(|c| c.queue_bytes = 100)),
        ("backoff", with(|c| c.backoff = Duration::ZERO)),
        ("backoff_max", with(|c| c.backoff_max = Duration::from_millis(1))),
    ] {
        assert!(bad.unwrap_err().to_string().starts_with(field), "{field}");
    }
}

#[test]
fn nobody_is_its_own_partner() {
    let mut side = Side::connected(PairingRole::Controller, "me");
    assert!(side.call(|p, now| p.assign_partner(now, Some(client("me")))).is_err());
    side.assign(Some("you"));
    assert!(side.call(|p, now| p.assign_client_id(now, Some(client("you")))).is_err());
    assert_eq!(side.pairing.client(), Some(&client("me")));
}
