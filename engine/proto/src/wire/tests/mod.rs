//! Every parser takes arbitrary bytes without panicking, and gives back what its writer wrote.

mod ack;
mod codec;
mod control;
mod frame;
mod link_message;
mod packet;
mod params;
mod ranges;
mod transport;

use crate::wire::codec::VARINT_MAX;
use proptest::prelude::*;

/// Numbers that a varint can hold, all encoded lengths alike.
fn varint() -> impl Strategy<Value = u64> {
    prop_oneof![0..64u64, 64..1u64 << 14, 1 << 14..1u64 << 30, 1u64 << 30..=VARINT_MAX]
}

/// Arbitrary bytes, up to `max` of them.
fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=max)
}
