//! One packet to and fro at a time.

use super::pair::{self, Link};
use super::socket::{self, LOOK_AROUND};
use crate::payload::{self, Source};
use crate::{RoundTrips, Setup, Wait};
use hdrhistogram::Histogram;
use std::io;
use std::net::UdpSocket;
use std::time::Instant;

/// See [`crate::ping_pong`].
pub fn ping_pong(setup: &Setup, wait: Wait, payload_bytes: usize) -> io::Result<RoundTrips> {
    let (client, server) = socket::pair()?;
    for socket in [&client, &server] {
        socket.set_nonblocking(wait == Wait::Spin)?;
    }
    let end = |socket| End { socket, wait, buffer: vec![0; payload_bytes + 1] };
    let (client, server) = (end(client), end(server));
    let measured = pair::run(
        setup,
        move |link| ask(link, client, Source::new(payload_bytes, 1)),
        move |link| answer(link, server),
    )?;
    let asked = measured.client;
    Ok(RoundTrips {
        seconds: measured.seconds,
        rtt_ns: asked.rtt_ns,
        corrupt: asked.corrupt + measured.server,
        lost: asked.lost,
        cpu: measured.cpu,
    })
}

/// One of the two.
struct End {
    socket: UdpSocket,
    wait: Wait,
    buffer: Vec<u8>,
}

impl End {
    /// The next packet; `None` at the end, or when none comes.
    fn receive(&mut self, link: &Link) -> io::Result<Option<&[u8]>> {
        if self.wait == Wait::Block {
            let bytes = socket::come(self.socket.recv(&mut self.buffer))?;
            return Ok(bytes.map(|bytes| &self.buffer[..bytes]));
        }
        let begun = Instant::now();
        let mut turns = 0_u32;
        loop {
            if let Some(bytes) = socket::come(self.socket.recv(&mut self.buffer))? {
                return Ok(Some(&self.buffer[..bytes]));
            }
            turns += 1;
            let late = turns.is_multiple_of(1024) && begun.elapsed() > LOOK_AROUND;
            if late || link.stopped() {
                return Ok(None);
            }
            link.relax();
        }
    }
}

struct Asked {
    rtt_ns: Histogram<u64>,
    corrupt: u64,
    lost: u64,
}

fn ask(link: &Link, mut end: End, mut source: Source) -> io::Result<Asked> {
    let mut asked = Asked { rtt_ns: crate::histogram(), corrupt: 0, lost: 0 };
    let mut measuring = false;
    while !link.stopped() {
        if !measuring && link.measuring() {
            measuring = true;
            asked = Asked { rtt_ns: crate::histogram(), corrupt: 0, lost: 0 };
        }
        let expected = source.sent();
        let begun = Instant::now();
        end.socket.send(source.message())?;
        source.advance();
        loop {
            let Some(message) = end.receive(link)? else {
                asked.lost += u64::from(!link.stopped());
                break;
            };
            let taken = begun.elapsed();
            match payload::open(message) {
                Some(sequence) if sequence == expected => {
                    let ns = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX);
                    asked.rtt_ns.saturating_record(ns);
                    break;
                }
                // An answer that was given up.
                Some(sequence) if sequence < expected => {}
                _ => {
                    asked.corrupt += 1;
                    break;
                }
            }
        }
    }
    Ok(asked)
}

/// Sends back what comes; gives how much of it was wrong.
fn answer(link: &Link, mut end: End) -> io::Result<u64> {
    let mut corrupt = 0;
    while !link.stopped() {
        let Some(bytes) = end.receive(link)?.map(|message| {
            corrupt += u64::from(payload::open(message).is_none());
            message.len()
        }) else {
            continue;
        };
        end.socket.send(&end.buffer[..bytes])?;
    }
    Ok(corrupt)
}
