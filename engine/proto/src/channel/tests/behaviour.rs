//! Single behaviours of reliable channels.

use super::net::{CONN, Net, Weather, pattern_bytes, receive};
use crate::channel::{ChannelPhase, ConnMessage};
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::endpoint::SendOptions;
use crate::error::{ApiError, CloseReason, PeerMisbehaved, Reason};
use crate::event::ChannelEnd;
use crate::time::Duration;
use crate::wire::control::{
    ChannelRequestMessage, RequestOptions, encode_authentication_request, encode_channel_request,
};
use crate::wire::frame::{Frames, RawFrame, write_stream_header};

fn net() -> Net {
    Net::new(1, Weather::FINE, ConnectionConfig::default())
}

fn kind(kind: ChannelKind) -> ChannelOptions {
    ChannelOptions { kind, no_delay: true, ..ChannelOptions::default() }
}

/// A stream frame made by hand.
pub(super) fn stream_frame(id: u16, offset: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 10];
    write_stream_header(&mut frame, id, offset, body.len());
    frame.extend_from_slice(body);
    frame
}

#[test]
fn opening_sending_and_closing() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Bytes);
    assert!(net.seen(0, a).ready && net.seen(1, b).ready);
    net.send(0, a, b"hello");
    net.send(1, b, b"and back");
    net.settle();
    assert_eq!(net.seen(1, b).bytes, b"hello");
    assert_eq!(net.seen(0, a).bytes, b"and back");
    net.finish(0, a);
    net.settle();
    assert!(net.seen(1, b).eof && net.seen(1, b).closed.is_none());
    net.send(1, b, b", half closed");
    net.finish(1, b);
    net.settle();
    assert_eq!(net.seen(0, a).bytes, b"and back, half closed");
    assert_eq!(net.seen(0, a).closed, Some(ChannelEnd::Finished));
    assert_eq!(net.seen(1, b).closed, Some(ChannelEnd::Finished));
    let stale = net.sides[0].mux.send(net.now, a, b"x", SendOptions::default());
    assert_eq!(stale, Err(ApiError::InvalidHandle));
}

#[test]
fn small_messages_share_a_frame() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Messages);
    for n in 0..20u8 {
        net.send(0, a, &[n; 40]);
    }
    let (pn, payload) = net.packet(0).unwrap();
    assert_eq!(Frames::new(&payload).count(), 1);
    net.deliver(1, pn, &payload);
    assert_eq!(net.seen(1, b).messages.len(), 20);
    assert_eq!(net.packet(0), None);
}

#[test]
fn a_unique_name_joins_the_channel_that_is_there() {
    let mut net = net();
    let options = ChannelOptions { unique: true, ..kind(ChannelKind::Bytes) };
    let a = net.open(0, "one", &options);
    assert_eq!(net.open(0, "one", &options), a, "while it is asked for");
    net.settle();
    assert_eq!(net.open(0, "one", &options), a, "once it is there");
    assert_ne!(net.open(0, "two", &options), a);
    assert_ne!(
        net.open(0, "one", &kind(ChannelKind::Bytes)),
        a,
        "names are not unique by themselves"
    );
    net.sides[0].mux.finish(net.now, a).unwrap();
    assert_ne!(
        net.open(0, "one", &options),
        a,
        "one that cannot be sent on any more is not joined"
    );
}

#[test]
fn empty_sends() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.send(0, a, b"");
    net.settle();
    assert!(!net.seen(1, b).eof);
    let receipt = SendOptions { receipt: Some(1), ..SendOptions::default() };
    assert!(net.sides[0].mux.send(net.now, a, b"", receipt).is_err());
    let (a, b) = net.connect(ChannelKind::Messages);
    net.send(0, a, b"");
    net.settle();
    assert_eq!(net.seen(1, b).messages, [b""]);
}

#[test]
fn eof_that_overtakes_data() {
    for kind in [ChannelKind::Bytes, ChannelKind::Messages] {
        let mut net = net();
        let (a, b) = net.connect(kind);
        net.send(0, a, b"last words");
        let (data_pn, data) = net.packet(0).unwrap();
        net.finish(0, a);
        let (eof_pn, eof) = net.packet(0).unwrap();
        net.deliver(1, eof_pn, &eof);
        assert!(!net.seen(1, b).eof);
        net.deliver(1, data_pn, &data);
        assert!(net.seen(1, b).eof);
        net.check();
    }
}

