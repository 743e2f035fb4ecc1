//! One packet for each system call.

use super::pair::{self, Counts, Link, Window};
use super::socket;
use crate::payload::{self, Source};
use crate::{Setup, Throughput};
use std::io;
use std::net::UdpSocket;

/// Packets under way at most.
const WINDOW: usize = 256;
/// The kernel reckons a packet in a socket buffer at its bytes and up to this many more, doubled.
const BUFFER_EXTRA: usize = 1024;

/// See [`crate::single_packets`].
pub fn single_packets(setup: &Setup, payload_bytes: usize) -> io::Result<Throughput> {
    let (client, server) = socket::pair()?;
    let held = socket::receive_buffer(&server)? / (2 * (payload_bytes + BUFFER_EXTRA));
    let window = Window::new(held.min(WINDOW));
    let measured = pair::run(
        setup,
        move |link| send(link, &client, window, Source::new(payload_bytes, 1)),
        move |link| receive(link, &server, payload_bytes),
    )?;
    Ok(Throughput {
        seconds: measured.seconds,
        packets: measured.counts.packets,
        bytes: measured.counts.bytes,
        corrupt: measured.counts.corrupt,
        lost: measured.counts.lost,
        cpu: measured.cpu,
    })
}

fn send(link: &Link, socket: &UdpSocket, mut window: Window, mut source: Source) -> io::Result<()> {
    while window.wait(link, source.sent(), 1) {
        socket.send(source.message())?;
        source.advance();
    }
    Ok(())
}

fn receive(link: &Link, socket: &UdpSocket, payload_bytes: usize) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut counts = Counts::default();
    let mut next = 0;
    let mut buffer = vec![0; payload_bytes + 1];
    while !link.stopped() {
        let Some(bytes) = socket::come(socket.recv(&mut buffer))? else {
            link.relax();
            continue;
        };
        match payload::open(&buffer[..bytes]) {
            Some(sequence) => {
                counts.packets += 1;
                counts.bytes += bytes as u64;
                counts.lost += sequence.saturating_sub(next);
                next = next.max(sequence + 1);
            }
            None => counts.corrupt += 1,
        }
        link.tell(&counts, next);
    }
    Ok(())
}
