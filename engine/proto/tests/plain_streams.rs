//! The plain protocol: frame headers, ChannelRequest and EOF inside TLS, against peers that are
//! written by hand, and between two endpoints in the simulated world.

mod sim;

use sim::raw::{Raw, Setup, Told, frame, request};
use sim::{ms, secs};
use trunkline_proto::config::ChannelOptions;
use trunkline_proto::endpoint::{Endpoint, SendOptions};
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::status::Status;

const APP_CLOSED: Reason = Reason::APP;

fn up(setup: &Setup) -> Raw {
    let mut raw = Raw::client(setup);
    raw.pump();
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    raw
}

fn up_as_client(setup: &Setup) -> Raw {
    let mut raw = Raw::host(setup);
    raw.pump();
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    raw
}

fn open(raw: &mut Raw, name: &str) -> ChannelKey {
    let options = ChannelOptions { no_delay: true, ..ChannelOptions::default() };
    raw.app(|ep, now, conn| ep.open_channel(now, conn, name, &options)).expect("open")
}

/// The peer asks for channel "a", its first.
fn asked(raw: &mut Raw) -> ChannelKey {
    raw.frame(0, &request("a", 1, false));
    raw.log.requests()[0].0
}

fn send(raw: &mut Raw, key: ChannelKey, bytes: &[u8]) {
    let sent = raw.app(|ep, now, conn| ep.send(now, conn, key, bytes, SendOptions::default()));
    sent.unwrap_or_else(|e| panic!("{e}: {:?}", raw.log.status()));
}

fn finish(raw: &mut Raw, key: ChannelKey) {
    raw.app(|ep, now, conn| ep.finish_channel(now, conn, key)).expect("finish");
}

fn close(raw: &mut Raw, linger: Option<trunkline_proto::time::Duration>) {
    raw.app(|ep, now, conn| ep.close(now, conn, 1_234, "done", linger)).expect("close");
}

// ---- exact bytes

#[test]
fn a_request_is_three_elements_in_one_control_frame_and_so_is_the_answer() {
    for mut raw in [up(&Setup::default()), up_as_client(&Setup::default())] {
        raw.frames();
        // Ours: the name, the id of our half, false.
        let key = open(&mut raw, "git:*");
        let id = raw.endpoint.channel_info(raw.conn, key).expect("known").id;
        let body = request("git:*", id, false);
        assert_eq!(raw.got, [&[0, body.len() as u8, 0, 0], body.as_slice()].concat());
        raw.frames();
        send(&mut raw, key, b"not yet");
        assert_eq!(raw.got, b"", "nothing is sent before the answer");
        raw.frame(0, &request("git:*", id, true));
        let mut expected = frame(id, b"not yet");
        assert_eq!(raw.got, expected);
        finish(&mut raw, key);
        expected.extend(frame(id, b""));
        assert_eq!(raw.got, expected, "an EOF is a header of length 0");
        assert_eq!(raw.log.end(key), Some(&ChannelEnd::Finished));
        raw.frames();
        // Theirs, and the answer: the same with true.
        raw.frame(0, &request("back", 9, false));
        assert_eq!(raw.frames(), [(0, request("back", 9, true))]);
    }
}

#[test]
fn the_answer_to_a_request_that_is_declined_is_an_eof_on_its_id() {
    let mut raw = up(&Setup::default());
    raw.accepts_channels = false;
    raw.frame(0, &request("no", 300, false));
    assert_eq!(raw.frames(), []);
    let (key, ..) = raw.log.requests()[0];
    raw.app(|ep, now, conn| ep.decline_channel(now, conn, key, 7, "no")).expect("decline");
    assert_eq!(raw.frames(), [(300, vec![])]);
    // The others do not notice, and the id is free.
    raw.accepts_channels = true;
    raw.frame(0, &request("yes", 300, false));
    raw.frame(300, b"data");
    let (key, ..) = raw.log.requests()[1];
    assert_eq!(raw.log.bytes(key), b"data");
}

#[test]
fn no_alpn_at_all_is_plain() {
    for mut raw in [
        up(&Setup { alpn: vec![], ..Setup::default() }),
        up_as_client(&Setup { alpn: vec![], ..Setup::default() }),
    ] {
        assert!(raw.endpoint.info(raw.conn).expect("known").plain);
        raw.frame(0, &request("a", 5, false));
        assert_eq!(raw.frames(), [(0, request("a", 5, true))]);
    }
}

