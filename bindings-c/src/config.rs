//! Settings: of an engine, and of connections.

use crate::abi::{self, Struct};
use crate::callbacks::trunk_callbacks;
use crate::fault::trunk_fault_config;
use crate::log::{TRUNK_LOG_WARN, trunk_log_fn, trunk_log_level};
use crate::result::{Error, Result, trunk_result};
use crate::security::trunk_identity;
use crate::security_callback::{self, trunk_security_fn};
use engine::{
    CaptureConfig, Congestion, ConnectionConfig, DriverChoice, EngineConfig, Pinning, RetryPolicy,
    StunConfig,
};
use std::ffi::{c_char, c_void};
use std::time::Duration;

/// What moves the packets.
pub type trunk_driver = u32;

/// The best that works here.
pub const TRUNK_DRIVER_AUTO: trunk_driver = 0;
/// io_uring, or an error.
pub const TRUNK_DRIVER_URING: trunk_driver = 1;
/// recvmsg and sendmsg: works everywhere.
pub const TRUNK_DRIVER_MIO: trunk_driver = 2;

/// When a peer must prove its address before the host remembers anything of it.
pub type trunk_retry = u32;

/// Never.
pub const TRUNK_RETRY_NEVER: trunk_retry = 0;
/// While at least retry_handshakes handshakes are under way.
pub const TRUNK_RETRY_WHEN_LOADED: trunk_retry = 1;
/// Always; costs each connection a round trip.
pub const TRUNK_RETRY_ALWAYS: trunk_retry = 2;

/// Settings of connections. trunk_connection_config_init fills in the defaults, which are stated
/// with each field. Times are nanoseconds, sizes bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_connection_config {
    /// Size of this struct; set by trunk_connection_config_init.
    pub struct_size: u32,
    /// Whether to use ECN marks. 1.
    pub ecn: u32,
    /// Limit of the handshake, and of finding a route after it. 10 s.
    pub initial_timeout_ns: u64,
    /// No packet from the peer for this long ends the connection. 10 s.
    pub connected_timeout_ns: u64,
    /// A ping goes out after this long without one that asks for an answer; at most half of
    /// connected_timeout_ns. 3 s.
    pub keep_alive_ns: u64,
    /// Limit of trunk_close with TRUNK_LINGER_DEFAULT. 30 s.
    pub linger_timeout_ns: u64,
    /// How long a closed connection answers late packets. 5 s.
    pub fin_wait_timeout_ns: u64,
    /// First retransmission of a handshake message; doubles. 250 ms.
    pub handshake_retransmit_ns: u64,
    /// Longest delay of an acknowledgement. 25 ms.
    pub max_ack_delay_ns: u64,
    /// Time for the answer to trunk_conn_check. 3 s.
    pub check_timeout_ns: u64,
    /// How long an opened channel waits for its answer. 10 s.
    pub channel_timeout_ns: u64,
    /// How long small writes wait for more while data is on its way, unless a channel has no_delay.
    /// 5 ms; 0 = never.
    pub coalesce_ns: u64,
    /// Fixed sending rate in bytes a second, for links whose rate is known. 0 = congestion control
    /// (CUBIC).
    pub fixed_rate: u64,
    /// UDP payload that packets start with; at least 1200. 1200.
    pub initial_packet: u32,
    /// UDP payload up to which the size is searched. 1452; equal to initial_packet = no search.
    pub max_packet: u32,
    /// Channels that the peer may have open at once. 65534.
    pub max_channels: u32,
    /// Largest message sent and accepted; at most 16 MiB. 16 MiB.
    pub max_message: u32,
    /// Bytes that a channel's peer may have on its way to us at first. 1 MiB.
    pub channel_window: u64,
    /// The same for a busy channel. 16 MiB.
    pub channel_window_max: u64,
    /// The same for all channels of the connection together. 64 MiB.
    pub receive_budget: u64,
    /// Bytes that the peer may send on channels that are not answered yet. 256 KiB.
    pub early_data: u64,
    /// Bytes of one channel that may wait or be unacknowledged before sends give
    /// TRUNK_ERR_WOULD_BLOCK. 32 MiB.
    pub channel_send_buffer: u64,
    /// The same for the connection. 128 MiB.
    pub send_buffer: u64,
    /// Bytes of all channels that may wait for their first transmission before sends give
    /// TRUNK_ERR_WOULD_BLOCK, once the connection stands. A channel that has nothing waiting always
    /// takes a message, and one with less than its even share, at least 4 KiB. 512 KiB.
    pub unsent_limit: u64,
    /// Bytes of unreliable messages of one channel that wait to be sent; the oldest goes first.
    /// 1 MiB.
    pub datagram_send_buffer: u64,
    /// Bytes of messages larger than the credit window that may be put together at once. 32 MiB.
    pub reassembly_budget: u64,
    /// Bytes of unreliable messages that are being put together, for the whole connection. 2 MiB.
    pub datagram_reassembly: u64,
    /// How long an incomplete unreliable message is kept. 1 s.
    pub datagram_reassembly_timeout_ns: u64,
    /// Below this smoothed round trip bursts may be as long as the system takes at once. 1 ms.
    pub lan_rtt_ns: u64,
    /// Packets sealed with one key before it is renewed. 2^22.
    pub key_update_packets: u64,
    /// Most packets of one train that pacing lets through above lan_rtt_ns, 2 to 64; the first
    /// window and what a late timer missed follow at once, in such trains. 16.
    pub pacing_burst: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers only.
