//! What an engine does when there is nothing to do.

mod common;

use common::*;
use std::collections::HashSet;
use std::time::Duration;
use trunkline::{
    ConnectConfig, ConnectionConfig, EngineConfig, Event, QueuedEngine, Received, Reuse, Status,
};

#[test]
fn an_idle_engine_sleeps() {
    for driver in drivers() {
        let identity = identity();
        let host = QueuedEngine::start(config(driver)).unwrap();
        let addr = host.listen(&listen(&identity)).unwrap().local_addr;
        let client = QueuedEngine::start(config(driver)).unwrap();
        let conn = client.connect(&connect(addr, &identity), None).unwrap();
        let mut out = Vec::new();
        wait_until("the connection", || {
            host.poll_group().recv_many(&mut out, 10, Some(Duration::ZERO));
            for received in out.drain(..) {
                if let Received::Event(Event::Incoming { conn, .. }) = received {
                    host.accept(conn).unwrap();
                }
            }
            client.status(conn) == Status::Connected
        });
        // Packet size search and the last acknowledgements go on for a moment.
        std::thread::sleep(Duration::from_millis(800));
        let turns = |e: &QueuedEngine| e.engine_stats().total().turns;
        let before = (turns(&host), turns(&client));
        std::thread::sleep(Duration::from_secs(1));
        let after = (turns(&host), turns(&client));
        println!("{driver}: host {} client {}", after.0 - before.0, after.1 - before.1);
        assert!(after.0 - before.0 < 40, "{driver}: host made {} turns", after.0 - before.0);
        assert!(after.1 - before.1 < 40, "{driver}: client made {} turns", after.1 - before.1);
        println!("{:?}", client.engine_stats());
    }
}

#[test]
fn keep_alives_of_many_connections_go_together() {
    const CONNECTIONS: usize = 200;
    for driver in drivers() {
        let identity = identity();
        let connection =
            ConnectionConfig { keep_alive: trunkline::Duration::from_secs(1), ..connection() };
        let config = EngineConfig { connection, handshakes_per_source_per_s: 0, ..config(driver) };
        let host = QueuedEngine::start(config.clone()).unwrap();
        let addr = host.listen(&listen(&identity)).unwrap().local_addr;
        let client = QueuedEngine::start(config).unwrap();
        let connect = ConnectConfig { reuse: Reuse::ForceNew, ..connect(addr, &identity) };
        let conns: HashSet<_> =
            (0..CONNECTIONS).map(|_| client.connect(&connect, None).unwrap()).collect();
        let mut out = Vec::new();
        wait_until("the connections", || {
            host.poll_group().recv_many(&mut out, 1000, Some(Duration::ZERO));
            for received in out.drain(..) {
                if let Received::Event(Event::Incoming { conn, .. }) = received {
                    host.accept(conn).unwrap();
                }
            }
            conns.iter().all(|conn| client.status(*conn) == Status::Connected)
        });
        std::thread::sleep(Duration::from_millis(800));
        let turns = |e: &QueuedEngine| e.engine_stats().total().turns;
        let sent = |e: &QueuedEngine| e.engine_stats().total().datagrams_sent;
        let before = (turns(&host), turns(&client), sent(&host), sent(&client));
        std::thread::sleep(Duration::from_secs(2));
        let host_did = (turns(&host) - before.0, sent(&host) - before.2);
        let client_did = (turns(&client) - before.1, sent(&client) - before.3);
        println!("{driver}: (turns, datagrams) host {host_did:?} client {client_did:?}");
        // Two or three times the client asks, and the host answers.
        let expected = 3 * CONNECTIONS as u64;
        assert!(
            client_did.1 > expected / 3 && client_did.1 <= expected,
            "{driver}: {client_did:?}"
        );
        assert!(host_did.1 <= expected, "{driver}: {host_did:?}");
        // All that began within 67 ms is one turn of the client, and comes to the host in a few. A
        // client that has a processor to itself may be woken for each answer.
        let most = host_did.1 + CONNECTIONS as u64 / 2;
        assert!(host_did.0 < 200 && client_did.0 < most, "{driver}: {host_did:?} {client_did:?}");
    }
}
