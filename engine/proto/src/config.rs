//! Validated configuration of connections and channels.

use crate::error::ApiError;
use crate::limits;
use crate::time::Duration;

/// Which congestion controller a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406).
    Cubic,
    /// A fixed rate for links whose rate the operator knows, in bytes a second.
    Fixed {
        /// Bytes a second, packet headers included.
        bytes_per_s: u64,
    },
}

/// Settings of a connection. [`Default`] gives the values of `docs/protocol.md`; [`validate`]
/// names the first field that is out of range.
///
/// [`validate`]: ConnectionConfig::validate
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Limit for each of Connecting and FindingRoute. 10 s.
    pub initial_timeout: Duration,
    /// No packet from the peer for this long ends the connection. 10 s.
    pub connected_timeout: Duration,
    /// A ping goes out when nothing was sent that asks for an answer for this long. 3 s.
    pub keep_alive: Duration,
    /// Limit of a lingering close. 30 s.
    pub linger_timeout: Duration,
    /// How long a closed connection answers late packets. 5 s.
    pub fin_wait_timeout: Duration,
    /// First retransmission of a handshake flight; doubles. 250 ms.
    pub handshake_retransmit: Duration,
    /// Longest delay of an acknowledgement. 25 ms.
    pub max_ack_delay: Duration,
    /// Answer within which a connectivity check must come. 3 s.
    pub check_timeout: Duration,
    /// Congestion controller.
    pub congestion: Congestion,
    /// Use and validate ECN marks.
    pub ecn: bool,
    /// UDP payload that packets start with; at least 1200.
    pub initial_packet: usize,
    /// UDP payload up to which the size is searched; equal to `initial_packet` = no search.
    pub max_packet: usize,
    /// Below this smoothed round trip bursts may fill whole GSO trains. 1 ms.
    pub lan_rtt: Duration,
    /// Most packets of one train that pacing lets through above that round trip, 2 to 64; the first
    /// window and what a late timer missed follow at once, in such trains. 16.
    pub pacing_burst: u32,
    /// Channels that the peer may have open at once.
    pub max_channels: u32,
    /// Credit in bytes granted to a channel at first.
    pub channel_window: u64,
    /// Credit in bytes up to which a busy channel grows.
    pub channel_window_max: u64,
    /// Bytes of credit granted to all channels of the connection together.
    pub receive_budget: u64,
    /// Bytes that the peer may send on channels that are not answered yet.
    pub early_data: u64,
    /// Bytes of messages larger than the credit window being put together.
    pub reassembly_budget: u64,
    /// Largest message accepted and sent, in bytes.
    pub max_message: usize,
    /// Bytes that may be queued or unacknowledged per channel before sends give `WouldBlock`.
    pub channel_send_buffer: u64,
    /// The same for the whole connection.
    pub send_buffer: u64,
    /// Bytes of all channels that may wait for their first transmission before sends give
    /// `WouldBlock`, once the connection stands. A channel that has nothing waiting always takes a
    /// message, and one with less than its even share, at least 4 KiB. What waits here adds to the
    /// delay of everything behind it, and leaves the processor's caches before it is sent.
    pub unsent_limit: u64,
    /// Bytes of unreliable messages waiting to be sent per channel; the oldest goes first.
    pub datagram_send_buffer: u64,
    /// Bytes of unreliable messages being put together, for the whole connection.
    pub datagram_reassembly: u64,
    /// How long a partial unreliable message is kept. 1 s.
    pub datagram_reassembly_timeout: Duration,
    /// Delay up to which small writes of an un-`no_delay` channel wait for more while data is in
    /// flight. 5 ms; zero = never.
    pub coalesce: Duration,
    /// `true`: the application returns credit with `consume` when it has taken the data (queued
    /// API). `false`: data counts as taken when the sink has seen it (inline API).
    pub manual_credit: bool,
    /// Packets sealed with one key before it is updated; never above the AEAD's limit.
    pub key_update_packets: u64,
    /// How long an opened channel waits for its answer. 10 s.
    pub channel_timeout: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            initial_timeout: Duration::from_secs(10),
            connected_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            linger_timeout: Duration::from_secs(30),
            fin_wait_timeout: Duration::from_secs(5),
            handshake_retransmit: Duration::from_millis(250),
            max_ack_delay: Duration::from_millis(25),
            check_timeout: Duration::from_secs(3),
            congestion: Congestion::Cubic,
            ecn: true,
            initial_packet: limits::MIN_PACKET,
            max_packet: limits::MAX_PACKET,
            lan_rtt: Duration::from_millis(1),
            pacing_burst: 16,
            max_channels: limits::MAX_CHANNELS,
            channel_window: 1 << 20,
            channel_window_max: 16 << 20,
            receive_budget: 64 << 20,
            early_data: 256 << 10,
            reassembly_budget: 32 << 20,
            max_message: limits::MAX_MESSAGE,
            channel_send_buffer: 32 << 20,
            send_buffer: 128 << 20,
            unsent_limit: 512 << 10,
            datagram_send_buffer: 1 << 20,
            datagram_reassembly: 2 << 20,
            datagram_reassembly_timeout: Duration::from_secs(1),
            coalesce: Duration::from_millis(5),
            manual_credit: false,
            key_update_packets: 1 << 22,
            channel_timeout: Duration::from_secs(10),
        }
    }
}

