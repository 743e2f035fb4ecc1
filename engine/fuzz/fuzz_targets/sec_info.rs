//! Stored security information: whatever can be read is written the same way again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_proto::connection::SecInfo;

fuzz_target!(|data: &[u8]| {
    if let Ok(info) = SecInfo::from_bytes(data) {
        assert_eq!(info.to_bytes(), data);
    }
});
