//! Somebody on the path who sees every datagram, can derive the Initial keys, and whose forgeries
//! arrive before the true packets; and peers that break the rules under authenticated keys.

use super::net::*;
use crate::error::{PeerMisbehaved, Reason};
use crate::handshake::level::Space;
use crate::handshake::test_support::{KeyKind, identity};
use crate::handshake::tls::initial_keys;
use crate::handshake::*;
use crate::ids::ConnectionId;
use crate::limits::{TAG_LEN, VERSION};
use crate::time::{Duration, Instant};
use crate::wire::codec::Writer;
use crate::wire::packet::{
    Level, LongHeader, LongPacket, MessageType, Retry, VersionList, patch_payload_len,
};
use crate::wire::params::TransportParams;
use crate::wire::transport::TransportFrame;
use proptest::prelude::*;
use rustls::Side;

/// What an observer learns from the client's first datagram.
#[derive(Clone)]
struct Seen {
    client_id: ConnectionId,
    request_id: ConnectionId,
    request: Vec<u8>,
    /// How many requests with new ids came before.
    nth: u32,
}

impl Seen {
    /// An Initial packet with this payload, sealed as the host (`to` client) or the client would.
    fn seal(&self, to: To, pn: u32, payload: &[u8]) -> Vec<u8> {
        self.seal_from(ConnectionId([0xEE; 8]), to, pn, payload)
    }

    fn seal_from(&self, host_id: ConnectionId, to: To, pn: u32, payload: &[u8]) -> Vec<u8> {
        let (side, message, dcid, scid) = match to {
            To::Client => (Side::Server, MessageType::ConnectionResponse, self.client_id, host_id),
            To::Host => {
                (Side::Client, MessageType::ConnectionRequest, self.request_id, self.client_id)
            }
        };
        let header = LongHeader {
            message,
            level: Level::Initial,
            version: VERSION,
            dcid: &dcid.0,
            scid: &scid.0,
            token: &[],
            pn,
            header_len: 0,
            payload_len: 0,
        };
        let mut packet = vec![0; 1200];
        let at = header.write(&mut packet).unwrap();
        patch_payload_len(&mut packet, at, payload.len() + TAG_LEN);
        packet[at..at + payload.len()].copy_from_slice(payload);
        let keys = initial_keys(&self.request_id.0, side).unwrap();
        let (head, rest) = packet.split_at_mut(at);
        let (body, room) = rest.split_at_mut(payload.len());
        let tag = keys.local.packet.encrypt_in_place(u64::from(pn), head, body).unwrap();
        room[..TAG_LEN].copy_from_slice(tag.as_ref());
        if to == To::Client {
            packet.truncate(at + payload.len() + TAG_LEN);
        }
        packet
    }

    fn frames(&self, to: To, pn: u32, frames: &[TransportFrame<'_>]) -> Vec<u8> {
        let mut payload = [0; 1000];
        let mut w = Writer::new(&mut payload);
        for frame in frames {
            frame.write(&mut w).unwrap();
        }
        self.seal(to, pn, w.as_written())
    }
}

fn crypto(data: &[u8]) -> TransportFrame<'_> {
    TransportFrame::Crypto { offset: 0, data }
}

/// ACK of packets 0..=`largest`.
fn ack(largest: u8) -> Vec<u8> {
    vec![0, 6, 0xff, 0xff, 2, largest, 0, 0, 0, largest]
}

/// An observer that answers each of the client's first `rounds` requests with what `forge` makes.
fn on_requests(rounds: u32, forge: impl Fn(&Seen) -> Vec<(To, Vec<u8>)> + 'static) -> Observer {
    let mut known = Vec::new();
    Box::new(move |to, datagram| {
        if to != To::Host {
            return Vec::new();
        }
        let Ok(LongPacket::Sealed(header)) = LongPacket::parse(datagram) else {
            return Vec::new();
        };
        let request_id = header.destination().unwrap();
        if header.message != MessageType::ConnectionRequest
            || known.contains(&request_id)
            || known.len() as u32 >= rounds
        {
            return Vec::new();
        }
        known.push(request_id);
        forge(&Seen {
            client_id: header.source().unwrap(),
            request_id,
            request: datagram.to_vec(),
            nth: known.len() as u32 - 1,
        })
    })
}

