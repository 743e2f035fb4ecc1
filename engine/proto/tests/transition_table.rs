//! The tables of states, checked exhaustively and printed to `docs/states.md`: the statuses of a
//! connection here, the states of handshakes, presence, pairing and associations in `transition_table/`.

#[path = "transition_table/handshake.rs"]
mod handshake;

#[path = "transition_table/manager.rs"]
mod manager;

#[path = "transition_table/pairing.rs"]
mod pairing;

#[path = "transition_table/presence.rs"]
mod presence;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::path::Path;
use trunkline_proto::status::{Status, Trigger};

/// Statuses that the application can see through an open handle.
const OPEN: [Status; 5] = [
    Status::Connecting,
    Status::FindingRoute,
    Status::Connected,
    Status::ClosedByPeer,
    Status::ProblemDetectedLocally,
];

fn successors(status: Status) -> Vec<Status> {
    Trigger::ALL.iter().filter_map(|t| status.on(*t)).collect()
}

/// `from`, and what follows it in any number of steps.
fn reachable<S: Copy + PartialEq>(from: S, successors: impl Fn(S) -> Vec<S>) -> Vec<S> {
    let mut seen = vec![from];
    let mut at = 0;
    while at < seen.len() {
        for next in successors(seen[at]) {
            if !seen.contains(&next) {
                seen.push(next);
            }
        }
        at += 1;
    }
    seen
}

#[test]
fn values_are_those_of_the_c_interface() {
    let values: Vec<i32> = Status::ALL.iter().map(|s| *s as i32).collect();
    assert_eq!(values, [0, 1, 2, 3, 4, 5, -1, -2, -3]);
    assert_eq!(size_of::<Status>(), 4);
    let distinct: BTreeSet<_> = Status::ALL.iter().map(|s| *s as i32).collect();
    assert_eq!(distinct.len(), Status::ALL.len());
}

#[test]
fn all_lists_hold_every_value_once() {
    // A match without a wildcard: a new value does not compile until it is looked at here.
    for status in Status::ALL {
        match status {
            Status::None
            | Status::Connecting
            | Status::FindingRoute
            | Status::Connected
            | Status::ClosedByPeer
            | Status::ProblemDetectedLocally
            | Status::FinWait
            | Status::Linger
            | Status::Dead => {}
        }
    }
    for (i, trigger) in Trigger::ALL.iter().enumerate() {
        assert_eq!(Trigger::ALL.iter().position(|t| t == trigger), Some(i), "{trigger:?} twice");
        match trigger {
            Trigger::PeerAgreed
            | Trigger::Established
            | Trigger::PeerClosed
            | Trigger::Problem
            | Trigger::Close
            | Trigger::CloseLinger
            | Trigger::Flushed
            | Trigger::FinWaitOver => {}
        }
    }
}

/// The whole table, written down a second time.
#[test]
fn every_cell_is_as_written_here() {
    use Status::*;
    let expected = |status: Status, trigger: Trigger| -> Option<Status> {
        let row: [Option<Status>; 8] = match status {
            // PeerAgreed, Established, PeerClosed, Problem, Close, CloseLinger, Flushed, FinWaitOver
            Connecting => [
                Some(FindingRoute),
                Some(Connected),
                Some(ClosedByPeer),
                Some(ProblemDetectedLocally),
                Some(FinWait),
                Some(FinWait),
                Option::None,
                Option::None,
            ],
            FindingRoute => [
                Option::None,
                Some(Connected),
                Some(ClosedByPeer),
                Some(ProblemDetectedLocally),
                Some(FinWait),
                Some(FinWait),
                Option::None,
                Option::None,
            ],
            Connected => [
                Option::None,
                Option::None,
                Some(ClosedByPeer),
                Some(ProblemDetectedLocally),
                Some(FinWait),
                Some(Linger),
                Option::None,
                Option::None,
            ],
            ClosedByPeer | ProblemDetectedLocally => [
                Option::None,
                Option::None,
                Option::None,
                Option::None,
                Some(Dead),
                Some(Dead),
                Option::None,
                Option::None,
            ],
            FinWait => [
                Option::None,
                Option::None,
                Some(Dead),
                Some(Dead),
                Option::None,
                Option::None,
                Option::None,
                Some(Dead),
            ],
            Linger => [
                Option::None,
                Option::None,
                Some(Dead),
                Some(Dead),
                Option::None,
                Option::None,
                Some(FinWait),
                Option::None,
            ],
            None | Dead => [Option::None; 8],
        };
        row[Trigger::ALL.iter().position(|t| *t == trigger).expect("a trigger")]
    };
    for status in Status::ALL {
        for trigger in Trigger::ALL {
            assert_eq!(status.on(trigger), expected(status, trigger), "{status:?} on {trigger:?}");
        }
    }
}

