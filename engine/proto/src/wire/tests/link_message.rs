use super::bytes;
use crate::error::{PeerMisbehaved, Reason};
use crate::limits::{MAX_REASON_TEXT, MAX_TRANSPORT_PARAMS};
use crate::time::Duration;
use crate::wire::control::{ControlMessage, next_value, parse};
use crate::wire::link_message::LinkMessage;
use crate::wire::transport::TransportFrame;
use proptest::prelude::*;

fn encoded(message: LinkMessage<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn round_trips(message: LinkMessage<'_>) {
    let bytes = encoded(message);
    assert_eq!(next_value(&bytes), Ok(Some(bytes.len())));
    assert_eq!(parse(&bytes), Ok(ControlMessage::Link(message)));
}

fn error(bytes: &[u8]) -> Option<&'static str> {
    match parse(bytes) {
        Err(PeerMisbehaved::Control(why)) => Some(why),
        _ => None,
    }
}

fn id() -> impl Strategy<Value = u16> {
    prop_oneof![1..130u16, 0x7ff0..0x8010u16, 0xfff0..0xffffu16]
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        bytes(60).prop_map(|b| encoded(LinkMessage::Parameters(&b))),
        any::<u64>().prop_map(|position| encoded(LinkMessage::Consumed { position })),
        Just(encoded(LinkMessage::Ping)),
        (id(), any::<u64>())
            .prop_map(|(channel, limit)| encoded(LinkMessage::Credit { channel, limit })),
        (id(), any::<u32>(), any::<u64>()).prop_map(|(channel, code, final_offset)| {
            encoded(LinkMessage::Reset { channel, code, final_offset })
        }),
        (id(), any::<u32>())
            .prop_map(|(channel, code)| encoded(LinkMessage::Stop { channel, code })),
        (any::<u32>(), any::<bool>(), "\\PC{0,30}").prop_map(|(reason, discarded, text)| {
            encoded(LinkMessage::Close { reason: Reason(reason), discarded, text: &text })
        }),
        Just(encoded(LinkMessage::CloseAck)),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(
        parameters in bytes(MAX_TRANSPORT_PARAMS),
        number: u64,
        channel in id(),
        code: u32,
        discarded: bool,
        text in "\\PC{0,30}",
    ) {
        round_trips(LinkMessage::Parameters(&parameters));
        round_trips(LinkMessage::Consumed { position: number });
        round_trips(LinkMessage::Ping);
        round_trips(LinkMessage::Credit { channel, limit: number });
        round_trips(LinkMessage::Reset { channel, code, final_offset: number });
        round_trips(LinkMessage::Stop { channel, code });
        round_trips(LinkMessage::Close { reason: Reason(code), discarded, text: &text });
        round_trips(LinkMessage::CloseAck);
    }

    #[test]
    fn cut_messages_are_not_complete(message in any_message(), cut: prop::sample::Index) {
        let cut = &message[..cut.index(message.len())];
        prop_assert_eq!(next_value(cut), Ok(None));
        prop_assert!(parse(cut).is_err());
    }

    #[test]
    fn mutated_messages_never_panic(
        message in any_message(),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
    ) {
        let mut message = message;
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let _ = parse(&message);
    }

    #[test]
    fn elements_behind_those_that_are_known_are_ignored(message in any_message(), extra: u8) {
        prop_assume!(extra < 0x80);
        let mut longer = message.clone();
        // A short array: one more element in its head.
        longer[0] += 1;
        longer.push(extra);
        prop_assert_eq!(parse(&longer), parse(&message));
    }
}

#[test]
fn a_long_close_text_is_cut_at_a_character() {
    let text = "ü".repeat(100);
    let bytes = encoded(LinkMessage::Close { reason: Reason::APP, discarded: true, text: &text });
    let Ok(ControlMessage::Link(LinkMessage::Close { text: cut, .. })) = parse(&bytes) else {
        panic!("no close");
    };
    assert_eq!(cut.len(), MAX_REASON_TEXT - 1);
    assert!(text.starts_with(cut));
}

#[test]
fn errors_name_the_field() {
    let cases: [(&[u8], &str); 18] = [
        (&[0x91, 16], "Parameters has fewer than 2 elements"),
        (&[0x92, 16, 0xa0], "parameters are not binary"),
        (&[0x91, 17], "Consumed has fewer than 2 elements"),
        (&[0x92, 17, 0xff], "position is not an unsigned 64-bit integer"),
        (&[0x92, 19, 1], "Credit has fewer than 3 elements"),
        (&[0x93, 19, 0, 1], "channel is not in 1..=65534"),
        (&[0x93, 19, 1, 0xc3], "limit is not an unsigned 64-bit integer"),
        (&[0x93, 20, 1, 1], "ChannelReset has fewer than 4 elements"),
        (&[0x94, 20, 0xcd, 0xff, 0xff, 1, 1], "channel is not in 1..=65534"),
        (&[0x94, 20, 1, 0xc0, 1], "code is not an unsigned 32-bit integer"),
        (&[0x94, 20, 1, 1, 0xff], "final_offset is not an unsigned 64-bit integer"),
        (&[0x92, 21, 1], "ChannelStop has fewer than 3 elements"),
        (&[0x93, 21, 0xa1, b'x', 1], "channel is not in 1..=65534"),
        (&[0x93, 22, 1, 0xc2], "Close has fewer than 4 elements"),
        (&[0x94, 22, 0xc2, 0xc2, 0xa0], "reason is not an unsigned 32-bit integer"),
        (&[0x94, 22, 1, 0, 0xa0], "discarded is not a boolean"),
        (&[0x94, 22, 1, 0xc2, 0xc4, 0], "text is not a string"),
        (&[0x94, 22, 1, 0xc2, 0xa1, 0xff], "text is not UTF-8"),
    ];
    for (bytes, why) in cases {
        assert_eq!(error(bytes), Some(why), "{bytes:02x?}");
    }
    let long = [&[0x94, 22, 1, 0xc2, 0xd9, 128], [b'x'; 128].as_slice()].concat();
    assert_eq!(error(&long), Some("text is longer than 127 bytes"));
    let long = [&[0x92, 16, 0xc5, 4, 1], [0; 1_025].as_slice()].concat();
    assert_eq!(error(&long), Some("parameters are longer than 1024 bytes"));
}

#[test]
fn what_stands_for_a_transport_frame() {
    let pairs = [
        (
            TransportFrame::Credit { channel: 3, limit: 9 },
            Some(LinkMessage::Credit { channel: 3, limit: 9 }),
        ),
        (
            TransportFrame::ChannelReset { channel: 3, code: 1, final_offset: 7 },
            Some(LinkMessage::Reset { channel: 3, code: 1, final_offset: 7 }),
        ),
        (
            TransportFrame::ChannelStop { channel: 3, code: 1 },
            Some(LinkMessage::Stop { channel: 3, code: 1 }),
        ),
        (TransportFrame::AckFrequency { threshold: 1, max_delay: Duration::ZERO }, None),
        (TransportFrame::PathChallenge([0; 8]), None),
        (TransportFrame::RetireConnectionId { sequence: 1 }, None),
    ];
    for (frame, message) in pairs {
        assert_eq!(LinkMessage::of(&frame), message);
    }
}
