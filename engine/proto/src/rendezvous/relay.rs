//! The message of the `relay` channel: one packet of a connection between two clients, and which
//! of them it is for (on the way to the event source) or comes from (on the way from it).
//!
//! One byte with the length of the client id, the client id, and then the packet up to the end of
//! the message (`docs/routes.md`). The event source reads nothing of the packet, which is sealed
//! end to end.

use super::names::is_name;
use crate::limits::{MAX_CLIENT_ID, MAX_RELAY_MESSAGE, MAX_RELAY_PACKET};

/// A packet and the client at the other end of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRef<'a> {
    /// Whom it is for, or who sent it.
    pub client: &'a str,
    /// 1 to [`MAX_RELAY_PACKET`] bytes.
    pub packet: &'a [u8],
}

/// Bytes that are no message of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// It names no client, or carries nothing.
    #[error("relayed message: {0}")]
    Malformed(&'static str),
    /// The packet is longer than [`MAX_RELAY_PACKET`].
    #[error("relayed packet is longer than 1200 bytes")]
    TooLarge,
}

/// Appends a message. `client` is a name, and `packet` within its bounds.
pub fn encode(out: &mut Vec<u8>, client: &str, packet: &[u8]) {
    debug_assert!(client.len() <= MAX_CLIENT_ID && packet.len() <= MAX_RELAY_PACKET);
    out.push(client.len() as u8);
    out.extend_from_slice(client.as_bytes());
    out.extend_from_slice(packet);
}

/// Reads a message.
///
/// # Errors
/// [`RelayError`]: its packet is too large, or it is malformed.
pub fn decode(message: &[u8]) -> Result<RelayRef<'_>, RelayError> {
    if message.len() > MAX_RELAY_MESSAGE {
        return Err(RelayError::TooLarge);
    }
    let malformed = RelayError::Malformed;
    let (length, rest) = message.split_first().ok_or(malformed("it is empty"))?;
    let (client, packet) =
        rest.split_at_checked(usize::from(*length)).ok_or(malformed("it ends in the client id"))?;
    let client = core::str::from_utf8(client).ok().filter(|client| is_name(client));
    let client = client.ok_or(malformed("its client id is none"))?;
    match packet.len() {
        0 => Err(malformed("it has no packet")),
        length if length > MAX_RELAY_PACKET => Err(RelayError::TooLarge),
        _ => Ok(RelayRef { client, packet }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_of_the_document() {
        let mut out = Vec::new();
        encode(&mut out, "bob", &[0x40, 1, 2]);
        assert_eq!(out, [3, b'b', b'o', b'b', 0x40, 1, 2]);
        assert_eq!(decode(&out), Ok(RelayRef { client: "bob", packet: &[0x40, 1, 2] }));
    }

    #[test]
    fn bad_messages_are_refused() {
        let malformed = |bytes: &[u8]| matches!(decode(bytes), Err(RelayError::Malformed(_)));
        assert!(malformed(b""));
        assert!(malformed(b"\0x"), "no name");
        assert!(malformed(b"\x04bob"), "the name is cut off");
        assert!(malformed(b"\x03bob"), "no packet");
        assert!(malformed(b"\x03b bx"), "not a name");
        assert!(malformed(b"\x01\xffx"), "not UTF-8");
        let mut long_name = vec![65];
        long_name.extend([b'a'; 66]);
        assert!(malformed(&long_name));
        let mut whole = Vec::new();
        encode(&mut whole, &"n".repeat(MAX_CLIENT_ID), &[7; MAX_RELAY_PACKET]);
        assert_eq!(whole.len(), MAX_RELAY_MESSAGE);
        assert!(decode(&whole).is_ok());
        whole.push(7);
        assert_eq!(decode(&whole), Err(RelayError::TooLarge));
        let mut out = vec![1, b'a'];
        out.extend([7; MAX_RELAY_PACKET + 1]);
        assert_eq!(decode(&out), Err(RelayError::TooLarge));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
            if let Ok(read) = decode(&bytes) {
                let mut out = Vec::new();
                encode(&mut out, read.client, read.packet);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
