//! The metrics of an event source.

use crate::metrics::{self, Page, Source};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use trunkline::rendezvous::EventSourceServer;

const PREFIX: &str = "trunkline_event_source";

struct Served {
    server: Arc<EventSourceServer>,
    started: Instant,
}

impl Source for Served {
    fn render(&self) -> String {
        render(&self.server, self.started)
    }

    fn is_healthy(&self) -> bool {
        is_healthy(&self.server)
    }
}

/// Starts to serve; the address, with the port that the system chose.
pub fn serve(addr: SocketAddr, server: Arc<EventSourceServer>) -> io::Result<SocketAddr> {
    metrics::serve(addr, Served { server, started: Instant::now() })
}

fn is_healthy(server: &EventSourceServer) -> bool {
    let stats = server.engine_stats();
    stats.shards.len() == server.shards() && stats.shards.iter().all(|s| s.failure.is_none())
}

/// All metrics. What is counted has `_total` at its end.
fn render(server: &EventSourceServer, started: Instant) -> String {
    let (stats, engine) = (server.stats(), server.engine_stats());
    let total = engine.total();
    let mut page = Page::new(PREFIX);
    page.gauge("uptime_seconds", "Time since the start.", started.elapsed().as_secs());
    page.gauge("clients", "Clients that are connected.", stats.clients as u64);
    page.gauge("connections", "Connections, whatever their status.", engine.connections() as u64);
    let waiting = stats.waiting_events as u64;
    page.gauge("waiting_events", "Events that wait for clients to take them.", waiting);
    page.gauge("waiting_bytes", "Bytes of them.", stats.waiting_bytes as u64);
    for counter in stats.source.counters() {
        page.counter(counter.name, counter.label, counter.value);
    }
    page.counter("datagrams_received", None, total.datagrams_received);
    page.counter("datagrams_sent", None, total.datagrams_sent);
    page.counter("bytes_received", None, total.bytes_received);
    page.counter("bytes_sent", None, total.bytes_sent);
    page.counter("stun_answered", None, total.stun_answered);
    page.counter("stun_dropped", None, total.stun_dropped);
    page.text
}
