//! Behaviours §4: many channels on one connection, asked for by name.

use crate::net::{Answer, CLIENT, Config, HOST, Net, Told, ms, secs};
use crate::seeded;
use std::collections::BTreeSet;
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::endpoint::SendOptions;
use trunkline_proto::error::{ApiError, CloseReason, Reason};
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::manager::{Notice, Opened, RequestError, RequestId, Reuse, Target};
use trunkline_proto::status::Status;

fn bytes() -> ChannelOptions {
    ChannelOptions::default()
}

fn unique() -> ChannelOptions {
    ChannelOptions { unique: true, ..bytes() }
}

fn ask(net: &mut Net, target: &Target, name: &str) -> RequestId {
    net.request(target, name, &bytes()).expect("a request")
}

fn open(net: &mut Net, target: &Target, name: &str) -> Opened {
    let id = ask(net, target, name);
    net.answer(id).expect("a channel")
}

fn with(reuse: Reuse, target: &Target) -> Target {
    Target { reuse, ..target.clone() }
}

/// "a second `connect` to the same peer reuses the live connection and opens a channel only (one
/// round trip)".
#[test]
fn one_connection_many_channels_a_live_connection_is_reused_in_one_round_trip() {
    let mut net = Net::new(1);
    let target = net.target(HOST);
    let first = open(&mut net, &target, "file://1");
    let start = net.now;
    let second = open(&mut net, &target, "file://2");
    assert_eq!(first.conn, second.conn);
    assert_ne!(first.channel, second.channel);
    assert!(net.now.since(start) <= ms(21), "{:?}", net.now.since(start));
    assert_eq!(net.incoming(HOST), 1, "one connection");
}

/// "(… or none with early data)".
#[test]
fn one_connection_many_channels_early_data_needs_no_round_trip() {
    let mut net = Net::new(2);
    let target = net.target(HOST);
    open(&mut net, &target, "first");
    let start = net.now;
    let id = ask(&mut net, &target, "quick");
    net.call(CLIENT, |now, m, ep| {
        let (conn, channel) = m.early_channel(id).expect("asked for on a live connection");
        ep.send(now, conn, channel, b"at once", SendOptions::default()).expect("send");
        ep.flush_channel(now, conn, channel).expect("flush");
    });
    net.run_until("the data", secs(1), |net| {
        net.nodes[HOST].log.count(|t| matches!(t, Told::Data(_, _, d) if d == b"at once")) == 1
    });
    assert!(net.now.since(start) <= ms(11), "{:?}", net.now.since(start));
    net.answer(id).expect("a channel");
}

/// "one still being made is awaited".
#[test]
fn one_connection_many_channels_one_being_made_is_awaited() {
    seeded("requests::one_connection_many_channels_one_being_made_is_awaited", 8, |seed| {
        let mut net = Net::new(seed);
        net.loss = if seed % 2 == 0 { 0 } else { 1_500 };
        net.reorder = 1_000;
        let target = net.target(HOST);
        let ids: Vec<_> = (0..20).map(|i| ask(&mut net, &target, &format!("c{i}"))).collect();
        let opened: Vec<_> = ids.iter().map(|id| net.answer(*id).expect("a channel")).collect();
        assert!(opened.iter().all(|o| o.conn == opened[0].conn));
        let channels: BTreeSet<_> = opened.iter().map(|o| o.channel).collect();
        assert_eq!(channels.len(), 20);
        assert_eq!(net.incoming(HOST), 1, "one connection");
        let begun = net.nodes[CLIENT].log.notices().filter(|n| matches!(n, Notice::Begun { .. }));
        assert_eq!(begun.count(), 1);
    });
}

/// "options: force a new one".
#[test]
fn one_connection_many_channels_a_new_one_can_be_forced() {
    let mut net = Net::new(3);
    let target = net.target(HOST);
    let first = open(&mut net, &target, "a");
    let second = open(&mut net, &with(Reuse::ForceNew, &target), "b");
    assert_ne!(first.conn, second.conn);
    assert_eq!(net.incoming(HOST), 2);
    let third = open(&mut net, &target, "c");
    assert!(third.conn == first.conn || third.conn == second.conn);
    assert_eq!(net.incoming(HOST), 2);
}