#[test]
fn frames_that_overtake_their_request() {
    for k in [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams] {
        let mut net = net();
        let a = net.open(0, "late", &kind(k));
        let (request_pn, request) = net.packet(0).unwrap();
        net.send(0, a, b"first");
        let (first_pn, first) = net.packet(0).unwrap();
        net.send(0, a, b"second");
        net.finish(0, a);
        let (second_pn, second) = net.packet(0).unwrap();
        net.deliver(1, second_pn, &second);
        net.deliver(1, first_pn, &first);
        net.check();
        net.deliver(1, request_pn, &request);
        net.settle();
        let seen = net.sides[1].sink.by_name("late");
        assert!(seen.eof, "{k:?}");
        if k == ChannelKind::Bytes {
            assert_eq!(seen.bytes, b"firstsecond");
        } else {
            assert_eq!(seen.messages.len(), 2);
        }
    }
}

#[test]
fn frames_that_overtake_the_answer() {
    let mut net = net();
    let a = net.open(0, "x", &kind(ChannelKind::Messages));
    let (pn, payload) = net.packet(0).unwrap();
    net.deliver(1, pn, &payload);
    let (b, _, _) = net.sides[1].sink.requests.pop().unwrap();
    net.sides[1].mux.accept(net.now, b, &kind(ChannelKind::Messages), 0).unwrap();
    let (answer_pn, answer) = net.packet(1).unwrap();
    net.send(1, b, b"overtakes");
    net.finish(1, b);
    let (data_pn, data) = net.packet(1).unwrap();
    net.deliver(0, data_pn, &data);
    assert!(net.seen(0, a).messages.is_empty());
    net.deliver(0, answer_pn, &answer);
    assert_eq!(net.seen(0, a).messages, [b"overtakes"]);
    assert!(net.seen(0, a).eof);
}

#[test]
fn early_data_waits_for_acceptance_and_stays_in_its_budget() {
    let config = ConnectionConfig { early_data: 1000, ..ConnectionConfig::default() };
    let mut net = Net::new(1, Weather::FINE, config);
    net.accept = None;
    let data = pattern_bytes(7, 0, 5000);
    let a = net.open(0, "x", &kind(ChannelKind::Bytes));
    let b = net.open(0, "y", &kind(ChannelKind::Bytes));
    net.send(0, a, &data);
    net.send(0, b, &data);
    net.finish(0, a);
    net.settle_without_timers();
    assert!(net.sides[0].bytes_sent < 1300, "{}", net.sides[0].bytes_sent);
    let (key, ..) = net.sides[1].sink.requests.remove(0);
    assert!(net.seen(1, key).bytes.is_empty());
    net.sides[1].mux.accept(net.now, key, &ChannelOptions::default(), 0).unwrap();
    net.settle_without_timers();
    assert_eq!(net.seen(1, key).bytes, data);
    assert!(net.seen(1, key).eof);
    // The credit of the first is free again, so the second one could go on.
    let held = net.sides[1].mux.info(net.sides[1].sink.requests[0].0).unwrap().received_bytes;
    assert!(held > 900, "{held}");
}

#[test]
fn wait_for_answer_sends_nothing_early() {
    let mut net = net();
    net.accept = None;
    let options = ChannelOptions { wait_for_answer: true, ..kind(ChannelKind::Bytes) };
    let a = net.open(0, "x", &options);
    net.send(0, a, &[1; 3000]);
    net.settle_without_timers();
    assert!(net.sides[0].bytes_sent < 100);
    net.accept = Some(ChannelOptions::default());
    net.settle();
    assert_eq!(net.sides[1].sink.by_name("x").bytes.len(), 3000);
}

#[test]
fn decline_with_early_data() {
    let mut net = net();
    net.accept = None;
    let a = net.open(0, "unwanted", &kind(ChannelKind::Messages));
    net.send(0, a, &[1; 3000]);
    net.finish(0, a);
    net.settle_without_timers();
    let (b, ..) = net.sides[1].sink.requests.remove(0);
    net.sides[1].mux.decline(net.now, b, 1234, "no", 0).unwrap();
    assert_eq!(net.sides[1].mux.info(b).map(|i| i.id), None);
    net.settle();
    let end = ChannelEnd::Declined { code: 1234, text: "no".into() };
    assert_eq!(net.seen(0, a).closed, Some(end));
    assert!(net.seen(1, b).closed.is_none() && net.seen(1, b).messages.is_empty());
    // The RESET freed the id on both sides.
    assert_eq!((net.sides[0].mux.count(), net.sides[1].mux.count()), (0, 0));
    assert!(!net.sides[0].mux.has_unacked_reliable());
}

