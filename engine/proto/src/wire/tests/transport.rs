use super::{bytes, varint};
use crate::error::{PeerMisbehaved, Reason};
use crate::ids::ConnectionId;
use crate::limits::{MAX_REASON_TEXT, MAX_STREAM_OFFSET, TRANSPORT_CHANNEL};
use crate::time::Duration;
use crate::wire::codec::{Full, Writer};
use crate::wire::frame::Frames;
use crate::wire::transport::{TransportFrame, kind};
use proptest::prelude::*;

/// Owns what a frame borrows.
#[derive(Clone, Debug)]
enum Owned {
    Plain(TransportFrame<'static>),
    Close(u32, bool, String),
    Crypto(u64, Vec<u8>),
}

impl Owned {
    fn frame(&self) -> TransportFrame<'_> {
        match self {
            Self::Plain(frame) => *frame,
            Self::Close(reason, discarded, text) => {
                TransportFrame::Close { reason: Reason(*reason), discarded: *discarded, text }
            }
            Self::Crypto(offset, data) => TransportFrame::Crypto { offset: *offset, data },
        }
    }
}

/// Every frame but CRYPTO, whose data takes what is left of the body.
fn exact_frame() -> impl Strategy<Value = Owned> {
    use TransportFrame as F;
    let channel = || 1..TRANSPORT_CHANNEL;
    let plain = prop_oneof![
        Just(F::Ping),
        Just(F::CloseAck),
        (0..TRANSPORT_CHANNEL, varint()).prop_map(|(channel, limit)| F::Credit { channel, limit }),
        varint().prop_map(|limit| F::EarlyCredit { limit }),
        (channel(), any::<u32>(), 0..=MAX_STREAM_OFFSET).prop_map(
            |(channel, code, final_offset)| F::ChannelReset { channel, code, final_offset }
        ),
        (channel(), any::<u32>()).prop_map(|(channel, code)| F::ChannelStop { channel, code }),
        any::<[u8; 8]>().prop_map(F::PathChallenge),
        any::<[u8; 8]>().prop_map(F::PathResponse),
        (varint(), varint(), any::<[u8; 8]>(), any::<[u8; 16]>()).prop_map(|(a, b, id, token)| {
            F::NewConnectionId {
                sequence: a.max(b),
                retire_prior_to: a.min(b),
                id: ConnectionId(id),
                token,
            }
        }),
        varint().prop_map(|sequence| F::RetireConnectionId { sequence }),
        (varint(), 0..=1_000_000u64).prop_map(|(threshold, us)| F::AckFrequency {
            threshold: threshold.max(1),
            max_delay: Duration::from_micros(us)
        }),
    ];
    let close = (any::<u32>(), any::<bool>(), "\\PC{0,30}");
    prop_oneof![
        11 => plain.prop_map(Owned::Plain),
        1 => close.prop_map(|(reason, discarded, text)| Owned::Close(reason, discarded, text)),
    ]
}

fn frame() -> impl Strategy<Value = Owned> {
    let crypto = (0..1u64 << 60, bytes(64)).prop_map(|(offset, data)| Owned::Crypto(offset, data));
    prop_oneof![12 => exact_frame(), 1 => crypto]
}

fn encode(frame: &TransportFrame<'_>) -> Vec<u8> {
    let mut buf = [0; 512];
    let mut w = Writer::new(&mut buf);
    frame.write(&mut w).unwrap();
    w.as_written().to_vec()
}

fn decode(encoded: &[u8]) -> TransportFrame<'_> {
    let mut frames = Frames::new(encoded);
    let raw = frames.next().unwrap().unwrap();
    assert_eq!(raw.channel, TRANSPORT_CHANNEL);
    assert!(frames.next().is_none());
    TransportFrame::parse(raw.body).unwrap()
}

proptest! {
    #[test]
    fn frames_round_trip(owned in frame()) {
        let frame = owned.frame();
        let encoded = encode(&frame);
        prop_assert_eq!(encoded.len(), frame.encoded_len());
        prop_assert_eq!(encoded[4], frame.kind());
        prop_assert_eq!(decode(&encoded), frame);
    }

    #[test]
    fn without_room_nothing_is_written(owned in frame(), room: prop::sample::Index) {
        let frame = owned.frame();
        let mut buf = vec![0xEE; room.index(frame.encoded_len())];
        let mut w = Writer::new(&mut buf);
        prop_assert_eq!(frame.write(&mut w), Err(Full));
        prop_assert_eq!(w.written(), 0);
        prop_assert!(buf.iter().all(|b| *b == 0xEE));
    }

    #[test]
    fn bodies_are_exact(owned in exact_frame(), cut: prop::sample::Index, extra: u8) {
        let encoded = encode(&owned.frame());
        let body = &encoded[4..];
        prop_assert!(TransportFrame::parse(&body[..cut.index(body.len())]).is_err());
        let mut longer = body.to_vec();
        longer.push(extra);
        prop_assert!(TransportFrame::parse(&longer).is_err());
    }

    #[test]
    fn arbitrary_bodies_never_panic_and_what_parses_can_be_written(
        kind in 0..0x20u8,
        rest in bytes(80),
    ) {
        let mut body = vec![kind];
        body.extend(rest);
        if let Ok(frame) = TransportFrame::parse(&body) {
            let encoded = encode(&frame);
            prop_assert_eq!(encoded.len(), frame.encoded_len());
            prop_assert_eq!(decode(&encoded), frame);
        }
    }
}