#[test]
fn several_messages_in_one_frame_and_one_message_in_several_frames() {
    let mut raw = up(&Setup::default());
    let both = [request("a", 1, false), request("b", 2, false)].concat();
    raw.frame(0, &both);
    let c = request("c", 3, false);
    for piece in c.chunks(2) {
        raw.frame(0, piece);
    }
    let ids: Vec<_> = raw.log.requests().iter().map(|r| r.1).collect();
    assert_eq!(ids, [1, 2, 3]);
    // An empty frame of CONTROL means nothing.
    raw.frame(0, b"");
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

#[test]
fn integers_and_strings_of_any_width() {
    let mut raw = up(&Setup::default());
    // str 8, uint 32; and uint 64 with a fourth element that is nil.
    raw.frame(0, &[0x93, 0xd9, 1, b'a', 0xce, 0, 0, 1, 0, 0xc2]);
    raw.frame(0, &[0x94, 0xda, 0, 1, b'b', 0xcf, 0, 0, 0, 0, 0, 0, 1, 1, 0xc2, 0xc0]);
    let ids: Vec<_> = raw.log.requests().iter().map(|r| r.1).collect();
    assert_eq!(ids, [256, 257]);
}

// ---- data

#[test]
fn frames_in_pieces_of_any_length() {
    for chunk in [1, 2, 3, 5, 21, 22, 100, 16_411] {
        let mut raw = up(&Setup::default());
        raw.chunk = chunk;
        let body: Vec<u8> = (0..60_000u32).map(|i| (i * 7) as u8).collect();
        raw.queue(&frame(0, &request("a", 1, false)));
        for piece in body.chunks(7_001) {
            raw.queue(&frame(1, piece));
        }
        raw.queue(&frame(1, b""));
        raw.pump();
        let (key, ..) = raw.log.requests()[0];
        assert!(raw.log.bytes(key) == body, "in pieces of {chunk}");
        assert_eq!(raw.log.count(|e| *e == Told::Eof(key)), 1);
    }
}

#[test]
fn data_goes_both_ways_at_once_on_many_channels() {
    let mut raw = up(&Setup::default());
    let mut keys = Vec::new();
    for id in 1..=20u16 {
        raw.frame(0, &request("x", id, false));
        keys.push(open(&mut raw, "y"));
    }
    raw.frames();
    for (i, _) in keys.iter().enumerate() {
        raw.frame(0, &request("y", 0x8000 + i as u16, true));
    }
    for round in 0..50u8 {
        for (i, key) in keys.iter().enumerate() {
            raw.queue(&frame(1 + i as u16, &[round; 3_000]));
            send(&mut raw, *key, &[round ^ 0xff; 2_000]);
        }
    }
    raw.pump();
    let theirs: Vec<_> = raw.log.requests().iter().map(|r| r.0).collect();
    for key in theirs {
        let expected: Vec<u8> = (0..50).flat_map(|round| [round; 3_000]).collect();
        assert!(raw.log.bytes(key) == expected);
    }
    let frames = raw.frames();
    for i in 0..20u16 {
        let of = frames.iter().filter(|f| f.0 == 0x8000 + i);
        let got: Vec<u8> = of.flat_map(|f| f.1.clone()).collect();
        let expected: Vec<u8> = (0..50u8).flat_map(|round| [round ^ 0xff; 2_000]).collect();
        assert!(got == expected, "channel {i}");
    }
}

#[test]
fn the_longest_frame_and_a_frame_for_nobody() {
    let mut raw = up(&Setup::default());
    raw.frame(0, &request("a", 1, false));
    raw.frame(1, &vec![3; 65_535]);
    raw.frame(77, &vec![4; 40_000]);
    raw.frame(77, b"");
    raw.frame(0xffff, &[5; 10]);
    raw.frame(1, &[6; 10]);
    let (key, ..) = raw.log.requests()[0];
    assert_eq!(raw.log.bytes(key).len(), 65_545);
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

#[test]
fn a_key_update_in_the_middle() {
    for mut raw in [up(&Setup::default()), up_as_client(&Setup::default())] {
        let key = asked(&mut raw);
        for round in 0..20u8 {
            raw.frame(1, &vec![round; 20_000]);
            match &mut raw.tls {
                rustls::Connection::Client(tls) => tls.refresh_traffic_keys().expect("keys"),
                rustls::Connection::Server(tls) => tls.refresh_traffic_keys().expect("keys"),
            }
            send(&mut raw, key, &vec![round; 20_000]);
        }
        assert_eq!(raw.log.bytes(key).len(), 400_000);
        let sent: usize = raw.frames().iter().filter(|f| f.0 == 1).map(|f| f.1.len()).sum();
        assert_eq!(sent, 400_000);
    }
}

// ---- the end of a channel

#[test]
fn an_eof_of_the_peer_ends_the_channel_both_ways() {
    let mut raw = up(&Setup::default());
    raw.frame(0, &request("a", 1, false));
    raw.frame(0, &request("b", 2, false));
    let key = raw.log.requests()[0].0;
    raw.frames();
    raw.frame(1, b"the rest");
    raw.frame(1, b"");
    assert_eq!(raw.log.bytes(key), b"the rest");
    assert_eq!(raw.log.count(|e| *e == Told::Eof(key)), 1);
    assert_eq!(raw.log.end(key), Some(&ChannelEnd::Finished));
    assert_eq!(raw.frames(), [], "an EOF is not answered");
    let late = raw.app(|ep, now, conn| ep.send(now, conn, key, b"x", SendOptions::default()));
    assert_eq!(late, Err(ApiError::InvalidHandle));
    let other = raw.log.requests()[1].0;
    send(&mut raw, other, b"alive");
    assert_eq!(raw.frames(), [(2, b"alive".to_vec())]);
    // The id is free.
    raw.frame(0, &request("again", 1, false));
    assert_eq!(raw.frames(), [(0, request("again", 1, true))]);
}

#[test]
fn our_eof_ends_the_channel_both_ways() {
    let mut raw = up(&Setup::default());
    let key = asked(&mut raw);
    raw.frames();
    send(&mut raw, key, b"bye");
    finish(&mut raw, key);
    assert_eq!(raw.frames(), [(1, b"bye".to_vec()), (1, vec![])]);
    assert_eq!(raw.log.end(key), Some(&ChannelEnd::Finished));
    assert_eq!(raw.log.count(|e| matches!(e, Told::Eof(_))), 0, "the peer sent none");
    // What crosses it is nobody's.
    raw.frame(1, b"crossing");
    raw.frame(1, b"");
    assert_eq!(raw.log.bytes(key), b"");
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

#[test]
fn what_the_peer_does_not_want_any_more_is_no_clean_end() {
    let mut raw = up(&Setup::default());
    let key = asked(&mut raw);
    raw.reads = false;
    // More than the socket takes.
    for _ in 0..20 {
        send(&mut raw, key, &vec![1; 30_000]);
    }
    raw.frame(1, b"");
    assert_eq!(raw.log.end(key), Some(&ChannelEnd::Reset { code: 1_000, by_peer: true }));
    raw.reads = true;
    raw.pump();
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

#[test]
fn an_eof_before_the_accept_is_finished_is_remembered() {
    for manual in [false, true] {
        let mut raw = up(&Setup::default().with(|c| c.manual_credit = manual));
        raw.accepts_channels = false;
        raw.queue(&frame(0, &request("a", 1, false)));
        raw.queue(&frame(1, b"before anybody listens"));
        raw.queue(&frame(1, b""));
        raw.pump();
        let key = raw.log.requests()[0].0;
        assert_eq!(raw.log.bytes(key), b"");
        raw.run(secs(100));
        let options = ChannelOptions::default();
        raw.app(|ep, now, conn| ep.accept_channel(now, conn, key, &options)).expect("accept");
        assert_eq!(raw.log.bytes(key), b"before anybody listens");
        let told: Vec<_> = raw.log.events.iter().skip_while(|e| **e != Told::Ready(key)).collect();
        assert_eq!(told[1..], [&Told::Eof(key), &Told::Closed(key, ChannelEnd::Finished)]);
    }
}

#[test]
fn an_accept_and_an_end_in_one_breath_lose_nothing() {
    type End = fn(
        &mut Endpoint,
        trunkline_proto::time::Instant,
        trunkline_proto::ids::ConnHandle,
        ChannelKey,
    );
    let ends: [(End, ChannelEnd); 3] = [
        (
            |ep, now, conn, key| {
                ep.send(now, conn, key, b"answer", SendOptions::default()).expect("send");
                ep.finish_channel(now, conn, key).expect("finish");
            },
            ChannelEnd::Finished,
        ),
        (
            |ep, now, conn, key| ep.reset_channel(now, conn, key, 9).expect("reset"),
            ChannelEnd::Reset { code: 9, by_peer: false },
        ),
        (
            |ep, now, conn, key| ep.stop_channel(now, conn, key, 9).expect("stop"),
            ChannelEnd::Reset { code: 9, by_peer: false },
        ),
    ];
    for (end, expected) in ends {
        for transmit_first in [false, true] {
            let mut raw = up(&Setup::default());
            raw.accepts_channels = false;
            raw.queue(&frame(0, &request("a", 1, false)));
            raw.queue(&frame(1, b"question"));
            raw.pump();
            raw.frames();
            let key = raw.log.requests()[0].0;
            let Raw { endpoint, now, conn, .. } = &mut raw;
            let options = ChannelOptions::default();
            endpoint.accept_channel(*now, *conn, key, &options).expect("accept");
            end(endpoint, *now, *conn, key);
            let mut early = Vec::new();
            if transmit_first {
                // What is sent before the application hears that it is ready.
                let mut buf = vec![0; 20_000];
                while endpoint.poll_transmit(*now, &mut buf, 1).is_some() {}
                while endpoint.next_stream().is_some() {}
                let n = endpoint.stream_transmit(*now, *conn, &mut buf);
                early.extend_from_slice(&buf[..n]);
            }
            raw.deliver(&early);
            raw.pump();
            let clean = expected == ChannelEnd::Finished;
            let wanted: &[u8] = if clean { b"question" } else { b"" };
            assert_eq!(raw.log.bytes(key), wanted);
            let told: Vec<_> =
                raw.log.events.iter().skip_while(|e| **e != Told::Ready(key)).collect();
            assert_eq!(told[1..], [&Told::Closed(key, expected.clone())]);
            let mut sent = vec![(0, request("a", 1, true))];
            if clean {
                sent.push((1, b"answer".to_vec()));
            }
            sent.push((1, vec![]));
            assert_eq!(raw.frames(), sent);
        }
    }
}

#[test]
fn a_write_of_nothing_is_no_end() {
    let mut raw = up(&Setup::default());
    raw.frame(0, &request("a", 1, false));
    raw.frames();
    let key = raw.log.requests()[0].0;
    send(&mut raw, key, b"");
    assert_eq!(raw.frames(), []);
}

#[test]
fn cancelling_and_refusing_are_an_eof_to_the_peer() {
    for stop in [false, true] {
        let mut raw = up(&Setup::default());
        raw.frame(0, &request("a", 1, false));
        raw.frames();
        let key = raw.log.requests()[0].0;
        raw.app(|ep, now, conn| {
            if stop {
                ep.stop_channel(now, conn, key, 42)
            } else {
                ep.reset_channel(now, conn, key, 42)
            }
        })
        .expect("end");
        assert_eq!(raw.frames(), [(1, vec![])]);
        let end = ChannelEnd::Reset { code: 42, by_peer: false };
        assert_eq!(raw.log.end(key), Some(&end));
    }
}

// ---- requests

#[test]
fn a_peer_may_take_ids_of_either_half() {
    for mut raw in [up(&Setup::default()), up_as_client(&Setup::default())] {
        for id in [1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe] {
            raw.frame(0, &request("a", id, false));
            assert_eq!(raw.frames(), [(0, request("a", id, true))], "{id}");
        }
        // Ours go around them.
        let key = open(&mut raw, "ours");
        let id = raw.endpoint.channel_info(raw.conn, key).expect("known").id;
        assert!(![1, 2, 0x8000, 0x8001].contains(&id), "{id} is in use");
    }
}

#[test]
fn reserved_ids_are_declined_or_refused() {
    let mut raw = up(&Setup::default());
    raw.frame(0, &request("a", 0xffff, false));
    assert_eq!(raw.frames(), [(0xffff, vec![])]);
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    raw.frame(0, &request("a", 0, false));
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::PROTOCOL));
    assert_eq!(reason.text, "control message: channel is 0");
    assert!(raw.notified && raw.fin);
}

#[test]
fn a_request_for_an_id_in_use_is_an_error_that_says_so() {
    let mut raw = up(&Setup::default());
    raw.frame(0, &request("a", 4, false));
    raw.frame(0, &request("b", 4, false));
    assert_eq!(raw.end().1.text, "control message: channel is in use");
}

#[test]
fn an_id_is_free_when_our_eof_was_written() {
    // The peer may ask again before anybody has said that TCP has our EOF.
    for given_up in [false, true] {
        let mut raw = up(&Setup::default().with(|c| c.channel_timeout = secs(1)));
        let id = if given_up { 0x8000 } else { 1 };
        let key = if given_up {
            let key = open(&mut raw, "ours");
            raw.now += secs(1);
            let Raw { endpoint, now, log, .. } = &mut raw;
            endpoint.handle_timeout(*now, log);
            key
        } else {
            let key = asked(&mut raw);
            let Raw { endpoint, now, conn, .. } = &mut raw;
            endpoint.finish_channel(*now, *conn, key).expect("finish");
            key
        };
        raw.frames();
        let Raw { endpoint, now, conn, .. } = &mut raw;
        let mut buf = vec![0; 20_000];
        while endpoint.poll_transmit(*now, &mut buf, 1).is_some() {}
        while endpoint.next_stream().is_some() {}
        let n = endpoint.stream_transmit(*now, *conn, &mut buf);
        assert!(n > 0);
        raw.deliver(&buf[..n]);
        raw.frame(0, &request("again", id, false));
        assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected), "{:?}", raw.log.events);
        assert_eq!(raw.frames(), [(id, vec![]), (0, request("again", id, true))]);
        let end = if given_up { ChannelEnd::TimedOut } else { ChannelEnd::Finished };
        assert_eq!(raw.log.end(key), Some(&end));
        assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    }
}

