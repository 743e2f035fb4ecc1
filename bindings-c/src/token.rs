//! Access tokens: what allows a client to connect to an event source. Their text is described in
//! `docs/pairing.md`.

use crate::abi::{self, Struct};
use crate::pairing::{TRUNK_PAIRING_CONTROLLER, TRUNK_PAIRING_RESPONDER};
use crate::result::{
    Error, Result, TRUNK_ERR_CREDENTIAL, TRUNK_ERR_INVALID_ARGUMENT, guard, trunk_result,
};
use engine::limits::{MAX_ACCESS_TOKEN, MAX_CLIENT_ID, MAX_TOKEN_KEY_ID};
use engine::rendezvous::{
    AppId, ClientPattern, Grant, KeyRing, PairingRole, RoleSet, TokenError, dangerous_inspect,
};
use std::ffi::{c_char, c_void};

/// Most bytes of an access token, final NUL included.
pub const TRUNK_TOKEN_TEXT_BYTES: usize = 513;
/// Most bytes of an application's name, or of a client id or pattern, final NUL included.
pub const TRUNK_NAME_TEXT_BYTES: usize = 65;
/// Most bytes of the name of a key, final NUL included.
pub const TRUNK_TOKEN_KEY_ID_TEXT_BYTES: usize = 33;

const _: () = {
    assert!(TRUNK_TOKEN_TEXT_BYTES == MAX_ACCESS_TOKEN + 1);
    assert!(TRUNK_NAME_TEXT_BYTES == MAX_CLIENT_ID + 1);
    assert!(TRUNK_TOKEN_KEY_ID_TEXT_BYTES == MAX_TOKEN_KEY_ID + 1);
    assert!(TRUNK_TOKEN_CONTROLLER == 1 << TRUNK_PAIRING_CONTROLLER);
    assert!(TRUNK_TOKEN_RESPONDER == 1 << TRUNK_PAIRING_RESPONDER);
};

/// A key with which access tokens are signed, shared by whoever mints them and the event source. Of
/// fixed size: it does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_token_key {
    /// Its name, 1 to 32 characters of A-Z a-z 0-9 - _, which tokens state so that keys can be
    /// replaced one after the other.
    pub id: *const c_char,
    /// At least TRUNK_SECRET_BYTES random bytes.
    pub secret: *const c_void,
    /// Bytes of it.
    pub secret_size: usize,
}

/// Roles that a token allows: any of them together.
pub type trunk_token_roles = u32;

/// TRUNK_PAIRING_CONTROLLER.
pub const TRUNK_TOKEN_CONTROLLER: trunk_token_roles = 1;
/// TRUNK_PAIRING_RESPONDER.
pub const TRUNK_TOKEN_RESPONDER: trunk_token_roles = 2;
/// Both.
pub const TRUNK_TOKEN_ANY_ROLE: trunk_token_roles = 3;

const ROLES: [(trunk_token_roles, PairingRole); 2] = [
    (TRUNK_TOKEN_CONTROLLER, PairingRole::Controller),
    (TRUNK_TOKEN_RESPONDER, PairingRole::Responder),
];

/// What an access token is to allow. trunk_token_grant_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_token_grant {
    /// Size of this struct; set by trunk_token_grant_init.
    pub struct_size: u32,
    /// With which roles. TRUNK_TOKEN_ANY_ROLE.
    pub roles: trunk_token_roles,
    /// In which application: 1 to 64 characters of A-Z a-z 0-9 - . _ ~ : @ +. Required.
    pub app: *const c_char,
    /// As which client: one client id, of the same characters, or a pattern with at most four *,
    /// each for any number of characters. Required.
    pub client: *const c_char,
    /// Until when, in seconds of Unix time. Required.
    pub expires_s: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_token_grant {
    const NAME: &'static str = "trunk_token_grant";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            roles: TRUNK_TOKEN_ANY_ROLE,
            app: std::ptr::null(),
            client: std::ptr::null(),
            expires_s: 0,
        }
    }
}

/// Why an access token is not good.
pub type trunk_token_error = u32;