#[test]
fn nothing_leads_to_none_and_nothing_out_of_none_or_dead() {
    assert!(successors(Status::None).is_empty());
    assert!(successors(Status::Dead).is_empty());
    for status in Status::ALL {
        assert!(!successors(status).contains(&Status::None), "{status:?}");
        assert!(!successors(status).contains(&Status::Connecting), "{status:?}");
    }
}

#[test]
fn every_life_ends_dead_and_no_status_comes_twice() {
    for status in Status::ALL.into_iter().filter(|s| *s != Status::None) {
        assert!(reachable(status, successors).contains(&Status::Dead), "{status:?} never ends");
        for next in successors(status) {
            assert!(
                !reachable(next, successors).contains(&status),
                "{status:?} comes back through {next:?}"
            );
        }
    }
    for status in Status::ALL.into_iter().filter(|s| *s != Status::None) {
        assert!(
            reachable(Status::Connecting, successors).contains(&status),
            "{status:?} is never entered"
        );
    }
}

#[test]
fn the_application_owns_exactly_the_open_statuses() {
    for status in Status::ALL {
        assert_eq!(status.is_open_to_application(), OPEN.contains(&status), "{status:?}");
        if !status.is_open_to_application() {
            for next in successors(status) {
                assert!(!next.is_open_to_application(), "{status:?} → {next:?} comes back");
            }
            // A second close is an invalid handle: the machine never sees it.
            assert_eq!(status.on(Trigger::Close), None, "{status:?}");
            assert_eq!(status.on(Trigger::CloseLinger), None, "{status:?}");
        }
    }
}

#[test]
fn closing_works_in_every_open_status_and_takes_the_handle() {
    for status in OPEN {
        for trigger in [Trigger::Close, Trigger::CloseLinger] {
            let next = status.on(trigger).expect("an open handle can be closed");
            assert!(!next.is_open_to_application(), "{status:?} on {trigger:?}");
        }
    }
    // Lingering is for connections that work; before, the queue is discarded at once.
    for status in Status::ALL {
        for trigger in Trigger::ALL {
            if status.on(trigger) == Some(Status::Linger) {
                assert_eq!((status, trigger), (Status::Connected, Trigger::CloseLinger));
            }
        }
    }
    // Where the peer knows already, or cannot be told, nothing is left to do.
    for status in [Status::ClosedByPeer, Status::ProblemDetectedLocally] {
        assert_eq!(successors(status), [Status::Dead, Status::Dead], "{status:?}");
    }
}

#[test]
fn ends_are_told_to_whoever_still_holds_the_handle() {
    for status in [Status::Connecting, Status::FindingRoute, Status::Connected] {
        assert_eq!(status.on(Trigger::PeerClosed), Some(Status::ClosedByPeer));
        assert_eq!(status.on(Trigger::Problem), Some(Status::ProblemDetectedLocally));
    }
    for status in [Status::FinWait, Status::Linger] {
        assert_eq!(status.on(Trigger::PeerClosed), Some(Status::Dead));
        assert_eq!(status.on(Trigger::Problem), Some(Status::Dead));
    }
}

#[test]
fn connected_is_entered_once_and_only_from_the_start() {
    for status in Status::ALL {
        for trigger in Trigger::ALL {
            if status.on(trigger) == Some(Status::Connected) {
                assert!(matches!(status, Status::Connecting | Status::FindingRoute));
                assert_eq!(trigger, Trigger::Established);
            }
            if status.on(trigger) == Some(Status::FindingRoute) {
                assert_eq!((status, trigger), (Status::Connecting, Trigger::PeerAgreed));
            }
        }
    }
}

#[test]
fn a_lingering_connection_tells_the_peer_before_it_dies() {
    assert_eq!(Status::Linger.on(Trigger::Flushed), Some(Status::FinWait));
    assert_eq!(Status::FinWait.on(Trigger::FinWaitOver), Some(Status::Dead));
    assert_eq!(Status::Linger.on(Trigger::FinWaitOver), None);
}