#[test]
fn simultaneous_requests_for_one_id_are_both_declined() {
    let mut raw = up(&Setup::default());
    let key = open(&mut raw, "ours");
    let id = raw.endpoint.channel_info(raw.conn, key).expect("known").id;
    raw.frames();
    raw.frame(0, &request("theirs", id, false));
    assert_eq!(raw.frames(), [(id, vec![])], "one EOF");
    assert!(matches!(raw.log.end(key), Some(ChannelEnd::Declined { .. })));
    assert_eq!(raw.log.requests(), [], "the application was asked");
    // The peer's EOF for ours comes, too, or an answer: neither means anything any more.
    raw.frame(id, b"");
    raw.frame(0, &request("ours", id, true));
    let next = open(&mut raw, "next");
    assert_ne!(raw.endpoint.channel_info(raw.conn, next).expect("known").id, id);
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

#[test]
fn a_request_of_ours_is_declined_by_an_eof_and_the_others_do_not_notice() {
    let mut raw = up(&Setup::default());
    let (a, b) = (open(&mut raw, "a"), open(&mut raw, "b"));
    send(&mut raw, a, b"never sent");
    send(&mut raw, b, b"sent");
    raw.frames();
    raw.frame(0x8000, b"");
    raw.frame(0, &request("b", 0x8001, true));
    let declined = ChannelEnd::Declined { code: 1_001, text: String::new() };
    assert_eq!(raw.log.end(a), Some(&declined));
    assert_eq!(raw.frames(), [(0x8001, b"sent".to_vec())]);
}

#[test]
fn a_request_that_is_not_answered_in_time_hurts_only_the_channel() {
    let mut raw = up(&Setup::default().with(|c| c.channel_timeout = secs(4)));
    let (a, b) = (open(&mut raw, "a"), open(&mut raw, "b"));
    raw.frame(0, &request("b", 0x8001, true));
    raw.frames();
    raw.run(ms(3_900));
    assert_eq!(raw.log.end(a), None);
    raw.run(ms(200));
    assert_eq!(raw.log.end(a), Some(&ChannelEnd::TimedOut));
    assert_eq!(raw.frames(), [(0x8000, vec![])], "the peer is told");
    // A late answer, and what follows it, means nothing.
    raw.frame(0, &request("a", 0x8000, true));
    raw.frame(0x8000, b"data");
    raw.frame(0x8000, b"");
    send(&mut raw, b, b"alive");
    assert_eq!(raw.frames(), [(0x8001, b"alive".to_vec())]);
    assert_eq!(raw.log.count(|e| *e == Told::Ready(a)), 0);
}

#[test]
fn an_answer_that_nobody_asked_for_means_nothing() {
    let mut raw = up(&Setup::default());
    raw.frame(0, &request("a", 5, true));
    raw.frame(0, &request("a", 0x8005, true));
    raw.frame(0, &request("b", 6, false));
    raw.frame(0, &request("b", 6, true));
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    assert_eq!(raw.log.requests().len(), 1);
}

#[test]
fn messages_of_the_native_protocol_mean_nothing() {
    let mut raw = up(&Setup::default());
    for kind in [1u8, 2, 16, 17, 18, 19, 20, 21, 22, 23, 99] {
        // Right in shape or not: [kind, 5, 5, 5] and [kind].
        if !(16..=22).contains(&kind) && kind > 2 {
            raw.frame(0, &[0x91, kind]);
        }
    }
    raw.frame(0, &[0x92, 1, 0xc4, 1, 7]);
    raw.frame(0, &[0x91, 18]);
    raw.frame(0, &[0x91, 23]);
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    assert_eq!(raw.frames(), []);
}

#[test]
fn requests_whose_answers_are_not_read_are_bounded() {
    let mut raw = up(&Setup::default().with(|c| c.max_channels = 10));
    raw.reads = false;
    // As many as there are ids: all that an honest peer can ask for before it reads.
    for id in 1..=10 {
        raw.frame(0, &request("x", id, false));
    }
    for id in (11..0xfff0u16).step_by(8) {
        let all: Vec<u8> = (id..id + 8).flat_map(|id| frame(0, &request("x", id, false))).collect();
        raw.queue(&all);
    }
    raw.pump();
    assert_eq!(raw.unread(), 0, "the link stopped reading, which can end in a deadlock");
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    for _ in 0..6 {
        for id in (11..0xfff0u16).step_by(8) {
            let all: Vec<u8> =
                (id..id + 8).flat_map(|id| frame(0, &request("x", id, false))).collect();
            raw.queue(&all);
        }
        raw.pump();
    }
    assert_eq!(raw.end().1.text, "exceeded limit of requests while answers are not read");
}

// ---- who is not ready yet

#[test]
fn before_the_connection_is_accepted_little_is_read_and_nothing_is_lost() {
    let mut raw = Raw::client(&Setup::default());
    raw.accepts = false;
    raw.chunk = 10_000;
    raw.pump();
    raw.queue(&frame(0, &request("a", 1, false)));
    for i in 0..40u8 {
        raw.queue(&frame(1, &vec![i; 50_000]));
    }
    raw.pump();
    assert!(raw.unread() > 1_900_000, "{} bytes were not read", raw.unread());
    assert_eq!(raw.log.requests(), []);
    raw.run(secs(5));
    raw.accepts = true;
    raw.app(Endpoint::accept).expect("accept");
    let key = raw.log.requests()[0].0;
    let expected: Vec<u8> = (0..40).flat_map(|i| vec![i; 50_000]).collect();
    assert!(raw.log.bytes(key) == expected);
}

#[test]
fn a_connection_that_is_never_accepted_times_out() {
    let mut raw = Raw::client(&Setup::default());
    raw.accepts = false;
    raw.send(&frame(0, &request("a", 1, false)));
    raw.run(secs(11));
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::TIMEOUT));
    assert!(raw.notified && raw.fin);
}