unsafe impl Struct for trunk_connection_config {
    const NAME: &'static str = "trunk_connection_config";

    fn defaults() -> Self {
        Self::from(&ConnectionConfig::default())
    }
}

impl From<&ConnectionConfig> for trunk_connection_config {
    fn from(config: &ConnectionConfig) -> Self {
        Self {
            struct_size: 0,
            ecn: config.ecn.into(),
            initial_timeout_ns: config.initial_timeout.as_nanos(),
            connected_timeout_ns: config.connected_timeout.as_nanos(),
            keep_alive_ns: config.keep_alive.as_nanos(),
            linger_timeout_ns: config.linger_timeout.as_nanos(),
            fin_wait_timeout_ns: config.fin_wait_timeout.as_nanos(),
            handshake_retransmit_ns: config.handshake_retransmit.as_nanos(),
            max_ack_delay_ns: config.max_ack_delay.as_nanos(),
            check_timeout_ns: config.check_timeout.as_nanos(),
            channel_timeout_ns: config.channel_timeout.as_nanos(),
            coalesce_ns: config.coalesce.as_nanos(),
            fixed_rate: match config.congestion {
                Congestion::Fixed { bytes_per_s } => bytes_per_s,
                _ => 0,
            },
            initial_packet: config.initial_packet as u32,
            max_packet: config.max_packet as u32,
            max_channels: config.max_channels,
            max_message: config.max_message as u32,
            channel_window: config.channel_window,
            channel_window_max: config.channel_window_max,
            receive_budget: config.receive_budget,
            early_data: config.early_data,
            channel_send_buffer: config.channel_send_buffer,
            send_buffer: config.send_buffer,
            unsent_limit: config.unsent_limit,
            datagram_send_buffer: config.datagram_send_buffer,
            reassembly_budget: config.reassembly_budget,
            datagram_reassembly: config.datagram_reassembly,
            datagram_reassembly_timeout_ns: config.datagram_reassembly_timeout.as_nanos(),
            lan_rtt_ns: config.lan_rtt.as_nanos(),
            key_update_packets: config.key_update_packets,
            pacing_burst: config.pacing_burst,
            reserved: 0,
        }
    }
}

