//! What is known of a connection's security, as a value that can be kept, compared and stored
//! (behaviours §5), and the moment at which somebody may decide on the strength of it.

use super::Connection;
use crate::crypto::token::equal_secrets;
use crate::endpoint::ClientConfig;
use crate::error::{ApiError, CloseReason, Reason};
use crate::event::Sink;
use crate::ids::{Link, PeerId, Role};
use crate::limits::{MAX_CREDENTIAL, MAX_SEC_INFO};
use crate::status::Status;
use crate::time::Instant;
use crate::wire::codec::{Reader, Truncated};
use core::fmt;
use ring::digest;

/// First byte of a stored [`SecInfo`].
const VERSION: u8 = 1;
/// What goes into the hash before a credential.
const CREDENTIAL_LABEL: &[u8] = b"trunkline credential\0";

const OWN_IDENTITY: u8 = 1;
const PEER_IDENTITY: u8 = 1 << 1;
const OWN_CREDENTIAL: u8 = 1 << 2;
const PEER_CREDENTIAL: u8 = 1 << 3;
const RESUMED: u8 = 1 << 4;
const PROVEN: u8 = 1 << 5;
const ALL_FLAGS: u8 = (1 << 6) - 1;

/// How one side of a connection was authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum AuthMethod {
    /// Not at all.
    #[default]
    None = 0,
    /// Its certificate chains to a CA that is trusted.
    Certificate = 1,
    /// Its public key is pinned.
    Pin = 2,
    /// It holds the key of its certificate, and any certificate was accepted.
    DangerousAny = 3,
    /// By its credential alone, which the host's application accepted.
    Credential = 4,
    /// Our own side: a certificate is offered; how the peer judges it, the peer knows.
    Offered = 5,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Party {
    /// Who it is, where a certificate was shown.
    pub identity: Option<PeerId>,
    /// How it was authenticated.
    pub method: AuthMethod,
    /// SHA-256 of the credential it showed, with a label; `None` without one. A credential that can
    /// be guessed can be found again from this.
    pub credential: Option<[u8; 32]>,
}

/// What is known of a connection's security.
///
/// Two values of one peer are compared with [`matches`](Self::matches): would the connection of the
/// one do for whoever asked for the security of the other? `==` and
/// [`is_same_connection`](Self::is_same_connection) ask for the very same connection.
///
/// Stored values ([`to_bytes`](Self::to_bytes)) hold the exporter value, which is worth keeping
/// secret where an application binds something to it. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecInfo {
    /// Which side we are.
    pub role: Role,
    /// What carries the connection.
    pub link: Link,
    /// Our side.
    pub own: Party,
    /// The other one.
    pub peer: Party,
    /// Digest of the trust policy under which the peer was accepted.
    pub trust: [u8; 32],
    /// TLS cipher suite (RFC 8446 §B.4); 0 = not agreed on yet.
    pub suite: u16,
    /// The TLS session was resumed.
    pub resumed: bool,
    /// When the peer had proved itself, on the clock of who runs the endpoint; `None` before.
    pub established: Option<Instant>,
    exporter: [u8; 32],
}

/// Why bytes are no [`SecInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecInfoError {
    /// Written by a later version.
    #[error("version {0} of SecInfo is not known")]
    Version(u8),
    /// Shorter than it says, or with bytes behind its end.
    #[error("SecInfo of a wrong length")]
    Length,
    /// A field with a value that is never written.
    #[error("SecInfo: {0} is out of range")]
    Field(&'static str),
}

impl From<Truncated> for SecInfoError {
    fn from(Truncated: Truncated) -> Self {
        Self::Length
    }
}

impl SecInfo {
    /// Of an attempt to connect that has not begun: only our own side is known.
    pub fn of_attempt(config: &ClientConfig, link: Link) -> Self {
        let security = config.tls.security();
        Self {
            role: Role::Client,
            link,
            own: own_party(security.identity, credential_digest(&config.credential)),
            peer: Party::default(),
            trust: security.trust,
            suite: 0,
            resumed: false,
            established: None,
            exporter: [0; 32],
        }
    }

    /// Whether the peer has proved itself: before, only our own side means anything.
    pub const fn is_proven(&self) -> bool {
        self.established.is_some()
    }

    /// 32 bytes that only the two sides of this connection know (RFC 8446 §7.5, label
    /// `EXPORTER-trunkline`); zeros before the peer has proved itself.
    pub const fn exporter(&self) -> &[u8; 32] {
        &self.exporter
    }

    /// Whether a connection with this security will do for whoever asked for `wanted`.
    ///
    /// It does when our role, both sides' identities, the way in which each was authenticated, both
    /// credentials and the trust policy are the same. Cipher suite, resumption, time, link and
    /// exporter are those of one connection and play no part. A peer without an identity is
    /// nobody in particular: without one, only the very same connection matches.
    pub fn matches(&self, wanted: &Self) -> bool {
        if !self.is_proven() {
            return false;
        }
        if self.peer.identity.is_none() {
            return self.is_same_connection(wanted);
        }
        self.role == wanted.role
            && self.own == wanted.own
            && self.peer == wanted.peer
            && self.trust == wanted.trust
    }