impl ConnectionConfig {
    /// Checks every field; the error names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        let check = |ok: bool, field: &'static str, why: &'static str| {
            if ok { Ok(()) } else { Err(ApiError::InvalidArgument { field, why }) }
        };
        let positive =
            |d: Duration, field| check(d > Duration::ZERO, field, "must be longer than zero");
        positive(self.initial_timeout, "initial_timeout")?;
        positive(self.connected_timeout, "connected_timeout")?;
        positive(self.keep_alive, "keep_alive")?;
        positive(self.fin_wait_timeout, "fin_wait_timeout")?;
        positive(self.handshake_retransmit, "handshake_retransmit")?;
        positive(self.check_timeout, "check_timeout")?;
        positive(self.channel_timeout, "channel_timeout")?;
        check(
            self.keep_alive.mul(2) <= self.connected_timeout,
            "keep_alive",
            "must be at most half of connected_timeout",
        )?;
        check(
            self.max_ack_delay <= Duration::from_secs(1),
            "max_ack_delay",
            "must be at most 1 s",
        )?;
        if let Congestion::Fixed { bytes_per_s } = self.congestion {
            check(bytes_per_s >= 1024, "congestion.bytes_per_s", "must be at least 1024")?;
        }
        check(
            (limits::MIN_PACKET..=limits::MAX_PACKET).contains(&self.initial_packet),
            "initial_packet",
            "must lie in 1200..=65507",
        )?;
        check(
            (self.initial_packet..=limits::MAX_PACKET).contains(&self.max_packet),
            "max_packet",
            "must lie between initial_packet and 65507",
        )?;
        check((2..=64).contains(&self.pacing_burst), "pacing_burst", "must lie in 2..=64")?;
        for (bytes, field) in [
            (self.channel_window_max, "channel_window_max"),
            (self.receive_budget, "receive_budget"),
            (self.early_data, "early_data"),
            (self.reassembly_budget, "reassembly_budget"),
            (self.send_buffer, "send_buffer"),
            (self.unsent_limit, "unsent_limit"),
            (self.datagram_send_buffer, "datagram_send_buffer"),
            (self.datagram_reassembly, "datagram_reassembly"),
        ] {
            check(bytes <= limits::MAX_BUDGET, field, "must be at most 2^48")?;
        }
        check(self.max_channels <= limits::MAX_CHANNELS, "max_channels", "must be at most 65534")?;
        check(
            self.channel_window >= limits::MIN_CHANNEL_WINDOW,
            "channel_window",
            "must be at least 256",
        )?;
        check(
            self.channel_window_max >= self.channel_window,
            "channel_window_max",
            "must not be below channel_window",
        )?;
        check(
            self.receive_budget
                >= self.channel_window + u64::from(self.max_channels) * limits::MIN_CHANNEL_WINDOW,
            "receive_budget",
            "must hold channel_window and 256 bytes for each of max_channels",
        )?;
        check(
            (1..=limits::MAX_MESSAGE).contains(&self.max_message),
            "max_message",
            "must lie in 1..=16777216",
        )?;
        check(
            self.reassembly_budget >= self.max_message as u64,
            "reassembly_budget",
            "must hold one max_message",
        )?;
        check(
            self.channel_send_buffer >= self.max_message as u64,
            "channel_send_buffer",
            "must hold one max_message",
        )?;
        check(
            self.send_buffer >= self.channel_send_buffer,
            "send_buffer",
            "must not be below channel_send_buffer",
        )?;
        check(
            self.unsent_limit >= limits::MIN_UNSENT_LIMIT,
            "unsent_limit",
            "must be at least 16384",
        )?;
        check(
            self.datagram_send_buffer >= limits::MAX_DATAGRAM as u64,
            "datagram_send_buffer",
            "must hold one datagram of 65536 bytes",
        )?;
        check(
            self.datagram_reassembly >= limits::MAX_DATAGRAM as u64,
            "datagram_reassembly",
            "must hold one datagram of 65536 bytes",
        )?;
        check(self.key_update_packets >= 64, "key_update_packets", "must be at least 64")?;
        Ok(())
    }
}

