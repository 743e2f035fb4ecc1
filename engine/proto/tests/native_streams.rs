//! The native protocol over a stream: the handshake and its failures, messages in every order and
//! shape, and links that break.

mod sim;

use sim::alloc;
use sim::pair::{CLIENT, HOST, Pair};
use sim::raw::{Raw, Setup, Told, frame, request};
use sim::tls;
use sim::{End, Flow, NodeConfig, OnRequest, Over, Size, ms, secs};
use trunkline_proto::config::{ChannelKind, ChannelOptions};
use trunkline_proto::endpoint::{Endpoint, SendOptions};
use trunkline_proto::error::Reason;
use trunkline_proto::event::ChannelEnd;
use trunkline_proto::handshake::{ClientAuth, Trust};
use trunkline_proto::ids::ChannelKey;
use trunkline_proto::status::Status;
use trunkline_proto::wire::control::{
    ControlMessage, encode_authentication_request, encode_authentication_response, parse,
};
use trunkline_proto::wire::link_message::LinkMessage;
use trunkline_proto::wire::params::TransportParams;

fn message(message: LinkMessage<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode(&mut body);
    frame(0, &body)
}

fn parameters() -> Vec<u8> {
    message(LinkMessage::Parameters(&TransportParams::default().encode()))
}

fn authentication(credential: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    encode_authentication_request(&mut body, credential);
    frame(0, &body)
}

fn response(accepted: bool) -> Vec<u8> {
    let mut body = Vec::new();
    encode_authentication_response(&mut body, accepted, Reason(1_000), "");
    frame(0, &body)
}

/// The endpoint is the host, connected.
fn up(setup: &Setup) -> Raw {
    let mut raw = Raw::client(setup);
    raw.pump();
    raw.send(&parameters());
    raw.send(&authentication(b"ticket"));
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    raw.frames();
    raw
}

/// The endpoint is the client, connected.
fn up_as_client(setup: &Setup) -> Raw {
    let mut raw = Raw::host(setup);
    raw.pump();
    raw.send(&parameters());
    raw.send(&response(true));
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    raw.frames();
    raw
}

/// The CLOSE among what the peer got.
fn close_of(raw: &mut Raw) -> Option<(Reason, String)> {
    let frames = raw.frames();
    let mut closes = frames.iter().filter(|f| f.0 == 0).filter_map(|f| match parse(&f.1) {
        Ok(ControlMessage::Link(LinkMessage::Close { reason, text, .. })) => {
            Some((reason, text.to_owned()))
        }
        _ => None,
    });
    closes.next_back()
}

fn over(over: Over) -> NodeConfig {
    NodeConfig { over, ..NodeConfig::client() }
}

// ---- the handshake

#[test]
fn the_order_of_the_first_messages() {
    let mut raw = Raw::client(&Setup::native());
    raw.accepts = false;
    raw.pump();
    let first = raw.frames();
    assert_eq!(first.len(), 1, "the host speaks first, too");
    assert!(matches!(parse(&first[0].1), Ok(ControlMessage::Link(LinkMessage::Parameters(_)))));
    raw.send(&parameters());
    assert_eq!(raw.log.events, [], "the application hears of a peer that has not asked");
    raw.send(&authentication(b"ticket"));
    assert_eq!(raw.log.events, [Told::Incoming(b"ticket".to_vec())]);
    raw.app(Endpoint::accept).expect("accept");
    let frames = raw.frames();
    let accepted = frames.iter().any(|f| {
        matches!(parse(&f.1), Ok(ControlMessage::AuthenticationResponse { accepted: true, .. }))
    });
    assert!(accepted, "{frames:?}");
}

#[test]
fn peers_without_a_protocol_in_common_learn_that() {
    // A plain client at a host that takes native ones only, with ALPN and without.
    let native_only = |alpn| Setup { alpn, ..Setup::native() };
    let mut raw = Raw::client(&native_only(vec![b"mux/0"]));
    raw.pump();
    let alert = rustls::AlertDescription::NoApplicationProtocol;
    assert_eq!(raw.error, Some(rustls::Error::AlertReceived(alert)));
    assert_eq!((raw.log.events.len(), raw.fin), (0, true), "the application was told");
    let mut raw = Raw::client(&native_only(vec![]));
    raw.pump();
    assert!(raw.notified && raw.fin);
    assert_eq!((raw.got.as_slice(), raw.log.events.len()), (&b""[..], 0));
    // A native client at a host that knows no ALPN, at one that is plain; and the reverse.
    let mut raw = Raw::host(&native_only(vec![]));
    raw.pump();
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::VERSION));
    assert_eq!(reason.text, "the host does not speak the native protocol");
    assert!(raw.notified && raw.fin);
    assert_eq!(raw.got, b"", "native words to a plain host");
    for setup in
        [native_only(vec![b"mux/0"]), Setup { alpn: vec![b"trunkline/1"], ..Setup::default() }]
    {
        let mut raw = Raw::host(&setup);
        raw.pump();
        let (status, reason) = raw.end();
        assert_eq!((status, reason.reason), (Status::ClosedByPeer, Reason::VERSION));
        assert!(reason.text.starts_with("the peer does not speak this protocol"), "{reason}");
    }
}

#[test]
fn a_wrong_pin_ends_both_sides_with_the_reason() {
    let trust = Trust::Pins(vec![tls::client_peer_id()]);
    for setup in
        [Setup { trust: trust.clone(), ..Setup::native() }, Setup { trust, ..Setup::default() }]
    {
        let mut raw = Raw::host(&setup);
        raw.pump();
        let (status, reason) = raw.end();
        assert_eq!(status, Status::ProblemDetectedLocally);
        assert_eq!(reason.reason, Reason::BAD_CERTIFICATE);
        assert_eq!(reason.text, "the key is not one of those expected");
        assert!(matches!(raw.error, Some(rustls::Error::AlertReceived(_))), "{:?}", raw.error);
        assert!(raw.fin);
        assert_eq!(raw.got, b"");
    }
}

