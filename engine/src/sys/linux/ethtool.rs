//! Settings of network interfaces through `SIOCETHTOOL`, without the program ethtool.
//!
//! Each command takes a structure of numbers that begins with the command's own. They are kept as
//! words here, with the positions that `linux/ethtool.h` gives them.

use crate::hw::tune::{Coalescing, Ethtool, Feature, Flow, Rings};
use socket2::{Domain, Socket, Type};
use std::ffi::c_char;
use std::io;
use std::os::fd::AsRawFd;

const GET_DRIVER: u32 = 0x03;
const GET_COALESCE: u32 = 0x0e;
const SET_COALESCE: u32 = 0x0f;
const GET_RINGS: u32 = 0x10;
const SET_RINGS: u32 = 0x11;
const GET_STRINGS: u32 = 0x1b;
const GET_STATS: u32 = 0x1d;
const GET_HASH: u32 = 0x29;
const SET_HASH: u32 = 0x2a;
const GET_SET_INFO: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
const GET_CHANNELS: u32 = 0x3c;
const SET_CHANNELS: u32 = 0x3d;

/// Sets of strings.
const STATS: u32 = 1;
const FEATURES: u32 = 4;
/// Bytes of a string, its end included.
const STRING: usize = 32;
/// More strings than any device has; the kernel's word is taken up to here.
const MOST_STRINGS: u32 = 65_536;

/// Words of the structures of fixed size.
const DRIVER_WORDS: usize = 49;
const COALESCE_WORDS: usize = 23;
const RINGS_WORDS: usize = 9;
const HASH_WORDS: usize = 48;

/// Positions in them.
const RX_USECS: usize = 1;
const RX_FRAMES: usize = 2;
const TX_USECS: usize = 5;
const TX_FRAMES: usize = 6;
const ADAPTIVE_RX: usize = 10;
const ADAPTIVE_TX: usize = 11;

/// An interface of this machine, by name.
pub struct Interface {
    socket: Socket,
    name: [c_char; libc::IFNAMSIZ],
}

impl Interface {
    /// The interface of a name. Whether there is one shows with the first call.
    ///
    /// # Errors
    /// The name is too long for an interface, or the system's.
    pub fn open(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let mut bytes = [0; libc::IFNAMSIZ];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        Ok(Self { socket: Socket::new(Domain::IPV4, Type::DGRAM, None)?, name: bytes })
    }

    /// One command; the answer replaces it.
    ///
    /// # Safety
    /// `words` must be as long as the structure of the command in its first word, with all that the
    /// sizes inside of it promise.
    unsafe fn call(&self, words: &mut [u32]) -> io::Result<u32> {
        // The kernel takes all of it, what the pointer does not fill too.
        // SAFETY: an array of characters, and a union of integers and pointers: zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the request and the words live through the call, and the kernel stays within the
        // words, by contract.
        let result = unsafe {
            libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw const request)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
    }

    /// A command with a structure of `N` words.
    fn fixed<const N: usize>(&self, command: u32) -> io::Result<[u32; N]> {
        let mut words = [0; N];
        words[0] = command;
        // SAFETY: the callers below give the sizes of `linux/ethtool.h`.
        unsafe { self.call(&mut words) }?;
        Ok(words)
    }

    /// Sends back a structure that [`fixed`](Self::fixed) gave.
    fn send_back<const N: usize>(&self, command: u32, mut words: [u32; N]) -> io::Result<()> {
        words[0] = command;
        // SAFETY: the structures of reading and of setting are the same.
        unsafe { self.call(&mut words) }.map(drop)
    }