/// It is good.
pub const TRUNK_TOKEN_GOOD: trunk_token_error = 0;
/// It does not have the form of a token.
pub const TRUNK_TOKEN_MALFORMED: trunk_token_error = 1;
/// It is signed with a key that is not among those given.
pub const TRUNK_TOKEN_UNKNOWN_KEY: trunk_token_error = 2;
/// Its signature does not fit.
pub const TRUNK_TOKEN_WRONG_SIGNATURE: trunk_token_error = 3;
/// Its time is over: expired_by_s.
pub const TRUNK_TOKEN_EXPIRED: trunk_token_error = 4;
/// For a reason that this version has no name for.
pub const TRUNK_TOKEN_OTHER: trunk_token_error = 5;

/// What an access token says. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_token {
    /// Size of this struct; set by trunk_token_init.
    pub struct_size: u32,
    /// Why it is not good; the fields below are 0 then, unless stated at the error.
    pub error: trunk_token_error,
    /// Until when it holds, in seconds of Unix time, which is not part of its time.
    pub expires_s: u64,
    /// TRUNK_TOKEN_EXPIRED: since how many seconds its time is over.
    pub expired_by_s: u64,
    /// Roles that it allows.
    pub roles: trunk_token_roles,
    /// Application for which it is good.
    pub app: [c_char; 68],
    /// Client id, or pattern of client ids, for which it is good.
    pub client: [c_char; 68],
    /// Name of the key with which it is signed.
    pub key_id: [c_char; 36],
}

const _: () = {
    assert!(size_of::<trunk_token>() == 200, "no padding");
    assert!(TRUNK_NAME_TEXT_BYTES <= 68 && TRUNK_TOKEN_KEY_ID_TEXT_BYTES <= 36);
};

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_token {
    const NAME: &'static str = "trunk_token";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            error: TRUNK_TOKEN_GOOD,
            expires_s: 0,
            expired_by_s: 0,
            roles: 0,
            app: [0; 68],
            client: [0; 68],
            key_id: [0; 36],
        }
    }
}

impl trunk_token {
    fn good(key_id: &str, grant: &Grant) -> Self {
        let allowed = ROLES.iter().filter(|(_, role)| grant.roles.contains(*role));
        Self {
            expires_s: grant.expires_s,
            roles: allowed.fold(0, |roles, (bit, _)| roles | bit),
            app: abi::fixed_text(grant.app.as_str()),
            client: abi::fixed_text(grant.clients.as_str()),
            key_id: abi::fixed_text(key_id),
            ..Self::defaults()
        }
    }

    fn bad(error: &TokenError) -> Self {
        let (error, expired_by_s) = match error {
            TokenError::Malformed(_) => (TRUNK_TOKEN_MALFORMED, 0),
            TokenError::UnknownKey => (TRUNK_TOKEN_UNKNOWN_KEY, 0),
            TokenError::BadSignature => (TRUNK_TOKEN_WRONG_SIGNATURE, 0),
            TokenError::Expired { ago_s } => (TRUNK_TOKEN_EXPIRED, *ago_s),
            _ => (TRUNK_TOKEN_OTHER, 0),
        };
        Self { error, expired_by_s, ..Self::defaults() }
    }

    /// Stores what a token says, or why it is not good.
    ///
    /// # Safety
    /// `out` is NULL or points to a struct of the size that its first field states.
    unsafe fn answer(
        out: *mut Self,
        result: std::result::Result<(String, Grant), TokenError>,
    ) -> Result {
        let answer = match &result {
            Ok((key_id, grant)) => Self::good(key_id, grant),
            Err(error) => Self::bad(error),
        };
        // SAFETY: by contract.
        unsafe { abi::write(out, &answer) }?;
        result.map(drop).map_err(|e| Error::text(TRUNK_ERR_CREDENTIAL, e.to_string()))
    }
}