const fn meaning(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::PeerAgreed => "the peer agreed, no end-to-end route is proven yet",
        Trigger::Established => "handshake, acceptance and route are complete",
        Trigger::PeerClosed => "a CLOSE of the peer arrived",
        Trigger::Problem => "timeout, bad crypto, protocol error, denied authentication",
        Trigger::Close => {
            "the application closed; nothing is left to deliver, or linger was not asked for"
        }
        Trigger::CloseLinger => {
            "the application closed with linger while reliable data is unacknowledged"
        }
        Trigger::Flushed => "the last lingering byte is acknowledged, or the linger limit ran out",
        Trigger::FinWaitOver => "the peer acknowledged our CLOSE, or fin-wait ran out",
    }
}

const fn calls(status: Status) -> &'static str {
    match status {
        Status::None => "unknown or already closed handle: every call gives `InvalidHandle`",
        Status::Connecting => {
            "reliable sends queue (bounded), unreliable ones are refused as dropped; closing discards the queue at once"
        }
        Status::FindingRoute => "as Connecting, after the peer has agreed",
        Status::Connected => "everything works",
        Status::ClosedByPeer => {
            "what was received can be read; sends give `NoConnection`; the handle must be closed"
        }
        Status::ProblemDetectedLocally => "the same; the reason says what happened",
        Status::FinWait => {
            "gone for the application; late packets are answered with the close reason"
        }
        Status::Linger => {
            "gone for the application; reliable data is still being delivered, incoming data is acknowledged and dropped"
        }
        Status::Dead => "the slot can be reused",
    }
}

/// Appends where each trigger leads from each state.
fn table<S: Copy + Debug, T: Copy + Debug>(
    out: &mut String,
    head: &str,
    states: &[S],
    triggers: &[T],
    on: impl Fn(S, T) -> Option<S>,
) {
    let _ = write!(out, "\n| {head} |");
    for trigger in triggers {
        let _ = write!(out, " {trigger:?} |");
    }
    out.push_str("\n| --- |");
    out.push_str(&" --- |".repeat(triggers.len()));
    out.push('\n');
    for state in states {
        let _ = write!(out, "| {state:?} |");
        for trigger in triggers {
            match on(*state, *trigger) {
                Some(next) => {
                    let _ = write!(out, " {next:?} |");
                }
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
}

fn document() -> String {
    let mut out = String::from(
        "# Connection status\n\n\
         Printed from `trunkline_proto::status` by the test `transition_table`; change the table \
         there and run\n`UPDATE_DOCS=1 cargo test -p trunkline-proto --test transition_table`.\n\n\
         ## Statuses\n\n| value | status | open handle | what calls do |\n| ---: | --- | --- | --- |\n",
    );
    for status in Status::ALL {
        let open = if status.is_open_to_application() { "yes" } else { "no" };
        let _ = writeln!(out, "| {} | {status:?} | {open} | {} |", status as i32, calls(status));
    }
    out.push_str("\n## Triggers\n\n| trigger | when |\n| --- | --- |\n");
    for trigger in Trigger::ALL {
        let _ = writeln!(out, "| {trigger:?} | {} |", meaning(trigger));
    }
    out.push_str("\n## Transitions\n\nAn empty cell: the trigger does nothing in this status.\n");
    table(&mut out, "status", &Status::ALL, &Trigger::ALL, Status::on);
    out.push_str("\n```mermaid\nstateDiagram-v2\n    [*] --> Connecting\n");
    for status in Status::ALL {
        let mut targets: Vec<(Status, Vec<String>)> = Vec::new();
        for trigger in Trigger::ALL {
            let Some(next) = status.on(trigger) else { continue };
            match targets.iter_mut().find(|(to, _)| *to == next) {
                Some((_, triggers)) => triggers.push(format!("{trigger:?}")),
                None => targets.push((next, vec![format!("{trigger:?}")])),
            }
        }
        for (next, triggers) in targets {
            let _ = writeln!(out, "    {status:?} --> {next:?}: {}", triggers.join(", "));
        }
    }
    out.push_str("    Dead --> [*]\n```\n");
    handshake::print(&mut out);
    presence::print(&mut out);
    out.push_str(&pairing::document());
    out.push_str(&manager::document());
    out
}

#[test]
fn the_document_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("docs");
        std::fs::write(&path, &expected).expect("docs/states.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, expected,
        "docs/states.md is not current; UPDATE_DOCS=1 cargo test -p trunkline-proto --test \
         transition_table writes it"
    );
}