#[test]
fn a_client_learns_why_its_certificate_is_not_enough() {
    for kind in [Over::Stream, Over::PlainStream] {
        // Not the one that is expected.
        let mut host = NodeConfig::host();
        host.client_auth = ClientAuth::Required(Trust::Pins(vec![tls::host_id().peer_id()]));
        let mut pair = Pair::apart(1, over(kind), host.clone());
        pair.start();
        pair.run_until("the client is told", secs(1), |p| p.conn(CLIENT).ended());
        assert_eq!(pair.status(CLIENT), Status::ClosedByPeer);
        let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
        assert_eq!(reason.reason, Reason::BAD_CERTIFICATE, "{reason}");
        assert!(reason.text.starts_with("the peer does not accept our certificate"), "{reason}");
        assert!(pair.w.nodes[HOST].app.conns.values().all(|c| !c.known));
        pair.w.drain(secs(10));
        // None at all.
        let mut pair = Pair::apart(2, over(kind), host);
        let config = trunkline_proto::endpoint::ClientConfig {
            tls: tls::pinned(None),
            ..pair.client().client_config()
        };
        pair.start_with(&config);
        pair.run_until("the client is told", secs(1), |p| p.conn(CLIENT).ended());
        let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
        assert_eq!(reason.reason, Reason::AUTHENTICATION, "{reason}");
        assert!(reason.text.starts_with("the peer wants a certificate"), "{reason}");
        pair.w.drain(secs(10));
    }
}

#[test]
fn a_second_connection_resumes_the_session_of_the_first() {
    for kind in [Over::Stream, Over::PlainStream] {
        let mut host = NodeConfig::host();
        host.client_auth = ClientAuth::Required(Trust::Pins(vec![tls::client_peer_id()]));
        let mut pair = Pair::apart(12, over(kind), host);
        let config = pair.client().client_config();
        for resumed in [false, true, true] {
            pair.start_with(&config);
            pair.await_connected();
            for node in [CLIENT, HOST] {
                let info = pair.w.nodes[node].endpoint.info(pair.handle(node)).expect("known");
                assert_eq!(info.resumed, resumed);
                let peer = [tls::host_id().peer_id(), tls::client_peer_id()][node];
                assert_eq!(info.peer, Some(peer), "who it is stays known");
                assert_eq!(info.plain, kind == Over::PlainStream);
            }
            pair.w.run_for(ms(200));
            pair.close(CLIENT, None);
            pair.w.run_for(secs(1));
        }
        pair.finish();
    }
}

#[test]
fn a_client_that_is_rejected_learns_code_and_text() {
    let mut pair = Pair::apart(3, over(Over::Stream), NodeConfig::host());
    pair.host().policy.incoming = sim::OnIncoming::Reject(1_700, "not you".into());
    pair.start();
    pair.run_until("the client is told", secs(1), |p| p.conn(CLIENT).ended());
    let conn = pair.conn(CLIENT);
    assert_eq!(conn.path, [Status::Connecting, Status::ClosedByPeer]);
    let reason = conn.reason.clone().expect("a reason");
    assert_eq!((reason.reason, reason.text.as_str()), (Reason(1_700), "not you"));
    pair.w.drain(secs(10));
}

#[test]
fn a_host_where_nobody_listens_or_that_is_not_there() {
    for listens in [false, true] {
        let mut pair = Pair::apart(4, over(Over::Stream), NodeConfig::client());
        let to = if listens { pair.w.addr(HOST) } else { ([10, 9, 9, 9], 1).into() };
        let config = pair.client().client_config();
        let now = pair.now();
        pair.c = pair.client().connect(now, &[to], &config);
        pair.run_until("the client is told", secs(1), |p| p.conn(CLIENT).ended());
        assert_eq!(pair.status(CLIENT), Status::ProblemDetectedLocally);
        let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
        assert_eq!(reason.reason, Reason::LOCAL_NETWORK);
        pair.w.drain(secs(10));
    }
}

#[test]
fn a_stream_that_ends_in_the_handshake() {
    let mut raw = Raw::host(&Setup::native());
    raw.finish(false);
    assert_eq!(raw.end().1.text, "the stream ended in the handshake");
    let mut raw = Raw::client(&Setup::native());
    raw.finish(false);
    raw.run(secs(10));
    assert_eq!((raw.log.events.len(), raw.endpoint.connections().count()), (0, 0));
}

#[test]
fn a_peer_that_says_nothing_is_an_initial_timeout() {
    // At every point of the handshake.
    for upto in 0..3 {
        let mut raw = Raw::client(&Setup::native());
        if upto > 0 {
            raw.pump();
        }
        if upto > 1 {
            raw.send(&parameters());
        }
        raw.run(secs(9));
        assert_eq!(raw.endpoint.connections().count(), 1);
        raw.run(secs(7));
        assert_eq!((raw.log.events.len(), raw.endpoint.connections().count()), (0, 0));
    }
    for upto in 0..3 {
        let mut raw = Raw::host(&Setup::native());
        if upto > 0 {
            raw.pump();
        }
        if upto > 1 {
            raw.send(&parameters());
        }
        raw.run(ms(9_900));
        assert_eq!(raw.log.status(), None);
        raw.run(ms(200));
        let (status, reason) = raw.end();
        assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::TIMEOUT));
    }
}

#[test]
fn garbage_instead_of_tls() {
    let mut raw = Raw::client(&Setup::native());
    raw.inject(b"GET / HTTP/1.1\r\n\r\n");
    raw.run(secs(10));
    assert_eq!((raw.log.events.len(), raw.endpoint.connections().count()), (0, 0));
    let mut raw = Raw::host(&Setup::native());
    raw.inject(b"SSH-2.0-OpenSSH_9.9\r\n");
    assert_eq!(raw.end().0, Status::ProblemDetectedLocally);
    assert!(raw.fin);
}

