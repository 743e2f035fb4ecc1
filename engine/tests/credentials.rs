//! What a host demands of its clients: nothing, a certificate, a credential, or both; and a
//! credential that expires while its connection lives.

mod common;

use common::*;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trunkline::{
    ClientAuth, CloseReason, Conn, Context, CredentialIssuer, CredentialVerifier, DriverChoice,
    Engine, EngineConfig, Event, Grant, Handler, HandshakeFailure, HandshakeState, Identity,
    Incoming, ListenConfig, PeerId, QueuedEngine, Reason, Received, Status, Trust,
};

const SECRET: [u8; 32] = [3; 32];
const EXPIRED: u32 = 1_403;

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn issue(audience: &str, peer: Option<PeerId>, issued_s: u64, expires_s: u64) -> Vec<u8> {
    let issuer = CredentialIssuer::with_secret(audience, 5, &SECRET).unwrap();
    issuer.issue(&Grant { issued_s, expires_s, peer, claims: b"player=42" }).unwrap()
}

/// A host that lets in whoever has a valid credential, for as long as it holds; or anybody.
struct Host {
    verifier: Option<CredentialVerifier>,
    leaving: HashMap<u64, Conn>,
}

impl Handler for Host {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, incoming: &Incoming<'_>) {
        let Some(verifier) = &self.verifier else {
            cx.accept(conn).unwrap();
            return;
        };
        match incoming.verify(verifier, now_s()) {
            Ok(credential) => {
                assert_eq!((credential.claims, credential.key_id), (&b"player=42"[..], 5));
                cx.accept(conn).unwrap();
                let token = self.leaving.len() as u64;
                self.leaving.insert(token, conn);
                cx.set_timer(credential.expires_in(now_s()), token);
            }
            Err(e) => cx.reject(conn, Reason::APP_REJECTED.0, &e.to_string()).unwrap(),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        if let Some(conn) = self.leaving.get(&token) {
            // It may have gone before.
            let _ = cx.close(*conn, EXPIRED, "credential expired", None);
        }
    }

    fn on_status(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        _: Status,
        new: Status,
        _: Option<&CloseReason>,
    ) {
        if matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally) {
            let _ = cx.close(conn, Reason::APP.0, "", None);
        }
    }
}

struct World {
    _host: Engine<Host>,
    addr: std::net::SocketAddr,
    host_id: Identity,
    client_id: Identity,
    client: QueuedEngine,
}

impl World {
    fn new(certificate: bool, credential: bool) -> Self {
        let (host_id, client_id) = (identity(), identity());
        let host = Engine::start(config(DriverChoice::Mio), |_| {
            let mut verifier = CredentialVerifier::new("game").unwrap();
            verifier.add_secret(5, &SECRET).unwrap();
            Host { verifier: credential.then_some(verifier), leaving: HashMap::new() }
        })
        .unwrap();
        let trust = Trust::Pins(vec![client_id.peer_id()]);
        let client_auth =
            if certificate { ClientAuth::Required(trust) } else { ClientAuth::Optional(trust) };
        let listen = ListenConfig { client_auth, ..listen(&host_id) };
        let addr = host.listen(&listen).unwrap().local_addr;
        let client =
            QueuedEngine::start(EngineConfig { identity: None, ..config(DriverChoice::Mio) })
                .unwrap();
        Self { _host: host, addr, host_id, client_id, client }
    }

    /// The next status of this connection that is told, with its reason.
    fn next(&self, conn: Conn) -> (Status, Option<CloseReason>) {
        let mut out = Vec::new();
        loop {
            let n = self.client.poll_group().recv_many(&mut out, 1, Some(Duration::from_secs(10)));
            assert!(n > 0, "nothing is told");
            if let Some(Received::Event(Event::Status { conn: c, new, reason, .. })) = out.pop()
                && c == conn
            {
                return (new, reason);
            }
        }
    }

    /// Tries to connect; gives the connection, or what the client was told.
    fn try_with(&self, certificate: bool, credential: &[u8]) -> Result<Conn, CloseReason> {
        let mut connect = connect(self.addr, &self.host_id);
        connect.identity = certificate.then(|| self.client_id.clone());
        connect.credential = credential.to_vec();
        connect.reuse = trunkline::Reuse::ForceNew;
        let conn = self.client.connect(&connect, None).unwrap();
        let (status, reason) = self.next(conn);
        let state = self.client.info(conn).unwrap().handshake;
        if status == Status::Connected {
            assert_eq!(state, HandshakeState::Ready);
            return Ok(conn);
        }
        let failed = HandshakeState::ConnectionFailed(HandshakeFailure::Authentication);
        assert_eq!(state, failed);
        self.client.close(conn, 1000, "", None).unwrap();
        Err(reason.unwrap())
    }