fn malformed(body: &[u8]) -> &'static str {
    match TransportFrame::parse(body) {
        Err(PeerMisbehaved::Malformed(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_name_the_frame() {
    assert_eq!(malformed(&[]), "TRANSPORT frame");
    assert_eq!(malformed(&[0]), "TRANSPORT frame type");
    assert_eq!(malformed(&[0x0f]), "TRANSPORT frame type");
    assert_eq!(malformed(&[0xff]), "TRANSPORT frame type");
    assert_eq!(malformed(&[kind::PING, 0]), "PING");
    assert_eq!(malformed(&[kind::CREDIT, 0xFF, 0xFF, 1]), "CREDIT");
    assert_eq!(malformed(&[kind::CHANNEL_RESET, 0, 0, 0, 0, 0, 1, 1]), "CHANNEL_RESET");
    assert_eq!(malformed(&[kind::CHANNEL_RESET, 255, 255, 0, 0, 0, 1, 1]), "CHANNEL_RESET");
    assert_eq!(malformed(&[kind::CHANNEL_STOP, 0, 0, 0, 0, 0, 1]), "CHANNEL_STOP");
    assert_eq!(malformed(&[kind::CHANNEL_STOP, 255, 255, 0, 0, 0, 1]), "CHANNEL_STOP");
    let mut reset = vec![kind::CHANNEL_RESET, 0, 1, 0, 0, 0, 0];
    reset.extend([0xC1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(malformed(&reset), "CHANNEL_RESET", "final offset beyond 48 bits");
    let mut crypto = vec![kind::CRYPTO];
    crypto.extend([0xFF; 9]);
    assert_eq!(malformed(&crypto), "CRYPTO", "offset beyond 62 bits");
    assert_eq!(malformed(&[kind::ACK_FREQUENCY, 0, 1]), "ACK_FREQUENCY", "no threshold");
    let slow = [kind::ACK_FREQUENCY, 1, 0x80, 0x0F, 0x42, 0x41];
    assert_eq!(malformed(&slow), "ACK_FREQUENCY", "more than a second");
    let mut id = vec![kind::NEW_CONNECTION_ID, 1, 2];
    id.extend([0; 24]);
    assert_eq!(malformed(&id), "NEW_CONNECTION_ID", "retires itself");
}

#[test]
fn close_is_checked() {
    let close = |discarded: u8, text: &[u8]| {
        let mut body = vec![kind::CLOSE, 0, 0, 3, 232, discarded, text.len() as u8];
        body.extend(text);
        TransportFrame::parse(&body).is_ok()
    };
    assert!(close(0, b"bye") && close(1, b"") && close(1, &[b'x'; MAX_REASON_TEXT]));
    assert!(!close(2, b"bye"));
    assert!(!close(0, &[b'x'; MAX_REASON_TEXT + 1]));
    assert!(!close(0, &[0xC3]), "not UTF-8");
}

#[test]
fn a_long_close_text_is_cut_at_a_character() {
    let text = "ä".repeat(100);
    let frame = TransportFrame::Close { reason: Reason::APP, discarded: false, text: &text };
    let encoded = encode(&frame);
    assert_eq!(encoded.len(), frame.encoded_len());
    match decode(&encoded) {
        TransportFrame::Close { text, .. } => assert_eq!(text, "ä".repeat(63)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_body_too_long_for_a_frame_is_refused() {
    let data = vec![0; 70_000];
    let mut buf = vec![0; 80_000];
    let mut w = Writer::new(&mut buf);
    assert_eq!(TransportFrame::Crypto { offset: 0, data: &data }.write(&mut w), Err(Full));
    assert_eq!(w.written(), 0);
}

#[test]
fn which_frames_ask_for_an_acknowledgement_and_may_stand_in_long_packets() {
    let ack = [kind::ACK, 9, 0, 0, 0, 0];
    let ack = TransportFrame::parse(&ack).unwrap();
    let close = TransportFrame::Close { reason: Reason::APP, discarded: false, text: "" };
    let crypto = TransportFrame::Crypto { offset: 0, data: b"x" };
    let cases = [
        (ack, false, true),
        (close, false, true),
        (TransportFrame::CloseAck, false, false),
        (TransportFrame::Ping, true, true),
        (crypto, true, true),
        (TransportFrame::EarlyCredit { limit: 1 }, true, false),
        (TransportFrame::PathChallenge([0; 8]), true, false),
    ];
    for (frame, eliciting, handshake) in cases {
        assert_eq!(frame.is_ack_eliciting(), eliciting, "{frame:?}");
        assert_eq!(frame.is_allowed_in_handshake(), handshake, "{frame:?}");
    }
}