// ---- messages out of order, twice, and malformed

/// What the host says to a client that breaks a rule.
fn violated(raw: &mut Raw, text: &str) {
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::PROTOCOL));
    assert_eq!(reason.text, text);
    assert_eq!(close_of(raw), Some((Reason::PROTOCOL, text.to_owned())), "{text}");
    assert!(!raw.notified && !raw.fin, "the acknowledgement is waited for");
    raw.send(&message(LinkMessage::CloseAck));
    assert!(raw.notified && raw.fin, "{text}");
}

#[test]
fn messages_that_come_twice_or_out_of_order() {
    let cases: [(Vec<u8>, &str); 11] = [
        (parameters(), "unexpected Parameters"),
        (authentication(b""), "unexpected AuthenticationRequest"),
        (response(true), "unexpected AuthenticationResponse"),
        (frame(0, b""), "malformed EOF of CONTROL"),
        (frame(0xffff, &[1]), "unexpected TRANSPORT frame on a stream link"),
        (frame(0xffff, b""), "unexpected TRANSPORT frame on a stream link"),
        (frame(0, &request("a", 1, true)), "control message: answer without a request"),
        (frame(0, &request("a", 0x8000, true)), "control message: answer without a request"),
        (
            message(LinkMessage::Consumed { position: 1 << 40 }),
            "control message: position lies beyond what was sent",
        ),
        (
            message(LinkMessage::Consumed { position: u64::MAX }),
            "control message: position lies beyond what was sent",
        ),
        (
            [frame(0, &request("a", 1, false)), frame(1, &vec![0; 30_000])].concat(),
            "exceeded credit of early data",
        ),
    ];
    for (bytes, text) in cases {
        let mut raw = up(&Setup::native().with(|c| {
            c.early_data = 1_000;
            c.channel_window = 1_000;
        }));
        raw.accepts_channels = false;
        raw.send(&bytes);
        violated(&mut raw, text);
    }
}

#[test]
fn what_may_not_come_before_the_application_has_accepted() {
    let cases: [(Vec<u8>, &str); 4] = [
        (frame(0, &request("a", 1, false)), "unexpected ChannelRequest before authentication"),
        (frame(1, b"data"), "unexpected data before the connection was accepted"),
        (frame(1, b""), "unexpected data before the connection was accepted"),
        (authentication(b"ticket"), "unexpected AuthenticationRequest"),
    ];
    for (bytes, text) in cases {
        for asked in [true, false] {
            if !asked && text == "unexpected AuthenticationRequest" {
                continue;
            }
            let mut raw = Raw::client(&Setup::native());
            raw.accepts = false;
            raw.pump();
            raw.send(&parameters());
            if asked {
                raw.send(&authentication(b"ticket"));
            }
            raw.send(&bytes);
            if asked {
                violated(&mut raw, text);
            } else {
                assert_eq!(close_of(&mut raw), Some((Reason::PROTOCOL, text.to_owned())));
                assert_eq!(raw.log.events, []);
            }
        }
    }
}

#[test]
fn nothing_comes_before_the_parameters() {
    for bytes in [
        authentication(b"ticket"),
        message(LinkMessage::Ping),
        message(LinkMessage::Consumed { position: 0 }),
    ] {
        let mut raw = Raw::client(&Setup::native());
        raw.pump();
        raw.send(&bytes);
        let text = "unexpected message before Parameters".to_owned();
        assert_eq!(close_of(&mut raw), Some((Reason::PROTOCOL, text)));
        assert_eq!(raw.log.events, []);
    }
    let mut raw = Raw::host(&Setup::native());
    raw.pump();
    raw.send(&response(true));
    violated(&mut raw, "unexpected message before Parameters");
}

#[test]
fn malformed_parameters_are_named() {
    let cases: [(&[u8], &str); 3] = [
        (&[1], "malformed transport parameters"),
        (&[], "malformed transport parameters: initial_source_id is missing"),
        (&[1, 1, 0], "malformed transport parameter connected_timeout_ms"),
    ];
    for (bytes, text) in cases {
        let mut raw = Raw::host(&Setup::native());
        raw.pump();
        raw.send(&message(LinkMessage::Parameters(bytes)));
        violated(&mut raw, text);
    }
}

#[test]
fn malformed_messages_name_the_field() {
    let cases: [(&[u8], &str); 20] = [
        (&[0x91, 16], "Parameters has fewer than 2 elements"),
        (&[0x92, 16, 0xa1, b'x'], "parameters are not binary"),
        (&[0x91, 17], "Consumed has fewer than 2 elements"),
        (&[0x92, 17, 0xff], "position is not an unsigned 64-bit integer"),
        (&[0x92, 19, 1], "Credit has fewer than 3 elements"),
        (&[0x93, 19, 0xa0, 1], "channel is not in 1..=65534"),
        (&[0x93, 19, 0, 1], "channel is not in 1..=65534"),
        (&[0x93, 19, 0xcd, 0xff, 0xff, 1], "channel is not in 1..=65534"),
        (&[0x93, 19, 1, 0xc2], "limit is not an unsigned 64-bit integer"),
        (&[0x93, 20, 1, 1], "ChannelReset has fewer than 4 elements"),
        (&[0x94, 20, 0, 1, 1], "channel is not in 1..=65534"),
        (&[0x94, 20, 1, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 1], "code is not an unsigned 32-bit integer"),
        (&[0x94, 20, 1, 1, 0xc0], "final_offset is not an unsigned 64-bit integer"),
        (&[0x92, 21, 1], "ChannelStop has fewer than 3 elements"),
        (&[0x93, 21, 1, 0xc2], "code is not an unsigned 32-bit integer"),
        (&[0x93, 22, 1, 0xc2], "Close has fewer than 4 elements"),
        (&[0x94, 22, 0xa0, 0xc2, 0xa0], "reason is not an unsigned 32-bit integer"),
        (&[0x94, 22, 1, 1, 0xa0], "discarded is not a boolean"),
        (&[0x94, 22, 1, 0xc2, 1], "text is not a string"),
        (&[0x94, 22, 1, 0xc2, 0xa1, 0xff], "text is not UTF-8"),
    ];
    for (body, text) in cases {
        let mut raw = up(&Setup::native());
        raw.frame(0, body);
        violated(&mut raw, &format!("control message: {text}"));
    }
    let mut raw = up(&Setup::native());
    raw.frame(0, &[0x91; 5]);
    violated(&mut raw, "exceeded limit of control message nesting");
}