/// Keys of the caller. What is wrong with one says which one.
///
/// # Safety
/// `keys` is NULL or points to `count` keys, whose pointers are NULL or point to what their fields
/// say.
pub(crate) unsafe fn key_ring(keys: *const trunk_token_key, count: usize) -> Result<KeyRing> {
    let mut ring = KeyRing::new();
    // SAFETY: an array by contract.
    let keys = unsafe { abi::array(keys, count, "keys") }?;
    for (i, key) in keys.iter().enumerate() {
        // SAFETY: a string, and that many bytes, by contract.
        let (id, secret) = unsafe {
            (abi::text(key.id, "key id")?, abi::bytes(key.secret, key.secret_size, "key secret")?)
        };
        ring.add(id, secret)
            .map_err(|e| Error::text(TRUNK_ERR_INVALID_ARGUMENT, format!("keys[{i}]: {e}")))?;
    }
    Ok(ring)
}

impl trunk_token_grant {
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    unsafe fn convert(&self) -> Result<Grant> {
        let wrong = |field, why: &dyn std::fmt::Display| {
            Error::text(TRUNK_ERR_INVALID_ARGUMENT, format!("{field} {why}"))
        };
        // SAFETY: strings by contract.
        let (app, client) =
            unsafe { (abi::text(self.app, "app")?, abi::text(self.client, "client")?) };
        let roles = match self.roles {
            TRUNK_TOKEN_CONTROLLER => RoleSet::only(PairingRole::Controller),
            TRUNK_TOKEN_RESPONDER => RoleSet::only(PairingRole::Responder),
            TRUNK_TOKEN_ANY_ROLE => RoleSet::ALL,
            _ => return Err(Error::invalid("roles", "must lie in 1..=3")),
        };
        if self.expires_s == 0 {
            return Err(Error::invalid("expires_s", "is not stated"));
        }
        let clients = ClientPattern::new(client).map_err(|e| match e {
            TokenError::Malformed(why) => wrong("client:", &why),
            other => wrong("client:", &other),
        })?;
        let app = AppId::new(app).map_err(|e| wrong("app", &e))?;
        Ok(Grant { app, clients, roles, expires_s: self.expires_s })
    }
}

/// Fills struct_size bytes at grant with the defaults. Call it as trunk_token_grant_init(&grant).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_token_grant_init_sized(
    grant: *mut trunk_token_grant,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(grant, struct_size) })
}

/// Fills struct_size bytes at token with zeros and its size. Call it as trunk_token_init(&token).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_token_init_sized(
    token: *mut trunk_token,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(token, struct_size) })
}

/// Signs an access token with key, and stores it as a text with a final NUL in the capacity bytes
/// at token. TRUNK_TOKEN_TEXT_BYTES are always enough. size, which may be NULL, gets the bytes
/// needed, final NUL included. A token is as good as a password for as long as it holds.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_token_mint(
    key: *const trunk_token_key,
    grant: *const trunk_token_grant,
    token: *mut c_char,
    capacity: usize,
    size: *mut usize,
) -> trunk_result {
    guard(|| {
        if key.is_null() {
            return Err(Error::null("key"));
        }
        if grant.is_null() {
            return Err(Error::null("grant"));
        }
        // SAFETY: one key, and a grant, by contract.
        let (keys, grant) = unsafe { (key_ring(key, 1)?, abi::read(grant)?.convert()?) };
        let id = keys.ids().next().unwrap_or_default();
        let minted = keys
            .mint(id, &grant)
            .map_err(|e| Error::text(TRUNK_ERR_INVALID_ARGUMENT, e.to_string()))?;
        // SAFETY: the caller's buffer.
        unsafe { abi::put_text(minted.as_str(), token, capacity, size) }
    })
}

/// Checks an access token as an event source with these keys does, at now_s in seconds of Unix time
/// (0 = now), and stores what it says at found. Whether its client id and role fit is for the event
/// source to say.
///
/// What is not good gives TRUNK_ERR_CREDENTIAL; found->error says why, and trunk_last_error in
/// words.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_CREDENTIAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_token_verify(
    keys: *const trunk_token_key,
    key_count: usize,
    token: *const c_char,
    now_s: u64,
    found: *mut trunk_token,
) -> trunk_result {
    guard(|| {
        abi::expect(found, trunk_token::NAME)?;
        // SAFETY: an array of keys, and a string, by contract.
        let (keys, token) = unsafe { (key_ring(keys, key_count)?, abi::text(token, "token")?) };
        let result = keys.verify(token, abi::unix_s(now_s));
        // What was verified can be read.
        let result = result.and_then(|_| dangerous_inspect(token));
        // SAFETY: a struct by contract.
        unsafe { trunk_token::answer(found, result) }
    })
}