#[test]
fn reset_by_the_sender() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Messages);
    net.send(0, a, &[1; 100_000]);
    let (pn, payload) = net.packet(0).unwrap();
    net.deliver(1, pn, &payload);
    net.sides[0].mux.reset(net.now, a, 77).unwrap();
    assert_eq!(net.sides[0].mux.unacked_reliable_bytes(), 0);
    assert!(net.sides[0].mux.send(net.now, a, b"x", SendOptions::default()).is_err());
    net.send(1, b, b"still fine");
    net.settle();
    assert_eq!(net.seen(1, b).reset, Some(77));
    assert!(net.seen(1, b).closed.is_none() && !net.seen(1, b).eof);
    net.finish(1, b);
    net.settle();
    assert_eq!(net.seen(0, a).messages, [b"still fine"]);
    let end = |by_peer| Some(ChannelEnd::Reset { code: 77, by_peer });
    assert_eq!(net.seen(1, b).closed, end(true));
    assert_eq!(net.seen(0, a).closed, end(false));
}

#[test]
fn stop_by_the_receiver() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.send(0, a, &[1; 500_000]);
    let (pn, payload) = net.packet(0).unwrap();
    net.deliver(1, pn, &payload);
    net.sides[1].mux.stop(net.now, b, 55).unwrap();
    let seen = net.seen(1, b).bytes.len();
    net.settle();
    assert_eq!(net.seen(0, a).stopped, Some(55));
    assert_eq!(net.seen(1, b).bytes.len(), seen, "nothing is delivered after the stop");
    assert!(net.seen(1, b).reset.is_none() && !net.seen(1, b).eof);
    net.finish(1, b);
    net.settle();
    assert_eq!(net.seen(0, a).closed, Some(ChannelEnd::Reset { code: 55, by_peer: true }));
    assert_eq!(net.seen(1, b).closed, Some(ChannelEnd::Reset { code: 55, by_peer: false }));
    assert_eq!(net.sides[0].mux.count() + net.sides[1].mux.count(), 0);
}

#[test]
fn reset_and_stop_of_everything_over_a_bad_network() {
    for seed in 0..100 {
        let mut net = Net::new(seed, Weather::BAD, ConnectionConfig::default());
        let keys: Vec<_> = (0..30)
            .map(|n| net.open(n % 2, &format!("{n}"), &kind(ChannelKind::Messages)))
            .collect();
        for (n, key) in keys.iter().enumerate() {
            net.send(n % 2, *key, &[n as u8; 2000]);
        }
        for _ in 0..net.rng.below(40) {
            net.step();
        }
        for (n, key) in keys.iter().enumerate() {
            let mux = &mut net.sides[n % 2].mux;
            let _ = mux.reset(net.now, *key, 1);
            let _ = mux.stop(net.now, *key, 2);
        }
        net.settle();
        for side in 0..2 {
            assert_eq!(net.sides[side].mux.count(), 0, "seed {seed}");
            for seen in net.sides[side].sink.channels.values() {
                let ended = matches!(
                    seen.closed,
                    Some(ChannelEnd::Reset { .. } | ChannelEnd::Declined { .. })
                );
                assert!(ended, "seed {seed}: {:?}", seen.closed);
            }
        }
    }
}

#[test]
fn would_block_and_writable() {
    let config = ConnectionConfig {
        channel_send_buffer: 100_000,
        send_buffer: 150_000,
        max_message: 50_000,
        ..ConnectionConfig::default()
    };
    let mut net = Net::new(1, Weather::FINE, config);
    let (a, b) = net.connect(ChannelKind::Bytes);
    let (c, _) = net.connect(ChannelKind::Bytes);
    net.send(0, a, &[1; 60_000]);
    let full = net.sides[0].mux.send(net.now, a, &[1; 60_000], SendOptions::default());
    assert_eq!(full, Err(ApiError::WouldBlock("the channel's buffer")));
    assert!(net.sides[0].mux.is_blocked(a));
    net.send(0, c, &[1; 60_000]);
    let full = net.sides[0].mux.send(net.now, c, &[1; 40_000], SendOptions::default());
    assert_eq!(full, Err(ApiError::WouldBlock("send_buffer")));
    // What was accepted elsewhere is taken nevertheless.
    net.sides[0].mux.send_unbounded(net.now, a, &[2; 60_000], SendOptions::default()).unwrap();
    net.settle();
    assert_eq!((net.seen(0, a).writable, net.seen(0, c).writable), (1, 1));
    assert_eq!(net.seen(1, b).bytes.len(), 120_000);
    let large = net.sides[0].mux.send(net.now, a, &[1; 100_001], SendOptions::default());
    assert!(matches!(large, Err(ApiError::MessageTooLarge { .. })));
    let (d, _) = net.connect(ChannelKind::Messages);
    let large = net.sides[0].mux.send(net.now, d, &[1; 50_001], SendOptions::default());
    assert!(matches!(large, Err(ApiError::MessageTooLarge { limit: 50_000, .. })));
}