#[test]
fn what_concerns_unknown_channels_or_comes_from_later_versions_means_nothing() {
    let mut raw = up(&Setup::native());
    raw.send(&message(LinkMessage::Credit { channel: 9, limit: 1 << 50 }));
    raw.send(&message(LinkMessage::Reset { channel: 9, code: 1, final_offset: 7 }));
    raw.send(&message(LinkMessage::Stop { channel: 0x8009, code: 1 }));
    raw.send(&message(LinkMessage::CloseAck));
    raw.frame(0, &[0x91, 99]);
    raw.frame(0, &[0x93, 0xcd, 3, 0xe7, 0x80, 0xc0]);
    raw.frame(0, &[0x93, 18, 5, 5]);
    raw.frame(9, b"data for nobody");
    raw.frame(9, b"");
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

#[test]
fn data_and_ends_before_our_request_is_answered() {
    for (body, text) in [
        (&b"x"[..], "unexpected data before the answer"),
        (b"", "unexpected EOF before the answer"),
    ] {
        let mut raw = up(&Setup::native());
        let options = ChannelOptions::default();
        raw.app(|ep, now, conn| ep.open_channel(now, conn, "ours", &options)).expect("open");
        raw.frame(0x8000, body);
        violated(&mut raw, text);
    }
}

#[test]
fn a_reset_below_what_has_come_and_an_eof_inside_a_message() {
    let mut raw = up(&Setup::native());
    raw.frame(0, &request("a", 1, false));
    raw.frame(1, &[1; 100]);
    raw.send(&message(LinkMessage::Reset { channel: 1, code: 1, final_offset: 99 }));
    violated(&mut raw, "final length of a channel violated");
    let mut raw = up(&Setup::native());
    // kind: 1
    raw.frame(0, &[0x94, 0xa1, b'm', 1, 0xc2, 0x81, 0xa4, b'k', b'i', b'n', b'd', 1]);
    raw.frame(1, &[5, 1, 2]);
    raw.frame(1, b"");
    violated(&mut raw, "malformed end of a channel inside a message");
}

#[test]
fn requests_from_the_wrong_half_or_for_ids_in_use_are_declined() {
    let mut raw = up(&Setup::native());
    raw.frame(0, &request("a", 1, false));
    raw.frames();
    for id in [0, 1, 0x8000, 0xffff] {
        raw.frame(0, &request("b", id, false));
        let declined = raw.frames().iter().any(|f| match parse(&f.1) {
            Ok(ControlMessage::ChannelRequest(answer)) => {
                answer.channel == id && answer.is_answer && answer.options.declined.is_some()
            }
            _ => false,
        });
        assert!(declined, "{id}");
    }
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

// ---- floods

#[test]
fn as_many_requests_as_there_are_ids_may_be_declined_before_their_answers_are_read() {
    let mut raw = up(&Setup::native().with(|c| c.max_channels = 10));
    raw.reads = false;
    for id in 1..0x8000u16 {
        raw.queue(&frame(0, &request("x", id, false)));
        if id % 500 == 0 {
            raw.pump();
        }
    }
    raw.pump();
    assert_eq!(raw.unread(), 0, "the link stopped reading, which can end in a deadlock");
    raw.reads = true;
    raw.pump();
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    let declined = raw.frames().iter().filter(|f| f.0 == 0 && f.1.len() > 20).count();
    assert!(declined >= 0x7fff - 10, "{declined} answers");
}

#[test]
fn a_flood_of_requests_whose_answers_are_not_taken_ends_the_connection() {
    let mut raw = up(&Setup::native().with(|c| c.max_channels = 1));
    raw.reads = false;
    let burst: Vec<u8> = (2..500).flat_map(|id| frame(0, &request("x", id, false))).collect();
    for _ in 0..2_000 {
        raw.queue(&burst);
        raw.pump();
        if raw.log.status().map(|s| s.0) != Some(Status::Connected) {
            break;
        }
    }
    assert_eq!(raw.end().1.text, "exceeded limit of requests while answers are not read");
}

#[test]
fn two_sides_that_decline_everything_do_not_wait_for_each_other() {
    let mut pair = Pair::apart(6, over(Over::Stream), NodeConfig::host());
    pair.w.tcp.window = 20_000;
    for node in [CLIENT, HOST] {
        pair.w.nodes[node].policy.request = Box::new(|_| OnRequest::Decline(1, "no".into()));
    }
    pair.connect();
    let name = "n".repeat(150);
    for node in [CLIENT, HOST] {
        for i in 0..9_000 {
            let name = format!("{name}{i}");
            pair.open(node, &name, ChannelKind::Bytes, Flow::silent());
        }
    }
    pair.run_until("all are declined", secs(60), |p| {
        [CLIENT, HOST].iter().all(|n| {
            let ours = || p.conn(*n).channels.values().filter(|c| c.ours);
            ours().count() == 9_000 && ours().all(|c| c.end.is_some())
        })
    });
    pair.finish();
}

#[test]
fn a_peer_that_never_tells_what_it_took_is_remembered_within_bounds() {
    let mut raw = up(&Setup::native());
    let cycle: Vec<u8> = [frame(0, &request("", 1, false)), frame(1, b"")].concat();
    let mut sent = 0;
    // Each cycle costs two records: the answer and our own EOF.
    for round in 0..90_000u32 {
        raw.queue(&cycle);
        raw.pump();
        if let Some((key, ..)) = raw.log.requests().last() {
            let key = *key;
            let _ = raw.app(|ep, now, conn| ep.finish_channel(now, conn, key));
        }
        raw.log.forget();
        if round % 1_000 == 0 {
            sent = raw.frames().len();
        }
        if raw.log.status().is_some() {
            break;
        }
    }
    raw.frames();
    raw.send(&message(LinkMessage::Ping));
    let quiet = raw.frames();
    assert!(quiet.iter().all(|f| f.1.len() < 16), "still sends frames of channels: {sent}");
    assert_eq!(raw.endpoint.status(raw.conn), Status::Connected);
}

#[test]
fn datagrams_of_channels_that_nobody_answers_are_bounded_in_all() {
    for setup in [Setup::native(), Setup::default()] {
        let owner = 5;
        let paying = alloc::As::owner(owner);
        let mut raw = if setup.plain {
            let mut raw = Raw::client(&setup);
            raw.pump();
            raw
        } else {
            up(&setup)
        };
        raw.accepts_channels = false;
        let before = alloc::live(owner);
        for id in 1..400u16 {
            let [high, low] = id.to_be_bytes();
            // ["d", id, false, {kind: 2}]
            let body =
                [0x94, 0xa1, b'd', 0xcd, high, low, 0xc2, 0x81, 0xa4, b'k', b'i', b'n', b'd', 2];
            raw.queue(&frame(0, &body));
            for n in 0..10u32 {
                let header = [&n.to_be_bytes()[..], &[0, 1]].concat();
                raw.queue(&frame(id, &[header.as_slice(), &vec![7; 10_000]].concat()));
            }
            // An end that is repeated is held once.
            for _ in 0..20 {
                raw.queue(&frame(id, b""));
            }
            raw.pump();
        }
        let held = alloc::live(owner) - before;
        drop(paying);
        assert_eq!(raw.log.requests().len(), 399);
        assert!(held < 6 << 20, "{held} bytes");
        assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
    }
}

// ---- asking

#[test]
fn a_ping_is_answered_with_the_position_at_once() {
    let mut raw = up(&Setup::native());
    let before: u64 = (parameters().len() + authentication(b"ticket").len()) as u64;
    let ping = message(LinkMessage::Ping);
    for n in 1..5u64 {
        raw.send(&ping);
        let position = before + n * ping.len() as u64;
        let frames = raw.frames();
        assert_eq!(frames.len(), 1);
        let expected = ControlMessage::Link(LinkMessage::Consumed { position });
        assert_eq!(parse(&frames[0].1), Ok(expected));
    }
    // What only tells is not answered, or both sides would go on for ever.
    raw.send(&message(LinkMessage::Consumed { position: 1 }));
    raw.run(ms(500));
    assert_eq!(raw.frames(), []);
}

#[test]
fn a_check_is_answered_by_the_position_behind_the_ping() {
    for answered in [false, true] {
        let mut raw = up(&Setup::native());
        raw.run(ms(500));
        let sent = raw.total;
        raw.app(Endpoint::check).expect("check");
        let frames = raw.frames();
        assert_eq!(frames.len(), 1);
        assert_eq!(parse(&frames[0].1), Ok(ControlMessage::Link(LinkMessage::Ping)));
        raw.run(ms(1_000));
        raw.send(&message(LinkMessage::Consumed { position: sent }));
        assert_eq!(raw.log.count(|e| *e == Told::CheckAnswered), 0, "that is before the ping");
        if answered {
            let position = raw.total;
            raw.send(&message(LinkMessage::Consumed { position }));
            assert_eq!(raw.log.count(|e| *e == Told::CheckAnswered), 1);
            assert!(raw.endpoint.stats(raw.conn).expect("known").rtt >= ms(1_000));
        }
        raw.run(ms(2_500));
        let expected = if answered { Status::Connected } else { Status::ProblemDetectedLocally };
        assert_eq!(raw.endpoint.status(raw.conn), expected);
    }
}

#[test]
fn several_messages_in_one_frame_and_one_in_several() {
    let mut raw = up(&Setup::native());
    raw.frame(0, &request("a", 1, false));
    // What acknowledges the answer stands in front of another request, which is cut.
    let consumed = message(LinkMessage::Consumed { position: raw.total });
    let second = request("b", 2, false);
    raw.frame(0, &[&consumed[4..], &second[..3]].concat());
    raw.frame(0, &second[3..]);
    let consumed = message(LinkMessage::Consumed { position: raw.total });
    raw.frame(0, &[&consumed[4..], &request("c", 3, false), &request("d", 4, false)].concat());
    assert_eq!(raw.log.requests().len(), 4);
    raw.run(ms(100));
    assert_eq!(raw.log.status().map(|s| s.0), Some(Status::Connected));
}

#[test]
fn receipts_come_when_the_peer_has_taken_the_bytes() {
    let mut raw = up_as_client(&Setup::native());
    let options = ChannelOptions { no_delay: true, ..ChannelOptions::default() };
    let key = raw.app(|ep, now, conn| ep.open_channel(now, conn, "a", &options)).expect("open");
    let receipt = SendOptions { receipt: Some(5), ..SendOptions::default() };
    // [name, id, true, {window: 65536}]
    let answer = [
        0x94, 0xa1, b'a', 1, 0xc3, 0x81, 0xa6, b'w', b'i', b'n', b'd', b'o', b'w', 0xce, 0, 1, 0, 0,
    ];
    raw.frame(0, &answer);
    raw.app(|ep, now, conn| ep.send(now, conn, key, &[7; 500], receipt)).expect("send");
    let position = raw.total;
    raw.send(&message(LinkMessage::Consumed { position: position - 501 }));
    assert_eq!(raw.log.count(|e| matches!(e, Told::Receipt(..))), 0);
    raw.send(&message(LinkMessage::Consumed { position }));
    assert_eq!(raw.log.count(|e| *e == Told::Receipt(key, 5)), 1);
}

#[test]
fn a_peer_that_says_nothing_any_more_is_a_timeout() {
    let mut raw = up(&Setup::native());
    raw.run(secs(9));
    assert_eq!(raw.endpoint.status(raw.conn), Status::Connected);
    let pings = raw.frames().len();
    assert!((1..4).contains(&pings), "{pings} pings in nine seconds");
    raw.run(secs(2));
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::TIMEOUT));
}

