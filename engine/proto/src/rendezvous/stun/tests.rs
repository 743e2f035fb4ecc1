//! Against the vectors of RFC 5769, and against everything else that may arrive.

use super::*;
use crate::time::Duration;
use proptest::prelude::*;

/// The transaction id of the examples of RFC 5769.
const TRANSACTION: [u8; 12] =
    [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

fn server() -> StunServer {
    StunServer::new(StunConfig::default(), Instant::ZERO)
}

/// A request with these attributes, and a fingerprint if wanted.
fn request(attributes: &[u8], fingerprint: bool) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0];
    bytes.extend(MAGIC_COOKIE);
    bytes.extend(TRANSACTION);
    bytes.extend(attributes);
    let length = bytes.len() - HEADER + if fingerprint { FINGERPRINT_LEN } else { 0 };
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    if fingerprint {
        let crc = crc32(&bytes) ^ FINGERPRINT_XOR;
        bytes.extend([0x80, 0x28, 0, 4]);
        bytes.extend(crc.to_be_bytes());
    }
    bytes
}

fn ask(datagram: &[u8], from: &str) -> Result<Vec<u8>, StunError> {
    let mut out = [0; MAX_ANSWER];
    let from = from.parse().unwrap();
    let length = server().receive(Instant::ZERO, datagram, from, &mut out)?;
    Ok(out[..length].to_vec())
}

