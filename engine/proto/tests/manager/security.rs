//! Behaviours §5: SecInfo, SecHandle, the security callback, the three ways to send, receiving.

use crate::associations::{associate, config, end, listen, outcome, pair, send};
use crate::net::{CLIENT, Config, HOST, Net, Told, ms, secs};
use crate::sim::tls;
use std::sync::{Arc, Mutex};
use trunkline_proto::config::ChannelOptions;
use trunkline_proto::connection::{AuthMethod, SecInfo, SecInfoError};
use trunkline_proto::endpoint::ClientConfig;
use trunkline_proto::error::{ApiError, Reason};
use trunkline_proto::handshake::{ClientAuth, Trust};
use trunkline_proto::ids::{ConnHandle, ConnectLink, Link, Role};
use trunkline_proto::limits::{MAX_CREDENTIAL, MAX_SEC_INFO};
use trunkline_proto::manager::{
    AssociationEnd, AssociationState as State, DeliveryError, ManagerConfig, Refused, RequestError,
    Reuse, SecHandle, Security, SecurityCallback, SecurityChoice, SecurityStage, Target,
};
use trunkline_proto::payload::Payload;
use trunkline_proto::status::Status;

/// A connection of the client with this trust and credential; the handles of both sides.
fn connect(net: &mut Net, target: Target) -> (ConnHandle, ConnHandle) {
    let conn = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target)).expect("connect").conn;
    net.run_until("connected", secs(10), |net| net.status(CLIENT, conn) == Status::Connected);
    net.run_for(ms(100));
    (conn, net.at_host())
}

fn info(net: &Net, node: usize, conn: ConnHandle) -> SecInfo {
    net.nodes[node].endpoint.sec_info(conn).expect("an open connection")
}

fn target_with(net: &Net, trust: &Trust, credential: &[u8]) -> Target {
    let target = net.target(HOST);
    let tls = tls::client_tls(trust, net.nodes[CLIENT].identity.as_ref());
    let config = ClientConfig { tls, credential: credential.to_vec(), ..target.config.clone() };
    Target { config, reuse: Reuse::ForceNew, ..target }
}

fn pins() -> Trust {
    Trust::Pins(vec![tls::host_id().peer_id()])
}

/// "SecInfo: … our and the peer's identity, how each was authenticated, cipher suite, TLS exporter
/// value, when".
#[test]
fn sec_info_tells_what_is_known_of_a_connection() {
    let auth = ClientAuth::Required(Trust::Pins(vec![tls::client_peer_id()]));
    let mut net = Net::with(1, Config::default(), Config { auth, ..Config::default() });
    let target = target_with(&net, &pins(), b"ticket");
    let before = net.now;
    let (c, h) = connect(&mut net, target);
    let (at_client, at_host) = (info(&net, CLIENT, c), info(&net, HOST, h));
    assert!(at_client.is_proven() && at_host.is_proven());
    assert_eq!((at_client.role, at_host.role), (Role::Client, Role::Host));
    assert_eq!(at_client.link, Link::Datagram);
    assert_eq!(at_client.own.identity, Some(tls::client_peer_id()));
    assert_eq!(at_client.peer.identity, Some(tls::host_id().peer_id()));
    assert_eq!(at_host.own.identity, Some(tls::host_id().peer_id()));
    assert_eq!(at_host.peer.identity, Some(tls::client_peer_id()));
    assert_eq!(at_client.own.method, AuthMethod::Offered);
    assert_eq!((at_client.peer.method, at_host.peer.method), (AuthMethod::Pin, AuthMethod::Pin));
    assert!(at_client.own.credential.is_some());
    assert_eq!(at_client.own.credential, at_host.peer.credential);
    assert_eq!(at_client.peer.credential, None);
    assert_eq!(at_client.suite, at_host.suite);
    assert_eq!(at_client.suite_name(), "TLS13_AES_128_GCM_SHA256");
    assert_eq!(at_client.exporter(), at_host.exporter(), "only the two sides know it");
    assert_ne!(at_client.exporter(), &[0; 32]);
    let when = at_client.established.expect("proven");
    assert!(when > before && when <= net.now);
    assert!(!at_client.resumed);
    let hidden = format!("{at_client:?}");
    let hex = trunkline_proto::ids::PeerId(*at_client.exporter()).to_string();
    assert!(!hidden.contains(&hex) && !hidden.contains("exporter"), "{hidden}");
}

