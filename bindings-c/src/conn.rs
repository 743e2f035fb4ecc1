//! Connections: listening, connecting, accepting, closing, and what is known of them.

use crate::abi::{self, Struct};
use crate::config::trunk_connection_config;
use crate::handle::{trunk_conn, trunk_group, trunk_listener};
use crate::instance::{Live, live, lock, trunk_engine};
use crate::log;
use crate::receive::group_at;
use crate::result::{Error, Result, guard, trunk_result};
use crate::security::{trunk_identity, trunk_trust};
use crate::status::{
    TRUNK_REASON_APP, TRUNK_REASON_APP_MAX, TRUNK_STATUS_NONE, trunk_reason, trunk_status,
};
use engine::{
    Conn, ConnectConfig, ConnectLink, Links, ListenConfig, Reason, Reuse, SecHandle, Status,
};
use std::ffi::{c_char, c_void};
use std::time::Duration;

/// For trunk_close and trunk_shutdown: linger as long as the configured linger_timeout_ns.
pub const TRUNK_LINGER_DEFAULT: i64 = -1;
/// For trunk_close and trunk_shutdown: do not linger, drop what is not delivered.
pub const TRUNK_LINGER_NONE: i64 = 0;

/// Whether a connect may share a connection that exists.
pub type trunk_reuse = u32;

/// Share a live connection, or one being made, that agrees in everything: trust, addresses, server
/// name, identity and credential. Otherwise make one.
pub const TRUNK_REUSE: trunk_reuse = 0;
/// Always make a new one.
pub const TRUNK_REUSE_FORCE_NEW: trunk_reuse = 1;
/// Share one, or fail with TRUNK_ERR_NO_CONNECTION.
pub const TRUNK_REUSE_NEVER_NEW: trunk_reuse = 2;

/// For trunk_listen_config.links: packets in UDP datagrams.
pub const TRUNK_LISTEN_DATAGRAM: u32 = 1;
/// For trunk_listen_config.links: TLS over TCP, the native protocol.
pub const TRUNK_LISTEN_STREAM: u32 = 2;
/// For trunk_listen_config.links: TLS over TCP, the plain protocol too (frame headers,
/// ChannelRequest and EOF), for peers that know nothing else. Such a client shows no credential.
pub const TRUNK_LISTEN_PLAIN: u32 = 4;

/// What a connect goes over.
pub type trunk_connect_link = u32;

/// Packets in UDP datagrams.
pub const TRUNK_CONNECT_DATAGRAM: trunk_connect_link = 0;
/// TLS over TCP, the native protocol.
pub const TRUNK_CONNECT_STREAM: trunk_connect_link = 1;
/// TLS over TCP, the plain protocol.
pub const TRUNK_CONNECT_PLAIN: trunk_connect_link = 2;
/// UDP and TLS over TCP side by side: the first that proves the host is kept.
pub const TRUNK_CONNECT_AUTO: trunk_connect_link = 3;

/// How to listen. trunk_listen_config_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_listen_config {
    /// Size of this struct; set by trunk_listen_config_init.
    pub struct_size: u32,
    /// What connections are taken over: a sum of TRUNK_LISTEN_... On one port, UDP and TCP.
    /// TRUNK_LISTEN_DATAGRAM.
    pub links: u32,
    /// Address and port, such as "127.0.0.1:7470", "0.0.0.0:7470" (all of IPv4) or "[::]:7470" (all
    /// of IPv6). For both, listen twice. Port 0 lets the system choose. Required.
    pub address: *const c_char,
    /// Who we are. Required.
    pub identity: *const trunk_identity,
    /// What clients must show. NULL = they are not asked.
    pub client_trust: *const trunk_trust,
    /// Settings of its connections. NULL = the engine's.
    pub connection: *const trunk_connection_config,
    /// Whether STUN Binding requests are answered at its UDP port: clients learn the address under
    /// which they are seen there. 0.
    pub stun: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_listen_config {
    const NAME: &'static str = "trunk_listen_config";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            links: TRUNK_LISTEN_DATAGRAM,
            address: std::ptr::null(),
            identity: std::ptr::null(),
            client_trust: std::ptr::null(),
            connection: std::ptr::null(),
            stun: 0,
            reserved: 0,
        }
    }
}

