//! What bench client and server say to each other, and the names of their channels.
//!
//! The first connection of a run has a control channel (kind `messages`, priority 0, JSON). All other
//! channels have names that say what the server does with them.

use super::ends::End;
use super::flows::{Load, Way};
use super::sinks::Count;
use serde::{Deserialize, Serialize};

/// Marks and their answers.
pub const CONTROL: &str = "bench/control";
/// What the name of every other channel begins with; a [`Carry`] follows.
const CARRY: &str = "bench/carry/";

/// Numbers of messages of one channel; those of the next channel follow them, so that messages that
/// change channels are found out.
const NUMBERS: u64 = 1 << 40;

/// The first number of a channel.
pub const fn first(channel: u32) -> u64 {
    channel as u64 * NUMBERS
}

/// Whether a channel may begin with this number.
pub const fn is_first(number: u64) -> bool {
    number.is_multiple_of(NUMBERS)
}

/// Client: what a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carry {
    /// Of the run, chosen by the client.
    pub session: u64,
    /// Number of the flow.
    pub flow: u32,
    pub way: Way,
    /// Number of the channel within the flow of its connection, or of the stream that is published.
    pub channel: u32,
    /// Bytes of a message.
    pub length: usize,
    /// When the server sends, on a channel that goes down.
    pub load: Load,
    /// The server lends its messages to the engine.
    pub lent: bool,
    /// Of what the server sends.
    pub priority: u8,
}

impl Carry {
    /// The name of the channel.
    pub fn name(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{CARRY}{text}")
    }

    /// From the name of a channel.
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_str(name.strip_prefix(CARRY)?).ok()
    }
}

/// Client, on the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Everything of this run stands: what goes down begins.
    Begin {
        session: u64,
    },
    Mark(Mark),
}

/// Client: what has arrived until now?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Comes back in the answer.
    pub mark: u64,
    /// Of the run.
    pub session: u64,
}

/// Server: this.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Marked {
    /// Of the question.
    pub mark: u64,
    /// The server's clock.
    pub at_ns: u64,
    /// What arrived of each flow.
    pub flows: Vec<Count>,
    /// What the server's connections of this run have sent.
    pub sent: Sent,
    /// Connections that have stood, of all clients.
    pub handshakes: u64,
    /// What its machine and its thread did.
    pub end: End,
    /// The server's driver.
    pub driver: String,
}

/// What the connections of one side have sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub packets: u64,
    /// Of those packets; the system's headers are not in it.
    pub bytes: u64,
    /// Declared lost.
    pub lost: u64,
    /// Of those: had arrived after all.
    pub spurious: u64,
    /// Reliable frames sent again.
    pub retransmits: u64,
    /// Unreliable messages dropped before they were sent.
    pub dropped: u64,
    /// The largest current packet.
    pub packet_bytes: u64,
}

impl Sent {
    /// Adds a connection.
    pub fn add(&mut self, stats: &trunkline::ConnStats) {
        self.packets += stats.packets_sent;
        self.bytes += stats.bytes_sent;
        self.lost += stats.packets_lost;
        self.spurious += stats.spurious_losses;
        self.retransmits += stats.retransmits;
        self.dropped += stats.datagrams_dropped;
        self.packet_bytes = self.packet_bytes.max(stats.packet_size);
    }

    /// Since `before`.
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
            lost: self.lost.saturating_sub(before.lost),
            spurious: self.spurious.saturating_sub(before.spurious),
            retransmits: self.retransmits.saturating_sub(before.retransmits),
            dropped: self.dropped.saturating_sub(before.dropped),
            packet_bytes: self.packet_bytes,
        }
    }

    /// With those of the other side.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            lost: self.lost + other.lost,
            spurious: self.spurious + other.spurious,
            retransmits: self.retransmits + other.retransmits,
            dropped: self.dropped + other.dropped,
            packet_bytes: self.packet_bytes.max(other.packet_bytes),
        }
    }
}

/// A control message as bytes.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

/// A control message from bytes; `None` when it is something else.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let marked = Marked {
            mark: 7,
            at_ns: u64::MAX,
            flows: vec![Count { messages: 1, bytes: 2, corrupt: 3, missing: 4 }],
            handshakes: 4,
            end: End { cpu_s: Some(0.25), ..End::default() },
            driver: "mio".into(),
            ..Marked::default()
        };
        assert_eq!(decode::<Marked>(&encode(&marked)), Some(marked));
        let mark = Ask::Mark(Mark { mark: 1, session: 2 });
        let text = b"{\"mark\":{\"mark\":1,\"session\":2,\"later\":true}}";
        assert_eq!(decode::<Ask>(text), Some(mark));
        let begin = Ask::Begin { session: u64::MAX };
        assert_eq!(decode::<Ask>(&encode(&begin)), Some(begin));
        for bad in [&b"{}"[..], b"\xff", b"{\"end\":{}}"] {
            assert_eq!(decode::<Ask>(bad), None);
        }
    }

    #[test]
    fn names_of_channels() {
        let carry = Carry {
            session: u64::MAX,
            flow: 3,
            way: Way::Down,
            channel: 9999,
            length: 1 << 24,
            load: Load::Rate(1e9 / 3.0),
            lent: true,
            priority: 6,
        };
        assert_eq!(Carry::parse(&carry.name()), Some(carry));
        assert!(carry.name().len() < trunkline::limits::MAX_CHANNEL_NAME);
        for name in ["", CARRY, "bench/carry/{}", "bench/other", "bench/carry/{\"session\":-1}"] {
            assert_eq!(Carry::parse(name), None);
        }
    }
}
