use super::{bytes, varint};
use crate::wire::codec::{Full, Reader, Truncated, VARINT_MAX, Writer, varint_len};
use proptest::prelude::*;

#[test]
fn varints_of_rfc_9000_a_1() {
    let samples: [(&[u8], u64); 5] = [
        (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
        (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
        (&[0x7b, 0xbd], 15_293),
        (&[0x25], 37),
        (&[0x40, 0x25], 37),
    ];
    for (encoded, value) in samples {
        assert_eq!(Reader::new(encoded).varint(), Ok(value));
    }
}

#[test]
fn varint_lengths_at_the_borders() {
    let borders = [(0, 1), (63, 1), (64, 2), (16_383, 2), (16_384, 4), ((1 << 30) - 1, 4)];
    for (value, len) in borders.into_iter().chain([(1 << 30, 8), (VARINT_MAX, 8)]) {
        let mut buf = [0; 8];
        let mut w = Writer::new(&mut buf);
        w.put_varint(value).unwrap();
        assert_eq!((w.written(), varint_len(value)), (len, len), "{value}");
        assert_eq!(Reader::new(w.as_written()).varint(), Ok(value));
    }
}

#[test]
fn a_varint_too_large_is_written_as_the_largest() {
    let mut buf = [0; 8];
    Writer::new(&mut buf).put_varint(u64::MAX).unwrap();
    assert_eq!(Reader::new(&buf).varint(), Ok(VARINT_MAX));
}

#[test]
fn a_failed_call_changes_nothing() {
    let mut r = Reader::new(&[0xc0, 1, 2]);
    assert_eq!(r.varint(), Err(Truncated));
    assert_eq!(r.u32(), Err(Truncated));
    assert_eq!(r.u48(), Err(Truncated));
    assert_eq!(r.bytes(4), Err(Truncated));
    assert_eq!(r.bytes(usize::MAX), Err(Truncated));
    assert_eq!(r.rest(), [0xc0, 1, 2]);
    assert_eq!(r.u8(), Err(Truncated));

    let mut buf = [0; 3];
    let mut w = Writer::new(&mut buf);
    assert_eq!(w.put_u32(1), Err(Full));
    assert_eq!(w.put_bytes(&[1; 4]), Err(Full));
    assert_eq!(w.put_zeros(usize::MAX), Err(Full));
    assert_eq!(w.written(), 0);
    w.put_u16(0x0102).unwrap();
    assert_eq!(w.put_varint(64), Err(Full));
    assert_eq!((w.written(), w.remaining()), (2, 1));
}

#[test]
fn a_patch_reaches_only_what_is_written() {
    let mut buf = [0xEE; 4];
    let mut w = Writer::new(&mut buf);
    w.put_u16(0).unwrap();
    w.patch_u16(0, 0x0102);
    w.patch_u16(1, 0xFFFF);
    w.patch_u16(9, 0xFFFF);
    w.patch_u8(2, 0xFF);
    w.patch_u8(1, 0x03);
    assert_eq!(buf, [1, 3, 0xEE, 0xEE]);
}

proptest! {
    #[test]
    fn varints_round_trip(value in varint(), room in 0..10usize) {
        let mut buf = [0; 10];
        let mut w = Writer::new(&mut buf[..room]);
        let result = w.put_varint(value);
        if room < varint_len(value) {
            prop_assert_eq!(result, Err(Full));
            prop_assert_eq!(w.written(), 0);
        } else {
            prop_assert_eq!(w.written(), varint_len(value));
            let mut r = Reader::new(w.as_written());
            prop_assert_eq!(r.varint(), Ok(value));
            prop_assert_eq!(r.remaining(), 0);
        }
    }

    #[test]
    fn integers_round_trip(a: u8, b: u16, c: u32, d in 0..1u64 << 48, e: u64, f: [u8; 5]) {
        let mut buf = [0; 40];
        let mut w = Writer::new(&mut buf);
        w.put_u8(a).unwrap();
        w.put_u16(b).unwrap();
        w.put_u32(c).unwrap();
        w.put_u48(d).unwrap();
        w.put_u64(e).unwrap();
        w.put_bytes(&f).unwrap();
        prop_assert_eq!(w.written(), 1 + 2 + 4 + 6 + 8 + 5);
        let mut r = Reader::new(w.as_written());
        prop_assert_eq!((r.u8(), r.u16(), r.u32()), (Ok(a), Ok(b), Ok(c)));
        prop_assert_eq!((r.u48(), r.u64(), r.array()), (Ok(d), Ok(e), Ok(f)));
        prop_assert_eq!(r.remaining(), 0);
    }

    #[test]
    fn a_reader_never_gives_more_than_there_is(input in bytes(32), steps in bytes(16)) {
        let mut r = Reader::new(&input);
        for step in steps {
            let before = r.remaining();
            let ok = match step % 7 {
                0 => r.u8().is_ok(),
                1 => r.u16().is_ok(),
                2 => r.u32().is_ok(),
                3 => r.u48().is_ok(),
                4 => r.u64().is_ok(),
                5 => r.varint().is_ok(),
                _ => r.bytes(usize::from(step)).is_ok_and(|b| !b.is_empty()),
            };
            // The shortest read takes one byte; a failed one takes none.
            prop_assert_eq!(ok, r.remaining() < before);
        }
    }
}