#[test]
fn receipts_come_when_all_is_acknowledged() {
    let mut net = net();
    let (a, _) = net.connect(ChannelKind::Messages);
    for token in 0..3 {
        let options = SendOptions { receipt: Some(token), ..SendOptions::default() };
        net.sides[0].mux.send(net.now, a, &[1; 900], options).unwrap();
    }
    let packets: Vec<_> = std::iter::from_fn(|| net.packet(0)).collect();
    assert_eq!(packets.len(), 2);
    net.acked(0, packets[1].0);
    assert!(net.seen(0, a).receipts.is_empty());
    net.acked(0, packets[0].0);
    assert_eq!(net.seen(0, a).receipts, [0, 1, 2]);
}

/// Bytes of each channel id in the next `n` packets.
fn shares(net: &mut Net, n: usize) -> std::collections::BTreeMap<u16, usize> {
    let mut bytes = std::collections::BTreeMap::new();
    for _ in 0..n {
        let Some((_, payload)) = net.packet(0) else { break };
        for frame in Frames::new(&payload) {
            let frame = frame.unwrap();
            *bytes.entry(frame.channel).or_default() += frame.body.len();
        }
    }
    bytes
}

#[test]
fn strict_priorities() {
    let mut net = net();
    let open = |net: &mut Net, priority| {
        let options = ChannelOptions { priority, ..kind(ChannelKind::Bytes) };
        let key = net.open(0, "p", &options);
        net.settle();
        key
    };
    let keys = [open(&mut net, 7), open(&mut net, 0), open(&mut net, 3)];
    for key in keys {
        net.send(0, key, &[1; 14_000]);
    }
    let first = shares(&mut net, 10);
    assert!(first[&2] > 13_000 && first.len() <= 2, "{first:?}");
    let second = shares(&mut net, 10);
    assert!(second[&3] > 12_500, "{second:?}");
}

#[test]
fn weights_give_shares() {
    let mut net = net();
    let weights = [1u8, 16, 48, 255];
    let keys = weights.map(|weight| {
        let options = ChannelOptions { weight, ..kind(ChannelKind::Bytes) };
        net.open(0, "w", &options)
    });
    net.settle();
    for key in keys {
        net.send(0, key, &vec![1; 1 << 20]);
    }
    let shares = shares(&mut net, 300);
    let all: usize = shares.values().sum();
    for (n, weight) in weights.iter().enumerate() {
        let want = f64::from(*weight) / 320.0;
        let got = shares[&(n as u16 + 1)] as f64 / all as f64;
        assert!((got - want).abs() < 0.1 * want + 0.003, "weight {weight}: {got} not {want}");
    }
}

#[test]
fn lost_data_goes_first_in_its_class() {
    let mut net = net();
    let (a, _) = net.connect(ChannelKind::Bytes);
    let (b, _) = net.connect(ChannelKind::Bytes);
    net.send(0, a, &[1; 1000]);
    let (pn, _) = net.packet(0).unwrap();
    net.send(0, b, &[2; 10_000]);
    net.packet(0).unwrap();
    net.lost(0, pn);
    let (_, payload) = net.packet(0).unwrap();
    let first = Frames::new(&payload).next().unwrap().unwrap();
    assert_eq!((first.channel, first.offset(), first.body.len()), (1, 0, 1000));
}

#[test]
fn small_writes_wait_only_while_data_is_in_flight() {
    let mut net = net();
    let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
    let a = net.open(0, "nagle", &options);
    net.settle();
    net.send(0, a, b"idle: at once");
    let (pn, _) = net.packet(0).unwrap();
    net.send(0, a, b"waits");
    assert!(!net.sides[0].mux.wants_to_send());
    let due = net.sides[0].mux.timeout().unwrap();
    assert_eq!(due.since(net.now), Duration::from_millis(5));
    // An acknowledgement, a flush, a timer, or a packet's worth of data ends the waiting.
    net.acked(0, pn);
    assert!(net.sides[0].mux.wants_to_send());
    net.packet(0).unwrap();
    net.send(0, a, b"waits");
    net.sides[0].mux.flush(net.now, a).unwrap();
    assert!(net.sides[0].mux.wants_to_send());
    net.packet(0).unwrap();
    net.send(0, a, b"waits");
    net.now += Duration::from_millis(5);
    let s = &mut net.sides[0];
    s.mux.on_timeout(net.now, CONN, &mut s.sink).unwrap();
    assert!(net.sides[0].mux.wants_to_send());
    net.packet(0).unwrap();
    for _ in 0..20 {
        net.send(0, a, &[0; 64]);
    }
    assert!(!net.sides[0].mux.wants_to_send());
    net.send(0, a, &[0; 64]);
    net.send(0, a, &[0; 64]);
    assert!(net.sides[0].mux.wants_to_send());
}