impl trunk_connection_config {
    pub(crate) fn convert(&self) -> Result<ConnectionConfig> {
        let ns = engine::Duration::from_nanos;
        let config = ConnectionConfig {
            initial_timeout: ns(self.initial_timeout_ns),
            connected_timeout: ns(self.connected_timeout_ns),
            keep_alive: ns(self.keep_alive_ns),
            linger_timeout: ns(self.linger_timeout_ns),
            fin_wait_timeout: ns(self.fin_wait_timeout_ns),
            handshake_retransmit: ns(self.handshake_retransmit_ns),
            max_ack_delay: ns(self.max_ack_delay_ns),
            check_timeout: ns(self.check_timeout_ns),
            channel_timeout: ns(self.channel_timeout_ns),
            coalesce: ns(self.coalesce_ns),
            congestion: match self.fixed_rate {
                0 => Congestion::Cubic,
                bytes_per_s => Congestion::Fixed { bytes_per_s },
            },
            ecn: self.ecn != 0,
            initial_packet: self.initial_packet as usize,
            max_packet: self.max_packet as usize,
            max_channels: self.max_channels,
            max_message: self.max_message as usize,
            channel_window: self.channel_window,
            channel_window_max: self.channel_window_max,
            receive_budget: self.receive_budget,
            early_data: self.early_data,
            channel_send_buffer: self.channel_send_buffer,
            send_buffer: self.send_buffer,
            unsent_limit: self.unsent_limit,
            datagram_send_buffer: self.datagram_send_buffer,
            reassembly_budget: self.reassembly_budget,
            datagram_reassembly: self.datagram_reassembly,
            datagram_reassembly_timeout: ns(self.datagram_reassembly_timeout_ns),
            lan_rtt: ns(self.lan_rtt_ns),
            key_update_packets: self.key_update_packets,
            pacing_burst: self.pacing_burst,
            ..ConnectionConfig::default()
        };
        config.validate()?;
        Ok(config)
    }

    /// The settings at a pointer; `None` for NULL.
    ///
    /// # Safety
    /// As [`abi::read`].
    pub(crate) unsafe fn optional(from: *const Self) -> Result<Option<ConnectionConfig>> {
        if from.is_null() {
            return Ok(None);
        }
        // SAFETY: handed on.
        unsafe { abi::read(from) }?.convert().map(Some)
    }
}

/// The value of trunk_engine_config.pin for processors near the interface.
pub(crate) const PIN_NEAR: u32 = 2;