#[test]
fn a_connection_that_is_refused_or_closed_before_it_is_accepted_ends_at_once() {
    for reject in [false, true] {
        let mut raw = Raw::client(&Setup::default());
        raw.accepts = false;
        raw.send(&frame(0, &request("a", 1, false)));
        if reject {
            raw.app(|ep, now, conn| ep.reject(now, conn, 1_500, "no")).expect("reject");
        } else {
            close(&mut raw, None);
        }
        assert!(raw.notified && raw.fin);
        raw.finish(true);
        assert!(raw.closed);
        assert_eq!(raw.log.count(|e| matches!(e, Told::Dead(_))), 1);
    }
}

#[test]
fn data_of_a_channel_that_nobody_has_accepted_is_bounded() {
    let limit = 300_000;
    let mut raw = up(&Setup::default().with(|c| {
        c.channel_window = 1_000;
        c.channel_window_max = limit;
    }));
    raw.accepts_channels = false;
    raw.chunk = 10_000;
    raw.queue(&frame(0, &request("a", 1, false)));
    for i in 0..40u8 {
        raw.queue(&frame(1, &vec![i; 50_000]));
    }
    raw.pump();
    let read = 2_000_000 - raw.unread() as u64;
    assert!((limit..limit + 60_000).contains(&read), "{read} bytes were read");
    let key = raw.log.requests()[0].0;
    let options = ChannelOptions::default();
    raw.app(|ep, now, conn| ep.accept_channel(now, conn, key, &options)).expect("accept");
    let expected: Vec<u8> = (0..40).flat_map(|i| vec![i; 50_000]).collect();
    assert!(raw.log.bytes(key) == expected);
}

