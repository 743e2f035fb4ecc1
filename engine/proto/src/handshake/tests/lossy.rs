//! Honest peers on a bad link.

use super::net::*;
use crate::handshake::test_support::{KeyKind, big_identity, identity};
use crate::handshake::*;
use crate::limits::{AMPLIFICATION_FACTOR, MIN_PACKET};
use crate::time::Duration;

#[test]
fn clean_handshake_takes_one_round_trip() {
    let setup = Setup::new();
    let mut net = setup.start();
    assert_eq!(net.client.state(), HandshakeState::WaitingForConnectionResponse);
    net.run_until(ms(1000), |n| n.client_established.is_some());
    assert_eq!(net.elapsed(), ms(20));
    assert_eq!(net.client.state(), HandshakeState::WaitingForAuthenticationResponse);
    assert_eq!(net.host().machine.state(), HandshakeState::WaitingForAuthenticationRequest);
    net.run_until(ms(1000), Net::both_established);
    assert_eq!(net.elapsed(), ms(30));
    assert_eq!(net.host().machine.state(), HandshakeState::Ready);
    net.run_until(ms(1000), |n| n.client.is_done());
    assert_eq!(net.elapsed(), ms(40));
    assert!(net.host().machine.is_done());
    assert_eq!(net.sent, [2, 2], "request and authentication, response and acknowledgement");
    assert_eq!(net.client.timeout(), None);
    assert_eq!(net.host().machine.timeout(), None);
    let clean = net.client.counters();
    assert_eq!((clean.dropped, clean.timeouts, clean.restarts), (0, 0, 0));
    let bytes = clean.bytes_sent + clean.bytes_received;
    assert!(bytes < 4000, "{bytes}");
    net.client.confirm();
    assert_eq!(net.client.state(), HandshakeState::Ready);
    let (client, host) = net.results();
    assert_eq!(client.rtt, Some(ms(20)));
    assert_eq!(host.rtt, Some(ms(20)));
    assert_eq!(client.suite, "TLS13_AES_128_GCM_SHA256");
    assert_eq!(client.server_name.as_deref(), Some("host.test"));
    assert_eq!(host.server_name.as_deref(), Some("host.test"));
    assert_eq!(client.peer, Some(setup.host_tls.identity().peer_id()));
    assert_eq!(host.peer, None);
    assert!(!host.tickets.is_empty());
}

/// Loss, delay, reordering, duplication and damage, a different mix for each seed.
#[test]
fn any_link_in_the_end() {
    let mut slowest = Duration::ZERO;
    for seed in 0..400 {
        let pick =
            |values: &[u64], salt: u64| values[((seed / salt) % values.len() as u64) as usize];
        let delay_max = pick(&[0, 10, 40, 300], 12);
        let link = Link {
            loss: pick(&[0, 1, 5, 20], 1),
            duplicate: pick(&[0, 10, 50], 4),
            corrupt: pick(&[0, 0, 5], 48),
            delay_min: if seed % 2 == 0 { 0 } else { delay_max },
            delay_max,
        };
        let mut net = Setup { link, seed, ..Setup::new() }.start();
        net.run_until(Duration::from_secs(60), |n| n.both_established() && n.client.is_done());
        assert!(
            net.both_established() && net.client.is_done(),
            "seed {seed} {link:?} {:?} {:?}",
            net.client,
            net.client.counters()
        );
        assert!(net.client_ended.is_none() && net.hosts.iter().all(|h| h.ended.is_none()));
        slowest = slowest.max(net.elapsed());
        net.results();
    }
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
}

