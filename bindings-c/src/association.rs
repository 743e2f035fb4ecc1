//! Associations: channels of messages that have what they need, and their items.

use crate::abi::{self, Struct};
use crate::conn::trunk_connect_config;
use crate::detail::{Detail, c_text};
use crate::handle::{trunk_association, trunk_channel, trunk_group};
use crate::instance::{live, trunk_engine};
use crate::manager::{TRUNK_OUTCOME_OPENED, outcome, peer_and_group, trunk_outcome};
use crate::receive::group_at;
use crate::result::{Error, Result, TRUNK_OK, guard, trunk_result};
use crate::sec_info::trunk_sec_info;
use crate::security::optional_peer;
use crate::status::{TRUNK_REASON_NONE, trunk_reason};
use engine::{
    AssociationConfig, AssociationEnd, AssociationState, CloseReason, DeliveryError, SecHandle,
    SecInfo, SendSecurity,
};
use std::ffi::{c_char, c_void};

/// What an association is to its user.
pub type trunk_association_state = u32;

/// It waits for a peer or tries to reach one; messages queue.
pub const TRUNK_ASSOCIATION_AWAITING_CONNECTION: trunk_association_state = 0;
/// Messages go out at once, received ones straight up.
pub const TRUNK_ASSOCIATION_CONNECTED: trunk_association_state = 1;
/// Nothing has moved for the hold time; the peer knows. Traffic wakes it.
pub const TRUNK_ASSOCIATION_IDLE: trunk_association_state = 2;
/// The application closed it; what it was given before is being delivered.
pub const TRUNK_ASSOCIATION_CLOSING: trunk_association_state = 3;
/// Over: its handle is stale, and it can never be used again.
pub const TRUNK_ASSOCIATION_DESTROYED: trunk_association_state = 4;

const _: () = {
    assert!(TRUNK_ASSOCIATION_AWAITING_CONNECTION == AssociationState::AwaitingConnection as u32);
    assert!(TRUNK_ASSOCIATION_CONNECTED == AssociationState::Connected as u32);
    assert!(TRUNK_ASSOCIATION_IDLE == AssociationState::Idle as u32);
    assert!(TRUNK_ASSOCIATION_CLOSING == AssociationState::Closing as u32);
    assert!(TRUNK_ASSOCIATION_DESTROYED == AssociationState::Destroyed as u32);
};

/// How an association ended.
pub type trunk_association_end = u32;

/// The association has not ended.
pub const TRUNK_ASSOCIATION_END_NONE: trunk_association_end = 0;
/// No connection came within the time given.
pub const TRUNK_ASSOCIATION_END_NO_CONNECTION: trunk_association_end = 1;
/// The connection, or the channel of the association, could not be made: outcome and what it says.
pub const TRUNK_ASSOCIATION_END_FAILED: trunk_association_end = 2;
/// Its connection broke: reason, text.
pub const TRUNK_ASSOCIATION_END_BROKEN: trunk_association_end = 3;
/// The peer ended the association's channel.
pub const TRUNK_ASSOCIATION_END_CLOSED_BY_PEER: trunk_association_end = 4;
/// Both sides were idle for their hold times.
pub const TRUNK_ASSOCIATION_END_IDLE: trunk_association_end = 5;
/// The application closed it.
pub const TRUNK_ASSOCIATION_END_CLOSED: trunk_association_end = 6;
/// In a way that this version has no name for.
pub const TRUNK_ASSOCIATION_END_OTHER: trunk_association_end = 7;

/// Of TRUNK_ITEM_ASSOCIATION. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_association_change {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// The state before.
    pub old_state: trunk_association_state,
    /// The state now.
    pub new_state: trunk_association_state,
    /// TRUNK_ASSOCIATION_DESTROYED: how it ended.
    pub end: trunk_association_end,
    /// The association.
    pub association: trunk_association,
    /// TRUNK_ASSOCIATION_END_FAILED: why.
    pub outcome: trunk_outcome,
    /// As in trunk_opened.
    pub code: u32,
    /// As in trunk_opened; TRUNK_ASSOCIATION_END_BROKEN: why.
    pub reason: trunk_reason,
    /// As in trunk_opened.
    pub result: trunk_result,
    /// Words for people; never NULL.
    pub text: *const c_char,
    /// Security of its connection, once there is one; otherwise NULL.
    pub sec_info: *const trunk_sec_info,
}

/// Why a message was not delivered, as far as is known: after TRUNK_DELIVERY_ENDED the peer may
/// have it, and the acknowledgement was lost.
pub type trunk_delivery_error = u32;

