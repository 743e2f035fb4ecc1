use super::bytes;
use crate::config::ChannelKind;
use crate::error::{PeerMisbehaved, Reason};
use crate::limits::{
    MAX_CHANNEL_NAME, MAX_CONTROL_MESSAGE, MAX_CONTROL_NESTING, MAX_CREDENTIAL, MAX_REASON_TEXT,
};
use crate::wire::control::{
    ChannelRequestMessage, ControlMessage, RequestOptions, encode_authentication_request,
    encode_authentication_response, encode_channel_request, next_value, parse,
};
use proptest::prelude::*;

fn options() -> impl Strategy<Value = (RequestOptions<'static>, String)> {
    let kind = prop_oneof![
        Just(ChannelKind::Bytes),
        Just(ChannelKind::Messages),
        Just(ChannelKind::Datagrams)
    ];
    let numbers = any::<(Option<u64>, Option<u64>, bool, u32, Option<u32>)>();
    let shares = (0..8u8, 1..=255u8);
    (any::<bool>(), kind, shares, numbers, "\\PC{0,20}").prop_map(
        |(
            has_map,
            kind,
            (priority, weight),
            (window, since, latest, expires_ms, declined),
            text,
        )| {
            let options = RequestOptions {
                has_map,
                kind,
                priority,
                weight,
                window,
                since,
                latest,
                expires_ms,
                declined,
                reason: "",
            };
            (options, text)
        },
    )
}

fn request(message: &ChannelRequestMessage<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_channel_request(&mut out, message);
    out
}

/// Some valid message, encoded.
fn encoded() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        ("\\PC{0,40}", any::<u16>(), any::<bool>(), options()).prop_map(
            |(name, channel, is_answer, (options, reason))| {
                let options = RequestOptions { reason: &reason, ..options };
                request(&ChannelRequestMessage { name: &name, channel, is_answer, options })
            }
        ),
        bytes(100).prop_map(|credential| {
            let mut out = Vec::new();
            encode_authentication_request(&mut out, &credential);
            out
        }),
        (any::<bool>(), any::<u32>(), "\\PC{0,30}").prop_map(|(accepted, reason, text)| {
            let mut out = Vec::new();
            encode_authentication_response(&mut out, accepted, Reason(reason), &text);
            out
        }),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip(
        name in "\\PC{0,60}",
        channel: u16,
        is_answer: bool,
        (options, reason) in options(),
    ) {
        let options = RequestOptions { reason: &reason, ..options };
        let message = ChannelRequestMessage { name: &name, channel, is_answer, options };
        let encoded = request(&message);
        prop_assert_eq!(next_value(&encoded), Ok(Some(encoded.len())));
        let has_map = options.has_map || options != RequestOptions::default();
        let options = RequestOptions { has_map, ..options };
        let expected = ChannelRequestMessage { options, ..message };
        prop_assert_eq!(parse(&encoded), Ok(ControlMessage::ChannelRequest(expected)));
    }

    #[test]
    fn authentication_round_trips(
        credential in bytes(MAX_CREDENTIAL),
        accepted: bool,
        reason: u32,
        text in "\\PC{0,30}",
    ) {
        let mut encoded = Vec::new();
        encode_authentication_request(&mut encoded, &credential);
        let expected = ControlMessage::AuthenticationRequest { credential: &credential };
        prop_assert_eq!(parse(&encoded), Ok(expected));
        let (reason, mut encoded) = (Reason(reason), Vec::new());
        encode_authentication_response(&mut encoded, accepted, reason, &text);
        let expected = ControlMessage::AuthenticationResponse { accepted, reason, text: &text };
        prop_assert_eq!(parse(&encoded), Ok(expected));
    }

    #[test]
    fn a_stream_of_messages_is_cut_where_they_end(
        messages in prop::collection::vec(encoded(), 1..4),
        cut: prop::sample::Index,
    ) {
        let stream = messages.concat();
        let mut rest = &stream[..cut.index(stream.len() + 1)];
        for message in &messages {
            if rest.len() < message.len() {
                prop_assert_eq!(next_value(rest), Ok(None));
                return Ok(());
            }
            prop_assert_eq!(next_value(rest), Ok(Some(message.len())));
            rest = &rest[message.len()..];
        }
        prop_assert_eq!(next_value(rest), Ok(None));
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in bytes(80)) {
        if let Ok(Some(len)) = next_value(&input) {
            prop_assert!(len >= 1 && len <= input.len());
            let _ = parse(&input[..len]);
        }
        prop_assert!(parse(&input).is_err() || next_value(&input) == Ok(Some(input.len())));
    }

    #[test]
    fn mutated_messages_never_panic(
        message in encoded(),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
    ) {
        let mut message = message;
        for (at, value) in changes {
            let at = at.index(message.len());
            message[at] = value;
        }
        let whole = next_value(&message) == Ok(Some(message.len()));
        prop_assert!(whole || parse(&message).is_err());
    }
}

