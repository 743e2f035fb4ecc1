//! Names of connections, channels, listeners and timers, as the application holds them.

use core::fmt;
use trunkline_proto::ids::{ChannelKey, ConnHandle};
use trunkline_proto::manager::{AssociationId, RequestId};

/// A connection. A stale handle is always an error, never another connection.
///
/// As 64 bits: shard 8, slot 24, generation 32. The value 0 names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn {
    shard: u8,
    handle: ConnHandle,
}

const SLOT_BITS: u32 = 24;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

impl Conn {
    pub(crate) const fn new(shard: u8, handle: ConnHandle) -> Self {
        Self { shard, handle }
    }

    /// The shard that owns it.
    pub const fn shard(self) -> u8 {
        self.shard
    }

    pub(crate) const fn handle(self) -> ConnHandle {
        self.handle
    }

    pub(crate) const fn slot(self) -> u32 {
        self.handle.slot
    }

    /// As one number; 0 never occurs.
    pub const fn to_bits(self) -> u64 {
        (self.shard as u64) << 56
            | ((self.handle.slot & SLOT_MASK) as u64) << 32
            | self.handle.generation as u64
    }

    /// From [`to_bits`](Self::to_bits). Any value is safe: a handle that was never given out is as
    /// stale as one that is no longer valid.
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            shard: (bits >> 56) as u8,
            handle: ConnHandle { slot: (bits >> 32) as u32 & SLOT_MASK, generation: bits as u32 },
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({}/{}.{})", self.shard, self.handle.slot, self.handle.generation)
    }
}

/// A channel of a connection. A stale one is always an error, never another channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    conn: Conn,
    key: ChannelKey,
}

impl Channel {
    pub(crate) const fn new(conn: Conn, key: ChannelKey) -> Self {
        Self { conn, key }
    }

    /// Its connection.
    pub const fn conn(self) -> Conn {
        self.conn
    }

    /// The channel's part of the handle: slot and life.
    pub const fn key(self) -> ChannelKey {
        self.key
    }

    /// Puts a handle together again from its parts ([`conn`](Self::conn) and
    /// [`key`](Self::key)); any value is safe.
    pub const fn from_parts(conn: Conn, key: ChannelKey) -> Self {
        Self { conn, key }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:?} {}.{})", self.conn, self.key.slot, self.key.life)
    }
}

/// A channel that was asked for by name, with the connection that it needs. A stale one is always
/// an error, never another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpenRequest {
    shard: u8,
    id: RequestId,
}

impl OpenRequest {
    pub(crate) const fn new(shard: u8, id: RequestId) -> Self {
        Self { shard, id }
    }

    /// The shard that owns it.
    pub const fn shard(self) -> u8 {
        self.shard
    }

    pub(crate) const fn id(self) -> RequestId {
        self.id
    }
}

/// A message association. A stale one is always an error, never another association.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Association {
    shard: u8,
    id: AssociationId,
}

impl Association {
    pub(crate) const fn new(shard: u8, id: AssociationId) -> Self {
        Self { shard, id }
    }

    /// The shard that owns it.
    pub const fn shard(self) -> u8 {
        self.shard
    }

    pub(crate) const fn id(self) -> AssociationId {
        self.id
    }
}

/// A listening address of an engine; unique for the engine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub(crate) u32);

impl ListenerId {
    /// As a number; 0 never occurs.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From [`to_bits`](Self::to_bits).
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// A timer of the application. A stale one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conn_round_trips_through_bits() {
        for (shard, slot, generation) in [(0, 0, 1), (255, SLOT_MASK, u32::MAX), (3, 77, 9)] {
            let conn = Conn::new(shard, ConnHandle { slot, generation });
            assert_eq!(Conn::from_bits(conn.to_bits()), conn);
            assert_ne!(conn.to_bits(), 0);
        }
    }
}