/// "how each was authenticated": by CA, pin, anything, credential, or not at all.
#[test]
fn sec_info_tells_how_each_side_was_authenticated() {
    let method = |net: &mut Net, trust: &Trust, credential: &[u8]| {
        let target = target_with(net, trust, credential);
        let (c, h) = connect(net, target);
        (info(net, CLIENT, c).peer.method, info(net, HOST, h).peer.method)
    };
    let mut net = Net::new(2);
    assert_eq!(method(&mut net, &pins(), b""), (AuthMethod::Pin, AuthMethod::None));
    let any = Trust::DangerousAny;
    assert_eq!(method(&mut net, &any, b"t"), (AuthMethod::DangerousAny, AuthMethod::Credential));
    let (identity, root) = tls::large_chain(1, 10);
    let roots = Trust::Roots(vec![root.into()]);
    let auth = ClientAuth::Optional(Trust::DangerousAny);
    let mut net = Net::with(3, Config::default(), Config { auth, ..Config::default() });
    let node = net.add(Config { identity: Some(identity), ..Config::default() });
    let mut target = target_with(&net, &roots, b"");
    target.remotes = vec![net.nodes[node].addr];
    let conn = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target)).expect("connect").conn;
    net.run_for(secs(1));
    assert_eq!(info(&net, CLIENT, conn).peer.method, AuthMethod::Certificate);
    assert_eq!(method(&mut net, &pins(), b"").1, AuthMethod::DangerousAny);
}

/// "can be stored and compared": what matches and what does not.
#[test]
fn sec_info_matches_the_same_security_and_nothing_weaker() {
    let mut net = Net::new(4);
    let mut of = |trust: &Trust, credential: &[u8]| {
        let target = target_with(&net, trust, credential);
        let (c, _) = connect(&mut net, target);
        info(&net, CLIENT, c)
    };
    let first = of(&pins(), b"ticket");
    let second = of(&pins(), b"ticket");
    let weaker = of(&Trust::DangerousAny, b"ticket");
    let other = of(&pins(), b"another");
    let without = of(&pins(), b"");
    let wider = of(&Trust::Pins(vec![tls::host_id().peer_id(), tls::client_peer_id()]), b"ticket");
    assert!(second.matches(&first) && first.matches(&second) && first.matches(&first));
    assert_ne!(first.exporter(), second.exporter());
    assert!(!second.is_same_connection(&first) && first.is_same_connection(&first));
    assert_ne!(first, second);
    for unlike in [weaker, other, without, wider] {
        assert!(!unlike.matches(&first) && !first.matches(&unlike), "{unlike:?}");
    }
    // Somebody else with the same policy.
    let somebody = tls::identity(77, "somebody");
    let node = net.add(Config { identity: Some(somebody), ..Config::default() });
    let mut target = target_with(&net, &Trust::DangerousAny, b"ticket");
    target.remotes = vec![net.nodes[node].addr];
    let conn = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target)).expect("connect").conn;
    net.run_for(secs(1));
    assert!(!info(&net, CLIENT, conn).matches(&weaker), "another peer");
}

/// A peer without an identity is nobody in particular: only its own connection matches.
#[test]
fn sec_info_of_a_nameless_peer_matches_its_own_connection_only() {
    let mut net = Net::new(5);
    let of = |net: &mut Net| {
        let target = target_with(net, &pins(), b"shared ticket");
        let (_, h) = connect(net, target);
        info(net, HOST, h)
    };
    let (first, second) = (of(&mut net), of(&mut net));
    assert_eq!(first.peer.identity, None);
    assert!(first.matches(&first) && !second.matches(&first));
}