/// Settings of an engine. trunk_engine_config_init fills in the defaults, which are stated with
/// each field. Everything that it points to is copied by trunk_engine_new.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_engine_config {
    /// Size of this struct; set by trunk_engine_config_init.
    pub struct_size: u32,
    /// Shards, each with its own thread, sockets and connections; they share nothing. At most 256. 1.
    pub shards: u32,
    /// Not 0: no threads at all. One shard, which the application drives with trunk_engine_poll. 0.
    pub threadless: u32,
    /// What moves the packets. TRUNK_DRIVER_AUTO.
    pub driver: trunk_driver,
    /// Processors for the shards' threads, the first for the first shard. NULL = anywhere.
    pub cores: *const u32,
    /// Number of cores: 0, or at least shards.
    pub core_count: usize,
    /// Who we are when we connect, unless the connect says otherwise. NULL = nobody.
    pub identity: *const trunk_identity,
    /// Settings of connections, unless a listen or connect says otherwise. NULL = defaults.
    pub connection: *const trunk_connection_config,
    /// Receive buffers of a shard, 64 KiB each. 256.
    pub rx_buffers: u32,
    /// Transmit buffers of a shard, 64 KiB each. 64.
    pub tx_buffers: u32,
    /// Buffers of trunk_buf_alloc. 64.
    pub send_buffers: u32,
    /// Bytes of each of them. 64 KiB.
    pub send_buffer_bytes: u32,
    /// Wanted size of the sockets' buffers. 4 MiB; 0 = the system's default.
    pub socket_buffer_bytes: u64,
    /// Whether the system may cut large sends into packets. 1.
    pub gso: u32,
    /// Whether the system may merge received packets. 1.
    pub gro: u32,
    /// Calls that wait for one shard at once. 4096.
    pub mailbox: u32,
    /// Connections of one shard at once. 65536.
    pub max_connections: u32,
    /// Handshakes of one shard under way at once, as host. 4096.
    pub max_handshakes: u32,
    /// Connection requests a second from one source that one shard answers. 200; 0 = any number.
    pub handshakes_per_source_per_s: u32,
    /// When peers must prove their address first. TRUNK_RETRY_WHEN_LOADED.
    pub retry: trunk_retry,
    /// See TRUNK_RETRY_WHEN_LOADED. 512.
    pub retry_handshakes: u32,
    /// Addresses and networks whose connection requests are dropped, such as "192.0.2.0/24". NULL.
    pub deny: *const *const c_char,
    /// Number of them.
    pub deny_count: usize,
    /// TLS secrets are appended to this file, for protocol analysers: whoever can read it can read
    /// every connection. NULL = none.
    pub key_log_file: *const c_char,
    /// How long a shard spins after the last work before it sleeps; 1 = not at all. 0: for at most
    /// 20 µs, while at least four of five waits are shorter. 0.
    pub busy_poll_ns: u64,
    /// Bytes sent on one channel that wait for their shard before sends give
    /// TRUNK_ERR_WOULD_BLOCK. 1 MiB.
    pub queue_channel_bytes: u64,
    /// The same for one shard. 256 MiB.
    pub queue_shard_bytes: u64,
    /// Received bytes that wait in one poll group before unreliable messages are dropped. 16 MiB.
    pub queue_group_bytes: u64,
    /// Server number, written into connection ids for load balancers; at most 255. 0.
    pub server: u32,
    /// What log gets. TRUNK_LOG_WARN.
    pub log_level: trunk_log_level,
    /// Takes the engine's log, also before trunk_engine_new has stored the engine. NULL = no log.
    pub log: trunk_log_fn,
    /// First argument of log.
    pub log_user: *mut c_void,
    /// What the engine's own group calls instead of keeping items for trunk_recv_many. As log, they
    /// can be called before trunk_engine_new has stored the engine (TRUNK_ITEM_SHARD_FAILED).
    /// NULL = none.
    pub callbacks: *const trunk_callbacks,
    /// Asked while connections are being made. NULL = nobody.
    pub security: trunk_security_fn,
    /// First argument of security.
    pub security_user: *mut c_void,
    /// Faults that are added to everything sent and received, for tests; trunk_engine_set_faults
    /// changes them. NULL = none, and none can be added later.
    pub faults: *const trunk_fault_config,
    /// Seed of everything random, 32 bytes, for tests that repeat: connections are not secret.
    /// NULL = unpredictable.
    pub dangerous_seed: *const u8,
    /// How long a connection that a channel request or an association made by itself stays when no
    /// channel is open and nothing moves. 180 s; negative = until it is closed.
    pub idle_hold_ns: i64,
    /// Datagrams on their way from one shard to another at once. 256.
    pub forward_queue: u32,
    /// STUN requests a second that a shard answers, where a listener does. 5000.
    pub stun_per_s: u32,
    /// The same for one source. 50.
    pub stun_per_source_per_s: u32,
    /// Not 0: each shard on a processor of its own, unless cores names them; 2: those near the
    /// network interface with the default route first (docs/profiles.md), else in the order of the
    /// system. 0.
    pub pin: u32,
    /// Figures of the running engine are kept in this file, for trunkline top; an existing one is
    /// replaced, and it stays when the engine ends. Unix only. NULL = none.
    pub stats_file: *const c_char,
    /// Everything that connections say is written to this file (pcapng), in the clear, for
    /// protocol analysers: whoever can read it can read every connection. NULL = none.
    pub capture_file: *const c_char,
    /// Largest size of that file; the rest is left out. 1 GiB.
    pub capture_max_bytes: u64,
    /// Most packets of one send call, 1 to 64. 64.
    pub gso_segments: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_engine_config {
    const NAME: &'static str = "trunk_engine_config";

    fn defaults() -> Self {
        let config = EngineConfig::default();
        let (retry, retry_handshakes) = match config.retry {
            RetryPolicy::Never => (TRUNK_RETRY_NEVER, 512),
            RetryPolicy::WhenLoaded(n) => (TRUNK_RETRY_WHEN_LOADED, n),
            RetryPolicy::Always => (TRUNK_RETRY_ALWAYS, 512),
        };
        Self {
            struct_size: 0,
            shards: config.shards as u32,
            threadless: 0,
            driver: TRUNK_DRIVER_AUTO,
            cores: std::ptr::null(),
            core_count: 0,
            identity: std::ptr::null(),
            connection: std::ptr::null(),
            rx_buffers: config.rx_buffers as u32,
            tx_buffers: config.tx_buffers as u32,
            send_buffers: config.send_buffers as u32,
            send_buffer_bytes: config.send_buffer_bytes as u32,
            socket_buffer_bytes: config.socket_buffer_bytes as u64,
            gso: config.gso.into(),
            gro: config.gro.into(),
            mailbox: config.mailbox as u32,
            max_connections: config.max_connections,
            max_handshakes: config.max_handshakes,
            handshakes_per_source_per_s: config.handshakes_per_source_per_s,
            retry,
            retry_handshakes,
            deny: std::ptr::null(),
            deny_count: 0,
            key_log_file: std::ptr::null(),
            busy_poll_ns: config.busy_poll.map_or(0, |d| d.as_nanos() as u64),
            queue_channel_bytes: config.queue_channel_bytes as u64,
            queue_shard_bytes: config.queue_shard_bytes as u64,
            queue_group_bytes: config.queue_group_bytes as u64,
            server: 0,
            log_level: TRUNK_LOG_WARN,
            log: None,
            log_user: std::ptr::null_mut(),
            callbacks: std::ptr::null(),
            security: None,
            security_user: std::ptr::null_mut(),
            faults: std::ptr::null(),
            dangerous_seed: std::ptr::null(),
            idle_hold_ns: config.idle_hold.map_or(-1, |d| d.as_nanos() as i64),
            forward_queue: config.forward_queue as u32,
            stun_per_s: config.stun.per_s,
            stun_per_source_per_s: config.stun.per_source_per_s,
            pin: 0,
            stats_file: std::ptr::null(),
            capture_file: std::ptr::null(),
            capture_max_bytes: CaptureConfig::new("").max_bytes,
            gso_segments: config.gso_segments as u32,
            reserved: 0,
        }
    }
}

