//! Channels: opening, answering, ending, their numbers.

use crate::seeded;
use crate::sim::app::Event;
use crate::sim::node::{NodeConfig, OnRequest};
use crate::sim::pair::{CLIENT, HOST, Pair, options};
use crate::sim::{End, Flow, Size, ms, on_both_links, secs};
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::endpoint::SendOptions;
use trunkline_proto::error::ApiError;
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::limits::{CLIENT_FIRST_CHANNEL, HOST_FIRST_CHANNEL};
use trunkline_proto::status::Status;

const KINDS: [ChannelKind; 3] = [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams];

#[test]
fn ids_of_the_two_sides_never_collide() {
    on_both_links(|_| {
        let mut pair = Pair::connected(1);
        for i in 0..5 {
            pair.open(CLIENT, &format!("c{i}"), ChannelKind::Bytes, Flow::of(1, Size::Fixed(1)));
            pair.open(HOST, &format!("h{i}"), ChannelKind::Bytes, Flow::of(1, Size::Fixed(1)));
        }
        pair.settle();
        for i in 0..5u16 {
            let at_host = pair.chan(HOST, &format!("c{i}")).id;
            let at_client = pair.chan(CLIENT, &format!("h{i}")).id;
            assert_eq!(at_host, Some(CLIENT_FIRST_CHANNEL + i));
            assert_eq!(at_client, Some(HOST_FIRST_CHANNEL + i));
        }
        pair.finish();
    });
}

#[test]
fn a_unique_name_joins_the_channel_that_is_there() {
    on_both_links(|_| {
        let mut pair = Pair::connected(12);
        let unique = ChannelOptions { unique: true, ..options(ChannelKind::Bytes) };
        let first = pair.try_open(CLIENT, "one", unique, Flow::silent()).expect("open");
        let c = pair.c;
        let again = |pair: &mut Pair, o: ChannelOptions| {
            pair.w.call(CLIENT, |ep, now, _| ep.open_channel(now, c, "one", &o)).expect("open")
        };
        // At once, and when it is answered.
        assert_eq!(again(&mut pair, unique), first);
        pair.settle();
        assert_eq!(again(&mut pair, unique), first);
        assert_eq!(pair.conn(HOST).channels.len(), 1, "asked for twice");
        // Without the option the name may be used again; nothing is joined when it is over.
        let c2 = pair.open(CLIENT, "two", ChannelKind::Bytes, Flow::silent());
        assert_ne!(c2, first);
        pair.host().policy.answer = Box::new(|_, _| Flow::of(0, Size::Fixed(1)));
        pair.try_open(CLIENT, "three", unique, Flow::of(10, Size::Fixed(10))).expect("open");
        pair.run_until("it is over", secs(1), |p| p.chan(CLIENT, "three").end.is_some());
        let old = pair.key(CLIENT, "three");
        let new = pair.w.call(CLIENT, |ep, now, _| ep.open_channel(now, c, "three", &unique));
        assert_ne!(new, Ok(old));
        pair.w.call(CLIENT, |ep, now, app| {
            let key = new.expect("open");
            app.conn_mut(c).add_channel(key, "three again", true, unique, None);
            ep.reset_channel(now, c, key, 1).expect("reset");
        });
        pair.close(CLIENT, None);
        pair.w.drain(secs(10));
    });
}

#[test]
fn a_decline_leaves_the_others_alone() {
    on_both_links(|_| {
        let mut pair = Pair::connected(2);
        pair.host().policy.request = Box::new(|name| match name {
            "no" => OnRequest::Decline(77, "not here".into()),
            _ => OnRequest::Accept(options(ChannelKind::Bytes)),
        });
        for kind in KINDS {
            let name = format!("yes/{kind:?}");
            pair.open(CLIENT, "no", kind, Flow::of(50, Size::Fixed(100)));
            pair.open(CLIENT, &name, kind, Flow::of(50, Size::Fixed(100)));
            pair.run_until("it is declined", secs(1), |p| p.chan(CLIENT, "no").end.is_some());
            let end = pair.chan(CLIENT, "no").end.clone();
            assert_eq!(end, Some(ChannelEnd::Declined { code: 77, text: "not here".into() }));
            pair.await_eof(HOST, &name, secs(1));
        }
        assert_eq!(pair.status(CLIENT), Status::Connected);
        pair.finish();
    });
}