/// How to connect. trunk_connect_config_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_connect_config {
    /// Size of this struct; set by trunk_connect_config_init.
    pub struct_size: u32,
    /// Whether an existing connection will do. TRUNK_REUSE.
    pub reuse: trunk_reuse,
    /// Addresses of the one peer with their ports, such as "192.0.2.7:7470"; at most 16. The same
    /// request goes to all, the first valid answer decides. Names are not resolved. Required.
    pub addresses: *const *const c_char,
    /// Number of addresses.
    pub address_count: usize,
    /// Name of the host: checked with TRUNK_TRUST_CA, told to the host always. NULL = "trunkline".
    pub server_name: *const c_char,
    /// What makes the host acceptable. Required.
    pub trust: *const trunk_trust,
    /// Who we are. NULL = the engine's identity.
    pub identity: *const trunk_identity,
    /// Shown to the host's application after the handshake, sealed; at most 8 KiB. NULL = none.
    pub credential: *const c_void,
    /// Bytes of it.
    pub credential_size: usize,
    /// Settings of the connection. NULL = the engine's.
    pub connection: *const trunk_connection_config,
    /// Poll group for what happens to it. 0 = the engine's own.
    pub group: trunk_group,
    /// User data of the connection; not changed when an existing one is shared. NULL.
    pub user: *mut c_void,
    /// What to connect over. TRUNK_CONNECT_DATAGRAM.
    pub link: trunk_connect_link,
    /// Whether sec_handle counts. 0.
    pub has_sec_handle: u32,
    /// A value of the application, handed to trunk_engine_config.security while the connection is
    /// being made.
    pub sec_handle: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_connect_config {
    const NAME: &'static str = "trunk_connect_config";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            reuse: TRUNK_REUSE,
            addresses: std::ptr::null(),
            address_count: 0,
            server_name: std::ptr::null(),
            trust: std::ptr::null(),
            identity: std::ptr::null(),
            credential: std::ptr::null(),
            credential_size: 0,
            connection: std::ptr::null(),
            group: 0,
            user: std::ptr::null_mut(),
            link: TRUNK_CONNECT_DATAGRAM,
            has_sec_handle: 0,
            sec_handle: 0,
        }
    }
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_listen_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_listen_config_init_sized(
    config: *mut trunk_listen_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_connect_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_connect_config_init_sized(
    config: *mut trunk_connect_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// A linger of the interface; `None` = no linger.
pub(crate) fn linger(live: &Live, ns: i64) -> Result<Option<Duration>> {
    match ns {
        TRUNK_LINGER_NONE => Ok(None),
        TRUNK_LINGER_DEFAULT => Ok(Some(live.linger)),
        ns => abi::limit(ns).map(Some).ok_or(Error::invalid("linger_ns", "is negative")),
    }
}

/// A code of the application; 0 stands for `default`.
pub(crate) fn code(code: trunk_reason, default: trunk_reason) -> Result<u32> {
    match code {
        0 => Ok(default),
        TRUNK_REASON_APP..=TRUNK_REASON_APP_MAX => Ok(code),
        _ => Err(Error::invalid("reason", "must be 0 or lie in 1000..=2999")),
    }
}

/// Accepts connections at an address and stores the listener, which is valid until
/// trunk_listener_close. Each connection shows up as TRUNK_ITEM_INCOMING in the engine's own poll
/// group and waits for trunk_accept or trunk_reject. Everything that config points to is copied.
///
/// Any thread. Waits for the shards to take their sockets, for microseconds; reads the files that
/// config names. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_SYSTEM (the address is taken or not ours), TRUNK_ERR_FILE, TRUNK_ERR_SECURITY,
/// TRUNK_ERR_STOPPED, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_listen(
    engine: *mut trunk_engine,
    config: *const trunk_listen_config,
    listener: *mut trunk_listener,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        log::outside_of_log()?;
        abi::expect(listener, "listener")?;
        // SAFETY: a config by contract.
        let settings = unsafe { trunk_listen_config::required(config) }?;
        let made = live.logged(|| live.queued.listen(&settings))?;
        let handle = live.names.masks.listener(made.id);
        lock(&live.listeners).push((handle, made.local_addr));
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(listener, "listener", handle) }
    })
}

