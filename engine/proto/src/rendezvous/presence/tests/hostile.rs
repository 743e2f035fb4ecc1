//! Floods, forged sources, reflection, and answers to questions that were never asked.

use super::*;
use crate::crypto::rng::Rng;
use crate::limits::*;

fn v4(n: u64) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 | n as u32).into(), 40_000)
}

/// An answer to `nonce` from a device of this key and name.
fn forged(nonce: Nonce, key: [u8; 32], name: &str) -> Vec<u8> {
    let response = Response {
        nonce,
        leaving: false,
        salt: [0; 8],
        id_hash: [0; 16],
        peer: PeerId(key),
        protocol: VERSION,
        held_us: 0,
        port: 7470,
        device_type: DeviceType::Desktop,
        mode: Mode::Open,
        links: Links::UDP,
        service: "chess.example",
        name,
    };
    let mut buf = [0; MAX_MESSAGE_LEN];
    let len = response.write(None, &mut buf).unwrap();
    buf[..len].to_vec()
}

fn nonce_of(question: &[u8]) -> Nonce {
    match Message::parse(question).unwrap() {
        Message::Request(request) => request.nonce,
        Message::Response(_) => panic!("an answer"),
    }
}

/// Sends `count` questions a millisecond for `seconds`; gives the bytes sent and answered.
fn flood(
    host: &mut Host,
    seconds: u64,
    count: u64,
    mut from: impl FnMut(u64) -> Arrival,
) -> (usize, usize) {
    let (mut questions, mut answered, mut n) = (0, 0, 0u64);
    for t in 0..seconds * 1000 {
        for _ in 0..count {
            let mut question = plain_question(0, "");
            question[6..14].copy_from_slice(&n.to_be_bytes());
            questions += question.len();
            host.receive(at(t), from(n), &question);
            n += 1;
        }
        host.handle_timeout(at(t));
        answered += answers(host, at(t)).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    answered +=
        answers(host, at(seconds * 1000 + 1000)).iter().map(|(_, b)| b.len()).sum::<usize>();
    (questions, answered)
}

#[test]
fn a_flood_from_one_source_gets_the_rate_of_one_source() {
    let mut host = host(HostConfig::default(), announcement());
    flood(&mut host, 10, 20, |_| neighbour("10.0.0.9:40000"));
    let counts = host.counts();
    assert!((50..=61).contains(&counts.answered), "{counts:?}");
    assert_eq!(counts.rate_limited + counts.answered, 200_000);
}

#[test]
fn a_flood_from_one_address_with_many_ports_is_one_source() {
    let mut host = host(HostConfig::default(), announcement());
    flood(&mut host, 10, 20, |n| {
        let from = SocketAddr::new([10, 0, 0, 9].into(), 1024 + (n % 60_000) as u16);
        Arrival { from, interface: 3, multicast: true, on_link: true }
    });
    assert!((50..=61).contains(&host.counts().answered), "{:?}", host.counts());
}

#[test]
fn a_flood_from_forged_sources_stays_within_the_rate_and_the_tables() {
    let mut host = host(HostConfig::default(), announcement());
    let (questions, answered) = flood(&mut host, 10, 20, |n| Arrival {
        from: v4(n),
        interface: 3,
        multicast: true,
        on_link: true,
    });
    assert!((250..=600).contains(&host.counts().answered), "{:?}", host.counts());
    assert!(answered * 100 < questions, "{answered} for {questions}");
    assert!(host.sessions() <= MAX_PRESENCE_SESSIONS);
    // Those who talked to it before the flood are served during it.
    let mut host = self::host(HostConfig::default(), announcement());
    host.receive(at(0), neighbour("10.255.0.1:50000"), &plain_question(1, ""));
    let mut served = 0;
    for t in 0..60_000 {
        for k in 0..5 {
            let arrival = Arrival { from: v4(5 * t + k), ..neighbour("10.0.0.9:40000") };
            host.receive(at(t), arrival, &plain_question(2, ""));
        }
        if t % 10_000 == 9_999 {
            let mut mine = plain_question(3, "");
            mine[7] = (t / 1000) as u8;
            host.receive(at(t), neighbour("10.255.0.1:50000"), &mine);
        }
        let mine = answers(&mut host, at(t));
        served += mine.iter().filter(|(a, _)| a.to == addr("10.255.0.1:50000")).count();
    }
    assert!(served >= 6, "{served} of 7 answered during the flood");
}

#[test]
fn sources_that_no_client_has_are_not_answered() {
    let mut host =
        host(HostConfig { reach: Reach::Anywhere, ..Default::default() }, announcement());
    let forged = [
        "0.0.0.0:40000",
        "255.255.255.255:40000",
        "239.255.84.75:7477",
        "224.0.0.251:5353",
        "[ff02::fb]:5353",
        "[::]:40000",
        "[::ffff:224.0.0.1]:40000",
        // Services that would take the answer for a request.
        "10.0.0.9:53",
        "10.0.0.9:123",
        "10.0.0.9:0",
        "10.0.0.9:1023",
    ];
    for from in forged {
        for multicast in [false, true] {
            let arrival = Arrival { multicast, ..neighbour(from) };
            host.receive(at(0), arrival, &plain_question(1, ""));
        }
    }
    assert!(answers(&mut host, at(1000)).is_empty());
    assert_eq!(host.counts().wrong_source, 2 * forged.len() as u64);
    assert_eq!(host.sessions(), 0);
}

#[test]
fn the_group_is_answered_on_the_link_only_and_our_address_within_reach() {
    // (from, on link) → answered with reach Link, Site, Anywhere, when asked at our own address.
    let cases = [
        ("8.8.8.8:40000", false, [false, false, true]),
        ("192.168.200.1:40000", false, [false, true, true]),
        ("[fd00::1]:40000", false, [false, true, true]),
        ("[2001:db8::1]:40000", false, [false, false, true]),
        ("[2001:db8::1]:40000", true, [true, true, true]),
        ("100.64.0.1:40000", false, [false, false, true]),
    ];
    for (from, on_link, expected) in cases {
        for (reach, expected) in
            [Reach::Link, Reach::Site, Reach::Anywhere].into_iter().zip(expected)
        {
            let mut host = host(HostConfig { reach, ..Default::default() }, announcement());
            let arrival = Arrival { from: addr(from), interface: 0, multicast: false, on_link };
            host.receive(at(0), arrival, &plain_question(1, ""));
            assert_eq!(answers(&mut host, at(0)).len() == 1, expected, "{from} {reach:?}");
            let arrival = Arrival { multicast: true, ..arrival };
            host.receive(at(0), arrival, &plain_question(2, ""));
            assert_eq!(answers(&mut host, at(1000)).len() == 1, on_link, "{from} to the group");
        }
    }
}

#[test]
fn hosts_and_clients_cannot_be_set_upon_each_other() {
    // An answer that reaches a host, and a question that reaches a client, are answered by nobody.
    let mut host = host(HostConfig::default(), announcement());
    host.receive(at(0), neighbour("10.0.0.1:7477"), &forged([1; 16], [1; 32], "x"));
    assert!(answers(&mut host, at(1000)).is_empty());
    assert_eq!((host.counts().not_questions, host.sessions()), (1, 0));
    let mut client = client(ClientConfig::default());
    assert_eq!(client.receive(at(0), addr("10.0.0.1:7477"), &plain_question(1, "")), None);
    assert_eq!(client.counts().not_answers, 1);
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut client = client(ClientConfig::default());
    let (asked, bytes, _) = question(&mut client);
    let mut guess = nonce_of(&bytes);
    guess[15] ^= 1;
    for key in 0..=255 {
        client.receive(asked, v4(1), &forged(guess, [key; 32], "x"));
    }
    assert_eq!((client.counts().unasked, client.devices().count()), (256, 0));
    // The right nonce, but too late: the heartbeat has passed.
    let late = forged(nonce_of(&bytes), [1; 32], "x");
    assert_eq!(client.receive(asked + ms(35_001), v4(1), &late), None);
    assert!(client.receive(asked + ms(35_000), v4(1), &late).is_some());
}

#[test]
fn one_neighbour_cannot_fill_the_table() {
    let mut client = client(ClientConfig::default());
    let (asked, bytes, _) = question(&mut client);
    let nonce = nonce_of(&bytes);
    let honest = forged(nonce, [0xFF; 32], "honest");
    let key = |n: u64| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key
    };
    for n in 0..10_000 {
        client.receive(asked, v4(1), &forged(nonce, key(n), "x"));
    }
    assert_eq!(client.devices().count(), MAX_DEVICES_PER_SOURCE);
    assert_eq!(client.counts().full, 10_000 - MAX_DEVICES_PER_SOURCE as u64);
    assert!(client.receive(asked, v4(2), &honest).is_some());
    // Nor can many make it larger than it may be, or push out who is there.
    for n in 0..5_000 {
        client.receive(asked, v4(100 + n), &forged(nonce, key(20_000 + n), "x"));
    }
    assert_eq!(client.devices().count(), MAX_PRESENCE_DEVICES);
    assert!(client.devices().any(|d| d.name == "honest"));
    // Nor can others pretend to be a known device from so many addresses that its own is lost.
    for n in 0..100 {
        client.receive(asked, v4(9_000 + n), &honest);
    }
    let device = client.devices().find(|d| d.name == "honest").unwrap();
    assert_eq!(device.paths.len(), MAX_DEVICE_ADDRESSES);
    assert_eq!(device.paths[0].address.ip(), v4(2).ip());
    // All of it is forgotten when it is not confirmed.
    client.handle_timeout(asked + ms(35_000), |_| {});
    assert_eq!(client.devices().count(), 0);
}

