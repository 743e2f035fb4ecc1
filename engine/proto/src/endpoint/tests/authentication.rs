//! Order is mandatory: peers that hold the right keys and break the order of the handshake end
//! their own attempt, with a reason that both sides learn, and nothing else (behaviours §1).

use super::*;
use crate::handshake::{HandshakeFailure, HandshakeState};
use crate::limits::MAX_CREDENTIAL;
use crate::wire::control::{
    ChannelRequestMessage, RequestOptions, encode_authentication_request,
    encode_authentication_response, encode_channel_request,
};
use crate::wire::packet::LongPacket;

const DENIED: HandshakeState = HandshakeState::ConnectionFailed(HandshakeFailure::Authentication);

/// A frame of a reliable channel.
fn stream(channel: u16, offset: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u16).to_be_bytes().to_vec();
    frame.extend(channel.to_be_bytes());
    frame.extend(&offset.to_be_bytes()[2..]);
    frame.extend(body);
    frame
}

fn request(credential: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_authentication_request(&mut out, credential);
    out
}

fn response(accepted: bool) -> Vec<u8> {
    let mut out = Vec::new();
    encode_authentication_response(&mut out, accepted, Reason::APP, "");
    out
}

fn channel_request(channel: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let options = RequestOptions::default();
    let message = ChannelRequestMessage { name: "early", channel, is_answer: false, options };
    encode_channel_request(&mut out, &message);
    out
}

/// The long packets at the start of a datagram, with padding in the place of what is coalesced
/// behind them; `None` when there are none.
fn only_long(datagram: &[u8]) -> Option<Vec<u8>> {
    let mut len = 0;
    while let Ok(LongPacket::Sealed(header)) = LongPacket::parse(&datagram[len..]) {
        len += header.packet_len();
    }
    let mut long = datagram.to_vec();
    long[len..].fill(0);
    (len > 0).then_some(long)
}

impl Net {
    /// Connects up to where the host has the client's proof, and nothing on CONTROL: the client's
    /// AuthenticationRequest is lost.
    fn proven(&mut self) -> (ConnHandle, ConnHandle) {
        let (before, remotes) = (self.host.ep.connections().collect::<Vec<_>>(), [self.host.addr]);
        let c = self.client.ep.connect(self.now, 0, &remotes, &Self::config()).unwrap();
        for _ in 0..4 {
            self.now += Duration::from_millis(1);
            for (_, datagram) in self.client.transmit(self.now) {
                if let Some(long) = only_long(&datagram) {
                    self.host.receive(self.now, self.client.addr, &long);
                }
            }
            for (_, datagram) in self.host.transmit(self.now) {
                self.client.receive(self.now, self.host.addr, &datagram);
            }
        }
        let h = self.host.ep.connections().find(|h| !before.contains(h)).expect("an attempt");
        assert!(self.host.inside(h).has_keys(), "the proof has arrived");
        let waiting = HandshakeState::WaitingForAuthenticationRequest;
        assert_eq!(self.host.ep.handshake_state(h), Some(waiting));
        assert!(!self.host.inside(h).is_told());
        let waiting = HandshakeState::WaitingForAuthenticationResponse;
        assert_eq!(self.client.ep.handshake_state(c), Some(waiting));
        (c, h)
    }

    /// Connects up to where the host's application is asked.
    fn offered(&mut self) -> (ConnHandle, ConnHandle) {
        let known = self.host.log.incoming.len();
        let remotes = [self.host.addr];
        let c = self.client.ep.connect(self.now, 0, &remotes, &Self::config()).unwrap();
        self.run(6);
        (c, self.host.log.incoming[known])
    }

    fn client_says(&mut self, c: ConnHandle, payload: &[u8]) {
        let packet = self.client.inside(c).forge(self.now, payload);
        self.host.receive(self.now, self.client.addr, &packet);
    }

    fn host_says(&mut self, h: ConnHandle, payload: &[u8]) {
        let packet = self.host.inside(h).forge(self.now, payload);
        self.client.receive(self.now, self.host.addr, &packet);
    }
}

/// Two connections of one client: `bystander` is there before and must be there afterwards, `act`
/// ruins another. In the end nothing is left of that, and a new attempt succeeds.
fn ruin(what: &str, act: impl FnOnce(&mut Net)) {
    let mut net = Net::new();
    let (good, good_host) = net.connect();
    act(&mut net);
    net.run(50);
    assert_eq!(net.client.ep.status(good), Status::Connected, "{what}");
    assert_eq!(net.host.ep.status(good_host), Status::Connected, "{what}");
    let others: Vec<_> = net.client.ep.connections().filter(|c| *c != good).collect();
    for c in others {
        let _ = net.client.ep.close(net.now, c, 1000, "", None);
    }
    let others: Vec<_> = net.host.ep.connections().filter(|c| *c != good_host).collect();
    for h in others {
        let _ = net.host.ep.close(net.now, h, 1000, "", None);
    }
    net.run(50);
    assert_eq!(net.client.ep.connections().count(), 1, "{what}: left at the client");
    assert_eq!(net.host.ep.connections().count(), 1, "{what}: left at the host");
    net.connect();
}

