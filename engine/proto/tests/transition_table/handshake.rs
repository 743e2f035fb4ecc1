//! The table of handshake states (behaviours §1).

use std::fmt::Write;
use trunkline_proto::error::Reason;
use trunkline_proto::handshake::{
    HandshakeEvent, HandshakeFacts, HandshakeFailure, HandshakeState,
};
use trunkline_proto::ids::Role;

const ROLES: [Role; 2] = [Role::Client, Role::Host];
const FAILURES: [HandshakeFailure; 3] =
    [HandshakeFailure::Timeout, HandshakeFailure::Authentication, HandshakeFailure::Other];

fn successors(state: HandshakeState) -> Vec<HandshakeState> {
    HandshakeEvent::ALL.iter().filter_map(|event| state.on(*event)).collect()
}

/// Everything that a connection can know.
fn all_facts() -> Vec<HandshakeFacts> {
    let mut all = Vec::new();
    for role in ROLES {
        for bits in 0..8u8 {
            for failure in [None].into_iter().chain(FAILURES.map(Some)) {
                all.push(HandshakeFacts {
                    role,
                    requested: bits & 1 != 0,
                    proven: bits & 2 != 0,
                    accepted: bits & 4 != 0,
                    failure,
                });
            }
        }
    }
    all
}

#[test]
fn all_lists_hold_every_value_once() {
    for (i, state) in HandshakeState::ALL.iter().enumerate() {
        assert_eq!(HandshakeState::ALL.iter().position(|s| s == state), Some(i), "{state:?} twice");
        // A match without a wildcard: a new value does not compile until it is looked at here.
        match state {
            HandshakeState::WaitingForConnectionResponse
            | HandshakeState::WaitingForAuthenticationResponse
            | HandshakeState::WaitingForConnectionRequest
            | HandshakeState::WaitingForAuthenticationRequest
            | HandshakeState::Ready
            | HandshakeState::ConnectionFailed(
                HandshakeFailure::Timeout
                | HandshakeFailure::Authentication
                | HandshakeFailure::Other,
            ) => {}
        }
    }
    for (i, event) in HandshakeEvent::ALL.iter().enumerate() {
        assert_eq!(HandshakeEvent::ALL.iter().position(|e| e == event), Some(i), "{event:?} twice");
        match event {
            HandshakeEvent::ConnectionRequest
            | HandshakeEvent::ConnectionResponse
            | HandshakeEvent::AuthenticationRequest
            | HandshakeEvent::AuthenticationResponse
            | HandshakeEvent::TimedOut
            | HandshakeEvent::Denied
            | HandshakeEvent::GivenUp => {}
        }
    }
}

/// The whole table, written down a second time.
#[test]
fn every_cell_is_as_written_here() {
    use HandshakeState::*;
    let failures = FAILURES.map(|failure| Some(ConnectionFailed(failure)));
    for state in HandshakeState::ALL {
        // ConnectionRequest, ConnectionResponse, AuthenticationRequest, AuthenticationResponse
        let (steps, fails): ([Option<HandshakeState>; 4], bool) = match state {
            WaitingForConnectionResponse => {
                ([None, Some(WaitingForAuthenticationResponse), None, None], true)
            }
            WaitingForAuthenticationResponse => ([None, None, None, Some(Ready)], true),
            WaitingForConnectionRequest => {
                ([Some(WaitingForAuthenticationRequest), None, None, None], false)
            }
            WaitingForAuthenticationRequest => ([None, None, Some(Ready), None], true),
            Ready | ConnectionFailed(_) => ([None; 4], false),
        };
        let failures = if fails { failures } else { [None; 3] };
        for (event, expected) in
            HandshakeEvent::ALL.into_iter().zip([&steps[..], &failures].concat())
        {
            assert_eq!(state.on(event), expected, "{state:?} on {event:?}");
        }
    }
}

#[test]
fn each_role_has_its_states_and_order_is_mandatory() {
    for role in ROLES {
        let first = HandshakeState::first(role);
        let states = super::reachable(first, successors);
        for state in HandshakeState::ALL {
            assert_eq!(states.contains(&state), state.belongs_to(role), "{role:?}: {state:?}");
        }
        // One way leads to Ready, and it leaves nothing out.
        let mut state = first;
        let mut steps = 0;
        while state != HandshakeState::Ready {
            let onward: Vec<_> = successors(state)
                .into_iter()
                .filter(|next| !matches!(next, HandshakeState::ConnectionFailed(_)))
                .collect();
            assert_eq!(onward.len(), 1, "{state:?} leads to {onward:?}");
            state = onward[0];
            steps += 1;
        }
        assert_eq!(steps, 2, "{role:?}");
    }
}

#[test]
fn an_end_is_an_end() {
    for state in HandshakeState::ALL {
        assert_eq!(successors(state).is_empty(), state.is_final(), "{state:?}");
        for next in successors(state) {
            assert!(
                !super::reachable(next, successors).contains(&state),
                "{state:?} comes back through {next:?}"
            );
        }
        assert!(
            super::reachable(state, successors).iter().any(|s| s.is_final()),
            "{state:?} never ends"
        );
    }
}