/// Stores the address of a listener, with the port that the system chose, as a text with a final
/// NUL in the capacity bytes at address. 64 bytes are always enough. size, which may be NULL, gets
/// the bytes needed.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_listener_address(
    engine: *mut trunk_engine,
    listener: trunk_listener,
    address: *mut c_char,
    capacity: usize,
    size: *mut usize,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        let known = lock(&live.listeners).iter().find(|l| l.0 == listener).map(|l| l.1);
        let found = known.ok_or(Error::handle("invalid or already closed listener"))?;
        // SAFETY: the caller's buffer.
        unsafe { abi::put_text(&found.to_string(), address, capacity, size) }
    })
}

/// Accepts no more connections there; the handle is stale afterwards. Connections that exist live
/// on, unless close_connections is not 0.
///
/// Any thread. Waits for the shards to give their sockets back, for microseconds. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_listener_close(
    engine: *mut trunk_engine,
    listener: trunk_listener,
    close_connections: u32,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        log::outside_of_log()?;
        let id = live.names.masks.listener_of(listener)?;
        let mut listeners = lock(&live.listeners);
        let at = listeners
            .iter()
            .position(|l| l.0 == listener)
            .ok_or(Error::handle("invalid or already closed listener"))?;
        listeners.swap_remove(at);
        drop(listeners);
        live.logged(|| live.queued.unlisten(id, close_connections != 0));
        Ok(())
    })
}

/// Starts a connection, or finds one to share, and stores its handle, which is valid until
/// trunk_close. Channels can be opened and reliable data sent on them at once; TRUNK_ITEM_STATUS
/// tells how it went. Whoever shares a connection shares its handle: one close closes it for all.
/// Everything that config points to is copied.
///
/// Any thread. Reads the files that config names, does not block otherwise. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION,
/// TRUNK_ERR_LIMIT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FILE, TRUNK_ERR_SECURITY, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_connect(
    engine: *mut trunk_engine,
    config: *const trunk_connect_config,
    conn: *mut trunk_conn,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        abi::expect(conn, "conn")?;
        // SAFETY: a config by contract.
        let (settings, config) = unsafe { trunk_connect_config::required(config) }?;
        let group = group_at(live, config.group)?;
        // Before anything is told about the connection.
        let mut begun = None;
        let prepare = |new| {
            if !config.user.is_null() {
                live.names.users.set_conn(&live.queued, new, config.user);
                begun = Some(new);
            }
        };
        let made = live.logged(|| live.queued.connect_with(&settings, Some(&group), prepare));
        let made = made.inspect_err(|_| {
            if let Some(conn) = begun {
                live.names.users.end_conn(conn);
            }
        })?;
        // SAFETY: checked, and writable by contract.
        unsafe { abi::put(conn, "conn", live.names.masks.conn(made)) }
    })
}