/// The client learns that it broke the protocol.
fn client_is_told(net: &Net, c: ConnHandle, what: &str) {
    assert_eq!(net.client.ep.status(c), Status::ClosedByPeer, "{what}");
    assert_eq!(net.client.reason(c), Some(Reason::PROTOCOL), "{what}");
}

/// What comes instead of the AuthenticationRequest, from a client that has proved itself.
#[test]
fn anything_but_an_authentication_request_ends_the_attempt() {
    let mut long = request(&[7; MAX_CREDENTIAL]);
    // [1, bin16 of one byte more than is allowed]
    long.push(7);
    long[3..5].copy_from_slice(&(MAX_CREDENTIAL as u16 + 1).to_be_bytes());
    let first: [(&str, Vec<u8>); 8] = [
        ("AuthenticationResponse", stream(0, 0, &response(true))),
        ("denial", stream(0, 0, &response(false))),
        ("ChannelRequest", stream(0, 0, &channel_request(1))),
        ("data", stream(1, 0, b"data")),
        ("no msgpack", stream(0, 0, &[0xc1])),
        ("a number", stream(0, 0, &[0x01])),
        ("a credential that is too long", stream(0, 0, &long)),
        ("beyond the credit of CONTROL", stream(0, 1 << 20, b"x")),
    ];
    for (what, payload) in first {
        ruin(what, |net| {
            let (c, h) = net.proven();
            net.client_says(c, &payload);
            // Nobody knew of it: it is gone at once.
            net.run(3);
            assert_eq!(net.host.ep.handshake_state(h), None, "{what}");
            assert_eq!(net.host.ep.endpoint_stats().attempts_denied, 1, "{what}");
            assert!(!net.host.log.incoming.contains(&h), "{what}: the application heard of it");
            client_is_told(net, c, what);
            assert_eq!(net.client.ep.handshake_state(c), Some(DENIED), "{what}");
        });
    }
}

/// What a client says after its AuthenticationRequest, before it has the answer.
#[test]
fn anything_before_the_answer_ends_the_attempt() {
    let at = request(&[]).len() as u64;
    let second: [(&str, Vec<u8>); 7] = [
        ("the same request", stream(0, at, &request(&[]))),
        ("another request", stream(0, at, &request(b"better ticket"))),
        ("an answer of its own", stream(0, at, &response(true))),
        ("ChannelRequest", stream(0, at, &channel_request(1))),
        ("a part of a message", stream(0, at, &[0x92])),
        ("data", stream(1, 0, b"data")),
        ("an EOF", stream(1, 0, b"")),
    ];
    for (what, payload) in second {
        ruin(what, |net| {
            let (c, h) = net.offered();
            net.client_says(c, &payload);
            assert_eq!(net.host.ep.status(h), Status::ProblemDetectedLocally, "{what}");
            assert_eq!(net.host.reason(h), Some(Reason::PROTOCOL), "{what}");
            assert_eq!(net.host.ep.handshake_state(h), Some(DENIED), "{what}");
            assert!(net.host.ep.accept(net.now, h).is_err(), "{what}");
            net.run(3);
            client_is_told(net, c, what);
            assert_eq!(net.client.ep.handshake_state(c), Some(DENIED), "{what}");
        });
    }
}

/// The message that was taken, sent again at its own place as a retransmission is, changes nothing,
/// whatever it says the second time.
#[test]
fn repeated_control_bytes_change_nothing() {
    for again in [request(&[]), vec![0xc1; 3], request(&[])[..2].to_vec()] {
        let mut net = Net::new();
        let (c, h) = net.offered();
        net.client_says(c, &stream(0, 0, &again));
        assert_eq!(net.host.ep.status(h), Status::Connecting);
        assert_eq!(net.host.log.incoming, [h], "offered once");
        net.host.ep.accept(net.now, h).unwrap();
        net.run(10);
        net.client_says(c, &stream(0, 0, &again));
        net.host_says(h, &stream(0, 0, &response(false)));
        net.run(10);
        assert_eq!(net.host.ep.status(h), Status::Connected);
        assert_eq!(net.client.ep.status(c), Status::Connected);
        for state in [net.host.ep.handshake_state(h), net.client.ep.handshake_state(c)] {
            assert_eq!(state, Some(HandshakeState::Ready));
        }
    }
}