/// A chain of many packets, first against the limit for unproven addresses, then with loss.
#[test]
fn big_chains_under_loss() {
    let host = big_identity(20 * 1024);
    let client = big_identity(8 * 1024);
    let client_tls =
        ClientTls::new(Some(client.clone()), &Trust::Pins(vec![host.peer_id()]), None).unwrap();
    let auth = ClientAuth::Required(Trust::Pins(vec![client.peer_id()]));
    let host_tls = HostTls::new(host.clone(), &auth, None).unwrap();
    for seed in 0..60 {
        let link = Link {
            loss: [0, 5, 20][seed as usize % 3],
            duplicate: 5,
            corrupt: if seed % 4 == 3 { 3 } else { 0 },
            delay_min: 5,
            delay_max: 5 + seed % 30,
        };
        let setup = Setup {
            client_tls: client_tls.clone(),
            host_tls: host_tls.clone(),
            link,
            seed,
            ..Setup::new()
        };
        let net = setup.run();
        assert!(net.both_established(), "seed {seed} {link:?}: {:?}", net.client);
        let (at_client, at_host) = net.results();
        assert_eq!(at_client.peer, Some(host.peer_id()));
        assert_eq!(at_host.peer, Some(client.peer_id()));
    }
}

#[test]
fn big_chain_on_a_clean_link_needs_no_timer() {
    let host = big_identity(20 * 1024);
    let setup = Setup {
        client_tls: ClientTls::new(None, &Trust::DangerousAny, None).unwrap(),
        host_tls: HostTls::new(host, &ClientAuth::None, None).unwrap(),
        ..Setup::new()
    };
    let mut net = setup.run();
    assert!(net.both_established());
    assert_eq!(net.client.counters().timeouts, 0);
    assert_eq!(net.host().machine.counters().timeouts, 0);
    assert!(net.elapsed() <= ms(100), "{:?}", net.elapsed());
}

/// The client falls silent after its first datagram: the host sends three times as much and
/// stops, without a timer; a padded probe sets it going again.
#[test]
fn amplification_is_bounded_and_does_not_deadlock() {
    let setup = Setup {
        client_tls: ClientTls::new(None, &Trust::DangerousAny, None).unwrap(),
        host_tls: HostTls::new(big_identity(20 * 1024), &ClientAuth::None, None).unwrap(),
        ..Setup::new()
    };
    let mut net = setup.start();
    // Everything that the host sends is lost.
    net.drop_next = vec![To::Client; 6];
    net.run_until(ms(200), |_| false);
    let counters = net.host().machine.counters();
    assert_eq!(counters.bytes_received, MIN_PACKET as u64);
    assert!(counters.bytes_sent <= AMPLIFICATION_FACTOR * MIN_PACKET as u64);
    assert!(counters.bytes_sent > 2 * MIN_PACKET as u64, "{counters:?}");
    assert_eq!(net.host().machine.timeout(), None, "it may send nothing");
    net.run_until(Duration::from_secs(20), Net::both_established);
    assert!(net.both_established());
    assert!(net.client.counters().timeouts >= 1);
}

/// Both of the client's datagrams are padded while anything of them is at the Initial level, and
/// so are the host's that ask for an acknowledgement.
#[test]
fn initial_datagrams_are_padded() {
    let mut net = Setup::new().start();
    let mut buf = [0; 1500];
    let n = net.client.poll_transmit(net.now, &mut buf).unwrap();
    assert_eq!(n, MIN_PACKET);
    assert_eq!(net.client.poll_transmit(net.now, &mut buf[..1199]), None);
    net.push(To::Host, buf[..n].to_vec(), ms(0));
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = seen.clone();
    net.observer = Some(Box::new(move |to, datagram| {
        log.borrow_mut().push((to, datagram.len()));
        Vec::new()
    }));
    net.run_until(ms(1000), Net::both_established);
    let seen = seen.borrow();
    assert_eq!(seen[0], (To::Client, MIN_PACKET));
    assert!(seen[1].1 < MIN_PACKET, "the AuthenticationRequest needs no padding");
}