#[test]
fn pending_answers_are_bounded_and_a_repeated_question_is_one() {
    let config = HostConfig {
        answers_per_second: 10_000,
        answers_per_source: 10_000,
        spread: ms(1000),
        ..Default::default()
    };
    let mut host = host(config, announcement());
    for _ in 0..10 {
        host.receive(at(0), neighbour("10.0.0.9:40000"), &plain_question(7, ""));
    }
    assert_eq!(host.counts().repeated, 9);
    for n in 0..1000u64 {
        let mut question = plain_question(0, "");
        question[6..14].copy_from_slice(&n.to_be_bytes());
        host.receive(at(0), neighbour("10.0.0.9:40000"), &question);
    }
    assert_eq!(host.counts().full, 1000 - MAX_PENDING_ANSWERS as u64 + 1);
    assert_eq!(answers(&mut host, at(1000)).len(), MAX_PENDING_ANSWERS);
}

#[test]
fn guesses_of_an_id_are_limited_like_questions() {
    let id = DeviceId::new(b"1234").unwrap();
    let config = HostConfig { answers: Answers::ThoseWhoKnowTheId, ..Default::default() };
    let mut host = host(config, Announcement { id: Some(id), ..announcement() });
    for n in 0..10_000u64 {
        let guess = DeviceId::new(n.to_string().as_bytes()).unwrap();
        let nonce = [7; 16];
        let wanted = Some(Request::wanted_hash(&guess, &nonce));
        let mut buf = [0; MAX_MESSAGE_LEN];
        let len = Request { nonce, wanted, service: "" }.write(&mut buf).unwrap();
        host.receive(at(n / 10), neighbour("10.0.0.9:40000"), &buf[..len]);
    }
    // Ten at once and five a second.
    assert_eq!(host.counts().not_for_us, 14);
    assert_eq!(host.counts().answered, 0);
}