    /// Whether both are of one and the same connection.
    pub fn is_same_connection(&self, other: &Self) -> bool {
        self.is_proven()
            && other.is_proven()
            && self.role == other.role
            && equal_secrets(&self.exporter, &other.exporter)
    }

    /// The name of the cipher suite, where this crate knows it.
    pub const fn suite_name(&self) -> &'static str {
        match self.suite {
            0x1301 => "TLS13_AES_128_GCM_SHA256",
            0x1302 => "TLS13_AES_256_GCM_SHA384",
            0x1303 => "TLS13_CHACHA20_POLY1305_SHA256",
            _ => "unknown",
        }
    }

    /// As bytes to be stored, at most [`MAX_SEC_INFO`]: version (1), role (0 client, 1 host), link,
    /// flags, method of our side, method of the peer, suite u16, time u64 in nanoseconds, trust,
    /// exporter, then as the flags say our identity, the peer's, our credential, the peer's.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut flags = 0;
        let optional = [
            (self.own.identity.map(|id| id.0), OWN_IDENTITY),
            (self.peer.identity.map(|id| id.0), PEER_IDENTITY),
            (self.own.credential, OWN_CREDENTIAL),
            (self.peer.credential, PEER_CREDENTIAL),
        ];
        for (value, flag) in &optional {
            flags |= if value.is_some() { *flag } else { 0 };
        }
        flags |= if self.resumed { RESUMED } else { 0 };
        flags |= if self.is_proven() { PROVEN } else { 0 };
        let mut out = Vec::with_capacity(MAX_SEC_INFO);
        let role = u8::from(self.role == Role::Host);
        let methods = [self.own.method as u8, self.peer.method as u8];
        out.extend([VERSION, role, self.link as u8, flags, methods[0], methods[1]]);
        out.extend(self.suite.to_be_bytes());
        out.extend(self.established.map_or(0, Instant::as_nanos).to_be_bytes());
        out.extend(self.trust);
        out.extend(self.exporter);
        for (value, _) in optional {
            out.extend(value.iter().flatten());
        }
        out
    }

    /// From [`to_bytes`](Self::to_bytes). Takes exactly what that writes and nothing else, whatever
    /// the bytes are.
    ///
    /// # Errors
    /// [`SecInfoError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecInfoError> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != VERSION {
            return Err(SecInfoError::Version(version));
        }
        let role = match r.u8()? {
            0 => Role::Client,
            1 => Role::Host,
            _ => return Err(SecInfoError::Field("role")),
        };
        let link = match r.u8()? {
            0 => Link::Datagram,
            1 => Link::Stream,
            _ => return Err(SecInfoError::Field("link")),
        };
        let flags = r.u8()?;
        if flags & !ALL_FLAGS != 0 {
            return Err(SecInfoError::Field("flags"));
        }
        let methods = [method(r.u8()?)?, method(r.u8()?)?];
        let suite = r.u16()?;
        let time = r.u64()?;
        let (trust, exporter) = (array(&mut r)?, array(&mut r)?);
        let mut optional = |flag: u8| -> Result<Option<[u8; 32]>, SecInfoError> {
            if flags & flag == 0 { Ok(None) } else { array(&mut r).map(Some) }
        };
        let identities = [optional(OWN_IDENTITY)?, optional(PEER_IDENTITY)?];
        let credentials = [optional(OWN_CREDENTIAL)?, optional(PEER_CREDENTIAL)?];
        if r.remaining() > 0 {
            return Err(SecInfoError::Length);
        }
        let proven = flags & PROVEN != 0;
        let established = Instant::from_nanos(time);
        // The one number that is no instant, and those that have no meaning.
        if established.as_nanos() != time || (!proven && (time != 0 || exporter != [0; 32])) {
            return Err(SecInfoError::Field("time"));
        }
        let party = |i: usize| Party {
            identity: identities[i].map(PeerId),
            method: methods[i],
            credential: credentials[i],
        };
        Ok(Self {
            role,
            link,
            own: party(0),
            peer: party(1),
            trust,
            suite,
            resumed: flags & RESUMED != 0,
            established: proven.then_some(established),
            exporter,
        })
    }
}

impl fmt::Debug for SecInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecInfo")
            .field("role", &self.role)
            .field("link", &self.link)
            .field("own", &(self.own.identity, self.own.method))
            .field("peer", &(self.peer.identity, self.peer.method))
            .field("suite", &self.suite_name())
            .field("resumed", &self.resumed)
            .field("established", &self.established)
            .finish_non_exhaustive()
    }
}