/// "options: never a new one".
#[test]
fn one_connection_many_channels_a_new_one_can_be_forbidden() {
    let mut net = Net::new(4);
    let target = net.target(HOST);
    let never = with(Reuse::NeverNew, &target);
    let refused = net.request(&never, "a", &bytes());
    assert!(matches!(refused, Err(ApiError::NoConnection(_))), "{refused:?}");
    let first = open(&mut net, &target, "a");
    assert_eq!(open(&mut net, &never, "b").conn, first.conn);
    // An error is the whole answer.
    net.run_for(secs(1));
    let answers = net.nodes[CLIENT].log.notices().filter(|n| matches!(n, Notice::Request { .. }));
    assert_eq!(answers.count(), 2);
}

/// "unique name (joins the existing channel of that name)": while asked for, and when open.
#[test]
fn one_connection_many_channels_a_unique_name_joins() {
    let mut net = Net::new(5);
    let target = net.target(HOST);
    let ids: Vec<_> =
        (0..3).map(|_| net.request(&target, "only", &unique()).expect("a request")).collect();
    let opened: Vec<_> = ids.iter().map(|id| net.answer(*id).expect("a channel")).collect();
    assert!(opened.iter().all(|o| (o.conn, o.channel) == (opened[0].conn, opened[0].channel)));
    assert_eq!(opened.iter().map(|o| o.joined).collect::<Vec<_>>(), [false, true, true]);
    let later = net.request(&target, "only", &unique()).expect("a request");
    let later = net.answer(later).expect("a channel");
    assert_eq!((later.channel, later.joined), (opened[0].channel, true));
    let asked = net.nodes[HOST].log.count(|t| matches!(t, Told::Request(_, _, n) if n == "only"));
    assert_eq!(asked, 1, "the peer was asked once");
    // Not unique: another one.
    let another = open(&mut net, &target, "only");
    assert_ne!(another.channel, later.channel);
    // One that the application opened itself is joined too, and it hears of that one as ever.
    let conn = later.conn;
    let own = net.call(CLIENT, |now, _, ep| ep.open_channel(now, conn, "own", &bytes())).unwrap();
    let id = net.request(&target, "own", &unique()).expect("a request");
    assert_eq!(net.answer(id).expect("a channel").channel, own);
    assert_eq!(net.nodes[CLIENT].log.count(|t| *t == Told::Ready(conn, own)), 1);
}

/// "ownership: … the application's handles never keep dead things alive".
#[test]
fn ownership_handles_never_keep_dead_things_alive() {
    let mut net = Net::new(6);
    let target = net.target(HOST);
    let id = ask(&mut net, &target, "a");
    let opened = net.answer(id).expect("a channel");
    let host = net.at_host();
    net.call(HOST, |now, _, ep| ep.close(now, host, 1234, "bye", None)).expect("close");
    net.run_for(secs(10));
    // The manager made the connection: it frees it, after the application has heard of the end.
    let told: Vec<_> = net.nodes[CLIENT].log.all().cloned().collect();
    let end = told.iter().position(|t| matches!(t, Told::Status(_, Status::ClosedByPeer, _)));
    let dead = told.iter().position(|t| *t == Told::Dead(opened.conn));
    assert!(end.is_some() && end < dead, "{told:?}");
    assert_eq!(net.status(CLIENT, opened.conn), Status::None);
    assert!(net.nodes[CLIENT].manager.is_empty(), "a record is left");
    let used = net.call(CLIENT, |now, m, ep| {
        assert!(m.early_channel(id).is_none());
        assert!(!m.cancel_request(now, ep, id), "an answered request is stale");
        ep.send(now, opened.conn, opened.channel, b"x", SendOptions::default())
    });
    assert_eq!(used, Err(ApiError::InvalidHandle));
    // A connection of the application's own is its own to free.
    let mine = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target.clone())).unwrap().conn;
    net.run_until("connected", secs(5), |net| net.status(CLIENT, mine) == Status::Connected);
    let host = net.at_host();
    net.call(HOST, |now, _, ep| ep.close(now, host, 1234, "bye", None)).expect("close");
    net.run_for(secs(10));
    assert_eq!(net.status(CLIENT, mine), Status::ClosedByPeer);
    net.call(CLIENT, |now, _, ep| ep.close(now, mine, 1000, "", None)).expect("close");
    net.run_for(secs(1));
    assert!(net.nodes[CLIENT].manager.is_empty());
}

