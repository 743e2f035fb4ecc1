//! Messages: fixed bytes, round trips, and everything that is not a message.

use super::super::wire::{MAGIC, check_name, check_service};
use super::*;
use crate::limits::*;
use crate::wire::packet;
use proptest::prelude::*;

fn sample() -> Response<'static> {
    Response {
        nonce: [0xA0; 16],
        leaving: false,
        salt: [0xB0; 8],
        id_hash: [0xC0; 16],
        peer: peer(0xD0),
        protocol: VERSION,
        held_us: 0x0102_0304,
        port: 7470,
        device_type: DeviceType::Console,
        mode: Mode::Known,
        links: Links::UDP.and(Links::TLS),
        service: "chess",
        name: "Küche",
    }
}

fn written(response: &Response<'_>, id: Option<&DeviceId>) -> Vec<u8> {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let len = response.write(id, &mut buf).unwrap();
    buf[..len].to_vec()
}

#[test]
fn a_question_byte_for_byte() {
    let mut buf = [0xFF; MAX_MESSAGE_LEN];
    let request = Request { nonce: [9; 16], wanted: Some([8; 16]), service: "chess" };
    assert_eq!(request.write(&mut buf), Some(256));
    let mut expected = vec![0x0B, b'T', b'K', b'P', 1, 1];
    expected.extend([9; 16]);
    expected.push(1);
    expected.extend([8; 16]);
    expected.push(5);
    expected.extend(b"chess");
    expected.resize(256, 0);
    assert_eq!(buf[..256], expected);
    assert_eq!(Message::parse(&expected), Ok(Message::Request(request)));
}

#[test]
fn an_answer_byte_for_byte() {
    let mut expected = vec![0x0B, b'T', b'K', b'P', 1, 2];
    expected.extend([0xA0; 16]);
    expected.push(0);
    expected.extend([0xB0; 8]);
    expected.extend([0xC0; 16]);
    expected.extend([0xD0; 32]);
    expected.extend(VERSION.to_be_bytes());
    expected.extend([1, 2, 3, 4]);
    expected.extend(7470u16.to_be_bytes());
    expected.extend([6, 1, 3]);
    expected.push(5);
    expected.extend(b"chess");
    expected.push(6);
    expected.extend("Küche".as_bytes());
    assert_eq!(written(&sample(), None), expected);
    assert_eq!(Message::parse(&expected), Ok(Message::Response(sample())));
}

/// The test vector of docs/presence.md.
#[test]
fn hashes_of_ids_are_those_of_the_document() {
    let id = DeviceId::new(b"correct horse battery staple").unwrap();
    let hash = Request::wanted_hash(&id, &[9; 16]);
    let hex = |bytes: &[u8]| {
        use std::fmt::Write as _;
        bytes.iter().fold(String::new(), |mut text, b| {
            let _ = write!(text, "{b:02x}");
            text
        })
    };
    let document = include_str!("../../../../../../docs/presence.md");
    let answer = hex(&written(&sample(), Some(&id)));
    let shown: String = document.split_whitespace().collect();
    assert!(shown.contains(&hex(&hash)), "question: {}", hex(&hash));
    assert!(shown.contains(&answer), "answer: {answer}");
}

#[test]
fn the_magic_is_nobody_elses() {
    // Not a packet of a connection, and the endpoint drops it (neither short nor long).
    assert!(!packet::is_short(MAGIC[0]) && !packet::is_long(MAGIC[0]));
    // STUN 0–3, ZRTP 16–19, DTLS 20–63, TURN 64–79, RTP 128–191 (RFC 7983).
    assert!((4..16).contains(&MAGIC[0]));
    // Read as DNS: opcode and response bit are in byte 2. mDNS ignores opcodes other than 0.
    assert_ne!(MAGIC[2] >> 3 & 0x0F, 0);
    // What others send is no presence message.
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    let mdns = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 5];
    let short = [0x40; 64];
    let ssdp = b"M-SEARCH * HTTP/1.1\r\n";
    for other in [&stun[..], &mdns, &short, ssdp, b"", &MAGIC[..3]] {
        assert_eq!(Message::parse(other), Err(PresenceDrop::NotPresence));
    }
}