/// "serialisable": bounded, versioned, and safe to read whatever the bytes are.
#[test]
fn sec_info_survives_storage_and_bad_bytes_do_no_harm() {
    let auth = ClientAuth::Required(Trust::Pins(vec![tls::client_peer_id()]));
    let mut net = Net::with(6, Config::default(), Config { auth, ..Config::default() });
    let target = target_with(&net, &pins(), &[7; MAX_CREDENTIAL]);
    let (c, h) = connect(&mut net, target.clone());
    let mut all = vec![info(&net, CLIENT, c), info(&net, HOST, h)];
    all.push(SecInfo::of_attempt(&target.config, Link::Stream));
    all.push(SecInfo::of_attempt(&net.target(HOST).config, Link::Datagram));
    let mut rng = crate::sim::rng::Rng::new(6);
    for info in all {
        let bytes = info.to_bytes();
        assert!(bytes.len() <= MAX_SEC_INFO, "{}", bytes.len());
        assert_eq!(SecInfo::from_bytes(&bytes), Ok(info));
        for len in 0..bytes.len() {
            assert!(SecInfo::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(SecInfo::from_bytes(&longer), Err(SecInfoError::Length));
        let mut later = bytes.clone();
        later[0] = 2;
        assert_eq!(SecInfo::from_bytes(&later), Err(SecInfoError::Version(2)));
        for (at, field) in [(1, "role"), (2, "link"), (3, "flags"), (4, "method"), (5, "method")] {
            let mut bad = bytes.clone();
            bad[at] = 0xff;
            assert_eq!(SecInfo::from_bytes(&bad), Err(SecInfoError::Field(field)));
        }
        let mut never = bytes.clone();
        never[8..16].fill(0xff);
        assert_eq!(SecInfo::from_bytes(&never), Err(SecInfoError::Field("time")));
        for _ in 0..2_000 {
            let mut bad = bytes.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bad.len() as u64) as usize;
                bad[at] ^= 1 << rng.below(8);
            }
            // What can be read is written the same way again: there is one form only.
            if let Ok(read) = SecInfo::from_bytes(&bad) {
                assert_eq!(read.to_bytes(), bad);
            }
        }
        for _ in 0..2_000 {
            let noise: Vec<u8> =
                (0..rng.below(2 * MAX_SEC_INFO as u64)).map(|_| rng.u64() as u8).collect();
            let _ = SecInfo::from_bytes(&noise);
        }
    }
    // A stored one does for a later connection.
    let stored = info(&net, CLIENT, c).to_bytes();
    let (again, _) = connect(&mut net, target);
    assert!(info(&net, CLIENT, again).matches(&SecInfo::from_bytes(&stored).expect("stored")));
}

type Asked = Arc<Mutex<Vec<(SecurityStage, Option<SecHandle>, SecInfo)>>>;