#[test]
fn a_slow_application_is_no_silence() {
    // Both sides give up after two seconds of silence; the application takes its time.
    let change = |c: &mut trunkline_proto::config::ConnectionConfig| {
        c.connected_timeout = secs(2);
        c.keep_alive = ms(600);
    };
    for kind in [Over::Datagrams, Over::Stream] {
        let mut pair = Pair::apart(7, over(kind).with(change), NodeConfig::host().with(change));
        pair.host().policy.incoming = sim::OnIncoming::Ignore;
        pair.start();
        pair.w.run_for(secs(8));
        pair.h = pair.w.only(HOST);
        let h = pair.h;
        pair.w.call(HOST, |ep, now, _| ep.accept(now, h)).expect("still time");
        pair.await_connected();
        pair.finish();
    }
}

// ---- the end

#[test]
fn a_close_of_the_peer_is_acknowledged_and_told() {
    let mut raw = up(&Setup::native());
    raw.frame(0, &request("a", 1, false));
    raw.frames();
    let key = raw.log.requests()[0].0;
    raw.queue(&frame(1, b"last words"));
    let close = LinkMessage::Close { reason: Reason(1_500), discarded: false, text: "bye" };
    raw.queue(&message(close));
    raw.queue(&frame(1, b"too late"));
    raw.pump();
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ClosedByPeer, Reason(1_500)));
    assert_eq!(reason.text, "bye");
    assert_eq!(raw.log.bytes(key), b"last words");
    assert_eq!(raw.log.end(key), Some(&ChannelEnd::Connection(reason)));
    let last = raw.frames().pop().expect("an answer");
    assert_eq!(parse(&last.1), Ok(ControlMessage::Link(LinkMessage::CloseAck)));
    assert!(raw.notified && raw.fin);
}

