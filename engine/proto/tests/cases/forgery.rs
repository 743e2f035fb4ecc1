//! Packets that nobody sent, or that were sent before.

use crate::seeded;
use crate::sim::forge::{self, InitialKeys, Long};
use crate::sim::link::corrupt;
use crate::sim::node::NodeConfig;
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::rng::Rng;
use crate::sim::{Flow, Packet, Size, Verdict, ms, secs, tls};
use rustls::Side;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use trunkline_proto::config::ChannelKind;
use trunkline_proto::endpoint::ClientConfig;
use trunkline_proto::error::Reason;
use trunkline_proto::limits::VERSION;
use trunkline_proto::status::Status;
use trunkline_proto::time::Duration;

/// A packet that an attacker sends.
type Forged = (SocketAddr, SocketAddr, Vec<u8>);

/// Runs until both sides are connected, while `attack` answers packets that it sees.
fn connect_under(
    pair: &mut Pair,
    behind: bool,
    mut attack: impl FnMut(&Packet, u64) -> Vec<Forged> + 'static,
) {
    let queue: Rc<RefCell<Vec<Forged>>> = Rc::default();
    let out = queue.clone();
    let mut number = 0;
    pair.w.set_hook(move |p| {
        out.borrow_mut().extend(attack(p, number));
        number += 1;
        Verdict::Pass
    });
    pair.start();
    let (c, limit) = (pair.c, pair.now() + secs(60));
    let connected = |pair: &Pair| {
        pair.w.nodes[CLIENT].app.conn(c).status == Status::Connected
            && pair.w.nodes[HOST].app.conns.values().any(|c| c.status == Status::Connected)
    };
    while !connected(pair) {
        assert!(pair.w.step(limit), "not connected under attack");
        let status = pair.conn(CLIENT).status;
        let reason = pair.conn(CLIENT).reason.clone();
        assert!(matches!(status, Status::Connecting | Status::Connected), "{status:?} {reason:?}");
        for (from, to, data) in queue.borrow_mut().drain(..) {
            // Faster than anything honest, but for what would start an attempt of its own at the
            // host: that comes right behind the genuine packet.
            let first = to == pair.w.addr(HOST) && behind;
            let wait = if first { ms(30) } else { Duration::ZERO };
            pair.w.inject(from, to, data, wait + Duration::from_micros(1));
        }
    }
    pair.w.clear_hook();
    pair.await_connected();
}

fn works(mut pair: Pair) {
    pair.host().policy.answer = Box::new(|_, _| Flow::of(20_000, Size::Fixed(2_000)));
    pair.open(CLIENT, "after", ChannelKind::Bytes, Flow::of(20_000, Size::Fixed(2_000)));
    pair.await_eof(HOST, "after", secs(5));
    pair.await_eof(CLIENT, "after", secs(5));
    pair.check_delivery();
    pair.finish();
}

#[test]
fn damaged_copies_of_every_handshake_packet() {
    seeded("forgery::damaged_copies_of_every_handshake_packet", 20, |seed| {
        let mut pair = Pair::apart(seed, NodeConfig::client(), NodeConfig::host());
        let mut rng = Rng::new(seed);
        connect_under(&mut pair, false, move |p, _| {
            (0..4)
                .map(|_| {
                    let mut data = p.data.clone();
                    corrupt(&mut data, &mut rng);
                    (p.from, p.to, data)
                })
                .collect()
        });
        works(pair);
    });
}

#[test]
fn random_packets_in_the_middle_of_a_handshake() {
    seeded("forgery::random_packets_in_the_middle_of_a_handshake", 10, |seed| {
        let mut pair = Pair::apart(seed, NodeConfig::client(), NodeConfig::host());
        let mut rng = Rng::new(seed);
        connect_under(&mut pair, false, move |p, _| {
            (0..6)
                .map(|i| {
                    let mut data = vec![0; rng.between(1, 1_400) as usize];
                    rng.fill(&mut data);
                    data[0] = if i % 2 == 0 { 0x80 | data[0] } else { 0x40 };
                    if i % 3 == 0 && data.len() > 23 && p.data.len() > 23 {
                        // With the right ids.
                        data[..23].copy_from_slice(&p.data[..23]);
                    }
                    (p.from, p.to, data)
                })
                .collect()
        });
        works(pair);
    });
}

/// What somebody can send who sees the first packets, and so knows the Initial keys.
#[derive(Clone, Copy, Debug)]
enum Forgery {
    /// A ConnectionResponse with nonsense for a ServerHello.
    NonsenseResponse,
    /// A ConnectionResponse with a ServerHello cut short.
    TruncatedResponse,
    /// A CLOSE from the host.
    CloseToClient,
    /// A CLOSE from the client.
    CloseToHost,
    /// Acknowledgements of packets that nobody sent.
    WildAck,
    /// A second ConnectionRequest with the same ids and other content.
    OtherRequest,
    /// A Retry that the host did not make.
    Retry,
    /// Versions that the host does not speak, our own among them, or to wrong ids.
    Versions,
    /// CRYPTO far beyond everything.
    FarCrypto,
    /// Frames that do not belong into a handshake.
    WrongFrames,
}

