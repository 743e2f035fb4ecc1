//! The connection ids of one connection: those we issued and those the peer issued to us
//! (RFC 9000 §5.1).

use crate::error::PeerMisbehaved;
use crate::ids::ConnectionId;
use crate::lean::reserve_first;
use crate::limits::{MAX_PEER_CONNECTION_IDS, RESET_TOKEN_LEN};

/// Ids of ours that are live at once: the one in use and a spare one.
const LOCAL_IDS: usize = 2;
/// Ids of the peer that we have given up and that it does not know to be given up. A peer that
/// makes us give up more and acknowledges nothing misbehaves (RFC 9000 §5.1.2).
const MAX_RETIRING: usize = 4 * MAX_PEER_CONNECTION_IDS;

/// An id that the peer issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerConnectionId {
    pub(crate) sequence: u64,
    pub(crate) id: ConnectionId,
    pub(crate) token: Option<[u8; RESET_TOKEN_LEN]>,
}

/// Both sides' ids.
#[derive(Debug)]
pub(crate) struct IdSet {
    /// Sequence numbers of our live ids.
    local: [Option<u64>; LOCAL_IDS],
    local_next: u64,
    current: PeerConnectionId,
    spares: Vec<PeerConnectionId>,
    /// The peer wants sequence numbers below this given up.
    peer_retired_to: u64,
    /// Sequence numbers given up, until the peer has acknowledged that.
    retiring: Vec<u64>,
}

impl IdSet {
    /// Our first id has sequence 0; the peer's is not known yet.
    pub(crate) fn new() -> Self {
        Self {
            local: [Some(0), None],
            local_next: 1,
            current: PeerConnectionId { sequence: 0, id: ConnectionId::default(), token: None },
            spares: Vec::new(),
            peer_retired_to: 0,
            retiring: Vec::new(),
        }
    }

    /// The id that goes into packets to the peer.
    pub(crate) const fn peer(&self) -> ConnectionId {
        self.current.id
    }

    /// The reset token of that id. Tokens of ids that are not in use count for nothing
    /// (RFC 9000 §10.3.1).
    pub(crate) const fn token(&self) -> Option<[u8; RESET_TOKEN_LEN]> {
        self.current.token
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
        self.local.iter().any(|s| s.is_some_and(|s| s as u8 == sequence))
    }

    /// Whether our id with this sequence number is live.
    pub(crate) fn is_local(&self, sequence: u64) -> bool {
        self.local.contains(&Some(sequence))
    }

    /// Takes the next sequence number for an id of ours; `None` when there are enough.
    pub(crate) fn issue(&mut self) -> Option<u64> {
        let free = self.local.iter_mut().find(|s| s.is_none())?;
        let sequence = self.local_next;
        self.local_next += 1;
        *free = Some(sequence);
        Some(sequence)
    }

    /// RETIRE_CONNECTION_ID: the peer uses this id no more, nor any with a lower number.
    pub(crate) fn retire_local(&mut self, sequence: u64) -> Result<(), PeerMisbehaved> {
        if sequence >= self.local_next {
            return Err(PeerMisbehaved::Malformed("RETIRE_CONNECTION_ID sequence"));
        }
        for local in &mut self.local {
            local.take_if(|s| *s <= sequence);
        }
        Ok(())
    }

    /// NEW_CONNECTION_ID. Pushes the sequence numbers for which RETIRE_CONNECTION_ID is to be sent.
    pub(crate) fn add_peer(
        &mut self,
        new: PeerConnectionId,
        retire_prior_to: u64,
        retire: &mut Vec<u64>,
    ) -> Result<(), PeerMisbehaved> {
        if retire_prior_to > new.sequence {
            return Err(PeerMisbehaved::Malformed("NEW_CONNECTION_ID retire_prior_to"));
        }
        let known = |p: &&PeerConnectionId| p.sequence == new.sequence;
        if let Some(old) = core::iter::once(&self.current).chain(&self.spares).find(known) {
            let same = old.id == new.id && (old.token.is_none() || old.token == new.token);
            return if same { Ok(()) } else { Err(PeerMisbehaved::Malformed("NEW_CONNECTION_ID")) };
        }
        self.peer_retired_to = self.peer_retired_to.max(retire_prior_to);
        if new.sequence < self.peer_retired_to.max(self.current.sequence) {
            // Too late: giving up an id gives up all before it.
            return self.give_up(new.sequence, retire);
        }
        let at = self.spares.partition_point(|p| p.sequence < new.sequence);
        reserve_first(&mut self.spares);
        self.spares.insert(at, new);
        while let Some(spare) = self.spares.first().filter(|p| p.sequence < self.peer_retired_to) {
            let sequence = spare.sequence;
            self.spares.remove(0);
            self.give_up(sequence, retire)?;
        }
        if self.current.sequence < self.peer_retired_to {
            self.switch(retire)?;
        }
        if self.spares.len() + 1 > MAX_PEER_CONNECTION_IDS {
            return Err(PeerMisbehaved::Limit("connection ids"));
        }
        Ok(())
    }