/// A second message of the handshake ends a connection that works, and only that; it was ready, and
/// its role says so.
#[test]
fn a_second_message_after_the_handshake_ends_the_connection() {
    for (what, message) in [
        ("request", request(&[])),
        ("another request", request(b"x")),
        ("acceptance", response(true)),
        ("denial", response(false)),
    ] {
        ruin(what, |net| {
            let (c, h) = net.connect();
            let at = request(&[]).len() as u64;
            net.client_says(c, &stream(0, at, &message));
            assert_eq!(net.host.ep.status(h), Status::ProblemDetectedLocally, "{what}");
            assert_eq!(net.host.reason(h), Some(Reason::PROTOCOL), "{what}");
            assert_eq!(net.host.ep.handshake_state(h), Some(HandshakeState::Ready), "{what}");
            net.run(3);
            client_is_told(net, c, what);
        });
        ruin(what, |net| {
            let (c, h) = net.connect();
            let at = response(true).len() as u64;
            net.host_says(h, &stream(0, at, &message));
            assert_eq!(net.client.ep.status(c), Status::ProblemDetectedLocally, "{what}");
            assert_eq!(net.client.reason(c), Some(Reason::PROTOCOL), "{what}");
            net.run(3);
            assert_eq!(net.host.ep.status(h), Status::ClosedByPeer, "{what}");
            assert_eq!(net.host.reason(h), Some(Reason::PROTOCOL), "{what}");
        });
    }
}

/// What a host says instead of the AuthenticationResponse.
#[test]
fn anything_but_an_authentication_response_ends_the_attempt() {
    for (what, payload) in [
        ("AuthenticationRequest", stream(0, 0, &request(&[]))),
        ("ChannelRequest", stream(0, 0, &channel_request(0x8000))),
        ("no msgpack", stream(0, 0, &[0xc1])),
        ("an answer to nothing", stream(0, 0, &[0x93, 0xa0, 0x01, 0xc3])),
        ("beyond the credit of CONTROL", stream(0, 1 << 20, b"x")),
    ] {
        ruin(what, |net| {
            let (c, h) = net.offered();
            net.host_says(h, &payload);
            assert_eq!(net.client.ep.status(c), Status::ProblemDetectedLocally, "{what}");
            assert_eq!(net.client.reason(c), Some(Reason::PROTOCOL), "{what}");
            assert_eq!(net.client.ep.handshake_state(c), Some(DENIED), "{what}");
            net.run(3);
            assert_eq!(net.host.ep.status(h), Status::ClosedByPeer, "{what}");
            assert_eq!(net.host.reason(h), Some(Reason::PROTOCOL), "{what}");
            assert_eq!(net.host.ep.handshake_state(h), Some(DENIED), "{what}");
            let late = net.host.ep.accept(net.now, h);
            assert!(matches!(late, Err(ApiError::NoConnection(_))), "{what}: {late:?}");
        });
    }
}

/// A denial whose every message is lost for most of fin-wait arrives by repetition.
#[test]
fn a_lost_denial_is_sent_again() {
    let mut net = Net::new();
    let (c, h) = net.offered();
    net.host.ep.reject(net.now, h, 1_401, "the ticket has expired").unwrap();
    let mut lost = 0;
    for _ in 0..4_500 {
        net.now += Duration::from_millis(1);
        lost += net.host.transmit(net.now).len();
        net.host.timers(net.now);
        net.client.timers(net.now);
    }
    assert!(lost > 5, "the denial was sent {lost} times");
    assert_eq!(net.client.ep.status(c), Status::Connecting);
    net.run(1_000);
    assert_eq!(net.client.ep.status(c), Status::ClosedByPeer);
    assert_eq!(net.client.reason(c), Some(Reason(1_401)));
    let info = net.client.ep.info(c).expect("the handle is open");
    assert_eq!(info.reason.expect("a reason").text, "the ticket has expired");
    assert_eq!(info.handshake, DENIED);
    assert_eq!(net.host.ep.connections().count(), 0, "the host is done");
}

