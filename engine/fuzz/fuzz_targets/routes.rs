//! Routes between peers: STUN requests at an event source, relayed packets, and what peers tell a
//! finder, forged and truly signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ring::hmac;
use std::net::SocketAddr;
use trunkline_proto::ids::Role;
use trunkline_proto::rendezvous::relay;
use trunkline_proto::rendezvous::route::{RouteConfig, RouteFinder};
use trunkline_proto::rendezvous::stun::{MAX_ANSWER, StunConfig, StunServer};
use trunkline_proto::time::{Duration, Instant};

const KEY: [u8; 32] = [7; 32];
const MAC_LEN: usize = 16;

fuzz_target!(|data: &[u8]| {
    let now = Instant::ZERO + Duration::from_secs(1);
    let local: SocketAddr = "10.0.0.1:5000".parse().unwrap();
    let remote: SocketAddr = "192.0.2.9:40000".parse().unwrap();
    let mut server = StunServer::new(StunConfig::default(), Instant::ZERO);
    if let Ok(len) = server.receive(now, data, remote, &mut [0; MAX_ANSWER]) {
        assert!(len <= 3 * data.len());
    }
    if let Ok(read) = relay::decode(data) {
        let mut again = Vec::new();
        relay::encode(&mut again, read.client, read.packet);
        assert_eq!(again, data);
    }
    let (epoch, config) = (std::time::Instant::now(), RouteConfig::default());
    let mut finder = RouteFinder::new(now, epoch, Role::Client, KEY, [1; 32], config);
    finder.set_servers(now, &[remote]);
    finder.set_locals(now, &[(0, local)]);
    assert!(finder.on_event(now, data).is_err(), "nobody else has the key");
    finder.on_stun(now, 0, Some(local.ip()), remote, data);
    let mut signed = data.to_vec();
    signed.extend_from_slice(&[0xc4, MAC_LEN as u8]);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), data);
    signed.extend_from_slice(&tag.as_ref()[..MAC_LEN]);
    let _ = finder.on_event(now, &signed);
    finder.handle_timeout(now + Duration::from_secs(1));
    for _ in 0..10_000 {
        if finder.poll().is_none() {
            return;
        }
    }
    panic!("a finder that wants something without end");
});