impl trunk_listen_config {
    /// # Safety
    /// As [`abi::read`], and the pointers are NULL or point to what their fields say.
    pub(crate) unsafe fn required(from: *const Self) -> Result<ListenConfig> {
        if from.is_null() {
            return Err(Error::null("config"));
        }
        // SAFETY: by contract.
        unsafe {
            let config = abi::read(from)?;
            let all = TRUNK_LISTEN_DATAGRAM | TRUNK_LISTEN_STREAM | TRUNK_LISTEN_PLAIN;
            if config.links & !all != 0 {
                return Err(Error::invalid("links", "must be a sum of TRUNK_LISTEN_ constants"));
            }
            Ok(ListenConfig {
                addr: abi::address(config.address, "address")?,
                identity: trunk_identity::required(config.identity)?,
                client_auth: trunk_trust::of_host(config.client_trust)?,
                links: Links {
                    datagram: config.links & TRUNK_LISTEN_DATAGRAM != 0,
                    stream: config.links & TRUNK_LISTEN_STREAM != 0,
                    plain: config.links & TRUNK_LISTEN_PLAIN != 0,
                },
                stun: config.stun != 0,
                connection: trunk_connection_config::optional(config.connection)?,
            })
        }
    }
}

impl trunk_connect_config {
    /// The settings, and the struct that they were made of.
    ///
    /// # Safety
    /// As [`abi::read`], and the pointers are NULL or point to what their fields say.
    pub(crate) unsafe fn required(from: *const Self) -> Result<(ConnectConfig, Self)> {
        if from.is_null() {
            return Err(Error::null("config"));
        }
        // SAFETY: handed on.
        let config = unsafe { abi::read(from) }?;
        // SAFETY: handed on.
        Ok((unsafe { config.convert() }?, config))
    }

    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    unsafe fn convert(&self) -> Result<ConnectConfig> {
        let reuse = match self.reuse {
            TRUNK_REUSE => Reuse::Allow,
            TRUNK_REUSE_FORCE_NEW => Reuse::ForceNew,
            TRUNK_REUSE_NEVER_NEW => Reuse::NeverNew,
            _ => return Err(Error::invalid("reuse", "must lie in 0..=2")),
        };
        // SAFETY: by contract.
        unsafe {
            let list = abi::array(self.addresses, self.address_count, "addresses")?;
            let mut remotes = Vec::with_capacity(list.len());
            for address in list {
                remotes.push(abi::address(*address, "address")?);
            }
            let name = abi::optional_text(self.server_name, "server_name")?;
            Ok(ConnectConfig {
                remotes,
                server_name: name.unwrap_or("trunkline").to_owned(),
                trust: trunk_trust::of_client(self.trust)?,
                identity: trunk_identity::optional(self.identity)?,
                credential: abi::bytes(self.credential, self.credential_size, "credential")?
                    .to_vec(),
                connection: trunk_connection_config::optional(self.connection)?,
                reuse,
                link: match self.link {
                    TRUNK_CONNECT_DATAGRAM => ConnectLink::Datagram,
                    TRUNK_CONNECT_STREAM => ConnectLink::Stream,
                    TRUNK_CONNECT_PLAIN => ConnectLink::PlainStream,
                    TRUNK_CONNECT_AUTO => ConnectLink::Auto,
                    _ => return Err(Error::invalid("link", "must lie in 0..=3")),
                },
                sec_handle: (self.has_sec_handle != 0).then_some(SecHandle(self.sec_handle)),
            })
        }
    }
}

/// The engine and the connection that a call is about.
///
/// # Safety
/// As [`live`].
unsafe fn named<'a>(engine: *mut trunk_engine, conn: trunk_conn) -> Result<(&'a Live, Conn)> {
    // SAFETY: handed on.
    let live = unsafe { live(engine) }?;
    Ok((live, live.names.masks.conn_of(conn)))
}

/// Host: takes a connection that came as TRUNK_ITEM_INCOMING. Neglected for longer than the initial
/// timeout, it fails. TRUNK_ITEM_STATUS tells when it is connected.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_accept(engine: *mut trunk_engine, conn: trunk_conn) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        Ok(live.queued.accept(conn)?)
    })
}