/// "callback accepts or declines; one declined leaves the others alone".
#[test]
fn request_one_declined_leaves_the_others_alone() {
    let mut net = Net::new(7);
    net.nodes[HOST].answer = Box::new(|name| match name {
        "no" => Answer::Decline(7, "not that one"),
        _ => Answer::Accept,
    });
    let target = net.target(HOST);
    let ids = ["a", "no", "b"].map(|name| ask(&mut net, &target, name));
    let outcomes = ids.map(|id| net.answer(id));
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    let declined = RequestError::Declined { code: 7, text: "not that one".into() };
    assert_eq!(outcomes[1], Err(declined));
    let conn = outcomes[0].as_ref().expect("open").conn;
    assert_eq!(net.status(CLIENT, conn), Status::Connected);
    // The application hears of a channel that it never had through the answer alone.
    assert_eq!(net.nodes[CLIENT].log.count(|t| matches!(t, Told::Closed(..))), 0);
}

/// "channel timeout: fails that channel only".
#[test]
fn channel_timeout_fails_that_channel_only() {
    let mut net = Net::new(8);
    net.nodes[HOST].answer = Box::new(|name| match name {
        "never" => Answer::Ignore,
        _ => Answer::Accept,
    });
    let target = net.target(HOST);
    let good = open(&mut net, &target, "good");
    let start = net.now;
    let id = ask(&mut net, &target, "never");
    assert_eq!(net.answer(id), Err(RequestError::TimedOut));
    let waited = net.now.since(start);
    assert!((secs(10)..secs(11)).contains(&waited), "{waited:?}");
    assert_eq!(net.status(CLIENT, good.conn), Status::Connected);
    net.call(CLIENT, |now, _, ep| {
        ep.send(now, good.conn, good.channel, b"still", SendOptions::default()).expect("send");
    });
    net.run_for(secs(1));
    assert_eq!(net.nodes[HOST].log.count(|t| matches!(t, Told::Data(..))), 1);
}

/// "link dies: … a channel still being requested is asked for again once on another live … one".
#[test]
fn link_dies_a_request_is_asked_for_again_on_another_live_connection() {
    seeded(
        "requests::link_dies_a_request_is_asked_for_again_on_another_live_connection",
        6,
        |seed| {
            let mut net = Net::new(seed);
            net.reorder = 500;
            let target = net.target(HOST);
            let first = open(&mut net, &target, "a");
            let at_host_first = net.at_host();
            let second = open(&mut net, &with(Reuse::ForceNew, &target), "b");
            let at_host_second = net.at_host();
            // The request goes onto one of them; whichever that is, it dies before the answer.
            let id = ask(&mut net, &target, "c");
            let (on, _) = net.call(CLIENT, |_, m, _| m.early_channel(id)).expect("asked for");
            // (Looking at the early channel gives the second attempt up: ask anew.)
            net.call(CLIENT, |now, m, ep| assert!(m.cancel_request(now, ep, id)));
            net.nodes[HOST].answer = Box::new(|_| Answer::Ignore);
            let id = ask(&mut net, &target, "c");
            net.run_for(ms(100));
            net.nodes[HOST].answer = Box::new(|_| Answer::Accept);
            let (dies, other) = if on == first.conn {
                (at_host_first, second.conn)
            } else {
                (at_host_second, first.conn)
            };
            net.call(HOST, |now, _, ep| ep.close(now, dies, 1500, "gone", None)).expect("close");
            let opened = net.answer(id).expect("a channel on the other connection");
            assert_eq!(opened.conn, other);
            assert_eq!(net.incoming(HOST), 2, "no third connection");
        },
    );
}