fn method(byte: u8) -> Result<AuthMethod, SecInfoError> {
    Ok(match byte {
        0 => AuthMethod::None,
        1 => AuthMethod::Certificate,
        2 => AuthMethod::Pin,
        3 => AuthMethod::DangerousAny,
        4 => AuthMethod::Credential,
        5 => AuthMethod::Offered,
        _ => return Err(SecInfoError::Field("method")),
    })
}

fn array(r: &mut Reader<'_>) -> Result<[u8; 32], SecInfoError> {
    let mut out = [0; 32];
    out.copy_from_slice(r.bytes(32)?);
    Ok(out)
}

const fn own_party(identity: Option<PeerId>, credential: Option<[u8; 32]>) -> Party {
    let method = match (identity, credential) {
        (Some(_), _) => AuthMethod::Offered,
        (None, Some(_)) => AuthMethod::Credential,
        (None, None) => AuthMethod::None,
    };
    Party { identity, method, credential }
}

/// The digest of a credential; `None` for an empty one.
fn credential_digest(credential: &[u8]) -> Option<[u8; 32]> {
    if credential.is_empty() {
        return None;
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(CREDENTIAL_LABEL);
    hash.update(credential);
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    Some(out)
}

/// Whether somebody decides, once the host is proven, what becomes of a client's connection.
#[derive(Debug, Default)]
pub(super) enum Decision {
    /// Nobody: it goes on at once.
    #[default]
    None,
    /// Somebody, when the time has come.
    Wanted,
    /// The time has come; this credential waits.
    Due(Vec<u8>),
    /// The question was put.
    Asked(Vec<u8>),
}

impl Connection {
    /// Client: the host is proven. The AuthenticationRequest goes out, unless somebody decides first.
    pub(super) fn present(&mut self, credential: Vec<u8>) {
        match &mut self.decision {
            Decision::None => self.send_authentication_request(&credential),
            wanted => *wanted = Decision::Due(credential),
        }
    }

    pub(super) fn note_credential(&mut self, credential: &[u8]) {
        self.credential = credential_digest(credential).map(Box::new);
    }

    pub(crate) fn ask_security(&mut self) -> Result<(), ApiError> {
        if self.role != Role::Client || self.peer.is_some() || self.usable().is_err() {
            return Err(ApiError::NoConnection("too late to ask"));
        }
        self.decision = Decision::Wanted;
        Ok(())
    }

    /// Puts the question when its time has come.
    pub(super) fn ask_decision<S: Sink>(&mut self, sink: &mut S) {
        if self.status == Status::Connecting
            && let Decision::Due(credential) = &mut self.decision
        {
            self.decision = Decision::Asked(core::mem::take(credential));
            sink.security(self.handle, &self.sec_info());
        }
    }

    pub(crate) fn answer_security<S: Sink>(
        &mut self,
        now: Instant,
        answer: Result<Option<&[u8]>, &str>,
        sink: &mut S,
    ) -> Result<(), ApiError> {
        let Decision::Asked(own) = &mut self.decision else {
            return Err(ApiError::NoConnection("nothing was asked"));
        };
        if self.status != Status::Connecting {
            return Err(ApiError::NoConnection("the attempt is over"));
        }
        match answer {
            Ok(Some(other)) if other.len() > MAX_CREDENTIAL => Err(ApiError::InvalidArgument {
                field: "credential",
                why: "must be at most 8192 bytes",
            }),
            Ok(other) => {
                let own = core::mem::take(own);
                self.decision = Decision::None;
                let credential = other.unwrap_or(&own);
                if self.is_plain() {
                    // There is nobody to show it to.
                    self.credential = None;
                    self.establish_plain(now, sink);
                } else {
                    self.note_credential(credential);
                    self.send_authentication_request(credential);
                }
                Ok(())
            }
            Err(text) => {
                self.decision = Decision::None;
                self.fail(now, CloseReason::new(Reason::AUTHENTICATION, text), sink);
                Ok(())
            }
        }
    }

    /// What is known of the connection's security by now.
    pub(crate) fn sec_info(&self) -> SecInfo {
        let shown = self.credential.as_deref().copied();
        let (own_credential, peer_credential) = match self.role {
            Role::Client => (shown, None),
            Role::Host => (None, shown),
        };
        let peer = self.peer.as_deref();
        let identity = peer.and_then(|p| p.id);
        let method = match (identity, peer_credential) {
            (Some(_), _) => self.security.method,
            (None, Some(_)) => AuthMethod::Credential,
            (None, None) => AuthMethod::None,
        };
        SecInfo {
            role: self.role,
            link: self.link(),
            own: own_party(self.security.identity, own_credential),
            peer: Party { identity, method, credential: peer_credential },
            trust: self.security.trust,
            suite: peer.map_or(0, |p| p.suite_number),
            resumed: peer.is_some_and(|p| p.resumed),
            established: peer.map(|p| p.since),
            exporter: peer.map_or([0; 32], |p| p.exporter),
        }
    }
}
