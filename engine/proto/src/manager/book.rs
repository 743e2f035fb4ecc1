//! Which connections there are, for what they can be shared, and who looks after them.

use super::hold::{Hold, HoldState};
use super::key::{Reuse, ReuseKey, Target};
use super::security::SecHandle;
use crate::endpoint::Endpoint;
use crate::error::CloseReason;
use crate::ids::ConnHandle;
use crate::status::Status;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A connection that the manager has to do with.
#[derive(Debug)]
pub(super) struct Record {
    /// How it was made; `None` for one that a peer made.
    pub(super) target: Option<Arc<Target>>,
    pub(super) key: Option<ReuseKey>,
    /// It was Connected once.
    pub(super) connected: bool,
    /// It is over for the application: why.
    pub(super) over: Option<CloseReason>,
    /// We ended it, not the network and not the peer.
    pub(super) closed_here: bool,
    /// It was made for a request or an association and nobody else has its handle.
    pub(super) mine: bool,
    /// Kept until it stands or has failed.
    pub(super) handle: Option<SecHandle>,
    pub(super) hold: Option<Hold>,
}

impl Record {
    pub(super) const fn new(
        target: Option<Arc<Target>>,
        key: Option<ReuseKey>,
        mine: bool,
    ) -> Self {
        Self {
            target,
            key,
            connected: false,
            over: None,
            closed_here: false,
            mine,
            handle: None,
            hold: None,
        }
    }

    /// Whether something new may be started on it.
    fn is_open(&self) -> bool {
        self.over.is_none()
            && self
                .hold
                .is_none_or(|h| !matches!(h.state(), HoldState::Retiring | HoldState::Closing))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    records: BTreeMap<ConnHandle, Record>,
    by_key: BTreeMap<ReuseKey, Vec<ConnHandle>>,
    /// When to look at which.
    looks: BTreeSet<(Instant, ConnHandle)>,
}

impl Book {
    pub(super) fn get(&self, conn: ConnHandle) -> Option<&Record> {
        self.records.get(&conn)
    }

    pub(super) fn get_mut(&mut self, conn: ConnHandle) -> Option<&mut Record> {
        self.records.get_mut(&conn)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn insert(&mut self, conn: ConnHandle, record: Record) {
        if let Some(key) = record.key {
            self.by_key.entry(key).or_default().push(conn);
        }
        self.records.insert(conn, record);
    }

    /// The record of a connection, made if there is none.
    pub(super) fn ensure(&mut self, conn: ConnHandle) -> &mut Record {
        self.records.entry(conn).or_insert_with(|| {
            let mut record = Record::new(None, None, false);
            record.connected = true;
            record
        })
    }

    fn unlist(&mut self, conn: ConnHandle, key: Option<ReuseKey>) {
        let Some(key) = key else { return };
        if let Some(conns) = self.by_key.get_mut(&key) {
            conns.retain(|c| *c != conn);
            if conns.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    pub(super) fn remove(&mut self, conn: ConnHandle) -> Option<Record> {
        self.hold_no_more(conn);
        let record = self.records.remove(&conn)?;
        self.unlist(conn, record.key);
        Some(record)
    }

    /// A connection to share: one that stands before one that is being made, the newest of each.
    pub(super) fn find(
        &self,
        endpoint: &Endpoint,
        key: &ReuseKey,
        reuse: Reuse,
        not: Option<ConnHandle>,
    ) -> Option<ConnHandle> {
        if reuse == Reuse::ForceNew {
            return None;
        }
        let usable = |conn: &&ConnHandle| {
            Some(**conn) != not
                && self.records.get(conn).is_some_and(Record::is_open)
                && is_usable(endpoint, **conn)
        };
        let stands = |conn: &ConnHandle| endpoint.status(*conn) == Status::Connected;
        let all = self.by_key.get(key)?;
        let usable = || all.iter().rev().filter(usable);
        usable().find(|conn| stands(conn)).or_else(|| usable().next()).copied()
    }

    // ---- hold times

    /// Starts to look after a connection that is no longer wanted by anybody once it has been
    /// quiet for `time`; of several explicit wishes the longest counts.
    pub(super) fn hold_for(
        &mut self,
        now: Instant,
        conn: ConnHandle,
        time: Duration,
        explicit: bool,
    ) {
        let record = self.ensure(conn);
        let old = record.hold;
        let mut hold = old.unwrap_or_else(|| Hold::new(now, time));
        if explicit {
            hold.time = if hold.explicit { hold.time.max(time) } else { time };
            hold.explicit = true;
        }
        hold.moved(now);
        record.hold = Some(hold);
        self.rearm(conn, old.and_then(|h| h.look_at), hold.look_at);
    }

    /// Looks after it no longer.
    pub(super) fn hold_no_more(&mut self, conn: ConnHandle) {
        let old = self.records.get_mut(&conn).and_then(|r| r.hold.take());
        self.rearm(conn, old.and_then(|h| h.look_at), None);
    }

    /// Runs `f` on the machine of a connection that has one.
    pub(super) fn with_hold<R>(
        &mut self,
        conn: ConnHandle,
        f: impl FnOnce(&mut Hold) -> R,
    ) -> Option<R> {
        let hold = self.records.get_mut(&conn)?.hold.as_mut()?;
        let before = hold.look_at;
        let result = f(hold);
        let after = hold.look_at;
        self.rearm(conn, before, after);
        Some(result)
    }

    fn rearm(&mut self, conn: ConnHandle, before: Option<Instant>, after: Option<Instant>) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.looks.remove(&(at, conn));
        }
        if let Some(at) = after {
            self.looks.insert((at, conn));
        }
    }

    /// A connection whose hold time may be over.
    pub(super) fn due(&self, now: Instant) -> Option<ConnHandle> {
        self.looks.first().filter(|(at, _)| *at <= now).map(|(_, conn)| *conn)
    }

    /// When the next one may be.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }
}

fn is_usable(endpoint: &Endpoint, conn: ConnHandle) -> bool {
    matches!(endpoint.status(conn), Status::Connecting | Status::FindingRoute | Status::Connected)
}