#[test]
fn the_addresses_of_rfc_5769_are_written_as_there() {
    // §2.2 and §2.3: the values of XOR-MAPPED-ADDRESS.
    let answer = ask(&request(&[], false), "192.0.2.1:32853").unwrap();
    assert_eq!(answer[..4], [1, 1, 0, 12]);
    assert_eq!(answer[4..8], MAGIC_COOKIE);
    assert_eq!(answer[8..20], TRANSACTION);
    let v4 = [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
    assert_eq!(answer[20..], v4);
    let answer = ask(&request(&[], false), "[2001:db8:1234:5678:11:2233:4455:6677]:32853").unwrap();
    let v6 = [
        0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1,
        0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
    ];
    assert_eq!(answer[20..], v6);
}

#[test]
fn the_fingerprint_of_rfc_5769_is_checked() {
    // §2.1: a request with credentials, which is for a peer and not for us; its fingerprint is
    // what the check value of the CRC gives.
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    let sample = [
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6,
        0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74,
        0x65, 0x73, 0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e,
        0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36,
        0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20,
        0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e,
        0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5,
        0x7a, 0x3b, 0xcf,
    ];
    assert_eq!(crc32(&sample[..sample.len() - 8]) ^ FINGERPRINT_XOR, 0xe57a_3bcf);
    assert_eq!(ask(&sample, "192.0.2.1:1"), Err(StunError::NotForUs));
}

#[test]
fn an_answer_has_a_fingerprint_when_the_request_has() {
    for from in ["192.0.2.1:7", "[2001:db8::1]:7"] {
        let plain = ask(&request(&[], false), from).unwrap();
        let with = ask(&request(&[], true), from).unwrap();
        assert_eq!(with.len(), plain.len() + FINGERPRINT_LEN);
        let (covered, tail) = with.split_at(with.len() - FINGERPRINT_LEN);
        assert_eq!(tail[..4], [0x80, 0x28, 0, 4]);
        assert_eq!(tail[4..], (crc32(covered) ^ FINGERPRINT_XOR).to_be_bytes());
    }
}

#[test]
fn a_mapped_address_is_told_as_ipv4() {
    let mapped = ask(&request(&[], false), "[::ffff:192.0.2.1]:32853").unwrap();
    assert_eq!(mapped, ask(&request(&[], false), "192.0.2.1:32853").unwrap());
}

#[test]
fn optional_attributes_are_passed_over() {
    let software = [0x80, 0x22, 0, 3, b'a', b'b', b'c', 0];
    assert!(ask(&request(&software, true), "192.0.2.1:7").is_ok());
}

#[test]
fn everything_else_is_dropped_and_counted() {
    let good = request(&[], true);
    let change = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let mut longer = good.clone();
    longer.push(0);
    let malformed = [
        Vec::new(),
        vec![0, 1],
        good[..19].to_vec(),
        good[..24].to_vec(),
        change(3, 4),
        change(4, 0x22),
        change(27, 0),
        change(0, 0x40),
        longer,
        // An attribute that is cut off, a length that is no multiple of four, one behind the
        // fingerprint, and too much.
        request(&[0x80, 0x22, 0, 8, 1, 2, 3, 4], false),
        request(&[0x80, 0x22], false),
        {
            let mut bytes = good.clone();
            bytes.extend([0x80, 0x22, 0, 0]);
            bytes[3] += 4;
            bytes
        },
        request(&[[0x80, 0x22, 0, 0]; 200].concat(), false),
    ];
    let not_for_us = [
        change(0, 1),
        change(1, 0x11),
        change(1, 3),
        request(&[0, 6, 0, 4, b'u', b's', b'e', b'r'], true),
        request(&[0, 3, 0, 4, 0, 0, 0, 6], false),
    ];
    let mut server = server();
    let from = "192.0.2.1:7".parse().unwrap();
    let mut out = [0; MAX_ANSWER];
    for (n, datagram) in malformed.iter().enumerate() {
        let result = server.receive(Instant::ZERO, datagram, from, &mut out);
        assert!(matches!(result, Err(StunError::Malformed(_))), "{n}: {result:?}");
    }
    for (n, datagram) in not_for_us.iter().enumerate() {
        let result = server.receive(Instant::ZERO, datagram, from, &mut out);
        assert_eq!(result, Err(StunError::NotForUs), "{n}");
    }
    let stats = *server.stats();
    assert_eq!(stats.malformed, malformed.len() as u64);
    assert_eq!((stats.not_for_us, stats.answered), (not_for_us.len() as u64, 0));
    assert_eq!(out, [0; MAX_ANSWER], "nothing was written");
}

#[test]
fn sources_have_rates() {
    let mut server = StunServer::new(StunConfig { per_s: 100, per_source_per_s: 5 }, Instant::ZERO);
    let mut out = [0; MAX_ANSWER];
    let datagram = request(&[], false);
    let mut answered = |server: &mut StunServer, ms: u64, from: &str| {
        let (now, from) = (Instant::ZERO + Duration::from_millis(ms), from.parse().unwrap());
        (0..100).filter(|_| server.receive(now, &datagram, from, &mut out).is_ok()).count()
    };
    assert_eq!(answered(&mut server, 0, "192.0.2.1:1"), 10);
    assert_eq!(answered(&mut server, 0, "192.0.2.1:2"), 0, "a port is no other source");
    assert_eq!(answered(&mut server, 0, "192.0.2.2:1"), 10);
    assert_eq!(answered(&mut server, 1000, "192.0.2.1:1"), 5);
    assert_eq!(server.stats().limited, 400 - 25);
    // Garbage uses nothing up.
    for _ in 0..1000 {
        let _ = server.receive(
            Instant::ZERO,
            &[0; 20],
            "192.0.2.3:1".parse().unwrap(),
            &mut [0; MAX_ANSWER],
        );
    }
    assert_eq!(answered(&mut server, 1000, "192.0.2.3:1"), 10);
}

#[test]
fn first_bytes_tell_stun_from_packets() {
    for first in 0..=255u8 {
        assert_eq!(is_stun(&[first, 1]), first < 4);
    }
    assert!(!is_stun(&[]));
}

proptest! {
    /// Whatever comes: no panic, and never more than three times as much back.
    #[test]
    fn any_datagram_is_survived(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        honest in any::<bool>(),
    ) {
        if honest && bytes.len() >= HEADER {
            bytes[..2].copy_from_slice(&BINDING_REQUEST);
            let length = (bytes.len() - HEADER) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&MAGIC_COOKIE);
        }
        if let Ok(answer) = ask(&bytes, "[2001:db8::1]:7") {
            prop_assert!(answer.len() <= MAX_AMPLIFICATION * bytes.len());
        }
    }

    #[test]
    fn answers_are_never_more_than_three_times_the_request(
        attributes in proptest::collection::vec((0x8000u16..0x8028, 0..8u16), 0..4),
        fingerprint in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for (kind, length) in attributes {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![0; usize::from(length).next_multiple_of(4)]);
        }
        let bytes = request(&bytes, fingerprint);
        let answer = ask(&bytes, "[2001:db8::1]:7").unwrap();
        prop_assert!(answer.len() <= MAX_AMPLIFICATION * bytes.len());
        prop_assert_eq!(&answer[4..20], &bytes[4..20]);
    }
}