/// What a channel carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChannelKind {
    /// Reliable ordered byte stream.
    #[default]
    Bytes = 0,
    /// Reliable ordered messages.
    Messages = 1,
    /// Unreliable messages.
    Datagrams = 2,
}

/// How a channel is opened or accepted. Each side chooses its own priority and weight for what it
/// sends; kind is the opener's.
#[derive(Clone, Copy, Debug)]
pub struct ChannelOptions {
    /// What it carries (ignored when accepting).
    pub kind: ChannelKind,
    /// Strict priority class, 0 first, 0–7.
    pub priority: u8,
    /// Share inside the class, 1–255.
    pub weight: u8,
    /// Receive credit granted at first, in bytes; `None` = the connection's `channel_window`.
    pub window: Option<u64>,
    /// Small writes never wait for more.
    pub no_delay: bool,
    /// Opener only: when a channel of this name is already there, asked for by either side, that
    /// one is given back instead of a new one. Finding it takes a look at every channel.
    pub unique: bool,
    /// Opener only: hold data back until the peer has answered.
    pub wait_for_answer: bool,
    /// Opener only, `datagrams` only: in both directions, a message that arrives after a newer one is
    /// dropped.
    pub latest: bool,
    /// Opener only, `datagrams` only: in both directions, messages not sent within this many
    /// milliseconds are dropped; 0 = never.
    pub expires_ms: u32,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            kind: ChannelKind::Bytes,
            priority: 4,
            weight: 16,
            window: None,
            no_delay: false,
            unique: false,
            wait_for_answer: false,
            latest: false,
            expires_ms: 0,
        }
    }
}

impl ChannelOptions {
    /// Checks every field; the error names the first one that is out of range.
    pub fn validate(&self) -> Result<(), ApiError> {
        let bad = |field, why| Err(ApiError::InvalidArgument { field, why });
        if usize::from(self.priority) >= limits::PRIORITIES {
            return bad("priority", "must lie in 0..=7");
        }
        if self.weight == 0 {
            return bad("weight", "must be at least 1");
        }
        if self.window.is_some_and(|w| w < limits::MIN_CHANNEL_WINDOW) {
            return bad("window", "must be at least 256");
        }
        if self.kind != ChannelKind::Datagrams && (self.latest || self.expires_ms != 0) {
            return bad("latest/expires_ms", "are for datagrams channels only");
        }
        Ok(())
    }
}