    /// Moves to the next spare id, if there is one, and pushes the sequence number given up.
    pub(crate) fn switch(&mut self, retire: &mut Vec<u64>) -> Result<bool, PeerMisbehaved> {
        if self.spares.is_empty() {
            return Ok(false);
        }
        let old = core::mem::replace(&mut self.current, self.spares.remove(0));
        self.give_up(old.sequence, retire)?;
        Ok(true)
    }

    fn give_up(&mut self, sequence: u64, retire: &mut Vec<u64>) -> Result<(), PeerMisbehaved> {
        if self.retiring.contains(&sequence) {
            return Ok(());
        }
        if self.retiring.len() >= MAX_RETIRING {
            return Err(PeerMisbehaved::Limit("connection ids given up"));
        }
        self.retiring.push(sequence);
        retire.push(sequence);
        Ok(())
    }

    /// Whether the peer has not acknowledged that this id of its is given up.
    pub(crate) fn is_retiring(&self, sequence: u64) -> bool {
        self.retiring.contains(&sequence)
    }

    /// The peer has acknowledged RETIRE_CONNECTION_ID.
    pub(crate) fn on_retired(&mut self, sequence: u64) {
        self.retiring.retain(|s| *s != sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PeerConnectionId {
        PeerConnectionId { sequence: u64::from(n), id: ConnectionId([n; 8]), token: Some([n; 16]) }
    }

    fn ids() -> IdSet {
        let mut ids = IdSet::new();
        ids.set_first_peer(ConnectionId([0; 8]), Some([0; 16]));
        ids
    }

    #[test]
    fn spares_are_used_in_order_and_bounded() {
        let (mut ids, mut retire) = (ids(), Vec::new());
        ids.add_peer(id(2), 0, &mut retire).unwrap();
        ids.add_peer(id(1), 0, &mut retire).unwrap();
        ids.add_peer(id(1), 0, &mut retire).expect("repeated");
        let other = PeerConnectionId { id: ConnectionId([9; 8]), ..id(1) };
        assert!(ids.add_peer(other, 0, &mut retire).is_err(), "another id");
        let other = PeerConnectionId { token: Some([9; 16]), ..id(1) };
        assert!(ids.add_peer(other, 0, &mut retire).is_err(), "another token");
        ids.add_peer(id(3), 0, &mut retire).unwrap();
        assert_eq!(ids.switch(&mut retire), Ok(true));
        assert_eq!((ids.peer(), ids.token()), (ConnectionId([1; 8]), Some([1; 16])));
        assert_eq!(retire, [0]);
        ids.add_peer(id(4), 3, &mut retire).unwrap();
        assert_eq!(retire, [0, 2, 1]);
        assert_eq!(ids.peer(), ConnectionId([3; 8]));
        ids.add_peer(id(5), 0, &mut retire).unwrap();
        ids.add_peer(id(6), 0, &mut retire).unwrap();
        assert!(ids.add_peer(id(7), 0, &mut retire).is_err(), "bounded");
    }

    #[test]
    fn what_is_given_up_before_it_comes_is_never_used() {
        let (mut ids, mut retire) = (ids(), Vec::new());
        ids.add_peer(id(3), 3, &mut retire).unwrap();
        assert_eq!((ids.peer(), retire.as_slice()), (ConnectionId([3; 8]), [0].as_slice()));
        ids.add_peer(id(1), 0, &mut retire).unwrap();
        ids.add_peer(id(1), 0, &mut retire).unwrap();
        assert_eq!(retire, [0, 1], "given up once");
        assert_eq!(ids.switch(&mut retire), Ok(false));
        ids.on_retired(1);
        assert!(ids.is_retiring(0) && !ids.is_retiring(1));
    }

    #[test]
    fn a_peer_cannot_make_us_remember_without_bound() {
        let (mut ids, mut retire) = (ids(), Vec::new());
        let refused = (1..=255).find(|n| ids.add_peer(id(*n), u64::from(*n), &mut retire).is_err());
        assert_eq!(refused, Some(MAX_RETIRING as u8 + 1));
        assert_eq!(retire.len(), MAX_RETIRING);
    }

    #[test]
    fn local_ids_retire() {
        let mut ids = IdSet::new();
        assert_eq!((ids.issue(), ids.issue()), (Some(1), None));
        assert!(ids.is_live(0) && ids.is_live(1) && !ids.is_live(2));
        assert_eq!(ids.retire_local(0), Ok(()));
        assert_eq!(ids.retire_local(0), Ok(()), "repeated");
        assert!(!ids.is_live(0) && ids.is_local(1));
        assert_eq!((ids.issue(), ids.issue()), (Some(2), None));
        assert_eq!(ids.retire_local(2), Ok(()));
        assert!(!ids.is_local(1) && !ids.is_local(2), "all before it as well");
        assert_eq!((ids.issue(), ids.issue(), ids.issue()), (Some(3), Some(4), None));
        assert!(ids.retire_local(5).is_err());
    }
}