#[test]
fn a_close_of_ours_waits_for_its_acknowledgement() {
    for (answer, knows) in [(true, true), (false, false)] {
        let mut raw = up(&Setup::native());
        raw.app(|ep, now, conn| ep.close(now, conn, 1_500, "bye", None)).expect("close");
        assert_eq!(close_of(&mut raw), Some((Reason(1_500), "bye".to_owned())));
        assert!(!raw.notified && !raw.fin && !raw.closed);
        if answer {
            raw.send(&message(LinkMessage::CloseAck));
        }
        raw.finish(true);
        assert!(raw.closed);
        let Some(Told::Dead(report)) = raw.log.events.last() else { panic!("not dead") };
        assert_eq!(report.peer_knows, knows);
    }
}

#[test]
fn a_socket_that_breaks_after_its_end_is_not_kept() {
    let mut raw = up(&Setup::native());
    raw.reads = false;
    // More than the socket takes, so that the answer to the close cannot go.
    raw.frame(0, &request("a", 1, false));
    let key = raw.log.requests()[0].0;
    raw.send(&message(LinkMessage::Credit { channel: 1, limit: 1 << 30 }));
    for _ in 0..10 {
        let data = vec![1; 50_000];
        raw.app(|ep, now, conn| ep.send(now, conn, key, &data, SendOptions::default()))
            .expect("send");
    }
    let close = LinkMessage::Close { reason: Reason(1_500), discarded: false, text: "" };
    raw.queue(&message(close));
    raw.finish(true);
    assert_eq!(raw.end().0, Status::ClosedByPeer);
    assert!(!raw.closed, "the answer waits");
    raw.break_off();
    assert_eq!(raw.end().1.reason, Reason(1_500), "the true reason stays");
    let needs = raw.endpoint.stream_needs(raw.conn);
    assert_eq!(needs, trunkline_proto::endpoint::StreamNeeds::Close);
}

#[test]
fn a_peer_that_does_not_take_leave_is_not_waited_for() {
    let mut raw = up(&Setup::native());
    raw.frame(0xffff, b"");
    assert_eq!(raw.end().0, Status::ProblemDetectedLocally);
    raw.run(ms(4_900));
    assert!(!raw.notified && !raw.closed);
    raw.run(ms(200));
    assert!(raw.notified && raw.closed, "the socket is kept as long as the handle");
    assert_eq!(raw.endpoint.status(raw.conn), Status::ProblemDetectedLocally);
}

#[test]
fn the_last_words_of_a_peer_that_broke_the_protocol_are_heard() {
    let mut raw = up(&Setup::native());
    raw.frame(0xffff, b"and a body");
    raw.send(&message(LinkMessage::CloseAck));
    raw.app(|ep, now, conn| ep.close(now, conn, 1_000, "", None)).expect("close");
    let Some(Told::Dead(report)) = raw.log.events.last() else { panic!("not dead") };
    assert!(report.peer_knows);
}

#[test]
fn a_stream_that_ends_without_a_close_is_a_problem() {
    for (notify, text) in [
        (true, "the stream ended without a close"),
        (false, "the stream ended without close_notify"),
    ] {
        let mut raw = up(&Setup::native());
        raw.finish(notify);
        let (status, reason) = raw.end();
        assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::RESET));
        assert_eq!(reason.text, text);
    }
    let mut raw = up(&Setup::native());
    raw.send(&[0, 9, 0]);
    raw.finish(true);
    assert_eq!(raw.end().1.text, "the stream ended inside a frame");
}

