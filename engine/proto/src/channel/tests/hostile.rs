//! A peer that sends anything.

use super::net::{Net, Rng, Weather, receive};
use crate::config::{ChannelKind, ChannelOptions, ConnectionConfig};
use crate::endpoint::SendOptions;
use crate::limits::TRANSPORT_CHANNEL;
use crate::wire::codec::Writer;
use crate::wire::control::{ChannelRequestMessage, RequestOptions, encode_channel_request};
use crate::wire::frame::{DatagramHeader, write_datagram_header, write_stream_header};
use crate::wire::transport::TransportFrame;

fn config() -> ConnectionConfig {
    ConnectionConfig {
        channel_window: 4096,
        channel_window_max: 16384,
        max_channels: 50,
        receive_budget: 128 << 10,
        max_message: 32 << 10,
        reassembly_budget: 64 << 10,
        early_data: 8 << 10,
        datagram_reassembly: 128 << 10,
        ..ConnectionConfig::default()
    }
}

/// A broken Activity message ends the connection with an error that names the field; one before
/// authentication is out of place.
#[test]
fn a_broken_activity_message_names_its_field() {
    use super::super::Mux;
    use crate::error::PeerMisbehaved;
    use crate::event::NullSink;
    use crate::ids::{ConnHandle, Role};
    use crate::time::Instant;
    use crate::wire::frame::RawFrame;
    let conn = ConnHandle { slot: 0, generation: 1 };
    let say = |ready: bool, message: &[u8]| {
        let mut mux = Mux::new(Role::Host, &std::sync::Arc::new(config()));
        if ready {
            mux.set_ready(Instant::ZERO);
        }
        let mut payload = vec![0; 10];
        write_stream_header(&mut payload, 0, 0, message.len());
        payload.extend_from_slice(message);
        let extra = payload[4..10].to_vec();
        let frame = RawFrame {
            channel: 0,
            extra: extra.try_into().expect("six bytes"),
            body: &payload[10..],
        };
        mux.on_frame(Instant::ZERO, conn, 0, &frame, 0, &mut NullSink)
    };
    assert_eq!(say(true, &[0x92, 0x03, 0x00]), Ok(()));
    let range = PeerMisbehaved::Control("activity is not 0, 1 or 2");
    assert_eq!(say(true, &[0x92, 0x03, 0x05]), Err(range));
    let early = PeerMisbehaved::Unexpected("Activity before authentication");
    assert_eq!(say(false, &[0x92, 0x03, 0x00]), Err(early));
}

fn frame(rng: &mut Rng, control: &mut u64) -> Vec<u8> {
    let ids = [1, 2, 3, 4, 5, 6, 0x8000, 0x8001, 0x8002];
    let id = ids[rng.below(ids.len() as u64) as usize];
    let len = rng.skewed(11) as usize;
    let mut out = vec![rng.next() as u8 & 0x43; 10 + len];
    match rng.below(12) {
        0..=4 => write_stream_header(&mut out, id, rng.skewed(12), len),
        5..=6 => {
            let index = rng.below(4) as u8;
            let len = if index == 3 { len } else { 64 };
            out.resize(10 + len, 0);
            let header = DatagramHeader { id: rng.below(2000) as u32, index, count: 4 };
            write_datagram_header(&mut out, id, header, len);
        }
        7 => {
            let mut message = Vec::new();
            let kind = [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams];
            let options = RequestOptions {
                has_map: true,
                kind: kind[rng.below(3) as usize],
                window: Some(rng.below(10_000)),
                since: rng.chance(20).then(|| rng.below(1000)),
                declined: rng.chance(20).then_some(7),
                ..RequestOptions::default()
            };
            let is_answer = rng.chance(2);
            let request = ChannelRequestMessage { name: "x", channel: id, is_answer, options };
            encode_channel_request(&mut message, &request);
            out = vec![0; 10];
            write_stream_header(&mut out, 0, *control, message.len());
            *control += message.len() as u64;
            out.extend_from_slice(&message);
        }
        n => {
            let limit = rng.skewed(20);
            let frame = match n {
                8 => TransportFrame::Credit { channel: id, limit },
                9 => TransportFrame::ChannelReset { channel: id, code: 1, final_offset: limit },
                10 => TransportFrame::ChannelStop { channel: id, code: 2 },
                _ => TransportFrame::EarlyCredit { limit },
            };
            let mut writer = Writer::new(&mut out);
            if frame.write(&mut writer).is_ok() {
                let n = writer.written();
                out.truncate(n);
                assert_eq!(u16::from_be_bytes([out[2], out[3]]), TRANSPORT_CHANNEL);
            }
        }
    }
    out
}

/// Whatever arrives, sums and bounds hold until the peer is found to misbehave, nothing panics, and
/// the end is clean.
#[test]
fn random_frames() {
    let mut survived = 0;
    for seed in 0..3000 {
        let mut net = Net::new(seed, Weather::FINE, config());
        let mut rng = Rng(seed);
        for (n, kind) in
            [ChannelKind::Bytes, ChannelKind::Messages, ChannelKind::Datagrams].iter().enumerate()
        {
            let options = ChannelOptions { kind: *kind, ..ChannelOptions::default() };
            net.open(0, "", &options);
            net.open(1, "", &options);
            if n == 1 {
                net.settle();
            }
        }
        let mut control = net.sides[1].mux.control_received();
        for pn in 0..200 {
            let s = &mut net.sides[1];
            let payload = frame(&mut rng, &mut control);
            if receive(s, net.now, 500 + pn, &payload).is_err() {
                break;
            }
            survived += 1;
            s.mux.check();
            let keys: Vec<_> = s.mux.keys().collect();
            for key in keys {
                let _ = match rng.below(20) {
                    0 => s.mux.accept(net.now, key, &ChannelOptions::default(), pn),
                    1 => s.mux.decline(net.now, key, 5, "no", pn),
                    2 => s.mux.finish(net.now, key),
                    3 => s.mux.reset(net.now, key, 6),
                    4 => s.mux.stop(net.now, key, 7),
                    5..=8 => s.mux.send(net.now, key, &[0; 500], SendOptions::default()),
                    _ => Ok(()),
                };
            }
            if s.mux.on_timeout(net.now, super::net::CONN, &mut s.sink).is_err() {
                break;
            }
            if let Some((pn, _)) = net.packet(1) {
                if rng.chance(70) { net.acked(1, pn) } else { net.lost(1, pn) }
            }
            net.sides[1].mux.check();
        }
        let reason = crate::error::CloseReason::new(crate::error::Reason::PROTOCOL, "");
        let s = &mut net.sides[1];
        s.mux.close_all(super::net::CONN, &reason, &mut s.sink);
        s.mux.check();
        assert!(s.sink.channels.values().all(|c| c.closed.is_some() || !c.ready));
    }
    assert!(survived > 20_000, "{survived}: the frames should not all be caught at once");
}
