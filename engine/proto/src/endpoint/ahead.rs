//! Looking ahead: where in memory the connections lie that are needed next.
//!
//! A connection that was quiet for some milliseconds has left the processor's caches, and dozens of
//! its lines are read one after the other when its turn comes. A driver of this endpoint knows
//! whose turn is next and can have them fetched while it works on others. Nothing depends on it.

use super::Endpoint;
use crate::connection::{Connection, PARTS};
use crate::place::Place;
use crate::wire::packet::{ShortHeader, is_short};

impl Endpoint {
    /// The connection that a datagram claims to be for, by the number of its slot.
    pub fn slot_ahead(&self, datagram: &[u8]) -> Option<u32> {
        datagram.first().filter(|first| is_short(**first))?;
        let header = ShortHeader::parse(datagram)?;
        let slot = self.shared.codec.decode(&header.dcid)?.slot;
        self.at(slot).map(|_| slot)
    }

    /// How many connections there were at once.
    pub const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The connection that writes packets when `before` others have.
    pub fn ready_ahead(&self, before: usize) -> Option<u32> {
        self.ready.get(before).copied()
    }

    /// Where a connection lies.
    pub fn place(&self, slot: u32) -> Place {
        Place::of_some(self.at(slot))
    }

    /// Where the parts of a connection lie that a message needs; reads the connection itself.
    pub fn parts(&self, slot: u32) -> [Place; PARTS] {
        self.at(slot).map_or([Place::default(); PARTS], Connection::parts)
    }

    fn at(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)?.conn.as_deref()
    }
}
