//! The key of the search for routes between two peers.

use ring::hmac;

/// Made from what only the two sides of a connection know: it authenticates what they tell each
/// other about their addresses and is the root of the passwords of their connectivity checks.
pub(crate) fn route_key(exporter: &[u8; 32]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, exporter);
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, b"trunkline route 1").as_ref());
    out
}
