//! Bulk transfer in trains.

use super::packet::Protection;
use super::pair::{self, Counts, Link, Window};
use super::socket::{self, MAX_SEGMENTS, MAX_TRAIN, TrainReceiver};
use crate::payload::{self, Source};
use crate::{Cipher, OVERHEAD, Setup, Throughput};
use std::io;
use std::net::UdpSocket;

/// Trains under way at most: enough that neither side waits for the other, few enough that they
/// stay in the caches.
const WINDOW_TRAINS: usize = 4;
/// The kernel reckons a packet in a socket buffer at up to this many times its bytes.
const BUFFER_FACTOR: usize = 2;

/// See [`crate::bulk`].
pub fn bulk(setup: &Setup, cipher: Cipher) -> io::Result<Throughput> {
    let (client, server) = socket::pair()?;
    socket::receive_trains(&server)?;
    let segments = (MAX_TRAIN / setup.packet_bytes).clamp(1, MAX_SEGMENTS);
    let train_bytes = segments * setup.packet_bytes;
    let held = socket::receive_buffer(&server)? / (BUFFER_FACTOR * train_bytes);
    let window = Window::new(held.clamp(1, WINDOW_TRAINS) * segments);
    let sender = Sender {
        protection: Protection::new(cipher, 1)?,
        source: Source::new(setup.packet_bytes - OVERHEAD, 1),
        train: vec![0; train_bytes],
        packet_bytes: setup.packet_bytes,
        window,
    };
    let sink = Sink { protection: Protection::new(cipher, 1)?, counts: Counts::default() };
    let measured = pair::run(
        setup,
        move |link| sender.run(link, &client),
        move |link| receive(sink, link, &server),
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

struct Sender {
    protection: Protection,
    source: Source,
    train: Vec<u8>,
    packet_bytes: usize,
    window: Window,
}

impl Sender {
    fn run(mut self, link: &Link, socket: &UdpSocket) -> io::Result<()> {
        let segment = u16::try_from(self.packet_bytes).map_err(io::Error::other)?;
        let more = (self.train.len() / self.packet_bytes) as u64;
        while self.window.wait(link, self.source.sent(), more) {
            for packet in self.train.chunks_mut(self.packet_bytes) {
                self.protection.seal(self.source.message(), packet)?;
                self.source.advance();
            }
            socket::send_train(socket, &self.train, segment)?;
        }
        Ok(())
    }
}

fn receive(mut sink: Sink, link: &Link, socket: &UdpSocket) -> io::Result<()> {
    let mut receiver = TrainReceiver::new();
    while !link.stopped() {
        match receiver.receive(socket, true)? {
            Some((train, segment)) => {
                for packet in train.chunks_mut(segment) {
                    sink.take(packet);
                }
                link.tell(&sink.counts, sink.protection.next());
            }
            None => link.relax(),
        }
    }
    Ok(())
}

/// Opens, reads and counts packets.
struct Sink {
    protection: Protection,
    counts: Counts,
}

impl Sink {
    fn take(&mut self, packet: &mut [u8]) {
        let Some(opened) = self.protection.open(packet) else {
            self.counts.corrupt += 1;
            return;
        };
        self.counts.lost += opened.skipped;
        if payload::open(opened.payload).is_some() {
            self.counts.packets += 1;
            self.counts.bytes += opened.payload.len() as u64;
        } else {
            self.counts.corrupt += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrupt_payload_is_noticed() {
        for cipher in [Cipher::None, Cipher::Aes128Gcm] {
            let mut protection = Protection::new(cipher, 1).unwrap();
            let mut source = Source::new(200, 1);
            let mut next = || {
                let mut packet = vec![0; 200 + OVERHEAD];
                protection.seal(source.message(), &mut packet).unwrap();
                source.advance();
                packet
            };
            let mut sink =
                Sink { protection: Protection::new(cipher, 1).unwrap(), counts: Counts::default() };
            sink.take(&mut next());
            let mut broken = next();
            broken[100] ^= 4;
            sink.take(&mut broken);
            let _lost = next();
            sink.take(&mut next());
            let Counts { packets, bytes, corrupt, lost } = sink.counts;
            assert_eq!((packets, bytes, corrupt), (2, 400, 1));
            // Without a cipher the broken one still says which it was.
            assert_eq!(lost, if cipher == Cipher::None { 1 } else { 2 });
        }
    }
}