/// Packets of anybody who lacks the keys, at every moment of the handshake: dropped and counted.
#[test]
fn nonsense_without_keys_is_dropped_and_counted() {
    let mut rng = Rng::from_seed([4; 32]);
    let mut net = Net::new();
    let c = net.client.ep.connect(net.now, 0, &[net.host.addr], &Net::config()).unwrap();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut accepted = false;
    for _ in 0..40 {
        net.now += Duration::from_millis(1);
        for (_, packet) in net.client.transmit(net.now) {
            net.host.receive(net.now, net.client.addr, &packet);
            seen.push(packet);
        }
        for (_, packet) in net.host.transmit(net.now) {
            net.client.receive(net.now, net.host.addr, &packet);
            seen.push(packet);
        }
        if let (false, Some(h)) = (accepted, net.host.log.incoming.first().copied()) {
            net.host.ep.accept(net.now, h).unwrap();
            accepted = true;
        }
        for _ in 0..10 {
            // A real packet with one bit of its sealed part changed.
            let mut packet = seen[rng.u64() as usize % seen.len()].clone();
            let at = packet.len() - 1 - rng.u64() as usize % 16;
            if packet[0] & 0x80 != 0 && packet[at] == 0 {
                continue; // padding behind the packet
            }
            packet[at] ^= 1 << (rng.u64() % 8);
            let (to, from) = if rng.u64().is_multiple_of(2) {
                (&mut net.host, net.client.addr)
            } else {
                (&mut net.client, net.host.addr)
            };
            let before = to.ep.endpoint_stats().unwanted();
            // A client's first id is random: it may name another shard, which would drop the packet.
            let elsewhere = matches!(to.receive(net.now, from, &packet), Routed::Shard(_));
            assert!(elsewhere || to.ep.endpoint_stats().unwanted() > before, "not counted");
        }
    }
    assert_eq!(net.client.ep.status(c), Status::Connected);
    assert_eq!(net.client.ep.handshake_state(c), Some(HandshakeState::Ready));
    assert_eq!(net.host.log.incoming.len(), 1);
    assert_eq!(net.host.ep.connections().count(), 1, "nothing is left of the nonsense");
}

/// What a client that has proved itself does to be listened to for longer, each packet valid: what
/// it says at the `n`th tick.
type Delay = fn(n: u64) -> Vec<u8>;

/// A client that keeps the host waiting, a packet every 100 ms, holds its place for the initial
/// timeout and no longer; the application never hears of it.
#[test]
fn no_packet_of_a_client_extends_the_initial_timeout() {
    let delays: [(&str, Delay); 4] = [
        ("pings", |_| vec![0, 1, 0xff, 0xff, 1]),
        ("a request byte by byte", |n| {
            let whole = request(&[7; 200]);
            stream(0, n, &whole[n as usize..=n as usize])
        }),
        ("all but the first byte", |n| stream(0, 1 + n % 60 * 1_000, &[0; 1_000])),
        ("the same byte again", |_| stream(0, 0, &[0x92])),
    ];
    for (what, delay) in delays {
        let mut net = Net::new();
        let begin = net.now;
        let (c, h) = net.proven();
        for n in 0..150 {
            net.now += Duration::from_millis(100);
            net.host.timers(net.now);
            let waits = net.host.ep.handshake_state(h).is_some();
            let is_time = net.now.since(begin) < Duration::from_secs(10);
            assert_eq!(waits, is_time, "{what}: {} ms", net.now.since(begin).as_millis());
            let _ = net.host.transmit(net.now);
            net.client_says(c, &delay(n));
        }
        let stats = net.host.ep.endpoint_stats();
        assert_eq!((stats.attempts_timed_out, stats.attempts_denied), (1, 0), "{what}");
        assert!(net.host.log.incoming.is_empty(), "{what}: the application heard of it");
        assert_eq!(net.host.ep.connections().count(), 0, "{what}");
        assert_eq!(net.host.ep.shared.tokens(), 0, "{what}");
    }
}

/// Clients that prove themselves and fall silent fill the places of handshakes until their time is
/// over; then there is room for others.
#[test]
fn clients_that_fall_silent_keep_others_out_for_the_initial_timeout_at_most() {
    let mut net = Net::new();
    let silent: Vec<_> = (0..4).map(|_| net.proven()).collect();
    net.now += Duration::from_secs(5);
    let mut other = Side {
        ep: endpoint(net.now, 3, |_| {}),
        addr: addr("192.0.2.3:3000"),
        log: Log::default(),
        buffer: 65_535,
    };
    let c = other.ep.connect(net.now, 0, &[net.host.addr], &Net::config()).unwrap();
    for _ in 0..9_000 {
        net.now += Duration::from_millis(1);
        let now = net.now;
        for (_, packet) in other.transmit(now) {
            net.host.receive(now, other.addr, &packet);
        }
        for (to, packet) in net.host.transmit(now) {
            if to == other.addr {
                other.receive(now, net.host.addr, &packet);
            }
        }
        net.host.timers(now);
        other.timers(now);
        if let Some(h) = net.host.log.incoming.first().copied() {
            // Once; afterwards there is nothing to accept.
            let _ = net.host.ep.accept(now, h);
        }
        if other.ep.status(c) == Status::Connected {
            break;
        }
    }
    assert!(net.host.ep.endpoint_stats().refused > 0, "there was room");
    assert_eq!(other.ep.status(c), Status::Connected);
    for (_, h) in silent {
        assert_eq!(net.host.ep.handshake_state(h), None);
    }
    assert_eq!(net.host.log.incoming.len(), 1);
    assert_eq!(net.host.ep.endpoint_stats().attempts_timed_out, 4);
}