/// It was delivered.
pub const TRUNK_DELIVERY_OK: trunk_delivery_error = 0;
/// It waited longer than the association lets a message wait.
pub const TRUNK_DELIVERY_EXPIRED: trunk_delivery_error = 1;
/// The connection is not of the security that was asked for. Nothing was sent.
pub const TRUNK_DELIVERY_SECURITY: trunk_delivery_error = 2;
/// It cannot be sent at all: result.
pub const TRUNK_DELIVERY_REFUSED: trunk_delivery_error = 3;
/// The association ended first.
pub const TRUNK_DELIVERY_ENDED: trunk_delivery_error = 4;
/// For a reason that this version has no name for.
pub const TRUNK_DELIVERY_OTHER: trunk_delivery_error = 5;

/// Of TRUNK_ITEM_DELIVERED and TRUNK_ITEM_UNDELIVERED. New fields come at the end.
#[repr(C)]
#[derive(Debug)]
pub struct trunk_delivery {
    /// Size of this struct as the library knows it.
    pub struct_size: u32,
    /// Why not.
    pub error: trunk_delivery_error,
    /// The association.
    pub association: trunk_association,
    /// TRUNK_DELIVERY_REFUSED: why.
    pub result: trunk_result,
    /// 0.
    pub reserved: u32,
    /// Words for people; never NULL.
    pub text: *const c_char,
}

impl Detail {
    pub(crate) fn association(
        association: trunk_association,
        (old, new): (AssociationState, AssociationState),
        end: Option<&AssociationEnd>,
        info: Option<&SecInfo>,
    ) -> Self {
        let mut failed = (TRUNK_OUTCOME_OPENED, 0, TRUNK_REASON_NONE, TRUNK_OK, String::new());
        let end = match end {
            None => TRUNK_ASSOCIATION_END_NONE,
            Some(AssociationEnd::NoConnection) => TRUNK_ASSOCIATION_END_NO_CONNECTION,
            Some(AssociationEnd::Failed(error)) => {
                failed = outcome(error);
                TRUNK_ASSOCIATION_END_FAILED
            }
            Some(AssociationEnd::Broken(CloseReason { reason, text, .. })) => {
                (failed.2, failed.4) = (reason.0, text.clone());
                TRUNK_ASSOCIATION_END_BROKEN
            }
            Some(AssociationEnd::ClosedByPeer) => TRUNK_ASSOCIATION_END_CLOSED_BY_PEER,
            Some(AssociationEnd::Idle) => TRUNK_ASSOCIATION_END_IDLE,
            Some(AssociationEnd::Closed) => TRUNK_ASSOCIATION_END_CLOSED,
            Some(_) => TRUNK_ASSOCIATION_END_OTHER,
        };
        let (outcome, code, reason, result, text) = failed;
        let text = c_text(&text);
        let info = info.map(|info| Box::new(trunk_sec_info::from(info)));
        let change = trunk_association_change {
            struct_size: size_of::<trunk_association_change>() as u32,
            old_state: old as trunk_association_state,
            new_state: new as trunk_association_state,
            end,
            association,
            outcome,
            code,
            reason,
            result,
            text: text.as_ptr(),
            sec_info: info.as_deref().map_or(std::ptr::null(), std::ptr::from_ref),
        };
        Self::Association(change, (text, info))
    }

    pub(crate) fn delivery(
        association: trunk_association,
        failure: Option<&DeliveryError>,
    ) -> Self {
        let (error, result) = match failure {
            None => (TRUNK_DELIVERY_OK, TRUNK_OK),
            Some(DeliveryError::Expired) => (TRUNK_DELIVERY_EXPIRED, TRUNK_OK),
            Some(DeliveryError::Security) => (TRUNK_DELIVERY_SECURITY, TRUNK_OK),
            Some(DeliveryError::Api(api)) => {
                (TRUNK_DELIVERY_REFUSED, Error::from(api.clone()).code)
            }
            Some(DeliveryError::Ended(_)) => (TRUNK_DELIVERY_ENDED, TRUNK_OK),
            Some(_) => (TRUNK_DELIVERY_OTHER, TRUNK_OK),
        };
        let text = c_text(&failure.map(ToString::to_string).unwrap_or_default());
        let delivery = trunk_delivery {
            struct_size: size_of::<trunk_delivery>() as u32,
            error,
            association,
            result,
            reserved: 0,
            text: text.as_ptr(),
        };
        Self::Delivery(delivery, text)
    }
}