/// "… or new connection, then fails": with the true reason.
#[test]
fn link_dies_a_request_is_asked_for_again_on_a_new_connection_and_then_fails() {
    let mut net = Net::new(9);
    net.nodes[HOST].answer = Box::new(|_| Answer::Ignore);
    let target = net.target(HOST);
    let id = ask(&mut net, &target, "x");
    net.run_for(ms(500));
    let first = net.at_host();
    net.call(HOST, |now, _, ep| ep.close(now, first, 1500, "first", None)).expect("close");
    net.run_for(ms(500));
    assert_eq!(net.incoming(HOST), 2, "a new connection");
    assert!(net.nodes[CLIENT].log.answers(id).is_empty());
    let asked = net.nodes[HOST].log.count(|t| matches!(t, Told::Request(_, _, n) if n == "x"));
    assert_eq!(asked, 2, "asked for again");
    let second = net.at_host();
    net.call(HOST, |now, _, ep| ep.close(now, second, 1501, "second", None)).expect("close");
    let reason = CloseReason::new(Reason(1501), "second");
    assert_eq!(net.answer(id), Err(RequestError::Connection(reason)));
    net.run_for(secs(30));
    assert_eq!(net.incoming(HOST), 2, "no third attempt");
    assert_eq!(net.nodes[CLIENT].log.answers(id).len(), 1);
}