    fn told(&self, certificate: bool, credential: &[u8]) -> (Reason, String) {
        let told = self.try_with(certificate, credential).expect_err("a refusal");
        (told.reason, told.text)
    }
}

/// A certificate was demanded and not shown.
fn is_refusal_of_tls(told: &(Reason, String)) {
    assert!([Reason::AUTHENTICATION, Reason::BAD_CERTIFICATE].contains(&told.0), "{told:?}");
}

#[test]
fn a_host_that_demands_nothing() {
    let w = World::new(false, false);
    w.try_with(false, b"").unwrap();
    w.try_with(true, b"").unwrap();
    w.try_with(false, b"whatever").unwrap();
}

#[test]
fn a_host_that_demands_a_certificate() {
    let w = World::new(true, false);
    w.try_with(true, b"").unwrap();
    let now = now_s();
    is_refusal_of_tls(&w.told(false, &issue("game", None, now, now + 60)));
}

#[test]
fn a_host_that_demands_a_credential() {
    let w = World::new(false, true);
    let now = now_s();
    w.try_with(false, &issue("game", None, now, now + 60)).unwrap();
    let rejected = |text: &str| (Reason::APP_REJECTED, text.to_owned());
    assert_eq!(w.told(false, b""), rejected("a credential is required"));
    assert_eq!(w.told(true, b""), rejected("a credential is required"));
    assert_eq!(w.told(false, b"ticket"), rejected("malformed credential: cut short"));
    let (reason, text) = w.told(false, &issue("game", None, now - 60, now - 5));
    assert_eq!(reason, Reason::APP_REJECTED);
    assert!(text.starts_with("credential expired") && text.ends_with("s ago"), "{text}");
    let future = issue("game", None, now + 600, now + 700);
    assert_eq!(w.told(false, &future), rejected("credential is not valid yet"));
    let other = issue("another game", None, now, now + 60);
    assert_eq!(w.told(false, &other), rejected("credential with a wrong signature"));
    let mut forged = issue("game", None, now, now + 60);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(w.told(false, &forged), rejected("credential with a wrong signature"));
    // One that is bound serves a client that proves who it is.
    let bound = issue("game", Some(w.client_id.peer_id()), now, now + 60);
    w.try_with(true, &bound).unwrap();
    assert_eq!(w.told(false, &bound), rejected("credential belongs to another peer"));
}

#[test]
fn a_host_that_demands_both() {
    let w = World::new(true, true);
    let now = now_s();
    let bound = issue("game", Some(w.client_id.peer_id()), now, now + 60);
    w.try_with(true, &bound).unwrap();
    is_refusal_of_tls(&w.told(false, &bound));
    let rejected = |text: &str| (Reason::APP_REJECTED, text.to_owned());
    assert_eq!(w.told(true, b""), rejected("a credential is required"));
    let stolen = issue("game", Some(identity().peer_id()), now, now + 60);
    assert_eq!(w.told(true, &stolen), rejected("credential belongs to another peer"));
}

#[test]
fn a_credential_that_expires_ends_a_live_connection_if_the_application_says_so() {
    let w = World::new(false, true);
    let now = now_s();
    let conn = w.try_with(false, &issue("game", None, now, now + 2)).unwrap();
    let staying = w.try_with(false, &issue("game", None, now, now + 600)).unwrap();
    let (status, reason) = w.next(conn);
    let reason = reason.unwrap();
    assert_eq!(status, Status::ClosedByPeer);
    assert_eq!((reason.reason, &*reason.text), (Reason(EXPIRED), "credential expired"));
    assert_eq!(w.client.info(conn).unwrap().handshake, HandshakeState::Ready);
    assert_eq!(w.client.status(staying), Status::Connected);
    // It is of no use for another connection.
    let (_, text) = w.told(false, &issue("game", None, now, now + 2));
    assert!(text.starts_with("credential expired"), "{text}");
}