/// How an association is made. trunk_association_config_init fills in the defaults. Times are
/// nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_association_config {
    /// Size of this struct; set by trunk_association_config_init.
    pub struct_size: u32,
    /// Messages that wait at once. 1024.
    pub queue_messages: u32,
    /// Name of its channel, UTF-8; the two sides use the same. Required.
    pub name: *const c_char,
    /// Bytes of messages that wait at once. 1 MiB.
    pub queue_bytes: u64,
    /// How long a message may wait. 10 s.
    pub queue_age_ns: u64,
    /// Nothing moving for so long makes it idle. 180 s.
    pub hold_ns: u64,
    /// Waiting for a peer: it must come within this time. 10 s.
    pub no_connection_ns: u64,
    /// Strict priority class of its channel, 0 first, at most 7. 4.
    pub priority: u32,
    /// Share within the class, 1 to 255. 16.
    pub weight: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_association_config {
    const NAME: &'static str = "trunk_association_config";

    fn defaults() -> Self {
        let config = AssociationConfig::new("");
        Self {
            struct_size: 0,
            queue_messages: config.queue_messages as u32,
            name: std::ptr::null(),
            queue_bytes: config.queue_bytes as u64,
            queue_age_ns: config.queue_age.as_nanos(),
            hold_ns: config.hold.as_nanos(),
            no_connection_ns: config.no_connection.as_nanos(),
            priority: config.priority.into(),
            weight: config.weight.into(),
        }
    }
}

impl trunk_association_config {
    /// # Safety
    /// As [`abi::read`], and `name` is NULL or a string.
    unsafe fn required(from: *const Self) -> Result<AssociationConfig> {
        if from.is_null() {
            return Err(Error::null("config"));
        }
        // SAFETY: handed on.
        let (config, name) = unsafe {
            let config = abi::read(from)?;
            (config, abi::text(config.name, "name")?)
        };
        let small =
            |n: u32, field| u8::try_from(n).map_err(|_| Error::invalid(field, "is out of range"));
        let ns = engine::Duration::from_nanos;
        Ok(AssociationConfig {
            hold: ns(config.hold_ns),
            no_connection: ns(config.no_connection_ns),
            queue_bytes: usize::try_from(config.queue_bytes)
                .map_err(|_| Error::invalid("queue_bytes", "is larger than the address space"))?,
            queue_messages: config.queue_messages as usize,
            queue_age: ns(config.queue_age_ns),
            priority: small(config.priority, "priority")?,
            weight: small(config.weight, "weight")?,
            ..AssociationConfig::new(name)
        })
    }
}

/// How a message asks for security. trunk_send_security_init prepares it; set one of the two.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_send_security {
    /// Size of this struct; set by trunk_send_security_init.
    pub struct_size: u32,
    /// Whether sec_handle counts. 0.
    pub has_sec_handle: u32,
    /// Given to the security callback.
    pub sec_handle: u64,
    /// Only over a connection that matches. NULL.
    pub sec_info: *const trunk_sec_info,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_send_security {
    const NAME: &'static str = "trunk_send_security";

    fn defaults() -> Self {
        Self { struct_size: 0, has_sec_handle: 0, sec_handle: 0, sec_info: std::ptr::null() }
    }
}

/// # Safety
/// As [`abi::read`], and what it points to is there.
unsafe fn security(from: *const trunk_send_security) -> Result<SendSecurity> {
    // SAFETY: handed on.
    let wanted = unsafe { abi::read(from) }?;
    match (wanted.has_sec_handle != 0, wanted.sec_info.is_null()) {
        (false, true) => Ok(SendSecurity::Local),
        (true, true) => Ok(SendSecurity::Handle(SecHandle(wanted.sec_handle))),
        (false, false) => {
            // SAFETY: by contract.
            let info = unsafe { trunk_sec_info::value(wanted.sec_info, "sec_info") }?;
            Ok(SendSecurity::Info(Box::new(info)))
        }
        (true, false) => {
            Err(Error::invalid("sec_info", "and sec_handle are both given: give one of them"))
        }
    }
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_association_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_association_config_init_sized(
    config: *mut trunk_association_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// Fills struct_size bytes at security with the defaults. Call it as
/// trunk_send_security_init(&security).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send_security_init_sized(
    security: *mut trunk_send_security,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(security, struct_size) })
}