/// Both sides get there in spite of the observer, within the initial timeout of a connection.
fn survives(
    name: &str,
    rounds: u32,
    forge: impl Fn(&Seen) -> Vec<(To, Vec<u8>)> + Clone + 'static,
) {
    for seed in 0..8 {
        let delay = [10, 150][seed as usize % 2];
        let link = Link {
            delay_min: delay,
            delay_max: delay + seed % 40 * 5,
            loss: if seed % 8 > 3 { 5 } else { 0 },
            ..Link::default()
        };
        let mut net = Setup { link, seed, ..Setup::new() }.start();
        net.observer = Some(on_requests(rounds, forge.clone()));
        net.run_until(Duration::from_secs(10), Net::both_established);
        assert!(
            net.both_established() && net.client_ended.is_none(),
            "{name}, seed {seed}: {:?} {:?} {:?}",
            net.client_ended,
            net.client,
            net.client.counters()
        );
        net.results();
    }
}

#[test]
fn forged_tls_bytes_for_the_client() {
    // Not TLS; a ServerHello that makes no sense; one that never ends.
    for bytes in [&[0x63u8; 40][..], &[2, 0, 0, 4, 3, 3, 0, 0], &[2, 0, 0xff, 0xff, 3, 3, 1, 1]] {
        for rounds in [1, 2, 5] {
            survives("garbage", rounds, move |seen| {
                vec![(To::Client, seen.frames(To::Client, 0, &[crypto(bytes)]))]
            });
        }
    }
}

#[test]
fn forged_packets_that_use_up_numbers() {
    survives("numbers", 3, |seen| {
        let ping = |pn| (To::Client, seen.frames(To::Client, pn, &[TransportFrame::Ping]));
        let far = (0..200).map(|i| ping(i * 1_000_003));
        (0..30).map(ping).chain(far).collect()
    });
}

#[test]
fn forged_acknowledgements() {
    // The request seems delivered, and is lost.
    for largest in [0, 5, 63] {
        let mut net = Setup::new().start();
        net.drop_next = vec![To::Host];
        net.observer = Some(on_requests(1, move |seen| {
            vec![(To::Client, seen.seal(To::Client, 0, &ack(largest)))]
        }));
        net.run_until(Duration::from_secs(10), Net::both_established);
        assert!(net.both_established(), "{largest}");
    }
    survives("acks to the host", 2, |seen| vec![(To::Host, seen.seal(To::Host, 9, &ack(0)))]);
}

#[test]
fn forged_close() {
    let close = TransportFrame::Close { reason: Reason::REFUSED, discarded: false, text: "no" };
    survives("to the client", 4, move |seen| {
        vec![(To::Client, seen.frames(To::Client, 0, &[close]))]
    });
    survives("to the host", 4, move |seen| vec![(To::Host, seen.frames(To::Host, 7, &[close]))]);
}

/// A refusal with nothing better behind it is believed, but not at once.
#[test]
fn true_refusal_is_believed() {
    let mut net = Setup::new().start();
    net.observer = Some(on_requests(1, |seen| {
        let LongPacket::Sealed(header) = LongPacket::parse(&seen.request).unwrap() else {
            unreachable!()
        };
        let reason = crate::error::CloseReason::new(Reason::REFUSED, "too busy");
        let mut buf = [0; 256];
        let n = write_refusal(&header, &reason, &mut buf).unwrap();
        vec![(To::Client, buf[..n].to_vec())]
    }));
    net.link.loss = 100;
    net.run_until(Duration::from_secs(5), |n| n.client_ended.is_some());
    let reason = net.client_reason();
    assert_eq!((reason.reason, reason.text.as_str()), (Reason::REFUSED, "too busy"));
    assert!(matches!(net.client_ended, Some(Receipt::Closed(_))));
    assert_eq!(net.elapsed(), ms(1501));
    assert_eq!(net.client.poll_transmit(net.now, &mut [0; 1500]), None, "nobody to tell");
}