#[test]
fn a_broken_link_is_told_to_every_channel_once_with_the_true_reason() {
    for kind in [Over::Stream, Over::PlainStream] {
        for linger in [false, true] {
            let mut pair = Pair::apart(8, over(kind), NodeConfig::host());
            pair.connect();
            pair.host().policy.answer = Box::new(|_, _| Flow::of(500_000, Size::Fixed(5_000)));
            for i in 0..20 {
                let node = [CLIENT, HOST][i % 2];
                let flow = Flow::of(900_000, Size::Fixed(9_000)).ending(End::Stay);
                pair.open(node, &format!("c{i}"), ChannelKind::Bytes, flow);
            }
            pair.w.run_for(ms(20));
            if linger {
                pair.close(CLIENT, Some(secs(60)));
            }
            pair.w.break_streams();
            pair.w.run_for(ms(500));
            let broken: &[_] = if linger { &[HOST] } else { &[CLIENT, HOST] };
            for node in broken {
                let conn = pair.conn(*node);
                assert_eq!(conn.status, Status::ProblemDetectedLocally);
                let reason = conn.reason.clone().expect("a reason");
                assert_eq!(reason.reason, Reason::RESET);
                assert_eq!(reason.text, "connection reset by peer");
                assert!(conn.channels.len() >= 20);
                for chan in conn.channels.values() {
                    assert_eq!(chan.end, Some(ChannelEnd::Connection(reason.clone())));
                    assert!(!chan.eof);
                }
            }
            pair.w.drain(secs(20));
            let report = pair.conn(CLIENT).report.clone().expect("a report");
            assert_eq!(report.reason.reason, Reason::RESET, "{report:?}");
            assert!(report.undelivered_bytes > 0 && !report.peer_knows, "{report:?}");
        }
    }
}

type Script = fn(&mut Pair);

/// Statuses and reason of each side.
type Story = [(Vec<Status>, Option<Reason>); 2];

fn story(kind: Over, before: Script, script: Script) -> Story {
    let mut pair = Pair::apart(13, over(kind), NodeConfig::host());
    before(&mut pair);
    pair.start();
    pair.w.run_for(ms(500));
    pair.h = pair.w.only(HOST);
    script(&mut pair);
    pair.w.run_for(secs(40));
    pair.w.drain(secs(60));
    [CLIENT, HOST].map(|node| {
        let conn = pair.conn(node);
        (conn.path.clone(), conn.reason.as_ref().map(|r| r.reason))
    })
}

#[test]
fn statuses_and_reasons_are_those_of_the_datagram_link() {
    let open: Script = |_| {};
    let ignore: Script = |p| p.host().policy.incoming = sim::OnIncoming::Ignore;
    let reject: Script =
        |p| p.host().policy.incoming = sim::OnIncoming::Reject(1_600, String::new());
    let scripts: [(&str, Script, Script); 9] = [
        ("the client closes", open, |p| p.close(CLIENT, None)),
        ("the host closes", open, |p| p.close(HOST, None)),
        ("the client lingers", open, |p| {
            p.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(400_000, Size::Fixed(4_000)));
            p.close(CLIENT, Some(secs(30)));
        }),
        ("the host lingers", open, |p| {
            p.open(HOST, "bulk", ChannelKind::Messages, Flow::of(40, Size::Fixed(4_000)));
            p.close(HOST, Some(secs(30)));
        }),
        ("linger has nothing to do", open, |p| p.close(CLIENT, Some(secs(30)))),
        ("both close", open, |p| {
            p.close(CLIENT, None);
            p.close(HOST, None);
        }),
        ("never accepted", ignore, |_| {}),
        ("rejected", reject, |_| {}),
        ("closed instead of accepted", ignore, |p| p.close(HOST, None)),
    ];
    for (name, before, script) in scripts {
        let datagrams = story(Over::Datagrams, before, script);
        let stream = story(Over::Stream, before, script);
        assert_eq!(stream, datagrams, "{name}");
    }
}

#[test]
fn calls_with_a_handle_that_is_gone_mean_nothing() {
    let mut raw = Raw::client(&Setup::default());
    raw.accepts = false;
    raw.pump();
    raw.send(&frame(0, &request("held", 1, false)));
    raw.app(|ep, now, conn| ep.reject(now, conn, 1_500, "no")).expect("reject");
    raw.finish(true);
    assert_eq!(raw.endpoint.connections().count(), 0);
    let events = raw.log.events.len();
    let Raw { endpoint, now, conn, log, .. } = &mut raw;
    endpoint.stream_receive(*now, *conn, &[1, 2, 3], log);
    endpoint.stream_finished(*now, *conn, log);
    endpoint.stream_failed(*now, *conn, "broken", log);
    assert_eq!(endpoint.stream_transmit(*now, *conn, &mut [0; 100]), 0);
    assert!(!endpoint.stream_is_readable(*conn));
    assert_eq!(endpoint.stream_needs(*conn), trunkline_proto::endpoint::StreamNeeds::Close);
    endpoint.end_batch(*now, log);
    assert_eq!((log.events.len(), endpoint.next_timeout()), (events, None));
}

// ---- sizes

#[test]
fn datagrams_of_every_size_arrive() {
    for kind in [Over::Stream, Over::PlainStream] {
        let mut pair = Pair::apart(9, over(kind), NodeConfig::host());
        pair.connect();
        for size in
            (15_900..16_500).step_by(13).chain([0, 1, 5_000, 32_000, 40_000, 65_535, 65_536])
        {
            let name = format!("d{size}");
            pair.open(CLIENT, &name, ChannelKind::Datagrams, Flow::silent());
            pair.w.run_for(ms(20));
            pair.send(CLIENT, &name, Flow::of(5, Size::Fixed(size)));
            pair.await_eof(HOST, &name, secs(2));
            assert_eq!(pair.chan(HOST, &name).received.messages, 5, "{size} bytes");
        }
        pair.finish();
    }
}