#[test]
fn a_decline_lets_the_link_go_on() {
    let mut raw = up(&Setup::default().with(|c| {
        c.channel_window = 1_000;
        c.channel_window_max = 100_000;
    }));
    raw.accepts_channels = false;
    raw.chunk = 10_000;
    raw.queue(&frame(0, &request("a", 1, false)));
    for i in 0..40u8 {
        raw.queue(&frame(1, &vec![i; 50_000]));
    }
    raw.queue(&frame(0, &request("b", 2, false)));
    raw.pump();
    assert_eq!(raw.log.requests().len(), 1);
    let key = raw.log.requests()[0].0;
    raw.app(|ep, now, conn| ep.decline_channel(now, conn, key, 1, "")).expect("decline");
    assert_eq!(raw.log.requests().len(), 2, "what stands behind is looked at");
    assert_eq!(raw.unread(), 0);
}

/// Where the application says which bytes it has taken, and so many may wait for that.
fn taking_by_hand(limit: u64) -> Setup {
    Setup::default().with(|c| {
        c.manual_credit = true;
        c.channel_window = 1_000;
        c.channel_window_max = limit;
    })
}

#[test]
fn an_application_that_does_not_take_its_bytes_stops_the_link() {
    let limit = 200_000;
    let mut raw = up(&taking_by_hand(limit));
    raw.chunk = 10_000;
    raw.queue(&frame(0, &request("a", 1, false)));
    for i in 0..40u8 {
        raw.queue(&frame(1, &vec![i; 50_000]));
    }
    raw.pump();
    let key = raw.log.requests()[0].0;
    let mut taken = 0u64;
    while taken < 2_000_000 {
        let there = raw.log.bytes(key).len() as u64;
        assert!(there > taken, "it goes on when the application takes something");
        assert!(there - taken < limit + 60_000, "{} bytes nobody has taken", there - taken);
        let step = raw.endpoint.credit_step(raw.conn, key).expect("known");
        assert!(step <= limit / 16);
        let some = (there - taken).min(50_000);
        raw.app(|ep, now, conn| ep.consume(now, conn, key, some)).expect("consume");
        taken += some;
    }
    let expected: Vec<u8> = (0..40).flat_map(|i| vec![i; 50_000]).collect();
    assert!(raw.log.bytes(key) == expected);
}