#[test]
fn farewells_are_bounded() {
    let config = HostConfig { answers_per_second: 10_000, ..Default::default() };
    let mut host = host(config, announcement());
    for n in 0..3000 {
        let arrival = Arrival { from: v4(n), ..neighbour("10.0.0.9:40000") };
        host.receive(at(n), arrival, &plain_question(1, ""));
        answers(&mut host, at(n) + ms(100));
    }
    assert_eq!(host.sessions(), MAX_PRESENCE_SESSIONS);
    host.withdraw(at(4000));
    let told = answers(&mut host, at(4000));
    assert_eq!(told.len(), MAX_FAREWELLS);
    assert_eq!(told[0].0.to, v4(2999), "those who asked last");
}

/// Noise of every kind, at both, for long: nothing panics, nothing grows.
#[test]
fn noise_of_every_kind_does_no_harm() {
    for seed in 0..20u8 {
        let mut rng = Rng::from_seed([seed; 32]);
        let mut client = client(ClientConfig::default());
        let mut host = host(HostConfig::default(), announcement());
        let mut last = plain_question(1, "");
        let mut buf = [0; MAX_MESSAGE_LEN];
        for t in 0..3000 {
            let now = at(10 * t);
            client.handle_timeout(now, |_| {});
            host.handle_timeout(now);
            while let Some(question) = client.poll_transmit(now, &mut buf) {
                last = buf[..question.len].to_vec();
            }
            let mut datagram = match rng.below(4) {
                0 => last.clone(),
                1 => forged(nonce_of(&last), rng.array(), "noise"),
                2 => rng.array::<300>().to_vec(),
                _ => {
                    let mut noise = rng.array::<256>().to_vec();
                    noise[..6].copy_from_slice(&[0x0B, b'T', b'K', b'P', 1, 1 + (t % 2) as u8]);
                    noise
                }
            };
            for _ in 0..rng.below(3) {
                let at = rng.below(datagram.len() as u64) as usize;
                datagram[at] ^= 1 << rng.below(8);
            }
            datagram.truncate(rng.below(2 * datagram.len() as u64) as usize);
            let from = v4(rng.below(50));
            client.receive(now, from, &datagram);
            let arrival = Arrival { from, ..neighbour("10.0.0.9:40000") };
            host.receive(now, arrival, &datagram);
            answers(&mut host, now);
        }
        assert!(client.devices().count() <= MAX_PRESENCE_DEVICES);
        assert!(host.sessions() <= 50 && host.counts().malformed > 0);
        for device in client.devices() {
            assert!(!device.paths.is_empty() && device.paths.len() <= MAX_DEVICE_ADDRESSES);
        }
    }
}
