//! Two engines with the queued API, and a channel from one to the other.

use super::{connect, identity, listen};
use std::time::{Duration, Instant};
use trunkline::{
    Channel, ChannelKind, ChannelOptions, EngineConfig, Event, QueuedEngine, Received,
};

pub struct Pair {
    pub client: QueuedEngine,
    pub host: QueuedEngine,
    /// From the client to the host.
    pub channel: Channel,
}

impl Pair {
    /// Connected, on threads of the engines or polled by the caller.
    pub fn new(config: &EngineConfig, threads: bool, kind: ChannelKind) -> Self {
        let start = if threads { QueuedEngine::start } else { QueuedEngine::local };
        let (client, host) = (start(config.clone()).unwrap(), start(config.clone()).unwrap());
        let identity = identity();
        let listener = host.listen(&listen(&identity)).unwrap();
        let conn = client.connect(&connect(listener.local_addr, &identity), None).unwrap();
        let options = ChannelOptions { kind, ..ChannelOptions::default() };
        let channel = client.open_channel(conn, "x", &options).unwrap();
        let pair = Self { client, host, channel };
        pair.await_channel(&options);
        pair
    }

    /// Where there are no threads: one turn of both.
    pub fn poll(&self) {
        if self.client.is_threadless() {
            self.client.poll(Some(Duration::ZERO)).unwrap();
            self.host.poll(Some(Duration::ZERO)).unwrap();
        }
    }

    fn await_channel(&self, options: &ChannelOptions) {
        let start = Instant::now();
        let mut ready = false;
        while !ready {
            assert!(start.elapsed() < Duration::from_secs(20), "no channel");
            self.poll();
            let mut out = Vec::new();
            self.host.poll_group().recv_many(&mut out, 100, Some(Duration::ZERO));
            for received in out.drain(..) {
                match received {
                    Received::Event(Event::Incoming { conn, .. }) => {
                        self.host.accept(conn).unwrap();
                    }
                    Received::Event(Event::ChannelRequest { channel, .. }) => {
                        self.host.accept_channel(channel, options).unwrap();
                    }
                    _ => {}
                }
            }
            self.client.poll_group().recv_many(&mut out, 100, Some(Duration::ZERO));
            ready = out.iter().any(|r| matches!(r, Received::Event(Event::ChannelReady { .. })));
        }
    }
}
