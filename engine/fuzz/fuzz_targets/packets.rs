//! Packet headers and transport parameters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_proto::wire::packet::{LongPacket, ShortHeader};
use trunkline_proto::wire::params::TransportParams;

fuzz_target!(|data: &[u8]| {
    let _ = ShortHeader::parse(data);
    if let Ok(LongPacket::Sealed(header)) = LongPacket::parse(data) {
        assert!(header.packet_len() <= data.len());
    }
    if let Ok(params) = TransportParams::parse(data) {
        assert_eq!(TransportParams::parse(&params.encode()), Ok(params));
    }
});
