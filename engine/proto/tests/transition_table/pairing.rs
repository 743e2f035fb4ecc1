//! The part of `docs/states.md` about pairings, made from the rules in `rendezvous::pairing`.

use std::fmt::Write;
use trunkline_proto::rendezvous::event::EventType;
use trunkline_proto::rendezvous::pairing::{
    EVENT_RULES, Inputs, PairingConfig, PairingState, PartnerView, Reaction, STATE_RULES, Sender,
    SourceLink, StateRule, pings_at_once, state_of,
};
use trunkline_proto::rendezvous::{PairingRole, Reject};

const fn meaning(state: PairingState) -> &'static str {
    match state {
        PairingState::Passive => "the client is not active, or has no id",
        PairingState::ReadyToConnect => {
            "no connection to an event source: no token, aborted, or waiting to try again"
        }
        PairingState::Connecting => "a connection to an event source is being made",
        PairingState::ReadyToPair => "connected; no partner, or it has rejected us",
        PairingState::Searching => "has a partner that is silent or inactive",
        PairingState::Interacting => "has a partner that was heard within the limit",
    }
}

const fn sender(sender: Sender) -> &'static str {
    match sender {
        Sender::Partner => "the partner",
        Sender::Rejecter => "the assigned partner, which has rejected us",
        Sender::Stranger => "another than the assigned partner",
        Sender::Anybody => "anybody, while no partner is assigned",
    }
}

fn effect(reaction: Reaction) -> String {
    match reaction {
        Reaction::Ignore => "nothing".to_owned(),
        Reaction::Hear => "the partner was heard".to_owned(),
        Reaction::Deliver => "the partner was heard; the application gets the event".to_owned(),
        Reaction::Lose => "the partner is inactive".to_owned(),
        Reaction::Drop => "the partner is no longer assigned".to_owned(),
        Reaction::Adopt => "the sender becomes the partner, and was heard".to_owned(),
        Reaction::Leave => {
            "no longer paired; no more pings to the partner until it, or our id, is assigned anew"
                .to_owned()
        }
        Reaction::Answer(reason) => format!("a `reject` goes back: `{reason}`"),
    }
}

fn condition(rule: StateRule) -> String {
    let mut parts = Vec::new();
    match rule.active {
        Some(false) => parts.push("not active, or no client id"),
        Some(true) => parts.push("active, with a client id"),
        None => {}
    }
    match rule.link {
        Some(SourceLink::Open) => parts.push("event source open"),
        Some(SourceLink::Opening) => parts.push("event source opening"),
        Some(SourceLink::Closed) => parts.push("event source closed"),
        None => {}
    }
    match rule.partner {
        Some(PartnerView::Heard) => parts.push("partner heard within the limit and not inactive"),
        Some(PartnerView::Silent) => parts.push("partner silent or inactive"),
        Some(PartnerView::Unusable) => parts.push("no partner, or rejected by it"),
        None => {}
    }
    if parts.is_empty() { "otherwise".to_owned() } else { parts.join(", ") }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "" }
}

fn role(role: Option<PairingRole>) -> &'static str {
    role.map_or("any", PairingRole::name)
}

fn all_inputs() -> Vec<Inputs> {
    let mut all = Vec::new();
    for active in [false, true] {
        for link in SourceLink::ALL {
            for partner in PartnerView::ALL {
                all.push(Inputs { active, link, partner });
            }
        }
    }
    all
}

