//! Pairings over an event source: the calls.

use crate::abi::{self, Struct};
use crate::config::trunk_connection_config;
use crate::conn::trunk_connect_config;
use crate::handle::{trunk_conn, trunk_group, trunk_pairing};
use crate::instance::{Live, live, trunk_engine};
use crate::pairing_notice::{
    TRUNK_PAIRING_PASSIVE, TRUNK_PAIRING_REJECT_NONE, reject, state, trunk_pairing_reject,
    trunk_pairing_state,
};
use crate::receive::group_at;
use crate::result::{Error, Result, guard, trunk_result};
use crate::security::{optional_peer, trunk_identity};
use engine::rendezvous::{AccessToken, ClientId, PairingConfig, PairingRole, RouteConfig, Sent};
use engine::{PairingSettings, PeerId};
use std::ffi::{c_char, c_void};

/// Which part a client plays in a pairing.
pub type trunk_pairing_role = u32;

/// It must be given its partner.
pub const TRUNK_PAIRING_CONTROLLER: trunk_pairing_role = 0;
/// It may be given one; otherwise it adopts the first controller of its application that pings it.
pub const TRUNK_PAIRING_RESPONDER: trunk_pairing_role = 1;

/// How to pair. trunk_pairing_config_init fills in the defaults. Times are nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_pairing_config {
    /// Size of this struct; set by trunk_pairing_config_init.
    pub struct_size: u32,
    /// Our part. TRUNK_PAIRING_CONTROLLER.
    pub role: trunk_pairing_role,
    /// Where the event source is, and what makes it acceptable. Its credential, group, user and
    /// reuse do not count. Required.
    pub source: *const trunk_connect_config,
    /// Whether packets are exchanged with the partner by way of the event source. 0.
    pub relay: u32,
    /// Whether routes within this machine are looked for, too. 0.
    pub allow_loopback: u32,
    /// Who we are to the partner, for connections with it (trunk_pairing_connect,
    /// trunk_pairing_accept). It needs relay, and takes all relayed packets. NULL = none.
    pub identity: *const trunk_identity,
    /// Settings of these connections. NULL = the engine's.
    pub connection: *const trunk_connection_config,
    /// Group for what happens to the pairing. 0 = the engine's own.
    pub group: trunk_group,
    /// Between two pings while searching. 5 s.
    pub searching_ping_ns: u64,
    /// Between two pings while interacting. 10 s.
    pub interacting_ping_ns: u64,
    /// Without any event from the partner for this long, it counts as silent. 25 s.
    pub partner_limit_ns: u64,
    /// Least time between two events of the application; 0 = as many as wanted. 1 s.
    pub event_interval_ns: u64,
    /// Bytes of bodies that wait at once. 64 KiB.
    pub queue_bytes: u64,
    /// Events that wait at once. 64.
    pub queue_events: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Pause before the second attempt to connect; doubles with each that fails. 250 ms.
    pub backoff_ns: u64,
    /// Longest pause between attempts. 30 s.
    pub backoff_max_ns: u64,
    /// Random part of the pause after a connection that stood was lost. 2 s.
    pub backoff_spread_ns: u64,
    /// After this without a direct path the relay is to do. 3 s.
    pub relay_after_ns: u64,
    /// While the relay does, routes are looked for anew this often. 30 s.
    pub search_every_ns: u64,
    /// An event source is asked for our address this often. 15 s.
    pub ask_every_ns: u64,
    /// A direct path whose checks are not answered for this long is lost. 6 s.
    pub lost_after_ns: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_pairing_config {
    const NAME: &'static str = "trunk_pairing_config";

    fn defaults() -> Self {
        let (pairing, route) = (PairingConfig::default(), RouteConfig::default());
        Self {
            struct_size: 0,
            role: TRUNK_PAIRING_CONTROLLER,
            source: std::ptr::null(),
            relay: 0,
            allow_loopback: 0,
            identity: std::ptr::null(),
            connection: std::ptr::null(),
            group: 0,
            searching_ping_ns: pairing.searching_ping.as_nanos(),
            interacting_ping_ns: pairing.interacting_ping.as_nanos(),
            partner_limit_ns: pairing.partner_limit.as_nanos(),
            event_interval_ns: pairing.event_interval.as_nanos(),
            queue_bytes: pairing.queue_bytes as u64,
            queue_events: pairing.queue_events as u32,
            reserved: 0,
            backoff_ns: pairing.backoff.as_nanos(),
            backoff_max_ns: pairing.backoff_max.as_nanos(),
            backoff_spread_ns: pairing.backoff_spread.as_nanos(),
            relay_after_ns: route.relay_after.as_nanos(),
            search_every_ns: route.search_every.as_nanos(),
            ask_every_ns: route.ask_every.as_nanos(),
            lost_after_ns: route.lost_after.as_nanos(),
        }
    }
}

