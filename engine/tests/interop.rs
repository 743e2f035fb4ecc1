//! The plain protocol with a peer that shares nothing with the engine: `interop/peer.py`, made of
//! Python's `ssl` and `msgpack`. Both roles, both ALPN values, every driver that works here.

mod common;

#[path = "interop/app.rs"]
mod app;
#[path = "interop/peer.rs"]
mod peer;

use app::{App, Saw};
use common::{drivers, wait_until};
use peer::{Certificate, Peer};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use trunkline::{
    ChannelEnd, ConnectConfig, ConnectLink, ConnectionConfig, DriverChoice, Engine, EngineConfig,
    IpNet, Links, ListenConfig, Listener, ListenerId, Reason, Status, Trust,
};

const PLAIN: Links = Links { datagram: false, stream: true, plain: true };
/// What a peer may agree on for the plain protocol.
const PROTOCOLS: [&str; 2] = ["mux/0", "-"];

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum We {
    Listen,
    Connect,
}

/// An engine and a peer in one connection.
struct Talk {
    engine: Engine<App>,
    seen: Receiver<Saw>,
    peer: Peer,
    listener: Option<ListenerId>,
    port: u16,
    /// The peer reads it when it likes.
    _certificate: Certificate,
}

impl Talk {
    /// Starts the peer with a scenario and waits for the connection.
    fn new(we: We, driver: DriverChoice, alpn: &str, scenario: &[&str]) -> Self {
        let talk = Self::start(we, driver, alpn, scenario);
        if we == We::Listen {
            assert_eq!(talk.next(), Saw::Incoming);
        }
        assert_eq!(talk.next(), Saw::Status(Status::Connected, None));
        assert_eq!(talk.peer.line(), format!("handshake TLSv1.3 {alpn}"));
        talk
    }

    fn start(we: We, driver: DriverChoice, alpn: &str, scenario: &[&str]) -> Self {
        let certificate = Certificate::new();
        let (engine, seen) = engine(common::config(driver));
        let (mut port, mut listener) = (0, None);
        let peer = if we == We::Listen {
            let listening = listen(&engine, &certificate);
            (port, listener) = (listening.local_addr.port(), Some(listening.id));
            Peer::client(port, &certificate, alpn, scenario)
        } else {
            let peer = Peer::server(&certificate, alpn, scenario);
            let config = connect(peer.port(), &certificate);
            engine
                .post(
                    0,
                    Box::new(move |_, cx| {
                        cx.connect(&config).unwrap();
                    }),
                )
                .unwrap();
            peer
        };
        Self { engine, seen, peer, listener, port, _certificate: certificate }
    }

    fn next(&self) -> Saw {
        match self.seen.recv_timeout(Duration::from_secs(20)) {
            Ok(saw) => saw,
            Err(e) => panic!("nothing happens: {e}; {:?}", self.engine.stats()),
        }
    }

    /// Everything up to the end of the connection, which is the last.
    fn until_dead(&self) -> Vec<Saw> {
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Saw::Dead(_))) {
            all.push(self.next());
        }
        all
    }

    fn act(&self, act: impl FnOnce(&mut App, &mut trunkline::Context<'_>) + Send + 'static) {
        self.engine.post(0, Box::new(act)).unwrap();
    }

    /// Every stream of the driver is gone, its buffers too.
    fn nothing_left(&self) {
        wait_until("the end of everything", || self.engine.stats().connections() == 0);
    }
}

fn engine(config: EngineConfig) -> (Engine<App>, Receiver<Saw>) {
    let (saw, seen) = channel();
    let mut app = Some(App::new(saw));
    (Engine::start(config, move |_| app.take().expect("one shard")).unwrap(), seen)
}

fn listen(engine: &Engine<App>, certificate: &Certificate) -> Listener {
    let config = ListenConfig {
        links: PLAIN,
        ..ListenConfig::new(common::loopback(), certificate.identity())
    };
    engine.listen(&config).unwrap()
}

fn connect(port: u16, certificate: &Certificate) -> ConnectConfig {
    let trust = Trust::Pins(vec![certificate.identity().peer_id()]);
    let link = ConnectLink::PlainStream;
    ConnectConfig { link, ..ConnectConfig::new(([127, 0, 0, 1], port).into(), trust) }
}

