use super::*;
use proptest::prelude::*;

fn sample() -> EventRef<'static> {
    EventRef {
        kind: EventType::Application,
        subtype: 7,
        from: "alice",
        to: "bob",
        role: Some(PairingRole::Controller),
        sent: 300,
        received: 2,
        buffered: true,
        body: b"hello",
    }
}

fn encoded(event: &EventRef<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, event);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"))
}

/// The bytes of `docs/pairing.md`.
#[test]
fn the_vector_of_the_document() {
    assert_eq!(hex(&encoded(&sample())), "990007a5616c696365a3626f6200cd012c02c3c40568656c6c6f");
    let ping = EventRef {
        kind: EventType::Ping,
        subtype: 0,
        from: "",
        role: None,
        sent: 1,
        received: 0,
        buffered: false,
        body: b"",
        ..sample()
    };
    let hex = hex(&encoded(&ping));
    assert_eq!(hex, "990100a0a3626f62c00100c2c400");
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pairing.md");
    let document = std::fs::read_to_string(document).unwrap();
    assert!(document.contains(&hex), "the ping is in the document");
    assert!(document.contains("990007a5616c696365a3626f6200cd012c02c3c40568656c6c6f"));
}

#[test]
fn a_body_of_8192_bytes_is_the_longest() {
    let body = vec![0xaa; MAX_EVENT_BODY + 1];
    let longest = EventRef {
        from: &"f".repeat(MAX_CLIENT_ID),
        to: &"t".repeat(MAX_CLIENT_ID),
        sent: u64::MAX,
        received: u64::MAX,
        subtype: u16::MAX,
        body: &body[..MAX_EVENT_BODY],
        ..sample()
    };
    let bytes = encoded(&longest);
    assert!(bytes.len() <= MAX_EVENT);
    assert_eq!(decode(&bytes), Ok(longest));
    let longer = EventRef { body: &body, ..sample() };
    assert_eq!(decode(&encoded(&longer)), Err(EventError::TooLarge));
    assert_eq!(decode(&vec![0; MAX_EVENT + 1]), Err(EventError::TooLarge));
}

#[test]
fn later_versions_may_add_elements() {
    let mut bytes = encoded(&sample());
    bytes[0] = 0x9b;
    bytes.extend([0xc3, 0x81, 0x01, 0x02]);
    assert_eq!(decode(&bytes), Ok(sample()));
}

#[test]
fn unknown_types_are_told_apart() {
    let mut bytes = encoded(&sample());
    bytes[1] = 6;
    assert_eq!(decode(&bytes), Err(EventError::UnknownType(6)));
    bytes[1] = 0x7f;
    assert_eq!(decode(&bytes), Err(EventError::UnknownType(127)));
}

#[test]
fn errors_name_the_field() {
    let spoil = |at: usize, byte: u8| {
        let mut bytes = encoded(&sample());
        bytes[at] = byte;
        decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(spoil(0, 0x80), "event: it is not an array");
    assert_eq!(spoil(0, 0x98), "event: it has fewer than 9 elements");
    assert_eq!(spoil(1, 0xff), "event: type is not an unsigned integer");
    assert_eq!(spoil(2, 0xc3), "event: subtype is not an unsigned 16-bit integer");
    assert_eq!(spoil(3, 0x01), "event: from is not a string of at most 64 bytes");
    assert_eq!(spoil(4, 0xff), "event: from is not a string of at most 64 bytes");
    assert_eq!(spoil(9, 0xc0), "event: to is not a string of at most 64 bytes");
    assert_eq!(spoil(13, 0x02), "event: role is neither nil nor 0 nor 1");
    assert_eq!(spoil(14, 0xff), "event: sent is not an unsigned integer");
    assert_eq!(spoil(17, 0xff), "event: received is not an unsigned integer");
    assert_eq!(spoil(18, 0x00), "event: buffered is not a boolean");
    assert_eq!(spoil(19, 0xa5), "event: body is not binary");
    assert_eq!(spoil(20, 0x06), "event: body is truncated");
    assert_eq!(spoil(20, 0x04), "event: it has bytes behind its end");
    assert_eq!(spoil(1, 0x01), "event: its type has no body");
}

#[test]
fn owning_checks_the_names() {
    let event = sample().to_owned().unwrap();
    assert_eq!(event.as_ref(), sample());
    assert_eq!(decode(&event.encode()), Ok(sample()));
    assert_eq!(EventRef { from: "", ..sample() }.to_owned().unwrap().from, None);
    assert!(EventRef { to: "", ..sample() }.to_owned().is_err());
    assert!(EventRef { from: "a b", ..sample() }.to_owned().is_err());
}

#[test]
fn every_reason_comes_back_from_the_wire() {
    for reject in Reject::ALL {
        assert_eq!(Reject::from_wire(reject.to_wire()), reject);
    }
    assert_eq!(Reject::from_wire(99), Reject::Other(99));
    for abort in Abort::ALL {
        assert_eq!(Abort::from_reason(abort.reason()), Some(abort));
        let code = abort.reason().0;
        assert!((Reason::APP_MIN..=Reason::APP_MAX).contains(&code), "an application may say it");
    }
    assert_eq!(Abort::from_reason(Reason::APP), None);
    assert_eq!(Abort::from_reason(Reason::SHUTDOWN), None);
    for kind in EventType::ALL {
        assert_eq!(EventType::from_wire(kind as u64), Some(kind));
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let name = "[A-Za-z0-9._~:@+-]{1,64}";
    let role = prop_oneof![
        Just(None),
        Just(Some(PairingRole::Controller)),
        Just(Some(PairingRole::Responder))
    ];
    let body = proptest::collection::vec(any::<u8>(), 0..300);
    let rest = (any::<u64>(), any::<u64>(), any::<bool>(), body);
    (0..6u64, any::<u16>(), proptest::option::of(name), name, role, rest).prop_map(
        |(kind, subtype, from, to, role, (sent, received, buffered, body))| {
            let kind = EventType::from_wire(kind).unwrap();
            Event {
                kind,
                subtype,
                from: from.map(|f| ClientId::new(&f).unwrap()),
                to: ClientId::new(&to).unwrap(),
                role,
                sent,
                received,
                buffered,
                body: if kind.has_body() { body.into() } else { [].into() },
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(event in any_event()) {
        let bytes = event.encode();
        prop_assert!(bytes.len() <= MAX_EVENT);
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(read, event.as_ref());
        prop_assert_eq!(read.to_owned().unwrap(), event);
    }

    #[test]
    fn every_part_of_an_event_is_an_error(event in any_event(), cut in any::<proptest::sample::Index>()) {
        let bytes = event.encode();
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn spoiled_events_never_exceed_their_bounds(
        event in any_event(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = event.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(event) = decode(&bytes) {
            prop_assert!(event.from.len() <= MAX_CLIENT_ID && event.to.len() <= MAX_CLIENT_ID);
            prop_assert!(event.body.len() <= MAX_EVENT_BODY);
        }
    }
}
