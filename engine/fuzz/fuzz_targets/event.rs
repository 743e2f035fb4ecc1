//! Events, credentials and tokens of an event source.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_proto::limits::{MAX_CLIENT_ID, MAX_EVENT_BODY};
use trunkline_proto::rendezvous::{KeyRing, event, token};

fuzz_target!(|data: &[u8]| {
    if let Ok(read) = event::decode(data) {
        assert!(read.body.len() <= MAX_EVENT_BODY && read.to.len() <= MAX_CLIENT_ID);
        let mut again = Vec::new();
        event::encode(&mut again, &read);
        assert_eq!(event::decode(&again), Ok(read));
    }
    if let Ok(text) = core::str::from_utf8(data) {
        let _ = token::dangerous_inspect(text);
        let mut keys = KeyRing::new();
        keys.add("k1", &[1; 32]).unwrap();
        assert!(keys.verify(text, 0).is_err(), "a forged token");
    }
});