#[test]
fn unanswered_requests_time_out_alone() {
    let mut net = net();
    let (other, _) = net.connect(ChannelKind::Bytes);
    net.accept = None;
    let a = net.open(0, "ignored", &kind(ChannelKind::Bytes));
    net.send(0, a, b"early");
    let before = net.now;
    net.settle();
    assert_eq!(net.seen(0, a).closed, Some(ChannelEnd::TimedOut));
    assert!(net.now.since(before) >= Duration::from_secs(10));
    assert!(matches!(
        net.sides[1].sink.by_name("ignored").closed,
        Some(ChannelEnd::Reset { by_peer: true, .. })
    ));
    assert!(net.sides[0].mux.info(other).is_some());
    assert_eq!((net.sides[0].mux.count(), net.sides[1].mux.count()), (1, 1));
    let (b, ..) = net.sides[1].sink.requests.remove(0);
    let late = net.sides[1].mux.accept(net.now, b, &ChannelOptions::default(), 0);
    assert_eq!(late, Err(ApiError::InvalidHandle));
}

#[test]
fn requests_for_impossible_ids_are_declined() {
    let mut net = net();
    let (_, b) = net.connect(ChannelKind::Bytes);
    let id = net.sides[1].mux.info(b).unwrap().id;
    let mut messages = Vec::new();
    for channel in [0, 0xFFFF, 0x8000, id] {
        let message = ChannelRequestMessage { name: "x", channel, ..Default::default() };
        encode_channel_request(&mut messages, &message);
    }
    let offset = net.sides[1].mux.control_received();
    let payload = stream_frame(0, offset, &messages);
    receive(&mut net.sides[1], net.now, 1000, &payload).unwrap();
    assert_eq!(net.sides[1].sink.requests.len(), 0);
    assert_eq!(net.sides[1].mux.count(), 1);
    assert!(net.sides[1].mux.info(b).is_some());
    let (_, answers) = net.packet(1).unwrap();
    let declined = answers.windows(8).filter(|w| w == b"declined").count();
    assert_eq!(declined, 4);
}

#[test]
fn answers_without_request_break_the_protocol() {
    let mut net = net();
    let (a, _) = net.connect(ChannelKind::Bytes);
    for channel in [1, 2, 0x8000] {
        let mut message = Vec::new();
        let options = RequestOptions { has_map: true, ..RequestOptions::default() };
        let answer = ChannelRequestMessage { name: "", channel, is_answer: true, options };
        encode_channel_request(&mut message, &answer);
        let mut copy = net.sides[0].mux.control_received();
        let payload = stream_frame(0, copy, &message);
        copy += message.len() as u64;
        let error = receive(&mut net.sides[0], net.now, 1000 + copy, &payload);
        assert_eq!(error, Err(PeerMisbehaved::Control("answer without a request")));
    }
    assert!(net.sides[0].mux.info(a).is_some());
}

#[test]
fn limits_of_channels() {
    let config = ConnectionConfig { max_channels: 2, ..ConnectionConfig::default() };
    let mut net = Net::new(1, Weather::FINE, config);
    let a = net.open(0, "1", &kind(ChannelKind::Bytes));
    net.open(0, "2", &kind(ChannelKind::Bytes));
    let s = &mut net.sides[0];
    let third = s.mux.open(net.now, "3", &kind(ChannelKind::Bytes), 0);
    assert!(matches!(third, Err(ApiError::LimitReached { limit: 2, .. })));
    net.settle();
    let b = net.sides[1].mux.channel_by_id(1).unwrap();
    net.finish(0, a);
    net.finish(1, b);
    net.settle();
    net.open(0, "3", &kind(ChannelKind::Bytes));
    net.settle();
    assert!(net.sides[1].sink.by_name("3").ready);
    let long = "x".repeat(1025);
    let error = net.sides[0].mux.open(net.now, &long, &kind(ChannelKind::Bytes), 0);
    assert!(matches!(error, Err(ApiError::InvalidArgument { field: "name", .. })));
}

#[test]
fn the_limit_of_the_peer_is_enforced() {
    let config = ConnectionConfig { max_channels: 3, ..ConnectionConfig::default() };
    let generous = ConnectionConfig::default();
    let mut net = Net::with_configs(1, Weather::FINE, [generous.clone(), config]);
    net.sides[0].mux.set_peer(&super::net::params(&generous));
    let keys: Vec<_> = (0..5).map(|_| net.open(0, "x", &kind(ChannelKind::Bytes))).collect();
    net.settle();
    let declined = keys.iter().filter(|key| {
        matches!(net.seen(0, **key).closed, Some(ChannelEnd::Declined { code: 3002, .. }))
    });
    assert_eq!(declined.count(), 2);
}

