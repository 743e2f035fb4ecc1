//! Socket addresses in the form the kernel wants, written and read as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the longer form (`sockaddr_in6`).
pub const NAME_BYTES: usize = 28;
const V4_BYTES: usize = 16;

const FAMILY_V4: [u8; 2] = (libc::AF_INET as u16).to_ne_bytes();
const FAMILY_V6: [u8; 2] = (libc::AF_INET6 as u16).to_ne_bytes();

/// `sockaddr_in` or `sockaddr_in6`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Name {
    bytes: [u8; NAME_BYTES],
}

impl Name {
    /// Room for an address.
    pub const EMPTY: Self = Self { bytes: [0; NAME_BYTES] };

    /// Writes `address` and returns the length of its form.
    pub fn set(&mut self, address: &SocketAddr) -> u32 {
        self.bytes = [0; NAME_BYTES];
        let b = &mut self.bytes;
        b[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                b[..2].copy_from_slice(&FAMILY_V4);
                b[4..8].copy_from_slice(&v4.ip().octets());
                V4_BYTES as u32
            }
            SocketAddr::V6(v6) => {
                b[..2].copy_from_slice(&FAMILY_V6);
                b[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                b[8..24].copy_from_slice(&v6.ip().octets());
                b[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                NAME_BYTES as u32
            }
        }
    }

    /// Reads the address from the first bytes of what the kernel wrote.
    pub fn read(bytes: &[u8]) -> Option<SocketAddr> {
        let family: [u8; 2] = *bytes.first_chunk()?;
        let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        if family == FAMILY_V4 {
            let ip: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port)))
        } else if family == FAMILY_V6 {
            let ip: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            // The flow label is not part of the peer's address: two packets of one peer may differ.
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope)))
        } else {
            None
        }
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; NAME_BYTES] {
        &self.bytes
    }

    /// Where the kernel writes, or reads.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }
}

/// Whether datagrams to `ip` travel as IPv4, mapped addresses included.
pub(super) fn travels_as_v4(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    }
}