#[test]
fn no_answer_in_time_fails_that_channel_only() {
    on_both_links(|_| {
        let mut pair = Pair::with(3, |c| c.channel_timeout = secs(4));
        pair.host().policy.request = Box::new(|name| match name {
            "ignored" => OnRequest::Ignore,
            _ => OnRequest::Accept(options(ChannelKind::Bytes)),
        });
        let start = pair.now();
        let flow = Flow::of(100, Size::Fixed(10)).ending(End::Stay);
        pair.open(CLIENT, "ignored", ChannelKind::Bytes, flow);
        pair.open(CLIENT, "other", ChannelKind::Bytes, Flow::silent());
        pair.run_until("it fails", secs(5), |p| p.chan(CLIENT, "ignored").end.is_some());
        assert!(pair.now().since(start) >= secs(4));
        assert_eq!(pair.chan(CLIENT, "ignored").end, Some(ChannelEnd::TimedOut));
        assert_eq!(pair.status(CLIENT), Status::Connected);
        pair.settle();
        pair.send(CLIENT, "other", Flow::of(100, Size::Fixed(10)));
        pair.await_eof(HOST, "other", secs(1));
        assert!(pair.chan(HOST, "ignored").end.is_some(), "the host still offers it");
        pair.finish();
    });
}

#[test]
fn half_close_per_direction() {
    on_both_links(|_| {
        for kind in KINDS {
            let mut pair = Pair::connected(4);
            pair.open(CLIENT, "half", kind, Flow::of(20, Size::Fixed(50)));
            pair.await_eof(HOST, "half", secs(1));
            pair.w.run_for(secs(30));
            assert!(pair.chan(CLIENT, "half").end.is_none(), "one EOF ended both directions");
            pair.send(HOST, "half", Flow::of(40, Size::Fixed(60)));
            pair.await_eof(CLIENT, "half", secs(1));
            for node in [CLIENT, HOST] {
                pair.run_until("it is over", secs(1), |p| p.chan(node, "half").end.is_some());
                assert_eq!(pair.chan(node, "half").end, Some(ChannelEnd::Finished));
            }
            pair.check_delivery();
            pair.finish();
        }
    });
}