#[test]
fn more_than_granted_breaks_the_protocol() {
    let mut net = net();
    let (_, b) = net.connect(ChannelKind::Bytes);
    let limit = net.sides[1].mux.info(b).unwrap().receive_limit;
    let early = ConnectionConfig::default().early_data;
    let payload = stream_frame(1, limit + early - 1, b"xy");
    let error = receive(&mut net.sides[1], net.now, 500, &payload);
    assert_eq!(error, Err(PeerMisbehaved::Credit("early data")));
    // On a channel of our own there is no early data.
    let mut net = self::net();
    let (a, _) = net.connect(ChannelKind::Bytes);
    let info = net.sides[0].mux.info(a).unwrap();
    let payload = stream_frame(info.id, info.receive_limit, b"x");
    let error = receive(&mut net.sides[0], net.now, 500, &payload);
    assert_eq!(error, Err(PeerMisbehaved::Credit("a channel")));
    // Nor on CONTROL, nor before a request.
    let mut net = self::net();
    let payload = stream_frame(0, crate::channel::CONTROL_WINDOW, b"x");
    assert!(receive(&mut net.sides[0], net.now, 501, &payload).is_err());
    let mut result = Ok(());
    for n in 0..1000 {
        let payload = stream_frame(77, n * 1000, &[0; 1000]);
        result = result.and(receive(&mut net.sides[1], net.now, 600 + n, &payload));
    }
    assert_eq!(result, Err(PeerMisbehaved::Credit("early data before its request")));
}

#[test]
fn final_length_is_binding() {
    for (end, offset) in [(10, 9), (3, 0)] {
        let mut net = net();
        net.connect(ChannelKind::Bytes);
        receive(&mut net.sides[1], net.now, 500, &stream_frame(1, 5, b"data")).unwrap();
        let eof = receive(&mut net.sides[1], net.now, 501, &stream_frame(1, end, b""));
        if end < 9 {
            assert_eq!(eof, Err(PeerMisbehaved::FinalSize));
            continue;
        }
        let beyond = receive(&mut net.sides[1], net.now, 502, &stream_frame(1, offset, b"xx"));
        assert_eq!(beyond, Err(PeerMisbehaved::FinalSize));
        let other = receive(&mut net.sides[1], net.now, 503, &stream_frame(1, end + 1, b""));
        assert_eq!(other, Err(PeerMisbehaved::FinalSize));
    }
}

#[test]
fn messages_have_bounds() {
    let config = ConnectionConfig { max_message: 1000, ..ConnectionConfig::default() };
    let mut net = Net::new(1, Weather::FINE, config);
    net.connect(ChannelKind::Messages);
    let error = receive(&mut net.sides[1], net.now, 500, &stream_frame(1, 0, &[0x43, 0xE9]));
    assert_eq!(error, Err(PeerMisbehaved::Limit("message size")));
    let (_, b) = net.connect(ChannelKind::Messages);
    let id = net.sides[1].mux.info(b).unwrap().id;
    receive(&mut net.sides[1], net.now, 501, &stream_frame(id, 0, &[5, 1, 2])).unwrap();
    let cut = receive(&mut net.sides[1], net.now, 502, &stream_frame(id, 3, b""));
    assert!(matches!(cut, Err(PeerMisbehaved::Malformed(_))));
}

#[test]
fn messages_larger_than_every_window() {
    let config = ConnectionConfig {
        channel_window: 4096,
        channel_window_max: 4096,
        max_channels: 100,
        receive_budget: 64 << 10,
        max_message: 300_000,
        reassembly_budget: 400_000,
        channel_send_buffer: 1 << 20,
        unsent_limit: 8 << 20,
        ..ConnectionConfig::default()
    };
    for manual_credit in [false, true] {
        let config = ConnectionConfig { manual_credit, ..config.clone() };
        let mut net = Net::new(5, Weather::BAD, config);
        // More of them than the budget holds: they have to take turns.
        let pairs: Vec<_> = (0..5).map(|_| net.connect(ChannelKind::Messages)).collect();
        for (n, (a, _)) in pairs.iter().enumerate() {
            for size in [300_000, 10, 250_000, 5000] {
                net.send(0, *a, &pattern_bytes(n as u64, 0, size));
            }
        }
        net.settle();
        for (n, (_, b)) in pairs.iter().enumerate() {
            let sizes: Vec<_> = net.seen(1, *b).messages.iter().map(Vec::len).collect();
            assert_eq!(sizes, [300_000, 10, 250_000, 5000]);
            assert_eq!(net.seen(1, *b).messages[2], pattern_bytes(n as u64, 0, 250_000));
        }
    }
}