fn size(value: u64, field: &'static str) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::invalid(field, "is larger than the address space"))
}

impl trunk_engine_config {
    /// The engine's settings.
    ///
    /// # Safety
    /// The pointers are NULL or point to what their fields say.
    pub(crate) unsafe fn convert(&self) -> Result<EngineConfig> {
        let driver = match self.driver {
            TRUNK_DRIVER_AUTO => DriverChoice::Auto,
            TRUNK_DRIVER_URING => DriverChoice::Uring,
            TRUNK_DRIVER_MIO => DriverChoice::Mio,
            _ => return Err(Error::invalid("driver", "must lie in 0..=2")),
        };
        let retry = match self.retry {
            TRUNK_RETRY_NEVER => RetryPolicy::Never,
            TRUNK_RETRY_WHEN_LOADED => RetryPolicy::WhenLoaded(self.retry_handshakes),
            TRUNK_RETRY_ALWAYS => RetryPolicy::Always,
            _ => return Err(Error::invalid("retry", "must lie in 0..=2")),
        };
        if self.threadless != 0 && self.shards != 1 {
            return Err(Error::invalid("shards", "must be 1 without threads"));
        }
        // SAFETY: handed on.
        let cores = unsafe { abi::array(self.cores, self.core_count, "cores") }?;
        let pin = match cores {
            [] if self.pin == PIN_NEAR => Pinning::Cores(engine::hw::Machine::this().near()),
            [] if self.pin != 0 => Pinning::Cores(engine::hw::cores()),
            [] => Pinning::None,
            cores => Pinning::Cores(cores.iter().map(|core| *core as usize).collect()),
        };
        // SAFETY: handed on.
        let nets = unsafe { abi::array(self.deny, self.deny_count, "deny") }?;
        let mut deny = Vec::with_capacity(nets.len());
        for net in nets {
            // SAFETY: handed on.
            deny.push(unsafe { abi::text(*net, "deny") }?.parse()?);
        }
        // SAFETY: handed on.
        let key_log = unsafe { abi::optional_text(self.key_log_file, "key_log_file") }?;
        // SAFETY: handed on.
        let stats_file = unsafe { abi::optional_text(self.stats_file, "stats_file") }?;
        // SAFETY: handed on.
        let capture = unsafe { abi::optional_text(self.capture_file, "capture_file") }?;
        let capture = capture.map(|path| CaptureConfig {
            max_bytes: self.capture_max_bytes,
            ..CaptureConfig::new(path)
        });
        // SAFETY: handed on.
        let connection = unsafe { trunk_connection_config::optional(self.connection) }?;
        // SAFETY: handed on.
        let identity = unsafe { trunk_identity::optional(self.identity) }?;
        let server = u8::try_from(self.server);
        // SAFETY: handed on.
        let fault = unsafe { trunk_fault_config::optional(self.faults, None) }?;
        let seed = if self.dangerous_seed.is_null() {
            None
        } else {
            // SAFETY: 32 bytes by contract.
            unsafe { abi::bytes(self.dangerous_seed, 32, "dangerous_seed") }?.first_chunk().copied()
        };
        Ok(EngineConfig {
            shards: self.shards as usize,
            pin,
            driver,
            connection: connection.unwrap_or_default(),
            identity,
            rx_buffers: self.rx_buffers as usize,
            tx_buffers: self.tx_buffers as usize,
            gso: self.gso != 0,
            gso_segments: self.gso_segments as usize,
            gro: self.gro != 0,
            socket_buffer_bytes: size(self.socket_buffer_bytes, "socket_buffer_bytes")?,
            mailbox: self.mailbox as usize,
            max_connections: self.max_connections,
            max_handshakes: self.max_handshakes,
            handshakes_per_source_per_s: self.handshakes_per_source_per_s,
            deny,
            retry,
            key_log: key_log.map(Into::into),
            stats_file: stats_file.map(Into::into),
            capture,
            busy_poll: (self.busy_poll_ns > 0).then(|| Duration::from_nanos(self.busy_poll_ns)),
            server: server.map_err(|_| Error::invalid("server", "must be at most 255"))?,
            send_buffers: self.send_buffers as usize,
            send_buffer_bytes: self.send_buffer_bytes as usize,
            queue_channel_bytes: size(self.queue_channel_bytes, "queue_channel_bytes")?,
            queue_shard_bytes: size(self.queue_shard_bytes, "queue_shard_bytes")?,
            queue_group_bytes: size(self.queue_group_bytes, "queue_group_bytes")?,
            fault,
            dangerous_seed: seed,
            security: security_callback::callback(self.security, self.security_user),
            idle_hold: abi::limit(self.idle_hold_ns),
            forward_queue: self.forward_queue as usize,
            stun: StunConfig {
                per_s: self.stun_per_s,
                per_source_per_s: self.stun_per_source_per_s,
            },
        })
    }
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_engine_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_config_init_sized(
    config: *mut trunk_engine_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    crate::result::guard(|| unsafe { abi::init(config, struct_size) })
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_connection_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_connection_config_init_sized(
    config: *mut trunk_connection_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    crate::result::guard(|| unsafe { abi::init(config, struct_size) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_survive_the_way_there_and_back() {
        let there = trunk_connection_config::defaults();
        let config = there.convert().unwrap();
        let back = trunk_connection_config::from(&config);
        assert_eq!(format!("{there:?}"), format!("{back:?}"));
        assert_eq!(format!("{config:?}"), format!("{:?}", ConnectionConfig::default()));
        // SAFETY: the pointers are NULL.
        let config = unsafe { trunk_engine_config::defaults().convert() }.unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", EngineConfig::default()));
    }

    #[test]
    fn errors_name_the_field() {
        let wrong = |change: fn(&mut trunk_engine_config)| {
            let mut config = trunk_engine_config::defaults();
            change(&mut config);
            // SAFETY: the pointers are NULL or point to static strings.
            unsafe { config.convert() }.unwrap_err().to_string()
        };
        assert!(wrong(|c| c.driver = 9).contains("driver"));
        assert!(wrong(|c| c.retry = 3).contains("retry"));
        assert!(wrong(|c| c.server = 256).contains("server"));
        assert!(wrong(|c| c.core_count = 1).contains("cores"));
        assert!(wrong(|c| (c.threadless, c.shards) = (1, 2)).contains("shards"));
        let mut config = trunk_connection_config::defaults();
        config.max_packet = 10;
        assert!(config.convert().unwrap_err().to_string().contains("max_packet"));
        config = trunk_connection_config::defaults();
        config.fixed_rate = 5;
        assert!(config.convert().unwrap_err().to_string().contains("bytes_per_s"));
    }
}
