//! Who the peers are, and what happens to those that are not welcome.

use crate::sim::node::{NodeConfig, OnIncoming};
use crate::sim::pair::{CLIENT, HOST, Pair};
use crate::sim::{ms, secs, tls};
use trunkline_proto::endpoint::ClientConfig;
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::handshake::{ClientAuth, Identity, Trust};
use trunkline_proto::limits::MAX_CREDENTIAL;
use trunkline_proto::status::Status;

/// A client that connects with these TLS settings.
fn attempt(host: NodeConfig, tls: trunkline_proto::handshake::ClientTls) -> Pair {
    let mut pair = Pair::apart(1, NodeConfig::client(), host);
    let config = ClientConfig { tls, ..pair.client().client_config() };
    pair.start_with(&config);
    pair
}

/// The attempt ends for the client with one of these reasons, well before any timeout.
fn fails(pair: &mut Pair, reasons: &[Reason]) {
    pair.run_until("the client is told", ms(1_000), |pair| pair.conn(CLIENT).ended());
    let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
    assert!(reasons.contains(&reason.reason), "{reason}");
    assert!(!reason.text.is_empty(), "no words with {reason}");
    assert!(!pair.conn(CLIENT).path.contains(&Status::Connected), "it was connected");
}

fn host_asking(auth: ClientAuth) -> NodeConfig {
    NodeConfig { client_auth: auth, ..NodeConfig::host() }
}

#[test]
fn a_host_with_another_key_is_refused() {
    let pins = Trust::Pins(vec![tls::identity(77, "somebody").peer_id()]);
    let mut pair = attempt(NodeConfig::host(), tls::client_tls(&pins, None));
    fails(&mut pair, &[Reason::BAD_CERTIFICATE]);
    let offered = pair.w.nodes[HOST].app.conns.values().any(|c| c.known);
    assert!(!offered, "the host's application heard of it");
    pair.w.finish();
}

#[test]
fn any_host_will_do_when_the_client_says_so() {
    let mut pair = attempt(NodeConfig::host(), tls::client_tls(&Trust::DangerousAny, None));
    pair.await_connected();
    pair.finish();
}

#[test]
fn certificate_authorities_are_believed() {
    let (identity, root) = tls::large_chain(1, 10);
    let roots = Trust::Roots(vec![root.into()]);
    let mut host = NodeConfig::host();
    host.identity = identity;
    let mut pair = attempt(host, tls::client_tls(&roots, None));
    pair.await_connected();
    pair.finish();
    // The usual host is self-signed.
    let mut pair = attempt(NodeConfig::host(), tls::client_tls(&roots, None));
    fails(&mut pair, &[Reason::BAD_CERTIFICATE]);
    pair.w.finish();
}

#[test]
fn a_client_without_the_certificate_asked_for_is_refused() {
    let required = ClientAuth::Required(Trust::Pins(vec![tls::client_peer_id()]));
    let mut pair = attempt(host_asking(required.clone()), tls::pinned(None));
    fails(&mut pair, &[Reason::AUTHENTICATION, Reason::BAD_CERTIFICATE]);
    pair.w.finish();
    let other: Identity = tls::identity(66, "other.test");
    let mut pair = attempt(host_asking(required.clone()), tls::pinned(Some(&other)));
    fails(&mut pair, &[Reason::AUTHENTICATION, Reason::BAD_CERTIFICATE]);
    let offered = pair.w.nodes[HOST].app.conns.values().any(|c| c.known);
    assert!(!offered, "the host's application heard of it");
    pair.w.finish();
    let mut pair = attempt(host_asking(required), tls::pinned(Some(tls::client_id())));
    pair.await_connected();
    assert_eq!(pair.conn(HOST).peer, Some(tls::client_peer_id()));
    pair.finish();
}

#[test]
fn a_client_may_stay_unknown_where_the_host_allows_it() {
    let optional = ClientAuth::Optional(Trust::DangerousAny);
    for (identity, known) in [(None, None), (Some(tls::client_id()), Some(tls::client_peer_id()))] {
        let mut pair = attempt(host_asking(optional.clone()), tls::pinned(identity));
        pair.await_connected();
        assert_eq!(pair.conn(HOST).peer, known);
        pair.finish();
    }
}

#[test]
fn a_credential_reaches_the_host_whole() {
    for len in [1, 300, 1_300, MAX_CREDENTIAL] {
        let mut pair = Pair::apart(len as u64, NodeConfig::client(), NodeConfig::host());
        pair.link(|link| link.loss = 1_000);
        let credential: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        let config =
            ClientConfig { credential: credential.clone(), ..pair.client().client_config() };
        pair.start_with(&config);
        pair.await_connected();
        assert_eq!(pair.conn(HOST).credential, credential);
        pair.finish();
    }
    let mut pair = Pair::apart(1, NodeConfig::client(), NodeConfig::host());
    let to = pair.w.addr(HOST);
    let config =
        ClientConfig { credential: vec![0; MAX_CREDENTIAL + 1], ..pair.client().client_config() };
    let refused = pair.w.call(CLIENT, |ep, now, _| ep.connect(now, 0, &[to], &config));
    assert!(matches!(refused, Err(ApiError::InvalidArgument { .. })), "{refused:?}");
}

#[test]
fn a_denied_credential_ends_the_attempt_with_the_reason() {
    let mut pair = Pair::apart(2, NodeConfig::client(), NodeConfig::host());
    pair.host().policy.incoming = OnIncoming::Reject(1_401, "the ticket has expired".into());
    let config =
        ClientConfig { credential: b"old ticket".to_vec(), ..pair.client().client_config() };
    pair.start_with(&config);
    fails(&mut pair, &[Reason(1_401)]);
    let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
    assert_eq!(reason.text, "the ticket has expired");
    pair.w.finish();
}

#[test]
fn a_rejection_is_delivered_over_a_lossy_link() {
    for seed in 0..20 {
        let mut pair = Pair::apart(seed, NodeConfig::client(), NodeConfig::host());
        pair.link(|link| link.loss = 2_000);
        pair.host().policy.incoming = OnIncoming::Reject(1_001, "no room".into());
        pair.start();
        pair.run_until("the client is told", secs(15), |pair| pair.conn(CLIENT).ended());
        let reason = pair.conn(CLIENT).reason.clone().expect("a reason");
        assert_eq!((reason.reason, reason.text.as_str()), (Reason(1_001), "no room"));
        pair.w.finish();
    }
}
