//! A connection that sends what an honest one would not.

use super::{Alone, Connection};
use crate::limits::{SHORT_HEADER_LEN, TAG_LEN};
use crate::recovery::Asks;
use crate::time::Instant;
use crate::wire::codec::Writer;
use crate::wire::transport::TransportFrame;

impl Connection {
    /// A sealed packet with this payload.
    pub(crate) fn forge(&mut self, now: Instant, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; SHORT_HEADER_LEN + payload.len() + TAG_LEN];
        let end = SHORT_HEADER_LEN + payload.len();
        packet[SHORT_HEADER_LEN..end].copy_from_slice(payload);
        let pn = self.recovery.begin_packet();
        let len = self.seal(now, &mut packet, pn, end, Asks::Soon, Some(Alone::Path));
        assert_eq!(len, packet.len());
        packet
    }

    /// The same with these frames.
    pub(crate) fn forge_frames(&mut self, now: Instant, frames: &[TransportFrame<'_>]) -> Vec<u8> {
        let mut payload = vec![0; 65_000];
        let mut w = Writer::new(&mut payload);
        for frame in frames {
            frame.write(&mut w).expect("room");
        }
        let len = w.written();
        self.forge(now, &payload[..len])
    }

    /// As if the cipher's limit were reached.
    pub(crate) fn use_up_keys(&mut self) {
        self.keys_used_up = true;
    }

    /// The peer's proof was verified.
    pub(crate) const fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Bytes kept of session tickets.
    pub(crate) fn kept_ticket_bytes(&self) -> usize {
        self.pending.tickets.as_ref().map_or(0, |tickets| tickets.bytes.capacity())
    }

    /// Answers, ids and retirements that wait for a packet.
    pub(crate) fn pending_frames(&self) -> usize {
        let p = &self.pending;
        p.path_responses.len() + p.new_ids.len() + p.retire_ids.len()
    }
}
