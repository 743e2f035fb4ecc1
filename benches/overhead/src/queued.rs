//! One side of an exchange through the queued API of Rust, received on the main thread: with an
//! engine on a thread of its own, or polled by this one.

use crate::side::{MESSAGE, Side, WARM_UP, identity, now, print_address, report};
use std::time::{Duration, Instant};
use trunkline::{
    Channel, ChannelKind, ChannelOptions, EngineConfig, Event, ListenConfig, QueuedEngine, Received,
};

struct App<'a> {
    engine: &'a QueuedEngine,
    side: &'a Side,
    channel: Option<Channel>,
    received: u64,
    sent_at: u64,
    samples: Vec<u32>,
    out: Vec<Received>,
}

impl App<'_> {
    fn pump(&mut self) {
        let Some(channel) = self.channel else { return };
        if self.side.echoes() {
            self.sent_at = now();
            let _ = self.engine.send(channel, &MESSAGE);
            return;
        }
        loop {
            match self.engine.send(channel, &MESSAGE) {
                Ok(()) => {}
                // No room, or the other side has ended.
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, received: &Received) {
        match received {
            Received::Message(message) => {
                self.received += 1;
                if !self.side.echoes() {
                    return;
                }
                if self.side.is_client() {
                    self.samples.push((now() - self.sent_at) as u32);
                    self.pump();
                } else {
                    // The other side may have ended.
                    let _ = self.engine.send(message.channel, &message.data);
                }
            }
            Received::Event(Event::Incoming { conn, .. }) => {
                self.engine.accept(*conn).expect("accepted");
            }
            Received::Event(Event::ChannelRequest { channel, .. }) => {
                let options = ChannelOptions::default();
                self.engine.accept_channel(*channel, &options).expect("accepted");
            }
            Received::Event(Event::ChannelReady { .. }) if self.side.is_client() => self.pump(),
            Received::Event(Event::Writable { .. }) => self.pump(),
            Received::Event(_) => {}
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let step = Some(Duration::from_millis(10));
        while Instant::now() < end {
            if self.engine.is_threadless() {
                self.engine.poll(step).expect("polled");
            }
            let mut out = std::mem::take(&mut self.out);
            self.engine.poll_group().recv_many(&mut out, 256, step);
            for received in out.drain(..) {
                self.take(&received);
            }
            self.out = out;
        }
    }
}

pub fn run(side: &Side, threadless: bool) {
    let start = if threadless { QueuedEngine::local } else { QueuedEngine::start };
    let engine = start(EngineConfig::default()).expect("an engine");
    let mut app = App {
        engine: &engine,
        side,
        channel: None,
        received: 0,
        sent_at: 0,
        samples: Vec::new(),
        out: Vec::new(),
    };
    if let Some(config) = side.connect() {
        let conn = engine.connect(&config, None).expect("a connection");
        let kind = ChannelKind::Messages;
        let options = ChannelOptions { kind, no_delay: side.echoes(), ..ChannelOptions::default() };
        app.channel = Some(engine.open_channel(conn, "x", &options).expect("a channel"));
    } else {
        let identity = identity();
        let at = "127.0.0.1:0".parse().expect("an address");
        let listener = engine.listen(&ListenConfig::new(at, identity.clone())).expect("a listener");
        print_address(listener.local_addr, &identity);
    }
    app.run_for(WARM_UP);
    app.samples.clear();
    let (before, begin) = (app.received, now());
    app.run_for(Duration::from_secs_f64(side.seconds));
    let (count, time) = (app.received - before, now() - begin);
    report(side, count, time, std::mem::take(&mut app.samples));
    app.run_for(Duration::from_millis(200));
}