/// Stores at found what an access token says of itself, without any key: whether it is true, or
/// still holds, is not known. For showing it to people, never for deciding anything.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_CREDENTIAL (TRUNK_TOKEN_MALFORMED).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_token_dangerous_inspect(
    token: *const c_char,
    found: *mut trunk_token,
) -> trunk_result {
    guard(|| {
        abi::expect(found, trunk_token::NAME)?;
        // SAFETY: a string by contract.
        let result = dangerous_inspect(unsafe { abi::text(token, "token") }?);
        // SAFETY: a struct by contract.
        unsafe { trunk_token::answer(found, result) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn key(id: &std::ffi::CStr) -> trunk_token_key {
        trunk_token_key {
            id: id.as_ptr(),
            secret: SECRET.as_ptr().cast(),
            secret_size: SECRET.len(),
        }
    }

    fn grant() -> trunk_token_grant {
        trunk_token_grant {
            roles: TRUNK_TOKEN_CONTROLLER,
            app: c"chess".as_ptr(),
            client: c"alice".as_ptr(),
            expires_s: 2_000_000_000,
            ..trunk_token_grant::defaults()
        }
    }

    #[test]
    fn the_documented_token_is_minted() {
        // SAFETY: literals.
        let (keys, grant) = unsafe { (key_ring(&key(c"k1"), 1), grant().convert()) };
        let token = keys.unwrap().mint("k1", &grant.unwrap()).unwrap();
        let pairing = include_str!("../../docs/pairing.md");
        assert!(pairing.contains(&format!("{} alice controller", token.as_str())));
    }

    #[test]
    fn what_a_token_says_fits() {
        let longest = "a".repeat(MAX_CLIENT_ID);
        let grant = Grant {
            app: AppId::new(&longest).unwrap(),
            clients: ClientPattern::new(&longest).unwrap(),
            roles: RoleSet::only(PairingRole::Responder),
            expires_s: 9,
        };
        let said = trunk_token::good(&"k".repeat(MAX_TOKEN_KEY_ID), &grant);
        let len = |text: &[c_char]| text.iter().take_while(|c| **c != 0).count();
        assert_eq!((len(&said.app), len(&said.client), len(&said.key_id)), (64, 64, 32));
        assert_eq!((said.error, said.roles, said.expires_s), (0, TRUNK_TOKEN_RESPONDER, 9));
        let both = Grant { roles: RoleSet::ALL, ..grant };
        assert_eq!(trunk_token::good("k", &both).roles, TRUNK_TOKEN_ANY_ROLE);
    }

    #[test]
    fn errors_name_the_field() {
        let wrong = |change: fn(&mut trunk_token_grant)| {
            let mut grant = grant();
            change(&mut grant);
            // SAFETY: literals.
            unsafe { grant.convert() }.unwrap_err().to_string()
        };
        assert_eq!(wrong(|g| g.app = c"".as_ptr()), "app is empty");
        assert!(wrong(|g| g.client = c"*****".as_ptr()).contains("client pattern"));
        assert!(wrong(|g| g.client = std::ptr::null()).contains("client is NULL"));
        assert!(wrong(|g| g.roles = 0).contains("roles"));
        assert!(wrong(|g| g.roles = 4).contains("roles"));
        assert!(wrong(|g| g.expires_s = 0).contains("expires_s"));
        let twice = [key(c"k1"), key(c"k1")];
        // SAFETY: an array of literals.
        let error = unsafe { key_ring(twice.as_ptr(), 2) }.unwrap_err();
        assert_eq!(error.to_string(), "keys[1]: key name is there already");
    }
}
