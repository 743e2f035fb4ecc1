//! Two connections that two peers make to each other at once: what one side decides about them, by
//! itself and from what it knows (`docs/routes.md`).
//!
//! A client proves itself only to a host that has done so, and is accepted only then. So the side
//! whose own connection goes first can still let the other one through while the peer has proved
//! nothing on its own; afterwards, and until its own has failed, the other one must wait.

use crate::ids::{ConnectionId, PeerId};
use crate::status::Status;
use crate::time::Instant;
use std::net::SocketAddr;

/// What tells two connections of the same two peers apart, the same on both sides: who its client
/// is, and the first id that the client took. The lower one goes first.
pub(crate) type Precedence = (PeerId, ConnectionId);

/// What one side knows of a connection that was made over a relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    /// The address that stands for the peer.
    pub(crate) relay: SocketAddr,
    pub(crate) status: Status,
    /// `None` when its client shows no certificate: then it is in nobody's way.
    pub(crate) precedence: Option<Precedence>,
    /// Who the peer has proved to be.
    pub(crate) peer: Option<PeerId>,
    pub(crate) began: Instant,
    /// So long the peer's waits for ours, on which the peer has proved nothing.
    pub(crate) hopes_until: Instant,
    /// When its host accepted it, as this side heard.
    pub(crate) agreed: Option<Instant>,
}

/// What stands between a connection of a peer that has proved itself and its acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hold {
    /// The application does not know it yet: one of ours may come about.
    Held,
    /// The application decides.
    Told,
    /// The application has accepted it; one of ours may have been accepted, too.
    Accepting,
}

/// What becomes of such a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing for now; at the latest then there is something new to decide.
    Keep(Option<Instant>),
    /// The application learns of it.
    Tell,
    /// It is accepted, and ours give way to it.
    Accept,
    /// It ends without a word: the application knows nothing of it.
    Discard,
    /// It ends, and the application learns for which of ours.
    GiveWay(u32),
}

/// How one of ours stands to one of a peer's.
#[derive(Clone, Copy)]
enum Standing {
    /// It has nothing to do with it, or gives way when that is accepted.
    Behind,
    /// It goes first if it comes about. The peer has proved nothing so far.
    Hopeful,
    /// It goes first, and the peer, which has proved itself, may accept it at any moment.
    Proven,
    /// The peer has accepted it.
    Accepted,
}

impl Contender {
    fn is_usable(&self) -> bool {
        matches!(self.status, Status::Connecting | Status::FindingRoute | Status::Connected)
    }

    /// Where both stand, if they are connections of the same peers that were begun before either was
    /// accepted. What comes at the very moment of an acceptance comes behind it.
    fn precedences(&self, ours: &Self) -> Option<(Precedence, Precedence)> {
        let (theirs, own) = (self.precedence?, ours.precedence?);
        let same = ours.relay == self.relay && ours.peer.is_none_or(|id| id == theirs.0);
        let overlap = ours.agreed.is_none_or(|at| self.began < at);
        (same && overlap && ours.is_usable()).then_some((theirs, own))
    }

    fn standing(&self, ours: &Self) -> Standing {
        match self.precedences(ours) {
            Some((theirs, own)) if own < theirs => {
                if ours.agreed.is_some() {
                    Standing::Accepted
                } else if ours.peer.is_some() {
                    Standing::Proven
                } else {
                    Standing::Hopeful
                }
            }
            _ => Standing::Behind,
        }
    }

    /// What becomes of this connection of a peer beside `ours`.
    pub(crate) fn step(
        &self,
        now: Instant,
        hold: Hold,
        ours: impl Iterator<Item = (u32, Self)>,
    ) -> Step {
        let (mut proven, mut hopeful) = (false, None);
        for (slot, own) in ours {
            match self.standing(&own) {
                Standing::Accepted if hold == Hold::Held => return Step::Discard,
                Standing::Accepted => return Step::GiveWay(slot),
                Standing::Proven => proven = true,
                Standing::Hopeful => hopeful = hopeful.max(Some(own.hopes_until)),
                Standing::Behind => {}
            }
        }
        let hopeful = hopeful.filter(|until| now < *until);
        match hold {
            Hold::Told => Step::Keep(None),
            _ if proven => Step::Keep(None),
            Hold::Held if hopeful.is_some() => Step::Keep(hopeful),
            Hold::Held => Step::Tell,
            Hold::Accepting => Step::Accept,
        }
    }

    /// Whether one of ours gives way to this connection of a peer when that is accepted.
    pub(crate) fn takes_place_of(&self, ours: &Self) -> bool {
        ours.status == Status::Connecting && self.precedences(ours).is_some()
    }
}

#[cfg(test)]
mod tests;
