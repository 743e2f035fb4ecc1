//! Who is believed, and that the refused side is told.

use super::net::*;
use crate::error::Reason;
use crate::handshake::test_support::{
    KeyKind, Made, identity, make_certificate, make_signed, to_identity,
};
use crate::handshake::*;
use crate::time::Duration;
use rustls_pki_types::CertificateDer;

fn pins(identities: &[&Identity]) -> Trust {
    Trust::Pins(identities.iter().map(|i| i.peer_id()).collect())
}

fn setup(
    client: Option<&Identity>,
    client_trust: &Trust,
    host: &Identity,
    auth: &ClientAuth,
) -> Setup {
    Setup {
        client_tls: ClientTls::new(client.cloned(), client_trust, None).unwrap(),
        host_tls: HostTls::new(host.clone(), auth, None).unwrap(),
        ..Setup::new()
    }
}

/// Runs until both sides know that it failed; the reasons of client and host.
fn refused(setup: &Setup) -> (Receipt, Receipt) {
    let mut net = setup.start();
    net.run_until(Duration::from_secs(10), Net::over);
    assert!(net.over(), "{:?} {:?}", net.client, net.hosts[0].machine);
    assert!(matches!(net.client.state(), HandshakeState::ConnectionFailed(_)));
    assert!(matches!(net.host().machine.state(), HandshakeState::ConnectionFailed(_)));
    assert!(net.host().established.is_none());
    (net.client_ended.take().unwrap(), net.host().ended.take().unwrap())
}

fn reason(receipt: &Receipt) -> Reason {
    match receipt {
        Receipt::Closed(r) | Receipt::Failed(r) => r.reason,
        other => panic!("{other:?}"),
    }
}

fn assert_client_refuses(setup: &Setup) {
    let (client, host) = refused(setup);
    assert!(matches!(client, Receipt::Failed(_)) && matches!(host, Receipt::Closed(_)));
    assert_eq!(reason(&client), Reason::BAD_CERTIFICATE, "{client:?}");
    assert_eq!(reason(&host), Reason::BAD_CERTIFICATE, "{host:?}");
}

fn assert_host_refuses(setup: &Setup, expected: Reason) {
    let (client, host) = refused(setup);
    assert!(matches!(host, Receipt::Failed(_)) && matches!(client, Receipt::Closed(_)));
    assert_eq!((reason(&client), reason(&host)), (expected, expected), "{host:?}");
}

#[test]
fn wrong_pin() {
    let (host, other) = (identity(KeyKind::Ed25519, "h"), identity(KeyKind::Ed25519, "o"));
    let setup = setup(None, &pins(&[&other]), &host, &ClientAuth::None);
    assert_client_refuses(&setup);
    let (client, _) = refused(&setup);
    assert!(matches!(&client, Receipt::Failed(r) if r.text.contains("key is not one of those")));
    // One of several is enough.
    let setup = self::setup(None, &pins(&[&other, &host]), &host, &ClientAuth::None);
    assert_eq!(setup.run().results().0.peer, Some(host.peer_id()));
}

/// The host learns of the refusal even if the first CLOSE is lost: its flight, sent again, is
/// answered.
#[test]
fn lost_close_is_repeated() {
    let (host, other) = (identity(KeyKind::Ed25519, "h"), identity(KeyKind::Ed25519, "o"));
    let mut net = setup(None, &pins(&[&other]), &host, &ClientAuth::None).start();
    net.run_until(ms(15), |_| false);
    net.drop_next = vec![To::Host];
    net.run_until(Duration::from_secs(5), Net::over);
    assert_eq!(net.client_reason().reason, Reason::BAD_CERTIFICATE);
    assert_eq!(reason(net.host().ended.as_ref().unwrap()), Reason::BAD_CERTIFICATE);
    assert!(net.elapsed() > ms(200));
}

fn ca() -> (Made, Vec<CertificateDer<'static>>) {
    let ca = make_certificate(KeyKind::P256, "Test CA");
    let roots = vec![ca.cert.der().clone()];
    (ca, roots)
}