impl trunk_pairing_config {
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    unsafe fn convert(&self) -> Result<PairingSettings> {
        let role = match self.role {
            TRUNK_PAIRING_CONTROLLER => PairingRole::Controller,
            TRUNK_PAIRING_RESPONDER => PairingRole::Responder,
            _ => return Err(Error::invalid("role", "must lie in 0..=1")),
        };
        let ns = engine::Duration::from_nanos;
        // SAFETY: by contract.
        unsafe {
            let (source, _) = trunk_connect_config::required(self.source)?;
            Ok(PairingSettings {
                pairing: PairingConfig {
                    searching_ping: ns(self.searching_ping_ns),
                    interacting_ping: ns(self.interacting_ping_ns),
                    partner_limit: ns(self.partner_limit_ns),
                    event_interval: ns(self.event_interval_ns),
                    queue_events: self.queue_events as usize,
                    queue_bytes: usize::try_from(self.queue_bytes).map_err(|_| {
                        Error::invalid("queue_bytes", "is larger than the address space")
                    })?,
                    backoff: ns(self.backoff_ns),
                    backoff_max: ns(self.backoff_max_ns),
                    backoff_spread: ns(self.backoff_spread_ns),
                    ..PairingConfig::default()
                },
                relay: self.relay != 0,
                identity: trunk_identity::optional(self.identity)?,
                connection: trunk_connection_config::optional(self.connection)?,
                route: RouteConfig {
                    relay_after: ns(self.relay_after_ns),
                    search_every: ns(self.search_every_ns),
                    ask_every: ns(self.ask_every_ns),
                    lost_after: ns(self.lost_after_ns),
                    allow_loopback: self.allow_loopback != 0,
                },
                ..PairingSettings::new(source, role)
            })
        }
    }
}

/// A pairing at one moment. New fields come at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_pairing_status {
    /// Size of this struct; set by trunk_pairing_status_init.
    pub struct_size: u32,
    /// The state.
    pub state: trunk_pairing_state,
    /// Why the partner rejected us, if it did.
    pub reject: trunk_pairing_reject,
    /// Events that wait for the partner, or for their turn.
    pub waiting_events: u32,
    /// The connection with the partner, or 0.
    pub peer: trunk_conn,
    /// Whether that goes over a direct path now.
    pub direct: u32,
    /// 0.
    pub reserved: u32,
    /// The partner's client id, at most 64 bytes; empty without one.
    pub partner: [c_char; 72],
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_pairing_status {
    const NAME: &'static str = "trunk_pairing_status";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            state: TRUNK_PAIRING_PASSIVE,
            reject: TRUNK_PAIRING_REJECT_NONE,
            waiting_events: 0,
            peer: 0,
            direct: 0,
            reserved: 0,
            partner: [0; 72],
        }
    }
}

/// The engine, and the pairing that a call is about, on a thread that may wait for its shard.
///
/// # Safety
/// As [`live`].
unsafe fn named<'a>(engine: *mut trunk_engine, pairing: trunk_pairing) -> Result<(&'a Live, u64)> {
    // SAFETY: handed on.
    let live = unsafe { live(engine) }?;
    live.drive()?;
    Ok((live, live.names.masks.pairing_of(pairing)?))
}