/// Host: refuses a connection that came as TRUNK_ITEM_INCOMING; its handle is stale afterwards, and
/// TRUNK_ITEM_DEAD is its last item. The peer learns reason (TRUNK_REASON_APP to
/// TRUNK_REASON_APP_MAX, 0 = TRUNK_REASON_APP_REJECTED) and text (UTF-8, cut to 127 bytes, NULL =
/// none).
///
/// Any thread, never blocks. Errors: as trunk_accept, and TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_reject(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    reason: trunk_reason,
    text: *const c_char,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        let reason = code(reason, Reason::APP_REJECTED.0)?;
        // SAFETY: a string by contract.
        let text = unsafe { abi::optional_text(text, "text") }?.unwrap_or_default();
        Ok(live.queued.reject(conn, reason, text)?)
    })
}

/// Closes a connection; its handle and those of its channels are stale at once. With linger_ns > 0
/// what was sent reliably is delivered first, for at most that long, and the peer sees no sign of
/// the close before the last byte; TRUNK_LINGER_DEFAULT takes the engine's limit,
/// TRUNK_LINGER_NONE drops what is not delivered. Nothing more is told about its channels;
/// TRUNK_ITEM_DEAD is its last item and says what was delivered. reason (0 = TRUNK_REASON_APP) and
/// text (NULL = none) are as in trunk_reject. A connection that has ended by itself must be closed
/// too.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE (a second close),
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_close(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    reason: trunk_reason,
    text: *const c_char,
    linger_ns: i64,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        let reason = code(reason, TRUNK_REASON_APP)?;
        let linger = linger(live, linger_ns)?;
        // SAFETY: a string by contract.
        let text = unsafe { abi::optional_text(text, "text") }?.unwrap_or_default();
        Ok(live.queued.close(conn, reason, text, linger)?)
    })
}

/// Stores the status of a connection. For a stale handle it stores TRUNK_STATUS_NONE and gives
/// TRUNK_ERR_INVALID_HANDLE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_status(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    status: *mut trunk_status,
) -> trunk_result {
    guard(|| {
        // SAFETY: writable by contract.
        unsafe { abi::put(status, "status", TRUNK_STATUS_NONE) }?;
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        match live.queued.status(conn) {
            Status::None => Err(Error::handle("invalid or already closed handle")),
            // SAFETY: checked, and writable by contract.
            known => unsafe { abi::put(status, "status", known as trunk_status) },
        }
    })
}

/// Asks the peer for a sign of life. TRUNK_ITEM_CHECK_ANSWERED follows; without an answer within
/// check_timeout_ns the connection ends with TRUNK_REASON_TIMEOUT.
///
/// Any thread, never blocks. Errors: as trunk_accept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_check(
    engine: *mut trunk_engine,
    conn: trunk_conn,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        Ok(live.queued.check(conn)?)
    })
}

/// Has what happens to a connection from now on go to a poll group (0 = the engine's own). Items
/// that are already in another group stay there.
///
/// Any thread, never blocks. Errors: as trunk_accept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_set_group(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    group: trunk_group,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        let group = group_at(live, group)?;
        Ok(live.queued.assign(conn, &group)?)
    })
}

/// Keeps a pointer of the application with a connection. Each item of the connection brings it
/// along, TRUNK_ITEM_DEAD included; the engine only hands it back. An item carries the pointer that
/// is kept when it is received (a callback: when it is called), not when it happened.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_set_user(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    user: *mut c_void,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        if live.names.users.set_conn(&live.queued, conn, user) {
            Ok(())
        } else {
            Err(Error::handle("invalid or already closed handle"))
        }
    })
}

/// Stores the pointer kept with a connection; NULL when there is none.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_conn_user(
    engine: *mut trunk_engine,
    conn: trunk_conn,
    user: *mut *mut c_void,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let (live, conn) = unsafe { named(engine, conn) }?;
        let _ = live.queued.user_data(conn)?;
        // SAFETY: writable by contract.
        unsafe { abi::put(user, "user", live.names.users.conn(conn)) }
    })
}
