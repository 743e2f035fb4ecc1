//! The tables of presence sessions, checked exhaustively, and their part of `docs/states.md`.

use std::fmt::{Debug, Write};
use trunkline_proto::rendezvous::presence::{ClientState, ClientTrigger, HostState, HostTrigger};

/// The whole of both tables, written down a second time.
#[test]
fn every_cell_of_presence_is_as_written_here() {
    use ClientState as C;
    use HostState as H;
    let client = |state| match state {
        // Answered, HostLeft, HeartbeatExpired
        C::WaitingForPresenceResponse => [Some(C::Ready), Some(C::Ended), Some(C::Ended)],
        C::Ready => [None, Some(C::Ended), Some(C::Ended)],
        C::Ended => [None; 3],
    };
    for state in C::ALL {
        for (trigger, expected) in ClientTrigger::ALL.into_iter().zip(client(state)) {
            assert_eq!(state.on(trigger), expected, "{state:?} on {trigger:?}");
        }
    }
    let host = |state| match state {
        // Asked, HeartbeatExpired, Withdrawn
        H::WaitingForPresenceRequest => [Some(H::Ready), None, Some(H::Ended)],
        H::Ready => [None, Some(H::Ended), Some(H::Ended)],
        H::Ended => [None; 3],
    };
    for state in H::ALL {
        for (trigger, expected) in HostTrigger::ALL.into_iter().zip(host(state)) {
            assert_eq!(state.on(trigger), expected, "{state:?} on {trigger:?}");
        }
    }
}

#[test]
fn all_lists_of_presence_hold_every_value_once() {
    // Matches without a wildcard: a new value does not compile until it is looked at here.
    for (i, state) in ClientState::ALL.into_iter().enumerate() {
        match state {
            ClientState::WaitingForPresenceResponse | ClientState::Ready | ClientState::Ended => {}
        }
        assert_eq!(ClientState::ALL.iter().position(|s| *s == state), Some(i));
    }
    for (i, trigger) in ClientTrigger::ALL.into_iter().enumerate() {
        match trigger {
            ClientTrigger::Answered | ClientTrigger::HostLeft | ClientTrigger::HeartbeatExpired => {
            }
        }
        assert_eq!(ClientTrigger::ALL.iter().position(|t| *t == trigger), Some(i));
    }
    for (i, state) in HostState::ALL.into_iter().enumerate() {
        match state {
            HostState::WaitingForPresenceRequest | HostState::Ready | HostState::Ended => {}
        }
        assert_eq!(HostState::ALL.iter().position(|s| *s == state), Some(i));
    }
    for (i, trigger) in HostTrigger::ALL.into_iter().enumerate() {
        match trigger {
            HostTrigger::Asked | HostTrigger::HeartbeatExpired | HostTrigger::Withdrawn => {}
        }
        assert_eq!(HostTrigger::ALL.iter().position(|t| *t == trigger), Some(i));
    }
}

fn table<S: Copy + Debug, T: Copy + Debug>(
    out: &mut String,
    role: &str,
    states: &[(S, &str)],
    triggers: &[(T, &str)],
    on: impl Fn(S, T) -> Option<S>,
) {
    let _ = writeln!(out, "\n## Presence session, {role}\n\n| state | when |\n| --- | --- |");
    for (state, when) in states {
        let _ = writeln!(out, "| {state:?} | {when} |");
    }
    out.push_str("\n| trigger | when |\n| --- | --- |\n");
    for (trigger, when) in triggers {
        let _ = writeln!(out, "| {trigger:?} | {when} |");
    }
    let states: Vec<S> = states.iter().map(|s| s.0).collect();
    let triggers: Vec<T> = triggers.iter().map(|t| t.0).collect();
    super::table(out, "state", &states, &triggers, on);
}

/// Appends both tables.
pub fn print(out: &mut String) {
    let client = |state| match state {
        ClientState::WaitingForPresenceResponse => "PresenceRequest is published; no answer yet",
        ClientState::Ready => {
            "a valid PresenceResponse came, and the heartbeat has not expired since the last one"
        }
        ClientState::Ended => "over; who asks on begins a new session",
    };
    let client_trigger = |trigger| match trigger {
        ClientTrigger::Answered => "a valid PresenceResponse; it resets the heartbeat",
        ClientTrigger::HostLeft => "a valid PresenceResponse that says that the host leaves",
        ClientTrigger::HeartbeatExpired => "nothing valid came for the heartbeat",
    };
    table(
        out,
        "client",
        &ClientState::ALL.map(|s| (s, client(s))),
        &ClientTrigger::ALL.map(|t| (t, client_trigger(t))),
        ClientState::on,
    );
    let host = |state| match state {
        HostState::WaitingForPresenceRequest => "announced; nobody has asked",
        HostState::Ready => {
            "a valid PresenceRequest came and PresenceResponse is published; the host waits for a \
             ConnectionRequest too"
        }
        HostState::Ended => "over",
    };
    let host_trigger = |trigger| match trigger {
        HostTrigger::Asked => "a valid PresenceRequest that is answered; it resets the heartbeat",
        HostTrigger::HeartbeatExpired => "nothing valid came for the heartbeat",
        HostTrigger::Withdrawn => "the application withdraws the announcement",
    };
    table(
        out,
        "host",
        &HostState::ALL.map(|s| (s, host(s))),
        &HostTrigger::ALL.map(|t| (t, host_trigger(t))),
        HostState::on,
    );
}
