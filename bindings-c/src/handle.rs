//! Handles: 64-bit values that name something of one engine, and nothing of any other.
//!
//! The engine's own numbers (shard, slot, generation) would be the same in two engines and alike
//! for connections and channels. A handle is such a number under a mask that belongs to the engine
//! and to the kind, so that a foreign handle names, for all practical purposes, nothing. The
//! generation is odd and the mask even: no handle is 0.
//!
//! Numbers without a generation are counted: their bits are spread over the whole handle first, so
//! that a handle in which a bit has turned is not that of the neighbour.

use crate::result::{Error, Result};
use engine::{Channel, Conn, ListenerId, QueuedEngine};
use std::sync::atomic::{AtomicU64, Ordering};

/// A connection. 0 is none.
pub type trunk_conn = u64;
/// A channel of a connection. 0 is none.
pub type trunk_channel = u64;
/// An address that is listened at. 0 is none.
pub type trunk_listener = u64;
/// A request of trunk_channel_request, until its TRUNK_ITEM_OPENED. 0 is none.
pub type trunk_open_request = u64;
/// An association. 0 is none.
pub type trunk_association = u64;
/// A pairing. 0 is none.
pub type trunk_pairing = u64;
/// A poll group. 0 is the engine's own group, which every connection is in at first.
pub type trunk_group = u64;

/// The masks of one engine.
#[derive(Debug)]
pub(crate) struct Masks {
    conn: u64,
    channel: u64,
    listener: u64,
    group: u64,
    number: u64,
}

/// A step of splitmix64: every input has its own output.
pub(crate) const fn mix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An odd number has an inverse among the 64-bit ones.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const GATHER: u64 = 0xf1de_83e1_9937_733d;
const _: () = assert!(SPREAD.wrapping_mul(GATHER) == 1);

/// The handle of an odd number under an even mask: odd, so never 0.
pub(crate) const fn spread(number: u64, mask: u64) -> u64 {
    number.wrapping_mul(SPREAD) ^ mask
}

/// The number of a handle; an even one is of none.
pub(crate) const fn gather(handle: u64, mask: u64) -> u64 {
    (handle ^ mask).wrapping_mul(GATHER)
}

