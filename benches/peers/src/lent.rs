//! Messages that a transport may keep instead of copying them, in the type that quinn and s2n-quic
//! take.

use crate::payload::Lender;
use bytes::Bytes;
use std::sync::Arc;

struct Lent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The next message of `lender`, which has it back once the transport has let it go.
pub fn lent(lender: &mut Lender) -> Bytes {
    Bytes::from_owner(Lent(lender.message()))
}