/// What can follow each state when one thing changes, and what that is.
fn edges() -> Vec<(PairingState, PairingState, Vec<&'static str>)> {
    let mut edges: Vec<(PairingState, PairingState, Vec<&'static str>)> = Vec::new();
    for a in all_inputs() {
        for b in all_inputs() {
            let cause = match (a.active != b.active, a.link != b.link, a.partner != b.partner) {
                (true, false, false) => "activity, client id",
                (false, true, false) => "event source",
                (false, false, true) => "partner",
                _ => continue,
            };
            // A connection is made only by way of the attempt.
            if (a.link, b.link) == (SourceLink::Closed, SourceLink::Open)
                || (a.link, b.link) == (SourceLink::Open, SourceLink::Opening)
            {
                continue;
            }
            // Going passive closes the connection.
            if !a.active && a.link != SourceLink::Closed {
                continue;
            }
            let (from, to) = (state_of(a), state_of(b));
            if from == to {
                continue;
            }
            match edges.iter_mut().find(|(f, t, _)| (*f, *t) == (from, to)) {
                Some((_, _, causes)) if causes.contains(&cause) => {}
                Some((_, _, causes)) => causes.push(cause),
                None => edges.push((from, to, vec![cause])),
            }
        }
    }
    edges.sort_by_key(|(from, to, _)| (*from, *to));
    edges
}

pub fn document() -> String {
    let mut out = String::from(
        "\n# Pairing\n\nPrinted from `trunkline_proto::rendezvous::pairing` by the same test; the \
         words are explained in\n`docs/pairing.md`.\n\n## States\n\nThe first rule that fits \
         decides.\n\n| when | state |\n| --- | --- |\n",
    );
    for rule in STATE_RULES {
        let _ = writeln!(out, "| {} | {} |", condition(rule), rule.state);
    }
    out.push_str(
        "\n| state | active | connected | paired | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for state in PairingState::ALL {
        let (active, connected) = (yes(state.is_active()), yes(state.is_connected()));
        let paired = yes(state.is_paired());
        let _ =
            writeln!(out, "| {state} | {active} | {connected} | {paired} | {} |", meaning(state));
    }
    out.push_str("\n```mermaid\nstateDiagram-v2\n    [*] --> passive\n");
    for (from, to, causes) in edges() {
        let _ = writeln!(out, "    {from} --> {to}: {}", causes.join(", "));
    }
    out.push_str("```\n\n## Pings\n\n| on entering | from | ping |\n| --- | --- | --- |\n");
    let config = PairingConfig::default();
    for new in PairingState::ALL.into_iter().filter(|s| s.is_paired()) {
        for old in PairingState::ALL.into_iter().filter(|old| *old != new) {
            let when = if pings_at_once(old, new) { "at once" } else { "when it is due" };
            let _ = writeln!(out, "| {new} | {old} | {when} |");
        }
    }
    let seconds = |d: trunkline_proto::time::Duration| d.as_millis() / 1000;
    let _ = writeln!(
        out,
        "\nThen every {} s while searching, every {} s while interacting, counted from the last \
         event to the partner.\nThe partner counts as heard for {} s.",
        seconds(config.searching_ping),
        seconds(config.interacting_ping),
        seconds(config.partner_limit),
    );
    out.push_str(
        "\n## Events\n\nWhile connected, the first rule that fits decides; an event that none fits \
         is ignored, and so is every event\nin the other states.\n\n\
         | event | from | our role | sender's role | effect |\n| --- | --- | --- | --- | --- |\n",
    );
    for rule in EVENT_RULES {
        let (ours, theirs) = (role(rule.role), role(rule.sender_role));
        let (from, effect) = (sender(rule.sender), effect(rule.reaction));
        let _ = writeln!(out, "| `{}` | {from} | {ours} | {theirs} | {effect} |", rule.kind);
    }
    out
}

#[test]
fn every_pairing_state_is_entered_and_left() {
    let edges = edges();
    for state in PairingState::ALL {
        assert!(edges.iter().any(|(from, ..)| *from == state), "{state} is never left");
        assert!(edges.iter().any(|(_, to, _)| *to == state), "{state} is never entered");
        if state != PairingState::Passive {
            let passive =
                |e: &&(PairingState, PairingState, _)| (e.0, e.1) == (state, PairingState::Passive);
            assert!(edges.iter().any(|e| passive(&e)), "{state} to passive");
        }
    }
}

#[test]
fn the_document_names_every_reject_and_every_type() {
    let document = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pairing.md"),
    )
    .unwrap();
    for reject in Reject::ALL {
        assert!(document.contains(&format!("| {} | `{reject}` |", reject.to_wire())), "{reject}");
    }
    for kind in EventType::ALL {
        assert!(document.contains(&format!("| {} | `{kind}` |", kind as u8)), "{kind}");
    }
    for abort in trunkline_proto::rendezvous::Abort::ALL {
        assert!(document.contains(&format!("| {} | `{abort}` |", abort as u32)), "{abort}");
    }
}
