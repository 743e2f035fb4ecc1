//! The CONTROL stream: msgpack values back to back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_proto::wire::control;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some(len)) = control::next_value(rest) {
        assert!(len > 0 && len <= rest.len());
        let _ = control::parse(&rest[..len]);
        rest = &rest[len..];
    }
});
