//! The blocks of a capture file (pcapng, draft-ietf-opsawg-pcapng), little-endian, and the headers
//! that are made up around captured bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

/// Interface of the packets in the clear.
pub(super) const CLEAR: u32 = 0;
/// Interface of the TCP segments of stream links.
pub(super) const SEGMENTS: u32 = 1;
/// Number of interfaces.
pub(super) const INTERFACES: usize = 2;

/// `LINKTYPE_WIRESHARK_UPPER_PDU`: tags that name a dissector and the addresses, then the bytes.
const LINKTYPE_UPPER_PDU: u16 = 252;
/// `LINKTYPE_RAW`: IP packets.
const LINKTYPE_RAW: u16 = 101;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const DECRYPTION_SECRETS: u32 = 10;
/// TLS key log lines.
const SECRETS_TLS: u32 = 0x544C_534B;

const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// The dissector that takes packets in the clear.
pub(super) const DISSECTOR: &str = "trunkline_clear";

/// A block under construction.
struct Block(Vec<u8>);

impl Block {
    fn new(kind: u32) -> Self {
        let mut block = Self(Vec::with_capacity(128));
        block.u32(kind);
        block.u32(0);
        block
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.u16(code);
        self.u16(value.len() as u16);
        self.padded(value);
    }

    fn end(mut self) -> Vec<u8> {
        // opt_endofopt
        self.u32(0);
        self.close()
    }

    fn close(mut self) -> Vec<u8> {
        let len = self.0.len() as u32 + 4;
        self.0[4..8].copy_from_slice(&len.to_le_bytes());
        self.u32(len);
        self.0
    }
}

/// What a file begins with: the section and its interfaces.
pub(super) fn head() -> Vec<u8> {
    let mut section = Block::new(SECTION_HEADER);
    section.u32(0x1A2B_3C4D);
    section.u16(1);
    section.u16(0);
    // Length of the section: not known.
    section.padded(&[0xFF; 8]);
    section.option(
        OPT_COMMENT,
        b"Plaintext and TLS secrets of Trunkline connections: keep it as secret as they are.",
    );
    section.option(SHB_USERAPPL, concat!("trunkline ", env!("CARGO_PKG_VERSION")).as_bytes());
    let mut out = section.end();
    let interfaces: [(u16, &str, &str); INTERFACES] = [
        (LINKTYPE_UPPER_PDU, "trunkline-clear", "packets of datagram links, in the clear"),
        (LINKTYPE_RAW, "trunkline-tcp", "bytes of stream links, as TCP segments that are made up"),
    ];
    for (link_type, name, description) in interfaces {
        let mut interface = Block::new(INTERFACE_DESCRIPTION);
        interface.u16(link_type);
        interface.u16(0);
        // No snapshot length.
        interface.u32(0);
        interface.option(IF_NAME, name.as_bytes());
        interface.option(IF_DESCRIPTION, description.as_bytes());
        interface.option(IF_TSRESOL, &[9]);
        out.extend(interface.end());
    }
    out
}

/// A captured packet. `dropped`: packets of this interface that were left out just before it.
pub(super) fn packet(interface: u32, sent: bool, parts: &[&[u8]], dropped: u64) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut block = Block::new(ENHANCED_PACKET);
    block.0.reserve(len + 64);
    block.u32(interface);
    put_time(&mut block);
    block.u32(len as u32);
    block.u32(len as u32);
    for part in parts {
        block.0.extend_from_slice(part);
    }
    block.padded(&[]);
    // Bits 0 and 1: inbound or outbound.
    block.option(EPB_FLAGS, &(if sent { 2u32 } else { 1 }).to_le_bytes());
    if dropped > 0 {
        block.option(EPB_DROPCOUNT, &dropped.to_le_bytes());
    }
    block.end()
}

/// Lines of a TLS key log.
pub(super) fn secrets(lines: &[u8]) -> Vec<u8> {
    let mut block = Block::new(DECRYPTION_SECRETS);
    block.u32(SECRETS_TLS);
    block.u32(lines.len() as u32);
    block.padded(lines);
    block.close()
}

/// What an interface has seen in all, and what of it is not in the file.
pub(super) fn statistics(interface: u32, seen: u64, dropped: u64) -> Vec<u8> {
    let mut block = Block::new(INTERFACE_STATISTICS);
    block.u32(interface);
    put_time(&mut block);
    block.option(ISB_IFRECV, &seen.to_le_bytes());
    block.option(ISB_IFDROP, &dropped.to_le_bytes());
    block.end()
}

fn put_time(block: &mut Block) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    block.u32((nanos >> 32) as u32);
    block.u32(nanos as u32);
}

/// The tags in front of an exported PDU (Wireshark's `exported_pdu.h`), big-endian.
pub(super) fn pdu_tags(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    let mut tag = |number: u16, value: &[u8]| {
        let len = value.len().next_multiple_of(4);
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&(len as u16).to_be_bytes());
        out.extend_from_slice(value);
        out.resize(out.len() + len - value.len(), 0);
    };
    tag(12, DISSECTOR.as_bytes());
    match same_family(source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            tag(20, &from.octets());
            tag(21, &to.octets());
        }
        (from, to) => {
            tag(22, &v6(from));
            tag(23, &v6(to));
        }
    }
    // UDP.
    tag(24, &3u32.to_be_bytes());
    tag(25, &u32::from(source.port()).to_be_bytes());
    tag(26, &u32::from(destination.port()).to_be_bytes());
    tag(0, &[]);
    out
}

/// IP and TCP headers of a segment with `len` bytes. Checksums of TCP are left out.
pub(super) fn segment_headers(
    source: SocketAddr,
    destination: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    len: usize,
) -> Vec<u8> {
    const TCP: usize = 20;
    let mut out = Vec::with_capacity(60);
    match same_family(source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (20 + TCP + len) as u16;
            let [a, b] = total.to_be_bytes();
            out.extend_from_slice(&[0x45, 0, a, b, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            let sum = checksum(&out);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (from, to) => {
            let [a, b] = ((TCP + len) as u16).to_be_bytes();
            out.extend_from_slice(&[0x60, 0, 0, 0, a, b, 6, 64]);
            out.extend_from_slice(&v6(from));
            out.extend_from_slice(&v6(to));
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&acknowledged.to_be_bytes());
    // 20 bytes of header; PSH and ACK; the largest window.
    out.extend_from_slice(&[0x50, 0x18, 0xFF, 0xFF, 0, 0, 0, 0]);
    out
}

/// The internet checksum (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !(((sum & 0xFFFF) + (sum >> 16)) as u16)
}

/// IPv4 when both can be told that way; an address that is not known takes the other's family.
fn same_family(from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
    let (from, to) = (from.to_canonical(), to.to_canonical());
    match (from, to) {
        (IpAddr::V6(a), IpAddr::V4(_)) if a.is_unspecified() => (Ipv4Addr::UNSPECIFIED.into(), to),
        (IpAddr::V4(_), IpAddr::V6(b)) if b.is_unspecified() => {
            (from, Ipv4Addr::UNSPECIFIED.into())
        }
        _ => (from, to),
    }
}

fn v6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