/// Runs `test` with every role and driver; the protocol that is agreed on goes round.
fn everywhere(test: impl Fn(We, DriverChoice, &str)) {
    if !peer::is_possible() {
        return;
    }
    let mut round = 0;
    for driver in drivers() {
        for we in [We::Listen, We::Connect] {
            test(we, driver, PROTOCOLS[round % 2]);
            round += 1;
        }
        round += 1;
    }
}

fn statuses(saw: &[Saw]) -> Vec<(Status, Option<Reason>)> {
    let status = |s: &Saw| match s {
        Saw::Status(status, reason) => Some((*status, reason.as_ref().map(|r| r.reason))),
        _ => None,
    };
    saw.iter().filter_map(status).collect()
}

/// 100 MB each way at the same time on three channels, opened by both sides.
#[test]
fn a_hundred_megabytes_each_way_on_three_channels() {
    const LENGTH: usize = 100_000_000 / 3 + 1;
    everywhere(|we, driver, alpn| {
        let talk = Talk::new(we, driver, alpn, &["bulk", &LENGTH.to_string()]);
        talk.act(|app, cx| {
            app.bulk = LENGTH;
            app.open_bulk(cx, "bulk-c");
        });
        let mut ended = HashMap::new();
        while ended.len() < 3 {
            if let Saw::Bulk { name, received, sent } = talk.next() {
                ended.insert(name, (received, sent));
            }
        }
        talk.act(|app, cx| app.close(cx, None));
        let dead = talk.until_dead();
        let mut lines = talk.peer.lines_until_end();
        assert_eq!(lines.pop().as_deref(), Some("end close_notify fin"), "{lines:?}");
        assert_eq!(lines.len(), 3, "{lines:?}");
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            let ["channel", name, received, theirs_in, theirs_out, end] = words[..] else {
                panic!("{line}")
            };
            let (ours_in, ours_out) = &ended[name];
            assert_eq!(received.parse(), Ok(LENGTH));
            assert_eq!((theirs_in, theirs_out), (&ours_out[..], &ours_in[..]), "{name}");
            assert_eq!(end, if name == "bulk-c" { "eof" } else { "finished" });
        }
        let Some(Saw::Dead(report)) = dead.last() else { panic!("{dead:?}") };
        assert_eq!((report.undelivered_bytes, report.undelivered_channels), (0, 0));
        talk.nothing_left();
    });
}

#[test]
fn requests_are_declined_by_both_sides_and_the_connection_goes_on() {
    everywhere(|we, driver, alpn| {
        let talk = Talk::new(we, driver, alpn, &["declines"]);
        assert_eq!(talk.next(), Saw::Request("no".into(), 5));
        assert_eq!(talk.peer.line(), "declined 5");
        assert_eq!(talk.peer.line(), "echoed still here");
        talk.act(|app, cx| app.open(cx, "no"));
        let mut declined = false;
        while !declined {
            if let Saw::Closed(name, end) = talk.next() {
                declined = name == "no" && matches!(end, ChannelEnd::Declined { .. });
            }
        }
        talk.act(|app, cx| app.close(cx, None));
        assert_eq!(talk.peer.line(), "end close_notify fin");
        talk.until_dead();
        talk.nothing_left();
    });
}

/// Options that nobody knows, more elements than there should be, ids of both halves, messages cut
/// at every place, integers in odd forms.
#[test]
fn requests_in_every_form_are_understood() {
    everywhere(|we, driver, alpn| {
        let talk = Talk::new(we, driver, alpn, &["forms"]);
        let ids = [1, 2, 10, 11, 12, 20, 21, 30, 31, 40, 41, 0x8000, 0xFFFE];
        let echoed: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(talk.peer.line(), format!("echoed {}", echoed.join(" ")));
        assert_eq!(talk.peer.line(), "declined 65535");
        let (mut requests, mut ends) = (Vec::new(), 0);
        loop {
            match talk.next() {
                Saw::Request(name, _) if name == "over" => break,
                Saw::Request(name, id) => requests.push((id, name)),
                Saw::Closed(_, end) => {
                    assert_eq!(end, ChannelEnd::Finished);
                    ends += 1;
                }
                _ => {}
            }
        }
        requests.sort();
        assert_eq!(requests.iter().map(|r| r.0).collect::<Vec<_>>(), ids);
        assert_eq!(ends, ids.len(), "every end was seen");
        for (id, name) in requests {
            let expected = match id {
                30 => "é".repeat(512),
                31 => String::new(),
                _ => "echo".into(),
            };
            assert_eq!(name, expected);
        }
        talk.act(|app, cx| app.close(cx, None));
        assert_eq!(talk.peer.line(), "end close_notify fin");
        talk.until_dead();
        talk.nothing_left();
    });
}

