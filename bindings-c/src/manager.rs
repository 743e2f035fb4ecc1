//! The connection manager: channels by name and peer, with the connections that they need.

use crate::abi;
use crate::channel::{optional_options, trunk_channel_options};
use crate::conn::trunk_connect_config;
use crate::detail::{Detail, c_text};
use crate::handle::{trunk_conn, trunk_open_request};
use crate::instance::{Live, live, trunk_engine};
use crate::receive::group_at;
use crate::result::{Error, Result, TRUNK_OK, guard, trunk_result};
use crate::status::{TRUNK_REASON_NONE, trunk_reason};
use engine::handler::Opened;
use engine::{CloseReason, ConnectConfig, PollGroup, RequestError};
use std::ffi::c_char;

/// What came of a request for a channel, and why an association that failed did.
pub type trunk_outcome = u32;

/// There is a channel.
pub const TRUNK_OUTCOME_OPENED: trunk_outcome = 0;
/// The peer declined it: code, text.
pub const TRUNK_OUTCOME_DECLINED: trunk_outcome = 1;
/// The peer did not answer in time. The connection is not affected.
pub const TRUNK_OUTCOME_TIMED_OUT: trunk_outcome = 2;
/// One of the two sides cancelled it: code.
pub const TRUNK_OUTCOME_RESET: trunk_outcome = 3;
/// The connection ended, and a second one did not help: reason, text.
pub const TRUNK_OUTCOME_CONNECTION: trunk_outcome = 4;
/// It could not be asked for: result, text.
pub const TRUNK_OUTCOME_REFUSED: trunk_outcome = 5;
/// trunk_open_request_cancel.
pub const TRUNK_OUTCOME_CANCELLED: trunk_outcome = 6;
/// In a way that this version has no name for.
pub const TRUNK_OUTCOME_OTHER: trunk_outcome = 7;

/// Of TRUNK_ITEM_OPENED. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_opened {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// What came of it.
    pub outcome: trunk_outcome,
    /// The request, which is over.
    pub request: trunk_open_request,
    /// Whether the channel was there before, or somebody else asked for it: a unique name.
    pub joined: u32,
    /// TRUNK_OUTCOME_DECLINED, TRUNK_OUTCOME_RESET: the code given with it.
    pub code: u32,
    /// TRUNK_OUTCOME_CONNECTION: why.
    pub reason: trunk_reason,
    /// TRUNK_OUTCOME_REFUSED: why.
    pub result: trunk_result,
    /// Words for people; never NULL.
    pub text: *const c_char,
}

/// Outcome, code, reason, result and words.
pub(crate) fn outcome(
    error: &RequestError,
) -> (trunk_outcome, u32, trunk_reason, trunk_result, String) {
    let none = TRUNK_REASON_NONE;
    match error {
        RequestError::Declined { code, text } => {
            (TRUNK_OUTCOME_DECLINED, *code, none, TRUNK_OK, text.clone())
        }
        RequestError::TimedOut => (TRUNK_OUTCOME_TIMED_OUT, 0, none, TRUNK_OK, error.to_string()),
        RequestError::Reset { code } => {
            (TRUNK_OUTCOME_RESET, *code, none, TRUNK_OK, error.to_string())
        }
        RequestError::Connection(CloseReason { reason, text, .. }) => {
            (TRUNK_OUTCOME_CONNECTION, 0, reason.0, TRUNK_OK, text.clone())
        }
        RequestError::Api(api) => {
            (TRUNK_OUTCOME_REFUSED, 0, none, Error::from(api.clone()).code, api.to_string())
        }
        RequestError::Cancelled => (TRUNK_OUTCOME_CANCELLED, 0, none, TRUNK_OK, error.to_string()),
        #[allow(unreachable_patterns, reason = "further ones may come")]
        _ => (TRUNK_OUTCOME_OTHER, 0, none, TRUNK_OK, error.to_string()),
    }
}

impl Detail {
    pub(crate) fn opened(
        request: trunk_open_request,
        done: &std::result::Result<Opened, RequestError>,
    ) -> Self {
        let (outcome, code, reason, result, text) = match done {
            Ok(_) => (TRUNK_OUTCOME_OPENED, 0, TRUNK_REASON_NONE, TRUNK_OK, String::new()),
            Err(error) => outcome(error),
        };
        let text = c_text(&text);
        let opened = trunk_opened {
            struct_size: size_of::<trunk_opened>() as u32,
            outcome,
            request,
            joined: done.as_ref().is_ok_and(|opened| opened.joined).into(),
            code,
            reason,
            result,
            text: text.as_ptr(),
        };
        Self::Opened(opened, text)
    }
}

/// # Safety
/// As [`trunk_connect_config::required`].
pub(crate) unsafe fn peer_and_group(
    live: &Live,
    connect: *const trunk_connect_config,
) -> Result<(ConnectConfig, PollGroup)> {
    // SAFETY: handed on.
    let (settings, config) = unsafe { trunk_connect_config::required(connect) }?;
    Ok((settings, group_at(live, config.group)?))
}

/// Asks a peer for a channel by name, over a connection that is there, one being made, or a new
/// one, as connect.reuse says, and stores the request's handle. Exactly one TRUNK_ITEM_OPENED
/// answers it, in the group of connect. A request whose connection dies is asked for again once,
/// over another one. connect.user is not used. options may be NULL.
///
/// Any thread. Reads the files that connect names, does not block otherwise. Errors: as
/// trunk_connect and trunk_channel_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_channel_request(
    engine: *mut trunk_engine,
    connect: *const trunk_connect_config,
    name: *const c_char,
    options: *const trunk_channel_options,
    request: *mut trunk_open_request,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(request, "request")?;
        // SAFETY: configs and strings by contract.
        let ((settings, group), name, options) = unsafe {
            let peer = peer_and_group(live, connect)?;
            (peer, abi::text(name, "name")?, optional_options(options)?)
        };
        let made =
            live.logged(|| live.queued.request_channel(&settings, name, &options, Some(&group)))?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(request, "request", live.names.masks.request(made)) }
    })
}

/// Gives a request up: TRUNK_OUTCOME_CANCELLED answers it. One that is answered stays so, and this
/// gives TRUNK_OK: its TRUNK_ITEM_OPENED may not have been received yet.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_NO_CONNECTION (its shard has ended), TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_open_request_cancel(
    engine: *mut trunk_engine,
    request: trunk_open_request,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        Ok(live.queued.cancel_request(live.names.masks.request_of(request)?)?)
    })
}

/// Closes a connection gracefully when it is idle on both sides: no channel is open and nothing has
/// moved for hold_ns. Negative: it stays until it is closed. Connections that a channel request or
/// an association made do so after trunk_engine_config.idle_hold_ns.
///
/// Any thread, never blocks. Errors: as trunk_accept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_hold(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    hold_ns: i64,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        Ok(live.queued.hold(live.names.masks.conn_of(conn), abi::limit(hold_ns))?)
    })
}
