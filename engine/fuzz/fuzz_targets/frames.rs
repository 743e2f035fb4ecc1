//! Frames of an opened packet, and every TRANSPORT frame in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_proto::limits::TRANSPORT_CHANNEL;
use trunkline_proto::wire::frame::Frames;
use trunkline_proto::wire::transport::TransportFrame;

fuzz_target!(|data: &[u8]| {
    for frame in Frames::new(data) {
        let Ok(frame) = frame else { break };
        if frame.channel == TRANSPORT_CHANNEL
            && let Ok(TransportFrame::Ack(ack)) = TransportFrame::parse(frame.body)
        {
            assert!(ack.ranges().count() <= data.len() + 1);
        }
    }
});