/// A client id of the caller; `None` for NULL.
///
/// # Safety
/// As [`abi::optional_text`].
unsafe fn client(text: *const c_char, what: &'static str) -> Result<Option<ClientId>> {
    // SAFETY: handed on.
    let text = unsafe { abi::optional_text(text, what) }?;
    text.map(|text| {
        ClientId::new(text).map_err(|error| {
            Error::text(crate::result::TRUNK_ERR_INVALID_ARGUMENT, format!("{what}: {error}"))
        })
    })
    .transpose()
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_pairing_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_config_init_sized(
    config: *mut trunk_pairing_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// Fills struct_size bytes at status with zeros and its size. Call it as
/// trunk_pairing_status_init(&status).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_status_init_sized(
    status: *mut trunk_pairing_status,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(status, struct_size) })
}

/// Begins a pairing, which is passive until trunk_pairing_set_active, and stores its handle, which
/// is valid until trunk_pairing_close. TRUNK_ITEM_PAIRING tells what happens to it.
///
/// Any thread; without threads the one that polls. Waits for its shard, usually for microseconds;
/// reads the files that config names. Errors: as trunk_connect and trunk_pairing_set_active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_new(
    engine: *mut trunk_engine,
    config: *const trunk_pairing_config,
    pairing: *mut trunk_pairing,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(pairing, "pairing")?;
        if config.is_null() {
            return Err(Error::null("config"));
        }
        live.drive()?;
        // SAFETY: a config by contract.
        let config = unsafe { abi::read(config) }?;
        // SAFETY: the pointers are NULL or point to what their fields say.
        let settings = unsafe { config.convert() }?;
        let group = group_at(live, config.group)?;
        let made = live.logged(|| live.queued.pair(&settings, Some(&group)))?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(pairing, "pairing", live.names.masks.pairing(made)) }
    })
}

/// Whether the client is to be connected, and to reach its partner. Going passive tells the
/// partner.
///
/// Any thread; without threads the one that polls. Waits for its shard, usually for microseconds.
/// Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_NO_CONNECTION (the shard does not
/// answer), TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_set_active(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    active: u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, number) = unsafe { named(engine, pairing) }?;
        Ok(live.logged(|| live.queued.set_pairing_active(number, active != 0))?)
    })
}

/// Says who we are to the event source: 1 to 64 letters and digits of ASCII and characters of
/// "-._~:@+"; a client_id of NULL is nobody.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_assign_client_id(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    client_id: *const c_char,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract, and a string.
        let ((live, number), client) =
            unsafe { (named(engine, pairing)?, client(client_id, "client_id")?) };
        Ok(live.logged(|| live.queued.assign_client_id(number, client))?)
    })
}

/// Gives what lets us into the event source: an access token as trunk_token_mint makes it; a token
/// of NULL is none.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_assign_token(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    token: *const c_char,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract, and a string.
        let ((live, number), text) =
            unsafe { (named(engine, pairing)?, abi::optional_text(token, "token")?) };
        let token = text.map(|text| {
            AccessToken::new(text).map_err(|error| {
                let code = crate::result::TRUNK_ERR_INVALID_ARGUMENT;
                Error::text(code, format!("token: {error}"))
            })
        });
        let token = token.transpose()?;
        Ok(live.logged(|| live.queued.assign_access_token(number, token))?)
    })
}

/// Says with whom we pair: a client id as that of trunk_pairing_assign_client_id; a partner of NULL
/// is nobody.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_assign_partner(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    partner: *const c_char,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract, and a string.
        let ((live, number), partner) =
            unsafe { (named(engine, pairing)?, client(partner, "partner")?) };
        Ok(live.logged(|| live.queued.assign_partner(number, partner))?)
    })
}

