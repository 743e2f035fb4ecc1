//! What an engine does when there is nothing to do.

mod common;

use common::*;
use std::time::Duration;
use trunkline::{Event, QueuedEngine, Received, Status};

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