#[test]
fn names_and_credentials_of_the_greatest_length() {
    for kind in [Over::Stream, Over::PlainStream] {
        let mut pair = Pair::apart(10, over(kind), NodeConfig::host());
        let mut config = pair.client().client_config();
        if kind == Over::Stream {
            config.credential = vec![7; 8_192];
        }
        pair.start_with(&config);
        pair.await_connected();
        assert_eq!(pair.conn(HOST).credential, config.credential);
        for i in 0..100 {
            let name = format!("{i:04}{}", "n".repeat(1_020));
            pair.open(CLIENT, &name, ChannelKind::Bytes, Flow::of(10, Size::Fixed(10)));
            pair.await_eof(HOST, &name, secs(1));
        }
        pair.finish();
    }
}

#[test]
fn a_long_transfer_leaves_no_memory_behind() {
    for kind in [Over::Stream, Over::PlainStream] {
        let mut pair = Pair::apart(11, over(kind), NodeConfig::host());
        pair.connect();
        pair.open(CLIENT, "warm", ChannelKind::Bytes, Flow::of(10, Size::Fixed(10)));
        pair.w.run_for(secs(5));
        let before: Vec<_> = [CLIENT, HOST].iter().map(|n| pair.w.heap(*n)).collect();
        for i in 0..5 {
            let name = format!("bulk{i}");
            pair.open(CLIENT, &name, ChannelKind::Messages, Flow::of(200, Size::Fixed(60_000)));
            pair.await_eof(HOST, &name, secs(30));
        }
        if kind == Over::Stream {
            // The host's direction ends, too.
            pair.w.run_for(ms(100));
        }
        pair.w.run_for(secs(5));
        for node in [CLIENT, HOST] {
            let more = pair.w.heap(node) - before[node];
            assert!(more < 20_000, "node {node} keeps {more} bytes");
        }
        pair.finish();
    }
}

// ---- noise

#[test]
fn random_frames_never_panic() {
    sim::seeds::run("native_streams", "random_frames_never_panic", 0, 300, |seed| {
        let mut rng = sim::rng::Rng::new(seed).fork(5);
        let client = rng.chance(5_000);
        let mut raw =
            if client { Raw::host(&Setup::native()) } else { Raw::client(&Setup::native()) };
        raw.accepts = rng.chance(8_000);
        raw.chunk = rng.between(1, 20_000) as usize;
        raw.pump();
        if rng.chance(9_000) {
            raw.send(&parameters());
            raw.send(&if client { response(true) } else { authentication(b"") });
        }
        for _ in 0..rng.below(80) {
            let channel = rng.pick(&[1, 2, 3, 0x8000, 0x8001]);
            let mut bytes = match rng.below(12) {
                0 => message(LinkMessage::Credit { channel, limit: rng.below(1 << 20) }),
                1 => message(LinkMessage::Reset { channel, code: 1, final_offset: rng.below(500) }),
                2 => message(LinkMessage::Stop { channel, code: 1 }),
                3 => message(LinkMessage::Consumed { position: rng.below(raw.total + 2) }),
                4 => message(LinkMessage::Ping),
                5 => frame(channel, &vec![1; rng.below(300) as usize]),
                6 => frame(channel, b""),
                7 => frame(0, &request("x", channel, rng.chance(5_000))),
                8 => {
                    let options = ChannelOptions::default();
                    let _ = raw.app(|ep, now, conn| ep.open_channel(now, conn, "y", &options));
                    Vec::new()
                }
                9 => {
                    let keys: Vec<ChannelKey> = raw.log.requests().iter().map(|r| r.0).collect();
                    if !keys.is_empty() {
                        let key = rng.pick(&keys);
                        raw.app(|ep, now, conn| {
                            let _ = ep.send(now, conn, key, &[1; 2_000], SendOptions::default());
                            let _ = match rng.below(4) {
                                0 => ep.finish_channel(now, conn, key),
                                1 => ep.reset_channel(now, conn, key, 3),
                                2 => ep.stop_channel(now, conn, key, 3),
                                _ => Ok(()),
                            };
                        });
                    }
                    Vec::new()
                }
                10 => {
                    let mut noise = vec![0; rng.below(200) as usize];
                    rng.fill(&mut noise);
                    noise
                }
                _ => message(LinkMessage::CloseAck),
            };
            if !bytes.is_empty() && rng.chance(500) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            raw.send(&bytes);
        }
        raw.finish(rng.chance(5_000));
        raw.leaves_nothing(seed);
    });
}

#[test]
fn damaged_ciphertext_ends_the_connection_and_nothing_else() {
    sim::seeds::run(
        "native_streams",
        "damaged_ciphertext_ends_the_connection_and_nothing_else",
        0,
        200,
        |seed| {
            let mut rng = sim::rng::Rng::new(seed).fork(6);
            let setup = if seed % 2 == 0 { Setup::native() } else { Setup::default() };
            let mut raw = Raw::client(&setup);
            let mut noise = vec![0; rng.between(1, 40_000) as usize];
            rng.fill(&mut noise);
            match rng.below(3) {
                0 => raw.inject(&noise),
                1 => {
                    raw.pump();
                    // The head of a record of application data.
                    noise[0] = 23;
                    raw.inject(&noise);
                }
                _ => {
                    raw.pump();
                    raw.send(&parameters());
                    raw.damage(rng.u64());
                    raw.send(&authentication(b""));
                }
            }
            raw.leaves_nothing(seed);
        },
    );
}

#[test]
fn records_that_do_not_open_are_bad_crypto_on_both_sides() {
    let mut raw = up(&Setup::native());
    raw.damage(20);
    raw.send(&message(LinkMessage::Ping));
    let (status, reason) = raw.end();
    assert_eq!((status, reason.reason), (Status::ProblemDetectedLocally, Reason::BAD_CRYPTO));
    let alert = rustls::AlertDescription::BadRecordMac;
    assert_eq!(raw.error, Some(rustls::Error::AlertReceived(alert)));
}
