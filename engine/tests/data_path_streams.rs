//! What the data path over TLS and TCP costs, counted over real sockets: nothing for a message, and
//! for a TLS record what rustls takes. Its records are vectors of its own (its unbuffered interface
//! makes fewer, but gives no exporter, which connections are bound to).

#[path = "../proto/tests/sim/alloc.rs"]
#[allow(dead_code, missing_docs, clippy::cast_possible_wrap)]
mod alloc;
mod common;
#[path = "common/rig.rs"]
#[allow(dead_code)]
mod rig;

use common::drivers;
use rig::Rig;
use trunkline::ChannelKind;

/// Bytes of a full TLS record (RFC 8446 §5.1).
const RECORD: u64 = 16_384;
/// What one may cost on both sides together: made, received, and the buffers of both.
const EACH: u64 = 3;
/// What the counters of a whole transfer may cost: tables that grow now and then.
const FEW: u64 = 64;

#[test]
fn a_message_costs_no_allocation_and_a_record_few() {
    for driver in drivers() {
        for (kind, len, count) in [
            (ChannelKind::Messages, 64, 200_000),
            (ChannelKind::Messages, 65_536, 2_000),
            (ChannelKind::Bytes, 65_536, 2_000),
        ] {
            let used = Rig::measured(driver, kind, len, count);
            let records = used.bytes.div_ceil(RECORD);
            println!("{:.2} allocations a record", used.allocations as f64 / records as f64);
            assert!(used.bytes == len as u64 * count, "{used:?}");
            assert!(used.allocations <= EACH * records + FEW, "{driver} {kind:?} {len}: {used:?}");
        }
    }
}