#[test]
fn a_write_of_nothing_is_no_end() {
    on_both_links(|_| {
        let mut pair = Pair::connected(5);
        let key = pair.open(CLIENT, "bytes", ChannelKind::Bytes, Flow::silent());
        let c = pair.c;
        for _ in 0..3 {
            pair.w
                .call(CLIENT, |ep, now, _| ep.send(now, c, key, b"", SendOptions::default()))
                .expect("nothing can always be sent");
            pair.w.run_for(ms(100));
        }
        pair.settle();
        assert!(!pair.chan(HOST, "bytes").eof, "an EOF by accident");
        pair.send(CLIENT, "bytes", Flow::of(100, Size::Fixed(10)));
        pair.await_eof(HOST, "bytes", secs(1));
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn empty_messages_and_datagrams_are_messages() {
    on_both_links(|_| {
        for kind in [ChannelKind::Messages, ChannelKind::Datagrams] {
            let mut pair = Pair::connected(6);
            pair.open(CLIENT, "empty", kind, Flow::silent());
            pair.settle();
            pair.send(CLIENT, "empty", Flow::of(10, Size::Fixed(0)));
            pair.await_eof(HOST, "empty", secs(1));
            assert_eq!(pair.chan(HOST, "empty").received.messages, 10);
            pair.finish();
        }
    });
}

#[test]
fn a_cancelled_channel_never_looks_finished() {
    on_both_links(|_| {
        seeded("channels::a_cancelled_channel_never_looks_finished", 20, |seed| {
            let mut pair = Pair::connected(seed);
            pair.link(|link| {
                link.loss = [0, 1_000][(seed % 2) as usize];
                link.reorder = 1_000;
            });
            let kind = KINDS[(seed % 3) as usize];
            let amount = if kind == ChannelKind::Bytes { 90_000 } else { 90 };
            pair.host().policy.answer = Box::new(|_, _| Flow::of(10, Size::Fixed(10)));
            pair.open(
                CLIENT,
                "reset",
                kind,
                Flow::of(amount, Size::Fixed(1_000)).ending(End::Stay),
            );
            pair.w.run_for(ms(10 * (seed % 9)));
            let (c, key) = (pair.c, pair.key(CLIENT, "reset"));
            pair.w.call(CLIENT, |ep, now, app| {
                ep.reset_channel(now, c, key, 4_321).expect("reset");
                app.conn_mut(c).chan_mut(key).pump.as_mut().expect("ours").cancelled = true;
            });
            pair.run_until("both sides are through", secs(20), |p| {
                [CLIENT, HOST]
                    .iter()
                    .all(|n| p.conn(*n).named("reset").is_some_and(|c| c.end.is_some()))
            });
            let at_host = pair.chan(HOST, "reset");
            assert_eq!(at_host.reset, Some(4_321));
            assert_eq!(at_host.end, Some(ChannelEnd::Reset { code: 4_321, by_peer: true }));
            let ours = pair.chan(CLIENT, "reset").end.clone();
            assert_eq!(ours, Some(ChannelEnd::Reset { code: 4_321, by_peer: false }));
            let free = pair
                .w
                .call(CLIENT, |ep, now, _| ep.send(now, c, key, b"x", SendOptions::default()));
            assert_eq!(free, Err(ApiError::InvalidHandle));
            pair.finish();
        });
    });
}

#[test]
fn a_receiver_can_refuse_the_rest() {
    on_both_links(|_| {
        seeded("channels::a_receiver_can_refuse_the_rest", 20, |seed| {
            let mut pair = Pair::connected(seed);
            pair.link(|link| link.loss = [0, 1_000][(seed % 2) as usize]);
            let kind = KINDS[(seed % 3) as usize];
            let (amount, after) =
                if kind == ChannelKind::Bytes { (900_000, 5_000) } else { (900, 5) };
            pair.host().app.tell_data = true;
            pair.host().policy.stop = Box::new(move |_| Some((after, 55)));
            pair.host().policy.answer = Box::new(|_, _| Flow::of(1_000, Size::Fixed(100)));
            pair.open(CLIENT, "stop", kind, Flow::of(amount, Size::Fixed(1_000)).paced(ms(1)));
            pair.run_until("the sender is told", secs(20), |p| {
                let chan = p.chan(CLIENT, "stop");
                chan.stopped.is_some() || chan.end.is_some()
            });
            assert_eq!(pair.chan(CLIENT, "stop").stopped, Some(55));
            let limit = secs(20);
            pair.run_until("both sides are through", limit, |p| {
                [CLIENT, HOST].iter().all(|n| p.chan(*n, "stop").end.is_some())
            });
            assert!(!pair.chan(HOST, "stop").eof, "a clean EOF for a part");
            assert_eq!(pair.status(CLIENT), Status::Connected);
            pair.finish();
        });
    });
}

#[test]
fn data_waits_for_the_answer_where_that_is_asked_for() {
    on_both_links(|_| {
        let mut pair = Pair::connected(7);
        pair.host().policy.request = Box::new(|_| OnRequest::Ignore);
        let waiting = ChannelOptions { wait_for_answer: true, ..options(ChannelKind::Bytes) };
        let before = pair.w.nodes[CLIENT].bytes_out;
        pair.try_open(CLIENT, "waits", waiting, Flow::of(50_000, Size::Fixed(5_000)))
            .expect("open");
        pair.w.run_for(ms(500));
        assert!(pair.w.nodes[CLIENT].bytes_out - before < 5_000, "data went out unanswered");
        let (h, key) = (pair.h, pair.key(HOST, "waits"));
        pair.w.call(HOST, |ep, now, _| {
            ep.accept_channel(now, h, key, &options(ChannelKind::Bytes)).expect("accept");
        });
        pair.await_eof(HOST, "waits", secs(2));
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn an_eof_before_the_accept_is_finished_is_remembered() {
    on_both_links(|_| {
        for kind in [ChannelKind::Bytes, ChannelKind::Messages] {
            let mut pair = Pair::connected(8);
            pair.host().policy.request = Box::new(|_| OnRequest::Ignore);
            pair.open(CLIENT, "late", kind, Flow::of(10, Size::Fixed(10)));
            pair.settle();
            assert!(!pair.chan(HOST, "late").eof, "an EOF of what is not accepted");
            assert_eq!(pair.chan(HOST, "late").received.bytes, 0);
            // The link carries nothing more: all of it had come.
            pair.link(|link| link.down = true);
            let (h, key) = (pair.h, pair.key(HOST, "late"));
            pair.w.call(HOST, |ep, now, _| {
                ep.accept_channel(now, h, key, &options(kind)).expect("accept");
            });
            pair.await_eof(HOST, "late", secs(1));
            pair.link(|link| link.down = false);
            pair.check_delivery();
            pair.finish();
        }
    });
}

#[test]
fn early_data_needs_no_round_trip_and_has_a_budget() {
    on_both_links(|_| {
        let mut pair = Pair::with(8, |c| c.early_data = 10_000);
        pair.settle();
        // One way is 10 ms: a small request with its data is there after that.
        let start = pair.now();
        pair.open(CLIENT, "quick", ChannelKind::Bytes, Flow::of(100, Size::Fixed(100)));
        pair.await_eof(HOST, "quick", secs(1));
        assert!(pair.now().since(start) <= ms(11), "{} ms", pair.now().since(start).as_millis());
        // Unanswered requests share one budget.
        pair.host().policy.request = Box::new(|_| OnRequest::Ignore);
        let before = pair.w.nodes[CLIENT].bytes_out;
        for i in 0..10 {
            let flow = Flow::of(20_000, Size::Fixed(5_000));
            pair.open(CLIENT, &format!("early/{i}"), ChannelKind::Bytes, flow);
        }
        pair.w.run_for(ms(900));
        let sent = pair.w.nodes[CLIENT].bytes_out - before;
        assert!((9_000..16_000).contains(&sent), "{sent} bytes sent before any answer");
        let h = pair.h;
        for i in 0..10 {
            let key = pair.key(HOST, &format!("early/{i}"));
            pair.w.call(HOST, |ep, now, _| {
                ep.accept_channel(now, h, key, &options(ChannelKind::Bytes)).expect("accept");
            });
        }
        for i in 0..10 {
            pair.await_eof(HOST, &format!("early/{i}"), secs(2));
        }
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn declined_early_data_is_forgotten_and_its_budget_comes_back() {
    on_both_links(|_| {
        let mut pair = Pair::with(9, |c| c.early_data = 5_000);
        pair.host().policy.request = Box::new(|name| {
            if name.starts_with("no") {
                OnRequest::Decline(1, "no".into())
            } else {
                OnRequest::Accept(options(ChannelKind::Bytes))
            }
        });
        for i in 0..40 {
            let name = format!("no/{i}");
            pair.open(CLIENT, &name, ChannelKind::Bytes, Flow::of(3_000, Size::Fixed(500)));
            pair.run_until("declined", secs(1), |p| p.chan(CLIENT, &name).end.is_some());
        }
        pair.open(CLIENT, "yes", ChannelKind::Bytes, Flow::of(50_000, Size::Fixed(5_000)));
        pair.await_eof(HOST, "yes", secs(2));
        assert_eq!(pair.status(HOST), Status::Connected);
        pair.finish();
    });
}

#[test]
fn too_many_channels_are_a_limit_that_is_told() {
    on_both_links(|_| {
        let client = NodeConfig::client().with(|c| c.max_channels = 3);
        let mut pair = Pair::apart(10, client, NodeConfig::host().with(|c| c.max_channels = 3));
        pair.connect();
        let mut refused = 0;
        for i in 0..10 {
            let name = format!("c{i}");
            match pair.try_open(CLIENT, &name, options(ChannelKind::Bytes), Flow::silent()) {
                Ok(_) => {}
                Err(ApiError::LimitReached { .. } | ApiError::WouldBlock(_)) => refused += 1,
                Err(e) => panic!("{e}"),
            }
        }
        pair.settle();
        let ready = pair.conn(CLIENT).channels.values().filter(|c| c.ready).count();
        let ended = pair.conn(CLIENT).channels.values().filter(|c| c.end.is_some()).count();
        assert_eq!((ready, ended + refused), (3, 7), "three are open, seven were refused");
        assert_eq!(pair.conn(HOST).channels.len(), 3);
        assert_eq!(pair.status(CLIENT), Status::Connected);
        pair.finish();
    });
}

#[test]
fn receipts_come_once_and_only_for_what_arrived() {
    on_both_links(|_| {
        seeded("channels::receipts_come_once_and_only_for_what_arrived", 12, |seed| {
            let mut pair = Pair::connected(seed);
            pair.link(|link| {
                link.loss = [0, 1_500][(seed % 2) as usize];
                link.reorder = 1_000;
            });
            let kind = [ChannelKind::Bytes, ChannelKind::Messages][(seed / 2 % 2) as usize];
            let amount = if kind == ChannelKind::Bytes { 60_000 } else { 60 };
            let flow = Flow { receipts: true, ..Flow::of(amount, Size::Mixed(3_000)) };
            pair.open(CLIENT, "receipts", kind, flow.ending(End::Stay));
            pair.run_until("every receipt came", secs(60), |p| {
                let chan = p.chan(CLIENT, "receipts");
                let pump = chan.pump.as_ref().expect("ours");
                pump.exhausted() && chan.receipts.len() as u64 == pump.messages
            });
            let sent = pair.chan(CLIENT, "receipts").pump.as_ref().expect("ours").bytes;
            assert_eq!(pair.chan(HOST, "receipts").received.bytes, sent, "a receipt came too soon");
            pair.finish();
        });
    });
}

#[test]
fn each_side_tells_one_end_of_every_channel() {
    on_both_links(|_| {
        let mut pair = Pair::connected(11);
        pair.host().app.keep_history = true;
        pair.host().policy.answer = Box::new(|_, _| Flow::silent());
        for i in 0..100 {
            pair.open(CLIENT, &format!("c{i}"), KINDS[i % 3], Flow::of(10, Size::Fixed(10)));
        }
        pair.settle();
        pair.close(CLIENT, None);
        pair.w.drain(secs(10));
        let ends = pair.w.history(HOST).iter().filter(|(_, e)| matches!(e, Event::Closed { .. }));
        assert_eq!(ends.count(), 100);
        for chan in pair.conn(HOST).channels.values() {
            assert!(matches!(chan.end, Some(ChannelEnd::Connection(_))), "{:?}", chan.end);
        }
    });
}