/// Sends an event of the application to the partner: size bytes at data, at most 8192, and subtype,
/// a number of the application up to 65535. One that is buffered may wait for the partner, and
/// queued, which may be NULL, gets whether it does.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_TOO_LARGE, TRUNK_ERR_LIMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_send(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    subtype: u32,
    data: *const c_void,
    size: usize,
    buffered: u32,
    queued: *mut u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract, and bytes.
        let ((live, number), body) =
            unsafe { (named(engine, pairing)?, abi::bytes(data, size, "data")?) };
        let subtype = u16::try_from(subtype)
            .map_err(|_| Error::invalid("subtype", "must be at most 65535"))?;
        let sent = live.logged(|| live.queued.send_event(number, subtype, body, buffered != 0))?;
        if queued.is_null() {
            return Ok(());
        }
        // SAFETY: writable by contract.
        unsafe { abi::put(queued, "queued", u32::from(sent == Sent::Queued)) }
    })
}

/// Sends a packet to the partner by way of the event source: for pairings with relay and without an
/// identity. Nobody says whether it arrives.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT for a pairing with an identity, TRUNK_ERR_NO_CONNECTION without a
/// partner or relay, TRUNK_ERR_TOO_LARGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_send_relayed(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    data: *const c_void,
    size: usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract, and bytes.
        let ((live, number), packet) =
            unsafe { (named(engine, pairing)?, abi::bytes(data, size, "data")?) };
        Ok(live.logged(|| live.queued.send_relayed(number, packet))?)
    })
}

/// Stores what a pairing is now.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_get_status(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    status: *mut trunk_pairing_status,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, number) = unsafe { named(engine, pairing) }?;
        abi::expect(status, trunk_pairing_status::NAME)?;
        let found = live.logged(|| live.queued.pairing_status(number))?;
        let answer = trunk_pairing_status {
            struct_size: 0,
            state: state(found.state),
            reject: found.rejected.map_or(TRUNK_PAIRING_REJECT_NONE, reject),
            waiting_events: found.waiting_events as u32,
            peer: found.peer.map_or(0, |conn| live.names.masks.conn(conn)),
            direct: found.direct.into(),
            reserved: 0,
            partner: abi::fixed_text(found.partner.as_ref().map_or("", ClientId::as_str)),
        };
        // SAFETY: a struct by contract.
        unsafe { abi::write(status, &answer) }
    })
}

/// # Safety
/// A fingerprint.
unsafe fn peer(fingerprint: *const u8) -> Result<PeerId> {
    // SAFETY: handed on.
    unsafe { optional_peer(fingerprint) }?.ok_or(Error::null("fingerprint"))
}

/// Connects to the partner, which must prove that it has this fingerprint: over the event source at
/// first, and over a direct path as soon as one is found. TRUNK_ITEM_PEER names the connection.
/// Nothing happens while there is one. The partner calls trunk_pairing_accept.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT for a pairing without an identity, TRUNK_ERR_NO_CONNECTION without a
/// partner.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_connect(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    fingerprint: *const u8,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract, and a fingerprint.
        let ((live, number), id) = unsafe { (named(engine, pairing)?, peer(fingerprint)?) };
        Ok(live.logged(|| live.queued.connect_peer(number, id))?)
    })
}

/// Accepts a connection of the partner, which must prove that it has this fingerprint.
///
/// Threads as trunk_pairing_connect. Errors: as trunk_pairing_connect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_accept(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
    fingerprint: *const u8,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract, and a fingerprint.
        let ((live, number), id) = unsafe { (named(engine, pairing)?, peer(fingerprint)?) };
        Ok(live.logged(|| live.queued.accept_peer(number, id))?)
    })
}

/// Ends the connection with the partner at once, and accepts none. (trunk_close with linger
/// delivers first.)
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_leave(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, number) = unsafe { named(engine, pairing) }?;
        Ok(live.logged(|| live.queued.leave_peer(number))?)
    })
}

/// Ends a pairing: the partner is told, and the handle is stale.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_pairing_close(
    engine: *mut trunk_engine,
    pairing: trunk_pairing,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, number) = unsafe { named(engine, pairing) }?;
        Ok(live.logged(|| live.queued.end_pairing(number))?)
    })
}
