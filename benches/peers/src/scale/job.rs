//! What one point of a series is made of.

use serde::{Deserialize, Serialize};

/// What the connections of a point do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Unreliable messages both ways at a fixed rate, to one channel after the other.
    Beats,
    /// Reliable messages from the client, as fast as they are taken.
    Flood,
}

/// A point of a series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The load.
    pub load: Load,
    /// Connections, spread over the shards.
    pub connections: usize,
    /// Channels on each of them.
    pub channels: usize,
    /// Shards of each side, each pinned to a processor of its own.
    pub shards: usize,
    /// Of [`Load::Beats`]: times a second at which messages are sent.
    pub beats_per_s: u32,
    /// Messages sent at each of them, each way.
    pub per_beat: usize,
}

/// Beats a second of every series, so that messages are gathered alike at every point.
pub const BEATS_PER_S: u32 = 2_000;

impl Point {
    /// `per_s` messages a second each way, to all channels in turn.
    pub fn beats(connections: usize, channels: usize, per_s: u64) -> Self {
        Self {
            load: Load::Beats,
            connections,
            channels,
            shards: 1,
            beats_per_s: BEATS_PER_S,
            per_beat: usize::try_from(per_s / u64::from(BEATS_PER_S)).unwrap_or(1).max(1),
        }
    }

    /// As fast as it goes, over several connections.
    pub const fn flood(connections: usize, shards: usize) -> Self {
        Self { load: Load::Flood, connections, channels: 1, shards, beats_per_s: 0, per_beat: 0 }
    }

    /// Messages a second each way.
    pub fn per_s(&self) -> f64 {
        f64::from(self.beats_per_s) * self.per_beat as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_add_up() {
        let point = Point::beats(10_000, 1, 50_000);
        assert_eq!((point.per_beat, point.per_s() as u64), (25, 50_000));
        assert_eq!(Point::beats(1, 1, 1).per_beat, 1);
    }
}