#[test]
fn forged_frames_that_make_no_sense() {
    survives("frames", 3, |seen| {
        let mut forged = Vec::new();
        for (pn, payload) in
            [&[0xffu8; 50][..], &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9], &[0, 1, 0xff, 0xff, 0x55]]
                .iter()
                .enumerate()
        {
            for to in [To::Client, To::Host] {
                forged.push((to, seen.seal(to, pn as u32, payload)));
            }
        }
        forged
    });
}

#[test]
fn forged_version_list_and_retry() {
    survives("version list", 3, |seen| {
        let mut buf = [0; 64];
        let LongPacket::Sealed(h) = LongPacket::parse(&seen.request).unwrap() else {
            unreachable!()
        };
        let prefix = crate::wire::packet::LongPrefix {
            flags: 0x80,
            version: VERSION,
            dcid: h.dcid,
            scid: h.scid,
        };
        let n = VersionList::write(&mut buf, &prefix, &[0x5452_4b77]).unwrap();
        vec![(To::Client, buf[..n].to_vec())]
    });
    survives("retry", 2, |seen| {
        let mut buf = [0; 128];
        let scid = ConnectionId([seen.nth as u8 + 1; 8]);
        let token = b"mine";
        let n = Retry::write(&mut buf, seen.client_id, scid, token, &seen.request_id.0).unwrap();
        vec![(To::Client, buf[..n].to_vec())]
    });
    // Without the right tag it is not followed at all.
    let mut net = Setup::new().start();
    net.observer = Some(on_requests(1, |seen| {
        let mut buf = [0; 128];
        let id = ConnectionId([1; 8]);
        let n = Retry::write(&mut buf, seen.client_id, id, b"mine", &[7; 8]).unwrap();
        vec![(To::Client, buf[..n].to_vec())]
    }));
    net.run_until(ms(1000), Net::both_established);
    assert!(net.both_established());
    assert_eq!((net.client.counters().retries, net.elapsed()), (0, ms(30)));
}

/// The attacker answers the request itself, with a ServerHello that is perfectly valid.
#[test]
fn forged_server_hello() {
    let attacker = identity(KeyKind::Ed25519, "attacker");
    let tls = HostTls::new(attacker, &ClientAuth::None, None).unwrap();
    for rounds in [1, 2, 4] {
        let tls = tls.clone();
        survives("server hello", rounds, move |seen| {
            let mut request = seen.request.clone();
            let LongPacket::Sealed(header) = LongPacket::parse(&seen.request).unwrap() else {
                unreachable!()
            };
            let now = Instant::ZERO;
            let id = ConnectionId([0xAD; 8]);
            let mut host = Handshake::host(
                now,
                &tls,
                TransportParams::default(),
                id,
                &header,
                None,
                HandshakeConfig::default(),
            )
            .unwrap();
            host.on_datagram_bytes(request.len());
            let (packet, _) = next_packet(&mut request).unwrap();
            assert_eq!(host.receive(now, packet), Receipt::Ok);
            let mut buf = [0; 1500];
            let n = host.poll_transmit(now, &mut buf).unwrap();
            let (initial, _) = next_packet(&mut buf[..n]).unwrap();
            vec![(To::Client, initial.to_vec())]
        });
    }
}

/// A forged request reaches the host before the true one.
#[test]
fn forged_client_hello() {
    survives("garbage", 2, |seen| {
        vec![(To::Host, seen.frames(To::Host, 3, &[crypto(&[0x63; 60])]))]
    });
    survives("never ends", 2, |seen| {
        vec![(To::Host, seen.frames(To::Host, 3, &[crypto(&[1, 0, 0xff, 0xff, 3, 3])]))]
    });
    // A true ClientHello, but the attacker's.
    survives("another's", 2, |seen| {
        let tls = ClientTls::new(None, &Trust::DangerousAny, None).unwrap();
        let mut rng = crate::crypto::Rng::from_seed([4; 32]);
        let mut client = Handshake::client(
            Instant::ZERO,
            &tls,
            "host.test",
            TransportParams::default(),
            seen.client_id,
            HandshakeConfig::default(),
            &mut rng,
        )
        .unwrap();
        let tx = &mut client.initial.as_mut().unwrap().tx;
        let (_, hello) = tx.take(1000).unwrap();
        vec![(To::Host, seen.frames(To::Host, 3, &[crypto(hello)]))]
    });
}

