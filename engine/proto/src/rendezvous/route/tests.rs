//! The finder by itself: its messages, what strangers may do to it, and what it remembers. Whole
//! searches between peers behind translators are in `tests/routes`.

use super::*;
use crate::rendezvous::stun::{MAX_ANSWER, StunConfig, StunServer};
use proptest::prelude::*;

const KEY: [u8; 32] = [7; 32];
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 3478);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms)
}

fn finder(role: Role, key: [u8; 32]) -> RouteFinder {
    let epoch = std::time::Instant::now();
    RouteFinder::new(at(0), epoch, role, key, [role as u8 + 1; 32], RouteConfig::default())
}

fn outputs(finder: &mut RouteFinder) -> Vec<RouteOutput> {
    std::iter::from_fn(|| finder.poll()).collect()
}

fn events(finder: &mut RouteFinder) -> Vec<Vec<u8>> {
    let event = |output| match output {
        RouteOutput::Event(body) => Some(body),
        _ => None,
    };
    outputs(finder).into_iter().filter_map(event).collect()
}

/// Lets time pass, with everything that is due.
fn run(finder: &mut RouteFinder, from: u64, to: u64) {
    let mut now = at(from);
    while finder.next_timeout() <= at(to) {
        now = now.max(finder.next_timeout());
        finder.handle_timeout(now);
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn example() -> Message {
    Message {
        generation: 1,
        revision: 2,
        seen: 300,
        wanted: true,
        candidates: vec![
            Told { reflexive: true, addr: addr("198.51.100.1:40001"), priority: 1_694_498_815 },
            Told { reflexive: false, addr: addr("[2001:db8::1]:7000"), priority: 2_130_706_431 },
        ],
    }
}

#[test]
fn the_vector_of_the_document_holds() {
    let body = example().encode(Role::Client, &KEY);
    let document = include_str!("../../../../../docs/routes.md");
    assert!(document.contains(&hex(&body)), "docs/routes.md lacks {}", hex(&body));
    assert_eq!(Message::decode(&body, Role::Client, &KEY).unwrap(), example());
    let key = crate::crypto::route_key(&[1; 32]);
    assert!(document.contains(&hex(&key)), "docs/routes.md lacks {}", hex(&key));
}

#[test]
fn only_the_other_side_of_the_connection_is_believed() {
    let body = example().encode(Role::Client, &KEY);
    assert_eq!(Message::decode(&body, Role::Host, &KEY), Err(RouteError::Forged), "sent back");
    assert_eq!(Message::decode(&body, Role::Client, &[8; 32]), Err(RouteError::Forged));
    for bit in 0..body.len() * 8 {
        let mut forged = body.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(Message::decode(&forged, Role::Client, &KEY).is_err(), "bit {bit}");
    }
    for len in 0..body.len() {
        assert!(Message::decode(&body[..len], Role::Client, &KEY).is_err(), "{len} bytes");
    }
}

#[test]
fn what_a_peer_may_tell_is_bounded() {
    let mut message = example();
    let told = message.candidates[0];
    message.candidates = vec![told; MAX_ROUTE_CANDIDATES];
    assert!(Message::decode(&message.encode(Role::Host, &KEY), Role::Host, &KEY).is_ok());
    message.candidates = vec![told; MAX_ROUTE_CANDIDATES + 1];
    let body = message.encode(Role::Host, &KEY);
    let refused = Message::decode(&body, Role::Host, &KEY);
    assert_eq!(refused, Err(RouteError::Malformed("too many candidates")));
}

#[test]
fn the_list_is_repeated_until_it_is_confirmed() {
    let (mut a, mut b) = (finder(Role::Client, KEY), finder(Role::Host, KEY));
    a.set_locals(at(0), &[(0, addr("10.0.0.1:1000"))]);
    run(&mut a, 0, 20_000);
    let told = events(&mut a);
    // After 20 ms, then 500 ms doubling to 8 s.
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(told.iter().all(|body| *body == told[0]));
    b.set_locals(at(20_000), &[(0, addr("10.0.0.2:2000"))]);
    b.on_event(at(20_000), &told[0]).unwrap();
    run(&mut b, 20_000, 20_100);
    let answers = events(&mut b);
    assert_eq!(answers.len(), 1, "its own list confirms ours");
    a.on_event(at(20_100), &answers[0]).unwrap();
    run(&mut a, 20_100, 20_400);
    let confirmations = events(&mut a);
    assert_eq!(confirmations.len(), 1);
    b.on_event(at(20_400), &confirmations[0]).unwrap();
    run(&mut a, 20_400, 90_000);
    run(&mut b, 20_400, 90_000);
    assert!(events(&mut a).is_empty() && events(&mut b).is_empty(), "and that is all");
}

#[test]
fn repeated_events_draw_few_answers() {
    let (mut a, mut b) = (finder(Role::Client, KEY), finder(Role::Host, KEY));
    a.set_locals(at(0), &[(0, addr("10.0.0.1:1000"))]);
    run(&mut a, 0, 100);
    let told = events(&mut a);
    for i in 0..1_000 {
        b.on_event(at(i), &told[0]).unwrap();
        b.handle_timeout(at(i));
    }
    let answers = events(&mut b).len();
    assert!(answers <= 5, "{answers} answers in a second");
}

#[test]
fn a_search_that_began_anew_makes_the_old_one_stale() {
    let (mut a, mut b) = (finder(Role::Client, KEY), finder(Role::Host, KEY));
    a.set_locals(at(0), &[(0, addr("10.0.0.1:1000"))]);
    run(&mut a, 0, 100);
    let old = events(&mut a);
    a.set_locals(at(100), &[(0, addr("10.0.7.1:1000"))]);
    run(&mut a, 100, 200);
    let new = events(&mut a);
    b.on_event(at(200), &new[0]).unwrap();
    assert_eq!(b.on_event(at(201), &old[0]), Err(RouteError::Stale));
    // The other side goes along, and says so.
    b.set_locals(at(210), &[(0, addr("10.0.0.2:2000"))]);
    run(&mut b, 210, 600);
    for body in events(&mut b) {
        a.on_event(at(600), &body).unwrap();
    }
    assert_eq!(a.generation, b.generation);
}

#[test]
fn an_event_source_says_where_we_are_seen() {
    let mut a = finder(Role::Client, KEY);
    let mut server = StunServer::new(StunConfig::default(), at(0));
    let own = addr("10.0.0.1:1000");
    a.set_locals(at(0), &[(3, own)]);
    a.set_servers(at(0), &[addr("[2001:db8::9]:3478"), SERVER]);
    let asked: Vec<RouteOutput> = outputs(&mut a);
    let [RouteOutput::Stun { socket: 3, local, remote, packet }] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!((*local, *remote), (own, SERVER), "the server of the same family");
    let mut out = [0; MAX_ANSWER];
    let len = server.receive(at(0), packet, addr("198.51.100.1:40001"), &mut out).unwrap();
    let stranger = addr("192.0.2.7:3478");
    let before = a.revision;
    a.on_stun(at(10), 3, None, stranger, &out[..len]);
    assert_eq!(a.revision, before, "somebody else answered");
    assert!(!a.on_stun(at(10), 4, None, SERVER, &out[..len]), "on another socket");
    assert!(a.on_stun(at(10), 3, None, SERVER, &out[..len]));
    assert_eq!(a.locals[0].seen.map(|s| s.0), Some(addr("198.51.100.1:40001")));
    assert!(!a.on_stun(at(11), 3, None, SERVER, &out[..len]), "answered once");
    run(&mut a, 10, 40);
    let told = events(&mut a);
    let message = Message::decode(&told[0], Role::Client, &KEY).unwrap();
    let addrs: Vec<_> = message.candidates.iter().map(|c| (c.reflexive, c.addr)).collect();
    assert_eq!(addrs, [(true, addr("198.51.100.1:40001")), (false, own)]);
    assert!(message.candidates[0].priority < message.candidates[1].priority);
}

#[test]
fn an_event_source_that_is_silent_is_asked_in_rounds() {
    let mut a = finder(Role::Client, KEY);
    a.set_locals(at(0), &[(0, addr("10.0.0.1:1000"))]);
    a.set_servers(at(0), &[SERVER]);
    run(&mut a, 0, 60_000);
    let asked = outputs(&mut a)
        .into_iter()
        .filter(|o| matches!(o, RouteOutput::Stun { remote, .. } if *remote == SERVER))
        .count();
    // 250 + 500 + 1000 + 2000 + 4000 ms, then 15 s of silence.
    assert!((11..=15).contains(&asked), "{asked} questions in a minute");
}

#[test]
fn checks_of_another_connection_are_left_to_its_finder() {
    let other = [9; 32];
    let mut a = finder(Role::Client, KEY);
    let mut b = finder(Role::Host, KEY);
    let mut stranger = finder(Role::Host, other);
    for (finder, at_addr) in
        [(&mut a, "10.0.0.1:1"), (&mut b, "10.0.0.2:2"), (&mut stranger, "10.0.0.2:2")]
    {
        finder.set_locals(at(0), &[(0, addr(at_addr))]);
    }
    run(&mut b, 0, 100);
    for body in events(&mut b) {
        a.on_event(at(100), &body).unwrap();
    }
    run(&mut a, 100, 400);
    let mut checks = 0;
    for output in outputs(&mut a) {
        let RouteOutput::Stun { packet, remote, .. } = output else { continue };
        assert_eq!(remote, addr("10.0.0.2:2"));
        assert!(!stranger.on_stun(at(400), 0, None, addr("10.0.0.1:1"), &packet));
        assert!(b.on_stun(at(400), 0, None, addr("10.0.0.1:1"), &packet));
        checks += 1;
    }
    assert!(checks > 0);
}

#[test]
fn what_is_remembered_of_addresses_is_bounded() {
    let (mut a, mut b) = (finder(Role::Client, KEY), finder(Role::Host, KEY));
    a.set_locals(at(0), &[(0, addr("10.0.0.1:1"))]);
    b.set_locals(at(0), &[(0, addr("10.0.0.2:2"))]);
    // A peer that tells new addresses without end.
    for revision in 1..500u32 {
        let told = (0..MAX_ROUTE_CANDIDATES as u32).map(|i| {
            let [_, x, y, z] = (revision * 16 + i).to_be_bytes();
            Told { reflexive: false, addr: ([11, x, y, z], 9).into(), priority: i + 1 }
        });
        let candidates = told.collect();
        let message = Message { generation: 0, revision, seen: 0, wanted: true, candidates };
        let body = message.encode(Role::Host, &KEY);
        a.on_event(at(u64::from(revision)), &body).unwrap();
        assert!(a.out.len() <= MAX_OUTPUTS);
    }
    let remote: std::collections::BTreeSet<SocketAddr> = outputs(&mut a)
        .into_iter()
        .filter_map(|o| match o {
            RouteOutput::Stun { remote, .. } => Some(remote),
            _ => None,
        })
        .collect();
    assert!(remote.len() <= crate::limits::MAX_ROUTE_ADDRESSES, "{} addresses", remote.len());
    // Checks that are sent on from everywhere.
    let body = {
        run(&mut b, 0, 100);
        events(&mut b).remove(0)
    };
    let mut c = finder(Role::Client, KEY);
    c.set_locals(at(0), &[(0, addr("10.0.0.1:1"))]);
    c.on_event(at(100), &body).unwrap();
    run(&mut c, 100, 500);
    let check = outputs(&mut c).into_iter().find_map(|o| match o {
        RouteOutput::Stun { packet, .. } => Some(packet),
        _ => None,
    });
    let check = check.expect("a check");
    let mut answered = 0;
    for i in 0..10_000u32 {
        let [_, x, y, z] = i.to_be_bytes();
        b.on_stun(at(500), 0, None, ([12, x, y, z], 9).into(), &check);
        let replies = outputs(&mut b);
        answered += replies.len();
    }
    assert!(answered <= 200, "{answered} packets for one check from everywhere");
}

#[test]
fn outputs_that_nobody_takes_are_bounded() {
    let mut a = finder(Role::Client, KEY);
    let locals: Vec<_> = (0..40u8).map(|i| (0, SocketAddr::from(([10, 0, 1, i], 1)))).collect();
    a.set_locals(at(0), &locals);
    assert_eq!(a.locals.len(), MAX_ROUTE_CANDIDATES);
    a.set_servers(at(0), &[SERVER]);
    run(&mut a, 0, 600_000);
    assert!(a.out.len() <= MAX_OUTPUTS, "{}", a.out.len());
    let longest = outputs(&mut a).into_iter().map(|o| match o {
        RouteOutput::Event(body) => body.len(),
        _ => 0,
    });
    assert!(longest.max().unwrap_or_default() <= crate::limits::MAX_EVENT_BODY);
}

proptest! {
    #[test]
    fn bodies_come_back(
        generation: u32, revision: u32, seen: u32, wanted: bool, host: bool,
        raw in prop::collection::vec((any::<bool>(), any::<[u8; 16]>(), any::<bool>(), any::<u16>(), any::<u32>()), 0..=MAX_ROUTE_CANDIDATES),
    ) {
        let candidates = raw.into_iter().map(|(reflexive, octets, v4, port, priority)| {
            let ip: IpAddr = if v4 {
                IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
            } else {
                IpAddr::from(octets)
            };
            Told { reflexive, addr: SocketAddr::new(ip, port), priority }
        }).collect();
        let message = Message { generation, revision, seen, wanted, candidates };
        let role = if host { Role::Host } else { Role::Client };
        let body = message.encode(role, &KEY);
        prop_assert!(body.len() <= crate::limits::MAX_EVENT_BODY);
        prop_assert_eq!(Message::decode(&body, role, &KEY), Ok(message));
    }

    /// Under the right key, as only the peer has it: refused or taken, within the bounds, and the
    /// search goes on.
    #[test]
    fn any_body_of_the_peer_is_taken_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(), whole: bool,
    ) {
        let mut bytes = example().encode(Role::Host, &KEY);
        bytes.truncate(bytes.len() - 18);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY), &bytes);
        bytes.extend([0xc4, 16]);
        bytes.extend(&tag.as_ref()[..16]);
        let mut a = finder(Role::Client, KEY);
        a.set_locals(at(0), &[(0, addr("10.0.0.1:1"))]);
        let before = a.generation;
        if a.on_event(at(0), &bytes).is_err() {
            prop_assert_eq!((a.generation, a.peer_revision), (before, 0));
        }
        run(&mut a, 0, 2_000);
        prop_assert!(outputs(&mut a).len() <= MAX_OUTPUTS);
        prop_assert!(a.next_timeout() > at(2_000));
    }

    #[test]
    fn any_stun_packet_is_taken_or_left(
        first in 0u8..4, second in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..200),
        cookie: bool,
    ) {
        let mut a = finder(Role::Client, KEY);
        a.set_locals(at(0), &[(0, addr("10.0.0.1:1"))]);
        a.set_servers(at(0), &[SERVER]);
        let mut packet = vec![first, second];
        packet.extend((rest.len().saturating_sub(16) as u16).to_be_bytes());
        if cookie {
            packet.extend([0x21, 0x12, 0xA4, 0x42]);
        }
        packet.extend(&rest);
        prop_assert!(!a.on_stun(at(1), 0, None, SERVER, &packet));
        prop_assert!(a.locals[0].seen.is_none());
    }
}
