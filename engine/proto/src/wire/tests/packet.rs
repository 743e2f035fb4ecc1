use super::bytes;
use crate::ids::ConnectionId;
use crate::limits::{MAX_RETRY_TOKEN, SHORT_HEADER_LEN, TAG_LEN, VERSION};
use crate::wire::codec::Full;
use crate::wire::packet::{
    DropReason, Level, LongHeader, LongPacket, LongPrefix, MAX_LONG_HEADER_LEN, MessageType, Retry,
    ShortHeader, VersionList, expand_pn, is_long, is_short, patch_payload_len, reset_token,
};
use proptest::prelude::*;

fn id() -> impl Strategy<Value = [u8; 8]> {
    any::<[u8; 8]>()
}

fn message() -> impl Strategy<Value = (MessageType, Level)> {
    prop_oneof![
        Just((MessageType::ConnectionRequest, Level::Initial)),
        Just((MessageType::ConnectionResponse, Level::Initial)),
        Just((MessageType::ConnectionResponse, Level::Handshake)),
        Just((MessageType::AuthenticationRequest, Level::Handshake)),
    ]
}

fn header<'a>(
    (message, level): (MessageType, Level),
    dcid: &'a [u8],
    scid: &'a [u8],
    token: &'a [u8],
    payload_len: usize,
) -> LongHeader<'a> {
    let token = if message == MessageType::ConnectionRequest { token } else { &[] };
    let version = VERSION;
    LongHeader { message, level, version, dcid, scid, token, pn: 7, header_len: 0, payload_len }
}

/// RFC 9000 §A.3 with a 32-bit window.
fn rfc_expand(largest: u64, truncated: u64) -> u64 {
    let (expected, win) = (i128::from(largest) + 1, 1i128 << 32);
    let candidate = (expected & !(win - 1)) | i128::from(truncated);
    let pn = if candidate <= expected - win / 2 && candidate < (1 << 62) - win {
        candidate + win
    } else if candidate > expected + win / 2 && candidate >= win {
        candidate - win
    } else {
        candidate
    };
    pn as u64
}