#[test]
fn an_answer_is_never_larger_than_its_question() {
    let name = "n".repeat(MAX_PRESENCE_NAME);
    let service = "s".repeat(MAX_PRESENCE_SERVICE);
    let longest = Response { name: &name, service: &service, ..sample() };
    let answer = written(&longest, None);
    let mut buf = [0; MAX_MESSAGE_LEN];
    let shortest = Request { nonce: [0; 16], wanted: None, service: "" };
    let question = shortest.write(&mut buf).unwrap();
    assert!(answer.len() <= MAX_PRESENCE_RESPONSE && answer.len() <= question, "{}", answer.len());
    // With the farewell: two answers.
    assert!(2 * answer.len() < 3 * question);
    // A question that was cut short is not one.
    assert_eq!(Message::parse(&buf[..question - 1]), Err(PresenceDrop::Undersize));
}

#[test]
fn every_way_to_be_malformed_has_its_name() {
    let good = written(&sample(), None);
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        Message::parse(&bad).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(0, 0x0C), PresenceDrop::NotPresence);
    assert_eq!(with(4, 2), PresenceDrop::Version(2));
    assert_eq!(with(5, 3), PresenceDrop::Type(3));
    assert_eq!(with(91, 0), PresenceDrop::Malformed("links"));
    assert_eq!(with(92, 0), PresenceDrop::Malformed("service"));
    assert_eq!(with(93, b' '), PresenceDrop::Malformed("service"));
    assert_eq!(with(93, 0xFF), PresenceDrop::Malformed("service"));
    assert_eq!(with(99, 0x1B), PresenceDrop::Malformed("name"));
    assert_eq!(with(99, 0xFF), PresenceDrop::Malformed("name"));
    assert_eq!(with(92, 255), PresenceDrop::Truncated);
    let mut no_port = good.clone();
    no_port[87..89].fill(0);
    assert_eq!(Message::parse(&no_port), Err(PresenceDrop::Malformed("port")));
    let mut long = good.clone();
    long.resize(MAX_PRESENCE_RESPONSE, 0);
    assert!(Message::parse(&long).is_ok(), "padding is allowed");
    long.push(0);
    assert_eq!(Message::parse(&long), Err(PresenceDrop::Oversize));
    let mut question = plain_question(1, "");
    question.resize(MAX_PRESENCE_REQUEST, 0);
    assert!(Message::parse(&question).is_ok());
    question.push(0);
    assert_eq!(Message::parse(&question), Err(PresenceDrop::Oversize));
    for cut in 0..good.len() {
        assert!(Message::parse(&good[..cut]).is_err(), "cut to {cut}");
    }
}

#[test]
fn what_later_versions_add_is_skipped() {
    let mut later = written(&sample(), None);
    later.extend([200, 3, 1, 2, 3, 17, 0]);
    assert_eq!(Message::parse(&later), Ok(Message::Response(sample())));
    // Padding after it.
    let mut padded = later.clone();
    padded.extend([0; 9]);
    assert_eq!(Message::parse(&padded), Ok(Message::Response(sample())));
    padded.push(1);
    assert_eq!(Message::parse(&padded), Err(PresenceDrop::Malformed("padding")));
    later.extend([9, 200]);
    assert_eq!(Message::parse(&later), Err(PresenceDrop::Truncated));
    // Types and modes that have no name keep their number; unknown flags are not looked at.
    let mut unknown = written(&sample(), None);
    (unknown[22], unknown[89], unknown[90]) = (0xFE, 99, 98);
    let parsed = response(&unknown);
    assert_eq!((parsed.device_type, parsed.mode), (DeviceType::Other(99), Mode::Other(98)));
    assert!(!parsed.leaving);
}

#[test]
fn names_cannot_move_a_cursor_or_turn_the_direction() {
    for good in ["a", "Küche 2", "名前", "a\u{00a0}b", &"x".repeat(63)] {
        assert!(check_name(good), "{good:?}");
    }
    let long = "x".repeat(64);
    for bad in ["", " ", "a\nb", "\u{1b}[2J", "a\u{202e}b", "a\u{2066}b", "\u{7f}", "\u{85}", &long]
    {
        assert!(!check_name(bad), "{bad:?}");
    }
    assert!(check_service("") && check_service("a.B-c_9"));
    for bad in ["a b", "a/b", "ä", "a\0", &long] {
        assert!(!check_service(bad), "{bad:?}");
    }
}

