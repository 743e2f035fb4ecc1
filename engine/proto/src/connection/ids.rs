//! The connection ids of one connection: those we issued and those the peer issued to us
//! (RFC 9000 §5.1).

use crate::error::PeerMisbehaved;
use crate::ids::ConnectionId;
use crate::limits::{MAX_PEER_CONNECTION_IDS, RESET_TOKEN_LEN};

/// An id that the peer issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerConnectionId {
    pub(crate) sequence: u64,
    pub(crate) id: ConnectionId,
    pub(crate) token: Option<[u8; RESET_TOKEN_LEN]>,
}

/// Both sides' ids.
#[derive(Debug)]
pub(crate) struct IdSet {
    /// Our ids with sequence numbers `local_first..local_next` are live.
    local_first: u64,
    local_next: u64,
    current: PeerConnectionId,
    spares: Vec<PeerConnectionId>,
    /// Sequence numbers below this are retired.
    peer_retired_to: u64,
}

impl IdSet {
    /// Our first id has sequence 0; the peer's is not known yet.
    pub(crate) fn new() -> Self {
        Self {
            local_first: 0,
            local_next: 1,
            current: PeerConnectionId { sequence: 0, id: ConnectionId::default(), token: None },
            spares: Vec::new(),
            peer_retired_to: 0,
        }
    }

    /// The id that goes into packets to the peer.
    pub(crate) const fn peer(&self) -> ConnectionId {
        self.current.id
    }

    pub(crate) fn set_first_peer(
        &mut self,
        id: ConnectionId,
        token: Option<[u8; RESET_TOKEN_LEN]>,
    ) {
        self.current = PeerConnectionId { sequence: 0, id, token };
    }

    /// Whether `sequence` (its low 8 bits, as ids carry them) names a live id of ours.
    pub(crate) fn is_live(&self, sequence: u8) -> bool {
        (self.local_first..self.local_next).any(|s| s as u8 == sequence)
    }

    /// Takes the next sequence number for an id of ours.
    pub(crate) fn issue(&mut self) -> u64 {
        let sequence = self.local_next;
        self.local_next += 1;
        sequence
    }

    /// Live ids of ours.
    pub(crate) fn local(&self) -> core::ops::Range<u64> {
        self.local_first..self.local_next
    }

    /// RETIRE_CONNECTION_ID: returns whether a replacement is to be issued.
    pub(crate) fn retire_local(&mut self, sequence: u64) -> Result<bool, PeerMisbehaved> {
        if sequence >= self.local_next {
            return Err(PeerMisbehaved::Malformed("RETIRE_CONNECTION_ID sequence"));
        }
        // Ids are used in order, so everything before is given up as well.
        let news = sequence >= self.local_first;
        if news {
            self.local_first = (sequence + 1).min(self.local_next);
        }
        Ok(news)
    }

    /// NEW_CONNECTION_ID. Returns the reset token when the id is new to us, and pushes sequence
    /// numbers to retire.
    pub(crate) fn add_peer(
        &mut self,
        new: PeerConnectionId,
        retire_prior_to: u64,
        retire: &mut Vec<u64>,
    ) -> Result<bool, PeerMisbehaved> {
        if retire_prior_to > new.sequence {
            return Err(PeerMisbehaved::Malformed("NEW_CONNECTION_ID retire_prior_to"));
        }
        let known = |p: &PeerConnectionId| p.sequence == new.sequence;
        if let Some(old) = core::iter::once(&self.current).chain(&self.spares).find(|p| known(p)) {
            return if old.id == new.id {
                Ok(false)
            } else {
                Err(PeerMisbehaved::Malformed("NEW_CONNECTION_ID id"))
            };
        }
        if new.sequence < self.peer_retired_to {
            return Ok(false);
        }
        if self.spares.len() + 1 >= MAX_PEER_CONNECTION_IDS {
            return Err(PeerMisbehaved::Limit("connection ids"));
        }
        self.spares.push(new);
        self.spares.sort_unstable_by_key(|p| p.sequence);
        while self.current.sequence < retire_prior_to {
            match self.switch() {
                Some(old) => retire.push(old.sequence),
                None => break,
            }
        }
        Ok(true)
    }

    /// Moves to the next spare id; returns the one given up.
    pub(crate) fn switch(&mut self) -> Option<PeerConnectionId> {
        if self.spares.is_empty() {
            return None;
        }
        let old = core::mem::replace(&mut self.current, self.spares.remove(0));
        self.peer_retired_to = self.peer_retired_to.max(old.sequence + 1);
        Some(old)
    }

    /// Reset tokens of the peer's ids.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = [u8; RESET_TOKEN_LEN]> + '_ {
        core::iter::once(&self.current).chain(&self.spares).filter_map(|p| p.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PeerConnectionId {
        PeerConnectionId { sequence: u64::from(n), id: ConnectionId([n; 8]), token: Some([n; 16]) }
    }

    #[test]
    fn spares_are_used_in_order_and_bounded() {
        let mut ids = IdSet::new();
        ids.set_first_peer(ConnectionId([0; 8]), None);
        let mut retire = Vec::new();
        assert_eq!(ids.add_peer(id(2), 0, &mut retire), Ok(true));
        assert_eq!(ids.add_peer(id(1), 0, &mut retire), Ok(true));
        assert_eq!(ids.add_peer(id(1), 0, &mut retire), Ok(false), "repeated");
        assert!(
            ids.add_peer(PeerConnectionId { id: ConnectionId([9; 8]), ..id(1) }, 0, &mut retire)
                .is_err()
        );
        assert_eq!(ids.add_peer(id(3), 0, &mut retire), Ok(true));
        assert!(ids.add_peer(id(4), 0, &mut retire).is_err(), "bounded");
        assert_eq!(ids.switch().unwrap().sequence, 0);
        assert_eq!(ids.peer(), ConnectionId([1; 8]));
        assert_eq!(ids.add_peer(id(4), 3, &mut retire), Ok(true));
        assert_eq!(retire, [1, 2]);
        assert_eq!(ids.peer(), ConnectionId([3; 8]));
    }

    #[test]
    fn local_ids_retire() {
        let mut ids = IdSet::new();
        assert_eq!(ids.issue(), 1);
        assert!(ids.is_live(0) && ids.is_live(1) && !ids.is_live(2));
        assert_eq!(ids.retire_local(0), Ok(true));
        assert_eq!(ids.retire_local(0), Ok(false));
        assert!(!ids.is_live(0) && ids.is_live(1));
        assert!(ids.retire_local(5).is_err());
    }
}
