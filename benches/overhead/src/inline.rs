//! One side of an exchange through the inline API of Rust: a handler on the shard's thread.

use crate::side::{MESSAGE, Side, WARM_UP, identity, now, print_address, report};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use trunkline::{
    Channel, ChannelKind, ChannelOptions, ChannelRequest, Conn, ConnectConfig, Context, Engine,
    EngineConfig, Handler, Incoming, ListenConfig,
};

struct App {
    connect: Option<ConnectConfig>,
    channel: Option<Channel>,
    echoes: bool,
    received: Arc<AtomicU64>,
    sent_at: u64,
    samples: Option<Sender<u32>>,
}

impl App {
    fn pump(&mut self, cx: &mut Context<'_>) {
        let Some(channel) = self.channel else { return };
        if self.echoes {
            self.sent_at = now();
            let _ = cx.send(channel, &MESSAGE);
            return;
        }
        loop {
            match cx.send(channel, &MESSAGE) {
                Ok(()) => {}
                // No room, or the other side has ended.
                Err(_) => return,
            }
        }
    }
}

impl Handler for App {
    type Command = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let Some(config) = &self.connect else { return };
        let conn = cx.connect(config).expect("a connection");
        let kind = ChannelKind::Messages;
        let options = ChannelOptions { kind, no_delay: self.echoes, ..ChannelOptions::default() };
        self.channel = Some(cx.open_channel(conn, "x", &options).expect("a channel"));
    }

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        cx.accept(conn).expect("accepted");
    }

    fn on_channel_request(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _: &ChannelRequest<'_>,
    ) {
        cx.accept_channel(channel, &ChannelOptions::default()).expect("accepted");
    }

    fn on_channel_ready(&mut self, cx: &mut Context<'_>, _: Channel) {
        if self.connect.is_some() {
            self.pump(cx);
        }
    }

    fn on_writable(&mut self, cx: &mut Context<'_>, _: Channel) {
        self.pump(cx);
    }

    fn on_message(
        &mut self,
        cx: &mut Context<'_>,
        channel: Channel,
        _: ChannelKind,
        message: &[u8],
    ) {
        let count = self.received.load(Ordering::Relaxed);
        self.received.store(count + 1, Ordering::Relaxed);
        if !self.echoes {
            return;
        }
        if let Some(samples) = &self.samples {
            let _ = samples.send((now() - self.sent_at) as u32);
            self.pump(cx);
        } else {
            // The other side may have ended.
            let _ = cx.send(channel, message);
        }
    }
}

pub fn run(side: &Side) {
    let received = Arc::new(AtomicU64::new(0));
    let (sender, samples) = channel();
    let mut app = Some(App {
        connect: side.connect(),
        channel: None,
        echoes: side.echoes(),
        received: received.clone(),
        sent_at: 0,
        samples: side.is_client().then_some(sender),
    });
    let config = EngineConfig::default();
    let engine = Engine::start(config, |_| app.take().expect("one shard")).expect("an engine");
    if !side.is_client() {
        let identity = identity();
        let at = "127.0.0.1:0".parse().expect("an address");
        let listener = engine.listen(&ListenConfig::new(at, identity.clone())).expect("a listener");
        print_address(listener.local_addr, &identity);
    }
    std::thread::sleep(WARM_UP);
    samples.try_iter().for_each(drop);
    let (before, begin) = (received.load(Ordering::Relaxed), now());
    std::thread::sleep(Duration::from_secs_f64(side.seconds));
    let count = received.load(Ordering::Relaxed) - before;
    report(side, count, now() - begin, samples.try_iter().collect());
    std::thread::sleep(Duration::from_millis(200));
}