/// Our lingering close delivers everything to a peer that reads slowly.
#[test]
fn a_lingering_close_delivers_everything_to_a_slow_reader() {
    const LENGTH: usize = 8 << 20;
    everywhere(|we, driver, alpn| {
        let scenario = ["slow", &LENGTH.to_string(), "1.0", "65536", "0.012"];
        let talk = Talk::new(we, driver, alpn, &scenario);
        talk.act(|app, cx| {
            app.bulk = LENGTH;
            app.close_when_sent = Some(trunkline::Duration::from_secs(30));
            app.open_bulk(cx, "source");
        });
        let line = talk.peer.line();
        assert_eq!(talk.peer.line(), "complete");
        let sent = loop {
            if let Saw::Sent(hash) = talk.next() {
                break hash;
            }
        };
        assert_eq!(line, format!("channel source {LENGTH} {sent}"));
        assert_eq!(talk.peer.line(), "end close_notify fin");
        let dead = talk.until_dead();
        let Some(Saw::Dead(report)) = dead.last() else { panic!("{dead:?}") };
        assert_eq!((report.undelivered_bytes, report.undelivered_channels), (0, 0));
        talk.nothing_left();
    });
}

/// The same where the peer talks all the time, reads so slowly that the system has much of it long
/// after our close, and knows no CLOSE that could be acknowledged.
#[test]
fn what_is_under_way_when_we_close_reaches_a_slow_reader_that_talks_on() {
    const LENGTH: usize = 6 << 20;
    // It takes its time: one role does.
    for driver in drivers().into_iter().filter(|_| peer::is_possible()) {
        let scenario = ["slow", &LENGTH.to_string(), "0.5", "65536", "0.06", "chatter"];
        let talk = Talk::new(We::Listen, driver, PROTOCOLS[0], &scenario);
        talk.act(|app, cx| {
            app.bulk = LENGTH;
            app.close_when_sent = Some(trunkline::Duration::from_secs(30));
            app.open_bulk(cx, "source");
        });
        let line = talk.peer.line();
        assert_eq!(talk.peer.line(), "complete", "{line}");
        talk.nothing_left();
    }
}

/// The peer's close is told with its reason; so is an end that was none.
#[test]
fn the_end_of_the_peer_is_seen_with_its_reason() {
    let cases = [
        ("clean", Status::ClosedByPeer, Reason::APP, "", "end close_notify fin"),
        (
            "fin",
            Status::ProblemDetectedLocally,
            Reason::RESET,
            "the stream ended without close_notify",
            "end close_notify fin",
        ),
        ("reset", Status::ProblemDetectedLocally, Reason::RESET, "", "end reset by us"),
    ];
    everywhere(|we, driver, alpn| {
        for (how, status, reason, text, end) in cases {
            let talk = Talk::new(we, driver, alpn, &["bye", how]);
            assert_eq!(talk.peer.line(), "echoed last words");
            let saw = talk.until_dead();
            assert_eq!(statuses(&saw)[0], (status, Some(reason)), "{how}: {saw:?}");
            let words = |s: &Saw| match s {
                Saw::Status(_, Some(reason)) => Some(reason.text.clone()),
                _ => None,
            };
            let told = saw.iter().find_map(words).unwrap();
            assert!(told.contains(text), "{how}: {told}");
            assert!(saw.contains(&Saw::Data("echo".into(), 10)), "{how}: what came before counts");
            assert_eq!(talk.peer.line(), end, "{how}");
            talk.nothing_left();
        }
    });
}

