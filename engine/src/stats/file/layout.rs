//! Where everything lies in a stats file, and what the fields are called.
//!
//! All numbers are 64-bit words in the byte order of the machine. A header of [`HEADER`] words, the
//! names of the fields as text, one block for each shard.

use crate::io::DriverStats;
use crate::stats::{EndpointStats, ShardCounts, Summary};
use std::sync::LazyLock;

/// The first word: `TRNKSTAT`.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"TRNKSTAT");
/// Changes when a reader of this one could misunderstand a file. New fields do not change it.
pub(super) const VERSION: u64 = 1;
/// Words of the header.
pub(super) const HEADER: usize = 32;
/// Rows of the table of connections of a shard.
pub(crate) const ROWS: usize = 64;

/// Words of the header.
pub(super) mod head {
    pub(in super::super) const MAGIC: usize = 0;
    pub(in super::super) const VERSION: usize = 1;
    /// Bytes of the header.
    pub(in super::super) const HEADER: usize = 2;
    pub(in super::super) const PID: usize = 3;
    pub(in super::super) const STARTED: usize = 4;
    pub(in super::super) const BOOT: usize = 5;
    pub(in super::super) const WALL: usize = 7;
    pub(in super::super) const MONOTONIC: usize = 8;
    pub(in super::super) const SHARDS: usize = 9;
    pub(in super::super) const NAMES_BYTES: usize = 10;
    pub(in super::super) const FIELDS: usize = 11;
    pub(in super::super) const ROW_FIELDS: usize = 12;
    pub(in super::super) const ROWS: usize = 13;
    /// Byte at which the first block begins.
    pub(in super::super) const BLOCKS: usize = 14;
    /// Bytes of a block.
    pub(in super::super) const BLOCK: usize = 15;
    pub(in super::super) const INTERVAL: usize = 16;
    /// Text, four words.
    pub(in super::super) const ENGINE: usize = 17;
}

/// Words at the start of a block. Those before `FIELDS` other than `SEQUENCE` stand for themselves:
/// the sequence does not guard them.
pub(super) mod block {
    /// Odd while the rest is being written.
    pub(in super::super) const SEQUENCE: usize = 0;
    /// When the shard last said that it is there, on the monotonic clock.
    pub(in super::super) const HEARTBEAT: usize = 1;
    /// Until when it sleeps at the latest; 0 = it is awake, [`u64::MAX`] = until something comes.
    pub(in super::super) const ASLEEP: usize = 2;
    pub(in super::super) const STATE: usize = 3;
    pub(in super::super) const FLAGS: usize = 4;
    /// Text, two words.
    pub(in super::super) const DRIVER: usize = 5;
    /// Why it has failed: text, 16 words.
    pub(in super::super) const FAILURE: usize = 7;
    pub(in super::super) const FAILURE_WORDS: usize = 16;
    pub(in super::super) const FIELDS: usize = 24;
}

/// Flag of a block: the application drives the shard.
pub(super) const DRIVEN: u64 = 1;

macro_rules! fields {
    ($type:ident, $names:ident, $each:ident: $($name:ident),+ $(,)?) => {
        const $names: &[&str] = &[$(stringify!($name)),+];
        /// Hands every field to `put`, in the order of the names.
        pub(crate) fn $each(of: &$type, mut put: impl FnMut(u64)) {
            let $type { $($name),+ } = *of;
            $(put($name);)+
        }
    };
}

fields! { DriverStats, DRIVER_NAMES, each_driver:
    syscalls, sleeps, wakes, tx_packets, tx_trains, tx_bytes, tx_gso, tx_failed, tx_blocked,
    gso_refused, rx_packets, rx_items, rx_bytes, rx_gro, rx_truncated, rx_malformed, rx_dropped,
    rx_rearmed, rx_no_buffer, rx_starved, cq_overflow, leases, leases_refused, tx_no_buffer,
    accepts_paused,
}

