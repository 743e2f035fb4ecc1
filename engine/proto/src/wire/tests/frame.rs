use super::bytes;
use crate::error::PeerMisbehaved;
use crate::limits::{FRAME_OVERHEAD, MAX_STREAM_OFFSET, TRANSPORT_CHANNEL};
use crate::wire::frame::{
    DatagramHeader, Frames, RawFrame, write_datagram_header, write_stream_header,
};
use crate::wire::transport::TransportFrame;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Item {
    Stream { channel: u16, offset: u64, body: Vec<u8> },
    Datagram { channel: u16, header: DatagramHeader, body: Vec<u8> },
    Transport(Vec<u8>),
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        (0..TRANSPORT_CHANNEL, 0..=MAX_STREAM_OFFSET, bytes(40))
            .prop_filter("an empty frame of CONTROL is padding", |(c, _, b)| {
                *c != 0 || !b.is_empty()
            })
            .prop_map(|(channel, offset, body)| Item::Stream { channel, offset, body }),
        (1..=40usize).prop_map(|n| Item::Stream { channel: 0, offset: 9, body: vec![0; n] }),
        (1..TRANSPORT_CHANNEL, any::<(u32, u8, u8)>(), bytes(40)).prop_map(
            |(channel, (id, index, count), body)| {
                let header = DatagramHeader { id, index, count };
                Item::Datagram { channel, header, body }
            }
        ),
        bytes(40).prop_map(Item::Transport),
    ]
}

fn write(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let mut head = [0; FRAME_OVERHEAD];
        match item {
            Item::Stream { channel, offset, body } => {
                write_stream_header(&mut head, *channel, *offset, body.len());
                out.extend(head);
                out.extend(body);
            }
            Item::Datagram { channel, header, body } => {
                write_datagram_header(&mut head, *channel, *header, body.len());
                out.extend(head);
                out.extend(body);
            }
            Item::Transport(body) => {
                out.extend((body.len() as u16).to_be_bytes());
                out.extend(TRANSPORT_CHANNEL.to_be_bytes());
                out.extend(body);
            }
        }
    }
    out
}

fn same(frame: &RawFrame<'_>, item: &Item) -> bool {
    match item {
        Item::Stream { channel, offset, body } => {
            frame.channel == *channel && frame.offset() == *offset && frame.body == body
        }
        Item::Datagram { channel, header, body } => {
            frame.channel == *channel && frame.datagram() == *header && frame.body == body
        }
        Item::Transport(body) => {
            frame.channel == TRANSPORT_CHANNEL && frame.extra == [0; 6] && frame.body == body
        }
    }
}

proptest! {
    #[test]
    fn frames_round_trip(items in prop::collection::vec(item(), 0..8), padding in 0..20usize) {
        let mut payload = write(&items);
        payload.resize(payload.len() + padding, 0);
        let frames: Vec<_> = Frames::new(&payload).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(frames.len(), items.len());
        for (frame, item) in frames.iter().zip(&items) {
            prop_assert!(same(frame, item), "{:?} is not {:?}", frame, item);
        }
    }

    #[test]
    fn a_cut_payload_gives_its_whole_frames_and_then_an_error(
        items in prop::collection::vec(item(), 1..5),
        cut: prop::sample::Index,
    ) {
        let payload = write(&items);
        let cut = cut.index(payload.len());
        let whole = (0..=items.len()).rev().find(|n| write(&items[..*n]).len() <= cut).unwrap();
        let start = write(&items[..whole]).len();
        let results: Vec<_> = Frames::new(&payload[..cut]).collect();
        for (frame, item) in results.iter().zip(&items[..whole]) {
            prop_assert!(same(&frame.unwrap(), item));
        }
        // Fewer than four zero bytes cannot be told from padding.
        if payload[start..cut].iter().all(|b| *b == 0) && cut - start < 4 {
            prop_assert_eq!(results.len(), whole);
        } else {
            prop_assert_eq!(results.len(), whole + 1);
            prop_assert!(results[whole].is_err());
        }
    }

    #[test]
    fn anything_but_zeros_in_the_padding_is_an_error(
        items in prop::collection::vec(item(), 0..3),
        padding in 5..40usize,
        at: prop::sample::Index,
        bit in 0..8u8,
    ) {
        let mut payload = write(&items);
        let start = payload.len();
        payload.resize(start + padding, 0);
        payload[start + 4 + at.index(padding - 4)] = 1 << bit;
        let results: Vec<_> = Frames::new(&payload).collect();
        prop_assert_eq!(results.len(), items.len() + 1);
        prop_assert_eq!(results[items.len()], Err(PeerMisbehaved::Malformed("padding")));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_nothing_is_read_twice(payload in bytes(200)) {
        let mut total = 0;
        let mut errors = 0;
        for frame in Frames::new(&payload) {
            prop_assert_eq!(errors, 0, "an error ends the iteration");
            match frame {
                Ok(f) => {
                    let extra = if f.channel == TRANSPORT_CHANNEL { 0 } else { 6 };
                    total += 4 + extra + f.body.len();
                    let _ = (f.offset(), f.datagram().check(f.body.len()));
                    let _ = TransportFrame::parse(f.body);
                }
                Err(_) => errors += 1,
            }
        }
        prop_assert!(total <= payload.len());
    }
}

#[test]
fn control_at_length_zero_is_padding() {
    assert_eq!(Frames::new(&[0; 4]).count(), 0);
    assert_eq!(Frames::new(&[0; 3]).count(), 0);
    assert_eq!(Frames::new(&[]).count(), 0);
    assert!(Frames::new(&[0, 0, 1]).next().unwrap().is_err());
    // Stream offset of what looks like an empty CONTROL frame.
    assert!(Frames::new(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 9]).next().unwrap().is_err());
}

#[test]
fn an_empty_body_is_an_eof() {
    let mut head = [0; FRAME_OVERHEAD];
    write_stream_header(&mut head, 7, 0x0102_0304_0506, 0);
    assert_eq!(head, [0, 0, 0, 7, 1, 2, 3, 4, 5, 6]);
    let frame = Frames::new(&head).next().unwrap().unwrap();
    assert_eq!((frame.channel, frame.offset(), frame.body.len()), (7, 0x0102_0304_0506, 0));
}

#[test]
fn datagram_headers_are_checked_against_the_body() {
    let check = |index, count, len| DatagramHeader { id: 1, index, count }.check(len).is_ok();
    assert!(check(0, 0, 0), "EOF");
    assert!(check(7, 0, 0), "the index of an EOF has no meaning");
    assert!(!check(0, 0, 1), "an EOF has no body");
    assert!(check(0, 1, 0), "empty message");
    assert!(check(0, 1, 9));
    assert!(!check(1, 1, 9), "index not below count");
    assert!(check(254, 255, 9));
    assert!(!check(255, 255, 9));
    assert!(!check(1, 2, 0), "an empty fragment of several");
    assert!(DatagramHeader { id: 1, index: 0, count: 0 }.is_eof());
}
