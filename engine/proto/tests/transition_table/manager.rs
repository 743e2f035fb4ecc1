//! The tables of associations and of hold times, checked exhaustively and printed to
//! `docs/states.md`.

use std::fmt::Write;
use trunkline_proto::manager::{
    AssociationState as State, AssociationTrigger as Trigger, HoldState, HoldTrigger,
};

/// The whole table, written down a second time.
#[test]
fn every_cell_of_associations_is_as_written_here() {
    use State::{
        AwaitingConnection as Aw, Closing as Cl, Connected as Co, Destroyed as De, Idle as Id,
    };
    const NO: Option<State> = None;
    for state in State::ALL {
        // Connected, ConnectionError, NoConnection, Inactive, Traffic, BothIdle, Broken, Close, Drained
        let row = match state {
            Aw => [Some(Co), Some(De), Some(De), NO, NO, NO, NO, Some(De), NO],
            Co => [NO, NO, NO, Some(Id), NO, NO, Some(De), Some(Cl), Some(De)],
            Id => [NO, NO, NO, NO, Some(Co), Some(De), Some(De), Some(Cl), Some(De)],
            Cl => [NO, NO, NO, NO, NO, NO, Some(De), NO, Some(De)],
            De => [NO; 9],
        };
        for (trigger, expected) in Trigger::ALL.into_iter().zip(row) {
            assert_eq!(state.on(trigger), expected, "{state:?} on {trigger:?}");
        }
    }
}

/// "broken: destroyed; reusing it is impossible".
#[test]
fn nothing_leads_out_of_destroyed_and_everything_to_it() {
    for trigger in Trigger::ALL {
        assert_eq!(State::Destroyed.on(trigger), None);
    }
    assert!(!State::Destroyed.takes_messages() && !State::Closing.takes_messages());
    for state in State::ALL.into_iter().filter(|s| *s != State::Destroyed) {
        let mut ends = Trigger::ALL.iter().filter(|t| state.on(**t) == Some(State::Destroyed));
        assert!(ends.next().is_some(), "{state:?} never ends");
        for trigger in Trigger::ALL {
            assert_ne!(state.on(trigger), Some(State::AwaitingConnection), "it is made once");
        }
    }
}

#[test]
fn every_cell_of_hold_times_is_as_written_here() {
    use HoldState::{Active as A, Closing as C, Idle as I, Retiring as R};
    const NO: Option<HoldState> = None;
    for state in HoldState::ALL {
        // Quiet, QuietToo, Moved, PeerActive, PeerIdle, PeerRetiring
        let row = match state {
            A => [Some(I), Some(R), NO, NO, NO, NO],
            I => [NO, NO, Some(A), NO, Some(R), Some(C)],
            R => [NO, NO, Some(A), Some(A), NO, Some(C)],
            C => [NO; 6],
        };
        for (trigger, expected) in HoldTrigger::ALL.into_iter().zip(row) {
            assert_eq!(state.on(trigger), expected, "{state:?} on {trigger:?}");
        }
    }
}

const fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Connected => {
            "a connection stands and the peer has taken the association's channel"
        }
        Trigger::ConnectionError => "the connection or the channel could not be made (er_Conn_Err)",
        Trigger::NoConnection => "listening: no connection came in time, 10 s (to_No_Conn)",
        Trigger::Inactive => "no channel is open and nothing has moved for the hold time, 180 s",
        Trigger::Traffic => "something moves again",
        Trigger::BothIdle => "both sides are idle, and the connection is closed",
        Trigger::Broken => "the connection broke, or the peer ended the association's channel",
        Trigger::Close => "the application closes it",
        Trigger::Drained => "everything was acknowledged after the close",
    }
}

const fn state(state: State) -> &'static str {
    match state {
        State::AwaitingConnection => {
            "it listens, or a connection is being made; messages queue: bounded in bytes, number and age"
        }
        State::Connected => "messages go out at once, received ones straight up",
        State::Idle => "the peer knows that nothing is wanted; a message wakes it",
        State::Closing => "takes no more messages; those it has are being delivered",
        State::Destroyed => {
            "the id is stale for ever; every message that it still had was told undelivered"
        }
    }
}

const fn hold_state(state: HoldState) -> &'static str {
    match state {
        HoldState::Active => "the connection is used, or was a moment ago",
        HoldState::Idle => "quiet, and the peer was told",
        HoldState::Retiring => "quiet, and so is the peer; nothing is started on the connection",
        HoldState::Closing => "both are quiet and the peer starts nothing: CLOSE",
    }
}

const fn hold_trigger(trigger: HoldTrigger) -> &'static str {
    match trigger {
        HoldTrigger::Quiet => {
            "no channel is open and nothing has moved for the hold time; the peer is active"
        }
        HoldTrigger::QuietToo => "the same, and the peer has said that it is quiet",
        HoldTrigger::Moved => "a channel is asked for, or a message comes or is to go",
        HoldTrigger::PeerActive => "the peer says that it is active",
        HoldTrigger::PeerIdle => {
            "the peer says that it is idle, or retiring in answer to what we said another time"
        }
        HoldTrigger::PeerRetiring => "the peer is retiring, in answer to what we said last",
    }
}

/// What goes into the document.
pub fn document() -> String {
    let mut out = String::from("\n# Associations\n\n| state | what it means |\n| --- | --- |\n");
    for s in State::ALL {
        let _ = writeln!(out, "| {s:?} | {} |", state(s));
    }
    out.push_str("\n| trigger | when |\n| --- | --- |\n");
    for t in Trigger::ALL {
        let _ = writeln!(out, "| {t:?} | {} |", trigger(t));
    }
    super::table(&mut out, "state", &State::ALL, &Trigger::ALL, State::on);
    out.push_str(
        "\n# Hold times of connections\n\nWhat an association calls Idle is Idle or Retiring here. \
         How the two sides tell each other is in\n`docs/protocol.md` §12.1.\n\n\
         | state | what it means |\n| --- | --- |\n",
    );
    for s in HoldState::ALL {
        let _ = writeln!(out, "| {s:?} | {} |", hold_state(s));
    }
    out.push_str("\n| trigger | when |\n| --- | --- |\n");
    for t in HoldTrigger::ALL {
        let _ = writeln!(out, "| {t:?} | {} |", hold_trigger(t));
    }
    super::table(&mut out, "state", &HoldState::ALL, &HoldTrigger::ALL, HoldState::on);
    out
}