const FORGERIES: [Forgery; 10] = [
    Forgery::NonsenseResponse,
    Forgery::TruncatedResponse,
    Forgery::CloseToClient,
    Forgery::CloseToHost,
    Forgery::WildAck,
    Forgery::OtherRequest,
    Forgery::Retry,
    Forgery::Versions,
    Forgery::FarCrypto,
    Forgery::WrongFrames,
];

/// Packets of this sort, as an answer to the client's ConnectionRequest `p`.
fn forged(kind: Forgery, p: &Packet, rng: &mut Rng, first: &mut Option<Packet>) -> Vec<Forged> {
    // All that is needed is in the first packet.
    let p = &*first.get_or_insert_with(|| p.clone());
    let request = Long::parse(&p.data).expect("the first packet is a ConnectionRequest");
    let as_host = InitialKeys::of(&request.dcid, Side::Server);
    let as_client = InitialKeys::of(&request.dcid, Side::Client);
    let id = rng.u64().to_be_bytes().to_vec();
    let response = Long {
        message: forge::CONNECTION_RESPONSE,
        level: 0,
        version: VERSION,
        dcid: request.scid.clone(),
        scid: id.clone(),
        token: vec![],
        pn: rng.below(3) as u32,
        header_len: 0,
        sealed_len: 0,
    };
    let again = Long { pn: 1 + rng.below(3) as u32, ..request.clone() };
    let mut noise = vec![0; 90];
    rng.fill(&mut noise);
    let to_client = |frames: Vec<u8>| (p.to, p.from, as_host.seal(&response, frames, 1_200));
    let to_host = |frames: Vec<u8>| (p.from, p.to, as_client.seal(&again, frames, 1_200));
    match kind {
        Forgery::NonsenseResponse => vec![to_client(forge::crypto(0, &noise))],
        Forgery::TruncatedResponse => {
            // A handshake header that promises a ServerHello of 90 bytes, and TLS 1.2 in it.
            let mut hello = vec![2, 0, 0, 90, 3, 3];
            hello.extend(&noise);
            vec![
                to_client(forge::crypto(0, &hello[..50])),
                to_client(forge::crypto(50, &hello[50..94])),
            ]
        }
        Forgery::CloseToClient => vec![to_client(forge::close(4_005, "go away"))],
        Forgery::CloseToHost => vec![to_host(forge::close(4_005, "never mind"))],
        Forgery::WildAck => {
            vec![to_client(forge::ack(1_000)), to_host(forge::ack(5_000))]
        }
        Forgery::OtherRequest => {
            let frames = as_host.open(&p.data).expect("everybody can open it");
            let mut other = frames.clone();
            let at = rng.between(8, 60) as usize;
            other[at] ^= 0x55;
            vec![to_host(other), to_host(forge::crypto(0, &noise))]
        }
        Forgery::Retry => {
            let mut scid = [0; 8];
            rng.fill(&mut scid);
            vec![(p.to, p.from, forge::retry(&request, scid))]
        }
        Forgery::Versions => {
            let stranger = Long { dcid: vec![9; 8], scid: vec![8; 8], ..request.clone() };
            vec![
                (p.to, p.from, forge::version_list(&request, &[VERSION, 7])),
                (p.to, p.from, forge::version_list(&stranger, &[1, 2, 3])),
            ]
        }
        Forgery::FarCrypto => {
            vec![to_client(forge::crypto(1 << 28, &noise)), to_host(forge::crypto(1 << 28, &noise))]
        }
        Forgery::WrongFrames => {
            let stream = [&[0, 4, 0, 1, 0, 0, 0, 0, 0, 0], b"data".as_slice()].concat();
            vec![
                to_client(stream.clone()),
                to_host(stream),
                to_client(vec![0, 1, 0xff, 0xff, 0x66]),
            ]
        }
    }
}

#[test]
fn forged_handshake_messages_in_the_middle_of_a_handshake() {
    seeded("forgery::forged_handshake_messages_in_the_middle_of_a_handshake", 40, |seed| {
        let kind = FORGERIES[(seed % 10) as usize];
        let mut pair = Pair::apart(seed, NodeConfig::client(), NodeConfig::host());
        pair.link(|link| link.delay = ms(30));
        let (mut rng, mut first) = (Rng::new(seed), None);
        // Each of the first packets draws one; later the genuine ones must win.
        connect_under(&mut pair, true, move |p, n| {
            if n < 1 + seed % 4 { forged(kind, p, &mut rng, &mut first) } else { vec![] }
        });
        works(pair);
    });
}