/// Control messages that break a rule end the connection, and our side names the field.
#[test]
fn malformed_control_messages_end_the_connection_with_an_error_that_names_the_field() {
    if !peer::is_possible() {
        return;
    }
    let certificate = Certificate::new();
    let count = Peer::client(0, &certificate, "-", &["malformed"]).line();
    let count: usize = count.strip_prefix("cases ").unwrap().parse().unwrap();
    assert!(count > 40);
    for driver in drivers() {
        let (engine, seen) = engine(common::config(driver));
        let port = listen(&engine, &certificate).local_addr.port();
        for case in 0..count {
            let (alpn, number) = (PROTOCOLS[case % 2], case.to_string());
            let we = if case % 3 == 0 { We::Connect } else { We::Listen };
            let scenario = ["malformed", &number[..]];
            let peer = if we == We::Listen {
                Peer::client(port, &certificate, alpn, &scenario)
            } else {
                let peer = Peer::server(&certificate, alpn, &scenario);
                let config = connect(peer.port(), &certificate);
                engine
                    .post(
                        0,
                        Box::new(move |_, cx| {
                            cx.connect(&config).unwrap();
                        }),
                    )
                    .unwrap();
                peer
            };
            assert_eq!(peer.line(), format!("handshake TLSv1.3 {alpn}"));
            let expected = peer.line();
            let expected = expected.strip_prefix("expects ").unwrap();
            let reason = loop {
                match seen.recv_timeout(Duration::from_secs(20)).expect(expected) {
                    Saw::Status(Status::ProblemDetectedLocally, reason) => break reason.unwrap(),
                    Saw::Status(Status::Connected, None) | Saw::Incoming | Saw::Request(..) => {}
                    other => panic!("case {case}, {expected}: {other:?}"),
                }
            };
            assert_eq!(reason.reason, Reason::PROTOCOL, "case {case}");
            assert!(reason.text.contains(expected), "case {case}: {reason:?}, not {expected}");
            assert_eq!(peer.line(), "end close_notify fin", "case {case}: {expected}");
            while !matches!(seen.recv_timeout(Duration::from_secs(20)), Ok(Saw::Dead(_))) {}
        }
        wait_until("the end of everything", || engine.stats().connections() == 0);
    }
}

/// What is no client costs a bounded time and is counted; the application hears of none of it.
#[test]
fn strangers_are_shown_the_door_and_the_application_hears_of_the_good_client_only() {
    if !peer::is_possible() {
        return;
    }
    let initial = Duration::from_millis(1500);
    for driver in drivers() {
        let certificate = Certificate::new();
        let config = EngineConfig {
            connection: ConnectionConfig {
                initial_timeout: initial.into(),
                ..common::connection()
            },
            ..common::config(driver)
        };
        let (engine, seen) = engine(config);
        let port = listen(&engine, &certificate).local_addr.port();
        let strangers = Peer::client(port, &certificate, "-", &["strangers"]);
        let mut count = 0;
        for line in strangers.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let ["stranger", name, seconds, text] = words[..] else { panic!("{line}") };
            let took = Duration::from_secs_f64(seconds.parse().unwrap());
            let waits =
                ["silent", "half-hello", "trickle", "hello-only", "native-silent", "empty-records"];
            // Two seconds more: our end waits so long for theirs.
            assert!(took < initial + Duration::from_secs(4), "{line}");
            if waits.contains(&name) {
                assert!(took > initial.mul_f64(0.8) || name == "empty-records", "{line}");
            }
            match name {
                "unknown-alpn" => assert!(text.contains("application protocol"), "{line}"),
                "tls-1.2" => assert!(text.contains("PROTOCOL_VERSION"), "{line}"),
                "native-silent" => assert!(text.contains("EOF") || text == "fin", "{line}"),
                _ => assert!(text.starts_with("fin") || text.contains("Reset"), "{line}"),
            }
            count += 1;
        }
        assert_eq!(count, 15);
        let good = Peer::client(port, &certificate, "mux/0", &["bye", "clean"]);
        assert_eq!(good.lines_until_end().last().map(String::as_str), Some("end close_notify fin"));
        let mut incoming = 0;
        loop {
            match seen.recv_timeout(Duration::from_secs(20)).unwrap() {
                Saw::Incoming => incoming += 1,
                Saw::Dead(_) => break,
                _ => {}
            }
        }
        assert_eq!(incoming, 1, "one client was good");
        assert!(seen.try_recv().is_err(), "and nobody else is heard of");
        wait_until("the end of everything", || engine.stats().connections() == 0);
        let stats = engine.stats();
        let endpoint = stats.shards[0].endpoint;
        assert_eq!((endpoint.accepted, endpoint.failed_handshakes), (16, 15), "{endpoint:?}");
        assert_eq!(endpoint.refused, 0);
        assert_eq!((stats.total().connections_opened, stats.total().connections_closed), (1, 1));
    }
}

