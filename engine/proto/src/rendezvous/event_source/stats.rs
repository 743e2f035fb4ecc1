//! What an event source counts.

use crate::rendezvous::event::{Abort, EventType};

/// Counters of what an event source does with packets between clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Packets handed to clients here.
    pub delivered: u64,
    /// Bytes of them.
    pub delivered_bytes: u64,
    /// Packets handed to the router for elsewhere.
    pub forwarded: u64,
    /// Packets for a client that is not there, or that takes none.
    pub absent: u64,
    /// Packets that may not pass between their sender and their recipient.
    pub blocked: u64,
    /// Packets that could not be read.
    pub malformed: u64,
    /// Packets longer than one can be.
    pub oversize: u64,
    /// Packets beyond what a client may have relayed.
    pub limited: u64,
    /// Packets that found the channel of their recipient full, or the way to it.
    pub overflowed: u64,
}

/// Counters of an event source, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceStats {
    /// Clients that were let in.
    pub attached: u64,
    /// Clients that were not, by [`Abort::ALL`].
    pub refused: [u64; Abort::ALL.len()],
    /// Clients that were sent away because too many were there.
    pub busy: u64,
    /// Clients that were let in and aborted later, by [`Abort::ALL`].
    pub aborted: [u64; Abort::ALL.len()],
    /// Events of clients, by [`EventType::ALL`].
    pub received: [u64; EventType::ALL.len()],
    /// Events handed to clients here, also those that waited.
    pub delivered: u64,
    /// Events handed to the router for elsewhere.
    pub forwarded: u64,
    /// Events for a client that is not there.
    pub absent: u64,
    /// Pings between applications, each answered with a `reject`.
    pub rejected_app: u64,
    /// Pings between clients of one role, each answered with a `reject`.
    pub rejected_role: u64,
    /// Other events that may not pass between their sender and their recipient.
    pub blocked: u64,
    /// Events that gave a false sender.
    pub forged: u64,
    /// Events that could not be read.
    pub malformed: u64,
    /// Events longer than an event can be.
    pub oversize: u64,
    /// Events of a type that is not known.
    pub unknown_type: u64,
    /// Events beyond what a client may send.
    pub limited: u64,
    /// Events that had to wait for their recipient.
    pub queued: u64,
    /// Events that found the queue of their recipient full, or the way to it.
    pub overflowed: u64,
    /// Packets between clients.
    pub relay: RelayStats,
}

/// One of the counters, for monitoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What is counted.
    pub name: &'static str,
    /// What is counted by reason or by type: which of the two, and the reason or the type.
    pub label: Option<(&'static str, &'static str)>,
    /// How many.
    pub value: u64,
}

impl RelayStats {
    fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.forwarded += other.forwarded;
        self.absent += other.absent;
        self.blocked += other.blocked;
        self.malformed += other.malformed;
        self.oversize += other.oversize;
        self.limited += other.limited;
        self.overflowed += other.overflowed;
    }
}

impl SourceStats {
    /// All counters, those of one name in a row.
    pub fn counters(&self) -> Vec<Counter> {
        let mut all: Vec<Counter> = [
            ("clients_attached", self.attached),
            ("clients_busy", self.busy),
            ("events_delivered", self.delivered),
            ("events_forwarded", self.forwarded),
            ("events_queued", self.queued),
            ("relay_packets_delivered", self.relay.delivered),
            ("relay_bytes_delivered", self.relay.delivered_bytes),
            ("relay_packets_forwarded", self.relay.forwarded),
        ]
        .map(|(name, value)| Counter { name, label: None, value })
        .into();
        let mut push = |name, label, value| all.push(Counter { name, label: Some(label), value });
        for (reason, count) in Abort::ALL.iter().zip(self.refused) {
            push("clients_refused", ("reason", reason.name()), count);
        }
        for (reason, count) in Abort::ALL.iter().zip(self.aborted) {
            push("clients_aborted", ("reason", reason.name()), count);
        }
        for (kind, count) in EventType::ALL.iter().zip(self.received) {
            push("events_received", ("type", kind.name()), count);
        }
        for (why, count) in [
            ("absent", self.absent),
            ("app_id_mismatch", self.rejected_app),
            ("invalid_partner_role", self.rejected_role),
            ("blocked", self.blocked),
            ("forged", self.forged),
            ("malformed", self.malformed),
            ("oversize", self.oversize),
            ("unknown_type", self.unknown_type),
            ("limited", self.limited),
            ("overflowed", self.overflowed),
        ] {
            push("events_dropped", ("reason", why), count);
        }
        for (why, count) in [
            ("absent", self.relay.absent),
            ("blocked", self.relay.blocked),
            ("malformed", self.relay.malformed),
            ("oversize", self.relay.oversize),
            ("limited", self.relay.limited),
            ("overflowed", self.relay.overflowed),
        ] {
            push("relay_packets_dropped", ("reason", why), count);
        }
        all
    }

    pub(super) fn refuse(&mut self, reason: Abort) {
        self.refused[position(reason)] += 1;
    }

    pub(super) fn abort(&mut self, reason: Abort) {
        self.aborted[position(reason)] += 1;
    }

    pub(super) fn receive(&mut self, kind: EventType) {
        self.received[kind as usize] += 1;
    }

    /// Adds the counters of another event source.
    pub fn add(&mut self, other: &Self) {
        let Self { attached, busy, delivered, forwarded, absent, .. } = *other;
        self.attached += attached;
        self.busy += busy;
        self.delivered += delivered;
        self.forwarded += forwarded;
        self.absent += absent;
        self.rejected_app += other.rejected_app;
        self.rejected_role += other.rejected_role;
        self.blocked += other.blocked;
        self.forged += other.forged;
        self.malformed += other.malformed;
        self.oversize += other.oversize;
        self.unknown_type += other.unknown_type;
        self.limited += other.limited;
        self.queued += other.queued;
        self.overflowed += other.overflowed;
        self.relay.add(&other.relay);
        let pairs = [
            (&mut self.refused[..], &other.refused[..]),
            (&mut self.aborted[..], &other.aborted[..]),
            (&mut self.received[..], &other.received[..]),
        ];
        for (into, from) in pairs {
            for (into, from) in into.iter_mut().zip(from) {
                *into += from;
            }
        }
    }
}

fn position(reason: Abort) -> usize {
    (reason as u32 - Abort::ALL[0] as u32) as usize
}

const _: () = {
    let mut at = 0;
    while at < Abort::ALL.len() {
        assert!(Abort::ALL[at] as u32 == Abort::ALL[0] as u32 + at as u32);
        at += 1;
    }
    let mut at = 0;
    while at < EventType::ALL.len() {
        assert!(EventType::ALL[at] as usize == at);
        at += 1;
    }
};