/// A client with a callback that notes what it is asked.
fn with_callback(
    seed: u64,
    answer: impl Fn(&trunkline_proto::manager::SecurityQuery<'_>) -> Result<SecurityChoice, Refused>
    + Send
    + Sync
    + 'static,
) -> (Net, Asked) {
    let asked = Asked::default();
    let notes = asked.clone();
    let security = SecurityCallback::new(move |query| {
        notes.lock().expect("one thread").push((query.stage, query.handle, *query.info));
        answer(query)
    });
    let manager = ManagerConfig { security: Some(security), ..ManagerConfig::default() };
    let net = Net::with(seed, Config { manager, ..Config::default() }, Config::default());
    (net, asked)
}

fn handled(target: Target, handle: u64) -> Target {
    Target { handle: Some(SecHandle(handle)), ..target }
}

/// "SecHandle: … given with `connect`/`send`; kept until the answer and handed to the security
/// callback"; "called while a connection is being made, with the handle and the SecInfo so far".
#[test]
fn sec_handle_is_kept_until_the_answer_and_handed_to_the_callback() {
    let (mut net, asked) = with_callback(7, |_| Ok(SecurityChoice::default()));
    let target = handled(net.target(HOST), 4711);
    let conn = net.call(CLIENT, |now, m, ep| m.connect(now, ep, target)).expect("connect").conn;
    assert_eq!(net.nodes[CLIENT].manager.sec_handle(conn), Some(SecHandle(4711)));
    assert!(asked.lock().expect("asked").is_empty(), "nothing is known yet");
    net.run_until("connected", secs(5), |net| net.status(CLIENT, conn) == Status::Connected);
    let (stage, handle, seen) = asked.lock().expect("asked")[0];
    assert_eq!((stage, handle), (SecurityStage::PeerProven, Some(SecHandle(4711))));
    assert_eq!(seen.peer.identity, Some(tls::host_id().peer_id()));
    assert_eq!(seen, info(&net, CLIENT, conn), "it can be stored for later sends");
    assert_eq!(asked.lock().expect("asked").len(), 1);
    net.run_for(ms(1));
    assert_eq!(net.nodes[CLIENT].manager.sec_handle(conn), None, "the answer came");
    // With a send instead: nobody gave one before.
    let (mut net, asked) = with_callback(8, |_| Ok(SecurityChoice::default()));
    listen(&mut net, None);
    let target = net.target(HOST);
    let id = associate(&mut net, &target);
    let data = Payload::from(b"x".to_vec());
    let how = Security::Handle(SecHandle(99));
    net.call(CLIENT, |now, m, ep| m.send_message(now, ep, id, data, 1, how)).expect("send");
    net.run_for(secs(1));
    assert_eq!(asked.lock().expect("asked")[0].1, Some(SecHandle(99)));
    assert_eq!(outcome(&net, CLIENT, id, 1), Ok(()));
}

/// "may choose identity, pins and credential": the credential, once the peer is proven.
#[test]
fn security_callback_chooses_the_credential_for_a_proven_peer() {
    let (mut net, _) = with_callback(9, |query| {
        assert!(query.info.peer.identity.is_some());
        let credential = query.handle.map(|SecHandle(user)| format!("user {user}").into_bytes());
        Ok(SecurityChoice { credential, ..SecurityChoice::default() })
    });
    for user in [1u64, 2] {
        let target = handled(net.target(HOST), user);
        let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
        net.answer(id).expect("a channel");
        let shown = net.nodes[HOST].log.all().filter_map(|t| match t {
            Told::Incoming(_, _, credential) => Some(credential.clone()),
            _ => None,
        });
        assert_eq!(shown.last(), Some(format!("user {user}").into_bytes()));
    }
    // One user's channel never rides on the other's connection; its own is shared.
    assert_eq!(net.incoming(HOST), 2);
    let target = handled(net.target(HOST), 1);
    let id = net.request(&target, "y", &ChannelOptions::default()).expect("request");
    net.answer(id).expect("a channel");
    assert_eq!(net.incoming(HOST), 2);
}

/// "may choose … pins": given once the peer is proven, they must hold.
#[test]
fn security_callback_chooses_pins() {
    for (pin, good) in [(tls::host_id().peer_id(), true), (tls::client_peer_id(), false)] {
        let (mut net, _) = with_callback(10, move |_| {
            let trust = Some(Trust::Pins(vec![pin]));
            Ok(SecurityChoice { trust, ..SecurityChoice::default() })
        });
        let target = target_with(&net, &Trust::DangerousAny, b"secret");
        let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
        let outcome = net.answer(id);
        assert_eq!(outcome.is_ok(), good, "{outcome:?}");
        assert_eq!(net.incoming(HOST), usize::from(good), "the credential left all the same");
    }
}

/// "may refuse: the attempt fails as authentication".
#[test]
fn security_callback_refuses_and_the_attempt_fails_as_authentication() {
    let (mut net, _) = with_callback(11, |_| Err(Refused("not with this one".into())));
    listen(&mut net, None);
    let target = target_with(&net, &pins(), b"secret");
    let request = net.request(&target, "x", &ChannelOptions::default()).expect("request");
    let Err(RequestError::Connection(reason)) = net.answer(request) else { panic!("no failure") };
    assert_eq!(
        (reason.reason, reason.text.as_str()),
        (Reason::AUTHENTICATION, "not with this one")
    );
    assert_eq!(net.incoming(HOST), 0, "the host's application heard of it");
    let id = associate(&mut net, &target);
    send(&mut net, CLIENT, id, b"x", 1).expect("queued");
    net.run_for(secs(2));
    let Some(AssociationEnd::Failed(RequestError::Connection(reason))) = end(&net, CLIENT, id)
    else {
        panic!("{:?}", end(&net, CLIENT, id));
    };
    assert_eq!(reason.reason, Reason::AUTHENTICATION);
    assert!(outcome(&net, CLIENT, id, 1).is_err());
    net.run_for(secs(30));
    assert_eq!(net.nodes[HOST].endpoint.connections().count(), 0, "the host keeps nothing");
}

/// A callback that panics, and one that chooses what cannot be, have refused.
#[test]
fn security_callback_that_fails_has_refused() {
    let (mut net, _) = with_callback(12, |_| panic!("on purpose"));
    let target = net.target(HOST);
    let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
    let Err(RequestError::Connection(reason)) = net.answer(id) else { panic!("no failure") };
    assert_eq!(reason.reason, Reason::AUTHENTICATION);
    let (mut net, _) = with_callback(13, |_| {
        let credential = Some(vec![0; MAX_CREDENTIAL + 1]);
        Ok(SecurityChoice { credential, ..SecurityChoice::default() })
    });
    let target = net.target(HOST);
    let id = net.request(&target, "x", &ChannelOptions::default()).expect("request");
    let Err(RequestError::Connection(reason)) = net.answer(id) else { panic!("no failure") };
    assert_eq!(reason.reason, Reason::AUTHENTICATION);
}

fn send_with(
    net: &mut Net,
    id: trunkline_proto::manager::AssociationId,
    token: u64,
    security: Security<'_>,
) {
    let data = Payload::from(format!("m{token}").into_bytes());
    net.call(CLIENT, |now, m, ep| m.send_message(now, ep, id, data, token, security))
        .expect("send");
}

/// "SecInfo: only over a connection whose SecInfo matches, else a delivery error to that sender,
/// nothing is sent elsewhere".
#[test]
fn sending_with_sec_info_goes_over_a_matching_connection_only() {
    let mut net = Net::new(14);
    // What the sender wants: the same peer with a credential.
    let (wanted_conn, _) = {
        let target = target_with(&net, &pins(), b"ticket");
        connect(&mut net, target)
    };
    let unlike = info(&net, CLIENT, wanted_conn);
    let (calling, _) = pair(&mut net);
    let like = net.nodes[CLIENT].manager.association_info(calling).expect("connected");
    send_with(&mut net, calling, 1, Security::Info(&like));
    send_with(&mut net, calling, 2, Security::Info(&unlike));
    send_with(&mut net, calling, 3, Security::Local);
    net.run_for(secs(1));
    assert_eq!(outcome(&net, CLIENT, calling, 1), Ok(()));
    assert_eq!(outcome(&net, CLIENT, calling, 2), Err(DeliveryError::Security));
    assert_eq!(outcome(&net, CLIENT, calling, 3), Ok(()), "that sender only");
    assert_eq!(net.nodes[HOST].log.messages(), [b"m1".to_vec(), b"m3".to_vec()]);
    assert_eq!(net.nodes[CLIENT].manager.association_state(calling), State::Connected);
}

/// The same while it waits for a connection: decided when there is one.
#[test]
fn sending_with_sec_info_waits_for_the_connection_and_is_decided_then() {
    let mut net = Net::new(15);
    let target = net.target(HOST);
    let (conn, _) = connect(&mut net, Target { reuse: Reuse::ForceNew, ..target.clone() });
    let like = info(&net, CLIENT, conn);
    let other = target_with(&net, &Trust::DangerousAny, b"");
    let (conn, _) = connect(&mut net, other);
    let unlike = info(&net, CLIENT, conn);
    listen(&mut net, None);
    let fresh = Target { reuse: Reuse::ForceNew, ..target };
    let id =
        net.call(CLIENT, |now, m, ep| m.associate(now, ep, fresh, config())).expect("associate");
    send_with(&mut net, id, 1, Security::Info(&unlike));
    send_with(&mut net, id, 2, Security::Info(&like));
    net.run_for(secs(2));
    assert_eq!(outcome(&net, CLIENT, id, 1), Err(DeliveryError::Security));
    assert_eq!(outcome(&net, CLIENT, id, 2), Ok(()));
    assert_eq!(net.nodes[HOST].log.messages(), [b"m2".to_vec()]);
}

/// Sending to a target: with a SecInfo nothing is made for it, with nothing local policy decides.
#[test]
fn sending_to_a_target_with_sec_info_handle_or_nothing() {
    let mut net = Net::new(16);
    let target = net.target(HOST);
    let elsewhere = target_with(&net, &Trust::DangerousAny, b"");
    let (conn, _) = connect(&mut net, elsewhere);
    let unlike = info(&net, CLIENT, conn);
    let to = |net: &mut Net, token: u64, security: Security<'_>| {
        let (target, data) = (target.clone(), Payload::from(format!("m{token}").into_bytes()));
        net.call(CLIENT, |now, m, ep| m.send_to(now, ep, target, config(), data, token, security))
    };
    // There is none that matches, and none is made: an error to that sender at once.
    let refused = to(&mut net, 1, Security::Info(&unlike));
    assert!(matches!(refused, Err(ApiError::NoConnection(_))), "{refused:?}");
    assert_eq!(net.incoming(HOST), 1);
    // Nothing: local policy, which is the target, decides; a connection is made.
    listen(&mut net, None);
    let id = to(&mut net, 2, Security::Local).expect("sent");
    net.run_for(secs(1));
    assert_eq!(outcome(&net, CLIENT, id, 2), Ok(()));
    assert_eq!(net.incoming(HOST), 2);
    // What it told does for the next one.
    let like = net.nodes[CLIENT].manager.association_info(id).expect("connected");
    assert_eq!(to(&mut net, 3, Security::Info(&like)).expect("sent"), id);
    assert!(to(&mut net, 4, Security::Info(&unlike)).is_err());
    // A handle without a callback decides nothing.
    assert_eq!(to(&mut net, 5, Security::Handle(SecHandle(1))).expect("sent"), id);
    net.run_for(secs(1));
    let got: Vec<_> = [2, 3, 5].map(|t| format!("m{t}").into_bytes()).into();
    assert_eq!(net.nodes[HOST].log.messages(), got);
}

