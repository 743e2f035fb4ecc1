//! What bench client and server say to each other, and the names of their channels.
//!
//! A connection has one control channel (kind `messages`, priority 0, JSON) and one or two more
//! whose names say what the server does with their messages.

use serde::{Deserialize, Serialize};

/// Marks and their answers.
pub const CONTROL: &str = "bench/control";
/// Messages are checked and counted.
pub const SINK: &str = "bench/sink";
/// Messages are checked, counted and sent back.
pub const ECHO: &str = "bench/echo";
/// Messages are sent back and not counted: round trips beside a load.
pub const PROBE: &str = "bench/probe";

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

/// Client: what has arrived until now?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Comes back in the answer.
    pub mark: u64,
    /// The client's number of this connection; comes back too.
    #[serde(default)]
    pub link: u32,
}

/// Server: this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marked {
    /// Of the question.
    pub mark: u64,
    /// Of the question.
    #[serde(default)]
    pub link: u32,
    /// The server's clock.
    pub at_ns: u64,
    /// Messages of the connection that were delivered and right.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that were not right.
    pub corrupt: u64,
    /// Connections that have stood, of all clients.
    #[serde(default)]
    pub handshakes: u64,
    /// CPU seconds of the server's shard.
    pub cpu_s: Option<f64>,
    /// The server's driver.
    pub driver: String,
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
            link: 9,
            at_ns: u64::MAX,
            messages: 1,
            bytes: 2,
            corrupt: 3,
            handshakes: 4,
            cpu_s: Some(0.25),
            driver: "mio".into(),
        };
        assert_eq!(decode::<Marked>(&encode(&marked)), Some(marked));
        assert_eq!(decode::<Mark>(b"{\"mark\":1,\"later\":true}"), Some(Mark { mark: 1, link: 0 }));
        assert_eq!(decode::<Mark>(b"{}"), None);
        assert_eq!(decode::<Mark>(b"\xff"), None);
    }
}