#[test]
fn bytes_of_channels_that_ended_still_count_until_they_are_taken() {
    let limit = 200_000;
    let mut raw = up(&taking_by_hand(limit));
    raw.chunk = 10_000;
    for _ in 0..100 {
        raw.queue(&frame(0, &request("a", 1, false)));
        raw.queue(&frame(1, &vec![1; 30_000]));
        raw.queue(&frame(1, b""));
    }
    raw.pump();
    let got = |raw: &Raw| raw.log.data.iter().map(|d| d.1.len() as u64).sum::<u64>();
    assert!(got(&raw) < limit + 60_000, "{} bytes in channels that ended", got(&raw));
    let mut taken = 0;
    while got(&raw) < 3_000_000 {
        assert!(got(&raw) > taken);
        let more = got(&raw) - taken;
        raw.app(|ep, _, conn| ep.consume_ended(conn, more)).expect("consume");
        taken += more;
    }
}

#[test]
fn many_channels_whose_credit_is_returned_in_steps_do_not_stop_the_link() {
    let mut raw = up(&Setup::default().with(|c| {
        c.manual_credit = true;
        c.channel_window = 64 << 10;
        c.channel_window_max = 256 << 10;
    }));
    raw.chunk = 5_000;
    let mut untold = std::collections::BTreeMap::new();
    for round in 0..30u8 {
        for id in 1..=60u16 {
            if round == 0 {
                raw.queue(&frame(0, &request("x", id, false)));
            }
            raw.queue(&frame(id, &[round; 1_500]));
        }
        let mut seen = 0;
        loop {
            raw.pump();
            let new: Vec<_> = raw.log.data[seen..].to_vec();
            seen = raw.log.data.len();
            if new.is_empty() {
                break;
            }
            // The application takes everything, and tells it as seldom as it may.
            for (key, bytes) in new {
                let sum = untold.entry((key.slot, key.life)).or_insert(0);
                *sum += bytes.len() as u64;
                let step = raw.endpoint.credit_step(raw.conn, key).expect("known");
                if *sum >= step {
                    let all = std::mem::take(sum);
                    raw.app(|ep, now, conn| ep.consume(now, conn, key, all)).expect("consume");
                }
            }
        }
        raw.log.data.clear();
        assert_eq!(raw.unread(), 0, "round {round}");
    }
}

// ---- the end of the connection