fields! { EndpointStats, ENDPOINT_NAMES, each_endpoint:
    datagrams, malformed, unknown_id, rejected, copies, early_packets, late_handshake_packets,
    dropped_handshake_packets, refused, retries, version_lists, resets_sent, resets_received,
    accepted, failed_handshakes, connected, attempts_timed_out, attempts_denied, attempts_given_up,
}

fields! { Summary, SUMMARY_NAMES, each_summary: count, min, p50, p99, p999, max }

/// Gauges that every refresh has right.
const NOW: &[&str] = &[
    "mailbox_depth",
    "mailbox_capacity",
    "controls_depth",
    "forwards_depth",
    "queue_waiting_bytes",
    "rx_buffers",
    "rx_buffers_free",
    "tx_buffers",
    "tx_buffers_free",
];

/// What a walk over the connections adds up, and what costs about as much.
const WALKED: &[(char, &str)] = &[
    ('g', "send_buffers"),
    ('g', "send_buffers_free"),
    ('g', "walked_ns"),
    ('g', "connections"),
    ('g', "channels"),
    ('g', "unacked_bytes"),
    ('g', "unsent_bytes"),
    ('c', "packets_lost"),
    ('c', "retransmits"),
    ('c', "messages_dropped"),
];

/// Fields of a row of the table of connections.
const ROW: &[&str] = &[
    "id",
    "address_high",
    "address_low",
    "port",
    "peer",
    "status",
    "link",
    "role",
    "rtt_ns",
    "rtt_min_ns",
    "window",
    "in_flight",
    "bytes_sent",
    "bytes_received",
    "packets_sent",
    "packets_received",
    "packets_lost",
    "retransmits",
    "unacked_bytes",
    "unsent_bytes",
    "channels",
    "packet_size",
];

/// Fields of a row.
pub(crate) const ROW_FIELDS: usize = ROW.len();

/// The field that says how long a shard has waited.
pub(super) const WAITED_NAME: &str = "waited_ns";
/// Which one that is.
pub(super) const WAITED: usize = ShardCounts::NAMES.len();

/// Number of fields of a shard.
pub(super) static FIELDS: LazyLock<usize> = LazyLock::new(|| names().1);

/// The names of all fields, a line each: what it is (`c`ounter, `g`auge, `r`ow), a blank, the name.
/// How many of them are a shard's.
pub(super) fn names() -> (String, usize) {
    let mut lines: Vec<String> = ShardCounts::NAMES.iter().map(|n| format!("c {n}")).collect();
    lines.push(format!("c {WAITED_NAME}"));
    lines.extend(DRIVER_NAMES.iter().map(|n| format!("c driver_{n}")));
    lines.extend(ENDPOINT_NAMES.iter().map(|n| format!("c endpoint_{n}")));
    lines.extend(NOW.iter().map(|n| format!("g {n}")));
    lines.extend(WALKED.iter().map(|(kind, n)| format!("{kind} {n}")));
    for of in ["rtt_us", "loop_us"] {
        lines.extend(SUMMARY_NAMES.iter().map(|n| format!("g {of}_{n}")));
    }
    lines.push("g rows".into());
    let fields = lines.len();
    lines.extend(ROW.iter().map(|n| format!("r {n}")));
    let mut text = lines.join("\n");
    text.push('\n');
    while !text.len().is_multiple_of(8) {
        text.push('\n');
    }
    (text, fields)
}

/// Words of a block.
pub(super) fn block_words() -> usize {
    (block::FIELDS + *FIELDS + ROWS * ROW_FIELDS).next_multiple_of(16)
}

/// Text as words; what does not fit is cut off.
pub(super) fn put_text(text: &str, words: &mut [u64]) {
    let bytes = text.as_bytes();
    for (at, word) in words.iter_mut().enumerate() {
        let mut part = [0; 8];
        for (to, from) in part.iter_mut().zip(bytes.iter().skip(at * 8)) {
            *to = *from;
        }
        *word = u64::from_ne_bytes(part);
    }
}

/// The text in words, whatever they hold.
pub(super) fn text(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