/// Handshake packets that overtake the first Initial packet are kept.
#[test]
fn overtaken_initial_packet() {
    let mut net = Setup::new().start();
    net.observer = Some(Box::new({
        let mut done = false;
        move |to, datagram| {
            if to == To::Host || done {
                return Vec::new();
            }
            done = true;
            // The second packet of the host's first datagram, alone and early.
            let mut datagram = datagram.to_vec();
            let (_, rest) = next_packet(&mut datagram).unwrap();
            let (second, _) = next_packet(rest).unwrap();
            vec![(To::Client, second.to_vec())]
        }
    }));
    net.run_until(ms(1000), Net::both_established);
    assert!(net.both_established());
    let counters = net.client.counters();
    assert_eq!((counters.held, counters.restarts), (1, 0));
    assert_eq!(counters.duplicates, 1);
}

/// Losing any one datagram costs at most one retransmission interval or two.
#[test]
fn any_single_loss_is_repaired() {
    for lost in 0..5 {
        for to in [To::Client, To::Host] {
            let mut net = Setup::new().start();
            let mut count = 0;
            net.run_until(ms(5000), |n| n.both_established() && n.client.is_done());
            let _ = &mut count;
            let mut net = Setup::new().start();
            for _ in 0..lost {
                net.run_until(ms(count), |_| false);
                count += 10;
            }
            net.drop_next = vec![to];
            net.run_until(ms(5000), |n| n.both_established() && n.client.is_done());
            assert!(net.both_established() && net.client.is_done(), "{lost} {to:?}");
            assert!(net.elapsed() <= ms(600), "{lost} {to:?} {:?}", net.elapsed());
        }
    }
}

#[test]
fn retry_is_followed_and_confirmed() {
    for retries in 1..=3 {
        let mut net = Setup { retries, ..Setup::new() }.run();
        assert!(net.both_established(), "{retries}");
        assert_eq!(net.client.counters().retries, u64::from(retries));
        assert_eq!(net.hosts.len(), 1);
        assert!(net.host().machine.address_proven);
        let (client, _) = net.results();
        assert!(client.peer_params.retry_source_id.is_some());
    }
    let mut net = Setup { retries: 4, ..Setup::new() }.start();
    net.run_until(ms(240), Net::both_established);
    assert_eq!(net.client.counters().retries, 3, "no more than three");
    assert!(net.client.counters().dropped >= 1);
    assert!(net.hosts.is_empty());
}

#[test]
fn retries_under_loss() {
    for seed in 0..60 {
        let link = Link { loss: 20, duplicate: 20, delay_min: 0, delay_max: 40, corrupt: 2 };
        let net = Setup { retries: 1, link, seed, ..Setup::new() }.run();
        assert!(net.both_established(), "seed {seed}: {:?}", net.client);
        net.results();
    }
}

#[test]
fn another_version_fails_with_its_list() {
    let mut net = Setup::new().start();
    net.version_lists = true;
    net.run_until(Duration::from_secs(5), |n| n.client_ended.is_some());
    assert_eq!(net.client_reason().reason, crate::error::Reason::VERSION);
    assert!(net.client_reason().text.contains("0x54524b71"), "{}", net.client_reason().text);
    assert!(net.elapsed() >= ms(1500) && net.elapsed() <= ms(1550), "{:?}", net.elapsed());
}

#[test]
fn all_kinds_of_keys() {
    for host_kind in [KeyKind::Ed25519, KeyKind::P256] {
        for client_kind in [KeyKind::Ed25519, KeyKind::P256] {
            let (host, client) = (identity(host_kind, "h"), identity(client_kind, "c"));
            let auth = ClientAuth::Required(Trust::Pins(vec![client.peer_id()]));
            let trust = Trust::Pins(vec![host.peer_id()]);
            let setup = Setup {
                client_tls: ClientTls::new(Some(client.clone()), &trust, None).unwrap(),
                host_tls: HostTls::new(host.clone(), &auth, None).unwrap(),
                server_name: "192.0.2.1",
                ..Setup::new()
            };
            let (at_client, at_host) = setup.run().results();
            assert_eq!(at_client.peer, Some(host.peer_id()));
            assert_eq!(at_host.peer, Some(client.peer_id()));
            assert_eq!(at_host.server_name, None);
        }
    }
}
