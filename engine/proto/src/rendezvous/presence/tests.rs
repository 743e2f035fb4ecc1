//! The roles on a simulated network, with virtual time; and everything that can be sent to them.

mod hostile;
mod lan;
mod rows;
mod wire;

use super::*;
use crate::ids::PeerId;
use crate::time::{Duration, Instant};
use std::net::SocketAddr;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(n: u64) -> Instant {
    Instant::ZERO + ms(n)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 32])
}

fn announcement() -> Announcement {
    Announcement::new("Living room", "chess.example", peer(7), 7470)
}

fn host(config: HostConfig, announcement: Announcement) -> Host {
    Host::new(config, announcement, [1; 32], at(0)).unwrap()
}

fn client(config: ClientConfig) -> Client {
    Client::new(config, [2; 32], at(0)).unwrap()
}

/// A neighbour that asked the group.
fn neighbour(from: &str) -> Arrival {
    Arrival { from: addr(from), interface: 3, multicast: true, on_link: true }
}

/// The next question of a client, and when it was due.
fn question(client: &mut Client) -> (Instant, Vec<u8>, Question) {
    let mut buf = [0; MAX_MESSAGE_LEN];
    for n in 0..10_000 {
        let now = at(10 * n);
        if let Some(question) = client.poll_transmit(now, &mut buf) {
            return (now, buf[..question.len].to_vec(), question);
        }
    }
    panic!("never asked");
}

/// Everything that a host has to send until `until`.
fn answers(host: &mut Host, until: Instant) -> Vec<(Answer, Vec<u8>)> {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut all = Vec::new();
    while let Some(answer) = host.poll_transmit(until, &mut buf) {
        all.push((answer, buf[..answer.len].to_vec()));
    }
    all
}

/// A question as any client may ask it.
fn plain_question(nonce: u8, service: &str) -> Vec<u8> {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let request = Request { nonce: [nonce; 16], wanted: None, service };
    let len = request.write(&mut buf).unwrap();
    buf[..len].to_vec()
}

fn response(datagram: &[u8]) -> Response<'_> {
    match Message::parse(datagram).unwrap() {
        Message::Response(response) => response,
        Message::Request(_) => panic!("a question"),
    }
}