/// Stores the association of a name with a peer: the one that there is with the same settings, or a
/// new one, which gets the connection that it needs. TRUNK_ITEM_ASSOCIATION tells what happens to
/// it, in the group of connect; from TRUNK_ASSOCIATION_CONNECTED on it names the channel whose
/// TRUNK_ITEM_DATA are its messages.
///
/// Any thread. Reads the files that connect names, does not block otherwise. Errors: as
/// trunk_channel_request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_associate(
    engine: *mut trunk_engine,
    connect: *const trunk_connect_config,
    config: *const trunk_association_config,
    association: *mut trunk_association,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(association, "association")?;
        // SAFETY: configs by contract.
        let ((settings, group), config) = unsafe {
            (peer_and_group(live, connect)?, trunk_association_config::required(config)?)
        };
        let made = live.logged(|| live.queued.associate(&settings, config, Some(&group)))?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(association, "association", live.names.masks.association(made)) }
    })
}

/// An association that waits for the peer with this fingerprint (NULL = for anybody) to ask for its
/// channel: the first that does so becomes its peer, without a TRUNK_ITEM_REQUEST. The connection
/// itself is accepted as ever. What happens to it goes to group (0 = the engine's own).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION (the shards have ended),
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_association_listen(
    engine: *mut trunk_engine,
    peer: *const u8,
    config: *const trunk_association_config,
    group: trunk_group,
    association: *mut trunk_association,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(association, "association")?;
        // SAFETY: a config, and NULL or a fingerprint, by contract.
        let (config, peer) =
            unsafe { (trunk_association_config::required(config)?, optional_peer(peer)?) };
        let group = group_at(live, group)?;
        let made = live.queued.listen_association(peer, config, Some(&group))?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(association, "association", live.names.masks.association(made)) }
    })
}

/// Makes an association of a channel that a peer asks for (TRUNK_ITEM_REQUEST), instead of
/// trunk_channel_accept. Its name is the channel's.
///
/// Any thread, never blocks. Errors: as trunk_association_listen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_association_accept(
    engine: *mut trunk_engine,
    channel: trunk_channel,
    config: *const trunk_association_config,
    group: trunk_group,
    association: *mut trunk_association,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, channel) = unsafe { crate::channel::named(engine, channel) }?;
        abi::expect(association, "association")?;
        // SAFETY: a config by contract.
        let config = unsafe { trunk_association_config::required(config) }?;
        let group = group_at(live, group)?;
        let made = live.queued.accept_association(channel, config, Some(&group))?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(association, "association", live.names.masks.association(made)) }
    })
}

/// Sends a copy of size bytes at data as one message over an association. What becomes of it is
/// told with token: TRUNK_ITEM_DELIVERED or TRUNK_ITEM_UNDELIVERED, also when the association has
/// ended meanwhile. security may be NULL: as the connect says.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_TOO_LARGE, TRUNK_ERR_NO_CONNECTION (its shard has ended),
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_association_send(
    engine: *mut trunk_engine,
    association: trunk_association,
    data: *const c_void,
    size: usize,
    token: u64,
    security: *const trunk_send_security,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: bytes and a struct by contract.
        let (data, security) =
            unsafe { (abi::bytes(data, size, "data")?, self::security(security)?) };
        let number = live.names.masks.association_of(association)?;
        live.logged(|| live.queued.send_message(number, data.to_vec(), token, security))?;
        Ok(())
    })
}

/// trunk_associate and trunk_association_send in one: stores the association, unless it is NULL;
/// security may be NULL, too.
///
/// Any thread. Reads the files that connect names, does not block otherwise. Errors: as
/// trunk_associate and trunk_association_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_send_to(
    engine: *mut trunk_engine,
    connect: *const trunk_connect_config,
    config: *const trunk_association_config,
    data: *const c_void,
    size: usize,
    token: u64,
    security: *const trunk_send_security,
    association: *mut trunk_association,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: configs and bytes by contract.
        let ((settings, group), config, data, security) = unsafe {
            (
                peer_and_group(live, connect)?,
                trunk_association_config::required(config)?,
                abi::bytes(data, size, "data")?,
                self::security(security)?,
            )
        };
        let made = live.logged(|| {
            live.queued.send_to(&settings, config, data.to_vec(), token, security, Some(&group))
        })?;
        if association.is_null() {
            return Ok(());
        }
        // SAFETY: writable by contract.
        unsafe { abi::put(association, "association", live.names.masks.association(made)) }
    })
}

/// Closes an association: what it was given before is delivered, and TRUNK_ASSOCIATION_DESTROYED is
/// told in the end. One that has ended stays so, and this gives TRUNK_OK.
///
/// Any thread, never blocks. Errors: as trunk_open_request_cancel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_association_close(
    engine: *mut trunk_engine,
    association: trunk_association,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        Ok(live.queued.close_association(live.names.masks.association_of(association)?)?)
    })
}
