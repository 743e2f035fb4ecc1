//! What is known of a connection's security.

use crate::abi::{self, Struct};
use crate::handle::trunk_conn;
use crate::info::{trunk_link, trunk_role};
use crate::instance::{live, trunk_engine};
use crate::result::{Error, Result, guard, trunk_result};
use crate::security::TRUNK_FINGERPRINT_BYTES;
use engine::{AuthMethod, Party, SecInfo};

/// Most bytes of a trunk_sec_info that is stored.
pub const TRUNK_SEC_INFO_BYTES: usize = 208;
const _: () = assert!(TRUNK_SEC_INFO_BYTES == engine::limits::MAX_SEC_INFO);

/// How one side of a connection was authenticated.
pub type trunk_auth = u32;

/// Not authenticated.
pub const TRUNK_AUTH_NONE: trunk_auth = 0;
/// Its certificate chains to a CA that is trusted.
pub const TRUNK_AUTH_CERTIFICATE: trunk_auth = 1;
/// Its public key is pinned.
pub const TRUNK_AUTH_PIN: trunk_auth = 2;
/// It holds the key of its certificate, and any certificate was accepted.
pub const TRUNK_AUTH_DANGEROUS_ANY: trunk_auth = 3;
/// By its credential alone, which the host's application accepted.
pub const TRUNK_AUTH_CREDENTIAL: trunk_auth = 4;
/// Our own side: a certificate is offered; how the peer judges it, the peer knows.
pub const TRUNK_AUTH_OFFERED: trunk_auth = 5;

const _: () = {
    assert!(TRUNK_AUTH_NONE == AuthMethod::None as u32);
    assert!(TRUNK_AUTH_CERTIFICATE == AuthMethod::Certificate as u32);
    assert!(TRUNK_AUTH_PIN == AuthMethod::Pin as u32);
    assert!(TRUNK_AUTH_DANGEROUS_ANY == AuthMethod::DangerousAny as u32);
    assert!(TRUNK_AUTH_CREDENTIAL == AuthMethod::Credential as u32);
    assert!(TRUNK_AUTH_OFFERED == AuthMethod::Offered as u32);
};

/// One side of a connection. Of fixed size: it does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_party {
    /// How it was authenticated.
    pub method: trunk_auth,
    /// Whether it showed a certificate, and identity is valid.
    pub has_identity: u32,
    /// Whether it showed a credential, and credential is valid.
    pub has_credential: u32,
    /// 0.
    pub reserved: u32,
    /// Its fingerprint.
    pub identity: [u8; TRUNK_FINGERPRINT_BYTES],
    /// SHA-256 of a label and its credential. Whoever can guess the credential can check the guess
    /// against this.
    pub credential: [u8; 32],
}

impl From<&Party> for trunk_party {
    fn from(party: &Party) -> Self {
        Self {
            method: party.method as trunk_auth,
            has_identity: party.identity.is_some().into(),
            has_credential: party.credential.is_some().into(),
            reserved: 0,
            identity: party.identity.map_or([0; TRUNK_FINGERPRINT_BYTES], |id| id.0),
            credential: party.credential.unwrap_or_default(),
        }
    }
}

/// What is known of a connection's security. stored holds all of it: it can be kept and taken back
/// with trunk_sec_info_load. It has the exporter value in it, which is worth keeping secret where
/// an application binds something to it. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_sec_info {
    /// Size of this struct; set by trunk_sec_info_init.
    pub struct_size: u32,
    /// Whether we are client or host.
    pub role: trunk_role,
    /// What carries the connection.
    pub link: trunk_link,
    /// TLS cipher suite (RFC 8446 B.4); 0 = not agreed on yet.
    pub suite: u32,
    /// Whether the TLS session was resumed.
    pub resumed: u32,
    /// Whether the peer has proved itself: before, only our own side means anything.
    pub proven: u32,
    /// When it did, in nanoseconds of the engine's clock.
    pub established_ns: u64,
    /// Our side.
    pub own: trunk_party,
    /// The other one.
    pub peer: trunk_party,
    /// Digest of the trust under which the peer was accepted.
    pub trust: [u8; 32],
    /// 32 bytes that only the two sides of this connection know (RFC 8446 7.5, label
    /// EXPORTER-trunkline); zeros before the peer has proved itself.
    pub exporter: [u8; 32],
    /// Bytes of stored that count.
    pub stored_size: u32,
    /// 0.
    pub reserved: u32,
    /// All of it, for trunk_sec_info_load.
    pub stored: [u8; TRUNK_SEC_INFO_BYTES],
}