/// "receiving: each message can tell its connection's SecInfo".
#[test]
fn receiving_each_message_can_tell_its_connections_sec_info() {
    let mut net = Net::new(17);
    let (calling, listening) = pair(&mut net);
    send(&mut net, CLIENT, calling, b"hello", 1).expect("send");
    net.run_for(secs(1));
    let came = net.nodes[HOST].log.all().find_map(|t| match t {
        Told::Message(conn, channel, _) => Some((*conn, *channel)),
        _ => None,
    });
    let (conn, channel) = came.expect("a message");
    assert_eq!(net.nodes[HOST].manager.association_of(conn, channel), Some(listening));
    let of_message = info(&net, HOST, conn);
    assert_eq!(net.nodes[HOST].manager.association_info(listening), Some(of_message));
    let (there, _) = net.nodes[CLIENT].manager.association_channel(calling).expect("a channel");
    assert_eq!(info(&net, CLIENT, there).exporter(), of_message.exporter());
}

/// "reuse … a pinned connect never rides on a connection made with weaker trust".
#[test]
fn reuse_never_rides_on_weaker_trust_another_identity_or_credential() {
    let mut net = Net::new(18);
    let base = Target { reuse: Reuse::Allow, ..target_with(&net, &pins(), b"") };
    let id = net.request(&base, "x", &ChannelOptions::default()).expect("request");
    let first = net.answer(id).expect("a channel");
    let me = tls::identity(55, "me");
    let as_me = ClientConfig { tls: tls::client_tls(&pins(), Some(&me)), ..base.config.clone() };
    let unlike = [
        Target { reuse: Reuse::NeverNew, ..target_with(&net, &Trust::DangerousAny, b"") },
        Target { reuse: Reuse::NeverNew, ..target_with(&net, &pins(), b"ticket") },
        Target { reuse: Reuse::NeverNew, config: as_me, ..base.clone() },
        Target { reuse: Reuse::NeverNew, link: ConnectLink::Stream, ..base.clone() },
    ];
    for target in &unlike {
        let refused = net.request(target, "y", &ChannelOptions::default());
        assert!(matches!(refused, Err(ApiError::NoConnection(_))), "{refused:?}");
    }
    let id = net.request(&base, "y", &ChannelOptions::default()).expect("request");
    assert_eq!(net.answer(id).expect("a channel").conn, first.conn);
}