/// "link dies: each channel is told once, with the true reason, never as a clean EOF".
#[test]
fn link_dies_each_channel_is_told_once_with_the_true_reason() {
    seeded("requests::link_dies_each_channel_is_told_once_with_the_true_reason", 6, |seed| {
        let mut net = Net::new(seed);
        net.loss = 500;
        let target = net.target(HOST);
        let ids: Vec<_> = (0..20).map(|i| ask(&mut net, &target, &format!("c{i}"))).collect();
        let opened: Vec<_> = ids.iter().map(|id| net.answer(*id).expect("a channel")).collect();
        net.nodes[HOST].down = true;
        net.run_for(secs(20));
        for channel in opened {
            let ends: Vec<_> = net.nodes[CLIENT]
                .log
                .all()
                .filter_map(|t| match t {
                    Told::Closed(c, k, end) if (*c, *k) == (channel.conn, channel.channel) => {
                        Some(end.clone())
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(ends.len(), 1, "{ends:?}");
            let ChannelEnd::Connection(reason) = &ends[0] else { panic!("{ends:?}") };
            assert_eq!(reason.reason, Reason::TIMEOUT);
        }
        assert_eq!(net.nodes[CLIENT].log.count(|t| matches!(t, Told::Eof(..))), 0);
    });
}

/// A connection that cannot be made is told to everybody who awaits it, once, and not made again.
#[test]
fn a_connection_that_cannot_be_made_fails_its_requests_with_the_true_reason() {
    let mut net = Net::new(10);
    net.nodes[HOST].down = true;
    let target = net.target(HOST);
    let ids: Vec<_> = (0..5).map(|i| ask(&mut net, &target, &format!("c{i}"))).collect();
    let start = net.now;
    for id in ids {
        let Err(RequestError::Connection(reason)) = net.answer(id) else { panic!("no failure") };
        assert_eq!(reason.reason, Reason::TIMEOUT);
    }
    assert!(net.now.since(start) <= secs(11), "a second attempt was made");
    net.run_for(secs(10));
    assert!(net.nodes[CLIENT].manager.is_empty());
    // The application of the host says no: the same, with its words.
    let mut net = Net::new(11);
    net.nodes[HOST].accept = false;
    let target = net.target(HOST);
    let id = ask(&mut net, &target, "c");
    net.run_until("offered", secs(1), |net| net.incoming(HOST) == 1);
    let conn = net.at_host();
    net.call(HOST, |now, _, ep| ep.reject(now, conn, 1401, "not you")).expect("reject");
    let reason = CloseReason::new(Reason(1401), "not you");
    assert_eq!(net.answer(id), Err(RequestError::Connection(reason)));
    net.run_for(secs(5));
    assert_eq!(net.incoming(HOST), 1);
}

/// Somebody else's close is no reason for a request to fail.
#[test]
fn a_request_survives_the_close_of_a_shared_connection() {
    let mut net = Net::new(12);
    let target = net.target(HOST);
    let conn = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target.clone())).unwrap().conn;
    let id = ask(&mut net, &target, "x");
    net.run_for(ms(5));
    net.call(CLIENT, |now, _, ep| ep.close(now, conn, 1000, "", None)).expect("close");
    let opened = net.answer(id).expect("a channel");
    assert_ne!(opened.conn, conn);
}

/// A request that sent early data is not repeated: what was sent would be missing.
#[test]
fn a_request_with_early_data_is_not_asked_for_again() {
    let mut net = Net::new(13);
    let target = net.target(HOST);
    open(&mut net, &target, "a");
    net.nodes[HOST].answer = Box::new(|_| Answer::Ignore);
    let id = ask(&mut net, &target, "early");
    assert!(net.call(CLIENT, |_, m, _| m.early_channel(id)).is_some());
    let host = net.at_host();
    net.call(HOST, |now, _, ep| ep.close(now, host, 1500, "gone", None)).expect("close");
    let reason = CloseReason::new(Reason(1500), "gone");
    assert_eq!(net.answer(id), Err(RequestError::Connection(reason)));
    assert_eq!(net.incoming(HOST), 1);
}

/// "connectivity check: `check()` … pings; no answer in 3 s ends the connection with a timeout".
#[test]
fn connectivity_check_no_answer_in_three_seconds_is_a_timeout() {
    for hint in [false, true] {
        let mut net = Net::new(14);
        let target = net.target(HOST);
        let opened = open(&mut net, &target, "a");
        net.run_for(secs(1));
        net.nodes[HOST].down = true;
        let start = net.now;
        net.call(CLIENT, |now, _, ep| {
            if hint {
                ep.network_changed(now);
            } else {
                ep.check(now, opened.conn).expect("check");
            }
        });
        net.run_until("the end", secs(5), |net| {
            let end = |t: &Told| matches!(t, Told::Status(_, Status::ProblemDetectedLocally, Some(r)) if r.reason == Reason::TIMEOUT);
            net.nodes[CLIENT].log.count(end) == 1
        });
        let waited = net.now.since(start);
        assert!((secs(3)..secs(3) + ms(100)).contains(&waited), "{waited:?}");
    }
}

/// Every request has exactly one answer, whatever happens to the connections under it.
#[test]
fn every_request_has_exactly_one_answer() {
    seeded("requests::every_request_has_exactly_one_answer", 12, |seed| {
        let mut rng = crate::sim::rng::Rng::new(seed);
        let mut net = Net::new(seed);
        net.loss = rng.pick(&[0, 500, 1_500]);
        net.reorder = 1_000;
        let mut dice = crate::sim::rng::Rng::new(seed + 1);
        net.nodes[HOST].answer = Box::new(move |_| match dice.below(4) {
            0 => Answer::Ignore,
            1 => Answer::Decline(3, "no"),
            _ => Answer::Accept,
        });
        let target = net.target(HOST);
        let mut ids = Vec::new();
        for round in 0..60 {
            let reuse = rng.pick(&[Reuse::Allow, Reuse::Allow, Reuse::ForceNew, Reuse::NeverNew]);
            let options = if rng.chance(3_000) { unique() } else { bytes() };
            let name = format!("n{}", rng.below(8));
            if let Ok(id) = net.request(&with(reuse, &target), &name, &options) {
                ids.push(id);
            }
            if rng.chance(1_500)
                && let Some(id) = ids.get(rng.below(ids.len() as u64) as usize).copied()
            {
                net.call(CLIENT, |now, m, ep| m.cancel_request(now, ep, id));
            }
            let side = if rng.chance(5_000) { CLIENT } else { HOST };
            if rng.chance(2_000) {
                let conns: Vec<_> = net.nodes[side].endpoint.connections().collect();
                if !conns.is_empty() {
                    let conn = conns[rng.below(conns.len() as u64) as usize];
                    net.call(side, |now, _, ep| ep.close(now, conn, 1100, "chaos", None)).ok();
                }
            }
            if round == 40 {
                net.nodes[HOST].down = true;
            }
            net.run_for(ms(rng.below(400)));
        }
        net.nodes[HOST].down = false;
        net.run_for(secs(60));
        assert!(ids.len() > 20);
        for id in ids {
            let answers = net.nodes[CLIENT].log.answers(id);
            assert_eq!(answers.len(), 1, "{id:?}: {answers:?}");
        }
        // What the application was never given is never told of.
        let given: BTreeSet<_> = net.nodes[CLIENT]
            .log
            .notices()
            .filter_map(|n| match n {
                Notice::Request { outcome: Ok(o), .. } => Some((o.conn, o.channel)),
                _ => None,
            })
            .collect();
        for told in net.nodes[CLIENT].log.all() {
            if let Told::Closed(conn, channel, _) | Told::Ready(conn, channel) = told {
                assert!(given.contains(&(*conn, *channel)), "{told:?}");
            }
        }
    });
}

/// "size: … 32,767 opened by each side concurrently": through the manager, with other numbers; the
/// rest is in `many_channels`.
#[test]
fn size_thousands_of_requests_at_once_use_one_connection() {
    let mut net = Net::new(15);
    let target = net.target(HOST);
    let ids: Vec<_> = (0..4_000).map(|i| ask(&mut net, &target, &format!("c{i}"))).collect();
    net.run_until("all answers", secs(60), |net| {
        net.nodes[CLIENT].log.notices().filter(|n| matches!(n, Notice::Request { .. })).count()
            == ids.len()
    });
    let mut channels = BTreeSet::new();
    for id in ids {
        channels.insert(net.answer(id).expect("a channel").channel);
    }
    assert_eq!(channels.len(), 4_000);
    assert_eq!(net.incoming(HOST), 1);
}

/// "EOF: … before the accept is finished is remembered": whole content and EOF, then the accept.
#[test]
fn eof_before_the_accept_is_finished_is_remembered() {
    seeded("requests::eof_before_the_accept_is_finished_is_remembered", 8, |seed| {
        let mut net = Net::new(seed);
        net.reorder = 2_000;
        let target = net.target(HOST);
        open(&mut net, &target, "first");
        net.nodes[HOST].answer = Box::new(|_| Answer::Ignore);
        let id = ask(&mut net, &target, "quick");
        net.call(CLIENT, |now, m, ep| {
            let (conn, channel) = m.early_channel(id).expect("asked for");
            ep.send(now, conn, channel, b"all of it", SendOptions::default()).expect("send");
            ep.finish_channel(now, conn, channel).expect("finish");
        });
        net.run_for(ms(500));
        let asked = net.nodes[HOST].log.all().find_map(|t| match t {
            Told::Request(conn, channel, name) if name == "quick" => Some((*conn, *channel)),
            _ => None,
        });
        let (conn, channel) = asked.expect("asked for");
        assert_eq!(
            net.nodes[HOST].log.count(|t| *t == Told::Eof(conn, channel)),
            0,
            "not open yet"
        );
        net.call(HOST, |now, _, ep| ep.accept_channel(now, conn, channel, &bytes()))
            .expect("accept");
        net.run_for(ms(500));
        let of_channel: Vec<_> = net.nodes[HOST]
            .log
            .all()
            .filter(|t| match t {
                Told::Data(c, k, _) | Told::Eof(c, k) => (*c, *k) == (conn, channel),
                _ => false,
            })
            .cloned()
            .collect();
        let content = Told::Data(conn, channel, b"all of it".to_vec());
        assert_eq!(of_channel, [content, Told::Eof(conn, channel)]);
        assert!(net.answer(id).is_ok());
    });
}

/// When the endpoint ends, requests fail; no connection is begun for them.
#[test]
fn a_request_is_not_asked_for_again_when_the_endpoint_ends() {
    let mut net = Net::new(17);
    net.nodes[HOST].answer = Box::new(|_| Answer::Ignore);
    let target = net.target(HOST);
    let id = ask(&mut net, &target, "x");
    net.run_for(secs(1));
    let reason = CloseReason::new(Reason::SHUTDOWN, "over");
    net.call(CLIENT, |now, m, ep| {
        m.stop(now);
        ep.close_all(now, &reason, None);
    });
    assert_eq!(net.answer(id), Err(RequestError::Connection(reason)));
    net.run_for(secs(20));
    assert_eq!(net.incoming(HOST), 1);
    assert!(net.request(&target, "y", &bytes()).is_err());
    assert_eq!(net.nodes[CLIENT].endpoint.connections().count(), 0);
}

/// Arguments are checked before anything is begun.
#[test]
fn arguments_out_of_range_are_errors_and_begin_nothing() {
    let mut net = Net::with(16, Config::default(), Config::default());
    let target = net.target(HOST);
    let long = "x".repeat(1025);
    assert!(matches!(
        net.request(&target, &long, &bytes()),
        Err(ApiError::InvalidArgument { field: "name", .. })
    ));
    let options = ChannelOptions { priority: 9, kind: ChannelKind::Messages, ..bytes() };
    assert!(matches!(
        net.request(&target, "x", &options),
        Err(ApiError::InvalidArgument { field: "priority", .. })
    ));
    assert!(net.nodes[CLIENT].manager.is_empty());
}
