//! The application's say while connections are being made.

use crate::abi;
use crate::detail::c_text;
use crate::log;
use crate::result::{Error, Result};
use crate::sec_info::trunk_sec_info;
use crate::security::{trunk_identity, trunk_trust};
use engine::{Refused, SecurityCallback, SecurityChoice, SecurityQuery, SecurityStage};
use std::ffi::{CString, c_char, c_void};

/// When the security callback is called.
pub type trunk_security_stage = u32;

/// Before anything is sent: identity, trust and credential can be chosen.
pub const TRUNK_SECURITY_BEGINNING: trunk_security_stage = 0;
/// The peer has proved itself, and our credential has not left yet: it can be chosen, and pins
/// given now must hold.
pub const TRUNK_SECURITY_PEER_PROVEN: trunk_security_stage = 1;

/// What the security callback is told. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_security_query {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// How far the attempt is.
    pub stage: trunk_security_stage,
    /// Whether sec_handle was given with the connect or send.
    pub has_sec_handle: u32,
    /// 0.
    pub reserved: u32,
    /// The value given, if has_sec_handle.
    pub sec_handle: u64,
    /// What is known by now; at TRUNK_SECURITY_BEGINNING that is our own side.
    pub info: *const trunk_sec_info,
    /// Where the connection leads: addresses with ports.
    pub addresses: *const *const c_char,
    /// Number of them.
    pub address_count: usize,
    /// The name that is asked for; never NULL.
    pub server_name: *const c_char,
}

/// What the security callback wants; what it leaves NULL stays as the connect says. What it points
/// to must stay valid until the next call of the callback on the same thread. Of fixed size: it
/// does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_security_choice {
    /// Who we are. Without effect once the peer is proven.
    pub identity: *const trunk_identity,
    /// Whom to believe. Once the peer is proven only TRUNK_TRUST_PINS has an effect: a peer that is
    /// none of them is refused.
    pub trust: *const trunk_trust,
    /// What is shown to the host after the handshake; at most 8192 bytes.
    pub credential: *const c_void,
    /// Bytes of it.
    pub credential_size: usize,
    /// Why the attempt is refused: words that end it with TRUNK_REASON_AUTHENTICATION.
    pub refusal: *const c_char,
    /// 0.
    pub reserved: [u64; 3],
}

/// Asked while connections are being made: writes what it wants to choice, which is empty at first.
/// To let the attempt go on, it leaves refusal NULL.
///
/// Called by the thread that connects, inside trunk_connect and its kin, and by the connection's
/// shard once the peer has proved itself; by several at once. It must not block and must not throw
/// C++ exceptions or longjmp. It may call anything; what waits for an engine gives
/// TRUNK_ERR_IN_CALLBACK. What such calls log is dropped, and an engine that is made there has no
/// log of its threads.
pub type trunk_security_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        query: *const trunk_security_query,
        choice: *mut trunk_security_choice,
    ),
>;

/// The application's callback with its context.
struct Asked {
    call:
        unsafe extern "C" fn(*mut c_void, *const trunk_security_query, *mut trunk_security_choice),
    user: *mut c_void,
}

// SAFETY: `user` is only handed back; the interface says which threads call.
unsafe impl Send for Asked {}
// SAFETY: as above, and several at once.
unsafe impl Sync for Asked {}

impl Asked {
    fn ask(&self, query: &SecurityQuery<'_>) -> std::result::Result<SecurityChoice, Refused> {
        let info = trunk_sec_info::from(query.info);
        let texts: Vec<CString> = query.remotes.iter().map(|r| c_text(&r.to_string())).collect();
        let addresses: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let name = c_text(query.server_name);
        let asked = trunk_security_query {
            struct_size: size_of::<trunk_security_query>() as u32,
            stage: match query.stage {
                SecurityStage::Beginning => TRUNK_SECURITY_BEGINNING,
                SecurityStage::PeerProven => TRUNK_SECURITY_PEER_PROVEN,
            },
            has_sec_handle: query.handle.is_some().into(),
            reserved: 0,
            sec_handle: query.handle.map_or(0, |handle| handle.0),
            info: &raw const info,
            addresses: addresses.as_ptr(),
            address_count: addresses.len(),
            server_name: name.as_ptr(),
        };
        let mut choice = trunk_security_choice {
            identity: std::ptr::null(),
            trust: std::ptr::null(),
            credential: std::ptr::null(),
            credential_size: 0,
            refusal: std::ptr::null(),
            reserved: [0; 3],
        };
        // SAFETY: the application's function, called as the interface says.
        log::inside(|| unsafe { (self.call)(self.user, &raw const asked, &raw mut choice) });
        // SAFETY: the application's pointers, valid by contract.
        unsafe { choice.convert() }.map_err(|error| Refused(error.to_string()))
    }
}

impl trunk_security_choice {
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    unsafe fn convert(&self) -> Result<SecurityChoice> {
        // SAFETY: by contract.
        unsafe {
            if let Some(words) = abi::optional_text(self.refusal, "refusal")? {
                let code = crate::result::TRUNK_ERR_SECURITY;
                return Err(Error::text(code, words));
            }
            let trust =
                if self.trust.is_null() { None } else { Some(trunk_trust::of_client(self.trust)?) };
            let credential = if self.credential.is_null() {
                None
            } else {
                let bytes = abi::bytes(self.credential, self.credential_size, "credential")?;
                Some(bytes.to_vec())
            };
            Ok(SecurityChoice {
                identity: trunk_identity::optional(self.identity)?,
                trust,
                credential,
            })
        }
    }
}

/// The callback of an engine; `None` for NULL.
pub(crate) fn callback(call: trunk_security_fn, user: *mut c_void) -> Option<SecurityCallback> {
    let asked = Asked { call: call?, user };
    Some(SecurityCallback::new(move |query| asked.ask(query)))
}