#[test]
fn roots_check_issuer_and_name() {
    let (ca, roots) = ca();
    let host = make_signed(KeyKind::Ed25519, "host.test", &ca);
    let trust = Trust::Roots(roots);
    let good = setup(None, &trust, &host, &ClientAuth::None);
    assert_eq!(good.run().results().0.peer, Some(host.peer_id()));

    let wrong_name =
        Setup { server_name: "other.test", ..setup(None, &trust, &host, &ClientAuth::None) };
    assert_client_refuses(&wrong_name);
    let stranger = identity(KeyKind::Ed25519, "host.test");
    assert_client_refuses(&setup(None, &trust, &stranger, &ClientAuth::None));
}

#[test]
fn roots_for_clients() {
    let (ca, roots) = ca();
    let host = identity(KeyKind::Ed25519, "host.test");
    let client = make_signed(KeyKind::P256, "client.test", &ca);
    let stranger = identity(KeyKind::P256, "client.test");
    for auth in [
        ClientAuth::Required(Trust::Roots(roots.clone())),
        ClientAuth::Optional(Trust::Roots(roots)),
    ] {
        let trust = pins(&[&host]);
        let (_, at_host) = setup(Some(&client), &trust, &host, &auth).run().results();
        assert_eq!(at_host.peer, Some(client.peer_id()));
        assert_host_refuses(&setup(Some(&stranger), &trust, &host, &auth), Reason::BAD_CERTIFICATE);
    }
}

#[test]
fn client_certificate_required_optional_or_not_asked_for() {
    let host = identity(KeyKind::Ed25519, "h");
    let client = identity(KeyKind::Ed25519, "c");
    let stranger = identity(KeyKind::Ed25519, "s");
    let trust = pins(&[&host]);
    let peer_at_host = |client: Option<&Identity>, auth: &ClientAuth| {
        setup(client, &trust, &host, auth).run().results().1.peer
    };
    let required = ClientAuth::Required(pins(&[&client]));
    assert_eq!(peer_at_host(Some(&client), &required), Some(client.peer_id()));
    assert_host_refuses(&setup(None, &trust, &host, &required), Reason::AUTHENTICATION);
    assert_host_refuses(&setup(Some(&stranger), &trust, &host, &required), Reason::BAD_CERTIFICATE);

    let optional = ClientAuth::Optional(pins(&[&client]));
    assert_eq!(peer_at_host(Some(&client), &optional), Some(client.peer_id()));
    assert_eq!(peer_at_host(None, &optional), None);
    assert_host_refuses(&setup(Some(&stranger), &trust, &host, &optional), Reason::BAD_CERTIFICATE);

    assert_eq!(peer_at_host(Some(&client), &ClientAuth::None), None);
    let anybody = ClientAuth::Required(Trust::DangerousAny);
    assert_eq!(peer_at_host(Some(&stranger), &anybody), Some(stranger.peer_id()));
    assert_host_refuses(&setup(None, &trust, &host, &anybody), Reason::AUTHENTICATION);
}

/// Trusting any certificate, or a pin, still means proof of its private key.
#[test]
fn stolen_certificate_without_its_key() {
    let victim = identity(KeyKind::Ed25519, "victim");
    let thief = identity(KeyKind::Ed25519, "thief");
    let stolen = Identity::mismatched(&victim, &thief);
    assert_eq!(stolen.peer_id(), victim.peer_id());
    for trust in [Trust::DangerousAny, pins(&[&victim])] {
        assert_client_refuses(&setup(None, &trust, &stolen, &ClientAuth::None));
        let auth = ClientAuth::Required(trust);
        let host = identity(KeyKind::P256, "h");
        assert_host_refuses(
            &setup(Some(&stolen), &pins(&[&host]), &host, &auth),
            Reason::BAD_CERTIFICATE,
        );
    }
}

