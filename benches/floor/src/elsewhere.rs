//! Systems without UDP_SEGMENT and UDP_GRO: no floors.

use crate::{Cipher, RoundTrips, Setup, Throughput, Ticks, Wait};
use std::io;

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "floors can be measured on Linux only")
}

pub fn bulk(_setup: &Setup, _cipher: Cipher) -> io::Result<Throughput> {
    Err(unsupported())
}

pub fn single_packets(_setup: &Setup, _payload_bytes: usize) -> io::Result<Throughput> {
    Err(unsupported())
}

pub fn ping_pong(_setup: &Setup, _wait: Wait, _payload_bytes: usize) -> io::Result<RoundTrips> {
    Err(unsupported())
}

pub fn tick(
    _setup: &Setup,
    _connections: u32,
    _per_second: u32,
    _payload_bytes: usize,
) -> io::Result<Ticks> {
    Err(unsupported())
}