#[test]
fn slow_readers_stall_only_themselves() {
    let config = ConnectionConfig {
        manual_credit: true,
        channel_window: 10_000,
        channel_window_max: 10_000,
        ..ConnectionConfig::default()
    };
    let mut net = Net::new(1, Weather::FINE, config);
    let (slow, slow_b) = net.connect(ChannelKind::Bytes);
    let (fast, fast_b) = net.connect(ChannelKind::Bytes);
    net.consume = false;
    net.send(0, slow, &[1; 100_000]);
    net.settle();
    assert_eq!(net.seen(1, slow_b).bytes.len(), 10_000);
    let owed = std::mem::take(&mut net.sides[1].sink.unconsumed);
    net.consume = true;
    net.send(0, fast, &[1; 100_000]);
    net.settle();
    assert_eq!(net.seen(1, fast_b).bytes.len(), 100_000);
    assert_eq!(net.seen(1, slow_b).bytes.len(), 10_000);
    net.sides[1].sink.unconsumed = owed;
    net.settle();
    assert_eq!(net.seen(1, slow_b).bytes.len(), 100_000);
}

#[test]
fn busy_channels_get_larger_windows() {
    let config = ConnectionConfig { channel_window: 16_000, ..ConnectionConfig::default() };
    let mut net = Net::new(1, Weather::FINE, config);
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.send(0, a, &vec![1; 16 << 20]);
    net.settle();
    assert_eq!(net.seen(1, b).bytes.len(), 16 << 20);
    assert!(net.sides[1].mux.window(b) >= 1 << 20, "{}", net.sides[1].mux.window(b));
}

#[test]
fn unconsumed_bytes_of_ended_channels_still_count() {
    let config = ConnectionConfig {
        manual_credit: true,
        max_channels: 100,
        channel_window: 20_000,
        receive_budget: 100_000,
        ..ConnectionConfig::default()
    };
    let mut net = Net::new(1, Weather::FINE, config);
    net.consume = false;
    let mut declined = 0;
    for n in 0..40 {
        let a = net.open(0, &format!("{n}"), &kind(ChannelKind::Bytes));
        net.send(0, a, &[1; 5000]);
        net.finish(0, a);
        net.settle();
        declined += u32::from(matches!(net.seen(0, a).closed, Some(ChannelEnd::Declined { .. })));
        if let Some(id) = net.sides[0].mux.info(a).map(|i| i.id) {
            let b = net.sides[1].mux.channel_by_id(id).unwrap();
            net.finish(1, b);
        }
        net.settle();
    }
    let owed: u64 = net.sides[1].sink.unconsumed.iter().map(|(_, n)| n).sum();
    assert!(owed < 200_000 && declined > 0, "{owed} {declined}");
    net.consume = true;
    net.settle();
    let a = net.open(0, "again", &kind(ChannelKind::Bytes));
    net.settle();
    assert!(net.seen(0, a).ready);
}

#[test]
fn lingering_discards_and_keeps_credit_flowing() {
    let config = ConnectionConfig { channel_window: 10_000, ..ConnectionConfig::default() };
    let mut net = Net::new(1, Weather::FINE, config);
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.accept = None;
    let offered = net.open(1, "offered", &kind(ChannelKind::Bytes));
    net.settle_without_timers();
    net.send(0, a, &[1; 50_000]);
    net.sides[0].mux.discard_incoming(true);
    assert!(!net.sides[0].mux.has_discarded());
    net.send(1, b, &[2; 100_000]);
    let request = net.open(1, "too late", &kind(ChannelKind::Bytes));
    net.settle();
    assert_eq!(net.seen(1, b).bytes.len(), 50_000);
    assert!(net.seen(0, a).bytes.is_empty() && net.sides[0].mux.has_discarded());
    assert_eq!(net.sides[1].mux.unacked_reliable_bytes(), 0);
    assert!(!net.sides[0].mux.has_unacked_reliable());
    for key in [offered, request] {
        assert!(matches!(net.seen(1, key).closed, Some(ChannelEnd::Declined { .. })));
    }
    assert!(net.sides[0].mux.open(net.now, "x", &kind(ChannelKind::Bytes), 0).is_err());
}

#[test]
fn the_end_of_the_connection_is_told_once() {
    let mut net = net();
    let (a, _) = net.connect(ChannelKind::Bytes);
    let b = net.open(0, "requested", &kind(ChannelKind::Bytes));
    net.send(0, a, &[1; 5000]);
    net.packet(0);
    let before = net.sides[0].mux.report();
    assert_eq!((before.undelivered_bytes, before.undelivered_channels), (5000, 1));
    let reason = CloseReason::new(Reason::TIMEOUT, "gone");
    let s = &mut net.sides[0];
    s.mux.close_all(CONN, &reason, &mut s.sink);
    s.mux.close_all(CONN, &reason, &mut s.sink);
    for key in [a, b] {
        assert_eq!(net.seen(0, key).closed, Some(ChannelEnd::Connection(reason.clone())));
    }
    assert_eq!(net.sides[0].mux.count(), 0);
    net.sides[0].mux.check();
    assert!(!net.sides[0].mux.wants_to_send());
}