#[test]
fn facts_name_a_state_of_the_role() {
    for facts in all_facts() {
        let state = HandshakeState::of(&facts);
        assert!(state.belongs_to(facts.role), "{facts:?} gives {state:?}");
        assert_eq!(state == HandshakeState::Ready, facts.accepted, "{facts:?}");
        if let (false, Some(failure)) = (facts.accepted, facts.failure) {
            assert_eq!(state, HandshakeState::ConnectionFailed(failure), "{facts:?}");
        }
        if !facts.accepted && facts.failure.is_none() {
            assert!(!state.is_final(), "{facts:?} gives {state:?}");
        }
    }
}

/// A connection that learns one thing more, in the order in which things can be learnt, stays where
/// it is or moves as the table says.
#[test]
fn what_is_learnt_moves_as_the_table_says() {
    for before in all_facts() {
        let learns = |change: fn(&mut HandshakeFacts)| {
            let mut after = before;
            change(&mut after);
            let (old, new) = (HandshakeState::of(&before), HandshakeState::of(&after));
            let moved = HandshakeEvent::ALL.iter().any(|event| old.on(*event) == Some(new));
            assert!(old == new || moved, "{before:?}: from {old:?} to {new:?}");
        };
        let alive = before.failure.is_none() && !before.accepted;
        if alive {
            learns(|f| f.requested = true);
        }
        if alive && before.requested {
            learns(|f| f.proven = true);
            learns(|f| f.failure = Some(HandshakeFailure::Timeout));
            learns(|f| f.failure = Some(HandshakeFailure::Authentication));
            learns(|f| f.failure = Some(HandshakeFailure::Other));
        }
        if alive && before.requested && before.proven {
            learns(|f| f.accepted = true);
        }
        if before.accepted {
            learns(|f| f.failure = Some(HandshakeFailure::Timeout));
        }
    }
}

#[test]
fn reasons_say_how_an_attempt_failed() {
    use HandshakeFailure::{Authentication, Other, Timeout};
    for (role, by_peer) in ROLES.into_iter().flat_map(|role| [(role, false), (role, true)]) {
        let of = |reason| HandshakeFailure::of(role, reason, by_peer);
        assert_eq!(of(Reason::TIMEOUT), Timeout);
        for reason in
            [Reason::AUTHENTICATION, Reason::BAD_CERTIFICATE, Reason::BAD_CRYPTO, Reason::PROTOCOL]
        {
            assert_eq!(of(reason), Authentication, "{reason}");
        }
        for reason in [
            Reason::SHUTDOWN,
            Reason::LOCAL_LIMIT,
            Reason::LOCAL_NETWORK,
            Reason::VERSION,
            Reason::RESET,
            Reason::REFUSED,
            Reason::MISC,
            Reason::INTERNAL,
        ] {
            assert_eq!(of(reason), Other, "{reason}");
        }
        // The host's application denies; a client that closes has changed its mind.
        let denied = (role == Role::Host) != by_peer;
        for code in [1000, 1401, 2999] {
            assert_eq!(of(Reason(code)), if denied { Authentication } else { Other }, "{code}");
        }
    }
}

const fn meaning(event: HandshakeEvent) -> &'static str {
    match event {
        HandshakeEvent::ConnectionRequest => {
            "host: a valid ConnectionRequest was answered with a ConnectionResponse"
        }
        HandshakeEvent::ConnectionResponse => {
            "client: a ConnectionResponse proved the host and was answered with an AuthenticationRequest"
        }
        HandshakeEvent::AuthenticationRequest => {
            "host: an AuthenticationRequest proved the client, and the application accepted it"
        }
        HandshakeEvent::AuthenticationResponse => "client: an AuthenticationResponse accepted it",
        HandshakeEvent::TimedOut => "the initial timeout ran out, here or at the peer",
        HandshakeEvent::Denied => {
            "a proof failed, the order was broken under authenticated keys, or the host's application denied the client"
        }
        HandshakeEvent::GivenUp => "the attempt ended for another reason",
    }
}

fn name(state: HandshakeState) -> String {
    match state {
        HandshakeState::ConnectionFailed(failure) => {
            format!("ConnectionFailed({})", format!("{failure:?}").to_lowercase())
        }
        other => format!("{other:?}"),
    }
}

fn roles(state: HandshakeState) -> &'static str {
    match (state.belongs_to(Role::Client), state.belongs_to(Role::Host)) {
        (true, false) => "client",
        (false, true) => "host",
        _ => "both",
    }
}

/// Appends this table to the document.
pub(crate) fn print(out: &mut String) {
    out.push_str(
        "\n# Handshake state\n\n\
         What each role waits for while a connection is made, from \
         `trunkline_proto::handshake::HandshakeState`; `ConnInfo::handshake` shows it. It is a \
         function of what the connection knows (`HandshakeState::of`), and stays `Ready` when a \
         connection that was made ends.\n\n\
         ## Events\n\n| event | when |\n| --- | --- |\n",
    );
    for event in HandshakeEvent::ALL {
        let _ = writeln!(out, "| {event:?} | {} |", meaning(event));
    }
    out.push_str(
        "\n## Transitions\n\nAn empty cell: the event does nothing in this state.\n\n| role | state |",
    );
    for event in HandshakeEvent::ALL {
        let _ = write!(out, " {event:?} |");
    }
    out.push_str("\n| --- | --- |");
    out.push_str(&" --- |".repeat(HandshakeEvent::ALL.len()));
    out.push('\n');
    for state in HandshakeState::ALL {
        let _ = write!(out, "| {} | {} |", roles(state), name(state));
        for event in HandshakeEvent::ALL {
            match state.on(event) {
                Some(next) => {
                    let _ = write!(out, " {} |", name(next));
                }
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
}