const NO_PARTY: trunk_party = trunk_party {
    method: TRUNK_AUTH_NONE,
    has_identity: 0,
    has_credential: 0,
    reserved: 0,
    identity: [0; TRUNK_FINGERPRINT_BYTES],
    credential: [0; 32],
};

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_sec_info {
    const NAME: &'static str = "trunk_sec_info";

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            role: 0,
            link: 0,
            suite: 0,
            resumed: 0,
            proven: 0,
            established_ns: 0,
            own: NO_PARTY,
            peer: NO_PARTY,
            trust: [0; 32],
            exporter: [0; 32],
            stored_size: 0,
            reserved: 0,
            stored: [0; TRUNK_SEC_INFO_BYTES],
        }
    }
}

impl From<&SecInfo> for trunk_sec_info {
    fn from(info: &SecInfo) -> Self {
        let bytes = info.to_bytes();
        let mut stored = [0; TRUNK_SEC_INFO_BYTES];
        stored[..bytes.len()].copy_from_slice(&bytes);
        Self {
            role: crate::info::role(info.role),
            link: crate::info::link(info.link),
            suite: info.suite.into(),
            resumed: info.resumed.into(),
            proven: info.is_proven().into(),
            established_ns: info.established.map_or(0, engine::Instant::as_nanos),
            own: (&info.own).into(),
            peer: (&info.peer).into(),
            trust: info.trust,
            exporter: *info.exporter(),
            stored_size: bytes.len() as u32,
            stored,
            ..Self::defaults()
        }
    }
}

impl trunk_sec_info {
    /// The value at a pointer: what `stored` says counts.
    ///
    /// # Safety
    /// As [`abi::read`].
    pub(crate) unsafe fn value(from: *const Self, what: &'static str) -> Result<SecInfo> {
        if from.is_null() {
            return Err(Error::null(what));
        }
        // SAFETY: handed on.
        let info = unsafe { abi::read(from) }?;
        let stored = info.stored.get(..info.stored_size as usize);
        load(stored.ok_or(Error::invalid("stored_size", "is more than stored has"))?)
    }
}

fn load(bytes: &[u8]) -> Result<SecInfo> {
    SecInfo::from_bytes(bytes).map_err(|error| {
        Error::text(crate::result::TRUNK_ERR_INVALID_ARGUMENT, format!("stored: {error}"))
    })
}

/// Fills struct_size bytes at info with zeros and its size. Call it as trunk_sec_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_sec_info_init_sized(
    info: *mut trunk_sec_info,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(info, struct_size) })
}

/// Stores what is known of a connection's security.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_get_sec_info(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    info: *mut trunk_sec_info,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(info, trunk_sec_info::NAME)?;
        live.drive()?;
        let found = live.logged(|| live.queued.sec_info(live.names.masks.conn_of(conn)))?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(info, &trunk_sec_info::from(&found)) }
    })
}

/// Takes a stored value back: size bytes of trunk_sec_info.stored.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT (other bytes, or of
/// a later version).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_sec_info_load(
    stored: *const u8,
    size: usize,
    info: *mut trunk_sec_info,
) -> trunk_result {
    guard(|| {
        abi::expect(info, trunk_sec_info::NAME)?;
        // SAFETY: bytes by contract.
        let value = load(unsafe { abi::bytes(stored, size, "stored") }?)?;
        // SAFETY: a struct by contract.
        unsafe { abi::write(info, &trunk_sec_info::from(&value)) }
    })
}

/// Stores at matches whether a connection with info will do for whoever asked for wanted: our role,
/// both identities, how each was authenticated, both credentials and the trust are the same. A peer
/// without an identity is nobody in particular: without one, only the very same connection does. Of
/// the two structs only stored counts.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_sec_info_matches(
    info: *const trunk_sec_info,
    wanted: *const trunk_sec_info,
    matches: *mut u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: structs by contract.
        let (info, wanted) = unsafe {
            (trunk_sec_info::value(info, "info")?, trunk_sec_info::value(wanted, "wanted")?)
        };
        // SAFETY: writable by contract.
        unsafe { abi::put(matches, "matches", info.matches(&wanted).into()) }
    })
}

/// Stores at same whether both are of one and the same connection, seen from the same side.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_sec_info_same_connection(
    info: *const trunk_sec_info,
    other: *const trunk_sec_info,
    same: *mut u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: structs by contract.
        let (info, other) = unsafe {
            (trunk_sec_info::value(info, "info")?, trunk_sec_info::value(other, "other")?)
        };
        // SAFETY: writable by contract.
        unsafe { abi::put(same, "same", info.is_same_connection(&other).into()) }
    })
}
