use super::{bytes, varint};
use crate::error::PeerMisbehaved;
use crate::limits::MAX_ACK_RANGES;
use crate::time::Duration;
use crate::wire::ack::{AckFrame, EcnCounts, write_ack};
use crate::wire::codec::{Full, VARINT_MAX, Writer};
use crate::wire::frame::Frames;
use crate::wire::ranges::RangeSet;
use crate::wire::transport::{TransportFrame, kind};
use core::ops::RangeInclusive;
use proptest::prelude::*;

fn received() -> impl Strategy<Value = RangeSet> {
    let range = (0..1u64 << 40, 1..5000u64);
    let near = (0..2000u64, 1..6u64);
    prop::collection::vec(prop_oneof![1 => range, 3 => near], 1..100).prop_map(|ranges| {
        let mut set = RangeSet::new();
        for (start, len) in ranges {
            set.insert(start..start + len);
        }
        set
    })
}

fn newest_first(set: &RangeSet) -> impl Iterator<Item = RangeInclusive<u64>> + Clone + '_ {
    set.iter().rev().map(|r| r.start..=r.end - 1)
}

fn ecn() -> impl Strategy<Value = Option<EcnCounts>> {
    prop::option::of((varint(), varint(), varint()))
        .prop_map(|e| e.map(|(ect0, ect1, ce)| EcnCounts { ect0, ect1, ce }))
}

fn parse(encoded: &[u8]) -> AckFrame<'_> {
    let raw = Frames::new(encoded).next().unwrap().unwrap();
    assert_eq!(raw.body.len() + 4, encoded.len());
    match TransportFrame::parse(raw.body).unwrap() {
        TransportFrame::Ack(ack) => ack,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn acks_round_trip(
        set in received(),
        delay_us in 0..1u64 << 40,
        ecn in ecn(),
        room in 0..700usize,
    ) {
        let mut buf = [0; 700];
        let mut w = Writer::new(&mut buf[..room]);
        let delay = Duration::from_micros(delay_us);
        match write_ack(&mut w, delay, newest_first(&set), ecn) {
            Err(Full) => {
                prop_assert_eq!(w.written(), 0);
                prop_assert!(room < 4 + 1 + 8 + 8 + 1 + 1 + 8 + 24, "one range must fit");
            }
            Ok(count) => {
                prop_assert!(count >= 1 && count <= set.len().min(MAX_ACK_RANGES));
                if room == 700 {
                    prop_assert_eq!(count, set.len().min(MAX_ACK_RANGES));
                }
                let ack = parse(w.as_written());
                prop_assert_eq!(ack.largest, set.last().unwrap().end - 1);
                prop_assert_eq!((ack.delay, ack.ecn), (delay, ecn));
                let expected: Vec<_> = newest_first(&set).take(count).collect();
                prop_assert_eq!(ack.ranges().collect::<Vec<_>>(), expected);
                prop_assert_eq!(TransportFrame::Ack(ack).encoded_len(), w.written());
            }
        }
    }

    #[test]
    fn a_frame_that_was_parsed_can_be_written_again(set in received(), ecn in ecn()) {
        let mut buf = [0; 1500];
        let mut w = Writer::new(&mut buf);
        write_ack(&mut w, Duration::from_micros(7), newest_first(&set), ecn).unwrap();
        let ack = parse(w.as_written());
        let mut again = [0; 1500];
        let mut v = Writer::new(&mut again);
        TransportFrame::Ack(ack).write(&mut v).unwrap();
        prop_assert_eq!(v.as_written(), w.as_written());
    }

    #[test]
    fn arbitrary_bodies_never_panic_and_give_falling_ranges(body in bytes(64)) {
        let mut ack = vec![kind::ACK];
        ack.extend(body);
        if let Ok(TransportFrame::Ack(ack)) = TransportFrame::parse(&ack) {
            let mut below = ack.largest + 1;
            let mut count = 0;
            for range in ack.ranges() {
                prop_assert!(range.start() <= range.end());
                prop_assert!(*range.end() < below);
                // Neither overlapping nor adjacent.
                prop_assert!(count == 0 || range.end() + 1 < below);
                below = *range.start();
                count += 1;
            }
            prop_assert!((1..=MAX_ACK_RANGES).contains(&count));
        }
    }
}

#[test]
fn without_ranges_nothing_is_written() {
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    assert_eq!(write_ack(&mut w, Duration::ZERO, core::iter::empty(), None), Ok(0));
    assert_eq!(w.written(), 0);
}

#[test]
fn at_most_64_ranges_are_written_and_the_newest_are_kept() {
    let ranges = (0..200u64).rev().map(|n| n * 2..=n * 2);
    let mut buf = [0; 1200];
    let mut w = Writer::new(&mut buf);
    assert_eq!(write_ack(&mut w, Duration::ZERO, ranges.clone(), None), Ok(MAX_ACK_RANGES));
    let ack = parse(w.as_written());
    assert!(ack.ranges().eq(ranges.take(MAX_ACK_RANGES)));
}

#[test]
fn the_largest_numbers_work() {
    let ranges = [VARINT_MAX - 1..=VARINT_MAX, 0..=VARINT_MAX - 3];
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    assert_eq!(write_ack(&mut w, Duration::ZERO, ranges.clone().into_iter(), None), Ok(2));
    assert!(parse(w.as_written()).ranges().eq(ranges));
}

#[test]
fn broken_acks_are_refused() {
    let parse = |body: &[u8]| TransportFrame::parse(body).map(drop);
    let malformed = Err(PeerMisbehaved::Malformed("ACK"));
    assert_eq!(parse(&[kind::ACK, 5, 0, 0, 0, 5]), Ok(()));
    assert_eq!(parse(&[kind::ACK, 5, 0, 0, 0, 6]), malformed, "range below zero");
    assert_eq!(parse(&[kind::ACK, 9, 0, 0, 1, 1, 0, 6]), Ok(()));
    assert_eq!(parse(&[kind::ACK, 9, 0, 0, 1, 1, 0, 7]), malformed, "second range below zero");
    assert_eq!(parse(&[kind::ACK, 9, 0, 0, 1, 1, 7, 0]), malformed, "gap below zero");
    assert_eq!(parse(&[kind::ACK, 9, 0, 0, 1, 1, 0]), malformed, "range missing");
    assert_eq!(parse(&[kind::ACK, 9, 0, 1, 0, 1, 0, 0]), malformed, "ECN counter missing");
    assert_eq!(parse(&[kind::ACK, 9, 0, 0, 0, 1, 0]), malformed, "byte too many");
    assert_eq!(
        parse(&[kind::ACK, 9, 0, 2, 0, 1]),
        Err(PeerMisbehaved::Malformed("ACK flags")),
        "reserved flag"
    );
    let mut many = vec![kind::ACK, 0x7F, 0xFF, 0, 0, 0x40, MAX_ACK_RANGES as u8, 0];
    many.extend([0; 2 * MAX_ACK_RANGES]);
    assert_eq!(parse(&many), Err(PeerMisbehaved::Limit("ACK ranges")));
    many.truncate(many.len() - 2);
    many[5] -= 1;
    assert_eq!(parse(&many), Ok(()), "63 more ranges are the most");
}