#[test]
fn random_handshake_packets() {
    let mut net = Setup::new().start();
    let mut noise = crate::crypto::Rng::from_seed([8; 32]);
    net.observer = Some(Box::new(move |to, datagram| {
        let mut datagram = datagram.to_vec();
        let mut forged = Vec::new();
        let mut rest = datagram.as_mut_slice();
        while let Some((packet, after)) = next_packet(rest) {
            for _ in 0..20 {
                let mut copy = packet.to_vec();
                let at = 23 + noise.below(copy.len() as u64 - 23) as usize;
                copy[at] ^= 1 << noise.below(8);
                forged.push((to, copy));
            }
            rest = after;
        }
        forged
    }));
    net.run_until(Duration::from_secs(10), Net::both_established);
    assert!(net.both_established() && net.client_ended.is_none());
    assert!(net.client.counters().forged > 10, "{:?}", net.client.counters());
    assert_eq!(net.elapsed(), ms(30), "not even slower");
    net.results();
}

// ---- under authenticated keys

/// The client, already sure of the host, sends `frame` at the Handshake level before anything else
/// of its flight; how the host's attempt and the client's end.
fn client_sends(frame: &TransportFrame<'_>) -> (Receipt, Option<Receipt>) {
    client_sends_after(frame, |_| {})
}

fn client_sends_after(
    frame: &TransportFrame<'_>,
    before: impl Fn(&mut Net),
) -> (Receipt, Option<Receipt>) {
    let mut net = Setup::new().start();
    net.run_until(ms(1000), |n| n.client_established.is_some());
    before(&mut net);
    let now = net.now;
    let host_id = net.host().machine.local_id;
    let client_id = net.client.local_id;
    let header = LongHeader {
        message: MessageType::AuthenticationRequest,
        level: Level::Handshake,
        version: VERSION,
        dcid: &host_id.0,
        scid: &client_id.0,
        token: &[],
        pn: 0,
        header_len: 0,
        payload_len: 0,
    };
    let mut buf = [0; 1500];
    let space: &mut Space = net.client.handshake.as_mut().unwrap();
    let (n, _) = space.write_packet(now, header, Some(frame), &mut buf).unwrap();
    net.push(To::Host, buf[..n].to_vec(), ms(0));
    net.run_until(ms(3000), |n| n.hosts[0].ended.is_some() && n.client_ended.is_some());
    (net.host().ended.clone().expect("the host ends it"), net.client_ended)
}

fn assert_violation(error: PeerMisbehaved, (host, client): (Receipt, Option<Receipt>)) {
    let expected = crate::error::CloseReason::new(error.reason(), &error.to_string());
    assert_eq!(host, Receipt::Failed(expected.clone()));
    assert_eq!(client, Some(Receipt::Closed(expected)));
}

#[test]
fn frames_that_do_not_belong_into_a_handshake() {
    let frame = TransportFrame::EarlyCredit { limit: 1 };
    let error = PeerMisbehaved::Unexpected("TRANSPORT frame in the handshake");
    assert_violation(error, client_sends(&frame));
}

#[test]
fn acknowledgement_of_packets_never_sent() {
    let body = &ack(40)[4..];
    let frame = TransportFrame::parse(body).unwrap();
    assert_violation(PeerMisbehaved::OptimisticAck, client_sends(&frame));
}

#[test]
fn handshake_message_twice_with_different_content() {
    let second = TransportFrame::Crypto { offset: 0, data: b"\x14\0\0\x20 another Finished" };
    let error = PeerMisbehaved::Unexpected("second version of CRYPTO");
    let outcome = client_sends_after(&second, |net| {
        net.run_until(ms(1000), Net::both_established);
    });
    assert_violation(error, outcome);
}

