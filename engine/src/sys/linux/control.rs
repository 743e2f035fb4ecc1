//! Control messages (`cmsg(3)`), written and read as bytes in the kernel's own layout: a length of
//! the machine's word size, level, type, data, padding to the word size.

use super::super::{Outgoing, Received};
use super::address::travels_as_v4;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const WORD: usize = size_of::<usize>();
const HEADER: usize = (WORD + 8).next_multiple_of(WORD);

/// Room for everything that a received datagram can come with: the local address (20 bytes of
/// data at most), ECN, segment size and drop count (4 each), with some to spare.
pub const RECEIVE_CONTROL_BYTES: usize = 144;
/// Room for everything that is sent along: segment size, ECN, local address.
pub const SEND_CONTROL_BYTES: usize = 96;

const _: () = {
    let int = HEADER + WORD.next_multiple_of(8);
    let address = HEADER + 20usize.next_multiple_of(WORD);
    assert!(address + 3 * int <= RECEIVE_CONTROL_BYTES);
    assert!(address + 2 * int <= SEND_CONTROL_BYTES);
    assert!(RECEIVE_CONTROL_BYTES.is_multiple_of(8));
};

const SOL_UDP: i32 = libc::SOL_UDP;

/// The control messages of one send.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct SendControl {
    bytes: [u8; SEND_CONTROL_BYTES],
    len: usize,
}

impl SendControl {
    /// None.
    pub const EMPTY: Self = Self { bytes: [0; SEND_CONTROL_BYTES], len: 0 };

    /// Writes what `message` needs: the segment size for more than one packet, the ECN mark, the
    /// local address.
    pub fn set(&mut self, message: &Outgoing<'_>) {
        self.len = 0;
        let v4 = travels_as_v4(message.remote.ip());
        if message.segment < message.bytes.len() {
            let segment = message.segment as u16;
            self.push(SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if message.ecn != 0 {
            let mark = i32::from(message.ecn & 3).to_ne_bytes();
            if v4 {
                self.push(libc::IPPROTO_IP, libc::IP_TOS, &mark);
            } else {
                self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mark);
            }
        }
        match message.local {
            Some(IpAddr::V4(ip)) => self.push_local_v4(ip),
            Some(IpAddr::V6(ip)) if v4 => {
                if let Some(ip) = ip.to_ipv4_mapped() {
                    self.push_local_v4(ip);
                }
            }
            // in6_pktinfo: address, interface (0: by routing).
            Some(IpAddr::V6(ip)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                if let std::net::SocketAddr::V6(remote) = message.remote {
                    info[16..].copy_from_slice(&remote.scope_id().to_ne_bytes());
                }
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
    }

    /// in_pktinfo: interface (0: by routing), the source address, an address unused for sending.
    fn push_local_v4(&mut self, ip: Ipv4Addr) {
        let mut info = [0; 12];
        info[4..8].copy_from_slice(&ip.octets());
        self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let start = self.len;
        let end = start + HEADER + data.len();
        let Some(room) = self.bytes.get_mut(start..end) else {
            debug_assert!(false, "control messages larger than their room");
            return;
        };
        room[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        room[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        room[WORD + 4..WORD + 8].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..].copy_from_slice(data);
        self.len = end.next_multiple_of(WORD).min(SEND_CONTROL_BYTES);
    }

    /// The bytes written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Where the kernel reads them.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }
}

/// Completes `received` from the control messages that came with it.
#[inline]
pub fn describe(mut control: &[u8], received: &mut Received) {
    while let Some((length, rest)) = control.split_first_chunk::<WORD>() {
        let length = usize::from_ne_bytes(*length);
        let (Some(level), Some(kind)) =
            (rest.first_chunk::<4>(), rest.get(4..).and_then(|r| r.first_chunk::<4>()))
        else {
            return;
        };
        let Some(data) = control.get(HEADER..length) else { return };
        apply(i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data, received);
        let Some(next) = control.get(length.next_multiple_of(WORD)..) else { return };
        control = next;
    }
}

#[inline]
fn apply(level: i32, kind: i32, data: &[u8], received: &mut Received) {
    match (level, kind) {
        (SOL_UDP, libc::UDP_GRO) => {
            if let Some(size) = data.first_chunk::<4>() {
                let size = i32::from_ne_bytes(*size);
                if size > 0 && (size as usize) < received.len {
                    received.stride = size as usize;
                }
            }
        }
        // One byte.
        (libc::IPPROTO_IP, libc::IP_TOS) => {
            if let Some(tos) = data.first() {
                received.ecn = tos & 3;
            }
        }
        // An int.
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            if let Some(class) = data.first_chunk::<4>() {
                received.ecn = (i32::from_ne_bytes(*class) & 3) as u8;
            }
        }
        // in_pktinfo: interface, local address, destination of the header. The last one.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            if let Some(ip) = data.get(8..).and_then(|d| d.first_chunk::<4>()) {
                received.local = Some(IpAddr::V4(Ipv4Addr::from(*ip)));
            }
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            if let Some(ip) = data.first_chunk::<16>() {
                received.local = Some(IpAddr::V6(Ipv6Addr::from(*ip)));
            }
        }
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
            if let Some(count) = data.first_chunk::<4>() {
                received.dropped = Some(u32::from_ne_bytes(*count));
            }
        }
        _ => {}
    }
}
