//! An engine without threads starts none.

mod common;

use common::*;
use std::time::Duration;
use trunkline::{DriverChoice, QueuedEngine};

#[cfg(target_os = "linux")]
#[test]
fn no_thread_is_started() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    for driver in drivers() {
        let before = threads();
        let identity = identity();
        let host = QueuedEngine::local(config(driver)).unwrap();
        let addr = host.listen(&listen(&identity)).unwrap().local_addr;
        let client = QueuedEngine::local(config(DriverChoice::Mio)).unwrap();
        let conn = client.connect(&connect(addr, &identity), None).unwrap();
        let mut out = Vec::new();
        while client.status(conn) != trunkline::Status::Connected {
            host.poll(Some(Duration::from_millis(1))).unwrap();
            client.poll(Some(Duration::from_millis(1))).unwrap();
            host.poll_group().recv_many(&mut out, 10, None);
            for received in out.drain(..) {
                if let trunkline::Received::Event(trunkline::Event::Incoming { conn, .. }) =
                    received
                {
                    host.accept(conn).unwrap();
                }
            }
        }
        assert_eq!(threads(), before, "{driver}");
    }
}