    /// The names of a set.
    fn strings(&self, set: u32) -> io::Result<Vec<String>> {
        // Command, reserved, a mask of 64 bits, and a number for the one set in it.
        let mut info = [GET_SET_INFO, 0, 0, 0, 0];
        let mask = 1u64 << set;
        (info[2], info[3]) = halves(mask);
        // SAFETY: one bit in the mask, hence one number behind it.
        unsafe { self.call(&mut info) }?;
        if join(info[2], info[3]) & mask == 0 {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let count = info[4].min(MOST_STRINGS);
        let mut words = vec![0; 3 + count as usize * STRING / 4];
        words[..3].copy_from_slice(&[GET_STRINGS, set, count]);
        // SAFETY: room for all of the strings; should their number have grown since, the kernel
        // takes the new one only where the driver counts them anew, which registered sets do not.
        unsafe { self.call(&mut words) }?;
        let bytes: Vec<u8> = words[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
        Ok(bytes.chunks_exact(STRING).map(text).collect())
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A number of 64 bits as two words, as it lies in memory, and back.
fn halves(number: u64) -> (u32, u32) {
    if cfg!(target_endian = "little") {
        (number as u32, (number >> 32) as u32)
    } else {
        ((number >> 32) as u32, number as u32)
    }
}

fn join(first: u32, second: u32) -> u64 {
    let (low, high) =
        if cfg!(target_endian = "little") { (first, second) } else { (second, first) };
    u64::from(high) << 32 | u64::from(low)
}

/// The kernel's number of a flow.
const fn flow_type(flow: Flow) -> u32 {
    match flow {
        Flow::Udp4 => 0x02,
        Flow::Udp6 => 0x06,
    }
}

impl Ethtool for Interface {
    fn driver(&self) -> io::Result<String> {
        let words: [u32; DRIVER_WORDS] = self.fixed(GET_DRIVER)?;
        let bytes: Vec<u8> = words[1..=STRING / 4].iter().flat_map(|w| w.to_ne_bytes()).collect();
        Ok(text(&bytes))
    }

    fn rings(&self) -> io::Result<Rings> {
        let words: [u32; RINGS_WORDS] = self.fixed(GET_RINGS)?;
        Ok(Rings { max_rx: words[1], max_tx: words[4], rx: words[5], tx: words[8] })
    }

    fn set_rings(&self, rings: Rings) -> io::Result<()> {
        let mut words: [u32; RINGS_WORDS] = self.fixed(GET_RINGS)?;
        (words[5], words[8]) = (rings.rx, rings.tx);
        self.send_back(SET_RINGS, words)
    }

    fn channels(&self) -> io::Result<(u32, u32)> {
        // As many words as for rings: command, the most of four kinds, and their numbers.
        let words: [u32; RINGS_WORDS] = self.fixed(GET_CHANNELS)?;
        Ok((words[8], words[4]))
    }

    fn set_channels(&self, combined: u32) -> io::Result<()> {
        let mut words: [u32; RINGS_WORDS] = self.fixed(GET_CHANNELS)?;
        words[8] = combined;
        self.send_back(SET_CHANNELS, words)
    }

    fn coalescing(&self) -> io::Result<Coalescing> {
        let words: [u32; COALESCE_WORDS] = self.fixed(GET_COALESCE)?;
        Ok(Coalescing {
            adaptive_rx: words[ADAPTIVE_RX],
            adaptive_tx: words[ADAPTIVE_TX],
            rx_usecs: words[RX_USECS],
            tx_usecs: words[TX_USECS],
            rx_frames: words[RX_FRAMES],
            tx_frames: words[TX_FRAMES],
        })
    }

    fn set_coalescing(&self, to: Coalescing) -> io::Result<()> {
        let mut words: [u32; COALESCE_WORDS] = self.fixed(GET_COALESCE)?;
        for (at, value) in [
            (ADAPTIVE_RX, to.adaptive_rx),
            (ADAPTIVE_TX, to.adaptive_tx),
            (RX_USECS, to.rx_usecs),
            (TX_USECS, to.tx_usecs),
            (RX_FRAMES, to.rx_frames),
            (TX_FRAMES, to.tx_frames),
        ] {
            words[at] = value;
        }
        self.send_back(SET_COALESCE, words)
    }

    fn features(&self) -> io::Result<Vec<Feature>> {
        let names = self.strings(FEATURES)?;
        let blocks = names.len().div_ceil(32);
        // A block: available, requested, active, never changed; a bit for each of 32 features.
        let mut words = vec![0; 2 + blocks * 4];
        (words[0], words[1]) = (GET_FEATURES, blocks as u32);
        // SAFETY: as many blocks as the second word says.
        unsafe { self.call(&mut words) }?;
        let feature = |(n, name): (usize, String)| {
            let block = &words[2 + n / 32 * 4..][..4];
            let bit = |word: u32| word >> (n % 32) & 1 == 1;
            Feature { name, on: bit(block[2]), changeable: bit(block[0]) && !bit(block[3]) }
        };
        Ok(names.into_iter().enumerate().map(feature).collect())
    }

    fn set_feature(&self, name: &str, on: bool) -> io::Result<()> {
        let names = self.strings(FEATURES)?;
        let n = names.iter().position(|known| known == name);
        let n = n.ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
        let blocks = names.len().div_ceil(32);
        // A block: which are meant, and what is wanted of them.
        let mut words = vec![0; 2 + blocks * 2];
        (words[0], words[1]) = (SET_FEATURES, blocks as u32);
        words[2 + n / 32 * 2] = 1 << (n % 32);
        words[3 + n / 32 * 2] = u32::from(on) << (n % 32);
        // SAFETY: as many blocks as the second word says.
        unsafe { self.call(&mut words) }.map(drop)
    }

    fn hash(&self, flow: Flow) -> io::Result<u64> {
        let mut words = [0; HASH_WORDS];
        (words[0], words[1]) = (GET_HASH, flow_type(flow));
        // SAFETY: the whole structure fits.
        unsafe { self.call(&mut words) }?;
        Ok(join(words[2], words[3]))
    }

    fn set_hash(&self, flow: Flow, fields: u64) -> io::Result<()> {
        let mut words = [0; HASH_WORDS];
        (words[0], words[1]) = (SET_HASH, flow_type(flow));
        (words[2], words[3]) = halves(fields);
        // SAFETY: the whole structure fits.
        unsafe { self.call(&mut words) }.map(drop)
    }

    fn counters(&self) -> io::Result<Vec<(String, u64)>> {
        let names = self.strings(STATS)?;
        let mut words = vec![0; 2 + names.len() * 2];
        (words[0], words[1]) = (GET_STATS, names.len() as u32);
        // SAFETY: room for all counters that there are names of.
        unsafe { self.call(&mut words) }?;
        let values = words[2..].chunks_exact(2).map(|pair| join(pair[0], pair[1]));
        Ok(names.into_iter().zip(values).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_features_and_no_rings() {
        let lo = Interface::open("lo").unwrap();
        let features = lo.features().unwrap();
        assert!(features.iter().any(|f| f.name == "tx-udp-segmentation"), "{features:?}");
        assert!(lo.rings().is_err() && lo.channels().is_err());
        let none = Interface::open("no-such-nic").unwrap();
        assert_eq!(none.features().unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(Interface::open("a-name-that-is-too-long").is_err());
    }

    #[test]
    fn numbers_of_64_bits_are_put_together_again() {
        let (first, second) = halves(0x0123_4567_89ab_cdef);
        assert_eq!(join(first, second), 0x0123_4567_89ab_cdef);
    }
}