#[test]
fn resumption_keeps_both_identities() {
    let host = identity(KeyKind::Ed25519, "h");
    let client = identity(KeyKind::P256, "c");
    let auth = ClientAuth::Required(pins(&[&client]));
    let setup = setup(Some(&client), &pins(&[&host]), &host, &auth);
    for round in 0..3 {
        let mut net = setup.run();
        let tickets = net.host().established.as_ref().unwrap().tickets.clone();
        // Tickets travel in data packets: in pieces, out of order, twice.
        let (head, tail) = tickets.split_at(tickets.len() / 2);
        net.client.post_handshake(head.len() as u64, tail).unwrap();
        net.client.post_handshake(0, head).unwrap();
        net.client.post_handshake(0, head).unwrap();
        assert!(net.client.post_handshake(u64::MAX, b"x").is_err());
        let full = net.client.counters().bytes_received;
        let (at_client, at_host) = net.results();
        assert_eq!(at_client.resumed, round > 0, "{round}");
        assert_eq!(at_client.peer, Some(host.peer_id()));
        assert_eq!(at_host.peer, Some(client.peer_id()));
        assert_eq!(at_host.peer_certificates, client.certificates());
        assert!(full > 0);
    }
    // Another client's settings share nothing.
    let other = Setup {
        client_tls: ClientTls::new(Some(client.clone()), &pins(&[&host]), None).unwrap(),
        host_tls: setup.host_tls.clone(),
        ..Setup::new()
    };
    assert!(!other.run().results().0.resumed);
    // A host that forgot its ticket keys is asked in full, without harm.
    let restarted = Setup {
        client_tls: setup.client_tls.clone(),
        host_tls: HostTls::new(host.clone(), &auth, None).unwrap(),
        ..Setup::new()
    };
    let (at_client, at_host) = restarted.run().results();
    assert!(!at_client.resumed);
    assert_eq!(at_host.peer, Some(client.peer_id()));
}

#[test]
fn garbage_after_the_handshake_is_an_error() {
    let mut net = Setup::new().run();
    assert!(net.client.post_handshake(0, &[0xff; 64]).is_err());
    assert!(net.host().machine.post_handshake(0, b"x").is_err());
    let mut fresh = Setup::new().start();
    assert!(fresh.client.post_handshake(0, b"x").is_err());
}

#[test]
fn unusable_trust_is_refused_at_once() {
    let host = identity(KeyKind::Ed25519, "h");
    for trust in [Trust::Pins(vec![]), Trust::Roots(vec![])] {
        assert!(ClientTls::new(None, &trust, None).is_err());
        assert!(HostTls::new(host.clone(), &ClientAuth::Required(trust), None).is_err());
    }
    let garbage = Trust::Roots(vec![CertificateDer::from(vec![1, 2, 3])]);
    assert!(ClientTls::new(None, &garbage, None).is_err());
}

#[test]
fn application_gives_up() {
    // Before the host answered: it hears of it as a hint and forgets the attempt.
    let gone = crate::error::CloseReason::new(Reason::APP, "changed my mind");
    let mut net = Setup::new().start();
    net.run_until(ms(15), |_| false);
    net.client.close(&gone);
    net.run_until(Duration::from_secs(5), |n| n.hosts[0].ended.is_some());
    assert_eq!(net.host().ended, Some(Receipt::Closed(gone.clone())));
    assert!(!net.host().machine.is_authenticated());
    // The host refuses before the client has proved itself.
    let mut net = Setup::new().start();
    net.run_until(ms(15), |_| false);
    net.host().machine.close(&gone);
    net.run_until(Duration::from_secs(5), |n| n.client_ended.is_some());
    assert_eq!(net.client_ended, Some(Receipt::Closed(gone)));
}

#[test]
fn key_log_names_the_secrets() {
    #[derive(Debug, Default)]
    struct Log(std::sync::Mutex<Vec<String>>);
    impl KeyLog for Log {
        fn log(&self, label: &str, _client_random: &[u8], _secret: &[u8]) {
            self.0.lock().unwrap().push(label.to_owned());
        }
    }
    let log = std::sync::Arc::new(Log::default());
    let setup = Setup {
        client_tls: ClientTls::new(None, &Trust::DangerousAny, Some(log.clone())).unwrap(),
        ..Setup::new()
    };
    setup.run().results();
    assert!(log.0.lock().unwrap().iter().any(|l| l == "CLIENT_TRAFFIC_SECRET_0"));
}

#[test]
fn identity_survives_pem() {
    let made = make_certificate(KeyKind::P256, "x");
    assert_eq!(to_identity(&made).peer_id(), peer_id_of(made.cert.der()).unwrap());
}
