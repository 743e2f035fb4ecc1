//! Packets between clients: the `relay` channel of each, where nothing is kept and nothing waits.
//!
//! A packet that does not fit (in a client's rate, in a channel, on the way to another event
//! source) is dropped and counted, as a router does: the connection that it belongs to notices, and
//! sends less.

use super::{Abort, EventSource, Outlet, Party, Relayed, Route, Router};
use crate::rendezvous::relay::{self, RelayError};
use crate::time::Instant;
use core::hash::Hash;

impl<K: Copy + Eq + Hash, R: Router<K>> EventSource<K, R> {
    /// A connection asks for its channel of packets. `false`: packets are not relayed here, it has
    /// one, or is not there; decline it.
    pub fn relay_opened(&mut self, key: K) -> bool {
        match self.clients.get_mut(&key) {
            Some(client) if self.config.relay && !client.relay_open => {
                client.relay_open = true;
                true
            }
            _ => false,
        }
    }

    /// A client's channel of packets has ended. It may open another.
    pub fn relay_closed(&mut self, key: K) {
        if let Some(client) = self.clients.get_mut(&key) {
            client.relay_open = false;
        }
    }

    /// A message of a client's channel of packets.
    pub fn receive_relay(
        &mut self,
        now: Instant,
        key: K,
        message: &[u8],
        out: &mut impl Outlet<K>,
    ) {
        let Some(client) = self.clients.get_mut(&key).filter(|c| c.relay_open) else { return };
        let stats = &mut self.stats.relay;
        // Whoever finds out how much passes sends too much now and then: that is no fault.
        if !client.limits.packet(now, message.len(), &self.config) {
            stats.limited += 1;
            return;
        }
        let fault = match relay::decode(message) {
            Ok(read) if read.client != client.party.client.as_str() => {
                let party = client.party.clone();
                self.relay(&party, read.client, read.packet, out);
                return;
            }
            Err(RelayError::TooLarge) => &mut stats.oversize,
            Ok(_) | Err(RelayError::Malformed(_)) => &mut stats.malformed,
        };
        *fault += 1;
        if !client.limits.fault(now, &self.config) {
            let text = "too many packets that are no good";
            self.end(key, Abort::NotAuthorized, text, out);
        }
    }

    /// A packet that the router of another event source brought here.
    pub fn relayed(&mut self, relayed: &Relayed, out: &mut impl Outlet<K>) {
        self.relay(&relayed.from, relayed.to.as_str(), &relayed.packet, out);
    }

    fn relay(&mut self, from: &Party, to: &str, packet: &[u8], out: &mut impl Outlet<K>) {
        match self.router.relay(from, to, packet) {
            Route::Here(key) => self.hand_over(key, from, packet, out),
            Route::Elsewhere => self.stats.relay.forwarded += 1,
            Route::Absent => self.stats.relay.absent += 1,
            Route::Full => self.stats.relay.overflowed += 1,
        }
    }

    /// The recipient is here: whether the packet may reach it is decided here, too.
    fn hand_over(&mut self, to: K, from: &Party, packet: &[u8], out: &mut impl Outlet<K>) {
        let stats = &mut self.stats.relay;
        let Some(client) = self.clients.get(&to).filter(|c| c.relay_open) else {
            stats.absent += 1;
            return;
        };
        if client.party.app != from.app || client.party.role == from.role {
            stats.blocked += 1;
            return;
        }
        self.scratch.clear();
        relay::encode(&mut self.scratch, from.client.as_str(), packet);
        if out.relay(to, &self.scratch) {
            stats.delivered += 1;
            stats.delivered_bytes += packet.len() as u64;
        } else {
            stats.overflowed += 1;
        }
    }
}
