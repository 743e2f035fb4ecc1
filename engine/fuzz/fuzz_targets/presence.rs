//! Presence messages: at the parser, at a client and at a host.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_proto::ids::PeerId;
use trunkline_proto::rendezvous::presence::{
    Announcement, Arrival, Client, ClientConfig, Host, HostConfig, MAX_MESSAGE_LEN, Message,
};
use trunkline_proto::time::{Duration, Instant};

fuzz_target!(|data: &[u8]| {
    let _ = Message::parse(data);
    let from = "10.0.0.9:40000".parse().unwrap();
    let now = Instant::ZERO + Duration::from_secs(1);
    let mut client = Client::new(ClientConfig::default(), [1; 32], Instant::ZERO).unwrap();
    let mut buf = [0; MAX_MESSAGE_LEN];
    assert!(client.poll_transmit(now, &mut buf).is_some());
    // The nonce of the question in its place, so that the rest of an answer is reached.
    let mut answer = data.to_vec();
    if let (Some(nonce), Some(asked)) = (answer.get_mut(6..22), buf.get(6..22)) {
        nonce.copy_from_slice(asked);
    }
    let _ = client.receive(now, from, &answer);
    let told = Announcement::new("x", "x", PeerId([0; 32]), 1);
    let mut host = Host::new(HostConfig::default(), told, [1; 32], Instant::ZERO).unwrap();
    host.receive(now, Arrival { from, interface: 0, multicast: false, on_link: true }, data);
    if let Some(answer) = host.poll_transmit(now, &mut buf) {
        assert!(answer.len <= data.len());
    }
});