#[test]
fn a_close_notify_of_the_peer_is_a_close() {
    for fin in [false, true] {
        for mut raw in [up(&Setup::default()), up_as_client(&Setup::default())] {
            raw.frame(0, &request("a", 1, false));
            raw.frame(1, b"last");
            let key = raw.log.requests()[0].0;
            if fin {
                raw.finish(true);
            } else {
                // As one that waits for ours before it ends anything.
                raw.tls.send_close_notify();
                raw.pump();
            }
            let (status, reason) = raw.end();
            assert_eq!((status, reason.reason), (Status::ClosedByPeer, APP_CLOSED));
            assert_eq!(raw.log.bytes(key), b"last");
            assert_eq!(raw.log.end(key), Some(&ChannelEnd::Connection(reason)));
            assert_eq!(raw.log.count(|e| matches!(e, Told::Eof(_))), 0, "no clean EOF");
            assert!(raw.notified && raw.closed, "close_notify is answered");
            assert_eq!(raw.endpoint.status(raw.conn), Status::ClosedByPeer);
            close(&mut raw, None);
            let dead = raw.log.events.last();
            assert!(matches!(dead, Some(Told::Dead(report)) if report.peer_knows), "{dead:?}");
        }
    }
}

#[test]
fn a_fin_without_close_notify_is_a_problem() {
    let mut raw = up(&Setup::default());
    let key = asked(&mut raw);
    raw.finish(false);
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::RESET));
    assert_eq!(reason.text, "the stream ended without close_notify");
    assert_eq!(raw.log.end(key), Some(&ChannelEnd::Connection(reason)));
    assert!(raw.closed);
}

#[test]
fn a_close_notify_inside_a_frame_is_a_problem() {
    for cut in [1, 3, 4, 7] {
        let mut raw = up(&Setup::default());
        raw.frame(0, &request("a", 1, false));
        raw.send(&frame(1, b"12345")[..cut]);
        raw.finish(true);
        let (status, reason) = raw.end();
        assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::PROTOCOL));
        assert_eq!(reason.text, "the stream ended inside a frame");
    }
}

#[test]
fn a_broken_connection_is_told_with_its_reason() {
    let mut raw = up(&Setup::default());
    let keys = [open(&mut raw, "a"), open(&mut raw, "b")];
    raw.frame(0, &request("a", 0x8000, true));
    raw.break_off();
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::RESET));
    assert_eq!(reason.text, "connection reset by peer");
    for key in keys {
        assert_eq!(raw.log.end(key), Some(&ChannelEnd::Connection(reason.clone())));
    }
}

#[test]
fn linger_delivers_everything_then_close_notify_and_fin() {
    for mut raw in [up(&Setup::default()), up_as_client(&Setup::default())] {
        let key = asked(&mut raw);
        raw.frames();
        raw.reads = false;
        let body: Vec<u8> = (0..2_000_000u32).map(|i| (i / 3) as u8).collect();
        for piece in body.chunks(50_000) {
            send(&mut raw, key, piece);
        }
        close(&mut raw, Some(secs(30)));
        raw.run(secs(8));
        assert_eq!(raw.endpoint.status(raw.conn), Status::None);
        assert!(!raw.fin, "it ended before everything was sent");
        // What comes in meanwhile is read and dropped.
        raw.frame(1, &vec![9; 50_000]);
        raw.frame(0, &request("late", 2, false));
        assert_eq!(raw.unread(), 0);
        raw.reads = true;
        raw.pump();
        assert!(raw.notified && raw.fin && !raw.closed);
        let frames = raw.frames();
        let got: Vec<u8> = frames.iter().filter(|f| f.0 == 1).flat_map(|f| f.1.clone()).collect();
        assert!(got == body, "{} of {} bytes", got.len(), body.len());
        assert!(frames.contains(&(2, vec![])), "a late request is declined");
        raw.finish(true);
        assert!(raw.closed);
        let Some(Told::Dead(report)) = raw.log.events.last() else { panic!("not dead") };
        assert_eq!((report.acknowledged_bytes, report.undelivered_bytes), (2_000_000, 0));
        assert!(report.peer_knows);
    }
}

#[test]
fn linger_has_its_limit_and_the_report_says_what_tcp_took() {
    let mut raw = up(&Setup::default());
    let key = asked(&mut raw);
    raw.reads = false;
    for _ in 0..20 {
        send(&mut raw, key, &vec![1; 50_000]);
    }
    close(&mut raw, Some(secs(3)));
    raw.run(secs(20));
    let Some(Told::Dead(report)) = raw.log.events.last() else { panic!("not dead") };
    assert_eq!(report.reason.reason, Reason::LINGER_EXPIRED);
    assert!(report.undelivered_bytes > 900_000, "{report:?}");
    assert_eq!(report.acknowledged_bytes + report.undelivered_bytes, 1_000_000);
    assert!(!report.peer_knows);
}

#[test]
fn a_peer_that_ends_while_we_linger_ends_the_linger() {
    for how in 0..3 {
        let mut raw = up(&Setup::default());
        let key = asked(&mut raw);
        raw.reads = false;
        for _ in 0..20 {
            send(&mut raw, key, &vec![1; 50_000]);
        }
        close(&mut raw, Some(secs(30)));
        match how {
            0 => raw.finish(true),
            1 => raw.finish(false),
            _ => raw.break_off(),
        }
        let Some(Told::Dead(report)) = raw.log.events.last() else { panic!("not dead") };
        assert!(report.undelivered_bytes > 0);
        assert_eq!(report.peer_knows, how == 0, "only who closes knows");
        let reason = if how == 0 { Reason(1_234) } else { Reason::RESET };
        assert_eq!(report.reason.reason, reason);
    }
}

