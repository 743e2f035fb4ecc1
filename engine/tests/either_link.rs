//! Over which link a connection comes to be when both are tried, over real sockets.

mod common;

use common::*;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use trunkline::{
    ConnectConfig, ConnectLink, DriverChoice, Event, Link, Links, ListenConfig, QueuedEngine,
    Received, Status,
};

/// Connects over either link to a host that listens on `links`; says which it was, after how long,
/// and how many connections the host's application saw.
fn connected_over(driver: DriverChoice, links: Links) -> (Link, Duration, usize) {
    let identity = identity();
    let host = QueuedEngine::start(config(driver)).unwrap();
    let client = QueuedEngine::start(config(driver)).unwrap();
    let listen = ListenConfig { links, ..listen(&identity) };
    let addr = host.listen(&listen).unwrap().local_addr;
    // A network that drops UDP: packets arrive at a socket that nobody reads.
    let _drop = (!links.datagram).then(|| UdpSocket::bind(addr).unwrap());
    let connect = ConnectConfig { link: ConnectLink::Auto, ..connect(addr, &identity) };
    let start = Instant::now();
    let conn = client.connect(&connect, None).unwrap();
    let (mut seen, mut out) = (0, Vec::new());
    let mut connected = None;
    while connected.is_none() || start.elapsed() < Duration::from_millis(400) {
        assert!(start.elapsed() < Duration::from_secs(10), "not connected");
        host.poll_group().recv_many(&mut out, 100, Some(Duration::from_millis(1)));
        for received in out.drain(..) {
            if let Received::Event(Event::Incoming { conn, .. }) = received {
                seen += 1;
                host.accept(conn).unwrap();
            }
        }
        client.poll_group().recv_many(&mut out, 100, Some(Duration::from_millis(1)));
        for received in out.drain(..) {
            if let Received::Event(Event::Status { new, .. }) = received {
                assert_eq!(new, Status::Connected);
                connected = Some(start.elapsed());
            }
        }
    }
    let link = client.info(conn).unwrap().link;
    (link, connected.unwrap(), seen)
}

#[test]
fn udp_wins_where_it_passes() {
    for driver in drivers() {
        let (_, took, seen) = connected_over(driver, Links::BOTH);
        assert_eq!(seen, 1, "the host's application sees one connection");
        assert!(took < Duration::from_millis(300), "{took:?}");
    }
}

#[test]
fn a_network_that_drops_udp_costs_less_than_300_ms() {
    for driver in drivers() {
        let (link, took, seen) = connected_over(driver, Links::STREAM);
        assert_eq!((link, seen), (Link::Stream, 1));
        assert!(took < Duration::from_millis(300), "{took:?}");
    }
}

#[test]
fn a_host_without_tcp_is_reached_over_udp() {
    for driver in drivers() {
        let (link, took, seen) = connected_over(driver, Links::DATAGRAM);
        assert_eq!((link, seen), (Link::Datagram, 1));
        assert!(took < Duration::from_millis(300), "{took:?}");
    }
}
