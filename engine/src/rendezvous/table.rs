//! Where the clients of a server with several shards are: a router over one table that its shards
//! share, and their mailboxes.

use super::server::{Command, SourceHandler};
use crate::engine::Engine;
use crate::handle::Conn;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use trunkline_proto::rendezvous::event::EventRef;
use trunkline_proto::rendezvous::{
    AppId, ClientId, LocalRouter, PairingRole, Party, Relayed, Route, Routed, Router,
};

/// The clients of all shards, and the way to the shards.
#[derive(Debug, Default)]
pub(crate) struct Table {
    clients: Mutex<LocalRouter<Conn>>,
    /// Counts the changes of `clients`; changed under its lock.
    version: AtomicU64,
    engine: OnceLock<Weak<Engine<SourceHandler>>>,
}

impl Table {
    /// The engine runs.
    pub(crate) fn started(&self, engine: &Arc<Engine<SourceHandler>>) {
        let _ = self.engine.set(Arc::downgrade(engine));
    }

    fn clients(&self) -> MutexGuard<'_, LocalRouter<Conn>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes them.
    fn change<R>(&self, f: impl FnOnce(&mut LocalRouter<Conn>) -> R) -> R {
        let mut clients = self.clients();
        let result = f(&mut clients);
        self.version.fetch_add(1, Ordering::Release);
        result
    }

    fn post(&self, shard: u8, command: Command) -> Result<(), Command> {
        match self.engine.get().and_then(Weak::upgrade) {
            Some(engine) => engine.post(shard, command).map_err(|full| full.0),
            None => Err(command),
        }
    }
}

/// The router of one shard.
#[derive(Debug)]
pub(crate) struct ShardRouter {
    table: Arc<Table>,
    shard: u8,
    /// Clients of other shards whose place was taken, and whose shard had no room to be told.
    untold: Vec<Conn>,
    found: Found,
}

/// Recipients of packets, as the table had them: packets are many, and shall not meet at its lock.
#[derive(Debug, Default)]
struct Found {
    version: u64,
    clients: HashMap<ClientId, Vec<(AppId, Conn)>>,
}

impl Found {
    /// The client of this id in an application.
    fn get(&mut self, table: &Table, app: &AppId, client: &str) -> Option<Conn> {
        if table.version.load(Ordering::Acquire) == self.version
            && let Some(known) = self.clients.get(client)
            && let Some((_, conn)) = known.iter().find(|(known, _)| known == app)
        {
            return Some(*conn);
        }
        let (conn, version) = {
            let clients = table.clients();
            (clients.find(app, client), table.version.load(Ordering::Acquire))
        };
        if version != self.version {
            self.version = version;
            self.clients.clear();
        }
        let conn = conn?;
        let id = ClientId::new(client).ok()?;
        self.clients.entry(id).or_default().push((app.clone(), conn));
        Some(conn)
    }
}

impl ShardRouter {
    pub(crate) fn new(table: Arc<Table>, shard: u8) -> Self {
        Self { table, shard, untold: Vec::new(), found: Found::default() }
    }

    /// Tells shards what they could not be told before.
    pub(crate) fn retry(&mut self) {
        let table = &self.table;
        self.untold.retain(|conn| table.post(conn.shard(), Command::Released(*conn)).is_err());
    }
}

impl Router<Conn> for ShardRouter {
    fn attach(&mut self, party: &Party, key: Conn) -> Option<Conn> {
        let old = self.table.change(|clients| clients.attach(party, key))?;
        if old.shard() == self.shard {
            return Some(old);
        }
        if self.table.post(old.shard(), Command::Released(old)).is_err() {
            self.untold.push(old);
        }
        None
    }

    fn detach(&mut self, party: &Party, key: Conn) {
        self.table.change(|clients| clients.detach(party, key));
    }

    fn presence(&self, app: &AppId, client: &ClientId) -> Option<PairingRole> {
        self.table.clients().presence(app, client)
    }

    fn route(&mut self, from: &Party, event: &EventRef<'_>) -> Route<Conn> {
        let to = match self.table.clients().route(from, event) {
            Route::Here(to) => to,
            other => return other,
        };
        if to.shard() == self.shard {
            return Route::Here(to);
        }
        let Ok(routed) = Routed::new(from, event) else { return Route::Absent };
        match self.table.post(to.shard(), Command::Routed(Box::new(routed))) {
            Ok(()) => Route::Elsewhere,
            Err(_) => Route::Full,
        }
    }

    fn relay(&mut self, from: &Party, to: &str, packet: &[u8]) -> Route<Conn> {
        let Some(key) = self.found.get(&self.table, &from.app, to) else { return Route::Absent };
        if key.shard() == self.shard {
            return Route::Here(key);
        }
        let Ok(relayed) = Relayed::new(from, to, packet) else { return Route::Absent };
        match self.table.post(key.shard(), Command::Relayed(Box::new(relayed))) {
            Ok(()) => Route::Elsewhere,
            Err(_) => Route::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(app: &str, client: &str) -> Party {
        let (app, client) = (AppId::new(app).unwrap(), ClientId::new(client).unwrap());
        Party { app, client, role: PairingRole::Responder }
    }

    const fn conn(number: u64) -> Conn {
        Conn::from_bits(number)
    }

    /// What a shard remembers of recipients is as new as the table.
    #[test]
    fn packets_find_the_newest_and_nobody_who_has_gone() {
        let table = Arc::new(Table::default());
        let mut shard = ShardRouter::new(table.clone(), 0);
        let mut other = ShardRouter::new(table, 0);
        let (from, bob) = (party("a", "alice"), party("a", "bob"));
        assert_eq!(shard.relay(&from, "bob", b"x"), Route::Absent);
        for number in [1, 2, 3] {
            other.attach(&bob, conn(number));
            for _ in 0..3 {
                assert_eq!(shard.relay(&from, "bob", b"x"), Route::Here(conn(number)));
            }
            // Of another application: another one.
            other.attach(&party("b", "bob"), conn(9));
            assert_eq!(shard.relay(&from, "bob", b"x"), Route::Here(conn(number)));
            assert_eq!(shard.relay(&party("b", "x"), "bob", b"x"), Route::Here(conn(9)));
            assert_eq!(shard.relay(&party("c", "x"), "bob", b"x"), Route::Absent);
        }
        other.detach(&bob, conn(1));
        assert_eq!(shard.relay(&from, "bob", b"x"), Route::Here(conn(3)), "a newer one stays");
        other.detach(&bob, conn(3));
        assert_eq!(shard.relay(&from, "bob", b"x"), Route::Absent);
    }
}