#[test]
fn replayed_data_packets_change_nothing() {
    seeded("forgery::replayed_data_packets_change_nothing", 10, |seed| {
        let mut pair = Pair::connected(seed);
        pair.link(|link| link.reorder = [0, 1_000][(seed % 2) as usize]);
        let stored: Rc<RefCell<Vec<Packet>>> = Rc::default();
        let log = stored.clone();
        pair.w.set_hook(move |p| {
            if !p.is_long() {
                log.borrow_mut().push(p.clone());
            }
            Verdict::Pass
        });
        pair.host().policy.answer = Box::new(|_, _| Flow::of(150, Size::Mixed(2_000)));
        for kind in [ChannelKind::Messages, ChannelKind::Datagrams] {
            let flow = Flow::of(150, Size::Mixed(2_000)).paced(ms(2));
            pair.open(CLIENT, &format!("{kind:?}"), kind, flow);
        }
        // In the middle of the transfer, and again after it.
        for pause in [ms(150), secs(5)] {
            pair.w.run_for(pause);
            // All that have arrived: one that overtook its original would be no replay.
            let arrived = pair.now();
            let mut packets = stored.borrow().clone();
            packets.retain(|p| arrived.since(p.sent_at) >= ms(50));
            let stranger = "10.55.5.5:5".parse().expect("an address");
            for (i, p) in packets.iter().enumerate() {
                let from = if i % 2 == 0 { p.from } else { stranger };
                pair.w.inject(from, p.to, p.data.clone(), ms(1 + i as u64 % 9));
            }
            pair.w.run_for(ms(20));
            assert_eq!(pair.w.astray.get(&stranger), None, "a replay was answered");
        }
        for name in ["Messages", "Datagrams"] {
            pair.await_eof(HOST, name, secs(20));
            pair.await_eof(CLIENT, name, secs(20));
        }
        let rejected = pair.stats(HOST).packets_rejected;
        assert!(rejected > 100, "{rejected} packets rejected");
        let info = pair.w.nodes[HOST].endpoint.info(pair.h).expect("connected");
        assert_eq!(info.remote, pair.w.addr(CLIENT), "a replay moved the path");
        pair.check_delivery();
        pair.finish();
    });
}

#[test]
fn damaged_data_packets_change_nothing() {
    seeded("forgery::damaged_data_packets_change_nothing", 10, |seed| {
        let mut pair = Pair::connected(seed);
        let mut rng = Rng::new(seed);
        let queue: Rc<RefCell<Vec<Forged>>> = Rc::default();
        let out = queue.clone();
        pair.w.set_hook(move |p| {
            let mut data = p.data.clone();
            corrupt(&mut data, &mut rng);
            out.borrow_mut().push((p.from, p.to, data));
            Verdict::Pass
        });
        pair.open(CLIENT, "bulk", ChannelKind::Bytes, Flow::of(400_000, Size::Fixed(5_000)));
        let limit = pair.now() + secs(30);
        while !pair.conn(HOST).named("bulk").is_some_and(|c| c.eof) {
            assert!(pair.w.step(limit), "not done");
            for (from, to, data) in queue.borrow_mut().drain(..) {
                pair.w.inject(from, to, data, Duration::from_micros(1));
            }
        }
        pair.w.clear_hook();
        assert_eq!(pair.stats(CLIENT).packets_lost, 0, "damage looked like loss");
        works(pair);
    });
}

#[test]
fn a_forged_host_is_never_believed() {
    // Somebody on the path answers with a whole handshake of their own key.
    let mut pair = Pair::apart(9, NodeConfig::client(), NodeConfig::host());
    let mut impostor = NodeConfig::host();
    impostor.identity = tls::identity(4_444, tls::HOST_NAME);
    let wrong = pair.w.add("impostor", impostor);
    let (host, there) = (pair.w.addr(HOST), pair.w.addr(wrong));
    let client = pair.w.addr(CLIENT);
    pair.w.set_hook(move |p| {
        if p.to == host {
            p.to = there;
        } else if p.from == there && p.to == client {
            p.from = host;
        }
        Verdict::Pass
    });
    let config: ClientConfig = pair.client().client_config();
    pair.start_with(&config);
    pair.run_until("the client refuses", secs(15), |p| p.conn(CLIENT).ended());
    assert_eq!(pair.conn(CLIENT).reason.as_ref().map(|r| r.reason), Some(Reason::BAD_CERTIFICATE));
    assert!(!pair.conn(CLIENT).path.contains(&Status::Connected));
    pair.w.finish();
}