impl Masks {
    /// Of the next engine.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::of(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    const fn of(engine: u64) -> Self {
        let at = engine.wrapping_mul(5);
        Self {
            conn: mix(at) & !1,
            channel: mix(at.wrapping_add(1)) & !1,
            listener: mix(at.wrapping_add(2)) & !1,
            group: mix(at.wrapping_add(3)) & !1,
            number: mix(at.wrapping_add(4)) & !1,
        }
    }

    pub(crate) const fn conn(&self, conn: Conn) -> trunk_conn {
        conn.to_bits() ^ self.conn
    }

    /// The connection that a handle would name; whether there is one, the engine knows.
    pub(crate) const fn conn_of(&self, handle: trunk_conn) -> Conn {
        Conn::from_bits(handle ^ self.conn)
    }

    pub(crate) const fn channel(&self, channel: Channel) -> trunk_channel {
        QueuedEngine::channel_bits(channel) ^ self.channel
    }

    /// The number of the engine that a handle stands for, whatever it may name.
    #[inline]
    pub(crate) const fn channel_bits(&self, handle: trunk_channel) -> u64 {
        handle ^ self.channel
    }

    #[inline]
    pub(crate) fn channel_of(
        &self,
        engine: &QueuedEngine,
        handle: trunk_channel,
    ) -> Result<Channel> {
        Ok(engine.channel_from_bits(handle ^ self.channel)?)
    }

    pub(crate) const fn listener(&self, listener: ListenerId) -> trunk_listener {
        spread((listener.to_bits() as u64) << 1 | 1, self.listener)
    }

    pub(crate) fn listener_of(&self, handle: trunk_listener) -> Result<ListenerId> {
        let bits = gather(handle, self.listener);
        match u32::try_from(bits >> 1) {
            Ok(id) if id != 0 && bits & 1 == 1 => Ok(ListenerId::from_bits(id)),
            _ => Err(Error::handle("invalid or already closed listener")),
        }
    }

    /// Of a request, an association or a pairing: one count for all three.
    pub(crate) const fn number(&self, number: u64) -> u64 {
        spread(number << 1 | 1, self.number)
    }

    /// The number that a handle names; whether there is such a thing, its shard knows.
    pub(crate) const fn number_of(&self, handle: u64) -> Result<u64> {
        let bits = gather(handle, self.number);
        if bits & 1 == 0 {
            return Err(Error::handle("invalid or already closed handle"));
        }
        Ok(bits >> 1)
    }

    pub(crate) const fn group(&self, index: usize) -> trunk_group {
        spread((index as u64) << 1 | 1, self.group)
    }

    /// The index of a group; 0 for the engine's own.
    pub(crate) fn group_of(&self, handle: trunk_group) -> Result<usize> {
        if handle == 0 {
            return Ok(0);
        }
        let bits = gather(handle, self.group);
        match usize::try_from(bits >> 1) {
            Ok(index) if index != 0 && bits & 1 == 1 => Ok(index),
            _ => Err(Error::handle("invalid poll group")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_come_back_and_are_never_zero() {
        let masks = Masks::of(1);
        for bits in [1, 3, 1 << 32 | 1, 7 << 56 | 5 << 32 | 9] {
            let handle = masks.conn(Conn::from_bits(bits));
            assert_ne!(handle, 0);
            assert_eq!(masks.conn_of(handle).to_bits(), bits);
        }
        for index in [1, 2, 1000] {
            assert_eq!(masks.group_of(masks.group(index)).unwrap(), index);
            let id = ListenerId::from_bits(index as u32);
            assert_eq!(masks.listener_of(masks.listener(id)).unwrap(), id);
            assert_eq!(masks.number_of(masks.number(index as u64)).unwrap(), index as u64);
        }
        assert_eq!(masks.group_of(0).unwrap(), 0);
        assert!(masks.listener_of(0).is_err());
        assert!(masks.number_of(0).is_err());
    }

    #[test]
    fn a_turned_bit_makes_no_other_handle_of_what_is_counted() {
        const COUNT: u64 = 10_000;
        let masks = Masks::of(1);
        for n in 1..=COUNT {
            for bit in 0..64 {
                let turned = 1 << bit;
                let others = [
                    masks.number_of(masks.number(n) ^ turned).ok(),
                    masks.group_of(masks.group(n as usize) ^ turned).ok().map(|n| n as u64),
                    masks
                        .listener_of(masks.listener(ListenerId::from_bits(n as u32)) ^ turned)
                        .ok()
                        .map(|id| id.to_bits().into()),
                ];
                assert!(others.iter().flatten().all(|n| *n > COUNT), "{n}, bit {bit}: {others:?}");
            }
        }
    }

    #[test]
    fn foreign_handles_lie_far_from_everything_that_is_in_use() {
        // Shards, slots and generations that an engine reaches: all of them small.
        let in_use = |bits: u64| bits >> 56 < 8 && (bits >> 32 & 0xff_ffff) < 1 << 20;
        let mut near = 0;
        for n in 1..200u64 {
            let (a, b) = (Masks::of(n), Masks::of(n + 1));
            let handle = a.conn(Conn::from_bits(1));
            near += u32::from(in_use(handle ^ b.conn) && ((handle ^ b.conn) as u32) < 1 << 16);
            near +=
                u32::from(in_use(handle ^ a.channel) && ((handle ^ a.channel) as u32) < 1 << 16);
            assert!(b.listener_of(a.listener(ListenerId::from_bits(1))).is_err());
            assert!(b.group_of(a.group(1)).map_or(true, |index| index > 1 << 20));
        }
        assert_eq!(near, 0);
    }
}