proptest! {
    #[test]
    fn short_headers_round_trip(key_phase: bool, dcid in id(), pn: u32, rest in bytes(8)) {
        let header = ShortHeader { key_phase, dcid: ConnectionId(dcid), pn };
        let mut packet = vec![0; SHORT_HEADER_LEN];
        header.write(&mut packet);
        packet.extend(&rest);
        prop_assert!(is_short(packet[0]) && !is_long(packet[0]));
        prop_assert_eq!(ShortHeader::parse(&packet), Some(header));
        prop_assert_eq!(ShortHeader::parse(&packet[..12]), None);
        for bit in 1..8 {
            packet[0] ^= 1 << bit;
            prop_assert_eq!(ShortHeader::parse(&packet), None, "bit {} is fixed", bit);
            packet[0] ^= 1 << bit;
        }
    }

    #[test]
    fn packet_numbers_expand_as_in_rfc_9000_a_3(
        largest in prop_oneof![0..1u64 << 34, 0..(1u64 << 62) - (1 << 33)],
        low: u32,
        near in -40..40i64,
    ) {
        prop_assert_eq!(expand_pn(largest, low), rfc_expand(largest, low.into()));
        // Near the border of half a window, and near the expected number.
        for offset in [0, 1u64 << 31, 1 << 32] {
            let pn = largest.saturating_add(offset).saturating_add_signed(near);
            let low = pn as u32;
            prop_assert_eq!(expand_pn(largest, low), rfc_expand(largest, low.into()));
        }
        let pn = largest.saturating_add_signed(near);
        prop_assert_eq!(expand_pn(largest, pn as u32), pn);
    }

    #[test]
    fn long_headers_round_trip(
        kind in message(),
        dcid in id(),
        scid in id(),
        token in bytes(MAX_RETRY_TOKEN),
        pn: u32,
        payload in TAG_LEN + 1..300usize,
        behind in bytes(20),
    ) {
        let header = LongHeader { pn, ..header(kind, &dcid, &scid, &token, payload) };
        let mut packet = [0; MAX_LONG_HEADER_LEN];
        let len = header.write(&mut packet).unwrap();
        prop_assert_eq!(len, header.encoded_len());
        let mut datagram = packet[..len].to_vec();
        datagram.resize(len + payload, 0xAB);
        datagram.extend(&behind);
        let parsed = LongHeader::parse(&datagram).unwrap();
        prop_assert_eq!(parsed, LongHeader { header_len: len, ..header });
        prop_assert_eq!(parsed.packet_len(), datagram.len() - behind.len());
        prop_assert_eq!(LongPacket::parse(&datagram), Ok(LongPacket::Sealed(parsed)));
        prop_assert_eq!(parsed.destination(), Some(ConnectionId(dcid)));
        prop_assert_eq!(parsed.source(), Some(ConnectionId(scid)));
        for cut in 0..len + payload {
            prop_assert_eq!(LongHeader::parse(&datagram[..cut]), Err(DropReason::Truncated));
        }
        for room in 0..len {
            prop_assert_eq!(header.write(&mut packet[..room]), Err(Full));
        }
    }

    #[test]
    fn the_payload_length_is_patched_in(payload in TAG_LEN + 1..500usize) {
        let kind = (MessageType::ConnectionRequest, Level::Initial);
        let mut datagram = vec![0; 600];
        let len = header(kind, &[1; 8], &[2; 8], b"token", 0).write(&mut datagram).unwrap();
        patch_payload_len(&mut datagram, len, payload);
        // A header that is not there is left alone.
        patch_payload_len(&mut datagram, 1, 0);
        patch_payload_len(&mut datagram, 601, 0);
        let parsed = LongHeader::parse(&datagram).unwrap();
        prop_assert_eq!((parsed.header_len, parsed.payload_len), (len, payload));
    }

    #[test]
    fn retries_round_trip_and_no_bit_can_change(
        dcid in id(),
        scid in id(),
        original in id(),
        token in prop::collection::vec(any::<u8>(), 1..=MAX_RETRY_TOKEN),
        flip: prop::sample::Index,
    ) {
        let mut buf = [0; 200];
        let (to, from) = (ConnectionId(dcid), ConnectionId(scid));
        let len = Retry::write(&mut buf, to, from, &token, &original).unwrap();
        let packet = &mut buf[..len];
        let retry = Retry::parse(packet).unwrap();
        prop_assert_eq!((retry.dcid, retry.scid, retry.token), (to, from, &token[..]));
        prop_assert!(retry.verify(&original));
        prop_assert_eq!(LongPacket::parse(packet), Ok(LongPacket::Retry(retry)));
        let mut other = original;
        other[0] ^= 1;
        prop_assert!(!retry.verify(&other));
        prop_assert!(LongHeader::parse(packet).is_err());
        prop_assert!(Retry::write(&mut [0; 200][..len - 1], to, from, &token, &original).is_err());
        let bit = flip.index(8 * len);
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Retry::parse(packet).is_ok_and(|r| r.verify(&original)));
    }

    #[test]
    fn version_lists_round_trip(
        dcid in id(),
        scid in id(),
        versions in prop::collection::vec(any::<u32>(), 1..20),
    ) {
        let prefix = LongPrefix { flags: 0x80, version: 9, dcid: &dcid, scid: &scid };
        let mut buf = [0; 200];
        let len = VersionList::write(&mut buf, &prefix, &versions).unwrap();
        let list = VersionList::parse(&buf[..len]).unwrap();
        prop_assert_eq!((list.dcid, list.scid), (&scid[..], &dcid[..]));
        prop_assert!(list.versions().eq(versions));
        prop_assert_eq!(LongPacket::parse(&buf[..len]), Ok(LongPacket::VersionList(list)));
        for cut in 0..len {
            prop_assert!(VersionList::parse(&buf[..cut]).is_err());
        }
        prop_assert!(VersionList::parse(&buf[..=len]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(first: u8, versioned: bool, ids: bool, rest in bytes(120)) {
        let mut datagram = vec![first];
        if versioned {
            datagram.extend(VERSION.to_be_bytes());
        }
        if ids {
            datagram.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        }
        datagram.extend(rest);
        let _ = ShortHeader::parse(&datagram);
        let _ = reset_token(&datagram);
        let _ = LongPrefix::parse(&datagram);
        match LongPacket::parse(&datagram) {
            Ok(LongPacket::Sealed(h)) => prop_assert!(h.packet_len() <= datagram.len()),
            Ok(LongPacket::Retry(r)) => prop_assert!(!r.verify(&[0; 8])),
            Ok(LongPacket::VersionList(l)) => prop_assert!(l.versions().count() > 0),
            Err(_) => {}
        }
    }
}

fn packet(flags: u8, version: u32, ids: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![flags];
    packet.extend(version.to_be_bytes());
    for len in ids {
        packet.push(len);
        packet.extend(vec![3; usize::from(len)]);
    }
    packet.extend(rest);
    packet
}

#[test]
fn long_headers_are_checked() {
    let rest = {
        let mut rest = vec![0, 0, 0, 0, 0, 1, 0, 17];
        rest.extend([9; 17]);
        rest
    };
    let parse = |flags, version, ids, rest: &[u8]| {
        LongPacket::parse(&packet(flags, version, ids, rest)).map(drop)
    };
    let bad = |what| Err(DropReason::Malformed(what));
    assert_eq!(parse(0x80, VERSION, [8, 8], &rest), Ok(()));
    assert_eq!(parse(0x40, VERSION, [8, 8], &rest), bad("flags"));
    assert_eq!(parse(0x84, VERSION, [8, 8], &rest), bad("reserved flags"));
    assert_eq!(parse(0x82, VERSION, [8, 8], &rest), bad("level"));
    assert_eq!(parse(0x81, VERSION, [8, 8], &rest), bad("message type"), "request, Handshake");
    assert_eq!(parse(0xB0, VERSION, [8, 8], &rest), bad("message type"), "authentication, Initial");
    assert_eq!(parse(0xD0, VERSION, [8, 8], &rest), bad("message type"), "type 5");
    assert_eq!(parse(0x80, VERSION, [7, 8], &rest), bad("connection id length"));
    assert_eq!(parse(0x80, VERSION, [8, 9], &rest), bad("connection id length"));
    assert_eq!(parse(0x80, VERSION, [21, 8], &rest), bad("connection id length"));
    assert_eq!(parse(0x80, 0, [8, 8], &rest), bad("version"));
    assert_eq!(parse(0xC0, VERSION, [8, 8], &[1, 0, 0, 0, 1]), bad("version"));
    // Another version may use the flags and longer ids as it likes.
    assert_eq!(parse(0xFF, 77, [0, 20], &rest), Err(DropReason::Version(77)));
    let prefix = packet(0xFF, 77, [0, 20], &rest);
    let prefix = LongPrefix::parse(&prefix).unwrap();
    assert_eq!((prefix.version, prefix.dcid.len(), prefix.scid.len()), (77, 0, 20));
    let mut short = rest.clone();
    short[7] = 16;
    assert_eq!(parse(0x80, VERSION, [8, 8], &short), bad("payload length"), "nothing but a tag");
    let token = [&[0, 129][..], &[0; 129], &rest[2..]].concat();
    assert_eq!(parse(0x80, VERSION, [8, 8], &token), bad("token length"));
    let token = [&[0, 128][..], &[0; 128], &rest[2..]].concat();
    assert_eq!(parse(0x80, VERSION, [8, 8], &token), Ok(()));
}

#[test]
fn a_retry_without_a_token_and_an_empty_version_list_are_dropped() {
    let retry = packet(0x90, VERSION, [8, 8], &[0; 18]);
    assert_eq!(LongPacket::parse(&retry), Err(DropReason::Malformed("token length")));
    let list = packet(0xC0, 0, [8, 8], &[0]);
    assert_eq!(LongPacket::parse(&list), Err(DropReason::Malformed("version count")));
}

#[test]
fn the_reset_token_stands_at_the_end() {
    assert_eq!(reset_token(&[0; 28]), None);
    let mut datagram = [0; 40];
    datagram[24..].fill(7);
    assert_eq!(reset_token(&datagram), Some(&[7; 16]));
    assert_eq!(reset_token(&[1; 29]), Some(&[1; 16]));
}
