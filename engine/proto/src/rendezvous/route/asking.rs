//! Asking the event source under which address a socket is seen: a plain STUN Binding request
//! (RFC 8489), and its answer.

use crate::rendezvous::stun::{
    BINDING_REQUEST, BINDING_SUCCESS, HEADER, MAGIC_COOKIE, MAX_MESSAGE, XOR_MAPPED_ADDRESS,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Names a request, so that only who has received it can answer.
pub(super) type Transaction = [u8; 12];

/// A Binding request without attributes.
pub(super) fn request(transaction: Transaction) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..2].copy_from_slice(&BINDING_REQUEST);
    out[4..8].copy_from_slice(&MAGIC_COOKIE);
    out[8..].copy_from_slice(&transaction);
    out
}

/// The transaction of a Binding success response; `None` for anything else.
pub(super) fn answered(packet: &[u8]) -> Option<Transaction> {
    let header = packet.first_chunk::<HEADER>().filter(|_| packet.len() <= MAX_MESSAGE)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fits = header[..2] == BINDING_SUCCESS && header[4..8] == MAGIC_COOKIE;
    (fits && length == packet.len() - HEADER).then(|| {
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&header[8..]);
        transaction
    })
}

/// The address that a Binding success response tells.
pub(super) fn mapped(packet: &[u8]) -> Option<SocketAddr> {
    let mask = packet.get(4..HEADER)?;
    let mut attributes = packet.get(HEADER..)?;
    while let Some(([k0, k1, l0, l1], rest)) = attributes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = rest.get(..length)?;
        if u16::from_be_bytes([*k0, *k1]) == XOR_MAPPED_ADDRESS {
            let [_, family, p0, p1, address @ ..] = value else { return None };
            let port = u16::from_be_bytes([p0 ^ mask[0], p1 ^ mask[1]]);
            let mut bytes = [0; 16];
            let plain = bytes.get_mut(..address.len())?;
            for (to, (from, mask)) in plain.iter_mut().zip(address.iter().zip(mask)) {
                *to = from ^ mask;
            }
            let ip: IpAddr = match (family, address.len()) {
                (1, 4) => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
                (2, 16) => Ipv6Addr::from(bytes).into(),
                _ => return None,
            };
            return Some(SocketAddr::new(ip, port));
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}