/// Bounds of connections, of handshakes and of one source hold for streams too.
#[test]
fn bounds_of_an_operator_hold_for_streams() {
    if !peer::is_possible() {
        return;
    }
    for driver in drivers() {
        let certificate = Certificate::new();
        let base = EngineConfig {
            connection: ConnectionConfig {
                initial_timeout: trunkline::Duration::from_secs(60),
                ..common::connection()
            },
            ..common::config(driver)
        };
        let hold = |engine: &Engine<App>, count: &str| {
            let port = listen(engine, &certificate).local_addr.port();
            let peer = Peer::client(port, &certificate, "-", &["hold", count]);
            assert_eq!(peer.line(), format!("holding {count}"));
            (port, peer)
        };

        // Connections.
        let config = EngineConfig { max_connections: 10, ..base.clone() };
        let (engine, _seen) = self::engine(config);
        let (_, peer) = hold(&engine, "30");
        wait_until("refusals", || engine.stats().shards[0].endpoint.refused == 20);
        assert_eq!(engine.stats().connections(), 10);
        drop((engine, peer));

        // Handshakes: those who have said nothing for longest make room, so that silence keeps
        // nobody out.
        let config = EngineConfig { max_handshakes: 8, ..base.clone() };
        let (engine, seen) = self::engine(config);
        let (port, peer) = hold(&engine, "40");
        wait_until("refusals", || engine.stats().shards[0].endpoint.refused == 32);
        assert!(engine.stats().connections() <= 8);
        let good = Peer::client(port, &certificate, "mux/0", &["bye", "clean"]);
        assert_eq!(good.lines_until_end().last().map(String::as_str), Some("end close_notify fin"));
        assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Ok(Saw::Incoming));
        drop((engine, peer));

        // One source.
        let config = EngineConfig { handshakes_per_source_per_s: 3, ..base.clone() };
        let (engine, _seen) = self::engine(config);
        let start = Instant::now();
        let (_, peer) = hold(&engine, "100");
        wait_until("refusals", || {
            let stats = engine.stats();
            stats.total().requests_limited + stats.shards[0].endpoint.accepted == 100
        });
        let allowed = 6 + 3 * (start.elapsed().as_secs() + 1);
        assert!(engine.stats().shards[0].endpoint.accepted <= allowed);
        drop((engine, peer));

        // Sources that are not wanted at all.
        let (engine, _seen) = self::engine(base);
        engine.set_deny(&["127.0.0.0/8".parse::<IpNet>().unwrap()]);
        let (_, peer) = hold(&engine, "5");
        assert_eq!(peer.line(), "ended 5");
        assert_eq!(engine.stats().total().requests_denied, 5);
        assert_eq!(engine.stats().shards[0].endpoint.accepted, 0);
    }
}

/// A listener that is closed takes nobody any more; who is connected stays.
#[test]
fn who_is_connected_survives_the_end_of_the_listener() {
    if !peer::is_possible() {
        return;
    }
    for driver in drivers() {
        let talk = Talk::new(We::Listen, driver, "mux/0", &["declines"]);
        assert_eq!(talk.peer.line(), "declined 5");
        assert_eq!(talk.peer.line(), "echoed still here");
        talk.engine.unlisten(talk.listener.unwrap(), false);
        wait_until("the listener's end", || {
            std::net::TcpStream::connect(("127.0.0.1", talk.port)).is_err()
        });
        talk.act(|app, cx| app.open(cx, "echo"));
        while !matches!(talk.next(), Saw::Ready(name) if name == "echo") {}
        talk.act(|app, cx| app.close(cx, None));
        assert_eq!(talk.peer.line(), "end close_notify fin");
        talk.until_dead();
    }
}
