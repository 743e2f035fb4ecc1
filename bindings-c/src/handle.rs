//! Handles: 64-bit values that name something of one engine, and nothing of any other.
//!
//! The engine's own numbers (shard, slot, generation) would be the same in two engines and alike
//! for connections and channels. A handle is such a number under a mask that belongs to the engine
//! and to the kind, so that a foreign handle names, for all practical purposes, nothing. Before, its
//! bits are spread over the whole handle: one in which a bit has turned is not that of the
//! neighbour. The generation is odd, as everything that is counted is made, and the mask even: no
//! handle is 0.

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
    request: u64,
    association: u64,
    pairing: u64,
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

/// Brings the high bits down, which a multiplication does not; the lowest stays. Its own inverse.
const fn fold(n: u64) -> u64 {
    n ^ (n >> 33) << 1
}

/// The handle of an odd number under an even mask: odd, so never 0.
#[inline]
pub(crate) const fn spread(number: u64, mask: u64) -> u64 {
    fold(number).wrapping_mul(SPREAD) ^ mask
}

/// The number of a handle; an even one is of none.
#[inline]
pub(crate) const fn gather(handle: u64, mask: u64) -> u64 {
    fold((handle ^ mask).wrapping_mul(GATHER))
}

/// The number that something counted has in its handle.
const fn odd(count: u64) -> u64 {
    count << 1 | 1
}

/// What was counted, of an odd number.
const fn number(bits: u64, stale: &'static str) -> Result<u64> {
    if bits & 1 == 0 { Err(Error::handle(stale)) } else { Ok(bits >> 1) }
}

impl Masks {
    /// Of the next engine.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::of(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    const fn of(engine: u64) -> Self {
        let at = engine.wrapping_mul(7);
        Self {
            conn: mix(at) & !1,
            channel: mix(at.wrapping_add(1)) & !1,
            listener: mix(at.wrapping_add(2)) & !1,
            group: mix(at.wrapping_add(3)) & !1,
            request: mix(at.wrapping_add(4)) & !1,
            association: mix(at.wrapping_add(5)) & !1,
            pairing: mix(at.wrapping_add(6)) & !1,
        }
    }

    pub(crate) const fn conn(&self, conn: Conn) -> trunk_conn {
        spread(conn.to_bits(), self.conn)
    }

    /// The connection that a handle would name; whether there is one, the engine knows.
    pub(crate) const fn conn_of(&self, handle: trunk_conn) -> Conn {
        Conn::from_bits(gather(handle, self.conn))
    }

    pub(crate) const fn channel(&self, channel: Channel) -> trunk_channel {
        spread(QueuedEngine::channel_bits(channel), self.channel)
    }

    /// The number of the engine that a handle stands for, whatever it may name.
    #[inline]
    pub(crate) const fn channel_bits(&self, handle: trunk_channel) -> u64 {
        gather(handle, self.channel)
    }

    #[inline]
    pub(crate) fn channel_of(
        &self,
        engine: &QueuedEngine,
        handle: trunk_channel,
    ) -> Result<Channel> {
        Ok(engine.channel_from_bits(self.channel_bits(handle))?)
    }

    pub(crate) const fn listener(&self, listener: ListenerId) -> trunk_listener {
        spread(odd(listener.to_bits() as u64), self.listener)
    }

    pub(crate) fn listener_of(&self, handle: trunk_listener) -> Result<ListenerId> {
        let bits = gather(handle, self.listener);
        match u32::try_from(bits >> 1) {
            Ok(id) if id != 0 && bits & 1 == 1 => Ok(ListenerId::from_bits(id)),
            _ => Err(Error::handle("invalid or already closed listener")),
        }
    }

    pub(crate) const fn request(&self, number: u64) -> trunk_open_request {
        spread(odd(number), self.request)
    }

    /// The number that a handle would name; whether there is such a request, its shard knows.
    pub(crate) const fn request_of(&self, handle: trunk_open_request) -> Result<u64> {
        number(gather(handle, self.request), "invalid request")
    }

    pub(crate) const fn association(&self, number: u64) -> trunk_association {
        spread(odd(number), self.association)
    }

    /// As [`request_of`](Self::request_of).
    pub(crate) const fn association_of(&self, handle: trunk_association) -> Result<u64> {
        number(gather(handle, self.association), "invalid association")
    }

    pub(crate) const fn pairing(&self, number: u64) -> trunk_pairing {
        spread(odd(number), self.pairing)
    }

    /// As [`request_of`](Self::request_of).
    pub(crate) const fn pairing_of(&self, handle: trunk_pairing) -> Result<u64> {
        number(gather(handle, self.pairing), "invalid or already closed pairing")
    }

    pub(crate) const fn group(&self, index: usize) -> trunk_group {
        spread(odd(index as u64), self.group)
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
            let number = 3 << 56 | index as u64;
            assert_eq!(masks.request_of(masks.request(number)).unwrap(), number);
            assert_eq!(masks.association_of(masks.association(number)).unwrap(), number);
            assert_eq!(masks.pairing_of(masks.pairing(number)).unwrap(), number);
        }
        assert_eq!(masks.group_of(0).unwrap(), 0);
        assert!(masks.listener_of(0).is_err());
        assert!(masks.request_of(0).is_err());
    }

    #[test]
    fn a_turned_bit_makes_no_other_handle() {
        const COUNT: u64 = 10_000;
        let masks = Masks::of(1);
        for n in 1..=COUNT {
            for bit in 0..64 {
                let turned = 1 << bit;
                let others = [
                    masks.request_of(masks.request(n) ^ turned).ok(),
                    masks.association_of(masks.association(n) ^ turned).ok(),
                    masks.pairing_of(masks.pairing(n) ^ turned).ok(),
                    masks.group_of(masks.group(n as usize) ^ turned).ok().map(|n| n as u64),
                    masks
                        .listener_of(masks.listener(ListenerId::from_bits(n as u32)) ^ turned)
                        .ok()
                        .map(|id| id.to_bits().into()),
                ];
                // Below the shard.
                let count = |n: &u64| n & ((1 << 56) - 1);
                let far = others.iter().flatten().all(|n| count(n) > COUNT);
                assert!(far, "{n}, bit {bit}: {others:?}");
                // Shard, slot and generation: never those of another thing that is in use.
                let bits = (n % 256) << 56 | n << 32 | 1;
                let other = masks.conn_of(masks.conn(Conn::from_bits(bits)) ^ turned).to_bits();
                let generation = other as u32;
                assert!(generation > COUNT as u32, "{n}, bit {bit}: {other:x}");
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
            let (foreign, other) = (b.conn_of(handle).to_bits(), a.channel_bits(handle));
            near += u32::from(in_use(foreign) && (foreign as u32) < 1 << 16);
            near += u32::from(in_use(other) && (other as u32) < 1 << 16);
            assert!(b.listener_of(a.listener(ListenerId::from_bits(1))).is_err());
            assert!(b.group_of(a.group(1)).map_or(true, |index| index > 1 << 20));
        }
        assert_eq!(near, 0);
    }
}