#[test]
fn an_id_is_found_by_those_who_know_it_and_read_by_nobody() {
    let id = DeviceId::new(b"0123456789abcdef").unwrap();
    let other = DeviceId::new(b"0123456789abcdeg").unwrap();
    let answer = written(&sample(), Some(&id));
    assert!(Response::proves(&answer, &id) && !Response::proves(&answer, &other));
    assert!(!answer.windows(4).any(|w| b"0123456789abcdef".windows(4).any(|i| i == w)));
    assert!(!format!("{id:?}").contains("0123"));
    // Everything that the answer says is covered.
    for at in 0..answer.len() {
        let mut forged = answer.clone();
        forged[at] ^= 1;
        assert!(!Response::proves(&forged, &id), "byte {at}");
    }
    // Another salt, another question: another hash.
    let hash = |r: &Response<'_>| response(&written(r, Some(&id))).id_hash;
    assert_ne!(hash(&sample()), hash(&Response { salt: [1; 8], ..sample() }));
    assert_ne!(hash(&sample()), hash(&Response { nonce: [1; 16], ..sample() }));
    assert_ne!(Request::wanted_hash(&id, &[1; 16]), Request::wanted_hash(&id, &[2; 16]));
    assert!(DeviceId::new(b"").is_err() && DeviceId::new(&[0; 65]).is_err());
    assert!(DeviceId::new(&[0; 64]).is_ok());
}

#[test]
fn types_and_modes_have_names_and_numbers() {
    for code in 0..=255 {
        assert_eq!(DeviceType::from_code(code).code(), code);
        assert_eq!(Mode::from_code(code).code(), code);
        if code < 10 {
            let t = DeviceType::from_code(code);
            assert_eq!(t.to_string().parse::<DeviceType>().unwrap(), t);
        }
        if code < 4 {
            let m = Mode::from_code(code);
            assert_eq!(m.to_string().parse::<Mode>().unwrap(), m);
        }
    }
    assert_eq!(DeviceType::Other(77).to_string(), "type 77");
    assert_eq!(format!("{:8}|", Mode::Busy), "busy    |");
    assert!("toaster".parse::<DeviceType>().is_err());
}

fn any_service() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,63}"
}

fn any_name() -> impl Strategy<Value = String> {
    "[ -~äöü名]{1,20}".prop_filter("more than spaces", |s| !s.trim().is_empty())
}

proptest! {
    #[test]
    fn requests_come_back_as_they_were(
        nonce: [u8; 16],
        wanted: Option<[u8; 16]>,
        service in "[A-Za-z0-9._-]{0,63}",
    ) {
        let request = Request { nonce, wanted, service: &service };
        let mut buf = [0xEE; MAX_MESSAGE_LEN];
        let len = request.write(&mut buf).unwrap();
        prop_assert_eq!(Message::parse(&buf[..len]), Ok(Message::Request(request)));
    }

    #[test]
    fn responses_come_back_as_they_were(
        nonce: [u8; 16],
        leaving: bool,
        salt: [u8; 8],
        id_hash: [u8; 16],
        key: [u8; 32],
        protocol: u32,
        held_us: u32,
        port in 1u16..,
        device_type: u8,
        mode: u8,
        links in 1u8..,
        service in any_service(),
        name in any_name(),
    ) {
        let response = Response {
            nonce, leaving, salt, id_hash, peer: PeerId(key), protocol, held_us, port,
            device_type: DeviceType::from_code(device_type),
            mode: Mode::from_code(mode),
            links: Links(links),
            service: &service,
            name: &name,
        };
        let bytes = written(&response, None);
        prop_assert_eq!(Message::parse(&bytes), Ok(Message::Response(response)));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(tail: Vec<u8>, kind in 0u8..4) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, kind]);
        bytes.extend(&tail);
        let _ = Message::parse(&bytes);
        bytes.resize(bytes.len().max(256), 0);
        let _ = Message::parse(&bytes);
    }

    /// What is taken is within the bounds, and writing it gives something that says the same.
    #[test]
    fn what_a_damaged_message_still_says_is_valid(at in 6usize..220, value: u8, at2 in 6usize..220, value2: u8) {
        let mut bytes = written(&sample(), None);
        for (at, value) in [(at, value), (at2, value2)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(Message::Response(parsed)) = Message::parse(&bytes) {
            prop_assert!(check_name(parsed.name) && check_service(parsed.service));
            prop_assert!(!parsed.service.is_empty() && parsed.port != 0);
            let again = written(&parsed, None);
            prop_assert_eq!(Message::parse(&again), Ok(Message::Response(parsed)));
        }
    }
}