#[test]
fn without_linger_the_queue_is_dropped_at_a_frame() {
    let mut raw = up(&Setup::default());
    let key = asked(&mut raw);
    raw.reads = false;
    for _ in 0..20 {
        send(&mut raw, key, &vec![1; 50_000]);
    }
    close(&mut raw, None);
    raw.reads = true;
    raw.pump();
    assert!(raw.notified && raw.fin);
    raw.frames();
    assert_eq!(raw.got, b"", "close_notify inside a frame");
}

#[test]
fn a_peer_that_never_ends_is_waited_for_as_long_as_fin_wait_lasts() {
    let mut raw = up(&Setup::default());
    close(&mut raw, None);
    raw.run(ms(4_900));
    assert!(raw.fin && !raw.closed);
    raw.run(ms(200));
    assert!(raw.closed);
    let Some(Told::Dead(report)) = raw.log.events.last() else { panic!("not dead") };
    assert!(!report.peer_knows);
}

#[test]
fn there_is_no_liveness_timeout_and_no_check() {
    let mut raw = up(&Setup::default());
    raw.frame(0, &request("a", 1, false));
    raw.frames();
    raw.run(secs(100_000));
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    assert_eq!(raw.got, b"", "keep-alives on a link that knows none");
    let refused = raw.app(Endpoint::check);
    let why = "a plain link has no way to ask the peer";
    assert_eq!(refused, Err(ApiError::NoConnection(why)));
    raw.app(|ep, now, _| ep.network_changed(now));
    raw.run(secs(100));
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    raw.frame(1, b"late");
    assert_eq!(raw.log.bytes(raw.log.requests()[0].0), b"late");
}

// ---- bad input

#[test]
fn malformed_requests_end_the_connection_with_an_error_that_names_the_field() {
    let long = [&[0x93, 0xda, 4, 1], [b'n'; 1_025].as_slice(), &[1, 0xc2]].concat();
    let cases: [(&[u8], &str); 14] = [
        (&[0x92, 0xa1, b'a', 1], "ChannelRequest has fewer than 3 elements"),
        (&[0x93, 0xa1, b'a', 0xa1, b'1', 0xc2], "channel is not an unsigned 16-bit integer"),
        (&[0x93, 0xa1, b'a', 0xff, 0xc2], "channel is not an unsigned 16-bit integer"),
        (&[0x93, 0xa1, b'a', 0xce, 0, 1, 0, 0, 0xc2], "channel is not an unsigned 16-bit integer"),
        (&[0x93, 0xa1, b'a', 1, 0], "is_answer is not a boolean"),
        (&[0x93, 0xa1, 0xff, 1, 0xc2], "name is not UTF-8"),
        (&long, "name is longer than 1024 bytes"),
        (&[0x80], "message is not an array"),
        (&[0x90], "message is empty"),
        (&[0xc0], "message is not an array"),
        (&[0x93, 0xc0, 1, 0xc2], "message starts with neither a name nor a type"),
        (&[0xc1], "message has a byte that msgpack never uses"),
        (&[0x94, 0xa1, b'a', 1, 0xc2, 1], "options is not a map"),
        (
            &[0x94, 0xa1, b'a', 1, 0xc2, 0x81, 0xa4, b'k', b'i', b'n', b'd', 9],
            "options.kind is not 0, 1 or 2",
        ),
    ];
    for (body, text) in cases {
        let mut raw = up(&Setup::default());
        raw.frame(0, body);
        let (status, reason) = raw.end();
        assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::PROTOCOL));
        assert_eq!(reason.text, format!("control message: {text}"));
        assert!(raw.notified && raw.fin, "{text}");
        assert_eq!(raw.got, b"", "nothing that a plain peer would not know");
    }
    for body in [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0x91, 0x91, 0x91, 0x91, 0x91, 1]] {
        let mut raw = up(&Setup::default());
        raw.frame(0, body);
        assert!(raw.end().1.text.starts_with("exceeded limit of control message"));
    }
}

#[test]
fn random_plaintext_never_panics_and_holds_little() {
    sim::seeds::run(
        "plain_streams",
        "random_plaintext_never_panics_and_holds_little",
        0,
        300,
        |seed| {
            let mut rng = sim::rng::Rng::new(seed);
            let mut raw = Raw::client(&Setup::default().with(|c| c.manual_credit = seed % 2 == 0));
            raw.chunk = rng.between(1, 20_000) as usize;
            raw.accepts = rng.chance(8_000);
            raw.pump();
            for _ in 0..rng.below(60) {
                let mut body = vec![0; rng.below(300) as usize];
                rng.fill(&mut body);
                match rng.below(6) {
                    0 => raw.queue(&body),
                    1 => raw.frame(rng.below(5) as u16, &body),
                    2 => raw.frame(0, &body),
                    _ => {
                        let id = rng.below(6) as u16;
                        let mut good = request("x", id, rng.chance(3_000));
                        if rng.chance(3_000) {
                            let at = rng.below(good.len() as u64) as usize;
                            good[at] ^= 1 << rng.below(8);
                        }
                        raw.frame(0, &good);
                        raw.frame(id, &body);
                    }
                }
            }
            raw.finish(rng.chance(5_000));
            raw.leaves_nothing(seed);
        },
    );
}