#[test]
fn authentication_goes_first_and_pauses_control() {
    let mut net = net();
    let config = std::sync::Arc::new(ConnectionConfig::default());
    let params = super::net::params(&config);
    let mut client = crate::channel::Mux::new(crate::ids::Role::Client, &config);
    client.open(net.now, "early bird", &kind(ChannelKind::Bytes), 0).unwrap();
    client.set_peer(&params);
    assert!(!client.wants_to_send(), "nothing about channels before authentication");
    let mut message = Vec::new();
    encode_authentication_request(&mut message, b"ticket");
    client.send_control(&message);
    client.set_ready(net.now);
    let mut buf = [0; 1200];
    let n = client.fill(net.now, &mut buf, &mut |_| ());
    let host = &mut net.sides[1];
    receive(host, net.now, 0, &buf[..n]).unwrap();
    assert!(host.sink.requests.is_empty(), "the connection has to look at it first");
    let message = host.mux.poll_control();
    assert_eq!(message, Some(ConnMessage::Request { credential: b"ticket".to_vec() }));
    host.mux.resume_control(net.now, CONN, &mut host.sink).unwrap();
    assert_eq!(host.sink.requests.len(), 1);
    let key = host.sink.requests[0].0;
    assert_eq!(host.mux.info(key).unwrap().phase, ChannelPhase::Offered);
}

#[test]
fn requests_before_authentication_break_the_protocol() {
    let config = std::sync::Arc::new(ConnectionConfig::default());
    let mut host = crate::channel::Mux::new(crate::ids::Role::Host, &config);
    let mut message = Vec::new();
    let request = ChannelRequestMessage { name: "x", channel: 1, ..Default::default() };
    encode_channel_request(&mut message, &request);
    let frame = RawFrame { channel: 0, extra: [0; 6], body: &message };
    let net = net();
    let mut sink = crate::event::NullSink;
    let result = host.on_frame(net.now, CONN, 0, &frame, 0, &mut sink);
    assert!(matches!(result, Err(PeerMisbehaved::Unexpected(_))));
}

#[test]
fn shared_payloads_are_let_go_when_acknowledged() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Messages);
    let data = pattern_bytes(9, 0, 300_000);
    let owner = std::sync::Arc::new(data.clone());
    let payload = crate::payload::Payload::new(owner.clone());
    net.sides[0].mux.send_payload(net.now, a, payload, SendOptions::default()).unwrap();
    net.send(0, a, b"behind it");
    assert_eq!(std::sync::Arc::strong_count(&owner), 2);
    net.settle();
    assert_eq!(std::sync::Arc::strong_count(&owner), 1);
    assert_eq!(net.seen(1, b).messages, [data, b"behind it".to_vec()]);
}

#[test]
fn a_stop_right_after_the_acceptance_of_a_complete_channel() {
    let mut net = net();
    net.accept = None;
    let a = net.open(0, "x", &kind(ChannelKind::Bytes));
    net.send(0, a, b"never wanted");
    net.finish(0, a);
    net.settle_without_timers();
    let (b, ..) = net.sides[1].sink.requests.remove(0);
    let s = &mut net.sides[1];
    s.mux.accept(net.now, b, &ChannelOptions::default(), s.next_pn).unwrap();
    s.mux.stop(net.now, b, 3).unwrap();
    s.mux.finish(net.now, b).unwrap();
    net.settle();
    // No end of nothing: neither bytes nor EOF, and the id is free although the peer was done.
    let seen = net.seen(1, b);
    assert!(seen.ready && seen.bytes.is_empty() && !seen.eof && seen.reset.is_none());
    assert_eq!(seen.closed, Some(ChannelEnd::Reset { code: 3, by_peer: false }));
    assert_eq!(net.sides[0].mux.count() + net.sides[1].mux.count(), 0);
}

#[test]
fn a_stop_when_the_eof_overtook_data() {
    let mut net = net();
    let (a, b) = net.connect(ChannelKind::Bytes);
    net.send(0, a, b"late");
    let (data_pn, data) = net.packet(0).unwrap();
    net.finish(0, a);
    let (eof_pn, eof) = net.packet(0).unwrap();
    net.deliver(1, eof_pn, &eof);
    net.finish(1, b);
    net.sides[1].mux.stop(net.now, b, 3).unwrap();
    net.deliver(1, data_pn, &data);
    net.acked(0, data_pn);
    net.acked(0, eof_pn);
    net.settle();
    assert!(net.seen(1, b).bytes.is_empty() && !net.seen(1, b).eof);
    assert_eq!(net.seen(1, b).closed, Some(ChannelEnd::Reset { code: 3, by_peer: false }));
    assert_eq!(net.sides[0].mux.count() + net.sides[1].mux.count(), 0);
}
