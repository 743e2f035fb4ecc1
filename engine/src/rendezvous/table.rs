//! Where the clients of a server with several shards are: a router over one table that its shards
//! share, and their mailboxes.

use super::server::{Command, SourceHandler};
use crate::engine::Engine;
use crate::handle::Conn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use trunkline_proto::rendezvous::event::EventRef;
use trunkline_proto::rendezvous::{
    AppId, ClientId, LocalRouter, PairingRole, Party, Relayed, Route, Routed, Router,
};

/// The clients of all shards, and the way to the shards.
#[derive(Debug, Default)]
pub(crate) struct Table {
    clients: Mutex<LocalRouter<Conn>>,
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
}

impl ShardRouter {
    pub(crate) const fn new(table: Arc<Table>, shard: u8) -> Self {
        Self { table, shard, untold: Vec::new() }
    }

    /// Tells shards what they could not be told before.
    pub(crate) fn retry(&mut self) {
        let table = &self.table;
        self.untold.retain(|conn| table.post(conn.shard(), Command::Released(*conn)).is_err());
    }
}

impl Router<Conn> for ShardRouter {
    fn attach(&mut self, party: &Party, key: Conn) -> Option<Conn> {
        let old = self.table.clients().attach(party, key)?;
        if old.shard() == self.shard {
            return Some(old);
        }
        if self.table.post(old.shard(), Command::Released(old)).is_err() {
            self.untold.push(old);
        }
        None
    }

    fn detach(&mut self, party: &Party, key: Conn) {
        self.table.clients().detach(party, key);
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
        let key = match self.table.clients().relay(from, to, packet) {
            Route::Here(key) => key,
            other => return other,
        };
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