#[test]
fn handshake_message_out_of_order() {
    // A ClientHello where Certificate or Finished is due.
    let (host, client) = client_sends(&crypto(&[1, 0, 0, 2, 3, 3]));
    let reason = |r: &Receipt| match r {
        Receipt::Closed(r) | Receipt::Failed(r) => r.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&host), Reason::PROTOCOL);
    assert_eq!(reason(&client.unwrap()), Reason::PROTOCOL);
}

#[test]
fn handshake_message_after_the_last() {
    let outcome =
        client_sends_after(&TransportFrame::Crypto { offset: 36, data: &[4, 0, 0, 1, 0] }, |net| {
            net.run_until(ms(1000), Net::both_established);
        });
    assert_violation(PeerMisbehaved::Unexpected("CRYPTO after Finished"), outcome);
    let far = TransportFrame::Crypto { offset: 1 << 20, data: b"x" };
    assert_violation(PeerMisbehaved::Limit("CRYPTO"), client_sends(&far));
}

/// A wrong Finished under the right keys.
#[test]
fn proof_that_fails() {
    let mut finished = vec![0x14, 0, 0, 32];
    finished.extend([7; 32]);
    let (host, client) = client_sends(&crypto(&finished));
    assert!(matches!(&host, Receipt::Failed(r) if r.reason == Reason::BAD_CRYPTO), "{host:?}");
    assert!(matches!(client, Some(Receipt::Closed(r)) if r.reason == Reason::BAD_CRYPTO));
}

#[test]
fn parameters_that_contradict_the_ids() {
    use crate::handshake::client::AwaitConnectionResponse;
    let tls = ClientTls::new(None, &Trust::DangerousAny, None).unwrap();
    let mut rng = crate::crypto::Rng::from_seed([1; 32]);
    let (local, host) = (ConnectionId([1; 8]), ConnectionId([2; 8]));
    let (mut state, _, _) =
        AwaitConnectionResponse::start(&tls, "h", TransportParams::default(), local, &mut rng)
            .unwrap();
    assert!(state.answered(host));
    let good = TransportParams {
        initial_source_id: host,
        original_destination_id: Some(state.destination_id()),
        ..TransportParams::default()
    };
    assert_eq!(state.check(&good), Ok(()));
    let wrong = Some(ConnectionId([9; 8]));
    for bad in [
        TransportParams { initial_source_id: ConnectionId([9; 8]), ..good },
        TransportParams { original_destination_id: wrong, ..good },
        TransportParams { original_destination_id: None, ..good },
        TransportParams { retry_source_id: wrong, ..good },
    ] {
        assert!(state.check(&bad).is_err(), "{bad:?}");
    }
}

proptest! {
    /// Anything at all, sealed with the Initial keys or not, at any time: no panic, and the
    /// handshake goes on.
    #[test]
    fn any_bytes(
        raw in prop::collection::vec(any::<u8>(), 0..1300),
        payload in prop::collection::vec(any::<u8>(), 1..900),
        pn: u32,
        when in 0u64..40,
    ) {
        let mut net = Setup::new().start();
        let forged = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let slot = forged.clone();
        net.observer = Some(on_requests(1, move |seen| {
            let mut slot = slot.borrow_mut();
            slot.push((To::Client, seen.seal(To::Client, pn, &payload)));
            slot.push((To::Host, seen.seal(To::Host, pn, &payload)));
            let frame = crypto(&payload[..payload.len().min(800)]);
            slot.push((To::Host, seen.frames(To::Host, pn, &[frame])));
            Vec::new()
        }));
        net.run_until(ms(when), |_| false);
        for (to, packet) in forged.borrow_mut().drain(..) {
            net.push(to, packet, ms(0));
        }
        for to in [To::Client, To::Host] {
            let mut long = raw.clone();
            if let Some(first) = long.first_mut() {
                *first |= 0x80;
            }
            net.push(to, long, ms(0));
        }
        net.run_until(Duration::from_secs(10), Net::both_established);
        prop_assert!(net.both_established());
    }
}
