//! Cost of the data path without packets and cryptography: run with `--release --ignored`.

use super::net::{CONN, params};
use crate::channel::Mux;
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::endpoint::SendOptions;
use crate::event::{ChannelRequest, Sink};
use crate::ids::{ChannelKey, ConnHandle, Role};
use crate::limits::TRANSPORT_CHANNEL;
use crate::time::{Duration, Instant};
use crate::wire::frame::Frames;
use crate::wire::record::FrameRecord;
use crate::wire::transport::TransportFrame;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Default)]
struct Count {
    requests: Vec<ChannelKey>,
    messages: u64,
    sum: u64,
}

impl Sink for Count {
    fn channel_request(&mut self, _: ConnHandle, key: ChannelKey, _: &ChannelRequest<'_>) {
        self.requests.push(key);
    }
    fn message(&mut self, _: ConnHandle, _: ChannelKey, _: ChannelKind, message: &[u8]) {
        self.messages += 1;
        self.sum += u64::from(message[0]) + message.len() as u64;
    }
}

struct End {
    mux: Mux,
    pn: u64,
    flying: VecDeque<Vec<FrameRecord>>,
    spare: Vec<Vec<FrameRecord>>,
    sink: Count,
    send_ns: u64,
    fill_ns: u64,
    receive_ns: u64,
    ack_ns: u64,
}

fn end(role: Role, config: &Arc<ConnectionConfig>) -> End {
    let mut mux = Mux::new(role, config);
    mux.set_peer(&params(config));
    mux.set_ready(Instant::ZERO);
    mux.set_packet_payload(1423);
    mux.set_rtt(Duration::from_micros(100));
    let sink = Count::default();
    let (flying, spare) = (VecDeque::new(), Vec::new());
    End { mux, pn: 0, flying, spare, sink, send_ns: 0, fill_ns: 0, receive_ns: 0, ack_ns: 0 }
}

/// Packets of one side to the other, acknowledged with a lag.
fn pump(from: &mut End, to: &mut End, now: Instant, lag: usize) -> u64 {
    let mut packets = 0;
    let mut train = vec![0; 1423 * 32];
    let mut lens = [0; 32];
    loop {
        let start = std::time::Instant::now();
        let mut n = 0;
        while n < 32 && from.mux.wants_to_send() {
            let mut records = from.spare.pop().unwrap_or_default();
            let buf = &mut train[n * 1423..(n + 1) * 1423];
            lens[n] = from.mux.fill(now, buf, &mut |r| records.push(r));
            from.flying.push_back(records);
            if lens[n] == 0 {
                break;
            }
            n += 1;
        }
        from.fill_ns += start.elapsed().as_nanos() as u64;
        let start = std::time::Instant::now();
        for (i, len) in lens[..n].iter().enumerate() {
            let pn = from.pn;
            from.pn += 1;
            for frame in Frames::new(&train[i * 1423..i * 1423 + len]) {
                let frame = frame.unwrap();
                if frame.channel != TRANSPORT_CHANNEL {
                    to.mux.on_frame(now, CONN, pn, &frame, 0, &mut to.sink).unwrap();
                } else if let Ok(TransportFrame::Credit { channel, limit }) =
                    TransportFrame::parse(frame.body)
                {
                    to.mux.on_credit(pn, channel, limit).unwrap();
                }
            }
        }
        to.receive_ns += start.elapsed().as_nanos() as u64;
        let start = std::time::Instant::now();
        while from.flying.len() > lag {
            let mut records = from.flying.pop_front().unwrap();
            for record in records.drain(..) {
                from.mux.on_acked(now, CONN, &record, &mut from.sink);
            }
            from.spare.push(records);
        }
        from.ack_ns += start.elapsed().as_nanos() as u64;
        packets += n as u64;
        if n == 0 {
            return packets;
        }
    }
}

fn measure(what: &str, kind: ChannelKind, channels: usize, size: usize, total: usize) {
    let config = Arc::new(ConnectionConfig::default());
    let (mut a, mut b) = (end(Role::Client, &config), end(Role::Host, &config));
    let options = ChannelOptions { kind, ..ChannelOptions::default() };
    let mut now = Instant::from_nanos(1);
    let keys: Vec<_> = (0..channels).map(|_| a.mux.open(now, "x", &options, 0).unwrap()).collect();
    for _ in 0..10 {
        pump(&mut a, &mut b, now, 0);
        for key in std::mem::take(&mut b.sink.requests) {
            b.mux.accept(now, key, &options, 0).unwrap();
        }
        b.mux.on_timeout(now, CONN, &mut b.sink).unwrap();
        pump(&mut b, &mut a, now, 0);
    }
    let data = vec![7; size];
    let burst = (256 << 10) / size.max(128);
    let mut sent = 0;
    let mut packets = 0;
    let start = std::time::Instant::now();
    while sent < total {
        let t = std::time::Instant::now();
        for i in 0..burst.max(1) {
            let key = keys[(sent + i) % channels];
            a.mux.send(now, key, &data, SendOptions::default()).unwrap();
        }
        a.send_ns += t.elapsed().as_nanos() as u64;
        sent += burst.max(1);
        packets += pump(&mut a, &mut b, now, 64);
        pump(&mut b, &mut a, now, 0);
        now += Duration::from_micros(100);
    }
    pump(&mut a, &mut b, now, 0);
    let elapsed = start.elapsed();
    let per = |ns: u64| ns as f64 / sent as f64;
    println!(
        "{what}: {:.2} M/s {:.1} Gb/s; ns per message: send {:.1} fill {:.1} receive {:.1} ack \
         {:.1}; {packets} packets, {} of {sent} received",
        sent as f64 / elapsed.as_secs_f64() / 1e6,
        (sent * size) as f64 * 8.0 / elapsed.as_nanos() as f64,
        per(a.send_ns),
        per(a.fill_ns),
        per(b.receive_ns),
        per(a.ack_ns),
        b.sink.messages,
    );
}

#[test]
#[ignore = "measures"]
fn speed() {
    for _ in 0..2 {
        measure("64 B messages", ChannelKind::Messages, 1, 64, 4_000_000);
        measure("64 B messages, 200 channels", ChannelKind::Messages, 200, 64, 4_000_000);
        measure("64 KiB messages", ChannelKind::Messages, 1, 65_536, 40_000);
        measure("64 B datagrams", ChannelKind::Datagrams, 1, 64, 4_000_000);
        measure("60 KiB datagrams", ChannelKind::Datagrams, 1, 60_000, 20_000);
    }
}
