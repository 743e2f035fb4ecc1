//! What calls do in every status (the table of statuses, row by row).

use crate::sim::app::App;
use crate::sim::node::{NodeConfig, OnIncoming};
use crate::sim::pair::{CLIENT, HOST, Pair, options};
use crate::sim::{Flow, Size, ms, on_both_links, secs};
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::endpoint::{Endpoint, SendOptions};
use trunkline_proto::error::ApiError;
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;
use trunkline_proto::time::Instant;

/// A name for messages, and a call.
type Call =
    (&'static str, fn(&mut Endpoint, Instant, ConnHandle, ChannelKey) -> Result<(), ApiError>);

/// Calls on channels.
const CHANNEL_CALLS: [Call; 9] = [
    ("accept_channel", |ep, now, c, ch| ep.accept_channel(now, c, ch, &ChannelOptions::default())),
    ("decline_channel", |ep, now, c, ch| ep.decline_channel(now, c, ch, 1, "")),
    ("send", |ep, now, c, ch| ep.send(now, c, ch, b"x", SendOptions::default())),
    ("send_payload", |ep, now, c, ch| {
        ep.send_payload(now, c, ch, Payload::from(vec![1]), SendOptions::default())
    }),
    ("finish_channel", |ep, now, c, ch| ep.finish_channel(now, c, ch)),
    ("reset_channel", |ep, now, c, ch| ep.reset_channel(now, c, ch, 1)),
    ("stop_channel", |ep, now, c, ch| ep.stop_channel(now, c, ch, 1)),
    ("flush_channel", |ep, now, c, ch| ep.flush_channel(now, c, ch)),
    ("consume", |ep, now, c, ch| ep.consume(now, c, ch, 1)),
];

/// Calls on connections, but close.
const CONN_CALLS: [Call; 4] = [
    ("accept", |ep, now, c, _| ep.accept(now, c)),
    ("reject", |ep, now, c, _| ep.reject(now, c, 1_001, "")),
    ("check", |ep, now, c, _| ep.check(now, c)),
    ("open_channel", |ep, now, c, _| {
        ep.open_channel(now, c, "name", &ChannelOptions::default()).map(|_| ())
    }),
];

const NO_CHANNEL: ChannelKey = ChannelKey { slot: 0, life: 1 };

fn every_call_is_invalid(pair: &mut Pair, node: usize, conn: ConnHandle, channel: ChannelKey) {
    for (name, call) in CHANNEL_CALLS.iter().chain(&CONN_CALLS) {
        let result = pair.w.call(node, |ep, now, _| call(ep, now, conn, channel));
        assert_eq!(result, Err(ApiError::InvalidHandle), "{name}");
    }
    for linger in [None, Some(secs(1))] {
        let result = pair.w.call(node, |ep, now, _| ep.close(now, conn, 1_000, "", linger));
        assert_eq!(result, Err(ApiError::InvalidHandle), "close");
    }
    let endpoint = &pair.w.nodes[node].endpoint;
    assert_eq!(endpoint.status(conn), Status::None);
    assert!(endpoint.info(conn).is_none());
    assert!(endpoint.stats(conn).is_none());
}

#[test]
fn none_every_call_says_invalid_handle() {
    on_both_links(|_| {
        let mut pair = Pair::connected(1);
        let (c, g) = (pair.c, pair.c.generation);
        let strangers = [
            ConnHandle { slot: c.slot + 1, generation: 1 },
            ConnHandle { slot: u32::MAX, generation: 1 },
            ConnHandle { slot: c.slot, generation: g + 1 },
            ConnHandle { slot: c.slot, generation: 0 },
        ];
        for conn in strangers {
            every_call_is_invalid(&mut pair, CLIENT, conn, NO_CHANNEL);
        }
        assert_eq!(pair.status(CLIENT), Status::Connected);
        pair.finish();
    });
}

#[test]
fn connecting_reliable_sends_queue_and_unreliable_ones_are_dropped() {
    on_both_links(|_| {
        let mut pair = Pair::apart(2, NodeConfig::client(), NodeConfig::host());
        pair.start();
        assert_eq!(pair.status(CLIENT), Status::Connecting);
        pair.open(CLIENT, "bytes", ChannelKind::Bytes, Flow::of(30_000, Size::Mixed(4_000)));
        pair.open(CLIENT, "messages", ChannelKind::Messages, Flow::of(20, Size::Mixed(4_000)));
        let flow = Flow::of(10, Size::Fixed(100));
        pair.open(CLIENT, "datagrams", ChannelKind::Datagrams, flow);
        let dropped = pair.chan(CLIENT, "datagrams").pump.as_ref().expect("ours").dropped;
        assert_eq!(dropped, 10, "unreliable messages are refused before Connected");
        pair.await_connected();
        for name in ["bytes", "messages", "datagrams"] {
            pair.await_eof(HOST, name, secs(5));
        }
        assert_eq!(pair.chan(HOST, "datagrams").received.messages, 0);
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn connecting_the_queue_is_bounded() {
    on_both_links(|_| {
        let mut pair = Pair::apart(3, NodeConfig::client(), NodeConfig::host());
        pair.w.vanish(HOST);
        pair.start();
        let flow = Flow::of(1 << 40, Size::Fixed(1 << 16));
        pair.open(CLIENT, "bytes", ChannelKind::Bytes, flow);
        let chan = pair.chan(CLIENT, "bytes");
        assert!(chan.blocked, "queued without end");
        let limit = pair.w.nodes[CLIENT].config.connection.channel_send_buffer;
        let queued = chan.pump.as_ref().expect("ours").bytes;
        assert!(queued <= limit + (1 << 16) && queued >= limit / 2, "{queued} of {limit} bytes");
        pair.w.finish();
    });
}

#[test]
fn connecting_a_host_side_connection_waits_for_its_application() {
    on_both_links(|_| {
        let mut pair = Pair::apart(4, NodeConfig::client(), NodeConfig::host());
        pair.host().policy.incoming = OnIncoming::Ignore;
        pair.start();
        pair.open(CLIENT, "early", ChannelKind::Bytes, Flow::of(500, Size::Fixed(100)));
        pair.w.run_for(ms(500));
        pair.h = pair.w.only(HOST);
        assert_eq!(pair.status(HOST), Status::Connecting);
        assert!(pair.conn(HOST).channels.is_empty(), "a channel before the connection");
        // It may already send: that waits for its own acceptance.
        pair.open(HOST, "host's", ChannelKind::Bytes, Flow::of(500, Size::Fixed(100)));
        pair.w.run_for(ms(500));
        assert!(pair.conn(CLIENT).named("host's").is_none(), "sent before it was accepted");
        let h = pair.h;
        pair.w.call(HOST, |ep, now, _| ep.accept(now, h)).expect("accept");
        pair.await_connected();
        pair.await_eof(HOST, "early", secs(2));
        pair.await_eof(CLIENT, "host's", secs(2));
        let again = pair.w.call(HOST, |ep, now, _| ep.accept(now, h));
        assert!(again.is_err(), "accepted twice");
        let late = pair.w.call(HOST, |ep, now, _| ep.reject(now, h, 1_001, ""));
        assert!(late.is_err(), "rejected after it was accepted");
        pair.finish();
    });
}

#[test]
fn connected_everything_works() {
    on_both_links(|_| {
        let mut pair = Pair::connected(5);
        pair.w.nodes[HOST].policy.answer = Box::new(|_, _| Flow::of(10, Size::Fixed(10)));
        for (name, kind) in [
            ("bytes", ChannelKind::Bytes),
            ("messages", ChannelKind::Messages),
            ("datagrams", ChannelKind::Datagrams),
        ] {
            pair.open(CLIENT, name, kind, Flow::of(50, Size::Fixed(200)));
            pair.await_eof(HOST, name, secs(2));
            pair.await_eof(CLIENT, name, secs(2));
            pair.run_until("it is over", secs(2), |p| p.chan(CLIENT, name).end.is_some());
        }
        // Keys of channels that ended are stale.
        let (c, key) = (pair.c, pair.key(CLIENT, "bytes"));
        for (name, call) in &CHANNEL_CALLS {
            let result = pair.w.call(CLIENT, |ep, now, _| call(ep, now, c, key));
            if *name == "consume" {
                // Credit may still be returned for what came before the end.
                continue;
            }
            assert_eq!(result, Err(ApiError::InvalidHandle), "{name} on a channel that ended");
        }
        let client_calls = [CONN_CALLS[0], CONN_CALLS[1]];
        for (name, call) in client_calls {
            let result = pair.w.call(CLIENT, |ep, now, _| call(ep, now, c, key));
            assert!(
                matches!(result, Err(ApiError::NoConnection(_))),
                "{name} by a client: {result:?}"
            );
        }
        pair.check_delivery();
        pair.finish();
    });
}

/// A pair whose host side has ended with this status; its handle is still open.
fn ended(status: Status) -> (Pair, ChannelKey) {
    let mut pair = Pair::connected(6);
    pair.open(CLIENT, "open", ChannelKind::Bytes, Flow::silent());
    pair.run_until("it is ready", secs(1), |p| {
        p.conn(CLIENT).named("open").is_some_and(|c| c.ready)
    });
    pair.settle();
    let key = pair.key(HOST, "open");
    if status == Status::ClosedByPeer {
        pair.close(CLIENT, None);
    } else {
        pair.w.vanish(CLIENT);
    }
    pair.run_until("the end is seen", secs(12), |p| p.conn(HOST).status == status);
    (pair, key)
}

#[test]
fn closed_by_peer_and_problem_sends_fail_and_the_handle_must_be_closed() {
    on_both_links(|_| {
        for status in [Status::ClosedByPeer, Status::ProblemDetectedLocally] {
            let (mut pair, key) = ended(status);
            let h = pair.h;
            assert_eq!(pair.status(HOST), status);
            // Channels ended with the connection: their keys may be stale already.
            for (name, call) in &CHANNEL_CALLS {
                let result = pair.w.call(HOST, |ep, now, _| call(ep, now, h, key));
                let refused = matches!(&result, Err(ApiError::NoConnection(_)));
                let taken = *name == "consume" && result.is_ok();
                assert!(refused || taken, "{name} in {status:?}: {result:?}");
            }
            for (name, call) in &CONN_CALLS {
                let result = pair.w.call(HOST, |ep, now, _| call(ep, now, h, key));
                assert!(matches!(result, Err(ApiError::NoConnection(_))), "{name}: {result:?}");
            }
            let info = pair.w.nodes[HOST].endpoint.info(h).expect("the handle is still open");
            assert_eq!(info.status, status);
            assert!(info.reason.is_some());
            // Nothing moves until the application closes.
            pair.w.run_for(secs(120));
            assert_eq!(pair.status(HOST), status);
            assert_eq!(pair.w.nodes[HOST].endpoint.connections().count(), 1);
            pair.close(HOST, Some(secs(30)));
            every_call_is_invalid(&mut pair, HOST, h, key);
            pair.w.run_until("the slot is free", ms(10), |w| w.nodes[HOST].is_empty());
            pair.w.finish();
        }
    });
}

#[test]
fn fin_wait_linger_and_dead_are_gone_for_the_application() {
    on_both_links(|_| {
        for linger in [None, Some(secs(30))] {
            let mut pair = Pair::connected(7);
            pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(3_000_000, Size::Fixed(50_000)));
            pair.w.run_for(ms(100));
            let (c, key) = (pair.c, pair.key(CLIENT, "bulk"));
            pair.close(CLIENT, linger);
            every_call_is_invalid(&mut pair, CLIENT, c, key);
            pair.w.run_for(ms(30));
            every_call_is_invalid(&mut pair, CLIENT, c, key);
            pair.w.run_until("dead", secs(40), |w| w.nodes[CLIENT].is_empty());
            every_call_is_invalid(&mut pair, CLIENT, c, key);
            // The slot's next life has another handle.
            pair.connect();
            assert_ne!(pair.c, c);
            every_call_is_invalid(&mut pair, CLIENT, c, key);
            assert_eq!(pair.status(CLIENT), Status::Connected);
            pair.finish();
        }
    });
}

#[test]
fn a_second_close_is_an_invalid_handle() {
    on_both_links(|_| {
        let mut pair = Pair::connected(8);
        let c = pair.c;
        pair.close(CLIENT, None);
        let again = pair.w.call(CLIENT, |ep, now, _| ep.close(now, c, 1_000, "again", None));
        assert_eq!(again, Err(ApiError::InvalidHandle));
        pair.w.finish();
    });
}

#[test]
fn arguments_out_of_range_are_named() {
    on_both_links(|_| {
        let mut pair = Pair::connected(9);
        let (c, long) = (pair.c, "n".repeat(1_025));
        let open = |ep: &mut Endpoint, now, name: &str, o: &ChannelOptions| {
            ep.open_channel(now, c, name, o)
        };
        let named = |result: Result<ChannelKey, ApiError>, field: &str| match result {
            Err(ApiError::InvalidArgument { field: f, .. }) => assert!(f.contains(field), "{f}"),
            other => panic!("{field}: {other:?}"),
        };
        let good = options(ChannelKind::Bytes);
        let call = |pair: &mut Pair, name: &str, o: ChannelOptions| {
            pair.w.call(CLIENT, |ep, now, _: &mut App| open(ep, now, name, &o))
        };
        named(call(&mut pair, &long, good), "name");
        named(call(&mut pair, "a", ChannelOptions { priority: 8, ..good }), "priority");
        named(call(&mut pair, "a", ChannelOptions { weight: 0, ..good }), "weight");
        named(call(&mut pair, "a", ChannelOptions { window: Some(255), ..good }), "window");
        named(call(&mut pair, "a", ChannelOptions { latest: true, ..good }), "latest");
        pair.open(CLIENT, &"n".repeat(1_024), ChannelKind::Bytes, Flow::of(10, Size::Fixed(10)));
        pair.await_eof(HOST, &"n".repeat(1_024), secs(2));
        let key = pair.open(CLIENT, "messages", ChannelKind::Messages, Flow::silent());
        let limit = pair.w.nodes[CLIENT].config.connection.max_message;
        let large = vec![0; limit + 1];
        let result =
            pair.w.call(CLIENT, |ep, now, _| ep.send(now, c, key, &large, SendOptions::default()));
        assert_eq!(result, Err(ApiError::MessageTooLarge { len: limit + 1, limit }));
        let key = pair.open(CLIENT, "datagrams", ChannelKind::Datagrams, Flow::silent());
        let limit = trunkline_proto::limits::MAX_DATAGRAM;
        let result = pair.w.call(CLIENT, |ep, now, _| {
            ep.send(now, c, key, &large[..=limit], SendOptions::default())
        });
        assert_eq!(result, Err(ApiError::MessageTooLarge { len: limit + 1, limit }));
        pair.finish();
    });
}