/// `[name, 7, false, options]` with the four values given as msgpack.
fn raw(elements: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0x90 | elements.len() as u8];
    out.extend(elements.concat());
    out
}

fn str(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    rmp::encode::write_str(&mut out, text).unwrap();
    out
}

fn why(message: &[u8]) -> &'static str {
    match parse(message) {
        Err(PeerMisbehaved::Control(why) | PeerMisbehaved::Limit(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_three_elements_of_a_plain_peer_are_enough() {
    let message = raw(&[b"\xA5git:*", &[7], &[0xC2]]);
    let expected = ChannelRequestMessage {
        name: "git:*",
        channel: 7,
        is_answer: false,
        options: RequestOptions::default(),
    };
    assert_eq!(request(&expected), message);
    assert_eq!(parse(&message), Ok(ControlMessage::ChannelRequest(expected)));
    let nil = raw(&[b"\xA5git:*", &[7], &[0xC2], &[0xC0]]);
    assert_eq!(parse(&nil), Ok(ControlMessage::ChannelRequest(expected)));
}

#[test]
fn what_is_unknown_is_skipped() {
    let map = [
        &[0x87][..],
        // A value as deep as allowed, under an unknown key.
        b"\xA3new\x92\x91\x01\xC0",
        b"\xA4kind\x02",
        // Unknown keys may come twice, and need be neither text nor UTF-8.
        b"\xA3new\xC4\x02ab",
        b"\xA1\xFF\xD4\x01\x02",
        b"\x05\xCB\0\0\0\0\0\0\0\0",
        b"\xC4\x01k\xC7\x03\x01abc",
        b"\xA8no_delay\xC3",
    ]
    .concat();
    let message = raw(&[&str("x"), &[1], &[0xC3], &map, &[0x91, 0xC0]]);
    let options =
        RequestOptions { has_map: true, kind: ChannelKind::Datagrams, ..Default::default() };
    let expected = ChannelRequestMessage { name: "x", channel: 1, is_answer: true, options };
    assert_eq!(parse(&message), Ok(ControlMessage::ChannelRequest(expected)));

    for unknown in [&[0x91, 0x00][..], &[0x92, 0x40, 0xC0], &[0x91, 0xFF], &[0x91, 0xD0, 0x80]] {
        assert_eq!(parse(unknown), Ok(ControlMessage::Unknown), "{unknown:?}");
    }
    let later = raw(&[&[1], &[0xC4, 1, 9], &[0xC0], &[0x80]]);
    assert_eq!(parse(&later), Ok(ControlMessage::AuthenticationRequest { credential: &[9] }));
}

#[test]
fn errors_name_the_field() {
    let x = str("x");
    let long = str(&"x".repeat(MAX_CHANNEL_NAME + 1));
    let cases: [(&[&[u8]], &str); 12] = [
        (&[], "message is empty"),
        (&[&[0xC0]], "message starts with neither a name nor a type"),
        (&[&x, &[7]], "ChannelRequest has fewer than 3 elements"),
        (&[b"\xA2\xC3\x28", &[7], &[0xC2]], "name is not UTF-8"),
        (&[&long, &[7], &[0xC2]], "name is longer than 1024 bytes"),
        (&[&x, &[0xCE, 0, 1, 0, 0], &[0xC2]], "channel is not an unsigned 16-bit integer"),
        (&[&x, &[0xFF], &[0xC2]], "channel is not an unsigned 16-bit integer"),
        (&[&x, &x, &[0xC2]], "channel is not an unsigned 16-bit integer"),
        (&[&x, &[7], &[1]], "is_answer is not a boolean"),
        (&[&x, &[7], &[0xC2], &[0x90]], "options is not a map"),
        (&[&[1], &x], "credential is not binary"),
        (&[&[2], &[0xC3], &[0xCA, 0, 0, 0, 0], &x], "reason is not an unsigned 32-bit integer"),
    ];
    for (elements, expected) in cases {
        assert_eq!(why(&raw(elements)), expected);
    }
    assert_eq!(why(&[0x80]), "message is not an array");
    assert_eq!(why(&raw(&[&[1]])), "AuthenticationRequest has fewer than 2 elements");
    assert_eq!(
        why(&raw(&[&[2], &[0xC3], &[1]])),
        "AuthenticationResponse has fewer than 4 elements"
    );
    assert_eq!(why(&raw(&[&[2], &[1], &[1], &x])), "accepted is not a boolean");
    assert_eq!(why(&raw(&[&[2], &[0xC2], &[1], &[1]])), "text is not a string");
    let text = str(&"x".repeat(MAX_REASON_TEXT + 1));
    assert_eq!(why(&raw(&[&[2], &[0xC2], &[1], &text])), "text is longer than 127 bytes");
    assert_eq!(why(&raw(&[&[2], &[0xC2], &[1], b"\xA1\xFF"])), "text is not UTF-8");
    let mut credential = Vec::new();
    encode_authentication_request(&mut credential, &[0; MAX_CREDENTIAL + 1]);
    assert_eq!(why(&credential), "credential is longer than 8192 bytes");
    assert_eq!(why(&raw(&[&x, &[7], &[0xC2]])[..3]), "message is truncated");
    assert_eq!(
        why(&[&raw(&[&x, &[7], &[0xC2]])[..], &[0]].concat()),
        "message has bytes behind its end"
    );
    assert_eq!(why(&[0x91, 0xC1]), "message has a byte that msgpack never uses");
}

#[test]
fn options_are_checked_by_name() {
    let with = |pairs: &[(&str, &[u8])]| {
        let mut map = vec![0x80 | pairs.len() as u8];
        for (key, value) in pairs {
            map.extend(str(key));
            map.extend(*value);
        }
        raw(&[&str("x"), &[7], &[0xC2], &map])
    };
    let long = str(&"x".repeat(MAX_REASON_TEXT + 1));
    let cases: [(&str, &[u8], &str); 13] = [
        ("kind", &[3], "options.kind is not 0, 1 or 2"),
        ("kind", &[0xC0], "options.kind is not 0, 1 or 2"),
        ("priority", &[8], "options.priority is not in 0..=7"),
        ("weight", &[0], "options.weight is not in 1..=255"),
        ("weight", &[0xCD, 1, 0], "options.weight is not in 1..=255"),
        ("window", &[0xFF], "options.window is not an unsigned 64-bit integer"),
        ("since", &[0xC3], "options.since is not an unsigned 64-bit integer"),
        ("latest", &[1], "options.latest is not a boolean"),
        (
            "expires_ms",
            &[0xCF, 0, 0, 0, 1, 0, 0, 0, 0],
            "options.expires_ms is not an unsigned 32-bit integer",
        ),
        ("declined", &[0xC3], "options.declined is not an unsigned 32-bit integer"),
        ("reason", &[1], "options.reason is not a string"),
        ("reason", &long, "options.reason is longer than 127 bytes"),
        ("reason", b"\xA1\xFF", "options.reason is not UTF-8"),
    ];
    for (key, value, expected) in cases {
        assert_eq!(why(&with(&[(key, value)])), expected);
    }
    let twice: [(&str, &[u8], &str); 9] = [
        ("kind", &[1], "options.kind comes twice"),
        ("priority", &[1], "options.priority comes twice"),
        ("weight", &[1], "options.weight comes twice"),
        ("window", &[1], "options.window comes twice"),
        ("since", &[1], "options.since comes twice"),
        ("latest", &[0xC3], "options.latest comes twice"),
        ("expires_ms", &[1], "options.expires_ms comes twice"),
        ("declined", &[1], "options.declined comes twice"),
        ("reason", &[0xA0], "options.reason comes twice"),
    ];
    for (key, value, expected) in twice {
        assert!(parse(&with(&[(key, value)])).is_ok());
        assert_eq!(why(&with(&[(key, value), ("other", &[1]), (key, value)])), expected);
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let mut value = vec![0x91; depth];
        value.push(0xC0);
        value
    };
    let fits = nested(MAX_CONTROL_NESTING);
    assert_eq!(next_value(&fits), Ok(Some(fits.len())));
    let limit = Err(PeerMisbehaved::Limit("control message nesting"));
    assert_eq!(next_value(&nested(MAX_CONTROL_NESTING + 1)), limit);
    assert_eq!(next_value(&[0x81; 10]), limit);
    // Siblings are not nested.
    let siblings = [0x93, 0x91, 0x91, 0x90, 0x91, 0x91, 0x90, 0x80];
    assert_eq!(next_value(&siblings), Ok(Some(siblings.len())));
}

#[test]
fn promised_sizes_are_bounded_before_they_arrive() {
    let limit = Err(PeerMisbehaved::Limit("control message size"));
    for promise in [
        &[0xDB, 0xFF, 0xFF, 0xFF, 0xFF][..],
        &[0xC6, 0, 0, 0x40, 0],
        &[0xC9, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0xDF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0xDE, 0x20, 0],
        // Two promises that fit alone but not together.
        &[0x92, 0xDA, 0x30, 0],
    ] {
        let mut input = promise.to_vec();
        if promise[0] == 0x92 {
            input.extend([b'x'; 0x3000]);
            assert_eq!(next_value(&input), Ok(None));
            input.extend([0xDA, 0x30, 0]);
        }
        assert_eq!(next_value(&input), limit, "{promise:02x?}");
    }
    let mut largest = vec![0xDA, 0x3F, 0xFD];
    largest.resize(MAX_CONTROL_MESSAGE, b'x');
    assert_eq!(next_value(&largest), Ok(Some(MAX_CONTROL_MESSAGE)));
    assert_eq!(next_value(&largest[..MAX_CONTROL_MESSAGE - 1]), Ok(None));
    assert_eq!(next_value(&[0xDA, 0x3F, 0xFE]), limit);
}

#[test]
fn a_long_reason_is_cut_when_written() {
    let reason = "ä".repeat(100);
    let options = RequestOptions { declined: Some(9), reason: &reason, ..Default::default() };
    let message = ChannelRequestMessage { name: "n", channel: 1, is_answer: true, options };
    match parse(&request(&message)) {
        Ok(ControlMessage::ChannelRequest(m)) => assert_eq!(m.options.reason, "ä".repeat(63)),
        other => panic!("{other:?}"),
    }
    let mut response = Vec::new();
    encode_authentication_response(&mut response, false, Reason::AUTHENTICATION, &reason);
    assert!(parse(&response).is_ok());
}
